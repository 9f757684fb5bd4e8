/* Between JSON and structs that describe themselves: every kind, at its limits. */
#include "test.h"

#include "domain/binding.h"

#include <math.h>

DEED_STRUCT(point, DEED_INT(x, DEED_MIN(-10), DEED_MAX(10)), DEED_INT(y));

DEED_STRUCT(everything, DEED_TEXT(text, DEED_NOT_EMPTY, DEED_SIZE_MAX(8)),
            DEED_TEXT(maybe, DEED_OPTIONAL), DEED_TEXT(colour, DEED_ONE_OF("red", "green")),
            DEED_DATE(date), DEED_TIME(time), DEED_UUID(uuid), DEED_JSON(json), DEED_INT(integer),
            DEED_DOUBLE(number, DEED_MIN(0)), DEED_BOOL(flag), DEED_OPTIONAL_INT(maybe_integer),
            DEED_OPTIONAL_DOUBLE(maybe_number), DEED_OPTIONAL_BOOL(maybe_flag),
            DEED_OBJECT(point, point), DEED_OPTIONAL_OBJECT(maybe_point, point),
            DEED_LIST(points, point, DEED_SIZE_MAX(3)), DEED_TEXTS(texts, DEED_NOT_EMPTY),
            DEED_MAP(named, point, DEED_OPTIONAL));

DEED_STRUCT(tree, DEED_TEXT(name), DEED_LIST(children, tree, DEED_OPTIONAL));

#define WHOLE                                                                                      \
    "{\"text\":\"ä\",\"maybe\":null,\"colour\":\"red\",\"date\":\"2024-02-29\","                  \
    "\"time\":\"2026-11-23T04:07:09Z\",\"uuid\":\"01234567-89ab-cdef-0123-456789abcdef\","         \
    "\"json\":{\"any\":[1,2]},\"integer\":-9223372036854775808,\"number\":1.5,\"flag\":true,"      \
    "\"maybe_integer\":null,\"maybe_number\":null,\"maybe_flag\":null,"                            \
    "\"point\":{\"x\":1,\"y\":2},\"maybe_point\":null,\"points\":[{\"x\":3,\"y\":4}],"             \
    "\"texts\":[\"a\",\"\"],\"named\":{\"k\":{\"x\":5,\"y\":6}}}"

static struct arena arena;
static struct deed_error err;

static void start(void)
{
    arena_init(&arena, 1 << 24);
}

static void stop(void)
{
    arena_done(&arena);
}

static deed_status read_as(const struct deed_type *type, const char *text, enum bind_rule rule,
                           void *out)
{
    json_value root;
    expect_ok(json_parse(&arena, deed_bytes_of(deed_str_of(text)), 0, &root, &err));
    return bind_read(type, root, rule, &arena, out, &err);
}

/* WHOLE with one member's text replaced. */
static char *with(const char *old, const char *new)
{
    static char text[8192];
    const char *at = strstr(WHOLE, old);
    assert_non_null(at);
    snprintf(text, sizeof text, "%.*s%s%s", (int)(at - WHOLE), WHOLE, new, at + strlen(old));
    return text;
}

static void expect_wrong(const char *old, const char *new, const char *message)
{
    struct everything e;
    expect_status(DEED_INVALID, read_as(&deed_type_everything, with(old, new), BIND_EXACT, &e));
    assert_string_equal(err.message, message);
}

TEST(binding, every_kind_is_read_and_written_back)
{
    start();
    struct everything e, copy;
    expect_ok(bind_check(&deed_type_everything, &err));
    expect_ok(read_as(&deed_type_everything, WHOLE, BIND_EXACT, &e));
    expect_str(e.text, "ä");
    assert_null(e.maybe.ptr);
    assert_true(e.integer == INT64_MIN);
    assert_true(e.flag && !e.maybe_flag.has && e.maybe_point == NULL);
    assert_int_equal(e.points.items[0].y, 4);
    expect_str(e.texts.items[1], "");
    expect_str(e.named.keys[0], "k");
    assert_int_equal(e.named.values[0].x, 5);

    assert_true(bind_copy(&deed_type_everything, &e, &arena, &copy));
    assert_ptr_not_equal(copy.text.ptr, e.text.ptr);
    assert_ptr_not_equal(copy.points.items, e.points.items);
    assert_ptr_not_equal(copy.named.keys[0].ptr, e.named.keys[0].ptr);
    memset(&e, 0xee, sizeof e);
    struct buf out;
    buf_init(&out, 1 << 16);
    expect_ok(bind_write(&deed_type_everything, &copy, BIND_EXACT, &out, &err));
    expect_str(buf_str(&out), WHOLE);
    buf_done(&out);
    stop();
}

