/* reader.c - published commits for one reader: a window of bytes, and the commit in it.
 *
 *   window:  | ... commit | commit | pad | commit | com|      bytes of one segment
 *                           ^ at hand    ^ next: stands behind, or at the next sector boundary
 *
 * (1) Bytes are read only after the published end was taken, and not beyond it: the window cannot
 *     hold what stood there before a commit was published.
 * (2) Every commit was checked against its place, segment and log before a byte of it is shown. It
 *     is checked once: who takes its events one by one steps on in it.
 * (3) The next commit is taken from the window without a look-up if it stands where it must, has
 *     the next position and links to the one at hand; all else is looked up. Where opening found
 *     damage everything is: it may have refused what looks like a commit.
 * (4) A view is held, and a file pinned, only while it is read from. When the file is gone, its
 *     segment was sealed or rewritten meanwhile: the current view knows where the position is now. */
#include "log/log_state.h"

#include "base/planted.h"

#include <assert.h>
#include <stdlib.h>

/* What is read stays in a processor's cache until it is decoded: a window of 1 MiB was slower, by a
 * fifth for raw commits and a tenth for NDJSON (docs/performance.md, replay). */
#define AHEAD_MAX  (256u << 10)
#define AHEAD_SOME (4u * SECTOR_SIZE)
/* Commits this close together are read in one go. */
#define GAP_MAX    (64u << 10)

/* A follower that waits keeps no more than this: of those there may be thousands. */
#define REST_MAX (64u << 10)

struct log_reader {
    struct log *log;
    uint64_t end; /* (1) */
    struct log_head head; /* at or behind `end` */

    struct buf window, packed;
    uint32_t window_segment, window_generation;
    uint64_t window_offset;
    size_t ahead_least, ahead;
    uint64_t bytes_read;

    /* The commit at hand, and the one that is looked at next, in turns. Neither is copied: to load in
     * large pieces what was just stored in small ones was a sixth of a replay's time. */
    bool good;
    bool steps; /* (3) */
    struct commit *commit, *next;
    struct commit commits[2];
    struct commit_seed seed; /* (2) the log's, of the place that is looked at */
    uint64_t offset; /* in the window's segment */
    struct reader events;
    uint64_t event_next; /* position of the event at `events` */
};

/* Where a commit is. */
struct place {
    struct log_segment *segment; /* the view's */
    uint64_t position, offset, size;
};

struct log_reader *log_reader_create(struct log *log)
{
    struct log_reader *r = calloc(1, sizeof *r);
    if (r == NULL) return NULL;
    r->log = log;
    r->commit = &r->commits[0];
    r->next = &r->commits[1];
    r->seed = log_seed(log, 0, 0);
    buf_init(&r->window, SIZE_MAX);
    buf_init(&r->packed, SIZE_MAX);
    return r;
}

void log_reader_destroy(struct log_reader *r)
{
    if (r == NULL) return;
    buf_done(&r->window);
    buf_done(&r->packed);
    free(r);
}

void log_reader_expect(struct log_reader *r, size_t size)
{
    r->ahead_least = size < AHEAD_MAX ? size : AHEAD_MAX;
    if (r->ahead < r->ahead_least) r->ahead = r->ahead_least;
}

void log_reader_rest(struct log_reader *r)
{
    if (r->window.room + r->packed.room <= REST_MAX) return;
    buf_done(&r->window);
    buf_done(&r->packed);
    r->good = false; /* the commit at hand lay there */
}

uint64_t log_reader_bytes(struct log_reader *r)
{
    uint64_t bytes = r->bytes_read;
    r->bytes_read = 0;
    return bytes;
}

static deed_status lost(uint64_t position, struct deed_error *err)
{
    deed_status status =
        deed_fail(err, DEED_CORRUPT, "position %llu is damaged", (unsigned long long)position);
    if (err != NULL) err->position = position;
    return status;
}

