/* seal.c - sealing and rewriting: a segment's commits go to a file of the next generation.
 *
 *   read ─► check ─► (decide, reduce) ─► write, sync ─► ... ─► finish ─► read back ─► name ─► show ─► remove
 *           `------------- a step, some 256 KiB ------------'
 *
 * (1) Everything is checked on the way: checksum, chain, and that the events can be decoded. What is
 *     damaged is left as it is. Own hashes are recomputed when a segment is rewritten, since that
 *     makes commits anew, but not when it is sealed (docs/decisions/0028).
 * (2) The old file is removed when the new one is on the device, has its name durably, and the view
 *     with it is shown. While the old one is there, opening takes that. A rewrite has succeeded when
 *     the old one's removal is durable too: what was erased does not come back.
 * (3) A failure leaves the segment as it was. It is told, and tried again after a pause.
 * (4) Nothing is written once the log has stopped. */
#include "log/log_state.h"

#include "base/planted.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#define PAUSE_NS   UINT64_C(1000000)    /* between steps, while nobody waits */
#define RETRY_NS   UINT64_C(2000000000) /* after a failure: a full disk may have room by then */
/* With more closed segments than this, steps follow each other without a pause and are larger: syncs
 * would be most of the sealer's time, and the committer waits for all of it. */
#define HURRY_OVER      1
#define HURRY_STEP_SIZE (UINT64_C(1) << 20)

enum phase { PHASE_COPY, PHASE_CHECK, PHASE_SHOW };

struct repack {
    struct log *log;
    struct log_segment *segment; /* held */
    const struct log_rewrite *how; /* NULL: sealing */
    struct log_reader *reader;
    struct sealed_writer writer;
    struct arena arena;
    struct buf rebuilt;
    enum phase phase;
    uint64_t next, last; /* positions */
    uint8_t previous[SHA256_SIZE];
};

struct sealing {
    struct os_mutex rewrite_lock; /* held by who rewrites */
    struct repack *now;           /* the sealer's own */
    uint64_t retry_ticks;         /* the sealer's own: when `failing` began */

    struct os_mutex lock; /* of what follows */
    bool failing;
    uint64_t rounds, failures;
    char why[DEED_MESSAGE_SIZE];
};

deed_status sealing_create(struct log *log, struct deed_error *err)
{
    log->sealing = calloc(1, sizeof *log->sealing);
    if (log->sealing == NULL) return deed_fail(err, DEED_NO_MEMORY, "log: out of memory");
    os_mutex_init(&log->sealing->rewrite_lock);
    os_mutex_init(&log->sealing->lock);
    return DEED_OK;
}

/* ---- one segment ---------------------------------------------------------------------------- */

static void repack_destroy(struct repack *p)
{
    if (p == NULL) return;
    sealed_writer_done(&p->writer);
    log_reader_destroy(p->reader);
    log_segment_drop(p->segment);
    arena_done(&p->arena);
    buf_done(&p->rebuilt);
    free(p);
}

void sealing_destroy(struct log *log)
{
    if (log->sealing == NULL) return;
    repack_destroy(log->sealing->now);
    os_mutex_done(&log->sealing->rewrite_lock);
    os_mutex_done(&log->sealing->lock);
    free(log->sealing);
}

/* The header that the file will have. */
static deed_status header_of(struct log *log, struct log_segment *segment,
                             struct segment_header *out, struct deed_error *err)
{
    struct os_file *file = NULL;
    const struct sealed_footer *footer = NULL;
    if (segment->generation == 0) {
        *out = segment->header;
    } else {
        deed_status status = log_segment_pin(log, segment, &file, err);
        if (status == DEED_OK) status = log_segment_footer(log, segment, file, &footer, err);
        file_cache_unpin(log->files, file);
        if (status != DEED_OK) return status;
        *out = (struct segment_header){.log_id = log->id,
                                       .epoch = footer->epoch,
                                       .number = segment->number,
                                       .first_position = segment->first_position,
                                       .created_at_ns = os_now_ns(log->os)};
        memcpy(out->previous, footer->previous, SHA256_SIZE);
        memcpy(out->secret, log->secret, COMMIT_SECRET_SIZE);
    }
    out->sealed = true;
    out->generation = segment->generation + 1;
    return DEED_OK;
}

