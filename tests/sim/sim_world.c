/* sim_world.c - everything at once on a machine made from a seed: the store, its projections and their
 * SQLite files, writers, readers, followers and queries, stepped in the seed's order in one thread,
 * on one simulated disk that loses, tears and fails what it may.
 *
 *     sim_world [COUNT [FROM]]  that many seeds, from 1 (default SIM_SEEDS, else 500)
 *     sim_world --seed N ...    these seeds, telling what they do
 *
 * Each seed draws its own work and its own faults (a swarm). The machine lives and dies several times.
 *
 * The fault atlas: the 20 kinds, and what each may cost.
 *
 *     lost writes, any order, torn writes, torn sectors,    nothing that was acknowledged. What was
 *     scrambled sectors, lost names, reused blocks          not: all of a commit or nothing of it
 *     (at a crash)
 *     crash during recovery, kill -9                        the same
 *     write errors, short writes, disk full                 the append is refused, or its outcome is
 *                                                           unknown; the rest goes on or stops
 *     sync errors                                           the same, and writing stops
 *     read errors, failed allocations                       the call that met them fails
 *     slow operations                                       time
 *     lying syncs                                           what came after the last true sync; the
 *                                                           chain stays whole, positions dense
 *     bit rot, misdirected writes and reads, stale reads    of the log: the range that is reported,
 *                                                           see sim_store.c, which has those rules
 *                                                           (lying syncs, too). Of a read model: the
 *                                                           time to rebuild it; never a wrong row
 *
 * Checked:
 *
 * (1) Acknowledged events are in the log at their positions and revisions, in the order of the
 *     answers, with their content. Refused ones are not. Unknown ones: the commit whole, or none of it.
 * (2) Positions and revisions are dense; no event is there twice; recorded_at never goes back.
 * (3) A condition decides as the model does; a retry has the first answer.
 * (4) Every read through the index, of streams as their retention says, gives what a scan gives.
 * (5) A follower sees each matching event once, in order, across crashes of the machine.
 * (6) A read model's rows are the fold of the log from zero to its checkpoint: of the live generation
 *     at any moment, and of a question about the past. The checkpoint is never past the log.
 * (7) Recovery repeated changes nothing. The chain verifies.
 * (8) With the faults over, an append succeeds, and every projection reaches the end of the log.
 * (9) The same seed gives the same run, to the byte. */
#include "os/os_sim.h"
#include "projection/database.h"
#include "projection/projections.h"
#include "store/backup.h"
#include "memory.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define DIRECTORY   "/data"
#define STREAMS     6
#define TYPES       3
#define TAGS        6
#define EVENTS_MAX  3000
#define BATCH_MAX   6
#define SLOTS       10 /* appends under way */
#define FOLLOWERS   3
#define VIEWS       3
#define DATA_SIZE   6200
#define WISHES_MAX  2
#define ITEMS_MAX   2
#define SECOND      UINT64_C(1000000000)
#define HASH_MODULO 1000003
/* Never closed for good, so that there is always one to write to. */
#define SAFE_STREAM (STREAMS - 1)

enum fate { UNBORN, PENDING, ACKED, REFUSED, UNKNOWN };
enum kind { USER, METADATA, SOFT_DELETE, TOMBSTONE };

struct event {
    enum fate fate;
    enum kind kind;
    unsigned stream, type, tag;
    size_t pad;
    uint32_t batch;
    uint64_t position, revision;
    uint64_t truncate_before, count_max; /* of METADATA */
    bool removable, removed;             /* hidden once, so that it may go; seen to be gone */
    bool present;                        /* in the scan under way */
};

struct batch {
    uint32_t first, count;
    bool keyed, ided;
};

struct stream {
    uint64_t count, last; /* of events; position of the last */
    uint64_t metadata_count, truncate_before, count_max;
    uint64_t hidden; /* revisions below were hidden at some time */
    bool tombstoned;
};

/* Which events of the log: any of the types, all of the tags; 0: not asked for. */
struct filter {
    unsigned types, tags;
    bool system;
};

struct event_text {
    char stream[16], tag[16], data[DATA_SIZE];
    deed_str tags[1];
};

struct wish {
    bool by_stream;
    unsigned stream;
    struct filter items[ITEMS_MAX];
    char name[16];
    deed_str types[ITEMS_MAX][TYPES], tags[ITEMS_MAX][TAGS];
    struct deed_query_item queries[ITEMS_MAX];
};

struct attempt {
    struct world *w;
    bool busy;
    uint32_t batch;
    struct deed_new_event events[BATCH_MAX];
    struct event_text texts[BATCH_MAX];
    uint64_t revisions[BATCH_MAX];
    char key[16];
    bool misused_key;
    struct deed_append append;
    struct wish wishes[WISHES_MAX];
    struct deed_condition conditions[WISHES_MAX];
};

struct follower {
    struct deed_cursor *cursor;
    struct filter filter;
    uint64_t position; /* all up to here was seen or did not match */
};

struct view {
    unsigned factor; /* of the text that was added last */
    unsigned comment;
    uint64_t seen; /* in this life: a read model does not go back */
    bool settled;  /* it must have the newest text by now */
};

enum actor {
    WRITER,
    COMMITTER,
    PROJECTOR,
    READER,
    FOLLOWER,
    QUERIER,
    HISTORIAN,
    PATIENT,
    DELETER,
    COMPACTOR,
    BACKER,
    ADMIN,
    CLOCK,
    ACTORS
};

/* A connection of the test's own, as a query's would be. */
struct reading {
    struct world *w;
    struct database *db;
    unsigned view, factor;
    bool past; /* of a question about the past */
    uint64_t checkpoint;
    struct deed_error err;
};

struct long_query {
    struct reading reading;
    struct projection_lease *lease;
    uint64_t checkpoint;
};

struct world {
    uint64_t seed, trace;
    bool verbose;
    struct os_sim *sim;
    struct store *store;
    struct projections *projections;
    struct event events[EVENTS_MAX];
    struct batch batches[EVENTS_MAX + 1]; /* from 1 on */
    uint32_t event_count, batch_count;
    uint32_t at[EVENTS_MAX + 2]; /* position → event; of position 1 there is none */
    uint64_t end;
    struct stream streams[STREAMS];
    uint32_t revisions[STREAMS][EVENTS_MAX]; /* of the streams themselves: revision to event */
    uint64_t erased_before[STREAMS]; /* revisions of metadata that an erasure took */
    uint64_t removals;                  /* compactions and erasures that were asked for */
    uint64_t backup_position, restores; /* the last backup's; directories made of backups */
    struct attempt attempts[SLOTS];
    struct event_text text;
    struct follower followers[FOLLOWERS];
    struct view views[VIEWS];
    struct long_query long_query;
    uint32_t settle_pages;
    unsigned views_used, views_from; /* so many of the views, from that on */
    unsigned changing;               /* steps in which a rebuild may still be under way */
    unsigned weights[ACTORS], weight_sum;
    struct os_sim_faults faults;
    uint64_t segment_size;
    uint32_t fold_batch;
    bool may_misread; /* in this life a read may fail */
    bool names_doubtful; /* in this seed a sync may have failed */
    bool fat; /* large events: segments fill fast */
};

static struct world world;

/* Which faults struck, by chance, and how often. */
static void print_strikes(const struct world *w)
{
    static const char *const names[] = {
#define FAULT_NAME(name, text) text,
        OS_SIM_FAULT_MAP(FAULT_NAME)
#undef FAULT_NAME
    };
    for (unsigned i = 0; i < OS_SIM_FAULT_COUNT; i++) {
        uint64_t count = os_sim_struck(w->sim, (enum os_sim_fault)i);
        if (count > 0) fprintf(stderr, "  %s: %" PRIu64 "\n", names[i], count);
    }
}

static void fail(const struct world *w, const char *what, uint64_t a, uint64_t b)
{
    fprintf(stderr, "seed %" PRIu64 ": %s (%" PRId64 ", %" PRId64 ")\n  %s\n", w->seed, what,
            (int64_t)a, (int64_t)b, os_sim_describe(w->sim));
    print_strikes(w);
    fprintf(stderr, "  again: build/tests/sim/sim_world --seed %" PRIu64 "\n", w->seed);
    exit(1);
}

static void fail_text(const struct world *w, const char *what, const char *text)
{
    fprintf(stderr, "  %s\n", text);
    fail(w, what, 0, 0);
}

static void tell(const struct world *w, const char *what, uint64_t a, const char *text)
{
    if (w->verbose) printf("  %s %" PRId64 " %s\n", what, (int64_t)a, text);
}

static uint64_t pick(struct world *w, uint64_t limit)
{
    return os_sim_pick(w->sim, limit);
}

static bool one_in(struct world *w, uint64_t n)
{
    return pick(w, n) == 0;
}

static void trace(struct world *w, uint64_t value)
{
    w->trace = (w->trace ^ value) * UINT64_C(0x9e3779b97f4a7c15);
    w->trace ^= w->trace >> 29;
}

/* SQLite's random numbers go into its write-ahead logs: they come from the seed too. */
static void seed_sqlite(uint64_t seed)
{
    (void)sqlite3_test_control(SQLITE_TESTCTRL_PRNG_SEED, (int)(seed % 1000003) + 1, NULL);
}

/* ---- the model ------------------------------------------------------------------------------- */

static const char *const type_names[TYPES] = {"Opened", "Changed", "Closed"};

static bool filter_takes(const struct filter *f, const struct event *e)
{
    if (e->kind == METADATA || e->kind == SOFT_DELETE) {
        return f->system && f->types == 0 && f->tags == 0;
    }
    if (e->kind == TOMBSTONE) return f->types == 0 && f->tags == 0;
    return (f->types == 0 || (f->types >> e->type & 1) != 0) &&
           (f->tags == 0 || f->tags == 1u << e->tag);
}

/* The next position after `after` that the filter takes; 0: none. */
static uint64_t next_taken(const struct world *w, const struct filter *f, uint64_t after)
{
    if (after == 0 && f->system && f->types == 0 && f->tags == 0) return 1;
    for (uint64_t p = after < 1 ? 2 : after + 1; p <= w->end; p++) {
        if (filter_takes(f, &w->events[w->at[p]])) return p;
    }
    return 0;
}

static uint64_t previous_taken(const struct world *w, const struct filter *f, uint64_t before)
{
    if (before <= 1) return 0;
    for (uint64_t p = before; --p > 1;) {
        if (filter_takes(f, &w->events[w->at[p]])) return p;
    }
    return f->system && f->types == 0 && f->tags == 0 ? 1 : 0;
}

static bool stream_is_deleted(const struct stream *s)
{
    return s->count > 0 && s->truncate_before >= s->count;
}

/* The first revision that a read returns; `count`: none is. */
static uint64_t first_visible(const struct stream *s)
{
    uint64_t first = s->truncate_before;
    if (s->count_max > 0 && s->count > s->count_max && s->count - s->count_max > first) {
        first = s->count - s->count_max;
    }
    return first < s->count ? first : s->count;
}

