/* recovery.c - what a crash left, and what rot did, and where writing goes on.
 *
 *   sealed  sealed  sealed  closed  closed  active
 *                   ^ its footer: where the chain stands
 *                           ^ from here on every commit is read
 *
 * (1) Of the files that one segment has, one counts (names.h).
 * (2) A sealed segment is not read: its name tells its positions, and where the next one is not
 *     sealed its footer tells the rest.
 * (3) What the newest mark claims and the scan did not find is damage (scan.h).
 * (4) All else behind the end is a torn tail: kept aside, overwritten with zeros, synced.
 * (5) A last segment that is empty may have been left by a process that could not sync its name, and
 *     could not remove it. To sync the directory once more would do nothing (names.c), so an equal
 *     file takes its place. One with commits in it had its name synced before they were written.
 *     On a full disk, where no file can be made, the one that is there is used.
 *
 * The segments from the mark's on are synced first and then read from the device, past the page
 * cache, which may hold what a failed sync never wrote.
 *
 * Normative: docs/format/log.md */
#include "log/names.h"
#include "log/scan.h"

#include "base/planted.h"
#include "base/uuid.h"
#include "os/failpoint.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

/* ---- the files that are there --------------------------------------------------------------- */

/* Does anything stand behind the header's place? */
static deed_status has_content(struct os_file *file, bool *out_has, struct deed_error *err)
{
    uint8_t bytes[SECTOR_SIZE];
    static const uint8_t zeros[SECTOR_SIZE];
    *out_has = false;
    for (uint64_t offset = SEGMENT_HEADER_SIZE;; offset += SECTOR_SIZE) {
        size_t size = 0;
        deed_status status = os_file_read(file, offset, bytes, sizeof bytes, &size, err);
        if (status != DEED_OK) return status;
        if (memcmp(bytes, zeros, size) != 0) *out_has = true;
        if (*out_has || size < sizeof bytes) return DEED_OK;
    }
}

/* A segment while opening. */
struct entry {
    struct log_segment *segment;
    struct os_file *file; /* of a .seg */
};
struct entries {
    struct entry *ptr;
    size_t count;
};

static void entries_done(struct entries *entries)
{
    for (size_t i = 0; i < entries->count; i++) {
        os_file_close(entries->ptr[i].file);
        log_segment_drop(entries->ptr[i].segment);
    }
    free(entries->ptr);
    *entries = (struct entries){0};
}

static deed_status entry_open(struct log *log, const struct sealed_name *name, struct entry *out,
                              struct deed_error *err)
{
    char text[SEALED_NAME_SIZE];
    struct log_segment *segment =
        log_segment_make(name->number, name->generation, name->first_position);
    if (segment == NULL) return deed_fail(err, DEED_NO_MEMORY, "log: out of memory");
    *out = (struct entry){.segment = segment};
    if (name->generation > 0) return DEED_OK;
    log_file_name(name, text);
    unsigned flags = log->options.read_only ? OS_READ : OS_WRITE;
    struct os_file *direct = NULL;
    deed_status status = os_file_open(log->dir, text, flags, &out->file, err);
    /* Past the cache: after a failed sync it may show a header that the device never got. What is
     * written behind that would be lost with it. */
    if (status == DEED_OK) {
        status = os_file_open(log->dir, text,
                              PLANTED(HEADER_FROM_CACHE) ? OS_READ : OS_READ | OS_DIRECT, &direct,
                              err);
    }
    if (status == DEED_OK) {
        status = name_header_read(direct, name, &segment->header, &segment->header_good, err);
        if (status == DEED_TOO_NEW) deed_wrap(err, "%s", text);
    }
    os_file_close(direct);
    if (status != DEED_OK) {
        os_file_close(out->file);
        log_segment_drop(segment);
    }
    return status;
}

/* A crash while a segment was made leaves a file without a good header and without content: it
 * holds nothing, unless the mark says that it did. */
