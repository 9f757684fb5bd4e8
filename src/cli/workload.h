/* workload.h - what the clients of `deedbook bench` ask for, one whole HTTP request after another.
 *
 * What is written goes to streams of this run ("bench-<run>-<client>"), so that runs do not meet. */
#ifndef CLI_WORKLOAD_H
#define CLI_WORKLOAD_H

#include "base/buf.h"
#include "base/error.h"

/* X(NAME, name, help) */
#define WORKLOAD_MODE_MAP(X)                                                                       \
    X(APPEND, "append", "each client appends to a stream of its own (the default)")                \
    X(READ, "read", "GET /streams/{stream}, of streams that are written first")                    \
    X(COMMAND, "command", "CreateOrder of the orders example")                                     \
    X(CONDITION, "condition", "POST /append with one event, a tag and a condition, see --query")   \
    X(LIVE, "live", "one client appends, another follows: from send to delivery")                  \
    X(PING, "ping", "an empty request to --path")

enum workload_mode {
#define WORKLOAD_MODE_ENUM(name, text, help) WORKLOAD_##name,
    WORKLOAD_MODE_MAP(WORKLOAD_MODE_ENUM)
#undef WORKLOAD_MODE_ENUM
        WORKLOAD_MODE_COUNT
};
extern const char *const workload_mode_names[WORKLOAD_MODE_COUNT];

enum workload_query {
    WORKLOAD_NO_QUERY,    /* the stream is at a revision: what the others are compared with */
    WORKLOAD_QUERY_AFTER, /* no event of some types with the tag behind a position */
    WORKLOAD_QUERY_ALL,   /* nor anywhere in the log: types and tag must be intersected */
};

struct workload_options {
    enum workload_mode mode;
    uint64_t clients;
    uint64_t size;     /* bytes of one event's data */
    uint64_t batch;    /* append: events a request */
    bool expect;       /* append: each request says at which revision its stream must be */
    bool ids;          /* append: each event brings a random id */
    uint64_t streams;  /* read: how many there are to choose from */
    uint64_t per_read; /* read: events that one request asks for */
    uint64_t tags;     /* condition: tag-0, tag-1, … */
    enum workload_query query;
    uint64_t after;   /* condition: the position of WORKLOAD_QUERY_AFTER */
    bool post;        /* ping: POST instead of GET */
    const char *path; /* ping */
    const char *host; /* for the Host header */
};

struct workload;

/* The texts of `options` must stay. DEED_NO_MEMORY. */
DEED_MUST_CHECK deed_status workload_create(const struct workload_options *options, uint64_t seed,
                                            struct workload **out_workload, struct deed_error *err);
void workload_destroy(struct workload *workload); /* accepts NULL */

/* The client's `number`th request, whole, behind what `out` holds. A load_options.make. */
void workload_make(void *workload, unsigned client, uint64_t number, struct buf *out);

/* read: the requests that write what will be read, and how many of them there are: round after round
 * an event for each stream, as it would have come. A load_options.make as well. */
void workload_make_filling(void *workload, unsigned client, uint64_t number, struct buf *out);
uint64_t workload_filling_count(const struct workload *workload);

/* live: the stream that is written and the head of the request that follows it. */
void workload_make_following(const struct workload *workload, struct buf *out);

/* Exactly `size` bytes of JSON (at least WORKLOAD_SIZE_MIN), an order's line. Every measurement uses
 * it, those of peers too. */
#define WORKLOAD_SIZE_MIN 10
void workload_data(struct buf *out, uint64_t size);

#endif
