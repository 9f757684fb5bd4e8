/* sealed.c - header, body, table, map, footer.
 *
 *   0        4096                       sectors           sectors             the last two
 *   +--------+--------------------------+-----------------+-----+-----+--------+--------+
 *   | header | commit commit commit ... | table of commits| map | map | footer | footer |
 *   +--------+--------------------------+-----------------+-----+-----+--------+--------+
 *              or blocks of zstd          16 bytes each     only then
 *
 *   table block:  | crc | count | position, offset / 8, recorded at | ... |      4096 bytes each
 *   map block:    | crc | count | file offset, size, crc of a block | ... |
 *
 * (1) Commits stand one behind another by logical offset, the first at 4096. A compressed block
 *     holds SEALED_RAW_SIZE logical bytes, the last one what is left: so block i is entry i.
 * (2) Each 4096 bytes of table and map have a checksum of their own, seeded with log, segment,
 *     generation and place. Commits have theirs, compressed blocks too.
 * (3) The footer is written last. Its hash covers all before it; a file without a good footer was
 *     not finished, or is damaged. Footer and map are there twice: without them a damaged sector
 *     would cost much more than what stood in it. The table can be made from the commits.
 * (4) Before a file gets its name all of it was read back from the device.
 *
 * Normative: docs/format/log.md */
#include "log/sealed.h"

#include "base/planted.h"
#include "base/uuid.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <zstd.h>

static const uint8_t footer_magic[8] = {'D', 'E', 'E', 'D', 'E', 'N', 'D', '\n'};

#define FOOTER_VERSION   1
#define FOOTER_CRC_FROM  12
#define BLOCK_HEAD_SIZE  8
#define TABLE_ENTRY_SIZE 16u
#define MAP_ENTRY_SIZE   16u
#define MAP_PER_BLOCK    ((BLOCK_SIZE - BLOCK_HEAD_SIZE) / MAP_ENTRY_SIZE)
/* Read at a time. */
#define STEP_SIZE        (256u << 10)

static_assert(BLOCK_SIZE == SECTOR_SIZE, "tables are read through the cache");
static_assert(SEALED_TABLE_PER_BLOCK == (BLOCK_SIZE - BLOCK_HEAD_SIZE) / TABLE_ENTRY_SIZE,
              "as docs/format/log.md says");

/* ---- names ---------------------------------------------------------------------------------- */

void sealed_name_format(const struct sealed_name *name, char out[SEALED_NAME_SIZE])
{
    (void)snprintf(out, SEALED_NAME_SIZE, "%010" PRIu32 ".%020" PRIu64 ".%" PRIu32 ".sealed",
                   name->number, name->first_position, name->generation);
}

/* Digits of `*text`, which moves behind them. */
static bool parse_number(const char **text, uint64_t max, uint64_t *out)
{
    uint64_t value = 0;
    const char *at = *text;
    for (; *at >= '0' && *at <= '9'; at++) {
        uint64_t digit = (uint64_t)(*at - '0');
        if (value > (max - digit) / 10) return false;
        value = value * 10 + digit;
    }
    bool some = at != *text;
    *text = at;
    *out = value;
    return some;
}

bool sealed_name_parse(const char *text, struct sealed_name *out_name, bool *out_new)
{
    const char *at = text;
    uint64_t number, first, generation;
    if (!parse_number(&at, UINT32_MAX, &number) || *at++ != '.') return false;
    if (!parse_number(&at, POSITION_MAX, &first) || *at++ != '.') return false;
    if (!parse_number(&at, UINT32_MAX, &generation)) return false;
    struct sealed_name name = {(uint32_t)number, (uint32_t)generation, first};
    char again[SEALED_NAME_SIZE];
    sealed_name_format(&name, again);
    size_t size = strlen(again);
    if (number == 0 || generation == 0 || first == 0 || strncmp(text, again, size) != 0) {
        return false;
    }
    *out_new = strcmp(text + size, NAME_UNFINISHED) == 0;
    if (!*out_new && text[size] != '\0') return false;
    *out_name = name;
    return true;
}

/* ---- footer --------------------------------------------------------------------------------- */

static void footer_encode(const struct sealed_footer *f, uint8_t out[SEALED_FOOTER_SIZE])
{
    struct buf b;
    uint8_t bytes[SEALED_FOOTER_SIZE];
    b = (struct buf){.ptr = bytes, .room = sizeof bytes, .size_max = sizeof bytes};
    buf_add(&b, footer_magic, sizeof footer_magic);
    write_u32(&b, 0);
    write_u32(&b, FOOTER_VERSION);
    buf_add(&b, f->log_id.bytes, 16);
    write_u64(&b, f->epoch);
    write_u32(&b, f->number);
    write_u32(&b, f->generation);
    write_u64(&b, f->first_position);
    write_u64(&b, f->last_position);
    write_u64(&b, f->commit_count);
    write_u64(&b, f->event_count);
    write_u64(&b, f->removed_count);
    write_u64(&b, f->first_kept);
    write_u64(&b, f->first_removed);
    write_i64(&b, f->first_recorded_at_ns);
    write_i64(&b, f->last_recorded_at_ns);
    buf_add(&b, f->previous, SHA256_SIZE);
    buf_add(&b, f->hash, SHA256_SIZE);
    write_u64(&b, f->logical_end);
    write_u64(&b, f->table_offset);
    write_u64(&b, f->table_blocks);
    write_u64(&b, f->map_offset);
    write_u64(&b, f->map_blocks);
    write_u64(&b, f->file_size);
    buf_add(&b, f->content_hash, SHA256_SIZE);
    assert(buf_ok(&b));
    memset(bytes + b.len, 0, sizeof bytes - b.len);
    memcpy(out, bytes, sizeof bytes);
    deed_bytes covered = {out + FOOTER_CRC_FROM, SEALED_FOOTER_SIZE - FOOTER_CRC_FROM};
    put_uint(out + 8, crc32c(0, covered), 4);
}

