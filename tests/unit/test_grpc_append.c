/* test_grpc_append.c - Append: each row of the table of versions and ids, each error, byte by byte. */
#include "grpc_write_fixture.h"

#include <errno.h>

/* ---- versions ------------------------------------------------------------------------------- */

TEST(grpc_append, a_missing_stream_is_written_by_any_and_none_only)
{
    start_writing();
    append("s", EXISTS, 0, "a1");
    expect_wrong_version(EXISTS, 0, NOWHERE);
    append("s", EXACT, 0, "a1");
    expect_wrong_version(EXACT, 0, NOWHERE);
    append("s", EXACT, INT64_MAX, "a1");
    expect_wrong_version(EXACT, INT64_MAX, NOWHERE);
    append("s", NONE, 0, "a1 b2");
    expect_success(1);
    append("t", ANY, 0, "c3");
    expect_success(0);
    append("u", EXACT, UINT64_MAX, "d4"); /* -1: no stream */
    expect_success(0);
    expect_stream("s", "a b");
    stop_writing();
}

TEST(grpc_append, an_existing_stream_is_written_by_any_exists_and_its_revision)
{
    start_writing();
    append("s", NONE, 0, "a1 b2");
    append("s", NONE, 0, "c3");
    expect_wrong_version(NONE, 0, 1);
    append("s", EXACT, 0, "c3");
    expect_wrong_version(EXACT, 0, 1);
    append("s", EXACT, 2, "c3");
    expect_wrong_version(EXACT, 2, 1);
    append("s", EXACT, 1, "c3");
    expect_success(2);
    append("s", EXISTS, 0, "d4");
    expect_success(3);
    append("s", ANY, 0, "e5");
    expect_success(4);
    expect_stream("s", "a b c d e");
    stop_writing();
}

TEST(grpc_append, the_position_is_that_of_the_last_event)
{
    start_writing();
    uint64_t before = store_position(store);
    append("s", NONE, 0, "a1 b2 c3");
    assert_int_equal(stored()->position->commit_position, before + 3);
    assert_int_equal(store_position(store), before + 3);
    stop_writing();
}

TEST(grpc_append, a_deleted_stream_is_recreated_by_any_none_and_its_revision)
{
    static const struct {
        enum mode mode;
        uint64_t revision;
    } modes[] = {{ANY, 0}, {NONE, 0}, {EXACT, 1}};
    for (size_t i = 0; i < 3; i++) {
        start_writing();
        append("s", NONE, 0, "a1 b2");
        soft_delete("s");
        append("s", EXISTS, 0, "c3");
        expect_deleted("s");
        append("s", EXACT, 0, "c3");
        expect_wrong_version(EXACT, 0, 1);
        append("s", modes[i].mode, modes[i].revision, "c3 d4");
        expect_success(3);
        expect_stream("s", "c d");
        stop_writing();
    }
}

TEST(grpc_append, a_closed_stream_takes_nothing)
{
    static const enum mode modes[] = {ANY, NONE, EXISTS, EXACT};
    start_writing();
    append("s", NONE, 0, "a1");
    tombstone("s");
    for (size_t i = 0; i < 4; i++) {
        append("s", modes[i], 0, "b2");
        expect_deleted("s");
        append("s", modes[i], 0, "");
        expect_deleted("s");
    }
    append("$$s", ANY, 0, "c3");
    expect_deleted("$$s");
    stop_writing();
}

TEST(grpc_append, a_stream_with_metadata_only_exists)
{
    start_writing();
    begin_append("$$s", ANY, 0);
    propose(id_of(1), "$metadata", (deed_bytes){0}, deed_bytes_of(DEED_STR("{}")));
    talk_half_close(t);
    expect_success(0);
    append("s", EXISTS, 0, "a2");
    expect_success(0);
    stop_writing();
}

/* ---- ids ------------------------------------------------------------------------------------ */

TEST(grpc_append, a_retry_in_any_mode_gets_the_first_answer)
{
    static const struct {
        enum mode mode;
        uint64_t revision;
    } modes[] = {{ANY, 0}, {NONE, 0}, {EXISTS, 0}, {EXACT, 0}, {EXACT, 1}, {EXACT, 2}, {EXACT, 9}};
    start_writing();
    append("s", NONE, 0, "a1 b2");
    uint64_t position = stored()->position->commit_position;
    append("s", ANY, 0, "c3");
    for (size_t i = 0; i < sizeof modes / sizeof modes[0]; i++) {
        append("s", modes[i].mode, modes[i].revision, "a1 b2");
        AppendResp *r = append_reply();
        assert_int_equal(r->result_case, 1);
        assert_int_equal(r->success->current_revision, 1);
        assert_int_equal(r->success->position->commit_position, position);
    }
    expect_stream("s", "a b c");
    stop_writing();
}

