/* Given/when/then: the orders example passes, and tests that should fail do. */
#include "test.h"

#include "../../examples/orders/orders.c"

#include "domain/given.h"

static struct domain_host *host;
static struct deed_error err;
static struct given_summary summary;
static char told[8192];

static void tell(void *context, const struct given_result *result)
{
    (void)context;
    if (result->passed) return;
    size_t len = strlen(told);
    snprintf(told + len, sizeof told - len, "%.*s: %.*s\n%.*s", DEED_FMT(result->file),
             DEED_FMT(result->name), DEED_FMT(result->difference));
}

static void start(void)
{
    summary = (struct given_summary){0};
    told[0] = '\0';
    expect_ok(host_in_process(&deed_domain_v1, &host, &err));
}

static deed_status run(const char *text)
{
    return given_run_text(host, DEED_STR("t.json"), deed_bytes_of(deed_str_of(text)), tell, NULL,
                          &summary, &err);
}

static void expect_told(const char *part)
{
    if (strstr(told, part) == NULL) fail_msg("\"%s\" lacks \"%s\"", told, part);
}

TEST(given, the_orders_example_passes)
{
    start();
    expect_ok(given_run_folder(host, "examples/orders/tests", tell, NULL, &summary, &err));
    if (summary.failed > 0) fail_msg("%s", told);
    assert_true(summary.files >= 4 && summary.passed >= 70);
    host_close(host);
}

#define CREATED                                                                                    \
    "{\"type\":\"OrderCreated\",\"data\":{\"order_id\":\"1\",\"order_date\":\"2026-01-01\"}}"
#define CANCEL "{\"command\":\"CancelOrder\",\"data\":{\"order_id\":\"1\",\"reason\":\"no\"}}"
#define ONE(given, when, then)                                                                     \
    "{\"tests\":[{\"name\":\"n\",\"given\":[" given "],\"when\":" when ",\"then\":" then "}]}"

TEST(given, a_wrong_expectation_fails_and_shows_the_difference)
{
    start();
    expect_ok(run(ONE(CREATED, CANCEL,
                      "{\"events\":[{\"type\":\"OrderCancelled\",\"data\":{\"order_id\":\"1\","
                      "\"reason\":\"yes\"}}]}")));
    assert_int_equal(summary.failed, 1);
    expect_told("t.json: n\n  event 1:\n-   reason: \"yes\"\n+   reason: \"no\"\n");

    expect_ok(run(ONE(CREATED, CANCEL, "{\"events\":[]}")));
    expect_told("- no events\n+ event OrderCancelled {");
    expect_ok(run(ONE(CREATED, CANCEL, "{\"rejected\":\"order_shipped\"}")));
    expect_told("- rejected order_shipped\n+ event OrderCancelled {");
    expect_ok(run(ONE("", CANCEL, "{\"events\":[{\"type\":\"OrderCancelled\"}]}")));
    expect_told("+ rejected order_not_found: there is no order 1\n");
    expect_ok(run(ONE("", CANCEL, "{\"state\":{\"status\":\"open\"}}")));
    expect_ok(run(ONE(CREATED, CANCEL, "{\"invalid\":\"\"}")));
    expect_told("- the input is malformed");
    expect_ok(run(ONE(CREATED, CANCEL, "{\"state\":{\"status\":\"open\",\"colour\":1}}")));
    expect_told("- state status: \"open\"\n+ state status: \"cancelled\"\n");
    expect_told("+ state has no such member\n");
    assert_int_equal(summary.failed, 7);
    assert_int_equal(summary.passed, 0);
    host_close(host);
}

TEST(given, a_malformed_test_fails_and_a_malformed_file_is_refused)
{
    start();
    expect_ok(run(ONE("", CANCEL, "{}")));
    expect_told("must have events or state, or rejected, or invalid");
    expect_ok(run(ONE("", CANCEL, "{\"events\":[],\"rejected\":\"x\"}")));
    expect_ok(run(ONE("", "{\"command\":\"Nope\"}", "{\"events\":[]}")));
    expect_told("there is no command Nope");
    expect_ok(run(ONE("\"nothing\"", CANCEL, "{\"events\":[]}")));
    expect_told("there is no such fixture: \"nothing\"");
    expect_ok(run("{\"tests\":[{\"name\":\"n\",\"wen\":1}]}"));
    expect_told("\"wen\" is no member that is known here");
    expect_ok(run("{\"fixtures\":{\"a\":[\"a\"]},\"tests\":[{\"name\":\"n\",\"given\":[\"a\"],"
                  "\"when\":" CANCEL ",\"then\":{\"events\":[]}}]}"));
    expect_told("fixtures go round in circles");
    expect_ok(run(ONE("{\"type\":\"OrderCraeted\"}", CANCEL, "{\"rejected\":\"x\"}")));
    expect_told("there is no event OrderCraeted");
    expect_ok(run("{\"tests\":[{\"name\":\"n\",\"when\":" CANCEL "}]}"));
    expect_told("\"then\" is missing");
    expect_ok(run("{\"tests\":[{\"name\":\"n\",\"then\":{\"events\":[]}}]}"));
    expect_told("\"when\" is missing");
    assert_int_equal(summary.failed, 9);
    expect_status(DEED_INVALID, run("{\"tests\":[]}"));
    expect_status(DEED_INVALID, run("{\"test\":[]}"));
    expect_message(err, "t.json: \"test\" is no member");
    expect_status(DEED_INVALID, run("{"));
    expect_status(DEED_NOT_FOUND, given_run_folder(host, "/nowhere", tell, NULL, &summary, &err));
    host_close(host);
}

TEST_MAIN(given)
