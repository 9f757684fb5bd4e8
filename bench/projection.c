/* projection.c - how fast events become rows, and how fast rows are asked for.
 *
 *     projection [DIRECTORY [EVENTS]]
 *
 * Writes EVENTS (1,000,000) order lines into a new log under DIRECTORY, lets fresh projections catch up
 * with it, one of few rows that change often and one of a row an event, and asks one query by key from
 * one thread. */
#include "bench.h"

#include "projection/projections.h"
#include "query/queries.h"

#define APPEND_COUNT 1000

static const char projection[] =
    "-- projection: lines\n"
    "-- tables\n"
    "CREATE TABLE lines (order_id TEXT NOT NULL, line_id INTEGER NOT NULL, product TEXT,\n"
    "  quantity INTEGER, price INTEGER, total INTEGER, PRIMARY KEY (order_id, line_id)) WITHOUT "
    "ROWID;\n"
    "-- on OrderLineItemAdded\n"
    "INSERT INTO lines VALUES (:data.order_id, :data.line_id, :data.product_id, :data.quantity,\n"
    "  :data.unit_price_cents, :data.line_total_cents);\n";
static const char totals[] =
    "-- projection: totals\n"
    "-- tables\n"
    "CREATE TABLE totals (product TEXT PRIMARY KEY, quantity INTEGER, total INTEGER) WITHOUT "
    "ROWID;\n"
    "-- on OrderLineItemAdded\n"
    "INSERT INTO totals VALUES (:data.product_id, :data.quantity, :data.line_total_cents)\n"
    "  ON CONFLICT (product) DO UPDATE SET quantity = quantity + excluded.quantity,\n"
    "    total = total + excluded.total;\n";

static struct store *store;
static struct deed_error err;

static void fill(uint64_t count)
{
    static char data[APPEND_COUNT][BENCH_LINE_SIZE + 1], streams[APPEND_COUNT][32];
    static struct deed_new_event events[APPEND_COUNT];
    for (uint64_t done = 0; done < count; done += APPEND_COUNT) {
        for (size_t i = 0; i < APPEND_COUNT; i++) {
            uint64_t n = done + i;
            (void)snprintf(streams[i], sizeof streams[i], "order-%08" PRIu64, n / 10);
            bench_line(n, data[i]);
            events[i] = (struct deed_new_event){.stream = deed_str_of(streams[i]),
                                                .type = DEED_STR("OrderLineItemAdded"),
                                                .data = {(uint8_t *)data[i], BENCH_LINE_SIZE}};
        }
        struct deed_append append = {.events = events, .event_count = APPEND_COUNT};
        struct deed_appended appended;
        bench_ok(store_append(store, &append, &appended, &err));
    }
}

static void catch_up(const char *what, const char *name, const char *text, uint64_t count)
{
    struct projections *set = NULL;
    bench_ok(projections_open(store, NULL, &set, &err));
    uint64_t start = bench_now();
    bench_ok(projections_add(set, deed_str_of(name), deed_str_of(text), &err));
    bench_ok(projections_wait(set, NULL, 0, store_position(store), 600000, &err));
    bench_report(what, count, 0, bench_now() - start);
    projections_close(set);
}

static void ask(uint64_t count)
{
    struct projections *set = NULL;
    struct queries *queries = NULL;
    bench_ok(projections_open(store, NULL, &set, &err));
    bench_ok(projections_add(set, DEED_STR("lines"), deed_str_of(projection), &err));
    bench_ok(queries_open(set, NULL, &queries, &err));
    bench_ok(queries_add(queries, DEED_STR("order"),
                         DEED_STR("SELECT * FROM lines WHERE order_id = :order_id"), &err));
    struct buf out;
    buf_init(&out, 1u << 20);
    const uint64_t rounds = 50000;
    uint64_t start = bench_now();
    for (uint64_t i = 0; i < rounds; i++) {
        char id[32];
        (void)snprintf(id, sizeof id, "%08" PRIu64, i * 7919 % (count / 10));
        struct deed_parameter parameter = {DEED_STR("order_id"), deed_str_of(id)};
        struct deed_query_options options = {.parameters = &parameter, .parameter_count = 1};
        buf_reset(&out);
        bench_ok(queries_run(queries, DEED_STR("order"), &options, &out, NULL, &err));
    }
    bench_report("query by key, 10 rows, 1 thread", rounds, 0, bench_now() - start);
    buf_done(&out);
    queries_close(queries);
    projections_close(set);
}

int main(int argc, char **argv)
{
    char *directory = bench_directory(argc > 1 ? argv[1] : "/tmp");
    uint64_t count = bench_argument(argc, argv, 2, 1000000) / APPEND_COUNT * APPEND_COUNT;
    if (count == 0) count = APPEND_COUNT;
    struct store_options options = {.unsafe_no_sync = true}; /* filling is not what is measured */
    bench_ok(store_open(os_real(), directory, &options, &store, &err));
    fill(count);
    catch_up("projection, few rows changed often", "totals", totals, count);
    catch_up("projection, a row an event", "lines", projection, count);
    ask(count);
    store_close(store);
    bench_remove(directory);
    return 0;
}
