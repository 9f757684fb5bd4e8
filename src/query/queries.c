/* queries.c - from a name and parameters to rows.
 *
 *     resolve ─► wait (after) ─► lease the files ─► session ─► rows
 *
 * Which projections a query needs is found by preparing it against a database in memory that has
 * every live table and no rows; that is done again whenever the tables change.
 *
 * (1) `mutex` guards the list, each query's resolution, the database of tables and the idle sessions.
 *     Nothing waits for a query under it.
 * (2) A run holds a reference to its query: a query that is replaced is freed by its last run.
 * (3) An idle session holds no lease. Its files may have been replaced meanwhile: it is used again only
 *     for the same paths, and paths are never used twice. */
#include "query/queries.h"

#include "base/text.h"
#include "os/thread.h"
#include "projection/database.h"
#include "projection/sql_folder.h"
#include "query/query_file.h"
#include "query/session.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

#define ROW_COUNT_DEFAULT  10000
#define SIZE_DEFAULT       (32u << 20)
#define TIMEOUT_DEFAULT_MS 10000
#define NS_PER_MS          UINT64_C(1000000)
/* Sessions kept for the next run of the same query: about as many as run at once. */
#define IDLE_COUNT_MAX 32
/* The tables of one app. */
#define SCHEMA_ARENA_SIZE_MAX (64u << 20)
/* Tables may change between resolving and running; more often than this in a row means trouble. */
#define ATTEMPTS_MAX 4

/* What a query reads, as of a version of the tables. */
struct resolution {
    uint64_t version;
    deed_status status; /* not DEED_OK: `trouble` says why it cannot run */
    char trouble[DEED_MESSAGE_SIZE];
    deed_str projections[SESSION_FILE_COUNT_MAX];
    size_t projection_count;
    deed_str *tables;
    size_t table_count;
    struct arena arena;
};

struct query {
    struct query_file *file;
    struct resolution resolution;
    unsigned references; /* the list's own, and one a run */
    bool from_folder;
};

struct queries {
    struct projections *projections;
    struct os *os;
    struct queries_options options;
    struct os_mutex mutex; /* see (1) */
    struct query **list;   /* in order of name */
    size_t count;
    struct database *tables_db;
    struct projection_schema *schema; /* in `schema_arena` */
    size_t schema_count;
    uint64_t schema_version;
    struct arena schema_arena;
    struct session *idle[IDLE_COUNT_MAX]; /* the last one was used last */
    size_t idle_count;
    struct query_metrics metrics;
};

static deed_status no_memory(struct deed_error *err)
{
    return deed_fail(err, DEED_NO_MEMORY, "no memory for a query");
}

static uint64_t now(const struct queries *q)
{
    return os_ticks_ns(q->os);
}

/* ---- the database of tables ------------------------------------------------------------------ */

static void idle_drop(struct queries *q, const struct query_file *file)
{
    size_t kept = 0;
    for (size_t i = 0; i < q->idle_count; i++) {
        if (file == NULL || session_fits(q->idle[i], file, NULL)) {
            session_close(q->idle[i]);
        } else {
            q->idle[kept++] = q->idle[i];
        }
    }
    q->idle_count = kept;
}

static deed_status make_tables(struct queries *q, struct database *db, struct deed_error *err)
{
    size_t table_count = 0, count = 0;
    for (size_t i = 0; i < q->schema_count; i++)
        table_count += q->schema[i].table_count;
    deed_str *tables = arena_alloc_array(&q->schema_arena, table_count, sizeof *tables);
    if (tables == NULL) return no_memory(err);
    for (size_t i = 0; i < q->schema_count; i++) {
        const struct projection_schema *schema = &q->schema[i];
        for (size_t j = 0; j < schema->statement_count; j++) {
            deed_status status = database_run(db, DATABASE_TRUSTED, schema->statements[j].ptr, err);
            /* While a table moves from one projection to another both may have it. */
            if (status != DEED_OK && status != DEED_INVALID) return status;
        }
        for (size_t j = 0; j < schema->table_count; j++)
            tables[count++] = schema->tables[j];
    }
    database_set_tables(db, tables, count);
    return DEED_OK;
}

