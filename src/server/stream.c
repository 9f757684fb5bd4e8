/* stream.c - between a stream of HTTP/2 and its method.
 *
 *     DATA ─► reader ─► message ─► method ─► pull / rpc_reply ─► out ─► DATA, trailers
 *               │  paused, or answers        │
 *               ▼  are not taken             ▼ in haste on this thread, else on a pool's
 *              held (its window stays shut)
 *
 * (1) A call is freed when its stream is closed, nobody holds its rpc, and it is not queued. The stream
 *     is one hold, a pull on a pool's thread another.
 * (2) Input: what has been given to the method is consumed, and opens the stream's window. While the
 *     method is paused, or more than write_size_max of its answers are not sent, what comes is held, and
 *     the window bounds it. A message that is not whole is consumed as it comes, up to its own limit.
 * (3) Output: pull is asked while less than one pull waits to be sent, so a stream whose client does
 *     not read holds about two pulls, small ones if it never read much, and nobody else waits for it.
 *     Whoever still has more after a few
 *     pulls in haste goes on at a pool's thread: the loop sends meanwhile.
 * (4) A client that sends one message only (client_streams is false) has it given with its half-close.
 * (5) Ended by its method, a call takes no more input and is pulled no more; what it had made is sent,
 *     then its trailers. Without anything to send before them they are the answer's head
 *     (Trailers-Only).
 * (6) `charged` is what the call counts for in the service's in_flight_size. It follows what the call
 *     holds in steps of CHARGE_STEP, so that small calls cost no atomic operation each.
 * (7) When the service stops, a call that only waits (nothing of it at the store, nothing to send) ends
 *     as UNAVAILABLE: clients then look for another server, or come again.
 * (8) When three quarters of in_flight_size_max are taken, streams that hold much and move less than a
 *     rate are reset: otherwise some whose clients do nothing would cost everyone else an UNAVAILABLE.
 * (9) A call is alone when it is its connection's only one, no two met there for ALONE_NS, and nobody else
 *     has asked for anything meanwhile. */
#include "server/stream.h"

#include "api/rpc.h"
#include "base/text.h"
#include "grpc/frame.h"
#include "os/os.h"
#include "server/link.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#define PULL_SIZE ((size_t)256 << 10)
#define PULL_SIZE_FIRST ((size_t)64 << 10)
/* (3): pulls in haste in a row. */
#define BRISK_COUNT_MAX 4
#define CHARGE_STEP ((size_t)16 << 10)
#define FREE_STREAMS_MAX 1024
#define ARENA_KEPT_MAX ((size_t)32 << 10)
#define HEADER_COUNT_MAX 64

/* A call's own memory: what it gathers of one append, and the state of a subscription. */
#define ARENA_SIZE_MAX ((size_t)96 << 20)
/* (8): who holds more than this must move so many bytes a second. */
#define PRESSURE_HELD_MIN ((size_t)48 << 10)
#define PRESSURE_RATE ((uint64_t)16 << 10)

/* Of unpacking one message: the densest takes forty times its bytes, an honest one about one. */
#define SCRATCH_SIZE_MAX(message_size) ((message_size) * 4 + ((size_t)4 << 20))

struct stream {
    struct http2_stream http2; /* first */
    struct rpc rpc;
    struct node node;
    struct waiter waiter;
    struct pool_task task;
    struct service *service;
    struct stream_owner *owner; /* NULL: its stream is closed */
    struct stream *next_free;
    struct stream *hungry_previous, *hungry_next;
    struct arena arena, scratch;
    struct api_header headers[HEADER_COUNT_MAX];
    size_t header_count;
    deed_str http_method, path, content_type, timeout;
    struct grpc_reader reader;
    struct buf held;    /* (2) */
    struct buf message; /* (4) */
    struct buf out;     /* to be sent */
    size_t out_sent;    /* of it */
    struct buf chunk;   /* what a pool's thread has pulled */
    size_t pull_size;
    enum rpc_pull pulled;
    uint64_t growths; /* when the pull began */
    unsigned brisk_count;
    uint64_t wait_until; /* os_ticks_ns: rpc.wait_ms after the last pull */
    uint64_t started_ns;
    size_t charged;
    uint64_t sent, received; /* bytes, ever */
    struct pressure pressure; /* (8) */
    int refused_as; /* grpc-status, or 415 */
    char code[4];   /* the digits of grpc-status */
    struct buf encoded; /* grpc-message */
    bool begun;     /* the method knows of it */
    bool has_message, half_closed;
    bool input_over; /* what comes is dropped */
    bool pulling;    /* on a pool's thread */
    _Atomic bool pull_done;
    bool wants_pull;
    bool ended;     /* the method's last word is known, `out` is all there is */
    bool closed;    /* close was called */
    bool hungry;    /* some of `out` was sent */
    bool plain;     /* no gRPC: `out` is an HTTP body */
};

