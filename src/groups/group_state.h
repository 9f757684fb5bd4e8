/* group_state.h - inside consumer groups: shared by this folder's files.
 *
 *   source ─cursor─► feed.c ─► window.c ─► consumers' outboxes ─► take ─► ack, nack
 *                      ▲           │
 *   parked stream ─────┘           └─► durable.c ─► checkpoint, parked stream, settings
 *
 * A group's lock guards all of it but the cursor, which is the actor's alone. */
#ifndef GROUPS_GROUP_STATE_H
#define GROUPS_GROUP_STATE_H

#include "groups/groups.h"
#include "store/store.h"

#include <stdatomic.h>

/* Content that groups hold in memory: past it, a group reads no more, but for one batch when it has
 * nothing. A batch ends with the event that makes it this large. */
#define GROUPS_BYTES_MAX   (UINT64_C(256) << 20)
#define GROUP_BATCH_BYTES  (UINT64_C(4) << 20)
#define GROUP_WAITING_MAX  65536u
#define GROUP_BUFFER_MAX   65536u
#define GROUP_TICK_NS      UINT64_C(1000000000)
#define GROUP_REASON_MAX   1024u
/* In one append: a group commit has room for more, but its answer should not wait for it. */
#define GROUP_PARK_MAX     64u
/* Events looked at in a row that a filter does not let pass; and how far that moves a checkpoint. */
#define GROUP_EXAMINE_MAX  4096u
#define GROUP_EXAMINED_CHECKPOINT UINT64_C(10000)
#define GROUP_LATENCIES    256u
/* A consumer on demand that asks for nothing, and has nothing, for so long is dropped: streams that are
 * pinned to it would wait for it. */
#define GROUP_DEMAND_IDLE_NS (UINT64_C(30) * 1000000000)

/* Streams of groups' own (docs/format/groups.md). */
#define GROUPS_STATE_PREFIX  "$persistentsubscription-"
#define GROUPS_CONFIG_STREAM "$persistentSubscriptionConfig"

/* An event and what it came by, in one piece of memory. */
struct group_event {
    _Atomic uint32_t holds;
    size_t size;
    bool has_event, has_link;
    struct deed_event event, link;
};
/* NULL: no memory. Either may be NULL. */
struct group_event *group_event_create(const struct deed_event *event,
                                       const struct deed_event *link);
void group_event_release(struct group_event *content);
/* What was read from the source: the link if there is one. */
static inline const struct deed_event *group_event_original(const struct group_event *content)
{
    return content->has_link ? &content->link : &content->event;
}

enum item_state {
    ITEM_WAITING,
    ITEM_OUT,     /* with a consumer */
    ITEM_PARKING, /* until that is durable */
};

struct item_list {
    struct item *first, *last;
    size_t count;
};

struct lane;

/* An event that has not been dealt with. */
struct item {
    struct item *older, *newer; /* the window's, or the replay's, order */
    struct item_list *in;       /* the one list of these that it is in; NULL: it waits in its lane */
    struct item *prev, *next;
    struct item *hash_next;
    struct lane *lane; /* pinned strategies only */
    struct item *lane_prev, *lane_next;
    struct group_event *content;
    deed_uuid id;
    uint64_t number;    /* revision, or position: as checkpoints count */
    uint64_t before;    /* of what was read before it; DEED_NONE: nothing was */
    uint64_t parked_at; /* it comes from the parked stream, from there; else DEED_NONE */
    uint64_t since_ns;  /* ticks: when it was given to its consumer */
    struct group_consumer *holder;
    uint64_t holder_number; /* whom it was with last; 0: nobody */
    uint32_t deliveries, failures;
    enum item_state state;
    bool again; /* it was with a consumer, or comes from the parked stream */
    char *reason;
};

/* The events of one stream (or correlation), in order. */
struct lane {
    struct lane *hash_next;
    struct lane *ready_prev, *ready_next;
    struct item *first, *last;
    struct item *fresh; /* the first one that was never with anybody */
    size_t out, again;  /* of its items */
    size_t boxed;       /* of those out, the ones that nobody took yet */
    struct group_consumer *consumer;
    uint64_t hash;
    bool ready; /* in its consumer's list */
    size_t key_size;
    char key[];
};

struct group_consumer {
    struct group *group;
    struct group_consumer_options options;
    char *from, *user, *name;
    uint64_t number; /* never given twice */
    struct item_list outbox, taken;
    size_t wanted;    /* on demand: so many it asks for now, with those in its outbox */
    bool dropped;
    uint64_t asked_ns; /* on demand: when it was heard of last */
    struct lane *ready_first, *ready_last;
    uint64_t total, since_measurement, per_second;
    uint32_t latencies_us[GROUP_LATENCIES];
    uint64_t latency_count;
};

