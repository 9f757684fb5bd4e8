/* sim_groups.c - consumer groups on simulated machines that crash, against a model.
 *
 *   sim_groups [SEEDS]        default 1,500; SIM_SEEDS also says how many
 *   sim_groups --seed N       one world, told step by step
 *
 * In each world a few groups follow streams and the log, consumers come and go, take, acknowledge, give
 * back and stay silent at random, settings change, the power goes. What must hold:
 *
 * (1) Delivered is only what is stored and what the group is for; to one consumer never more than its
 *     buffer.
 * (2) What was acknowledged, skipped or parked is not delivered again in the same life, unless it is
 *     parked and replayed.
 * (3) A checkpoint that is found after a crash covers only what was acknowledged, skipped or parked; and
 *     of these what is parked is listed, unless it was dropped, or replayed and dealt with.
 * (4) What a checkpoint covers does not come again.
 * (5) Pinned: a stream's events are with one consumer at a time; while one has come back nothing behind it
 *     is delivered, and what comes again comes in order.
 * (6) With the faults over, a patient consumer gets everything: each event was dealt with at least once. */
#include "groups/groups.h"
#include "os/os_sim.h"
#include "store/store.h"
#include "sim/sim_main.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define DIRECTORY  "/data"
#define STREAMS    4
#define EVENTS_MAX 400
#define GROUPS     3
#define SEATS      3
#define HELD_MAX   32

enum state {
    NEVER,  /* not delivered in this life */
    OUT,    /* with a consumer, as far as we know: it may have timed out */
    BACK,   /* given back */
    DONE,   /* acknowledged or skipped */
    PARKED, /* we asked for it, or it failed often: the group will, or has */
};

struct model_event {
    bool stored;
    unsigned stream;
    uint64_t position, revision;
};

struct model_delivery {
    enum state state;
    unsigned seat;        /* OUT */
    bool ever_done;       /* in any life */
    bool asked_park;      /* in any life: it may be in the parked stream */
    bool listed;          /* it was seen there after the last start */
    bool doubled;         /* parked, and behind the checkpoint: it may come both ways */
    bool dropped;         /* from the parked ones */
    unsigned deliveries;  /* in this life */
    unsigned ever;
    unsigned failures;    /* that we know of */
};

struct held {
    uint32_t event;
    deed_uuid id;
};

struct seat {
    struct group_consumer *consumer;
    uint32_t buffer_size;
    bool on_demand; /* it asks now and then, and is dropped when it is silent for long */
    struct held held[HELD_MAX];
    size_t held_count;
};

struct model_group {
    char source[16];
    bool is_all, pinned, exists;
    struct group_settings settings;
    uint64_t begin; /* position behind which it delivers (by creation) */
    uint64_t checkpoint;
    bool replayed; /* in this life */
    struct seat seats[SEATS];
    struct model_delivery deliveries[EVENTS_MAX];
};

struct world {
    uint64_t seed;
    bool verbose;
    struct os_sim *sim;
    struct store *store;
    struct groups *groups;
    struct model_event events[EVENTS_MAX];
    uint32_t event_count;
    struct model_group models[GROUPS];
};

static void fail(const struct world *w, const char *what, uint64_t a, uint64_t b)
{
    fprintf(stderr, "seed %" PRIu64 ": %s (%" PRIu64 ", %" PRIu64 ")\n  %s\n", w->seed, what, a, b,
            os_sim_describe(w->sim));
    fprintf(stderr, "  again: build/tests/sim/sim_groups --seed %" PRIu64 "\n", w->seed);
    exit(1);
}

static unsigned told_group; /* whose doings are told */

static void tell(const struct world *w, const char *what, uint64_t a, uint64_t b)
{
    if (w->verbose) printf("  %u: %s %" PRIu64 " %" PRIu64 "\n", told_group, what, a, b);
}

static uint64_t pick(struct world *w, uint64_t limit)
{
    return os_sim_pick(w->sim, limit);
}

static deed_str source_of(const struct model_group *m)
{
    return deed_str_of(m->source);
}

#define NAME DEED_STR("g")

static bool is_for(const struct world *w, const struct model_group *m, uint32_t n)
{
    const struct model_event *e = &w->events[n];
    if (!e->stored || e->position <= m->begin) return false;
    return m->is_all || e->stream == (unsigned)(m->source[2] - '0');
}

