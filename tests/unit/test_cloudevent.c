/* test_cloudevent.c - what goes out comes back, to the byte; what comes from elsewhere is kept. */
#include "test.h"

#include "api/cloudevent.h"
#include "base/text.h"
#include "base/timetext.h"
#include "base/uuid.h"

static struct arena arena;
static struct buf out;
static struct deed_error err;
static struct cloudevent parsed;

static void fresh(void)
{
    arena_done(&arena);
    arena_init(&arena, 8 << 20);
    buf_done(&out);
    buf_init(&out, 8 << 20);
    memset(&parsed, 0, sizeof parsed);
}

static deed_uuid uuid_of(const char *text)
{
    deed_uuid id;
    assert_true(uuid_parse(deed_str_of(text), &id));
    return id;
}

#define LOG_ID   "0192f0a1-0000-7000-8000-00000000000a"
#define EVENT_ID "0192f0a1-0000-7000-8000-000000000001"

static struct deed_event sample(void)
{
    return (struct deed_event){
        .position = 18446744073709551614u,
        .revision = 9007199254740993u,
        .id = uuid_of(EVENT_ID),
        .time_ns = 1700000000123456789,
        .recorded_at_ns = 1700000001000000000,
        .stream = DEED_STR("order-1"),
        .type = DEED_STR("OrderCreated"),
        .content_type = DEED_STR("application/json"),
        .data = deed_bytes_of(DEED_STR("{\"a\":1.0}")),
    };
}

static const char *text_of(const struct deed_event *event, unsigned flags)
{
    struct cloudevent_source source = cloudevent_source_of(uuid_of(LOG_ID));
    buf_reset(&out);
    cloudevent_write(&out, &source, event, flags);
    buf_add_byte(&out, '\0');
    assert_true(buf_ok(&out));
    return (const char *)out.ptr;
}

static deed_status parse(const char *text)
{
    return cloudevent_parse_text(&arena, deed_bytes_of(deed_str_of(text)), 0, (deed_str){0},
                                 &parsed, &err);
}

static void expect_refused(const char *text, const char *why)
{
    fresh();
    expect_status(DEED_INVALID, parse(text));
    expect_message(err, why);
}

static void expect_bytes(deed_bytes got, deed_bytes wanted)
{
    assert_int_equal(got.len, wanted.len);
    if (wanted.len > 0) assert_memory_equal(got.ptr, wanted.ptr, wanted.len);
}

static void expect_same_text(deed_str got, deed_str wanted)
{
    expect_bytes(deed_bytes_of(got), deed_bytes_of(wanted));
}

/* Write with both ways of framing, parse, compare every field. */
static void expect_round_trip(const struct deed_event *event)
{
    for (unsigned flags = CLOUDEVENT_EXACT; flags <= (CLOUDEVENT_EXACT | CLOUDEVENT_LINE);
         flags++) {
        const char *text = text_of(event, flags);
        if ((flags & CLOUDEVENT_LINE) != 0) assert_null(strpbrk(text, "\r\n"));
        expect_ok(parse(text));
        const struct deed_new_event *got = &parsed.event;
        assert_true(uuid_equal(got->id, event->id));
        assert_true(parsed.position == event->position);
        assert_true(parsed.revision == event->revision);
        assert_true(parsed.recorded_at_ns == event->recorded_at_ns);
        assert_true(got->time_ns == event->time_ns);
        expect_same_text(got->stream, event->stream);
        expect_same_text(got->type, event->type);
        expect_same_text(got->content_type, event->content_type);
        expect_same_text(got->correlation_id, event->correlation_id);
        expect_same_text(got->causation_id, event->causation_id);
        expect_same_text(got->actor, event->actor);
        expect_bytes(got->data, event->data);
        expect_bytes(got->metadata, event->metadata);
        assert_int_equal(got->tag_count, event->tag_count);
        for (size_t i = 0; i < event->tag_count; i++) {
            expect_same_text(got->tags[i], event->tags[i]);
        }
    }
}

TEST(cloudevent, an_event_is_a_cloudevent)
{
    fresh();
    struct deed_event event = sample();
    assert_string_equal(text_of(&event, 0),
                        "{\"specversion\":\"1.0\",\"id\":\"" EVENT_ID
                        "\",\"source\":\"/deedbook/" LOG_ID
                        "\",\"type\":\"OrderCreated\",\"subject\":\"order-1\","
                        "\"time\":\"2023-11-14T22:13:20.123456789Z\","
                        "\"revision\":\"9007199254740993\",\"position\":\"18446744073709551614\","
                        "\"recordedat\":\"2023-11-14T22:13:21.000000000Z\","
                        "\"datacontenttype\":\"application/json\",\"data\":{\"a\":1.0}}");
}

