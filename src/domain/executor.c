/* executor.c - commands become events.
 *
 *   submit ─► [same stream busy?] ─► ready ─► actor: load, decide (a batch at once) ─► store_submit
 *                   │ yes                ▲                                                  │
 *                   └─► followers        └──── conflict: again ◄──── committer's thread ◄───┘
 *                                                                         │ stored
 *                                                                         ▼
 *                                                              done; the first follower is ready
 *
 * (1) Of one stream at most one command is active, from ready to done. So commands of one executor
 *     never conflict with each other, and a batch never holds two decisions on one state. Other
 *     writers are found out by the append's condition: the revision decided on.
 * (2) The condition also names the revision of the stream's metadata, where there may be a soft
 *     delete: a decision on a state that has been deleted meanwhile is made again.
 * (3) A job is answered exactly once, by job_finish, whichever thread gets there.
 * (4) `lock` guards the queue and the table of streams; `host_lock` the host, which serves the actor
 *     and the readers of states in turn. Neither is held while `done` runs; host_lock is never
 *     wanted while lock is held. */
#include "domain/executor.h"

#include "base/hash.h"
#include "base/rw.h"
#include "base/uuid.h"
#include "domain/host.h"
#include "domain/load.h"
#include "json/json.h"
#include "os/failpoint.h"
#include "os/thread.h"

#include <assert.h>
#include <stdatomic.h>
#include <stdlib.h>

#define ATTEMPTS_MAX    8
#define QUEUE_COUNT_MAX 4096
/* Commands decided in one exchange with the host. */
#define BATCH_COUNT_MAX 64
/* Events that go with one request; more are sent ahead, in pieces of this size. */
#define CHUNK_SIZE (UINT64_C(1) << 20)
/* How often a host may have forgotten a slot in the middle of one job. */
#define FORGOTTEN_MAX 4
#define JOB_SIZE_MAX  (UINT64_C(1) << 30)
/* States per exchange when many are asked for. */
#define STATES_COUNT 32

struct command_entry {
    deed_str name, category, id_member;
};

enum job_phase {
    JOB_NEW,      /* to be decided */
    JOB_REPEATED, /* its events are stored: `first` to `last` */
};

struct job {
    struct job *next; /* in the ready list or among the followers */
    struct job *table_next;
    struct job *followers, *followers_last; /* on the active job: same stream, later */
    struct executor *executor;
    executor_done *done;
    void *context;
    uint64_t submitted_ticks;

    struct arena kept;  /* the command's strings */
    struct arena arena; /* of one attempt */
    const struct command_entry *entry;
    struct deed_command command;
    deed_str stream, correlation_id, causation_id;
    uint64_t stream_hash;
    bool has_id; /* false: the command lacks its id, the domain will say so */
    uint8_t request_hash[SHA256_SIZE];

    uint32_t attempts;
    enum job_phase phase;
    uint64_t first, last; /* JOB_REPEATED: positions */
    struct load load;
    int64_t now_ns;
    struct deed_append append;
    struct deed_new_event *events;
    struct deed_condition conditions[2];
};

struct job_list {
    struct job *first, *last;
};

struct executor {
    struct store *store;
    struct domain_host *host;
    struct executor_options options;
    struct actor *actor;
    struct arena names; /* of the model's tables */
    struct command_entry *commands;
    deed_str *categories;
    size_t command_count, category_count;

    struct os_mutex lock;
    struct os_cond idle; /* job_count became 0 */
    struct job_list ready;
    struct job **table; /* active jobs by stream; a power of two */
    size_t table_size;
    uint32_t job_count;
    bool closing;

    struct os_mutex host_lock;
    struct arena host_arena; /* answers of the actor's batch */

    _Atomic uint64_t commands_count, rejected, invalid, failed, conflicts, repeated, no_events;
    _Atomic uint64_t decide_buckets[STORE_HISTOGRAM_BUCKETS + 1], decide_sum_ns;
};

/* ---- queue ---------------------------------------------------------------------------------- */

static void list_push(struct job_list *list, struct job *job)
{
    job->next = NULL;
    *(list->last != NULL ? &list->last->next : &list->first) = job;
    list->last = job;
}

static struct job *list_pop(struct job_list *list)
{
    struct job *job = list->first;
    if (job == NULL) return NULL;
    list->first = job->next;
    if (list->first == NULL) list->last = NULL;
    job->next = NULL;
    return job;
}

static struct job **table_find(struct executor *ex, const struct job *job)
{
    struct job **at = &ex->table[job->stream_hash & (ex->table_size - 1)];
    while (*at != NULL && !((*at)->stream_hash == job->stream_hash &&
                            deed_str_equal((*at)->stream, job->stream))) {
        at = &(*at)->table_next;
    }
    return at;
}

/* (1). `lock` is held. */
static void job_enter(struct executor *ex, struct job *job)
{
    struct job **at = table_find(ex, job);
    if (*at == NULL) {
        *at = job;
        list_push(&ex->ready, job);
        return;
    }
    struct job *active = *at;
    struct job_list followers = {active->followers, active->followers_last};
    list_push(&followers, job);
    active->followers = followers.first;
    active->followers_last = followers.last;
}

/* The job leaves the table; the first of its followers takes its place. `lock` is held. */
static void job_leave(struct executor *ex, struct job *job)
{
    struct job **at = table_find(ex, job);
    assert(*at == job);
    struct job_list followers = {job->followers, job->followers_last};
    struct job *heir = list_pop(&followers);
    if (heir == NULL) {
        *at = job->table_next;
        return;
    }
    heir->followers = followers.first;
    heir->followers_last = followers.last;
    heir->table_next = job->table_next;
    *at = heir;
    list_push(&ex->ready, heir);
}

static void job_again(struct job *job)
{
    struct executor *ex = job->executor;
    os_mutex_lock(&ex->lock);
    list_push(&ex->ready, job);
    /* Before the lock is released: then the job may end, and the executor with it. */
    actor_wake(ex->actor);
    os_mutex_unlock(&ex->lock);
}

static void job_free(struct job *job)
{
    if (job == NULL) return;
    arena_done(&job->kept);
    arena_done(&job->arena);
    free(job);
}

static void count(_Atomic uint64_t *counter)
{
    atomic_fetch_add_explicit(counter, 1, memory_order_relaxed);
}

