/* http2.c - nghttp2 behind calls that fit a server.
 *
 *      bytes ─► http2_receive ─► nghttp2 ─► open, header…, head, data…, ended ─► handler
 *      bytes ◄─ http2_send    ◄─ nghttp2 ◄─ output, sent, trailers ◄──────────── handler
 *
 * (1) A stream is known to nghttp2 by the handler's pointer from `open` until `closed`, which is called
 *     exactly once for each: when the stream closes, or when the session is destroyed.
 * (2) Bytes of bodies open the connection's window as soon as they are here, and their stream's window
 *     when the handler has consumed them: what one stream may leave lying is bounded by its window, and
 *     no other stream waits for it.
 * (3) Bodies are sent from the handler's memory into `out` in one copy (NO_COPY): a DATA frame is asked
 *     for with `output`, and taken with `sent` in the same http2_send.
 * (4) An answer that ends while the peer still sends is followed by RST_STREAM(NO_ERROR), as RFC 9113
 *     (8.1) wants: the peer may stop.
 * (5) What costs us something and the peer nothing is counted: resets of streams (rapid reset),
 *     CONTINUATION frames, entries of SETTINGS, answers to PING and SETTINGS that the peer does not read
 *     (all by nghttp2), and frames that bring nothing (here). */
#include "http2/http2.h"

#include <assert.h>
#include <nghttp2/nghttp2.h>
#include <stdlib.h>

/* Of one head. Few have any; but nghttp2 counts each piece in which such a frame's nine bytes of head
 * arrive, so a few frames in small pieces are many. */
#define CONTINUATIONS_MAX 64
/* Of one frame: there are not ten kinds. */
#define SETTINGS_MAX 32
/* Bytes under way on all streams together. They are opened again when they arrive (2), so this bounds how
 * far a client may be ahead of us, not what we keep. */
#define CONNECTION_WINDOW (INT32_C(16) << 20)

#define FRAME_HEAD_SIZE 9

struct http2 {
    nghttp2_session *session;
    const struct http2_handler *handler;
    void *context;
    struct http2_limits limits;
    struct buf *out; /* within http2_send */
    size_t out_size_max;
    struct http2_stream *streams;
    size_t stream_count;
    size_t head_size;   /* of the head that is arriving: heads are never mixed */
    uint32_t empty_count;
    bool broken, going;
};

static struct http2_stream *stream_of(struct http2 *h, int32_t id)
{
    return nghttp2_session_get_stream_user_data(h->session, id);
}

/* ---- what arrives ----------------------------------------------------------------------------- */

static int on_begin_headers(nghttp2_session *session, const nghttp2_frame *frame, void *context)
{
    struct http2 *h = context;
    if (frame->hd.type != NGHTTP2_HEADERS || frame->headers.cat != NGHTTP2_HCAT_REQUEST) return 0;
    struct http2_stream *stream = h->handler->open(h->context);
    h->empty_count = 0;
    h->head_size = 0;
    if (stream == NULL) {
        (void)nghttp2_submit_rst_stream(session, NGHTTP2_FLAG_NONE, frame->hd.stream_id,
                                        NGHTTP2_REFUSED_STREAM);
        return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
    }
    *stream = (struct http2_stream){.session = h, .id = frame->hd.stream_id};
    stream->next = h->streams;
    if (stream->next != NULL) stream->next->previous = stream;
    h->streams = stream;
    h->stream_count++;
    int result = nghttp2_session_set_stream_user_data(session, stream->id, stream);
    assert(result == 0);
    (void)result;
    return 0;
}

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name,
                     size_t name_size, const uint8_t *value, size_t value_size,
                     uint8_t flags, void *context)
{
    struct http2 *h = context;
    (void)flags;
    if (frame->hd.type != NGHTTP2_HEADERS || frame->headers.cat != NGHTTP2_HCAT_REQUEST) return 0;
    struct http2_stream *stream = stream_of(h, frame->hd.stream_id);
    if (stream == NULL) return 0;
    h->head_size += name_size + value_size + 32;
    if (h->head_size > h->limits.head_size_max) {
        (void)nghttp2_submit_rst_stream(session, NGHTTP2_FLAG_NONE, frame->hd.stream_id,
                                        NGHTTP2_ENHANCE_YOUR_CALM);
        return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
    }
    h->handler->header(stream, (deed_str){(const char *)name, name_size},
                       (deed_str){(const char *)value, value_size});
    return 0;
}

