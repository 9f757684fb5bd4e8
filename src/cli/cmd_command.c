/* cmd_command.c - deedbook command: have the domain decide. */
#include "cli/events.h"

#include <stdlib.h>
#include <string.h>

struct options {
    struct cli_target target;
    const char *name, *body;
    const char *key, *if_match, *correlation, *causation, *actor;
};

enum { KEY_KEY = 'k', KEY_IF_MATCH = 0x300, KEY_CORRELATION, KEY_CAUSATION, KEY_ACTOR };

static const struct argp_option option_list[] = {
    {"idempotency-key", KEY_KEY, "KEY", 0, "a retry with the same key gives the first answer", 0},
    {"if-match", KEY_IF_MATCH, "REVISION", 0,
     "only if the aggregate is at this revision; none: if it does not exist", 0},
    {"correlation", KEY_CORRELATION, "ID", 0, "correlation id of its events", 0},
    {"causation", KEY_CAUSATION, "ID", 0, "causation id of its events", 0},
    {"actor", KEY_ACTOR, "NAME", 0, "who does it", 0},
    {0},
};

static error_t parse(int key, char *argument, struct argp_state *state)
{
    struct options *o = state->input;
    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &o->target;
        return 0;
    case KEY_KEY:
        o->key = argument;
        return 0;
    case KEY_IF_MATCH:
        o->if_match = argument;
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
        if (state->arg_num == 0) o->name = argument;
        if (state->arg_num == 1) o->body = argument;
        if (state->arg_num > 1) argp_error(state, "more than a name and a body: \"%s\"", argument);
        return 0;
    case ARGP_KEY_END:
        if (o->name == NULL) argp_error(state, "which command?");
        if (o->body == NULL) argp_error(state, "the body is missing: JSON, @FILE, or - for stdin");
        if (o->target.data != NULL && o->target.app == NULL) {
            argp_error(state, "--data needs --app: the domain decides");
        }
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp command_argp = {
    .options = option_list,
    .parser = parse,
    .args_doc = "NAME BODY",
    .doc = "Run a command: the domain decides, and its events are stored. BODY is the command's "
           "data as JSON, @FILE, or - for standard input.\v"
           "Example:\n"
           "  deedbook command CancelOrder '{\"order_id\":\"1001\",\"reason\":\"late\"}'\n\n"
           "A command that the domain rejects exits with 1, --if-match that does not hold with 4.",
    .children = cli_target_children,
};

static void answer_show(const void *context, json_value answer)
{
    (void)context;
    out_text(stdout, json_text(json_get(answer, DEED_STR("stream"))));
    printf("  revision %.*s  position %.*s\n",
           DEED_FMT(json_raw(json_get(answer, DEED_STR("revision")))),
           DEED_FMT(json_raw(json_get(answer, DEED_STR("position")))));
    json_value events = json_get(answer, DEED_STR("events"));
    for (struct json_iterator i = json_iterate(events); json_next(&i);) {
        printf("  %s", out_start(stdout, OUT_BOLD));
        out_text(stdout, json_text(json_get(i.value, DEED_STR("type"))));
        printf("%s  ", out_stop(stdout));
        out_text(stdout, json_raw(json_get(i.value, DEED_STR("data"))));
        putchar('\n');
    }
    if (json_count(events) == 0) puts("  no event: nothing was to be changed");
}

static deed_status run(const struct options *o, struct deed_error *err)
{
    struct url url;
    char *text = NULL, if_match[64] = "";
    size_t size = 0;
    url_init(&url, "/commands");
    url_part(&url, o->name);

    deed_status status = cli_body(o->body, CLI_BODY_SIZE_MAX, &text, &size, err);
    if (status != DEED_OK) goto done;
    struct request request = {
        .method = "POST", .path = url_text(&url), .body = {(const uint8_t *)text, size}};
    bool if_none = o->if_match != NULL && strcmp(o->if_match, "none") == 0;
    if (o->if_match != NULL && !if_none) snprintf(if_match, sizeof if_match, "\"%s\"", o->if_match);
    request_header(&request, "If-None-Match", if_none ? "*" : NULL);
    request_header(&request, "Idempotency-Key", o->key);
    request_header(&request, "If-Match", if_match);
    request_header(&request, "Deedbook-Correlation-Id", o->correlation);
    request_header(&request, "Deedbook-Causation-Id", o->causation);
    request_header(&request, "Deedbook-Actor", o->actor);
    status = target_show(&o->target, TARGET_WRITES, &request, answer_show, NULL, err);
    /* An empty line behind the answer, which has ended its own: as it always was. */

done:
    free(text);
    url_done(&url);
    return status;
}

int cmd_command(int argc, char **argv)
{
    struct options options = {0};
    struct deed_error err = {0};
    cli_parse(&command_argp, argc, argv, &options);
    return cli_end(run(&options, &err), &err);
}