/* Before the first segment that is there. */
static bool out_of_view(const struct log_view *view, uint64_t position)
{
    return view->count == 0 || position < view->segments[0]->first_position;
}

/* Opened read-only beside a writer: which file was replaced? `position` 0: any. */
static bool find_again(struct log *log, const struct log_view *view, uint64_t position)
{
    bool found = false;
    for (size_t i = 0; i < view->count; i++) {
        const struct log_segment *segment = view->segments[i];
        struct os_file *file = NULL;
        if (position > 0 && i != log_view_find(view, position)) continue;
        if (log_segment_pin(log, segment, &file, NULL) == DEED_NOT_FOUND) {
            found = log_find_again(log, segment->number) || found;
        }
        file_cache_unpin(log->files, file);
    }
    return found;
}

/* (4): is there a newer view to look in? Else a file that is not there is damage. */
static bool gone(struct log *log, const struct log_view *view, uint64_t position,
                 deed_status *inout_status, struct deed_error *err)
{
    if (*inout_status != DEED_NOT_FOUND) return false;
    if (!log_view_current(log, view)) return true;
    if (log->options.read_only && find_again(log, view, position)) return true;
    *inout_status = DEED_CORRUPT;
    if (err != NULL) err->status = DEED_CORRUPT;
    return false;
}

/* ---- the window ----------------------------------------------------------------------------- */

/* What the window has of the segment from `offset` on. */
static deed_bytes window_from(const struct log_reader *r, uint32_t segment, uint32_t generation,
                              uint64_t offset)
{
    bool same = (r->window_segment == segment && r->window_generation == generation) ||
                PLANTED(WINDOW_OF_ANY_SEGMENT);
    if (!same || offset < r->window_offset || offset - r->window_offset > r->window.len) {
        return (deed_bytes){0};
    }
    size_t from = (size_t)(offset - r->window_offset);
    return (deed_bytes){r->window.ptr + from, r->window.len - from};
}

/* How much to read: more and more while reading goes straight on. */
static uint64_t read_size(struct log_reader *r, const struct place *place)
{
    const struct log_segment *segment = place->segment;
    uint64_t window_end = r->window_offset + r->window.len;
    bool straight_on =
        r->window.len > 0 && r->window_segment == segment->number &&
        r->window_generation == segment->generation && place->offset >= r->window_offset &&
        (place->offset <= window_end || place->offset - window_end < GAP_MAX);
    if (straight_on && r->ahead < AHEAD_MAX) {
        r->ahead = r->ahead < SECTOR_SIZE ? AHEAD_SOME : r->ahead * 2;
    } else if (!straight_on) {
        r->ahead = r->ahead_least;
    }
    uint64_t size = place->size > r->ahead ? place->size : r->ahead;
    /* (1): behind the end there are zeros, or what is just being written. */
    if (segment->generation > 0 || segment->number != r->head.segment ||
        PLANTED(FOLLOW_OLD_WINDOW)) {
        return size;
    }
    uint64_t left = place->offset < r->head.offset ? r->head.offset - place->offset : 0;
    if (size > left) size = left;
    return size > place->size ? size : place->size;
}

static deed_status window_read(struct log_reader *r, struct os_file *file,
                               const struct place *place, uint64_t size, struct deed_error *err)
{
    struct log_segment *segment = place->segment;
    const struct sealed_footer *footer = NULL;
    if (segment->generation > 0) {
        deed_status status = log_segment_footer(r->log, segment, file, &footer, err);
        if (status != DEED_OK) return status;
        struct sealed_file sealed = log_segment_sealed(r->log, segment, file);
        return sealed_read(&sealed, footer, place->offset, size, &r->window, &r->packed,
                           &r->window_offset, err);
    }
    size_t got = 0;
    buf_reset(&r->window);
    r->window_offset = place->offset;
    uint8_t *room = buf_reserve(&r->window, (size_t)size);
    if (room == NULL) return deed_fail(err, DEED_NO_MEMORY, "read: out of memory");
    deed_status status = os_file_read(file, place->offset, room, (size_t)size, &got, err);
    if (status == DEED_OK) r->window.len = got;
    return status;
}