/* Bring `tables_db` up to date. The mutex is held. */
static deed_status refresh_tables(struct queries *q, struct deed_error *err)
{
    if (q->tables_db != NULL && q->schema_version == projections_schema_version(q->projections)) {
        return DEED_OK;
    }
    database_close(q->tables_db);
    q->tables_db = NULL;
    arena_reset(&q->schema_arena);
    idle_drop(q, NULL); /* they may hold files of generations that are gone */
    deed_status status = projections_schema(q->projections, &q->schema_arena, &q->schema,
                                            &q->schema_count, &q->schema_version, err);
    struct database *db = NULL;
    struct database_options options = {.create = true};
    if (status == DEED_OK) status = database_open(q->os, &options, &db, err);
    if (status == DEED_OK) status = make_tables(q, db, err);
    if (status != DEED_OK) {
        database_close(db);
        return status;
    }
    q->tables_db = db;
    return DEED_OK;
}

/* ---- resolving ------------------------------------------------------------------------------- */

struct reading {
    struct queries *q;
    struct resolution *resolution;
    deed_str *tables; /* read so far, each once */
    size_t count, room;
    bool no_memory;
};

static bool same_name(deed_str a, deed_str b)
{
    return a.len == b.len && strncasecmp(a.ptr, b.ptr, a.len) == 0;
}

static void note_read(void *context, deed_str table)
{
    struct reading *reading = context;
    for (size_t i = 0; i < reading->count; i++) {
        if (same_name(reading->tables[i], table)) return;
    }
    deed_str copy = arena_str(&reading->resolution->arena, table);
    if (copy.ptr == NULL || reading->count == reading->room) {
        reading->no_memory = true;
        return;
    }
    reading->tables[reading->count++] = copy;
}

static deed_str owner_of(const struct queries *q, deed_str table)
{
    for (size_t i = 0; i < q->schema_count; i++) {
        for (size_t j = 0; j < q->schema[i].table_count; j++) {
            if (same_name(q->schema[i].tables[j], table)) return q->schema[i].projection;
        }
    }
    return (deed_str){0};
}

static deed_status add_owner(struct queries *q, struct resolution *r, deed_str table,
                             struct deed_error *err)
{
    deed_str owner = owner_of(q, table);
    assert(owner.ptr != NULL); /* the authorizer lets no other be read */
    for (size_t i = 0; i < r->projection_count; i++) {
        if (deed_str_equal(r->projections[i], owner)) return DEED_OK;
    }
    if (r->projection_count == SESSION_FILE_COUNT_MAX) {
        return deed_fail(err, DEED_INVALID, "it reads more than %d projections",
                         SESSION_FILE_COUNT_MAX);
    }
    deed_str copy = arena_str(&r->arena, owner);
    if (copy.ptr == NULL) return no_memory(err);
    r->projections[r->projection_count++] = copy;
    return DEED_OK;
}

static deed_status resolve_prepared(struct queries *q, struct resolution *r,
                                    struct reading *reading, sqlite3_stmt *select,
                                    struct deed_error *err)
{
    if (reading->no_memory) return no_memory(err);
    if (!sqlite3_stmt_readonly(select)) return deed_fail(err, DEED_INVALID, "it is not a SELECT");
    deed_status status = session_check_columns(select, err);
    for (size_t i = 0; status == DEED_OK && i < reading->count; i++) {
        status = add_owner(q, r, reading->tables[i], err);
    }
    r->tables = reading->tables;
    r->table_count = reading->count;
    return status;
}

/* Find what a query reads. `*out_missing`: SQLite's only complaint is a table that is not there. */
static deed_status resolve_now(struct queries *q, const struct query_file *file,
                               struct resolution *r, bool *out_missing, struct deed_error *err)
{
    size_t room = 0;
    for (size_t i = 0; i < q->schema_count; i++)
        room += q->schema[i].table_count;
    struct reading reading = {.q = q, .resolution = r, .room = room};
    reading.tables = arena_alloc_array(&r->arena, room, sizeof *reading.tables);
    if (reading.tables == NULL) return no_memory(err);

    struct deed_error why = {0};
    sqlite3_stmt *select = NULL;
    size_t offset = 0;
    database_on_read(q->tables_db, note_read, &reading);
    deed_status status = database_prepare(q->tables_db, DATABASE_QUERY, file->sql.text, false,
                                          &select, &offset, &why);
    database_on_read(q->tables_db, NULL, NULL);
    *out_missing = status == DEED_INVALID &&
                   str_starts_with(deed_str_of(why.message), DEED_STR("no such table:"));
    if (status != DEED_OK) {
        return deed_fail(err, status, "line %u: %s", sql_statement_line(&file->sql, offset),
                         why.message);
    }
    status = resolve_prepared(q, r, &reading, select, err);
    sqlite3_finalize(select);
    return status;
}