static deed_status repack_create(struct log *log, struct log_segment *segment, uint64_t last,
                                 const struct log_rewrite *how, struct repack **out,
                                 struct deed_error *err)
{
    struct segment_header header;
    struct repack *p = calloc(1, sizeof *p);
    if (p == NULL) return deed_fail(err, DEED_NO_MEMORY, "seal: out of memory");
    p->log = log;
    p->how = how;
    p->segment = log_segment_hold(segment);
    p->next = segment->first_position;
    p->last = last;
    arena_init(&p->arena, SIZE_MAX);
    buf_init(&p->rebuilt, UINT32_MAX);
    p->reader = log_reader_create(log);
    deed_status status = DEED_OK;
    if (p->reader == NULL) status = deed_fail(err, DEED_NO_MEMORY, "seal: out of memory");
    if (status == DEED_OK) status = header_of(log, segment, &header, err);
    if (status == DEED_OK) {
        log_reader_expect(p->reader, SEALED_STEP_SIZE);
        memcpy(p->previous, header.previous, SHA256_SIZE);
        status = sealed_writer_begin(&p->writer, log->dir, &header,
                                     how == NULL ? 0 : how->compress_level, err);
    }
    if (status != DEED_OK) {
        repack_destroy(p);
        return status;
    }
    *out = p;
    return DEED_OK;
}

static deed_status malformed(const struct repack *p, const struct commit *commit,
                             struct deed_error *err)
{
    if (p->arena.failed) return deed_fail(err, DEED_NO_MEMORY, "seal: out of memory");
    deed_status status = deed_fail(err, DEED_CORRUPT,
                                   "segment %u: the commit of position %llu does not belong there",
                                   p->segment->number, (unsigned long long)commit->first_position);
    if (err != NULL) err->position = commit->first_position;
    return status;
}

/* Count what the footer tells of removed events. */
static void note_event(struct sealed_footer *footer, const struct deed_event *event)
{
    bool users = event->stream.len > 0 && event->stream.ptr[0] != '$';
    if (event->removed) {
        footer->removed_count++;
        if (users && footer->first_removed == DEED_NONE) footer->first_removed = event->position;
    } else if (users && footer->first_kept == DEED_NONE) {
        footer->first_kept = event->position;
    }
}

static deed_status note_events(struct repack *p, const struct commit *commit,
                               struct deed_error *err)
{
    struct reader r = reader_over(commit->events);
    for (uint32_t i = 0; i < commit->event_count; i++) {
        struct deed_event event;
        if (!event_decode(&r, &p->arena, &event, NULL) ||
            event.position != commit->first_position + i) {
            return malformed(p, commit, err);
        }
        note_event(&p->writer.footer, &event);
    }
    return DEED_OK;
}

/* What is to become of the events, one fate each; `*out_change`: some are not kept. */
static deed_status decide(struct repack *p, const struct commit *commit, enum event_fate *fates,
                          bool *out_change, struct deed_error *err)
{
    struct reader r = reader_over(commit->events);
    *out_change = false;
    for (uint32_t i = 0; i < commit->event_count; i++) {
        struct deed_event event;
        if (!event_decode(&r, &p->arena, &event, NULL)) return malformed(p, commit, err);
        event.recorded_at_ns = commit->recorded_at_ns;
        fates[i] = p->how->decide(p->how->context, &event);
        *out_change = *out_change || fates[i] != EVENT_KEEP;
    }
    return DEED_OK;
}

