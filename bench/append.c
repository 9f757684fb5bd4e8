/* append.c - durable appends in the library: without HTTP, so what the log itself does.
 *
 *     append [DIRECTORY [SECONDS [WRITERS [BATCH [IDS]]]]]
 *
 * WRITERS (64) appends of BATCH (1) events of 256 bytes each are under way at once; each writer has a
 * stream of its own and says at which revision it is. IDS 1: events bring random ids. */
#include "bench.h"

#include "cli/workload.h"
#include "os/thread.h"
#include "store/store.h"

#define WRITERS_MAX 4096
#define DATA_SIZE   256
#define WARMUP_NS   UINT64_C(500000000)

struct writer {
    struct run *run;
    char name[64];
    uint64_t started_ns;
    struct deed_condition condition;
    struct deed_new_event *events;
    struct deed_append append;
};

struct run {
    struct os_mutex mutex;
    struct os_cond cond;
    struct writer *free[WRITERS_MAX]; /* not under way */
    size_t free_count;
    uint64_t measure_from_ns;
    struct load_histogram latency;
    uint64_t failed;
    char message[512]; /* of the first that failed */
};

static struct writer writers[WRITERS_MAX];
static struct run run;

static void on_done(void *context, const struct deed_appended *appended,
                    const struct deed_error *err)
{
    struct writer *writer = context;
    uint64_t now_ns = bench_now();
    os_mutex_lock(&run.mutex);
    if (appended == NULL && run.failed++ == 0)
        snprintf(run.message, sizeof run.message, "%s", err->message);
    if (appended != NULL) {
        writer->condition.expect = DEED_EXPECT_REVISION;
        writer->condition.revision = appended->revision;
    }
    if (writer->started_ns >= run.measure_from_ns)
        load_histogram_add(&run.latency, now_ns - writer->started_ns);
    run.free[run.free_count++] = writer;
    os_cond_signal(&run.cond);
    os_mutex_unlock(&run.mutex);
}

static struct writer *writer_wait(size_t free_count_min)
{
    os_mutex_lock(&run.mutex);
    while (run.free_count < free_count_min)
        (void)os_cond_wait(&run.cond, &run.mutex, UINT64_MAX);
    struct writer *writer = run.free[--run.free_count];
    os_mutex_unlock(&run.mutex);
    return writer;
}

static void writer_init(struct writer *w, size_t index, size_t batch, deed_bytes data)
{
    *w = (struct writer){.run = &run, .events = calloc(batch, sizeof *w->events)};
    if (w->events == NULL) exit(1);
    snprintf(w->name, sizeof w->name, "bench-%zu", index);
    for (size_t i = 0; i < batch; i++) {
        w->events[i] = (struct deed_new_event){
            .stream = deed_str_of(w->name), .type = DEED_STR("Measured"), .data = data};
    }
    w->condition = (struct deed_condition){
        .kind = DEED_CONDITION_STREAM, .stream = deed_str_of(w->name), .expect = DEED_EXPECT_NONE};
    w->append = (struct deed_append){.events = w->events,
                                     .event_count = batch,
                                     .conditions = &w->condition,
                                     .condition_count = 1};
    run.free[run.free_count++] = w;
}

/* splitmix64, twice: cheap enough for a million a second. */
static void random_id(deed_uuid *out)
{
    static uint64_t state;
    if (state == 0) os_random(os_real(), &state, sizeof state);
    for (size_t half = 0; half < sizeof out->bytes; half += 8) {
        uint64_t x = state += UINT64_C(0x9e3779b97f4a7c15);
        x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
        x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
        x ^= x >> 31;
        memcpy(out->bytes + half, &x, 8);
    }
}

int main(int argc, char **argv)
{
    const char *directory = bench_directory(argc > 1 ? argv[1] : ".");
    uint64_t seconds = bench_argument(argc, argv, 2, 5);
    size_t count = bench_argument(argc, argv, 3, 64), batch = bench_argument(argc, argv, 4, 1);
    bool ids = bench_argument(argc, argv, 5, 0) != 0;
    struct deed_error err = {0};
    struct store *store = NULL;
    struct store_options options = {0};
    struct buf data;
    if (count == 0 || count > WRITERS_MAX || batch == 0) return 1;
    buf_init(&data, DATA_SIZE);
    workload_data(&data, DATA_SIZE);
    bench_ok(store_open(os_real(), directory, &options, &store, &err));
    os_mutex_init(&run.mutex);
    os_cond_init(&run.cond);
    for (size_t i = 0; i < count; i++)
        writer_init(&writers[i], i, batch, buf_bytes(&data));

    run.measure_from_ns = bench_now() + WARMUP_NS;
    uint64_t end_ns = run.measure_from_ns + seconds * 1000000000u;
    while (bench_now() < end_ns) {
        struct writer *writer = writer_wait(1);
        for (size_t i = 0; ids && i < batch; i++)
            random_id(&writer->events[i].id);
        writer->started_ns = bench_now();
        bench_ok(store_submit(store, &writer->append, on_done, writer, &err));
    }
    for (size_t left = count; left > 0; left--)
        (void)writer_wait(1);
    char what[128];
    snprintf(what, sizeof what, "library append, %zu under way of %zu events%s", count, batch,
             ids ? " with ids" : "");
    bench_report_latency(what, &run.latency, batch, bench_now() - run.measure_from_ns);
    store_close(store);
    bench_remove(directory);
    if (run.failed > 0)
        fprintf(stderr, "%" PRIu64 " appends failed: %s\n", run.failed, run.message);
    return run.failed > 0;
}
