/* local.h - the HTTP API of a data directory, run in this process. */
#ifndef CLI_LOCAL_H
#define CLI_LOCAL_H

#include "cli/target.h"

struct store;

/* Open the directory (options->data) and what `use` needs of the app (options->app), if one is
 * given. The domain's code runs in a worker process. Statuses as deed_open and deed_load_app. */
DEED_MUST_CHECK deed_status local_open(const struct cli_target *options, enum target_use use,
                                       struct local **out_local, struct deed_error *err);
void local_close(struct local *local); /* accepts NULL */

struct store *local_store(struct local *local);

/* As client_call and client_lines. */
DEED_MUST_CHECK deed_status local_call(struct local *local, const struct request *request,
                                       struct reply *reply, struct deed_error *err);
DEED_MUST_CHECK deed_status local_lines(struct local *local, const struct request *request,
                                        struct splitter *splitter, struct deed_error *err);

#endif
