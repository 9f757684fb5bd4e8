/* snapshots.c - a small cache of temporary generations.
 *
 * (1) An entry is `building` in one thread, or has `readers`, or neither; never both. Its file is
 *     opened for writing only while it is building.
 * (2) An entry that is not building is folded exactly up to `position`.
 * (3) The list is guarded by `mutex`; folding runs outside it.
 * (4) What its readers found damaged is found by nobody else, and goes with the last of them. */
#include "projection/snapshots.h"

#include "base/planted.h"
#include "os/failpoint.h"
#include "os/thread.h"
#include "projection/manifest.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

/* Each costs disk, not memory. */
#define SNAPSHOT_COUNT_MAX 8
/* Events between two looks at the clock. */
#define SNAPSHOT_BATCH 2048

struct snapshot {
    struct snapshot *next;
    char file_name[MANIFEST_FILE_NAME_SIZE];
    char *path;
    uint8_t hash[SHA256_SIZE]; /* of the projection's text, its name included */
    uint64_t position, target; /* target: where the building one is going */
    bool building, made;       /* made: there is a file */
    bool damaged;              /* (4) */
    unsigned readers;
    uint64_t used; /* larger: more lately */
};

struct snapshots {
    struct store *store;
    struct os_dir *dir;
    struct os_mutex mutex;
    struct os_cond changed; /* an entry stopped building */
    struct snapshot *list;
    size_t count;
    uint64_t next_number, uses;
};

deed_status snapshots_create(struct store *store, struct os_dir *dir,
                             struct snapshots **out_snapshots, struct deed_error *err)
{
    struct snapshots *s = calloc(1, sizeof *s);
    if (s == NULL) return deed_fail(err, DEED_NO_MEMORY, "no memory for snapshots");
    s->store = store;
    s->dir = dir;
    os_mutex_init(&s->mutex);
    os_cond_init(&s->changed);
    *out_snapshots = s;
    return DEED_OK;
}

/* Out of the list and off the disk. The mutex is held. */
static void entry_remove(struct snapshots *s, struct snapshot *entry)
{
    assert(!entry->building);
    assert(entry->readers == 0);
    struct snapshot **at = &s->list;
    while (*at != entry)
        at = &(*at)->next;
    *at = entry->next;
    s->count--;
    manifest_remove_database(s->dir, entry->file_name);
    free(entry->path);
    free(entry);
}

void snapshots_destroy(struct snapshots *s)
{
    if (s == NULL) return;
    while (s->list != NULL)
        entry_remove(s, s->list);
    os_cond_done(&s->changed);
    os_mutex_done(&s->mutex);
    free(s);
}

static struct snapshot *oldest_idle(const struct snapshots *s)
{
    struct snapshot *oldest = NULL;
    for (struct snapshot *e = s->list; e != NULL; e = e->next) {
        bool idle = !e->building && e->readers == 0;
        if (idle && (oldest == NULL || e->used < oldest->used)) oldest = e;
    }
    return oldest;
}

/* Make room for one more. Those in use are not counted against anybody: there are as many as threads
 * that ask at once. */
static void make_room(struct snapshots *s)
{
    struct snapshot *oldest = NULL;
    while (s->count >= SNAPSHOT_COUNT_MAX && (oldest = oldest_idle(s)) != NULL) {
        entry_remove(s, oldest);
    }
}

static struct snapshot *entry_add(struct snapshots *s, const struct snapshot_source *source)
{
    make_room(s);
    struct snapshot *entry = calloc(1, sizeof *entry);
    if (entry == NULL) return NULL;
    manifest_file_name(source->name, true, ++s->next_number, entry->file_name);
    size_t size = strlen(os_dir_path(s->dir)) + strlen(entry->file_name) + 2;
    entry->path = malloc(size);
    if (entry->path == NULL) {
        free(entry);
        return NULL;
    }
    (void)snprintf(entry->path, size, "%s/%s", os_dir_path(s->dir), entry->file_name);
    memcpy(entry->hash, source->hash, SHA256_SIZE);
    entry->next = s->list;
    s->list = entry;
    s->count++;
    return entry;
}

