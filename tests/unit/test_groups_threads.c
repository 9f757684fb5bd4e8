/* test_groups_threads.c - consumer groups with their actor, and consumers on threads of their own. */
#include "groups/groups.h"
#include "os/thread.h"
#include "store_fixture.h"

#include <stdatomic.h>

#define CONSUMERS 3
#define TAKE      64

static struct groups *groups;
static _Atomic uint64_t acked;

struct worker {
    struct group_consumer *consumer;
    struct actor *actor;
    struct os_mutex lock; /* the actor may be woken before it is known */
    bool gives_back;
    uint64_t taken;
};
static struct worker workers[CONSUMERS];

static uint64_t work(void *context)
{
    struct worker *w = context;
    struct group_message messages[TAKE];
    deed_uuid ids[TAKE];
    size_t count = 0;
    if (groups_take(w->consumer, messages, TAKE, SIZE_MAX, &count, NULL) != DEED_OK) {
        return ACTOR_WAIT;
    }
    for (size_t i = 0; i < count; i++) {
        ids[i] = messages[i].id;
        group_message_done(&messages[i]);
    }
    w->taken += count;
    if (w->gives_back && count > 1 && w->taken % 7 == 0) {
        (void)groups_nack(w->consumer, ids, 1, GROUP_NACK_RETRY, DEED_STR("again"));
        ids[0] = ids[--count];
    }
    atomic_fetch_add(&acked, groups_ack(w->consumer, ids, count));
    return count == 0 ? ACTOR_WAIT : ACTOR_AGAIN;
}

static void woken(void *context)
{
    struct worker *w = context;
    os_mutex_lock(&w->lock);
    actor_wake(w->actor);
    os_mutex_unlock(&w->lock);
}

static void worker_start(struct worker *w, uint32_t buffer_size)
{
    struct group_consumer_options how = {
        .buffer_size = buffer_size, .wake = woken, .context = w};
    struct actor *actor = NULL;
    os_mutex_init(&w->lock);
    expect_ok(groups_join(groups, DEED_STR("s"), DEED_STR("g"), &how, &w->consumer, &err));
    expect_ok(actor_start("consumer", work, w, &actor, &err));
    os_mutex_lock(&w->lock);
    w->actor = actor;
    os_mutex_unlock(&w->lock);
}

static void worker_stop(struct worker *w)
{
    os_mutex_lock(&w->lock);
    struct actor *actor = w->actor;
    w->actor = NULL;
    os_mutex_unlock(&w->lock);
    actor_stop(actor);
    groups_leave(w->consumer);
    os_mutex_done(&w->lock);
    *w = (struct worker){0};
}

static void open_groups(enum group_strategy strategy)
{
    struct group_settings settings;
    group_settings_default(&settings);
    settings.start = GROUP_FROM_START;
    settings.strategy = strategy;
    settings.retry_count_max = UINT32_MAX;
    expect_ok(groups_open(store, NULL, &groups, &err));
    expect_ok(groups_create(groups, DEED_STR("s"), DEED_STR("g"), &settings, &err));
}

static void wait_for(uint64_t count)
{
    uint64_t begin = os_ticks_ns(os);
    while (atomic_load(&acked) < count) {
        if (os_ticks_ns(os) - begin > 60 * SECOND) {
            fail_msg("%llu of %llu after a minute", (unsigned long long)atomic_load(&acked),
                     (unsigned long long)count);
        }
        usleep(1000);
    }
}

static void append_many(unsigned count)
{
    static struct deed_new_event events[1000];
    for (unsigned i = 0; i < 1000; i++) events[i] = said("s", "word");
    for (unsigned i = 0; i < count; i += 1000) expect_ok(append_all(events, 1000, NULL, 0));
}

TEST(groups_threads, everything_is_acknowledged_while_it_is_written)
{
    start_here();
    atomic_store(&acked, 0);
    open_groups(GROUP_ROUND_ROBIN);
    for (unsigned i = 0; i < CONSUMERS; i++) {
        worker_start(&workers[i], 10 + i);
        workers[i].gives_back = i == 1;
    }
    append_many(5000);
    wait_for(2000);
    worker_stop(&workers[0]); /* what it had goes to others */
    worker_start(&workers[0], 100);
    wait_for(5000);
    for (unsigned i = 0; i < CONSUMERS; i++) worker_stop(&workers[i]);
    groups_close(groups);
    finish();
}

TEST(groups_threads, groups_are_changed_under_their_consumers)
{
    struct group_settings settings;
    start_here();
    atomic_store(&acked, 0);
    open_groups(GROUP_PINNED);
    group_settings_default(&settings);
    settings.start = GROUP_FROM_START;
    append_many(3000);
    for (unsigned round = 0; round < 5; round++) {
        for (unsigned i = 0; i < CONSUMERS; i++) worker_start(&workers[i], 50);
        settings.strategy = (enum group_strategy)(round % GROUP_STRATEGY_COUNT);
        expect_ok(groups_update(groups, DEED_STR("s"), DEED_STR("g"), &settings, &err));
        for (unsigned i = 0; i < CONSUMERS; i++) worker_stop(&workers[i]);
    }
    worker_start(&workers[0], 50);
    wait_for(3000);
    expect_ok(groups_delete(groups, DEED_STR("s"), DEED_STR("g"), &err));
    worker_stop(&workers[0]);
    groups_close(groups);
    finish();
}

TEST(groups_threads, many_events_go_through_one_subscription)
{
    const char *wanted = getenv("GROUP_EVENTS");
    unsigned count = wanted == NULL ? 20000 : (unsigned)atoi(wanted);
    start_here();
    atomic_store(&acked, 0);
    open_groups(GROUP_ROUND_ROBIN);
    append_many(count);
    uint64_t begin = os_ticks_ns(os);
    worker_start(&workers[0], 1000);
    wait_for(count);
    uint64_t ns = os_ticks_ns(os) - begin;
    printf("%u events in %.3f s: %.0f a second\n", count, (double)ns / 1e9,
           (double)count * 1e9 / (double)ns);
    worker_stop(&workers[0]);
    groups_close(groups);
    finish();
}

TEST_MAIN(groups_threads)
