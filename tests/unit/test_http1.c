/* test_http1.c - the codec, whole and in pieces. */
#include "test.h"

#include "http1_transcript.h"

static struct http1_limits limits = {.head_size_max = 512, .body_size_max = 100};
static struct buf said;

static uint64_t dice_state = 42;
static uint64_t dice(void)
{
    dice_state ^= dice_state << 13;
    dice_state ^= dice_state >> 7;
    dice_state ^= dice_state << 17;
    return dice_state;
}
static size_t small_pieces(void *context)
{
    (void)context;
    uint64_t d = dice();
    return d % 4 == 0 ? d / 4 % 40 : d / 4 % 3;
}
static size_t single_bytes(void *context)
{
    (void)context;
    return 1;
}

/* What the codec says; the same for every way of cutting the bytes. */
static const char *feed_sized(const char *text, size_t len)
{
    deed_bytes in = {(const uint8_t *)text, len};
    buf_done(&said);
    buf_init(&said, 1 << 20);
    transcript(in, &limits, NULL, NULL, &said);
    for (int i = 0; i < 12; i++) {
        struct buf again;
        buf_init(&again, 1 << 20);
        transcript(in, &limits, i == 0 ? single_bytes : small_pieces, NULL, &again);
        assert_int_equal(again.len, said.len);
        assert_memory_equal(again.ptr, said.ptr, said.len);
        buf_done(&again);
    }
    buf_add_byte(&said, '\0');
    return (const char *)said.ptr;
}

static const char *feed(const char *text)
{
    return feed_sized(text, strlen(text));
}

#define expect_said(text, wanted) assert_string_equal(feed(text), wanted)
static void expect_refused(const char *text, int status, const char *why)
{
    char wanted[32];
    snprintf(wanted, sizeof wanted, "ERROR %d ", status);
    const char *got = feed(text);
    const char *found = strstr(got, wanted);
    if (found == NULL || strstr(found, why) == NULL) {
        fail_msg("for \"%s\": said \"%s\", not %d with \"%s\"", text, got, status, why);
    }
}

#define H "Host: a\r\n"

TEST(http1, a_request_without_body)
{
    expect_said("GET /streams/a?from=1&x HTTP/1.1\r\nHost: a:1\r\nX-A:  b c \t\r\nEmpty:\r\n\r\n",
                "GET /streams/a ? from=1&x 1.1 keep length 0\n  Host: a:1\n  X-A: b c\n  Empty: \n"
                "  body 0: \nbetween\n");
}

TEST(http1, a_body_of_a_length)
{
    expect_said("POST / HTTP/1.1\r\n" H "Content-Length: 5\r\n\r\nhello",
                "POST / ?  1.1 keep length 5\n  Host: a\n  Content-Length: 5\n  body 5: hello\n"
                "between\n");
    expect_said("POST / HTTP/1.1\r\n" H "Content-Length: 5\r\n\r\nhell",
                "POST / ?  1.1 keep length 5\n  Host: a\n  Content-Length: 5\nwithin\n");
}

TEST(http1, a_chunked_body)
{
    expect_said("POST / HTTP/1.1\r\n" H "Transfer-Encoding: Chunked\r\n\r\n"
                "5\r\nhello\r\n00A;x=\"y\"\r\n, worldly!\r\n0\r\nTrailer: x\r\n\r\n"
                "GET /next HTTP/1.1\r\n" H "\r\n",
                "POST / ?  1.1 keep length -1\n  Host: a\n  Transfer-Encoding: Chunked\n"
                "  body 15: hello, worldly!\n"
                "GET /next ?  1.1 keep length 0\n  Host: a\n  body 0: \nbetween\n");
}

TEST(http1, pipelined_requests_and_empty_lines_between_them)
{
    expect_said("\r\n\r\nGET /1 HTTP/1.1\r\n" H "\r\n\r\nHEAD /2 HTTP/1.1\r\n" H "\r\n"
                "POST /3 HTTP/1.1\r\n" H "Content-Length: 1\r\n\r\nxGET /4 HTTP/1.0\r\n\r\n",
                "GET /1 ?  1.1 keep length 0\n  Host: a\n  body 0: \n"
                "HEAD /2 ?  1.1 head keep length 0\n  Host: a\n  body 0: \n"
                "POST /3 ?  1.1 keep length 1\n  Host: a\n  Content-Length: 1\n  body 1: x\n"
                "GET /4 ?  1.0 close length 0\n  body 0: \nbetween\n");
}

