/* growth.c - what an event costs as the log grows: it must stay what it was.
 *
 *     growth DIRECTORY [EVENTS [STEP]]
 *
 * A log grows to EVENTS (20,000,000) in steps of STEP (1,000,000). In each step a quarter of the events
 * goes
 *
 *     to new streams, one event each, under the condition that the stream does not exist
 *     to old streams, any of all so far, under the condition that it exists
 *     under a condition on a tag and two types, about any of the tags so far; each then has the tag
 *     to streams of ten events, in turns
 *
 * and then streams of ten events are read, any of all so far. A line of JSON each: time and processor
 * time an event of the whole process, so sealing and merging are in it. Appends are not synced, since
 * it is our own work that might grow; 1,024 are under way at once. */
#include "bench.h"

#include "os/thread.h"
#include "store/store.h"

#include <sys/resource.h>

#define UNDER_WAY  1024
#define READ_COUNT 20000
#define TYPE_COUNT 5

enum phase { NEW_STREAMS, OLD_STREAMS, CONDITIONS, TENS, PHASE_COUNT };
static const char *const phase_names[PHASE_COUNT] = {"append, new streams", "append, old streams",
                                                     "condition", "append, streams of ten"};

struct slot {
    char stream[48], tag_text[40], data[BENCH_LINE_SIZE + 1];
    deed_str tag, types[2];
    struct deed_query_item item;
    struct deed_condition condition;
    struct deed_new_event event;
    struct deed_append append;
};

struct growth {
    struct store *store;
    uint64_t quarter;                 /* events of a phase */
    uint64_t singles, tags, ten_base; /* how many streams, tags and groups of ten so far */
    uint64_t random;
    uint64_t step_end; /* events in the log once this step is done */
};

static struct slot slots[UNDER_WAY];
static struct os_mutex mutex;
static struct os_cond cond;
static struct slot *unused[UNDER_WAY];
static size_t unused_count;
static uint64_t failed;

static const deed_str types[TYPE_COUNT] = {DEED_STR("Filled-0"), DEED_STR("Filled-1"),
                                           DEED_STR("Filled-2"), DEED_STR("Filled-3"),
                                           DEED_STR("Filled-4")};

