/* run_file.h - a run's file: find a term, read its positions.
 *
 * Everything is read through a block cache and checked when it is read. Safe from many threads. A
 * damaged block is DEED_BUSY to who asked, and is remembered: run_file_damaged says that the file
 * must be built again. DEED_IO is passed on; run_file_suspect says that it came.
 *
 *   DEED_BUSY  "the index of segments 1 to 8 is being rebuilt", or the device would have been waited
 *              for where that is not allowed (os_haste_begin).
 *   DEED_IO, DEED_NO_MEMORY */
#ifndef INDEX_RUN_FILE_H
#define INDEX_RUN_FILE_H

#include "index/run_format.h"
#include "os/os.h"

struct run_file;

/* Open the run of that name and check its footer and its size.
 *
 *   DEED_NOT_FOUND
 *   DEED_CORRUPT  it is no good run of that name: to be built again.
 *   DEED_TOO_NEW, DEED_IO, DEED_NO_MEMORY */
DEED_MUST_CHECK deed_status run_file_open(struct os_dir *dir, const char *name,
                                          struct block_cache *cache, struct run_file **out_run,
                                          struct deed_error *err);
void run_file_close(struct run_file *run); /* accepts NULL */

const struct run_footer *run_file_footer(const struct run_file *run);
bool run_file_damaged(const struct run_file *run);
/* An I/O error came since the last call. */
bool run_file_suspect(struct run_file *run);
void run_file_set_suspect(struct run_file *run);
void run_file_set_damaged(struct run_file *run);

/* Bring the filter into memory, as far as the cache's allowance has room: then a term that is not
 * there costs no read, mostly. false: no room; it is read through the cache as the rest is. */
DEED_MUST_CHECK deed_status run_file_load_filter(struct run_file *run, bool *out_loaded,
                                                 struct deed_error *err);
bool run_file_filter_loaded(const struct run_file *run);
/* The filter will be asked about the term soon. */
void run_file_prefetch(const struct run_file *run, uint64_t hash);

/* A term's entry. `few` are its positions if they are no more than RUN_INLINE_MAX. */
struct run_entry {
    uint64_t count, base, first, last;
    uint64_t few[RUN_INLINE_MAX];
    uint64_t data, skip;
    uint64_t group_number; /* of the group at hand + 1; 0: none */
    uint64_t *group;       /* room for RUN_GROUP, the caller's; NULL: not given yet */
};

DEED_MUST_CHECK deed_status run_file_find(struct run_file *run, const struct index_term *term,
                                          bool *out_found, struct run_entry *out_entry,
                                          struct deed_error *err);

/* Does looking up a position need room for a group? */
static inline bool run_entry_needs_group(const struct run_entry *entry)
{
    return entry->count > RUN_INLINE_MAX && entry->group == NULL;
}
/* How many of its positions are at or below `end`. */
DEED_MUST_CHECK deed_status run_entry_count(struct run_file *run, struct run_entry *entry,
                                            uint64_t end, uint64_t *out_count,
                                            struct deed_error *err);
/* The i-th, below the count. */
DEED_MUST_CHECK deed_status run_entry_at(struct run_file *run, struct run_entry *entry, uint64_t i,
                                         uint64_t *out_position, struct deed_error *err);

/* ---- all of it, in order: merging and verifying --------------------------------------------- */

struct run_scan;

struct run_scan_term {
    uint64_t hash;
    enum index_kind kind;
    deed_bytes term; /* valid until the next call */
    uint64_t count, base;
};

/* Past the cache, with some 200 KiB of its own. */
DEED_MUST_CHECK deed_status run_scan_create(struct run_file *run, struct run_scan **out_scan,
                                            struct deed_error *err);
void run_scan_destroy(struct run_scan *scan); /* accepts NULL */
/* The next term; what was not read of the last one's positions is passed over. DEED_END: no more.
 * Here damage is DEED_CORRUPT. */
DEED_MUST_CHECK deed_status run_scan_next(struct run_scan *scan, struct run_scan_term *out_term,
                                          struct deed_error *err);
/* The term's next position; at most `count` times. */
DEED_MUST_CHECK deed_status run_scan_position(struct run_scan *scan, uint64_t *out_position,
                                              struct deed_error *err);

/* Check everything: each block's checksum, the order of terms and positions, that fences, skips
 * and filter lead to each term, that the footer's counts are right. DEED_CORRUPT says what is wrong. */
struct run_check;
DEED_MUST_CHECK deed_status run_check_create(struct run_file *run, uint64_t hash_mask,
                                             struct run_check **out_check, struct deed_error *err);
void run_check_destroy(struct run_check *check); /* accepts NULL */
/* Some 256 KiB of it. DEED_OK: there is more; DEED_END: all is good. */
DEED_MUST_CHECK deed_status run_check_step(struct run_check *check, struct deed_error *err);

#endif
