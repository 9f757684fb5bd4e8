/* connection.c - bytes to requests to answers to bytes.
 *
 *     socket ─► codec ─► exchange ─► api_run ─┬─ on this thread ───────────┐
 *                           │      or api_try └─ on a pool thread          │
 *                        in order                       │ finish: from any thread
 *                           ▼                           ▼                  ▼
 *     socket ◄─ out ◄─ pump ◄──────────────── finished stack, one wake for many
 *
 * (1) A connection's exchanges are linked in the order of their requests, and answered in it.
 *     The last one may still be arriving (`reading`).
 * (2) Requests of a pipeline run side by side only where their order cannot be seen: all of them
 *     safe (GET, HEAD, OPTIONS), or all for the same route and run on this thread, where they
 *     reach the store's queue in the order of their bytes. Otherwise a request starts when all
 *     before it are answered.
 * (3) An exchange is `running` from api_run until its finish has been taken from the stack, and
 *     `pulling` while a pool thread is in its source. In these times it is not freed: a connection
 *     that goes leaves it behind, and it is freed when it comes back from the stack.
 * (4) `out` stops being filled at write_size_max, and no request starts on a pool thread while
 *     answers of that size wait behind it or RUN_AHEAD_MAX others run: a slow reader holds that
 *     many answers, however long its pipeline. Reading stops while pipeline_count_max exchanges
 *     are linked.
 * (5) in_flight_size is the sum of `charged` of all exchanges, and of the answers on the finished
 *     stack: whoever finishes an answer counts it, since a busy loop may take the stack much later.
 *     It is looked at when a head has come, for the request's body, and by a pool thread before it
 *     makes an answer: so it passes its limit by no more than an answer a thread.
 * (6) When three quarters of in_flight_size_max are taken, readers of large answers that take less
 *     than a rate are cut, and so are senders of large bodies: otherwise a few of them, each just
 *     fast enough not to time out, would cost everyone else a 503.
 * (7) A client that was the only one to ask for anything for ALONE_NS may hold the loop's thread for
 *     the time of a sync, if the store thinks that short: two switches of threads are a fifth of its
 *     append. Whoever comes meanwhile waits for that one sync, and ends it.
 * (8) Short reads are made on this thread, in haste, and given to a pool thread if that fails. Where
 *     several have come at once, helpers take a share of them, but never more than they are about to
 *     begin: with one processor for the sockets and one for the reads both are busy to the end.
 * (9) Work is done in callbacks of the loop, which end with service_turn: it takes the finished
 *     stack, pumps and flushes each connection once. So the answers of a pipeline leave in one
 *     write. */
#include "server/connection.h"

#include "base/timetext.h"
#include "http1/http1.h"
#include "os/failpoint.h"
#include "os/os.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

/* Exchanges kept for the next requests, with their small memory. */
#define FREE_EXCHANGES_MAX 1024
#define ARENA_KEPT_MAX ((size_t)64 << 10)
#define BUFFER_KEPT_MAX ((size_t)64 << 10)

/* What one pull of a stream is asked for. */
#define PULL_SIZE ((size_t)256 << 10)

/* After its last answer a connection is read for this long at most, and what comes is dropped: if
 * it were closed with bytes unread, the kernel would reset it and the client lose the answer. */
#define LINGER_MS 1000

#define RETRY_AFTER_SECONDS "1"

/* (4): as many as a few threads can use; each answer may be a page of eight megabytes. */
#define RUN_AHEAD_MAX 4

/* (7): longer than a busy client pauses. */
#define ALONE_NS UINT64_C(20000000)

/* (6): who holds more than this must move so many bytes a second, looked at every two. */
#define PRESSURE_CHARGED_MIN ((size_t)256 << 10)
#define PRESSURE_RATE ((uint64_t)64 << 10)
#define PRESSURE_WINDOW_MS 2000

struct exchange {
    struct api_exchange api; /* first: the api hands it back as this */
    struct http1_request request;
    struct arena arena;
    struct service *service;
    struct connection *connection; /* NULL: gone (3) */
    struct exchange *next;         /* in the connection's order; in the free list */
    struct exchange *next_finished;
    struct exchange *waiting_previous, *waiting_next;
    struct pool_task task;
    struct buf chunk; /* what a pull made */
    enum api_pull pulled;
    uint64_t started_ns;  /* when the request was whole */
    uint64_t wait_until;  /* uv_now */
    uint64_t growths;     /* of the log, when the pull began */
    size_t charged;
    size_t body_sent;
    enum api_where where;
    bool whole, started, running, answered, head_written; /* in this order */
    bool pulling, waiting, source_ended;
    bool until_close; /* framed by the connection's end */
    bool wants_continue, close_after, safe;
};

struct connection {
    uv_tcp_t tcp; /* first */
    struct service *service;
    struct connection *previous, *next, *next_unflushed;
    struct http1 codec;
    struct exchange *first, *last; /* (1) */
    struct exchange *reading;      /* == last, or NULL */
    struct exchange *to_start;     /* the first one that is not started, or NULL */
    size_t exchange_count, running_count;
    struct buf held;   /* read, and not parsed: the pipeline is full */
    struct buf out;    /* to be written next */
    struct buf sending; /* under uv_write */
    uv_write_t write;
    uv_shutdown_t shutdown;
    uint64_t head_since, idle_since; /* uv_now */
    uint64_t body_since, body_size;  /* of the window that the rate is watched in */
    uint64_t write_since;
    size_t write_left;
    uint64_t linger_since;
    uint64_t enqueued, received;             /* bytes given to the socket, of bodies; ever */
    uint64_t pressure_since, pressure_moved; /* (6): the window, and what was moved before it */
    char peer[64];
    bool reads, writing, unflushed;
    bool served;    /* at least one request */
    bool no_more;   /* what comes is not parsed any more: an error, or Connection: close */
    bool eof;       /* the client has ended its side */
    bool ending;    /* close when all is written */
    bool lingering, closing;
};

