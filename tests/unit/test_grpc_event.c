/* test_grpc_event.c - RecordedEvent and ProposedMessage by hand, beside the decoder that protoc-c
 * makes. */
#include "unit/test.h"

#include "api/grpc_event.h"
#include "base/uuid.h"
#include "grpc/pb.h"
#include "grpc/proto.h"
#include "proto/streams.pb-c.h"

typedef EventStore__Client__Streams__ReadResp__ReadEvent ReadEvent;
typedef EventStore__Client__Streams__ReadResp__ReadEvent__RecordedEvent RecordedEvent;
typedef EventStore__Client__Streams__AppendReq__ProposedMessage ProposedMessage;

static struct arena arena;
static struct buf out;

static void start(void)
{
    arena_init(&arena, SIZE_MAX);
    buf_init(&out, 1 << 24);
}

static void finish(void)
{
    arena_done(&arena);
    buf_done(&out);
}

static deed_bytes bytes_of(const char *text)
{
    return deed_bytes_of(deed_str_of(text));
}

static deed_uuid some_id(void)
{
    deed_uuid id;
    assert_true(uuid_parse(DEED_STR("F47AC10B-58cc-4372-a567-0e02b2c3d479"), &id));
    return id;
}

static struct deed_event placed(void)
{
    return (struct deed_event){.position = 300,
                               .revision = 0,
                               .id = some_id(),
                               .time_ns = 5,
                               .recorded_at_ns = 1764000000123456789,
                               .stream = DEED_STR("order-1"),
                               .type = DEED_STR("OrderPlaced"),
                               .content_type = DEED_STR("application/json"),
                               .data = bytes_of("{\"n\":1}"),
                               .metadata = bytes_of("{}")};
}

/* The message of the one field that is in `out`. */
static deed_bytes the_field(unsigned number)
{
    struct pb_reader r = pb_reader_over(buf_bytes(&out));
    struct pb_field f;
    assert_true(buf_ok(&out));
    assert_true(pb_next(&r, &f));
    assert_true(pb_is(&f, number, PB_BYTES));
    assert_ptr_equal(r.at, r.end);
    return f.bytes;
}

static ReadEvent *unpacked(unsigned number)
{
    struct deed_error err;
    ReadEvent *e = grpc_unpack(
        &event_store__client__streams__read_resp__read_event__descriptor, the_field(number), &arena,
        &err);
    if (e == NULL) fail_msg("%s", err.message);
    return e;
}

static const char *entry(const RecordedEvent *e, const char *key)
{
    for (size_t i = 0; i < e->n_metadata; i++) {
        if (strcmp(e->metadata[i]->key, key) == 0) return e->metadata[i]->value;
    }
    return "(none)";
}

static void expect_bytes(ProtobufCBinaryData b, const char *text)
{
    assert_int_equal(b.len, strlen(text));
    assert_memory_equal(b.data, text, b.len);
}

TEST(grpc_event, an_event_says_all_that_clients_read)
{
    start();
    struct deed_event event = placed();
    grpc_put_read_event(&out, 1, &event, NULL, false, (deed_bytes){0});

    ReadEvent *e = unpacked(1);
    assert_null(e->link);
    assert_int_equal(e->position_case,
                     EVENT_STORE__CLIENT__STREAMS__READ_RESP__READ_EVENT__POSITION_COMMIT_POSITION);
    assert_int_equal(e->commit_position, 300);
    assert_string_equal(e->event->id->string, "f47ac10b-58cc-4372-a567-0e02b2c3d479");
    expect_bytes(e->event->stream_identifier->stream_name, "order-1");
    assert_int_equal(e->event->stream_revision, 0);
    assert_int_equal(e->event->prepare_position, 300);
    assert_int_equal(e->event->commit_position, 300);
    assert_string_equal(entry(e->event, "type"), "OrderPlaced");
    assert_string_equal(entry(e->event, "created"), "17640000001234567");
    assert_string_equal(entry(e->event, "content-type"), "application/json");
    expect_bytes(e->event->custom_metadata, "{}");
    expect_bytes(e->event->data, "{\"n\":1}");
    finish();
}

