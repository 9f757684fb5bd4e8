/* cmd_groups.c - deedbook groups: the consumer groups of a server, and what they have parked. */
#include "cli/out.h"
#include "cli/target.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum verb { VERB_LIST, VERB_SHOW, VERB_SET, VERB_DELETE, VERB_PARKED, VERB_REPLAY, VERB_DROP };

static const char *const verbs[] = {"list", "show", "set", "delete", "parked", "replay", "drop"};
#define VERB_COUNT (sizeof verbs / sizeof verbs[0])

struct options {
    struct cli_target target;
    enum verb verb;
    const char *source, *group, *settings;
    uint64_t before;
    bool has_before;
};

enum { KEY_BEFORE = 0x300 };

static const struct argp_option option_list[] = {
    {"before", KEY_BEFORE, "NUMBER", 0, "replay, drop: only what is parked below this number", 0},
    {0},
};

static void take_argument(struct argp_state *state, struct options *o, char *argument)
{
    switch (state->arg_num) {
    case 0:
        for (size_t i = 0; i < VERB_COUNT; i++) {
            if (strcmp(argument, verbs[i]) != 0) continue;
            o->verb = (enum verb)i;
            return;
        }
        argp_error(state, "\"%s\" is not list, show, set, delete, parked, replay or drop", argument);
        return;
    case 1:
        o->source = argument;
        return;
    case 2:
        o->group = argument;
        return;
    default:
        if (o->verb != VERB_SET) argp_error(state, "\"%s\" is too much", argument);
        cli_one(state, &o->settings, "settings", argument);
        return;
    }
}

