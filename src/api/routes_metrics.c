/* routes_metrics.c - Prometheus's text format 0.0.4: one table row a metric, one line a value. */
#include <inttypes.h>
#include <stdio.h>

#include "api/process.h"
#include "api/reply.h"
#include "base/uuid.h"
#include "domain/executor.h"
#include "groups/groups.h"
#include "query/queries.h"

enum metric_kind { COUNTER, GAUGE, HISTOGRAM };

static void metric_head(struct buf *out, enum metric_kind kind, const char *name, const char *help)
{
    static const char *const kinds[] = {"counter", "gauge", "histogram"};
    buf_printf(out, "# HELP deedbook_%s %s\n# TYPE deedbook_%s %s\n", name, help, name,
               kinds[kind]);
}

static void metric(struct buf *out, enum metric_kind kind, const char *name, uint64_t value,
                   const char *help)
{
    metric_head(out, kind, name, help);
    buf_printf(out, "deedbook_%s %" PRIu64 "\n", name, value);
}

/* A label's value: backslash, quote and line feed are escaped. */
static void label_put(struct buf *out, deed_str value)
{
    for (size_t i = 0; i < value.len; i++) {
        char c = value.ptr[i];
        if (c == '\\' || c == '"') buf_add_byte(out, '\\');
        if (c == '\n') {
            buf_add(out, "\\n", 2);
        } else {
            buf_add_byte(out, (uint8_t)c);
        }
    }
}

/* The store counts each value in the one bucket where it fits; Prometheus wants them cumulated. */
static void histogram(struct buf *out, const char *name, const struct store_histogram *h,
                      const char *help)
{
    uint64_t count = 0;
    metric_head(out, HISTOGRAM, name, help);
    for (unsigned i = 0; i < STORE_HISTOGRAM_BUCKETS; i++) {
        count += h->buckets[i];
        buf_printf(out, "deedbook_%s_bucket{le=\"%.6f\"} %" PRIu64 "\n", name,
                   (double)(UINT64_C(1) << i) / 1e6, count);
    }
    count += h->buckets[STORE_HISTOGRAM_BUCKETS];
    buf_printf(out, "deedbook_%s_bucket{le=\"+Inf\"} %" PRIu64 "\n", name, count);
    buf_printf(out, "deedbook_%s_sum %.9f\n", name, (double)h->sum_ns / 1e9);
    buf_printf(out, "deedbook_%s_count %" PRIu64 "\n", name, count);
}

/* ---- the parts ------------------------------------------------------------------------------ */

static void put_log(struct buf *out, struct store *store)
{
    struct deed_info info;
    char id[UUID_TEXT_SIZE + 1];
    store_info(store, &info);
    uuid_format(info.log_id, id);
    metric_head(out, GAUGE, "log_info", "The log's identity.");
    buf_printf(out, "deedbook_log_info{log_id=\"%s\",epoch=\"%" PRIu64 "\"} 1\n", id, info.epoch);
    metric(out, GAUGE, "position", info.position, "Position of the newest event.");
    metric(out, GAUGE, "log_size_bytes", info.log_size, "Bytes of the log on disk.");
    metric(out, GAUGE, "segments", info.segment_count, "Segments of the log.");
    metric(out, GAUGE, "streams", info.stream_count, "Streams that were ever written.");
    metric(out, GAUGE, "writable", info.writable, "1 while appends are taken.");
    metric(out, GAUGE, "damaged", info.corrupt_first != DEED_NONE,
           "1 while a part of the log is known to be damaged.");
    /* No series before there is a backup: its age would be that of 1970. */
    if (info.backup_position > 0) {
        metric(out, GAUGE, "backup_position", info.backup_position,
               "Position up to which the newest backup goes.");
        metric(out, GAUGE, "backup_timestamp_seconds",
               (uint64_t)(info.backup_made_at_ns / 1000000000), "When the newest backup was made.");
    }
    metric(out, GAUGE, "unsafe", info.unsafe,
           "1 if appends are acknowledged before they are durable.");
}

