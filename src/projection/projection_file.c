/* projection_file.c - headings make sections, sections make reactions, SQLite checks the rest.
 *
 * (1) Headings are comments that stand alone on a line: "projection: NAME", "tables", "on TYPES".
 * (2) Statements keep the file's order; a reaction lists those of its type by index, those of
 *     "-- on *" among them.
 * (3) Checking runs in a database in memory that is thrown away: no statement of the file has
 *     touched a read model when loading fails. */
#include "projection/projection_file.h"

#include "base/text.h"

#include <assert.h>
#include <stdlib.h>
#include <strings.h>

/* Of one file's parsed form: its text is a megabyte at most, and what is made of it some times
 * that. */
#define FILE_ARENA_SIZE_MAX      (64u << 20)
#define FILE_STATEMENT_COUNT_MAX 2000
#define FILE_TYPE_COUNT_MAX      1000
#define FILE_TYPE_SIZE_MAX       1024

/* ---- headings ------------------------------------------------------------------------------- */

enum heading_kind { HEADING_NONE, HEADING_PROJECTION, HEADING_TABLES, HEADING_ON };

static bool is_blank(char c)
{
    return c == ' ' || c == '\t';
}

static deed_str trim(deed_str s)
{
    while (s.len > 0 && is_blank(s.ptr[0]))
        s.ptr++, s.len--;
    while (s.len > 0 && is_blank(s.ptr[s.len - 1]))
        s.len--;
    return s;
}

/* The rest behind `word`, which ends there or at a blank. */
static bool heading_word(deed_str comment, const char *word, deed_str *out_rest)
{
    size_t len = strlen(word);
    if (comment.len < len || !str_equal_fold((deed_str){comment.ptr, len}, word)) return false;
    bool ends = word[len - 1] == ':' || comment.len == len || is_blank(comment.ptr[len]);
    *out_rest = trim((deed_str){comment.ptr + len, comment.len - len});
    return ends;
}

static enum heading_kind heading_of(deed_str comment, deed_str *out_rest)
{
    if (heading_word(comment, "projection:", out_rest)) return HEADING_PROJECTION;
    if (heading_word(comment, "tables", out_rest) && out_rest->len == 0) return HEADING_TABLES;
    if (heading_word(comment, "on", out_rest)) return HEADING_ON;
    return HEADING_NONE;
}

static bool is_heading(deed_str comment)
{
    deed_str rest;
    return heading_of(comment, &rest) != HEADING_NONE;
}

/* ---- parameters ----------------------------------------------------------------------------- */

static const struct source_name {
    const char *name;
    enum projection_source source;
} source_names[] = {
    {"data", PROJECTION_DATA},
    {"metadata", PROJECTION_METADATA},
    {"stream", PROJECTION_STREAM},
    {"category", PROJECTION_CATEGORY},
    {"revision", PROJECTION_REVISION},
    {"position", PROJECTION_POSITION},
    {"time", PROJECTION_TIME},
    {"recorded_at", PROJECTION_RECORDED_AT},
    {"type", PROJECTION_TYPE},
    {"id", PROJECTION_ID},
    {"tags", PROJECTION_TAGS},
    {"correlation_id", PROJECTION_CORRELATION_ID},
    {"causation_id", PROJECTION_CAUSATION_ID},
    {"actor", PROJECTION_ACTOR},
};

/* The first step of a path, which is cut off its front; quotes are taken off. */
static deed_str next_step(deed_str *path)
{
    deed_str step = {path->ptr, 0};
    size_t behind;
    if (path->ptr[0] == '"') {
        step.ptr++;
        while (step.ptr[step.len] != '"')
            step.len++;
        behind = step.len + 2;
    } else {
        while (step.len < path->len && path->ptr[step.len] != '.')
            step.len++;
        behind = step.len;
    }
    if (behind < path->len) behind++; /* the dot */
    *path = (deed_str){path->ptr + behind, path->len - behind};
    return step;
}

static deed_status parse_binding(struct arena *arena, const struct sql_parameter *parameter,
                                 struct projection_binding *out, struct deed_error *err)
{
    deed_str rest = parameter->name;
    deed_str source = next_step(&rest);
    *out = (struct projection_binding){.name = parameter->name, .optional = parameter->optional};

