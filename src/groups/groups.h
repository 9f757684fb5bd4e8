/* groups.h - consumer groups: many consumers share the events of a stream, or of the log.
 *
 *     groups_open(store, NULL, &groups, &err);
 *     groups_create(groups, DEED_STR("order-1"), DEED_STR("mailer"), &settings, &err);
 *     groups_join(groups, DEED_STR("order-1"), DEED_STR("mailer"), &options, &consumer, &err);
 *     while (groups_take(consumer, messages, 16, SIZE_MAX, &count, &err) == DEED_OK) {
 *         … groups_ack(consumer, …);
 *     }
 *     groups_leave(consumer);
 *
 * Each event goes to one consumer of the group, which acknowledges it; one that is not acknowledged
 * in time, or is given back, or whose consumer left, is delivered again. Delivery is at least once:
 * what was not acknowledged before a crash comes again after it. What fails too often is parked:
 * kept aside in a stream of its own, to be looked at, replayed or dropped.
 *
 * The group's state is in the log: its settings, how far it has come, what was parked
 * (docs/format/groups.md). KurrentDB calls a group a persistent subscription.
 *
 * Every function may be called from any thread. None but groups_open, groups_close, and those that
 * are said to wait, touches the disk: an actor does (or, without threads, whoever calls groups_step).
 */
#ifndef GROUPS_GROUPS_H
#define GROUPS_GROUPS_H

#include "base/arena.h"
#include "base/error.h"
#include "json/json.h"
#include "os/thread.h"

struct store;
struct groups;
struct group_consumer;

/* The source that is the whole log. Every other is a stream's name. */
#define GROUPS_ALL "$all"

/* Which consumer gets an event. */
#define GROUP_STRATEGY_MAP(X)                                                                      \
    X(GROUP_DISPATCH_TO_SINGLE, "DispatchToSingle") /* the one that joined first and has room */   \
    X(GROUP_ROUND_ROBIN, "RoundRobin")              /* the next one that has room */               \
    /* The one that the event's stream belongs to: each stream in order. */                        \
    X(GROUP_PINNED, "Pinned")                                                                      \
    /* The same by correlation id, or by stream if it has none. */                                 \
    X(GROUP_PINNED_BY_CORRELATION, "PinnedByCorrelation")

enum group_strategy {
#define GROUP_STRATEGY_ENUM(name, text) name,
    GROUP_STRATEGY_MAP(GROUP_STRATEGY_ENUM)
#undef GROUP_STRATEGY_ENUM
        GROUP_STRATEGY_COUNT
};
const char *group_strategy_name(enum group_strategy strategy);
bool group_strategy_parse(deed_str name, enum group_strategy *out);

enum group_start {
    GROUP_FROM_START,
    GROUP_FROM_END, /* only what is committed after the group was created */
    GROUP_FROM,     /* `from` is the first event to deliver: a revision, or a position */
};

struct group_settings {
    enum group_start start;
    uint64_t from;
    enum group_strategy strategy;
    bool resolve_links;    /* of a $> link deliver what it points to */
    bool extra_statistics; /* measure how long consumers take */
    uint32_t message_timeout_ms; /* not acknowledged for so long: delivered again; 0: never */
    uint32_t retry_count_max;    /* failed more often than this: parked */
    uint32_t checkpoint_after_ms; /* progress is saved so often, if there is enough of it; 0: not by
                                   * time */
    uint32_t checkpoint_count_min, checkpoint_count_max; /* events; max 0: no limit */
    uint32_t consumer_count_max;                         /* 0: no limit */
    /* Events held in memory: while following, while catching up; read at a time. */
    uint32_t live_buffer_size, history_buffer_size, read_batch_size;
    /* Of the log alone, JSON: {"types": […], "tags": […], "categories": […], "system": bool,
     * "match": …}, all optional: any of the types, all of the tags, any of the categories; streams
     * whose name begins with '$' only with "system"; "match" is for the one who opened (see
     * groups_options). ptr NULL: all of users' events. */
    deed_str filter;
};
/* Those of them that are numbers: their names here and in JSON. */
#define GROUP_SETTINGS_NUMBERS(X)                                                                  \
    X(message_timeout_ms)                                                                          \
    X(retry_count_max)                                                                             \
    X(checkpoint_after_ms)                                                                         \
    X(checkpoint_count_min)                                                                        \
    X(checkpoint_count_max)                                                                        \
    X(consumer_count_max)                                                                          \
    X(live_buffer_size)                                                                            \
    X(history_buffer_size)                                                                         \
    X(read_batch_size)
/* What KurrentDB's clients send by default. */
void group_settings_default(struct group_settings *out);
/* As members of an object, which is open: "start", "strategy", and so on. */
void group_settings_put(const struct group_settings *settings, struct json_writer *w);
enum group_member { GROUP_MEMBER_SET, GROUP_MEMBER_WRONG, GROUP_MEMBER_UNKNOWN };
/* The other way, a member at a time. WRONG: it cannot be this value. The filter is borrowed. */
enum group_member group_settings_set(struct group_settings *settings, deed_str key,
                                     json_value value);
