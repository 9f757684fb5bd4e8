/* traffic.h - what the server counts about its requests, as Prometheus text. */
#ifndef SERVER_TRAFFIC_H
#define SERVER_TRAFFIC_H

#include "base/buf.h"
#include "base/error.h"

struct traffic;

DEED_MUST_CHECK deed_status traffic_create(struct traffic **out_traffic, struct deed_error *err);
void traffic_destroy(struct traffic *traffic); /* accepts NULL */

/* The route of what was refused before it had one. */
extern const char traffic_refused[];

/* A request was answered; of a gRPC call the status is its grpc-status. `route` is its pattern
 * ("/streams/{stream}", "/package.Service/Method") and must stay; methods that the API does not use
 * count as "other", so that no client can make new series. From one thread. */
void traffic_request(struct traffic *traffic, const char *route, deed_str method, int status,
                     uint64_t duration_ns);

enum traffic_gauge {
    TRAFFIC_CONNECTIONS,
    TRAFFIC_REQUESTS_IN_FLIGHT,
    TRAFFIC_BYTES_IN_FLIGHT,
    TRAFFIC_STREAMS_WAITING,
    TRAFFIC_POOL_QUEUE,
    TRAFFIC_GAUGE_COUNT,
};
enum traffic_counter {
    TRAFFIC_CONNECTIONS_ACCEPTED,
    TRAFFIC_CONNECTIONS_REFUSED, /* over the limit */
    TRAFFIC_TIMEOUTS,            /* slow heads, bodies and readers */
    TRAFFIC_OVERLOADS,           /* 503: too many bytes in flight */
    TRAFFIC_REQUESTS,
    TRAFFIC_BYTES_READ,
    TRAFFIC_BYTES_WRITTEN,
    TRAFFIC_COUNTER_COUNT,
};
/* From any thread. */
void traffic_set(struct traffic *traffic, enum traffic_gauge gauge, uint64_t value);
void traffic_add(struct traffic *traffic, enum traffic_counter counter, uint64_t value);
uint64_t traffic_get(struct traffic *traffic, enum traffic_counter counter);

/* Append everything. From any thread. */
void traffic_render(struct traffic *traffic, struct buf *out);

#endif
