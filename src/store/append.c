/* append.c - the committer: one thread decides what is appended, in which order, and answers.
 *
 *   submit ─► queue ─► [check, number, encode, index] ─► group ─► write, sync ─► publish ─► answer
 *                      `-------- for each request -------'
 *
 * (1) Every decision sees all earlier ones of the group: the index already holds its events.
 *     Readers do not: they look no further than the published end.
 * (2) Nobody is answered before the sync, not even with a refusal: what a refusal names must be
 *     as durable as what an acceptance does.
 * (3) When the group was not written its events leave the index again, newest first; answers that
 *     rest on them become the group's failure.
 * (4) After a request was taken from the queue it is answered exactly once.
 * (5) The committer is whoever holds commit_lock: its actor, or a thread whose append is the only
 *     one and that would only wait for it. */
#include "store/store_state.h"

#include "base/planted.h"
#include "base/uuid.h"
#include "os/failpoint.h"

#include <assert.h>
#include <stdatomic.h>
#include <stdlib.h>

static void histogram_add(_Atomic uint64_t *buckets, _Atomic uint64_t *sum, uint64_t ns)
{
    unsigned bucket = 0;
    while (bucket < STORE_HISTOGRAM_BUCKETS && ns > UINT64_C(1000) << bucket) bucket++;
    atomic_fetch_add_explicit(&buckets[bucket], 1, memory_order_relaxed);
    atomic_fetch_add_explicit(sum, ns, memory_order_relaxed);
}

static void count(_Atomic uint64_t *counter, uint64_t n)
{
    atomic_fetch_add_explicit(counter, n, memory_order_relaxed);
}

static void list_push(struct request_list *list, struct request *request)
{
    request->next = NULL;
    if (list->last == NULL) {
        list->first = request;
    } else {
        list->last->next = request;
    }
    list->last = request;
}

static struct request *list_pop(struct request_list *list)
{
    struct request *request = list->first;
    if (request == NULL) return NULL;
    list->first = request->next;
    if (list->first == NULL) list->last = NULL;
    return request;
}

/* Random bytes from a pool: a system call an event would cost more than the event's hash. */
static void random_take(struct store *store, uint8_t *out, size_t size)
{
    if (store->random_left < size) {
        os_random(store->os, store->random, sizeof store->random);
        store->random_left = sizeof store->random;
    }
    store->random_left -= size;
    memcpy(out, store->random + store->random_left, size);
}

static deed_status no_memory(struct deed_error *err)
{
    return deed_fail(err, DEED_NO_MEMORY, "append: out of memory");
}

/* ---- idempotency ---------------------------------------------------------------------------- */

static deed_status event_load(struct store *store, uint64_t position, struct deed_event *out_event,
                              struct commit *out_commit, struct deed_error *err)
{
    return log_event(store->log, store->reader, position, &store->arena, out_event, out_commit,
                     err);
}

/* The revisions that the events between two positions got, for an answer given again. */
static deed_status fill_answer(struct store *store, struct request *r, uint64_t first,
                               uint64_t last, struct deed_error *err)
{
    struct deed_event event;
    struct commit commit;
    deed_status status = event_load(store, last, &event, &commit, err);
    if (status != DEED_OK) return status;
    uint64_t revision = event.revision;
    uint64_t first_revision = revision;
    struct postings list;
    uint64_t before = 0;
    postings_open(&list, index_writer_view(store->index), INDEX_STREAM, event.stream,
                  &store->arena);
    status = postings_count(&list, first - 1, &before, err);
    if (status != DEED_OK) return status;
    if (before < first_revision) first_revision = before;
    r->appended = (struct deed_appended){.first_position = first,
                                         .position = last,
                                         .first_revision = first_revision,
                                         .revision = revision,
                                         .repeated = true,
                                         .unsafe = store->options.unsafe_no_sync};
    return DEED_OK;
}

/* By idempotency key: DEED_END when it is new. */
static deed_status repeat_by_key(struct store *store, struct request *r, struct deed_error *err)
{
    const struct deed_append *a = r->append;
    if (a->idempotency_key.len == 0) return DEED_END;
    uint64_t first = 0;
    uint64_t end = PLANTED(KEY_NOT_IN_GROUP) ? log_end(store->log) : UINT64_MAX;
    const struct index_view *view = index_writer_view(store->index);
    struct index_term term = index_term_of(view, INDEX_KEY, a->idempotency_key);
    deed_status status = postings_single(view, &term, end, &first, err);
    if (status != DEED_OK) return status;
    if (first == 0) return DEED_END;

    struct deed_event event;
    struct commit commit;
    status = event_load(store, first, &event, &commit, err);
    if (status != DEED_OK) return status;
    if (event.request_hash == NULL ||
        (memcmp(event.request_hash, a->request_hash, EVENT_KEY_HASH_SIZE) != 0 &&
         !PLANTED(KEY_FOR_ANY_REQUEST))) {
        status = deed_fail(err, DEED_CONFLICT,
                           "idempotency key %.*s was used for another request, at position %llu",
                           DEED_FMT(a->idempotency_key), (unsigned long long)first);
        if (err != NULL) err->position = first;
        return status;
    }
    uint64_t last = commit.first_position + commit.event_count - 1;
    if (a->out_revisions != NULL && a->event_count == commit.event_count) {
        for (uint64_t i = 0; i < a->event_count; i++) {
            status = event_load(store, first + i, &event, &commit, err);
            if (status != DEED_OK) return status;
            a->out_revisions[i] = event.revision;
        }
    }
    return fill_answer(store, r, first, last, err);
}

