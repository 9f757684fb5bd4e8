/* postings.h - the positions of one term, looked up in a view.
 *
 * What a term has lies in several runs, some of them in files: whatever asks may read, and says by
 * its status when it could not. A run is looked at when an answer needs it, the newest first
 * wherever that answers sooner, and those that end before the position asked about never.
 *
 *   DEED_NO_MEMORY
 *   DEED_BUSY  a part of the index is damaged, and being built again from the log.
 *   DEED_IO
 *
 * The ordinal of a position in its list (of a stream: the revision) never changes, whatever runs are
 * written, merged or made again, but for one case: positions that damage took from the log, and that
 * a run held that had to be made again after that, are in the list no more; of a stream they keep
 * their places, of other terms they do not.
 *
 * `end` is the last position that counts: the published one, or UINT64_MAX for the writer. */
#ifndef INDEX_POSTINGS_H
#define INDEX_POSTINGS_H

#include "base/arena.h"
#include "index/term.h"

struct postings_part;

/* Private. In the caller's memory; has nothing to give back, what it needs comes from the arena. */
struct postings {
    const struct index_view *view; /* NULL: not opened, nothing has it */
    struct arena *arena;
    struct index_term term;
    struct postings_part **parts; /* by run; NULL: not looked at yet */
    uint64_t next_from, next;     /* after positions [next_from, next) comes next */
    size_t at_run;                /* not a stream's: the run looked at last for an ordinal, */
    uint64_t at_before;           /* and how many positions the runs before it have */
};

/* The term's bytes are borrowed, as the view and the arena are, for as long as it is used. */
void postings_open(struct postings *p, const struct index_view *view, enum index_kind kind,
                   deed_str term, struct arena *arena);
void postings_open_id(struct postings *p, const struct index_view *view, deed_str stream,
                      const deed_uuid *id, struct arena *arena);
void postings_open_term(struct postings *p, const struct index_view *view,
                        const struct index_term *term, struct arena *arena);

/* A term to be looked up in any view of the index: its hash is computed once. */
struct index_term index_term_of(const struct index_view *view, enum index_kind kind, deed_str term);
struct index_term index_term_of_id(const struct index_view *view, deed_str stream,
                                   const deed_uuid *id);
/* It will be looked up soon: have the memory that says whether it is there come near. */
void index_prefetch(const struct index_view *view, const struct index_term *term);

/* Of a term that one event has (an id, a key): its position, if it is at or below `end`; 0: none.
 * As cheap as it can be when there is none: no memory, and mostly no read. */
DEED_MUST_CHECK deed_status postings_single(const struct index_view *view,
                                            const struct index_term *term, uint64_t end,
                                            uint64_t *out_position, struct deed_error *err);

/* How many positions are at or below `end`. Of a stream, that is its next revision there, and costs
 * a look into the newest run that has it. */
DEED_MUST_CHECK deed_status postings_count(struct postings *p, uint64_t end, uint64_t *out_count,
                                           struct deed_error *err);
/* The position of an ordinal, from 0 and below postings_count; of a stream that is a revision. Costs
 * a look into the run that has it; into all before it at the first call, unless it is a stream's. */
DEED_MUST_CHECK deed_status postings_at(struct postings *p, uint64_t ordinal,
                                        uint64_t *out_position, struct deed_error *err);
/* The newest position at or below `end`; 0: none. */
DEED_MUST_CHECK deed_status postings_last(struct postings *p, uint64_t end, uint64_t *out_position,
                                          struct deed_error *err);
/* The first position after `after` and at or below `end`; 0: none. */
DEED_MUST_CHECK deed_status postings_next(struct postings *p, uint64_t after, uint64_t end,
                                          uint64_t *out_position, struct deed_error *err);
DEED_MUST_CHECK deed_status postings_contains(struct postings *p, uint64_t position, bool *out_there,
                                              struct deed_error *err);

#endif
