/* cmd_bench.c - deedbook bench: what does this machine do?
 *
 * Measurements of a server (workload.h), with many clients in one thread, and one of a disk: how
 * often a second it can make 4 KiB durable, the number that bounds the rest. */
#include "cli/live.h"
#include "cli/loadgen.h"
#include "cli/out.h"
#include "cli/target.h"
#include "cli/workload.h"

#include "os/os.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

struct options {
    struct cli_target target;
    struct workload_options work;
    uint64_t depth;
    uint32_t seconds_ms, warmup_ms;
    bool after_given;
    const char *probe;
};

enum {
    KEY_CLIENTS = 'c',
    KEY_SECONDS = 's',
    KEY_MODE = 'm',
    KEY_WARMUP = 0x300,
    KEY_SIZE,
    KEY_DEPTH,
    KEY_BATCH,
    KEY_EXPECT,
    KEY_IDS,
    KEY_STREAMS,
    KEY_PER_READ,
    KEY_TAGS,
    KEY_QUERY,
    KEY_AFTER,
    KEY_PATH,
    KEY_POST,
    KEY_PROBE,
};

#define MODE_HELP(name, text, help) "\n" text ": " help
static const struct argp_option option_list[] = {
    {"mode", KEY_MODE, "MODE", 0, "what is asked:" WORKLOAD_MODE_MAP(MODE_HELP), 0},
    {"clients", KEY_CLIENTS, "COUNT", 0, "connections (default 64)", 0},
    {"seconds", KEY_SECONDS, "TIME", 0, "measure for this long (default 10s)", 0},
    {"warmup", KEY_WARMUP, "TIME", 0, "before that, without counting (default 1s)", 0},
    {"depth", KEY_DEPTH, "COUNT", 0, "requests that a client has under way (default 1)", 0},
    {"size", KEY_SIZE, "BYTES", 0, "of one event's data (default 256)", 0},
    {0, 0, NULL, 0, "Appends:", 1},
    {"batch", KEY_BATCH, "COUNT", 0, "events that one append stores (default 1)", 1},
    {"expect", KEY_EXPECT, NULL, 0, "say with each append at which revision its stream must be", 1},
    {"ids", KEY_IDS, NULL, 0, "give each event a random id, instead of the server's own", 1},
    {0, 0, NULL, 0, "Reads:", 2},
    {"streams", KEY_STREAMS, "COUNT", 0, "streams to read from (default 1)", 2},
    {"per-read", KEY_PER_READ, "COUNT", 0, "events of each, and of one read (default 1)", 2},
    {0, 0, NULL, 0, "Conditions:", 3},
    {"tags", KEY_TAGS, "COUNT", 0, "tags that are asked about: tag-0, tag-1, … (default 1000)", 3},
    {"query", KEY_QUERY, "KIND", 0,
     "none: a stream's revision, for comparison (default); after: no event of two types with the "
     "tag behind a position; all: nor before it",
     3},
    {"after", KEY_AFTER, "POSITION", 0, "that position (default: the log's end)", 3},
    {0, 0, NULL, 0, "Empty requests:", 4},
    {"path", KEY_PATH, "PATH", 0, "default /healthz", 4},
    {"post", KEY_POST, NULL, 0, "POST instead of GET", 4},
    {0, 0, NULL, 0, "The disk:", 5},
    {"probe", KEY_PROBE, "DIR", 0,
     "measure the disk under this directory instead: writes of 4 KiB, each with fdatasync", 5},
    {0},
};

static int name_find(const char *const *names, int count, const char *wanted)
{
    for (int i = 0; i < count; i++) {
        if (strcmp(names[i], wanted) == 0) return i;
    }
    return -1;
}

static void number_between(struct argp_state *state, const char *option, uint64_t value,
                           uint64_t low, uint64_t high)
{
    if (value < low || value > high) {
        argp_error(state, "%s: %" PRIu64 " to %" PRIu64, option, low, high);
    }
}

