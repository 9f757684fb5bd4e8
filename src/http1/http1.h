/* http1.h - HTTP/1.1 as a server speaks it, without sockets and without a clock.
 *
 * Bytes go in as they arrive; out come whole requests, or one error after which the connection is
 * to be answered and closed. How the bytes were cut does not matter: the same bytes give the same
 * events.
 *
 * Strict where leniency lets requests be smuggled past a proxy: both Content-Length and
 * Transfer-Encoding, lengths given twice, lines that end in LF alone, folded headers, spaces before
 * a colon, control characters, missing or second Host are all 400. */
#ifndef HTTP1_HTTP1_H
#define HTTP1_HTTP1_H

#include "base/arena.h"
#include "base/buf.h"
#include "base/error.h"

#define HTTP1_HEADER_COUNT_MAX 100

struct http1_limits {
    size_t head_size_max; /* request line and headers, bytes; 0: 16 KiB. Past it: 414 or 431 */
    size_t body_size_max; /* 0: 33 MiB. Past it: 413 */
};

struct http1_header {
    deed_str name, value; /* as sent, without white space around */
};

/* One request. The slices lie in the arena given to http1_request_init. */
struct http1_request {
    deed_str method;
    deed_str path;  /* as sent, without query; "*" for OPTIONS * */
    deed_str query; /* without '?' */
    struct http1_header *headers;
    size_t header_count;
    struct buf body;
    uint64_t content_length; /* as announced; DEED_NONE: chunked */
    unsigned version_minor;  /* HTTP/1.x */
    bool is_head, keep_alive;
    bool expects_continue; /* waits for "100 Continue" before it sends the body */
    struct arena *arena;
};
void http1_request_init(struct http1_request *request, struct arena *arena, size_t body_size_max);
/* Empty it for the next request: keeps a small body buffer. The arena is the caller's to reset. */
void http1_request_reset(struct http1_request *request);
void http1_request_done(struct http1_request *request);

/* The value of the first header of that name (any case); ptr NULL: none. */
deed_str http1_header_get(const struct http1_request *request, const char *name);

/* A connection's reader. */
struct http1 {
    struct http1_limits limits;
    struct buf partial; /* of a head that has not arrived whole */
    int phase, scan;    /* private */
    size_t head_size;
    bool first_line_ended;
    uint64_t left;      /* body or chunk bytes to come */
    size_t extra_size;  /* of chunk extensions and trailers */
    size_t line_size;   /* of a chunk's size, or of a trailer */
    int status;         /* HTTP1_ERROR: to answer with */
};
void http1_init(struct http1 *h, const struct http1_limits *limits);
void http1_done(struct http1 *h);

enum http1_event {
    HTTP1_MORE,    /* all input was taken; the request is not whole yet */
    HTTP1_HEAD,    /* all of `request` but the body is there; read on */
    HTTP1_REQUEST, /* the request is whole; the next bytes belong to another one */
    HTTP1_ERROR,   /* answer h->status with the message in err, then close. Repeats for ever */
};

/* Take bytes from the front of `in`, which is shortened by as much. After HTTP1_HEAD and
 * HTTP1_REQUEST call again, even with nothing left in `in`, until it answers HTTP1_MORE. After
 * HTTP1_REQUEST pass another (or a reset) request.
 *
 *   400 malformed · 408 never from here · 413 body, 414 target, 431 headers too large
 *   417 an expectation other than 100-continue · 501 method, transfer coding · 505 version
 *   503 the request's arena or buffer had no memory */
enum http1_event http1_read(struct http1 *h, struct http1_request *request, deed_bytes *in,
                            struct deed_error *err);

/* Nothing of a next request has arrived yet, but perhaps empty lines before it. */
bool http1_between_requests(const struct http1 *h);
/* The head is whole and the body is not. */
bool http1_in_body(const struct http1 *h);

/* ---- responses ------------------------------------------------------------------------------ */

enum http1_framing {
    HTTP1_LENGTH,      /* Content-Length */
    HTTP1_CHUNKED,     /* http1_write_chunk, then http1_write_end; only to HTTP/1.1 */
    HTTP1_UNTIL_CLOSE, /* to HTTP/1.0 clients, without a known length */
};

struct http1_response {
    int status;
    const struct http1_header *headers; /* without those below */
    size_t header_count;
    enum http1_framing framing;
    uint64_t content_length;
    deed_str date; /* "Sun, 06 Nov 1994 08:49:37 GMT"; empty: none */
    bool close;    /* the connection ends after it */
    unsigned version_minor; /* the request's: HTTP/1.0 clients are told of keep-alive */
};

/* The status line and all headers. 1xx, 204 and 304 get neither length nor coding. Control
 * characters in header values go out as spaces: no value can end its line. */
void http1_write_head(struct buf *out, const struct http1_response *response);
void http1_write_chunk(struct buf *out, deed_bytes bytes); /* nothing for no bytes */
void http1_write_end(struct buf *out);
void http1_write_continue(struct buf *out);

/* "Not Found"; "Unknown" for numbers nobody has given a name. */
const char *http1_reason(int status);

/* RFC 9110's IMF-fixdate, always 29 characters and a NUL. */
#define HTTP1_DATE_SIZE 29
void http1_date(int64_t unix_seconds, char out[HTTP1_DATE_SIZE + 1]);

#endif
