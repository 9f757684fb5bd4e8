/* grpc_monitoring.c - Monitoring: numbers of the store, now and every so often.
 *
 * The same that /metrics shows, under names of the shape that such clients know; none of them depends
 * on a name. */
#include "api/call.h"
#include "api/grpc.h"
#include "proto/monitoring.pb-c.h"

#include <stdio.h>

/* More often nothing has changed that anybody could read. */
#define PERIOD_MS_MIN UINT64_C(100)
#define PERIOD_MS_MAX UINT64_C(86400000)

struct stats_call {
    uint64_t period_ms, next_ticks;
};

static uint64_t now_ticks(struct rpc *rpc)
{
    return os_ticks_ns(store_os(rpc->api->parts.store));
}

#define STATS_MAX 32

typedef EventStore__Client__Monitoring__StatsResp__Entry entry_message;

struct stats {
    EventStore__Client__Monitoring__StatsResp reply;
    entry_message entries[STATS_MAX], *list[STATS_MAX];
    char values[STATS_MAX][24];
};

static void add(struct stats *s, const char *key, uint64_t value)
{
    size_t i = s->reply.n_stats;
    if (i == STATS_MAX) return;
    event_store__client__monitoring__stats_resp__entry__init(&s->entries[i]);
    (void)snprintf(s->values[i], sizeof s->values[i], "%llu", (unsigned long long)value);
    s->entries[i].key = (char *)(uintptr_t)key; /* only read */
    s->entries[i].value = s->values[i];
    s->list[i] = &s->entries[i];
    s->reply.n_stats++;
}

static bool put_stats(struct rpc *rpc, struct buf *out)
{
    struct store_metrics m;
    struct deed_info info;
    struct stats s;
    event_store__client__monitoring__stats_resp__init(&s.reply);
    s.reply.stats = s.list;
    store_get_metrics(rpc->api->parts.store, &m);
    store_info(rpc->api->parts.store, &info);
    add(&s, "es-log-position", info.position);
    add(&s, "es-log-size", info.log_size);
    add(&s, "es-log-segments", info.segment_count);
    add(&s, "es-log-segmentsSealed", m.segments_sealed);
    add(&s, "es-log-writable", info.writable);
    add(&s, "es-streams", info.stream_count);
    add(&s, "es-writer-appends", m.appends);
    add(&s, "es-writer-events", m.append_events);
    add(&s, "es-writer-bytes", m.append_bytes);
    add(&s, "es-writer-refused", m.appends_refused);
    add(&s, "es-writer-failed", m.appends_failed);
    add(&s, "es-writer-flushes", m.groups);
    add(&s, "es-writer-queueLength", m.queue_count);
    add(&s, "es-writer-queueBytes", m.queue_bytes);
    add(&s, "es-reader-reads", m.reads);
    add(&s, "es-reader-events", m.read_events);
    add(&s, "es-reader-bytes", m.read_bytes);
    add(&s, "es-readIndex-runs", m.runs);
    add(&s, "es-readIndex-cachedRecord", m.cache_hits);
    add(&s, "es-readIndex-notCachedRecord", m.cache_misses);
    add(&s, "es-scavenges", m.compactions);
    add(&s, "es-scavenges-bytesReclaimed", m.bytes_reclaimed);
    return grpc_pack(&s.reply.base, out);
}

static void on_message(struct rpc *rpc, deed_bytes message)
{
    struct stats_call *call = arena_alloc(rpc->arena, sizeof *call);
    EventStore__Client__Monitoring__StatsReq *r =
        rpc_unpack(rpc, &event_store__client__monitoring__stats_req__descriptor, message);
    if (r == NULL) return;
    if (call == NULL) {
        rpc_fail(rpc, GRPC_RESOURCE_EXHAUSTED, NULL, "out of memory");
        return;
    }
    call->period_ms = r->refresh_time_period_in_ms;
    if (call->period_ms < PERIOD_MS_MIN) call->period_ms = PERIOD_MS_MIN;
    if (call->period_ms > PERIOD_MS_MAX) call->period_ms = PERIOD_MS_MAX;
    rpc->state = call;
}

static enum rpc_pull pull(struct rpc *rpc, struct buf *out, size_t size_wanted, bool haste)
{
    struct stats_call *call = rpc->state;
    (void)size_wanted, (void)haste;
    uint64_t now = now_ticks(rpc);
    if (now >= call->next_ticks) {
        call->next_ticks = now + call->period_ms * 1000000;
        if (!put_stats(rpc, out)) {
            rpc_fail(rpc, GRPC_RESOURCE_EXHAUSTED, NULL, "out of memory");
            return RPC_END;
        }
    }
    rpc->wait_ms = (uint32_t)((call->next_ticks - now) / 1000000 + 1);
    return RPC_WAIT;
}

const struct rpc_method grpc_monitoring_methods[] = {
    {RPC_METHOD("event_store.client.monitoring.Monitoring", "Stats"),
     .message = on_message,
     .pull = pull},
};
const size_t grpc_monitoring_method_count =
    sizeof grpc_monitoring_methods / sizeof grpc_monitoring_methods[0];
