/* The client against a server that answers from a script, well and badly. */
#include "test.h"

#include "cli/client.h"
#include "cli/target.h"

#include <arpa/inet.h>
#include <pthread.h>
#include <sys/socket.h>
#include <unistd.h>

/* One connection each: read a request to the end of its head and body, then write the answer and
 * close. NULL closes without a word; STALL keeps silent until the client gives up. */
#define STALL "stall"
static struct {
    const char *const *answers;
    size_t count;
    int listener;
    unsigned requests;
    char last[4096]; /* what came last */
    char url[64];
    pthread_t thread;
} server;

static void request_take(int peer)
{
    size_t size = 0;
    for (;;) {
        ssize_t some = recv(peer, server.last + size, sizeof server.last - 1 - size, 0);
        if (some <= 0) break;
        size += (size_t)some;
        server.last[size] = '\0';
        char *end = strstr(server.last, "\r\n\r\n");
        if (end == NULL) continue;
        const char *length = strcasestr(server.last, "content-length: ");
        size_t body = length == NULL ? 0 : strtoul(length + 16, NULL, 10);
        if (size >= (size_t)(end + 4 - server.last) + body) break;
    }
}

static void *serve(void *context)
{
    (void)context;
    for (size_t i = 0; i < server.count; i++) {
        int peer = accept(server.listener, NULL, NULL);
        if (peer < 0) break;
        request_take(peer);
        server.requests++;
        const char *answer = server.answers[i];
        if (answer != NULL && strcmp(answer, STALL) == 0) {
            char byte;
            (void)!recv(peer, &byte, 1, 0); /* until the client closes */
        } else if (answer != NULL) {
            (void)send(peer, answer, strlen(answer), MSG_NOSIGNAL);
        }
        close(peer);
    }
    return NULL;
}

static void answers_with(const char *const *answers, size_t count)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    server.answers = answers;
    server.count = count;
    server.requests = 0;
    server.listener = socket(AF_INET, SOCK_STREAM, 0);
    assert_true(server.listener >= 0);
    assert_int_equal(bind(server.listener, (struct sockaddr *)&address, size), 0);
    assert_int_equal(listen(server.listener, 8), 0);
    assert_int_equal(getsockname(server.listener, (struct sockaddr *)&address, &size), 0);
    snprintf(server.url, sizeof server.url, "http://127.0.0.1:%d", ntohs(address.sin_port));
    assert_int_equal(pthread_create(&server.thread, NULL, serve, NULL), 0);
}
#define SERVE(...)                                                                                 \
    static const char *const answers[] = {__VA_ARGS__};                                            \
    answers_with(answers, sizeof answers / sizeof answers[0])

static unsigned server_end(void)
{
    pthread_join(server.thread, NULL);
    close(server.listener);
    return server.requests;
}

static deed_status ask(const char *method, uint32_t timeout_ms, struct reply *reply,
                       struct deed_error *err)
{
    struct client *client = NULL;
    struct request request = {.method = method, .path = "/x?y=1"};
    if (strcmp(method, "POST") == 0) request.body = deed_bytes_of(DEED_STR("{\"a\":1}"));
    request_header(&request, "If-Match", "\"3\"");
    *err = (struct deed_error){0};
    reply_init(reply);
    expect_ok(client_create(server.url, timeout_ms, &client, err));
    deed_status status = client_call(client, &request, reply, err);
    client_destroy(client);
    return status;
}

TEST(client, a_request_has_what_was_asked_and_the_answer_comes_back)
{
    struct reply reply;
    struct deed_error err;
    SERVE("HTTP/1.1 200 OK\r\nDeedbook-Position: 42\r\nContent-Length: 2\r\n\r\n[]");
    expect_ok(ask("POST", 5000, &reply, &err));
    assert_int_equal(server_end(), 1);
    assert_int_equal(reply.status, 200);
    assert_true(reply.position == 42);
    expect_str(buf_str(&reply.body), "[]");
    assert_memory_equal(server.last, "POST /x?y=1 HTTP/1.1\r\n", 22);
    assert_non_null(strstr(server.last, "If-Match: \"3\"\r\n"));
    assert_non_null(strstr(server.last, "Content-Type: application/json\r\n"));
    assert_non_null(strstr(server.last, "\r\n\r\n{\"a\":1}"));
    reply_done(&reply);
}

