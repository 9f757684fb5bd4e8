/* sealed.h - the file of a sealed segment: commits without padding, a table of them, a footer.
 *
 * It is written once, checked on the device, and never changed; a rewrite makes another file, of the
 * next generation. Places inside are *logical* offsets: as if nothing was compressed.
 *
 * docs/format/log.md is normative. */
#ifndef LOG_SEALED_H
#define LOG_SEALED_H

#include "base/hash.h"
#include "log/segment.h"
#include "os/block_cache.h"

#define SEALED_NAME_SIZE   64
#define SEALED_FOOTER_SIZE SECTOR_SIZE
#define SEALED_FOOTERS_SIZE (2 * SEALED_FOOTER_SIZE) /* two copies */
#define SEALED_TABLE_PER_BLOCK 255u /* commits */
#define SEALED_RAW_SIZE    65536u /* logical bytes in a compressed block */

/* Behind the name of a file that is not finished. */
#define NAME_UNFINISHED ".new"

/* What a sealed file's name says. */
struct sealed_name {
    uint32_t number;
    uint32_t generation; /* from 1 */
    uint64_t first_position;
};

void sealed_name_format(const struct sealed_name *name, char out[SEALED_NAME_SIZE]);
/* false: not such a name, finished or not. */
bool sealed_name_parse(const char *text, struct sealed_name *out_name, bool *out_new);

struct sealed_footer {
    deed_uuid log_id;
    uint64_t epoch;
    uint32_t number, generation;
    uint64_t first_position, last_position;
    uint64_t commit_count, event_count, removed_count;
    /* Of users' events (streams without '$'); DEED_NONE: none. */
    uint64_t first_kept, first_removed;
    int64_t first_recorded_at_ns, last_recorded_at_ns;
    uint8_t previous[SHA256_SIZE], hash[SHA256_SIZE]; /* before the first commit; of the last */
    uint64_t logical_end;                             /* behind the last commit */
    uint64_t table_offset, table_blocks;
    uint64_t map_offset, map_blocks; /* 0 blocks: not compressed */
    uint64_t file_size;
    uint8_t content_hash[SHA256_SIZE]; /* of all bytes before the footers */
};

/* ---- reading -------------------------------------------------------------------------------- */

/* Read the footer and check that it is that of this name and log, and that the file's size is right.
 * There are two copies: one that is good will do.
 *
 *   DEED_CORRUPT  it is not. DEED_TOO_NEW: another version. DEED_IO, DEED_BUSY (os_haste_begin) */
DEED_MUST_CHECK deed_status sealed_footer_load(struct os_file *file, const struct sealed_name *name,
                                               deed_uuid log_id, struct sealed_footer *out_footer,
                                               struct deed_error *err);

/* A file to read from, and where its table's and map's blocks are kept. */
struct sealed_file {
    struct os_file *file;
    struct block_cache *cache; /* NULL: they are read each time */
    uint64_t source;           /* the file's number there */
};

/* Look at the block of table, map or footers at this offset of the file, a multiple of BLOCK_SIZE from
 * table_offset on: by its own checksum, and for each copy by itself.
 *
 *   DEED_CORRUPT, DEED_IO  it is damaged, or cannot be read: `*out_what` says what it is. */
DEED_MUST_CHECK deed_status sealed_check_block(const struct sealed_file *file,
                                               const struct sealed_footer *footer, uint64_t offset,
                                               const char **out_what, struct deed_error *err);
/* Are there only zeros between the commits, or the compressed blocks, and the table? They begin at
 * `*out_from`.
 *
 *   DEED_CORRUPT, DEED_IO  there are not, or nobody can tell: `*out_from` is DEED_NONE if the map is
 *                          damaged where it says where they begin. */
DEED_MUST_CHECK deed_status sealed_check_pad(const struct sealed_file *file,
                                             const struct sealed_footer *footer, uint64_t *out_from,
                                             struct deed_error *err);

/* A commit's place. */
struct sealed_entry {
    uint64_t position, next_position; /* of its first event, and of the next commit's */
    uint64_t offset, size;            /* logical */
    int64_t recorded_at_ns;
};

