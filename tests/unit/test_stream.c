/* test_stream.c - gRPC calls through a server's sockets, with methods of the test's own. */
#include "test.h"

#include "http2_client.h"

#include "api/rpc.h"
#include "os/thread.h"
#include "server/server.h"

/* ---- methods ----------------------------------------------------------------------------------- */

static _Atomic size_t begun, closed, given, released;
static _Atomic(struct rpc *) stalled; /* the call that waits for the test */
static _Atomic bool let_go;
static _Atomic size_t made;     /* messages of "Flood" */
static _Atomic size_t on_pool;  /* pulls that ran there */
static _Atomic size_t looks;    /* pulls of "Follow" */

static void on_begin(struct rpc *rpc)
{
    (void)rpc;
    atomic_fetch_add(&begun, 1);
}

static void on_close(struct rpc *rpc)
{
    (void)rpc;
    atomic_fetch_add(&closed, 1);
}

static void reply(struct rpc *rpc, deed_bytes message)
{
    struct buf *out = rpc_reply_begin(rpc);
    size_t at = grpc_frame_begin(out);
    buf_add(out, message.ptr, message.len);
    grpc_frame_end(out, at);
    rpc_reply_end(rpc);
}

static void on_echo(struct rpc *rpc, deed_bytes message)
{
    atomic_fetch_add(&given, 1);
    reply(rpc, message);
}

static void on_unary(struct rpc *rpc, deed_bytes message)
{
    reply(rpc, message);
    rpc_end(rpc);
}

static void ignore(struct rpc *rpc, deed_bytes message)
{
    (void)rpc;
    (void)message;
}

/* Messages are kept until the last has come. */
static void on_keep(struct rpc *rpc, deed_bytes message)
{
    (void)atomic_fetch_add(&rpc->held, message.len);
}

/* Messages of a kilobyte without end. */
static enum rpc_pull pull_flood(struct rpc *rpc, struct buf *out, size_t wanted, bool haste)
{
    static const uint8_t kilobyte[1024];
    (void)rpc;
    (void)haste;
    for (size_t end = out->len + wanted; out->len < end;) {
        size_t at = grpc_frame_begin(out);
        buf_add(out, kilobyte, sizeof kilobyte);
        grpc_frame_end(out, at);
        atomic_fetch_add(&made, 1);
    }
    return RPC_MORE;
}

/* Ten slices, each on a pool's thread. */
static enum rpc_pull pull_pool(struct rpc *rpc, struct buf *out, size_t wanted, bool haste)
{
    size_t *slices = (size_t *)&rpc->state;
    (void)wanted;
    if (haste) return RPC_LATER;
    atomic_fetch_add(&on_pool, 1);
    size_t at = grpc_frame_begin(out);
    buf_add_zeros(out, 10000);
    grpc_frame_end(out, at);
    return ++*slices == 10 ? RPC_END : RPC_MORE;
}

static enum rpc_pull pull_wait(struct rpc *rpc, struct buf *out, size_t wanted, bool haste)
{
    (void)rpc;
    (void)out;
    (void)wanted;
    (void)haste;
    atomic_fetch_add(&looks, 1);
    return RPC_WAIT;
}

static enum rpc_pull pull_often(struct rpc *rpc, struct buf *out, size_t wanted, bool haste)
{
    rpc->wait_ms = 50;
    return pull_wait(rpc, out, wanted, haste);
}

/* The answer comes from another thread, under a hold. */
static void on_hold(struct rpc *rpc, deed_bytes message)
{
    (void)message;
    rpc_hold(rpc);
    atomic_store(&stalled, rpc);
}

/* A stream of them: it is answered, and goes on. */
static void hold_reply(void)
{
    struct rpc *rpc = atomic_exchange(&stalled, NULL);
    reply(rpc, (deed_bytes){(const uint8_t *)"late", 4});
    usleep(20000);
    rpc_release(rpc);
}

static void hold_answer(void)
{
    struct rpc *rpc = atomic_exchange(&stalled, NULL);
    reply(rpc, (deed_bytes){(const uint8_t *)"late", 4});
    rpc_end(rpc);
    atomic_fetch_add(&released, 1);
    rpc_release(rpc);
}

static void on_paused(struct rpc *rpc, deed_bytes message)
{
    (void)message;
    atomic_fetch_add(&given, 1);
    if (atomic_load(&let_go)) return;
    atomic_store(&rpc->paused, true);
    atomic_store(&stalled, rpc);
}