static deed_status window_load(struct log_reader *r, struct os_file *file,
                               const struct place *place, struct deed_error *err)
{
    uint64_t size = read_size(r, place);
    deed_status status = window_read(r, file, place, size, err);
    if (status == DEED_CORRUPT && size > place->size) {
        /* Maybe only what was read ahead is damaged. */
        status = window_read(r, file, place, place->size, err);
    }
    if (status != DEED_OK) buf_reset(&r->window);
    r->window_segment = place->segment->number;
    r->window_generation = place->segment->generation;
    r->bytes_read += r->window.len;
    return status;
}

/* ---- commits -------------------------------------------------------------------------------- */

/* Decode what stands at `offset` into `next`. */
static bool decode_next(struct log_reader *r, deed_bytes bytes, uint32_t segment, uint64_t offset)
{
    r->seed.segment = segment;
    r->seed.offset = offset;
    return commit_decode(bytes, &r->seed, r->next);
}

/* `next` is the commit at hand now. */
static void take(struct log_reader *r, uint64_t offset)
{
    struct commit *commit = r->next;
    r->next = r->commit;
    r->commit = commit;
    r->offset = offset;
    r->events.in.ptr = commit->events.ptr;
    r->events.in.len = commit->events.len;
    r->events.at = 0;
    r->events.dry = false;
    r->event_next = commit->first_position;
    r->good = true;
}

/* (3) */
static bool step_on(struct log_reader *r, uint64_t position)
{
    if (!r->good || !r->steps) return false;
    if (position != r->commit->first_position + r->commit->event_count) return false;
    uint64_t offset = r->offset + r->commit->size;
    for (;;) {
        deed_bytes bytes = window_from(r, r->window_segment, r->window_generation, offset);
        if (bytes.len >= COMMIT_HEAD_SIZE && decode_next(r, bytes, r->window_segment, offset)) {
            bool next = r->next->first_position == position &&
                        memcmp(r->next->previous, r->commit->hash, SHA256_SIZE) == 0;
            if (next) take(r, offset);
            return next;
        }
        if (offset % SECTOR_SIZE == 0 || r->window_generation > 0) return false;
        offset = align_up(offset, SECTOR_SIZE);
    }
}

/* Where the table is damaged: from the segment's beginning, commit by commit. */
static deed_status walk_to(struct log_reader *r, struct log_segment *segment, struct os_file *file,
                           const struct sealed_footer *footer, uint64_t position, struct place *out,
                           struct deed_error *err)
{
    struct place at = {segment, segment->first_position, SEGMENT_HEADER_SIZE, COMMIT_HEAD_SIZE};
    while (at.offset < footer->logical_end && at.position <= position) {
        deed_bytes bytes = window_from(r, segment->number, segment->generation, at.offset);
        uint32_t size = commit_peek_size(bytes);
        if (size == 0 || size > bytes.len) {
            if (size > 0) at.size = size;
            deed_status status = window_load(r, file, &at, err);
            if (status != DEED_OK) return status;
            bytes = window_from(r, segment->number, segment->generation, at.offset);
            if (commit_peek_size(bytes) > bytes.len && at.size < commit_peek_size(bytes)) continue;
        }
        const struct commit *commit = r->next;
        if (!decode_next(r, bytes, segment->number, at.offset)) break;
        if (commit->first_position != at.position) break;
        if (position - at.position < commit->event_count) {
            at.size = commit->size;
            *out = at;
            return DEED_OK;
        }
        at.position += commit->event_count;
        at.offset += commit->size;
        at.size = COMMIT_HEAD_SIZE;
    }
    return lost(position, err);
}