    size_t i = 0, count = sizeof source_names / sizeof source_names[0];
    while (i < count && !deed_str_equal(source, deed_str_of(source_names[i].name)))
        i++;
    if (i == count) {
        return deed_fail(err, DEED_INVALID,
                         "line %u: unknown parameter :%.*s; there are :data.NAME, :metadata.NAME, "
                         ":stream, :category, :revision, :position, :time, :recorded_at, :type, "
                         ":id, :tags, :correlation_id, :causation_id and :actor",
                         parameter->line, DEED_FMT(parameter->name));
    }
    out->source = source_names[i].source;
    if (rest.len > 0 && out->source != PROJECTION_DATA && out->source != PROJECTION_METADATA) {
        return deed_fail(err, DEED_INVALID, "line %u: parameter :%.*s: nothing is below :%s",
                         parameter->line, DEED_FMT(parameter->name), source_names[i].name);
    }
    struct projection_step *steps = arena_alloc_array(arena, SQL_PARAMETER_STEP_MAX, sizeof *steps);
    if (steps == NULL) return deed_fail(err, DEED_NO_MEMORY, "no memory for a parameter");
    while (rest.len > 0) {
        struct projection_step *step = &steps[out->step_count++];
        uint64_t index = 0;
        step->key = next_step(&rest);
        step->is_index = text_u64(step->key, &index) && index <= UINT32_MAX;
        step->index = (size_t)index;
    }
    out->steps = steps;
    return DEED_OK;
}

static deed_status parse_bindings(struct arena *arena, const struct sql_statement *sql,
                                  const struct projection_binding **out, struct deed_error *err)
{
    struct projection_binding *bindings =
        arena_alloc_array(arena, sql->parameter_count, sizeof *bindings);
    if (bindings == NULL) return deed_fail(err, DEED_NO_MEMORY, "no memory for parameters");
    for (size_t i = 0; i < sql->parameter_count; i++) {
        deed_status status = parse_binding(arena, &sql->parameters[i], &bindings[i], err);
        if (status != DEED_OK) return status;
    }
    *out = bindings;
    return DEED_OK;
}

/* ---- sections ------------------------------------------------------------------------------- */

/* While the file is read: which types a section answers to, and its statements. */
struct section {
    uint32_t line;
    size_t first_type, type_count;
    uint32_t first_statement, statement_count;
};

struct parsing {
    struct projection_file *file;
    struct arena *arena;
    struct sql_reader reader;
    enum heading_kind within;
    uint32_t tables_line; /* 0: no tables section yet */
    struct sql_statement *table_statements;
    struct projection_statement *statements;
    struct section *sections;
    deed_str *types; /* of all sections, one after another; "*" as written */
    size_t section_count, type_count;
};

static deed_status no_memory(struct deed_error *err)
{
    return deed_fail(err, DEED_NO_MEMORY, "no memory for the projection");
}

static bool name_valid(deed_str name)
{
    if (name.len == 0 || name.len > PROJECTION_NAME_SIZE_MAX) return false;
    for (size_t i = 0; i < name.len; i++) {
        char c = name.ptr[i];
        bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
        bool later = (c >= '0' && c <= '9') || c == '_' || c == '-';
        if (!letter && (i == 0 || !later)) return false;
    }
    return true;
}

static deed_status on_projection(struct parsing *p, deed_str rest, uint32_t line,
                                 struct deed_error *err)
{
    if (p->file->name.ptr != NULL) {
        return deed_fail(err, DEED_INVALID, "line %u: a second projection; one file holds one",
                         line);
    }
    if (!name_valid(rest)) {
        return deed_fail(err, DEED_INVALID,
                         "line %u: projection name \"%.*s\": a letter, then letters, digits, '_' "
                         "and '-', at most %d",
                         line, DEED_FMT(rest), PROJECTION_NAME_SIZE_MAX);
    }
    p->file->name = rest;
    return DEED_OK;
}

