/* vfs.c - SQLite's virtual file system over `struct os`.
 *
 *     connection ── vfs_file ──┐                 ┌── locks of the database file
 *     connection ── vfs_file ──┼── vfs_node ─────┼── the write-ahead log's index, in memory
 *                              │   (by path)     └── its eight locks
 *                              └── os_file, os_dir
 *
 * (1) A node is of one database file and lives as long as a handle on it. What was removed is found
 *     under its path no more, so that a new file there gets a node of its own.
 * (2) node->level is the highest lock that a handle has; more than SHARED at most one has.
 * (3) A slot of the index is held by many readers (above 0) or by one writer (-1).
 * (4) A journal or write-ahead log that this handle has made is not there after a power cut unless
 *     its directory was synced: that is done with its first sync, and before SQLite believes it.
 * (5) Everything here is guarded by SQLite's mutex for virtual file systems; the file operations,
 *     which may be slow, are outside of it. */
#include "projection/vfs.h"

#include <assert.h>
#include <sqlite3.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

/* Like SQLite's own on Unix. */
#define PATH_SIZE_MAX 4096
#define SECTOR_SIZE   4096

/* Milliseconds between SQLite's day zero and 1970. */
#define JULIAN_EPOCH_MS INT64_C(210866760000000)
#define NS_PER_MS       INT64_C(1000000)

struct vfs_node {
    struct vfs_node *next;
    char *path; /* NULL: removed, see (1) */
    unsigned references;
    int level; /* (2) */
    unsigned shared;
    void **regions; /* of the index */
    int region_count;
    unsigned index_users;
    int slots[SQLITE_SHM_NLOCK]; /* (3) */
};

struct vfs {
    sqlite3_vfs base;
    char name[24];
    struct os *os;
    unsigned references;
    struct vfs_node *nodes;
    struct vfs *next;
};

struct vfs_file {
    sqlite3_file base;
    struct vfs *vfs;
    struct os_dir *dir;
    struct os_file *file;
    struct vfs_node *node; /* of a database file, else NULL */
    char *remove_name;     /* removed when it is closed */
    int level;
    bool index_open;
    unsigned slots_shared, slots_exclusive; /* bits */
    bool sync_dir;                          /* (4) */
    bool tears;                             /* as the file's URI says, see database.h */
    bool read_only;
};

static struct vfs *all;         /* (5) */
static unsigned long long made; /* (5), for names */

static sqlite3_mutex *mutex(void)
{
    return sqlite3_mutex_alloc(SQLITE_MUTEX_STATIC_VFS1);
}

/* What SQLite is told; `otherwise` where the failure is no special one. */
static int code_of(deed_status status, int otherwise)
{
    if (status == DEED_OK) return SQLITE_OK;
    if (status == DEED_FULL) return SQLITE_FULL;
    if (status == DEED_NO_MEMORY) return SQLITE_IOERR_NOMEM;
    return otherwise;
}

static struct vfs_file *file_of(sqlite3_file *base)
{
    return (struct vfs_file *)base;
}

/* ---- nodes: the mutex is held ----------------------------------------------------------------- */

static void node_drop(struct vfs *vfs, struct vfs_node *node)
{
    assert(node->references > 0);
    if (--node->references > 0) return;
    assert(node->index_users == 0);
    struct vfs_node **at = &vfs->nodes;
    while (*at != node)
        at = &(*at)->next;
    *at = node->next;
    sqlite3_free(node->path);
    sqlite3_free(node);
}

static struct vfs_node *node_find(struct vfs *vfs, const char *path)
{
    for (struct vfs_node *node = vfs->nodes; node != NULL; node = node->next) {
        if (node->path != NULL && strcmp(node->path, path) == 0) return node;
    }
    return NULL;
}

