/* workload.c - what the clients of `deedbook bench` ask for.
 *
 * Making a request must cost much less than answering it, so bodies are made once and copied:
 *
 *     POST /streams/bench-<run>-<client>?expected=<n> …      printed
 *     [{"id":"<uuid>","type":"Measured","data":{…}},…]       copied, then the ids written over
 *
 * (1) A client's `number`th request appends events number * batch and following of its stream: that
 *     is what --expect expects, and why it cannot have two requests under way.
 * (2) Numbers that choose a stream or a tag are mixed, so that neighbours in time are no neighbours
 *     in the log. */
#include "cli/workload.h"

#include "base/uuid.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *const workload_mode_names[WORKLOAD_MODE_COUNT] = {
#define WORKLOAD_MODE_NAME(name, text, help) text,
    WORKLOAD_MODE_MAP(WORKLOAD_MODE_NAME)
#undef WORKLOAD_MODE_NAME
};

/* The types of what bench/fill.c writes: a tag's events all have its number modulo this. */
#define FILLED_TYPE_COUNT 5

struct workload {
    struct workload_options options;
    char run[16];
    uint64_t random;
    uint64_t filled; /* requests of workload_make_filling */
    struct buf data, body;
    size_t *id_places; /* of each event in `body`; NULL without ids */
};