static deed_status on_tables(struct parsing *p, uint32_t line, struct deed_error *err)
{
    if (p->tables_line != 0) {
        return deed_fail(err, DEED_INVALID, "line %u: a second tables section; the first is at %u",
                         line, p->tables_line);
    }
    if (p->section_count > 0) {
        return deed_fail(err, DEED_INVALID, "line %u: the tables come before the first \"-- on\"",
                         line);
    }
    p->tables_line = line;
    return DEED_OK;
}

/* A type's name between commas, or quoted; blanks inside an unquoted one mean that the comment was
 * not meant as a heading. */
static deed_status add_type(struct parsing *p, deed_str type, uint32_t line, struct deed_error *err)
{
    bool quoted = type.len >= 2 && type.ptr[0] == '"' && type.ptr[type.len - 1] == '"';
    if (quoted) type = (deed_str){type.ptr + 1, type.len - 2};
    bool valid = type.len > 0 && type.len <= FILE_TYPE_SIZE_MAX;
    for (size_t i = 0; valid && i < type.len; i++) {
        valid = type.ptr[i] != '"' && (quoted || !is_blank(type.ptr[i]));
    }
    if (!valid) {
        return deed_fail(err, DEED_INVALID,
                         "line %u: \"-- on\" takes event types with commas between; \"%.*s\" is "
                         "none",
                         line, DEED_FMT(type));
    }
    if (p->type_count == FILE_TYPE_COUNT_MAX) {
        return deed_fail(err, DEED_TOO_LARGE, "line %u: more than %d event types", line,
                         FILE_TYPE_COUNT_MAX);
    }
    p->types[p->type_count++] = type;
    return DEED_OK;
}

static deed_status on_types(struct parsing *p, deed_str rest, uint32_t line, struct deed_error *err)
{
    if (p->section_count == FILE_STATEMENT_COUNT_MAX) {
        return deed_fail(err, DEED_TOO_LARGE, "line %u: more than %d sections", line,
                         FILE_STATEMENT_COUNT_MAX);
    }
    struct section *section = &p->sections[p->section_count++];
    *section = (struct section){.line = line,
                                .first_type = p->type_count,
                                .first_statement = (uint32_t)p->file->statement_count};
    bool more = true;
    while (more) {
        size_t len = 0;
        bool in_quotes = false;
        while (len < rest.len && (in_quotes || rest.ptr[len] != ',')) {
            if (rest.ptr[len] == '"') in_quotes = !in_quotes;
            len++;
        }
        deed_status status = add_type(p, trim((deed_str){rest.ptr, len}), line, err);
        if (status != DEED_OK) return status;
        more = len < rest.len;
        if (more) rest = (deed_str){rest.ptr + len + 1, rest.len - len - 1};
    }
    section->type_count = p->type_count - section->first_type;
    return DEED_OK;
}

static deed_status close_section(struct parsing *p, struct deed_error *err)
{
    if (p->within == HEADING_ON && p->sections[p->section_count - 1].statement_count == 0) {
        return deed_fail(err, DEED_INVALID, "line %u: a section without statements",
                         p->sections[p->section_count - 1].line);
    }
    if (p->within == HEADING_TABLES && p->file->table_statement_count == 0) {
        return deed_fail(err, DEED_INVALID, "line %u: a section without statements",
                         p->tables_line);
    }
    return DEED_OK;
}

static deed_status take_comment(struct parsing *p, const struct sql_item *item,
                                struct deed_error *err)
{
    deed_str rest;
    enum heading_kind kind = heading_of(item->comment, &rest);
    if (kind == HEADING_NONE) return DEED_OK;
    if (kind != HEADING_PROJECTION && p->file->name.ptr == NULL) {
        return deed_fail(err, DEED_INVALID,
                         "line %u: the file must begin with \"-- projection: NAME\"", item->line);
    }
    deed_status status = close_section(p, err);
    if (status != DEED_OK) return status;
    p->within = kind;
    if (kind == HEADING_PROJECTION) return on_projection(p, rest, item->line, err);
    if (kind == HEADING_TABLES) return on_tables(p, item->line, err);
    return on_types(p, rest, item->line, err);
}