static void service_turn(struct service *service);
static void connection_pump(struct connection *c);
static void connection_input(struct connection *c, deed_bytes in);
static void connection_close(struct connection *c);

/* ---- exchanges ---------------------------------------------------------------------------- */

static void exchange_finish(struct api_exchange *api);
static void exchange_pull(struct pool_task *task);
static void exchange_run(struct pool_task *task);

/* Requests whose JSON needs more than this are refused by the api: usual JSON takes about twice its
 * text, the densest ("[1,1,1,…") eight to sixteen times. */
static size_t arena_size_max(const struct service *service)
{
    return service->limits.body_size_max * 4 + (4 << 20);
}

static struct exchange *exchange_take(struct connection *c)
{
    struct service *service = c->service;
    struct exchange *x = service->free_exchanges;
    if (x != NULL) {
        service->free_exchanges = x->next;
        service->free_count--;
    } else {
        x = calloc(1, sizeof *x);
        if (x == NULL) return NULL;
        arena_init(&x->arena, arena_size_max(service));
        http1_request_init(&x->request, &x->arena, service->limits.body_size_max);
        buf_init(&x->chunk, SIZE_MAX / 4);
        buf_init(&x->api.response.body, SIZE_MAX / 4);
    }
    x->service = service;
    x->connection = c;
    x->next = NULL;
    service->exchange_count++;
    return x;
}

static void buffer_shrink(struct buf *buf)
{
    if (buf->room > BUFFER_KEPT_MAX) buf_done(buf);
    buf_reset(buf);
}

static void exchange_free(struct exchange *x)
{
    http1_request_done(&x->request);
    arena_done(&x->arena);
    buf_done(&x->chunk);
    buf_done(&x->api.response.body);
    free(x);
}

static void source_close(struct exchange *x)
{
    struct api_source *source = x->api.response.source;
    if (source == NULL) return;
    x->api.response.source = NULL;
    source->close(source);
}

static void wait_end(struct exchange *x)
{
    if (!x->waiting) return;
    struct service *service = x->service;
    x->waiting = false;
    if (x->waiting_previous == NULL) {
        service->waiting = x->waiting_next;
    } else {
        x->waiting_previous->waiting_next = x->waiting_next;
    }
    if (x->waiting_next != NULL) x->waiting_next->waiting_previous = x->waiting_previous;
    atomic_fetch_sub(&service->waiting_count, 1);
}

/* Not running, not pulling, not linked. */
static void exchange_release(struct exchange *x)
{
    struct service *service = x->service;
    assert(!x->running && !x->pulling);
    wait_end(x);
    source_close(x);
    assert(service->in_flight_size >= x->charged && service->exchange_count > 0);
    service->in_flight_size -= x->charged;
    service->exchange_count--;
    if (service->free_count >= FREE_EXCHANGES_MAX) {
        exchange_free(x);
        return;
    }
    struct exchange kept = {.request = x->request, .arena = x->arena, .chunk = x->chunk};
    kept.api.response.body = x->api.response.body;
    http1_request_reset(&kept.request);
    if (kept.arena.total > ARENA_KEPT_MAX) arena_done(&kept.arena);
    arena_reset(&kept.arena);
    buffer_shrink(&kept.chunk);
    buffer_shrink(&kept.api.response.body);
    *x = kept;
    x->request.arena = &x->arena;
    x->next = service->free_exchanges;
    service->free_exchanges = x;
    service->free_count++;
}

static void exchange_charge(struct exchange *x, size_t size)
{
    x->service->in_flight_size += size;
    x->charged += size;
}

/* The connection is gone: free it now or when it comes back (3). */
static void exchange_orphan(struct exchange *x)
{
    x->connection = NULL;
    wait_end(x);
    if (!x->running && !x->pulling) exchange_release(x);
}

/* On to the finished stack, from any thread. The loop's own thread takes the stack before it
 * waits again (9). For others the async wakes it, if it waits or is about to: `awake` is cleared
 * before the stack is looked at a last time, and read after something was put on it. */
static _Thread_local bool on_loop_thread;

static void loop_wake(struct service *service)
{
    if (!on_loop_thread && !atomic_load(&service->awake)) (void)uv_async_send(&service->async);
}

/* Once an exchange is on the stack the loop may be done with everything, and end, before this thread
 * has looked whether to wake it: `finishing` keeps the service until it has. */
static void finished_push(struct exchange *x)
{
    struct service *service = x->service;
    if (!on_loop_thread) atomic_fetch_add(&service->finishing, 1);
    struct exchange *newest = atomic_load_explicit(&service->finished, memory_order_relaxed);
    do {
        x->next_finished = newest;
    } while (!atomic_compare_exchange_weak_explicit(&service->finished, &newest, x,
                                                    memory_order_seq_cst, memory_order_relaxed));
    if (newest == NULL) loop_wake(service);
    if (!on_loop_thread) atomic_fetch_sub(&service->finishing, 1);
}

/* (5) */
static void exchange_finish(struct api_exchange *api)
{
    struct exchange *x = (struct exchange *)(void *)api;
    x->service->in_flight_size += api->response.body.len;
    finished_push(x);
}

static struct exchange *exchange_of(struct pool_task *task)
{
    return (struct exchange *)(void *)((char *)task - offsetof(struct exchange, task));
}

static bool is_care(const struct exchange *x)
{
    return api_is_care(x->request.method, x->request.path);
}

/* (5) */
static void exchange_run(struct pool_task *task)
{
    struct exchange *x = exchange_of(task);
    struct service *service = x->service;
    uint64_t size = atomic_load(&service->in_flight_size);
    if (size <= service->limits.in_flight_size_max || is_care(x)) {
        api_run(service->api, &x->api);
        return;
    }
    struct deed_error err = {0};
    (void)deed_fail(&err, DEED_BUSY, "%llu bytes are in flight, limit %llu",
                    (unsigned long long)size,
                    (unsigned long long)service->limits.in_flight_size_max);
    traffic_add(service->traffic, TRAFFIC_OVERLOADS, 1);
    api_problem(&x->api, 503, &err);
    exchange_finish(&x->api);
}