/* Bring a query's resolution up to date. Only trouble with memory or the tables fails here; trouble
 * with the query is kept in the resolution. The mutex is held. */
static deed_status resolve(struct queries *q, struct query *query, bool *out_missing,
                           struct deed_error *err)
{
    *out_missing = false;
    deed_status status = refresh_tables(q, err);
    if (status != DEED_OK) return status;
    struct resolution *r = &query->resolution;
    if (r->version == q->schema_version) return DEED_OK;
    arena_reset(&r->arena);
    r->projection_count = 0;
    r->table_count = 0;
    r->trouble[0] = '\0';
    struct deed_error why = {0};
    status = resolve_now(q, query->file, r, out_missing, &why);
    if (status == DEED_NO_MEMORY) return deed_fail(err, status, "%s", why.message);
    r->status = status;
    (void)snprintf(r->trouble, sizeof r->trouble, "%s", why.message);
    r->version = q->schema_version;
    return DEED_OK;
}

/* ---- the set --------------------------------------------------------------------------------- */

deed_status queries_open(struct projections *projections, const struct queries_options *options,
                         struct queries **out_queries, struct deed_error *err)
{
    struct queries *q = calloc(1, sizeof *q);
    if (q == NULL) return no_memory(err);
    q->projections = projections;
    q->os = store_os(projections_store(projections));
    if (options != NULL) q->options = *options;
    if (q->options.row_count_max == 0) q->options.row_count_max = ROW_COUNT_DEFAULT;
    if (q->options.size_max == 0) q->options.size_max = SIZE_DEFAULT;
    if (q->options.timeout_ms == 0) q->options.timeout_ms = TIMEOUT_DEFAULT_MS;
    arena_init(&q->schema_arena, SCHEMA_ARENA_SIZE_MAX);
    os_mutex_init(&q->mutex);
    *out_queries = q;
    return DEED_OK;
}

static void query_free(struct query *query)
{
    query_file_free(query->file);
    arena_done(&query->resolution.arena);
    free(query);
}

/* The mutex is held. */
static void query_release(struct queries *q, struct query *query)
{
    assert(query->references > 0);
    if (--query->references > 0) return;
    idle_drop(q, query->file);
    query_free(query);
}

void queries_close(struct queries *q)
{
    if (q == NULL) return;
    idle_drop(q, NULL);
    for (size_t i = 0; i < q->count; i++) {
        assert(q->list[i]->references == 1); /* no run is under way */
        query_free(q->list[i]);
    }
    free(q->list);
    database_close(q->tables_db);
    arena_done(&q->schema_arena);
    os_mutex_done(&q->mutex);
    free(q);
}

/* Where it is, or where it would be. */
static bool find(const struct queries *q, deed_str name, size_t *out_at)
{
    size_t low = 0, high = q->count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        int order = str_compare(q->list[middle]->file->name, name);
        if (order == 0) {
            *out_at = middle;
            return true;
        }
        if (order < 0) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    *out_at = low;
    return false;
}

/* Takes over a reference. The mutex is held. */
static deed_status list_put(struct queries *q, struct query *query, struct deed_error *err)
{
    size_t at = 0;
    if (find(q, query->file->name, &at)) {
        query_release(q, q->list[at]);
        q->list[at] = query;
        return DEED_OK;
    }
    struct query **grown = realloc(q->list, (q->count + 1) * sizeof(struct query *));
    if (grown == NULL) return no_memory(err);
    q->list = grown;
    memmove(grown + at + 1, grown + at, (q->count - at) * sizeof(struct query *));
    grown[at] = query;
    q->count++;
    return DEED_OK;
}

static deed_status add(struct queries *q, deed_str name, deed_str sql, bool from_folder,
                       struct deed_error *err)
{
    struct query_file *file = NULL;
    deed_status status = query_file_load(name, sql, &file, err);
    if (status != DEED_OK) return status;
    struct query *query = calloc(1, sizeof *query);
    if (query == NULL) {
        query_file_free(file);
        return no_memory(err);
    }
    *query = (struct query){.file = file, .references = 1, .from_folder = from_folder};
    query->resolution.version = UINT64_MAX; /* none yet */
    arena_init(&query->resolution.arena, SCHEMA_ARENA_SIZE_MAX);

