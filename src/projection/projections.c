/* projections.c - the set, and each projection's actor.
 *
 *     add ──► live generation ──────────────► follows the log
 *                 │ rebuild, or a text that cannot carry on
 *                 └──► next generation, from position 0 ──► caught up: manifest, switch
 *
 * One actor folds both, in turn: a batch of the live one, then a batch of the next one. So there is
 * nothing to hand over between threads when they switch.
 *
 * (1) `admin` is held while the list's members change (add, load, close), across disk and SQLite.
 *     `mutex` guards the list, what is published of each projection, and what is asked of it; under
 *     it nothing waits and nothing touches a disk, since the committer's thread takes it to wake
 * us. (2) `live` and `next` belong to the actor. Others see `shown` and the published numbers. (3)
 * A position is published after its commit: whoever reads the file later finds its rows. (4) A
 * database file is removed when it is dead and nobody holds a reference. The live one has one
 *     reference of its own. */
#include "projection/projections.h"

#include "os/failpoint.h"
#include "os/thread.h"
#include "projection/fold.h"
#include "projection/manifest.h"
#include "projection/snapshots.h"
#include "projection/sql_folder.h"
#include "base/planted.h"
#include "base/text.h"

#include <assert.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

#define BATCH_COUNT_DEFAULT 4096
/* A disk that was full may have room again. */
#define STORAGE_RETRY_NS UINT64_C(5000000000)
#define BUSY_RETRY_NS    UINT64_C(250000000)
/* What is damaged again so soon after it was rebuilt is on a bad disk, or in bad memory: to go on making
 * it anew without a pause would only wear that out. */
#define MEND_PAUSE_NS UINT64_C(60000000000)
/* Rates are measured over windows at least this long. */
#define RATE_WINDOW_NS UINT64_C(500000000)
#define RATE_STALE_NS  UINT64_C(3000000000)
#define NS_PER_MS      UINT64_C(1000000)

struct database_file {
    char name[MANIFEST_FILE_NAME_SIZE];
    char *path;
    unsigned references; /* under the set's mutex, as `dead` */
    bool dead;
};

/* A generation being folded; the actor's own. */
struct side {
    bool open;
    uint64_t number;
    struct database_file *file;
    struct fold fold;
};

struct rate {
    uint64_t window_ticks, window_count, noted_ticks;
    double value; /* a second; NaN: not known yet */
};

struct wants {
    bool pause, resume, rebuild;
    uint64_t without_removed;     /* rebuild: pass over removed events up to here */
    struct projection_file *file; /* another text; owned */
    /* What a query found wrong with this live generation; empty: nothing. */
    char damage[DEED_MESSAGE_SIZE];
    uint64_t damaged_generation;
};

struct projection {
    struct projections *set;
    char *name;
    char *folder; /* that it was loaded from; NULL: it was added. Under admin */
    struct actor *actor;
    atomic_bool stopping;

    /* The actor's own. */
    struct side live, next;
    uint64_t number_max;  /* of generations that ever were */
    uint64_t retry_ticks; /* when to open the live one again after storage failed; 0: not */
    uint64_t text_ticks;  /* when to look at the newest text again, for the same reason; 0: not */
    char damage[DEED_MESSAGE_SIZE]; /* of the live generation, which is open still; empty: none */
    bool mending;          /* the live generation is damaged and closed, and is to be rebuilt */
    uint64_t mend_ticks;   /* when that begins; 0: it has, or is not wanted */
    uint64_t mended_ticks; /* when it began last; 0: never */
    bool did_work;

    /* Under the set's mutex. */
    struct wants wants;
    struct projection_file *shown;  /* of the live generation, or what it would be */
    struct projection_file *newest; /* the last text that was accepted */
    struct database_file *live_file;
    enum projection_state state;
    uint64_t generation, position, events, transactions, passed_over;
    struct rate rate;
    struct fold_failure failure;
    bool rebuilding;
    uint64_t rebuild_position, rebuild_target;
    struct rate rebuild_rate;
    char rebuild_error[DEED_MESSAGE_SIZE];
};

/* A file of a folder that was not taken up when the folder was read last. */
struct refusal {
    struct refusal *next;
    char *file, *message;
};