static uint64_t number_of(const struct world *w, const struct model_group *m, uint32_t n)
{
    return m->is_all ? w->events[n].position : w->events[n].revision;
}

static bool covered(const struct world *w, const struct model_group *m, uint32_t n)
{
    return m->checkpoint != DEED_NONE && number_of(w, m, n) <= m->checkpoint;
}

/* ---- appending --------------------------------------------------------------------------------- */

static void append_some(struct world *w)
{
    uint64_t count = 1 + pick(w, 5);
    for (uint64_t i = 0; i < count && w->event_count < EVENTS_MAX; i++) {
        uint32_t n = w->event_count++;
        struct model_event *e = &w->events[n];
        char stream[16], data[32];
        uint64_t revision;
        struct deed_appended appended;
        struct deed_error err;
        e->stream = (unsigned)pick(w, STREAMS);
        (void)snprintf(stream, sizeof stream, "s-%u", e->stream);
        int size = snprintf(data, sizeof data, "{\"n\":%u}", n);
        struct deed_new_event event = {.stream = deed_str_of(stream),
                                       .type = DEED_STR("Said"),
                                       .data = {(const uint8_t *)data, (size_t)size}};
        struct deed_append append = {
            .events = &event, .event_count = 1, .out_revisions = &revision};
        if (store_append(w->store, &append, &appended, &err) == DEED_OK) {
            e->stored = true;
            e->position = appended.position;
            e->revision = revision;
            tell(w, "append", n, appended.position);
        }
    }
}

static bool number_in(const struct deed_event *e, uint32_t *out)
{
    char text[32] = "";
    if (e->data.len < 7 || e->data.len >= sizeof text) return false;
    memcpy(text, e->data.ptr, e->data.len);
    return sscanf(text, "{\"n\":%" SCNu32 "}", out) == 1;
}

/* After a crash: what became of the appends that were under way. */
static void learn_events(struct world *w)
{
    struct deed_read_options options = {0};
    struct deed_cursor *cursor = NULL;
    struct deed_event e;
    struct deed_error err;
    if (store_read(w->store, &options, &cursor, &err) != DEED_OK) fail(w, "no read", 0, 0);
    while (cursor_next(cursor, &e, &err) == DEED_OK) {
        uint32_t n = 0;
        if (!number_in(&e, &n) || n >= w->event_count) fail(w, "a strange event", e.position, 0);
        w->events[n].stored = true;
        w->events[n].position = e.position;
        w->events[n].revision = e.revision;
    }
    cursor_close(cursor);
}

/* ---- groups ------------------------------------------------------------------------------------- */

static void draw_settings(struct world *w, struct model_group *m)
{
    group_settings_default(&m->settings);
    m->settings.start = GROUP_FROM_START;
    m->settings.strategy = (enum group_strategy)pick(w, GROUP_STRATEGY_COUNT);
    m->settings.message_timeout_ms = pick(w, 3) == 0 ? 0 : 1000 + (uint32_t)pick(w, 10000);
    m->settings.retry_count_max = (uint32_t)pick(w, 4);
    m->settings.checkpoint_after_ms = pick(w, 4) == 0 ? 0 : (uint32_t)pick(w, 3000);
    m->settings.checkpoint_count_min = 1 + (uint32_t)pick(w, 5);
    m->settings.checkpoint_count_max = m->settings.checkpoint_count_min + (uint32_t)pick(w, 10);
    m->settings.read_batch_size = 1 + (uint32_t)pick(w, 8);
    m->settings.history_buffer_size = m->settings.read_batch_size + 1 + (uint32_t)pick(w, 40);
    m->settings.live_buffer_size = 1 + (uint32_t)pick(w, 40);
}

static void became_pinned(struct model_group *m)
{
    m->pinned = m->settings.strategy == GROUP_PINNED ||
                m->settings.strategy == GROUP_PINNED_BY_CORRELATION;
}

static void create_group(struct world *w, struct model_group *m)
{
    struct deed_error err;
    memset(m->deliveries, 0, sizeof m->deliveries);
    draw_settings(w, m);
    became_pinned(m);
    m->checkpoint = DEED_NONE;
    m->begin = 0;
    if (pick(w, 3) == 0) {
        m->settings.start = GROUP_FROM_END;
        m->begin = store_position(w->store);
    }
    deed_status status = groups_create(w->groups, source_of(m), NAME, &m->settings, &err);
    m->exists = status == DEED_OK;
    if (status != DEED_OK && os_sim_powered(w->sim)) fail(w, "a group was not created", status, 0);
}