    os_mutex_lock(&q->mutex);
    bool missing = false;
    status = resolve(q, query, &missing, err);
    if (status == DEED_OK && query->resolution.status != DEED_OK && !missing) {
        status = deed_fail(err, query->resolution.status, "query %.*s: %s", DEED_FMT(name),
                           query->resolution.trouble);
    }
    if (status == DEED_OK) status = list_put(q, query, err);
    os_mutex_unlock(&q->mutex);
    if (status != DEED_OK) query_free(query);
    return status;
}

deed_status queries_add(struct queries *q, deed_str name, deed_str sql, struct deed_error *err)
{
    return add(q, name, sql, false, err);
}

static deed_str name_of(const struct sql_folder_file *file)
{
    return (deed_str){file->name.ptr, file->name.len - 4}; /* without ".sql" */
}

static void remove_gone(struct queries *q, const struct sql_folder_file *files, size_t count)
{
    os_mutex_lock(&q->mutex);
    size_t kept = 0;
    for (size_t i = 0; i < q->count; i++) {
        struct query *query = q->list[i];
        bool there = !query->from_folder;
        for (size_t j = 0; !there && j < count; j++) {
            there = deed_str_equal(name_of(&files[j]), query->file->name);
        }
        if (there) {
            q->list[kept++] = query;
        } else {
            query_release(q, query);
        }
    }
    q->count = kept;
    os_mutex_unlock(&q->mutex);
}

deed_status queries_load(struct queries *q, const char *folder, struct deed_error *err)
{
    struct arena arena;
    arena_init(&arena, 256u << 20);
    struct sql_folder_file *files = NULL;
    size_t count = 0;
    deed_status status = sql_folder_read(q->os, folder, &arena, &files, &count, err);
    if (status == DEED_OK) {
        remove_gone(q, files, count);
        for (size_t i = 0; i < count; i++) {
            struct deed_error why = {0};
            deed_status one =
                files[i].status != DEED_OK
                    ? deed_fail(&why, files[i].status, "%.*s", DEED_FMT(files[i].message))
                    : add(q, name_of(&files[i]), files[i].text, true, &why);
            if (one == DEED_OK || status != DEED_OK) continue;
            status = deed_fail(err, one, "%s", why.message);
        }
    }
    arena_done(&arena);
    return status;
}

/* ---- listing --------------------------------------------------------------------------------- */

static bool describe(const struct query *query, struct arena *arena, struct query_description *out)
{
    const struct query_file *file = query->file;
    const struct resolution *r = &query->resolution;
    *out = (struct query_description){
        .name = arena_str(arena, file->name),
        .comment = arena_str(arena, file->comment),
        .parameter_count = file->parameter_count,
        .projection_count = r->projection_count,
    };
    return out->name.ptr != NULL && out->comment.ptr != NULL &&
           arena_list(arena, file->parameters, file->parameter_count, &out->parameters) &&
           arena_list(arena, r->projections, r->projection_count, &out->projections);
}

deed_status queries_list(struct queries *q, struct arena *arena,
                         struct query_description **out_list, size_t *out_count,
                         struct deed_error *err)
{
    deed_status status = DEED_OK;
    os_mutex_lock(&q->mutex);
    struct query_description *list = arena_alloc_array(arena, q->count, sizeof *list);
    if (list == NULL) status = no_memory(err);
    for (size_t i = 0; status == DEED_OK && i < q->count; i++) {
        bool missing;
        status = resolve(q, q->list[i], &missing, err);
        if (status == DEED_OK && !describe(q->list[i], arena, &list[i])) status = no_memory(err);
    }
    *out_count = q->count;
    os_mutex_unlock(&q->mutex);
    if (status == DEED_OK) *out_list = list;
    return status;
}

/* ---- parameters ------------------------------------------------------------------------------ */

static bool is_known(const struct query_file *file, deed_str name)
{
    for (size_t i = 0; i < file->sql.parameter_count; i++) {
        if (deed_str_equal(file->sql.parameters[i].name, name)) return true;
    }
    return false;
}

static void list_name(struct buf *text, size_t *count, const char *label, deed_str name)
{
    if (*count == 0) {
        buf_printf(text, "%s%s", text->len == 0 ? "" : "; ", label);
    } else {
        buf_add_str(text, DEED_STR(", "));
    }
    buf_add_str(text, name);
    ++*count;
}