static deed_status take_table_statement(struct parsing *p, const struct sql_statement *sql,
                                        struct deed_error *err)
{
    if (sql->parameter_count > 0) {
        return deed_fail(err, DEED_INVALID,
                         "line %u: parameter :%.*s among the tables: there is no event yet",
                         sql->parameters[0].line, DEED_FMT(sql->parameters[0].name));
    }
    if (p->file->table_statement_count == FILE_STATEMENT_COUNT_MAX) {
        return deed_fail(err, DEED_TOO_LARGE, "line %u: more than %d statements", sql->line,
                         FILE_STATEMENT_COUNT_MAX);
    }
    p->table_statements[p->file->table_statement_count++] = *sql;
    return DEED_OK;
}

static deed_status take_statement(struct parsing *p, const struct sql_statement *sql,
                                  struct deed_error *err)
{
    if (p->within == HEADING_TABLES) return take_table_statement(p, sql, err);
    if (p->within != HEADING_ON) {
        return deed_fail(err, DEED_INVALID,
                         "line %u: a statement before \"-- tables\" or \"-- on TYPE\"", sql->line);
    }
    if (p->file->statement_count == FILE_STATEMENT_COUNT_MAX) {
        return deed_fail(err, DEED_TOO_LARGE, "line %u: more than %d statements", sql->line,
                         FILE_STATEMENT_COUNT_MAX);
    }
    struct projection_statement *statement = &p->statements[p->file->statement_count];
    statement->sql = *sql;
    deed_status status = parse_bindings(p->arena, sql, &statement->bindings, err);
    if (status != DEED_OK) return status;
    p->file->statement_count++;
    p->sections[p->section_count - 1].statement_count++;
    return DEED_OK;
}

/* ---- reactions ------------------------------------------------------------------------------ */

static bool is_every(deed_str type)
{
    return deed_str_equal(type, DEED_STR("*"));
}

static bool section_answers(const struct parsing *p, const struct section *section, deed_str type)
{
    for (size_t i = 0; i < section->type_count; i++) {
        deed_str answered = p->types[section->first_type + i];
        if (is_every(answered) || deed_str_equal(answered, type)) return true;
    }
    return false;
}

static void hash_statements(const struct sql_statement *const *statements, size_t count,
                            struct arena *arena, uint8_t out[SHA256_SIZE])
{
    deed_bytes *parts = arena_alloc_array(arena, 2 * count, sizeof *parts);
    for (size_t i = 0; parts != NULL && i < count; i++) {
        parts[2 * i] = deed_bytes_of(statements[i]->canonical);
        parts[2 * i + 1] = deed_bytes_of(DEED_STR(";"));
    }
    sha256(parts, parts == NULL ? 0 : 2 * count, out);
}

static deed_status make_reaction(struct parsing *p, deed_str type, struct projection_reaction *out,
                                 struct deed_error *err)
{
    size_t room = p->file->statement_count;
    uint32_t *list = arena_alloc_array(p->arena, room, sizeof *list);
    const struct sql_statement **sql = arena_alloc_array(p->arena, room, sizeof(void *));
    if (list == NULL || sql == NULL) return no_memory(err);
    size_t count = 0;
    for (size_t i = 0; i < p->section_count; i++) {
        const struct section *section = &p->sections[i];
        if (!section_answers(p, section, type)) continue;
        for (uint32_t j = 0; j < section->statement_count; j++) {
            list[count] = section->first_statement + j;
            sql[count] = &p->statements[list[count]].sql;
            count++;
        }
    }
    *out = (struct projection_reaction){
        .type = is_every(type) ? (deed_str){0} : type,
        .statements = list,
        .statement_count = count,
    };
    hash_statements(sql, count, p->arena, out->hash);
    return DEED_OK;
}

static int compare_types(const void *a, const void *b)
{
    deed_str x = *(const deed_str *)a, y = *(const deed_str *)b;
    if (is_every(x) || is_every(y)) return is_every(x) - is_every(y); /* "*" last */
    return str_compare(x, y);
}

