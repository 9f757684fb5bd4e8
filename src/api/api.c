/* api.c - from an exchange to its route and into it.
 *
 * (1) api_route always finds a route: those of the table, or one of three that answer for what is
 *     not in it.
 * (2) A brief call's handler ends it before it returns, so api_try lets it end into nothing, looks
 *     what came of it, and only then finishes the exchange. */
#include "api/api.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "api/call.h"
#include "api/group_sessions.h"
#include "api/reply.h"
#include "base/uuid.h"

#define WAIT_TIMEOUT_MS_DEFAULT 10000
#define READ_LIMIT_DEFAULT      10000

/* A body larger than this takes long enough to parse (about 30 microseconds for 16 KiB) to keep the
 * other connections of the loop waiting. */
#define INLINE_BODY_SIZE_MAX ((size_t)64 << 10)

deed_status api_create(const struct api_parts *parts, struct api **out_api, struct deed_error *err)
{
    struct api *api = calloc(1, sizeof *api);
    if (api == NULL) return deed_fail(err, DEED_NO_MEMORY, "api: out of memory");
    assert(parts->store != NULL);
    api->parts = *parts;
    if (api->parts.wait_timeout_ms == 0) api->parts.wait_timeout_ms = WAIT_TIMEOUT_MS_DEFAULT;
    if (api->parts.read_limit_max == 0) api->parts.read_limit_max = READ_LIMIT_DEFAULT;

    struct deed_info info;
    store_info(parts->store, &info);
    api->log_id = info.log_id;
    uint8_t random[16];
    os_random(store_os(parts->store), random, sizeof random);
    api->instance = uuid_v4(random);
    api->epoch = info.epoch;
    api->source = cloudevent_source_of(info.log_id);
    char id[UUID_TEXT_SIZE + 1];
    uuid_format(info.log_id, id);
    memcpy(api->log_name, id, sizeof api->log_name - 1);
    (void)snprintf(api->log_header, sizeof api->log_header, "%s; epoch=%" PRIu64, id, info.epoch);
    if (parts->groups != NULL) {
        deed_status status =
            group_sessions_create(parts->groups, store_os(parts->store), parts->nudge,
                                  parts->context, &api->sessions, err);
        if (status != DEED_OK) {
            free(api);
            return status;
        }
    }
    *out_api = api;
    return DEED_OK;
}

void api_leave_groups(struct api *api)
{
    if (api == NULL) return;
    group_sessions_destroy(api->sessions);
    api->sessions = NULL;
}

void api_destroy(struct api *api)
{
    api_leave_groups(api);
    free(api);
}

/* ---- routing ------------------------------------------------------------------------------ */

/* Does the method name this route's? HEAD is GET without the body. */
static bool method_fits(deed_str method, const struct api_route *route)
{
    if (deed_str_equal(method, DEED_STR("HEAD"))) method = DEED_STR("GET");
    return deed_str_equal(method, deed_str_of(route->method));
}

static const struct api_route *route_find(const struct api_request *request)
{
    bool is_path = deed_str_equal(request->path, DEED_STR("*"));
    for (size_t i = 0; i < api_route_count; i++) {
        deed_str segments[ROUTE_SEGMENTS_MAX];
        if (!route_matches(api_routes[i].pattern, request->path, segments)) continue;
        if (method_fits(request->method, &api_routes[i])) return &api_routes[i];
        is_path = true;
    }
    if (!is_path) return &route_not_found;
    if (deed_str_equal(request->method, DEED_STR("OPTIONS"))) return &route_options;
    return &route_not_allowed;
}

bool api_is_care(deed_str method, deed_str path)
{
    for (size_t i = 0; i < api_route_count; i++) {
        const struct api_route *route = &api_routes[i];
        if (route->care && deed_str_equal(path, deed_str_of(route->pattern))) {
            return method_fits(method, route);
        }
    }
    return false;
}