static void stream_turn(struct stream *call);
static void on_taken(struct node *node);
static void on_grown(struct waiter *waiter);

static void host_push(struct rpc *rpc)
{
    struct stream *call = (struct stream *)(void *)((char *)rpc - offsetof(struct stream, rpc));
    node_push(call->service, &call->node);
}
static const struct rpc_host host = {.push = host_push};

static struct stream *stream_of(struct http2_stream *stream)
{
    return (struct stream *)(void *)stream;
}

static size_t unsent(const struct stream *call)
{
    return call->out.len - call->out_sent;
}

/* ---- life ------------------------------------------------------------------------------------- */

static void stream_destroy(struct stream *call)
{
    arena_done(&call->arena);
    arena_done(&call->scratch);
    buf_done(&call->held);
    buf_done(&call->message);
    buf_done(&call->out);
    buf_done(&call->chunk);
    buf_done(&call->encoded);
    free(call);
}

void streams_free(struct service *service)
{
    while (service->free_streams != NULL) {
        struct stream *call = service->free_streams;
        service->free_streams = call->next_free;
        stream_destroy(call);
    }
    service->free_stream_count = 0;
}

static struct stream *stream_take(struct service *service)
{
    struct stream *call = service->free_streams;
    if (call != NULL) {
        service->free_streams = call->next_free;
        service->free_stream_count--;
        return call;
    }
    call = calloc(1, sizeof *call);
    if (call == NULL) return NULL;
    arena_init(&call->arena, ARENA_SIZE_MAX);
    arena_init(&call->scratch, SCRATCH_SIZE_MAX(RPC_MESSAGE_SIZE_MAX));
    buf_init(&call->held, SIZE_MAX / 4);
    buf_init(&call->message, SIZE_MAX / 4);
    buf_init(&call->out, SIZE_MAX / 4);
    buf_init(&call->chunk, SIZE_MAX / 4);
    buf_init(&call->encoded, SIZE_MAX / 4);
    return call;
}

static void arena_shrink(struct arena *arena)
{
    if (arena->total > ARENA_KEPT_MAX) arena_done(arena);
    arena_reset(arena);
}

/* For the next: small memory is kept. */
static void stream_give_back(struct stream *call)
{
    struct service *service = call->service;
    assert(service->in_flight_size >= call->charged && service->work_count > 0);
    service->in_flight_size -= call->charged;
    service->work_count--;
    grpc_reader_done(&call->reader);
    if (call->begun) rpc_done(&call->rpc);
    if (service->free_stream_count >= FREE_STREAMS_MAX) {
        stream_destroy(call);
        return;
    }
    struct buf *buffers[] = {&call->held, &call->message, &call->out, &call->chunk, &call->encoded};
    for (size_t i = 0; i < sizeof buffers / sizeof buffers[0]; i++) buffer_shrink(buffers[i]);
    arena_shrink(&call->arena);
    arena_shrink(&call->scratch);
    call->header_count = 0;
    call->out_sent = call->charged = 0;
    call->sent = call->received = 0;
    call->http_method = call->path = call->content_type = call->timeout = (deed_str){0};
    call->begun = call->has_message = call->half_closed = call->input_over = call->pulling = false;
    call->wants_pull = call->ended = call->closed = call->hungry = call->plain = false;
    call->next_free = service->free_streams;
    service->free_streams = call;
    service->free_stream_count++;
}

