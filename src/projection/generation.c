/* generation.c - a SQLite file with two tables of ours beside the projection's own.
 *
 *     _deedbook_file        format, text of the projection
 *     _deedbook_checkpoint  log_id, epoch, position
 *     _deedbook_removed     count; only where events had been removed from the log
 *
 * (1) `checkpoint` is what the last commit wrote; it moves in generation_commit alone.
 * (2) Every statement is prepared once, at opening. `prepared[i]` belongs to statement i of `file`.
 * (3) Write-ahead logging with synchronous=NORMAL: a power cut may lose the last transactions,
 * never half of one, and never rows without their checkpoint. What is lost is folded in again.
 * (4) What a checkpoint of the write-ahead log relies on shares no sector with what is written later:
 *
 *       frame | frame | last frame | a copy of it      | frame …
 *       ----------------------------+------------------------- sectors
 *                        synced up to here             later, not synced
 *
 *     A disk may spoil a whole sector of which a part is being written. The bytes before that part
 *     were synced, and the database holds pages from behind them already: to lose them then would mix
 *     two states. So a log is padded and synced before it is brought over, SQLite brings over none on
 *     its own, and one that is found at opening is brought over before anything is added to it.
 * (5) Behind a sync that failed no later one says anything (sqlite_log.h). So nothing is brought over any
 *     more; the file is closed, its log left, and opened again. */
#include "projection/generation.h"

#include "base/planted.h"
#include "base/uuid.h"
#include "os/failpoint.h"
#include "projection/sqlite_log.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#define FORMAT_VERSION 1

/* What one event's data may need to be parsed: it is 16 MiB by default, and a tape of it several
 * times that. */
#define EVENT_ARENA_SIZE_MAX (512u << 20)

/* Pages in the write-ahead log from which on it is brought over: 16 MiB. */
#define WAL_PAGES_DEFAULT 4000
/* While readers keep it from being used anew, it is brought over after so many more. */
#define WAL_PAGES_MORE 1000

/* Far longer than any statement on one event should take: a runaway recursion ends some time. */
#define STATEMENT_TIME_NS_MAX UINT64_C(60000000000)

struct generation {
    struct os *os;
    char *path;
    struct database *db;
    struct projection_file *file;
    struct generation_checkpoint checkpoint;
    uint64_t passed_over, passing; /* as committed, and what the transaction adds */
    bool in_transaction, temporary;
    bool doubtful; /* a commit or a settling failed: what the log shows may not be on the device */
    int wal_pages, wal_pages_max, wal_pages_next; /* in it; when to bring it over, first and next */
    sqlite3_stmt **prepared;
    sqlite3_stmt *begin, *commit, *rollback, *set_position;
    const atomic_bool *cancelled;
    struct arena event_arena;
};

/* ---- opening -------------------------------------------------------------------------------- */

static const char settings_kept[] = "PRAGMA page_size = 4096;"
                                    "PRAGMA journal_mode = WAL;"
                                    "PRAGMA synchronous = NORMAL;"
                                    "PRAGMA wal_autocheckpoint = 0;" /* (4) */
                                    "PRAGMA journal_size_limit = 67108864;";
static const char settings_temporary[] = "PRAGMA journal_mode = MEMORY;"
                                         "PRAGMA synchronous = OFF;";
/* Debian's SQLite overwrites deleted rows with zeros unless told not to. */
static const char settings_all[] = "PRAGMA secure_delete = OFF;"
                                   "PRAGMA cache_size = -16384;"
                                   "PRAGMA temp_store = MEMORY;";

static const char own_tables[] =
    "CREATE TABLE _deedbook_file (id INTEGER PRIMARY KEY CHECK (id = 1), format INTEGER NOT NULL,"
    " text TEXT NOT NULL);"
    "CREATE TABLE _deedbook_checkpoint (id INTEGER PRIMARY KEY CHECK (id = 1), log_id TEXT NOT "
    "NULL,"
    " epoch INTEGER NOT NULL, position INTEGER NOT NULL);";

static deed_status no_memory(struct deed_error *err)
{
    return deed_fail(err, DEED_NO_MEMORY, "no memory for a read model");
}

static deed_status prepare_own(struct generation *g, const char *sql, sqlite3_stmt **out,
                               struct deed_error *err)
{
    return database_prepare(g->db, DATABASE_TRUSTED, deed_str_of(sql), true, out, NULL, err);
}

