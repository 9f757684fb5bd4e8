/* database.c - opening, hardening, and the authorizer.
 *
 * (1) The authorizer is installed once, at birth: setting another would expire every prepared
 *     statement. What it allows depends on `role`, which is DATABASE_STEP except during a prepare.
 * (2) Functions are allowed by list, not refused by list: a new SQLite may bring new ones.
 * (3) A deterministic connection has its own date functions, since SQLite's say what time it is
 *     when asked for 'now': they refuse that and hand the rest to SQLite's on a second connection.
 *     The functions of `refused_functions` are replaced by ones that fail, because a column's
 *     DEFAULT calls functions that no authorizer has seen. */
#include "projection/database.h"

#include "projection/page_check.h"
#include "projection/vfs.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

#define DATE_ARGUMENT_COUNT_MAX 8

static const char *const date_names[] = {"date",     "datetime", "julianday",
                                         "strftime", "time",     "unixepoch"};
#define DATE_COUNT (sizeof date_names / sizeof date_names[0])

struct date_function {
    struct database *db;
    size_t which;
    sqlite3_stmt *statements[DATE_ARGUMENT_COUNT_MAX + 1]; /* by number of arguments */
};

struct database {
    sqlite3 *sqlite;
    struct os *os;
    const char *files; /* see page_check.h; NULL: not held yet */
    enum database_role role;
    char reason[200]; /* why the role refused; empty: it did not */
    bool used_dates;
    const deed_str *tables;
    size_t table_count;
    void (*on_read)(void *context, deed_str table);
    void *context;
    uint64_t deadline_ticks;
    const atomic_bool *cancelled;
    deed_status interrupted; /* why the progress handler said stop */
    sqlite3 *dates;          /* for date_functions: SQLite's own */
    struct date_function date_functions[DATE_COUNT];
};

/* ---- functions ------------------------------------------------------------------------------ */

/* Sorted; same arguments, same result. */
static const char *const pure_functions[] = {
    "->",
    "->>",
    "abs",
    "acos",
    "acosh",
    "asin",
    "asinh",
    "atan",
    "atan2",
    "atanh",
    "avg",
    "ceil",
    "ceiling",
    "char",
    "coalesce",
    "cos",
    "cosh",
    "count",
    "cume_dist",
    "degrees",
    "dense_rank",
    "exp",
    "first_value",
    "floor",
    "format",
    "glob",
    "group_concat",
    "hex",
    "ifnull",
    "iif",
    "instr",
    "json",
    "json_array",
    "json_array_length",
    "json_extract",
    "json_group_array",
    "json_group_object",
    "json_insert",
    "json_object",
    "json_patch",
    "json_quote",
    "json_remove",
    "json_replace",
    "json_set",
    "json_type",
    "json_valid",
    "lag",
    "last_value",
    "lead",
    "length",
    "like",
    "likelihood",
    "likely",
    "ln",
    "log",
    "log10",
    "log2",
    "lower",
    "ltrim",
    "max",
    "min",
    "mod",
    "nth_value",
    "ntile",
    "nullif",
    "percent_rank",
    "pi",
    "pow",
    "power",
    "printf",
    "quote",
    "radians",
    "rank",
    "replace",
    "round",
    "row_number",
    "rtrim",
    "sign",
    "sin",
    "sinh",
    "soundex",
    "sqrt",
    "substr",
    "substring",
    "sum",
    "tan",
    "tanh",
    "total",
    "trim",
    "trunc",
    "typeof",
    "unicode",
    "unlikely",
    "upper",
    "zeroblob",
};

/* Those which a column default could call. */
static const char *const refused_functions[] = {
    "changes",           "current_date",   "current_time",  "current_timestamp",
    "last_insert_rowid", "load_extension", "random",        "randomblob",
    "sqlite_source_id",  "sqlite_version", "total_changes",
};
#define REFUSED_COUNT (sizeof refused_functions / sizeof refused_functions[0])

static int compare_names(const void *key, const void *entry)
{
    return strcasecmp(key, *(const char *const *)entry);
}

static bool in_list(const char *name, const char *const *list, size_t count)
{
    return bsearch(name, list, count, sizeof *list, compare_names) != NULL;
}

