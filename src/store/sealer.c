/* sealer.c - the background care for closed segments.
 *
 * One actor, piece by piece: it seals what the committer has closed, and brings its terms from
 * memory to a run of the index; neither needs the other. When it cannot keep up the committer waits
 * for it before it begins another segment, so that memory, and what opening must read, stay
 * bounded. While sealing fails nobody waits: the store goes on with more of both, and tries again. */
#include "store/store_state.h"

/* Closed segments that may wait to be sealed. */
#define BACKLOG_MAX 2
/* Runs of the index in memory that may wait to be written when another segment is begun: each is
 * some twenty megabytes. */
#define WAITING_MAX 0
/* The committer looks again at least this often: a failure ends the wait, and is no step. */
#define LOOK_NS     UINT64_C(100000000)

/* Runs that were replaced stay while somebody looks at them. The committer looks only when there is
 * something to commit: its view goes as soon as it does not. */
static void let_go(struct store *store)
{
    uint64_t generation = index_generation(store->index);
    if (generation == store->rested_generation || !os_mutex_try(&store->commit_lock)) return;
    terms_forget(store);
    index_writer_rest(store->index);
    os_mutex_unlock(&store->commit_lock);
    store->rested_generation = generation;
}

uint64_t sealer_step(void *context)
{
    struct store *store = context;
    uint64_t seal = log_seal(store->log);
    uint64_t index = index_step(store->index, store->log);
    let_go(store);
    os_mutex_lock(&store->seal_lock);
    os_cond_broadcast(&store->seal_changed);
    os_mutex_unlock(&store->seal_lock);
    return seal < index ? seal : index;
}

static bool must_wait(struct store *store)
{
    if (log_backlog(store->log) > BACKLOG_MAX) return true;
    return index_waiting(store->index) > WAITING_MAX && !index_failing(store->index);
}

void sealer_wait(void *context)
{
    struct store *store = context;
    if (store->log == NULL) return; /* it is just being made */
    while (must_wait(store)) {
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
