/* compaction.h - ask for a compaction or an erasure, and follow it to its end. */
#ifndef CLI_COMPACTION_H
#define CLI_COMPACTION_H

#include "cli/out.h"
#include "cli/target.h"

/* POST to `url`, then, unless `no_wait`, ask how it goes until it is done, with progress under the
 * name `what`, and print what it did. Its failure is the answer. */
DEED_MUST_CHECK deed_status compaction_run(const struct cli_target *options,
                                           const struct request *request, const char *what,
                                           bool no_wait, struct deed_error *err);

#endif