TEST(grpc_event, an_id_is_structured_when_that_is_asked_for)
{
    start();
    struct deed_event event = placed();
    grpc_put_read_event(&out, 1, &event, NULL, true, (deed_bytes){0});

    EventStore__Client__UUID__Structured *id = unpacked(1)->event->id->structured;
    assert_true((uint64_t)id->most_significant_bits == UINT64_C(0xf47ac10b58cc4372));
    assert_true((uint64_t)id->least_significant_bits == UINT64_C(0xa5670e02b2c3d479));
    finish();
}

TEST(grpc_event, a_link_stands_beside_its_target_and_gives_the_position)
{
    start();
    struct deed_event event = placed();
    struct deed_event link = placed();
    link.stream = DEED_STR("$ce-order");
    link.type = DEED_STR("$>");
    link.position = 301;
    link.content_type = DEED_STR("application/octet-stream");
    grpc_put_read_event(&out, 2, &event, &link, false, (deed_bytes){0});

    ReadEvent *e = unpacked(2);
    expect_bytes(e->event->stream_identifier->stream_name, "order-1");
    expect_bytes(e->link->stream_identifier->stream_name, "$ce-order");
    assert_string_equal(entry(e->link, "content-type"), "application/octet-stream");
    assert_int_equal(e->commit_position, 301);
    finish();
}

TEST(grpc_event, a_link_to_nothing_has_no_event)
{
    start();
    struct deed_event link = placed();
    uint8_t retries[] = {5 << 3, 7};
    grpc_put_read_event(&out, 1, NULL, &link, false, (deed_bytes){retries, sizeof retries});

    ReadEvent *e = unpacked(1);
    assert_null(e->event);
    assert_non_null(e->link);
    deed_bytes all = the_field(1);
    assert_memory_equal(all.ptr + all.len - sizeof retries, retries, sizeof retries);
    finish();
}

TEST(grpc_event, a_tombstone_has_the_largest_revision_and_large_events_their_length)
{
    start();
    struct deed_event event = placed();
    static uint8_t large[70000];
    event.type = DEED_STR("$streamDeleted");
    event.content_type = DEED_STR("text/plain");
    event.data = (deed_bytes){large, sizeof large};
    event.metadata = (deed_bytes){0};
    grpc_put_recorded(&out, 2, &event, false);

    RecordedEvent *e = grpc_unpack(
        &event_store__client__streams__read_resp__read_event__recorded_event__descriptor,
        the_field(2), &arena, NULL);
    assert_non_null(e);
    assert_true(e->stream_revision == INT64_MAX);
    assert_int_equal(e->data.len, sizeof large);
    assert_int_equal(e->custom_metadata.len, 0);
    assert_string_equal(entry(e, "content-type"), "application/octet-stream");
    finish();
}

TEST(grpc_event, content_types_that_are_json_say_so)
{
    static const char *const json[] = {"application/json", "application/json; charset=utf-8",
                                       GRPC_UNCHECKED_JSON};
    for (size_t i = 0; i < 3; i++) {
        start();
        struct deed_event event = placed();
        event.content_type = deed_str_of(json[i]);
        grpc_put_read_event(&out, 1, &event, NULL, false, (deed_bytes){0});
        assert_string_equal(entry(unpacked(1)->event, "content-type"), "application/json");
        finish();
    }
}

/* ---- coming in ------------------------------------------------------------------------------ */

#define DEPTH 64

static void put_entry(unsigned field, const char *key, const char *value)
{
    size_t begin = pb_begin(&out, field);
    pb_put_str(&out, 1, deed_str_of(key));
    pb_put_str(&out, 2, deed_str_of(value));
    pb_end(&out, begin);
}