/* What the next event of its stream is given. */
static uint64_t next_revision(const struct world *w, const struct event *e)
{
    const struct stream *s = &w->streams[e->stream];
    return e->kind == METADATA || e->kind == SOFT_DELETE ? s->metadata_count : s->count;
}

/* What is hidden may be removed from now on, also if it is shown again later. */
static void model_hide(struct world *w, unsigned k)
{
    struct stream *s = &w->streams[k];
    uint64_t hidden = s->tombstoned ? s->count - 1 : first_visible(s);
    for (; s->hidden < hidden; s->hidden++)
        w->events[w->revisions[k][s->hidden]].removable = true;
}

static bool may_be_removed(const struct world *w, const struct event *e)
{
    if (e->kind == USER) return e->removable;
    /* An erasure takes older metadata too. */
    return e->kind != TOMBSTONE && e->revision < w->erased_before[e->stream];
}

/* The event is the next of the log. */
static void model_append(struct world *w, uint32_t n)
{
    struct event *e = &w->events[n];
    struct stream *s = &w->streams[e->stream];
    w->at[e->position] = n;
    w->end = e->position;
    switch (e->kind) {
    case METADATA:
        s->metadata_count++;
        s->truncate_before = e->truncate_before;
        s->count_max = e->count_max;
        model_hide(w, e->stream);
        return;
    case SOFT_DELETE:
        s->metadata_count++;
        s->truncate_before = s->count;
        model_hide(w, e->stream);
        return;
    case TOMBSTONE:
        s->tombstoned = true;
        break;
    case USER:
        break;
    }
    w->revisions[e->stream][s->count++] = n;
    s->last = e->position;
    model_hide(w, e->stream);
}

static uint32_t new_event(struct world *w, enum kind kind, unsigned stream, uint32_t batch)
{
    uint32_t n = w->event_count++;
    w->events[n] = (struct event){.fate = PENDING, .kind = kind, .stream = stream, .batch = batch};
    return n;
}

/* ---- what an event is ------------------------------------------------------------------------ */

static deed_uuid id_of(uint32_t n)
{
    deed_uuid id = {.bytes = {0xde, 0xed}};
    memcpy(id.bytes + 12, &n, sizeof n);
    return id;
}

static bool is_our_id(deed_uuid id, uint32_t *out_n)
{
    memcpy(out_n, id.bytes + 12, sizeof *out_n);
    deed_uuid wanted = id_of(*out_n);
    return memcmp(&wanted, &id, sizeof id) == 0;
}

static struct deed_new_event event_of(const struct world *w, uint32_t n, struct event_text *text)
{
    const struct event *e = &w->events[n];
    struct deed_new_event out = {.stream = deed_str_of(text->stream)};
    size_t len;
    if (e->kind == METADATA) {
        (void)snprintf(text->stream, sizeof text->stream, "$$s-%u", e->stream);
        len = (size_t)snprintf(text->data, DATA_SIZE, "{\"$tb\":%" PRIu64 ",\"own\":%u",
                               e->truncate_before, n);
        if (e->count_max > 0) {
            len += (size_t)snprintf(text->data + len, DATA_SIZE - len, ",\"$maxCount\":%" PRIu64,
                                    e->count_max);
        }
        text->data[len++] = '}';
        out.type = DEED_STR("$metadata");
        out.id = id_of(n);
    } else {
        (void)snprintf(text->stream, sizeof text->stream, "s-%u", e->stream);
        (void)snprintf(text->tag, sizeof text->tag, "tag%u", e->tag);
        len = (size_t)snprintf(text->data, DATA_SIZE, "{\"n\":%u,\"pad\":\"", n);
        memset(text->data + len, '0', e->pad + 1);
        len += e->pad + 1;
        text->data[len++] = '"';
        text->data[len++] = '}';
        text->tags[0] = deed_str_of(text->tag);
        out.type = deed_str_of(type_names[e->type]);
        out.tags = text->tags;
        out.tag_count = 1;
        if (w->batches[e->batch].ided) out.id = id_of(n);
    }
    out.stream = deed_str_of(text->stream);
    out.data = (deed_bytes){(const uint8_t *)text->data, len};
    return out;
}

static bool same_content(const struct world *w, uint32_t n, const struct deed_event *e)
{
    static struct event_text text;
    struct deed_new_event wanted = event_of(w, n, &text);
    bool ided = w->events[n].kind == METADATA || w->batches[w->events[n].batch].ided;
    return e->data.len == wanted.data.len &&
           memcmp(e->data.ptr, wanted.data.ptr, wanted.data.len) == 0 &&
           deed_str_equal(e->stream, wanted.stream) && deed_str_equal(e->type, wanted.type) &&
           e->tag_count == wanted.tag_count &&
           (e->tag_count == 0 || deed_str_equal(e->tags[0], wanted.tags[0])) &&
           (!ided || memcmp(&e->id, &wanted.id, sizeof e->id) == 0);
}

/* A deletion's event is the store's own: known by its place, or the first that is in doubt. */
static uint32_t find_deletion(struct world *w, enum kind kind, unsigned stream, uint64_t position)
{
    uint32_t doubtful = EVENTS_MAX;
    for (uint32_t n = 0; n < w->event_count; n++) {
        const struct event *e = &w->events[n];
        if (e->kind != kind || e->stream != stream) continue;
        if (e->fate == ACKED && e->position == position) return n;
        if (e->fate == UNKNOWN && !e->present && doubtful == EVENTS_MAX) doubtful = n;
    }
    if (doubtful == EVENTS_MAX) fail(w, "a deletion that nobody asked for", position, stream);
    return doubtful;
}

static unsigned stream_number(const struct world *w, deed_str name)
{
    unsigned k = name.len > 0 ? (unsigned)(name.ptr[name.len - 1] - '0') : STREAMS;
    if (k >= STREAMS) fail(w, "a stream that nobody wrote", k, 0);
    return k;
}

/* One whose content is gone: known by its place. */
static uint32_t known_stub(struct world *w, const struct deed_event *e)
{
    uint32_t n = e->position < EVENTS_MAX + 2 ? w->at[e->position] : EVENTS_MAX;
    if (n >= w->event_count) fail(w, "a removed event that nobody wrote", e->position, n);
    struct event *m = &w->events[n];
    struct event_text *text = &w->text;
    struct deed_new_event wanted = event_of(w, n, text);
    bool ours = m->kind == USER || m->kind == METADATA;
    bool same =
        e->data.len == 0 && e->metadata.len == 0 && m->position == e->position &&
        (!ours ||
         (deed_str_equal(e->stream, wanted.stream) && deed_str_equal(e->type, wanted.type))) &&
        (m->kind != USER || (e->tag_count == 1 && deed_str_equal(e->tags[0], wanted.tags[0])));
    if (m->fate != ACKED || !same) fail(w, "a removed event is another one", e->position, n);
    if (!may_be_removed(w, m)) fail(w, "an event was removed without a reason", e->position, n);
    m->removed = true;
    return n;
}

/* Which of the model's events is this? Its content is checked. */
static uint32_t known_event(struct world *w, const struct deed_event *e)
{
    uint32_t n = EVENTS_MAX;
    if (e->removed) return known_stub(w, e);
    if (deed_str_equal(e->type, DEED_STR("$streamDeleted"))) {
        return find_deletion(w, TOMBSTONE, stream_number(w, e->stream), e->position);
    }
    if (deed_str_equal(e->type, DEED_STR("$metadata"))) {
        if (!is_our_id(e->id, &n)) {
            return find_deletion(w, SOFT_DELETE, stream_number(w, e->stream), e->position);
        }
    } else {
        n = 0;
        size_t i = 5;
        bool good = e->data.len > i && memcmp(e->data.ptr, "{\"n\":", i) == 0;
        for (; good && i < e->data.len && i < 12 && e->data.ptr[i] >= '0' && e->data.ptr[i] <= '9';
             i++) {
            n = n * 10 + (uint32_t)(e->data.ptr[i] - '0');
        }
        if (!good) n = EVENTS_MAX;
    }
    if (n >= w->event_count) fail(w, "an event that nobody wrote", e->position, n);
    if (!same_content(w, n, e)) fail(w, "an event has other content", e->position, n);
    return n;
}

/* ---- faults that a call may meet ------------------------------------------------------------- */

static bool by_fault(const struct world *w, deed_status status)
{
    (void)w;
    return status == DEED_IO || status == DEED_NO_MEMORY || status == DEED_FULL;
}

/* ---- appends --------------------------------------------------------------------------------- */

static bool wish_holds(const struct world *w, const struct wish *wish,
                       const struct deed_condition *c)
{
    if (wish->by_stream) {
        const struct stream *s = &w->streams[wish->stream];
        bool exists = s->count > 0 && !stream_is_deleted(s);
        if (c->expect == DEED_EXPECT_NONE) return !exists;
        if (c->expect == DEED_EXPECT_EXISTS) return exists;
        return s->count > 0 && c->revision == s->count - 1;
    }
    for (size_t i = 0; i < c->item_count; i++) {
        if (next_taken(w, &wish->items[i], c->after < 1 ? 1 : c->after) != 0) return false;
    }
    return true;
}

static bool wishes_hold(const struct attempt *a)
{
    for (size_t i = 0; i < a->append.condition_count; i++) {
        if (!wish_holds(a->w, &a->wishes[i], &a->conditions[i])) return false;
    }
    return true;
}

/* Does it touch a stream that is closed for good? */
static bool meets_tombstone(const struct attempt *a)
{
    const struct batch *b = &a->w->batches[a->batch];
    for (uint32_t i = 0; i < b->count; i++) {
        const struct event *e = &a->w->events[b->first + i];
        if (a->w->streams[e->stream].tombstoned) return true;
    }
    for (size_t i = 0; i < a->append.condition_count; i++) {
        if (a->wishes[i].by_stream && a->w->streams[a->wishes[i].stream].tombstoned) return true;
    }
    return false;
}

static bool was_stored(const struct attempt *a)
{
    return a->w->events[a->w->batches[a->batch].first].fate == ACKED;
}

/* (3) */
static void check_repeated(const struct attempt *a, const struct deed_appended *appended)
{
    struct world *w = a->w;
    const struct batch *b = &w->batches[a->batch];
    if (!appended->repeated) fail(w, "a retry was stored again", b->first, appended->position);
    for (uint32_t i = 0; i < b->count; i++) {
        const struct event *e = &w->events[b->first + i];
        if (e->position != appended->first_position + i || e->revision != a->revisions[i]) {
            fail(w, "a retry has another answer", e->position, appended->first_position + i);
        }
    }
}

static void accept_event(struct world *w, uint32_t n, uint64_t position, uint64_t revision)
{
    struct event *e = &w->events[n];
    if (position != w->end + 1) fail(w, "a position does not follow", position, w->end);
    if (revision != next_revision(w, e)) {
        fail(w, "a revision does not follow", revision, next_revision(w, e));
    }
    e->fate = ACKED;
    e->position = position;
    e->revision = revision;
    model_append(w, n);
    trace(w, position * 31 + n);
}

