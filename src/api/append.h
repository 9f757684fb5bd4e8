/* append.h - an append on its way to the committer and back.
 *
 * The job lives in its call's arena. It is submitted from the connection's thread and answered from
 * the committer's, so what the answer needs is allocated before. */
#ifndef API_APPEND_H
#define API_APPEND_H

#include "api/call.h"
#include "api/event_body.h"
#include "api/token.h"

struct append_job {
    struct call *c;
    struct deed_append append;
    uint64_t *revisions; /* of each event, once it is stored */
    bool if_match;       /* the first condition came from If-Match: its failure is 412 */
    bool one_stream;     /* then its new revision is the answer's ETag */
    /* Write the answer; called from the committer's thread: it must not block. */
    void (*answer)(struct append_job *job, const struct deed_appended *appended, struct buf *out);
    char position[24], token[TOKEN_SIZE_MAX], etag[24]; /* headers */
};

/* Failures stay in the call; then the job may be NULL. */
struct append_job *append_job_create(struct call *c,
                                     void (*answer)(struct append_job *job,
                                                    const struct deed_appended *appended,
                                                    struct buf *out));

/* Actor, correlation and causation from the headers, and the store's limits. */
struct event_defaults append_defaults(struct call *c);

/* Submit what is in job->append, unless the call has failed. Ends the call, sooner or later. The
 * request's hash, for its idempotency key, is of what is named here and of the body. */
void append_job_run(struct append_job *job, deed_str route, deed_str stream, deed_str expected);

/* "repeated": true and "unsafe": true, where they are. */
void append_put_flags(struct json_writer *w, const struct deed_appended *appended);

#endif
