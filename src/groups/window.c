/* window.c - the events that a group has read and that were not dealt with, and who has them.
 *
 *        oldest ◄──────────────────── window ───────────────────► newest     read_number
 *   ──┬────────────┬──────────────┬───────────────────┬─────────────┬──────────┬───────► source
 *     checkpoint   with a consumer  waits: again        (dealt with:  waits:
 *                                                        gone)        never yet
 *
 * (1) An item is in the window from when it was read until it was acknowledged, skipped, or parked
 *     durably. The checkpoint stands before the oldest: so what comes after a crash is all that was
 *     not dealt with, and maybe more.
 * (2) An item is with at most one consumer, and a consumer has at most buffer_size.
 * (3) Pinned: a lane's items are with one consumer at a time. A lane that has items out does not move.
 * (4) Pinned: while an item of a lane has come back, or was replayed, no item of the lane goes out
 *     unless all before it have been dealt with. So retries are in order, and what was never out waits.
 * (5) Without an item that came back, those that are out come before those that are not: `fresh` is
 *     where they meet.
 *
 * What an acknowledgement costs does not depend on how many items wait: an id is found by its hash,
 * the lists are linked both ways. */
#include "groups/group_state.h"

#include "base/hash.h"
#include "base/planted.h"
#include "base/text.h"
#include "base/uuid.h"

#include <assert.h>
#include <stdlib.h>

/* ---- lists ---------------------------------------------------------------------------------- */

void item_list_push(struct item_list *list, struct item *item)
{
    assert(item->in == NULL);
    item->in = list;
    item->next = NULL;
    item->prev = list->last;
    if (list->last != NULL) {
        list->last->next = item;
    } else {
        list->first = item;
    }
    list->last = item;
    list->count++;
}

static void list_remove(struct item *item)
{
    struct item_list *list = item->in;
    if (list == NULL) return;
    if (item->prev != NULL) {
        item->prev->next = item->next;
    } else {
        list->first = item->next;
    }
    if (item->next != NULL) {
        item->next->prev = item->prev;
    } else {
        list->last = item->prev;
    }
    list->count--;
    item->in = NULL;
    item->prev = item->next = NULL;
}

struct item *item_list_pop(struct item_list *list)
{
    struct item *item = list->first;
    if (item != NULL) list_remove(item);
    return item;
}

/* ---- by id ------------------------------------------------------------------------------------ */

static size_t id_slot(const struct group *g, deed_uuid id)
{
    uint64_t hash = xxh64(0, (deed_bytes){id.bytes, sizeof id.bytes});
    return (size_t)hash & (g->id_room - 1);
}

static bool ids_make_room(struct group *g)
{
    if (g->item_count < g->id_room) return true;
    size_t room = g->id_room == 0 ? 64 : g->id_room * 2;
    struct item **ids = calloc(room, sizeof *ids);
    if (ids == NULL) return false;
    struct item **old = g->ids;
    size_t old_room = g->id_room;
    g->ids = ids;
    g->id_room = room;
    for (size_t i = 0; i < old_room; i++) {
        while (old[i] != NULL) {
            struct item *item = old[i];
            old[i] = item->hash_next;
            size_t slot = id_slot(g, item->id);
            item->hash_next = ids[slot];
            ids[slot] = item;
        }
    }
    free(old);
    return true;
}

static void ids_remove(struct group *g, struct item *item)
{
    struct item **at = &g->ids[id_slot(g, item->id)];
    while (*at != item) at = &(*at)->hash_next;
    *at = item->hash_next;
    g->item_count--;
}

struct item *window_find(struct group *g, const struct group_consumer *c, deed_uuid id)
{
    if (g->id_room == 0) return NULL;
    struct item *found = NULL;
    for (struct item *i = g->ids[id_slot(g, id)]; i != NULL; i = i->hash_next) {
        if (!uuid_equal(i->id, id)) continue;
        bool has = i->state == ITEM_OUT && i->holder == c && i->deliveries > 0;
        bool had = i->state == ITEM_WAITING && i->holder_number == c->number && i->deliveries > 0;
        /* Ids are unique in a stream only: of two in the log, the one that it has. */
        if (has || (had && found == NULL)) found = i;
        if (has) break;
    }
    return found;
}

