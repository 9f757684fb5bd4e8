/* read.c - one cursor for all reading: a stream, the log, the log filtered, then following.
 *
 * A cursor is a way to the next position, and a way to load the event there:
 *
 *   STREAM  the stream's posting list, by revision; a virtual stream's is another kind of list
 *   TERMS   the union of the lists of the rarest filter, checked against the other filters' lists:
 *           no event is read that does not match
 *   SCAN    position after position, filtered after decoding: without filters, or when most events
 *           match anyway
 *
 * (1) A cursor sees the log up to `end`, taken when it was opened; a following one takes the new
 *     end when it has reached the old: there is no seam to lose or repeat an event at.
 * (2) Events come through a log_reader, which checks each commit before it shows a byte of it.
 * (3) `position` is how far the cursor has looked, matching or not. It passes an event only when
 *     that was returned, did not match or is damaged: what could not be read is tried again.
 * (4) Posting lists are silent about what was lost before opening. A filtered read stops at each
 *     lost range in its way, since what it asks for may have been there.
 * (5) So does a stream read, once, where events were lost behind the stream's last one: they may
 *     have been its own. Not if somebody has accepted the loss, since nothing would bring an
 *     aggregate back to life then.
 * (6) A virtual stream's read stops at each lost range in its way, as a filtered one does, and goes on
 *     behind it with what the list has there. */
#include "store/store_state.h"

#include "base/planted.h"
#include "base/text.h"

#include <assert.h>
#include <stdatomic.h>
#include <stdlib.h>

#define SCAN_AHEAD (256u << 10)
#define FILTERS    5 /* types, categories, streams, correlation ids, tags */

enum cursor_mode { CURSOR_STREAM, CURSOR_TERMS, CURSOR_SCAN };

/* Lists of one filter, any of which must hold the position. A tag is a filter of its own. */
struct term_group {
    struct postings *lists;
    size_t count;
};

struct deed_cursor {
    struct store *store;
    struct deed_read_options options; /* its slices are in `names` */
    struct arena names, arena;
    const struct index_view *view; /* has all up to `end`; taken after it (1) */
    struct arena lists;            /* what was looked up in the view */
    enum cursor_mode mode;
    uint64_t end;      /* look no further, now */
    uint64_t end_max;  /* look no further, ever; DEED_NONE: follow */
    uint64_t position; /* (3); backwards: the last one looked at */
    uint64_t returned, told; /* told: to the store's metrics */
    bool finished;
    bool tail_told; /* STREAM: what was lost behind its last event was told (5) */
    bool drained; /* the last answer was DEED_END: more can come only with a new end */

    struct stream_list source;     /* STREAM */
    struct postings list;          /* STREAM */
    uint64_t ordinal, ordinal_end; /* STREAM: next revision, and behind the last one in view */
    struct deed_stream_info stream_info; /* STREAM: as of opening */
    uint64_t ordinal_min;          /* backwards: the last to be returned */

    struct term_group *groups; /* TERMS */
    size_t group_count, driver;
    uint64_t chosen_end; /* when the way was chosen */

    struct log_reader *reader;
};

/* ---- opening -------------------------------------------------------------------------------- */

static bool copy_options(struct deed_cursor *c, const struct deed_read_options *options)
{
    struct deed_filter *f = &c->options.filter;
    c->options = *options;
    if (options->stream.ptr != NULL) {
        c->options.stream = arena_str(&c->names, options->stream);
        if (c->options.stream.ptr == NULL) return false;
        c->source = stream_list_of(c->options.stream);
    }
    return arena_list(&c->names, f->types, f->type_count, &f->types) &&
           arena_list(&c->names, f->tags, f->tag_count, &f->tags) &&
           arena_list(&c->names, f->categories, f->category_count, &f->categories) &&
           arena_list(&c->names, f->streams, f->stream_count, &f->streams) &&
           arena_list(&c->names, f->correlation_ids, f->correlation_id_count, &f->correlation_ids);
}

