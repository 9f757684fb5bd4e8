/* log.c - the writer's group, publication, and reading what is published.
 *
 *   segment file:  | header | commit commit pad | commit pad | commit commit commit pad | zeros...
 *                  0        4096                ^            ^ each group begins at a sector boundary
 *
 * (1) A group begins at a multiple of 4096 and is padded to one: a sector that holds acknowledged
 *     bytes is never written again.
 * (2) A group is written only over space that was written before (zeros), so that a full disk is
 *     found before any of its bytes are on the disk.
 * (3) `end` and the active segment's `refs` change only in log_publish, after the sync: readers never
 *     see what a power cut could take back.
 * (4) After a failed write or sync nothing is written any more. A sync is never tried again. A full
 *     disk that was found before anything was overwritten is no failure.
 * (5) Once a next segment was begun, nothing more goes into the one before, also when it could not
 *     be made (a full disk): its name may come back after a power cut, with a header that must
 *     still continue the chain.
 * (6) The keeper syncs the file that the committer syncs, and the kernel tells a failure to one of
 *     them alone. So the committer waits for the keeper's sync when its own is done, and answers
 *     only if that did not fail either. (A disk that went away under load lost an acknowledged
 *     group in one of thirty cases before.)
 *
 * Normative: docs/format/log.md */
#include "log/log_state.h"

#include "base/planted.h"
#include "base/uuid.h"
#include "os/failpoint.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

/* Zeros are written in steps of this size: small enough that the committer, which needs the file's
 * lock for its own write, waits a fraction of a sync at most. */
#define FILL_STEP_SIZE  (UINT64_C(1) << 20)
#define FILL_AHEAD_MAX  (UINT64_C(8) << 20)
#define FILL_AHEAD_MIN  (UINT64_C(256) << 10)
#define FILL_PAUSE_NS   UINT64_C(1000000)
#define MARK_DELAY_NS   UINT64_C(50000000)
/* A larger group only makes its first member wait longer: past some MiB the device's rate is
 * reached. A single larger commit still makes a group of its own. */
#define GROUP_SIZE_MAX  (UINT64_C(4) << 20)

static const uint8_t zero_step[FILL_STEP_SIZE];

void log_stop(struct log *log, const char *format, ...)
{
    os_mutex_lock(&log->stopped_lock);
    if (!atomic_load(&log->stopped)) {
        va_list arguments;
        va_start(arguments, format);
        (void)vsnprintf(log->stopped_because, sizeof log->stopped_because, format, arguments);
        va_end(arguments);
        atomic_store(&log->stopped, true);
    }
    os_mutex_unlock(&log->stopped_lock);
}

/* The text is written once, before the flag. */
const char *log_stopped(const struct log *log)
{
    return atomic_load(&log->stopped) ? log->stopped_because : NULL;
}

deed_status log_ref_add(struct log_segment *segment, const struct commit_ref *ref,
                        struct deed_error *err)
{
    if (chunks_add(&segment->refs, ref)) return DEED_OK;
    return deed_fail(err, DEED_NO_MEMORY, "log: no memory for the place of position %llu",
                     (unsigned long long)ref->first_position);
}

/* ---- opening and closing -------------------------------------------------------------------- */