static void attempt_accepted(struct attempt *a, const struct deed_appended *appended)
{
    struct world *w = a->w;
    const struct batch *b = &w->batches[a->batch];
    if (was_stored(a)) {
        check_repeated(a, appended);
        return;
    }
    if (appended->repeated) fail(w, "an answer to what was never stored", b->first, 0);
    if (a->misused_key) fail(w, "a key was taken for two requests", a->batch, 0);
    if (!wishes_hold(a)) fail(w, "an append went against its condition", b->first, 0);
    if (meets_tombstone(a)) fail(w, "an append to a stream that is deleted for good", b->first, 0);
    for (uint32_t i = 0; i < b->count; i++) {
        accept_event(w, b->first + i, appended->first_position + i, a->revisions[i]);
    }
    if (appended->position != w->end)
        fail(w, "a last position is wrong", appended->position, w->end);
}

static void check_refusal(const struct attempt *a, const struct deed_error *err)
{
    struct world *w = a->w;
    uint32_t first = w->batches[a->batch].first;
    if (was_stored(a)) fail(w, "a retry was refused", first, err->position);
    if (err->status == DEED_DELETED && !meets_tombstone(a)) {
        fail(w, "a stream is said to be deleted", first, 0);
    }
    if (err->status == DEED_DELETED || a->misused_key) return;
    if (wishes_hold(a)) fail_text(w, "an append was refused without a reason", err->message);
    if (err->position == DEED_NONE) return;
    if (err->position > w->end)
        fail(w, "a refusal names what is not stored", err->position, w->end);
    for (size_t i = 0; i < a->append.condition_count; i++) {
        const struct wish *wish = &a->wishes[i];
        const struct deed_condition *c = &a->conditions[i];
        if (wish->by_stream || wish_holds(w, wish, c)) {
            if (wish->by_stream && !wish_holds(w, wish, c)) return;
            continue;
        }
        for (size_t j = 0; j < c->item_count; j++) {
            const struct event *e = &w->events[w->at[err->position]];
            if (err->position > c->after && filter_takes(&wish->items[j], e)) return;
        }
        fail(w, "a refusal names an event that does not match", err->position, 0);
    }
}

/* What a failed call leaves of its events. */
static void fate_of_failure(struct world *w, uint32_t first, uint32_t count, deed_status status)
{
    for (uint32_t i = 0; i < count; i++) {
        struct event *e = &w->events[first + i];
        if (e->fate != PENDING && e->fate != REFUSED) continue; /* a retry changes nothing */
        e->fate = status == DEED_UNKNOWN ? UNKNOWN : REFUSED;
    }
}

static void check_failure(const struct world *w, deed_status status, const char *message)
{
    bool known = by_fault(w, status) || status == DEED_UNKNOWN || status == DEED_STOPPED ||
                 status == DEED_BUSY;
    if (!known) fail_text(w, "an append failed otherwise", message);
}

static void attempt_done(void *context, const struct deed_appended *appended,
                         const struct deed_error *err)
{
    struct attempt *a = context;
    const struct batch *b = &a->w->batches[a->batch];
    a->busy = false;
    if (appended != NULL) {
        attempt_accepted(a, appended);
        return;
    }
    tell(a->w, "refused", b->first, err->message);
    trace(a->w, err->status);
    if (err->status == DEED_CONFLICT || err->status == DEED_DELETED) {
        check_refusal(a, err);
    } else {
        check_failure(a->w, err->status, err->message);
    }
    fate_of_failure(a->w, b->first, b->count, err->status);
}

static size_t pick_pad(struct world *w)
{
    if (w->fat) return pick(w, 6000);
    return one_in(w, 6) ? pick(w, 5000) : pick(w, 100);
}

static void draw_metadata(struct world *w, uint32_t n)
{
    struct event *e = &w->events[n];
    const struct stream *s = &w->streams[e->stream];
    e->truncate_before = one_in(w, 2) ? 0 : pick(w, s->count + 2);
    e->count_max = one_in(w, 2) ? 0 : 1 + pick(w, 20);
}

static uint32_t new_batch(struct world *w)
{
    uint32_t b = ++w->batch_count;
    bool metadata = one_in(w, 25);
    uint32_t count = metadata || one_in(w, 2) ? 1 : 1 + (uint32_t)pick(w, BATCH_MAX);
    unsigned stream = (unsigned)pick(w, STREAMS);
    bool one_stream = one_in(w, 2);
    w->batches[b] = (struct batch){
        .first = w->event_count, .count = count, .keyed = one_in(w, 4), .ided = one_in(w, 3)};
    for (uint32_t i = 0; i < count; i++) {
        if (!one_stream) stream = (unsigned)pick(w, STREAMS);
        uint32_t n = new_event(w, metadata ? METADATA : USER, stream, b);
        if (metadata) draw_metadata(w, n);
        w->events[n].type = (unsigned)pick(w, TYPES);
        w->events[n].tag = (unsigned)pick(w, TAGS);
        w->events[n].pad = pick_pad(w);
    }
    return b;
}

static void attempt_fill(struct world *w, struct attempt *a, uint32_t batch)
{
    const struct batch *b = &w->batches[batch];
    a->w = w;
    a->batch = batch;
    a->misused_key = false;
    for (uint32_t i = 0; i < b->count; i++) {
        a->events[i] = event_of(w, b->first + i, &a->texts[i]);
    }
    a->append = (struct deed_append){
        .events = a->events, .event_count = b->count, .out_revisions = a->revisions};
    if (!b->keyed) return;
    (void)snprintf(a->key, sizeof a->key, "key%u", batch);
    a->append.idempotency_key = deed_str_of(a->key);
    memcpy(a->append.request_hash, &batch, sizeof batch);
}

static void wish_stream(struct world *w, struct wish *wish, struct deed_condition *c)
{
    wish->by_stream = true;
    wish->stream = (unsigned)pick(w, STREAMS);
    (void)snprintf(wish->name, sizeof wish->name, "s-%u", wish->stream);
    const struct stream *s = &w->streams[wish->stream];
    c->kind = DEED_CONDITION_STREAM;
    c->stream = deed_str_of(wish->name);
    c->expect = (enum deed_expect)(DEED_EXPECT_REVISION + pick(w, 3));
    c->revision = one_in(w, 3) ? s->count + pick(w, 3) - 1 : s->count - 1;
}

static void wish_item(struct world *w, struct wish *wish, size_t i)
{
    static const char *const tag_names[TAGS] = {"tag0", "tag1", "tag2", "tag3", "tag4", "tag5"};
    struct filter *f = &wish->items[i];
    struct deed_query_item *item = &wish->queries[i];
    *f = (struct filter){0};
    if (!one_in(w, 3)) f->types = (unsigned)pick(w, 1u << TYPES);
    if (!one_in(w, 3)) f->tags = 1u << pick(w, TAGS);
    if (one_in(w, 20)) f->tags |= 1u << pick(w, TAGS); /* no event has two */
    *item = (struct deed_query_item){.types = wish->types[i], .tags = wish->tags[i]};
    for (unsigned t = 0; t < TYPES; t++) {
        if ((f->types >> t & 1) != 0)
            wish->types[i][item->type_count++] = deed_str_of(type_names[t]);
    }
    for (unsigned t = 0; t < TAGS; t++) {
        if ((f->tags >> t & 1) != 0) wish->tags[i][item->tag_count++] = deed_str_of(tag_names[t]);
    }
}

/* Mostly near the truth: a wish that is always refused tests little. */
static void attempt_wish(struct world *w, struct attempt *a)
{
    a->append.conditions = a->conditions;
    a->append.condition_count = 1 + pick(w, WISHES_MAX);
    for (size_t i = 0; i < a->append.condition_count; i++) {
        struct wish *wish = &a->wishes[i];
        struct deed_condition *c = &a->conditions[i];
        *c = (struct deed_condition){.kind = DEED_CONDITION_NO_MATCH};
        wish->by_stream = false;
        if (one_in(w, 2)) {
            wish_stream(w, wish, c);
            continue;
        }
        c->items = wish->queries;
        c->item_count = 1 + pick(w, ITEMS_MAX);
        for (size_t j = 0; j < c->item_count; j++)
            wish_item(w, wish, j);
        uint64_t back = one_in(w, 2) ? 0 : pick(w, one_in(w, 4) ? w->end + 1 : 12);
        c->after = back > w->end ? 0 : w->end - back;
    }
}

/* A batch that can be tried again; 0: there is none. */
static uint32_t pick_retry(struct world *w)
{
    if (w->batch_count == 0) return 0;
    uint32_t b = 1 + (uint32_t)pick(w, w->batch_count);
    if (one_in(w, 2))
        b = w->batch_count - (uint32_t)pick(w, w->batch_count < 8 ? w->batch_count : 8);
    bool known = w->batches[b].keyed || w->batches[b].ided;
    /* What has an unknown outcome waits for recovery's word. */
    return known && w->events[w->batches[b].first].fate != UNKNOWN ? b : 0;
}

static bool has_room(const struct world *w)
{
    return w->event_count + BATCH_MAX + 2 < EVENTS_MAX;
}

static void attempt_draw(struct world *w, struct attempt *a)
{
    uint32_t retry = one_in(w, 6) ? pick_retry(w) : 0;
    bool misuse = retry != 0 && w->batches[retry].keyed && one_in(w, 3) &&
                  w->events[w->batches[retry].first].fate == ACKED;
    if (misuse) {
        uint32_t batch = new_batch(w);
        w->batches[batch].keyed = w->batches[batch].ided = false;
        attempt_fill(w, a, batch);
        a->misused_key = w->events[w->batches[batch].first].kind != METADATA;
        if (!a->misused_key) return;
        (void)snprintf(a->key, sizeof a->key, "key%u", retry);
        a->append.idempotency_key = deed_str_of(a->key);
        a->append.request_hash[31] = 1;
        return;
    }
    attempt_fill(w, a, retry != 0 ? retry : new_batch(w));
    if (one_in(w, 3)) attempt_wish(w, a);
}

static void write_some(struct world *w)
{
    for (uint64_t i = 1 + pick(w, 4); i > 0 && has_room(w); i--) {
        struct attempt *a = &w->attempts[pick(w, SLOTS)];
        struct deed_error err = {0};
        if (a->busy) continue;
        attempt_draw(w, a);
        a->busy = true;
        if (store_submit(w->store, &a->append, attempt_done, a, &err) != DEED_OK) {
            attempt_done(a, NULL, &err);
        }
    }
}

static void finish_appends(struct world *w)
{
    while (store_step(w->store))
        continue;
    for (unsigned i = 0; i < SLOTS; i++) {
        if (w->attempts[i].busy) fail(w, "an append was never answered", i, 0);
    }
}