/* The background care: sealing, the index's runs, the caches. */
static void put_care(struct buf *out, const struct store_metrics *m)
{
    metric(out, GAUGE, "segments_sealed", m->segments_sealed, "Segments that are sealed.");
    metric(out, GAUGE, "segments_waiting", m->segments_waiting, "Closed segments to be sealed.");
    metric(out, COUNTER, "seals_total", m->seals, "Segments that were sealed or rewritten.");
    metric(out, COUNTER, "seal_failures_total", m->seal_failures, "Attempts at it that failed.");
    metric(out, GAUGE, "seal_failing", m->seal_failing, "1 while the last attempt to seal failed.");
    metric(out, GAUGE, "index_runs", m->runs, "Runs of the index.");
    metric(out, GAUGE, "index_memory_runs", m->runs_in_memory, "Of them, in memory.");
    metric(out, GAUGE, "index_memory_bytes", m->run_memory, "Bytes of the runs in memory.");
    metric(out, COUNTER, "index_runs_written_total", m->runs_written, "Run files written.");
    metric(out, COUNTER, "index_runs_merged_total", m->runs_merged, "Run files merged.");
    metric(out, COUNTER, "index_runs_rebuilt_total", m->runs_rebuilt,
           "Run files made anew from the log.");
    metric(out, COUNTER, "index_run_failures_total", m->run_failures,
           "Attempts at a run file that failed.");
    metric(out, GAUGE, "index_failing", m->run_failing, "1 while the last attempt at one failed.");
    metric(out, GAUGE, "cache_bytes", m->cache_size, "Bytes of blocks in the cache.");
    metric(out, COUNTER, "cache_hits_total", m->cache_hits, "Blocks that were in the cache.");
    metric(out, COUNTER, "cache_misses_total", m->cache_misses, "Blocks that were read.");
    metric(out, GAUGE, "files_open", m->files_open, "Files of log and index held open to read.");
}

static void put_store(struct buf *out, struct store *store)
{
    struct store_metrics m;
    store_get_metrics(store, &m);
    metric(out, COUNTER, "appends_total", m.appends, "Appends that were stored.");
    metric(out, COUNTER, "append_events_total", m.append_events, "Events that were stored.");
    metric(out, COUNTER, "append_bytes_total", m.append_bytes, "Bytes of events that were stored.");
    metric(out, COUNTER, "appends_refused_total", m.appends_refused,
           "Appends refused: a condition, a limit, a full queue.");
    metric(out, COUNTER, "appends_failed_total", m.appends_failed,
           "Appends that failed while they were written.");
    metric(out, COUNTER, "commit_groups_total", m.groups, "Groups of appends, one sync each.");
    metric(out, COUNTER, "reads_total", m.reads, "Cursors opened.");
    metric(out, COUNTER, "read_events_total", m.read_events, "Events read.");
    metric(out, COUNTER, "read_bytes_total", m.read_bytes, "Bytes of events read.");
    metric(out, GAUGE, "append_queue_count", m.queue_count, "Appends that wait now.");
    metric(out, GAUGE, "append_queue_bytes", m.queue_bytes, "Bytes of appends that wait now.");
    metric(out, COUNTER, "backups_total", m.backups, "Backups that were made.");
    metric(out, COUNTER, "backups_failed_total", m.backups_failed, "Backups that failed.");
    metric(out, COUNTER, "backup_bytes_total", m.backup_bytes, "Bytes copied by backups.");
    metric(out, COUNTER, "compactions_total", m.compactions, "Compactions and erasures that ended.");
    metric(out, COUNTER, "compactions_failed_total", m.compactions_failed,
           "Compactions and erasures that were given up.");
    metric(out, COUNTER, "compaction_events_removed_total", m.events_removed,
           "Events whose content was removed from the log.");
    metric(out, COUNTER, "compaction_bytes_reclaimed_total", m.bytes_reclaimed,
           "Bytes that segments became smaller by.");
    put_care(out, &m);
    histogram(out, "append_seconds", &m.append, "From an append's submission to its answer.");
    histogram(out, "sync_seconds", &m.sync, "The device's part: one sync.");
}

