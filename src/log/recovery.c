/* recovery.c - what a crash left, and what rot did: the scan that tells them apart.
 *
 *   | commit A | commit B | pad | ???????? | commit D | pad | zeros ...
 *              candidates: behind a good commit, else at each sector boundary
 *
 * A candidate is good when checksum, own hash and previous hash match. Behind the end of the chain:
 *
 * (1) A valid commit whose durable-before is at or past the next expected position was written when
 *     what is missing had been acknowledged: DAMAGE, from the expected position to the one before
 *     it.
 * (2) A valid commit with an older durable-before is debris of a write that was never acknowledged:
 *     go on at the next boundary.
 * (3) What the newest mark or the next segment's header claims and the scan did not find is DAMAGE.
 * (4) All else behind the end is a torn tail: kept aside, overwritten with zeros, synced.
 *
 * The segments from the mark's on are synced first and then read from the device, past the page
 * cache, which may hold what a failed sync never wrote.
 *
 * Normative: docs/format/log.md */
#include "log/log_state.h"

#include "base/planted.h"
#include "base/uuid.h"
#include "log/losses.h"
#include "os/failpoint.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define WINDOW_SIZE (UINT64_C(1) << 20)

struct scan {
    struct log *log;
    const struct log_visitor *visitor;
    struct deed_error *err;
    struct arena arena;

    /* The segment being read. */
    struct os_file *file;
    uint32_t number;
    uint64_t file_size;
    uint8_t *window;
    uint64_t window_offset;
    size_t window_len, window_room;

    /* The chain so far. */
    uint64_t expected; /* the next position */
    uint8_t previous[SHA256_SIZE];
    bool previous_known; /* false behind damage */
    int64_t recorded_at_ns;
    uint64_t end_offset; /* behind the last good commit of this segment */

    struct mark mark;   /* opening: what it claims */
    uint64_t hash_from; /* recompute own hashes from this position on */
    uint64_t until;     /* stop behind this position; DEED_NONE: at the end */
    bool keep_refs;     /* opening; a verification keeps nothing */
    struct losses losses; /* accepted */
    struct losses found;  /* to be accepted now */
    bool damaged;
    uint64_t done, all; /* bytes, for progress */
};

static deed_status report(struct scan *s, uint64_t offset, uint64_t size, uint64_t first,
                          uint64_t last, const char *what)
{
    struct log_damage damage = {.segment = s->number,
                                .offset = offset,
                                .size = size,
                                .first_position = first,
                                .last_position = last,
                                .what = what};
    deed_status status = DEED_OK;
    if (s->keep_refs) s->log->found_damage = true;
    damage.accepted = losses_cover(&s->losses, &damage);
    if (!damage.accepted) {
        s->damaged = true;
        status = losses_add(&s->found, &damage, s->err);
    }
    return status == DEED_OK ? s->visitor->damage(s->visitor->context, &damage, s->err) : status;
}

/* ---- bytes ---------------------------------------------------------------------------------- */

/* A sector that the device will not give back is zeros to the scan, and damage to the visitor. */
static deed_status window_load_by_sector(struct scan *s, uint64_t offset, size_t size)
{
    s->window_len = 0;
    for (size_t at = 0; at < size; at += SECTOR_SIZE) {
        size_t got = 0;
        deed_status status =
            os_file_read(s->file, offset + at, s->window + at, SECTOR_SIZE, &got, s->err);
        if (status != DEED_OK) {
            memset(s->window + at, 0, SECTOR_SIZE);
            got = SECTOR_SIZE;
            status = report(s, offset + at, SECTOR_SIZE, DEED_NONE, DEED_NONE,
                            "the device cannot read this sector");
            if (status != DEED_OK) return status;
        }
        s->window_len += got;
        if (got < SECTOR_SIZE) break;
    }
    return DEED_OK;
}