static deed_status drop_unborn_segment(struct log *log, struct names *names,
                                       const struct mark *mark, struct deed_error *err)
{
    if (names->count == 0) return DEED_OK;
    const struct sealed_name *name = &names->ptr[names->count - 1];
    if (name->generation > 0) return DEED_OK;
    if (mark->position > 0 && mark->segment >= name->number && !PLANTED(DROP_HEADERLESS_SEGMENT)) {
        return DEED_OK;
    }
    struct entry entry;
    bool content = true;
    deed_status status = entry_open(log, name, &entry, err);
    if (status != DEED_OK) return status;
    bool good = entry.segment->header_good;
    if (!good) status = has_content(entry.file, &content, err);
    if (PLANTED(DROP_HEADERLESS_SEGMENT)) content = false;
    os_file_close(entry.file);
    log_segment_drop(entry.segment);
    if (status != DEED_OK || good || content || PLANTED(KEEP_UNBORN_SEGMENT)) return status;

    char text[SEALED_NAME_SIZE];
    log_file_name(name, text);
    names->count--;
    if (log->options.read_only) return DEED_OK;
    status = os_remove(log->dir, text, err);
    return status == DEED_OK ? os_dir_sync(log->dir, err) : status;
}

/* Numbers without a file between others become entries without one. */
static deed_status entries_open(struct log *log, const struct names *names, struct entries *out,
                                struct deed_error *err)
{
    if (names->count == 0) return DEED_OK;
    uint32_t first = names->ptr[0].number;
    uint64_t count = (uint64_t)names->ptr[names->count - 1].number - first + 1;
    if (count - names->count > 1u << 20) {
        return deed_fail(err, DEED_CORRUPT, "segment %u: too many before it are missing",
                         names->ptr[names->count - 1].number);
    }
    out->ptr = calloc((size_t)count, sizeof *out->ptr);
    if (out->ptr == NULL) return deed_fail(err, DEED_NO_MEMORY, "log: out of memory");
    deed_status status = DEED_OK;
    for (size_t i = 0; status == DEED_OK && out->count < count;) {
        struct entry *entry = &out->ptr[out->count];
        uint32_t number = first + (uint32_t)out->count;
        if (names->ptr[i].number == number) {
            status = entry_open(log, &names->ptr[i++], entry, err);
        } else {
            entry->segment = log_segment_make(number, 0, 0);
            if (entry->segment == NULL) {
                status = deed_fail(err, DEED_NO_MEMORY, "log: out of memory");
            } else {
                entry->segment->missing = true;
            }
        }
        if (status == DEED_OK) out->count++;
    }
    return status;
}

/* Beside a running writer files are replaced while a reader lists and opens them: it looks again. A
 * directory that changes meanwhile may show neither the old name of a segment nor the new one. */
#define LOOKS_MAX 16

/* Is there a number without a name, up to the mark's segment? */
static bool have_gap(const struct names *names, const struct mark *mark)
{
    uint32_t last = names->count == 0 ? 0 : names->ptr[names->count - 1].number;
    for (size_t i = 1; i < names->count; i++) {
        if (names->ptr[i].number - names->ptr[i - 1].number > 1) return true;
    }
    return mark->position > 0 && last < mark->segment;
}

static deed_status find_files(struct log *log, struct mark *mark, struct entries *out,
                              struct deed_error *err)
{
    struct names names = {0};
    deed_status status = DEED_OK;
    arena_init(&names.arena, SIZE_MAX);
    for (unsigned looks = 1;; looks++) {
        /* The mark first: what it names is there when the segments are listed, also beside a writer. */
        status = mark_load(log->dir, mark, err);
        FAILPOINT("mark-read");
        if (status == DEED_OK) status = names_list(log, &names, err);
        if (status == DEED_OK) status = names_choose(log, &names, err);
        /* One at most is left by a crash. Two are nothing either, and must not become damage. */
        for (size_t before = 0; status == DEED_OK && before != names.count;) {
            before = names.count;
            status = drop_unborn_segment(log, &names, mark, err);
        }
        if (status == DEED_OK) status = entries_open(log, &names, out, err);
        bool replaced = status == DEED_NOT_FOUND || (status == DEED_OK && have_gap(&names, mark));
        if (!replaced || !log->options.read_only || looks == LOOKS_MAX) break;
        entries_done(out);
    }
    names_done(&names);
    return status;
}

bool log_find_again(struct log *log, uint32_t number)
{
    struct names names = {0};
    struct log_segment *segment = NULL;
    arena_init(&names.arena, SIZE_MAX);
    for (unsigned looks = 0; segment == NULL && looks < LOOKS_MAX; looks++) {
        deed_status status = names_list(log, &names, NULL);
        for (size_t i = 0; status == DEED_OK && segment == NULL && i < names.count; i++) {
            const struct sealed_name *name = &names.ptr[i];
            if (name->number != number || name->generation == 0) continue;
            segment = log_segment_make(number, name->generation, name->first_position);
        }
    }
    names_done(&names);
    if (segment == NULL) return false;
    if (log_view_replace(log, segment, NULL) == DEED_OK) return true;
    log_segment_drop(segment);
    return false;
}