/* Do the sizes and places make sense together? Nothing below them is computed unchecked. */
static bool footer_plausible(const struct sealed_footer *f)
{
    uint64_t raw = f->logical_end - SEGMENT_HEADER_SIZE;
    uint64_t blocks = (raw + SEALED_RAW_SIZE - 1) / SEALED_RAW_SIZE;
    if (f->first_position == 0 || f->last_position > POSITION_MAX) return false;
    if (f->last_position < f->first_position || f->commit_count == 0) return false;
    if (f->event_count != f->last_position - f->first_position + 1) return false;
    if (f->commit_count > f->event_count) return false;
    if (f->logical_end < SEGMENT_HEADER_SIZE + COMMIT_HEAD_SIZE || raw > UINT32_MAX * UINT64_C(8)) {
        return false;
    }
    if (f->commit_count > raw / COMMIT_HEAD_SIZE) return false;
    uint64_t table_blocks = (f->commit_count + SEALED_TABLE_PER_BLOCK - 1) / SEALED_TABLE_PER_BLOCK;
    if (f->table_blocks != table_blocks) return false;
    if (f->table_offset % BLOCK_SIZE != 0 || f->table_offset > f->file_size) return false;
    bool packed = f->map_blocks > 0;
    if (packed && f->map_blocks != (blocks + MAP_PER_BLOCK - 1) / MAP_PER_BLOCK) return false;
    if (!packed && f->table_offset < f->logical_end) return false;
    uint64_t table_end = f->table_offset + f->table_blocks * BLOCK_SIZE;
    if (packed && f->map_offset != table_end) return false;
    return f->file_size == table_end + 2 * f->map_blocks * BLOCK_SIZE + SEALED_FOOTERS_SIZE;
}

static deed_status footer_decode(const uint8_t in[SEALED_FOOTER_SIZE], struct sealed_footer *out,
                                 struct deed_error *err)
{
    struct reader r = reader_over((deed_bytes){in, SEALED_FOOTER_SIZE});
    struct sealed_footer f = {0};
    deed_bytes magic = read_bytes(&r, sizeof footer_magic);
    uint32_t crc = read_u32(&r);
    deed_bytes covered = {in + FOOTER_CRC_FROM, SEALED_FOOTER_SIZE - FOOTER_CRC_FROM};
    if (!PLANTED(ANY_FOOTER) &&
        (memcmp(magic.ptr, footer_magic, magic.len) != 0 || crc32c(0, covered) != crc)) {
        return deed_fail(err, DEED_CORRUPT, "the footer's checksum does not match");
    }
    uint32_t version = read_u32(&r);
    if (version != FOOTER_VERSION) {
        return deed_fail(err, DEED_TOO_NEW, "footer format %u, this program reads %d", version,
                         FOOTER_VERSION);
    }
    read_into(&r, f.log_id.bytes, 16);
    f.epoch = read_u64(&r);
    f.number = read_u32(&r);
    f.generation = read_u32(&r);
    f.first_position = read_u64(&r);
    f.last_position = read_u64(&r);
    f.commit_count = read_u64(&r);
    f.event_count = read_u64(&r);
    f.removed_count = read_u64(&r);
    f.first_kept = read_u64(&r);
    f.first_removed = read_u64(&r);
    f.first_recorded_at_ns = read_i64(&r);
    f.last_recorded_at_ns = read_i64(&r);
    read_into(&r, f.previous, SHA256_SIZE);
    read_into(&r, f.hash, SHA256_SIZE);
    f.logical_end = read_u64(&r);
    f.table_offset = read_u64(&r);
    f.table_blocks = read_u64(&r);
    f.map_offset = read_u64(&r);
    f.map_blocks = read_u64(&r);
    f.file_size = read_u64(&r);
    read_into(&r, f.content_hash, SHA256_SIZE);
    if (!footer_plausible(&f)) {
        return deed_fail(err, DEED_CORRUPT, "the footer's numbers do not fit together");
    }
    *out = f;
    return DEED_OK;
}

/* One copy. */
static deed_status footer_read(struct os_file *file, uint64_t offset, uint64_t file_size,
                               const struct sealed_name *name, deed_uuid log_id,
                               struct sealed_footer *out, struct deed_error *err)
{
    uint8_t bytes[SEALED_FOOTER_SIZE];
    struct sealed_footer f;
    size_t got = 0;
    deed_status status = os_file_read(file, offset, bytes, sizeof bytes, &got, err);
    if (status != DEED_OK) return status;
    memset(bytes + got, 0, sizeof bytes - got);
    status = footer_decode(bytes, &f, err);
    if (status != DEED_OK) return status;
    if (f.file_size != file_size || f.number != name->number ||
        f.generation != name->generation || f.first_position != name->first_position ||
        !uuid_equal(f.log_id, log_id)) {
        return deed_fail(err, DEED_CORRUPT, "the footer belongs to another file");
    }
    *out = f;
    return DEED_OK;
}

