/* stream.h - one gRPC call: a stream of HTTP/2 on one side, a struct rpc on the other.
 *
 * All on the loop's thread. Connection2.c makes calls and owns the session. */
#ifndef SERVER_STREAM_H
#define SERVER_STREAM_H

#include "http2/http2.h"
#include "server/service.h"

struct stream;

/* What the connection offers its calls. */
struct stream_owner {
    struct service *service;
    struct link *link;
    struct http2 *session; /* its streams are the calls */
    struct stream *hungry; /* those of which something was sent since they were last fed */
    uint64_t crowded_ns;  /* uv_hrtime: when there was last more than one */
};

/* The handler of the connection's session; its context is the struct stream_owner. */
struct http2_stream *stream_open(void *owner);
void stream_header(struct http2_stream *stream, deed_str name, deed_str value);
void stream_head(struct http2_stream *stream);
void stream_data(struct http2_stream *stream, deed_bytes bytes);
void stream_ended(struct http2_stream *stream);
deed_bytes stream_output(struct http2_stream *stream, bool *out_end);
void stream_sent(struct http2_stream *stream, size_t size);
size_t stream_trailers(struct http2_stream *stream, struct http2_header *out, size_t max);
void stream_closed(struct http2_stream *stream, uint32_t error);

/* Deadlines, and times that methods have set. About ten times a second. */
void streams_tick(struct stream_owner *owner);
/* The service stops: end what only waits. */
void streams_stop(struct stream_owner *owner);
/* Ask again those whose answers have been sent; after each http2_send. */
void streams_feed(struct stream_owner *owner);
/* Those that were kept for the next requests. */
void streams_free(struct service *service);

#endif
