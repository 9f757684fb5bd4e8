/* fold.c - events from a cursor into a generation.
 *
 * (1) generation_checkpoint()->position <= position. They differ inside a transaction, and where
 * the log had nothing for this projection and the checkpoint waits to be written. (2) An event at
 * or below `position` is skipped: that, and (1) of generation.c, makes each event count once. (3)
 * When an event fails, its transaction is rolled back whole and folded again up to that event: a
 * savepoint an event would cost every event what only the failing one needs. (4) What the log holds
 * of no more is not passed over in silence: the rows would be wrong. It is a failure, or, where
 * somebody said so, counted beside the rows. */
#include "projection/fold.h"

#include "base/planted.h"

#include <assert.h>
#include <stdio.h>

/* A checkpoint that only skips is written this often at most. What a crash loses of it is read
 * again, from the index alone. */
#define SAVE_INTERVAL_NS UINT64_C(1000000000)

void fold_init(struct fold *f, struct store *store, struct generation *generation,
               const struct fold_options *options)
{
    *f = (struct fold){
        .store = store,
        .generation = generation,
        .options = *options,
        .position = generation_checkpoint(generation)->position,
        .failed_position = DEED_NONE,
        .saved_ticks = os_ticks_ns(store_os(store)),
    };
}

void fold_done(struct fold *f)
{
    cursor_close(f->cursor);
    f->cursor = NULL;
    if (f->generation == NULL) return;
    if (!generation_in_transaction(f->generation) && f->failed_position == DEED_NONE) {
        /* Best effort: an older checkpoint is as right as this one. */
        (void)!generation_commit(f->generation, f->position, NULL);
    }
    generation_close(f->generation);
    f->generation = NULL;
}

void fold_retry(struct fold *f)
{
    cursor_close(f->cursor);
    f->cursor = NULL;
    f->position = generation_checkpoint(f->generation)->position;
    f->failed_position = DEED_NONE;
    f->failure = (struct fold_failure){0};
}

uint64_t fold_save_wait(const struct fold *f)
{
    if (f->position == generation_checkpoint(f->generation)->position) return UINT64_MAX;
    uint64_t since = os_ticks_ns(store_os(f->store)) - f->saved_ticks;
    return since >= SAVE_INTERVAL_NS ? 0 : SAVE_INTERVAL_NS - since;
}

static enum fold_result failed(struct fold *f, deed_status status, uint64_t position,
                               deed_str statement, const char *message)
{
    f->failure = (struct fold_failure){.status = status, .position = position};
    (void)snprintf(f->failure.message, sizeof f->failure.message, "%s", message);
    (void)snprintf(f->failure.statement, sizeof f->failure.statement, "%.*s", DEED_FMT(statement));
    return FOLD_FAILED;
}

static enum fold_result log_failed(struct fold *f, const struct deed_error *err, uint64_t position)
{
    (void)failed(f, err->status, position, (deed_str){0}, err->message);
    f->failure.of_log = true;
    return FOLD_FAILED;
}

static uint64_t last_wanted(const struct fold *f)
{
    assert(f->failed_position != 0);
    uint64_t last = f->options.until;
    if (f->failed_position != DEED_NONE && f->failed_position - 1 < last) {
        last = f->failed_position - 1;
    }
    return last;
}

static deed_status open_cursor(struct fold *f, struct deed_error *err)
{
    if (f->cursor != NULL) return DEED_OK;
    const struct projection_file *file = generation_file(f->generation);
    uint64_t last = last_wanted(f);
    struct deed_read_options options = {
        .after_position = f->options.deliver_twice                      ? 0
                          : PLANTED(FOLD_LAST_AGAIN) && f->position > 0 ? f->position - 1
                                                                        : f->position,
        .follow = last == DEED_NONE,
        .until_position = last,
        .filter = {.types = file->types,
                   .type_count = file->every_type ? 0 : file->type_count,
                   .system = file->system},
        .removed = true,
    };
    return store_read(f->store, &options, &f->cursor, err);
}

