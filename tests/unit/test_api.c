/* test_api.c - every route, its parameters and its statuses, over a real store. */
#include "api_fixture.h"
#include "stub_fixture.h"
#include "api/backups.h"
#include "groups/groups.h"
#include "store/backup.h"

#include <errno.h>

#include "api/routes.h"
#include "json/json.h"

#define EVENT "{\"type\":\"T\",\"data\":{\"a\":1}}"

/* ---- appending ---------------------------------------------------------------------------- */

TEST(api, an_append_answers_where_the_events_are)
{
    open_api();
    ask("POST", "/streams/order-1", EVENT);
    expect_answer(200,
                  "{\"stream\":\"order-1\",\"first_revision\":0,\"revision\":0,\"position\":2}");
    expect_header("Content-Type", "application/json");
    expect_header("ETag", "\"0\"");
    expect_header("Deedbook-Position", "2");
    assert_int_equal(answer.where, API_INLINE);
    ask("POST", "/streams/order-1", "[" EVENT "," EVENT "]");
    expect_answer(200, "\"first_revision\":1,\"revision\":2,\"position\":4}");
    close_api();
}

TEST(api, what_is_appended_is_read_back)
{
    open_api();
    with("Deedbook-Actor", "anna");
    with("Deedbook-Correlation-Id", "c-1");
    with("Deedbook-Causation-Id", "d-1");
    ask("POST", "/streams/a%2Fb%20%C3%A4",
        "{\"type\":\"T\",\"data\":{ \"a\" : 1.0 },\"id\":\"0192f0a1-0000-7000-8000-000000000001\","
        "\"metadata\":{ \"m\":1},\"tags\":[\"x:1\",\"y\"],\"time\":\"2020-01-02T03:04:05+01:00\"}");
    expect_answer(200, "\"stream\":\"a/b \xc3\xa4\"");
    get("/streams/a%2Fb%20%C3%A4");
    expect_answer(200, "\"subject\":\"a/b \xc3\xa4\"");
    expect_answer(200, "\"id\":\"0192f0a1-0000-7000-8000-000000000001\"");
    expect_answer(200, "\"data\":{ \"a\" : 1.0 }");
    expect_answer(200, "\"metadata\":\"{ \\\"m\\\":1}\"");
    expect_answer(200, "\"tags\":\"x:1,y\"");
    expect_answer(200, "\"time\":\"2020-01-02T02:04:05.000000000Z\"");
    expect_answer(200, "\"actor\":\"anna\"");
    expect_answer(200, "\"correlationid\":\"c-1\"");
    expect_answer(200, "\"causationid\":\"d-1\"");
    expect_answer(200, "\"revision\":\"0\",\"position\":\"2\"");
    close_api();
}

TEST(api, an_event_says_its_own_actor_before_the_header)
{
    open_api();
    with("Deedbook-Actor", "anna");
    ask("POST", "/streams/a",
        "{\"type\":\"T\",\"data\":1,\"actor\":\"bert\",\"correlation_id\":\"c\","
        "\"causation_id\":\"d\"}");
    get("/streams/a");
    expect_answer(200, "\"actor\":\"bert\"");
    expect_answer(200, "\"correlationid\":\"c\",\"causationid\":\"d\"");
    close_api();
}

TEST(api, bytes_go_in_and_out_as_base64)
{
    open_api();
    ask("POST", "/streams/a",
        "{\"type\":\"T\",\"datacontenttype\":\"image/png\",\"data_base64\":\"AAH/\"}");
    expect_answer(200, "position");
    get("/streams/a");
    expect_answer(200, "\"datacontenttype\":\"image/png\",\"data_base64\":\"AAH/\"");
    close_api();
}

TEST(api, expected_revisions_hold_or_conflict)
{
    open_api();
    ask("POST", "/streams/a?expected=0", EVENT);
    expect_answer(409, "\"code\":\"conflict\"");
    ask("POST", "/streams/a?expected=exists", EVENT);
    expect_answer(409, "\"condition\":0");
    ask("POST", "/streams/a?expected=none", EVENT);
    expect_answer(200, "\"revision\":0");
    ask("POST", "/streams/a?expected=none", EVENT);
    expect_answer(409, "\"revision\":0");
    ask("POST", "/streams/a?expected=0", EVENT);
    expect_answer(200, "\"revision\":1");
    ask("POST", "/streams/a?expected=0", EVENT);
    expect_answer(409, "\"revision\":1");
    expect_header("Content-Type", "application/problem+json");
    ask("POST", "/streams/a?expected=exists", EVENT);
    expect_answer(200, "\"revision\":2");
    ask("POST", "/streams/a?expected=any", EVENT);
    expect_answer(200, "\"revision\":3");
    close_api();
}

TEST(api, if_match_fails_with_412)
{
    open_api();
    with("If-None-Match", "*");
    ask("POST", "/streams/a", EVENT);
    expect_answer(200, "\"revision\":0");
    with("If-None-Match", "*");
    ask("POST", "/streams/a", EVENT);
    expect_answer(412, "\"code\":\"stale\"");
    with("If-Match", "\"0\"");
    ask("POST", "/streams/a", EVENT);
    expect_answer(200, "\"revision\":1");
    with("If-Match", "\"0\"");
    ask("POST", "/streams/a", EVENT);
    expect_answer(412, "\"revision\":1");
    with("If-Match", "*");
    ask("POST", "/streams/b", EVENT);
    expect_answer(412, "\"stale\"");
    with("If-Match", "W/\"1\"");
    ask("POST", "/streams/a", EVENT);
    expect_answer(400, "weak");
    with("If-Match", "1");
    ask("POST", "/streams/a", EVENT);
    expect_answer(400, "in quotes");
    with("If-Match", "\"1\", \"2\"");
    ask("POST", "/streams/a", EVENT);
    expect_answer(400, "not one revision");
    with("If-Match", "\"1\"");
    with("If-Match", "\"1\"");
    ask("POST", "/streams/a", EVENT);
    expect_answer(400, "If-Match is given twice");
    with("If-Match", "\"1\"");
    with("If-None-Match", "*");
    ask("POST", "/streams/a", EVENT);
    expect_answer(400, "both given");
    with("If-None-Match", "\"1\"");
    ask("POST", "/streams/a", EVENT);
    expect_answer(400, "is not *");
    with("If-Match", "\"1\"");
    ask("POST", "/streams/a?expected=1", EVENT);
    expect_answer(400, "both given");
    close_api();
}

TEST(api, a_retry_with_the_same_key_is_given_the_first_answer)
{
    open_api();
    with("Idempotency-Key", "k-1");
    ask("POST", "/streams/a?expected=none", EVENT);
    expect_answer(200, "\"revision\":0,\"position\":2}");
    with("Idempotency-Key", "\"k-1\"");
    ask("POST", "/streams/a?expected=none", EVENT);
    expect_answer(200, "\"revision\":0,\"position\":2,\"repeated\":true}");
    with("Idempotency-Key", "k-1");
    ask("POST", "/streams/a?expected=any", EVENT);
    expect_answer(409, "conflict");
    with("Idempotency-Key", "k-1");
    ask("POST", "/streams/b?expected=none", EVENT);
    expect_answer(409, "conflict");
    with("Idempotency-Key", "k-1");
    ask("POST", "/streams/a?expected=none", "{\"type\":\"T\",\"data\":2}");
    expect_answer(409, "conflict");
    with("Idempotency-Key", "\"\"");
    ask("POST", "/streams/a", EVENT);
    expect_answer(400, "Idempotency-Key is empty");
    close_api();
}

TEST(api, one_append_writes_to_many_streams)
{
    open_api();
    ask("POST", "/append",
        "{\"events\":[{\"stream\":\"a\",\"type\":\"T\",\"data\":1},{\"stream\":\"b\",\"type\":"
        "\"T\","
        "\"data\":2},{\"stream\":\"a\",\"type\":\"T\",\"data\":3}],"
        "\"conditions\":[{\"stream\":\"a\",\"revision\":\"none\"}]}");
    expect_answer(200, "{\"first_position\":2,\"position\":4,\"events\":["
                       "{\"stream\":\"a\",\"revision\":0,\"position\":2},"
                       "{\"stream\":\"b\",\"revision\":0,\"position\":3},"
                       "{\"stream\":\"a\",\"revision\":1,\"position\":4}]}");
    assert_null(header_of("ETag"));
    close_api();
}

TEST(api, a_boundary_of_tags_is_kept)
{
    open_api();
    const char *body =
        "{\"events\":[{\"stream\":\"a\",\"type\":\"Enrolled\",\"tags\":[\"course:1\","
        "\"student:2\"],\"data\":1}],\"conditions\":[{\"stream\":\"b\",\"revision\":"
        "\"none\"},{\"no_match\":[{\"types\":[\"Closed\"]},{\"types\":[\"Enrolled\"],"
        "\"tags\":[\"course:1\",\"student:2\"]}]}]}";
    ask("POST", "/append", body);
    expect_answer(200, "\"position\":2");
    ask("POST", "/append", body);
    expect_answer(409, "\"condition\":1,\"position\":2");
    ask("POST", "/append",
        "{\"events\":[{\"stream\":\"a\",\"type\":\"Enrolled\",\"data\":1}],\"conditions\":["
        "{\"no_match\":[{\"types\":[\"Enrolled\"]}],\"after\":\"2\"}]}");
    expect_answer(200, "\"position\":3");
    close_api();
}

TEST(api, a_batch_of_cloudevents_goes_to_the_streams_it_names)
{
    open_api();
    ask("POST", "/streams/a", EVENT);
    get("/streams/a");
    char first[2048];
    snprintf(first, sizeof first, "%s", body_text());
    close_api();

    open_api();
    with("Content-Type", "application/cloudevents-batch+json");
    ask("POST", "/append", first);
    expect_answer(200, "\"stream\":\"a\",\"revision\":0");
    with("Content-Type", "application/cloudevents-batch+json");
    ask("POST", "/append", first);
    expect_answer(200, "\"repeated\":true");
    with("Content-Type", "application/cloudevents+json");
    ask("POST", "/streams/b",
        "{\"specversion\":\"1.0\",\"id\":\"x\",\"source\":\"/y\",\"type\":\"T\",\"data\":{}}");
    expect_answer(200, "\"stream\":\"b\"");
    get("/streams/b");
    expect_answer(200, "cloudevents");
    close_api();
}

TEST(api, malformed_bodies_are_refused_by_name)
{
    static const struct {
        const char *body, *why;
    } cases[] = {
        {"", "json"},
        {"[]", "none is given"},
        {"7", "a number, where an object"},
        {"[7]", "event 0: a number"},
        {"{\"data\":1}", "member \\\"type\\\" is missing"},
        {"{\"type\":\"T\"}", "member \\\"data\\\" is missing; null is data, too"},
        {"{\"type\":7,\"data\":1}", "type: 7 is not a text"},
        {"{\"type\":\"\",\"data\":1}", "type"},
        {"{\"typ\":\"T\"}", "member \\\"typ\\\" is unknown; known: stream, type"},
        {"{\"specversion\":\"1.0\"}", "application/cloudevents+json"},
        {"{\"stream\":\"a\",\"type\":\"T\"}", "the path names it already"},
        {"{\"type\":\"T\",\"data\":1,\"data_base64\":\"\"}", "both given"},
        {"{\"type\":\"T\",\"data_base64\":\"!\"}", "not base64"},
        {"{\"type\":\"T\",\"data\":1,\"id\":\"x\"}", "id: \\\"x\\\" is not a UUID"},
        {"{\"type\":\"T\",\"data\":1,\"id\":\"00000000-0000-0000-0000-000000000000\"}", "nil"},
        {"{\"type\":\"T\",\"data\":1,\"time\":\"x\"}", "time: \\\"x\\\" is not a time"},
        {"{\"type\":\"T\",\"data\":1,\"metadata\":[]}", "metadata: [] is not an object"},
        {"{\"type\":\"T\",\"data\":1,\"tags\":\"a\"}", "not a list of texts"},
        {"{\"type\":\"T\",\"data\":1,\"tags\":[1]}", "tags: 1 is not a text"},
        {"{\"type\":\"T\",\"data\":1,\"tags\":[\"\"]}", "tag"},
        {"{\"type\":\"T\",\"data\":{\"a\":1,\"a\":2}}", "duplicate"},
        {"{\"type\":\"T\",\"data\":1} x", "json"},
        {"[" EVENT ",{\"type\":\"T\",\"data\":1,\"id\":\"x\"}]", "event 1: id"},
    };
    open_api();
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        ask("POST", "/streams/a", cases[i].body);
        expect_answer(400, cases[i].why);
        assert_non_null(strstr(body_text(), "\"title\":\"the input is malformed\""));
    }
    get("/streams/a");
    expect_answer(404, "not_found");
    close_api();
}