TEST(binding, optional_members_may_be_absent_or_have_values)
{
    start();
    struct everything e;
    expect_ok(read_as(&deed_type_everything, with("\"maybe\":null,", ""), BIND_EXACT, &e));
    expect_ok(read_as(&deed_type_everything,
                      with("\"maybe_point\":null", "\"maybe_point\":{\"x\":0,\"y\":9}"), BIND_EXACT,
                      &e));
    assert_int_equal(e.maybe_point->y, 9);
    expect_ok(read_as(&deed_type_everything, with("\"maybe_integer\":null", "\"maybe_integer\":0"),
                      BIND_EXACT, &e));
    assert_true(e.maybe_integer.has && e.maybe_integer.value == 0);
    expect_ok(read_as(&deed_type_everything, with("\"maybe_number\":null", "\"maybe_number\":0.25"),
                      BIND_EXACT, &e));
    assert_true(e.maybe_number.has && e.maybe_number.value > 0.2);
    expect_ok(read_as(&deed_type_everything, with("\"maybe_flag\":null", "\"maybe_flag\":false"),
                      BIND_EXACT, &e));
    assert_true(e.maybe_flag.has && !e.maybe_flag.value);
    expect_ok(
        read_as(&deed_type_everything, with("{\"k\":{\"x\":5,\"y\":6}}", "null"), BIND_EXACT, &e));
    assert_int_equal(e.named.count, 0);
    stop();
}

TEST(binding, what_does_not_fit_is_told_by_path)
{
    start();
    expect_wrong("\"ä\"", "7", "text: expected a text, came 7");
    expect_wrong("\"ä\"", "\"\"", "text: expected a text that is not empty");
    expect_wrong("\"ä\"", "\"123456789\"", "text: expected at most 8 bytes, came 9");
    expect_wrong("\"ä\"", "null", "text: expected a text, came null");
    expect_wrong("\"red\"", "\"blue\"", "colour: expected one of red, green, came \"blue\"");
    expect_wrong("\"2024-02-29\"", "\"2023-02-29\"",
                 "date: expected a date, YYYY-MM-DD, came \"2023-02-29\"");
    expect_wrong("\"2026-11-23T04:07:09Z\"", "\"noon\"",
                 "time: expected a time, as 2026-11-23T04:07:09Z, came \"noon\"");
    expect_wrong("\"01234567-89ab-cdef-0123-456789abcdef\"", "\"0\"",
                 "uuid: expected a UUID, came \"0\"");
    expect_wrong("-9223372036854775808", "9223372036854775808",
                 "integer: expected an integer, came 9223372036854775808");
    expect_wrong("-9223372036854775808", "true", "integer: expected an integer, came true");
    expect_wrong("\"number\":1.5", "\"number\":-0.5", "number: expected at least 0, came -0.5");
    expect_wrong("\"number\":1.5", "\"number\":\"1\"", "number: expected a number, came \"1\"");
    expect_wrong("\"flag\":true", "\"flag\":1", "flag: expected true or false, came 1");
    expect_wrong("{\"x\":1,\"y\":2}", "[1,2]", "point: expected an object, came an array");
    expect_wrong("{\"x\":1,\"y\":2}", "{\"x\":11,\"y\":2}",
                 "point.x: expected at most 10, came 11");
    expect_wrong("{\"x\":1,\"y\":2}", "{\"x\":-11,\"y\":2}",
                 "point.x: expected at least -10, came -11");
    expect_wrong("{\"x\":1,\"y\":2}", "{\"x\":1}", "point.y is missing");
    expect_wrong("[{\"x\":3,\"y\":4}]", "{}", "points: expected a list, came an object");
    expect_wrong("{\"x\":3,\"y\":4}", "{\"x\":3,\"y\":4},{\"x\":3,\"z\":4}",
                 "points.1.z is unknown; points.1.y is missing");
    expect_wrong("[{\"x\":3,\"y\":4}]",
                 "[{\"x\":3,\"y\":4},{\"x\":3,\"y\":4},{\"x\":3,\"y\":4},{\"x\":3,\"y\":4}]",
                 "points: expected at most 3 items, came 4");
    expect_wrong("[\"a\",\"\"]", "[]", "texts: expected at least 1 item, came 0");
    expect_wrong("[\"a\",\"\"]", "[\"a\",null]", "texts.1: expected a text, came null");
    expect_wrong("{\"k\":{\"x\":5", "{\"k\":{\"x\":null",
                 "named.k.x: expected an integer, came null");
    expect_wrong("\"json\":{\"any\":[1,2]},", "", "json is missing");
    struct everything e;
    expect_status(DEED_INVALID, read_as(&deed_type_everything, "[]", BIND_EXACT, &e));
    assert_string_equal(err.message, "the body: expected an object, came an array");
    expect_status(DEED_INVALID, read_as(&deed_type_everything, "{}", BIND_EXACT, &e));
    expect_message(err, "text is missing; colour is missing; date is missing");
    stop();
}