/* In a segment that is not sealed. */
static bool find_ref(struct log_segment *segment, uint64_t position, struct commit_ref *out)
{
    uint64_t up_to = log_segment_up_to(segment, position);
    if (up_to == 0) return false;
    *out = log_segment_ref(segment, up_to - 1);
    return position - out->first_position < out->event_count;
}

/* The commit's place in a segment of the view, whose file is pinned. */
static deed_status find_place(struct log_reader *r, struct log_segment *segment,
                              struct os_file *file, uint64_t position, struct place *out,
                              struct deed_error *err)
{
    if (segment->generation == 0) {
        struct commit_ref ref;
        if (!find_ref(segment, position, &ref)) return lost(position, err);
        *out = (struct place){segment, ref.first_position, ref.offset, ref.size};
        return DEED_OK;
    }
    const struct sealed_footer *footer = NULL;
    struct sealed_entry entry;
    deed_status status = log_segment_footer(r->log, segment, file, &footer, err);
    if (status != DEED_OK) return status;
    if (position > footer->last_position) return lost(position, err);
    struct sealed_file sealed = log_segment_sealed(r->log, segment, file);
    status = sealed_find(&sealed, footer, position, &entry, err);
    if (status == DEED_CORRUPT) return walk_to(r, segment, file, footer, position, out, err);
    if (status == DEED_OK) {
        *out = (struct place){segment, entry.position, entry.offset, entry.size};
    }
    return status;
}

static deed_status damaged(const struct place *place, struct deed_error *err)
{
    return deed_fail(err, DEED_CORRUPT,
                     "segment %u: the commit at offset %llu (position %llu) is damaged",
                     place->segment->number, (unsigned long long)place->offset,
                     (unsigned long long)place->position);
}

static deed_status load_place(struct log_reader *r, struct os_file *file,
                              const struct place *place, struct deed_error *err)
{
    const struct log_segment *segment = place->segment;
    deed_bytes bytes = window_from(r, segment->number, segment->generation, place->offset);
    deed_status status = DEED_OK;
    if (bytes.len < place->size) {
        status = window_load(r, file, place, err);
        if (status != DEED_OK) return status;
        bytes = window_from(r, segment->number, segment->generation, place->offset);
    }
    if (bytes.len > place->size) bytes.len = (size_t)place->size;
    if (!decode_next(r, bytes, segment->number, place->offset) || r->next->size != place->size ||
        r->next->first_position != place->position) {
        return damaged(place, err);
    }
    r->steps = !segment->damaged;
    take(r, place->offset);
    return DEED_OK;
}

static deed_status look_up_in(struct log_reader *r, const struct log_view *view, uint64_t position,
                              struct deed_error *err)
{
    if (out_of_view(view, position)) return lost(position, err);
    struct log_segment *segment = view->segments[log_view_find(view, position)];
    struct os_file *file = NULL;
    struct place place = {0};
    if (segment->missing) return lost(position, err);
    deed_status status = log_segment_pin(r->log, segment, &file, err);
    if (status != DEED_OK) return status;
    status = find_place(r, segment, file, position, &place, err);
    if (status == DEED_OK) status = load_place(r, file, &place, err);
    file_cache_unpin(r->log->files, file);
    return status;
}

static deed_status look_up(struct log_reader *r, uint64_t position, struct deed_error *err)
{
    deed_status status;
    bool again;
    r->good = false;
    do {
        struct log_view *view = log_view_take(r->log);
        status = look_up_in(r, view, position, err);
        again = gone(r->log, view, position, &status, err); /* (4) */
        log_view_drop(view);
    } while (again);
    if (status == DEED_CORRUPT && err != NULL) err->position = position;
    return status;
}

