/* test_json.c - every rule of json.h, over text that ends at an unmapped page. */
#include "test.h"

#include "json/json.h"

#include <locale.h>
#include <math.h>
#include <sys/mman.h>
#include <unistd.h>

static struct arena arena;
static struct deed_error error;
static json_value root;

/* The text, copied so that its last byte lies before a page that cannot be read. One at a time. */
static deed_bytes against_the_wall(const char *text, size_t len)
{
    static uint8_t *map;
    static size_t size;
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    if (map != NULL) munmap(map, size);
    size_t room = (len / page + 1) * page;
    size = room + page;
    map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(map != MAP_FAILED);
    assert_int_equal(mprotect(map + room, page, PROT_NONE), 0);
    if (len > 0) memcpy(map + room - len, text, len);
    return (deed_bytes){map + room - len, len};
}

static deed_status parse_sized(const char *text, size_t len, uint32_t depth)
{
    arena_done(&arena);
    arena_init(&arena, 64 << 20);
    error = (struct deed_error){0};
    deed_bytes bytes = against_the_wall(text, len);
    struct deed_error check_error = {0};
    deed_status check_status = json_check(bytes, depth, &check_error);
    root = (json_value){0};
    deed_status status = json_parse(&arena, bytes, depth, &root, &error);
    assert_int_equal(status, check_status);
    assert_string_equal(error.message, check_error.message);
    return status;
}

static deed_status parse(const char *text)
{
    return parse_sized(text, strlen(text), 0);
}

#define accepts(text) expect_ok(parse(text))
#define refuses(text, message)                                                             \
    do {                                                                                   \
        expect_status(DEED_INVALID, parse(text));                                          \
        expect_message(error, message);                                                    \
    } while (0)

TEST(json, each_kind_is_told)
{
    accepts(" {\"n\":null,\"t\":true,\"f\":false,\"i\":-12.5e+3,\"s\":\"x\",\"a\":[],\"o\":{}} ");
    assert_int_equal(json_kind_of(root), JSON_OBJECT);
    assert_int_equal(json_count(root), 7);
    assert_int_equal(json_kind_of(json_get(root, DEED_STR("n"))), JSON_NULL);
    assert_int_equal(json_kind_of(json_get(root, DEED_STR("t"))), JSON_TRUE);
    assert_int_equal(json_kind_of(json_get(root, DEED_STR("f"))), JSON_FALSE);
    assert_int_equal(json_kind_of(json_get(root, DEED_STR("i"))), JSON_NUMBER);
    assert_int_equal(json_kind_of(json_get(root, DEED_STR("s"))), JSON_STRING);
    assert_int_equal(json_kind_of(json_get(root, DEED_STR("a"))), JSON_ARRAY);
    assert_int_equal(json_kind_of(json_get(root, DEED_STR("o"))), JSON_OBJECT);
    assert_int_equal(json_kind_of(json_get(root, DEED_STR("?"))), JSON_NONE);
    assert_string_equal(json_kind_name(JSON_STRING), "a string");
    bool b = false;
    assert_true(json_bool(json_get(root, DEED_STR("t")), &b) && b);
    assert_true(json_bool(json_get(root, DEED_STR("f")), &b) && !b);
    assert_false(json_bool(root, &b));
}

TEST(json, raw_is_the_text_as_it_came)
{
    accepts("\n{ \"a\" : [ 1 , 2 ] , \"b\\n\" : 1.50 }\t");
    expect_str(json_raw(root), "{ \"a\" : [ 1 , 2 ] , \"b\\n\" : 1.50 }");
    expect_str(json_raw(json_get(root, DEED_STR("a"))), "[ 1 , 2 ]");
    expect_str(json_raw(json_get(root, DEED_STR("b\n"))), "1.50");
    assert_null(json_raw((json_value){0}).ptr);
}

TEST(json, scalars_alone_are_documents)
{
    const char *const texts[] = {"0", "-0", "1", "\"\"", "true", "false", "null", " [ ] ", "{}"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) accepts(texts[i]);
}

