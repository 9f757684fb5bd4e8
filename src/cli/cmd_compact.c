/* cmd_compact.c - deedbook compact: give back the space of events that are not wanted any more. */
#include "cli/compaction.h"

struct options {
    struct cli_target target;
    uint64_t level;
    bool compress, active, no_wait;
};

#define LEVEL_DEFAULT 3
#define LEVEL_MAX     19

enum { KEY_COMPRESS = 'c', KEY_ACTIVE = 0x300, KEY_NO_WAIT };

static const struct argp_option option_list[] = {
    {"compress", KEY_COMPRESS, "LEVEL", OPTION_ARG_OPTIONAL,
     "compress segments, with zstd's level 1 to 19 (3 unless given)", 0},
    {"active", KEY_ACTIVE, NULL, 0, "close the segment that is being written, and do it too", 0},
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
    case KEY_COMPRESS:
        o->compress = true;
        o->level = argument == NULL ? LEVEL_DEFAULT : cli_number(state, "--compress", argument);
        if (o->level < 1 || o->level > LEVEL_MAX) argp_error(state, "--compress: 1 to 19");
        return 0;
    case KEY_ACTIVE:
        o->active = true;
        return 0;
    case KEY_NO_WAIT:
        o->no_wait = true;
        return 0;
    case ARGP_KEY_ARG:
        argp_error(state, "\"%s\": it works on the whole log", argument);
        return 0;
    case ARGP_KEY_END:
        if (o->no_wait && o->target.data != NULL) {
            argp_error(state, "--no-wait: a directory's compaction ends with this process");
        }
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp compact_argp = {
    .options = option_list,
    .parser = parse,
    .doc = "Remove from the log the content of events that streams hide: what is older than $maxAge, "
           "beyond $maxCount, below $tb, and what deleted streams held. Sealed segments are "
           "rewritten one by one while everything else goes on; interrupted, it loses nothing, and "
           "is run again. docs/operations/retention.md says what readers see of it.\v"
           "Examples:\n"
           "  deedbook compact\n"
           "  deedbook compact --compress --data ./data",
    .children = cli_target_children,
};

static deed_status run(const struct options *o, struct deed_error *err)
{
    struct url url;
    url_init(&url, "/compact");
    if (o->compress) url_param_uint(&url, "compress", o->level);
    if (o->active) url_param(&url, "active", "true");
    struct request request = {.method = "POST", .path = url_text(&url)};
    deed_status status = compaction_run(&o->target, &request, "compacting", o->no_wait, err);
    url_done(&url);
    return status;
}

int cmd_compact(int argc, char **argv)
{
    struct options options = {0};
    struct deed_error err = {0};
    cli_parse(&compact_argp, argc, argv, &options);
    return cli_end(run(&options, &err), &err);
}