static bool is_date(const char *name)
{
    return in_list(name, date_names, DATE_COUNT);
}

static bool is_pure(const char *name)
{
    return in_list(name, pure_functions, sizeof pure_functions / sizeof pure_functions[0]);
}

bool database_word_is_random(deed_str word)
{
    for (size_t i = 0; i < REFUSED_COUNT; i++) {
        if (strlen(refused_functions[i]) == word.len &&
            strncasecmp(refused_functions[i], word.ptr, word.len) == 0) {
            return true;
        }
    }
    return false;
}

static void refused_function(sqlite3_context *call, int count, sqlite3_value **arguments)
{
    (void)count, (void)arguments;
    const char *name = sqlite3_user_data(call);
    char text[100];
    (void)snprintf(text, sizeof text, "%s is not deterministic", name);
    sqlite3_result_error(call, text, -1);
}

static bool value_is(sqlite3_value *value, const char *word)
{
    int type = sqlite3_value_type(value);
    if (type != SQLITE_TEXT && type != SQLITE_BLOB) return false;
    const char *text = (const char *)sqlite3_value_text(value);
    return text != NULL && sqlite3_stricmp(text, word) == 0;
}

static sqlite3_stmt *date_statement(struct date_function *f, int count)
{
    sqlite3_stmt **statement = &f->statements[count];
    if (*statement != NULL) return *statement;
    char sql[64];
    int len = snprintf(sql, sizeof sql, "SELECT %s(", date_names[f->which]);
    for (int i = 0; i < count; i++) {
        len += snprintf(sql + len, sizeof sql - (size_t)len, i == 0 ? "?" : ",?");
    }
    (void)snprintf(sql + len, sizeof sql - (size_t)len, ")");
    (void)sqlite3_prepare_v3(f->db->dates, sql, -1, SQLITE_PREPARE_PERSISTENT, statement, NULL);
    return *statement;
}

/* A date function without 'now' and without time zones; see (3). */
static void date_function(sqlite3_context *call, int count, sqlite3_value **arguments)
{
    struct date_function *f = sqlite3_user_data(call);
    int time_at = strcmp(date_names[f->which], "strftime") == 0 ? 1 : 0;
    if (count <= time_at) {
        sqlite3_result_error(call,
                             "a date function without a time means now, which is not "
                             "deterministic: use :time or :recorded_at",
                             -1);
        return;
    }
    if (count > DATE_ARGUMENT_COUNT_MAX) {
        sqlite3_result_error(call, "a date function with more than 8 arguments", -1);
        return;
    }
    /* An event's data may say "now": that is no date, as "soon" is none. */
    if (value_is(arguments[time_at], "now")) return;
    for (int i = time_at + 1; i < count; i++) {
        if (value_is(arguments[i], "localtime") || value_is(arguments[i], "utc")) {
            sqlite3_result_error(call, "a date modifier that depends on the time zone", -1);
            return;
        }
    }
    sqlite3_stmt *statement = date_statement(f, count);
    if (statement == NULL) {
        sqlite3_result_error_nomem(call);
        return;
    }
    for (int i = 0; i < count; i++)
        (void)sqlite3_bind_value(statement, i + 1, arguments[i]);
    if (sqlite3_step(statement) == SQLITE_ROW) {
        sqlite3_result_value(call, sqlite3_column_value(statement, 0));
    } else {
        sqlite3_result_error(call, sqlite3_errmsg(f->db->dates), -1);
    }
    (void)sqlite3_reset(statement);
    (void)sqlite3_clear_bindings(statement);
}

static int make_deterministic(struct database *db)
{
    int rc =
        sqlite3_open_v2(":memory:", &db->dates,
                        SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX, NULL);
    const int flags = SQLITE_UTF8 | SQLITE_DETERMINISTIC | SQLITE_INNOCUOUS;
    for (size_t i = 0; rc == SQLITE_OK && i < DATE_COUNT; i++) {
        db->date_functions[i] = (struct date_function){.db = db, .which = i};
        rc = sqlite3_create_function(db->sqlite, date_names[i], -1, flags, &db->date_functions[i],
                                     date_function, NULL, NULL);
    }
    for (size_t i = 0; rc == SQLITE_OK && i < REFUSED_COUNT; i++) {
        rc = sqlite3_create_function(db->sqlite, refused_functions[i], -1,
                                     SQLITE_UTF8 | SQLITE_INNOCUOUS, (void *)refused_functions[i],
                                     refused_function, NULL, NULL);
    }
    return rc;
}

