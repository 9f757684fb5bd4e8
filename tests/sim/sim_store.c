/* sim_store.c - the real store on a machine made from a seed: crash it, rot it, open it again, and
 * compare with what was acknowledged.
 *
 *     sim_store [COUNT]         that many seeds, from 1 (default SIM_SEEDS, else 2500)
 *     sim_store --seed N        one seed, telling what it does
 *
 * Each seed draws its own mix of faults and work (a swarm: what every seed does, each seed does too
 * little of). A machine lives and dies several times by faults that must cost nothing that was
 * acknowledged; its last life may see faults that damage it. Checked after every opening, of
 * promises 2 to 5:
 *
 * (1) Every acknowledged event is there, at its position and revision, with its content.
 * (2) What was refused is not there. What has an unknown outcome is there whole or not at all, and
 *     once it was seen it stays.
 * (3) Positions and revisions have no gaps; recorded_at never decreases.
 * (4) Streams, types and tags read by the index give what a scan of the log gives, both ways, and so do
 *     virtual streams, from any place; a cursor that follows gets every event once.
 * (5) After damage, what is served is right, and what is missing is reported, by position. Silent
 *     is only the loss of the newest appends, behind the commit mark, each by a fault of its own;
 *     and of any number of them when syncs lied.
 * (6) With the faults over, an append succeeds.
 * (7) A conditional append is accepted exactly when its condition holds for what was accepted
 *     before it; a refusal names an event that is stored and tells the truth about it.
 * (8) An append tried again, by key or by event ids, has the first answer: in the same group, later,
 *     and after a crash.
 * (9) What a commit mark on the device claims no crash takes back.
 * (10) Compaction and erasure, in a third of the seeds: nobody's content goes but what a stream hides;
 *     what they said to have taken out is out, through every crash; of what went all else stays, so
 *     that all of the above holds for it too. */
#include "log/mark.h"
#include "os/os_sim.h"
#include "store/store.h"
#include "sim/sim_main.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define DIRECTORY  "/data"
#define STREAMS    5
#define TYPES      3
#define TAGS       8
#define EVENTS_MAX 4096
#define BATCH_MAX  6
#define GROUP_MAX  8
#define DATA_SIZE  6000
/* Those of metadata, and those lost, on top. */
#define POSITIONS_MAX (4 * EVENTS_MAX)

enum fate { UNBORN, PENDING, ACKED, REFUSED, UNKNOWN };

struct model_event {
    enum fate fate;
    unsigned stream, type, tag;
    size_t pad;
    uint32_t batch, batch_size;
    uint64_t position, revision;
    bool present; /* in the scan under way */
    bool must_be_removed, must_be_erased; /* (10) */
};

struct model_batch {
    uint32_t first, count;
    uint32_t round;   /* of appends: what was gathered and synced together */
    bool keyed, ided; /* can be tried again */
};

struct world {
    uint64_t seed;
    bool verbose;
    struct os_sim *sim;
    struct store *store;
    struct model_event events[EVENTS_MAX];
    struct model_batch batches[EVENTS_MAX + 1]; /* from 1 on */
    uint32_t event_count, batch_count, round;
    uint64_t end; /* newest position ever acknowledged or seen */
    uint64_t marked; /* (9) */
    bool killed;     /* what is read may be in the cache only */

    struct os_sim_faults faults; /* of this seed's lives, all harmless */
    bool damaged;                /* events are missing: what follows starts from what is left */
    struct deed_cursor *follower;
    uint64_t followed;

    /* (10) */
    uint64_t truncated[STREAMS]; /* revisions below are hidden, as the store says */
    uint64_t may_go[STREAMS];    /* below this a content may have been removed: ever hidden */
    bool asked, erases;          /* a job was asked for, and not heard of since */
    /* A sync failed since the last power cut, maybe a directory's: then a name that was removed may
     * come back, as no later sync of it brings its removal to the device. A compaction that finds
     * nothing left to do does not know of it; an erasure must not rest on it. */
    bool names_doubtful;
    bool all_segments;           /* it looks at the newest, too */
    uint64_t below[STREAMS];     /* what it is to take out */
    uint32_t at[POSITIONS_MAX];  /* the event at a position, + 1 */
};

static void fail(const struct world *w, const char *what, uint64_t a, uint64_t b)
{
    fprintf(stderr, "seed %" PRIu64 ": %s (%" PRIu64 ", %" PRIu64 ")\n  %s\n", w->seed, what, a, b,
            os_sim_describe(w->sim));
    fprintf(stderr, "  again: build/tests/sim/sim_store --seed %" PRIu64 "\n", w->seed);
    exit(1);
}

static void tell(const struct world *w, const char *what, uint64_t a, const char *text)
{
    if (w->verbose) printf("  %s %" PRIu64 " %s\n", what, a, text);
}

static uint64_t pick(struct world *w, uint64_t limit)
{
    return os_sim_pick(w->sim, limit);
}

/* ---- what an event is ------------------------------------------------------------------------ */

static const char *const type_names[TYPES] = {"Opened", "Changed", "Closed"};

struct event_text {
    char stream[16], tag[16], data[DATA_SIZE];
    deed_str tags[1];
};

static struct deed_new_event event_of(const struct world *w, uint32_t n, struct event_text *text)
{
    const struct model_event *e = &w->events[n];
    (void)snprintf(text->stream, sizeof text->stream, "s-%u", e->stream);
    (void)snprintf(text->tag, sizeof text->tag, "tag%u", e->tag);
    /* Most of a run's time would go into a format's padding. */
    size_t len = (size_t)snprintf(text->data, sizeof text->data, "{\"n\":%u,\"pad\":\"", n);
    memset(text->data + len, '0', e->pad + 1);
    len += e->pad + 1;
    memcpy(text->data + len, "\"}", 3);
    len += 2;
    text->tags[0] = deed_str_of(text->tag);
    struct deed_new_event event = {
        .stream = deed_str_of(text->stream),
        .type = deed_str_of(type_names[e->type]),
        .data = {(const uint8_t *)text->data, len},
        .tags = text->tags,
        .tag_count = 1,
    };
    if (w->batches[e->batch].ided) {
        event.id.bytes[0] = 1;
        memcpy(event.id.bytes + 12, &n, sizeof n);
    }
    return event;
}

static bool compacts(const struct world *w)
{
    return w->seed % 3 == 1;
}

static void note_position(struct world *w, uint32_t n, uint64_t position)
{
    w->events[n].position = position;
    if (position < POSITIONS_MAX) w->at[position] = n + 1;
}

static bool is_system(const struct deed_event *e)
{
    return e->stream.len > 0 && e->stream.ptr[0] == '$';
}

static uint64_t stream_count(const struct world *w, unsigned stream, uint64_t *out_last)
{
    uint64_t count = 0;
    *out_last = 0;
    for (uint32_t n = 0; n < w->event_count; n++) {
        const struct model_event *e = &w->events[n];
        if (e->fate != ACKED || e->stream != stream) continue;
        count++;
        if (e->position > *out_last) *out_last = e->position;
    }
    return count;
}

/* ---- appends -------------------------------------------------------------------------------- */

enum wish { WISH_NOTHING, WISH_STREAM, WISH_NO_MATCH, WISH_IMPOSSIBLE };

struct attempt {
    struct world *w;
    struct deed_new_event events[BATCH_MAX];
    struct event_text texts[BATCH_MAX];
    struct deed_append append;
    uint64_t revisions[BATCH_MAX];
    uint32_t batch, first;
    size_t count;
    char key[16];
    bool misused_key; /* with another request's hash */

    enum wish wish;
    struct deed_condition condition;
    struct deed_query_item item;
    unsigned stream, type, tag;
    bool by_type, by_tag;
    char stream_name[16], tag_name[16];
    deed_str type_term, tag_term;
};

