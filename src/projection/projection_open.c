/* projection_open.c - a projection's beginning and end: which of the files that are there is its live
 * generation, what a crash left of others, its actor. */
#include "projection/projections_state.h"

#include "os/failpoint.h"

#include <stdio.h>
#include <stdlib.h>

/* ---- opening a projection -------------------------------------------------------------------- */

struct existing {
    deed_str name;
    uint64_t number_max;
};

static void note_number(void *context, const char *name)
{
    struct existing *existing = context;
    struct manifest_entry entry;
    if (!manifest_file_parse(deed_str_of(name), &entry) || entry.temporary) return;
    if (!deed_str_equal(deed_str_of(entry.name), existing->name)) return;
    if (entry.number > existing->number_max) existing->number_max = entry.number;
}

/* Its tables are durable before the manifest names it: a power cut may take the write-ahead log, and
 * a live generation without tables is a damaged one. */
static deed_status first_generation(struct projection *p, const struct projection_file *file,
                                    struct deed_error *err)
{
    deed_status status = side_create(p, &p->live, file, err);
    if (status != DEED_OK) return status;
    FAILPOINT("created");
    status = generation_settle(p->live.fold.generation, err);
    if (status == DEED_OK) status = os_dir_sync(p->set->dir, err);
    if (status == DEED_OK) {
        status = manifest_write(p->set->dir, deed_str_of(p->name), p->live.number, err);
    }
    if (status != DEED_OK) side_close(p, &p->live, true);
    return status;
}

static bool is_there(struct projections *set, deed_str projection, uint64_t number)
{
    char name[MANIFEST_FILE_NAME_SIZE];
    manifest_file_name(projection, false, number, name);
    struct os_file *file = NULL;
    bool there = os_file_open(set->dir, name, OS_READ, &file, NULL) == DEED_OK;
    os_file_close(file);
    return there;
}

static void remove_dead(struct projection *p);

/* Find or make the live generation. What is there but cannot be carried on stays, and the
 * projection is failed until it is rebuilt; what is damaged is rebuilt unasked. */
static deed_status open_live(struct projection *p, const struct projection_file *file,
                             struct deed_error *err)
{
    struct projections *set = p->set;
    deed_str name = deed_str_of(p->name);
    struct existing existing = {.name = name};
    deed_status status = os_dir_list(set->dir, note_number, &existing, err);
    if (status != DEED_OK) return status;
    p->number_max = existing.number_max;
    uint64_t number = 0;
    status = manifest_read(set->dir, name, &number, err);
    /* A damaged manifest costs a rebuild from the beginning, under a number that was never used. */
    bool fresh = status == DEED_NOT_FOUND || status == DEED_CORRUPT;
    if (!fresh && status != DEED_OK) return status;
    if (!fresh && number > p->number_max) p->number_max = number;
    if (fresh || !is_there(set, name, number)) {
        status = first_generation(p, file, err);
        if (status == DEED_OK) remove_dead(p);
        return status;
    }
    p->live.number = number;
    remove_dead(p);
    struct deed_error why = {0};
    status = side_open(p, &p->live, number, &why);
    if (status == DEED_NO_MEMORY) return deed_fail(err, status, "%s", why.message);
    if (status == DEED_OK) return DEED_OK;
    p->live.number = number;
    live_not_opened(p, status, why.message);
    /* A text that an older version accepted and this one does not: the new one replaces it. */
    if (status == DEED_INVALID) rebuild_start(p, file, 0);
    return DEED_OK;
}

struct dead_files {
    struct projection *p;
    char names[64][MANIFEST_FILE_NAME_SIZE + 16];
    size_t count;
};

static void note_dead(void *context, const char *name)
{
    struct dead_files *dead = context;
    struct manifest_entry entry;
    if (dead->count == sizeof dead->names / sizeof dead->names[0]) return; /* the next opening's */
    if (!manifest_file_parse(deed_str_of(name), &entry)) return;
    if (strcmp(entry.name, dead->p->name) != 0) return;
    if (!entry.temporary && entry.number == dead->p->live.number) return;
    (void)snprintf(dead->names[dead->count++], sizeof dead->names[0], "%s", name);
}

/* What a crash left of generations that are not live. Nobody holds one: this is before the start.
 */
static void remove_dead(struct projection *p)
{
    struct dead_files dead = {.p = p};
    if (os_dir_list(p->set->dir, note_dead, &dead, NULL) != DEED_OK) return;
    for (size_t i = 0; i < dead.count; i++)
        (void)!os_remove(p->set->dir, dead.names[i], NULL);
}

void projection_destroy(struct projection *p)
{
    if (p == NULL) return;
    atomic_store(&p->stopping, true);
    actor_stop(p->actor);
    side_close(p, &p->next, true);
    side_close(p, &p->live, false);
    projection_file_free(p->wants.file);
    projection_file_free(p->shown);
    projection_file_free(p->newest);
    free(p->folder);
    free(p->name);
    free(p);
}

/* Takes over `file`. */
deed_status projection_create(struct projections *set, struct projection_file *file,
                              struct projection **out, struct deed_error *err)
{
    struct projection *p = calloc(1, sizeof *p);
    if (p == NULL) {
        projection_file_free(file);
        return projection_no_memory(err);
    }
    p->set = set;
    p->newest = file;
    p->name = strndup(file->name.ptr, file->name.len);
    rate_start(&p->rebuild_rate, set_now(set), 0);
    deed_status status = p->name == NULL ? projection_no_memory(err) : open_live(p, file, err);
    if (status == DEED_OK && p->live.open) {
        publish_switch(p, generation_file(p->live.fold.generation));
        publish_live(p);
        take_file(p, file);
    } else if (status == DEED_OK) {
        publish_switch(p, file);
    }
    if (status == DEED_OK && p->shown == NULL) status = projection_no_memory(err);
    if (status != DEED_OK) {
        projection_destroy(p);
        return status;
    }
    *out = p;
    return DEED_OK;
}

deed_status projection_start(struct projection *p, struct deed_error *err)
{
    if (p->set->options.no_threads) return DEED_OK;
    char name[16];
    (void)snprintf(name, sizeof name, "p:%s", p->name);
    struct actor *actor = NULL;
    deed_status status = actor_start(name, projection_step, p, &actor, err);
    if (status != DEED_OK) return status;
    os_mutex_lock(&p->set->mutex);
    p->actor = actor;
    /* For what was published between its first step and now. */
    actor_wake(actor);
    os_mutex_unlock(&p->set->mutex);
    return DEED_OK;
}
