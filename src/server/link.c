/* link.c - sockets.
 *
 * (1) What is written goes to the kernel at once as far as it takes it; the rest is `sending`, and `out`
 *     fills again behind it.
 * (2) A link is freed when libuv has closed its socket, never before: requests of libuv's may refer to
 *     it until then. */
#include "server/link.h"

#include "os/failpoint.h"
#include "server/connection.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

/* After its last answer a connection is read for this long at most, and what comes is dropped: if
 * it were closed with bytes unread, the kernel would reset it and the client lose the answer. */
#define LINGER_MS 1000

void buffer_shrink(struct buf *buf)
{
    if (buf->room > BUFFER_KEPT_MAX) buf_done(buf);
    buf_reset(buf);
}

/* ---- reading ---------------------------------------------------------------------------------- */

static void on_alloc(uv_handle_t *handle, size_t suggested __attribute__((unused)), uv_buf_t *out)
{
    struct link *link = (struct link *)(void *)handle;
    *out = uv_buf_init((char *)link->service->read_buffer, SERVICE_READ_SIZE);
}

static void on_eof(struct link *link)
{
    link->eof = true;
    link_read(link, false);
    if (link->lingering) {
        link_close(link);
    } else {
        link->protocol->eof(link);
    }
}

static void on_read(uv_stream_t *stream, ssize_t size, const uv_buf_t *buf)
{
    struct link *link = (struct link *)(void *)stream;
    struct service *service = link->service;
    if (size == UV_EOF) {
        on_eof(link);
    } else if (size < 0) {
        link_close(link);
    } else if (size > 0) {
        traffic_add(service->traffic, TRAFFIC_BYTES_READ, (uint64_t)size);
        link->protocol->input(link, (deed_bytes){(uint8_t *)buf->base, (size_t)size});
    }
    service_turn(service);
}

void link_read(struct link *link, bool on)
{
    if (link->closing || link->reads == on) return;
    link->reads = on;
    if (on) {
        if (uv_read_start((uv_stream_t *)&link->tcp, on_alloc, on_read) != 0) link->reads = false;
    } else {
        (void)uv_read_stop((uv_stream_t *)&link->tcp);
    }
}

/* ---- writing ---------------------------------------------------------------------------------- */

void link_mark(struct link *link)
{
    if (link->unflushed || link->closing) return;
    link->unflushed = true;
    link->next_unflushed = link->service->unflushed;
    link->service->unflushed = link;
}

static void on_written(uv_write_t *request, int status)
{
    struct link *link = request->data;
    struct service *service = link->service;
    link->writing = false;
    if (link->closing) return;
    if (status != 0) {
        link_close(link);
    } else {
        buffer_shrink(&link->sending);
        link_mark(link);
    }
    service_turn(service);
}

/* (1) */
void link_flush(struct link *link)
{
    if (link->writing || link->closing || link->out.len == 0) return;
    traffic_add(link->service->traffic, TRAFFIC_BYTES_WRITTEN, link->out.len);
    link->enqueued += link->out.len;
    uv_buf_t buf = uv_buf_init((char *)link->out.ptr, (unsigned)link->out.len);
    FAILPOINT("answer-before");
    int written = uv_try_write((uv_stream_t *)&link->tcp, &buf, 1);
    if (written < 0 && written != UV_EAGAIN) {
        link_close(link);
        return;
    }
    FAILPOINT("answer-after");
    size_t done = written < 0 ? 0 : (size_t)written;
    if (done == link->out.len) {
        buffer_shrink(&link->out);
        return;
    }
    struct buf swap = link->sending;
    link->sending = link->out;
    link->out = swap;
    buf = uv_buf_init((char *)link->sending.ptr + done, (unsigned)(link->sending.len - done));
    link->write.data = link;
    if (uv_write(&link->write, (uv_stream_t *)&link->tcp, &buf, 1, on_written) != 0) {
        link_close(link);
        return;
    }
    link->writing = true;
    link->write_since = uv_now(link->service->loop);
    link->write_left = link->sending.len - done;
}

static void check_writer(struct link *link, uint64_t now)
{
    size_t left = uv_stream_get_write_queue_size((uv_stream_t *)&link->tcp);
    if (left != link->write_left) {
        link->write_left = left;
        link->write_since = now;
    } else if (now - link->write_since >= link->service->limits.write_timeout_ms) {
        traffic_add(link->service->traffic, TRAFFIC_TIMEOUTS, 1);
        link_close(link);
    }
}

void link_check(struct link *link, uint64_t now)
{
    if (link->lingering) {
        if (now - link->linger_since >= LINGER_MS) link_close(link);
    } else if (link->writing) {
        check_writer(link, now);
    }
}