static deed_status check_options(const struct deed_read_options *o, struct deed_error *err)
{
    if (o->backwards && o->follow) {
        return deed_fail(err, DEED_MISUSE, "a backwards read cannot follow");
    }
    if (o->stream.ptr != NULL && o->stream.len == 0) {
        return deed_fail(err, DEED_INVALID, "stream: must not be empty");
    }
    for (size_t i = 0; o->stream.ptr == NULL && i < o->filter.stream_count; i++) {
        deed_str name = o->filter.streams[i];
        if (!store_is_virtual(name)) continue;
        return deed_fail(err, DEED_INVALID,
                         "filter: stream %.*s is virtual: no event stands in it, read it as a stream",
                         DEED_FMT(str_beginning(name, 100)));
    }
    return DEED_OK;
}

static bool group_add(struct deed_cursor *c, size_t count)
{
    if (count == 0) return true;
    struct term_group *g = &c->groups[c->group_count];
    g->lists = arena_alloc_array(&c->names, count, sizeof(*g->lists));
    g->count = count;
    if (g->lists == NULL) return false;
    c->group_count++;
    return true;
}

static bool groups_create(struct deed_cursor *c)
{
    const struct deed_filter *f = &c->options.filter;
    c->groups = arena_alloc_array(&c->names, FILTERS - 1 + f->tag_count, sizeof *c->groups);
    if (c->groups == NULL) return false;
    bool ok = group_add(c, f->type_count) && group_add(c, f->category_count) &&
              group_add(c, f->stream_count) && group_add(c, f->correlation_id_count);
    for (size_t i = 0; ok && i < f->tag_count; i++) ok = group_add(c, 1);
    return ok;
}

static size_t group_open(struct deed_cursor *c, size_t at, enum index_kind kind,
                         const deed_str *terms, size_t count)
{
    if (count == 0) return at;
    for (size_t i = 0; i < count; i++) {
        postings_open(&c->groups[at].lists[i], c->view, kind, terms[i], &c->lists);
    }
    return at + 1;
}

/* Take the newest view, and look everything up in it. `end` was taken before. */
static void view_renew(struct deed_cursor *c)
{
    const struct deed_filter *f = &c->options.filter;
    index_view_drop(c->view);
    c->view = index_view_take(c->store->index);
    arena_reset(&c->lists);
    if (c->options.stream.ptr != NULL) {
        postings_open(&c->list, c->view, c->source.kind, c->source.term, &c->lists);
        return;
    }
    size_t at = group_open(c, 0, INDEX_TYPE, f->types, f->type_count);
    at = group_open(c, at, INDEX_CATEGORY, f->categories, f->category_count);
    at = group_open(c, at, INDEX_STREAM, f->streams, f->stream_count);
    at = group_open(c, at, INDEX_CORRELATION, f->correlation_ids, f->correlation_id_count);
    for (size_t i = 0; i < f->tag_count; i++) {
        at = group_open(c, at, INDEX_TAG, &f->tags[i], 1);
    }
}

/* Choose the way that reads least. */
static deed_status choose_way(struct deed_cursor *c, struct deed_error *err)
{
    uint64_t fewest = UINT64_MAX;
    c->chosen_end = c->end;
    for (size_t i = 0; i < c->group_count; i++) {
        uint64_t total = 0;
        for (size_t k = 0; k < c->groups[i].count; k++) {
            uint64_t count = 0;
            deed_status status = postings_count(&c->groups[i].lists[k], c->end, &count, err);
            if (status != DEED_OK) return status;
            total += count;
        }
        if (total < fewest) {
            fewest = total;
            c->driver = i;
        }
    }
    if (c->group_count > 0) c->mode = fewest > c->end / 2 ? CURSOR_SCAN : CURSOR_TERMS;
    return DEED_OK;
}

/* Of a virtual stream: the position of the event before the first one that is wanted (backwards: of
 * the one behind it), so that damage between the two is told (6). */
static deed_status virtual_begin(struct deed_cursor *c, struct deed_error *err)
{
    bool back = c->options.backwards;
    c->position = back ? c->end + 1 : 0;
    if (back ? c->ordinal >= c->ordinal_end : c->ordinal == 0) return DEED_OK;
    if (c->ordinal > c->ordinal_end) {
        c->position = c->end;
        return DEED_OK;
    }
    return postings_at(&c->list, back ? c->ordinal : c->ordinal - 1, &c->position, err);
}