static void put_executor(struct buf *out, struct executor *executor)
{
    struct executor_metrics m;
    executor_get_metrics(executor, &m);
    metric(out, COUNTER, "commands_total", m.commands, "Commands taken.");
    metric(out, COUNTER, "commands_rejected_total", m.rejected, "Commands the domain rejected.");
    metric(out, COUNTER, "commands_invalid_total", m.invalid, "Commands with wrong fields.");
    metric(out, COUNTER, "commands_failed_total", m.failed, "Commands whose domain code failed.");
    metric(out, COUNTER, "commands_conflicts_total", m.conflicts,
           "Decisions made again since another writer was first.");
    metric(out, COUNTER, "commands_repeated_total", m.repeated,
           "Commands answered from their idempotency key.");
    metric(out, COUNTER, "commands_without_events_total", m.no_events,
           "Commands that changed nothing.");
    metric(out, GAUGE, "command_queue_count", m.queue_count, "Commands that wait now.");
    metric(out, COUNTER, "worker_restarts_total", m.worker_restarts,
           "Domain workers started again.");
    metric(out, COUNTER, "worker_timeouts_total", m.worker_timeouts,
           "Domain workers stopped for taking too long.");
    histogram(out, "command_seconds", &m.decide, "From a command's submission to its answer.");
}

static void put_queries(struct buf *out, struct queries *queries)
{
    struct query_metrics m;
    queries_get_metrics(queries, &m);
    metric(out, COUNTER, "queries_total", m.queries, "Queries asked.");
    metric(out, COUNTER, "queries_failed_total", m.failed, "Queries not answered.");
    metric(out, COUNTER, "query_rows_total", m.rows, "Rows answered.");
    histogram(out, "query_seconds", &m.run,
              "From a query's arrival to its answer, waiting included.");
}

/* ---- projections: one value a projection ------------------------------------------------------
 */

static void projection_value(struct buf *out, const char *name, deed_str projection, uint64_t value)
{
    buf_printf(out, "deedbook_projection_%s{projection=\"", name);
    label_put(out, projection);
    buf_printf(out, "\"} %" PRIu64 "\n", value);
}

static uint64_t value_position(const struct projection_status *p)
{
    return p->position;
}
static uint64_t value_lag(const struct projection_status *p)
{
    return p->lag;
}
static uint64_t value_running(const struct projection_status *p)
{
    return p->state == PROJECTION_RUNNING;
}
static uint64_t value_failed(const struct projection_status *p)
{
    return p->state == PROJECTION_FAILED;
}
static uint64_t value_generation(const struct projection_status *p)
{
    return p->generation;
}
static uint64_t value_events(const struct projection_status *p)
{
    return p->events;
}
static uint64_t value_transactions(const struct projection_status *p)
{
    return p->transactions;
}
static uint64_t value_size(const struct projection_status *p)
{
    return p->size;
}
static uint64_t value_rebuilding(const struct projection_status *p)
{
    return p->rebuilding;
}

static const struct {
    const char *name;
    enum metric_kind kind;
    uint64_t (*value)(const struct projection_status *p);
    const char *help;
} projection_metrics[] = {
    {"position", GAUGE, value_position, "Checkpoint of the live generation."},
    {"lag", GAUGE, value_lag, "Positions between the checkpoint and the log's end."},
    {"running", GAUGE, value_running, "1 while it follows the log."},
    {"failed", GAUGE, value_failed, "1 while a statement has failed."},
    {"generation", GAUGE, value_generation, "The live generation."},
    {"events_total", COUNTER, value_events, "Events applied since the start."},
    {"transactions_total", COUNTER, value_transactions, "Transactions since the start."},
    {"size_bytes", GAUGE, value_size, "Bytes of the read model's file."},
    {"rebuilding", GAUGE, value_rebuilding, "1 while the next generation is being built."},
};

static void put_projections(struct buf *out, struct projections *projections, struct arena *arena)
{
    struct projection_status *list;
    size_t count;
    if (projections_list(projections, arena, &list, &count, NULL) != DEED_OK) return;
    for (size_t i = 0; i < sizeof projection_metrics / sizeof projection_metrics[0]; i++) {
        char name[64];
        (void)snprintf(name, sizeof name, "projection_%s", projection_metrics[i].name);
        metric_head(out, projection_metrics[i].kind, name, projection_metrics[i].help);
        for (size_t k = 0; k < count; k++) {
            projection_value(out, projection_metrics[i].name, list[k].name,
                             projection_metrics[i].value(&list[k]));
        }
    }
}

/* ---- consumer groups: one value a group --------------------------------------------------------- */

