/* test_grpc_v2.c - AppendSession and AppendRecords: all or nothing, and why not. */
#include "grpc_write_fixture.h"

#include "api/grpc_v2_record.h"
#include "json/json.h"
#include "proto/v2_errors.pb-c.h"
#include "proto/v2_rpc.pb-c.h"
#include "proto/v2_streams.pb-c.h"

#include <errno.h>
#include <math.h>

#define SERVICE "kurrentdb.protocol.v2.streams.StreamsService"
#define ABSENT  INT64_MIN

#define ERROR_TYPE(name) kurrentdb__protocol__v2__streams__errors__##name##__descriptor

typedef Kurrentdb__Protocol__V2__Streams__AppendSessionResponse SessionResponse;
typedef Kurrentdb__Protocol__V2__Streams__AppendRecordsResponse RecordsResponse;

/* ---- verbs ---------------------------------------------------------------------------------- */

/* A Value that is a text. */
static void put_text_value(struct buf *b, unsigned field, const char *text)
{
    size_t value = pb_begin(b, field);
    pb_put_str(b, 3, deed_str_of(text));
    pb_end(b, value);
}

static void put_property(struct buf *b, const char *key, const char *text)
{
    size_t entry = pb_begin(b, 2);
    pb_put_str(b, 1, deed_str_of(key));
    put_text_value(b, 2, text);
    pb_end(b, entry);
}

static void put_schema(struct buf *b, unsigned format, const char *name)
{
    size_t schema = pb_begin(b, 3);
    pb_put_uint(b, 1, format);
    pb_put_str(b, 2, deed_str_of(name));
    pb_end(b, schema);
}

/* An AppendRecord as `field`. */
static void put_record(struct buf *b, unsigned field, deed_uuid id, const char *stream,
                       deed_bytes data)
{
    char text[UUID_TEXT_SIZE + 1];
    uuid_format(id, text);
    size_t record = pb_begin(b, field);
    pb_put_str(b, 1, deed_str_of(text));
    put_property(b, "who", "anna");
    put_schema(b, 1, "Said");
    pb_put_bytes(b, 4, data);
    if (stream != NULL) pb_put_str(b, 5, deed_str_of(stream));
    pb_end(b, record);
}

static void put_words(struct buf *b, unsigned field, const char *stream, const char *words)
{
    char data[8];
    deed_uuid id;
    while (next_word(&words, data, &id)) {
        put_record(b, field, id, stream, deed_bytes_of(deed_str_of(data)));
    }
}

static void begin_session(void)
{
    hang_up();
    t = talk(SERVICE, "AppendSession");
}

static void request(const char *stream, int64_t expected, const char *words)
{
    struct buf b;
    buf_init(&b, 1 << 20);
    if (stream != NULL) pb_put_str(&b, 1, deed_str_of(stream));
    put_words(&b, 2, "ignored", words);
    if (expected != ABSENT) pb_put_sint(&b, 3, expected);
    send_buf(&b);
}

static struct buf records;

static void begin_records(void)
{
    hang_up();
    t = talk(SERVICE, "AppendRecords");
    buf_init(&records, 64 << 20);
}

static void check(const char *stream, int64_t expected)
{
    size_t c = pb_begin(&records, 2);
    size_t state = pb_begin(&records, 1);
    pb_put_str(&records, 1, deed_str_of(stream));
    pb_put_sint(&records, 2, expected);
    pb_end(&records, state);
    pb_end(&records, c);
}

static void end_records(void)
{
    send_buf(&records);
    talk_half_close(t);
}

/* ---- what came of it ------------------------------------------------------------------------ */

static SessionResponse *session_answer(size_t outputs)
{
    SessionResponse *r = talk_reply(
        t, &kurrentdb__protocol__v2__streams__append_session_response__descriptor);
    expect_ended(t, GRPC_OK, "");
    assert_non_null(r);
    assert_int_equal(r->n_output, outputs);
    assert_int_equal(r->position, store_position(store));
    return r;
}

