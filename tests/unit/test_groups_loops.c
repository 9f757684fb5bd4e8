/* test_groups_loops.c - belongs to src/groups: a short life of a group, in which the k-th operation of the
 * disk, or the k-th allocation, fails, for every k, once and for good; or the power goes before it.
 *
 * After each: every event was dealt with, or is parked, or comes again; a group that was said to be made
 * is there.
 *
 * sanitize: asan */
#include "groups/groups.h"
#include "base/uuid.h"
#include "memory.h"
#include "store_fixture.h"

#include <errno.h>

#define EVENTS 8
#define S      DEED_STR("order-1")
#define G      DEED_STR("mailer")

static struct groups *groups;
static struct group_consumer *consumer;
static bool created;
static bool dealt_with[EVENTS]; /* acknowledged, and that counted */
static bool gone[EVENTS];       /* or seen after the trouble */

static void pump(void)
{
    for (unsigned i = 0; i < 200; i++) {
        bool more = groups_step(groups) == ACTOR_AGAIN;
        if (!store_step(store) && !more) return;
    }
}

static unsigned event_of(const struct group_message *m)
{
    assert_non_null(m->event);
    unsigned n = (unsigned)(m->event->data.ptr[1] - '0');
    assert_true(n < EVENTS);
    return n;
}

/* Any failure of this kind may be told; nothing else. */
static bool may_fail(deed_status status)
{
    switch (status) {
    case DEED_OK:
    case DEED_NO_MEMORY:
    case DEED_IO:
    case DEED_FULL:
    case DEED_UNKNOWN:
    case DEED_STOPPED:
    case DEED_NOT_FOUND:
    case DEED_BUSY:
        return true;
    default:
        return false;
    }
}

static deed_status open_all(void)
{
    struct groups_options how = {.no_threads = true};
    groups = NULL;
    deed_status status = try_open();
    if (status == DEED_OK) status = groups_open(store, &how, &groups, &err);
    return status;
}

static void close_all(void)
{
    groups_leave(consumer);
    consumer = NULL;
    groups_close(groups);
    groups = NULL;
    close_store();
}

static void answer(const struct group_message *m)
{
    unsigned n = event_of(m);
    switch (n % 4) {
    case 0:
    case 1:
        if (groups_ack(consumer, &m->id, 1) == 1) dealt_with[n] = true;
        break;
    case 2:
        (void)groups_nack(consumer, &m->id, 1, GROUP_NACK_PARK, DEED_STR("because"));
        break;
    default:
        if (m->retry_count > 0) break; /* it stays */
        (void)groups_nack(consumer, &m->id, 1, GROUP_NACK_RETRY, DEED_STR("because"));
        break;
    }
}

static void take_all(void)
{
    struct group_message m;
    size_t count = 1;
    while (consumer != NULL && count > 0) {
        if (groups_take(consumer, &m, 1, 1, &count, &err) != DEED_OK) return;
        if (count == 0) return;
        answer(&m);
        group_message_done(&m);
    }
}

static void life(void)
{
    struct group_settings settings;
    struct group_consumer_options how = {.buffer_size = 10};
    group_settings_default(&settings);
    settings.start = GROUP_FROM_START;
    settings.strategy = GROUP_PINNED;
    settings.checkpoint_count_min = 1;
    settings.checkpoint_count_max = 2;
    deed_status status = groups_create(groups, S, G, &settings, &err);
    assert_true(may_fail(status));
    created |= status == DEED_OK;
    if (status != DEED_OK) return;
    status = groups_join(groups, S, G, &how, &consumer, &err);
    assert_true(may_fail(status));
    for (unsigned i = 0; i < 4; i++) {
        pump();
        take_all();
        if (sim != NULL && os_sim_powered(sim)) os_sim_advance(sim, 3 * SECOND);
    }
    status = groups_replay_parked(groups, S, G, DEED_NONE, NULL, &err);
    assert_true(may_fail(status));
    pump();
    take_all();
    pump();
    settings.retry_count_max = 3;
    status = groups_update(groups, S, G, &settings, &err);
    assert_true(may_fail(status));
}

static bool note_parked(void *context, const struct group_parked *p)
{
    (void)context;
    assert_non_null(p->event);
    gone[p->event->data.ptr[1] - '0'] = true;
    return true;
}

/* What was not dealt with comes, or is parked. */
static void expect_all(void)
{
    struct group_consumer_options how = {.buffer_size = 100};
    deed_status status = groups_join(groups, S, G, &how, &consumer, &err);
    if (status == DEED_NOT_FOUND) {
        assert_false(created);
        return;
    }
    expect_ok(status);
    pump();
    struct group_message m;
    size_t count = 1;
    for (;;) {
        expect_ok(groups_take(consumer, &m, 1, 1, &count, &err));
        if (count == 0) break;
        gone[event_of(&m)] = true;
        group_message_done(&m);
    }
    expect_ok(groups_parked(groups, S, G, 0, note_parked, NULL, &err));
    for (unsigned n = 0; n < EVENTS; n++) {
        if (!dealt_with[n] && !gone[n]) fail_msg("event %u is lost", n);
    }
}

enum trouble { DISK_ONCE, DISK_FOR_GOOD, MEMORY_ONCE, MEMORY_FOR_GOOD, POWER };

/* true: the k-th one was there to fail. */
static bool scenario(enum trouble trouble, uint64_t k)
{
    memset(dealt_with, 0, sizeof dealt_with);
    memset(gone, 0, sizeof gone);
    created = false;
    start();
    for (unsigned n = 0; n < EVENTS; n++) {
        char word[2] = {(char)('0' + n), '\0'};
        say("order-1", word);
    }
    close_store();
    bool memory = trouble == MEMORY_ONCE || trouble == MEMORY_FOR_GOOD;
    uint64_t more = trouble == DISK_FOR_GOOD || trouble == MEMORY_FOR_GOOD ? DEED_NONE : 0;
    expect_ok(open_all());
    uint64_t before = os_sim_count(sim, memory ? OS_SIM_ALLOCATE : OS_SIM_ANY);
    memory_machine = sim;
    if (trouble == POWER) {
        os_sim_power_off_after(sim, k);
    } else {
        os_sim_fail(sim, memory ? OS_SIM_ALLOCATE : OS_SIM_ANY, k, more, memory ? ENOMEM : EIO);
    }
    life();
    uint64_t after = os_sim_count(sim, memory ? OS_SIM_ALLOCATE : OS_SIM_ANY);
    memory_machine = NULL;
    if (trouble == POWER || trouble == DISK_FOR_GOOD) os_sim_crash(sim);
    close_all();
    os_sim_heal(sim);
    expect_ok(open_all());
    expect_all();
    close_all();
    finish();
    return after - before >= k;
}

static void loop(enum trouble trouble)
{
    uint64_t k = 1;
    while (scenario(trouble, k)) k++;
    assert_true(k > 10);
}

TEST(groups_loops, an_operation_fails_once)
{
    loop(DISK_ONCE);
}

TEST(groups_loops, operations_fail_from_then_on)
{
    loop(DISK_FOR_GOOD);
}

TEST(groups_loops, an_allocation_fails_once)
{
    loop(MEMORY_ONCE);
}

TEST(groups_loops, allocations_fail_from_then_on)
{
    loop(MEMORY_FOR_GOOD);
}

TEST(groups_loops, the_power_goes)
{
    loop(POWER);
}

TEST_MAIN(groups_loops)
