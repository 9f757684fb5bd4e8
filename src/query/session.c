/* session.c - attach, begin, read the checkpoints, read the rows.
 *
 * (1) The connection's own database is empty and in memory; it and everything attached to it is
 *     opened read-only. The role says no to all but SELECT besides.
 * (2) Reading all checkpoints comes first in the transaction: it fixes what every file shows. */
#include "query/session.h"

#include "base/text.h"
#include "json/json.h"
#include "projection/generation.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#define SESSION_ARENA_SIZE_MAX (4u << 20)
/* Values of one column: SQLite's own limit is lower (database.c). */
#define VALUE_SIZE_MAX (256u << 20)

struct session {
    struct os *os;
    const struct query_file *file;
    struct database *db;
    struct arena arena;
    char *paths[SESSION_FILE_COUNT_MAX];
    size_t count;
    sqlite3_stmt *begin, *end, *positions, *select;
    deed_str *columns;
    int column_count;
    struct buf scratch; /* for values that need another form */
};

static deed_status no_memory(struct deed_error *err)
{
    return deed_fail(err, DEED_NO_MEMORY, "no memory for a query");
}

/* ---- opening -------------------------------------------------------------------------------- */

static deed_status attach(struct session *s, size_t index, struct deed_error *err)
{
    char sql[40];
    (void)snprintf(sql, sizeof sql, "ATTACH ?1 AS p%zu", index);
    sqlite3_stmt *statement = NULL;
    deed_status status =
        database_prepare(s->db, DATABASE_TRUSTED, deed_str_of(sql), false, &statement, NULL, err);
    if (status != DEED_OK) return status;
    (void)sqlite3_bind_text(statement, 1, s->paths[index], -1, SQLITE_STATIC);
    /* SQLite asks the authorizer about the name when the statement runs. */
    status = database_step_trusted(s->db, statement, err);
    sqlite3_finalize(statement);
    if (status != DEED_OK) deed_wrap(err, "%s", s->paths[index]);
    return status;
}

static deed_status copy_sources(struct session *s, const struct session_sources *sources,
                                struct deed_error *err)
{
    assert(sources->count <= SESSION_FILE_COUNT_MAX);
    deed_str *tables = arena_alloc_array(&s->arena, sources->table_count, sizeof *tables);
    if (tables == NULL) return no_memory(err);
    for (size_t i = 0; i < sources->table_count; i++) {
        tables[i] = arena_str(&s->arena, sources->tables[i]);
        if (tables[i].ptr == NULL) return no_memory(err);
    }
    for (size_t i = 0; i < sources->count; i++) {
        deed_str copy = arena_str(&s->arena, deed_str_of(sources->paths[i]));
        if (copy.ptr == NULL) return no_memory(err);
        s->paths[i] = (char *)copy.ptr;
    }
    s->count = sources->count;
    database_set_tables(s->db, tables, sources->table_count);
    return DEED_OK;
}

static deed_status prepare_own(struct session *s, deed_str sql, sqlite3_stmt **out,
                               struct deed_error *err)
{
    return database_prepare(s->db, DATABASE_TRUSTED, sql, true, out, NULL, err);
}

static deed_status prepare_positions(struct session *s, struct deed_error *err)
{
    if (s->count == 0) return DEED_OK;
    struct buf sql;
    buf_init(&sql, 4096);
    for (size_t i = 0; i < s->count; i++) {
        char index[24], schema[24];
        (void)snprintf(index, sizeof index, "%zu,", i);
        (void)snprintf(schema, sizeof schema, "p%zu", i);
        if (i > 0) buf_add_str(&sql, DEED_STR(" UNION ALL "));
        buf_printf(&sql, GENERATION_POSITION_SQL, index, schema);
    }
    deed_status status =
        buf_ok(&sql) ? prepare_own(s, buf_str(&sql), &s->positions, err) : no_memory(err);
    buf_done(&sql);
    return status;
}

