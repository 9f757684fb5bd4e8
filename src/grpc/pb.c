/* pb.c - tags, varints, lengths.
 *
 *   +-----------------------+----------------------------------------+-----+
 *   | number << 3 | wire    | a varint; 4 or 8 bytes; a length and   | ... |
 *   | as a varint           | so many bytes                          |     |
 *   +-----------------------+----------------------------------------+-----+
 *
 * (1) A length is compared with what is left before anything is read behind it.
 * (2) After `bad` a reader gives nothing more. */
#include "grpc/pb.h"

#include "base/rw.h"

#include <assert.h>

/* At most ten bytes, and none of the tenth's bits but the lowest. */
static bool read_varint(struct pb_reader *r, uint64_t *out)
{
    uint64_t value = 0;
    for (unsigned shift = 0; shift < 70; shift += 7) {
        if (r->at == r->end) return false;
        uint8_t byte = *r->at++;
        if (shift == 63 && byte > 1) return false;
        value |= (uint64_t)(byte & 0x7f) << shift;
        if (byte < 0x80) {
            *out = value;
            return true;
        }
    }
    return false;
}

static bool read_fixed(struct pb_reader *r, size_t size, uint64_t *out)
{
    if ((size_t)(r->end - r->at) < size) return false;
    *out = get_uint(r->at, size);
    r->at += size;
    return true;
}

static bool read_bytes_field(struct pb_reader *r, deed_bytes *out)
{
    uint64_t len;
    if (!read_varint(r, &len) || len > (uint64_t)(r->end - r->at)) return false; /* (1) */
    *out = (deed_bytes){r->at, (size_t)len};
    r->at += len;
    return true;
}

static bool read_content(struct pb_reader *r, struct pb_field *f)
{
    switch (f->wire) {
    case PB_VARINT: return read_varint(r, &f->value);
    case PB_FIXED64: return read_fixed(r, 8, &f->value);
    case PB_FIXED32: return read_fixed(r, 4, &f->value);
    case PB_BYTES: return read_bytes_field(r, &f->bytes);
    }
    return false;
}

bool pb_next(struct pb_reader *r, struct pb_field *out)
{
    uint64_t tag;
    if (r->bad || r->at == r->end) return false;
    bool ok = read_varint(r, &tag) && tag >> 3 != 0 && tag >> 3 < (1u << 29);
    if (ok) {
        *out = (struct pb_field){.number = (uint32_t)(tag >> 3), .wire = (enum pb_wire)(tag & 7)};
        ok = read_content(r, out);
    }
    r->bad = !ok; /* (2) */
    return ok;
}

void pb_put_varint(struct buf *out, uint64_t value)
{
    uint8_t *at = buf_reserve(out, PB_VARINT_SIZE_MAX);
    if (at == NULL) return;
    out->len += (size_t)(pb_write_varint(at, value) - at);
}

void pb_put_uint(struct buf *out, unsigned field, uint64_t value)
{
    pb_put_varint(out, pb_tag(field, PB_VARINT));
    pb_put_varint(out, value);
}

void pb_put_sint(struct buf *out, unsigned field, int64_t value)
{
    pb_put_uint(out, field, (uint64_t)value << 1 ^ (value < 0 ? UINT64_MAX : 0));
}

void pb_put_bytes(struct buf *out, unsigned field, deed_bytes bytes)
{
    pb_put_varint(out, pb_tag(field, PB_BYTES));
    pb_put_varint(out, bytes.len);
    buf_add(out, bytes.ptr, bytes.len);
}

/* One byte is kept for the length, since most messages are short; a longer one is moved. */
size_t pb_begin(struct buf *out, unsigned field)
{
    pb_put_varint(out, pb_tag(field, PB_BYTES));
    buf_add_byte(out, 0);
    return out->len;
}

void pb_end(struct buf *out, size_t begin)
{
    if (!buf_ok(out)) return;
    assert(begin > 0 && begin <= out->len);
    size_t len = out->len - begin;
    size_t more = pb_varint_size(len) - 1;
    if (more > 0) {
        if (buf_reserve(out, more) == NULL) return;
        memmove(out->ptr + begin + more, out->ptr + begin, len);
        out->len += more;
    }
    (void)pb_write_varint(out->ptr + begin - 1, len);
}