static deed_status open_stream(struct deed_cursor *c, struct deed_error *err)
{
    const struct deed_read_options *o = &c->options;
    struct stream_state s;
    c->mode = CURSOR_STREAM;
    deed_status status =
        stream_state_get(c->store, c->view, o->stream, c->end, &c->lists, &s, err);
    if (status != DEED_OK) return status;
    if (s.tombstoned && !o->ignore_retention) {
        return deed_fail(err, DEED_DELETED, "stream %.*s is deleted for good", DEED_FMT(o->stream));
    }
    bool hidden = stream_deleted(&s) && !o->ignore_retention;
    if ((s.count == 0 || hidden) && !o->follow) {
        if (!hidden) return stream_missing(c->store, o->stream, err);
        return deed_fail(err, DEED_NOT_FOUND, "stream %.*s: it is deleted", DEED_FMT(o->stream));
    }
    uint64_t first = 0;
    if (!o->ignore_retention) status = stream_first_visible(c->store, &s, &first, err);
    if (status != DEED_OK) return status;
    c->list = s.list;
    c->stream_info = stream_info_of(&s, first);
    c->ordinal_min = first;
    c->ordinal_end = s.count;
    if (!o->backwards) {
        c->ordinal = o->from_revision > first ? o->from_revision : first;
    } else {
        c->ordinal = o->from_revision < c->ordinal_end ? o->from_revision + 1 : c->ordinal_end;
    }
    return c->source.kind == INDEX_STREAM ? DEED_OK : virtual_begin(c, err);
}

/* The positions that the filter's times leave: after `*out_low`; `end` and `end_max` come down. */
static deed_status bound_by_time(struct deed_cursor *c, uint64_t *out_low, struct deed_error *err)
{
    const struct deed_filter *f = &c->options.filter;
    struct log *log = c->store->log;
    uint64_t first = 1;
    deed_status status = DEED_OK;
    *out_low = 0; /* exclusive */
    if (f->from_time_ns != 0 && f->from_time_ns != INT64_MIN) {
        status = log_find_time(log, f->from_time_ns - 1, &first, err);
        if (status != DEED_OK) return status;
        *out_low = first - 1 < c->end ? first - 1 : c->end;
    }
    if (f->to_time_ns == 0) return DEED_OK;
    uint64_t published = c->end;
    if (f->to_time_ns == INT64_MIN) {
        first = 1;
    } else {
        status = log_find_time(log, f->to_time_ns - 1, &first, err);
    }
    if (status == DEED_OK && first <= published) {
        if (first - 1 < c->end_max) c->end_max = first - 1;
        c->end = first - 1;
    }
    return status;
}

static deed_status open_log(struct deed_cursor *c, struct deed_error *err)
{
    const struct deed_read_options *o = &c->options;
    uint64_t low = 0;
    deed_status status = bound_by_time(c, &low, err);
    if (status != DEED_OK) return status;
    c->mode = CURSOR_SCAN;
    if (o->backwards) {
        c->position = o->after_position <= c->end ? o->after_position : c->end + 1;
        c->ordinal_min = low;
    } else {
        c->position = o->after_position > low ? o->after_position : low;
    }
    if (!o->removed) status = horizon_check(c->store, c->position, o->backwards, err);
    if (status == DEED_OK) status = choose_way(c, err);
    if (status != DEED_OK) return status;
    bool few = o->count_max > 0 && o->count_max < 64;
    if (c->mode == CURSOR_SCAN && !few) log_reader_expect(c->reader, SCAN_AHEAD);
    return DEED_OK;
}

deed_status store_read(struct store *store, const struct deed_read_options *options,
                       struct deed_cursor **out_cursor, struct deed_error *err)
{
    deed_status status = check_options(options, err);
    if (status != DEED_OK) return status;
    struct deed_cursor *c = calloc(1, sizeof *c);
    if (c == NULL) return deed_fail(err, DEED_NO_MEMORY, "read: out of memory");
    c->store = store;
    arena_init(&c->names, SIZE_MAX);
    arena_init(&c->arena, SIZE_MAX);
    arena_init(&c->lists, SIZE_MAX);
    c->reader = log_reader_create(store->log);
    if (c->reader == NULL || !copy_options(c, options) ||
        (c->options.stream.ptr == NULL && !groups_create(c))) {
        cursor_close(c);
        return deed_fail(err, DEED_NO_MEMORY, "read: out of memory");
    }
    uint64_t published = log_end(store->log);
    uint64_t until = options->until_position == 0 ? DEED_NONE : options->until_position;
    c->end = published < until ? published : until;
    c->end_max = options->follow ? until : c->end;
    view_renew(c);