deed_status session_check_columns(sqlite3_stmt *select, struct deed_error *err)
{
    int count = sqlite3_column_count(select);
    for (int i = 0; i < count; i++) {
        const char *name = sqlite3_column_name(select, i);
        if (name == NULL) return no_memory(err);
        for (int j = 0; j < i; j++) {
            const char *other = sqlite3_column_name(select, j);
            if (other == NULL) return no_memory(err);
            if (strcmp(name, other) != 0) continue;
            return deed_fail(err, DEED_INVALID, "two columns are called \"%s\": name them with AS",
                             name);
        }
    }
    return DEED_OK;
}

static deed_status name_columns(struct session *s, struct deed_error *err)
{
    s->column_count = sqlite3_column_count(s->select);
    s->columns = arena_alloc_array(&s->arena, (size_t)s->column_count, sizeof *s->columns);
    if (s->columns == NULL) return no_memory(err);
    for (int i = 0; i < s->column_count; i++) {
        const char *name = sqlite3_column_name(s->select, i);
        s->columns[i] = name == NULL ? (deed_str){0} : arena_str(&s->arena, deed_str_of(name));
        if (s->columns[i].ptr == NULL) return no_memory(err);
    }
    return session_check_columns(s->select, err);
}

static deed_status prepare_select(struct session *s, struct deed_error *err)
{
    size_t offset = 0;
    deed_status status =
        database_prepare(s->db, DATABASE_QUERY, s->file->sql.text, true, &s->select, &offset, err);
    if (status != DEED_OK) {
        deed_wrap(err, "line %u", sql_statement_line(&s->file->sql, offset));
        return status;
    }
    return name_columns(s, err);
}

static deed_status open_parts(struct session *s, const struct session_sources *sources,
                              struct deed_error *err)
{
    struct database_options options = {.read_only = true};
    deed_status status = database_open(s->os, &options, &s->db, err);
    if (status == DEED_OK) status = copy_sources(s, sources, err);
    if (status == DEED_OK) {
        /* Sorting in memory: this connection may write no file at all. */
        status = database_run(s->db, DATABASE_TRUSTED,
                              "PRAGMA temp_store = MEMORY; PRAGMA query_only = ON;", err);
    }
    for (size_t i = 0; status == DEED_OK && i < s->count; i++)
        status = attach(s, i, err);
    if (status == DEED_OK) status = prepare_own(s, DEED_STR("BEGIN"), &s->begin, err);
    if (status == DEED_OK) status = prepare_own(s, DEED_STR("ROLLBACK"), &s->end, err);
    if (status == DEED_OK) status = prepare_positions(s, err);
    return status == DEED_OK ? prepare_select(s, err) : status;
}

deed_status session_open(struct os *os, const struct query_file *file,
                         const struct session_sources *sources, struct session **out_session,
                         struct deed_error *err)
{
    struct session *s = calloc(1, sizeof *s);
    if (s == NULL) return no_memory(err);
    s->os = os;
    s->file = file;
    arena_init(&s->arena, SESSION_ARENA_SIZE_MAX);
    buf_init(&s->scratch, VALUE_SIZE_MAX);
    deed_status status = open_parts(s, sources, err);
    if (status != DEED_OK) {
        session_close(s);
        return status;
    }
    *out_session = s;
    return DEED_OK;
}

void session_close(struct session *s)
{
    if (s == NULL) return;
    sqlite3_finalize(s->begin);
    sqlite3_finalize(s->end);
    sqlite3_finalize(s->positions);
    sqlite3_finalize(s->select);
    database_close(s->db);
    buf_done(&s->scratch);
    arena_done(&s->arena);
    free(s);
}

bool session_fits(const struct session *s, const struct query_file *file,
                  const struct session_sources *sources)
{
    if (s->file != file) return false;
    if (sources == NULL) return true;
    if (s->count != sources->count) return false;
    for (size_t i = 0; i < s->count; i++) {
        if (strcmp(s->paths[i], sources->paths[i]) != 0) return false;
    }
    return true;
}

