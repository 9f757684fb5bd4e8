/* sim_disk.h - one file of the simulated disk: what the cache serves and what the platter holds.
 *
 * A write reaches the cache. A sync copies the sectors that were written since, and the size, to
 * the platter. A crash leaves of the rest what its regime says. Sequence numbers order the writes
 * of the whole machine, so that a crash can cut them all at one moment.
 *
 * The images are test machinery: without memory they end the process. */
#ifndef OS_SIM_DISK_H
#define OS_SIM_DISK_H

#include "deedbook.h"
#include "os/sim_random.h"

#define SIM_SECTOR_SIZE_MAX 4096

struct sim_image {
    size_t sector_size;
    uint64_t size, platter_size; /* as programs see it; as a crash would leave it at least */
    uint64_t size_sequence;      /* the write that last changed `size` */
    uint64_t size_least;         /* since the last sync: blocks behind it were free for a while */
    uint8_t *cache, *platter;
    uint8_t *older;    /* per sector, what the platter held before its last change */
    uint64_t *written; /* per sector, the last unsynced write's sequence number; 0: clean */
    size_t sector_count;
    size_t dirty_from, dirty_to; /* no sector outside is dirty */
};

/* What one crash does to everything unsynced. */
struct sim_crash {
    bool lost;        /* some of it is lost; else all of it arrives */
    bool reordered;   /* any subset arrives; else what was written up to `cut_sequence` */
    bool torn;        /* decided per sector; else a write arrives whole or not at all */
    bool torn_sector; /* some sectors hold new bytes to a point and old ones behind it */
    bool scrambled;   /* some sectors hold noise */
    bool lost_names;  /* names follow the same rules; else all of them arrive */
    bool reused;      /* files that come back have lost some of their sectors to others */
    uint64_t cut_sequence;
    uint32_t keep_of_256; /* when reordered: how much arrives */
    uint64_t salt;
};

void sim_image_init(struct sim_image *image, size_t sector_size);
void sim_image_done(struct sim_image *image);

/* `sequence` is this write's own, growing and not 0. */
void sim_image_write(struct sim_image *image, uint64_t sequence, struct sim_random *random,
                     uint64_t offset, deed_bytes bytes);
void sim_image_truncate(struct sim_image *image, uint64_t sequence, uint64_t size);

/* How much was there to read. `direct`: sectors that are clean come from the platter; those still
 * unsynced are as in the cache, since the system writes them out before it reads the device. */
size_t sim_image_read(const struct sim_image *image, uint64_t offset, void *out, size_t size,
                      bool direct);

void sim_image_sync(struct sim_image *image);

/* One of the sectors that a sync would write; false: there is none. It draws only if there is. */
bool sim_image_dirty(const struct sim_image *image, struct sim_random *random,
                     uint64_t *out_offset);

/* Spoil what a read of [offset, offset + size) gave: the sector around `at`, inside of it, comes
 * from `other_offset` of another image (may be the same), or is as before it was last written. */
void sim_image_read_stray(const struct sim_image *image, uint64_t offset, void *out, size_t size,
                          uint64_t at, const struct sim_image *other, uint64_t other_offset);
void sim_image_read_stale(const struct sim_image *image, uint64_t offset, void *out, size_t size,
                          uint64_t at);

/* A sync that fails the way Linux fails it: some sectors arrive, all of them count as clean, and
 * the cache goes on serving the new bytes. */
void sim_image_sync_fail(struct sim_image *image, struct sim_random *random);

/* Whether a write or a change of names with this number arrives, where some are lost. */
bool sim_crash_keeps(const struct sim_crash *crash, uint64_t sequence, struct sim_random *random);
void sim_image_crash(struct sim_image *image, const struct sim_crash *crash,
                     struct sim_random *random);

/* On the platter, from `offset` on, some runs of sectors hold what another file wrote there, zeros or
 * noise. */
void sim_image_reuse(struct sim_image *image, struct sim_random *random, uint64_t offset);

/* Memory got tight: clean sectors are read from the platter again. */
void sim_image_drop_clean(struct sim_image *image);

/* Damage to the platter alone; `offset` is inside the file. */
void sim_image_flip(struct sim_image *image, uint64_t offset, unsigned bit);
void sim_image_zero(struct sim_image *image, uint64_t offset);
void sim_image_stale(struct sim_image *image, uint64_t offset);
/* The last write of one sector landed on another. The images may be the same. */
void sim_image_misdirect(struct sim_image *from, uint64_t from_offset, struct sim_image *to,
                         uint64_t to_offset);

#endif