static bool bytes_equal(deed_bytes a, deed_bytes b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.ptr, b.ptr, a.len) == 0);
}

/* Had the event these data and metadata, when what is left of it is a stub in `commit`? */
static deed_status removed_same(struct store *store, const struct commit *commit, uint64_t position,
                                const struct deed_new_event *e, bool *out_same,
                                struct deed_error *err)
{
    struct buf again;
    buf_init(&again, UINT32_MAX);
    struct reader r = reader_over(commit->events);
    bool ok = true;
    *out_same = true;
    for (uint64_t i = commit->first_position; ok && i < position; i++) ok = event_skip(&r);
    if (!PLANTED(RETRY_IGNORES_STUB)) {
        ok = ok && event_was(&r, &store->arena, e->data, e->metadata, &again, out_same);
    }
    buf_done(&again);
    return ok ? DEED_OK : deed_fail(err, DEED_NO_MEMORY, "append: out of memory");
}

/* What makes an event's content: its type, data, metadata and tags. */
static deed_status same_content(struct store *store, const struct commit *commit,
                                const struct deed_event *stored, const struct deed_new_event *e,
                                bool *out_same, struct deed_error *err)
{
    deed_str content_type = e->content_type.len > 0 ? e->content_type : DEED_STR("application/json");
    bool same = deed_str_equal(stored->type, e->type) &&
                deed_str_equal(stored->content_type, content_type) &&
                stored->tag_count == e->tag_count;
    for (size_t i = 0; same && i < e->tag_count; i++) {
        same = deed_str_equal(stored->tags[i], e->tags[i]);
    }
    *out_same = same;
    if (!same) return DEED_OK;
    if (stored->removed) return removed_same(store, commit, stored->position, e, out_same, err);
    *out_same = bytes_equal(stored->data, e->data) && bytes_equal(stored->metadata, e->metadata);
    return DEED_OK;
}

/* Where the stream is that a conflict is about. What cannot be looked up is left out. */
static void tell_revision(struct store *store, deed_str stream, struct deed_error *err)
{
    struct postings *list = terms_get(store, INDEX_STREAM, stream);
    uint64_t events = 0;
    if (err == NULL || list == NULL) return;
    if (postings_count(list, UINT64_MAX, &events, NULL) == DEED_OK && events > 0) {
        err->revision = events - 1;
    }
}

static deed_status known_id(struct store *store, const struct deed_new_event *e,
                            uint64_t position, const char *why, struct deed_error *err)
{
    char id[UUID_TEXT_SIZE + 1];
    uuid_format(e->id, id);
    deed_status status =
        deed_fail(err, DEED_CONFLICT, "event id %s is in stream %.*s already, at position %llu, %s",
                  id, DEED_FMT(e->stream), (unsigned long long)position, why);
    if (err != NULL) err->position = position;
    tell_revision(store, e->stream, err);
    return status;
}

/* So many ids are on their way from memory while one is looked up: random ones are never near. */
#define IDS_AHEAD 16u

static void id_ahead(const struct index_view *view, const struct deed_append *a, size_t i,
                     struct index_term ahead[IDS_AHEAD])
{
    if (i >= a->event_count || uuid_is_zero(a->events[i].id)) return;
    ahead[i % IDS_AHEAD] = index_term_of_id(view, a->events[i].stream, &a->events[i].id);
    index_prefetch(view, &ahead[i % IDS_AHEAD]);
}

