/* server.h - the event loop: sockets on one side, the api on the other.
 *
 * One thread runs the loop and everything that does not wait; the api's handlers that read or wait
 * run on a pool. Limits keep every client's trouble its own: a slow reader, a slow writer, a flood.
 */
#ifndef SERVER_SERVER_H
#define SERVER_SERVER_H

#include "api/api.h"

struct server;

struct server_address {
    const char *host; /* a name or an IPv4 or IPv6 address */
    uint16_t port;    /* 0: a free one */
};

/* Zero means the default beside it. */
struct server_options {
    const struct server_address *addresses; /* none: 127.0.0.1:2113 */
    size_t address_count;
    uint32_t connection_count_max; /* 4,096 */
    uint32_t pipeline_count_max;   /* requests of one connection worked on at once: 64 */
    uint32_t call_count_max;       /* gRPC calls of one connection at once: 1,000 */
    uint32_t keepalive_interval_ms; /* 0: HTTP/2 connections are not asked whether they are there */
    uint32_t keepalive_timeout_ms; /* 10,000 */
    uint32_t pool_thread_max;      /* 16 */
    uint32_t patient_thread_max;   /* 128: for queries, which may wait */
    size_t head_size_max;          /* 16 KiB */
    size_t body_size_max;          /* 33 MiB */
    size_t write_size_max;         /* unsent bytes of one connection: 1 MiB */
    uint64_t in_flight_size_max;   /* bodies of all requests and answers: 256 MiB */
    uint32_t header_timeout_ms;    /* 10,000 */
    uint32_t idle_timeout_ms;      /* 60,000 */
    uint32_t write_timeout_ms;     /* 60,000 */
    uint32_t shutdown_grace_ms;    /* 10,000 */
    uint64_t body_rate_min;        /* bytes a second; 0: any */
    bool no_signals;               /* SIGTERM and SIGINT are the caller's; they mean server_stop */
    /* A line without newline, from the loop's thread; NULL: none. */
    void (*log)(void *context, const char *line);
    void *context;
};

/* Bind and listen. Connections wait until server_run.
 *
 *   DEED_LOCKED   the address is in use.
 *   DEED_INVALID  the address does not exist, or not here.
 *   DEED_IO, DEED_NO_MEMORY */
DEED_MUST_CHECK deed_status server_create(const struct server_options *options,
                                          struct server **out_server, struct deed_error *err);
void server_destroy(struct server *server); /* accepts NULL; not while it runs */

/* "http://127.0.0.1:2113", with the port that was taken; NULL past the last. */
const char *server_url(const struct server *server, size_t index);

/* Serve until SIGTERM, SIGINT or server_stop; then stop accepting, finish what was accepted for at
 * most the grace time (a second signal ends it), end streams that follow, and return. All exchanges
 * are finished when it returns, and signals that come later are ignored for good. */
DEED_MUST_CHECK deed_status server_run(struct server *server, struct api *api,
                                       struct deed_error *err);

/* From any thread, also before server_run. */
void server_stop(struct server *server);
/* The log has grown: streams at its end look again. From any thread; does not block. */
void server_log_grew(struct server *server);

/* For struct api_parts, with the server as context. From any thread. */
void server_metrics(void *server, struct buf *out);
bool server_ready(void *server);

/* What it did so far. */
struct server_report {
    uint64_t connections, requests, connections_cut; /* cut: still open at the end of the grace */
};
void server_get_report(const struct server *server, struct server_report *out_report);

#endif