TEST(api, malformed_appends_are_refused_by_name)
{
    static const struct {
        const char *body, *why;
    } cases[] = {
        {"[]", "an array, where an object"},
        {"{}", "member \\\"events\\\" is missing"},
        {"{\"events\":{}}", "events: {} is not a list"},
        {"{\"events\":[]}", "none is given"},
        {"{\"events\":[" EVENT "]}", "event 0: member \\\"stream\\\" is missing"},
        {"{\"event\":[]}", "member \\\"event\\\" is unknown"},
#define E "{\"events\":[{\"stream\":\"a\",\"type\":\"T\",\"data\":1}],\"conditions\":"
        {E "{}}", "conditions: {} is not a list"},
        {E "[7]}", "condition 0: a number"},
        {E "[{}]}", "member \\\"stream\\\" is missing"},
        {E "[{\"stream\":\"a\"}]}", "member \\\"revision\\\" is missing"},
        {E "[{\"stream\":\"a\",\"revision\":\"any\"}]}", "revision: \\\"any\\\" is not"},
        {E "[{\"stream\":\"a\",\"revision\":-1}]}", "revision: -1 is not"},
        {E "[{\"stream\":\"a\",\"revision\":1.5}]}", "revision: 1.5 is not"},
        {E "[{\"stream\":\"a\",\"revision\":0,\"x\":1}]}", "member \\\"x\\\" is unknown"},
        {E "[{\"no_match\":[]}]}", "no_match: [] is not"},
        {E "[{\"no_match\":{}}]}", "no_match: {} is not"},
        {E "[{\"no_match\":[7]}]}", "no_match: 7 is not"},
        {E "[{\"no_match\":[{\"type\":[]}]}]}", "member \\\"type\\\" is unknown"},
        {E "[{\"no_match\":[{\"types\":\"T\"}]}]}", "not a list of texts"},
        {E "[{\"no_match\":[{}],\"after\":\"x\"}]}", "after: \\\"x\\\" is not a position"},
        {E "[{\"no_match\":[{}],\"stream\":\"x\"}]}", "member \\\"stream\\\" is unknown"},
#undef E
    };
    open_api();
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        ask("POST", "/append", cases[i].body);
        expect_answer(400, cases[i].why);
    }
    close_api();
}

TEST(api, data_may_be_as_deep_as_the_limit)
{
    open_api();
    for (int depth = 64; depth <= 65; depth++) {
        struct buf body;
        buf_init(&body, 4096);
        buf_add_str(&body, DEED_STR("{\"events\":[{\"stream\":\"a\",\"type\":\"T\",\"data\":"));
        for (int i = 0; i < depth; i++)
            buf_add_byte(&body, '[');
        for (int i = 0; i < depth; i++)
            buf_add_byte(&body, ']');
        buf_add_str(&body, DEED_STR("}]}"));
        ask_bytes("POST", "/append", buf_bytes(&body));
        assert_int_equal(answer.status, depth == 64 ? 200 : 413);
        buf_done(&body);
    }
    close_api();
}

TEST(api, media_types_charsets_and_encodings_are_checked)
{
    static const struct {
        const char *name, *value;
        int status;
    } cases[] = {
        {"Content-Type", "application/json; charset=utf-8", 200},
        {"Content-Type", "APPLICATION/JSON;charset=\"UTF-8\"", 200},
        {"Content-Type", "", 200},
        {"Content-Type", "application/x-www-form-urlencoded", 200},
        {"Content-Type", "application/json; charset=latin1", 415},
        {"Content-Type", "text/json", 415},
        {"Content-Encoding", "gzip", 415},
        {"Content-Encoding", "identity", 200},
    };
    open_api();
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        with(cases[i].name, cases[i].value);
        ask("POST", "/streams/a", EVENT);
        if (answer.status != cases[i].status) fail_msg("%s: %d", cases[i].value, answer.status);
        if (answer.status == 415) expect_answer(415, "\"code\":\"unsupported_media_type\"");
    }
    close_api();
}

TEST(api, a_page_of_another_site_cannot_write_but_read)
{
    static const struct {
        const char *method, *origin;
        int status;
    } cases[] = {
        {"POST", "http://evil.example", 403},       {"POST", "null", 403},
        {"POST", "http://deedbook.example", 200},   {"POST", "https://DEEDBOOK.example", 200},
        {"DELETE", "http://evil.example", 403},     {"GET", "http://evil.example", 200},
        {"POST", "http://deedbook.example:1", 403}, {"POST", "", 200},
    };
    open_api();
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        with("Host", "deedbook.example");
        with("Origin", cases[i].origin);
        ask(cases[i].method, "/streams/a", cases[i].method[0] == 'P' ? EVENT : "");
        if (answer.status != cases[i].status) {
            fail_msg("%s from %s: %d", cases[i].method, cases[i].origin, answer.status);
        }
        if (answer.status == 403) expect_answer(403, "\"code\":\"cross_origin\"");
    }
    close_api();
}

TEST(api, a_large_body_is_parsed_in_the_pool)
{
    open_api();
    struct buf body;
    buf_init(&body, 1 << 20);
    buf_add_str(&body, DEED_STR("{\"type\":\"T\",\"data\":\""));
    for (int i = 0; i < 70000; i++)
        buf_add_byte(&body, 'x');
    buf_add_str(&body, DEED_STR("\"}"));
    ask_bytes("POST", "/streams/a", buf_bytes(&body));
    expect_answer(200, "position");
    assert_int_equal(answer.where, API_POOL);
    buf_done(&body);
    close_api();
}

/* The target's answer, tried in haste and not: they must be one and the same. */
static void get_both_ways(const char *target, bool wanted_brief)
{
    get(target);
    assert_int_equal(answer.where, API_BRIEF);
    assert_int_equal(answer.brief, wanted_brief);
    struct answer tried = answer;
    answer.body = (struct buf){0};
    no_haste = true;
    get(target);
    no_haste = false;
    assert_int_equal(answer.status, tried.status);
    assert_int_equal(answer.header_count, tried.header_count);
    for (size_t i = 0; i < tried.header_count; i++) {
        assert_string_equal(answer.headers[i][0], tried.headers[i][0]);
        assert_string_equal(answer.headers[i][1], tried.headers[i][1]);
    }
    assert_int_equal(answer.body.len, tried.body.len);
    assert_memory_equal(answer.body.ptr, tried.body.ptr, tried.body.len);
    buf_done(&tried.body);
}

TEST(api, short_reads_are_brief_and_long_ones_are_not)
{
    open_api();
    append_many("a", 64);
    append_many("b", 300);
    get_both_ways("/streams/a", true);
    get_both_ways("/streams/b", false);
    assert_int_equal(count_of("specversion"), 300);
    get_both_ways("/streams/b?limit=64", true);
    get_both_ways("/streams/b?limit=65", false);
    get_both_ways("/streams/b?limit=65&from=240", true);
    get_both_ways("/streams/b?limit=100&from=200&direction=backwards", false);
    get_both_ways("/streams/b?limit=100&from=20&direction=backwards", true);
    get_both_ways("/streams/nobody", true);
    get_both_ways("/streams/b?limit=none", true); /* refused */
    get_both_ways("/events?limit=10", true);
    get_both_ways("/events?limit=70", false);
    get_both_ways("/events?limit=10&type=T", false); /* it may have to look far */
    close_api();
}

TEST(api, what_is_not_at_hand_is_left_to_a_pool_thread)
{
    open_api();
    append_large("big", 600 << 10);
    get_both_ways("/streams/big", false);
    assert_true(answer.body.len > 600 << 10);
    with("Accept", "application/x-ndjson");
    get("/streams/big");
    assert_false(answer.brief);
    assert_int_equal(count_of("specversion"), 1);
    assert_int_equal(answer.glances, 1); /* at what the pool thread had made */
    close_api();
}

/* Beside a request that is under way: past the api. */
static void store_many(unsigned count, size_t size)
{
    static struct deed_new_event events[1000];
    char *text = malloc(size + 2);
    assert_non_null(text);
    memset(text, 'x', size + 2);
    text[0] = text[size + 1] = '"';
    for (unsigned i = 0; i < count; i++) {
        events[i] = (struct deed_new_event){.stream = DEED_STR("b"),
                                            .type = DEED_STR("T"),
                                            .data = {(const uint8_t *)text, size + 2}};
    }
    struct deed_append append = {.events = events, .event_count = count};
    struct deed_appended appended;
    expect_ok(store_append(store, &append, &appended, NULL));
    free(text);
}

TEST(api, a_follower_glances_at_what_is_new_and_pulls_what_is_much)
{
    open_api();
    append_many("a", 2);
    with("Accept", "application/x-ndjson");
    begin_ask("GET", "/events?after=3&follow=true", (deed_bytes){0});
    await_answer();
    assert_int_equal(answer.last_pull, API_WAIT);
    assert_int_equal(count_of("specversion"), 0);

    size_t glances = answer.glances;
    store_many(10, 5);
    drain();
    assert_int_equal(count_of("specversion"), 10);
    assert_int_equal(answer.last_pull, API_WAIT);
    assert_true(answer.glances > glances);
    store_many(1000, 5);
    drain();
    assert_int_equal(count_of("specversion"), 1010);
    /* Near, but not at hand: the glance gives up and loses nothing. */
    store_many(1, 600 << 10);
    drain();
    assert_int_equal(count_of("specversion"), 1011);
    assert_int_equal(answer.last_pull, API_WAIT);
    let_go();
    close_api();
}

TEST(api, unsafe_answers_say_so)
{
    open_api();
    store_options.unsafe_no_sync = true;
    reopen_api();
    ask("POST", "/streams/a", EVENT);
    expect_answer(200, "\"unsafe\":true");
    ask("POST", "/append", "{\"events\":[{\"stream\":\"a\",\"type\":\"T\",\"data\":1}]}");
    expect_answer(200, "\"unsafe\":true");
    get("/");
    expect_answer(200, "\"unsafe\":true");
    get("/metrics");
    expect_answer(200, "deedbook_unsafe 1\n");
    close_api();
}

/* ---- reading streams ------------------------------------------------------------------------ */

/* The link to the next page: what it begins with, and how the token in it ends. */
static void expect_next(const char *beginning, const char *token_end)
{
    const char *link = header_of("Link");
    char end[64];
    (void)snprintf(end, sizeof end, "%s>; rel=\"next\"", token_end);
    assert_non_null(link);
    assert_int_equal(strncmp(link, beginning, strlen(beginning)), 0);
    assert_int_equal(strlen(link), strlen(beginning) + 8 + strlen(end));
    assert_string_equal(link + strlen(beginning) + 8, end);
}

static void get_next(void)
{
    char target[512];
    const char *link = header_of("Link");
    assert_non_null(link);
    (void)snprintf(target, sizeof target, "%.*s", (int)strcspn(link + 1, ">"), link + 1);
    get(target);
}

TEST(api, the_first_instant_of_1970_is_a_time_like_others)
{
    static const char wanted[] = "\"time\":\"1970-01-01T00:00:00.000000000Z\"";
    open_api();
    ask("POST", "/streams/a", "{\"type\":\"T\",\"data\":1,\"time\":\"1970-01-01T00:00:00Z\"}");
    expect_answer(200, "\"revision\":0");
    with("Content-Type", "application/cloudevents+json");
    ask("POST", "/streams/b",
        "{\"specversion\":\"1.0\",\"id\":\"00000000-0000-4000-8000-000000000001\",\"source\":\"x\","
        "\"type\":\"T\",\"time\":\"1970-01-01T02:00:00+02:00\",\"data\":1}");
    expect_answer(200, "\"revision\":0");
    get("/streams/a");
    expect_answer(200, wanted);
    get("/streams/b");
    expect_answer(200, wanted);
    close_api();
}

TEST(api, a_stream_is_read_in_pages)
{
    open_api();
    append_many("a", 5);
    get("/streams/a?limit=2");
    expect_answer(200, "\"data\":{\"n\":0}");
    expect_answer(200, "\"data\":{\"n\":1}");
    assert_int_equal(count_of("specversion"), 2);
    expect_next("</streams/a?limit=2&from=", ".1.r2");
    expect_header("Deedbook-Revision", "4");
    expect_header("ETag", "\"4\"");
    expect_header("Content-Type", "application/json");
    get_next();
    expect_answer(200, "\"data\":{\"n\":2}");
    expect_next("</streams/a?limit=2&from=", ".1.r4");
    get("/streams/a?limit=2&from=2");
    expect_answer(200, "\"data\":{\"n\":2}");
    get("/streams/a?limit=2&from=4");
    assert_int_equal(count_of("specversion"), 1);
    assert_null(header_of("Link"));
    get("/streams/a?from=5");
    expect_answer(200, "[]");
    assert_null(header_of("Link"));
    close_api();
}

TEST(api, a_stream_is_read_backwards)
{
    open_api();
    append_many("a", 3);
    get("/streams/a?direction=backwards&limit=2");
    expect_answer(200, "\"revision\":\"2\"");
    assert_true(strstr(body_text(), "\"n\":2") < strstr(body_text(), "\"n\":1"));
    expect_next("</streams/a?direction=backwards&limit=2&from=", ".1.r0");
    get_next();
    expect_answer(200, "\"n\":0");
    get("/streams/a?direction=backwards&limit=2&from=0");
    expect_answer(200, "\"n\":0");
    assert_null(header_of("Link"));
    get("/streams/a?direction=backwards&from=end&limit=1");
    expect_answer(200, "\"n\":2");
    get("/streams/a?direction=backwards&from=start");
    assert_int_equal(count_of("specversion"), 1);
    get("/streams/a?until=2");
    assert_int_equal(count_of("specversion"), 1);
    close_api();
}

TEST(api, a_page_is_an_array_of_whole_events)
{
    open_api();
    append_many("a", 50);
    get("/streams/a");
    json_value root;
    struct arena arena;
    arena_init(&arena, 1 << 20);
    expect_ok(json_parse(&arena, buf_bytes(&answer.body), 0, &root, NULL));
    assert_int_equal(json_count(root), 50);
    arena_done(&arena);
    with("Accept", "application/cloudevents-batch+json");
    get("/streams/a");
    expect_header("Content-Type", "application/cloudevents-batch+json");
    close_api();
}

