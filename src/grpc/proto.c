/* proto.c - protobuf-c over an arena.
 *
 *   0            1                 5
 *   +------------+-----------------+---------
 *   | compressed | length, big end | message
 *   +------------+-----------------+---------
 *
 * (1) protobuf-c allocates for each element, so two bytes of input may cost a hundred of memory: the
 *     arena's limit is what bounds it, and the decoder gives up at the first NULL. */
#include "grpc/proto.h"

#include "base/error.h"

#include <assert.h>

static void *allocate(void *context, size_t size)
{
    return arena_alloc(context, size);
}

static void release(void *context, void *pointer)
{
    (void)context; /* the arena gives everything back at once */
    (void)pointer;
}

void *grpc_unpack(const ProtobufCMessageDescriptor *type, deed_bytes message, struct arena *arena,
                  struct deed_error *err)
{
    ProtobufCAllocator allocator = {allocate, release, arena};
    static const uint8_t nothing[1];
    bool failed_before = arena->failed, no_memory_before = arena->no_memory;
    arena->failed = arena->no_memory = false;
    void *unpacked = protobuf_c_message_unpack(type, &allocator, message.len,
                                               message.len == 0 ? nothing : message.ptr);
    bool failed = arena->failed, no_memory = arena->no_memory;
    arena->failed = failed || failed_before;
    arena->no_memory = no_memory || no_memory_before;
    if (unpacked != NULL && !failed) return unpacked;
    if (no_memory) {
        (void)deed_fail(err, DEED_NO_MEMORY, "out of memory for a message of %zu bytes", message.len);
    } else if (failed) { /* (1) */
        (void)deed_fail(err, DEED_TOO_LARGE, "a message of %zu bytes has too many fields",
                        message.len);
    } else {
        (void)deed_fail(err, DEED_INVALID, "the message is no well-formed %s", type->name);
    }
    return NULL;
}

bool grpc_pack(const ProtobufCMessage *message, struct buf *out)
{
    size_t begin = grpc_frame_begin(out);
    size_t size = protobuf_c_message_get_packed_size(message);
    uint8_t *at = buf_reserve(out, size);
    if (at == NULL) return false;
    out->len += protobuf_c_message_pack(message, at);
    grpc_frame_end(out, begin);
    return true;
}

size_t grpc_frame_begin(struct buf *out)
{
    size_t begin = out->len;
    buf_add_zeros(out, GRPC_FRAME_HEAD_SIZE);
    return begin;
}

void grpc_frame_end(struct buf *out, size_t begin)
{
    if (!buf_ok(out)) return;
    assert(out->len >= begin + GRPC_FRAME_HEAD_SIZE);
    size_t size = out->len - begin - GRPC_FRAME_HEAD_SIZE;
    assert(size <= UINT32_MAX);
    for (size_t i = 0; i < 4; i++) out->ptr[begin + 1 + i] = (uint8_t)(size >> (24 - 8 * i));
}
