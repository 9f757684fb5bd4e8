/* fuzz_http1.c - any bytes: whole, byte by byte and cut at places that the input itself chooses,
 * the codec says the same. */
#include "http1/http1.h"

#include <stdio.h>
#include <stdlib.h>

#include "http1_transcript.h"

struct cuts {
    const uint8_t *data;
    size_t size, at;
};

static size_t one(void *context)
{
    (void)context;
    return 1;
}

static size_t chosen(void *context)
{
    struct cuts *cuts = context;
    return cuts->data[cuts->at++ % cuts->size] % 29u;
}

static size_t never_zero(void *context)
{
    return chosen(context) + 1;
}

static void must_equal(const struct buf *a, const struct buf *b)
{
    if (a->len == b->len && memcmp(a->ptr, b->ptr, a->len) == 0) return;
    fprintf(stderr, "whole:\n%.*s\nin pieces:\n%.*s\n", (int)a->len, (const char *)a->ptr,
            (int)b->len, (const char *)b->ptr);
    abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0) return 0;
    static const struct http1_limits limits = {.head_size_max = 300, .body_size_max = 64};
    struct buf whole, pieces;
    buf_init(&whole, 16 << 20);
    buf_init(&pieces, 16 << 20);
    transcript((deed_bytes){data, size}, &limits, NULL, NULL, &whole);
    transcript((deed_bytes){data, size}, &limits, one, NULL, &pieces);
    must_equal(&whole, &pieces);
    buf_reset(&pieces);
    struct cuts cuts = {data, size, 0};
    transcript((deed_bytes){data, size}, &limits, never_zero, &cuts, &pieces);
    must_equal(&whole, &pieces);
    buf_done(&whole);
    buf_done(&pieces);
    return 0;
}
