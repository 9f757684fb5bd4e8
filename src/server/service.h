/* service.h - what the connections of one loop share, and the turns of that loop.
 *
 * server.c makes a service, feeds it sockets and a tick, and asks it to stop. Nothing here is safe to
 * call from another thread, except service_log_grew and node_push. */
#ifndef SERVER_SERVICE_H
#define SERVER_SERVICE_H

#include "api/api.h"
#include "server/pool.h"
#include "server/traffic.h"

#include <stdatomic.h>
#include <uv.h>

struct link;
struct exchange;
struct stream;
struct service;

struct service_limits {
    uint32_t connection_count_max;
    uint32_t pipeline_count_max; /* requests of one connection that are worked on at once */
    size_t head_size_max, body_size_max;
    size_t write_size_max;       /* unsent bytes of one connection before its answers pause */
    uint64_t in_flight_size_max; /* bodies of all requests and answers; past it: 503 */
    uint64_t header_timeout_ms, idle_timeout_ms, write_timeout_ms;
    uint64_t body_rate_min; /* bytes a second */
    uint32_t call_count_max;     /* calls of one HTTP/2 connection at once */
    uint64_t keepalive_interval_ms, keepalive_timeout_ms; /* of HTTP/2's PING; interval 0: none */
};

#define SERVICE_READ_SIZE (256 << 10)

/* Who was the only one to ask for anything for so long, which is longer than a busy client pauses, may
 * hold the loop's thread for a sync. */
#define ALONE_NS UINT64_C(20000000)

/* Something that another thread hands to the loop's: embedded in what it is about. */
struct node {
    struct node *next;
    void (*taken)(struct node *node); /* on the loop's thread */
};

/* Something that waits for the log to grow, or for a time. */
struct waiter {
    struct waiter *previous, *next;
    uint64_t until; /* uv_now; UINT64_MAX: for ever */
    bool waits;
    /* It has grown, the time has come, or the service stops. It waits no more. */
    void (*woken)(struct waiter *waiter);
};

/* Of who holds room while little is left. */
struct pressure {
    uint64_t since, moved; /* uv_now, bytes: when the window began, and what was moved before it */
};

struct service {
    uv_loop_t *loop;
    struct api *api;
    struct pool *pool, *patient_pool;
    struct pool *helpers; /* share short reads with the loop's thread; NULL: one processor */
    uint32_t helper_count;
    struct traffic *traffic;
    struct service_limits limits;

    struct link *links;
    size_t connection_count;
    struct exchange *free_exchanges;
    size_t free_count;
    struct stream *free_streams;
    size_t free_stream_count;
    size_t work_count; /* exchanges and calls: taken and not given back, also those whose connection
                        * is gone */
    _Atomic uint64_t in_flight_size;
    struct waiter *waiting;  /* streams at the log's end */
    struct link *unflushed;  /* with something to do at the end of this turn of the loop */
    bool stopping, draining;
    char date[32];
    const void *recent;    /* the connection whose request came last, and since when all were its own */
    uint64_t recent_since; /* uv_hrtime */

    size_t tried;             /* short reads since the loop last waited */
    _Atomic uint32_t helping; /* short reads at the helpers */
    uv_prepare_t prepare;
    uv_check_t check;
    _Atomic bool awake; /* the loop looks at `finished` and `growths` before it waits */
    uv_async_t async;
    _Atomic(struct node *) finished; /* by any thread; newest first */
    _Atomic uint32_t finishing;      /* threads that are putting something there */
    _Atomic uint64_t growths;        /* of the log */
    _Atomic uint64_t waiting_count;
    uint64_t growths_seen;
    uint8_t read_buffer[SERVICE_READ_SIZE]; /* every read's bytes are taken before the next read */
};

/* The fields above the first blank line must be set. */
DEED_MUST_CHECK deed_status service_init(struct service *service, struct deed_error *err);
/* The calling thread is the one that runs the loop from now on. */
void service_enter(struct service *service);
/* Closes its handles; the loop must turn once more. No connection, no exchange, no call may be left. */
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

/* ---- for the protocols ------------------------------------------------------------------------ */

/* When three quarters of in_flight_size_max are taken, who holds much must move bytes at a rate: else some
 * whose clients do nothing would cost everyone the service. About ten times a second; `holds`: it has
 * something worth that, and it is the client who waits; `moved`: bytes, ever; `rate`: bytes a second.
 * true: it held all through a window, and moved too few. */
DEED_MUST_CHECK bool pressure_slow(const struct service *service, struct pressure *pressure,
                                   bool holds, uint64_t moved, uint64_t rate);

/* Everything that has come is worked through, and every connection flushed once. Each callback of the
 * loop ends with it. */
void service_turn(struct service *service);

/* From any thread: have the loop take it. The node must stay until then. */
void node_push(struct service *service, struct node *node);

/* Wait for the log to grow. `growths` is what service->growths was before the log was last looked at.
 * false: it has grown since, and nothing waits. */
DEED_MUST_CHECK bool waiter_begin(struct service *service, struct waiter *waiter, uint64_t growths);
void waiter_end(struct service *service, struct waiter *waiter); /* also if it does not wait */

#endif
