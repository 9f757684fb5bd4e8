/* http2_frames.h - HTTP/2's frames written by hand, for what no client library would send. */
#ifndef TESTS_HTTP2_FRAMES_H
#define TESTS_HTTP2_FRAMES_H

#include "base/buf.h"
#include "http2/http2.h"

#define FRAMES __attribute__((unused)) static

enum frame_type {
    FRAME_DATA = 0,
    FRAME_HEADERS = 1,
    FRAME_PRIORITY = 2,
    FRAME_RST_STREAM = 3,
    FRAME_SETTINGS = 4,
    FRAME_PING = 6,
    FRAME_GOAWAY = 7,
    FRAME_WINDOW_UPDATE = 8,
    FRAME_CONTINUATION = 9,
};
enum frame_flag { FLAG_END_STREAM = 1, FLAG_ACK = 1, FLAG_END_HEADERS = 4 };

FRAMES void put_frame(struct buf *out, enum frame_type type, unsigned flags, uint32_t stream,
                      const void *payload, size_t size)
{
    const uint8_t head[9] = {(uint8_t)(size >> 16),   (uint8_t)(size >> 8),   (uint8_t)size,
                             (uint8_t)type,           (uint8_t)flags,         (uint8_t)(stream >> 24),
                             (uint8_t)(stream >> 16), (uint8_t)(stream >> 8), (uint8_t)stream};
    buf_add(out, head, sizeof head);
    buf_add(out, payload, size);
}

/* A field as HPACK's literal without indexing: both texts under 127 bytes, or the value longer. */
FRAMES void put_field(struct buf *out, const char *name, const char *value)
{
    size_t size = strlen(value);
    buf_add_byte(out, 0);
    buf_add_byte(out, (uint8_t)strlen(name));
    buf_add(out, name, strlen(name));
    if (size < 127) {
        buf_add_byte(out, (uint8_t)size);
    } else {
        size_t rest = size - 127;
        buf_add_byte(out, 127);
        while (rest >= 128) {
            buf_add_byte(out, (uint8_t)(rest % 128 + 128));
            rest /= 128;
        }
        buf_add_byte(out, (uint8_t)rest);
    }
    buf_add(out, value, size);
}

/* A POST; `more_name`: one field more, or NULL. */
FRAMES void put_request(struct buf *out, uint32_t stream, unsigned flags, const char *path,
                        const char *more_name, const char *more_value)
{
    struct buf fields;
    buf_init(&fields, 1 << 20);
    put_field(&fields, ":method", "POST");
    put_field(&fields, ":scheme", "http");
    put_field(&fields, ":authority", "test");
    put_field(&fields, ":path", path);
    put_field(&fields, "content-type", "application/grpc");
    put_field(&fields, "te", "trailers");
    if (more_name != NULL) put_field(&fields, more_name, more_value);
    put_frame(out, FRAME_HEADERS, flags | FLAG_END_HEADERS, stream, fields.ptr, fields.len);
    buf_done(&fields);
}

FRAMES void put_hello(struct buf *out)
{
    buf_add(out, HTTP2_PREFACE, HTTP2_PREFACE_SIZE);
    put_frame(out, FRAME_SETTINGS, 0, 0, NULL, 0);
}

FRAMES uint32_t number_at(const uint8_t *at)
{
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

struct frame {
    enum frame_type type;
    unsigned flags;
    uint32_t stream;
    deed_bytes payload;
};

/* Take a frame from the front of `in`. false: it is not whole. */
FRAMES bool take_frame(deed_bytes *in, struct frame *out)
{
    if (in->len < 9) return false;
    size_t size = (size_t)in->ptr[0] << 16 | (size_t)in->ptr[1] << 8 | in->ptr[2];
    if (in->len - 9 < size) return false;
    *out = (struct frame){.type = (enum frame_type)in->ptr[3],
                          .flags = in->ptr[4],
                          .stream = number_at(in->ptr + 5) & 0x7fffffff,
                          .payload = {in->ptr + 9, size}};
    in->ptr += 9 + size;
    in->len -= 9 + size;
    return true;
}

#endif
