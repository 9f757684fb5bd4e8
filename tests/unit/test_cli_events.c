/* Events as a target sends them, and as people see them. */
#include "test.h"

#include "cli/events.h"

static struct arena arena;

static struct events_view parsed(const char *line)
{
    struct events_view view;
    arena_init(&arena, 1 << 20);
    expect_ok(events_parse(&arena, deed_str_of(line), true, &view, NULL));
    return view;
}

TEST(events, an_event_is_read_with_numbers_that_are_texts)
{
    struct events_view view = parsed(
        "{\"id\":\"i\",\"type\":\"T\",\"subject\":\"s-1\",\"position\":\"18446744073709551614\","
        "\"revision\":\"7\",\"time\":\"2026-11-23T04:07:09.123456789Z\",\"actor\":\"anna\","
        "\"data\":{ \"a\" : [1, 2] }}");
    expect_str(view.stream, "s-1");
    expect_str(view.type, "T");
    expect_str(view.actor, "anna");
    expect_str(view.data, "{\"a\":[1,2]}");
    assert_true(view.position == UINT64_MAX - 1 && view.revision == 7 && view.place == 7);
    arena_done(&arena);
}

/* Who follows a virtual stream goes on behind the place there. */
TEST(events, an_event_of_a_virtual_stream_has_its_place_there)
{
    struct events_view view =
        parsed("{\"type\":\"T\",\"subject\":\"s-1\",\"position\":\"5\",\"revision\":\"7\","
               "\"linkstream\":\"$ce-s\",\"linkrevision\":\"3\",\"data\":1}");
    assert_true(view.revision == 7 && view.place == 3);
    arena_done(&arena);
}

TEST(events, what_is_not_there_is_empty)
{
    struct events_view view = parsed("{\"data_base64\":\"AAE=\"}");
    expect_str(view.data, "AAE=");
    assert_null(view.stream.ptr);
    assert_true(view.position == DEED_NONE && view.revision == DEED_NONE);
    arena_done(&arena);
}

TEST(events, a_line_that_is_no_json_is_an_error)
{
    struct events_view view;
    struct deed_error err = {0};
    arena_init(&arena, 1 << 20);
    expect_status(DEED_INVALID, events_parse(&arena, DEED_STR("{\"cut\":"), false, &view, &err));
    expect_message(err, "no event");
    arena_done(&arena);
}

TEST(events, times_are_shortened_and_anything_else_stays)
{
    char text[32];
    expect_str(events_time_short(DEED_STR("2026-11-23T04:07:09.123456789Z"), text),
               "2026-11-23 04:07:09.123");
    expect_str(events_time_short(DEED_STR("yesterday"), text), "yesterday");
    expect_str(events_time_short(DEED_STR(""), text), "");
}

TEST(events, a_filter_becomes_the_url_that_asks_for_it)
{
    struct url url;
    struct events_filter filter = {.after = "5", .limit = 2, .system = true, .follow = true};
    cli_list_add(&filter.types, "A B");
    cli_list_add(&filter.types, "C");
    cli_list_add(&filter.tags, "t:1");
    events_url(&url, &filter);
    assert_string_equal(url_text(&url), "/events?after=5&type=A%20B&type=C&tag=t%3A1&system=true"
                                        "&limit=2&follow=true");
    url_done(&url);

    filter = (struct events_filter){.stream = "a/1", .from = "3", .until = "9", .backwards = true};
    events_url(&url, &filter);
    assert_string_equal(url_text(&url), "/streams/a%2F1?from=3&until=9&direction=backwards");
    url_done(&url);
}

TEST(events, a_line_for_people_has_all_of_it)
{
    char text[512];
    FILE *file = fmemopen(text, sizeof text, "w");
    struct events_view view =
        parsed("{\"type\":\"T\",\"subject\":\"s\\u001b-1\",\"position\":\"5\",\"revision\":\"0\","
               "\"time\":\"2026-11-23T04:07:09.123456789Z\",\"data\":\"x\"}");
    assert_non_null(file);
    events_print_line(file, &view);
    fclose(file);
    assert_string_equal(text, "5  s\\x1b-1@0  T  2026-11-23 04:07:09.123  \"x\"\n");
    arena_done(&arena);
}

TEST_MAIN(events)