static RecordsResponse *records_answer(size_t revisions)
{
    RecordsResponse *r = talk_reply(
        t, &kurrentdb__protocol__v2__streams__append_records_response__descriptor);
    expect_ended(t, GRPC_OK, "");
    assert_non_null(r);
    assert_int_equal(r->n_revisions, revisions);
    return r;
}

/* The typed detail's bytes; `type` NULL: there is none. */
static deed_bytes expect_reason(enum grpc_code code, const char *reason, const char *domain,
                                const char *type)
{
    struct buf bytes;
    assert_null(talk_reply_bytes(t).ptr);
    expect_ended(t, code, "");
    assert_null(trailer_of(t, "exception").ptr);
    buf_init(&bytes, 1 << 20);
    assert_true(grpc_base64_decode(trailer_of(t, "grpc-status-details-bin"), &bytes));
    Google__Rpc__StatusOfDetails *s =
        grpc_unpack(&google__rpc__status_of_details__descriptor, buf_bytes(&bytes), &t->arena, &err);
    buf_done(&bytes);
    assert_non_null(s);
    assert_int_equal(s->code, code);
    assert_int_equal(strlen(s->message), t->rpc.end.message.len);
    assert_int_equal(s->n_details, type == NULL ? 1 : 2);
    assert_string_equal(s->details[0]->type_url, "type.googleapis.com/google.rpc.ErrorInfo");
    Google__Rpc__ErrorInfo *info = grpc_unpack(
        &google__rpc__error_info__descriptor,
        (deed_bytes){s->details[0]->value.data, s->details[0]->value.len}, &t->arena, &err);
    if (strcmp(info->reason, reason) != 0) fail_msg("%s: %s", info->reason, s->message);
    assert_string_equal(info->domain, domain);
    if (type == NULL) return (deed_bytes){0};
    char url[128];
    (void)snprintf(url, sizeof url, "type.googleapis.com/kurrentdb.protocol.v2.streams.errors.%s",
                   type);
    assert_string_equal(s->details[1]->type_url, url);
    return (deed_bytes){s->details[1]->value.data, s->details[1]->value.len};
}

static void expect_bad(const char *part)
{
    expect_ended(t, GRPC_INVALID_ARGUMENT, part);
    (void)expect_reason(GRPC_INVALID_ARGUMENT, "BAD_REQUEST", "server", NULL);
}

static void expect_conflict(const char *stream, int64_t expected, int64_t actual)
{
    deed_bytes bytes = expect_reason(GRPC_FAILED_PRECONDITION, "STREAM_REVISION_CONFLICT",
                                     "streams", "StreamRevisionConflictErrorDetails");
    Kurrentdb__Protocol__V2__Streams__Errors__StreamRevisionConflictErrorDetails *d = grpc_unpack(
        &ERROR_TYPE(stream_revision_conflict_error_details),
        bytes, &t->arena, &err);
    assert_string_equal(d->stream, stream);
    assert_int_equal(d->expected_revision, expected);
    assert_int_equal(d->actual_revision, actual);
}

static void expect_closed(const char *stream)
{
    deed_bytes bytes = expect_reason(GRPC_FAILED_PRECONDITION, "STREAM_TOMBSTONED", "streams",
                                     "StreamTombstonedErrorDetails");
    Kurrentdb__Protocol__V2__Streams__Errors__StreamTombstonedErrorDetails *d = grpc_unpack(
        &ERROR_TYPE(stream_tombstoned_error_details),
        bytes, &t->arena, &err);
    assert_string_equal(d->stream, stream);
}

