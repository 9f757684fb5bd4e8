/* runtime.c - runs a domain's functions: folds events, decides commands, keeps states.
 *
 *     slot "order-1"  ──► arena ──► struct order at revision 7      (least recently used goes first)
 *                                        │ decide: the author sees a view of it
 *                                        ▼
 *                              call arena ──► struct order at 7, then 8, 9 … as events are emitted
 *
 * (1) A slot changes only by folding stored events. What a command emits is folded onto a copy in
 *     the call's arena, which dies with the call: the store alone says what happened.
 * (2) The author's code gets memory from `memory`, the arena of what is being made: the slot's
 *     while folding, the call's while deciding.
 * (3) A slot's arena is copied to a fresh one when it has grown to several times the state's own
 *     size, so a state may refer to anything that was ever in its arena.
 * (4) Author's code is left by returning, or by `escape` from one of the functions it calls. It holds
 *     nothing that would have to be released. */
#include "domain/runtime.h"

#include "base/hash.h"
#include "base/text.h"
#include "base/timetext.h"
#include "domain/binding.h"

#include <assert.h>
#include <dlfcn.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>

#define SLOT_COUNT_MAX 10000
#define SLOT_SIZE_MAX  (UINT64_C(128) << 20)
#define CALL_SIZE_MAX  (UINT64_C(128) << 20)
#define JSON_STATE_MAX (UINT64_C(32) << 20)
#define JSON_DEPTH_MAX 64
#define MODEL_SIZE_MAX (UINT64_C(16) << 20)
/* A slot's arena is copied when it is past four times what it was after the last copy, and past
 * this: below, copying gains nothing. */
#define SLOT_COMPACT_SIZE (UINT64_C(64) << 10)

struct slot {
    deed_str key;
    uint64_t hash, revision; /* DEED_NONE: before the first event */
    const struct deed_aggregate *aggregate;
    void *state;
    struct arena arena;
    size_t compact_size;        /* the arena's size after the last copy */
    struct slot *chain;         /* in its bucket */
    struct slot *newer, *older; /* in order of use */
};

struct runtime {
    const struct deed_domain *domain;
    struct runtime_options options;
    struct slot **buckets; /* a power of two */
    size_t bucket_count;
    struct slot *newest, *oldest;
    uint32_t slot_count;
    uint64_t slot_size;
    struct arena call, scratch; /* one call's; one event's or one command's JSON */
    struct buf emitted, model;
};

/* One call of the author's code. `ctx` is first: the author's pointer is ours. */
struct call {
    struct deed_context ctx;
    struct runtime *runtime;
    const struct deed_aggregate *aggregate;
    struct arena *memory; /* (2) */
    jmp_buf escape;
    struct deed_error error; /* of an escape or a rejection */
    bool rejected, copied;
    void *view; /* decide: the state that the author sees */
    const struct deed_event_type **emitted_types;
    size_t *emitted_ends;
    size_t emitted_count, emitted_room;
};

static size_t clamp_size(uint64_t size)
{
    return size > SIZE_MAX / 2 ? SIZE_MAX / 2 : (size_t)size;
}

static const char *event_name(const struct deed_event_type *event)
{
    return event->stored_as != NULL ? event->stored_as : event->name;
}

/* Descriptions are static in each file that includes their header, so the same struct may have
 * several. */
static bool type_same(const struct deed_type *a, const struct deed_type *b)
{
    return a == b || (a->size == b->size && strcmp(a->name, b->name) == 0);
}

/* ---- what the author's code calls ------------------------------------------------------------ */

static struct call *call_of(struct deed_context *ctx)
{
    return (struct call *)(void *)ctx;
}

DEED_PRINTF(2, 3)
_Noreturn static void call_escape(struct call *call, const char *format, ...)
{
    char message[DEED_MESSAGE_SIZE];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    (void)deed_fail(&call->error, DEED_DOMAIN, "%s", message);
    longjmp(call->escape, 1);
}

_Noreturn static void call_no_memory(struct call *call)
{
    call_escape(call, "it used more than %llu MiB of memory",
                (unsigned long long)(call->runtime->options.call_size_max >> 20));
}

static void *ctx_alloc(struct deed_context *ctx, size_t size)
{
    struct call *call = call_of(ctx);
    void *memory = arena_alloc(call->memory, size);
    if (memory == NULL) call_no_memory(call);
    return memory;
}

static deed_str ctx_format(struct deed_context *ctx, const char *format, va_list arguments)
{
    va_list again;
    va_copy(again, arguments);
    int len = vsnprintf(NULL, 0, format, again);
    va_end(again);
    if (len < 0) call_escape(call_of(ctx), "deed_format: the format cannot be printed");
    char *text = ctx_alloc(ctx, (size_t)len + 1);
    vsnprintf(text, (size_t)len + 1, format, arguments);
    return (deed_str){text, (size_t)len};
}

static deed_str ctx_today(struct deed_context *ctx)
{
    char text[TIME_TEXT_SIZE + 1];
    time_format(ctx->time_ns, text);
    char *day = ctx_alloc(ctx, 11);
    memcpy(day, text, 10);
    return (deed_str){day, 10};
}

