/* server_drive.c - the real server over an api made for tests, for tests/integration/server_wire.py.
 *
 *     server_drive [name=value …]      e.g. header_timeout_ms=300 body_size_max=1000
 *
 * Prints its URL on a line. Routes:
 *   GET  /hello            "hello"                    POST /echo            the body
 *   GET  /later?ms=N       from another thread        GET  /pool?ms=N       a pool thread that waits
 *   GET  /big?size=N&ms=M  one body of N bytes        GET  /stream?count=N&size=M   N pieces
 *   GET  /follow           a line a growth            POST /grow            the log grows
 *   GET  /glance           the same, where even ones are left to a pool thread
 *   GET  /brief?n=N        "brief", or from a pool thread for even N
 *   GET  /fail             a stream that breaks off   POST /slow?ms=N       /later for a POST
 *   GET  /count            how many /slow and /later have begun */
#include "server/server.h"

#include "http1/http1.h"
#include "base/text.h"

#include <assert.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

struct api_route {
    const char *pattern;
    enum api_where where;
    void (*handle)(struct api_exchange *x);
};
struct api {
    int nothing;
};

static struct server *the_server;
static _Atomic uint64_t growth, begun, sources_open;

static uint64_t parameter(const struct api_exchange *x, const char *name)
{
    deed_str query = x->request.query;
    size_t len = strlen(name);
    for (size_t i = 0; i + len < query.len; i++) {
        if (memcmp(query.ptr + i, name, len) != 0 || query.ptr[i + len] != '=') continue;
        return strtoull(query.ptr + i + len + 1, NULL, 10); /* a space or '&' ends it */
    }
    return 0;
}

static void answer(struct api_exchange *x, int status, deed_bytes body)
{
    x->response.status = status;
    x->response.headers[0] = (struct api_header){DEED_STR("Content-Type"), DEED_STR("text/plain")};
    x->response.header_count = 1;
    buf_add(&x->response.body, body.ptr, body.len);
    x->finish(x);
}

static void hello(struct api_exchange *x)
{
    answer(x, 200, deed_bytes_of(DEED_STR("hello")));
}

static void echo(struct api_exchange *x)
{
    answer(x, 200, x->request.body);
}

static void count(struct api_exchange *x)
{
    buf_printf(&x->response.body, "%llu %llu", (unsigned long long)atomic_load(&begun),
               (unsigned long long)atomic_load(&sources_open));
    answer(x, 200, (deed_bytes){0});
}

static void *later_thread(void *argument)
{
    struct api_exchange *x = argument;
    usleep((useconds_t)parameter(x, "ms") * 1000);
    answer(x, 200, x->request.body.len > 0 ? x->request.body : deed_bytes_of(x->request.query));
    return NULL;
}

static void later(struct api_exchange *x)
{
    pthread_t thread;
    atomic_fetch_add(&begun, 1);
    int result = pthread_create(&thread, NULL, later_thread, x);
    assert(result == 0);
    pthread_detach(thread);
}

static void pool_route(struct api_exchange *x)
{
    usleep((useconds_t)parameter(x, "ms") * 1000);
    answer(x, 200, deed_bytes_of(DEED_STR("pool")));
}

/* The alphabet again and again, each time twice as much: byte by byte, a sanitizer would make what
 * the tests measure wait. */
static void body_fill(struct buf *body, uint64_t size)
{
    static const char alphabet[] = "abcdefghijklmnopqrstuvwxyz";
    uint8_t *at = buf_reserve(body, size);
    if (at == NULL) return; /* the server says so */
    size_t made = size < 26 ? size : 26;
    memcpy(at, alphabet, made);
    for (; made < size; made *= 2) memcpy(at + made, at, size - made < made ? size - made : made);
    body->len += size;
}

static void big(struct api_exchange *x)
{
    uint64_t size = parameter(x, "size");
    usleep((useconds_t)parameter(x, "ms") * 1000);
    body_fill(&x->response.body, size);
    answer(x, 200, (deed_bytes){0});
}

struct drive_source {
    struct api_source source;
    uint64_t count, size, seen;
    bool fails, follows, glances;
};

static enum api_pull source_pull(struct api_source *source, struct buf *out, size_t size_wanted)
{
    struct drive_source *s = (struct drive_source *)(void *)source;
    (void)size_wanted;
    if (s->follows) {
        uint64_t now = atomic_load(&growth);
        for (; s->seen < now; s->seen++) buf_printf(out, "%llu\n", (unsigned long long)s->seen + 1);
        return API_WAIT;
    }
    if (s->count == 0) return s->fails ? API_FAILED : API_END;
    s->count--;
    for (uint64_t i = 0; i < s->size; i++) buf_add_byte(out, (uint8_t)('a' + (s->seen + i) % 26));
    s->seen += s->size;
    return API_MORE;
}

static enum api_pull source_glance(struct api_source *source, struct buf *out, size_t size_wanted)
{
    struct drive_source *s = (struct drive_source *)(void *)source;
    uint64_t now = atomic_load(&growth);
    (void)size_wanted;
    if (now > s->seen && now % 2 == 0) return API_LATER;
    for (; s->seen < now; s->seen++) buf_printf(out, "%llu!\n", (unsigned long long)s->seen + 1);
    return API_WAIT;
}

static void source_close(struct api_source *source)
{
    atomic_fetch_sub(&sources_open, 1);
    free(source);
}