/* ---- identity ------------------------------------------------------------------------------- */

static deed_status identity_take(struct log *log, const struct segment_header *header,
                                 uint32_t number, bool *inout_found, struct deed_error *err)
{
    bool same = uuid_equal(header->log_id, log->id) &&
                memcmp(header->secret, log->secret, COMMIT_SECRET_SIZE) == 0;
    if (*inout_found && !same) {
        return deed_fail(err, DEED_CORRUPT, "segment %u belongs to another log", number);
    }
    log->id = header->log_id;
    memcpy(log->secret, header->secret, COMMIT_SECRET_SIZE);
    if (header->epoch > log->epoch) log->epoch = header->epoch;
    *inout_found = true;
    return DEED_OK;
}

/* From the newest sealed file, or an older one while those are damaged. */
static deed_status identity_from_sealed(struct log *log, const struct entries *entries,
                                        bool *inout_found, struct deed_error *err)
{
    for (size_t i = entries->count; i > 0; i--) {
        const struct log_segment *segment = entries->ptr[i - 1].segment;
        struct os_file *file = NULL;
        struct segment_header header;
        bool good = false;
        if (segment->generation == 0) continue;
        struct sealed_name name = {segment->number, segment->generation, segment->first_position};
        deed_status status = log_segment_pin(log, segment, &file, err);
        if (status == DEED_OK) status = name_header_read(file, &name, &header, &good, err);
        file_cache_unpin(log->files, file);
        if (status != DEED_OK && status != DEED_IO) return status;
        if (!good) continue;
        return identity_take(log, &header, segment->number, inout_found, err);
    }
    return DEED_OK;
}

/* From any good header, else from the mark, else a new log's. */
static deed_status find_identity(struct log *log, const struct entries *entries,
                                 const struct mark *mark, struct deed_error *err)
{
    bool found = false;
    for (size_t i = 0; i < entries->count; i++) {
        const struct log_segment *segment = entries->ptr[i].segment;
        if (!segment->header_good) continue;
        deed_status status =
            identity_take(log, &segment->header, segment->number, &found, err);
        if (status != DEED_OK) return status;
    }
    deed_status status = identity_from_sealed(log, entries, &found, err);
    if (status != DEED_OK) return status;
    if (!found && mark->position > 0) {
        log->id = mark->log_id;
        log->epoch = mark->epoch;
        memcpy(log->secret, mark->secret, COMMIT_SECRET_SIZE);
        found = true;
    }
    /* A restore begins its epoch in a segment that is empty yet: should that be lost, the mark, which
     * was written with it, knows. */
    bool same = found && mark->position > 0 && uuid_equal(mark->log_id, log->id);
    if (same && mark->epoch > log->epoch) log->epoch = mark->epoch;
    if (found) return DEED_OK;
    if (entries->count > 0) {
        return deed_fail(err, DEED_CORRUPT, "no segment's header and no mark can be read: the log "
                                            "cannot be told from another");
    }
    if (log->options.read_only) return deed_fail(err, DEED_NOT_FOUND, "there is no log here");
    uint8_t random[16];
    os_random(log->os, random, sizeof random);
    log->id = uuid_v4(random);
    os_random(log->os, log->secret, sizeof log->secret);
    log->epoch = 1;
    return DEED_OK;
}

/* ---- the tail ------------------------------------------------------------------------------- */

/* The end of the last bytes that are not zero in [from, size), seen through `file`. */
static deed_status last_content(struct os_file *file, uint64_t from, uint64_t size,
                                uint64_t *inout_end, struct deed_error *err)
{
    uint8_t *bytes = malloc(SCAN_WINDOW_SIZE);
    if (bytes == NULL) return deed_fail(err, DEED_NO_MEMORY, "log: no memory to recover");
    deed_status status = DEED_OK;
    for (uint64_t offset = from; offset < size; offset += SCAN_WINDOW_SIZE) {
        size_t got = 0;
        status = os_file_read(file, offset, bytes, SCAN_WINDOW_SIZE, &got, err);
        if (status != DEED_OK) break;
        while (got > 0 && bytes[got - 1] == 0) got--;
        if (got > 0 && offset + got > *inout_end) *inout_end = offset + got;
    }
    free(bytes);
    return status;
}

