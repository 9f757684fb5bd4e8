/* live.h - from append to live delivery: one client appends, another follows the stream. */
#ifndef CLI_LIVE_H
#define CLI_LIVE_H

#include "cli/loadgen.h"
#include "cli/workload.h"

/* Append again and again for `duration_ns` after `warmup_ns`, each time when the last event has been
 * both acknowledged and delivered. The latency is from the append's send to the event's arrival at
 * the follower, in `out_result`.
 *
 *   DEED_STOPPED  no connection, or one was closed. DEED_INVALID: an answer that is no plain HTTP.
 *   DEED_TIMEOUT  an event was not delivered within ten seconds. */
DEED_MUST_CHECK deed_status live_run(struct workload *workload, const char *host, const char *port,
                                     uint64_t warmup_ns, uint64_t duration_ns,
                                     struct load_result *out_result, struct deed_error *err);

#endif
