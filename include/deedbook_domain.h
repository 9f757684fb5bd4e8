/* deedbook_domain.h - how to write a domain: what your commands mean, and what your events change.
 *
 * A domain is plain structs, plain functions and tables. The structs describe themselves, so that
 * JSON comes in and goes out without you; memory comes from the runtime and is given back by it.
 * All of a small one:
 *
 *     #include <deedbook_domain.h>
 *
 *     // The aggregate's state: all zero before its first event.
 *     DEED_STRUCT(account, DEED_TEXT(owner), DEED_INT(balance_cents));
 *
 *     // Events: what happened. An evolve function says how one changes the state.
 *     DEED_STRUCT(AccountOpened, DEED_TEXT(account_id), DEED_TEXT(owner));
 *     DEED_STRUCT(MoneyPaidOut, DEED_TEXT(account_id), DEED_INT(cents), DEED_INT(balance_cents));
 *
 *     DEED_EVOLVE(AccountOpened, account, event)
 *     {
 *         account->owner = event->owner;
 *     }
 *     DEED_EVOLVE(MoneyPaidOut, account, event)
 *     {
 *         account->balance_cents = event->balance_cents;
 *     }
 *
 *     // Commands: what somebody wants. A decide function says what happens then, or why not.
 *     DEED_STRUCT(OpenAccount, DEED_TEXT(account_id), DEED_TEXT(owner, DEED_NOT_EMPTY));
 *     DEED_STRUCT(PayOut, DEED_TEXT(account_id), DEED_INT(cents, DEED_MIN(1)));
 *
 *     DEED_DECIDE(OpenAccount, account, command)
 *     {
 *         return DEED_EMIT(AccountOpened, .account_id = command->account_id,
 *                          .owner = command->owner);
 *     }
 *     DEED_DECIDE(PayOut, account, command)
 *     {
 *         DEED_REJECT_IF(account->balance_cents < command->cents, "balance_too_low",
 *                        "the balance is %lld cents", (long long)account->balance_cents);
 *         return DEED_EMIT(MoneyPaidOut, .account_id = command->account_id,
 *                          .cents = command->cents,
 *                          .balance_cents = account->balance_cents - command->cents);
 *     }
 *
 *     static const struct deed_event_type account_events[] = {
 *         DEED_EVENT(AccountOpened),
 *         DEED_EVENT(MoneyPaidOut),
 *     };
 *     static const struct deed_command_type account_commands[] = {
 *         DEED_COMMAND(OpenAccount, account_id, DEED_MUST_NOT_EXIST),
 *         DEED_COMMAND(PayOut, account_id, DEED_MUST_EXIST),
 *     };
 *     static const struct deed_aggregate bank_aggregates[] = {
 *         DEED_AGGREGATE("account", account, account_events, account_commands),
 *     };
 *     DEED_EXPORT_DOMAIN("bank", bank_aggregates);
 *
 * Build it as a shared object; it needs no library:
 *
 *     cc -std=c17 -O2 -fPIC -shared -o bank.so bank.c
 *
 * Rules of the house
 *
 * - decide reads, and emits events; only evolve changes the state. Both depend on nothing but their
 *   arguments and `ctx`: no clock, no files, no static variables. The same command may be decided
 *   more than once (when another writer was faster), and the same events are folded again and
 *   again.
 * - Slices, lists and pointers that you store in the state or in an event may point into the
 *   command, the event, the old state or a literal: the runtime copies what it keeps.
 * - Your code runs on one thread. A crash, an endless loop or too much memory costs the command
 *   DEED_DOMAIN and nothing else, when the domain runs in a worker (`deedbook serve` does that).
 *
 * docs/domain.md has more, and how to test a domain. */
#ifndef DEEDBOOK_DOMAIN_H
#define DEEDBOOK_DOMAIN_H

#include "deedbook.h"

#include <stdarg.h>

/* ---- 1. Structs that describe themselves ---------------------------------------------------- */