/* Have [offset, offset + size) of the file in the window, as far as the file goes. */
static deed_status window_load(struct scan *s, uint64_t offset, uint64_t size)
{
    uint64_t start = offset / SECTOR_SIZE * SECTOR_SIZE;
    uint64_t need = align_up(offset + size - start, SECTOR_SIZE);
    if (need < WINDOW_SIZE) need = WINDOW_SIZE;
    if (need > s->window_room) {
        uint8_t *grown = realloc(s->window, need);
        if (grown == NULL) return deed_fail(s->err, DEED_NO_MEMORY, "log: no memory to recover");
        s->window = grown;
        s->window_room = need;
    }
    s->window_offset = start;
    s->window_len = 0;
    struct deed_error ignored;
    deed_status status =
        os_file_read(s->file, start, s->window, (size_t)need, &s->window_len, &ignored);
    return status == DEED_OK ? DEED_OK : window_load_by_sector(s, start, (size_t)need);
}

static deed_status window_get(struct scan *s, uint64_t offset, uint64_t size, deed_bytes *out)
{
    bool there = offset >= s->window_offset &&
                 offset - s->window_offset <= s->window_len &&
                 size <= s->window_len - (offset - s->window_offset);
    if (!there) {
        deed_status status = window_load(s, offset, size);
        if (status != DEED_OK) return status;
    }
    uint64_t from = offset - s->window_offset;
    uint64_t len = from >= s->window_len ? 0 : s->window_len - from;
    *out = (deed_bytes){s->window + from, len < size ? (size_t)len : (size_t)size};
    return DEED_OK;
}

/* ---- commits -------------------------------------------------------------------------------- */

/* A valid commit at `offset`? `out->size` is 0 if not. */
static deed_status candidate(struct scan *s, uint64_t offset, struct commit *out)
{
    *out = (struct commit){0};
    deed_bytes head;
    deed_status status = window_get(s, offset, 12, &head);
    if (status != DEED_OK) return status;
    uint32_t size = commit_peek_size(head);
    if (size == 0 || size > s->file_size - offset) return DEED_OK;

    deed_bytes whole;
    status = window_get(s, offset, size, &whole);
    if (status != DEED_OK) return status;
    struct commit_seed seed = log_seed(s->log, s->number, offset);
    struct commit commit;
    if (!commit_decode(whole, &seed, &commit)) return DEED_OK;
    if (commit.first_position >= s->hash_from) {
        arena_reset(&s->arena);
        bool good = commit_hash_good(&commit, s->log->id, &s->arena);
        /* What could not be looked at must not pass for a torn tail. */
        if (!good && s->arena.failed) {
            return deed_fail(s->err, DEED_NO_MEMORY, "log: no memory to recover");
        }
        /* No accident leaves the right checksum over other bytes. To pass it over would be to decide
         * what it was; and once a mark is past it, it would count. */
        if (!good) {
            return report(s, offset, size, DEED_NONE, DEED_NONE,
                          "a commit's checksum is right and its own hash is not");
        }
    }
    *out = commit;
    return DEED_OK;
}

static deed_status accept(struct scan *s, uint64_t offset, const struct commit *commit)
{
    struct commit_ref ref = {.first_position = commit->first_position,
                             .recorded_at_ns = commit->recorded_at_ns,
                             .offset = offset,
                             .segment = s->number,
                             .size = commit->size,
                             .event_count = commit->event_count};
    s->expected = commit->first_position + commit->event_count;
    memcpy(s->previous, commit->hash, SHA256_SIZE);
    s->previous_known = true;
    s->recorded_at_ns = commit->recorded_at_ns;
    s->end_offset = offset + commit->size;
    deed_status status = DEED_OK;
    if (s->keep_refs) status = log_ref_add(s->log, &ref, s->err);
    bool marked = s->mark.position > 0 && s->expected == s->mark.position + 1;
    if (status == DEED_OK && marked && memcmp(commit->hash, s->mark.hash, SHA256_SIZE) != 0) {
        status = report(s, offset, commit->size, DEED_NONE, DEED_NONE,
                        "the commit mark names another commit"); /* (3) */
    }
    if (status != DEED_OK) return status;
    return s->visitor->commit(s->visitor->context, commit, &ref, s->err);
}