/* ---- lanes -------------------------------------------------------------------------------------- */

static bool is_pinned(const struct group *g)
{
    return g->settings.strategy == GROUP_PINNED ||
           g->settings.strategy == GROUP_PINNED_BY_CORRELATION;
}

/* The stream of what was meant: of a link, where it points to. */
static deed_str lane_key(const struct group *g, const struct group_event *content)
{
    const struct deed_event *e = content->has_event ? &content->event : &content->link;
    if (g->settings.strategy == GROUP_PINNED_BY_CORRELATION && e->correlation_id.len > 0) {
        return e->correlation_id;
    }
    uint64_t revision;
    deed_str stream;
    bool link = deed_str_equal(e->type, DEED_STR(STORE_LINK_TYPE));
    return link && store_link_parse(e->data, &stream, &revision) ? stream : e->stream;
}

static bool lanes_make_room(struct group *g)
{
    if (g->lane_count < g->lane_room) return true;
    size_t room = g->lane_room == 0 ? 64 : g->lane_room * 2;
    struct lane **lanes = calloc(room, sizeof *lanes);
    if (lanes == NULL) return false;
    for (size_t i = 0; i < g->lane_room; i++) {
        while (g->lanes[i] != NULL) {
            struct lane *lane = g->lanes[i];
            g->lanes[i] = lane->hash_next;
            struct lane **slot = &lanes[lane->hash & (room - 1)];
            lane->hash_next = *slot;
            *slot = lane;
        }
    }
    free(g->lanes);
    g->lanes = lanes;
    g->lane_room = room;
    return true;
}

static struct lane *lane_get(struct group *g, deed_str key)
{
    if (!lanes_make_room(g)) return NULL;
    uint64_t hash = xxh64(1, deed_bytes_of(key));
    struct lane **slot = &g->lanes[hash & (g->lane_room - 1)];
    for (struct lane *lane = *slot; lane != NULL; lane = lane->hash_next) {
        bool same = lane->hash == hash && lane->key_size == key.len;
        if (same && memcmp(lane->key, key.ptr, key.len) == 0) return lane;
    }
    struct lane *lane = calloc(1, sizeof *lane + key.len);
    if (lane == NULL) return NULL;
    lane->hash = hash;
    lane->key_size = key.len;
    if (key.len > 0) memcpy(lane->key, key.ptr, key.len);
    lane->hash_next = *slot;
    *slot = lane;
    g->lane_count++;
    return lane;
}

/* Whoever has the highest number drawn from both: few lanes move when somebody comes or goes. */
static struct group_consumer *lane_choose(const struct group *g, const struct lane *lane)
{
    struct group_consumer *best = NULL;
    uint64_t best_weight = 0;
    for (size_t i = 0; i < g->consumer_count; i++) {
        uint64_t number = g->consumers[i]->number;
        uint64_t weight = xxh64(lane->hash, (deed_bytes){(const uint8_t *)&number, sizeof number});
        if (best != NULL && weight <= best_weight) continue;
        best = g->consumers[i];
        best_weight = weight;
    }
    return best;
}

static void lane_unready(struct lane *lane)
{
    if (!lane->ready) return;
    struct group_consumer *c = lane->consumer;
    if (lane->ready_prev != NULL) {
        lane->ready_prev->ready_next = lane->ready_next;
    } else {
        c->ready_first = lane->ready_next;
    }
    if (lane->ready_next != NULL) {
        lane->ready_next->ready_prev = lane->ready_prev;
    } else {
        c->ready_last = lane->ready_prev;
    }
    lane->ready = false;
    lane->ready_prev = lane->ready_next = NULL;
}