static deed_status copy_aside(struct log *log, struct os_file *from_file, uint32_t number,
                              uint64_t from, uint64_t end, struct deed_error *err)
{
    char name[64];
    struct os_file *aside = NULL;
    uint8_t *bytes = malloc(SCAN_WINDOW_SIZE);
    if (bytes == NULL) return deed_fail(err, DEED_NO_MEMORY, "log: no memory to recover");
    (void)snprintf(name, sizeof name, "%010u.%" PRIu64 ".%" PRId64 ".torn", number, from,
                   os_now_ns(log->os));
    deed_status status = os_file_open(log->dir, name, OS_WRITE | OS_CREATE, &aside, err);
    for (uint64_t offset = from; status == DEED_OK && offset < end; offset += SCAN_WINDOW_SIZE) {
        size_t got = 0;
        size_t want = end - offset < SCAN_WINDOW_SIZE ? (size_t)(end - offset) : SCAN_WINDOW_SIZE;
        status = os_file_read(from_file, offset, bytes, want, &got, err);
        if (status == DEED_OK) {
            status = os_file_write(aside, offset - from, (deed_bytes){bytes, got}, err);
        }
    }
    if (status == DEED_OK) status = os_file_sync(aside, err);
    if (status == DEED_OK) status = os_dir_sync(log->dir, err);
    os_file_close(aside);
    free(bytes);
    return status;
}

static deed_status write_zeros(struct os_file *file, uint64_t from, uint64_t end,
                               struct deed_error *err)
{
    static const uint8_t zeros[1 << 16];
    deed_status status = DEED_OK;
    while (status == DEED_OK && from < end) {
        size_t size = end - from < sizeof zeros ? (size_t)(end - from) : sizeof zeros;
        status = os_file_write(file, from, (deed_bytes){zeros, size}, err);
        from += size;
    }
    return status == DEED_OK ? os_file_sync(file, err) : status;
}

/* Behind the last commit, in its own sector, a failed sync may have left a commit of the same group
 * that only the cache shows whole. A later scan through the cache would take it for the next link.
 * Both views agree on the commits before it: they are written again with zeros behind them. */
static deed_status settle_last_sector(struct log *log, const struct scan *s, struct os_file *direct)
{
    uint8_t device[SECTOR_SIZE] = {0};
    uint8_t cached[SECTOR_SIZE] = {0};
    uint64_t start = s->end_offset / SECTOR_SIZE * SECTOR_SIZE;
    size_t good = (size_t)(s->end_offset - start);
    size_t got = 0;
    /* What the mark claims was acknowledged, so synced whole: its sector is left alone. */
    if (good == 0 || s->expected <= s->hash_from) return DEED_OK;
    deed_status status = os_file_read(direct, start, device, sizeof device, &got, s->err);
    if (status == DEED_OK) {
        status = os_file_read(log->active, start, cached, sizeof cached, &got, s->err);
    }
    if (status != DEED_OK || memcmp(device, cached, sizeof device) == 0) return status;
    if (memcmp(device, cached, good) != 0) return DEED_OK; /* not that lie: touch nothing */
    memset(device + good, 0, sizeof device - good);
    status = os_file_write(log->active, start, (deed_bytes){device, sizeof device}, s->err);
    return status == DEED_OK ? os_file_sync(log->active, s->err) : status;
}

/* Cut the torn tail (4): what the device has there, and what a lying cache may show there. */
static deed_status clean_tail(struct log *log, struct scan *s, struct os_file *direct)
{
    uint64_t from = align_up(s->end_offset, SECTOR_SIZE);
    uint64_t end = from;
    deed_status status = PLANTED(KEEP_HALF_SECTOR) ? DEED_OK : settle_last_sector(log, s, direct);
    if (status == DEED_OK) status = last_content(direct, from, s->file_size, &end, s->err);
    if (status == DEED_OK) status = last_content(log->active, from, s->file_size, &end, s->err);
    if (status != DEED_OK || end == from) return status;
    end = align_up(end, SECTOR_SIZE);

    status = copy_aside(log, log->active, s->number, from, end, s->err);
    /* No room to keep it aside is no reason to refuse service: it was never acknowledged. */
    if (status == DEED_FULL) status = DEED_OK;
    if (status == DEED_OK) status = write_zeros(log->active, from, end, s->err);
    return status;
}

