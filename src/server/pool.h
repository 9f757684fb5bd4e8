/* pool.h - threads for requests that read the disk or wait.
 *
 * Threads are started as tasks find none idle, up to the maximum, and stay. Tasks begin in the
 * order in which they were submitted. */
#ifndef SERVER_POOL_H
#define SERVER_POOL_H

#include "base/error.h"

struct pool;

struct pool_task {
    void (*run)(struct pool_task *task); /* may submit it again, or free it */
    struct pool_task *next;              /* private */
};

DEED_MUST_CHECK deed_status pool_create(uint32_t thread_count_max, struct pool **out_pool,
                                        struct deed_error *err);
/* Runs what was submitted, then joins all threads. Accepts NULL. */
void pool_destroy(struct pool *pool);

/* The task must stay until it has run. From any thread. */
void pool_submit(struct pool *pool, struct pool_task *task);

/* Tasks that no thread has begun. */
size_t pool_queue_count(struct pool *pool);

#endif