static void measure(struct executor *ex, const struct job *job)
{
    uint64_t ns = os_ticks_ns(store_os(ex->store)) - job->submitted_ticks;
    unsigned bucket = 0;
    while (bucket < STORE_HISTOGRAM_BUCKETS && ns > UINT64_C(1000) << bucket)
        bucket++;
    count(&ex->decide_buckets[bucket]);
    atomic_fetch_add_explicit(&ex->decide_sum_ns, ns, memory_order_relaxed);
}

static void count_failure(struct executor *ex, deed_status status)
{
    switch (status) {
    case DEED_REJECTED:
        count(&ex->rejected);
        break;
    case DEED_INVALID:
    case DEED_TOO_LARGE:
        count(&ex->invalid);
        break;
    default:
        count(&ex->failed);
        break;
    }
}

/* (3) Answer, then let the next command on the stream in: whoever sees the answer and sends another
 * command finds the stream free or is in line. */
static void job_finish(struct job *job, const struct deed_decided *decided,
                       const struct deed_event *events, const struct deed_error *err)
{
    struct executor *ex = job->executor;
    count(&ex->commands_count);
    if (decided == NULL) {
        count_failure(ex, err->status);
    } else if (decided->repeated) {
        count(&ex->repeated);
    } else if (decided->event_count == 0) {
        count(&ex->no_events);
    }
    measure(ex, job);
    deed_str stream = decided != NULL ? job->stream : (deed_str){0};
    job->done(job->context, decided, stream, events, decided != NULL ? decided->event_count : 0,
              err);

    os_mutex_lock(&ex->lock);
    job_leave(ex, job);
    bool more = ex->ready.first != NULL;
    bool idle = --ex->job_count == 0;
    /* The executor may be gone as soon as the lock is released with nothing left to do. */
    if (more) actor_wake(ex->actor);
    if (idle) os_cond_broadcast(&ex->idle);
    os_mutex_unlock(&ex->lock);
    job_free(job);
}

static void job_fail(struct job *job, deed_status status, struct deed_error *err)
{
    assert(status != DEED_OK);
    err->status = status;
    job_finish(job, NULL, NULL, err);
}

/* ---- after the store's answer ---------------------------------------------------------------- */

static struct deed_event event_stored(const struct job *job, const struct deed_new_event *e,
                                      const struct deed_appended *appended, size_t index,
                                      int64_t recorded_at_ns)
{
    bool first = index == 0 && job->append.idempotency_key.len > 0;
    return (struct deed_event){
        .position = appended->first_position + index,
        .revision = appended->first_revision + index,
        .id = e->id,
        .time_ns = e->time_ns,
        .recorded_at_ns = recorded_at_ns,
        .stream = e->stream,
        .type = e->type,
        .content_type = DEED_STR("application/json"),
        .data = e->data,
        .correlation_id = e->correlation_id,
        .causation_id = e->causation_id,
        .actor = e->actor,
        .idempotency_key = first ? job->append.idempotency_key : (deed_str){0},
        .request_hash = first ? job->append.request_hash : NULL,
    };
}

static void job_stored(struct job *job, const struct deed_appended *appended)
{
    size_t event_count = job->append.event_count;
    struct deed_event *events = arena_alloc_array(&job->arena, event_count, sizeof *events);
    if (events == NULL) {
        /* The events are stored; only telling them failed. The actor reads them back. */
        job->phase = JOB_REPEATED;
        job->first = appended->first_position;
        job->last = appended->position;
        job_again(job);
        return;
    }
    int64_t recorded_at_ns = 0;
    deed_status known =
        store_recorded_at(job->executor->store, appended->position, &recorded_at_ns, NULL);
    assert(known == DEED_OK); /* it is published before it is answered */
    (void)known;
    for (size_t i = 0; i < event_count; i++) {
        events[i] = event_stored(job, &job->events[i], appended, i, recorded_at_ns);
    }
    struct deed_decided decided = {.position = appended->position,
                                   .first_revision = appended->first_revision,
                                   .revision = appended->revision,
                                   .event_count = event_count};
    job_finish(job, &decided, events, NULL);
}

static void job_conflict(struct job *job, const struct deed_error *conflict)
{
    struct executor *ex = job->executor;
    struct deed_error err = *conflict;
    count(&ex->conflicts);
    /* When it is the metadata that moved, deciding again says whether the revision still holds. */
    if (job->command.has_if_match && err.condition == 0) {
        job_fail(job, DEED_STALE, &err);
    } else if (++job->attempts >= ex->options.attempts_max) {
        deed_wrap(&err, "other writers were faster %u times", job->attempts);
        job_fail(job, DEED_CONFLICT, &err);
    } else {
        job_again(job);
    }
}

/* On the committer's thread. */
static void append_done(void *context, const struct deed_appended *appended,
                        const struct deed_error *err)
{
    struct job *job = context;
    if (appended != NULL && appended->repeated) {
        /* The same command under the same key was faster: its events are the answer. */
        job->phase = JOB_REPEATED;
        job->first = appended->first_position;
        job->last = appended->position;
        job_again(job);
    } else if (appended != NULL) {
        job_stored(job, appended);
    } else if (err->status == DEED_CONFLICT && err->condition != DEED_NONE) {
        job_conflict(job, err);
    } else {
        struct deed_error failure = *err;
        job_fail(job, failure.status, &failure);
    }
}

/* ---- appending ------------------------------------------------------------------------------ */

static deed_uuid uuid_make(struct executor *ex, int64_t now_ns)
{
    uint8_t random[10];
    os_random(store_os(ex->store), random, sizeof random);
    return uuid_v7(now_ns, random);
}

/* (2) */
static void conditions_make(struct job *job)
{
    const struct load *load = &job->load;
    job->conditions[0] =
        (struct deed_condition){.kind = DEED_CONDITION_STREAM,
                                .stream = job->stream,
                                .expect = load->head == DEED_NONE ? DEED_EXPECT_NONE
                                                                  : DEED_EXPECT_REVISION,
                                .revision = load->head};
    job->append.conditions = job->conditions;
    job->append.condition_count = 1;

    deed_str metadata = arena_printf(&job->arena, "$$%.*s", DEED_FMT(job->stream));
    uint32_t name_size_max = store_limits(job->executor->store)->name_size_max;
    if (metadata.ptr == NULL || metadata.len > name_size_max) return;
    job->conditions[1] = (struct deed_condition){
        .kind = DEED_CONDITION_STREAM,
        .stream = metadata,
        .expect = load->metadata_revision == DEED_NONE ? DEED_EXPECT_NONE : DEED_EXPECT_REVISION,
        .revision = load->metadata_revision};
    job->append.condition_count = 2;
}

