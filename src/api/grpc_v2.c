/* grpc_v2.c - AppendSession and AppendRecords: several streams, at once or not at all.
 *
 *     AppendSession   AppendRequest (one stream, its records, what is expected) … ─► one append
 *     AppendRecords   records of any streams, and checks of any ─────────────────► one append
 *
 * (1) An expectation or check becomes one of the store's conditions, in the order of the request.
 * (2) What the store refuses names one condition. AppendRecords owes its client all checks that fail,
 *     and which stream is closed for good the store says by a position: both are looked up afterwards,
 *     on a pool's thread. So the first violation is what was decided, the others are as of a little
 *     later.
 * (3) Until `answered` is true what the call holds belongs to the loop's thread, or to the store. */
#include "api/grpc.h"
#include "api/grpc_v2_error.h"
#include "api/grpc_v2_record.h"
#include "base/text.h"
#include "base/uuid.h"
#include "grpc/pb.h"
#include "store/store.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>

/* A commit of the largest size, and what stands around it. */
#define V2_MESSAGE_MAX ((size_t)34 << 20)

#define NO_CHECK SIZE_MAX

#define EXPECT_NUMBER_ANY (-2)

/* A stream that is written or looked at. */
struct v2_stream {
    deed_str name;
    int64_t expected;
    enum deed_expect expect;
    uint64_t revision;
    size_t first_event, last_event; /* NO_CHECK: none is written to it */
    size_t condition;               /* NO_CHECK: none */
    int32_t index;                  /* in the order that violations count */
};

struct v2_call {
    struct rpc *rpc;
    bool session;
    bool failed;
    struct grpc_gathered events;
    struct v2_stream *streams; /* the session's in its order; else the checks', then the others */
    size_t stream_count, stream_room;
    struct deed_condition *conditions;
    uint64_t *revisions;
    struct deed_append append;
    atomic_bool answered; /* (3) */
    struct deed_appended appended;
    struct deed_error err;
};

static struct store *store_of(const struct v2_call *c)
{
    return c->rpc->api->parts.store;
}

/* ---- failing -------------------------------------------------------------------------------- */

#define DETAIL_SIZE_MAX 4096 /* of the violations: clients bound what headers they take */

static void fail_bad(struct v2_call *c, const char *message)
{
    v2_fail(c->rpc, V2_BAD_REQUEST, (deed_bytes){0}, "%s", message);
}

static void fail_no_memory(struct v2_call *c)
{
    v2_fail(c->rpc, V2_SERVER_OVERLOADED, (deed_bytes){0}, "out of memory");
}

static void fail_stream(struct v2_call *c, enum v2_reason reason, deed_str stream,
                        const char *what)
{
    struct buf detail;
    buf_init(&detail, DETAIL_SIZE_MAX);
    pb_put_str(&detail, 1, stream);
    v2_fail(c->rpc, reason, buf_bytes(&detail), "Stream '%.*s' %s", DEED_FMT(stream), what);
    buf_done(&detail);
}

static int32_t size32(uint64_t size)
{
    return size > INT32_MAX ? INT32_MAX : (int32_t)size;
}

static void fail_record_size(struct v2_call *c, deed_str stream, const struct gather_trouble *t)
{
    char id[UUID_TEXT_SIZE + 1];
    struct buf detail;
    uuid_format(t->id, id);
    buf_init(&detail, DETAIL_SIZE_MAX);
    pb_put_str(&detail, 1, stream);
    pb_put_str(&detail, 2, deed_str_of(id));
    pb_put_uint(&detail, 3, (uint64_t)size32(t->size));
    pb_put_uint(&detail, 4, (uint64_t)size32(t->limit));
    v2_fail(c->rpc, V2_APPEND_RECORD_SIZE_EXCEEDED, buf_bytes(&detail),
            "The size of record %s (%" PRIu64 " bytes) exceeds the maximum of %" PRIu64 " bytes", id,
            t->size, t->limit);
    buf_done(&detail);
}