static struct vfs_node *node_hold(struct vfs *vfs, const char *path)
{
    struct vfs_node *node = node_find(vfs, path);
    if (node == NULL) {
        node = sqlite3_malloc(sizeof *node);
        char *copy = sqlite3_mprintf("%s", path);
        if (node == NULL || copy == NULL) {
            sqlite3_free(node);
            sqlite3_free(copy);
            return NULL;
        }
        *node = (struct vfs_node){.next = vfs->nodes, .path = copy, .level = SQLITE_LOCK_NONE};
        vfs->nodes = node;
    }
    node->references++;
    return node;
}

static void node_forget(struct vfs *vfs, const char *path)
{
    struct vfs_node *node = node_find(vfs, path);
    if (node == NULL) return;
    sqlite3_free(node->path);
    node->path = NULL;
}

/* ---- one file --------------------------------------------------------------------------------- */

static int file_close(sqlite3_file *base)
{
    struct vfs_file *f = file_of(base);
    if (f->node != NULL) {
        (void)base->pMethods->xUnlock(base, SQLITE_LOCK_NONE);
        (void)base->pMethods->xShmUnmap(base, 0);
        sqlite3_mutex_enter(mutex());
        node_drop(f->vfs, f->node);
        sqlite3_mutex_leave(mutex());
    }
    os_file_close(f->file);
    if (f->remove_name != NULL) (void)!os_remove(f->dir, f->remove_name, NULL);
    sqlite3_free(f->remove_name);
    os_dir_close(f->dir);
    return SQLITE_OK;
}

static int file_read(sqlite3_file *base, void *out, int size, sqlite3_int64 offset)
{
    size_t got = 0;
    deed_status status =
        os_file_read(file_of(base)->file, (uint64_t)offset, out, (size_t)size, &got, NULL);
    if (status != DEED_OK) return code_of(status, SQLITE_IOERR_READ);
    if (got == (size_t)size) return SQLITE_OK;
    memset((uint8_t *)out + got, 0, (size_t)size - got);
    return SQLITE_IOERR_SHORT_READ;
}

static int file_write(sqlite3_file *base, const void *bytes, int size, sqlite3_int64 offset)
{
    deed_status status = os_file_write(file_of(base)->file, (uint64_t)offset,
                                       (deed_bytes){bytes, (size_t)size}, NULL);
    return code_of(status, SQLITE_IOERR_WRITE);
}

static int file_truncate(sqlite3_file *base, sqlite3_int64 size)
{
    deed_status status = os_file_truncate(file_of(base)->file, (uint64_t)size, NULL);
    return code_of(status, SQLITE_IOERR_TRUNCATE);
}

static int file_sync(sqlite3_file *base, int flags)
{
    struct vfs_file *f = file_of(base);
    (void)flags;
    deed_status status = os_file_sync(f->file, NULL);
    if (status != DEED_OK) return code_of(status, SQLITE_IOERR_FSYNC);
    if (!f->sync_dir) return SQLITE_OK;
    status = os_dir_sync(f->dir, NULL); /* (4) */
    if (status != DEED_OK) return code_of(status, SQLITE_IOERR_DIR_FSYNC);
    f->sync_dir = false;
    return SQLITE_OK;
}

static int file_size(sqlite3_file *base, sqlite3_int64 *out_size)
{
    uint64_t size = 0;
    deed_status status = os_file_size(file_of(base)->file, &size, NULL);
    if (status != DEED_OK) return code_of(status, SQLITE_IOERR_FSTAT);
    *out_size = (sqlite3_int64)size;
    return SQLITE_OK;
}

/* ---- locks of the database file --------------------------------------------------------------- */