/* "0:s:-1:2 …": index, stream, expected, actual. */
static void expect_violations(const char *wanted)
{
    deed_bytes bytes = expect_reason(GRPC_FAILED_PRECONDITION, "APPEND_CONSISTENCY_VIOLATION",
                                     "streams", "AppendConsistencyViolationErrorDetails");
    Kurrentdb__Protocol__V2__Streams__Errors__AppendConsistencyViolationErrorDetails *d =
        grpc_unpack(&ERROR_TYPE(append_consistency_violation_error_details),
                    bytes, &t->arena, &err);
    char found[512] = "";
    for (size_t i = 0; i < d->n_violations; i++) {
        size_t len = strlen(found);
        (void)snprintf(found + len, sizeof found - len, "%s%d:%s:%lld:%lld", len > 0 ? " " : "",
                       d->violations[i]->check_index, d->violations[i]->stream_state->stream,
                       (long long)d->violations[i]->stream_state->expected_state,
                       (long long)d->violations[i]->stream_state->actual_state);
    }
    assert_string_equal(found, wanted);
}

/* ---- AppendSession -------------------------------------------------------------------------- */

TEST(grpc_v2, a_session_writes_several_streams_at_once)
{
    start_writing();
    begin_session();
    request("s", -1, "a1 b2");
    request("t", ABSENT, "c3");
    request("u", -2, "d4 e5 f6");
    assert_int_equal(store_position(store), 1);
    talk_half_close(t);
    SessionResponse *r = session_answer(3);
    assert_string_equal(r->output[0]->stream, "s");
    assert_int_equal(r->output[0]->stream_revision, 1);
    assert_string_equal(r->output[1]->stream, "t");
    assert_int_equal(r->output[1]->stream_revision, 0);
    assert_true(r->output[1]->has_stream_revision);
    assert_int_equal(r->output[2]->stream_revision, 2);
    expect_stream("s", "a b");
    expect_stream("u", "d e f");
    begin_session();
    request("s", 1, "g7");
    request("t", -4, "h8");
    talk_half_close(t);
    (void)session_answer(2);
    stop_writing();
}

TEST(grpc_v2, a_session_conflicts_in_its_first_stream_that_does)
{
    start_writing();
    append("s", ANY, 0, "a1 b2");
    begin_session();
    request("t", -1, "c3");
    request("s", 0, "c3");
    request("v", -4, "c3");
    talk_half_close(t);
    expect_conflict("s", 0, 1);
    begin_session();
    request("t", -4, "c3");
    talk_half_close(t);
    expect_conflict("t", -4, -1);
    begin_session();
    request("t", 7, "c3");
    talk_half_close(t);
    expect_conflict("t", 7, -1);
    begin_session();
    request("s", -1, "c3");
    talk_half_close(t);
    expect_conflict("s", -1, 1);
    /* A part of it is stored already. */
    begin_session();
    request("t", -2, "c3");
    request("s", -2, "b2 d4");
    talk_half_close(t);
    expect_conflict("s", -2, 1);
    assert_int_equal(store_position(store), 3);
    stop_writing();
}

TEST(grpc_v2, a_session_says_which_stream_is_closed)
{
    start_writing();
    append("s", ANY, 0, "a1");
    append("d", ANY, 0, "a1");
    tombstone("s");
    soft_delete("d");
    begin_session();
    request("t", -2, "c3");
    request("s", -2, "c3");
    talk_half_close(t);
    expect_closed("s");
    begin_session();
    request("d", -4, "c3");
    talk_half_close(t);
    expect_closed("d");
    begin_session();
    request("t", -2, "c3");
    request("$$s", -2, "c3");
    talk_half_close(t);
    expect_closed("$$s");
    begin_session();
    request("d", -1, "c3");
    talk_half_close(t);
    assert_int_equal(session_answer(1)->output[0]->stream_revision, 1);
    stop_writing();
}

TEST(grpc_v2, a_session_tried_again_gets_the_first_answer)
{
    start_writing();
    for (unsigned i = 0; i < 2; i++) {
        begin_session();
        request("s", -1, "a1 b2");
        request("t", -1, "c3");
        talk_half_close(t);
        SessionResponse *r = session_answer(2);
        assert_int_equal(r->output[0]->stream_revision, 1);
        assert_int_equal(r->output[1]->stream_revision, 0);
    }
    assert_int_equal(store_position(store), 4);
    stop_writing();
}