/* Is it the next link, the far side of damage (1), or debris (2)? */
static deed_status judge(struct scan *s, uint64_t offset, const struct commit *commit,
                         bool *out_accepted)
{
    bool next = commit->first_position == s->expected;
    bool linked = !s->previous_known || PLANTED(IGNORE_CHAIN) ||
                  memcmp(commit->previous, s->previous, SHA256_SIZE) == 0;
    *out_accepted = next && linked;
    if (*out_accepted) return accept(s, offset, commit);

    bool proves_loss = (commit->durable_before >= s->expected || PLANTED(DEBRIS_PROVES_LOSS)) &&
                       commit->first_position > s->expected && !PLANTED(IGNORE_DURABLE_BEFORE);
    if (!proves_loss) return DEED_OK;
    deed_status status =
        report(s, s->end_offset, offset - s->end_offset, s->expected, commit->first_position - 1,
               "acknowledged events are damaged or missing");
    if (status != DEED_OK) return status;
    *out_accepted = true;
    return accept(s, offset, commit);
}

static bool progress(struct scan *s, uint64_t offset)
{
    if (s->visitor->progress == NULL) return true;
    return s->visitor->progress(s->visitor->context, s->done + offset, s->all);
}

static deed_status scan_commits(struct scan *s)
{
    uint64_t offset = SEGMENT_HEADER_SIZE;
    uint64_t told = 0;
    s->window_len = 0;
    s->end_offset = offset;
    while (offset < s->file_size && (s->until == DEED_NONE || s->expected <= s->until)) {
        struct commit commit;
        bool accepted = false;
        deed_status status = candidate(s, offset, &commit);
        if (status == DEED_OK && commit.size > 0) status = judge(s, offset, &commit, &accepted);
        if (status != DEED_OK) return status;
        offset = accepted ? s->end_offset : (offset / SECTOR_SIZE + 1) * SECTOR_SIZE;
        if (PLANTED(STOP_AT_FIRST_GAP) && !accepted) break;
        if (offset - told >= WINDOW_SIZE) {
            told = offset;
            if (!progress(s, offset)) return deed_fail(s->err, DEED_STOPPED, "stopped on request");
        }
    }
    return DEED_OK;
}

/* The header joins its segment to the chain (3). */
static deed_status join_segment(struct scan *s, const struct log_segment *segment)
{
    if (!segment->header_good) {
        return report(s, 0, SEGMENT_HEADER_SIZE, DEED_NONE, DEED_NONE,
                      "the segment's header is damaged");
    }
    uint64_t first = segment->header.first_position;
    if (first > s->expected) {
        deed_status status = report(s, 0, 0, s->expected, first - 1,
                                    "acknowledged events before this segment are missing");
        if (status != DEED_OK) return status;
        s->expected = first;
        s->previous_known = false;
    }
    bool linked = first == s->expected &&
                  (!s->previous_known ||
                   memcmp(segment->header.previous, s->previous, SHA256_SIZE) == 0);
    if (!linked) {
        s->previous_known = false; /* what stands behind it is still good to read */
        return report(s, 0, SEGMENT_HEADER_SIZE, DEED_NONE, DEED_NONE,
                      "the segment's header does not continue the chain");
    }
    if (!s->previous_known) {
        memcpy(s->previous, segment->header.previous, SHA256_SIZE);
        s->previous_known = true;
    }
    return DEED_OK;
}

static deed_status scan_segment(struct scan *s, const struct log_segment *segment,
                                struct os_file *file)
{
    s->file = file;
    s->number = segment->number;
    deed_status status = os_file_size(file, &s->file_size, s->err);
    if (status == DEED_OK) status = join_segment(s, segment);
    if (status == DEED_OK) status = scan_commits(s);
    s->done += s->file_size;
    return status;
}

static void scan_init(struct scan *s, struct log *log, const struct log_visitor *visitor,
                      struct deed_error *err)
{
    *s = (struct scan){.log = log,
                       .visitor = visitor,
                       .err = err,
                       .expected = 1,
                       .previous_known = true,
                       .until = DEED_NONE,
                       .all = log_size(log)};
    arena_init(&s->arena, SIZE_MAX);
}

static void scan_done(struct scan *s)
{
    arena_done(&s->arena);
    losses_done(&s->losses);
    losses_done(&s->found);
    free(s->window);
}

/* ---- the segments that are there ------------------------------------------------------------ */

struct numbers {
    uint32_t *ptr;
    size_t count, room;
    bool no_memory;
};

