#include "test.h"

#include "api/event_filter.h"

static struct arena arena;
static struct event_filter *the_filter;
static struct deed_error err;

static deed_status make(enum event_filter_subject subject, const char *regex,
                        const char *const *prefixes)
{
    deed_str list[4];
    struct event_filter_options options = {
        .subject = subject, .regex = deed_str_of(regex), .prefixes = list};
    for (; prefixes != NULL && prefixes[options.prefix_count] != NULL; options.prefix_count++) {
        list[options.prefix_count] = deed_str_of(prefixes[options.prefix_count]);
    }
    arena_init(&arena, 16 << 20);
    return event_filter_create(&options, &arena, &the_filter, &err);
}

static void by_regex(const char *regex)
{
    expect_ok(make(EVENT_FILTER_STREAM, regex, NULL));
}

#define by_prefix(subject, ...)                                  \
    do {                                                         \
        const char *const prefixes_[] = {__VA_ARGS__, NULL};     \
        expect_ok(make(subject, NULL, prefixes_));               \
    } while (0)

static void let_go(void)
{
    event_filter_destroy(the_filter);
    the_filter = NULL;
    arena_done(&arena);
}

static void expect_refused(deed_status wanted, const char *regex, const char *part)
{
    expect_status(wanted, make(EVENT_FILTER_STREAM, regex, NULL));
    expect_message(err, part);
    arena_done(&arena);
}

static bool takes(const char *stream, const char *type)
{
    struct deed_event event = {.stream = deed_str_of(stream), .type = deed_str_of(type)};
    bool first = false;
    bool again = false;
    expect_ok(event_filter_match(the_filter, &event, &first, &err));
    expect_ok(event_filter_match(the_filter, &event, &again, &err)); /* as remembered */
    assert_int_equal(first, again);
    return first;
}

static void expect_narrow(const char *streams, const char *types, const char *categories)
{
    struct deed_filter read = {0};
    bool any = event_filter_narrow(the_filter, &read);
    assert_int_equal(any, streams != NULL || types != NULL || categories != NULL);
    assert_int_equal(read.stream_count > 0, streams != NULL);
    assert_int_equal(read.type_count > 0, types != NULL);
    assert_int_equal(read.category_count > 0, categories != NULL);
    if (streams != NULL) expect_str(read.streams[0], streams);
    if (types != NULL) expect_str(read.types[0], types);
    if (categories != NULL) expect_str(read.categories[0], categories);
}

TEST(event_filter, any_of_the_prefixes_will_do)
{
    by_prefix(EVENT_FILTER_STREAM, "order-", "invoice", "orders", "in");
    assert_true(takes("order-1", "T"));
    assert_true(takes("order-", "T"));
    assert_true(takes("invoice", "T"));
    assert_true(takes("inbox-7", "T"));
    assert_true(takes("ordersheet", "T"));
    assert_false(takes("order", "T"));
    assert_false(takes("Order-1", "T"));
    assert_false(takes("i", "T"));
    assert_false(takes("zebra", "order-1"));
    assert_false(takes("", "T"));
    let_go();
}

TEST(event_filter, a_prefix_may_begin_another)
{
    by_prefix(EVENT_FILTER_STREAM, "orders", "order", "order-1");
    assert_true(takes("orderx", "T"));
    assert_true(takes("order-2", "T"));
    assert_true(takes("orders", "T"));
    assert_false(takes("orde", "T"));
    let_go();
}

TEST(event_filter, an_empty_prefix_is_that_of_every_name)
{
    by_prefix(EVENT_FILTER_TYPE, "");
    assert_true(takes("a", "T"));
    assert_true(takes("a", ""));
    let_go();
}

TEST(event_filter, types_are_filtered_by_type)
{
    by_prefix(EVENT_FILTER_TYPE, "Order");
    assert_true(takes("a", "OrderCreated"));
    assert_false(takes("Order-1", "Created"));
    let_go();
    expect_ok(make(EVENT_FILTER_TYPE, "Created$", NULL));
    assert_true(takes("a", "OrderCreated"));
    assert_false(takes("OrderCreated", "Shipped"));
    let_go();
}