TEST(json, what_others_repair_is_refused)
{
    refuses("", "byte 0: the text ends where a value should be");
    refuses("  ", "byte 2: the text ends");
    refuses("[1,]", "byte 3: ']' where a value should be");
    refuses("{\"a\":1,}", "byte 7: '}' where a key in quotes");
    refuses("[1 2]", "byte 3: '2' where ',' or ']'");
    refuses("{\"a\" 1}", "':'");
    refuses("{\"a\":1 \"b\":2}", "',' or '}'");
    refuses("{a:1}", "a key in quotes");
    refuses("{1:1}", "a key in quotes");
    refuses("[1] x", "byte 4: 'x' where the end should be");
    refuses("[1]]", "the end");
    refuses("[", "the text ends where a value");
    refuses("{", "the text ends where a key");
    refuses("{\"a\":", "the text ends where a value");
    refuses("{\"a\"", "the text ends where ':'");
    refuses("[1", "',' or ']'");
    refuses("[1}", "'}' where ',' or ']'");
    refuses("{\"a\":1]", "']' where ',' or '}'");
    refuses("// c\n1", "'/'");
    refuses("[1,/**/2]", "'/'");
    refuses("NaN", "'N'");
    refuses("Infinity", "'I'");
    refuses("-Infinity", "'I' where a digit");
    refuses("tru", "'t' where a value");
    refuses("truee", "'e' where the end");
    refuses("nul", "a value");
    refuses("True", "'T'");
    refuses("'a'", "'''");
    refuses("\xef\xbb\xbf[]", "0xef where a value");
    refuses("[1\f]", "0x0c");
    refuses("[1\xc2\xa0]", "0xc2");
    expect_status(DEED_INVALID, parse_sized("[1\0]", 4, 0));
    expect_message(error, "0x00");
    expect_status(DEED_INVALID, parse_sized("1\0", 2, 0));
}

TEST(json, numbers_follow_the_grammar)
{
    const char *const good[] = {"0",   "-0",   "0.0",   "10",     "1e5",      "1E+5", "1e-05",
                                "0e0", "0.1e1", "1e400", "123456789012345678901234567890"};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        accepts(good[i]);
        expect_str(json_raw(root), good[i]);
    }
    refuses("01", "leading zero");
    refuses("-01", "leading zero");
    refuses("00", "leading zero");
    refuses("-", "a digit");
    refuses("+1", "'+'");
    refuses(".5", "'.'");
    refuses("1.", "behind the point");
    refuses("1.e5", "behind the point");
    refuses("1e", "of the exponent");
    refuses("1e+", "of the exponent");
    refuses("1e5.5", "'.' where the end");
    refuses("0x10", "'x' where the end");
    refuses("1_000", "'_'");
    refuses("- 1", "a digit");
}

static void expect_integer(const char *text, int64_t wanted)
{
    int64_t value = ~wanted;
    accepts(text);
    assert_true(json_int64(root, &value));
    assert_int_equal(value, wanted);
}

static void expect_no_integer(const char *text)
{
    int64_t value = 7;
    accepts(text);
    assert_false(json_int64(root, &value));
    assert_int_equal(value, 7);
}

TEST(json, integers_are_exact)
{
    expect_integer("9007199254740993", INT64_C(9007199254740993));
    expect_integer("9223372036854775807", INT64_MAX);
    expect_integer("-9223372036854775808", INT64_MIN);
    expect_integer("0", 0);
    expect_integer("-0", 0);
    expect_integer("-0.0e7", 0);
    expect_integer("0e99999999999999999999999", 0);
    expect_integer("12", 12);
    expect_integer("1e2", 100);
    expect_integer("1E2", 100);
    expect_integer("3.0", 3);
    expect_integer("-1.5e1", -15);
    expect_integer("100e-2", 1);
    expect_integer("0.00001e5", 1);
    expect_integer("12300.00e-2", 123);
    expect_integer("9.223372036854775807e18", INT64_MAX);
    expect_integer("1000000000000000000000e-3", INT64_C(1000000000000000000));
    expect_no_integer("9223372036854775808");
    expect_no_integer("-9223372036854775809");
    expect_no_integer("1.5");
    expect_no_integer("0.1");
    expect_no_integer("1e-1");
    expect_no_integer("1e19");
    expect_no_integer("1e400");
    expect_no_integer("1e99999999999999999999999");
    expect_no_integer("1e-99999999999999999999999");
    expect_no_integer("\"1\"");
    expect_no_integer("null");
}

