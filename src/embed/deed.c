/* deed.c - deedbook.h over the layers: what an embedding program sees.
 *
 * (1) Nothing is decided here: each function is one call of the layer that owns the matter.
 * (2) The projections and queries are there from the start, empty; the executor comes with the
 *     domain. Closing goes the other way round.
 * (3) Public functions answer misuse with a status: they live in somebody else's process. */
#include "deedbook.h"

#include "base/error.h"
#include "domain/executor.h"
#include "domain/host.h"
#include "os/thread.h"
#include "projection/projections.h"
#include "query/queries.h"
#include "store/backup.h"
#include "store/store.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

struct deed {
    struct store *store;
    struct projections *projections; /* NULL when opened read-only */
    struct queries *queries;
    struct os_mutex domain_lock;
    _Atomic(struct executor *) executor;
};

/* ---- misuse --------------------------------------------------------------------------------- */

static deed_status misuse(struct deed_error *err, const char *function)
{
    return deed_fail(err, DEED_MISUSE, "%s: NULL is given where there must be something", function);
}

static bool is_list(const void *list, size_t count)
{
    return list != NULL || count == 0;
}

static bool has_lists(const struct deed_append *a)
{
    bool ok = is_list(a->events, a->event_count) && is_list(a->conditions, a->condition_count);
    for (size_t i = 0; ok && i < a->event_count; i++) {
        ok = is_list(a->events[i].tags, a->events[i].tag_count);
    }
    for (size_t i = 0; ok && i < a->condition_count; i++) {
        const struct deed_condition *c = &a->conditions[i];
        ok = is_list(c->items, c->item_count);
        for (size_t k = 0; ok && k < c->item_count; k++) {
            ok = is_list(c->items[k].types, c->items[k].type_count) &&
                 is_list(c->items[k].tags, c->items[k].tag_count);
        }
    }
    return ok;
}

static bool filter_has_lists(const struct deed_filter *f)
{
    return is_list(f->types, f->type_count) && is_list(f->tags, f->tag_count) &&
           is_list(f->categories, f->category_count) && is_list(f->streams, f->stream_count) &&
           is_list(f->correlation_ids, f->correlation_id_count);
}

/* ---- opening -------------------------------------------------------------------------------- */

static deed_status open_parts(struct deed *deed, const char *directory,
                              const struct deed_options *o, struct deed_error *err)
{
    struct store_options store_options = {.limits = o->limits,
                                          .segment_size = o->segment_size,
                                          .cache_size = o->cache_size,
                                          .open_file_count_max = o->open_file_count_max,
                                          .read_only = o->read_only,
                                          .must_exist = o->must_exist,
                                          .unsafe_no_sync = o->unsafe_no_sync};
    struct projections_options projections_options = {.batch_count_max = o->projection_batch_max};
    deed_status status = store_open(os_real(), directory, &store_options, &deed->store, err);
    if (status != DEED_OK || o->read_only) return status;
    status = projections_open(deed->store, &projections_options, &deed->projections, err);
    if (status == DEED_OK) status = queries_open(deed->projections, NULL, &deed->queries, err);
    if (status == DEED_OK && o->app != NULL) status = deed_load_app(deed, o->app, err);
    return status;
}

deed_status deed_open(const char *directory, const struct deed_options *options,
                      struct deed **out_deed, struct deed_error *err)
{
    static const struct deed_options defaults = {0};
    if (directory == NULL || out_deed == NULL) return misuse(err, "deed_open");
    struct deed *deed = calloc(1, sizeof *deed);
    if (deed == NULL) return deed_fail(err, DEED_NO_MEMORY, "open: out of memory");
    os_mutex_init(&deed->domain_lock);
    deed_status status = open_parts(deed, directory, options == NULL ? &defaults : options, err);
    if (status != DEED_OK) {
        deed_close(deed);
        return status;
    }
    *out_deed = deed;
    return DEED_OK;
}

void deed_close(struct deed *deed)
{
    if (deed == NULL) return;
    executor_close(atomic_load(&deed->executor));
    queries_close(deed->queries);
    projections_close(deed->projections);
    store_close(deed->store);
    os_mutex_done(&deed->domain_lock);
    free(deed);
}

