/* projections_view.c - for those who look at projections: their state, waiting for a position, the
 * tables and whose they are, and leases of the files to read. */
#include "projection/projections_state.h"

#include "base/text.h"

#include <assert.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NS_PER_MS UINT64_C(1000000)

/* ---- listing --------------------------------------------------------------------------------- */

static bool copy_text(struct arena *arena, const char *text, deed_str *out)
{
    *out = arena_str(arena, deed_str_of(text));
    return out->ptr != NULL;
}

static void copy_rebuild(const struct projection *p, uint64_t ticks, struct projection_status *out)
{
    out->rebuilding = p->rebuilding;
    out->rebuild_position = p->rebuild_position;
    out->rebuild_target = p->rebuild_target;
    double rate = rate_now(&p->rebuild_rate, ticks, p->rebuild_position);
    out->rebuild_rate = isnan(rate) ? 0 : rate;
    out->rebuild_seconds_left = NAN;
    if (p->rebuilding && rate > 0 && p->rebuild_target >= p->rebuild_position) {
        out->rebuild_seconds_left = (double)(p->rebuild_target - p->rebuild_position) / rate;
    }
}

/* The mutex is held. */
static bool copy_status(const struct projection *p, uint64_t ticks, uint64_t end,
                        struct arena *arena, struct projection_status *out)
{
    bool fresh = ticks - p->rate.noted_ticks < RATE_STALE_NS;
    double rate = fresh ? rate_now(&p->rate, ticks, p->events) : 0;
    *out = (struct projection_status){
        .state = p->state,
        .generation = p->generation,
        .position = p->position,
        .lag = end > p->position ? end - p->position : 0,
        .events = p->events,
        .transactions = p->transactions,
        .removed_events = p->passed_over,
        .rate = isnan(rate) ? 0 : rate,
        .error_position = p->failure.position,
        .event_type_count = p->shown->type_count,
        .table_count = p->shown->table_count,
    };
    copy_rebuild(p, ticks, out);
    out->file = arena_str(arena, p->newest->file);
    return out->file.ptr != NULL && copy_text(arena, p->name, &out->name) &&
           copy_text(arena, p->failure.message, &out->error) &&
           copy_text(arena, p->failure.statement, &out->error_statement) &&
           copy_text(arena, p->rebuild_error, &out->rebuild_error) &&
           arena_list(arena, p->shown->types, p->shown->type_count, &out->event_types) &&
           arena_list(arena, p->shown->tables, p->shown->table_count, &out->tables);
}

static const struct refusal *refusal_of(const struct projections *set, deed_str file)
{
    const struct refusal *r = set->refusals;
    while (r != NULL && !deed_str_equal(deed_str_of(r->file), file))
        r = r->next;
    return r;
}

/* Is a projection listed that came from this file, or has its name? */
static bool is_listed(const struct projections *set, deed_str file, deed_str name)
{
    for (size_t i = 0; i < set->count; i++) {
        const struct projection *p = set->list[i];
        if (deed_str_equal(p->newest->file, file)) return true;
        if (deed_str_equal(deed_str_of(p->name), name)) return true;
    }
    return false;
}

/* What is seen of a projection that could not even begin. */
static bool copy_refusal(const struct refusal *r, deed_str name, uint64_t end, struct arena *arena,
                         struct projection_status *out)
{
    *out = (struct projection_status){.state = PROJECTION_FAILED, .lag = end};
    out->name = arena_str(arena, name);
    out->error_statement = DEED_STR("");
    out->rebuild_error = DEED_STR("");
    bool ok = out->name.ptr != NULL && copy_text(arena, r->file, &out->file) &&
              copy_text(arena, r->message, &out->error);
    out->file_error = out->error;
    return ok;
}

/* The mutex is held. Keeps the order of names. */
static bool copy_refusals(struct projections *set, uint64_t end, struct arena *arena,
                          struct projection_status *list, size_t *count)
{
    for (const struct refusal *r = set->refusals; r != NULL; r = r->next) {
        deed_str file = deed_str_of(r->file), name = {file.ptr, file.len - 4}; /* ".sql" */
        struct projection_status status;
        if (is_listed(set, file, name)) continue;
        if (!copy_refusal(r, name, end, arena, &status)) return false;
        size_t at = *count;
        while (at > 0 && str_compare(list[at - 1].name, name) > 0) {
            list[at] = list[at - 1];
            at--;
        }
        list[at] = status;
        (*count)++;
    }
    return true;
}