static void delete_something(struct world *w)
{
    if (!has_room(w)) return;
    char name[16];
    struct deed_error err = {0};
    struct deed_appended appended;
    bool tombstone = one_in(w, 4);
    unsigned stream = (unsigned)pick(w, tombstone ? SAFE_STREAM : STREAMS);
    finish_appends(w); /* what it finds is then what the model says */
    const struct stream *s = &w->streams[stream];
    (void)snprintf(name, sizeof name, "s-%u", stream);
    uint32_t n = new_event(w, tombstone ? TOMBSTONE : SOFT_DELETE, stream, ++w->batch_count);
    w->batches[w->batch_count] = (struct batch){.first = n, .count = 1};
    deed_status status = store_delete_stream(w->store, deed_str_of(name), DEED_EXPECT_ANY, 0,
                                             tombstone, (deed_str){0}, &appended, &err);
    if (status == DEED_OK && appended.position > w->end) {
        if (s->tombstoned) fail(w, "a stream was deleted twice", stream, appended.position);
        accept_event(w, n, appended.position, next_revision(w, &w->events[n]));
        tell(w, tombstone ? "tombstone at" : "soft delete at", appended.position, name);
        return;
    }
    fate_of_failure(w, n, 1, status);
    bool reason = status == DEED_OK /* it was deleted already */ ||
                  (status == DEED_NOT_FOUND && (s->count == 0 || stream_is_deleted(s))) ||
                  (status == DEED_DELETED && s->tombstoned);
    if (!reason) check_failure(w, status, err.message);
}

static void read_ended(const struct world *w, deed_status status, const struct deed_error *err);

/* ---- removal ---------------------------------------------------------------------------------- */

static void erase_something(struct world *w)
{
    char name[16];
    struct deed_error err = {0};
    unsigned k = (unsigned)pick(w, STREAMS);
    finish_appends(w);
    (void)snprintf(name, sizeof name, "s-%u", k);
    /* It deletes the stream first, as a soft delete does. */
    uint32_t n = new_event(w, SOFT_DELETE, k, ++w->batch_count);
    w->batches[w->batch_count] = (struct batch){.first = n, .count = 1};
    deed_status status = store_erase(w->store, deed_str_of(name), (deed_str){0}, &err);
    uint64_t end = store_position(w->store);
    if (end > w->end) {
        accept_event(w, n, end, next_revision(w, &w->events[n]));
    } else {
        fate_of_failure(w, n, 1, status);
    }
    if (status == DEED_OK) {
        uint64_t metadata_count = w->streams[k].metadata_count;
        if (metadata_count > 0) w->erased_before[k] = metadata_count - 1;
        w->removals++;
        tell(w, "erase", k, "");
        return;
    }
    bool reason = status == DEED_BUSY || (status == DEED_NOT_FOUND && w->streams[k].count == 0);
    if (!reason) check_failure(w, status, err.message);
}

static void compact_something(struct world *w)
{
    if (!has_room(w)) return;
    struct deed_error err = {0};
    if (one_in(w, 3)) {
        erase_something(w);
        return;
    }
    struct deed_compact_options options = {.compress_level = one_in(w, 2) ? 0 : 1 + (int)pick(w, 3),
                                           .active = one_in(w, 2)};
    deed_status status = store_compact(w->store, &options, &err);
    if (status == DEED_OK) w->removals++;
    if (status != DEED_OK && status != DEED_BUSY) check_failure(w, status, err.message);
}

/* ---- backups ---------------------------------------------------------------------------------- */

/* A log made of a backup holds what was acknowledged, up to the backup's position. */
static void check_restored(struct world *w, const char *directory, uint64_t position)
{
    struct store *store = NULL;
    struct deed_cursor *cursor = NULL;
    struct deed_error err = {0};
    struct deed_event e;
    struct store_options options = {
        .segment_size = w->segment_size, .no_threads = true, .read_only = true};
    struct deed_read_options how = {
        .filter.system = true, .removed = true, .until_position = position};
    uint64_t next = 1;
    deed_status status = store_open(os_sim_os(w->sim), directory, &options, &store, &err);
    if (status == DEED_OK) status = store_read(store, &how, &cursor, &err);
    while (status == DEED_OK && (status = cursor_next(cursor, &e, &err)) == DEED_OK) {
        if (e.position != next++) fail(w, "a restored log has a gap", e.position, next - 1);
        if (e.position == 1) continue;
        const struct event *m = &w->events[w->at[e.position]];
        if (m->fate != ACKED || m->position != e.position || m->revision != e.revision) {
            fail(w, "a restored log has another event", e.position, w->at[e.position]);
        }
        if (e.removed && !may_be_removed(w, m)) fail(w, "a backup lost content", e.position, 0);
        if (!e.removed && known_event(w, &e) != w->at[e.position]) {
            fail(w, "a restored log has other content", e.position, w->at[e.position]);
        }
    }
    cursor_close(cursor);
    store_close(store);
    read_ended(w, status, &err);
    if (status == DEED_END && next != position + 1) {
        fail(w, "a restored log ends too early", next, position);
    }
}

/* Whoever reads a file to see that it is whole takes what cannot be read for damage. */
static void check_backup_failure(const struct world *w, deed_status status, const char *message)
{
    bool unreadable = w->may_misread || !os_sim_powered(w->sim);
    if (status != DEED_CORRUPT || !unreadable) check_failure(w, status, message);
}

static void restore_backup(struct world *w)
{
    char directory[24];
    struct deed_error err = {0};
    struct deed_backup_report report = {0};
    struct deed_backup_options options = {.quick = one_in(w, 2)};
    (void)snprintf(directory, sizeof directory, "/restored%u", (unsigned)w->restores++);
    deed_status status =
        store_restore(os_sim_os(w->sim), "/backup", directory, &options, &report, &err);
    if (status == DEED_NOT_FOUND && w->backup_position == 0) return;
    if (status != DEED_OK) {
        check_backup_failure(w, status, err.message);
        return;
    }
    if (report.position < w->backup_position) {
        fail(w, "a backup went back", report.position, w->backup_position);
    }
    check_restored(w, directory, report.position);
}

static void back_up(struct world *w)
{
    struct deed_error err = {0};
    struct deed_backup_report report = {0};
    struct deed_backup_options options = {.quick = one_in(w, 2)};
    if (one_in(w, 3) && w->restores < 2) {
        restore_backup(w);
        return;
    }
    deed_status status = store_backup(w->store, "/backup", &options, &report, &err);
    if (status != DEED_OK) {
        check_backup_failure(w, status, err.message);
        return;
    }
    if (report.position != w->end) fail(w, "a backup ends elsewhere", report.position, w->end);
    w->backup_position = report.position;
}

/* ---- reads ----------------------------------------------------------------------------------- */

struct filter_text {
    deed_str types[TYPES], tags[TAGS];
    char names[TAGS][8];
};

static struct deed_filter filter_of(const struct filter *f, struct filter_text *text)
{
    struct deed_filter out = {.types = text->types, .tags = text->tags, .system = f->system};
    for (unsigned t = 0; t < TYPES; t++) {
        if ((f->types >> t & 1) != 0) text->types[out.type_count++] = deed_str_of(type_names[t]);
    }
    for (unsigned t = 0; t < TAGS; t++) {
        if ((f->tags >> t & 1) == 0) continue;
        (void)snprintf(text->names[t], sizeof text->names[t], "tag%u", t);
        text->tags[out.tag_count++] = deed_str_of(text->names[t]);
    }
    return out;
}

static struct filter draw_filter(struct world *w)
{
    struct filter f = {.system = one_in(w, 3)};
    if (one_in(w, 2)) f.types = (unsigned)pick(w, 1u << TYPES);
    if (one_in(w, 3)) f.tags = 1u << pick(w, TAGS);
    return f;
}

/* After a failed sync of a directory the name of a file that was replaced may come back. */
static void check_not_back(struct world *w, uint32_t n, const struct deed_event *e)
{
    struct event *m = &w->events[n];
    if (!m->removed || e->removed) return;
    if (!w->names_doubtful) fail(w, "a removed event came back", e->position, n);
    m->removed = false;
}

/* One event of a read: it is what the model has at that position. */
static void check_read_event(struct world *w, const struct deed_event *e, bool fresh)
{
    if (e->position == 1) return;
    if (e->position > w->end)
        fail(w, "a read shows what was not acknowledged", e->position, w->end);
    uint32_t n = known_event(w, e);
    const struct event *m = &w->events[n];
    if (m->fate != ACKED || m->position != e->position || m->revision != e->revision) {
        fail(w, "a read gives another event", e->position, n);
    }
    /* A cursor from before may go on in the files that it has open. */
    if (fresh) check_not_back(w, n, e);
}

/* A read that was not asked for removed events passed over this one. */
static bool passes_over(struct world *w, uint32_t n)
{
    if (!may_be_removed(w, &w->events[n])) return false;
    w->events[n].removed = true;
    return true;
}

static void read_ended(const struct world *w, deed_status status, const struct deed_error *err)
{
    if (status != DEED_END && !by_fault(w, status)) fail_text(w, "a read failed", err->message);
}

/* The place after (or before) `at` that a read gives next; `got`: what it gave, or 0 at its end. */
static uint64_t step_to(struct world *w, const struct filter *f, bool backwards, bool removed,
                        uint64_t at, uint64_t got)
{
    for (;;) {
        at = backwards ? previous_taken(w, f, at) : next_taken(w, f, at);
        if (at == 0 || at == got || removed || at == 1 || !passes_over(w, w->at[at])) return at;
    }
}

/* (4): the log, filtered, forwards or backwards from some place. */
static void read_log(struct world *w, struct filter f, bool backwards, uint64_t from)
{
    struct filter_text text;
    struct deed_error err = {0};
    struct deed_event e;
    struct deed_cursor *cursor = NULL;
    struct deed_read_options options = {.filter = filter_of(&f, &text),
                                        .backwards = backwards,
                                        .after_position = from,
                                        .removed = w->removals == 0 || !one_in(w, 3)};
    uint64_t at = backwards && from > w->end ? w->end + 1 : from;
    deed_status status = store_read(w->store, &options, &cursor, &err);
    while (status == DEED_OK && (status = cursor_next(cursor, &e, &err)) == DEED_OK) {
        at = step_to(w, &f, backwards, options.removed, at, e.position);
        if (e.position != at) fail(w, "a read skips or repeats", e.position, at);
        check_read_event(w, &e, true);
    }
    cursor_close(cursor);
    /* From before the horizon only who asks for what was removed may read. */
    if (status == DEED_GONE && !options.removed && w->removals > 0) return;
    read_ended(w, status, &err);
    if (status != DEED_END) return;
    uint64_t left = step_to(w, &f, backwards, options.removed, at, 0);
    if (left != 0) fail(w, "a read ends too early", at, left);
}

