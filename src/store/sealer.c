/* sealer.c - the background care for closed segments.
 *
 * One actor: it seals what the committer has closed, step by step. When it cannot keep up the
 * committer waits for it before it begins another segment, so that what opening must read stays
 * bounded. While sealing fails nobody waits: the log stays as it is, and grows. */
#include "store/store_state.h"

/* Closed segments that may wait to be sealed. */
#define BACKLOG_MAX 2
/* The committer looks again at least this often: a failure ends the wait, and is no step. */
#define LOOK_NS     UINT64_C(100000000)

uint64_t sealer_step(void *context)
{
    struct store *store = context;
    uint64_t wait = log_seal(store->log);
    os_mutex_lock(&store->seal_lock);
    os_cond_broadcast(&store->seal_changed);
    os_mutex_unlock(&store->seal_lock);
    return wait;
}

void sealer_wait(void *context)
{
    struct store *store = context;
    if (store->log == NULL) return; /* it is just being made */
    while (log_backlog(store->log) > BACKLOG_MAX) {
        if (store->sealer == NULL) {
            (void)sealer_step(store);
            continue;
        }
        actor_wake(store->sealer);
        os_mutex_lock(&store->seal_lock);
        (void)os_cond_wait(&store->seal_changed, &store->seal_lock, LOOK_NS);
        os_mutex_unlock(&store->seal_lock);
    }
}
