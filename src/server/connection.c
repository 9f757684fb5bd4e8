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
 * (9) The first bytes tell the protocol: while they are the beginning of HTTP/2's preface nothing is
 *     read from them, and once it is whole the link is connection2.c's. */
#include "server/connection.h"

#include "base/text.h"
#include "http1/http1.h"
#include "http2/http2.h"
#include "server/connection2.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

/* Exchanges kept for the next requests, with their small memory. */
#define FREE_EXCHANGES_MAX 1024
#define ARENA_KEPT_MAX ((size_t)64 << 10)

/* What one pull of a stream is asked for. */
#define PULL_SIZE ((size_t)256 << 10)

/* (4): as many as a few threads can use; each answer may be a page of eight megabytes. */
#define RUN_AHEAD_MAX 4

/* (6): who holds more than this must move so many bytes a second. */
#define PRESSURE_CHARGED_MIN ((size_t)256 << 10)
#define PRESSURE_RATE ((uint64_t)64 << 10)

struct exchange {
    struct api_exchange api; /* first: the api hands it back as this */
    struct http1_request request;
    struct arena arena;
    struct service *service;
    struct connection *connection; /* NULL: gone (3) */
    struct exchange *next;         /* in the connection's order; in the free list */
    struct node node;
    struct waiter waiter;
    struct pool_task task;
    struct buf chunk; /* what a pull made */
    enum api_pull pulled;
    uint64_t started_ns;  /* when the request was whole */
    uint64_t growths;     /* of the log, when the pull began */
    size_t charged;
    size_t body_sent;
    enum api_where where;
    bool whole, started, running, answered, head_written; /* in this order */
    bool pulling, source_ended;
    bool until_close; /* framed by the connection's end */
    bool wants_continue, close_after, safe;
};

struct connection {
    struct link link; /* first */
    struct http1 codec;
    struct exchange *first, *last; /* (1) */
    struct exchange *reading;      /* == last, or NULL */
    struct exchange *to_start;     /* the first one that is not started, or NULL */
    size_t exchange_count, running_count;
    struct buf held;   /* read, and not parsed: the pipeline is full, or it may be a preface (9) */
    uint64_t head_since, idle_since; /* uv_now */
    uint64_t body_since, body_size;  /* of the window that the rate is watched in */
    uint64_t received;               /* bytes of bodies; ever */
    struct pressure pressure; /* (6) */
    bool known;   /* it is HTTP/1.1 (9) */
    bool served;  /* at least one request */
    bool no_more; /* what comes is not parsed any more: an error, or Connection: close */
    bool ending;  /* close when all is written */
};

static struct connection *connection_of(struct link *link)
{
    return (struct connection *)(void *)link;
}

static void connection_pump(struct connection *c);
static void connection_input(struct connection *c, deed_bytes in);

/* ---- exchanges ---------------------------------------------------------------------------- */

static void exchange_finish(struct api_exchange *api);
static void exchange_pull(struct pool_task *task);
static void exchange_run(struct pool_task *task);
static void on_finished(struct node *node);
static void on_woken(struct waiter *waiter);

/* Requests whose JSON needs more than this are refused by the api: usual JSON takes about twice its
 * text, the densest ("[1,1,1,…") eight to sixteen times. */
static size_t arena_size_max(const struct service *service)
{
    return service->limits.body_size_max * 4 + (4 << 20);
}

static struct exchange *exchange_take(struct connection *c)
{
    struct service *service = c->link.service;
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
    x->node.taken = on_finished;
    x->waiter.woken = on_woken;
    x->next = NULL;
    service->work_count++;
    return x;
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
    waiter_end(x->service, &x->waiter);
}

