/* frame.h - cuts the bytes of a gRPC request into its messages. */
#ifndef GRPC_FRAME_H
#define GRPC_FRAME_H

#include "base/buf.h"

/* A stream's reader. */
struct grpc_reader {
    struct buf partial; /* of a frame that has not arrived whole */
    size_t message_size_max;
    bool given; /* `partial` was the last message */
};

enum grpc_read {
    GRPC_READ_MORE,       /* all bytes were taken */
    GRPC_READ_MESSAGE,
    GRPC_READ_TOO_LARGE,  /* the message that begins is larger than the limit */
    GRPC_READ_COMPRESSED, /* its flag says so */
    GRPC_READ_MALFORMED,  /* its flag says nothing that is defined */
    GRPC_READ_NO_MEMORY,
};

void grpc_reader_init(struct grpc_reader *reader, size_t message_size_max);
void grpc_reader_done(struct grpc_reader *reader); /* accepts a zeroed one */

/* Take bytes from the front of `in`, up to the end of one message. The message lies in those bytes, or
 * in the reader until its next call. After the last four answers the reader is not to be used again. */
enum grpc_read grpc_read(struct grpc_reader *reader, deed_bytes *in, deed_bytes *out_message);

/* Is it between two messages? */
bool grpc_reader_empty(const struct grpc_reader *reader);

#endif
