/* service.c - a turn of the loop.
 *
 *     any thread ─► node_push ─► finished stack ─┐
 *     any thread ─► service_log_grew ─► waiters ─┼─► service_turn ─► settle each marked link ─► sockets
 *     sockets    ─► protocol->input ─────────────┘
 *
 * (1) Work is done in callbacks of the loop, which end with service_turn: it takes the finished stack,
 *     wakes who waits for the log, and settles and flushes each connection once. So the answers of a
 *     pipeline, and of many calls, leave in one write.
 * (2) The loop's own thread takes the stack before it waits again. For others the async wakes it, if it
 *     waits or is about to: `awake` is cleared before the stack is looked at a last time, and read after
 *     something was put on it.
 * (3) Who waits is counted before it is looked whether the log grew since, while service_log_grew counts
 *     the growth before it looks for waiting ones: one of the two sees the other.
 * (4) Once something is on the stack the loop may be done with everything, and end, before the thread
 *     that put it there has looked whether to wake it: `finishing` keeps the service until it has. */
#include "server/service.h"

#include "http1/http1.h"
#include "os/os.h"
#include "server/connection.h"
#include "server/link.h"
#include "server/stream.h"

#include <assert.h>

#define PRESSURE_WINDOW_MS 2000

static _Thread_local bool on_loop_thread;

/* (2) */
static void loop_wake(struct service *service)
{
    if (!on_loop_thread && !atomic_load(&service->awake)) (void)uv_async_send(&service->async);
}

void node_push(struct service *service, struct node *node)
{
    if (!on_loop_thread) atomic_fetch_add(&service->finishing, 1); /* (4) */
    struct node *newest = atomic_load_explicit(&service->finished, memory_order_relaxed);
    do {
        node->next = newest;
    } while (!atomic_compare_exchange_weak_explicit(&service->finished, &newest, node,
                                                    memory_order_seq_cst, memory_order_relaxed));
    if (newest == NULL) loop_wake(service);
    if (!on_loop_thread) atomic_fetch_sub(&service->finishing, 1);
}

static bool finished_take(struct service *service)
{
    struct node *newest = atomic_exchange(&service->finished, NULL);
    struct node *oldest = NULL;
    bool any = newest != NULL;
    while (newest != NULL) {
        struct node *next = newest->next;
        newest->next = oldest;
        oldest = newest;
        newest = next;
    }
    while (oldest != NULL) {
        struct node *next = oldest->next;
        oldest->taken(oldest);
        oldest = next;
    }
    return any;
}

/* ---- waiting for the log ---------------------------------------------------------------------- */

bool waiter_begin(struct service *service, struct waiter *waiter, uint64_t growths)
{
    assert(!waiter->waits);
    waiter->waits = true;
    waiter->previous = NULL;
    waiter->next = service->waiting;
    if (service->waiting != NULL) service->waiting->previous = waiter;
    service->waiting = waiter;
    atomic_fetch_add(&service->waiting_count, 1);
    if (atomic_load(&service->growths) == growths) return true; /* (3) */
    waiter_end(service, waiter);
    return false;
}

void waiter_end(struct service *service, struct waiter *waiter)
{
    if (!waiter->waits) return;
    waiter->waits = false;
    if (waiter->previous == NULL) {
        service->waiting = waiter->next;
    } else {
        waiter->previous->next = waiter->next;
    }
    if (waiter->next != NULL) waiter->next->previous = waiter->previous;
    atomic_fetch_sub(&service->waiting_count, 1);
}

/* Those whose time has come, or all. None of them ends another's wait. */
static void waiters_wake(struct service *service, uint64_t now)
{
    for (struct waiter *waiter = service->waiting; waiter != NULL;) {
        struct waiter *next = waiter->next;
        if (now >= waiter->until) {
            waiter_end(service, waiter);
            waiter->woken(waiter);
        }
        waiter = next;
    }
}

void service_log_grew(struct service *service)
{
    atomic_fetch_add(&service->growths, 1);
    if (atomic_load(&service->waiting_count) > 0) loop_wake(service);
}

/* ---- turns ------------------------------------------------------------------------------------ */

