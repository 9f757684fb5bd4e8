/* page_check.c - a file system between SQLite and its files.
 *
 *     0                                              4088      4096
 *     +----------------------------------------------+----------+
 *     | page                                         | checksum |   of a database, see (1)
 *     +----------------------------------------------+----------+
 *
 *     0        32        56               4152      4176
 *     +--------+---------+----------------+---------+-----------     of its write-ahead log, see (5)
 *     | header | frame 1 | page           | frame 2 | page
 *     +--------+---------+----------------+---------+-----------
 *                 ↑ sum over the sum before, 8 bytes of this head, and the page
 *
 * (1) The checksum is XXH3 over what is left of it, little endian, seeded with the page's number and
 *     the file's name: names of read models are never used twice, and never change. It is made when a
 *     page is written to the database, which is when the log is brought over; what SQLite holds in the
 *     reserved bytes before that means nothing, and is not touched.
 * (2) Which files have them is said by page 1's count of reserved bytes. A damaged count is found out:
 *     the checksum is right for the count that should be there.
 * (3) SQLite reads the first 100 bytes before it has looked at the log, which may be what mends them
 *     after a crash: they are passed on unchecked. It takes a page's size from them, and reads page 1
 *     whole before it believes that: checked, whatever size it asks for.
 * (4) A page that is missing or nothing but zeros was never written. Where pages go straight into the
 *     database SQLite may leave one out that it had no more use for, and read it again as it takes it into
 *     use. With a log every page is in it, and so in the database later: there it is damage.
 * (5) A frame is checked alone: from the sum in the head of the frame before. What the log had before it
 *     was begun anew has other salts.
 * (6) A transaction that outgrows SQLite's memory writes frames, and may write their pages again in
 *     place; heads are put right before it commits. Till then the connection that does so reads its frames
 *     from the first such one on unchecked (`unsure_from`). Nobody else reads them.
 * (7) SQLite cuts or removes its log when the database has all of it. A power cut may bring the log back,
 *     and where the file system had given its blocks to others already (ext4 with data=writeback or
 *     without a journal), or a sync failed half way, only a part of it: older pages over newer ones,
 *     which all have the right checksums. So its header is overwritten and synced before. */
#include "projection/page_check.h"

#include "base/hash.h"
#include "base/planted.h"
#include "base/rw.h"

#include <assert.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>

#define PAGE_SIZE       PAGE_CHECK_PAGE_SIZE
#define BODY_SIZE       (PAGE_SIZE - PAGE_CHECK_SIZE)
#define RESERVED_AT     20  /* in page 1: reserved bytes a page */
#define HEADER_SIZE     100 /* of a database, in page 1 */
#define LOG_HEADER_SIZE 32
#define FRAME_HEAD_SIZE 24
#define FRAME_SIZE      (FRAME_HEAD_SIZE + PAGE_SIZE)
/* In a frame's head; the log's own header ends like one. */
#define SALT_AT 8
#define SUM_AT  16

struct checked_vfs {
    sqlite3_vfs base;
    sqlite3_vfs *under;
    char name[64];
    unsigned references;
    struct checked_vfs *next;
};

struct checked_file {
    sqlite3_file base; /* the file under it stands behind this struct */
    char name[128];    /* without its folder */
    bool is_log;
    /* Of a database. */
    uint64_t seed;
    bool has_sums; /* (2) */
    bool may_lack; /* (4) */
    /* Of a log: frames, from 1; 0: none. */
    int64_t head_written; /* whose head was the last thing written */
    int64_t unsure_from;  /* (6) */
};
static_assert(sizeof(struct checked_file) % 8 == 0, "the file behind it is aligned");

static struct checked_vfs *all;      /* mutex() */
static _Thread_local char words[400]; /* see page_check_words */

static sqlite3_mutex *mutex(void)
{
    return sqlite3_mutex_alloc(SQLITE_MUTEX_STATIC_VFS2);
}

const char *page_check_words(void)
{
    return words;
}

static struct checked_file *file_of(sqlite3_file *base)
{
    return (struct checked_file *)base;
}