/* (6) */
static void stream_charge(struct stream *call)
{
    size_t held = call->held.len + call->reader.partial.len + call->message.len + unsent(call) +
                  atomic_load(&call->rpc.held) +
                  (call->pulling ? 0 : arena_used(&call->arena)); /* a pull may be using it */
    size_t difference = held > call->charged ? held - call->charged : call->charged - held;
    if (difference < CHARGE_STEP) return;
    if (held > call->charged) {
        call->service->in_flight_size += difference;
    } else {
        call->service->in_flight_size -= difference;
    }
    call->charged = held;
}

struct http2_stream *stream_open(void *context)
{
    struct stream_owner *owner = context;
    struct stream *call = stream_take(owner->service);
    if (call == NULL) return NULL;
    call->service = owner->service;
    call->owner = owner;
    call->node.taken = on_taken;
    call->waiter = (struct waiter){.until = UINT64_MAX, .woken = on_grown};
    atomic_store(&call->pull_done, false);
    call->started_ns = uv_hrtime();
    call->pressure = (struct pressure){.since = uv_now(owner->service->loop)};
    if (http2_stream_count(owner->session) > 0) owner->crowded_ns = call->started_ns;
    owner->service->work_count++;
    return &call->http2;
}

static void hungry_remove(struct stream *call)
{
    if (!call->hungry) return;
    call->hungry = false;
    if (call->hungry_previous == NULL) {
        call->owner->hungry = call->hungry_next;
    } else {
        call->hungry_previous->hungry_next = call->hungry_next;
    }
    if (call->hungry_next != NULL) call->hungry_next->hungry_previous = call->hungry_previous;
}

/* (1) */
static void stream_release(struct stream *call)
{
    if (!call->closed) {
        call->closed = true;
        if (call->rpc.method->close != NULL) call->rpc.method->close(&call->rpc);
    }
    if (!rpc_queued(&call->rpc)) stream_give_back(call);
}

void stream_closed(struct http2_stream *stream, uint32_t error)
{
    struct stream *call = stream_of(stream);
    struct service *service = call->service;
    bool cut = error != HTTP2_NO_ERROR || !call->ended;
    hungry_remove(call);
    call->owner = NULL;
    waiter_end(service, &call->waiter);
    if (!call->begun) {
        traffic_request(service->traffic, traffic_refused, call->http_method, call->refused_as,
                        uv_hrtime() - call->started_ns);
        stream_give_back(call);
        return;
    }
    int code = cut ? GRPC_CANCELLED : (int)call->rpc.end.code;
    traffic_request(service->traffic, call->rpc.method->path.ptr, call->http_method, code,
                    uv_hrtime() - call->started_ns);
    atomic_store(&call->rpc.cancelled, true);
    rpc_release(&call->rpc);
}

/* ---- answering -------------------------------------------------------------------------------- */

static const struct http2_header content_type = {DEED_STR("content-type"),
                                                 DEED_STR("application/grpc")};
static const struct http2_header status_200 = {DEED_STR(":status"), DEED_STR("200")};

static size_t ending_write(struct stream *call, enum grpc_code code, deed_str message,
                           struct http2_header *out)
{
    size_t count = 0;
    int len = snprintf(call->code, sizeof call->code, "%u", (unsigned)code % 100);
    out[count++] = (struct http2_header){DEED_STR("grpc-status"), {call->code, (size_t)len}};
    if (message.len > 0) {
        buf_reset(&call->encoded);
        grpc_percent_encode(message, &call->encoded);
        if (buf_ok(&call->encoded)) {
            out[count++] =
                (struct http2_header){DEED_STR("grpc-message"), buf_str(&call->encoded)};
        }
    }
    return count;
}

