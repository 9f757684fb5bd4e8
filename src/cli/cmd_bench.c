/* cmd_bench.c - deedbook bench: what does this machine do?
 *
 * Three measurements of a server (appends, commands, reads), with many clients in one thread, and
 * one of a disk: how often a second it can make 4 KiB durable, the number that bounds the rest. */
#include "cli/loadgen.h"
#include "cli/out.h"
#include "cli/target.h"

#include "base/uuid.h"
#include "os/os.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum mode { MODE_APPEND, MODE_READ, MODE_COMMAND };

struct options {
    struct cli_target target;
    enum mode mode;
    uint64_t clients, depth, size, per_read;
    uint32_t seconds_ms, warmup_ms;
    const char *probe;
};

enum {
    KEY_CLIENTS = 'c',
    KEY_SECONDS = 's',
    KEY_MODE = 'm',
    KEY_WARMUP = 0x300,
    KEY_SIZE,
    KEY_DEPTH,
    KEY_PER_READ,
    KEY_PROBE,
};

static const struct argp_option option_list[] = {
    {"mode", KEY_MODE, "MODE", 0,
     "append: one event a request, each client into a stream of its own (default); "
     "read: GET /streams/{stream}; command: CreateOrder of the orders example",
     0},
    {"clients", KEY_CLIENTS, "COUNT", 0, "connections (default 64)", 0},
    {"seconds", KEY_SECONDS, "TIME", 0, "measure for this long (default 10s)", 0},
    {"warmup", KEY_WARMUP, "TIME", 0, "before that, without counting (default 1s)", 0},
    {"size", KEY_SIZE, "BYTES", 0, "of one event's data (default 200)", 0},
    {"depth", KEY_DEPTH, "COUNT", 0, "requests that a client has under way (default 1)", 0},
    {"per-read", KEY_PER_READ, "COUNT", 0, "events that one read asks for (default 1)", 0},
    {"probe", KEY_PROBE, "DIR", 0,
     "measure the disk under this directory instead: writes of 4 KiB, each with fdatasync", 0},
    {0},
};