/* What the one who repairs accepts: written down before anything rests on it. */
static deed_status accept_found(struct scan *s)
{
    struct log *log = s->log;
    if (!s->damaged || !log->options.accept_losses || log->options.read_only) return DEED_OK;
    deed_status status = DEED_OK;
    for (size_t i = 0; status == DEED_OK && i < s->found.count; i++) {
        status = losses_add(&s->losses, &s->found.ptr[i], s->err);
    }
    if (status == DEED_OK) status = losses_save(log->dir, log->id, &s->losses, s->err);
    if (status == DEED_OK) s->damaged = false;
    return status;
}

/* ---- following the chain -------------------------------------------------------------------- */

static void writer_setup(struct log *log, const struct scan *s, struct entry *last)
{
    log->active_number = last->segment->number;
    if (last->segment->generation > 0) return; /* the next commit begins another one */
    log->active = last->file;
    log->active_segment = log_segment_hold(last->segment);
    last->file = NULL;
    log->group_offset = align_up(s->end_offset, SECTOR_SIZE);
    log->fill_file = log->active;
    log->filled = s->file_size > log->group_offset ? s->file_size : log->group_offset;
    atomic_store(&log->writer_offset, log->group_offset);
}

/* The chain behind a sealed segment, as its footer says. */
static deed_status pass_sealed(struct scan *s, const struct sealed_footer *f)
{
    deed_status status = scan_join(s, f->first_position, f->previous);
    if (status != DEED_OK) return status;
    s->expected = f->last_position + 1;
    memcpy(s->previous, f->hash, SHA256_SIZE);
    s->previous_known = true;
    s->recorded_at_ns = f->last_recorded_at_ns;
    s->end_offset = f->logical_end;
    if (s->mark.position == f->last_position && s->mark.position > 0 &&
        memcmp(s->mark.hash, f->hash, SHA256_SIZE) != 0) {
        return scan_report(s, f->logical_end, 0, DEED_NONE, DEED_NONE,
                           "the commit mark names another commit");
    }
    return DEED_OK;
}

/* The last position of a sealed segment as the next one's beginning tells; 0: it does not. */
static uint64_t last_by_next(const struct entries *entries, size_t i)
{
    if (i + 1 >= entries->count) return 0;
    const struct log_segment *next = entries->ptr[i + 1].segment;
    if (next->generation > 0) return next->first_position - 1;
    return next->header_good ? next->header.first_position - 1 : 0;
}

static deed_status unreadable_sealed(struct scan *s, const struct log_segment *segment,
                                     uint64_t last, bool wanted)
{
    s->end_offset = SEGMENT_HEADER_SIZE;
    /* Its events are for their readers to miss, and the next header knows the chain. */
    if (!wanted && last > 0) {
        deed_status status = scan_join(s, segment->first_position, NULL);
        s->expected = last + 1;
        s->previous_known = false;
        return status;
    }
    if (last == 0 && s->mark.position >= segment->first_position) last = s->mark.position;
    return scan_unreadable(s, segment->number, segment->first_position, last,
                           "a sealed segment's footer is damaged, or its file is missing");
}

static deed_status scan_sealed_entry(struct scan *s, const struct entries *entries, size_t i)
{
    struct log *log = s->log;
    struct log_segment *segment = entries->ptr[i].segment;
    const struct log_visitor *visitor = s->visitor;
    const struct sealed_footer *footer = NULL;
    struct os_file *file = NULL;
    struct deed_error why = {0};
    uint64_t last = last_by_next(entries, i);
    bool next_sealed = last > 0 && entries->ptr[i + 1].segment->generation > 0;
    bool wanted = visitor->wanted == NULL || last == 0 ||
                  visitor->wanted(visitor->context, segment->number, segment->first_position, last);
    s->segment = NULL;
    s->number = segment->number;
    if (next_sealed && !wanted) { /* (2) */
        deed_status status = scan_join(s, segment->first_position, NULL);
        s->expected = last + 1;
        s->previous_known = false;
        return status;
    }
    deed_status status = log_segment_pin(log, segment, &file, &why);
    if (status == DEED_OK) status = log_segment_footer(log, segment, file, &footer, &why);
    if (status == DEED_CORRUPT || status == DEED_NOT_FOUND || status == DEED_IO) {
        status = unreadable_sealed(s, segment, last, wanted);
    } else if (status != DEED_OK) {
        if (s->err != NULL) *s->err = why;
    } else {
        if (last == 0 && visitor->wanted != NULL) {
            wanted = visitor->wanted(visitor->context, segment->number, segment->first_position,
                                     footer->last_position);
        }
        if (wanted) status = scan_sealed(s, file, footer, log->options.accept_losses);
        if (!wanted) status = pass_sealed(s, footer);
        if (status == DEED_OK && wanted) s->end_offset = footer->logical_end;
    }
    file_cache_unpin(log->files, file);
    return status;
}

