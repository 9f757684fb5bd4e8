/* store.c - opening (the index is rebuilt from the log), closing, telling. */
#include "store/store_state.h"

#include "base/planted.h"
#include "os/failpoint.h"
#include "store/backup.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#define DEFAULT_SEGMENT_SIZE (UINT64_C(64) << 20)
/* Filters and blocks: with the runs in memory of two segments it stays below 100 MB. */
#define DEFAULT_CACHE_SIZE   (UINT64_C(48) << 20)
/* A header, a group and some room: below this a segment is mostly header. */
#define SEGMENT_SIZE_MIN     (UINT64_C(64) << 10)

void store_limits_default(struct deed_limits *limits)
{
    if (limits->event_size_max == 0) limits->event_size_max = UINT64_C(16) << 20;
    if (limits->commit_size_max == 0) limits->commit_size_max = UINT64_C(32) << 20;
    if (limits->commit_count_max == 0) limits->commit_count_max = 65536;
    if (limits->name_size_max == 0) limits->name_size_max = 1024;
    if (limits->tag_count_max == 0) limits->tag_count_max = 64;
    if (limits->condition_count_max == 0) limits->condition_count_max = 1024;
    if (limits->json_depth_max == 0) limits->json_depth_max = 64;
    if (limits->queue_count_max == 0) limits->queue_count_max = 65536;
    if (limits->queue_size_max == 0) limits->queue_size_max = UINT64_C(256) << 20;
}

/* The format bounds what options may ask for. */
static deed_status check_options(const struct store_options *o, struct deed_error *err)
{
    if (o->limits.name_size_max > UINT16_MAX - 2) {
        return deed_fail(err, DEED_INVALID, "name_size_max: %u, the format's limit is %d",
                         o->limits.name_size_max, UINT16_MAX - 2);
    }
    if (o->limits.tag_count_max > UINT16_MAX) {
        return deed_fail(err, DEED_INVALID, "tag_count_max: %u, the format's limit is %d",
                         o->limits.tag_count_max, UINT16_MAX);
    }
    if (o->limits.commit_size_max > UINT32_MAX / 2) {
        return deed_fail(err, DEED_INVALID, "commit_size_max: %llu, the format's limit is %u",
                         (unsigned long long)o->limits.commit_size_max, UINT32_MAX / 2);
    }
    if (o->segment_size < SEGMENT_SIZE_MIN) {
        return deed_fail(err, DEED_INVALID, "segment_size: %llu, it must be at least %llu",
                         (unsigned long long)o->segment_size,
                         (unsigned long long)SEGMENT_SIZE_MIN);
    }
    return DEED_OK;
}

/* ---- rebuilding the index ------------------------------------------------------------------- */

/* More missing revisions of one stream than this are nonsense that would only eat memory. */
#define LOST_REVISIONS_MAX (UINT64_C(1) << 24)

static uint64_t lost_position(const struct store *store)
{
    uint64_t count = chunks_count(&store->lost);
    const struct lost_range *range = count == 0 ? NULL : chunks_at(&store->lost, count - 1);
    return range == NULL ? 0 : range->last;
}

/* How many events of the event's stream there are before it, and the position of the last. */
static deed_status stream_end(struct store *store, const struct deed_event *event,
                              uint64_t *out_count, uint64_t *out_last, struct deed_error *err)
{
    if (index_active_count(store->index, event->stream, out_count)) {
        if (*out_count == event->revision) return DEED_OK;
    } else if (store->lost_count == 0 && store->index_has_files) {
        /* The first of its stream in this segment: what the runs before have of it was checked when
         * they were made. To look there for each stream would be to read them all. */
        *out_count = event->revision;
        return DEED_OK;
    }
    struct postings list;
    postings_open(&list, index_writer_view(store->index), INDEX_STREAM, event->stream,
                  &store->arena);
    uint64_t end = event->position - 1; /* runs of later segments may be there already */
    deed_status status = postings_count(&list, end, out_count, err);
    return status == DEED_OK ? postings_last(&list, end, out_last, err) : status;
}