static void forget_life(struct model_group *m)
{
    for (uint32_t n = 0; n < EVENTS_MAX; n++) {
        struct model_delivery *d = &m->deliveries[n];
        d->state = NEVER;
        d->deliveries = 0;
        d->failures = 0;
        d->doubled = false;
        d->listed = false;
    }
    m->replayed = false;
}

static void leave(struct world *w, struct model_group *m, unsigned seat)
{
    struct seat *s = &m->seats[seat];
    (void)w;
    groups_leave(s->consumer);
    s->consumer = NULL;
    s->held_count = 0;
    for (uint32_t n = 0; n < w->event_count; n++) {
        struct model_delivery *d = &m->deliveries[n];
        /* With a timeout it may be parked by now. */
        bool surely = m->settings.message_timeout_ms == 0;
        if (d->state == OUT && d->seat == seat && surely) d->state = BACK;
    }
}

static void join(struct world *w, struct model_group *m, unsigned seat, uint32_t buffer_size,
                 bool on_demand)
{
    struct deed_error err;
    struct seat *s = &m->seats[seat];
    s->buffer_size = buffer_size;
    s->on_demand = on_demand;
    struct group_consumer_options options = {.buffer_size = buffer_size, .on_demand = on_demand};
    deed_status status =
        groups_join(w->groups, source_of(m), NAME, &options, &s->consumer, &err);
    if (status != DEED_OK) fail(w, "a consumer could not join", status, 0);
}

/* (5) */
static void check_order(struct world *w, struct model_group *m, uint32_t n, unsigned seat)
{
    const struct model_delivery *d = &m->deliveries[n];
    for (uint32_t k = 0; k < w->event_count; k++) {
        const struct model_delivery *f = &m->deliveries[k];
        if (k == n || w->events[k].stream != w->events[n].stream || !is_for(w, m, k)) continue;
        if (f->doubled || d->doubled || covered(w, m, k)) continue;
        bool earlier = w->events[k].position < w->events[n].position;
        if (f->state == OUT && f->seat != seat && m->settings.message_timeout_ms == 0) {
            fail(w, "a stream is with two consumers", k, n);
        }
        if (!earlier) continue;
        if (f->state == BACK) fail(w, "an event overtook one that came back", k, n);
        if (d->deliveries > 0 && f->state == OUT && m->settings.message_timeout_ms == 0) {
            fail(w, "an event came again before an earlier one was dealt with", k, n);
        }
    }
}

static void delivered(struct world *w, struct model_group *m, unsigned seat,
                      const struct group_message *message)
{
    uint32_t n = 0;
    struct seat *s = &m->seats[seat];
    if (message->event == NULL || !number_in(message->event, &n) || n >= w->event_count) {
        fail(w, "a strange delivery", 0, 0);
    }
    struct model_delivery *d = &m->deliveries[n];
    tell(w, "delivered", n, seat);
    if (!is_for(w, m, n)) fail(w, "delivered what is not the group's", n, seat); /* (1) */
    bool again = d->state == DONE || (d->state == PARKED && !m->replayed);
    if (again && !d->doubled && !(d->asked_park && m->replayed)) {
        fail(w, "delivered what was dealt with", n, d->state); /* (2) */
    }
    if (covered(w, m, n) && !(d->asked_park && m->replayed) && d->ever_done) {
        fail(w, "delivered what the checkpoint covers", n, m->checkpoint); /* (4) */
    }
    if (m->pinned) check_order(w, m, n, seat);
    /* What it had of this before timed out. */
    for (size_t i = 0; i < s->held_count && !d->doubled && !m->replayed; i++) {
        if (s->held[i].event == n) s->held[i] = s->held[--s->held_count];
    }
    d->state = OUT;
    d->seat = seat;
    d->deliveries++;
    d->ever++;
    if (m->settings.message_timeout_ms == 0 && s->held_count >= s->buffer_size) {
        fail(w, "a consumer has more than its buffer", s->held_count, s->buffer_size);
    }
    if (s->held_count < HELD_MAX) s->held[s->held_count++] = (struct held){n, message->id};
}

