/* cmd_follow.c - deedbook follow: events as they happen.
 *
 * (1) A server that goes away is asked again, from behind the last event that was printed: nothing
 *     is printed twice, nothing is left out. */
#include "cli/events.h"

#include <inttypes.h>
#include <unistd.h>

struct options {
    struct cli_target target;
    struct events_filter filter;
    bool now; /* begin at the end */
};

enum { KEY_NOW = 0x300 };

static const struct argp_option option_list[] = {
    {"from", EVENTS_KEY_FROM, "REVISION", 0, "stream: begin at this revision (default 0)", 0},
    {"after", EVENTS_KEY_AFTER, "POSITION", 0, "log: begin behind this position (default 0)", 0},
    {"now", KEY_NOW, NULL, 0, "begin with the next event", 0},
    {"limit", EVENTS_KEY_LIMIT, "COUNT", 0, "stop after this many events", 0},
    {"removed", EVENTS_KEY_REMOVED, NULL, 0, "also events whose content was removed, marked so", 0},
    {0},
};

static error_t parse(int key, char *argument, struct argp_state *state)
{
    struct options *o = state->input;
    switch (key) {
    case ARGP_KEY_INIT:
        o->filter.follow = true;
        state->child_inputs[0] = &o->filter;
        state->child_inputs[1] = &o->target;
        return 0;
    case KEY_NOW:
        o->now = true;
        return 0;
    case ARGP_KEY_ARG:
        cli_one(state, &o->filter.stream, "stream", argument);
        return 0;
    case ARGP_KEY_END:
        if (o->target.data != NULL) {
            argp_error(state,
                       "only a server has events to come; `deedbook read` reads a directory");
        }
        return 0;
    default:
        return events_range_parse(&o->filter, key, argument, state);
    }
}

static const struct argp follow_argp = {
    .options = option_list,
    .parser = parse,
    .args_doc = "[STREAM]",
    .doc = "Print events as they happen: of a stream, or of the whole log, filtered. What is there "
           "already comes first. Ends with --limit, or when interrupted; a server that restarts is "
           "taken up again.\v"
           "Examples:\n"
           "  deedbook follow --now --category order\n"
           "  deedbook follow order-1001 --json",
    .children = events_children,
};

struct following {
    struct options *options;
    struct arena arena;
    uint64_t left; /* DEED_NONE: no limit */
    bool came;     /* something, since the last connection */
    char seen[32]; /* where the next connection goes on */
};

static deed_status on_line(void *context, deed_str line, struct deed_error *err)
{
    struct following *following = context;
    struct options *o = following->options;
    struct events_view view;
    arena_reset(&following->arena);
    deed_status status = events_parse(&following->arena, line, !o->target.json, &view, err);
    if (status != DEED_OK) return status;
    if (o->target.json) {
        fwrite(line.ptr, 1, line.len, stdout);
        putchar('\n');
    } else {
        events_print_line(stdout, &view);
    }
    if (fflush(stdout) != 0) return deed_fail(err, DEED_IO, "standard output is gone");
    following->came = true;
    if (o->filter.stream != NULL) {
        snprintf(following->seen, sizeof following->seen, "%" PRIu64, view.place + 1);
        o->filter.from = following->seen;
    } else {
        snprintf(following->seen, sizeof following->seen, "%" PRIu64, view.position);
        o->filter.after = following->seen;
    }
    if (following->left != DEED_NONE && --following->left == 0) return DEED_END;
    return DEED_OK;
}

/* Where "now" is: behind the newest event. */
static deed_status on_newest(void *context, deed_str line, struct deed_error *err)
{
    struct following *following = context;
    struct events_view view;
    arena_reset(&following->arena);
    deed_status status = events_parse(&following->arena, line, false, &view, err);
    if (status != DEED_OK) return status;
    bool stream = following->options->filter.stream != NULL;
    snprintf(following->seen, sizeof following->seen, "%" PRIu64,
             stream ? view.place + 1 : view.position);
    return DEED_OK;
}

static deed_status now_find(struct following *following, struct target *target,
                            struct deed_error *err)
{
    struct events_filter *filter = &following->options->filter;
    struct events_filter newest = {
        .stream = filter->stream, .limit = 1, .backwards = true, .system = filter->stream == NULL};
    snprintf(following->seen, sizeof following->seen, "0");
    deed_status status = events_read(target, &newest, on_newest, following, err);
    /* A stream that is not there yet begins with its first event. */
    if (status == DEED_NOT_FOUND && filter->stream != NULL) status = DEED_OK;
    *(filter->stream != NULL ? &filter->from : &filter->after) = following->seen;
    return status;
}

static deed_status run(struct options *o, struct deed_error *err)
{
    struct target *target = NULL;
    struct following following = {.options = o,
                                  .left = o->filter.limit == 0 ? DEED_NONE : o->filter.limit};
    arena_init(&following.arena, REPLY_SIZE_MAX);
    deed_status status = target_open(&o->target, TARGET_READS, &target, err);
    if (status == DEED_OK && o->now) status = now_find(&following, target, err);
    uint32_t waited_ms = 0;
    bool connected = false;
    while (status == DEED_OK) {
        following.came = false;
        o->filter.limit = following.left == DEED_NONE ? 0 : following.left;
        status = events_read(target, &o->filter, on_line, &following, err);
        if (following.left == 0) break;
        connected = connected || following.came || status == DEED_OK;
        if (following.came) waited_ms = 0;
        bool again =
            connected && (status == DEED_OK || status == DEED_STOPPED || status == DEED_BUSY);
        if (!again || waited_ms >= o->target.timeout_ms) break;
        if (waited_ms == 0) fprintf(stderr, "the server is gone; trying again\n");
        sleep(1);
        waited_ms += 1000;
        status = DEED_OK;
    }
    target_close(target);
    arena_done(&following.arena);
    return status;
}

int cmd_follow(int argc, char **argv)
{
    struct options options = {0};
    struct deed_error err = {0};
    cli_parse(&follow_argp, argc, argv, &options);
    return cli_end(run(&options, &err), &err);
}
