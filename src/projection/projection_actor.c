/* projection_actor.c - one projection at work.
 *
 *     add ──► live generation ──────────────► follows the log
 *                 │ rebuild, or a text that cannot carry on
 *                 └──► next generation, from position 0 ──► caught up: manifest, switch
 *
 * One actor folds both, in turn: a batch of the live one, then a batch of the next one. So there is
 * nothing to hand over between threads when they switch. */
#include "projection/projections_state.h"

#include "base/planted.h"
#include "os/failpoint.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

/* A disk that was full may have room again. */
#define STORAGE_RETRY_NS UINT64_C(5000000000)
#define BUSY_RETRY_NS    UINT64_C(250000000)
/* What is damaged again so soon after it was rebuilt is on a bad disk, or in bad memory: to go on making
 * it anew without a pause would only wear that out. */
#define MEND_PAUSE_NS UINT64_C(60000000000)

/* ---- generations ----------------------------------------------------------------------------- */

/* Close a side; with `dead` its files go when nobody reads them any more. */
void side_close(struct projection *p, struct side *side, bool dead)
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
deed_status side_create(struct projection *p, struct side *side, const struct projection_file *file,
                        struct deed_error *err)
{
    struct projections *set = p->set;
    uint64_t number = ++p->number_max;
    struct database_file *database = file_create(set, deed_str_of(p->name), number);
    if (database == NULL) return projection_no_memory(err);
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

deed_status side_open(struct projection *p, struct side *side, uint64_t number,
                      struct deed_error *err)
{
    struct projections *set = p->set;
    struct database_file *database = file_create(set, deed_str_of(p->name), number);
    if (database == NULL) return projection_no_memory(err);
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
    uint64_t ticks = set_now(p->set);
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
        p->mend_ticks = set_now(p->set) + STORAGE_RETRY_NS;
    } else if (passes(status) && other) {
        p->text_ticks = set_now(p->set) + STORAGE_RETRY_NS;
    }
}

void rebuild_start(struct projection *p, const struct projection_file *file,
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
    rate_start(&p->rebuild_rate, set_now(set), 0);
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
        p->retry_ticks = failure.status == DEED_CORRUPT ? 0 : set_now(p->set) + STORAGE_RETRY_NS;
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

void live_not_opened(struct projection *p, deed_status status, const char *message)
{
    struct fold_failure failure = failure_of(status, message);
    if (status == DEED_CORRUPT) {
        live_damaged(p, &failure);
        return;
    }
    p->retry_ticks = database_is_storage(status) ? set_now(p->set) + STORAGE_RETRY_NS : 0;
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
        uint64_t ticks = set_now(p->set);
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
void take_file(struct projection *p, const struct projection_file *file)
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
        p->text_ticks = set_now(p->set) + STORAGE_RETRY_NS;
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
    uint64_t ticks = set_now(p->set);
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
    uint64_t ticks = set_now(p->set);
    if (ticks < p->text_ticks) return p->text_ticks - ticks;
    p->text_ticks = ticks + STORAGE_RETRY_NS;
    struct projection_file *file = newest_copy(p);
    if (file != NULL) take_file(p, file);
    projection_file_free(file);
    p->did_work = true;
    return p->text_ticks == 0 ? ACTOR_AGAIN : STORAGE_RETRY_NS;
}

uint64_t projection_step(void *context)
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