static bool matches(const struct attempt *a, const struct model_event *e)
{
    return e->fate == ACKED && e->position > a->condition.after &&
           (!a->by_type || e->type == a->type) && (!a->by_tag || e->tag == a->tag);
}

static bool condition_holds(const struct attempt *a)
{
    const struct world *w = a->w;
    uint64_t last;
    uint64_t count = a->wish == WISH_STREAM ? stream_count(w, a->stream, &last) : 0;
    switch (a->wish) {
    case WISH_NOTHING:
        return true;
    case WISH_IMPOSSIBLE:
        return false;
    case WISH_STREAM:
        if (a->condition.expect == DEED_EXPECT_NONE) return count <= w->truncated[a->stream];
        if (a->condition.expect == DEED_EXPECT_EXISTS) return count > w->truncated[a->stream];
        return count > 0 && a->condition.revision == count - 1;
    case WISH_NO_MATCH:
        for (uint32_t n = 0; n < w->event_count; n++) {
            if (matches(a, &w->events[n])) return false;
        }
        return true;
    }
    return true;
}

static bool stored_before(const struct attempt *a)
{
    return a->w->events[a->first].fate == ACKED;
}

/* (8): the first answer. */
static void check_repeated(const struct attempt *a, const struct deed_appended *appended)
{
    struct world *w = a->w;
    if (!appended->repeated) fail(w, "a retry was stored again", a->first, appended->position);
    for (size_t i = 0; i < a->count; i++) {
        const struct model_event *e = &w->events[a->first + i];
        if (e->position != appended->first_position + i || e->revision != a->revisions[i]) {
            fail(w, "a retry has another answer", e->position, appended->first_position + i);
        }
    }
}

/* After a repair some are lost, but none is given again that is still there. */
static void check_revision_is_new(const struct world *w, unsigned stream, uint64_t revision)
{
    for (uint32_t n = 0; n < w->event_count; n++) {
        const struct model_event *e = &w->events[n];
        if (e->fate == ACKED && e->present && e->stream == stream && e->revision >= revision) {
            fail(w, "a revision was given twice", revision, e->position);
        }
    }
}

static void attempt_accepted(struct attempt *a, const struct deed_appended *appended)
{
    struct world *w = a->w;
    if (stored_before(a)) {
        check_repeated(a, appended);
        return;
    }
    if (appended->repeated) fail(w, "an answer to what was never stored", a->first, 0);
    if (!condition_holds(a)) fail(w, "an append went against its condition", a->first, 0);
    if (a->misused_key) fail(w, "a key was taken for two requests", a->batch, 0);
    if (appended->first_position <= w->end) {
        fail(w, "a position was given twice", appended->first_position, w->end);
    }
    for (size_t i = 0; i < a->count; i++) {
        struct model_event *e = &w->events[a->first + i];
        uint64_t last;
        if (!w->damaged && a->revisions[i] != stream_count(w, e->stream, &last)) {
            fail(w, "a revision does not follow", a->revisions[i],
                 stream_count(w, e->stream, &last));
        }
        if (w->damaged) check_revision_is_new(w, e->stream, a->revisions[i]);
        e->fate = ACKED;
        e->present = true;
        note_position(w, a->first + (uint32_t)i, appended->first_position + i);
        e->revision = a->revisions[i];
    }
    w->batches[a->batch].round = w->round;
    w->end = appended->position;
    tell(w, "acknowledged to position", appended->position, "");
}

/* (7) */
static void check_refusal(const struct attempt *a, const struct deed_error *err)
{
    struct world *w = a->w;
    if (stored_before(a)) fail(w, "a retry was refused", a->first, err->position);
    if (a->misused_key) return;
    if (condition_holds(a)) fail(w, "an append was refused without a reason", a->first, 0);
    if (err->position != DEED_NONE && err->position > store_position(w->store)) {
        fail(w, "a refusal names what is not stored", err->position, store_position(w->store));
    }
    if (a->wish == WISH_NO_MATCH) {
        for (uint32_t n = 0; n < w->event_count; n++) {
            const struct model_event *e = &w->events[n];
            if (e->position == err->position && matches(a, e)) return;
        }
        fail(w, "a refusal names an event that does not match", err->position, 0);
    }
    uint64_t last;
    uint64_t count = stream_count(w, a->stream, &last);
    if (a->wish != WISH_STREAM) return;
    if (count > 0 && count <= w->truncated[a->stream] &&
        a->condition.expect == DEED_EXPECT_EXISTS) {
        return; /* the deletion is named: it is no event of the model */
    }
    if (err->position != (count == 0 ? DEED_NONE : last) || err->revision != count - 1) {
        fail(w, "a refusal misstates the stream", err->position, last);
    }
}

static void attempt_done(void *context, const struct deed_appended *appended,
                         const struct deed_error *err)
{
    struct attempt *a = context;
    struct world *w = a->w;
    if (appended != NULL) {
        attempt_accepted(a, appended);
        return;
    }
    tell(w, "refused event", a->first, err->message);
    if (err->status == DEED_CONFLICT) check_refusal(a, err);
    for (size_t i = 0; i < a->count; i++) {
        struct model_event *e = &w->events[a->first + i];
        if (e->fate != PENDING && e->fate != REFUSED) continue; /* a retry changes nothing */
        e->fate = err->status == DEED_UNKNOWN ? UNKNOWN : REFUSED;
    }
}

/* Some commits fill their sector, or nearly: only behind those the next of a group begins at a
 * boundary, where recovery looks also when the one before is torn. */
static size_t pick_pad(struct world *w, bool fills)
{
    if (fills) return 3840 + pick(w, 60);
    return pick(w, 4) == 0 ? pick(w, 5000) : pick(w, 200);
}

static uint32_t new_batch(struct world *w)
{
    uint32_t b = ++w->batch_count;
    bool fills = pick(w, 5) == 0;
    uint32_t count = fills ? 1 : 1 + (uint32_t)pick(w, BATCH_MAX);
    w->batches[b] = (struct model_batch){.first = w->event_count,
                                         .count = count,
                                         .round = w->round,
                                         .keyed = pick(w, 4) == 0,
                                         .ided = pick(w, 4) == 0};
    for (uint32_t i = 0; i < count; i++) {
        w->events[w->event_count++] = (struct model_event){.fate = PENDING,
                                                           .stream = (unsigned)pick(w, STREAMS),
                                                           .type = (unsigned)pick(w, TYPES),
                                                           .tag = (unsigned)pick(w, TAGS),
                                                           .pad = pick_pad(w, fills),
                                                           .batch = b,
                                                           .batch_size = count};
    }
    return b;
}

static void attempt_fill(struct world *w, struct attempt *a, uint32_t batch)
{
    const struct model_batch *b = &w->batches[batch];
    a->w = w;
    a->batch = batch;
    a->first = b->first;
    a->count = b->count;
    a->misused_key = false;
    a->wish = WISH_NOTHING;
    for (uint32_t i = 0; i < b->count; i++) {
        a->events[i] = event_of(w, b->first + i, &a->texts[i]);
    }
    a->append = (struct deed_append){
        .events = a->events, .event_count = a->count, .out_revisions = a->revisions};
    if (!b->keyed) return;
    (void)snprintf(a->key, sizeof a->key, "key%u", batch);
    a->append.idempotency_key = deed_str_of(a->key);
    memcpy(a->append.request_hash, &batch, sizeof batch);
}