TEST(api, a_large_page_ends_early_and_leads_on)
{
    open_api();
    for (int i = 0; i < 5; i++) append_large("a", 3 << 20);
    get("/streams/a");
    assert_int_equal(count_of("specversion"), 3);
    expect_next("</streams/a?from=", ".1.r3");
    get("/events?category=");
    expect_answer(400, "category");
    get("/events");
    assert_int_equal(count_of("specversion"), 3);
    assert_non_null(strstr(header_of("Link"), ".p4>"));
    close_api();
}

TEST(api, lines_are_streamed_in_slices)
{
    open_api();
    append_many("a", 3000);
    with("Accept", "application/x-ndjson");
    get("/streams/a");
    assert_true(answer.had_source);
    assert_int_equal(answer.last_pull, API_END);
    assert_int_equal(count_of("}\n"), 3000);
    expect_header("Content-Type", "application/x-ndjson");
    with("Accept", "application/x-ndjson");
    get("/streams/a?limit=2500&from=3");
    assert_int_equal(count_of("\n"), 2500);
    with("Accept", "application/x-ndjson");
    get("/streams/a?limit=2");
    assert_false(answer.had_source);
    assert_int_equal(count_of("\n"), 2);
    close_api();
}

TEST(api, a_small_server_buffer_still_gets_whole_events)
{
    open_api();
    append_many("a", 3000);
    with("Accept", "application/x-ndjson");
    begin_ask("GET", "/streams/a", (deed_bytes){0});
    struct buf piece;
    buf_init(&piece, 200 << 10); /* the first slice is 64 KiB */
    enum api_pull pull = API_MORE;
    size_t lines = 0;
    while (pull == API_MORE) {
        buf_reset(&piece);
        pull = x.response.source->pull(x.response.source, &piece, 1 << 30);
        assert_true(buf_ok(&piece));
        for (size_t i = 0; i < piece.len; i++)
            lines += piece.ptr[i] == '\n';
        if (piece.len > 0) assert_int_equal(piece.ptr[piece.len - 1], '\n');
    }
    assert_int_equal(pull, API_END);
    assert_int_equal(lines, 3000);
    buf_done(&piece);
    let_go();
    close_api();
}

TEST(api, a_follower_waits_at_the_end_and_goes_on)
{
    open_api();
    append_many("a", 2);
    with("Accept", "application/x-ndjson");
    begin_ask("GET", "/streams/a?follow=true", (deed_bytes){0});
    await_answer();
    assert_int_equal(answer.last_pull, API_WAIT);
    assert_int_equal(count_of("specversion"), 2);
    assert_true(x.response.source->wait_ms > 0);

    struct deed_new_event event = {
        .stream = DEED_STR("a"), .type = DEED_STR("T"), .data = deed_bytes_of(DEED_STR("3"))};
    struct deed_append append = {.events = &event, .event_count = 1};
    struct deed_appended appended;
    expect_ok(store_append(store, &append, &appended, NULL));
    drain();
    assert_int_equal(answer.last_pull, API_WAIT);
    assert_int_equal(count_of("specversion"), 3);

    api_ready = false; /* shutting down: a follower ends well */
    drain();
    assert_int_equal(answer.last_pull, API_END);
    let_go();
    close_api();
}

TEST(api, a_stream_that_is_not_there_yet_can_be_followed)
{
    open_api();
    begin_ask("GET", "/streams/later?follow=true", (deed_bytes){0});
    await_answer();
    assert_int_equal(answer.status, 200);
    assert_int_equal(answer.last_pull, API_WAIT);
    expect_header("Content-Type", "application/x-ndjson");
    let_go();
    close_api();
}

static const char *last_id(void)
{
    static char id[128];
    const char *found = NULL;
    for (const char *at = body_text(); (at = strstr(at, "id: ")) != NULL; at++)
        found = at;
    assert_non_null(found);
    snprintf(id, sizeof id, "%.*s", (int)strcspn(found + 4, "\n"), found + 4);
    return id;
}

TEST(api, server_sent_events_carry_tokens_to_go_on_from)
{
    open_api();
    append_many("a", 3);
    with("Accept", "text/event-stream");
    get("/streams/a?limit=2");
    expect_header("Content-Type", "text/event-stream");
    assert_int_equal(count_of("\ndata: {"), 2);
    assert_non_null(strstr(body_text(), "\"n\":1}}\n\n"));
    assert_non_null(strstr(last_id(), ".r1"));
    with("Accept", "text/event-stream");
    with("Last-Event-ID", last_id());
    begin_ask("GET", "/streams/a", (deed_bytes){0}); /* follows by itself */
    await_answer();
    assert_int_equal(answer.last_pull, API_WAIT);
    assert_int_equal(count_of("\ndata: {"), 1);
    expect_answer(200, "\"n\":2");
    let_go();

    with("Accept", "text/event-stream");
    get("/events?limit=3");
    assert_non_null(strstr(last_id(), ".p4"));
    with("Accept", "text/event-stream");
    with("Last-Event-ID", last_id());
    get("/events?follow=false");
    assert_int_equal(count_of("\ndata: {"), 0);
    close_api();
}

/* Pages, tokens and headers mean places in the virtual stream, not those of the events' own streams. */
TEST(api, a_virtual_stream_is_read_as_any_other)
{
    open_api();
    append_many("a-1", 2);
    append_many("b-1", 1);
    append_many("a-2", 2);
    get("/streams/$ce-a?limit=3");
    expect_answer(200, "\"subject\":\"a-2\"");
    expect_answer(200, "\"linkstream\":\"$ce-a\",\"linkrevision\":\"2\"");
    assert_int_equal(count_of("specversion"), 3);
    expect_header("Deedbook-Revision", "3");
    expect_next("</streams/$ce-a?limit=3&from=", ".1.r3");
    get_next();
    assert_int_equal(count_of("specversion"), 1);
    expect_answer(200, "\"revision\":\"1\"");
    expect_answer(200, "\"linkrevision\":\"3\"");
    get("/streams/%24ce-a?direction=backwards&limit=2");
    expect_answer(200, "\"linkrevision\":\"3\"");
    expect_next("</streams/%24ce-a?direction=backwards&limit=2&from=", ".1.r1");

    with("Accept", "text/event-stream");
    get("/streams/$et-T?limit=4");
    assert_non_null(strstr(last_id(), ".r3"));
    with("Accept", "text/event-stream");
    with("Last-Event-ID", last_id());
    get("/streams/$et-T?follow=false");
    assert_int_equal(count_of("\ndata: {"), 1);
    expect_answer(200, "\"linkrevision\":\"4\"");
    get("/streams/$ce-none");
    expect_answer(404, "there is no such stream");
    close_api();
}

TEST(api, nothing_is_written_to_a_virtual_stream)
{
    open_api();
    append_many("a-1", 1);
    ask("POST", "/streams/$ce-a", EVENT);
    expect_answer(400, "stream $ce-a is virtual");
    ask("POST", "/append", "{\"events\":[{\"stream\":\"a-1\",\"type\":\"T\",\"data\":1}],"
                           "\"conditions\":[{\"stream\":\"$streams\",\"revision\":0}]}");
    expect_answer(400, "stream $streams is virtual");
    ask("DELETE", "/streams/$ce-a", "");
    expect_answer(400, "is virtual");
    ask("POST", "/streams/$ce-a/metadata", "{}");
    expect_answer(400, "is virtual");
    get("/streams/$ce-a/metadata");
    expect_answer(400, "is virtual");
    close_api();
}

TEST(api, tokens_of_another_log_or_kind_are_refused)
{
    open_api();
    append_many("a", 1);
    with("Accept", "text/event-stream");
    get("/streams/a?follow=false");
    char id[128];
    snprintf(id, sizeof id, "%s", last_id());
    with("Accept", "text/event-stream");
    with("Last-Event-ID", id);
    get("/events");
    expect_answer(400, "is not a token");
    id[0] = id[0] == '0' ? '1' : '0';
    with("Accept", "text/event-stream");
    with("Last-Event-ID", id);
    get("/streams/a");
    expect_answer(409, "\"code\":\"stale_token\"");
    with("Accept", "text/event-stream");
    with("Last-Event-ID", "5");
    get("/streams/a");
    expect_answer(400, "is not a token");
    with("Accept", "text/event-stream");
    with("Last-Event-ID", id);
    get("/streams/a?direction=backwards");
    expect_answer(400, "backwards");
    close_api();
}

/* The log as it was when it held `kept` events in stream a; then more were appended that clients have
 * seen, and a restore took them back. */
static void open_restored_api(unsigned kept, unsigned more)
{
    char backup[64];
    struct deed_error err;
    open_api();
    append_many("a", kept);
    (void)snprintf(backup, sizeof backup, "%s/backup", api_directory);
    expect_ok(store_backup(store, backup, NULL, NULL, &err));
    append_many("a", more);
}

static void restore_api(void)
{
    char backup[64], restored[64];
    struct deed_error err = {0};
    (void)snprintf(backup, sizeof backup, "%s/backup", api_directory);
    (void)snprintf(restored, sizeof restored, "%s/restored", api_directory);
    api_destroy(api);
    store_close(store);
    store = NULL;
    expect_ok(store_restore(os_real(), backup, restored, NULL, NULL, &err));
    expect_ok(store_open(os_real(), restored, &store_options, &store, &err));
    api_parts.store = store;
    expect_ok(api_create(&api_parts, &api, &err));
}

static void keep_header(const char *name, char out[128])
{
    const char *value = header_of(name);
    assert_non_null(value);
    (void)snprintf(out, 128, "%s", value);
}

static void expect_stale(void)
{
    expect_answer(409, "\"code\":\"stale_token\"");
    assert_true(strstr(body_text(), "read again from the start") != NULL);
}

TEST(api, what_was_seen_before_a_restore_is_refused_after_it)
{
    char of_stream[128], of_log[128], of_append[128], of_query[128], log[128], link[512], text[512];
    open_restored_api(2, 3);
    with("Accept", "text/event-stream");
    get("/streams/a?limit=2"); /* of events that are there after the restore, too */
    (void)snprintf(of_stream, sizeof of_stream, "%s", last_id());
    with("Accept", "text/event-stream");
    get("/events?limit=2");
    (void)snprintf(of_log, sizeof of_log, "%s", last_id());
    ask("POST", "/streams/a", "{\"type\":\"T\",\"data\":{}}");
    keep_header("Deedbook-Token", of_append);
    get("/queries/q");
    keep_header("Deedbook-Token", of_query);
    get("/streams/a?limit=1");
    keep_header("Deedbook-Log", log);
    (void)snprintf(link, sizeof link, "%s", header_of("Link"));

    restore_api();

    with("Accept", "text/event-stream");
    with("Last-Event-ID", of_stream);
    get("/streams/a");
    expect_stale();
    with("Accept", "text/event-stream");
    with("Last-Event-ID", of_log);
    get("/events");
    expect_stale();
    (void)snprintf(text, sizeof text, "/events?after=%s", of_append);
    get(text);
    expect_stale();
    with("Accept", "application/vnd.deedbook.log");
    get(text);
    expect_stale();
    (void)snprintf(text, sizeof text, "/queries/q?after=%s", of_append);
    get(text);
    expect_stale();
    (void)snprintf(text, sizeof text, "/queries/q?position=%s", of_query);
    get(text);
    expect_stale();
    (void)snprintf(text, sizeof text, "/streams/a/state?position=%s", of_append);
    get(text);
    expect_stale();
    (void)snprintf(text, sizeof text, "%.*s", (int)strcspn(link + 1, ">"), link + 1);
    get(text);
    expect_stale();
    (void)snprintf(text, sizeof text,
                   "{\"events\":[{\"stream\":\"a\",\"type\":\"T\",\"data\":1}],"
                   "\"conditions\":[{\"no_match\":[{\"types\":[\"T\"]}],\"after\":\"%s\"}]}",
                   of_append);
    ask("POST", "/append", text);
    expect_stale();
    close_api();
}

TEST(api, a_bare_position_of_before_a_restore_is_refused_with_the_log_it_is_of)
{
    char log[128], of_now[128];
    open_restored_api(2, 3);
    get("/streams/a");
    keep_header("Deedbook-Log", log);
    with("Deedbook-Log", log);
    get("/events?after=1");
    expect_answer(200, "\"n\":0");

    restore_api();

    with("Deedbook-Log", log);
    get("/events?after=1");
    expect_stale();
    with("Deedbook-Log", log);
    with("Accept", "application/vnd.deedbook.log");
    get("/events?after=1");
    expect_stale();
    with("Deedbook-Log", log);
    with("If-Match", "\"1\"");
    ask("POST", "/streams/a", "{\"type\":\"T\",\"data\":{}}");
    expect_stale();
    with("Deedbook-Log", log);
    ask("POST", "/commands/Create", "{}");
    expect_stale();
    get("/events?after=1");
    expect_answer(200, "\"n\":0");
    keep_header("Deedbook-Log", of_now);
    with("Deedbook-Log", of_now);
    get("/events?after=1");
    expect_answer(200, "\"n\":0");
    close_api();
}

TEST(api, a_condition_on_what_nobody_has_seen_is_refused)
{
    open_api();
    append_many("a", 2);
    ask("POST", "/append", "{\"events\":[{\"stream\":\"a\",\"type\":\"T\",\"data\":1}],"
                    "\"conditions\":[{\"no_match\":[{\"types\":[\"T\"]}],\"after\":99}]}");
    expect_answer(409, "condition 0: after position 99, but the log ends at 3");
    expect_stale();
    ask("POST", "/append", "{\"events\":[{\"stream\":\"a\",\"type\":\"T\",\"data\":1}],"
                    "\"conditions\":[{\"no_match\":[{\"types\":[\"T\"]}],\"after\":3}]}");
    expect_answer(200, "\"position\":4");
    close_api();
}