/* ---- the authorizer ------------------------------------------------------------------------- */

static int refuse(struct database *db, const char *format, const char *name)
{
    /* The first reason is the one to tell; SQLite may ask on. */
    if (db->reason[0] == '\0') {
        (void)snprintf(db->reason, sizeof db->reason, format, name == NULL ? "" : name);
    }
    return SQLITE_DENY;
}

static const char *action_name(int action)
{
    switch (action) {
    case SQLITE_ALTER_TABLE:
        return "ALTER TABLE";
    case SQLITE_ANALYZE:
        return "ANALYZE";
    case SQLITE_ATTACH:
        return "ATTACH";
    case SQLITE_DETACH:
        return "DETACH";
    case SQLITE_PRAGMA:
        return "PRAGMA";
    case SQLITE_TRANSACTION:
        return "BEGIN, COMMIT or ROLLBACK";
    case SQLITE_SAVEPOINT:
        return "SAVEPOINT";
    case SQLITE_REINDEX:
        return "REINDEX";
    case SQLITE_CREATE_TRIGGER:
        return "a trigger";
    case SQLITE_CREATE_VTABLE:
        return "a virtual table";
    case SQLITE_CREATE_TEMP_INDEX:
    case SQLITE_CREATE_TEMP_TABLE:
    case SQLITE_CREATE_TEMP_TRIGGER:
    case SQLITE_CREATE_TEMP_VIEW:
        return "a temporary table, view or trigger";
    case SQLITE_CREATE_INDEX:
        return "CREATE INDEX";
    case SQLITE_CREATE_TABLE:
        return "CREATE TABLE";
    case SQLITE_CREATE_VIEW:
        return "CREATE VIEW";
    case SQLITE_DROP_INDEX:
    case SQLITE_DROP_TABLE:
    case SQLITE_DROP_VIEW:
    case SQLITE_DROP_TRIGGER:
    case SQLITE_DROP_VTABLE:
    case SQLITE_DROP_TEMP_INDEX:
    case SQLITE_DROP_TEMP_TABLE:
    case SQLITE_DROP_TEMP_TRIGGER:
    case SQLITE_DROP_TEMP_VIEW:
        return "DROP";
    case SQLITE_INSERT:
        return "INSERT";
    case SQLITE_UPDATE:
        return "UPDATE";
    case SQLITE_DELETE:
        return "DELETE";
    default:
        return "this statement";
    }
}

static bool has_prefix(const char *name, const char *prefix)
{
    return strncasecmp(name, prefix, strlen(prefix)) == 0;
}

static bool is_json_table(const char *name)
{
    return strcasecmp(name, "json_each") == 0 || strcasecmp(name, "json_tree") == 0;
}

static bool is_known_table(const struct database *db, const char *name)
{
    size_t len = strlen(name);
    for (size_t i = 0; i < db->table_count; i++) {
        if (db->tables[i].len == len && strncasecmp(db->tables[i].ptr, name, len) == 0) return true;
    }
    return false;
}

/* Names nobody's SQL may touch, whatever it wants to do. */
static bool is_reserved(const char *name)
{
    return has_prefix(name, DATABASE_RESERVED_PREFIX) || has_prefix(name, "sqlite_") ||
           has_prefix(name, "pragma_");
}

static int authorize_function(struct database *db, const char *name)
{
    if (is_date(name)) {
        db->used_dates = true;
        return SQLITE_OK;
    }
    if (is_pure(name)) return SQLITE_OK;
    if (db->role == DATABASE_QUERY &&
        (strcasecmp(name, "random") == 0 || has_prefix(name, "current_"))) {
        return SQLITE_OK; /* an answer may depend on the day */
    }
    if (in_list(name, refused_functions, REFUSED_COUNT) && db->role != DATABASE_QUERY) {
        return refuse(db, "%s is not deterministic", name);
    }
    return refuse(db, "the function %s is not allowed", name);
}

