/* grpc_append.c - Append: the events of one append, message by message.
 *
 *     options, proposed_message, proposed_message, …, end of stream ─► store ─► one answer
 *
 * (1) The answer is made on the committer's thread, when the events are durable and readable.
 * (2) A wrong version is an answer like another, told in the fields of both generations of clients.
 * (3) Nothing is kept of a message but what gathered_add copies. */
#include "api/grpc.h"
#include "api/grpc_write.h"
#include "grpc/pb.h"
#include "store/store.h"

#include <stdlib.h>

struct append_call {
    struct rpc *rpc;
    struct grpc_gathered events;
    struct grpc_target target; /* its stream lies in `events` */
    bool has_target;
    bool failed; /* nothing of it is stored any more */
    struct deed_condition condition;
    struct deed_append append;
};

/* ---- the answer ----------------------------------------------------------------------------- */

/* AppendResp.WrongExpectedVersion, in the fields of before 20.6 and of after (2). */
static void put_wrong_version(struct buf *out, const struct grpc_target *target, uint64_t actual)
{
    size_t begin = pb_begin(out, 2);
    if (actual == DEED_NONE) {
        pb_put_empty(out, 2);
        pb_put_empty(out, 7);
    } else {
        pb_put_uint(out, 1, actual);
        pb_put_uint(out, 6, actual);
    }
    switch (target->expect) {
    case DEED_EXPECT_ANY:
        pb_put_empty(out, 4);
        pb_put_empty(out, 9);
        break;
    case DEED_EXPECT_EXISTS:
        pb_put_empty(out, 5);
        pb_put_empty(out, 10);
        break;
    case DEED_EXPECT_NONE:
        pb_put_uint(out, 3, UINT64_MAX);
        pb_put_empty(out, 11);
        break;
    default:
        pb_put_uint(out, 3, target->revision);
        pb_put_uint(out, 8, target->revision);
        break;
    }
    pb_end(out, begin);
}

static void answer(struct append_call *c, enum write_outcome outcome,
                   const struct deed_appended *appended, const struct deed_error *err)
{
    struct rpc *rpc = c->rpc;
    if (outcome != WRITE_DONE && outcome != WRITE_WRONG_VERSION) {
        grpc_fail_outcome(rpc, outcome, c->target.stream, err);
        return;
    }
    struct buf *out = rpc_reply_begin(rpc);
    size_t begin = grpc_frame_begin(out);
    if (outcome == WRITE_DONE) {
        grpc_put_success(out, 1, appended, c->append.event_count > 0);
    } else {
        put_wrong_version(out, &c->target, err->revision);
    }
    grpc_frame_end(out, begin);
    rpc_reply_end(rpc);
    rpc_end(rpc);
}

/* On the committer's thread (1). */
static void append_answered(void *context, const struct deed_appended *appended,
                            const struct deed_error *err)
{
    struct append_call *c = context;
    answer(c, appended != NULL ? WRITE_DONE : grpc_outcome(c->target.expect, err), appended, err);
    rpc_release(c->rpc);
}

/* ---- the call ------------------------------------------------------------------------------- */

static void append_begin(struct rpc *rpc)
{
    struct append_call *c = calloc(1, sizeof *c);
    if (c == NULL) {
        rpc_fail(rpc, GRPC_RESOURCE_EXHAUSTED, NULL, "out of memory");
        return;
    }
    c->rpc = rpc;
    gathered_init(&c->events, rpc->api);
    rpc->state = c;
}

/* false: the call has failed. */
static bool take_options(struct append_call *c, deed_bytes message)
{
    struct gather_trouble trouble;
    deed_bytes copy;
    if (c->has_target) {
        rpc_fail(c->rpc, GRPC_UNKNOWN, NULL,
                 "Exception was thrown by handler. The options were given twice.");
        return false;
    }
    if (!gathered_add(&c->events, message, 2, &copy, &trouble)) { /* (3) */
        grpc_fail_gather(c->rpc, &trouble);
        return false;
    }
    struct pb_reader r = pb_reader_over(copy);
    bool ok = true;
    for (struct pb_field f; ok && pb_next(&r, &f);) {
        if (pb_is(&f, 1, PB_BYTES)) ok = grpc_parse_target(f.bytes, &c->target);
    }
    const char *missing = ok ? grpc_target_missing(&c->target) : "the options are malformed";
    if (missing != NULL) {
        rpc_fail(c->rpc, GRPC_INVALID_ARGUMENT, NULL, "%s", missing);
        return false;
    }
    c->has_target = true;
    c->events.stream_size = c->target.stream.len;
    return true;
}

static bool has_field(deed_bytes message, unsigned number)
{
    struct pb_reader r = pb_reader_over(message);
    for (struct pb_field f; pb_next(&r, &f);) {
        if (pb_is(&f, number, PB_BYTES)) return true;
    }
    return false;
}

static void append_message(struct rpc *rpc, deed_bytes message)
{
    struct append_call *c = rpc->state;
    struct gather_trouble trouble;
    if (c == NULL || c->failed) return;
    c->failed = true;
    if (has_field(message, 1)) {
        c->failed = !take_options(c, message);
    } else if (!c->has_target) {
        rpc_fail(rpc, GRPC_INVALID_ARGUMENT, NULL, "the first message must be the options");
    } else if (!gathered_add(&c->events, message, 2, NULL, &trouble)) {
        grpc_fail_gather(rpc, &trouble);
    } else {
        c->failed = false;
    }
    atomic_store(&rpc->held, (size_t)c->events.held);
}

static void append_half_closed(struct rpc *rpc)
{
    struct append_call *c = rpc->state;
    struct deed_error err = {0};
    if (c == NULL || c->failed) return;
    if (!c->has_target) {
        rpc_fail(rpc, GRPC_INVALID_ARGUMENT, NULL, "the first message must be the options");
        return;
    }
    if (!gathered_append(&c->events, &c->target, &c->condition, &c->append)) {
        rpc_fail(rpc, GRPC_RESOURCE_EXHAUSTED, NULL, "out of memory");
        return;
    }
    rpc_hold(rpc);
    deed_status status = (rpc->alone ? store_submit_foreign_here : store_submit_foreign)(
        rpc->api->parts.store, &c->append, append_answered, c, &err);
    if (status == DEED_OK) return; /* answered by now, or later */
    err.status = status;
    answer(c, grpc_outcome(c->target.expect, &err), NULL, &err);
    rpc_release(rpc);
}

static void append_close(struct rpc *rpc)
{
    struct append_call *c = rpc->state;
    if (c == NULL) return;
    gathered_done(&c->events);
    free(c);
}

const struct rpc_method grpc_append_methods[] = {
    {RPC_METHOD("event_store.client.streams.Streams", "Append"),
     .message_size_max = GRPC_APPEND_MESSAGE_MAX,
     .client_streams = true,
     .begin = append_begin,
     .message = append_message,
     .half_closed = append_half_closed,
     .close = append_close},
};
const size_t grpc_append_method_count = sizeof grpc_append_methods / sizeof grpc_append_methods[0];
