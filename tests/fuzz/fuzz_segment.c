/* fuzz_segment.c - bytes as segment files: opening them never crashes, what is served is in its place
 * and verifies, and what is writable goes on.
 *
 *   flags (1), then chunks: size (2), bytes. Each chunk is put at the next sector boundary; a size of
 *   0xffff begins the next segment, whose first position (8) follows.
 *
 * Checksums, hashes and links are made right where the flags say so, or the fuzzer would never get
 * past them. */
#include "fuzz/fuzz_log.h"

#include "base/rw.h"
#include "log/segment.h"

#define FILE_SIZE_MAX (256u << 10)

enum {
    RAW = 1,      /* the rest is segment 1 as it is */
    SEAL = 2,     /* right checksums of commits */
    HASH = 4,     /* right own hashes */
    LINK = 8,     /* right previous hashes, also in headers */
    NUMBER = 16,  /* right positions of commits */
    DURABLE = 32, /* durable before: the position before, as a writer would have it */
    READ_ONLY = 64,
};

/* The golden log's id and secret, so that its commits pass as they are. */
static const deed_uuid log_id = {{0xa6, 0xad, 0xf0, 0x3d, 0xe9, 0x9f, 0x48, 0x03, 0xa9, 0x01, 0x91,
                                  0xb3, 0x21, 0x28, 0xc4, 0x77}};

static const uint8_t secret[COMMIT_SECRET_SIZE] = {0xb6, 0xbf, 0x07, 0xdf, 0x6d, 0x92, 0x85, 0xd2,
                                                   0x45, 0xaf, 0xe5, 0x9e, 0xdd, 0xe1, 0xe4, 0xdb};

struct builder {
    struct os *os;
    struct arena arena;
    uint8_t flags;
    struct buf file;
    uint32_t number;
    uint64_t position;
    uint8_t previous[SHA256_SIZE];
};

static void segment_begin(struct builder *b, uint64_t first_position)
{
    uint8_t header_bytes[SEGMENT_HEADER_SIZE];
    struct segment_header header = {
        .log_id = log_id, .epoch = 1, .number = ++b->number, .first_position = first_position};
    memcpy(header.secret, secret, sizeof header.secret);
    if (b->flags & LINK) memcpy(header.previous, b->previous, SHA256_SIZE);
    segment_header_encode(&header, header_bytes);
    buf_reset(&b->file);
    buf_add(&b->file, header_bytes, sizeof header_bytes);
}

static void segment_end(struct builder *b)
{
    char name[SEGMENT_NAME_SIZE];
    segment_name(b->number, name);
    must(buf_ok(&b->file), "room for a segment");
    file_put(b->os, name, buf_bytes(&b->file));
}

static uint32_t place_checksum(const struct builder *b, uint64_t offset)
{
    uint8_t place[44];
    memcpy(place, log_id.bytes, 16);
    memcpy(place + 16, secret, 16);
    put_uint(place + 32, b->number, 4);
    put_uint(place + 36, offset, 8);
    return crc32c(0, (deed_bytes){place, sizeof place});
}

/* Renumber the events, and give the hash that the commit should have. */
static void hash_records(struct builder *b, uint8_t *head, uint32_t size, bool renumber)
{
    uint32_t count = (uint32_t)head[12] | (uint32_t)head[13] << 8;
    if (head[14] != 0 || head[15] != 0 || count > size / 70) return;
    uint8_t(*leaves)[SHA256_SIZE] = arena_alloc_array(&b->arena, count, SHA256_SIZE);
    must(leaves != NULL, "memory");
    struct reader r = reader_over((deed_bytes){head + COMMIT_HEAD_SIZE, size - COMMIT_HEAD_SIZE});
    for (uint32_t i = 0; i < count; i++) {
        struct deed_event e;
        size_t at = r.at;
        if (renumber && r.in.len - at >= 32) {
            put_uint(head + COMMIT_HEAD_SIZE + at + 24, b->position + i, 8);
        }
        if (!event_decode(&r, &b->arena, &e, leaves[i])) return;
    }
    deed_bytes parts[] = {{head + 48, SHA256_SIZE},
                          {log_id.bytes, 16},
                          {head + 16, 8},
                          {head + 12, 4},
                          {head + 24, 8},
                          {head + 32, 8},
                          {(const uint8_t *)leaves, (size_t)count * SHA256_SIZE}};
    sha256(parts, 7, head + 80);
    b->position += count;
}

/* Make right what the flags say, commit after commit of the group at `offset`. */
static void mend_group(struct builder *b, size_t offset)
{
    for (;;) {
        deed_bytes rest = {b->file.ptr + offset, b->file.len - offset};
        uint32_t size = commit_peek_size(rest);
        if (size == 0 || size > rest.len) return;
        uint8_t *head = b->file.ptr + offset;
        if (b->flags & LINK) memcpy(head + 48, b->previous, SHA256_SIZE);
        if (b->flags & NUMBER) put_uint(head + 16, b->position, 8);
        if (b->flags & DURABLE) put_uint(head + 32, b->position - 1, 8);
        if (b->flags & HASH) hash_records(b, head, size, (b->flags & NUMBER) != 0);
        memcpy(b->previous, head + 80, SHA256_SIZE);
        uint32_t crc = crc32c(place_checksum(b, offset), (deed_bytes){head + 8, size - 8});
        if (b->flags & SEAL) put_uint(head + 4, crc, 4);
        offset += size;
    }
}

static void add_chunk(struct builder *b, deed_bytes chunk)
{
    size_t start = (size_t)align_up(b->file.len, SECTOR_SIZE);
    if (start + chunk.len > FILE_SIZE_MAX) return;
    buf_add_zeros(&b->file, start - b->file.len);
    buf_add(&b->file, chunk.ptr, chunk.len);
    must(buf_ok(&b->file), "room for a chunk");
    mend_group(b, start);
}

static void build(struct builder *b, deed_bytes in)
{
    struct reader r = reader_over(in);
    if (b->flags & RAW) {
        b->number = 1;
        if (in.len <= FILE_SIZE_MAX) buf_add(&b->file, in.ptr, in.len);
        segment_end(b);
        return;
    }
    segment_begin(b, 1);
    while (reader_ok(&r) && reader_left(&r) > 2 && b->number < 4) {
        uint16_t size = read_u16(&r);
        if (size != 0xffff) {
            if (size > reader_left(&r)) size = (uint16_t)reader_left(&r);
            add_chunk(b, read_bytes(&r, size));
            continue;
        }
        segment_end(b);
        uint64_t first = read_u64(&r);
        segment_begin(b, b->flags & NUMBER ? b->position : first);
    }
    segment_end(b);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    if (size == 0) return 0;
    struct os_sim *sim = os_sim_create(1, NULL);
    struct builder b = {.os = os_sim_os(sim), .flags = bytes[0], .position = 1};
    arena_init(&b.arena, SIZE_MAX);
    buf_init(&b.file, FILE_SIZE_MAX + SECTOR_SIZE);
    build(&b, (deed_bytes){bytes + 1, size - 1});
    must_live(b.os, (b.flags & READ_ONLY) != 0);
    buf_done(&b.file);
    arena_done(&b.arena);
    os_sim_destroy(sim);
    return 0;
}