/* Mostly near the truth: a wish that is always refused tests little. */
static void attempt_wish(struct world *w, struct attempt *a)
{
    uint64_t last;
    a->condition = (struct deed_condition){.kind = DEED_CONDITION_STREAM};
    a->append.conditions = &a->condition;
    a->append.condition_count = 1;
    switch (pick(w, 6)) {
    case 0:
        a->wish = WISH_IMPOSSIBLE;
        a->condition.stream = DEED_STR("never-written");
        a->condition.expect = DEED_EXPECT_EXISTS;
        break;
    case 1:
    case 2:
        a->wish = WISH_STREAM;
        a->stream = (unsigned)pick(w, STREAMS);
        (void)snprintf(a->stream_name, sizeof a->stream_name, "s-%u", a->stream);
        a->condition.stream = deed_str_of(a->stream_name);
        a->condition.expect = (enum deed_expect)(DEED_EXPECT_REVISION + pick(w, 3));
        a->condition.revision = stream_count(w, a->stream, &last) + pick(w, 3) - 1;
        break;
    default:
        a->wish = WISH_NO_MATCH;
        a->type = (unsigned)pick(w, TYPES);
        a->tag = (unsigned)pick(w, TAGS);
        a->by_type = pick(w, 3) > 0;
        a->by_tag = !a->by_type || pick(w, 2) == 0;
        (void)snprintf(a->tag_name, sizeof a->tag_name, "tag%u", a->tag);
        a->type_term = deed_str_of(type_names[a->type]);
        a->tag_term = deed_str_of(a->tag_name);
        a->item = (struct deed_query_item){.types = &a->type_term,
                                           .type_count = a->by_type,
                                           .tags = &a->tag_term,
                                           .tag_count = a->by_tag};
        a->condition.kind = DEED_CONDITION_NO_MATCH;
        a->condition.items = &a->item;
        a->condition.item_count = 1;
        a->condition.after = w->end - (pick(w, 2) == 0 ? 0 : pick(w, w->end < 30 ? w->end : 30));
        break;
    }
}

/* A batch that can be tried again, of the latest or of all; 0: there is none. */
static uint32_t pick_retry(struct world *w)
{
    if (w->batch_count == 0) return 0;
    uint64_t near = pick(w, 2) == 0 && w->batch_count > GROUP_MAX ? GROUP_MAX : w->batch_count;
    uint32_t b = w->batch_count - (uint32_t)pick(w, near);
    bool known = w->batches[b].keyed || w->batches[b].ided;
    /* What has an unknown outcome waits for recovery's word. */
    return known && w->events[w->batches[b].first].fate != UNKNOWN ? b : 0;
}

static void attempt_draw(struct world *w, struct attempt *a)
{
    uint32_t retry = pick(w, 6) == 0 ? pick_retry(w) : 0;
    bool misuse = retry != 0 && w->batches[retry].keyed && pick(w, 3) == 0 &&
                  w->events[w->batches[retry].first].fate == ACKED;
    attempt_fill(w, a, retry != 0 && !misuse ? retry : new_batch(w));
    if (misuse) {
        a->misused_key = true;
        w->batches[a->batch].keyed = w->batches[a->batch].ided = false;
        attempt_fill(w, a, a->batch);
        a->misused_key = true;
        (void)snprintf(a->key, sizeof a->key, "key%u", retry);
        a->append.idempotency_key = deed_str_of(a->key);
        a->append.request_hash[31] = 1;
    } else if (pick(w, 4) == 0) {
        attempt_wish(w, a);
    }
}

static void follow_check(struct world *w);

/* Several appends, gathered into groups by the committer. */
static void append_some(struct world *w)
{
    static struct attempt attempts[GROUP_MAX];
    size_t count = 1 + pick(w, GROUP_MAX);
    w->round++;
    for (size_t i = 0; i < count && w->event_count + BATCH_MAX < EVENTS_MAX; i++) {
        struct attempt *a = &attempts[i];
        struct deed_error err = {0};
        attempt_draw(w, a);
        if (store_submit(w->store, &a->append, attempt_done, a, &err) != DEED_OK) {
            if (err.status != DEED_STOPPED) fail(w, "an append was not taken", err.status, 0);
            attempt_done(a, NULL, &err);
        }
    }
    while (store_step(w->store)) continue;
    if (w->follower != NULL) follow_check(w);
}

/* ---- checks --------------------------------------------------------------------------------- */

/* (10): what is left of an event. */
static struct model_event *known_stub(struct world *w, const struct deed_event *e)
{
    static struct event_text text;
    uint32_t n = e->position < POSITIONS_MAX ? w->at[e->position] : 0;
    if (n-- == 0) fail(w, "a removed event that nobody wrote", e->position, 0);
    struct model_event *m = &w->events[n];
    struct deed_new_event wanted = event_of(w, n, &text);
    bool same = m->position == e->position && m->revision == e->revision && m->fate == ACKED &&
                deed_str_equal(e->stream, wanted.stream) && deed_str_equal(e->type, wanted.type) &&
                e->tag_count == 1 && deed_str_equal(e->tags[0], wanted.tags[0]) &&
                (!w->batches[m->batch].ided ||
                 memcmp(e->id.bytes, wanted.id.bytes, sizeof e->id.bytes) == 0);
    if (!same) fail(w, "a removed event is not what it was", e->position, n);
    if (e->data.len > 0) fail(w, "a removed event has data", e->position, n);
    if (m->revision >= w->may_go[m->stream]) {
        fail(w, "an event was removed that nobody hid", e->position, m->revision);
    }
    if (m->must_be_erased && !e->erased) fail(w, "an erased event is only removed", e->position, n);
    return m;
}

static struct model_event *known_event(struct world *w, const struct deed_event *e)
{
    static struct event_text text;
    if (e->removed) return known_stub(w, e);
    unsigned n = 0;
    char start[32] = "";
    size_t len = e->data.len < sizeof start - 1 ? e->data.len : sizeof start - 1;
    memcpy(start, e->data.ptr, len);
    if (sscanf(start, "{\"n\":%u,", &n) != 1 || n >= w->event_count) {
        fail(w, "an event that nobody wrote", e->position, 0);
    }
    struct deed_new_event wanted = event_of(w, n, &text);
    bool ided = w->batches[w->events[n].batch].ided;
    bool same = e->data.len == wanted.data.len &&
                memcmp(e->data.ptr, wanted.data.ptr, wanted.data.len) == 0 &&
                deed_str_equal(e->stream, wanted.stream) && deed_str_equal(e->type, wanted.type) &&
                e->tag_count == 1 && deed_str_equal(e->tags[0], wanted.tags[0]) &&
                (!ided || memcmp(e->id.bytes, wanted.id.bytes, sizeof e->id.bytes) == 0);
    if (!same) fail(w, "an event has other content", e->position, n);
    if (w->events[n].must_be_removed) fail(w, "a removed event is back", e->position, n);
    return &w->events[n];
}

static void check_event(struct world *w, const struct deed_event *e)
{
    struct model_event *m = known_event(w, e);
    if (m->present) fail(w, "an event is there twice", e->position, 0);
    if (m->fate == REFUSED) fail(w, "a refused event is there", e->position, 0);
    if (m->fate == ACKED && (m->position != e->position || m->revision != e->revision)) {
        fail(w, "an acknowledged event moved", m->position, e->position);
    }
    m->present = true;
    m->fate = ACKED; /* seen: it stays */
    note_position(w, (uint32_t)(m - w->events), e->position);
    m->revision = e->revision;
}

/* (4): a term of the index, and what a scan gives for it. */
struct term {
    bool stream, type, tag;
    bool all; /* no term: the log with its first event, the system's */
    unsigned k, tag_k;
};

static bool term_has(const struct term *t, const struct model_event *m)
{
    return m->present && (!t->stream || m->stream == t->k) && (!t->type || m->type == t->k) &&
           (!t->tag || m->tag == t->tag_k);
}