/* Step a statement of ours that yields no rows, and reset it. */
static deed_status step_own(struct generation *g, sqlite3_stmt *statement, struct deed_error *err)
{
    int rc = sqlite3_step(statement);
    deed_status status = rc == SQLITE_DONE ? DEED_OK : database_fail(g->db, err);
    (void)sqlite3_reset(statement);
    return status;
}

static void unprepare(sqlite3_stmt **prepared, size_t count)
{
    for (size_t i = 0; prepared != NULL && i < count; i++) {
        (void)sqlite3_finalize(prepared[i]);
    }
    free(prepared);
}

static deed_status prepare_statements(struct generation *g, struct deed_error *err)
{
    database_set_tables(g->db, g->file->tables, g->file->table_count);
    g->prepared = calloc(g->file->statement_count, sizeof(sqlite3_stmt *));
    if (g->prepared == NULL) return no_memory(err);
    for (size_t i = 0; i < g->file->statement_count; i++) {
        const struct sql_statement *sql = &g->file->statements[i].sql;
        deed_status status = database_prepare(g->db, DATABASE_STATEMENT, sql->text, true,
                                              &g->prepared[i], NULL, err);
        if (status != DEED_OK) {
            deed_wrap(err, "%.*s line %u", DEED_FMT(g->file->file), sql->line);
            return status;
        }
    }
    return DEED_OK;
}

static deed_status prepare_all(struct generation *g, struct deed_error *err)
{
    deed_status status = prepare_own(g, "BEGIN IMMEDIATE", &g->begin, err);
    if (status == DEED_OK) status = prepare_own(g, "COMMIT", &g->commit, err);
    if (status == DEED_OK) status = prepare_own(g, "ROLLBACK", &g->rollback, err);
    if (status == DEED_OK) {
        status = prepare_own(g, "UPDATE _deedbook_checkpoint SET position = ?1 WHERE id = 1",
                             &g->set_position, err);
    }
    return status == DEED_OK ? prepare_statements(g, err) : status;
}

/* Bring the write-ahead log over into the database: what it holds is padded, or nothing will be
 * added before it is empty. A reader in the way is no failure of a passive one. */
static deed_status bring_over(struct generation *g, int mode, struct deed_error *err)
{
    int rc = sqlite3_wal_checkpoint_v2(database_sqlite(g->db), "main", mode, NULL, NULL);
    bool busy = (rc & 0xff) == SQLITE_BUSY && mode == SQLITE_CHECKPOINT_PASSIVE;
    return rc == SQLITE_OK || busy ? DEED_OK : database_fail(g->db, err);
}

/* Commit a page, padded to the end of a sector and synced (4). It is the first one, with a number in it
 * that nobody uses: to update a row to what it is writes nothing at all. */
static deed_status pad(struct generation *g, struct deed_error *err)
{
    deed_status status = database_run(g->db, DATABASE_TRUSTED, "PRAGMA synchronous = FULL", err);
    if (status == DEED_OK) {
        status = database_run(g->db, DATABASE_TRUSTED, "PRAGMA user_version = 0", err);
    }
    deed_status after = database_run(g->db, DATABASE_TRUSTED, "PRAGMA synchronous = NORMAL", err);
    return status == DEED_OK ? after : status;
}

static deed_status settle(struct generation *g, int mode, struct deed_error *err)
{
    if (g->doubtful && !PLANTED(WAL_SETTLED_IN_DOUBT)) { /* (5) */
        return deed_fail(err, DEED_IO, "an earlier write or sync of it failed");
    }
    deed_status status = PLANTED(WAL_NOT_PADDED) ? DEED_OK : pad(g, err);
    if (status == DEED_OK) status = bring_over(g, mode, err);
    g->doubtful |= status != DEED_OK;
    return status;
}

static int note_wal(void *context, sqlite3 *sqlite, const char *schema, int pages)
{
    struct generation *g = context;
    (void)sqlite, (void)schema;
    if (pages < g->wal_pages) g->wal_pages_next = g->wal_pages_max; /* it is used anew */
    g->wal_pages = pages;
    return SQLITE_OK;
}

void generation_settle_every(struct generation *g, uint32_t page_count)
{
    assert(page_count > 0 && page_count <= INT32_MAX);
    g->wal_pages_max = g->wal_pages_next = (int)page_count;
}

