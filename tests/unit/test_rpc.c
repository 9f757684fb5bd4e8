/* test_rpc.c - what a call, its method and other threads share. */
#include "test.h"

#include "api/rpc.h"
#include "proto/server_features.pb-c.h"

static struct rpc rpc;
static _Atomic unsigned pushed;

static void on_push(struct rpc *which)
{
    assert_ptr_equal(which, &rpc);
    atomic_fetch_add(&pushed, 1);
}
static const struct rpc_host host = {on_push};
static const struct rpc_method method = {RPC_METHOD("a.b.C", "D")};

static void begin(void)
{
    atomic_store(&pushed, 0);
    rpc_init(&rpc, NULL, &method, &host);
}

static void end(void)
{
    rpc_done(&rpc);
}

TEST(rpc, a_call_that_is_woken_is_queued_once)
{
    begin();
    assert_false(rpc_queued(&rpc));
    rpc_wake(&rpc);
    rpc_wake(&rpc);
    assert_int_equal(pushed, 1);
    assert_true(rpc_queued(&rpc));
    assert_false(rpc_taken(&rpc));
    assert_true(rpc_woken(&rpc));
    assert_false(rpc_woken(&rpc));
    rpc_push(&rpc);
    assert_int_equal(pushed, 2);
    assert_false(rpc_taken(&rpc));
    assert_false(rpc_woken(&rpc)); /* taken up, but not woken */
    end();
}

TEST(rpc, the_last_hold_queues_the_call)
{
    begin();
    rpc_hold(&rpc);
    rpc_hold(&rpc);
    rpc_release(&rpc); /* the server's: the stream is closed */
    rpc_release(&rpc);
    assert_int_equal(pushed, 0);
    rpc_release(&rpc);
    assert_int_equal(pushed, 1);
    assert_true(rpc_taken(&rpc));
    end();
}

TEST(rpc, the_last_hold_of_a_call_that_is_queued_does_not_queue_it_again)
{
    begin();
    rpc_hold(&rpc);
    rpc_release(&rpc);
    rpc_wake(&rpc);
    rpc_release(&rpc);
    assert_int_equal(pushed, 1);
    assert_true(rpc_taken(&rpc));
    end();
}

TEST(rpc, the_first_ending_counts)
{
    begin();
    assert_false(rpc_ended(&rpc));
    rpc_trailer(&rpc, "stream-name", DEED_STR("caf\xc3\xa9"));
    rpc_trailer(&rpc, "details-bin", DEED_STR("\x01\x02"));
    rpc_fail(&rpc, GRPC_NOT_FOUND, "stream-not-found", "no %s", "such stream");
    rpc_trailer(&rpc, "late", DEED_STR("x"));
    rpc_fail(&rpc, GRPC_INTERNAL, "other", "other");
    rpc_end(&rpc);
    assert_true(rpc_ended(&rpc));
    assert_int_equal(rpc.end.code, GRPC_NOT_FOUND);
    assert_true(deed_str_equal(rpc.end.message, DEED_STR("no such stream")));
    assert_int_equal(rpc.end.trailer_count, 3);
    assert_true(deed_str_equal(rpc.end.trailers[0].value, DEED_STR("caf%C3%A9")));
    assert_true(deed_str_equal(rpc.end.trailers[1].value, DEED_STR("AQI")));
    assert_true(deed_str_equal(rpc.end.trailers[2].name, DEED_STR("exception")));
    assert_int_equal(pushed, 1);
    assert_false(rpc_taken(&rpc));
    end();
}

TEST(rpc, endings_hold_as_many_trailers_as_they_have_room_for)
{
    begin();
    for (int i = 0; i < RPC_TRAILERS_MAX + 2; i++) rpc_trailer(&rpc, "name", DEED_STR("value"));
    rpc_fail_status(&rpc, &(struct deed_error){.status = DEED_BUSY, .message = "a queue is full"});
    assert_int_equal(rpc.end.trailer_count, RPC_TRAILERS_MAX);
    assert_int_equal(rpc.end.code, GRPC_UNAVAILABLE);
    assert_true(deed_str_equal(rpc.end.message, DEED_STR("a queue is full")));
    assert_false(rpc_taken(&rpc));
    end();
}