static void propose(const char *type, const char *content_type, const char *metadata,
                    const char *data)
{
    grpc_put_uuid(&out, 1, some_id(), true);
    if (type != NULL) put_entry(2, "type", type);
    if (content_type != NULL) put_entry(2, "content-type", content_type);
    pb_put_str(&out, 3, deed_str_of(metadata));
    pb_put_str(&out, 4, deed_str_of(data));
}

TEST(grpc_event, a_proposed_message_becomes_an_event)
{
    start();
    struct deed_new_event event = {.stream = DEED_STR("s")};
    propose("Placed", "application/json", "{\"$correlationId\":\"abc\",\"$causationId\":\"d\"}",
            "{}");
    assert_int_equal(grpc_parse_proposed(buf_bytes(&out), DEPTH, &event), GRPC_PROPOSED_OK);
    expect_str(event.stream, "s");
    expect_str(event.type, "Placed");
    expect_str(event.content_type, "application/json");
    expect_str(event.correlation_id, "abc");
    expect_str(event.causation_id, "d");
    assert_int_equal(event.data.len, 2);
    assert_true(uuid_equal(event.id, some_id()));
    finish();
}

static void expect_stored(const char *given, const char *data, const char *stored)
{
    start();
    struct deed_new_event event = {0};
    propose("T", given, "", data);
    assert_int_equal(grpc_parse_proposed(buf_bytes(&out), DEPTH, &event), GRPC_PROPOSED_OK);
    expect_str(event.content_type, stored);
    finish();
}

TEST(grpc_event, what_is_called_json_and_is_not_is_kept_under_another_name)
{
    expect_stored("application/json", "{}", "application/json");
    expect_stored("application/json", "", GRPC_UNCHECKED_JSON);
    expect_stored("application/json", "{", GRPC_UNCHECKED_JSON);
    expect_stored("application/octet-stream", "{}", "application/octet-stream");
    expect_stored("", "{}", "application/octet-stream");
    expect_stored("text/plain", "{", "text/plain");
    expect_stored("application/vnd.x+json", "{}", "application/vnd.x+json");
    expect_stored("application/vnd.x+json", "{", "application/octet-stream");
    expect_stored(GRPC_UNCHECKED_JSON, "{", "application/octet-stream");
    expect_stored("a\nb", "{", "application/octet-stream");
}

static void expect_correlation(const char *metadata, const char *id)
{
    start();
    struct deed_new_event event = {0};
    propose("T", "", metadata, "");
    assert_int_equal(grpc_parse_proposed(buf_bytes(&out), DEPTH, &event), GRPC_PROPOSED_OK);
    assert_int_equal(event.metadata.len, strlen(metadata));
    expect_str(event.correlation_id, id);
    finish();
}

TEST(grpc_event, a_correlation_id_is_found_only_where_it_is_one)
{
    expect_correlation("{\"a\":{\"$correlationId\":\"x\"}}", "");
    expect_correlation("{\"$correlationId\":7}", "");
    expect_correlation("{\"$correlationId\":\"\"}", "");
    expect_correlation("{\"$correlationId\":\"a\\nb\"}", "");
    expect_correlation("$correlationId", "");
    expect_correlation("{ \"$correlationId\" : \"x y\" }", "x y");
}