/* Revisions that damage took get places in the stream's list, so that ordinals stay revisions. */
static deed_status fill_lost_revisions(struct store *store, const struct deed_event *event,
                                       struct deed_error *err)
{
    uint64_t count = 0;
    uint64_t last = 0;
    deed_status status = stream_end(store, event, &count, &last, err);
    if (status != DEED_OK || count == event->revision) return status;
    /* They were lost behind the stream's last event that is there, or nothing was. */
    bool explained = count <= event->revision && event->revision - count <= store->lost_count &&
                     event->revision - count <= LOST_REVISIONS_MAX && last <= lost_position(store);
    /* Or in a sealed segment, which opening does not read: then the index has a hole where its runs
     * join, and says so to who asks for those revisions. */
    uint64_t active = 0;
    if (!explained && count < event->revision && store->index_has_files &&
        !index_active_count(store->index, event->stream, &active)) {
        return DEED_OK;
    }
    if (!explained) {
        return deed_fail(err, DEED_CORRUPT,
                         "position %llu: stream %.*s goes on at revision %llu instead of %llu",
                         (unsigned long long)event->position, DEED_FMT(event->stream),
                         (unsigned long long)event->revision, (unsigned long long)count);
    }
    for (; count < event->revision && !PLANTED(LOST_REVISIONS_CLOSE_UP); count++) {
        status = index_add_lost(store->index, event->stream, count, lost_position(store), err);
        if (status != DEED_OK) return status;
    }
    return DEED_OK;
}

/* A commit of that segment comes: is it indexed by a run's file? If not, and it is another segment
 * than the last, the run before is complete. More than a few of those do not stay in memory. */
static deed_status index_segment(struct store *store, uint32_t segment, uint64_t first_position,
                                 bool *out_covered, struct deed_error *err)
{
    if (segment == store->visited_segment) {
        *out_covered = store->visited_covered;
        return DEED_OK;
    }
    *out_covered = index_covers(store->index, segment);
    if (!*out_covered) {
        deed_status status =
            index_roll(store->index, segment, first_position - 1, store->visited_hash, err);
        if (status != DEED_OK) return status;
        while (index_waiting(store->index) > 1 && index_step(store->index, NULL) == ACTOR_AGAIN) {
            continue;
        }
    }
    store->visited_segment = segment;
    store->visited_covered = *out_covered;
    return DEED_OK;
}

static deed_status index_commit(void *context, const struct commit *commit,
                                const struct commit_ref *ref, struct deed_error *err)
{
    struct store *store = context;
    struct reader r = reader_over(commit->events);
    bool covered = true;
    deed_status rolled = index_segment(store, ref->segment, commit->first_position, &covered, err);
    if (rolled != DEED_OK || covered) return rolled;
    memcpy(store->visited_hash, commit->hash, SHA256_SIZE);
    for (uint32_t i = 0; i < commit->event_count; i++) {
        struct deed_event event;
        arena_reset(&store->arena);
        bool good = event_decode(&r, &store->arena, &event, NULL);
        if (!good && store->arena.failed) {
            return deed_fail(err, DEED_NO_MEMORY, "store: out of memory");
        }
        if (!good || event.position != commit->first_position + i) {
            return deed_fail(err, DEED_CORRUPT, "segment %u: the commit at offset %llu is malformed",
                             ref->segment, (unsigned long long)ref->offset);
        }
        deed_status status = fill_lost_revisions(store, &event, err);
        if (status != DEED_OK) return status;
        struct index_event terms = {.stream = event.stream,
                                    .type = event.type,
                                    .correlation_id = event.correlation_id,
                                    .key = PLANTED(OPEN_WITHOUT_KEYS) ? (deed_str){0}
                                                                      : event.idempotency_key,
                                    .tags = event.tags,
                                    .tag_count = event.tag_count,
                                    .id = event.id,
                                    .position = event.position,
                                    .revision = event.revision};
        status = index_add_event(store->index, &terms, err);
        if (status != DEED_OK) return status;
    }
    return DEED_OK;
}