static uint64_t group_lag(const struct group_info *g)
{
    if (g->last_known == DEED_NONE) return 0;
    uint64_t saved = g->checkpoint == DEED_NONE ? 0 : g->checkpoint;
    return g->last_known > saved ? g->last_known - saved : 0;
}
static uint64_t group_stopped(const struct group_info *g)
{
    return g->trouble.len > 0;
}
static uint64_t group_consumers(const struct group_info *g)
{
    return g->consumer_count;
}
static uint64_t group_in_flight(const struct group_info *g)
{
    return g->in_flight_count;
}
static uint64_t group_parked(const struct group_info *g)
{
    return g->parked_count;
}
static uint64_t group_delivered(const struct group_info *g)
{
    return g->total;
}

static const struct {
    const char *name;
    enum metric_kind kind;
    uint64_t (*value)(const struct group_info *g);
    const char *help;
} group_metrics[] = {
    {"lag", GAUGE, group_lag, "From the saved checkpoint to the source's newest event."},
    {"stopped", GAUGE, group_stopped, "1 while it cannot go on."},
    {"consumers", GAUGE, group_consumers, "Consumers."},
    {"in_flight", GAUGE, group_in_flight, "Events with consumers, not acknowledged."},
    {"parked", GAUGE, group_parked, "Parked events."},
    {"delivered_total", COUNTER, group_delivered, "Events delivered since the start."},
};

static void put_groups(struct buf *out, struct groups *groups, struct arena *arena)
{
    struct group_info *list;
    size_t count;
    if (groups_list(groups, (deed_str){0}, arena, &list, &count, NULL) != DEED_OK) return;
    for (size_t i = 0; i < sizeof group_metrics / sizeof group_metrics[0]; i++) {
        char name[64];
        (void)snprintf(name, sizeof name, "group_%s", group_metrics[i].name);
        metric_head(out, group_metrics[i].kind, name, group_metrics[i].help);
        for (size_t k = 0; k < count; k++) {
            buf_printf(out, "deedbook_%s{source=\"", name);
            label_put(out, list[k].source);
            buf_add_str(out, DEED_STR("\",group=\""));
            label_put(out, list[k].name);
            buf_printf(out, "\"} %" PRIu64 "\n", group_metrics[i].value(&list[k]));
        }
    }
}

static void put_process(struct buf *out)
{
    struct process_stats stats;
    if (!process_stats_get(&stats)) return;
    buf_printf(out,
               "# HELP process_resident_memory_bytes Resident memory.\n"
               "# TYPE process_resident_memory_bytes gauge\n"
               "process_resident_memory_bytes %" PRIu64 "\n"
               "# HELP process_virtual_memory_bytes Virtual memory.\n"
               "# TYPE process_virtual_memory_bytes gauge\n"
               "process_virtual_memory_bytes %" PRIu64 "\n"
               "# HELP process_open_fds Open files.\n"
               "# TYPE process_open_fds gauge\n"
               "process_open_fds %" PRIu64 "\n"
               "# HELP process_threads Threads.\n"
               "# TYPE process_threads gauge\n"
               "process_threads %" PRIu64 "\n"
               "# HELP process_cpu_seconds_total Processor time, user and system.\n"
               "# TYPE process_cpu_seconds_total counter\n"
               "process_cpu_seconds_total %.2f\n",
               stats.resident_size, stats.virtual_size, stats.open_files, stats.threads,
               stats.cpu_seconds);
}

void metrics_get(struct call *c)
{
    const struct api_parts *parts = &c->api->parts;
    struct buf *out = call_body(c);
    metric_head(out, GAUGE, "build_info", "The program's version.");
    buf_printf(out, "deedbook_build_info{version=\"%s\"} 1\n", deed_version());
    put_log(out, parts->store);
    put_store(out, parts->store);
    if (parts->executor != NULL) put_executor(out, parts->executor);
    if (parts->projections != NULL) put_projections(out, parts->projections, c->arena);
    if (parts->groups != NULL) put_groups(out, parts->groups, c->arena);
    if (parts->queries != NULL) put_queries(out, parts->queries);
    put_process(out);
    if (parts->metrics != NULL) parts->metrics(parts->context, out);
    call_done(c, 200, "text/plain; version=0.0.4; charset=utf-8");
}
