/* frame.c - a message that lies whole in what has arrived is given as it lies there; only one that was
 * cut is gathered.
 *
 * (1) Memory follows what has arrived, not what a frame's head announces: four bytes do not cost
 *     sixteen megabytes.
 * (2) A frame is refused as soon as its head is there. */
#include "grpc/frame.h"

#include "grpc/proto.h"

/* A buffer that a large message has left is not kept for small ones. */
#define PARTIAL_KEPT_MAX ((size_t)64 << 10)

void grpc_reader_init(struct grpc_reader *reader, size_t message_size_max)
{
    *reader = (struct grpc_reader){.message_size_max = message_size_max};
    buf_init(&reader->partial, message_size_max + GRPC_FRAME_HEAD_SIZE);
}

void grpc_reader_done(struct grpc_reader *reader)
{
    buf_done(&reader->partial);
}

static size_t message_size(const uint8_t *head)
{
    return (size_t)head[1] << 24 | (size_t)head[2] << 16 | (size_t)head[3] << 8 | head[4];
}

/* (2): GRPC_READ_MORE: it is fine. */
static enum grpc_read check_head(const struct grpc_reader *reader, const uint8_t *head)
{
    if (head[0] == 1) return GRPC_READ_COMPRESSED;
    if (head[0] != 0) return GRPC_READ_MALFORMED;
    return message_size(head) > reader->message_size_max ? GRPC_READ_TOO_LARGE : GRPC_READ_MORE;
}

static bool gather(struct grpc_reader *reader, deed_bytes *in, size_t size)
{
    if (size > in->len) size = in->len;
    buf_add(&reader->partial, in->ptr, size);
    in->ptr += size;
    in->len -= size;
    return buf_ok(&reader->partial);
}

enum grpc_read grpc_read(struct grpc_reader *reader, deed_bytes *in, deed_bytes *out_message)
{
    struct buf *partial = &reader->partial;
    enum grpc_read fault;
    if (reader->given) {
        reader->given = false;
        if (partial->room > PARTIAL_KEPT_MAX) buf_done(partial);
        buf_reset(partial);
    }
    if (partial->len == 0 && in->len >= GRPC_FRAME_HEAD_SIZE) {
        if ((fault = check_head(reader, in->ptr)) != GRPC_READ_MORE) return fault;
        size_t size = message_size(in->ptr);
        if (in->len - GRPC_FRAME_HEAD_SIZE >= size) {
            *out_message = (deed_bytes){in->ptr + GRPC_FRAME_HEAD_SIZE, size};
            in->ptr += GRPC_FRAME_HEAD_SIZE + size;
            in->len -= GRPC_FRAME_HEAD_SIZE + size;
            return GRPC_READ_MESSAGE;
        }
    }
    if (partial->len < GRPC_FRAME_HEAD_SIZE) {
        if (!gather(reader, in, GRPC_FRAME_HEAD_SIZE - partial->len)) return GRPC_READ_NO_MEMORY;
        if (partial->len < GRPC_FRAME_HEAD_SIZE) return GRPC_READ_MORE;
        if ((fault = check_head(reader, partial->ptr)) != GRPC_READ_MORE) return fault;
    }
    size_t whole = GRPC_FRAME_HEAD_SIZE + message_size(partial->ptr);
    if (!gather(reader, in, whole - partial->len)) return GRPC_READ_NO_MEMORY; /* (1) */
    if (partial->len < whole) return GRPC_READ_MORE;
    reader->given = true;
    *out_message = (deed_bytes){partial->ptr + GRPC_FRAME_HEAD_SIZE, whole - GRPC_FRAME_HEAD_SIZE};
    return GRPC_READ_MESSAGE;
}

bool grpc_reader_empty(const struct grpc_reader *reader)
{
    return reader->given || reader->partial.len == 0;
}