deed_status sealed_footer_load(struct os_file *file, const struct sealed_name *name,
                               deed_uuid log_id, struct sealed_footer *out_footer,
                               struct deed_error *err)
{
    uint64_t size = 0;
    deed_status status = os_file_size(file, &size, err);
    if (status == DEED_OK && (size < SEGMENT_HEADER_SIZE + SEALED_FOOTERS_SIZE ||
                              size % SECTOR_SIZE != 0)) {
        status = deed_fail(err, DEED_CORRUPT, "%s: %llu bytes, that is no whole file", file->name,
                           (unsigned long long)size);
    }
    if (status != DEED_OK) return status;
    uint64_t offset = size - SEALED_FOOTER_SIZE;
    status = footer_read(file, offset, size, name, log_id, out_footer, err);
    if (status == DEED_CORRUPT || status == DEED_IO) {
        offset -= SEALED_FOOTER_SIZE;
        status = footer_read(file, offset, size, name, log_id, out_footer, err);
    }
    if (status != DEED_OK) deed_wrap(err, "%s", file->name);
    return status;
}

/* ---- blocks of table and map ---------------------------------------------------------------- */

static uint32_t block_crc(const struct sealed_footer *f, uint64_t offset,
                          const uint8_t block[BLOCK_SIZE])
{
    uint8_t seed[16 + 4 + 4 + 8];
    memcpy(seed, f->log_id.bytes, 16);
    put_uint(seed + 16, f->number, 4);
    put_uint(seed + 20, f->generation, 4);
    put_uint(seed + 24, offset, 8);
    uint32_t crc = crc32c(0, (deed_bytes){seed, sizeof seed});
    return crc32c(crc, (deed_bytes){block + 4, BLOCK_SIZE - 4});
}

/* Read one, and check that it holds `count` entries. */
static deed_status block_load(const struct sealed_file *file, const struct sealed_footer *f,
                              uint64_t offset, uint8_t out[BLOCK_SIZE], const char *what,
                              struct deed_error *err)
{
    size_t got = 0;
    deed_status status = os_file_read(file->file, offset, out, BLOCK_SIZE, &got, err);
    if (status != DEED_OK) return status;
    if (got == BLOCK_SIZE && get_uint(out, 4) == block_crc(f, offset, out)) return DEED_OK;
    return deed_fail(err, DEED_CORRUPT, "segment %u: its %s is damaged at offset %llu", f->number,
                     what, (unsigned long long)offset);
}

struct load_context {
    const struct sealed_file *file;
    const struct sealed_footer *footer;
    const char *what;
};

static deed_status load_for_cache(void *context, uint64_t number, uint8_t out[BLOCK_SIZE],
                                  struct deed_error *err)
{
    const struct load_context *c = context;
    return block_load(c->file, c->footer, number * BLOCK_SIZE, out, c->what, err);
}

/* A block's bytes, in the cache where there is one: who looks up one entry copies no block. */
struct loan {
    const uint8_t *bytes;
    struct block *block; /* NULL: they are in `own` */
    uint8_t own[BLOCK_SIZE];
};

static void block_return(const struct sealed_file *file, struct loan *loan)
{
    if (loan->block != NULL) block_cache_put(file->cache, loan->block);
    loan->block = NULL;
}

static deed_status block_borrow(const struct sealed_file *file, const struct sealed_footer *f,
                                uint64_t offset, uint64_t count, struct loan *out,
                                const char *what, struct deed_error *err)
{
    deed_status status;
    out->block = NULL;
    if (file->cache == NULL) {
        status = block_load(file, f, offset, out->own, what, err);
        out->bytes = out->own;
    } else {
        struct load_context context = {file, f, what};
        status = block_cache_get(file->cache, file->source, offset / BLOCK_SIZE, load_for_cache,
                                 &context, &out->block, err);
        if (status != DEED_OK) out->block = NULL;
        if (status == DEED_OK) out->bytes = block_bytes(out->block);
    }
    if (status != DEED_OK || get_uint(out->bytes + 4, 4) == count) return status;
    block_return(file, out);
    return deed_fail(err, DEED_CORRUPT, "segment %u: its %s makes no sense at offset %llu",
                     f->number, what, (unsigned long long)offset);
}

static deed_status block_read(const struct sealed_file *file, const struct sealed_footer *f,
                              uint64_t offset, uint64_t count, uint8_t out[BLOCK_SIZE],
                              const char *what, struct deed_error *err)
{
    struct loan loan;
    deed_status status = block_borrow(file, f, offset, count, &loan, what, err);
    if (status != DEED_OK) return status;
    memcpy(out, loan.bytes, BLOCK_SIZE);
    block_return(file, &loan);
    return DEED_OK;
}

static uint64_t table_count(const struct sealed_footer *f, uint64_t block)
{
    uint64_t left = f->commit_count - block * SEALED_TABLE_PER_BLOCK;
    return left < SEALED_TABLE_PER_BLOCK ? left : SEALED_TABLE_PER_BLOCK;
}

static deed_status table_borrow(const struct sealed_file *file, const struct sealed_footer *f,
                                uint64_t block, struct loan *out, struct deed_error *err)
{
    return block_borrow(file, f, f->table_offset + block * BLOCK_SIZE, table_count(f, block), out,
                        "table of commits", err);
}

static void table_entry(const struct sealed_footer *f, const uint8_t *block, uint64_t i,
                        uint64_t *out_position, uint64_t *out_offset, int64_t *out_recorded_at_ns)
{
    const uint8_t *at = block + BLOCK_HEAD_SIZE + i * TABLE_ENTRY_SIZE;
    *out_position = f->first_position + get_uint(at, 4);
    *out_offset = get_uint(at + 4, 4) * COMMIT_ALIGN;
    *out_recorded_at_ns =
        (int64_t)((uint64_t)f->first_recorded_at_ns + get_uint(at + 8, 8));
}

