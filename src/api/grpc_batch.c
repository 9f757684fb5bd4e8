/* grpc_batch.c - BatchAppend: many appends in one call, told apart by their correlation ids.
 *
 *     chunk ─► open ─► chunk ─► … ─► final chunk ─► store ─► answers ─► pull
 *               `─ deadline ─► Timeout                ^
 *     chunk that is the first and the final ──────────'
 *
 * (1) Most appends are one chunk: it is copied once and submitted, and nothing looks for it. The store
 *     groups all that are on their way into commits of one sync.
 * (2) An append belongs to one thread at a time: to message while it takes a chunk (it is not in
 *     `open` then), to the committer from the submit on. Under the mutex: `open`, `lost`, `answers`,
 *     what is counted.
 * (3) Final chunks are submitted in the order in which they came, and answered in that order.
 * (4) Each append is answered once. Whether it fails before its last chunk or not, what still comes of
 *     it is dropped, also when it brings the options again: it must not begin anew in its middle.
 * (5) What the call holds is bounded: open appends by a limit of their own, those on their way and
 *     answers that the client does not fetch by `paused`. */
#include "api/grpc.h"
#include "api/grpc_write.h"
#include "base/uuid.h"
#include "grpc/pb.h"
#include "store/store.h"

#include <stdlib.h>

#define NS_PER_SECOND INT64_C(1000000000)

/* The longest that an append may stay open, and how long it may when its client does not say. */
#define OPEN_SECONDS_MAX 30

#define OPEN_COUNT_MAX 1024
#define OPEN_BUCKETS   64
#define LOST_COUNT     64 /* more appends that failed halfway than that at once are forgotten */

/* (5). A group commit of a slow disk should not wait for the next because of these. */
#define UNDER_WAY_COUNT_MAX 16384
#define UNDER_WAY_SIZE_MAX  ((uint64_t)32 << 20)
#define ANSWERS_SIZE_MAX    ((size_t)1 << 20)

#define CORRELATION_SIZE_MAX 64

struct batch_append {
    struct batch *batch;
    struct batch_append *next; /* in its bucket of `open` */
    deed_uuid id;
    deed_bytes correlation; /* as it was received; it and the target's stream lie in `events` */
    struct grpc_target target;
    uint64_t deadline_ticks;
    bool begun; /* it has its first chunk */
    bool final; /* and its last */
    struct grpc_gathered events;
    struct deed_condition condition;
    struct deed_append append;
};

struct batch {
    struct rpc *rpc;
    struct os_mutex mutex; /* (2) */
    struct batch_append *open[OPEN_BUCKETS];
    size_t open_count;
    uint64_t open_size;
    deed_uuid lost[LOST_COUNT]; /* failed, and not final yet (4) */
    size_t lost_count, lost_oldest;
    struct buf answers; /* frames */
    uint64_t under_way_count, under_way_size;
    bool half_closed;
};

static struct store *store_of(const struct batch *b)
{
    return b->rpc->api->parts.store;
}

/* ---- answers -------------------------------------------------------------------------------- */

enum batch_error {
    BATCH_NONE,
    BATCH_WRONG_VERSION,
    BATCH_STREAM_DELETED,
    BATCH_TIMEOUT,
    BATCH_APPEND_SIZE,
    BATCH_EVENT_SIZE,
    BATCH_BAD_REQUEST,
    BATCH_NOT_READY,
    BATCH_BUSY,
    BATCH_UNKNOWN,
};

static const struct {
    enum grpc_code code;
    const char *name, *type;
} batch_errors[] = {
#define TYPE(code, name) {code, name, "type.googleapis.com/event_store.client." name}
    [BATCH_WRONG_VERSION] = TYPE(GRPC_ALREADY_EXISTS, "WrongExpectedVersion"),
    [BATCH_STREAM_DELETED] = TYPE(GRPC_NOT_FOUND, "StreamDeleted"),
    [BATCH_TIMEOUT] = TYPE(GRPC_DEADLINE_EXCEEDED, "Timeout"),
    [BATCH_APPEND_SIZE] = TYPE(GRPC_INVALID_ARGUMENT, "MaximumAppendSizeExceeded"),
    [BATCH_EVENT_SIZE] = TYPE(GRPC_INVALID_ARGUMENT, "MaximumAppendEventSizeExceeded"),
    [BATCH_BAD_REQUEST] = TYPE(GRPC_INVALID_ARGUMENT, "BadRequest"),
    /* These two are no failures of the append: the client tries again. */
    [BATCH_NOT_READY] = {GRPC_OK, "Server Is Not Ready",
                         "type.googleapis.com/google.protobuf.Empty"},
    [BATCH_BUSY] = {GRPC_OK, "Server Is Busy", "type.googleapis.com/google.protobuf.Empty"},
    [BATCH_UNKNOWN] = TYPE(GRPC_UNKNOWN, "Unknown"),
#undef TYPE
};