static size_t refusal_count(const struct projections *set)
{
    size_t count = 0;
    for (const struct refusal *r = set->refusals; r != NULL; r = r->next)
        count++;
    return count;
}

static uint64_t file_size(struct projections *set, deed_str projection, uint64_t generation)
{
    char name[MANIFEST_FILE_NAME_SIZE];
    manifest_file_name(projection, false, generation, name);
    struct os_file *file = NULL;
    uint64_t size = 0;
    if (os_file_open(set->dir, name, OS_READ, &file, NULL) != DEED_OK) return 0;
    if (os_file_size(file, &size, NULL) != DEED_OK) size = 0;
    os_file_close(file);
    return size;
}

deed_status projections_list(struct projections *set, struct arena *arena,
                             struct projection_status **out_list, size_t *out_count,
                             struct deed_error *err)
{
    uint64_t end = store_position(set->store), ticks = set_now(set);
    os_mutex_lock(&set->mutex);
    size_t count = set->count;
    struct projection_status *list =
        arena_alloc_array(arena, count + refusal_count(set), sizeof *list);
    bool ok = list != NULL;
    for (size_t i = 0; ok && i < count; i++) {
        ok = copy_status(set->list[i], ticks, end, arena, &list[i]);
        const struct refusal *r = ok ? refusal_of(set, list[i].file) : NULL;
        if (r != NULL) ok = copy_text(arena, r->message, &list[i].file_error);
    }
    if (ok) ok = copy_refusals(set, end, arena, list, &count);
    os_mutex_unlock(&set->mutex);
    if (!ok) return deed_fail(err, DEED_NO_MEMORY, "no memory for the list of projections");
    for (size_t i = 0; i < count; i++) {
        if (list[i].generation == 0) continue;
        list[i].size = file_size(set, list[i].name, list[i].generation);
    }
    *out_list = list;
    *out_count = count;
    return DEED_OK;
}

/* ---- waiting --------------------------------------------------------------------------------- */

static deed_status failed_status(const struct projection *p, struct deed_error *err)
{
    const char *message = p->failure.message;
    if (p->failure.position != DEED_NONE) {
        return deed_fail(err, DEED_STOPPED, "projection %s has failed on event %" PRIu64 ": %s",
                         p->name, p->failure.position, message);
    }
    if (p->rebuilding) {
        return deed_fail(err, DEED_STOPPED, "projection %s has failed: %.240s; it is being rebuilt",
                         p->name, message);
    }
    if (p->rebuild_error[0] != '\0') {
        return deed_fail(err, DEED_STOPPED,
                         "projection %s has failed: %.160s; it could not be rebuilt: %.160s",
                         p->name, message, p->rebuild_error);
    }
    return deed_fail(err, DEED_STOPPED, "projection %s has failed: %s", p->name, message);
}

/* A query has found damage, and the actor has not come to it. */
static bool is_damaged(const struct projection *p)
{
    return p->wants.damage[0] != '\0' && p->wants.damaged_generation == p->generation;
}

/* DEED_END: not yet. The mutex is held. */
static deed_status reached(const struct projection *p, uint64_t position, struct deed_error *err)
{
    if (p->position >= position && p->state != PROJECTION_FAILED && !is_damaged(p)) return DEED_OK;
    bool asked = p->wants.resume || p->wants.file != NULL || p->rebuilding;
    if (p->state == PROJECTION_FAILED && !asked) return failed_status(p, err);
    if ((p->state == PROJECTION_PAUSED && !p->wants.resume) || p->wants.pause) {
        return deed_fail(err, DEED_STOPPED, "projection %s is paused at position %" PRIu64, p->name,
                         p->position);
    }
    return DEED_END;
}