static void lane_ready(struct lane *lane)
{
    struct group_consumer *c = lane->consumer;
    assert(!lane->ready);
    lane->ready = true;
    lane->ready_next = NULL;
    lane->ready_prev = c->ready_last;
    if (c->ready_last != NULL) {
        c->ready_last->ready_next = lane;
    } else {
        c->ready_first = lane;
    }
    c->ready_last = lane;
}

/* What may go out next (4)(5); NULL: nothing. */
static struct item *lane_next(const struct lane *lane)
{
    if (lane->again == 0 || (PLANTED(LANE_DOES_NOT_HOLD) && lane->fresh != NULL)) {
        return lane->fresh;
    }
    return lane->first->state == ITEM_WAITING ? lane->first : NULL;
}

static void lane_free(struct group *g, struct lane *lane)
{
    struct lane **at = &g->lanes[lane->hash & (g->lane_room - 1)];
    while (*at != lane) at = &(*at)->hash_next;
    *at = lane->hash_next;
    g->lane_count--;
    free(lane);
}

/* After any change of its items or of the consumers. It may be gone afterwards. */
static void lane_update(struct group *g, struct lane *lane)
{
    if (lane->first == NULL) {
        lane_unready(lane);
        lane_free(g, lane);
        return;
    }
    if (lane->out == 0 || PLANTED(LANE_MOVES_EARLY)) { /* (3) */
        struct group_consumer *chosen = lane_choose(g, lane);
        if (chosen != lane->consumer) {
            lane_unready(lane);
            lane->consumer = chosen;
        }
    }
    bool ready = lane->consumer != NULL && lane_next(lane) != NULL;
    if (ready == lane->ready) return;
    if (ready) {
        lane_ready(lane);
    } else {
        lane_unready(lane);
    }
}

/* Read from the source it goes last; a replayed one goes where it belongs. */
static void lane_add(struct lane *lane, struct item *item)
{
    struct item *before = lane->last;
    uint64_t position = group_event_original(item->content)->position;
    while (item->again && before != NULL &&
           group_event_original(before->content)->position > position) {
        before = before->lane_prev;
    }
    item->lane = lane;
    item->lane_prev = before;
    item->lane_next = before != NULL ? before->lane_next : lane->first;
    if (item->lane_next != NULL) {
        item->lane_next->lane_prev = item;
    } else {
        lane->last = item;
    }
    if (before != NULL) {
        before->lane_next = item;
    } else {
        lane->first = item;
    }
    if (item->again) {
        lane->again++;
    } else if (lane->fresh == NULL) {
        lane->fresh = item;
    }
}

static void lane_pass_fresh(struct lane *lane, const struct item *item)
{
    if (lane->fresh != item) return;
    do {
        lane->fresh = lane->fresh->lane_next;
    } while (lane->fresh != NULL && lane->fresh->again);
}

static void lane_remove(struct item *item)
{
    struct lane *lane = item->lane;
    lane_pass_fresh(lane, item);
    if (item->lane_prev != NULL) {
        item->lane_prev->lane_next = item->lane_next;
    } else {
        lane->first = item->lane_next;
    }
    if (item->lane_next != NULL) {
        item->lane_next->lane_prev = item->lane_prev;
    } else {
        lane->last = item->lane_prev;
    }
    if (item->again) lane->again--;
    item->lane = NULL;
}

/* ---- adding and removing ---------------------------------------------------------------------- */

static void window_link(struct group *g, struct item *item)
{
    bool replayed = item->parked_at != DEED_NONE;
    struct item **oldest = replayed ? &g->replay_oldest : &g->oldest;
    struct item **newest = replayed ? &g->replay_newest : &g->newest;
    item->older = *newest;
    if (*newest != NULL) {
        (*newest)->newer = item;
    } else {
        *oldest = item;
    }
    *newest = item;
}

