/* rw.h - fields of bytes from disk or wire, little endian.
 *
 * A reader that runs dry yields zeros and remembers, so one reader_ok at the end suffices. Writers
 * append to a buf. */
#ifndef BASE_RW_H
#define BASE_RW_H

#include "base/buf.h"

#include <endian.h>

struct reader {
    deed_bytes in;
    size_t at;
    bool dry;
};

static inline struct reader reader_over(deed_bytes in)
{
    return (struct reader){.in = in};
}
static inline bool reader_ok(const struct reader *r)
{
    return !r->dry;
}
static inline size_t reader_left(const struct reader *r)
{
    return r->in.len - r->at;
}
/* Whole and nothing left over. */
static inline bool reader_finished(const struct reader *r)
{
    return !r->dry && r->at == r->in.len;
}
static inline deed_bytes read_bytes(struct reader *r, size_t len)
{
    if (r->dry || len > r->in.len - r->at) {
        r->dry = true;
        return (deed_bytes){0};
    }
    deed_bytes out = {len == 0 ? r->in.ptr : r->in.ptr + r->at, len};
    r->at += len;
    return out;
}
/* `size` is at most 8. A copy of a known size is one load; a loop over bytes stays one (gcc 12). */
static inline uint64_t get_uint(const uint8_t *at, size_t size)
{
    uint64_t little = 0;
    memcpy(&little, at, size);
    return le64toh(little);
}
static inline uint64_t read_uint(struct reader *r, size_t size)
{
    deed_bytes b = read_bytes(r, size);
    return b.len == size && size > 0 ? get_uint(b.ptr, size) : 0;
}
static inline uint8_t read_u8(struct reader *r)
{
    return (uint8_t)read_uint(r, 1);
}
static inline uint16_t read_u16(struct reader *r)
{
    return (uint16_t)read_uint(r, 2);
}
static inline uint32_t read_u32(struct reader *r)
{
    return (uint32_t)read_uint(r, 4);
}
static inline uint64_t read_u64(struct reader *r)
{
    return read_uint(r, 8);
}
static inline int64_t read_i64(struct reader *r)
{
    return (int64_t)read_uint(r, 8);
}
/* Copies `len` bytes to `out`; zeros when dry. */
static inline void read_into(struct reader *r, void *out, size_t len)
{
    deed_bytes b = read_bytes(r, len);
    if (len == 0) return; /* memset and memcpy refuse NULL even then */
    if (b.len == len) {
        memcpy(out, b.ptr, len);
    } else {
        memset(out, 0, len);
    }
}
/* A u32 length, then that many bytes. */
static inline deed_bytes read_block(struct reader *r)
{
    return read_bytes(r, read_u32(r));
}
static inline deed_str read_text(struct reader *r)
{
    deed_bytes b = read_block(r);
    return (deed_str){(const char *)b.ptr, b.len};
}

static inline void put_uint(uint8_t *at, uint64_t value, size_t size)
{
    uint64_t little = htole64(value);
    memcpy(at, &little, size);
}
static inline void write_uint(struct buf *b, uint64_t value, size_t size)
{
    uint8_t *at = buf_reserve(b, size);
    if (at == NULL) return;
    put_uint(at, value, size);
    b->len += size;
}
static inline void write_u8(struct buf *b, uint8_t v)
{
    write_uint(b, v, 1);
}
static inline void write_u16(struct buf *b, uint16_t v)
{
    write_uint(b, v, 2);
}
static inline void write_u32(struct buf *b, uint32_t v)
{
    write_uint(b, v, 4);
}
static inline void write_u64(struct buf *b, uint64_t v)
{
    write_uint(b, v, 8);
}
static inline void write_i64(struct buf *b, int64_t v)
{
    write_uint(b, (uint64_t)v, 8);
}
static inline void write_block(struct buf *b, deed_bytes v)
{
    if (v.len > UINT32_MAX) {
        b->failed = true; /* its length would be cut, and the reader led astray */
        return;
    }
    write_u32(b, (uint32_t)v.len);
    buf_add(b, v.ptr, v.len);
}
static inline void write_text(struct buf *b, deed_str v)
{
    write_block(b, deed_bytes_of(v));
}

#endif
