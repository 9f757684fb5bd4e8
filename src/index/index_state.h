/* index_state.h - the index's own fields, shared by the files of src/index only: index.c (opening,
 * the writer, views), index_step.c (the background actor) and postings.c (looking up). */
#ifndef INDEX_INDEX_STATE_H
#define INDEX_INDEX_STATE_H

#include "base/arena.h"
#include "index/index.h"
#include "index/memory_run.h"
#include "index/run_file.h"
#include "os/thread.h"

#include <stdatomic.h>

#define INDEX_DIR_NAME "index"

/* A range of positions with its terms: in memory or in a file. */
struct index_run {
    _Atomic uint64_t references; /* by views */
    struct index *index;
    uint32_t first_segment, last_segment;
    uint64_t first_position;
    _Atomic uint64_t last_position; /* UINT64_MAX while it is the active one */
    uint8_t hash[SHA256_SIZE];      /* of the last commit, when it is not */
    struct memory_run *memory;
    struct run_file *file;
    bool remove; /* the file was replaced: it goes with the run */
    struct index_run *dead_next;

    /* The background actor's. */
    bool checked, suspect, filter_tried, no_merge; /* suspect: to be checked before all else */
    bool not_renewed; /* it lacks terms that are known now, and reading the log again has failed */
};

struct index_view {
    _Atomic uint64_t references;
    struct index *index;
    struct index_hashing hashing;
    uint64_t generation;
    size_t run_count;
    struct index_run *runs[]; /* ascending; the last is the active one, once it is open */
};

struct index_work;

struct index {
    struct index_options options;
    struct os_dir *dir; /* NULL: all in memory */
    struct index_hashing hashing;
    deed_uuid log_id;

    struct os_mutex change;   /* held by who makes a view out of the newest one */
    struct os_mutex lock;     /* for `view`, `dead`, `stats.failure` */
    struct index_view *view;
    struct index_run *dead;   /* without references; the background actor frees them */
    _Atomic uint64_t generation; /* of `view` */
    _Atomic uint64_t stream_count, waiting;
    struct index_stats stats; /* counts, by the background actor under `lock` */

    /* The writer's. */
    struct index_view *writer_view;
    struct index_run *active;
    bool begun; /* it is known which segment `active` is of */

    struct index_work *work; /* index_step.c */
};

static inline uint64_t run_last_position(const struct index_run *run)
{
    return atomic_load_explicit(&run->last_position, memory_order_acquire);
}

/* A new row: the newest without `out`, with `in` (may be NULL) in its place. */
DEED_MUST_CHECK deed_status index_replace(struct index *index, struct index_run *const *out,
                                          size_t out_count, struct index_run *in,
                                          struct deed_error *err);
struct index_run *index_run_create(struct index *index, uint32_t first_segment,
                                   uint32_t last_segment, uint64_t first_position,
                                   uint64_t last_position);
/* One that no view has seen. */
void index_run_free(struct index_run *run);
/* Open a file as a run. */
DEED_MUST_CHECK deed_status index_run_load(struct index *index, const char *name,
                                           struct index_run **out_run, struct deed_error *err);
/* Free what is dead, and remove files that were replaced. */
void index_sweep(struct index *index);

/* Add the terms of positions *inout_first to `last`, without those known to be lost, until the run
 * has `terms_max` of them: *inout_first is the next one then. `out_streams`: that begin there.
 * DEED_CORRUPT: a position cannot be read, err->position names it. It may be read the next time. */
DEED_MUST_CHECK deed_status index_scan(struct index *index, struct log *log, uint64_t *inout_first,
                                       uint64_t last, uint64_t terms_max, struct memory_run *run,
                                       uint64_t *out_streams, struct deed_error *err);

/* index_step.c */
struct index_work *index_work_create(void);
void index_work_destroy(struct index_work *work);

#endif