TEST(grpc_v2, a_session_must_be_whole)
{
    start_writing();
    begin_session();
    talk_half_close(t);
    (void)expect_reason(GRPC_FAILED_PRECONDITION, "APPEND_SESSION_NO_REQUESTS", "streams", NULL);
    begin_session();
    request("Order", -2, "a1");
    request("x", -2, "a1");
    request("oRDER", -2, "a1");
    talk_half_close(t);
    deed_bytes bytes = expect_reason(GRPC_ABORTED, "STREAM_ALREADY_IN_APPEND_SESSION", "streams",
                                     "StreamAlreadyInAppendSessionErrorDetails");
    assert_int_equal(bytes.len, 2 + 5);
    begin_session();
    request("s", -2, "");
    expect_bad("at least one record");
    begin_session();
    request(NULL, -2, "a1");
    expect_bad("stream's name");
    begin_session();
    request("$$", -2, "a1");
    expect_bad("stream $$");
    static const int64_t illegal[] = {-3, -5, -6, -7, INT64_MIN + 1};
    for (size_t i = 0; i < 5; i++) {
        begin_session();
        request("s", illegal[i], "a1");
        expect_bad("expected_revision");
    }
    begin_session();
    talk_send_bytes(t, deed_bytes_of(DEED_STR("\x12\x70z")));
    expect_bad("malformed");
    assert_int_equal(store_position(store), 1);
    stop_writing();
}

/* ---- AppendRecords -------------------------------------------------------------------------- */

TEST(grpc_v2, records_of_several_streams_may_interleave)
{
    start_writing();
    append("c", ANY, 0, "z1 y2");
    begin_records();
    put_words(&records, 1, "t", "a1");
    put_words(&records, 1, "s", "b2");
    put_words(&records, 1, "t", "c3");
    check("c", 1);
    check("s", -1);
    end_records();
    RecordsResponse *r = records_answer(2);
    assert_string_equal(r->revisions[0]->stream, "t");
    assert_int_equal(r->revisions[0]->revision, 1);
    assert_string_equal(r->revisions[1]->stream, "s");
    assert_int_equal(r->revisions[1]->revision, 0);
    assert_int_equal(r->position, store_position(store));
    expect_stream("t", "a c");
    stop_writing();
}

TEST(grpc_v2, every_check_that_fails_is_told)
{
    start_writing();
    append("one", ANY, 0, "a1");
    append("gone", ANY, 0, "a1");
    append("closed", ANY, 0, "a1");
    soft_delete("gone");
    tombstone("closed");
    begin_records();
    put_words(&records, 1, "s", "b2");
    check("one", -1);
    check("one-more", -4);
    check("gone", -4);
    check("closed", -1);
    check("gone-too", -5);
    check("s", -1);
    check("never", 3);
    check("$all-of-it", -6);
    end_records();
    expect_violations("0:one:-1:0 1:one-more:-4:-1 2:gone:-4:-5 3:closed:-1:-6 4:gone-too:-5:-1 "
                      "6:never:3:-1 7:$all-of-it:-6:-1");
    stop_writing();
}

TEST(grpc_v2, each_state_can_be_asked_for)
{
    static const struct {
        const char *stream;
        int64_t state;
    } states[] = {{"one", 0}, {"one", -4}, {"gone", -5}, {"gone", -1}, {"gone", 0},
                  {"closed", -6}, {"never", -1}};
    start_writing();
    append("one", ANY, 0, "a1");
    append("gone", ANY, 0, "a1");
    append("closed", ANY, 0, "a1");
    soft_delete("gone");
    tombstone("closed");
    for (size_t i = 0; i < sizeof states / sizeof states[0]; i++) {
        begin_records();
        char word[8];
        (void)snprintf(word, sizeof word, "b%zu", i + 10);
        put_words(&records, 1, "s", word);
        check(states[i].stream, states[i].state);
        end_records();
        (void)records_answer(1);
    }
    stop_writing();
}