/* (4): a stream, as its retention says. */
static void read_stream(struct world *w, unsigned k, bool backwards)
{
    char name[16];
    struct deed_error err = {0};
    struct deed_event e;
    struct deed_cursor *cursor = NULL;
    const struct stream *s = &w->streams[k];
    (void)snprintf(name, sizeof name, "s-%u", k);
    struct deed_read_options options = {.stream = deed_str_of(name),
                                        .backwards = backwards,
                                        .from_revision = backwards ? DEED_NONE : 0};
    uint64_t first = first_visible(s), got = first;
    deed_status status = store_read(w->store, &options, &cursor, &err);
    if (by_fault(w, status)) return;
    if (s->tombstoned || s->count == 0) {
        if (status != (s->tombstoned ? DEED_DELETED : DEED_NOT_FOUND)) {
            fail(w, "a read of a stream that is not there", status, k);
        }
        cursor_close(cursor);
        return;
    }
    bool none = status == DEED_NOT_FOUND && first == s->count;
    if (status != DEED_OK && !none) fail_text(w, "a stream does not open", err.message);
    while (status == DEED_OK && (status = cursor_next(cursor, &e, &err)) == DEED_OK) {
        uint64_t wanted = backwards ? s->count - 1 - (got - first) : got;
        while (e.revision != wanted && passes_over(w, w->revisions[k][wanted])) {
            got++;
            wanted += backwards ? (uint64_t)-1 : 1;
        }
        if (e.revision != wanted) fail(w, "a stream skips or repeats", e.revision, wanted);
        check_read_event(w, &e, true);
        got++;
    }
    cursor_close(cursor);
    if (none) return;
    read_ended(w, status, &err);
    for (; status == DEED_END && got < s->count; got++) {
        uint64_t left = backwards ? s->count - 1 - (got - first) : got;
        if (!passes_over(w, w->revisions[k][left]))
            fail(w, "a stream ends too early", got, s->count);
    }
}

static void read_something(struct world *w)
{
    if (one_in(w, 2)) {
        read_stream(w, (unsigned)pick(w, STREAMS), one_in(w, 2));
    } else {
        bool backwards = one_in(w, 3);
        uint64_t from = one_in(w, 2) ? (backwards ? DEED_NONE : 0) : pick(w, w->end + 1);
        if (backwards && from == 0) from = DEED_NONE;
        read_log(w, draw_filter(w), backwards, from);
    }
}

/* (4), all of it. */
static void check_index(struct world *w)
{
    for (unsigned k = 0; k < STREAMS; k++)
        read_stream(w, k, one_in(w, 2));
    for (unsigned t = 0; t < TYPES; t++) {
        bool backwards = one_in(w, 2);
        read_log(w, (struct filter){.types = 1u << t}, backwards, backwards ? DEED_NONE : 0);
    }
    for (unsigned t = 0; t < TAGS; t++)
        read_log(w, (struct filter){.tags = 1u << t}, false, 0);
    read_log(w, draw_filter(w), true, DEED_NONE);
}

/* ---- following ------------------------------------------------------------------------------- */

/* (5) */
static void follow_some(struct world *w, struct follower *f, uint64_t count_max)
{
    struct deed_error err = {0};
    struct deed_event e;
    deed_status status = DEED_OK;
    if (f->cursor == NULL) {
        struct filter_text text;
        struct deed_read_options options = {.follow = true,
                                            .removed = true,
                                            .after_position = f->position,
                                            .filter = filter_of(&f->filter, &text)};
        status = store_read(w->store, &options, &f->cursor, &err);
    }
    for (uint64_t i = 0; status == DEED_OK && i < count_max; i++) {
        status = cursor_next(f->cursor, &e, &err);
        if (status != DEED_OK) break;
        uint64_t wanted = next_taken(w, &f->filter, f->position);
        if (e.position != wanted) fail(w, "a follower skips or repeats", e.position, wanted);
        check_read_event(w, &e, false);
        f->position = e.position;
        trace(w, e.position);
    }
    if (status == DEED_OK) return;
    if (status == DEED_STOPPED) return;
    read_ended(w, status, &err);
    uint64_t left = next_taken(w, &f->filter, f->position);
    if (status == DEED_END && left != 0) fail(w, "a follower misses", f->position, left);
}

static void followers_close(struct world *w)
{
    for (unsigned i = 0; i < FOLLOWERS; i++) {
        cursor_close(w->followers[i].cursor);
        w->followers[i].cursor = NULL;
    }
}

/* ---- read models ----------------------------------------------------------------------------- */

static const char *const view_names[VIEWS] = {"totals", "journal", "tail"};
static const unsigned factors[] = {31, 37, 41};

/* The i-th of those that this seed has. */
static unsigned view_at(const struct world *w, unsigned i)
{
    return (w->views_from + i) % VIEWS;
}

static unsigned pick_view(struct world *w)
{
    return view_at(w, (unsigned)pick(w, w->views_used));
}

/* The text of a view; another factor folds the same events otherwise, a comment changes nothing. */
static const char *view_text(unsigned view, unsigned factor, unsigned comment)
{
    static char text[1500];
    static const char *const texts[VIEWS] = {
        "-- projection: totals\n-- tables\n"
        "CREATE TABLE totals (stream TEXT PRIMARY KEY, count INTEGER NOT NULL,"
        " sum INTEGER NOT NULL, hash INTEGER NOT NULL);\n"
        "-- on Opened, Changed, Closed\n"
        "INSERT INTO totals VALUES (:stream, 1, :data.n, :data.n)\n"
        " ON CONFLICT (stream) DO UPDATE SET count = count + 1, sum = sum + :data.n,"
        " hash = (hash * %u + :data.n) %% 1000003;\n-- comment %u\n",
        "-- projection: journal\n-- tables\n"
        "CREATE TABLE journal (position INTEGER PRIMARY KEY, n INTEGER NOT NULL, stream TEXT,"
        " pad TEXT);\nCREATE INDEX journal_stream ON journal (stream, n);\n"
        "-- on Changed\n"
        "INSERT INTO journal VALUES (:position, :data.n * %u, :stream, :data.pad);\n"
        "-- on Closed\n"
        "DELETE FROM journal WHERE stream = :stream;\n-- comment %u\n",
        "-- projection: tail\n-- tables\n"
        "CREATE TABLE tail (id INTEGER PRIMARY KEY, count INTEGER, last INTEGER);\n"
        "-- on *\n"
        "INSERT INTO tail VALUES (1, %u, :position)\n"
        " ON CONFLICT (id) DO UPDATE SET count = count + 1, last = :position;\n-- comment %u\n",
    };
    (void)snprintf(text, sizeof text, texts[view], factor, comment);
    return text;
}

static unsigned factor_in(const char *text)
{
    for (size_t i = 0; i < sizeof factors / sizeof factors[0]; i++) {
        char number[8];
        (void)snprintf(number, sizeof number, "%u", factors[i]);
        const char *at = strstr(text, number);
        if (at != NULL && strstr(at, "comment") != NULL) return factors[i];
    }
    return 0;
}

/* The fold of the log from zero to a position. */
struct fold_model {
    uint64_t count[STREAMS], sum[STREAMS], hash[STREAMS];
    uint64_t rows, row_hash, tail_count, tail_last;
};

static uint64_t mixed(uint64_t hash, uint64_t value)
{
    return (hash * 1099511628211u) ^ value;
}

static void fold_model(const struct world *w, uint64_t until, unsigned factor,
                       struct fold_model *out)
{
    static bool kept[EVENTS_MAX + 2];
    memset(out, 0, sizeof *out);
    for (uint64_t p = 2; p <= until; p++) {
        uint32_t n = w->at[p];
        const struct event *e = &w->events[n];
        kept[p] = false;
        if (e->kind == USER || e->kind == TOMBSTONE) {
            out->tail_count = out->tail_count == 0 ? factor : out->tail_count + 1;
            out->tail_last = p;
        }
        if (e->kind != USER) continue;
        uint64_t hash = out->hash[e->stream];
        out->hash[e->stream] = out->count[e->stream] == 0 ? n : (hash * factor + n) % HASH_MODULO;
        out->count[e->stream]++;
        out->sum[e->stream] += n;
        kept[p] = e->type == 1;
        for (uint64_t q = 2; e->type == 2 && q < p; q++) {
            if (w->events[w->at[q]].stream == e->stream) kept[q] = false;
        }
    }
    for (uint64_t p = 2; p <= until; p++) {
        if (!kept[p]) continue;
        const struct event *e = &w->events[w->at[p]];
        out->rows++;
        out->row_hash = mixed(mixed(mixed(out->row_hash, p), (uint64_t)w->at[p] * factor),
                              (uint64_t)e->stream * 10000 + e->pad + 1);
    }
}

static deed_status each_row(struct reading *r, const char *sql,
                            void (*row)(struct reading *, sqlite3_stmt *, void *), void *context)
{
    sqlite3_stmt *statement = NULL;
    deed_status status = database_prepare(r->db, DATABASE_TRUSTED, deed_str_of(sql), false,
                                          &statement, NULL, &r->err);
    if (status != DEED_OK) return status;
    int rc;
    while ((rc = sqlite3_step(statement)) == SQLITE_ROW)
        row(r, statement, context);
    if (rc != SQLITE_DONE) status = database_fail(r->db, &r->err);
    (void)sqlite3_finalize(statement);
    return status;
}

static void take_checkpoint(struct reading *r, sqlite3_stmt *s, void *context)
{
    (void)context;
    r->checkpoint = (uint64_t)sqlite3_column_int64(s, 0);
}

static void take_text(struct reading *r, sqlite3_stmt *s, void *context)
{
    (void)context;
    const char *text = (const char *)sqlite3_column_text(s, 0);
    r->factor = text == NULL ? 0 : factor_in(text);
}

static void take_total(struct reading *r, sqlite3_stmt *s, void *context)
{
    struct fold_model *got = context;
    const char *name = (const char *)sqlite3_column_text(s, 0);
    if (name == NULL) return;
    unsigned k = stream_number(r->w, deed_str_of(name));
    got->count[k] = (uint64_t)sqlite3_column_int64(s, 1);
    got->sum[k] = (uint64_t)sqlite3_column_int64(s, 2);
    got->hash[k] = (uint64_t)sqlite3_column_int64(s, 3);
}

static void take_journal(struct reading *r, sqlite3_stmt *s, void *context)
{
    struct fold_model *got = context;
    const char *name = (const char *)sqlite3_column_text(s, 2);
    if (name == NULL) return;
    uint64_t k = stream_number(r->w, deed_str_of(name));
    got->rows++;
    got->row_hash = mixed(mixed(mixed(got->row_hash, (uint64_t)sqlite3_column_int64(s, 0)),
                                (uint64_t)sqlite3_column_int64(s, 1)),
                          k * 10000 + (uint64_t)sqlite3_column_int64(s, 3));
}

static void take_tail(struct reading *r, sqlite3_stmt *s, void *context)
{
    struct fold_model *got = context;
    (void)r;
    got->tail_count = (uint64_t)sqlite3_column_int64(s, 0);
    got->tail_last = (uint64_t)sqlite3_column_int64(s, 1);
}