static void take(struct world *w, struct model_group *m, unsigned seat)
{
    struct group_message messages[4];
    size_t count = 0;
    struct seat *s = &m->seats[seat];
    if (s->on_demand && groups_dropped(s->consumer)) {
        leave(w, m, seat);
        return;
    }
    if (s->on_demand) groups_want(s->consumer, pick(w, 5));
    deed_status status = groups_take(s->consumer, messages, 1 + pick(w, 4), SIZE_MAX, &count, NULL);
    if (status != DEED_OK) fail(w, "nothing to take from", status, 0);
    for (size_t i = 0; i < count; i++) {
        delivered(w, m, seat, &messages[i]);
        group_message_done(&messages[i]);
    }
}

/* Does an answer surely count? Without a timeout only what this consumer has is held here. */
static void answer_one(struct world *w, struct model_group *m, unsigned seat)
{
    struct seat *s = &m->seats[seat];
    if (s->held_count == 0) return;
    size_t at = pick(w, s->held_count);
    struct held h = s->held[at];
    s->held[at] = s->held[--s->held_count];
    struct model_delivery *d = &m->deliveries[h.event];
    uint64_t how = pick(w, 10);
    bool ack = how < 6;
    enum group_nack action = how == 6   ? GROUP_NACK_PARK
                             : how == 7 ? GROUP_NACK_SKIP
                                        : GROUP_NACK_RETRY;
    size_t counted = ack ? groups_ack(s->consumer, &h.id, 1)
                         : groups_nack(s->consumer, &h.id, 1, action, DEED_STR("no"));
    tell(w, ack ? "ack" : "nack", h.event, counted);
    if (counted == 0) {
        if (m->settings.message_timeout_ms == 0) fail(w, "an answer did not count", h.event, how);
        return;
    }
    if (ack || action == GROUP_NACK_SKIP) {
        d->state = DONE;
        d->ever_done = true;
    } else if (action == GROUP_NACK_PARK || d->failures + 1 > m->settings.retry_count_max) {
        d->state = PARKED;
        d->asked_park = true;
    } else {
        /* A time-out that we do not know of counts as a failure too: it may have been parked. */
        d->state = m->settings.message_timeout_ms == 0 ? BACK : OUT;
        d->asked_park |= m->settings.message_timeout_ms != 0;
        d->failures++;
    }
}

/* ---- parked ---------------------------------------------------------------------------------------- */

struct listing {
    struct world *w;
    struct model_group *m;
};

static bool list_one(void *context, const struct group_parked *p)
{
    struct listing *l = context;
    uint32_t n = 0;
    if (p->event == NULL || !number_in(p->event, &n)) fail(l->w, "a strange parked one", p->number, 0);
    struct model_delivery *d = &l->m->deliveries[n];
    d->listed = true;
    tell(l->w, "parked", p->number, n);
    if (!d->asked_park && l->m->settings.message_timeout_ms == 0) {
        fail(l->w, "nobody parked this", n, p->number);
    }
    d->asked_park = true;
    return true;
}

static void list_parked(struct world *w, struct model_group *m)
{
    struct listing l = {w, m};
    struct deed_error err;
    for (uint32_t n = 0; n < w->event_count; n++) m->deliveries[n].listed = false;
    deed_status status = groups_parked(w->groups, source_of(m), NAME, 0, list_one, &l, &err);
    if (status != DEED_OK && os_sim_powered(w->sim)) fail(w, "parked ones are not listed", status, 0);
}

static void replay(struct world *w, struct model_group *m)
{
    struct deed_error err;
    deed_status status = groups_replay_parked(w->groups, source_of(m), NAME, DEED_NONE, NULL, &err);
    if (status != DEED_OK && status != DEED_BUSY && os_sim_powered(w->sim)) {
        fail(w, "no replay", status, 0);
    }
    m->replayed = true;
    tell(w, "replay", status, 0);
}

/* ---- a life ------------------------------------------------------------------------------------------ */

static void pump(struct world *w)
{
    for (unsigned i = 0; i < 2000; i++) {
        bool more = groups_step(w->groups) == ACTOR_AGAIN;
        if (!store_step(w->store) && !more) return;
        if (!os_sim_powered(w->sim)) return;
    }
    fail(w, "there is always something to do", 0, 0);
}