static deed_status write_first_event(struct log *log, const struct log_visitor *visitor,
                                     struct deed_error *err)
{
    char id[UUID_TEXT_SIZE + 1];
    uint8_t leaf[1][SHA256_SIZE], salt[EVENT_SALT_SIZE], id_bits[16];
    char data[160];
    uuid_format(log->id, id);
    int size = snprintf(data, sizeof data, "{\"log_id\":\"%s\",\"epoch\":%llu,\"format\":1}", id,
                        (unsigned long long)log->epoch);
    struct deed_new_event event = {
        .stream = DEED_STR(LOG_STREAM),
        .type = DEED_STR(LOG_CREATED_TYPE),
        .data = {(const uint8_t *)data, (size_t)size},
    };
    os_random(log->os, salt, sizeof salt);
    os_random(log->os, id_bits, sizeof id_bits);
    struct log_reader *reader = log_reader_create(log);
    if (reader == NULL) return deed_fail(err, DEED_NO_MEMORY, "log: out of memory");
    deed_status status = log_reserve(log, COMMIT_HEAD_SIZE + event_size(&event, (deed_str){0}), err);
    if (status == DEED_OK) {
        int64_t now = log_next_recorded_at(log);
        struct event_place place = {.position = 1, .time_ns = now, .id = uuid_v4(id_bits)};
        event_encode(log_commit_begin(log), &event, &place, salt, leaf[0]);
        status = log_commit_end(log, 1, now, (const uint8_t(*)[SHA256_SIZE])leaf, err);
    }
    if (status == DEED_OK) status = log_write(log, err);
    if (status == DEED_OK) {
        log_publish(log);
        struct commit_ref ref = log_segment_ref(log->active_segment, 0);
        struct commit commit;
        status = log_reader_load(reader, 1, &commit, NULL, err);
        if (status == DEED_OK) status = visitor->commit(visitor->context, &commit, &ref, err);
    }
    log_reader_destroy(reader);
    return status;
}

deed_status log_open(struct os *os, struct os_dir *dir, const struct log_options *options,
                     const struct log_visitor *visitor, struct log **out_log,
                     struct deed_error *err)
{
    struct log *log = calloc(1, sizeof *log);
    if (log == NULL) return deed_fail(err, DEED_NO_MEMORY, "log: out of memory");
    log->os = os;
    log->options = *options;
    buf_init(&log->group, UINT32_MAX);
    os_mutex_init(&log->grow);
    os_mutex_init(&log->view_lock);
    os_mutex_init(&log->fill_sync);
    os_mutex_init(&log->mark_lock);
    os_mutex_init(&log->stopped_lock);

    log->files = options->files;
    if (log->files == NULL) {
        log->files = file_cache_create(0);
        log->own_files = true;
    }
    deed_status status = DEED_OK;
    if (log->files == NULL) status = deed_fail(err, DEED_NO_MEMORY, "log: out of memory");
    if (status == DEED_OK) status = sealing_create(log, err);
    if (status == DEED_OK) {
        status = os_dir_open_in(dir, LOG_DIR_NAME, !options->read_only, &log->dir, err);
    }
    if (status == DEED_OK) status = log_recover(log, visitor, err);
    if (status == DEED_OK && !options->read_only) {
        status = mark_open(log->dir, &log->mark_file, err);
        if (status == DEED_OK && log->head_position == 0 && log_stopped(log) == NULL) {
            status = write_first_event(log, visitor, err);
            /* To who opens, a log that stopped or is in doubt did not open. */
            if (status == DEED_STOPPED || status == DEED_UNKNOWN) {
                status = DEED_IO;
                if (err != NULL) err->status = status;
            }
        }
    }
    if (status == DEED_OK && options->read_only) log_stop(log, "opened read-only");
    if (status != DEED_OK) {
        log_close(log);
        return status;
    }
    *out_log = log;
    return DEED_OK;
}

static deed_status mark_now(struct log *log, struct deed_error *err)
{
    os_mutex_lock(&log->mark_lock);
    struct mark mark = log->durable;
    bool due = mark.position > log->marked_position;
    mark.sequence = log->mark_sequence + 1;
    os_mutex_unlock(&log->mark_lock);
    if (!due || log->mark_file == NULL) return DEED_OK;

    deed_status status = mark_write(log->mark_file, &mark, err);
    if (status != DEED_OK) return status;
    os_mutex_lock(&log->mark_lock);
    log->marked_position = mark.position;
    log->mark_sequence = mark.sequence;
    log->marked_ticks = os_ticks_ns(log->os);
    os_mutex_unlock(&log->mark_lock);
    return DEED_OK;
}