static deed_status read_rows(struct reading *r, struct fold_model *got)
{
    static const char *const selects[VIEWS] = {
        "SELECT stream, count, sum, hash FROM totals",
        "SELECT position, n, stream, length(pad) FROM journal ORDER BY position",
        "SELECT count, last FROM tail",
    };
    memset(got, 0, sizeof *got);
    deed_status status = each_row(r, "SELECT position FROM _deedbook_checkpoint WHERE id = 1",
                                  take_checkpoint, NULL);
    if (status == DEED_OK) {
        status = each_row(r, "SELECT text FROM _deedbook_file WHERE id = 1", take_text, NULL);
    }
    if (status != DEED_OK) return status;
    void (*const takes[VIEWS])(struct reading *, sqlite3_stmt *,
                               void *) = {take_total, take_journal, take_tail};
    return each_row(r, selects[r->view], takes[r->view], got);
}

static void compare_rows(const struct reading *r, const struct fold_model *got)
{
    struct fold_model wanted;
    struct world *w = r->w;
    if (r->checkpoint > w->end) fail(w, "a checkpoint is past the log", r->checkpoint, w->end);
    if (!r->past) {
        if (r->checkpoint < w->views[r->view].seen) {
            fail(w, "a read model went back", r->checkpoint, w->views[r->view].seen);
        }
        w->views[r->view].seen = r->checkpoint;
    }
    if (w->views[r->view].settled && r->factor != w->views[r->view].factor) {
        fail(w, "a read model keeps an old text", r->factor, w->views[r->view].factor);
    }
    if (r->factor == 0) fail(w, "a read model has another text", r->view, r->checkpoint);
    fold_model(w, r->checkpoint, r->factor, &wanted);
    for (unsigned k = 0; r->view == 0 && k < STREAMS; k++) {
        if (got->count[k] != wanted.count[k] || got->sum[k] != wanted.sum[k] ||
            got->hash[k] != wanted.hash[k]) {
            tell(w, "stream", k, "");
            tell(w, "at checkpoint", r->checkpoint, "");
            fail(w, "totals are not the fold of the log", got->count[k], wanted.count[k]);
        }
    }
    if (r->view == 1 && (got->rows != wanted.rows || got->row_hash != wanted.row_hash)) {
        tell(w, "at checkpoint", r->checkpoint, "");
        fail(w, "the journal is not the fold of the log", got->rows, wanted.rows);
    }
    if (r->view == 2 &&
        (got->tail_count != wanted.tail_count || got->tail_last != wanted.tail_last)) {
        fail(w, "the tail is not the fold of the log", got->tail_count, wanted.tail_count);
    }
}

/* (6): the rows in this file. `wanted`: as of exactly that position; 0: as of its checkpoint. */
static void check_file(struct world *w, unsigned view, const char *path, uint64_t wanted)
{
    struct reading r = {.w = w, .view = view, .past = wanted != 0};
    struct fold_model got = {0};
    struct database_options options = {.path = path, .read_only = true};
    deed_status status = database_open(os_sim_os(w->sim), &options, &r.db, &r.err);
    if (status == DEED_OK) status = read_rows(&r, &got);
    if (status == DEED_OK) compare_rows(&r, &got);
    database_close(r.db);
    if (status != DEED_OK && !by_fault(w, status))
        fail_text(w, "rows cannot be read", r.err.message);
    if (status == DEED_OK && wanted != 0 && r.checkpoint != wanted) {
        fail(w, "a question about the past has another answer", r.checkpoint, wanted);
    }
    trace(w, got.row_hash);
}

static struct projection_status *list_views(struct world *w, struct arena *arena, size_t *out_count)
{
    struct projection_status *list = NULL;
    struct deed_error err = {0};
    *out_count = 0;
    if (projections_list(w->projections, arena, &list, out_count, &err) != DEED_OK) return NULL;
    return list;
}

static void query_view(struct world *w, unsigned view, uint64_t position)
{
    struct projection_lease *lease = NULL;
    const char *path = NULL;
    uint64_t reached = 0;
    struct deed_error err = {0};
    deed_status status = projections_lease(w->projections, deed_str_of(view_names[view]), position,
                                           10000, &lease, &path, &reached, &err);
    if (status == DEED_OK) {
        check_file(w, view, path, position);
        projections_release(lease);
        return;
    }
    bool known = by_fault(w, status) || status == DEED_STOPPED || status == DEED_NOT_FOUND ||
                 status == DEED_TIMEOUT || (status == DEED_GONE && w->removals > 0);
    if (!known) fail_text(w, "a lease failed otherwise", err.message);
}

/* A query that takes its time: it goes on seeing what it saw first, and keeps SQLite's log from being
 * used anew. */
static void long_query_end(struct world *w)
{
    struct long_query *q = &w->long_query;
    struct fold_model got = {0};
    if (q->reading.db == NULL) return;
    deed_status status = read_rows(&q->reading, &got);
    if (status == DEED_OK && q->reading.checkpoint != q->checkpoint) {
        fail(w, "a transaction sees another checkpoint", q->reading.checkpoint, q->checkpoint);
    }
    q->reading.past = true;
    if (status == DEED_OK) compare_rows(&q->reading, &got);
    if (status != DEED_OK && !by_fault(w, status)) {
        fail_text(w, "rows cannot be read any more", q->reading.err.message);
    }
    database_close(q->reading.db);
    projections_release(q->lease);
    memset(q, 0, sizeof *q);
}

static void long_query_begin(struct world *w)
{
    struct long_query *q = &w->long_query;
    struct fold_model got = {0};
    const char *path = NULL;
    q->reading = (struct reading){.w = w, .view = pick_view(w)};
    struct database_options options = {.read_only = true};
    deed_status status = projections_lease(w->projections, deed_str_of(view_names[q->reading.view]),
                                           0, 0, &q->lease, &path, NULL, &q->reading.err);
    if (status != DEED_OK) return;
    options.path = path;
    status = database_open(os_sim_os(w->sim), &options, &q->reading.db, &q->reading.err);
    if (status == DEED_OK) {
        status = database_run(q->reading.db, DATABASE_TRUSTED, "BEGIN", &q->reading.err);
    }
    if (status == DEED_OK) status = read_rows(&q->reading, &got);
    if (status == DEED_OK) {
        compare_rows(&q->reading, &got);
        q->checkpoint = q->reading.checkpoint;
        return;
    }
    if (!by_fault(w, status)) fail_text(w, "rows cannot be read", q->reading.err.message);
    database_close(q->reading.db);
    projections_release(q->lease);
    memset(q, 0, sizeof *q);
}

static void query_patiently(struct world *w)
{
    if (w->long_query.reading.db == NULL) {
        long_query_begin(w);
    } else {
        long_query_end(w);
    }
}

static void add_view(struct world *w, unsigned view)
{
    struct deed_error err = {0};
    struct view *v = &w->views[view];
    const char *text = view_text(view, v->factor, v->comment);
    deed_status status =
        projections_add(w->projections, deed_str_of(view_names[view]), deed_str_of(text), &err);
    if (status != DEED_OK && !by_fault(w, status)) {
        fail_text(w, "a projection is not taken up", err.message);
    }
}

static void administer(struct world *w)
{
    unsigned view = pick_view(w);
    deed_str name = deed_str_of(view_names[view]);
    struct view *v = &w->views[view];
    struct deed_error err = {0};
    deed_status status = DEED_OK;
    w->changing = 12;
    switch (pick(w, 5)) {
    case 0:
        status = projections_pause(w->projections, name, &err);
        break;
    case 1:
        status = projections_resume(w->projections, name, &err);
        break;
    case 2:
        status = projections_rebuild(w->projections, name, false, &err);
        break;
    case 3:
        v->comment++;
        add_view(w, view);
        break;
    default:
        v->factor = factors[pick(w, 3)];
        add_view(w, view);
        break;
    }
    if (status != DEED_OK && status != DEED_CONFLICT && status != DEED_NOT_FOUND) {
        fail_text(w, "a projection cannot be asked", err.message);
    }
}

/* ---- checks after an opening ----------------------------------------------------------------- */

static void check_scanned(struct world *w, const struct deed_event *e)
{
    uint32_t n = known_event(w, e);
    struct event *m = &w->events[n];
    if (m->present) fail(w, "an event is there twice", e->position, n);
    if (m->fate != ACKED && m->fate != UNKNOWN) fail(w, "a refused event is there", e->position, n);
    if (m->fate == ACKED && (m->position != e->position || m->revision != e->revision)) {
        fail(w, "an acknowledged event moved", m->position, e->position);
    }
    if (e->revision != next_revision(w, m))
        fail(w, "revisions have a gap", e->position, e->revision);
    check_not_back(w, n, e);
    m->present = true;
    m->fate = ACKED; /* seen: it stays */
    m->position = e->position;
    m->revision = e->revision;
    model_append(w, n);
}

static void check_batches(const struct world *w)
{
    for (uint32_t b = 1; b <= w->batch_count; b++) {
        uint32_t present = 0;
        for (uint32_t i = 0; i < w->batches[b].count; i++) {
            present += w->events[w->batches[b].first + i].present;
        }
        if (present != 0 && present != w->batches[b].count) {
            fail(w, "half a commit is there", w->batches[b].first, present);
        }
    }
}

static bool note_nothing(void *context, uint64_t done, uint64_t all)
{
    (void)context, (void)done, (void)all;
    return true;
}

static void note_damage(void *context, const struct store_damage *damage)
{
    fail_text(context, "damage without a cause", damage->what);
}

/* (1), (2): the scan from which the model goes on. */
static void check_log(struct world *w)
{
    struct deed_cursor *cursor = NULL;
    struct deed_error err = {0};
    struct deed_event e;
    struct deed_read_options options = {.filter.system = true, .removed = true};
    int64_t recorded_at = 0;
    w->end = 1;
    memset(w->streams, 0, sizeof w->streams);
    for (uint32_t n = 0; n < w->event_count; n++)
        w->events[n].present = false;
    deed_status status = store_read(w->store, &options, &cursor, &err);
    if (status != DEED_OK) fail_text(w, "no log to read", err.message);
    for (uint64_t next = 1; (status = cursor_next(cursor, &e, &err)) == DEED_OK; next++) {
        if (e.position != next) fail(w, "positions have a gap", e.position, next);
        if (e.recorded_at_ns < recorded_at) fail(w, "recorded_at went back", e.position, 0);
        recorded_at = e.recorded_at_ns;
        if (next > 1) check_scanned(w, &e);
    }
    cursor_close(cursor);
    if (status != DEED_END) fail_text(w, "the log does not read to its end", err.message);
    for (uint32_t n = 0; n < w->event_count; n++) {
        struct event *m = &w->events[n];
        if (m->fate == ACKED && !m->present)
            fail(w, "an acknowledged event is lost", m->position, n);
        if (m->fate == UNKNOWN) m->fate = REFUSED; /* recovery has decided */
    }
    check_batches(w);
}

/* (7) */
static void check_chain(struct world *w, struct store_verify_report *out)
{
    struct deed_error err = {0};
    deed_status status = store_verify(w->store, note_damage, note_nothing, w, out, &err);
    if (status != DEED_OK) fail_text(w, "the log does not verify", err.message);
    if (out->events != w->end) fail(w, "verify counts otherwise", out->events, w->end);
}

