/* server.c - the loop's life: listen, run, stop.
 *
 * (1) stop is asked for by a flag and an async wake, so that it may come from anywhere, before
 *     server_run too.
 * (2) After stop: listeners close, the service finishes what it has. At the end of the grace all
 *     connections are closed. The loop ends when no connection and no exchange is left, since an
 *     exchange that the api still works on is written to by it. */
#include "server/server.h"

#include "server/service.h"

#include <assert.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#define ADDRESS_MAX 16
#define BACKLOG 1024
#define TICK_MS 100

struct listener {
    uv_tcp_t tcp; /* first */
    struct server *server;
    char url[80];
    bool open;
    bool starved; /* a connection waits until there is memory for it */
};

struct server {
    struct service service; /* large: holds the read buffer */
    uv_loop_t loop;
    struct listener listeners[ADDRESS_MAX];
    size_t listener_count;
    uv_timer_t tick;
    uv_signal_t signals[2];
    uv_async_t stop_wake;
    struct server_options options;
    uint64_t stop_until;
    uint64_t connections_cut;
    bool stopping, ended, loop_ready, handles_ready, service_ready;
    _Atomic bool stop_asked, running, ready;
};

static void say(struct server *server, const char *format, ...) DEED_PRINTF(2, 3);
static void say(struct server *server, const char *format, ...)
{
    if (server->options.log == NULL) return;
    char line[512];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    server->options.log(server->options.context, line);
}

static void defaults(struct server_options *o)
{
    if (o->connection_count_max == 0) o->connection_count_max = 4096;
    if (o->pipeline_count_max == 0) o->pipeline_count_max = 64;
    if (o->call_count_max == 0) o->call_count_max = 1000;
    if (o->keepalive_timeout_ms == 0) o->keepalive_timeout_ms = 10000;
    if (o->pool_thread_max == 0) o->pool_thread_max = 16;
    if (o->patient_thread_max == 0) o->patient_thread_max = 128;
    if (o->head_size_max == 0) o->head_size_max = (size_t)16 << 10;
    if (o->body_size_max == 0) o->body_size_max = (size_t)33 << 20;
    if (o->write_size_max == 0) o->write_size_max = (size_t)1 << 20;
    if (o->in_flight_size_max == 0) o->in_flight_size_max = (uint64_t)256 << 20;
    if (o->header_timeout_ms == 0) o->header_timeout_ms = 10000;
    if (o->idle_timeout_ms == 0) o->idle_timeout_ms = 60000;
    if (o->write_timeout_ms == 0) o->write_timeout_ms = 60000;
    if (o->shutdown_grace_ms == 0) o->shutdown_grace_ms = 10000;
}

/* ---- listening ----------------------------------------------------------------------------- */

static deed_status uv_fail(struct deed_error *err, int result, const char *what)
{
    deed_status status = result == UV_EADDRINUSE                                ? DEED_LOCKED
                         : result == UV_ENOMEM                                  ? DEED_NO_MEMORY
                         : result == UV_EADDRNOTAVAIL || result == UV_EAI_NONAME ||
                                 result == UV_EACCES || result == UV_EAI_FAMILY ||
                                 result == UV_EAI_NODATA || result == UV_EAI_AGAIN
                             ? DEED_INVALID
                             : DEED_IO;
    return deed_fail(err, status, "%s: %s", what, uv_strerror(result));
}

static void on_connection(uv_stream_t *stream, int status)
{
    struct listener *listener = (struct listener *)(void *)stream;
    if (status == 0) listener->starved = !service_accept(&listener->server->service, stream);
}

