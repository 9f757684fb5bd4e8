/* reader.c - published commits for one reader: a window of bytes, and the commit in it.
 *
 *   window:  | ... commit | commit | pad | commit | com|      bytes of one segment
 *                           ^ at hand    ^ next: stands behind, or at the next sector boundary
 *
 * (1) Bytes are read only after the published end was taken, and the window is dropped when it is
 *     taken again: it cannot hold what stood there before a commit was published.
 * (2) Every commit was checked against its place, segment and log before a byte of it is shown. It
 *     is checked once: who takes its events one by one steps on in it.
 * (3) The next commit is taken from the window without a look-up if it stands where it must, has
 *     the next position and links to the one at hand; all else is looked up. Where opening found
 *     damage everything is: it may have refused what looks like a commit. */
#include "log/log_state.h"

#include "base/planted.h"

#include <stdlib.h>

#define AHEAD_MAX  (1u << 20)
#define AHEAD_SOME (4u * SECTOR_SIZE)
/* Commits this close together are read in one go. */
#define GAP_MAX    (64u << 10)

struct log_reader {
    struct log *log;
    uint64_t end; /* (1) */

    uint8_t *window;
    size_t window_len, window_room;
    uint32_t window_segment;
    uint64_t window_offset;
    size_t ahead_least, ahead;
    uint64_t bytes_read;

    /* The commit at hand. */
    bool good;
    struct commit commit;
    uint32_t segment;
    uint64_t offset;
    struct reader events;
    uint64_t event_next; /* position of the event at `events` */
};

struct log_reader *log_reader_create(struct log *log)
{
    struct log_reader *r = calloc(1, sizeof *r);
    if (r != NULL) r->log = log;
    return r;
}

void log_reader_destroy(struct log_reader *r)
{
    if (r == NULL) return;
    free(r->window);
    free(r);
}

void log_reader_expect(struct log_reader *r, size_t size)
{
    r->ahead_least = size < AHEAD_MAX ? size : AHEAD_MAX;
    if (r->ahead < r->ahead_least) r->ahead = r->ahead_least;
}

uint64_t log_reader_bytes(struct log_reader *r)
{
    uint64_t bytes = r->bytes_read;
    r->bytes_read = 0;
    return bytes;
}

/* ---- the window ----------------------------------------------------------------------------- */

/* What the window has of the segment from `offset` on. */
static deed_bytes window_from(const struct log_reader *r, uint32_t segment, uint64_t offset)
{
    bool same = r->window_segment == segment || PLANTED(WINDOW_OF_ANY_SEGMENT);
    if (!same || offset < r->window_offset || offset - r->window_offset > r->window_len) {
        return (deed_bytes){0};
    }
    size_t from = (size_t)(offset - r->window_offset);
    return (deed_bytes){r->window + from, r->window_len - from};
}

/* How much to read: more and more while reading goes straight on. */
static size_t read_size(struct log_reader *r, const struct commit_ref *ref)
{
    uint64_t window_end = r->window_offset + r->window_len;
    bool straight_on = r->window_len > 0 && r->window_segment == ref->segment &&
                       ref->offset >= r->window_offset &&
                       (ref->offset <= window_end || ref->offset - window_end < GAP_MAX);
    if (straight_on && r->ahead < AHEAD_MAX) {
        r->ahead = r->ahead < SECTOR_SIZE ? AHEAD_SOME : r->ahead * 2;
    } else if (!straight_on) {
        r->ahead = r->ahead_least;
    }
    return ref->size > r->ahead ? ref->size : r->ahead;
}

static deed_status window_load(struct log_reader *r, const struct commit_ref *ref,
                               struct deed_error *err)
{
    size_t size = read_size(r, ref);
    if (size > r->window_room) {
        uint8_t *grown = realloc(r->window, size);
        if (grown == NULL) return deed_fail(err, DEED_NO_MEMORY, "read: out of memory");
        r->window = grown;
        r->window_room = size;
    }
    r->window_len = 0;
    deed_status status = log_read(r->log, ref->segment, ref->offset, r->window, size,
                                  &r->window_len, err);
    r->window_segment = ref->segment;
    r->window_offset = ref->offset;
    if (status == DEED_OK) r->bytes_read += r->window_len;
    return status;
}

/* ---- commits -------------------------------------------------------------------------------- */

static void take(struct log_reader *r, const struct commit *commit, uint32_t segment,
                 uint64_t offset)
{
    r->commit = *commit;
    r->segment = segment;
    r->offset = offset;
    r->events = reader_over(commit->events);
    r->event_next = commit->first_position;
    r->good = true;
}

/* (3) */
static bool step_on(struct log_reader *r, uint64_t position)
{
    if (!r->good || position != r->commit.first_position + r->commit.event_count) return false;
    if (r->log->found_damage) return false;
    uint64_t offset = r->offset + r->commit.size;
    for (;;) {
        deed_bytes bytes = window_from(r, r->segment, offset);
        struct commit_seed seed = log_seed(r->log, r->segment, offset);
        struct commit commit;
        if (bytes.len >= COMMIT_HEAD_SIZE && commit_decode(bytes, &seed, &commit)) {
            bool next = commit.first_position == position &&
                        memcmp(commit.previous, r->commit.hash, SHA256_SIZE) == 0;
            if (next) take(r, &commit, r->segment, offset);
            return next;
        }
        if (offset % SECTOR_SIZE == 0) return false;
        offset = align_up(offset, SECTOR_SIZE);
    }
}

