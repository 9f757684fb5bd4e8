/* commit.c - head, checksum and chain.
 *
 *   0       4        8      12      16         24            32             40      48     80    112
 *   +-------+--------+------+-------+----------+-------------+--------------+-------+------+-----+--
 *   | magic | crc32c | size | count | position | recorded at | durable prev | flags | prev | own |
 *   +-------+--------+------+-------+----------+-------------+--------------+-------+------+-----+--
 *
 * (1) The checksum covers everything to its right up to `size`, continued from the seed. A client
 *     could put the image of a commit into an event, at a sector boundary; if a crash tore that
 *     event, recovery would find the image. Without the secret its checksum cannot be made right,
 *     so no checksum is shown to clients either: it would tell about the secret.
 * (2) own = SHA-256(prev, log id, position, count, recorded at, durable before, leaves). Size, flags
 *     and place are left out: repacking and compression change them.
 * (3) The size is a multiple of 8; the bytes behind the last record are zero.
 *
 * Normative: docs/format/log.md */
#include "log/commit.h"

#include "base/planted.h"

#include <assert.h>

#define COMMIT_MAGIC UINT32_C(0x544d4344) /* "DCMT" */

static_assert(COMMIT_HEAD_SIZE == 4 + 4 + 4 + 4 + 8 + 8 + 8 + 8 + 32 + 32, "see the picture");
static_assert(SECTOR_SIZE % COMMIT_ALIGN == 0, "a boundary is aligned");

static_assert(COMMIT_PLACE_SIZE == 4 + 8, "segment and offset");

static uint32_t crc_of_place(deed_uuid log_id, const uint8_t *secret,
                             const uint8_t place[COMMIT_PLACE_SIZE])
{
    uint8_t bytes[16 + COMMIT_SECRET_SIZE + COMMIT_PLACE_SIZE];
    memcpy(bytes, log_id.bytes, 16);
    memcpy(bytes + 16, secret, COMMIT_SECRET_SIZE);
    memcpy(bytes + 16 + COMMIT_SECRET_SIZE, place, COMMIT_PLACE_SIZE);
    return crc32c(0, (deed_bytes){bytes, sizeof bytes});
}

void commit_places_make(deed_uuid log_id, const uint8_t secret[COMMIT_SECRET_SIZE],
                        struct commit_places *out)
{
    uint8_t place[COMMIT_PLACE_SIZE] = {0};
    out->zero = crc_of_place(log_id, secret, place);
    for (size_t i = 0; i < COMMIT_PLACE_SIZE; i++) {
        for (unsigned byte = 0; byte < 256; byte++) {
            place[i] = (uint8_t)byte;
            out->changes[i][byte] = crc_of_place(log_id, secret, place) ^ out->zero;
        }
        place[i] = 0;
    }
}

/* A checksum is linear: of inputs of one length, that of a XOR b XOR c is the XOR of theirs. Small
 * commits would spend as long on their seed as on themselves. */
static uint32_t seed_crc(const struct commit_seed *seed)
{
    if (PLANTED(UNSEEDED_CRC)) return 0;
    if (seed->places == NULL) {
        uint8_t place[COMMIT_PLACE_SIZE];
        put_uint(place, seed->segment, 4);
        put_uint(place + 4, seed->offset, 8);
        return crc_of_place(seed->log_id, seed->secret, place);
    }
    /* A byte of zero changes nothing, and most of a place's bytes are. */
    const uint32_t(*changes)[256] = seed->places->changes;
    uint32_t crc = seed->places->zero;
    for (uint32_t left = seed->segment; left > 0; left >>= 8) crc ^= (*changes++)[left & 255];
    changes = seed->places->changes + 4;
    for (uint64_t left = seed->offset; left > 0; left >>= 8) crc ^= (*changes++)[left & 255];
    return crc;
}

/* (1): how many bytes, from byte 8 on. */
static size_t covered(uint32_t size)
{
    return (PLANTED(HEAD_ONLY_CRC) ? COMMIT_HEAD_SIZE : size) - 8;
}

static void chain_hash(const struct commit *commit, deed_uuid log_id,
                       const uint8_t (*leaves)[SHA256_SIZE], uint8_t out[SHA256_SIZE])
{
    uint8_t head[16 + 8 + 4 + 8 + 8];
    memcpy(head, log_id.bytes, 16);
    put_uint(head + 16, commit->first_position, 8);
    put_uint(head + 24, commit->event_count, 4);
    put_uint(head + 28, (uint64_t)commit->recorded_at_ns, 8);
    put_uint(head + 36, commit->durable_before, 8);
    deed_bytes parts[] = {
        {commit->previous, SHA256_SIZE},
        {head, sizeof head},
        {(const uint8_t *)leaves, (size_t)commit->event_count * SHA256_SIZE},
    };
    sha256(parts, 3, out);
}

