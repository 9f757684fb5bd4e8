/* reply.h - how a call ends: a body, or a problem (RFC 9457). */
#ifndef API_REPLY_H
#define API_REPLY_H

#include "api/call.h"

/* No response is larger: a page ends early, a query has its own limit. */
#define RESPONSE_SIZE_MAX ((size_t)256 << 20)

/* ---- each of these ends the call; nothing of it may be touched afterwards -------------------- */

/* A problem from status and err. */
void call_fail(struct call *c);
/* The same for a failure that a call of the store or another part returned into c->err. */
void call_fail_with(struct call *c, deed_status status);
/* The body is in c->x->response.body. */
void call_done(struct call *c, int http, const char *content_type);

/* Before answering. Values must live as long as the call. */
void call_put_header(struct call *c, const char *name, deed_str value);
void call_put_number(struct call *c, const char *name, uint64_t value);
/* Deedbook-Position and Deedbook-Token: a position to come back with, bare and as a token. */
void call_put_position(struct call *c, uint64_t position);
void call_put_etag(struct call *c, uint64_t revision);
struct buf *call_body(struct call *c);

/* "/streams/a?limit=5&from=6": this request with `name` set to `value`, for a Link. */
deed_str call_link(struct call *c, const char *name, deed_str value);

#endif
