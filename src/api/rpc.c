/* rpc.c - what a call's method, the committer that answers it and the loop's thread share.
 *
 *      31        30                0
 *     +--------+------------------+
 *     | QUEUED |      holds       |   life
 *     +--------+------------------+
 *
 * (1) A call is pushed to the loop when it is woken and when its last hold is given back, and only by
 *     whoever sets QUEUED: so it is in the loop's queue at most once.
 * (2) Giving back the last hold and setting QUEUED is one step. After it only the loop touches the
 *     call, and not before the push is through: so no thread looks at freed memory.
 * (3) What ends a call first, ends it. The ending's texts have memory of their own, since the call's
 *     arena belongs to the loop's thread. */
#include "api/rpc.h"

#include "api/grpc.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>

#define QUEUED (UINT32_C(1) << 31)

/* The ending's texts: a message, names of streams. Clients take as little as 8 KiB of trailers, and
 * nghttp2 sends no more than 64. */
#define ENDING_SIZE_MAX ((size_t)32 << 10)

/* ---- methods ---------------------------------------------------------------------------------- */

static const struct {
    const struct rpc_method *methods;
    const size_t *count;
} tables[] = {
#define ROW(name) {name##_methods, &name##_method_count},
    GRPC_TABLES(ROW)
#undef ROW
};
#define TABLE_COUNT (sizeof tables / sizeof tables[0])

size_t rpc_method_count(void)
{
    size_t count = 0;
    for (size_t i = 0; i < TABLE_COUNT; i++) count += *tables[i].count;
    return count;
}

const struct rpc_method *rpc_method_at(size_t index)
{
    for (size_t i = 0; i < TABLE_COUNT; i++) {
        if (index < *tables[i].count) return &tables[i].methods[index];
        index -= *tables[i].count;
    }
    return NULL;
}

const struct rpc_method *rpc_method_find(deed_str path)
{
    for (size_t i = 0; i < TABLE_COUNT; i++) {
        for (size_t k = 0; k < *tables[i].count; k++) {
            const struct rpc_method *method = &tables[i].methods[k];
            if (deed_str_equal(path, method->path)) return method;
        }
    }
    return NULL;
}

/* ---- life ------------------------------------------------------------------------------------- */

void rpc_init(struct rpc *rpc, struct api *api, const struct rpc_method *method,
              const struct rpc_host *host)
{
    *rpc = (struct rpc){.api = api,
                        .method = method,
                        .host = host,
                        .deadline_ticks = DEED_NONE};
    os_mutex_init(&rpc->mutex);
    arena_init(&rpc->end.arena, ENDING_SIZE_MAX);
    buf_init(&rpc->replies, SIZE_MAX / 4);
    atomic_init(&rpc->life, 1);
}

void rpc_done(struct rpc *rpc)
{
    assert((atomic_load(&rpc->life) & QUEUED) == 0);
    arena_done(&rpc->end.arena);
    buf_done(&rpc->replies);
    os_mutex_done(&rpc->mutex);
}

void rpc_wake(struct rpc *rpc)
{
    atomic_store(&rpc->woken, true);
    rpc_push(rpc);
}

bool rpc_woken(struct rpc *rpc)
{
    return atomic_exchange(&rpc->woken, false);
}

void rpc_push(struct rpc *rpc)
{
    if ((atomic_fetch_or(&rpc->life, QUEUED) & QUEUED) == 0) rpc->host->push(rpc); /* (1) */
}

void rpc_hold(struct rpc *rpc)
{
    uint32_t before = atomic_fetch_add(&rpc->life, 1);
    assert((before & ~QUEUED) > 0 && (before & ~QUEUED) < QUEUED - 1);
    (void)before;
}

void rpc_release(struct rpc *rpc)
{
    uint32_t now = atomic_load(&rpc->life), next;
    do {
        assert((now & ~QUEUED) > 0);
        next = now - 1;
        if ((next & ~QUEUED) == 0) next |= QUEUED; /* (2) */
    } while (!atomic_compare_exchange_weak(&rpc->life, &now, next));
    bool last = (next & ~QUEUED) == 0;
    if (last && (now & QUEUED) == 0) rpc->host->push(rpc);
}

bool rpc_taken(struct rpc *rpc)
{
    uint32_t before = atomic_fetch_and(&rpc->life, ~QUEUED);
    assert((before & QUEUED) != 0);
    return (before & ~QUEUED) == 0;
}

bool rpc_queued(const struct rpc *rpc)
{
    return (atomic_load(&rpc->life) & QUEUED) != 0;
}

bool rpc_cancelled(const struct rpc *rpc)
{
    return atomic_load(&rpc->cancelled);
}