static int authorize_read(struct database *db, const char *table, const char *column)
{
    if (is_reserved(table)) return refuse(db, "the table %s is reserved", table);
    if (is_json_table(table)) return SQLITE_OK;
    if (is_known_table(db, table)) {
        if (db->role == DATABASE_QUERY && db->on_read != NULL) {
            db->on_read(db->context, deed_str_of(table));
        }
        return SQLITE_OK;
    }
    /* SQLite names a table of which no column is read with an empty column, and a WITH's name too.
     */
    if (column == NULL || column[0] == '\0') return SQLITE_OK;
    return refuse(db, "the table %s is not in reach", table);
}

static int authorize_tables(struct database *db, int action, const char *a, const char *b)
{
    switch (action) {
    case SQLITE_CREATE_TABLE:
        if (strcmp(a, "sqlite_sequence") == 0) return SQLITE_OK; /* for AUTOINCREMENT */
        /* fallthrough */
    case SQLITE_CREATE_VIEW:
        return is_reserved(a) ? refuse(db, "the name %s is reserved", a) : SQLITE_OK;
    case SQLITE_CREATE_INDEX:
        return is_reserved(b) ? refuse(db, "the table %s is reserved", b) : SQLITE_OK;
    case SQLITE_INSERT:
    case SQLITE_UPDATE:
    case SQLITE_DELETE:
    case SQLITE_READ: /* creating writes SQLite's own tables */
        return has_prefix(a, DATABASE_RESERVED_PREFIX) ? refuse(db, "the table %s is reserved", a)
                                                       : SQLITE_OK;
    case SQLITE_SELECT:
    case SQLITE_REINDEX:
        return SQLITE_OK;
    case SQLITE_FUNCTION:
        return authorize_function(db, b);
    default:
        return refuse(db, "%s is not allowed among the tables", action_name(action));
    }
}

static int authorize_statement(struct database *db, int action, const char *a, const char *b)
{
    switch (action) {
    case SQLITE_INSERT:
    case SQLITE_UPDATE:
    case SQLITE_DELETE:
        if (is_reserved(a)) return refuse(db, "the table %s is reserved", a);
        return is_known_table(db, a) ? SQLITE_OK : refuse(db, "the table %s is not in reach", a);
    case SQLITE_SELECT:
    case SQLITE_RECURSIVE:
        return SQLITE_OK;
    case SQLITE_READ:
        return authorize_read(db, a, b);
    case SQLITE_FUNCTION:
        return authorize_function(db, b);
    default:
        return refuse(db, "%s is not allowed in a projection's statement", action_name(action));
    }
}

static int authorize_query(struct database *db, int action, const char *a, const char *b)
{
    switch (action) {
    case SQLITE_SELECT:
    case SQLITE_RECURSIVE:
        return SQLITE_OK;
    case SQLITE_READ:
        return authorize_read(db, a, b);
    case SQLITE_FUNCTION:
        return authorize_function(db, b);
    case SQLITE_UPDATE: /* SQLite's own, for a table it makes at its first use */
        if (is_reserved(a)) return refuse(db, "the table %s is reserved", a);
        /* fallthrough */
    default:
        return refuse(db, "%s is not allowed in a query", action_name(action));
    }
}

static int authorize_step(int action)
{
    switch (action) {
    case SQLITE_SELECT:
    case SQLITE_READ:
    case SQLITE_INSERT:
    case SQLITE_UPDATE:
    case SQLITE_DELETE:
    case SQLITE_FUNCTION:
    case SQLITE_RECURSIVE:
    case SQLITE_TRANSACTION:
        return SQLITE_OK;
    default:
        return SQLITE_DENY;
    }
}