/* The commit again with reduced events; its own hash stays what it was. */
static deed_status rebuild(struct repack *p, const struct commit *commit,
                           const enum event_fate *fates, deed_bytes *out_bytes,
                           struct commit *out_commit, struct deed_error *err)
{
    uint8_t(*leaves)[SHA256_SIZE] =
        arena_alloc_array(&p->arena, commit->event_count, SHA256_SIZE);
    struct reader r = reader_over(commit->events);
    struct commit again = *commit;
    struct commit_seed seed = {.log_id = p->log->id};
    if (leaves == NULL) return malformed(p, commit, err);
    buf_reset(&p->rebuilt);
    size_t start = commit_begin(&p->rebuilt);
    for (uint32_t i = 0; i < commit->event_count; i++) {
        if (!event_reduce(&r, fates[i], &p->arena, &p->rebuilt, leaves[i])) {
            return malformed(p, commit, err);
        }
    }
    commit_finish(&p->rebuilt, start, &seed, (const uint8_t(*)[SHA256_SIZE])leaves, &again);
    if (!buf_ok(&p->rebuilt)) return deed_fail(err, DEED_NO_MEMORY, "rewrite: out of memory");
    if (memcmp(again.hash, commit->hash, SHA256_SIZE) != 0) return malformed(p, commit, err);
    *out_bytes = buf_bytes(&p->rebuilt);
    *out_commit = again;
    return DEED_OK;
}

/* (1), then to the new file. */
static deed_status copy_commit(struct repack *p, struct deed_error *err)
{
    struct commit commit;
    deed_bytes bytes;
    deed_status status = log_reader_load(p->reader, p->next, &commit, &bytes, err);
    if (status != DEED_OK) return status;
    arena_reset(&p->arena);
    if (commit.first_position != p->next || commit.event_count > p->last - p->next + 1 ||
        memcmp(commit.previous, p->previous, SHA256_SIZE) != 0 ||
        (p->how != NULL && !commit_hash_good(&commit, p->log->id, &p->arena))) {
        return malformed(p, &commit, err);
    }
    p->next += commit.event_count;
    memcpy(p->previous, commit.hash, SHA256_SIZE);
    if (PLANTED(REPACK_LOSES_COMMIT) && p->next <= p->last && commit.first_position % 8 == 0) {
        return DEED_OK;
    }
    if (p->how != NULL && p->how->decide != NULL) {
        bool change = false;
        enum event_fate *fates = arena_alloc_array(&p->arena, commit.event_count, sizeof *fates);
        if (fates == NULL) return malformed(p, &commit, err);
        status = decide(p, &commit, fates, &change, err);
        if (status == DEED_OK && change) {
            status = rebuild(p, &commit, fates, &bytes, &commit, err);
        }
        if (status != DEED_OK) return status;
    }
    status = note_events(p, &commit, err);
    if (status != DEED_OK) return status;
    return sealed_writer_add(&p->writer, bytes, &commit, err);
}

/* Closed, and nothing known against it. */
static bool sealable(const struct log_view *view, size_t i)
{
    const struct log_segment *segment = view->segments[i];
    return i + 1 < view->count && segment->generation == 0 && !segment->missing &&
           segment->header_good && !segment->damaged && !atomic_load(&segment->unsealable) &&
           log_view_last(view, i, 0) > 0;
}

static uint64_t count_sealable(struct log *log)
{
    uint64_t count = 0;
    struct log_view *view = log_view_take(log);
    for (size_t i = 0; i < view->count; i++) count += sealable(view, i);
    log_view_drop(view);
    return count;
}

static deed_status copy_step(struct repack *p, struct deed_error *err)
{
    deed_status status = DEED_OK;
    bool hurry = p->how == NULL && count_sealable(p->log) > HURRY_OVER;
    uint64_t size = p->writer.step_size = hurry ? HURRY_STEP_SIZE : SEALED_STEP_SIZE;
    while (status == DEED_OK && p->next <= p->last && sealed_writer_waiting(&p->writer) < size) {
        status = copy_commit(p, err);
    }
    if (status == DEED_OK) status = sealed_writer_sync(&p->writer, err);
    if (status == DEED_OK && p->next > p->last) {
        status = sealed_writer_finish(&p->writer, err);
        p->phase = PHASE_CHECK;
    }
    return status;
}

