/* cmd_info.c - deedbook info: which log this is, how far it goes, and whether all is well. */
#include "cli/events.h"

struct options {
    struct cli_target target;
};

static error_t parse(int key, char *argument, struct argp_state *state)
{
    struct options *o = state->input;
    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &o->target;
        return 0;
    case ARGP_KEY_ARG:
        argp_error(state, "\"%s\"? the directory goes behind --data", argument);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp info_argp = {
    .parser = parse,
    .doc = "Show the log's identity, position, size, whether it can be written and, if not, why.\v"
           "Examples:\n"
           "  deedbook info\n"
           "  deedbook info --data ./data\n\n"
           "Exits with 6 if damage is known; `deedbook verify` looks for it.",
    .children = cli_target_children,
};

static void line(const char *name, deed_str value)
{
    printf("%-12s ", name);
    out_text(stdout, value);
    putchar('\n');
}

static void count_line(const char *name, json_value value, bool is_size)
{
    uint64_t count = 0;
    char text[OUT_NUMBER_SIZE];
    if (!json_uint64(value, &count)) return;
    line(name, deed_str_of(is_size ? out_size(count, text) : out_count(count, text)));
}

static json_value member(json_value object, const char *key)
{
    return json_get(object, deed_str_of(key));
}

static void index_print(const struct options *o, json_value index, bool damaged)
{
    char time[32];
    bool writable = json_kind_of(member(index, "writable")) == JSON_TRUE;
    deed_str reason = json_text(member(index, "stopped_because"));
    line("log", json_text(member(index, "log_id")));
    line("epoch", json_raw(member(index, "epoch")));
    count_line("position", member(index, "position"), false);
    line("recorded", events_time_short(json_text(member(index, "recorded_at")), time));
    count_line("streams", member(index, "streams"), false);
    count_line("segments", member(index, "segments"), false);
    count_line("size", member(index, "log_size"), true);
    count_line("horizon", member(index, "horizon"), false);
    line("chain hash", json_text(member(index, "chain_hash")));
    line("version", json_text(member(index, "version")));
    if (o->target.data != NULL && !damaged) {
        line("writable", DEED_STR("not asked: opened to read"));
    } else if (writable) {
        line("writable", DEED_STR("yes"));
    } else {
        printf("%-12s %sno%s: ", "writable", out_start(stdout, OUT_RED), out_stop(stdout));
        out_text(stdout, reason);
        putchar('\n');
    }
    json_value backup = member(index, "backup");
    if (json_kind_of(backup) == JSON_OBJECT) {
        printf("%-12s ", "backup");
        out_text(stdout, events_time_short(json_text(member(backup, "made_at")), time));
        printf(", up to position %.*s\n", DEED_FMT(json_raw(member(backup, "position"))));
    }
    if (json_kind_of(member(index, "unsafe")) == JSON_TRUE) {
        line("unsafe", DEED_STR("appends are acknowledged before the disk has them"));
    }
    if (damaged) {
        printf("%-12s %spositions %.*s to %.*s%s\n", "damaged", out_start(stdout, OUT_RED),
               DEED_FMT(json_raw(member(index, "corrupt_first"))),
               DEED_FMT(json_raw(member(index, "corrupt_last"))), out_stop(stdout));
    }
}

static deed_status answer_print(const struct options *o, const struct reply *reply,
                                bool *out_damaged, struct deed_error *err)
{
    struct arena arena;
    json_value index;
    arena_init(&arena, 1 << 20);
    deed_status status = json_parse(&arena, buf_bytes(&reply->body), 0, &index, err);
    if (status == DEED_OK) {
        *out_damaged = json_kind_of(member(index, "corrupt_first")) != JSON_NONE;
        if (o->target.json) {
            out_body(buf_bytes(&reply->body));
        } else {
            index_print(o, index, *out_damaged);
        }
    }
    arena_done(&arena);
    return status;
}

static deed_status run(const struct options *o, bool *out_damaged, struct deed_error *err)
{
    struct reply reply;
    struct request request = {.method = "GET", .path = "/"};
    reply_init(&reply);
    deed_status status = target_ask(&o->target, TARGET_READS, &request, &reply, err);
    if (status == DEED_OK) status = answer_print(o, &reply, out_damaged, err);
    reply_done(&reply);
    return status;
}

int cmd_info(int argc, char **argv)
{
    struct options options = {0};
    struct deed_error err = {0};
    bool damaged = false;
    cli_parse(&info_argp, argc, argv, &options);
    deed_status status = run(&options, &damaged, &err);
    if (status != DEED_OK) return cli_trouble(status, &err);
    return damaged ? CLI_DAMAGE : CLI_OK;
}
