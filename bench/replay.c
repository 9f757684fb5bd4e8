/* replay.c - how fast the library reads a whole log, event by event, checksums verified.
 *
 *     replay DIRECTORY [SECONDS]
 *
 * DIRECTORY is a data directory, bench/fill makes one. The log is read from its start to its end, again
 * and again until SECONDS (1) have passed; each event's data is touched, as a fold would. */
#include "bench.h"

#include "store/store.h"

static uint64_t replay(struct store *store, const struct deed_read_options *options,
                       uint64_t *out_bytes)
{
    struct deed_error err = {0};
    struct deed_cursor *cursor = NULL;
    struct deed_event event;
    uint64_t count = 0, touched = 0;
    bench_ok(store_read(store, options, &cursor, &err));
    deed_status status;
    while ((status = cursor_next(cursor, &event, &err)) == DEED_OK) {
        count++;
        *out_bytes += event.data.len;
        if (event.data.len > 0) touched += event.data.ptr[event.data.len - 1];
    }
    if (status != DEED_END) bench_die("cursor_next", &err);
    cursor_close(cursor);
    if (touched == 0) fprintf(stderr, "no data was read\n");
    return count;
}

int main(int argc, char **argv)
{
    struct deed_error err = {0};
    struct store *store = NULL;
    struct store_options options = {.read_only = true, .must_exist = true};
    uint64_t seconds = bench_argument(argc, argv, 2, 1);
    if (argc < 2) return 2;
    uint64_t begun = bench_now();
    bench_ok(store_open(os_real(), argv[1], &options, &store, &err));
    bench_report("library open", store_position(store), 0, bench_now() - begun);

    struct deed_read_options log = {0};
    uint64_t count = 0, bytes = 0;
    begun = bench_now();
    do {
        count += replay(store, &log, &bytes);
    } while (bench_now() - begun < seconds * 1000000000u);
    bench_report("library replay", count, bytes, bench_now() - begun);
    store_close(store);
    return 0;
}