static void url_make(struct listener *listener)
{
    struct sockaddr_storage bound;
    int size = sizeof bound;
    char host[48] = "?";
    if (uv_tcp_getsockname(&listener->tcp, (struct sockaddr *)&bound, &size) != 0) return;
    if (bound.ss_family == AF_INET6) {
        const struct sockaddr_in6 *six = (const struct sockaddr_in6 *)(const void *)&bound;
        (void)uv_ip6_name(six, host, sizeof host);
        (void)snprintf(listener->url, sizeof listener->url, "http://[%s]:%u", host,
                       (unsigned)ntohs(six->sin6_port));
    } else {
        const struct sockaddr_in *four = (const struct sockaddr_in *)(const void *)&bound;
        (void)uv_ip4_name(four, host, sizeof host);
        (void)snprintf(listener->url, sizeof listener->url, "http://%s:%u", host,
                       (unsigned)ntohs(four->sin_port));
    }
}

static deed_status listener_open(struct server *server, const struct server_address *address,
                                 struct deed_error *err)
{
    char what[300], port[8];
    (void)snprintf(what, sizeof what, "listen on %.200s:%u", address->host, address->port);
    (void)snprintf(port, sizeof port, "%u", address->port);
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE};
    uv_getaddrinfo_t request;
    int result = uv_getaddrinfo(&server->loop, &request, NULL, address->host, port, &hints);
    if (result != 0) return uv_fail(err, result, what);

    struct listener *listener = &server->listeners[server->listener_count];
    listener->server = server;
    result = uv_tcp_init(&server->loop, &listener->tcp);
    if (result == 0) {
        listener->open = true;
        server->listener_count++;
        bool six = request.addrinfo->ai_family == AF_INET6;
        result = uv_tcp_bind(&listener->tcp, request.addrinfo->ai_addr, six ? UV_TCP_IPV6ONLY : 0);
    }
    if (result == 0) result = uv_listen((uv_stream_t *)&listener->tcp, BACKLOG, on_connection);
    uv_freeaddrinfo(request.addrinfo);
    if (result != 0) return uv_fail(err, result, what);
    url_make(listener);
    return DEED_OK;
}

static void listeners_close(struct server *server)
{
    for (size_t i = 0; i < server->listener_count; i++) {
        struct listener *listener = &server->listeners[i];
        if (!listener->open) continue;
        listener->open = false;
        uv_close((uv_handle_t *)&listener->tcp, NULL);
    }
}

/* ---- stopping ------------------------------------------------------------------------------ */

static const int end_signals[2] = {SIGTERM, SIGINT};

/* What follows a run, closing the log among it, may take its time, and another signal must not spoil
 * what began as a clean end: from here on it is ignored. No other thread takes signals (os/thread.h),
 * and this one does not while libuv hands them back. */
static void signals_end(struct server *server)
{
    bool ignores = server->stopping && !server->options.no_signals;
    sigset_t ours, before;
    (void)sigemptyset(&ours);
    for (size_t i = 0; i < 2; i++) (void)sigaddset(&ours, end_signals[i]);
    (void)pthread_sigmask(SIG_BLOCK, &ours, &before);
    for (size_t i = 0; i < 2; i++) {
        uv_close((uv_handle_t *)&server->signals[i], NULL);
        if (ignores) (void)signal(end_signals[i], SIG_IGN);
    }
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
}

/* Everything is finished: close what keeps the loop turning. */
static void server_end(struct server *server)
{
    if (server->ended) return;
    server->ended = true;
    service_close(&server->service);
    uv_close((uv_handle_t *)&server->tick, NULL);
    uv_close((uv_handle_t *)&server->stop_wake, NULL);
    signals_end(server);
}

static void stop_begin(struct server *server, const char *why)
{
    server->stopping = true;
    atomic_store(&server->ready, false);
    server->stop_until = uv_now(&server->loop) + server->options.shutdown_grace_ms;
    say(server, "%s: finishing %zu requests on %zu connections", why,
        server->service.work_count, server->service.connection_count);
    listeners_close(server);
    service_stop(&server->service);
}

static void on_signal(uv_signal_t *handle, int number)
{
    struct server *server = handle->data;
    const char *name = number == SIGINT ? "SIGINT" : "SIGTERM";
    if (server->ended) return;
    if (!server->stopping) {
        stop_begin(server, name);
    } else {
        say(server, "%s again: closing connections now", name);
        server->stop_until = 0;
    }
}

