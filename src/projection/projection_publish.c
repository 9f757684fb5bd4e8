/* projection_publish.c - what others may see of a projection, under the set's mutex: its text, its
 * numbers, its trouble, and the file of its rows. */
#include "projection/projections_state.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* Rates are measured over windows at least this long. */
#define RATE_WINDOW_NS UINT64_C(500000000)

/* ---- database files -------------------------------------------------------------------------- */

struct database_file *file_create(struct projections *set, deed_str projection, uint64_t number)
{
    struct database_file *file = calloc(1, sizeof *file);
    if (file == NULL) return NULL;
    manifest_file_name(projection, false, number, file->name);
    size_t size = strlen(os_dir_path(set->dir)) + strlen(file->name) + 2;
    file->path = malloc(size);
    if (file->path == NULL) {
        free(file);
        return NULL;
    }
    (void)snprintf(file->path, size, "%s/%s", os_dir_path(set->dir), file->name);
    file->references = 1;
    return file;
}

/* Give a reference back; see (4). The mutex is not held. */
void file_release(struct projections *set, struct database_file *file)
{
    if (file == NULL) return;
    os_mutex_lock(&set->mutex);
    assert(file->references > 0);
    bool last = --file->references == 0;
    os_mutex_unlock(&set->mutex);
    if (!last) return;
    if (file->dead) manifest_remove_database(set->dir, file->name);
    free(file->path);
    free(file);
}

/* ---- rates ----------------------------------------------------------------------------------- */

void rate_start(struct rate *rate, uint64_t ticks, uint64_t count)
{
    *rate = (struct rate){
        .window_ticks = ticks, .window_count = count, .noted_ticks = ticks, .value = NAN};
}

void rate_note(struct rate *rate, uint64_t ticks, uint64_t count)
{
    if (count == rate->window_count) {
        if (ticks - rate->noted_ticks > RATE_STALE_NS) rate_start(rate, ticks, count);
        return;
    }
    rate->noted_ticks = ticks;
    uint64_t since = ticks - rate->window_ticks;
    if (since < RATE_WINDOW_NS) return;
    rate->value = (double)(count - rate->window_count) * 1e9 / (double)since;
    rate->window_ticks = ticks;
    rate->window_count = count;
}

/* NaN: not known. */
double rate_now(const struct rate *rate, uint64_t ticks, uint64_t count)
{
    if (!isnan(rate->value)) return rate->value;
    uint64_t since = ticks - rate->window_ticks;
    if (count == rate->window_count || since == 0) return NAN;
    return (double)(count - rate->window_count) * 1e9 / (double)since;
}

/* ---- publishing ------------------------------------------------------------------------------ */

/* A copy of the live generation's text, to be shown. Loading it again cannot fail but for memory; then
 * NULL, and the old one stays. */
struct projection_file *copy_file(struct projection *p, const struct projection_file *file)
{
    struct projection_file *copy = NULL;
    (void)!projection_file_load(p->set->os, file->file, file->text, &copy, NULL);
    return copy;
}

/* Say which file and which tables are live, both at once: a query that saw the old tables must not get
 * the new file without seeing that the tables have changed. */
void publish_switch(struct projection *p, const struct projection_file *text)
{
    struct projections *set = p->set;
    struct projection_file *copy = copy_file(p, text);
    os_mutex_lock(&set->mutex);
    struct projection_file *old = copy == NULL ? NULL : p->shown;
    if (copy != NULL) p->shown = copy;
    if (p->live.open) {
        p->live_file = p->live.file;
        p->position = p->live.fold.position;
        p->generation = p->live.number;
        p->passed_over = generation_passed_over(p->live.fold.generation);
        rate_start(&p->rate, set_now(set), p->live.fold.events);
    }
    set->schema_version++;
    os_cond_broadcast(&set->changed);
    os_mutex_unlock(&set->mutex);
    projection_file_free(old);
}

void publish_live(struct projection *p)
{
    struct projections *set = p->set;
    const struct side *live = &p->live;
    uint64_t ticks = set_now(set);
    os_mutex_lock(&set->mutex);
    bool moved = p->position != live->fold.position || p->generation != live->number;
    p->position = live->fold.position;
    p->generation = live->number;
    p->events = live->fold.events;
    p->transactions = live->fold.transactions;
    p->passed_over = generation_passed_over(live->fold.generation);
    rate_note(&p->rate, ticks, p->events);
    if (moved) os_cond_broadcast(&set->changed);
    os_mutex_unlock(&set->mutex);
}

void publish_state(struct projection *p, enum projection_state state,
                   const struct fold_failure *failure)
{
    struct projections *set = p->set;
    os_mutex_lock(&set->mutex);
    p->state = state;
    if (failure != NULL) {
        p->failure = *failure;
    } else if (state == PROJECTION_RUNNING) {
        p->failure = (struct fold_failure){0};
    }
    os_cond_broadcast(&set->changed);
    os_mutex_unlock(&set->mutex);
}

/* As publish_error, and in the same moment that a rebuild is about to begin: so nobody sees a
 * projection that has failed and does nothing about it. */
void publish_damage(struct projection *p, const struct fold_failure *failure, bool at_once)
{
    struct projections *set = p->set;
    os_mutex_lock(&set->mutex);
    p->state = PROJECTION_FAILED;
    p->failure = *failure;
    if (at_once) {
        p->rebuilding = true;
        p->rebuild_position = 0;
    }
    (void)snprintf(p->rebuild_error, sizeof p->rebuild_error, "%s",
                   at_once ? "" : "it was rebuilt less than a minute ago: the next rebuild waits");
    os_cond_broadcast(&set->changed);
    os_mutex_unlock(&set->mutex);
}

void publish_rebuild(struct projection *p)
{
    struct projections *set = p->set;
    uint64_t ticks = set_now(set), target = store_position(set->store);
    os_mutex_lock(&set->mutex);
    p->rebuild_position = p->next.fold.position;
    p->rebuild_target = target;
    rate_note(&p->rebuild_rate, ticks, p->rebuild_position);
    os_mutex_unlock(&set->mutex);
}

void publish_rebuild_end(struct projection *p, const char *error)
{
    struct projections *set = p->set;
    os_mutex_lock(&set->mutex);
    p->rebuilding = false;
    (void)snprintf(p->rebuild_error, sizeof p->rebuild_error, "%s", error);
    os_cond_broadcast(&set->changed);
    os_mutex_unlock(&set->mutex);
}
