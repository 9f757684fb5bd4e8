/* sim_store.c - the real store on a machine made from a seed: crash it, rot it, open it again, and
 * compare with what was acknowledged.
 *
 *     sim_store [COUNT]         that many seeds, from 1 (default SIM_SEEDS, else 2500)
 *     sim_store --seed N        one seed, telling what it does
 *
 * Each seed draws its own mix of faults and work. Checked after every opening, of promises 2 and 5:
 *
 * (1) Every acknowledged event is there, at its position and revision, with its content.
 * (2) What was refused is not there. What has an unknown outcome is there whole or not at all, and
 *     once it was seen it stays.
 * (3) Positions and revisions have no gaps; recorded_at never decreases.
 * (4) Streams, types and tags read by the index give what a scan of the log gives.
 * (5) After rot, what is served is right, and what is missing is reported, by position.
 * (6) With the faults over, an append succeeds. */
#include "os/os_sim.h"
#include "store/store.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define DIRECTORY  "/data"
#define STREAMS    5
#define EVENTS_MAX 4096
#define BATCH_MAX  6
#define GROUP_MAX  8

enum fate { UNBORN, PENDING, ACKED, REFUSED, UNKNOWN };

struct model_event {
    enum fate fate;
    unsigned stream, type, tag;
    size_t pad;
    uint32_t batch, batch_size;
    uint64_t position, revision;
    bool present; /* in the scan under way */
};