static void on_fail(struct rpc *rpc, deed_bytes message)
{
    (void)message;
    rpc_trailer(rpc, "stream-name", DEED_STR("caf\xc3\xa9"));
    rpc_fail(rpc, GRPC_FAILED_PRECONDITION, "stream-deleted", "Event stream '%s' is deleted.",
             "caf\xc3\xa9");
}

static void say_alone(struct rpc *rpc)
{
    rpc_trailer(rpc, "alone", rpc->alone ? DEED_STR("yes") : DEED_STR("no"));
    rpc_end(rpc);
}

static void on_verbose(struct rpc *rpc, deed_bytes message)
{
    static char text[12000];
    (void)message;
    memset(text, '\n', sizeof text);
    for (int i = 0; i < RPC_TRAILERS_MAX; i++) {
        rpc_trailer(rpc, "text", (deed_str){text, i == 0 ? sizeof text : 1000});
    }
    rpc_fail(rpc, GRPC_INTERNAL, NULL, "%.*s", 2000, text);
}

#define LARGE ((size_t)17 << 20)
#define USUAL .begin = on_begin, .close = on_close
static const struct rpc_method methods[] = {
    {RPC_METHOD("test.T", "Echo"), USUAL, .client_streams = true, .message_size_max = LARGE,
     .message = on_echo, .half_closed = rpc_end},
    {RPC_METHOD("test.T", "Keep"), USUAL, .client_streams = true, .message = on_keep},
    {RPC_METHOD("test.T", "Small"), USUAL, .message_size_max = 1000, .message = on_unary},
    {RPC_METHOD("test.T", "Fail"), USUAL, .message = on_fail},
    {RPC_METHOD("test.T", "Alone"), USUAL, .message = ignore, .half_closed = say_alone},
    {RPC_METHOD("test.T", "Verbose"), USUAL, .message = on_verbose},
    {RPC_METHOD("test.T", "Flood"), USUAL, .message = ignore, .pull = pull_flood},
    {RPC_METHOD("test.T", "Pool"), USUAL, .message = ignore, .pull = pull_pool},
    {RPC_METHOD("test.T", "Wait"), USUAL, .message = ignore, .pull = pull_wait},
    {RPC_METHOD("test.T", "Follow"), USUAL, .message = ignore, .pull = pull_wait, .follows = true},
    {RPC_METHOD("test.T", "Often"), USUAL, .message = ignore, .pull = pull_often},
    {RPC_METHOD("test.T", "Hold"), USUAL, .message = on_hold},
    {RPC_METHOD("test.T", "Holds"), USUAL, .client_streams = true, .message = on_hold},
    {RPC_METHOD("test.T", "Paused"), USUAL, .client_streams = true, .message = on_paused,
     .half_closed = rpc_end},
};

const struct rpc_method *__wrap_rpc_method_find(deed_str path);
const struct rpc_method *__wrap_rpc_method_find(deed_str path)
{
    for (size_t i = 0; i < sizeof methods / sizeof methods[0]; i++) {
        if (deed_str_equal(path, methods[i].path)) return &methods[i];
    }
    return NULL;
}