TEST(json, unsigned_integers_reach_64_bits)
{
    uint64_t value = 0;
    accepts("18446744073709551615");
    assert_true(json_uint64(root, &value));
    assert_true(value == UINT64_MAX);
    accepts("1.8446744073709551615e19");
    assert_true(json_uint64(root, &value));
    assert_true(value == UINT64_MAX);
    accepts("18446744073709551616");
    assert_false(json_uint64(root, &value));
    accepts("-1");
    assert_false(json_uint64(root, &value));
    accepts("-0");
    assert_true(json_uint64(root, &value));
    assert_true(value == 0);
}

static void expect_double(const char *text, double wanted)
{
    double value = NAN;
    accepts(text);
    assert_true(json_double(root, &value));
    assert_memory_equal(&value, &wanted, sizeof value);
}

TEST(json, doubles_are_the_nearest)
{
    expect_double("0.1", 0.1);
    expect_double("-0", -0.0);
    expect_double("1e22", 1e22);
    expect_double("1e23", 1e23);
    expect_double("123.456e-7", 123.456e-7);
    expect_double("1.7976931348623157e308", 1.7976931348623157e308);
    expect_double("5e-324", 5e-324);
    expect_double("2.2250738585072011e-308", 2.2250738585072011e-308);
    expect_double("1e-400", 0.0);
    expect_double("1e-99999999999999999999", 0.0);
    expect_double("9007199254740993", 9007199254740992.0);
    expect_double("0e99999999999999999999", 0.0);
    double value = 0;
    accepts("1e400");
    assert_false(json_double(root, &value));
    accepts("-1e99999999999999999999");
    assert_false(json_double(root, &value));
    accepts("\"1\"");
    assert_false(json_double(root, &value));
}

TEST(json, a_double_with_a_thousand_digits_rounds_right)
{
    /* 1 + 2^-53, the midpoint, with a digit far behind that decides. */
    char text[1200] = "1.00000000000000011102230246251565404236316680908203125";
    size_t len = strlen(text);
    memset(text + len, '0', 1000);
    text[len + 1000] = '\0';
    expect_double(text, 1.0);
    text[len + 1000] = '1';
    text[len + 1001] = '\0';
    expect_double(text, 1.0000000000000002220446049250313);
}

TEST(json, doubles_do_not_depend_on_the_locale)
{
    if (setlocale(LC_NUMERIC, "de_DE.UTF-8") == NULL) (void)setlocale(LC_NUMERIC, "C.UTF-8");
    expect_double("1234567.8901234567890", 1234567.8901234567890);
    (void)setlocale(LC_NUMERIC, "C");
}

TEST(json, escapes_are_decoded)
{
    accepts("\"\\\"\\\\\\/\\b\\f\\n\\r\\t\\u0041\\u00e9\\u20AC\\uD83D\\ude00\"");
    expect_str(json_text(root), "\"\\/\b\f\n\r\tA\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80");
    accepts("\"a\\u0000b\"");
    assert_int_equal(json_text(root).len, 3);
    assert_memory_equal(json_text(root).ptr, "a\0b", 3);
    accepts("[\"a plain run, then an escape \\n and a plain run again that is long\"]");
    expect_str(json_text(json_at(root, 0)),
               "a plain run, then an escape \n and a plain run again that is long");
}