/* How an append ended. */
struct verdict {
    enum batch_error error;
    const struct deed_appended *appended; /* with BATCH_NONE */
    uint64_t revision;                    /* where the stream is */
    uint64_t size, limit;
    deed_uuid event_id;
    const char *message;
};

static void put_wrong_version(struct buf *out, const struct grpc_target *target, uint64_t actual)
{
    if (actual == DEED_NONE) {
        pb_put_empty(out, 2);
    } else {
        pb_put_uint(out, 1, actual);
    }
    switch (target->expect) {
    case DEED_EXPECT_ANY: pb_put_empty(out, 4); break;
    case DEED_EXPECT_EXISTS: pb_put_empty(out, 5); break;
    case DEED_EXPECT_NONE: pb_put_empty(out, 6); break;
    default: pb_put_uint(out, 3, target->revision); break;
    }
}

static uint32_t size32(uint64_t size)
{
    return size > UINT32_MAX ? UINT32_MAX : (uint32_t)size;
}

/* The message inside the Any. */
static void put_details(struct buf *out, const struct grpc_target *target, const struct verdict *v)
{
    char id[UUID_TEXT_SIZE + 1];
    switch (v->error) {
    case BATCH_WRONG_VERSION: put_wrong_version(out, target, v->revision); break;
    case BATCH_STREAM_DELETED: grpc_put_stream(out, 1, target->stream); break;
    case BATCH_APPEND_SIZE: pb_put_uint(out, 1, size32(v->limit)); break;
    case BATCH_EVENT_SIZE:
        uuid_format(v->event_id, id);
        pb_put_str(out, 1, deed_str_of(id));
        pb_put_uint(out, 2, size32(v->size));
        pb_put_uint(out, 3, size32(v->limit));
        break;
    case BATCH_BAD_REQUEST: pb_put_str(out, 1, deed_str_of(v->message)); break;
    default: break;
    }
}

static void put_error(struct buf *out, const struct grpc_target *target, const struct verdict *v)
{
    const char *message = batch_errors[v->error].name;
    if (v->error == BATCH_UNKNOWN && v->message != NULL) message = v->message;
    size_t begin = pb_begin(out, 2);
    if (batch_errors[v->error].code != GRPC_OK) pb_put_uint(out, 1, batch_errors[v->error].code);
    pb_put_str(out, 2, deed_str_of(message));
    size_t any = pb_begin(out, 3);
    pb_put_str(out, 1, deed_str_of(batch_errors[v->error].type));
    size_t value = pb_begin(out, 2);
    put_details(out, target, v);
    pb_end(out, value);
    pb_end(out, any);
    pb_end(out, begin);
}

/* Under the mutex, after each change of either. */
static void held_tell(struct batch *b)
{
    atomic_store_explicit(&b->rpc->held, (size_t)b->open_size + b->answers.len, memory_order_relaxed);
}

static void open_size_set(struct batch *b, uint64_t size)
{
    b->open_size = size;
    held_tell(b);
}

/* Under the mutex. The id goes back as it came; what fired on its own has it as numbers. */
static void put_answer(const struct batch_append *a, const struct verdict *v)
{
    struct buf *out = &a->batch->answers;
    size_t frame = grpc_frame_begin(out);
    if (a->correlation.ptr == NULL || v->error == BATCH_TIMEOUT) {
        grpc_put_uuid(out, 1, a->id, true);
    } else {
        pb_put_bytes(out, 1, a->correlation);
    }
    if (v->error == BATCH_NONE) {
        grpc_put_success(out, 3, v->appended, a->append.event_count > 0);
    } else {
        put_error(out, &a->target, v);
    }
    grpc_put_stream(out, 4, a->target.stream);
    grpc_frame_end(out, frame);
    held_tell(a->batch);
}

static void append_free(struct batch_append *a)
{
    gathered_done(&a->events);
    free(a);
}

