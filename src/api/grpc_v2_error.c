/* grpc_v2_error.c - reasons, their codes and their details.
 *
 *     Status { code, message, details: [ Any(ErrorInfo), Any(the reason's own) ] }
 *
 * (1) The order of the details is part of the protocol. */
#include "api/grpc_v2_error.h"

#include "grpc/pb.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>

#define TYPE_PREFIX "type.googleapis.com/"

static const struct {
    const char *reason, *domain;
    enum grpc_code code;
    const char *type; /* NULL: ErrorInfo alone */
} reasons[] = {
#define STREAMS(name, code, detail) \
    [V2_##name] = {#name, "streams", code, TYPE_PREFIX "kurrentdb.protocol.v2.streams.errors." detail}
    [V2_BAD_REQUEST] = {"BAD_REQUEST", "server", GRPC_INVALID_ARGUMENT, NULL},
    [V2_SERVER_NOT_READY] = {"SERVER_NOT_READY", "server", GRPC_UNAVAILABLE, NULL},
    [V2_SERVER_OVERLOADED] = {"SERVER_OVERLOADED", "server", GRPC_UNAVAILABLE, NULL},
    [V2_SERVER_MALFUNCTION] = {"SERVER_MALFUNCTION", "server", GRPC_INTERNAL, NULL},
    STREAMS(STREAM_TOMBSTONED, GRPC_FAILED_PRECONDITION, "StreamTombstonedErrorDetails"),
    STREAMS(STREAM_REVISION_CONFLICT, GRPC_FAILED_PRECONDITION,
            "StreamRevisionConflictErrorDetails"),
    STREAMS(APPEND_RECORD_SIZE_EXCEEDED, GRPC_INVALID_ARGUMENT,
            "AppendRecordSizeExceededErrorDetails"),
    STREAMS(APPEND_TRANSACTION_SIZE_EXCEEDED, GRPC_ABORTED,
            "AppendTransactionSizeExceededErrorDetails"),
    STREAMS(STREAM_ALREADY_IN_APPEND_SESSION, GRPC_ABORTED,
            "StreamAlreadyInAppendSessionErrorDetails"),
    [V2_APPEND_SESSION_NO_REQUESTS] = {"APPEND_SESSION_NO_REQUESTS", "streams",
                                       GRPC_FAILED_PRECONDITION, NULL},
    STREAMS(APPEND_CONSISTENCY_VIOLATION, GRPC_FAILED_PRECONDITION,
            "AppendConsistencyViolationErrorDetails"),
#undef STREAMS
};

static_assert(sizeof reasons / sizeof reasons[0] == V2_REASON_COUNT, "every reason has a row");

static void put_any(struct buf *out, const char *type, deed_bytes value)
{
    size_t any = pb_begin(out, 3);
    pb_put_str(out, 1, deed_str_of(type));
    pb_put_bytes(out, 2, value);
    pb_end(out, any);
}

static void put_status(struct buf *out, enum v2_reason reason, deed_bytes detail,
                       const char *message)
{
    struct buf info;
    buf_init(&info, 1024);
    pb_put_str(&info, 1, deed_str_of(reasons[reason].reason));
    pb_put_str(&info, 2, deed_str_of(reasons[reason].domain));
    pb_put_uint(out, 1, reasons[reason].code);
    pb_put_str(out, 2, deed_str_of(message));
    put_any(out, TYPE_PREFIX "google.rpc.ErrorInfo", buf_bytes(&info)); /* (1) */
    if (reasons[reason].type != NULL) put_any(out, reasons[reason].type, detail);
    buf_done(&info);
}

void v2_fail(struct rpc *rpc, enum v2_reason reason, deed_bytes detail, const char *format, ...)
{
    char message[DEED_MESSAGE_SIZE];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    struct buf status;
    buf_init(&status, 64 << 10);
    put_status(&status, reason, detail, message);
    if (buf_ok(&status)) rpc_trailer(rpc, "grpc-status-details-bin", buf_str(&status));
    buf_done(&status);
    rpc_fail(rpc, reasons[reason].code, NULL, "%s", message);
}