static void fail_gathered(struct v2_call *c, const struct gather_trouble *t)
{
    char message[256];
    gather_message(t, message, sizeof message);
    if (t->fault == GATHER_APPEND_SIZE) {
        struct buf detail;
        buf_init(&detail, DETAIL_SIZE_MAX);
        pb_put_uint(&detail, 1, (uint64_t)size32(t->size));
        pb_put_uint(&detail, 2, (uint64_t)size32(t->limit));
        v2_fail(c->rpc, V2_APPEND_TRANSACTION_SIZE_EXCEEDED, buf_bytes(&detail), "%s", message);
        buf_done(&detail);
    } else if (t->fault == GATHER_BUSY || t->fault == GATHER_NO_MEMORY) {
        v2_fail(c->rpc, V2_SERVER_OVERLOADED, (deed_bytes){0}, "%s", message);
    } else {
        fail_bad(c, message);
    }
}

/* What is neither a version nor a deletion. */
static void fail_other(struct v2_call *c, const struct deed_error *err)
{
    static const enum v2_reason reasons[] = {
        [WRITE_INVALID] = V2_BAD_REQUEST,         [WRITE_BUSY] = V2_SERVER_OVERLOADED,
        [WRITE_NOT_READY] = V2_SERVER_NOT_READY,  [WRITE_FAILED] = V2_SERVER_MALFUNCTION,
    };
    enum write_outcome outcome = grpc_outcome(DEED_EXPECT_ANY, err);
    assert(outcome >= WRITE_INVALID);
    v2_fail(c->rpc, reasons[outcome], (deed_bytes){0}, "%s", err->message);
}

/* ---- where the streams are, afterwards (2) -------------------------------------------------- */

struct where {
    int64_t state;     /* a revision; -1 nowhere, -5 deleted, -6 closed */
    int64_t revision;  /* -1: none was ever written */
    bool has_metadata; /* of a stream without events */
};

static struct where where_is(struct v2_call *c, deed_str stream)
{
    struct deed_stream_info info;
    struct where out = {.state = -1, .revision = -1};
    if (store_stream(store_of(c), stream, &info, NULL) == DEED_OK) {
        out.revision = (int64_t)info.revision;
        out.state = info.tombstoned ? -6 : info.deleted ? -5 : out.revision;
        return out;
    }
    struct arena arena;
    arena_init(&arena, 1 << 16);
    deed_str metadata = arena_printf(&arena, "$$%.*s", DEED_FMT(stream));
    out.has_metadata =
        metadata.ptr != NULL && store_stream(store_of(c), metadata, &info, NULL) == DEED_OK;
    arena_done(&arena);
    return out;
}

static bool holds(int64_t expected, const struct where *w)
{
    switch (expected) {
    case -1: return w->state == -1 || w->state == -5;
    case EXPECT_NUMBER_ANY: return w->state != -6;
    case -4: return w->state >= 0 || w->has_metadata;
    case -5:
    case -6: return w->state == expected;
    default: return w->state != -6 && w->revision == expected;
    }
}

static struct v2_stream *stream_named(struct v2_call *c, deed_str name)
{
    for (size_t i = 0; i < c->stream_count; i++) {
        deed_str own = c->streams[i].name;
        if (deed_str_equal(own, name)) return &c->streams[i];
        /* A stream's metadata is closed with it. */
        bool metadata = own.len == name.len + 2 && memcmp(own.ptr, "$$", 2) == 0 &&
                        memcmp(own.ptr + 2, name.ptr, name.len) == 0;
        if (metadata) return &c->streams[i];
    }
    return NULL;
}

/* The stream that the store's refusal is about. */
static struct v2_stream *stream_refused(struct v2_call *c)
{
    struct v2_stream *found = NULL;
    for (size_t i = 0; c->err.condition != DEED_NONE && i < c->stream_count; i++) {
        if (c->streams[i].condition == c->err.condition) return &c->streams[i];
    }
    struct deed_cursor *cursor;
    struct deed_event event;
    struct deed_read_options how = {.after_position = c->err.position - 1,
                                    .until_position = c->err.position,
                                    .filter.system = true,
                                    .removed = true};
    if (c->err.position != DEED_NONE && c->err.position > 0 &&
        store_read(store_of(c), &how, &cursor, NULL) == DEED_OK) {
        if (cursor_next(cursor, &event, NULL) == DEED_OK) found = stream_named(c, event.stream);
        cursor_close(cursor);
    }
    return found != NULL ? found : &c->streams[0];
}