/* Under the mutex: is there room for more again? */
static bool resumes(struct batch *b)
{
    if (!atomic_load(&b->rpc->paused)) return false;
    if (b->under_way_count > UNDER_WAY_COUNT_MAX / 2) return false;
    if (b->under_way_size > UNDER_WAY_SIZE_MAX / 2 || b->answers.len > ANSWERS_SIZE_MAX / 2) {
        return false;
    }
    atomic_store(&b->rpc->paused, false);
    return true;
}

/* Under the mutex: more than enough is held (5). */
static void pause_if_full(struct batch *b)
{
    if (b->under_way_count > UNDER_WAY_COUNT_MAX || b->under_way_size > UNDER_WAY_SIZE_MAX ||
        b->answers.len > ANSWERS_SIZE_MAX) {
        atomic_store(&b->rpc->paused, true);
    }
}

/* ---- what failed before the store saw it ---------------------------------------------------- */

/* Under the mutex. */
static void lost_add(struct batch *b, deed_uuid id)
{
    if (b->lost_count < LOST_COUNT) {
        b->lost[b->lost_count++] = id;
    } else {
        b->lost[b->lost_oldest++ % LOST_COUNT] = id;
    }
}

/* Under the mutex. Its last chunk is the last that is looked for. */
static bool lost_take(struct batch *b, deed_uuid id, bool final)
{
    for (size_t i = 0; i < b->lost_count; i++) {
        if (!uuid_equal(b->lost[i], id)) continue;
        if (final) b->lost[i] = b->lost[--b->lost_count];
        return true;
    }
    return false;
}

/* Answer, and free it (4). */
static void append_lose(struct batch_append *a, const struct verdict *v)
{
    struct batch *b = a->batch;
    os_mutex_lock(&b->mutex);
    put_answer(a, v);
    if (!a->final) lost_add(b, a->id);
    pause_if_full(b);
    os_mutex_unlock(&b->mutex);
    append_free(a);
    rpc_wake(b->rpc);
}

static void lose_because(struct batch_append *a, enum batch_error error, const char *message)
{
    struct verdict v = {.error = error, .message = message};
    append_lose(a, &v);
}

static void lose_gathered(struct batch_append *a, const struct gather_trouble *t)
{
    char message[256];
    struct verdict v = {.error = BATCH_BAD_REQUEST,
                        .size = t->size,
                        .limit = t->limit,
                        .event_id = t->id,
                        .message = message};
    gather_message(t, message, sizeof message);
    if (t->fault == GATHER_EVENT_SIZE) v.error = BATCH_EVENT_SIZE;
    if (t->fault == GATHER_APPEND_SIZE) v.error = BATCH_APPEND_SIZE;
    if (t->fault == GATHER_BUSY) v.error = BATCH_BUSY;
    if (t->fault == GATHER_NO_MEMORY) v.error = BATCH_UNKNOWN;
    append_lose(a, &v);
}

/* ---- to the store and back ------------------------------------------------------------------ */

static struct verdict verdict_of(const struct batch_append *a, const struct deed_error *err)
{
    static const enum batch_error errors[] = {
        [WRITE_DONE] = BATCH_NONE,
        [WRITE_WRONG_VERSION] = BATCH_WRONG_VERSION,
        [WRITE_STREAM_DELETED] = BATCH_STREAM_DELETED,
        [WRITE_INVALID] = BATCH_BAD_REQUEST,
        [WRITE_BUSY] = BATCH_BUSY,
        [WRITE_NOT_READY] = BATCH_NOT_READY,
        [WRITE_FAILED] = BATCH_UNKNOWN,
    };
    return (struct verdict){.error = errors[grpc_outcome(a->target.expect, err)],
                            .revision = err->revision,
                            .message = err->message};
}

/* The append was on its way, and is free now. The call may go with it. */
static void append_end(struct batch_append *a, const struct verdict *v)
{
    struct batch *b = a->batch;
    struct rpc *rpc = b->rpc;
    os_mutex_lock(&b->mutex);
    put_answer(a, v);
    b->under_way_count--;
    b->under_way_size -= a->events.held;
    (void)resumes(b);
    os_mutex_unlock(&b->mutex);
    append_free(a);
    rpc_wake(rpc);
    rpc_release(rpc);
}