/* A .seg. The tail is read from the device. */
static deed_status scan_open_entry(struct scan *s, struct entry *entry, bool tail,
                                   struct os_file **out_direct)
{
    struct log *log = s->log;
    struct log_segment *segment = entry->segment;
    deed_status status = DEED_OK;
    if (tail) {
        char name[SEGMENT_NAME_SIZE];
        segment_name(segment->number, name);
        if (!log->options.read_only && !PLANTED(OPEN_WITHOUT_SYNC)) {
            status = os_file_sync(entry->file, s->err);
        }
        if (status == DEED_OK) {
            status = os_file_open(log->dir, name,
                                  PLANTED(TAIL_FROM_CACHE) ? OS_READ : OS_READ | OS_DIRECT,
                                  out_direct, s->err);
        }
    }
    s->segment = segment;
    if (status == DEED_OK) {
        status = scan_segment(s, tail ? *out_direct : entry->file, segment->number,
                              segment->header_good, &segment->header);
    }
    s->segment = NULL;
    return status;
}

static deed_status end_of_chain(struct scan *s, struct entry *last, struct os_file *direct)
{
    struct log *log = s->log;
    deed_status status = DEED_OK;
    if (s->mark.position >= s->expected && !PLANTED(IGNORE_MARK)) {
        status = scan_report(s, s->end_offset, 0, s->expected, s->mark.position,
                             "acknowledged events are missing at the end of the log");
    }
    writer_setup(log, s, last);
    if (status == DEED_OK) status = accept_found(s);
    if (status == DEED_OK && !s->damaged && !log->options.read_only && direct != NULL &&
        !PLANTED(KEEP_TAIL)) {
        status = clean_tail(log, s, direct);
    }
    return status;
}

static deed_status scan_all(struct scan *s, struct entries *entries)
{
    deed_status status = DEED_OK;
    for (size_t i = 0; i < entries->count && status == DEED_OK; i++) {
        struct entry *entry = &entries->ptr[i];
        struct log_segment *segment = entry->segment;
        bool last = i + 1 == entries->count;
        struct os_file *direct = NULL;
        if (segment->missing) {
            segment->first_position = s->expected; /* the next header tells what is missing */
            continue;
        }
        if (segment->generation > 0) {
            status = scan_sealed_entry(s, entries, i);
        } else {
            bool tail = last || (s->mark.position > 0 && segment->number >= s->mark.segment);
            status = scan_open_entry(s, entry, tail, &direct);
        }
        if (status == DEED_OK && last) status = end_of_chain(s, entry, direct);
        os_file_close(direct);
    }
    return status;
}

static void head_setup(struct log *log, const struct scan *s, const struct mark *mark)
{
    /* Positions that were given once are never given again, also when their events are lost. */
    log->next_position = s->expected;
    if (mark->position >= log->next_position && !PLANTED(REUSE_LOST_POSITIONS)) {
        log->next_position = mark->position + 1;
    }
    log->head_position = log->next_position - 1;
    log->recorded_at_ns = log->head_recorded_at_ns =
        PLANTED(TIME_GOES_BACK) ? 0 : s->recorded_at_ns;
    memcpy(log->hash, s->previous, SHA256_SIZE);
    memcpy(log->head_hash, s->previous, SHA256_SIZE);
    atomic_store(&log->end, log->head_position);

    log->mark_sequence = mark->sequence;
    log->marked_position = mark->position;
    log->head_offset = s->end_offset;
    log->head_segment = log->active_number;
    log->durable = (struct mark){.log_id = log->id,
                                 .epoch = log->epoch,
                                 .segment = log->active_number,
                                 .offset = s->end_offset,
                                 .position = log->head_position};
    memcpy(log->durable.hash, log->hash, SHA256_SIZE);
    memcpy(log->durable.secret, log->secret, COMMIT_SECRET_SIZE);
    if (s->damaged) {
        log_stop(log, "acknowledged events are damaged: see deedbook verify, then restore a backup, "
                      "or go on without them by deedbook repair");
    }
}

/* The first view: it takes the segments over. */
static deed_status show_segments(struct log *log, struct entries *entries, struct deed_error *err)
{
    struct log_segment **segments = calloc(entries->count + 1, sizeof(struct log_segment *));
    if (segments == NULL) return deed_fail(err, DEED_NO_MEMORY, "log: out of memory");
    for (size_t i = 0; i < entries->count; i++) segments[i] = entries->ptr[i].segment;
    deed_status status = log_view_start(log, segments, entries->count, err);
    free(segments);
    return status;
}