static void fail_session(struct v2_call *c)
{
    struct v2_stream *s = stream_refused(c);
    if (grpc_outcome(s->expect, &c->err) == WRITE_STREAM_DELETED) {
        fail_stream(c, V2_STREAM_TOMBSTONED, s->name, "has been tombstoned");
        return;
    }
    int64_t actual = c->err.revision == DEED_NONE ? -1 : (int64_t)c->err.revision;
    struct buf detail;
    buf_init(&detail, DETAIL_SIZE_MAX);
    pb_put_str(&detail, 1, s->name);
    pb_put_sint(&detail, 2, s->expected);
    pb_put_sint(&detail, 3, actual);
    v2_fail(c->rpc, V2_STREAM_REVISION_CONFLICT, buf_bytes(&detail),
            "Append failed due to a revision conflict on stream '%.*s'. Expected revision: %" PRId64
            ". Actual revision: %" PRId64,
            DEED_FMT(s->name), s->expected, actual);
    buf_done(&detail);
}

static void put_violation(struct buf *out, const struct v2_stream *s, int64_t actual)
{
    size_t violation = pb_begin(out, 1);
    pb_put_uint(out, 1, (uint64_t)s->index);
    size_t state = pb_begin(out, 2);
    pb_put_str(out, 1, s->name);
    pb_put_sint(out, 2, s->expected);
    pb_put_sint(out, 3, actual);
    pb_end(out, state);
    pb_end(out, violation);
}

static void fail_records(struct v2_call *c)
{
    struct v2_stream *refused = stream_refused(c);
    struct buf detail;
    size_t count = 0;
    buf_init(&detail, 1 << 20);
    for (size_t i = 0; i < c->stream_count && detail.len < DETAIL_SIZE_MAX; i++) {
        const struct v2_stream *s = &c->streams[i];
        struct where w = where_is(c, s->name);
        bool takes_none = s->last_event != NO_CHECK && w.state == -6;
        bool good = holds(s->expected, &w) && !takes_none;
        int64_t actual = w.state;
        if (good && s != refused) continue;
        if (good) {
            /* It has moved since, or it was an id that was known: as it was decided. */
            actual = c->err.status == DEED_DELETED    ? -6
                     : c->err.revision == DEED_NONE ? -1
                                                    : (int64_t)c->err.revision;
        }
        put_violation(&detail, s, actual);
        count++;
    }
    v2_fail(c->rpc, V2_APPEND_CONSISTENCY_VIOLATION, buf_bytes(&detail),
            "%zu of the append's consistency checks failed: %s", count, c->err.message);
    buf_done(&detail);
}

/* ---- answering ------------------------------------------------------------------------------ */

/* AppendSessionResponse, or AppendRecordsResponse. */
static void put_answer(struct v2_call *c, struct buf *out)
{
    size_t frame = grpc_frame_begin(out);
    for (size_t i = 0; i < c->stream_count; i++) {
        const struct v2_stream *s = &c->streams[i];
        if (s->last_event == NO_CHECK) continue;
        size_t one = pb_begin(out, 1);
        pb_put_str(out, 1, s->name);
        pb_put_sint(out, 2, (int64_t)c->revisions[s->last_event]);
        pb_end(out, one);
    }
    pb_put_sint(out, 2, (int64_t)c->appended.position);
    grpc_frame_end(out, frame);
}

static int by_first_event(const void *a, const void *b)
{
    const struct v2_stream *x = a, *y = b;
    return (x->first_event > y->first_event) - (x->first_event < y->first_event);
}

static enum rpc_pull v2_pull(struct rpc *rpc, struct buf *out, size_t size_wanted, bool haste)
{
    struct v2_call *c = rpc->state;
    (void)size_wanted;
    if (!atomic_load(&c->answered)) return RPC_WAIT;
    deed_status status = c->err.status;
    if (status == DEED_OK) {
        /* Checks come first in the order of violations, but not in that of the answer. */
        if (!c->session) qsort(c->streams, c->stream_count, sizeof *c->streams, by_first_event);
        put_answer(c, out);
        return RPC_END;
    }
    if (status != DEED_CONFLICT && status != DEED_DELETED) {
        fail_other(c, &c->err);
        return RPC_END;
    }
    if (haste) return RPC_LATER; /* (2) */
    if (c->session) {
        fail_session(c);
    } else {
        fail_records(c);
    }
    return RPC_END;
}

