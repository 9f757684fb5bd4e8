/* http1_transcript.h - what a reader says about some bytes, as text: for comparing one way of cutting
 * the bytes with another. */
#ifndef TESTS_HTTP1_TRANSCRIPT_H
#define TESTS_HTTP1_TRANSCRIPT_H

#include "http1/http1.h"

static void transcript_request(struct buf *out, const struct http1_request *r)
{
    buf_printf(out, "%.*s %.*s ? %.*s 1.%u%s%s%s length %lld\n", DEED_FMT(r->method),
               DEED_FMT(r->path), DEED_FMT(r->query), r->version_minor, r->is_head ? " head" : "",
               r->keep_alive ? " keep" : " close", r->expects_continue ? " expects" : "",
               (long long)r->content_length);
    for (size_t i = 0; i < r->header_count; i++) {
        buf_printf(out, "  %.*s: %.*s\n", DEED_FMT(r->headers[i].name),
                   DEED_FMT(r->headers[i].value));
    }
}

/* Feed `in` in pieces as next_size says (NULL: whole), each from memory of its own. */
static void transcript(deed_bytes in, const struct http1_limits *limits,
                       size_t (*next_size)(void *), void *context, struct buf *out)
{
    struct arena arena;
    struct http1 h;
    struct http1_request r;
    struct deed_error err = {0};
    arena_init(&arena, 64 << 20);
    http1_init(&h, limits);
    http1_request_init(&r, &arena, limits->body_size_max);
    enum http1_event event = HTTP1_MORE;
    while (in.len > 0 && event != HTTP1_ERROR) {
        size_t size = next_size == NULL ? in.len : next_size(context);
        if (size > in.len) size = in.len;
        uint8_t *copy = malloc(size == 0 ? 1 : size);
        if (copy == NULL) abort();
        memcpy(copy, in.ptr, size);
        deed_bytes piece = {copy, size};
        for (;;) {
            event = http1_read(&h, &r, &piece, &err);
            if (event == HTTP1_HEAD) transcript_request(out, &r);
            if (event == HTTP1_REQUEST) {
                buf_printf(out, "  body %zu: ", r.body.len);
                buf_add(out, r.body.ptr, r.body.len);
                buf_printf(out, "\n");
                http1_request_reset(&r);
                arena_reset(&arena);
            }
            if (event == HTTP1_ERROR) buf_printf(out, "ERROR %d %s\n", h.status, err.message);
            if (event == HTTP1_ERROR || event == HTTP1_MORE) break;
        }
        if (event == HTTP1_MORE && piece.len > 0) abort(); /* all input is taken */
        free(copy);
        in = (deed_bytes){in.ptr + size, in.len - size};
    }
    if (event != HTTP1_ERROR) {
        buf_printf(out, "%s\n", http1_between_requests(&h) ? "between" : "within");
    }
    http1_request_done(&r);
    http1_done(&h);
    arena_done(&arena);
}

#endif