TEST(json, text_without_escapes_is_borrowed)
{
    accepts("\"plain\"");
    assert_ptr_equal(json_text(root).ptr, json_raw(root).ptr + 1);
}

TEST(json, bad_strings_are_refused)
{
    refuses("\"", "byte 0: a string without its closing quote");
    refuses("\"abc", "closing quote");
    refuses("\"abc\\", "closing quote");
    refuses("\"\\x41\"", "an escape that JSON does not know");
    refuses("\"\\u12\"", "four hexadecimal digits");
    refuses("\"\\u12g4\"", "four hexadecimal digits");
    refuses("\"\\u", "four hexadecimal digits");
    refuses("\"\\ud800\"", "a high surrogate alone");
    refuses("\"\\ud800\\u0041\"", "a high surrogate alone");
    refuses("\"\\ud800\\ud800\"", "a high surrogate alone");
    refuses("\"\\ud800\\ude0\"", "a high surrogate alone");
    refuses("\"\\udc00\"", "a low surrogate alone");
    refuses("\"a\tb\"", "byte 2: a raw control character");
    refuses("\"a\nb\"", "raw control");
    refuses("\"\x1f\"", "raw control");
    accepts("\"\x7f\"");
    expect_status(DEED_INVALID, parse_sized("\"a\0b\"", 5, 0));
    expect_message(error, "raw control");
}

TEST(json, control_characters_are_found_at_each_place)
{
    char text[80];
    for (size_t len = 1; len < 70; len++) {
        for (size_t bad = 1; bad <= len; bad++) {
            memset(text, 'x', len + 2);
            text[0] = text[len + 1] = '"';
            expect_ok(parse_sized(text, len + 2, 0));
            text[bad] = '\x01';
            expect_status(DEED_INVALID, parse_sized(text, len + 2, 0));
        }
    }
}

TEST(json, invalid_utf8_is_refused)
{
    const char *const bad[] = {
        "\"\xff\"", "\"\xc0\x80\"", "\"\xe0\x80\x80\"", "\"\xed\xa0\x80\"", "\"\xf4\x90\x80\x80\"",
        "\"\xc3\"", "\"\xe2\x82\"", "\"\x80\"", "{\"\xff\":1}",
        "\"long enough for a whole vector and then \xff some\"",
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) refuses(bad[i], "not UTF-8");
    accepts("\"\xf4\x8f\xbf\xbf\xed\x9f\xbf\xee\x80\x80\"");
}

TEST(json, duplicate_keys_are_refused)
{
    refuses("{\"a\":1,\"b\":2,\"a\":3}", "byte 13: duplicate key \"a\"");
    refuses("{\"a\":1,\"\\u0061\":2}", "duplicate key \"a\"");
    refuses("{\"\":1,\"\":2}", "duplicate key \"\"");
    refuses("[{\"x\":{\"k\":1,\"k\":1}}]", "duplicate key \"k\"");
    accepts("{\"a\":{\"a\":{\"a\":1}},\"b\":{\"a\":1}}");
    accepts("{\"a\":1,\"A\":2,\"a \":3,\"\":4,\"ab\":5,\"aab\":6,\"aaab\":7}");
    accepts("{\"abcdXefgh\":1,\"abcdYefgh\":2}");
    refuses("{\"abcdXefgh\":1,\"abcdYefgh\":2,\"abcdXefgh\":3}", "duplicate key \"abcdXefgh\"");
}

/* An object of `count` members; member `same_as` (if below count) takes the last one's key. */
static void wide_object(struct buf *out, size_t count, size_t same_as)
{
    buf_reset(out);
    buf_add_byte(out, '{');
    for (size_t i = 0; i < count; i++) {
        size_t key = i + 1 == count && same_as < count ? same_as : i;
        buf_printf(out, "%s\"key-%zu\":{\"a\":%zu}", i == 0 ? "" : ",", key, i);
    }
    buf_add_byte(out, '}');
}