TEST(client, a_busy_server_is_asked_again_when_it_says_so)
{
    struct reply reply;
    struct deed_error err;
    SERVE("HTTP/1.1 503 Busy\r\nRetry-After: 0\r\nContent-Length: 4\r\n\r\nbusy",
          "HTTP/1.1 503 Busy\r\nRetry-After: 0\r\nContent-Length: 4\r\n\r\nbusy",
          "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone");
    expect_ok(ask("POST", 5000, &reply, &err));
    assert_int_equal(server_end(), 3);
    assert_int_equal(reply.status, 200);
    expect_str(buf_str(&reply.body), "done");
    reply_done(&reply);
}

TEST(client, a_busy_server_is_not_asked_for_ever)
{
    struct reply reply;
    struct deed_error err;
    SERVE("HTTP/1.1 503 Busy\r\nRetry-After: 0\r\nContent-Length: 0\r\n\r\n",
          "HTTP/1.1 503 Busy\r\nRetry-After: 0\r\nContent-Length: 0\r\n\r\n",
          "HTTP/1.1 503 Busy\r\nRetry-After: 0\r\nContent-Length: 0\r\n\r\n",
          "HTTP/1.1 503 Busy\r\nRetry-After: 0\r\nContent-Length: 0\r\n\r\n");
    expect_ok(ask("GET", 5000, &reply, &err));
    assert_int_equal(server_end(), 4);
    assert_int_equal(reply.status, 503);
    reply_done(&reply);
}

TEST(client, without_retry_after_nothing_is_asked_twice)
{
    struct reply reply;
    struct deed_error err;
    SERVE("HTTP/1.1 503 Stopped\r\nContent-Length: 0\r\n\r\n");
    expect_ok(ask("POST", 5000, &reply, &err));
    assert_int_equal(server_end(), 1);
    assert_int_equal(reply.status, 503);
    reply_done(&reply);
}

TEST(client, a_connection_that_breaks_behind_a_write_leaves_the_outcome_unknown)
{
    struct reply reply;
    struct deed_error err;
    SERVE(NULL);
    expect_status(DEED_UNKNOWN, ask("POST", 5000, &reply, &err));
    expect_message(err, "outcome is unknown");
    assert_int_equal(server_end(), 1);
    reply_done(&reply);
}

TEST(client, a_connection_that_breaks_behind_a_read_is_just_gone)
{
    struct reply reply;
    struct deed_error err;
    SERVE("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf");
    expect_status(DEED_STOPPED, ask("GET", 5000, &reply, &err));
    expect_message(err, server.url);
    assert_int_equal(server_end(), 1);
    reply_done(&reply);
}

TEST(client, a_server_that_keeps_silent_is_left)
{
    struct reply reply;
    struct deed_error err;
    SERVE(STALL);
    /* The client's own margin is two seconds on top. */
    expect_status(DEED_TIMEOUT, ask("GET", 100, &reply, &err));
    assert_int_equal(server_end(), 1);
    reply_done(&reply);
}

TEST(client, what_is_no_url_is_refused_before_anything_is_sent)
{
    struct client *client = NULL;
    struct deed_error err = {0};
    expect_status(DEED_INVALID, client_create("localhost:2113", 1000, &client, &err));
    expect_message(err, "localhost:2113");
}

TEST(client, a_server_out_of_reach_is_named)
{
    struct client *client = NULL;
    struct deed_error err = {0};
    struct reply reply;
    struct request request = {.method = "GET", .path = "/healthz"};
    expect_ok(client_create("http://127.0.0.1:1/", 1000, &client, &err));
    reply_init(&reply);
    expect_status(DEED_STOPPED, client_call(client, &request, &reply, &err));
    expect_message(err, "http://127.0.0.1:1");
    reply_done(&reply);
    client_destroy(client);
}

/* ---- lines -------------------------------------------------------------------------------------- */