struct projections {
    struct store *store;
    struct os *os;
    struct os_dir *dir;
    struct projections_options options;
    struct os_mutex admin, mutex; /* see (1) */
    struct os_cond changed;       /* a position, a state */
    struct projection **list;     /* in order of name */
    size_t count;
    struct refusal *refusals;
    uint64_t schema_version;
    struct snapshots *snapshots;
    struct store_watch watch;
};

struct projection_lease {
    struct projections *set;
    struct database_file *file;
    struct snapshot *snapshot;
};

static deed_status no_memory(struct deed_error *err)
{
    return deed_fail(err, DEED_NO_MEMORY, "no memory for a projection");
}

static void refusals_free(struct refusal *list)
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
static void refusal_add(struct refusal **list, deed_str file, const char *message)
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

static uint64_t now(const struct projections *set)
{
    return os_ticks_ns(set->os);
}

/* ---- database files -------------------------------------------------------------------------- */

static struct database_file *file_create(struct projections *set, deed_str projection,
                                         uint64_t number)
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
static void file_release(struct projections *set, struct database_file *file)
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

static void rate_start(struct rate *rate, uint64_t ticks, uint64_t count)
{
    *rate = (struct rate){
        .window_ticks = ticks, .window_count = count, .noted_ticks = ticks, .value = NAN};
}

static void rate_note(struct rate *rate, uint64_t ticks, uint64_t count)
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
static double rate_now(const struct rate *rate, uint64_t ticks, uint64_t count)
{
    if (!isnan(rate->value)) return rate->value;
    uint64_t since = ticks - rate->window_ticks;
    if (count == rate->window_count || since == 0) return NAN;
    return (double)(count - rate->window_count) * 1e9 / (double)since;
}

/* ---- publishing ------------------------------------------------------------------------------ */

/* A copy of the live generation's text, to be shown. Loading it again cannot fail but for memory; then
 * NULL, and the old one stays. */
static struct projection_file *copy_file(struct projection *p, const struct projection_file *file)
{
    struct projection_file *copy = NULL;
    (void)!projection_file_load(p->set->os, file->file, file->text, &copy, NULL);
    return copy;
}

/* Say which file and which tables are live, both at once: a query that saw the old tables must not get
 * the new file without seeing that the tables have changed. */
static void publish_switch(struct projection *p, const struct projection_file *text)
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
        rate_start(&p->rate, now(set), p->live.fold.events);
    }
    set->schema_version++;
    os_cond_broadcast(&set->changed);
    os_mutex_unlock(&set->mutex);
    projection_file_free(old);
}

