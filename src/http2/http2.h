/* http2.h - HTTP/2 as a server speaks it, without sockets and without a clock.
 *
 * A session is one connection. Bytes go in as they arrive and become calls of the handler; what is to be
 * sent is fetched with http2_send. How the bytes were cut does not matter.
 *
 * Flow control is the handler's where it counts: bytes of a stream's body open its window again when
 * the handler says that they are consumed, so a stream that is not read stalls only itself. Bytes that
 * are to be sent stay with the handler until the peer's window takes them. */
#ifndef HTTP2_HTTP2_H
#define HTTP2_HTTP2_H

#include "base/buf.h"
#include "base/error.h"

struct http2;

/* What a client that speaks HTTP/2 sends first, before anything else. */
#define HTTP2_PREFACE "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
#define HTTP2_PREFACE_SIZE 24

/* RFC 9113's error codes, as far as we give them. */
enum http2_error {
    HTTP2_NO_ERROR = 0,
    HTTP2_PROTOCOL_ERROR = 1,
    HTTP2_INTERNAL_ERROR = 2,
    HTTP2_REFUSED_STREAM = 7,
    HTTP2_CANCEL = 8,
    HTTP2_ENHANCE_YOUR_CALM = 11,
};

struct http2_header {
    deed_str name, value;
};

/* A stream: one request and its answer. The first member of the handler's own struct. */
struct http2_stream {
    struct http2 *session; /* NULL: closed */
    struct http2_stream *next; /* of the session's; see http2_streams */
    bool peer_ended, answered; /* its side has ended; http2_respond was called */
    /* Private. */
    struct http2_stream *previous;
    int32_t id;
    bool deferred;
};

/* Called from within http2_receive, http2_send and http2_destroy; may call everything on streams, but
 * not those three. */
struct http2_handler {
    /* A request begins. NULL: there is no memory for it, it is refused. */
    struct http2_stream *(*open)(void *context);
    /* One field of its head, ":method" and the like too; names in lower case; valid during the call. */
    void (*header)(struct http2_stream *stream, deed_str name, deed_str value);
    /* The head is whole. */
    void (*head)(struct http2_stream *stream);
    /* Bytes of the body; valid during the call. */
    void (*data)(struct http2_stream *stream, deed_bytes bytes);
    /* The peer has ended its side. */
    void (*ended)(struct http2_stream *stream);
    /* What is to be sent next; empty and not `*out_end`: nothing now, until http2_resume. `*out_end`:
     * behind these bytes the body ends. Called again for the same bytes until `sent` takes them. */
    deed_bytes (*output)(struct http2_stream *stream, bool *out_end);
    void (*sent)(struct http2_stream *stream, size_t size);
    /* The body has ended: its trailers, at most `max`, or none; they must stay until the next call on
     * the stream. */
    size_t (*trailers)(struct http2_stream *stream, struct http2_header *out, size_t max);
    /* Always once, last: the stream is the handler's again. Not HTTP2_NO_ERROR: it was cut. */
    void (*closed)(struct http2_stream *stream, uint32_t error);
};

#define HTTP2_HEADERS_MAX 24 /* of an answer's head or trailers */

/* Zero means the default beside it. */
struct http2_limits {
    uint32_t stream_count_max;  /* open at once: 1,000. Past it: refused */
    uint32_t stream_window;     /* unconsumed bytes of one stream: 1 MiB */
    uint32_t head_size_max;     /* names and values of one head, 32 more for each: 16 KiB. Past it the
                                 * stream is reset */
    /* Floods end the connection with ENHANCE_YOUR_CALM: */
    uint32_t reset_burst, reset_rate; /* streams that the peer opens and resets: 1,000, and 100 a second */
    uint32_t empty_count_max;   /* frames in a row that bring nothing: empty DATA, PRIORITY: 1,000 */
    uint32_t ack_count_max;     /* answers to PING and SETTINGS that wait to be sent: 1,000 */
};

/* Queues our SETTINGS. The handler must stay.
 *
 *   DEED_NO_MEMORY */
DEED_MUST_CHECK deed_status http2_create(const struct http2_limits *limits,
                                         const struct http2_handler *handler, void *context,
                                         struct http2 **out_session, struct deed_error *err);
/* Closes every open stream (handler->closed) and frees it. Accepts NULL. */
void http2_destroy(struct http2 *session);

/* Take what has arrived, the preface too. What the peer does wrong ends the session: its GOAWAY is
 * queued, http2_over tells when it was fetched. false: nothing more can be said, close at once. */
DEED_MUST_CHECK bool http2_receive(struct http2 *session, deed_bytes in);

/* Append what is to be sent, until `out` holds `size_max` bytes or a frame more. false: it is broken. */
DEED_MUST_CHECK bool http2_send(struct http2 *session, struct buf *out, size_t size_max);
/* Would http2_send have something? */
bool http2_has_output(struct http2 *session);
/* All is said in both directions: close the connection. */
bool http2_over(struct http2 *session);

/* Those that are open, by `next`, the newest first: from `open`'s return until just before `closed`. */
struct http2_stream *http2_streams(const struct http2 *session);
size_t http2_stream_count(const struct http2 *session);

/* Take no new streams; those that are open go on. */
void http2_goaway(struct http2 *session, enum http2_error error);
/* The peer answers, or is not there: whatever it sends next may be taken as the answer. */
void http2_ping(struct http2 *session);

/* Answer: the head, and either a body with trailers behind it (`body`), or nothing more. Once a stream.
 * Names and values are copied. */
void http2_respond(struct http2_stream *stream, const struct http2_header *headers, size_t count,
                   bool body);
/* There is something to send again, or the body has ended. */
void http2_resume(struct http2_stream *stream);
/* So many bytes of `data` are done with. */
void http2_consumed(struct http2_stream *stream, size_t size);
/* Cut it; `closed` comes later. */
void http2_reset(struct http2_stream *stream, enum http2_error error);

#endif
