/* executor.h - commands become events.
 *
 * The executor checks a command's fields, brings the aggregate's state up to date, has the domain
 * decide, and appends at the revision decided on. The domain's code runs behind a host (host.h): in
 * this process, or in a worker process that may crash without harm. */
#ifndef DOMAIN_EXECUTOR_H
#define DOMAIN_EXECUTOR_H

#include "base/arena.h"
#include "base/buf.h"
#include "store/store.h"

struct executor;
struct domain_host; /* host.h */

struct executor_options {
    uint32_t attempts_max;    /* decisions on one command while others win; 0: 8 */
    uint32_t queue_count_max; /* commands waiting; 0: 4,096. Past it: DEED_BUSY */
    bool
        no_threads; /* the caller repeats executor_step, and store_step of a store without threads */
};

/* Takes over `host`: closed with the executor, also when this fails. */
DEED_MUST_CHECK deed_status executor_open(struct store *store, struct domain_host *host,
                                          const struct executor_options *options,
                                          struct executor **out_executor, struct deed_error *err);
/* Finishes what was accepted. Accepts NULL. */
void executor_close(struct executor *executor);
bool executor_step(struct executor *executor);

/* As deed_decide. `decided` is NULL on failure, `err` on success; both, and the events, are valid
 * during the call only. `events`: what the command yielded, with data and positions (also for a
 * repeated answer). Called from one of the executor's or the committer's threads: must not block. */
typedef void executor_done(void *context, const struct deed_decided *decided, deed_str stream,
                           const struct deed_event *events, size_t event_count,
                           const struct deed_error *err);

/* The command is copied. On DEED_OK `done` is called exactly once, else never.
 * DEED_BUSY: the queue is full. DEED_NOT_FOUND: no such command. */
DEED_MUST_CHECK deed_status executor_submit(struct executor *executor,
                                            const struct deed_command *command, executor_done *done,
                                            void *context, struct deed_error *err);
/* The same, waiting. `out_stream` may be NULL; otherwise it is copied into `arena`. */
DEED_MUST_CHECK deed_status executor_decide(struct executor *executor,
                                            const struct deed_command *command,
                                            struct deed_decided *out_decided, struct arena *arena,
                                            deed_str *out_stream, struct deed_error *err);

/* Append the aggregate's state as JSON to `out`: in `stream`, at `revision` (DEED_NONE: now).
 * `*out_revision` and `*out_position`: of the last event folded in. As deed_state. The
 * fold begins where the stream was cut off last ($tb, a soft delete); other retention hides events
 * from readers only. */
DEED_MUST_CHECK deed_status executor_state(struct executor *executor, deed_str stream,
                                           uint64_t revision, struct buf *out,
                                           uint64_t *out_revision, uint64_t *out_position,
                                           struct deed_error *err);

/* Called with an event, and the aggregate's state after it as JSON. First of all with a NULL event
 * and the state before, which is empty if there are no events before. false: stop. */
typedef bool executor_each_state(void *context, const struct deed_event *event, deed_bytes state);

/* The states of an aggregate from one revision to another (DEED_NONE: its end), both inclusive.
 * Statuses as executor_state's. */
DEED_MUST_CHECK deed_status executor_states(struct executor *executor, deed_str stream,
                                            uint64_t from_revision, uint64_t to_revision,
                                            executor_each_state *each, void *context,
                                            struct deed_error *err);

/* The domain as JSON (docs/domain.md): {"name","aggregates":[{"name","category","state":[fields],
 * "commands":[{"name","id","fields",…}],"events":[{"name","fields",…}]}]}. Valid until
 * executor_close. */
deed_str executor_model(const struct executor *executor);
/* The aggregate's name for a category; ptr NULL: none. */
deed_str executor_aggregate(const struct executor *executor, deed_str category);

struct executor_metrics {
    uint64_t commands, rejected, invalid, failed, conflicts, repeated, no_events;
    uint64_t queue_count;
    uint64_t worker_restarts, worker_timeouts;
    struct store_histogram decide; /* from submission to answer */
};
void executor_get_metrics(struct executor *executor, struct executor_metrics *out_metrics);

#endif