TEST(cloudevent, every_field_comes_back)
{
    fresh();
    struct deed_event event = sample();
    const deed_str tags[] = {DEED_STR("order:1"), DEED_STR("50%,off"), DEED_STR("\xc3\xa4 \"x\"")};
    event.tags = tags;
    event.tag_count = 3;
    event.correlation_id = DEED_STR("c \\ 1");
    event.causation_id = DEED_STR("d\t2");
    event.actor = DEED_STR("anna");
    event.metadata = deed_bytes_of(DEED_STR(" {\"k\" : \"\\u00e4\"}\n"));
    expect_round_trip(&event);
}

/* Where it was read is nothing of the event's: it goes out, and is not taken for an extension. */
TEST(cloudevent, the_place_in_a_virtual_stream_goes_out_and_is_not_stored)
{
    fresh();
    struct deed_event event = sample();
    assert_null(strstr(text_of(&event, 0), "link"));
    event.link_stream = DEED_STR("$ce-order");
    event.link_revision = 9007199254740995u;
    const char *text = text_of(&event, 0);
    assert_non_null(strstr(
        text, ",\"linkstream\":\"$ce-order\",\"linkrevision\":\"9007199254740995\""));
    assert_non_null(strstr(text, "\"revision\":\"9007199254740993\""));
    expect_ok(parse(text));
    assert_int_equal(parsed.event.metadata.len, 0);
    expect_str(parsed.event.stream, "order-1");
}

