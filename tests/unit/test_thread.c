/* test_thread.c - belongs to thread.c. Run under the thread sanitizer too. */
#include "unit/test.h"

#include "os/os.h"
#include "os/thread.h"

#include <dirent.h>
#include <signal.h>
#include <unistd.h>

#define MS UINT64_C(1000000)

/* ---- the fixture: an actor that counts its steps and answers what the test wants ---------------
 */

struct counter {
    struct os_mutex mutex;
    struct os_cond changed;
    uint64_t step_count;
    uint64_t answer;       /* what each step says */
    uint64_t answer_count; /* for so many steps; then ACTOR_WAIT */
    bool in_step, hold;    /* a step that is held does not end */
    bool wakes_itself;
    struct actor *actor;
};

static struct deed_error err;

static void counter_init(struct counter *c)
{
    *c = (struct counter){.answer = ACTOR_WAIT};
    os_mutex_init(&c->mutex);
    os_cond_init(&c->changed);
}

static uint64_t count_step(void *context)
{
    struct counter *c = context;
    os_mutex_lock(&c->mutex);
    c->step_count++;
    c->in_step = true;
    os_cond_broadcast(&c->changed);
    while (c->hold)
        (void)os_cond_wait(&c->changed, &c->mutex, UINT64_MAX);
    c->in_step = false;
    os_cond_broadcast(&c->changed);
    bool more = c->step_count < c->answer_count;
    uint64_t answer = more ? c->answer : ACTOR_WAIT;
    bool wake = more && c->wakes_itself;
    struct actor *self = c->actor;
    os_mutex_unlock(&c->mutex);
    if (wake) actor_wake(self);
    return answer;
}

static void start(struct counter *c)
{
    os_mutex_lock(&c->mutex);
    expect_ok(actor_start("counter", count_step, c, &c->actor, &err));
    os_mutex_unlock(&c->mutex);
}

static void expect_steps(struct counter *c, uint64_t wanted)
{
    os_mutex_lock(&c->mutex);
    bool in_time = true;
    while (in_time && c->step_count < wanted) {
        in_time = os_cond_wait(&c->changed, &c->mutex, 10000 * MS);
    }
    uint64_t seen = c->step_count;
    os_mutex_unlock(&c->mutex);
    assert_true(seen >= wanted);
}

static void hold(struct counter *c, bool on)
{
    os_mutex_lock(&c->mutex);
    c->hold = on;
    os_cond_broadcast(&c->changed);
    os_mutex_unlock(&c->mutex);
}

static void stop(struct counter *c)
{
    actor_stop(c->actor);
    os_cond_done(&c->changed);
    os_mutex_done(&c->mutex);
}

static uint64_t steps_now(struct counter *c)
{
    os_mutex_lock(&c->mutex);
    uint64_t count = c->step_count;
    os_mutex_unlock(&c->mutex);
    return count;
}

/* ---- actors ------------------------------------------------------------------------------- */

TEST(thread, an_actor_steps_when_it_starts_and_when_woken)
{
    struct counter c;
    counter_init(&c);
    start(&c);
    expect_steps(&c, 1);
    for (uint64_t i = 2; i < 50; i++) {
        actor_wake(c.actor);
        expect_steps(&c, i);
    }
    stop(&c);
}

TEST(thread, an_actor_without_work_rests)
{
    struct counter c;
    counter_init(&c);
    start(&c);
    expect_steps(&c, 1);
    (void)usleep(30000);
    assert_int_equal(steps_now(&c), 1);
    stop(&c);
}

TEST(thread, an_actor_that_wants_more_steps_again)
{
    struct counter c;
    counter_init(&c);
    c.answer = ACTOR_AGAIN;
    c.answer_count = 1000;
    start(&c);
    expect_steps(&c, 1000);
    stop(&c);
    assert_int_equal(c.step_count, 1000);
}

TEST(thread, an_actor_steps_again_after_its_time)
{
    struct counter c;
    counter_init(&c);
    c.answer = 5 * MS;
    c.answer_count = 5;
    uint64_t before = os_ticks_ns(os_real());
    start(&c);
    expect_steps(&c, 5);
    assert_true(os_ticks_ns(os_real()) - before >= 4 * 5 * MS);
    stop(&c);
}

TEST(thread, a_wake_cuts_a_wait_short)
{
    struct counter c;
    counter_init(&c);
    c.answer = UINT64_C(3600000) * MS; /* an hour */
    c.answer_count = 100;
    start(&c);
    expect_steps(&c, 1);
    actor_wake(c.actor);
    expect_steps(&c, 2);
    stop(&c);
}