TEST(http1, keep_alive_follows_version_and_connection)
{
    assert_non_null(strstr(feed("GET / HTTP/1.1\r\n" H "\r\n"), "1.1 keep"));
    assert_non_null(strstr(feed("GET / HTTP/1.1\r\n" H "Connection: close\r\n\r\n"), "1.1 close"));
    assert_non_null(
        strstr(feed("GET / HTTP/1.1\r\n" H "Connection: x, CLOSE ,y\r\n\r\n"), "1.1 close"));
    assert_non_null(strstr(feed("GET / HTTP/1.0\r\n\r\n"), "1.0 close"));
    assert_non_null(
        strstr(feed("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n"), "1.0 keep"));
    assert_non_null(strstr(feed("GET / HTTP/1.1\r\n" H "Connection: upgrade\r\nUpgrade: h2c\r\n\r\n"),
                           "1.1 keep"));
}

TEST(http1, targets_in_their_forms)
{
    assert_non_null(strstr(feed("GET http://h/p?q HTTP/1.1\r\n" H "\r\n"), "GET /p ? q 1.1"));
    assert_non_null(strstr(feed("GET http://h HTTP/1.1\r\n" H "\r\n"), "GET / ?  1.1"));
    assert_non_null(strstr(feed("GET http://h?q HTTP/1.1\r\n" H "\r\n"), "GET / ? q 1.1"));
    assert_non_null(strstr(feed("OPTIONS * HTTP/1.1\r\n" H "\r\n"), "OPTIONS * ?  1.1"));
    assert_non_null(strstr(feed("GET /a?b?c HTTP/1.1\r\n" H "\r\n"), "GET /a ? b?c 1.1"));
    expect_refused("GET a HTTP/1.1\r\n" H "\r\n", 400, "");
    expect_refused("GET /a#b HTTP/1.1\r\n" H "\r\n", 400, "");
    expect_refused("GET /a\xc3\xa9 HTTP/1.1\r\n" H "\r\n", 400, "");
    expect_refused("GET  /a HTTP/1.1\r\n" H "\r\n", 400, "");
    expect_refused("GET /a b HTTP/1.1\r\n" H "\r\n", 400, "");
    expect_refused("GET http:///a HTTP/1.1\r\n" H "\r\n", 400, "");
}

TEST(http1, smuggling_is_refused)
{
    expect_refused("POST / HTTP/1.1\r\n" H "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
                   400, "");
    expect_refused("POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n",
                   400, "");
    expect_refused("POST / HTTP/1.1\r\n" H "Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
                   400, "");
    expect_refused("POST / HTTP/1.1\r\n" H "Content-Length: 5, 5\r\n\r\nhello", 400, "");
    expect_refused("POST / HTTP/1.1\r\n" H "Content-Length: +5\r\n\r\nhello", 400, "");
    expect_refused("POST / HTTP/1.1\r\n" H "Content-Length: -1\r\n\r\n", 400, "");
    expect_refused("POST / HTTP/1.1\r\n" H "Content-Length: 0x5\r\n\r\nhello", 400, "");
    expect_refused("POST / HTTP/1.1\r\n" H "Content-Length:\r\n\r\n", 400, "");
    expect_refused("POST / HTTP/1.1\r\n" H "Content-Length : 5\r\n\r\nhello", 400, "");
    expect_refused("POST / HTTP/1.1\r\n" H "Transfer-Encoding: xchunked\r\n\r\n", 400, "");
    expect_refused("POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunked, identity\r\n\r\n", 400, "");
    expect_refused("POST / HTTP/1.1\r\n" H
                   "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
                   400, "");
    expect_refused("POST / HTTP/1.1\r\n" H "Transfer-Encoding: gzip, chunked\r\n\r\n", 501,
                   "transfer coding");
    expect_refused("POST / HTTP/1.0\r\n" H "Transfer-Encoding: chunked\r\n\r\n", 400, "HTTP/1.0");
    expect_refused("POST / HTTP/1.1\r\n" H "Transfer-Encoding:\x0b" "chunked\r\n\r\n", 400, "control");
}