static inline size_t consumer_held(const struct group_consumer *c)
{
    return c->outbox.count + c->taken.count;
}

/* What is being written to the log for a group. */
struct group_write {
    enum { WRITE_NONE, WRITE_PENDING, WRITE_DONE, WRITE_FAILED } state;
    struct arena arena;
    struct deed_append append;
    struct deed_new_event events[GROUP_PARK_MAX + 2];
    struct item_list parked; /* what it parks */
    bool has_checkpoint, has_truncate;
    uint64_t checkpoint, truncate, done_count;
    struct deed_error err;
};

struct group {
    struct groups *groups;
    _Atomic uint32_t holds;
    struct os_mutex lock;
    struct os_cond written; /* a write is over */
    deed_str source, name;  /* and what follows from them; unchanging */
    deed_str checkpoint_stream, parked_stream;
    bool is_all;
    struct arena names;

    struct group_settings settings; /* its filter never changes */
    uint64_t begin; /* the first number to deliver when there is no checkpoint; positions are from 1 */
    bool removed;   /* deleted: nothing more is written */

    /* window.c */
    struct item *oldest, *newest;               /* read from the source */
    struct item *replay_oldest, *replay_newest; /* from the parked stream */
    struct item_list retry, fresh; /* unpinned: who waits; retries go first */
    struct item_list parking;
    struct item **ids;
    size_t id_room, item_count;
    struct lane **lanes;
    size_t lane_room, lane_count;
    size_t waiting;     /* items with nobody */
    size_t again_count; /* of them, those that were with somebody */
    size_t out;
    uint64_t bytes;
    struct group_consumer **consumers;
    size_t consumer_count, consumer_room, turn;
    size_t free_slots;
    uint64_t consumer_number;

    /* feed.c */
    uint64_t generation; /* of the window: what a step read for an older one is thrown away */
    uint64_t read_number; /* examined up to here; DEED_NONE: nothing yet */
    bool live;            /* the cursor was at the end */
    bool wants_room;      /* there is more to read, when there is room for it */
    struct deed_cursor *cursor; /* the actor's alone, and these */
    uint64_t cursor_generation;
    void *match;
    bool is_match_open;
    uint64_t retry_at_ns; /* ticks: after a failure */
    char trouble[DEED_MESSAGE_SIZE];
    bool replaying;
    uint64_t replay_next, replay_stop; /* in the parked stream */
    uint64_t truncated;                /* its $tb, as far as known */

    /* durable.c */
    struct group_write write;
    uint64_t saved; /* the checkpoint in the log; DEED_NONE: none */
    uint64_t done_since_saved, saved_at_ns;
    uint64_t write_again_ns; /* ticks: not before, after a failure */
    char write_trouble[DEED_MESSAGE_SIZE];

    /* statistics */
    uint64_t ticked_ns, total, since_measurement, per_second;
};

struct groups {
    struct store *store;
    struct os *os;
    struct groups_options options;
    struct os_mutex admin; /* one change of settings at a time; taken first */
    struct os_mutex lock;  /* the list */
    struct group **list;
    size_t count, room;
    struct actor *actor;
    struct store_watch watch;
    _Atomic bool closing; /* no write begins */
    _Atomic uint32_t consumers; /* in all: without any there is nothing to read */
    _Atomic uint64_t bytes;     /* of all windows */
};

static inline uint64_t group_now(const struct group *g)
{
    return os_ticks_ns(g->groups->os);
}

/* ---- window.c: all with the lock held -------------------------------------------------------- */

void item_list_push(struct item_list *list, struct item *item);
struct item *item_list_pop(struct item_list *list);

/* Add what was read; takes the content over. false: no memory, and nothing was added. */
DEED_MUST_CHECK bool window_add(struct group *g, struct group_event *content, uint64_t number,
                                uint64_t before, uint64_t parked_at);
/* Everything but what is with consumers' callers is forgotten, and the consumers let go of theirs. */
void window_clear(struct group *g);
/* Give what waits to who has room. */
void window_dispatch(struct group *g);
/* The item that a consumer means by an id; NULL: none. */
struct item *window_find(struct group *g, const struct group_consumer *c, deed_uuid id);
/* The next one of the consumer's outbox, of which there is one, is with its user now. */
struct item *window_take(struct group_consumer *c, uint64_t now_ns);
void window_done(struct group *g, struct item *item);
/* Back to those that wait. `failed`: counts, and parks it if that was too often. */
void window_return(struct group *g, struct item *item, bool failed, deed_str why);
void window_park(struct group *g, struct item *item, deed_str reason);
/* The checkpoint: everything up to here has been dealt with. DEED_NONE: nothing. */
uint64_t window_checkpoint(const struct group *g);
/* Give back what was out for too long. */
void window_expire(struct group *g, uint64_t now_ns);
DEED_MUST_CHECK bool window_join(struct group *g, struct group_consumer *c);
void window_leave(struct group *g, struct group_consumer *c);
void window_want(struct group *g, struct group_consumer *c, size_t count);

