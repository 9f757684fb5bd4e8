/* api.h - the HTTP API without sockets: a request comes in, a response goes out.
 *
 * The server owns connections and threads; the api owns routes. For each request the server fills
 * an exchange, asks api_route where it must run, and runs it there with api_run. The response is
 * ready when the exchange's `finish` has been called: at once, or later from another thread (an
 * append answers from the committer's). */
#ifndef API_API_H
#define API_API_H

#include "base/arena.h"
#include "base/buf.h"
#include "base/error.h"

struct store;
struct executor;
struct projections;
struct queries;
struct backups;
struct groups;
struct api;

struct api_header {
    deed_str name, value; /* request: as it came; compare names without case */
};

struct api_request {
    deed_str method;
    deed_str path;  /* as sent, percent-encoded, without the query */
    deed_str query; /* as sent, without '?'; may be empty */
    const struct api_header *headers;
    size_t header_count;
    deed_bytes body; /* whole */
    deed_str peer;   /* "127.0.0.1:5000" */
    bool head;       /* a HEAD request: routed as GET, the server drops the body */
};

/* A body that is made while it is sent. */
enum api_pull {
    API_MORE, /* call again when there is room */
    API_WAIT, /* nothing now: call again when the log has grown, or after wait_ms at the latest */
    API_END,
    API_FAILED, /* cannot go on: close the connection, so that the client sees it is cut short */
    API_LATER,  /* of a glance only: it would take long, nothing was added; pull on a pool thread */
};
struct api_source {
    /* Append up to about size_wanted bytes to `out`. Runs on a pool thread, never twice at once. One
     * event is never cut, so `out` must take the largest whole (event_size_max, 4/3 of it in base64,
     * or twice where metadata is quoted): 64 MiB is enough. What does not fit is API_FAILED. */
    enum api_pull (*pull)(struct api_source *source, struct buf *out, size_t size_wanted);
    void (*close)(struct api_source *source); /* always called once; from a pool or loop thread */
    uint32_t wait_ms;                         /* with API_WAIT */
    /* As pull, but quick and from memory, on the loop's thread: what was just committed reaches its
     * followers without a switch of threads. NULL: always pull. */
    enum api_pull (*glance)(struct api_source *source, struct buf *out, size_t size_wanted);
};

#define API_RESPONSE_HEADERS_MAX 12
struct api_response {
    int status;
    struct api_header headers[API_RESPONSE_HEADERS_MAX]; /* without length, date, connection */
    size_t header_count;
    struct buf body;           /* used unless `source` is set */
    struct api_source *source; /* owned by the response */
};

enum api_where {
    API_INLINE, /* quick and never blocks: the loop's own thread */
    API_BRIEF,  /* mostly quick and from memory: the loop's own thread tries it with api_try, and if
                 * that gives up, a pool thread runs it */
    API_POOL,   /* may read the disk: a pool thread */
    API_PATIENT, /* may take long or wait for others (queries): a pool of its own, so that the
                  * patient do not hold up the quick */
};

struct api_route;

/* Owned by the server; everything in it must stay until `finish` was called and the response
 * sent. `arena` belongs to the exchange: handlers allocate from it. */
struct api_exchange {
    struct api_request request;
    struct api_response response;
    struct arena *arena;
    bool alone; /* nobody else has asked for anything of late: it may hold its thread for a sync */
    const struct api_route *route;          /* set by api_route */
    void (*finish)(struct api_exchange *x); /* set by the server; from any thread, once */
    void *server;                           /* the server's own */
};

struct api_parts {
    struct store *store;
    struct executor *executor;       /* NULL: no domain */
    struct projections *projections; /* NULL: none */
    struct queries *queries;         /* NULL: none */
    struct backups *backups;         /* NULL: none are made */
    struct groups *groups;           /* NULL: no consumer groups */
    uint32_t wait_timeout_ms;        /* default for `timeout=`; 0: 10,000 */
    uint32_t wait_count_max;         /* queries with after= at once, each holds a thread; 0: any */
    uint32_t read_limit_max;         /* events in one JSON array without follow; 0: 10,000 */
    /* Append the server's own metrics (connections, requests by route and status) to /metrics. */
    void (*metrics)(void *context, struct buf *out);
    bool (*ready)(void *context); /* false while shutting down; NULL: always */
    /* From any thread: pull sources that wait, as when the log has grown. NULL: they look by themselves,
     * every second. */
    void (*nudge)(void *context);
    void (*stop)(void *context);  /* end the server, as a signal would; NULL: clients may not */
    /* Where clients are told to find this server. NULL or "", and 0: where they found it. The text
     * must stay. */
    const char *advertise_host;
    uint16_t advertise_port;
    void *context;
};

DEED_MUST_CHECK deed_status api_create(const struct api_parts *parts, struct api **out_api,
                                       struct deed_error *err);
void api_destroy(struct api *api); /* accepts NULL */
/* Let go of the groups' consumers that came by HTTP: before groups_close, when no request is left. */
void api_leave_groups(struct api *api); /* accepts NULL */

/* Find the route (also one that answers 404 or 405) and say where it runs. */
enum api_where api_route(struct api *api, struct api_exchange *x);
/* Make the response; x->finish is called exactly once, maybe before this returns. */
void api_run(struct api *api, struct api_exchange *x);
/* For API_BRIEF: make the response if that takes neither the disk nor long (a few dozen events).
 * false: nothing has happened, x->finish was not called, and api_run is to be called elsewhere. */
bool api_try(struct api *api, struct api_exchange *x);
/* Does this ask how the server is (health, readiness, metrics)? It costs little, and is asked most when
 * there is too much of everything else: it is answered then, too. */
bool api_is_care(deed_str method, deed_str path);
/* The route's pattern, "/streams/{stream}", for metrics. */
const char *api_route_name(const struct api_route *route);

/* A problem+json response (RFC 9457) for trouble that the server itself finds: too large,
 * malformed, queue full. */
void api_problem(struct api_exchange *x, int status, const struct deed_error *err);

#endif