/* (4): an event that is gone, and that this projection answers to. */
static deed_status pass_over(struct fold *f, const struct deed_event *event, struct deed_error *err)
{
    if (projection_file_reaction(generation_file(f->generation), event->type) == NULL ||
        PLANTED(FOLD_STUBS)) {
        return DEED_OK;
    }
    if (event->position <= f->options.without_removed) {
        return generation_pass_over(f->generation, err);
    }
    return deed_fail(err, DEED_GONE,
                     "the %.*s is removed from the log: rows can be built without it only by force",
                     DEED_FMT(event->type));
}

/* See (2). */
static deed_status deliver(struct fold *f, const struct deed_event *event, deed_str *out_statement,
                           struct deed_error *err)
{
    if (event->position <= f->position - (PLANTED(FOLD_LAST_AGAIN) && f->position > 0)) {
        return DEED_OK;
    }
    deed_status status = event->removed
                             ? pass_over(f, event, err)
                             : generation_apply(f->generation, event, out_statement, err);
    if (status != DEED_OK) return status;
    f->position = event->position;
    f->events++;
    return DEED_OK;
}

static enum fold_result after_failure(struct fold *f, deed_status status, uint64_t position,
                                      deed_str statement, const char *message)
{
    enum fold_result result = failed(f, status, position, statement, message);
    generation_rollback(f->generation);
    cursor_close(f->cursor);
    f->cursor = NULL;
    if (!PLANTED(FOLD_KEEPS_POSITION)) {
        f->position = generation_checkpoint(f->generation)->position;
    }
    if (status == DEED_STOPPED) {
        f->failure = (struct fold_failure){0};
        return FOLD_END;
    }
    /* Storage: what was before the event cannot be kept either. No event: it was the commit. */
    if (database_is_storage(status) || position == DEED_NONE) return result;
    f->failed_position = position; /* (3) */
    return f->position + 1 < position ? FOLD_MORE : result;
}

/* Events until the batch is full or there are none. DEED_END: there are none. */
static deed_status read_batch(struct fold *f, uint32_t count_max, uint64_t *out_position,
                              deed_str *out_statement, struct deed_error *err)
{
    for (uint32_t count = 0; count < count_max; count++) {
        struct deed_event event;
        *out_position = DEED_NONE;
        deed_status status = cursor_next(f->cursor, &event, err);
        if (status != DEED_OK) return status;
        *out_position = event.position;
        status = deliver(f, &event, out_statement, err);
        if (status == DEED_OK && f->options.deliver_twice) {
            status = deliver(f, &event, out_statement, err);
        }
        if (status != DEED_OK) return status;
    }
    return DEED_OK;
}

static deed_status commit(struct fold *f, struct deed_error *err)
{
    bool had_events = generation_in_transaction(f->generation);
    deed_status status = generation_commit(f->generation, f->position, err);
    if (status != DEED_OK) return status;
    f->saved_ticks = os_ticks_ns(store_os(f->store));
    f->transactions += had_events;
    return DEED_OK;
}

/* The log could not be read at this position: what came before it counts. An index that is being
 * rebuilt says DEED_BUSY. */
static enum fold_result reading_failed(struct fold *f, const struct deed_error *err)
{
    struct deed_error again;
    if (commit(f, &again) != DEED_OK) {
        return after_failure(f, again.status, DEED_NONE, (deed_str){0}, again.message);
    }
    cursor_close(f->cursor);
    f->cursor = NULL;
    return err->status == DEED_BUSY ? FOLD_BUSY : log_failed(f, err, err->position);
}

enum fold_result fold_step(struct fold *f, uint32_t count_max)
{
    struct deed_error err = {.position = DEED_NONE};
    if (f->failure.status != DEED_OK && f->failed_position == DEED_NONE) return FOLD_FAILED;
    if (f->failed_position != DEED_NONE && f->position + 1 >= f->failed_position)
        return FOLD_FAILED;
    if (f->position >= f->options.until) return FOLD_END;
    deed_status status = open_cursor(f, &err);
    if (status == DEED_STOPPED) return FOLD_END; /* the store is closing */
    if (status == DEED_BUSY) return FOLD_BUSY;
    if (status != DEED_OK) return log_failed(f, &err, DEED_NONE);