static deed_decision ctx_reject(struct deed_context *ctx, const char *code, const char *format,
                                va_list arguments)
{
    struct call *call = call_of(ctx);
    if (code == NULL || *code == '\0') call_escape(call, "deed_reject: the code is empty");
    char message[DEED_MESSAGE_SIZE];
    vsnprintf(message, sizeof message, format, arguments);
    /* A message cut inside a character would not be JSON on its way out. */
    size_t len = strlen(message);
    while (len > 0 && !utf8_valid((deed_bytes){(const uint8_t *)message, len}))
        len--;
    (void)deed_fail(&call->error, DEED_REJECTED, "%.*s", (int)len, message);
    snprintf(call->error.code, sizeof call->error.code, "%s", code);
    call->rejected = true;
    return DEED_REFUSED;
}

_Noreturn static void ctx_panic(struct deed_context *ctx, const char *format, va_list arguments)
{
    char message[DEED_MESSAGE_SIZE];
    vsnprintf(message, sizeof message, format, arguments);
    call_escape(call_of(ctx), "%s", message);
}

static void *ctx_list_room(struct deed_context *ctx, void *items, size_t count, size_t *room,
                           size_t item_size)
{
    struct call *call = call_of(ctx);
    size_t wanted = count < 4 ? 4 : count * 2;
    void *grown = arena_alloc_array(call->memory, wanted, item_size);
    if (grown == NULL) call_no_memory(call);
    if (count > 0) memcpy(grown, items, count * item_size);
    *room = wanted;
    return grown;
}

static size_t ctx_map_find(struct deed_context *ctx, const void *map, deed_str key)
{
    (void)ctx;
    struct bind_map copy;
    memcpy(&copy, map, sizeof copy);
    return bind_map_find(&copy, key);
}

static void *ctx_map_put(struct deed_context *ctx, void *map, size_t value_size, deed_str key)
{
    struct call *call = call_of(ctx);
    struct bind_map copy;
    memcpy(&copy, map, sizeof copy);
    size_t index = bind_map_find(&copy, key);
    if (index != SIZE_MAX) return (char *)copy.values + index * value_size;
    void *value = bind_map_add(&copy, value_size, key, call->memory);
    if (value == NULL) call_no_memory(call);
    memcpy(map, &copy, sizeof copy);
    return value;
}

static bool ctx_map_remove(struct deed_context *ctx, void *map, size_t value_size, deed_str key)
{
    (void)ctx;
    struct bind_map copy;
    memcpy(&copy, map, sizeof copy);
    size_t index = bind_map_find(&copy, key);
    if (index == SIZE_MAX) return false;
    bind_map_cut(&copy, value_size, index);
    memcpy(map, &copy, sizeof copy);
    return true;
}

static const struct deed_event_type *event_for(const struct call *call,
                                               const struct deed_type *type)
{
    for (size_t i = 0; i < call->aggregate->event_count; i++) {
        const struct deed_event_type *event = &call->aggregate->events[i];
        if (type_same(event->type, type)) return event;
    }
    return NULL;
}

static void emitted_add(struct call *call, const struct deed_event_type *event)
{
    if (call->emitted_count == call->emitted_room) {
        size_t room = call->emitted_room == 0 ? 8 : call->emitted_room * 2;
        const struct deed_event_type **types = ctx_alloc(&call->ctx, room * sizeof *types);
        size_t *ends = ctx_alloc(&call->ctx, room * sizeof *ends);
        if (call->emitted_count > 0) {
            memcpy(types, call->emitted_types, call->emitted_count * sizeof *types);
            memcpy(ends, call->emitted_ends, call->emitted_count * sizeof *ends);
        }
        call->emitted_types = types;
        call->emitted_ends = ends;
        call->emitted_room = room;
    }
    call->emitted_types[call->emitted_count] = event;
    call->emitted_ends[call->emitted_count++] = call->runtime->emitted.len;
}

/* The author's pointer `view` stays; what is behind it becomes the call's own at the first event. */
static deed_decision ctx_emit(struct deed_context *ctx, const struct deed_type *type,
                              const void *value)
{
    struct call *call = call_of(ctx);
    if (call->view == NULL) call_escape(call, "deed_emit in an evolve function");
    const struct deed_event_type *event = event_for(call, type);
    if (event == NULL) {
        call_escape(call, "it emits %s, which is not in the event table of aggregate %s",
                    type->name, call->aggregate->category);
    }
    struct deed_error error;
    if (bind_write(event->type, value, BIND_EXACT, &call->runtime->emitted, &error) != DEED_OK) {
        call_escape(call, "it emits %s: %s", type->name, error.message);
    }
    emitted_add(call, event);
    if (event->evolver == NULL) return DEED_ACCEPTED;

    const struct deed_type *state = call->aggregate->state;
    if (!call->copied) {
        void *copy = arena_alloc(call->memory, state->size);
        if (copy == NULL || !bind_copy(state, call->view, call->memory, copy)) {
            call_no_memory(call);
        }
        memcpy(call->view, copy, state->size);
        call->copied = true;
    }
    /* evolve sees the same context as when the event is read back. */
    struct deed_context decide = call->ctx;
    void *view = call->view;
    call->ctx.exists = false;
    call->ctx.revision = DEED_NONE;
    call->view = NULL;
    event->evolver->evolve(&call->ctx, view, value);
    call->view = view;
    call->ctx = decide;
    return DEED_ACCEPTED;
}