/* A removal that failed may have left older ones than the one that is replaced. */
static deed_status remove_older(struct repack *p, struct deed_error *err)
{
    deed_status status = DEED_OK;
    for (uint32_t g = 0; g < p->segment->generation && status == DEED_OK; g++) {
        char name[SEALED_NAME_SIZE];
        struct sealed_name older = {p->segment->number, g, p->segment->first_position};
        log_file_name(&older, name);
        status = os_remove(p->log->dir, name, err);
        if (status == DEED_NOT_FOUND) status = DEED_OK;
    }
    return status;
}

static deed_status remove_old(struct repack *p, struct deed_error *err)
{
    const char *name = p->segment->name;
    deed_status status = os_remove(p->log->dir, name, err);
    file_cache_forget(p->log->files, p->log->dir, name); /* now nobody opens it again */
    if (status != DEED_OK || p->how == NULL) return status;
    status = remove_older(p, err);
    return status == DEED_OK ? os_dir_sync(p->log->dir, err) : status;
}

/* (2) */
static deed_status show(struct repack *p, struct deed_error *err)
{
    const struct sealed_footer *footer = &p->writer.footer;
    struct log_segment *segment =
        log_segment_make(footer->number, footer->generation, footer->first_position);
    if (segment == NULL) return deed_fail(err, DEED_NO_MEMORY, "seal: out of memory");
    log_segment_set_footer(p->log, segment, footer);
    atomic_store(&segment->size, footer->file_size);
    if (PLANTED(REMOVE_BEFORE_RENAME)) (void)!remove_old(p, NULL);
    deed_status status = sealed_writer_publish(&p->writer, err);
    if (status == DEED_OK) {
        file_cache_forget(p->log->files, p->log->dir, p->writer.name);
        status = log_view_replace(p->log, log_segment_hold(segment), err);
        if (status != DEED_OK) log_segment_drop(segment);
    }
    bool shown = status == DEED_OK;
    if (shown) {
        status = remove_old(p, err);
        atomic_store(&segment->settled, status == DEED_OK && p->how != NULL);
    }
    log_segment_drop(segment);
    /* A sealed segment's .seg that cannot be removed does no harm: the next opening seals again. */
    return shown && (status == DEED_OK || p->how == NULL) ? DEED_END : status;
}

/* DEED_OK: there is more to do. DEED_END: the segment is the new file now. */
static deed_status repack_step(struct repack *p, struct deed_error *err)
{
    const char *stopped = log_stopped(p->log);
    if (stopped != NULL) { /* (4) */
        return deed_fail(err, DEED_STOPPED, "the log takes no more writes: %.400s", stopped);
    }
    switch (p->phase) {
    case PHASE_COPY: return copy_step(p, err);
    case PHASE_CHECK: {
        deed_status status = sealed_writer_check(&p->writer, err);
        if (status == DEED_CORRUPT) {
            status = DEED_IO; /* the device's fault, not the segment's */
            if (err != NULL) err->status = status;
        }
        if (status != DEED_END) return status;
        p->phase = PHASE_SHOW;
        return DEED_OK;
    }
    case PHASE_SHOW: break;
    }
    return show(p, err);
}

/* ---- the sealer ----------------------------------------------------------------------------- */

/* `sealing`: an attempt of the sealer's. What a rewrite meets says nothing of those. */
static void note_result(struct log *log, deed_status status, bool sealing,
                        const struct deed_error *err)
{
    struct sealing *s = log->sealing;
    os_mutex_lock(&s->lock);
    if (status == DEED_OK) {
        s->rounds++;
        if (sealing) s->failing = false;
    } else {
        s->failures++;
        if (sealing) s->failing = status != DEED_CORRUPT; /* a damaged one is left alone: go on */
        (void)snprintf(s->why, sizeof s->why, "%s", err->message);
    }
    os_mutex_unlock(&s->lock);
}