static deed_status make_reactions(struct parsing *p, struct deed_error *err)
{
    struct projection_file *file = p->file;
    struct projection_reaction *reactions =
        arena_alloc_array(p->arena, p->type_count, sizeof *reactions);
    deed_str *types = arena_alloc_array(p->arena, p->type_count, sizeof *types);
    deed_str *sorted = arena_alloc_array(p->arena, p->type_count, sizeof *sorted);
    if (reactions == NULL || types == NULL || sorted == NULL) return no_memory(err);
    memcpy(sorted, p->types, p->type_count * sizeof *sorted);
    qsort(sorted, p->type_count, sizeof *sorted, compare_types);

    for (size_t i = 0; i < p->type_count; i++) {
        if (i > 0 && deed_str_equal(sorted[i], sorted[i - 1])) continue;
        deed_status status = make_reaction(p, sorted[i], &reactions[file->reaction_count++], err);
        if (status != DEED_OK) return status;
        file->every_type |= is_every(sorted[i]);
        if (!is_every(sorted[i])) types[file->type_count++] = sorted[i];
        file->system |= sorted[i].ptr[0] == '$';
    }
    file->reactions = reactions;
    file->types = types;
    return DEED_OK;
}

const struct projection_reaction *projection_file_reaction(const struct projection_file *file,
                                                           deed_str type)
{
    for (size_t i = 0; i < file->type_count; i++) {
        if (deed_str_equal(file->reactions[i].type, type)) return &file->reactions[i];
    }
    return file->every_type ? &file->reactions[file->reaction_count - 1] : NULL;
}

static deed_status make_hashes(struct parsing *p, struct deed_error *err)
{
    struct projection_file *file = p->file;
    const struct sql_statement **sql =
        arena_alloc_array(p->arena, file->table_statement_count, sizeof(void *));
    deed_bytes *parts = arena_alloc_array(p->arena, 3 + 3 * file->reaction_count, sizeof *parts);
    if (sql == NULL || parts == NULL) return no_memory(err);
    for (size_t i = 0; i < file->table_statement_count; i++)
        sql[i] = &p->table_statements[i];
    hash_statements(sql, file->table_statement_count, p->arena, file->tables_hash);

    size_t count = 0;
    parts[count++] = deed_bytes_of(file->name);
    parts[count++] = deed_bytes_of(DEED_STR("\n"));
    parts[count++] = (deed_bytes){file->tables_hash, SHA256_SIZE};
    for (size_t i = 0; i < file->reaction_count; i++) {
        parts[count++] = deed_bytes_of(file->reactions[i].type);
        parts[count++] = deed_bytes_of(DEED_STR("\n"));
        parts[count++] = (deed_bytes){file->reactions[i].hash, SHA256_SIZE};
    }
    sha256(parts, count, file->hash);
    return DEED_OK;
}

static deed_status parse(struct parsing *p, struct deed_error *err)
{
    p->table_statements =
        arena_alloc_array(p->arena, FILE_STATEMENT_COUNT_MAX, sizeof *p->table_statements);
    p->statements = arena_alloc_array(p->arena, FILE_STATEMENT_COUNT_MAX, sizeof *p->statements);
    p->sections = arena_alloc_array(p->arena, FILE_STATEMENT_COUNT_MAX, sizeof *p->sections);
    p->types = arena_alloc_array(p->arena, FILE_TYPE_COUNT_MAX, sizeof *p->types);
    if (p->table_statements == NULL || p->statements == NULL || p->sections == NULL ||
        p->types == NULL) {
        return no_memory(err);
    }
    p->file->table_statements = p->table_statements;
    p->file->statements = p->statements;

    struct sql_item item = {.kind = SQL_ITEM_COMMENT};
    while (true) {
        deed_status status = sql_next(&p->reader, &item, err);
        if (status == DEED_OK && item.kind == SQL_ITEM_END) break;
        if (status == DEED_OK && item.kind == SQL_ITEM_COMMENT)
            status = take_comment(p, &item, err);
        if (status == DEED_OK && item.kind == SQL_ITEM_STATEMENT) {
            status = take_statement(p, &item.statement, err);
        }
        if (status != DEED_OK) return status;
    }
    deed_status status = close_section(p, err);
    if (status != DEED_OK) return status;
    if (p->file->name.ptr == NULL) {
        return deed_fail(err, DEED_INVALID, "there is no \"-- projection: NAME\"");
    }
    if (p->tables_line == 0) return deed_fail(err, DEED_INVALID, "there is no \"-- tables\"");
    if (p->section_count == 0) return deed_fail(err, DEED_INVALID, "there is no \"-- on TYPE\"");
    status = make_reactions(p, err);
    return status == DEED_OK ? make_hashes(p, err) : status;
}