static deed_status append_make(struct job *job, const struct host_answer *answer,
                               struct deed_error *err)
{
    struct executor *ex = job->executor;
    job->events = arena_alloc_array(&job->arena, answer->event_count, sizeof *job->events);
    if (job->events == NULL) return deed_fail(err, DEED_NO_MEMORY, "no memory for the events");
    for (size_t i = 0; i < answer->event_count; i++) {
        struct deed_new_event *e = &job->events[i];
        *e = (struct deed_new_event){
            .stream = job->stream,
            .type = arena_str(&job->arena, answer->events[i].type),
            .data = arena_bytes(&job->arena, answer->events[i].data),
            .id = uuid_make(ex, job->now_ns),
            .time_ns = job->now_ns,
            .correlation_id = job->correlation_id,
            .causation_id = job->causation_id,
            .actor = job->command.actor,
        };
        if (e->type.ptr == NULL || e->data.ptr == NULL) {
            return deed_fail(err, DEED_NO_MEMORY, "no memory for the events");
        }
    }
    job->append = (struct deed_append){.events = job->events,
                                       .event_count = answer->event_count,
                                       .idempotency_key = job->command.idempotency_key};
    memcpy(job->append.request_hash, job->request_hash, sizeof job->request_hash);
    conditions_make(job);
    return DEED_OK;
}

static void job_accepted(struct job *job, const struct host_answer *answer)
{
    if (answer->event_count == 0) {
        /* The position of the state: nothing changed after it as far as this command knows. */
        struct deed_decided decided = {
            .position = job->load.position, .first_revision = DEED_NONE, .revision = DEED_NONE};
        job_finish(job, &decided, NULL, NULL);
        return;
    }
    struct deed_error err = {0};
    deed_status status = append_make(job, answer, &err);
    if (status == DEED_OK) {
        FAILPOINT("submit-before");
        status = store_submit(job->executor->store, &job->append, append_done, job, &err);
        FAILPOINT("submit-after");
    }
    if (status != DEED_OK) job_fail(job, status, &err);
}

/* ---- repeated ------------------------------------------------------------------------------- */

static deed_status events_read(struct job *job, struct deed_event **out_events, size_t *out_count,
                               struct deed_error *err)
{
    size_t room = (size_t)(job->last - job->first + 1);
    struct deed_event *events = arena_alloc_array(&job->arena, room, sizeof *events);
    if (events == NULL) return deed_fail(err, DEED_NO_MEMORY, "no memory for the events");
    struct deed_read_options options = {
        .after_position = job->first - 1,
        .until_position = job->last,
        .filter = {.system = true},
        .removed = true, /* the first answer, as far as it is stored */
    };
    struct deed_cursor *cursor = NULL;
    deed_status status = store_read(job->executor->store, &options, &cursor, err);
    if (status != DEED_OK) return status;
    size_t n = 0;
    while (n < room && (status = cursor_next(cursor, &events[n], err)) == DEED_OK) {
        struct deed_event *e = &events[n++];
        e->stream = arena_str(&job->arena, e->stream);
        e->type = arena_str(&job->arena, e->type);
        e->content_type = arena_str(&job->arena, e->content_type);
        e->data = arena_bytes(&job->arena, e->data);
        e->metadata = arena_bytes(&job->arena, e->metadata);
        e->correlation_id = arena_str(&job->arena, e->correlation_id);
        e->causation_id = arena_str(&job->arena, e->causation_id);
        e->actor = arena_str(&job->arena, e->actor);
        e->idempotency_key = arena_str(&job->arena, e->idempotency_key);
        e->request_hash = NULL;
        e->tags = NULL;
        e->tag_count = 0;
        if (e->actor.ptr == NULL || e->idempotency_key.ptr == NULL || e->data.ptr == NULL) {
            status = deed_fail(err, DEED_NO_MEMORY, "no memory for the events");
            break;
        }
    }
    cursor_close(cursor);
    *out_events = events;
    *out_count = n;
    return status == DEED_END ? DEED_OK : status;
}

static void job_repeat(struct job *job)
{
    struct deed_error err = {0};
    struct deed_event *events = NULL;
    size_t n = 0;
    deed_status status = events_read(job, &events, &n, &err);
    if (status == DEED_OK && n == 0) {
        status = deed_fail(&err, DEED_GONE, "the events of the first answer are no longer stored");
    }
    if (status != DEED_OK) {
        job_fail(job, status, &err);
        return;
    }
    struct deed_decided decided = {.position = events[n - 1].position,
                                   .first_revision = events[0].revision,
                                   .revision = events[n - 1].revision,
                                   .event_count = n,
                                   .repeated = true};
    job_finish(job, &decided, events, NULL);
}

/* DEED_END: the key is new, or there is none. DEED_OK: first and last are set. */
static deed_status key_check(struct job *job, struct deed_error *err)
{
    deed_str key = job->command.idempotency_key;
    if (key.len == 0) return DEED_END;
    uint8_t hash[SHA256_SIZE];
    deed_status status =
        store_find_key(job->executor->store, key, hash, &job->first, &job->last, err);
    if (status == DEED_NOT_FOUND) return DEED_END;
    if (status != DEED_OK) return status;
    if (memcmp(hash, job->request_hash, sizeof hash) != 0) {
        status = deed_fail(err, DEED_CONFLICT,
                           "idempotency key %.*s was used for another request, at position %llu",
                           DEED_FMT(key), (unsigned long long)job->first);
        err->position = job->first;
        return status;
    }
    job->phase = JOB_REPEATED;
    return DEED_OK;
}

/* ---- deciding ------------------------------------------------------------------------------- */

static deed_status if_match_check(const struct job *job, struct deed_error *err)
{
    if (!job->command.has_if_match || job->command.if_match == job->load.target) return DEED_OK;
    deed_status status;
    if (job->load.target == DEED_NONE) {
        status =
            deed_fail(err, DEED_STALE, "stream %.*s does not exist, revision %llu was asked for",
                      DEED_FMT(job->stream), (unsigned long long)job->command.if_match);
    } else if (job->command.if_match == DEED_NONE) {
        status = deed_fail(err, DEED_STALE, "stream %.*s exists, at revision %llu",
                           DEED_FMT(job->stream), (unsigned long long)job->load.target);
    } else {
        status = deed_fail(err, DEED_STALE,
                           "stream %.*s is at revision %llu, revision %llu was asked for",
                           DEED_FMT(job->stream), (unsigned long long)job->load.target,
                           (unsigned long long)job->command.if_match);
    }
    err->revision = job->load.target;
    return status;
}

