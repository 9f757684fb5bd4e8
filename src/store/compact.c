/* compact.c - give space back: one job at a time, segment after segment.
 *
 *     asked ─► close the active segment, if asked to ─► wait until it is sealed
 *           ─► for each sealed segment: look at every event, rewrite if one is to go ─► done
 *
 * (1) What is to become of each event is noted while looking, and the rewrite goes by the notes: it may
 *     ask more than once, and metadata may change meanwhile, but a decision does not.
 * (2) An event goes only if its stream hides it: the newest revision of a stream that is neither
 *     truncated nor deleted never does, and what system streams hold stays.
 * (3) Each segment is rewritten as a whole or not at all, by the log. So a job can end after any step,
 *     and be asked for again: it finds less to do.
 * (4) An erasure hides the stream before it begins. What is written to it afterwards is another life
 *     of it, and stays.
 * (5) That an event is erased in the file which is open does not mean that the old file is gone: the
 *     erasure that did it may have failed at making that durable. A repeated one writes such a file
 *     once more, unless this process saw it succeed. */
#include "store/store_state.h"

#include "base/hash.h"
#include "base/planted.h"
#include "base/text.h"
#include "log/sealed.h"

#include <assert.h>
#include <stdatomic.h>
#include <stdlib.h>

/* How often the compactor looks whether what it waits for has come. */
#define LOOK_AGAIN_NS UINT64_C(10000000)

/* Streams follow each other mixed, but few at a time: one look at each is enough for a while. */
#define STREAM_CACHE_SIZE 1024

/* So many closed streams are known by name, in some megabytes; with more, each stream is looked at. */
#define CLOSED_MAX  65536
#define CLOSED_ROOM (2 * CLOSED_MAX)

#define COMPRESS_LEVEL_MAX     19
#define COMPRESS_LEVEL_DEFAULT 3 /* of a compressed segment that is rewritten */

enum job_phase { JOB_BEGIN, JOB_LISTING, JOB_SEGMENTS };

struct stream_notes {
    struct buf name;
    uint64_t keep_from; /* revisions below are hidden */
};

/* Names of streams with a tombstone, hashed; no other needs a look at its end. */
struct closed_streams {
    deed_str *slots; /* NULL: there is none; CLOSED_ROOM */
    size_t count;
    bool incomplete;  /* there are more, or one could not be read */
    uint64_t looked;  /* up to this position */
    struct arena names;
};

struct compaction_job {
    enum job_phase phase;
    int compress_level;
    bool roll;
    uint32_t below; /* segments before this one are to be sealed first */

    /* An erasure; `stream` is empty otherwise. */
    struct buf stream, metadata;   /* names */
    uint64_t erase_before;         /* revision */
    uint64_t metadata_before;      /* position */

    uint32_t *segments;
    size_t count, room, next;

    /* The segment that is looked at. */
    uint64_t first_position;
    uint8_t *fates;
    size_t fates_count, fates_room;
    uint64_t going; /* events whose content will be gone that is there now */
    uint64_t worse; /* stubs to be erased */
    uint64_t erased; /* that are erased already */
    bool damaged;

    struct store *store;
    const struct index_view *view;
    uint64_t end;
    struct arena arena;
    struct closed_streams closed;
    struct stream_notes streams[STREAM_CACHE_SIZE];
};

void compaction_init(struct store *store)
{
    os_mutex_init(&store->compaction.lock);
    os_cond_init(&store->compaction.changed);
}

static void job_free(struct compaction_job *job)
{
    if (job == NULL) return;
    for (size_t i = 0; i < STREAM_CACHE_SIZE; i++) buf_done(&job->streams[i].name);
    buf_done(&job->stream);
    buf_done(&job->metadata);
    arena_done(&job->arena);
    arena_done(&job->closed.names);
    free(job->closed.slots);
    free(job->segments);
    free(job->fates);
    free(job);
}

static void job_end(struct store *store, deed_status status, const struct deed_error *err);