/* ---- checking with SQLite ------------------------------------------------------------------- */

static deed_status fail_at(const struct sql_statement *sql, size_t offset, struct deed_error *err)
{
    deed_wrap(err, "line %u", sql_statement_line(sql, offset));
    return err == NULL ? DEED_INVALID : err->status;
}

/* A default's functions are not shown to the authorizer, so the words are looked at; see
 * database.h. */
static deed_status check_table_words(const struct sql_statement *sql, struct deed_error *err)
{
    struct sql_token token, last = {0};
    for (size_t at = 0;; at += token.text.len) {
        const char *trouble = sql_token_at(sql->canonical, at, &token);
        assert(trouble == NULL); /* it has been read before */
        if (trouble != NULL || token.kind == SQL_TOKEN_END) return DEED_OK;
        bool is_call = token.kind == SQL_TOKEN_OPEN && last.kind == SQL_TOKEN_WORD &&
                       database_word_is_random(last.text);
        bool is_now = token.kind == SQL_TOKEN_WORD && database_word_is_random(token.text) &&
                      token.text.len > 8 && strncasecmp(token.text.ptr, "current_", 8) == 0;
        bool is_now_text = token.kind == SQL_TOKEN_STRING && str_equal_fold(token.text, "'now'");
        if (is_call || is_now || is_now_text) {
            return deed_fail(err, DEED_INVALID, "line %u: %.*s is not deterministic", sql->line,
                             DEED_FMT(is_call ? last.text : token.text));
        }
        if (token.kind != SQL_TOKEN_SPACE) last = token;
    }
}

static deed_status check_table_verb(const struct sql_statement *sql, struct deed_error *err)
{
    static const char *const verbs[] = {"table", "index", "unique", "view"};
    struct sql_token token;
    bool is_create = false;
    for (size_t at = 0; at < sql->canonical.len; at += token.text.len) {
        if (sql_token_at(sql->canonical, at, &token) != NULL) break;
        if (token.kind == SQL_TOKEN_SPACE) continue;
        if (!is_create) {
            is_create = str_equal_fold(token.text, "create");
            if (!is_create) break;
            continue;
        }
        if (sql_word_in(token.text, verbs, sizeof verbs / sizeof verbs[0])) return DEED_OK;
        break;
    }
    return deed_fail(err, DEED_INVALID,
                     "line %u: only CREATE TABLE, CREATE INDEX and CREATE VIEW stand among the "
                     "tables",
                     sql->line);
}

/* Run one of the tables section's statements. */
static deed_status check_table_statement(struct database *db, const struct sql_statement *sql,
                                         struct deed_error *err)
{
    deed_status status = check_table_verb(sql, err);
    if (status == DEED_OK) status = check_table_words(sql, err);
    if (status != DEED_OK) return status;
    size_t offset = 0;
    sqlite3_stmt *statement = NULL;
    status = database_prepare(db, DATABASE_TABLES, sql->text, false, &statement, &offset, err);
    if (status == DEED_OK) {
        sqlite3_finalize(statement);
        status = database_run(db, DATABASE_TABLES, sql->text.ptr, err);
    }
    return status == DEED_OK ? DEED_OK : fail_at(sql, offset, err);
}

static deed_status has_primary_key(struct database *db, const char *table, bool *out,
                                   struct deed_error *err)
{
    char *sql = sqlite3_mprintf("PRAGMA table_info(\"%w\")", table);
    if (sql == NULL) return no_memory(err);
    sqlite3_stmt *columns = NULL;
    deed_status status =
        database_prepare(db, DATABASE_TRUSTED, deed_str_of(sql), false, &columns, NULL, err);
    sqlite3_free(sql);
    if (status != DEED_OK) return status;
    *out = false;
    int rc;
    while ((rc = sqlite3_step(columns)) == SQLITE_ROW)
        *out |= sqlite3_column_int(columns, 5) > 0;
    if (rc != SQLITE_DONE) status = database_fail(db, err);
    sqlite3_finalize(columns);
    return status;
}