static void change_group(struct world *w, struct model_group *m)
{
    struct deed_error err;
    for (unsigned i = 0; i < SEATS; i++) {
        if (m->seats[i].consumer != NULL) leave(w, m, i);
    }
    bool delete = pick(w, 3) == 0;
    deed_status status;
    for (uint32_t n = 0; n < EVENTS_MAX && m->settings.message_timeout_ms != 0; n++) {
        m->deliveries[n].asked_park |= m->deliveries[n].ever > 0; /* by time, maybe */
    }
    if (delete) {
        status = groups_delete(w->groups, source_of(m), NAME, &err);
        if (status == DEED_OK) create_group(w, m);
    } else {
        struct group_settings before = m->settings;
        enum group_start start = m->settings.start;
        draw_settings(w, m);
        m->settings.start = start;
        status = groups_update(w->groups, source_of(m), NAME, &m->settings, &err);
        became_pinned(m);
        if (status != DEED_OK) {
            m->settings = before;
            became_pinned(m);
        }
        /* As after a restart: what was dealt with behind the checkpoint may come again. */
        for (uint32_t n = 0; n < EVENTS_MAX; n++) {
            struct model_delivery *d = &m->deliveries[n];
            d->doubled |= d->state != NEVER;
            d->failures = 0;
        }
    }
    if (status != DEED_OK && os_sim_powered(w->sim)) fail(w, "a change failed", status, delete);
    tell(w, delete ? "deleted" : "updated", status, 0);
    if (status != DEED_OK && delete) m->exists = false; /* maybe */
}

static void act(struct world *w)
{
    struct model_group *m = &w->models[pick(w, GROUPS)];
    unsigned seat = (unsigned)pick(w, SEATS);
    if (!m->exists) return;
    told_group = (unsigned)(m - w->models);
    bool sits = m->seats[seat].consumer != NULL;
    uint64_t what = pick(w, 100);
    if (what < 10) {
        append_some(w);
    } else if (what < 16) {
        if (!sits) join(w, m, seat, 1 + (uint32_t)pick(w, 10), pick(w, 3) == 0);
    } else if (what < 19) {
        if (sits) leave(w, m, seat);
    } else if (what < 50) {
        if (sits) take(w, m, seat);
    } else if (what < 80) {
        if (sits) answer_one(w, m, seat);
    } else if (what < 90) {
        (void)groups_step(w->groups);
    } else if (what < 94) {
        (void)store_step(w->store);
    } else if (what < 97) {
        bool long_time = pick(w, 10) == 0;
        os_sim_advance(w->sim, pick(w, long_time ? UINT64_C(60000000000) : UINT64_C(4000000000)));
    } else if (what == 97) {
        replay(w, m);
    } else if (what == 98) {
        pump(w);
    } else if (pick(w, 8) == 0) {
        change_group(w, m);
    }
}

static void open_all(struct world *w)
{
    struct deed_error err = {0};
    struct store_options options = {.no_threads = true, .segment_size = 64 << 10};
    struct groups_options how = {.no_threads = true};
    deed_status status = store_open(os_sim_os(w->sim), DIRECTORY, &options, &w->store, &err);
    if (status != DEED_OK) fail(w, err.message, status, 0);
    status = groups_open(w->store, &how, &w->groups, &err);
    if (status != DEED_OK) fail(w, err.message, status, 0);
    learn_events(w);
}

/* (3) */
static void check_found(struct world *w, struct model_group *m)
{
    struct arena arena;
    struct group_info info;
    struct deed_error err;
    arena_init(&arena, SIZE_MAX);
    deed_status status = groups_info(w->groups, source_of(m), NAME, &arena, &info, &err);
    if (status == DEED_NOT_FOUND) {
        if (m->exists) fail(w, "a group is gone", status, 0);
        create_group(w, m);
        arena_done(&arena);
        return;
    }
    if (status != DEED_OK) fail(w, "a group does not tell", status, 0);
    if (!m->exists) { /* a creation or deletion that nobody answered for: begin anew */
        if (groups_delete(w->groups, source_of(m), NAME, &err) != DEED_OK) fail(w, "no deletion", 0, 0);
        create_group(w, m);
        arena_done(&arena);
        return;
    }
    /* A change whose answer was lost may hold or not. */
    m->settings = info.settings;
    m->settings.filter = (deed_str){0};
    became_pinned(m);
    if (m->checkpoint != DEED_NONE && (info.checkpoint == DEED_NONE || info.checkpoint < m->checkpoint)) {
        fail(w, "a checkpoint went back", info.checkpoint, m->checkpoint);
    }
    m->checkpoint = info.checkpoint;
    told_group = (unsigned)(m - w->models);
    tell(w, "found at", m->checkpoint, info.parked_count);
    list_parked(w, m);
    for (uint32_t n = 0; n < w->event_count; n++) {
        struct model_delivery *d = &m->deliveries[n];
        if (!is_for(w, m, n)) continue;
        if (covered(w, m, n) && !d->ever_done && !d->listed) {
            fail(w, "the checkpoint covers what was not dealt with", n, m->checkpoint);
        }
        d->doubled = d->listed && !covered(w, m, n);
    }
    arena_done(&arena);
}