/* The step may have looked for work before the work came: only another step will find it. */
TEST(thread, a_wake_during_a_step_causes_another)
{
    struct counter c;
    counter_init(&c);
    c.hold = true;
    start(&c);
    expect_steps(&c, 1);
    actor_wake(c.actor);
    actor_wake(c.actor);
    hold(&c, false);
    expect_steps(&c, 2);
    stop(&c);
    assert_int_equal(c.step_count, 2); /* two wakes, one step more */
}

TEST(thread, an_actor_may_wake_itself)
{
    struct counter c;
    counter_init(&c);
    c.wakes_itself = true;
    c.answer = ACTOR_WAIT;
    c.answer_count = 100;
    start(&c);
    expect_steps(&c, 100);
    stop(&c);
}

static uint64_t stop_step(void *context)
{
    actor_stop(context);
    return ACTOR_WAIT;
}

TEST(thread, stopping_lets_the_step_end)
{
    struct counter c;
    counter_init(&c);
    c.hold = true;
    start(&c);
    expect_steps(&c, 1);

    struct actor *stopper = NULL;
    expect_ok(actor_start("stopper", stop_step, c.actor, &stopper, &err));
    (void)usleep(20000);
    os_mutex_lock(&c.mutex);
    assert_true(c.in_step);
    os_mutex_unlock(&c.mutex);
    hold(&c, false);
    actor_stop(stopper);
    assert_false(c.in_step);
    assert_int_equal(c.step_count, 1);
    os_cond_done(&c.changed);
    os_mutex_done(&c.mutex);
}

TEST(thread, a_wake_after_the_last_step_and_a_stop_do_not_race)
{
    for (int i = 0; i < 200; i++) {
        struct counter c;
        counter_init(&c);
        start(&c);
        actor_wake(c.actor);
        stop(&c);
        assert_in_range(c.step_count, 0, 2);
    }
}

TEST(thread, waking_and_stopping_nothing_is_fine)
{
    actor_wake(NULL);
    actor_stop(NULL);
}

/* ---- many threads on one counter ---------------------------------------------------------- */

struct shared {
    struct os_mutex mutex;
    uint64_t value;
    struct counter *woken;
};

#define ROUNDS 500

static uint64_t add_step(void *context)
{
    struct shared *shared = context;
    for (int i = 0; i < ROUNDS; i++) {
        os_mutex_lock(&shared->mutex);
        shared->value++;
        os_mutex_unlock(&shared->mutex);
        actor_wake(shared->woken->actor);
    }
    return ACTOR_WAIT;
}

TEST(thread, many_threads_wake_one_actor)
{
    struct counter c;
    counter_init(&c);
    start(&c);
    expect_steps(&c, 1);
    struct shared shared = {.woken = &c};
    os_mutex_init(&shared.mutex);
    struct actor *adders[4];
    for (size_t i = 0; i < 4; i++) {
        expect_ok(actor_start("adder", add_step, &shared, &adders[i], &err));
    }
    uint64_t value = 0;
    while (value < 4 * ROUNDS) {
        os_mutex_lock(&shared.mutex);
        value = shared.value;
        os_mutex_unlock(&shared.mutex);
    }
    for (size_t i = 0; i < 4; i++)
        actor_stop(adders[i]);
    assert_int_equal(shared.value, 4 * ROUNDS);
    expect_steps(&c, 2);
    os_mutex_done(&shared.mutex);
    stop(&c);
}

/* ---- what a thread is ----------------------------------------------------------------------- */

static uint64_t look_step(void *context)
{
    struct counter *c = context;
    sigset_t blocked;
    (void)pthread_sigmask(SIG_SETMASK, NULL, &blocked);
    os_mutex_lock(&c->mutex);
    c->answer =
        (uint64_t)(sigismember(&blocked, SIGTERM) == 1 && sigismember(&blocked, SIGINT) == 1 &&
                   sigismember(&blocked, SIGSEGV) == 0);
    c->step_count++;
    os_cond_broadcast(&c->changed);
    os_mutex_unlock(&c->mutex);
    return ACTOR_WAIT;
}

TEST(thread, an_actor_takes_no_signals_but_faults)
{
    struct counter c;
    counter_init(&c);
    expect_ok(actor_start("looker", look_step, &c, &c.actor, &err));
    expect_steps(&c, 1);
    stop(&c);
    assert_int_equal(c.answer, 1);

    sigset_t own;
    (void)pthread_sigmask(SIG_SETMASK, NULL, &own);
    assert_int_equal(sigismember(&own, SIGTERM), 0); /* the starter's own are as before */
}