static void on_stop_wake(uv_async_t *async)
{
    struct server *server = async->data;
    if (atomic_load(&server->stop_asked) && !server->stopping) stop_begin(server, "stop");
}

static void starved_accept(struct server *server)
{
    for (size_t i = 0; i < server->listener_count; i++) {
        struct listener *listener = &server->listeners[i];
        if (!listener->open || !listener->starved) continue;
        listener->starved = !service_accept(&server->service, (uv_stream_t *)&listener->tcp);
    }
}

static void on_tick(uv_timer_t *timer)
{
    struct server *server = timer->data;
    service_tick(&server->service);
    starved_accept(server);
    if (!server->stopping) return;
    if (uv_now(&server->loop) >= server->stop_until && server->service.connection_count > 0) {
        server->connections_cut += server->service.connection_count;
        say(server, "closing %zu connections that did not finish in time",
            server->service.connection_count);
        service_abort(&server->service);
    }
    if (service_idle(&server->service)) server_end(server);
}

/* ---- life ---------------------------------------------------------------------------------- */

static deed_status handles_init(struct server *server, struct deed_error *err)
{
    int result = uv_loop_init(&server->loop);
    if (result != 0) return uv_fail(err, result, "event loop");
    server->loop_ready = true;
    server->service.loop = &server->loop;
    result = uv_async_init(&server->loop, &server->stop_wake, on_stop_wake);
    if (result != 0) return uv_fail(err, result, "event loop");
    server->stop_wake.data = server;
    (void)uv_timer_init(&server->loop, &server->tick);
    server->tick.data = server;
    for (size_t i = 0; i < 2; i++) {
        (void)uv_signal_init(&server->loop, &server->signals[i]);
        server->signals[i].data = server;
    }
    server->handles_ready = true;
    deed_status status = service_init(&server->service, err);
    server->service_ready = status == DEED_OK;
    return status;
}

static void service_setup(struct server *server)
{
    const struct server_options *o = &server->options;
    server->service.limits =
        (struct service_limits){.connection_count_max = o->connection_count_max,
                                .pipeline_count_max = o->pipeline_count_max,
                                .call_count_max = o->call_count_max,
                                .keepalive_interval_ms = o->keepalive_interval_ms,
                                .keepalive_timeout_ms = o->keepalive_timeout_ms,
                                .head_size_max = o->head_size_max,
                                .body_size_max = o->body_size_max,
                                .write_size_max = o->write_size_max,
                                .in_flight_size_max = o->in_flight_size_max,
                                .header_timeout_ms = o->header_timeout_ms,
                                .idle_timeout_ms = o->idle_timeout_ms,
                                .write_timeout_ms = o->write_timeout_ms,
                                .body_rate_min = o->body_rate_min};
}

/* From here on, not from server_run: who reads "serving on" may send SIGTERM at once, and that is
 * to be a clean end. A signal that comes early waits for the loop. */
static deed_status signals_start(struct server *server, struct deed_error *err)
{
    if (server->options.no_signals) return DEED_OK;
    for (size_t i = 0; i < 2; i++) {
        int result = uv_signal_start(&server->signals[i], on_signal, end_signals[i]);
        if (result != 0) return uv_fail(err, result, "signals");
    }
    return DEED_OK;
}

/* One for each processor besides the loop's, up to a few: past that the loop is the limit. */
#define HELPERS_MAX 4

static deed_status helpers_create(struct server *server, struct deed_error *err)
{
    unsigned processors = uv_available_parallelism();
    struct service *service = &server->service;
    if (processors < 2) return DEED_OK;
    service->helper_count = processors - 1 < HELPERS_MAX ? processors - 1 : HELPERS_MAX;
    return pool_create(service->helper_count, &service->helpers, err);
}