/* ---- looking for damage ----------------------------------------------------------------------- */

static deed_status examine(struct database *db, struct deed_error *err)
{
    sqlite3_stmt *check = NULL;
    deed_status status = database_prepare(db, DATABASE_TRUSTED, DEED_STR("PRAGMA integrity_check(1)"),
                                          false, &check, NULL, err);
    if (status != DEED_OK) return status;
    if (sqlite3_step(check) != SQLITE_ROW) {
        status = database_fail(db, err);
    } else {
        const char *words = (const char *)sqlite3_column_text(check, 0);
        bool good = words != NULL && strcmp(words, "ok") == 0;
        if (!good) status = deed_fail(err, DEED_CORRUPT, "%s", words == NULL ? "" : words);
    }
    sqlite3_finalize(check);
    return status;
}

deed_status session_examine(struct os *os, const char *path, uint64_t deadline_ticks,
                            struct deed_error *err)
{
    struct database *db = NULL;
    struct database_options options = {.path = path, .read_only = true};
    deed_status status = database_open(os, &options, &db, err);
    if (status != DEED_OK) return status;
    database_limit_run(db, deadline_ticks, NULL);
    status = examine(db, err);
    database_close(db);
    return status;
}

/* ---- rows into JSON -------------------------------------------------------------------------- */

/* Statements can make text of any bytes; JSON is UTF-8. Each byte that is not becomes U+FFFD. */
static void put_mended(struct session *s, struct json_writer *w, deed_bytes bytes)
{
    buf_reset(&s->scratch);
    for (size_t i = 0; i < bytes.len;) {
        size_t len = 1;
        while (len <= 4 && len <= bytes.len - i && !utf8_valid((deed_bytes){bytes.ptr + i, len})) {
            len++;
        }
        if (len <= 4 && len <= bytes.len - i) {
            buf_add(&s->scratch, bytes.ptr + i, len);
            i += len;
        } else {
            buf_add_str(&s->scratch, DEED_STR("\xEF\xBF\xBD"));
            i++;
        }
    }
    json_put_text(w, buf_str(&s->scratch));
}

static void put_text(struct session *s, struct json_writer *w, int column)
{
    const unsigned char *text = sqlite3_column_text(s->select, column);
    size_t len = (size_t)sqlite3_column_bytes(s->select, column);
    if (text == NULL) text = (const unsigned char *)"";
    deed_bytes bytes = {text, len};
    if (utf8_valid(bytes)) {
        json_put_text(w, (deed_str){(const char *)text, len});
    } else {
        put_mended(s, w, bytes);
    }
}

static void put_blob(struct session *s, struct json_writer *w, int column)
{
    const uint8_t *blob = sqlite3_column_blob(s->select, column);
    size_t len = (size_t)sqlite3_column_bytes(s->select, column);
    buf_reset(&s->scratch);
    base64_encode((deed_bytes){blob, len}, &s->scratch);
    deed_str text = buf_str(&s->scratch);
    json_put_text(w, text.ptr == NULL ? DEED_STR("") : text);
}

static void put_row(struct session *s, struct json_writer *w)
{
    json_object_begin(w);
    for (int i = 0; i < s->column_count; i++) {
        json_key(w, s->columns[i]);
        switch (sqlite3_column_type(s->select, i)) {
        case SQLITE_INTEGER:
            json_put_int(w, sqlite3_column_int64(s->select, i));
            break;
        case SQLITE_FLOAT:
            json_put_double(w, sqlite3_column_double(s->select, i));
            break;
        case SQLITE_TEXT:
            put_text(s, w, i);
            break;
        case SQLITE_BLOB:
            put_blob(s, w, i);
            break;
        default:
            json_put_null(w);
            break;
        }
    }
    json_object_end(w);
}

