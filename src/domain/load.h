/* load.h - what a host still has to fold to have an aggregate's state at a revision.
 *
 * An aggregate's state is the fold of its stream from where it was cut off last: a soft delete, or a
 * `$tb` that somebody set. `$maxCount` and `$maxAge` hide events from readers, but a decision must
 * not depend on the clock, so they do not matter here. A cut makes another state, so it has another
 * slot. */
#ifndef DOMAIN_LOAD_H
#define DOMAIN_LOAD_H

#include "domain/host.h"
#include "store/store.h"

struct load {
    struct store *store;
    deed_str stream, slot;
    uint64_t head;     /* last revision ever written, or DEED_NONE: what an append expects */
    uint64_t first;    /* first that counts, or DEED_NONE: the aggregate does not exist */
    uint64_t target;   /* the state asked for; DEED_NONE: before the first event */
    uint64_t position; /* of the event at `head`; 0: none */
    uint64_t metadata_revision; /* of the stream's metadata, or DEED_NONE */
    uint64_t base;              /* what the host has already, or DEED_NONE */
};

/* Look at the stream, target its end. The strings come from `arena`. DEED_DELETED: tombstoned. */
DEED_MUST_CHECK deed_status load_open(struct load *load, struct store *store, deed_str stream,
                                      struct arena *arena, struct deed_error *err);

/* Another target. DEED_NOT_FOUND: the stream does not have it, or not any more. */
DEED_MUST_CHECK deed_status load_aim(struct load *load, uint64_t revision, struct deed_error *err);

/* Take the host's word for what it has in the slot, or, with `from_nothing`, start over. */
void load_base(struct load *load, uint64_t host_revision, bool from_nothing);

/* Read the events that come next, up to the target or about `size_max` bytes, into `arena`.
 * DEED_GONE: one of them was removed.
 * `out_last`, unless NULL: the last one's position, unchanged if there is none. */
DEED_MUST_CHECK deed_status load_events(const struct load *load, uint64_t size_max,
                                        struct arena *arena, struct host_event **out_events,
                                        size_t *out_count, uint64_t *out_last,
                                        struct deed_error *err);

/* DEED_GONE: what the event said was removed, and without it the state would be wrong. */
DEED_MUST_CHECK deed_status load_whole(deed_str stream, const struct deed_event *event,
                                       struct deed_error *err);

/* A stored event as a host wants it; borrows. */
struct host_event load_event(const struct deed_event *event);

#endif