void compaction_done(struct store *store)
{
    struct compaction *c = &store->compaction;
    if (atomic_load(&c->asked)) {
        static const struct deed_error closing = {
            .message = "the store is closing: it goes on when it is asked for again"};
        job_end(store, DEED_STOPPED, &closing);
    }
    os_mutex_lock(&c->lock);
    while (c->waiters > 0) (void)os_cond_wait(&c->changed, &c->lock, UINT64_MAX);
    os_mutex_unlock(&c->lock);
    os_cond_done(&store->compaction.changed);
    os_mutex_done(&store->compaction.lock);
}

static bool is_erasure(const struct compaction_job *job)
{
    return job->stream.len > 0;
}

/* ---- closed streams ------------------------------------------------------------------------- */

static deed_str *closed_slot(const struct closed_streams *closed, deed_str stream)
{
    size_t at = (size_t)xxh64(1, deed_bytes_of(stream)) % CLOSED_ROOM;
    while (closed->slots[at].ptr != NULL && !deed_str_equal(closed->slots[at], stream)) {
        at = (at + 1) % CLOSED_ROOM;
    }
    return &closed->slots[at];
}

static deed_status closed_add(struct closed_streams *closed, deed_str stream,
                              struct deed_error *err)
{
    if (closed->slots == NULL) closed->slots = calloc(CLOSED_ROOM, sizeof(deed_str));
    deed_str name = arena_str(&closed->names, stream);
    if (closed->slots == NULL || name.ptr == NULL) {
        return deed_fail(err, DEED_NO_MEMORY, "compaction: out of memory");
    }
    *closed_slot(closed, name) = name;
    closed->count++;
    return DEED_OK;
}

/* Those up to the end of the view. */
static deed_status closed_gather(struct compaction_job *job, struct deed_error *err)
{
    struct closed_streams *closed = &job->closed;
    struct postings list;
    struct log_reader *reader = log_reader_create(job->store->log);
    deed_status status = DEED_OK;
    if (reader == NULL) return deed_fail(err, DEED_NO_MEMORY, "compaction: out of memory");
    arena_reset(&job->arena);
    postings_open(&list, job->view, INDEX_TYPE, DEED_STR(STORE_TOMBSTONE_TYPE), &job->arena);
    while (status == DEED_OK && !closed->incomplete) {
        struct deed_event event;
        struct arena tags;
        uint64_t position = 0;
        status = postings_next(&list, closed->looked, job->end, &position, err);
        if (status != DEED_OK || position == 0) break;
        closed->looked = position;
        arena_init(&tags, SIZE_MAX);
        status = log_reader_event(reader, position, &tags, &event, err);
        if (status == DEED_OK) status = closed_add(closed, event.stream, err);
        arena_done(&tags);
        closed->incomplete = status == DEED_CORRUPT || closed->count == CLOSED_MAX;
        if (status == DEED_CORRUPT) status = DEED_OK;
    }
    log_reader_destroy(reader);
    return status;
}

/* Can the stream hide anything at all? Mostly not, and that is told from memory. */
static deed_status may_hide(struct compaction_job *job, deed_str stream, bool *out_may,
                            struct deed_error *err)
{
    const struct closed_streams *closed = &job->closed;
    *out_may = closed->incomplete ||
               (closed->slots != NULL && closed_slot(closed, stream)->ptr != NULL);
    if (*out_may) return DEED_OK;
    return stream_has_metadata(job->store, job->view, stream, job->end, &job->arena, out_may, err);
}

/* ---- what is to become of an event ---------------------------------------------------------- */

static struct stream_notes *notes_of(struct compaction_job *job, deed_str stream)
{
    uint64_t hash = xxh64(0, deed_bytes_of(stream));
    return &job->streams[hash % STREAM_CACHE_SIZE];
}

/* The first revision that is not hidden. The tombstone is an event like any, the last one, and stays. */
static deed_status keep_from_load(struct compaction_job *job, deed_str stream, uint64_t *out,
                                  struct deed_error *err)
{
    struct stream_state s;
    bool may = false;
    *out = 0;
    arena_reset(&job->arena);
    deed_status status = may_hide(job, stream, &may, err);
    if (status != DEED_OK || !may) return status;
    status = stream_state_get(job->store, job->view, stream, job->end, &job->arena, &s, err);
    if (status != DEED_OK) return status;
    if (s.count == 0) return DEED_OK; /* damage took its last event; nothing is known of it */
    if (s.tombstoned) {
        *out = s.count - 1 + PLANTED(COMPACT_TOMBSTONES);
        return DEED_OK;
    }
    if (s.metadata_count == 0) return DEED_OK;
    status = stream_first_visible(job->store, &s, out, err);
    if (status == DEED_OK && *out > 0 && PLANTED(COMPACT_ONE_TOO_MANY)) *out += 1;
    return status;
}