static void check_term(struct world *w, const struct term *t, bool backwards)
{
    char stream[16], tag[16];
    struct deed_cursor *cursor = NULL;
    struct deed_error err;
    struct deed_event e;
    struct deed_read_options options = {
        .backwards = backwards, .ignore_retention = true, .removed = true};
    (void)snprintf(stream, sizeof stream, "s-%u", t->k);
    (void)snprintf(tag, sizeof tag, "tag%u", t->tag_k);
    deed_str tag_term = deed_str_of(tag);
    deed_str type_term = deed_str_of(type_names[t->type ? t->k : 0]);
    if (t->stream) options.stream = deed_str_of(stream);
    if (t->type) options.filter.types = &type_term, options.filter.type_count = 1;
    if (t->tag) options.filter.tags = &tag_term, options.filter.tag_count = 1;
    if (backwards) options.from_revision = options.after_position = DEED_NONE;

    options.filter.system = t->all;
    uint64_t wanted = t->all, got = 0, last = backwards ? DEED_NONE : 0;
    for (uint32_t n = 0; n < w->event_count; n++)
        wanted += term_has(t, &w->events[n]);
    deed_status status = store_read(w->store, &options, &cursor, &err);
    if (status == DEED_NOT_FOUND && wanted == 0) return;
    if (status != DEED_OK) fail(w, "a read did not open", status, t->k);
    while ((status = cursor_next(cursor, &e, &err)) == DEED_OK) {
        if (backwards ? e.position >= last : e.position <= last) {
            fail(w, "a read is out of order", e.position, last);
        }
        last = e.position;
        if (t->all && e.position > 1 && is_system(&e)) continue; /* metadata */
        got++;
        if (e.position == 1 && t->all) continue;
        const struct model_event *m = known_event(w, &e);
        if (!term_has(t, m) || m->position != e.position) {
            fail(w, "a read gives another event", e.position, t->k);
        }
    }
    if (status != DEED_END) fail(w, "a read failed", status, err.position);
    cursor_close(cursor);
    if (got != wanted) fail(w, "the index gives another number of events", got, wanted);
}

/* A virtual stream, and what belongs to it. */
struct list {
    deed_str stream;
    const char *type; /* NULL: of any */
    bool first;       /* only the first of each stream */
};

static bool list_has(const struct list *l, const struct deed_event *e)
{
    return !is_system(e) && (!l->first || e->revision == 0) &&
           (l->type == NULL || deed_str_equal(e->type, deed_str_of(l->type)));
}

/* Its positions, by scanning the log. */
static size_t list_scan(struct world *w, const struct list *l, uint64_t *positions)
{
    struct deed_cursor *cursor = NULL;
    struct deed_error err;
    struct deed_event e;
    struct deed_read_options options = {.removed = true};
    size_t count = 0;
    deed_status status = store_read(w->store, &options, &cursor, &err);
    if (status != DEED_OK) fail(w, "a scan did not open", status, 0);
    while ((status = cursor_next(cursor, &e, &err)) == DEED_OK) {
        if (list_has(l, &e)) positions[count++] = e.position;
    }
    if (status != DEED_END) fail(w, "a scan failed", status, err.position);
    cursor_close(cursor);
    return count;
}

/* (4), from a place that is drawn to the end, or back to the first. */
static void check_list(struct world *w, const struct list *l, bool backwards)
{
    static uint64_t positions[POSITIONS_MAX];
    struct deed_cursor *cursor = NULL;
    struct deed_error err;
    struct deed_event e;
    size_t count = list_scan(w, l, positions);
    uint64_t place = count == 0 ? 0 : pick(w, count);
    struct deed_read_options options = {
        .stream = l->stream, .from_revision = place, .backwards = backwards, .removed = true};
    deed_status status = store_read(w->store, &options, &cursor, &err);
    if (status == DEED_NOT_FOUND && count == 0) return;
    if (status != DEED_OK) fail(w, "a virtual stream did not open", status, count);
    while ((status = cursor_next(cursor, &e, &err)) == DEED_OK) {
        if (place >= count || e.position != positions[place] || e.link_revision != place) {
            fail(w, "a virtual stream gives another event", e.position, place);
        }
        place = backwards ? place - 1 : place + 1; /* DEED_NONE behind the first */
    }
    if (status != DEED_END) fail(w, "a virtual stream failed", status, err.position);
    if (place != (backwards ? DEED_NONE : count)) fail(w, "a virtual stream ends early", place, count);
    cursor_close(cursor);
}

static void check_lists(struct world *w)
{
    static const struct list lists[] = {
        {{"$ce-s", 5}, NULL, false},
        {{"$streams", 8}, NULL, true},
    };
    char name[32];
    const char *type = type_names[pick(w, TYPES)];
    int size = snprintf(name, sizeof name, "$et-%s", type);
    struct list of_type = {{name, (size_t)size}, type, false};
    for (size_t i = 0; i < 2; i++) check_list(w, &lists[i], pick(w, 2) == 0);
    check_list(w, &of_type, pick(w, 2) == 0);
}

static void check_index(struct world *w)
{
    for (unsigned i = 0; i < STREAMS + TYPES + TAGS; i++) {
        struct term t = {.stream = i < STREAMS, .tag = i >= STREAMS + TYPES};
        t.type = !t.stream && !t.tag;
        t.k = t.stream ? i : t.type ? i - STREAMS : 0;
        t.tag_k = t.tag ? i - STREAMS - TYPES : 0;
        check_term(w, &t, pick(w, 2) == 0);
    }
    struct term both = {.type = true, .tag = true};
    both.k = (unsigned)pick(w, TYPES);
    both.tag_k = (unsigned)pick(w, TAGS);
    check_term(w, &both, pick(w, 2) == 0);
    struct term none = {.all = true};
    check_term(w, &none, true);
    check_lists(w);
}

/* Where time leads: to the last position recorded by then. */
static void check_time(struct world *w)
{
    struct deed_error err;
    uint64_t position = 1 + pick(w, w->end);
    uint64_t found = 0;
    int64_t time = 0, there = 0, next = 0;
    if (store_recorded_at(w->store, position, &time, &err) != DEED_OK ||
        store_position_at(w->store, time, &found, &err) != DEED_OK || found < position ||
        store_recorded_at(w->store, found, &there, &err) != DEED_OK || there != time) {
        fail(w, "a time leads elsewhere", position, found);
    }
    if (store_recorded_at(w->store, found + 1, &next, &err) == DEED_OK && next <= time) {
        fail(w, "a time leads too low", position, found);
    }
}

/* (4): what a following cursor has got since it was last asked. */
static void follow_check(struct world *w)
{
    struct deed_error err;
    struct deed_event e;
    deed_status status;
    if (w->follower == NULL) return;
    while ((status = cursor_next(w->follower, &e, &err)) == DEED_OK) {
        if (e.position != ++w->followed) fail(w, "following skips", e.position, w->followed);
        if (is_system(&e)) continue;
        const struct model_event *m = known_event(w, &e);
        if (m->fate != ACKED || m->position != e.position || m->revision != e.revision) {
            fail(w, "following sees what was not acknowledged", e.position, m->position);
        }
    }
    if (status == DEED_IO) return; /* the power is off */
    if (status != DEED_END) fail(w, "following failed", status, err.position);
    if (w->followed != w->end) fail(w, "following misses", w->followed, w->end);
}

static void follow_begin(struct world *w)
{
    struct deed_error err;
    struct deed_read_options options = {
        .follow = true, .filter.system = true, .removed = true};
    w->follower = NULL;
    deed_status status = store_read(w->store, &options, &w->follower, &err);
    w->followed = 0;
    if (status == DEED_IO || status == DEED_BUSY) return; /* where it may begin is looked up */
    if (status != DEED_OK) fail(w, "following does not begin", status, 0);
}

static void follow_end(struct world *w)
{
    cursor_close(w->follower);
    w->follower = NULL;
}

