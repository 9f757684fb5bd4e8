/* rpc_fixture.h - gRPC calls over a store, without sockets: the test is the server.
 *
 *     start();  open_rpc();
 *     struct talk *t = talk("event_store.client.streams.Streams", "Append");
 *     talk_send(t, &request.base);
 *     talk_half_close(t);
 *     AppendResp *r = talk_reply(t, &…__append_resp__descriptor);   the next one; NULL: none
 *     expect_ended(t, GRPC_OK, "");
 *     talk_close(t);
 *     close_rpc();  finish();
 *
 * Between the steps everything that can happen happens: pulls, the store's steps (or, with a store that
 * has threads, what they push). A pull in haste that answers RPC_LATER is done again without. */
#ifndef TESTS_RPC_FIXTURE_H
#define TESTS_RPC_FIXTURE_H

#include "store_fixture.h"

#include "api/rpc.h"

struct talk {
    struct rpc rpc;
    struct arena arena, scratch;
    struct buf out; /* the frames that came */
    size_t read;    /* of them */
    struct api_header headers[8];
    bool half_closed, over;
    bool broken; /* memory ran out for a reply: a server ends the call then. Only with talk_may_break */
    /* Under the lock: pushed by any thread. */
    struct os_mutex lock;
    struct os_cond changed;
    bool pushed;
};

FIXTURE struct api *api;
FIXTURE bool talk_may_break;
FIXTURE size_t talk_out_max = (size_t)64 << 20; /* what a client takes */

FIXTURE void open_rpc(void)
{
    struct api_parts parts = {.store = store};
    if (api_create(&parts, &api, &err) != DEED_OK) fail_msg("api: %s", err.message);
}

FIXTURE void close_rpc(void)
{
    api_destroy(api);
    api = NULL;
}

static void talk_push(struct rpc *rpc)
{
    struct talk *t = (struct talk *)rpc; /* its first member */
    os_mutex_lock(&t->lock);
    assert_false(t->pushed);
    t->pushed = true;
    os_cond_signal(&t->changed);
    os_mutex_unlock(&t->lock);
}

/* Was it pushed? With threads, wait for that a little when `wait`. */
FIXTURE bool talk_taken(struct talk *t, bool wait, bool *out_free)
{
    os_mutex_lock(&t->lock);
    while (!t->pushed && wait && !options.no_threads) {
        if (!os_cond_wait(&t->changed, &t->lock, 10 * SECOND)) break;
    }
    bool pushed = t->pushed;
    t->pushed = false;
    os_mutex_unlock(&t->lock);
    if (pushed) *out_free = rpc_taken(&t->rpc);
    return pushed;
}

/* Pull until there is nothing more for now. */
FIXTURE void talk_pull(struct talk *t)
{
    const struct rpc_method *m = t->rpc.method;
    while (!t->over) {
        if (rpc_ended(&t->rpc)) {
            t->over = true;
        } else if (m->pull == NULL || (!m->client_streams && !t->half_closed)) {
            break;
        } else {
            enum rpc_pull answer = RPC_WAIT;
            if (t->out.len - t->read < talk_out_max) {
                size_t before = t->out.len;
                answer = m->pull(&t->rpc, &t->out, 64 << 10, true);
                if (answer == RPC_LATER) {
                    assert_int_equal(t->out.len, before);
                    answer = m->pull(&t->rpc, &t->out, 64 << 10, false);
                    assert_int_not_equal(answer, RPC_LATER);
                }
            }
            if (answer == RPC_END) {
                rpc_end(&t->rpc);
                t->over = true;
            }
            if (answer == RPC_WAIT) break;
        }
    }
    rpc_take_replies(&t->rpc, &t->out);
    if (buf_ok(&t->out)) return;
    assert_true(talk_may_break);
    t->broken = t->over = true;
}

/* Whatever can happen without the client. */
FIXTURE void talk_run(struct talk *t)
{
    bool free_now = false;
    for (;;) {
        talk_pull(t);
        if (talk_taken(t, false, &free_now)) continue;
        if (!options.no_threads || !store_step(store)) break;
    }
    assert_false(free_now); /* the server holds it still */
}

/* With threads: wait until the call has ended. */
FIXTURE void talk_wait(struct talk *t)
{
    bool free_now = false;
    for (talk_run(t); !t->over; talk_run(t)) {
        if (!talk_taken(t, true, &free_now)) fail_msg("the call does not end");
    }
}

/* With threads: wait for so many bytes of replies. */
FIXTURE void talk_wait_for(struct talk *t, size_t size)
{
    bool free_now = false;
    for (talk_run(t); !t->over && t->out.len - t->read < size; talk_run(t)) {
        if (!talk_taken(t, true, &free_now)) fail_msg("no reply comes");
    }
}

static const struct rpc_host talk_host = {talk_push};

/* Begin a call. `deadline`: in os_ticks_ns; DEED_NONE: none. */
FIXTURE struct talk *talk_until(const char *service, const char *name, uint64_t deadline)
{
    char path[256];
    (void)snprintf(path, sizeof path, "/%s/%s", service, name);
    const struct rpc_method *method = rpc_method_find(deed_str_of(path));
    if (method == NULL) fail_msg("no method %s", path);
    struct talk *t = calloc(1, sizeof *t);
    assert_non_null(t);
    os_mutex_init(&t->lock);
    os_cond_init(&t->changed);
    rpc_init(&t->rpc, api, method, &talk_host);
    arena_init(&t->arena, (size_t)64 << 20);
    arena_init(&t->scratch, (size_t)64 << 20);
    buf_init(&t->out, SIZE_MAX / 4);
    t->rpc.arena = &t->arena;
    t->rpc.scratch = &t->scratch;
    t->rpc.peer = DEED_STR("127.0.0.1:5000");
    t->rpc.headers = t->headers;
    t->rpc.deadline_ticks = deadline;
    if (method->begin != NULL) method->begin(&t->rpc);
    talk_run(t);
    return t;
}