/* ---- feed.c: the actor, without the lock ------------------------------------------------------ */

/* Read a batch if there is room. true: there may be more at once. */
bool feed_step(struct group *g);
/* How many may wait. The lock is held. */
size_t feed_capacity(const struct group *g);
/* Does it hold, or do all together hold, as much as they may? */
static inline bool feed_is_heavy(const struct group *g)
{
    uint64_t most = g->groups->options.bytes_max;
    uint64_t all = atomic_load_explicit(&g->groups->bytes, memory_order_relaxed);
    return g->bytes >= most / 8 || (g->bytes > 0 && all >= most);
}
/* What has been read when there is no checkpoint yet. */
static inline uint64_t group_initial(const struct group *g)
{
    uint64_t first = g->is_all ? 1 : 0;
    return g->begin <= first ? DEED_NONE : g->begin - 1;
}
static inline uint64_t group_saved(const struct group *g)
{
    return g->saved != DEED_NONE ? g->saved : group_initial(g);
}
void feed_close(struct group *g);
/* Is the filter good? */
DEED_MUST_CHECK deed_status feed_check_filter(struct groups *groups, deed_str filter,
                                              struct deed_error *err);
/* The event that a parked link points to; `call` gets it. DEED_NOT_FOUND: not there any more. */
DEED_MUST_CHECK deed_status feed_resolve(struct groups *groups, deed_bytes link_data, bool links,
                                         struct group_event **out_content, struct deed_error *err);

/* ---- durable.c ---------------------------------------------------------------------------------- */

/* Begin to write what is due, or take note that it was written. The actor, without the lock. */
void durable_step(struct group *g);
/* Wait until nothing is being written; the lock is held, and let go of meanwhile. */
void durable_wait(struct group *g);
/* Write what a group wants kept, now. Nothing may be pending; without the lock. */
void durable_flush(struct group *g);
/* Replace the groups' settings in the log by those in the list, but for `without`, and with `with`
 * (may be NULL; it gets its checkpoint at `begin` too). */
DEED_MUST_CHECK deed_status durable_save(struct groups *groups, const struct group *without,
                                         const struct group *with, struct deed_error *err);
DEED_MUST_CHECK deed_status durable_load(struct groups *groups, struct deed_error *err);
/* How far a group has come, and what of its parked stream is gone. */
DEED_MUST_CHECK deed_status durable_load_group(struct group *g, struct deed_error *err);
/* With the lock: time alone may make a write due. */
bool durable_waits(const struct group *g);
/* The number behind the last event that a stream ever had. */
DEED_MUST_CHECK deed_status durable_stream_end(struct groups *groups, deed_str stream,
                                               uint64_t *out_end, struct deed_error *err);
/* Set the parked stream's $tb. Waits. */
DEED_MUST_CHECK deed_status durable_truncate(struct group *g, uint64_t before,
                                             struct deed_error *err);

/* ---- settings.c ----------------------------------------------------------------------------------- */

DEED_MUST_CHECK deed_status settings_check(struct groups *groups, bool is_all,
                                           const struct group_settings *settings,
                                           struct deed_error *err);
void settings_write(const struct group *g, struct json_writer *w);
/* Make the groups that the JSON lists. DEED_CORRUPT: it is malformed. */
DEED_MUST_CHECK deed_status settings_load(struct groups *groups, deed_bytes json,
                                          struct deed_error *err);

/* ---- telling.c ------------------------------------------------------------------------------------- */

DEED_MUST_CHECK deed_status group_tell(struct group *g, struct arena *arena,
                                       struct group_info *out, struct deed_error *err);

/* ---- groups.c --------------------------------------------------------------------------------------- */

/* Settings are copied. One hold is the caller's. */
DEED_MUST_CHECK deed_status group_create(struct groups *groups, deed_str source, deed_str name,
                                         const struct group_settings *settings,
                                         struct group **out_group, struct deed_error *err);
DEED_MUST_CHECK deed_status group_set(struct group *g, const struct group_settings *settings,
                                      struct deed_error *err);
void group_release(struct group *g);
DEED_MUST_CHECK deed_status groups_insert(struct groups *groups, struct group *g,
                                          struct deed_error *err);

#endif
