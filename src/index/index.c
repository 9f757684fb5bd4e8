/* index.c - the row of runs, its views, and what of an event goes into it.
 *
 *   view -> run 1 (segments 1 to 8) | run 2 (segment 9) | ... | the active segment's run
 *           positions 1 to 1000     | 1001 to 1200      |     | from there on
 *
 * (1) The runs of a view follow one another: each begins behind the last position of the one
 *     before, so a position belongs to exactly one of them.
 * (2) A view never changes. A new row is a new view; the old one goes with its last reader, and so
 *     does a run.
 * (3) Only the writer adds, only to the last run, and without a lock: it works with a view of its
 *     own, and takes a newer one when it sees that there is one. */
#include "index/index_state.h"

#include "base/planted.h"

#include <assert.h>
#include <stdatomic.h>
#include <stdlib.h>

/* ---- runs and views ------------------------------------------------------------------------- */

static struct index_run *run_create_active(uint32_t segment, uint64_t first_position,
                                           uint64_t terms)
{
    struct index_run *run = calloc(1, sizeof *run);
    struct memory_run *memory = memory_run_create(terms);
    if (run == NULL || memory == NULL) {
        free(run);
        memory_run_destroy(memory);
        return NULL;
    }
    run->first_segment = run->last_segment = segment;
    run->first_position = first_position;
    atomic_init(&run->last_position, UINT64_MAX);
    run->memory = memory;
    return run;
}

static void run_drop(struct index_run *run)
{
    if (atomic_fetch_sub_explicit(&run->references, 1, memory_order_acq_rel) > 1) return;
    memory_run_destroy(run->memory);
    free(run);
}

static struct index_view *view_create(struct index *index, size_t run_count)
{
    struct index_view *view = calloc(1, sizeof *view + run_count * sizeof view->runs[0]);
    if (view == NULL) return NULL;
    atomic_init(&view->references, 1);
    view->index = index;
    view->hashing = index->hashing;
    view->run_count = run_count;
    return view;
}

static void view_put(struct index_view *view, size_t i, struct index_run *run)
{
    atomic_fetch_add_explicit(&run->references, 1, memory_order_relaxed);
    view->runs[i] = run;
}

/* The new view takes the old one's place (2). The caller's reference is the index's. */
static void view_publish(struct index *index, struct index_view *view)
{
    os_mutex_lock(&index->lock);
    struct index_view *old = index->view;
    view->generation = atomic_load(&index->generation) + 1;
    index->view = view;
    atomic_store_explicit(&index->generation, view->generation, memory_order_release);
    os_mutex_unlock(&index->lock);
    index_view_drop(old);
}

const struct index_view *index_view_take(struct index *index)
{
    os_mutex_lock(&index->lock);
    struct index_view *view = index->view;
    atomic_fetch_add_explicit(&view->references, 1, memory_order_relaxed);
    os_mutex_unlock(&index->lock);
    return view;
}

void index_view_drop(const struct index_view *const_view)
{
    struct index_view *view = (struct index_view *)const_view; /* what is counted is our own */
    if (view == NULL) return;
    if (atomic_fetch_sub_explicit(&view->references, 1, memory_order_acq_rel) > 1) return;
    for (size_t i = 0; i < view->run_count; i++) run_drop(view->runs[i]);
    free(view);
}

uint64_t index_generation(const struct index *index)
{
    return atomic_load_explicit(&index->generation, memory_order_acquire);
}

uint64_t index_view_generation(const struct index_view *view)
{
    return view->generation;
}

size_t index_view_run_count(const struct index_view *view)
{
    return view->run_count;
}

uint64_t index_stream_count(const struct index *index)
{
    return atomic_load_explicit(&index->stream_count, memory_order_relaxed);
}

struct index *index_create(const struct index_options *options)
{
    struct index *index = calloc(1, sizeof *index);
    if (index == NULL) return NULL;
    os_mutex_init(&index->lock);
    index->hashing.seed = options->hash_seed;
    index->hashing.mask = options->hash_mask == 0 ? UINT64_MAX : options->hash_mask;
    struct index_view *view = view_create(index, 1);
    struct index_run *active = run_create_active(1, 1, 0);
    if (view == NULL || active == NULL) {
        free(view);
        if (active != NULL) memory_run_destroy(active->memory);
        free(active);
        os_mutex_done(&index->lock);
        free(index);
        return NULL;
    }
    view_put(view, 0, active);
    index->active = active;
    view_publish(index, view);
    return index;
}

void index_destroy(struct index *index)
{
    if (index == NULL) return;
    index_view_drop(index->writer_view);
    index_view_drop(index->view);
    os_mutex_done(&index->lock);
    free(index);
}

/* ---- the writer ----------------------------------------------------------------------------- */

const struct index_view *index_writer_view(struct index *index)
{
    if (index->writer_view == NULL || index->writer_view->generation != index_generation(index)) {
        index_view_drop(index->writer_view);
        index->writer_view = (struct index_view *)index_view_take(index);
    }
    return index->writer_view;
}

