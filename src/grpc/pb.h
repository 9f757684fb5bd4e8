/* pb.h - Protocol Buffers' wire by hand: for messages that are too many for a generated decoder, which
 * allocates for each part of each, and for types that hold themselves.
 *
 * Reading gives one field after another, in the order of the bytes; what a caller does not know it
 * passes over. Slices borrow the message. Writing appends to a buf. */
#ifndef GRPC_PB_H
#define GRPC_PB_H

#include "base/buf.h"

enum pb_wire { PB_VARINT = 0, PB_FIXED64 = 1, PB_BYTES = 2, PB_FIXED32 = 5 };

/* ---- reading -------------------------------------------------------------------------------- */

struct pb_reader {
    const uint8_t *at, *end;
    bool bad; /* it ended because the bytes are no message */
};

struct pb_field {
    uint32_t number; /* from 1 */
    enum pb_wire wire;
    uint64_t value;   /* PB_VARINT, PB_FIXED64, PB_FIXED32 */
    deed_bytes bytes; /* PB_BYTES: a string, bytes, or a message; ptr is not NULL */
};

static inline struct pb_reader pb_reader_over(deed_bytes message)
{
    static const uint8_t none[1];
    const uint8_t *at = message.ptr == NULL ? none : message.ptr;
    return (struct pb_reader){.at = at, .end = at + message.len};
}
/* false: the end, or malformed (`bad`). Groups, which nobody sends any more, are malformed too. */
bool pb_next(struct pb_reader *r, struct pb_field *out);

/* The field is of this number and kind. One of another kind is as unknown as another number. */
static inline bool pb_is(const struct pb_field *f, uint32_t number, enum pb_wire wire)
{
    return f->number == number && f->wire == wire;
}
static inline deed_str pb_str(const struct pb_field *f)
{
    return (deed_str){(const char *)f->bytes.ptr, f->bytes.len};
}
/* sint64 */
static inline int64_t pb_zigzag(uint64_t value)
{
    return (int64_t)((value >> 1) ^ (~(value & 1) + 1));
}

/* ---- writing -------------------------------------------------------------------------------- */

#define PB_VARINT_SIZE_MAX 10

static inline size_t pb_varint_size(uint64_t value)
{
    return (size_t)(63 - __builtin_clzll(value | 1)) / 7 + 1;
}
static inline uint8_t *pb_write_varint(uint8_t *at, uint64_t value)
{
    while (value >= 0x80) {
        *at++ = (uint8_t)(value | 0x80);
        value >>= 7;
    }
    *at++ = (uint8_t)value;
    return at;
}
static inline uint64_t pb_tag(unsigned field, enum pb_wire wire)
{
    return (uint64_t)field << 3 | wire;
}
/* Of a field whose content is so long, with its tag and length. */
static inline size_t pb_bytes_size(unsigned field, size_t len)
{
    return pb_varint_size(pb_tag(field, PB_BYTES)) + pb_varint_size(len) + len;
}

void pb_put_varint(struct buf *out, uint64_t value);
/* Also a zero is written: a member of a oneof is there by its tag. */
void pb_put_uint(struct buf *out, unsigned field, uint64_t value);
void pb_put_sint(struct buf *out, unsigned field, int64_t value);
void pb_put_bytes(struct buf *out, unsigned field, deed_bytes bytes);
static inline void pb_put_str(struct buf *out, unsigned field, deed_str text)
{
    pb_put_bytes(out, field, deed_bytes_of(text));
}
/* A message without fields: its presence is what it says. */
static inline void pb_put_empty(struct buf *out, unsigned field)
{
    pb_put_bytes(out, field, (deed_bytes){0});
}
/* A message of a length that is not known before it is written. They may nest. */
size_t pb_begin(struct buf *out, unsigned field);
void pb_end(struct buf *out, size_t begin);

#endif