static deed_status look_up(struct log_reader *r, uint64_t position, struct deed_error *err)
{
    uint64_t index;
    r->good = false;
    if (log_find(r->log, position, &index) != DEED_OK) {
        deed_status status = deed_fail(err, DEED_CORRUPT, "position %llu is damaged",
                                       (unsigned long long)position);
        if (err != NULL) err->position = position;
        return status;
    }
    struct commit_ref ref = log_commit_at(r->log, index);
    struct commit commit;
    deed_bytes bytes = window_from(r, ref.segment, ref.offset);
    deed_status status = DEED_OK;
    if (bytes.len < ref.size) {
        status = window_load(r, &ref, err);
        bytes = (deed_bytes){r->window, r->window_len};
    }
    if (status == DEED_OK) status = log_decode(r->log, &ref, bytes, &commit, err);
    if (status == DEED_CORRUPT && err != NULL) err->position = position;
    if (status == DEED_OK) take(r, &commit, ref.segment, ref.offset);
    return status;
}

/* Have the commit of `position` at hand. */
static deed_status load(struct log_reader *r, uint64_t position, struct deed_error *err)
{
    if (r->good && position >= r->commit.first_position &&
        position - r->commit.first_position < r->commit.event_count) {
        return DEED_OK;
    }
    if (position > r->end) {
        r->end = log_end(r->log);
        if (!PLANTED(FOLLOW_OLD_WINDOW)) r->window_len = 0; /* (1) */
    }
    if (position == 0 || position > r->end) {
        return deed_fail(err, DEED_NOT_FOUND, "position %llu: the log ends at %llu",
                         (unsigned long long)position, (unsigned long long)r->end);
    }
    return step_on(r, position) ? DEED_OK : look_up(r, position, err);
}

deed_status log_reader_load(struct log_reader *r, uint64_t position, struct commit *out_commit,
                            deed_bytes *out_bytes, struct deed_error *err)
{
    deed_status status = load(r, position, err);
    if (status != DEED_OK) return status;
    *out_commit = r->commit;
    if (out_bytes != NULL) {
        *out_bytes = (deed_bytes){r->commit.events.ptr - COMMIT_HEAD_SIZE, r->commit.size};
    }
    return DEED_OK;
}

deed_status log_reader_event(struct log_reader *r, uint64_t position, struct arena *arena,
                             struct deed_event *out_event, struct deed_error *err)
{
    deed_status status = load(r, position, err);
    if (status != DEED_OK) return status;
    if (position < r->event_next) {
        r->events = reader_over(r->commit.events);
        r->event_next = r->commit.first_position;
    }
    for (; r->event_next < position; r->event_next++) (void)event_skip(&r->events);
    if (!event_decode(&r->events, arena, out_event, NULL) || out_event->position != position) {
        r->good = false;
        if (arena->failed) return deed_fail(err, DEED_NO_MEMORY, "log: no memory for an event");
        status = deed_fail(err, DEED_CORRUPT, "segment %u: the commit at offset %llu: position "
                           "%llu is malformed", r->segment, (unsigned long long)r->offset,
                           (unsigned long long)position);
        if (err != NULL) err->position = position;
        return status;
    }
    r->event_next++;
    out_event->recorded_at_ns = r->commit.recorded_at_ns;
    return DEED_OK;
}

/* ---- questions without bytes ---------------------------------------------------------------- */

void log_lost_around(struct log *log, uint64_t position, uint64_t *out_first, uint64_t *out_last)
{
    uint64_t index;
    *out_first = *out_last = position;
    if (log_find(log, position, &index) == DEED_OK) return;
    *out_first = 1;
    if (index > 0) {
        struct commit_ref before = log_commit_at(log, index - 1);
        *out_first = before.first_position + before.event_count;
    }
    *out_last = index < log_commit_count(log) ? log_commit_at(log, index).first_position - 1
                                              : log_end(log);
}

deed_status log_find_time(struct log *log, int64_t time_ns, uint64_t *out_position,
                          struct deed_error *err)
{
    uint64_t low = 0;
    uint64_t high = log_commit_count(log);
    uint64_t end = log_end(log);
    (void)err;
    while (low < high) {
        uint64_t middle = low + (high - low) / 2;
        struct commit_ref ref = log_commit_at(log, middle);
        if (ref.recorded_at_ns + PLANTED(TIME_OFF_BY_ONE) <= time_ns) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    uint64_t first = low < log_commit_count(log) ? log_commit_at(log, low).first_position : end + 1;
    *out_position = first <= end ? first : end + 1;
    return DEED_OK;
}

deed_status log_recorded_at(struct log *log, uint64_t position, int64_t *out_time_ns,
                            struct deed_error *err)
{
    uint64_t index;
    if (position == 0 || log_find(log, position, &index) != DEED_OK) {
        return deed_fail(err, DEED_NOT_FOUND, "position %llu: the log ends at %llu",
                         (unsigned long long)position, (unsigned long long)log_end(log));
    }
    *out_time_ns = log_commit_at(log, index).recorded_at_ns;
    return DEED_OK;
}
