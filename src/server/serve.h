/* serve.h - `deedbook serve`: the whole house put together.
 *
 * Opens the store, loads the app (domain in a worker process, projections, queries), serves the API
 * until SIGTERM or SIGINT, and takes everything down in the order in which nothing accepted is
 * lost: stop accepting, finish requests, then domain, projections, store. */
#ifndef SERVER_SERVE_H
#define SERVER_SERVE_H

#include "server/config.h"

struct serve_options {
    /* One line without newline, from any thread: "deedbook: serving on http://127.0.0.1:2113 …". */
    void (*log)(void *context, const char *line);
    void *context;
    const char *program; /* that is run as `PROGRAM worker …`; NULL: this one */
};

/* DEED_OK after a clean shutdown. Otherwise what could not be opened or bound, as its layer says;
 * a projection or query file that is wrong is logged and does not stop serving. */
DEED_MUST_CHECK deed_status serve_run(const struct config *config,
                                      const struct serve_options *options, struct deed_error *err);

#endif