static bool is_failing(struct log *log)
{
    os_mutex_lock(&log->sealing->lock);
    bool failing = log->sealing->failing;
    os_mutex_unlock(&log->sealing->lock);
    return failing;
}

/* Begin with the oldest. DEED_END: there is none. */
static deed_status seal_begin(struct log *log, struct deed_error *err)
{
    deed_status status = DEED_END;
    struct log_view *view = log_view_take(log);
    for (size_t i = 0; i < view->count && status == DEED_END; i++) {
        if (!sealable(view, i)) continue;
        status = repack_create(log, view->segments[i], log_view_last(view, i, 0), NULL,
                               &log->sealing->now, err);
    }
    log_view_drop(view);
    return status;
}

/* After an attempt. */
static uint64_t seal_end(struct log *log, deed_status status, const struct deed_error *err)
{
    struct sealing *s = log->sealing;
    if (status == DEED_CORRUPT && s->now != NULL) atomic_store(&s->now->segment->unsealable, true);
    repack_destroy(s->now);
    s->now = NULL;
    note_result(log, status == DEED_END ? DEED_OK : status, true, err);
    if (status == DEED_END || status == DEED_CORRUPT) return ACTOR_AGAIN;
    s->retry_ticks = os_ticks_ns(log->os);
    return RETRY_NS;
}

uint64_t log_seal(struct log *log)
{
    struct sealing *s = log->sealing;
    struct deed_error err = {0};
    if (log_stopped(log) != NULL) return ACTOR_WAIT;
    if (s->now == NULL) {
        uint64_t since = os_ticks_ns(log->os) - s->retry_ticks;
        if (is_failing(log) && since < RETRY_NS) return RETRY_NS - since;
        deed_status status = seal_begin(log, &err);
        if (status == DEED_END) return ACTOR_WAIT;
        if (status != DEED_OK) return seal_end(log, status, &err);
    }
    deed_status status = repack_step(s->now, &err);
    if (status != DEED_OK) return seal_end(log, status, &err);
    return count_sealable(log) > HURRY_OVER ? ACTOR_AGAIN : PAUSE_NS;
}

bool log_sealer_due(struct log *log)
{
    return atomic_load(&log->closed_one) && atomic_exchange(&log->closed_one, false);
}

uint64_t log_backlog(struct log *log)
{
    return log_stopped(log) != NULL || is_failing(log) ? 0 : count_sealable(log);
}

void log_seal_get(struct log *log, struct log_seal_state *out_state)
{
    struct sealing *s = log->sealing;
    *out_state = (struct log_seal_state){.waiting = count_sealable(log)};
    struct log_view *view = log_view_take(log);
    for (size_t i = 0; i < view->count; i++) out_state->sealed += view->segments[i]->generation > 0;
    log_view_drop(view);
    os_mutex_lock(&s->lock);
    out_state->rounds = s->rounds;
    out_state->failures = s->failures;
    out_state->failing = s->failing;
    (void)snprintf(out_state->why, sizeof out_state->why, "%s", s->why);
    os_mutex_unlock(&s->lock);
}

/* ---- rewriting ------------------------------------------------------------------------------ */

static deed_status rewrite_now(struct log *log, struct log_segment *segment, uint64_t last,
                               const struct log_rewrite *how, struct deed_error *err)
{
    struct repack *p = NULL;
    deed_status status = repack_create(log, segment, last, how, &p, err);
    while (status == DEED_OK) status = repack_step(p, err);
    repack_destroy(p);
    return status == DEED_END ? DEED_OK : status;
}