deed_status index_roll(struct index *index, uint32_t segment, uint64_t last_position,
                       struct deed_error *err)
{
    struct index_run *active = index->active;
    if (segment == active->last_segment) return DEED_OK;
    bool unused = last_position < active->first_position &&
                  memory_run_term_count(active->memory) == 0 &&
                  index_writer_view(index)->run_count == 1;
    if (unused) { /* the first call */
        active->first_segment = active->last_segment = segment;
        return DEED_OK;
    }
    /* Only the writer and who works for it make views: this one stays as it is meanwhile. */
    const struct index_view *old = index_view_take(index);
    struct index_view *view = view_create(index, old->run_count + 1);
    struct index_run *next = run_create_active(segment, last_position + 1,
                                               memory_run_term_count(active->memory));
    if (view == NULL || next == NULL) {
        free(view);
        if (next != NULL) memory_run_destroy(next->memory);
        free(next);
        index_view_drop(old);
        return deed_fail(err, DEED_NO_MEMORY, "index: out of memory");
    }
    for (size_t i = 0; i < old->run_count; i++) view_put(view, i, old->runs[i]);
    view_put(view, old->run_count, next);
    atomic_store_explicit(&active->last_position, last_position, memory_order_release);
    index->active = next;
    view_publish(index, view);
    index_view_drop(old);
    return DEED_OK;
}

/* ---- events --------------------------------------------------------------------------------- */

bool index_is_system(deed_str stream)
{
    return stream.len > 0 && stream.ptr[0] == '$';
}

deed_str index_category_of(deed_str stream)
{
    if (index_is_system(stream)) return (deed_str){0};
    const char *dash = stream.len == 0 ? NULL : memchr(stream.ptr, '-', stream.len);
    if (dash == NULL || dash == stream.ptr) return (deed_str){0};
    return (deed_str){stream.ptr, (size_t)(dash - stream.ptr)};
}

/* A tag that an event repeats is indexed once. */
static bool tag_repeated(const struct index_event *event, size_t i)
{
    for (size_t k = 0; k < i; k++) {
        if (deed_str_equal(event->tags[k], event->tags[i])) return true;
    }
    return false;
}

static struct index_term text_term(const struct index *index, enum index_kind kind, deed_str text)
{
    return term_make(index->hashing, kind, deed_bytes_of(text), (deed_bytes){0});
}

/* The event's i-th term. false: past the last; a kind of INDEX_KIND_COUNT: this one is left out. */
static bool event_term(const struct index *index, const struct index_event *event, size_t i,
                       struct index_term *out)
{
    deed_str category = index_category_of(event->stream);
    out->kind = INDEX_KIND_COUNT;
    switch (i) {
    case 0: *out = text_term(index, INDEX_STREAM, event->stream); break;
    case 1: *out = text_term(index, INDEX_TYPE, event->type); break;
    case 2: *out = term_make_id(index->hashing, event->stream, &event->id); break;
    case 3:
        if (category.ptr == NULL) break;
        *out = text_term(index, INDEX_CATEGORY, category);
        break;
    case 4:
        if (event->correlation_id.len == 0) break;
        *out = text_term(index, INDEX_CORRELATION, event->correlation_id);
        break;
    case 5:
        if (event->key.len == 0) break;
        *out = text_term(index, INDEX_KEY, event->key);
        break;
    case 6:
        if (!index_is_system(event->stream)) break;
        *out = text_term(index, INDEX_SYSTEM, (deed_str){0});
        break;
    default:
        if (i - 7 >= event->tag_count) return false;
        if (tag_repeated(event, i - 7) || (PLANTED(LOSE_POSTING) && event->position % 64 == 0)) {
            break;
        }
        *out = text_term(index, INDEX_TAG, event->tags[i - 7]);
        break;
    }
    return true;
}

static void remove_terms(struct index *index, const struct index_event *event, size_t count)
{
    for (size_t i = count; i > 0; i--) {
        struct index_term term;
        (void)event_term(index, event, i - 1, &term);
        if (term.kind == INDEX_KIND_COUNT) continue;
        memory_run_remove(index->active->memory, &term, event->position);
    }
    if (count > 0 && event->revision == 0) {
        atomic_fetch_sub_explicit(&index->stream_count, 1, memory_order_relaxed);
    }
}

deed_status index_add_event(struct index *index, const struct index_event *event,
                            struct deed_error *err)
{
    struct index_term term;
    assert(event->position >= index->active->first_position);
    for (size_t i = 0; event_term(index, event, i, &term); i++) {
        if (term.kind == INDEX_KIND_COUNT) continue;
        uint64_t base = term.kind == INDEX_STREAM ? event->revision : 0;
        if (!memory_run_add(index->active->memory, &term, event->position, base)) {
            remove_terms(index, event, i);
            return deed_fail(err, DEED_NO_MEMORY, "index: out of memory");
        }
        if (i == 0 && event->revision == 0) {
            atomic_fetch_add_explicit(&index->stream_count, 1, memory_order_relaxed);
        }
    }
    return DEED_OK;
}

void index_remove_event(struct index *index, const struct index_event *event)
{
    remove_terms(index, event, 7 + event->tag_count);
}

deed_status index_add_lost(struct index *index, deed_str stream, uint64_t revision,
                           uint64_t position, struct deed_error *err)
{
    struct index_term term = text_term(index, INDEX_STREAM, stream);
    if (!memory_run_add(index->active->memory, &term, position, revision)) {
        return deed_fail(err, DEED_NO_MEMORY, "index: out of memory");
    }
    if (revision == 0) {
        atomic_fetch_add_explicit(&index->stream_count, 1, memory_order_relaxed);
    }
    return DEED_OK;
}

bool index_active_count(struct index *index, deed_str stream, uint64_t *out_count)
{
    struct index_term term = text_term(index, INDEX_STREAM, stream);
    const struct memory_list *list = memory_run_find(index->active->memory, &term);
    uint64_t count = memory_list_count(list, UINT64_MAX);
    if (count == 0) return false;
    *out_count = memory_list_base(list) + count;
    return true;
}
