/* grpc_delete.c - Delete and Tombstone.
 *
 * (1) A deletion reads the stream's metadata and waits for the disk, so it is never made on the loop's
 *     thread.
 * (2) Both say "Delete failed", since that is what clients look for. */
#include "api/accounts.h"
#include "api/grpc.h"
#include "api/grpc_write.h"
#include "groups/groups.h"
#include "grpc/pb.h"
#include "store/store.h"

#include <inttypes.h>

/* Without them groups and accounts are lost, and a tombstone would be for good. */
static bool is_ours(deed_str stream)
{
    return groups_owns(stream) || accounts_own(stream);
}

static void delete_message(struct rpc *rpc, deed_bytes message)
{
    struct grpc_target *target = arena_alloc(rpc->arena, sizeof *target);
    deed_bytes copy = arena_bytes(rpc->arena, message);
    if (target == NULL || copy.ptr == NULL) {
        rpc_fail(rpc, GRPC_RESOURCE_EXHAUSTED, NULL, "out of memory");
        return;
    }
    bool ok = true;
    struct pb_reader r = pb_reader_over(copy);
    for (struct pb_field f; ok && pb_next(&r, &f);) {
        if (pb_is(&f, 1, PB_BYTES)) ok = grpc_parse_target(f.bytes, target);
    }
    const char *missing =
        ok && !r.bad ? grpc_target_missing(target) : "the message is malformed";
    if (missing != NULL) {
        rpc_fail(rpc, GRPC_INVALID_ARGUMENT, NULL, "%s", missing);
    } else if (is_ours(target->stream)) {
        rpc_fail(rpc, GRPC_PERMISSION_DENIED, "access-denied",
                 "Access Denied: stream %.*s is the server's own", DEED_FMT(target->stream));
    } else {
        rpc->state = target;
    }
}

static void fail_wrong_version(struct rpc *rpc, const struct grpc_target *target, uint64_t actual)
{
    int64_t expected = grpc_expected_number(target->expect, target->revision);
    int64_t number = actual == DEED_NONE ? -1 : (int64_t)actual;
    rpc_trailer(rpc, "stream-name", target->stream);
    grpc_trailer_number(rpc, "expected-version", expected);
    grpc_trailer_number(rpc, "actual-version", number);
    rpc_fail(rpc, GRPC_FAILED_PRECONDITION, "wrong-expected-version",
             "Delete failed due to WrongExpectedVersion. Stream: %.*s, Expected version: %" PRId64
             ", Actual version: %" PRId64,
             DEED_FMT(target->stream), expected, number); /* (2) */
}

static enum rpc_pull pull(struct rpc *rpc, struct buf *out, bool haste, bool tombstone)
{
    const struct grpc_target *target = rpc->state;
    struct deed_error err = {0};
    struct deed_appended appended;
    if (haste) return RPC_LATER; /* (1) */
    deed_status status =
        store_delete_foreign(rpc->api->parts.store, target->stream, target->expect,
                             target->revision, tombstone, &appended, &err);
    if (status == DEED_OK) {
        size_t frame = grpc_frame_begin(out);
        grpc_put_position(out, 1, appended.position);
        grpc_frame_end(out, frame);
    } else if (status == DEED_CONFLICT) {
        fail_wrong_version(rpc, target, err.revision);
    } else {
        grpc_fail_outcome(rpc, grpc_outcome(target->expect, &err), target->stream, &err);
    }
    return RPC_END;
}

static enum rpc_pull delete_pull(struct rpc *rpc, struct buf *out, size_t size_wanted, bool haste)
{
    (void)size_wanted;
    return pull(rpc, out, haste, false);
}

static enum rpc_pull tombstone_pull(struct rpc *rpc, struct buf *out, size_t size_wanted,
                                    bool haste)
{
    (void)size_wanted;
    return pull(rpc, out, haste, true);
}

const struct rpc_method grpc_delete_methods[] = {
    {RPC_METHOD("event_store.client.streams.Streams", "Delete"),
     .message = delete_message,
     .pull = delete_pull},
    {RPC_METHOD("event_store.client.streams.Streams", "Tombstone"),
     .message = delete_message,
     .pull = tombstone_pull},
};
const size_t grpc_delete_method_count = sizeof grpc_delete_methods / sizeof grpc_delete_methods[0];