size_t stream_trailers(struct http2_stream *stream, struct http2_header *out, size_t max)
{
    struct stream *call = stream_of(stream);
    const struct rpc_ending *end = &call->rpc.end; /* it has ended: nobody changes it */
    if (call->plain) return 0;
    static_assert(RPC_TRAILERS_MAX + 4 <= HTTP2_HEADERS_MAX, "status, message, and a head before");
    assert(call->ended && max >= RPC_TRAILERS_MAX + 2);
    (void)max;
    size_t count = ending_write(call, end->code, end->message, out);
    for (size_t i = 0; i < end->trailer_count; i++) {
        out[count++] = (struct http2_header){end->trailers[i].name, end->trailers[i].value};
    }
    return count;
}

/* A call that no method knows of ends before it begins. */
static void stream_refuse(struct stream *call, enum grpc_code code, const char *message)
{
    struct http2_header headers[4] = {status_200, content_type};
    size_t count = 2 + ending_write(call, code, deed_str_of(message), headers + 2);
    call->refused_as = (int)code;
    call->input_over = call->ended = true;
    http2_respond(&call->http2, headers, count, false);
    link_mark(call->owner->link);
}

/* What is no gRPC is told so. */
static void stream_refuse_plain(struct stream *call)
{
    static const char problem[] =
        "{\"type\":\"about:blank\",\"title\":\"Unsupported Media Type\",\"status\":415,"
        "\"detail\":\"over HTTP/2 this server speaks gRPC (POST, content-type: application/grpc); its "
        "HTTP API is spoken over HTTP/1.1\"}\n";
    const struct http2_header headers[] = {
        {DEED_STR(":status"), DEED_STR("415")},
        {DEED_STR("content-type"), DEED_STR("application/problem+json")},
    };
    call->input_over = call->ended = call->plain = true;
    call->refused_as = 415;
    buf_add_str(&call->out, deed_str_of(problem));
    http2_respond(&call->http2, headers, 2, true);
    link_mark(call->owner->link);
}

/* (5) */
static void stream_answer(struct stream *call)
{
    struct http2_header headers[HTTP2_HEADERS_MAX] = {status_200, content_type};
    if (call->http2.answered) {
        http2_resume(&call->http2);
    } else if (unsent(call) > 0) {
        http2_respond(&call->http2, headers, 2, true);
    } else if (call->ended) {
        size_t count = 2 + stream_trailers(&call->http2, headers + 2, HTTP2_HEADERS_MAX - 2);
        http2_respond(&call->http2, headers, count, false);
    } else {
        return;
    }
    link_mark(call->owner->link);
}

deed_bytes stream_output(struct http2_stream *stream, bool *out_end)
{
    struct stream *call = stream_of(stream);
    *out_end = call->ended;
    return (deed_bytes){call->out.ptr + call->out_sent, unsent(call)};
}

static void hungry_add(struct stream *call)
{
    if (call->hungry) return;
    call->hungry = true;
    call->hungry_previous = NULL;
    call->hungry_next = call->owner->hungry;
    if (call->hungry_next != NULL) call->hungry_next->hungry_previous = call;
    call->owner->hungry = call;
}

void stream_sent(struct http2_stream *stream, size_t size)
{
    struct stream *call = stream_of(stream);
    call->out_sent += size;
    call->sent += size;
    assert(call->out_sent <= call->out.len);
    if (call->out_sent == call->out.len) {
        buffer_shrink(&call->out);
        call->out_sent = 0;
    }
    hungry_add(call);
}

/* ---- pulling ---------------------------------------------------------------------------------- */

static void out_compact(struct stream *call)
{
    if (call->out_sent < unsent(call) || call->out_sent == 0) return;
    buf_consume(&call->out, call->out_sent);
    call->out_sent = 0;
}

static void chunk_take(struct stream *call)
{
    out_compact(call);
    buf_move(&call->out, &call->chunk);
    buffer_shrink(&call->chunk);
}

/* (3) */
static size_t pull_size(const struct stream *call)
{
    return call->sent < PULL_SIZE ? PULL_SIZE_FIRST : PULL_SIZE;
}