/* Fold all but the last chunk onto the slot, so that what is left fits into one request. The host is
 * locked. DEED_BUSY: the host forgot the slot in between. */
static deed_status load_ahead(struct executor *ex, struct load *load, struct arena *arena,
                              struct host_event **out_events, size_t *out_count,
                              struct deed_error *err)
{
    for (;;) {
        deed_status status = load_events(load, CHUNK_SIZE, arena, out_events, out_count, NULL, err);
        if (status != DEED_OK || *out_count == 0) return status;
        uint64_t last = (*out_events)[*out_count - 1].revision;
        if (last >= load->target) return DEED_OK;

        struct arena scratch;
        arena_init(&scratch, JOB_SIZE_MAX);
        struct host_request request = {.work = HOST_FOLD,
                                       .slot = load->slot,
                                       .stream = load->stream,
                                       .base_revision = load->base,
                                       .events = *out_events,
                                       .event_count = *out_count};
        struct host_answer answer;
        host_run(ex->host, &request, 1, &answer, &scratch);
        arena_done(&scratch);
        arena_reset(arena);
        if (answer.outcome == HOST_NEED_EVENTS) return DEED_BUSY;
        if (answer.outcome == HOST_FAILED) {
            *err = answer.error;
            return answer.error.status;
        }
        load->base = last;
    }
}

/* `events` arena: what the request needs until the host has answered. */
static deed_status request_make(struct executor *ex, struct load *load, bool from_nothing,
                                struct arena *events, struct host_request *out,
                                struct deed_error *err)
{
    deed_status status;
    unsigned forgotten = 0;
    struct host_event *list = NULL;
    size_t event_count = 0;
    do {
        load_base(load, host_slot_revision(ex->host, load->slot), from_nothing);
        status = load_ahead(ex, load, events, &list, &event_count, err);
        from_nothing = true;
    } while (status == DEED_BUSY && ++forgotten < FORGOTTEN_MAX);
    if (status == DEED_BUSY) {
        return deed_fail(err, DEED_DOMAIN, "the domain does not keep the state of %.*s",
                         DEED_FMT(load->stream));
    }
    out->slot = load->slot;
    out->stream = load->stream;
    out->base_revision = load->base;
    out->events = list;
    out->event_count = event_count;
    return status;
}

/* Everything before the host is needed. DEED_END: the events are stored already. */
static deed_status job_prepare(struct job *job, struct deed_error *err)
{
    struct executor *ex = job->executor;
    arena_reset(&job->arena);
    deed_status status = job->phase == JOB_NEW ? key_check(job, err) : DEED_OK;
    if (status != DEED_END) return status == DEED_OK ? DEED_END : status;

    job->now_ns = os_now_ns(store_os(ex->store));
    if (!job->has_id) return DEED_OK;
    /* The slot's name must outlive the events' arena, so it is in the other. */
    status = load_open(&job->load, ex->store, job->stream, &job->kept, err);
    return status == DEED_OK ? if_match_check(job, err) : status;
}

/* The host is locked. */
static deed_status job_request(struct job *job, bool from_nothing, struct host_request *out,
                               struct deed_error *err)
{
    *out = (struct host_request){.work = HOST_DECIDE,
                                 .stream = job->stream,
                                 .base_revision = DEED_NONE,
                                 .command = job->entry->name,
                                 .data = job->command.data,
                                 .now_ns = job->now_ns,
                                 .actor = job->command.actor};
    if (!job->has_id) return DEED_OK;
    return request_make(job->executor, &job->load, from_nothing, &job->arena, out, err);
}

static void job_answer(struct job *job, const struct host_answer *answer)
{
    struct deed_error err = answer->error;
    if (answer->outcome == HOST_NEED_EVENTS) {
        (void)deed_fail(&err, DEED_DOMAIN, "the domain does not keep the state of %.*s",
                        DEED_FMT(job->stream));
        job_fail(job, DEED_DOMAIN, &err);
    } else if (answer->outcome == HOST_FAILED) {
        job_fail(job, answer->error.status, &err);
    } else if (!job->has_id) {
        (void)deed_fail(&err, DEED_INVALID, "%.*s: %.*s is missing", DEED_FMT(job->entry->name),
                        DEED_FMT(job->entry->id_member));
        job_fail(job, DEED_INVALID, &err);
    } else {
        job_accepted(job, answer);
    }
}

static void answer_failed(struct host_answer *answer, deed_status status,
                          const struct deed_error *err)
{
    *answer = (struct host_answer){.outcome = HOST_FAILED, .error = *err};
    answer->error.status = status;
}

/* One exchange with the host for all of them; a second one, alone, for each whose state the host
 * had forgotten. */
static void jobs_decide(struct executor *ex, struct job *const *jobs, size_t n,
                        struct host_answer *answers)
{
    struct host_request requests[BATCH_COUNT_MAX];
    struct host_answer batch[BATCH_COUNT_MAX];
    size_t place[BATCH_COUNT_MAX];
    size_t ready = 0;
    struct deed_error err = {0};
    os_mutex_lock(&ex->host_lock);
    for (size_t i = 0; i < n; i++) {
        deed_status status = job_request(jobs[i], false, &requests[ready], &err);
        if (status == DEED_OK) {
            place[ready++] = i;
        } else {
            answer_failed(&answers[i], status, &err);
        }
    }
    host_run(ex->host, requests, ready, batch, &ex->host_arena);
    for (size_t r = 0; r < ready; r++) {
        size_t i = place[r];
        answers[i] = batch[r];
        for (unsigned again = 0; answers[i].outcome == HOST_NEED_EVENTS && again < FORGOTTEN_MAX;
             again++) {
            arena_reset(&jobs[i]->arena);
            deed_status status = job_request(jobs[i], true, &requests[r], &err);
            if (status != DEED_OK) {
                answer_failed(&answers[i], status, &err);
            } else {
                host_run(ex->host, &requests[r], 1, &answers[i], &ex->host_arena);
            }
        }
    }
    os_mutex_unlock(&ex->host_lock);
}

