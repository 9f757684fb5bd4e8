/* http2_client.h - a client of HTTP/2 and gRPC over a socket, made of frames: it takes and answers
 * exactly what the test says.
 *
 *     struct client *c = client_open(port);
 *     client_call(c, 1, "/a.B/C", NULL, NULL);          stream 1
 *     client_message(c, 1, "text", 4);
 *     client_half_close(c, 1);
 *     client_wait_end(c, 1);
 *     expect_code(c, 1, GRPC_OK);
 *     client_close(c); */
#ifndef TESTS_HTTP2_CLIENT_H
#define TESTS_HTTP2_CLIENT_H

#include "unit/test.h"

#include "grpc/proto.h"
#include "grpc/status.h"
#include "http2_frames.h"

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <nghttp2/nghttp2.h>
#include <poll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define CLIENT_STREAMS_MAX 128

struct answer {
    struct buf data;
    char head[48 << 10]; /* "name: value\n", of head and trailers */
    bool ended, reset;
    uint32_t error;
    uint64_t window; /* bytes that may still be sent */
};

struct client {
    int fd;
    struct buf in, out;
    nghttp2_hd_inflater *inflater;
    struct answer answers[CLIENT_STREAMS_MAX]; /* stream 2n+1 */
    bool stingy;  /* opens no windows */
    bool silent;  /* does not answer PING */
    bool gone;    /* the server has closed */
    bool goaway;
    uint32_t goaway_error;
    size_t pings;
    uint64_t window;
};

FRAMES uint64_t now_ms(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

FRAMES struct answer *answer_of(struct client *c, uint32_t stream)
{
    assert_true(stream % 2 == 1 && stream / 2 < CLIENT_STREAMS_MAX);
    return &c->answers[stream / 2];
}

FRAMES void client_write(struct client *c, const void *bytes, size_t size)
{
    const char *at = bytes;
    while (size > 0 && !c->gone) {
        ssize_t sent = send(c->fd, at, size, MSG_NOSIGNAL);
        if (sent <= 0) {
            c->gone = true;
            return;
        }
        at += sent;
        size -= (size_t)sent;
    }
}

FRAMES void client_flush(struct client *c)
{
    client_write(c, c->out.ptr, c->out.len);
    buf_reset(&c->out);
}

FRAMES struct client *client_connect(unsigned port)
{
    struct client *c = calloc(1, sizeof *c);
    assert_non_null(c);
    c->fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int)), 0);
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_int_equal(connect(c->fd, (struct sockaddr *)&to, sizeof to), 0);
    buf_init(&c->in, (size_t)256 << 20);
    buf_init(&c->out, (size_t)256 << 20);
    assert_int_equal(nghttp2_hd_inflate_new(&c->inflater), 0);
    c->window = 65535;
    for (size_t i = 0; i < CLIENT_STREAMS_MAX; i++) {
        buf_init(&c->answers[i].data, (size_t)256 << 20);
        c->answers[i].window = 65535;
    }
    return c;
}

FRAMES void client_close(struct client *c)
{
    for (size_t i = 0; i < CLIENT_STREAMS_MAX; i++) buf_done(&c->answers[i].data);
    buf_done(&c->in);
    buf_done(&c->out);
    nghttp2_hd_inflate_del(c->inflater);
    close(c->fd);
    free(c);
}

FRAMES struct client *client_open(unsigned port)
{
    struct client *c = client_connect(port);
    put_hello(&c->out);
    client_flush(c);
    return c;
}

/* ---- what comes -------------------------------------------------------------------------------- */