/* On the committer's thread. */
static void v2_answered(void *context, const struct deed_appended *appended,
                        const struct deed_error *err)
{
    struct v2_call *c = context;
    struct rpc *rpc = c->rpc;
    if (appended != NULL) c->appended = *appended;
    if (err != NULL) c->err = *err;
    atomic_store(&c->answered, true);
    rpc_wake(rpc);
    rpc_release(rpc);
}

/* All streams are known: store the events. */
static void v2_submit(struct v2_call *c)
{
    struct deed_new_event *events;
    size_t count = 0;
    c->conditions = calloc(c->stream_count + 1, sizeof *c->conditions);
    c->revisions = calloc(c->events.count + 1, sizeof *c->revisions);
    if (c->conditions == NULL || c->revisions == NULL ||
        !gathered_join(&c->events, (deed_str){0}, &events)) {
        fail_no_memory(c);
        return;
    }
    for (size_t i = 0; i < c->stream_count; i++) { /* (1) */
        struct v2_stream *s = &c->streams[i];
        s->condition = NO_CHECK;
        if (s->expect == DEED_EXPECT_ANY) continue;
        s->condition = count;
        c->conditions[count++] = (struct deed_condition){.kind = DEED_CONDITION_STREAM,
                                                         .stream = s->name,
                                                         .expect = s->expect,
                                                         .revision = s->revision};
    }
    c->append = (struct deed_append){.events = events,
                                     .event_count = c->events.count,
                                     .conditions = c->conditions,
                                     .condition_count = count,
                                     .out_revisions = c->revisions};
    c->err = (struct deed_error){0};
    rpc_hold(c->rpc);
    struct deed_error err = {0};
    deed_status status = store_submit_foreign(store_of(c), &c->append, v2_answered, c, &err);
    if (status == DEED_OK) return; /* (3) */
    err.status = status;
    v2_answered(c, NULL, &err);
}

/* ---- both calls ----------------------------------------------------------------------------- */

static void v2_begin(struct rpc *rpc, bool session)
{
    struct v2_call *c = calloc(1, sizeof *c);
    if (c == NULL) {
        rpc_fail(rpc, GRPC_RESOURCE_EXHAUSTED, NULL, "out of memory");
        return;
    }
    c->rpc = rpc;
    c->session = session;
    gathered_init(&c->events, rpc->api);
    rpc->state = c;
}

static void v2_close(struct rpc *rpc)
{
    struct v2_call *c = rpc->state;
    if (c == NULL) return;
    gathered_done(&c->events);
    free(c->streams);
    free(c->conditions);
    free(c->revisions);
    free(c);
}

/* NULL: no memory. */
static struct v2_stream *stream_add(struct v2_call *c, deed_str name)
{
    if (c->stream_count == c->stream_room) {
        size_t room = c->stream_room * 2 + 8;
        struct v2_stream *grown = realloc(c->streams, room * sizeof *grown);
        if (grown == NULL) return NULL;
        c->streams = grown;
        c->stream_room = room;
    }
    struct v2_stream *s = &c->streams[c->stream_count++];
    *s = (struct v2_stream){.name = name,
                            .expected = EXPECT_NUMBER_ANY,
                            .expect = DEED_EXPECT_ANY,
                            .first_event = NO_CHECK,
                            .last_event = NO_CHECK};
    return s;
}

/* false: there is no such expectation. */
static bool stream_expects(struct v2_stream *s, int64_t expected)
{
    static const enum deed_expect expects[] = {[1] = DEED_EXPECT_NONE,   [2] = DEED_EXPECT_ANY,
                                               [4] = DEED_EXPECT_EXISTS, [5] = DEED_EXPECT_DELETED,
                                               [6] = DEED_EXPECT_TOMBSTONED};
    s->expected = expected;
    if (expected >= 0) {
        s->expect = DEED_EXPECT_REVISION;
        s->revision = (uint64_t)expected;
        return true;
    }
    if (expected < -6 || expected == -3) return false;
    s->expect = expects[-expected];
    return true;
}