static void options_check(struct argp_state *state, const struct options *o)
{
    const struct workload_options *w = &o->work;
    number_between(state, "--clients", w->clients, 1, 10000);
    number_between(state, "--depth", o->depth, 1, 1000);
    number_between(state, "--size", w->size, WORKLOAD_SIZE_MIN, 1000000);
    number_between(state, "--batch", w->batch, 1, 10000);
    number_between(state, "--streams", w->streams, 1, 100000000);
    number_between(state, "--per-read", w->per_read, 1, 1000);
    number_between(state, "--tags", w->tags, 1, 1000000000);
    if (o->seconds_ms < 1) argp_error(state, "--seconds: at least 1ms");
    if (w->path[0] != '/') argp_error(state, "--path: \"%s\" does not begin with /", w->path);
    if (o->depth > 1 && (w->expect || w->mode == WORKLOAD_CONDITION)) {
        argp_error(state, "--depth: with more than one append under way a client does not know "
                          "the revision to expect");
    }
    if (w->mode == WORKLOAD_LIVE && w->batch > 1) argp_error(state, "--batch: not with live");
    if (o->target.data != NULL) argp_error(state, "bench needs a server, or --probe DIR");
}

static error_t parse_workload(int key, char *argument, struct argp_state *state, struct options *o)
{
    static const char *const queries[] = {"none", "after", "all"};
    struct workload_options *w = &o->work;
    int found = 0;
    switch (key) {
    case KEY_MODE:
        found = name_find(workload_mode_names, WORKLOAD_MODE_COUNT, argument);
        if (found < 0) argp_error(state, "--mode: there is no \"%s\"", argument);
        w->mode = (enum workload_mode)found;
        return 0;
    case KEY_QUERY:
        found = name_find(queries, 3, argument);
        if (found < 0) argp_error(state, "--query: \"%s\" is not none, after or all", argument);
        w->query = (enum workload_query)found;
        return 0;
    case KEY_CLIENTS:
        w->clients = cli_number(state, "--clients", argument);
        return 0;
    case KEY_SIZE:
        w->size = cli_number(state, "--size", argument);
        return 0;
    case KEY_BATCH:
        w->batch = cli_number(state, "--batch", argument);
        return 0;
    case KEY_EXPECT:
        w->expect = true;
        return 0;
    case KEY_IDS:
        w->ids = true;
        return 0;
    case KEY_STREAMS:
        w->streams = cli_number(state, "--streams", argument);
        return 0;
    case KEY_PER_READ:
        w->per_read = cli_number(state, "--per-read", argument);
        return 0;
    case KEY_TAGS:
        w->tags = cli_number(state, "--tags", argument);
        return 0;
    case KEY_AFTER:
        w->after = cli_number(state, "--after", argument);
        o->after_given = true;
        return 0;
    case KEY_PATH:
        w->path = argument;
        return 0;
    case KEY_POST:
        w->post = true;
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static error_t parse(int key, char *argument, struct argp_state *state)
{
    struct options *o = state->input;
    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &o->target;
        return 0;
    case KEY_SECONDS:
        o->seconds_ms = cli_duration_ms(state, "--seconds", argument);
        return 0;
    case KEY_WARMUP:
        o->warmup_ms = cli_duration_ms(state, "--warmup", argument);
        return 0;
    case KEY_DEPTH:
        o->depth = cli_number(state, "--depth", argument);
        return 0;
    case KEY_PROBE:
        o->probe = argument;
        return 0;
    case ARGP_KEY_END:
        options_check(state, o);
        return 0;
    default:
        return parse_workload(key, argument, state, o);
    }
}

static const struct argp bench_argp = {
    .options = option_list,
    .parser = parse,
    .doc = "Measure a server: rate and latency over many connections with keep-alive, from one "
           "thread. Or a disk, with --probe.\v"
           "Examples:\n"
           "  deedbook bench --clients 64 --seconds 10s --mode append --expect\n"
           "  deedbook bench --mode read --streams 100000 --per-read 10\n"
           "  deedbook bench --probe /var/lib/deedbook\n\n"
           "Do not aim it at a server whose data matters: it appends for as long as it runs.",
    .children = cli_target_children,
};

/* ---- what is printed ----------------------------------------------------------------------------
 */

struct figures {
    const char *what;
    uint64_t count, failed, duration_ns;
    uint64_t events; /* appended or read by them; 0: not counted */
    const struct load_histogram *latency;
};

static double rate_of(const struct figures *f)
{
    return f->duration_ns == 0 ? 0 : (double)f->count * 1e9 / (double)f->duration_ns;
}

static void figures_json(const struct figures *f, const struct options *o)
{
    printf("{\"what\":\"%s\",\"clients\":%" PRIu64 ",\"depth\":%" PRIu64
           ",\"seconds\":%.3f,\"count\":%" PRIu64 ",\"failed\":%" PRIu64 ",\"events\":%" PRIu64
           ",\"rate\":%.0f,\"mean_us\":%.1f,\"p50_us\":%.1f,\"p99_us\":%.1f,\"p999_us\":%.1f,"
           "\"max_us\":%.1f}\n",
           f->what, o->probe != NULL ? 1 : o->work.clients, o->probe != NULL ? 1 : o->depth,
           (double)f->duration_ns / 1e9, f->count, f->failed, f->events, rate_of(f),
           f->latency->count == 0 ? 0
                                  : (double)f->latency->sum_ns / (double)f->latency->count / 1e3,
           (double)load_histogram_at(f->latency, 0.5) / 1e3,
           (double)load_histogram_at(f->latency, 0.99) / 1e3,
           (double)load_histogram_at(f->latency, 0.999) / 1e3, (double)f->latency->max_ns / 1e3);
}

static void figures_print(const struct figures *f, const struct options *o)
{
    if (o->target.json) {
        figures_json(f, o);
        return;
    }
    static const struct out_column columns[] = {
        {"WHAT", 0},        {"COUNT", OUT_RIGHT}, {"FAILED", OUT_RIGHT}, {"PER SECOND", OUT_RIGHT},
        {"P50", OUT_RIGHT}, {"P99", OUT_RIGHT},   {"P99.9", OUT_RIGHT},  {"MAX", OUT_RIGHT},
    };
    char text[OUT_NUMBER_SIZE];
    struct out_table *table = out_table_create(columns, sizeof columns / sizeof columns[0]);
    out_table_row(table);
    out_table_cell(table, "%s", f->what);
    out_table_cell(table, "%s", out_count(f->count, text));
    out_table_cell(table, "%s", out_count(f->failed, text));
    out_table_cell(table, "%s", out_count((uint64_t)rate_of(f), text));
    out_table_cell(table, "%s", out_time(load_histogram_at(f->latency, 0.5), text));
    out_table_cell(table, "%s", out_time(load_histogram_at(f->latency, 0.99), text));
    out_table_cell(table, "%s", out_time(load_histogram_at(f->latency, 0.999), text));
    out_table_cell(table, "%s", out_time(f->latency->max_ns, text));
    (void)out_table_print(table, stdout);
    out_table_destroy(table);
}

/* ---- the disk -----------------------------------------------------------------------------------
 */

#define PROBE_FILE  "deedbook-probe.tmp"
#define PROBE_BLOCK ((size_t)4096)
/* Written before it is measured, as the log does: syncing a growing file takes about twice as long
 * (measured), and that is not what bounds the log. */
#define PROBE_FILE_SIZE ((uint64_t)16 << 20)

static deed_status probe_file(const struct options *o, struct os_file *file,
                              struct load_histogram *latency, uint64_t *out_duration_ns,
                              struct deed_error *err)
{
    uint8_t block[PROBE_BLOCK];
    deed_status status = DEED_OK;
    memset(block, 0, sizeof block);
    for (uint64_t at = 0; at < PROBE_FILE_SIZE && status == DEED_OK; at += PROBE_BLOCK) {
        status = os_file_write(file, at, (deed_bytes){block, sizeof block}, err);
    }
    if (status == DEED_OK) status = os_file_sync(file, err);
    if (status != DEED_OK) return status;

    struct out_progress progress;
    out_progress_start(&progress, "syncing", NULL, o->seconds_ms);
    uint64_t begun_ns = os_ticks_ns(os_real()), now_ns = begun_ns;
    uint64_t duration_ns = (uint64_t)o->seconds_ms * 1000000;
    for (uint64_t i = 0; now_ns - begun_ns < duration_ns && status == DEED_OK; i++) {
        uint64_t from_ns = now_ns;
        memset(block, (int)(i & 0xff), sizeof block);
        status = os_file_write(file, i * PROBE_BLOCK % PROBE_FILE_SIZE,
                               (deed_bytes){block, sizeof block}, err);
        if (status == DEED_OK) status = os_file_sync(file, err);
        now_ns = os_ticks_ns(os_real());
        load_histogram_add(latency, now_ns - from_ns);
        out_progress_step(&progress, (now_ns - begun_ns) / 1000000);
    }
    out_progress_stop(&progress);
    *out_duration_ns = now_ns - begun_ns;
    return status;
}

static deed_status probe(const struct options *o, struct deed_error *err)
{
    struct os_dir *dir = NULL;
    struct os_file *file = NULL;
    struct load_histogram *latency = calloc(1, sizeof *latency);
    uint64_t duration_ns = 0;
    if (latency == NULL) return deed_fail(err, DEED_NO_MEMORY, "no memory");
    deed_status status = os_dir_open(os_real(), o->probe, false, &dir, err);
    if (status != DEED_OK) goto done;
    status = os_file_open(dir, PROBE_FILE, OS_WRITE | OS_CREATE | OS_EXCLUSIVE, &file, err);
    if (status != DEED_OK) goto done;
    status = probe_file(o, file, latency, &duration_ns, err);
    os_file_close(file);
    deed_status removed = os_remove(dir, PROBE_FILE, status == DEED_OK ? err : NULL);
    if (status == DEED_OK) status = removed;
    if (status == DEED_OK) {
        struct figures figures = {.what = "fdatasync",
                                  .count = latency->count,
                                  .duration_ns = duration_ns,
                                  .latency = latency};
        figures_print(&figures, o);
    }

done:
    os_dir_close(dir);
    free(latency);
    return status;
}

/* ---- the server ---------------------------------------------------------------------------------
 */

struct bench {
    const struct options *options;
    char host[256], port[16], host_header[272];
    struct workload *workload;
    struct out_progress progress;
};

static deed_status url_split(const char *url, struct bench *bench, struct deed_error *err)
{
    const char *at = url;
    if (strncmp(at, "http://", 7) != 0) {
        return deed_fail(err, DEED_INVALID, "server \"%s\": bench speaks plain http://", url);
    }
    at += 7;
    size_t all = strcspn(at, "/?#");
    const char *colon = memrchr(at, ':', all);
    if (colon != NULL && memchr(colon, ']', all - (size_t)(colon - at)) != NULL) colon = NULL;
    size_t host = colon == NULL ? all : (size_t)(colon - at);
    size_t port = colon == NULL ? 0 : all - host - 1;
    if (host == 0 || host >= sizeof bench->host || port >= sizeof bench->port) {
        return deed_fail(err, DEED_INVALID, "server \"%s\": no host and port", url);
    }
    snprintf(bench->host_header, sizeof bench->host_header, "%.*s", (int)all, at);
    if (at[0] == '[' && host > 2) { /* [::1] */
        snprintf(bench->host, sizeof bench->host, "%.*s", (int)host - 2, at + 1);
    } else {
        snprintf(bench->host, sizeof bench->host, "%.*s", (int)host, at);
    }
    snprintf(bench->port, sizeof bench->port, "%.*s", port == 0 ? 2 : (int)port,
             port == 0 ? "80" : colon + 1);
    return DEED_OK;
}

static void on_progress(void *context, uint64_t elapsed_ns)
{
    struct bench *bench = context;
    out_progress_step(&bench->progress, elapsed_ns / 1000000);
}

/* The log's end, for conditions on what comes behind it. */
static deed_status end_ask(const struct options *o, uint64_t *out_position, struct deed_error *err)
{
    struct reply reply;
    struct request request = {.method = "GET", .path = "/events?limit=1"};
    reply_init(&reply);
    deed_status status = target_ask(&o->target, TARGET_READS, &request, &reply, err);
    if (status == DEED_OK && reply.position == DEED_NONE) {
        status = deed_fail(err, DEED_INVALID, "the server does not say where its log ends");
    }
    if (status == DEED_OK) *out_position = reply.position;
    reply_done(&reply);
    return status;
}

/* Write what will be read, as fast as the server takes it. */
static deed_status fill(struct bench *bench, struct load_result *result, struct deed_error *err)
{
    struct load_options load = {
        .host = bench->host,
        .port = bench->port,
        .client_count = 64,
        .depth = 16,
        .duration_ns = UINT64_C(3600000000000),
        .request_count_max = workload_filling_count(bench->workload),
        .make = workload_make_filling,
        .context = bench->workload,
    };
    return load_run(&load, result, err);
}

static deed_status server_run(struct bench *bench, struct load_result *result,
                              struct deed_error *err)
{
    const struct options *o = bench->options;
    struct load_options load = {
        .host = bench->host,
        .port = bench->port,
        .client_count = (unsigned)o->work.clients,
        .depth = (unsigned)o->depth,
        .warmup_ns = (uint64_t)o->warmup_ms * 1000000,
        .duration_ns = (uint64_t)o->seconds_ms * 1000000,
        .make = workload_make,
        .context = bench->workload,
    };
    if (o->work.mode == WORKLOAD_READ) {
        deed_status status = fill(bench, result, err);
        if (status != DEED_OK || result->failed > 0) return status;
    }
    if (o->work.mode == WORKLOAD_LIVE) {
        return live_run(bench->workload, bench->host, bench->port, load.warmup_ns, load.duration_ns,
                        result, err);
    }
    load.progress = on_progress;
    load.progress_context = bench;
    out_progress_start(&bench->progress, "measuring", NULL, (uint64_t)o->warmup_ms + o->seconds_ms);
    deed_status status = load_run(&load, result, err);
    out_progress_stop(&bench->progress);
    return status;
}

static uint64_t events_of(const struct options *o, const struct load_result *result)
{
    switch (o->work.mode) {
    case WORKLOAD_APPEND:
        return result->requests * o->work.batch;
    case WORKLOAD_READ:
        return result->requests * o->work.per_read;
    case WORKLOAD_CONDITION:
    case WORKLOAD_LIVE:
    case WORKLOAD_COMMAND:
        return result->requests;
    default:
        return 0;
    }
}

static deed_status server(struct options *o, struct deed_error *err)
{
    struct bench bench = {.options = o};
    struct load_result *result = calloc(1, sizeof *result);
    uint64_t seed = 0;
    os_random(os_real(), &seed, sizeof seed);
    deed_status status = url_split(o->target.server, &bench, err);
    if (status == DEED_OK && result == NULL) {
        status = deed_fail(err, DEED_NO_MEMORY, "no memory");
    }
    o->work.host = bench.host_header;
    if (status == DEED_OK && o->work.query == WORKLOAD_QUERY_AFTER && !o->after_given) {
        status = end_ask(o, &o->work.after, err);
    }
    if (status == DEED_OK) status = workload_create(&o->work, seed, &bench.workload, err);
    if (status == DEED_OK) status = server_run(&bench, result, err);
    if (status == DEED_OK && result->failed == 0) {
        struct figures figures = {.what = workload_mode_names[o->work.mode],
                                  .count = result->requests,
                                  .failed = result->failed,
                                  .events = events_of(o, result),
                                  .duration_ns = result->duration_ns,
                                  .latency = &result->latency};
        figures_print(&figures, o);
    }
    if (status == DEED_OK && result->failed > 0) {
        status = reply_problem(result->failed_status,
                               deed_bytes_of(deed_str_of(result->failed_body)), err);
        deed_wrap(err, "%" PRIu64 " of %" PRIu64 " requests failed, the first one", result->failed,
                  result->requests);
    }
    workload_destroy(bench.workload);
    free(result);
    return status;
}

int cmd_bench(int argc, char **argv)
{
    struct options options = {
        .work = {.clients = 64,
                 .size = 256,
                 .batch = 1,
                 .streams = 1,
                 .per_read = 1,
                 .tags = 1000,
                 .path = "/healthz"},
        .depth = 1,
        .seconds_ms = 10000,
        .warmup_ms = 1000,
    };
    struct deed_error err = {0};
    cli_parse(&bench_argp, argc, argv, &options);
    deed_status status = options.probe != NULL ? probe(&options, &err) : server(&options, &err);
    return cli_end(status, &err);
}
