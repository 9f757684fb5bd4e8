/* serve.c - open everything in the order of the layers, run, close in the opposite order.
 *
 * (1) What is NULL was never opened; house_close takes a house built to any height.
 * (2) Acknowledged means stored: the server runs until every exchange is finished, and only then
 *     the executor, the projections and the store close, each after what it has accepted.
 * (3) The server's memory goes last: the committer's thread may still be on its way out of the
 *     wake-up after an answer that has been sent already. */
#include "server/serve.h"

#include "api/api.h"
#include "api/backups.h"
#include "api/group_match.h"
#include "base/hash.h"
#include "domain/executor.h"
#include "domain/host.h"
#include "os/failpoint.h"
#include "os/process.h"
#include "projection/projections.h"
#include "query/queries.h"
#include "server/server.h"
#include "server/reporter.h"
#include "server/watcher.h"
#include "store/store.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#define WATCH_INTERVAL_MS 1000
#define LINE_SIZE 1024

struct house {
    const struct config *config;
    const struct serve_options *options;
    struct arena arena;
    struct store *store;
    struct executor *executor;
    struct projections *projections;
    struct queries *queries;
    struct backups *backups;
    struct groups *groups;
    struct server *server;
    struct api *api;
    struct store_watch watch;
    bool watched;
    struct watcher *projection_watcher, *query_watcher;
    struct reporter *reporter;
    const char *projection_folder, *query_folder; /* NULL: no app */
    uint64_t projection_print, query_print;       /* of the folders, before they were read */
};

static void say(struct house *h, const char *format, ...) DEED_PRINTF(2, 3);
static void say(struct house *h, const char *format, ...)
{
    if (h->options->log == NULL) return;
    char line[LINE_SIZE];
    va_list arguments;
    va_start(arguments, format);
    int size = snprintf(line, sizeof line, "deedbook: ");
    (void)vsnprintf(line + size, sizeof line - (size_t)size, format, arguments);
    va_end(arguments);
    h->options->log(h->options->context, line);
}

static void server_says(void *context, const char *line)
{
    say(context, "%s", line);
}

/* ---- the store ------------------------------------------------------------------------------ */

static deed_status store_build(struct house *h, struct deed_error *err)
{
    const struct config *c = h->config;
    struct store_options options = {
        .limits = {.event_size_max = c->event_size_max,
                   .commit_size_max = c->commit_size_max,
                   .commit_count_max = (uint32_t)c->commit_count_max,
                   .name_size_max = (uint32_t)c->name_size_max,
                   .tag_count_max = (uint32_t)c->tag_count_max,
                   .json_depth_max = (uint32_t)c->json_depth_max,
                   .queue_count_max = (uint32_t)c->queue_count_max,
                   .queue_size_max = c->queue_size_max},
        .segment_size = c->segment_size,
        .cache_size = c->cache_size,
        .open_file_count_max = (uint32_t)c->open_file_count_max,
        .unsafe_no_sync = c->unsafe_no_sync,
    };
    deed_status status = store_open(os_real(), c->data, &options, &h->store, err);
    if (status != DEED_OK) return status;

    struct deed_info info;
    store_info(h->store, &info);
    say(h, "%s holds %" PRIu64 " events in %" PRIu64 " streams, %" PRIu64 " bytes", c->data,
        info.position, info.stream_count, info.log_size);
    if (c->unsafe_no_sync) {
        say(h, "unsafe: appends are acknowledged before the disk has them, a power cut may lose "
               "them (unsafe-no-sync)");
    }
    if (!info.writable) say(h, "appends are stopped: %s", info.stopped_because);
    return DEED_OK;
}

/* ---- the app -------------------------------------------------------------------------------- */

static deed_status domain_build(struct house *h, struct deed_error *err)
{
    const struct config *c = h->config;
    const char *path = NULL;
    struct deed_error found = {0};
    deed_status status = host_find_domain(c->app, &h->arena, &path, &found);
    if (status == DEED_NOT_FOUND) {
        say(h, "%s has no domain: there are no commands", c->app);
        return DEED_OK;
    }
    if (status != DEED_OK) return *err = found, status;

    struct domain_host *host = NULL;
    struct host_worker_options worker = {.program = h->options->program,
                                         .deadline_ms = (uint32_t)c->command_timeout,
                                         .memory_size_max = c->worker_memory_max};
    status = host_worker(path, &worker, &host, err);
    if (status != DEED_OK) return status;
    struct executor_options options = {.queue_count_max = (uint32_t)c->command_queue_count_max};
    return executor_open(h->store, host, &options, &h->executor, err);
}