/* (5): false: too many. */
static bool brings_something(struct http2 *h, const nghttp2_frame *frame)
{
    bool empty_data = frame->hd.type == NGHTTP2_DATA && frame->hd.length == 0 &&
                      (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) == 0;
    if (!empty_data && frame->hd.type != NGHTTP2_PRIORITY) {
        if (frame->hd.type == NGHTTP2_DATA) h->empty_count = 0;
        return true;
    }
    return ++h->empty_count <= h->limits.empty_count_max;
}

static int on_frame_recv(nghttp2_session *session, const nghttp2_frame *frame, void *context)
{
    struct http2 *h = context;
    if (!brings_something(h, frame)) {
        (void)nghttp2_session_terminate_session(session, NGHTTP2_ENHANCE_YOUR_CALM);
        return 0;
    }
    if (frame->hd.type != NGHTTP2_HEADERS && frame->hd.type != NGHTTP2_DATA) return 0;
    struct http2_stream *stream = stream_of(h, frame->hd.stream_id);
    if (stream == NULL) return 0;
    bool ends = (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0;
    if (ends) stream->peer_ended = true;
    if (frame->hd.type == NGHTTP2_HEADERS && frame->headers.cat == NGHTTP2_HCAT_REQUEST) {
        h->handler->head(stream);
    }
    if (ends) h->handler->ended(stream);
    return 0;
}

static int on_data_chunk(nghttp2_session *session, uint8_t flags, int32_t id, const uint8_t *data,
                         size_t size, void *context)
{
    struct http2 *h = context;
    (void)flags;
    (void)nghttp2_session_consume_connection(session, size); /* (2) */
    struct http2_stream *stream = stream_of(h, id);
    if (stream != NULL) h->handler->data(stream, (deed_bytes){data, size});
    return 0;
}

static void stream_close(struct http2 *h, struct http2_stream *stream, uint32_t error)
{
    assert(stream->session == h && h->stream_count > 0);
    if (stream->previous == NULL) {
        h->streams = stream->next;
    } else {
        stream->previous->next = stream->next;
    }
    if (stream->next != NULL) stream->next->previous = stream->previous;
    stream->session = NULL;
    h->stream_count--;
    h->handler->closed(stream, error);
}

static int on_stream_close(nghttp2_session *session, int32_t id, uint32_t error, void *context)
{
    struct http2 *h = context;
    struct http2_stream *stream = stream_of(h, id);
    if (stream == NULL) return 0;
    (void)nghttp2_session_set_stream_user_data(session, id, NULL); /* (1) */
    stream_close(h, stream, error);
    return 0;
}

bool http2_receive(struct http2 *h, deed_bytes in)
{
    if (h->broken) return false;
    ssize_t taken = nghttp2_session_mem_recv(h->session, in.ptr, in.len);
    if (taken < 0) h->broken = true;
    return !h->broken;
}

/* ---- what is sent ----------------------------------------------------------------------------- */

static bool is_full(const struct http2 *h)
{
    return h->out->len >= h->out_size_max;
}

static ssize_t on_send(nghttp2_session *session, const uint8_t *data, size_t size, int flags,
                       void *context)
{
    struct http2 *h = context;
    (void)session;
    (void)flags;
    if (is_full(h)) return NGHTTP2_ERR_WOULDBLOCK;
    buf_add(h->out, data, size);
    return buf_ok(h->out) ? (ssize_t)size : NGHTTP2_ERR_CALLBACK_FAILURE;
}

static void fields_make(nghttp2_nv *out, const struct http2_header *headers, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        out[i] = (nghttp2_nv){.name = (uint8_t *)(uintptr_t)headers[i].name.ptr,
                              .namelen = headers[i].name.len,
                              .value = (uint8_t *)(uintptr_t)headers[i].value.ptr,
                              .valuelen = headers[i].value.len};
    }
}

