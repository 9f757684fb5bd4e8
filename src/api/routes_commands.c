/* routes_commands.c - commands: which there are, and running one. */
#include <inttypes.h>

#include "api/reply.h"
#include "domain/executor.h"

/* ---- GET /commands ----------------------------------------------------------------------------
 */

/* One member of the model's command, copied as it is. */
static void put_command(struct json_writer *w, deed_str aggregate, json_value command)
{
    json_object_begin(w);
    for (struct json_iterator i = json_iterate(command); json_next(&i);) {
        json_key(w, i.key);
        json_put_raw(w, deed_bytes_of(json_raw(i.value)));
        if (deed_str_equal(i.key, DEED_STR("name"))) json_member_text(w, "aggregate", aggregate);
    }
    json_object_end(w);
}

static void put_aggregate(struct json_writer *w, json_value aggregate)
{
    deed_str name = json_text(json_get(aggregate, DEED_STR("name")));
    json_value commands = json_get(aggregate, DEED_STR("commands"));
    for (struct json_iterator i = json_iterate(commands); json_next(&i);) {
        put_command(w, name, i.value);
    }
}

void commands_list(struct call *c)
{
    const struct executor *executor = c->api->parts.executor;
    json_value model = {0};
    if (executor != NULL) {
        deed_str text = executor_model(executor);
        c->status = json_parse(c->arena, deed_bytes_of(text), 0, &model, &c->err);
        if (c->status != DEED_OK) deed_wrap(&c->err, "the domain's model");
    }
    if (c->status != DEED_OK) {
        call_fail_with(c, DEED_DOMAIN); /* not the request's fault */
        return;
    }
    struct json_writer w;
    json_writer_init(&w, call_body(c));
    json_array_begin(&w);
    json_value aggregates = json_get(model, DEED_STR("aggregates"));
    for (struct json_iterator i = json_iterate(aggregates); json_next(&i);) {
        put_aggregate(&w, i.value);
    }
    json_array_end(&w);
    buf_add_byte(&c->x->response.body, '\n');
    call_done(c, 200, "application/json");
}

/* ---- POST /commands/{name} --------------------------------------------------------------------
 */

static void put_revision(struct json_writer *w, const char *key, uint64_t revision)
{
    json_key(w, deed_str_of(key));
    if (revision == DEED_NONE) {
        json_put_null(w);
    } else {
        json_put_uint(w, revision);
    }
}

static void command_answer(struct call *c, const struct deed_decided *decided, deed_str stream,
                           const struct deed_event *events, size_t count)
{
    struct buf *out = call_body(c);
    struct json_writer w;
    json_writer_init(&w, out);
    json_object_begin(&w);
    json_member_text(&w, "stream", stream);
    put_revision(&w, "first_revision", decided->first_revision);
    put_revision(&w, "revision", decided->revision);
    json_member_uint(&w, "position", decided->position);
    if (decided->repeated) json_member_bool(&w, "repeated", true);
    json_key(&w, DEED_STR("events"));
    json_put_raw(&w, deed_bytes_of(DEED_STR("[")));
    for (size_t i = 0; i < count; i++) {
        if (i > 0) buf_add(out, ",\n", 2);
        cloudevent_write(out, &c->api->source, &events[i], 0);
    }
    buf_add_byte(out, ']');
    json_object_end(&w);
    buf_add_byte(out, '\n');
}

/* From one of the executor's threads: must not block. */
static void command_done(void *context, const struct deed_decided *decided, deed_str stream,
                         const struct deed_event *events, size_t event_count,
                         const struct deed_error *err)
{
    struct call *c = context;
    if (decided == NULL) {
        c->err = *err;
        call_fail_with(c, err->status);
        return;
    }
    command_answer(c, decided, stream, events, event_count);
    if (!buf_ok(&c->x->response.body)) {
        /* The events are stored: say so, rather than have the command sent again. */
        (void)deed_fail(&c->err, DEED_UNKNOWN,
                        "the command has been run, but there is no memory for its answer");
        c->err.position = decided->position;
        call_fail_with(c, DEED_UNKNOWN);
        return;
    }
    call_put_position(c, decided->position);
    call_put_etag(c, decided->revision);
    call_done(c, 200, "application/json");
}

/* If-Match: "5", or If-None-Match: * for "must not exist yet". */
static void command_if_match(struct call *c, struct deed_command *command)
{
    enum deed_expect expect;
    uint64_t revision;
    if (!call_if_match(c, &expect, &revision)) return;
    command->has_if_match = true;
    command->if_match = expect == DEED_EXPECT_NONE ? DEED_NONE : revision;
    if (expect == DEED_EXPECT_EXISTS) {
        call_wrong(c, DEED_INVALID,
                   "header If-Match: * is not one revision in quotes, like \"5\"; whether the "
                   "aggregate exists is for the domain to say");
    }
}

void command_post(struct call *c)
{
    (void)call_content_type(c);
    struct call_origin origin = call_origin(c);
    struct deed_command command = {
        .name = c->segments[0],
        .data = c->x->request.body,
        .idempotency_key = call_idempotency_key(c),
        .correlation_id = origin.correlation_id,
        .causation_id = origin.causation_id,
        .actor = origin.actor,
    };
    command_if_match(c, &command);
    if (c->api->parts.executor == NULL) {
        call_wrong(c, DEED_NOT_FOUND, "command %.*s: this server has no domain",
                   DEED_FMT(command.name));
    }
    if (c->status != DEED_OK) {
        call_fail(c);
        return;
    }
    struct deed_error err;
    deed_status status = executor_submit(c->api->parts.executor, &command, command_done, c, &err);
    if (status == DEED_OK) return; /* command_done ends the call, or has ended it */
    c->err = err;
    call_fail_with(c, status);
}
