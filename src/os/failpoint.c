/* failpoint.c - see failpoint.h. Nothing of it is in the product. */
#ifdef DEED_FAILPOINTS
#include "os/failpoint.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* The linker's names for the section's ends. */
extern struct failpoint *const __start_failpoints[], *const __stop_failpoints[];

static pthread_once_t once = PTHREAD_ONCE_INIT;
static size_t armed = SIZE_MAX; /* the number of the point that kills; SIZE_MAX: none */
static long armed_at;
static atomic_long armed_passed;
static _Atomic uint64_t *hits; /* NULL: nobody counts */

size_t failpoint_count(void)
{
    return (size_t)(__stop_failpoints - __start_failpoints);
}

/* "src/log/mark.c" is "mark". */
static void module_of(const char *file, char out[64])
{
    const char *slash = strrchr(file, '/');
    (void)snprintf(out, 64, "%s", slash == NULL ? file : slash + 1);
    char *dot = strrchr(out, '.');
    if (dot != NULL) *dot = '\0';
}

static int same(const struct failpoint *a, const struct failpoint *b)
{
    return strcmp(a->file, b->file) == 0 && strcmp(a->function, b->function) == 0 &&
           strcmp(a->what, b->what) == 0;
}

void failpoint_name(size_t number, char name[FAILPOINT_NAME_SIZE])
{
    const struct failpoint *point = __start_failpoints[number];
    char module[64];
    unsigned ordinal = 1;
    module_of(point->file, module);
    for (size_t i = 0; i < failpoint_count(); i++) {
        const struct failpoint *other = __start_failpoints[i];
        if (same(other, point) && other->line < point->line) ordinal++;
    }
    int size = snprintf(name, FAILPOINT_NAME_SIZE, "%s:%s:%s", module, point->function, point->what);
    if (ordinal > 1) {
        (void)snprintf(name + size, FAILPOINT_NAME_SIZE - (size_t)size, "#%u", ordinal);
    }
}

static void hits_open(const char *path)
{
    size_t size = failpoint_count() * sizeof *hits;
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0 || ftruncate(fd, (off_t)size) != 0) abort(); /* the test's own mistake */
    void *at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (at == MAP_FAILED) abort();
    (void)close(fd);
    hits = at;
}

static void arm(const char *what)
{
    char name[FAILPOINT_NAME_SIZE], wanted[FAILPOINT_NAME_SIZE];
    const char *colon = strrchr(what, ':');
    if (colon == NULL) abort();
    (void)snprintf(wanted, sizeof wanted, "%.*s", (int)(colon - what), what);
    for (size_t i = 0; i < failpoint_count() && armed == SIZE_MAX; i++) {
        failpoint_name(i, name);
        if (strcmp(name, wanted) == 0) armed = i;
    }
    if (armed == SIZE_MAX) abort(); /* a typing error must not look like a point never passed */
    armed_at = strtol(colon + 1, NULL, 10);
}

static void read_environment(void)
{
    const char *path = getenv("DEEDBOOK_FAILPOINT_HITS");
    if (path != NULL) hits_open(path);
    const char *what = getenv("DEEDBOOK_FAILPOINT");
    if (what != NULL) arm(what);
}

void failpoint_pass(struct failpoint *const *point)
{
    (void)pthread_once(&once, read_environment);
    size_t number = (size_t)(point - __start_failpoints);
    if (hits != NULL) atomic_fetch_add(&hits[number], 1);
    if (number == armed && atomic_fetch_add(&armed_passed, 1) + 1 == armed_at) {
        (void)kill(getpid(), SIGKILL);
        for (;;) (void)pause(); /* it may take a moment to reach this thread */
    }
}
#endif