/* Add what the statement at `index` has made to the file's tables. */
static deed_status collect_tables(struct parsing *p, struct database *db, uint32_t line,
                                  deed_str *tables, struct deed_error *err)
{
    sqlite3_stmt *list = NULL;
    deed_status status = database_prepare(
        db, DATABASE_TRUSTED,
        DEED_STR(
            "SELECT name, type FROM sqlite_schema WHERE type IN ('table', 'view') AND name NOT "
            "LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY rowid LIMIT -1 OFFSET ?1"),
        false, &list, NULL, err);
    if (status != DEED_OK) return status;
    (void)sqlite3_bind_int64(list, 1, (sqlite3_int64)p->file->table_count);
    int rc = SQLITE_DONE;
    while (status == DEED_OK && (rc = sqlite3_step(list)) == SQLITE_ROW) {
        const char *name = (const char *)sqlite3_column_text(list, 0);
        const char *type = (const char *)sqlite3_column_text(list, 1);
        bool keyed = true;
        if (name == NULL || type == NULL) {
            status = no_memory(err);
            break;
        }
        if (strcmp(type, "table") == 0) status = has_primary_key(db, name, &keyed, err);
        if (status == DEED_OK && !keyed) {
            status =
                deed_fail(err, DEED_INVALID, "line %u: table %s has no primary key", line, name);
        }
        deed_str copy = arena_str(p->arena, deed_str_of(name));
        if (status == DEED_OK && copy.ptr == NULL) status = no_memory(err);
        if (status == DEED_OK) tables[p->file->table_count++] = copy;
    }
    /* Only the end of the list is its end. */
    if (status == DEED_OK && rc != SQLITE_DONE) status = database_fail(db, err);
    sqlite3_finalize(list);
    return status;
}

/* SQLite looks into a view only when it is used, which may be years later. */
static deed_status check_views(struct parsing *p, struct database *db, const uint32_t *lines,
                               struct deed_error *err)
{
    deed_status status = DEED_OK;
    for (size_t i = 0; status == DEED_OK && i < p->file->table_count; i++) {
        char *sql = sqlite3_mprintf("SELECT * FROM \"%w\"", p->file->tables[i].ptr);
        if (sql == NULL) return no_memory(err);
        sqlite3_stmt *statement = NULL;
        status =
            database_prepare(db, DATABASE_QUERY, deed_str_of(sql), false, &statement, NULL, err);
        sqlite3_finalize(statement);
        sqlite3_free(sql);
        if (status != DEED_OK) deed_wrap(err, "line %u", lines[i]);
    }
    return status;
}

static deed_status check_tables(struct parsing *p, struct database *db, struct deed_error *err)
{
    struct projection_file *file = p->file;
    deed_str *tables = arena_alloc_array(p->arena, file->table_statement_count, sizeof *tables);
    uint32_t *lines = arena_alloc_array(p->arena, file->table_statement_count, sizeof *lines);
    if (tables == NULL || lines == NULL) return no_memory(err);
    file->tables = tables;
    for (size_t i = 0; i < file->table_statement_count; i++) {
        const struct sql_statement *sql = &file->table_statements[i];
        size_t before = file->table_count;
        deed_status status = check_table_statement(db, sql, err);
        if (status == DEED_OK) status = collect_tables(p, db, sql->line, tables, err);
        if (status != DEED_OK) return status;
        for (size_t j = before; j < file->table_count; j++)
            lines[j] = sql->line;
    }
    assert(file->table_count <= file->table_statement_count);
    if (file->table_count == 0) {
        return deed_fail(err, DEED_INVALID, "line %u: no table", p->tables_line);
    }
    database_set_tables(db, file->tables, file->table_count);
    return check_views(p, db, lines, err);
}