static deed_status keep_from(struct compaction_job *job, deed_str stream, uint64_t *out,
                             struct deed_error *err)
{
    struct stream_notes *notes = notes_of(job, stream);
    if (notes->name.len > 0 && deed_str_equal(buf_str(&notes->name), stream)) {
        *out = notes->keep_from;
        return DEED_OK;
    }
    buf_done(&notes->name);
    deed_status status = keep_from_load(job, stream, out, err);
    if (status != DEED_OK) return status;
    buf_init(&notes->name, UINT16_MAX);
    buf_add_str(&notes->name, stream);
    if (!buf_ok(&notes->name)) buf_done(&notes->name); /* it is looked up again */
    notes->keep_from = *out;
    return DEED_OK;
}

static deed_status fate_in_compaction(struct compaction_job *job, const struct deed_event *event,
                                      enum event_fate *out, struct deed_error *err)
{
    *out = EVENT_KEEP;
    if (event->removed) return DEED_OK;
    if (index_is_system(event->stream)) { /* (2) */
        if (PLANTED(COMPACT_METADATA) && event->position > 1) *out = EVENT_REMOVE;
        return DEED_OK;
    }
    uint64_t first;
    deed_status status = keep_from(job, event->stream, &first, err);
    if (status == DEED_OK && event->revision < first) *out = EVENT_REMOVE;
    return status;
}

static enum event_fate fate_in_erasure(struct compaction_job *job, const struct deed_event *event)
{
    bool goes = false;
    if (deed_str_equal(event->stream, buf_str(&job->stream))) {
        goes = event->revision < job->erase_before || PLANTED(ERASE_WHAT_CAME_LATER);
    } else if (deed_str_equal(event->stream, buf_str(&job->metadata))) {
        goes = event->position < job->metadata_before;
    }
    job->erased += goes && event->erased;
    if (!goes || event->erased) return EVENT_KEEP;
    if (PLANTED(ERASE_REMOVES)) return event->removed ? EVENT_KEEP : EVENT_REMOVE;
    return EVENT_ERASE;
}

/* ---- looking at a segment ------------------------------------------------------------------- */

static deed_status note_fate(struct compaction_job *job, const struct deed_event *event,
                             struct deed_error *err)
{
    enum event_fate fate = EVENT_KEEP;
    deed_status status = DEED_OK;
    if (is_erasure(job)) {
        fate = fate_in_erasure(job, event);
    } else {
        status = fate_in_compaction(job, event, &fate, err);
    }
    if (status != DEED_OK) return status;
    assert(event->position >= job->first_position);
    uint64_t at = event->position - job->first_position;
    if (at >= job->fates_room) {
        size_t room = (size_t)at * 2 + 4096;
        uint8_t *grown = realloc(job->fates, room);
        if (grown == NULL) return deed_fail(err, DEED_NO_MEMORY, "compaction: out of memory");
        memset(grown + job->fates_room, EVENT_KEEP, room - job->fates_room);
        job->fates = grown;
        job->fates_room = room;
    }
    job->fates[at] = (uint8_t)fate;
    if (at >= job->fates_count) job->fates_count = (size_t)at + 1;
    if (fate != EVENT_KEEP && !event->removed) job->going++;
    if (fate != EVENT_KEEP && event->removed) job->worse++;
    return DEED_OK;
}

static deed_status look_at_commit(void *context, const struct commit *commit,
                                  const struct commit_ref *ref, struct deed_error *err)
{
    struct compaction_job *job = context;
    struct reader r = reader_over(commit->events);
    struct arena arena; /* the job's is for the index */
    deed_status status = DEED_OK;
    arena_init(&arena, SIZE_MAX);
    for (uint32_t i = 0; i < commit->event_count && status == DEED_OK; i++) {
        struct deed_event event;
        arena_reset(&arena);
        if (event_decode(&r, &arena, &event, NULL)) {
            status = note_fate(job, &event, err);
        } else if (arena.failed) {
            status = deed_fail(err, DEED_NO_MEMORY, "compaction: out of memory");
        } else {
            status = deed_fail(err, DEED_CORRUPT, "segment %u: the commit at offset %llu is malformed",
                               ref->segment, (unsigned long long)ref->offset);
        }
    }
    arena_done(&arena);
    return status;
}