static deed_status put_rows(struct session *s, struct session_run *run, struct deed_error *err)
{
    size_t start = run->out->len;
    struct json_writer w;
    json_writer_init(&w, run->out);
    json_array_begin(&w);
    int rc;
    while ((rc = sqlite3_step(s->select)) == SQLITE_ROW) {
        if (run->row_count == run->row_count_max) {
            return deed_fail(err, DEED_TOO_LARGE, "more than %u rows: ask for fewer",
                             run->row_count_max);
        }
        put_row(s, &w);
        run->row_count++;
        if (!buf_ok(&s->scratch)) return no_memory(err);
        if (!buf_ok(run->out) || run->out->len - start > run->size_max) {
            return deed_fail(err, DEED_TOO_LARGE, "the answer is over its limit of %llu bytes",
                             (unsigned long long)run->size_max);
        }
    }
    json_array_end(&w);
    if (rc != SQLITE_DONE) return database_fail(s->db, err);
    if (!buf_ok(run->out)) return deed_fail(err, DEED_TOO_LARGE, "the answer is over its limit");
    return DEED_OK;
}

/* ---- running --------------------------------------------------------------------------------- */

static deed_status step_own(struct session *s, sqlite3_stmt *statement, struct deed_error *err)
{
    int rc = sqlite3_step(statement);
    deed_status status = rc == SQLITE_DONE ? DEED_OK : database_fail(s->db, err);
    (void)sqlite3_reset(statement);
    return status;
}

static deed_status read_positions(struct session *s, struct session_run *run,
                                  struct deed_error *err)
{
    if (s->positions == NULL) return DEED_OK;
    size_t rows = 0;
    int rc;
    while ((rc = sqlite3_step(s->positions)) == SQLITE_ROW) {
        size_t index = (size_t)sqlite3_column_int(s->positions, 0);
        assert(index < s->count);
        run->positions[index] = (uint64_t)sqlite3_column_int64(s->positions, 1);
        rows++;
    }
    deed_status status = rc == SQLITE_DONE ? DEED_OK : database_fail(s->db, err);
    (void)sqlite3_reset(s->positions);
    if (status == DEED_OK && rows != s->count) {
        return deed_fail(err, DEED_CORRUPT, "a read model has no checkpoint");
    }
    return status;
}

static deed_status bind(struct session *s, const deed_str *values, struct deed_error *err)
{
    for (size_t i = 0; i < s->file->sql.parameter_count; i++) {
        deed_str v = values[i];
        int rc = v.ptr == NULL ? sqlite3_bind_null(s->select, (int)i + 1)
                               : sqlite3_bind_text64(s->select, (int)i + 1, v.ptr, v.len,
                                                     SQLITE_STATIC, SQLITE_UTF8);
        if (rc != SQLITE_OK) return database_fail(s->db, err);
    }
    return DEED_OK;
}

deed_status session_go(struct session *s, struct session_run *run, struct deed_error *err)
{
    bool out_was_ok = buf_ok(run->out);
    size_t start = run->out->len;
    run->row_count = 0;
    buf_reset(&s->scratch);
    database_limit_run(s->db, run->deadline_ticks, NULL);
    deed_status status = bind(s, run->values, err);
    if (status == DEED_OK) status = step_own(s, s->begin, err);
    if (status == DEED_OK) status = read_positions(s, run, err);
    if (status == DEED_OK) status = put_rows(s, run, err);
    (void)sqlite3_reset(s->select);
    (void)sqlite3_clear_bindings(s->select);
    database_limit_run(s->db, UINT64_MAX, NULL);
    if (sqlite3_get_autocommit(database_sqlite(s->db)) == 0) (void)!step_own(s, s->end, NULL);
    if (status != DEED_OK) {
        run->out->len = start;
        if (out_was_ok) run->out->failed = false;
    }
    return status;
}
