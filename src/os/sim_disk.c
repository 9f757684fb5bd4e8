/* sim_disk.c - two images of a file, compared sector by sector.
 *
 * (1) `cache`, `platter` and `older` have sector_count sectors; cache bytes from `size` on are
 *     zero.
 * (2) A sector whose images differ is dirty, unless a sync failed or the platter was damaged:
 *     those are the lies that a direct read sees through.
 * (3) After a sync or a crash no sector is dirty, size == platter_size and platter bytes from
 *     there on are zero.
 * (4) A dirty sector may hold anything after a crash; a clean one is never touched by it. */
#include "os/sim_disk.h"

#include <assert.h>
#include <stdlib.h>

/* Sectors grow in these steps: one small file costs little, a segment few copies. */
#define SECTOR_COUNT_MIN 16

/* One in so many dirty sectors near a crash is torn or scrambled, where the regime has that. */
#define TEAR_ONE_IN 4

/* One in so many overwritten unsynced sectors had reached the platter in its earlier form. */
#define EARLY_WRITE_ONE_IN 4

void sim_image_init(struct sim_image *image, size_t sector_size)
{
    assert(sector_size > 0 && sector_size <= SIM_SECTOR_SIZE_MAX);
    *image = (struct sim_image){.sector_size = sector_size};
}

void sim_image_done(struct sim_image *image)
{
    free(image->cache);
    free(image->platter);
    free(image->older);
    free(image->written);
    *image = (struct sim_image){.sector_size = image->sector_size};
}

static void *grown(void *old, size_t old_size, size_t size)
{
    uint8_t *new = realloc(old, size);
    if (new == NULL) abort();
    memset(new + old_size, 0, size - old_size);
    return new;
}

static void image_grow(struct sim_image *image, uint64_t size)
{
    uint64_t wanted = (size + image->sector_size - 1) / image->sector_size;
    if (wanted <= image->sector_count) return;
    size_t count = image->sector_count < SECTOR_COUNT_MIN ? SECTOR_COUNT_MIN : image->sector_count;
    while (count < wanted)
        count *= 2;

    size_t old = image->sector_count * image->sector_size;
    size_t new = count * image->sector_size;
    image->cache = grown(image->cache, old, new);
    image->platter = grown(image->platter, old, new);
    image->older = grown(image->older, old, new);
    image->written = grown(image->written, image->sector_count * sizeof *image->written,
                           count * sizeof *image->written);
    image->sector_count = count;
}

static uint8_t *sector_in(const struct sim_image *image, uint8_t *bytes, size_t sector)
{
    assert(sector < image->sector_count);
    return bytes + sector * image->sector_size;
}

/* The platter's sector becomes `bytes`. */
static void sector_put(struct sim_image *image, size_t sector, const uint8_t *bytes)
{
    uint8_t *platter = sector_in(image, image->platter, sector);
    memcpy(sector_in(image, image->older, sector), platter, image->sector_size);
    memcpy(platter, bytes, image->sector_size);
}

static void sector_dirty(struct sim_image *image, size_t sector, uint64_t sequence)
{
    if (image->dirty_from == image->dirty_to) {
        image->dirty_from = sector;
        image->dirty_to = sector + 1;
    }
    if (sector < image->dirty_from) image->dirty_from = sector;
    if (sector >= image->dirty_to) image->dirty_to = sector + 1;
    image->written[sector] = sequence;
}

static void all_clean(struct sim_image *image)
{
    for (size_t s = image->dirty_from; s < image->dirty_to; s++)
        image->written[s] = 0;
    image->dirty_from = image->dirty_to = 0;
}

static void platter_zero_from(struct sim_image *image, uint64_t size)
{
    size_t all = image->sector_count * image->sector_size;
    if (size < all) memset(image->platter + size, 0, all - size);
}

void sim_image_write(struct sim_image *image, uint64_t sequence, struct sim_random *random,
                     uint64_t offset, deed_bytes bytes)
{
    assert(sequence > 0);
    assert(bytes.len > 0);
    uint64_t end = offset + bytes.len;
    image_grow(image, end);
    size_t last = (size_t)((end - 1) / image->sector_size);
    for (size_t s = (size_t)(offset / image->sector_size); s <= last; s++) {
        bool early = image->written[s] != 0 && sim_random_below(random, EARLY_WRITE_ONE_IN) == 0;
        if (early) sector_put(image, s, sector_in(image, image->cache, s));
        sector_dirty(image, s, sequence);
    }
    memcpy(image->cache + offset, bytes.ptr, bytes.len);
    if (end > image->size) {
        image->size = end;
        image->size_sequence = sequence;
    }
}