/* ---- opening and closing --------------------------------------------------------------------- */

static deed_status open_store(struct world *w, struct deed_error *err)
{
    struct store_options options = {.segment_size = w->segment_size, .no_threads = true};
    deed_status status = store_open(os_sim_os(w->sim), DIRECTORY, &options, &w->store, err);
    tell(w, "opened:", status, status == DEED_OK ? "" : err->message);
    return status;
}

static deed_status open_views(struct world *w, struct deed_error *err)
{
    struct projections_options options = {
        .no_threads = true, .batch_count_max = w->fold_batch, .settle_page_count = w->settle_pages};
    deed_status status = projections_open(w->store, &options, &w->projections, err);
    for (unsigned i = 0; status == DEED_OK && i < w->views_used; i++)
        add_view(w, view_at(w, i));
    return status;
}

static void close_all(struct world *w)
{
    followers_close(w);
    long_query_end(w);
    projections_close(w->projections);
    w->projections = NULL;
    store_close(w->store);
    w->store = NULL;
}

/* The machine stops; what is left of the process is only memory. */
static void stop_machine(struct world *w)
{
    os_sim_power_off_after(w->sim, 0); /* closing does nothing but free */
    bool kill = one_in(w, 4);
    if (kill) {
        os_sim_kill(w->sim);
    } else {
        os_sim_crash(w->sim);
    }
    tell(w, kill ? "kill" : "crash", 0, os_sim_describe(w->sim));
    os_sim_power_off_after(w->sim, 0);
    close_all(w);
    os_sim_power_off_after(w->sim, DEED_NONE);
}

static void check_views(struct world *w)
{
    for (unsigned i = 0; i < w->views_used; i++)
        query_view(w, view_at(w, i), 0);
}

/* (7): opening again changes nothing. */
static void open_twice(struct world *w)
{
    struct deed_error err = {0};
    struct store_verify_report first, again;
    check_chain(w, &first);
    if (one_in(w, 2)) {
        close_all(w);
    } else {
        stop_machine(w);
    }
    if (open_store(w, &err) != DEED_OK) fail_text(w, "the store does not open again", err.message);
    uint64_t end = w->end;
    check_log(w);
    check_chain(w, &again);
    bool same = end == w->end && first.commits == again.commits &&
                memcmp(first.chain_hash, again.chain_hash, sizeof first.chain_hash) == 0;
    if (!same) fail(w, "recovery repeated gives another log", end, w->end);
}

static void open_at_last(struct world *w)
{
    struct deed_error err = {0};
    for (unsigned crashes = 0; crashes < 4 && one_in(w, 4); crashes++) {
        os_sim_power_off_after(w->sim, pick(w, one_in(w, 2) ? 60 : 400));
        if (one_in(w, 2)) os_sim_set_faults(w->sim, &w->faults);
        if (open_store(w, &err) == DEED_OK && open_views(w, &err) == DEED_OK) {
            for (uint64_t i = pick(w, 8); i > 0; i--)
                (void)projections_step(w->projections);
        }
        stop_machine(w);
    }
    os_sim_heal(w->sim);
    if (open_store(w, &err) != DEED_OK) fail_text(w, "the store does not open", err.message);
    check_log(w);
    if (one_in(w, 3)) open_twice(w);
    for (unsigned i = 0; i < VIEWS; i++)
        w->views[i].seen = 0;
    if (open_views(w, &err) != DEED_OK) fail_text(w, "no projections", err.message);
    check_views(w);
    check_index(w);
}

/* ---- lives ----------------------------------------------------------------------------------- */

/* The steps of a change are few among many: the power goes in the midst of one more often than chance
 * would have it. */
static void project(struct world *w)
{
    if (w->changing > 0 && --w->changing % 4 == 0 && one_in(w, 8)) {
        if (one_in(w, 2)) {
            os_sim_power_off_after(w->sim, pick(w, 80));
        } else {
            os_sim_power_off_at(w->sim, OS_SIM_RENAME, 1, pick(w, 8));
        }
    }
    (void)projections_step(w->projections);
}

static void act(struct world *w, enum actor actor)
{
    switch (actor) {
    case WRITER:
        write_some(w);
        break;
    case COMMITTER:
        (void)store_step(w->store);
        break;
    case PROJECTOR:
        project(w);
        break;
    case READER:
        read_something(w);
        break;
    case FOLLOWER:
        follow_some(w, &w->followers[pick(w, FOLLOWERS)], 1 + pick(w, 20));
        break;
    case QUERIER:
        query_view(w, pick_view(w), 0);
        break;
    case HISTORIAN:
        query_view(w, pick_view(w), 1 + pick(w, w->end));
        break;
    case PATIENT:
        query_patiently(w);
        break;
    case DELETER:
        delete_something(w);
        break;
    case COMPACTOR:
        compact_something(w);
        break;
    case BACKER:
        back_up(w);
        break;
    case ADMIN:
        administer(w);
        break;
    case CLOCK:
        os_sim_advance(w->sim, pick(w, one_in(w, 4) ? 6 * SECOND : SECOND / 10));
        if (one_in(w, 50)) os_sim_set_clock(w->sim, (int64_t)pick(w, 1u << 30));
        break;
    case ACTORS:
        break;
    }
}

static enum actor pick_actor(struct world *w)
{
    uint64_t lot = pick(w, w->weight_sum);
    unsigned actor = 0;
    while (lot >= w->weights[actor])
        lot -= w->weights[actor++];
    return (enum actor)actor;
}

static void plan_fault(struct world *w)
{
    static const enum os_sim_op ops[] = {OS_SIM_WRITE, OS_SIM_SYNC, OS_SIM_READ, OS_SIM_ANY};
    static const enum os_sim_op turns[] = {OS_SIM_RENAME, OS_SIM_RENAME, OS_SIM_REMOVE,
                                           OS_SIM_DIR_SYNC, OS_SIM_TRUNCATE};
    switch (pick(w, 8)) {
    case 6:
    case 7:
        os_sim_power_off_at(w->sim, turns[pick(w, 5)], 1 + pick(w, 6), pick(w, 8));
        break;
    case 0:
        os_sim_power_off_after(w->sim, pick(w, 1500));
        break;
    case 1:
        w->may_misread = true;
        w->names_doubtful = true;
        os_sim_fail(w->sim, ops[pick(w, 4)], 1 + pick(w, 300), pick(w, 3), EIO);
        break;
    case 2:
        os_sim_fail(w->sim, OS_SIM_WRITE, 1 + pick(w, 200), one_in(w, 2) ? DEED_NONE : 3, ENOSPC);
        break;
    case 3:
        os_sim_set_capacity(w->sim, (UINT64_C(1) << 18) + pick(w, 1u << 21));
        break;
    default:
        break;
    }
}

static void live(struct world *w)
{
    w->may_misread = w->faults.ppm[OS_SIM_READ_ERROR] > 0;
    plan_fault(w);
    os_sim_set_faults(w->sim, &w->faults);
    uint64_t steps = pick(w, 250);
    for (uint64_t i = 0; i < steps; i++)
        act(w, pick_actor(w));
}

/* Whoever paused it goes on; what failed must go on by itself. */
static void resume_paused(struct world *w, struct arena *arena)
{
    size_t count = 0;
    struct projection_status *list = list_views(w, arena, &count);
    for (size_t i = 0; i < count; i++) {
        if (list[i].state == PROJECTION_FAILED) continue;
        if (projections_resume(w->projections, list[i].name, NULL) != DEED_OK) {
            fail(w, "a projection does not resume", i, 0);
        }
    }
}

/* A fold that meets what was removed stops, until somebody forces it. */
static bool met_a_hole(const struct world *w, const struct projection_status *p)
{
    static const char words[] = "removed from the log";
    bool live = p->error.len > 0 && strstr(p->error.ptr, words) != NULL;
    bool next = p->rebuild_error.len > 0 && strstr(p->rebuild_error.ptr, words) != NULL;
    return w->removals > 0 && ((live && p->state == PROJECTION_FAILED) || (next && p->lag == 0));
}

/* (8): all that was broken is mended. */
static void expect_recovery(struct world *w)
{
    struct arena arena;
    size_t count = 0;
    os_sim_heal(w->sim);
    arena_init(&arena, 1 << 20);
    for (unsigned i = 0; i < w->views_used; i++)
        add_view(w, view_at(w, i));
    resume_paused(w, &arena);
    bool late = true;
    for (unsigned round = 0; late && round < 400; round++) {
        if (round == 10) resume_paused(w, &arena); /* a pause may have come with another text */
        if (round == 5) long_query_end(w); /* a file that is opened again waits for its readers */
        (void)store_step(w->store);
        for (unsigned i = 0; i < 100 && projections_step(w->projections); i++)
            continue;
        os_sim_advance(w->sim, SECOND / 10);
        arena_reset(&arena);
        struct projection_status *list = list_views(w, &arena, &count);
        /* What storage failed is tried again after 5 seconds. */
        late = list == NULL || count != w->views_used || round < 60;
        for (size_t i = 0; !late && i < count; i++) {
            if (met_a_hole(w, &list[i])) continue;
            late = list[i].state != PROJECTION_RUNNING || list[i].lag > 0 || list[i].rebuilding;
        }
        if (late && round == 399) {
            for (size_t i = 0; list != NULL && i < count; i++) {
                fprintf(stderr, "  %s: state %d at %" PRIu64 " of %" PRIu64 "%s: %.*s\n",
                        list[i].name.ptr, list[i].state, list[i].position, w->end,
                        list[i].rebuilding ? ", rebuilding" : "", DEED_FMT(list[i].error));
            }
            fail(w, "projections do not recover", count, 0);
        }
    }
    arena_done(&arena);
    for (unsigned i = 0; i < w->views_used; i++)
        w->views[view_at(w, i)].settled = w->removals == 0;
    check_views(w);
    for (unsigned i = 0; i < w->views_used; i++)
        w->views[view_at(w, i)].settled = false;
}

static void expect_append_succeeds(struct world *w)
{
    struct deed_error err = {0};
    struct deed_appended appended;
    struct attempt *a = &w->attempts[0];
    finish_appends(w);
    uint32_t b = ++w->batch_count;
    w->batches[b] = (struct batch){.first = w->event_count, .count = 1};
    (void)new_event(w, USER, SAFE_STREAM, b);
    attempt_fill(w, a, b);
    if (store_append(w->store, &a->append, &appended, &err) != DEED_OK) {
        fail_text(w, "an append fails on a healthy machine", err.message);
    }
    attempt_done(a, &appended, NULL);
}

