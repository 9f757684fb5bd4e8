/* status.h - how a gRPC call ends, and the small texts around it: bytes in, bytes out. */
#ifndef GRPC_STATUS_H
#define GRPC_STATUS_H

#include "base/buf.h"

enum grpc_code {
    GRPC_OK = 0,
    GRPC_CANCELLED = 1,
    GRPC_UNKNOWN = 2,
    GRPC_INVALID_ARGUMENT = 3,
    GRPC_DEADLINE_EXCEEDED = 4,
    GRPC_NOT_FOUND = 5,
    GRPC_ALREADY_EXISTS = 6,
    GRPC_PERMISSION_DENIED = 7,
    GRPC_RESOURCE_EXHAUSTED = 8,
    GRPC_FAILED_PRECONDITION = 9,
    GRPC_ABORTED = 10,
    GRPC_OUT_OF_RANGE = 11,
    GRPC_UNIMPLEMENTED = 12,
    GRPC_INTERNAL = 13,
    GRPC_UNAVAILABLE = 14,
    GRPC_DATA_LOSS = 15,
    GRPC_UNAUTHENTICATED = 16,
};

/* Append a text as the value of `grpc-message`, or of another trailer: printable ASCII stays, '%' and
 * every other byte become %XX. */
void grpc_percent_encode(deed_str text, struct buf *out);

/* Append bytes as the value of a header whose name ends in "-bin": base64 without padding. */
void grpc_base64_encode(deed_bytes bytes, struct buf *out);
/* And back; with or without padding, as clients differ. false: it is no base64. */
bool grpc_base64_decode(deed_str text, struct buf *out);

/* `grpc-timeout`: one to eight digits and a unit of H, M, S, m, u, n. false: it is none. */
bool grpc_timeout_parse(deed_str text, uint64_t *out_ns);

#endif
