/* cmd_projections.c - deedbook projections: how far the read models are; pause and resume them. */
#include "cli/out.h"
#include "cli/target.h"

#include <string.h>

struct options {
    struct cli_target target;
    const char *verb, *name;
};

static error_t parse(int key, char *argument, struct argp_state *state)
{
    struct options *o = state->input;
    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &o->target;
        return 0;
    case ARGP_KEY_ARG:
        if (state->arg_num == 0) {
            o->verb = argument;
        } else {
            cli_one(state, &o->name, "projection", argument);
        }
        return 0;
    case ARGP_KEY_END:
        if (o->verb != NULL && strcmp(o->verb, "pause") != 0 && strcmp(o->verb, "resume") != 0) {
            argp_error(state, "\"%s\" is not pause or resume", o->verb);
        }
        if (o->verb != NULL && o->name == NULL) argp_error(state, "which projection?");
        if (o->target.data != NULL) {
            argp_error(state, "projections run in a server; `deedbook query --data` catches up "
                              "what it needs");
        }
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp projections_argp = {
    .parser = parse,
    .args_doc = "[pause|resume NAME]",
    .doc =
        "List the projections of a server: state, position, lag, and what stopped them. Or pause "
        "one, or resume one that was paused or had failed.\v"
        "Examples:\n"
        "  deedbook projections\n"
        "  deedbook projections resume order_summary\n\n"
        "The list exits with 1 if a projection has failed.",
    .children = cli_target_children,
};

static deed_str text_of(json_value row, const char *key)
{
    return json_text(json_get(row, deed_str_of(key)));
}

static void row_put(struct out_table *table, json_value row)
{
    double rate = 0;
    (void)json_double(json_get(row, DEED_STR("rate")), &rate);
    out_table_row(table);
    out_table_text(table, text_of(row, "name"));
    out_table_text(table, text_of(row, "state"));
    out_table_text(table, json_raw(json_get(row, DEED_STR("position"))));
    out_table_text(table, json_raw(json_get(row, DEED_STR("lag"))));
    out_table_cell(table, "%.0f", rate);
    out_table_text(table, json_raw(json_get(row, DEED_STR("generation"))));
    bool rebuilding = json_kind_of(json_get(row, DEED_STR("rebuild"))) == JSON_OBJECT;
    out_table_cell(table, "%s", rebuilding ? "yes" : "");
}

/* A file that is refused now, and may be mended. */
static void refusal_print(json_value row)
{
    printf("\n%s", out_start(stdout, OUT_RED));
    out_text(stdout, text_of(row, "name"));
    printf("%s is not taken up: ", out_stop(stdout));
    out_text(stdout, text_of(row, "file_error"));
    putchar('\n');
}

static void name_print(json_value row)
{
    printf("\n%s", out_start(stdout, OUT_RED));
    out_text(stdout, text_of(row, "name"));
    printf("%s", out_stop(stdout));
}

/* What stopped a projection, whole: it is what its author needs. Trouble with storage is on no
 * event and in no statement. */
static void failure_print(json_value row)
{
    json_value error = json_get(row, DEED_STR("error"));
    json_value position = json_get(error, DEED_STR("position"));
    deed_str statement = text_of(error, "statement");
    name_print(row);
    printf(" stopped");
    if (json_kind_of(position) == JSON_NUMBER) {
        printf(" at position %.*s", DEED_FMT(json_raw(position)));
    }
    printf(": ");
    out_text(stdout, text_of(error, "message"));
    putchar('\n');
    if (statement.len == 0) return;
    printf("  ");
    out_text(stdout, statement);
    putchar('\n');
}

/* A changed file that could not take over: the old one answers, and nothing else would tell. */
static void rebuild_failure_print(json_value row)
{
    deed_str message = text_of(row, "rebuild_error");
    if (message.len == 0) return;
    name_print(row);
    printf(" was not rebuilt, its rows stay as they were: ");
    out_text(stdout, message);
    putchar('\n');
}

/* Rows that lack something, because somebody forced them. */
static void removed_print(json_value row)
{
    uint64_t removed = 0;
    if (!json_uint64(json_get(row, DEED_STR("removed_events")), &removed) || removed == 0) return;
    putchar('\n');
    out_text(stdout, text_of(row, "name"));
    printf(" was built across %llu removed event%s\n", (unsigned long long)removed,
           removed == 1 ? "" : "s");
}

static bool is_refused(json_value row)
{
    return json_kind_of(json_get(row, DEED_STR("file_error"))) == JSON_STRING;
}

/* One that was refused from the start says so in both members. */
static bool is_stopped(json_value row)
{
    json_value error = json_get(row, DEED_STR("error"));
    if (json_kind_of(error) != JSON_OBJECT) return false;
    return !is_refused(row) || !deed_str_equal(text_of(error, "message"), text_of(row, "file_error"));
}

/* The table, and below it what stopped those that failed, and which files are refused. */
static deed_status list_print(json_value list, struct deed_error *err)
{
    static const struct out_column columns[] = {{"PROJECTION", 0},       {"STATE", 0},
                                                {"POSITION", OUT_RIGHT}, {"LAG", OUT_RIGHT},
                                                {"EVENTS/S", OUT_RIGHT}, {"GENERATION", OUT_RIGHT},
                                                {"REBUILDING", 0}};
    struct out_table *table = out_table_create(columns, sizeof columns / sizeof columns[0]);
    for (struct json_iterator i = json_iterate(list); json_next(&i);)
        row_put(table, i.value);
    deed_status status = out_table_end(table, stdout, err);
    for (struct json_iterator i = json_iterate(list); json_next(&i);) {
        if (is_stopped(i.value)) failure_print(i.value);
        if (is_refused(i.value)) refusal_print(i.value);
        rebuild_failure_print(i.value);
        removed_print(i.value);
    }
    return status;
}

static deed_status answer_print(const struct options *o, const struct reply *reply,
                                bool *out_failed, struct deed_error *err)
{
    struct arena arena;
    json_value list;
    arena_init(&arena, REPLY_SIZE_MAX);
    deed_status status = json_parse(&arena, buf_bytes(&reply->body), 0, &list, err);
    if (status == DEED_OK) {
        for (struct json_iterator i = json_iterate(list); json_next(&i);) {
            if (is_stopped(i.value) || is_refused(i.value)) *out_failed = true;
        }
        if (o->target.json) {
            out_body(buf_bytes(&reply->body));
        } else {
            status = list_print(list, err);
        }
    }
    arena_done(&arena);
    return status;
}

static deed_status run(const struct options *o, bool *out_failed, struct deed_error *err)
{
    struct reply reply;
    struct url url;
    reply_init(&reply);
    url_init(&url, "/projections");
    if (o->verb != NULL) {
        url_part(&url, o->name);
        url_part(&url, o->verb);
    }
    struct request request = {.method = o->verb == NULL ? "GET" : "POST", .path = url_text(&url)};
    deed_status status = target_ask(&o->target, TARGET_READS, &request, &reply, err);
    if (status == DEED_OK && o->verb == NULL) status = answer_print(o, &reply, out_failed, err);
    url_done(&url);
    reply_done(&reply);
    return status;
}

int cmd_projections(int argc, char **argv)
{
    struct options options = {0};
    struct deed_error err = {0};
    bool failed = false;
    cli_parse(&projections_argp, argc, argv, &options);
    deed_status status = run(&options, &failed, &err);
    if (status != DEED_OK) return cli_trouble(status, &err);
    return failed ? CLI_FAILED : CLI_OK;
}