static void publish_live(struct projection *p)
{
    struct projections *set = p->set;
    const struct side *live = &p->live;
    uint64_t ticks = now(set);
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

static void publish_state(struct projection *p, enum projection_state state,
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
static void publish_damage(struct projection *p, const struct fold_failure *failure, bool at_once)
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

static void publish_rebuild(struct projection *p)
{
    struct projections *set = p->set;
    uint64_t ticks = now(set), target = store_position(set->store);
    os_mutex_lock(&set->mutex);
    p->rebuild_position = p->next.fold.position;
    p->rebuild_target = target;
    rate_note(&p->rebuild_rate, ticks, p->rebuild_position);
    os_mutex_unlock(&set->mutex);
}

static void publish_rebuild_end(struct projection *p, const char *error)
{
    struct projections *set = p->set;
    os_mutex_lock(&set->mutex);
    p->rebuilding = false;
    (void)snprintf(p->rebuild_error, sizeof p->rebuild_error, "%s", error);
    os_cond_broadcast(&set->changed);
    os_mutex_unlock(&set->mutex);
}

/* ---- generations ----------------------------------------------------------------------------- */

/* Close a side; with `dead` its files go when nobody reads them any more. */
static void side_close(struct projection *p, struct side *side, bool dead)
{
    if (side->open) fold_done(&side->fold);
    side->open = false;
    if (side->file == NULL) return;
    os_mutex_lock(&p->set->mutex);
    side->file->dead |= dead;
    os_mutex_unlock(&p->set->mutex);
    file_release(p->set, side->file);
    side->file = NULL;
}

static void side_start(struct projection *p, struct side *side, uint64_t number,
                       struct database_file *file, struct generation *generation)
{
    struct fold_options options = {.until = DEED_NONE,
                                   .deliver_twice = p->set->options.deliver_twice};
    *side = (struct side){.open = true, .number = number, .file = file};
    generation_on_cancel(generation, &p->stopping);
    uint32_t settle = p->set->options.settle_page_count;
    if (settle != 0) generation_settle_every(generation, settle);
    fold_init(&side->fold, p->set->store, generation, &options);
}

/* A new, empty generation. */
static deed_status side_create(struct projection *p, struct side *side,
                               const struct projection_file *file, struct deed_error *err)
{
    struct projections *set = p->set;
    uint64_t number = ++p->number_max;
    struct database_file *database = file_create(set, deed_str_of(p->name), number);
    if (database == NULL) return no_memory(err);
    manifest_remove_database(set->dir, database->name);
    struct deed_info info;
    store_info(set->store, &info);
    struct generation_checkpoint start = {.log_id = info.log_id, .epoch = info.epoch};
    struct generation *generation = NULL;
    deed_status status =
        generation_create(set->os, database->path, file, false, &start, &generation, err);
    if (status != DEED_OK) {
        database->dead = true;
        file_release(set, database);
        return status;
    }
    side_start(p, side, number, database, generation);
    return DEED_OK;
}

/* A checkpoint of another log, or of this log before it was restored, says nothing about this one.
 */
static deed_status check_origin(struct projections *set,
                                const struct generation_checkpoint *checkpoint,
                                struct deed_error *err)
{
    struct deed_info info;
    store_info(set->store, &info);
    if (memcmp(&checkpoint->log_id, &info.log_id, sizeof info.log_id) != 0) {
        return deed_fail(err, DEED_STOPPED, "its rows were made from another log: rebuild it");
    }
    if (checkpoint->epoch != info.epoch && !PLANTED(CHECKPOINT_OF_ANY_EPOCH)) {
        return deed_fail(err, DEED_STOPPED,
                         "its rows were made in epoch %" PRIu64 " of the log, which is in epoch "
                         "%" PRIu64 " since it was restored: rebuild it",
                         checkpoint->epoch, info.epoch);
    }
    if (checkpoint->position > store_position(set->store)) {
        return deed_fail(err, DEED_STOPPED,
                         "its rows have seen position %" PRIu64 ", but the log ends at %" PRIu64
                         ": rebuild it",
                         checkpoint->position, store_position(set->store));
    }
    return DEED_OK;
}

static deed_status side_open(struct projection *p, struct side *side, uint64_t number,
                             struct deed_error *err)
{
    struct projections *set = p->set;
    struct database_file *database = file_create(set, deed_str_of(p->name), number);
    if (database == NULL) return no_memory(err);
    struct generation *generation = NULL;
    deed_status status = generation_open(set->os, database->path, false, &generation, err);
    if (status == DEED_OK) {
        status = check_origin(set, generation_checkpoint(generation), err);
        if (status != DEED_OK) generation_close(generation);
    }
    if (status != DEED_OK) {
        file_release(set, database);
        return status;
    }
    side_start(p, side, number, database, generation);
    return DEED_OK;
}

/* ---- rebuilding ------------------------------------------------------------------------------ */

static void rebuild_drop(struct projection *p, const char *error)
{
    side_close(p, &p->next, true);
    publish_rebuild_end(p, error);
}

/* The live generation is damaged, and closed. What is being rebuilt already goes on. */
static void live_damaged(struct projection *p, const struct fold_failure *failure)
{
    uint64_t ticks = now(p->set);
    bool at_once = p->mended_ticks == 0 || ticks - p->mended_ticks >= MEND_PAUSE_NS;
    p->retry_ticks = 0;
    if (PLANTED(DAMAGE_STANDS)) {
        publish_state(p, PROJECTION_FAILED, failure);
        return;
    }
    p->mending = true;
    p->mend_ticks = at_once ? ticks : p->mended_ticks + MEND_PAUSE_NS;
    if (p->mend_ticks == 0) p->mend_ticks = 1;
    publish_damage(p, failure, at_once || p->next.open);
}

/* Trouble that trying again may get over. */
static bool passes(deed_status status)
{
    return status == DEED_BUSY || (database_is_storage(status) && status != DEED_CORRUPT);
}

/* A rebuild that another text began, or damage, is begun again when storage failed it. One that somebody
 * asked for is given up, and says why; so is one that is damaged itself. */
static void retry_rebuild(struct projection *p, deed_status status)
{
    os_mutex_lock(&p->set->mutex);
    bool other = p->shown == NULL || memcmp(p->newest->hash, p->shown->hash, SHA256_SIZE) != 0;
    os_mutex_unlock(&p->set->mutex);
    if (passes(status) && p->mending) {
        p->mend_ticks = now(p->set) + STORAGE_RETRY_NS;
    } else if (passes(status) && other) {
        p->text_ticks = now(p->set) + STORAGE_RETRY_NS;
    }
}

static void rebuild_start(struct projection *p, const struct projection_file *file,
                          uint64_t without_removed)
{
    struct projections *set = p->set;
    side_close(p, &p->next, true);
    struct deed_error err = {0};
    deed_status status = side_create(p, &p->next, file, &err);
    if (status == DEED_OK) p->next.fold.options.without_removed = without_removed;
    FAILPOINT("created");
    uint64_t target = store_position(set->store);
    os_mutex_lock(&set->mutex);
    p->rebuilding = status == DEED_OK;
    p->rebuild_position = 0;
    p->rebuild_target = target;
    p->rebuild_error[0] = '\0';
    rate_start(&p->rebuild_rate, now(set), 0);
    os_mutex_unlock(&set->mutex);
    if (status == DEED_OK) return;
    publish_rebuild_end(p, err.message);
    retry_rebuild(p, status);
}

/* The next generation is durable and named by the manifest before it is used. */
static deed_status rebuild_settle(struct projection *p, struct deed_error *err)
{
    deed_status status = generation_commit(p->next.fold.generation, p->next.fold.position, err);
    if (status == DEED_OK && PLANTED(MANIFEST_BEFORE_SETTLE)) {
        status = manifest_write(p->set->dir, deed_str_of(p->name), p->next.number, err);
    }
    bool settles = !PLANTED(SWITCH_WITHOUT_SETTLE);
    if (status == DEED_OK && settles) {
        status = generation_settle(p->next.fold.generation, err);
    }
    if (status == DEED_OK && settles) status = os_dir_sync(p->set->dir, err);
    if (status == DEED_OK) {
        status = manifest_write(p->set->dir, deed_str_of(p->name), p->next.number, err);
    }
    return status;
}

/* A generation that could not be opened: nobody reads it. */
static void remove_closed(struct projection *p, uint64_t number)
{
    char name[MANIFEST_FILE_NAME_SIZE];
    if (number == 0) return;
    manifest_file_name(deed_str_of(p->name), false, number, name);
    manifest_remove_database(p->set->dir, name);
}

static void rebuild_switch(struct projection *p)
{
    struct deed_error err = {0};
    if (rebuild_settle(p, &err) != DEED_OK) {
        /* The manifest may name either: what it does not name is removed at the next opening. */
        side_close(p, &p->next, false);
        publish_rebuild_end(p, err.message);
        retry_rebuild(p, err.status);
        return;
    }
    FAILPOINT("manifest-written");
    struct side old = p->live;
    p->live = p->next;
    p->next = (struct side){0};
    p->retry_ticks = p->mend_ticks = 0;
    p->mending = false;
    p->damage[0] = '\0';
    /* The counters of this process go on. */
    if (old.open) {
        p->live.fold.events += old.fold.events;
        p->live.fold.transactions += old.fold.transactions;
    }
    publish_switch(p, generation_file(p->live.fold.generation));
    publish_state(p, PROJECTION_RUNNING, NULL);
    publish_rebuild_end(p, "");
    if (old.file == NULL) remove_closed(p, old.number);
    side_close(p, &old, true);
    FAILPOINT("old-removed");
}

static uint64_t rebuild_step(struct projection *p)
{
    if (!p->next.open) return ACTOR_WAIT;
    uint64_t before = p->next.fold.position;
    enum fold_result result = fold_step(&p->next.fold, p->set->options.batch_count_max);
    p->did_work |= result != FOLD_BUSY || p->next.fold.position != before;
    publish_rebuild(p);
    if (result == FOLD_BUSY) return BUSY_RETRY_NS;
    if (result == FOLD_FAILED) {
        char text[DEED_MESSAGE_SIZE];
        const struct fold_failure *failure = &p->next.fold.failure;
        if (failure->position == DEED_NONE) {
            (void)snprintf(text, sizeof text, "%s", failure->message);
        } else {
            (void)snprintf(text, sizeof text, "event %" PRIu64 ": %.440s", failure->position,
                           failure->message);
        }
        deed_status status = failure->status;
        rebuild_drop(p, text);
        retry_rebuild(p, status);
        return p->text_ticks == 0 && p->mend_ticks == 0 ? ACTOR_WAIT : STORAGE_RETRY_NS;
    }
    if (PLANTED(REBUILD_SKIPS_LAST) && p->live.fold.position == p->next.fold.position + 1) {
        p->next.fold.position++;
        rebuild_switch(p);
    }
    if (result == FOLD_MORE) return ACTOR_AGAIN;
    if (atomic_load(&p->stopping)) return ACTOR_WAIT;
    bool caught_up = !p->live.open || p->live.fold.position <= p->next.fold.position;
    if (caught_up) rebuild_switch(p);
    return caught_up || p->next.fold.position > before ? ACTOR_AGAIN : ACTOR_WAIT;
}

/* ---- the live generation --------------------------------------------------------------------- */

static void live_failed(struct projection *p)
{
    struct fold_failure failure = p->live.fold.failure;
    if (database_is_storage(failure.status)) {
        /* Close, so that opening it again shows whether it is well. */
        fold_done(&p->live.fold);
        p->live.open = false;
        p->retry_ticks = failure.status == DEED_CORRUPT ? 0 : now(p->set) + STORAGE_RETRY_NS;
    }
    if (failure.status == DEED_CORRUPT && !failure.of_log) {
        live_damaged(p, &failure);
    } else {
        publish_state(p, PROJECTION_FAILED, &failure);
    }
}

static struct fold_failure failure_of(deed_status status, const char *message)
{
    struct fold_failure failure = {.status = status, .position = DEED_NONE};
    (void)snprintf(failure.message, sizeof failure.message, "%s", message);
    return failure;
}

static void live_not_opened(struct projection *p, deed_status status, const char *message)
{
    struct fold_failure failure = failure_of(status, message);
    if (status == DEED_CORRUPT) {
        live_damaged(p, &failure);
        return;
    }
    p->retry_ticks = database_is_storage(status) ? now(p->set) + STORAGE_RETRY_NS : 0;
    publish_state(p, PROJECTION_FAILED, &failure);
}

/* Open the live generation again after storage had failed. */
static void live_reopen(struct projection *p)
{
    struct deed_error err = {0};
    struct side opened = {0};
    deed_status status = side_open(p, &opened, p->live.number, &err);
    if (status != DEED_OK) {
        live_not_opened(p, status, err.message);
        return;
    }
    p->retry_ticks = p->mend_ticks = 0;
    p->mending = false;
    struct side old = p->live;
    opened.fold.events = old.fold.events;
    opened.fold.transactions = old.fold.transactions;
    p->live = opened;
    publish_switch(p, generation_file(p->live.fold.generation));
    publish_state(p, PROJECTION_RUNNING, NULL);
    publish_live(p);
    file_release(p->set, old.file);
}

static bool is_failed(const struct fold *f)
{
    return f->failure.status != DEED_OK && f->failed_position == DEED_NONE;
}

static uint64_t live_step(struct projection *p)
{
    if (!p->live.open) {
        if (p->retry_ticks == 0) return ACTOR_WAIT;
        uint64_t ticks = now(p->set);
        if (ticks < p->retry_ticks) return p->retry_ticks - ticks;
        live_reopen(p);
        p->did_work = true;
        return p->live.open ? ACTOR_AGAIN : STORAGE_RETRY_NS;
    }
    bool stands = p->state == PROJECTION_FAILED || is_failed(&p->live.fold);
    if (stands) return ACTOR_WAIT;
    uint64_t position = p->live.fold.position, transactions = p->live.fold.transactions;
    enum fold_result result = fold_step(&p->live.fold, p->set->options.batch_count_max);
    p->did_work |= p->live.fold.position != position || result == FOLD_MORE ||
                   result == FOLD_FAILED || p->live.fold.transactions != transactions;
    publish_live(p);
    if (result == FOLD_BUSY) return BUSY_RETRY_NS;
    if (result == FOLD_FAILED) {
        live_failed(p);
        /* Nothing else wakes it where the log does not grow. */
        return p->retry_ticks == 0 ? ACTOR_WAIT : STORAGE_RETRY_NS;
    }
    if (result == FOLD_MORE) return ACTOR_AGAIN;
    uint64_t wait = fold_save_wait(&p->live.fold);
    return wait == UINT64_MAX ? ACTOR_WAIT : wait + 1;
}

/* ---- what others ask for --------------------------------------------------------------------- */

static deed_status carry_on(struct projection *p, const struct projection_file *file,
                            struct deed_error *err)
{
    deed_status status = DEED_OK;
    fold_retry(&p->live.fold);
    status = generation_change_file(p->live.fold.generation, file, err);
    if (status != DEED_OK) return status;
    rebuild_drop(p, "");
    publish_switch(p, file);
    if (p->state == PROJECTION_FAILED) publish_state(p, PROJECTION_RUNNING, NULL);
    publish_live(p);
    return DEED_OK;
}

/* Another text: carry on, or rebuild. */
static void take_file(struct projection *p, const struct projection_file *file)
{
    p->text_ticks = 0;
    if (!p->live.open) {
        rebuild_start(p, file, 0);
        return;
    }
    const struct projection_file *now_live = generation_file(p->live.fold.generation);
    if (memcmp(now_live->hash, file->hash, SHA256_SIZE) == 0) {
        rebuild_drop(p, ""); /* of a text in between */
        return;
    }
    struct deed_error err = {0};
    bool can = false;
    deed_status status = fold_can_carry_on(&p->live.fold, file, &can, &err);
    if (status == DEED_OK && can) status = carry_on(p, file, &err);
    if (passes(status)) {
        /* The text that is live goes on meanwhile. */
        p->text_ticks = now(p->set) + STORAGE_RETRY_NS;
        if (!p->next.open) publish_rebuild_end(p, err.message);
    } else if (status != DEED_OK) {
        struct fold_failure failure = failure_of(status, err.message);
        publish_state(p, PROJECTION_FAILED, &failure);
    } else if (!can) {
        rebuild_start(p, file, 0);
    }
}

static void take_resume(struct projection *p)
{
    if (p->live.open) {
        fold_retry(&p->live.fold);
        publish_state(p, PROJECTION_RUNNING, NULL);
    } else if (p->live.file != NULL || p->live.number != 0) {
        live_reopen(p);
    }
}

static void take_pause(struct projection *p)
{
    if (p->state == PROJECTION_FAILED) return; /* it stands still already, and has more to say */
    if (p->live.open && !generation_in_transaction(p->live.fold.generation)) {
        (void)!generation_commit(p->live.fold.generation, p->live.fold.position, NULL);
    }
    publish_state(p, PROJECTION_PAUSED, NULL);
}

static struct projection_file *newest_copy(struct projection *p)
{
    os_mutex_lock(&p->set->mutex);
    size_t len = p->newest->text.len, file_len = p->newest->file.len;
    char *text = malloc(len + 1), *file = malloc(file_len + 1);
    if (text != NULL) memcpy(text, p->newest->text.ptr, len);
    if (file != NULL) memcpy(file, p->newest->file.ptr, file_len);
    os_mutex_unlock(&p->set->mutex);
    struct projection_file *copy = NULL;
    if (text != NULL && file != NULL) {
        (void)!projection_file_load(p->set->os, (deed_str){file, file_len}, (deed_str){text, len},
                                    &copy, NULL);
    }
    free(text);
    free(file);
    return copy;
}

/* It may have been switched to another since. A paused one is rebuilt when it goes on. */
static void note_damage(struct projection *p, const struct wants *wants)
{
    if (!p->live.open || p->live.number != wants->damaged_generation) return;
    memcpy(p->damage, wants->damage, sizeof p->damage);
}

static void take_wants(struct projection *p)
{
    os_mutex_lock(&p->set->mutex);
    struct wants wants = p->wants;
    p->wants = (struct wants){0};
    os_mutex_unlock(&p->set->mutex);
    if (wants.file != NULL) take_file(p, wants.file);
    projection_file_free(wants.file);
    if (wants.damage[0] != '\0') note_damage(p, &wants);
    if (wants.rebuild) {
        struct projection_file *file = newest_copy(p);
        p->mend_ticks = 0;
        if (file != NULL) {
            rebuild_start(p, file, wants.without_removed);
        } else {
            publish_rebuild_end(p, "no memory to rebuild");
        }
        projection_file_free(file);
    }
    if (wants.resume) take_resume(p);
    if (wants.pause) take_pause(p);
    p->did_work |= wants.file != NULL || wants.rebuild || wants.resume || wants.pause ||
                   wants.damage[0] != '\0';
}

/* What a query found is believed: close the live generation. */
static void close_damaged(struct projection *p)
{
    struct fold_failure failure = failure_of(DEED_CORRUPT, p->damage);
    p->damage[0] = '\0';
    fold_done(&p->live.fold);
    p->live.open = false;
    p->did_work = true;
    live_damaged(p, &failure);
}

static uint64_t mend_step(struct projection *p)
{
    if (p->damage[0] != '\0' && p->live.open) close_damaged(p);
    if (p->mend_ticks == 0 || p->next.open) return ACTOR_WAIT;
    uint64_t ticks = now(p->set);
    if (ticks < p->mend_ticks) return p->mend_ticks - ticks;
    struct projection_file *file = newest_copy(p);
    p->did_work = true;
    p->mend_ticks = file == NULL ? ticks + STORAGE_RETRY_NS : 0;
    if (file == NULL) return STORAGE_RETRY_NS;
    p->mended_ticks = ticks == 0 ? 1 : ticks;
    rebuild_start(p, file, 0);
    projection_file_free(file);
    return p->mend_ticks == 0 ? ACTOR_AGAIN : STORAGE_RETRY_NS;
}

static uint64_t text_step(struct projection *p)
{
    if (p->text_ticks == 0) return ACTOR_WAIT;
    uint64_t ticks = now(p->set);
    if (ticks < p->text_ticks) return p->text_ticks - ticks;
    p->text_ticks = ticks + STORAGE_RETRY_NS;
    struct projection_file *file = newest_copy(p);
    if (file != NULL) take_file(p, file);
    projection_file_free(file);
    p->did_work = true;
    return p->text_ticks == 0 ? ACTOR_AGAIN : STORAGE_RETRY_NS;
}

static uint64_t projection_step(void *context)
{
    struct projection *p = context;
    p->did_work = false;
    take_wants(p);
    if (p->state == PROJECTION_PAUSED) return ACTOR_WAIT; /* written by this thread alone */
    uint64_t text = text_step(p);
    uint64_t live = live_step(p);
    uint64_t mend = mend_step(p);
    uint64_t next = rebuild_step(p);
    if (text < live) live = text;
    if (mend < live) live = mend;
    return live < next ? live : next;
}

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

static void projection_destroy(struct projection *p)
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
static deed_status projection_create(struct projections *set, struct projection_file *file,
                                     struct projection **out, struct deed_error *err)
{
    struct projection *p = calloc(1, sizeof *p);
    if (p == NULL) {
        projection_file_free(file);
        return no_memory(err);
    }
    p->set = set;
    p->newest = file;
    p->name = strndup(file->name.ptr, file->name.len);
    rate_start(&p->rebuild_rate, now(set), 0);
    deed_status status = p->name == NULL ? no_memory(err) : open_live(p, file, err);
    if (status == DEED_OK && p->live.open) {
        publish_switch(p, generation_file(p->live.fold.generation));
        publish_live(p);
        take_file(p, file);
    } else if (status == DEED_OK) {
        publish_switch(p, file);
    }
    if (status == DEED_OK && p->shown == NULL) status = no_memory(err);
    if (status != DEED_OK) {
        projection_destroy(p);
        return status;
    }
    *out = p;
    return DEED_OK;
}

static deed_status projection_start(struct projection *p, struct deed_error *err)
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
    if (set == NULL) return no_memory(err);
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
static struct projection *find(struct projections *set, deed_str name)
{
    for (size_t i = 0; i < set->count; i++) {
        if (deed_str_equal(deed_str_of(set->list[i]->name), name)) return set->list[i];
    }
    return NULL;
}

static bool has_table(const struct projection_file *file, deed_str table)
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
        if (has_table(other, file->tables[i])) {
            return table_taken(file, file->tables[i], other->name, err);
        }
    }
    return DEED_OK;
}