static error_t parse(int key, char *argument, struct argp_state *state)
{
    struct options *o = state->input;
    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &o->target;
        return 0;
    case KEY_BEFORE:
        o->before = cli_number(state, "before", argument);
        o->has_before = true;
        return 0;
    case ARGP_KEY_ARG:
        take_argument(state, o, argument);
        return 0;
    case ARGP_KEY_END:
        if (o->verb != VERB_LIST && o->group == NULL) {
            argp_error(state, "%s needs a stream and a group", verbs[o->verb]);
        }
        if (o->has_before && o->verb != VERB_REPLAY && o->verb != VERB_DROP) {
            argp_error(state, "--before goes with replay and drop");
        }
        if (o->target.data != NULL) argp_error(state, "consumer groups are a server's");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp groups_argp = {
    .options = option_list,
    .parser = parse,
    .args_doc = "[list [STREAM]]\n"
                "show|delete|parked|replay|drop STREAM GROUP\n"
                "set STREAM GROUP [SETTINGS]",
    .doc =
        "List the consumer groups of a server; make or change one, or delete it; list what it has "
        "parked, deliver that once more, or drop it. The stream $all is the log. SETTINGS is JSON, "
        "@FILE or - for standard input; what it does not say is as usual.\v"
        "Examples:\n"
        "  deedbook groups\n"
        "  deedbook groups set '$ce-order' mailer '{\"strategy\":\"Pinned\"}'\n"
        "  deedbook groups parked '$ce-order' mailer\n"
        "  deedbook groups replay '$ce-order' mailer\n\n"
        "The list exits with 1 if a group is stopped.",
    .children = cli_target_children,
};

static deed_str text_of(json_value row, const char *key)
{
    return json_text(json_get(row, deed_str_of(key)));
}

/* A number, or nothing for null. */
static void number_put(struct out_table *table, json_value row, const char *key)
{
    json_value v = json_get(row, deed_str_of(key));
    out_table_text(table, json_kind_of(v) == JSON_NUMBER ? json_raw(v) : DEED_STR(""));
}

static deed_status list_print(json_value list, struct deed_error *err)
{
    static const struct out_column columns[] = {
        {"STREAM", OUT_CUT},       {"GROUP", 0},          {"STATE", 0},
        {"CHECKPOINT", OUT_RIGHT}, {"LAST", OUT_RIGHT},   {"CONSUMERS", OUT_RIGHT},
        {"IN FLIGHT", OUT_RIGHT},  {"PARKED", OUT_RIGHT}, {"EVENTS/S", OUT_RIGHT}};
    struct out_table *table = out_table_create(columns, sizeof columns / sizeof columns[0]);
    for (struct json_iterator i = json_iterate(list); json_next(&i);) {
        out_table_row(table);
        out_table_text(table, text_of(i.value, "source"));
        out_table_text(table, text_of(i.value, "group"));
        out_table_text(table, text_of(i.value, "state"));
        number_put(table, i.value, "checkpoint");
        number_put(table, i.value, "last");
        out_table_cell(table, "%zu", json_count(json_get(i.value, DEED_STR("consumers"))));
        number_put(table, i.value, "in_flight");
        number_put(table, i.value, "parked");
        number_put(table, i.value, "per_second");
    }
    deed_status status = out_table_end(table, stdout, err);
    for (struct json_iterator i = json_iterate(list); json_next(&i);) {
        deed_str error = text_of(i.value, "error");
        if (error.len == 0) continue;
        printf("\n%s", out_start(stdout, OUT_RED));
        out_text(stdout, text_of(i.value, "group"));
        printf("%s is stopped: ", out_stop(stdout));
        out_text(stdout, error);
        putchar('\n');
    }
    return status;
}

static deed_status parked_print(json_value list, struct deed_error *err)
{
    static const struct out_column columns[] = {
        {"NUMBER", OUT_RIGHT}, {"STREAM", 0}, {"REVISION", OUT_RIGHT},
        {"TYPE", 0},           {"SINCE", 0},  {"REASON", OUT_CUT}};
    struct out_table *table = out_table_create(columns, sizeof columns / sizeof columns[0]);
    for (struct json_iterator i = json_iterate(list); json_next(&i);) {
        out_table_row(table);
        number_put(table, i.value, "number");
        out_table_text(table, text_of(i.value, "stream"));
        number_put(table, i.value, "revision");
        out_table_text(table, text_of(json_get(i.value, DEED_STR("event")), "type"));
        out_table_text(table, text_of(i.value, "added"));
        out_table_text(table, text_of(i.value, "reason"));
    }
    return out_table_end(table, stdout, err);
}

/* Of replay and drop. */
static void count_print(const struct options *o, json_value answer)
{
    uint64_t count = 0;
    (void)json_uint64(json_get(answer, DEED_STR("count")), &count);
    printf("%llu parked event%s %s\n", (unsigned long long)count, count == 1 ? "" : "s",
           o->verb == VERB_REPLAY ? "will be delivered again" : "dropped");
}

static deed_status answer_print(const struct options *o, const struct reply *reply,
                                bool *out_stopped, struct deed_error *err)
{
    struct arena arena;
    json_value answer;
    arena_init(&arena, REPLY_SIZE_MAX);
    deed_status status = json_parse(&arena, buf_bytes(&reply->body), 0, &answer, err);
    if (status == DEED_OK && o->verb == VERB_LIST) {
        for (struct json_iterator i = json_iterate(answer); json_next(&i);) {
            if (text_of(i.value, "error").len > 0) *out_stopped = true;
        }
    }
    if (status == DEED_OK && o->target.json) {
        out_body(buf_bytes(&reply->body));
    } else if (status == DEED_OK && o->verb == VERB_LIST) {
        status = list_print(answer, err);
    } else if (status == DEED_OK && o->verb == VERB_PARKED) {
        status = parked_print(answer, err);
    } else if (status == DEED_OK && (o->verb == VERB_REPLAY || o->verb == VERB_DROP)) {
        count_print(o, answer);
    } else if (status == DEED_OK && o->verb != VERB_DELETE) {
        out_json(stdout, answer);
        putchar('\n');
    }
    arena_done(&arena);
    return status;
}

static deed_status ask(const struct options *o, deed_bytes body, struct reply *reply,
                       struct deed_error *err)
{
    static const char *const methods[] = {"GET", "GET", "PUT", "DELETE", "GET", "POST", "DELETE"};
    struct url url;
    url_init(&url, "/subscriptions");
    if (o->source != NULL) url_part(&url, o->source);
    if (o->group != NULL) url_part(&url, o->group);
    if (o->verb >= VERB_PARKED) url_part(&url, "parked");
    if (o->verb == VERB_REPLAY) url_part(&url, "replay");
    if (o->verb == VERB_PARKED) url_param_uint(&url, "limit", 1000);
    if (o->has_before) url_param_uint(&url, "before", o->before);
    struct request request = {
        .method = methods[o->verb], .path = url_text(&url), .body = body};
    deed_status status = target_ask(&o->target, TARGET_READS, &request, reply, err);
    url_done(&url);
    return status;
}

int cmd_groups(int argc, char **argv)
{
    struct options options = {0};
    struct deed_error err = {0};
    struct reply reply;
    char *settings = NULL;
    size_t size = 0;
    bool stopped = false;
    cli_parse(&groups_argp, argc, argv, &options);
    deed_status status = DEED_OK;
    if (options.settings != NULL) {
        status = cli_body(options.settings, CLI_BODY_SIZE_MAX, &settings, &size, &err);
    }
    reply_init(&reply);
    if (status == DEED_OK) {
        status = ask(&options, (deed_bytes){(const uint8_t *)settings, size}, &reply, &err);
    }
    if (status == DEED_OK) status = answer_print(&options, &reply, &stopped, &err);
    reply_done(&reply);
    free(settings);
    if (status != DEED_OK) return cli_trouble(status, &err);
    return stopped ? CLI_FAILED : CLI_OK;
}