static void pull_run(struct pool_task *task)
{
    struct stream *call = (struct stream *)(void *)((char *)task - offsetof(struct stream, task));
    call->pulled = call->rpc.method->pull(&call->rpc, &call->chunk, call->pull_size, false);
    atomic_store(&call->pull_done, true);
    rpc_push(&call->rpc);
    rpc_release(&call->rpc);
}

static void pull_on_pool(struct stream *call)
{
    call->pulling = true;
    call->pull_size = pull_size(call);
    rpc_hold(&call->rpc);
    call->task.run = pull_run;
    pool_submit(call->service->pool, &call->task);
}

/* What a pull has said. Its wants_pull was false when it began, and true now if something has happened
 * meanwhile that it may not have seen. */
static void pull_answered(struct stream *call, enum rpc_pull pulled)
{
    switch (pulled) {
    case RPC_MORE:
        call->wants_pull = true;
        return;
    case RPC_END:
        rpc_end(&call->rpc);
        return;
    case RPC_WAIT:
        call->brisk_count = 0;
        if (call->rpc.wait_ms > 0) {
            call->wait_until = os_ticks_ns(os_real()) + call->rpc.wait_ms * UINT64_C(1000000);
        }
        if (!call->rpc.method->follows || call->service->stopping || call->wants_pull) return;
        call->wants_pull = !waiter_begin(call->service, &call->waiter, call->growths);
        return;
    case RPC_LATER:
        pull_on_pool(call);
    }
}

static bool may_pull(const struct stream *call)
{
    const struct rpc_method *method = call->rpc.method;
    return method->pull != NULL && !call->pulling &&
           (method->client_streams || call->half_closed); /* (4) */
}

/* (3) */
static void stream_pull(struct stream *call)
{
    const struct rpc_method *method = call->rpc.method;
    while (call->wants_pull && may_pull(call) && unsent(call) < pull_size(call) &&
           !rpc_ended(&call->rpc)) {
        waiter_end(call->service, &call->waiter);
        call->growths = atomic_load(&call->service->growths);
        call->wants_pull = false;
        call->wait_until = DEED_NONE;
        out_compact(call);
        if (call->brisk_count++ >= BRISK_COUNT_MAX) { /* (3) */
            pull_on_pool(call);
            return;
        }
        size_t before = call->out.len;
        enum rpc_pull pulled = method->pull(&call->rpc, &call->out, pull_size(call), true);
        assert(pulled != RPC_LATER || call->out.len == before);
        (void)before;
        pull_answered(call, pulled);
    }
}

static void on_grown(struct waiter *waiter)
{
    struct stream *call = (struct stream *)(void *)((char *)waiter - offsetof(struct stream, waiter));
    call->wants_pull = true;
    stream_turn(call);
}

/* ---- input ------------------------------------------------------------------------------------ */

static void input_end(struct stream *call)
{
    call->input_over = true;
    buffer_shrink(&call->held);
    buffer_shrink(&call->message);
}

static void input_fault(struct stream *call, enum grpc_read fault)
{
    size_t limit = call->reader.message_size_max;
    struct rpc *rpc = &call->rpc;
    switch (fault) {
    case GRPC_READ_TOO_LARGE:
        rpc_fail(rpc, GRPC_RESOURCE_EXHAUSTED, NULL, "a message is larger than %zu bytes", limit);
        break;
    case GRPC_READ_COMPRESSED:
        rpc_trailer(rpc, "grpc-accept-encoding", DEED_STR("identity"));
        rpc_fail(rpc, GRPC_UNIMPLEMENTED, NULL, "compressed messages are not taken");
        break;
    case GRPC_READ_MALFORMED:
        rpc_fail(rpc, GRPC_INTERNAL, NULL, "a message's flags are not 0 or 1");
        break;
    default:
        rpc_fail(rpc, GRPC_RESOURCE_EXHAUSTED, NULL, "out of memory for a message");
    }
    input_end(call);
}

static void give_message(struct stream *call, deed_bytes message)
{
    call->rpc.method->message(&call->rpc, message);
    if (arena_used(&call->scratch) > 0) arena_shrink(&call->scratch);
    call->wants_pull = true;
}