void deed_get_info(struct deed *deed, struct deed_info *out_info)
{
    if (out_info == NULL) return;
    *out_info = (struct deed_info){.corrupt_first = DEED_NONE, .corrupt_last = DEED_NONE};
    if (deed != NULL) store_info(deed->store, out_info);
}

/* ---- appending and reading ------------------------------------------------------------------ */

deed_status deed_append(struct deed *deed, const struct deed_append *append,
                        struct deed_appended *out_appended, struct deed_error *err)
{
    struct deed_appended ignored;
    if (deed == NULL || append == NULL || !has_lists(append)) return misuse(err, "deed_append");
    return store_append(deed->store, append, out_appended == NULL ? &ignored : out_appended, err);
}

deed_status deed_append_async(struct deed *deed, const struct deed_append *append,
                              deed_append_done *done, void *context, struct deed_error *err)
{
    if (deed == NULL || append == NULL || done == NULL || !has_lists(append)) {
        return misuse(err, "deed_append_async");
    }
    return store_submit(deed->store, append, done, context, err);
}

deed_status deed_delete_stream(struct deed *deed, deed_str stream, enum deed_expect expect,
                               uint64_t revision, bool tombstone, deed_str actor,
                               struct deed_appended *out_appended, struct deed_error *err)
{
    struct deed_appended ignored;
    if (deed == NULL) return misuse(err, "deed_delete_stream");
    return store_delete_stream(deed->store, stream, expect, revision, tombstone, actor,
                               out_appended == NULL ? &ignored : out_appended, err);
}

deed_status deed_compact(struct deed *deed, const struct deed_compact_options *options,
                         struct deed_compaction *out, struct deed_error *err)
{
    static const struct deed_compact_options defaults = {0};
    if (deed == NULL) return misuse(err, "deed_compact");
    deed_status status =
        store_compact(deed->store, options == NULL ? &defaults : options, err);
    return status == DEED_OK ? store_compaction_wait(deed->store, out, err) : status;
}

deed_status deed_erase(struct deed *deed, deed_str stream, deed_str actor,
                       struct deed_compaction *out, struct deed_error *err)
{
    if (deed == NULL) return misuse(err, "deed_erase");
    deed_status status = store_erase(deed->store, stream, actor, err);
    return status == DEED_OK ? store_compaction_wait(deed->store, out, err) : status;
}

void deed_get_compaction(struct deed *deed, struct deed_compaction *out)
{
    if (out == NULL) return;
    *out = (struct deed_compaction){0};
    if (deed != NULL) store_compaction(deed->store, out);
}

deed_status deed_get_metadata(struct deed *deed, deed_str stream, char **out_json,
                              uint64_t *out_revision, struct deed_error *err)
{
    uint64_t revision = DEED_NONE;
    struct buf text;
    if (deed == NULL || out_json == NULL) return misuse(err, "deed_get_metadata");
    buf_init(&text, SIZE_MAX);
    deed_status status = store_get_metadata(deed->store, stream, &text, &revision, err);
    if (status == DEED_OK) {
        char *json = buf_take(&text);
        if (json == NULL) {
            status = deed_fail(err, DEED_NO_MEMORY, "metadata: out of memory");
        } else {
            *out_json = json;
            if (out_revision != NULL) *out_revision = revision;
        }
    }
    buf_done(&text);
    return status;
}

deed_status deed_set_metadata(struct deed *deed, deed_str stream, deed_bytes json,
                              enum deed_expect expect, uint64_t revision, deed_str actor,
                              struct deed_appended *out_appended, struct deed_error *err)
{
    struct deed_appended ignored;
    if (deed == NULL || (json.ptr == NULL && json.len > 0)) {
        return misuse(err, "deed_set_metadata");
    }
    return store_set_metadata(deed->store, stream, json, expect, revision, actor,
                              out_appended == NULL ? &ignored : out_appended, err);
}

deed_status deed_read(struct deed *deed, const struct deed_read_options *options,
                      struct deed_cursor **out_cursor, struct deed_error *err)
{
    if (deed == NULL || options == NULL || out_cursor == NULL ||
        !filter_has_lists(&options->filter)) {
        return misuse(err, "deed_read");
    }
    return store_read(deed->store, options, out_cursor, err);
}

