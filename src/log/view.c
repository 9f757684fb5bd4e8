/* view.c - segments and the lists of them, counted by their holders.
 *
 * (1) The current view is read and replaced under `view_lock`, which nobody holds across I/O. The
 *     committer takes it when a segment is begun, never for an append.
 * (2) A footer that could not be read is not remembered: the next one who asks looks again. */
#include "log/view.h"

#include "log/log_state.h"

#include <assert.h>
#include <stdlib.h>

struct log_segment *log_segment_make(uint32_t number, uint32_t generation, uint64_t first_position)
{
    struct log_segment *segment = calloc(1, sizeof *segment);
    if (segment == NULL) return NULL;
    segment->number = number;
    segment->generation = generation;
    segment->first_position = first_position;
    atomic_store(&segment->holders, 1);
    chunks_init(&segment->refs, sizeof(struct commit_ref));
    os_mutex_init(&segment->lock);
    log_file_name(&(struct sealed_name){number, generation, first_position}, segment->name);
    return segment;
}

struct log_segment *log_segment_hold(struct log_segment *segment)
{
    unsigned before = atomic_fetch_add(&segment->holders, 1);
    assert(before > 0);
    (void)before;
    return segment;
}

void log_segment_drop(struct log_segment *segment)
{
    if (segment == NULL || atomic_fetch_sub(&segment->holders, 1) > 1) return;
    chunks_done(&segment->refs);
    os_mutex_done(&segment->lock);
    free(segment);
}

void log_file_name(const struct sealed_name *name, char out[SEALED_NAME_SIZE])
{
    if (name->generation == 0) {
        segment_name(name->number, out);
    } else {
        sealed_name_format(name, out);
    }
}

deed_status log_segment_pin(struct log *log, const struct log_segment *segment,
                            struct os_file **out_file, struct deed_error *err)
{
    if (segment->missing) {
        return deed_fail(err, DEED_NOT_FOUND, "segment %u: the file is missing", segment->number);
    }
    return file_cache_pin(log->files, log->dir, segment->name, out_file, err);
}

void log_segment_set_footer(struct log *log, struct log_segment *segment,
                            const struct sealed_footer *footer)
{
    struct block_cache *cache = log->options.cache;
    uint64_t source = cache == NULL ? 0 : block_cache_source(cache);
    os_mutex_lock(&segment->lock);
    if (!segment->footer_known) {
        segment->footer = *footer;
        segment->cache_source = source;
        segment->footer_known = true;
    }
    os_mutex_unlock(&segment->lock);
}

struct sealed_file log_segment_sealed(struct log *log, const struct log_segment *segment,
                                      struct os_file *file)
{
    return (struct sealed_file){file, log->options.cache, segment->cache_source};
}

deed_status log_segment_footer(struct log *log, struct log_segment *segment, struct os_file *file,
                               const struct sealed_footer **out_footer, struct deed_error *err)
{
    assert(segment->generation > 0);
    os_mutex_lock(&segment->lock);
    bool known = segment->footer_known;
    os_mutex_unlock(&segment->lock);
    if (!known) {
        struct sealed_name name = {segment->number, segment->generation, segment->first_position};
        struct sealed_footer footer;
        deed_status status = sealed_footer_load(file, &name, log->id, &footer, err);
        if (status != DEED_OK) return status; /* (2) */
        log_segment_set_footer(log, segment, &footer);
    }
    *out_footer = &segment->footer;
    return DEED_OK;
}

struct commit_ref log_segment_ref(const struct log_segment *segment, uint64_t i)
{
    struct commit_ref ref;
    memcpy(&ref, chunks_at(&segment->refs, i), sizeof ref);
    return ref;
}