static void on_message(struct stream *call, deed_bytes message)
{
    if (call->rpc.method->client_streams) {
        give_message(call, message);
    } else if (call->has_message) {
        rpc_fail(&call->rpc, GRPC_INTERNAL, NULL, "this call takes one message, more came");
        input_end(call);
    } else {
        call->has_message = true;
        buf_add(&call->message, message.ptr, message.len); /* (4) */
        if (!buf_ok(&call->message)) input_fault(call, GRPC_READ_NO_MEMORY);
    }
}

/* (9) */
static bool is_alone(const struct stream *call)
{
    const struct service *service = call->service;
    uint64_t now = call->started_ns;
    return http2_stream_count(call->owner->session) == 1 &&
           now - call->owner->crowded_ns > ALONE_NS && service->recent == call->owner->link &&
           now - service->recent_since > ALONE_NS;
}

static void on_half_closed(struct stream *call)
{
    call->half_closed = true;
    call->rpc.alone = is_alone(call);
    if (!grpc_reader_empty(&call->reader)) {
        rpc_fail(&call->rpc, GRPC_INTERNAL, NULL, "the request ends within a message");
    } else if (!call->rpc.method->client_streams && !call->has_message) {
        rpc_fail(&call->rpc, GRPC_INTERNAL, NULL, "this call takes one message, none came");
    } else {
        if (!call->rpc.method->client_streams) give_message(call, buf_bytes(&call->message));
        if (call->rpc.method->half_closed != NULL) call->rpc.method->half_closed(&call->rpc);
        call->wants_pull = true;
    }
    input_end(call);
}

/* (2) */
static bool takes_input(const struct stream *call)
{
    return !atomic_load(&call->rpc.paused) &&
           unsent(call) < call->service->limits.write_size_max;
}

/* Give the method what it takes of `in`; answers how many bytes. */
static size_t input_give(struct stream *call, deed_bytes in)
{
    size_t size = in.len;
    while (!call->input_over && takes_input(call)) {
        deed_bytes message;
        if (in.len == 0) break;
        enum grpc_read got = grpc_read(&call->reader, &in, &message);
        if (got == GRPC_READ_MORE) break;
        if (got != GRPC_READ_MESSAGE) {
            input_fault(call, got);
            break;
        }
        on_message(call, message);
        if (rpc_ended(&call->rpc)) input_end(call);
    }
    return call->input_over ? size : size - in.len;
}

/* What was held, as far as the method takes it now. */
static void input_resume(struct stream *call)
{
    if (call->held.len > 0 && !call->input_over && takes_input(call)) {
        struct buf held = call->held;
        buf_init(&call->held, held.size_max);
        size_t taken = input_give(call, buf_bytes(&held));
        if (!call->input_over) {
            buf_consume(&held, taken);
            call->held = held;
        } else {
            buf_done(&held);
        }
        http2_consumed(&call->http2, taken);
    }
    if (call->http2.peer_ended && call->held.len == 0 && !call->input_over && takes_input(call)) {
        on_half_closed(call);
    }
}

void stream_data(struct http2_stream *stream, deed_bytes bytes)
{
    struct stream *call = stream_of(stream);
    call->received += bytes.len;
    if (!call->begun || call->input_over || rpc_ended(&call->rpc)) {
        http2_consumed(stream, bytes.len);
        return;
    }
    size_t taken = call->held.len > 0 ? 0 : input_give(call, bytes);
    if (taken < bytes.len && !call->input_over) {
        buf_add(&call->held, bytes.ptr + taken, bytes.len - taken);
        if (!buf_ok(&call->held)) input_fault(call, GRPC_READ_NO_MEMORY);
    }
    http2_consumed(stream, call->input_over ? bytes.len : taken);
    if (atomic_load(&call->service->in_flight_size) > call->service->limits.in_flight_size_max &&
        call->charged > CHARGE_STEP) {
        traffic_add(call->service->traffic, TRAFFIC_OVERLOADS, 1);
        rpc_fail(&call->rpc, GRPC_UNAVAILABLE, NULL, "Server Is Too Busy");
        input_end(call);
    }
    stream_turn(call);
}