TEST(http1, line_ends_are_cr_lf)
{
    expect_refused("GET / HTTP/1.1\n" H "\r\n", 400, "CR LF");
    expect_refused("GET / HTTP/1.1\r\nHost: a\n\r\n", 400, "CR LF");
    expect_refused("GET / HTTP/1.1\r\nHost: a\r\n\n", 400, "CR LF");
    expect_refused("GET / HTTP/1.1\r\nHost: a\rX: b\r\n\r\n", 400, "CR LF");
    expect_refused("GET / HTTP/1.1\r\nHost: a\r\n\rX", 400, "CR LF");
    expect_refused("\nGET / HTTP/1.1\r\n", 400, "CR LF");
    expect_refused("GET / HTTP/1.1\r\nHost: a\r\n folded: b\r\n\r\n", 400, "");
    expect_refused("GET / HTTP/1.1\r\n\tHost: a\r\n\r\n", 400, "");
    expect_refused(" GET / HTTP/1.1\r\n", 400, "");
    expect_refused("GET\t/ HTTP/1.1\r\n", 400, "");
    assert_non_null(strstr(feed_sized("GET / HTTP/1.1\r\nHost: a\0b\r\n\r\n", 28), "ERROR 400"));
    expect_refused("\x16\x03\x01\x02", 400, "control"); /* a TLS hello */
}