static size_t projection_count(struct house *h)
{
    struct projection_status *list;
    size_t count = 0;
    struct arena arena;
    arena_init(&arena, 16 << 20);
    if (projections_list(h->projections, &arena, &list, &count, NULL) != DEED_OK) count = 0;
    arena_done(&arena);
    return count;
}

static size_t query_count(struct house *h)
{
    struct query_description *list;
    size_t count = 0;
    struct arena arena;
    arena_init(&arena, 16 << 20);
    if (queries_list(h->queries, &arena, &list, &count, NULL) != DEED_OK) count = 0;
    arena_done(&arena);
    return count;
}

/* A wrong file is told and leaves the others as they are: it can be mended while we run. */
static void projections_take(struct house *h)
{
    struct deed_error err = {0};
    if (watcher_fingerprint(h->projection_folder) == 0) return; /* no such folder */
    if (projections_load(h->projections, h->projection_folder, &err) != DEED_OK) {
        say(h, "projections: %s", err.message);
    }
}

static void queries_take(struct house *h)
{
    struct deed_error err = {0};
    if (watcher_fingerprint(h->query_folder) == 0) return;
    if (queries_load(h->queries, h->query_folder, &err) != DEED_OK) {
        say(h, "queries: %s", err.message);
    }
}

static void projections_changed(void *context)
{
    struct house *h = context;
    say(h, "projections changed: loading %s", h->projection_folder);
    projections_take(h);
}

static void queries_changed(void *context)
{
    struct house *h = context;
    say(h, "queries changed: loading %s", h->query_folder);
    queries_take(h);
}

static deed_status folder_join(struct house *h, const char *name, const char **out_path,
                               struct deed_error *err)
{
    deed_str path = arena_printf(&h->arena, "%s/%s", h->config->app, name);
    if (path.ptr == NULL) return deed_fail(err, DEED_NO_MEMORY, "out of memory");
    *out_path = path.ptr;
    return DEED_OK;
}

/* The folder must be there: a misspelt one would else be an app without anything. */
static deed_status app_check(struct house *h, struct deed_error *err)
{
    struct os_dir *dir = NULL;
    deed_status status = os_dir_open(os_real(), h->config->app, false, &dir, err);
    if (status != DEED_OK) deed_wrap(err, "app");
    os_dir_close(dir);
    return status;
}

/* They compare with the prints of before the files were read: no change is missed between. */
static deed_status watchers_start(struct house *h, struct deed_error *err)
{
    if (!h->config->reload) return DEED_OK;
    deed_status status = watcher_start(h->projection_folder, h->projection_print, WATCH_INTERVAL_MS,
                                       projections_changed, h, &h->projection_watcher, err);
    if (status != DEED_OK) return status;
    return watcher_start(h->query_folder, h->query_print, WATCH_INTERVAL_MS, queries_changed, h,
                         &h->query_watcher, err);
}

static deed_status app_build(struct house *h, struct deed_error *err)
{
    const struct config *c = h->config;
    struct projections_options projections = {
        .batch_count_max = (uint32_t)c->projection_batch_count_max};
    struct queries_options queries = {.row_count_max = (uint32_t)c->query_row_count_max,
                                      .size_max = c->query_size_max,
                                      .timeout_ms = (uint32_t)c->query_timeout};
    bool has_app = c->app[0] != '\0';

    deed_status status = has_app ? app_check(h, err) : DEED_OK;
    if (status == DEED_OK && has_app) status = domain_build(h, err);
    if (status == DEED_OK) {
        status = projections_open(h->store, &projections, &h->projections, err);
    }
    if (status == DEED_OK) status = queries_open(h->projections, &queries, &h->queries, err);
    if (status != DEED_OK || !has_app) return status;

    status = folder_join(h, "projections", &h->projection_folder, err);
    if (status == DEED_OK) status = folder_join(h, "queries", &h->query_folder, err);
    if (status != DEED_OK) return status;
    h->projection_print = watcher_fingerprint(h->projection_folder);
    h->query_print = watcher_fingerprint(h->query_folder);
    projections_take(h);
    queries_take(h);
    say(h, "app %s: %s, %zu projections, %zu queries", c->app,
        h->executor == NULL ? "no commands" : "commands", projection_count(h), query_count(h));
    return DEED_OK;
}