static error_t parse(int key, char *argument, struct argp_state *state)
{
    struct options *o = state->input;
    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &o->target;
        return 0;
    case KEY_MODE:
        if (strcmp(argument, "append") == 0) {
            o->mode = MODE_APPEND;
        } else if (strcmp(argument, "read") == 0) {
            o->mode = MODE_READ;
        } else if (strcmp(argument, "command") == 0) {
            o->mode = MODE_COMMAND;
        } else {
            argp_error(state, "--mode: \"%s\" is not append, read or command", argument);
        }
        return 0;
    case KEY_CLIENTS:
        o->clients = cli_number(state, "--clients", argument);
        return 0;
    case KEY_SECONDS:
        o->seconds_ms = cli_duration_ms(state, "--seconds", argument);
        return 0;
    case KEY_WARMUP:
        o->warmup_ms = cli_duration_ms(state, "--warmup", argument);
        return 0;
    case KEY_SIZE:
        o->size = cli_number(state, "--size", argument);
        return 0;
    case KEY_DEPTH:
        o->depth = cli_number(state, "--depth", argument);
        return 0;
    case KEY_PER_READ:
        o->per_read = cli_number(state, "--per-read", argument);
        return 0;
    case KEY_PROBE:
        o->probe = argument;
        return 0;
    case ARGP_KEY_END:
        if (o->clients < 1 || o->clients > 10000) argp_error(state, "--clients: 1 to 10000");
        if (o->depth < 1 || o->depth > 1000) argp_error(state, "--depth: 1 to 1000");
        if (o->per_read < 1 || o->per_read > 1000) argp_error(state, "--per-read: 1 to 1000");
        if (o->size < 10 || o->size > 1000000) argp_error(state, "--size: 10 to 1000000");
        if (o->seconds_ms < 1) argp_error(state, "--seconds: at least 1ms");
        if (o->target.data != NULL) argp_error(state, "bench needs a server, or --probe DIR");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp bench_argp = {
    .options = option_list,
    .parser = parse,
    .doc = "Measure a server: rate and latency over many connections with keep-alive, from one "
           "thread. Or a disk, with --probe.\v"
           "Examples:\n"
           "  deedbook bench --clients 64 --seconds 10s --mode append\n"
           "  deedbook bench --probe /var/lib/deedbook\n\n"
           "Do not aim it at a server whose data matters: it appends for as long as it runs.",
    .children = cli_target_children,
};

/* ---- what is printed ----------------------------------------------------------------------------
 */

struct figures {
    const char *what;
    uint64_t count, failed, duration_ns;
    const struct load_histogram *latency;
};

static double rate_of(const struct figures *f)
{
    return f->duration_ns == 0 ? 0 : (double)f->count * 1e9 / (double)f->duration_ns;
}

static void figures_json(const struct figures *f, const struct options *o)
{
    printf("{\"what\":\"%s\",\"clients\":%" PRIu64 ",\"depth\":%" PRIu64
           ",\"seconds\":%.3f,\"count\":%" PRIu64 ",\"failed\":%" PRIu64
           ",\"rate\":%.0f,\"mean_us\":%.1f,\"p50_us\":%.1f,\"p99_us\":%.1f,\"p999_us\":%.1f,"
           "\"max_us\":%.1f}\n",
           f->what, o->probe != NULL ? 1 : o->clients, o->probe != NULL ? 1 : o->depth,
           (double)f->duration_ns / 1e9, f->count, f->failed, rate_of(f),
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
    char run[16];         /* names of this run's streams and orders, so that runs do not meet */
    char *pad;            /* options->size bytes of filling */
    struct buf *requests; /* append: one for each client, made once */
    struct out_progress progress;
};

#define READ_STREAM_COUNT 1000

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

static void post_make(struct buf *out, const struct bench *bench, const char *path,
                      const struct buf *body)
{
    buf_printf(out,
               "POST %s HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\n"
               "Content-Length: %zu\r\n\r\n",
               path, bench->host_header, body->len);
    buf_add(out, body->ptr, body->len);
}

static void append_make(void *context, unsigned client, uint64_t number, struct buf *out)
{
    struct bench *bench = context;
    (void)number; /* the server makes a new event id each time */
    buf_add(out, bench->requests[client].ptr, bench->requests[client].len);
}

static void read_make(void *context, unsigned client, uint64_t number, struct buf *out)
{
    struct bench *bench = context;
    uint64_t span = READ_STREAM_COUNT - bench->options->per_read + 1;
    /* Steps that are coprime to the count visit every revision, in no order a cache would like. */
    uint64_t from = (client * 131u + number * 271u) % span;
    buf_printf(out,
               "GET /streams/bench-%s-read?from=%" PRIu64 "&limit=%" PRIu64
               " HTTP/1.1\r\nHost: %s\r\n\r\n",
               bench->run, from, bench->options->per_read, bench->host_header);
}

static void command_make(void *context, unsigned client, uint64_t number, struct buf *out)
{
    struct bench *bench = context;
    struct buf body;
    buf_init(&body, 1 << 20);
    buf_printf(&body,
               "{\"order_id\":\"bench-%s-%u-%" PRIu64
               "\",\"customer\":{\"id\":\"c1\",\"name\":\"Measured\"},"
               "\"shipping_address\":{\"street\":\"1 Main St\",\"city\":\"Springfield\","
               "\"region\":null,\"postal_code\":null,\"country\":\"US\"},"
               "\"currency\":\"USD\",\"order_date\":\"2026-11-23\"}",
               bench->run, client, number);
    post_make(out, bench, "/commands/CreateOrder", &body);
    buf_done(&body);
}

static deed_status requests_make(struct bench *bench, struct deed_error *err)
{
    const struct options *o = bench->options;
    bench->requests = calloc(o->clients, sizeof *bench->requests);
    if (bench->requests == NULL) return deed_fail(err, DEED_NO_MEMORY, "no memory");
    for (uint64_t i = 0; i < o->clients; i++) {
        char path[96];
        struct buf body;
        snprintf(path, sizeof path, "/streams/bench-%s-%" PRIu64, bench->run, i);
        buf_init(&body, 8 << 20);
        buf_printf(&body, "{\"type\":\"Measured\",\"data\":{\"pad\":\"%s\"}}", bench->pad);
        buf_init(&bench->requests[i], 8 << 20);
        post_make(&bench->requests[i], bench, path, &body);
        bool ok = buf_ok(&body) && buf_ok(&bench->requests[i]);
        buf_done(&body);
        if (!ok) return deed_fail(err, DEED_NO_MEMORY, "no memory");
    }
    return DEED_OK;
}

/* The stream that is read: a thousand events in one append. */
static deed_status read_prepare(struct bench *bench, struct deed_error *err)
{
    struct reply reply;
    struct url url;
    struct buf body;
    reply_init(&reply);
    url_init(&url, "/streams/bench-");
    buf_add_str(&url.text, deed_str_of(bench->run));
    buf_add_str(&url.text, DEED_STR("-read"));
    buf_init(&body, (size_t)READ_STREAM_COUNT * (bench->options->size + 100));
    for (int i = 0; i < READ_STREAM_COUNT; i++) {
        buf_printf(&body, "%c{\"type\":\"Measured\",\"data\":{\"pad\":\"%s\"}}", i == 0 ? '[' : ',',
                   bench->pad);
    }
    buf_add_byte(&body, ']');
    struct request request = {.method = "POST", .path = url_text(&url), .body = buf_bytes(&body)};
    deed_status status = target_ask(&bench->options->target, TARGET_WRITES, &request, &reply, err);
    buf_done(&body);
    url_done(&url);
    reply_done(&reply);
    return status;
}

static void on_progress(void *context, uint64_t elapsed_ns)
{
    struct bench *bench = context;
    out_progress_step(&bench->progress, elapsed_ns / 1000000);
}

static deed_status server_run(struct bench *bench, struct load_result *result,
                              struct deed_error *err)
{
    const struct options *o = bench->options;
    struct load_options load = {
        .host = bench->host,
        .port = bench->port,
        .client_count = (unsigned)o->clients,
        .depth = (unsigned)o->depth,
        .warmup_ns = (uint64_t)o->warmup_ms * 1000000,
        .duration_ns = (uint64_t)o->seconds_ms * 1000000,
        .make = o->mode == MODE_APPEND ? append_make
                : o->mode == MODE_READ ? read_make
                                       : command_make,
        .context = bench,
        .progress = on_progress,
    };
    deed_status status = DEED_OK;
    if (o->mode == MODE_APPEND) status = requests_make(bench, err);
    if (o->mode == MODE_READ) status = read_prepare(bench, err);
    if (status != DEED_OK) return status;
    out_progress_start(&bench->progress, "measuring", NULL, (uint64_t)o->warmup_ms + o->seconds_ms);
    status = load_run(&load, result, err);
    out_progress_stop(&bench->progress);
    return status;
}

static deed_status server(const struct options *o, struct deed_error *err)
{
    static const char *const names[] = {"append", "read", "command"};
    struct bench bench = {.options = o};
    struct load_result *result = calloc(1, sizeof *result);
    uint32_t random = 0;
    os_random(os_real(), &random, sizeof random);
    snprintf(bench.run, sizeof bench.run, "%08" PRIx32, random);
    deed_status status = url_split(o->target.server, &bench, err);
    if (status != DEED_OK) goto done;
    bench.pad = malloc(o->size + 1);
    if (bench.pad == NULL || result == NULL) {
        status = deed_fail(err, DEED_NO_MEMORY, "no memory");
        goto done;
    }
    /* {"pad":"…"} is what is asked for, ten bytes with an empty pad. */
    memset(bench.pad, 'x', o->size - 10);
    bench.pad[o->size - 10] = '\0';
    status = server_run(&bench, result, err);
    if (status != DEED_OK) goto done;
    struct figures figures = {.what = names[o->mode],
                              .count = result->requests,
                              .failed = result->failed,
                              .duration_ns = result->duration_ns,
                              .latency = &result->latency};
    figures_print(&figures, o);
    if (result->failed > 0) {
        status = reply_problem(result->failed_status,
                               deed_bytes_of(deed_str_of(result->failed_body)), err);
        deed_wrap(err, "%" PRIu64 " of %" PRIu64 " requests failed, the first one", result->failed,
                  result->requests);
    }

done:
    for (uint64_t i = 0; bench.requests != NULL && i < o->clients; i++) {
        buf_done(&bench.requests[i]);
    }
    free(bench.requests);
    free(bench.pad);
    free(result);
    return status;
}

int cmd_bench(int argc, char **argv)
{
    struct options options = {.clients = 64,
                              .depth = 1,
                              .size = 200,
                              .per_read = 1,
                              .seconds_ms = 10000,
                              .warmup_ms = 1000};
    struct deed_error err = {0};
    cli_parse(&bench_argp, argc, argv, &options);
    deed_status status = options.probe != NULL ? probe(&options, &err) : server(&options, &err);
    return cli_end(status, &err);
}
