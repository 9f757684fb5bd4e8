/* The load generator measures others, so it is measured itself: its parser on every split of a
 * stream of responses, its histogram against a sorted list. */
#include "test.h"

#include "cli/loadgen.h"

static const char stream[] = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
                             "HTTP/1.1 204 No Content\r\n\r\n"
                             "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
                             "4;x=y\r\nwiki\r\n5\r\npedia\r\n0\r\nTrailer: 1\r\n\r\n"
                             "HTTP/1.1 503 Busy\r\nX: y\r\ncontent-LENGTH:  4 \r\n\r\nbusy"
                             "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

/* Feed the stream in pieces of this size; statuses as one number, base 1000. */
static uint64_t statuses_in_pieces(size_t piece, struct load_parser *parser)
{
    uint64_t statuses = 0;
    size_t from = 0, to = 0, all = sizeof stream - 1;
    while (to < all || from < to) {
        size_t used = 0;
        bool broken = false;
        bool ended = load_parse(parser, (deed_bytes){(const uint8_t *)stream + from, to - from},
                                &used, &broken);
        assert_false(broken);
        from += used;
        if (ended) statuses = statuses * 1000 + (uint64_t)parser->status;
        if (!ended && to == all) break;
        if (!ended) to = all - to < piece ? all : to + piece;
    }
    assert_int_equal(from, all);
    return statuses;
}

TEST(loadgen, responses_are_found_whatever_the_pieces)
{
    for (size_t piece = 1; piece < sizeof stream; piece++) {
        struct load_parser parser = {0};
        assert_true(statuses_in_pieces(piece, &parser) == UINT64_C(200204200503200));
        assert_string_equal(parser.sample, "busy");
    }
}

static bool is_broken(const char *text)
{
    struct load_parser parser = {0};
    size_t used = 0;
    bool broken = false;
    deed_bytes in = deed_bytes_of(deed_str_of(text));
    while (load_parse(&parser, in, &used, &broken)) {
        in = (deed_bytes){in.ptr + used, in.len - used};
    }
    return broken;
}

TEST(loadgen, what_is_not_http_is_noticed)
{
    assert_true(is_broken("SSH-2.0-OpenSSH_9.2\r\n\r\n"));
    assert_true(is_broken("HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\nx"));
    assert_true(is_broken("HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n"));
    assert_true(is_broken("HTTP/1.1 200 OK\r\n\r\nuntil the end"));
    assert_true(is_broken("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"));
    assert_true(is_broken("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n"));
    assert_false(is_broken(stream));
}

TEST(loadgen, a_percentile_is_within_four_percent_of_the_exact_one)
{
    struct load_histogram *histogram = calloc(1, sizeof *histogram);
    assert_non_null(histogram);
    for (uint64_t i = 1; i <= 100000; i++)
        load_histogram_add(histogram, i * 1000);

    for (int percent = 1; percent <= 100; percent++) {
        double exact = percent * 1000000.0;
        double found = (double)load_histogram_at(histogram, percent / 100.0);
        assert_true(found >= exact * 0.99 && found <= exact * 1.04);
    }
    assert_true(load_histogram_at(histogram, 1) == 100000000);
    assert_true(histogram->max_ns == 100000000);
    free(histogram);
}

TEST(loadgen, the_smallest_and_the_largest_duration_have_a_bucket)
{
    struct load_histogram *histogram = calloc(1, sizeof *histogram);
    assert_non_null(histogram);
    assert_true(load_histogram_at(histogram, 0.5) == 0);
    load_histogram_add(histogram, 0);
    load_histogram_add(histogram, UINT64_MAX);
    assert_true(load_histogram_at(histogram, 0.5) == 0);
    assert_true(load_histogram_at(histogram, 1) == UINT64_MAX);
    free(histogram);
}

TEST(loadgen, a_server_that_is_not_there_is_named)
{
    struct load_result *result = calloc(1, sizeof *result);
    struct deed_error err = {0};
    struct load_options options = {
        .host = "127.0.0.1", .port = "1", .client_count = 1, .depth = 1, .duration_ns = 1};
    assert_non_null(result);
    expect_status(DEED_STOPPED, load_run(&options, result, &err));
    expect_message(err, "127.0.0.1:1");
    free(result);
}

TEST_MAIN(loadgen)
