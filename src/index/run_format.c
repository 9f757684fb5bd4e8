/* run_format.c - the footer's bytes, and the file's name. */
#include "index/run_format.h"

#include <assert.h>
#include <stdio.h>

static const uint8_t no_run_id[16];

void run_footer_encode(const struct run_footer *f, uint64_t number, uint8_t out[BLOCK_SIZE])
{
    struct buf b;
    buf_init(&b, RUN_PAYLOAD_SIZE);
    buf_add(&b, RUN_MAGIC, 8);
    write_u32(&b, RUN_VERSION);
    write_u32(&b, 0); /* features that a reader must know */
    buf_add(&b, f->log_id.bytes, sizeof f->log_id.bytes);
    buf_add(&b, f->run_id, sizeof f->run_id);
    write_u64(&b, f->hash_seed);
    write_u32(&b, f->first_segment);
    write_u32(&b, f->last_segment);
    write_u64(&b, f->first_position);
    write_u64(&b, f->last_position);
    buf_add(&b, f->hash, sizeof f->hash);
    write_u64(&b, f->terms);
    write_u64(&b, f->postings);
    write_u64(&b, f->streams);
    write_u64(&b, f->dictionary_size);
    write_u64(&b, f->postings_size);
    write_u64(&b, f->skips);
    write_u64(&b, f->lines);
    write_u32(&b, f->terms_known);
    memset(out, 0, BLOCK_SIZE);
    if (buf_ok(&b)) memcpy(out, b.ptr, b.len); /* without memory it is no footer, and found out */
    buf_done(&b);
    put_uint(out + RUN_PAYLOAD_SIZE, run_block_crc(no_run_id, number, out), 4);
}

/* Sizes that no file can have would overflow the sums that lay it out. */
static bool makes_sense(const struct run_footer *f)
{
    const uint64_t most = UINT64_C(1) << 52;
    return f->first_segment >= 1 && f->first_segment <= f->last_segment && f->first_position >= 1 &&
           f->first_position <= POSITION_RANGE_MAX && f->last_position >= f->first_position - 1 &&
           f->last_position <= POSITION_RANGE_MAX && f->dictionary_size <= most &&
           f->postings_size <= most && f->skips <= most / RUN_SKIP_SIZE && f->lines >= 1 &&
           f->lines <= most / RUN_LINE_SIZE && f->terms <= most && f->postings <= most &&
           f->streams <= f->terms;
}

deed_status run_footer_decode(const uint8_t in[BLOCK_SIZE], uint64_t number, struct run_footer *out,
                              struct deed_error *err)
{
    struct reader r = reader_over((deed_bytes){in, RUN_PAYLOAD_SIZE});
    struct run_footer f = {0};
    deed_bytes magic = read_bytes(&r, 8);
    uint64_t crc = get_uint(in + RUN_PAYLOAD_SIZE, 4);
    if (memcmp(magic.ptr, RUN_MAGIC, 8) != 0 || run_block_crc(no_run_id, number, in) != crc) {
        return deed_fail(err, DEED_CORRUPT, "the footer is damaged");
    }
    uint32_t version = read_u32(&r);
    uint32_t refuse = read_u32(&r);
    if (version != RUN_VERSION || refuse != 0) {
        return deed_fail(err, DEED_TOO_NEW, "format %u with features %x, this program knows %d",
                         version, refuse, RUN_VERSION);
    }
    read_into(&r, f.log_id.bytes, sizeof f.log_id.bytes);
    read_into(&r, f.run_id, sizeof f.run_id);
    f.hash_seed = read_u64(&r);
    f.first_segment = read_u32(&r);
    f.last_segment = read_u32(&r);
    f.first_position = read_u64(&r);
    f.last_position = read_u64(&r);
    read_into(&r, f.hash, sizeof f.hash);
    f.terms = read_u64(&r);
    f.postings = read_u64(&r);
    f.streams = read_u64(&r);
    f.dictionary_size = read_u64(&r);
    f.postings_size = read_u64(&r);
    f.skips = read_u64(&r);
    f.lines = read_u64(&r);
    f.terms_known = read_u32(&r);
    if (!makes_sense(&f)) return deed_fail(err, DEED_CORRUPT, "the footer makes no sense");
    *out = f;
    return DEED_OK;
}

void run_name(uint32_t first_segment, uint32_t last_segment, char out[RUN_NAME_SIZE])
{
    (void)snprintf(out, RUN_NAME_SIZE, "%010u-%010u.run", first_segment, last_segment);
}

void run_part_name(uint32_t first_segment, uint32_t last_segment, uint32_t part,
                   char out[RUN_PART_NAME_SIZE])
{
    run_name(first_segment, last_segment, out);
    if (part > 0) {
        (void)snprintf(out + RUN_NAME_SIZE - 1, RUN_PART_NAME_SIZE - RUN_NAME_SIZE + 1, ".part%u",
                       part);
    }
}

static bool digits(const char *at, uint32_t *out)
{
    uint64_t value = 0;
    for (size_t i = 0; i < 10; i++) {
        if (at[i] < '0' || at[i] > '9') return false;
        value = value * 10 + (uint64_t)(at[i] - '0');
    }
    *out = (uint32_t)value;
    return value <= UINT32_MAX;
}

bool run_name_parse(const char *name, uint32_t *out_first, uint32_t *out_last)
{
    return strlen(name) == RUN_NAME_SIZE - 1 && digits(name, out_first) && name[10] == '-' &&
           digits(name + 11, out_last) && strcmp(name + 21, ".run") == 0 &&
           *out_first <= *out_last;
}