TEST(http1, headers_are_checked)
{
    expect_refused("GET / HTTP/1.1\r\n\r\n", 400, "Host is missing");
    expect_refused("GET / HTTP/1.1\r\n" H H "\r\n", 400, "Host more than once");
    expect_refused("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400, "Host is malformed");
    expect_refused("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400, "Host is malformed");
    expect_refused("GET / HTTP/1.1\r\n" H "no colon\r\n\r\n", 400, "");
    expect_refused("GET / HTTP/1.1\r\n" H ": no name\r\n\r\n", 400, "");
    expect_refused("GET / HTTP/1.1\r\n" H "na me: x\r\n\r\n", 400, "");
    expect_refused("GET / HTTP/1.1\r\n" H "n\xe4me: x\r\n\r\n", 400, "");
    expect_refused("GET / HTTP/1.1\r\n" H "name\t: x\r\n\r\n", 400, "");
    expect_refused("GET / HTTP/1.1\r\n" H "(x): x\r\n\r\n", 400, "");
    assert_non_null(strstr(feed("GET / HTTP/1.1\r\n" H "X: \xe4 \"~\r\n\r\n"), "X: \xe4 \"~"));
    assert_non_null(strstr(feed("GET / HTTP/1.1\r\nHost:\r\n\r\n"), "between"));
}

TEST(http1, methods_and_versions_have_their_own_answers)
{
    expect_refused("FROB / HTTP/1.1\r\n" H "\r\n", 501, "no such method");
    expect_refused("get / HTTP/1.1\r\n" H "\r\n", 501, "no such method");
    expect_refused("GETX / HTTP/1.1\r\n" H "\r\n", 501, "no such method");
    expect_refused("CONNECT a:1 HTTP/1.1\r\n" H "\r\n", 501, "CONNECT");
    expect_refused("GET / HTTP/2.0\r\n" H "\r\n", 505, "HTTP/1.1");
    expect_refused("GET / HTTP/1.2\r\n" H "\r\n", 505, "HTTP/1.1");
    expect_refused("GET / HTTP/0.9\r\n" H "\r\n", 505, "HTTP/1.1");
    expect_refused("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, "HTTP/1.1");
    expect_refused("GET / HTTP/x.y\r\n" H "\r\n", 400, "");
    expect_refused("GET / HTTP/1.1x\r\n" H "\r\n", 400, "");
    expect_refused("GET / http/1.1\r\n" H "\r\n", 400, "");
    expect_refused("GET /\r\n\r\n", 400, "");
    expect_refused("GET\r\n\r\n", 400, "");
    expect_refused("{\"json\": 1}\r\n\r\n", 400, "");
    expect_refused("G(T / HTTP/1.1\r\n" H "\r\n", 400, "");
}

TEST(http1, chunks_are_strict)
{
#define CHUNKED "POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\n"
    expect_refused(CHUNKED "x\r\n", 400, "chunked body is malformed");
    expect_refused(CHUNKED "\r\n", 400, "chunked");
    expect_refused(CHUNKED "-1\r\n", 400, "chunked");
    expect_refused(CHUNKED "0x5\r\n", 400, "chunked");
    expect_refused(CHUNKED " 5\r\n", 400, "chunked");
    expect_refused(CHUNKED "5 \r\n", 400, "chunked");
    expect_refused(CHUNKED "5\nhello", 400, "chunked");
    expect_refused(CHUNKED "5\rXhello", 400, "chunked");
    expect_refused(CHUNKED "5\r\nhelloX\r\n", 400, "chunked");
    expect_refused(CHUNKED "5\r\nhello\n0\r\n\r\n", 400, "chunked");
    expect_refused(CHUNKED "5\r\nhello\r\r", 400, "chunked");
    expect_refused(CHUNKED "0\r\n\n", 400, "chunked");
    expect_refused(CHUNKED "0\r\n folded\r\n\r\n", 400, "chunked");
    expect_refused(CHUNKED "0\r\nT: x\n\r\n", 400, "chunked");
    expect_refused(CHUNKED "5;a=\x01\r\n", 400, "chunked");
    expect_refused(CHUNKED "ffffffffffffffff\r\n", 400, "chunked");
    expect_refused(CHUNKED "fffffffffffffff\r\n", 413, "more than 100 bytes");
    expect_refused(CHUNKED "0000000000000005\r\n", 400, "chunked");
}

static const char *with(char *out, const char *head, size_t fill, char c, const char *tail)
{
    char *at = stpcpy(out, head);
    memset(at, c, fill);
    strcpy(at + fill, tail);
    return out;
}

TEST(http1, the_body_limit_is_exact)
{
    char text[2000];
    for (size_t n = 99; n <= 101; n++) {
        char head[200];
        snprintf(head, sizeof head, "POST / HTTP/1.1\r\n" H "Content-Length: %zu\r\n\r\n", n);
        with(text, head, n, 'x', "");
        if (n <= 100) assert_non_null(strstr(feed(text), "between"));
        if (n > 100) expect_refused(text, 413, "body: 101 bytes, limit 100");
        snprintf(head, sizeof head, CHUNKED "32\r\n%050d\r\n%zx\r\n", 0, n - 50);
        with(text, head, n - 50, 'x', "\r\n0\r\n\r\n");
        if (n <= 100) assert_non_null(strstr(feed(text), "between"));
        if (n > 100) expect_refused(text, 413, "body: more than 100 bytes");
    }
    expect_refused("POST / HTTP/1.1\r\n" H "Content-Length: 99999999999999999999999\r\n\r\n", 413,
                   "past any limit");
    expect_refused("POST / HTTP/1.1\r\n" H "Content-Length: 18446744073709551615\r\n\r\n", 413,
                   "18446744073709551615 bytes");
}

TEST(http1, the_head_limit_is_exact)
{
    char text[2000];
    static const char start[] = "GET / HTTP/1.1\r\n" H "X: ";
    for (size_t n = 511; n <= 513; n++) {
        with(text, start, n - strlen(start) - 4, 'x', "\r\n\r\n");
        if (n <= 512) assert_non_null(strstr(feed(text), "between"));
        if (n > 512) expect_refused(text, 431, "headers: more than 512 bytes");
    }
    with(text, "GET /", 600, 'x', " HTTP/1.1\r\n" H "\r\n");
    expect_refused(text, 414, "request line: more than 512 bytes");
    with(text, CHUNKED "5;", 600, 'x', "\r\nhello\r\n0\r\n\r\n");
    expect_refused(text, 431, "extensions");
    with(text, CHUNKED "0\r\nT:", 600, 'x', "\r\n\r\n");
    expect_refused(text, 431, "trailers");
}

TEST(http1, the_header_count_is_limited)
{
    struct http1_limits before = limits;
    limits.head_size_max = 4000;
    for (size_t n = 99; n <= 101; n++) {
        char text[4000] = "GET / HTTP/1.1\r\n" H;
        for (size_t i = 1; i < n; i++) strcat(text, "a: b\r\n");
        strcat(text, "\r\n");
        if (n <= 100) assert_non_null(strstr(feed(text), "between"));
        if (n > 100) expect_refused(text, 431, "more than 100 headers");
    }
    limits = before;
}

TEST(http1, expectations)
{
    const char *said_ = feed("POST / HTTP/1.1\r\n" H
                             "Expect: 100-Continue\r\nContent-Length: 1\r\n\r\nx");
    assert_non_null(strstr(said_, "keep expects length 1"));
    assert_null(strstr(feed("GET / HTTP/1.1\r\n" H "Expect: 100-continue\r\n\r\n"), "expects"));
    assert_null(strstr(feed("POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\nx"),
                       "expects"));
    expect_refused("POST / HTTP/1.1\r\n" H "Expect: miracles\r\nContent-Length: 1\r\n\r\nx", 417,
                   "expectation");
}

TEST(http1, an_error_is_final)
{
    expect_said("BAD\r\n\r\nGET / HTTP/1.1\r\n" H "\r\n",
                "ERROR 400 the request line is malformed\n");
}

/* Requests with random damage: whole and in pieces must agree (feed compares). */
TEST(http1, random_damage_reads_the_same_in_pieces)
{
    static const char sound[] =
        "POST /streams/a?expected=none HTTP/1.1\r\nHost: localhost:2113\r\nContent-Length: 11\r\n"
        "Content-Type: application/json\r\n\r\n{\"type\":\"x\"}" CHUNKED
        "5;x=y\r\nhello\r\n3\r\nabc\r\n0\r\nA: b\r\n\r\nGET / HTTP/1.0\r\n\r\n";
    static const char spice[] = "\r\n\r\n :;,\t0159aF\x01\x7f\xff/HTTP?#*";
    for (int i = 0; i < 1500; i++) {
        char text[sizeof sound];
        memcpy(text, sound, sizeof sound);
        for (uint64_t k = dice() % 4; k > 0; k--) {
            text[dice() % (sizeof sound - 1)] = spice[dice() % (sizeof spice - 1)];
        }
        (void)feed_sized(text, sizeof sound - 1);
    }
}

/* ---- responses ---------------------------------------------------------------------------- */

static const char *write_head(const struct http1_response *response)
{
    buf_done(&said);
    buf_init(&said, 1 << 16);
    http1_write_head(&said, response);
    buf_add_byte(&said, '\0');
    return (const char *)said.ptr;
}

TEST(http1, response_heads)
{
    struct http1_header headers[] = {{DEED_STR("Content-Type"), DEED_STR("application/json")},
                                     {DEED_STR("X"), DEED_STR("a\r\nInjected: b\x01")}};
    struct http1_response r = {.status = 200,
                               .headers = headers,
                               .header_count = 2,
                               .content_length = 1234567,
                               .date = DEED_STR("Sun, 06 Nov 1994 08:49:37 GMT"),
                               .version_minor = 1};
    assert_string_equal(write_head(&r),
                        "HTTP/1.1 200 OK\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n"
                        "Content-Type: application/json\r\nX: a  Injected: b \r\n"
                        "Content-Length: 1234567\r\n\r\n");
    r = (struct http1_response){.status = 409, .close = true, .version_minor = 1};
    assert_string_equal(write_head(&r), "HTTP/1.1 409 Conflict\r\nContent-Length: 0\r\n"
                                        "Connection: close\r\n\r\n");
    r = (struct http1_response){.status = 200, .framing = HTTP1_CHUNKED, .version_minor = 1};
    assert_string_equal(write_head(&r), "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    r = (struct http1_response){.status = 204, .version_minor = 0};
    assert_string_equal(write_head(&r),
                        "HTTP/1.1 204 No Content\r\nConnection: keep-alive\r\n\r\n");
    r = (struct http1_response){.status = 200, .framing = HTTP1_UNTIL_CLOSE, .close = true};
    assert_string_equal(write_head(&r), "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n");
    assert_string_equal(http1_reason(599), "Unknown");
}

TEST(http1, chunks_are_written)
{
    buf_done(&said);
    buf_init(&said, 1 << 16);
    http1_write_chunk(&said, deed_bytes_of(DEED_STR("hello, worldly!!")));
    http1_write_chunk(&said, (deed_bytes){0});
    http1_write_end(&said);
    expect_str(buf_str(&said), "10\r\nhello, worldly!!\r\n0\r\n\r\n");
    buf_reset(&said);
    http1_write_continue(&said);
    expect_str(buf_str(&said), "HTTP/1.1 100 Continue\r\n\r\n");
}

TEST(http1, dates)
{
    char text[HTTP1_DATE_SIZE + 1];
    http1_date(784111777, text);
    assert_string_equal(text, "Sun, 06 Nov 1994 08:49:37 GMT");
    http1_date(1709164800, text);
    assert_string_equal(text, "Thu, 29 Feb 2024 00:00:00 GMT");
    http1_date(INT64_MAX, text);
    assert_string_equal(text, "Thu, 01 Jan 1970 00:00:00 GMT");
}

TEST_MAIN(http1)