static void exchange_pull(struct pool_task *task)
{
    struct exchange *x = exchange_of(task);
    x->pulled = x->api.response.source->pull(x->api.response.source, &x->chunk, PULL_SIZE);
    finished_push(x);
}

static void pull_start(struct exchange *x)
{
    struct api_source *source = x->api.response.source;
    assert(!x->pulling && !x->waiting && !x->source_ended);
    x->pulling = true;
    x->growths = atomic_load(&x->service->growths);
    buf_reset(&x->chunk);
    x->pulled =
        source->glance == NULL ? API_LATER : source->glance(source, &x->chunk, PULL_SIZE);
    if (x->pulled != API_LATER) {
        finished_push(x);
        return;
    }
    x->task.run = exchange_pull;
    pool_submit(x->service->pool, &x->task);
}

/* A stream has nothing now. Counted as waiting before looking whether the log grew since the pull
 * began, while service_log_grew counts the growth before it looks for waiting ones: one of the two
 * sees the other. */
static void wait_begin(struct exchange *x)
{
    struct service *service = x->service;
    uint64_t wait_ms = x->api.response.source->wait_ms;
    x->waiting = true;
    x->wait_until = uv_now(service->loop) + (wait_ms == 0 ? 1000 : wait_ms);
    x->waiting_previous = NULL;
    x->waiting_next = service->waiting;
    if (service->waiting != NULL) service->waiting->waiting_previous = x;
    service->waiting = x;
    atomic_fetch_add(&service->waiting_count, 1);
    if (atomic_load(&service->growths) != x->growths) {
        wait_end(x);
        pull_start(x);
    }
}

/* ---- answers of the server's own ----------------------------------------------------------- */

static void finish_nothing(struct api_exchange *api __attribute__((unused))) {}

/* Answer with a problem instead of running it; the connection ends after it. */
static void exchange_refuse(struct exchange *x, int status, const struct deed_error *err)
{
    struct connection *c = x->connection;
    x->api.arena = &x->arena;
    x->api.finish = finish_nothing;
    buf_reset(&x->api.response.body);
    x->api.response.header_count = 0;
    api_problem(&x->api, status, err);
    struct api_response *response = &x->api.response;
    if (status == 503 && response->header_count < API_RESPONSE_HEADERS_MAX) {
        bool told = false;
        for (size_t i = 0; i < response->header_count; i++) {
            told = told || http1_name_equal(response->headers[i].name, "retry-after");
        }
        if (!told) {
            response->headers[response->header_count++] = (struct api_header){
                DEED_STR("Retry-After"), DEED_STR(RETRY_AFTER_SECONDS)};
        }
    }
    if (x->started_ns == 0) x->started_ns = uv_hrtime();
    x->whole = x->started = x->answered = x->close_after = true;
    if (c->to_start == x) c->to_start = NULL;
    if (c->reading == x) c->reading = NULL;
    c->no_more = true;
    buf_reset(&c->held);
}

/* ---- starting requests --------------------------------------------------------------------- */

static bool method_safe(deed_str method)
{
    return deed_str_equal(method, DEED_STR("GET")) || deed_str_equal(method, DEED_STR("HEAD")) ||
           deed_str_equal(method, DEED_STR("OPTIONS"));
}

/* (4) */
static bool has_room_ahead(const struct connection *c, const struct exchange *x)
{
    size_t unsent = 0;
    if (c->running_count >= RUN_AHEAD_MAX) return false;
    for (const struct exchange *other = c->first; other != x; other = other->next) {
        if (other->answered) unsent += other->api.response.body.len - other->body_sent;
    }
    return unsent < c->service->limits.write_size_max;
}

/* (2) */
static bool may_start(const struct connection *c, const struct exchange *x)
{
    if (x->where != API_INLINE && !has_room_ahead(c, x)) return false;
    if (c->running_count == 0) return true;
    for (const struct exchange *other = c->first; other != x; other = other->next) {
        if (other->answered) continue;
        bool both_safe = other->safe && x->safe;
        bool both_inline = other->where == API_INLINE && x->where == API_INLINE &&
                           other->api.route == x->api.route;
        if (!both_safe && !both_inline) return false;
    }
    return true;
}

/* (8), on a helper. */
static void exchange_help(struct pool_task *task)
{
    struct exchange *x = exchange_of(task);
    struct service *service = x->service;
    bool done = api_try(service->api, &x->api); /* then it may be another request's */
    if (!done) {
        x->task.run = exchange_run;
        pool_submit(service->pool, &x->task);
    }
    atomic_fetch_sub(&service->helping, 1);
}

/* (8): false: it is left to a pool thread. */
static bool exchange_try(struct exchange *x)
{
    struct service *service = x->service;
    if (atomic_load(&service->in_flight_size) > service->limits.in_flight_size_max) return false;
    bool alone = service->tried++ == 0 || service->helpers == NULL;
    if (alone || atomic_load(&service->helping) >= 2 * service->helper_count) {
        return api_try(service->api, &x->api);
    }
    atomic_fetch_add(&service->helping, 1);
    x->task.run = exchange_help;
    pool_submit(service->helpers, &x->task);
    return true;
}

static void exchange_start(struct exchange *x)
{
    struct connection *c = x->connection;
    struct service *service = x->service;
    x->started = x->running = true;
    c->running_count++;
    if (x->where == API_INLINE) {
        api_run(service->api, &x->api);
        return;
    }
    if (x->where == API_BRIEF && exchange_try(x)) return;
    x->task.run = exchange_run;
    pool_submit(x->where == API_PATIENT ? service->patient_pool : service->pool, &x->task);
}

static void connection_start(struct connection *c)
{
    while (c->to_start != NULL) {
        struct exchange *x = c->to_start;
        if (!x->started) { /* one that was refused has begun and ended */
            if (!x->whole || !may_start(c, x)) return;
            exchange_start(x);
        }
        c->to_start = x->next;
    }
}