static void check_batches(const struct world *w)
{
    uint32_t n = 0;
    while (n < w->event_count) {
        uint32_t size = w->events[n].batch_size;
        uint32_t present = 0;
        for (uint32_t i = 0; i < size; i++) present += w->events[n + i].present;
        if (present != 0 && present != size) fail(w, "half a commit is there", n, present);
        n += size;
    }
}

/* What a verification tells. */
struct reported {
    bool verbose;
    struct {
        uint64_t first, last;
    } ranges[256];
    size_t count;
};

static void note_damage(void *context, const struct store_damage *damage)
{
    struct reported *r = context;
    if (r->verbose) {
        printf("  damage: segment %u offset %" PRIu64 " positions %" PRId64 " to %" PRId64 ": %s\n",
               damage->segment, damage->offset, (int64_t)damage->first_position,
               (int64_t)damage->last_position, damage->what);
    }
    if (damage->first_position == DEED_NONE || r->count == 256) return;
    r->ranges[r->count].first = damage->first_position;
    r->ranges[r->count++].last = damage->last_position;
}

/* A part of the index that is damaged is made again in the background: until then who asks is to
 * come again. NULL: the device cannot be read now, or it takes a repair. */
static struct deed_cursor *read_begin(struct world *w, const struct deed_read_options *options)
{
    struct deed_cursor *cursor = NULL;
    struct deed_error err = {0};
    deed_status status = store_read(w->store, options, &cursor, &err);
    for (unsigned i = 0; i < 16 && status == DEED_BUSY; i++) {
        os_sim_advance(w->sim, 2000000000);
        while (store_step(w->store)) continue;
        status = store_read(w->store, options, &cursor, &err);
    }
    /* What the index needs to be made again may be damaged too: that takes a repair. */
    if (status == DEED_IO || (status == DEED_BUSY && w->damaged)) return NULL;
    /* Nothing is left of a stream, and perhaps there was something. */
    bool nothing = status == DEED_NOT_FOUND || (status == DEED_CORRUPT && w->damaged);
    if (options->stream.ptr != NULL && nothing) return NULL;
    if (status != DEED_OK) fail(w, err.message, status, 0);
    return cursor;
}

/* cursor_next, again and again while the index is being made again. */
static deed_status read_next(struct world *w, struct deed_cursor *cursor, struct deed_event *e,
                             struct deed_error *err)
{
    deed_status status = cursor_next(cursor, e, err);
    for (unsigned i = 0; i < 16 && status == DEED_BUSY; i++) {
        os_sim_advance(w->sim, 2000000000);
        while (store_step(w->store)) continue;
        status = cursor_next(cursor, e, err);
    }
    return status;
}

/* (10): what the streams hide, of metadata whose outcome may have been unknown. */
static void learn_truncation(struct world *w)
{
    for (unsigned s = 0; s < STREAMS; s++) {
        char stream[16];
        struct deed_error err;
        struct deed_stream_info info;
        (void)snprintf(stream, sizeof stream, "s-%u", s);
        w->truncated[s] = 0;
        if (store_stream(w->store, deed_str_of(stream), &info, &err) != DEED_OK) continue;
        w->truncated[s] = info.truncate_before;
        if (info.truncate_before > w->may_go[s]) {
            fail(w, "a stream hides what nobody asked it to", s, info.truncate_before);
        }
    }
}

/* (1) to (4). */
static void check_all(struct world *w)
{
    struct deed_cursor *cursor = NULL;
    struct deed_error err;
    struct deed_event e;
    struct deed_read_options options = {.filter.system = true, .removed = true};
    uint64_t next = 1;
    uint64_t revisions[STREAMS] = {0};
    int64_t recorded_at = 0;
    for (uint32_t n = 0; n < w->event_count; n++) w->events[n].present = false;
    cursor = read_begin(w, &options);
    if (cursor == NULL) return;
    deed_status status;
    while ((status = cursor_next(cursor, &e, &err)) == DEED_OK) {
        if (e.position != next++) fail(w, "positions have a gap", e.position, next - 1);
        if (e.recorded_at_ns < recorded_at) fail(w, "recorded_at went back", e.position, 0);
        recorded_at = e.recorded_at_ns;
        if (is_system(&e)) continue;
        check_event(w, &e);
        unsigned stream = w->events[0].stream;
        (void)sscanf(e.stream.ptr, "s-%u", &stream);
        if (e.revision != revisions[stream]++) fail(w, "revisions have a gap", e.position, stream);
    }
    cursor_close(cursor);
    if (status != DEED_END) fail(w, "the log does not read to its end", status, err.position);
    for (uint32_t n = 0; n < w->event_count; n++) {
        struct model_event *m = &w->events[n];
        if (m->fate == ACKED && !m->present) fail(w, "an acknowledged event is lost", m->position, n);
        if (m->fate == UNKNOWN && !m->present) m->fate = REFUSED; /* recovery has decided */
    }
    w->end = next - 1;
    if (compacts(w)) learn_truncation(w);
    check_batches(w);
    check_index(w);
    check_time(w);
    struct store_verify_report report;
    struct reported reported = {.verbose = w->verbose};
    status = store_verify(w->store, note_damage, NULL, &reported, &report, &err);
    if (status != DEED_OK) fail(w, "the log does not verify", status, report.damage_count);
    if (report.events != w->end) fail(w, "verify counts otherwise", report.events, w->end);
}

/* ---- lives of a machine --------------------------------------------------------------------- */

static struct store_options options_of(struct world *w)
{
    return (struct store_options){.segment_size = UINT64_C(64) << (w->seed % 4 == 3 ? 12 : 10),
                                  .no_threads = true};
}

static deed_status reopen(struct world *w, struct deed_error *err)
{
    struct store_options options = options_of(w);
    deed_status status = store_open(os_sim_os(w->sim), DIRECTORY, &options, &w->store, err);
    tell(w, "opened:", status, status == DEED_OK ? "" : err->message);
    return status;
}

/* What the newest commit mark on the device claims. */
static uint64_t mark_position(struct world *w)
{
    struct os_dir *dir = NULL;
    struct deed_error err;
    struct mark mark = {0};
    deed_status status = os_dir_open(os_sim_os(w->sim), DIRECTORY "/log", false, &dir, &err);
    if (status == DEED_NOT_FOUND) return 0;
    if (status != DEED_OK || mark_load(dir, &mark, &err) != DEED_OK) {
        fail(w, "the mark cannot be read", err.status, 0);
    }
    os_dir_close(dir);
    return mark.position;
}

/* Open through crashes of the recovery itself. */
static void open_at_last(struct world *w)
{
    struct deed_error err = {0};
    for (unsigned crashes = 0; crashes < 4 && pick(w, 4) == 0; crashes++) {
        os_sim_power_off_after(w->sim, pick(w, 60));
        if (pick(w, 2) == 0) os_sim_set_faults(w->sim, &w->faults);
        if (reopen(w, &err) == DEED_OK) store_close(w->store);
        w->store = NULL;
        os_sim_crash(w->sim);
        w->killed = false;
    }
    os_sim_heal(w->sim);
    uint64_t marked = mark_position(w);
    if (marked < w->marked) fail(w, "a commit mark was taken back", marked, w->marked);
    if (!w->killed) w->marked = marked;
    if (reopen(w, &err) != DEED_OK) {
        fprintf(stderr, "%s\n", err.message);
        fail(w, "the store does not open", err.status, 0);
    }
}

static void plan_fault(struct world *w)
{
    static const enum os_sim_op ops[] = {OS_SIM_WRITE, OS_SIM_SYNC, OS_SIM_ANY};
    switch (pick(w, 4)) {
    case 0: os_sim_power_off_after(w->sim, pick(w, 120)); break;
    case 1:
        os_sim_fail(w->sim, ops[pick(w, 3)], 1 + pick(w, 60), 0, EIO);
        w->names_doubtful = true;
        break;
    case 2:
        os_sim_fail(w->sim, OS_SIM_WRITE, 1 + pick(w, 40), pick(w, 2) ? DEED_NONE : 3, ENOSPC);
        break;
    default: break;
    }
}