void sim_image_truncate(struct sim_image *image, uint64_t sequence, uint64_t size)
{
    if (size == image->size) return;
    image_grow(image, size);
    if (size < image->size) {
        size_t last = (size_t)((image->size - 1) / image->sector_size);
        size_t first = (size_t)(size / image->sector_size);
        for (size_t s = first; s <= last; s++)
            sector_dirty(image, s, sequence);
        memset(image->cache + size, 0, (size_t)(image->size - size));
    }
    image->size = size;
    image->size_sequence = sequence;
    if (size < image->size_least) image->size_least = size;
}

size_t sim_image_read(const struct sim_image *image, uint64_t offset, void *out, size_t size,
                      bool direct)
{
    if (offset >= image->size) return 0;
    if (size > image->size - offset) size = (size_t)(image->size - offset);
    if (!direct) {
        memcpy(out, image->cache + offset, size);
        return size;
    }
    uint8_t *at = out;
    for (size_t done = 0; done < size;) {
        size_t sector = (size_t)((offset + done) / image->sector_size);
        size_t within = (size_t)((offset + done) % image->sector_size);
        size_t part = image->sector_size - within;
        if (part > size - done) part = size - done;
        const uint8_t *from = image->written[sector] != 0 ? image->cache : image->platter;
        memcpy(at + done, from + offset + done, part);
        done += part;
    }
    return size;
}

static size_t sector_at(const struct sim_image *image, uint64_t offset)
{
    assert(offset < image->size);
    return (size_t)(offset / image->sector_size);
}

/* The part of [offset, offset + size) that lies in the sector of `at` becomes that of `sector`. */
static void answer_spoil(size_t sector_size, uint64_t offset, uint8_t *out, size_t size,
                         uint64_t at, const uint8_t *sector)
{
    assert(at >= offset && at - offset < size);
    uint64_t start = at / sector_size * sector_size;
    uint64_t from = start > offset ? start : offset;
    uint64_t end = start + sector_size < offset + size ? start + sector_size : offset + size;
    memcpy(out + (from - offset), sector + (from - start), (size_t)(end - from));
}

void sim_image_read_stray(const struct sim_image *image, uint64_t offset, void *out, size_t size,
                          uint64_t at, const struct sim_image *other, uint64_t other_offset)
{
    assert(other->sector_size == image->sector_size);
    size_t sector = sector_at(other, other_offset);
    answer_spoil(image->sector_size, offset, out, size, at,
                 sector_in(other, other->platter, sector));
}

void sim_image_read_stale(const struct sim_image *image, uint64_t offset, void *out, size_t size,
                          uint64_t at)
{
    size_t sector = sector_at(image, at);
    answer_spoil(image->sector_size, offset, out, size, at, sector_in(image, image->older, sector));
}

bool sim_image_dirty(const struct sim_image *image, struct sim_random *random, uint64_t *out_offset)
{
    uint64_t count = 0;
    for (size_t s = image->dirty_from; s < image->dirty_to; s++) {
        uint64_t start = (uint64_t)s * image->sector_size;
        if (image->written[s] == 0 || start >= image->size) continue;
        if (sim_random_below(random, ++count) == 0) *out_offset = start;
    }
    return count > 0;
}

void sim_image_sync(struct sim_image *image)
{
    for (size_t s = image->dirty_from; s < image->dirty_to; s++) {
        if (image->written[s] != 0) sector_put(image, s, sector_in(image, image->cache, s));
    }
    all_clean(image);
    if (image->platter_size != image->size) platter_zero_from(image, image->size);
    image->platter_size = image->size_least = image->size;
}

void sim_image_sync_fail(struct sim_image *image, struct sim_random *random)
{
    for (size_t s = image->dirty_from; s < image->dirty_to; s++) {
        bool arrives = sim_random_below(random, 2) == 0;
        if (image->written[s] != 0 && arrives) {
            sector_put(image, s, sector_in(image, image->cache, s));
        }
    }
    all_clean(image);
    if (sim_random_below(random, 2) == 0) image->platter_size = image->size;
}

bool sim_crash_keeps(const struct sim_crash *crash, uint64_t sequence, struct sim_random *random)
{
    if (crash->reordered) {
        uint64_t lot = crash->torn ? sim_random_next(random) : sim_mix(crash->salt ^ sequence);
        return lot % 256 < crash->keep_of_256;
    }
    if (sequence != crash->cut_sequence) return sequence < crash->cut_sequence;
    return !crash->torn || sim_random_below(random, 2) == 0;
}

/* What becomes of one dirty sector. */
static void sector_crash(struct sim_image *image, size_t sector, const struct sim_crash *crash,
                         struct sim_random *random)
{
    uint64_t sequence = image->written[sector];
    bool kept = !crash->lost || sim_crash_keeps(crash, sequence, random);
    bool at_the_cut = crash->lost && (crash->reordered || sequence == crash->cut_sequence);
    uint64_t lot = sim_random_below(random, TEAR_ONE_IN);
    uint8_t mixed[SIM_SECTOR_SIZE_MAX];