/* What is published is on the device: the mark may claim it. */
static void note_durable(struct log *log)
{
    os_mutex_lock(&log->mark_lock);
    log->durable.log_id = log->id;
    log->durable.epoch = log->epoch;
    memcpy(log->durable.secret, log->secret, COMMIT_SECRET_SIZE);
    log->durable.segment = log->active_number;
    log->durable.offset = log->head_offset;
    log->durable.position = log->head_position + PLANTED(MARK_TOO_MUCH);
    memcpy(log->durable.hash, log->head_hash, SHA256_SIZE);
    os_mutex_unlock(&log->mark_lock);
}

/* Where groups are not synced, segments are before the next one begins, and at the end. */
static deed_status sync_late(struct log *log, struct deed_error *err)
{
    if (!log->options.no_sync || log->active == NULL) return DEED_OK;
    deed_status status = os_file_sync(log->active, err);
    if (status == DEED_OK) note_durable(log);
    return status;
}

/* Handles of a cache that outlives the log: its directory is closed, another may get its address. */
static void forget_files(struct log *log)
{
    for (size_t i = 0; i < log->view->count; i++)
        file_cache_forget(log->files, log->dir, log->view->segments[i]->name);
}

void log_close(struct log *log)
{
    if (log == NULL) return;
    /* Without the mark the log is whole too: it only claims less. */
    if (log_stopped(log) == NULL && sync_late(log, NULL) == DEED_OK) (void)!mark_now(log, NULL);
    sealing_destroy(log);
    log_segment_drop(log->active_segment);
    if (log->own_files) {
        file_cache_destroy(log->files);
    } else if (log->view != NULL) {
        forget_files(log);
    }
    log_view_drop(log->view);
    os_file_close(log->active);
    os_file_close(log->fill_stale);
    os_file_close(log->mark_file);
    os_dir_close(log->dir);
    buf_done(&log->group);
    os_mutex_done(&log->fill_sync);
    os_mutex_done(&log->grow);
    os_mutex_done(&log->view_lock);
    os_mutex_done(&log->mark_lock);
    os_mutex_done(&log->stopped_lock);
    free(log->pending);
    free(log);
}

deed_uuid log_id(const struct log *log)
{
    return log->id;
}

uint64_t log_epoch(const struct log *log)
{
    return log->epoch;
}

uint64_t log_end(const struct log *log)
{
    return atomic_load_explicit(&log->end, memory_order_acquire);
}

void log_get_head(struct log *log, struct log_head *out_head)
{
    os_mutex_lock(&log->mark_lock);
    *out_head = (struct log_head){.position = log->head_position,
                                  .recorded_at_ns = log->head_recorded_at_ns,
                                  .segment = log->head_segment,
                                  .offset = log->head_offset};
    memcpy(out_head->hash, log->head_hash, SHA256_SIZE);
    os_mutex_unlock(&log->mark_lock);
}

void log_mark_of(const struct log *log, const struct log_head *head, struct mark *out_mark)
{
    *out_mark = (struct mark){.log_id = log->id,
                              .epoch = log->epoch,
                              .sequence = 1,
                              .segment = head->segment,
                              .offset = head->offset,
                              .position = head->position};
    memcpy(out_mark->hash, head->hash, SHA256_SIZE);
    memcpy(out_mark->secret, log->secret, COMMIT_SECRET_SIZE);
}

void log_chain_hash(struct log *log, uint8_t out[SHA256_SIZE])
{
    os_mutex_lock(&log->mark_lock);
    memcpy(out, log->head_hash, SHA256_SIZE);
    os_mutex_unlock(&log->mark_lock);
}

uint64_t log_segment_count(struct log *log)
{
    struct log_view *view = log_view_take(log);
    uint64_t count = view->count;
    log_view_drop(view);
    return count;
}

uint32_t log_active(const struct log *log)
{
    return log->active_number;
}

/* Sizes that change no more are asked for once. */
static uint64_t segment_size_of(struct log *log, struct log_segment *segment, bool last)
{
    uint64_t size = atomic_load(&segment->size);
    struct os_file *file = NULL;
    if (size > 0 || log_segment_pin(log, segment, &file, NULL) != DEED_OK) return size;
    if (os_file_size(file, &size, NULL) == DEED_OK && !last) atomic_store(&segment->size, size);
    file_cache_unpin(log->files, file);
    return size;
}

