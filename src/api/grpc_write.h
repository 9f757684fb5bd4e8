/* grpc_write.h - what all gRPC calls that write share: where to, the events, and what went wrong.
 *
 * Append, BatchAppend, Delete and Tombstone name a stream and what they expect of it in the same
 * fields; AppendRecords and AppendSession bring events in others, but gather them the same way. */
#ifndef API_GRPC_WRITE_H
#define API_GRPC_WRITE_H

#include "api/call.h"
#include "api/grpc_event.h"
#include "api/rpc.h"

/* One event of the largest size, and what stands around it. */
#define GRPC_APPEND_MESSAGE_MAX ((size_t)17 << 20)

/* ---- where to ------------------------------------------------------------------------------- */

enum grpc_deadline { GRPC_DEADLINE_NONE, GRPC_DEADLINE_AT, GRPC_DEADLINE_IN };

/* Options of AppendReq, BatchAppendReq, DeleteReq and TombstoneReq. */
struct grpc_target {
    deed_str stream; /* empty: not given */
    bool expects;    /* an expectation is given */
    enum deed_expect expect;
    uint64_t revision;           /* as it was given */
    enum grpc_deadline deadline; /* BatchAppend's: since 1970, or from now */
    int64_t seconds;
    int64_t nanos;
};

/* `out` borrows the bytes. false: malformed. */
DEED_MUST_CHECK bool grpc_parse_target(deed_bytes options, struct grpc_target *out);

/* What Append, Delete and Tombstone say of a target that is not whole; NULL: it is. */
const char *grpc_target_missing(const struct grpc_target *target);

/* What is expected as one number: -2 any, -1 no stream, -4 exists, else the revision. */
int64_t grpc_expected_number(enum deed_expect expect, uint64_t revision);

/* ---- events --------------------------------------------------------------------------------- */

/* Events that come message by message and are stored at once. Memory of its own: the message is gone
 * when the next comes, and the append outlives the call. */
struct grpc_gathered {
    struct api *api;
    struct gathered_part *first, *last;
    size_t stream_size; /* of the stream's name, when it is the same for all: set by the caller */
    size_t count;       /* of the events */
    uint64_t size;      /* as the store reckons it */
    uint64_t held;      /* bytes of memory */
    struct deed_new_event *joined;
};

enum gather_fault {
    GATHER_OK,
    GATHER_MALFORMED,
    GATHER_NO_ID,
    GATHER_METADATA,    /* type or content-type is missing */
    GATHER_EVENT_SIZE,  /* id, size, limit */
    GATHER_APPEND_SIZE, /* size, limit */
    GATHER_COUNT,       /* more events than an append may have: limit */
    GATHER_BUSY,        /* too much is on its way, of all calls */
    GATHER_NO_MEMORY,
};
struct gather_trouble {
    enum gather_fault fault;
    deed_uuid id;
    uint64_t size, limit;
};

/* The most bytes that one event may have, as this protocol counts them: less than the store's limit, so
 * that both agree whatever the names are. */
uint64_t gathered_event_max(const struct deed_limits *limits);

void gathered_init(struct grpc_gathered *g, struct api *api);
void gathered_done(struct grpc_gathered *g); /* accepts a zeroed one */

/* Add the ProposedMessages that stand in `message` as fields of this number. `out_copy`, unless NULL:
 * the message as it is kept, until gathered_done. On failure the call, or correlation, is lost. */
DEED_MUST_CHECK bool gathered_add(struct grpc_gathered *g, deed_bytes message, unsigned field,
                                  deed_bytes *out_copy, struct gather_trouble *out_trouble);

/* Room for `count` events and `size` bytes behind them, for who fills them otherwise, and says then what
 * they are with gathered_count_in. NULL: `out_trouble`. */
struct deed_new_event *gathered_room(struct grpc_gathered *g, size_t count, size_t size,
                                     uint8_t **out_bytes, struct gather_trouble *out_trouble);
/* Check and reckon in an event that stands in its room already. */
DEED_MUST_CHECK bool gathered_count_in(struct grpc_gathered *g, const struct deed_new_event *event,
                                       struct gather_trouble *out_trouble);

/* All events in one array (none is added after that), to be stored in `stream` unless its ptr is NULL.
 * false: no memory. */
DEED_MUST_CHECK bool gathered_join(struct grpc_gathered *g, deed_str stream,
                                   struct deed_new_event **out_events);

/* The append of all events to the target; `out_condition` stays as long as it. Any state is a condition
 * only where there are no events. false: no memory. */
DEED_MUST_CHECK bool gathered_append(struct grpc_gathered *g, const struct grpc_target *target,
                                     struct deed_condition *out_condition,
                                     struct deed_append *out_append);

/* AppendResp.Success and BatchAppendResp.Success, which have the same fields. Without events there is
 * nothing that has a position. */
void grpc_put_success(struct buf *out, unsigned field, const struct deed_appended *appended,
                      bool has_events);

/* ---- what went wrong ------------------------------------------------------------------------ */

/* The message for people, as the gathering's trouble is told in either way. */
void gather_message(const struct gather_trouble *trouble, char *out, size_t room);

enum write_outcome {
    WRITE_DONE,
    WRITE_WRONG_VERSION,  /* err->revision: where the stream is; DEED_NONE: nowhere */
    WRITE_STREAM_DELETED,
    WRITE_INVALID,
    WRITE_BUSY,
    WRITE_NOT_READY,
    WRITE_FAILED,
};
/* What an answer of the store's means in the protocol's words. */
enum write_outcome grpc_outcome(enum deed_expect expect, const struct deed_error *err);

void grpc_trailer_number(struct rpc *rpc, const char *name, int64_t value);

/* End a call with the protocol's trailers. */
void grpc_fail_gather(struct rpc *rpc, const struct gather_trouble *trouble);
void grpc_fail_deleted(struct rpc *rpc, deed_str stream); /* reads fail so, too */
void grpc_fail_outcome(struct rpc *rpc, enum write_outcome outcome, deed_str stream,
                       const struct deed_error *err);

#endif