static void numbers_add(void *context, const char *name)
{
    struct numbers *n = context;
    uint32_t number;
    if (!segment_name_parse(name, &number)) return;
    if (n->count == n->room) {
        size_t room = n->room == 0 ? 64 : n->room * 2;
        uint32_t *grown = realloc(n->ptr, room * sizeof *grown);
        if (grown == NULL) {
            n->no_memory = true;
            return;
        }
        n->ptr = grown;
        n->room = room;
    }
    n->ptr[n->count++] = number;
}

static int number_order(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a;
    uint32_t y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static deed_status segment_open(struct log *log, uint32_t number, struct log_segment *out,
                                struct deed_error *err)
{
    char name[SEGMENT_NAME_SIZE];
    uint8_t header[SEGMENT_HEADER_SIZE];
    size_t size = 0;
    *out = (struct log_segment){.number = number};
    segment_name(number, name);
    unsigned flags = log->options.read_only ? OS_READ : OS_WRITE;
    deed_status status = os_file_open(log->dir, name, flags, &out->file, err);
    if (status != DEED_OK) return status;
    status = os_file_read(out->file, 0, header, sizeof header, &size, err);
    if (status == DEED_IO) size = 0;
    if (status != DEED_OK && status != DEED_IO) goto failed;

    memset(header + size, 0, sizeof header - size);
    status = segment_header_decode(header, &out->header, err);
    if (status == DEED_TOO_NEW) {
        deed_wrap(err, "%s", name);
        goto failed;
    }
    out->header_good = status == DEED_OK && out->header.number == number;
    return DEED_OK;

failed:
    os_file_close(out->file);
    return status;
}

/* Numbers without a file between others become entries without one. */
static deed_status segments_open(struct log *log, const struct numbers *numbers,
                                 struct deed_error *err)
{
    for (size_t i = 0; i < numbers->count; i++) {
        uint32_t number = numbers->ptr[i];
        uint32_t next = i == 0 ? number : numbers->ptr[i - 1] + 1;
        if (i == 0) log->first_number = number;
        for (; next < number; next++) {
            struct log_segment hole = {.number = next};
            if (number - next > 1u << 20 || !chunks_add(&log->segments, &hole)) {
                return deed_fail(err, DEED_CORRUPT, "segment %u: too many before it are missing",
                                 number);
            }
        }
        struct log_segment segment;
        deed_status status = segment_open(log, number, &segment, err);
        if (status != DEED_OK) return status;
        if (!chunks_add(&log->segments, &segment)) {
            os_file_close(segment.file);
            return deed_fail(err, DEED_NO_MEMORY, "log: out of memory");
        }
    }
    return DEED_OK;
}

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

static deed_status segments_list(struct log *log, struct numbers *numbers, struct deed_error *err)
{
    deed_status status = os_dir_list(log->dir, numbers_add, numbers, err);
    if (status == DEED_OK && numbers->no_memory) {
        status = deed_fail(err, DEED_NO_MEMORY, "log: out of memory");
    }
    if (status == DEED_OK && numbers->count > 0) {
        qsort(numbers->ptr, numbers->count, sizeof *numbers->ptr, number_order);
    }
    return status;
}

/* A crash while a segment was made leaves a file without a good header and without content: it
 * holds nothing, unless the mark says that it did. */
static deed_status drop_unborn_segment(struct log *log, struct numbers *numbers,
                                       const struct mark *mark, struct deed_error *err)
{
    if (numbers->count == 0) return DEED_OK;
    uint32_t number = numbers->ptr[numbers->count - 1];
    if (mark->position > 0 && mark->segment >= number && !PLANTED(DROP_HEADERLESS_SEGMENT)) {
        return DEED_OK;
    }

    struct log_segment segment;
    bool content = true;
    deed_status status = segment_open(log, number, &segment, err);
    if (status != DEED_OK) return status;
    bool good = segment.header_good;
    if (!good) status = has_content(segment.file, &content, err);
    if (PLANTED(DROP_HEADERLESS_SEGMENT)) content = false;
    os_file_close(segment.file);
    if (status != DEED_OK || good || content || PLANTED(KEEP_UNBORN_SEGMENT)) return status;

    numbers->count--;
    if (log->options.read_only) return DEED_OK;
    char name[SEGMENT_NAME_SIZE];
    segment_name(number, name);
    status = os_remove(log->dir, name, err);
    return status == DEED_OK ? os_dir_sync(log->dir, err) : status;
}

/* From any good header, else from the mark, else a new log's. */
static deed_status find_identity(struct log *log, const struct mark *mark, struct deed_error *err)
{
    bool found = false;
    for (uint64_t i = 0; i < chunks_count(&log->segments); i++) {
        const struct log_segment *segment = chunks_at(&log->segments, i);
        if (!segment->header_good) continue;
        bool same = uuid_equal(segment->header.log_id, log->id) &&
                    memcmp(segment->header.secret, log->secret, COMMIT_SECRET_SIZE) == 0;
        if (found && !same) {
            return deed_fail(err, DEED_CORRUPT, "segment %u belongs to another log",
                             segment->number);
        }
        log->id = segment->header.log_id;
        memcpy(log->secret, segment->header.secret, COMMIT_SECRET_SIZE);
        if (segment->header.epoch > log->epoch) log->epoch = segment->header.epoch;
        found = true;
    }
    if (!found && mark->position > 0) {
        log->id = mark->log_id;
        log->epoch = mark->epoch;
        memcpy(log->secret, mark->secret, COMMIT_SECRET_SIZE);
        found = true;
    }
    if (found) return DEED_OK;
    if (chunks_count(&log->segments) > 0) {
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
    uint8_t *bytes = malloc(WINDOW_SIZE);
    if (bytes == NULL) return deed_fail(err, DEED_NO_MEMORY, "log: no memory to recover");
    deed_status status = DEED_OK;
    for (uint64_t offset = from; offset < size; offset += WINDOW_SIZE) {
        size_t got = 0;
        status = os_file_read(file, offset, bytes, WINDOW_SIZE, &got, err);
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
    uint8_t *bytes = malloc(WINDOW_SIZE);
    if (bytes == NULL) return deed_fail(err, DEED_NO_MEMORY, "log: no memory to recover");
    (void)snprintf(name, sizeof name, "%010u.%" PRIu64 ".%" PRId64 ".torn", number, from,
                   os_now_ns(log->os));
    deed_status status = os_file_open(log->dir, name, OS_WRITE | OS_CREATE, &aside, err);
    for (uint64_t offset = from; status == DEED_OK && offset < end; offset += WINDOW_SIZE) {
        size_t got = 0;
        size_t want = end - offset < WINDOW_SIZE ? (size_t)(end - offset) : WINDOW_SIZE;
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

/* A damaged list accepts nothing: opening shows what there is, and stops where something is lost. */
static deed_status load_losses(struct scan *s, bool tell)
{
    deed_status status = losses_load(s->log->dir, s->log->id, &s->losses, s->err);
    if (status != DEED_CORRUPT) return status;
    losses_done(&s->losses);
    if (!tell) return DEED_OK;
    return report(s, 0, 0, DEED_NONE, DEED_NONE, "the list of accepted losses is damaged");
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

static void writer_setup(struct log *log, const struct scan *s, const struct log_segment *last)
{
    log->active = last->file;
    log->active_number = last->number;
    log->group_offset = align_up(s->end_offset, SECTOR_SIZE);
    log->fill_file = last->file;
    log->filled = s->file_size > log->group_offset ? s->file_size : log->group_offset;
    atomic_store(&log->writer_offset, log->group_offset);
}

static deed_status scan_all(struct scan *s, const struct mark *mark)
{
    struct log *log = s->log;
    uint64_t count = chunks_count(&log->segments);
    for (uint64_t i = 0; i < count; i++) {
        const struct log_segment *segment = chunks_at(&log->segments, i);
        if (segment->file == NULL) continue; /* the next header tells what is missing */
        bool tail = i + 1 == count || (mark->position > 0 && segment->number >= mark->segment);
        struct os_file *direct = NULL;
        deed_status status = DEED_OK;
        if (tail) {
            char name[SEGMENT_NAME_SIZE];
            segment_name(segment->number, name);
            if (!log->options.read_only && !PLANTED(OPEN_WITHOUT_SYNC)) {
                status = os_file_sync(segment->file, s->err);
            }
            if (status == DEED_OK) {
                status = os_file_open(log->dir, name,
                                      PLANTED(TAIL_FROM_CACHE) ? OS_READ : OS_READ | OS_DIRECT,
                                      &direct, s->err);
            }
        }
        if (status == DEED_OK) status = scan_segment(s, segment, tail ? direct : segment->file);
        if (status == DEED_OK && i + 1 == count) {
            if (mark->position >= s->expected && !PLANTED(IGNORE_MARK)) {
                status = report(s, s->end_offset, 0, s->expected, mark->position,
                                "acknowledged events are missing at the end of the log");
            }
            writer_setup(log, s, segment);
            if (status == DEED_OK) status = accept_found(s);
            if (status == DEED_OK && !s->damaged && !log->options.read_only &&
                !PLANTED(KEEP_TAIL)) {
                status = clean_tail(log, s, direct);
            }
        }
        os_file_close(direct);
        if (status != DEED_OK) return status;
    }
    return DEED_OK;
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

deed_status log_recover(struct log *log, const struct log_visitor *visitor, struct deed_error *err)
{
    struct numbers numbers = {0};
    struct mark mark;
    struct scan scan = {0};
    /* The mark first: what it names is there when the segments are listed, also beside a writer. */
    deed_status status = mark_load(log->dir, &mark, err);
    FAILPOINT("mark-read");
    if (status == DEED_OK) status = segments_list(log, &numbers, err);
    /* One at most is left by a crash. Two are nothing either, and must not become damage by that. */
    for (size_t before = 0; status == DEED_OK && before != numbers.count;) {
        before = numbers.count;
        status = drop_unborn_segment(log, &numbers, &mark, err);
    }
    if (status == DEED_OK) status = segments_open(log, &numbers, err);
    if (status == DEED_OK) status = find_identity(log, &mark, err);
    if (status != DEED_OK) goto done;
    if (!uuid_equal(mark.log_id, log->id)) mark = (struct mark){.sequence = mark.sequence};

    scan_init(&scan, log, visitor, err);
    scan.keep_refs = true;
    scan.mark = mark;
    scan.hash_from = mark.position + 1;
    status = load_losses(&scan, false);
    FAILPOINT("segments-open");
    if (status == DEED_OK) status = scan_all(&scan, &mark);
    FAILPOINT("scanned");
    if (status == DEED_OK && numbers.count == 0 && mark.position > 0) {
        status = report(&scan, 0, 0, 1, mark.position, "every segment of the log is missing");
        if (status == DEED_OK) status = accept_found(&scan);
    }
    if (status == DEED_OK) head_setup(log, &scan, &mark);
    /* The names of segments made just before a crash may not be durable yet. */
    if (status == DEED_OK && !log->options.read_only) status = os_dir_sync(log->dir, err);

done:
    scan_done(&scan);
    free(numbers.ptr);
    return status;
}

deed_status log_verify(struct log *log, const struct log_visitor *visitor, struct deed_error *err)
{
    struct scan scan;
    scan_init(&scan, log, visitor, err);
    scan.until = log_end(log);
    deed_status status = load_losses(&scan, true);
    uint64_t count = chunks_count(&log->segments);
    for (uint64_t i = 0; i < count && status == DEED_OK; i++) {
        const struct log_segment *segment = chunks_at(&log->segments, i);
        if (segment->file == NULL || scan.expected > scan.until) continue;
        /* The header is read again too: rot may have come since opening. */
        struct log_segment again = *segment;
        uint8_t header[SEGMENT_HEADER_SIZE] = {0};
        size_t size = 0;
        status = os_file_read(segment->file, 0, header, sizeof header, &size, err);
        if (status == DEED_IO) status = DEED_OK;
        if (status != DEED_OK) break;
        again.header_good = segment_header_decode(header, &again.header, NULL) == DEED_OK &&
                            (again.header.number == segment->number || PLANTED(VERIFY_ANY_HEADER));
        status = scan_segment(&scan, &again, segment->file);
    }
    if (status == DEED_OK && scan.expected <= scan.until) {
        status = report(&scan, scan.end_offset, 0, scan.expected, scan.until,
                        "acknowledged events are missing at the end of the log");
    }
    scan_done(&scan);
    return status;
}