static ssize_t on_read(nghttp2_session *session, int32_t id, uint8_t *buffer, size_t size,
                       uint32_t *flags, nghttp2_data_source *source, void *context)
{
    struct http2 *h = context;
    struct http2_stream *stream = source->ptr;
    (void)buffer;
    if (is_full(h)) return NGHTTP2_ERR_PAUSE;
    bool end = false;
    deed_bytes bytes = h->handler->output(stream, &end);
    if (bytes.len == 0 && !end) {
        stream->deferred = true;
        return NGHTTP2_ERR_DEFERRED;
    }
    *flags |= NGHTTP2_DATA_FLAG_NO_COPY;
    if (bytes.len > size) return (ssize_t)size;
    if (!end) return (ssize_t)bytes.len;

    struct http2_header trailers[HTTP2_HEADERS_MAX];
    nghttp2_nv fields[HTTP2_HEADERS_MAX];
    size_t count = h->handler->trailers(stream, trailers, HTTP2_HEADERS_MAX);
    assert(count <= HTTP2_HEADERS_MAX);
    fields_make(fields, trailers, count);
    *flags |= NGHTTP2_DATA_FLAG_EOF;
    if (count == 0) return (ssize_t)bytes.len;
    *flags |= NGHTTP2_DATA_FLAG_NO_END_STREAM;
    if (nghttp2_submit_trailer(session, id, fields, count) != 0) {
        return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
    }
    return (ssize_t)bytes.len;
}

/* (3) */
static int on_send_data(nghttp2_session *session, nghttp2_frame *frame, const uint8_t *head,
                        size_t size, nghttp2_data_source *source, void *context)
{
    struct http2 *h = context;
    struct http2_stream *stream = source->ptr;
    bool end = false;
    (void)session;
    assert(frame->data.padlen == 0); /* there is no callback that would ask for it */
    (void)frame;
    deed_bytes bytes = h->handler->output(stream, &end);
    assert(bytes.len >= size);
    buf_add(h->out, head, FRAME_HEAD_SIZE);
    buf_add(h->out, bytes.ptr, size);
    if (!buf_ok(h->out)) return NGHTTP2_ERR_CALLBACK_FAILURE;
    if (size > 0) h->handler->sent(stream, size);
    return 0;
}

static int on_frame_send(nghttp2_session *session, const nghttp2_frame *frame, void *context)
{
    struct http2 *h = context;
    bool ends = (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0;
    if (!ends || (frame->hd.type != NGHTTP2_HEADERS && frame->hd.type != NGHTTP2_DATA)) return 0;
    struct http2_stream *stream = stream_of(h, frame->hd.stream_id);
    if (stream == NULL || stream->peer_ended) return 0;
    (void)nghttp2_submit_rst_stream(session, NGHTTP2_FLAG_NONE, frame->hd.stream_id, /* (4) */
                                    NGHTTP2_NO_ERROR);
    return 0;
}

bool http2_send(struct http2 *h, struct buf *out, size_t size_max)
{
    if (h->broken) return false;
    h->out = out;
    h->out_size_max = size_max;
    if (nghttp2_session_send(h->session) != 0) h->broken = true;
    h->out = NULL;
    return !h->broken;
}

bool http2_has_output(struct http2 *h)
{
    return !h->broken && nghttp2_session_want_write(h->session) != 0;
}

bool http2_over(struct http2 *h)
{
    return h->broken || (nghttp2_session_want_read(h->session) == 0 &&
                         nghttp2_session_want_write(h->session) == 0);
}

/* ---- life ------------------------------------------------------------------------------------- */

static void defaults(struct http2_limits *l)
{
    if (l->stream_count_max == 0) l->stream_count_max = 1000;
    if (l->stream_window == 0) l->stream_window = UINT32_C(1) << 20;
    if (l->head_size_max == 0) l->head_size_max = UINT32_C(16) << 10;
    if (l->reset_burst == 0) l->reset_burst = 1000;
    if (l->reset_rate == 0) l->reset_rate = 100;
    if (l->empty_count_max == 0) l->empty_count_max = 1000;
    if (l->ack_count_max == 0) l->ack_count_max = 1000;
}

static int session_new(struct http2 *h, nghttp2_session_callbacks *callbacks,
                       nghttp2_option *option)
{
    nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks, on_begin_headers);
    nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
    nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame_recv);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data_chunk);
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_stream_close);
    nghttp2_session_callbacks_set_on_frame_send_callback(callbacks, on_frame_send);
    nghttp2_session_callbacks_set_send_callback(callbacks, on_send);
    nghttp2_session_callbacks_set_send_data_callback(callbacks, on_send_data);

    nghttp2_option_set_no_auto_window_update(option, 1);
    nghttp2_option_set_no_closed_streams(option, 1);
    nghttp2_option_set_max_continuations(option, CONTINUATIONS_MAX);
    nghttp2_option_set_max_settings(option, SETTINGS_MAX);
    nghttp2_option_set_max_outbound_ack(option, h->limits.ack_count_max);
    nghttp2_option_set_stream_reset_rate_limit(option, h->limits.reset_burst, h->limits.reset_rate);
    return nghttp2_session_server_new2(&h->session, callbacks, h, option);
}

