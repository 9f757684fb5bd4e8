/* buf.c - growth by doubling.
 *
 * (1) len <= room <= size_max.
 * (2) Behind the room there is one byte more, for the NUL that vsnprintf insists on: what is
 *     printed may fill the buffer to its limit, as what is added may. */
#include "base/buf.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#define BUF_ROOM_MIN 256

void buf_init(struct buf *buf, size_t size_max)
{
    *buf = (struct buf){.size_max = size_max};
}

void buf_done(struct buf *buf)
{
    free(buf->ptr);
    *buf = (struct buf){.size_max = buf->size_max};
}

void buf_reset(struct buf *buf)
{
    buf->len = 0;
    buf->failed = false;
}

uint8_t *buf_grow(struct buf *buf, size_t len)
{
    assert(buf->len <= buf->room);
    if (buf->failed) return NULL;
    if (buf->ptr != NULL && len <= buf->room - buf->len) return buf->ptr + buf->len;
    if (len > buf->size_max - buf->len) {
        buf->failed = true;
        return NULL;
    }
    size_t room = buf->room < BUF_ROOM_MIN ? BUF_ROOM_MIN : buf->room;
    while (room < buf->len + len) room = room > buf->size_max / 2 ? buf->size_max : room * 2;
    if (room > buf->size_max) room = buf->size_max;
    uint8_t *grown = room == SIZE_MAX ? NULL : realloc(buf->ptr, room + 1);
    if (grown == NULL) {
        buf->failed = true;
        return NULL;
    }
    buf->ptr = grown;
    buf->room = room;
    return buf->ptr + buf->len;
}

void buf_add_zeros(struct buf *buf, size_t len)
{
    if (len == 0) return;
    uint8_t *at = buf_reserve(buf, len);
    if (at == NULL) return;
    memset(at, 0, len);
    buf->len += len;
}

void buf_printf(struct buf *buf, const char *format, ...)
{
    va_list arguments, again;
    va_start(arguments, format);
    va_copy(again, arguments);
    int len = vsnprintf(NULL, 0, format, arguments);
    va_end(arguments);
    uint8_t *at = len < 0 ? NULL : buf_reserve(buf, (size_t)len);
    if (at != NULL) {
        (void)vsnprintf((char *)at, (size_t)len + 1, format, again);
        buf->len += (size_t)len;
    }
    if (len < 0) buf->failed = true;
    va_end(again);
}

void buf_move(struct buf *to, struct buf *from)
{
    bool good = buf_ok(to) && buf_ok(from);
    if (good && to->len == 0 && from->len > 0 && from->room <= to->size_max &&
        to->room <= from->size_max) { /* (1) */
        struct buf moved = *from;
        *from = (struct buf){.ptr = to->ptr, .room = to->room, .size_max = from->size_max};
        *to = (struct buf){
            .ptr = moved.ptr, .len = moved.len, .room = moved.room, .size_max = to->size_max};
    } else {
        buf_add(to, from->ptr, from->len);
        if (!buf_ok(from)) to->failed = true;
    }
    buf_reset(from);
}

void buf_consume(struct buf *buf, size_t len)
{
    assert(len <= buf->len);
    if (len == 0) return;
    memmove(buf->ptr, buf->ptr + len, buf->len - len);
    buf->len -= len;
}

char *buf_take(struct buf *buf)
{
    if (buf->failed) return NULL;
    char *text = realloc(buf->ptr, buf->len + 1);
    if (text == NULL) return NULL;
    text[buf->len] = '\0';
    *buf = (struct buf){.size_max = buf->size_max};
    return text;
}
