/* index.h - one inverted index: term -> ascending positions.
 *
 * A stream is a term, and so are a type, a category, a tag, a correlation id, an event's id in its
 * stream, an idempotency key. Reading and conditions are intersections and unions of these lists,
 * which postings.h looks up.
 *
 * The index is a row of runs, each over a range of positions, oldest first: those of closed
 * segments do not change any more, the last one is the active segment's and lies in memory. One
 * writer adds to that. Readers hold a view, an immutable picture of the row. A list may hold
 * positions that are not published yet: a reader passes the published end and sees nothing behind
 * it. It takes the end first and the view after it: then the view has all up to that end. */
#ifndef INDEX_INDEX_H
#define INDEX_INDEX_H

#include "base/error.h"

enum index_kind {
    INDEX_STREAM,
    INDEX_CATEGORY,
    INDEX_TYPE,
    INDEX_TAG,
    INDEX_CORRELATION,
    INDEX_EVENT_ID, /* term: 16 bytes of id, then the stream's name */
    INDEX_KEY,
    INDEX_SYSTEM, /* the empty term: events of streams whose name begins with '$' */
    INDEX_KIND_COUNT
};

struct index;
struct index_view;

struct index_options {
    uint64_t hash_seed;
    /* For tests: only these bits of the hash are left, so that different terms share one. 0: all. */
    uint64_t hash_mask;
};

struct index *index_create(const struct index_options *options); /* NULL: out of memory */
void index_destroy(struct index *index); /* accepts NULL; no view may be out */

/* ---- the writer ----------------------------------------------------------------------------- */

/* What of an event is indexed; deed_event and deed_new_event both fill it. `revision` is its place
 * in its stream: the number of the stream's events before it. */
struct index_event {
    deed_str stream, type, correlation_id, key;
    const deed_str *tags;
    size_t tag_count;
    deed_uuid id;
    uint64_t position, revision;
};
/* All terms of the event or none. Positions do not descend. DEED_NO_MEMORY. */
DEED_MUST_CHECK deed_status index_add_event(struct index *index, const struct index_event *event,
                                            struct deed_error *err);
/* The reverse, newest event first; only what is not published. */
void index_remove_event(struct index *index, const struct index_event *event);

/* A revision whose event was lost to damage keeps its place in the stream's list: its position is
 * one of the lost ones. DEED_NO_MEMORY. */
DEED_MUST_CHECK deed_status index_add_lost(struct index *index, deed_str stream, uint64_t revision,
                                           uint64_t position, struct deed_error *err);

/* From now on events are of segment `segment`: what was added until now, positions up to
 * `last_position`, is a run of its own that does not change any more. The first call (on an index
 * without events) only says which segment it is. Asking for the segment that is the active one
 * already does nothing. DEED_NO_MEMORY: nothing changed. */
DEED_MUST_CHECK deed_status index_roll(struct index *index, uint32_t segment,
                                       uint64_t last_position, struct deed_error *err);

/* The view that the writer works with: always the newest, its own additions included. Valid until
 * its next call of this or of index_roll; taken without a lock unless the row of runs changed. */
const struct index_view *index_writer_view(struct index *index);

/* What the active segment alone knows of a stream: the number of its events, lost ones included.
 * false: the active segment has none of it. */
bool index_active_count(struct index *index, deed_str stream, uint64_t *out_count);

/* ---- readers -------------------------------------------------------------------------------- */

const struct index_view *index_view_take(struct index *index);
void index_view_drop(const struct index_view *view); /* accepts NULL */
/* Changes when the row of runs does: time to take a newer view. Cheap. */
uint64_t index_generation(const struct index *index);
uint64_t index_view_generation(const struct index_view *view);
/* Runs in the view; the active one counts. */
size_t index_view_run_count(const struct index_view *view);

/* How many streams there are. */
uint64_t index_stream_count(const struct index *index);

/* ---- terms of an event ---------------------------------------------------------------------- */

/* "order-1001" -> "order"; ptr NULL: a system stream, or one without '-'. */
deed_str index_category_of(deed_str stream);
bool index_is_system(deed_str stream);

#endif
