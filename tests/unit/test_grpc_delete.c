/* test_grpc_delete.c - Delete and Tombstone: each state of a stream with each expectation. */
#include "grpc_write_fixture.h"

static void expect_position(void)
{
    /* DeleteResp and TombstoneResp are the same. */
    EventStore__Client__Streams__DeleteResp *r =
        talk_reply(t, &event_store__client__streams__delete_resp__descriptor);
    expect_ended(t, GRPC_OK, "");
    assert_non_null(r);
    assert_int_equal(r->position->commit_position, store_position(store));
    assert_int_equal(r->position->prepare_position, store_position(store));
}

static void expect_accepted(const char *method, const char *stream, enum mode mode,
                            uint64_t revision)
{
    delete_as(method, stream, mode, revision);
    expect_position();
}

static void expect_refused(const char *method, const char *stream, enum mode mode,
                           uint64_t revision, const char *expected, const char *actual)
{
    char message[256];
    delete_as(method, stream, mode, revision);
    (void)snprintf(message, sizeof message,
                   "Delete failed due to WrongExpectedVersion. Stream: %s, Expected version: %s, "
                   "Actual version: %s",
                   stream, expected, actual);
    assert_null(talk_reply_bytes(t).ptr);
    expect_ended(t, GRPC_FAILED_PRECONDITION, message);
    expect_trailer(t, "exception", "wrong-expected-version");
    expect_trailer(t, "stream-name", stream);
    expect_trailer(t, "expected-version", expected);
    expect_trailer(t, "actual-version", actual);
}

static void expect_gone(const char *method, const char *stream, enum mode mode, uint64_t revision)
{
    delete_as(method, stream, mode, revision);
    expect_deleted(stream);
}

TEST(grpc_delete, an_existing_stream_is_deleted_when_it_is_as_expected)
{
    static const struct {
        enum mode mode;
        uint64_t revision;
    } modes[] = {{ANY, 0}, {EXISTS, 0}, {EXACT, 1}};
    for (size_t i = 0; i < 3; i++) {
        start_writing();
        append("s", NONE, 0, "a1 b2");
        expect_refused("Delete", "s", NONE, 0, "-1", "1");
        expect_refused("Delete", "s", EXACT, 0, "0", "1");
        expect_refused("Delete", "s", EXACT, 7, "7", "1");
        expect_accepted("Delete", "s", modes[i].mode, modes[i].revision);
        expect_status(DEED_NOT_FOUND,
                      store_read(store, &(struct deed_read_options){.stream = DEED_STR("s")},
                                 &(struct deed_cursor *){NULL}, &err));
        append("s", ANY, 0, "c3");
        expect_success(2);
        expect_stream("s", "c");
        stop_writing();
    }
}

TEST(grpc_delete, a_stream_that_never_was_is_not_deleted)
{
    start_writing();
    expect_refused("Delete", "s", ANY, 0, "-2", "-1");
    expect_refused("Delete", "s", NONE, 0, "-1", "-1");
    expect_refused("Delete", "s", EXISTS, 0, "-4", "-1");
    expect_refused("Delete", "s", EXACT, 3, "3", "-1");
    stop_writing();
}

TEST(grpc_delete, a_deleted_stream_is_deleted_again_unless_it_should_exist)
{
    static const char *const methods[] = {"Delete", "Tombstone"};
    for (size_t i = 0; i < 2; i++) {
        start_writing();
        append("s", NONE, 0, "a1 b2");
        soft_delete("s");
        expect_gone(methods[i], "s", EXISTS, 0);
        expect_refused(methods[i], "s", EXACT, 0, "0", "1");
        expect_accepted("Delete", "s", ANY, 0);
        expect_accepted("Delete", "s", NONE, 0);
        expect_accepted("Delete", "s", EXACT, 1);
        expect_accepted(methods[i], "s", EXACT, 1);
        stop_writing();
    }
}

TEST(grpc_delete, a_stream_that_never_was_is_closed)
{
    start_writing();
    expect_refused("Tombstone", "s", EXISTS, 0, "-4", "-1");
    expect_refused("Tombstone", "s", EXACT, 0, "0", "-1");
    expect_accepted("Tombstone", "s", NONE, 0);
    expect_accepted("Tombstone", "t", ANY, 0);
    append("s", ANY, 0, "a1");
    expect_deleted("s");
    stop_writing();
}

TEST(grpc_delete, an_existing_stream_is_closed_for_good)
{
    static const enum mode modes[] = {ANY, NONE, EXISTS, EXACT};
    start_writing();
    append("s", NONE, 0, "a1 b2");
    expect_refused("Tombstone", "s", NONE, 0, "-1", "1");
    expect_refused("Tombstone", "s", EXACT, 0, "0", "1");
    expect_accepted("Tombstone", "s", EXACT, 1);
    for (size_t i = 0; i < 4; i++) {
        expect_gone("Tombstone", "s", modes[i], 1);
        expect_gone("Delete", "s", modes[i], 1);
    }
    stop_writing();
}

TEST(grpc_delete, a_name_in_other_letters_is_encoded_in_its_trailer)
{
    start_writing();
    delete_as("Delete", "sträm%", ANY, 0);
    expect_trailer(t, "stream-name", "str%C3%A4m%25");
    stop_writing();
}

TEST(grpc_delete, what_groups_and_accounts_are_kept_in_stays)
{
    static const char *const ours[] = {"$persistentSubscriptionConfig",
                                       "$persistentsubscription-s::g-checkpoint",
                                       "$persistentsubscription-s::g-parked", "$users", "$user-ops"};
    start_writing();
    for (size_t i = 0; i < sizeof ours / sizeof ours[0]; i++) {
        append(ours[i], NONE, 0, "a1");
        for (unsigned tombstone = 0; tombstone < 2; tombstone++) {
            delete_as(tombstone != 0 ? "Tombstone" : "Delete", ours[i], ANY, 0);
            expect_ended(t, GRPC_PERMISSION_DENIED, "is the server's own");
            expect_trailer(t, "exception", "access-denied");
        }
        expect_stream(ours[i], "a");
    }
    append("$userland", NONE, 0, "a1");
    expect_accepted("Tombstone", "$userland", ANY, 0);
    stop_writing();
}

TEST(grpc_delete, what_is_missing_is_named)
{
    start_writing();
    delete_as("Delete", "s", UNSET, 0);
    expect_ended(t, GRPC_INVALID_ARGUMENT, "ExpectedStreamRevision");
    delete_as("Delete", NULL, ANY, 0);
    expect_ended(t, GRPC_INVALID_ARGUMENT, "StreamIdentifier");
    delete_as("Tombstone", "$$s", ANY, 0);
    expect_ended(t, GRPC_INVALID_ARGUMENT, "cannot be deleted");
    hang_up();
    t = talk(STREAMS, "Delete");
    talk_send_bytes(t, (deed_bytes){0});
    expect_ended(t, GRPC_INVALID_ARGUMENT, "StreamIdentifier");
    hang_up();
    t = talk(STREAMS, "Delete");
    talk_send_bytes(t, deed_bytes_of(DEED_STR("\x0a\x70zz")));
    expect_ended(t, GRPC_INVALID_ARGUMENT, "malformed");
    stop_writing();
}

TEST(grpc_delete, with_threads_a_deletion_waits_for_the_disk)
{
    start_here();
    open_rpc();
    say("s", "one");
    delete_as("Delete", "s", ANY, 0);
    expect_position();
    stop_writing();
}

TEST_MAIN(grpc_delete)
