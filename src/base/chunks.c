/* chunks.c - chunk k holds the elements from FIRST * (2^k - 1) on.
 *
 * (1) An element is written before the count that covers it is stored with release order, so a
 *     reader that loaded the count with acquire order sees the element whole. */
#include "base/chunks.h"

#include <assert.h>
#include <stdlib.h>

void chunks_init(struct chunks *chunks, size_t element_size)
{
    assert(element_size > 0);
    memset(chunks, 0, sizeof *chunks);
    chunks->element_size = element_size;
}

void chunks_done(struct chunks *chunks)
{
    for (size_t k = 0; k < CHUNKS_MAX; k++) free(atomic_load(&chunks->chunk[k]));
    size_t element_size = chunks->element_size;
    memset(chunks, 0, sizeof *chunks);
    chunks->element_size = element_size;
}

static unsigned chunk_of(uint64_t index, uint64_t *out_offset)
{
    uint64_t shifted = index / CHUNKS_FIRST + 1;
    unsigned k = 63u - (unsigned)__builtin_clzll(shifted);
    *out_offset = index - CHUNKS_FIRST * ((UINT64_C(1) << k) - 1);
    return k;
}

/* The chunk k, made if it is missing; NULL: no memory. */
static unsigned char *chunk_get(struct chunks *chunks, unsigned k)
{
    if (k >= CHUNKS_MAX) return NULL;
    unsigned char *chunk = atomic_load_explicit(&chunks->chunk[k], memory_order_relaxed);
    if (chunk != NULL) return chunk;
    chunk = calloc((size_t)CHUNKS_FIRST << k, chunks->element_size);
    if (chunk != NULL) {
        atomic_store_explicit(&chunks->chunk[k], chunk, memory_order_release);
    }
    return chunk;
}

bool chunks_reserve(struct chunks *chunks, uint64_t more)
{
    uint64_t count = atomic_load_explicit(&chunks->count, memory_order_relaxed);
    uint64_t offset;
    if (more == 0) return true;
    unsigned last = chunk_of(count + more - 1, &offset);
    for (unsigned k = chunk_of(count, &offset); k <= last; k++) {
        if (chunk_get(chunks, k) == NULL) return false;
    }
    return true;
}

bool chunks_add(struct chunks *chunks, const void *element)
{
    uint64_t count = atomic_load_explicit(&chunks->count, memory_order_relaxed);
    uint64_t offset;
    unsigned k = chunk_of(count, &offset);
    unsigned char *chunk = chunk_get(chunks, k);
    if (chunk == NULL) return false;
    memcpy(chunk + offset * chunks->element_size, element, chunks->element_size);
    atomic_store_explicit(&chunks->count, count + 1, memory_order_release);
    return true;
}

const void *chunks_at(const struct chunks *chunks, uint64_t index)
{
    uint64_t offset;
    unsigned k = chunk_of(index, &offset);
    const unsigned char *chunk = atomic_load_explicit(&chunks->chunk[k], memory_order_acquire);
    assert(chunk != NULL);
    return chunk + offset * chunks->element_size;
}
