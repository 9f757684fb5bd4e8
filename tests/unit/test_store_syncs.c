/* test_store_syncs.c - belongs to log.c: what two threads' syncs of one file tell them.
 *
 * The linker puts fdatasync below in the place of the system's (see the Makefile). */
#include "store_fixture.h"

#include <errno.h>
#include <pthread.h>
#include <time.h>

int __real_fdatasync(int fd);
int __wrap_fdatasync(int fd);

/* Once armed, the keeper's sync waits until the committer has synced the same file, then fails; the
 * committer's does not. So does the kernel when both wait for the same pages: it tells a failed
 * write to whoever asks first. */
static struct {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool armed, keeper_waits, committer_synced;
} telltale = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

/* Wait, with the lock, until something changed; false: not for so long. */
static bool wait_ms(long ms)
{
    struct timespec until;
    (void)clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += ms * 1000000;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    return pthread_cond_timedwait(&telltale.changed, &telltale.lock, &until) == 0;
}

int __wrap_fdatasync(int fd)
{
    char thread[16] = "";
    bool failed = false;
    (void)pthread_getname_np(pthread_self(), thread, sizeof thread);
    bool segment = strcmp(thread, "keeper") == 0 && lseek(fd, 0, SEEK_END) > 2 * 4096;
    pthread_mutex_lock(&telltale.lock);
    if (telltale.armed && segment) { /* and not the commit marks, two sectors of them */
        /* Not for ever: a committer that has synced already waits for this sync. */
        telltale.keeper_waits = true;
        (void)pthread_cond_signal(&telltale.changed);
        while (!telltale.committer_synced && wait_ms(100)) continue;
        telltale.keeper_waits = false;
        failed = telltale.committer_synced;
    } else if (telltale.armed && strcmp(thread, "committer") == 0) {
        /* The keeper may have nothing to do yet, or be slow to begin. */
        while (!telltale.keeper_waits && !telltale.committer_synced && wait_ms(5)) continue;
        telltale.committer_synced = telltale.committer_synced || telltale.keeper_waits;
        (void)pthread_cond_signal(&telltale.changed);
    }
    pthread_mutex_unlock(&telltale.lock);
    if (!failed) return __real_fdatasync(fd);
    errno = EIO;
    return -1;
}

static void arm(bool armed)
{
    pthread_mutex_lock(&telltale.lock);
    telltale.armed = armed;
    pthread_mutex_unlock(&telltale.lock);
}

static bool overlapped(void)
{
    pthread_mutex_lock(&telltale.lock);
    bool did = telltale.committer_synced;
    pthread_mutex_unlock(&telltale.lock);
    return did;
}

TEST(store_syncs, a_failure_that_only_the_keeper_is_told_of_answers_nobody)
{
    start_here();
    arm(true);
    options.segment_size = 4 << 20;
    reopen();

    deed_status status = DEED_OK;
    for (int i = 0; i < 1000 && !overlapped(); i++)
        status = append_event(said("stream", "word"));
    arm(false);

    assert_true(overlapped());
    assert_int_equal(status, DEED_UNKNOWN);
    expect_message(err, "cannot sync it");
    assert_int_equal(append_event(said("stream", "word")), DEED_STOPPED);
    finish();
}

TEST_MAIN(store_syncs)