uint64_t log_size(struct log *log)
{
    uint64_t total = 0;
    struct log_view *view = log_view_take(log);
    for (size_t i = 0; i < view->count; i++) {
        total += segment_size_of(log, view->segments[i], i + 1 == view->count);
    }
    log_view_drop(view);
    return total;
}

/* ---- the group ------------------------------------------------------------------------------ */

static deed_status refuse_if_stopped(const struct log *log, struct deed_error *err)
{
    const char *because = log_stopped(log);
    if (because == NULL) return DEED_OK;
    return deed_fail(err, DEED_STOPPED, "the log takes no more appends: %s", because);
}

/* The writer goes on in another file. What the keeper has in its hands it closes itself. */
static void active_set(struct log *log, struct os_file *file, struct log_segment *segment)
{
    struct os_file *old = log->active;
    uint64_t old_end = log->group_offset;
    os_mutex_lock(&log->grow);
    log->active = file;
    log->active_number = segment->number;
    log->group_offset = SEGMENT_HEADER_SIZE;
    atomic_store(&log->writer_offset, log->group_offset);
    log->fill_file = file;
    log->filled = log->claimed = SEGMENT_HEADER_SIZE;
    log->fill_stopped = false;
    os_mutex_unlock(&log->grow);
    log_segment_drop(log->active_segment);
    log->active_segment = log_segment_hold(segment);
    if (old == NULL) return;

    /* Give back the zeros behind the old segment's end; that they stay would do no harm. */
    (void)!os_file_truncate(old, old_end - (PLANTED(ROLL_CUTS_TOO_MUCH) ? SECTOR_SIZE : 0), NULL);
    os_mutex_lock(&log->grow);
    if (log->fill_held == old) {
        log->fill_stale = old;
        old = NULL;
    }
    os_mutex_unlock(&log->grow);
    os_file_close(old);
}

static deed_status segment_start(struct log *log, uint32_t number, struct deed_error *err)
{
    deed_status status = sync_late(log, err);
    if (status != DEED_OK) return status;
    struct os_file *file = NULL;
    struct log_segment *segment = log_segment_make(number, 0, log->next_position);
    if (segment == NULL) return deed_fail(err, DEED_NO_MEMORY, "segment %u: out of memory", number);
    segment->header_good = true;
    segment->header = (struct segment_header){
        .log_id = log->id,
        .epoch = log->epoch,
        .number = number,
        .first_position = log->next_position + PLANTED(SEAM_OFF_BY_ONE),
        .created_at_ns = os_now_ns(log->os),
    };
    memcpy(segment->header.secret, log->secret, COMMIT_SECRET_SIZE);
    if (!PLANTED(SEAM_WITHOUT_CHAIN)) memcpy(segment->header.previous, log->hash, SHA256_SIZE);
    if (log->roll_due) segment_remove(log->dir, number);
    log->roll_due = true;
    status = segment_create(log->dir, &segment->header, &file, err);
    if (status == DEED_OK) status = log_view_append(log, segment, err);
    if (status != DEED_OK) {
        os_file_close(file);
        log_segment_drop(segment);
        return status;
    }
    log->roll_due = false;
    active_set(log, file, segment);
    atomic_store(&log->closed_one, true);
    return DEED_OK;
}

static deed_status segment_next(struct log *log, struct deed_error *err)
{
    uint32_t number = log->active_number + 1;
    struct deed_error why = {0};
    assert(log->group.len == 0);
    if (log->options.before_segment != NULL) log->options.before_segment(log->options.context);
    deed_status status = segment_start(log, number, &why);
    if (status == DEED_IO) {
        log_stop(log, "segment %u cannot be made: %.400s", number, why.message); /* (4) */
        return refuse_if_stopped(log, err);
    }
    if (status != DEED_OK && err != NULL) *err = why;
    return status;
}