static int authorize(void *context, int action, const char *a, const char *b, const char *schema,
                     const char *within)
{
    struct database *db = context;
    (void)within;
    if (db->role == DATABASE_TRUSTED) return SQLITE_OK;
    if (db->role == DATABASE_STEP) return authorize_step(action);
    if (schema != NULL && strcmp(schema, "temp") == 0) {
        return refuse(db, "temporary tables, views and triggers are not allowed", NULL);
    }
    if (a == NULL) a = "";
    if (db->role == DATABASE_TABLES) return authorize_tables(db, action, a, b == NULL ? "" : b);
    if (db->role == DATABASE_STATEMENT) return authorize_statement(db, action, a, b);
    assert(db->role == DATABASE_QUERY);
    return authorize_query(db, action, a, b);
}

/* ---- opening -------------------------------------------------------------------------------- */

/* Opcodes between two looks at the clock: some tens of microseconds. */
#define PROGRESS_INTERVAL 1000

static int progress(void *context)
{
    struct database *db = context;
    if (db->cancelled != NULL && atomic_load_explicit(db->cancelled, memory_order_relaxed)) {
        db->interrupted = DEED_STOPPED;
    } else if (db->deadline_ticks != UINT64_MAX && os_ticks_ns(db->os) >= db->deadline_ticks) {
        db->interrupted = DEED_TIMEOUT;
    }
    return db->interrupted != DEED_OK;
}

/* Each number is far above what a hand-written read model needs, and low enough that SQL made to
 * hurt (deep expressions, huge strings) fails early. */
static void set_limits(sqlite3 *sqlite)
{
    static const int limits[][2] = {
        {SQLITE_LIMIT_LENGTH, 64 << 20},
        {SQLITE_LIMIT_SQL_LENGTH, 2 << 20},
        {SQLITE_LIMIT_COLUMN, 500},
        {SQLITE_LIMIT_EXPR_DEPTH, 200},
        {SQLITE_LIMIT_COMPOUND_SELECT, 50},
        {SQLITE_LIMIT_VDBE_OP, 100000},
        {SQLITE_LIMIT_FUNCTION_ARG, 100},
        {SQLITE_LIMIT_ATTACHED, 10},
        {SQLITE_LIMIT_LIKE_PATTERN_LENGTH, 1000},
        {SQLITE_LIMIT_VARIABLE_NUMBER, 1000},
        {SQLITE_LIMIT_TRIGGER_DEPTH, 10},
        {SQLITE_LIMIT_WORKER_THREADS, 0},
    };
    for (size_t i = 0; i < sizeof limits / sizeof limits[0]; i++) {
        (void)sqlite3_limit(sqlite, limits[i][0], limits[i][1]);
    }
}

static void set_options(sqlite3 *sqlite)
{
    static const int options[][2] = {
        {SQLITE_DBCONFIG_DEFENSIVE, 1},      {SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0},
        {SQLITE_DBCONFIG_ENABLE_TRIGGER, 0}, {SQLITE_DBCONFIG_ENABLE_LOAD_EXTENSION, 0},
        {SQLITE_DBCONFIG_DQS_DML, 0},        {SQLITE_DBCONFIG_DQS_DDL, 0},
        {SQLITE_DBCONFIG_ENABLE_FKEY, 1},
    };
    for (size_t i = 0; i < sizeof options / sizeof options[0]; i++) {
        (void)sqlite3_db_config(sqlite, options[i][0], options[i][1], NULL);
    }
}

/* SQLite makes these tables at their first use on a connection, and asks the authorizer about its
 * own schema table then: let that first use be ours. */
static deed_status make_json_tables(struct database *db, struct deed_error *err)
{
    static const char *const uses[] = {"SELECT 1 FROM json_each('[]')",
                                       "SELECT 1 FROM json_tree('[]')"};
    deed_status status = DEED_OK;
    for (size_t i = 0; status == DEED_OK && i < sizeof uses / sizeof uses[0]; i++) {
        sqlite3_stmt *statement = NULL;
        status = database_prepare(db, DATABASE_TRUSTED, deed_str_of(uses[i]), false, &statement,
                                  NULL, err);
        sqlite3_finalize(statement);
    }
    return status;
}