static const struct deed_context_ops context_ops = {
    .alloc = ctx_alloc,
    .format = ctx_format,
    .today = ctx_today,
    .emit = ctx_emit,
    .reject = ctx_reject,
    .panic = ctx_panic,
    .list_room = ctx_list_room,
    .map_find = ctx_map_find,
    .map_put = ctx_map_put,
    .map_remove = ctx_map_remove,
};

static deed_str stream_id(deed_str stream, const struct deed_aggregate *aggregate)
{
    size_t skip = strlen(aggregate->category) + 1;
    return (deed_str){stream.ptr + skip, stream.len - skip};
}

static void call_init(struct call *call, struct runtime *rt, const struct deed_aggregate *aggregate,
                      deed_str stream, struct arena *memory)
{
    memset(call, 0, sizeof *call);
    call->ctx = (struct deed_context){.ops = &context_ops,
                                      .stream = stream,
                                      .id = stream_id(stream, aggregate),
                                      .revision = DEED_NONE};
    call->runtime = rt;
    call->aggregate = aggregate;
    call->memory = memory;
}

/* ---- slots ---------------------------------------------------------------------------------- */

static struct slot *slot_find(const struct runtime *rt, deed_str key)
{
    if (key.len == 0) return NULL;
    uint64_t hash = xxh64(0, deed_bytes_of(key));
    struct slot *slot = rt->buckets[hash & (rt->bucket_count - 1)];
    while (slot != NULL && !(slot->hash == hash && deed_str_equal(slot->key, key))) {
        slot = slot->chain;
    }
    return slot;
}

static void slot_unlink(struct runtime *rt, struct slot *slot)
{
    struct slot **at = &rt->buckets[slot->hash & (rt->bucket_count - 1)];
    while (*at != slot)
        at = &(*at)->chain;
    *at = slot->chain;
    *(slot->newer != NULL ? &slot->newer->older : &rt->newest) = slot->older;
    *(slot->older != NULL ? &slot->older->newer : &rt->oldest) = slot->newer;
    slot->chain = slot->newer = slot->older = NULL;
    rt->slot_count--;
    rt->slot_size -= slot->arena.total;
}

static void slot_free(struct slot *slot)
{
    if (slot == NULL) return;
    arena_done(&slot->arena);
    free((void *)slot->key.ptr);
    free(slot);
}

/* Becomes the newest; the oldest ones make room. The slot itself may be over the limit alone: then it
 * goes, too. */
static void slot_link(struct runtime *rt, struct slot *slot)
{
    struct slot **bucket = &rt->buckets[slot->hash & (rt->bucket_count - 1)];
    slot->chain = *bucket;
    *bucket = slot;
    slot->older = rt->newest;
    *(rt->newest != NULL ? &rt->newest->newer : &rt->oldest) = slot;
    rt->newest = slot;
    rt->slot_count++;
    rt->slot_size += slot->arena.total;
    while (rt->oldest != NULL && (rt->slot_count > rt->options.slot_count_max ||
                                  rt->slot_size > rt->options.slot_size_max)) {
        struct slot *oldest = rt->oldest;
        slot_unlink(rt, oldest);
        slot_free(oldest);
    }
}

/* A slot outside of the table, before the first event. NULL: no memory. */
static struct slot *slot_make(struct runtime *rt, const struct deed_aggregate *aggregate,
                              deed_str key)
{
    struct slot *slot = calloc(1, sizeof *slot);
    if (slot == NULL) return NULL;
    arena_init(&slot->arena, clamp_size(rt->options.call_size_max));
    slot->revision = DEED_NONE;
    slot->aggregate = aggregate;
    slot->state = arena_alloc(&slot->arena, aggregate->state->size);
    if (key.len > 0) {
        char *copy = malloc(key.len);
        if (copy != NULL) memcpy(copy, key.ptr, key.len);
        slot->key = (deed_str){copy, key.len};
        slot->hash = xxh64(0, deed_bytes_of(key));
    }
    if (slot->state == NULL || (key.len > 0 && slot->key.ptr == NULL)) {
        slot_free(slot);
        return NULL;
    }
    return slot;
}

/* (3). false: no memory; the slot is as it was. */
static bool slot_compact(struct runtime *rt, struct slot *slot)
{
    if (slot->arena.total < SLOT_COMPACT_SIZE || slot->arena.total / 4 < slot->compact_size) {
        return true;
    }
    struct arena fresh;
    arena_init(&fresh, clamp_size(rt->options.call_size_max));
    void *state = arena_alloc(&fresh, slot->aggregate->state->size);
    if (state == NULL || !bind_copy(slot->aggregate->state, slot->state, &fresh, state)) {
        arena_done(&fresh);
        return false;
    }
    arena_done(&slot->arena);
    slot->arena = fresh;
    slot->state = state;
    slot->compact_size = fresh.total;
    return true;
}