static deed_status note_damage(void *context, const struct log_damage *damage,
                               struct deed_error *err)
{
    struct store *store = context;
    if (damage->first_position == DEED_NONE) return DEED_OK;
    bool accepts = store->options.accept_losses && !store->options.read_only;
    struct lost_range range = {damage->first_position, damage->last_position,
                               damage->accepted || accepts};
    if (!chunks_add(&store->lost, &range)) {
        return deed_fail(err, DEED_NO_MEMORY, "store: out of memory");
    }
    store->lost_count += range.last - range.first + 1;
    return DEED_OK;
}

/* ---- opening and closing -------------------------------------------------------------------- */

static uint64_t keeper_step(void *context)
{
    struct store *store = context;
    return log_keep(store->log);
}

static deed_status actors_start(struct store *store, struct deed_error *err)
{
    if (store->options.no_threads || store->options.read_only) return DEED_OK;
    deed_status status =
        actor_start("committer", committer_step, store, &store->committer, err);
    if (status == DEED_OK) status = actor_start("keeper", keeper_step, store, &store->keeper, err);
    if (status != DEED_OK) return status;
    status = actor_start("sealer", sealer_step, store, &store->sealer, err);
    if (status != DEED_OK) return status;
    return actor_start("compactor", compactor_step, store, &store->compactor, err);
}

/* What a restore has not finished is no store, however much of it is there. */
static deed_status refuse_unfinished(struct os_dir *dir, struct deed_error *err)
{
    struct os_file *marker = NULL;
    struct deed_error why = {0};
    deed_status status = os_file_open(dir, RESTORE_MARKER, OS_READ, &marker, &why);
    os_file_close(marker);
    if (status == DEED_NOT_FOUND || PLANTED(OPEN_UNFINISHED_RESTORE)) return DEED_OK;
    if (status == DEED_OK) {
        return deed_fail(err, DEED_STOPPED, "a restore into this directory was not finished: "
                                            "restore again");
    }
    if (err != NULL) *err = why;
    return status;
}

static void note_log(void *context, deed_uuid log_id)
{
    struct store *store = context;
    index_set_log(store->index, log_id);
}

static bool is_lost(void *context, uint64_t position, uint64_t *out_last)
{
    const struct store *store = context;
    for (uint64_t i = 0; i < chunks_count(&store->lost); i++) {
        const struct lost_range *range = chunks_at(&store->lost, i);
        if (range->first > position || position > range->last) continue;
        *out_last = range->last;
        return true;
    }
    return false;
}

static bool segment_wanted(void *context, uint32_t segment, uint64_t first, uint64_t last)
{
    struct store *store = context;
    (void)first;
    (void)last;
    return !index_covers(store->index, segment);
}

static deed_status open_index(struct store *store, struct deed_error *err)
{
    store->cache = block_cache_create(store->options.cache_size);
    if (store->cache == NULL) return deed_fail(err, DEED_NO_MEMORY, "store: out of memory");
    struct index_options options = {.os = store->os,
                                    .dir = store->dir,
                                    .cache = store->cache,
                                    .read_only = store->options.read_only,
                                    /* A repair reads all of the log, so as to find all damage. */
                                    .forget = store->forget_index || store->options.accept_losses,
                                    .is_lost = is_lost,
                                    .context = store,
                                    .hash_mask = store->options.index_hash_mask};
    os_random(store->os, &options.hash_seed, sizeof options.hash_seed);
    deed_status status = index_open(&options, &store->index, err);
    if (status != DEED_OK) return status;
    store->index_has_files = index_has_files(store->index);
    return DEED_OK;
}