/* Entry `i` of the block at hand, with what the next entry says; that may be in the next block. */
static deed_status entry_at(const struct sealed_file *file, const struct sealed_footer *f, uint64_t block,
                            const uint8_t *bytes, uint64_t i, struct sealed_entry *out,
                            struct deed_error *err)
{
    uint64_t next_offset = f->logical_end;
    int64_t ignored;
    struct sealed_entry e = {0};
    table_entry(f, bytes, i, &e.position, &e.offset, &e.recorded_at_ns);
    e.next_position = f->last_position + 1;
    if (i + 1 < table_count(f, block)) {
        table_entry(f, bytes, i + 1, &e.next_position, &next_offset, &ignored);
    } else if (block + 1 < f->table_blocks && !PLANTED(TABLE_SEAM)) {
        struct loan next;
        deed_status status = table_borrow(file, f, block + 1, &next, err);
        if (status != DEED_OK) return status;
        table_entry(f, next.bytes, 0, &e.next_position, &next_offset, &ignored);
        block_return(file, &next);
    }
    bool good = e.offset >= SEGMENT_HEADER_SIZE && next_offset <= f->logical_end &&
                next_offset > e.offset && next_offset - e.offset >= COMMIT_HEAD_SIZE &&
                e.next_position > e.position && e.next_position <= f->last_position + 1;
    if (!good) {
        return deed_fail(err, DEED_CORRUPT, "segment %u: its table of commits makes no sense",
                         f->number);
    }
    e.size = next_offset - e.offset;
    *out = e;
    return DEED_OK;
}

deed_status sealed_at(const struct sealed_file *file, const struct sealed_footer *f, uint64_t i,
                      struct sealed_entry *out_entry, struct deed_error *err)
{
    struct loan loan;
    uint64_t block = i / SEALED_TABLE_PER_BLOCK;
    assert(i < f->commit_count);
    deed_status status = table_borrow(file, f, block, &loan, err);
    if (status != DEED_OK) return status;
    status = entry_at(file, f, block, loan.bytes, i % SEALED_TABLE_PER_BLOCK, out_entry, err);
    block_return(file, &loan);
    return status;
}

/* How many entries of a block begin at or before `position`. Each commit has an event at least, so that
 * many entries lie before it at most: where each has one, the first look finds it. */
static uint64_t entries_up_to(const struct sealed_footer *f, const uint8_t *bytes, uint64_t count,
                              uint64_t position)
{
    uint64_t low = 0;
    uint64_t high = count;
    uint64_t at, offset;
    int64_t time;
    table_entry(f, bytes, 0, &at, &offset, &time);
    if (at > position) return 0;
    if (position - at < high) high = position - at + 1;
    for (uint64_t probe = high - 1; low < high; probe = low + (high - low) / 2) {
        table_entry(f, bytes, probe, &at, &offset, &time);
        if (at <= position) {
            low = probe + 1;
        } else {
            high = probe;
        }
    }
    return low;
}

/* Positions are spread about evenly over the table: guess where, then halve what is left. */
static uint64_t guess_block(uint64_t low, uint64_t high, uint64_t from, uint64_t to,
                            uint64_t position, unsigned tries)
{
    uint64_t middle = low + (high - low) / 2;
    if (tries >= 4 || to <= from || position < from) return middle;
    double share = (double)(position - from) / (double)(to - from);
    uint64_t guess = low + (uint64_t)(share * (double)(high - low + 1));
    return guess < low ? low : guess > high ? high : guess;
}

/* Where the position stands to what one block of the table has. */
enum side { IN_BLOCK, BEFORE_BLOCK, BEHIND_BLOCK, NOWHERE };

/* `*out_from`: the position that the block begins with, or (BEHIND_BLOCK) that follows it. */
static deed_status find_in_block(const struct sealed_file *file, const struct sealed_footer *f,
                                 uint64_t block, uint64_t position, enum side *out_side,
                                 uint64_t *out_from, struct sealed_entry *out,
                                 struct deed_error *err)
{
    struct loan loan;
    uint64_t count = table_count(f, block);
    uint64_t offset;
    int64_t time;
    deed_status status = table_borrow(file, f, block, &loan, err);
    if (status != DEED_OK) return status;
    uint64_t up_to = entries_up_to(f, loan.bytes, count, position);
    table_entry(f, loan.bytes, 0, out_from, &offset, &time);
    *out_side = BEFORE_BLOCK;
    if (up_to > 0) {
        status = entry_at(file, f, block, loan.bytes, up_to - 1, out, err);
        *out_side = position < out->next_position ? IN_BLOCK : up_to < count ? NOWHERE : BEHIND_BLOCK;
        *out_from = out->next_position;
    }
    block_return(file, &loan);
    return status;
}

deed_status sealed_find(const struct sealed_file *file, const struct sealed_footer *f, uint64_t position,
                        struct sealed_entry *out_entry, struct deed_error *err)
{
    uint64_t low = 0;
    uint64_t high = f->table_blocks - 1;
    uint64_t from = f->first_position;
    uint64_t to = f->last_position + 1;
    assert(position >= f->first_position && position <= f->last_position);
    for (unsigned tries = 0;; tries++) {
        uint64_t block = guess_block(low, high, from, to, position, tries);
        uint64_t at = 0;
        struct sealed_entry e = {0};
        enum side side = NOWHERE;
        deed_status status = find_in_block(file, f, block, position, &side, &at, &e, err);
        if (status != DEED_OK) return status;
        if (side == IN_BLOCK) {
            *out_entry = e;
            return DEED_OK;
        }
        if (side == BEFORE_BLOCK && block > low) {
            high = block - 1;
            to = at;
        } else if (side == BEHIND_BLOCK && block < high) {
            low = block + 1;
            from = at;
        } else {
            break;
        }
    }
    return deed_fail(err, DEED_CORRUPT, "segment %u: its table of commits makes no sense",
                     f->number);
}