/* (7): is this the only request that anybody waits for? */
static bool is_alone(const struct exchange *x, bool more)
{
    const struct connection *c = x->connection;
    struct service *service = c->service;
    if (service->recent != c) {
        service->recent = c;
        service->recent_since = x->started_ns;
    }
    return !more && c->first == x && x->started_ns - service->recent_since > ALONE_NS;
}

/* The request is whole: hand it to the api, as soon as the order allows. `more`: bytes of others
 * have come behind it. */
static void exchange_ready(struct exchange *x, bool more)
{
    struct connection *c = x->connection;
    const struct http1_request *r = &x->request;
    struct api_header *headers = arena_alloc_array(&x->arena, r->header_count, sizeof *headers);
    c->reading = NULL;
    if (headers == NULL) {
        struct deed_error err = {0};
        (void)deed_fail(&err, DEED_NO_MEMORY, "out of memory");
        exchange_refuse(x, 503, &err);
        return;
    }
    for (size_t i = 0; i < r->header_count; i++) {
        headers[i] = (struct api_header){r->headers[i].name, r->headers[i].value};
    }
    x->api.request = (struct api_request){.method = r->method,
                                          .path = r->path,
                                          .query = r->query,
                                          .headers = headers,
                                          .header_count = r->header_count,
                                          .body = buf_bytes(&r->body),
                                          .peer = deed_str_of(c->peer),
                                          .head = r->is_head};
    x->api.arena = &x->arena;
    x->api.finish = exchange_finish;
    x->safe = method_safe(r->method);
    x->started_ns = uv_hrtime();
    x->whole = true;
    x->api.alone = is_alone(x, more);
    x->where = api_route(x->service->api, &x->api);
    if (!r->keep_alive) {
        x->close_after = true;
        c->no_more = true;
        buf_reset(&c->held);
    }
    connection_start(c);
}

/* ---- reading ------------------------------------------------------------------------------- */

static void on_alloc(uv_handle_t *handle, size_t suggested __attribute__((unused)), uv_buf_t *out)
{
    struct connection *c = (struct connection *)(void *)handle;
    *out = uv_buf_init((char *)c->service->read_buffer, SERVICE_READ_SIZE);
}

static void on_read(uv_stream_t *stream, ssize_t size, const uv_buf_t *buf);

static void reading_set(struct connection *c, bool on)
{
    if (c->closing || c->reads == on) return;
    c->reads = on;
    if (on) {
        if (uv_read_start((uv_stream_t *)&c->tcp, on_alloc, on_read) != 0) c->reads = false;
    } else {
        (void)uv_read_stop((uv_stream_t *)&c->tcp);
    }
}

static void mark_unflushed(struct connection *c)
{
    if (c->unflushed || c->closing) return;
    c->unflushed = true;
    c->next_unflushed = c->service->unflushed;
    c->service->unflushed = c;
}

static void exchange_append(struct connection *c, struct exchange *x)
{
    if (c->last == NULL) {
        c->first = x;
    } else {
        c->last->next = x;
    }
    c->last = x;
    c->reading = x;
    if (c->to_start == NULL) c->to_start = x;
    c->exchange_count++;
}

/* The last one, which is still arriving, will never be whole. */
static void exchange_drop_reading(struct connection *c)
{
    struct exchange *x = c->reading;
    if (x == NULL) return;
    assert(x == c->last && !x->whole);
    struct exchange *previous = NULL;
    for (struct exchange *at = c->first; at != x; at = at->next) previous = at;
    if (previous == NULL) {
        c->first = NULL;
    } else {
        previous->next = NULL;
    }
    c->last = previous;
    if (c->to_start == x) c->to_start = NULL;
    c->reading = NULL;
    c->exchange_count--;
    exchange_release(x);
}

static void refuse_overload(struct exchange *x, uint64_t wanted)
{
    struct service *service = x->service;
    struct deed_error err = {0};
    (void)deed_fail(&err, DEED_BUSY,
                    "%llu bytes are in flight and this needs %llu more, limit %llu",
                    (unsigned long long)atomic_load(&service->in_flight_size),
                    (unsigned long long)wanted,
                    (unsigned long long)service->limits.in_flight_size_max);
    traffic_add(service->traffic, TRAFFIC_OVERLOADS, 1);
    exchange_refuse(x, 503, &err);
}

/* false: it was refused. */
static bool admit(struct exchange *x, uint64_t more)
{
    struct service *service = x->service;
    uint64_t limit = service->limits.in_flight_size_max;
    uint64_t size = atomic_load(&service->in_flight_size);
    if (size <= limit && more <= limit - size) return true;
    if (more == 0 && is_care(x)) return true;
    refuse_overload(x, more);
    return false;
}

/* The head is there: will the body be taken? */
static void on_head(struct exchange *x)
{
    struct connection *c = x->connection;
    const struct http1_request *r = &x->request;
    uint64_t length = r->content_length == DEED_NONE ? 0 : r->content_length;
    c->body_since = uv_now(c->service->loop);
    c->body_size = 0;
    if (!admit(x, length)) return;
    x->wants_continue = r->expects_continue;
}

/* One event of the codec. false: no more for now. */
static bool connection_event(struct connection *c, deed_bytes *in)
{
    struct exchange *x = c->reading;
    struct deed_error err = {0};
    size_t size_before = x->request.body.len;
    enum http1_event event = http1_read(&c->codec, &x->request, in, &err);
    size_t added = x->request.body.len - size_before;
    c->body_size += added;
    c->received += added;
    if (added > 0) {
        x->wants_continue = false; /* it did not wait */
        if (!admit(x, added)) return false;
        exchange_charge(x, added);
    }
    switch (event) {
    case HTTP1_MORE:
        return false;
    case HTTP1_HEAD:
        on_head(x);
        return !c->no_more;
    case HTTP1_REQUEST:
        exchange_ready(x, in->len > 0);
        return !c->no_more;
    case HTTP1_ERROR:
        exchange_refuse(x, c->codec.status, &err);
        return false;
    }
    return false;
}