static deed_status open_parts(struct store *store, const char *directory, struct deed_error *err)
{
    const struct store_options *o = &store->options;
    bool create = !o->must_exist && !o->read_only;
    store->files = file_cache_create(o->open_file_count_max);
    if (store->files == NULL) return deed_fail(err, DEED_NO_MEMORY, "store: out of memory");
    deed_status status = os_dir_open(store->os, directory, create, &store->dir, err);
    if (status == DEED_OK && !o->read_only) status = os_dir_lock(store->dir, err);
    if (status == DEED_OK) status = refuse_unfinished(store->dir, err);
    if (status == DEED_OK) status = open_index(store, err);
    if (status != DEED_OK) return status;
    struct log_options log_options = {.segment_size = o->segment_size,
                                      .read_only = o->read_only,
                                      .no_sync = o->unsafe_no_sync,
                                      .accept_losses = o->accept_losses,
                                      .files = store->files,
                                      .cache = store->cache,
                                      .before_segment = sealer_wait,
                                      .context = store};
    struct log_visitor visitor = {.context = store,
                                  .begin = note_log,
                                  .wanted = segment_wanted,
                                  .commit = index_commit,
                                  .damage = note_damage};
    status = log_open(store->os, store->dir, &log_options, &visitor, &store->log, err);
    if (status != DEED_OK) return status;
    FAILPOINT("log-opened");
    status = index_opened(store->index, store->log, log_active(store->log), err);
    if (status != DEED_OK) return status;
    store->segment = log_active(store->log);
    store->reader = log_reader_create(store->log);
    if (store->reader == NULL) return deed_fail(err, DEED_NO_MEMORY, "store: out of memory");
    return actors_start(store, err);
}

static deed_status open_once(struct os *os, const char *directory,
                             const struct store_options *options, bool forget_index,
                             struct store **out_store, struct deed_error *err)
{
    struct store *store = calloc(1, sizeof *store);
    if (store == NULL) return deed_fail(err, DEED_NO_MEMORY, "store: out of memory");
    store->os = os;
    store->forget_index = forget_index;
    if (options != NULL) store->options = *options;
    store_limits_default(&store->options.limits);
    if (store->options.segment_size == 0) store->options.segment_size = DEFAULT_SEGMENT_SIZE;
    if (store->options.cache_size == 0) store->options.cache_size = DEFAULT_CACHE_SIZE;
    chunks_init(&store->lost, sizeof(struct lost_range));
    arena_init(&store->arena, SIZE_MAX);
    arena_init(&store->terms.arena, SIZE_MAX);
    os_mutex_init(&store->queue_lock);
    os_mutex_init(&store->commit_lock);
    os_mutex_init(&store->publish_lock);
    os_mutex_init(&store->seal_lock);
    os_cond_init(&store->seal_changed);
    os_mutex_init(&store->retention_lock);
    os_mutex_init(&store->horizon.lock);
    compaction_init(store);
    os_cond_init(&store->published);

    deed_status status = check_options(&store->options, err);
    if (status == DEED_OK) status = open_parts(store, directory, err);
    if (status != DEED_OK) {
        deed_wrap(err, "%s", directory);
        store_close(store);
        return status;
    }
    *out_store = store;
    return DEED_OK;
}

/* Beside a running writer a reader may look at a place just before it is written, and at the next
 * one just after: that looks like damage. What another look does not find was none. */
#define READ_ONLY_LOOKS 3

deed_status store_open(struct os *os, const char *directory, const struct store_options *options,
                       struct store **out_store, struct deed_error *err)
{
    struct store *store = NULL;
    deed_status status = open_once(os, directory, options, false, &store, err);
    /* The log has losses, so that opening asks the index, and the index is damaged too. */
    if (status == DEED_BUSY) status = open_once(os, directory, options, true, &store, err);
    bool read_only = options != NULL && options->read_only;
    for (int looks = 1; read_only && status == DEED_OK && looks < READ_ONLY_LOOKS; looks++) {
        if (chunks_count(&store->lost) == 0) break;
        store_close(store);
        status = open_once(os, directory, options, false, &store, err);
    }
    if (status == DEED_OK) *out_store = store;
    return status;
}