/* How many entries of the block were recorded at or before `time_ns`, and the position of the next. */
static deed_status older_in_block(const struct sealed_file *file, const struct sealed_footer *f,
                                  uint64_t block, int64_t time_ns, uint64_t *out_count,
                                  uint64_t *out_position, struct deed_error *err)
{
    struct loan loan;
    uint64_t i = 0;
    deed_status status = table_borrow(file, f, block, &loan, err);
    if (status != DEED_OK) return status;
    for (; i < table_count(f, block); i++) {
        uint64_t position, offset;
        int64_t time;
        table_entry(f, loan.bytes, i, &position, &offset, &time);
        if (time <= time_ns) continue;
        *out_position = position;
        break;
    }
    block_return(file, &loan);
    *out_count = i;
    return DEED_OK;
}

deed_status sealed_find_time(const struct sealed_file *file, const struct sealed_footer *f, int64_t time_ns,
                             uint64_t *out_position, struct deed_error *err)
{
    uint64_t low = 0;
    uint64_t high = f->table_blocks;
    uint64_t answer = f->last_position + 1;
    time_ns -= PLANTED(TIME_OFF_BY_ONE);
    while (low < high) {
        uint64_t middle = low + (high - low) / 2;
        uint64_t older = 0;
        deed_status status = older_in_block(file, f, middle, time_ns, &older, &answer, err);
        if (status != DEED_OK) return status;
        if (older == 0) {
            high = middle; /* maybe an earlier block has one */
        } else if (older == table_count(f, middle)) {
            low = middle + 1;
        } else {
            break;
        }
    }
    *out_position = answer;
    return DEED_OK;
}

/* ---- the body ------------------------------------------------------------------------------- */

struct packed_block {
    uint64_t offset;
    uint32_t size, crc;
};

static uint64_t packed_count(const struct sealed_footer *f)
{
    return (f->logical_end - SEGMENT_HEADER_SIZE + SEALED_RAW_SIZE - 1) / SEALED_RAW_SIZE;
}

static uint64_t map_count(const struct sealed_footer *f, uint64_t block)
{
    uint64_t left = packed_count(f) - block * MAP_PER_BLOCK;
    return left < MAP_PER_BLOCK ? left : MAP_PER_BLOCK;
}

/* The block's second copy is as good as the first. */
static deed_status map_read(const struct sealed_file *file, const struct sealed_footer *f, uint64_t block,
                            uint8_t bytes[BLOCK_SIZE], struct deed_error *err)
{
    uint64_t count = map_count(f, block);
    uint64_t offset = f->map_offset + block * BLOCK_SIZE;
    deed_status status = block_read(file, f, offset, count, bytes, "map of blocks", err);
    if (status != DEED_CORRUPT && status != DEED_IO) return status;
    return block_read(file, f, offset + f->map_blocks * BLOCK_SIZE, count, bytes, "map of blocks",
                      err);
}

deed_status sealed_check_block(const struct sealed_file *file, const struct sealed_footer *f,
                               uint64_t offset, const char **out_what, struct deed_error *err)
{
    uint8_t bytes[BLOCK_SIZE];
    const struct sealed_name name = {f->number, f->generation, f->first_position};
    assert(offset >= f->table_offset && offset < f->file_size && offset % BLOCK_SIZE == 0);
    if (offset >= f->file_size - SEALED_FOOTERS_SIZE) {
        struct sealed_footer again;
        *out_what = "one of a sealed segment's two footers is damaged";
        return footer_read(file->file, offset, f->file_size, &name, f->log_id, &again, err);
    }
    uint64_t i = (offset - f->table_offset) / BLOCK_SIZE;
    if (i < f->table_blocks) {
        *out_what = "a sealed segment's table of commits is damaged";
        return block_read(file, f, offset, table_count(f, i), bytes, "table of commits", err);
    }
    *out_what = "one of a sealed segment's two maps of blocks is damaged";
    uint64_t count = map_count(f, (i - f->table_blocks) % f->map_blocks);
    return block_read(file, f, offset, count, bytes, "map of blocks", err);
}

static deed_status map_at(const struct sealed_file *file, const struct sealed_footer *f, uint64_t i,
                          uint8_t bytes[BLOCK_SIZE], uint64_t *inout_block,
                          struct packed_block *out, struct deed_error *err)
{
    uint64_t block = i / MAP_PER_BLOCK;
    if (*inout_block != block) {
        deed_status status = map_read(file, f, block, bytes, err);
        if (status != DEED_OK) return status;
        *inout_block = block;
    }
    const uint8_t *at = bytes + BLOCK_HEAD_SIZE + (i % MAP_PER_BLOCK) * MAP_ENTRY_SIZE;
    *out = (struct packed_block){get_uint(at, 8), (uint32_t)get_uint(at + 8, 4),
                                 (uint32_t)get_uint(at + 12, 4)};
    if (out->offset < SEGMENT_HEADER_SIZE || out->offset > f->table_offset ||
        out->size > f->table_offset - out->offset) {
        return deed_fail(err, DEED_CORRUPT, "segment %u: its map of blocks makes no sense",
                         f->number);
    }
    return DEED_OK;
}