static void die(struct world *w)
{
    if (os_sim_powered(w->sim) && one_in(w, 3)) {
        /* The storm is over: appends are answered, followers get to the end. */
        os_sim_power_off_after(w->sim, DEED_NONE);
        finish_appends(w);
        struct deed_info info;
        store_info(w->store, &info);
        for (unsigned i = 0; i < FOLLOWERS; i++)
            follow_some(w, &w->followers[i], EVENTS_MAX);
        if (one_in(w, 2)) expect_recovery(w);
        if (one_in(w, 2)) {
            close_all(w);
            tell(w, "closed", 0, "");
        }
    }
    stop_machine(w);
    /* Nobody is left to answer. */
    for (unsigned i = 0; i < SLOTS; i++) {
        if (w->attempts[i].busy) fail(w, "an append was never answered", i, 0);
    }
    os_sim_heal(w->sim);
}

/* ---- rot ------------------------------------------------------------------------------------- */

struct file_list {
    char names[64][96];
    size_t count;
};

static void list_file(void *context, const char *name)
{
    struct file_list *list = context;
    if (list->count == 64 || strlen(name) >= sizeof list->names[0]) return;
    (void)snprintf(list->names[list->count++], sizeof list->names[0], "%s", name);
}

/* A sector of a file in this folder goes bad while nobody looks, in one of the first `kinds` ways of
 * enum os_sim_rot. */
static void rot_in(struct world *w, const char *folder, uint64_t kinds)
{
    struct file_list list = {.count = 0};
    struct os_dir *dir = NULL;
    struct os_file *file = NULL;
    uint64_t size = 0;
    char path[160];
    if (os_dir_open(os_sim_os(w->sim), folder, false, &dir, NULL) != DEED_OK ||
        os_dir_list(dir, list_file, &list, NULL) != DEED_OK) {
        fail_text(w, "no folder to rot in", folder);
    }
    if (list.count == 0) { /* no segment is sealed: there is no run */
        os_dir_close(dir);
        return;
    }
    const char *name = list.names[pick(w, list.count)];
    if (os_file_open(dir, name, OS_READ, &file, NULL) != DEED_OK ||
        os_file_size(file, &size, NULL) != DEED_OK) {
        fail(w, "no file to rot", 0, 0);
    }
    os_file_close(file);
    os_dir_close(dir);
    if (size == 0) return;
    uint64_t offset = pick(w, size);
    (void)snprintf(path, sizeof path, "%s/%s", folder, name);
    tell(w, "rot at", offset, path);
    if (os_sim_rot(w->sim, path, offset, (enum os_sim_rot)pick(w, kinds)) != DEED_OK) {
        fail(w, "cannot rot", offset, 0);
    }
    os_sim_drop_cache(w->sim);
}

/* As a query does: read everything, and say so if it is damaged. */
static void look_for_damage(struct world *w, unsigned view)
{
    struct projection_lease *lease = NULL;
    struct reading r = {.w = w, .view = view, .past = true};
    struct fold_model got = {0};
    struct database_options options = {.read_only = true};
    deed_status status = projections_lease(w->projections, deed_str_of(view_names[view]), 0, 0,
                                           &lease, &options.path, NULL, &r.err);
    if (status != DEED_OK) return; /* it knows already */
    status = database_open(os_sim_os(w->sim), &options, &r.db, &r.err);
    if (status == DEED_OK) status = read_rows(&r, &got);
    if (status == DEED_OK) compare_rows(&r, &got);
    if (status == DEED_CORRUPT) projections_damaged(lease, r.err.message);
    if (status != DEED_OK && status != DEED_CORRUPT) {
        fail_text(w, "rows cannot be read", r.err.message);
    }
    database_close(r.db);
    projections_release(lease);
}

/* What is opened or folded into meets the damage and is rebuilt unasked; where nobody comes by, a rebuild
 * that is asked for mends it. Half of the worlds do not ask: theirs is found by who looks at all rows.
 * A rebuild that meets a damaged index waits until that is mended. */
static void expect_rebuild_mends(struct world *w)
{
    struct deed_error err = {0};
    bool asks = one_in(w, 2);
    if (one_in(w, 3)) rot_in(w, DIRECTORY "/index", 3);
    /* A page that is stale as a whole is not found: page_check.h */
    rot_in(w, DIRECTORY "/projections", asks ? 3 : 2);
    if (open_store(w, &err) != DEED_OK) fail_text(w, "the store does not open", err.message);
    check_log(w);
    struct projections_options options = {.no_threads = true, .batch_count_max = w->fold_batch};
    if (projections_open(w->store, &options, &w->projections, &err) != DEED_OK) {
        fail_text(w, "no projections", err.message);
    }
    for (unsigned i = 0; i < w->views_used; i++) {
        unsigned view = view_at(w, i);
        const char *text = view_text(view, w->views[view].factor, w->views[view].comment);
        deed_status added = projections_add(w->projections, deed_str_of(view_names[view]),
                                            deed_str_of(text), &err);
        if (added == DEED_TOO_NEW) { /* that is what the manifest says now */
            close_all(w);
            return;
        }
        if (added != DEED_OK) fail_text(w, "a damaged read model is not taken up", err.message);
        for (unsigned n = 0; n < 20; n++) (void)projections_step(w->projections);
        deed_status status = DEED_OK;
        if (asks) {
            status = projections_rebuild(w->projections, deed_str_of(view_names[view]), false, &err);
        } else if (w->removals == 0) {
            look_for_damage(w, view);
        }
        if (status != DEED_OK && status != DEED_CONFLICT) {
            fail_text(w, "a damaged read model is not rebuilt", err.message);
        }
        w->views[view].seen = 0;
    }
    if (w->removals == 0) expect_recovery(w);
    close_all(w);
}

/* ---- a seed ---------------------------------------------------------------------------------- */

static void draw_faults(struct world *w)
{
    static const uint32_t crash_ppm[] = {0, 200000, 500000, 1000000};
    static const uint32_t op_ppm[] = {100, 1000, 10000};
    static const enum os_sim_fault harmless[] = {OS_SIM_READ_ERROR, OS_SIM_WRITE_ERROR,
                                                 OS_SIM_SYNC_ERROR, OS_SIM_DISK_FULL,
                                                 OS_SIM_SLOW,       OS_SIM_SHORT_WRITE,
                                                 OS_SIM_NO_MEMORY};
    w->faults = os_sim_faults_crash();
    if (one_in(w, 2)) {
        for (int f = OS_SIM_REORDERED; f <= OS_SIM_LOST_NAME; f++) {
            w->faults.ppm[f] = crash_ppm[pick(w, 4)];
        }
        w->faults.ppm[OS_SIM_LOST_WRITE] = crash_ppm[1 + pick(w, 3)];
        w->faults.ppm[OS_SIM_REUSED] = w->faults.ppm[OS_SIM_LOST_NAME];
    }
    if (one_in(w, 3)) return;
    for (size_t i = 0; i < sizeof harmless / sizeof harmless[0]; i++) {
        if (one_in(w, 3)) w->faults.ppm[harmless[i]] = op_ppm[pick(w, 3)];
    }
}

static void draw_work(struct world *w)
{
    static const unsigned weights[] = {0, 1, 3, 8};
    for (unsigned i = 0; i < ACTORS; i++)
        w->weights[i] = weights[pick(w, 4)];
    w->settle_pages = one_in(w, 4) ? 0 : 1 + (uint32_t)pick(w, one_in(w, 2) ? 8 : 60);
    if (w->settle_pages > 0 && w->settle_pages <= 8) {
        /* Readers that keep SQLite's log from being used anew, between one settling and the next. */
        w->weights[PATIENT] = w->weights[PROJECTOR] = 8;
    }
    w->weights[WRITER] = 4 + (unsigned)pick(w, 10);
    w->weights[COMMITTER] = 2 + (unsigned)pick(w, 10);
    if (w->weights[HISTORIAN] > 1) w->weights[HISTORIAN] = 1;
    if (w->weights[DELETER] > 1) w->weights[DELETER] = 1;
    if (one_in(w, 2)) w->weights[COMPACTOR] = 0;
    if (w->weights[COMPACTOR] > 1) w->weights[COMPACTOR] = 1;
    if (w->weights[BACKER] > 1) w->weights[BACKER] = 1;
    if (w->weights[ADMIN] > 3) w->weights[ADMIN] = 3;
    w->weight_sum = 0;
    for (unsigned i = 0; i < ACTORS; i++)
        w->weight_sum += w->weights[i];
    w->fat = one_in(w, 4);
    w->segment_size = UINT64_C(64) << (one_in(w, 4) ? 12 : 10);
    w->fold_batch = 1 + (uint32_t)pick(w, one_in(w, 2) ? 4 : 100);
    for (unsigned i = 0; i < FOLLOWERS; i++)
        w->followers[i].filter = draw_filter(w);
    w->views_used = 1 + (unsigned)pick(w, VIEWS);
    w->views_from = (unsigned)pick(w, VIEWS);
    for (unsigned i = 0; i < VIEWS; i++)
        w->views[i].factor = factors[pick(w, 3)];
}

/* The run's own mark: equal in equal runs (9). */
static uint64_t run_seed(uint64_t seed, bool verbose)
{
    struct world *w = &world;
    memset(w, 0, sizeof *w);
    w->seed = seed;
    w->verbose = verbose;
    seed_sqlite(seed);
    w->sim = memory_machine = os_sim_create(seed, NULL);
    draw_faults(w);
    draw_work(w);
    w->names_doubtful = w->faults.ppm[OS_SIM_SYNC_ERROR] > 0;
    uint64_t boots = 2 + pick(w, 4);
    for (uint64_t i = 0; i < boots && has_room(w); i++) {
        open_at_last(w);
        if (one_in(w, 2)) {
            os_sim_drop_cache(w->sim); /* what was served must be what the device holds */
            check_index(w);
        }
        expect_append_succeeds(w);
        live(w);
        die(w);
    }
    open_at_last(w);
    expect_append_succeeds(w);
    expect_recovery(w);
    close_all(w);
    if (one_in(w, 4)) expect_rebuild_mends(w);
    uint64_t mark = os_sim_digest(w->sim) ^ w->trace;
    memory_machine = NULL;
    os_sim_destroy(w->sim);
    return mark;
}

int main(int argc, char **argv)
{
    memory_configure_sqlite();
    if (argc > 2 && strcmp(argv[1], "--seed") == 0) {
        for (int i = 2; i < argc; i++) {
            uint64_t mark = run_seed(strtoull(argv[i], NULL, 10), true);
            printf("seed %s: good, %016" PRIx64 "\n", argv[i], mark);
        }
        return 0;
    }
    const char *wanted = argc > 1 ? argv[1] : getenv("SIM_SEEDS");
    uint64_t count = wanted != NULL ? strtoull(wanted, NULL, 10) : 500;
    uint64_t from = argc > 2 ? strtoull(argv[2], NULL, 10) : 1;
    for (uint64_t seed = from; seed < from + count; seed++) {
        uint64_t mark = run_seed(seed, false);
        if (seed % 50 == 1 && run_seed(seed, false) != mark) {
            fprintf(stderr, "seed %" PRIu64 ": the same seed gives another run\n", seed);
            return 1;
        }
    }
    printf("%" PRIu64 " seeds, good\n", count);
    return 0;
}