void store_close(struct store *store)
{
    if (store == NULL) return;
    os_mutex_lock(&store->queue_lock);
    store->closing = true;
    os_mutex_unlock(&store->queue_lock);
    actor_stop(store->compactor);
    actor_stop(store->committer);
    if (store->log != NULL) committer_drain(store);
    FAILPOINT("drained");
    actor_stop(store->keeper);
    actor_stop(store->sealer);
    os_mutex_lock(&store->publish_lock);
    os_cond_broadcast(&store->published);
    while (store->waiters > 0) {
        (void)os_cond_wait(&store->published, &store->publish_lock, UINT64_MAX);
    }
    os_mutex_unlock(&store->publish_lock);

    log_reader_destroy(store->reader);
    log_close(store->log);
    file_cache_destroy(store->files);
    index_close(store->index);
    block_cache_destroy(store->cache);
    os_dir_close(store->dir);
    arena_done(&store->arena);
    arena_done(&store->terms.arena);
    chunks_done(&store->lost);
    free(store->leaves);
    os_cond_done(&store->published);
    compaction_done(store);
    os_mutex_done(&store->horizon.lock);
    os_mutex_done(&store->retention_lock);
    os_mutex_done(&store->publish_lock);
    os_mutex_done(&store->seal_lock);
    os_cond_done(&store->seal_changed);
    os_mutex_done(&store->queue_lock);
    os_mutex_done(&store->commit_lock);
    free(store);
}

bool store_step(struct store *store)
{
    bool committed = committer_step(store) == ACTOR_AGAIN;
    bool kept = log_keep(store->log) == ACTOR_AGAIN;
    bool sealed = sealer_step(store) == ACTOR_AGAIN;
    bool compacted = compactor_step(store) == ACTOR_AGAIN;
    return committed || kept || sealed || compacted;
}

/* ---- telling -------------------------------------------------------------------------------- */

struct os *store_os(struct store *store)
{
    return store->os;
}

struct os_dir *store_dir(struct store *store)
{
    return store->dir;
}

const struct deed_limits *store_limits(const struct store *store)
{
    return &store->options.limits;
}

uint64_t store_position(struct store *store)
{
    return log_end(store->log);
}

void store_info(struct store *store, struct deed_info *out_info)
{
    const char *stopped = log_stopped(store->log);
    *out_info = (struct deed_info){
        .log_id = log_id(store->log),
        .epoch = log_epoch(store->log),
        .position = log_end(store->log),
        .segment_count = log_segment_count(store->log),
        .log_size = log_size(store->log),
        .stream_count = index_stream_count(store->index),
        .writable = stopped == NULL,
        .unsafe = store->options.unsafe_no_sync,
        .corrupt_first = DEED_NONE,
        .corrupt_last = DEED_NONE,
    };
    os_mutex_lock(&store->publish_lock);
    out_info->backup_position = store->backup.position;
    out_info->backup_made_at_ns = store->backup.made_at_ns;
    os_mutex_unlock(&store->publish_lock);
    if (chunks_count(&store->lost) > 0) {
        const struct lost_range *range = chunks_at(&store->lost, 0);
        out_info->corrupt_first = range->first;
        out_info->corrupt_last = range->last;
    }
    if (stopped != NULL) {
        (void)snprintf(out_info->stopped_because, sizeof out_info->stopped_because, "%s", stopped);
    }
    struct log_head head;
    log_get_head(store->log, &head);
    memcpy(out_info->chain_hash, head.hash, SHA256_SIZE);
    out_info->recorded_at_ns = head.recorded_at_ns;
}

static void histogram_copy(const _Atomic uint64_t *buckets, const _Atomic uint64_t *sum,
                           struct store_histogram *out)
{
    out->count = 0;
    for (size_t i = 0; i <= STORE_HISTOGRAM_BUCKETS; i++) {
        out->buckets[i] = atomic_load_explicit(&buckets[i], memory_order_relaxed);
        out->count += out->buckets[i];
    }
    out->sum_ns = atomic_load_explicit(sum, memory_order_relaxed);
}