static deed_status generation_new(struct os *os, const char *path, bool create, bool temporary,
                                  struct generation **out, struct deed_error *err)
{
    struct generation *g = calloc(1, sizeof *g);
    if (g == NULL) return no_memory(err);
    g->os = os;
    g->temporary = temporary;
    generation_settle_every(g, WAL_PAGES_DEFAULT);
    arena_init(&g->event_arena, EVENT_ARENA_SIZE_MAX);
    g->path = strdup(path);
    struct database_options options = {
        .path = path, .create = create, .deterministic = true, .sectors_tear = !temporary};
    deed_status status = g->path == NULL ? no_memory(err) : DEED_OK;
    if (status == DEED_OK && !create) status = sqlite_log_persist(os, path, err); /* (5) */
    if (status == DEED_OK) status = database_open(os, &options, &g->db, err);
    if (status == DEED_OK) {
        status = database_run(g->db, DATABASE_TRUSTED,
                              temporary ? settings_temporary : settings_kept, err);
    }
    if (status == DEED_OK) status = database_run(g->db, DATABASE_TRUSTED, settings_all, err);
    if (status == DEED_OK && !temporary) {
        (void)sqlite3_wal_hook(database_sqlite(g->db), note_wal, g);
        if (!create) status = bring_over(g, SQLITE_CHECKPOINT_TRUNCATE, err); /* (4) */
    }
    if (status != DEED_OK) {
        generation_close(g);
        return status;
    }
    *out = g;
    return DEED_OK;
}