TEST(grpc_append, a_part_of_known_events_and_a_part_of_others_is_a_wrong_version)
{
    start_writing();
    append("s", NONE, 0, "a1 b2");
    append("s", ANY, 0, "b2 c3");
    expect_wrong_version(ANY, 0, 1);
    append("s", EXACT, 0, "b2 c3");
    expect_wrong_version(EXACT, 0, 1);
    append("s", EXACT, 1, "c3 a1");
    expect_wrong_version(EXACT, 1, 1);
    append("s", NONE, 0, "z1");
    expect_wrong_version(NONE, 0, 1);
    append("s", EXISTS, 0, "z1");
    expect_wrong_version(EXISTS, 0, 1);
    expect_stream("s", "a b");
    stop_writing();
}

TEST(grpc_append, ids_are_scoped_to_their_stream)
{
    start_writing();
    append("s", NONE, 0, "a1");
    append("t", NONE, 0, "b1");
    expect_success(0);
    expect_stream("t", "b");
    stop_writing();
}

TEST(grpc_append, a_retry_after_a_crash_gets_the_first_answer)
{
    start_writing();
    append("s", NONE, 0, "a1 b2");
    expect_success(1);
    hang_up();
    close_rpc();
    crash();
    open_store();
    open_rpc();
    append("s", NONE, 0, "a1 b2");
    expect_success(1);
    expect_stream("s", "a b");
    stop_writing();
}

TEST(grpc_append, an_id_twice_in_one_append_is_stored_twice)
{
    start_writing();
    append("s", NONE, 0, "a1 b1");
    expect_success(1);
    append("s", NONE, 0, "a1 b1");
    expect_wrong_version(NONE, 0, 1);
    expect_stream("s", "a b");
    stop_writing();
}

/* ---- no events ------------------------------------------------------------------------------ */

TEST(grpc_append, nothing_is_a_check_of_the_version)
{
    start_writing();
    append("s", ANY, 0, "");
    EventStore__Client__Streams__AppendResp__Success *r = stored();
    assert_int_equal(r->current_revision_option_case, 2);
    assert_int_equal(r->position_option_case, 4);
    append("s", NONE, 0, "");
    assert_int_equal(stored()->current_revision_option_case, 2);
    append("s", EXISTS, 0, "");
    expect_wrong_version(EXISTS, 0, NOWHERE);
    append("s", ANY, 0, "a1 b2");
    append("s", EXACT, 1, "");
    assert_int_equal(stored()->current_revision, 1);
    append("s", EXACT, 0, "");
    expect_wrong_version(EXACT, 0, 1);
    append("s", NONE, 0, "");
    expect_wrong_version(NONE, 0, 1);
    expect_stream("s", "a b");
    stop_writing();
}

/* ---- bytes ---------------------------------------------------------------------------------- */

TEST(grpc_append, bytes_are_kept_whatever_they_are)
{
    static const uint8_t odd[] = {0, 0xff, '{', 0x80, 0};
    start_writing();
    begin_append("s", ANY, 0);
    propose(id_of(1), "T", (deed_bytes){odd, sizeof odd}, (deed_bytes){odd, sizeof odd});
    propose(id_of(2), "T", deed_bytes_of(DEED_STR("{\"$correlationId\":\"c\"}")), (deed_bytes){0});
    talk_half_close(t);
    expect_success(1);

    struct deed_read_options how = {.stream = DEED_STR("s")};
    struct deed_cursor *cursor;
    struct deed_event e;
    expect_ok(store_read(store, &how, &cursor, &err));
    expect_ok(cursor_next(cursor, &e, &err));
    assert_int_equal(e.data.len, sizeof odd);
    assert_memory_equal(e.data.ptr, odd, sizeof odd);
    assert_memory_equal(e.metadata.ptr, odd, sizeof odd);
    expect_str(e.content_type, GRPC_UNCHECKED_JSON);
    expect_ok(cursor_next(cursor, &e, &err));
    expect_str(e.correlation_id, "c");
    cursor_close(cursor);
    stop_writing();
}

TEST(grpc_append, stream_metadata_is_heeded)
{
    start_writing();
    append("s", ANY, 0, "a1 b2 c3");
    begin_append("$$s", NONE, 0);
    propose(id_of(9), "$metadata", (deed_bytes){0},
            deed_bytes_of(DEED_STR("{ \"$maxCount\" : 2, \"$acl\":{\"$r\":\"x\"},\"own\":1}")));
    talk_half_close(t);
    expect_success(0);
    expect_stream("s", "b c");
    struct buf json;
    uint64_t revision;
    buf_init(&json, 1000);
    expect_ok(store_get_metadata(store, DEED_STR("s"), &json, &revision, &err));
    expect_str(buf_str(&json), "{ \"$maxCount\" : 2, \"$acl\":{\"$r\":\"x\"},\"own\":1}");
    buf_done(&json);
    stop_writing();
}

