/* run_format.h - what a run's file is made of: blocks, sections, the footer.
 *
 * docs/format/index.md is normative. Private to src/index: run_writer.c writes what run_file.c
 * reads. */
#ifndef INDEX_RUN_FORMAT_H
#define INDEX_RUN_FORMAT_H

#include "base/rw.h"
#include "index/term.h"
#include "os/block_cache.h"

#define RUN_VERSION      1
#define POSITION_RANGE_MAX (UINT64_MAX >> 1) /* no log gets there */
#define RUN_MAGIC        "DEEDRUN\n"
#define RUN_PAYLOAD_SIZE (BLOCK_SIZE - 4u) /* of a block; its checksum follows */
#define RUN_NAME_SIZE    26u               /* "0000000001-0000000008.run" and its NUL */
#define RUN_PART_NAME_SIZE (RUN_NAME_SIZE + 16u) /* with ".part1" */

/* Bits of terms_known: which terms a run was made with, of those that the first runs had not. One
 * without is read as it is, and made again in the background. */
#define RUN_KNOWS_FIRST 1u
#define RUN_KNOWS_ALL   RUN_KNOWS_FIRST

/* Positions that an entry of the dictionary holds itself; with more it points to postings. */
#define RUN_INLINE_MAX 8u
#define RUN_GROUP      128u /* postings decoded at a time */

#define RUN_SKIP_SIZE       16u
#define RUN_SKIPS_A_BLOCK   (RUN_PAYLOAD_SIZE / RUN_SKIP_SIZE)
#define RUN_FENCE_SIZE      10u
#define RUN_FENCES_A_BLOCK  (RUN_PAYLOAD_SIZE / RUN_FENCE_SIZE)
#define RUN_FENCE_NONE      UINT16_MAX /* no entry begins in that block */
#define RUN_LINE_SIZE       64u
#define RUN_LINES_A_BLOCK   (RUN_PAYLOAD_SIZE / RUN_LINE_SIZE)
#define RUN_LINE_BITS       (RUN_LINE_SIZE * 8)
#define RUN_BITS_A_TERM     10u
#define RUN_PROBES          6u

/* The longest term: an event's id and the name of its stream. */
#define RUN_TERM_SIZE_MAX (16u + UINT16_MAX)
#define VARINT_SIZE_MAX   10u

struct run_footer {
    deed_uuid log_id;
    uint8_t run_id[16]; /* of this file: the seed of its checksums */
    uint64_t hash_seed;
    uint32_t first_segment, last_segment;
    uint64_t first_position, last_position; /* last = first - 1: none */
    uint8_t hash[SHA256_SIZE];              /* of the last commit that it covers */
    uint64_t terms, postings, streams;      /* streams: those that begin here */
    uint64_t dictionary_size, postings_size, skips, lines;
    uint32_t terms_known; /* RUN_KNOWS_... */
};

/* Where the sections begin, in blocks. */
struct run_layout {
    uint64_t dictionary_blocks, postings, skips, fences, filter, footer;
};

static inline uint64_t blocks_for(uint64_t count, uint64_t a_block)
{
    return count / a_block + (count % a_block != 0);
}

static inline struct run_layout run_layout_of(const struct run_footer *f)
{
    struct run_layout l = {.dictionary_blocks = blocks_for(f->dictionary_size, RUN_PAYLOAD_SIZE)};
    l.postings = l.dictionary_blocks;
    l.skips = l.postings + blocks_for(f->postings_size, RUN_PAYLOAD_SIZE);
    l.fences = l.skips + blocks_for(f->skips, RUN_SKIPS_A_BLOCK);
    l.filter = l.fences + blocks_for(l.dictionary_blocks, RUN_FENCES_A_BLOCK);
    l.footer = l.filter + blocks_for(f->lines, RUN_LINES_A_BLOCK);
    return l;
}

/* The checksum of a block's payload: bound to its file and its place. The footer's run id is not
 * known before it is read: its own checksum is bound to zeros. */
static inline uint32_t run_block_crc(const uint8_t run_id[16], uint64_t number,
                                     const uint8_t *payload)
{
    uint8_t seed[24];
    memcpy(seed, run_id, 16);
    put_uint(seed + 16, number, 8);
    return crc32c(crc32c(0, (deed_bytes){seed, sizeof seed}), (deed_bytes){payload, RUN_PAYLOAD_SIZE});
}

void run_footer_encode(const struct run_footer *footer, uint64_t number, uint8_t out[BLOCK_SIZE]);
/* DEED_CORRUPT: it is not a footer at that block number, or makes no sense. DEED_TOO_NEW. */
DEED_MUST_CHECK deed_status run_footer_decode(const uint8_t in[BLOCK_SIZE], uint64_t number,
                                              struct run_footer *out, struct deed_error *err);

void run_name(uint32_t first_segment, uint32_t last_segment, char out[RUN_NAME_SIZE]);
/* `part` 0: the run's own name. */
void run_part_name(uint32_t first_segment, uint32_t last_segment, uint32_t part,
                   char out[RUN_PART_NAME_SIZE]);
/* false: not a run's name. */
bool run_name_parse(const char *name, uint32_t *out_first, uint32_t *out_last);

/* ---- the filter: a line of 512 bits for each hash, six bits in it --------------------------- */

static inline uint64_t run_line_of(uint64_t hash, uint64_t lines)
{
    return (uint64_t)(((unsigned __int128)hash * lines) >> 64);
}

static inline uint64_t run_bits_of(uint64_t hash)
{
    return hash * UINT64_C(0x9e3779b97f4a7c15);
}

static inline void run_line_add(uint8_t line[RUN_LINE_SIZE], uint64_t hash)
{
    uint64_t bits = run_bits_of(hash);
    for (unsigned i = 0; i < RUN_PROBES; i++, bits >>= 9) {
        line[(bits & 511) / 8] |= (uint8_t)(1u << (bits & 7));
    }
}

static inline bool run_line_has(const uint8_t line[RUN_LINE_SIZE], uint64_t hash)
{
    uint64_t bits = run_bits_of(hash);
    for (unsigned i = 0; i < RUN_PROBES; i++, bits >>= 9) {
        if ((line[(bits & 511) / 8] & (1u << (bits & 7))) == 0) return false;
    }
    return true;
}

/* ---- numbers of one to ten bytes ------------------------------------------------------------ */

/* Seven bits a byte, low ones first; the high bit says that more follow. */
static inline size_t varint_put(uint8_t *out, uint64_t value)
{
    size_t n = 0;
    for (; value >= 0x80; value >>= 7) out[n++] = (uint8_t)(value | 0x80);
    out[n++] = (uint8_t)value;
    return n;
}

/* Zero when it runs dry, as the reader's other fields do. */
static inline uint64_t read_varint(struct reader *r)
{
    uint64_t value = 0;
    bool one = !r->dry && r->at < r->in.len && r->in.ptr[r->at] < 0x80; /* most are short */
    if (one) return r->in.ptr[r->at++];
    for (unsigned shift = 0; shift < 64; shift += 7) {
        uint8_t byte = read_u8(r);
        value |= (uint64_t)(byte & 0x7f) << shift;
        if (byte < 0x80) return value;
    }
    r->dry = true;
    return 0;
}

#endif
