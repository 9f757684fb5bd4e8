/* append.c - durable appends of one event, in the library: without HTTP, so what the log itself does.
 *
 *     append [DIRECTORY [SECONDS [BYTES]]]
 *
 * With 1, 64 and 1,024 appends under way. Each writer has a stream of its own. */
#include "bench.h"

#include "os/thread.h"
#include "store/store.h"

#define WRITERS_MAX 1024

struct writer {
    struct run *run;
    char name[64];
    struct deed_new_event event;
    struct deed_append append;
};

struct run {
    struct os_mutex mutex;
    struct os_cond cond;
    struct writer *free[WRITERS_MAX]; /* not under way */
    size_t free_count;
    uint64_t done, failed;
};

static void on_done(void *context, const struct deed_appended *appended,
                    const struct deed_error *err)
{
    struct writer *writer = context;
    struct run *run = writer->run;
    (void)err;
    os_mutex_lock(&run->mutex);
    run->done++;
    if (appended == NULL) run->failed++;
    run->free[run->free_count++] = writer;
    os_cond_signal(&run->cond);
    os_mutex_unlock(&run->mutex);
}

static void measure(struct store *store, size_t writer_count, uint64_t seconds, deed_str data)
{
    static struct writer writers[WRITERS_MAX];
    static struct run run;
    struct deed_error err = {0};
    memset(&run, 0, sizeof run);
    os_mutex_init(&run.mutex);
    os_cond_init(&run.cond);
    for (size_t i = 0; i < writer_count; i++) {
        struct writer *w = &writers[i];
        *w = (struct writer){.run = &run};
        snprintf(w->name, sizeof w->name, "bench-%zu-%zu", writer_count, i);
        w->event = (struct deed_new_event){.stream = deed_str_of(w->name),
                                           .type = DEED_STR("Measured"),
                                           .data = deed_bytes_of(data)};
        w->append = (struct deed_append){.events = &w->event, .event_count = 1};
        run.free[run.free_count++] = w;
    }
    uint64_t begun = bench_now(), end = begun + seconds * 1000000000u;
    while (bench_now() < end) {
        os_mutex_lock(&run.mutex);
        while (run.free_count == 0) (void)os_cond_wait(&run.cond, &run.mutex, UINT64_MAX);
        struct writer *writer = run.free[--run.free_count];
        os_mutex_unlock(&run.mutex);
        bench_ok(store_submit(store, &writer->append, on_done, writer, &err));
    }
    os_mutex_lock(&run.mutex);
    while (run.free_count < writer_count) (void)os_cond_wait(&run.cond, &run.mutex, UINT64_MAX);
    os_mutex_unlock(&run.mutex);
    char what[64];
    snprintf(what, sizeof what, "library append, %zu under way", writer_count);
    bench_report(what, run.done, run.done * data.len, bench_now() - begun);
    if (run.failed > 0) fprintf(stderr, "%" PRIu64 " appends failed\n", run.failed);
    os_cond_done(&run.cond);
    os_mutex_done(&run.mutex);
}

int main(int argc, char **argv)
{
    const char *directory = bench_directory(argc > 1 ? argv[1] : ".");
    uint64_t seconds = bench_argument(argc, argv, 2, 5);
    uint64_t size = bench_argument(argc, argv, 3, 200);
    struct deed_error err = {0};
    struct store *store = NULL;
    struct store_options options = {0};
    char *data = malloc(size + 16);
    if (data == NULL || size < 10) return 1;
    memset(data, 'x', size);
    memcpy(data, "{\"pad\":\"", 8);
    memcpy(data + size - 2, "\"}", 3);
    bench_ok(store_open(os_real(), directory, &options, &store, &err));
    measure(store, 1, seconds, deed_str_of(data));
    measure(store, 64, seconds, deed_str_of(data));
    measure(store, WRITERS_MAX, seconds, deed_str_of(data));
    store_close(store);
    bench_remove(directory);
    free(data);
    return 0;
}