/* Take bytes as far as the pipeline has room; the rest is held and reading stops (4). */
static void connection_input(struct connection *c, deed_bytes in)
{
    struct service *service = c->service;
    mark_unflushed(c);
    while (!c->no_more) {
        if (c->reading == NULL) {
            if (in.len == 0) break;
            if (c->exchange_count >= service->limits.pipeline_count_max) {
                buf_add(&c->held, in.ptr, in.len);
                if (!buf_ok(&c->held)) connection_close(c);
                reading_set(c, false);
                return;
            }
            struct exchange *x = exchange_take(c);
            if (x == NULL) {
                connection_close(c); /* no memory even to say so */
                return;
            }
            exchange_append(c, x);
            c->head_since = uv_now(service->loop);
        }
        if (!connection_event(c, &in)) break;
    }
    if (c->reading != NULL && http1_between_requests(&c->codec)) exchange_drop_reading(c);
}

/* There is room again. */
static void connection_resume(struct connection *c)
{
    if (c->held.len == 0 || c->closing) return;
    if (c->exchange_count >= c->service->limits.pipeline_count_max) return;
    struct buf held = c->held;
    buf_init(&c->held, held.size_max);
    connection_input(c, buf_bytes(&held));
    buf_done(&held);
    if (c->held.len == 0 && !c->eof) reading_set(c, true);
}

static void on_eof(struct connection *c)
{
    c->eof = true;
    reading_set(c, false);
    if (c->lingering) {
        connection_close(c);
        return;
    }
    exchange_drop_reading(c);
    c->no_more = true;
    for (struct exchange *x = c->first; x != NULL; x = x->next) {
        if (!x->waiting) continue; /* nobody listens to a stream whose reader has gone */
        wait_end(x);
        x->source_ended = true;
    }
    mark_unflushed(c);
}

static void on_read(uv_stream_t *stream, ssize_t size, const uv_buf_t *buf)
{
    struct connection *c = (struct connection *)(void *)stream;
    struct service *service = c->service;
    if (size == UV_EOF) {
        on_eof(c);
    } else if (size < 0) {
        connection_close(c);
    } else if (size > 0) {
        traffic_add(service->traffic, TRAFFIC_BYTES_READ, (uint64_t)size);
        if (!c->no_more) connection_input(c, (deed_bytes){(uint8_t *)buf->base, (size_t)size});
    }
    service_turn(service);
}

/* ---- writing ------------------------------------------------------------------------------- */

static void on_shutdown(uv_shutdown_t *request, int status)
{
    struct connection *c = request->data;
    if (status != 0 && !c->closing) connection_close(c);
    /* An abort may have closed it already; then the handle is freed by on_closed. */
}

/* All is written and the connection has nothing more to do. */
static void connection_end(struct connection *c)
{
    if (c->eof) {
        connection_close(c);
        return;
    }
    if (c->lingering) return;
    c->lingering = true;
    c->no_more = true;
    c->linger_since = uv_now(c->service->loop);
    c->shutdown.data = c;
    if (uv_shutdown(&c->shutdown, (uv_stream_t *)&c->tcp, on_shutdown) != 0) {
        connection_close(c);
        return;
    }
    reading_set(c, true);
}

static void on_written(uv_write_t *request, int status)
{
    struct connection *c = request->data;
    struct service *service = c->service;
    c->writing = false;
    if (c->closing) return;
    if (status != 0) {
        connection_close(c);
    } else {
        buffer_shrink(&c->sending);
        mark_unflushed(c);
    }
    service_turn(service);
}

/* Write what is there: at once as far as the kernel takes it, the rest later. */
static void connection_flush(struct connection *c)
{
    if (c->writing || c->closing || c->out.len == 0) return;
    traffic_add(c->service->traffic, TRAFFIC_BYTES_WRITTEN, c->out.len);
    c->enqueued += c->out.len;
    uv_buf_t buf = uv_buf_init((char *)c->out.ptr, (unsigned)c->out.len);
    FAILPOINT("answer-before");
    int written = uv_try_write((uv_stream_t *)&c->tcp, &buf, 1);
    if (written < 0 && written != UV_EAGAIN) {
        connection_close(c);
        return;
    }
    FAILPOINT("answer-after");
    size_t done = written < 0 ? 0 : (size_t)written;
    if (done == c->out.len) {
        buffer_shrink(&c->out);
        return;
    }
    struct buf swap = c->sending;
    c->sending = c->out;
    c->out = swap;
    buf = uv_buf_init((char *)c->sending.ptr + done, (unsigned)(c->sending.len - done));
    c->write.data = c;
    if (uv_write(&c->write, (uv_stream_t *)&c->tcp, &buf, 1, on_written) != 0) {
        connection_close(c);
        return;
    }
    c->writing = true;
    c->write_since = uv_now(c->service->loop);
    c->write_left = c->sending.len - done;
}

static void write_head(struct connection *c, struct exchange *x)
{
    struct api_response *response = &x->api.response;
    if (!buf_ok(&response->body)) { /* the answer did not fit into memory */
        struct deed_error err = {0};
        (void)deed_fail(&err, DEED_NO_MEMORY, "out of memory for the answer");
        source_close(x);
        exchange_refuse(x, 503, &err);
    }
    struct http1_header headers[API_RESPONSE_HEADERS_MAX];
    for (size_t i = 0; i < response->header_count; i++) {
        headers[i] = (struct http1_header){response->headers[i].name, response->headers[i].value};
    }
    bool streams = response->source != NULL;
    x->until_close = streams && x->request.version_minor == 0;
    if (x->until_close || (c->service->stopping && x->next == NULL && c->held.len == 0)) {
        x->close_after = true;
    }
    if (x->close_after) c->no_more = true;
    struct http1_response head = {
        .status = response->status,
        .headers = headers,
        .header_count = response->header_count,
        .framing = !streams ? HTTP1_LENGTH : x->until_close ? HTTP1_UNTIL_CLOSE : HTTP1_CHUNKED,
        .content_length = response->body.len,
        .date = deed_str_of(c->service->date),
        .close = x->close_after,
        .version_minor = x->request.version_minor,
    };
    http1_write_head(&c->out, &head);
    x->head_written = true;
    bool bodiless = x->request.is_head || response->status == 204 || response->status == 304;
    if (bodiless) {
        source_close(x);
        buf_reset(&response->body);
    }
}

