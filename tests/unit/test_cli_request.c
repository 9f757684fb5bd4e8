/* Requests and answers of the subcommands, without a server. */
#include "test.h"

#include "cli/request.h"

TEST(request, what_a_url_cannot_hold_is_escaped)
{
    struct url url;
    url_init(&url, "/streams");
    url_part(&url, "a/b ?#%ä");
    url_param(&url, "tag", "x=y&z");
    url_param(&url, "left", NULL);
    url_param_uint(&url, "limit", UINT64_MAX);
    assert_string_equal(url_text(&url), "/streams/a%2Fb%20%3F%23%25%C3%A4"
                                        "?tag=x%3Dy%26z&limit=18446744073709551615");
    url_done(&url);
}

static deed_status problem(int http, const char *body, struct deed_error *err)
{
    *err = (struct deed_error){0};
    return reply_problem(http, deed_bytes_of(deed_str_of(body)), err);
}

TEST(request, a_problem_becomes_the_status_that_it_was)
{
    struct deed_error err;
    expect_status(DEED_LOCKED,
                  problem(409,
                          "{\"type\":\"urn:deedbook:problem:locked\",\"title\":\"in use\","
                          "\"detail\":\"by 12\",\"code\":\"locked\",\"status\":409}",
                          &err));
    assert_string_equal(err.message, "in use: by 12");
    assert_string_equal(err.code, "");

    expect_status(DEED_REJECTED,
                  problem(422,
                          "{\"type\":\"urn:deedbook:problem:rejected\",\"title\":\"no\","
                          "\"code\":\"order_shipped\",\"revision\":4,\"position\":\"17\"}",
                          &err));
    assert_string_equal(err.code, "order_shipped");
    assert_true(err.revision == 4 && err.position == 17);
}

TEST(request, an_answer_that_is_no_problem_json_still_is_an_error)
{
    struct deed_error err;
    expect_status(DEED_BUSY, problem(502, "<html>Bad Gateway</html>", &err));
    expect_message(err, "502");
    expect_status(DEED_NOT_FOUND, problem(404, "", &err));
    expect_status(DEED_STALE, problem(412, "[]", &err));
    expect_status(DEED_GONE, problem(410, "{\"type\":\"about:blank\"}", &err));
}

/* ---- lines --------------------------------------------------------------------------------------
 */

static char seen[256];

static deed_status on_line(void *context, deed_str line, struct deed_error *err)
{
    (void)context;
    if (deed_str_equal(line, DEED_STR("stop"))) return DEED_END;
    if (deed_str_equal(line, DEED_STR("bad"))) return deed_fail(err, DEED_INVALID, "a bad line");
    size_t size = strlen(seen);
    snprintf(seen + size, sizeof seen - size, "<%.*s>", DEED_FMT(line));
    return DEED_OK;
}

static deed_status split(const char *text, size_t piece)
{
    struct splitter splitter;
    deed_status status = DEED_OK;
    size_t size = strlen(text);
    seen[0] = '\0';
    splitter_init(&splitter, on_line, NULL);
    for (size_t at = 0; at < size && status == DEED_OK; at += piece) {
        size_t some = size - at < piece ? size - at : piece;
        status = splitter_add(&splitter, (deed_bytes){(const uint8_t *)text + at, some}, NULL);
    }
    if (status == DEED_OK) status = splitter_end(&splitter, NULL);
    splitter_done(&splitter);
    return status;
}

TEST(request, lines_are_found_whatever_the_pieces)
{
    for (size_t piece = 1; piece < 20; piece++) {
        expect_ok(split("one\ntwo\r\n\n\nthree", piece));
        assert_string_equal(seen, "<one><two><three>");
    }
}

TEST(request, a_line_can_stop_the_reading)
{
    for (size_t piece = 1; piece < 20; piece++) {
        expect_status(DEED_END, split("one\nstop\ntwo\n", piece));
        assert_string_equal(seen, "<one>");
        expect_status(DEED_INVALID, split("one\nbad\ntwo\n", piece));
    }
}

TEST_MAIN(request)