/* The best that there is for a position: folded to it, or being folded to it, or to be carried on.
 */
static struct snapshot *entry_find(struct snapshots *s, const struct snapshot_source *source,
                                   uint64_t position)
{
    struct snapshot *best = NULL;
    for (struct snapshot *e = s->list; e != NULL; e = e->next) {
        bool same = memcmp(e->hash, source->hash, SHA256_SIZE) == 0;
        if ((!same && !PLANTED(SNAPSHOT_OF_ANY_TEXT)) || e->damaged) continue;
        if (e->building ? e->target == position : e->position == position && e->made) return e;
        bool idle = !e->building && e->readers == 0;
        if (!idle || (e->position > position && !PLANTED(SNAPSHOT_OF_LATER))) continue;
        if (best == NULL || e->position > best->position) best = e;
    }
    return best;
}

/* ---- folding -------------------------------------------------------------------------------- */

static deed_status open_generation(struct snapshots *s, struct snapshot *entry,
                                   const struct snapshot_source *source, struct generation **out,
                                   struct deed_error *err)
{
    struct os *os = store_os(s->store);
    if (entry->made) return generation_open(os, entry->path, true, out, err);
    manifest_remove_database(s->dir, entry->file_name); /* of a process before */
    struct deed_info info;
    store_info(s->store, &info);
    struct generation_checkpoint start = {.log_id = info.log_id, .epoch = info.epoch};
    struct projection_file *file = NULL;
    deed_status status = projection_file_load(os, source->file, source->text, &file, err);
    if (status != DEED_OK) return status;
    status = generation_create(os, entry->path, file, true, &start, out, err);
    projection_file_free(file);
    return status;
}

static deed_status fold_failed(const struct fold_failure *failure, struct deed_error *err)
{
    if (failure->status == DEED_CORRUPT && !failure->of_log) {
        return deed_fail(err, DEED_CORRUPT, "%s", failure->message);
    }
    bool gone = failure->status == DEED_GONE;
    deed_status status = deed_fail(err, gone ? DEED_GONE : DEED_STOPPED, "event %" PRIu64 ": %s",
                                   failure->position, failure->message);
    if (err != NULL && gone) err->position = failure->position;
    return status;
}

static deed_status fold_to(struct snapshots *s, struct generation *generation, uint64_t position,
                           uint64_t deadline_ticks, uint64_t *out_position, struct deed_error *err)
{
    FAILPOINT("created");
    struct fold fold;
    struct fold_options options = {.until = position + PLANTED(SNAPSHOT_ONE_TOO_FAR)};
    fold_init(&fold, s->store, generation, &options);
    enum fold_result result = FOLD_MORE;
    while (result == FOLD_MORE && os_ticks_ns(store_os(s->store)) < deadline_ticks) {
        result = fold_step(&fold, SNAPSHOT_BATCH);
    }
    deed_status status = DEED_OK;
    if (result == FOLD_FAILED) {
        status = fold_failed(&fold.failure, err);
    } else if (result == FOLD_BUSY) {
        status = deed_fail(err, DEED_BUSY,
                           "folded up to position %" PRIu64 " of %" PRIu64
                           ": the index is being rebuilt; ask again in a while",
                           fold.position, position);
    } else if (result == FOLD_MORE) {
        status = deed_fail(err, DEED_TIMEOUT,
                           "folded up to position %" PRIu64 " of %" PRIu64
                           " in time; asking again goes on from there",
                           fold.position, position);
    }
    fold_done(&fold);
    *out_position = fold.position;
    return status;
}