deed_status server_create(const struct server_options *options, struct server **out_server,
                          struct deed_error *err)
{
    static const struct server_address usual = {"127.0.0.1", 2113};
    struct server *server = calloc(1, sizeof *server);
    if (server == NULL) return deed_fail(err, DEED_NO_MEMORY, "server: out of memory");
    server->options = *options;
    defaults(&server->options);
    service_setup(server);

    const struct server_address *addresses = options->addresses;
    size_t count = options->address_count;
    if (count == 0) {
        addresses = &usual;
        count = 1;
    }
    deed_status status = handles_init(server, err);
    if (status == DEED_OK) status = signals_start(server, err);
    if (status == DEED_OK && count > ADDRESS_MAX) {
        status = deed_fail(err, DEED_INVALID, "listen: %zu addresses, limit %d", count,
                           ADDRESS_MAX);
    }
    if (status == DEED_OK) status = traffic_create(&server->service.traffic, err);
    if (status == DEED_OK) {
        status = pool_create(server->options.pool_thread_max, &server->service.pool, err);
    }
    if (status == DEED_OK) {
        status = pool_create(server->options.patient_thread_max, &server->service.patient_pool,
                             err);
    }
    if (status == DEED_OK) status = helpers_create(server, err);
    for (size_t i = 0; i < count && status == DEED_OK; i++) {
        status = listener_open(server, &addresses[i], err);
    }
    if (status != DEED_OK) {
        server_destroy(server);
        return status;
    }
    *out_server = server;
    return DEED_OK;
}

void server_destroy(struct server *server)
{
    if (server == NULL) return;
    assert(!atomic_load(&server->running));
    pool_destroy(server->service.helpers); /* these may submit to the next */
    pool_destroy(server->service.patient_pool);
    pool_destroy(server->service.pool);
    listeners_close(server);
    if (server->service_ready && !server->ended) {
        server_end(server);
    } else if (server->handles_ready && !server->ended) {
        uv_close((uv_handle_t *)&server->stop_wake, NULL);
        uv_close((uv_handle_t *)&server->tick, NULL);
        signals_end(server);
    }
    if (server->loop_ready) {
        (void)uv_run(&server->loop, UV_RUN_DEFAULT);
        int result = uv_loop_close(&server->loop);
        assert(result == 0);
        (void)result;
    }
    service_done(&server->service);
    traffic_destroy(server->service.traffic);
    free(server);
}

const char *server_url(const struct server *server, size_t index)
{
    return index < server->listener_count ? server->listeners[index].url : NULL;
}

deed_status server_run(struct server *server, struct api *api, struct deed_error *err)
{
    assert(!server->ended);
    server->service.api = api;
    (void)signal(SIGPIPE, SIG_IGN); /* a client that goes is an error of its write, not our end */
    int result = uv_timer_start(&server->tick, on_tick, TICK_MS, TICK_MS);
    if (result != 0) return uv_fail(err, result, "event loop");
    atomic_store(&server->running, true);
    atomic_store(&server->ready, true);
    service_enter(&server->service);
    if (atomic_load(&server->stop_asked)) stop_begin(server, "stop");
    (void)uv_run(&server->loop, UV_RUN_DEFAULT);
    atomic_store(&server->running, false);
    assert(server->ended);
    return DEED_OK;
}

void server_stop(struct server *server)
{
    atomic_store(&server->stop_asked, true);
    (void)uv_async_send(&server->stop_wake);
}

void server_log_grew(struct server *server)
{
    service_log_grew(&server->service);
}

void server_metrics(void *context, struct buf *out)
{
    struct server *server = context;
    traffic_render(server->service.traffic, out);
}

bool server_ready(void *context)
{
    struct server *server = context;
    return atomic_load(&server->ready);
}

void server_get_report(const struct server *server, struct server_report *out_report)
{
    struct traffic *traffic = server->service.traffic;
    *out_report =
        (struct server_report){.connections = traffic_get(traffic, TRAFFIC_CONNECTIONS_ACCEPTED),
                               .requests = traffic_get(traffic, TRAFFIC_REQUESTS),
                               .connections_cut = server->connections_cut};
}