static int lock_take(struct vfs_file *f, int level)
{
    struct vfs_node *node = f->node;
    bool others = f->level != node->level;
    if (others && (node->level >= SQLITE_LOCK_PENDING || level > SQLITE_LOCK_SHARED)) {
        return SQLITE_BUSY;
    }
    if (level == SQLITE_LOCK_SHARED) {
        node->shared++;
        if (node->level < SQLITE_LOCK_SHARED) node->level = SQLITE_LOCK_SHARED;
        f->level = level;
        return SQLITE_OK;
    }
    assert(f->level >= SQLITE_LOCK_SHARED); /* SQLite climbs step by step */
    if (level == SQLITE_LOCK_EXCLUSIVE && node->shared > 1) {
        f->level = node->level = SQLITE_LOCK_PENDING; /* no new readers */
        return SQLITE_BUSY;
    }
    f->level = node->level = level;
    return SQLITE_OK;
}

static int file_lock(sqlite3_file *base, int level)
{
    struct vfs_file *f = file_of(base);
    if (f->level >= level) return SQLITE_OK;
    /* As on Unix: who cannot write cannot lock for it, and leaves the log alone when it is closed. */
    if (f->read_only && level > SQLITE_LOCK_SHARED) return SQLITE_IOERR_LOCK;
    sqlite3_mutex_enter(mutex());
    int rc = lock_take(f, level);
    sqlite3_mutex_leave(mutex());
    return rc;
}

static int file_unlock(sqlite3_file *base, int level)
{
    struct vfs_file *f = file_of(base);
    if (f->level <= level) return SQLITE_OK;
    sqlite3_mutex_enter(mutex());
    struct vfs_node *node = f->node;
    if (f->level > SQLITE_LOCK_SHARED) node->level = SQLITE_LOCK_SHARED;
    if (level == SQLITE_LOCK_NONE) {
        assert(node->shared > 0);
        if (--node->shared == 0) node->level = SQLITE_LOCK_NONE;
    }
    f->level = level;
    sqlite3_mutex_leave(mutex());
    return SQLITE_OK;
}

static int file_reserved(sqlite3_file *base, int *out_reserved)
{
    sqlite3_mutex_enter(mutex());
    *out_reserved = file_of(base)->node->level > SQLITE_LOCK_SHARED;
    sqlite3_mutex_leave(mutex());
    return SQLITE_OK;
}

/* Nothing that SQLite asks for this way is needed here. */
static int file_control(sqlite3_file *base, int what, void *argument)
{
    (void)base, (void)what, (void)argument;
    return SQLITE_NOTFOUND;
}

static int file_sector_size(sqlite3_file *base)
{
    (void)base;
    return SECTOR_SIZE;
}

static int file_device(sqlite3_file *base)
{
    return file_of(base)->tears ? 0 : SQLITE_IOCAP_POWERSAFE_OVERWRITE;
}

/* ---- the write-ahead log's index -------------------------------------------------------------- */

static int index_region(struct vfs_node *node, int number, int size, bool extend,
                        void volatile **out)
{
    *out = NULL;
    if (number >= node->region_count) {
        if (!extend) return SQLITE_OK;
        void **grown =
            sqlite3_realloc64(node->regions, ((unsigned)number + 1) * sizeof *node->regions);
        if (grown == NULL) return SQLITE_IOERR_NOMEM;
        node->regions = grown;
        for (; node->region_count <= number; node->region_count++) {
            void *region = sqlite3_malloc(size);
            if (region == NULL) return SQLITE_IOERR_NOMEM;
            memset(region, 0, (size_t)size);
            node->regions[node->region_count] = region;
        }
    }
    *out = node->regions[number];
    return SQLITE_OK;
}

static int index_map(sqlite3_file *base, int number, int size, int extend, void volatile **out)
{
    struct vfs_file *f = file_of(base);
    sqlite3_mutex_enter(mutex());
    if (!f->index_open) f->node->index_users++;
    f->index_open = true;
    int rc = index_region(f->node, number, size, extend != 0, out);
    sqlite3_mutex_leave(mutex());
    return rc;
}

static bool slots_free(const struct vfs_file *f, int first, int count, bool exclusive)
{
    for (int i = first; i < first + count; i++) {
        int slot = f->node->slots[i];
        bool own = (f->slots_shared >> i & 1u) != 0;
        if (exclusive ? slot > (own ? 1 : 0) || slot < 0 : slot < 0) return false;
    }
    return true;
}