enum pumped { PUMPED_WHOLE, PUMPED_LATER, PUMPED_BROKEN };

/* A pull has come back. */
static enum pumped pump_pulled(struct connection *c, struct exchange *x)
{
    if (!buf_ok(&x->chunk)) return PUMPED_BROKEN;
    if (x->until_close) {
        buf_add(&c->out, x->chunk.ptr, x->chunk.len);
    } else {
        http1_write_chunk(&c->out, buf_bytes(&x->chunk));
    }
    buf_reset(&x->chunk);
    return PUMPED_LATER;
}

static enum pumped pump_source(struct connection *c, struct exchange *x)
{
    if (x->pulling || x->waiting) return PUMPED_LATER;
    if (x->chunk.len > 0 && pump_pulled(c, x) == PUMPED_BROKEN) return PUMPED_BROKEN;
    if (x->source_ended) {
        if (!x->until_close) http1_write_end(&c->out);
        source_close(x);
        return PUMPED_WHOLE;
    }
    if (x->pulled == API_FAILED) return PUMPED_BROKEN;
    if (c->out.len < c->service->limits.write_size_max) pull_start(x);
    return PUMPED_LATER;
}

/* The answer of the first exchange, as far as `out` has room. */
static enum pumped pump_exchange(struct connection *c, struct exchange *x)
{
    if (!x->head_written) write_head(c, x);
    if (x->api.response.source != NULL) return pump_source(c, x);

    const struct buf *body = &x->api.response.body;
    size_t room = c->out.len < c->service->limits.write_size_max
                      ? c->service->limits.write_size_max - c->out.len
                      : 0;
    size_t size = body->len - x->body_sent;
    if (size > room) size = room;
    buf_add(&c->out, body->ptr + x->body_sent, size);
    x->body_sent += size;
    return x->body_sent == body->len ? PUMPED_WHOLE : PUMPED_LATER;
}

static void exchange_complete(struct connection *c, struct exchange *x)
{
    assert(c->first == x);
    const char *route = x->api.route == NULL ? "(refused)" : api_route_name(x->api.route);
    traffic_request(c->service->traffic, route, x->request.method, x->api.response.status,
                    uv_hrtime() - x->started_ns);
    c->first = x->next;
    if (c->last == x) c->last = NULL;
    c->exchange_count--;
    c->idle_since = uv_now(c->service->loop);
    c->served = true;
    bool last = x->close_after;
    exchange_release(x);
    if (last) {
        c->ending = true;
        while (c->first != NULL) { /* behind an answer that closes: never whole, or refused */
            struct exchange *rest = c->first;
            c->first = rest->next;
            if (rest->running) c->running_count--;
            c->exchange_count--;
            exchange_orphan(rest);
        }
        c->last = c->reading = c->to_start = NULL;
    } else {
        connection_start(c); /* one may have waited for this answer to be sent (4) */
    }
}

static void connection_pump(struct connection *c)
{
    while (!c->closing && !c->ending && c->first != NULL &&
           c->out.len < c->service->limits.write_size_max) {
        struct exchange *x = c->first;
        if (!x->answered) {
            if (x->wants_continue) http1_write_continue(&c->out);
            x->wants_continue = false;
            break;
        }
        enum pumped pumped = pump_exchange(c, x);
        if (pumped == PUMPED_LATER) break;
        if (pumped == PUMPED_BROKEN) {
            x->close_after = true;
            c->no_more = true;
        }
        exchange_complete(c, x);
    }
    if (!buf_ok(&c->out)) connection_close(c);
}

/* ---- a turn of the loop --------------------------------------------------------------------- */

static void on_pulled(struct exchange *x)
{
    struct connection *c = x->connection;
    x->pulling = false;
    if (x->pulled == API_END) x->source_ended = true;
    if (x->pulled == API_WAIT && (x->service->stopping || c->eof)) x->source_ended = true;
    if (x->pulled == API_WAIT && !x->source_ended) {
        if (x->chunk.len > 0) {
            if (pump_pulled(c, x) == PUMPED_BROKEN) {
                connection_close(c);
                return;
            }
        }
        wait_begin(x);
    }
    mark_unflushed(c);
}

static void on_finished(struct exchange *x)
{
    if (x->running) x->charged += x->api.response.body.len; /* the service's sum has it (5) */
    if (x->connection == NULL) { /* (3) */
        x->running = x->pulling = false;
        exchange_release(x);
        return;
    }
    if (x->pulling) {
        on_pulled(x);
        return;
    }
    struct connection *c = x->connection;
    assert(x->running && c->running_count > 0);
    x->running = false;
    x->answered = true;
    c->running_count--;
    mark_unflushed(c);
    connection_start(c);
}

static bool finished_take(struct service *service)
{
    struct exchange *newest = atomic_exchange(&service->finished, NULL);
    struct exchange *oldest = NULL;
    bool any = newest != NULL;
    while (newest != NULL) {
        struct exchange *next = newest->next_finished;
        newest->next_finished = oldest;
        oldest = newest;
        newest = next;
    }
    while (oldest != NULL) {
        struct exchange *next = oldest->next_finished;
        on_finished(oldest);
        oldest = next;
    }
    return any;
}

