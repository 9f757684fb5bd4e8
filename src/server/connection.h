/* connection.h - clients' connections and the requests on them, all on one loop's thread.
 *
 * A service is what the connections of a loop share; server.c makes one, feeds it sockets and a
 * tick, and asks it to stop. Nothing here is safe to call from another thread, except
 * service_log_grew. */
#ifndef SERVER_CONNECTION_H
#define SERVER_CONNECTION_H

#include "api/api.h"
#include "server/traffic.h"
#include "server/pool.h"

#include <stdatomic.h>
#include <uv.h>

struct connection;
struct exchange;

struct service_limits {
    uint32_t connection_count_max;
    uint32_t pipeline_count_max; /* requests of one connection that are worked on at once */
    size_t head_size_max, body_size_max;
    size_t write_size_max;       /* unsent bytes of one connection before its answers pause */
    uint64_t in_flight_size_max; /* bodies of all requests and answers; past it: 503 */
    uint64_t header_timeout_ms, idle_timeout_ms, write_timeout_ms;
    uint64_t body_rate_min; /* bytes a second */
};

#define SERVICE_READ_SIZE (256 << 10)

struct service {
    uv_loop_t *loop;
    struct api *api;
    struct pool *pool, *patient_pool;
    struct pool *helpers; /* share short reads with the loop's thread; NULL: one processor */
    uint32_t helper_count;
    struct traffic *traffic;
    struct service_limits limits;

    struct connection *connections;
    size_t connection_count;
    struct exchange *free_exchanges;
    size_t free_count;
    size_t exchange_count; /* taken and not given back, also those whose connection is gone */
    _Atomic uint64_t in_flight_size;
    struct exchange *waiting;     /* streams at the log's end */
    struct connection *unflushed; /* with something to do at the end of this turn of the loop */
    bool stopping, draining;
    char date[32];
    const struct connection *recent; /* whose request came last, and since when all were its own */
    uint64_t recent_since;           /* uv_hrtime */

    size_t tried;              /* short reads since the loop last waited */
    _Atomic uint32_t helping;  /* short reads at the helpers */
    uv_prepare_t prepare;
    uv_check_t check;
    _Atomic bool awake; /* the loop looks at `finished` and `growths` before it waits */
    uv_async_t async;
    _Atomic(struct exchange *) finished; /* by any thread; newest first */
    _Atomic uint32_t finishing;          /* threads that are putting something there */
    _Atomic uint64_t growths;            /* of the log */
    _Atomic uint64_t waiting_count;
    uint64_t growths_seen;
    uint8_t read_buffer[SERVICE_READ_SIZE]; /* every read's bytes are taken before the next read */
};

/* The fields above the first blank line must be set. */
DEED_MUST_CHECK deed_status service_init(struct service *service, struct deed_error *err);
/* The calling thread is the one that runs the loop from now on. */
void service_enter(struct service *service);
/* Closes its handles; the loop must turn once more. No connection, no exchange may be left. */
void service_close(struct service *service);
void service_done(struct service *service);

/* Take the next connection from a listening socket. false: there is no memory for it, and libuv does
 * not look at that socket again before this was called once more. */
DEED_MUST_CHECK bool service_accept(struct service *service, uv_stream_t *listener);
/* Timeouts, waits, the date. About ten times a second. */
void service_tick(struct service *service);
/* Finish what has begun and take nothing new: idle connections close at once, the others after
 * their answers, streams that wait end. */
void service_stop(struct service *service);
/* Close every connection now, answered or not. */
void service_abort(struct service *service);
/* Nothing is left. */
bool service_idle(const struct service *service);

/* From any thread: streams that wait at the log's end look again. */
void service_log_grew(struct service *service);

#endif