/* A record's trouble ends the call. */
static void fail_record(struct v2_call *c, enum v2_fault fault, deed_str stream,
                        const struct v2_trouble *t)
{
    if (fault == V2_RECORD_BAD) {
        fail_bad(c, t->message);
    } else if (fault == V2_RECORD_SIZE) {
        fail_record_size(c, stream, &t->gather);
    } else {
        fail_gathered(c, &t->gather);
    }
}

/* Keep a name beyond its message. ptr NULL: the call has failed. */
static deed_str keep_name(struct v2_call *c, deed_str name)
{
    struct gather_trouble trouble;
    uint8_t *at;
    if (gathered_room(&c->events, 0, name.len + 1, &at, &trouble) == NULL) {
        fail_gathered(c, &trouble);
        return (deed_str){0};
    }
    if (name.len > 0) memcpy(at, name.ptr, name.len);
    return (deed_str){(const char *)at, name.len};
}

/* ---- AppendSession -------------------------------------------------------------------------- */

struct request {
    deed_str stream;
    bool expects;
    int64_t expected;
    size_t record_count;
};

static bool parse_request(deed_bytes message, struct request *out)
{
    struct pb_reader r = pb_reader_over(message);
    *out = (struct request){.stream = {"", 0}};
    for (struct pb_field f; pb_next(&r, &f);) {
        if (pb_is(&f, 1, PB_BYTES)) out->stream = pb_str(&f);
        if (pb_is(&f, 2, PB_BYTES)) out->record_count++;
        if (pb_is(&f, 3, PB_VARINT)) {
            out->expects = true;
            out->expected = pb_zigzag(f.value);
        }
    }
    return !r.bad;
}

static bool take_records(struct v2_call *c, deed_bytes message, deed_str stream)
{
    struct pb_reader r = pb_reader_over(message);
    for (struct pb_field f; pb_next(&r, &f);) {
        struct v2_trouble trouble;
        deed_str of_record = stream;
        /* AppendSession's records are field 2, AppendRecords' are field 1. */
        if (!pb_is(&f, c->session ? 2 : 1, PB_BYTES)) continue;
        enum v2_fault fault = v2_record_take(&c->events, f.bytes, stream, c->rpc->scratch,
                                             &of_record, &trouble);
        if (fault == V2_RECORD_OK) continue;
        fail_record(c, fault, of_record, &trouble);
        return false;
    }
    return true;
}

static bool take_request(struct v2_call *c, deed_bytes message)
{
    struct request request;
    struct v2_trouble trouble;
    if (!parse_request(message, &request)) {
        fail_bad(c, "the message is malformed");
    } else if (!v2_stream_valid(request.stream, &trouble)) {
        fail_bad(c, trouble.message);
    } else if (request.record_count == 0) {
        fail_bad(c, "a request needs at least one record");
    } else if (request.expects && (request.expected == -5 || request.expected == -6)) {
        fail_bad(c, "expected_revision must be a revision, or -1, -2 or -4");
    } else {
        deed_str name = keep_name(c, request.stream);
        if (name.ptr == NULL) return false;
        struct v2_stream *s = stream_add(c, name);
        if (s == NULL) {
            fail_no_memory(c);
            return false;
        }
        s->first_event = c->events.count;
        s->last_event = c->events.count + request.record_count - 1;
        if (request.expects && !stream_expects(s, request.expected)) {
            fail_bad(c, "expected_revision must be a revision, or -1, -2 or -4");
            return false;
        }
        return take_records(c, message, name);
    }
    return false;
}

static void session_begin(struct rpc *rpc)
{
    v2_begin(rpc, true);
}

static void session_message(struct rpc *rpc, deed_bytes message)
{
    struct v2_call *c = rpc->state;
    if (c == NULL || c->failed) return;
    c->failed = !take_request(c, message);
    atomic_store(&rpc->held, (size_t)c->events.held);
}