    if (at_the_cut && crash->torn_sector && lot == 0) {
        size_t point = (size_t)sim_random_below(random, image->sector_size + 1);
        memcpy(mixed, sector_in(image, image->platter, sector), image->sector_size);
        memcpy(mixed, sector_in(image, image->cache, sector), point);
        sector_put(image, sector, mixed);
    } else if (at_the_cut && crash->scrambled && lot == 1) {
        for (size_t i = 0; i < image->sector_size; i++)
            mixed[i] = (uint8_t)sim_random_next(random);
        sector_put(image, sector, mixed);
    } else if (kept) {
        sector_put(image, sector, sector_in(image, image->cache, sector));
    }
}

/* The size that arrives: the old one, the new one, or what the arrived sectors need. */
static uint64_t size_crash(const struct sim_image *image, size_t kept_to,
                           const struct sim_crash *crash, struct sim_random *random)
{
    if (image->size == image->platter_size || !crash->lost) return image->size;
    if (sim_crash_keeps(crash, image->size_sequence, random)) return image->size;
    if (image->size < image->platter_size) return image->platter_size;
    if (crash->reordered && sim_random_below(random, 2) == 0) return image->platter_size;
    uint64_t needed = (uint64_t)kept_to * image->sector_size;
    if (needed > image->size) needed = image->size;
    return needed > image->platter_size ? needed : image->platter_size;
}

void sim_image_crash(struct sim_image *image, const struct sim_crash *crash,
                     struct sim_random *random)
{
    size_t kept_to = 0;
    for (size_t s = image->dirty_from; s < image->dirty_to; s++) {
        /* Sectors that a truncate cut off were never written: the size alone decides. */
        if (image->written[s] == 0 || (uint64_t)s * image->sector_size >= image->size) continue;
        sector_crash(image, s, crash, random);
        const uint8_t *platter = sector_in(image, image->platter, s);
        const uint8_t *cache = sector_in(image, image->cache, s);
        if (memcmp(platter, cache, image->sector_size) == 0) kept_to = s + 1;
    }
    image->size = size_crash(image, kept_to, crash, random);
    image->platter_size = image->size_least = image->size;
    all_clean(image);
    platter_zero_from(image, image->size);
    sim_image_drop_clean(image);
}

void sim_image_reuse(struct sim_image *image, struct sim_random *random, uint64_t offset)
{
    uint8_t bytes[SIM_SECTOR_SIZE_MAX] = {0};
    uint64_t first = (offset + image->sector_size - 1) / image->sector_size;
    uint64_t end = (image->platter_size + image->sector_size - 1) / image->sector_size;
    for (uint64_t runs = 1 + sim_random_below(random, 3); first < end && runs > 0; runs--) {
        bool noise = sim_random_below(random, 2) == 0;
        uint64_t from = first + sim_random_below(random, end - first);
        uint64_t to = from + 1 + sim_random_below(random, end - from);
        for (uint64_t s = from; s < to; s++) {
            for (size_t i = 0; i < image->sector_size; i++)
                bytes[i] = noise ? (uint8_t)sim_random_next(random) : 0;
            sector_put(image, (size_t)s, bytes);
        }
    }
    platter_zero_from(image, image->platter_size);
    sim_image_drop_clean(image);
}

void sim_image_drop_clean(struct sim_image *image)
{
    for (size_t s = 0; s < image->sector_count; s++) {
        if (image->written[s] != 0) continue;
        memcpy(sector_in(image, image->cache, s), sector_in(image, image->platter, s),
               image->sector_size);
    }
    /* A lost truncate's old bytes stay behind the end of the file (1). */
    size_t all = image->sector_count * image->sector_size;
    if (image->size < all) memset(image->cache + image->size, 0, all - (size_t)image->size);
}

/* ---- damage ------------------------------------------------------------------------------- */

void sim_image_flip(struct sim_image *image, uint64_t offset, unsigned bit)
{
    assert(bit < 8);
    (void)sector_at(image, offset);
    image->platter[offset] ^= (uint8_t)(1u << bit);
}

void sim_image_zero(struct sim_image *image, uint64_t offset)
{
    static const uint8_t zeros[SIM_SECTOR_SIZE_MAX];
    sector_put(image, sector_at(image, offset), zeros);
}

void sim_image_stale(struct sim_image *image, uint64_t offset)
{
    size_t sector = sector_at(image, offset);
    memcpy(sector_in(image, image->platter, sector), sector_in(image, image->older, sector),
           image->sector_size);
}

void sim_image_misdirect(struct sim_image *from, uint64_t from_offset, struct sim_image *to,
                         uint64_t to_offset)
{
    assert(from->sector_size == to->sector_size);
    size_t source = sector_at(from, from_offset);
    uint8_t stray[SIM_SECTOR_SIZE_MAX];
    memcpy(stray, sector_in(from, from->platter, source), from->sector_size);
    sim_image_stale(from, from_offset);
    sector_put(to, sector_at(to, to_offset), stray);
}