uint64_t log_segment_up_to(const struct log_segment *segment, uint64_t position)
{
    uint64_t low = 0;
    uint64_t high = chunks_count(&segment->refs);
    while (low < high) {
        uint64_t middle = low + (high - low) / 2;
        const struct commit_ref *ref = chunks_at(&segment->refs, middle);
        if (ref->first_position <= position) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

/* ---- views ---------------------------------------------------------------------------------- */

struct log_view *log_view_take(struct log *log)
{
    os_mutex_lock(&log->view_lock);
    struct log_view *view = log->view;
    atomic_fetch_add(&view->holders, 1);
    os_mutex_unlock(&log->view_lock);
    return view;
}

void log_view_drop(struct log_view *view)
{
    if (view == NULL || atomic_fetch_sub(&view->holders, 1) > 1) return;
    for (size_t i = 0; i < view->count; i++) log_segment_drop(view->segments[i]);
    free(view);
}

bool log_view_current(struct log *log, const struct log_view *view)
{
    return atomic_load(&log->view_serial) == view->serial;
}

size_t log_view_find(const struct log_view *view, uint64_t position)
{
    size_t low = 0;
    size_t high = view->count;
    assert(view->count > 0);
    while (high - low > 1) {
        size_t middle = low + (high - low) / 2;
        if (view->segments[middle]->first_position <= position) {
            low = middle;
        } else {
            high = middle;
        }
    }
    return low;
}

size_t log_view_number(const struct log_view *view, uint32_t number)
{
    /* Numbers follow each other; a hole has an entry of its own. */
    if (view->count == 0 || number < view->segments[0]->number) return view->count;
    uint64_t i = number - view->segments[0]->number;
    return i < view->count ? (size_t)i : view->count;
}

uint64_t log_view_last(const struct log_view *view, size_t i, uint64_t end)
{
    uint64_t last = i + 1 < view->count ? view->segments[i + 1]->first_position - 1 : end;
    return last >= view->segments[i]->first_position ? last : 0;
}

static struct log_view *view_make(const struct log_view *old, size_t count)
{
    struct log_view *view = calloc(1, sizeof *view + count * sizeof(struct log_segment *));
    if (view == NULL) return NULL;
    atomic_store(&view->holders, 1);
    view->serial = old == NULL ? 1 : old->serial + 1;
    view->count = count;
    return view;
}

static void view_show(struct log *log, struct log_view *view)
{
    atomic_store(&log->view_serial, view->serial);
    log->view = view;
}

deed_status log_view_start(struct log *log, struct log_segment *const *segments, size_t count,
                           struct deed_error *err)
{
    struct log_view *view = view_make(NULL, count);
    if (view == NULL) return deed_fail(err, DEED_NO_MEMORY, "log: out of memory");
    for (size_t i = 0; i < count; i++) view->segments[i] = log_segment_hold(segments[i]);
    os_mutex_lock(&log->view_lock);
    assert(log->view == NULL);
    view_show(log, view);
    os_mutex_unlock(&log->view_lock);
    return DEED_OK;
}

deed_status log_view_append(struct log *log, struct log_segment *segment, struct deed_error *err)
{
    os_mutex_lock(&log->view_lock);
    struct log_view *old = log->view;
    size_t count = old->count;
    struct log_view *view = view_make(old, count + 1);
    if (view != NULL) {
        for (size_t i = 0; i < count; i++) view->segments[i] = log_segment_hold(old->segments[i]);
        view->segments[count] = segment;
        view_show(log, view);
    }
    os_mutex_unlock(&log->view_lock);
    if (view == NULL) return deed_fail(err, DEED_NO_MEMORY, "log: no memory for another segment");
    log_view_drop(old);
    return DEED_OK;
}

deed_status log_view_replace(struct log *log, struct log_segment *segment, struct deed_error *err)
{
    os_mutex_lock(&log->view_lock);
    struct log_view *old = log->view;
    size_t at = log_view_number(old, segment->number);
    assert(at < old->count);
    struct log_view *view = view_make(old, old->count);
    if (view != NULL) {
        for (size_t i = 0; i < old->count; i++) {
            view->segments[i] = i == at ? segment : log_segment_hold(old->segments[i]);
        }
        view_show(log, view);
    }
    os_mutex_unlock(&log->view_lock);
    if (view == NULL) return deed_fail(err, DEED_NO_MEMORY, "log: no memory for another segment");
    log_view_drop(old);
    return DEED_OK;
}
