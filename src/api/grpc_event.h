/* grpc_event.h - events as gRPC clients of the first generation know them.
 *
 * Read, append and the consumer groups all move the same two messages: a RecordedEvent goes out, a
 * ProposedMessage comes in. Both are written and read by hand over grpc/pb.h. */
#ifndef API_GRPC_EVENT_H
#define API_GRPC_EVENT_H

#include "base/arena.h"
#include "base/buf.h"
#include "deedbook.h"

/* What a client calls JSON and is not, or is nested deeper than json_depth_max: it is kept, as the
 * protocol promises, but under this name, so that nobody takes it for JSON who has not looked. Those
 * clients see "application/json" again. */
#define GRPC_UNCHECKED_JSON "application/x-unchecked-json"

/* ---- going out ------------------------------------------------------------------------------ */

/* A RecordedEvent as the field `field` of the message that is being written.
 *
 *   metadata         `type`; `created`: when it was committed, in 100 ns since 1970; `content-type`:
 *                    application/json or application/octet-stream
 *   custom_metadata  the client's bytes. Tags, correlation and causation id, actor and time of events
 *                    that came by other ways are not shown: the protocol has no place for them.
 *   stream_revision  of a $streamDeleted event: the largest int64, as clients expect it */
void grpc_put_recorded(struct buf *out, unsigned field, const struct deed_event *event,
                       bool structured_ids);

/* A ReadEvent, with its position. `event` NULL: a link whose target cannot be read; `link` NULL: no
 * link. Not both. `more`: further fields of it, encoded (a consumer group's retry count), or empty. */
void grpc_put_read_event(struct buf *out, unsigned field, const struct deed_event *event,
                         const struct deed_event *link, bool structured_ids, deed_bytes more);

/* An esc.UUID; an esc.StreamIdentifier; a position, which is a commit's and a prepare's to the protocol. */
void grpc_put_uuid(struct buf *out, unsigned field, deed_uuid id, bool structured);
void grpc_put_stream(struct buf *out, unsigned field, deed_str stream);
void grpc_put_position(struct buf *out, unsigned field, uint64_t position);

/* ---- coming in ------------------------------------------------------------------------------ */

/* From an esc.UUID in either form. false: malformed, or neither. */
DEED_MUST_CHECK bool grpc_parse_uuid(deed_bytes message, deed_uuid *out);

/* The name in an esc.StreamIdentifier; its ptr is not NULL on success, but it may be empty. */
DEED_MUST_CHECK bool grpc_parse_stream(deed_bytes message, deed_str *out);

enum grpc_proposed {
    GRPC_PROPOSED_OK,
    GRPC_PROPOSED_MALFORMED, /* the bytes are no such message */
    GRPC_PROPOSED_NO_ID,     /* no id, or an empty one */
    GRPC_PROPOSED_METADATA,  /* `type` or `content-type` is missing */
};

/* Read a ProposedMessage (the same in Append and BatchAppend). `out` borrows the message; its stream
 * is left alone. The correlation and causation ids are found in custom metadata that is JSON, under
 * $correlationId and $causationId, when they are names the store can keep.
 * `depth_max`: how deep JSON may nest to count as checked. */
DEED_MUST_CHECK enum grpc_proposed grpc_parse_proposed(deed_bytes message, uint32_t depth_max,
                                                       struct deed_new_event *out);

/* Find those ids in the event's metadata. */
void grpc_find_ids(struct deed_new_event *event, uint32_t depth_max);

#endif