static sqlite3_file *under_of(sqlite3_file *base)
{
    return (sqlite3_file *)((uint8_t *)base + sizeof(struct checked_file));
}

static int damaged(const struct checked_file *f, const char *part, uint64_t number,
                   const char *what)
{
    (void)snprintf(words, sizeof words, "%s: %s %llu %s", f->name, part,
                   (unsigned long long)number, what);
    return SQLITE_IOERR_DATA;
}

/* ---- pages ------------------------------------------------------------------------------------ */

static void page_sum(const struct checked_file *f, uint64_t number, const uint8_t *page,
                     uint8_t out[PAGE_CHECK_SIZE])
{
    if (PLANTED(PAGE_OF_ANY_PLACE)) number = 0;
    put_uint(out, xxh64(f->seed + number, (deed_bytes){page, BODY_SIZE}), PAGE_CHECK_SIZE);
}

static bool page_is_good(const struct checked_file *f, uint64_t number, const uint8_t *page)
{
    uint8_t sum[PAGE_CHECK_SIZE];
    page_sum(f, number, page, sum);
    return memcmp(sum, page + BODY_SIZE, sizeof sum) == 0 || PLANTED(PAGE_UNCHECKED);
}

static bool page_is_empty(const uint8_t *page)
{
    return page[0] == 0 && memcmp(page, page + 1, PAGE_SIZE - 1) == 0;
}

/* See (2). */
static void look_at_first(struct checked_file *f, const uint8_t *page)
{
    if (f->has_sums) return;
    uint8_t as_meant[PAGE_SIZE];
    memcpy(as_meant, page, PAGE_SIZE);
    as_meant[RESERVED_AT] = PAGE_CHECK_SIZE;
    f->has_sums = page[RESERVED_AT] == PAGE_CHECK_SIZE || page_is_good(f, 1, as_meant);
}

/* What the file below said (`rc`) to a read of this page. */
static int page_checked(struct checked_file *f, int rc, uint64_t number, const uint8_t *page)
{
    if (rc != SQLITE_OK && rc != SQLITE_IOERR_SHORT_READ) return rc;
    if (number == 1 && rc == SQLITE_OK) look_at_first(f, page);
    if (!f->has_sums) return rc;
    if (f->may_lack && page_is_empty(page)) return rc;
    if (rc != SQLITE_OK) return damaged(f, "page", number, "is cut off");
    return page_is_good(f, number, page)
               ? rc
               : damaged(f, "page", number, "is damaged: its checksum does not match");
}

/* A part of one page, or more than one. */
static int odd_read(struct checked_file *f, sqlite3_file *under, uint8_t *out, int64_t size,
                    int64_t offset)
{
    uint8_t page[PAGE_SIZE];
    int result = SQLITE_OK;
    for (int64_t done = 0; done < size;) {
        int64_t within = (offset + done) % PAGE_SIZE, start = offset + done - within;
        int64_t part = size - done < PAGE_SIZE - within ? size - done : PAGE_SIZE - within;
        int rc = under->pMethods->xRead(under, page, PAGE_SIZE, start);
        rc = page_checked(f, rc, (uint64_t)(start / PAGE_SIZE) + 1, page);
        if (rc != SQLITE_OK && rc != SQLITE_IOERR_SHORT_READ) return rc;
        if (rc != SQLITE_OK) result = rc;
        memcpy(out + done, page + within, (size_t)part);
        done += part;
    }
    return result;
}

static int page_read(sqlite3_file *base, void *out, int size, sqlite3_int64 offset)
{
    struct checked_file *f = file_of(base);
    sqlite3_file *under = under_of(base);
    if (size == PAGE_SIZE && offset % PAGE_SIZE == 0) {
        int rc = under->pMethods->xRead(under, out, size, offset);
        return page_checked(f, rc, (uint64_t)(offset / PAGE_SIZE) + 1, out);
    }
    bool header = offset + size <= HEADER_SIZE; /* (3) */
    if (header || !f->has_sums) return under->pMethods->xRead(under, out, size, offset);
    return odd_read(f, under, out, size, offset);
}