TEST(json, duplicates_are_found_in_objects_of_every_size)
{
    struct buf text;
    buf_init(&text, 8 << 20);
    for (size_t count = 2; count < 140; count++) {
        wide_object(&text, count, SIZE_MAX);
        expect_ok(parse_sized((char *)text.ptr, text.len, 0));
        assert_int_equal(json_count(root), count);
        wide_object(&text, count, count / 2 == count - 1 ? 0 : count / 2);
        expect_status(DEED_INVALID, parse_sized((char *)text.ptr, text.len, 0));
        expect_message(error, "duplicate key \"key-");
    }
    buf_done(&text);
}

TEST(json, a_hundred_thousand_members_are_not_quadratic)
{
    struct buf text;
    buf_init(&text, 8 << 20);
    wide_object(&text, 100000, SIZE_MAX);
    expect_ok(parse_sized((char *)text.ptr, text.len, 0)); /* pairwise: minutes */
    assert_true(json_equal(root, root));
    wide_object(&text, 100000, 3);
    expect_status(DEED_INVALID, parse_sized((char *)text.ptr, text.len, 0));
    expect_message(error, "duplicate key \"key-3\"");
    buf_done(&text);
}

TEST(json, a_message_about_a_duplicate_key_is_one_line)
{
    refuses("{\"a\\nb\":1,\"a\\nb\":2}", "duplicate key \"a\"...");
    refuses("{\"\\u001b[2J\":1,\"\\u001b[2J\":2}", "duplicate key \"\"...");
    refuses("{\"a\x7f\":1,\"a\x7f\":2}", "duplicate key \"a\"...");
}

TEST(json, a_long_duplicate_key_is_cut_between_characters)
{
    char text[400] = "{\"";
    for (size_t i = 0; i < 50; i++) strcat(text, "\xe2\x82\xac");
    char key[200];
    strcpy(key, text + 2);
    strcat(text, "\":1,\"");
    strcat(text, key);
    strcat(text, "\":2}");
    refuses(text, "\xe2\x82\xac\"...");
}

static deed_status parse_nested(size_t depth, const char *open, const char *close, uint32_t max)
{
    static char text[1 << 16];
    text[0] = '\0';
    char *at = text;
    for (size_t i = 0; i < depth; i++) at = stpcpy(at, open);
    if (open[0] == '{') at = stpcpy(at, "1");
    for (size_t i = 0; i < depth; i++) at = stpcpy(at, close);
    return parse_sized(text, (size_t)(at - text), max);
}

TEST(json, depth_is_capped)
{
    expect_ok(parse_nested(63, "[", "]", 0));
    expect_ok(parse_nested(64, "[", "]", 0));
    expect_status(DEED_TOO_LARGE, parse_nested(65, "[", "]", 0));
    expect_message(error, "nested deeper than 64 levels");
    expect_ok(parse_nested(64, "{\"a\":", "}", 0));
    expect_status(DEED_TOO_LARGE, parse_nested(65, "{\"a\":", "}", 0));
    expect_ok(parse_nested(1, "[", "]", 1));
    expect_status(DEED_TOO_LARGE, parse_nested(2, "[", "]", 1));
    expect_ok(parse_nested(5000, "{\"a\":", "}", 5000));
    expect_status(DEED_TOO_LARGE, parse_nested(5001, "{\"a\":", "}", 5000));
    expect_status(DEED_TOO_LARGE, parse_nested(10000, "[", "", 0));
}

TEST(json, the_arena_limit_is_a_status)
{
    struct arena small;
    arena_init(&small, 8192);
    char text[6000];
    memset(text, '1', sizeof text);
    for (size_t i = 1; i < sizeof text; i += 2) text[i] = ',';
    text[0] = '[';
    text[sizeof text - 1] = ']';
    for (size_t i = 1; i + 1 < sizeof text; i++) text[i] = i % 2 == 1 ? '1' : ',';
    text[sizeof text - 2] = '1';
    text[sizeof text - 3] = '1';
    json_value v;
    struct deed_error err = {0};
    expect_status(DEED_TOO_LARGE,
                  json_parse(&small, (deed_bytes){(uint8_t *)text, sizeof text}, 0, &v, &err));
    expect_message(err, "memory limit, 8192 bytes");
    arena_done(&small);
}

