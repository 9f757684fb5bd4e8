/* replay.c - how fast the library reads a whole log, event by event.
 *
 *     replay [DIRECTORY [EVENTS [BYTES]]]
 *
 * Writes EVENTS (2,000,000) events with BYTES (200) of JSON each into a new log under DIRECTORY, opens
 * it again, and reads it from the start: once with what the system has cached, once by one stream of
 * a thousand, which goes through the index. */
#include "bench.h"

#include "store/store.h"

#define STREAM_COUNT 1000
#define COMMIT_COUNT 1000

static void fill(struct store *store, uint64_t count, const char *data)
{
    static char names[COMMIT_COUNT][32];
    static struct deed_new_event events[COMMIT_COUNT];
    struct deed_error err = {0};
    struct deed_appended appended;
    for (uint64_t at = 0; at < count; at += COMMIT_COUNT) {
        uint64_t some = count - at < COMMIT_COUNT ? count - at : COMMIT_COUNT;
        for (uint64_t i = 0; i < some; i++) {
            snprintf(names[i], sizeof names[i], "bench-%" PRIu64, (at + i) * 7919 % STREAM_COUNT);
            events[i] = (struct deed_new_event){.stream = deed_str_of(names[i]),
                                                .type = DEED_STR("Measured"),
                                                .data = deed_bytes_of(deed_str_of(data))};
        }
        struct deed_append append = {.events = events, .event_count = some};
        bench_ok(store_append(store, &append, &appended, &err));
    }
}

/* Read everything the options ask for; touch each event's data as a fold would. */
static void replay(struct store *store, const struct deed_read_options *options, const char *what)
{
    struct deed_error err = {0};
    struct deed_cursor *cursor = NULL;
    struct deed_event event;
    uint64_t count = 0, bytes = 0, touched = 0;
    uint64_t begun = bench_now();
    bench_ok(store_read(store, options, &cursor, &err));
    deed_status status;
    while ((status = cursor_next(cursor, &event, &err)) == DEED_OK) {
        count++;
        bytes += event.data.len;
        if (event.data.len > 0) touched += event.data.ptr[event.data.len - 1];
    }
    uint64_t ns = bench_now() - begun;
    if (status != DEED_END) bench_die("cursor_next", &err);
    cursor_close(cursor);
    if (touched == 0) fprintf(stderr, "no data was read\n");
    bench_report(what, count, bytes, ns);
}

int main(int argc, char **argv)
{
    const char *directory = bench_directory(argc > 1 ? argv[1] : ".");
    uint64_t count = bench_argument(argc, argv, 2, 2000000);
    uint64_t size = bench_argument(argc, argv, 3, 200);
    struct deed_error err = {0};
    struct store *store = NULL;
    char *data = malloc(size + 16);
    if (data == NULL || size < 10) return 1;
    memset(data, 'x', size);
    memcpy(data, "{\"pad\":\"", 8);
    memcpy(data + size - 2, "\"}", 3);

    struct store_options options = {.unsafe_no_sync = true};
    uint64_t begun = bench_now();
    bench_ok(store_open(os_real(), directory, &options, &store, &err));
    fill(store, count, data);
    bench_report("library append, 1000 events a commit, not synced", count, count * size,
                 bench_now() - begun);
    store_close(store);

    begun = bench_now();
    options = (struct store_options){0};
    bench_ok(store_open(os_real(), directory, &options, &store, &err));
    bench_report("library open, events indexed", count, count * size, bench_now() - begun);
    struct deed_read_options log = {0};
    replay(store, &log, "library replay, whole log");
    struct deed_read_options stream = {.stream = DEED_STR("bench-0")};
    replay(store, &stream, "library replay, one stream");
    store_close(store);
    bench_remove(directory);
    free(data);
    return 0;
}
