/* proto.h - Protocol Buffers messages in gRPC's frames.
 *
 * Each message is preceded by five bytes: whether it is compressed (never, here) and its length. The
 * messages' types are made from src/grpc/proto/NAME.proto by the build:
 *
 *     #include "grpc/proto.h"
 *     #include "proto/streams.pb-c.h"
 *
 * No type may hold itself, not even through others: the generated decoder does not limit its depth. */
#ifndef GRPC_PROTO_H
#define GRPC_PROTO_H

#include "base/arena.h"
#include "base/buf.h"

#include <protobuf-c/protobuf-c.h>

#define GRPC_FRAME_HEAD_SIZE 5

/* Unpack one message into the arena, whose limit bounds what a hostile message may cost; never freed by
 * hand. Strings of the message end at their first NUL, if they hold one: what may hold any byte is
 * `bytes` in the .proto. NULL: malformed (DEED_INVALID), or larger than the arena allows
 * (DEED_TOO_LARGE, DEED_NO_MEMORY); `err` says. */
void *grpc_unpack(const ProtobufCMessageDescriptor *type, deed_bytes message, struct arena *arena,
                  struct deed_error *err);

/* Append a frame with the message. false: `out` is full or there was no memory; `out` has failed. */
bool grpc_pack(const ProtobufCMessage *message, struct buf *out);

/* A frame whose message is written into `out` by hand, between the two. */
size_t grpc_frame_begin(struct buf *out);
void grpc_frame_end(struct buf *out, size_t begin);

#endif
