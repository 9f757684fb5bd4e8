/* frames.h - the bytes between server and worker: docs/protocol/worker.md.
 *
 * Bytes in, bytes out. What is decoded borrows the bytes it came from. */
#ifndef DOMAIN_FRAMES_H
#define DOMAIN_FRAMES_H

#include "base/rw.h"
#include "domain/host.h"

#define FRAME_PROTOCOL_VERSION 1
/* Of one frame's payload: an event of 16 MiB and much around it. */
#define FRAME_SIZE_MAX ((size_t)128 << 20)

enum frame_kind {
    FRAME_HELLO = 1,   /* worker: the domain is loaded */
    FRAME_FAILED = 2,  /* worker: it cannot be */
    FRAME_REQUEST = 3, /* server */
    FRAME_ANSWER = 4,  /* worker */
};

/* The payload of the first whole frame at the front of `in`, and the size of frame and head
 * together.
 *
 *   DEED_END      there is no whole frame yet. DEED_CORRUPT: over FRAME_SIZE_MAX, or empty. */
DEED_MUST_CHECK deed_status frame_next(deed_bytes in, deed_bytes *out_payload, size_t *out_size,
                                       struct deed_error *err);
enum frame_kind frame_kind_of(deed_bytes payload);

void frame_hello(struct buf *out, deed_str model);
bool frame_hello_read(deed_bytes payload, uint32_t *out_version, deed_str *out_model);

void frame_failed(struct buf *out, const struct deed_error *error);
bool frame_failed_read(deed_bytes payload, struct deed_error *out_error);

void frame_request(struct buf *out, uint32_t sequence, const struct host_request *request);
/* false: malformed, or no memory for the events. */
bool frame_request_read(deed_bytes payload, struct arena *arena, uint32_t *out_sequence,
                        struct host_request *out_request);

void frame_answer(struct buf *out, uint32_t sequence, const struct host_answer *answer);
/* Copies everything into `arena`. */
bool frame_answer_read(deed_bytes payload, struct arena *arena, uint32_t *out_sequence,
                       struct host_answer *out_answer);

#endif