static char seen[256];

static deed_status on_line(void *context, deed_str line, struct deed_error *err)
{
    (void)context;
    (void)err;
    if (deed_str_equal(line, DEED_STR("stop"))) return DEED_END;
    size_t size = strlen(seen);
    snprintf(seen + size, sizeof seen - size, "<%.*s>", DEED_FMT(line));
    return DEED_OK;
}

static deed_status read_lines(struct deed_error *err)
{
    struct client *client = NULL;
    struct splitter splitter;
    struct request request = {.method = "GET", .path = "/lines"};
    seen[0] = '\0';
    *err = (struct deed_error){0};
    splitter_init(&splitter, on_line, NULL);
    expect_ok(client_create(server.url, 5000, &client, err));
    deed_status status = client_lines(client, &request, &splitter, err);
    if (status == DEED_OK) status = splitter_end(&splitter, err);
    client_destroy(client);
    splitter_done(&splitter);
    return status;
}

TEST(client, lines_come_through_chunks)
{
    struct deed_error err;
    SERVE("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
          "5\r\none\nt\r\n9\r\nwo\nthree\n\r\n0\r\n\r\n");
    expect_ok(read_lines(&err));
    assert_string_equal(seen, "<one><two><three>");
    (void)server_end();
}

TEST(client, a_feed_that_is_cut_short_is_an_error_behind_whole_lines)
{
    struct deed_error err;
    SERVE("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n7\r\none\ntwo\r\n");
    expect_status(DEED_STOPPED, read_lines(&err));
    assert_string_equal(seen, "<one>");
    (void)server_end();
}

TEST(client, a_line_can_end_the_reading)
{
    struct deed_error err;
    SERVE("HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\none\nstop\ntwo\n");
    expect_status(DEED_END, read_lines(&err));
    assert_string_equal(seen, "<one>");
    (void)server_end();
}

TEST(client, a_problem_instead_of_lines_is_told)
{
    struct deed_error err;
    SERVE("HTTP/1.1 404 Not Found\r\nContent-Type: application/problem+json\r\n"
          "Content-Length: 63\r\n\r\n"
          "{\"type\":\"urn:deedbook:problem:not_found\",\"title\":\"no stream x\"}");
    expect_status(DEED_NOT_FOUND, read_lines(&err));
    expect_message(err, "no stream x");
    assert_string_equal(seen, "");
    (void)server_end();
}

/* ---- asked once, and shown ------------------------------------------------------------------------ */

static void on_answer(const void *context, json_value answer)
{
    snprintf(seen, sizeof seen, "%s%.*s", (const char *)context,
             DEED_FMT(json_raw(json_get(answer, DEED_STR("a")))));
}

static deed_status show(struct deed_error *err)
{
    struct cli_target options = {.server = server.url, .timeout_ms = 5000};
    struct request request = {.method = "GET", .path = "/x"};
    seen[0] = '\0';
    *err = (struct deed_error){0};
    return target_show(&options, TARGET_READS, &request, on_answer, "a is ", err);
}

TEST(client, an_answer_is_parsed_and_shown)
{
    struct deed_error err;
    SERVE("HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n{\"a\":7}\n");
    expect_ok(show(&err));
    assert_string_equal(seen, "a is 7");
    (void)server_end();
}

TEST(client, an_answer_that_is_no_json_is_not_shown)
{
    struct deed_error err;
    SERVE("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n<html");
    expect_status(DEED_INVALID, show(&err));
    expect_message(err, "byte 0: '<'");
    assert_string_equal(seen, "");
    (void)server_end();
}

TEST(client, a_problem_is_told_and_not_shown)
{
    struct deed_error err;
    SERVE("HTTP/1.1 404 Not Found\r\nContent-Type: application/problem+json\r\n"
          "Content-Length: 63\r\n\r\n"
          "{\"type\":\"urn:deedbook:problem:not_found\",\"title\":\"no stream x\"}");
    expect_status(DEED_NOT_FOUND, show(&err));
    expect_message(err, "no stream x");
    assert_string_equal(seen, "");
    (void)server_end();
}

TEST_MAIN(client)