/* By event ids: DEED_END when none is known. */
static deed_status repeat_by_ids(struct store *store, struct request *r, struct deed_error *err)
{
    const struct deed_append *a = r->append;
    const struct deed_new_event *known = NULL;
    uint64_t known_position = 0;
    uint64_t first = 0;
    uint64_t last = 0;
    size_t known_count = 0;
    deed_status status = DEED_OK;
    const struct index_view *view = index_writer_view(store->index);
    struct index_term ahead[IDS_AHEAD];
    for (size_t i = 0; i < IDS_AHEAD; i++) id_ahead(view, a, i, ahead);
    for (size_t i = 0; i < a->event_count; i++) {
        const struct deed_new_event *e = &a->events[i];
        struct index_term term = ahead[i % IDS_AHEAD];
        id_ahead(view, a, i + IDS_AHEAD, ahead);
        if (uuid_is_zero(e->id)) continue;
        uint64_t position = 0;
        uint64_t end = PLANTED(IDS_NOT_IN_GROUP) ? log_end(store->log) : UINT64_MAX;
        status = postings_single(view, &term, end, &position, err);
        if (status != DEED_OK) return status;
        if (position == 0) continue;
        struct deed_event event;
        struct commit commit;
        bool same = false;
        status = event_load(store, position, &event, &commit, err);
        if (status == DEED_OK) status = same_content(store, &commit, &event, e, &same, err);
        if (status != DEED_OK) return status;
        if (!same) return known_id(store, e, position, "with other content", err);
        if (a->out_revisions != NULL) a->out_revisions[i] = event.revision;
        if (known_count++ == 0) {
            known = e;
            known_position = first = position;
        }
        last = position;
    }
    if (known_count == 0) return DEED_END;
    if (known_count < a->event_count) {
        return known_id(store, known, known_position, "but other events of this append are not",
                        err);
    }
    /* A foreign client may have stored an id twice; which of both a retry means, nobody can say. */
    bool repeat = false;
    if (r->writer == APPEND_BY_FOREIGN) status = append_ids_repeat(a, &repeat, NULL, err);
    if (status != DEED_OK) return status;
    if (repeat) {
        return known_id(store, known, known_position, "and an id stands twice in this append",
                        err);
    }
    return fill_answer(store, r, first < last ? first : last, last > first ? last : first, err);
}

/* ---- one request ---------------------------------------------------------------------------- */

static deed_status check_open_streams(struct store *store, const struct deed_append *a,
                                      struct deed_error *err)
{
    struct postings *kept = terms_get(store, INDEX_TYPE, DEED_STR(STORE_TOMBSTONE_TYPE));
    uint64_t any = 0;
    if (kept == NULL) return no_memory(err);
    struct postings tombstones = *kept;
    deed_status status = postings_last(&tombstones, UINT64_MAX, &any, err);
    if (status != DEED_OK || any == 0) return status;
    for (size_t i = 0; i < a->event_count; i++) {
        deed_str stream = a->events[i].stream;
        if (i > 0 && deed_str_equal(stream, a->events[i - 1].stream)) continue;
        /* The metadata of a closed stream is closed with it. */
        bool metadata = stream.len > 2 && stream.ptr[0] == '$' && stream.ptr[1] == '$';
        deed_str owner = metadata ? (deed_str){stream.ptr + 2, stream.len - 2} : stream;
        struct postings *list = terms_get(store, INDEX_STREAM, owner);
        uint64_t last = 0;
        bool closed = false;
        if (list == NULL) return no_memory(err);
        status = postings_last(list, UINT64_MAX, &last, err);
        if (status == DEED_OK) status = postings_contains(&tombstones, last, &closed, err);
        if (status != DEED_OK) return status;
        if (!closed) continue;
        status = deed_fail(err, DEED_DELETED, "stream %.*s is deleted for good", DEED_FMT(owner));
        if (err != NULL) err->position = last;
        return status;
    }
    return DEED_OK;
}

static deed_status decide(struct store *store, struct request *r, struct deed_error *err)
{
    const struct deed_append *a = r->append;
    deed_status status = DEED_OK;
    if (PLANTED(CONDITION_BEFORE_RETRY) && a->condition_count > 0) {
        status = condition_check(store, &a->conditions[0], r->writer, err);
        if (status != DEED_OK) return status;
    }
    status = repeat_by_key(store, r, err);
    if (status == DEED_END) status = repeat_by_ids(store, r, err);
    if (status != DEED_END) return status;
    status = check_open_streams(store, a, err);
    for (size_t i = 0; status == DEED_OK && i < a->condition_count; i++) {
        status = condition_check(store, &a->conditions[i], r->writer, err);
        if (status != DEED_OK && err != NULL) err->condition = i;
    }
    return status == DEED_OK ? DEED_END : status;
}

static bool leaves_room(struct store *store, size_t event_count)
{
    if (event_count <= store->leaves_room) return true;
    void *grown = realloc(store->leaves, event_count * SHA256_SIZE);
    if (grown == NULL) return false;
    store->leaves = grown;
    store->leaves_room = event_count;
    return true;
}

static struct index_event index_event_of(const struct deed_new_event *e,
                                         const struct event_place *place)
{
    return (struct index_event){.stream = e->stream,
                                .type = e->type,
                                .correlation_id = e->correlation_id,
                                .key = place->idempotency_key,
                                .tags = e->tags,
                                .tag_count = e->tag_count,
                                .id = place->id,
                                .position = place->position,
                                .revision = place->revision};
}