static void slot_release(struct vfs_file *f, int i)
{
    unsigned bit = 1u << i;
    if ((f->slots_exclusive & bit) != 0) f->node->slots[i] = 0;
    if ((f->slots_shared & bit) != 0) f->node->slots[i]--;
    f->slots_exclusive &= ~bit;
    f->slots_shared &= ~bit;
}

static int index_lock(sqlite3_file *base, int first, int count, int flags)
{
    struct vfs_file *f = file_of(base);
    bool exclusive = (flags & SQLITE_SHM_EXCLUSIVE) != 0;
    int rc = SQLITE_OK;
    sqlite3_mutex_enter(mutex());
    if ((flags & SQLITE_SHM_UNLOCK) != 0) {
        for (int i = first; i < first + count; i++)
            slot_release(f, i);
    } else if (!slots_free(f, first, count, exclusive)) {
        rc = SQLITE_BUSY;
    } else {
        for (int i = first; i < first + count; i++) {
            unsigned bit = 1u << i;
            if (!exclusive && (f->slots_shared & bit) != 0) continue;
            f->node->slots[i] = exclusive ? -1 : f->node->slots[i] + 1;
            *(exclusive ? &f->slots_exclusive : &f->slots_shared) |= bit;
        }
    }
    sqlite3_mutex_leave(mutex());
    return rc;
}

static void index_barrier(sqlite3_file *base)
{
    (void)base;
    atomic_thread_fence(memory_order_seq_cst);
}

static int index_unmap(sqlite3_file *base, int remove)
{
    struct vfs_file *f = file_of(base);
    (void)remove; /* it goes with its last user, as if it had been a file */
    if (!f->index_open) return SQLITE_OK;
    sqlite3_mutex_enter(mutex());
    struct vfs_node *node = f->node;
    for (int i = 0; i < SQLITE_SHM_NLOCK; i++)
        slot_release(f, i);
    f->index_open = false;
    if (--node->index_users == 0) {
        for (int i = 0; i < node->region_count; i++)
            sqlite3_free(node->regions[i]);
        sqlite3_free(node->regions);
        node->regions = NULL;
        node->region_count = 0;
    }
    sqlite3_mutex_leave(mutex());
    return SQLITE_OK;
}

static const sqlite3_io_methods file_methods = {
    .iVersion = 2,
    .xClose = file_close,
    .xRead = file_read,
    .xWrite = file_write,
    .xTruncate = file_truncate,
    .xSync = file_sync,
    .xFileSize = file_size,
    .xLock = file_lock,
    .xUnlock = file_unlock,
    .xCheckReservedLock = file_reserved,
    .xFileControl = file_control,
    .xSectorSize = file_sector_size,
    .xDeviceCharacteristics = file_device,
    .xShmMap = index_map,
    .xShmLock = index_lock,
    .xShmBarrier = index_barrier,
    .xShmUnmap = index_unmap,
};

/* ---- names ------------------------------------------------------------------------------------ */

static struct vfs *vfs_of(sqlite3_vfs *base)
{
    return (struct vfs *)base;
}