deed_status log_reserve(struct log *log, uint64_t size, struct deed_error *err)
{
    deed_status status = refuse_if_stopped(log, err);
    if (status != DEED_OK) return status;
    if (size > UINT32_MAX - SECTOR_SIZE) {
        return deed_fail(err, DEED_TOO_LARGE, "commit: %llu bytes, the format's limit is 4 GiB",
                         (unsigned long long)size);
    }
    uint64_t need = align_up(log->group.len + size, SECTOR_SIZE);
    if (log->group.len > 0 && need > GROUP_SIZE_MAX) return DEED_BUSY;

    if (log->active == NULL || (log->roll_due && !PLANTED(ROLL_INTO_OLD))) {
        return segment_next(log, err); /* (5) */
    }
    bool empty = log->group_offset == SEGMENT_HEADER_SIZE;
    if (empty || log->group_offset + need <= log->options.segment_size) return DEED_OK;
    if (log->group.len > 0) return DEED_BUSY;
    return segment_next(log, err);
}

deed_status log_roll(struct log *log, struct deed_error *err)
{
    deed_status status = refuse_if_stopped(log, err);
    if (status != DEED_OK) return status;
    if (log->group.len > 0) return DEED_BUSY;
    bool empty = log->active == NULL || log->group_offset == SEGMENT_HEADER_SIZE;
    return empty ? DEED_OK : segment_next(log, err);
}

bool log_has_room(const struct log *log, uint64_t size)
{
    uint64_t need = align_up(log->group.len + size, SECTOR_SIZE);
    return size < GROUP_SIZE_MAX && need <= GROUP_SIZE_MAX && log->active != NULL &&
           !log->roll_due && log->group_offset + need <= log->options.segment_size;
}

uint64_t log_next_position(const struct log *log)
{
    return log->next_position;
}

int64_t log_next_recorded_at(struct log *log)
{
    int64_t now = os_now_ns(log->os);
    return now > log->recorded_at_ns ? now : log->recorded_at_ns;
}

struct buf *log_commit_begin(struct log *log)
{
    assert(!log->written);
    log->commit_start = commit_begin(&log->group);
    return &log->group;
}

void log_commit_cancel(struct log *log)
{
    log->group.len = log->commit_start;
    log->group.failed = false;
}

/* With the room to publish it: what is stored must not fail to be shown. */
static bool pending_add(struct log *log, const struct commit_ref *ref)
{
    if (!chunks_reserve(&log->active_segment->refs, log->pending_count + 1)) return false;
    if (log->pending_count == log->pending_room) {
        size_t room = log->pending_room == 0 ? 64 : log->pending_room * 2;
        struct commit_ref *grown = realloc(log->pending, room * sizeof *grown);
        if (grown == NULL) return false;
        log->pending = grown;
        log->pending_room = room;
    }
    log->pending[log->pending_count++] = *ref;
    return true;
}

deed_status log_commit_end(struct log *log, uint32_t event_count, int64_t recorded_at_ns,
                           const uint8_t (*leaves)[SHA256_SIZE], struct deed_error *err)
{
    assert(event_count > 0);
    assert(recorded_at_ns >= log->recorded_at_ns);
    struct commit commit = {
        .event_count = event_count,
        .first_position = log->next_position,
        .recorded_at_ns = recorded_at_ns,
        .durable_before =
            PLANTED(DURABLE_BEFORE_TOO_HIGH) ? log->next_position - 1 : log->durable.position,
    };
    memcpy(commit.previous, log->hash, SHA256_SIZE);
    struct commit_seed seed =
        log_seed(log, log->active_number, log->group_offset + log->commit_start);
    commit_finish(&log->group, log->commit_start, &seed, leaves, &commit);

    struct commit_ref ref = {.first_position = commit.first_position,
                             .recorded_at_ns = recorded_at_ns,
                             .offset = seed.offset,
                             .segment = log->active_number,
                             .size = commit.size,
                             .event_count = event_count};
    if (!buf_ok(&log->group) || !pending_add(log, &ref)) {
        log_commit_cancel(log);
        return deed_fail(err, DEED_NO_MEMORY, "log: no memory for a commit of %u events",
                         event_count);
    }
    memcpy(log->hash, commit.hash, SHA256_SIZE);
    log->next_position += event_count;
    log->recorded_at_ns = recorded_at_ns;
    return DEED_OK;
}

