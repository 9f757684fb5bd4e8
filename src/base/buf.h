/* buf.h - bytes that grow up to a limit given at birth.
 *
 * Writers do not check each step: a buffer that reached its limit, or ran out of memory, drops
 * what comes and remembers; one buf_ok at the end suffices. */
#ifndef BASE_BUF_H
#define BASE_BUF_H

#include "deedbook.h"

struct buf {
    uint8_t *ptr;
    size_t len, room, size_max;
    bool failed;
};

void buf_init(struct buf *buf, size_t size_max);
void buf_done(struct buf *buf);  /* accepts a zeroed buf */
void buf_reset(struct buf *buf); /* empties, forgets failure, keeps memory */
static inline bool buf_ok(const struct buf *buf)
{
    return !buf->failed;
}

/* Room for `len` more bytes at ptr + len; the caller fills it and adds to `len`. NULL: failed. */
uint8_t *buf_grow(struct buf *buf, size_t len); /* buf_reserve's seldom way */
static inline uint8_t *buf_reserve(struct buf *buf, size_t len)
{
    bool fits = !buf->failed && buf->ptr != NULL && len <= buf->room - buf->len;
    return fits ? buf->ptr + buf->len : buf_grow(buf, len);
}

/* Inline, since most of what is added is a few bytes whose number the compiler knows. */
static inline void buf_add(struct buf *buf, const void *bytes, size_t len)
{
    if (len == 0) return;
    uint8_t *at = buf_reserve(buf, len);
    if (at == NULL) return;
    memcpy(at, bytes, len);
    buf->len += len;
}
static inline void buf_add_str(struct buf *buf, deed_str s)
{
    buf_add(buf, s.ptr, s.len);
}
static inline void buf_add_byte(struct buf *buf, uint8_t byte)
{
    buf_add(buf, &byte, 1);
}
void buf_add_zeros(struct buf *buf, size_t len);
void buf_printf(struct buf *buf, const char *format, ...) DEED_PRINTF(2, 3);

/* Move what is in `from` to the end of `to`, without a copy where that is empty; `from` is empty then, and
 * what made it fail is `to`'s. */
void buf_move(struct buf *to, struct buf *from);

/* Drop the first `len` bytes (the rest moves to the front). */
void buf_consume(struct buf *buf, size_t len);

static inline deed_bytes buf_bytes(const struct buf *buf)
{
    return (deed_bytes){buf->ptr, buf->len};
}
static inline deed_str buf_str(const struct buf *buf)
{
    return (deed_str){(const char *)buf->ptr, buf->len};
}

/* The text as malloc'd, NUL-terminated memory; the buffer is empty afterwards. NULL: failed. */
char *buf_take(struct buf *buf);

#endif
