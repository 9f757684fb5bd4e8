/* fuzz_http2.c - any bytes behind the preface: the session answers, ends or goes on, tells of each
 * stream exactly once, and, while all is well, says the same however the bytes are cut.
 *
 * The input's first byte chooses the cuts and what the handler does with its streams. */
#include "base/hash.h"
#include "http2/http2.h"
#include "fuzz/must.h"

#include <stdio.h>
#include <stdlib.h>

#define STREAMS_MAX 64

struct request {
    struct http2_stream stream; /* first */
    struct world *world;
    size_t left; /* of its answer */
    bool headed, ended, closed;
};

struct world {
    uint8_t choice;
    struct request requests[STREAMS_MAX];
    size_t open_count, closed_count, received;
};

static struct http2_stream *on_open(void *context)
{
    struct world *w = context;
    if (w->open_count == STREAMS_MAX) return NULL;
    struct request *r = &w->requests[w->open_count++];
    r->world = w;
    return &r->stream;
}

static void on_header(struct http2_stream *stream, deed_str name, deed_str value)
{
    MUST(!((struct request *)stream)->headed);
    (void)xxh64(xxh64(0, deed_bytes_of(name)), deed_bytes_of(value)); /* reads every byte */
}

static void on_head(struct http2_stream *stream)
{
    static const struct http2_header head[] = {{DEED_STR(":status"), DEED_STR("200")}};
    struct request *r = (struct request *)stream;
    MUST(!r->headed);
    r->headed = true;
    if (r->world->choice & 1) http2_respond(stream, head, 1, (r->world->choice & 2) != 0);
    r->left = 70000;
    if ((r->world->choice & 8) && stream->id % 4 == 3) http2_reset(stream, HTTP2_CANCEL);
}

static void on_data(struct http2_stream *stream, deed_bytes bytes)
{
    struct request *r = (struct request *)stream;
    MUST(r->headed && !r->ended && !r->closed);
    (void)xxh64(0, bytes);
    r->world->received += bytes.len;
    if (r->world->choice & 4) http2_consumed(stream, bytes.len);
}

static void on_ended(struct http2_stream *stream)
{
    struct request *r = (struct request *)stream;
    MUST(r->headed && !r->ended && !r->closed);
    r->ended = true;
    http2_resume(stream);
}

static deed_bytes on_output(struct http2_stream *stream, bool *out_end)
{
    static const uint8_t zeros[4096];
    struct request *r = (struct request *)stream;
    MUST(!r->closed);
    *out_end = r->left <= sizeof zeros && r->ended;
    return (deed_bytes){zeros, r->left < sizeof zeros ? r->left : sizeof zeros};
}

static void on_sent(struct http2_stream *stream, size_t size)
{
    struct request *r = (struct request *)stream;
    MUST(size <= r->left);
    r->left -= size;
}

static size_t on_trailers(struct http2_stream *stream, struct http2_header *out, size_t max)
{
    MUST(max > 0 && !((struct request *)stream)->closed);
    out[0] = (struct http2_header){DEED_STR("grpc-status"), DEED_STR("0")};
    return ((struct request *)stream)->world->choice >> 4 & 1;
}

static void on_closed(struct http2_stream *stream, uint32_t error)
{
    struct request *r = (struct request *)stream;
    (void)error;
    MUST(!r->closed);
    r->closed = true;
    r->world->closed_count++;
}

static const struct http2_handler handler = {on_open, on_header,   on_head,     on_data,  on_ended,
                                             on_output, on_sent, on_trailers, on_closed};

/* What the session answers in all; its output is fetched at the end alone, so that cuts do not show. */
static size_t run(const uint8_t *data, size_t size, uint8_t choice, size_t piece, struct buf *out,
                  bool *out_good)
{
    static const struct http2_limits limits = {.stream_count_max = 32,
                                               .stream_window = 70000,
                                               .head_size_max = 2000,
                                               .reset_burst = 10000, /* a clock's matter */
                                               .empty_count_max = 20};
    struct world world = {.choice = choice};
    struct http2 *session;
    if (http2_create(&limits, &handler, &world, &session, NULL) != DEED_OK) abort();
    bool good = http2_receive(session, (deed_bytes){(const uint8_t *)HTTP2_PREFACE,
                                                    HTTP2_PREFACE_SIZE});
    for (size_t at = 0; at < size && good; at += piece) {
        size_t now = size - at < piece ? size - at : piece;
        good = http2_receive(session, (deed_bytes){data + at, now});
    }
    if (good) (void)http2_send(session, out, (size_t)1 << 20);
    *out_good = good && !http2_over(session);
    http2_destroy(session);
    MUST(world.closed_count == world.open_count);
    return world.received;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct buf whole, pieces;
    if (size < 2) return 0;
    uint8_t choice = data[0];
    buf_init(&whole, (size_t)4 << 20);
    buf_init(&pieces, (size_t)4 << 20);
    bool good, good_again;
    size_t received = run(data + 2, size - 2, choice, SIZE_MAX / 2, &whole, &good);
    size_t again = run(data + 2, size - 2, choice, data[1] % 31u + 1, &pieces, &good_again);
    /* How nghttp2 sees the end, once there is an error, and when it has seen too many CONTINUATION
     * frames (http2.c), does depend on the cuts. */
    if (good && good_again) {
        MUST(received == again);
        MUST(whole.len == pieces.len);
        MUST(whole.len == 0 || memcmp(whole.ptr, pieces.ptr, whole.len) == 0);
    }
    buf_done(&whole);
    buf_done(&pieces);
    return 0;
}
