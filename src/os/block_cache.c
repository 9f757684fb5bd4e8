/* block_cache.c - sixteen shards, each a hash table of blocks and a clock.
 *
 *   (source, number) -> shard -> bucket -> block -> block ...
 *                                clock:  [block][block][block] ...   a hand goes round
 *
 * (1) A block's bytes never change while it can be found: it is filled before it is put in.
 * (2) No lock is held while a loader reads. Two who miss the same block both read it; one of the
 *     copies stays.
 * (3) The hand takes the first block that nobody uses and nobody asked for since it last came by.
 *     When all are in use the shard grows past its share: a reader holds one or two at a time. */
#include "os/block_cache.h"

#include "os/thread.h"

#include <assert.h>
#include <stdatomic.h>
#include <stdlib.h>

#define SHARDS          16u
#define SHARD_BLOCKS_MIN 4u
#define BUCKETS_MIN     16u

struct block {
    uint64_t source, number;
    struct block *next; /* in the bucket */
    size_t place;       /* in the clock */
    uint32_t uses;
    bool asked;
    uint8_t bytes[BLOCK_SIZE];
};

struct shard {
    struct os_mutex lock;
    struct block **buckets;
    size_t bucket_count; /* a power of two */
    struct block **clock;
    size_t count, room, hand;
    uint64_t hits, misses;
};

struct block_cache {
    uint64_t size_max;
    _Atomic uint64_t charged, sources;
    struct shard shards[SHARDS];
};

struct block_cache *block_cache_create(uint64_t size_max)
{
    struct block_cache *cache = calloc(1, sizeof *cache);
    if (cache == NULL) return NULL;
    cache->size_max = size_max;
    size_t buckets = BUCKETS_MIN;
    while (buckets < size_max / SHARDS / sizeof(struct block)) buckets *= 2;
    bool ok = true;
    for (size_t i = 0; i < SHARDS; i++) {
        struct shard *shard = &cache->shards[i];
        os_mutex_init(&shard->lock);
        shard->bucket_count = buckets;
        shard->buckets = calloc(buckets, sizeof(struct block *));
        ok &= shard->buckets != NULL;
    }
    if (ok) return cache;
    block_cache_destroy(cache);
    return NULL;
}

void block_cache_destroy(struct block_cache *cache)
{
    if (cache == NULL) return;
    for (size_t i = 0; i < SHARDS; i++) {
        struct shard *shard = &cache->shards[i];
        for (size_t k = 0; k < shard->count; k++) {
            assert(shard->clock[k]->uses == 0);
            free(shard->clock[k]);
        }
        free(shard->clock);
        free(shard->buckets);
        os_mutex_done(&shard->lock);
    }
    free(cache);
}

uint64_t block_cache_source(struct block_cache *cache)
{
    return atomic_fetch_add(&cache->sources, 1) + 1;
}

const uint8_t *block_bytes(const struct block *block)
{
    return block->bytes;
}

/* ---- one shard, its lock held --------------------------------------------------------------- */

static uint64_t mix(uint64_t source, uint64_t number)
{
    uint64_t x = (number + source * UINT64_C(0x9e3779b97f4a7c15)) * UINT64_C(0xbf58476d1ce4e5b9);
    return x ^ x >> 29;
}

static struct block **bucket_of(struct shard *shard, uint64_t source, uint64_t number)
{
    return &shard->buckets[(mix(source, number) >> 4) & (shard->bucket_count - 1)];
}

static struct block *shard_find(struct shard *shard, uint64_t source, uint64_t number)
{
    struct block *b = *bucket_of(shard, source, number);
    while (b != NULL && (b->number != number || b->source != source)) b = b->next;
    return b;
}

static void shard_unlink(struct shard *shard, struct block *block)
{
    struct block **at = bucket_of(shard, block->source, block->number);
    while (*at != block) at = &(*at)->next;
    *at = block->next;
    struct block *last = shard->clock[--shard->count];
    shard->clock[block->place] = last;
    last->place = block->place;
}

static size_t share_of(const struct block_cache *cache)
{
    uint64_t charged = atomic_load_explicit(&cache->charged, memory_order_relaxed);
    uint64_t left = charged < cache->size_max ? cache->size_max - charged : 0;
    uint64_t share = left / SHARDS / sizeof(struct block);
    return share < SHARD_BLOCKS_MIN ? SHARD_BLOCKS_MIN : (size_t)share;
}