/* (1) */
void service_turn(struct service *service)
{
    if (service->draining) return;
    service->draining = true;
    bool more = true;
    while (more) {
        more = finished_take(service);
        uint64_t growths = atomic_load(&service->growths);
        if (growths != service->growths_seen) {
            service->growths_seen = growths;
            waiters_wake(service, UINT64_MAX);
            more = true; /* a glance has put its answer on the stack: nobody wakes the loop for it */
        }
        struct link *link = service->unflushed;
        service->unflushed = NULL;
        while (link != NULL) {
            struct link *next = link->next_unflushed;
            link->unflushed = false;
            if (!link->closing) link->protocol->settle(link);
            link = next;
            more = true;
        }
    }
    service->draining = false;
    traffic_set(service->traffic, TRAFFIC_REQUESTS_IN_FLIGHT, service->work_count);
    traffic_set(service->traffic, TRAFFIC_BYTES_IN_FLIGHT, service->in_flight_size);
}

static void on_async(uv_async_t *async)
{
    service_turn(async->data);
}

/* The loop is about to wait: from here on it must be woken (2). */
static void on_prepare(uv_prepare_t *prepare)
{
    struct service *service = prepare->data;
    atomic_store(&service->awake, false);
    service_turn(service);
}

static void on_check(uv_check_t *check)
{
    struct service *service = check->data;
    atomic_store(&service->awake, true);
    service->tried = 0;
}

static void date_update(struct service *service)
{
    http1_date(os_now_ns(os_real()) / 1000000000, service->date);
}

void service_tick(struct service *service)
{
    uint64_t now = uv_now(service->loop);
    date_update(service);
    for (struct link *link = service->links; link != NULL;) {
        struct link *next = link->next;
        link_check(link, now);
        if (!link->closing && !link->lingering) link->protocol->tick(link, now);
        link = next;
    }
    waiters_wake(service, now);
    traffic_set(service->traffic, TRAFFIC_STREAMS_WAITING, atomic_load(&service->waiting_count));
    traffic_set(service->traffic, TRAFFIC_POOL_QUEUE,
                pool_queue_count(service->pool) + pool_queue_count(service->patient_pool));
    service_turn(service);
}

/* ---- life ------------------------------------------------------------------------------------- */

deed_status service_init(struct service *service, struct deed_error *err)
{
    int result = uv_async_init(service->loop, &service->async, on_async);
    if (result != 0) return deed_fail(err, DEED_IO, "event loop: %s", uv_strerror(result));
    (void)uv_prepare_init(service->loop, &service->prepare);
    (void)uv_check_init(service->loop, &service->check);
    service->async.data = service->prepare.data = service->check.data = service;
    date_update(service);
    return DEED_OK;
}

void service_enter(struct service *service)
{
    on_loop_thread = true;
    (void)uv_prepare_start(&service->prepare, on_prepare);
    (void)uv_check_start(&service->check, on_check);
    service_turn(service);
}

void service_close(struct service *service)
{
    assert(service_idle(service));
    while (atomic_load(&service->finishing) > 0) uv_sleep(1); /* (4): some instructions more */
    on_loop_thread = false;
    uv_close((uv_handle_t *)&service->async, NULL);
    uv_close((uv_handle_t *)&service->prepare, NULL);
    uv_close((uv_handle_t *)&service->check, NULL);
}

void service_done(struct service *service)
{
    exchanges_free(service);
    streams_free(service);
}

bool service_accept(struct service *service, uv_stream_t *listener)
{
    return link_accept(service, listener);
}

bool pressure_slow(const struct service *service, struct pressure *pressure, bool holds,
                   uint64_t moved, uint64_t rate)
{
    uint64_t limit = service->limits.in_flight_size_max, now = uv_now(service->loop);
    uint64_t elapsed = now - pressure->since;
    bool watched = holds && atomic_load(&service->in_flight_size) >= limit / 4 * 3;
    if (watched && elapsed < PRESSURE_WINDOW_MS) return false;
    bool slow = watched && moved - pressure->moved < rate * elapsed / 1000;
    *pressure = (struct pressure){.since = now, .moved = moved};
    return slow;
}

void service_stop(struct service *service)
{
    service->stopping = true;
    waiters_wake(service, UINT64_MAX);
    for (struct link *link = service->links; link != NULL;) {
        struct link *next = link->next;
        link->protocol->stop(link);
        link_mark(link); /* settling ends those that have nothing to do */
        link = next;
    }
    service_turn(service);
}

void service_abort(struct service *service)
{
    while (service->links != NULL) link_close(service->links);
}

bool service_idle(const struct service *service)
{
    return service->connection_count == 0 && service->work_count == 0;
}
