/* index.h - one inverted index: term -> ascending positions.
 *
 * A stream is a term, and so are a type, a category, a tag, a correlation id, an event's id in its
 * stream, an idempotency key. Reading and conditions are intersections and unions of these lists.
 *
 * One writer adds; any number of readers look up, without locks. A list may hold positions that
 * are not published yet: a reader passes the published end and sees nothing behind it.
 *
 * Held in memory and rebuilt when the log is opened. */
#ifndef INDEX_INDEX_H
#define INDEX_INDEX_H

#include "base/error.h"

enum index_kind {
    INDEX_STREAM,
    INDEX_CATEGORY,
    INDEX_TYPE,
    INDEX_TAG,
    INDEX_CORRELATION,
    INDEX_EVENT_ID, /* term: 16 bytes of id, then the stream's name (index_event_id) */
    INDEX_KEY,
    INDEX_SYSTEM, /* the empty term: events of streams whose name begins with '$' */
    INDEX_KIND_COUNT
};

struct index;
struct index_list; /* the positions of one term; stays valid until index_destroy */

struct index *index_create(uint64_t hash_seed); /* NULL: out of memory */
void index_destroy(struct index *index);        /* accepts NULL; no reader may be left */

/* ---- the writer ----------------------------------------------------------------------------- */

/* Add a position, not below the term's last (equal ones stand for events that were lost). false:
 * out of memory, nothing changed. */
bool index_add(struct index *index, enum index_kind kind, deed_bytes term, uint64_t position);

/* Take back the term's last position, which must be `position` and unpublished. */
void index_remove_last(struct index *index, enum index_kind kind, deed_bytes term,
                       uint64_t position);

/* ---- readers -------------------------------------------------------------------------------- */

/* The term's list; NULL: no event has it. */
const struct index_list *index_find(const struct index *index, enum index_kind kind,
                                    deed_bytes term);

/* How many of the list's positions are at or below `end`. Accepts NULL: 0. */
uint64_t index_count(const struct index_list *list, uint64_t end);
/* The i-th, below a count from index_count. */
uint64_t index_at(const struct index_list *list, uint64_t i);
/* How many positions are at or below `position`: the ordinal of the first one after it. `hint` is
 * an ordinal near which to look first (0 is always right). */
uint64_t index_after(const struct index_list *list, uint64_t position, uint64_t end, uint64_t hint);
bool index_contains(const struct index_list *list, uint64_t position);
/* The newest position at or below `end`; 0: none. Accepts NULL. */
uint64_t index_last(const struct index_list *list, uint64_t end);

/* How many terms of a kind there are. */
uint64_t index_term_count(const struct index *index, enum index_kind kind);

/* ---- terms of an event ---------------------------------------------------------------------- */

/* "order-1001" -> "order"; ptr NULL: a system stream, or one without '-'. */
deed_str index_category_of(deed_str stream);
bool index_is_system(deed_str stream);

/* What of an event is indexed; deed_event and deed_new_event both fill it. */
struct index_event {
    deed_str stream, type, correlation_id, key;
    const deed_str *tags;
    size_t tag_count;
    deed_uuid id;
    uint64_t position;
};
/* All terms of the event or none. */
bool index_add_event(struct index *index, const struct index_event *event);
/* The reverse, newest event first. */
void index_remove_event(struct index *index, const struct index_event *event);

const struct index_list *index_find_str(const struct index *index, enum index_kind kind,
                                        deed_str term);
const struct index_list *index_find_id(const struct index *index, deed_str stream, deed_uuid id);

#endif