deed_status sealed_check_pad(const struct sealed_file *file, const struct sealed_footer *f,
                             uint64_t *out_from, struct deed_error *err)
{
    static const uint8_t zeros[BLOCK_SIZE];
    uint8_t bytes[BLOCK_SIZE];
    uint64_t from = f->logical_end;
    size_t got = 0;
    *out_from = DEED_NONE;
    if (f->map_blocks > 0) {
        struct packed_block last;
        uint64_t map_block = DEED_NONE;
        deed_status status = map_at(file, f, packed_count(f) - 1, bytes, &map_block, &last, err);
        if (status != DEED_OK) return status;
        from = last.offset + last.size;
    }
    *out_from = from;
    uint64_t size = f->table_offset - from;
    if (size == 0) return DEED_OK;
    if (size < BLOCK_SIZE) {
        deed_status status = os_file_read(file->file, from, bytes, (size_t)size, &got, err);
        if (status != DEED_OK) return status;
        if (got == size && memcmp(bytes, zeros, got) == 0) return DEED_OK;
    }
    return deed_fail(err, DEED_CORRUPT, "segment %u: there should be zeros from offset %llu to %llu",
                     f->number, (unsigned long long)from, (unsigned long long)f->table_offset);
}

static deed_status unpack(const struct sealed_file *file, const struct sealed_footer *f,
                          const struct packed_block *b, size_t raw_size, struct buf *out,
                          struct buf *packed, struct deed_error *err)
{
    size_t got = 0;
    buf_reset(packed);
    uint8_t *room = buf_reserve(packed, b->size);
    uint8_t *to = buf_reserve(out, raw_size);
    if (room == NULL || to == NULL) return deed_fail(err, DEED_NO_MEMORY, "read: out of memory");
    deed_status status = os_file_read(file->file, b->offset, room, b->size, &got, err);
    if (status != DEED_OK) return status;
    bool good = got == b->size && crc32c(0, (deed_bytes){room, got}) == b->crc &&
                ZSTD_decompress(to, raw_size, room, got) == raw_size;
    if (!good) {
        return deed_fail(err, DEED_CORRUPT, "segment %u: the compressed block at %llu is damaged",
                         f->number, (unsigned long long)b->offset);
    }
    out->len += raw_size;
    return DEED_OK;
}

static deed_status read_packed(const struct sealed_file *file, const struct sealed_footer *f, uint64_t offset,
                               uint64_t end, struct buf *out, struct buf *packed,
                               uint64_t *out_from, struct deed_error *err)
{
    uint8_t map[BLOCK_SIZE];
    uint64_t map_block = DEED_NONE;
    uint64_t i = (offset - SEGMENT_HEADER_SIZE) / SEALED_RAW_SIZE;
    uint64_t at = SEGMENT_HEADER_SIZE + i * SEALED_RAW_SIZE;
    *out_from = at;
    while (at < end) {
        struct packed_block b;
        uint64_t left = f->logical_end - at;
        size_t raw = left < SEALED_RAW_SIZE ? (size_t)left : SEALED_RAW_SIZE;
        deed_status status = map_at(file, f, i++, map, &map_block, &b, err);
        if (status == DEED_OK) status = unpack(file, f, &b, raw, out, packed, err);
        if (status != DEED_OK) return status;
        at += raw;
    }
    return DEED_OK;
}

deed_status sealed_read(const struct sealed_file *file, const struct sealed_footer *f, uint64_t offset,
                        uint64_t size, struct buf *out, struct buf *packed, uint64_t *out_from,
                        struct deed_error *err)
{
    assert(offset >= SEGMENT_HEADER_SIZE && offset <= f->logical_end);
    uint64_t end = size < f->logical_end - offset ? offset + size : f->logical_end;
    buf_reset(out);
    if (f->map_blocks > 0) return read_packed(file, f, offset, end, out, packed, out_from, err);
    size_t got = 0;
    size_t want = (size_t)(end - offset);
    uint8_t *room = buf_reserve(out, want);
    if (room == NULL) return deed_fail(err, DEED_NO_MEMORY, "read: out of memory");
    deed_status status = os_file_read(file->file, offset, room, want, &got, err);
    if (status != DEED_OK) return status;
    if (got < want) {
        return deed_fail(err, DEED_CORRUPT, "segment %u: the file ends at %llu", f->number,
                         (unsigned long long)(offset + got));
    }
    out->len = want;
    *out_from = offset;
    return DEED_OK;
}

/* ---- writing -------------------------------------------------------------------------------- */

static deed_status no_memory(const struct sealed_writer *w, struct deed_error *err)
{
    return deed_fail(err, DEED_NO_MEMORY, "%s: no memory to write it", w->new_name);
}

