/* read_plan.h - what a gRPC reader asks for: a ReadReq, checked and in our words.
 *
 * A revision is where a read of a stream begins. Of the log it is a position: a counted read forwards begins
 * with it, one backwards before it, a subscription behind it; the plan has that worked out as the place
 * that store_read takes. */
#ifndef API_READ_PLAN_H
#define API_READ_PLAN_H

#include "api/event_filter.h"

enum read_from {
    READ_FROM_START,
    READ_FROM_END,
    READ_FROM_PLACE, /* the plan's revision, or place in the log */
};

/* A filter by a prefix "$idx-..." asks for one of the server's own lists. */
enum read_index {
    READ_INDEX_NONE,
    READ_INDEX_ALL,      /* what is not the system's */
    READ_INDEX_CATEGORY, /* `index_term` */
    READ_INDEX_TYPE,     /* `index_term` */
    READ_INDEX_UNKNOWN,
};

struct read_plan {
    deed_str stream; /* ptr NULL: the log */
    bool backwards;
    bool subscription; /* else `count` */
    uint64_t count;
    enum read_from from;
    uint64_t revision; /* of a stream; a subscription begins behind it */
    uint64_t after;    /* of the log: as deed_read_options.after_position */
    bool resolve_links;
    bool structured_ids;
    uint32_t compatibility; /* from 1 on: tell where the stream begins and ends */

    bool filtered;
    struct event_filter_options filter; /* of no meaning with an index */
    enum read_index index;
    deed_str index_name, index_term;
    uint64_t checkpoint_every; /* of a filtered subscription: events looked at */
};

/* Read the request. `scratch` may be emptied afterwards; what the plan points to is in `arena`.
 *
 *   DEED_INVALID    it is malformed, or its options do not go together: the message says which.
 *   DEED_TOO_LARGE, DEED_NO_MEMORY */
DEED_MUST_CHECK deed_status read_plan_parse(deed_bytes message, struct arena *scratch,
                                            struct arena *arena, struct read_plan *out_plan,
                                            struct deed_error *err);

#endif