    if (options->stream.ptr != NULL) {
        status = open_stream(c, err);
    } else {
        status = open_log(c, err);
    }
    if (status != DEED_OK) {
        cursor_close(c);
        return status;
    }
    atomic_fetch_add_explicit(&store->metrics.reads, 1, memory_order_relaxed);
    *out_cursor = c;
    return DEED_OK;
}

/* To the metrics, when something was read from a file or nothing more comes: an atomic addition an
 * event was a twentieth of a replay. */
static void tell(struct deed_cursor *c, bool rests)
{
    struct metrics *m = &c->store->metrics;
    uint64_t bytes = log_reader_bytes(c->reader);
    if (bytes == 0 && !rests) return;
    atomic_fetch_add_explicit(&m->read_bytes, bytes, memory_order_relaxed);
    atomic_fetch_add_explicit(&m->read_events, c->returned - c->told, memory_order_relaxed);
    c->told = c->returned;
}

void cursor_close(struct deed_cursor *cursor)
{
    if (cursor == NULL) return;
    if (cursor->reader != NULL) tell(cursor, true);
    arena_done(&cursor->names);
    arena_done(&cursor->arena);
    arena_done(&cursor->lists);
    index_view_drop(cursor->view);
    log_reader_destroy(cursor->reader);
    free(cursor);
}

static deed_status event_at(struct deed_cursor *c, uint64_t position, struct deed_event *out,
                            struct deed_error *err)
{
    arena_reset(&c->arena);
    return log_reader_event(c->reader, position, &c->arena, out, err);
}

/* ---- the way to the next position ----------------------------------------------------------- */

/* The nearest position after (backwards: before) `from` in any list of the group; 0: none. */
static deed_status group_next(struct deed_cursor *c, struct term_group *g, uint64_t from,
                              uint64_t *out_position, struct deed_error *err)
{
    uint64_t best = 0;
    bool back = c->options.backwards;
    for (size_t i = 0; i < g->count; i++) {
        uint64_t at = 0;
        uint64_t before = from - 1 < c->end ? from - 1 : c->end;
        deed_status status = back ? postings_last(&g->lists[i], before, &at, err)
                                  : postings_next(&g->lists[i], from, c->end, &at, err);
        if (status != DEED_OK) return status;
        if (at != 0 && (best == 0 || (back ? at > best : at < best))) best = at;
    }
    *out_position = best;
    return DEED_OK;
}

static deed_status group_holds(struct term_group *g, uint64_t position, bool *out_there,
                               struct deed_error *err)
{
    *out_there = false;
    for (size_t i = 0; i < g->count && !*out_there; i++) {
        deed_status status = postings_contains(&g->lists[i], position, out_there, err);
        if (status != DEED_OK) return status;
    }
    return DEED_OK;
}

/* The first lost position after (backwards: the last before) `from` that lies before `next`, or in
 * view at all if that is 0 (4); else `next`. */
static uint64_t lost_before(const struct deed_cursor *c, uint64_t from, uint64_t next)
{
    uint64_t found = next;
    if (PLANTED(FILTER_HIDES_LOSS)) return next;
    for (uint64_t i = 0; i < chunks_count(&c->store->lost); i++) {
        const struct lost_range *range = chunks_at(&c->store->lost, i);
        if (c->options.backwards) {
            uint64_t last = range->last < from ? range->last : from - 1;
            if (range->first < from && last > found) found = last;
        } else {
            uint64_t first = range->first > from ? range->first : from + 1;
            if (range->last > from && (found == 0 || first < found)) found = first;
        }
    }
    return found;
}

/* Do the filters other than the driver have the position? */
static deed_status others_hold(struct deed_cursor *c, uint64_t position, bool *out_there,
                               struct deed_error *err)
{
    *out_there = true;
    for (size_t i = 0; *out_there && c->mode == CURSOR_TERMS && i < c->group_count; i++) {
        if (i == c->driver) continue;
        deed_status status = group_holds(&c->groups[i], position, out_there, err);
        if (status != DEED_OK) return status;
    }
    return DEED_OK;
}