/* ---- folding -------------------------------------------------------------------------------- */

static deed_status event_read(struct runtime *rt, struct slot *slot,
                              const struct deed_event_type *type, const struct host_event *event,
                              void **out_value, struct deed_error *err)
{
    json_value root;
    deed_status status = json_parse(&rt->scratch, event->data, JSON_DEPTH_MAX, &root, err);
    if (status != DEED_OK) return status;
    *out_value = arena_alloc(&rt->scratch, type->type->size);
    if (*out_value == NULL) return deed_fail(err, DEED_NO_MEMORY, "no memory for the event");
    return bind_read(type->type, root, BIND_STORED, &slot->arena, *out_value, err);
}

static deed_status event_apply(struct runtime *rt, struct slot *slot, deed_str stream,
                               const struct deed_event_type *type, const struct host_event *event,
                               struct deed_error *err)
{
    void *value = NULL;
    deed_status status = event_read(rt, slot, type, event, &value, err);
    if (status != DEED_OK) return status;
    struct call call;
    call_init(&call, rt, slot->aggregate, stream, &slot->arena);
    call.ctx.time_ns = event->time_ns;
    call.ctx.actor = event->actor;
    if (setjmp(call.escape) != 0) {
        return deed_fail(err, DEED_DOMAIN, "%s", call.error.message);
    }
    type->evolver->evolve(&call.ctx, slot->state, value);
    return DEED_OK;
}

static const struct deed_event_type *event_named(const struct deed_aggregate *aggregate,
                                                 deed_str name)
{
    for (size_t i = 0; i < aggregate->event_count; i++) {
        if (deed_str_equal(deed_str_of(event_name(&aggregate->events[i])), name)) {
            return &aggregate->events[i];
        }
    }
    return NULL;
}

static deed_status slot_fold(struct runtime *rt, struct slot *slot,
                             const struct host_request *request, struct deed_error *err)
{
    for (size_t i = 0; i < request->event_count; i++) {
        const struct host_event *event = &request->events[i];
        const struct deed_event_type *type = event_named(slot->aggregate, event->type);
        if (type != NULL && type->evolver != NULL) {
            arena_reset(&rt->scratch);
            deed_status status = event_apply(rt, slot, request->stream, type, event, err);
            if (status != DEED_OK) {
                deed_wrap(err, "event %.*s at revision %llu of %.*s", DEED_FMT(event->type),
                          (unsigned long long)event->revision, DEED_FMT(request->stream));
                err->status = DEED_DOMAIN; /* whatever it was for JSON: here stored data is wrong */
                return DEED_DOMAIN;
            }
            if (!slot_compact(rt, slot)) {
                return deed_fail(err, DEED_DOMAIN,
                                 "the state of %.*s is over the limit of %llu MiB",
                                 DEED_FMT(request->stream),
                                 (unsigned long long)(rt->options.call_size_max >> 20));
            }
        }
        slot->revision = event->revision;
    }
    return DEED_OK;
}

/* ---- deciding ------------------------------------------------------------------------------- */

static const struct deed_command_type *command_named(const struct deed_aggregate *aggregate,
                                                     deed_str name)
{
    for (size_t i = 0; i < aggregate->command_count; i++) {
        if (deed_str_equal(deed_str_of(aggregate->commands[i].name), name)) {
            return &aggregate->commands[i];
        }
    }
    return NULL;
}

/* The command as the author's struct; its id must be the stream's. */
static deed_status command_read(struct runtime *rt, const struct deed_command_type *type,
                                const struct deed_aggregate *aggregate,
                                const struct host_request *request, void **out_value,
                                struct deed_error *err)
{
    json_value root;
    deed_status status = json_parse(&rt->scratch, request->data, JSON_DEPTH_MAX, &root, err);
    if (status != DEED_OK) {
        deed_wrap(err, "%s", type->name);
        return status;
    }
    *out_value = arena_alloc(&rt->call, type->type->size);
    if (*out_value == NULL) return deed_fail(err, DEED_NO_MEMORY, "no memory for the command");
    status = bind_read(type->type, root, BIND_EXACT, &rt->call, *out_value, err);
    if (status != DEED_OK) {
        deed_wrap(err, "%s", type->name);
        return status;
    }
    deed_str id;
    memcpy(&id, (const char *)*out_value + type->id_offset, sizeof id);
    if (id.len == 0) {
        return deed_fail(err, DEED_INVALID, "%s: %s: expected a text that is not empty", type->name,
                         type->id_member);
    }
    if (!deed_str_equal(id, stream_id(request->stream, aggregate))) {
        return deed_fail(err, DEED_INVALID, "%s: %s: %.*s is not the id of stream %.*s", type->name,
                         type->id_member, DEED_FMT(id), DEED_FMT(request->stream));
    }
    return DEED_OK;
}