/* ---- the server ----------------------------------------------------------------------------- */

static void log_grew(void *context, uint64_t position)
{
    (void)position;
    server_log_grew(context);
}

static void nudge(void *context)
{
    server_log_grew(context);
}

static deed_status addresses_make(struct house *h, struct server_address *out, size_t *out_count,
                                  struct deed_error *err)
{
    const struct config_list *list = &h->config->listen;
    for (size_t i = 0; i < list->count; i++) {
        deed_status status =
            config_address(list->items[i], &h->arena, &out[i].host, &out[i].port, err);
        if (status != DEED_OK) return status;
    }
    *out_count = list->count;
    return DEED_OK;
}

/* What the log, the projections and the loop need besides connections; an estimate. */
#define FILES_OTHER 256

static void files_check(struct house *h)
{
    uint64_t files = os_open_files_max();
    if (files == 0 || h->config->connection_count_max + FILES_OTHER <= files) return;
    say(h, "this process may open %" PRIu64 " files, too few for %" PRIu64
           " connections (connection-count-max)", files, h->config->connection_count_max);
}

/* A quarter of the queries' threads, one at least, is for those that need not wait. */
static uint32_t waiting_max(uint32_t threads)
{
    return threads - (threads < 4 ? 1 : threads / 4);
}

static void stop_server(void *server)
{
    server_stop(server);
}

/* An address that means "all of this machine's" is none that a client can dial. */
static deed_status advertise_check(const struct config *c, struct deed_error *err)
{
    static const char *const any[] = {"0.0.0.0", "::", "[::]", "*"};
    for (size_t i = 0; i < sizeof any / sizeof any[0]; i++) {
        if (strcmp(c->advertise_host, any[i]) != 0) continue;
        return deed_fail(err, DEED_INVALID, "advertise-host %s: clients cannot dial that", any[i]);
    }
    /* With two colons it is an IPv6 address. */
    const char *colon = strchr(c->advertise_host, ':');
    if (colon != NULL && strchr(colon + 1, ':') == NULL) {
        return deed_fail(err, DEED_INVALID,
                         "advertise-host %s: the port is advertise-port's to say", c->advertise_host);
    }
    return DEED_OK;
}

static deed_status server_build(struct house *h, struct deed_error *err)
{
    const struct config *c = h->config;
    files_check(h);
    struct server_address addresses[CONFIG_LIST_MAX];
    size_t count;
    deed_status status = addresses_make(h, addresses, &count, err);
    if (status == DEED_OK) status = advertise_check(c, err);
    /* The ids of virtual links are made with it, and any client may ask for one. */
    if (status == DEED_OK && !sha1_available()) {
        status = deed_fail(err, DEED_INVALID, "this machine's OpenSSL is set up without SHA-1");
    }
    if (status != DEED_OK) return status;

    struct server_options options = {
        .addresses = addresses,
        .address_count = count,
        .connection_count_max = (uint32_t)c->connection_count_max,
        .pipeline_count_max = (uint32_t)c->pipeline_count_max,
        .call_count_max = (uint32_t)c->call_count_max,
        .keepalive_interval_ms = (uint32_t)c->keepalive_interval,
        .keepalive_timeout_ms = (uint32_t)c->keepalive_timeout,
        .pool_thread_max = (uint32_t)c->pool_threads,
        .patient_thread_max = (uint32_t)c->query_threads,
        .head_size_max = c->head_size_max,
        .body_size_max = c->body_size_max,
        .write_size_max = c->write_size_max,
        .in_flight_size_max = c->in_flight_size_max,
        .header_timeout_ms = (uint32_t)c->header_timeout,
        .idle_timeout_ms = (uint32_t)c->idle_timeout,
        .write_timeout_ms = (uint32_t)c->write_timeout,
        .shutdown_grace_ms = (uint32_t)c->shutdown_grace,
        .body_rate_min = c->body_rate_min,
        .log = server_says,
        .context = h,
    };
    status = server_create(&options, &h->server, err);
    if (status != DEED_OK) return status;

    if (c->backup_dir[0] != '\0') {
        status = backups_open(h->store, c->backup_dir, &h->backups, err);
        if (status != DEED_OK) return status;
    }
    struct groups_options groups = {0};
    group_match_hooks(&groups);
    status = groups_open(h->store, &groups, &h->groups, err);
    if (status != DEED_OK) return status;
    struct api_parts parts = {.store = h->store,
                              .groups = h->groups,
                              .executor = h->executor,
                              .projections = h->projections,
                              .queries = h->queries,
                              .backups = h->backups,
                              .wait_timeout_ms = (uint32_t)c->wait_timeout,
                              .wait_count_max = waiting_max((uint32_t)c->query_threads),
                              .read_limit_max = (uint32_t)c->read_count_max,
                              .metrics = server_metrics,
                              .ready = server_ready,
                              .nudge = nudge,
                              .stop = c->allow_shutdown ? stop_server : NULL,
                              .advertise_host = c->advertise_host,
                              .advertise_port = (uint16_t)c->advertise_port,
                              .context = h->server};
    status = api_create(&parts, &h->api, err);
    if (status != DEED_OK) return status;

    h->watch = (struct store_watch){.changed = log_grew, .context = h->server};
    store_watch(h->store, &h->watch);
    h->watched = true;
    return DEED_OK;
}