/* DEED_STRUCT(name, fields…) makes `struct name`, its description `deed_type_name`, and the
 * containers `struct name_list` and `struct name_map`. What a field is in the struct:
 *
 *   DEED_TEXT(m)            deed_str m            any text
 *   DEED_DATE(m)            deed_str m            "2026-11-23", a day that exists
 *   DEED_TIME(m)            deed_str m            RFC 3339: "2026-11-23T04:07:09Z"
 *   DEED_UUID(m)            deed_str m            36 characters
 *   DEED_JSON(m)            deed_str m            any JSON, as its text
 *   DEED_INT(m)             int64_t m             an integer
 *   DEED_DOUBLE(m)          double m              a number
 *   DEED_BOOL(m)            bool m
 *   DEED_OPTIONAL_INT(m)    struct { bool has; int64_t value; } m, and so on for
 *   DEED_OPTIONAL_DOUBLE(m), DEED_OPTIONAL_BOOL(m)
 *   DEED_OBJECT(m, name)    struct name m         an object
 *   DEED_OPTIONAL_OBJECT(m, name)  const struct name *m, NULL if there is none
 *   DEED_LIST(m, name)      struct name_list m    a list of objects: items, count
 *   DEED_TEXTS(m)           struct deed_texts m   a list of texts: items, count
 *   DEED_MAP(m, name)       struct name_map m     an object whose members are all of type `name`:
 *                                                 keys, values, count
 *
 * Behind the name, as many of these as you like:
 *
 *   DEED_OPTIONAL      text, date, time, uuid, JSON: may be null or absent, then ptr is NULL; list,
 *                      texts, map: then it is empty
 *   DEED_NOT_EMPTY     text: at least one byte; list, texts, map: at least one item
 *   DEED_SIZE_MAX(n)   text: at most n bytes; list, texts, map: at most n items
 *   DEED_MIN(n), DEED_MAX(n)   int, double: bounds, inclusive
 *   DEED_ONE_OF("a", "b")      text: one of these
 *   DEED_ABOUT("…")            a sentence for `deedbook model`
 *
 * How strict that is depends on where it stands. A *command* must fit exactly: what is missing,
 * of another kind, out of bounds or unknown is told to the caller by its path (DEED_INVALID), and
 * decide never sees it. An *event* that you emit must fit exactly too (otherwise DEED_DOMAIN: it is
 * a mistake of the domain). An event that is *read back* may be older than your code: unknown
 * members are ignored, missing ones are zero, empty or NULL, bounds are not checked; only another
 * kind of value is an error. So to change an event later, add members and treat zero as "not
 * known". A *state* is never checked. Whatever has no value is written as null. */
#define DEED_STRUCT(name_, ...)                                                                    \
    struct name_;                                                                                  \
    struct name_##_list {                                                                          \
        struct name_ *items;                                                                       \
        size_t count, room;                                                                        \
    };                                                                                             \
    struct name_##_map {                                                                           \
        deed_str *keys;                                                                            \
        struct name_ *values; /* values[i] belongs to keys[i], in order of insertion */            \
        size_t count, room;                                                                        \
        uint32_t *slots; /* the runtime's */                                                       \
        size_t slot_count;                                                                         \
    };                                                                                             \
    struct name_ {                                                                                 \
        DEED_EACH_(DEED_FIELD_DECLARE_, name_, __VA_ARGS__)                                        \
    };                                                                                             \
    __attribute__((unused)) static const struct deed_type deed_type_##name_ = {                    \
        .name = #name_,                                                                            \
        .size = sizeof(struct name_),                                                              \
        .fields = (const struct deed_field[]){DEED_EACH_(DEED_FIELD_DESCRIBE_, name_,              \
                                                         __VA_ARGS__){.name = NULL}},              \
    }

#define DEED_TEXT(m, ...)   (deed_str, m, DEED_KIND_TEXT, NULL, __VA_ARGS__)
#define DEED_DATE(m, ...)   (deed_str, m, DEED_KIND_DATE, NULL, __VA_ARGS__)
#define DEED_TIME(m, ...)   (deed_str, m, DEED_KIND_TIME, NULL, __VA_ARGS__)
#define DEED_UUID(m, ...)   (deed_str, m, DEED_KIND_UUID, NULL, __VA_ARGS__)
#define DEED_JSON(m, ...)   (deed_str, m, DEED_KIND_JSON, NULL, __VA_ARGS__)
#define DEED_INT(m, ...)    (int64_t, m, DEED_KIND_INT, NULL, __VA_ARGS__)
#define DEED_DOUBLE(m, ...) (double, m, DEED_KIND_DOUBLE, NULL, __VA_ARGS__)
#define DEED_BOOL(m, ...)   (bool, m, DEED_KIND_BOOL, NULL, __VA_ARGS__)
#define DEED_OPTIONAL_INT(m, ...)                                                                  \
    (struct deed_optional_int, m, DEED_KIND_OPTIONAL_INT, NULL, __VA_ARGS__)
