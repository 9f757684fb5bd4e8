/* grpc_operations.c - Operations: care that clients ask for.
 *
 * (1) A scavenge is a compaction: one at a time, whoever asked for it. Its id is made from its number and
 *     from this run of the server, so nothing of it needs to be kept, and an old id is unknown.
 * (2) An erasure that runs is in progress too, and cannot be stopped: it was promised to somebody.
 * (3) There is one node, and its index merges by itself: what would move a cluster's lead, or ask for a
 *     merge, is answered and changes nothing. Nothing hangs on it for the caller.
 * (4) Nobody is asked who he is yet. So stopping the server is allowed only where whoever started it
 *     said so. */
#include "api/call.h"
#include "api/grpc.h"
#include "base/uuid.h"
#include "groups/groups.h"
#include "proto/operations.pb-c.h"

#include <stdio.h>

#define SERVICE "event_store.client.operations.Operations"

static void reply_empty(struct rpc *rpc)
{
    struct buf *out = rpc_reply_begin(rpc);
    grpc_frame_end(out, grpc_frame_begin(out));
    rpc_reply_end(rpc);
    rpc_end(rpc);
}

/* ---- scavenges ------------------------------------------------------------------------------ */

/* (1) */
static deed_uuid id_of(const struct rpc *rpc, uint64_t number)
{
    char name[40];
    int size = snprintf(name, sizeof name, "scavenge %llu", (unsigned long long)number);
    deed_bytes part = {(const uint8_t *)name, (size_t)size};
    return uuid_v5(rpc->api->instance, &part, 1);
}

static void reply_scavenge(struct rpc *rpc, uint64_t number,
                           EventStore__Client__Operations__ScavengeResp__ScavengeResult result)
{
    EventStore__Client__Operations__ScavengeResp reply =
        EVENT_STORE__CLIENT__OPERATIONS__SCAVENGE_RESP__INIT;
    char id[UUID_TEXT_SIZE + 1];
    uuid_format(id_of(rpc, number), id);
    reply.scavenge_id = id;
    reply.scavenge_result = result;
    rpc_reply(rpc, &reply.base);
    rpc_end(rpc);
}

static void on_start_scavenge(struct rpc *rpc, deed_bytes message)
{
    struct deed_compact_options options = {.compress_level = 0};
    struct deed_compaction compaction;
    struct deed_error err = {0};
    EventStore__Client__Operations__StartScavengeReq *r = rpc_unpack(
        rpc, &event_store__client__operations__start_scavenge_req__descriptor, message);
    if (r == NULL) return;
    /* How many threads it takes, and where it begins, is not the caller's: it looks at all segments. */
    if (r->options != NULL && (r->options->thread_count < 0 || r->options->start_from_chunk < 0)) {
        rpc_fail(rpc, GRPC_INVALID_ARGUMENT, NULL,
                 "thread_count %d and start_from_chunk %d must not be negative",
                 (int)r->options->thread_count, (int)r->options->start_from_chunk);
        return;
    }
    deed_status status = store_compact(rpc->api->parts.store, &options, &err);
    if (status != DEED_OK && status != DEED_BUSY) {
        rpc_fail_status(rpc, &err);
        return;
    }
    store_compaction(rpc->api->parts.store, &compaction);
    reply_scavenge(rpc, compaction.number,
                   status == DEED_OK
                       ? EVENT_STORE__CLIENT__OPERATIONS__SCAVENGE_RESP__SCAVENGE_RESULT__Started
                       : EVENT_STORE__CLIENT__OPERATIONS__SCAVENGE_RESP__SCAVENGE_RESULT__InProgress);
}

static void no_scavenge(struct rpc *rpc, const char *id)
{
    rpc_trailer(rpc, "scavenge-id", deed_str_of(id));
    rpc_fail(rpc, GRPC_NOT_FOUND, "scavenge-not-found", "Scavenge '%s' is not running.", id);
}

static void on_stop_scavenge(struct rpc *rpc, deed_bytes message)
{
    struct deed_compaction compaction;
    struct deed_error err = {0};
    deed_uuid id;
    EventStore__Client__Operations__StopScavengeReq *r =
        rpc_unpack(rpc, &event_store__client__operations__stop_scavenge_req__descriptor, message);
    if (r == NULL) return;
    const char *text = r->options == NULL ? "" : r->options->scavenge_id;
    store_compaction(rpc->api->parts.store, &compaction);
    if (!uuid_parse(deed_str_of(text), &id) || !uuid_equal(id, id_of(rpc, compaction.number))) {
        no_scavenge(rpc, text);
        return;
    }
    deed_status status = store_compaction_stop(rpc->api->parts.store, compaction.number, &err);
    if (status == DEED_NOT_FOUND) {
        no_scavenge(rpc, text);
    } else if (status == DEED_INVALID) { /* (2) */
        rpc_fail(rpc, GRPC_FAILED_PRECONDITION, NULL, "%s", err.message);
    } else {
        reply_scavenge(rpc, compaction.number,
                       EVENT_STORE__CLIENT__OPERATIONS__SCAVENGE_RESP__SCAVENGE_RESULT__Stopped);
    }
}

/* ---- the node ------------------------------------------------------------------------------- */

static void on_shutdown(struct rpc *rpc, deed_bytes message)
{
    const struct api_parts *parts = &rpc->api->parts;
    (void)message;
    if (parts->stop == NULL) { /* (4) */
        rpc_fail(rpc, GRPC_PERMISSION_DENIED, "access-denied",
                 "Access Denied: this server was not started with --allow-shutdown");
        return;
    }
    reply_empty(rpc); /* what was accepted is still answered, this too */
    parts->stop(parts->context);
}

/* (3) */
static void on_nothing_to_do(struct rpc *rpc, deed_bytes message)
{
    (void)message;
    reply_empty(rpc);
}

/* All groups' consumers are dropped, and come again: it may wait for the log. */
static void on_restart_groups(struct rpc *rpc, deed_bytes message)
{
    (void)message;
    if (rpc->api->parts.groups == NULL) {
        rpc_fail(rpc, GRPC_UNAVAILABLE, NULL, "consumer groups are not served here");
    }
}

static enum rpc_pull restart_pull(struct rpc *rpc, struct buf *out, size_t size_wanted, bool haste)
{
    (void)size_wanted;
    if (haste) return RPC_LATER;
    groups_restart(rpc->api->parts.groups);
    grpc_frame_end(out, grpc_frame_begin(out));
    rpc_end(rpc);
    return RPC_END;
}

static void on_set_node_priority(struct rpc *rpc, deed_bytes message)
{
    if (rpc_unpack(rpc, &event_store__client__operations__set_node_priority_req__descriptor,
                   message) != NULL) {
        reply_empty(rpc);
    }
}

const struct rpc_method grpc_operations_methods[] = {
    {RPC_METHOD(SERVICE, "StartScavenge"), .message = on_start_scavenge},
    {RPC_METHOD(SERVICE, "StopScavenge"), .message = on_stop_scavenge},
    {RPC_METHOD(SERVICE, "Shutdown"), .message = on_shutdown},
    {RPC_METHOD(SERVICE, "MergeIndexes"), .message = on_nothing_to_do},
    {RPC_METHOD(SERVICE, "ResignNode"), .message = on_nothing_to_do},
    {RPC_METHOD(SERVICE, "SetNodePriority"), .message = on_set_node_priority},
    {RPC_METHOD(SERVICE, "RestartPersistentSubscriptions"),
     .message = on_restart_groups,
     .pull = restart_pull},
};
const size_t grpc_operations_method_count =
    sizeof grpc_operations_methods / sizeof grpc_operations_methods[0];