/* On the committer's thread. */
static void append_answered(void *context, const struct deed_appended *appended,
                            const struct deed_error *err)
{
    struct batch_append *a = context;
    struct verdict v = {.appended = appended};
    if (appended == NULL) v = verdict_of(a, err);
    append_end(a, &v);
}

static void append_submit(struct batch_append *a)
{
    struct batch *b = a->batch;
    struct deed_error err = {0};
    if (!gathered_append(&a->events, &a->target, &a->condition, &a->append)) {
        lose_because(a, BATCH_UNKNOWN, "out of memory");
        return;
    }
    os_mutex_lock(&b->mutex);
    b->under_way_count++;
    b->under_way_size += a->events.held;
    pause_if_full(b);
    os_mutex_unlock(&b->mutex);
    rpc_hold(b->rpc);
    deed_status status = store_submit_foreign(store_of(b), &a->append, append_answered, a, &err);
    if (status == DEED_OK) return; /* the committer's */
    err.status = status;
    struct verdict v = verdict_of(a, &err);
    append_end(a, &v);
}

/* ---- open appends --------------------------------------------------------------------------- */

static struct batch_append **bucket_of(struct batch *b, deed_uuid id)
{
    return &b->open[(id.bytes[15] ^ id.bytes[7] ^ id.bytes[3]) % OPEN_BUCKETS];
}

/* Under the mutex. Take it out (2); NULL: there is none. */
static struct batch_append *open_take(struct batch *b, deed_uuid id)
{
    if (b->open_count == 0) return NULL;
    for (struct batch_append **at = bucket_of(b, id); *at != NULL; at = &(*at)->next) {
        struct batch_append *a = *at;
        if (!uuid_equal(a->id, id)) continue;
        *at = a->next;
        b->open_count--;
        open_size_set(b, b->open_size - a->events.held);
        return a;
    }
    return NULL;
}

static void open_put(struct batch_append *a)
{
    struct batch *b = a->batch;
    uint64_t size_max = store_limits(store_of(b))->commit_size_max;
    os_mutex_lock(&b->mutex);
    uint64_t size = b->open_size + a->events.held;
    bool full = b->open_count > 0 && (b->open_count == OPEN_COUNT_MAX || size > size_max);
    if (!full) {
        struct batch_append **bucket = bucket_of(b, a->id);
        a->next = *bucket;
        *bucket = a;
        b->open_count++;
        open_size_set(b, size);
    }
    os_mutex_unlock(&b->mutex);
    if (full) lose_because(a, BATCH_BAD_REQUEST, "too many appends of this call are not final yet");
}

/* Nanoseconds from now; at most OPEN_SECONDS_MAX, and zero or less: it has passed. Whatever the client
 * says, nothing overflows: some send the last instant there is, others a time where a span is meant. */
static int64_t time_allowed(const struct batch *b, const struct grpc_target *target)
{
    const int64_t most = OPEN_SECONDS_MAX * NS_PER_SECOND;
    if (target->deadline == GRPC_DEADLINE_NONE) return most;
    int64_t now_ns = target->deadline == GRPC_DEADLINE_AT ? os_now_ns(store_os(store_of(b))) : 0;
    int64_t seconds;
    if (__builtin_sub_overflow(target->seconds, now_ns / NS_PER_SECOND, &seconds)) {
        return target->seconds > 0 ? most : 0;
    }
    if (seconds > 4 * OPEN_SECONDS_MAX) return most;
    if (seconds < -4 * OPEN_SECONDS_MAX) return 0;
    int64_t allowed = seconds * NS_PER_SECOND + target->nanos - now_ns % NS_PER_SECOND;
    return allowed < most ? allowed : most;
}

/* Under the mutex: answer those whose time has come; the next one's, or DEED_NONE. */
static uint64_t expire(struct batch *b, uint64_t now_ticks)
{
    static const struct verdict timeout = {.error = BATCH_TIMEOUT};
    uint64_t next = DEED_NONE;
    for (size_t i = 0; b->open_count > 0 && i < OPEN_BUCKETS; i++) {
        for (struct batch_append **at = &b->open[i]; *at != NULL;) {
            struct batch_append *a = *at;
            if (a->deadline_ticks > now_ticks) {
                if (a->deadline_ticks < next) next = a->deadline_ticks;
                at = &a->next;
                continue;
            }
            *at = a->next;
            b->open_count--;
            open_size_set(b, b->open_size - a->events.held);
            put_answer(a, &timeout);
            lost_add(b, a->id);
            append_free(a);
        }
    }
    return next;
}