static deed_status place_event(struct store *store, const struct deed_append *a, size_t i,
                               int64_t now, struct event_place *out, struct deed_error *err)
{
    const struct deed_new_event *e = &a->events[i];
    struct event_place place = {
        .position = log_next_position(store->log) + i,
        .id = e->id,
        .time_ns = e->time_ns != 0 || e->has_time ? e->time_ns : now,
    };
    struct postings *list = terms_get(store, INDEX_STREAM, e->stream);
    if (list == NULL) return no_memory(err);
    deed_status status =
        postings_count(list, PLANTED(STALE_REVISION) ? log_end(store->log) : UINT64_MAX,
                       &place.revision, err);
    if (status != DEED_OK) return status;
    if (uuid_is_zero(place.id)) {
        uint8_t random[10];
        random_take(store, random, sizeof random);
        place.id = uuid_v7(now, random);
    }
    if (i == 0 && a->idempotency_key.len > 0) {
        place.idempotency_key = a->idempotency_key;
        place.request_hash = a->request_hash;
    }
    *out = place;
    return DEED_OK;
}

/* Forget the events [first, first + n) of a commit that did not come about, newest first. The
 * records stand in the group's buffer from `records` on. false: out of memory, the index keeps them,
 * and what is older must stay below them. */
static bool unindex(struct store *store, deed_bytes records, size_t event_count)
{
    struct deed_event *events =
        arena_alloc_array(&store->arena, event_count, sizeof *events);
    struct reader r = reader_over(records);
    bool ok = events != NULL;
    for (size_t i = 0; ok && i < event_count; i++) {
        ok = event_decode(&r, &store->arena, &events[i], NULL);
    }
    if (!ok) {
        /* The index keeps what was never stored: no condition may be checked against that. Readers
         * look no further than the published end. */
        log_stop(store->log, "out of memory");
        store->index_spoilt = true;
        return false;
    }
    terms_forget(store);
    for (size_t i = event_count; i > 0; i--) {
        const struct deed_event *e = &events[i - 1];
        struct index_event terms = {.stream = e->stream,
                                    .type = e->type,
                                    .correlation_id = e->correlation_id,
                                    .key = e->idempotency_key,
                                    .tags = e->tags,
                                    .tag_count = e->tag_count,
                                    .id = e->id,
                                    .position = e->position,
                                    .revision = e->revision};
        index_remove_event(store->index, &terms);
    }
    return true;
}

static deed_status write_commit(struct store *store, struct request *r, struct deed_error *err)
{
    const struct deed_append *a = r->append;
    int64_t now = log_next_recorded_at(store->log);
    uint64_t first = log_next_position(store->log);
    struct buf *out = log_commit_begin(store->log);
    size_t records_at = out->len;
    size_t done = 0;
    deed_str last_stream = a->events[a->event_count - 1].stream;
    size_t in_last_stream = 0;
    deed_status status = DEED_OK;
    if (!leaves_room(store, a->event_count) || !buf_ok(out)) status = no_memory(err);
    for (; status == DEED_OK && done < a->event_count; done++) {
        const struct deed_new_event *e = &a->events[done];
        struct event_place place;
        uint8_t salt[EVENT_SALT_SIZE];
        status = place_event(store, a, done, now, &place, err);
        if (status != DEED_OK) break;
        random_take(store, salt, sizeof salt);
        event_encode(out, e, &place, salt, store->leaves[done]);
        struct index_event terms = index_event_of(e, &place);
        status = buf_ok(out) ? index_add_event(store->index, &terms, err) : no_memory(err);
        if (status != DEED_OK) break;
        if (a->out_revisions != NULL) a->out_revisions[done] = place.revision;
        if (deed_str_equal(e->stream, last_stream)) {
            r->appended.revision = place.revision;
            if (in_last_stream++ == 0) r->appended.first_revision = place.revision;
        }
    }
    size_t records_size = out->len - records_at;
    if (status == DEED_OK) {
        status = log_commit_end(store->log, (uint32_t)a->event_count, now,
                                (const uint8_t(*)[SHA256_SIZE])store->leaves, err);
    } else {
        log_commit_cancel(store->log);
    }
    if (status != DEED_OK) {
        /* The bytes are there still; the buffer may have moved. */
        (void)unindex(store, (deed_bytes){out->ptr + records_at, records_size}, done);
        return status;
    }
    r->wrote = true;
    r->appended.first_position = first;
    r->appended.position = first + a->event_count - 1;
    return DEED_OK;
}

/* The most that its commit takes in the log. */
static uint64_t record_need(const struct request *r)
{
    return r->size + r->append->idempotency_key.len + EVENT_KEY_HASH_SIZE;
}

