/* What the clients of `deedbook bench` ask for: bodies that are JSON of the size asked for, and whose
 * length the head tells. */
#include "test.h"

#include "cli/workload.h"
#include "json/json.h"

static struct workload *create(const struct workload_options *options)
{
    struct workload *workload = NULL;
    struct deed_error err = {0};
    expect_status(DEED_OK, workload_create(options, 7, &workload, &err));
    return workload;
}

/* The request's body, after its length was compared with what the head says. */
static deed_bytes body_of(const struct buf *request)
{
    const uint8_t *end = memmem(request->ptr, request->len, "\r\n\r\n", 4);
    const uint8_t *length = memmem(request->ptr, request->len, "Content-Length: ", 16);
    assert_non_null(end);
    assert_non_null(length);
    deed_bytes body = {end + 4, request->len - (size_t)(end + 4 - request->ptr)};
    assert_int_equal(strtoull((const char *)length + 16, NULL, 10), body.len);
    return body;
}

static json_value parsed(struct arena *arena, deed_bytes text)
{
    struct deed_error err = {0};
    json_value value = {0};
    expect_status(DEED_OK, json_parse(arena, text, 0, &value, &err));
    return value;
}

static bool begins(const struct buf *request, const char *text)
{
    return request->len >= strlen(text) && memcmp(request->ptr, text, strlen(text)) == 0;
}

TEST(workload, data_has_the_size_asked_for_and_is_json)
{
    for (uint64_t size = WORKLOAD_SIZE_MIN; size < 600; size++) {
        struct arena arena;
        struct buf data;
        arena_init(&arena, 1u << 20);
        buf_init(&data, 1u << 20);
        workload_data(&data, size);
        assert_int_equal(data.len, size);
        (void)parsed(&arena, buf_bytes(&data));
        buf_done(&data);
        arena_done(&arena);
    }
}

TEST(workload, a_batch_expects_the_revision_that_the_last_one_left)
{
    struct workload_options options = {
        .mode = WORKLOAD_APPEND, .clients = 1, .size = 64, .batch = 3, .expect = true, .host = "h"};
    struct workload *workload = create(&options);
    struct arena arena;
    struct buf request;
    arena_init(&arena, 1u << 20);
    buf_init(&request, 1u << 20);
    workload_make(workload, 0, 0, &request);
    assert_non_null(memmem(request.ptr, request.len, "?expected=none ", 15));
    assert_true(json_count(parsed(&arena, body_of(&request))) == 3);
    buf_reset(&request);
    workload_make(workload, 0, 5, &request);
    assert_non_null(memmem(request.ptr, request.len, "?expected=14 ", 13));
    buf_done(&request);
    arena_done(&arena);
    workload_destroy(workload);
}

TEST(workload, ids_are_uuids_and_new_each_time)
{
    struct workload_options options = {
        .mode = WORKLOAD_APPEND, .clients = 1, .size = 64, .batch = 2, .ids = true, .host = "h"};
    struct workload *workload = create(&options);
    struct arena arena;
    struct buf request;
    char seen[4][37] = {{0}};
    arena_init(&arena, 1u << 20);
    buf_init(&request, 1u << 20);
    for (uint64_t number = 0; number < 2; number++) {
        buf_reset(&request);
        workload_make(workload, 0, number, &request);
        deed_bytes body = body_of(&request);
        (void)parsed(&arena, body);
        const uint8_t *at = body.ptr;
        for (size_t i = 0; i < 2; i++) {
            at = memmem(at, body.len - (size_t)(at - body.ptr), "\"id\":\"", 6);
            assert_non_null(at);
            at += 6;
            memcpy(seen[number * 2 + i], at, 36);
            assert_true(at[36] == '"' && at[14] == '4');
        }
    }
    for (size_t i = 0; i < 4; i++) {
        for (size_t j = i + 1; j < 4; j++)
            assert_string_not_equal(seen[i], seen[j]);
    }
    buf_done(&request);
    arena_done(&arena);
    workload_destroy(workload);
}

TEST(workload, conditions_are_json_whatever_they_ask)
{
    for (int query = WORKLOAD_NO_QUERY; query <= WORKLOAD_QUERY_ALL; query++) {
        struct workload_options options = {.mode = WORKLOAD_CONDITION,
                                           .clients = 1,
                                           .size = 64,
                                           .batch = 1,
                                           .tags = 10,
                                           .query = (enum workload_query)query,
                                           .after = UINT64_MAX - 1,
                                           .host = "h"};
        struct workload *workload = create(&options);
        struct arena arena;
        struct buf request;
        arena_init(&arena, 1u << 20);
        buf_init(&request, 1u << 20);
        for (uint64_t number = 0; number < 3; number++) {
            buf_reset(&request);
            workload_make(workload, 3, number, &request);
            assert_true(begins(&request, "POST /append HTTP/1.1\r\n"));
            (void)parsed(&arena, body_of(&request));
        }
        buf_done(&request);
        arena_done(&arena);
        workload_destroy(workload);
    }
}

TEST(workload, filling_gives_every_stream_its_events)
{
    struct workload_options options = {.mode = WORKLOAD_READ,
                                       .clients = 2,
                                       .size = 64,
                                       .batch = 1,
                                       .streams = 5,
                                       .per_read = 3,
                                       .host = "h"};
    struct workload *workload = create(&options);
    struct buf request;
    unsigned counts[5] = {0};
    buf_init(&request, 1u << 20);
    assert_int_equal(workload_filling_count(workload), 15);
    for (uint64_t i = 0; i < 15; i++) {
        buf_reset(&request);
        workload_make_filling(workload, 0, 0, &request);
        const uint8_t *at = memmem(request.ptr, request.len, "-r", 2);
        assert_non_null(at);
        counts[strtoul((const char *)at + 2, NULL, 10)]++;
    }
    for (size_t i = 0; i < 5; i++)
        assert_int_equal(counts[i], 3);
    buf_done(&request);
    workload_destroy(workload);
}

TEST_MAIN(workload)