#define DEED_OPTIONAL_DOUBLE(m, ...)                                                               \
    (struct deed_optional_double, m, DEED_KIND_OPTIONAL_DOUBLE, NULL, __VA_ARGS__)
#define DEED_OPTIONAL_BOOL(m, ...)                                                                 \
    (struct deed_optional_bool, m, DEED_KIND_OPTIONAL_BOOL, NULL, __VA_ARGS__)
#define DEED_OBJECT(m, of_, ...) (struct of_, m, DEED_KIND_OBJECT, &deed_type_##of_, __VA_ARGS__)
#define DEED_OPTIONAL_OBJECT(m, of_, ...)                                                          \
    (const struct of_ *, m, DEED_KIND_OPTIONAL_OBJECT, &deed_type_##of_, __VA_ARGS__)
#define DEED_LIST(m, of_, ...) (struct of_##_list, m, DEED_KIND_LIST, &deed_type_##of_, __VA_ARGS__)
#define DEED_TEXTS(m, ...)     (struct deed_texts, m, DEED_KIND_TEXTS, NULL, __VA_ARGS__)
#define DEED_MAP(m, of_, ...)  (struct of_##_map, m, DEED_KIND_MAP, &deed_type_##of_, __VA_ARGS__)

#define DEED_OPTIONAL    .optional = true
#define DEED_NOT_EMPTY   .size_min = 1
#define DEED_SIZE_MAX(n) .size_max = (n)
#define DEED_MIN(n)      .has_min = true, .min = (n)
#define DEED_MAX(n)      .has_max = true, .max = (n)
#define DEED_ONE_OF(...) .one_of = (const char *const[]){__VA_ARGS__, NULL}
#define DEED_ABOUT(text) .about = (text)

struct deed_optional_int {
    bool has;
    int64_t value;
};
struct deed_optional_double {
    bool has;
    double value;
};
struct deed_optional_bool {
    bool has, value;
};
struct deed_texts {
    deed_str *items;
    size_t count, room;
};

enum deed_kind {
    DEED_KIND_TEXT = 1,
    DEED_KIND_DATE,
    DEED_KIND_TIME,
    DEED_KIND_UUID,
    DEED_KIND_JSON,
    DEED_KIND_INT,
    DEED_KIND_DOUBLE,
    DEED_KIND_BOOL,
    DEED_KIND_OPTIONAL_INT,
    DEED_KIND_OPTIONAL_DOUBLE,
    DEED_KIND_OPTIONAL_BOOL,
    DEED_KIND_OBJECT,
    DEED_KIND_OPTIONAL_OBJECT,
    DEED_KIND_LIST,
    DEED_KIND_TEXTS,
    DEED_KIND_MAP,
};

/* What DEED_STRUCT writes. */
struct deed_field {
    const char *name; /* NULL ends the table */
    enum deed_kind kind;
    size_t offset;
    const struct deed_type *of; /* of an object, of the items of a list or map */
    bool optional, has_min, has_max;
    int64_t min, max;
    size_t size_min, size_max; /* 0: no bound */
    const char *const *one_of; /* NULL, or ended by NULL */
    const char *about;
};
struct deed_type {
    const char *name;
    size_t size;
    const struct deed_field *fields;
};

/* ---- 2. Deciding and evolving --------------------------------------------------------------- */

/* Where a function is called. Read what you like. */
struct deed_context {
    const struct deed_context_ops *ops; /* the runtime's */
    deed_str stream;                    /* "account-77" */
    deed_str id;                        /* "77" */
    bool exists;                        /* the aggregate has events */
    uint64_t revision;                  /* of the last one, or DEED_NONE */
    /* decide: now, which is also the time of the events it emits. evolve: when the event happened.
     * Nanoseconds since 1970, UTC. */
    int64_t time_ns;
    deed_str actor; /* who wants it, or who did it; may be empty */
};

/* What decide returns: what deed_emit, deed_accept and deed_reject gave. */
typedef enum { DEED_ACCEPTED = 0, DEED_REFUSED = 1 } deed_decision;

/* DEED_EVOLVE(Event, state, event) { … } - apply one event.
 *
 *     struct deed_context *ctx, struct state *state, const struct Event *event              */
#define DEED_EVOLVE(event_type_, state_, event_)                                                   \
    static void deed_evolve_body_##event_type_(struct deed_context *ctx, struct state_ *state_,    \
                                               const struct event_type_ *event_);                  \
    static void deed_evolve_##event_type_(struct deed_context *ctx, void *state, const void *event) \
    {                                                                                              \
        deed_evolve_body_##event_type_(ctx, (struct state_ *)state,                                \
                                       (const struct event_type_ *)event);                         \
    }                                                                                              \
    static const struct deed_evolver deed_evolver_##event_type_ = {                                \
        &deed_type_##state_, &deed_type_##event_type_, deed_evolve_##event_type_};                 \
    static void deed_evolve_body_##event_type_(                                                    \
        __attribute__((unused)) struct deed_context *ctx,                                          \
        __attribute__((unused)) struct state_ *state_,                                             \
        __attribute__((unused)) const struct event_type_ *event_)

