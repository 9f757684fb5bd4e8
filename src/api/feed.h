/* feed.h - events on their way out: a page, lines, Server-Sent Events, or whole commits.
 *
 *   page    one JSON array, made whole before it is sent: an error is a problem, never half an
 *           array. It ends early when it has grown large or taken long; a Link leads on.
 *   lines   NDJSON, an event a line; as many as there are, or as come (follow).
 *   SSE     the same as Server-Sent Events; each id is a token to go on from.
 *   log     the commits as they are stored, for replicas and tools.
 *
 * What is not a page is made in slices while it is sent. An error before the first event is a
 * problem; after it the body is cut short, so that nobody takes a part for the whole. */
#ifndef API_FEED_H
#define API_FEED_H

#include "api/call.h"

enum feed_format {
    FEED_PAGE,
    FEED_LINES,
    FEED_SSE,
    FEED_LOG,
};

struct feed_plan {
    struct deed_read_options read; /* its slices live as long as the call */
    enum feed_format format;
    const char *content_type;
    bool exact;     /* as CLOUDEVENT_EXACT */
    uint64_t limit; /* events; DEED_NONE: no limit */
};

/* Fill format, content_type, exact, limit and read.follow from Accept and the parameters limit,
 * follow and exact. Failures stay in the call. */
void feed_choose(struct call *c, bool with_log, struct feed_plan *plan);

/* Read and answer: ends the call. Headers that were put before go out with it, unless it fails. */
void feed_serve(struct call *c, const struct feed_plan *plan);

#endif