/* The commit that holds a position between first_position and last_position. DEED_CORRUPT: the
 * table is damaged there. */
DEED_MUST_CHECK deed_status sealed_find(const struct sealed_file *file, const struct sealed_footer *footer,
                                        uint64_t position, struct sealed_entry *out_entry,
                                        struct deed_error *err);
/* The first position recorded after `time_ns`; last_position + 1: none. */
DEED_MUST_CHECK deed_status sealed_find_time(const struct sealed_file *file,
                                             const struct sealed_footer *footer, int64_t time_ns,
                                             uint64_t *out_position, struct deed_error *err);
/* The i-th commit's, below commit_count. */
DEED_MUST_CHECK deed_status sealed_at(const struct sealed_file *file, const struct sealed_footer *footer,
                                      uint64_t i, struct sealed_entry *out_entry,
                                      struct deed_error *err);

/* Read logical bytes [offset, offset + size), cut at logical_end, into `out`, whose content is
 * replaced; it may begin before `offset`, at `*out_from`. `packed` is room for compressed bytes.
 *
 *   DEED_CORRUPT  a block or the map is damaged, or the file is too short. */
DEED_MUST_CHECK deed_status sealed_read(const struct sealed_file *file, const struct sealed_footer *footer,
                                        uint64_t offset, uint64_t size, struct buf *out,
                                        struct buf *packed, uint64_t *out_from,
                                        struct deed_error *err);

/* ---- writing -------------------------------------------------------------------------------- */

struct sealed_writer {
    struct os_dir *dir;
    struct os_file *file;
    char name[SEALED_NAME_SIZE], new_name[SEALED_NAME_SIZE + 8];
    struct sealed_footer footer; /* grows with what is added */
    struct commit_places places;
    int level;           /* zstd's; 0: not compressed */
    struct buf raw;      /* commits that are not a whole block yet */
    struct buf out;      /* file bytes that are not written yet */
    struct buf table, map;
    uint64_t file_offset; /* behind `out` */
    uint64_t synced;      /* of the file */
    uint64_t step_size;   /* written between two syncs */
    struct sha256_stream hash;
    uint32_t written_crc, checked_crc; /* of the bytes before `synced` and `checked` */
    uint64_t checked;
    struct os_file *check_file;
    uint8_t *check_bytes;
};

/* Begin `<name>.new`; an old one is replaced. The header says which file it is to be; `level`: 0, or
 * zstd's from 1 to 19. DEED_FULL, DEED_IO, DEED_NO_MEMORY: what was made is gone again, as far as the disk
 * lets it be. So it is with each function below. */
DEED_MUST_CHECK deed_status sealed_writer_begin(struct sealed_writer *w, struct os_dir *dir,
                                                const struct segment_header *header, int level,
                                                struct deed_error *err);
/* Add a whole commit: its bytes get the checksum of their new place. */
DEED_MUST_CHECK deed_status sealed_writer_add(struct sealed_writer *w, deed_bytes bytes,
                                              const struct commit *commit,
                                              struct deed_error *err);
/* Bytes that wait to be written; sealed_writer_sync writes and syncs them, a step at a time. A step is
 * SEALED_STEP_SIZE unless somebody sets another: the committer's sync may wait behind one. */
#define SEALED_STEP_SIZE (256u << 10)
uint64_t sealed_writer_waiting(const struct sealed_writer *w);
DEED_MUST_CHECK deed_status sealed_writer_sync(struct sealed_writer *w, struct deed_error *err);
/* All were added: write table, map and footer, synced. */
DEED_MUST_CHECK deed_status sealed_writer_finish(struct sealed_writer *w, struct deed_error *err);
/* Read the next step of the file from the device and compare. DEED_END: all of it is there.
 * DEED_CORRUPT: the device gives back something else. */
DEED_MUST_CHECK deed_status sealed_writer_check(struct sealed_writer *w, struct deed_error *err);
/* Give the file its name, durably. */
DEED_MUST_CHECK deed_status sealed_writer_publish(struct sealed_writer *w, struct deed_error *err);
/* Free all; a file that was not published is removed. Accepts a zeroed one. */
void sealed_writer_done(struct sealed_writer *w);

#endif