TEST(json, tape_growth_keeps_what_was_there)
{
    struct buf text;
    buf_init(&text, 1 << 20);
    buf_add_byte(&text, '[');
    for (int i = 0; i < 30000; i++) buf_printf(&text, "%s%d", i == 0 ? "" : ",", i % 10);
    buf_add_byte(&text, ']');
    expect_ok(parse_sized((char *)text.ptr, text.len, 0));
    assert_int_equal(json_count(root), 30000);
    for (struct json_iterator i = json_iterate(root); json_next(&i);) {
        int64_t value = -1;
        assert_true(json_int64(i.value, &value));
        assert_int_equal(value, (int64_t)(i.index % 10));
    }
    buf_done(&text);
}

TEST(json, members_and_elements_are_found)
{
    accepts("{\"customer\":{\"address\":[{\"city\":\"Ulm\"},7],\"\":3},\"e\\n\":[[],{}]}");
    expect_str(json_text(json_path(root, DEED_STR("customer.address.0.city"))), "Ulm");
    int64_t seven = 0;
    assert_true(json_int64(json_path(root, DEED_STR("customer.address.1")), &seven));
    assert_int_equal(seven, 7);
    assert_int_equal(json_kind_of(json_path(root, DEED_STR("customer.address.2"))), JSON_NONE);
    assert_int_equal(json_kind_of(json_path(root, DEED_STR("customer.address.x"))), JSON_NONE);
    assert_int_equal(json_kind_of(json_path(root, DEED_STR("customer.address.-1"))), JSON_NONE);
    assert_int_equal(json_kind_of(json_path(root, DEED_STR("customer."))), JSON_NUMBER);
    assert_int_equal(json_kind_of(json_path(root, DEED_STR("customer.none.x"))), JSON_NONE);
    assert_int_equal(json_kind_of(json_path(root, DEED_STR("e\n.1"))), JSON_OBJECT);
    assert_true(json_path(root, DEED_STR("")).node == root.node);
    assert_int_equal(json_kind_of(json_at(root, 0)), JSON_NONE);
    assert_int_equal(json_count(json_get(root, DEED_STR("?"))), 0);
}

TEST(json, iterating_visits_all_in_order)
{
    accepts("{\"a\":[1,[2,[3]],4],\"b\\t\":{\"x\":1},\"c\":\"\\n\",\"\":0}");
    const char *const keys[] = {"a", "b\t", "c", ""};
    size_t count = 0;
    for (struct json_iterator i = json_iterate(root); json_next(&i); count++) {
        assert_int_equal(i.index, count);
        expect_str(i.key, keys[count]);
    }
    assert_int_equal(count, 4);
    struct json_iterator i = json_iterate(json_get(root, DEED_STR("a")));
    assert_true(json_next(&i));
    assert_null(i.key.ptr);
    expect_str(json_raw(i.value), "1");
    assert_true(json_next(&i));
    assert_true(json_next(&i));
    expect_str(json_raw(i.value), "4");
    assert_false(json_next(&i));
    assert_false(json_next(&i));
    i = json_iterate((json_value){0});
    assert_false(json_next(&i));
}

static bool equal(const char *a, const char *b)
{
    json_value x, y;
    struct arena both;
    arena_init(&both, 1 << 20);
    expect_ok(json_parse(&both, deed_bytes_of(deed_str_of(a)), 0, &x, NULL));
    expect_ok(json_parse(&both, deed_bytes_of(deed_str_of(b)), 0, &y, NULL));
    bool result = json_equal(x, y);
    assert_int_equal(result, json_equal(y, x));
    arena_done(&both);
    return result;
}

