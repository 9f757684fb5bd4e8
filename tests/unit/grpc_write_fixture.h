/* grpc_write_fixture.h - verbs to write over gRPC with, and to ask what came of it.
 *
 *     append("s", ANY, 0, "a1 b2");      events with ids 1 and 2, and the data "a" and "b"
 *     expect_success(1);                 its last revision
 */
#ifndef TESTS_GRPC_WRITE_FIXTURE_H
#define TESTS_GRPC_WRITE_FIXTURE_H

#include "rpc_fixture.h"

#include "api/grpc_event.h"
#include "base/uuid.h"
#include "grpc/pb.h"
#include "proto/streams.pb-c.h"

#define STREAMS "event_store.client.streams.Streams"

enum mode { ANY, NONE, EXISTS, EXACT, UNSET };

/* AppendReq.Options and those like it, as field `field`. */
FIXTURE void put_options(struct buf *out, unsigned field, const char *stream, enum mode mode,
                         uint64_t revision)
{
    size_t begin = pb_begin(out, field);
    if (stream != NULL) {
        size_t identifier = pb_begin(out, 1);
        pb_put_str(out, 3, deed_str_of(stream));
        pb_end(out, identifier);
    }
    if (mode == EXACT) pb_put_uint(out, 2, revision);
    if (mode == NONE) pb_put_empty(out, 3);
    if (mode == ANY) pb_put_empty(out, 4);
    if (mode == EXISTS) pb_put_empty(out, 5);
    pb_end(out, begin);
}

FIXTURE void put_entry(struct buf *out, unsigned field, const char *key, const char *value)
{
    size_t begin = pb_begin(out, field);
    pb_put_str(out, 1, deed_str_of(key));
    pb_put_str(out, 2, deed_str_of(value));
    pb_end(out, begin);
}

/* A ProposedMessage as field `field`. */
FIXTURE void put_event(struct buf *out, unsigned field, deed_uuid id, const char *type,
                       deed_bytes metadata, deed_bytes data)
{
    size_t begin = pb_begin(out, field);
    grpc_put_uuid(out, 1, id, id.bytes[15] % 2 == 0);
    put_entry(out, 2, "type", type);
    put_entry(out, 2, "content-type", "application/json");
    if (metadata.len > 0) pb_put_bytes(out, 3, metadata);
    if (data.len > 0) pb_put_bytes(out, 4, data);
    pb_end(out, begin);
}

/* "a7": data "a", id 7. Moves `*words` behind it; false: there is no more. */
FIXTURE bool next_word(const char **words, char *out_data, deed_uuid *out_id)
{
    while (**words == ' ') (*words)++;
    if (**words == '\0') return false;
    char letter = *(*words)++;
    char *end;
    unsigned long id = strtoul(*words, &end, 10);
    assert_true(end != *words);
    *words = end;
    (void)snprintf(out_data, 8, "\"%c\"", letter);
    *out_id = id_of((unsigned)id);
    return true;
}

static struct talk *t; /* the last call */

FIXTURE void hang_up(void)
{
    if (t != NULL) talk_close(t);
    t = NULL;
}

FIXTURE void start_writing(void)
{
    start();
    open_rpc();
}

FIXTURE void start_writing_limited(struct deed_limits limits)
{
    start_limited(limits);
    open_rpc();
}

FIXTURE void stop_writing(void)
{
    hang_up();
    close_rpc();
    finish();
}

FIXTURE void send_buf(struct buf *message)
{
    assert_true(buf_ok(message));
    talk_send_bytes(t, buf_bytes(message));
    buf_done(message);
}

/* ---- Append --------------------------------------------------------------------------------- */

FIXTURE void begin_append(const char *stream, enum mode mode, uint64_t revision)
{
    struct buf b;
    hang_up();
    t = talk(STREAMS, "Append");
    buf_init(&b, 1 << 20);
    put_options(&b, 1, stream, mode, revision);
    send_buf(&b);
}

FIXTURE void propose(deed_uuid id, const char *type, deed_bytes metadata, deed_bytes data)
{
    struct buf b;
    buf_init(&b, 64 << 20);
    put_event(&b, 2, id, type, metadata, data);
    send_buf(&b);
}