/* Have the commit of `position` at hand. */
static deed_status load(struct log_reader *r, uint64_t position, struct deed_error *err)
{
    if (r->good && position >= r->commit->first_position &&
        position - r->commit->first_position < r->commit->event_count) {
        return DEED_OK;
    }
    if (position > r->end) {
        uint64_t end = log_end(r->log);
        if (end > r->end) {
            r->end = end;
            log_get_head(r->log, &r->head);
        }
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
    *out_commit = *r->commit;
    if (out_bytes != NULL) {
        *out_bytes = (deed_bytes){r->commit->events.ptr - COMMIT_HEAD_SIZE, r->commit->size};
    }
    return DEED_OK;
}

uint64_t log_reader_place(const struct log_reader *r, uint32_t *out_segment)
{
    assert(r->good);
    *out_segment = r->window_segment;
    return r->offset;
}

deed_status log_reader_event(struct log_reader *r, uint64_t position, struct arena *arena,
                             struct deed_event *out_event, struct deed_error *err)
{
    deed_status status = load(r, position, err);
    if (status != DEED_OK) return status;
    if (position < r->event_next) {
        r->events = reader_over(r->commit->events);
        r->event_next = r->commit->first_position;
    }
    for (; r->event_next < position; r->event_next++) (void)event_skip(&r->events);
    if (!event_decode(&r->events, arena, out_event, NULL) || out_event->position != position) {
        r->good = false;
        if (arena->failed) return deed_fail(err, DEED_NO_MEMORY, "log: no memory for an event");
        status = deed_fail(err, DEED_CORRUPT,
                           "segment %u: the commit at offset %llu: position %llu is malformed",
                           r->window_segment, (unsigned long long)r->offset,
                           (unsigned long long)position);
        if (err != NULL) err->position = position;
        return status;
    }
    r->event_next++;
    out_event->recorded_at_ns = r->commit->recorded_at_ns;
    return DEED_OK;
}

/* ---- what is lost --------------------------------------------------------------------------- */

/* Of a sealed segment: what of its range cannot be read around `position`. */
static void lost_in_sealed(struct log *log, struct log_segment *segment, uint64_t position,
                           uint64_t *inout_first, uint64_t *inout_last)
{
    const struct sealed_footer *footer = NULL;
    struct os_file *file = NULL;
    deed_status status = log_segment_pin(log, segment, &file, NULL);
    if (status == DEED_OK) status = log_segment_footer(log, segment, file, &footer, NULL);
    file_cache_unpin(log->files, file);
    if (status == DEED_CORRUPT || status == DEED_NOT_FOUND) return; /* all of it */
    if (status == DEED_OK && position > footer->last_position) {
        *inout_first = footer->last_position + 1;
    } else {
        *inout_first = *inout_last = position;
    }
}

static bool has_refs(const struct log_segment *segment)
{
    return segment->generation == 0 && !segment->missing;
}

/* Where the readable positions before the i-th segment end: losses may go on across segments. */
static uint64_t lost_from(const struct log_view *view, size_t i)
{
    uint64_t first = view->segments[i]->first_position;
    while (i > 0) {
        const struct log_segment *before = view->segments[--i];
        uint64_t count = has_refs(before) ? chunks_count(&before->refs) : 0;
        if (before->generation > 0) return first;
        if (count > 0) {
            struct commit_ref ref = log_segment_ref(before, count - 1);
            uint64_t behind = ref.first_position + ref.event_count;
            return behind < first ? behind : first;
        }
        first = before->first_position;
    }
    return 1;
}

static uint64_t lost_to(const struct log_view *view, size_t i, uint64_t end)
{
    for (i++; i < view->count; i++) {
        const struct log_segment *behind = view->segments[i];
        if (behind->generation > 0) return behind->first_position - 1;
        if (has_refs(behind) && chunks_count(&behind->refs) > 0) {
            return log_segment_ref(behind, 0).first_position - 1;
        }
    }
    return end;
}

static void lost_in_view(struct log *log, const struct log_view *view, uint64_t position,
                         uint64_t end, uint64_t *out_first, uint64_t *out_last)
{
    if (out_of_view(view, position)) {
        *out_first = 1;
        *out_last = view->count == 0 ? end : view->segments[0]->first_position - 1;
        return;
    }
    size_t i = log_view_find(view, position);
    struct log_segment *segment = view->segments[i];
    if (segment->generation > 0) {
        *out_first = segment->first_position;
        *out_last = log_view_last(view, i, end);
        lost_in_sealed(log, segment, position, out_first, out_last);
        return;
    }
    uint64_t count = has_refs(segment) ? chunks_count(&segment->refs) : 0;
    uint64_t up_to = count == 0 ? 0 : log_segment_up_to(segment, position);
    if (up_to > 0) {
        struct commit_ref ref = log_segment_ref(segment, up_to - 1);
        if (position - ref.first_position < ref.event_count) {
            *out_first = *out_last = position;
            return;
        }
        *out_first = ref.first_position + ref.event_count;
    } else {
        *out_first = lost_from(view, i);
    }
    *out_last = up_to < count ? log_segment_ref(segment, up_to).first_position - 1
                              : lost_to(view, i, end);
}

void log_lost_around(struct log *log, uint64_t position, uint64_t *out_first, uint64_t *out_last)
{
    uint64_t end = log_end(log);
    uint64_t first = position;
    uint64_t last = position;
    struct log_view *view = log_view_take(log);
    lost_in_view(log, view, position, end, &first, &last);
    log_view_drop(view);
    *out_first = first < position ? first : position;
    *out_last = last > position ? last : position;
}

/* ---- time ----------------------------------------------------------------------------------- */

static deed_status footer_of(struct log *log, struct log_segment *segment, struct os_file **out_file,
                             const struct sealed_footer **out_footer, struct deed_error *err)
{
    struct os_file *file = NULL;
    deed_status status = log_segment_pin(log, segment, &file, err);
    if (status != DEED_OK) return status;
    status = log_segment_footer(log, segment, file, out_footer, err);
    if (status != DEED_OK) {
        file_cache_unpin(log->files, file);
        return status;
    }
    *out_file = file;
    return DEED_OK;
}

/* When the segment's last event was recorded; DEED_END: it has none. */
static deed_status last_recorded(struct log *log, struct log_segment *segment, int64_t *out_time_ns,
                                 struct deed_error *err)
{
    if (segment->generation == 0) {
        uint64_t count = chunks_count(&segment->refs);
        if (count == 0) return DEED_END;
        *out_time_ns = log_segment_ref(segment, count - 1).recorded_at_ns;
        return DEED_OK;
    }
    const struct sealed_footer *footer = NULL;
    struct os_file *file = NULL;
    deed_status status = footer_of(log, segment, &file, &footer, err);
    if (status != DEED_OK) return status;
    *out_time_ns = footer->last_recorded_at_ns;
    file_cache_unpin(log->files, file);
    return DEED_OK;
}

/* The first segment with an event recorded after the time; the count: none. Segments without events
 * are stepped over, so that the rest can be halved. */
static deed_status segment_after(struct log *log, const struct log_view *view, int64_t time_ns,
                                 size_t *out_index, struct deed_error *err)
{
    size_t low = 0;
    size_t high = view->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        size_t at = middle;
        int64_t last = 0;
        deed_status status = DEED_END;
        for (; status == DEED_END && at < high; at++) {
            status = last_recorded(log, view->segments[at], &last, err);
        }
        if (status != DEED_OK && status != DEED_END) return status;
        if (status == DEED_END || last > time_ns - PLANTED(TIME_OFF_BY_ONE)) {
            high = middle;
        } else {
            low = at;
        }
    }
    while (low < view->count) {
        int64_t last = 0;
        deed_status status = last_recorded(log, view->segments[low], &last, err);
        if (status == DEED_OK) break;
        if (status != DEED_END) return status;
        low++;
    }
    *out_index = low;
    return DEED_OK;
}