TEST(api, a_condition_takes_a_token)
{
    char token[128], text[512];
    open_api();
    append_many("a", 2);
    ask("POST", "/streams/a", "{\"type\":\"T\",\"data\":{}}");
    keep_header("Deedbook-Token", token);
    for (int status = 200; status <= 409; status += 209) {
        (void)snprintf(text, sizeof text,
                       "{\"events\":[{\"stream\":\"a\",\"type\":\"T\",\"data\":1}],"
                       "\"conditions\":[{\"no_match\":[{\"types\":[\"T\"]}],\"after\":\"%s\"}]}",
                       token);
        ask("POST", "/append", text);
        expect_answer(status, "\"position\":5");
    }
    close_api();
}

TEST(api, an_event_id_past_the_streams_end_is_refused)
{
    char id[128];
    open_api();
    append_many("a", 3);
    with("Accept", "text/event-stream");
    get("/streams/a?follow=false");
    (void)snprintf(id, sizeof id, "%s", last_id());
    id[strlen(id) - 1] = '7';
    with("Accept", "text/event-stream");
    with("Last-Event-ID", id);
    get("/streams/a");
    expect_answer(409, "revision 7 is past the stream's end, which has 3 events");
    expect_stale();
    close_api();
}

TEST(api, how_the_server_is_may_always_be_asked)
{
    assert_true(api_is_care(DEED_STR("GET"), DEED_STR("/metrics")));
    assert_true(api_is_care(DEED_STR("HEAD"), DEED_STR("/readyz")));
    assert_true(api_is_care(DEED_STR("GET"), DEED_STR("/healthz")));
    assert_false(api_is_care(DEED_STR("POST"), DEED_STR("/metrics")));
    assert_false(api_is_care(DEED_STR("GET"), DEED_STR("/events")));
    assert_false(api_is_care(DEED_STR("GET"), DEED_STR("/metrics/")));
}

/* ---- backups -------------------------------------------------------------------------------- */

static void open_backups_api(const char *root)
{
    struct deed_error err;
    open_api();
    api_destroy(api);
    expect_ok(backups_open(store, root, &api_parts.backups, &err));
    expect_ok(api_create(&api_parts, &api, &err));
}

static void close_backups_api(void)
{
    backups_close(api_parts.backups);
    close_api();
}

static void await_backup(void)
{
    do get("/backup");
    while (strstr(body_text(), "\"state\":\"running\"") != NULL);
}

TEST(api, a_backup_is_made_below_the_root)
{
    char root[64];
    struct deed_backup_report report;
    struct deed_error err;
    open_backups_api("/tmp/never-made");
    backups_close(api_parts.backups);
    (void)snprintf(root, sizeof root, "%s/backups", api_directory);
    api_destroy(api);
    expect_ok(backups_open(store, root, &api_parts.backups, &err));
    expect_ok(api_create(&api_parts, &api, &err));
    append_many("a", 3);
    get("/backup");
    expect_answer(200, "{\"state\":\"none\",\"name\":null,\"last\":null}");

    ask("POST", "/backup?name=nightly", "");
    expect_answer(202, "\"name\":\"nightly\"");
    await_backup();

    expect_answer(200, "\"state\":\"done\",\"name\":\"nightly\"");
    expect_answer(200, "\"position\":4,");
    get("/");
    expect_answer(200, "\"backup\":{\"position\":4,\"made_at\":\"20");
    get("/metrics");
    expect_answer(200, "\ndeedbook_backups_total 1\n");
    expect_answer(200, "\ndeedbook_backup_position 4\n");
    (void)snprintf(root, sizeof root, "%s/backups/nightly", api_directory);
    expect_ok(store_check_backup(os_real(), root, NULL, NULL, NULL, &report, &err));
    assert_int_equal(report.events, 4);
    close_backups_api();
}

TEST(api, a_backup_that_fails_says_why)
{
    open_backups_api("/proc/no/such/place");
    ask("POST", "/backup", "");
    expect_answer(202, "\"name\":\"backup\"");
    await_backup();
    expect_answer(200, "\"state\":\"failed\",\"name\":\"backup\",\"error\":{\"status\":\"DEED_");
    expect_answer(200, "backup to /proc/no/such/place/backup: ");
    get("/metrics");
    expect_answer(200, "\ndeedbook_backups_failed_total 1\n");
    close_backups_api();
}

TEST(api, a_backup_has_a_name_and_no_path)
{
    static const char *const wrong[] = {"..", ".hidden", "a/b", "%2Ftmp%2Fx", "", "a%20b", "a%5Cb"};
    char target[256];
    open_backups_api("/tmp/never-made");
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        (void)snprintf(target, sizeof target, "/backup?name=%s", wrong[i]);
        ask("POST", target, "");
        expect_answer(400, "a backup's name has letters");
    }
    get("/backup");
    expect_answer(200, "\"state\":\"none\"");
    close_backups_api();
}

TEST(api, a_server_without_a_directory_makes_no_backups)
{
    open_api();
    ask("POST", "/backup", "");
    expect_answer(404, "it was given no backup-dir");
    get("/backup");
    expect_answer(404, "it was given no backup-dir");
    close_api();
}

TEST(api, deleted_streams_are_gone_softly_or_for_good)
{
    open_api();
    append_many("a", 2);
    append_many("b", 1);
    ask("DELETE", "/streams/a?expected=7", NULL);
    expect_answer(409, "conflict");
    with("If-Match", "\"7\"");
    ask("DELETE", "/streams/a", NULL);
    expect_answer(412, "stale");
    with("If-Match", "\"1\"");
    ask("DELETE", "/streams/a", NULL);
    expect_answer(200, "\"deleted\":\"soft\"");
    get("/streams/a");
    expect_answer(404, "not_found");
    ask("POST", "/streams/a?expected=none", EVENT);
    expect_answer(200, "\"revision\":2");
    ask("DELETE", "/streams/b?tombstone=true", NULL);
    expect_answer(200, "\"deleted\":\"tombstone\"");
    get("/streams/b");
    expect_answer(410, "deleted");
    ask("POST", "/streams/b", EVENT);
    expect_answer(410, "deleted");
    ask("DELETE", "/streams/nothing", NULL);
    expect_answer(404, "not_found");
    close_api();
}

/* ---- reading the log ------------------------------------------------------------------------ */

