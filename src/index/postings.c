/* postings.c - one term's positions over the runs of a view.
 *
 * (1) What a run has of the term is looked up at most once and kept. That it has nothing is kept
 *     too, unless the run is in memory: there the term may come later.
 * (2) Of a stream each run knows the revision of its first event there, so counting and finding a
 *     revision need the newest run that reaches there alone. For other terms counts are summed.
 * (3) A position belongs to one run by its range; lost revisions alone may stand in a later run
 *     than their position says, and nobody asks for those by position.
 * (4) Only the last run of a view may still grow: what those before it have is counted once.
 * (5) A file of before first events were indexed cannot say that it has none of them. */
#include "index/postings.h"

#include "base/planted.h"
#include "index/index_state.h"

#include <assert.h>

struct postings_part {
    const struct memory_list *list; /* in memory; NULL: in a file */
    uint64_t hint;                  /* an index near which was looked last */
    struct run_entry entry;
};

/* What a file has not (1). */
static struct postings_part absent;

struct index_term index_term_of(const struct index_view *view, enum index_kind kind, deed_str term)
{
    return term_make(view->hashing, kind, deed_bytes_of(term), (deed_bytes){0});
}

struct index_term index_term_of_id(const struct index_view *view, deed_str stream,
                                   const deed_uuid *id)
{
    return term_make_id(view->hashing, stream, id);
}

void index_prefetch(const struct index_view *view, const struct index_term *term)
{
    for (size_t i = 0; i < view->run_count; i++) {
        const struct index_run *run = view->runs[i];
        if (run->file != NULL) {
            run_file_prefetch(run->file, term->hash);
        } else {
            memory_run_prefetch(run->memory, term->hash);
        }
    }
}

void postings_open_term(struct postings *p, const struct index_view *view,
                        const struct index_term *term, struct arena *arena)
{
    *p = (struct postings){.view = view, .arena = arena, .term = *term};
    p->parts = arena_alloc_array(arena, view->run_count, sizeof(struct postings_part *));
    index_prefetch(view, term); /* the lines come from memory at the same time */
}

void postings_open(struct postings *p, const struct index_view *view, enum index_kind kind,
                   deed_str text, struct arena *arena)
{
    struct index_term term = index_term_of(view, kind, text);
    postings_open_term(p, view, &term, arena);
}

void postings_open_id(struct postings *p, const struct index_view *view, deed_str stream,
                      const deed_uuid *id, struct arena *arena)
{
    struct index_term term = index_term_of_id(view, stream, id);
    postings_open_term(p, view, &term, arena);
}

deed_status postings_single(const struct index_view *view, const struct index_term *term,
                            uint64_t end, uint64_t *out_position, struct deed_error *err)
{
    *out_position = 0;
    for (size_t i = view->run_count; i > 0; i--) {
        const struct index_run *run = view->runs[i - 1];
        uint64_t position = 0;
        if (run->file == NULL) {
            const struct memory_list *list = memory_run_find(run->memory, term);
            if (memory_list_count(list, end) > 0) position = memory_list_at(list, 0);
        } else {
            struct run_entry entry;
            bool found = false;
            deed_status status = run_file_find(run->file, term, &found, &entry, err);
            if (status != DEED_OK) return status;
            if (found && entry.first <= end) position = entry.first;
        }
        if (position == 0) continue;
        *out_position = position;
        return DEED_OK;
    }
    return DEED_OK;
}

/* ---- one run -------------------------------------------------------------------------------- */

static deed_status no_memory(struct deed_error *err)
{
    return deed_fail(err, DEED_NO_MEMORY, "index: out of memory");
}

/* (5) */
static deed_status part_known(const struct postings *p, const struct run_file *file,
                              struct deed_error *err)
{
    const struct run_footer *f = run_file_footer(file);
    if (p->term.kind != INDEX_SYSTEM || p->term.head.len == 0) return DEED_OK;
    if ((f->terms_known & RUN_KNOWS_FIRST) != 0) return DEED_OK;
    return deed_fail(err, DEED_BUSY,
                     "the index of segments %u to %u is being rebuilt: it does not know streams' first "
                     "events yet",
                     f->first_segment, f->last_segment);
}