/* Name all that is wrong at once: who fixes one learns about the next otherwise. */
static void list_wrong(const struct query_file *file, const struct deed_parameter *given,
                       size_t count, const deed_str *values, struct buf *text)
{
    size_t missing = 0, unknown = 0, twice = 0;
    for (size_t i = 0; i < file->sql.parameter_count; i++) {
        if (values[i].ptr != NULL || file->sql.parameters[i].optional) continue;
        list_name(text, &missing, "missing parameters: ", file->sql.parameters[i].name);
    }
    for (size_t i = 0; i < count; i++) {
        if (!is_known(file, given[i].name)) {
            list_name(text, &unknown, "unknown parameters: ", given[i].name);
        }
    }
    for (size_t i = 0; i < count; i++) {
        for (size_t j = 0; j < i; j++) {
            if (!deed_str_equal(given[i].name, given[j].name)) continue;
            list_name(text, &twice, "parameters given twice: ", given[i].name);
            break;
        }
    }
}

static deed_status match_parameters(const struct query_file *file,
                                    const struct deed_query_options *options, deed_str *values,
                                    struct deed_error *err)
{
    for (size_t i = 0; i < options->parameter_count; i++) {
        const struct deed_parameter *given = &options->parameters[i];
        for (size_t j = 0; j < file->sql.parameter_count; j++) {
            if (!deed_str_equal(file->sql.parameters[j].name, given->name)) continue;
            values[j] = given->value.ptr == NULL ? DEED_STR("") : given->value;
            if (utf8_valid(deed_bytes_of(given->value))) continue;
            return deed_fail(err, DEED_INVALID, "query %.*s: parameter %.*s is not UTF-8",
                             DEED_FMT(file->name), DEED_FMT(given->name));
        }
    }
    struct buf text;
    buf_init(&text, 400);
    list_wrong(file, options->parameters, options->parameter_count, values, &text);
    deed_status status = DEED_OK;
    if (text.len > 0 || !buf_ok(&text)) {
        status = deed_fail(err, DEED_INVALID, "query %.*s: %.*s%s", DEED_FMT(file->name),
                           DEED_FMT(buf_str(&text)), buf_ok(&text) ? "" : ", …");
    }
    buf_done(&text);
    return status;
}

/* ---- running --------------------------------------------------------------------------------- */

/* One run's own copy of what it needs to know. */
struct plan {
    struct query *query;
    uint64_t version;
    deed_str projections[SESSION_FILE_COUNT_MAX];
    size_t projection_count;
    struct session_sources sources;
    uint64_t reached[SESSION_FILE_COUNT_MAX]; /* what each file has seen when it was leased */
    struct projection_lease *leases[SESSION_FILE_COUNT_MAX];
    uint64_t deadline_ticks;
    struct arena arena;
};

static uint32_t left_ms(const struct queries *q, const struct plan *plan)
{
    uint64_t ticks = now(q);
    return ticks >= plan->deadline_ticks ? 0
                                         : (uint32_t)((plan->deadline_ticks - ticks) / NS_PER_MS);
}

/* What to run against: copied, since the resolution may be renewed meanwhile. */
static deed_status plan_make(struct queries *q, struct plan *plan, struct deed_error *err)
{
    struct query *query = plan->query;
    bool missing;
    os_mutex_lock(&q->mutex);
    deed_status status = resolve(q, query, &missing, err);
    const struct resolution *r = &query->resolution;
    if (status == DEED_OK && r->status != DEED_OK) {
        status = deed_fail(err, DEED_STOPPED, "query %.*s cannot run: %s",
                           DEED_FMT(query->file->name), r->trouble);
    }
    if (status == DEED_OK) {
        const deed_str *projections = NULL;
        plan->version = r->version;
        plan->projection_count = r->projection_count;
        plan->sources.count = r->projection_count;
        plan->sources.table_count = r->table_count;
        bool ok = arena_list(&plan->arena, r->projections, r->projection_count, &projections) &&
                  arena_list(&plan->arena, r->tables, r->table_count, &plan->sources.tables);
        if (!ok) status = no_memory(err);
        for (size_t i = 0; ok && i < r->projection_count; i++)
            plan->projections[i] = projections[i];
    }
    os_mutex_unlock(&q->mutex);
    return status;
}

