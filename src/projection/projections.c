/* projections.c - the set: who is in it, under which texts, out of which folders. */
#include "projection/projections_state.h"

#include "projection/sql_folder.h"
#include "base/text.h"

#include <assert.h>
#include <stdlib.h>
#include <strings.h>

#define BATCH_COUNT_DEFAULT 4096

void refusals_free(struct refusal *list)
{
    while (list != NULL) {
        struct refusal *next = list->next;
        free(list->file);
        free(list->message);
        free(list);
        list = next;
    }
}

/* It is only shown: without memory it is not. */
void refusal_add(struct refusal **list, deed_str file, const char *message)
{
    struct refusal *r = calloc(1, sizeof *r);
    if (r == NULL) return;
    r->file = strndup(file.ptr, file.len);
    r->message = strdup(message);
    if (r->file == NULL || r->message == NULL) {
        refusals_free(r);
        return;
    }
    r->next = *list;
    *list = r;
}

/* ---- the set --------------------------------------------------------------------------------- */

static void log_changed(void *context, uint64_t position)
{
    struct projections *set = context;
    (void)position;
    os_mutex_lock(&set->mutex);
    for (size_t i = 0; i < set->count; i++)
        actor_wake(set->list[i]->actor);
    os_mutex_unlock(&set->mutex);
}

deed_status projections_open(struct store *store, const struct projections_options *options,
                             struct projections **out_projections, struct deed_error *err)
{
    struct projections *set = calloc(1, sizeof *set);
    if (set == NULL) return projection_no_memory(err);
    set->store = store;
    set->os = store_os(store);
    if (options != NULL) set->options = *options;
    if (set->options.batch_count_max == 0) set->options.batch_count_max = BATCH_COUNT_DEFAULT;
    os_mutex_init(&set->admin);
    os_mutex_init(&set->mutex);
    os_cond_init(&set->changed);
    deed_status status = os_dir_open_in(store_dir(store), "projections", true, &set->dir, err);
    if (status == DEED_OK) status = snapshots_create(store, set->dir, &set->snapshots, err);
    if (status != DEED_OK) {
        projections_close(set);
        return status;
    }
    set->watch = (struct store_watch){.changed = log_changed, .context = set};
    store_watch(store, &set->watch);
    *out_projections = set;
    return DEED_OK;
}

void projections_close(struct projections *set)
{
    if (set == NULL) return;
    if (set->watch.changed != NULL) store_unwatch(set->store, &set->watch);
    for (size_t i = 0; i < set->count; i++)
        projection_destroy(set->list[i]);
    free(set->list);
    refusals_free(set->refusals);
    snapshots_destroy(set->snapshots);
    os_dir_close(set->dir);
    os_cond_done(&set->changed);
    os_mutex_done(&set->mutex);
    os_mutex_done(&set->admin);
    free(set);
}

bool projections_step(struct projections *set)
{
    assert(set->options.no_threads);
    bool any = false;
    for (size_t i = 0; i < set->count; i++) {
        (void)projection_step(set->list[i]);
        any |= set->list[i]->did_work;
    }
    return any;
}

struct store *projections_store(struct projections *set)
{
    return set->store;
}

/* The mutex is held, or admin by the only thread that changes the list. */
struct projection *projections_find(struct projections *set, deed_str name)
{
    for (size_t i = 0; i < set->count; i++) {
        if (deed_str_equal(deed_str_of(set->list[i]->name), name)) return set->list[i];
    }
    return NULL;
}

bool projection_file_has_table(const struct projection_file *file, deed_str table)
{
    for (size_t i = 0; i < file->table_count; i++) {
        if (file->tables[i].len == table.len &&
            strncasecmp(file->tables[i].ptr, table.ptr, table.len) == 0) {
            return true;
        }
    }
    return false;
}

static deed_status table_taken(const struct projection_file *file, deed_str table, deed_str owner,
                               struct deed_error *err)
{
    return deed_fail(err, DEED_CONFLICT, "%.*s: projection %.*s has a table %.*s already",
                     DEED_FMT(file->file), DEED_FMT(owner), DEED_FMT(table));
}

/* Queries find a table by its name alone, so it can be in one projection only. */
static deed_status check_tables(const struct projection_file *file,
                                const struct projection_file *other, struct deed_error *err)
{
    if (deed_str_equal(file->name, other->name)) return DEED_OK;
    for (size_t i = 0; i < file->table_count; i++) {
        if (projection_file_has_table(other, file->tables[i])) {
            return table_taken(file, file->tables[i], other->name, err);
        }
    }
    return DEED_OK;
}