/* The term in run `i`; NULL: it has none of it (1). */
static deed_status part_get(struct postings *p, size_t i, struct postings_part **out,
                            struct deed_error *err)
{
    struct index_run *run = p->view->runs[i];
    struct run_entry entry;
    const struct memory_list *list = NULL;
    bool found = false;
    *out = NULL;
    if (p->parts == NULL) return no_memory(err);
    if (p->parts[i] != NULL) {
        if (p->parts[i] != &absent) *out = p->parts[i];
        return DEED_OK;
    }
    if (run->file != NULL) {
        deed_status status = part_known(p, run->file, err);
        if (status == DEED_OK) status = run_file_find(run->file, &p->term, &found, &entry, err);
        if (status != DEED_OK) return status;
        if (!found) p->parts[i] = &absent;
    } else {
        list = memory_run_find(run->memory, &p->term);
    }
    if (!found && list == NULL) return DEED_OK;
    struct postings_part *part = arena_alloc(p->arena, sizeof *part);
    if (part == NULL) return no_memory(err);
    part->list = list;
    if (found) part->entry = entry;
    *out = p->parts[i] = part;
    return DEED_OK;
}

/* Room to decode a group of positions, when they do not all stand in the entry. */
static deed_status part_room(struct postings *p, struct postings_part *part, struct deed_error *err)
{
    if (!run_entry_needs_group(&part->entry)) return DEED_OK;
    part->entry.group = arena_alloc_array(p->arena, RUN_GROUP, sizeof *part->entry.group);
    return part->entry.group == NULL ? no_memory(err) : DEED_OK;
}

/* How many of run i's positions are at or below `end`. */
static deed_status part_count(struct postings *p, size_t i, struct postings_part *part, uint64_t end,
                              uint64_t *out, struct deed_error *err)
{
    *out = 0;
    if (part == NULL) return DEED_OK;
    if (part->list != NULL) {
        *out = memory_list_count(part->list, end);
        return DEED_OK;
    }
    if (end >= part->entry.last) {
        *out = part->entry.count;
        return DEED_OK;
    }
    deed_status status = part_room(p, part, err);
    if (status != DEED_OK) return status;
    return run_entry_count(p->view->runs[i]->file, &part->entry, end, out, err);
}

static uint64_t part_base(const struct postings_part *part)
{
    return part->list != NULL ? memory_list_base(part->list) : part->entry.base;
}

static deed_status part_at(struct postings *p, size_t i, struct postings_part *part, uint64_t ordinal,
                           uint64_t *out, struct deed_error *err)
{
    if (part->list != NULL) {
        *out = memory_list_at(part->list, ordinal);
        return DEED_OK;
    }
    deed_status status = part_room(p, part, err);
    if (status != DEED_OK) return status;
    return run_entry_at(p->view->runs[i]->file, &part->entry, ordinal, out, err);
}

/* The first position of run i after `after` and at or below `end`; 0: none. */
static deed_status part_next(struct postings *p, size_t i, struct postings_part *part,
                             uint64_t after, uint64_t end, uint64_t *out, struct deed_error *err)
{
    uint64_t ordinal = 0;
    *out = 0;
    if (part == NULL) return DEED_OK;
    if (part->list != NULL) {
        ordinal = memory_list_after(part->list, after, end, part->hint);
        if (ordinal == memory_list_count(part->list, end)) return DEED_OK;
        part->hint = ordinal;
        *out = memory_list_at(part->list, ordinal);
        return DEED_OK;
    }
    deed_status status = part_count(p, i, part, after, &ordinal, err);
    if (status != DEED_OK || ordinal == part->entry.count) return status;
    uint64_t position = 0;
    status = part_at(p, i, part, ordinal, &position, err);
    if (status == DEED_OK && position <= end) *out = position;
    return status;
}

/* ---- all runs ------------------------------------------------------------------------------- */

deed_status postings_count(struct postings *p, uint64_t end, uint64_t *out_count,
                           struct deed_error *err)
{
    uint64_t sum = 0;
    for (size_t i = p->view == NULL ? 0 : p->view->run_count; i > 0; i--) {
        struct postings_part *part;
        uint64_t count = 0;
        if (p->view->runs[i - 1]->first_position > end) continue;
        deed_status status = part_get(p, i - 1, &part, err);
        if (status == DEED_OK) status = part_count(p, i - 1, part, end, &count, err);
        if (status != DEED_OK) return status;
        sum += count;
        if (count > 0 && p->term.kind == INDEX_STREAM) { /* (2) */
            sum += part_base(part);
            break;
        }
    }
    *out_count = sum;
    return DEED_OK;
}