/* Write zeros up to `end` (2). The caller holds `grow`. */
static deed_status grow_to(struct log *log, uint64_t end, struct deed_error *err)
{
    while (log->filled < end) {
        uint64_t step = end - log->filled < FILL_STEP_SIZE ? end - log->filled : FILL_STEP_SIZE;
        deed_status status = os_file_write(log->fill_file, log->filled,
                                           (deed_bytes){zero_step, (size_t)step}, err);
        if (status != DEED_OK) return status;
        log->filled += step;
    }
    return DEED_OK;
}

/* (6) */
static deed_status group_sync(struct log *log, struct deed_error *err)
{
    deed_status status = os_file_sync(log->active, err);
    if (status != DEED_OK) return status;
    os_mutex_lock(&log->fill_sync);
    os_mutex_unlock(&log->fill_sync);
    const char *because = log_stopped(log);
    return because == NULL ? DEED_OK : deed_fail(err, DEED_IO, "%s", because);
}

deed_status log_write(struct log *log, struct deed_error *err)
{
    assert(log->pending_count > 0 && !log->written);
    deed_status status = refuse_if_stopped(log, err);
    if (status != DEED_OK) return status;

    uint64_t padded = align_up(log->group.len, PLANTED(UNALIGNED_GROUPS) ? 8 : SECTOR_SIZE);
    buf_add_zeros(&log->group, (size_t)padded - log->group.len);
    if (!buf_ok(&log->group)) return deed_fail(err, DEED_NO_MEMORY, "log: no memory for a group");

    os_mutex_lock(&log->grow);
    log->claimed = log->group_offset + padded;
    status = grow_to(log, log->group_offset + padded, err);
    os_mutex_unlock(&log->grow);
    if (status == DEED_FULL) {
        deed_wrap(err, "nothing was stored");
        return status;
    }
    if (status == DEED_OK) {
        status = os_file_write(log->active, log->group_offset, buf_bytes(&log->group), err);
    }
    if (PLANTED(MARK_BEFORE_SYNC)) {
        log->durable.position = log->next_position - 1;
        (void)!mark_now(log, NULL);
    }
    bool sync = !log->options.no_sync && !PLANTED(SKIP_SYNC) && !PLANTED(PUBLISH_BEFORE_SYNC);
    if (status == DEED_OK && sync) status = group_sync(log, err);
    if (status != DEED_OK && PLANTED(SYNC_AGAIN)) status = os_file_sync(log->active, err);
    if (status != DEED_OK) {
        struct deed_error cause = {0};
        if (err != NULL) cause = *err;
        log_stop(log, "a write failed: %.400s", cause.message);
        return deed_fail(err, PLANTED(UNKNOWN_AS_REFUSED) ? DEED_STOPPED : DEED_UNKNOWN,
                         "the outcome is unknown: %.400s", cause.message);
    }
    log->written = true;
    return DEED_OK;
}

size_t log_group_commits(const struct log *log)
{
    return log->pending_count;
}

deed_status log_group_commit(struct log *log, size_t i, struct commit *out_commit,
                             struct deed_error *err)
{
    const struct commit_ref *ref = &log->pending[i];
    deed_bytes bytes = {log->group.ptr + (ref->offset - log->group_offset), ref->size};
    struct commit_seed seed = log_seed(log, ref->segment, ref->offset);
    if (commit_decode(bytes, &seed, out_commit)) return DEED_OK;
    return deed_fail(err, DEED_CORRUPT, "the group in memory is damaged at position %llu",
                     (unsigned long long)ref->first_position);
}

