/* block_cache.h - blocks of files in memory, no more bytes than were allowed.
 *
 * A block is 4096 bytes at a multiple of that. It is checked once, by the loader that reads it, and
 * stays good for as long as it is in the cache. What is in use stays; of the rest those go that
 * were not asked for since the hand came by last. Safe from many threads; a block that is there is
 * given out without waiting for anybody's read. */
#ifndef OS_BLOCK_CACHE_H
#define OS_BLOCK_CACHE_H

#include "base/error.h"

#define BLOCK_SIZE 4096

struct block_cache;
struct block;

/* NULL: out of memory. A few blocks there are always, however small `size_max` is. */
struct block_cache *block_cache_create(uint64_t size_max);
void block_cache_destroy(struct block_cache *cache); /* accepts NULL; no block may be in use */

/* A new number for the blocks of one file: numbers are never used again. */
uint64_t block_cache_source(struct block_cache *cache);

/* Read the block and check it. What it returns goes to who asked; nothing of a failure stays. */
typedef deed_status block_loader(void *context, uint64_t number, uint8_t out[BLOCK_SIZE],
                                 struct deed_error *err);

/* The block, in use until block_cache_put. DEED_NO_MEMORY, and what the loader returns. */
DEED_MUST_CHECK deed_status block_cache_get(struct block_cache *cache, uint64_t source,
                                            uint64_t number, block_loader *load, void *context,
                                            struct block **out_block, struct deed_error *err);
void block_cache_put(struct block_cache *cache, struct block *block); /* accepts NULL */
const uint8_t *block_bytes(const struct block *block);

/* Take so many bytes from the allowance for something that stays, or give them back. false: more
 * than the share of it that others may take (three quarters). */
bool block_cache_charge(struct block_cache *cache, uint64_t size);
void block_cache_discharge(struct block_cache *cache, uint64_t size);

struct block_cache_stats {
    uint64_t size_max, size, charged; /* bytes */
    uint64_t hits, misses;
};
void block_cache_get_stats(struct block_cache *cache, struct block_cache_stats *out);

#endif