static void close_all(struct world *w)
{
    for (unsigned g = 0; g < GROUPS; g++) {
        for (unsigned i = 0; i < SEATS; i++) {
            if (w->models[g].seats[i].consumer != NULL) leave(w, &w->models[g], i);
        }
    }
    groups_close(w->groups);
    store_close(w->store);
    w->groups = NULL;
    w->store = NULL;
}

static void live(struct world *w)
{
    open_all(w);
    for (unsigned g = 0; g < GROUPS; g++) {
        struct model_group *m = &w->models[g];
        forget_life(m);
        check_found(w, m);
    }
    /* It lives until the power goes, or ends by itself. */
    bool crash = pick(w, 4) != 0;
    uint64_t steps = 100 + pick(w, 600);
    uint64_t fatal = crash ? pick(w, steps) : steps;
    for (uint64_t i = 0; i < steps && os_sim_powered(w->sim); i++) {
        if (i == fatal) os_sim_power_off_after(w->sim, pick(w, 20));
        act(w);
    }
    if (crash) {
        tell(w, "crash", 0, 0);
        if (os_sim_powered(w->sim) && pick(w, 3) == 0) {
            os_sim_power_off_after(w->sim, DEED_NONE);
            os_sim_kill(w->sim);
        } else {
            os_sim_crash(w->sim);
        }
    }
    close_all(w);
    os_sim_heal(w->sim);
}

/* (6) */
static void be_patient(struct world *w)
{
    open_all(w);
    for (unsigned g = 0; g < GROUPS; g++) {
        struct model_group *m = &w->models[g];
        forget_life(m);
        check_found(w, m);
        told_group = g;
        m->pinned = false; /* what is parked comes when it is asked for */
        join(w, m, 0, 10, false);
        for (unsigned round = 0; round < 400; round++) {
            struct seat *s = &m->seats[0];
            if (round % 8 == 0) replay(w, m);
            if (round % 4 == 0) os_sim_advance(w->sim, UINT64_C(1500000000));
            pump(w);
            for (unsigned i = 0; i < 3; i++) take(w, m, 0);
            while (s->held_count > 0) {
                struct held h = s->held[--s->held_count];
                if (groups_ack(s->consumer, &h.id, 1) == 0) continue;
                m->deliveries[h.event].state = DONE;
                m->deliveries[h.event].ever_done = true;
                m->deliveries[h.event].doubled = true; /* a second one may be on its way */
            }
        }
        pump(w);
        list_parked(w, m);
        for (uint32_t n = 0; n < w->event_count; n++) {
            if (!is_for(w, m, n)) continue;
            if (!m->deliveries[n].ever_done) fail(w, "an event was never dealt with", n, g);
            if (m->deliveries[n].listed) fail(w, "a replayed event is parked still", n, g);
        }
    }
    close_all(w);
}

static void run_seed(uint64_t seed, bool verbose)
{
    struct world *w = calloc(1, sizeof *w);
    if (w == NULL) abort();
    w->seed = seed;
    w->verbose = verbose;
    w->sim = os_sim_create(seed, NULL);
    for (unsigned g = 0; g < GROUPS; g++) {
        struct model_group *m = &w->models[g];
        m->is_all = g == 0;
        (void)snprintf(m->source, sizeof m->source, m->is_all ? "$all" : "s-%u", g);
    }
    uint64_t lives = 2 + pick(w, 4);
    for (uint64_t i = 0; i < lives; i++) live(w);
    be_patient(w);
    os_sim_destroy(w->sim);
    free(w);
}

int main(int argc, char **argv)
{
    return sim_main(argc, argv, 1500, run_seed);
}