TEST(json, numbers_are_equal_by_exact_value)
{
    assert_true(equal("1.0", "1"));
    assert_true(equal("1e2", "100"));
    assert_true(equal("100", "1E2"));
    assert_true(equal("0.001", "1e-3"));
    assert_true(equal("-0", "0.00e5"));
    assert_true(equal("12.50", "1.25e1"));
    assert_true(equal("120.0e-1", "12"));
    assert_false(equal("9007199254740993", "9007199254740992"));
    assert_false(equal("1", "-1"));
    assert_false(equal("0.1", "0.10000000000000000000000000000001"));
    assert_false(equal("10", "1"));
    assert_false(equal("1e5", "1e-5"));
    assert_true(equal("1e99999999999999999999", "10e99999999999999999998"));
    assert_true(equal("1e100000000000000000000", "10e99999999999999999999"));
    assert_false(equal("1e100000000000000000001", "10e99999999999999999999"));
    assert_true(equal("0.1e-99999999999999999999", "1e-100000000000000000000"));
    assert_false(equal("1e99999999999999999999", "1e-99999999999999999999"));
    assert_true(equal("1000e999999999999999999", "1e1000000000000000002"));
    assert_false(equal("1e1000000000000000002", "1e2"));
}

TEST(json, values_are_equal_by_meaning)
{
    assert_true(equal("{\"a\":1,\"b\":[true,null]}", "{ \"b\":[true,null], \"a\":1.0 }"));
    assert_true(equal("\"\\u0041\"", "\"A\""));
    assert_false(equal("[1,2]", "[2,1]"));
    assert_false(equal("[1]", "[1,1]"));
    assert_false(equal("{\"a\":1}", "{\"a\":2}"));
    assert_false(equal("{\"a\":1}", "{\"b\":1}"));
    assert_false(equal("{}", "[]"));
    assert_false(equal("true", "false"));
    assert_false(equal("\"1\"", "1"));
    assert_true(equal("[{},[]]", "[{},[]]"));
}

TEST(json, wide_objects_are_equal_in_any_order)
{
    struct buf a, b;
    buf_init(&a, 1 << 20);
    buf_init(&b, 1 << 20);
    for (int i = 0; i < 1000; i++) buf_printf(&a, "%s\"k%d\":%d", i == 0 ? "{" : ",", i, i);
    for (int i = 999; i >= 0; i--) buf_printf(&b, "%s\"k%d\":%d.0", i == 999 ? "{" : ",", i, i);
    buf_printf(&a, "}");
    buf_printf(&b, "}");
    char *x = buf_take(&a), *y = buf_take(&b);
    assert_true(equal(x, y));
    char *found = strstr(y, "\"k500\":500");
    assert_non_null(found);
    found[9] = '1';
    assert_false(equal(x, y));
    free(x);
    free(y);
}

/* ---- writing ------------------------------------------------------------------------------ */

static struct buf out;
static struct json_writer w;

static void begin(void)
{
    buf_done(&out);
    buf_init(&out, 1 << 20);
    json_writer_init(&w, &out);
}

TEST(json, commas_and_colons_come_by_themselves)
{
    begin();
    json_object_begin(&w);
    json_member_text(&w, "t", DEED_STR("x"));
    json_member_text(&w, "none", (deed_str){0});
    json_member_int(&w, "i", INT64_MIN);
    json_member_uint(&w, "u", UINT64_MAX);
    json_member_bool(&w, "b", true);
    json_member_raw(&w, "r", deed_bytes_of(DEED_STR("[1, 2]")));
    json_key(&w, DEED_STR("a"));
    json_array_begin(&w);
    json_put_null(&w);
    json_put_uint_text(&w, 7);
    json_array_begin(&w);
    json_array_end(&w);
    json_object_begin(&w);
    json_object_end(&w);
    json_put_int(&w, 0);
    json_array_end(&w);
    json_member_bool(&w, "z", false);
    json_object_end(&w);
    assert_true(buf_ok(&out));
    expect_str(buf_str(&out), "{\"t\":\"x\",\"none\":null,\"i\":-9223372036854775808,"
                              "\"u\":18446744073709551615,\"b\":true,\"r\":[1, 2],"
                              "\"a\":[null,\"7\",[],{},0],\"z\":false}");
}