enum api_where api_route(struct api *api, struct api_exchange *x)
{
    (void)api;
    x->route = route_find(&x->request);
    if (deed_str_equal(x->request.method, DEED_STR("HEAD"))) x->request.head = true;
    if (x->request.body.len > INLINE_BODY_SIZE_MAX) return API_POOL;
    return x->route->where;
}

const char *api_route_name(const struct api_route *route)
{
    return route == NULL || route->pattern == NULL ? "other" : route->pattern;
}

/* The call, ready for its handler; NULL: it has ended already. */
static struct call *call_begin(struct api *api, struct api_exchange *x)
{
    assert(x->route != NULL && x->finish != NULL);
    x->response.header_count = 0;
    x->response.source = NULL;
    struct call *c = call_create(api, x);
    if (c == NULL) {
        struct deed_error err;
        (void)deed_fail(&err, DEED_NO_MEMORY, "no memory left for the request");
        api_problem(x, deed_status_http(DEED_NO_MEMORY), &err);
        x->finish(x);
        return NULL;
    }
    bool reads = x->request.head || deed_str_equal(x->request.method, DEED_STR("GET")) ||
                 deed_str_equal(x->request.method, DEED_STR("OPTIONS"));
    if (c->status != DEED_OK || (!reads && call_from_elsewhere(c))) {
        call_fail(c);
        return NULL;
    }
    return c;
}

void api_run(struct api *api, struct api_exchange *x)
{
    struct call *c = call_begin(api, x);
    if (c != NULL) x->route->handle(c);
}

/* (2) */
static void finish_tried(struct api_exchange *x __attribute__((unused))) {}

bool api_try(struct api *api, struct api_exchange *x)
{
    void (*finish)(struct api_exchange *) = x->finish;
    assert(x->route->where == API_BRIEF);
    x->finish = finish_tried;
    struct call *c = call_begin(api, x);
    bool given_up = false;
    if (c != NULL) {
        c->brief = true;
        os_haste_begin(BRIEF_READ_SIZE);
        x->route->handle(c);
        bool refused = os_haste_end();
        given_up = refused || c->given_up;
    }
    x->finish = finish;
    if (!given_up) {
        finish(x);
        return true;
    }
    struct api_source *source = x->response.source;
    x->response.source = NULL;
    if (source != NULL) source->close(source);
    return false;
}

/* ---- what is not in the table ---------------------------------------------------------------- */

static void not_found(struct call *c)
{
    deed_str path = c->x->request.path;
    if (path.len > 200) path.len = 200;
    call_wrong(c, DEED_NOT_FOUND, "there is no %.*s here; /openapi.json has what there is",
               DEED_FMT(path));
    call_fail(c);
}

static deed_str allow_of(struct call *c)
{
    struct buf list;
    buf_init(&list, 256);
    routes_allow(c->x->request.path, &list);
    deed_str allow = arena_str(c->arena, buf_str(&list));
    buf_done(&list);
    return allow.ptr == NULL ? DEED_STR("") : allow;
}

static void not_allowed(struct call *c)
{
    deed_str allow = allow_of(c), method = c->x->request.method, path = c->x->request.path;
    if (method.len > 40) method.len = 40;
    if (path.len > 200) path.len = 200;
    call_wrong(c, DEED_MISUSE, "%.*s is not for %.*s; allowed: %.*s", DEED_FMT(method),
               DEED_FMT(path), DEED_FMT(allow));
    api_problem(c->x, 405, &c->err);
    call_put_header(c, "Allow", allow);
    c->x->finish(c->x);
}

static void options(struct call *c)
{
    call_put_header(c, "Allow", allow_of(c));
    (void)call_body(c);
    call_done(c, 204, NULL);
}

const struct api_route route_not_found = {.handle = not_found, .where = API_INLINE};
const struct api_route route_not_allowed = {.handle = not_allowed, .where = API_INLINE};
const struct api_route route_options = {.handle = options, .where = API_INLINE};