static int settings_submit(struct http2 *h)
{
    const nghttp2_settings_entry entries[] = {
        {NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, h->limits.stream_count_max},
        {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, h->limits.stream_window},
        {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, h->limits.head_size_max},
    };
    int result = nghttp2_submit_settings(h->session, NGHTTP2_FLAG_NONE, entries,
                                         sizeof entries / sizeof entries[0]);
    if (result != 0) return result;
    return nghttp2_session_set_local_window_size(h->session, NGHTTP2_FLAG_NONE, 0,
                                                 CONNECTION_WINDOW);
}

deed_status http2_create(const struct http2_limits *limits, const struct http2_handler *handler,
                         void *context, struct http2 **out_session, struct deed_error *err)
{
    struct http2 *h = calloc(1, sizeof *h);
    nghttp2_session_callbacks *callbacks = NULL;
    nghttp2_option *option = NULL;
    bool good = h != NULL && nghttp2_session_callbacks_new(&callbacks) == 0 &&
                nghttp2_option_new(&option) == 0;
    if (good) {
        h->handler = handler;
        h->context = context;
        h->limits = *limits;
        defaults(&h->limits);
        good = session_new(h, callbacks, option) == 0 && settings_submit(h) == 0;
    }
    nghttp2_option_del(option);
    nghttp2_session_callbacks_del(callbacks);
    if (!good) {
        http2_destroy(h);
        return deed_fail(err, DEED_NO_MEMORY, "http/2: out of memory for a connection");
    }
    *out_session = h;
    return DEED_OK;
}

void http2_destroy(struct http2 *h)
{
    if (h == NULL) return;
    while (h->streams != NULL) stream_close(h, h->streams, HTTP2_CANCEL); /* nghttp2 does not tell (1) */
    assert(h->stream_count == 0);
    nghttp2_session_del(h->session);
    free(h);
}

struct http2_stream *http2_streams(const struct http2 *h)
{
    return h->streams;
}

size_t http2_stream_count(const struct http2 *h)
{
    return h->stream_count;
}

void http2_goaway(struct http2 *h, enum http2_error error)
{
    if (h->going) return;
    h->going = true;
    (void)nghttp2_submit_goaway(h->session, NGHTTP2_FLAG_NONE,
                                nghttp2_session_get_last_proc_stream_id(h->session), error, NULL, 0);
}

void http2_ping(struct http2 *h)
{
    (void)nghttp2_submit_ping(h->session, NGHTTP2_FLAG_NONE, NULL);
}

/* ---- streams ---------------------------------------------------------------------------------- */

void http2_respond(struct http2_stream *stream, const struct http2_header *headers, size_t count,
                   bool body)
{
    struct http2 *h = stream->session;
    nghttp2_nv fields[HTTP2_HEADERS_MAX];
    nghttp2_data_provider provider = {.source.ptr = stream, .read_callback = on_read};
    if (h == NULL) return;
    assert(!stream->answered && count <= HTTP2_HEADERS_MAX);
    stream->answered = true;
    fields_make(fields, headers, count);
    if (nghttp2_submit_response(h->session, stream->id, fields, count, body ? &provider : NULL) != 0) {
        http2_reset(stream, HTTP2_INTERNAL_ERROR);
    }
}

void http2_resume(struct http2_stream *stream)
{
    if (stream->session == NULL || !stream->deferred) return;
    stream->deferred = false;
    (void)nghttp2_session_resume_data(stream->session->session, stream->id);
}

void http2_consumed(struct http2_stream *stream, size_t size)
{
    if (stream->session == NULL || size == 0) return;
    (void)nghttp2_session_consume_stream(stream->session->session, stream->id, size);
}

void http2_reset(struct http2_stream *stream, enum http2_error error)
{
    if (stream->session == NULL) return;
    (void)nghttp2_submit_rst_stream(stream->session->session, NGHTTP2_FLAG_NONE, stream->id, error);
}