TEST(binding, many_mistakes_end_with_a_whole_one)
{
    start();
    static char text[200000] = "{";
    char *at = text + 1;
    for (int i = 0; i < 2000; i++) {
        at += sprintf(at, "%s\"an unknown member whose name is rather long, number %d\":0",
                      i == 0 ? "" : ",", i);
    }
    strcpy(at, "}");
    struct point p;
    expect_status(DEED_INVALID, read_as(&deed_type_point, text, BIND_EXACT, &p));
    assert_true(strlen(err.message) < DEED_MESSAGE_SIZE);
    const char *end = err.message + strlen(err.message) - strlen(" is unknown");
    assert_string_equal(end, " is unknown");
    stop();
}

TEST(binding, stored_events_are_read_leniently)
{
    start();
    struct everything e;
    expect_ok(read_as(&deed_type_everything,
                      "{\"colour\":\"violet\",\"later\":[1],\"point\":null,\"points\":[{}],"
                      "\"text\":\"longer than eight bytes\",\"date\":\"some day\",\"number\":-7}",
                      BIND_STORED, &e));
    expect_str(e.colour, "violet");
    expect_str(e.date, "some day");
    assert_null(e.maybe.ptr);
    assert_int_equal(e.point.x, 0);
    assert_int_equal(e.points.count, 1);
    assert_int_equal(e.integer, 0);
    expect_status(DEED_INVALID,
                  read_as(&deed_type_everything, "{\"integer\":\"1\"}", BIND_STORED, &e));
    assert_string_equal(err.message, "integer: expected an integer, came \"1\"");
    stop();
}

TEST(binding, only_what_fits_is_written_exactly)
{
    start();
    struct everything e;
    struct buf out;
    buf_init(&out, 1 << 16);
    expect_ok(read_as(&deed_type_everything, WHOLE, BIND_EXACT, &e));
    struct everything broken = e;
    broken.text = (deed_str){0};
    expect_status(DEED_INVALID, bind_write(&deed_type_everything, &broken, BIND_EXACT, &out, &err));
    assert_string_equal(err.message, "text is missing");
    broken.text = (deed_str){"\xff", 1};
    expect_status(DEED_INVALID, bind_write(&deed_type_everything, &broken, BIND_EXACT, &out, &err));
    assert_string_equal(err.message, "text is not UTF-8");
    expect_status(DEED_INVALID,
                  bind_write(&deed_type_everything, &broken, BIND_STORED, &out, &err));
    broken = e;
    broken.number = NAN;
    expect_status(DEED_INVALID, bind_write(&deed_type_everything, &broken, BIND_EXACT, &out, &err));
    expect_message(err, "number: nan is no number");
    broken = e;
    broken.json = DEED_STR("{");
    expect_status(DEED_INVALID, bind_write(&deed_type_everything, &broken, BIND_EXACT, &out, &err));
    assert_string_equal(err.message, "json is not JSON");
    broken = e;
    broken.date = DEED_STR("2026-13-01");
    expect_status(DEED_INVALID, bind_write(&deed_type_everything, &broken, BIND_EXACT, &out, &err));
    expect_message(err, "date: expected a date");
    broken = e;
    broken.points.items[0].x = 11;
    expect_status(DEED_INVALID, bind_write(&deed_type_everything, &broken, BIND_EXACT, &out, &err));
    assert_string_equal(err.message, "points.0.x: expected at most 10, came 11");

    /* A state is written whatever it holds. */
    memset(&e, 0, sizeof e);
    buf_reset(&out);
    expect_ok(bind_write(&deed_type_everything, &e, BIND_STORED, &out, &err));
    expect_str(buf_str(&out),
               "{\"text\":null,\"maybe\":null,\"colour\":null,\"date\":null,\"time\":null,"
               "\"uuid\":null,\"json\":null,\"integer\":0,\"number\":0,\"flag\":false,"
               "\"maybe_integer\":null,\"maybe_number\":null,\"maybe_flag\":null,"
               "\"point\":{\"x\":0,\"y\":0},\"maybe_point\":null,\"points\":[],\"texts\":[],"
               "\"named\":{}}");
    buf_done(&out);
    buf_init(&out, 40);
    expect_status(DEED_TOO_LARGE, bind_write(&deed_type_everything, &e, BIND_STORED, &out, &err));
    buf_done(&out);
    stop();
}

