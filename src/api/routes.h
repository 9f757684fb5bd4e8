/* routes.h - the table of routes: what the router matches, what openapi.json says, what a handler
 * may ask for. There is one table, so that the three cannot differ. */
#ifndef API_ROUTES_H
#define API_ROUTES_H

#include "api/api.h"

struct call;

enum parameter_in { IN_PATH, IN_QUERY, IN_HEADER };

enum parameter_kind {
    KIND_TEXT,
    KIND_NUMBER,   /* a whole number from 0 */
    KIND_FLAG,     /* true, false, or nothing behind the name: true */
    KIND_TIME,     /* RFC 3339 */
    KIND_POSITION, /* a whole number, or a token (token.h) */
    KIND_DURATION, /* milliseconds: "1500", "1500ms", "2s" */
    KIND_CHOICE,   /* one of `choices` */
    KIND_EXPECTED, /* any, none, exists, or a revision */
};

struct route_parameter {
    const char *name;
    enum parameter_in in;
    enum parameter_kind kind;
    bool is_list;        /* may be given many times */
    const char *choices; /* "forwards|backwards" */
    const char *text;
};

struct route_reply {
    int status;
    const char *type;   /* media type; NULL: no body; problems are application/problem+json */
    const char *schema; /* name in openapi.json's components, or NULL */
    bool is_array;      /* of that schema */
    const char *text;
};

#define ROUTE_BODY_TYPES_MAX 4
#define ROUTE_REPLIES_MAX    16

struct api_route {
    const char *method;  /* GET answers HEAD too; OPTIONS is answered for every path */
    const char *pattern; /* "/streams/{stream}" */
    const char *name;    /* OpenAPI's operationId */
    const char *summary;
    void (*handle)(struct call *c);
    enum api_where where;
    bool care;                                /* see api_is_care */
    const struct route_parameter *parameters; /* ends with a name of NULL */
    bool free_parameters;                     /* any other query parameter is the query's own */
    const char *body_schema;                  /* NULL: takes no body */
    bool body_array;                          /* one of it, or an array of it */
    const char *body_types[ROUTE_BODY_TYPES_MAX];
    struct route_reply replies[ROUTE_REPLIES_MAX]; /* ends with a status of 0 */
};

extern const struct api_route api_routes[];
extern const size_t api_route_count;

/* What answers when none of the table does. */
extern const struct api_route route_not_found, route_not_allowed, route_options;

/* Does the path, as sent, fit the pattern? `segments` gets the raw text of each {name}. */
#define ROUTE_SEGMENTS_MAX 2
bool route_matches(const char *pattern, deed_str path, deed_str segments[ROUTE_SEGMENTS_MAX]);

/* "GET, HEAD, OPTIONS, POST": what may be asked of a path; empty if there is no such path. */
void routes_allow(deed_str path, struct buf *out);

/* ---- handlers, one file for each folder of the API ------------------------------------------- */

void stream_get(struct call *c);
void stream_post(struct call *c);
void stream_delete(struct call *c);
void stream_metadata_get(struct call *c);
void stream_metadata_post(struct call *c);
void stream_erase(struct call *c);
void compaction_get(struct call *c);
void compaction_post(struct call *c);
void stream_state(struct call *c);
void stream_explain(struct call *c);
void append_post(struct call *c);
void events_get(struct call *c);
void commands_list(struct call *c);
void command_post(struct call *c);
void queries_list_get(struct call *c);
void query_get(struct call *c);
void projections_list_get(struct call *c);
void projection_get(struct call *c);
void projection_rebuild(struct call *c);
void projection_pause(struct call *c);
void projection_resume(struct call *c);
void backup_get(struct call *c);
void backup_post(struct call *c);
void groups_list_get(struct call *c);
void groups_source_get(struct call *c);
void group_get(struct call *c);
void group_put(struct call *c);
void group_delete(struct call *c);
void group_take(struct call *c);
void group_events(struct call *c);
void group_ack(struct call *c);
void group_nack_post(struct call *c);
void group_parked_get(struct call *c);
void group_parked_replay(struct call *c);
void group_parked_delete(struct call *c);
void index_get(struct call *c);
void healthz_get(struct call *c);
void readyz_get(struct call *c);
void metrics_get(struct call *c);
void openapi_get(struct call *c);

#endif