static void window_unlink(struct group *g, struct item *item)
{
    bool replayed = item->parked_at != DEED_NONE;
    struct item **oldest = replayed ? &g->replay_oldest : &g->oldest;
    struct item **newest = replayed ? &g->replay_newest : &g->newest;
    if (item->older != NULL) {
        item->older->newer = item->newer;
    } else {
        *oldest = item->newer;
    }
    if (item->newer != NULL) {
        item->newer->older = item->older;
    } else {
        *newest = item->older;
    }
}

static void item_free(struct item *item)
{
    group_event_release(item->content);
    free(item->reason);
    free(item);
}

/* It waits: in its lane, or with those of its kind. */
static void item_wait(struct group *g, struct item *item)
{
    item->state = ITEM_WAITING;
    g->waiting++;
    g->again_count += item->again;
    if (item->lane == NULL) item_list_push(item->again ? &g->retry : &g->fresh, item);
}

static void bytes_add(struct group *g, uint64_t size)
{
    g->bytes += size;
    atomic_fetch_add_explicit(&g->groups->bytes, size, memory_order_relaxed);
}

static void bytes_remove(struct group *g, uint64_t size)
{
    g->bytes -= size;
    atomic_fetch_sub_explicit(&g->groups->bytes, size, memory_order_relaxed);
}

bool window_add(struct group *g, struct group_event *content, uint64_t number, uint64_t before,
                uint64_t parked_at)
{
    struct item *item = calloc(1, sizeof *item);
    if (item == NULL || !ids_make_room(g)) goto no_memory;
    struct lane *lane = NULL;
    if (is_pinned(g)) {
        lane = lane_get(g, lane_key(g, content));
        if (lane == NULL) goto no_memory;
    }
    item->content = content;
    item->id = group_event_original(content)->id;
    item->number = number;
    item->before = before;
    item->parked_at = parked_at;
    item->again = parked_at != DEED_NONE;
    window_link(g, item);
    size_t slot = id_slot(g, item->id);
    item->hash_next = g->ids[slot];
    g->ids[slot] = item;
    g->item_count++;
    bytes_add(g, content->size);
    if (lane != NULL) lane_add(lane, item);
    item_wait(g, item);
    if (lane != NULL) lane_update(g, lane);
    return true;

no_memory:
    free(item);
    return false;
}

/* How many more it may have. */
static size_t consumer_room(const struct group_consumer *c)
{
    size_t most = c->options.buffer_size;
    size_t held = consumer_held(c);
    size_t room = c->dropped || held >= most ? 0 : most - held;
    if (!c->options.on_demand) return room;
    size_t wanted = c->wanted > c->outbox.count ? c->wanted - c->outbox.count : 0;
    return wanted < room ? wanted : room;
}

/* Take it from whoever has it; it is in no list and no count of any state. */
static void item_detach(struct group *g, struct item *item)
{
    bool boxed = item->state == ITEM_OUT && item->in == &item->holder->outbox;
    if (boxed && item->lane != NULL) item->lane->boxed--;
    if (item->state == ITEM_OUT) g->free_slots -= consumer_room(item->holder);
    list_remove(item);
    if (item->state == ITEM_WAITING) {
        g->waiting--;
        g->again_count -= item->again;
        if (item->lane != NULL && !item->again) lane_pass_fresh(item->lane, item);
    } else if (item->state == ITEM_OUT) {
        g->free_slots += consumer_room(item->holder);
        item->holder = NULL;
        g->out--;
        if (item->lane != NULL) item->lane->out--;
    }
}

void window_done(struct group *g, struct item *item)
{
    struct lane *lane = item->lane;
    item_detach(g, item);
    ids_remove(g, item);
    window_unlink(g, item);
    bytes_remove(g, item->content->size);
    g->done_since_saved++;
    if (lane != NULL) {
        lane_remove(item);
        lane_update(g, lane);
    }
    item_free(item);
}

static void item_again(struct item *item)
{
    if (item->again) return;
    item->again = true;
    if (item->lane != NULL) item->lane->again++;
}