size_t commit_begin(struct buf *out)
{
    size_t start = out->len;
    assert(start % COMMIT_ALIGN == 0);
    buf_add_zeros(out, COMMIT_HEAD_SIZE);
    return start;
}

void commit_finish(struct buf *out, size_t start, const struct commit_seed *seed,
                   const uint8_t (*leaves)[SHA256_SIZE], struct commit *commit)
{
    buf_add_zeros(out, (size_t)align_up(out->len, COMMIT_ALIGN) - out->len);
    if (!buf_ok(out)) return;

    commit->size = (uint32_t)(out->len - start);
    chain_hash(commit, seed->log_id, leaves, commit->hash);

    uint8_t *head = out->ptr + start;
    put_uint(head, COMMIT_MAGIC, 4);
    put_uint(head + 8, commit->size, 4);
    put_uint(head + 12, commit->event_count, 4);
    put_uint(head + 16, commit->first_position, 8);
    put_uint(head + 24, (uint64_t)commit->recorded_at_ns, 8);
    put_uint(head + 32, commit->durable_before, 8);
    put_uint(head + 40, 0, 8);
    memcpy(head + 48, commit->previous, SHA256_SIZE);
    memcpy(head + 80, commit->hash, SHA256_SIZE);
    put_uint(head + 4, crc32c(seed_crc(seed), (deed_bytes){head + 8, covered(commit->size)}), 4);
    commit->events = (deed_bytes){head + COMMIT_HEAD_SIZE, commit->size - COMMIT_HEAD_SIZE};
}

void commit_reseal(uint8_t *bytes, const struct commit_seed *seed)
{
    uint32_t size = commit_peek_size((deed_bytes){bytes, COMMIT_HEAD_SIZE});
    assert(size > 0);
    put_uint(bytes + 4, crc32c(seed_crc(seed), (deed_bytes){bytes + 8, covered(size)}), 4);
}

void commit_blank(uint8_t *bytes)
{
    put_uint(bytes + 4, 0, 4);
}

uint32_t commit_peek_size(deed_bytes in)
{
    struct reader r = reader_over(in);
    uint32_t magic = read_u32(&r);
    (void)read_u32(&r);
    uint32_t size = read_u32(&r);
    if (!reader_ok(&r) || magic != COMMIT_MAGIC) return 0;
    if (size < COMMIT_HEAD_SIZE || size % COMMIT_ALIGN != 0) return 0;
    return size;
}

bool commit_decode(deed_bytes in, const struct commit_seed *seed, struct commit *out_commit)
{
    uint32_t size = commit_peek_size(in);
    if (size == 0 || size > in.len) return false;

    const uint8_t *head = in.ptr;
    if (crc32c(seed_crc(seed), (deed_bytes){head + 8, covered(size)}) != get_uint(head + 4, 4)) {
        return false;
    }
    out_commit->size = size;
    out_commit->event_count = (uint32_t)get_uint(head + 12, 4);
    out_commit->first_position = get_uint(head + 16, 8);
    out_commit->recorded_at_ns = (int64_t)get_uint(head + 24, 8);
    out_commit->durable_before = get_uint(head + 32, 8);
    uint64_t flags = get_uint(head + 40, 8);
    memcpy(out_commit->previous, head + 48, SHA256_SIZE);
    memcpy(out_commit->hash, head + 80, SHA256_SIZE);
    out_commit->events.ptr = head + COMMIT_HEAD_SIZE;
    out_commit->events.len = size - COMMIT_HEAD_SIZE;
    return flags == 0 && out_commit->event_count > 0 && out_commit->first_position > 0 &&
           out_commit->first_position <= POSITION_MAX;
}

bool commit_hash_good(const struct commit *commit, deed_uuid log_id, struct arena *arena)
{
    if (commit->event_count > commit->events.len / SHA256_SIZE) return false;
    uint8_t(*leaves)[SHA256_SIZE] = arena_alloc_array(arena, commit->event_count, SHA256_SIZE);
    if (leaves == NULL) return false;

    struct reader r = reader_over(commit->events);
    for (uint32_t i = 0; i < commit->event_count; i++) {
        struct deed_event event;
        if (!event_decode(&r, arena, &event, leaves[i])) return false;
        if (event.position != commit->first_position + i) return false;
    }
    if (reader_left(&r) >= COMMIT_ALIGN) return false;
    while (reader_left(&r) > 0) {
        if (read_u8(&r) != 0) return false; /* (3) */
    }
    uint8_t hash[SHA256_SIZE];
    chain_hash(commit, log_id, (const uint8_t(*)[SHA256_SIZE])leaves, hash);
    return memcmp(hash, commit->hash, SHA256_SIZE) == 0;
}