static bool is_loopback(const char *url)
{
    return strncmp(url, "http://127.", 11) == 0 || strncmp(url, "http://[::1]", 12) == 0;
}

static void serving_say(struct house *h)
{
    char urls[600] = "";
    size_t used = 0;
    bool open = false;
    const char *url;
    for (size_t i = 0; (url = server_url(h->server, i)) != NULL; i++) {
        int size = snprintf(urls + used, sizeof urls - used, "%s%s", i == 0 ? "" : " ", url);
        if (size < 0 || (size_t)size >= sizeof urls - used) break;
        used += (size_t)size;
        open = open || !is_loopback(url);
    }
    if (open) say(h, "other machines can reach this server, and it asks nobody who they are");
    say(h, "serving on %s", urls);
}

static deed_status reporter_build(struct house *h, struct deed_error *err)
{
    if (h->options->log == NULL) return DEED_OK;
    struct reporter_options options = {.store = h->store,
                                       .executor = h->executor,
                                       .projections = h->projections,
                                       .say = server_says,
                                       .context = h};
    return reporter_start(&options, &h->reporter, err);
}

static void house_close(struct house *h)
{
    reporter_stop(h->reporter);
    watcher_stop(h->projection_watcher);
    watcher_stop(h->query_watcher);
    if (h->watched) store_unwatch(h->store, &h->watch);
    backups_close(h->backups);
    api_leave_groups(h->api);
    groups_close(h->groups);
    executor_close(h->executor);
    queries_close(h->queries);
    FAILPOINT("commands-done");
    projections_close(h->projections);
    FAILPOINT("projections-closed");
    store_close(h->store);
    FAILPOINT("store-closed");
    api_destroy(h->api);
    server_destroy(h->server);
    arena_done(&h->arena);
}

deed_status serve_run(const struct config *config, const struct serve_options *options,
                      struct deed_error *err)
{
    struct house h = {.config = config, .options = options};
    arena_init(&h.arena, 1 << 20);
    deed_status status = store_build(&h, err);
    FAILPOINT("store-open");
    if (status == DEED_OK) status = app_build(&h, err);
    FAILPOINT("app-open");
    if (status == DEED_OK) status = server_build(&h, err);
    if (status == DEED_OK && h.projection_folder != NULL) status = watchers_start(&h, err);
    if (status == DEED_OK) status = reporter_build(&h, err);
    if (status == DEED_OK) {
        serving_say(&h);
        status = server_run(h.server, h.api, err);
    }
    if (status == DEED_OK) {
        struct server_report report;
        server_get_report(h.server, &report);
        say(&h, "stopped: answered %" PRIu64 " requests on %" PRIu64 " connections, cut %" PRIu64
                ", log ends at position %" PRIu64, report.requests, report.connections,
            report.connections_cut, store_position(h.store));
    }
    house_close(&h);
    return status;
}