static uint64_t bytes_to_scan(const struct entries *entries)
{
    uint64_t all = 0;
    for (size_t i = 0; i < entries->count; i++) {
        uint64_t size = 0;
        struct os_file *file = entries->ptr[i].file;
        if (file != NULL && os_file_size(file, &size, NULL) == DEED_OK) all += size;
    }
    return all;
}

/* (5) */
static deed_status renew_empty(struct log *log, struct deed_error *err)
{
    char name[SEGMENT_NAME_SIZE], aside[SEGMENT_NAME_SIZE + sizeof NAME_UNFINISHED];
    uint8_t header[SEGMENT_HEADER_SIZE];
    struct os_file *file = NULL;
    size_t size = 0;
    bool empty = log->active != NULL && log->group_offset == SEGMENT_HEADER_SIZE &&
                 log->active_segment->header_good;
    bool due = empty && !log->options.read_only && log_stopped(log) == NULL;
    if (!due || PLANTED(NAME_TRUSTED)) return DEED_OK;
    segment_name(log->active_number, name);
    (void)snprintf(aside, sizeof aside, "%s" NAME_UNFINISHED, name);
    deed_status status = os_file_read(log->active, 0, header, sizeof header, &size, err);
    if (status == DEED_OK) status = os_file_open(log->dir, aside, OS_WRITE | OS_CREATE, &file, err);
    if (status == DEED_OK) status = os_file_truncate(file, 0, err);
    if (status == DEED_OK) status = os_file_write(file, 0, (deed_bytes){header, size}, err);
    if (status == DEED_OK) status = os_file_sync(file, err);
    os_file_close(file);
    file = NULL;
    if (status == DEED_FULL) { /* no reason to refuse service */
        (void)!os_remove(log->dir, aside, NULL);
        return DEED_OK;
    }
    if (status == DEED_OK) status = os_replace(log->dir, aside, name, err);
    if (status == DEED_OK) status = os_file_open(log->dir, name, OS_WRITE, &file, err);
    if (status != DEED_OK) return status;
    os_file_close(log->active);
    log->active = log->fill_file = file;
    log->filled = SEGMENT_HEADER_SIZE;
    return DEED_OK;
}

deed_status log_recover(struct log *log, const struct log_visitor *visitor, struct deed_error *err)
{
    struct entries entries = {0};
    struct mark mark = {0};
    struct scan scan = {0};
    deed_status status = find_files(log, &mark, &entries, err);
    FAILPOINT("segments-open");
    if (status == DEED_OK) status = find_identity(log, &entries, &mark, err);
    if (status != DEED_OK) goto done;
    commit_places_make(log->id, log->secret, &log->places);
    if (!uuid_equal(mark.log_id, log->id)) mark = (struct mark){.sequence = mark.sequence};

    if (visitor->begin != NULL) visitor->begin(visitor->context, log->id);
    scan_init(&scan, log, visitor, err);
    scan.all = bytes_to_scan(&entries);
    scan.mark = mark;
    scan.hash_from = mark.position + 1;
    status = scan_losses(&scan, false);
    if (status == DEED_OK) status = scan_all(&scan, &entries);
    FAILPOINT("scanned");
    if (status == DEED_OK && entries.count == 0 && mark.position > 0) {
        status = scan_report(&scan, 0, 0, 1, mark.position, "every segment of the log is missing");
        if (status == DEED_OK) status = accept_found(&scan);
    }
    if (status == DEED_OK) head_setup(log, &scan, &mark);
    if (status == DEED_OK) status = show_segments(log, &entries, err);
    if (status == DEED_OK) status = renew_empty(log, err);
    /* The names of segments made just before a crash may not be durable yet. */
    if (status == DEED_OK && !log->options.read_only) status = os_dir_sync(log->dir, err);

done:
    entries_done(&entries);
    scan_done(&scan);
    return status;
}

/* ---- reading all of it again ---------------------------------------------------------------- */

