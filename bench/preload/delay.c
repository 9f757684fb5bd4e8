/* delay.c - a slower disk: LD_PRELOADed into us and into peers alike, it makes every flush take at
 * least BENCH_FLUSH_US microseconds. The flush itself still happens.
 *
 *     BENCH_FLUSH_US=1000 LD_PRELOAD=build/bench/delay.so deedbook serve …
 *
 * Flushes are fdatasync, fsync, sync_file_range that waits, and writes with RWF_DSYNC or RWF_SYNC;
 * a file opened with O_DSYNC is not seen, and nobody here opens one. */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/uio.h>
#include <time.h>

static uint64_t now_ns(void)
{
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return (uint64_t)at.tv_sec * 1000000000u + (uint64_t)at.tv_nsec;
}

/* Return when `begun_ns` is long enough ago. */
static void take_time(uint64_t begun_ns)
{
    static uint64_t delay_ns = UINT64_MAX;
    static _Thread_local int exact;
    int error = errno;
    if (delay_ns == UINT64_MAX) {
        const char *text = getenv("BENCH_FLUSH_US");
        delay_ns = text == NULL ? 0 : strtoull(text, NULL, 10) * 1000;
    }
    if (!exact) { /* otherwise the kernel adds up to 50 µs to each sleep */
        (void)prctl(PR_SET_TIMERSLACK, 1ul);
        exact = 1;
    }
    uint64_t end_ns = begun_ns + delay_ns;
    struct timespec end = {.tv_sec = (time_t)(end_ns / 1000000000u),
                           .tv_nsec = (long)(end_ns % 1000000000u)};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &end, NULL) == EINTR) {
    }
    errno = error;
}

#define NEXT(name) ((__typeof__(&(name)))dlsym(RTLD_NEXT, #name))

__attribute__((visibility("default"))) int fdatasync(int fd)
{
    static __typeof__(&fdatasync) next;
    uint64_t begun_ns = now_ns();
    if (next == NULL) next = NEXT(fdatasync);
    int answer = next(fd);
    take_time(begun_ns);
    return answer;
}

__attribute__((visibility("default"))) int fsync(int fd)
{
    static __typeof__(&fsync) next;
    uint64_t begun_ns = now_ns();
    if (next == NULL) next = NEXT(fsync);
    int answer = next(fd);
    take_time(begun_ns);
    return answer;
}

__attribute__((visibility("default"))) int sync_file_range(int fd, off_t from, off_t size,
                                                           unsigned flags)
{
    static __typeof__(&sync_file_range) next;
    uint64_t begun_ns = now_ns();
    if (next == NULL) next = NEXT(sync_file_range);
    int answer = next(fd, from, size, flags);
    if ((flags & SYNC_FILE_RANGE_WAIT_AFTER) != 0) take_time(begun_ns);
    return answer;
}

__attribute__((visibility("default"))) ssize_t pwritev2(int fd, const struct iovec *parts,
                                                        int count, off_t offset, int flags)
{
    static __typeof__(&pwritev2) next;
    uint64_t begun_ns = now_ns();
    if (next == NULL) next = NEXT(pwritev2);
    ssize_t answer = next(fd, parts, count, offset, flags);
    if ((flags & (RWF_DSYNC | RWF_SYNC)) != 0) take_time(begun_ns);
    return answer;
}
