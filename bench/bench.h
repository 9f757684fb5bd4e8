/* bench.h - what the programs here share: a data directory that goes away, and one line of JSON a
 * figure, which tools/bench reads. */
#ifndef BENCH_BENCH_H
#define BENCH_BENCH_H

#include "cli/loadgen.h"
#include "deedbook.h"
#include "os/os.h"

#include <ftw.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static inline void bench_die(const char *what, const struct deed_error *err)
{
    fprintf(stderr, "%s: %s\n", what, err->message);
    exit(1);
}

#define bench_ok(call)                                                                             \
    do {                                                                                           \
        if ((call) != DEED_OK) bench_die(#call, &err);                                             \
    } while (0)

static inline uint64_t bench_now(void)
{
    return os_ticks_ns(os_real());
}

static inline void bench_report(const char *what, uint64_t count, uint64_t bytes, uint64_t ns)
{
    double seconds = (double)ns / 1e9;
    printf("{\"what\":\"%s\",\"count\":%" PRIu64 ",\"seconds\":%.3f,\"rate\":%.0f,"
           "\"mib_per_second\":%.1f}\n",
           what, count, seconds, (double)count / seconds, (double)bytes / seconds / (1 << 20));
    fflush(stdout);
}

/* The same for operations of `events` events each, with how long they took. */
static inline void bench_report_latency(const char *what, const struct load_histogram *latency,
                                        uint64_t events, uint64_t ns)
{
    double seconds = (double)ns / 1e9;
    printf("{\"what\":\"%s\",\"count\":%" PRIu64 ",\"events\":%" PRIu64
           ",\"seconds\":%.3f,\"rate\":%.0f,\"p50_us\":%.1f,\"p99_us\":%.1f,\"max_us\":%.1f}\n",
           what, latency->count, latency->count * events, seconds, (double)latency->count / seconds,
           (double)load_histogram_at(latency, 0.5) / 1e3,
           (double)load_histogram_at(latency, 0.99) / 1e3, (double)latency->max_ns / 1e3);
    fflush(stdout);
}

/* A new directory inside `parent`; bench_remove takes it away. */
static inline char *bench_directory(const char *parent)
{
    static char path[4096];
    snprintf(path, sizeof path, "%s/deedbook-bench-XXXXXX", parent);
    if (mkdtemp(path) == NULL) {
        perror(path);
        exit(1);
    }
    return path;
}

static inline int bench_entry_remove(const char *path, const struct stat *stat, int kind,
                                     struct FTW *place)
{
    (void)stat;
    (void)kind;
    (void)place;
    return remove(path);
}

static inline void bench_remove(const char *path)
{
    (void)nftw(path, bench_entry_remove, 16, FTW_DEPTH | FTW_PHYS);
}

/* The data of the `n`th event where rows are made of events: an order's line of BENCH_LINE_SIZE bytes
 * of JSON. The same for us and for peers. */
#define BENCH_LINE_SIZE 256
static inline void bench_line(uint64_t n, char out[BENCH_LINE_SIZE + 1])
{
    int size = snprintf(out, BENCH_LINE_SIZE + 1,
                        "{\"order_id\":\"%08" PRIu64 "\",\"line_id\":%" PRIu64
                        ",\"product_id\":\"p-%" PRIu64 "\",\"product_name\":\"Some product\","
                        "\"quantity\":%" PRIu64 ",\"unit_price_cents\":1250,"
                        "\"discount_percent\":5,\"line_total_cents\":%" PRIu64 ",\"note\":\"",
                        n / 10, n % 10, n % 77, n % 9 + 1, n % 9999);
    memset(out + size, 'n', (size_t)(BENCH_LINE_SIZE - 2 - size));
    memcpy(out + BENCH_LINE_SIZE - 2, "\"}", 3);
}

/* An argument that is a number, or its default. */
static inline uint64_t bench_argument(int argc, char **argv, int index, uint64_t initial)
{
    return argc > index ? strtoull(argv[index], NULL, 10) : initial;
}

#endif