TEST(api, the_log_is_filtered)
{
    open_api();
    ask("POST", "/append",
        "{\"events\":[{\"stream\":\"order-1\",\"type\":\"A\",\"data\":1,\"tags\":[\"x\",\"y\"]},"
        "{\"stream\":\"order-2\",\"type\":\"B\",\"data\":2,\"tags\":[\"x\"],\"correlation_id\":"
        "\"c\"},"
        "{\"stream\":\"cart-1\",\"type\":\"A\",\"data\":3}]}");
    static const struct {
        const char *query;
        size_t count;
    } cases[] = {
        {"", 3},
        {"?type=A", 2},
        {"?type=A&type=B", 3},
        {"?tag=x", 2},
        {"?tag=x&tag=y", 1},
        {"?category=order", 2},
        {"?category=order&type=A", 1},
        {"?stream=cart-1", 1},
        {"?stream=cart-1&stream=order-1", 2},
        {"?correlation=c", 1},
        {"?after=2", 2},
        {"?until=2", 1},
        {"?limit=1", 1},
        {"?system=true", 4},
        {"?system=false", 3},
        {"?direction=backwards&limit=2", 2},
        {"?direction=backwards&after=3", 1},
        {"?to_time=2020-01-01T00:00:00Z", 0},
        {"?from_time=2020-01-01T00:00:00+02:00", 3},
        {"?to_time=1970-01-01T00:00:00Z", 0},
        {"?type=nothing", 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char target[128];
        snprintf(target, sizeof target, "/events%s", cases[i].query);
        get(target);
        assert_int_equal(answer.status, 200);
        if (count_of("specversion") != cases[i].count) {
            fail_msg("%s: %s", target, body_text());
        }
    }
    close_api();
}

TEST(api, the_log_is_paged_by_token)
{
    open_api();
    append_many("a", 25);
    size_t events = 0, pages = 0;
    char target[512] = "/events?type=T&limit=10";
    for (;;) {
        get(target);
        assert_int_equal(answer.status, 200);
        events += count_of("specversion");
        pages++;
        const char *link = header_of("Link");
        if (link == NULL) break;
        assert_non_null(strstr(link, "type=T"));
        snprintf(target, sizeof target, "%.*s", (int)strcspn(link + 1, ">"), link + 1);
    }
    assert_int_equal(events, 25);
    assert_int_equal(pages, 3);
    get("/events?after=ffffffff.1.p2");
    expect_answer(409, "stale_token");
    /* One of this log, but of an event that a copy put back does not have. */
    char ahead[128];
    snprintf(ahead, sizeof ahead, "/events?after=%.11sp99", strstr(target, "after=") + 6);
    get(ahead);
    expect_answer(409, "past the log's end");
    get("/events?after=zz.1.p2");
    expect_answer(400, "not a token");
    close_api();
}

TEST(api, whole_commits_go_out_raw)
{
    open_api();
    append_many("a", 3);
    with("Accept", "application/vnd.deedbook.log");
    get("/events");
    assert_int_equal(answer.status, 200);
    struct buf direct;
    uint64_t last = 0;
    buf_init(&direct, 1 << 20);
    while (store_read_commits(store, last, 1 << 16, &direct, &last, NULL) == DEED_OK)
        continue;
    assert_int_equal(direct.len, answer.body.len);
    assert_memory_equal(direct.ptr, answer.body.ptr, direct.len);
    buf_done(&direct);
    with("Accept", "application/vnd.deedbook.log");
    get("/events?after=4");
    assert_int_equal(answer.status, 200);
    assert_int_equal(answer.body.len, 0);
    with("Accept", "application/vnd.deedbook.log");
    get("/events?type=T");
    expect_answer(400, "whole commits, unfiltered");
    with("Accept", "application/vnd.deedbook.log");
    begin_ask("GET", "/events?follow=true", (deed_bytes){0});
    await_answer();
    assert_int_equal(answer.last_pull, API_WAIT);
    let_go();
    with("Accept", "application/vnd.deedbook.log");
    get("/streams/a");
    expect_answer(406, "not_acceptable");
    close_api();
}

TEST(api, exact_lines_keep_every_byte)
{
    open_api();
    ask("POST", "/streams/a", "{\"type\":\"T\",\"data\":{\n\"a\":1}}");
    with("Accept", "application/x-ndjson");
    get("/events");
    expect_answer(200, "\"data\":{ \"a\":1}");
    with("Accept", "application/x-ndjson");
    get("/events?exact=true");
    expect_answer(200, "\"data_base64\":\"ewoiYSI6MX0=\"");
    get("/events");
    expect_answer(200, "\"data\":{\n\"a\":1}");
    close_api();
}

/* Flip bytes in the middle of the log, where the events of `marker` are. */
static void damage_log(const char *marker)
{
    char command[512];
    snprintf(command, sizeof command,
             "f=$(grep -rl '%s' '%s' | head -1) && "
             "o=$(grep -abo '%s' \"$f\" | head -1 | cut -d: -f1) && "
             "printf XXXX | dd of=\"$f\" bs=1 seek=$o conv=notrunc status=none",
             marker, api_directory, marker);
    assert_int_equal(system(command), 0);
}

TEST(api, damage_is_told_with_its_position)
{
    open_api();
    ask("POST", "/streams/a", "{\"type\":\"T\",\"data\":\"first-marker\"}");
    ask("POST", "/streams/a", "{\"type\":\"T\",\"data\":\"second-marker\"}");
    ask("POST", "/streams/b", "{\"type\":\"T\",\"data\":\"third-marker\"}");
    damage_log("second-marker");
    get("/streams/a");
    expect_answer(500, "\"code\":\"corrupt\"");
    expect_answer(500, "\"position\":3");
    assert_null(header_of("ETag"));
    get("/streams/b");
    expect_answer(200, "third-marker");
    with("Accept", "application/x-ndjson");
    get("/events");
    assert_int_equal(answer.status, 200);
    assert_int_equal(answer.last_pull, API_FAILED);
    assert_int_equal(count_of("first-marker"), 1);
    assert_int_equal(count_of("third-marker"), 0);
    with("Accept", "application/x-ndjson");
    get("/events?after=2");
    expect_answer(500, "\"position\":3");
    with("Accept", "text/event-stream");
    get("/events?follow=false");
    assert_int_equal(answer.last_pull, API_FAILED);
    expect_answer(200, "event: error\ndata: {");
    get("/events?after=3");
    expect_answer(200, "third-marker");
    close_api();
}

/* ---- state, commands, queries, projections -----------------------------------------------------
 */

TEST(api, state_is_answered_now_or_then)
{
    open_api();
    append_many("order-1", 3);
    append_many("order-2", 1);
    get("/streams/order-1/state");
    expect_answer(200,
                  "{\"stream\":\"order-1\",\"revision\":99,\"position\":100,\"state\":{\"n\":1}}");
    expect_header("ETag", "\"99\"");
    get("/streams/order-1/state?revision=1");
    expect_answer(200, "\"revision\":1,");
    get("/streams/order-1/state?position=3");
    expect_answer(200, "\"revision\":1,");
    get("/streams/order-1/state?position=5");
    expect_answer(200, "\"revision\":2,");
    get("/streams/order-2/state?position=4");
    expect_answer(404, "no event at or before position 4");
    get("/streams/order-1/state?position=9");
    expect_answer(404, "past the end of the log, 5");
    get("/streams/order-1/state?at=2099-01-01T00:00:00Z");
    expect_answer(200, "\"revision\":2,");
    get("/streams/order-1/state?at=2001-01-01");
    expect_answer(404, "nothing was stored then");
    get("/streams/nothing/state?position=3");
    expect_answer(404, "not_found");
    get("/streams/order-1/state?position=3&revision=1");
    expect_answer(400, "exclude each other");
    get("/streams/alien-1/state");
    expect_answer(404, "no aggregate");
    get("/streams/order-1/explain?revision=1&limit=5");
    expect_answer(200, "[{\"revision\":1,\"max\":5}]");
    api_parts.executor = NULL;
    reopen_api();
    get("/streams/order-1/state");
    expect_answer(404, "this server has none");
    get("/streams/order-1/explain");
    expect_answer(404, "this server has none");
    close_api();
}

TEST(api, commands_are_run_with_their_headers)
{
    open_api();
    with("Idempotency-Key", "k");
    with("If-Match", "\"2\"");
    with("Deedbook-Actor", "anna");
    with("Deedbook-Correlation-Id", "c");
    ask("POST", "/commands/Create", "{\"id\":1}");
    expect_answer(200, "{\"stream\":\"order-1\",\"first_revision\":3,\"revision\":3,\"position\":7,"
                       "\"events\":[{\"specversion\":\"1.0\"");
    expect_answer(200, "\"data\":{\"id\":1}}]}");
    expect_header("ETag", "\"3\"");
    expect_header("Deedbook-Position", "7");
    assert_string_equal(the_executor.key, "k");
    assert_string_equal(the_executor.actor, "anna");
    assert_string_equal(the_executor.correlation, "c");
    assert_true(the_executor.seen.has_if_match && the_executor.seen.if_match == 2);
    ask("POST", "/commands/Nothing", "{}");
    expect_answer(200, "\"first_revision\":null,\"revision\":null,\"position\":7,\"events\":[]");
    assert_false(the_executor.seen.has_if_match);
    with("If-None-Match", "*");
    ask("POST", "/commands/Create", "{}");
    assert_true(the_executor.seen.has_if_match && the_executor.seen.if_match == DEED_NONE);
    with("If-Match", "*");
    ask("POST", "/commands/Create", "{}");
    expect_answer(400, "If-Match: *");
    get("/commands");
    expect_answer(200, "[{\"name\":\"Create\",\"aggregate\":\"order\",\"fields\":[\"id\"]},"
                       "{\"name\":\"Ship\",\"aggregate\":\"order\",\"fields\":[]}]");
    close_api();
}

TEST(api, rejections_carry_their_code)
{
    open_api();
    ask("POST", "/commands/Reject", "{}");
    expect_answer(422, "\"code\":\"order_shipped\"");
    expect_answer(422, "\"type\":\"urn:deedbook:problem:rejected\"");
    ask("POST", "/commands/Crash", "{}");
    expect_answer(500, "\"code\":\"domain\"");
    ask("POST", "/commands/Busy", "{}");
    expect_answer(503, "\"code\":\"busy\"");
    expect_header("Retry-After", "1");
    api_parts.executor = NULL;
    reopen_api();
    ask("POST", "/commands/Create", "{}");
    expect_answer(404, "this server has no domain");
    get("/commands");
    expect_answer(200, "[]");
    close_api();
}

TEST(api, queries_get_their_own_parameters_only)
{
    open_api();
    append_many("a", 2);
    get("/queries/q?customer=A+%26%20B&after=2&timeout=2s&x=");
    expect_answer(200, "[{\"n\":1}]");
    expect_header("Deedbook-Position", "42");
    assert_string_equal(the_queries.seen, "after=2 timeout=2000 position=0 customer=A & B x=");
    get("/queries/q?position=2&timeout=500ms");
    assert_string_equal(the_queries.seen, "after=0 timeout=500 position=2");
    get("/queries/q?at=2099-01-01T00:00:00Z");
    assert_string_equal(the_queries.seen, "after=0 timeout=10000 position=3");
    get("/queries/q?at=2001-01-01");
    expect_answer(404, "nothing was stored then");
    get("/queries/q?position=0");
    expect_answer(404, "positions begin at 1");
    get("/queries/q?position=2&at=2001-01-01");
    expect_answer(400, "exclude each other");
    get("/queries/q?position=2&after=1");
    expect_answer(400, "excludes position and at");
    get("/queries/q?a=1&a=2");
    expect_answer(400, "given twice");
    get("/queries/q?timeout=1h");
    expect_answer(400, "timeout");
    get("/queries/q?timeout=400000");
    expect_answer(400, "from 0 to 300000 ms");
    get("/queries");
    expect_answer(200, "[{\"name\":\"by_customer\",\"comment\":\"\",\"parameters\":[\"customer\"],"
                       "\"projections\":[]}]");
    api_parts.queries = NULL;
    reopen_api();
    get("/queries/q");
    expect_answer(404, "no queries");
    get("/queries");
    expect_answer(200, "[]");
    close_api();
}

TEST(api, projections_are_listed_and_handled)
{
    open_api();
    get("/projections");
    expect_answer(200,
                  "[{\"name\":\"orders\",\"file\":\"orders \\\"1\\\".sql\",\"file_error\":null,"
                  "\"state\":\"running\","
                  "\"generation\":2,\"position\":40,\"lag\":2,");
    expect_answer(200, "\"error\":null,\"rebuild_error\":null,\"rebuild\":null}]");
    ask("POST", "/projections/orders/rebuild", NULL);
    expect_answer(202,
                  "\"rebuild\":{\"position\":10,\"target\":42,\"rate\":0,\"seconds_left\":null}");
    ask("POST", "/projections/orders/rebuild", NULL);
    expect_answer(409, "rebuilt already");
    ask("POST", "/projections/orders/pause", NULL);
    expect_answer(202, "\"state\":\"paused\"");
    ask("POST", "/projections/orders/resume", NULL);
    expect_answer(202, "\"state\":\"running\"");
    the_projections.state = PROJECTION_FAILED;
    get("/projections/orders");
    expect_answer(
        200, "\"error\":{\"message\":\"no such table\",\"statement\":\"INSERT\",\"position\":41}");
    the_projections.no_position = true;
    get("/projections/orders");
    expect_answer(200, "\"statement\":\"INSERT\",\"position\":null}");
    get("/projections/nothing");
    expect_answer(404, "there is no projection nothing");
    api_parts.projections = NULL;
    reopen_api();
    get("/projections");
    expect_answer(200, "[]");
    ask("POST", "/projections/orders/pause", NULL);
    expect_answer(404, "there is no projection orders");
    close_api();
}

/* ---- health, metrics, index --------------------------------------------------------------------
 */

TEST(api, readiness_says_why_not)
{
    open_api();
    get("/healthz");
    expect_answer(200, "{\"status\":\"ok\"}");
    get("/readyz");
    expect_answer(200, "{\"ready\":true,\"reasons\":[]}");
    api_ready = false;
    get("/readyz");
    expect_answer(503, "shutting down");
    api_ready = true;
    store_options.read_only = true;
    reopen_api();
    get("/readyz");
    expect_answer(503, "{\"ready\":false,\"reasons\":[\"opened read-only\"]}");
    get("/");
    expect_answer(200, "\"writable\":false,\"stopped_because\":\"opened read-only\"");
    ask("POST", "/streams/a", EVENT);
    expect_answer(503, "opened read-only");
    expect_header("Retry-After", "1");
    close_api();
}

/* Every line is a comment, or a name with labels and a number; every value's name has HELP, TYPE.
 */
static void expect_prometheus(const char *text)
{
    char typed[128] = "";
    for (const char *line = text; *line != '\0'; line = strchr(line, '\n') + 1) {
        assert_non_null(strchr(line, '\n'));
        if (strncmp(line, "# TYPE ", 7) == 0) {
            snprintf(typed, sizeof typed, "%.*s", (int)strcspn(line + 7, " "), line + 7);
            continue;
        }
        if (line[0] == '#' || strncmp(line, "server_metric", 13) == 0) continue;
        if (strncmp(line, typed, strlen(typed)) != 0) fail_msg("%.60s after TYPE %s", line, typed);
        const char *value = line + strcspn(line, "{ ");
        if (*value == '{') value = strstr(value, "} ") + 1;
        char *end;
        (void)strtod(value + 1, &end);
        if (*end != '\n') fail_msg("no number: %.80s", line);
    }
}

TEST(api, metrics_are_prometheus_text)
{
    open_api();
    append_many("a", 3);
    get("/streams/a");
    get("/metrics");
    expect_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8");
    expect_prometheus(body_text());
    expect_answer(200, "deedbook_appends_total 1\n");
    expect_answer(200, "deedbook_append_events_total 3\n");
    expect_answer(200, "deedbook_append_seconds_count 1\n");
    expect_answer(200, "deedbook_append_seconds_bucket{le=\"+Inf\"} 1\n");
    expect_answer(200, "deedbook_position 4\n");
    expect_answer(200, "deedbook_writable 1\n");
    expect_answer(200, "deedbook_commands_rejected_total 2\n");
    expect_answer(200, "deedbook_projection_lag{projection=\"orders\"} 2\n");
    expect_answer(200, "deedbook_queries_total 3\n");
    expect_answer(200, "deedbook_build_info{version=\"" DEED_VERSION "\"} 1\n");
    expect_answer(200, "process_resident_memory_bytes ");
    expect_answer(200, "server_metric 1\n");
    assert_null(strstr(body_text(), "process_resident_memory_bytes 0\n"));
    assert_null(strstr(body_text(), "process_open_fds 0\n"));
    close_api();
}

TEST(api, the_index_is_for_programs_and_people)
{
    open_api();
    append_many("a", 3);
    get("/");
    expect_answer(200, "{\"name\":\"deedbook\",\"version\":\"" DEED_VERSION "\"");
    expect_answer(200, "\"epoch\":1,\"position\":4,");
    expect_answer(200, "\"POST /streams/{stream}\"");
    expect_header("Content-Type", "application/json");
    with("Accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8");
    get("/");
    expect_answer(200, "<a href=\"/events\">");
    expect_header("Content-Type", "text/html; charset=utf-8");
    close_api();
}

/* ---- the protocol ------------------------------------------------------------------------------
 */

TEST(api, paths_and_methods_that_are_not_there_are_told)
{
    open_api();
    get("/nothing");
    expect_answer(404, "there is no /nothing here");
    assert_string_equal(answer.route, "other");
    get("/streams/");
    expect_answer(404, "not_found");
    get("/streams/a/b");
    expect_answer(404, "not_found");
    get("");
    expect_answer(404, "not_found");
    ask("PUT", "/streams/a", EVENT);
    expect_answer(405, "\"code\":\"method_not_allowed\"");
    expect_header("Allow", "DELETE, GET, HEAD, OPTIONS, POST");
    ask("DELETE", "/events", NULL);
    expect_answer(405, "allowed: GET, HEAD, OPTIONS");
    ask("HEAD", "/append", NULL);
    expect_answer(405, "OPTIONS, POST");
    ask("OPTIONS", "/append", NULL);
    assert_int_equal(answer.status, 204);
    expect_header("Allow", "OPTIONS, POST");
    ask("OPTIONS", "*", NULL);
    assert_int_equal(answer.status, 204);
    expect_header("Allow", "DELETE, GET, HEAD, OPTIONS, POST");
    ask("OPTIONS", "/nothing", NULL);
    expect_answer(404, "not_found");
    close_api();
}

TEST(api, head_is_get_without_the_reading)
{
    open_api();
    append_many("a", 3);
    ask("HEAD", "/streams/a", NULL);
    assert_int_equal(answer.status, 200);
    expect_header("ETag", "\"2\"");
    expect_header("Deedbook-Revision", "2");
    expect_header("Deedbook-Position", "4");
    assert_int_equal(answer.body.len, 0);
    with("Accept", "application/x-ndjson");
    ask("HEAD", "/streams/a?follow=true", NULL);
    assert_int_equal(answer.status, 200);
    assert_false(answer.had_source);
    ask("HEAD", "/streams/b", NULL);
    assert_int_equal(answer.status, 404);
    ask("HEAD", "/healthz", NULL);
    assert_int_equal(answer.status, 200);
    close_api();
}

TEST(api, parameters_are_checked_strictly)
{
    static const struct {
        const char *target, *why;
    } cases[] = {
        {"/streams/a?frm=0", "parameter \\\"frm\\\" is unknown here; known: from, removed, direction"},
        {"/healthz?x=1", "known: none"},
        {"/streams/a?from=-1", "parameter from: \\\"-1\\\" is not a whole number from 0 on"},
        {"/streams/a?from=x", "parameter from"},
        {"/streams/a?from=end", "parameter from"},
        {"/streams/a?from=1&from=2", "parameter \\\"from\\\" is given twice"},
        {"/streams/a?limit=0", "from 1 to 1000"},
        {"/streams/a?limit=1001", "from 1 to 1000"},
        {"/streams/a?limit=99999999999999999999", "limit"},
        {"/streams/a?direction=up", "one of forwards|backwards"},
        {"/streams/a?follow=1", "parameter follow: \\\"1\\\" is not true or false"},
        {"/streams/a?follow&direction=backwards", "exclude each other"},
        {"/streams/a?from=%zz", "% without two hexadecimal digits"},
        {"/streams/a?from=%4", "% without two hexadecimal digits"},
        {"/streams/a?from=%00", "holds a NUL"},
        {"/streams/a?from=%ff", "is not UTF-8"},
        {"/streams/%ff", "path: \\\"%ff\\\" is not UTF-8"},
        {"/streams/%c3%28", "is not UTF-8"},
        {"/streams/a%00", "holds a NUL"},
        {"/streams/%", "% without"},
        {"/events?type=", "parameter type"},
        {"/events?from_time=noon", "not a time as RFC 3339"},
        {"/events?after=x", "a position or a token"},
        {"/events?after=18446744073709551615", "a position or a token"},
        {"/events?until=0", "until"},
    };
    open_api();
    append_many("a", 1);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        get(cases[i].target);
        expect_answer(400, cases[i].why);
    }
    get("/streams/a?&&from=0&");
    expect_answer(200, "specversion");
    ask("POST", "/streams/a?expected=maybe", EVENT);
    expect_answer(400, "any, none, exists or a revision");
    with("Deedbook-Actor", "\xff");
    ask("POST", "/streams/a", EVENT);
    expect_answer(400, "Deedbook-Actor is not UTF-8");
    close_api();
}