/* DEED_DECIDE(Command, state, command) { … return …; } - say what a command leads to.
 *
 *     struct deed_context *ctx, const struct state *state, const struct Command *command
 *
 * Each event that you emit is applied before deed_emit returns: from then on `state` shows it. So
 * a command that yields several events checks and emits one after the other. (Pointers that you
 * took into the state's lists still show what was there before.) A rejection takes back
 * everything that was emitted before it. */
#define DEED_DECIDE(command_type_, state_, command_)                                               \
    static deed_decision deed_decide_body_##command_type_(struct deed_context *ctx,                \
                                                          const struct state_ *state_,             \
                                                          const struct command_type_ *command_);   \
    static deed_decision deed_decide_##command_type_(struct deed_context *ctx, const void *state,  \
                                                     const void *command)                          \
    {                                                                                              \
        return deed_decide_body_##command_type_(ctx, (const struct state_ *)state,                 \
                                                (const struct command_type_ *)command);            \
    }                                                                                              \
    static const struct deed_decider deed_decider_##command_type_ = {                              \
        &deed_type_##state_, &deed_type_##command_type_, deed_decide_##command_type_};             \
    static deed_decision deed_decide_body_##command_type_(                                         \
        __attribute__((unused)) struct deed_context *ctx,                                          \
        __attribute__((unused)) const struct state_ *state_,                                       \
        __attribute__((unused)) const struct command_type_ *command_)