deed_status deed_next(struct deed_cursor *cursor, struct deed_event *out_event,
                      struct deed_error *err)
{
    if (cursor == NULL || out_event == NULL) return misuse(err, "deed_next");
    return cursor_next(cursor, out_event, err);
}

uint64_t deed_cursor_position(const struct deed_cursor *cursor)
{
    return cursor == NULL ? DEED_NONE : cursor_position(cursor);
}

void deed_cursor_close(struct deed_cursor *cursor)
{
    cursor_close(cursor);
}

deed_status deed_wait(struct deed_cursor *cursor, uint32_t timeout_ms, struct deed_error *err)
{
    if (cursor == NULL) return misuse(err, "deed_wait");
    return cursor_wait(cursor, timeout_ms, err);
}

deed_status deed_get_stream(struct deed *deed, deed_str stream, struct deed_stream_info *out_info,
                            struct deed_error *err)
{
    if (deed == NULL || out_info == NULL) return misuse(err, "deed_get_stream");
    return store_stream(deed->store, stream, out_info, err);
}

deed_status deed_position_at(struct deed *deed, int64_t time_ns, uint64_t *out_position,
                             struct deed_error *err)
{
    if (deed == NULL || out_position == NULL) return misuse(err, "deed_position_at");
    return store_position_at(deed->store, time_ns, out_position, err);
}

/* ---- deciding ------------------------------------------------------------------------------- */

static deed_status use_host(struct deed *deed, struct domain_host *host, struct deed_error *err)
{
    struct executor *executor = NULL;
    deed_status status = DEED_OK;
    os_mutex_lock(&deed->domain_lock);
    if (atomic_load(&deed->executor) != NULL) {
        host_close(host);
        status = deed_fail(err, DEED_MISUSE, "there is a domain already");
    } else {
        struct executor_options options = {0};
        status = executor_open(deed->store, host, &options, &executor, err);
        if (status == DEED_OK) atomic_store(&deed->executor, executor);
    }
    os_mutex_unlock(&deed->domain_lock);
    return status;
}

deed_status deed_use_domain(struct deed *deed, const struct deed_domain *domain,
                            struct deed_error *err)
{
    struct domain_host *host = NULL;
    if (deed == NULL || domain == NULL) return misuse(err, "deed_use_domain");
    deed_status status = host_in_process(domain, &host, err);
    return status == DEED_OK ? use_host(deed, host, err) : status;
}

static deed_status load_domain(struct deed *deed, const char *folder, struct arena *arena,
                               struct deed_error *err)
{
    const char *path = NULL;
    struct domain_host *host = NULL;
    deed_status status = host_find_domain(folder, arena, &path, err);
    if (status == DEED_NOT_FOUND) return DEED_OK; /* an app of projections alone */
    if (status == DEED_OK) status = host_in_process_load(path, &host, err);
    return status == DEED_OK ? use_host(deed, host, err) : status;
}

/* A folder that an app may leave out. */
static deed_status optional(deed_status status)
{
    return status == DEED_NOT_FOUND ? DEED_OK : status;
}

deed_status deed_load_app(struct deed *deed, const char *folder, struct deed_error *err)
{
    struct arena arena;
    struct os_dir *dir = NULL;
    if (deed == NULL || folder == NULL) return misuse(err, "deed_load_app");
    if (deed->projections == NULL) {
        return deed_fail(err, DEED_MISUSE, "an app needs a directory that is not read-only");
    }
    deed_status status = os_dir_open(os_real(), folder, false, &dir, err);
    os_dir_close(dir);
    if (status != DEED_OK) return status;
    arena_init(&arena, 1 << 20);
    deed_str projections = arena_printf(&arena, "%s/projections", folder);
    deed_str queries = arena_printf(&arena, "%s/queries", folder);
    if (projections.ptr == NULL || queries.ptr == NULL) {
        status = deed_fail(err, DEED_NO_MEMORY, "app %s: out of memory", folder);
    }
    if (status == DEED_OK) status = load_domain(deed, folder, &arena, err);
    if (status == DEED_OK) {
        status = optional(projections_load(deed->projections, projections.ptr, err));
    }
    if (status == DEED_OK) status = optional(queries_load(deed->queries, queries.ptr, err));
    arena_done(&arena);
    return status;
}