static int order_without_case(const void *a, const void *b)
{
    deed_str x = *(const deed_str *)a, y = *(const deed_str *)b;
    for (size_t i = 0; i < x.len && i < y.len; i++) {
        int order = (uint8_t)ascii_lower(x.ptr[i]) - (uint8_t)ascii_lower(y.ptr[i]);
        if (order != 0) return order;
    }
    return (x.len > y.len) - (x.len < y.len);
}

/* Does a name stand twice, in a session also in other letters' case? `out` is which; its ptr NULL: none
 * does. false: no memory. */
static bool name_twice(const struct v2_call *c, deed_str *out)
{
    deed_str *names = calloc(c->stream_count + 1, sizeof *names);
    *out = (deed_str){0};
    if (names == NULL) return false;
    for (size_t i = 0; i < c->stream_count; i++) names[i] = c->streams[i].name;
    int (*order)(const void *, const void *) = c->session ? order_without_case : str_order;
    qsort(names, c->stream_count, sizeof *names, order);
    for (size_t i = 1; i < c->stream_count; i++) {
        if (order(&names[i - 1], &names[i]) == 0) *out = names[i];
    }
    free(names);
    return true;
}

static void session_half_closed(struct rpc *rpc)
{
    struct v2_call *c = rpc->state;
    deed_str twice;
    if (c == NULL || c->failed) return;
    if (c->stream_count == 0) {
        v2_fail(rpc, V2_APPEND_SESSION_NO_REQUESTS, (deed_bytes){0},
                "the session ended without a request");
    } else if (!name_twice(c, &twice)) {
        fail_no_memory(c);
    } else if (twice.ptr != NULL) {
        fail_stream(c, V2_STREAM_ALREADY_IN_APPEND_SESSION, twice,
                    "stands in the session more than once");
    } else {
        v2_submit(c);
    }
}

/* ---- AppendRecords -------------------------------------------------------------------------- */

/* ConsistencyCheck */
static bool take_check(struct v2_call *c, deed_bytes message)
{
    deed_bytes state = {0};
    struct v2_trouble trouble;
    deed_str stream = {"", 0};
    int64_t expected = 0;
    struct pb_field f;
    struct pb_reader r = pb_reader_over(message);
    while (pb_next(&r, &f)) {
        if (pb_is(&f, 1, PB_BYTES)) state = f.bytes;
    }
    bool good = !r.bad && state.ptr != NULL;
    r = pb_reader_over(state);
    while (pb_next(&r, &f)) {
        if (pb_is(&f, 1, PB_BYTES)) stream = pb_str(&f);
        if (pb_is(&f, 2, PB_VARINT)) expected = pb_zigzag(f.value);
    }
    if (!good || r.bad) {
        fail_bad(c, "a check is malformed, or of no known type");
        return false;
    }
    if (!v2_stream_valid(stream, &trouble)) {
        fail_bad(c, trouble.message);
        return false;
    }
    deed_str name = keep_name(c, stream);
    if (name.ptr == NULL) return false;
    struct v2_stream *s = stream_add(c, name);
    if (s == NULL) {
        fail_no_memory(c);
        return false;
    }
    s->index = (int32_t)c->stream_count - 1;
    if (!stream_expects(s, expected) || expected == EXPECT_NUMBER_ANY) {
        fail_bad(c, "expected_state must be a revision, or -1, -4, -5 or -6");
        return false;
    }
    return true;
}

struct written {
    deed_str stream;
    size_t event;
};

static int by_stream(const void *a, const void *b)
{
    const struct written *x = a, *y = b;
    int order = str_compare(x->stream, y->stream);
    return order != 0 ? order : (x->event > y->event) - (x->event < y->event);
}

static int by_name(const void *a, const void *b)
{
    const struct v2_stream *x = a, *y = b;
    return str_compare(x->name, y->name);
}

static int by_index(const void *a, const void *b)
{
    const struct v2_stream *x = a, *y = b;
    return (x->index > y->index) - (x->index < y->index);
}

/* qsort refuses NULL even of nothing. */
static void sort_streams(struct v2_stream *streams, size_t count,
                         int (*order)(const void *, const void *))
{
    if (count > 1) qsort(streams, count, sizeof *streams, order);
}