TEST(grpc_v2, a_closed_stream_is_a_violation_without_a_check)
{
    start_writing();
    append("closed", ANY, 0, "a1");
    tombstone("closed");
    begin_records();
    put_words(&records, 1, "s", "b2");
    put_words(&records, 1, "closed", "c3");
    check("never", -1);
    end_records();
    expect_violations("2:closed:-2:-6");
    begin_records();
    put_words(&records, 1, "closed", "c3");
    check("closed", -6);
    end_records();
    expect_violations("0:closed:-6:-6");
    stop_writing();
}

TEST(grpc_v2, records_tried_again_get_the_first_answer_though_checks_fail_now)
{
    start_writing();
    for (unsigned i = 0; i < 2; i++) {
        begin_records();
        put_words(&records, 1, "s", "a1");
        put_words(&records, 1, "t", "b2");
        check("s", -1);
        check("other", -1);
        end_records();
        RecordsResponse *r = records_answer(2);
        assert_int_equal(r->revisions[0]->revision, 0);
        assert_int_equal(r->position, 3);
        append("other", ANY, 0, "z9");
    }
    begin_records();
    put_words(&records, 1, "s", "a1");
    put_words(&records, 1, "new", "c3");
    end_records();
    expect_violations("0:s:-2:0");
    stop_writing();
}

TEST(grpc_v2, records_must_be_whole)
{
    start_writing();
    begin_records();
    end_records();
    expect_bad("at least one record");
    begin_records();
    put_words(&records, 1, NULL, "a1");
    end_records();
    expect_bad("stream's name");
    begin_records();
    put_words(&records, 1, "s", "a1");
    check("x", -1);
    check("x", -4);
    end_records();
    expect_bad("more than once");
    begin_records();
    put_words(&records, 1, "s", "a1");
    check("A", -1);
    check("a", -1); /* another one */
    check("A", -4);
    end_records();
    expect_bad("more than once");
    static const int64_t illegal[] = {-2, -3, -7};
    for (size_t i = 0; i < 3; i++) {
        begin_records();
        put_words(&records, 1, "s", "a1");
        check("x", illegal[i]);
        end_records();
        expect_bad("expected_state");
    }
    begin_records();
    put_words(&records, 1, "s", "a1");
    pb_put_empty(&records, 2);
    end_records();
    expect_bad("of no known type");
    begin_records();
    put_words(&records, 1, "s", "a1");
    check("", -1);
    end_records();
    expect_bad("stream's name");
    stop_writing();
}

/* ---- records -------------------------------------------------------------------------------- */

/* One record, made by hand, into stream s. */
static void send_record(void (*fill)(struct buf *))
{
    begin_records();
    size_t record = pb_begin(&records, 1);
    pb_put_str(&records, 5, DEED_STR("s"));
    fill(&records);
    pb_end(&records, record);
    end_records();
}

static void no_schema(struct buf *b) { pb_put_str(b, 4, DEED_STR("{}")); }
static void no_format(struct buf *b) { put_schema(b, 0, "T"); }
static void odd_format(struct buf *b) { put_schema(b, 5, "T"); }
static void no_name(struct buf *b) { put_schema(b, 1, ""); }
static void odd_name(struct buf *b) { put_schema(b, 1, "a b"); }
static void odd_id(struct buf *b)
{
    put_schema(b, 1, "T");
    pb_put_str(b, 1, DEED_STR("nonsense"));
}
static void empty_id(struct buf *b)
{
    put_schema(b, 1, "T");
    pb_put_str(b, 1, DEED_STR("00000000-0000-0000-0000-000000000000"));
}
static void no_kind(struct buf *b)
{
    put_schema(b, 1, "T");
    size_t entry = pb_begin(b, 2);
    pb_put_str(b, 1, DEED_STR("k"));
    pb_put_empty(b, 2);
    pb_end(b, entry);
}
static void no_value(struct buf *b)
{
    put_schema(b, 1, "T");
    size_t entry = pb_begin(b, 2);
    pb_put_str(b, 1, DEED_STR("k"));
    pb_end(b, entry);
}
static void no_key(struct buf *b)
{
    put_schema(b, 1, "T");
    put_property(b, "", "x");
}
static void no_utf8(struct buf *b)
{
    put_schema(b, 1, "T");
    put_property(b, "k", "\xff");
}
static void too_deep(struct buf *b)
{
    size_t begins[200];
    put_schema(b, 1, "T");
    size_t entry = pb_begin(b, 2);
    pb_put_str(b, 1, DEED_STR("k"));
    size_t value = pb_begin(b, 2);
    for (size_t i = 0; i < 200; i += 2) {
        begins[i] = pb_begin(b, 6);
        begins[i + 1] = pb_begin(b, 1);
    }
    for (size_t i = 200; i > 0; i--) pb_end(b, begins[i - 1]);
    pb_end(b, value);
    pb_end(b, entry);
}