static void batch_run(struct executor *ex, struct job *const *jobs, size_t job_count)
{
    struct job *deciding[BATCH_COUNT_MAX];
    struct host_answer answers[BATCH_COUNT_MAX];
    size_t n = 0;
    for (size_t i = 0; i < job_count; i++) {
        struct deed_error err = {0};
        deed_status status = job_prepare(jobs[i], &err);
        if (status == DEED_OK) {
            deciding[n++] = jobs[i];
        } else if (status == DEED_END) {
            job_repeat(jobs[i]);
        } else {
            job_fail(jobs[i], status, &err);
        }
    }
    if (n == 0) return;
    arena_reset(&ex->host_arena);
    jobs_decide(ex, deciding, n, answers);
    for (size_t i = 0; i < n; i++)
        job_answer(deciding[i], &answers[i]);
}

static uint64_t step(void *context)
{
    struct executor *ex = context;
    struct job *jobs[BATCH_COUNT_MAX];
    size_t n = 0;
    os_mutex_lock(&ex->lock);
    while (n < BATCH_COUNT_MAX && ex->ready.first != NULL)
        jobs[n++] = list_pop(&ex->ready);
    os_mutex_unlock(&ex->lock);
    if (n == 0) return ACTOR_WAIT;
    batch_run(ex, jobs, n);
    return ACTOR_AGAIN;
}

bool executor_step(struct executor *ex)
{
    return step(ex) == ACTOR_AGAIN;
}

/* ---- submitting ----------------------------------------------------------------------------- */

static const struct command_entry *command_find(const struct executor *ex, deed_str name)
{
    for (size_t i = 0; i < ex->command_count; i++) {
        if (deed_str_equal(ex->commands[i].name, name)) return &ex->commands[i];
    }
    return NULL;
}

static void hash_make(struct job *job)
{
    const struct deed_command *c = &job->command;
    uint8_t head[8 + 1 + 8];
    put_uint(head, c->name.len, 8);
    head[8] = c->has_if_match;
    put_uint(head + 9, c->has_if_match ? c->if_match : 0, 8);
    const deed_bytes parts[] = {{head, sizeof head}, deed_bytes_of(c->name), c->data};
    sha256(parts, 3, job->request_hash);
}

/* Its stream, from the member that names the aggregate. Where that is missing or no text, the
 * domain says so, with everything else that is wrong. */
static deed_status stream_make(struct job *job, struct deed_error *err)
{
    struct arena arena;
    arena_init(&arena, JOB_SIZE_MAX);
    json_value root;
    deed_status status = json_parse(&arena, job->command.data, 64, &root, err);
    if (status == DEED_OK) {
        deed_str id = json_text(json_get(root, job->entry->id_member));
        job->has_id = id.len > 0;
        job->stream = arena_printf(&job->kept, "%.*s-", DEED_FMT(job->entry->category));
        if (job->has_id && job->stream.ptr != NULL) {
            job->stream =
                arena_printf(&job->kept, "%.*s-%.*s", DEED_FMT(job->entry->category), DEED_FMT(id));
        }
        if (job->stream.ptr == NULL) status = deed_fail(err, DEED_NO_MEMORY, "no memory");
        /* printf ends at a NUL; a stream's name cannot have one anyway. */
        if (id.ptr != NULL && memchr(id.ptr, '\0', id.len) != NULL) {
            status = deed_fail(err, DEED_INVALID, "%.*s has a NUL in it",
                               DEED_FMT(job->entry->id_member));
        }
    }
    if (status != DEED_OK) deed_wrap(err, "%.*s", DEED_FMT(job->command.name));
    arena_done(&arena);
    return status;
}

static bool command_copy(struct job *job, const struct deed_command *c)
{
    struct arena *a = &job->kept;
    job->command = *c;
    deed_str *const texts[] = {&job->command.name, &job->command.idempotency_key,
                               &job->command.correlation_id, &job->command.causation_id,
                               &job->command.actor};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        *texts[i] = arena_str(a, *texts[i]);
        if (texts[i]->ptr == NULL) return false;
    }
    job->command.data = arena_bytes(a, c->data);
    return job->command.data.ptr != NULL;
}

/* A command's own id is its events' causation, and its correlation unless one is given. */
static bool ids_make(struct job *job)
{
    struct executor *ex = job->executor;
    if (uuid_is_zero(job->command.id)) {
        job->command.id = uuid_make(ex, os_now_ns(store_os(ex->store)));
    }
    char text[UUID_TEXT_SIZE + 1];
    uuid_format(job->command.id, text);
    deed_str own = arena_str(&job->kept, deed_str_of(text));
    job->correlation_id = job->command.correlation_id.len > 0 ? job->command.correlation_id : own;
    job->causation_id = job->command.causation_id.len > 0 ? job->command.causation_id : own;
    return own.ptr != NULL;
}

static deed_status job_make(struct executor *ex, const struct deed_command *command,
                            executor_done *done, void *context, struct job **out_job,
                            struct deed_error *err)
{
    *out_job = NULL;
    const struct command_entry *entry = command_find(ex, command->name);
    if (entry == NULL) {
        return deed_fail(err, DEED_NOT_FOUND, "there is no command %.*s", DEED_FMT(command->name));
    }
    struct job *job = calloc(1, sizeof *job);
    if (job == NULL) return deed_fail(err, DEED_NO_MEMORY, "no memory for a command");
    job->executor = ex;
    job->done = done;
    job->context = context;
    job->entry = entry;
    job->submitted_ticks = os_ticks_ns(store_os(ex->store));
    arena_init(&job->kept, JOB_SIZE_MAX);
    arena_init(&job->arena, JOB_SIZE_MAX);
    deed_status status = DEED_OK;
    if (!command_copy(job, command) || !ids_make(job)) {
        status = deed_fail(err, DEED_NO_MEMORY, "no memory for a command");
    }
    if (status == DEED_OK) status = stream_make(job, err);
    if (status != DEED_OK) {
        job_free(job);
        return status;
    }
    job->stream_hash = xxh64(0, deed_bytes_of(job->stream));
    hash_make(job);
    *out_job = job;
    return DEED_OK;
}