/* DEED_END: one has not; `*out_late` is its name. */
static deed_status all_reached(struct projections *set, const deed_str *names, size_t count,
                               uint64_t position, const struct projection **out_late,
                               struct deed_error *err)
{
    size_t all = count == 0 ? set->count : count;
    deed_status result = DEED_OK;
    for (size_t i = 0; i < all; i++) {
        const struct projection *p = count == 0 ? set->list[i] : projections_find(set, names[i]);
        if (p == NULL) return projection_not_found(names[i], err);
        deed_status status = reached(p, position, err);
        if (status != DEED_OK && status != DEED_END) return status;
        if (status == DEED_END) {
            result = DEED_END;
            *out_late = p;
        }
    }
    return result;
}

/* Without threads there is nobody else to do the work. */
static bool wait_a_little(struct projections *set, uint64_t deadline)
{
    uint64_t ticks = set_now(set);
    if (set->options.no_threads) {
        os_mutex_unlock(&set->mutex);
        bool did = projections_step(set);
        os_mutex_lock(&set->mutex);
        return did;
    }
    return ticks < deadline && os_cond_wait(&set->changed, &set->mutex, deadline - ticks);
}

static uint64_t deadline_in(struct projections *set, uint32_t timeout_ms)
{
    return set_now(set) + (uint64_t)timeout_ms * NS_PER_MS;
}

deed_status projections_wait(struct projections *set, const deed_str *names, size_t count,
                             uint64_t position, uint32_t timeout_ms, struct deed_error *err)
{
    uint64_t deadline = deadline_in(set, timeout_ms);
    os_mutex_lock(&set->mutex);
    bool in_time = true;
    deed_status status;
    for (;;) {
        const struct projection *late = NULL;
        status = all_reached(set, names, count, position, &late, err);
        if (status != DEED_END) break;
        if (!in_time) {
            status = deed_fail(err, DEED_TIMEOUT,
                               "projection %s is at position %" PRIu64 ", not yet at %" PRIu64,
                               late->name, late->position, position);
            break;
        }
        in_time = wait_a_little(set, deadline);
    }
    os_mutex_unlock(&set->mutex);
    return status;
}

/* ---- tables ---------------------------------------------------------------------------------- */

deed_str projections_table_owner(struct projections *set, deed_str table)
{
    deed_str owner = {0};
    os_mutex_lock(&set->mutex);
    for (size_t i = 0; owner.ptr == NULL && i < set->count; i++) {
        if (projection_file_has_table(set->list[i]->newest, table))
            owner = deed_str_of(set->list[i]->name);
    }
    os_mutex_unlock(&set->mutex);
    return owner;
}

uint64_t projections_schema_version(struct projections *set)
{
    os_mutex_lock(&set->mutex);
    uint64_t version = set->schema_version;
    os_mutex_unlock(&set->mutex);
    return version;
}

static bool copy_schema(struct arena *arena, const struct projection *p,
                        struct projection_schema *out)
{
    size_t count = p->shown->table_statement_count;
    deed_str *statements = arena_alloc_array(arena, count, sizeof *statements);
    if (statements == NULL || !copy_text(arena, p->name, &out->projection)) return false;
    for (size_t i = 0; i < count; i++) {
        statements[i] = arena_str(arena, p->shown->table_statements[i].text);
        if (statements[i].ptr == NULL) return false;
    }
    out->statements = statements;
    out->statement_count = count;
    out->table_count = p->shown->table_count;
    return arena_list(arena, p->shown->tables, p->shown->table_count, &out->tables);
}

deed_status projections_schema(struct projections *set, struct arena *arena,
                               struct projection_schema **out_list, size_t *out_count,
                               uint64_t *out_version, struct deed_error *err)
{
    os_mutex_lock(&set->mutex);
    size_t count = set->count;
    uint64_t version = set->schema_version;
    struct projection_schema *list = arena_alloc_array(arena, count, sizeof *list);
    bool ok = list != NULL;
    for (size_t i = 0; ok && i < count; i++)
        ok = copy_schema(arena, set->list[i], &list[i]);
    os_mutex_unlock(&set->mutex);
    if (!ok) return deed_fail(err, DEED_NO_MEMORY, "no memory for the tables");
    *out_list = list;
    *out_count = count;
    *out_version = version;
    return DEED_OK;
}

