/* fuzz_read_request.c - any bytes as a ReadReq, and any bytes as a filter's expression: neither hurts, and
 * what a filter says the store may leave out never matches.
 *
 *   0xxxxxxx ...                          the rest is a ReadReq
 *   1xxxxxxs, n, n bytes, name '\n' ...   an expression (s: over types) and names to try it on */
#include <stdlib.h>

#include "api/event_filter.h"
#include "api/read_plan.h"
#include "index/index.h"

static bool in_list(const deed_str *list, size_t count, deed_str value)
{
    for (size_t i = 0; i < count; i++) {
        if (deed_str_equal(list[i], value)) return true;
    }
    return count == 0;
}

/* What matches is in every list that the store would be given. */
static void try_name(struct event_filter *filter, const struct deed_filter *read, deed_str name)
{
    const struct deed_event event = {.stream = name, .type = name};
    bool first = false;
    bool again = false;
    struct deed_error err;
    deed_status status = event_filter_match(filter, &event, &first, &err);
    if (event_filter_match(filter, &event, &again, &err) != status || first != again) abort();
    if (status != DEED_OK || !first) return;
    if (!in_list(read->streams, read->stream_count, name)) abort();
    if (!in_list(read->types, read->type_count, name)) abort();
    if (!in_list(read->categories, read->category_count, index_category_of(name))) abort();
}

static void try_filter(const struct event_filter_options *options, struct arena *arena,
                       deed_str names)
{
    struct event_filter *filter = NULL;
    struct deed_filter read = {0};
    struct deed_error err;
    if (event_filter_create(options, arena, &filter, &err) != DEED_OK) return;
    (void)event_filter_narrow(filter, &read);
    size_t tried = 0;
    while (names.len > 0 && tried++ < 50) {
        const char *end = memchr(names.ptr, '\n', names.len);
        size_t len = end == NULL ? names.len : (size_t)(end - names.ptr);
        /* With the line feed, too: `$` matches before it. */
        try_name(filter, &read, (deed_str){names.ptr, len});
        if (end == NULL) break;
        try_name(filter, &read, (deed_str){names.ptr, len + 1});
        names.ptr += len + 1;
        names.len -= len + 1;
    }
    event_filter_destroy(filter);
}

static void try_expression(const uint8_t *data, size_t size, struct arena *arena)
{
    size_t len = size < 2 ? 0 : data[1];
    if (size < 2 || len > size - 2) return;
    struct event_filter_options options = {
        .subject = (data[0] & 1) != 0 ? EVENT_FILTER_TYPE : EVENT_FILTER_STREAM,
        .regex = {(const char *)data + 2, len}};
    try_filter(&options, arena, (deed_str){(const char *)data + 2 + len, size - 2 - len});
}

static void try_request(deed_bytes message, struct arena *arena)
{
    struct arena scratch;
    struct read_plan plan = {0};
    struct deed_error err = {0};
    arena_init(&scratch, 16 << 20);
    deed_status status = read_plan_parse(message, &scratch, arena, &plan, &err);
    arena_done(&scratch); /* what the plan has is its own */
    if (status != DEED_OK && err.message[0] == '\0') abort();
    if (status == DEED_OK) {
        if (plan.subscription && plan.backwards) abort();
        if (plan.filtered && plan.stream.ptr != NULL) abort();
        if (plan.from == READ_FROM_PLACE && plan.stream.ptr == NULL && plan.after > INT64_MAX) {
            abort();
        }
        deed_str names = plan.stream.ptr != NULL ? plan.stream : DEED_STR("order-1\nDone\n$$a");
        if (plan.filtered) try_filter(&plan.filter, arena, names);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct arena arena;
    if (size == 0) return 0;
    arena_init(&arena, 1 << 20);
    if (data[0] < 0x80) {
        try_request((deed_bytes){data + 1, size - 1}, &arena);
    } else {
        try_expression(data, size, &arena);
    }
    arena_done(&arena);
    return 0;
}
