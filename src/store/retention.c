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
 *     behind it. */
#include "store/store_state.h"

#include "base/planted.h"

/* ---- the horizon ---------------------------------------------------------------------------- */

/* Note one position; false: it tells all. */
static bool horizon_note(struct horizon *h, const struct deed_event *event)
{
    h->looked = event->position;
    if (index_is_system(event->stream)) return true;
    if (event->removed && h->removed == 0) h->removed = event->position;
    if (!event->removed) h->kept = event->position;
    return event->removed;
}

/* Look on until the first event that is stored. The lock is held. */
static deed_status horizon_look(struct store *store, uint64_t end, struct deed_error *err)
{
    struct horizon *h = &store->horizon;
    struct log_reader *reader = log_reader_create(store->log);
    struct arena arena;
    deed_status status = DEED_OK;
    if (reader == NULL) return deed_fail(err, DEED_NO_MEMORY, "read: out of memory");
    arena_init(&arena, SIZE_MAX);
    bool more = true;
    while (more && status == DEED_OK && h->looked < end) {
        struct deed_event event;
        arena_reset(&arena);
        status = log_reader_event(reader, h->looked + 1, &arena, &event, err);
        if (status == DEED_OK) more = horizon_note(h, &event);
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

deed_status store_horizon(struct store *store, uint64_t *out_horizon, struct deed_error *err)
{
    struct horizon *h = &store->horizon;
    uint64_t end = log_end(store->log);
    deed_status status = DEED_OK;
    os_mutex_lock(&h->lock);
    if (h->kept == 0) status = horizon_look(store, end, err);
    if (status == DEED_OK) {
        *out_horizon = h->removed == 0 ? 0 : h->kept != 0 ? h->kept : end + 1;
    }
    os_mutex_unlock(&h->lock);
    return status;
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
