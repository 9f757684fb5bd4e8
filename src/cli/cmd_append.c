/* cmd_append.c - deedbook append: events into a stream. */
#include "cli/events.h"

#include "base/text.h"

#include <stdlib.h>
#include <string.h>

struct options {
    struct cli_target target;
    const char *stream, *body;
    const char *type, *expected, *metadata, *id, *time, *content_type;
    const char *correlation, *causation, *actor;
    struct cli_list tags;
};

enum {
    KEY_TYPE = 't',
    KEY_EXPECTED = 'e',
    KEY_TAG = 0x300,
    KEY_METADATA,
    KEY_ID,
    KEY_TIME,
    KEY_CONTENT_TYPE,
    KEY_CORRELATION,
    KEY_CAUSATION,
    KEY_ACTOR,
};

static const struct argp_option option_list[] = {
    {"type", KEY_TYPE, "TYPE", 0,
     "the event's type; BODY is then its data. Without it BODY is one event or an array of events, "
     "as POST /streams/{stream} takes them",
     0},
    {"expected", KEY_EXPECTED, "REVISION", 0,
     "append only if the stream's last revision is this; or none, exists, any (default)", 0},
    {"tag", KEY_TAG, "TAG", 0, "a tag of the event (may repeat)", 0},
    {"metadata", KEY_METADATA, "JSON", 0, "the event's metadata: JSON, @FILE or -", 0},
    {"id", KEY_ID, "UUID", 0, "the event's id: a retry with the same id appends nothing", 0},
    {"time", KEY_TIME, "TIME", 0, "when it happened (RFC 3339; default: now)", 0},
    {"content-type", KEY_CONTENT_TYPE, "TYPE", 0, "of the data (default application/json)", 0},
    {"correlation", KEY_CORRELATION, "ID", 0, "correlation id", 0},
    {"causation", KEY_CAUSATION, "ID", 0, "causation id", 0},
    {"actor", KEY_ACTOR, "NAME", 0, "who did it", 0},
    {0},
};