static deed_status look_at_damage(void *context, const struct log_damage *damage,
                                  struct deed_error *err)
{
    struct compaction_job *job = context;
    (void)damage;
    (void)err;
    job->damaged = true;
    return DEED_OK;
}

/* Does the index know events of the erased stream in there? */
static deed_status may_hold(struct compaction_job *job, const struct sealed_footer *footer,
                            bool *out_may, struct deed_error *err)
{
    *out_may = true;
    if (!is_erasure(job)) return DEED_OK;
    const struct buf *names[] = {&job->stream, &job->metadata};
    uint64_t found = 0;
    for (size_t i = 0; i < 2 && found == 0; i++) {
        struct postings list;
        arena_reset(&job->arena);
        postings_open(&list, job->view, INDEX_STREAM, buf_str(names[i]), &job->arena);
        deed_status status = postings_next(&list, footer->first_position - 1,
                                           footer->last_position, &found, err);
        if (status != DEED_OK) return status;
    }
    *out_may = found != 0;
    return DEED_OK;
}

static deed_status look(struct compaction_job *job, uint32_t number,
                        const struct sealed_footer *footer, struct deed_error *err)
{
    struct log_visitor visitor = {
        .context = job, .commit = look_at_commit, .damage = look_at_damage};
    bool may = false;
    job->first_position = footer->first_position;
    job->fates_count = 0;
    job->going = job->worse = job->erased = 0;
    job->damaged = false;
    if (job->fates_room > 0) memset(job->fates, EVENT_KEEP, job->fates_room);
    job->end = log_end(job->store->log);
    job->view = index_view_take(job->store->index);
    deed_status status = may_hold(job, footer, &may, err);
    if (status == DEED_OK && may && !is_erasure(job)) status = closed_gather(job, err);
    if (status == DEED_OK && may) {
        status = log_scan_segment(job->store->log, number, &visitor, err);
    }
    index_view_drop(job->view);
    job->view = NULL;
    return status;
}

/* ---- rewriting it --------------------------------------------------------------------------- */

/* (1) */
static enum event_fate noted_fate(void *context, const struct deed_event *event)
{
    const struct compaction_job *job = context;
    uint64_t at = event->position - job->first_position;
    if (event->position < job->first_position || at >= job->fates_count) return EVENT_KEEP;
    return (enum event_fate)job->fates[at];
}

static void publish_segment(struct store *store, const struct compaction_job *job, bool rewritten,
                            uint64_t before, uint64_t after)
{
    struct compaction *c = &store->compaction;
    os_mutex_lock(&c->lock);
    c->status.segments_done++;
    c->status.skipped += job->damaged;
    if (rewritten) {
        c->status.rewritten++;
        c->status.events_removed += job->going;
        c->status.bytes_before += before;
        c->status.bytes_after += after;
        c->events_removed += job->going;
        c->bytes_reclaimed += before > after ? before - after : 0;
    }
    os_cond_broadcast(&c->changed);
    os_mutex_unlock(&c->lock);
}

/* (5) */
static bool may_come_back(struct store *store, const struct compaction_job *job, uint32_t number)
{
    struct log_segment_info info = {0};
    if (job->erased == 0 || PLANTED(ERASE_RESTS_ON_STUBS)) return false;
    return log_segment_info(store->log, number, &info, NULL) == DEED_OK && !info.settled;
}

