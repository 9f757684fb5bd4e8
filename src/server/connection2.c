/* connection2.c - HTTP/2 on a link.
 *
 *     input ─► http2_receive ─► stream.c
 *     out   ◄─ http2_send    ◄─ stream.c
 *
 * (1) `out` stops being filled at write_size_max: what calls have made beyond stays with them, and HTTP/2
 *     shares the room out among them.
 * (2) A connection is asked by PING whether it is still there when nothing has come from it for an
 *     interval; if nothing comes then for the timeout it is closed. Anything that comes is an answer.
 * (3) A connection without calls may stay: clients keep theirs. Only when three quarters of the
 *     connections that there may be are taken, those that had no call for idle_timeout are ended.
 * (4) When the service stops the client is told by GOAWAY; the link ends when no call is left. */
#include "server/connection2.h"

#include "server/stream.h"

#include <stdlib.h>

struct connection2 {
    struct stream_owner owner; /* first: the session's context */
    const struct protocol *former; /* frees the link */
    uint64_t heard_at, asked_at; /* uv_now (2) */
    uint64_t idle_since;         /* (3) */
    bool asked;
};

static struct connection2 *connection_of(struct link *link)
{
    return link->state;
}

static const struct http2_handler handler = {
    .open = stream_open,
    .header = stream_header,
    .head = stream_head,
    .data = stream_data,
    .ended = stream_ended,
    .output = stream_output,
    .sent = stream_sent,
    .trailers = stream_trailers,
    .closed = stream_closed,
};

static void receive(struct link *link, deed_bytes in)
{
    struct connection2 *c = connection_of(link);
    c->heard_at = uv_now(link->service->loop);
    c->asked = false;
    if (!http2_receive(c->owner.session, in)) {
        link_close(link);
        return;
    }
    link_mark(link);
}

static void on_input(struct link *link, deed_bytes in)
{
    if (!link->lingering) receive(link, in);
}

/* HTTP/2 has no half-closed connections: whoever closes one side has gone. */
static void on_eof(struct link *link)
{
    link_close(link);
}

static void on_settle(struct link *link)
{
    struct connection2 *c = connection_of(link);
    struct http2 *session = c->owner.session;
    size_t room = link->service->limits.write_size_max; /* (1) */
    if (link->lingering) return;
    size_t before;
    do {
        before = link->out.len;
        if (!http2_send(session, &link->out, room)) {
            link_close(link);
            return;
        }
        streams_feed(&c->owner);
    } while (link->out.len > before && link->out.len < room && http2_has_output(session));
    link_flush(link);
    if (link->closing || link->writing) return;
    bool stops = link->service->stopping && http2_stream_count(session) == 0;
    if (http2_over(session) || (stops && !http2_has_output(session))) {
        link_end(link); /* (4) */
    } else if (link->out.len == 0 && before > 0 && http2_has_output(session)) {
        link_mark(link); /* the kernel has taken all, and there is more */
    }
}

/* (2) */
static void check_alive(struct link *link, uint64_t now)
{
    struct connection2 *c = connection_of(link);
    const struct service_limits *limits = &link->service->limits;
    if (limits->keepalive_interval_ms == 0) return;
    if (c->asked) {
        if (now - c->asked_at < limits->keepalive_timeout_ms) return;
        traffic_add(link->service->traffic, TRAFFIC_TIMEOUTS, 1);
        link_close(link);
    } else if (now - c->heard_at >= limits->keepalive_interval_ms) {
        c->asked = true;
        c->asked_at = now;
        http2_ping(c->owner.session);
        link_mark(link);
    }
}

/* (3) */
static void check_idle(struct link *link, uint64_t now)
{
    struct connection2 *c = connection_of(link);
    const struct service *service = link->service;
    if (http2_stream_count(c->owner.session) > 0) c->idle_since = now;
    if (service->connection_count < service->limits.connection_count_max / 4 * 3) return;
    if (now - c->idle_since < service->limits.idle_timeout_ms) return;
    http2_goaway(c->owner.session, HTTP2_NO_ERROR);
    link_mark(link);
}

static void on_tick(struct link *link, uint64_t now)
{
    streams_tick(&connection_of(link)->owner);
    check_alive(link, now);
    if (!link->closing) check_idle(link, now);
}

static void on_stop(struct link *link)
{
    struct connection2 *c = connection_of(link);
    http2_goaway(c->owner.session, HTTP2_NO_ERROR);
    streams_stop(&c->owner);
}

static void on_closing(struct link *link)
{
    struct connection2 *c = connection_of(link);
    http2_destroy(c->owner.session);
    c->owner.session = NULL;
}

static void on_closed(struct link *link)
{
    struct connection2 *c = connection_of(link);
    const struct protocol *former = c->former;
    free(c);
    former->closed(link);
}

static const struct protocol http2_protocol = {
    .input = on_input,
    .eof = on_eof,
    .settle = on_settle,
    .tick = on_tick,
    .stop = on_stop,
    .closing = on_closing,
    .closed = on_closed,
};

void connection2_begin(struct link *link, deed_bytes rest)
{
    struct service *service = link->service;
    struct connection2 *c = calloc(1, sizeof *c);
    struct http2_limits limits = {.stream_count_max = service->limits.call_count_max,
                                  .head_size_max = (uint32_t)service->limits.head_size_max};
    if (c == NULL || http2_create(&limits, &handler, c, &c->owner.session, NULL) != DEED_OK) {
        free(c);
        link_close(link);
        return;
    }
    c->owner.service = service;
    c->owner.link = link;
    c->idle_since = uv_now(service->loop);
    c->former = link->protocol;
    link->protocol = &http2_protocol;
    link->state = c;
    receive(link, (deed_bytes){(const uint8_t *)HTTP2_PREFACE, HTTP2_PREFACE_SIZE});
    if (!link->closing && rest.len > 0) receive(link, rest);
    if (!link->closing && service->stopping) on_stop(link);
}