FIXTURE struct talk *talk(const char *service, const char *name)
{
    return talk_until(service, name, DEED_NONE);
}

/* The message is gone when `message` returns: whoever keeps a slice of it is found out. Nothing else
 * happens before talk_run. */
FIXTURE void talk_give(struct talk *t, deed_bytes message)
{
    assert_false(t->half_closed);
    if (rpc_ended(&t->rpc)) return; /* as the server: nobody reads it */
    uint8_t *copy = malloc(message.len + 1);
    assert_non_null(copy);
    if (message.len > 0) memcpy(copy, message.ptr, message.len);
    t->rpc.method->message(&t->rpc, (deed_bytes){copy, message.len});
    memset(copy, 0xa5, message.len);
    free(copy);
    arena_reset(&t->scratch);
}

FIXTURE void talk_send_bytes(struct talk *t, deed_bytes message)
{
    talk_give(t, message);
    talk_run(t);
}

FIXTURE void talk_send(struct talk *t, const ProtobufCMessage *message)
{
    size_t size = protobuf_c_message_get_packed_size(message);
    uint8_t *bytes = malloc(size + 1);
    assert_non_null(bytes);
    (void)protobuf_c_message_pack(message, bytes);
    talk_send_bytes(t, (deed_bytes){bytes, size});
    free(bytes);
}

FIXTURE void talk_half_close(struct talk *t)
{
    t->half_closed = true;
    if (t->rpc.method->half_closed != NULL && !rpc_ended(&t->rpc)) {
        t->rpc.method->half_closed(&t->rpc);
    }
    talk_run(t);
}

/* The next reply's bytes; ptr NULL: there is none. Valid until the next step. */
FIXTURE deed_bytes talk_reply_bytes(struct talk *t)
{
    size_t left = t->out.len - t->read;
    if (left == 0) return (deed_bytes){0};
    const uint8_t *at = t->out.ptr + t->read;
    assert_true(left >= GRPC_FRAME_HEAD_SIZE);
    assert_int_equal(at[0], 0); /* not compressed */
    size_t size = (size_t)at[1] << 24 | (size_t)at[2] << 16 | (size_t)at[3] << 8 | at[4];
    assert_true(size <= left - GRPC_FRAME_HEAD_SIZE);
    t->read += GRPC_FRAME_HEAD_SIZE + size;
    return (deed_bytes){at + GRPC_FRAME_HEAD_SIZE, size};
}

/* The next reply, in the talk's arena; NULL: there is none. */
FIXTURE void *talk_reply(struct talk *t, const ProtobufCMessageDescriptor *type)
{
    deed_bytes bytes = talk_reply_bytes(t);
    if (bytes.ptr == NULL) return NULL;
    void *message = grpc_unpack(type, bytes, &t->arena, &err);
    if (message == NULL) fail_msg("reply: %s", err.message);
    return message;
}

FIXTURE size_t talk_reply_count(struct talk *t)
{
    size_t read = t->read;
    size_t count = 0;
    while (talk_reply_bytes(t).ptr != NULL) count++;
    t->read = read;
    return count;
}

/* ---- endings -------------------------------------------------------------------------------- */

FIXTURE void expect_ended(struct talk *t, enum grpc_code code, const char *part)
{
    if (!t->over) fail_msg("the call has not ended");
    deed_str message = t->rpc.end.message;
    if (t->rpc.end.code != code) {
        fail_msg("ended with %d, not %d: %.*s", (int)t->rpc.end.code, (int)code, DEED_FMT(message));
    }
    if (memmem(message.ptr == NULL ? "" : message.ptr, message.len, part, strlen(part)) == NULL) {
        fail_msg("message \"%.*s\" lacks \"%s\"", DEED_FMT(message), part);
    }
}

FIXTURE deed_str trailer_of(struct talk *t, const char *name)
{
    for (size_t i = 0; i < t->rpc.end.trailer_count; i++) {
        if (deed_str_equal(t->rpc.end.trailers[i].name, deed_str_of(name))) {
            return t->rpc.end.trailers[i].value;
        }
    }
    return (deed_str){0};
}

FIXTURE void expect_trailer(struct talk *t, const char *name, const char *value)
{
    deed_str found = trailer_of(t, name);
    if (found.ptr == NULL) fail_msg("no trailer %s", name);
    if (!deed_str_equal(found, deed_str_of(value))) {
        fail_msg("trailer %s is \"%.*s\", not \"%s\"", name, DEED_FMT(found), value);
    }
}

/* The client has gone, if the call has not ended. */
FIXTURE void talk_close(struct talk *t)
{
    bool free_now = false;
    if (!t->over) atomic_store(&t->rpc.cancelled, true);
    t->over = true; /* no pull any more */
    rpc_release(&t->rpc);
    while (!free_now) {
        if (talk_taken(t, true, &free_now)) continue;
        if (!options.no_threads || !store_step(store)) fail_msg("the call is held for ever");
    }
    if (t->rpc.method->close != NULL) t->rpc.method->close(&t->rpc);
    rpc_done(&t->rpc);
    arena_done(&t->arena);
    arena_done(&t->scratch);
    buf_done(&t->out);
    os_cond_done(&t->changed);
    os_mutex_done(&t->lock);
    free(t);
}

#endif