static deed_status file_open_at(struct vfs_file *f, const char *path, int flags)
{
    const char *name = NULL;
    deed_status status = os_dir_open_of(f->vfs->os, path, &f->dir, &name, NULL);
    if (status != DEED_OK) return status;
    unsigned how = (flags & SQLITE_OPEN_READONLY) != 0 ? OS_READ : OS_WRITE;
    bool create = (flags & SQLITE_OPEN_CREATE) != 0;
    if (create) how |= OS_CREATE;
    if (create && (flags & SQLITE_OPEN_EXCLUSIVE) != 0) how |= OS_EXCLUSIVE;
    status = os_file_open(f->dir, name, how, &f->file, NULL);
    if (status != DEED_OK) return status;
    f->sync_dir =
        create &&
        (flags & (SQLITE_OPEN_MAIN_JOURNAL | SQLITE_OPEN_SUPER_JOURNAL | SQLITE_OPEN_WAL)) != 0;
    if ((flags & SQLITE_OPEN_DELETEONCLOSE) != 0) {
        f->remove_name = sqlite3_mprintf("%s", name);
        if (f->remove_name == NULL) return DEED_NO_MEMORY;
    }
    if ((flags & SQLITE_OPEN_MAIN_DB) != 0) {
        sqlite3_mutex_enter(mutex());
        f->node = node_hold(f->vfs, path);
        sqlite3_mutex_leave(mutex());
        if (f->node == NULL) return DEED_NO_MEMORY;
    }
    return DEED_OK;
}

static int vfs_open(sqlite3_vfs *base, const char *path, sqlite3_file *out, int flags,
                    int *out_flags)
{
    struct vfs_file *f = file_of(out);
    *f = (struct vfs_file){.vfs = vfs_of(base)};
    /* A file without a name is a temporary one: our connections keep those in memory. */
    if (path == NULL) return SQLITE_CANTOPEN;
    deed_status status = file_open_at(f, path, flags);
    if (status != DEED_OK) {
        os_file_close(f->file);
        sqlite3_free(f->remove_name);
        os_dir_close(f->dir);
        *f = (struct vfs_file){0}; /* no methods: SQLite does not close it */
        return code_of(status, SQLITE_CANTOPEN);
    }
    f->base.pMethods = &file_methods;
    f->read_only = (flags & SQLITE_OPEN_READONLY) != 0;
    f->tears = (flags & SQLITE_OPEN_URI) != 0 && sqlite3_uri_boolean(path, "psow", 1) == 0;
    if (out_flags != NULL) *out_flags = flags;
    return SQLITE_OK;
}

static int vfs_delete(sqlite3_vfs *base, const char *path, int sync_dir)
{
    struct vfs *vfs = vfs_of(base);
    struct os_dir *dir = NULL;
    const char *name = NULL;
    deed_status status = os_dir_open_of(vfs->os, path, &dir, &name, NULL);
    if (status == DEED_OK) status = os_remove(dir, name, NULL);
    int rc =
        status == DEED_NOT_FOUND ? SQLITE_IOERR_DELETE_NOENT : code_of(status, SQLITE_IOERR_DELETE);
    if (rc == SQLITE_OK) {
        sqlite3_mutex_enter(mutex());
        node_forget(vfs, path); /* (1) */
        sqlite3_mutex_leave(mutex());
    }
    if (rc == SQLITE_OK && sync_dir != 0) {
        rc = code_of(os_dir_sync(dir, NULL), SQLITE_IOERR_DIR_FSYNC);
    }
    os_dir_close(dir);
    return rc;
}

/* There, and not empty: an empty journal is none. */
static int vfs_access(sqlite3_vfs *base, const char *path, int what, int *out_yes)
{
    struct os_dir *dir = NULL;
    struct os_file *file = NULL;
    const char *name = NULL;
    uint64_t size = 0;
    deed_status status = os_dir_open_of(vfs_of(base)->os, path, &dir, &name, NULL);
    if (status == DEED_OK) status = os_file_open(dir, name, OS_READ, &file, NULL);
    if (status == DEED_OK) status = os_file_size(file, &size, NULL);
    os_file_close(file);
    os_dir_close(dir);
    *out_yes = status == DEED_OK && (what != SQLITE_ACCESS_EXISTS || size > 0);
    if (status == DEED_OK || status == DEED_NOT_FOUND) return SQLITE_OK;
    return code_of(status, SQLITE_IOERR_ACCESS);
}

/* Paths come from os_dir_path, and are whole. */
static int vfs_full_pathname(sqlite3_vfs *base, const char *path, int size, char *out)
{
    (void)base;
    size_t len = strlen(path);
    if (len >= (size_t)size) return SQLITE_CANTOPEN;
    memcpy(out, path, len + 1);
    return SQLITE_OK;
}