/* ---- chunks --------------------------------------------------------------------------------- */

struct chunk {
    deed_uuid id;
    deed_bytes correlation, options; /* slices of the message */
    bool has_correlation, has_options, final;
};

static bool parse_chunk(deed_bytes message, struct chunk *out)
{
    struct pb_reader r = pb_reader_over(message);
    *out = (struct chunk){0};
    for (struct pb_field f; pb_next(&r, &f);) {
        if (pb_is(&f, 1, PB_BYTES)) {
            out->correlation = f.bytes;
            out->has_correlation = true;
        } else if (pb_is(&f, 2, PB_BYTES)) {
            out->options = f.bytes;
            out->has_options = true;
        } else if (pb_is(&f, 4, PB_VARINT)) {
            out->final = f.value != 0;
        }
    }
    return !r.bad && out->has_correlation && grpc_parse_uuid(out->correlation, &out->id);
}

static deed_bytes moved(deed_bytes slice, deed_bytes message, deed_bytes copy)
{
    return (deed_bytes){copy.ptr + (slice.ptr - message.ptr), slice.len};
}

static struct batch_append *append_create(struct batch *b, const struct chunk *chunk)
{
    struct batch_append *a = calloc(1, sizeof *a);
    if (a == NULL) return NULL;
    a->batch = b;
    a->id = chunk->id;
    gathered_init(&a->events, b->rpc->api);
    return a;
}

/* What an append's options must say; NULL: they do. */
static const char *what_is_missing(const struct grpc_target *target)
{
    if (target->stream.len == 0) return "the stream's name is missing, or empty";
    if (!target->expects) return "the expected position of the stream is missing";
    return NULL;
}

/* The first chunk's copy is where the answer finds its names from now on. */
static void names_move(struct batch_append *a, deed_bytes message, deed_bytes copy)
{
    deed_bytes stream = deed_bytes_of(a->target.stream);
    if (stream.len > 0) { /* an empty name may be a literal */
        stream = moved(stream, message, copy);
        a->target.stream = (deed_str){(const char *)stream.ptr, stream.len};
    }
    if (a->correlation.ptr != NULL) a->correlation = moved(a->correlation, message, copy);
}

/* Take over a chunk's options and events. false: it has been answered, and is free. */
static bool append_take(struct batch_append *a, const struct chunk *chunk, deed_bytes message)
{
    struct gather_trouble trouble;
    struct grpc_target target = {.stream = {"", 0}};
    deed_bytes copy;
    const char *missing = NULL;
    if (chunk->has_options) {
        bool ok = grpc_parse_target(chunk->options, &target);
        missing = ok ? what_is_missing(&target) : "the options are malformed";
    }
    bool first = !a->begun;
    if (first) {
        a->begun = true;
        a->target = target;
        a->events.stream_size = target.stream.len;
        if (chunk->correlation.len <= CORRELATION_SIZE_MAX) a->correlation = chunk->correlation;
    }
    if (missing != NULL) {
        lose_because(a, BATCH_BAD_REQUEST, missing);
        return false;
    }
    if (!gathered_add(&a->events, message, 3, &copy, &trouble)) {
        lose_gathered(a, &trouble);
        return false;
    }
    if (first) names_move(a, message, copy);
    return true;
}

/* The append that the chunk belongs to; NULL: to none, it is dropped. */
static struct batch_append *append_find(struct batch *b, const struct chunk *chunk)
{
    os_mutex_lock(&b->mutex);
    struct batch_append *a = open_take(b, chunk->id);
    bool lost = a == NULL && b->lost_count > 0 && lost_take(b, chunk->id, chunk->final);
    os_mutex_unlock(&b->mutex);
    if (a != NULL || lost || !chunk->has_options) return a;
    a = append_create(b, chunk);
    if (a == NULL) rpc_fail(b->rpc, GRPC_RESOURCE_EXHAUSTED, NULL, "out of memory");
    return a;
}

