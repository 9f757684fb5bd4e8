/* event_filter.h - which events of the log a gRPC reader wants: by the beginning of their stream's or
 * type's name, or by a regular expression over it.
 *
 * Expressions are searched for anywhere in the name unless they anchor, with what clients use of .NET's
 * flavour (lookahead, \d, \uXXXX). One that takes too many steps on a name ends in an error: an event that
 * could not be decided is neither delivered nor left out silently. */
#ifndef API_EVENT_FILTER_H
#define API_EVENT_FILTER_H

#include "base/arena.h"
#include "base/error.h"

enum event_filter_subject { EVENT_FILTER_STREAM, EVENT_FILTER_TYPE };

#define EVENT_FILTER_REGEX_SIZE_MAX   4096
#define EVENT_FILTER_PREFIX_COUNT_MAX 1024

struct event_filter_options {
    enum event_filter_subject subject;
    deed_str regex; /* if not empty, it decides alone */
    const deed_str *prefixes; /* any of them */
    size_t prefix_count;
};

struct event_filter;

/* What `options` says is copied into the arena, which must outlive the filter.
 *
 *   DEED_INVALID    the expression is malformed, or there is neither expression nor prefix.
 *   DEED_TOO_LARGE  it is longer than the limit, or too large when compiled; or too many prefixes.
 *   DEED_NO_MEMORY */
DEED_MUST_CHECK deed_status event_filter_create(const struct event_filter_options *options,
                                                struct arena *arena,
                                                struct event_filter **out_filter,
                                                struct deed_error *err);
void event_filter_destroy(struct event_filter *filter); /* accepts NULL; not the arena's part */

/* Does the event, of which only stream and type are looked at, match? One thread at a time.
 *
 *   DEED_TOO_LARGE  the expression takes too many steps to tell. DEED_NO_MEMORY. */
DEED_MUST_CHECK deed_status event_filter_match(struct event_filter *filter,
                                               const struct deed_event *event, bool *out_matches,
                                               struct deed_error *err);

/* Have the store read less, where what is asked for is some streams, types or categories of the index:
 * sets lists of `read` that every match is in. What is read must be matched all the same. The lists are
 * the filter's own. false: every event must be looked at, and nothing was set. */
bool event_filter_narrow(const struct event_filter *filter, struct deed_filter *read);

#endif