deed_status log_rewrite(struct log *log, uint32_t number, const struct log_rewrite *how,
                        struct deed_error *err)
{
    assert(how->compress_level >= 0 && how->compress_level <= 19);
    os_mutex_lock(&log->sealing->rewrite_lock);
    struct log_view *view = log_view_take(log);
    size_t i = log_view_number(view, number);
    deed_status status;
    if (i == view->count || view->segments[i]->generation == 0) {
        status = deed_fail(err, DEED_NOT_FOUND, "segment %u: there is no sealed one", number);
    } else {
        status = rewrite_now(log, view->segments[i], log_view_last(view, i, log_end(log)), how, err);
    }
    log_view_drop(view);
    os_mutex_unlock(&log->sealing->rewrite_lock);
    struct deed_error none = {0};
    if (status != DEED_NOT_FOUND) note_result(log, status, false, err != NULL ? err : &none);
    return status;
}

/* ---- telling -------------------------------------------------------------------------------- */

static struct log_segment_info info_of(const struct log_view *view, size_t i, uint64_t end)
{
    const struct log_segment *segment = view->segments[i];
    return (struct log_segment_info){
        .number = segment->number,
        .generation = segment->generation,
        .state = segment->missing          ? LOG_MISSING
                 : segment->generation > 0 ? LOG_SEALED
                 : i + 1 < view->count     ? LOG_CLOSED
                                           : LOG_ACTIVE,
        .damaged = segment->damaged || atomic_load(&segment->unsealable),
        .settled = atomic_load(&segment->settled),
        .first_position = segment->first_position,
        .last_position = log_view_last(view, i, end),
    };
}

void log_each_segment(struct log *log,
                      void (*each)(void *context, const struct log_segment_info *info),
                      void *context)
{
    uint64_t end = log_end(log);
    struct log_view *view = log_view_take(log);
    for (size_t i = 0; i < view->count; i++) {
        struct log_segment_info info = info_of(view, i, end);
        each(context, &info);
    }
    log_view_drop(view);
}

deed_status log_segment_info(struct log *log, uint32_t number, struct log_segment_info *out_info,
                             struct deed_error *err)
{
    uint64_t end = log_end(log);
    struct log_view *view = log_view_take(log);
    size_t i = log_view_number(view, number);
    bool there = i < view->count;
    if (there) *out_info = info_of(view, i, end);
    log_view_drop(view);
    return there ? DEED_OK : deed_fail(err, DEED_NOT_FOUND, "segment %u: there is none", number);
}

deed_status log_segment_hash(struct log *log, uint32_t number, uint8_t out_hash[SHA256_SIZE],
                             struct deed_error *err)
{
    struct sealed_footer footer;
    deed_status status = log_footer(log, number, &footer, err);
    if (status == DEED_OK) memcpy(out_hash, footer.hash, SHA256_SIZE);
    if (status != DEED_NOT_FOUND) return status;
    struct log_view *view = log_view_take(log);
    size_t i = log_view_number(view, number);
    const struct log_segment *next = i + 1 < view->count ? view->segments[i + 1] : NULL;
    if (next != NULL && next->header_good) {
        memcpy(out_hash, next->header.previous, SHA256_SIZE);
        status = DEED_OK;
    }
    log_view_drop(view);
    if (status == DEED_OK) return status;
    return deed_fail(err, DEED_NOT_FOUND, "segment %u: nothing tells its last hash", number);
}

deed_status log_footer(struct log *log, uint32_t number, struct sealed_footer *out_footer,
                       struct deed_error *err)
{
    for (;;) {
        struct log_view *view = log_view_take(log);
        size_t i = log_view_number(view, number);
        const struct sealed_footer *footer = NULL;
        struct os_file *file = NULL;
        deed_status status;
        if (i == view->count || view->segments[i]->generation == 0) {
            log_view_drop(view);
            return deed_fail(err, DEED_NOT_FOUND, "segment %u: there is no sealed one", number);
        }
        status = log_segment_pin(log, view->segments[i], &file, err);
        if (status == DEED_OK) {
            status = log_segment_footer(log, view->segments[i], file, &footer, err);
        }
        if (status == DEED_OK) *out_footer = *footer;
        file_cache_unpin(log->files, file);
        bool again = status == DEED_NOT_FOUND && !log_view_current(log, view);
        log_view_drop(view);
        if (!again) return status;
    }
}