deed_status executor_submit(struct executor *ex, const struct deed_command *command,
                            executor_done *done, void *context, struct deed_error *err)
{
    struct job *job = NULL;
    deed_status status = job_make(ex, command, done, context, &job, err);
    if (status != DEED_OK) {
        count(&ex->commands_count);
        count_failure(ex, status);
        return status;
    }
    os_mutex_lock(&ex->lock);
    uint32_t waiting = ex->job_count;
    bool closing = ex->closing;
    bool full = waiting >= ex->options.queue_count_max;
    if (!closing && !full) {
        ex->job_count++;
        job_enter(ex, job);
        actor_wake(ex->actor);
    }
    os_mutex_unlock(&ex->lock);
    if (!closing && !full) return DEED_OK;
    job_free(job);
    if (closing) return deed_fail(err, DEED_STOPPED, "the executor is closing");
    return deed_fail(err, DEED_BUSY, "%u commands are waiting, limit %u", waiting,
                     ex->options.queue_count_max);
}

struct waiter {
    struct os_mutex lock;
    struct os_cond cond;
    bool answered, no_memory;
    struct deed_decided decided;
    struct deed_error error;
    deed_status status;
    struct arena *arena;
    deed_str stream;
};

static void waiter_done(void *context, const struct deed_decided *decided, deed_str stream,
                        const struct deed_event *events, size_t event_count,
                        const struct deed_error *err)
{
    (void)events;
    (void)event_count;
    struct waiter *w = context;
    os_mutex_lock(&w->lock);
    if (decided != NULL) {
        w->status = DEED_OK;
        w->decided = *decided;
        /* The caller waits, so its arena is ours. */
        if (w->arena != NULL) w->stream = arena_str(w->arena, stream);
    } else {
        w->status = err->status;
        w->error = *err;
    }
    w->answered = true;
    os_cond_signal(&w->cond);
    os_mutex_unlock(&w->lock);
}

static void wait_for(struct executor *ex, struct waiter *w)
{
    if (ex->options.no_threads) {
        while (!w->answered) {
            bool stepped = executor_step(ex);
            stepped = store_step(ex->store) || stepped;
            assert(stepped || w->answered);
        }
        return;
    }
    os_mutex_lock(&w->lock);
    while (!w->answered)
        (void)os_cond_wait(&w->cond, &w->lock, UINT64_MAX);
    os_mutex_unlock(&w->lock);
}

deed_status executor_decide(struct executor *ex, const struct deed_command *command,
                            struct deed_decided *out_decided, struct arena *arena,
                            deed_str *out_stream, struct deed_error *err)
{
    struct waiter w = {.arena = out_stream == NULL ? NULL : arena};
    os_mutex_init(&w.lock);
    os_cond_init(&w.cond);
    deed_status status = executor_submit(ex, command, waiter_done, &w, err);
    if (status == DEED_OK) {
        wait_for(ex, &w);
        status = w.status;
        if (status == DEED_OK) {
            *out_decided = w.decided;
            if (out_stream != NULL) *out_stream = w.stream;
        } else if (err != NULL) {
            *err = w.error;
        }
    }
    os_cond_done(&w.cond);
    os_mutex_done(&w.lock);
    return status;
}

/* ---- states --------------------------------------------------------------------------------- */

deed_str executor_aggregate(const struct executor *ex, deed_str category)
{
    for (size_t i = 0; i < ex->category_count; i++) {
        if (deed_str_equal(ex->categories[i], category)) return ex->categories[i];
    }
    return (deed_str){0};
}

static deed_status state_open(struct executor *ex, deed_str stream, uint64_t revision,
                              struct arena *arena, struct load *load, struct deed_error *err)
{
    const char *dash = stream.len == 0 ? NULL : memchr(stream.ptr, '-', stream.len);
    deed_str category = {stream.ptr, dash == NULL ? 0 : (size_t)(dash - stream.ptr)};
    if (executor_aggregate(ex, category).ptr == NULL) {
        return deed_fail(err, DEED_NOT_FOUND, "stream %.*s is of no aggregate", DEED_FMT(stream));
    }
    deed_status status = load_open(load, ex->store, stream, arena, err);
    if (status == DEED_OK) status = load_aim(load, revision, err);
    if (status != DEED_OK) return status;
    if (load->target == load->head) return DEED_OK;
    /* An older state must not take the newest one's place. */
    load->slot = arena_printf(arena, "%.*s%cstate", DEED_FMT(stream), '\0');
    return load->slot.ptr != NULL ? DEED_OK : deed_fail(err, DEED_NO_MEMORY, "no memory");
}

static deed_status position_of(struct executor *ex, const struct load *load, uint64_t *out_position,
                               struct deed_error *err)
{
    *out_position = load->position;
    if (load->target == load->head) return DEED_OK;
    struct deed_read_options options = {.stream = load->stream,
                                        .from_revision = load->target,
                                        .count_max = 1,
                                        .ignore_retention = true,
                                        .removed = true};
    struct deed_cursor *cursor = NULL;
    deed_status status = store_read(ex->store, &options, &cursor, err);
    if (status != DEED_OK) return status;
    struct deed_event event;
    status = cursor_next(cursor, &event, err);
    if (status == DEED_OK) *out_position = event.position;
    cursor_close(cursor);
    return status == DEED_END ? deed_fail(err, DEED_NOT_FOUND, "the event is gone") : status;
}

static deed_status state_run(struct executor *ex, struct load *load, struct arena *arena,
                             struct host_answer *out_answer, struct deed_error *err)
{
    *out_answer = (struct host_answer){.outcome = HOST_NEED_EVENTS};
    struct arena events;
    arena_init(&events, JOB_SIZE_MAX);
    deed_status status = DEED_OK;
    bool from_nothing = load->target != load->head;
    os_mutex_lock(&ex->host_lock);
    for (unsigned i = 0; i < FORGOTTEN_MAX && out_answer->outcome == HOST_NEED_EVENTS; i++) {
        struct host_request request = {.work = HOST_STATE};
        arena_reset(&events);
        status = request_make(ex, load, from_nothing || i > 0, &events, &request, err);
        if (status != DEED_OK) break;
        host_run(ex->host, &request, 1, out_answer, arena);
    }
    os_mutex_unlock(&ex->host_lock);
    arena_done(&events);
    if (status != DEED_OK) return status;
    if (out_answer->outcome == HOST_DONE) return DEED_OK;
    if (out_answer->outcome == HOST_NEED_EVENTS) {
        return deed_fail(err, DEED_DOMAIN, "the domain does not keep the state of %.*s",
                         DEED_FMT(load->stream));
    }
    if (err != NULL) *err = out_answer->error;
    return out_answer->error.status;
}

