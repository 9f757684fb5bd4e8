/* index_state.h - the index's own fields, shared by the files of src/index only: index.c (writer,
 * views) and postings.c (looking up). */
#ifndef INDEX_INDEX_STATE_H
#define INDEX_INDEX_STATE_H

#include "index/index.h"
#include "index/memory_run.h"
#include "os/thread.h"

#include <stdatomic.h>

/* A range of positions with its terms. */
struct index_run {
    _Atomic uint64_t references; /* by views */
    uint32_t first_segment, last_segment;
    uint64_t first_position;
    _Atomic uint64_t last_position; /* UINT64_MAX while it is the active one */
    struct memory_run *memory;
};

struct index_view {
    _Atomic uint64_t references;
    struct index *index;
    struct index_hashing hashing;
    uint64_t generation;
    size_t run_count;
    struct index_run *runs[]; /* ascending; the last is the active one */
};

struct index {
    struct index_hashing hashing;
    struct os_mutex lock; /* for `view` */
    struct index_view *view;
    _Atomic uint64_t generation; /* of `view` */
    _Atomic uint64_t stream_count;

    /* The writer's. */
    struct index_view *writer_view;
    struct index_run *active;
};

static inline uint64_t run_last_position(const struct index_run *run)
{
    return atomic_load_explicit(&run->last_position, memory_order_acquire);
}

#endif