/* This seed's mix: what each crash may do, and operations that fail or tell the truth late. */
static void draw_faults(struct world *w)
{
    static const uint32_t crash_ppm[] = {0, 200000, 500000, 1000000};
    static const uint32_t op_ppm[] = {200, 2000, 20000};
    static const enum os_sim_fault harmless[] = {OS_SIM_WRITE_ERROR, OS_SIM_SYNC_ERROR,
                                                 OS_SIM_DISK_FULL, OS_SIM_SLOW, OS_SIM_SHORT_WRITE};
    w->faults = os_sim_faults_crash();
    if (pick(w, 2) == 0) {
        for (int f = OS_SIM_REORDERED; f <= OS_SIM_LOST_NAME; f++) {
            w->faults.ppm[f] = crash_ppm[pick(w, 4)];
        }
        w->faults.ppm[OS_SIM_LOST_WRITE] = crash_ppm[1 + pick(w, 3)];
        w->faults.ppm[OS_SIM_REUSED] = w->faults.ppm[OS_SIM_LOST_NAME];
    }
    if (pick(w, 2) == 0) return;
    for (size_t i = 0; i < sizeof harmless / sizeof harmless[0]; i++) {
        if (pick(w, 2) == 0) w->faults.ppm[harmless[i]] = op_ppm[pick(w, 3)];
    }
}

/* (4) while the store is open, also one that stopped with a group of unknown outcome. */
static void check_in_life(struct world *w)
{
    os_sim_heal(w->sim);
    if (!os_sim_powered(w->sim) || pick(w, 2) == 0) return;
    os_sim_power_off_after(w->sim, DEED_NONE);
    for (uint32_t n = 0; n < w->event_count; n++) {
        w->events[n].present = w->events[n].fate == ACKED;
    }
    check_index(w);
}

/* (10): has the job ended that was asked for? Then what it was to take out is out. */
static void compaction_look(struct world *w)
{
    struct deed_compaction c;
    if (!w->asked) return;
    store_compaction(w->store, &c);
    if (c.state == DEED_COMPACTION_RUNNING) return;
    w->asked = false;
    tell(w, "compaction ended:", c.events_removed, c.error);
    if (c.state != DEED_COMPACTION_DONE || c.skipped > 0) return;
    if (!w->all_segments || (w->names_doubtful && !w->erases)) return;
    for (uint32_t n = 0; n < w->event_count; n++) {
        struct model_event *m = &w->events[n];
        if (m->fate != ACKED || m->revision >= w->below[m->stream]) continue;
        m->must_be_removed = true;
        m->must_be_erased |= w->erases;
    }
}

static void compaction_ask(struct world *w)
{
    char stream[16];
    struct deed_error err = {0};
    uint64_t last;
    unsigned s = (unsigned)pick(w, STREAMS);
    uint64_t count = stream_count(w, s, &last);
    (void)snprintf(stream, sizeof stream, "s-%u", s);
    if (w->asked || count == 0) return;
    w->erases = pick(w, 3) == 0;
    w->all_segments = w->erases || pick(w, 2) == 0;
    if (w->erases) {
        w->may_go[s] = count;
        memset(w->below, 0, sizeof w->below);
        w->below[s] = count;
        w->asked = store_erase(w->store, deed_str_of(stream), (deed_str){0}, &err) == DEED_OK;
        /* It may be given up after it has hidden the stream. */
        if (w->asked || store_position(w->store) > w->end) w->truncated[s] = count;
        tell(w, "erase", count, stream);
    } else {
        struct deed_compact_options how = {.compress_level = pick(w, 3) == 0 ? 1 : 0,
                                           .active = w->all_segments};
        memcpy(w->below, w->truncated, sizeof w->below);
        w->asked = store_compact(w->store, &how, &err) == DEED_OK;
        tell(w, "compact", w->asked, err.message);
    }
    w->end = store_position(w->store);
}

/* Hide some of a stream; an outcome that is not known is learned when the store is opened. */
static void truncate_some(struct world *w)
{
    char stream[16], json[64];
    struct deed_error err = {0};
    struct deed_appended appended;
    uint64_t last;
    unsigned s = (unsigned)pick(w, STREAMS);
    uint64_t count = stream_count(w, s, &last);
    if (count == 0) return;
    uint64_t below = pick(w, 4) == 0 ? count : pick(w, count + 1);
    (void)snprintf(stream, sizeof stream, "s-%u", s);
    (void)snprintf(json, sizeof json, "{\"$tb\":%" PRIu64 "}", below);
    if (below > w->may_go[s]) w->may_go[s] = below;
    /* All of it, as clients of KurrentDB do: what is written later must stay. */
    bool all = below == count, deletes = all && pick(w, 2) == 0;
    if (all && !deletes) (void)snprintf(json, sizeof json, "{\"$tb\":9223372036854775807}");
    deed_status status =
        deletes ? store_delete_foreign(w->store, deed_str_of(stream), DEED_EXPECT_ANY, 0, false,
                                       &appended, &err)
                : store_set_metadata(w->store, deed_str_of(stream),
                                     deed_bytes_of(deed_str_of(json)), DEED_EXPECT_ANY, 0,
                                     (deed_str){0}, &appended, &err);
    tell(w, deletes ? "delete" : "truncate to", below, status == DEED_OK ? stream : err.message);
    if (status == DEED_OK) w->truncated[s] = below;
    w->end = store_position(w->store);
}

/* Ask for something, and sometimes let it get on before anything else happens. */
static void compact_some(struct world *w)
{
    if (pick(w, 2) == 0) {
        truncate_some(w);
    } else {
        compaction_ask(w);
    }
    uint64_t steps = pick(w, 3) == 0 ? pick(w, 20) : 5000;
    for (; steps > 0 && w->asked; steps--) {
        (void)store_step(w->store);
        compaction_look(w);
    }
}

static void live(struct world *w)
{
    if (!w->killed) w->names_doubtful = false;
    w->names_doubtful |= w->faults.ppm[OS_SIM_SYNC_ERROR] > 0;
    plan_fault(w);
    os_sim_set_faults(w->sim, &w->faults);
    if (pick(w, 2) == 0) follow_begin(w);
    uint64_t rounds = pick(w, 30);
    for (uint64_t i = 0; i < rounds && w->event_count + GROUP_MAX * BATCH_MAX < EVENTS_MAX; i++) {
        append_some(w);
        if (compacts(w) && pick(w, 3) == 0) compact_some(w);
        compaction_look(w);
        if (pick(w, 3) == 0) os_sim_advance(w->sim, pick(w, 80000000));
        if (pick(w, 50) == 0) os_sim_set_clock(w->sim, (int64_t)pick(w, 1u << 30));
    }
    follow_end(w);
    check_in_life(w);
}

static void die(struct world *w)
{
    switch (pick(w, 3)) {
    case 0: /* in an orderly way, as far as the disk lets it */
        store_close(w->store);
        w->store = NULL;
        break;
    default: break;
    }
    /* Without power closing does nothing but free memory. */
    w->asked = false;
    os_sim_power_off_after(w->sim, 0);
    bool kill = pick(w, 4) == 0;
    w->killed = kill;
    if (kill) {
        tell(w, "kill", 0, "");
        os_sim_kill(w->sim);
    } else {
        os_sim_crash(w->sim);
        tell(w, "crash", 0, os_sim_describe(w->sim));
    }
    store_close(w->store);
    w->store = NULL;
    os_sim_power_off_after(w->sim, DEED_NONE);
}