deed_status executor_state(struct executor *ex, deed_str stream, uint64_t revision, struct buf *out,
                           uint64_t *out_revision, uint64_t *out_position, struct deed_error *err)
{
    struct arena arena;
    arena_init(&arena, JOB_SIZE_MAX);
    struct load load;
    struct host_answer answer;
    uint64_t position = 0;
    struct deed_error error = {0};
    deed_status status = state_open(ex, stream, revision, &arena, &load, &error);
    if (status == DEED_OK) status = position_of(ex, &load, &position, &error);
    if (status == DEED_OK) status = state_run(ex, &load, &arena, &answer, &error);
    if (status == DEED_OK) {
        buf_add(out, answer.state.ptr, answer.state.len);
        if (!buf_ok(out)) {
            status = deed_fail(&error, DEED_TOO_LARGE, "the state of %.*s has %zu bytes",
                               DEED_FMT(stream), answer.state.len);
        }
    }
    if (status == DEED_OK) {
        if (out_revision != NULL) *out_revision = load.target;
        if (out_position != NULL) *out_position = position;
    } else if (err != NULL) {
        *err = error;
    }
    arena_done(&arena);
    return status;
}

/* A walk through an aggregate's states, in a slot of its own. */
struct walk {
    struct executor *ex;
    struct load load;
    struct arena arena, batch;
    struct deed_cursor *cursor;
    uint64_t at; /* the slot's revision */
    executor_each_state *each;
    void *context;
    bool stopped;
};

static deed_status event_keep(struct arena *arena, struct deed_event *e, struct deed_error *err)
{
    e->stream = arena_str(arena, e->stream);
    e->type = arena_str(arena, e->type);
    e->content_type = arena_str(arena, e->content_type);
    e->data = arena_bytes(arena, e->data);
    e->metadata = arena_bytes(arena, e->metadata);
    e->correlation_id = arena_str(arena, e->correlation_id);
    e->causation_id = arena_str(arena, e->causation_id);
    e->actor = arena_str(arena, e->actor);
    e->idempotency_key = arena_str(arena, e->idempotency_key);
    e->request_hash = NULL;
    e->tags = NULL;
    e->tag_count = 0;
    bool ok = e->idempotency_key.ptr != NULL && e->data.ptr != NULL && e->metadata.ptr != NULL;
    return ok ? DEED_OK : deed_fail(err, DEED_NO_MEMORY, "no memory for the events");
}

/* Up to STATES_COUNT events and the states after them. DEED_END: there are no more. */
static deed_status walk_batch(struct walk *w, struct deed_error *err)
{
    struct deed_event events[STATES_COUNT];
    struct host_event folded[STATES_COUNT];
    struct host_request requests[STATES_COUNT];
    struct host_answer answers[STATES_COUNT];
    size_t n = 0;
    deed_status status = DEED_OK;
    arena_reset(&w->batch);
    while (n < STATES_COUNT && (status = cursor_next(w->cursor, &events[n], err)) == DEED_OK) {
        status = load_whole(w->load.stream, &events[n], err);
        if (status != DEED_OK) return status;
        status = event_keep(&w->batch, &events[n], err);
        if (status != DEED_OK) return status;
        folded[n] = load_event(&events[n]);
        requests[n] = (struct host_request){.work = HOST_STATE,
                                            .slot = w->load.slot,
                                            .stream = w->load.stream,
                                            .base_revision = w->at,
                                            .events = &folded[n],
                                            .event_count = 1};
        w->at = events[n++].revision;
    }
    if (status != DEED_OK && status != DEED_END) return status;
    if (n == 0) return DEED_END;
    os_mutex_lock(&w->ex->host_lock);
    host_run(w->ex->host, requests, n, answers, &w->batch);
    os_mutex_unlock(&w->ex->host_lock);
    for (size_t i = 0; i < n && !w->stopped; i++) {
        if (answers[i].outcome == HOST_NEED_EVENTS) {
            return deed_fail(err, DEED_DOMAIN, "the domain does not keep the state of %.*s",
                             DEED_FMT(w->load.stream));
        }
        if (answers[i].outcome == HOST_FAILED) {
            *err = answers[i].error;
            return err->status;
        }
        w->stopped = !w->each(w->context, &events[i], answers[i].state);
    }
    return w->stopped ? DEED_END : DEED_OK;
}

/* The state before the walk's first event. */
static deed_status walk_begin(struct walk *w, uint64_t from, struct deed_error *err)
{
    uint64_t to = w->load.target;
    w->at = DEED_NONE;
    deed_bytes before = {0};
    if (from > w->load.first) {
        struct host_answer answer;
        w->load.target = from - 1;
        deed_status status = state_run(w->ex, &w->load, &w->arena, &answer, err);
        if (status != DEED_OK) return status;
        before = answer.state;
        w->at = from - 1;
    }
    w->stopped = !w->each(w->context, NULL, before);
    struct deed_read_options options = {.stream = w->load.stream,
                                        .from_revision = from,
                                        .count_max = to - from + 1,
                                        .ignore_retention = true,
                                        .removed = true};
    return store_read(w->ex->store, &options, &w->cursor, err);
}

deed_status executor_states(struct executor *ex, deed_str stream, uint64_t from_revision,
                            uint64_t to_revision, executor_each_state *each, void *context,
                            struct deed_error *err)
{
    static _Atomic uint64_t walks;
    struct walk w = {.ex = ex, .each = each, .context = context};
    struct deed_error error = {0};
    arena_init(&w.arena, JOB_SIZE_MAX);
    arena_init(&w.batch, JOB_SIZE_MAX);
    deed_status status = state_open(ex, stream, to_revision, &w.arena, &w.load, &error);
    if (status == DEED_OK) {
        uint64_t from = from_revision < w.load.first ? w.load.first : from_revision;
        w.load.slot = arena_printf(&w.arena, "%.*s%cwalk%llu", DEED_FMT(stream), '\0',
                                   (unsigned long long)atomic_fetch_add(&walks, 1));
        if (w.load.slot.ptr == NULL) status = deed_fail(&error, DEED_NO_MEMORY, "no memory");
        if (from > w.load.target) status = load_aim(&w.load, from, &error);
        if (status == DEED_OK) status = walk_begin(&w, from, &error);
    }
    while (status == DEED_OK && !w.stopped)
        status = walk_batch(&w, &error);
    cursor_close(w.cursor);
    arena_done(&w.arena);
    arena_done(&w.batch);
    if (status == DEED_END) return DEED_OK;
    if (status != DEED_OK && err != NULL) *err = error;
    return status;
}