static deed_status reject(struct deed_error *err, const char *category, const char *what,
                          const char *format, deed_str id)
{
    (void)deed_fail(err, DEED_REJECTED, format, category, DEED_FMT(id));
    if (err != NULL) snprintf(err->code, sizeof err->code, "%s_%s", category, what);
    return DEED_REJECTED;
}

static deed_status existence_check(const struct deed_command_type *type, const struct slot *slot,
                                   deed_str id, struct deed_error *err)
{
    const char *category = slot->aggregate->category;
    bool exists = slot->revision != DEED_NONE;
    if (type->existence == DEED_EXISTENCE_REQUIRED && !exists) {
        return reject(err, category, "not_found", "there is no %s %.*s", id);
    }
    if (type->existence == DEED_EXISTENCE_REFUSED && exists) {
        return reject(err, category, "exists", "%s %.*s exists already", id);
    }
    return DEED_OK;
}

/* Call the author's function. DEED_OK: `call` has the events. */
static deed_status decide(struct call *call, const struct deed_command_type *type,
                          const struct slot *slot, const void *command, struct deed_error *err)
{
    struct runtime *rt = call->runtime;
    size_t state_size = slot->aggregate->state->size;
    call->view = arena_alloc(&rt->call, state_size);
    if (call->view == NULL) return deed_fail(err, DEED_NO_MEMORY, "no memory for the state");
    memcpy(call->view, slot->state, state_size);
    if (setjmp(call->escape) != 0) {
        return deed_fail(err, DEED_DOMAIN, "%s: %s", type->name, call->error.message);
    }
    deed_decision decision = type->decider->decide(&call->ctx, call->view, command);
    if (call->rejected != (decision == DEED_REFUSED)) {
        return deed_fail(err, DEED_DOMAIN, "%s: %s", type->name,
                         call->rejected ? "it rejected the command and then accepted it"
                                        : "it refused the command without deed_reject");
    }
    if (call->rejected) {
        if (err != NULL) *err = call->error;
        return DEED_REJECTED;
    }
    return DEED_OK;
}

static deed_status events_take(const struct call *call, struct arena *arena,
                               struct host_answer *answer, struct deed_error *err)
{
    const struct buf *emitted = &call->runtime->emitted;
    deed_bytes all = arena_bytes(arena, buf_bytes(emitted));
    struct host_event *events = arena_alloc_array(arena, call->emitted_count, sizeof *events);
    if (all.ptr == NULL || events == NULL) {
        return deed_fail(err, DEED_NO_MEMORY, "no memory for the events");
    }
    size_t start = 0;
    for (size_t i = 0; i < call->emitted_count; i++) {
        size_t end = call->emitted_ends[i];
        events[i].type = deed_str_of(event_name(call->emitted_types[i]));
        events[i].data = (deed_bytes){all.ptr + start, end - start};
        start = end;
    }
    answer->events = events;
    answer->event_count = call->emitted_count;
    return DEED_OK;
}

static deed_status run_decide(struct runtime *rt, struct slot *slot,
                              const struct host_request *request, struct host_answer *answer,
                              struct arena *arena, struct deed_error *err)
{
    const struct deed_command_type *type = command_named(slot->aggregate, request->command);
    if (type == NULL) {
        return deed_fail(err, DEED_NOT_FOUND, "aggregate %s has no command %.*s",
                         slot->aggregate->category, DEED_FMT(request->command));
    }
    arena_reset(&rt->scratch);
    void *command = NULL;
    deed_status status = command_read(rt, type, slot->aggregate, request, &command, err);
    if (status != DEED_OK) return status;
    status = existence_check(type, slot, stream_id(request->stream, slot->aggregate), err);
    if (status != DEED_OK) return status;

    struct call call;
    call_init(&call, rt, slot->aggregate, request->stream, &rt->call);
    call.ctx.exists = slot->revision != DEED_NONE;
    call.ctx.revision = slot->revision;
    call.ctx.time_ns = request->now_ns;
    call.ctx.actor = request->actor;
    buf_reset(&rt->emitted);
    status = decide(&call, type, slot, command, err);
    return status != DEED_OK ? status : events_take(&call, arena, answer, err);
}

/* ---- requests ------------------------------------------------------------------------------- */

static const struct deed_aggregate *aggregate_of(const struct runtime *rt, deed_str stream)
{
    for (size_t i = 0; i < rt->domain->aggregate_count; i++) {
        deed_str category = deed_str_of(rt->domain->aggregates[i].category);
        if (stream.len > category.len && stream.ptr[category.len] == '-' &&
            str_starts_with(stream, category)) {
            return &rt->domain->aggregates[i];
        }
    }
    return NULL;
}