/* (6) */
static void expect_append_succeeds(struct world *w)
{
    struct deed_error err;
    struct deed_appended appended;
    struct attempt *a = calloc(1, sizeof *a);
    if (a == NULL) abort();
    w->round++;
    attempt_fill(w, a, new_batch(w));
    if (store_append(w->store, &a->append, &appended, &err) != DEED_OK) {
        fprintf(stderr, "%s\n", err.message);
        fail(w, "an append fails on a healthy machine", err.status, 0);
    }
    attempt_done(a, &appended, NULL);
    free(a);
}

/* ---- rot ------------------------------------------------------------------------------------ */

struct file_list {
    const char *folder;
    char paths[64][96];
    size_t count;
};

static bool ends_with(const char *name, const char *end)
{
    size_t len = strlen(name), end_len = strlen(end);
    return len > end_len && strcmp(name + len - end_len, end) == 0;
}

/* Segments, sealed or not, and parts of the index. */
static void list_file(void *context, const char *name)
{
    struct file_list *list = context;
    bool wanted = ends_with(name, ".seg") || ends_with(name, ".sealed") || ends_with(name, ".run");
    if (!wanted || list->count == 64) return;
    (void)snprintf(list->paths[list->count++], sizeof list->paths[0], "%s/%s", list->folder, name);
}

static void list_folder(struct world *w, struct file_list *list, const char *folder)
{
    struct os_dir *dir = NULL;
    struct deed_error err;
    list->folder = folder;
    deed_status status = os_dir_open(os_sim_os(w->sim), folder, false, &dir, &err);
    if (status == DEED_NOT_FOUND) return;
    if (status != DEED_OK || os_dir_list(dir, list_file, list, &err) != DEED_OK) {
        fail(w, "no files to rot", status, 0);
    }
    os_dir_close(dir);
}

static void rot_something(struct world *w)
{
    struct file_list list = {.count = 0};
    struct os_dir *root = NULL;
    struct os_file *file = NULL;
    uint64_t size = 0;
    struct deed_error err;
    list_folder(w, &list, DIRECTORY "/log");
    list_folder(w, &list, DIRECTORY "/index");
    if (list.count == 0) fail(w, "nothing to rot", 0, 0);
    const char *path = list.paths[pick(w, list.count)];
    const char *name = strrchr(path, '/') + 1;
    char folder[96];
    (void)snprintf(folder, sizeof folder, "%.*s", (int)(name - path - 1), path);
    if (os_dir_open(os_sim_os(w->sim), folder, false, &root, &err) != DEED_OK ||
        os_file_open(root, name, OS_READ, &file, &err) != DEED_OK ||
        os_file_size(file, &size, &err) != DEED_OK || size == 0) {
        fail(w, "nothing to rot in", 0, 0);
    }
    os_file_close(file);
    os_dir_close(root);
    /* Stale sectors too: an older content that was valid once. */
    uint64_t offset = pick(w, size);
    enum os_sim_rot rot = (enum os_sim_rot)pick(w, 3);
    tell(w, "rot at offset", offset, path);
    if (os_sim_rot(w->sim, path, offset, rot) != DEED_OK) fail(w, "cannot rot", offset, 0);
}

/* ---- damage that strikes while the store works ----------------------------------------------- */

/* What may spoil acknowledged data, or what is read of it. */
static const enum os_sim_fault harmful[] = {OS_SIM_READ_ERROR, OS_SIM_LYING_SYNC,
                                            OS_SIM_BIT_ROT,    OS_SIM_STRAY_WRITE,
                                            OS_SIM_STRAY_READ, OS_SIM_STALE_READ};

static uint64_t strikes(const struct world *w)
{
    uint64_t count = 0;
    for (size_t i = 0; i < sizeof harmful / sizeof harmful[0]; i++) {
        count += os_sim_struck(w->sim, harmful[i]);
    }
    return count;
}

static void draw_damage(struct world *w, struct os_sim_faults *out)
{
    static const uint32_t ppm[] = {1000, 10000, 100000};
    size_t kinds = sizeof harmful / sizeof harmful[0];
    *out = os_sim_faults_crash();
    for (uint64_t i = 1 + pick(w, 2); i > 0; i--)
        out->ppm[harmful[pick(w, kinds)]] = ppm[pick(w, 3)];
}

/* (5) of one read of everything, while the device may lie: nothing wrong is served. */
static void read_all_doubtfully(struct world *w)
{
    struct deed_cursor *cursor = NULL;
    struct deed_error err = {0};
    struct deed_event e;
    struct deed_read_options options = {.filter.system = true, .removed = true};
    cursor = read_begin(w, &options);
    if (cursor == NULL) return;
    deed_status status;
    unsigned failures = 0;
    while ((status = cursor_next(cursor, &e, &err)) != DEED_END && failures < 20) {
        failures += status == DEED_IO; /* tried again at the same place */
        if (status != DEED_OK && status != DEED_CORRUPT && status != DEED_IO) {
            fail(w, "a read failed otherwise", status, err.position);
        }
        if (status != DEED_OK || is_system(&e)) continue;
        const struct model_event *m = known_event(w, &e);
        if (m->fate == ACKED && m->position != e.position) {
            fail(w, "a wrong event", e.position, m->position);
        }
    }
    cursor_close(cursor);
}

/* The store is open and healthy; the device begins to do wrong. */
static void live_with_damage(struct world *w)
{
    struct os_sim_faults faults;
    struct deed_error err;
    draw_damage(w, &faults);
    os_sim_set_faults(w->sim, &faults);
    uint64_t rounds = pick(w, 20);
    for (uint64_t i = 0; i < rounds && w->event_count + GROUP_MAX * BATCH_MAX < EVENTS_MAX; i++) {
        append_some(w);
        if (pick(w, 3) == 0) os_sim_advance(w->sim, pick(w, 80000000));
        if (pick(w, 8) == 0) read_all_doubtfully(w);
    }
    die(w);
    if (pick(w, 2) == 0) {
        /* Nothing is appended here: a recovery that was lied to may have cut the newest group. */
        os_sim_set_faults(w->sim, &faults);
        if (reopen(w, &err) == DEED_OK) {
            read_all_doubtfully(w);
            store_close(w->store);
            w->store = NULL;
        }
    }
    os_sim_heal(w->sim);
}

/* (6) also after damage, once somebody accepts it; and what is given out is given out once. */
static void expect_repair(struct world *w, uint64_t position)
{
    struct deed_error err = {0};
    struct deed_info info;
    for (unsigned again = 0; again < 2; again++) {
        struct store_options options = options_of(w);
        /* After a kill the cache may have hidden damage that a power cut shows. */
        options.accept_losses = again == 0 || w->killed;
        if (store_open(os_sim_os(w->sim), DIRECTORY, &options, &w->store, &err) != DEED_OK) {
            fprintf(stderr, "%s\n", err.message);
            fail(w, "a repaired store does not open", err.status, again);
        }
        store_info(w->store, &info);
        if (!info.writable) {
            fprintf(stderr, "%s\n", info.stopped_because);
            fail(w, "a repaired store takes no appends", again, 0);
        }
        if (info.position < position) fail(w, "positions went back", info.position, position);
        w->end = info.position;
        expect_append_succeeds(w);
        if (pick(w, 2) == 0) {
            os_sim_power_off_after(w->sim, 0);
            os_sim_crash(w->sim);
        }
        store_close(w->store);
        w->store = NULL;
        position = w->end;
    }
}

static bool was_reported(const struct reported *r, uint64_t position)
{
    for (size_t i = 0; i < r->count; i++) {
        if (r->ranges[i].first <= position && position <= r->ranges[i].last) return true;
    }
    return r->count == 256;
}

/* What opening found must be met on the way. More may be: sealed segments are not read by opening.
 */