static void connection_settle(struct connection *c)
{
    if (c->closing) return;
    connection_pump(c);
    connection_flush(c);
    if (c->closing) return;
    if (!c->ending) connection_resume(c);
    /* A short write may have made room in `out`, and so may have the flush above. */
    if (c->first != NULL && c->first->answered && !c->writing && !c->ending &&
        c->out.len == 0 && !c->first->pulling && !c->first->waiting) {
        mark_unflushed(c);
    }
    bool empty = c->first == NULL && !c->writing && c->out.len == 0;
    bool over = c->ending || c->eof || (c->service->stopping && c->held.len == 0);
    if (empty && over) connection_end(c);
}

static void waiting_wake_all(struct service *service)
{
    struct exchange *x = service->waiting;
    while (x != NULL) {
        struct exchange *next = x->waiting_next;
        wait_end(x);
        if (service->stopping) {
            x->source_ended = true;
            mark_unflushed(x->connection);
        } else {
            pull_start(x);
        }
        x = next;
    }
}

/* (9) */
static void service_turn(struct service *service)
{
    if (service->draining) return;
    service->draining = true;
    bool more = true;
    while (more) {
        more = finished_take(service);
        uint64_t growths = atomic_load(&service->growths);
        if (growths != service->growths_seen) {
            service->growths_seen = growths;
            waiting_wake_all(service);
            more = true; /* a glance has put its answer on the stack: nobody wakes the loop for it */
        }
        struct connection *c = service->unflushed;
        service->unflushed = NULL;
        while (c != NULL) {
            struct connection *next = c->next_unflushed;
            c->unflushed = false;
            connection_settle(c);
            c = next;
            more = true;
        }
    }
    service->draining = false;
    traffic_set(service->traffic, TRAFFIC_REQUESTS_IN_FLIGHT, service->exchange_count);
    traffic_set(service->traffic, TRAFFIC_BYTES_IN_FLIGHT, service->in_flight_size);
}

static void on_async(uv_async_t *async)
{
    service_turn(async->data);
}

/* The loop is about to wait: from here on it must be woken. */
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

void service_log_grew(struct service *service)
{
    atomic_fetch_add(&service->growths, 1);
    if (atomic_load(&service->waiting_count) > 0) loop_wake(service);
}

/* ---- connections come and go ---------------------------------------------------------------- */

static void on_closed(uv_handle_t *handle)
{
    struct connection *c = (struct connection *)(void *)handle;
    http1_done(&c->codec);
    buf_done(&c->held);
    buf_done(&c->out);
    buf_done(&c->sending);
    free(c);
}

static void connection_close(struct connection *c)
{
    if (c->closing) return;
    struct service *service = c->service;
    c->closing = true;
    if (service->recent == c) service->recent = NULL;
    while (c->first != NULL) {
        struct exchange *x = c->first;
        c->first = x->next;
        exchange_orphan(x);
    }
    c->last = c->reading = c->to_start = NULL;
    if (c->previous == NULL) {
        service->connections = c->next;
    } else {
        c->previous->next = c->next;
    }
    if (c->next != NULL) c->next->previous = c->previous;
    service->connection_count--;
    traffic_set(service->traffic, TRAFFIC_CONNECTIONS, service->connection_count);
    if (c->unflushed) { /* it may not be in the list when its memory goes */
        struct connection **at = &service->unflushed;
        while (*at != NULL && *at != c) at = &(*at)->next_unflushed;
        if (*at == c) *at = c->next_unflushed;
    }
    uv_close((uv_handle_t *)&c->tcp, on_closed);
}

static void peer_name(struct connection *c)
{
    struct sockaddr_storage address;
    int size = sizeof address;
    char host[48] = "?";
    unsigned port = 0;
    if (uv_tcp_getpeername(&c->tcp, (struct sockaddr *)&address, &size) == 0) {
        if (address.ss_family == AF_INET6) {
            const struct sockaddr_in6 *six = (const struct sockaddr_in6 *)(const void *)&address;
            (void)uv_ip6_name(six, host, sizeof host);
            port = ntohs(six->sin6_port);
            (void)snprintf(c->peer, sizeof c->peer, "[%s]:%u", host, port);
            return;
        }
        const struct sockaddr_in *four = (const struct sockaddr_in *)(const void *)&address;
        (void)uv_ip4_name(four, host, sizeof host);
        port = ntohs(four->sin_port);
    }
    (void)snprintf(c->peer, sizeof c->peer, "%s:%u", host, port);
}

/* Over the limit: say so, if the kernel takes it at once, and close. */
static void refuse_connection(struct connection *c)
{
    static const char answer[] = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n"
                                 "Retry-After: " RETRY_AFTER_SECONDS "\r\n"
                                 "Connection: close\r\n\r\n";
    uv_buf_t buf = uv_buf_init((char *)(uintptr_t)answer, sizeof answer - 1);
    (void)uv_try_write((uv_stream_t *)&c->tcp, &buf, 1);
    traffic_add(c->service->traffic, TRAFFIC_CONNECTIONS_REFUSED, 1);
}

bool service_accept(struct service *service, uv_stream_t *listener)
{
    struct connection *c = calloc(1, sizeof *c);
    if (c == NULL) return false;
    if (uv_tcp_init(service->loop, &c->tcp) != 0) {
        free(c);
        return false;
    }
    c->service = service;
    http1_init(&c->codec, &(struct http1_limits){.head_size_max = service->limits.head_size_max,
                                                 .body_size_max = service->limits.body_size_max});
    buf_init(&c->held, SERVICE_READ_SIZE);
    buf_init(&c->out, SIZE_MAX / 4);
    buf_init(&c->sending, SIZE_MAX / 4);
    c->head_since = c->idle_since = c->pressure_since = uv_now(service->loop);
    c->next = service->connections;
    if (c->next != NULL) c->next->previous = c;
    service->connections = c;
    service->connection_count++;

    bool accepted = uv_accept(listener, (uv_stream_t *)&c->tcp) == 0;
    if (accepted) traffic_add(service->traffic, TRAFFIC_CONNECTIONS_ACCEPTED, 1);
    bool fits = service->connection_count <= service->limits.connection_count_max;
    if (accepted && !fits) refuse_connection(c);
    if (!accepted || !fits) {
        connection_close(c);
        return true;
    }
    (void)uv_tcp_nodelay(&c->tcp, 1);
    (void)uv_tcp_keepalive(&c->tcp, 1, 60);
    peer_name(c);
    traffic_set(service->traffic, TRAFFIC_CONNECTIONS, service->connection_count);
    reading_set(c, true);
    return true;
}