    uint64_t position = DEED_NONE;
    deed_str statement = {0};
    status = read_batch(f, count_max, &position, &statement, &err);
    bool end = status == DEED_END || (status == DEED_STOPPED && position == DEED_NONE);
    if (status != DEED_OK && !end) {
        return position == DEED_NONE ? reading_failed(f, &err)
                                     : after_failure(f, status, position, statement, err.message);
    }
    uint64_t seen =
        end && last_wanted(f) != DEED_NONE ? last_wanted(f) : cursor_position(f->cursor);
    if (PLANTED(FOLD_SAVES_END)) seen = store_position(f->store);
    if (seen > f->position) f->position = seen;
    bool save = generation_in_transaction(f->generation) || fold_save_wait(f) == 0 ||
                (end && last_wanted(f) != DEED_NONE);
    if (save) status = commit(f, &err);
    if (save && status != DEED_OK) {
        return after_failure(f, status, DEED_NONE, (deed_str){0}, err.message);
    }
    if (!end) return FOLD_MORE;
    return f->failed_position == DEED_NONE ? FOLD_END : FOLD_FAILED;
}

/* ---- another text ---------------------------------------------------------------------------- */

static bool reacts_alike(const struct projection_reaction *a, const struct projection_reaction *b)
{
    if (a == NULL || b == NULL) return a == b;
    return memcmp(a->hash, b->hash, SHA256_SIZE) == 0;
}

/* Add those of `types` on which the files differ. */
static void collect_changed(const struct projection_file *old, const struct projection_file *new,
                            const deed_str *types, size_t count, deed_str *out, size_t *out_count)
{
    for (size_t i = 0; i < count; i++) {
        const struct projection_reaction *before = projection_file_reaction(old, types[i]);
        if (reacts_alike(before, projection_file_reaction(new, types[i]))) continue;
        out[(*out_count)++] = types[i];
    }
}

static deed_status any_event_of(struct store *store, const deed_str *types, size_t count,
                                uint64_t until, bool *out_any, struct deed_error *err)
{
    struct deed_read_options options = {
        .until_position = until,
        .count_max = 1,
        .filter = {.types = types, .type_count = count, .system = true},
        .removed = true,
    };
    struct deed_cursor *cursor = NULL;
    struct deed_event event;
    deed_status status = store_read(store, &options, &cursor, err);
    if (status != DEED_OK) return status;
    status = cursor_next(cursor, &event, err);
    cursor_close(cursor);
    if (status != DEED_OK && status != DEED_END) return status;
    *out_any = status == DEED_OK;
    return DEED_OK;
}

static const struct projection_reaction *every_reaction(const struct projection_file *file)
{
    return file->every_type ? &file->reactions[file->reaction_count - 1] : NULL;
}

deed_status fold_can_carry_on(struct fold *f, const struct projection_file *new, bool *out_can,
                              struct deed_error *err)
{
    const struct projection_file *old = generation_file(f->generation);
    uint64_t until = generation_checkpoint(f->generation)->position;
    *out_can = false;
    if (memcmp(old->tables_hash, new->tables_hash, SHA256_SIZE) != 0) return DEED_OK;
    *out_can = true;
    if (until == 0) return DEED_OK; /* nothing is folded in */
    if (!reacts_alike(every_reaction(old), every_reaction(new))) {
        *out_can = false;
        return DEED_OK;
    }
    struct arena arena;
    arena_init(&arena, 16u << 20);
    size_t count = 0;
    deed_str *changed =
        arena_alloc_array(&arena, old->type_count + new->type_count, sizeof *changed);
    deed_status status = DEED_OK;
    bool any = false;
    if (changed == NULL) {
        status = deed_fail(err, DEED_NO_MEMORY, "no memory to compare projections");
    } else {
        collect_changed(old, new, old->types, old->type_count, changed, &count);
        collect_changed(old, new, new->types, new->type_count, changed, &count);
        if (count > 0) status = any_event_of(f->store, changed, count, until, &any, err);
    }
    arena_done(&arena);
    *out_can = !any || PLANTED(CARRY_ON_ANYWAY);
    return status;
}