/* splitmix64: each call another well mixed number. */
static uint64_t mix(uint64_t x)
{
    x += UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

void workload_data(struct buf *out, uint64_t size)
{
    static const char head[] =
        "{\"order_id\":\"00001001\",\"line_id\":3,\"product_id\":\"p-77\",\"product_name\":\"Some "
        "product\",\"quantity\":4,\"unit_price_cents\":1250,\"discount_percent\":5,"
        "\"line_total_cents\":4750,\"gift\":false,\"note\":\"";
    static const char small[] = "{\"pad\":\"", tail[] = "\"}";
    assert(size >= WORKLOAD_SIZE_MIN);
    const char *begin = size >= sizeof head - 1 + sizeof tail - 1 ? head : small;
    size_t from = out->len;
    buf_add(out, begin, strlen(begin));
    uint64_t left = size - strlen(begin) - (sizeof tail - 1);
    for (uint64_t i = 0; i < left; i++)
        buf_add_byte(out, (uint8_t)(i % 6 == 5 ? ' ' : 'a' + (int)(i * 7 % 26)));
    buf_add(out, tail, sizeof tail - 1);
    assert(!buf_ok(out) || out->len - from == size);
}

/* One event, or an array of `batch`; zeros for the ids, and where they stand. */
static void body_make(struct workload *w)
{
    const struct workload_options *o = &w->options;
    if (o->batch > 1) buf_add_byte(&w->body, '[');
    for (uint64_t i = 0; i < o->batch; i++) {
        if (i > 0) buf_add_byte(&w->body, ',');
        buf_add_str(&w->body, DEED_STR("{"));
        if (o->ids) {
            buf_add_str(&w->body, DEED_STR("\"id\":\""));
            w->id_places[i] = w->body.len;
            buf_printf(&w->body, "%036d\",", 0);
        }
        buf_add_str(&w->body, DEED_STR("\"type\":\"Measured\",\"data\":"));
        buf_add(&w->body, w->data.ptr, w->data.len);
        buf_add_byte(&w->body, '}');
    }
    if (o->batch > 1) buf_add_byte(&w->body, ']');
}

deed_status workload_create(const struct workload_options *options, uint64_t seed,
                            struct workload **out_workload, struct deed_error *err)
{
    assert(options->batch > 0 && options->clients > 0);
    struct workload *w = calloc(1, sizeof *w);
    if (w == NULL) return deed_fail(err, DEED_NO_MEMORY, "no memory");
    w->options = *options;
    w->random = seed;
    snprintf(w->run, sizeof w->run, "%08" PRIx32, (uint32_t)mix(seed));
    buf_init(&w->data, 64u << 20);
    buf_init(&w->body, 64u << 20);
    workload_data(&w->data, options->size);
    bool ok = true;
    if (options->ids) {
        w->id_places = calloc(options->batch, sizeof *w->id_places);
        ok = w->id_places != NULL;
    }
    if (ok) body_make(w);
    if (!ok || !buf_ok(&w->data) || !buf_ok(&w->body)) {
        workload_destroy(w);
        return deed_fail(err, DEED_NO_MEMORY,
                         "no memory for %" PRIu64 " events of %" PRIu64 " bytes in a request",
                         options->batch, options->size);
    }
    *out_workload = w;
    return DEED_OK;
}

void workload_destroy(struct workload *w)
{
    if (w == NULL) return;
    buf_done(&w->data);
    buf_done(&w->body);
    free(w->id_places);
    free(w);
}

/* ---- requests -----------------------------------------------------------------------------------
 */

static void post_head(const struct workload *w, struct buf *out, const char *path, size_t body_size)
{
    buf_printf(out,
               "POST %s HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\n"
               "Content-Length: %zu\r\n\r\n",
               path, w->options.host, body_size);
}

static void post(const struct workload *w, struct buf *out, const char *path,
                 const struct buf *body)
{
    post_head(w, out, path, body->len);
    buf_add(out, body->ptr, body->len);
}

static void append_make(struct workload *w, unsigned client, uint64_t number, struct buf *out)
{
    const struct workload_options *o = &w->options;
    char path[128], expected[40] = "";
    if (o->expect && number == 0) snprintf(expected, sizeof expected, "?expected=none");
    if (o->expect && number > 0) /* (1) */
        snprintf(expected, sizeof expected, "?expected=%" PRIu64, number * o->batch - 1);
    snprintf(path, sizeof path, "/streams/bench-%s-%u%s", w->run, client, expected);
    post(w, out, path, &w->body);
    if (!o->ids || !buf_ok(out)) return;
    for (uint64_t i = 0; i < o->batch; i++) {
        uint64_t halves[2] = {mix(w->random), mix(w->random + 1)};
        uint8_t bytes[16];
        char text[UUID_TEXT_SIZE + 1];
        w->random += 2;
        memcpy(bytes, halves, sizeof bytes);
        uuid_format(uuid_v4(bytes), text);
        memcpy(out->ptr + out->len - w->body.len + w->id_places[i], text, UUID_TEXT_SIZE);
    }
}

static void read_make(struct workload *w, unsigned client, uint64_t number, struct buf *out)
{
    const struct workload_options *o = &w->options;
    uint64_t stream = mix((number << 16) + client) % o->streams; /* (2) */
    buf_printf(out,
               "GET /streams/bench-%s-r%" PRIu64 "?limit=%" PRIu64 " HTTP/1.1\r\nHost: %s\r\n\r\n",
               w->run, stream, o->per_read, o->host);
}

uint64_t workload_filling_count(const struct workload *w)
{
    return w->options.streams * w->options.per_read;
}

void workload_make_filling(void *context, unsigned client, uint64_t number, struct buf *out)
{
    struct workload *w = context;
    const struct workload_options *o = &w->options;
    char path[128];
    (void)client; /* some are faster, and every stream shall have its events */
    (void)number;
    uint64_t stream = w->filled++ % o->streams;
    snprintf(path, sizeof path, "/streams/bench-%s-r%" PRIu64, w->run, stream);
    post(w, out, path, &w->body);
}

static void command_make(struct workload *w, unsigned client, uint64_t number, struct buf *out)
{
    struct buf body;
    buf_init(&body, 1 << 20);
    buf_printf(&body,
               "{\"order_id\":\"bench-%s-%u-%" PRIu64
               "\",\"customer\":{\"id\":\"c1\",\"name\":\"Measured\"},"
               "\"shipping_address\":{\"street\":\"1 Main St\",\"city\":\"Springfield\","
               "\"region\":null,\"postal_code\":null,\"country\":\"US\"},"
               "\"currency\":\"USD\",\"order_date\":\"2026-11-23\"}",
               w->run, client, number);
    post(w, out, "/commands/CreateOrder", &body);
    buf_done(&body);
}

/* The event carries the tag that is asked about, and a type that is not, so that a later condition
 * on the same tag must look at it. */
static void condition_make(struct workload *w, unsigned client, uint64_t number, struct buf *out)
{
    const struct workload_options *o = &w->options;
    uint64_t tag = mix((number << 16) + client) % o->tags; /* (2) */
    char head[256], tail[256];
    int head_size = snprintf(head, sizeof head,
                             "{\"events\":[{\"stream\":\"bench-%s-%u\",\"type\":\"Measured\","
                             "\"tags\":[\"tag-%" PRIu64 "\"],\"data\":",
                             w->run, client, tag);
    int tail_size = 0;
    if (o->query == WORKLOAD_NO_QUERY) {
        char revision[32] = "\"none\"";
        if (number > 0) snprintf(revision, sizeof revision, "%" PRIu64, number - 1); /* (1) */
        tail_size = snprintf(tail, sizeof tail,
                             "}],\"conditions\":[{\"stream\":\"bench-%s-%u\",\"revision\":%s}]}",
                             w->run, client, revision);
    } else {
        /* Behind a position: the types that the tag's events have. Everywhere: two others. */
        uint64_t type = tag + (o->query == WORKLOAD_QUERY_ALL ? 1 : 0);
        tail_size = snprintf(tail, sizeof tail,
                             "}],\"conditions\":[{\"no_match\":[{\"types\":[\"Filled-%" PRIu64
                             "\",\"Filled-%" PRIu64 "\"],\"tags\":[\"tag-%" PRIu64
                             "\"]}],\"after\":%" PRIu64 "}]}",
                             type % FILLED_TYPE_COUNT, (type + 1) % FILLED_TYPE_COUNT, tag,
                             o->query == WORKLOAD_QUERY_ALL ? 0 : o->after);
    }
    post_head(w, out, "/append", (size_t)head_size + w->data.len + (size_t)tail_size);
    buf_add(out, head, (size_t)head_size);
    buf_add(out, w->data.ptr, w->data.len);
    buf_add(out, tail, (size_t)tail_size);
}

static void ping_make(struct workload *w, struct buf *out)
{
    if (w->options.post) {
        buf_printf(out, "POST %s HTTP/1.1\r\nHost: %s\r\nContent-Length: 0\r\n\r\n",
                   w->options.path, w->options.host);
    } else {
        buf_printf(out, "GET %s HTTP/1.1\r\nHost: %s\r\n\r\n", w->options.path, w->options.host);
    }
}

void workload_make_following(const struct workload *w, struct buf *out)
{
    buf_printf(out,
               "GET /streams/bench-%s-0?follow=true HTTP/1.1\r\nHost: %s\r\n"
               "Accept: application/x-ndjson\r\n\r\n",
               w->run, w->options.host);
}

void workload_make(void *context, unsigned client, uint64_t number, struct buf *out)
{
    struct workload *w = context;
    switch (w->options.mode) {
    case WORKLOAD_LIVE:
    case WORKLOAD_APPEND:
        append_make(w, client, number, out);
        return;
    case WORKLOAD_READ:
        read_make(w, client, number, out);
        return;
    case WORKLOAD_COMMAND:
        command_make(w, client, number, out);
        return;
    case WORKLOAD_CONDITION:
        condition_make(w, client, number, out);
        return;
    case WORKLOAD_PING:
        ping_make(w, out);
        return;
    case WORKLOAD_MODE_COUNT:
        break;
    }
    assert(w->options.mode != WORKLOAD_MODE_COUNT); /* a mode without requests */
}