struct world {
    uint64_t seed;
    bool verbose;
    struct os_sim *sim;
    struct store *store;
    struct model_event events[EVENTS_MAX];
    uint32_t event_count, batch_count;
    uint64_t end; /* newest position ever acknowledged or seen */
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

/* ---- appends -------------------------------------------------------------------------------- */

static const char *const type_names[] = {"Opened", "Changed", "Closed"};

struct attempt {
    struct world *w;
    struct deed_new_event events[BATCH_MAX];
    struct deed_append append;
    deed_str tags[BATCH_MAX];
    char streams[BATCH_MAX][16], tag_names[BATCH_MAX][16], data[BATCH_MAX][6000];
    uint64_t revisions[BATCH_MAX];
    struct deed_condition condition;
    uint32_t first;
    size_t count;
    bool expect_refusal;
};

static void attempt_done(void *context, const struct deed_appended *appended,
                         const struct deed_error *err)
{
    struct attempt *a = context;
    struct world *w = a->w;
    for (size_t i = 0; i < a->count; i++) {
        struct model_event *e = &w->events[a->first + i];
        if (appended != NULL) {
            e->fate = ACKED;
            e->position = appended->first_position + i;
            e->revision = a->revisions[i];
        } else {
            e->fate = err->status == DEED_UNKNOWN ? UNKNOWN : REFUSED;
        }
    }
    if (appended != NULL) {
        if (a->expect_refusal) fail(w, "an append went against its condition", a->first, 0);
        if (appended->first_position <= w->end) fail(w, "a position was given twice",
                                                     appended->first_position, w->end);
        w->end = appended->position;
        tell(w, "acknowledged to position", appended->position, "");
    } else {
        tell(w, "refused event", a->first, err->message);
    }
}

static void attempt_fill(struct world *w, struct attempt *a)
{
    a->w = w;
    a->first = w->event_count;
    a->count = 1 + pick(w, BATCH_MAX);
    a->expect_refusal = false;
    w->batch_count++;
    for (size_t i = 0; i < a->count; i++) {
        struct model_event *e = &w->events[w->event_count++];
        *e = (struct model_event){.fate = PENDING,
                                  .stream = (unsigned)pick(w, STREAMS),
                                  .type = (unsigned)pick(w, 3),
                                  .tag = (unsigned)pick(w, 8),
                                  .pad = pick(w, 4) == 0 ? pick(w, 5000) : pick(w, 200),
                                  .batch = w->batch_count,
                                  .batch_size = (uint32_t)a->count};
        (void)snprintf(a->streams[i], sizeof a->streams[i], "s-%u", e->stream);
        (void)snprintf(a->tag_names[i], sizeof a->tag_names[i], "tag%u", e->tag);
        int len = snprintf(a->data[i], sizeof a->data[i], "{\"n\":%u,\"pad\":\"%0*d\"}",
                           a->first + (unsigned)i, (int)e->pad + 1, 0);
        a->tags[i] = deed_str_of(a->tag_names[i]);
        a->events[i] = (struct deed_new_event){
            .stream = deed_str_of(a->streams[i]),
            .type = deed_str_of(type_names[e->type]),
            .data = {(const uint8_t *)a->data[i], (size_t)len},
            .tags = &a->tags[i],
            .tag_count = 1,
        };
    }
    a->append = (struct deed_append){
        .events = a->events, .event_count = a->count, .out_revisions = a->revisions};
    if (pick(w, 8) == 0) {
        /* The log is past its first event, so "nothing after 0" cannot hold once one is there. */
        a->condition = (struct deed_condition){.kind = DEED_CONDITION_STREAM,
                                               .stream = DEED_STR("never-written"),
                                               .expect = DEED_EXPECT_EXISTS};
        a->append.conditions = &a->condition;
        a->append.condition_count = 1;
        a->expect_refusal = true;
    }
}

/* Several appends, gathered into groups by the committer. */
static void append_some(struct world *w)
{
    static struct attempt attempts[GROUP_MAX];
    size_t count = 1 + pick(w, GROUP_MAX);
    for (size_t i = 0; i < count && w->event_count + BATCH_MAX < EVENTS_MAX; i++) {
        struct attempt *a = &attempts[i];
        struct deed_error err = {0};
        attempt_fill(w, a);
        if (store_submit(w->store, &a->append, attempt_done, a, &err) != DEED_OK) {
            if (err.status != DEED_STOPPED) fail(w, "an append was not taken", err.status, 0);
            attempt_done(a, NULL, &err);
        }
    }
    while (store_step(w->store)) continue;
}

/* ---- checks --------------------------------------------------------------------------------- */

static struct model_event *known_event(struct world *w, const struct deed_event *e)
{
    unsigned n = 0;
    char text[32] = "";
    size_t len = e->data.len < sizeof text - 1 ? e->data.len : sizeof text - 1;
    memcpy(text, e->data.ptr, len);
    if (sscanf(text, "{\"n\":%u,", &n) != 1 || n >= w->event_count) {
        fail(w, "an event that nobody wrote", e->position, 0);
    }
    struct model_event *m = &w->events[n];
    char data[6000], stream[16], tag[16];
    int size = snprintf(data, sizeof data, "{\"n\":%u,\"pad\":\"%0*d\"}", n, (int)m->pad + 1, 0);
    (void)snprintf(stream, sizeof stream, "s-%u", m->stream);
    (void)snprintf(tag, sizeof tag, "tag%u", m->tag);
    bool same = e->data.len == (size_t)size && memcmp(e->data.ptr, data, (size_t)size) == 0 &&
                deed_str_equal(e->stream, deed_str_of(stream)) &&
                deed_str_equal(e->type, deed_str_of(type_names[m->type])) && e->tag_count == 1 &&
                deed_str_equal(e->tags[0], deed_str_of(tag));
    if (!same) fail(w, "an event has other content", e->position, n);
    return m;
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
    m->position = e->position;
    m->revision = e->revision;
}

static uint64_t read_count(struct world *w, const struct deed_read_options *options,
                           uint64_t *out_hash)
{
    struct deed_cursor *cursor = NULL;
    struct deed_error err;
    struct deed_event e;
    uint64_t count = 0;
    *out_hash = 0;
    deed_status status = store_read(w->store, options, &cursor, &err);
    if (status == DEED_NOT_FOUND) return 0;
    if (status != DEED_OK) fail(w, "a read did not open", status, 0);
    while ((status = cursor_next(cursor, &e, &err)) == DEED_OK) {
        count++;
        *out_hash = (*out_hash ^ e.position) * UINT64_C(0x9e3779b97f4a7c15);
    }
    if (status != DEED_END) fail(w, "a read failed", status, err.position);
    cursor_close(cursor);
    return count;
}

/* (4): by index as by scan. */
static void check_index(struct world *w)
{
    for (unsigned i = 0; i < STREAMS + 3 + 8; i++) {
        char name[16];
        deed_str term;
        struct deed_read_options options = {0};
        uint64_t wanted = 0;
        bool stream = i < STREAMS;
        bool type = !stream && i < STREAMS + 3;
        unsigned k = stream ? i : type ? i - STREAMS : i - STREAMS - 3;
        (void)snprintf(name, sizeof name, stream ? "s-%u" : "tag%u", k);
        term = deed_str_of(type ? type_names[k] : name);
        if (stream) options.stream = term;
        if (type) options.filter = (struct deed_filter){.types = &term, .type_count = 1};
        if (!stream && !type) options.filter = (struct deed_filter){.tags = &term, .tag_count = 1};
        for (uint32_t n = 0; n < w->event_count; n++) {
            const struct model_event *m = &w->events[n];
            wanted += m->present && (stream ? m->stream : type ? m->type : m->tag) == k;
        }
        uint64_t hash;
        uint64_t got = read_count(w, &options, &hash);
        if (got != wanted) fail(w, "the index gives another number of events", got, wanted);
    }
}

static void check_batches(struct world *w)
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

/* (1) to (4). */
static void check_all(struct world *w)
{
    struct deed_cursor *cursor = NULL;
    struct deed_error err;
    struct deed_event e;
    struct deed_read_options options = {.filter.system = true};
    uint64_t next = 1;
    uint64_t revisions[STREAMS] = {0};
    int64_t recorded_at = 0;
    for (uint32_t n = 0; n < w->event_count; n++) w->events[n].present = false;
    if (store_read(w->store, &options, &cursor, &err) != DEED_OK) fail(w, "no log to read", 0, 0);
    deed_status status;
    while ((status = cursor_next(cursor, &e, &err)) == DEED_OK) {
        if (e.position != next++) fail(w, "positions have a gap", e.position, next - 1);
        if (e.recorded_at_ns < recorded_at) fail(w, "recorded_at went back", e.position, 0);
        recorded_at = e.recorded_at_ns;
        if (e.position == 1) continue;
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
    check_batches(w);
    check_index(w);
    struct store_verify_report report;
    status = store_verify(w->store, NULL, NULL, NULL, &report, &err);
    if (status != DEED_OK) fail(w, "the log does not verify", status, report.damage_count);
    if (report.events != w->end) fail(w, "verify counts otherwise", report.events, w->end);
}

/* ---- lives of a machine --------------------------------------------------------------------- */

static struct store_options options_of(struct world *w)
{
    return (struct store_options){.segment_size = (UINT64_C(64) << 10) << (w->seed % 3),
                                  .no_threads = true};
}

static deed_status reopen(struct world *w, struct deed_error *err)
{
    struct store_options options = options_of(w);
    deed_status status = store_open(os_sim_os(w->sim), DIRECTORY, &options, &w->store, err);
    tell(w, "opened:", status, status == DEED_OK ? "" : err->message);
    return status;
}

/* Open through crashes of the recovery itself. */
static void open_at_last(struct world *w)
{
    struct deed_error err = {0};
    for (unsigned crashes = 0; crashes < 4 && pick(w, 4) == 0; crashes++) {
        os_sim_power_off_after(w->sim, pick(w, 60));
        if (reopen(w, &err) == DEED_OK) store_close(w->store);
        w->store = NULL;
        os_sim_crash(w->sim);
    }
    os_sim_heal(w->sim);
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
    case 1: os_sim_fail(w->sim, ops[pick(w, 3)], 1 + pick(w, 60), 0, EIO); break;
    case 2:
        os_sim_fail(w->sim, OS_SIM_WRITE, 1 + pick(w, 40), pick(w, 2) ? DEED_NONE : 3, ENOSPC);
        break;
    default: break;
    }
}

static void live(struct world *w)
{
    plan_fault(w);
    uint64_t rounds = pick(w, 30);
    for (uint64_t i = 0; i < rounds && w->event_count + GROUP_MAX * BATCH_MAX < EVENTS_MAX; i++) {
        append_some(w);
        if (pick(w, 3) == 0) os_sim_advance(w->sim, pick(w, 80000000));
        if (pick(w, 50) == 0) os_sim_set_clock(w->sim, (int64_t)pick(w, 1u << 30));
    }
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
    os_sim_power_off_after(w->sim, 0);
    bool kill = pick(w, 4) == 0;
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
    attempt_fill(w, a);
    a->append.condition_count = 0;
    a->expect_refusal = false;
    if (store_append(w->store, &a->append, &appended, &err) != DEED_OK) {
        fprintf(stderr, "%s\n", err.message);
        fail(w, "an append fails on a healthy machine", err.status, 0);
    }
    attempt_done(a, &appended, NULL);
    free(a);
}

/* ---- rot ------------------------------------------------------------------------------------ */

struct segment_list {
    char names[64][32];
    size_t count;
};

static void list_segment(void *context, const char *name)
{
    struct segment_list *list = context;
    size_t len = strlen(name);
    if (len > 31 || len < 4 || strcmp(name + len - 4, ".seg") != 0 || list->count == 64) return;
    memcpy(list->names[list->count++], name, len + 1);
}

static void rot_something(struct world *w)
{
    struct segment_list list = {.count = 0};
    struct os_dir *dir = NULL;
    struct os_file *file = NULL;
    uint64_t size = 0;
    struct deed_error err;
    if (os_dir_open(os_sim_os(w->sim), DIRECTORY "/log", false, &dir, &err) != DEED_OK ||
        os_dir_list(dir, list_segment, &list, &err) != DEED_OK || list.count == 0) {
        fail(w, "no segments to rot", 0, 0);
    }
    const char *name = list.names[pick(w, list.count)];
    if (os_file_open(dir, name, OS_READ, &file, &err) != DEED_OK ||
        os_file_size(file, &size, &err) != DEED_OK) {
        fail(w, "no segment to rot", 0, 0);
    }
    os_file_close(file);
    os_dir_close(dir);
    char path[128];
    (void)snprintf(path, sizeof path, DIRECTORY "/log/%s", name);
    /* Stale sectors too: an older content that was valid once. */
    uint64_t offset = pick(w, size);
    enum os_sim_rot rot = (enum os_sim_rot)pick(w, 3);
    tell(w, "rot at offset", offset, path);
    if (os_sim_rot(w->sim, path, offset, rot) != DEED_OK) fail(w, "cannot rot", offset, 0);
}

/* (6) also after damage, once somebody accepts it; and what is given out is given out once. */
static void expect_repair(struct world *w, uint64_t position)
{
    struct deed_error err = {0};
    struct deed_info info;
    for (unsigned again = 0; again < 2; again++) {
        struct store_options options = options_of(w);
        options.accept_losses = again == 0;
        if (store_open(os_sim_os(w->sim), DIRECTORY, &options, &w->store, &err) != DEED_OK) {
            fprintf(stderr, "%s\n", err.message);
            fail(w, "a repaired store does not open", err.status, again);
        }
        store_info(w->store, &info);
        if (!info.writable) fail(w, "a repaired store takes no appends", again, 0);
        if (info.position < position) fail(w, "positions went back", info.position, position);
        w->end = info.position;
        expect_append_succeeds(w);
        store_close(w->store);
        w->store = NULL;
        position = w->end;
    }
}

/* (5) */
static void check_rotten(struct world *w)
{
    struct deed_error err = {0};
    struct deed_info info;
    struct deed_cursor *cursor = NULL;
    struct deed_event e;
    struct deed_read_options options = {.filter.system = true};
    deed_status status = reopen(w, &err);
    if (status == DEED_CORRUPT) return; /* refused as a whole, with a reason */
    if (status != DEED_OK) fail(w, "rot is reported as something else", status, 0);
    store_info(w->store, &info);
    for (uint32_t n = 0; n < w->event_count; n++) w->events[n].present = false;
    if (store_read(w->store, &options, &cursor, &err) != DEED_OK) fail(w, "no log to read", 0, 0);
    uint64_t reported = 0;
    while ((status = cursor_next(cursor, &e, &err)) != DEED_END) {
        if (status == DEED_OK && e.position > 1) {
            if (known_event(w, &e)->position != e.position) fail(w, "a wrong event", e.position, 0);
            known_event(w, &e)->present = true;
        }
        if (status != DEED_OK && status != DEED_CORRUPT) fail(w, "a read failed", status, 0);
        if (status == DEED_CORRUPT && reported++ == 0 && err.position != info.corrupt_first) {
            fail(w, "another position is reported", err.position, info.corrupt_first);
        }
    }
    cursor_close(cursor);
    for (uint32_t n = 0; n < w->event_count; n++) {
        const struct model_event *m = &w->events[n];
        if (m->fate != ACKED || m->present) continue;
        if (info.writable) fail(w, "an event is missing, but appends go on", m->position, 0);
        if (m->position < info.corrupt_first) fail(w, "a loss is not reported", m->position, 0);
    }
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
    store_close(w->store);
    w->store = NULL;
    if (pick(w, 2) == 0) {
        rot_something(w);
        os_sim_drop_cache(w->sim);
        check_rotten(w);
    }
    os_sim_destroy(w->sim);
    free(w);
}

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "--seed") == 0) {
        run_seed(strtoull(argv[2], NULL, 10), true);
        printf("seed %s: good\n", argv[2]);
        return 0;
    }
    const char *wanted = argc > 1 ? argv[1] : getenv("SIM_SEEDS");
    uint64_t count = wanted != NULL ? strtoull(wanted, NULL, 10) : 2500;
    for (uint64_t seed = 1; seed <= count; seed++) run_seed(seed, false);
    printf("%" PRIu64 " seeds, good\n", count);
    return 0;
}