static deed_status run_state(const struct slot *slot, struct host_answer *answer,
                             struct arena *arena, struct deed_error *err)
{
    struct buf text;
    buf_init(&text, JSON_STATE_MAX);
    deed_status status = bind_write(slot->aggregate->state, slot->state, BIND_STORED, &text, err);
    if (status == DEED_OK) {
        answer->state = arena_bytes(arena, buf_bytes(&text));
        if (answer->state.ptr == NULL) status = deed_fail(err, DEED_NO_MEMORY, "no memory");
    } else if (status == DEED_INVALID) {
        status = DEED_DOMAIN;
    }
    if (status != DEED_OK) deed_wrap(err, "the state of a %s", slot->aggregate->category);
    buf_done(&text);
    return status;
}

static deed_status run_work(struct runtime *rt, struct slot *slot,
                            const struct host_request *request, struct host_answer *answer,
                            struct arena *arena, struct deed_error *err)
{
    switch (request->work) {
    case HOST_FOLD:
        return DEED_OK;
    case HOST_DECIDE:
        return run_decide(rt, slot, request, answer, arena, err);
    case HOST_STATE:
        return run_state(slot, answer, arena, err);
    }
    return deed_fail(err, DEED_MISUSE, "unknown work %d", (int)request->work);
}

/* The slot at base_revision, out of the table. NULL: there is none (answer says what to do). */
static struct slot *slot_take(struct runtime *rt, const struct host_request *request,
                              struct host_answer *answer)
{
    const struct deed_aggregate *aggregate = aggregate_of(rt, request->stream);
    if (aggregate == NULL) {
        answer->outcome = HOST_FAILED;
        (void)deed_fail(&answer->error, DEED_NOT_FOUND, "no aggregate has streams like %.*s",
                        DEED_FMT(request->stream));
        return NULL;
    }
    struct slot *slot = slot_find(rt, request->slot);
    if (request->base_revision != DEED_NONE) {
        if (slot == NULL || slot->revision != request->base_revision ||
            slot->aggregate != aggregate) {
            answer->outcome = HOST_NEED_EVENTS;
            return NULL;
        }
        slot_unlink(rt, slot);
        return slot;
    }
    if (slot != NULL) {
        slot_unlink(rt, slot);
        slot_free(slot);
    }
    slot = slot_make(rt, aggregate, request->slot);
    if (slot == NULL) {
        answer->outcome = HOST_FAILED;
        (void)deed_fail(&answer->error, DEED_NO_MEMORY, "no memory for a state");
    }
    return slot;
}

void runtime_run(struct runtime *rt, const struct host_request *request, struct host_answer *answer,
                 struct arena *arena)
{
    *answer = (struct host_answer){.outcome = HOST_DONE};
    struct slot *slot = slot_take(rt, request, answer);
    if (slot == NULL) return;

    arena_reset(&rt->call);
    struct deed_error *err = &answer->error;
    deed_status status = slot_fold(rt, slot, request, err);
    bool whole = status == DEED_OK;
    if (whole) status = run_work(rt, slot, request, answer, arena, err);
    if (status != DEED_OK) {
        *answer = (struct host_answer){.outcome = HOST_FAILED, .error = answer->error};
        answer->error.status = status;
    }
    /* A half folded state is of no use, and neither is one before the first event. */
    if (whole && slot->key.len > 0 && slot->revision != DEED_NONE) {
        slot_link(rt, slot);
    } else {
        slot_free(slot);
    }
}

uint64_t runtime_slot_revision(const struct runtime *rt, deed_str key)
{
    const struct slot *slot = slot_find(rt, key);
    return slot == NULL ? DEED_NONE : slot->revision;
}

/* ---- tables --------------------------------------------------------------------------------- */

static deed_status event_check(const struct deed_aggregate *aggregate, size_t index,
                               struct deed_error *err)
{
    const struct deed_event_type *event = &aggregate->events[index];
    if (event->name == NULL || *event_name(event) == '\0') {
        return deed_fail(err, DEED_INVALID, "event %zu has no name", index);
    }
    for (size_t i = 0; i < index; i++) {
        if (strcmp(event_name(&aggregate->events[i]), event_name(event)) == 0) {
            return deed_fail(err, DEED_INVALID, "event %s is there twice", event_name(event));
        }
    }
    deed_status status = bind_check(event->type, err);
    if (status != DEED_OK) {
        deed_wrap(err, "event %s", event_name(event));
        return status;
    }
    if (event->evolver == NULL) return DEED_OK;
    if (!type_same(event->evolver->state, aggregate->state)) {
        return deed_fail(err, DEED_INVALID, "event %s evolves a %s, not a %s", event_name(event),
                         event->evolver->state->name, aggregate->state->name);
    }
    if (!type_same(event->evolver->event, event->type)) {
        return deed_fail(err, DEED_INVALID, "event %s has the evolve function of %s",
                         event_name(event), event->evolver->event->name);
    }
    return DEED_OK;
}

static const struct deed_field *id_field(const struct deed_command_type *command)
{
    if (command->id_member == NULL) return NULL;
    for (const struct deed_field *f = command->type->fields; f->name != NULL; f++) {
        if (strcmp(f->name, command->id_member) == 0) return f;
    }
    return NULL;
}