static deed_status roll(struct store *store, struct deed_error *err)
{
    uint8_t hash[SHA256_SIZE];
    log_chain_hash(store->log, hash);
    deed_status status = index_roll(store->index, log_active(store->log),
                                    log_next_position(store->log) - 1, hash, err);
    if (status != DEED_OK) return status;
    terms_renew(store);
    store->segment = log_active(store->log);
    actor_wake(store->sealer);
    return DEED_OK;
}

/* Nothing is to be stored: the conditions hold, and the answer is where the stream is that the first
 * of them names. */
static deed_status answer_where(struct store *store, struct request *r, struct deed_error *err)
{
    struct stream_state s;
    deed_str stream = r->append->conditions[0].stream;
    deed_status status = stream_state_get(store, NULL, stream, UINT64_MAX, NULL, &s, err);
    if (status != DEED_OK) return status;
    if (s.tombstoned) {
        status = deed_fail(err, DEED_DELETED, "stream %.*s is deleted for good", DEED_FMT(stream));
        if (err != NULL) err->position = s.last_position;
        return status;
    }
    uint64_t revision = s.count == 0 ? DEED_NONE : s.count - 1;
    r->appended.first_position = r->appended.position = s.last_position;
    r->appended.first_revision = r->appended.revision = revision;
    return DEED_OK;
}

/* DEED_BUSY: the group must be written before this request can be looked at. */
static deed_status process(struct store *store, struct request *r)
{
    struct deed_error *err = &r->error;
    uint64_t need = record_need(r);
    arena_reset(&store->arena);
    terms_renew(store);
    r->appended = (struct deed_appended){.unsafe = store->options.unsafe_no_sync};

    deed_status status =
        store->index_spoilt ? deed_fail(err, DEED_STOPPED, "the log takes no more appends: %.400s",
                                        log_stopped(store->log))
                            : decide(store, r, err);
    if (status == DEED_END && r->append->event_count == 0) {
        status = answer_where(store, r, err);
    } else if (status == DEED_END) {
        status = log_reserve(store->log, need, err);
        if (status == DEED_BUSY) return status;
        /* A new segment begins with an empty group: what is indexed so far is published. */
        if (status == DEED_OK && log_active(store->log) != store->segment) {
            status = roll(store, err);
        }
        if (status == DEED_OK) status = write_commit(store, r, err);
    }
    r->status = status;
    return DEED_OK;
}

/* ---- the group ------------------------------------------------------------------------------ */

static void answer(struct store *store, struct request *r)
{
    struct metrics *m = &store->metrics;
    uint64_t now = os_ticks_ns(store->os);
    histogram_add(m->append_buckets, &m->append_sum_ns, now - r->submitted_ticks);
    if (r->status == DEED_OK) {
        count(&m->appends, 1);
        count(&m->append_events, r->append->event_count);
        count(&m->append_bytes, r->size);
    } else if (r->status == DEED_CONFLICT || r->status == DEED_DELETED) {
        count(&m->refused, 1);
    } else {
        count(&m->failed, 1);
    }
    os_mutex_lock(&store->queue_lock);
    store->queue_count--;
    store->queue_size -= r->size;
    os_mutex_unlock(&store->queue_lock);

    FAILPOINT("answer-before");
    bool owned = r->owned; /* an unowned request is gone once it was answered */
    if (r->status == DEED_OK) {
        r->done(r->context, &r->appended, NULL);
    } else {
        r->done(r->context, NULL, &r->error);
    }
    FAILPOINT("answer-after");
    if (owned) free(r);
}

static void unindex_group(struct store *store)
{
    for (size_t i = log_group_commits(store->log); i > 0 && !store->index_spoilt; i--) {
        struct commit commit;
        arena_reset(&store->arena);
        deed_status status = log_group_commit(store->log, i - 1, &commit, NULL);
        assert(status == DEED_OK); /* the group is our own memory */
        (void)status;
        (void)unindex(store, commit.events, commit.event_count);
    }
}

/* (3): does the answer rest on an event that is not published? */
static bool rests_on_group(const struct request *r, uint64_t end)
{
    if (r->wrote) return true;
    if (r->status == DEED_OK) return r->appended.position > end;
    return r->error.position != DEED_NONE && r->error.position > end && !PLANTED(KEEP_REFUSALS);
}

static void group_fail(struct store *store, deed_status status, const struct deed_error *err)
{
    uint64_t end = log_end(store->log);
    if (status != DEED_UNKNOWN) {
        if (!PLANTED(KEEP_INDEXED)) unindex_group(store);
        log_forget(store->log);
    }
    for (struct request *r = store->group.first; r != NULL; r = r->next) {
        if (!rests_on_group(r, end)) continue;
        r->status = status;
        r->error = *err;
    }
}

