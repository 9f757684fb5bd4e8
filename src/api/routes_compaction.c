/* routes_compaction.c - taking out of the log what is not wanted any more.
 *
 * It takes as long as rewriting the log does: a request asks for it and is answered with where it
 * stands; an actor of the store's does it. */
#include "api/reply.h"

static const char *state_name(enum deed_compaction_state state)
{
    switch (state) {
    case DEED_COMPACTION_IDLE: return "idle";
    case DEED_COMPACTION_RUNNING: return "running";
    case DEED_COMPACTION_DONE: return "done";
    case DEED_COMPACTION_FAILED: return "failed";
    }
    return "unknown";
}

static void compaction_answer(struct call *c, int http)
{
    struct deed_compaction compaction;
    struct json_writer w;
    store_compaction(c->api->parts.store, &compaction);
    json_writer_init(&w, call_body(c));
    json_object_begin(&w);
    json_member_text(&w, "state", deed_str_of(state_name(compaction.state)));
    json_member_text(&w, "kind", compaction.erase ? DEED_STR("erase") : DEED_STR("compact"));
    json_member_uint(&w, "segments", compaction.segments);
    json_member_uint(&w, "segments_done", compaction.segments_done);
    json_member_uint(&w, "rewritten", compaction.rewritten);
    json_member_uint(&w, "skipped", compaction.skipped);
    json_member_uint(&w, "events_removed", compaction.events_removed);
    json_member_uint(&w, "bytes_before", compaction.bytes_before);
    json_member_uint(&w, "bytes_after", compaction.bytes_after);
    bool failed = compaction.state == DEED_COMPACTION_FAILED;
    json_member_text(&w, "error", failed ? deed_str_of(compaction.error) : (deed_str){0});
    json_object_end(&w);
    buf_add_byte(&c->x->response.body, '\n');
    call_done(c, http, "application/json");
}

void compaction_get(struct call *c)
{
    compaction_answer(c, 200);
}

static void asked(struct call *c, deed_status status)
{
    if (status == DEED_OK) {
        compaction_answer(c, 202);
    } else {
        call_fail_with(c, status);
    }
}

void compaction_post(struct call *c)
{
    struct deed_compact_options options = {
        .compress_level = (int)call_number(c, "compress", 0, 19, 0),
        .active = call_flag(c, "active", false),
    };
    if (c->status != DEED_OK) {
        call_fail(c);
        return;
    }
    asked(c, store_compact(c->api->parts.store, &options, &c->err));
}

void stream_erase(struct call *c)
{
    struct call_origin origin = call_origin(c);
    if (c->status != DEED_OK) {
        call_fail(c);
        return;
    }
    asked(c, store_erase(c->api->parts.store, c->segments[0], origin.actor, &c->err));
}