/* The next position worth loading; 0: none in view. */
static deed_status next_candidate(struct deed_cursor *c, uint64_t *out_position,
                                  struct deed_error *err)
{
    uint64_t from = c->position;
    bool back = c->options.backwards;
    *out_position = 0;
    for (;;) {
        uint64_t next = back ? from - 1 : from + 1;
        if (back && from <= c->ordinal_min + 1 + PLANTED(BACKWARDS_LOSES_FIRST)) return DEED_OK;
        if (c->mode != CURSOR_SCAN) {
            deed_status status = group_next(c, &c->groups[c->driver], from, &next, err);
            if (status != DEED_OK) return status;
            uint64_t lost = lost_before(c, from, next);
            if (lost != next && lost <= c->end && lost > c->ordinal_min) {
                *out_position = lost;
                return DEED_OK;
            }
        }
        if (next == 0 || next > c->end || (back && next <= c->ordinal_min)) return DEED_OK;
        bool matches = true;
        deed_status status = others_hold(c, next, &matches, err);
        if (status == DEED_OK && matches) *out_position = next;
        if (status != DEED_OK || matches) return status;
        from = next;
    }
}

static bool any_equal(const deed_str *list, size_t count, deed_str value)
{
    for (size_t i = 0; i < count; i++) {
        if (deed_str_equal(list[i], value)) return true;
    }
    return count == 0;
}

static bool event_matches(const struct deed_filter *f, const struct deed_event *e)
{
    bool asked_for = f->stream_count > 0 && any_equal(f->streams, f->stream_count, e->stream);
    if (!f->system && index_is_system(e->stream) && !asked_for) return false;
    if (f->stream_count > 0 && !asked_for) return false;
    if (!any_equal(f->types, f->type_count, e->type)) return false;
    if (!any_equal(f->correlation_ids, f->correlation_id_count, e->correlation_id)) return false;
    if (!any_equal(f->categories, f->category_count, index_category_of(e->stream))) return false;
    for (size_t i = 0; i < f->tag_count; i++) {
        if (e->tag_count == 0 || !any_equal(e->tags, e->tag_count, f->tags[i])) return false;
    }
    return true;
}

/* One error for a whole lost range: go on at the next commit that is there. */
static uint64_t behind_damage(const struct deed_cursor *c, uint64_t position)
{
    uint64_t first = position;
    uint64_t last = position;
    log_lost_around(c->store->log, position, &first, &last);
    if (c->options.backwards) return first;
    return last < c->end ? last : c->end;
}

static deed_status log_next(struct deed_cursor *c, struct deed_event *out, struct deed_error *err)
{
    const struct deed_filter *f = &c->options.filter;
    for (;;) {
        uint64_t next = 0;
        deed_status status = next_candidate(c, &next, err);
        if (status != DEED_OK) return status;
        if (next == 0) {
            c->position = c->options.backwards ? c->ordinal_min + 1
                          : c->end > c->position ? c->end
                                                 : c->position;
            return DEED_END;
        }
        status = event_at(c, next, out, err);
        if (status == DEED_OK) c->position = next;
        if (status == DEED_CORRUPT) c->position = behind_damage(c, next);
        if (status != DEED_OK) return status;
        if (f->to_time_ns != 0 && !c->options.backwards && out->recorded_at_ns >= f->to_time_ns) {
            c->position = next - 1;
            c->finished = true;
            return DEED_END;
        }
        if (event_matches(f, out)) return DEED_OK;
    }
}

/* (5) */
static deed_status tail_check(struct deed_cursor *c, struct deed_error *err)
{
    uint64_t last = 0;
    if (c->tail_told) return DEED_OK;
    c->tail_told = true;
    if (chunks_count(&c->store->lost) == 0) return DEED_OK;
    deed_status status = postings_last(&c->list, c->end, &last, err);
    if (status == DEED_OK) status = stream_lost(c->store, c->options.stream, last, c->end, err);
    if (status != DEED_OK && status != DEED_CORRUPT) c->tail_told = false; /* (3) */
    return status;
}