TEST(binding, memory_ends_at_the_arenas_limit)
{
    start();
    static char text[40000] = "{\"name\":\"root\",\"children\":[";
    char *at = text + strlen(text);
    for (int i = 0; i < 1000; i++)
        at += sprintf(at, "%s{\"name\":\"n%d\"}", i == 0 ? "" : ",", i);
    strcpy(at, "]}");
    struct arena small;
    json_value root;
    struct tree tree, copy;
    expect_ok(json_parse(&arena, deed_bytes_of(deed_str_of(text)), 0, &root, &err));
    arena_init(&small, 8192);
    expect_status(DEED_NO_MEMORY,
                  bind_read(&deed_type_tree, root, BIND_EXACT, &small, &tree, &err));
    expect_ok(bind_read(&deed_type_tree, root, BIND_EXACT, &arena, &tree, &err));
    assert_int_equal(tree.children.count, 1000);
    arena_reset(&small);
    assert_false(bind_copy(&deed_type_tree, &tree, &small, &copy));
    arena_done(&small);
    stop();
}

TEST(binding, a_value_nested_in_itself_has_an_end)
{
    start();
    struct tree knot = {.name = DEED_STR("knot")};
    knot.children = (struct tree_list){.items = &knot, .count = 1};
    struct tree copy;
    struct buf out;
    buf_init(&out, 1 << 16);
    assert_false(bind_copy(&deed_type_tree, &knot, &arena, &copy));
    expect_status(DEED_INVALID, bind_write(&deed_type_tree, &knot, BIND_STORED, &out, &err));
    expect_message(err, "is nested deeper than 64");
    buf_done(&out);
    stop();
}

TEST(binding, a_map_finds_adds_and_cuts_at_any_size)
{
    start();
    struct bind_map map = {0};
    char key[16];
    for (int i = 0; i < 3000; i++) {
        snprintf(key, sizeof key, "key-%d", i);
        deed_str name = arena_str(&arena, deed_str_of(key));
        assert_int_equal(bind_map_find(&map, name), SIZE_MAX);
        int64_t *value = bind_map_add(&map, sizeof *value, name, &arena);
        assert_non_null(value);
        *value = i;
    }
    for (int i = 0; i < 3000; i += 7) {
        snprintf(key, sizeof key, "key-%d", i);
        if (i % 700 == 0)
            bind_map_cut(&map, sizeof(int64_t), bind_map_find(&map, deed_str_of(key)));
    }
    assert_int_equal(map.count, 2995);
    int64_t last = -1;
    for (size_t i = 0; i < map.count; i++) {
        int64_t value = ((int64_t *)map.values)[i];
        assert_true(value > last); /* in order of insertion */
        assert_int_equal(bind_map_find(&map, map.keys[i]), i);
        last = value;
    }
    assert_int_equal(bind_map_find(&map, DEED_STR("key-700")), SIZE_MAX);
    stop();
}

TEST(binding, tables_made_by_hand_are_checked)
{
    struct hand {
        int64_t number;
    };
    struct deed_field fields[3] = {{.name = "number", .kind = DEED_KIND_INT}, {.name = NULL}};
    struct deed_type type = {.name = "hand", .size = sizeof(struct hand), .fields = fields};
    expect_ok(bind_check(&type, &err));
    fields[0].offset = 1;
    expect_status(DEED_INVALID, bind_check(&type, &err));
    assert_string_equal(err.message, "struct hand: number lies outside of its 8 bytes");
    fields[0].offset = 0;
    fields[1] = fields[0];
    expect_status(DEED_INVALID, bind_check(&type, &err));
    assert_string_equal(err.message, "struct hand: number is there twice");
    fields[1] = (struct deed_field){.name = "list", .kind = DEED_KIND_LIST};
    expect_status(DEED_INVALID, bind_check(&type, &err));
    assert_string_equal(err.message, "struct hand: list does not say of what type");
    fields[1].kind = (enum deed_kind)99;
    expect_status(DEED_INVALID, bind_check(&type, &err));
    expect_message(err, "has the unknown kind 99");
    type.fields = NULL;
    expect_status(DEED_INVALID, bind_check(&type, &err));
}

TEST(binding, a_description_names_kinds_bounds_and_inner_structs)
{
    struct buf out;
    struct json_writer w;
    buf_init(&out, 1 << 16);
    json_writer_init(&w, &out);
    bind_describe(&deed_type_tree, &w);
    expect_str(buf_str(&out),
               "[{\"name\":\"name\",\"kind\":\"text\",\"optional\":false},"
               "{\"name\":\"children\",\"kind\":\"list\",\"optional\":true,\"of\":\"tree\"}]");
    buf_reset(&out);
    json_writer_init(&w, &out);
    bind_describe(&deed_type_point, &w);
    expect_str(buf_str(&out),
               "[{\"name\":\"x\",\"kind\":\"integer\",\"optional\":false,\"min\":-10,\"max\":10},"
               "{\"name\":\"y\",\"kind\":\"integer\",\"optional\":false}]");
    buf_done(&out);
}

TEST_MAIN(binding)