/* ---- asking ----------------------------------------------------------------------------------- */

deed_str rpc_header(const struct rpc *rpc, const char *name)
{
    for (size_t i = 0; i < rpc->header_count; i++) {
        if (deed_str_equal(rpc->headers[i].name, deed_str_of(name))) return rpc->headers[i].value;
    }
    return (deed_str){0};
}

void *rpc_unpack(struct rpc *rpc, const ProtobufCMessageDescriptor *type, deed_bytes message)
{
    struct deed_error err = {0};
    void *unpacked = grpc_unpack(type, message, rpc->scratch, &err);
    if (unpacked != NULL) return unpacked;
    enum grpc_code code =
        err.status == DEED_INVALID ? GRPC_INVALID_ARGUMENT : GRPC_RESOURCE_EXHAUSTED;
    rpc_fail(rpc, code, NULL, "%s", err.message);
    return NULL;
}

/* ---- answering -------------------------------------------------------------------------------- */

struct buf *rpc_reply_begin(struct rpc *rpc)
{
    os_mutex_lock(&rpc->mutex);
    return &rpc->replies;
}

void rpc_reply_end(struct rpc *rpc)
{
    atomic_store(&rpc->has_replies, true);
    os_mutex_unlock(&rpc->mutex);
    rpc_wake(rpc);
}

void rpc_reply(struct rpc *rpc, const ProtobufCMessage *message)
{
    (void)grpc_pack(message, rpc_reply_begin(rpc)); /* a failed buffer fails the call when it is sent */
    rpc_reply_end(rpc);
}

void rpc_take_replies(struct rpc *rpc, struct buf *out)
{
    if (!atomic_load(&rpc->has_replies)) return;
    os_mutex_lock(&rpc->mutex);
    atomic_store(&rpc->has_replies, false);
    buf_move(out, &rpc->replies);
    os_mutex_unlock(&rpc->mutex);
}

/* ---- ending ----------------------------------------------------------------------------------- */

bool rpc_ended(const struct rpc *rpc)
{
    return atomic_load(&rpc->ended);
}

static bool is_binary(const char *name)
{
    size_t len = strlen(name);
    return len > 4 && strcmp(name + len - 4, "-bin") == 0;
}

/* Under the mutex. A trailer that finds no room is left out: the status itself needs none. */
static void trailer_add(struct rpc_ending *end, const char *name, deed_str value)
{
    struct buf encoded;
    if (end->trailer_count == RPC_TRAILERS_MAX) return;
    buf_init(&encoded, ENDING_SIZE_MAX);
    if (is_binary(name)) {
        grpc_base64_encode(deed_bytes_of(value), &encoded);
    } else {
        grpc_percent_encode(value, &encoded);
    }
    deed_str kept = buf_ok(&encoded) ? arena_str(&end->arena, buf_str(&encoded)) : (deed_str){0};
    if (kept.ptr != NULL) {
        end->trailers[end->trailer_count++] = (struct api_header){deed_str_of(name), kept};
    }
    buf_done(&encoded);
}

void rpc_trailer(struct rpc *rpc, const char *name, deed_str value)
{
    os_mutex_lock(&rpc->mutex);
    if (!rpc_ended(rpc)) trailer_add(&rpc->end, name, value);
    os_mutex_unlock(&rpc->mutex);
}

void rpc_end(struct rpc *rpc)
{
    os_mutex_lock(&rpc->mutex);
    atomic_store(&rpc->ended, true); /* (3): the code is 0, or the call has ended already */
    os_mutex_unlock(&rpc->mutex);
    rpc_wake(rpc);
}

void rpc_fail(struct rpc *rpc, enum grpc_code code, const char *exception, const char *format, ...)
{
    char message[DEED_MESSAGE_SIZE * 4];
    va_list arguments;
    va_start(arguments, format);
    int len = vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    if (len < 0) len = 0;
    if ((size_t)len >= sizeof message) len = (int)sizeof message - 1;

    os_mutex_lock(&rpc->mutex);
    if (!rpc_ended(rpc)) { /* (3) */
        rpc->end.code = code;
        rpc->end.message = arena_str(&rpc->end.arena, (deed_str){message, (size_t)len});
        if (exception != NULL) trailer_add(&rpc->end, "exception", deed_str_of(exception));
        atomic_store(&rpc->ended, true);
    }
    os_mutex_unlock(&rpc->mutex);
    rpc_wake(rpc);
}

void rpc_fail_status(struct rpc *rpc, const struct deed_error *err)
{
    rpc_fail(rpc, (enum grpc_code)deed_status_grpc(err->status), NULL, "%s", err->message);
}