static uint64_t refs_after(const struct log_segment *segment, int64_t time_ns)
{
    uint64_t low = 0;
    uint64_t high = chunks_count(&segment->refs);
    while (low < high) {
        uint64_t middle = low + (high - low) / 2;
        struct commit_ref ref = log_segment_ref(segment, middle);
        if (ref.recorded_at_ns + PLANTED(TIME_OFF_BY_ONE) <= time_ns) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

static deed_status find_time_in(struct log *log, const struct log_view *view, int64_t time_ns,
                                uint64_t *out_position, struct deed_error *err)
{
    size_t i = 0;
    deed_status status = segment_after(log, view, time_ns, &i, err);
    *out_position = DEED_NONE;
    if (status != DEED_OK || i == view->count) return status;
    struct log_segment *segment = view->segments[i];
    if (segment->generation == 0) {
        uint64_t at = refs_after(segment, time_ns);
        if (at < chunks_count(&segment->refs)) {
            *out_position = log_segment_ref(segment, at).first_position;
        }
        return DEED_OK;
    }
    const struct sealed_footer *footer = NULL;
    struct os_file *file = NULL;
    status = footer_of(log, segment, &file, &footer, err);
    if (status != DEED_OK) return status;
    struct sealed_file sealed = log_segment_sealed(log, segment, file);
    status = sealed_find_time(&sealed, footer, time_ns, out_position, err);
    file_cache_unpin(log->files, file);
    return status;
}

deed_status log_find_time(struct log *log, int64_t time_ns, uint64_t *out_position,
                          struct deed_error *err)
{
    uint64_t end = log_end(log);
    uint64_t first = DEED_NONE;
    deed_status status;
    bool again;
    do {
        struct log_view *view = log_view_take(log);
        status = find_time_in(log, view, time_ns, &first, err);
        again = gone(log, view, 0, &status, err);
        log_view_drop(view);
    } while (again);
    if (status == DEED_OK) *out_position = first <= end ? first : end + 1;
    return status;
}

static deed_status recorded_at_in(struct log *log, const struct log_view *view, uint64_t position,
                                  int64_t *out_time_ns, struct deed_error *err)
{
    if (out_of_view(view, position)) return lost(position, err);
    struct log_segment *segment = view->segments[log_view_find(view, position)];
    if (segment->missing) return lost(position, err);
    if (segment->generation == 0) {
        struct commit_ref ref;
        if (!find_ref(segment, position, &ref)) return lost(position, err);
        *out_time_ns = ref.recorded_at_ns;
        return DEED_OK;
    }
    const struct sealed_footer *footer = NULL;
    struct os_file *file = NULL;
    struct sealed_entry entry;
    deed_status status = footer_of(log, segment, &file, &footer, err);
    if (status != DEED_OK) return status;
    struct sealed_file sealed = log_segment_sealed(log, segment, file);
    status = position > footer->last_position ? lost(position, err)
                                              : sealed_find(&sealed, footer, position, &entry, err);
    if (status == DEED_OK) *out_time_ns = entry.recorded_at_ns;
    file_cache_unpin(log->files, file);
    return status;
}

deed_status log_recorded_at(struct log *log, uint64_t position, int64_t *out_time_ns,
                            struct deed_error *err)
{
    uint64_t end = log_end(log);
    if (position == 0 || position > end) {
        return deed_fail(err, DEED_NOT_FOUND, "position %llu: the log ends at %llu",
                         (unsigned long long)position, (unsigned long long)end);
    }
    deed_status status;
    bool again;
    do {
        struct log_view *view = log_view_take(log);
        status = recorded_at_in(log, view, position, out_time_ns, err);
        again = gone(log, view, position, &status, err);
        log_view_drop(view);
    } while (again);
    return status;
}