deed_status sealed_writer_begin(struct sealed_writer *w, struct os_dir *dir,
                                const struct segment_header *header, int level,
                                struct deed_error *err)
{
    assert(header->sealed && header->generation > 0);
    *w = (struct sealed_writer){.dir = dir, .level = level, .step_size = SEALED_STEP_SIZE};
    struct sealed_name name = {header->number, header->generation, header->first_position};
    sealed_name_format(&name, w->name);
    (void)snprintf(w->new_name, sizeof w->new_name, "%s" NAME_UNFINISHED, w->name);
    w->footer = (struct sealed_footer){.log_id = header->log_id,
                                       .epoch = header->epoch,
                                       .number = header->number,
                                       .generation = header->generation,
                                       .first_position = header->first_position,
                                       .last_position = header->first_position - 1,
                                       .first_kept = DEED_NONE,
                                       .first_removed = DEED_NONE,
                                       .logical_end = SEGMENT_HEADER_SIZE};
    memcpy(w->footer.previous, header->previous, SHA256_SIZE);
    memcpy(w->footer.hash, header->previous, SHA256_SIZE);
    commit_places_make(header->log_id, header->secret, &w->places);
    buf_init(&w->raw, SIZE_MAX);
    buf_init(&w->out, SIZE_MAX);
    buf_init(&w->table, SIZE_MAX);
    buf_init(&w->map, SIZE_MAX);
    uint8_t *head = buf_reserve(&w->out, SEGMENT_HEADER_SIZE);
    if (head == NULL || !sha256_begin(&w->hash)) return no_memory(w, err);
    segment_header_encode(header, head);
    w->out.len = SEGMENT_HEADER_SIZE;
    w->file_offset = SEGMENT_HEADER_SIZE;
    deed_status status = os_file_open(dir, w->new_name, OS_WRITE | OS_CREATE, &w->file, err);
    /* What a crash left of an earlier attempt may be longer. */
    if (status == DEED_OK) status = os_file_truncate(w->file, 0, err);
    return status;
}

/* Move a block of raw bytes to the file's, compressed. */
static deed_status pack(struct sealed_writer *w, size_t raw_size, struct deed_error *err)
{
    size_t bound = ZSTD_compressBound(raw_size);
    uint8_t *to = buf_reserve(&w->out, bound);
    if (to == NULL) return no_memory(w, err);
    size_t size = ZSTD_compress(to, bound, w->raw.ptr, raw_size, w->level);
    if (ZSTD_isError(size)) {
        return deed_fail(err, DEED_NO_MEMORY, "%s: zstd: %s", w->new_name, ZSTD_getErrorName(size));
    }
    write_u64(&w->map, w->file_offset);
    write_u32(&w->map, (uint32_t)size);
    write_u32(&w->map, crc32c(0, (deed_bytes){to, size}));
    w->out.len += size;
    w->file_offset += size;
    buf_consume(&w->raw, raw_size);
    return buf_ok(&w->map) ? DEED_OK : no_memory(w, err);
}

deed_status sealed_writer_add(struct sealed_writer *w, deed_bytes bytes,
                              const struct commit *commit, struct deed_error *err)
{
    struct sealed_footer *f = &w->footer;
    struct buf *body = w->level > 0 ? &w->raw : &w->out;
    struct commit_seed seed = {
        .segment = f->number, .offset = f->logical_end, .places = &w->places};
    assert(bytes.len == commit->size && bytes.len % COMMIT_ALIGN == 0);
    assert(commit->first_position == f->last_position + 1);
    uint8_t *room = buf_reserve(body, bytes.len);
    if (room == NULL) return no_memory(w, err);
    memcpy(room, bytes.ptr, bytes.len);
    commit_reseal(room, &seed);
    body->len += bytes.len;
    if (f->commit_count == 0) f->first_recorded_at_ns = commit->recorded_at_ns;
    write_u32(&w->table, (uint32_t)(commit->first_position - f->first_position));
    write_u32(&w->table, (uint32_t)(f->logical_end / COMMIT_ALIGN));
    write_u64(&w->table, (uint64_t)commit->recorded_at_ns - (uint64_t)f->first_recorded_at_ns);
    if (!buf_ok(&w->table)) return no_memory(w, err);

    f->logical_end += bytes.len;
    f->last_position += commit->event_count;
    f->commit_count++;
    f->event_count += commit->event_count;
    f->last_recorded_at_ns = commit->recorded_at_ns;
    memcpy(f->hash, commit->hash, SHA256_SIZE);
    if (w->level == 0) w->file_offset += bytes.len;
    while (w->level > 0 && w->raw.len >= SEALED_RAW_SIZE) {
        deed_status status = pack(w, SEALED_RAW_SIZE, err);
        if (status != DEED_OK) return status;
    }
    return DEED_OK;
}

uint64_t sealed_writer_waiting(const struct sealed_writer *w)
{
    return w->out.len;
}

deed_status sealed_writer_sync(struct sealed_writer *w, struct deed_error *err)
{
    deed_status status = DEED_OK;
    while (status == DEED_OK && w->out.len > 0) {
        size_t size = w->out.len < w->step_size ? w->out.len : (size_t)w->step_size;
        sha256_add(&w->hash, (deed_bytes){w->out.ptr, size});
        w->written_crc = crc32c(w->written_crc, (deed_bytes){w->out.ptr, size});
        status = os_file_write(w->file, w->synced, (deed_bytes){w->out.ptr, size}, err);
        if (status == DEED_OK && !PLANTED(SEAL_WITHOUT_SYNC)) status = os_file_sync(w->file, err);
        if (status != DEED_OK) break;
        w->synced += size;
        buf_consume(&w->out, size);
    }
    return status;
}

static deed_status pad_sector(struct sealed_writer *w, struct deed_error *err)
{
    uint64_t padded = align_up(w->file_offset, SECTOR_SIZE);
    buf_add_zeros(&w->out, (size_t)(padded - w->file_offset));
    w->file_offset = padded;
    return buf_ok(&w->out) ? DEED_OK : no_memory(w, err);
}

