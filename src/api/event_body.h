/* event_body.h - the bodies that append: JSON into a struct deed_append.
 *
 *   POST /streams/{stream}   {"type", "data" | "data_base64", "id"?, "metadata"?, "tags"?, "time"?,
 *                             "datacontenttype"?, "correlation_id"?, "causation_id"?, "actor"?},
 *                            or an array of these; or a CloudEvent, or a batch of them
 *   POST /append             {"events": [the same, with "stream"],
 *                             "conditions": [{"stream", "revision": N | "none" | "exists"},
 *                                            {"no_match": [{"types", "tags"}], "after"?}]},
 *                            "after" a position or a token;
 *                            or a batch of CloudEvents, each to the stream that is its subject
 *
 * Members that are not listed are refused by name. Data and metadata are slices of the body: the
 * client's bytes, unchanged. Slices borrow from body and arena. */
#ifndef API_EVENT_BODY_H
#define API_EVENT_BODY_H

#include "base/arena.h"
#include "base/error.h"

struct api;

struct event_defaults {
    deed_str stream; /* of every event; ptr NULL: each names its own */
    deed_str actor, correlation_id, causation_id; /* of events that do not say */
    uint32_t depth_max;                           /* of data and metadata; 0: 64 */
    bool is_cloudevent;
    const struct api *api; /* whose tokens are taken for positions; NULL: none are */
};

/* An event or an array of events: `out_append` gets them, and no conditions.
 *
 *   DEED_INVALID, DEED_TOO_LARGE   the message names the event by its index, and the member.
 *   DEED_NO_MEMORY                 the arena is at its limit.
 *   DEED_CONFLICT                  a token is stale. */
DEED_MUST_CHECK deed_status event_body_parse(struct arena *arena, deed_bytes body,
                                             const struct event_defaults *defaults,
                                             struct deed_append *out_append,
                                             struct deed_error *err);

/* The body of POST /append. The same statuses. */
DEED_MUST_CHECK deed_status append_body_parse(struct arena *arena, deed_bytes body,
                                              const struct event_defaults *defaults,
                                              struct deed_append *out_append,
                                              struct deed_error *err);

#endif