TEST(json, texts_are_escaped)
{
    begin();
    json_put_text(&w, DEED_STR("\"\\/\b\f\n\r\t\x01\x1f\x7f\xc3\xa9 end"));
    expect_str(buf_str(&out), "\"\\\"\\\\/\\b\\f\\n\\r\\t\\u0001\\u001f\x7f\xc3\xa9 end\"");
    begin();
    json_put_text(&w, (deed_str){"a\0b", 3});
    expect_str(buf_str(&out), "\"a\\u0000b\"");
    begin();
    json_put_text(&w, DEED_STR(""));
    expect_str(buf_str(&out), "\"\"");
}

TEST(json, bytes_that_are_not_utf8_go_out_as_replacement_characters)
{
    begin();
    json_put_text(&w, DEED_STR("a\xff\xc3\xa9\xe2\x82\"\xf0\x9f\x98\x80"));
    expect_str(buf_str(&out), "\"a\xef\xbf\xbd\xc3\xa9\xef\xbf\xbd\xef\xbf\xbd\\\""
                              "\xf0\x9f\x98\x80\"");
    expect_ok(json_check(buf_bytes(&out), 0, NULL));
}

TEST(json, every_string_survives_writing_and_parsing)
{
    uint32_t seed = 1;
    for (int round = 0; round < 3000; round++) {
        char text[64];
        seed = seed * 1664525 + 1013904223;
        size_t len = seed >> 16 & 63;
        for (size_t i = 0; i < len; i++) {
            seed = seed * 1664525 + 1013904223;
            text[i] = (char)(seed >> 24 & 0x7f);
        }
        begin();
        json_put_text(&w, (deed_str){text, len});
        expect_ok(parse_sized((char *)out.ptr, out.len, 0));
        assert_int_equal(json_text(root).len, len);
        assert_memory_equal(json_text(root).ptr, text, len);
    }
}

static void expect_written_double(double value, const char *wanted)
{
    begin();
    json_put_double(&w, value);
    expect_str(buf_str(&out), wanted);
}

TEST(json, doubles_go_out_short_and_come_back)
{
    expect_written_double(0.1, "0.1");
    expect_written_double(3.0, "3");
    expect_written_double(-0.0, "-0");
    expect_written_double(1e22, "1e+22");
    expect_written_double(5e-324, "5e-324");
    expect_written_double(-12.5, "-12.5");
    expect_written_double(9007199254740991.0, "9007199254740991");
    expect_written_double(1.7976931348623157e308, "1.7976931348623157e+308");
    expect_written_double(NAN, "null");
    expect_written_double(INFINITY, "null");
    uint64_t bits = 88172645463325252u;
    for (int i = 0; i < 20000; i++) {
        bits ^= bits << 13;
        bits ^= bits >> 7;
        bits ^= bits << 17;
        double value, back = 0;
        memcpy(&value, &bits, sizeof value);
        if (!isfinite(value)) continue;
        begin();
        json_put_double(&w, value);
        arena_reset(&arena);
        expect_ok(json_parse(&arena, buf_bytes(&out), 0, &root, NULL));
        assert_true(json_double(root, &back));
        assert_memory_equal(&value, &back, sizeof value);
    }
}

TEST(json, a_full_buffer_shows_once_at_the_end)
{
    begin();
    struct buf small;
    buf_init(&small, 16);
    json_writer_init(&w, &small);
    json_array_begin(&w);
    for (int i = 0; i < 100; i++) json_put_text(&w, DEED_STR("text"));
    json_array_end(&w);
    assert_false(buf_ok(&small));
    buf_done(&small);
}

TEST_MAIN(json)