/* The URI of a file whose sectors tear; NULL: no memory. */
static char *tearing_uri(const char *path)
{
    char *uri = malloc(strlen(path) * 3 + sizeof "file://?psow=0");
    if (uri == NULL) return NULL;
    char *at = uri + sprintf(uri, path[0] == '/' ? "file://" : "file:");
    for (; *path != '\0'; path++) {
        bool special = *path == '%' || *path == '?' || *path == '#';
        at += sprintf(at, special ? "%%%02x" : "%c", (unsigned char)*path);
    }
    memcpy(at, "?psow=0", sizeof "?psow=0");
    return uri;
}

static int open_file(const struct database_options *options, const char *vfs, sqlite3 **out)
{
    int flags = SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE;
    flags |= options->read_only ? SQLITE_OPEN_READONLY : SQLITE_OPEN_READWRITE;
    if (options->create) flags |= SQLITE_OPEN_CREATE;
    /* Not SQLITE_OPEN_MEMORY: what is attached later inherits the flags, and would be empty. */
    if (options->path == NULL) return sqlite3_open_v2(":memory:", out, flags, vfs);
    if (!options->sectors_tear) return sqlite3_open_v2(options->path, out, flags, vfs);
    char *uri = tearing_uri(options->path);
    if (uri == NULL) return SQLITE_NOMEM;
    int rc = sqlite3_open_v2(uri, out, flags | SQLITE_OPEN_URI, vfs);
    free(uri);
    return rc;
}

deed_status database_open(struct os *os, const struct database_options *options,
                          struct database **out_database, struct deed_error *err)
{
    struct database *db = calloc(1, sizeof *db);
    if (db == NULL) return deed_fail(err, DEED_NO_MEMORY, "no memory for a connection");
    db->os = os;
    db->deadline_ticks = UINT64_MAX;
    db->role = DATABASE_STEP;
    const char *below = NULL;
    deed_status status = vfs_hold(os, &below, err);
    if (status != DEED_OK) {
        free(db);
        return status;
    }
    status = page_check_hold(below, &db->files, err);
    if (status != DEED_OK) {
        database_close(db);
        return status;
    }
    int rc = open_file(options, db->files, &db->sqlite);
    if (rc == SQLITE_OK) {
        set_limits(db->sqlite);
        set_options(db->sqlite);
        int reserved = PAGE_CHECK_SIZE; /* a file that is there keeps what it has */
        bool makes = options->create && options->path != NULL;
        if (makes) (void)sqlite3_file_control(db->sqlite, "main", SQLITE_FCNTL_RESERVE_BYTES, &reserved);
        (void)sqlite3_busy_timeout(db->sqlite, 2000);
        sqlite3_progress_handler(db->sqlite, PROGRESS_INTERVAL, progress, db);
        if (options->deterministic) rc = make_deterministic(db);
        if (rc == SQLITE_OK) rc = sqlite3_set_authorizer(db->sqlite, authorize, db);
    }
    if (rc != SQLITE_OK) {
        /* What failed may be no call on this connection: its own words would say "not an error". */
        bool told = db->sqlite != NULL && sqlite3_errcode(db->sqlite) != SQLITE_OK;
        status =
            told ? database_fail(db, err)
                 : deed_fail(err, DEED_NO_MEMORY, "no memory for SQLite: %s", sqlite3_errstr(rc));
    } else {
        status = make_json_tables(db, err);
    }
    if (status != DEED_OK) {
        deed_wrap(err, "%s", options->path == NULL ? ":memory:" : options->path);
        database_close(db);
        return status;
    }
    *out_database = db;
    return DEED_OK;
}

void database_close(struct database *db)
{
    if (db == NULL) return;
    for (size_t i = 0; i < DATE_COUNT; i++) {
        for (size_t j = 0; j <= DATE_ARGUMENT_COUNT_MAX; j++) {
            (void)sqlite3_finalize(db->date_functions[i].statements[j]);
        }
    }
    int rc = sqlite3_close(db->sqlite);
    assert(rc == SQLITE_OK); /* else a statement was left open */
    (void)rc;
    (void)sqlite3_close(db->dates);
    if (db->files != NULL) page_check_release(db->files);
    vfs_release(db->os);
    free(db);
}