static bool thread_is_named(const char *wanted)
{
    DIR *tasks = opendir("/proc/self/task");
    assert_non_null(tasks);
    bool found = false;
    for (struct dirent *task; (task = readdir(tasks)) != NULL;) {
        char path[300];
        char name[32] = "";
        (void)snprintf(path, sizeof path, "/proc/self/task/%s/comm", task->d_name);
        FILE *comm = fopen(path, "r");
        if (comm == NULL) continue;
        if (fgets(name, sizeof name, comm) != NULL) name[strcspn(name, "\n")] = '\0';
        (void)fclose(comm);
        found |= strcmp(name, wanted) == 0;
    }
    (void)closedir(tasks);
    return found;
}

TEST(thread, an_actor_shows_under_its_name)
{
    struct counter c;
    counter_init(&c);
    expect_ok(actor_start("fifteen bytes x", count_step, &c, &c.actor, &err));
    expect_steps(&c, 1);
    assert_true(thread_is_named("fifteen bytes x"));
    stop(&c);
}

TEST(thread, a_thread_that_cannot_start_says_so)
{
    pthread_attr_t before, huge;
    assert_int_equal(pthread_getattr_default_np(&before), 0);
    assert_int_equal(pthread_attr_init(&huge), 0);
    assert_int_equal(pthread_attr_setstacksize(&huge, (size_t)1 << 47), 0);
    assert_int_equal(pthread_setattr_default_np(&huge), 0);

    struct counter c;
    counter_init(&c);
    deed_status status = actor_start("giant", count_step, &c, &c.actor, &err);
    assert_int_equal(pthread_setattr_default_np(&before), 0);
    assert_int_equal(status, DEED_NO_MEMORY);
    expect_message(err, "thread giant: cannot start");
    assert_null(c.actor);
    (void)pthread_attr_destroy(&huge);
    (void)pthread_attr_destroy(&before);
    stop(&c);
}

/* ---- conditions --------------------------------------------------------------------------- */

TEST(thread, a_wait_ends_when_its_time_has_passed)
{
    struct counter c;
    counter_init(&c);
    uint64_t before = os_ticks_ns(os_real());
    os_mutex_lock(&c.mutex);
    bool in_time = true;
    while (in_time)
        in_time = os_cond_wait(&c.changed, &c.mutex, 20 * MS);
    os_mutex_unlock(&c.mutex);
    assert_true(os_ticks_ns(os_real()) - before >= 20 * MS);
    stop(&c);
}

TEST(thread, a_wait_for_nothing_ends_at_once)
{
    struct counter c;
    counter_init(&c);
    os_mutex_lock(&c.mutex);
    assert_false(os_cond_wait(&c.changed, &c.mutex, 0));
    os_mutex_unlock(&c.mutex);
    stop(&c);
}

TEST(thread, a_wait_near_the_end_of_time_waits_for_ever)
{
    struct counter c;
    counter_init(&c);
    c.answer = 10 * MS;
    c.answer_count = 2;
    os_mutex_lock(&c.mutex);
    expect_ok(actor_start("counter", count_step, &c, &c.actor, &err));
    while (c.step_count < 2)
        assert_true(os_cond_wait(&c.changed, &c.mutex, UINT64_MAX - 1));
    os_mutex_unlock(&c.mutex);
    stop(&c);
}

/* One waiter per actor, all on one condition. */
static uint64_t wait_step(void *context)
{
    struct counter *c = context;
    os_mutex_lock(&c->mutex);
    c->step_count++;
    os_cond_broadcast(&c->changed);
    while (c->hold)
        (void)os_cond_wait(&c->changed, &c->mutex, UINT64_MAX);
    c->answer++;
    os_mutex_unlock(&c->mutex);
    return ACTOR_WAIT;
}

TEST(thread, a_broadcast_wakes_every_waiter)
{
    struct counter c;
    counter_init(&c);
    c.hold = true;
    c.answer = 0;
    struct actor *waiters[5];
    for (size_t i = 0; i < 5; i++) {
        expect_ok(actor_start("waiter", wait_step, &c, &waiters[i], &err));
    }
    expect_steps(&c, 5);
    hold(&c, false);
    for (size_t i = 0; i < 5; i++)
        actor_stop(waiters[i]);
    assert_int_equal(c.answer, 5);
    stop(&c);
}

TEST_MAIN(thread)
