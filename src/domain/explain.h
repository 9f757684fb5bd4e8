/* explain.h - an aggregate's life, event by event, with what each changed.
 *
 * Appends a JSON array to `out`, one object an event:
 *
 *     {"revision": 2, "position": 17, "type": "OrderLineItemAdded", "id": "…",
 *      "time": "2026-…Z", "recorded_at": "2026-…Z", "actor": "anna" or null, "data": {…},
 *      "changes": [{"path": "order_total_cents", "from": 0, "to": 900},
 *                  {"path": "lines[line_id=1]", "to": {…}}]}
 *
 * A change without "from" is new, one without "to" is gone. Items of lists are told apart by their
 * first member, if that is a text and unique there, else by index. */
#ifndef DOMAIN_EXPLAIN_H
#define DOMAIN_EXPLAIN_H

#include "domain/executor.h"

/* Of `stream`, up to `revision` (DEED_NONE: its end), the last `count_max` events (0: 1,000).
 * Statuses as executor_state's. */
DEED_MUST_CHECK deed_status executor_explain(struct executor *executor, deed_str stream,
                                             uint64_t revision, uint64_t count_max, struct buf *out,
                                             struct deed_error *err);

/* Append the changes between two JSON texts, as the array above, to `out`. An empty `from` is the
 * state before the first event. DEED_INVALID: not JSON. */
DEED_MUST_CHECK deed_status explain_changes(deed_bytes from, deed_bytes to, struct buf *out,
                                            struct deed_error *err);

#endif
