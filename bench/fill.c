/* fill.c - a large log, and a writer to be killed.
 *
 *     fill DIRECTORY EVENTS [TAGS [STAY]]
 *
 * EVENTS order lines of 256 bytes, an event an append, ten a stream, streams taking turns; every other
 * event has one of the tags tag-0 … so that TAGS (1,000,000) tags have ten events each if there are
 * twenty times as many events. A tag's events have the types Filled-(tag modulo 5), which is what
 * `deedbook bench --mode condition` asks about.
 *
 * They are not synced one by one: that is not what is measured. With STAY 1 the log is then opened
 * anew and appended to durably until somebody kills the process; "writing" is printed once it is. */
#include "bench.h"

#include "os/thread.h"
#include "store/store.h"

#define UNDER_WAY  1024
#define TYPE_COUNT 5

struct slot {
    char stream[32], type[16], tag_text[24], data[BENCH_LINE_SIZE + 1];
    deed_str tag;
    struct deed_new_event event;
    struct deed_append append;
};

static struct slot slots[UNDER_WAY];
static struct os_mutex mutex;
static struct os_cond cond;
static struct slot *unused[UNDER_WAY];
static size_t unused_count;
static uint64_t failed;

static void on_done(void *context, const struct deed_appended *appended,
                    const struct deed_error *err)
{
    os_mutex_lock(&mutex);
    if (appended == NULL && failed++ == 0) fprintf(stderr, "fill: %s\n", err->message);
    unused[unused_count++] = context;
    if (unused_count == UNDER_WAY / 2 || unused_count == UNDER_WAY) os_cond_signal(&cond);
    os_mutex_unlock(&mutex);
}

static void slot_make(struct slot *slot, uint64_t n, uint64_t streams, uint64_t tags)
{
    bool tagged = n % 2 == 0;
    uint64_t tag = n / 2 % tags;
    snprintf(slot->stream, sizeof slot->stream, "order-%" PRIu64, n % streams);
    snprintf(slot->type, sizeof slot->type, "Filled-%" PRIu64,
             tagged ? tag % TYPE_COUNT : TYPE_COUNT + n / 2 % TYPE_COUNT);
    snprintf(slot->tag_text, sizeof slot->tag_text, "tag-%" PRIu64, tag);
    bench_line(n, slot->data);
    slot->tag = deed_str_of(slot->tag_text);
    slot->event = (struct deed_new_event){.stream = deed_str_of(slot->stream),
                                          .type = deed_str_of(slot->type),
                                          .data = {(uint8_t *)slot->data, BENCH_LINE_SIZE},
                                          .tags = &slot->tag,
                                          .tag_count = tagged ? 1 : 0};
    slot->append = (struct deed_append){.events = &slot->event, .event_count = 1};
}

static void fill(struct store *store, uint64_t count, uint64_t tags)
{
    struct deed_error err = {0};
    uint64_t streams = count / 10 == 0 ? 1 : count / 10;
    size_t here_count = 0;
    struct slot *here[UNDER_WAY]; /* taken in bulk, so that the lock is rarely asked for */
    for (size_t i = 0; i < UNDER_WAY; i++)
        unused[unused_count++] = &slots[i];
    for (uint64_t n = 0; n < count; n++) {
        if (here_count == 0) {
            os_mutex_lock(&mutex);
            while (unused_count == 0)
                (void)os_cond_wait(&cond, &mutex, UINT64_MAX);
            memcpy(here, unused, unused_count * sizeof here[0]);
            here_count = unused_count;
            unused_count = 0;
            os_mutex_unlock(&mutex);
        }
        struct slot *slot = here[--here_count];
        slot_make(slot, n, streams, tags);
        bench_ok(store_submit(store, &slot->append, on_done, slot, &err));
    }
    os_mutex_lock(&mutex);
    while (unused_count + here_count < UNDER_WAY)
        (void)os_cond_wait(&cond, &mutex, UINT64_C(10000000));
    os_mutex_unlock(&mutex);
}

static void stay(const char *directory)
{
    struct deed_error err = {0};
    struct store *store = NULL;
    struct store_options options = {0};
    bench_ok(store_open(os_real(), directory, &options, &store, &err));
    for (uint64_t n = 0;; n++) {
        struct deed_appended appended;
        slot_make(&slots[0], n, 100, 100);
        bench_ok(store_append(store, &slots[0].append, &appended, &err));
        if (n == 100) {
            printf("writing\n");
            fflush(stdout);
        }
    }
}

int main(int argc, char **argv)
{
    struct deed_error err = {0};
    struct store *store = NULL;
    struct store_options options = {.unsafe_no_sync = true};
    uint64_t count = bench_argument(argc, argv, 2, 1000000);
    uint64_t tags = bench_argument(argc, argv, 3, 1000000);
    if (argc < 3 || tags == 0) return 2;
    os_mutex_init(&mutex);
    os_cond_init(&cond);
    uint64_t begun = bench_now();
    bench_ok(store_open(os_real(), argv[1], &options, &store, &err));
    fill(store, count, tags);
    bench_report("fill", count, count * BENCH_LINE_SIZE, bench_now() - begun);
    store_close(store);
    if (failed > 0) return 1;
    if (bench_argument(argc, argv, 4, 0) != 0) stay(argv[1]);
    return 0;
}
