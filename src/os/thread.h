/* thread.h - threads, and actors: step functions that a thread repeats.
 *
 * An actor of the engine is a function that does one bounded piece of work and says when it wants
 * to run again. In the product a thread repeats it; in the simulator the test does, from a seed. */
#ifndef OS_THREAD_H
#define OS_THREAD_H

#include "base/error.h"

#include <pthread.h>

struct os_mutex {
    pthread_mutex_t mutex;
};
struct os_cond {
    pthread_cond_t cond;
};

void os_mutex_init(struct os_mutex *mutex);
void os_mutex_done(struct os_mutex *mutex);
void os_mutex_lock(struct os_mutex *mutex);
bool os_mutex_try(struct os_mutex *mutex); /* false: somebody holds it */
void os_mutex_unlock(struct os_mutex *mutex);

void os_cond_init(struct os_cond *cond);
void os_cond_done(struct os_cond *cond);
void os_cond_signal(struct os_cond *cond);
void os_cond_broadcast(struct os_cond *cond);
/* Wait, at most `wait_ns` (UINT64_MAX: for ever); false when the time has passed. Monotonic. */
bool os_cond_wait(struct os_cond *cond, struct os_mutex *mutex, uint64_t wait_ns);

/* A step's answer: run again after so many nanoseconds, or earlier when woken. */
#define ACTOR_AGAIN UINT64_C(0)
#define ACTOR_WAIT  UINT64_MAX
typedef uint64_t actor_step(void *context);

struct actor;

/* Start a thread that repeats `step`. `name` (at most 15 bytes) shows in ps and gdb. */
DEED_MUST_CHECK deed_status actor_start(const char *name, actor_step *step, void *context,
                                        struct actor **out_actor, struct deed_error *err);
/* Have it step soon. Safe from any thread, from its own step too; accepts NULL. */
void actor_wake(struct actor *actor);
/* Let the running step end, join the thread, free it. Accepts NULL. Not from its own step. */
void actor_stop(struct actor *actor);

#endif