/* Entries as blocks of their own checksums (2). */
static deed_status write_blocks(struct sealed_writer *w, const struct buf *entries,
                                size_t entry_size, uint64_t *out_blocks, struct deed_error *err)
{
    size_t per_block = (BLOCK_SIZE - BLOCK_HEAD_SIZE) / entry_size * entry_size;
    *out_blocks = 0;
    for (size_t at = 0; at < entries->len; at += per_block) {
        uint8_t block[BLOCK_SIZE] = {0};
        size_t size = entries->len - at < per_block ? entries->len - at : per_block;
        put_uint(block + 4, size / entry_size, 4);
        memcpy(block + BLOCK_HEAD_SIZE, entries->ptr + at, size);
        put_uint(block, block_crc(&w->footer, w->file_offset, block), 4);
        buf_add(&w->out, block, sizeof block);
        w->file_offset += sizeof block;
        (*out_blocks)++;
    }
    return buf_ok(&w->out) ? DEED_OK : no_memory(w, err);
}

deed_status sealed_writer_finish(struct sealed_writer *w, struct deed_error *err)
{
    struct sealed_footer *f = &w->footer;
    uint8_t bytes[SEALED_FOOTERS_SIZE];
    deed_status status = DEED_OK;
    assert(f->commit_count > 0);
    if (w->raw.len > 0) status = pack(w, w->raw.len, err);
    if (status == DEED_OK) status = pad_sector(w, err);
    f->table_offset = w->file_offset;
    if (status == DEED_OK) status = write_blocks(w, &w->table, TABLE_ENTRY_SIZE, &f->table_blocks, err);
    f->map_offset = w->level > 0 ? w->file_offset : 0;
    if (status == DEED_OK) status = write_blocks(w, &w->map, MAP_ENTRY_SIZE, &f->map_blocks, err);
    if (status == DEED_OK) status = write_blocks(w, &w->map, MAP_ENTRY_SIZE, &f->map_blocks, err);
    if (status == DEED_OK) status = sealed_writer_sync(w, err);
    if (status != DEED_OK) return status;

    assert(w->synced == w->file_offset);
    f->file_size = w->file_offset + SEALED_FOOTERS_SIZE;
    sha256_end(&w->hash, f->content_hash);
    w->hash = (struct sha256_stream){0};
    footer_encode(f, bytes);
    memcpy(bytes + SEALED_FOOTER_SIZE, bytes, SEALED_FOOTER_SIZE);
    status = os_file_write(w->file, w->synced, (deed_bytes){bytes, sizeof bytes}, err);
    if (status == DEED_OK && !PLANTED(SEAL_WITHOUT_SYNC)) status = os_file_sync(w->file, err);
    return status;
}

/* All was read: is it what was written? That is about accidents, for which a CRC is made; the commits
 * and blocks inside have their own besides. */
static deed_status check_end(struct sealed_writer *w, struct deed_error *err)
{
    uint8_t bytes[SEALED_FOOTERS_SIZE];
    uint8_t wanted[SEALED_FOOTERS_SIZE];
    size_t got = 0;
    footer_encode(&w->footer, wanted);
    memcpy(wanted + SEALED_FOOTER_SIZE, wanted, SEALED_FOOTER_SIZE);
    deed_status status =
        os_file_read(w->check_file, w->checked, bytes, sizeof bytes, &got, err);
    if (status != DEED_OK) return status;
    if (got == sizeof bytes && memcmp(bytes, wanted, sizeof bytes) == 0 &&
        w->checked_crc == w->written_crc) {
        return DEED_END;
    }
    return deed_fail(err, DEED_CORRUPT, "%s: the device gives back other bytes than were written",
                     w->new_name);
}

deed_status sealed_writer_check(struct sealed_writer *w, struct deed_error *err)
{
    uint64_t end = w->footer.file_size - SEALED_FOOTERS_SIZE;
    size_t got = 0;
    if (PLANTED(SEAL_UNCHECKED)) return DEED_END;
    if (w->check_file == NULL) {
        deed_status status =
            os_file_open(w->dir, w->new_name, OS_READ | OS_DIRECT, &w->check_file, err);
        if (status != DEED_OK) return status;
        w->check_bytes = malloc(STEP_SIZE);
        if (w->check_bytes == NULL) return no_memory(w, err);
    }
    size_t size = end - w->checked < STEP_SIZE ? (size_t)(end - w->checked) : STEP_SIZE;
    if (size == 0) return check_end(w, err);
    deed_status status = os_file_read(w->check_file, w->checked, w->check_bytes, size, &got, err);
    if (status != DEED_OK) return status;
    w->checked_crc = crc32c(w->checked_crc, (deed_bytes){w->check_bytes, got});
    w->checked += size;
    return DEED_OK;
}

deed_status sealed_writer_publish(struct sealed_writer *w, struct deed_error *err)
{
    deed_status status = os_rename(w->dir, w->new_name, w->name, err);
    if (status != DEED_OK) return status;
    os_file_close(w->file);
    w->file = NULL;
    return PLANTED(SEAL_WITHOUT_DIR_SYNC) ? DEED_OK : os_dir_sync(w->dir, err);
}

void sealed_writer_done(struct sealed_writer *w)
{
    if (w->file != NULL) {
        os_file_close(w->file);
        (void)!os_remove(w->dir, w->new_name, NULL);
    }
    os_file_close(w->check_file);
    free(w->check_bytes);
    sha256_end(&w->hash, NULL);
    buf_done(&w->raw);
    buf_done(&w->out);
    buf_done(&w->table);
    buf_done(&w->map);
    *w = (struct sealed_writer){0};
}