void window_park(struct group *g, struct item *item, deed_str reason)
{
    reason = str_beginning(reason, GROUP_REASON_MAX);
    item_detach(g, item);
    item->state = ITEM_PARKING;
    free(item->reason);
    /* Without memory for it the reason is lost, not the event. */
    item->reason = calloc(1, reason.len + 1);
    if (item->reason != NULL && reason.len > 0) memcpy(item->reason, reason.ptr, reason.len);
    item_list_push(&g->parking, item);
    if (item->lane != NULL) lane_update(g, item->lane);
}

/* What of the lane is behind the item, and was given to its consumer but not taken yet, waits again (4). */
static void lane_recall(struct group *g, struct item *item)
{
    for (struct item *i = item->lane_next; i != NULL && item->lane->boxed > 0; i = i->lane_next) {
        if (i->state != ITEM_OUT || i->in != &i->holder->outbox) continue;
        item_detach(g, i);
        item_again(i);
        item_wait(g, i);
    }
}

void window_return(struct group *g, struct item *item, bool failed, deed_str why)
{
    if (failed && item->failures < UINT32_MAX) item->failures++;
    if (failed && item->failures > g->settings.retry_count_max) {
        window_park(g, item, why);
        return;
    }
    item_detach(g, item);
    item_again(item);
    item_wait(g, item);
    if (item->lane == NULL) return;
    lane_recall(g, item);
    lane_update(g, item->lane);
}

struct item *window_take(struct group_consumer *c, uint64_t now_ns)
{
    struct item *item = item_list_pop(&c->outbox);
    if (item->lane != NULL) item->lane->boxed--;
    if (c->wanted > 0) c->wanted--;
    item_list_push(&c->taken, item);
    item->since_ns = now_ns;
    return item;
}

uint64_t window_checkpoint(const struct group *g)
{
    if (g->oldest == NULL || PLANTED(CHECKPOINT_AT_READ)) return g->read_number;
    if (PLANTED(CHECKPOINT_ONE_TOO_FAR)) return g->oldest->number;
    return g->oldest->before;
}

void window_clear(struct group *g)
{
    while (g->oldest != NULL || g->replay_oldest != NULL) {
        struct item *item = g->oldest != NULL ? g->oldest : g->replay_oldest;
        uint64_t done = g->done_since_saved;
        window_done(g, item);
        g->done_since_saved = done; /* it was not */
    }
    assert(g->item_count == 0 && g->lane_count == 0 && g->out == 0 && g->waiting == 0);
    assert(g->bytes == 0 && g->parking.count == 0);
}

/* ---- who gets what ------------------------------------------------------------------------------ */

static void give(struct group *g, struct group_consumer *c, struct item *item, uint64_t now_ns)
{
    assert(item->state == ITEM_WAITING && consumer_room(c) > 0);
    item_detach(g, item);
    item->state = ITEM_OUT;
    item->holder = c;
    item->holder_number = c->number;
    item->since_ns = now_ns;
    g->free_slots--;
    g->out++;
    if (item->lane != NULL) {
        item->lane->out++;
        item->lane->boxed++;
    }
    bool was_empty = c->outbox.count == 0;
    item_list_push(&c->outbox, item);
    if (was_empty && c->options.wake != NULL) c->options.wake(c->options.context);
}

static struct group_consumer *pick(struct group *g)
{
    bool round = g->settings.strategy == GROUP_ROUND_ROBIN;
    if (g->free_slots == 0) return NULL;
    for (size_t i = 0; i < g->consumer_count; i++) {
        size_t at = ((round ? g->turn : 0) + i) % g->consumer_count;
        struct group_consumer *c = g->consumers[at];
        if (consumer_room(c) == 0) continue;
        if (round) g->turn = (at + 1) % g->consumer_count;
        return c;
    }
    return NULL;
}

static void dispatch_lanes(struct group *g, struct group_consumer *c, uint64_t now_ns)
{
    while (consumer_room(c) > 0 && c->ready_first != NULL) {
        struct lane *lane = c->ready_first;
        lane_unready(lane);
        give(g, c, lane_next(lane), now_ns);
        lane_update(g, lane);
    }
}