TEST(api, long_headers_are_refused)
{
    char long_text[1100];
    memset(long_text, 'a', sizeof long_text - 1);
    long_text[sizeof long_text - 1] = '\0';
    open_api();
    with("Idempotency-Key", long_text);
    ask("POST", "/streams/a", EVENT);
    expect_answer(400, "Idempotency-Key: 1099 bytes, limit 1026");
    long_text[1025] = '\0';
    with("Idempotency-Key", long_text);
    ask("POST", "/streams/a", EVENT);
    expect_answer(400, "Idempotency-Key: 1025 bytes, limit 1024");
    with("Deedbook-Actor", long_text);
    ask("POST", "/streams/a", EVENT);
    expect_answer(400, "Deedbook-Actor: 1025 bytes, limit 1024");
    close_api();
}

TEST(api, accept_is_weighed)
{
    static const struct {
        const char *accept, *type;
    } cases[] = {
        {"*/*", "application/json"},
        {"", "application/json"},
        {"application/*", "application/json"},
        {"text/*", "text/event-stream"},
        {"application/json;q=0.1, application/x-ndjson", "application/x-ndjson"},
        {"application/x-ndjson;q=0.5, */*;q=0.6", "application/json"},
        {"APPLICATION/X-NDJSON", "application/x-ndjson"},
        {"application/json;q=0, */*;q=0.1", "application/cloudevents-batch+json"},
    };
    open_api();
    append_many("a", 1);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        with("Accept", cases[i].accept);
        get("/streams/a?follow=false");
        expect_header("Content-Type", cases[i].type);
    }
    with("Accept", "image/png");
    get("/streams/a");
    expect_answer(406, "image/png is none of application/json");
    with("Accept", "application/json");
    get("/streams/a?follow=true");
    expect_answer(406, "none of application/x-ndjson, text/event-stream");
    with("Accept", "text/html;q=0.9");
    with("Accept", "application/json;q=0.2");
    get("/streams/a");
    expect_header("Content-Type", "application/json");
    close_api();
}

TEST(api, the_server_has_problems_of_its_own)
{
    open_api();
    struct deed_error err;
    arena_init(&x_arena, 1 << 16);
    x = (struct api_exchange){.arena = &x_arena, .finish = on_finish};
    (void)deed_fail(&err, DEED_TOO_LARGE, "headers: 20000 bytes, limit 16384");
    api_problem(&x, 431, &err);
    assert_int_equal(x.response.status, 431);
    buf_add_byte(&x.response.body, '\0');
    assert_string_equal((char *)x.response.body.ptr,
                        "{\"type\":\"urn:deedbook:problem:headers_too_large\","
                        "\"title\":\"the headers are over a limit\",\"status\":431,"
                        "\"detail\":\"headers: 20000 bytes, limit 16384\","
                        "\"code\":\"headers_too_large\"}\n");
    let_go();
    close_api();
}

TEST(api, a_full_arena_is_an_answer)
{
    open_api();
    size_t refused = 0;
    for (size_t size = 0; size < 16384; size += 512) {
        begin_ask("GET", "/healthz", (deed_bytes){0});
        let_go();
        arena_init(&x_arena, size);
        x.request = (struct api_request){
            .method = DEED_STR("POST"),
            .path = DEED_STR("/streams/a"),
            .query = DEED_STR("expected=any"),
            .body = deed_bytes_of(DEED_STR("[" EVENT "," EVENT "]")),
        };
        finish_line.done = false;
        (void)api_route(api, &x);
        api_run(api, &x);
        await_answer();
        if (answer.status != 200) {
            assert_true(answer.status == 503 || answer.status == 413);
            refused++;
        }
        let_go();
    }
    assert_true(refused > 0 && refused < 32);
    close_api();
}

/* ---- on a machine that fails, and whose clock we hold -------------------------------------------- */

TEST(api, an_append_whose_sync_failed_has_an_unknown_outcome)
{
    open_api_sim();
    ask("POST", "/streams/a", EVENT);
    expect_answer(200, "\"position\":2");
    os_sim_fail(sim, OS_SIM_SYNC, 1, 0, EIO);
    ask("POST", "/streams/a", EVENT);
    expect_answer(500, "\"code\":\"unknown\"");
    ask("POST", "/streams/a", EVENT);
    expect_answer(503, "\"code\":\"stopped\"");
    get("/readyz");
    expect_answer(503, "\"ready\":false");
    get("/streams/a");
    expect_answer(200, "\"position\":\"2\"");
    close_api();
}

TEST(api, a_full_disk_is_507)
{
    open_api_sim();
    ask("POST", "/streams/a", EVENT);
    os_sim_set_capacity(sim, 1);
    for (int i = 0; i < 100 && answer.status == 200; i++) ask("POST", "/streams/a", EVENT);
    expect_answer(507, "\"code\":\"full\"");
    get("/streams/a");
    expect_answer(200, "\"position\":\"2\"");
    os_sim_heal(sim);
    close_api();
}

static unsigned others_done;
static void other_done(void *context, const struct deed_appended *appended,
                       const struct deed_error *err)
{
    (void)context;
    assert_non_null(appended);
    assert_null(err);
    others_done++;
}

TEST(api, a_full_queue_is_busy)
{
    open_api_sim();
    store_options.limits.queue_count_max = 1;
    reopen_api();
    const struct deed_new_event event = {.stream = DEED_STR("a"),
                                         .type = DEED_STR("T"),
                                         .data = deed_bytes_of(DEED_STR("1"))};
    const struct deed_append append = {.events = &event, .event_count = 1};
    others_done = 0;
    expect_ok(store_submit(store, &append, other_done, NULL, NULL));
    ask("POST", "/streams/a", EVENT);
    expect_answer(503, "\"code\":\"busy\"");
    expect_header("Retry-After", "1");
    while (others_done == 0) (void)store_step(store);
    ask("POST", "/streams/a", EVENT);
    expect_answer(200, "\"revision\":1");
    close_api();
}

TEST(api, a_silent_feed_is_kept_alive_and_its_place_up_to_date)
{
    open_api_sim();
    append_many("a", 2);
    with("Accept", "text/event-stream");
    begin_ask("GET", "/events?type=Other", (deed_bytes){0});
    await_answer();
    assert_int_equal(answer.last_pull, API_WAIT);
    assert_int_equal(count_of("keepalive"), 0);
    uint32_t wait_ms = x.response.source->wait_ms;
    assert_true(wait_ms > 10000 && wait_ms <= 15000);
    os_sim_advance(sim, (uint64_t)wait_ms * 1000000);
    drain();
    assert_int_equal(answer.last_pull, API_WAIT);
    assert_int_equal(count_of(": keepalive\n\n"), 1);
    assert_non_null(strstr(last_id(), ".p3"));
    drain();
    assert_int_equal(count_of("keepalive"), 1);
    let_go();
    close_api();
}

/* Each operation of this machine takes up to a second, and each event has to be read by itself. */
TEST(api, a_page_that_takes_long_ends_early_and_leads_on)
{
    struct os_sim_faults slow = {.ppm = {[OS_SIM_SLOW] = 1000000}};
    char target[512], next[64];
    sim = os_sim_create(1, &slow);
    open_fresh((struct store_options){.segment_size = 1 << 20, .no_threads = true});
    for (int i = 0; i < 30; i++) {
        append_large("a", 10);
        append_large("b", 400 << 10);
    }
    get("/events?stream=a");
    size_t first = count_of("specversion");
    if (first == 0 || first >= 30) fail_msg("%zu events in a page", first);
    const char *link = header_of("Link");
    assert_non_null(link);
    snprintf(target, sizeof target, "%.*s", (int)strcspn(link + 1, ">"), link + 1);
    get(target);
    assert_int_equal(answer.status, 200);
    snprintf(next, sizeof next, "\"revision\":\"%zu\"", first);
    assert_true(strstr(body_text(), next) == strstr(body_text(), "\"revision\""));
    assert_true(count_of("specversion") > 0);
    close_api();
}

/* ---- openapi.json is the table, the table is openapi.json
 * ----------------------------------------- */

static void lower_method(const char *method, char out[16])
{
    size_t i = 0;
    for (; method[i] != '\0'; i++)
        out[i] = (char)(method[i] | 0x20);
    out[i] = '\0';
}

static json_value parameter_named(json_value operation, const char *name)
{
    json_value parameters = json_get(operation, DEED_STR("parameters"));
    for (struct json_iterator i = json_iterate(parameters); json_next(&i);) {
        if (deed_str_equal(json_text(json_get(i.value, DEED_STR("name"))), deed_str_of(name))) {
            return i.value;
        }
    }
    return (json_value){0};
}

static void expect_refs(json_value root, json_value value)
{
    for (struct json_iterator i = json_iterate(value); json_next(&i);) {
        if (deed_str_equal(i.key, DEED_STR("$ref"))) {
            deed_str ref = json_text(i.value), prefix = DEED_STR("#/components/schemas/");
            assert_memory_equal(ref.ptr, prefix.ptr, prefix.len);
            json_value schemas =
                json_get(json_get(root, DEED_STR("components")), DEED_STR("schemas"));
            deed_str name = {ref.ptr + prefix.len, ref.len - prefix.len};
            assert_int_equal(json_kind_of(json_get(schemas, name)), JSON_OBJECT);
        }
        expect_refs(root, i.value);
    }
}

TEST(api, openapi_describes_every_route)
{
    open_api();
    get("/openapi.json");
    json_value root;
    struct arena arena;
    arena_init(&arena, 4 << 20);
    expect_ok(json_parse(&arena, buf_bytes(&answer.body), 0, &root, NULL));
    json_value paths = json_get(root, DEED_STR("paths"));
    size_t operations = 0;
    for (struct json_iterator i = json_iterate(paths); json_next(&i);) {
        operations += json_count(i.value);
    }
    assert_int_equal(operations, api_route_count);
    for (size_t i = 0; i < api_route_count; i++) {
        const struct api_route *route = &api_routes[i];
        char method[16], status[16];
        lower_method(route->method, method);
        json_value operation =
            json_get(json_get(paths, deed_str_of(route->pattern)), deed_str_of(method));
        assert_int_equal(json_kind_of(operation), JSON_OBJECT);
        size_t parameters = 1; /* the header Deedbook-Log is every route's */
        assert_int_equal(json_kind_of(parameter_named(operation, "Deedbook-Log")), JSON_OBJECT);
        for (const struct route_parameter *p = route->parameters; p->name != NULL; p++) {
            assert_int_equal(json_kind_of(parameter_named(operation, p->name)), JSON_OBJECT);
            parameters++;
        }
        assert_int_equal(json_count(json_get(operation, DEED_STR("parameters"))),
                         parameters + route->free_parameters);
        json_value replies = json_get(operation, DEED_STR("responses"));
        for (size_t k = 0; route->replies[k].status != 0; k++) {
            snprintf(status, sizeof status, "%d", route->replies[k].status);
            assert_int_equal(json_kind_of(json_get(replies, deed_str_of(status))), JSON_OBJECT);
        }
        assert_int_equal(json_kind_of(json_get(operation, DEED_STR("requestBody"))),
                         route->body_schema == NULL ? JSON_NONE : JSON_OBJECT);
    }
    expect_refs(root, root);
    arena_done(&arena);
    close_api();
}

/* What openapi.json says can be asked is asked; what it does not say is 405. */
TEST(api, openapi_is_true_to_the_router)
{
    static const char *const methods[] = {"GET", "POST", "PUT", "DELETE", "PATCH"};
    open_api();
    for (size_t i = 0; i < api_route_count; i++) {
        char target[128], *brace;
        snprintf(target, sizeof target, "%s", api_routes[i].pattern);
        while ((brace = strchr(target, '{')) != NULL) { /* {stream} becomes x */
            char *end = strchr(brace, '}');
            *brace = 'x';
            memmove(brace + 1, end + 1, strlen(end + 1) + 1);
        }
        for (size_t m = 0; m < sizeof methods / sizeof methods[0]; m++) {
            bool documented = false;
            for (size_t k = 0; k < api_route_count; k++) {
                if (strcmp(api_routes[k].pattern, api_routes[i].pattern) == 0 &&
                    strcmp(api_routes[k].method, methods[m]) == 0) {
                    documented = true;
                }
            }
            ask(methods[m], target, "{");
            assert_int_equal(answer.status == 405, !documented);
            if (documented) assert_string_equal(answer.route, api_routes[i].pattern);
        }
    }
    close_api();
}

/* ---- every documented status -------------------------------------------------------------------
 */

struct probe {
    const char *method, *target, *header, *value, *body;
    int status;
};

static const char *const large_body_marker = "large";