/* Leave one file, if that can be. SQLite would try again, without (4), at its last connection. */
static void close_wal(struct generation *g)
{
    if (g->db == NULL || g->temporary) return;
    if (g->set_position != NULL && g->wal_pages > 0 &&
        settle(g, SQLITE_CHECKPOINT_TRUNCATE, NULL) == DEED_OK) {
        return;
    }
    (void)sqlite3_db_config(database_sqlite(g->db), SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
}

void generation_close(struct generation *g)
{
    if (g == NULL) return;
    if (g->db != NULL) generation_rollback(g);
    close_wal(g);
    if (g->file != NULL) unprepare(g->prepared, g->file->statement_count);
    (void)sqlite3_finalize(g->begin);
    (void)sqlite3_finalize(g->commit);
    (void)sqlite3_finalize(g->rollback);
    (void)sqlite3_finalize(g->set_position);
    database_close(g->db);
    projection_file_free(g->file);
    arena_done(&g->event_arena);
    free(g->path);
    free(g);
}

/* ---- making --------------------------------------------------------------------------------- */

static deed_status write_text(struct generation *g, deed_str text, struct deed_error *err)
{
    sqlite3_stmt *statement = NULL;
    deed_status status =
        prepare_own(g, "REPLACE INTO _deedbook_file (id, format, text) VALUES (1, ?1, ?2)",
                    &statement, err);
    if (status != DEED_OK) return status;
    (void)sqlite3_bind_int(statement, 1, FORMAT_VERSION);
    (void)sqlite3_bind_text64(statement, 2, text.ptr, text.len, SQLITE_STATIC, SQLITE_UTF8);
    status = step_own(g, statement, err);
    sqlite3_finalize(statement);
    return status;
}

static deed_status write_start(struct generation *g, const struct generation_checkpoint *start,
                               struct deed_error *err)
{
    sqlite3_stmt *statement = NULL;
    deed_status status = prepare_own(
        g, "INSERT INTO _deedbook_checkpoint (id, log_id, epoch, position) VALUES (1, ?1, ?2, ?3)",
        &statement, err);
    if (status != DEED_OK) return status;
    char log_id[UUID_TEXT_SIZE + 1];
    uuid_format(start->log_id, log_id);
    (void)sqlite3_bind_text(statement, 1, log_id, -1, SQLITE_STATIC);
    (void)sqlite3_bind_int64(statement, 2, (sqlite3_int64)start->epoch);
    (void)sqlite3_bind_int64(statement, 3, (sqlite3_int64)start->position);
    status = step_own(g, statement, err);
    sqlite3_finalize(statement);
    return status;
}

static deed_status fill(struct generation *g, const struct generation_checkpoint *start,
                        struct deed_error *err)
{
    deed_status status = database_run(g->db, DATABASE_TRUSTED, "BEGIN IMMEDIATE", err);
    if (status == DEED_OK) status = database_run(g->db, DATABASE_TRUSTED, own_tables, err);
    for (size_t i = 0; status == DEED_OK && i < g->file->table_statement_count; i++) {
        status = database_run(g->db, DATABASE_TABLES, g->file->table_statements[i].text.ptr, err);
    }
    if (status == DEED_OK) status = write_text(g, g->file->text, err);
    if (status == DEED_OK) status = write_start(g, start, err);
    if (status == DEED_OK) status = database_run(g->db, DATABASE_TRUSTED, "COMMIT", err);
    g->checkpoint = *start;
    return status;
}

deed_status generation_create(struct os *os, const char *path, const struct projection_file *file,
                              bool temporary, const struct generation_checkpoint *start,
                              struct generation **out_generation, struct deed_error *err)
{
    struct generation *g = NULL;
    deed_status status = generation_new(os, path, true, temporary, &g, err);
    if (status != DEED_OK) return status;
    status = projection_file_load(os, file->file, file->text, &g->file, err);
    if (status == DEED_OK) status = fill(g, start, err);
    if (status == DEED_OK) status = prepare_all(g, err);
    if (status != DEED_OK) {
        generation_close(g);
        return status;
    }
    *out_generation = g;
    return DEED_OK;
}

/* ---- opening what is there ------------------------------------------------------------------ */

static deed_status not_a_generation(struct deed_error *err)
{
    return deed_fail(err, DEED_CORRUPT, "it is not a read model of Deedbook's");
}

/* A column is NULL: because it is, or because there was no memory to show it? */
static bool lacked_memory(struct generation *g)
{
    return (sqlite3_errcode(database_sqlite(g->db)) & 0xff) == SQLITE_NOMEM;
}

static deed_status read_checkpoint(struct generation *g, struct deed_error *err)
{
    sqlite3_stmt *statement = NULL;
    deed_status status =
        prepare_own(g, "SELECT log_id, epoch, position FROM _deedbook_checkpoint WHERE id = 1",
                    &statement, err);
    if (status == DEED_INVALID) return not_a_generation(err);
    if (status != DEED_OK) return status;
    int rc = sqlite3_step(statement);
    if (rc == SQLITE_ROW) {
        const char *log_id = (const char *)sqlite3_column_text(statement, 0);
        bool lacks_memory = log_id == NULL && lacked_memory(g);
        int64_t epoch = sqlite3_column_int64(statement, 1);
        int64_t position = sqlite3_column_int64(statement, 2);
        bool valid = log_id != NULL && uuid_parse(deed_str_of(log_id), &g->checkpoint.log_id) &&
                     epoch >= 0 && position >= 0;
        g->checkpoint.epoch = (uint64_t)epoch;
        g->checkpoint.position = (uint64_t)position;
        if (!valid) status = lacks_memory ? no_memory(err) : not_a_generation(err);
    } else {
        status = rc == SQLITE_DONE ? not_a_generation(err) : database_fail(g->db, err);
    }
    sqlite3_finalize(statement);
    return status;
}

static deed_status read_file_row(struct generation *g, sqlite3_stmt *statement,
                                 struct deed_error *err)
{
    int rc = sqlite3_step(statement);
    if (rc == SQLITE_DONE) return not_a_generation(err);
    if (rc != SQLITE_ROW) return database_fail(g->db, err);
    int format = sqlite3_column_int(statement, 0);
    if (format > FORMAT_VERSION) {
        return deed_fail(err, DEED_TOO_NEW, "format %d, this version reads up to %d", format,
                         FORMAT_VERSION);
    }
    const char *text = (const char *)sqlite3_column_text(statement, 1);
    if (text == NULL) return lacked_memory(g) ? no_memory(err) : not_a_generation(err);
    deed_str whole = {text, (size_t)sqlite3_column_bytes(statement, 1)};
    return projection_file_load(g->os, DEED_STR("stored projection"), whole, &g->file, err);
}

static deed_status read_file(struct generation *g, struct deed_error *err)
{
    sqlite3_stmt *statement = NULL;
    deed_status status =
        prepare_own(g, "SELECT format, text FROM _deedbook_file WHERE id = 1", &statement, err);
    if (status == DEED_INVALID) return not_a_generation(err);
    if (status != DEED_OK) return status;
    status = read_file_row(g, statement, err);
    sqlite3_finalize(statement);
    return status;
}

/* The table is made when there is something to count: most read models have none. */
static deed_status read_passed_over(struct generation *g, struct deed_error *err)
{
    sqlite3_stmt *statement = NULL;
    deed_status status =
        prepare_own(g, "SELECT 1 FROM sqlite_schema WHERE name = '_deedbook_removed'", &statement,
                    err);
    if (status != DEED_OK) return status;
    int rc = sqlite3_step(statement);
    sqlite3_finalize(statement);
    if (rc == SQLITE_DONE) return DEED_OK;
    if (rc != SQLITE_ROW) return database_fail(g->db, err);
    status = prepare_own(g, "SELECT count FROM _deedbook_removed WHERE id = 1", &statement, err);
    if (status != DEED_OK) return status == DEED_INVALID ? not_a_generation(err) : status;
    rc = sqlite3_step(statement);
    int64_t count = rc == SQLITE_ROW ? sqlite3_column_int64(statement, 0) : -1;
    sqlite3_finalize(statement);
    if (rc != SQLITE_ROW && rc != SQLITE_DONE) return database_fail(g->db, err);
    if (count < 0) return not_a_generation(err);
    g->passed_over = (uint64_t)count;
    return DEED_OK;
}

deed_status generation_open(struct os *os, const char *path, bool temporary,
                            struct generation **out_generation, struct deed_error *err)
{
    struct generation *g = NULL;
    deed_status status = generation_new(os, path, false, temporary, &g, err);
    if (status == DEED_OK) status = read_checkpoint(g, err);
    if (status == DEED_OK) status = read_file(g, err);
    if (status == DEED_OK) status = read_passed_over(g, err);
    if (status == DEED_OK) status = prepare_all(g, err);
    if (status != DEED_OK) {
        deed_wrap(err, "%s", path);
        generation_close(g);
        return status;
    }
    *out_generation = g;
    return DEED_OK;
}

const struct projection_file *generation_file(const struct generation *g)
{
    return g->file;
}

const char *generation_path(const struct generation *g)
{
    return g->path;
}

const struct generation_checkpoint *generation_checkpoint(const struct generation *g)
{
    return &g->checkpoint;
}

deed_status generation_change_file(struct generation *g, const struct projection_file *file,
                                   struct deed_error *err)
{
    assert(!g->in_transaction);
    assert(memcmp(g->file->tables_hash, file->tables_hash, SHA256_SIZE) == 0);
    struct projection_file *old = g->file, *copy = NULL;
    sqlite3_stmt **old_prepared = g->prepared;
    deed_status status = projection_file_load(g->os, file->file, file->text, &copy, err);
    if (status != DEED_OK) return status;
    g->file = copy;
    g->prepared = NULL;
    status = prepare_statements(g, err);
    if (status == DEED_OK) status = write_text(g, file->text, err);
    if (status == DEED_OK) {
        unprepare(old_prepared, old->statement_count);
        projection_file_free(old);
        return DEED_OK;
    }
    /* The old text goes on as if nothing had been. */
    unprepare(g->prepared, copy->statement_count);
    g->file = old;
    g->prepared = old_prepared;
    database_set_tables(g->db, old->tables, old->table_count);
    projection_file_free(copy);
    return status;
}

/* ---- folding -------------------------------------------------------------------------------- */

static deed_status run_statement(struct generation *g, sqlite3_stmt *prepared,
                                 struct deed_error *err)
{
    int rc = sqlite3_step(prepared);
    while (rc == SQLITE_ROW)
        rc = sqlite3_step(prepared); /* of RETURNING: nobody asked */
    deed_status status = rc == SQLITE_DONE ? DEED_OK : database_fail(g->db, err);
    (void)sqlite3_reset(prepared);
    return status;
}

static deed_status begin(struct generation *g, struct deed_error *err)
{
    if (g->in_transaction) return DEED_OK;
    deed_status status = step_own(g, g->begin, err);
    g->in_transaction = status == DEED_OK;
    return status;
}

deed_status generation_apply(struct generation *g, const struct deed_event *event,
                             deed_str *out_statement, struct deed_error *err)
{
    if (out_statement != NULL) *out_statement = (deed_str){0};
    assert(event->position > g->checkpoint.position); /* the caller skips what is folded in */
    const struct projection_reaction *reaction = projection_file_reaction(g->file, event->type);
    if (reaction == NULL) return DEED_OK;
    deed_status status = begin(g, err);
    if (status != DEED_OK) return status;

    database_limit_run(g->db, os_ticks_ns(g->os) + STATEMENT_TIME_NS_MAX, g->cancelled);
    struct binding_event bound;
    binding_event_init(&bound, event, &g->event_arena);
    for (size_t i = 0; status == DEED_OK && i < reaction->statement_count; i++) {
        const struct projection_statement *statement =
            &g->file->statements[reaction->statements[i]];
        sqlite3_stmt *prepared = g->prepared[reaction->statements[i]];
        status = bind_statement(&bound, statement, prepared, err);
        if (status == DEED_OK) status = run_statement(g, prepared, err);
        if (status == DEED_OK) continue;
        deed_wrap(err, "line %u", statement->sql.line);
        if (out_statement != NULL) *out_statement = statement->sql.source;
    }
    database_limit_run(g->db, UINT64_MAX, NULL);
    arena_reset(&g->event_arena);
    FAILPOINT("event-applied");
    return status;
}

deed_status generation_pass_over(struct generation *g, struct deed_error *err)
{
    deed_status status = begin(g, err);
    if (status == DEED_OK) g->passing++;
    return status;
}

uint64_t generation_passed_over(const struct generation *g)
{
    return g->passed_over;
}

static deed_status write_passed_over(struct generation *g, struct deed_error *err)
{
    if (g->passing == 0) return DEED_OK;
    char sql[256];
    (void)snprintf(sql, sizeof sql,
                   "CREATE TABLE IF NOT EXISTS _deedbook_removed"
                   " (id INTEGER PRIMARY KEY CHECK (id = 1), count INTEGER NOT NULL);"
                   "REPLACE INTO _deedbook_removed (id, count) VALUES (1, %llu);",
                   (unsigned long long)(g->passed_over + g->passing));
    return database_run(g->db, DATABASE_TRUSTED, sql, err);
}

deed_status generation_commit(struct generation *g, uint64_t position, struct deed_error *err)
{
    assert(position >= g->checkpoint.position);
    if (!g->in_transaction && position == g->checkpoint.position) return DEED_OK;
    deed_status status = begin(g, err);
    if (status != DEED_OK) return status;
    FAILPOINT("checkpoint-before");
    (void)sqlite3_bind_int64(g->set_position, 1,
                             (sqlite3_int64)position + PLANTED(CHECKPOINT_AHEAD));
    if (PLANTED(CHECKPOINT_APART)) status = step_own(g, g->commit, err);
    status = write_passed_over(g, err);
    if (status == DEED_OK) status = step_own(g, g->set_position, err);
    FAILPOINT("commit-before");
    if (status == DEED_OK && !PLANTED(CHECKPOINT_APART)) status = step_own(g, g->commit, err);
    FAILPOINT("commit-after");
    if (status != DEED_OK) {
        g->doubtful = true;
        generation_rollback(g);
        return status;
    }
    g->in_transaction = false;
    g->checkpoint.position = position;
    g->passed_over += g->passing;
    g->passing = 0;
    if (g->temporary || g->wal_pages < g->wal_pages_next) return DEED_OK;
    g->wal_pages_next = g->wal_pages + WAL_PAGES_MORE;
    return settle(g, SQLITE_CHECKPOINT_PASSIVE, err);
}

void generation_rollback(struct generation *g)
{
    /* Some failures have rolled back already; then there is nothing left to do. */
    if (g->in_transaction && sqlite3_get_autocommit(database_sqlite(g->db)) == 0) {
        (void)step_own(g, g->rollback, NULL);
    }
    g->in_transaction = false;
    g->passing = 0;
}

bool generation_in_transaction(const struct generation *g)
{
    return g->in_transaction;
}

deed_status generation_settle(struct generation *g, struct deed_error *err)
{
    assert(!g->in_transaction);
    FAILPOINT("settle-before");
    deed_status status = settle(g, SQLITE_CHECKPOINT_TRUNCATE, err);
    FAILPOINT("settle-after");
    return status;
}

void generation_on_cancel(struct generation *g, const atomic_bool *cancelled)
{
    g->cancelled = cancelled;
}