TEST(grpc_v2, a_record_must_be_whole)
{
    static const struct {
        void (*fill)(struct buf *);
        const char *part;
    } wrong[] = {{no_schema, "needs a format"}, {no_format, "needs a format"},
                 {odd_format, "needs a format"}, {no_name, "needs a name"},
                 {odd_name, "needs a name"},     {odd_id, "no UUID"},
                 {empty_id, "no UUID"},          {no_kind, "no kind"},
                 {no_value, "no kind"},          {no_key, "no name"},
                 {no_utf8, "no UTF-8"},          {too_deep, "too deep"}};
    start_writing();
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        send_record(wrong[i].fill);
        expect_bad(wrong[i].part);
    }
    assert_int_equal(store_position(store), 1);
    stop_writing();
}

static void put_number_value(struct buf *b, double number)
{
    uint64_t bits;
    memcpy(&bits, &number, sizeof bits);
    pb_put_varint(b, pb_tag(2, PB_FIXED64));
    for (size_t i = 0; i < 8; i++) buf_add_byte(b, (uint8_t)(bits >> (8 * i)));
}

static void put_number(struct buf *b, const char *key, double number)
{
    size_t entry = pb_begin(b, 2);
    pb_put_str(b, 1, deed_str_of(key));
    size_t value = pb_begin(b, 2);
    put_number_value(b, number);
    pb_end(b, value);
    pb_end(b, entry);
}

static void full_record(struct buf *b)
{
    pb_put_bytes(b, 4, (deed_bytes){(const uint8_t *)"\0\xff", 2});
    size_t schema = pb_begin(b, 3);
    pb_put_uint(b, 1, 2);
    pb_put_str(b, 2, DEED_STR("OrderPlaced.v1"));
    pb_put_str(b, 3, DEED_STR("f47ac10b-58cc-4372-a567-0e02b2c3d479"));
    pb_end(b, schema);
    put_property(b, "k", "first");
    put_property(b, "$correlationId", "c-1");
    put_property(b, "$schema.name", "Other");
    put_property(b, "k", "last");
    put_number(b, "n", 1.5);
    put_number(b, "whole", 3);
    put_number(b, "nan", NAN);
    put_number(b, "less", -INFINITY);
    size_t entry = pb_begin(b, 2);
    pb_put_str(b, 1, DEED_STR("deep"));
    size_t value = pb_begin(b, 2);
    size_t list = pb_begin(b, 6);
    size_t one = pb_begin(b, 1);
    pb_put_uint(b, 4, 1);
    pb_end(b, one);
    one = pb_begin(b, 1);
    pb_put_uint(b, 1, 0);
    pb_end(b, one);
    one = pb_begin(b, 1);
    size_t object = pb_begin(b, 5);
    put_entry(b, 9, "unknown", "field");
    for (int i = 0; i < 2; i++) {
        size_t member = pb_begin(b, 1);
        pb_put_str(b, 1, DEED_STR("m"));
        put_text_value(b, 2, i == 0 ? "x" : "\"y\"");
        pb_end(b, member);
    }
    pb_end(b, object);
    pb_end(b, one);
    pb_end(b, list);
    pb_end(b, value);
    pb_end(b, entry);
}

