/* thread.c - POSIX threads, and the loop around an actor's step.
 *
 * (1) `woken` is set under the mutex and cleared before the step it asks for: a wake that comes
 *     during a step causes another step, none is lost.
 * (2) After `stopping` is seen no step begins. */
#include "os/thread.h"

#include <assert.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <time.h>

#define NS_PER_SECOND UINT64_C(1000000000)

/* pthread calls on valid objects fail only by our bug: a lock taken twice, a mutex destroyed
 * while held. */
static void must(int error)
{
    assert(error == 0);
    if (error != 0) abort();
}

void os_mutex_init(struct os_mutex *mutex)
{
    must(pthread_mutex_init(&mutex->mutex, NULL));
}

void os_mutex_done(struct os_mutex *mutex)
{
    must(pthread_mutex_destroy(&mutex->mutex));
}

void os_mutex_lock(struct os_mutex *mutex)
{
    must(pthread_mutex_lock(&mutex->mutex));
}

bool os_mutex_try(struct os_mutex *mutex)
{
    int error = pthread_mutex_trylock(&mutex->mutex);
    if (error == EBUSY) return false;
    must(error);
    return true;
}

void os_mutex_unlock(struct os_mutex *mutex)
{
    must(pthread_mutex_unlock(&mutex->mutex));
}

void os_cond_init(struct os_cond *cond)
{
    pthread_condattr_t attributes;
    must(pthread_condattr_init(&attributes));
    must(pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC));
    must(pthread_cond_init(&cond->cond, &attributes));
    must(pthread_condattr_destroy(&attributes));
}

void os_cond_done(struct os_cond *cond)
{
    must(pthread_cond_destroy(&cond->cond));
}

void os_cond_signal(struct os_cond *cond)
{
    must(pthread_cond_signal(&cond->cond));
}

void os_cond_broadcast(struct os_cond *cond)
{
    must(pthread_cond_broadcast(&cond->cond));
}

/* The instant `wait_ns` from now; UINT64_MAX, "never", when it is out of reach. */
static uint64_t deadline_in(uint64_t wait_ns)
{
    struct timespec now;
    must(clock_gettime(CLOCK_MONOTONIC, &now));
    uint64_t now_ns = (uint64_t)now.tv_sec * NS_PER_SECOND + (uint64_t)now.tv_nsec;
    return wait_ns > UINT64_MAX - now_ns ? UINT64_MAX : now_ns + wait_ns;
}

static bool cond_wait_until(struct os_cond *cond, struct os_mutex *mutex, uint64_t deadline_ns)
{
    if (deadline_ns == UINT64_MAX) {
        must(pthread_cond_wait(&cond->cond, &mutex->mutex));
        return true;
    }
    struct timespec deadline = {.tv_sec = (time_t)(deadline_ns / NS_PER_SECOND),
                                .tv_nsec = (long)(deadline_ns % NS_PER_SECOND)};
    int error = pthread_cond_timedwait(&cond->cond, &mutex->mutex, &deadline);
    if (error == ETIMEDOUT) return false;
    must(error);
    return true;
}

bool os_cond_wait(struct os_cond *cond, struct os_mutex *mutex, uint64_t wait_ns)
{
    return cond_wait_until(cond, mutex, deadline_in(wait_ns));
}

/* ---- actors ------------------------------------------------------------------------------- */

struct actor {
    actor_step *step;
    void *context;
    pthread_t thread;
    struct os_mutex mutex;
    struct os_cond cond;
    bool woken, stopping; /* under the mutex */
};

/* Until woken, stopped, or the time has come. The mutex is held. */
static void actor_rest(struct actor *actor, uint64_t wait_ns)
{
    uint64_t deadline_ns = deadline_in(wait_ns);
    bool waiting = wait_ns != ACTOR_AGAIN;
    while (waiting && !actor->woken && !actor->stopping) {
        waiting = cond_wait_until(&actor->cond, &actor->mutex, deadline_ns);
    }
}

static void *actor_run(void *context)
{
    struct actor *actor = context;
    os_mutex_lock(&actor->mutex);
    while (!actor->stopping) {
        actor->woken = false;
        os_mutex_unlock(&actor->mutex);
        uint64_t wait_ns = actor->step(actor->context);
        os_mutex_lock(&actor->mutex);
        actor_rest(actor, wait_ns);
    }
    os_mutex_unlock(&actor->mutex);
    return NULL;
}

/* Signals belong to the thread that asked for them (the server's loop), so an actor takes none;
 * those that a fault in its own code raises cannot be put off. */
static int thread_start(struct actor *actor)
{
    sigset_t all, before;
    must(sigfillset(&all));
    static const int faults[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGTRAP, SIGPROF};
    for (size_t i = 0; i < sizeof faults / sizeof faults[0]; i++)
        must(sigdelset(&all, faults[i]));
    must(pthread_sigmask(SIG_SETMASK, &all, &before));
    int error = pthread_create(&actor->thread, NULL, actor_run, actor);
    must(pthread_sigmask(SIG_SETMASK, &before, NULL));
    return error;
}

static void actor_free(struct actor *actor)
{
    os_cond_done(&actor->cond);
    os_mutex_done(&actor->mutex);
    free(actor);
}

deed_status actor_start(const char *name, actor_step *step, void *context, struct actor **out_actor,
                        struct deed_error *err)
{
    assert(step != NULL);
    assert(strlen(name) <= 15); /* what the kernel keeps */
    struct actor *actor = calloc(1, sizeof *actor);
    if (actor == NULL) return deed_fail(err, DEED_NO_MEMORY, "thread %s: no memory", name);
    actor->step = step;
    actor->context = context;
    os_mutex_init(&actor->mutex);
    os_cond_init(&actor->cond);

    /* Held until the thread is known: its first step may already be looking at `*out_actor`. */
    os_mutex_lock(&actor->mutex);
    int error = thread_start(actor);
    if (error == 0) {
        (void)pthread_setname_np(actor->thread, name);
        *out_actor = actor;
    }
    os_mutex_unlock(&actor->mutex);
    if (error == 0) return DEED_OK;

    /* EAGAIN: a limit on threads or memory. */
    actor_free(actor);
    return deed_fail(err, DEED_NO_MEMORY, "thread %s: cannot start, error %d", name, error);
}

void actor_wake(struct actor *actor)
{
    if (actor == NULL) return;
    os_mutex_lock(&actor->mutex);
    actor->woken = true;
    os_cond_signal(&actor->cond);
    os_mutex_unlock(&actor->mutex);
}

void actor_stop(struct actor *actor)
{
    if (actor == NULL) return;
    assert(!pthread_equal(pthread_self(), actor->thread)); /* it would wait for itself */
    os_mutex_lock(&actor->mutex);
    actor->stopping = true;
    os_cond_signal(&actor->cond);
    os_mutex_unlock(&actor->mutex);
    must(pthread_join(actor->thread, NULL));
    actor_free(actor);
}
