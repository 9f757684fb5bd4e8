/* How answers look: nothing of an event reaches the terminal as a command. */
#include "test.h"

#include <unistd.h>

#include "cli/cli.h"
#include "cli/out.h"

static char text[4096];

/* What `print` writes to a file. */
#define printed(print)                                                                             \
    do {                                                                                           \
        FILE *file = fmemopen(text, sizeof text, "w");                                             \
        assert_non_null(file);                                                                     \
        print;                                                                                     \
        fclose(file);                                                                              \
    } while (0)

TEST(out, control_characters_are_escaped)
{
    printed(out_text(file, DEED_STR("a\x1b[31m\tb\x7f\xc2\x9b"
                                    "c\xc3\xa4")));
    assert_string_equal(text, "a\\x1b[31m\\x09b\\x7f\\xc2\\x9bc\xc3\xa4");
}

static void print_json(FILE *file, const char *source)
{
    struct arena arena;
    json_value value;
    arena_init(&arena, 1 << 20);
    expect_ok(json_parse(&arena, deed_bytes_of(deed_str_of(source)), 0, &value, NULL));
    out_json(file, value);
    arena_done(&arena);
}

TEST(out, json_is_indented_and_short_parts_stay_on_a_line)
{
    printed(print_json(file, "{\"a\" : [1, 2.50,\"x\\u001b\"],\"b\":{},\"c\":null}"));
    assert_string_equal(text,
                        "{\n  \"a\": [1,2.50,\"x\\u001b\"],\n  \"b\": {},\n  \"c\": null\n}\n");
}

TEST(out, a_table_in_a_file_is_not_cut)
{
    static const struct out_column columns[] = {{"NAME", 0}, {"COUNT", OUT_RIGHT}, {"X", OUT_CUT}};
    char wide[300];
    memset(wide, 'w', sizeof wide - 1);
    wide[sizeof wide - 1] = '\0';
    struct out_table *table = out_table_create(columns, 3);
    out_table_row(table);
    out_table_cell(table, "a\x1b[0m");
    out_table_cell(table, "%d", 7);
    out_table_cell(table, "%s", wide);
    assert_int_equal(out_table_count(table), 1);
    printed(assert_true(out_table_print(table, file)));
    out_table_destroy(table);
    assert_non_null(strstr(text, wide));
    assert_null(strchr(text, '\x1b'));
    assert_memory_equal(text, "NAME ", 5);
}

TEST(out, the_heading_comes_once)
{
    static const struct out_column columns[] = {{"NAME", 0}};
    struct out_table *table = out_table_create(columns, 1);
    for (int page = 0; page < 2; page++) {
        out_table_row(table);
        out_table_cell(table, "row");
        printed(assert_true(out_table_print(table, file)));
        assert_true((strstr(text, "NAME") != NULL) == (page == 0));
    }
    out_table_destroy(table);
}

TEST(out, a_table_without_memory_is_told_at_its_end)
{
    static const struct out_column columns[] = {{"NAME", 0}};
    struct deed_error err;
    struct out_table *table = out_table_create(columns, 1);
    out_table_row(table);
    out_table_cell(table, "row");
    printed(expect_ok(out_table_end(table, file, &err)));
    assert_string_equal(text, "NAME\nrow\n");
    printed(expect_status(DEED_NO_MEMORY, out_table_end(NULL, file, &err)));
    expect_message(err, "no memory for the table");
}

TEST(out, numbers_read_well)
{
    char number[OUT_NUMBER_SIZE];
    assert_string_equal(out_count(0, number), "0");
    assert_string_equal(out_count(999, number), "999");
    assert_string_equal(out_count(1000, number), "1,000");
    assert_string_equal(out_count(UINT64_MAX, number), "18,446,744,073,709,551,615");
    assert_string_equal(out_size(1023, number), "1023 B");
    assert_string_equal(out_size(1536, number), "1.5 KiB");
    assert_string_equal(out_time(950, number), "950 ns");
    assert_string_equal(out_time(1500, number), "1.5 us");
    assert_string_equal(out_time(41230000, number), "41.23 ms");
    assert_string_equal(out_seconds(93, number), "1m 33s");
    assert_string_equal(out_seconds(3700, number), "1h 01m");
}

TEST(out, progress_says_how_far_and_how_long)
{
    struct out_progress progress = {.what = "checking", .unit = "events", .all = 200};
    struct buf line;
    buf_init(&line, 512);
    out_progress_line(&line, &progress, 50, UINT64_C(1000000000));
    expect_str(buf_str(&line),
               "checking  [======>                 ]  25%  50 events  50/s  4s left");
    buf_done(&line);
}

TEST(cli, durations_have_units)
{
    uint32_t ms = 0;
    assert_true(cli_duration_parse("250ms", &ms) && ms == 250);
    assert_true(cli_duration_parse("10", &ms) && ms == 10000);
    assert_true(cli_duration_parse("10s", &ms) && ms == 10000);
    assert_true(cli_duration_parse("2m", &ms) && ms == 120000);
    assert_true(cli_duration_parse("1h", &ms) && ms == 3600000);
    assert_false(cli_duration_parse("", &ms));
    assert_false(cli_duration_parse("s", &ms));
    assert_false(cli_duration_parse("-1s", &ms));
    assert_false(cli_duration_parse("1.5s", &ms));
    assert_false(cli_duration_parse("1d", &ms));
    assert_false(cli_duration_parse("99999999h", &ms));
}

TEST(cli, every_status_has_an_exit_code)
{
    for (int i = 0; i < DEED_STATUS_COUNT; i++) {
        enum cli_exit code = cli_exit_of((deed_status)i);
        assert_true((code == CLI_OK) == (i == DEED_OK || i == DEED_END));
        assert_in_range(code, CLI_OK, CLI_STORAGE);
    }
}

TEST(cli, a_body_is_text_or_a_file_within_its_limit)
{
    struct deed_error err = {0};
    char *body = NULL;
    size_t size = 0;
    expect_ok(cli_body("{}", 10, &body, &size, &err));
    assert_string_equal(body, "{}");
    free(body);

    char path[] = "/tmp/deedbook-test-XXXXXX", argument[64];
    int file = mkstemp(path);
    assert_true(file >= 0);
    assert_int_equal(write(file, "12345", 5), 5);
    close(file);
    snprintf(argument, sizeof argument, "@%s", path);
    expect_ok(cli_body(argument, 5, &body, &size, &err));
    assert_int_equal(size, 5);
    assert_string_equal(body, "12345");
    free(body);
    expect_status(DEED_TOO_LARGE, cli_body(argument, 4, &body, &size, &err));
    expect_message(err, path);
    unlink(path);
    expect_status(DEED_NOT_FOUND, cli_body(argument, 5, &body, &size, &err));
}

TEST_MAIN(cli)