TEST(grpc_v2, a_record_becomes_an_event_with_its_properties_as_metadata)
{
    start_writing();
    send_record(full_record);
    (void)records_answer(1);
    struct deed_read_options how = {.stream = DEED_STR("s")};
    struct deed_cursor *cursor;
    struct deed_event e;
    expect_ok(store_read(store, &how, &cursor, &err));
    expect_ok(cursor_next(cursor, &e, &err));
    expect_str(e.type, "OrderPlaced.v1");
    expect_str(e.content_type, "application/octet-stream");
    expect_str(e.correlation_id, "c-1");
    assert_int_equal(e.data.len, 2);
    assert_false(uuid_is_zero(e.id));
    expect_str(((deed_str){(const char *)e.metadata.ptr, e.metadata.len}),
               "{\"$correlationId\":\"c-1\",\"k\":\"last\",\"n\":1.5,\"whole\":3,\"nan\":\"NaN\","
               "\"less\":\"-Infinity\",\"deep\":[true,null,{\"m\":\"\\\"y\\\"\"}],"
               "\"$schema.name\":\"OrderPlaced.v1\",\"$schema.format\":\"Protobuf\","
               "\"$schema.id\":\"f47ac10b-58cc-4372-a567-0e02b2c3d479\"}");
    assert_int_equal(json_check(e.metadata, 64, &err), DEED_OK);
    cursor_close(cursor);
    stop_writing();
}

TEST(grpc_v2, what_is_called_json_and_is_not_is_kept_under_another_name)
{
    start_writing();
    begin_records();
    put_record(&records, 1, id_of(1), "s", deed_bytes_of(DEED_STR("{")));
    put_record(&records, 1, id_of(2), "s", deed_bytes_of(DEED_STR("{}")));
    end_records();
    (void)records_answer(1);
    struct deed_read_options how = {.stream = DEED_STR("s")};
    struct deed_cursor *cursor;
    struct deed_event e;
    expect_ok(store_read(store, &how, &cursor, &err));
    expect_ok(cursor_next(cursor, &e, &err));
    expect_str(e.content_type, GRPC_UNCHECKED_JSON);
    expect_ok(cursor_next(cursor, &e, &err));
    expect_str(e.content_type, "application/json");
    cursor_close(cursor);
    stop_writing();
}

/* ---- limits, failures ----------------------------------------------------------------------- */

TEST(grpc_v2, what_is_too_large_says_so)
{
    start_writing_limited((struct deed_limits){.event_size_max = 1000, .commit_size_max = 3000});
    static uint8_t data[2000];
    begin_records();
    put_record(&records, 1, id_of(1), "s", (deed_bytes){data, 1500});
    end_records();
    deed_bytes bytes = expect_reason(GRPC_INVALID_ARGUMENT, "APPEND_RECORD_SIZE_EXCEEDED",
                                     "streams", "AppendRecordSizeExceededErrorDetails");
    Kurrentdb__Protocol__V2__Streams__Errors__AppendRecordSizeExceededErrorDetails *d = grpc_unpack(
        &ERROR_TYPE(append_record_size_exceeded_error_details),
        bytes, &t->arena, &err);
    assert_string_equal(d->stream, "s");
    assert_string_equal(d->record_id, "01000000-0000-0000-0000-000000000001");
    assert_true(d->size > 1500 && d->size < 1550);
    assert_int_equal(d->max_size, 1000);
    begin_session();
    struct buf b;
    buf_init(&b, 1 << 20);
    pb_put_str(&b, 1, DEED_STR("s"));
    for (unsigned i = 1; i <= 4; i++) put_record(&b, 2, id_of(i), NULL, (deed_bytes){data, 800});
    send_buf(&b);
    bytes = expect_reason(GRPC_ABORTED, "APPEND_TRANSACTION_SIZE_EXCEEDED", "streams",
                          "AppendTransactionSizeExceededErrorDetails");
    Kurrentdb__Protocol__V2__Streams__Errors__AppendTransactionSizeExceededErrorDetails *a =
        grpc_unpack(&ERROR_TYPE(append_transaction_size_exceeded_error_details),
                    bytes, &t->arena, &err);
    assert_true(a->size > 3000);
    assert_int_equal(a->max_size, 3000);
    stop_writing();
}