/* ---- time ----------------------------------------------------------------------------------- */

static void refuse_slow(struct connection *c, const char *what)
{
    struct deed_error err = {0};
    (void)deed_fail(&err, DEED_TIMEOUT, "%s", what);
    traffic_add(c->service->traffic, TRAFFIC_TIMEOUTS, 1);
    exchange_refuse(c->reading, 408, &err);
    mark_unflushed(c);
}

/* The body must have got on by the rate in each window of the header timeout's length. */
static void check_body_rate(struct connection *c, uint64_t now)
{
    const struct service_limits *limits = &c->service->limits;
    if (!c->reads || c->reading->wants_continue) { /* it is us who wait */
        c->body_since = now;
        return;
    }
    uint64_t elapsed = now - c->body_since;
    if (elapsed < limits->header_timeout_ms) return;
    if (c->body_size < limits->body_rate_min * elapsed / 1000) {
        refuse_slow(c, "the request's body arrives too slowly");
    }
    c->body_since = now;
    c->body_size = 0;
}

static void check_writer(struct connection *c, uint64_t now)
{
    size_t left = uv_stream_get_write_queue_size((uv_stream_t *)&c->tcp);
    if (left != c->write_left) {
        c->write_left = left;
        c->write_since = now;
    } else if (now - c->write_since >= c->service->limits.write_timeout_ms) {
        traffic_add(c->service->traffic, TRAFFIC_TIMEOUTS, 1);
        connection_close(c);
    }
}

/* (6) */
static void check_pressure(struct connection *c, uint64_t now)
{
    const struct service *service = c->service;
    uint64_t limit = service->limits.in_flight_size_max;
    size_t left = uv_stream_get_write_queue_size((uv_stream_t *)&c->tcp);
    uint64_t moved = c->enqueued - left + c->received;
    bool takes = c->writing && c->first != NULL && c->first->charged >= PRESSURE_CHARGED_MIN;
    bool sends =
        c->reads && c->reading != NULL && c->reading->charged >= PRESSURE_CHARGED_MIN;
    if ((!takes && !sends) || atomic_load(&service->in_flight_size) < limit / 4 * 3) {
        c->pressure_since = now;
        c->pressure_moved = moved;
        return;
    }
    uint64_t elapsed = now - c->pressure_since;
    if (elapsed < PRESSURE_WINDOW_MS) return;
    if (moved - c->pressure_moved < PRESSURE_RATE * elapsed / 1000) {
        if (takes) {
            traffic_add(service->traffic, TRAFFIC_TIMEOUTS, 1);
            connection_close(c);
        } else {
            refuse_slow(c, "the request's body arrives too slowly for a server short of room");
        }
    }
    c->pressure_since = now;
    c->pressure_moved = moved;
}

static void connection_tick(struct connection *c, uint64_t now)
{
    const struct service_limits *limits = &c->service->limits;
    if (c->lingering) {
        if (now - c->linger_since >= LINGER_MS) connection_close(c);
        return;
    }
    if (c->writing) check_writer(c, now);
    if (!c->closing) check_pressure(c, now);
    if (c->closing) return;
    if (c->reading != NULL && http1_in_body(&c->codec)) {
        check_body_rate(c, now);
    } else if (c->reading != NULL) {
        if (now - c->head_since >= limits->header_timeout_ms) {
            refuse_slow(c, "the request's head did not arrive in time");
        }
    } else if (c->first == NULL && !c->writing) {
        /* A fresh connection that says nothing has the time of a head. */
        uint64_t limit = c->served ? limits->idle_timeout_ms : limits->header_timeout_ms;
        if (now - c->idle_since >= limit) connection_close(c);
    }
}

static void date_update(struct service *service)
{
    http1_date(os_now_ns(os_real()) / 1000000000, service->date);
}

void service_tick(struct service *service)
{
    uint64_t now = uv_now(service->loop);
    date_update(service);
    for (struct connection *c = service->connections; c != NULL;) {
        struct connection *next = c->next;
        connection_tick(c, now);
        c = next;
    }
    for (struct exchange *x = service->waiting; x != NULL;) {
        struct exchange *next = x->waiting_next;
        if (now >= x->wait_until) {
            wait_end(x);
            pull_start(x);
        }
        x = next;
    }
    traffic_set(service->traffic, TRAFFIC_STREAMS_WAITING, atomic_load(&service->waiting_count));
    traffic_set(service->traffic, TRAFFIC_POOL_QUEUE,
                pool_queue_count(service->pool) + pool_queue_count(service->patient_pool));
    service_turn(service);
}

/* ---- the service ---------------------------------------------------------------------------- */

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
    while (atomic_load(&service->finishing) > 0) uv_sleep(1); /* some instructions more */
    on_loop_thread = false;
    uv_close((uv_handle_t *)&service->async, NULL);
    uv_close((uv_handle_t *)&service->prepare, NULL);
    uv_close((uv_handle_t *)&service->check, NULL);
}

void service_done(struct service *service)
{
    while (service->free_exchanges != NULL) {
        struct exchange *x = service->free_exchanges;
        service->free_exchanges = x->next;
        exchange_free(x);
    }
    service->free_count = 0;
}

void service_stop(struct service *service)
{
    service->stopping = true;
    waiting_wake_all(service);
    for (struct connection *c = service->connections; c != NULL;) {
        struct connection *next = c->next;
        mark_unflushed(c); /* settling ends those that have nothing to do */
        c = next;
    }
    service_turn(service);
}

void service_abort(struct service *service)
{
    while (service->connections != NULL) connection_close(service->connections);
}

bool service_idle(const struct service *service)
{
    return service->connection_count == 0 && service->exchange_count == 0;
}