TEST(cloudevent, data_comes_back_to_the_byte)
{
    static const struct {
        const char *type, *data;
    } cases[] = {
        {"application/json", "null"},
        {"application/json", "\"text\""},
        {"application/json", " {\n  \"a\": 1,\r\n \"b\": [ ] }\n"},
        {"application/json", "{\n\"a\":1}"},
        {"application/json", "1.50e+3"},
        {"application/json", "{\"a\":\"\\u0041\\/\"}"},
        {"application/json", "not json at all"},
        {"application/json", "\xff\xfe"},
        {"application/vnd.shop+json; charset=utf-8", "{\"a\":12345678901234567890}"},
        {"text/plain", "plain \n text"},
        {"text/plain", ""},
        {"application/octet-stream", "\x01\x02\xff"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        fresh();
        struct deed_event event = sample();
        event.content_type = deed_str_of(cases[i].type);
        event.data = deed_bytes_of(deed_str_of(cases[i].data));
        expect_round_trip(&event);
    }
}

TEST(cloudevent, metadata_that_is_not_utf8_comes_back)
{
    fresh();
    struct deed_event event = sample();
    event.metadata = deed_bytes_of(DEED_STR("\x80\x00\x01"));
    assert_non_null(strstr(text_of(&event, 0), "\"metadatabase64\":\"gAAB\""));
    event.metadata = (deed_bytes){(const uint8_t *)"no json", 7};
    assert_non_null(strstr(text_of(&event, 0), "\"metadata\":\"no json\""));
    assert_non_null(
        strstr(text_of(&event, CLOUDEVENT_EXACT), "\"metadatabase64\":\"bm8ganNvbg==\""));
    expect_round_trip(&event);
}

TEST(cloudevent, line_breaks_in_data_become_spaces_in_a_line)
{
    fresh();
    struct deed_event event = sample();
    event.data = deed_bytes_of(DEED_STR("{\r\n\"a\":\"\\n\"}"));
    assert_non_null(strstr(text_of(&event, CLOUDEVENT_LINE), "\"data\":{  \"a\":\"\\n\"}"));
    assert_non_null(strstr(text_of(&event, 0), "\"data\":{\r\n\"a\":\"\\n\"}"));
    assert_non_null(
        strstr(text_of(&event, CLOUDEVENT_LINE | CLOUDEVENT_EXACT), "\"data_base64\":\"ew0K"));
}

TEST(cloudevent, data_that_is_not_json_goes_out_as_base64)
{
    fresh();
    struct deed_event event = sample();
    event.data = deed_bytes_of(DEED_STR("{\"a\":}"));
    assert_non_null(strstr(text_of(&event, 0), "\"data_base64\":\"eyJhIjp9\"}"));
    event.content_type = DEED_STR("text/plain");
    event.data = deed_bytes_of(DEED_STR("hi"));
    assert_non_null(strstr(text_of(&event, 0), "\"data_base64\":\"aGk=\"}"));
}

#define FOREIGN "{\"specversion\":\"1.0\",\"source\":\"/shop\",\"type\":\"T\",\"subject\":\"s-1\","

TEST(cloudevent, a_foreign_event_keeps_everything)
{
    fresh();
    expect_ok(parse(FOREIGN
                    "\"id\":\"A-1\",\"traceparent\":\"00-1\",\"sequence\":7,\"position\":\"left\","
                    "\"nothing\":null,\"dataschema\":\"http://x/y\",\"data\":[1]}"));
    expect_bytes(parsed.event.metadata,
                 deed_bytes_of(DEED_STR("{\"cloudevents\":{\"traceparent\":\"00-1\",\"sequence\":7,"
                                        "\"dataschema\":\"http://x/y\",\"source\":\"/shop\","
                                        "\"id\":\"A-1\",\"position\":\"left\"}}")));
    assert_true(parsed.position == DEED_NONE);
    expect_str(parsed.event.stream, "s-1");
    expect_bytes(parsed.event.data, deed_bytes_of(DEED_STR("[1]")));
}

TEST(cloudevent, a_foreign_id_yields_the_same_uuid_each_time)
{
    fresh();
    expect_ok(parse(FOREIGN "\"id\":\"A-1\"}"));
    deed_uuid first = parsed.event.id;
    expect_ok(parse(FOREIGN "\"id\":\"A-1\",\"data\":1}"));
    assert_true(uuid_equal(first, parsed.event.id));
    expect_ok(parse(FOREIGN "\"id\":\"A-2\"}"));
    assert_false(uuid_equal(first, parsed.event.id));
    assert_int_equal(first.bytes[6] >> 4, 8);
    assert_int_equal(first.bytes[8] >> 6, 2);
}

TEST(cloudevent, a_foreign_uuid_is_kept)
{
    fresh();
    expect_ok(parse(FOREIGN "\"id\":\"" EVENT_ID "\"}"));
    assert_true(uuid_equal(parsed.event.id, uuid_of(EVENT_ID)));
}

TEST(cloudevent, what_is_kept_joins_metadata_that_is_there)
{
    fresh();
    expect_ok(parse(FOREIGN "\"id\":\"" EVENT_ID "\",\"metadata\":\" {\\\"u\\\": 1 } \"}"));
    expect_bytes(parsed.event.metadata,
                 deed_bytes_of(DEED_STR("{\"u\": 1 ,\"cloudevents\":{\"source\":\"/shop\"}}")));
    expect_ok(parse(FOREIGN "\"id\":\"" EVENT_ID "\",\"metadata\":\"{}\"}"));
    expect_bytes(parsed.event.metadata,
                 deed_bytes_of(DEED_STR("{\"cloudevents\":{\"source\":\"/shop\"}}")));
    expect_refused(FOREIGN "\"id\":\"" EVENT_ID "\",\"metadata\":\"[1]\"}",
                   "metadata: there is no room");
    expect_refused(FOREIGN "\"id\":\"" EVENT_ID "\",\"metadata\":\"{\\\"cloudevents\\\":1}\"}",
                   "metadata: there is no room");
    expect_refused(FOREIGN "\"id\":\"" EVENT_ID "\",\"metadata\":\"{\"}", "metadata: json");
}

TEST(cloudevent, the_path_names_the_stream)
{
    fresh();
    json_value root;
    const deed_str text = DEED_STR(FOREIGN "\"id\":\"" EVENT_ID "\"}");
    expect_ok(json_parse(&arena, deed_bytes_of(text), 0, &root, &err));
    expect_ok(cloudevent_parse(&arena, root, DEED_STR("other"), &parsed, &err));
    expect_str(parsed.event.stream, "other");
    expect_bytes(parsed.event.metadata,
                 deed_bytes_of(
                     DEED_STR("{\"cloudevents\":{\"source\":\"/shop\",\"subject\":\"s-1\"}}")));
}

TEST(cloudevent, tags_may_be_a_list)
{
    fresh();
    expect_ok(parse(FOREIGN "\"id\":\"" EVENT_ID "\",\"tags\":[\"a,b\",\"c\"]}"));
    assert_int_equal(parsed.event.tag_count, 2);
    expect_str(parsed.event.tags[0], "a,b");
    expect_ok(parse(FOREIGN "\"id\":\"" EVENT_ID "\",\"tags\":\"a%2cb,c\"}"));
    assert_int_equal(parsed.event.tag_count, 2);
    expect_str(parsed.event.tags[0], "a,b");
    expect_str(parsed.event.tags[1], "c");
}

TEST(cloudevent, no_data_is_null_in_json_and_nothing_elsewhere)
{
    fresh();
    expect_ok(parse(FOREIGN "\"id\":\"1\"}"));
    expect_bytes(parsed.event.data, deed_bytes_of(DEED_STR("null")));
    expect_ok(parse(FOREIGN "\"id\":\"1\",\"datacontenttype\":\"text/plain\"}"));
    assert_int_equal(parsed.event.data.len, 0);
}

TEST(cloudevent, text_under_another_content_type_is_the_data)
{
    fresh();
    expect_ok(parse(FOREIGN "\"id\":\"1\",\"datacontenttype\":\"text/xml\",\"data\":\"<a\\/>\"}"));
    expect_bytes(parsed.event.data, deed_bytes_of(DEED_STR("<a/>")));
    expect_ok(parse(FOREIGN "\"id\":\"1\",\"datacontenttype\":\"text/xml\",\"data\":{\"a\":1}}"));
    expect_bytes(parsed.event.data, deed_bytes_of(DEED_STR("{\"a\":1}")));
}

TEST(cloudevent, what_is_wrong_is_named)
{
    expect_refused("[]", "an array, where an object");
    expect_refused("{}", "specversion is missing");
    expect_refused("{\"specversion\":\"0.3\"}", "\"0.3\" is not \"1.0\"");
    expect_refused("{\"specversion\":1}", "specversion: 1 is not a text");
    expect_refused("{\"specversion\":\"1.0\"}", "id is missing");
    expect_refused("{\"specversion\":\"1.0\",\"id\":\"\"}",
                   "id: \"\" is not a text that is not empty");
    expect_refused("{\"specversion\":\"1.0\",\"id\":\"1\"}", "source is missing");
    expect_refused("{\"specversion\":\"1.0\",\"id\":\"1\",\"source\":\"s\"}", "type is missing");
    expect_refused("{\"specversion\":\"1.0\",\"id\":\"1\",\"source\":\"s\",\"type\":\"t\"}",
                   "subject is missing");
    expect_refused(FOREIGN "\"id\":\"1\",\"time\":\"noon\"}", "time: \"noon\" is not a time");
    expect_refused(FOREIGN "\"id\":\"1\",\"tags\":7}", "tags: 7 is not a text");
    expect_refused(FOREIGN "\"id\":\"1\",\"tags\":[7]}", "tags: [7] is not a list of texts");
    expect_refused(FOREIGN "\"id\":\"1\",\"tags\":\"50%\"}", "% needs two hex digits");
    expect_refused(FOREIGN "\"id\":\"1\",\"tags\":\"%ff\"}", "tags");
    expect_refused(FOREIGN "\"id\":\"1\",\"Big\":1}", "attribute \"Big\"");
    expect_refused(FOREIGN "\"id\":\"1\",\"deep\":{}}", "attribute deep: an object");
    expect_refused(FOREIGN "\"id\":\"1\",\"data\":1,\"data_base64\":\"\"}", "both given");
    expect_refused(FOREIGN "\"id\":\"1\",\"data_base64\":\"a\"}", "data_base64 is not base64");
    expect_refused(FOREIGN "\"id\":\"1\",\"metadatabase64\":7}", "metadatabase64 is not base64");
    expect_refused(FOREIGN "\"id\":\"1\",\"metadata\":\"{}\",\"metadatabase64\":\"\"}",
                   "both given");
    expect_refused(
        "{\"specversion\":\"1.0\",\"source\":\"/deedbook/x\",\"type\":\"T\",\"subject\":\"s\","
        "\"id\":\"1\",\"revision\":\"x\"}",
        "revision: \"x\" is not a whole number");
    expect_refused("{\"a\":1,\"a\":2}", "duplicate");
}

TEST(cloudevent, data_as_deep_as_the_limit_is_taken)
{
    struct buf text;
    buf_init(&text, 4096);
    buf_add_str(&text, DEED_STR(FOREIGN "\"id\":\"1\",\"data\":"));
    for (int i = 0; i < 64; i++)
        buf_add_byte(&text, '[');
    for (int i = 0; i < 64; i++)
        buf_add_byte(&text, ']');
    buf_add_str(&text, DEED_STR("}"));
    buf_add_byte(&text, '\0');
    fresh();
    expect_ok(parse((const char *)text.ptr));
    assert_int_equal(parsed.event.data.len, 128);
    buf_done(&text);
}

TEST(cloudevent, a_full_arena_is_a_status)
{
    fresh();
    struct deed_event event = sample();
    event.content_type = DEED_STR("text/plain");
    event.metadata = deed_bytes_of(DEED_STR("{\"a\":\"b\"}"));
    char *text = strdup(text_of(&event, CLOUDEVENT_EXACT));
    size_t refused = 0;
    for (size_t size = 0; size < 8192; size += 64) {
        struct arena small;
        arena_init(&small, size);
        deed_status status = cloudevent_parse_text(&small, deed_bytes_of(deed_str_of(text)), 0,
                                                   (deed_str){0}, &parsed, &err);
        if (status != DEED_OK) {
            assert_true(status == DEED_NO_MEMORY || status == DEED_TOO_LARGE);
            refused++;
        }
        arena_done(&small);
    }
    assert_true(refused > 0 && refused < 8192 / 64);
    free(text);
    fresh();
    arena_done(&arena);
    buf_done(&out);
}

TEST_MAIN(cloudevent)
