/* retention.c - what is left where events were removed.
 *
 *     position   1        2 .. 56         57                          end
 *     the log    $log  |  removed ...  |  kept, removed, kept, ...  |
 *                                         ^ the horizon
 *
 * (1) Positions, revisions, heads, ids and keys never change: an event that is removed leaves its
 *     stub, and the stub all terms.
 * (2) A hole behind the horizon is passed over. Before the horizon a reader would get nothing for
 *     a long way and take it for the truth: so it is told.
 * (3) What was found of the horizon stays right while nothing is removed: events are only added
 *     behind it.
 * (4) Whoever looks for it holds the lock while it reads, mostly a footer, but after a compaction
 *     perhaps many: a thread in haste does not wait for that. */
#include "store/store_state.h"

#include "base/planted.h"
#include "log/sealed.h"

#include <stdlib.h>

/* ---- the horizon ---------------------------------------------------------------------------- */

struct segment_list {
    struct log_segment_info *ptr;
    size_t count, room;
    bool failed;
};

static void list_segment(void *context, const struct log_segment_info *info)
{
    struct segment_list *list = context;
    if (list->count == list->room) {
        size_t room = list->room * 2 + 64;
        struct log_segment_info *grown = realloc(list->ptr, room * sizeof *grown);
        list->failed |= grown == NULL;
        if (grown == NULL) return;
        list->ptr = grown;
        list->room = room;
    }
    list->ptr[list->count++] = *info;
}

/* Note one event; false: it tells all. */
static bool note_event(struct horizon *h, const struct deed_event *event)
{
    h->looked = event->position;
    if (index_is_system(event->stream)) return true;
    if (event->removed && h->removed == 0) h->removed = event->position;
    if (!event->removed) h->kept = event->position;
    return event->removed;
}

/* Look at events from `looked` on. */
static deed_status look_at_events(struct store *store, uint64_t last, struct deed_error *err)
{
    struct horizon *h = &store->horizon;
    struct log_reader *reader = log_reader_create(store->log);
    struct arena arena;
    deed_status status = DEED_OK;
    if (reader == NULL) return deed_fail(err, DEED_NO_MEMORY, "read: out of memory");
    arena_init(&arena, SIZE_MAX);
    bool more = true;
    while (more && status == DEED_OK && h->looked < last) {
        struct deed_event event;
        arena_reset(&arena);
        status = log_reader_event(reader, h->looked + 1, &arena, &event, err);
        if (status == DEED_OK) more = note_event(h, &event);
        if (status == DEED_CORRUPT) { /* lost, not removed */
            uint64_t first;
            log_lost_around(store->log, h->looked + 1, &first, &h->looked);
            status = DEED_OK;
        }
    }
    arena_done(&arena);
    log_reader_destroy(reader);
    return status;
}

/* A sealed segment's footer knows without its events. false: it cannot be asked. */
static bool look_at_footer(struct store *store, const struct log_segment_info *info)
{
    struct horizon *h = &store->horizon;
    struct sealed_footer footer;
    if (info->state != LOG_SEALED || h->looked >= info->first_position) return false;
    if (log_footer(store->log, info->number, &footer, NULL) != DEED_OK) return false;
    bool removed_first = footer.first_removed < footer.first_kept; /* none: DEED_NONE */
    if (removed_first && h->removed == 0) h->removed = footer.first_removed;
    if (footer.first_kept != DEED_NONE) h->kept = footer.first_kept;
    h->looked = info->last_position;
    return true;
}

/* Look on until the first event that is stored. The lock is held. */
static deed_status horizon_look(struct store *store, uint64_t end, struct deed_error *err)
{
    struct horizon *h = &store->horizon;
    struct segment_list list = {0};
    deed_status status = DEED_OK;
    log_each_segment(store->log, list_segment, &list);
    if (list.failed) status = deed_fail(err, DEED_NO_MEMORY, "read: out of memory");
    for (size_t i = 0; status == DEED_OK && h->kept == 0 && i < list.count; i++) {
        uint64_t last = list.ptr[i].last_position < end ? list.ptr[i].last_position : end;
        if (last <= h->looked || look_at_footer(store, &list.ptr[i])) continue;
        status = look_at_events(store, last, err);
    }
    free(list.ptr);
    return status;
}

deed_status store_horizon(struct store *store, uint64_t *out_horizon, struct deed_error *err)
{
    struct horizon *h = &store->horizon;
    uint64_t end = log_end(store->log);
    deed_status status = DEED_OK;
    if (!os_in_haste()) {
        os_mutex_lock(&h->lock);
    } else if (!os_mutex_try(&h->lock)) { /* (4) */
        return os_haste_refuse("the horizon", err);
    }
    if (h->kept == 0) status = horizon_look(store, end, err);
    if (status == DEED_OK) {
        *out_horizon = h->removed == 0 ? 0 : h->kept != 0 ? h->kept : end + 1;
    }
    os_mutex_unlock(&h->lock);
    return status;
}

void horizon_forget(struct store *store)
{
    struct horizon *h = &store->horizon;
    if (PLANTED(HORIZON_STAYS)) return;
    os_mutex_lock(&h->lock);
    h->looked = h->removed = h->kept = 0;
    os_mutex_unlock(&h->lock);
}

deed_status horizon_check(struct store *store, uint64_t position, bool backwards,
                          struct deed_error *err)
{
    uint64_t horizon;
    deed_status status = store_horizon(store, &horizon, err);
    if (status != DEED_OK || horizon == 0 || PLANTED(FORGET_HORIZON)) return status;
    bool before = backwards ? position < horizon : position + 1 < horizon;
    if (!before) return DEED_OK;
    status = deed_fail(err, DEED_GONE,
                       "the log is kept from position %llu on, events before it were removed: read "
                       "after position %llu",
                       (unsigned long long)horizon, (unsigned long long)(horizon - 1));
    if (err != NULL) err->position = horizon;
    return status;
}