static deed_status segment_step(struct store *store, struct compaction_job *job, uint32_t number,
                                struct deed_error *err)
{
    struct sealed_footer footer, after = {0};
    deed_status status = log_footer(store->log, number, &footer, err);
    if (status == DEED_OK) status = look(job, number, &footer, err);
    if (status == DEED_CORRUPT) {
        /* Its own trouble: verify tells of it. */
        job->damaged = true;
        status = DEED_OK;
    }
    if (status != DEED_OK) return status;
    bool packed = footer.map_blocks > 0;
    bool pack = job->compress_level > 0 && !packed && !is_erasure(job);
    bool rewrite = !job->damaged && (job->going > 0 || job->worse > 0 || pack ||
                                     may_come_back(store, job, number));
    if (rewrite) {
        struct log_rewrite how = {.decide = noted_fate,
                                  .context = job,
                                  .compress_level = job->compress_level > 0 ? job->compress_level
                                                    : packed                ? COMPRESS_LEVEL_DEFAULT
                                                                            : 0};
        status = log_rewrite(store->log, number, &how, err);
        horizon_forget(store);
        if (status == DEED_OK) status = log_footer(store->log, number, &after, err);
    }
    if (status != DEED_OK) return status;
    publish_segment(store, job, rewrite, footer.file_size, after.file_size);
    return DEED_OK;
}

/* ---- the job -------------------------------------------------------------------------------- */

struct listing {
    struct compaction_job *job;
    bool no_memory, waiting, damaged;
    uint32_t damaged_number;
};

static void list_segment(void *context, const struct log_segment_info *info)
{
    struct listing *listing = context;
    struct compaction_job *job = listing->job;
    if (info->number >= job->below || listing->no_memory) return;
    if (info->state == LOG_CLOSED && !info->damaged) listing->waiting = true;
    if (info->state == LOG_CLOSED && info->damaged) {
        listing->damaged = true;
        listing->damaged_number = info->number;
    }
    if (info->state != LOG_SEALED) return;
    if (job->count == job->room) {
        size_t room = job->room * 2 + 64;
        uint32_t *grown = realloc(job->segments, room * sizeof *grown);
        listing->no_memory = grown == NULL;
        if (grown == NULL) return;
        job->segments = grown;
        job->room = room;
    }
    job->segments[job->count++] = info->number;
}

/* The sealed segments; DEED_TIMEOUT: some are to be sealed first. */
static deed_status list_segments(struct store *store, struct compaction_job *job,
                                 struct deed_error *err)
{
    struct listing listing = {.job = job};
    job->count = 0;
    log_each_segment(store->log, list_segment, &listing);
    if (listing.no_memory) return deed_fail(err, DEED_NO_MEMORY, "compaction: out of memory");
    if (listing.waiting && job->roll) {
        struct log_seal_state seal;
        const char *stopped = log_stopped(store->log);
        if (stopped != NULL) {
            return deed_fail(err, DEED_STOPPED, "the log takes no writes: %.400s", stopped);
        }
        log_seal_get(store->log, &seal);
        if (seal.failing) {
            return deed_fail(err, DEED_STOPPED, "segments cannot be sealed: %.400s", seal.why);
        }
        return DEED_TIMEOUT;
    }
    if (listing.damaged && is_erasure(job)) {
        return deed_fail(err, DEED_CORRUPT,
                         "segment %u is damaged, and keeps what it may hold of stream %.*s",
                         listing.damaged_number, DEED_FMT(buf_str(&job->stream)));
    }
    return DEED_OK;
}

static void job_end(struct store *store, deed_status status, const struct deed_error *err)
{
    struct compaction *c = &store->compaction;
    os_mutex_lock(&c->lock);
    c->result = status;
    c->status.state = status == DEED_OK ? DEED_COMPACTION_DONE : DEED_COMPACTION_FAILED;
    c->jobs++;
    c->failed += status != DEED_OK;
    if (status != DEED_OK) memcpy(c->status.error, err->message, sizeof c->status.error);
    job_free(c->job);
    c->job = NULL;
    atomic_store(&c->asked, false);
    os_cond_broadcast(&c->changed);
    os_mutex_unlock(&c->lock);
}

