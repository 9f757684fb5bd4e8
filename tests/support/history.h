/* history.h - what clients of a store did and saw, and whether a serial store could have answered so.
 *
 *     struct history h;
 *     history_init(&h);
 *     … history_add_…: requests, attempts to append them, reads, and in the end the log …
 *     if (!history_check(&h, message, sizeof message)) puts(message);
 *     history_done(&h);
 *
 * The log is the version order, so nothing is searched: every answer is compared with the one log,
 * in O(n log n). Streams, types and tags are small numbers here; who records a history maps names
 * to them. All times are of one clock. Without memory it ends the process.
 *
 * What is checked, with "before" meaning that one had its answer when the other was sent:
 *
 * (1) Positions and each stream's revisions have no gaps. Every event belongs to a request, with
 *     its content; a request's events stand together, all of them, once.
 * (2) At its place in the log a request's conditions held.
 * (3) An acknowledged attempt names its request's place. One attempt stored it; all others say
 *     that they repeat. A request is in the log only if an attempt was acknowledged or unknown.
 * (4) A refusal names an event of another request that is in the log, was sent before the answer,
 *     and breaks the condition; for a stream, its newest event as of some moment between question and answer.
 * (5) What was known before a request was first sent stands before it in the log. Known is what was
 *     acknowledged, read, or named by a refusal.
 * (6) A read gives its matching events from where it began without a gap, with their content, at
 *     least to what was known before it. */
#ifndef TESTS_SUPPORT_HISTORY_H
#define TESTS_SUPPORT_HISTORY_H

#include "deedbook.h"

struct history_write {
    uint32_t stream, type; /* a type is below 64 */
    uint64_t tags;         /* a bit each */
};

/* As deed_query_item: any of the types (0: every), all of the tags. */
struct history_item {
    uint64_t types, tags;
};

/* Slices of the history's own arrays: from, count. */
struct history_slice {
    size_t from, count;
};

struct history_condition {
    enum deed_condition_kind kind;
    uint32_t stream;
    enum deed_expect expect;
    uint64_t revision, after;
    struct history_slice items;
};

/* What is to be stored once, however often it is sent. */
struct history_request {
    uint64_t id;
    struct history_slice writes, conditions;
};

enum history_outcome { HISTORY_OK, HISTORY_REFUSED, HISTORY_UNKNOWN };

struct history_append {
    uint64_t request;
    uint64_t invoked, completed; /* HISTORY_UNKNOWN: completed has no meaning */
    uint32_t client;
    enum history_outcome outcome;
    bool repeated;                  /* HISTORY_OK */
    uint64_t first, last, revision; /* HISTORY_OK: positions, the last event's revision */
    uint64_t condition;             /* HISTORY_REFUSED: which one */
    uint64_t position;              /* and by which event; DEED_NONE: the stream has none */
};

struct history_seen {
    uint64_t position, request;
    uint32_t part; /* which of the request's events */
};

struct history_read {
    uint64_t invoked, completed;
    uint64_t after; /* exclusive */
    uint64_t to;    /* it says it has seen all up to here; 0: it does not say */
    uint32_t client;
    bool limited; /* it stopped by its limit, not at the end */
    bool by_stream;
    uint32_t stream;
    struct history_item filter;
    struct history_slice seen;
};

struct history_event {
    uint64_t position, revision, request;
    uint32_t part, stream, type;
    uint64_t tags;
};

#define HISTORY_LIST(type)                                                                         \
    struct {                                                                                       \
        type *at;                                                                                  \
        size_t count, room;                                                                        \
    }

struct history {
    HISTORY_LIST(struct history_request) requests;
    HISTORY_LIST(struct history_write) writes;
    HISTORY_LIST(struct history_condition) conditions;
    HISTORY_LIST(struct history_item) items;
    HISTORY_LIST(struct history_append) appends;
    HISTORY_LIST(struct history_read) reads;
    HISTORY_LIST(struct history_seen) seen;
    HISTORY_LIST(struct history_event) log; /* in the order of the log */
};

void history_init(struct history *h);
void history_done(struct history *h);

/* Begin a request; its writes and conditions follow, each condition followed by its items. */
void history_add_request(struct history *h, uint64_t id);
void history_add_write(struct history *h, struct history_write write);
void history_add_condition(struct history *h, struct history_condition condition);
void history_add_item(struct history *h, struct history_item item);

void history_add_append(struct history *h, struct history_append append);
/* Begin a read; what it saw follows. */
void history_add_read(struct history *h, struct history_read read);
void history_add_seen(struct history *h, struct history_seen seen);
void history_add_event(struct history *h, struct history_event event);

/* Add what another client recorded; a request with a known id is the known one. */
void history_add_all(struct history *h, const struct history *other);

/* Read a history in words, one thing a line ("#" begins a comment):
 *
 *     request ID                  write STREAM TYPE TAGS
 *     stream STREAM none|exists|REVISION      nomatch AFTER TYPES:TAGS...
 *     append REQUEST CLIENT INVOKED COMPLETED ok|again FIRST LAST REVISION
 *     append REQUEST CLIENT INVOKED COMPLETED refused CONDITION POSITION|-
 *     append REQUEST CLIENT INVOKED - unknown
 *     read CLIENT INVOKED COMPLETED AFTER TO STREAM|- TYPES:TAGS end|limit POSITION=REQUEST.PART...
 *     log POSITION REVISION REQUEST PART STREAM TYPE TAGS
 *
 * TYPES and TAGS are masks in hexadecimal. false: `message` names the line that is malformed. */
DEED_MUST_CHECK bool history_parse(struct history *h, const char *text, char *message, size_t size);

/* false: `message` names the operations that no serial store could have answered. */
DEED_MUST_CHECK bool history_check(const struct history *h, char *message, size_t size);

#endif