static deed_status stream_next(struct deed_cursor *c, struct deed_event *out,
                               struct deed_error *err)
{
    uint64_t revision;
    if (c->options.backwards) {
        deed_status status = c->ordinal == c->ordinal_end ? tail_check(c, err) : DEED_OK;
        if (status != DEED_OK) return status;
        if (c->ordinal <= c->ordinal_min) return DEED_END;
        revision = c->ordinal - 1;
    } else {
        if (c->ordinal >= c->ordinal_end) {
            deed_status status = tail_check(c, err);
            if (status != DEED_OK) return status;
            if (c->end > c->position) c->position = c->end;
            return DEED_END;
        }
        revision = c->ordinal;
    }
    uint64_t position = 0;
    deed_status status = postings_at(&c->list, revision, &position, err);
    if (status == DEED_OK) status = event_at(c, position, out, err);
    if (status != DEED_OK && status != DEED_CORRUPT) return status; /* (3) */
    c->position = position;
    c->ordinal = c->options.backwards ? revision : revision + 1;
    if (status == DEED_OK && out->revision != revision) {
        status = deed_fail(err, DEED_CORRUPT, "stream %.*s: revision %llu is damaged",
                           DEED_FMT(c->options.stream), (unsigned long long)revision);
        if (err != NULL) err->position = position;
    }
    return status;
}

/* (6): the event at `position` cannot be read; go on behind the whole range. */
static deed_status virtual_pass(struct deed_cursor *c, uint64_t position, struct deed_error *err)
{
    struct deed_error why = {0};
    uint64_t behind = behind_damage(c, position);
    uint64_t count = 0;
    bool back = c->options.backwards;
    deed_status status = postings_count(&c->list, back ? behind - 1 : behind, &count, &why);
    if (status != DEED_OK) { /* (3) */
        if (err != NULL) *err = why;
        return status;
    }
    c->position = behind;
    if (back ? count < c->ordinal : count > c->ordinal) c->ordinal = count;
    return DEED_CORRUPT;
}

static deed_status virtual_next(struct deed_cursor *c, struct deed_event *out,
                                struct deed_error *err)
{
    bool back = c->options.backwards;
    for (;;) {
        bool more = back ? c->ordinal > 0 : c->ordinal < c->ordinal_end;
        uint64_t ordinal = back ? c->ordinal - 1 : c->ordinal;
        uint64_t position = 0;
        deed_status status = more ? postings_at(&c->list, ordinal, &position, err) : DEED_OK;
        if (status != DEED_OK) return status;
        uint64_t next = lost_before(c, c->position, position);
        bool lost = next != position && next <= c->end;
        if (!more && !lost) {
            if (!back && c->end > c->position) c->position = c->end;
            return DEED_END;
        }
        status = event_at(c, lost ? next : position, out, err);
        if (status == DEED_CORRUPT) return virtual_pass(c, lost ? next : position, err);
        if (status != DEED_OK) return status; /* (3) */
        c->position = lost ? next : position;
        if (lost) continue;
        c->ordinal = back ? ordinal : ordinal + 1;
        out->link_stream = c->options.stream;
        out->link_revision = ordinal;
        return DEED_OK;
    }
}

/* (1): take the new end, and the newest view after it. DEED_END: the end is the old one. */
static deed_status look_again(struct deed_cursor *c, struct deed_error *err)
{
    uint64_t published = log_end(c->store->log);
    uint64_t end = published < c->end_max ? published : c->end_max;
    if (end <= c->end) return DEED_END;
    uint64_t before = c->end;
    bool renewed = index_view_generation(c->view) != index_generation(c->store->index);
    deed_status status = DEED_OK;
    c->end = end;
    if (renewed) view_renew(c);
    if (c->mode == CURSOR_STREAM) {
        status = postings_count(&c->list, end, &c->ordinal_end, err);
    } else if (renewed || end / 2 >= c->chosen_end) {
        status = choose_way(c, err);
    }
    if (status != DEED_OK) c->end = before; /* the next call looks again */
    if (status == DEED_OK && PLANTED(FOLLOW_SKIPS_ONE)) c->position++;
    return status;
}

static bool passed_over(const struct deed_cursor *c, const struct deed_event *event)
{
    return event->removed && !c->options.removed && !PLANTED(SERVE_STUBS);
}