/* On a store with stream "there" (two events), "closed" (a tombstone) and a small event limit. */
static const struct probe probes[] = {
    {"POST", "/streams/new", NULL, NULL, EVENT, 200},
    {"POST", "/streams/new?expected=x", NULL, NULL, EVENT, 400},
    {"POST", "/streams/new?expected=7", NULL, NULL, EVENT, 409},
    {"POST", "/streams/closed", NULL, NULL, EVENT, 410},
    {"POST", "/streams/there", "If-Match", "\"7\"", EVENT, 412},
    {"POST", "/streams/new", NULL, NULL, "large", 413},
    {"POST", "/streams/new", "Content-Type", "text/plain", EVENT, 415},
    {"GET", "/streams/there", NULL, NULL, NULL, 200},
    {"GET", "/streams/there", "Accept", "application/cloudevents-batch+json", NULL, 200},
    {"GET", "/streams/there", "Accept", "application/x-ndjson", NULL, 200},
    {"GET", "/streams/there?limit=1", "Accept", "text/event-stream", NULL, 200},
    {"GET", "/streams/there?from=x", NULL, NULL, NULL, 400},
    {"GET", "/streams/nothing", NULL, NULL, NULL, 404},
    {"GET", "/streams/there", "Accept", "image/png", NULL, 406},
    {"GET", "/streams/there", "STALE", "text/event-stream", NULL, 409},
    {"GET", "/streams/closed", NULL, NULL, NULL, 410},
    {"DELETE", "/streams/new", NULL, NULL, NULL, 200},
    {"DELETE", "/streams/new?expected=x", NULL, NULL, NULL, 400},
    {"DELETE", "/streams/nothing", NULL, NULL, NULL, 404},
    {"DELETE", "/streams/there?expected=7", NULL, NULL, NULL, 409},
    {"DELETE", "/streams/closed", NULL, NULL, NULL, 410},
    {"DELETE", "/streams/there", "If-Match", "\"7\"", NULL, 412},
    {"GET", "/streams/there/metadata", NULL, NULL, NULL, 200},
    {"GET", "/streams/there/metadata?x=1", NULL, NULL, NULL, 400},
    {"GET", "/streams/nothing/metadata", NULL, NULL, NULL, 404},
    {"GET", "/streams/closed/metadata", NULL, NULL, NULL, 410},
    {"POST", "/streams/there/metadata", NULL, NULL, "{}", 200},
    {"POST", "/streams/there/metadata", NULL, NULL, "[]", 400},
    {"POST", "/streams/there/metadata?expected=7", NULL, NULL, "{}", 409},
    {"POST", "/streams/closed/metadata", NULL, NULL, "{}", 410},
    {"POST", "/streams/there/metadata", "If-Match", "\"7\"", "{}", 412},
    {"POST", "/streams/there/metadata", NULL, NULL, "large", 413},
    {"POST", "/streams/there/metadata", "Content-Type", "text/plain", "{}", 415},
    {"GET", "/streams/there/state", NULL, NULL, NULL, 200},
    {"GET", "/streams/there/state?revision=x", NULL, NULL, NULL, 400},
    {"GET", "/streams/alien-1/state", NULL, NULL, NULL, 404},
    {"GET", "/streams/there/state?position=ffffffff.1.p2", NULL, NULL, NULL, 409},
    {"GET", "/streams/gone-1/state", NULL, NULL, NULL, 410},
    {"GET", "/streams/there/explain", NULL, NULL, NULL, 200},
    {"GET", "/streams/there/explain?limit=x", NULL, NULL, NULL, 400},
    {"GET", "/streams/alien-1/explain", NULL, NULL, NULL, 404},
    {"GET", "/streams/gone-1/explain", NULL, NULL, NULL, 410},
#define APPEND(stream) "{\"events\":[{\"stream\":\"" stream "\",\"type\":\"T\",\"data\":1}]"
    {"POST", "/append", NULL, NULL, APPEND("other") "}", 200},
    {"POST", "/append", NULL, NULL, "{}", 400},
    {"POST", "/append", NULL, NULL,
     APPEND("other") ",\"conditions\":[{\"stream\":\"there\",\"revision\":7}]}", 409},
    {"POST", "/append", NULL, NULL, APPEND("closed") "}", 410},
    {"POST", "/append", "Content-Type", "application/cloudevents-batch+json", "large", 400},
    {"POST", "/append", NULL, NULL, "large-append", 413},
    {"POST", "/append", "Content-Type", "text/plain", APPEND("other") "}", 415},
    {"GET", "/events", NULL, NULL, NULL, 200},
    {"GET", "/events", "Accept", "application/vnd.deedbook.log", NULL, 200},
    {"GET", "/events?type=", NULL, NULL, NULL, 400},
    {"GET", "/events", "Accept", "image/png", NULL, 406},
    {"GET", "/events?after=ffffffff.1.p2", NULL, NULL, NULL, 409},
    {"GET", "/commands", NULL, NULL, NULL, 200},
    {"GET", "/commands?x=1", NULL, NULL, NULL, 400},
    {"POST", "/commands/Create", NULL, NULL, "{}", 200},
    {"POST", "/commands/Invalid", NULL, NULL, "{}", 400},
    {"POST", "/commands/Missing", NULL, NULL, "{}", 404},
    {"POST", "/commands/Conflict", NULL, NULL, "{}", 409},
    {"POST", "/commands/Gone", NULL, NULL, "{}", 410},
    {"POST", "/commands/Stale", NULL, NULL, "{}", 412},
    {"POST", "/commands/Create", "Content-Type", "text/plain", "{}", 415},
    {"POST", "/commands/Reject", NULL, NULL, "{}", 422},
    {"POST", "/commands/Busy", NULL, NULL, "{}", 503},
    {"GET", "/queries", NULL, NULL, NULL, 200},
    {"GET", "/queries?x=1", NULL, NULL, NULL, 400},
    {"GET", "/queries/q", NULL, NULL, NULL, 200},
    {"GET", "/queries/invalid", NULL, NULL, NULL, 400},
    {"GET", "/queries/missing", NULL, NULL, NULL, 404},
    {"GET", "/queries/q?after=ffffffff.1.p2", NULL, NULL, NULL, 409},
    {"GET", "/queries/gone", NULL, NULL, NULL, 410},
    {"GET", "/queries/large", NULL, NULL, NULL, 413},
    {"GET", "/queries/stopped", NULL, NULL, NULL, 503},
    {"GET", "/queries/slow", NULL, NULL, NULL, 504},
    {"GET", "/projections", NULL, NULL, NULL, 200},
    {"GET", "/projections?x=1", NULL, NULL, NULL, 400},
    {"GET", "/projections/orders", NULL, NULL, NULL, 200},
    {"GET", "/projections/orders?x=1", NULL, NULL, NULL, 400},
    {"GET", "/projections/nothing", NULL, NULL, NULL, 404},
    {"POST", "/projections/orders/rebuild", NULL, NULL, NULL, 202},
    {"POST", "/projections/orders/rebuild?x=1", NULL, NULL, NULL, 400},
    {"POST", "/projections/nothing/rebuild", NULL, NULL, NULL, 404},
    {"POST", "/projections/orders/rebuild", NULL, NULL, NULL, 409},
    {"POST", "/projections/orders/pause", NULL, NULL, NULL, 202},
    {"POST", "/projections/orders/pause?x=1", NULL, NULL, NULL, 400},
    {"POST", "/projections/nothing/pause", NULL, NULL, NULL, 404},
    {"POST", "/projections/orders/resume", NULL, NULL, NULL, 202},
    {"POST", "/projections/orders/resume?x=1", NULL, NULL, NULL, 400},
    {"POST", "/projections/nothing/resume", NULL, NULL, NULL, 404},
    {"GET", "/compact", NULL, NULL, NULL, 200},
    {"GET", "/compact?x=1", NULL, NULL, NULL, 400},
    {"POST", "/compact?compress=20", NULL, NULL, NULL, 400},
    {"POST", "/streams/gone-2/erase?x=1", NULL, NULL, NULL, 400},
    {"POST", "/streams/nothing/erase", NULL, NULL, NULL, 404},
    {"GET", "/healthz", NULL, NULL, NULL, 200},
    {"GET", "/healthz?x=1", NULL, NULL, NULL, 400},
    {"GET", "/readyz", NULL, NULL, NULL, 200},
    {"GET", "/backup?x=1", NULL, NULL, NULL, 400},
    {"GET", "/backup", NULL, NULL, NULL, 404},
    {"POST", "/backup?x=1", NULL, NULL, NULL, 400},
    {"POST", "/backup", NULL, NULL, NULL, 404},
    {"GET", "/readyz?x=1", NULL, NULL, NULL, 400},
    {"GET", "/backup?x=1", NULL, NULL, NULL, 400},
    {"GET", "/backup", NULL, NULL, NULL, 404},
    {"POST", "/backup?x=1", NULL, NULL, NULL, 400},
    {"POST", "/backup", NULL, NULL, NULL, 404},
    {"GET", "/metrics", NULL, NULL, NULL, 200},
    {"GET", "/metrics?x=1", NULL, NULL, NULL, 400},
    {"GET", "/openapi.json", NULL, NULL, NULL, 200},
    {"GET", "/openapi.json?x=1", NULL, NULL, NULL, 400},
    {"GET", "/", NULL, NULL, NULL, 200},
    {"GET", "/", "Accept", "text/html", NULL, 200},
    {"GET", "/?x=1", NULL, NULL, NULL, 400},
    {"GET", "/", "Accept", "image/png", NULL, 406},
};
/* On a store that takes no appends. */
static const struct probe stopped_probes[] = {
    {"POST", "/streams/there", NULL, NULL, EVENT, 503},
    {"DELETE", "/streams/there", NULL, NULL, NULL, 503},
    {"POST", "/streams/there/metadata", NULL, NULL, "{}", 503},
    {"POST", "/compact", NULL, NULL, NULL, 503},
    {"POST", "/streams/there/erase", NULL, NULL, NULL, 503},
    {"POST", "/append", NULL, NULL, APPEND("other") "}", 503},
    {"GET", "/readyz", NULL, NULL, NULL, 503},
};

/* Which replies of which route have been seen: of a status, all types or the problem. */
static bool reply_seen[96][ROUTE_REPLIES_MAX];

static void reply_note(const struct probe *probe)
{
    const char *type = header_of("Content-Type");
    for (size_t i = 0; i < api_route_count; i++) {
        if (strcmp(api_routes[i].pattern, answer.route) != 0) continue;
        if (strcmp(api_routes[i].method, probe->method) != 0) continue;
        for (size_t k = 0; api_routes[i].replies[k].status != 0; k++) {
            if (api_routes[i].replies[k].status != answer.status) continue;
            if (strcmp(api_routes[i].replies[k].type, type) == 0) reply_seen[i][k] = true;
        }
    }
}

static void probe_run(const struct probe *probe)
{
    const char *body = probe->body;
    char large[8192];
    if (body != NULL && strncmp(body, large_body_marker, 5) == 0) {
        bool append = strcmp(body, "large-append") == 0;
        snprintf(large, sizeof large, "%s{\"stream\":\"a\",\"type\":\"T\",\"data\":\"%06000d\"}%s",
                 append ? "{\"events\":[" : "", 0, append ? "]}" : "");
        if (!append) snprintf(large, sizeof large, "{\"type\":\"T\",\"data\":\"%06000d\"}", 0);
        body = large;
    }
    if (probe->header != NULL && strcmp(probe->header, "STALE") == 0) {
        with("Accept", probe->value);
        with("Last-Event-ID", "ffffffff.1.r2");
    } else if (probe->header != NULL) {
        with(probe->header, probe->value);
    }
    ask(probe->method, probe->target, body);
    if (answer.status != probe->status) {
        fail_msg("%s %s: %d, not %d: %s", probe->method, probe->target, answer.status,
                 probe->status, body_text());
    }
    reply_note(probe);
}

TEST(api, metadata_is_shown_and_replaced)
{
    open_api();
    append_many("a", 3);
    get("/streams/a/metadata");
    expect_answer(200, "{\"stream\":\"a\",\"revision\":null,\"metadata\":{}}");
    with("If-None-Match", "*");
    with("Deedbook-Actor", "anna");
    ask("POST", "/streams/a/metadata", "{\"$maxCount\":2, \"own\":1.50}");
    expect_answer(200, "{\"stream\":\"a\",\"revision\":0,\"position\":5}");
    expect_header("ETag", "\"0\"");
    get("/streams/a/metadata");
    expect_answer(200, "\"revision\":0,\"metadata\":{\"$maxCount\":2, \"own\":1.50}}");
    expect_header("ETag", "\"0\"");
    get("/streams/a?limit=1");
    expect_answer(200, "\"revision\":\"1\"");
    get("/streams/$$a");
    expect_answer(200, "\"actor\":\"anna\"");
    with("If-None-Match", "*");
    ask("POST", "/streams/a/metadata", "{}");
    expect_answer(412, "should not exist");
    ask("POST", "/streams/a/metadata?expected=1", "{}");
    expect_answer(409, "\"revision\":0");
    with("If-Match", "\"0\"");
    with("Idempotency-Key", "k");
    ask("POST", "/streams/a/metadata", "{\"own\":2}");
    expect_answer(200, "\"revision\":1");
    with("If-Match", "\"0\"");
    with("Idempotency-Key", "k");
    ask("POST", "/streams/a/metadata", "{\"own\":2}");
    expect_answer(200, "\"repeated\":true");
    ask("POST", "/streams/a/metadata", "{\"$maxAge\":0}");
    expect_answer(400, "$maxAge is 0");
    close_api();
}

