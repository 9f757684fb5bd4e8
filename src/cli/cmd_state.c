/* cmd_state.c - deedbook state: an aggregate, now or then. */
#include "cli/out.h"
#include "cli/target.h"

struct options {
    struct cli_target target;
    const char *stream, *revision, *position, *at;
};

enum { KEY_REVISION = 'r', KEY_POSITION = 'p', KEY_AT = 0x300 };

static const struct argp_option option_list[] = {
    {"revision", KEY_REVISION, "REVISION", 0, "as it was after this event of the stream", 0},
    {"position", KEY_POSITION, "POSITION", 0, "as it was at this position of the log", 0},
    {"at", KEY_AT, "TIME", 0, "as it was at this time (RFC 3339)", 0},
    {0},
};

static error_t parse(int key, char *argument, struct argp_state *state)
{
    struct options *o = state->input;
    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &o->target;
        return 0;
    case KEY_REVISION:
        o->revision = argument;
        return 0;
    case KEY_POSITION:
        o->position = argument;
        return 0;
    case KEY_AT:
        o->at = argument;
        return 0;
    case ARGP_KEY_ARG:
        cli_one(state, &o->stream, "stream", argument);
        return 0;
    case ARGP_KEY_END:
        if (o->stream == NULL) argp_error(state, "which stream?");
        if ((o->revision != NULL) + (o->position != NULL) + (o->at != NULL) > 1) {
            argp_error(state, "--revision, --position and --at exclude each other");
        }
        if (o->target.data != NULL && o->target.app == NULL) {
            argp_error(state, "--data needs --app: the domain knows how events make a state");
        }
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp state_argp = {
    .options = option_list,
    .parser = parse,
    .args_doc = "STREAM",
    .doc = "Show the state of an aggregate, now or at any moment before.\v"
           "Examples:\n"
           "  deedbook state order-1001\n"
           "  deedbook state order-1001 --revision 2\n"
           "  deedbook state order-1001 --at 2026-11-23T04:00:00Z",
    .children = cli_target_children,
};

static void answer_show(const void *context, json_value answer)
{
    (void)context;
    printf("%s", out_start(stdout, OUT_DIM));
    out_text(stdout, json_text(json_get(answer, DEED_STR("stream"))));
    printf("  revision %.*s  position %.*s%s\n",
           DEED_FMT(json_raw(json_get(answer, DEED_STR("revision")))),
           DEED_FMT(json_raw(json_get(answer, DEED_STR("position")))), out_stop(stdout));
    out_json(stdout, json_get(answer, DEED_STR("state")));
}

static deed_status run(const struct options *o, struct deed_error *err)
{
    struct url url;
    url_init(&url, "/streams");
    url_part(&url, o->stream);
    buf_add_str(&url.text, DEED_STR("/state"));
    url_param(&url, "revision", o->revision);
    url_param(&url, "position", o->position);
    url_param(&url, "at", o->at);
    struct request request = {.method = "GET", .path = url_text(&url)};
    deed_status status = target_show(&o->target, TARGET_READS, &request, answer_show, NULL, err);
    url_done(&url);
    return status;
}

int cmd_state(int argc, char **argv)
{
    struct options options = {0};
    struct deed_error err = {0};
    cli_parse(&state_argp, argc, argv, &options);
    return cli_end(run(&options, &err), &err);
}
