/* routes_queries.c - named queries over the read models. */
#include <inttypes.h>
#include <stdatomic.h>

#include "api/reply.h"
#include "query/queries.h"

/* A client may wait so long, not longer: a pool thread waits with it. */
#define WAIT_MS_MAX 300000

static void put_texts(struct json_writer *w, const char *key, const deed_str *texts, size_t count)
{
    json_key(w, deed_str_of(key));
    json_array_begin(w);
    for (size_t i = 0; i < count; i++)
        json_put_text(w, texts[i]);
    json_array_end(w);
}

void queries_list_get(struct call *c)
{
    struct query_description *list = NULL;
    size_t count = 0;
    deed_status status = DEED_OK;
    if (c->api->parts.queries != NULL) {
        status = queries_list(c->api->parts.queries, c->arena, &list, &count, &c->err);
    }
    if (status != DEED_OK) {
        call_fail_with(c, status);
        return;
    }
    struct json_writer w;
    json_writer_init(&w, call_body(c));
    json_array_begin(&w);
    for (size_t i = 0; i < count; i++) {
        json_object_begin(&w);
        json_member_text(&w, "name", list[i].name);
        json_member_text(&w, "comment",
                         list[i].comment.ptr == NULL ? DEED_STR("") : list[i].comment);
        put_texts(&w, "parameters", list[i].parameters, list[i].parameter_count);
        put_texts(&w, "projections", list[i].projections, list[i].projection_count);
        json_object_end(&w);
    }
    json_array_end(&w);
    buf_add_byte(&c->x->response.body, '\n');
    call_done(c, 200, "application/json");
}

/* ---- GET /queries/{name} ----------------------------------------------------------------------
 */

/* The parameters that are the route's own do not reach the query. */
static bool is_own(const struct call *c, deed_str name)
{
    for (const struct route_parameter *p = c->route->parameters; p->name != NULL; p++) {
        if (p->in == IN_QUERY && deed_str_equal(name, deed_str_of(p->name))) return true;
    }
    return false;
}

static void query_parameters(struct call *c, struct deed_query_options *options)
{
    struct deed_parameter *parameters =
        arena_alloc_array(c->arena, c->value_count, sizeof *parameters);
    if (parameters == NULL) {
        call_wrong(c, DEED_NO_MEMORY, "no memory left for the parameters");
        return;
    }
    size_t count = 0;
    for (size_t i = 0; i < c->value_count; i++) {
        if (is_own(c, c->values[i].name)) continue;
        parameters[count++] =
            (struct deed_parameter){.name = c->values[i].name, .value = c->values[i].value};
    }
    options->parameters = parameters;
    options->parameter_count = count;
}

/* position= or at=, as a position. DEED_NONE: now. */
static uint64_t as_of(struct call *c)
{
    bool has_time = false;
    uint64_t position = call_position(c, "position", DEED_NONE);
    int64_t time_ns = call_time(c, "at", &has_time);
    if (position != DEED_NONE && has_time) {
        call_wrong(c, DEED_INVALID, "parameters position and at exclude each other");
    }
    if (has_time && c->status == DEED_OK) {
        c->status = store_position_at(c->api->parts.store, time_ns, &position, &c->err);
    }
    if (position == 0) { /* the query's own zero means "now" */
        call_wrong(c, DEED_NOT_FOUND, "nothing was stored then: positions begin at 1");
    }
    return position;
}

/* Some threads are left to queries that need not wait: one more that may is told to come again. */
static deed_status run(struct call *c, const struct deed_query_options *options, struct buf *out,
                       uint64_t *out_position)
{
    struct api *api = c->api;
    uint32_t most = api->parts.wait_count_max;
    bool counted = options->after != 0 && most != 0;
    deed_status status = DEED_OK;
    if (counted && atomic_fetch_add(&api->waiting, 1) >= most) {
        status = deed_fail(&c->err, DEED_BUSY, "%u queries with after= wait already, limit %u", most,
                           most);
    }
    if (status == DEED_OK) {
        status = queries_run(api->parts.queries, c->segments[0], options, out, out_position, &c->err);
    }
    if (counted) atomic_fetch_sub(&api->waiting, 1);
    return status;
}

void query_get(struct call *c)
{
    uint32_t wait_ms = c->api->parts.wait_timeout_ms;
    struct deed_query_options options = {
        .after = call_position(c, "after", 0),
        .timeout_ms = call_duration_ms(c, "timeout", WAIT_MS_MAX, wait_ms),
    };
    /* The query's own zero means "the default". */
    if (options.timeout_ms == 0) options.timeout_ms = 1;
    uint64_t position = as_of(c);
    options.position = position == DEED_NONE ? 0 : position;
    if (options.after != 0 && options.position != 0) {
        call_wrong(c, DEED_INVALID, "parameter after waits for now; it excludes position and at");
    }
    query_parameters(c, &options);
    if (c->api->parts.queries == NULL) {
        call_wrong(c, DEED_NOT_FOUND, "query %.*s: this server has no queries",
                   DEED_FMT(c->segments[0]));
    }
    if (c->status != DEED_OK) {
        call_fail(c);
        return;
    }
    uint64_t answered = 0;
    struct buf *out = call_body(c);
    deed_status status = run(c, &options, out, &answered);
    if (status != DEED_OK) {
        call_fail_with(c, status);
        return;
    }
    buf_add_byte(out, '\n');
    call_put_header(c, "Deedbook-Log", deed_str_of(c->api->log_header));
    call_put_position(c, answered);
    call_done(c, 200, "application/json");
}