FRAMES void take_fields(struct client *c, const struct frame *frame)
{
    struct answer *a = answer_of(c, frame->stream);
    size_t used = strlen(a->head);
    deed_bytes at = frame->payload;
    for (;;) {
        nghttp2_nv field;
        int flags = 0;
        ssize_t taken = nghttp2_hd_inflate_hd2(c->inflater, &field, &flags, at.ptr, at.len, 1);
        assert_true(taken >= 0);
        at.ptr += taken;
        at.len -= (size_t)taken;
        if (flags & NGHTTP2_HD_INFLATE_EMIT) {
            int added = snprintf(a->head + used, sizeof a->head - used, "%s: %s\n", field.name,
                                 field.value);
            assert_true(added > 0 && (size_t)added < sizeof a->head - used);
            used += (size_t)added;
        }
        if (flags & NGHTTP2_HD_INFLATE_FINAL) break;
    }
    (void)nghttp2_hd_inflate_end_headers(c->inflater);
}

FRAMES void put_window(struct buf *out, uint32_t stream, size_t size)
{
    const uint8_t bytes[4] = {(uint8_t)(size >> 24), (uint8_t)(size >> 16), (uint8_t)(size >> 8),
                              (uint8_t)size};
    put_frame(out, FRAME_WINDOW_UPDATE, 0, stream, bytes, 4);
}

FRAMES void take_settings(struct client *c, const struct frame *frame)
{
    if (frame->flags & FLAG_ACK) return;
    for (size_t i = 0; i + 6 <= frame->payload.len; i += 6) {
        const uint8_t *entry = frame->payload.ptr + i;
        if (entry[1] != NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE) continue;
        for (size_t k = 0; k < CLIENT_STREAMS_MAX; k++) {
            c->answers[k].window += number_at(entry + 2) - 65535u;
        }
    }
    put_frame(&c->out, FRAME_SETTINGS, FLAG_ACK, 0, NULL, 0);
}

FRAMES void client_take(struct client *c, const struct frame *frame)
{
    switch (frame->type) {
    case FRAME_HEADERS:
        take_fields(c, frame);
        break;
    case FRAME_DATA:
        buf_add(&answer_of(c, frame->stream)->data, frame->payload.ptr, frame->payload.len);
        if (!c->stingy && frame->payload.len > 0) {
            put_window(&c->out, 0, frame->payload.len);
            put_window(&c->out, frame->stream, frame->payload.len);
        }
        break;
    case FRAME_RST_STREAM:
        answer_of(c, frame->stream)->reset = true;
        answer_of(c, frame->stream)->error = number_at(frame->payload.ptr);
        break;
    case FRAME_SETTINGS:
        take_settings(c, frame);
        break;
    case FRAME_PING:
        if (frame->flags & FLAG_ACK) break;
        c->pings++;
        if (!c->silent) put_frame(&c->out, FRAME_PING, FLAG_ACK, 0, frame->payload.ptr, 8);
        break;
    case FRAME_GOAWAY:
        c->goaway = true;
        c->goaway_error = number_at(frame->payload.ptr + 4);
        break;
    case FRAME_WINDOW_UPDATE:
        if (frame->stream == 0) c->window += number_at(frame->payload.ptr);
        if (frame->stream != 0) answer_of(c, frame->stream)->window += number_at(frame->payload.ptr);
        break;
    case FRAME_PRIORITY:
    case FRAME_CONTINUATION:
        break;
    }
    bool ends = frame->type == FRAME_HEADERS || frame->type == FRAME_DATA;
    if (ends && (frame->flags & FLAG_END_STREAM)) answer_of(c, frame->stream)->ended = true;
}

/* Take what comes within so many milliseconds; false: nothing has. */
FRAMES bool client_read(struct client *c, int wait_ms)
{
    struct pollfd poller = {.fd = c->fd, .events = POLLIN};
    if (c->gone || poll(&poller, 1, wait_ms) <= 0) return false;
    uint8_t *at = buf_reserve(&c->in, 1 << 16);
    ssize_t size = recv(c->fd, at, 1 << 16, 0);
    if (size <= 0) {
        c->gone = true;
        return false;
    }
    c->in.len += (size_t)size;
    deed_bytes in = buf_bytes(&c->in);
    struct frame frame;
    while (take_frame(&in, &frame)) client_take(c, &frame);
    buf_consume(&c->in, c->in.len - in.len);
    client_flush(c);
    return true;
}