void stream_ended(struct http2_stream *stream)
{
    struct stream *call = stream_of(stream);
    if (!call->begun) return;
    stream_turn(call);
}

/* ---- turns ------------------------------------------------------------------------------------ */

/* (7): nothing of it is at the store or on a pool's thread, and nothing is to be sent. */
static bool only_waits(struct stream *call)
{
    return !call->pulling && !(call->wants_pull && may_pull(call)) && unsent(call) == 0 &&
           atomic_load(&call->rpc.life) <= 1;
}

/* Something has happened: take what the method has made, ask it for more, and send. */
static void stream_turn(struct stream *call)
{
    struct rpc *rpc = &call->rpc;
    if (call->owner == NULL || call->ended) return;
    if (!rpc_ended(rpc)) input_resume(call);
    rpc_take_replies(rpc, &call->out);
    stream_pull(call);
    if (call->service->stopping && only_waits(call)) {
        rpc_fail(rpc, GRPC_UNAVAILABLE, NULL, "the server is shutting down");
    }
    if (!call->pulling && rpc_ended(rpc)) {
        rpc_take_replies(rpc, &call->out); /* what was given meanwhile */
        waiter_end(call->service, &call->waiter);
        input_end(call);
        call->ended = true;
    }
    if (!buf_ok(&call->out)) {
        http2_reset(&call->http2, HTTP2_INTERNAL_ERROR);
        return;
    }
    stream_charge(call);
    stream_answer(call);
}

static void on_taken(struct node *node)
{
    struct stream *call = (struct stream *)(void *)((char *)node - offsetof(struct stream, node));
    if (rpc_taken(&call->rpc)) {
        stream_release(call);
        return;
    }
    bool pulled = atomic_exchange(&call->pull_done, false);
    if (pulled) call->pulling = false;
    if (call->owner == NULL) return; /* its release is on its way */
    if (rpc_woken(&call->rpc)) call->wants_pull = true;
    if (pulled) {
        chunk_take(call);
        pull_answered(call, call->pulled);
    }
    stream_turn(call);
}

void streams_feed(struct stream_owner *owner)
{
    while (owner->hungry != NULL) {
        struct stream *call = owner->hungry;
        hungry_remove(call);
        if (!call->begun) continue;
        stream_charge(call);
        stream_turn(call);
    }
}

/* (8) */
static void check_pressure(struct stream *call)
{
    uint64_t moved = call->sent + call->received;
    bool takes = unsent(call) >= PRESSURE_HELD_MIN;
    size_t begun = call->reader.partial.len + atomic_load(&call->rpc.held);
    bool sends =
        !call->input_over && !atomic_load(&call->rpc.paused) && begun >= PRESSURE_HELD_MIN;
    if (!pressure_slow(call->service, &call->pressure, takes || sends, moved, PRESSURE_RATE)) return;
    traffic_add(call->service->traffic, TRAFFIC_TIMEOUTS, 1);
    http2_reset(&call->http2, HTTP2_ENHANCE_YOUR_CALM);
    link_mark(call->owner->link);
}

void streams_tick(struct stream_owner *owner)
{
    uint64_t now_ticks = os_ticks_ns(os_real());
    for (struct http2_stream *each = http2_streams(owner->session); each != NULL; each = each->next) {
        struct stream *call = stream_of(each);
        if (call->begun) check_pressure(call);
        if (call->begun && !call->ended && now_ticks >= call->rpc.deadline_ticks) {
            rpc_fail(&call->rpc, GRPC_DEADLINE_EXCEEDED, NULL, "the call's deadline has passed");
            atomic_store(&call->rpc.cancelled, true);
            stream_turn(call);
        } else if (call->begun && !call->ended && call->service->stopping) {
            stream_turn(call); /* (7): the last hold is given back without a word */
        } else if (call->begun && !call->ended && now_ticks >= call->wait_until) {
            call->wants_pull = true;
            stream_turn(call);
        }
    }
}