/* 'now' and time zones, written out in a statement that uses date functions. */
static deed_status check_date_words(const struct sql_statement *sql, struct deed_error *err)
{
    static const char *const words[] = {"'now'", "'localtime'", "'utc'"};
    struct sql_token token;
    for (size_t at = 0; sql_token_at(sql->canonical, at, &token) == NULL; at += token.text.len) {
        if (token.kind == SQL_TOKEN_END) break;
        if (token.kind != SQL_TOKEN_STRING) continue;
        if (!sql_word_in(token.text, words, sizeof words / sizeof words[0])) continue;
        return deed_fail(err, DEED_INVALID,
                         "line %u: %.*s in a date function is not deterministic: use :time or "
                         ":recorded_at",
                         sql->line, DEED_FMT(token.text));
    }
    return DEED_OK;
}

static deed_status check_statement(struct database *db, const struct sql_statement *sql,
                                   struct deed_error *err)
{
    /* By list, since SQLite does not ask the authorizer about every kind: not about VACUUM INTO,
     * which writes a file. */
    static const char *const verbs[] = {"insert", "replace", "update", "delete", "with"};
    deed_str verb = sql_statement_verb(sql);
    if (!sql_word_in(verb, verbs, sizeof verbs / sizeof verbs[0])) {
        return deed_fail(err, DEED_INVALID,
                         "line %u: %.*s is not allowed in a projection: a statement begins with "
                         "INSERT, REPLACE, UPDATE, DELETE or WITH",
                         sql->line, DEED_FMT(verb));
    }
    size_t offset = 0;
    sqlite3_stmt *statement = NULL;
    deed_status status =
        database_prepare(db, DATABASE_STATEMENT, sql->text, false, &statement, &offset, err);
    if (status != DEED_OK) return fail_at(sql, offset, err);
    bool changes = !sqlite3_stmt_readonly(statement);
    sqlite3_finalize(statement);
    if (!changes) {
        return deed_fail(err, DEED_INVALID, "line %u: this statement changes nothing", sql->line);
    }
    return database_used_dates(db) ? check_date_words(sql, err) : DEED_OK;
}

static deed_status check(struct parsing *p, struct os *os, struct deed_error *err)
{
    struct database *db = NULL;
    struct database_options options = {.create = true, .deterministic = true};
    deed_status status = database_open(os, &options, &db, err);
    if (status != DEED_OK) return status;
    status = check_tables(p, db, err);
    for (size_t i = 0; status == DEED_OK && i < p->file->statement_count; i++) {
        status = check_statement(db, &p->file->statements[i].sql, err);
    }
    database_close(db);
    return status;
}

/* ---- loading -------------------------------------------------------------------------------- */

deed_status projection_file_load(struct os *os, deed_str name, deed_str text,
                                 struct projection_file **out_file, struct deed_error *err)
{
    struct deed_error scratch; /* the checks put lines in front of messages */
    if (err == NULL) err = &scratch;
    struct projection_file *file = calloc(1, sizeof *file);
    if (file == NULL) return no_memory(err);
    arena_init(&file->arena, FILE_ARENA_SIZE_MAX);
    deed_status status = DEED_OK;
    file->file = arena_str(&file->arena, name);
    if (text.len > SQL_TEXT_SIZE_MAX) {
        status = deed_fail(err, DEED_TOO_LARGE, "%zu bytes, limit %u", text.len, SQL_TEXT_SIZE_MAX);
    } else {
        file->text = arena_str(&file->arena, text);
        if (file->file.ptr == NULL || file->text.ptr == NULL) status = no_memory(err);
    }
    struct parsing p = {
        .file = file,
        .arena = &file->arena,
        .reader = {.arena = &file->arena, .text = file->text, .is_heading = is_heading},
    };
    if (status == DEED_OK) status = parse(&p, err);
    if (status == DEED_OK) status = check(&p, os, err);
    if (status != DEED_OK) {
        if (name.len > 0) deed_wrap(err, "%.*s", DEED_FMT(name));
        projection_file_free(file);
        return status;
    }
    *out_file = file;
    return DEED_OK;
}

void projection_file_free(struct projection_file *file)
{
    if (file == NULL) return;
    arena_done(&file->arena);
    free(file);
}
