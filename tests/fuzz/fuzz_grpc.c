/* fuzz_grpc.c - any bytes as the body of a call: the reader finds the same messages however they are
 * cut, and every method's messages that come of it are unpacked within the arena, or refused.
 *
 * The input's first byte chooses the cut, the second the message's type. */
#include "base/hash.h"
#include "grpc/frame.h"
#include "grpc/proto.h"
#include "grpc/status.h"
#include "proto/persistent_subscriptions.pb-c.h"
#include "proto/server_features.pb-c.h"
#include "proto/streams.pb-c.h"
#include "fuzz/must.h"

#include <stdio.h>
#include <stdlib.h>

static const ProtobufCMessageDescriptor *const types[] = {
    &event_store__client__server_features__supported_methods__descriptor,
    &event_store__client__streams__read_req__descriptor,
    &event_store__client__streams__append_req__descriptor,
    &event_store__client__streams__batch_append_req__descriptor,
    &event_store__client__streams__delete_req__descriptor,
    &event_store__client__persistent_subscriptions__read_req__descriptor,
    &event_store__client__persistent_subscriptions__create_req__descriptor,
    &event_store__client__persistent_subscriptions__update_req__descriptor,
};

struct said {
    size_t count;
    uint64_t print;
    enum grpc_read last;
};

/* Whatever comes of it can be packed again, in as many bytes as it says. */
static void try_message(const ProtobufCMessageDescriptor *type, deed_bytes message)
{
    struct arena arena;
    struct deed_error err;
    struct buf out;
    arena_init(&arena, 1 << 20);
    buf_init(&out, 16 << 20);
    ProtobufCMessage *unpacked = grpc_unpack(type, message, &arena, &err);
    MUST(arena.total <= (1 << 20));
    if (unpacked != NULL) MUST(grpc_pack(unpacked, &out));
    buf_done(&out);
    arena_done(&arena);
}

static struct said read_all(deed_bytes in, size_t piece, const ProtobufCMessageDescriptor *type)
{
    struct said said = {.last = GRPC_READ_MORE};
    struct grpc_reader reader;
    grpc_reader_init(&reader, 5000);
    while (in.len > 0 && said.last == GRPC_READ_MORE) {
        size_t size = in.len < piece ? in.len : piece;
        uint8_t *copy = malloc(size); /* so that a byte too far is found */
        if (copy == NULL) abort();
        memcpy(copy, in.ptr, size);
        deed_bytes now = {copy, size}, message;
        while ((said.last = grpc_read(&reader, &now, &message)) == GRPC_READ_MESSAGE) {
            MUST(message.len <= 5000);
            said.count++;
            said.print = xxh64(said.print, message);
            if (type != NULL) try_message(type, message);
        }
        free(copy);
        in.ptr += size;
        in.len -= size;
    }
    grpc_reader_done(&reader);
    return said;
}

static void try_texts(deed_str text)
{
    struct buf out, back;
    uint64_t ns;
    buf_init(&out, 1 << 20);
    buf_init(&back, 1 << 20);
    grpc_percent_encode(text, &out);
    for (size_t i = 0; i < out.len; i++) MUST(out.ptr[i] >= ' ' && out.ptr[i] <= '~');
    buf_reset(&out);
    grpc_base64_encode(deed_bytes_of(text), &out);
    MUST(grpc_base64_decode(buf_str(&out), &back));
    MUST(deed_str_equal(buf_str(&back), text));
    (void)grpc_base64_decode(text, &out);
    (void)grpc_timeout_parse(text, &ns);
    buf_done(&out);
    buf_done(&back);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2) return 0;
    deed_bytes in = {data + 2, size - 2};
    const ProtobufCMessageDescriptor *type = types[data[1] % (sizeof types / sizeof types[0])];
    struct said whole = read_all(in, SIZE_MAX, type);
    struct said pieces = read_all(in, data[0] % 37u + 1, NULL);
    MUST(whole.count == pieces.count && whole.print == pieces.print && whole.last == pieces.last);
    try_message(type, in);
    try_texts((deed_str){(const char *)in.ptr, in.len});
    return 0;
}