TEST(rpc, replies_are_taken_in_order)
{
    EventStore__Client__ServerFeatures__SupportedMethods message =
        EVENT_STORE__CLIENT__SERVER_FEATURES__SUPPORTED_METHODS__INIT;
    struct buf out;
    buf_init(&out, 1000);
    begin();
    rpc_take_replies(&rpc, &out);
    assert_int_equal(out.len, 0);
    rpc_reply(&rpc, &message.base);
    rpc_take_replies(&rpc, &out);
    assert_int_equal(out.len, 5);
    buf_add(rpc_reply_begin(&rpc), "by hand", 7);
    rpc_reply_end(&rpc);
    rpc_take_replies(&rpc, &out);
    assert_int_equal(out.len, 12);
    assert_memory_equal(out.ptr + 5, "by hand", 7);
    assert_int_equal(pushed, 1);
    assert_false(rpc_taken(&rpc));
    end();
    buf_done(&out);
}

TEST(rpc, headers_are_found_by_name)
{
    const struct api_header headers[] = {{DEED_STR("a"), DEED_STR("1")}, {DEED_STR("b"), DEED_STR("")}};
    begin();
    rpc.headers = headers;
    rpc.header_count = 2;
    assert_true(deed_str_equal(rpc_header(&rpc, "a"), DEED_STR("1")));
    assert_non_null(rpc_header(&rpc, "b").ptr);
    assert_null(rpc_header(&rpc, "c").ptr);
    end();
}

TEST(rpc, every_method_is_found_by_its_path)
{
    size_t count = rpc_method_count();
    assert_true(count > 0);
    for (size_t i = 0; i < count; i++) {
        const struct rpc_method *m = rpc_method_at(i);
        char path[300];
        (void)snprintf(path, sizeof path, "/%s/%s", m->service, m->name);
        expect_str(m->path, path);
        assert_ptr_equal(rpc_method_find(deed_str_of(path)), m);
        assert_non_null(m->message);
    }
    assert_null(rpc_method_at(count));
    assert_null(rpc_method_find(DEED_STR("/")));
    assert_null(rpc_method_find(DEED_STR("")));
}

/* ---- with threads ------------------------------------------------------------------------------ */

#define ROUNDS 20000

/* A committer: it answers calls under a hold, and the last thing that it does is to give it back. */
static uint64_t committer(void *context)
{
    (void)context;
    static unsigned round;
    if (round++ == ROUNDS) {
        rpc_end(&rpc);
        rpc_release(&rpc);
        return ACTOR_WAIT;
    }
    if (round > ROUNDS) return ACTOR_WAIT;
    buf_add_byte(rpc_reply_begin(&rpc), 'x');
    rpc_reply_end(&rpc);
    return ACTOR_AGAIN;
}

TEST(rpc, nothing_is_lost_between_threads)
{
    struct actor *actor;
    struct buf out;
    unsigned taken = 0;
    buf_init(&out, ROUNDS + 1);
    begin();
    rpc_hold(&rpc); /* the committer's */
    expect_ok(actor_start("committer", committer, NULL, &actor, NULL));
    rpc_release(&rpc);
    for (bool last = false; !last;) {
        while (atomic_load(&pushed) == taken) continue;
        taken++;
        last = rpc_taken(&rpc);
        rpc_take_replies(&rpc, &out);
    }
    assert_int_equal(out.len, ROUNDS);
    assert_true(rpc_ended(&rpc));
    assert_int_equal(pushed, taken);
    actor_stop(actor);
    end();
    buf_done(&out);
}

TEST_MAIN(rpc)