static void group_reset(struct log *log)
{
    buf_reset(&log->group);
    log->pending_count = 0;
    log->written = false;
}

void log_publish(struct log *log)
{
    assert(log->written);
    for (size_t i = 0; i < log->pending_count; i++) {
        bool added = chunks_add(&log->active_segment->refs, &log->pending[i]);
        assert(added); /* there is room since pending_add */
        (void)added;
    }
    const struct commit_ref *last = &log->pending[log->pending_count - 1];
    log->group_offset += log->group.len;
    atomic_store(&log->writer_offset, log->group_offset);

    os_mutex_lock(&log->mark_lock);
    log->head_position = log->next_position - 1;
    log->head_recorded_at_ns = log->recorded_at_ns;
    log->head_segment = last->segment;
    log->head_offset = last->offset + last->size;
    memcpy(log->head_hash, log->hash, SHA256_SIZE);
    os_mutex_unlock(&log->mark_lock);
    if (!log->options.no_sync) note_durable(log);

    group_reset(log);
    assert(log->head_position > atomic_load(&log->end));
    FAILPOINT("publish-before");
    atomic_store_explicit(&log->end, log->head_position, memory_order_release);
    FAILPOINT("publish-after");
    if (PLANTED(PUBLISH_BEFORE_SYNC)) (void)!os_file_sync(log->active, NULL);
}

void log_forget(struct log *log)
{
    assert(!log->written);
    group_reset(log);
    log->next_position = log->head_position + 1;
    log->recorded_at_ns = log->head_recorded_at_ns;
    if (!PLANTED(FORGET_KEEPS_HASH)) memcpy(log->hash, log->head_hash, SHA256_SIZE);
}

/* The commit in the group that holds `position`; NULL: it is not in the group. */
static const struct commit_ref *pending_find(const struct log *log, uint64_t position)
{
    size_t low = 0;
    size_t high = log->pending_count;
    if (high == 0 || position < log->pending[0].first_position) return NULL;
    if (position >= log->next_position) return NULL;
    while (high - low > 1) {
        size_t middle = low + (high - low) / 2;
        if (log->pending[middle].first_position <= position) {
            low = middle;
        } else {
            high = middle;
        }
    }
    return &log->pending[low];
}

/* An event of the group: our own memory, so there is no checksum to be checked. */
static deed_status group_event(struct log *log, const struct commit_ref *ref, uint64_t position,
                               struct arena *arena, struct deed_event *out_event,
                               struct deed_error *err)
{
    const uint8_t *bytes = log->group.ptr + (ref->offset - log->group_offset);
    struct reader r = reader_over(
        (deed_bytes){bytes + COMMIT_HEAD_SIZE, ref->size - (size_t)COMMIT_HEAD_SIZE});
    for (uint64_t at = ref->first_position; at < position; at++) (void)event_skip(&r);
    if (!event_decode(&r, arena, out_event, NULL)) {
        return deed_fail(err, DEED_NO_MEMORY, "log: no memory for an event");
    }
    assert(out_event->position == position);
    out_event->recorded_at_ns = ref->recorded_at_ns;
    return DEED_OK;
}

deed_status log_event(struct log *log, struct log_reader *reader, uint64_t position,
                      struct arena *arena, struct deed_event *out_event,
                      struct commit *out_commit, struct deed_error *err)
{
    /* The group is the writer's alone: who asks for what is published never looks at it. */
    const struct commit_ref *pending =
        position <= log_end(log) ? NULL : pending_find(log, position);
    deed_status status = pending != NULL
                             ? group_event(log, pending, position, arena, out_event, err)
                             : log_reader_event(reader, position, arena, out_event, err);
    if (status != DEED_OK || out_commit == NULL) return status;
    if (pending != NULL) return log_group_commit(log, (size_t)(pending - log->pending), out_commit, err);
    return log_reader_load(reader, position, out_commit, NULL, err);
}

/* ---- the keeper ----------------------------------------------------------------------------- */

/* The disk is full: what the advance took is given back to the others, read models among them. The
 * caller holds `grow`. */
