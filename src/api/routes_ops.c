/* routes_ops.c - for those who run it: the log at a glance, health, readiness. */
#include <inttypes.h>
#include <stdio.h>

#include "api/reply.h"
#include "base/text.h"
#include "base/timetext.h"
#include "base/uuid.h"

/* ---- GET / -------------------------------------------------------------------------------- */

static void put_routes(struct json_writer *w)
{
    json_key(w, DEED_STR("routes"));
    json_array_begin(w);
    for (size_t i = 0; i < api_route_count; i++) {
        char text[128];
        (void)snprintf(text, sizeof text, "%s %s", api_routes[i].method, api_routes[i].pattern);
        json_put_text(w, deed_str_of(text));
    }
    json_array_end(w);
}

static void put_index(struct json_writer *w, const struct deed_info *info, uint64_t horizon)
{
    char id[UUID_TEXT_SIZE + 1], time[TIME_TEXT_SIZE + 1];
    struct buf hash;
    buf_init(&hash, 64);
    hex_encode((deed_bytes){info->chain_hash, sizeof info->chain_hash}, &hash);
    uuid_format(info->log_id, id);
    time_format(info->recorded_at_ns, time);

    json_object_begin(w);
    json_member_text(w, "name", DEED_STR("deedbook"));
    json_member_text(w, "version", deed_str_of(deed_version()));
    json_member_text(w, "log_id", deed_str_of(id));
    json_member_uint(w, "epoch", info->epoch);
    json_member_uint(w, "position", info->position);
    json_member_text(w, "recorded_at", deed_str_of(time));
    json_member_text(w, "chain_hash", buf_str(&hash));
    json_member_uint(w, "streams", info->stream_count);
    json_member_uint(w, "segments", info->segment_count);
    json_member_uint(w, "log_size", info->log_size);
    if (horizon > 0) json_member_uint(w, "horizon", horizon);
    json_member_bool(w, "writable", info->writable);
    if (!info->writable) json_member_text(w, "stopped_because", deed_str_of(info->stopped_because));
    if (info->unsafe) json_member_bool(w, "unsafe", true);
    if (info->corrupt_first != DEED_NONE) {
        json_member_uint(w, "corrupt_first", info->corrupt_first);
        json_member_uint(w, "corrupt_last", info->corrupt_last);
    }
    if (info->backup_position > 0) {
        time_format(info->backup_made_at_ns, time);
        json_key(w, DEED_STR("backup"));
        json_object_begin(w);
        json_member_uint(w, "position", info->backup_position);
        json_member_text(w, "made_at", deed_str_of(time));
        json_object_end(w);
    }
    put_routes(w);
    json_object_end(w);
    buf_add_byte(w->out, '\n');
    buf_done(&hash);
}

/* Nothing in it comes from outside, so nothing needs escaping. */
static void put_page(struct buf *out, const struct deed_info *info)
{
    buf_printf(out,
               "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">"
               "<title>Deedbook</title></head>\n<body>\n<h1>Deedbook %s</h1>\n"
               "<p>%" PRIu64 " events in %" PRIu64 " streams, %" PRIu64
               " bytes on disk.</p>\n<ul>\n",
               deed_version(), info->position, info->stream_count, info->log_size);
    for (size_t i = 0; i < api_route_count; i++) {
        const struct api_route *route = &api_routes[i];
        bool plain = strcmp(route->method, "GET") == 0 && strchr(route->pattern, '{') == NULL;
        if (plain) {
            buf_printf(out, "<li><a href=\"%s\">%s %s</a>", route->pattern, route->method,
                       route->pattern);
        } else {
            buf_printf(out, "<li>%s %s", route->method, route->pattern);
        }
        buf_printf(out, " &mdash; %s</li>\n", route->summary);
    }
    buf_add_str(out, DEED_STR("</ul>\n</body></html>\n"));
}

void index_get(struct call *c)
{
    static const char *const types[] = {"application/json", "text/html"};
    size_t type = call_accept(c, types, sizeof types / sizeof types[0]);
    if (c->status != DEED_OK) {
        call_fail(c);
        return;
    }
    struct deed_info info;
    store_info(c->api->parts.store, &info);
    call_put_header(c, "Vary", DEED_STR("Accept"));
    if (type == 1) {
        put_page(call_body(c), &info);
        call_done(c, 200, "text/html; charset=utf-8");
        return;
    }
    struct json_writer w;
    uint64_t horizon = 0;
    if (store_horizon(c->api->parts.store, &horizon, NULL) != DEED_OK) horizon = 0;
    json_writer_init(&w, call_body(c));
    put_index(&w, &info, horizon);
    call_done(c, 200, "application/json");
}

/* ---- health and readiness ---------------------------------------------------------------------
 */

void healthz_get(struct call *c)
{
    buf_add_str(call_body(c), DEED_STR("{\"status\":\"ok\"}\n"));
    call_done(c, 200, "application/json");
}

void readyz_get(struct call *c)
{
    const struct api_parts *parts = &c->api->parts;
    struct deed_info info;
    store_info(parts->store, &info);
    bool stopping = parts->ready != NULL && !parts->ready(parts->context);
    bool ready = info.writable && !stopping;

    struct json_writer w;
    json_writer_init(&w, call_body(c));
    json_object_begin(&w);
    json_member_bool(&w, "ready", ready);
    json_key(&w, DEED_STR("reasons"));
    json_array_begin(&w);
    if (!info.writable) {
        json_put_text(&w, info.stopped_because[0] == '\0' ? DEED_STR("the log is read only")
                                                          : deed_str_of(info.stopped_because));
    }
    if (stopping) json_put_text(&w, DEED_STR("the server is shutting down"));
    json_array_end(&w);
    json_object_end(&w);
    buf_add_byte(&c->x->response.body, '\n');
    if (!ready) call_put_header(c, "Retry-After", DEED_STR("1"));
    call_done(c, ready ? 200 : 503, "application/json");
}