static int page_write(sqlite3_file *base, const void *bytes, int size, sqlite3_int64 offset)
{
    struct checked_file *f = file_of(base);
    sqlite3_file *under = under_of(base);
    const uint8_t *page = bytes;
    bool whole = size == PAGE_SIZE && offset % PAGE_SIZE == 0;
    if (whole && offset == 0 && page[RESERVED_AT] == PAGE_CHECK_SIZE) f->has_sums = true;
    if (!whole || !f->has_sums) return under->pMethods->xWrite(under, bytes, size, offset);
    uint8_t copy[PAGE_SIZE];
    memcpy(copy, page, BODY_SIZE);
    page_sum(f, (uint64_t)(offset / PAGE_SIZE) + 1, copy, copy + BODY_SIZE);
    return under->pMethods->xWrite(under, copy, PAGE_SIZE, offset);
}

/* ---- frames of the log ------------------------------------------------------------------------ */

static uint32_t word_at(const uint8_t *at, bool swapped)
{
    uint32_t word;
    memcpy(&word, at, sizeof word);
    return swapped ? __builtin_bswap32(word) : word;
}

static uint32_t stored_word(const uint8_t *at) /* big endian, always */
{
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

/* SQLite's sum of its log, in this machine's order of bytes or in the other one. */
static void log_sum(const uint8_t *bytes, size_t size, bool swapped, uint32_t sum[2])
{
    uint32_t a = sum[0], b = sum[1];
    for (size_t i = 0; i < size; i += 8) {
        a += word_at(bytes + i, swapped) + b;
        b += word_at(bytes + i + 4, swapped) + a;
    }
    sum[0] = a;
    sum[1] = b;
}

/* `before` ends as a frame's head does; see (5). */
static bool frame_is_good(const uint8_t *before, const uint8_t *head, bool swapped)
{
    uint32_t sum[2] = {stored_word(before + SUM_AT), stored_word(before + SUM_AT + 4)};
    log_sum(head, SALT_AT, swapped, sum);
    log_sum(head + FRAME_HEAD_SIZE, PAGE_SIZE, swapped, sum);
    return sum[0] == stored_word(head + SUM_AT) && sum[1] == stored_word(head + SUM_AT + 4) &&
           memcmp(before + SALT_AT, head + SALT_AT, SUM_AT - SALT_AT) == 0;
}

/* The frame whose page begins here; 0: none does. */
static int64_t frame_at(int64_t offset)
{
    int64_t from = offset - LOG_HEADER_SIZE - FRAME_HEAD_SIZE;
    return from >= 0 && from % FRAME_SIZE == 0 ? from / FRAME_SIZE + 1 : 0;
}

static int frame_read(sqlite3_file *base, void *out, int size, sqlite3_int64 offset)
{
    struct checked_file *f = file_of(base);
    sqlite3_file *under = under_of(base);
    int64_t frame = size == PAGE_SIZE ? frame_at(offset) : 0;
    bool unsure = f->unsure_from != 0 && frame >= f->unsure_from;
    if (frame == 0 || unsure || PLANTED(FRAME_UNCHECKED)) {
        return under->pMethods->xRead(under, out, size, offset);
    }
    /* From the head before it, to the end: one read costs less than two. */
    uint8_t bytes[FRAME_SIZE + FRAME_SIZE];
    int64_t head_at = offset - FRAME_HEAD_SIZE;
    int64_t before_at = frame == 1 ? LOG_HEADER_SIZE - FRAME_HEAD_SIZE : head_at - FRAME_SIZE;
    int rc = under->pMethods->xRead(under, bytes, (int)(offset + size - before_at), before_at);
    if (rc == SQLITE_IOERR_SHORT_READ) return damaged(f, "frame", (uint64_t)frame, "is cut off");
    if (rc != SQLITE_OK) return rc;
    const uint8_t *head = bytes + (head_at - before_at);
    if (!frame_is_good(bytes, head, false) && !frame_is_good(bytes, head, true)) {
        return damaged(f, "frame", (uint64_t)frame, "is damaged: its checksum does not match");
    }
    memcpy(out, head + FRAME_HEAD_SIZE, PAGE_SIZE);
    return SQLITE_OK;
}

/* See (6): a page that is written without its head is written again. */
static int frame_write(sqlite3_file *base, const void *bytes, int size, sqlite3_int64 offset)
{
    struct checked_file *f = file_of(base);
    sqlite3_file *under = under_of(base);
    int64_t of_head = size <= FRAME_HEAD_SIZE ? frame_at(offset + size) : 0;
    int64_t of_page = size == PAGE_SIZE ? frame_at(offset) : 0;
    if (of_head != 0) {
        f->head_written = of_head;
        if (of_head <= f->unsure_from) f->unsure_from = 0;
    }
    if (of_page != 0) {
        bool again = of_page != f->head_written;
        if (again && (f->unsure_from == 0 || of_page < f->unsure_from)) f->unsure_from = of_page;
        f->head_written = 0;
    }
    return under->pMethods->xWrite(under, bytes, size, offset);
}

/* ---- what is passed on ------------------------------------------------------------------------ */

static int file_close(sqlite3_file *base)
{
    sqlite3_file *under = under_of(base);
    return under->pMethods->xClose(under);
}

/* (7) Without its header no frame of it counts. */
static int log_void(sqlite3_file *log)
{
    static const uint8_t zeros[LOG_HEADER_SIZE];
    sqlite3_int64 size = 0;
    int rc = log->pMethods->xFileSize(log, &size);
    if (rc != SQLITE_OK || size == 0 || PLANTED(WAL_CUT_WHOLE)) return rc;
    rc = log->pMethods->xWrite(log, zeros, sizeof zeros, 0);
    return rc == SQLITE_OK ? log->pMethods->xSync(log, SQLITE_SYNC_NORMAL) : rc;
}

static int file_truncate(sqlite3_file *base, sqlite3_int64 size)
{
    sqlite3_file *under = under_of(base);
    int rc = file_of(base)->is_log && size == 0 ? log_void(under) : SQLITE_OK;
    return rc == SQLITE_OK ? under->pMethods->xTruncate(under, size) : rc;
}

static int file_sync(sqlite3_file *base, int flags)
{
    sqlite3_file *under = under_of(base);
    return under->pMethods->xSync(under, flags);
}

static int file_size(sqlite3_file *base, sqlite3_int64 *out_size)
{
    sqlite3_file *under = under_of(base);
    return under->pMethods->xFileSize(under, out_size);
}

static int file_lock(sqlite3_file *base, int level)
{
    sqlite3_file *under = under_of(base);
    return under->pMethods->xLock(under, level);
}

static int file_unlock(sqlite3_file *base, int level)
{
    sqlite3_file *under = under_of(base);
    return under->pMethods->xUnlock(under, level);
}

static int file_reserved(sqlite3_file *base, int *out_reserved)
{
    sqlite3_file *under = under_of(base);
    return under->pMethods->xCheckReservedLock(under, out_reserved);
}

static int file_control(sqlite3_file *base, int what, void *argument)
{
    sqlite3_file *under = under_of(base);
    return under->pMethods->xFileControl(under, what, argument);
}

static int file_sector_size(sqlite3_file *base)
{
    sqlite3_file *under = under_of(base);
    return under->pMethods->xSectorSize(under);
}

static int file_device(sqlite3_file *base)
{
    sqlite3_file *under = under_of(base);
    return under->pMethods->xDeviceCharacteristics(under);
}

static int index_map(sqlite3_file *base, int number, int size, int extend, void volatile **out)
{
    sqlite3_file *under = under_of(base);
    file_of(base)->may_lack = false; /* (4): there is a log */
    return under->pMethods->xShmMap(under, number, size, extend, out);
}

static int index_lock(sqlite3_file *base, int first, int count, int flags)
{
    sqlite3_file *under = under_of(base);
    return under->pMethods->xShmLock(under, first, count, flags);
}

static void index_barrier(sqlite3_file *base)
{
    sqlite3_file *under = under_of(base);
    under->pMethods->xShmBarrier(under);
}

static int index_unmap(sqlite3_file *base, int remove)
{
    sqlite3_file *under = under_of(base);
    return under->pMethods->xShmUnmap(under, remove);
}

/* Of version 2: SQLite does not map the file into memory, where nobody would see it read. */
#define METHODS(read, write)                                                                       \
    {                                                                                              \
        .iVersion = 2, .xClose = file_close, .xRead = (read), .xWrite = (write),                   \
        .xTruncate = file_truncate, .xSync = file_sync, .xFileSize = file_size,                    \
        .xLock = file_lock, .xUnlock = file_unlock, .xCheckReservedLock = file_reserved,           \
        .xFileControl = file_control, .xSectorSize = file_sector_size,                             \
        .xDeviceCharacteristics = file_device, .xShmMap = index_map, .xShmLock = index_lock,       \
        .xShmBarrier = index_barrier, .xShmUnmap = index_unmap,                                    \
    }
static const sqlite3_io_methods database_methods = METHODS(page_read, page_write);
static const sqlite3_io_methods log_methods = METHODS(frame_read, frame_write);

/* ---- opening ---------------------------------------------------------------------------------- */

static sqlite3_vfs *below(sqlite3_vfs *base)
{
    return ((struct checked_vfs *)base)->under;
}

/* Its first page may not be there yet, or not be readable; then what is written says it. */
static void database_opened(struct checked_file *f, sqlite3_file *under, int flags)
{
    uint8_t page[PAGE_SIZE];
    f->seed = xxh64(1, deed_bytes_of(deed_str_of(f->name)));
    f->may_lack = (flags & SQLITE_OPEN_READONLY) == 0;
    if (under->pMethods->xRead(under, page, PAGE_SIZE, 0) == SQLITE_OK) look_at_first(f, page);
}

static int vfs_open(sqlite3_vfs *base, const char *path, sqlite3_file *out, int flags,
                    int *out_flags)
{
    sqlite3_vfs *vfs = below(base);
    bool is_database = (flags & SQLITE_OPEN_MAIN_DB) != 0, is_log = (flags & SQLITE_OPEN_WAL) != 0;
    if (path == NULL || (!is_database && !is_log)) {
        return vfs->xOpen(vfs, path, out, flags, out_flags);
    }
    struct checked_file *f = file_of(out);
    sqlite3_file *under = under_of(out);
    const char *slash = strrchr(path, '/');
    *f = (struct checked_file){.is_log = is_log};
    (void)snprintf(f->name, sizeof f->name, "%s", slash == NULL ? path : slash + 1);
    memset(under, 0, sizeof *under);
    int rc = vfs->xOpen(vfs, path, under, flags, out_flags);
    if (rc != SQLITE_OK) {
        if (under->pMethods != NULL) (void)under->pMethods->xClose(under);
        return rc;
    }
    f->base.pMethods = is_log ? &log_methods : &database_methods;
    if (is_database) database_opened(f, under, flags);
    return SQLITE_OK;
}

/* (7) One that cannot be opened is not there, or will not be removed either. */
static int log_void_at(sqlite3_vfs *vfs, const char *path)
{
    sqlite3_file *log = sqlite3_malloc(vfs->szOsFile);
    if (log == NULL) return SQLITE_NOMEM;
    memset(log, 0, (size_t)vfs->szOsFile);
    int rc = vfs->xOpen(vfs, path, log, SQLITE_OPEN_READWRITE | SQLITE_OPEN_WAL, NULL);
    rc = rc == SQLITE_OK ? log_void(log) : SQLITE_OK;
    if (log->pMethods != NULL) (void)log->pMethods->xClose(log);
    sqlite3_free(log);
    return rc;
}

static int vfs_delete(sqlite3_vfs *base, const char *path, int sync_dir)
{
    static const char suffix[] = "-wal";
    sqlite3_vfs *vfs = below(base);
    size_t len = strlen(path), end = sizeof suffix - 1;
    bool is_log = len > end && memcmp(path + len - end, suffix, end) == 0;
    int rc = is_log ? log_void_at(vfs, path) : SQLITE_OK;
    return rc == SQLITE_OK ? vfs->xDelete(vfs, path, sync_dir) : rc;
}

static int vfs_access(sqlite3_vfs *base, const char *path, int what, int *out_yes)
{
    return below(base)->xAccess(below(base), path, what, out_yes);
}

static int vfs_full_pathname(sqlite3_vfs *base, const char *path, int size, char *out)
{
    return below(base)->xFullPathname(below(base), path, size, out);
}

static int vfs_randomness(sqlite3_vfs *base, int size, char *out)
{
    return below(base)->xRandomness(below(base), size, out);
}

static int vfs_sleep(sqlite3_vfs *base, int microseconds)
{
    return below(base)->xSleep(below(base), microseconds);
}

static int vfs_time_days(sqlite3_vfs *base, double *out_days)
{
    return below(base)->xCurrentTime(below(base), out_days);
}

static int vfs_time_ms(sqlite3_vfs *base, sqlite3_int64 *out_ms)
{
    return below(base)->xCurrentTimeInt64(below(base), out_ms);
}

static int vfs_last_error(sqlite3_vfs *base, int size, char *out)
{
    return below(base)->xGetLastError(below(base), size, out);
}

/* ---- one for each below: the mutex is held ---------------------------------------------------- */

static struct checked_vfs *vfs_make(sqlite3_vfs *under)
{
    struct checked_vfs *vfs = calloc(1, sizeof *vfs);
    if (vfs == NULL) return NULL;
    vfs->under = under;
    (void)snprintf(vfs->name, sizeof vfs->name, "checked-%.50s", under->zName);
    vfs->base = (sqlite3_vfs){
        .iVersion = 2,
        .szOsFile = (int)sizeof(struct checked_file) + under->szOsFile,
        .mxPathname = under->mxPathname,
        .zName = vfs->name,
        .xOpen = vfs_open,
        .xDelete = vfs_delete,
        .xAccess = vfs_access,
        .xFullPathname = vfs_full_pathname,
        .xRandomness = vfs_randomness,
        .xSleep = vfs_sleep,
        .xCurrentTime = vfs_time_days,
        .xGetLastError = vfs_last_error,
        .xCurrentTimeInt64 = vfs_time_ms,
    };
    if (sqlite3_vfs_register(&vfs->base, 0) != SQLITE_OK) {
        free(vfs);
        return NULL;
    }
    vfs->next = all;
    all = vfs;
    return vfs;
}

deed_status page_check_hold(const char *under, const char **out_name, struct deed_error *err)
{
    sqlite3_vfs *below_it = sqlite3_initialize() == SQLITE_OK ? sqlite3_vfs_find(under) : NULL;
    if (below_it == NULL) return deed_fail(err, DEED_NO_MEMORY, "no memory for SQLite");
    sqlite3_mutex_enter(mutex());
    struct checked_vfs *vfs = all;
    while (vfs != NULL && vfs->under != below_it)
        vfs = vfs->next;
    if (vfs == NULL) vfs = vfs_make(below_it);
    if (vfs != NULL) vfs->references++;
    sqlite3_mutex_leave(mutex());
    if (vfs == NULL) return deed_fail(err, DEED_NO_MEMORY, "no memory for SQLite's files");
    *out_name = vfs->name;
    return DEED_OK;
}

void page_check_release(const char *name)
{
    sqlite3_mutex_enter(mutex());
    struct checked_vfs **at = &all;
    while (*at != NULL && strcmp((*at)->name, name) != 0)
        at = &(*at)->next;
    struct checked_vfs *vfs = *at;
    assert(vfs != NULL && vfs->references > 0);
    if (--vfs->references == 0) {
        *at = vfs->next;
        (void)sqlite3_vfs_unregister(&vfs->base);
        free(vfs);
    }
    sqlite3_mutex_leave(mutex());
}