static void stream_with(struct api_exchange *x, struct drive_source s)
{
    struct drive_source *source = malloc(sizeof *source);
    assert(source != NULL);
    *source = s;
    source->source = (struct api_source){.pull = source_pull,
                                         .close = source_close,
                                         .wait_ms = 50,
                                         .glance = s.glances ? source_glance : NULL};
    atomic_fetch_add(&sources_open, 1);
    x->response.status = 200;
    x->response.source = &source->source;
    x->finish(x);
}

static void stream(struct api_exchange *x)
{
    stream_with(x, (struct drive_source){.count = parameter(x, "count"),
                                         .size = parameter(x, "size")});
}

static void fail(struct api_exchange *x)
{
    stream_with(x, (struct drive_source){.count = 1, .size = 10, .fails = true});
}

static void follow(struct api_exchange *x)
{
    stream_with(x, (struct drive_source){.follows = true, .seen = atomic_load(&growth)});
}

static void glance(struct api_exchange *x)
{
    stream_with(x, (struct drive_source){
                       .follows = true, .glances = true, .seen = atomic_load(&growth)});
}

static void brief(struct api_exchange *x)
{
    answer(x, 200, deed_bytes_of(DEED_STR("patient")));
}

static void grow(struct api_exchange *x)
{
    atomic_fetch_add(&growth, 1);
    server_log_grew(the_server);
    answer(x, 204, (deed_bytes){0});
}

static void missing(struct api_exchange *x)
{
    api_problem(x, 404, NULL);
    x->finish(x);
}

static const struct api_route routes[] = {
    {"/hello", API_INLINE, hello},   {"/echo", API_INLINE, echo},
    {"/later", API_INLINE, later},   {"/slow", API_INLINE, later},
    {"/pool", API_POOL, pool_route}, {"/big", API_POOL, big},
    {"/stream", API_POOL, stream},   {"/fail", API_INLINE, fail},
    {"/follow", API_INLINE, follow}, {"/grow", API_INLINE, grow},
    {"/count", API_INLINE, count},   {"/glance", API_INLINE, glance},
    {"/brief", API_BRIEF, brief},    {"/care", API_POOL, pool_route},
};
static const struct api_route route_missing = {"(none)", API_INLINE, missing};

enum api_where api_route(struct api *api, struct api_exchange *x)
{
    (void)api;
    x->route = &route_missing;
    for (size_t i = 0; i < sizeof routes / sizeof *routes; i++) {
        if (deed_str_equal(x->request.path, deed_str_of(routes[i].pattern))) x->route = &routes[i];
    }
    return x->route->where;
}

void api_run(struct api *api, struct api_exchange *x)
{
    (void)api;
    x->route->handle(x);
}

bool api_try(struct api *api, struct api_exchange *x)
{
    (void)api;
    if (parameter(x, "n") % 2 == 0) return false;
    answer(x, 200, deed_bytes_of(DEED_STR("brief")));
    return true;
}

bool api_is_care(deed_str method, deed_str path)
{
    return deed_str_equal(method, DEED_STR("GET")) && deed_str_equal(path, DEED_STR("/care"));
}

const char *api_route_name(const struct api_route *route)
{
    return route->pattern;
}

void api_problem(struct api_exchange *x, int status, const struct deed_error *err)
{
    x->response.status = status;
    buf_reset(&x->response.body);
    buf_printf(&x->response.body, "%s", err == NULL ? "" : err->message);
}

static void set(struct server_options *o, const char *name, uint64_t value)
{
#define FIELD(field, type) \
    if (strcmp(name, #field) == 0) o->field = (type)value
    FIELD(connection_count_max, uint32_t);
    FIELD(pipeline_count_max, uint32_t);
    FIELD(pool_thread_max, uint32_t);
    FIELD(head_size_max, size_t);
    FIELD(body_size_max, size_t);
    FIELD(write_size_max, size_t);
    FIELD(in_flight_size_max, uint64_t);
    FIELD(header_timeout_ms, uint32_t);
    FIELD(idle_timeout_ms, uint32_t);
    FIELD(write_timeout_ms, uint32_t);
    FIELD(shutdown_grace_ms, uint32_t);
    FIELD(body_rate_min, uint64_t);
#undef FIELD
}

static void log_line(void *context, const char *line)
{
    (void)context;
    fprintf(stderr, "%s\n", line);
}

int main(int argc, char **argv)
{
    struct server_address address = {"127.0.0.1", 0};
    struct server_options options = {.addresses = &address, .address_count = 1, .log = log_line};
    for (int i = 1; i < argc; i++) {
        char *sign = strchr(argv[i], '=');
        if (sign == NULL) return 2;
        *sign = '\0';
        set(&options, argv[i], strtoull(sign + 1, NULL, 10));
    }
    struct deed_error err = {0};
    struct api api = {0};
    if (server_create(&options, &the_server, &err) != DEED_OK) {
        fprintf(stderr, "%s\n", err.message);
        return 1;
    }
    printf("%s\n", server_url(the_server, 0));
    fflush(stdout);
    deed_status status = server_run(the_server, &api, &err);
    struct server_report report;
    server_get_report(the_server, &report);
    fprintf(stderr, "answered %llu, cut %llu, sources left %llu\n",
            (unsigned long long)report.requests, (unsigned long long)report.connections_cut,
            (unsigned long long)atomic_load(&sources_open));
    server_destroy(the_server);
    return status == DEED_OK && atomic_load(&sources_open) == 0 ? 0 : 1;
}