/* The program is linked so that calloc comes here first. A call is large, a connection larger. */
static _Atomic size_t memory_max = SIZE_MAX;
void *__real_calloc(size_t count, size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_calloc(size_t count, size_t size)
{
    return count * size > atomic_load(&memory_max) ? NULL : __real_calloc(count, size);
}

/* ---- a server ---------------------------------------------------------------------------------- */

static struct server *server;
static struct server_options options;
static struct actor *runner;
static unsigned port;

static uint64_t run_server(void *context)
{
    expect_ok(server_run(context, NULL, NULL));
    return ACTOR_WAIT;
}

static void begin(void)
{
    static const struct server_address address = {"127.0.0.1", 0};
    atomic_store(&begun, 0);
    atomic_store(&closed, 0);
    atomic_store(&given, 0);
    atomic_store(&made, 0);
    atomic_store(&on_pool, 0);
    atomic_store(&looks, 0);
    atomic_store(&released, 0);
    atomic_store(&let_go, false);
    options.addresses = &address;
    options.address_count = 1;
    options.no_signals = true;
    expect_ok(server_create(&options, &server, NULL));
    assert_int_equal(sscanf(server_url(server, 0), "http://127.0.0.1:%u", &port), 1);
    expect_ok(actor_start("server", run_server, server, &runner, NULL));
    while (!server_ready(server)) usleep(1000);
}

static void end(void)
{
    server_stop(server);
    actor_stop(runner);
    assert_int_equal(atomic_load(&begun), atomic_load(&closed));
    server_destroy(server);
    options = (struct server_options){0};
}

/* A number of /metrics. */
static uint64_t metric(const char *name)
{
    struct buf out;
    buf_init(&out, 1 << 20);
    server_metrics(server, &out);
    buf_add_byte(&out, 0);
    char line[100];
    (void)snprintf(line, sizeof line, "\n%s ", name);
    const char *at = strstr((const char *)out.ptr, line);
    assert_non_null(at);
    uint64_t value = strtoull(at + strlen(line), NULL, 10);
    buf_done(&out);
    return value;
}

static void unary(struct client *c, uint32_t stream, const char *path)
{
    client_call(c, stream, path, NULL, NULL);
    client_message(c, stream, "question", 8);
    client_half_close(c, stream);
}

#define wait_for(condition)                                                       \
    do {                                                                          \
        uint64_t until_ = now_ms() + CLIENT_PATIENCE_MS;                          \
        while (!(condition)) {                                                    \
            if (now_ms() > until_) fail_msg("in vain: %s", #condition);           \
            usleep(1000);                                                         \
        }                                                                         \
    } while (0)

/* ---- the usual --------------------------------------------------------------------------------- */

TEST(stream, messages_go_both_ways_and_trailers_follow)
{
    begin();
    struct client *c = client_open(port);
    client_call(c, 1, "/test.T/Echo", NULL, NULL);
    client_message(c, 1, "one", 3);
    client_until(c, message_count(c, 1) == 1);
    client_message(c, 1, "", 0);
    client_message(c, 1, "three", 5);
    client_until(c, message_count(c, 1) == 3);
    assert_false(answer_of(c, 1)->ended);
    client_half_close(c, 1);
    expect_code(c, 1, GRPC_OK);
    expect_head(c, 1, ":status: 200\ncontent-type: application/grpc\ngrpc-status: 0\n");
    assert_int_equal(answer_of(c, 1)->data.len, 3 * 5 + 8);
    client_close(c);
    end();
}

TEST(stream, a_failure_has_its_trailers_in_the_head)
{
    begin();
    struct client *c = client_open(port);
    unary(c, 1, "/test.T/Fail");
    expect_code(c, 1, GRPC_FAILED_PRECONDITION);
    expect_head(c, 1, "grpc-message: Event stream 'caf%C3%A9' is deleted.\n");
    expect_head(c, 1, "stream-name: caf%C3%A9\n");
    expect_head(c, 1, "exception: stream-deleted\n");
    assert_int_equal(answer_of(c, 1)->data.len, 0);
    client_close(c);
    end();
}

TEST(stream, both_protocols_are_spoken_on_one_port)
{
    begin();
    struct client *one = client_connect(port), *two = client_connect(port);
    struct buf hello;
    buf_init(&hello, 1000);
    put_hello(&hello);
    for (size_t i = 0; i < hello.len; i++) { /* byte by byte */
        client_write(two, hello.ptr + i, 1);
        usleep(500);
    }
    unary(two, 1, "/test.T/Small");
    expect_code(two, 1, GRPC_OK);
    char answer[13] = {0};
    client_write(one, "PRI * HTTP/1.1\r\n\r\n", 18); /* as HTTP/2 begins, and then it is not */
    assert_int_equal(recv(one->fd, answer, 12, MSG_WAITALL), 12);
    assert_memory_equal(answer, "HTTP/1.1 ", 9);
    client_close(one);
    client_close(two);
    buf_done(&hello);
    end();
}

TEST(stream, what_is_no_call_is_told_so)
{
    struct buf fields;
    buf_init(&fields, 1000);
    begin();
    struct client *c = client_open(port);
    unary(c, 1, "/test.T/Nothing");
    expect_code(c, 1, GRPC_UNIMPLEMENTED);
    expect_head(c, 1, ":status: 200\n");

    put_field(&fields, ":method", "GET");
    put_field(&fields, ":scheme", "http");
    put_field(&fields, ":authority", "test");
    put_field(&fields, ":path", "/healthz");
    put_frame(&c->out, FRAME_HEADERS, FLAG_END_STREAM | FLAG_END_HEADERS, 3, fields.ptr, fields.len);
    client_flush(c);
    client_wait_end(c, 3);
    expect_head(c, 3, ":status: 415\n");
    assert_true(answer_of(c, 3)->data.len > 100);

    buf_reset(&fields);
    put_field(&fields, ":method", "POST");
    put_field(&fields, ":scheme", "http");
    put_field(&fields, ":authority", "test");
    put_field(&fields, ":path", "/test.T/Small");
    put_field(&fields, "content-type", "application/grpc-web");
    put_frame(&c->out, FRAME_HEADERS, FLAG_END_HEADERS, 5, fields.ptr, fields.len);
    client_flush(c);
    client_wait_end(c, 5);
    expect_head(c, 5, ":status: 415\n");
    client_close(c);
    end();
    buf_done(&fields);
}

TEST(stream, compressed_messages_are_refused_with_what_is_taken)
{
    begin();
    struct client *c = client_open(port);
    client_call(c, 1, "/test.T/Small", "grpc-encoding", "gzip");
    client_data(c, 1, (const uint8_t *)"\1\0\0\0\1x", 6);
    client_half_close(c, 1);
    expect_code(c, 1, GRPC_UNIMPLEMENTED);
    expect_head(c, 1, "grpc-accept-encoding: identity\n");
    client_call(c, 3, "/test.T/Small", "grpc-encoding", "gzip"); /* announced, and not done */
    client_message(c, 3, "x", 1);
    client_half_close(c, 3);
    expect_code(c, 3, GRPC_OK);
    client_close(c);
    end();
}

TEST(stream, a_call_of_one_message_has_one)
{
    begin();
    struct client *c = client_open(port);
    client_call(c, 1, "/test.T/Small", NULL, NULL);
    client_half_close(c, 1);
    expect_code(c, 1, GRPC_INTERNAL);
    client_call(c, 3, "/test.T/Small", NULL, NULL);
    client_message(c, 3, "one", 3);
    client_message(c, 3, "two", 3);
    client_half_close(c, 3);
    expect_code(c, 3, GRPC_INTERNAL);
    client_call(c, 5, "/test.T/Small", NULL, NULL);
    client_data(c, 5, (const uint8_t *)"\0\0\0\0\7half", 9);
    client_half_close(c, 5);
    expect_code(c, 5, GRPC_INTERNAL);
    expect_head(c, 5, "grpc-message: the request ends within a message\n");
    client_close(c);
    end();
}

TEST(stream, a_message_over_its_method_s_limit_is_refused)
{
    static const char zeros[1001];
    begin();
    struct client *c = client_open(port);
    for (uint32_t i = 0; i < 3; i++) {
        client_call(c, 1 + 2 * i, "/test.T/Small", NULL, NULL);
        client_message(c, 1 + 2 * i, zeros, 999 + i);
        client_half_close(c, 1 + 2 * i);
        expect_code(c, 1 + 2 * i, i < 2 ? GRPC_OK : GRPC_RESOURCE_EXHAUSTED);
    }
    client_close(c);
    end();
}

TEST(stream, sixteen_megabytes_go_both_ways)
{
    begin();
    struct client *c = client_open(port);
    uint8_t *large = malloc((size_t)16 << 20);
    for (size_t i = 0; i < (size_t)16 << 20; i++) large[i] = (uint8_t)(i * 7 + (i >> 13));
    client_call(c, 1, "/test.T/Echo", NULL, NULL);
    client_message(c, 1, large, (size_t)16 << 20);
    client_half_close(c, 1);
    expect_code(c, 1, GRPC_OK);
    assert_int_equal(answer_of(c, 1)->data.len, ((size_t)16 << 20) + 5);
    assert_memory_equal(answer_of(c, 1)->data.ptr + 5, large, (size_t)16 << 20);
    free(large);
    client_close(c);
    end();
}

/* ---- threads ----------------------------------------------------------------------------------- */

TEST(stream, what_takes_long_is_made_by_the_pool)
{
    begin();
    struct client *c = client_open(port);
    unary(c, 1, "/test.T/Pool");
    expect_code(c, 1, GRPC_OK);
    assert_int_equal(message_count(c, 1), 10);
    assert_int_equal(atomic_load(&on_pool), 10);
    client_close(c);
    end();
}

TEST(stream, an_answer_comes_from_any_thread)
{
    begin();
    struct client *c = client_open(port);
    for (uint32_t i = 0; i < 20; i++) {
        unary(c, 1 + 2 * i, "/test.T/Hold");
        wait_for(atomic_load(&stalled) != NULL);
        hold_answer();
        expect_code(c, 1 + 2 * i, GRPC_OK);
        assert_int_equal(message_count(c, 1 + 2 * i), 1);
    }
    client_close(c);
    end();
}

static uint32_t next_question;

static bool told_alone(struct client *c)
{
    uint32_t stream = next_question;
    next_question += 2;
    unary(c, stream, "/test.T/Alone");
    expect_code(c, stream, GRPC_OK);
    return strstr(answer_of(c, stream)->head, "alone: yes\n") != NULL;
}

static void expect_alone(struct client *c)
{
    usleep(30000);
    assert_true(told_alone(c));
}

/* Right after another asked. A slow machine may let the time pass that makes c alone: so, once more. */
static void expect_crowded(struct client *c, struct client *other)
{
    bool alone = true;
    for (unsigned i = 0; alone && i < 20; i++) {
        (void)told_alone(other);
        alone = told_alone(c);
    }
    assert_false(alone);
}

TEST(stream, who_asks_alone_is_told_so_and_nobody_else)
{
    begin();
    struct client *c = client_open(port), *other = client_open(port);
    next_question = 1;
    (void)told_alone(c);
    expect_alone(c);
    expect_crowded(other, c);
    expect_crowded(c, other);
    expect_alone(c);
    uint32_t waiting = next_question;
    next_question += 2;
    unary(c, waiting, "/test.T/Wait");
    assert_false(told_alone(c));
    client_cancel(c, waiting);
    (void)told_alone(c);
    expect_alone(c);
    client_close(c);
    client_close(other);
    end();
}

TEST(stream, a_call_that_is_held_stays_when_its_client_has_gone)
{
    begin();
    struct client *c = client_open(port);
    unary(c, 1, "/test.T/Hold");
    wait_for(atomic_load(&stalled) != NULL);
    assert_false(rpc_cancelled(atomic_load(&stalled)));
    client_cancel(c, 1);
    wait_for(rpc_cancelled(atomic_load(&stalled)));
    assert_int_equal(atomic_load(&closed), 0);
    hold_answer();
    wait_for(atomic_load(&closed) == 1);

    unary(c, 3, "/test.T/Hold");
    wait_for(atomic_load(&stalled) != NULL);
    client_close(c);
    wait_for(rpc_cancelled(atomic_load(&stalled)));
    assert_int_equal(atomic_load(&closed), 1);
    hold_answer();
    wait_for(atomic_load(&closed) == 2);
    end();
}

TEST(stream, a_deadline_that_passes_ends_the_call)
{
    begin();
    struct client *c = client_open(port);
    client_call(c, 1, "/test.T/Wait", "grpc-timeout", "200m");
    client_message(c, 1, "", 0);
    client_half_close(c, 1);
    client_call(c, 3, "/test.T/Wait", "grpc-timeout", "99999999H");
    client_message(c, 3, "", 0);
    client_half_close(c, 3);
    uint64_t from = now_ms();
    expect_code(c, 1, GRPC_DEADLINE_EXCEEDED);
    assert_true(now_ms() - from >= 150 && now_ms() - from < 10000);
    assert_false(answer_of(c, 3)->ended);
    client_close(c);
    end();
}

TEST(stream, who_waits_is_asked_when_the_log_grows_or_its_time_comes)
{
    begin();
    struct client *c = client_open(port);
    unary(c, 1, "/test.T/Follow");
    wait_for(atomic_load(&looks) >= 1);
    usleep(50000);
    size_t before = atomic_load(&looks);
    server_log_grew(server);
    wait_for(atomic_load(&looks) > before);
    client_cancel(c, 1);
    wait_for(atomic_load(&closed) == 1);

    unary(c, 3, "/test.T/Often");
    before = atomic_load(&looks);
    wait_for(atomic_load(&looks) >= before + 4);
    client_close(c);
    end();
}

/* ---- flow control ------------------------------------------------------------------------------ */

TEST(stream, a_reader_that_stalls_stalls_only_itself)
{
    begin();
    struct client *c = client_open(port);
    c->stingy = true;
    put_window(&c->out, 0, 100 << 20); /* the connection's is wide, the stream's is not */
    unary(c, 1, "/test.T/Flood");
    client_until(c, answer_of(c, 1)->data.len == 65535);
    wait_for(atomic_load(&made) >= 100);
    usleep(100000);
    assert_true(atomic_load(&made) <= 1024); /* kilobytes */
    for (uint32_t i = 1; i < 20; i++) {
        unary(c, 1 + 2 * i, "/test.T/Small");
        expect_code(c, 1 + 2 * i, GRPC_OK);
    }
    assert_int_equal(answer_of(c, 1)->data.len, 65535);
    assert_true(metric("deedbook_http_in_flight_bytes") <= (uint64_t)2 << 20);
    put_window(&c->out, 1, 10 << 20);
    client_flush(c);
    client_until(c, answer_of(c, 1)->data.len == 65535 + (10 << 20));
    client_close(c);
    end();
}

TEST(stream, a_connection_that_is_not_read_holds_little)
{
    begin();
    struct client *c = client_open(port);
    put_window(&c->out, 0, 1 << 30);
    for (uint32_t i = 0; i < 8; i++) {
        unary(c, 1 + 2 * i, "/test.T/Flood");
        put_window(&c->out, 1 + 2 * i, 1 << 30);
    }
    client_flush(c);
    size_t before;
    do { /* until nothing is made any more: the sockets are full */
        before = atomic_load(&made);
        usleep(200000);
    } while (atomic_load(&made) != before);
    assert_true(metric("deedbook_http_in_flight_bytes") <= 8 * (uint64_t)600 << 10);
    client_close(c);
    end();
}

TEST(stream, a_method_that_pauses_is_given_no_more)
{
    static const char kilobyte[1024];
    begin();
    struct client *c = client_open(port);
    client_until(c, c->window > 65535); /* its settings are there */
    client_call(c, 1, "/test.T/Paused", NULL, NULL);
    while (answer_of(c, 1)->window > 2000) client_message(c, 1, kilobyte, sizeof kilobyte);
    wait_for(atomic_load(&stalled) != NULL);
    unary(c, 3, "/test.T/Small"); /* others go on */
    expect_code(c, 3, GRPC_OK);
    while (client_read(c, 50)) continue;
    assert_int_equal(atomic_load(&given), 1);
    assert_true(answer_of(c, 1)->window <= 2000 + 2048);
    client_half_close(c, 1);

    struct rpc *rpc = atomic_exchange(&stalled, NULL);
    atomic_store(&let_go, true);
    atomic_store(&rpc->paused, false);
    rpc_wake(rpc);
    expect_code(c, 1, GRPC_OK);
    assert_true(atomic_load(&given) > 1000);
    client_close(c);
    end();
}

/* ---- limits ------------------------------------------------------------------------------------ */

TEST(stream, bytes_in_flight_have_a_limit)
{
    options.in_flight_size_max = (uint64_t)2 << 20;
    begin();
    struct client *c = client_open(port);
    uint8_t *large = calloc(1, (size_t)8 << 20);
    client_call(c, 1, "/test.T/Echo", NULL, NULL);
    client_message(c, 1, large, (size_t)8 << 20);
    expect_code(c, 1, GRPC_UNAVAILABLE);
    expect_head(c, 1, "grpc-message: Server Is Too Busy\n");
    unary(c, 3, "/test.T/Small"); /* what it held is given back */
    expect_code(c, 3, GRPC_OK);
    assert_true(metric("deedbook_http_overloads_total") >= 1);
    free(large);
    client_close(c);
    end();
}

TEST(stream, readers_who_hold_much_are_reset_before_they_cost_others)
{
    options.in_flight_size_max = (uint64_t)4 << 20;
    begin();
    struct client *c = client_open(port), *idle = client_open(port), *first = client_open(port);
    for (uint32_t i = 0; i < 60; i++) unary(first, 1 + 2 * i, "/test.T/Small"); /* their memory is kept */
    for (uint32_t i = 0; i < 60; i++) expect_code(first, 1 + 2 * i, GRPC_OK);
    usleep(2500000); /* longer than who moves nothing is borne with */
    c->stingy = true;
    uint64_t from = now_ms();
    for (uint32_t i = 0; i < 60; i++) unary(c, 1 + 2 * i, "/test.T/Flood");
    unary(idle, 1, "/test.T/Wait"); /* holds nothing */
    wait_for(metric("deedbook_http_in_flight_bytes") >= (uint64_t)3 << 20);
    size_t reset = 0;
    for (uint64_t until = now_ms() + CLIENT_PATIENCE_MS; reset == 0 && now_ms() < until;) {
        (void)client_read(c, 10);
        for (uint32_t i = 0; i < 60; i++) reset += answer_of(c, 1 + 2 * i)->reset;
    }
    assert_true(reset > 0);
    assert_true(now_ms() - from >= 1900);
    wait_for(metric("deedbook_http_in_flight_bytes") < (uint64_t)3 << 20);
    unary(idle, 3, "/test.T/Small");
    expect_code(idle, 3, GRPC_OK);
    assert_false(answer_of(idle, 1)->ended || answer_of(idle, 1)->reset);
    client_close(c);
    client_close(idle);
    client_close(first);
    end();
}

TEST(stream, senders_who_stop_within_a_message_are_reset_before_they_cost_others)
{
    options.in_flight_size_max = (uint64_t)1 << 20;
    begin();
    struct client *c = client_open(port);
    uint8_t *part = calloc(1, 900 << 10);
    part[2] = 0xff; /* of a message of sixteen megabytes */
    client_call(c, 1, "/test.T/Echo", NULL, NULL);
    client_data(c, 1, part, 900 << 10);
    client_wait_end(c, 1);
    assert_true(answer_of(c, 1)->reset);
    assert_int_equal(answer_of(c, 1)->error, HTTP2_ENHANCE_YOUR_CALM);
    free(part);
    client_close(c);
    end();
}

TEST(stream, senders_who_stop_between_messages_are_reset_before_they_cost_others)
{
    options.in_flight_size_max = (uint64_t)1 << 20;
    begin();
    struct client *c = client_open(port);
    uint8_t *message = calloc(1, 100 << 10);
    message[2] = 1; /* of 64 KiB */
    client_call(c, 1, "/test.T/Keep", NULL, NULL);
    for (unsigned i = 0; i < 13; i++) client_data(c, 1, message, 5 + (64 << 10));
    client_wait_end(c, 1);
    assert_true(answer_of(c, 1)->reset);
    assert_int_equal(answer_of(c, 1)->error, HTTP2_ENHANCE_YOUR_CALM);
    wait_for(metric("deedbook_http_in_flight_bytes") == 0);
    free(message);
    client_close(c);
    end();
}

TEST(stream, idle_connections_end_when_others_need_their_place)
{
    options.connection_count_max = 8;
    options.idle_timeout_ms = 300;
    begin();
    struct client *clients[6];
    for (size_t i = 0; i < 5; i++) clients[i] = client_open(port);
    unary(clients[0], 1, "/test.T/Wait");
    usleep(600000);
    (void)client_read(clients[1], 0);
    assert_false(clients[1]->goaway); /* there is room: they stay */
    clients[5] = client_open(port);
    client_until(clients[1], clients[1]->goaway);
    assert_int_equal(clients[1]->goaway_error, HTTP2_NO_ERROR);
    (void)client_read(clients[0], 0);
    assert_false(clients[0]->goaway);
    for (size_t i = 0; i < 6; i++) client_close(clients[i]);
    end();
}

TEST(stream, a_connection_has_as_many_calls_as_the_limit)
{
    options.call_count_max = 2;
    begin();
    struct client *c = client_open(port);
    for (uint32_t i = 0; i < 3; i++) put_request(&c->out, 1 + 2 * i, 0, "/test.T/Echo", NULL, NULL);
    client_flush(c);
    client_wait_end(c, 5);
    assert_true(answer_of(c, 5)->reset || c->goaway);
    client_close(c);
    end();
}

TEST(stream, without_memory_for_a_call_it_is_refused)
{
    begin();
    struct client *c = client_open(port);
    client_until(c, c->window > 65535);
    atomic_store(&memory_max, 2000);
    client_call(c, 1, "/test.T/Small", NULL, NULL);
    client_wait_end(c, 1);
    atomic_store(&memory_max, SIZE_MAX);
    assert_true(answer_of(c, 1)->reset);
    assert_int_equal(answer_of(c, 1)->error, HTTP2_REFUSED_STREAM);
    unary(c, 3, "/test.T/Small");
    expect_code(c, 3, GRPC_OK);

    struct client *late = client_connect(port);
    usleep(50000); /* it is accepted, and not known yet to speak HTTP/2 */
    atomic_store(&memory_max, 16);
    put_hello(&late->out);
    client_flush(late);
    uint64_t from = now_ms();
    while (!late->gone && now_ms() - from < 10000) (void)client_read(late, 10);
    atomic_store(&memory_max, SIZE_MAX);
    assert_true(late->gone);
    client_close(late);
    client_close(c);
    end();
}

TEST(stream, a_client_that_does_not_answer_is_given_up)
{
    options.keepalive_interval_ms = 200;
    options.keepalive_timeout_ms = 300;
    begin();
    struct client *good = client_open(port), *dead = client_open(port);
    dead->silent = true;
    uint64_t from = now_ms();
    while (!dead->gone && now_ms() - from < 10000) {
        (void)client_read(dead, 10);
        (void)client_read(good, 10);
    }
    assert_true(dead->gone && dead->pings == 1);
    client_until(good, good->pings >= 3);
    unary(good, 1, "/test.T/Small");
    expect_code(good, 1, GRPC_OK);
    client_close(good);
    client_close(dead);
    end();
}

TEST(stream, a_flood_ends_its_connection_only)
{
    begin();
    struct client *bad = client_open(port), *good = client_open(port);
    for (int i = 0; i < 3000; i++) put_frame(&bad->out, FRAME_PRIORITY, 0, 1, "\0\0\0\0\x10", 5);
    client_flush(bad);
    uint64_t from = now_ms();
    while (!bad->gone && now_ms() - from < 10000) (void)client_read(bad, 10);
    assert_true(bad->gone && bad->goaway);
    assert_int_equal(bad->goaway_error, HTTP2_ENHANCE_YOUR_CALM);
    unary(good, 1, "/test.T/Small");
    expect_code(good, 1, GRPC_OK);
    client_close(good);
    client_close(bad);
    end();
}

/* ---- the end ----------------------------------------------------------------------------------- */

TEST(stream, when_it_stops_what_waits_ends_and_what_works_is_finished)
{
    begin();
    struct client *c = client_open(port);
    unary(c, 1, "/test.T/Follow");
    client_call(c, 3, "/test.T/Echo", NULL, NULL);
    client_message(c, 3, "x", 1);
    client_until(c, message_count(c, 3) == 1);
    unary(c, 5, "/test.T/Hold");
    wait_for(atomic_load(&stalled) != NULL && atomic_load(&looks) > 0);
    server_stop(server);
    client_until(c, c->goaway);
    expect_code(c, 1, GRPC_UNAVAILABLE);
    expect_code(c, 3, GRPC_UNAVAILABLE);
    assert_false(answer_of(c, 5)->ended);
    hold_answer();
    expect_code(c, 5, GRPC_OK);
    uint64_t from = now_ms();
    while (!c->gone && now_ms() - from < 10000) (void)client_read(c, 10);
    assert_true(c->gone);
    client_close(c);
    end();
}

TEST(stream, when_it_stops_a_stream_ends_after_what_is_under_way)
{
    begin();
    struct client *c = client_open(port);
    client_call(c, 1, "/test.T/Holds", NULL, NULL);
    client_message(c, 1, "x", 1);
    wait_for(atomic_load(&stalled) != NULL);
    server_stop(server);
    client_until(c, c->goaway);
    assert_false(answer_of(c, 1)->ended);
    uint64_t from = now_ms();
    hold_reply();
    expect_code(c, 1, GRPC_UNAVAILABLE);
    assert_int_equal(message_count(c, 1), 1);
    assert_true(now_ms() - from < 5000); /* not at the end of the grace */
    client_close(c);
    end();
}

TEST(stream, trailers_of_any_size_are_sent_or_left_out)
{
    begin();
    struct client *c = client_open(port);
    unary(c, 1, "/test.T/Verbose");
    client_wait_end(c, 1);
    expect_code(c, 1, GRPC_INTERNAL);
    client_close(c);
    end();
}

TEST(stream, clients_that_go_leave_nothing_behind)
{
    begin();
    static const char *const paths[] = {"/test.T/Flood", "/test.T/Pool", "/test.T/Wait",
                                        "/test.T/Echo",  "/test.T/Small", "/test.T/Follow"};
    for (unsigned round = 0; round < 30; round++) {
        struct client *c = client_open(port);
        for (uint32_t i = 0; i < 6; i++) {
            client_call(c, 1 + 2 * i, paths[i], NULL, NULL);
            if ((round + i) % 3 > 0) client_message(c, 1 + 2 * i, "message", 7);
            if ((round + i) % 3 > 1) client_half_close(c, 1 + 2 * i);
        }
        for (unsigned k = 0; k < round % 4; k++) (void)client_read(c, 5);
        client_close(c);
    }
    wait_for(metric("deedbook_http_connections") == 0);
    wait_for(metric("deedbook_http_requests_in_flight") == 0);
    assert_int_equal(metric("deedbook_http_in_flight_bytes"), 0);
    end();
}

TEST_MAIN(stream)
