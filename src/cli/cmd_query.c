/* cmd_query.c - deedbook query: ask the read models, now or then. */
#include "cli/out.h"
#include "cli/target.h"

#include "cli/local.h"
#include "store/store.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

struct options {
    struct cli_target target;
    const char *name, *after, *position, *at;
    struct cli_list parameters; /* NAME=VALUE */
};

enum { KEY_AFTER = 'a', KEY_POSITION = 'p', KEY_AT = 0x300 };

static const struct argp_option option_list[] = {
    {"after", KEY_AFTER, "POSITION", 0, "wait until the read models have seen this position", 0},
    {"position", KEY_POSITION, "POSITION", 0, "answer as of this position", 0},
    {"at", KEY_AT, "TIME", 0, "answer as of this time (RFC 3339)", 0},
    {0},
};

static error_t parse(int key, char *argument, struct argp_state *state)
{
    struct options *o = state->input;
    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &o->target;
        return 0;
    case KEY_AFTER:
        o->after = argument;
        return 0;
    case KEY_POSITION:
        o->position = argument;
        return 0;
    case KEY_AT:
        o->at = argument;
        return 0;
    case ARGP_KEY_ARG:
        if (state->arg_num == 0) {
            o->name = argument;
        } else if (strchr(argument, '=') == NULL || argument[0] == '=') {
            argp_error(state, "\"%s\" is not PARAMETER=VALUE", argument);
        } else {
            cli_list_add(&o->parameters, argument);
        }
        return 0;
    case ARGP_KEY_END:
        if ((o->after != NULL) + (o->position != NULL) + (o->at != NULL) > 1) {
            argp_error(state, "--after, --position and --at exclude each other");
        }
        if (o->target.data != NULL && o->target.app == NULL) {
            argp_error(state, "--data needs --app, which has the queries");
        }
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp query_argp = {
    .options = option_list,
    .parser = parse,
    .args_doc = "[NAME [PARAMETER=VALUE...]]",
    .doc = "Answer a query of the app; without a name, list the queries.\v"
           "Examples:\n"
           "  deedbook query order_summary order_id=1001\n"
           "  deedbook query customer_totals --at 2026-11-23T04:00:00Z --json",
    .children = cli_target_children,
};

/* ---- printing -----------------------------------------------------------------------------------
 */

#define COLUMNS_MAX 64
/* A server lets nobody wait longer. */
#define SERVER_WAIT_MS_MAX 300000u

/* A row's cells as people write them: texts without quotes, NULL as nothing. */
static void cell_put(struct out_table *table, json_value value)
{
    enum json_kind kind = json_kind_of(value);
    if (kind == JSON_STRING) {
        out_table_text(table, json_text(value));
    } else if (kind == JSON_NULL || kind == JSON_NONE) {
        out_table_cell(table, "%s", "");
    } else {
        out_table_text(table, json_raw(value));
    }
}

/* A column is a number's if the first row that has a value there has one. */
static bool is_number(json_value rows, deed_str key)
{
    for (struct json_iterator i = json_iterate(rows); json_next(&i);) {
        enum json_kind kind = json_kind_of(json_get(i.value, key));
        if (kind != JSON_NULL && kind != JSON_NONE) return kind == JSON_NUMBER;
    }
    return false;
}

static deed_status rows_print(json_value rows, struct deed_error *err)
{
    struct out_column columns[COLUMNS_MAX];
    deed_str keys[COLUMNS_MAX];
    char headings[COLUMNS_MAX][64];
    size_t count = 0;
    if (json_count(rows) == 0) {
        puts("no rows");
        return DEED_OK;
    }
    for (struct json_iterator i = json_iterate(json_at(rows, 0));
         json_next(&i) && count < COLUMNS_MAX; count++) {
        keys[count] = i.key;
        snprintf(headings[count], sizeof headings[count], "%.*s", DEED_FMT(i.key));
        columns[count] =
            (struct out_column){headings[count], is_number(rows, i.key) ? OUT_RIGHT : OUT_CUT};
    }
    struct out_table *table = out_table_create(columns, count);
    for (struct json_iterator i = json_iterate(rows); json_next(&i);) {
        out_table_row(table);
        for (size_t c = 0; c < count; c++)
            cell_put(table, json_get(i.value, keys[c]));
    }
    return out_table_end(table, stdout, err);
}

/* ["a","b"] as "a b". */
static deed_str words(struct arena *arena, json_value list)
{
    deed_str text = DEED_STR("");
    for (struct json_iterator i = json_iterate(list); json_next(&i);) {
        text = arena_printf(arena, "%.*s%s%.*s", DEED_FMT(text), i.index > 0 ? " " : "",
                            DEED_FMT(json_text(i.value)));
    }
    return text;
}

/* A comment of several lines, on one. */
static deed_str one_line(struct arena *arena, deed_str text)
{
    char *line = arena_alloc(arena, text.len + 1);
    if (line == NULL) return text;
    for (size_t i = 0; i < text.len; i++) line[i] = text.ptr[i] == '\n' ? ' ' : text.ptr[i];
    return (deed_str){line, text.len};
}

static deed_status list_print(struct arena *arena, json_value list, struct deed_error *err)
{
    static const struct out_column columns[] = {
        {"QUERY", 0}, {"PARAMETERS", 0}, {"PROJECTIONS", 0}, {"WHAT IT ANSWERS", OUT_CUT}};
    struct out_table *table = out_table_create(columns, 4);
    for (struct json_iterator i = json_iterate(list); json_next(&i);) {
        out_table_row(table);
        out_table_text(table, json_text(json_get(i.value, DEED_STR("name"))));
        out_table_text(table, words(arena, json_get(i.value, DEED_STR("parameters"))));
        out_table_text(table, words(arena, json_get(i.value, DEED_STR("projections"))));
        deed_str comment = json_text(json_get(i.value, DEED_STR("comment")));
        out_table_text(table, one_line(arena, comment));
    }
    return out_table_end(table, stdout, err);
}

static deed_status answer_print(const struct options *o, const struct reply *reply,
                                struct deed_error *err)
{
    if (o->target.json) {
        out_body(buf_bytes(&reply->body));
        return DEED_OK;
    }
    struct arena arena;
    json_value answer;
    arena_init(&arena, 2 * REPLY_SIZE_MAX);
    deed_status status = json_parse(&arena, buf_bytes(&reply->body), 1024, &answer, err);
    if (status == DEED_OK) {
        status = o->name == NULL ? list_print(&arena, answer, err) : rows_print(answer, err);
    }
    if (status == DEED_OK && o->name != NULL && reply->position != DEED_NONE) {
        printf("%sas of position %" PRIu64 "%s\n", out_start(stdout, OUT_DIM), reply->position,
               out_stop(stdout));
    }
    arena_done(&arena);
    return status;
}

/* ---- asking -------------------------------------------------------------------------------------
 */

static void url_make(const struct options *o, struct target *target, struct url *url)
{
    url_init(url, "/queries");
    if (o->name == NULL) return;
    url_part(url, o->name);
    for (size_t i = 0; i < o->parameters.count; i++) {
        const char *text = o->parameters.items[i], *equals = strchr(text, '=');
        char *name = strndup(text, (size_t)(equals - text));
        if (name == NULL) exit(cli_fail(CLI_FAILED, "out of memory"));
        url_param(url, name, equals + 1);
        free(name);
    }
    url_param(url, "after", o->after);
    url_param(url, "position", o->position);
    url_param(url, "at", o->at);
    if (target_local(target) != NULL && o->after == NULL && o->position == NULL && o->at == NULL) {
        /* Nobody has kept the read models up since the directory was last served. */
        url_param_uint(url, "after", store_position(local_store(target_local(target))));
    }
    char timeout[32];
    uint32_t timeout_ms =
        o->target.timeout_ms < SERVER_WAIT_MS_MAX ? o->target.timeout_ms : SERVER_WAIT_MS_MAX;
    snprintf(timeout, sizeof timeout, "%" PRIu32 "ms", timeout_ms);
    url_param(url, "timeout", timeout);
}

static deed_status run(const struct options *o, struct deed_error *err)
{
    struct target *target = NULL;
    struct reply reply;
    struct url url = {0};
    reply_init(&reply);
    deed_status status = target_open(&o->target, TARGET_QUERIES, &target, err);
    if (status == DEED_OK) {
        url_make(o, target, &url);
        struct request request = {.method = "GET", .path = url_text(&url)};
        status = target_call(target, &request, &reply, err);
    }
    if (status == DEED_OK) status = answer_print(o, &reply, err);
    target_close(target);
    url_done(&url);
    reply_done(&reply);
    return status;
}

int cmd_query(int argc, char **argv)
{
    struct options options = {0};
    struct deed_error err = {0};
    cli_parse(&query_argp, argc, argv, &options);
    return cli_end(run(&options, &err), &err);
}