TEST(grpc_event, a_proposed_message_without_its_parts_is_refused)
{
    struct deed_new_event event = {0};
    start();
    propose(NULL, "application/json", "", "");
    assert_int_equal(grpc_parse_proposed(buf_bytes(&out), DEPTH, &event), GRPC_PROPOSED_METADATA);
    buf_reset(&out);
    propose("", "application/json", "", "");
    assert_int_equal(grpc_parse_proposed(buf_bytes(&out), DEPTH, &event), GRPC_PROPOSED_METADATA);
    buf_reset(&out);
    propose("T", NULL, "", "");
    assert_int_equal(grpc_parse_proposed(buf_bytes(&out), DEPTH, &event), GRPC_PROPOSED_METADATA);
    buf_reset(&out);
    put_entry(2, "type", "T");
    assert_int_equal(grpc_parse_proposed(buf_bytes(&out), DEPTH, &event), GRPC_PROPOSED_NO_ID);
    buf_reset(&out);
    grpc_put_uuid(&out, 1, (deed_uuid){{0}}, false);
    put_entry(2, "type", "T");
    put_entry(2, "content-type", "T");
    assert_int_equal(grpc_parse_proposed(buf_bytes(&out), DEPTH, &event), GRPC_PROPOSED_NO_ID);
    finish();
}

TEST(grpc_event, a_proposed_message_cut_anywhere_is_refused_or_lacks_a_part)
{
    start();
    propose("Placed", "application/json", "{}", "{}");
    for (size_t len = 0; len < out.len; len++) {
        struct deed_new_event event = {0};
        uint8_t *copy = malloc(len + 1);
        memcpy(copy, out.ptr, len);
        enum grpc_proposed answer = grpc_parse_proposed((deed_bytes){copy, len}, DEPTH, &event);
        if (len < 60) assert_int_not_equal(answer, GRPC_PROPOSED_OK);
        free(copy);
    }
    finish();
}

TEST(grpc_event, ids_are_read_in_both_forms_and_others_refused)
{
    for (int structured = 0; structured < 2; structured++) {
        start();
        deed_uuid id;
        grpc_put_uuid(&out, 3, some_id(), structured != 0);
        assert_true(grpc_parse_uuid(the_field(3), &id));
        assert_true(uuid_equal(id, some_id()));
        finish();
    }
    deed_uuid id;
    start();
    assert_false(grpc_parse_uuid((deed_bytes){0}, &id));
    pb_put_str(&out, 2, DEED_STR("f47ac10b58cc4372a5670e02b2c3d479"));
    assert_false(grpc_parse_uuid(buf_bytes(&out), &id));
    finish();
}

TEST(grpc_event, what_is_written_by_hand_reads_back)
{
    start();
    static const uint64_t values[] = {0, 1, 127, 128, 300, UINT32_MAX, INT64_MAX, UINT64_MAX};
    for (size_t i = 0; i < 8; i++) {
        buf_reset(&out);
        pb_put_uint(&out, 1, values[i]);
        pb_put_sint(&out, 70000, (int64_t)values[i]);
        struct pb_reader r = pb_reader_over(buf_bytes(&out));
        struct pb_field f;
        assert_true(pb_next(&r, &f) && f.value == values[i]);
        assert_true(pb_next(&r, &f) && f.number == 70000);
        assert_true(pb_zigzag(f.value) == (int64_t)values[i]);
        assert_false(pb_next(&r, &f));
        assert_false(r.bad);
    }
    finish();
}

TEST(grpc_event, what_is_no_message_is_bad)
{
    static const struct {
        uint8_t bytes[12];
        size_t len;
    } wrong[] = {
        {{0x00}, 1},             /* field 0 */
        {{0x0b}, 1},             /* a group */
        {{0x0a, 0x05, 1, 2}, 4}, /* longer than there is */
        {{0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02}, 11}, /* 65 bits */
        {{0x09, 1, 2, 3}, 4},    /* half a fixed64 */
        {{0x0d, 1, 2, 3}, 4},    /* most of a fixed32 */
        {{0x80}, 1},             /* half a tag */
        {{0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01}, 11}, /* a huge length */
    };
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        struct pb_reader r = pb_reader_over((deed_bytes){wrong[i].bytes, wrong[i].len});
        struct pb_field f;
        assert_false(pb_next(&r, &f));
        assert_true(r.bad);
        assert_false(pb_next(&r, &f));
    }
}

TEST_MAIN(grpc_event)