deed_status deed_decide(struct deed *deed, const struct deed_command *command,
                        struct deed_decided *out_decided, struct deed_error *err)
{
    struct deed_decided ignored;
    if (deed == NULL || command == NULL) return misuse(err, "deed_decide");
    struct executor *executor = atomic_load(&deed->executor);
    if (executor == NULL) return deed_fail(err, DEED_MISUSE, "there is no domain to decide");
    return executor_decide(executor, command, out_decided == NULL ? &ignored : out_decided, NULL,
                           NULL, err);
}

/* ---- text answers --------------------------------------------------------------------------- */

static deed_status take_text(struct buf *text, deed_status status, char **out_json,
                             struct deed_error *err)
{
    if (status == DEED_OK) {
        char *taken = buf_take(text);
        if (taken == NULL) status = deed_fail(err, DEED_NO_MEMORY, "answer: out of memory");
        if (taken != NULL) *out_json = taken;
    }
    buf_done(text);
    return status;
}

deed_status deed_state(struct deed *deed, deed_str stream, uint64_t revision, char **out_json,
                       struct deed_error *err)
{
    struct buf text;
    uint64_t at_revision, at_position;
    if (deed == NULL || out_json == NULL) return misuse(err, "deed_state");
    struct executor *executor = atomic_load(&deed->executor);
    if (executor == NULL) return deed_fail(err, DEED_MISUSE, "there is no domain: no state");
    buf_init(&text, SIZE_MAX);
    deed_status status =
        executor_state(executor, stream, revision, &text, &at_revision, &at_position, err);
    return take_text(&text, status, out_json, err);
}

/* ---- projecting and querying ---------------------------------------------------------------- */

deed_status deed_add_projection(struct deed *deed, deed_str sql, struct deed_error *err)
{
    if (deed == NULL) return misuse(err, "deed_add_projection");
    if (deed->projections == NULL) return deed_fail(err, DEED_MISUSE, "opened read-only");
    return projections_add(deed->projections, DEED_STR("deed_add_projection"), sql, err);
}

deed_status deed_add_query(struct deed *deed, deed_str name, deed_str sql, struct deed_error *err)
{
    if (deed == NULL) return misuse(err, "deed_add_query");
    if (deed->queries == NULL) return deed_fail(err, DEED_MISUSE, "opened read-only");
    return queries_add(deed->queries, name, sql, err);
}

deed_status deed_query(struct deed *deed, deed_str name, const struct deed_query_options *options,
                       char **out_json, uint64_t *out_position, struct deed_error *err)
{
    static const struct deed_query_options defaults = {0};
    struct buf text;
    uint64_t position = 0;
    if (deed == NULL || out_json == NULL ||
        (options != NULL && !is_list(options->parameters, options->parameter_count))) {
        return misuse(err, "deed_query");
    }
    if (deed->queries == NULL) return deed_fail(err, DEED_MISUSE, "opened read-only");
    buf_init(&text, SIZE_MAX);
    deed_status status = queries_run(deed->queries, name, options == NULL ? &defaults : options,
                                     &text, &position, err);
    if (status == DEED_OK && out_position != NULL) *out_position = position;
    return take_text(&text, status, out_json, err);
}

void deed_free(void *memory)
{
    free(memory);
}

/* ---- caring --------------------------------------------------------------------------------- */

deed_status deed_backup(struct deed *deed, const char *target,
                        const struct deed_backup_options *options,
                        struct deed_backup_report *out_report, struct deed_error *err)
{
    if (deed == NULL || target == NULL) return misuse(err, "deed_backup");
    return store_backup(deed->store, target, options, out_report, err);
}

deed_status deed_check_backup(const char *backup, const struct deed_backup_options *options,
                              struct deed_backup_report *out_report, struct deed_error *err)
{
    if (backup == NULL) return misuse(err, "deed_check_backup");
    return store_check_backup(os_real(), backup, options, NULL, NULL, out_report, err);
}

deed_status deed_restore(const char *backup, const char *directory,
                         const struct deed_backup_options *options,
                         struct deed_backup_report *out_report, struct deed_error *err)
{
    if (backup == NULL || directory == NULL) return misuse(err, "deed_restore");
    return store_restore(os_real(), backup, directory, options, out_report, err);
}