deed_status cursor_next(struct deed_cursor *c, struct deed_event *out_event,
                        struct deed_error *err)
{
    if (c->finished || (c->options.count_max > 0 && c->returned >= c->options.count_max)) {
        return DEED_END;
    }
    deed_status status;
    deed_status again = DEED_OK;
    /* Revisions and positions are the same in any view. A slow reader does not keep what was replaced,
     * and what was damaged may have been made again. */
    if (index_view_generation(c->view) != index_generation(c->store->index)) view_renew(c);
    do {
        status = c->mode != CURSOR_STREAM           ? log_next(c, out_event, err)
                 : c->source.kind == INDEX_STREAM ? stream_next(c, out_event, err)
                                                  : virtual_next(c, out_event, err);
        if (status == DEED_OK && passed_over(c, out_event)) continue;
        if (status != DEED_END || c->finished || !c->options.follow) break;
        again = look_again(c, err);
    } while (again == DEED_OK);
    if (again != DEED_OK && again != DEED_END) status = again;
    c->drained = status == DEED_END;
    if (c->drained && c->options.follow) log_reader_rest(c->reader);
    if (status == DEED_OK) c->returned++;
    tell(c, status != DEED_OK);
    return status;
}

uint64_t cursor_position(const struct deed_cursor *cursor)
{
    return cursor->position;
}

bool cursor_stream(const struct deed_cursor *cursor, struct deed_stream_info *out_info)
{
    bool known = cursor->mode == CURSOR_STREAM && cursor->stream_info.revision != DEED_NONE;
    if (known) *out_info = cursor->stream_info;
    return known;
}

deed_status cursor_wait(struct deed_cursor *cursor, uint32_t timeout_ms, struct deed_error *err)
{
    if (!cursor->options.follow) return deed_fail(err, DEED_MISUSE, "this cursor does not follow");
    bool all = cursor->options.count_max > 0 && cursor->returned >= cursor->options.count_max;
    if (all || cursor->finished) {
        return deed_fail(err, DEED_TIMEOUT, "the cursor has returned all that it was to return");
    }
    if (!cursor->drained) return DEED_OK;
    if (cursor->end >= cursor->end_max) {
        return deed_fail(err, DEED_TIMEOUT, "the cursor is at the position it was to stop at");
    }
    return store_wait(cursor->store, cursor->end + 1, timeout_ms, err);
}

/* ---- raw commits ---------------------------------------------------------------------------- */

/* Commits from the one that holds `after` + 1 on. */
static deed_status copy_commits(struct log_reader *reader, uint64_t after, uint64_t end,
                                size_t size_wanted, struct buf *out, uint64_t *out_position,
                                struct deed_error *err)
{
    size_t start = out->len;
    uint64_t position = after;
    while (position < end && (out->len == start || out->len - start < size_wanted)) {
        struct commit commit;
        deed_bytes bytes;
        deed_status status = log_reader_load(reader, position + 1, &commit, &bytes, err);
        /* What is good goes out; the next call tells. */
        if (status != DEED_OK && out->len > start) break;
        if (status != DEED_OK) return status;
        if (out->len > start && bytes.len > out->size_max - out->len) break;
        uint8_t *room = buf_reserve(out, bytes.len);
        if (room == NULL) return deed_fail(err, DEED_NO_MEMORY, "read: the buffer is at its limit");
        memcpy(room, bytes.ptr, bytes.len);
        commit_blank(room);
        out->len += bytes.len;
        position = commit.first_position + commit.event_count - 1;
    }
    *out_position = position;
    return DEED_OK;
}

deed_status store_read_commits(struct store *store, uint64_t after, size_t size_wanted,
                               struct buf *out, uint64_t *out_position, struct deed_error *err)
{
    uint64_t end = log_end(store->log);
    if (after >= end) return DEED_END;
    struct log_reader *reader = log_reader_create(store->log);
    if (reader == NULL) return deed_fail(err, DEED_NO_MEMORY, "read: out of memory");
    log_reader_expect(reader, size_wanted);
    deed_status status = copy_commits(reader, after, end, size_wanted, out, out_position, err);
    log_reader_destroy(reader);
    return status;
}