static deed_status command_check(const struct deed_domain *domain,
                                 const struct deed_aggregate *aggregate, size_t index,
                                 struct deed_error *err)
{
    const struct deed_command_type *command = &aggregate->commands[index];
    if (command->name == NULL || *command->name == '\0') {
        return deed_fail(err, DEED_INVALID, "command %zu has no name", index);
    }
    deed_status status = bind_check(command->type, err);
    if (status != DEED_OK) {
        deed_wrap(err, "command %s", command->name);
        return status;
    }
    const struct deed_field *id = id_field(command);
    bool is_text = id != NULL && (id->kind == DEED_KIND_TEXT || id->kind == DEED_KIND_UUID);
    if (!is_text || id->optional || id->offset != command->id_offset) {
        return deed_fail(err, DEED_INVALID,
                         "command %s: its id must be a member that is a text and not optional",
                         command->name);
    }
    if (command->decider == NULL || !type_same(command->decider->state, aggregate->state) ||
        !type_same(command->decider->command, command->type)) {
        return deed_fail(err, DEED_INVALID,
                         "command %s has no decide function for it and a state of type %s",
                         command->name, aggregate->state->name);
    }
    for (size_t a = 0; a < domain->aggregate_count; a++) {
        const struct deed_aggregate *other = &domain->aggregates[a];
        for (size_t c = 0; c < other->command_count; c++) {
            if (other == aggregate && c >= index) return DEED_OK;
            if (strcmp(other->commands[c].name, command->name) == 0) {
                return deed_fail(err, DEED_INVALID, "command %s is there twice", command->name);
            }
        }
    }
    return DEED_OK;
}

static bool category_valid(const char *category)
{
    return category != NULL && *category != '\0' && *category != '$' &&
           strchr(category, '-') == NULL && utf8_valid(deed_bytes_of(deed_str_of(category)));
}

static deed_status aggregate_check(const struct deed_domain *domain, size_t index,
                                   struct deed_error *err)
{
    const struct deed_aggregate *aggregate = &domain->aggregates[index];
    if (!category_valid(aggregate->category)) {
        return deed_fail(err, DEED_INVALID,
                         "its category must be a name without '-' that does not begin with '$'");
    }
    for (size_t i = 0; i < index; i++) {
        if (strcmp(domain->aggregates[i].category, aggregate->category) == 0) {
            return deed_fail(err, DEED_INVALID, "there is another one of that category");
        }
    }
    deed_status status = bind_check(aggregate->state, err);
    for (size_t i = 0; i < aggregate->event_count && status == DEED_OK; i++) {
        status = event_check(aggregate, i, err);
    }
    for (size_t i = 0; i < aggregate->command_count && status == DEED_OK; i++) {
        status = command_check(domain, aggregate, i, err);
    }
    return status;
}

static deed_status domain_check(const struct deed_domain *domain, struct deed_error *err)
{
    if (domain->abi != DEED_DOMAIN_ABI) {
        return deed_fail(err, domain->abi > DEED_DOMAIN_ABI ? DEED_TOO_NEW : DEED_INVALID,
                         "the domain was built for version %u of deedbook_domain.h, this is %d",
                         domain->abi, DEED_DOMAIN_ABI);
    }
    if (domain->name == NULL || *domain->name == '\0' || domain->aggregate_count == 0) {
        return deed_fail(err, DEED_INVALID, "the domain has no name or no aggregates");
    }
    for (size_t i = 0; i < domain->aggregate_count; i++) {
        deed_status status = aggregate_check(domain, i, err);
        if (status != DEED_OK) {
            const char *category = domain->aggregates[i].category;
            deed_wrap(err, "domain %s, aggregate %s", domain->name,
                      category == NULL ? "without category" : category);
            return status;
        }
    }
    return DEED_OK;
}

/* ---- the model ------------------------------------------------------------------------------ */

static const char *existence_name(enum deed_existence existence)
{
    switch (existence) {
    case DEED_EXISTENCE_REQUIRED:
        return "required";
    case DEED_EXISTENCE_REFUSED:
        return "refused";
    case DEED_EXISTENCE_ANY:
        break;
    }
    return "any";
}

static void about_write(struct json_writer *w, const char *about)
{
    if (about != NULL) json_member_text(w, "about", deed_str_of(about));
}

static void commands_write(struct json_writer *w, const struct deed_aggregate *aggregate)
{
    json_key(w, DEED_STR("commands"));
    json_array_begin(w);
    for (size_t i = 0; i < aggregate->command_count; i++) {
        const struct deed_command_type *command = &aggregate->commands[i];
        json_object_begin(w);
        json_member_text(w, "name", deed_str_of(command->name));
        json_member_text(w, "id", deed_str_of(command->id_member));
        json_member_text(w, "existence", deed_str_of(existence_name(command->existence)));
        about_write(w, command->about);
        json_key(w, DEED_STR("fields"));
        bind_describe(command->type, w);
        json_object_end(w);
    }
    json_array_end(w);
}