TEST(event_filter, an_expression_is_searched_for_anywhere)
{
    by_regex("der-[12]");
    assert_true(takes("order-1", "T"));
    assert_true(takes("border-22", "T"));
    assert_false(takes("order-3", "T"));
    let_go();
}

TEST(event_filter, an_expression_outweighs_prefixes)
{
    const char *const prefixes[] = {"order", NULL};
    expect_ok(make(EVENT_FILTER_STREAM, "^invoice", prefixes));
    assert_true(takes("invoice-1", "T"));
    assert_false(takes("order-1", "T"));
    let_go();
}

TEST(event_filter, what_clients_leave_out_by_default_is_understood)
{
    by_regex("^[^\\$].*");
    assert_true(takes("order-1", "T"));
    assert_false(takes("$stats", "T"));
    assert_false(takes("$$order-1", "T"));
    assert_false(takes("", "T"));
    let_go();
    expect_ok(make(EVENT_FILTER_TYPE, "^(?!(\\$.+$|PersistentConfig\\d+$|Result$))", NULL));
    assert_true(takes("a", "OrderCreated"));
    assert_true(takes("a", "Results"));
    assert_true(takes("a", "PersistentConfig"));
    assert_false(takes("a", "PersistentConfig12"));
    assert_false(takes("a", "Result"));
    assert_false(takes("a", "$metadata"));
    let_go();
}

TEST(event_filter, classes_know_all_of_unicode)
{
    by_regex("^\\w+-\\d+$");
    assert_true(takes("M\xc3\xbcller-7", "T"));
    assert_true(takes("a-\xd9\xa3", "T")); /* ARABIC-INDIC DIGIT THREE */
    assert_false(takes("a b-7", "T"));
    let_go();
    by_regex("^\\u00fc$");
    assert_true(takes("\xc3\xbc", "T"));
    let_go();
}

TEST(event_filter, a_name_that_is_no_utf8_is_no_failure)
{
    by_regex("order");
    assert_true(takes("order-\xff", "T"));
    assert_false(takes("\xff\xfe", "T"));
    let_go();
}