static int vfs_randomness(sqlite3_vfs *base, int size, char *out)
{
    os_random(vfs_of(base)->os, out, (size_t)size);
    return size;
}

/* SQLite waits for another connection. On a machine of one thread nothing comes of it; where there
 * are more, it asks again, as often as it would have. */
static int vfs_sleep(sqlite3_vfs *base, int microseconds)
{
    (void)base;
    return microseconds;
}

static int vfs_time_ms(sqlite3_vfs *base, sqlite3_int64 *out_ms)
{
    *out_ms = os_now_ns(vfs_of(base)->os) / NS_PER_MS + JULIAN_EPOCH_MS;
    return SQLITE_OK;
}

static int vfs_time_days(sqlite3_vfs *base, double *out_days)
{
    sqlite3_int64 ms = 0;
    (void)vfs_time_ms(base, &ms);
    *out_days = (double)ms / 86400000.0;
    return SQLITE_OK;
}

static int vfs_last_error(sqlite3_vfs *base, int size, char *out)
{
    (void)base, (void)size, (void)out;
    return 0;
}

/* ---- one a machine: the mutex is held --------------------------------------------------------- */

static struct vfs *vfs_find(struct os *os)
{
    struct vfs *vfs = all;
    while (vfs != NULL && vfs->os != os)
        vfs = vfs->next;
    return vfs;
}

static struct vfs *vfs_make(struct os *os)
{
    struct vfs *vfs = calloc(1, sizeof *vfs);
    if (vfs == NULL) return NULL;
    vfs->base = (sqlite3_vfs){
        .iVersion = 2,
        .szOsFile = sizeof(struct vfs_file),
        .mxPathname = PATH_SIZE_MAX,
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
    vfs->os = os;
    (void)snprintf(vfs->name, sizeof vfs->name, "deed%llu", ++made);
    if (sqlite3_vfs_register(&vfs->base, 0) != SQLITE_OK) {
        free(vfs);
        return NULL;
    }
    vfs->next = all;
    all = vfs;
    return vfs;
}

static void vfs_unmake(struct vfs *vfs)
{
    assert(vfs->nodes == NULL); /* every connection is closed */
    struct vfs **at = &all;
    while (*at != vfs)
        at = &(*at)->next;
    *at = vfs->next;
    (void)sqlite3_vfs_unregister(&vfs->base);
    free(vfs);
}

/* A build that dies at named points goes through here on the real machine, too: so SQLite's own
 * writes and syncs are among them. */
static bool has_own_way(const struct os *os)
{
#ifdef DEED_FAILPOINTS
    (void)os;
    return false;
#else
    return os == os_real();
#endif
}

deed_status vfs_hold(struct os *os, const char **out_name, struct deed_error *err)
{
    if (has_own_way(os)) {
        *out_name = NULL;
        return DEED_OK;
    }
    if (sqlite3_initialize() != SQLITE_OK) {
        return deed_fail(err, DEED_NO_MEMORY, "no memory for SQLite");
    }
    sqlite3_mutex_enter(mutex());
    struct vfs *vfs = vfs_find(os);
    if (vfs == NULL) vfs = vfs_make(os);
    if (vfs != NULL) vfs->references++;
    sqlite3_mutex_leave(mutex());
    if (vfs == NULL) return deed_fail(err, DEED_NO_MEMORY, "no memory for SQLite's files");
    *out_name = vfs->name;
    return DEED_OK;
}

void vfs_release(struct os *os)
{
    if (has_own_way(os)) return;
    sqlite3_mutex_enter(mutex());
    struct vfs *vfs = vfs_find(os);
    assert(vfs != NULL && vfs->references > 0);
    if (--vfs->references == 0) vfs_unmake(vfs);
    sqlite3_mutex_leave(mutex());
}
