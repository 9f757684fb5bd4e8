/* grpc_v2_error.h - how the second generation tells errors: the trailer grpc-status-details-bin.
 *
 * It holds a google.rpc.Status with an ErrorInfo that says the reason, and behind it the detail that the
 * reason has: clients that look at one detail only look at the last. */
#ifndef API_GRPC_V2_ERROR_H
#define API_GRPC_V2_ERROR_H

#include "api/rpc.h"

enum v2_reason {
    V2_BAD_REQUEST,
    V2_SERVER_NOT_READY,
    V2_SERVER_OVERLOADED,
    V2_SERVER_MALFUNCTION,
    V2_STREAM_TOMBSTONED,
    V2_STREAM_REVISION_CONFLICT,
    V2_APPEND_RECORD_SIZE_EXCEEDED,
    V2_APPEND_TRANSACTION_SIZE_EXCEEDED,
    V2_STREAM_ALREADY_IN_APPEND_SESSION,
    V2_APPEND_SESSION_NO_REQUESTS,
    V2_APPEND_CONSISTENCY_VIOLATION,
    V2_REASON_COUNT
};

/* End the call. `detail`: the reason's message, encoded; of no meaning if the reason has none. */
void v2_fail(struct rpc *rpc, enum v2_reason reason, deed_bytes detail, const char *format, ...)
    DEED_PRINTF(4, 5);

#endif