static void notify(struct store *store)
{
    uint64_t end = log_end(store->log);
    os_mutex_lock(&store->publish_lock);
    os_cond_broadcast(&store->published);
    for (struct store_watch *w = store->watches; w != NULL; w = w->next) {
        w->changed(w->context, end);
    }
    os_mutex_unlock(&store->publish_lock);
    if (log_keeper_due(store->log)) actor_wake(store->keeper);
    if (log_sealer_due(store->log)) actor_wake(store->sealer);
}

/* ---- gathering ------------------------------------------------------------------------------
 *
 * Those who were answered send their next appends at once, while the next sync is under way already:
 * sixty-four clients come in two groups that take turns, each sync carries half of them, and a disk
 * that takes five milliseconds to flush gives half of what it could. So on such a disk the next
 * group waits for those that were answered, as long as they keep coming, up to a share of the sync. */

#define GATHER_SYNC_MIN_NS UINT64_C(500000) /* faster disks lose more by waiting */
/* Parts of a sync. */
#define GATHER_LIMIT(sync_ns) ((sync_ns) / 5 * 2)
#define GATHER_PAUSE(sync_ns) ((sync_ns) / 5) /* nobody has come for so long: nobody will */

static void gather_begin(struct store *store, uint64_t answered)
{
    bool waits = store->sync_ns >= GATHER_SYNC_MIN_NS && answered > 1;
    if (!waits || store->options.no_threads) return;
    os_mutex_lock(&store->queue_lock);
    store->gather_seen = store->queue_count;
    store->gather_wanted = store->gather_seen + answered;
    os_mutex_unlock(&store->queue_lock);
    uint64_t now = os_ticks_ns(store->os);
    store->gather_until = now + GATHER_LIMIT(store->sync_ns);
    store->gather_look = now + GATHER_PAUSE(store->sync_ns);
}

/* How long to wait for more; 0: go on. The actor may be woken before its time. */
static uint64_t gather_wait(struct store *store)
{
    if (store->gather_until == 0) return 0;
    os_mutex_lock(&store->queue_lock);
    uint64_t queued = store->queue_count;
    bool all_came = queued >= store->gather_wanted;
    bool closing = store->closing;
    os_mutex_unlock(&store->queue_lock);
    uint64_t now = os_ticks_ns(store->os);
    bool none_came = now >= store->gather_look && queued <= store->gather_seen;
    if (closing || none_came || all_came || now >= store->gather_until) {
        store->gather_until = 0;
        return 0;
    }
    if (now >= store->gather_look) {
        store->gather_seen = queued;
        store->gather_look = now + GATHER_PAUSE(store->sync_ns);
    }
    uint64_t next = store->gather_look;
    return (next < store->gather_until ? next : store->gather_until) - now;
}

static void answer_all(struct store *store)
{
    struct request *r;
    uint64_t answered = 0;
    for (; (r = list_pop(&store->group)) != NULL; answered++)
        answer(store, r);
    gather_begin(store, answered);
}

static void group_finish(struct store *store)
{
    if (PLANTED(ACK_BEFORE_SYNC)) answer_all(store);
    if (log_group_commits(store->log) > 0) {
        struct deed_error err = {0};
        uint64_t before = os_ticks_ns(store->os);
        deed_status status = log_write(store->log, &err);
        uint64_t spent = os_ticks_ns(store->os) - before;
        histogram_add(store->metrics.sync_buckets, &store->metrics.sync_sum_ns, spent);
        store->sync_ns = store->sync_ns - store->sync_ns / 4 + spent / 4;
        count(&store->metrics.groups, 1);
        if (status == DEED_OK) {
            log_publish(store->log);
            notify(store);
        } else {
            group_fail(store, status, &err);
        }
    }
    answer_all(store);
}

/* Commit what is queued. `alone`: only if that is one request. false: nothing was done. */
static bool commit_queue(struct store *store, bool alone)
{
    os_mutex_lock(&store->queue_lock);
    struct request_list taken = store->queue;
    bool takes = taken.first != NULL && (!alone || taken.first == taken.last);
    if (takes) store->queue = (struct request_list){0};
    os_mutex_unlock(&store->queue_lock);
    if (!takes) return false;
    FAILPOINT("group-taken");

    struct request *r;
    while ((r = list_pop(&taken)) != NULL) {
        if (process(store, r) == DEED_BUSY) {
            group_finish(store);
            deed_status again = process(store, r);
            assert(again == DEED_OK);
            (void)again;
        }
        if (PLANTED(REFUSE_BEFORE_SYNC) && r->status == DEED_CONFLICT) {
            answer(store, r);
            continue;
        }
        list_push(&store->group, r);
    }
    group_finish(store);
    FAILPOINT("group-answered");
    return true;
}

