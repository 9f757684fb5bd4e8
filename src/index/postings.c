/* postings.c - one term's positions over the runs of a view.
 *
 * (1) What a run has of the term is looked up at most once and kept. That it has nothing is kept
 *     too, unless the run is in memory: there the term may come later.
 * (2) Of a stream each run knows the revision of its first event there, so counting and finding a
 *     revision need the newest run that reaches there alone. For other terms counts are summed.
 * (3) A position belongs to one run by its range; lost revisions alone may stand in a later run
 *     than their position says, and nobody asks for those by position. */
#include "index/postings.h"

#include "index/index_state.h"

#include <assert.h>
#include <stdatomic.h>

struct postings_part {
    const struct memory_list *list;
    uint64_t hint; /* an index near which was looked last */
};

static void open_term(struct postings *p, const struct index_view *view, struct index_term term,
                      struct arena *arena)
{
    *p = (struct postings){.view = view, .arena = arena, .term = term};
    p->parts = arena_alloc_array(arena, view->run_count, sizeof(struct postings_part *));
}

void postings_open(struct postings *p, const struct index_view *view, enum index_kind kind,
                   deed_str term, struct arena *arena)
{
    open_term(p, view, term_make(view->hashing, kind, deed_bytes_of(term), (deed_bytes){0}), arena);
}

void postings_open_id(struct postings *p, const struct index_view *view, deed_str stream,
                      const deed_uuid *id, struct arena *arena)
{
    open_term(p, view, term_make_id(view->hashing, stream, id), arena);
}

/* ---- one run -------------------------------------------------------------------------------- */

static deed_status no_memory(struct deed_error *err)
{
    return deed_fail(err, DEED_NO_MEMORY, "index: out of memory");
}

/* The term in run `i`; NULL: it has none of it (1). */
static deed_status part_get(struct postings *p, size_t i, struct postings_part **out,
                            struct deed_error *err)
{
    if (p->parts == NULL) return no_memory(err);
    *out = p->parts[i];
    if (*out != NULL) return DEED_OK;
    const struct memory_list *list = memory_run_find(p->view->runs[i]->memory, &p->term);
    if (list == NULL) return DEED_OK;
    struct postings_part *part = arena_alloc(p->arena, sizeof *part);
    if (part == NULL) return no_memory(err);
    part->list = list;
    *out = p->parts[i] = part;
    return DEED_OK;
}

/* How many of the part's positions are at or below `end`. */
static deed_status part_count(struct postings_part *part, uint64_t end, uint64_t *out,
                              struct deed_error *err)
{
    (void)err;
    *out = part == NULL ? 0 : memory_list_count(part->list, end);
    return DEED_OK;
}

static uint64_t part_base(const struct postings_part *part)
{
    return memory_list_base(part->list);
}

static deed_status part_at(struct postings_part *part, uint64_t i, uint64_t *out,
                           struct deed_error *err)
{
    (void)err;
    *out = memory_list_at(part->list, i);
    return DEED_OK;
}

/* The first position after `after` and at or below `end`; 0: none. */
static deed_status part_next(struct postings_part *part, uint64_t after, uint64_t end,
                             uint64_t *out, struct deed_error *err)
{
    (void)err;
    *out = 0;
    if (part == NULL) return DEED_OK;
    uint64_t i = memory_list_after(part->list, after, end, part->hint);
    if (i == memory_list_count(part->list, end)) return DEED_OK;
    part->hint = i;
    *out = memory_list_at(part->list, i);
    return DEED_OK;
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
        if (status == DEED_OK) status = part_count(part, end, &count, err);
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

deed_status postings_at(struct postings *p, uint64_t revision, uint64_t *out_position,
                        struct deed_error *err)
{
    assert(p->view != NULL && p->term.kind == INDEX_STREAM);
    for (size_t i = p->view->run_count; i > 0; i--) {
        struct postings_part *part;
        uint64_t count = 0;
        deed_status status = part_get(p, i - 1, &part, err);
        if (status == DEED_OK) status = part_count(part, UINT64_MAX, &count, err);
        if (status != DEED_OK) return status;
        if (count == 0 || part_base(part) > revision) continue;
        assert(revision - part_base(part) < count);
        return part_at(part, revision - part_base(part), out_position, err);
    }
    assert(!"a revision below the stream's count is in one of its runs");
    return DEED_CORRUPT;
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
        if (status == DEED_OK) status = part_count(part, end, &count, err);
        if (status == DEED_OK && count > 0) status = part_at(part, count - 1, out_position, err);
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
    for (size_t i = 0; p->view != NULL && i < p->view->run_count; i++) {
        struct postings_part *part;
        if (run_last_position(p->view->runs[i]) <= after) continue;
        if (p->view->runs[i]->first_position > end) break;
        deed_status status = part_get(p, i, &part, err);
        if (status == DEED_OK) status = part_next(part, after, end, out_position, err);
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