static uint64_t next_random(struct growth *growth)
{
    uint64_t x = growth->random += UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

static void on_done(void *context, const struct deed_appended *appended,
                    const struct deed_error *err)
{
    os_mutex_lock(&mutex);
    if (appended == NULL && failed++ == 0) fprintf(stderr, "growth: %s\n", err->message);
    unused[unused_count++] = context;
    if (unused_count >= UNDER_WAY / 2) os_cond_signal(&cond);
    os_mutex_unlock(&mutex);
}

/* The events of tag n have type n modulo TYPE_COUNT; the condition asks for two other types, so the
 * tag's postings must be looked at, and never finds one. */
static void tag_set(struct slot *slot, uint64_t tag)
{
    snprintf(slot->tag_text, sizeof slot->tag_text, "tag-%" PRIu64, tag);
    slot->tag = deed_str_of(slot->tag_text);
    slot->types[0] = types[(tag + 1) % TYPE_COUNT];
    slot->types[1] = types[(tag + 2) % TYPE_COUNT];
    slot->item = (struct deed_query_item){
        .types = slot->types, .type_count = 2, .tags = &slot->tag, .tag_count = 1};
    slot->condition = (struct deed_condition){
        .kind = DEED_CONDITION_NO_MATCH, .items = &slot->item, .item_count = 1};
    slot->event.type = types[tag % TYPE_COUNT];
    slot->event.tags = &slot->tag;
    slot->event.tag_count = 1;
}

static void slot_make(struct growth *g, struct slot *slot, enum phase phase, uint64_t n)
{
    bench_line(n, slot->data);
    slot->event = (struct deed_new_event){.stream = {slot->stream, 0},
                                          .type = types[n % TYPE_COUNT],
                                          .data = {(uint8_t *)slot->data, BENCH_LINE_SIZE}};
    slot->condition = (struct deed_condition){.kind = DEED_CONDITION_STREAM};
    slot->append = (struct deed_append){.events = &slot->event,
                                        .event_count = 1,
                                        .conditions = &slot->condition,
                                        .condition_count = 1};
    uint64_t stream = 0;
    const char *kind = "one";
    if (phase == NEW_STREAMS) {
        stream = g->singles++;
        slot->condition.expect = DEED_EXPECT_NONE;
    } else if (phase == OLD_STREAMS) {
        stream = next_random(g) % g->singles;
        slot->condition.expect = DEED_EXPECT_EXISTS;
    } else if (phase == CONDITIONS) {
        kind = "course";
        stream = n % 1000;
        /* A tenth of them new: ten events a tag in the end. */
        uint64_t tag = n % 10 == 0 || g->tags == 0 ? g->tags++ : next_random(g) % g->tags;
        tag_set(slot, tag);
    } else {
        kind = "ten";
        stream = g->ten_base + n % (g->quarter / 10);
        slot->append.condition_count = 0;
    }
    int size = snprintf(slot->stream, sizeof slot->stream, "%s-%" PRIu64, kind, stream);
    slot->event.stream.len = (size_t)size;
    slot->condition.stream = slot->event.stream;
}

static void append_all(struct growth *g, enum phase phase)
{
    struct deed_error err = {0};
    struct slot *here[UNDER_WAY]; /* taken in bulk, so that the lock is rarely asked for */
    size_t here_count = 0;
    for (uint64_t n = 0; n < g->quarter; n++) {
        if (here_count == 0) {
            os_mutex_lock(&mutex);
            while (unused_count == 0)
                (void)os_cond_wait(&cond, &mutex, UINT64_C(1000000));
            memcpy(here, unused, unused_count * sizeof(struct slot *));
            here_count = unused_count;
            unused_count = 0;
            os_mutex_unlock(&mutex);
        }
        struct slot *slot = here[--here_count];
        slot_make(g, slot, phase, n);
        bench_ok(store_submit(g->store, &slot->append, on_done, slot, &err));
    }
    os_mutex_lock(&mutex);
    while (here_count > 0)
        unused[unused_count++] = here[--here_count];
    while (unused_count < UNDER_WAY)
        (void)os_cond_wait(&cond, &mutex, UINT64_C(1000000));
    os_mutex_unlock(&mutex);
}

static uint64_t read_some(struct growth *g)
{
    struct deed_error err = {0};
    struct deed_event event;
    uint64_t events = 0, touched = 0;
    for (uint64_t i = 0; i < READ_COUNT; i++) {
        char name[32];
        struct deed_cursor *cursor = NULL;
        snprintf(name, sizeof name, "ten-%" PRIu64, next_random(g) % g->ten_base);
        struct deed_read_options options = {.stream = deed_str_of(name)};
        bench_ok(store_read(g->store, &options, &cursor, &err));
        deed_status status;
        while ((status = cursor_next(cursor, &event, &err)) == DEED_OK) {
            events++;
            touched += event.data.ptr[0];
        }
        if (status != DEED_END) bench_die("cursor_next", &err);
        cursor_close(cursor);
    }
    if (events != READ_COUNT * 10 || touched == 0) {
        fprintf(stderr, "growth: %" PRIu64 " events were read, not %d\n", events, READ_COUNT * 10);
        exit(1);
    }
    return events;
}

static uint64_t cpu_ns(void)
{
    struct rusage usage;
    (void)getrusage(RUSAGE_SELF, &usage);
    return (uint64_t)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000000000u +
           (uint64_t)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * 1000u;
}

static double anonymous_mib(void)
{
    char line[256];
    double kib = 0;
    FILE *file = fopen("/proc/self/status", "r");
    while (file != NULL && fgets(line, sizeof line, file) != NULL)
        if (strncmp(line, "RssAnon:", 8) == 0) kib = strtod(line + 8, NULL);
    if (file != NULL) fclose(file);
    return kib / 1024;
}

static void say(struct growth *g, const char *series, uint64_t events, uint64_t begun_ns,
                uint64_t begun_cpu_ns)
{
    printf("{\"series\":\"%s\",\"step\":%" PRIu64 ",\"events\":%" PRIu64
           ",\"ns_per_event\":%.1f,\"cpu_ns_per_event\":%.1f,\"anonymous_mib\":%.1f}\n",
           series, g->step_end, store_position(g->store),
           (double)(bench_now() - begun_ns) / (double)events,
           (double)(cpu_ns() - begun_cpu_ns) / (double)events, anonymous_mib());
    fflush(stdout);
}

int main(int argc, char **argv)
{
    struct deed_error err = {0};
    struct store_options options = {.unsafe_no_sync = true};
    struct growth growth = {.random = 1};
    uint64_t end = bench_argument(argc, argv, 2, 20000000);
    uint64_t step = bench_argument(argc, argv, 3, 1000000);
    char *directory = bench_directory(argc > 1 ? argv[1] : ".");
    if (step < 4000) return 2;
    growth.quarter = step / 40 * 10; /* of which a tenth are streams */
    os_mutex_init(&mutex);
    os_cond_init(&cond);
    for (size_t i = 0; i < UNDER_WAY; i++)
        unused[unused_count++] = &slots[i];
    bench_ok(store_open(os_real(), directory, &options, &growth.store, &err));
    for (uint64_t at = 0; at < end && failed == 0; at += step) {
        growth.step_end = at + step;
        for (int phase = 0; phase < PHASE_COUNT; phase++) {
            uint64_t begun_ns = bench_now(), begun_cpu_ns = cpu_ns();
            append_all(&growth, (enum phase)phase);
            say(&growth, phase_names[phase], growth.quarter, begun_ns, begun_cpu_ns);
        }
        growth.ten_base += growth.quarter / 10;
        uint64_t begun_ns = bench_now(), begun_cpu_ns = cpu_ns();
        uint64_t events = read_some(&growth);
        say(&growth, "stream read", events, begun_ns, begun_cpu_ns);
    }
    store_close(growth.store);
    bench_remove(directory);
    return failed > 0;
}