TEST(event_filter, a_long_name_is_matched_though_it_is_not_remembered)
{
    char name[200];
    memset(name, 'a', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    by_regex("a{199}");
    assert_true(takes(name, "T"));
    let_go();
}

TEST(event_filter, a_malformed_expression_is_refused_with_its_place)
{
    expect_refused(DEED_INVALID, "order-(", "order-(: at offset 7: missing closing parenthesis");
    expect_refused(DEED_INVALID, "[z-a]", "range out of order");
    expect_refused(DEED_INVALID, "\\C", "\\C");
}

TEST(event_filter, a_filter_that_says_nothing_is_refused)
{
    expect_refused(DEED_INVALID, "", "neither a regex nor a prefix");
}

TEST(event_filter, a_large_expression_is_refused)
{
    char *regex = malloc(EVENT_FILTER_REGEX_SIZE_MAX + 2);
    memset(regex, 'a', EVENT_FILTER_REGEX_SIZE_MAX + 1);
    regex[EVENT_FILTER_REGEX_SIZE_MAX + 1] = '\0';
    expect_refused(DEED_TOO_LARGE, regex, "4097 bytes, limit 4096");
    free(regex);
    expect_refused(DEED_INVALID, "((a{900}){900}){900}", "too large");
}

TEST(event_filter, many_prefixes_are_refused)
{
    static deed_str prefixes[EVENT_FILTER_PREFIX_COUNT_MAX + 1];
    struct event_filter_options options = {.prefixes = prefixes,
                                           .prefix_count = EVENT_FILTER_PREFIX_COUNT_MAX + 1};
    for (size_t i = 0; i < options.prefix_count; i++) prefixes[i] = DEED_STR("a");
    arena_init(&arena, 16 << 20);
    expect_status(DEED_TOO_LARGE, event_filter_create(&options, &arena, &the_filter, &err));
    expect_message(err, "1025 prefixes, limit 1024");
    options.prefix_count--;
    expect_ok(event_filter_create(&options, &arena, &the_filter, &err));
    assert_true(takes("ab", "T"));
    assert_false(takes("b", "T"));
    let_go();
}

TEST(event_filter, an_expression_that_takes_for_ever_is_an_error_not_an_answer)
{
    struct deed_event event = {.stream = DEED_STR("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"),
                               .type = DEED_STR("T")};
    const char *const hostile[] = {"^(a+)+$b", "(a*)*b\\1", "^(([a-z])+.)+[A-Z]([a-z])+$"};
    for (size_t i = 0; i < sizeof hostile / sizeof hostile[0]; i++) {
        bool matches = true;
        by_regex(hostile[i]);
        deed_status status = event_filter_match(the_filter, &event, &matches, &err);
        assert_true(status == DEED_TOO_LARGE || (status == DEED_OK && !matches));
        if (i == 2) {
            assert_int_equal(status, DEED_TOO_LARGE);
            expect_message(err, "takes too many steps on the stream aaaa");
        }
        let_go();
    }
}

TEST(event_filter, prefixes_with_a_category_read_only_that)
{
    by_prefix(EVENT_FILTER_STREAM, "order-");
    expect_narrow(NULL, NULL, "order");
    let_go();
    by_prefix(EVENT_FILTER_STREAM, "order-1", "order-2");
    expect_narrow(NULL, NULL, "order");
    let_go();
    by_prefix(EVENT_FILTER_STREAM, "order-1", "order");
    expect_narrow(NULL, NULL, NULL);
    let_go();
    by_prefix(EVENT_FILTER_STREAM, "$ce-order");
    expect_narrow(NULL, NULL, NULL);
    let_go();
    by_prefix(EVENT_FILTER_STREAM, "-1");
    expect_narrow(NULL, NULL, NULL);
    let_go();
    by_prefix(EVENT_FILTER_TYPE, "order-1");
    expect_narrow(NULL, NULL, NULL);
    let_go();
}

static void expect_regex_narrow(enum event_filter_subject subject, const char *regex,
                                const char *streams, const char *types, const char *categories)
{
    expect_ok(make(subject, regex, NULL));
    expect_narrow(streams, types, categories);
    let_go();
}

TEST(event_filter, an_anchored_expression_reads_only_what_it_begins_with)
{
    expect_regex_narrow(EVENT_FILTER_STREAM, "^order-1$", "order-1", NULL, NULL);
    expect_regex_narrow(EVENT_FILTER_STREAM, "^\\$ce\\-order$", "$ce-order", NULL, NULL);
    expect_regex_narrow(EVENT_FILTER_TYPE, "^OrderCreated$", NULL, "OrderCreated", NULL);
    expect_regex_narrow(EVENT_FILTER_STREAM, "^order-", NULL, NULL, "order");
    expect_regex_narrow(EVENT_FILTER_STREAM, "^order-\\d+$", NULL, NULL, "order");
    expect_regex_narrow(EVENT_FILTER_STREAM, "^order-x*$", NULL, NULL, "order");
}

TEST(event_filter, an_expression_with_other_beginnings_reads_all)
{
    const char *const regexes[] = {"order-1",   "^order-1|^invoice", "^order-*", "^order-{0,1}1",
                                   "^(order)-", "^order",            "^order.1", "^[o]rder-1",
                                   "^$",        "^\\d-1",            "(?i)^order-1", "^order-?1$"};
    for (size_t i = 0; i < sizeof regexes / sizeof regexes[0]; i++) {
        expect_regex_narrow(EVENT_FILTER_STREAM, regexes[i], NULL, NULL, NULL);
    }
    expect_regex_narrow(EVENT_FILTER_TYPE, "^OrderCreated", NULL, NULL, NULL);
}

TEST(event_filter, a_line_feed_at_the_end_is_not_narrowed_away)
{
    struct deed_filter read = {0};
    expect_ok(make(EVENT_FILTER_TYPE, "^Created$", NULL));
    assert_true(takes("a", "Created\n"));
    assert_true(event_filter_narrow(the_filter, &read));
    assert_int_equal(read.type_count, 2);
    expect_str(read.types[1], "Created\n");
    let_go();
}

TEST_MAIN(event_filter)