static void batch_message(struct rpc *rpc, deed_bytes message)
{
    struct batch *b = rpc->state;
    struct chunk chunk;
    if (b == NULL) return;
    if (!parse_chunk(message, &chunk)) {
        rpc_fail(rpc, GRPC_INVALID_ARGUMENT, NULL,
                 "the message is malformed, or its correlation id is no UUID");
        return;
    }
    struct batch_append *a = append_find(b, &chunk);
    if (a == NULL) return;
    uint64_t now_ticks = os_ticks_ns(store_os(store_of(b)));
    bool first = !a->begun;
    a->final = chunk.final;
    if (!append_take(a, &chunk, message)) return;
    if (first) {
        int64_t allowed = time_allowed(b, &a->target);
        a->deadline_ticks = allowed > 0 ? now_ticks + (uint64_t)allowed : now_ticks;
    }
    if (a->deadline_ticks <= now_ticks) {
        lose_because(a, BATCH_TIMEOUT, NULL);
    } else if (chunk.final) {
        append_submit(a); /* (3) */
    } else {
        open_put(a);
    }
}

/* ---- the call ------------------------------------------------------------------------------- */

static void batch_begin(struct rpc *rpc)
{
    struct batch *b = calloc(1, sizeof *b);
    if (b == NULL) {
        rpc_fail(rpc, GRPC_RESOURCE_EXHAUSTED, NULL, "out of memory");
        return;
    }
    b->rpc = rpc;
    os_mutex_init(&b->mutex);
    buf_init(&b->answers, SIZE_MAX / 4);
    rpc->state = b;
}

/* Takes all of `open`. */
static struct batch_append *open_take_all(struct batch *b)
{
    struct batch_append *all = NULL;
    os_mutex_lock(&b->mutex);
    for (size_t i = 0; i < OPEN_BUCKETS; i++) {
        while (b->open[i] != NULL) {
            struct batch_append *a = b->open[i];
            b->open[i] = a->next;
            a->next = all;
            all = a;
        }
    }
    b->open_count = 0;
    open_size_set(b, 0);
    os_mutex_unlock(&b->mutex);
    return all;
}

static void batch_half_closed(struct rpc *rpc)
{
    struct batch *b = rpc->state;
    if (b == NULL) return;
    for (struct batch_append *a = open_take_all(b), *next; a != NULL; a = next) {
        next = a->next;
        lose_because(a, BATCH_BAD_REQUEST, "the call ended before the append was final");
    }
    os_mutex_lock(&b->mutex);
    b->half_closed = true;
    os_mutex_unlock(&b->mutex);
}

static enum rpc_pull batch_pull(struct rpc *rpc, struct buf *out, size_t size_wanted, bool haste)
{
    struct batch *b = rpc->state;
    (void)size_wanted;
    (void)haste;
    uint64_t now_ticks = os_ticks_ns(store_os(store_of(b)));
    os_mutex_lock(&b->mutex);
    uint64_t next = expire(b, now_ticks);
    bool added = b->answers.len > 0;
    bool good = buf_ok(&b->answers);
    buf_add(out, b->answers.ptr, b->answers.len);
    buf_reset(&b->answers);
    held_tell(b);
    bool resumed = resumes(b);
    bool over = b->half_closed && b->under_way_count == 0;
    os_mutex_unlock(&b->mutex);
    if (!good) rpc_fail(rpc, GRPC_RESOURCE_EXHAUSTED, NULL, "out of memory for an answer");
    if (resumed) rpc_wake(rpc);
    if (over || !good) return RPC_END;
    rpc->wait_ms = 0;
    if (next != DEED_NONE) {
        uint64_t wait_ms = (next - now_ticks) / 1000000 + 1;
        rpc->wait_ms = (uint32_t)wait_ms; /* OPEN_SECONDS_MAX at most */
    }
    return added ? RPC_MORE : RPC_WAIT;
}

static void batch_close(struct rpc *rpc)
{
    struct batch *b = rpc->state;
    if (b == NULL) return;
    for (struct batch_append *a = open_take_all(b), *next; a != NULL; a = next) {
        next = a->next;
        append_free(a);
    }
    buf_done(&b->answers);
    os_mutex_done(&b->mutex);
    free(b);
}

static const char *const batch_features[] = {"deadline_duration", NULL};

const struct rpc_method grpc_batch_methods[] = {
    {RPC_METHOD("event_store.client.streams.Streams", "BatchAppend"),
     .message_size_max = GRPC_APPEND_MESSAGE_MAX,
     .client_streams = true,
     .features = batch_features,
     .begin = batch_begin,
     .message = batch_message,
     .half_closed = batch_half_closed,
     .pull = batch_pull,
     .close = batch_close},
};
const size_t grpc_batch_method_count = sizeof grpc_batch_methods / sizeof grpc_batch_methods[0];