/* Would an update change nothing? It leaves the filter. */
bool group_settings_same(const struct group_settings *a, const struct group_settings *b);

struct groups_options {
    bool no_threads; /* the caller repeats groups_step: the simulator */
    /* Content that all groups hold in memory together; 0: 256 MiB. Past it a group reads only when it
     * holds nothing, and no group reads while it holds an eighth. */
    uint64_t bytes_max;
    /* A filter's "match": make it (DEED_INVALID: it is malformed), ask it, free it. It is asked by one
     * thread at a time. NULL: "match" is refused. */
    deed_status (*match_open)(void *context, deed_str json, void **out_match,
                              struct deed_error *err);
    deed_status (*match_wants)(void *match, const struct deed_event *event, bool *out_wants,
                               struct deed_error *err);
    void (*match_close)(void *match);
    void *context;
};

/* Load the groups that the log knows of; what others wrote in its place is passed over. The store must
 * outlive them.
 *
 *   DEED_NO_MEMORY, DEED_IO, DEED_CORRUPT */
DEED_MUST_CHECK deed_status groups_open(struct store *store, const struct groups_options *options,
                                        struct groups **out_groups, struct deed_error *err);
/* Save each group's progress. All consumers must have left. Accepts NULL. */
void groups_close(struct groups *groups);

/* Do what there is to do now: without threads. An actor_step. */
uint64_t groups_step(void *groups);

/* Streams that hold groups' state: of no interest to who reads the log. */
bool groups_owns(deed_str stream);

/* ---- care: these wait for the disk ------------------------------------------------------------ */

/*   DEED_CONFLICT   there is one of this name on this source.
 *   DEED_INVALID    settings that contradict each other, or a filter that is malformed.
 *   DEED_TOO_LARGE  the names are, together.
 *   and what store_append returns. */
DEED_MUST_CHECK deed_status groups_create(struct groups *groups, deed_str source, deed_str name,
                                          const struct group_settings *settings,
                                          struct deed_error *err);
/* Replace the settings, but not the filter; and drop the consumers, who may join again. The group
 * goes on where it is; another `start` counts only if it has not got anywhere yet. DEED_NOT_FOUND. */
DEED_MUST_CHECK deed_status groups_update(struct groups *groups, deed_str source, deed_str name,
                                          const struct group_settings *settings,
                                          struct deed_error *err);
/* Drop the consumers, forget progress and what is parked. DEED_NOT_FOUND. */
DEED_MUST_CHECK deed_status groups_delete(struct groups *groups, deed_str source, deed_str name,
                                          struct deed_error *err);
/* Deliver what is parked once more, up to (excluding) the parked event `stop_at`; DEED_NONE: all. Each
 * leaves the parked ones when it has been dealt with. `out_count` may be NULL.
 *
 *   DEED_NOT_FOUND  no such group. DEED_BUSY: an earlier replay is not over. */
DEED_MUST_CHECK deed_status groups_replay_parked(struct groups *groups, deed_str source,
                                                 deed_str name, uint64_t stop_at,
                                                 uint64_t *out_count, struct deed_error *err);
/* Drop the parked ones up to (excluding) `stop_at`; DEED_NONE: all. */
DEED_MUST_CHECK deed_status groups_drop_parked(struct groups *groups, deed_str source,
                                               deed_str name, uint64_t stop_at,
                                               uint64_t *out_count, struct deed_error *err);

struct group_parked {
    uint64_t number; /* in the list of parked ones: grows, with gaps */
    deed_str stream; /* the event, or the link that was delivered */
    uint64_t revision;
    deed_str reason, added; /* why and when */
    const struct deed_event *event; /* NULL: it is not stored any more */
};
/* Call `each` for the parked events from `from` on, until it returns false. All is valid during the
 * call only. DEED_NOT_FOUND: no such group. DEED_IO, DEED_CORRUPT, DEED_NO_MEMORY */
DEED_MUST_CHECK deed_status groups_parked(struct groups *groups, deed_str source, deed_str name,
                                          uint64_t from,
                                          bool (*each)(void *context, const struct group_parked *),
                                          void *context, struct deed_error *err);
/* Drop all consumers of all groups; each group goes on where it was. */
void groups_restart(struct groups *groups);

/* ---- telling ----------------------------------------------------------------------------------- */

struct group_measurement {
    const char *key;
    int64_t value; /* milliseconds, or a count */
};
#define GROUP_MEASUREMENTS 15

struct group_consumer_info {
    deed_str from, user, name;
    uint64_t total, since_measurement; /* events delivered */
    uint32_t per_second;
    uint32_t free_slots, in_flight;
    struct group_measurement measured[GROUP_MEASUREMENTS];
    size_t measured_count; /* 0: not asked for */
};