static void plan_release(struct plan *plan)
{
    for (size_t i = 0; i < plan->projection_count; i++) {
        projections_release(plan->leases[i]);
        plan->leases[i] = NULL;
    }
}

static deed_status plan_lease(struct queries *q, struct plan *plan, uint64_t position,
                              struct deed_error *err)
{
    deed_status status = DEED_OK;
    for (size_t i = 0; status == DEED_OK && i < plan->projection_count; i++) {
        status =
            projections_lease(q->projections, plan->projections[i], position, left_ms(q, plan),
                              &plan->leases[i], &plan->sources.paths[i], &plan->reached[i], err);
    }
    return status;
}

static struct session *idle_take(struct queries *q, const struct plan *plan)
{
    struct session *found = NULL;
    os_mutex_lock(&q->mutex);
    for (size_t i = q->idle_count; found == NULL && i > 0; i--) {
        if (!session_fits(q->idle[i - 1], plan->query->file, &plan->sources)) continue;
        found = q->idle[i - 1];
        memmove(q->idle + i - 1, q->idle + i, (q->idle_count - i) * sizeof(struct session *));
        q->idle_count--;
    }
    os_mutex_unlock(&q->mutex);
    return found;
}

static void idle_give(struct queries *q, const struct plan *plan, struct session *session)
{
    struct session *extra = session;
    os_mutex_lock(&q->mutex);
    /* The tables have changed meanwhile: so may the files have. */
    if (plan->version == projections_schema_version(q->projections)) {
        extra = NULL;
        if (q->idle_count == IDLE_COUNT_MAX) {
            extra = q->idle[0];
            memmove(q->idle, q->idle + 1, (IDLE_COUNT_MAX - 1) * sizeof(struct session *));
            q->idle_count--;
        }
        q->idle[q->idle_count++] = session;
    }
    os_mutex_unlock(&q->mutex);
    session_close(extra);
}

/* A snapshot of the past is given back when it was read: its session is not kept. */
static deed_status plan_run(struct queries *q, struct plan *plan, bool keep,
                            struct session_run *run, struct deed_error *err)
{
    struct session *session = keep ? idle_take(q, plan) : NULL;
    deed_status status = DEED_OK;
    if (session == NULL) {
        status = session_open(q->os, plan->query->file, &plan->sources, &session, err);
    }
    if (status == DEED_OK) status = session_go(session, run, err);
    bool sound = status == DEED_OK || status == DEED_TIMEOUT || status == DEED_TOO_LARGE ||
                 status == DEED_INVALID;
    if (session != NULL && keep && sound) {
        idle_give(q, plan, session);
    } else {
        session_close(session);
    }
    return status;
}

/* Say which of the files is damaged; with more than one that takes a look. `*out_told`: one is. */
static void plan_damaged(const struct queries *q, const struct plan *plan, const char *message,
                         bool *out_told)
{
    for (size_t i = 0; i < plan->projection_count; i++) {
        struct deed_error found = {0};
        (void)snprintf(found.message, sizeof found.message, "%s", message);
        bool damaged = plan->projection_count == 1 ||
                       session_examine(q->os, plan->sources.paths[i], plan->deadline_ticks,
                                       &found) == DEED_CORRUPT;
        if (!damaged) continue;
        projections_damaged(plan->leases[i], found.message);
        *out_told = true;
    }
}

/* The lowest position that any part of the answer is as of. */
static uint64_t plan_position(const struct queries *q, const struct plan *plan,
                              const struct session_run *run, uint64_t asked)
{
    if (asked != 0) return asked;
    uint64_t lowest = UINT64_MAX;
    for (size_t i = 0; i < plan->projection_count; i++) {
        /* The checkpoint in the file may lag where nothing matched; see fold.h. */
        uint64_t seen = run->positions[i];
        if (plan->reached[i] > seen) seen = plan->reached[i];
        if (seen < lowest) lowest = seen;
    }
    return lowest == UINT64_MAX ? store_position(projections_store(q->projections)) : lowest;
}

static deed_status attempt(struct queries *q, struct plan *plan,
                           const struct deed_query_options *options, struct session_run *run,
                           uint64_t *out_position, bool *out_told, struct deed_error *err)
{
    deed_status status = plan_make(q, plan, err);
    if (status != DEED_OK) return status;
    bool waits = options->after > 0 && options->position == 0 && plan->projection_count > 0;
    if (waits) {
        status = projections_wait(q->projections, plan->projections, plan->projection_count,
                                  options->after, left_ms(q, plan), err);
    }
    if (status == DEED_OK) status = plan_lease(q, plan, options->position, err);
    bool leased = status == DEED_OK;
    if (leased) status = plan_run(q, plan, options->position == 0, run, err);
    if (leased && status == DEED_CORRUPT) plan_damaged(q, plan, err->message, out_told);
    if (status == DEED_OK) *out_position = plan_position(q, plan, run, options->position);
    plan_release(plan);
    return status;
}