static deed_status list_insert(struct projections *set, struct projection *p,
                               struct deed_error *err)
{
    struct projection **grown = malloc((set->count + 1) * sizeof(struct projection *));
    if (grown == NULL) return projection_no_memory(err);
    os_mutex_lock(&set->mutex);
    size_t at = 0;
    while (at < set->count && strcmp(set->list[at]->name, p->name) < 0)
        at++;
    if (at > 0) memcpy(grown, set->list, at * sizeof(struct projection *));
    grown[at] = p;
    if (at < set->count) {
        memcpy(grown + at + 1, set->list + at, (set->count - at) * sizeof(struct projection *));
    }
    free(set->list);
    set->list = grown;
    set->count++;
    set->schema_version++;
    os_mutex_unlock(&set->mutex);
    return DEED_OK;
}

static void list_remove(struct projections *set, struct projection *p)
{
    os_mutex_lock(&set->mutex);
    size_t at = 0;
    while (set->list[at] != p)
        at++;
    memmove(set->list + at, set->list + at + 1,
            (set->count - at - 1) * sizeof(struct projection *));
    set->count--;
    set->schema_version++;
    os_cond_broadcast(&set->changed);
    os_mutex_unlock(&set->mutex);
    projection_destroy(p);
}

/* Takes over `file`. Admin is held. */
static deed_status change(struct projections *set, struct projection *p,
                          struct projection_file *file, struct deed_error *err)
{
    if (memcmp(p->newest->hash, file->hash, SHA256_SIZE) == 0) {
        projection_file_free(file);
        return DEED_OK;
    }
    struct projection_file *wanted = NULL;
    deed_status status = projection_file_load(set->os, file->file, file->text, &wanted, err);
    if (status != DEED_OK) {
        projection_file_free(file);
        return status;
    }
    os_mutex_lock(&set->mutex);
    struct projection_file *old_newest = p->newest, *old_wanted = p->wants.file;
    p->newest = file;
    p->wants.file = wanted;
    set->schema_version++; /* table owners go by the newest text */
    actor_wake(p->actor);
    os_mutex_unlock(&set->mutex);
    projection_file_free(old_newest);
    projection_file_free(old_wanted);
    return DEED_OK;
}

/* Takes over `file`, whose tables were checked. Admin is held. */
static deed_status take_up(struct projections *set, struct projection_file *file,
                           const char *folder, struct deed_error *err)
{
    struct projection *p = projections_find(set, file->name);
    if (p != NULL) return change(set, p, file, err);
    deed_status status = projection_create(set, file, &p, err);
    if (status != DEED_OK) return status;
    p->folder = folder == NULL ? NULL : strdup(folder);
    status =
        folder != NULL && p->folder == NULL ? projection_no_memory(err) : list_insert(set, p, err);
    if (status != DEED_OK) {
        projection_destroy(p);
        return status;
    }
    status = projection_start(p, err);
    if (status != DEED_OK) list_remove(set, p);
    return status;
}

static deed_status check_against_all(struct projections *set, const struct projection_file *file,
                                     struct deed_error *err)
{
    deed_status status = DEED_OK;
    for (size_t i = 0; status == DEED_OK && i < set->count; i++) {
        status = check_tables(file, set->list[i]->newest, err);
    }
    return status;
}

deed_status projections_add(struct projections *set, deed_str name, deed_str text,
                            struct deed_error *err)
{
    struct projection_file *file = NULL;
    deed_status status = projection_file_load(set->os, name, text, &file, err);
    if (status != DEED_OK) return status;
    os_mutex_lock(&set->admin);
    status = check_against_all(set, file, err);
    if (status == DEED_OK) {
        status = take_up(set, file, NULL, err);
    } else {
        projection_file_free(file);
    }
    os_mutex_unlock(&set->admin);
    return status;
}

/* ---- folders --------------------------------------------------------------------------------- */

struct folder {
    struct sql_folder_file *texts;
    struct projection_file **files; /* NULL: refused */
    size_t count;
    struct refusal *refusals;
    deed_status status; /* of the first refusal */
    struct deed_error *err;
};

static void refused(struct folder *folder, size_t at, deed_status status,
                    const struct deed_error *why)
{
    refusal_add(&folder->refusals, folder->texts[at].name, why->message);
    if (folder->status != DEED_OK) return;
    folder->status = status;
    if (folder->err != NULL) *folder->err = *why;
}

static deed_status check_folder_file(struct folder *folder, size_t at, struct deed_error *why)
{
    const struct projection_file *file = folder->files[at];
    for (size_t i = 0; i < folder->count; i++) {
        const struct projection_file *other = folder->files[i];
        if (i == at || other == NULL) continue;
        if (i < at && deed_str_equal(other->name, file->name)) {
            return deed_fail(why, DEED_CONFLICT, "%.*s: %.*s holds a projection %.*s already",
                             DEED_FMT(file->file), DEED_FMT(other->file), DEED_FMT(file->name));
        }
        if (i > at) continue;
        deed_status status = check_tables(file, other, why);
        if (status != DEED_OK) return status;
    }
    return DEED_OK;
}