static void events_write(struct json_writer *w, const struct deed_aggregate *aggregate)
{
    json_key(w, DEED_STR("events"));
    json_array_begin(w);
    for (size_t i = 0; i < aggregate->event_count; i++) {
        const struct deed_event_type *event = &aggregate->events[i];
        json_object_begin(w);
        json_member_text(w, "name", deed_str_of(event_name(event)));
        json_member_bool(w, "changes_state", event->evolver != NULL);
        about_write(w, event->about);
        json_key(w, DEED_STR("fields"));
        bind_describe(event->type, w);
        json_object_end(w);
    }
    json_array_end(w);
}

static deed_status model_make(struct runtime *rt, struct deed_error *err)
{
    struct json_writer w;
    json_writer_init(&w, &rt->model);
    json_object_begin(&w);
    json_member_text(&w, "name", deed_str_of(rt->domain->name));
    json_key(&w, DEED_STR("aggregates"));
    json_array_begin(&w);
    for (size_t i = 0; i < rt->domain->aggregate_count; i++) {
        const struct deed_aggregate *aggregate = &rt->domain->aggregates[i];
        json_object_begin(&w);
        json_member_text(&w, "name", deed_str_of(aggregate->category));
        json_member_text(&w, "category", deed_str_of(aggregate->category));
        about_write(&w, aggregate->about);
        json_key(&w, DEED_STR("state"));
        bind_describe(aggregate->state, &w);
        commands_write(&w, aggregate);
        events_write(&w, aggregate);
        json_object_end(&w);
    }
    json_array_end(&w);
    json_object_end(&w);
    return buf_ok(&rt->model) ? DEED_OK
                              : deed_fail(err, DEED_NO_MEMORY, "no memory for the domain's model");
}

/* ---- life ----------------------------------------------------------------------------------- */

static struct runtime_options options_default(const struct runtime_options *options)
{
    struct runtime_options o = options == NULL ? (struct runtime_options){0} : *options;
    if (o.slot_count_max == 0) o.slot_count_max = SLOT_COUNT_MAX;
    if (o.slot_size_max == 0) o.slot_size_max = SLOT_SIZE_MAX;
    if (o.call_size_max == 0) o.call_size_max = CALL_SIZE_MAX;
    return o;
}

deed_status runtime_create(const struct deed_domain *domain, const struct runtime_options *options,
                           struct runtime **out_runtime, struct deed_error *err)
{
    *out_runtime = NULL;
    deed_status status = domain_check(domain, err);
    if (status != DEED_OK) return status;
    struct runtime *rt = calloc(1, sizeof *rt);
    if (rt == NULL) return deed_fail(err, DEED_NO_MEMORY, "no memory for the domain");
    rt->domain = domain;
    rt->options = options_default(options);
    rt->bucket_count = 64;
    while (rt->bucket_count < rt->options.slot_count_max)
        rt->bucket_count *= 2;
    rt->buckets = calloc(rt->bucket_count, sizeof *rt->buckets);
    arena_init(&rt->call, clamp_size(rt->options.call_size_max));
    arena_init(&rt->scratch, clamp_size(rt->options.call_size_max));
    buf_init(&rt->emitted, clamp_size(rt->options.call_size_max));
    buf_init(&rt->model, MODEL_SIZE_MAX);
    status = rt->buckets == NULL ? deed_fail(err, DEED_NO_MEMORY, "no memory for the domain")
                                 : model_make(rt, err);
    if (status != DEED_OK) {
        runtime_destroy(rt);
        return status;
    }
    *out_runtime = rt;
    return DEED_OK;
}

void runtime_destroy(struct runtime *rt)
{
    if (rt == NULL) return;
    while (rt->newest != NULL) {
        struct slot *slot = rt->newest;
        slot_unlink(rt, slot);
        slot_free(slot);
    }
    free(rt->buckets);
    arena_done(&rt->call);
    arena_done(&rt->scratch);
    buf_done(&rt->emitted);
    buf_done(&rt->model);
    free(rt);
}

deed_str runtime_model(const struct runtime *rt)
{
    return buf_str(&rt->model);
}

/* The object stays loaded: its tables are referred to from everywhere, and unloading gains nothing. */
deed_status runtime_load(const char *path, const struct deed_domain **out_domain,
                         struct deed_error *err)
{
    *out_domain = NULL;
    /* dlopen looks a name without slash up in the system's folders. */
    char here[4096];
    int len = snprintf(here, sizeof here, "%s%s", strchr(path, '/') == NULL ? "./" : "", path);
    if (len < 0 || (size_t)len >= sizeof here) {
        return deed_fail(err, DEED_INVALID, "domain %.200s…: the path is too long", path);
    }
    void *object = dlopen(here, RTLD_NOW | RTLD_LOCAL);
    if (object == NULL) return deed_fail(err, DEED_INVALID, "domain %s", dlerror());
    const struct deed_domain *domain = dlsym(object, DEED_DOMAIN_SYMBOL);
    if (domain == NULL) {
        dlclose(object);
        return deed_fail(err, DEED_INVALID,
                         "domain %s: it does not export " DEED_DOMAIN_SYMBOL
                         " (DEED_EXPORT_DOMAIN is missing)",
                         path);
    }
    *out_domain = domain;
    return DEED_OK;
}
