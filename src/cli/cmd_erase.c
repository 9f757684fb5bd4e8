/* cmd_erase.c - deedbook erase: take a stream's content out of the log, at once and for good. */
#include "cli/compaction.h"

struct options {
    struct cli_target target;
    const char *stream, *actor;
    bool no_wait;
};

enum { KEY_ACTOR = 0x300, KEY_NO_WAIT };

static const struct argp_option option_list[] = {
    {"actor", KEY_ACTOR, "NAME", 0, "who did it", 0},
    {"no-wait", KEY_NO_WAIT, NULL, 0, "only start it", 0},
    {0},
};

static error_t parse(int key, char *argument, struct argp_state *state)
{
    struct options *o = state->input;
    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &o->target;
        return 0;
    case KEY_ACTOR:
        o->actor = argument;
        return 0;
    case KEY_NO_WAIT:
        o->no_wait = true;
        return 0;
    case ARGP_KEY_ARG:
        cli_one(state, &o->stream, "stream", argument);
        return 0;
    case ARGP_KEY_END:
        if (o->stream == NULL) argp_error(state, "which stream?");
        if (o->no_wait && o->target.data != NULL) {
            argp_error(state, "--no-wait: a directory's erasure ends with this process");
        }
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp erase_argp = {
    .options = option_list,
    .parser = parse,
    .args_doc = "STREAM",
    .doc = "Delete a stream softly, and erase the content of all its events from the log at once: "
           "data, metadata, causation ids, actors, and the salts of their hashes, so that no guess at "
           "them can be checked. Names, types, tags and ids stay, so nothing else changes. What "
           "read models, exports and backups hold of it is not reached: "
           "docs/operations/retention.md has the list.\v"
           "Examples:\n"
           "  deedbook erase customer-17\n"
           "  deedbook erase customer-17 --actor anna --data ./data",
    .children = cli_target_children,
};

static deed_status run(const struct options *o, struct deed_error *err)
{
    struct url url;
    url_init(&url, "/streams");
    url_part(&url, o->stream);
    url_part(&url, "erase");
    struct request request = {.method = "POST", .path = url_text(&url)};
    request_header(&request, "Deedbook-Actor", o->actor);
    deed_status status = compaction_run(&o->target, &request, "erasing", o->no_wait, err);
    url_done(&url);
    return status;
}

int cmd_erase(int argc, char **argv)
{
    struct options options = {0};
    struct deed_error err = {0};
    cli_parse(&erase_argp, argc, argv, &options);
    return cli_end(run(&options, &err), &err);
}