/* Bring an entry that this thread is building to its target. */
static deed_status build(struct snapshots *s, struct snapshot *entry,
                         const struct snapshot_source *source, uint64_t deadline_ticks,
                         uint64_t *out_position, bool *out_usable, struct deed_error *err)
{
    struct generation *generation = NULL;
    deed_status status = open_generation(s, entry, source, &generation, err);
    *out_usable = false;
    if (status != DEED_OK) return status;
    status = fold_to(s, generation, entry->target, deadline_ticks, out_position, err);
    *out_usable = status == DEED_OK || status == DEED_TIMEOUT;
    return status;
}

static deed_status build_and_tell(struct snapshots *s, struct snapshot *entry,
                                  const struct snapshot_source *source, uint64_t deadline_ticks,
                                  struct deed_error *err)
{
    entry->building = true;
    os_mutex_unlock(&s->mutex);
    uint64_t position = entry->position;
    bool usable = false;
    deed_status status = build(s, entry, source, deadline_ticks, &position, &usable, err);
    FAILPOINT("built");
    os_mutex_lock(&s->mutex);
    entry->building = false;
    entry->made = usable;
    entry->position = position;
    os_cond_broadcast(&s->changed);
    if (!usable) entry_remove(s, entry);
    return status;
}

/* Wait for whoever is building; false: the time has passed. */
static bool wait_for_others(struct snapshots *s, uint64_t deadline_ticks)
{
    uint64_t now = os_ticks_ns(store_os(s->store));
    return now < deadline_ticks && os_cond_wait(&s->changed, &s->mutex, deadline_ticks - now);
}

static deed_status take(struct snapshots *s, const struct snapshot_source *source,
                        uint64_t position, uint64_t deadline_ticks, struct snapshot **out,
                        struct deed_error *err)
{
    for (;;) {
        struct snapshot *entry = entry_find(s, source, position);
        if (entry != NULL && entry->building) {
            if (wait_for_others(s, deadline_ticks)) continue;
            return deed_fail(err, DEED_TIMEOUT, "position %" PRIu64 " is still being folded",
                             position);
        }
        if (entry == NULL) entry = entry_add(s, source);
        if (entry == NULL) return deed_fail(err, DEED_NO_MEMORY, "no memory for a snapshot");
        entry->used = ++s->uses;
        if (!entry->made || entry->position != position) {
            bool carried_on = entry->made;
            entry->target = position;
            deed_status status = build_and_tell(s, entry, source, deadline_ticks, err);
            if (status == DEED_CORRUPT && carried_on) continue; /* it is gone: make it anew */
            if (status != DEED_OK) return status;
        }
        entry->readers++;
        *out = entry;
        return DEED_OK;
    }
}

deed_status snapshots_take(struct snapshots *s, const struct snapshot_source *source,
                           uint64_t position, uint64_t deadline_ticks,
                           struct snapshot **out_snapshot, const char **out_path,
                           struct deed_error *err)
{
    assert(position > 0);
    uint64_t end = store_position(s->store);
    if (position > end) {
        return deed_fail(err, DEED_INVALID, "position %" PRIu64 " is past the log's end, %" PRIu64,
                         position, end);
    }
    os_mutex_lock(&s->mutex);
    deed_status status = take(s, source, position, deadline_ticks, out_snapshot, err);
    os_mutex_unlock(&s->mutex);
    if (status != DEED_OK) return status;
    *out_path = (*out_snapshot)->path;
    return DEED_OK;
}

void snapshots_give_back(struct snapshots *s, struct snapshot *snapshot)
{
    os_mutex_lock(&s->mutex);
    assert(snapshot->readers > 0);
    snapshot->readers--;
    if (snapshot->damaged && snapshot->readers == 0) entry_remove(s, snapshot);
    os_mutex_unlock(&s->mutex);
}

void snapshots_drop(struct snapshots *s, struct snapshot *snapshot)
{
    os_mutex_lock(&s->mutex);
    assert(snapshot->readers > 0);
    snapshot->damaged = true;
    os_mutex_unlock(&s->mutex);
}
