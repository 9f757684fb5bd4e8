/* query_file.c - what can be told without SQLite. */
#include "query/query_file.h"

#include <stdlib.h>

#define FILE_ARENA_SIZE_MAX (16u << 20)

static bool name_valid(deed_str name)
{
    if (name.len == 0 || name.len > QUERY_NAME_SIZE_MAX) return false;
    for (size_t i = 0; i < name.len; i++) {
        char c = name.ptr[i];
        bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
        bool later = (c >= '0' && c <= '9') || c == '_' || c == '-';
        if (!letter && (i == 0 || !later)) return false;
    }
    return true;
}

static bool is_plain(deed_str name)
{
    for (size_t i = 0; i < name.len; i++) {
        if (name.ptr[i] == '.' || name.ptr[i] == '"') return false;
    }
    return true;
}

/* What a request for any query says with these: no value could be given to a query's own. */
static bool is_taken(deed_str name)
{
    static const char *const taken[] = {"after", "timeout", "position", "at"};
    for (size_t i = 0; i < sizeof taken / sizeof taken[0]; i++) {
        if (deed_str_equal(name, deed_str_of(taken[i]))) return true;
    }
    return false;
}

static deed_status check_parameters(struct query_file *file, struct deed_error *err)
{
    const struct sql_statement *sql = &file->sql;
    deed_str *names = arena_alloc_array(&file->arena, sql->parameter_count, sizeof *names);
    if (names == NULL) return deed_fail(err, DEED_NO_MEMORY, "no memory for parameters");
    for (size_t i = 0; i < sql->parameter_count; i++) {
        const struct sql_parameter *p = &sql->parameters[i];
        if (!is_plain(p->name)) {
            return deed_fail(err, DEED_INVALID,
                             "line %u: parameter :%.*s: a query's parameters have no '.'", p->line,
                             DEED_FMT(p->name));
        }
        if (is_taken(p->name)) {
            return deed_fail(
                err, DEED_INVALID,
                "line %u: parameter :%.*s: every query has that one, to say as of when "
                "it answers; name it otherwise",
                p->line, DEED_FMT(p->name));
        }
        for (size_t j = 0; j < i; j++) {
            if (!deed_str_equal(sql->parameters[j].name, p->name)) continue;
            return deed_fail(err, DEED_INVALID,
                             "line %u: parameter :%.*s is written both with and without '?'",
                             p->line, DEED_FMT(p->name));
        }
        names[i] = (deed_str){p->name.ptr, p->name.len + (p->optional ? 1 : 0)};
    }
    file->parameters = names;
    file->parameter_count = sql->parameter_count;
    return DEED_OK;
}

static deed_status add_comment(struct query_file *file, deed_str line, struct deed_error *err)
{
    file->comment =
        file->comment.ptr == NULL
            ? arena_str(&file->arena, line)
            : arena_printf(&file->arena, "%.*s\n%.*s", DEED_FMT(file->comment), DEED_FMT(line));
    if (file->comment.ptr == NULL) return deed_fail(err, DEED_NO_MEMORY, "no memory for a comment");
    return DEED_OK;
}

static deed_status take_statement(struct query_file *file, const struct sql_item *item,
                                  struct deed_error *err)
{
    static const char *const verbs[] = {"select", "with", "values"};
    if (file->sql.text.ptr != NULL) {
        return deed_fail(err, DEED_INVALID, "line %u: a second statement; a query is one SELECT",
                         item->line);
    }
    deed_str verb = sql_statement_verb(&item->statement);
    if (!sql_word_in(verb, verbs, sizeof verbs / sizeof verbs[0])) {
        return deed_fail(err, DEED_INVALID,
                         "line %u: %.*s is not allowed in a query: it begins with SELECT, WITH or "
                         "VALUES",
                         item->line, DEED_FMT(verb));
    }
    file->sql = item->statement;
    return check_parameters(file, err);
}

static deed_status parse(struct query_file *file, deed_str text, struct deed_error *err)
{
    struct sql_reader reader = {.arena = &file->arena, .text = text};
    for (;;) {
        struct sql_item item;
        deed_status status = sql_next(&reader, &item, err);
        if (status != DEED_OK) return status;
        if (item.kind == SQL_ITEM_END) break;
        if (item.kind == SQL_ITEM_COMMENT && file->sql.text.ptr == NULL) {
            status = add_comment(file, item.comment, err);
        }
        if (item.kind == SQL_ITEM_STATEMENT) status = take_statement(file, &item, err);
        if (status != DEED_OK) return status;
    }
    if (file->sql.text.ptr == NULL) return deed_fail(err, DEED_INVALID, "there is no SELECT");
    return DEED_OK;
}

deed_status query_file_load(deed_str name, deed_str text, struct query_file **out_file,
                            struct deed_error *err)
{
    if (!name_valid(name)) {
        return deed_fail(
            err, DEED_INVALID,
            "query name \"%.*s\": a letter, then letters, digits, '_' and '-', at most "
            "%d",
            DEED_FMT(name), QUERY_NAME_SIZE_MAX);
    }
    if (text.len > SQL_TEXT_SIZE_MAX) {
        return deed_fail(err, DEED_TOO_LARGE, "query %.*s: %zu bytes, limit %u", DEED_FMT(name),
                         text.len, SQL_TEXT_SIZE_MAX);
    }
    struct query_file *file = calloc(1, sizeof *file);
    if (file == NULL) return deed_fail(err, DEED_NO_MEMORY, "no memory for a query");
    arena_init(&file->arena, FILE_ARENA_SIZE_MAX);
    file->name = arena_str(&file->arena, name);
    deed_str copy = arena_str(&file->arena, text);
    deed_status status = file->name.ptr == NULL || copy.ptr == NULL
                             ? deed_fail(err, DEED_NO_MEMORY, "no memory for a query")
                             : parse(file, copy, err);
    if (status != DEED_OK) {
        deed_wrap(err, "query %.*s", DEED_FMT(name));
        query_file_free(file);
        return status;
    }
    if (file->comment.ptr == NULL) file->comment = DEED_STR("");
    *out_file = file;
    return DEED_OK;
}

void query_file_free(struct query_file *file)
{
    if (file == NULL) return;
    arena_done(&file->arena);
    free(file);
}