static deed_status run_plan(struct queries *q, struct plan *plan,
                            const struct deed_query_options *options, struct session_run *run,
                            uint64_t *out_position, struct deed_error *err)
{
    const struct query_file *file = plan->query->file;
    deed_str *values = arena_alloc_array(&plan->arena, file->sql.parameter_count, sizeof *values);
    if (values == NULL) return no_memory(err);
    deed_status status = match_parameters(file, options, values, err);
    if (status != DEED_OK) return status;
    run->values = values;
    for (int i = 0; i < ATTEMPTS_MAX; i++) {
        bool told = false;
        status = attempt(q, plan, options, run, out_position, &told, err);
        /* What was damaged is being made anew by now, and says so, or is waited for. */
        if (status == DEED_CORRUPT && told) continue;
        /* A projection was switched to other tables between resolving and leasing. */
        bool changed = plan->version != projections_schema_version(q->projections);
        if (status != DEED_INVALID || !changed) break;
    }
    return status;
}

static void count_run(struct queries *q, deed_status status, uint64_t rows, uint64_t took_ns)
{
    struct store_histogram *h = &q->metrics.run;
    uint64_t us = took_ns / 1000;
    size_t bucket = 0;
    while (bucket < STORE_HISTOGRAM_BUCKETS && us > UINT64_C(1) << bucket)
        bucket++;
    os_mutex_lock(&q->mutex);
    q->metrics.queries++;
    q->metrics.failed += status != DEED_OK;
    q->metrics.rows += status == DEED_OK ? rows : 0;
    h->buckets[bucket]++;
    h->count++;
    h->sum_ns += took_ns;
    os_mutex_unlock(&q->mutex);
}

static struct query *take_query(struct queries *q, deed_str name)
{
    struct query *query = NULL;
    size_t at = 0;
    os_mutex_lock(&q->mutex);
    if (find(q, name, &at)) {
        query = q->list[at];
        query->references++;
    }
    os_mutex_unlock(&q->mutex);
    return query;
}

deed_status queries_run(struct queries *q, deed_str name, const struct deed_query_options *options,
                        struct buf *out, uint64_t *out_position, struct deed_error *err)
{
    static const struct deed_query_options none;
    if (options == NULL) options = &none;
    struct query *query = take_query(q, name);
    if (query == NULL) {
        return deed_fail(err, DEED_NOT_FOUND, "there is no query %.*s", DEED_FMT(name));
    }
    uint64_t start = now(q), position = 0;
    uint32_t timeout_ms = options->timeout_ms;
    if (timeout_ms == 0 || timeout_ms > q->options.timeout_ms) timeout_ms = q->options.timeout_ms;
    struct plan plan = {.query = query, .deadline_ticks = start + timeout_ms * NS_PER_MS};
    arena_init(&plan.arena, SCHEMA_ARENA_SIZE_MAX);
    struct session_run run = {
        .deadline_ticks = plan.deadline_ticks,
        .row_count_max = q->options.row_count_max,
        .size_max = q->options.size_max,
        .out = out,
    };
    struct deed_error why = {0};
    deed_status status = run_plan(q, &plan, options, &run, &position, &why);
    if (status != DEED_OK) {
        bool named = str_starts_with(deed_str_of(why.message), DEED_STR("query "));
        (void)deed_fail(err, status, "%s", why.message);
        if (!named) deed_wrap(err, "query %.*s", DEED_FMT(query->file->name));
    } else if (out_position != NULL) {
        *out_position = position;
    }
    arena_done(&plan.arena);
    count_run(q, status, run.row_count, now(q) - start);
    os_mutex_lock(&q->mutex);
    query_release(q, query);
    os_mutex_unlock(&q->mutex);
    return status;
}

void queries_get_metrics(struct queries *q, struct query_metrics *out_metrics)
{
    os_mutex_lock(&q->mutex);
    *out_metrics = q->metrics;
    os_mutex_unlock(&q->mutex);
}