TEST(grpc_v2, the_limit_of_a_record_is_one_whatever_its_size)
{
    static const size_t sizes[] = {20000, 25000, 35000};
    static uint8_t data[35000];
    start_writing_limited((struct deed_limits){.event_size_max = 30000});
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        begin_records();
        put_record(&records, 1, id_of(1), "s", (deed_bytes){data, sizes[i]});
        end_records();
        deed_bytes bytes = expect_reason(GRPC_INVALID_ARGUMENT, "APPEND_RECORD_SIZE_EXCEEDED",
                                         "streams", "AppendRecordSizeExceededErrorDetails");
        Kurrentdb__Protocol__V2__Streams__Errors__AppendRecordSizeExceededErrorDetails *d =
            grpc_unpack(&ERROR_TYPE(append_record_size_exceeded_error_details), bytes, &t->arena,
                        &err);
        assert_int_equal(d->max_size, 20000); /* the last 10,000 are for names */
        hang_up();
    }
    begin_records();
    put_record(&records, 1, id_of(1), "s", (deed_bytes){data, 19000});
    end_records();
    (void)records_answer(1);
    stop_writing();
}

TEST(grpc_v2, the_servers_own_troubles_have_reasons)
{
    start_writing_limited((struct deed_limits){.queue_count_max = 1, .name_size_max = 64});
    begin_session();
    request("a-name-that-is-longer-than-sixty-four-bytes-as-the-limit-of-it-says-here", -2, "a1");
    talk_half_close(t);
    expect_bad("limit 64");
    begin_session();
    request("s", -2, "a1");
    os_sim_fail(sim, OS_SIM_SYNC, 1, 0, EIO);
    talk_half_close(t);
    (void)expect_reason(GRPC_INTERNAL, "SERVER_MALFUNCTION", "server", NULL);
    os_sim_heal(sim);
    begin_session();
    request("s", -2, "a1");
    talk_half_close(t);
    (void)expect_reason(GRPC_UNAVAILABLE, "SERVER_NOT_READY", "server", NULL);
    stop_writing();
}

TEST(grpc_v2, a_thousand_streams_are_one_append)
{
    start_writing();
    begin_records();
    char stream[16];
    for (unsigned i = 1; i <= 1000; i++) {
        (void)snprintf(stream, sizeof stream, "s%u", i * 7 % 1000);
        put_record(&records, 1, id_of(i), stream, deed_bytes_of(DEED_STR("1")));
        if (i % 2 == 0) check(stream, -1);
    }
    end_records();
    RecordsResponse *r = records_answer(1000);
    for (unsigned i = 1; i <= 1000; i++) {
        (void)snprintf(stream, sizeof stream, "s%u", i * 7 % 1000);
        assert_string_equal(r->revisions[i - 1]->stream, stream);
    }
    stop_writing();
}

TEST(grpc_v2, a_client_that_goes_leaves_its_append_under_way)
{
    start_writing();
    begin_session();
    request("s", -2, "a1");
    t->half_closed = true;
    t->rpc.method->half_closed(&t->rpc);
    hang_up();
    expect_stream("s", "a");
    begin_session();
    request("s", -2, "b2");
    hang_up();
    expect_stream("s", "a");
    stop_writing();
}

TEST(grpc_v2, with_threads_a_refusal_is_looked_up)
{
    start_here();
    open_rpc();
    begin_records();
    put_words(&records, 1, "s", "a1");
    check("x", -4);
    send_buf(&records);
    t->half_closed = true;
    t->rpc.method->half_closed(&t->rpc);
    talk_wait(t);
    expect_violations("0:x:-4:-1");
    stop_writing();
}

TEST_MAIN(grpc_v2)
