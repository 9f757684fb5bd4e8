/* cmd_delete.c - deedbook delete: hide a stream's events, or close it for good. */
#include "cli/out.h"
#include "cli/target.h"

struct options {
    struct cli_target target;
    const char *stream, *expected, *actor;
    bool tombstone;
};

enum { KEY_EXPECTED = 'e', KEY_TOMBSTONE = 0x300, KEY_ACTOR };

static const struct argp_option option_list[] = {
    {"tombstone", KEY_TOMBSTONE, NULL, 0, "close it for good: nothing can be appended again", 0},
    {"expected", KEY_EXPECTED, "REVISION", 0,
     "only if the stream's last revision is this; or exists, any (default)", 0},
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
    case KEY_EXPECTED:
        o->expected = argument;
        return 0;
    case KEY_TOMBSTONE:
        o->tombstone = true;
        return 0;
    case KEY_ACTOR:
        o->actor = argument;
        return 0;
    case ARGP_KEY_ARG:
        cli_one(state, &o->stream, "stream", argument);
        return 0;
    case ARGP_KEY_END:
        if (o->stream == NULL) argp_error(state, "which stream?");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp delete_argp = {
    .options = option_list,
    .parser = parse,
    .args_doc = "STREAM",
    .doc = "Delete a stream softly: it reads as if it had no events, and may be written again, its "
           "revisions going on; or close it for good. The events stay in the log, for projections "
           "and for who reads the log, until they are removed from it.\v"
           "Examples:\n"
           "  deedbook delete session-7\n"
           "  deedbook delete session-8 --tombstone --expected 12",
    .children = cli_target_children,
};

static void answer_show(const void *context, json_value answer)
{
    const struct options *o = context;
    printf("%s  %s  position %.*s\n", o->stream, o->tombstone ? "closed for good" : "deleted",
           DEED_FMT(json_raw(json_get(answer, DEED_STR("position")))));
}

static deed_status run(const struct options *o, struct deed_error *err)
{
    struct url url;
    url_init(&url, "/streams");
    url_part(&url, o->stream);
    url_param(&url, "expected", o->expected);
    if (o->tombstone) url_param(&url, "tombstone", "true");
    struct request request = {.method = "DELETE", .path = url_text(&url)};
    request_header(&request, "Deedbook-Actor", o->actor);
    deed_status status = target_show(&o->target, TARGET_WRITES, &request, answer_show, o, err);
    url_done(&url);
    return status;
}

int cmd_delete(int argc, char **argv)
{
    struct options options = {0};
    struct deed_error err = {0};
    cli_parse(&delete_argp, argc, argv, &options);
    return cli_end(run(&options, &err), &err);
}