static deed_status stream_at(struct postings *p, uint64_t revision, uint64_t *out_position,
                             struct deed_error *err)
{
    for (size_t i = p->view->run_count; i > 0; i--) {
        struct postings_part *part;
        uint64_t count = 0;
        deed_status status = part_get(p, i - 1, &part, err);
        if (status == DEED_OK) status = part_count(p, i - 1, part, UINT64_MAX, &count, err);
        if (status != DEED_OK) return status;
        if (count == 0 || part_base(part) > revision) continue;
        if (revision - part_base(part) >= count) break;
        return part_at(p, i - 1, part, revision - part_base(part), out_position, err);
    }
    /* A revision below the stream's count that no run has was lost where one ends. */
    return deed_fail(err, DEED_CORRUPT, "stream %.*s: revision %llu is lost",
                     (int)p->term.head.len, (const char *)p->term.head.ptr,
                     (unsigned long long)revision);
}

/* Where no run knows the ordinal of its first position the runs before it are counted: once, since
 * only the last one of a view grows (4). */
static deed_status other_at(struct postings *p, uint64_t ordinal, uint64_t *out_position,
                            struct deed_error *err)
{
    if (ordinal < p->at_before) p->at_run = p->at_before = 0;
    for (; p->at_run < p->view->run_count; p->at_run++) {
        struct postings_part *part;
        uint64_t count = 0;
        deed_status status = part_get(p, p->at_run, &part, err);
        if (status == DEED_OK) status = part_count(p, p->at_run, part, UINT64_MAX, &count, err);
        if (status != DEED_OK) return status;
        if (ordinal - p->at_before < count) {
            return part_at(p, p->at_run, part, ordinal - p->at_before, out_position, err);
        }
        if (p->at_run + 1 == p->view->run_count) break;
        p->at_before += count - (count > 0 && PLANTED(ORDINALS_OVERLAP));
    }
    return deed_fail(err, DEED_CORRUPT, "index: number %llu of %.*s is lost",
                     (unsigned long long)ordinal, (int)p->term.head.len,
                     (const char *)p->term.head.ptr);
}

deed_status postings_at(struct postings *p, uint64_t ordinal, uint64_t *out_position,
                        struct deed_error *err)
{
    assert(p->view != NULL);
    return p->term.kind == INDEX_STREAM ? stream_at(p, ordinal, out_position, err)
                                        : other_at(p, ordinal, out_position, err);
}

deed_status postings_last(struct postings *p, uint64_t end, uint64_t *out_position,
                          struct deed_error *err)
{
    *out_position = 0;
    for (size_t i = p->view == NULL ? 0 : p->view->run_count; i > 0; i--) {
        struct postings_part *part;
        uint64_t count = 0;
        if (p->view->runs[i - 1]->first_position > end) continue;
        deed_status status = part_get(p, i - 1, &part, err);
        if (status == DEED_OK) status = part_count(p, i - 1, part, end, &count, err);
        if (status == DEED_OK && count > 0) status = part_at(p, i - 1, part, count - 1, out_position, err);
        if (status != DEED_OK || count > 0) return status;
    }
    return DEED_OK;
}

deed_status postings_next(struct postings *p, uint64_t after, uint64_t end, uint64_t *out_position,
                          struct deed_error *err)
{
    *out_position = 0;
    if (p->next != 0 && after >= p->next_from && after < p->next) {
        if (p->next <= end) *out_position = p->next;
        return DEED_OK;
    }
    for (size_t i = 0; p->view != NULL && i + PLANTED(NEXT_MISSES_NEWEST) < p->view->run_count; i++) {
        struct postings_part *part;
        if (run_last_position(p->view->runs[i]) <= after) continue;
        if (p->view->runs[i]->first_position > end) break;
        deed_status status = part_get(p, i, &part, err);
        if (status == DEED_OK) status = part_next(p, i, part, after, end, out_position, err);
        if (status != DEED_OK) return status;
        if (*out_position == 0) continue;
        p->next_from = after;
        p->next = *out_position;
        return DEED_OK;
    }
    return DEED_OK;
}

deed_status postings_contains(struct postings *p, uint64_t position, bool *out_there,
                              struct deed_error *err)
{
    uint64_t found = 0;
    *out_there = false;
    if (position == 0) return DEED_OK;
    deed_status status = postings_next(p, position - 1, position, &found, err);
    if (status == DEED_OK) *out_there = found == position;
    return status;
}