/* Emit an event, given its members. Inside functions that have a `ctx`. */
#define DEED_EMIT(event_type_, ...)                                                                \
    deed_emit(ctx, &deed_type_##event_type_, &(const struct event_type_){__VA_ARGS__})

/* Leave the function with a rejection if `condition` holds. Also in helpers of your own that
 * return a deed_decision. */
#define DEED_REJECT_IF(condition, code, ...)                                                       \
    do {                                                                                           \
        if (condition) return deed_reject(ctx, code, __VA_ARGS__);                                 \
    } while (0)

/* Call a helper that returns a deed_decision, and leave if it rejected. */
#define DEED_TRY(call)                                                                             \
    do {                                                                                           \
        if ((call) == DEED_REFUSED) return DEED_REFUSED;                                           \
    } while (0)

static inline deed_decision deed_emit(struct deed_context *ctx, const struct deed_type *type,
                                      const void *event);
/* Accept with what has been emitted so far, maybe nothing. */
static inline deed_decision deed_accept(struct deed_context *ctx);
/* Say no: `code` is for programs ("balance_too_low"), the message for people. */
DEED_PRINTF(3, 4)
static inline deed_decision deed_reject(struct deed_context *ctx, const char *code,
                                        const char *format, ...);

/* Memory for this call, zeroed; what the state or an event refers to is kept. Never NULL: past the
 * limit the call ends with DEED_DOMAIN. */
static inline void *deed_alloc(struct deed_context *ctx, size_t size);
/* printf into such memory. */
DEED_PRINTF(2, 3)
static inline deed_str deed_format(struct deed_context *ctx, const char *format, ...);
/* "2026-11-23": the day of ctx->time_ns, UTC. */
static inline deed_str deed_today(struct deed_context *ctx);
/* By bytes, as dates and times in UTC sort: negative, 0, positive. */
static inline int deed_compare(deed_str a, deed_str b);
/* A state that must not be: give up with DEED_DOMAIN and this message. Does not return. */
DEED_PRINTF(2, 3)
static inline void deed_panic(struct deed_context *ctx, const char *format, ...);

/* Lists (of a DEED_LIST or DEED_TEXTS): loop over items[0] to items[count - 1]. Pointers to items
 * are good until the next call that changes the list. `list` is evaluated more than once. */

/* A new item at the end, zeroed. → pointer to it */
#define deed_list_add(ctx, list)                                                                   \
    ((list)->items = deed_list_room_((ctx), (list)->items, (list)->count, &(list)->room,           \
                                     sizeof *(list)->items),                                       \
     &(list)->items[(list)->count++])
/* Take out item `index`; the later ones move up. */
#define deed_list_remove(list, index)                                                              \
    deed_list_cut_((list)->items, &(list)->count, (index), sizeof *(list)->items)

/* Maps (of a DEED_MAP): loop over keys and values as over lists, or: */

/* → pointer to the value, or NULL */
#define deed_map_get(ctx, map, key)                                                                \
    ((__typeof__((map)->values))deed_map_value_((ctx), (map)->values, sizeof *(map)->values,       \
                                                deed_map_index_((ctx), (map), (key))))
/* → pointer to the value, which is new and zeroed if the key was */
#define deed_map_put(ctx, map, key)                                                                \
    ((__typeof__((map)->values))(ctx)->ops->map_put((ctx), (map), sizeof *(map)->values, (key)))
/* → true if it was there; the later ones move up */
#define deed_map_remove(ctx, map, key)                                                             \
    ((ctx)->ops->map_remove((ctx), (map), sizeof *(map)->values, (key)))

/* ---- 3. The tables -------------------------------------------------------------------------- */

struct deed_evolver {
    const struct deed_type *state, *event;
    void (*evolve)(struct deed_context *ctx, void *state, const void *event);
};
struct deed_decider {
    const struct deed_type *state, *command;
    deed_decision (*decide)(struct deed_context *ctx, const void *state, const void *command);
};

/* DEED_EVENT(Type): an event with an evolve function. DEED_EVENT_ONLY(Type): one that changes no
 * state. Events of types that are not in the table do not count for the state. To store an event
 * under another name than the struct's: DEED_EVENT(OrderShipped, .stored_as = "order.shipped"). A
 * struct may stand in several rows, then its events are stored under the first row's name and
 * read under all of them: so a type is renamed. */
struct deed_event_type {
    const char *name, *stored_as; /* stored_as NULL: name */
    const struct deed_type *type;
    const struct deed_evolver *evolver; /* NULL: changes nothing */
    const char *about;
};
#define DEED_EVENT(type_, ...)                                                                     \
    {.name = #type_, .type = &deed_type_##type_, .evolver = &deed_evolver_##type_, __VA_ARGS__}
#define DEED_EVENT_ONLY(type_, ...) {.name = #type_, .type = &deed_type_##type_, __VA_ARGS__}

/* DEED_COMMAND(Type, id_member, options…): `id_member` is the text member of the command that
 * names the aggregate: its stream is "<category>-<id>". Options: one of these, to be answered by
 * the runtime with the rejection "<aggregate>_not_found" or "<aggregate>_exists" */
#define DEED_MUST_EXIST     .existence = DEED_EXISTENCE_REQUIRED
#define DEED_MUST_NOT_EXIST .existence = DEED_EXISTENCE_REFUSED
/* and DEED_ABOUT("…"). */
enum deed_existence {
    DEED_EXISTENCE_ANY,
    DEED_EXISTENCE_REQUIRED,
    DEED_EXISTENCE_REFUSED,
};
struct deed_command_type {
    const char *name;
    const struct deed_type *type;
    const struct deed_decider *decider;
    const char *id_member;
    size_t id_offset;
    enum deed_existence existence;
    const char *about;
};
#define DEED_COMMAND(type_, id_member_, ...)                                                       \
    {.name = #type_,                                                                               \
     .type = &deed_type_##type_,                                                                   \
     .decider = &deed_decider_##type_,                                                             \
     .id_member = #id_member_,                                                                     \
     .id_offset =                                                                                  \
         _Generic(((struct type_ *)0)->id_member_, deed_str: offsetof(struct type_, id_member_)),  \
     __VA_ARGS__}

/* DEED_AGGREGATE("order", state struct, events, commands): its streams are "order-<id>". */
struct deed_aggregate {
    const char *category; /* also its name */
    const struct deed_type *state;
    const struct deed_event_type *events;
    size_t event_count;
    const struct deed_command_type *commands;
    size_t command_count;
    const char *about;
};
#define DEED_AGGREGATE(category_, state_, events_, commands_, ...)                                 \
    {.category = (category_),                                                                      \
     .state = &deed_type_##state_,                                                                 \
     .events = (events_),                                                                          \
     .event_count = sizeof(events_) / sizeof *(events_),                                           \
     .commands = (commands_),                                                                      \
     .command_count = sizeof(commands_) / sizeof *(commands_),                                     \
     __VA_ARGS__}

struct deed_domain {
    uint32_t abi; /* DEED_DOMAIN_ABI */
    const char *name;
    const struct deed_aggregate *aggregates;
    size_t aggregate_count;
};

/* Grows whenever something above changes so that an older shared object would be misread. */
#define DEED_DOMAIN_ABI    1
#define DEED_DOMAIN_SYMBOL "deed_domain_v1"

/* For deed_use_domain: DEED_DOMAIN_OF("orders", aggregates) initialises a struct deed_domain. */
#define DEED_DOMAIN_OF(name_, aggregates_)                                                         \
    {.abi = DEED_DOMAIN_ABI,                                                                       \
     .name = (name_),                                                                              \
     .aggregates = (aggregates_),                                                                  \
     .aggregate_count = sizeof(aggregates_) / sizeof *(aggregates_)}
/* The one symbol of a domain in a shared object. */
#define DEED_EXPORT_DOMAIN(name_, aggregates_)                                                     \
    DEED_PUBLIC extern const struct deed_domain deed_domain_v1;                                    \
    const struct deed_domain deed_domain_v1 = DEED_DOMAIN_OF(name_, aggregates_)

/* ---- the runtime's side ---------------------------------------------------------------------- */

/* Domains call the runtime through this table, so a shared object has no undefined symbols. New
 * functions go to the end. */
struct deed_context_ops {
    void *(*alloc)(struct deed_context *ctx, size_t size);
    deed_str (*format)(struct deed_context *ctx, const char *format, va_list arguments);
    deed_str (*today)(struct deed_context *ctx);
    deed_decision (*emit)(struct deed_context *ctx, const struct deed_type *type,
                          const void *event);
    deed_decision (*reject)(struct deed_context *ctx, const char *code, const char *format,
                            va_list arguments);
    void (*panic)(struct deed_context *ctx, const char *format, va_list arguments);
    void *(*list_room)(struct deed_context *ctx, void *items, size_t count, size_t *room,
                       size_t item_size);
    size_t (*map_find)(struct deed_context *ctx, const void *map, deed_str key); /* or SIZE_MAX */
    void *(*map_put)(struct deed_context *ctx, void *map, size_t value_size, deed_str key);
    bool (*map_remove)(struct deed_context *ctx, void *map, size_t value_size, deed_str key);
};

static inline deed_decision deed_emit(struct deed_context *ctx, const struct deed_type *type,
                                      const void *event)
{
    return ctx->ops->emit(ctx, type, event);
}
static inline deed_decision deed_accept(struct deed_context *ctx)
{
    (void)ctx;
    return DEED_ACCEPTED;
}
static inline deed_decision deed_reject(struct deed_context *ctx, const char *code,
                                        const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    deed_decision decision = ctx->ops->reject(ctx, code, format, arguments);
    va_end(arguments);
    return decision;
}
static inline void *deed_alloc(struct deed_context *ctx, size_t size)
{
    return ctx->ops->alloc(ctx, size);
}
static inline deed_str deed_format(struct deed_context *ctx, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    deed_str text = ctx->ops->format(ctx, format, arguments);
    va_end(arguments);
    return text;
}
static inline deed_str deed_today(struct deed_context *ctx)
{
    return ctx->ops->today(ctx);
}
static inline int deed_compare(deed_str a, deed_str b)
{
    size_t shared = a.len < b.len ? a.len : b.len;
    int order = shared == 0 ? 0 : memcmp(a.ptr, b.ptr, shared);
    if (order != 0) return order;
    return a.len < b.len ? -1 : a.len > b.len ? 1 : 0;
}
static inline void deed_panic(struct deed_context *ctx, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    ctx->ops->panic(ctx, format, arguments);
    va_end(arguments);
}
static inline void *deed_list_room_(struct deed_context *ctx, void *items, size_t count,
                                    size_t *room, size_t item_size)
{
    items = count < *room ? items : ctx->ops->list_room(ctx, items, count, room, item_size);
    memset((char *)items + count * item_size, 0, item_size);
    return items;
}
static inline void deed_list_cut_(void *items, size_t *count, size_t index, size_t item_size)
{
    if (index >= *count) return;
    char *at = (char *)items + index * item_size;
    memmove(at, at + item_size, (*count - index - 1) * item_size);
    *count -= 1;
}
static inline size_t deed_map_index_(struct deed_context *ctx, const void *map, deed_str key)
{
    return ctx->ops->map_find(ctx, map, key);
}
static inline void *deed_map_value_(struct deed_context *ctx, void *values, size_t value_size,
                                    size_t index)
{
    (void)ctx;
    return index == SIZE_MAX ? NULL : (char *)values + index * value_size;
}

/* DEED_EACH_(macro, fixed, items…): macro(fixed, item) for each; up to 250 items. */
#define DEED_PARENS_       ()
#define DEED_EXPAND_(...)  DEED_EXPAND3_(DEED_EXPAND3_(DEED_EXPAND3_(DEED_EXPAND3_(__VA_ARGS__))))
#define DEED_EXPAND3_(...) DEED_EXPAND2_(DEED_EXPAND2_(DEED_EXPAND2_(DEED_EXPAND2_(__VA_ARGS__))))
#define DEED_EXPAND2_(...) DEED_EXPAND1_(DEED_EXPAND1_(DEED_EXPAND1_(DEED_EXPAND1_(__VA_ARGS__))))
#define DEED_EXPAND1_(...) DEED_EXPAND0_(DEED_EXPAND0_(DEED_EXPAND0_(DEED_EXPAND0_(__VA_ARGS__))))
#define DEED_EXPAND0_(...) __VA_ARGS__
#define DEED_EACH_(macro, fixed, ...)                                                              \
    __VA_OPT__(DEED_EXPAND_(DEED_EACH_STEP_(macro, fixed, __VA_ARGS__)))
#define DEED_EACH_STEP_(macro, fixed, item, ...)                                                   \
    macro(fixed, item) __VA_OPT__(DEED_EACH_AGAIN_ DEED_PARENS_(macro, fixed, __VA_ARGS__))
#define DEED_EACH_AGAIN_() DEED_EACH_STEP_

#define DEED_UNWRAP_(...)                             __VA_ARGS__
#define DEED_CALL_(macro, ...)                        macro(__VA_ARGS__)
#define DEED_FIELD_DECLARE_(name_, item)              DEED_CALL_(DEED_FIELD_MEMBER_, DEED_UNWRAP_ item)
#define DEED_FIELD_MEMBER_(c_type, member, ...)       c_type member;
#define DEED_FIELD_DESCRIBE_(name_, item)             DEED_CALL_(DEED_FIELD_ROW_, name_, DEED_UNWRAP_ item)
#define DEED_FIELD_ROW_(name_, c_type, member, kind_, of_, ...)                                    \
    {.name = #member,                                                                              \
     .kind = kind_,                                                                                \
     .offset = offsetof(struct name_, member),                                                     \
     .of = of_,                                                                                    \
     __VA_ARGS__},

#endif