/* What the sealer does, and what the caches hold. */
static void get_care_metrics(struct store *store, struct store_metrics *out)
{
    struct log_seal_state seal;
    struct index_stats index;
    struct block_cache_stats cache;
    log_seal_get(store->log, &seal);
    index_get_stats(store->index, &index);
    block_cache_get_stats(store->cache, &cache);
    out->segments_sealed = seal.sealed;
    out->segments_waiting = seal.waiting;
    out->seals = seal.rounds;
    out->seal_failures = seal.failures;
    out->seal_failing = seal.failing;
    out->runs = index.runs;
    out->runs_in_memory = index.memory_runs;
    out->run_memory = index.memory_size;
    out->runs_written = index.written;
    out->runs_merged = index.merged;
    out->runs_rebuilt = index.rebuilt;
    out->run_failures = index.failures;
    out->run_failing = index.failing;
    out->cache_size = cache.size;
    out->cache_hits = cache.hits;
    out->cache_misses = cache.misses;
    out->files_open = file_cache_count(store->files);
}

void store_get_metrics(struct store *store, struct store_metrics *out_metrics)
{
    const struct metrics *m = &store->metrics;
    *out_metrics = (struct store_metrics){
        .appends = atomic_load(&m->appends),
        .append_events = atomic_load(&m->append_events),
        .append_bytes = atomic_load(&m->append_bytes),
        .appends_refused = atomic_load(&m->refused),
        .appends_failed = atomic_load(&m->failed),
        .groups = atomic_load(&m->groups),
        .reads = atomic_load(&m->reads),
        .read_events = atomic_load(&m->read_events),
        .read_bytes = atomic_load(&m->read_bytes),
    };
    os_mutex_lock(&store->queue_lock);
    out_metrics->queue_count = store->queue_count;
    out_metrics->queue_bytes = store->queue_size;
    os_mutex_unlock(&store->queue_lock);
    os_mutex_lock(&store->publish_lock);
    out_metrics->backups = store->backup.made_count;
    out_metrics->backups_failed = store->backup.failed_count;
    out_metrics->backup_bytes = store->backup.copied_size;
    os_mutex_unlock(&store->publish_lock);
    os_mutex_lock(&store->compaction.lock);
    out_metrics->compactions = store->compaction.jobs;
    out_metrics->compactions_failed = store->compaction.failed;
    out_metrics->events_removed = store->compaction.events_removed;
    out_metrics->bytes_reclaimed = store->compaction.bytes_reclaimed;
    os_mutex_unlock(&store->compaction.lock);
    get_care_metrics(store, out_metrics);
    histogram_copy(m->append_buckets, &m->append_sum_ns, &out_metrics->append);
    histogram_copy(m->sync_buckets, &m->sync_sum_ns, &out_metrics->sync);
}

/* ---- waiting, watching ---------------------------------------------------------------------- */

static bool is_closing(struct store *store)
{
    os_mutex_lock(&store->queue_lock);
    bool closing = store->closing;
    os_mutex_unlock(&store->queue_lock);
    return closing;
}

deed_status store_wait(struct store *store, uint64_t position, uint32_t timeout_ms,
                       struct deed_error *err)
{
    uint64_t start = os_ticks_ns(store->os);
    uint64_t allowed = (uint64_t)timeout_ms * 1000000;
    deed_status status = DEED_OK;
    os_mutex_lock(&store->publish_lock);
    store->waiters++;
    while (log_end(store->log) < position) {
        uint64_t spent = os_ticks_ns(store->os) - start;
        if (is_closing(store)) {
            status = deed_fail(err, DEED_STOPPED, "the store is closing");
            break;
        }
        if (spent >= allowed || store->options.no_threads) {
            status = deed_fail(err, DEED_TIMEOUT, "the log is at position %llu, not at %llu yet",
                               (unsigned long long)log_end(store->log),
                               (unsigned long long)position);
            break;
        }
        (void)os_cond_wait(&store->published, &store->publish_lock, allowed - spent);
    }
    store->waiters--;
    if (store->waiters == 0 && is_closing(store)) os_cond_broadcast(&store->published);
    os_mutex_unlock(&store->publish_lock);
    return status;
}

