/* memory_run.h - the run of one segment in memory: a table of terms with lists of positions.
 *
 * One writer adds; any number of readers look up, without locks. Lists are valid until the run is
 * destroyed. */
#ifndef INDEX_MEMORY_RUN_H
#define INDEX_MEMORY_RUN_H

#include "index/term.h"

struct memory_run;
struct memory_list; /* the positions of one term */

/* `terms` is about how many terms there will be: the table need not grow then. NULL: out of
 * memory. */
struct memory_run *memory_run_create(uint64_t terms);
void memory_run_destroy(struct memory_run *run); /* accepts NULL; no reader may be left */

/* ---- the writer ----------------------------------------------------------------------------- */

/* Add a position, not below the term's last (equal ones stand for events that were lost). `base`
 * counts when the list is empty: the ordinal of its first position. false: out of memory, nothing
 * changed. */
bool memory_run_add(struct memory_run *run, const struct index_term *term, uint64_t position,
                    uint64_t base);
/* Take back the term's last position, which must be `position` and unpublished. */
void memory_run_remove(struct memory_run *run, const struct index_term *term, uint64_t position);

/* ---- readers -------------------------------------------------------------------------------- */

/* NULL: no event has the term. A list may be empty: what was added was taken back. */
const struct memory_list *memory_run_find(const struct memory_run *run,
                                          const struct index_term *term);

/* That hash will be looked for soon. */
void memory_run_prefetch(const struct memory_run *run, uint64_t hash);

/* How many of the list's positions are at or below `end`. Accepts NULL: 0. */
uint64_t memory_list_count(const struct memory_list *list, uint64_t end);
/* The ordinal of the first one; when there is one. */
uint64_t memory_list_base(const struct memory_list *list);
/* The i-th, below a count from memory_list_count. */
uint64_t memory_list_at(const struct memory_list *list, uint64_t i);
/* How many positions are at or below `position`: the index of the first one after it. `hint` is an
 * index near which to look first (0 is always right). */
uint64_t memory_list_after(const struct memory_list *list, uint64_t position, uint64_t end,
                           uint64_t hint);

uint64_t memory_run_term_count(const struct memory_run *run);
uint64_t memory_run_size(const struct memory_run *run); /* bytes of memory, about */

/* ---- writing it down, when nobody adds any more --------------------------------------------- */

uint64_t memory_list_hash(const struct memory_list *list);
enum index_kind memory_list_kind(const struct memory_list *list);
deed_bytes memory_list_term(const struct memory_list *list);

/* Every list that has positions, in order of (hash, kind, term), in malloc'd memory that the caller
 * frees. NULL: out of memory. */
const struct memory_list **memory_run_sorted(const struct memory_run *run, uint64_t *out_count);

#endif