/* ---- life ----------------------------------------------------------------------------------- */

deed_str executor_model(const struct executor *ex)
{
    return host_model(ex->host);
}

static deed_status model_commands(struct executor *ex, json_value aggregate, deed_str category,
                                  struct deed_error *err)
{
    json_value commands = json_get(aggregate, DEED_STR("commands"));
    for (struct json_iterator i = json_iterate(commands); json_next(&i);) {
        struct command_entry *entry = &ex->commands[ex->command_count++];
        entry->name = json_text(json_get(i.value, DEED_STR("name")));
        entry->id_member = json_text(json_get(i.value, DEED_STR("id")));
        entry->category = category;
        if (entry->name.len == 0 || entry->id_member.len == 0) {
            return deed_fail(err, DEED_DOMAIN,
                             "the domain's model has a command without name or id");
        }
    }
    return DEED_OK;
}

/* The tables borrow the model's text, which the host keeps. */
static deed_status model_read(struct executor *ex, struct deed_error *err)
{
    json_value root;
    deed_status status =
        json_parse(&ex->names, deed_bytes_of(host_model(ex->host)), 64, &root, err);
    if (status != DEED_OK) {
        deed_wrap(err, "the domain's model");
        return status;
    }
    json_value aggregates = json_get(root, DEED_STR("aggregates"));
    size_t command_count = 0;
    for (struct json_iterator i = json_iterate(aggregates); json_next(&i);) {
        command_count += json_count(json_get(i.value, DEED_STR("commands")));
    }
    ex->commands = arena_alloc_array(&ex->names, command_count, sizeof *ex->commands);
    ex->categories = arena_alloc_array(&ex->names, json_count(aggregates), sizeof *ex->categories);
    if (ex->commands == NULL || ex->categories == NULL) {
        return deed_fail(err, DEED_NO_MEMORY, "no memory for the domain's model");
    }
    for (struct json_iterator i = json_iterate(aggregates); json_next(&i);) {
        deed_str category = json_text(json_get(i.value, DEED_STR("category")));
        if (category.len == 0) {
            return deed_fail(err, DEED_DOMAIN,
                             "the domain's model has an aggregate without category");
        }
        ex->categories[ex->category_count++] = category;
        status = model_commands(ex, i.value, category, err);
        if (status != DEED_OK) return status;
    }
    return DEED_OK;
}

static deed_status executor_init(struct executor *ex, struct deed_error *err)
{
    if (ex->options.attempts_max == 0) ex->options.attempts_max = ATTEMPTS_MAX;
    if (ex->options.queue_count_max == 0) ex->options.queue_count_max = QUEUE_COUNT_MAX;
    ex->table_size = 64;
    while (ex->table_size < ex->options.queue_count_max)
        ex->table_size *= 2;
    ex->table = calloc(ex->table_size, sizeof *ex->table);
    if (ex->table == NULL) return deed_fail(err, DEED_NO_MEMORY, "no memory for the executor");
    deed_status status = model_read(ex, err);
    if (status != DEED_OK || ex->options.no_threads) return status;
    return actor_start("executor", step, ex, &ex->actor, err);
}

deed_status executor_open(struct store *store, struct domain_host *host,
                          const struct executor_options *options, struct executor **out_executor,
                          struct deed_error *err)
{
    *out_executor = NULL;
    struct executor *ex = calloc(1, sizeof *ex);
    if (ex == NULL) {
        host_close(host);
        return deed_fail(err, DEED_NO_MEMORY, "no memory for the executor");
    }
    ex->store = store;
    ex->host = host;
    if (options != NULL) ex->options = *options;
    os_mutex_init(&ex->lock);
    os_mutex_init(&ex->host_lock);
    os_cond_init(&ex->idle);
    arena_init(&ex->names, JOB_SIZE_MAX);
    arena_init(&ex->host_arena, JOB_SIZE_MAX);
    deed_status status = executor_init(ex, err);
    if (status != DEED_OK) {
        executor_close(ex);
        return status;
    }
    *out_executor = ex;
    return DEED_OK;
}

/* Until every accepted command has its answer. */
static void drain(struct executor *ex)
{
    os_mutex_lock(&ex->lock);
    ex->closing = true;
    while (ex->job_count > 0) {
        if (!ex->options.no_threads) {
            (void)os_cond_wait(&ex->idle, &ex->lock, UINT64_MAX);
            continue;
        }
        os_mutex_unlock(&ex->lock);
        bool stepped = executor_step(ex);
        stepped = store_step(ex->store) || stepped;
        assert(stepped);
        os_mutex_lock(&ex->lock);
    }
    os_mutex_unlock(&ex->lock);
}

void executor_close(struct executor *ex)
{
    if (ex == NULL) return;
    drain(ex);
    actor_stop(ex->actor);
    host_close(ex->host);
    arena_done(&ex->names);
    arena_done(&ex->host_arena);
    os_cond_done(&ex->idle);
    os_mutex_done(&ex->host_lock);
    os_mutex_done(&ex->lock);
    free(ex->table);
    free(ex);
}

void executor_get_metrics(struct executor *ex, struct executor_metrics *out)
{
    *out = (struct executor_metrics){.commands = ex->commands_count,
                                     .rejected = ex->rejected,
                                     .invalid = ex->invalid,
                                     .failed = ex->failed,
                                     .conflicts = ex->conflicts,
                                     .repeated = ex->repeated,
                                     .no_events = ex->no_events};
    os_mutex_lock(&ex->lock);
    out->queue_count = ex->job_count;
    os_mutex_unlock(&ex->lock);
    struct host_metrics host;
    host_get_metrics(ex->host, &host);
    out->worker_restarts = host.restarts;
    out->worker_timeouts = host.timeouts;
    for (size_t i = 0; i <= STORE_HISTOGRAM_BUCKETS; i++) {
        out->decide.buckets[i] = ex->decide_buckets[i];
        out->decide.count += out->decide.buckets[i];
    }
    out->decide.sum_ns = ex->decide_sum_ns;
}
