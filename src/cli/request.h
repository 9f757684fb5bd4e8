/* request.h - what goes to a target and what comes back: URLs, answers, problems, lines. */
#ifndef CLI_REQUEST_H
#define CLI_REQUEST_H

#include "api/api.h"
#include "base/arena.h"
#include "base/buf.h"
#include "json/json.h"

/* ---- requests ----------------------------------------------------------------------------------
 */

#define REQUEST_HEADERS_MAX 8

struct request {
    const char *method;
    const char *path; /* with its query, percent-encoded; a url makes it */
    deed_bytes body;
    deed_str content_type; /* of the body; empty: application/json */
    deed_str accept;       /* empty: application/json */
    struct api_header headers[REQUEST_HEADERS_MAX];
    size_t header_count;
    bool follows; /* silence is no trouble: there may be nothing to say for hours */
};

/* Add a header unless the value is NULL or empty. */
void request_header(struct request *request, const char *name, const char *value);

/* A path and its query, with what must be escaped escaped. */
struct url {
    struct buf text;
    bool has_query;
};
/* `path` is taken as it is; a part and a parameter's value may hold anything. */
void url_init(struct url *url, const char *path);
void url_done(struct url *url);
void url_part(struct url *url, const char *part); /* "/" and the part, escaped */
void url_part_str(struct url *url, deed_str part);
void url_param(struct url *url, const char *name, const char *value); /* NULL: none */
void url_param_str(struct url *url, const char *name, deed_str value);
void url_param_uint(struct url *url, const char *name, uint64_t value);
const char *url_text(struct url *url); /* valid until the next change */

struct reply {
    int status;
    uint64_t position; /* the Deedbook-Position header, or DEED_NONE */
    struct buf body;
};
void reply_init(struct reply *reply);
void reply_done(struct reply *reply);

/* The largest answer kept whole; larger ones are read as lines. */
#define REPLY_SIZE_MAX ((size_t)256 << 20)

/* ---- answers ------------------------------------------------------------------------------------
 */

/* An error from an HTTP status and a problem+json body (or any other body). */
deed_status reply_problem(int http_status, deed_bytes body, struct deed_error *err);

/* One line of an answer, without its end; valid during the call. DEED_END stops reading and is a
 * success; any other status stops it and is the answer. */
typedef deed_status splitter_line(void *context, deed_str line, struct deed_error *err);

/* Cuts what comes in pieces into lines. */
struct splitter {
    struct buf rest;
    splitter_line *line;
    void *context;
};
void splitter_init(struct splitter *splitter, splitter_line *line, void *context);
void splitter_done(struct splitter *splitter);
DEED_MUST_CHECK deed_status splitter_add(struct splitter *splitter, deed_bytes piece,
                                         struct deed_error *err);
/* What is left behind the last line end is a line too. */
DEED_MUST_CHECK deed_status splitter_end(struct splitter *splitter, struct deed_error *err);

#endif
