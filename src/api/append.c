/* append.c - submit and answer.
 *
 * (1) After store_submit has accepted, the job belongs to the committer: the call may have ended,
 * and its memory be another request's, before the submit returns. A client that is alone has its
 * append committed by this thread, before the submit returns. (2) The answer's room is reserved
 * before the submit: a stored append is never answered with "out of memory". */
#include "api/append.h"

#include <inttypes.h>
#include <stdio.h>

#include "api/reply.h"
#include "base/hash.h"
#include "base/text.h"

struct append_job *append_job_create(struct call *c,
                                     void (*answer)(struct append_job *job,
                                                    const struct deed_appended *appended,
                                                    struct buf *out))
{
    struct append_job *job = arena_alloc(c->arena, sizeof *job);
    if (job == NULL) {
        call_wrong(c, DEED_NO_MEMORY, "no memory left for the append");
        return NULL;
    }
    job->c = c;
    job->answer = answer;
    return job;
}

struct event_defaults append_defaults(struct call *c)
{
    struct call_origin origin = call_origin(c);
    return (struct event_defaults){
        .actor = origin.actor,
        .correlation_id = origin.correlation_id,
        .causation_id = origin.causation_id,
        .depth_max = store_limits(c->api->parts.store)->json_depth_max,
        .api = c->api,
    };
}

void append_put_flags(struct json_writer *w, const struct deed_appended *appended)
{
    if (appended->repeated) json_member_bool(w, "repeated", true);
    if (appended->unsafe) json_member_bool(w, "unsafe", true);
}

/* Each part with its length before it, so that no two requests run into the same bytes. */
static void request_hash(struct append_job *job, deed_str route, deed_str stream, deed_str expected)
{
    char sizes[96];
    deed_bytes body = job->c->x->request.body;
    int size = snprintf(sizes, sizeof sizes, "%zu %zu %zu %zu\n", route.len, stream.len,
                        expected.len, body.len);
    const deed_bytes parts[] = {{(const uint8_t *)sizes, (size_t)size},
                                deed_bytes_of(route),
                                deed_bytes_of(stream),
                                deed_bytes_of(expected),
                                body};
    sha256(parts, sizeof parts / sizeof parts[0], job->append.request_hash);
}

/* (2): names grow to six bytes a byte when escaped, and each event has its numbers. */
static deed_status answer_reserve(struct append_job *job)
{
    size_t size = 256;
    for (size_t i = 0; i < job->append.event_count; i++) {
        size += 96 + 6 * job->append.events[i].stream.len;
    }
    if (buf_reserve(call_body(job->c), size) != NULL) return DEED_OK;
    return deed_fail(&job->c->err, DEED_NO_MEMORY, "no memory left for the answer");
}

static void put_headers(struct append_job *job, const struct deed_appended *appended)
{
    size_t size = u64_format(appended->position, job->position);
    call_put_header(job->c, "Deedbook-Position", (deed_str){job->position, size});
    size_t token_size = token_format(job->c->api, TOKEN_POSITION, appended->position, job->token);
    call_put_header(job->c, "Deedbook-Token", (deed_str){job->token, token_size});
    if (!job->one_stream) return;
    size = 1 + u64_format(appended->revision, job->etag + 1);
    job->etag[0] = job->etag[size] = '"';
    call_put_header(job->c, "ETag", (deed_str){job->etag, size + 1});
}

static void append_failed(struct append_job *job, const struct deed_error *err)
{
    struct call *c = job->c;
    deed_status status = err->status;
    c->err = *err;
    if (job->if_match && status == DEED_CONFLICT && err->condition == 0) status = DEED_STALE;
    call_fail_with(c, status);
}

/* In the committer's thread, or in this one (1). */
static void append_done(void *context, const struct deed_appended *appended,
                        const struct deed_error *err)
{
    struct append_job *job = context;
    if (appended == NULL) {
        append_failed(job, err);
        return;
    }
    struct buf *out = call_body(job->c);
    job->answer(job, appended, out);
    buf_add_byte(out, '\n');
    put_headers(job, appended);
    call_done(job->c, 200, "application/json");
}

void append_job_run(struct append_job *job, deed_str route, deed_str stream, deed_str expected)
{
    struct call *c = job->c;
    job->append.idempotency_key = call_idempotency_key(c);
    if (c->status == DEED_OK) {
        job->revisions =
            arena_alloc_array(c->arena, job->append.event_count, sizeof *job->revisions);
        job->append.out_revisions = job->revisions;
        if (job->revisions == NULL) call_wrong(c, DEED_NO_MEMORY, "no memory left for the append");
    }
    if (c->status == DEED_OK) c->status = answer_reserve(job);
    if (c->status != DEED_OK) {
        call_fail(c);
        return;
    }
    if (job->append.idempotency_key.len > 0) request_hash(job, route, stream, expected);

    struct deed_error err;
    deed_status status =
        (c->x->alone ? store_submit_here : store_submit)(c->api->parts.store, &job->append,
                                                         append_done, job, &err);
    if (status == DEED_OK) return; /* (1): answered by now, or later */
    err.status = status;
    append_failed(job, &err);
}
