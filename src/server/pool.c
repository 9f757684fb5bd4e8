/* pool.c - a queue under one lock.
 *
 * (1) idle_count threads wait in the condition; queue_count tasks are linked from first to last.
 * (2) A thread is started when there are more tasks than idle threads. The first one is started at
 *     creation: as long as there is one, every task runs, so a later start may fail. */
#include "server/pool.h"

#include <assert.h>
#include <stdlib.h>
#include <uv.h>

struct pool {
    uv_mutex_t mutex;
    uv_cond_t cond;
    struct pool_task *first, *last;
    size_t queue_count, idle_count;
    uv_thread_t *threads;
    uint32_t thread_count, thread_count_max;
    bool stopping;
};

static void pool_thread(void *argument)
{
    struct pool *pool = argument;
    uv_mutex_lock(&pool->mutex);
    for (;;) {
        while (pool->first == NULL && !pool->stopping) {
            pool->idle_count++;
            uv_cond_wait(&pool->cond, &pool->mutex);
            pool->idle_count--;
        }
        struct pool_task *task = pool->first;
        if (task == NULL) break;
        pool->first = task->next;
        if (pool->first == NULL) pool->last = NULL;
        pool->queue_count--;
        uv_mutex_unlock(&pool->mutex);
        task->run(task);
        uv_mutex_lock(&pool->mutex);
    }
    uv_mutex_unlock(&pool->mutex);
}

/* Under the lock. */
static bool thread_start(struct pool *pool)
{
    if (pool->thread_count == pool->thread_count_max) return false;
    if (uv_thread_create(&pool->threads[pool->thread_count], pool_thread, pool) != 0) return false;
    pool->thread_count++;
    return true;
}

deed_status pool_create(uint32_t thread_count_max, struct pool **out_pool, struct deed_error *err)
{
    assert(thread_count_max > 0);
    struct pool *pool = calloc(1, sizeof *pool);
    uv_thread_t *threads = calloc(thread_count_max, sizeof *threads);
    if (pool == NULL || threads == NULL) goto no_memory;
    pool->threads = threads;
    pool->thread_count_max = thread_count_max;
    if (uv_mutex_init(&pool->mutex) != 0) goto no_memory;
    if (uv_cond_init(&pool->cond) != 0) {
        uv_mutex_destroy(&pool->mutex);
        goto no_memory;
    }
    uv_mutex_lock(&pool->mutex);
    bool started = thread_start(pool);
    uv_mutex_unlock(&pool->mutex);
    if (!started) {
        pool_destroy(pool);
        return deed_fail(err, DEED_NO_MEMORY, "pool: no thread can be started");
    }
    *out_pool = pool;
    return DEED_OK;

no_memory:
    free(threads);
    free(pool);
    return deed_fail(err, DEED_NO_MEMORY, "pool: out of memory");
}

void pool_destroy(struct pool *pool)
{
    if (pool == NULL) return;
    uv_mutex_lock(&pool->mutex);
    pool->stopping = true;
    uv_cond_broadcast(&pool->cond);
    uv_mutex_unlock(&pool->mutex);
    for (uint32_t i = 0; i < pool->thread_count; i++) (void)uv_thread_join(&pool->threads[i]);
    assert(pool->first == NULL);
    uv_cond_destroy(&pool->cond);
    uv_mutex_destroy(&pool->mutex);
    free(pool->threads);
    free(pool);
}

void pool_submit(struct pool *pool, struct pool_task *task)
{
    uv_mutex_lock(&pool->mutex);
    assert(!pool->stopping || pool->thread_count > 0);
    task->next = NULL;
    if (pool->last == NULL) {
        pool->first = task;
    } else {
        pool->last->next = task;
    }
    pool->last = task;
    pool->queue_count++;
    if (pool->queue_count > pool->idle_count) (void)thread_start(pool);
    uv_cond_signal(&pool->cond);
    uv_mutex_unlock(&pool->mutex);
}

size_t pool_queue_count(struct pool *pool)
{
    uv_mutex_lock(&pool->mutex);
    size_t count = pool->queue_count;
    uv_mutex_unlock(&pool->mutex);
    return count;
}