/* ---- leases ---------------------------------------------------------------------------------- */

static deed_status lease_live(struct projections *set, deed_str name,
                              struct projection_lease *lease, const char **out_path,
                              uint64_t *out_position, struct deed_error *err)
{
    deed_status status = DEED_OK;
    os_mutex_lock(&set->mutex);
    struct projection *p = projections_find(set, name);
    if (p == NULL) {
        status = projection_not_found(name, err);
    } else if (p->state == PROJECTION_FAILED || p->live_file == NULL) {
        status = failed_status(p, err);
    } else if (is_damaged(p)) {
        status = deed_fail(err, DEED_STOPPED,
                           "projection %s has failed: %.240s; it is about to be rebuilt", p->name,
                           p->wants.damage);
    } else {
        lease->file = p->live_file;
        lease->file->references++;
        *out_path = lease->file->path;
        *out_position = p->position;
    }
    os_mutex_unlock(&set->mutex);
    return status;
}

/* What the read model is folded by, copied: the text may change while it is folded. */
static deed_status copy_source(struct projections *set, deed_str name, struct arena *arena,
                               struct snapshot_source *out, struct deed_error *err)
{
    deed_status status = DEED_OK;
    os_mutex_lock(&set->mutex);
    const struct projection *p = projections_find(set, name);
    if (p == NULL) {
        status = projection_not_found(name, err);
    } else {
        out->name = arena_str(arena, p->shown->name);
        out->file = arena_str(arena, p->newest->file);
        out->text = arena_str(arena, p->shown->text);
        memcpy(out->hash, p->shown->hash, SHA256_SIZE);
        bool ok = out->name.ptr != NULL && out->file.ptr != NULL && out->text.ptr != NULL;
        if (!ok) status = projection_no_memory(err);
    }
    os_mutex_unlock(&set->mutex);
    return status;
}

static deed_status lease_past(struct projections *set, deed_str name, uint64_t position,
                              uint64_t deadline, struct projection_lease *lease,
                              const char **out_path, struct deed_error *err)
{
    struct arena arena;
    arena_init(&arena, 8u << 20);
    struct snapshot_source source;
    deed_status status = copy_source(set, name, &arena, &source, err);
    if (status == DEED_OK) {
        status = snapshots_take(set->snapshots, &source, position, deadline, &lease->snapshot,
                                out_path, err);
        if (status != DEED_OK) deed_wrap(err, "projection %.*s", DEED_FMT(name));
    }
    arena_done(&arena);
    return status;
}

deed_status projections_lease(struct projections *set, deed_str name, uint64_t position,
                              uint32_t timeout_ms, struct projection_lease **out_lease,
                              const char **out_path, uint64_t *out_position, struct deed_error *err)
{
    struct projection_lease *lease = calloc(1, sizeof *lease);
    if (lease == NULL) return projection_no_memory(err);
    lease->set = set;
    uint64_t reached_position = position;
    deed_status status =
        position == 0
            ? lease_live(set, name, lease, out_path, &reached_position, err)
            : lease_past(set, name, position, deadline_in(set, timeout_ms), lease, out_path, err);
    if (status != DEED_OK) {
        free(lease);
        return status;
    }
    if (out_position != NULL) *out_position = reached_position;
    *out_lease = lease;
    return DEED_OK;
}

void projections_damaged(struct projection_lease *lease, const char *message)
{
    struct projections *set = lease->set;
    if (lease->snapshot != NULL) {
        snapshots_drop(set->snapshots, lease->snapshot);
        return;
    }
    os_mutex_lock(&set->mutex);
    for (size_t i = 0; i < set->count; i++) {
        struct projection *p = set->list[i];
        if (p->live_file != lease->file) continue;
        (void)snprintf(p->wants.damage, sizeof p->wants.damage, "%s", message);
        p->wants.damaged_generation = p->generation;
        actor_wake(p->actor);
    }
    os_mutex_unlock(&set->mutex);
}

void projections_release(struct projection_lease *lease)
{
    if (lease == NULL) return;
    if (lease->snapshot != NULL) snapshots_give_back(lease->set->snapshots, lease->snapshot);
    file_release(lease->set, lease->file);
    free(lease);
}