struct group_info {
    deed_str source, name;
    struct group_settings settings;
    const char *status; /* "Live", "Behind", "NotReady" */
    deed_str trouble;   /* why it does not go on; empty: it does */
    uint64_t checkpoint; /* saved: a revision or position; DEED_NONE: none yet */
    uint64_t last_known; /* of the source's newest event; DEED_NONE: none */
    uint64_t total, since_measurement;
    uint32_t per_second;
    uint64_t waiting_count, retry_count, in_flight_count, outstanding_count;
    uint64_t parked_count;
    bool is_replaying, live;
    const struct group_consumer_info *consumers;
    size_t consumer_count;
};
/* All of it is in the arena. DEED_NOT_FOUND. Reads the index. */
DEED_MUST_CHECK deed_status groups_info(struct groups *groups, deed_str source, deed_str name,
                                        struct arena *arena, struct group_info *out,
                                        struct deed_error *err);
/* Those of one source, or all (ptr NULL), by source and name. */
DEED_MUST_CHECK deed_status groups_list(struct groups *groups, deed_str source,
                                        struct arena *arena, struct group_info **out,
                                        size_t *out_count, struct deed_error *err);

/* ---- consuming ----------------------------------------------------------------------------------- */

struct group_consumer_options {
    uint32_t buffer_size; /* so many are with the consumer, not acknowledged; 1 to 65,536 */
    /* There is something to take, or the consumer was dropped. From any thread, inside the group's
     * lock: it must not call back. Not after groups_leave has returned. NULL: the caller asks. */
    void (*wake)(void *context);
    void *context;
    /* It is given something only while it wants it (groups_want): for who asks now and then. One that has
     * nothing and wants nothing for half a minute is dropped. */
    bool on_demand;
    deed_str from, user, name; /* for groups_info; copied */
};
/*   DEED_NOT_FOUND  no such group. DEED_BUSY: it has as many consumers as it may have. */
DEED_MUST_CHECK deed_status groups_join(struct groups *groups, deed_str source, deed_str name,
                                        const struct group_consumer_options *options,
                                        struct group_consumer **out_consumer,
                                        struct deed_error *err);
/* What it held goes to the others. Accepts NULL. */
void groups_leave(struct group_consumer *consumer);

/* On demand: take so many, from now on. 0: none; what was not taken goes to others. */
void groups_want(struct group_consumer *consumer, size_t count);

/* Was it dropped? Then it is of no more use. */
bool groups_dropped(struct group_consumer *consumer);

struct group_event; /* shared by all who look at it */
struct group_message {
    deed_uuid id; /* to acknowledge by: the link's, if it is one, else the event's */
    const struct deed_event *event; /* NULL: what the link points to is not there any more */
    const struct deed_event *link;  /* NULL: it did not come by a link */
    uint32_t retry_count;           /* how often it was delivered before */
    struct group_event *content;    /* private; hold until group_message_done */
};
/* Take up to `count_max` messages, and no more once they have `size_wanted` bytes. None: no more now;
 * `wake` tells.
 *
 *   DEED_STOPPED  the consumer was dropped (the group was changed or deleted): leave. */
DEED_MUST_CHECK deed_status groups_take(struct group_consumer *consumer,
                                        struct group_message *messages, size_t count_max,
                                        size_t size_wanted, size_t *out_count,
                                        struct deed_error *err);
void group_message_done(struct group_message *message);

/* They have been dealt with. Ids that this consumer does not hold are passed over; what timed out
 * and is with nobody else yet counts. Answers how many it was. */
size_t groups_ack(struct group_consumer *consumer, const deed_uuid *ids, size_t count);

enum group_nack {
    GROUP_NACK_UNKNOWN, /* as RETRY */
    GROUP_NACK_PARK,    /* keep it aside */
    GROUP_NACK_RETRY,   /* deliver it again; parked if that was too often */
    GROUP_NACK_SKIP,    /* as if it were acknowledged */
    GROUP_NACK_STOP,    /* nothing: it is delivered again when the consumer has left, or in time */
};
/* They have not been dealt with. The reason is kept with what is parked (up to 1,024 bytes). */
size_t groups_nack(struct group_consumer *consumer, const deed_uuid *ids, size_t count,
                   enum group_nack action, deed_str reason);

/* The same for who is not the consumer but knows its name: each of the group's consumers of that name is
 * asked. DEED_NOT_FOUND: no such group. */
DEED_MUST_CHECK deed_status groups_ack_by_name(struct groups *groups, deed_str source,
                                               deed_str name, deed_str consumer,
                                               const deed_uuid *ids, size_t count,
                                               size_t *out_done, struct deed_error *err);
DEED_MUST_CHECK deed_status groups_nack_by_name(struct groups *groups, deed_str source,
                                                deed_str name, deed_str consumer,
                                                const deed_uuid *ids, size_t count,
                                                enum group_nack action, deed_str reason,
                                                size_t *out_done, struct deed_error *err);

#endif
