/* cmd_explain.c - deedbook explain: an aggregate's life, event by event, with what each changed. */
#include "cli/events.h"

struct options {
    struct cli_target target;
    const char *stream, *revision, *limit;
};

enum { KEY_REVISION = 'r', KEY_LIMIT = 'n' };

static const struct argp_option option_list[] = {
    {"revision", KEY_REVISION, "REVISION", 0, "up to this event (default: to the end)", 0},
    {"limit", KEY_LIMIT, "COUNT", 0, "the last so many events (default 1000)", 0},
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
    case KEY_LIMIT:
        (void)cli_number(state, "--limit", argument);
        o->limit = argument;
        return 0;
    case ARGP_KEY_ARG:
        cli_one(state, &o->stream, "stream", argument);
        return 0;
    case ARGP_KEY_END:
        if (o->stream == NULL) argp_error(state, "which stream?");
        if (o->target.data != NULL && o->target.app == NULL) {
            argp_error(state, "--data needs --app: the domain knows what events change");
        }
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp explain_argp = {
    .options = option_list,
    .parser = parse,
    .args_doc = "STREAM",
    .doc = "Tell the life of an aggregate: each event, when it happened, who did it, and what it "
           "changed in the state.\v"
           "Example:\n"
           "  deedbook explain order-1001",
    .children = cli_target_children,
};

/* "  order_total_cents  0 -> 900"; what is new has no "from", what is gone no "to". */
static void change_print(json_value change)
{
    json_value from = json_get(change, DEED_STR("from"));
    json_value to = json_get(change, DEED_STR("to"));
    bool is_new = json_kind_of(from) == JSON_NONE, is_gone = json_kind_of(to) == JSON_NONE;
    enum out_colour colour = is_new ? OUT_GREEN : is_gone ? OUT_RED : OUT_YELLOW;
    printf("      %s%s%s ", out_start(stdout, colour),
           is_new    ? "+"
           : is_gone ? "-"
                     : "~",
           out_stop(stdout));
    out_text(stdout, json_text(json_get(change, DEED_STR("path"))));
    fputs("  ", stdout);
    if (!is_new) out_text(stdout, json_raw(from));
    if (!is_new && !is_gone) fputs(" -> ", stdout);
    if (!is_gone) out_text(stdout, json_raw(to));
    putchar('\n');
}

static void event_print(json_value event)
{
    char time[32];
    deed_str actor = json_text(json_get(event, DEED_STR("actor")));
    printf("%4.*s  %s", DEED_FMT(json_raw(json_get(event, DEED_STR("revision")))),
           out_start(stdout, OUT_BOLD));
    out_text(stdout, json_text(json_get(event, DEED_STR("type"))));
    printf("%s  %s", out_stop(stdout), out_start(stdout, OUT_DIM));
    out_text(stdout, events_time_short(json_text(json_get(event, DEED_STR("time"))), time));
    printf("  position %.*s", DEED_FMT(json_raw(json_get(event, DEED_STR("position")))));
    if (actor.len > 0) {
        fputs("  by ", stdout);
        out_text(stdout, actor);
    }
    printf("%s\n", out_stop(stdout));
    json_value changes = json_get(event, DEED_STR("changes"));
    for (struct json_iterator i = json_iterate(changes); json_next(&i);)
        change_print(i.value);
    if (json_count(changes) == 0) puts("      changed nothing");
}

static void answer_show(const void *context, json_value events)
{
    (void)context;
    for (struct json_iterator i = json_iterate(events); json_next(&i);)
        event_print(i.value);
}

static deed_status run(const struct options *o, struct deed_error *err)
{
    struct url url;
    url_init(&url, "/streams");
    url_part(&url, o->stream);
    buf_add_str(&url.text, DEED_STR("/explain"));
    url_param(&url, "revision", o->revision);
    url_param(&url, "limit", o->limit);
    struct request request = {.method = "GET", .path = url_text(&url)};
    deed_status status = target_show(&o->target, TARGET_READS, &request, answer_show, NULL, err);
    url_done(&url);
    return status;
}

int cmd_explain(int argc, char **argv)
{
    struct options options = {0};
    struct deed_error err = {0};
    cli_parse(&explain_argp, argc, argv, &options);
    return cli_end(run(&options, &err), &err);
}
