/* peer.h - what the drivers of the peers share: options, measured time, one line of JSON.
 *
 *     PEER MODE ADDRESS [name=number]…
 *
 * MODE is a row of tools/bench; ADDRESS a directory, a port or a connection string. Each driver does
 * what a careful user of the peer would write by hand, no more: prepared statements, one thread with
 * an event loop for all connections, pipelining where one request's answer is not needed for the
 * next. docs/performance.md says what each row does. */
#ifndef BENCH_PEERS_PEER_H
#define BENCH_PEERS_PEER_H

#include "bench/bench.h"
#include "cli/loadgen.h"
#include "cli/workload.h"
#include "json/json.h"

#include <stdarg.h>
#include <unistd.h>

#define PEER_OPTION_MAP(X)                                                                         \
    X(clients, 64)                                                                                 \
    X(batch, 1)                                                                                    \
    X(seconds_ms, 10000)                                                                           \
    X(warmup_ms, 1000)                                                                             \
    X(size, 256)                                                                                   \
    X(streams, 100000)                                                                             \
    X(per_read, 10)                                                                                \
    X(events, 1000000)                                                                             \
    X(tags, 100000)

struct peer {
    const char *mode, *address;
#define PEER_FIELD(name, initial) uint64_t name;
    PEER_OPTION_MAP(PEER_FIELD)
#undef PEER_FIELD
    struct buf data; /* of one event, NUL-terminated */
    uint64_t begun_ns, measure_from_ns, end_ns;
    uint64_t count, failed;
    struct load_histogram latency;
};

DEED_PRINTF(1, 2) _Noreturn static inline void peer_die(const char *format, ...)
{
    va_list list;
    va_start(list, format);
    vfprintf(stderr, format, list);
    va_end(list);
    fputc('\n', stderr);
    exit(1);
}

static inline void peer_options(int argc, char **argv, struct peer *peer)
{
    static const struct {
        const char *name;
        size_t offset;
        uint64_t initial;
    } options[] = {
#define PEER_OPTION(name, initial) {#name, offsetof(struct peer, name), initial},
        PEER_OPTION_MAP(PEER_OPTION)
#undef PEER_OPTION
    };
    if (argc < 3) peer_die("usage: %s MODE ADDRESS [name=number]…", argv[0]);
    peer->mode = argv[1];
    peer->address = argv[2];
    for (size_t i = 0; i < sizeof options / sizeof options[0]; i++) {
        uint64_t value = options[i].initial;
        for (int a = 3; a < argc; a++) {
            size_t size = strlen(options[i].name);
            if (strncmp(argv[a], options[i].name, size) == 0 && argv[a][size] == '=')
                value = strtoull(argv[a] + size + 1, NULL, 10);
        }
        memcpy((char *)peer + options[i].offset, &value, sizeof value);
    }
    buf_init(&peer->data, 64u << 20);
    workload_data(&peer->data, peer->size);
    buf_add_byte(&peer->data, 0);
    peer->data.len--;
}

static inline void peer_begin(struct peer *peer)
{
    peer->begun_ns = bench_now();
    peer->measure_from_ns = peer->begun_ns + peer->warmup_ms * 1000000;
    peer->end_ns = peer->measure_from_ns + peer->seconds_ms * 1000000;
}

/* What was asked at `started_ns` is answered now. Counts as the load generator does. */
static inline void peer_answered(struct peer *peer, uint64_t started_ns, uint64_t now_ns)
{
    if (started_ns < peer->measure_from_ns || now_ns > peer->end_ns) return;
    peer->count++;
    load_histogram_add(&peer->latency, now_ns - started_ns);
}

/* `events` of each request. */
static inline void peer_report(const struct peer *peer, uint64_t events)
{
    double seconds = (double)peer->seconds_ms / 1e3;
    printf("{\"what\":\"%s\",\"clients\":%" PRIu64 ",\"seconds\":%.3f,\"count\":%" PRIu64
           ",\"failed\":%" PRIu64 ",\"events\":%" PRIu64
           ",\"rate\":%.0f,\"p50_us\":%.1f,\"p99_us\":%.1f,\"max_us\":%.1f}\n",
           peer->mode, peer->clients, seconds, peer->count, peer->failed, peer->count * events,
           (double)peer->count / seconds, (double)load_histogram_at(&peer->latency, 0.5) / 1e3,
           (double)load_histogram_at(&peer->latency, 0.99) / 1e3,
           (double)peer->latency.max_ns / 1e3);
}

/* A rate over everything there is, not over a time. */
static inline void peer_report_all(const struct peer *peer, uint64_t events, uint64_t ns)
{
    double seconds = (double)ns / 1e9;
    printf("{\"what\":\"%s\",\"seconds\":%.3f,\"count\":%" PRIu64 ",\"events\":%" PRIu64
           ",\"rate\":%.0f}\n",
           peer->mode, seconds, events, events, (double)events / seconds);
}

static inline uint64_t peer_mix(uint64_t x)
{
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

/* The columns of a row, taken from an event's JSON as our projection takes them. */
struct peer_line {
    deed_str order_id, product_id;
    int64_t line_id, quantity, price, total;
};

static inline int64_t peer_integer(json_value object, const char *name)
{
    int64_t value = 0;
    if (!json_int64(json_get(object, deed_str_of(name)), &value))
        peer_die("an event's data has no integer \"%s\"", name);
    return value;
}

static inline void peer_line(struct arena *arena, deed_bytes data, struct peer_line *out)
{
    struct deed_error err = {0};
    json_value root;
    bench_ok(json_parse(arena, data, 0, &root, &err));
    out->order_id = json_text(json_get(root, DEED_STR("order_id")));
    out->product_id = json_text(json_get(root, DEED_STR("product_id")));
    out->line_id = peer_integer(root, "line_id");
    out->quantity = peer_integer(root, "quantity");
    out->price = peer_integer(root, "unit_price_cents");
    out->total = peer_integer(root, "line_total_cents");
}

#endif