uint64_t committer_step(void *context)
{
    struct store *store = context;
    os_mutex_lock(&store->commit_lock); /* (5) */
    uint64_t wait = gather_wait(store);
    if (wait == 0) wait = commit_queue(store, false) ? ACTOR_AGAIN : ACTOR_WAIT;
    os_mutex_unlock(&store->commit_lock);
    return wait;
}

void committer_drain(struct store *store)
{
    os_mutex_lock(&store->commit_lock);
    while (commit_queue(store, false)) continue;
    os_mutex_unlock(&store->commit_lock);
}

deed_status store_roll(struct store *store, struct deed_error *err)
{
    os_mutex_lock(&store->commit_lock);
    deed_status status = log_roll(store->log, err);
    if (status == DEED_OK && log_active(store->log) != store->segment) status = roll(store, err);
    os_mutex_unlock(&store->commit_lock);
    return status;
}

/* ---- submitting ----------------------------------------------------------------------------- */

/* What can be refused whatever the store holds. */
static deed_status admit(struct store *store, struct request *r, struct deed_error *err)
{
    deed_status status = append_check(&store->options.limits, r->append, r->writer, &r->size, err);
    const char *stopped = log_stopped(store->log);
    if (status != DEED_OK || stopped == NULL) return status;
    return deed_fail(err, DEED_STOPPED, "the log takes no more appends: %.400s", stopped);
}

/* Into the queue. `wake`: and have the actor look at it. */
static deed_status enqueue(struct store *store, struct request *r, bool wake,
                           struct deed_error *err)
{
    const struct deed_limits *limits = &store->options.limits;
    r->submitted_ticks = os_ticks_ns(store->os);

    os_mutex_lock(&store->queue_lock);
    bool due = store->queue.first == NULL || store->queue_count + 1 == store->gather_wanted;
    bool full = store->queue_count >= limits->queue_count_max ||
                (store->queue_count > 0 && store->queue_size + r->size > limits->queue_size_max);
    bool closing = store->closing;
    if (!full && !closing) {
        list_push(&store->queue, r);
        store->queue_count++;
        store->queue_size += r->size;
    }
    uint64_t waiting = store->queue_count;
    os_mutex_unlock(&store->queue_lock);

    if (closing) return deed_fail(err, DEED_STOPPED, "the store is closing");
    if (full) {
        return deed_fail(err, DEED_BUSY, "%llu appends are waiting, limit %u or %llu bytes",
                         (unsigned long long)waiting, limits->queue_count_max,
                         (unsigned long long)limits->queue_size_max);
    }
    if (due && wake) actor_wake(store->committer);
    return DEED_OK;
}

static struct request *request_create(const struct deed_append *append, enum append_writer writer,
                                      deed_append_done *done, void *context)
{
    struct request *r = calloc(1, sizeof *r);
    if (r == NULL) return NULL;
    *r = (struct request){.append = append,
                          .done = done,
                          .context = context,
                          .owned = true,
                          .writer = writer};
    return r;
}

static deed_status submit_as(struct store *store, const struct deed_append *append,
                             enum append_writer writer, deed_append_done *done, void *context,
                             struct deed_error *err)
{
    struct request *r = request_create(append, writer, done, context);
    if (r == NULL) return deed_fail(err, DEED_NO_MEMORY, "append: out of memory");
    deed_status status = admit(store, r, err);
    if (status == DEED_OK) status = enqueue(store, r, true, err);
    if (status != DEED_OK) free(r);
    return status;
}

deed_status store_submit(struct store *store, const struct deed_append *append,
                         deed_append_done *done, void *context, struct deed_error *err)
{
    return submit_as(store, append, APPEND_BY_USER, done, context, err);
}

deed_status store_submit_foreign(struct store *store, const struct deed_append *append,
                                 deed_append_done *done, void *context, struct deed_error *err)
{
    return submit_as(store, append, APPEND_BY_FOREIGN, done, context, err);
}

/* A slower disk would keep the thread from what else it has to do, and so would a large append. */
#define HERE_SYNC_MAX_NS     UINT64_C(500000)
#define HERE_APPEND_SIZE_MAX (UINT64_C(64) << 10)

/* The commit_lock is held. */
static bool commit_is_quick(struct store *store, const struct request *r)
{
    os_mutex_lock(&store->queue_lock);
    bool alone = store->queue_count == 0;
    os_mutex_unlock(&store->queue_lock);
    return alone && store->sync_ns < HERE_SYNC_MAX_NS && r->size <= HERE_APPEND_SIZE_MAX &&
           log_has_room(store->log, record_need(r));
}