/* A block to go (3); NULL: there is room, or none can. */
static struct block *shard_evict(struct shard *shard, size_t share)
{
    if (shard->count < share) return NULL;
    for (size_t turns = 2 * shard->count; turns > 0; turns--) {
        if (shard->hand >= shard->count) shard->hand = 0;
        struct block *block = shard->clock[shard->hand++];
        if (block->uses > 0) continue;
        if (block->asked) {
            block->asked = false;
            continue;
        }
        shard_unlink(shard, block);
        return block;
    }
    return NULL;
}

static bool shard_put(struct shard *shard, struct block *block)
{
    if (shard->count == shard->room) {
        size_t room = shard->room == 0 ? 16 : shard->room * 2;
        struct block **grown = realloc(shard->clock, room * sizeof *grown);
        if (grown == NULL) return false;
        shard->clock = grown;
        shard->room = room;
    }
    struct block **bucket = bucket_of(shard, block->source, block->number);
    block->next = *bucket;
    *bucket = block;
    block->place = shard->count;
    shard->clock[shard->count++] = block;
    return true;
}

/* ---- the cache ------------------------------------------------------------------------------ */

static struct shard *shard_of(struct block_cache *cache, uint64_t source, uint64_t number)
{
    return &cache->shards[mix(source, number) % SHARDS];
}

static struct block *find_in_use(struct shard *shard, uint64_t source, uint64_t number)
{
    os_mutex_lock(&shard->lock);
    struct block *block = shard_find(shard, source, number);
    if (block != NULL) {
        block->uses++;
        block->asked = true;
        shard->hits++;
    } else {
        shard->misses++;
    }
    os_mutex_unlock(&shard->lock);
    return block;
}

deed_status block_cache_get(struct block_cache *cache, uint64_t source, uint64_t number,
                            block_loader *load, void *context, struct block **out_block,
                            struct deed_error *err)
{
    struct shard *shard = shard_of(cache, source, number);
    *out_block = find_in_use(shard, source, number);
    if (*out_block != NULL) return DEED_OK;

    os_mutex_lock(&shard->lock);
    struct block *block = shard_evict(shard, share_of(cache));
    os_mutex_unlock(&shard->lock);
    if (block == NULL) block = malloc(sizeof *block);
    if (block == NULL) return deed_fail(err, DEED_NO_MEMORY, "block cache: out of memory");
    deed_status status = load(context, number, block->bytes, err);
    if (status != DEED_OK) {
        free(block);
        return status;
    }
    block->source = source;
    block->number = number;
    block->uses = 1;
    block->asked = false; /* a block that is asked for once goes before one that is asked for twice */

    os_mutex_lock(&shard->lock);
    struct block *there = shard_find(shard, source, number); /* (2) */
    bool put = there == NULL && shard_put(shard, block);
    if (there != NULL) there->uses++;
    os_mutex_unlock(&shard->lock);
    if (!put) {
        free(block);
        block = there;
    }
    if (block == NULL) return deed_fail(err, DEED_NO_MEMORY, "block cache: out of memory");
    *out_block = block;
    return DEED_OK;
}

void block_cache_put(struct block_cache *cache, struct block *block)
{
    if (block == NULL) return;
    struct shard *shard = shard_of(cache, block->source, block->number);
    os_mutex_lock(&shard->lock);
    assert(block->uses > 0);
    block->uses--;
    bool extra = block->uses == 0 && shard->count > share_of(cache);
    if (extra) shard_unlink(shard, block);
    os_mutex_unlock(&shard->lock);
    if (extra) free(block);
}

bool block_cache_charge(struct block_cache *cache, uint64_t size)
{
    uint64_t charged = atomic_load(&cache->charged);
    do {
        if (size > cache->size_max / 4 * 3 || charged > cache->size_max / 4 * 3 - size) return false;
    } while (!atomic_compare_exchange_weak(&cache->charged, &charged, charged + size));
    return true;
}

void block_cache_discharge(struct block_cache *cache, uint64_t size)
{
    uint64_t before = atomic_fetch_sub(&cache->charged, size);
    assert(before >= size);
    (void)before;
}

void block_cache_get_stats(struct block_cache *cache, struct block_cache_stats *out)
{
    *out = (struct block_cache_stats){.size_max = cache->size_max,
                                      .charged = atomic_load(&cache->charged)};
    out->size = out->charged;
    for (size_t i = 0; i < SHARDS; i++) {
        struct shard *shard = &cache->shards[i];
        os_mutex_lock(&shard->lock);
        out->size += shard->count * sizeof(struct block);
        out->hits += shard->hits;
        out->misses += shard->misses;
        os_mutex_unlock(&shard->lock);
    }
}
