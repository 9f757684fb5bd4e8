/* file_cache.c - a hash table of handles, and a ring of them by last use.
 *
 *   buckets:  name ─► entry ─► entry          ring:  newest ⇄ ... ⇄ oldest ⇄ (head)
 *
 * (1) An entry is in its bucket until it is forgotten, and in the ring until it is closed.
 * (2) An entry is closed when nobody has it pinned and it is forgotten, or there are too many.
 * (3) Files are opened and closed outside of the lock, so that a slow disk holds up only those who
 *     need that file. Two who miss at once both open; the second takes the first one's. */
#include "os/file_cache.h"

#include "base/hash.h"
#include "os/thread.h"

#include <assert.h>
#include <stdlib.h>

#define BUCKETS 128u

struct entry {
    struct os_dir *dir;
    char *name;
    uint64_t hash;
    struct os_file *file;
    unsigned pins;
    bool forgotten;
    struct entry *next_in_bucket;
    struct entry *newer, *older;
};

struct file_cache {
    struct os_mutex lock;
    size_t limit, count;
    struct entry *buckets[BUCKETS];
    struct entry ring; /* older: the newest; newer: the oldest */
};

struct file_cache *file_cache_create(size_t limit)
{
    struct file_cache *cache = calloc(1, sizeof *cache);
    if (cache == NULL) return NULL;
    cache->limit = limit == 0 ? FILE_CACHE_LIMIT : limit;
    cache->ring.newer = cache->ring.older = &cache->ring;
    os_mutex_init(&cache->lock);
    return cache;
}

static void entry_free(struct entry *entry)
{
    if (entry == NULL) return;
    os_file_close(entry->file);
    free(entry->name);
    free(entry);
}

void file_cache_destroy(struct file_cache *cache)
{
    if (cache == NULL) return;
    struct entry *entry = cache->ring.older;
    while (entry != &cache->ring) {
        struct entry *older = entry->older;
        assert(entry->pins == 0);
        entry_free(entry);
        entry = older;
    }
    os_mutex_done(&cache->lock);
    free(cache);
}

static uint64_t name_hash(const struct os_dir *dir, const char *name)
{
    return xxh64((uint64_t)(uintptr_t)dir, deed_bytes_of(deed_str_of(name)));
}

static struct entry *bucket_find(struct file_cache *cache, const struct os_dir *dir,
                                 const char *name, uint64_t hash)
{
    struct entry *entry = cache->buckets[hash % BUCKETS];
    while (entry != NULL &&
           (entry->hash != hash || entry->dir != dir || strcmp(entry->name, name) != 0)) {
        entry = entry->next_in_bucket;
    }
    return entry;
}

static void bucket_remove(struct file_cache *cache, const struct entry *entry)
{
    struct entry **at = &cache->buckets[entry->hash % BUCKETS];
    while (*at != entry) at = &(*at)->next_in_bucket;
    *at = entry->next_in_bucket;
}

static void ring_remove(struct entry *entry)
{
    entry->newer->older = entry->older;
    entry->older->newer = entry->newer;
}

static void ring_add(struct file_cache *cache, struct entry *entry)
{
    entry->older = cache->ring.older;
    entry->newer = &cache->ring;
    cache->ring.older->newer = entry;
    cache->ring.older = entry;
}

static void pin(struct file_cache *cache, struct entry *entry)
{
    entry->pins++;
    ring_remove(entry);
    ring_add(cache, entry);
}

/* (2): one to be closed, taken out of the cache; NULL: none. */
static struct entry *take_surplus(struct file_cache *cache)
{
    if (cache->count <= cache->limit) return NULL;
    for (struct entry *entry = cache->ring.newer; entry != &cache->ring; entry = entry->newer) {
        if (entry->pins > 0) continue;
        if (!entry->forgotten) bucket_remove(cache, entry);
        ring_remove(entry);
        cache->count--;
        return entry;
    }
    return NULL;
}

static struct entry *entry_open(struct os_dir *dir, const char *name, uint64_t hash,
                                struct deed_error *err)
{
    struct entry *entry = calloc(1, sizeof *entry);
    size_t size = strlen(name) + 1;
    char *copy = malloc(size);
    if (entry == NULL || copy == NULL) {
        free(entry);
        free(copy);
        (void)!deed_fail(err, DEED_NO_MEMORY, "%s: no memory to open it", name);
        return NULL;
    }
    memcpy(copy, name, size);
    *entry = (struct entry){.dir = dir, .name = copy, .hash = hash};
    struct deed_error why;
    if (os_file_open(dir, name, OS_READ, &entry->file, &why) != DEED_OK) {
        if (err != NULL) *err = why;
        entry->file = NULL;
        entry_free(entry);
        return NULL;
    }
    return entry;
}

deed_status file_cache_pin(struct file_cache *cache, struct os_dir *dir, const char *name,
                           struct os_file **out_file, struct deed_error *err)
{
    uint64_t hash = name_hash(dir, name);
    os_mutex_lock(&cache->lock);
    struct entry *entry = bucket_find(cache, dir, name, hash);
    if (entry != NULL) pin(cache, entry);
    os_mutex_unlock(&cache->lock);
    if (entry != NULL) {
        *out_file = entry->file;
        return DEED_OK;
    }
    struct deed_error why = {.status = DEED_NO_MEMORY};
    struct entry *opened = entry_open(dir, name, hash, &why); /* (3) */
    if (opened == NULL) {
        if (err != NULL) *err = why;
        return why.status;
    }
    os_mutex_lock(&cache->lock);
    entry = bucket_find(cache, dir, name, hash);
    if (entry == NULL) {
        entry = opened;
        opened = NULL;
        entry->next_in_bucket = cache->buckets[hash % BUCKETS];
        cache->buckets[hash % BUCKETS] = entry;
        ring_add(cache, entry);
        cache->count++;
    }
    pin(cache, entry);
    struct entry *surplus = take_surplus(cache);
    os_mutex_unlock(&cache->lock);
    entry_free(opened);
    entry_free(surplus);
    *out_file = entry->file;
    return DEED_OK;
}

void file_cache_unpin(struct file_cache *cache, struct os_file *file)
{
    if (file == NULL) return;
    os_mutex_lock(&cache->lock);
    struct entry *entry = cache->ring.older;
    while (entry != &cache->ring && entry->file != file) entry = entry->older;
    assert(entry != &cache->ring && entry->pins > 0);
    entry->pins--;
    struct entry *closed = NULL;
    if (entry->pins == 0 && entry->forgotten) {
        ring_remove(entry);
        cache->count--;
        closed = entry;
    } else {
        closed = take_surplus(cache);
    }
    os_mutex_unlock(&cache->lock);
    entry_free(closed);
}

void file_cache_forget(struct file_cache *cache, struct os_dir *dir, const char *name)
{
    os_mutex_lock(&cache->lock);
    struct entry *entry = bucket_find(cache, dir, name, name_hash(dir, name));
    if (entry != NULL) {
        bucket_remove(cache, entry);
        entry->forgotten = true;
        if (entry->pins == 0) {
            ring_remove(entry);
            cache->count--;
        } else {
            entry = NULL; /* its last pin closes it */
        }
    }
    os_mutex_unlock(&cache->lock);
    entry_free(entry);
}

size_t file_cache_count(struct file_cache *cache)
{
    os_mutex_lock(&cache->lock);
    size_t count = cache->count;
    os_mutex_unlock(&cache->lock);
    return count;
}