/* One step of the job. DEED_END: it is done; DEED_TIMEOUT: it waits for the sealer. */
static deed_status job_step(struct store *store, struct compaction_job *job,
                            struct deed_error *err)
{
    deed_status status = DEED_OK;
    switch (job->phase) {
    case JOB_BEGIN:
        if (job->roll) status = store_roll(store, err);
        job->below = log_active(store->log);
        job->phase = JOB_LISTING;
        return status;
    case JOB_LISTING:
        status = list_segments(store, job, err);
        if (status != DEED_OK) return status;
        os_mutex_lock(&store->compaction.lock);
        store->compaction.status.segments = job->count;
        os_mutex_unlock(&store->compaction.lock);
        job->phase = JOB_SEGMENTS;
        return DEED_OK;
    case JOB_SEGMENTS: break;
    }
    if (job->next == job->count) return DEED_END;
    status = segment_step(store, job, job->segments[job->next], err);
    if (status == DEED_OK && job->damaged && is_erasure(job)) {
        return deed_fail(err, DEED_CORRUPT,
                         "segment %u is damaged, and keeps what it holds of stream %.*s",
                         job->segments[job->next], DEED_FMT(buf_str(&job->stream)));
    }
    job->next++;
    return status;
}

uint64_t compactor_step(void *context)
{
    struct store *store = context;
    struct compaction *c = &store->compaction;
    struct deed_error err = {0};
    if (!atomic_load(&c->asked)) return ACTOR_WAIT;
    deed_status status = DEED_STOPPED;
    if (atomic_load(&c->stop)) { /* (3) */
        (void)deed_fail(&err, status, "it was stopped on request: what it did until then counts");
    } else {
        status = job_step(store, c->job, &err);
    }
    if (status == DEED_OK) return ACTOR_AGAIN;
    /* BUSY: a part of the index is being built again. */
    if (status == DEED_TIMEOUT || status == DEED_BUSY) return LOOK_AGAIN_NS;
    job_end(store, status == DEED_END ? DEED_OK : status, &err);
    return ACTOR_AGAIN;
}

deed_status store_compaction_stop(struct store *store, uint64_t number, struct deed_error *err)
{
    struct compaction *c = &store->compaction;
    deed_status status = DEED_OK;
    os_mutex_lock(&c->lock);
    bool runs = c->status.state == DEED_COMPACTION_RUNNING && c->status.number == number;
    if (!runs) {
        status = deed_fail(err, DEED_NOT_FOUND, "compaction %llu: it does not run",
                           (unsigned long long)number);
    } else if (c->status.erase) {
        status = deed_fail(err, DEED_INVALID, "an erasure cannot be stopped: it was promised");
    } else {
        atomic_store(&c->stop, true);
    }
    os_mutex_unlock(&c->lock);
    if (status == DEED_OK) actor_wake(store->compactor);
    return status;
}

/* ---- asking --------------------------------------------------------------------------------- */

/* Take the only place; the job is given to the compactor later. */
static deed_status claim(struct store *store, bool erase, struct deed_error *err)
{
    struct compaction *c = &store->compaction;
    deed_status status = DEED_OK;
    const char *stopped = log_stopped(store->log);
    if (stopped != NULL) {
        return deed_fail(err, DEED_STOPPED, "the log takes no writes: %.400s", stopped);
    }
    os_mutex_lock(&c->lock);
    if (c->status.state == DEED_COMPACTION_RUNNING) {
        status = deed_fail(err, DEED_BUSY, "%s is running already",
                           c->status.erase ? "an erasure" : "a compaction");
    } else {
        c->status = (struct deed_compaction){
            .state = DEED_COMPACTION_RUNNING, .number = ++c->numbers, .erase = erase};
        c->result = DEED_OK;
        atomic_store(&c->stop, false);
    }
    os_mutex_unlock(&c->lock);
    return status;
}

static struct compaction_job *job_create(struct store *store, struct deed_error *err)
{
    struct compaction_job *job = calloc(1, sizeof *job);
    if (job == NULL) {
        (void)deed_fail(err, DEED_NO_MEMORY, "compaction: out of memory");
        return NULL;
    }
    job->store = store;
    buf_init(&job->stream, UINT16_MAX);
    buf_init(&job->metadata, UINT16_MAX + 2);
    arena_init(&job->arena, SIZE_MAX);
    arena_init(&job->closed.names, SIZE_MAX);
    return job;
}

static void hand_over(struct store *store, struct compaction_job *job)
{
    struct compaction *c = &store->compaction;
    assert(c->job == NULL);
    c->job = job;
    atomic_store(&c->asked, true);
    actor_wake(store->compactor);
}

