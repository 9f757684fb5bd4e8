/* routes_projections.c - the read models: where they are, and what is done to them. */
#include "api/reply.h"
#include "projection/projections.h"

static const char *state_name(enum projection_state state)
{
    switch (state) {
    case PROJECTION_RUNNING:
        return "running";
    case PROJECTION_PAUSED:
        return "paused";
    case PROJECTION_FAILED:
        return "failed";
    }
    return "unknown";
}

static void put_texts(struct json_writer *w, const char *key, const deed_str *texts, size_t count)
{
    json_key(w, deed_str_of(key));
    json_array_begin(w);
    for (size_t i = 0; i < count; i++) json_put_text(w, texts[i]);
    json_array_end(w);
}

static void put_double(struct json_writer *w, const char *key, double value)
{
    json_key(w, deed_str_of(key));
    json_put_double(w, value); /* NaN: null */
}

static void put_failure(struct json_writer *w, const struct projection_status *p)
{
    json_key(w, DEED_STR("error"));
    if (p->state != PROJECTION_FAILED) {
        json_put_null(w);
        return;
    }
    json_object_begin(w);
    json_member_text(w, "message", p->error);
    json_member_text(w, "statement", p->error_statement);
    json_key(w, DEED_STR("position"));
    if (p->error_position == DEED_NONE) { /* the files failed, not an event */
        json_put_null(w);
    } else {
        json_put_uint(w, p->error_position);
    }
    json_object_end(w);
}

static void put_rebuild(struct json_writer *w, const struct projection_status *p)
{
    json_member_text(w, "rebuild_error",
                     p->rebuild_error.len == 0 ? (deed_str){0} : p->rebuild_error);
    json_key(w, DEED_STR("rebuild"));
    if (!p->rebuilding) {
        json_put_null(w);
        return;
    }
    json_object_begin(w);
    json_member_uint(w, "position", p->rebuild_position);
    json_member_uint(w, "target", p->rebuild_target);
    put_double(w, "rate", p->rebuild_rate);
    put_double(w, "seconds_left", p->rebuild_seconds_left);
    json_object_end(w);
}

static void put_projection(struct json_writer *w, const struct projection_status *p)
{
    json_object_begin(w);
    json_member_text(w, "name", p->name);
    json_member_text(w, "file", p->file);
    json_member_text(w, "file_error", p->file_error.len == 0 ? (deed_str){0} : p->file_error);
    json_member_text(w, "state", deed_str_of(state_name(p->state)));
    json_member_uint(w, "generation", p->generation);
    json_member_uint(w, "position", p->position);
    json_member_uint(w, "lag", p->lag);
    json_member_uint(w, "events", p->events);
    json_member_uint(w, "transactions", p->transactions);
    json_member_uint(w, "removed_events", p->removed_events);
    put_double(w, "rate", p->rate);
    json_member_uint(w, "size", p->size);
    put_texts(w, "event_types", p->event_types, p->event_type_count);
    put_texts(w, "tables", p->tables, p->table_count);
    put_failure(w, p);
    put_rebuild(w, p);
    json_object_end(w);
}

static deed_status list_get(struct call *c, struct projection_status **out_list, size_t *out_count)
{
    *out_list = NULL;
    *out_count = 0;
    if (c->api->parts.projections == NULL) return DEED_OK;
    return projections_list(c->api->parts.projections, c->arena, out_list, out_count, &c->err);
}

void projections_list_get(struct call *c)
{
    struct projection_status *list;
    size_t count;
    deed_status status = list_get(c, &list, &count);
    if (status != DEED_OK) {
        call_fail_with(c, status);
        return;
    }
    struct json_writer w;
    json_writer_init(&w, call_body(c));
    json_array_begin(&w);
    for (size_t i = 0; i < count; i++) put_projection(&w, &list[i]);
    json_array_end(&w);
    buf_add_byte(&c->x->response.body, '\n');
    call_done(c, 200, "application/json");
}

/* Answer with the status of the projection that the path names. */
static void projection_answer(struct call *c, int http)
{
    struct projection_status *list;
    size_t count;
    deed_status status = list_get(c, &list, &count);
    const struct projection_status *found = NULL;
    for (size_t i = 0; status == DEED_OK && i < count; i++) {
        if (deed_str_equal(list[i].name, c->segments[0])) found = &list[i];
    }
    if (status == DEED_OK && found == NULL) {
        status = deed_fail(&c->err, DEED_NOT_FOUND, "there is no projection %.*s",
                           DEED_FMT(c->segments[0]));
    }
    if (status != DEED_OK) {
        call_fail_with(c, status);
        return;
    }
    struct json_writer w;
    json_writer_init(&w, call_body(c));
    put_projection(&w, found);
    buf_add_byte(&c->x->response.body, '\n');
    call_done(c, http, "application/json");
}

void projection_get(struct call *c)
{
    projection_answer(c, 200);
}

/* 202, not 200: the projection's own thread does it, behind the batch that it is in. */
static void projection_act(struct call *c,
                           deed_status (*act)(struct projections *, deed_str, struct deed_error *))
{
    if (c->status != DEED_OK) {
        call_fail(c);
        return;
    }
    deed_status status = DEED_OK;
    if (c->api->parts.projections != NULL) {
        status = act(c->api->parts.projections, c->segments[0], &c->err);
    }
    if (status != DEED_OK) {
        call_fail_with(c, status);
        return;
    }
    projection_answer(c, 202);
}

static deed_status rebuild(struct projections *set, deed_str name, struct deed_error *err)
{
    return projections_rebuild(set, name, false, err);
}

static deed_status rebuild_by_force(struct projections *set, deed_str name, struct deed_error *err)
{
    return projections_rebuild(set, name, true, err);
}

void projection_rebuild(struct call *c)
{
    bool force = call_flag(c, "force", false);
    projection_act(c, force ? rebuild_by_force : rebuild);
}

void projection_pause(struct call *c)
{
    projection_act(c, projections_pause);
}

void projection_resume(struct call *c)
{
    projection_act(c, projections_resume);
}