TEST(grpc_append, a_thousand_events_are_one_commit)
{
    start_writing();
    uint64_t before = store_position(store);
    begin_append("s", NONE, 0);
    for (unsigned i = 1; i <= 1000; i++) propose(id_of(i), "T", (deed_bytes){0}, word_data("x"));
    assert_int_equal(store_position(store), before);
    talk_half_close(t);
    expect_success(999);
    assert_int_equal(store_position(store), before + 1000);
    stop_writing();
}

/* ---- errors --------------------------------------------------------------------------------- */

static void expect_invalid(const char *part)
{
    assert_null(talk_reply_bytes(t).ptr);
    expect_ended(t, GRPC_INVALID_ARGUMENT, part);
    assert_null(trailer_of(t, "exception").ptr);
}

TEST(grpc_append, options_must_be_there_and_whole)
{
    start_writing();
    append("s", UNSET, 0, "a1");
    expect_invalid("ExpectedStreamRevision");
    append(NULL, ANY, 0, "a1");
    expect_invalid("StreamIdentifier");
    append("", ANY, 0, "a1");
    expect_invalid("StreamIdentifier");
    append("$$", ANY, 0, "a1");
    expect_invalid("name of the stream");
    append("$log", ANY, 0, "a1");
    expect_invalid("the log's own");
    append("$all", ANY, 0, "a1");
    expect_invalid("the log itself");
    append("$$$all", ANY, 0, "a1"); /* clients keep its access list there */
    expect_success(0);
    append("a\nb", ANY, 0, "a1");
    expect_invalid("control character");
    append("a\xff", ANY, 0, "a1");
    expect_invalid("UTF-8");

    hang_up();
    t = talk(STREAMS, "Append");
    propose(id_of(1), "T", (deed_bytes){0}, (deed_bytes){0});
    expect_invalid("first message");
    hang_up();
    t = talk(STREAMS, "Append");
    talk_half_close(t);
    expect_invalid("first message");
    hang_up();
    t = talk(STREAMS, "Append");
    talk_send_bytes(t, deed_bytes_of(DEED_STR("\x0a\x70zzz")));
    expect_ended(t, GRPC_INVALID_ARGUMENT, "");
    stop_writing();
}

TEST(grpc_append, options_come_once)
{
    struct buf b;
    start_writing();
    begin_append("s", ANY, 0);
    buf_init(&b, 1000);
    put_options(&b, 1, "s", ANY, 0);
    send_buf(&b);
    expect_ended(t, GRPC_UNKNOWN, "Exception was thrown by handler");
    stop_writing();
}

TEST(grpc_append, an_event_needs_its_properties)
{
    struct buf b;
    start_writing();
    begin_append("s", ANY, 0);
    buf_init(&b, 1000);
    size_t begin = pb_begin(&b, 2);
    grpc_put_uuid(&b, 1, id_of(1), false);
    put_entry(&b, 2, "type", "T");
    pb_end(&b, begin);
    send_buf(&b);
    expect_ended(t, GRPC_INVALID_ARGUMENT, "Required");
    expect_trailer(t, "exception", "missing-required-metadata-property");
    expect_trailer(t, "required-metadata-properties", "type,content-type");
    begin_append("s", ANY, 0);
    propose((deed_uuid){{0}}, "T", (deed_bytes){0}, (deed_bytes){0});
    expect_invalid("no id");
    stop_writing();
}

TEST(grpc_append, what_has_failed_stores_nothing_whatever_follows)
{
    start_writing();
    uint64_t before = store_position(store);
    begin_append("s", ANY, 0);
    propose(id_of(1), "T", (deed_bytes){0}, word_data("x"));
    propose((deed_uuid){{0}}, "T", (deed_bytes){0}, (deed_bytes){0});
    t->rpc.method->message(&t->rpc, (deed_bytes){0}); /* a server that does not look */
    t->rpc.method->half_closed(&t->rpc);
    talk_run(t);
    assert_int_equal(store_position(store), before);
    stop_writing();
}

TEST(grpc_append, an_event_over_the_limit_is_named)
{
    start_writing_limited((struct deed_limits){.event_size_max = 1000, .commit_size_max = 3000});
    static uint8_t data[2000];
    begin_append("s", ANY, 0);
    propose(id_of(1), "Type", (deed_bytes){data, 400}, (deed_bytes){data, 600});
    expect_ended(t, GRPC_INVALID_ARGUMENT, "Maximum Append Event Size");
    expect_trailer(t, "exception", "maximum-append-event-size-exceeded");
    expect_trailer(t, "event-id", "01000000-0000-0000-0000-000000000001");
    expect_trailer(t, "proposed-append-event-size", "1008");
    expect_trailer(t, "maximum-append-event-size", "1000");
    stop_writing();
}