/* ---- the end ---------------------------------------------------------------------------------- */

static void on_shutdown(uv_shutdown_t *request, int status)
{
    struct link *link = request->data;
    if (status != 0 && !link->closing) link_close(link);
    /* An abort may have closed it already; then the handle is freed by on_closed. */
}

void link_end(struct link *link)
{
    if (link->eof) {
        link_close(link);
        return;
    }
    if (link->lingering) return;
    link->lingering = true;
    link->linger_since = uv_now(link->service->loop);
    link->shutdown.data = link;
    if (uv_shutdown(&link->shutdown, (uv_stream_t *)&link->tcp, on_shutdown) != 0) {
        link_close(link);
        return;
    }
    link_read(link, true);
}

/* (2) */
static void on_closed(uv_handle_t *handle)
{
    struct link *link = (struct link *)(void *)handle;
    buf_done(&link->out);
    buf_done(&link->sending);
    link->protocol->closed(link);
}

void link_close(struct link *link)
{
    if (link->closing) return;
    struct service *service = link->service;
    link->closing = true;
    if (service->recent == link) service->recent = NULL;
    link->protocol->closing(link);
    if (link->previous == NULL) {
        service->links = link->next;
    } else {
        link->previous->next = link->next;
    }
    if (link->next != NULL) link->next->previous = link->previous;
    service->connection_count--;
    traffic_set(service->traffic, TRAFFIC_CONNECTIONS, service->connection_count);
    if (link->unflushed) { /* it may not be in the list when its memory goes */
        struct link **at = &service->unflushed;
        while (*at != NULL && *at != link) at = &(*at)->next_unflushed;
        if (*at == link) *at = link->next_unflushed;
    }
    uv_close((uv_handle_t *)&link->tcp, on_closed);
}

/* ---- the begin -------------------------------------------------------------------------------- */

static void peer_name(struct link *link)
{
    struct sockaddr_storage address;
    int size = sizeof address;
    char host[48] = "?";
    unsigned port = 0;
    if (uv_tcp_getpeername(&link->tcp, (struct sockaddr *)&address, &size) == 0) {
        if (address.ss_family == AF_INET6) {
            const struct sockaddr_in6 *six = (const struct sockaddr_in6 *)(const void *)&address;
            (void)uv_ip6_name(six, host, sizeof host);
            port = ntohs(six->sin6_port);
            (void)snprintf(link->peer, sizeof link->peer, "[%s]:%u", host, port);
            return;
        }
        const struct sockaddr_in *four = (const struct sockaddr_in *)(const void *)&address;
        (void)uv_ip4_name(four, host, sizeof host);
        port = ntohs(four->sin_port);
    }
    (void)snprintf(link->peer, sizeof link->peer, "%s:%u", host, port);
}

/* Over the limit: say so, if the kernel takes it at once, and close. */
static void refuse(struct link *link)
{
    static const char answer[] = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n"
                                 "Retry-After: " RETRY_AFTER_SECONDS "\r\n"
                                 "Connection: close\r\n\r\n";
    uv_buf_t buf = uv_buf_init((char *)(uintptr_t)answer, sizeof answer - 1);
    (void)uv_try_write((uv_stream_t *)&link->tcp, &buf, 1);
    traffic_add(link->service->traffic, TRAFFIC_CONNECTIONS_REFUSED, 1);
}

bool link_accept(struct service *service, uv_stream_t *listener)
{
    struct link *link = connection_create(service);
    if (link == NULL) return false;
    if (uv_tcp_init(service->loop, &link->tcp) != 0) {
        link->protocol->closed(link);
        return false;
    }
    buf_init(&link->out, SIZE_MAX / 4);
    buf_init(&link->sending, SIZE_MAX / 4);
    link->next = service->links;
    if (link->next != NULL) link->next->previous = link;
    service->links = link;
    service->connection_count++;

    bool accepted = uv_accept(listener, (uv_stream_t *)&link->tcp) == 0;
    if (accepted) traffic_add(service->traffic, TRAFFIC_CONNECTIONS_ACCEPTED, 1);
    bool fits = service->connection_count <= service->limits.connection_count_max;
    if (accepted && !fits) refuse(link);
    if (!accepted || !fits) {
        link_close(link);
        return true;
    }
    (void)uv_tcp_nodelay(&link->tcp, 1);
    (void)uv_tcp_keepalive(&link->tcp, 1, 60);
    peer_name(link);
    traffic_set(service->traffic, TRAFFIC_CONNECTIONS, service->connection_count);
    link_read(link, true);
    return true;
}
