/* grpc.h - gRPC's services: one file and one table each.
 *
 * grpc_NAME.c defines NAME's methods as rpc.h says; the line here makes them reachable. */
#ifndef API_GRPC_H
#define API_GRPC_H

#include "api/rpc.h"

/* The busiest first: they are looked up in this order. */
#define GRPC_TABLES(X) \
    X(grpc_append)     \
    X(grpc_batch)      \
    X(grpc_read)       \
    X(grpc_groups)     \
    X(grpc_delete)     \
    X(grpc_v2)         \
    X(grpc_features)   \
    X(grpc_gossip)     \
    X(grpc_monitoring) \
    X(grpc_operations) \
    X(grpc_users)

#define GRPC_DECLARE(name)                           \
    extern const struct rpc_method name##_methods[]; \
    extern const size_t name##_method_count;
GRPC_TABLES(GRPC_DECLARE)
#undef GRPC_DECLARE

#endif