#define CLIENT_PATIENCE_MS 20000

/* Read on until `condition` is true. */
#define client_until(c, condition)                                                         \
    do {                                                                                   \
        uint64_t until_ = now_ms() + CLIENT_PATIENCE_MS;                                   \
        while (!(condition)) {                                                             \
            if (now_ms() > until_) fail_msg("in vain: %s", #condition);                    \
            if (!client_read((c), 10) && (c)->gone) break;                                 \
        }                                                                                  \
        if (!(condition)) fail_msg("the server has closed before: %s", #condition);        \
    } while (0)

#define client_wait_end(c, stream) \
    client_until((c), answer_of((c), (stream))->ended || answer_of((c), (stream))->reset)

/* ---- what goes --------------------------------------------------------------------------------- */

FRAMES void client_call(struct client *c, uint32_t stream, const char *path, const char *more_name,
                        const char *more_value)
{
    put_request(&c->out, stream, 0, path, more_name, more_value);
    client_flush(c);
}

/* Bytes of the request as its window allows; read meanwhile. */
FRAMES void client_data(struct client *c, uint32_t stream, const uint8_t *bytes, size_t size)
{
    while (size > 0) {
        struct answer *a = answer_of(c, stream);
        size_t now = size < 16384 ? size : 16384;
        if (a->ended || a->reset) return;
        client_until(c, (a->window > 0 && c->window > 0) || a->ended || a->reset);
        if (now > a->window) now = a->window;
        if (now > c->window) now = c->window;
        put_frame(&c->out, FRAME_DATA, 0, stream, bytes, now);
        client_flush(c);
        a->window -= now;
        c->window -= now;
        bytes += now;
        size -= now;
    }
}

FRAMES void client_message(struct client *c, uint32_t stream, const void *bytes, size_t size)
{
    struct buf frame;
    buf_init(&frame, size + GRPC_FRAME_HEAD_SIZE);
    size_t begin = grpc_frame_begin(&frame);
    buf_add(&frame, bytes, size);
    grpc_frame_end(&frame, begin);
    client_data(c, stream, frame.ptr, frame.len);
    buf_done(&frame);
}

FRAMES void client_half_close(struct client *c, uint32_t stream)
{
    put_frame(&c->out, FRAME_DATA, FLAG_END_STREAM, stream, NULL, 0);
    client_flush(c);
}

FRAMES void client_cancel(struct client *c, uint32_t stream)
{
    static const uint8_t cancel[4] = {0, 0, 0, HTTP2_CANCEL};
    put_frame(&c->out, FRAME_RST_STREAM, 0, stream, cancel, 4);
    client_flush(c);
}

/* The whole messages that have come. */
FRAMES size_t message_count(struct client *c, uint32_t stream)
{
    deed_bytes at = buf_bytes(&answer_of(c, stream)->data);
    size_t count = 0;
    while (at.len >= GRPC_FRAME_HEAD_SIZE) {
        size_t size = GRPC_FRAME_HEAD_SIZE + number_at(at.ptr + 1);
        if (at.len < size) break;
        at.ptr += size;
        at.len -= size;
        count++;
    }
    return count;
}

FRAMES void expect_head(struct client *c, uint32_t stream, const char *line)
{
    const char *head = answer_of(c, stream)->head;
    if (strstr(head, line) == NULL) fail_msg("stream %u: no \"%s\" in:\n%s", stream, line, head);
}

FRAMES void expect_code(struct client *c, uint32_t stream, enum grpc_code code)
{
    char line[40];
    (void)snprintf(line, sizeof line, "grpc-status: %d\n", (int)code);
    client_wait_end(c, stream);
    expect_head(c, stream, line);
}

#endif