void streams_stop(struct stream_owner *owner)
{
    for (struct http2_stream *each = http2_streams(owner->session); each != NULL; each = each->next) {
        if (stream_of(each)->begun) stream_turn(stream_of(each));
    }
}

/* ---- the head --------------------------------------------------------------------------------- */

void stream_header(struct http2_stream *stream, deed_str name, deed_str value)
{
    struct stream *call = stream_of(stream);
    deed_str kept = arena_str(&call->arena, value);
    if (kept.ptr == NULL) return; /* what is missing is answered in stream_head */
    if (deed_str_equal(name, DEED_STR(":path"))) {
        call->path = kept;
    } else if (deed_str_equal(name, DEED_STR(":method"))) {
        call->http_method = kept;
    } else if (deed_str_equal(name, DEED_STR("content-type"))) {
        call->content_type = kept;
    } else if (deed_str_equal(name, DEED_STR("grpc-timeout"))) {
        call->timeout = kept;
    } else if (call->header_count < HEADER_COUNT_MAX) {
        name = arena_str(&call->arena, name);
        if (name.ptr == NULL) return;
        call->headers[call->header_count++] = (struct api_header){name, kept};
    }
}

/* "application/grpc", "application/grpc+proto", with parameters or without. */
static bool is_grpc(deed_str type)
{
    const deed_str grpc = DEED_STR("application/grpc"), proto = DEED_STR("+proto");
    if (!str_starts_with(type, grpc)) return false;
    type = (deed_str){type.ptr + grpc.len, type.len - grpc.len};
    if (str_starts_with(type, proto)) type = (deed_str){type.ptr + proto.len, type.len - proto.len};
    return type.len == 0 || type.ptr[0] == ';' || type.ptr[0] == ' ';
}

static void stream_begin(struct stream *call, const struct rpc_method *method)
{
    struct rpc *rpc = &call->rpc;
    struct service *service = call->service;
    size_t message_size_max =
        method->message_size_max == 0 ? RPC_MESSAGE_SIZE_MAX : method->message_size_max;
    uint64_t timeout_ns;
    rpc_init(rpc, service->api, method, &host);
    call->scratch.total_max = SCRATCH_SIZE_MAX(message_size_max);
    grpc_reader_init(&call->reader, message_size_max);
    rpc->arena = &call->arena;
    rpc->scratch = &call->scratch;
    rpc->headers = call->headers;
    rpc->header_count = call->header_count;
    rpc->peer = arena_str(&call->arena, deed_str_of(call->owner->link->peer)); /* it may outlive it */
    if (call->timeout.len > 0 && grpc_timeout_parse(call->timeout, &timeout_ns)) {
        uint64_t now = os_ticks_ns(os_real());
        rpc->deadline_ticks = timeout_ns < DEED_NONE - now ? now + timeout_ns : DEED_NONE;
    }
    call->brisk_count = 0;
    call->wait_until = DEED_NONE;
    call->begun = call->wants_pull = true;
    if (method->begin != NULL) method->begin(rpc);
    if (!call->http2.peer_ended) stream_turn(call);
}

void stream_head(struct http2_stream *stream)
{
    struct stream *call = stream_of(stream);
    struct service *service = call->service;
    const struct rpc_method *method;
    if (service->recent != call->owner->link) {
        service->recent = call->owner->link;
        service->recent_since = call->started_ns;
    }
    if (!deed_str_equal(call->http_method, DEED_STR("POST")) || !is_grpc(call->content_type)) {
        stream_refuse_plain(call);
    } else if ((method = rpc_method_find(call->path)) == NULL) {
        stream_refuse(call, GRPC_UNIMPLEMENTED, "there is no such method");
    } else if (service->stopping) {
        stream_refuse(call, GRPC_UNAVAILABLE, "the server is shutting down");
    } else if (atomic_load(&service->in_flight_size) > service->limits.in_flight_size_max) {
        traffic_add(service->traffic, TRAFFIC_OVERLOADS, 1);
        stream_refuse(call, GRPC_UNAVAILABLE, "Server Is Too Busy");
    } else {
        stream_begin(call, method);
    }
}