static void folder_parse(struct projections *set, struct folder *folder)
{
    for (size_t i = 0; i < folder->count; i++) {
        const struct sql_folder_file *text = &folder->texts[i];
        struct deed_error why = {0};
        deed_status status =
            text->status != DEED_OK
                ? deed_fail(&why, text->status, "%.*s", DEED_FMT(text->message))
                : projection_file_load(set->os, text->name, text->text, &folder->files[i], &why);
        if (status == DEED_OK) status = check_folder_file(folder, i, &why);
        if (status == DEED_OK) continue;
        refused(folder, i, status, &why);
        projection_file_free(folder->files[i]);
        folder->files[i] = NULL;
    }
}

/* Projections that did not come from this folder keep their tables; those that did are compared with
 * each other's new texts only, so that a table may move between them. */
static deed_status check_others(struct projections *set, const struct projection_file *file,
                                const char *path, struct deed_error *why)
{
    deed_status status = DEED_OK;
    for (size_t i = 0; status == DEED_OK && i < set->count; i++) {
        const struct projection *other = set->list[i];
        bool ours = other->folder != NULL && strcmp(other->folder, path) == 0;
        if (!ours) status = check_tables(file, other->newest, why);
    }
    return status;
}

/* Does the folder still have the file that this projection came from? */
static bool folder_keeps(const struct folder *folder, const struct projection *p)
{
    for (size_t i = 0; i < folder->count; i++) {
        const struct projection_file *file = folder->files[i];
        if (file != NULL && deed_str_equal(file->name, deed_str_of(p->name))) return true;
        /* A file that is refused now is mended later. */
        if (file == NULL && deed_str_equal(folder->texts[i].name, p->newest->file)) return true;
    }
    return false;
}

static void folder_apply(struct projections *set, struct folder *folder, const char *path)
{
    for (size_t i = set->count; i > 0; i--) {
        struct projection *p = set->list[i - 1];
        bool ours = p->folder != NULL && strcmp(p->folder, path) == 0;
        if (ours && !folder_keeps(folder, p)) list_remove(set, p);
    }
    for (size_t i = 0; i < folder->count; i++) {
        if (folder->files[i] == NULL) continue;
        struct deed_error why = {0};
        struct projection_file *file = folder->files[i];
        deed_status status = check_others(set, file, path, &why);
        if (status == DEED_OK) {
            folder->files[i] = NULL;
            status = take_up(set, file, path, &why);
        }
        if (status != DEED_OK) refused(folder, i, status, &why);
    }
    for (size_t i = 0; i < folder->count; i++)
        projection_file_free(folder->files[i]);
}

deed_status projections_load(struct projections *set, const char *path, struct deed_error *err)
{
    struct arena arena;
    arena_init(&arena, 256u << 20);
    struct folder folder = {.err = err};
    deed_status status = sql_folder_read(set->os, path, &arena, &folder.texts, &folder.count, err);
    if (status == DEED_OK) {
        folder.files = arena_alloc_array(&arena, folder.count, sizeof(struct projection_file *));
        if (folder.files == NULL) status = projection_no_memory(err);
    }
    if (status == DEED_OK) {
        os_mutex_lock(&set->admin);
        folder_parse(set, &folder);
        folder_apply(set, &folder, path);
        os_mutex_lock(&set->mutex);
        struct refusal *before = set->refusals;
        set->refusals = folder.refusals;
        os_mutex_unlock(&set->mutex);
        refusals_free(before);
        os_mutex_unlock(&set->admin);
        status = folder.status;
    }
    arena_done(&arena);
    return status;
}

/* ---- asking ---------------------------------------------------------------------------------- */

deed_status projections_rebuild(struct projections *set, deed_str name, bool force,
                                struct deed_error *err)
{
    deed_status status = DEED_OK;
    uint64_t end = store_position(set->store);
    os_mutex_lock(&set->mutex);
    struct projection *p = projections_find(set, name);
    if (p == NULL) {
        status = projection_not_found(name, err);
    } else if (p->rebuilding || p->wants.rebuild) {
        status = deed_fail(err, DEED_CONFLICT, "projection %s is being rebuilt already", p->name);
    } else {
        p->wants.rebuild = true;
        p->wants.without_removed = force ? end : 0;
        /* Seen at once by whoever asks next, before the actor has begun. */
        p->rebuilding = true;
        p->rebuild_position = 0;
        p->rebuild_error[0] = '\0';
        actor_wake(p->actor);
    }
    os_mutex_unlock(&set->mutex);
    return status;
}

static deed_status ask(struct projections *set, deed_str name, bool pause, struct deed_error *err)
{
    deed_status status = DEED_OK;
    os_mutex_lock(&set->mutex);
    struct projection *p = projections_find(set, name);
    if (p == NULL) {
        status = projection_not_found(name, err);
    } else {
        p->wants.pause = pause;
        p->wants.resume = !pause;
        actor_wake(p->actor);
    }
    os_mutex_unlock(&set->mutex);
    return status;
}

deed_status projections_pause(struct projections *set, deed_str name, struct deed_error *err)
{
    return ask(set, name, true, err);
}

deed_status projections_resume(struct projections *set, deed_str name, struct deed_error *err)
{
    return ask(set, name, false, err);
}