static void fill_give_back(struct log *log)
{
    uint64_t keep = atomic_load(&log->writer_offset);
    if (keep < log->claimed) keep = log->claimed;
    /* A group may have claimed what there was no room for. To cut the file there would make it
     * longer, by a hole that counts as written: the next group would find the full disk too late. */
    if (keep > log->filled) keep = log->filled;
    log->fill_stopped = true;
    if (os_file_truncate(log->fill_file, keep, NULL) == DEED_OK) log->filled = keep;
}

/* One step of zeros, then their sync, so that the committer's sync finds them on the disk. */
static uint64_t fill_step(struct log *log)
{
    uint64_t offset = atomic_load(&log->writer_offset);
    uint64_t ahead = offset / 2;
    if (ahead < FILL_AHEAD_MIN) ahead = FILL_AHEAD_MIN;
    if (ahead > FILL_AHEAD_MAX) ahead = FILL_AHEAD_MAX;

    os_mutex_lock(&log->grow);
    struct os_file *file = log->fill_file;
    uint64_t target = offset + ahead;
    if (target > log->options.segment_size) target = log->options.segment_size;
    if (PLANTED(FILL_TOO_LOW) && offset > SEGMENT_HEADER_SIZE) log->filled = offset - SECTOR_SIZE;
    bool due = file != NULL && !log->fill_stopped && log->filled < target;
    if (due) {
        uint64_t left = target - log->filled;
        deed_status status =
            grow_to(log, log->filled + (left < FILL_STEP_SIZE ? left : FILL_STEP_SIZE), NULL);
        /* A full disk is the committer's to report; here it only ends the advance. */
        if (status != DEED_OK) fill_give_back(log);
    }
    bool more = due && !log->fill_stopped && log->filled < target;
    bool hurry = log->filled < offset + ahead / 2;
    log->fill_held = due ? file : NULL;
    os_mutex_unlock(&log->grow);

    if (due) {
        struct deed_error err;
        os_mutex_lock(&log->fill_sync); /* (6) */
        if (os_file_sync(file, &err) != DEED_OK) log_stop(log, "a sync failed: %.400s", err.message);
        os_mutex_unlock(&log->fill_sync);
        os_mutex_lock(&log->grow);
        struct os_file *stale = log->fill_stale;
        log->fill_stale = NULL;
        log->fill_held = NULL;
        os_mutex_unlock(&log->grow);
        os_file_close(stale);
    }
    if (!more) return ACTOR_WAIT;
    return hurry ? ACTOR_AGAIN : FILL_PAUSE_NS;
}

static uint64_t mark_step(struct log *log)
{
    os_mutex_lock(&log->mark_lock);
    bool due = log->durable.position > log->marked_position;
    uint64_t since = os_ticks_ns(log->os) - log->marked_ticks;
    os_mutex_unlock(&log->mark_lock);
    if (!due) return ACTOR_WAIT;
    if (since < MARK_DELAY_NS) return MARK_DELAY_NS - since;

    struct deed_error err;
    deed_status status = mark_now(log, &err);
    /* On a full disk the mark lags, until there is room again. */
    if (status != DEED_OK && status != DEED_FULL) {
        log_stop(log, "the mark failed: %.400s", err.message);
    }
    return MARK_DELAY_NS;
}

uint64_t log_keep(struct log *log)
{
    atomic_store(&log->keeper_idle, false);
    if (log_stopped(log) != NULL) return ACTOR_WAIT;
    uint64_t fill = fill_step(log);
    uint64_t mark = mark_step(log);
    uint64_t wait = fill < mark ? fill : mark;
    if (wait == ACTOR_WAIT) {
        atomic_store(&log->keeper_idle, true);
        /* What was published between the look and the flag would be overlooked. */
        if (mark_step(log) != ACTOR_WAIT) return MARK_DELAY_NS;
    }
    return wait;
}

bool log_keeper_due(struct log *log)
{
    return atomic_exchange(&log->keeper_idle, false);
}
