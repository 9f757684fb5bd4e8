/* test_api_groups.c - consumer groups over HTTP: stories over a real store, without sockets. */
#include "api_fixture.h"

#include "groups/groups.h"

static struct groups *groups;

static void open_groups_api(void)
{
    struct deed_error err;
    open_api();
    api_destroy(api);
    expect_ok(groups_open(store, NULL, &groups, &err));
    api_parts.groups = groups;
    expect_ok(api_create(&api_parts, &api, &err));
}

static void close_groups_api(void)
{
    api_leave_groups(api);
    groups_close(groups);
    groups = NULL;
    api_parts.groups = NULL;
    close_api();
}

/* Ask until the answer has the text. */
static void ask_until(const char *method, const char *target, const char *text)
{
    for (unsigned tries = 0; tries < 5000; tries++) {
        ask(method, target, NULL);
        if (strstr(body_text(), text) != NULL) return;
        usleep(1000);
    }
    fail_msg("%s %s: %s\nlacks %s", method, target, body_text(), text);
}

#define TAKE "/subscriptions/a/g/take"

/* The n-th message's id in the last answer. */
static const char *message_id(unsigned n)
{
    static char id[40];
    const char *at = body_text();
    for (unsigned i = 0; at != NULL && i <= n; i++) at = strstr(at + 1, "{\"id\":\"");
    assert_non_null(at);
    (void)snprintf(id, sizeof id, "%.36s", at + 7);
    return id;
}

static void answer_with(const char *route, const char *consumer, const char *id, const char *more)
{
    char target[128], body[256];
    (void)snprintf(target, sizeof target, "/subscriptions/a/g/%s?consumer=%s", route, consumer);
    (void)snprintf(body, sizeof body, "{\"ids\":[\"%s\"]%s}", id, more);
    ask("POST", target, body);
}

TEST(api_groups, messages_are_taken_and_acknowledged)
{
    char id[40];
    open_groups_api();
    append_many("a", 3);
    ask("PUT", "/subscriptions/a/g", NULL);
    expect_answer(201, "\"strategy\":\"RoundRobin\"");
    ask_until("POST", TAKE "?consumer=x&limit=2", "\"n\":1");
    assert_int_equal(count_of("\"retry_count\":0"), 2);
    (void)snprintf(id, sizeof id, "%s", message_id(0));
    answer_with("ack", "y", id, "");
    expect_answer(200, "{\"count\":0}"); /* it is x who has it */
    answer_with("ack", "x", id, "");
    expect_answer(200, "{\"count\":1}");
    get("/subscriptions/a/g");
    expect_answer(200, "\"in_flight\":1");
    expect_answer(200, "\"consumers\":[{\"name\":\"x\",\"from\":\"test\"");
    close_groups_api();
}

TEST(api_groups, what_is_given_back_comes_again)
{
    char id[40];
    open_groups_api();
    append_many("a", 1);
    ask("PUT", "/subscriptions/a/g", NULL);
    ask_until("POST", TAKE "?consumer=x", "\"n\":0");
    (void)snprintf(id, sizeof id, "%s", message_id(0));
    answer_with("nack", "x", id, "");
    expect_answer(200, "{\"count\":1}");
    ask_until("POST", TAKE "?consumer=y", "\"retry_count\":1");
    answer_with("nack", "y", id, ",\"action\":\"skip\"");
    expect_answer(200, "{\"count\":1}");
    ask("POST", TAKE "?consumer=y", NULL);
    expect_answer(200, "[]");
    close_groups_api();
}

TEST(api_groups, who_asks_without_waiting_gets_what_there_is)
{
    open_groups_api();
    ask("PUT", "/subscriptions/a/g", NULL);
    ask("POST", TAKE, NULL);
    expect_answer(200, "[]\n");
    assert_int_equal(answer.last_pull, API_END);
    ask("POST", TAKE "?timeout=30s", NULL); /* the test does not wait */
    assert_int_equal(answer.last_pull, API_WAIT);
    close_groups_api();
}

TEST(api_groups, a_put_that_changes_nothing_drops_nobody)
{
    open_groups_api();
    append_many("a", 1);
    ask("PUT", "/subscriptions/a/g", "{\"retry_count_max\":3}");
    expect_answer(201, "\"retry_count_max\":3");
    ask_until("POST", TAKE "?consumer=x", "\"n\":0");
    ask("PUT", "/subscriptions/a/g", "{\"retry_count_max\":3}");
    expect_answer(200, "\"in_flight\":1");
    ask("PUT", "/subscriptions/a/g", "{\"retry_count_max\":4}");
    expect_answer(200, "\"consumers\":[]");
    ask_until("POST", TAKE "?consumer=x", "\"n\":0"); /* the name is good again */
    close_groups_api();
}

TEST(api_groups, events_come_as_they_are_said)
{
    open_groups_api();
    append_many("a", 2);
    ask("PUT", "/subscriptions/a/g", NULL);
    ask_until("GET", "/subscriptions/a/g/events?consumer=x", "data: {\"id\":\"");
    expect_header("Content-Type", "text/event-stream");
    get("/subscriptions/a/g");
    expect_answer(200, "\"consumers\":[]"); /* it left with its connection */
    close_groups_api();
}

TEST(api_groups, links_are_shown_with_what_they_point_to)
{
    open_groups_api();
    append_many("cat-1", 1);
    ask("PUT", "/subscriptions/$ce-cat/g", "{\"resolve_links\":true}");
    expect_answer(201, "\"resolve_links\":true");
    ask_until("POST", "/subscriptions/$ce-cat/g/take",
              "\"link\":{\"stream\":\"$ce-cat\",\"revision\":0}");
    expect_answer(200, "\"subject\":\"cat-1\"");
    close_groups_api();
}

TEST(api_groups, bodies_that_make_no_sense_are_refused)
{
    open_groups_api();
    ask("PUT", "/subscriptions/a/g", "[]");
    expect_answer(400, "must be a JSON object");
    ask("PUT", "/subscriptions/a/g", "{\"strategy\":\"Random\"}");
    expect_answer(400, "member \\\"strategy\\\" cannot be");
    ask("PUT", "/subscriptions/a/g", "{\"start\":-1}");
    expect_answer(400, "member \\\"start\\\" cannot be -1");
    ask("PUT", "/subscriptions/a/g", "{\"read_batch_size\":500}");
    expect_answer(400, "read batch size 500 must be smaller");
    ask("PUT", "/subscriptions/a/g", "{\"filter\":{}}");
    expect_answer(400, "only a group on $all takes a filter");
    ask("PUT", "/subscriptions/a/g", "{\"message_timeout_ms\":4294967296}");
    expect_answer(400, "message_timeout_ms");
    ask("PUT", "/subscriptions/a/g", NULL);
    ask("POST", "/subscriptions/a/g/ack", "{}");
    expect_answer(400, "\\\"ids\\\" must be a list");
    close_groups_api();
}

TEST(api_groups, groups_are_measured)
{
    open_groups_api();
    append_many("a", 2);
    ask("PUT", "/subscriptions/a/g", NULL);
    get("/metrics");
    expect_answer(200, "deedbook_group_lag{source=\"a\",group=\"g\"} 1\n");
    expect_answer(200, "deedbook_group_parked{source=\"a\",group=\"g\"} 0\n");
    close_groups_api();
}

TEST(api_groups, without_groups_there_is_nothing)
{
    open_api();
    get("/subscriptions");
    expect_answer(404, "consumer groups are not served here");
    ask("POST", TAKE, NULL);
    expect_answer(404, "consumer groups are not served here");
    close_api();
}

TEST_MAIN(api_groups)
