/* reporter.h - tells the log what an operator should know: parts that stopped, failed, or go on. */
#ifndef SERVER_REPORTER_H
#define SERVER_REPORTER_H

#include "domain/executor.h"
#include "projection/projections.h"
#include "store/store.h"

struct reporter;

struct reporter_options {
    struct store *store;
    struct executor *executor;       /* NULL: none */
    struct projections *projections; /* NULL: none */
    void (*say)(void *context, const char *line); /* from a thread of the reporter's own */
    void *context;
};

/* Look once a second for what has changed. The parts must outlive it. */
DEED_MUST_CHECK deed_status reporter_start(const struct reporter_options *options,
                                           struct reporter **out_reporter, struct deed_error *err);
void reporter_stop(struct reporter *reporter); /* accepts NULL; no line comes after it */

#endif