TEST(grpc_append, an_append_over_the_limit_is_refused_before_it_is_held)
{
    start_writing_limited((struct deed_limits){.event_size_max = 1000, .commit_size_max = 3000});
    static uint8_t data[2000];
    begin_append("s", ANY, 0);
    for (unsigned i = 1; i <= 3; i++) propose(id_of(i), "T", (deed_bytes){0}, (deed_bytes){data, 900});
    expect_ended(t, GRPC_INVALID_ARGUMENT, "Maximum Append Size");
    expect_trailer(t, "exception", "maximum-append-size-exceeded");
    expect_trailer(t, "maximum-append-size", "3000");
    stop_writing();
}

TEST(grpc_append, an_event_just_below_the_limits_is_stored)
{
    start_writing();
    static uint8_t data[(16 << 20) - 10000];
    const size_t size = sizeof data - 2; /* twice the type */
    begin_append("s", ANY, 0);
    propose(id_of(1), "T", (deed_bytes){0}, (deed_bytes){data, size});
    talk_half_close(t);
    expect_success(0);
    begin_append("s", ANY, 0);
    propose(id_of(2), "T", (deed_bytes){0}, (deed_bytes){data, size + 1});
    expect_trailer(t, "maximum-append-event-size", "16767216");
    stop_writing();
}

TEST(grpc_append, too_many_events_are_refused)
{
    start_writing_limited((struct deed_limits){.commit_count_max = 3});
    append("s", ANY, 0, "a1 b2 c3 d4");
    expect_invalid("4 events, limit 3");
    append("s", ANY, 0, "a1 b2 c3");
    expect_success(2);
    stop_writing();
}

static void ignore(void *context, const struct deed_appended *given, const struct deed_error *why)
{
    (void)context, (void)given, (void)why;
}

TEST(grpc_append, a_full_queue_is_unavailable)
{
    start_writing_limited((struct deed_limits){.queue_count_max = 1});
    struct deed_new_event e = said("x", "y");
    struct deed_append waiting = {.events = &e, .event_count = 1};
    begin_append("s", ANY, 0);
    propose(id_of(1), "T", (deed_bytes){0}, word_data("x"));
    expect_ok(store_submit(store, &waiting, ignore, NULL, &err));
    talk_half_close(t);
    expect_ended(t, GRPC_UNAVAILABLE, "Server Is Too Busy");
    stop_writing();
}

TEST(grpc_append, a_log_that_has_stopped_is_not_ready)
{
    start_writing();
    begin_append("s", ANY, 0);
    propose(id_of(1), "T", (deed_bytes){0}, word_data("a"));
    os_sim_fail(sim, OS_SIM_SYNC, 1, 0, EIO);
    talk_half_close(t);
    expect_ended(t, GRPC_UNKNOWN, "");
    append("s", ANY, 0, "a1");
    expect_ended(t, GRPC_UNAVAILABLE, "Server Is Not Ready");
    os_sim_heal(sim);
    stop_writing();
}

TEST(grpc_append, a_client_that_goes_takes_what_it_had_not_finished_with_it)
{
    start_writing();
    uint64_t before = store_position(store);
    begin_append("s", ANY, 0);
    size_t held = atomic_load(&t->rpc.held);
    propose(id_of(1), "T", (deed_bytes){0}, (deed_bytes){0});
    assert_true(atomic_load(&t->rpc.held) > held); /* what lies there counts */
    hang_up();
    assert_int_equal(store_position(store), before);
    stop_writing();
}

TEST(grpc_append, a_client_that_goes_at_once_leaves_its_append_under_way)
{
    start_writing();
    begin_append("s", ANY, 0);
    propose(id_of(1), "T", (deed_bytes){0}, word_data("x"));
    t->half_closed = true;
    t->rpc.method->half_closed(&t->rpc); /* and nothing has happened yet */
    hang_up();
    expect_stream("s", "x");
    stop_writing();
}

TEST(grpc_append, with_threads_many_calls_are_answered)
{
    start_here();
    open_rpc();
    struct talk *calls[64];
    for (unsigned i = 0; i < 64; i++) {
        t = NULL;
        char stream[16];
        (void)snprintf(stream, sizeof stream, "s-%u", i % 8);
        begin_append(stream, ANY, 0);
        propose(id_of(i + 1), "T", (deed_bytes){0}, word_data("x"));
        t->half_closed = true;
        t->rpc.method->half_closed(&t->rpc);
        calls[i] = t;
    }
    for (unsigned i = 0; i < 64; i++) {
        t = calls[i];
        talk_wait(t);
        assert_int_equal(append_reply()->result_case, 1);
        hang_up();
    }
    stop_writing();
}

TEST_MAIN(grpc_append)