sqlite3 *database_sqlite(struct database *db)
{
    return db->sqlite;
}

/* ---- running -------------------------------------------------------------------------------- */

deed_status database_fail(struct database *db, struct deed_error *err)
{
    const char *words = sqlite3_errmsg(db->sqlite);
    deed_status status = DEED_INVALID;
    int code = sqlite3_extended_errcode(db->sqlite);
    /* Found by page_check.h, which knows more than SQLite. */
    if (code == SQLITE_IOERR_DATA) return deed_fail(err, DEED_CORRUPT, "%s", page_check_words());
    switch (code & 0xff) {
    case SQLITE_INTERRUPT: {
        status = db->interrupted == DEED_STOPPED ? DEED_STOPPED : DEED_TIMEOUT;
        db->interrupted = DEED_OK;
        return deed_fail(err, status, status == DEED_STOPPED ? "stopped" : "it ran too long");
    }
    case SQLITE_NOMEM:
        status = DEED_NO_MEMORY;
        break;
    case SQLITE_FULL:
        status = DEED_FULL;
        break;
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
        status = DEED_CORRUPT;
        break;
    case SQLITE_IOERR:
    case SQLITE_CANTOPEN:
    case SQLITE_READONLY:
    case SQLITE_PERM:
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
    case SQLITE_PROTOCOL:
    case SQLITE_NOLFS:
        status = DEED_IO;
        break;
    default:
        break;
    }
    if (status == DEED_INVALID && db->reason[0] != '\0') words = db->reason;
    status = deed_fail(err, status, "%s", words);
    db->reason[0] = '\0';
    return status;
}

bool database_is_storage(deed_status status)
{
    return status == DEED_NO_MEMORY || status == DEED_FULL || status == DEED_CORRUPT ||
           status == DEED_IO;
}

deed_status database_prepare(struct database *db, enum database_role role, deed_str sql, bool kept,
                             sqlite3_stmt **out_statement, size_t *out_offset,
                             struct deed_error *err)
{
    assert(role != DATABASE_STEP);
    db->reason[0] = '\0';
    db->used_dates = false;
    db->role = role;
    sqlite3_stmt *statement = NULL;
    int rc = sqlite3_prepare_v3(db->sqlite, sql.ptr, (int)sql.len,
                                kept ? SQLITE_PREPARE_PERSISTENT : 0, &statement, NULL);
    db->role = DATABASE_STEP;
    if (rc != SQLITE_OK) {
        int offset = sqlite3_error_offset(db->sqlite);
        if (out_offset != NULL) *out_offset = offset < 0 ? 0 : (size_t)offset;
        return database_fail(db, err);
    }
    if (statement == NULL) return deed_fail(err, DEED_INVALID, "there is no statement");
    *out_statement = statement;
    return DEED_OK;
}

deed_status database_run(struct database *db, enum database_role role, const char *sql,
                         struct deed_error *err)
{
    assert(role != DATABASE_STEP);
    db->reason[0] = '\0';
    db->role = role;
    int rc = sqlite3_exec(db->sqlite, sql, NULL, NULL, NULL);
    db->role = DATABASE_STEP;
    return rc == SQLITE_OK ? DEED_OK : database_fail(db, err);
}

deed_status database_step_trusted(struct database *db, sqlite3_stmt *statement,
                                  struct deed_error *err)
{
    db->role = DATABASE_TRUSTED;
    int rc = sqlite3_step(statement);
    db->role = DATABASE_STEP;
    return rc == SQLITE_DONE ? DEED_OK : database_fail(db, err);
}

void database_set_tables(struct database *db, const deed_str *tables, size_t count)
{
    db->tables = tables;
    db->table_count = count;
}

void database_on_read(struct database *db, void (*on_read)(void *context, deed_str table),
                      void *context)
{
    db->on_read = on_read;
    db->context = context;
}

bool database_used_dates(const struct database *db)
{
    return db->used_dates;
}

void database_limit_run(struct database *db, uint64_t deadline_ticks, const atomic_bool *cancelled)
{
    db->deadline_ticks = deadline_ticks;
    db->cancelled = cancelled;
    db->interrupted = DEED_OK;
}