static deed_status list_insert(struct projections *set, struct projection *p,
                               struct deed_error *err)
{
    struct projection **grown = malloc((set->count + 1) * sizeof(struct projection *));
    if (grown == NULL) return no_memory(err);
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
    struct projection *p = find(set, file->name);
    if (p != NULL) return change(set, p, file, err);
    deed_status status = projection_create(set, file, &p, err);
    if (status != DEED_OK) return status;
    p->folder = folder == NULL ? NULL : strdup(folder);
    status = folder != NULL && p->folder == NULL ? no_memory(err) : list_insert(set, p, err);
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
        if (folder.files == NULL) status = no_memory(err);
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

/* ---- listing --------------------------------------------------------------------------------- */

static bool copy_text(struct arena *arena, const char *text, deed_str *out)
{
    *out = arena_str(arena, deed_str_of(text));
    return out->ptr != NULL;
}

static bool copy_list(struct arena *arena, const deed_str *list, size_t count, const deed_str **out)
{
    deed_str *copy = arena_alloc_array(arena, count, sizeof *copy);
    if (copy == NULL) return false;
    for (size_t i = 0; i < count; i++) {
        copy[i] = arena_str(arena, list[i]);
        if (copy[i].ptr == NULL) return false;
    }
    *out = copy;
    return true;
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
           copy_list(arena, p->shown->types, p->shown->type_count, &out->event_types) &&
           copy_list(arena, p->shown->tables, p->shown->table_count, &out->tables);
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
    uint64_t end = store_position(set->store), ticks = now(set);
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

/* ---- asking ---------------------------------------------------------------------------------- */

static deed_status not_found(deed_str name, struct deed_error *err)
{
    return deed_fail(err, DEED_NOT_FOUND, "there is no projection %.*s", DEED_FMT(name));
}

deed_status projections_rebuild(struct projections *set, deed_str name, bool force,
                                struct deed_error *err)
{
    deed_status status = DEED_OK;
    uint64_t end = store_position(set->store);
    os_mutex_lock(&set->mutex);
    struct projection *p = find(set, name);
    if (p == NULL) {
        status = not_found(name, err);
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
    struct projection *p = find(set, name);
    if (p == NULL) {
        status = not_found(name, err);
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
        const struct projection *p = count == 0 ? set->list[i] : find(set, names[i]);
        if (p == NULL) return not_found(names[i], err);
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
    uint64_t ticks = now(set);
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
    return now(set) + (uint64_t)timeout_ms * NS_PER_MS;
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
        if (has_table(set->list[i]->newest, table)) owner = deed_str_of(set->list[i]->name);
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
    return copy_list(arena, p->shown->tables, p->shown->table_count, &out->tables);
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
    struct projection *p = find(set, name);
    if (p == NULL) {
        status = not_found(name, err);
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
    const struct projection *p = find(set, name);
    if (p == NULL) {
        status = not_found(name, err);
    } else {
        out->name = arena_str(arena, p->shown->name);
        out->file = arena_str(arena, p->newest->file);
        out->text = arena_str(arena, p->shown->text);
        memcpy(out->hash, p->shown->hash, SHA256_SIZE);
        bool ok = out->name.ptr != NULL && out->file.ptr != NULL && out->text.ptr != NULL;
        if (!ok) status = no_memory(err);
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
    if (lease == NULL) return no_memory(err);
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