/* Sorted by stream, the events of each stand together; the checks are sorted the same way. */
static bool match_streams(struct v2_call *c, const struct written *sorted, size_t count)
{
    size_t checks = c->stream_count;
    sort_streams(c->streams, checks, by_name);
    size_t check = 0;
    for (size_t i = 0, next; i < count; i = next) {
        deed_str name = sorted[i].stream;
        for (next = i; next < count && deed_str_equal(sorted[next].stream, name);) next++;
        while (check < checks && str_compare(c->streams[check].name, name) < 0) check++;
        bool checked = check < checks && deed_str_equal(c->streams[check].name, name);
        struct v2_stream *s = checked ? &c->streams[check] : stream_add(c, name);
        if (s == NULL) return false;
        s->first_event = sorted[i].event;
        s->last_event = sorted[next - 1].event;
    }
    /* Those without a check follow the checks, in the order in which they appeared. */
    sort_streams(c->streams, checks, by_index);
    sort_streams(c->streams + checks, c->stream_count - checks, by_first_event);
    for (size_t i = checks; i < c->stream_count; i++) c->streams[i].index = (int32_t)i;
    return true;
}

static bool find_streams(struct v2_call *c)
{
    struct deed_new_event *events;
    size_t count = c->events.count;
    struct written *sorted = calloc(count + 1, sizeof *sorted);
    bool good = sorted != NULL && gathered_join(&c->events, (deed_str){0}, &events);
    if (good) {
        for (size_t i = 0; i < count; i++) sorted[i] = (struct written){events[i].stream, i};
        qsort(sorted, count, sizeof *sorted, by_stream);
        good = match_streams(c, sorted, count);
    }
    free(sorted);
    return good;
}

static bool take_checks(struct v2_call *c, deed_bytes message)
{
    struct pb_reader r = pb_reader_over(message);
    uint32_t count_max = store_limits(store_of(c))->condition_count_max;
    for (struct pb_field f; pb_next(&r, &f);) {
        if (!pb_is(&f, 2, PB_BYTES)) continue;
        if (c->stream_count == count_max) {
            fail_bad(c, "the append has too many checks");
            return false;
        }
        if (!take_check(c, f.bytes)) return false;
    }
    if (r.bad) fail_bad(c, "the message is malformed");
    return !r.bad;
}

static void records_begin(struct rpc *rpc)
{
    v2_begin(rpc, false);
}

static bool take_all(struct v2_call *c, deed_bytes message)
{
    deed_str twice;
    if (!take_checks(c, message) || !take_records(c, message, (deed_str){0})) return false;
    if (c->events.count == 0) {
        fail_bad(c, "an append needs at least one record");
    } else if (!name_twice(c, &twice)) {
        fail_no_memory(c);
    } else if (twice.ptr != NULL) {
        fail_bad(c, "a stream stands in the checks more than once");
    } else if (!find_streams(c)) {
        fail_no_memory(c);
    } else {
        return true;
    }
    return false;
}

static void records_message(struct rpc *rpc, deed_bytes message)
{
    struct v2_call *c = rpc->state;
    if (c != NULL && !c->failed) c->failed = !take_all(c, message);
}

static void records_half_closed(struct rpc *rpc)
{
    struct v2_call *c = rpc->state;
    if (c != NULL && !c->failed && c->events.count > 0) v2_submit(c);
}

const struct rpc_method grpc_v2_methods[] = {
    {RPC_METHOD("kurrentdb.protocol.v2.streams.StreamsService", "AppendSession"),
     .message_size_max = V2_MESSAGE_MAX,
     .client_streams = true,
     .begin = session_begin,
     .message = session_message,
     .half_closed = session_half_closed,
     .pull = v2_pull,
     .close = v2_close},
    {RPC_METHOD("kurrentdb.protocol.v2.streams.StreamsService", "AppendRecords"),
     .message_size_max = V2_MESSAGE_MAX,
     .begin = records_begin,
     .message = records_message,
     .half_closed = records_half_closed,
     .pull = v2_pull,
     .close = v2_close},
};
const size_t grpc_v2_method_count = sizeof grpc_v2_methods / sizeof grpc_v2_methods[0];
