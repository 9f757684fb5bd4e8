/* call.h - one request on its way through its route: what was asked.
 *
 * The getters never fail on their own: the first that finds something wrong writes the error, every
 * later one yields nothing, and the handler asks once:
 *
 *     uint64_t limit = call_number(c, "limit", 1, 10000, 1000);
 *     bool follow = call_flag(c, "follow", false);
 *     if (c->status != DEED_OK) return call_fail(c);       (reply.h)
 *
 * A call lives in its exchange's arena: until the response has been sent. */
#ifndef API_CALL_H
#define API_CALL_H

#include "api/cloudevent.h"
#include "api/routes.h"
#include "json/json.h"
#include "store/store.h"

#include <assert.h>
#include <stdatomic.h>

struct group_sessions;

struct api {
    struct api_parts parts;
    struct group_sessions *sessions; /* NULL: no groups */
    deed_uuid log_id;
    deed_uuid instance; /* random: of this run of the server */
    uint64_t epoch;
    struct cloudevent_source source;
    char log_name[9]; /* the first eight digits of the log's id, for tokens */
    char log_header[64];
    _Atomic uint32_t waiting; /* queries with after= that hold a thread */
    _Atomic uint64_t gathered; /* bytes of gRPC appends on their way: see grpc_write.h */
};

struct call_value {
    deed_str name, value; /* decoded */
    deed_str raw;         /* "name=value" as it was sent */
};

struct call {
    struct api *api;
    struct api_exchange *x;
    struct arena *arena;
    const struct api_route *route;
    deed_str segments[ROUTE_SEGMENTS_MAX]; /* decoded */
    struct call_value *values;             /* of the query string */
    size_t value_count;
    bool brief;    /* on the loop's thread: see call_give_up */
    bool given_up; /* the answer will not be sent */
    deed_status status; /* the first failure */
    int http;           /* to answer it with, where the status's own does not say it; else 0 */
    struct deed_error err;
};

/* Split and decode path and query, and refuse what the route does not take. NULL: no memory. */
struct call *call_create(struct api *api, struct api_exchange *x);

/* Remember a failure, unless there is one already. */
void call_wrong(struct call *c, deed_status status, const char *format, ...) DEED_PRINTF(3, 4);

/* What a brief call may take: beyond, the connections of the loop would wait for this one. */
#define BRIEF_EVENTS_MAX 64
#define BRIEF_SIZE       ((size_t)64 << 10)  /* of the answer */
#define BRIEF_READ_SIZE  ((size_t)512 << 10) /* of the log; an event is read with its commit */

/* This call is brief and turns out to be long: what comes of it is thrown away, and it is made again
 * on a pool thread. The handler still has to end it. */
static inline void call_give_up(struct call *c)
{
    assert(c->brief);
    c->given_up = true;
}

/* ---- parameters: of the route's table, or it is our bug -------------------------------------- */

deed_str call_text(struct call *c, const char *name); /* ptr NULL: not given */
bool call_given(struct call *c, const char *name);
uint64_t call_number(struct call *c, const char *name, uint64_t min, uint64_t max,
                     uint64_t fallback);
bool call_flag(struct call *c, const char *name, bool fallback);
/* `*out_given` may be NULL. */
int64_t call_time(struct call *c, const char *name, bool *out_given);
/* A position, bare or in a token of this log. */
uint64_t call_position(struct call *c, const char *name, uint64_t fallback);
/* A revision, bare or in a token of this log. */
uint64_t call_revision(struct call *c, const char *name, uint64_t fallback);
uint32_t call_duration_ms(struct call *c, const char *name, uint32_t max, uint32_t fallback);
/* Index of the choice in the parameter's `choices`. */
size_t call_choice(struct call *c, const char *name, size_t fallback);
size_t call_list(struct call *c, const char *name, const deed_str **out_list);
void call_expected(struct call *c, const char *name, enum deed_expect *out_expect,
                   uint64_t *out_revision);

/* ---- headers ------------------------------------------------------------------------------ */

/* A header that may be there once. ptr NULL: it is not. Longer than size_max, or not UTF-8: wrong.
 */
deed_str call_header(struct call *c, const char *name, size_t size_max);
/* If-Match: "5" or If-None-Match: *, as an expectation. false: neither is there. */
bool call_if_match(struct call *c, enum deed_expect *out_expect, uint64_t *out_revision);
/* With or without quotes around it. */
deed_str call_idempotency_key(struct call *c);
/* Deedbook-Actor, Deedbook-Correlation-Id, Deedbook-Causation-Id. */
struct call_origin {
    deed_str actor, correlation_id, causation_id;
};
struct call_origin call_origin(struct call *c);

/* The index of the media type to answer with, of `count` offers in our order of preference. None
 * acceptable: wrong, with 406. */
size_t call_accept(struct call *c, const char *const *offers, size_t count);
/* The index of the body's media type in the route's body_types; none is the first. Another type,
 * charset or encoding: wrong, with 415. */
size_t call_content_type(struct call *c);

/* Does a browser send this from another site's page? Then it is wrong, with 403. */
bool call_from_elsewhere(struct call *c);

/* ---- small texts ---------------------------------------------------------------------------- */

deed_str str_trim(deed_str s); /* spaces and tabs */
/* Percent-decoding into the arena; '+' is a space in a query. false: the message says what. */
bool percent_decode(struct arena *arena, deed_str raw, bool plus, deed_str *out, const char **what);

#endif