void window_dispatch(struct group *g)
{
    if (g->waiting == 0 || g->free_slots == 0) return;
    uint64_t now_ns = group_now(g);
    if (is_pinned(g)) {
        for (size_t i = 0; i < g->consumer_count; i++) dispatch_lanes(g, g->consumers[i], now_ns);
        return;
    }
    for (;;) {
        struct item *item = g->retry.first != NULL ? g->retry.first : g->fresh.first;
        struct group_consumer *c = item == NULL ? NULL : pick(g);
        if (c == NULL) return;
        give(g, c, item, now_ns);
    }
}

/* ---- time ------------------------------------------------------------------------------------ */

void window_expire(struct group *g, uint64_t now_ns)
{
    uint64_t limit = (uint64_t)g->settings.message_timeout_ms * 1000000;
    if (limit == 0 || g->out == 0) return;
    for (size_t i = 0; i < g->consumer_count; i++) {
        struct group_consumer *c = g->consumers[i];
        /* Both lists are in the order of `since_ns`. What was not even taken has not failed. */
        while (c->taken.first != NULL && now_ns - c->taken.first->since_ns >= limit) {
            window_return(g, c->taken.first, true, DEED_STR("not acknowledged in time"));
        }
        while (c->outbox.first != NULL && now_ns - c->outbox.first->since_ns >= limit) {
            window_return(g, c->outbox.first, false, (deed_str){0});
        }
    }
}

/* ---- consumers ---------------------------------------------------------------------------------- */

static void lanes_update_all(struct group *g)
{
    for (size_t i = 0; i < g->lane_room; i++) {
        for (struct lane *lane = g->lanes[i], *next; lane != NULL; lane = next) {
            next = lane->hash_next;
            lane_update(g, lane);
        }
    }
}

bool window_join(struct group *g, struct group_consumer *c)
{
    if (g->consumer_count == g->consumer_room) {
        size_t room = g->consumer_room == 0 ? 8 : g->consumer_room * 2;
        struct group_consumer **grown = realloc(g->consumers, room * sizeof *grown);
        if (grown == NULL) return false;
        g->consumers = grown;
        g->consumer_room = room;
    }
    c->number = ++g->consumer_number;
    g->consumers[g->consumer_count++] = c;
    g->free_slots += consumer_room(c);
    lanes_update_all(g);
    window_dispatch(g);
    return true;
}

void window_want(struct group *g, struct group_consumer *c, size_t count)
{
    if (c->dropped) return;
    g->free_slots -= consumer_room(c);
    c->wanted = count;
    g->free_slots += consumer_room(c);
    while (c->outbox.count > c->wanted) {
        window_return(g, c->outbox.last, false, (deed_str){0});
    }
    window_dispatch(g);
}

void window_leave(struct group *g, struct group_consumer *c)
{
    size_t at = 0;
    while (at < g->consumer_count && g->consumers[at] != c) at++;
    if (at == g->consumer_count) return; /* it was dropped */
    g->consumer_count--;
    memmove(&g->consumers[at], &g->consumers[at + 1],
            (g->consumer_count - at) * sizeof *g->consumers);
    if (g->turn > at) g->turn--;
    if (g->consumer_count > 0) g->turn %= g->consumer_count;
    g->free_slots -= consumer_room(c);
    c->dropped = true; /* its slots count no more */
    if (PLANTED(LEAVE_LOSES)) {
        while (c->taken.first != NULL) window_done(g, c->taken.first);
    }
    while (c->taken.first != NULL) window_return(g, c->taken.first, false, (deed_str){0});
    while (c->outbox.first != NULL) window_return(g, c->outbox.first, false, (deed_str){0});
    lanes_update_all(g);
    assert(consumer_held(c) == 0 && c->ready_first == NULL);
    window_dispatch(g);
}