/* Not running, not pulling, not linked. */
static void exchange_release(struct exchange *x)
{
    struct service *service = x->service;
    assert(!x->running && !x->pulling);
    wait_end(x);
    source_close(x);
    assert(service->in_flight_size >= x->charged && service->work_count > 0);
    service->in_flight_size -= x->charged;
    service->work_count--;
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

static void finished_push(struct exchange *x)
{
    node_push(x->service, &x->node);
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
    assert(!x->pulling && !x->waiter.waits && !x->source_ended);
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

static struct exchange *exchange_waiting(struct waiter *waiter)
{
    return (struct exchange *)(void *)((char *)waiter - offsetof(struct exchange, waiter));
}

/* The log has grown, or the time has come, or everything ends. */
static void on_woken(struct waiter *waiter)
{
    struct exchange *x = exchange_waiting(waiter);
    if (x->service->stopping) {
        x->source_ended = true;
        link_mark(&x->connection->link);
    } else {
        pull_start(x);
    }
}

/* A stream has nothing now. */
static void wait_begin(struct exchange *x)
{
    struct service *service = x->service;
    uint64_t wait_ms = x->api.response.source->wait_ms;
    x->waiter.until = uv_now(service->loop) + (wait_ms == 0 ? 1000 : wait_ms);
    if (!waiter_begin(service, &x->waiter, x->growths)) pull_start(x);
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
            told = told || str_equal_fold(response->headers[i].name, "retry-after");
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
    return unsent < c->link.service->limits.write_size_max;
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
    struct service *service = c->link.service;
    if (service->recent != &c->link) {
        service->recent = &c->link;
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
                                          .peer = deed_str_of(c->link.peer),
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
    c->body_since = uv_now(c->link.service->loop);
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
    struct service *service = c->link.service;
    link_mark(&c->link);
    while (!c->no_more) {
        if (c->reading == NULL) {
            if (in.len == 0) break;
            if (c->exchange_count >= service->limits.pipeline_count_max) {
                buf_add(&c->held, in.ptr, in.len);
                if (!buf_ok(&c->held)) link_close(&c->link);
                link_read(&c->link, false);
                return;
            }
            struct exchange *x = exchange_take(c);
            if (x == NULL) {
                link_close(&c->link); /* no memory even to say so */
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
    if (c->held.len == 0 || !c->known || c->link.closing) return;
    if (c->exchange_count >= c->link.service->limits.pipeline_count_max) return;
    struct buf held = c->held;
    buf_init(&c->held, held.size_max);
    connection_input(c, buf_bytes(&held));
    buf_done(&held);
    if (c->held.len == 0 && !c->link.eof) link_read(&c->link, true);
}

static void on_eof(struct link *link)
{
    struct connection *c = connection_of(link);
    exchange_drop_reading(c);
    c->no_more = true;
    for (struct exchange *x = c->first; x != NULL; x = x->next) {
        if (!x->waiter.waits) continue; /* nobody listens to a stream whose reader has gone */
        wait_end(x);
        x->source_ended = true;
    }
    link_mark(link);
}

/* (9) */
static void on_input(struct link *link, deed_bytes in)
{
    struct connection *c = connection_of(link);
    if (c->no_more) return;
    if (c->known) {
        connection_input(c, in);
        return;
    }
    size_t size = HTTP2_PREFACE_SIZE - c->held.len;
    if (size > in.len) size = in.len;
    if (memcmp(in.ptr, &HTTP2_PREFACE[c->held.len], size) == 0) {
        buf_add(&c->held, in.ptr, size);
        if (!buf_ok(&c->held)) link_close(link);
        if (c->held.len < HTTP2_PREFACE_SIZE) return;
        buf_done(&c->held);
        connection2_begin(link, (deed_bytes){in.ptr + size, in.len - size});
        return;
    }
    c->known = true;
    struct buf held = c->held;
    buf_init(&c->held, held.size_max);
    if (held.len > 0) connection_input(c, buf_bytes(&held));
    buf_done(&held);
    if (!c->no_more && !link->closing) connection_input(c, in);
}

/* ---- writing ------------------------------------------------------------------------------- */

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
    if (x->until_close || (c->link.service->stopping && x->next == NULL && c->held.len == 0)) {
        x->close_after = true;
    }
    if (x->close_after) c->no_more = true;
    struct http1_response head = {
        .status = response->status,
        .headers = headers,
        .header_count = response->header_count,
        .framing = !streams ? HTTP1_LENGTH : x->until_close ? HTTP1_UNTIL_CLOSE : HTTP1_CHUNKED,
        .content_length = response->body.len,
        .date = deed_str_of(c->link.service->date),
        .close = x->close_after,
        .version_minor = x->request.version_minor,
    };
    http1_write_head(&c->link.out, &head);
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
        buf_add(&c->link.out, x->chunk.ptr, x->chunk.len);
    } else {
        http1_write_chunk(&c->link.out, buf_bytes(&x->chunk));
    }
    buf_reset(&x->chunk);
    return PUMPED_LATER;
}

static enum pumped pump_source(struct connection *c, struct exchange *x)
{
    if (x->pulling || x->waiter.waits) return PUMPED_LATER;
    if (x->chunk.len > 0 && pump_pulled(c, x) == PUMPED_BROKEN) return PUMPED_BROKEN;
    if (x->source_ended) {
        if (!x->until_close) http1_write_end(&c->link.out);
        source_close(x);
        return PUMPED_WHOLE;
    }
    if (x->pulled == API_FAILED) return PUMPED_BROKEN;
    if (c->link.out.len < c->link.service->limits.write_size_max) pull_start(x);
    return PUMPED_LATER;
}

/* The answer of the first exchange, as far as `out` has room. */
static enum pumped pump_exchange(struct connection *c, struct exchange *x)
{
    if (!x->head_written) write_head(c, x);
    if (x->api.response.source != NULL) return pump_source(c, x);

    const struct buf *body = &x->api.response.body;
    size_t room = c->link.out.len < c->link.service->limits.write_size_max
                      ? c->link.service->limits.write_size_max - c->link.out.len
                      : 0;
    size_t size = body->len - x->body_sent;
    if (size > room) size = room;
    buf_add(&c->link.out, body->ptr + x->body_sent, size);
    x->body_sent += size;
    return x->body_sent == body->len ? PUMPED_WHOLE : PUMPED_LATER;
}

static void exchange_complete(struct connection *c, struct exchange *x)
{
    assert(c->first == x);
    const char *route = x->api.route == NULL ? traffic_refused : api_route_name(x->api.route);
    traffic_request(c->link.service->traffic, route, x->request.method, x->api.response.status,
                    uv_hrtime() - x->started_ns);
    c->first = x->next;
    if (c->last == x) c->last = NULL;
    c->exchange_count--;
    c->idle_since = uv_now(c->link.service->loop);
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
    while (!c->link.closing && !c->ending && c->first != NULL &&
           c->link.out.len < c->link.service->limits.write_size_max) {
        struct exchange *x = c->first;
        if (!x->answered) {
            if (x->wants_continue) http1_write_continue(&c->link.out);
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
    if (!buf_ok(&c->link.out)) link_close(&c->link);
}

/* ---- a turn of the loop --------------------------------------------------------------------- */

static void on_pulled(struct exchange *x)
{
    struct connection *c = x->connection;
    x->pulling = false;
    if (x->pulled == API_END) x->source_ended = true;
    if (x->pulled == API_WAIT && (x->service->stopping || c->link.eof)) x->source_ended = true;
    if (x->pulled == API_WAIT && !x->source_ended) {
        if (x->chunk.len > 0) {
            if (pump_pulled(c, x) == PUMPED_BROKEN) {
                link_close(&c->link);
                return;
            }
        }
        wait_begin(x);
    }
    link_mark(&c->link);
}

static void on_finished(struct node *node)
{
    struct exchange *x = (struct exchange *)(void *)((char *)node - offsetof(struct exchange, node));
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
    link_mark(&c->link);
    connection_start(c);
}

static void on_settle(struct link *link)
{
    struct connection *c = connection_of(link);
    connection_pump(c);
    link_flush(&c->link);
    if (c->link.closing) return;
    if (!c->ending) connection_resume(c);
    /* A short write may have made room in `out`, and so may have the flush above. */
    if (c->first != NULL && c->first->answered && !c->link.writing && !c->ending &&
        c->link.out.len == 0 && !c->first->pulling && !c->first->waiter.waits) {
        link_mark(&c->link);
    }
    bool empty = c->first == NULL && !c->link.writing && c->link.out.len == 0;
    bool over = c->ending || c->link.eof || (c->link.service->stopping && c->held.len == 0);
    if (!empty || !over) return;
    c->no_more = true;
    link_end(link);
}

/* ---- connections come and go ---------------------------------------------------------------- */

static void on_closing(struct link *link)
{
    struct connection *c = connection_of(link);
    while (c->first != NULL) {
        struct exchange *x = c->first;
        c->first = x->next;
        exchange_orphan(x);
    }
    c->last = c->reading = c->to_start = NULL;
}

static void on_closed(struct link *link)
{
    struct connection *c = connection_of(link);
    http1_done(&c->codec);
    buf_done(&c->held);
    free(c);
}

/* ---- time ----------------------------------------------------------------------------------- */

static void refuse_slow(struct connection *c, const char *what)
{
    struct deed_error err = {0};
    (void)deed_fail(&err, DEED_TIMEOUT, "%s", what);
    traffic_add(c->link.service->traffic, TRAFFIC_TIMEOUTS, 1);
    exchange_refuse(c->reading, 408, &err);
    link_mark(&c->link);
}

/* The body must have got on by the rate in each window of the header timeout's length. */
static void check_body_rate(struct connection *c, uint64_t now)
{
    const struct service_limits *limits = &c->link.service->limits;
    if (!c->link.reads || c->reading->wants_continue) { /* it is us who wait */
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

/* (6) */
static void check_pressure(struct connection *c)
{
    size_t left = uv_stream_get_write_queue_size((uv_stream_t *)&c->link.tcp);
    uint64_t moved = c->link.enqueued - left + c->received;
    bool takes = c->link.writing && c->first != NULL && c->first->charged >= PRESSURE_CHARGED_MIN;
    bool sends =
        c->link.reads && c->reading != NULL && c->reading->charged >= PRESSURE_CHARGED_MIN;
    if (!pressure_slow(c->link.service, &c->pressure, takes || sends, moved, PRESSURE_RATE)) return;
    if (takes) {
        traffic_add(c->link.service->traffic, TRAFFIC_TIMEOUTS, 1);
        link_close(&c->link);
    } else {
        refuse_slow(c, "the request's body arrives too slowly for a server short of room");
    }
}

static void on_tick(struct link *link, uint64_t now)
{
    struct connection *c = connection_of(link);
    const struct service_limits *limits = &c->link.service->limits;
    check_pressure(c);
    if (c->link.closing) return;
    if (c->reading != NULL && http1_in_body(&c->codec)) {
        check_body_rate(c, now);
    } else if (c->reading != NULL) {
        if (now - c->head_since >= limits->header_timeout_ms) {
            refuse_slow(c, "the request's head did not arrive in time");
        }
    } else if (c->first == NULL && !c->link.writing) {
        /* A fresh connection that says nothing has the time of a head. */
        uint64_t limit = c->served ? limits->idle_timeout_ms : limits->header_timeout_ms;
        if (now - c->idle_since >= limit) link_close(&c->link);
    }
}

static void on_stop(struct link *link)
{
    (void)link; /* settling ends what has nothing to do */
}

/* ---- life ----------------------------------------------------------------------------------- */

static const struct protocol http1_protocol = {
    .input = on_input,
    .eof = on_eof,
    .settle = on_settle,
    .tick = on_tick,
    .stop = on_stop,
    .closing = on_closing,
    .closed = on_closed,
};

struct link *connection_create(struct service *service)
{
    struct connection *c = calloc(1, sizeof *c);
    if (c == NULL) return NULL;
    c->link.service = service;
    c->link.protocol = &http1_protocol;
    http1_init(&c->codec, &(struct http1_limits){.head_size_max = service->limits.head_size_max,
                                                 .body_size_max = service->limits.body_size_max});
    buf_init(&c->held, SERVICE_READ_SIZE);
    c->head_since = c->idle_since = c->pressure.since = uv_now(service->loop);
    return &c->link;
}

void exchanges_free(struct service *service)
{
    while (service->free_exchanges != NULL) {
        struct exchange *x = service->free_exchanges;
        service->free_exchanges = x->next;
        exchange_free(x);
    }
    service->free_count = 0;
}