/* One segment of a view, which may have been replaced since. */
static deed_status verify_sealed(struct scan *s, struct log_segment *segment, uint64_t last,
                                 bool deep)
{
    struct log *log = s->log;
    struct os_file *file = NULL;
    struct sealed_footer footer;
    struct deed_error why = {0};
    struct sealed_name name = {segment->number, segment->generation, segment->first_position};
    deed_status status = log_segment_pin(log, segment, &file, &why);
    if (status == DEED_NOT_FOUND) return status;
    /* The footer is read anew, too: rot may have come. */
    if (status == DEED_OK) status = sealed_footer_load(file, &name, log->id, &footer, &why);
    if (status == DEED_OK) {
        status = scan_sealed(s, file, &footer, deep);
    } else if (status == DEED_CORRUPT || status == DEED_IO) {
        status = scan_unreadable(s, segment->number, segment->first_position, last,
                                 "a sealed segment's footer is damaged");
    } else if (s->err != NULL) {
        *s->err = why;
    }
    file_cache_unpin(log->files, file);
    return status;
}

static deed_status verify_open(struct scan *s, struct log_segment *segment)
{
    struct log *log = s->log;
    struct os_file *file = NULL;
    struct segment_header header = segment->header;
    const struct sealed_name name = {.number = segment->number};
    bool good = false;
    if (segment->missing) return DEED_OK; /* the next header tells */
    deed_status status = log_segment_pin(log, segment, &file, s->err);
    if (status != DEED_OK) return status;
    /* The header is read again too. */
    status = name_header_read(file, &name, &header, &good, s->err);
    if (status == DEED_OK) status = scan_segment(s, file, segment->number, good, &header);
    file_cache_unpin(log->files, file);
    return status;
}

/* More often than this a file is not replaced while it is being found. */
#define VERIFY_LOOKS_MAX 16

static deed_status verify_segment(struct scan *s, uint32_t number, bool deep)
{
    /* A directory may list what cannot be opened, as that of a backup does which lost a file. */
    for (int looks = 1;; looks++) {
        struct log_view *view = log_view_take(s->log);
        size_t i = log_view_number(view, number);
        struct log_segment *segment = view->segments[i];
        deed_status status =
            segment->generation > 0
                ? verify_sealed(s, segment, log_view_last(view, i, s->until), deep)
                : verify_open(s, segment);
        bool again = status == DEED_NOT_FOUND && looks < VERIFY_LOOKS_MAX &&
                     (!log_view_current(s->log, view) ||
                      (s->log->options.read_only && log_find_again(s->log, number)));
        if (status == DEED_NOT_FOUND && !again) {
            status = scan_unreadable(s, number, segment->first_position,
                                     log_view_last(view, i, s->until), "the file is missing");
        }
        log_view_drop(view);
        if (!again) return status;
    }
}

deed_status log_verify(struct log *log, const struct log_visitor *visitor, struct deed_error *err)
{
    struct scan scan;
    scan_init(&scan, log, visitor, err);
    scan.until = log_end(log);
    scan.all = log_size(log);
    deed_status status = scan_losses(&scan, true);
    struct log_view *view = log_view_take(log);
    for (size_t i = 0; i < view->count && status == DEED_OK; i++) {
        if (scan.expected > scan.until) break;
        status = verify_segment(&scan, view->segments[i]->number, true);
    }
    log_view_drop(view);
    if (status == DEED_OK && scan.expected <= scan.until) {
        status = scan_report(&scan, scan.end_offset, 0, scan.expected, scan.until,
                             "acknowledged events are missing at the end of the log");
    }
    scan_done(&scan);
    return status;
}

deed_status log_scan_segment(struct log *log, uint32_t number, const struct log_visitor *visitor,
                             struct deed_error *err)
{
    struct scan scan;
    uint64_t end = log_end(log);
    struct log_view *view = log_view_take(log);
    size_t i = log_view_number(view, number);
    uint64_t last = i < view->count ? log_view_last(view, i, end) : 0;
    uint64_t first = i < view->count ? view->segments[i]->first_position : 0;
    bool there = i < view->count && !view->segments[i]->missing;
    log_view_drop(view);
    if (!there) return deed_fail(err, DEED_NOT_FOUND, "segment %u: it is not there", number);
    if (last == 0) return DEED_OK;
    scan_init(&scan, log, visitor, err);
    scan.expected = first;
    scan.previous_known = false;
    scan.hash_from = DEED_NONE;
    scan.until = last < end ? last : end;
    deed_status status = scan_losses(&scan, false);
    if (status == DEED_OK) status = verify_segment(&scan, number, false);
    if (status == DEED_OK && scan.expected <= scan.until) {
        status = scan_report(&scan, scan.end_offset, 0, scan.expected, scan.until,
                             "acknowledged events are missing at the end of the segment");
    }
    scan_done(&scan);
    return status;
}