void store_watch(struct store *store, struct store_watch *watch)
{
    os_mutex_lock(&store->publish_lock);
    watch->next = store->watches;
    store->watches = watch;
    os_mutex_unlock(&store->publish_lock);
}

void store_unwatch(struct store *store, struct store_watch *watch)
{
    os_mutex_lock(&store->publish_lock);
    struct store_watch **at = &store->watches;
    while (*at != NULL && *at != watch) at = &(*at)->next;
    if (*at != NULL) *at = watch->next;
    os_mutex_unlock(&store->publish_lock);
}

/* ---- verifying ------------------------------------------------------------------------------ */

struct verification {
    struct store_verify_report report;
    void (*damage)(void *, const struct store_damage *);
    bool (*progress)(void *, uint64_t, uint64_t);
    void *context;
    uint64_t done, all; /* bytes of the log, as told last */
};

static deed_status verify_commit(void *context, const struct commit *commit,
                                 const struct commit_ref *ref, struct deed_error *err)
{
    struct verification *v = context;
    (void)ref;
    (void)err;
    v->report.commits++;
    v->report.events += commit->event_count;
    v->report.bytes += commit->size;
    memcpy(v->report.chain_hash, commit->hash, SHA256_SIZE);
    return DEED_OK;
}

static deed_status verify_damage(void *context, const struct log_damage *damage,
                                 struct deed_error *err)
{
    struct verification *v = context;
    struct store_damage told = {.segment = damage->segment,
                                .offset = damage->offset,
                                .size = damage->size,
                                .first_position = damage->first_position,
                                .last_position = damage->last_position,
                                .accepted = damage->accepted};
    (void)err;
    (void)snprintf(told.what, sizeof told.what, "%s", damage->what);
    if (damage->accepted) {
        v->report.accepted_count++;
    } else {
        v->report.damage_count++;
    }
    if (v->damage != NULL) v->damage(v->context, &told);
    return DEED_OK;
}

/* No event is lost by it. */
static void verify_index_damage(void *context, uint32_t first_segment, uint32_t last_segment,
                                const char *what)
{
    struct verification *v = context;
    struct store_damage told = {
        .segment = first_segment, .first_position = DEED_NONE, .last_position = DEED_NONE};
    (void)last_segment;
    (void)snprintf(told.what, sizeof told.what,
                   "the index, which is made again from the log: %.100s", what);
    v->report.damage_count++;
    if (v->damage != NULL) v->damage(v->context, &told);
}

static bool verify_index_progress(void *context)
{
    struct verification *v = context;
    return v->progress == NULL || v->progress(v->context, v->done, v->all);
}

static bool verify_progress(void *context, uint64_t done, uint64_t all)
{
    struct verification *v = context;
    v->done = done;
    v->all = all;
    return v->progress == NULL || v->progress(v->context, done, all);
}

deed_status store_verify(struct store *store,
                         void (*damage)(void *, const struct store_damage *),
                         bool (*progress)(void *, uint64_t done, uint64_t all), void *context,
                         struct store_verify_report *out_report, struct deed_error *err)
{
    struct verification v = {.damage = damage, .progress = progress, .context = context};
    struct log_visitor visitor = {.context = &v,
                                  .commit = verify_commit,
                                  .damage = verify_damage,
                                  .progress = verify_progress};
    struct index_verifier verifier = {
        .context = &v, .damage = verify_index_damage, .progress = verify_index_progress};
    deed_status status = log_verify(store->log, &visitor, err);
    uint64_t of_log = v.report.damage_count;
    if (status == DEED_OK) status = index_verify(store->index, &verifier, err);
    if (status == DEED_OK && v.report.damage_count > 0) {
        status = deed_fail(err, DEED_CORRUPT, "the %s has %llu damaged places",
                           of_log > 0 ? "log" : "index",
                           (unsigned long long)(of_log > 0 ? of_log : v.report.damage_count));
    }
    *out_report = v.report;
    return status;
}