static deed_status submit_here(struct store *store, const struct deed_append *append,
                               enum append_writer writer, deed_append_done *done, void *context,
                               struct deed_error *err)
{
    struct request *r = request_create(append, writer, done, context);
    if (r == NULL) return deed_fail(err, DEED_NO_MEMORY, "append: out of memory");
    deed_status status = admit(store, r, err);
    if (status != DEED_OK) {
        free(r);
        return status;
    }
    bool held = !store->options.no_threads && os_mutex_try(&store->commit_lock);
    bool here = held && commit_is_quick(store, r);
    if (held && !here) os_mutex_unlock(&store->commit_lock);
    status = enqueue(store, r, !here, err);
    if (status != DEED_OK) free(r);
    if (!here) return status;
    /* (5). Whoever came in between may need another segment, and that may mean to wait. */
    bool done_here = status == DEED_OK && commit_queue(store, true);
    os_mutex_unlock(&store->commit_lock);
    if (status == DEED_OK && !done_here) actor_wake(store->committer);
    return status;
}

deed_status store_submit_here(struct store *store, const struct deed_append *append,
                              deed_append_done *done, void *context, struct deed_error *err)
{
    return submit_here(store, append, APPEND_BY_USER, done, context, err);
}

deed_status store_submit_foreign_here(struct store *store, const struct deed_append *append,
                                      deed_append_done *done, void *context,
                                      struct deed_error *err)
{
    return submit_here(store, append, APPEND_BY_FOREIGN, done, context, err);
}

struct waiter {
    struct os_mutex lock;
    struct os_cond cond;
    bool answered;
    struct deed_appended appended;
    struct deed_error error;
    deed_status status;
};

static void waiter_done(void *context, const struct deed_appended *appended,
                        const struct deed_error *err)
{
    struct waiter *w = context;
    os_mutex_lock(&w->lock);
    w->status = appended != NULL ? DEED_OK : err->status;
    if (appended != NULL) w->appended = *appended;
    if (err != NULL) w->error = *err;
    w->answered = true;
    os_cond_signal(&w->cond);
    os_mutex_unlock(&w->lock);
}

deed_status store_append_as(struct store *store, const struct deed_append *append,
                            enum append_writer writer, struct deed_appended *out_appended,
                            struct deed_error *err)
{
    struct waiter w = {0};
    os_mutex_init(&w.lock);
    os_cond_init(&w.cond);
    struct request r = {.append = append, .done = waiter_done, .context = &w, .writer = writer};
    deed_status status = admit(store, &r, err);
    if (status == DEED_OK) status = enqueue(store, &r, true, err);
    if (status == DEED_OK) {
        if (store->options.no_threads) committer_drain(store);
        os_mutex_lock(&w.lock);
        while (!w.answered) (void)os_cond_wait(&w.cond, &w.lock, UINT64_MAX);
        os_mutex_unlock(&w.lock);
        status = w.status;
        if (status == DEED_OK) *out_appended = w.appended;
        if (status != DEED_OK && err != NULL) *err = w.error;
    }
    os_cond_done(&w.cond);
    os_mutex_done(&w.lock);
    return status;
}

deed_status store_append(struct store *store, const struct deed_append *append,
                         struct deed_appended *out_appended, struct deed_error *err)
{
    return store_append_as(store, append, APPEND_BY_USER, out_appended, err);
}

deed_status store_check(struct store *store, const struct deed_append *append,
                        struct deed_error *err)
{
    uint64_t size;
    return append_check(&store->options.limits, append, APPEND_BY_USER, &size, err);
}

deed_status store_find_key(struct store *store, deed_str key, uint8_t out_request_hash[32],
                           uint64_t *out_first, uint64_t *out_last, struct deed_error *err)
{
    struct arena arena;
    struct deed_event event;
    struct commit commit;
    struct postings list;
    uint64_t first = 0;
    struct log_reader *reader = log_reader_create(store->log);
    if (reader == NULL) return deed_fail(err, DEED_NO_MEMORY, "read: out of memory");
    arena_init(&arena, SIZE_MAX);
    uint64_t end = log_end(store->log);
    const struct index_view *view = index_view_take(store->index);
    postings_open(&list, view, INDEX_KEY, key, &arena);
    deed_status status = postings_next(&list, 0, end, &first, err);
    index_view_drop(view);
    if (status == DEED_OK && first == 0) {
        status = deed_fail(err, DEED_NOT_FOUND, "idempotency key %.*s is not known", DEED_FMT(key));
    }
    if (status == DEED_OK) {
        status = log_event(store->log, reader, first, &arena, &event, &commit, err);
    }
    if (status == DEED_OK) {
        memcpy(out_request_hash, event.request_hash, EVENT_KEY_HASH_SIZE);
        *out_first = commit.first_position;
        *out_last = commit.first_position + commit.event_count - 1;
    }
    log_reader_destroy(reader);
    arena_done(&arena);
    return status;
}