static void expect_met(struct world *w, const struct deed_info *info, bool met)
{
    if (info->corrupt_first != DEED_NONE && !met) {
        fail(w, "a read hides a loss", info->corrupt_first, 0);
    }
}

/* (5): scan what is served; mark what is present. false: it takes a repair. */
static bool scan_damaged(struct world *w, const struct deed_info *info)
{
    struct deed_error err = {0};
    struct deed_cursor *cursor = NULL;
    struct deed_event e;
    struct deed_read_options options = {.filter.system = true, .removed = true};
    for (uint32_t n = 0; n < w->event_count; n++) w->events[n].present = false;
    cursor = read_begin(w, &options);
    if (cursor == NULL) return false;
    bool met = false;
    deed_status status;
    while ((status = cursor_next(cursor, &e, &err)) != DEED_END) {
        if (status == DEED_OK && !is_system(&e)) {
            struct model_event *m = known_event(w, &e);
            if (m->fate == REFUSED) fail(w, "a refused event is there", e.position, 0);
            if (m->fate == ACKED && m->position != e.position)
                fail(w, "a wrong event", e.position, 0);
            m->present = true;
        }
        if (status != DEED_OK && status != DEED_CORRUPT) fail(w, "a read failed", status, 0);
        met |= status == DEED_CORRUPT && err.position == info->corrupt_first;
    }
    cursor_close(cursor);
    expect_met(w, info, met);
    return true;
}

/* (5): a read by type stops at each loss that opening found, too. */
static void scan_damaged_type(struct world *w, const struct deed_info *info)
{
    struct deed_error err = {0};
    struct deed_cursor *cursor = NULL;
    struct deed_event e;
    deed_str type = deed_str_of(type_names[pick(w, TYPES)]);
    struct deed_read_options options = {.filter = {.types = &type, .type_count = 1},
                                        .removed = true};
    cursor = read_begin(w, &options);
    if (cursor == NULL) return;
    deed_status status;
    bool met = false;
    while ((status = read_next(w, cursor, &e, &err)) != DEED_END) {
        /* What the index needs to be made again may be damaged too: that takes a repair. */
        if (status == DEED_BUSY) break;
        if (status != DEED_OK && status != DEED_CORRUPT) fail(w, "a read by type failed", status, 0);
        met |= status == DEED_CORRUPT && err.position == info->corrupt_first;
    }
    cursor_close(cursor);
    if (status != DEED_BUSY) expect_met(w, info, met);
}

/* (5): so does a virtual stream; and no place there is passed over but at a loss that it told. */
static void scan_damaged_list(struct world *w, const struct deed_info *info)
{
    struct deed_error err = {0};
    struct deed_event e;
    char name[32];
    const char *type = type_names[pick(w, TYPES)];
    int size = snprintf(name, sizeof name, "$et-%s", type);
    struct deed_read_options options = {.stream = {name, (size_t)size}, .removed = true};
    struct deed_cursor *cursor = read_begin(w, &options);
    if (cursor == NULL) return;
    deed_status status;
    bool met = false, told = false;
    uint64_t place = 0, last = 0;
    while ((status = read_next(w, cursor, &e, &err)) != DEED_END) {
        if (status == DEED_BUSY) break;
        if (status != DEED_OK && status != DEED_CORRUPT) fail(w, "a virtual stream failed", status, 0);
        met |= status == DEED_CORRUPT && err.position == info->corrupt_first;
        told |= status == DEED_CORRUPT;
        if (status == DEED_CORRUPT) continue;
        if (e.position <= last || e.link_revision < place || (e.link_revision > place && !told)) {
            fail(w, "a virtual stream jumps", e.position, e.link_revision);
        }
        if (!deed_str_equal(e.type, deed_str_of(type))) fail(w, "another type", e.position, 0);
        last = e.position;
        place = e.link_revision + 1;
        told = false;
    }
    cursor_close(cursor);
    if (status != DEED_BUSY) expect_met(w, info, met);
}

/* (5): every loss is reported, unless it is of the newest, behind the mark, and explained by as
 * many strikes as appends gathered in a round are lost. */
static void check_losses(struct world *w, const struct deed_info *info, uint64_t marked,
                         uint64_t struck, bool lied)
{
    struct reported reported = {.verbose = w->verbose};
    struct store_verify_report report;
    struct deed_error err;
    uint64_t silent = 0, lost = 0;
    uint32_t last_silent = 0, last_lost = 0;
    deed_status status = store_verify(w->store, note_damage, NULL, &reported, &report, &err);
    if (status != DEED_OK && status != DEED_CORRUPT) fail(w, "verify failed", status, 0);
    for (uint32_t n = 0; n < w->event_count; n++) {
        const struct model_event *m = &w->events[n];
        if (m->fate != ACKED) continue;
        bool told = was_reported(&reported, m->position);
        if (m->present && told) fail(w, "what is served is reported lost", m->position, 0);
        if (m->present) continue;
        uint32_t round = w->batches[m->batch].round;
        lost += round != last_lost;
        last_lost = round;
        if (m->position <= info->position) {
            if (!told) fail(w, "a loss is not reported", m->position, n);
            if (info->writable && info->corrupt_first != DEED_NONE) {
                fail(w, "an event is missing, but appends go on", m->position, 0);
            }
        } else if (m->position <= marked) {
            fail(w, "a loss that the mark knows of is silent", m->position, marked);
        } else {
            silent += round != last_silent;
            last_silent = round;
        }
    }
    if (lied) return;
    if (silent > struck) fail(w, "silent losses without a cause", silent, struck);
    /* A sector of a sealed segment may hold some 16 commits, and two that go on in others; a
     * misdirected write spoils two sectors. */
    if (lost > 36 * struck) fail(w, "more is lost than was damaged", lost, struck);
}

/* (5) */
static void check_damaged(struct world *w, uint64_t struck)
{
    struct deed_error err = {0};
    struct deed_info info;
    bool lied = os_sim_struck(w->sim, OS_SIM_LYING_SYNC) > 0;
    uint64_t marked = mark_position(w);
    deed_status status = reopen(w, &err);
    if (status == DEED_CORRUPT) return; /* refused as a whole, with a reason */
    if (status != DEED_OK) fail(w, "damage is reported as something else", status, 0);
    store_info(w->store, &info);
    bool scanned = scan_damaged(w, &info);
    scan_damaged_type(w, &info);
    scan_damaged_list(w, &info);
    if (scanned) check_losses(w, &info, marked, struck, lied);
    store_close(w->store);
    w->store = NULL;
    expect_repair(w, info.position);
}

static void run_seed(uint64_t seed, bool verbose)
{
    struct world *w = calloc(1, sizeof *w);
    if (w == NULL) abort();
    w->seed = seed;
    w->verbose = verbose;
    w->sim = os_sim_create(seed, NULL);
    draw_faults(w);
    uint64_t boots = 2 + pick(w, 5);
    for (uint64_t i = 0; i < boots; i++) {
        open_at_last(w);
        check_all(w);
        if (pick(w, 2) == 0) {
            os_sim_drop_cache(w->sim); /* what was served must be what the device holds */
            check_all(w);
        }
        expect_append_succeeds(w);
        live(w);
        die(w);
        os_sim_heal(w->sim);
    }
    open_at_last(w);
    check_all(w);
    expect_append_succeeds(w);
    uint64_t end = pick(w, 3);
    if (end == 0) live_with_damage(w);
    store_close(w->store);
    w->store = NULL;
    w->damaged = end < 2;
    if (end == 1) rot_something(w);
    if (end < 2) {
        os_sim_drop_cache(w->sim);
        check_damaged(w, strikes(w) + (end == 1));
    }
    os_sim_destroy(w->sim);
    free(w);
}

int main(int argc, char **argv)
{
    return sim_main(argc, argv, 2500, run_seed);
}