deed_status store_compact(struct store *store, const struct deed_compact_options *options,
                          struct deed_error *err)
{
    if (options->compress_level < 0 || options->compress_level > COMPRESS_LEVEL_MAX) {
        return deed_fail(err, DEED_INVALID, "compress level %d: it must be 0 to %d",
                         options->compress_level, COMPRESS_LEVEL_MAX);
    }
    deed_status status = claim(store, false, err);
    if (status != DEED_OK) return status;
    struct deed_error why = {.status = DEED_NO_MEMORY};
    struct compaction_job *job = job_create(store, &why);
    if (job == NULL) {
        job_end(store, why.status, &why);
        if (err != NULL) *err = why;
        return why.status;
    }
    job->compress_level = options->compress_level;
    job->roll = options->active;
    hand_over(store, job);
    return DEED_OK;
}

/* (4): hide all that is there now; what to erase goes by that. */
static deed_status hide(struct store *store, deed_str stream, deed_str actor,
                        struct compaction_job *job, struct deed_error *err)
{
    struct stream_state s;
    struct deed_appended appended;
    uint64_t hidden = 0; /* by the deletion, though another's metadata may show it again by now */
    deed_status status = stream_writable(stream, err);
    if (status == DEED_OK) status = stream_state_now(store, stream, &s, err);
    if (status == DEED_OK && s.count == 0) status = stream_missing(job->store, stream, err);
    if (status == DEED_OK && index_is_system(stream)) {
        status = deed_fail(err, DEED_INVALID, "stream %.*s is the system's: it cannot be erased",
                           DEED_FMT(stream));
    }
    if (status == DEED_OK && !s.tombstoned && !stream_deleted(&s)) {
        hidden = s.count;
        status = store_delete_stream(store, stream, DEED_EXPECT_ANY, 0, false, actor, &appended, err);
        if (status == DEED_OK) status = stream_state_now(store, stream, &s, err);
    }
    if (status != DEED_OK) return status;
    job->metadata_before = s.metadata_position;
    job->erase_before = s.tombstoned ? s.count - 1 : s.retention.truncate_before;
    if (job->erase_before > s.count) job->erase_before = s.count;
    if (job->erase_before < hidden && !s.tombstoned) job->erase_before = hidden;
    return DEED_OK;
}

deed_status store_erase(struct store *store, deed_str stream, deed_str actor,
                        struct deed_error *err)
{
    deed_status status = claim(store, true, err);
    if (status != DEED_OK) return status;
    struct deed_error why = {.condition = DEED_NONE, .position = DEED_NONE, .revision = DEED_NONE};
    struct compaction_job *job = job_create(store, &why);
    status = job == NULL ? why.status : hide(store, stream, actor, job, &why);
    if (status == DEED_OK) {
        buf_add_str(&job->stream, stream);
        buf_printf(&job->metadata, METADATA_PREFIX "%.*s", DEED_FMT(stream));
        if (!buf_ok(&job->stream) || !buf_ok(&job->metadata)) {
            status = deed_fail(&why, DEED_NO_MEMORY, "erasure: out of memory");
        }
    }
    if (status != DEED_OK) {
        job_free(job);
        job_end(store, status, &why);
        if (err != NULL) *err = why;
        return status;
    }
    job->roll = !PLANTED(ERASE_WITHOUT_ROLL);
    hand_over(store, job);
    return DEED_OK;
}

void store_compaction(struct store *store, struct deed_compaction *out)
{
    os_mutex_lock(&store->compaction.lock);
    *out = store->compaction.status;
    os_mutex_unlock(&store->compaction.lock);
}

deed_status store_compaction_wait(struct store *store, struct deed_compaction *out,
                                  struct deed_error *err)
{
    struct compaction *c = &store->compaction;
    os_mutex_lock(&c->lock);
    c->waiters++;
    while (c->status.state == DEED_COMPACTION_RUNNING) {
        if (store->options.no_threads) {
            os_mutex_unlock(&c->lock);
            (void)store_step(store);
            os_mutex_lock(&c->lock);
        } else {
            (void)os_cond_wait(&c->changed, &c->lock, UINT64_MAX);
        }
    }
    deed_status status = c->result;
    if (out != NULL) *out = c->status;
    if (status != DEED_OK) status = deed_fail(err, status, "%s", c->status.error);
    c->waiters--;
    os_cond_broadcast(&c->changed);
    os_mutex_unlock(&c->lock);
    return status;
}