FIXTURE void append(const char *stream, enum mode mode, uint64_t revision, const char *words)
{
    char data[8];
    deed_uuid id;
    begin_append(stream, mode, revision);
    while (next_word(&words, data, &id)) {
        propose(id, "Said", (deed_bytes){0}, deed_bytes_of(deed_str_of(data)));
    }
    talk_half_close(t);
}

/* ---- Delete, Tombstone ---------------------------------------------------------------------- */

FIXTURE void delete_as(const char *method, const char *stream, enum mode mode, uint64_t revision)
{
    struct buf b;
    hang_up();
    t = talk(STREAMS, method);
    buf_init(&b, 1 << 20);
    put_options(&b, 1, stream, mode, revision);
    send_buf(&b);
    talk_half_close(t);
}

FIXTURE void soft_delete(const char *stream)
{
    deed_str s = deed_str_of(stream);
    expect_ok(store_delete_foreign(store, s, DEED_EXPECT_ANY, 0, false, &appended, &err));
}

FIXTURE void tombstone(const char *stream)
{
    deed_str s = deed_str_of(stream);
    expect_ok(store_delete_foreign(store, s, DEED_EXPECT_ANY, 0, true, &appended, &err));
}

/* ---- what came of it ------------------------------------------------------------------------ */

typedef EventStore__Client__Streams__AppendResp AppendResp;

FIXTURE AppendResp *append_reply(void)
{
    if (t->rpc.end.code != GRPC_OK) fail_msg("failed: %.*s", DEED_FMT(t->rpc.end.message));
    AppendResp *r = talk_reply(t, &event_store__client__streams__append_resp__descriptor);
    assert_non_null(r);
    assert_true(r->result_case == 1 || r->result_case == 2); /* both stand in one place */
    assert_null(talk_reply_bytes(t).ptr);
    expect_ended(t, GRPC_OK, "");
    return r;
}

FIXTURE EventStore__Client__Streams__AppendResp__Success *stored(void)
{
    AppendResp *r = append_reply();
    if (r->result_case != 1) fail_msg("a wrong version");
    return r->success;
}

/* The append's last event is at `revision`. */
FIXTURE void expect_success(uint64_t revision)
{
    EventStore__Client__Streams__AppendResp__Success *r = stored();
    assert_int_equal(r->current_revision_option_case, 1);
    assert_int_equal(r->current_revision, revision);
    assert_int_equal(r->position_option_case, 3);
    assert_int_equal(r->position->commit_position, r->position->prepare_position);
}

#define NOWHERE UINT64_MAX

/* Both generations' fields. */
FIXTURE void expect_wrong_version(enum mode mode, uint64_t expected, uint64_t actual)
{
    AppendResp *r = append_reply();
    EventStore__Client__Streams__AppendResp__WrongExpectedVersion *w = r->wrong_expected_version;
    if (r->result_case != 2) fail_msg("a success");
    static const unsigned old_cases[] = {[ANY] = 4, [EXISTS] = 5, [NONE] = 3, [EXACT] = 3};
    static const unsigned new_cases[] = {[ANY] = 9, [EXISTS] = 10, [NONE] = 11, [EXACT] = 8};
    assert_int_equal(w->expected_revision_option_20_6_0_case, old_cases[mode]);
    assert_int_equal(w->expected_revision_option_case, new_cases[mode]);
    if (mode == NONE) assert_true(w->expected_revision_20_6_0 == UINT64_MAX);
    if (mode == EXACT) assert_true(w->expected_revision_20_6_0 == expected);
    if (mode == EXACT) assert_true(w->expected_revision == expected);
    bool nowhere = actual == NOWHERE;
    assert_int_equal(w->current_revision_option_20_6_0_case, nowhere ? 2 : 1);
    assert_int_equal(w->current_revision_option_case, nowhere ? 7 : 6);
    if (!nowhere) assert_int_equal(w->current_revision_20_6_0, actual);
    if (!nowhere) assert_int_equal(w->current_revision, actual);
}

FIXTURE void expect_deleted(const char *stream)
{
    char message[256];
    (void)snprintf(message, sizeof message, "Event stream '%s' is deleted.", stream);
    assert_null(talk_reply_bytes(t).ptr);
    expect_ended(t, GRPC_FAILED_PRECONDITION, message);
    expect_trailer(t, "exception", "stream-deleted");
    expect_trailer(t, "stream-name", stream);
}

FIXTURE void expect_stream(const char *stream, const char *words)
{
    expect_words(words, .stream = deed_str_of(stream));
}

#endif