static error_t parse(int key, char *argument, struct argp_state *state)
{
    struct options *o = state->input;
    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &o->target;
        return 0;
    case KEY_TYPE:
        o->type = argument;
        return 0;
    case KEY_EXPECTED:
        o->expected = argument;
        return 0;
    case KEY_TAG:
        cli_list_add(&o->tags, argument);
        return 0;
    case KEY_METADATA:
        o->metadata = argument;
        return 0;
    case KEY_ID:
        o->id = argument;
        return 0;
    case KEY_TIME:
        o->time = argument;
        return 0;
    case KEY_CONTENT_TYPE:
        o->content_type = argument;
        return 0;
    case KEY_CORRELATION:
        o->correlation = argument;
        return 0;
    case KEY_CAUSATION:
        o->causation = argument;
        return 0;
    case KEY_ACTOR:
        o->actor = argument;
        return 0;
    case ARGP_KEY_ARG:
        if (state->arg_num == 0) o->stream = argument;
        if (state->arg_num == 1) o->body = argument;
        if (state->arg_num > 1)
            argp_error(state, "more than a stream and a body: \"%s\"", argument);
        return 0;
    case ARGP_KEY_END:
        if (o->stream == NULL) argp_error(state, "which stream?");
        if (o->body == NULL) argp_error(state, "the body is missing: JSON, @FILE, or - for stdin");
        if (o->type == NULL &&
            (o->tags.count > 0 || o->metadata != NULL || o->id != NULL || o->time != NULL ||
             o->content_type != NULL || o->correlation != NULL || o->causation != NULL ||
             o->actor != NULL)) {
            argp_error(state, "options that describe one event need --type");
        }
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp append_argp = {
    .options = option_list,
    .parser = parse,
    .args_doc = "STREAM BODY",
    .doc = "Append events to a stream, durably, all or none. BODY is text, @FILE, or - for "
           "standard input.\v"
           "Examples:\n"
           "  deedbook append note-1 '{\"text\":\"hello\"}' --type NoteWritten --expected none\n"
           "  deedbook append note-1 @events.json --data ./data",
    .children = cli_target_children,
};

static bool is_json(const char *content_type)
{
    return content_type == NULL || strstr(content_type, "json") != NULL;
}

static void text_member(struct json_writer *w, const char *key, const char *value)
{
    if (value != NULL) json_member_text(w, key, deed_str_of(value));
}

/* The one event that the options describe, as the API takes it. */
static deed_status event_write(const struct options *o, deed_bytes data, struct buf *out,
                               struct deed_error *err)
{
    struct json_writer w;
    json_writer_init(&w, out);
    json_object_begin(&w);
    text_member(&w, "type", o->type);
    text_member(&w, "id", o->id);
    text_member(&w, "time", o->time);
    text_member(&w, "datacontenttype", o->content_type);
    text_member(&w, "correlation_id", o->correlation);
    text_member(&w, "causation_id", o->causation);
    text_member(&w, "actor", o->actor);
    if (o->tags.count > 0) {
        json_key(&w, DEED_STR("tags"));
        json_array_begin(&w);
        for (size_t i = 0; i < o->tags.count; i++) {
            json_put_text(&w, deed_str_of(o->tags.items[i]));
        }
        json_array_end(&w);
    }
    if (is_json(o->content_type)) {
        deed_status status = json_check(data, 1024, err);
        if (status != DEED_OK) {
            deed_wrap(err, "the body");
            return status;
        }
        json_member_raw(&w, "data", data);
    } else {
        struct buf base64;
        buf_init(&base64, 2 * CLI_BODY_SIZE_MAX);
        base64_encode(data, &base64);
        json_member_text(&w, "data_base64", buf_str(&base64));
        buf_done(&base64);
    }
    if (o->metadata != NULL) {
        char *text = NULL;
        size_t size = 0;
        deed_status status = cli_body(o->metadata, CLI_BODY_SIZE_MAX, &text, &size, err);
        if (status != DEED_OK) return status;
        deed_bytes metadata = {(const uint8_t *)text, size};
        status = json_check(metadata, 1024, err);
        if (status == DEED_OK) json_member_raw(&w, "metadata", metadata);
        free(text);
        if (status != DEED_OK) {
            deed_wrap(err, "--metadata");
            return status;
        }
    }
    json_object_end(&w);
    return buf_ok(out) ? DEED_OK : deed_fail(err, DEED_TOO_LARGE, "the event is too large");
}

static void answer_show(const void *context, json_value answer)
{
    const struct options *o = context;
    deed_str revision = json_raw(json_get(answer, DEED_STR("revision")));
    deed_str position = json_raw(json_get(answer, DEED_STR("position")));
    printf("%s  revision %.*s  position %.*s\n", o->stream, DEED_FMT(revision), DEED_FMT(position));
}

static deed_status run(const struct options *o, struct deed_error *err)
{
    struct url url;
    struct buf event;
    char *text = NULL;
    size_t size = 0;
    url_init(&url, "/streams");
    url_part(&url, o->stream);
    url_param(&url, "expected", o->expected);
    buf_init(&event, 3 * CLI_BODY_SIZE_MAX);

    deed_status status = cli_body(o->body, CLI_BODY_SIZE_MAX, &text, &size, err);
    if (status != DEED_OK) goto done;
    deed_bytes body = {(const uint8_t *)text, size};
    if (o->type != NULL) {
        status = event_write(o, body, &event, err);
        if (status != DEED_OK) goto done;
        body = buf_bytes(&event);
    }
    struct request request = {.method = "POST", .path = url_text(&url), .body = body};
    status = target_show(&o->target, TARGET_WRITES, &request, answer_show, o, err);
    /* An empty line behind the answer, which has ended its own: as it always was. */

done:
    free(text);
    buf_done(&event);
    url_done(&url);
    return status;
}

int cmd_append(int argc, char **argv)
{
    struct options options = {0};
    struct deed_error err = {0};
    cli_parse(&append_argp, argc, argv, &options);
    return cli_end(run(&options, &err), &err);
}
