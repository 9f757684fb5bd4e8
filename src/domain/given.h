/* given.h - given / when / then: a domain's tests, as JSON (docs/domain.md).
 *
 *     for each file:  given_run_file(host, file, text, each_result, context, &summary, &err)
 *
 * No store, no server: given events are folded, the command is decided, and what comes out is
 * compared with what the test expects. */
#ifndef DOMAIN_GIVEN_H
#define DOMAIN_GIVEN_H

#include "domain/host.h"

struct given_result {
    deed_str file, name; /* of the test */
    bool passed;
    /* What was expected and what came, a few lines, each ending in '\n'; empty when it passed. Lines
     * that begin with '-' were expected, those with '+' came instead. */
    deed_str difference;
    uint64_t duration_ns;
};

struct given_summary {
    uint64_t files, passed, failed;
};

/* Called after each test; the slices are valid during the call. */
typedef void given_each(void *context, const struct given_result *result);

/* Run the tests of one file's text, adding to `summary`. A failed test is not a failure of the
 * call. DEED_INVALID: the file is not as docs/domain.md says; the message has its name. */
DEED_MUST_CHECK deed_status given_run_text(struct domain_host *host, deed_str file, deed_bytes text,
                                           given_each *each, void *context,
                                           struct given_summary *summary, struct deed_error *err);

/* All *.json files of a folder, in order of name; usually APP/tests. DEED_NOT_FOUND: no such
 * folder. A file that is malformed counts as one failed test. */
DEED_MUST_CHECK deed_status given_run_folder(struct domain_host *host, const char *folder,
                                             given_each *each, void *context,
                                             struct given_summary *summary, struct deed_error *err);

#endif