TEST(api, a_log_is_compacted_and_a_stream_erased_in_the_background)
{
    open_api();
    append_many("a", 5);
    append_many("b", 5);
    get("/compact");
    expect_answer(200, "{\"state\":\"idle\",\"kind\":\"compact\",\"segments\":0,");
    ask("POST", "/streams/a/metadata", "{\"$maxCount\":2}");
    ask("POST", "/compact?active&compress=3", NULL);
    expect_answer(202, "\"kind\":\"compact\"");
    expect_ok(store_compaction_wait(store, NULL, NULL));
    get("/compact");
    expect_answer(200, "{\"state\":\"done\",\"kind\":\"compact\",\"segments\":1,"
                       "\"segments_done\":1,\"rewritten\":1,\"skipped\":0,\"events_removed\":3,");
    with("Deedbook-Actor", "dpo");
    ask("POST", "/streams/b/erase", NULL);
    expect_answer(202, "\"kind\":\"erase\"");
    expect_ok(store_compaction_wait(store, NULL, NULL));
    get("/compact");
    expect_answer(200, "\"events_removed\":5");
    expect_answer(200, "\"error\":null}");
    get("/streams/b");
    expect_answer(404, "it is deleted");
    get("/streams/$$b");
    expect_answer(200, "\"actor\":\"dpo\"");
    get("/streams/a");
    expect_answer(200, "\"revision\":\"3\"");
    get("/");
    expect_answer(200, "\"horizon\":5,");
    get("/metrics");
    expect_answer(200, "deedbook_compactions_total 2\n");
    expect_answer(200, "deedbook_compaction_events_removed_total 8\n");
    ask("POST", "/streams/nothing/erase", NULL);
    expect_answer(404, "there is no such stream");
    close_api();
}

/* Events removed from the log in between. */
static void remove_events(fate_of *fate)
{
    api_destroy(api);
    store_close(store);
    api = NULL;
    store = NULL;
    stub_log(sim == NULL ? os_real() : os_sim_os(sim), api_directory, fate);
    reopen_api();
}

static enum event_fate remove_first(const struct deed_event *e)
{
    return e->position == 2 ? EVENT_REMOVE : EVENT_KEEP;
}

static enum event_fate erase_odd(const struct deed_event *e)
{
    return e->position > 1 && e->position % 2 == 1 ? EVENT_ERASE : EVENT_KEEP;
}

TEST(api, a_log_whose_beginning_was_removed_is_read_from_the_horizon_on)
{
    open_api();
    append_many("a", 3);
    remove_events(remove_first);
    get("/events");
    expect_answer(410, "\"code\":\"gone\",\"position\":3");
    expect_answer(410, "read after position 2");
    get("/events?after=2");
    expect_answer(200, "\"position\":\"3\"");
    with("Accept", "application/x-ndjson");
    get("/events?follow");
    expect_answer(410, "kept from position 3 on");
    with("Accept", "text/event-stream");
    get("/events?follow=false");
    expect_answer(410, "kept from position 3 on");
    get("/events?removed&limit=1");
    expect_answer(200, "\"datacontenttype\":\"application/json\",\"removed\":true}]");
    get("/streams/a");
    expect_answer(200, "[{\"specversion\":\"1.0\"");
    expect_answer(200, "\"revision\":\"1\"");
    get("/streams/a?removed=true&limit=1");
    expect_answer(200, "\"removed\":true");
    with("Accept", "application/vnd.deedbook.log");
    get("/events?removed");
    expect_answer(400, "unfiltered");
    close_api();
}

TEST(api, a_page_is_full_although_events_in_between_were_removed)
{
    open_api();
    append_many("a", 9);
    remove_events(erase_odd);
    get("/streams/a?limit=2&from=1");
    expect_answer(200, "\"revision\":\"2\"");
    expect_answer(200, "\"revision\":\"4\"");
    expect_next("</streams/a?limit=2&from=", ".1.r5");
    close_api();
}

/* While one is made another is refused; but it may be done before that is asked. */
static void provoke_backups(void)
{
    const struct probe begun = {"POST", "/backup", NULL, NULL, NULL, 202};
    const struct probe refused = {"POST", "/backup", NULL, NULL, NULL, 409};
    char root[64];
    struct deed_error err;
    (void)snprintf(root, sizeof root, "%s/backups", api_directory);
    api_destroy(api);
    expect_ok(backups_open(store, root, &api_parts.backups, &err));
    expect_ok(api_create(&api_parts, &api, &err));
    bool was_refused = false;
    for (int tries = 0; tries < 1000 && !was_refused; tries++) {
        ask("POST", "/backup", "");
        was_refused = answer.status == 409;
        reply_note(was_refused ? &refused : &begun);
    }
    assert_true(was_refused);
    await_backup();
    probe_run(&(struct probe){"GET", "/backup", NULL, NULL, NULL, 200});
    backups_close(api_parts.backups);
    api_parts.backups = NULL;
}

#define NAME_100 \
    "nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn" \
    "nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn"
#define NAME_500  NAME_100 NAME_100 NAME_100 NAME_100 NAME_100
#define LONG_NAME NAME_500 NAME_500
#define OPEN_10   "[[[[[[[[[["
#define DEEP      OPEN_10 OPEN_10 OPEN_10 OPEN_10 OPEN_10 OPEN_10 OPEN_10

/* On group g of stream there, which has one consumer and may have no more, and a parked event. */
static const struct probe group_probes[] = {
    {"PUT", "/subscriptions/there/g", NULL, NULL, "{\"consumer_count_max\":1}", 201},
    {"PUT", "/subscriptions/there/g", NULL, NULL, "{\"consumer_count_max\":1}", 200},
    {"PUT", "/subscriptions/there/g", NULL, NULL, "{\"colour\":1}", 400},
    {"PUT", "/subscriptions/$all/f", NULL, NULL, "{\"filter\":{\"types\":[\"T\"]}}", 201},
    {"PUT", "/subscriptions/$all/f", NULL, NULL, "{\"filter\":{\"types\":[\"U\"]}}", 409},
    {"PUT", "/subscriptions/there/g", "If-None-Match", "*", NULL, 412},
    {"PUT", "/subscriptions/there/" LONG_NAME, NULL, NULL, NULL, 413},
    {"PUT", "/subscriptions/there/g", "Content-Type", "text/plain", "{}", 415},
    {"GET", "/subscriptions", NULL, NULL, NULL, 200},
    {"GET", "/subscriptions?x=1", NULL, NULL, NULL, 400},
    {"GET", "/subscriptions/there", NULL, NULL, NULL, 200},
    {"GET", "/subscriptions/there?x=1", NULL, NULL, NULL, 400},
    {"GET", "/subscriptions/there/g", NULL, NULL, NULL, 200},
    {"GET", "/subscriptions/there/g?x=1", NULL, NULL, NULL, 400},
    {"GET", "/subscriptions/there/h", NULL, NULL, NULL, 404},
    {"POST", "/subscriptions/there/g/take?consumer=a", NULL, NULL, NULL, 200},
    {"POST", "/subscriptions/there/g/take?limit=0", NULL, NULL, NULL, 400},
    {"POST", "/subscriptions/there/h/take", NULL, NULL, NULL, 404},
    {"POST", "/subscriptions/there/g/take?consumer=b", NULL, NULL, NULL, 503},
    {"GET", "/subscriptions/$all/f/events", NULL, NULL, NULL, 200},
    {"GET", "/subscriptions/there/g/events?buffer=0", NULL, NULL, NULL, 400},
    {"GET", "/subscriptions/there/h/events", NULL, NULL, NULL, 404},
    {"GET", "/subscriptions/there/g/events", NULL, NULL, NULL, 503},
    {"POST", "/subscriptions/there/g/ack", NULL, NULL, "{\"ids\":[]}", 200},
    {"POST", "/subscriptions/there/g/ack", NULL, NULL, "{\"ids\":[1]}", 400},
    {"POST", "/subscriptions/there/h/ack", NULL, NULL, "{\"ids\":[]}", 404},
    {"POST", "/subscriptions/there/g/ack", NULL, NULL, DEEP, 413},
    {"POST", "/subscriptions/there/g/ack", "Content-Type", "text/plain", "{}", 415},
    {"POST", "/subscriptions/there/g/nack", NULL, NULL, "{\"ids\":[]}", 200},
    {"POST", "/subscriptions/there/g/nack", NULL, NULL, "{\"ids\":[],\"action\":\"x\"}", 400},
    {"POST", "/subscriptions/there/h/nack", NULL, NULL, "{\"ids\":[]}", 404},
    {"POST", "/subscriptions/there/g/nack", NULL, NULL, DEEP, 413},
    {"POST", "/subscriptions/there/g/nack", "Content-Type", "text/plain", "{}", 415},
    {"GET", "/subscriptions/there/g/parked", NULL, NULL, NULL, 200},
    {"GET", "/subscriptions/there/g/parked?limit=0", NULL, NULL, NULL, 400},
    {"GET", "/subscriptions/there/h/parked", NULL, NULL, NULL, 404},
    {"POST", "/subscriptions/there/g/parked/replay?before=x", NULL, NULL, NULL, 400},
    {"POST", "/subscriptions/there/h/parked/replay", NULL, NULL, NULL, 404},
    {"DELETE", "/subscriptions/there/g/parked?before=0", NULL, NULL, NULL, 200},
    {"DELETE", "/subscriptions/there/g/parked?before=x", NULL, NULL, NULL, 400},
    {"DELETE", "/subscriptions/there/h/parked", NULL, NULL, NULL, 404},
};

static const struct probe group_last_probes[] = {
    {"POST", "/subscriptions/there/g/parked/replay", NULL, NULL, NULL, 202},
    {"POST", "/subscriptions/there/g/parked/replay", NULL, NULL, NULL, 503},
    {"DELETE", "/subscriptions/there/g?x=1", NULL, NULL, NULL, 400},
    {"DELETE", "/subscriptions/there/g", NULL, NULL, NULL, 200},
    {"DELETE", "/subscriptions/there/g", NULL, NULL, NULL, 404},
};

/* Take until there is something, and park it: a new event, since the probe that took may have got
 * all that was there before. */
static void park_one(void)
{
    char body[256];
    append_many("there", 1);
    for (unsigned tries = 0; tries < 5000; tries++) {
        ask("POST", "/subscriptions/there/g/take?consumer=a&limit=1", NULL);
        const char *id = strstr(body_text(), "\"id\":\"");
        if (id == NULL) {
            usleep(1000);
            continue;
        }
        (void)snprintf(body, sizeof body, "{\"ids\":[\"%.36s\"],\"action\":\"park\"}", id + 6);
        ask("POST", "/subscriptions/there/g/nack?consumer=a", body);
        expect_answer(200, "{\"count\":1}");
        break;
    }
    for (unsigned tries = 0; tries < 5000; tries++) {
        get("/subscriptions/there/g/parked");
        if (strstr(body_text(), "\"number\":0") != NULL) return;
        usleep(1000);
    }
    fail_msg("nothing was parked: %s", body_text());
}

static void provoke_groups(void)
{
    struct deed_error err;
    struct groups *groups = NULL;
    api_destroy(api);
    expect_ok(groups_open(store, NULL, &groups, &err));
    api_parts.groups = groups;
    expect_ok(api_create(&api_parts, &api, &err));
    for (size_t i = 0; i < sizeof group_probes / sizeof group_probes[0]; i++) {
        probe_run(&group_probes[i]);
    }
    park_one();
    for (size_t i = 0; i < sizeof group_last_probes / sizeof group_last_probes[0]; i++) {
        probe_run(&group_last_probes[i]);
    }
    api_destroy(api);
    groups_close(groups);
    api_parts.groups = NULL;
    expect_ok(api_create(&api_parts, &api, &err));
}

TEST(api, every_documented_reply_can_be_provoked)
{
    open_api();
    append_many("there", 2);
    append_many("closed", 1);
    append_many("doomed", 1);
    ask("DELETE", "/streams/closed?tombstone=true", NULL);
    store_options.limits.event_size_max = 4096;
    reopen_api();
    memset(reply_seen, 0, sizeof reply_seen);
    for (size_t i = 0; i < sizeof probes / sizeof probes[0]; i++)
        probe_run(&probes[i]);
    with("Accept", "application/cloudevents-batch+json");
    probe_run(&(struct probe){"GET", "/events", NULL, NULL, NULL, 200});
    with("Accept", "application/x-ndjson");
    probe_run(&(struct probe){"GET", "/events", NULL, NULL, NULL, 200});
    with("Accept", "text/event-stream");
    probe_run(&(struct probe){"GET", "/events?follow=false", NULL, NULL, NULL, 200});
    provoke_groups();
    provoke_backups();
    remove_events(remove_first);
    probe_run(&(struct probe){"GET", "/events", NULL, NULL, NULL, 410});
    probe_run(&(struct probe){"POST", "/compact", NULL, NULL, NULL, 202});
    expect_ok(store_compaction_wait(store, NULL, NULL));
    probe_run(&(struct probe){"POST", "/streams/doomed/erase", NULL, NULL, NULL, 202});
    expect_ok(store_compaction_wait(store, NULL, NULL));
    store_options.read_only = true;
    reopen_api();
    for (size_t i = 0; i < sizeof stopped_probes / sizeof stopped_probes[0]; i++) {
        probe_run(&stopped_probes[i]);
    }
    assert_true(api_route_count <= 96);
    for (size_t i = 0; i < api_route_count; i++) {
        for (size_t k = 0; api_routes[i].replies[k].status != 0; k++) {
            if (!reply_seen[i][k]) {
                fail_msg("%s %s: %d %s was not provoked", api_routes[i].method,
                         api_routes[i].pattern, api_routes[i].replies[k].status,
                         api_routes[i].replies[k].type);
            }
        }
    }
    close_api();
}

TEST_MAIN(api)
