/* chunks.h - a list that grows while others read it.
 *
 * One writer appends; any number of readers, without locks, see every element below the count they
 * loaded. Elements never move: chunk k has room for CHUNK_FIRST << k of them. */
#ifndef BASE_CHUNKS_H
#define BASE_CHUNKS_H

#include "deedbook.h"

#include <stdatomic.h>

#define CHUNKS_FIRST 64u /* elements in the first chunk; a power of two */
#define CHUNKS_MAX   40

struct chunks {
    size_t element_size;
    _Atomic uint64_t count;
    _Atomic(unsigned char *) chunk[CHUNKS_MAX];
};

void chunks_init(struct chunks *chunks, size_t element_size);
void chunks_done(struct chunks *chunks); /* accepts a zeroed one; no reader may be left */

/* Writer: append a copy. false: out of memory, nothing changed. */
bool chunks_add(struct chunks *chunks, const void *element);

/* Writer: the next `more` calls of chunks_add will not fail. false: out of memory. */
DEED_MUST_CHECK bool chunks_reserve(struct chunks *chunks, uint64_t more);

static inline uint64_t chunks_count(const struct chunks *chunks)
{
    return atomic_load_explicit(&chunks->count, memory_order_acquire);
}

/* `index` is below a count that this thread has loaded. Valid until chunks_done. */
const void *chunks_at(const struct chunks *chunks, uint64_t index);

#endif
