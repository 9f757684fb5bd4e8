/* test_index.c - belongs to index.c: lists of positions by term, one writer, readers without
 * locks. */
#include "unit/test.h"

#include "index/index.h"

#include <pthread.h>
#include <stdatomic.h>

static struct index *idx;

static void begin(void)
{
    idx = index_create(7);
    assert_non_null(idx);
}

static void end(void)
{
    index_destroy(idx);
    idx = NULL;
}

static deed_bytes bytes_of(const char *text)
{
    return deed_bytes_of(deed_str_of(text));
}

static void add(const char *term, uint64_t position)
{
    assert_true(index_add(idx, INDEX_TAG, bytes_of(term), position));
}

static const struct index_list *find(const char *term)
{
    return index_find(idx, INDEX_TAG, bytes_of(term));
}

/* ---- lists ---------------------------------------------------------------------------------- */

TEST(index, a_term_that_nothing_has_has_no_list)
{
    begin();
    assert_null(find("a"));
    assert_int_equal(index_count(NULL, UINT64_MAX), 0);
    assert_int_equal(index_last(NULL, UINT64_MAX), 0);
    assert_false(index_contains(NULL, 1));
    assert_int_equal(index_term_count(idx, INDEX_TAG), 0);
    index_destroy(NULL);
    end();
}

TEST(index, a_list_keeps_positions_in_order)
{
    begin();
    add("a", 3);
    add("a", 5);
    add("a", 5); /* a lost one stands where the damage ended */
    add("a", UINT64_MAX - 1);
    const struct index_list *a = find("a");
    assert_int_equal(index_count(a, UINT64_MAX), 4);
    assert_int_equal(index_at(a, 0), 3);
    assert_int_equal(index_at(a, 2), 5);
    assert_true(index_at(a, 3) == UINT64_MAX - 1);
    assert_true(index_contains(a, 3));
    assert_true(index_contains(a, 5));
    assert_false(index_contains(a, 4));
    assert_false(index_contains(a, 0));
    assert_true(index_contains(a, UINT64_MAX - 1));
    assert_false(index_contains(a, UINT64_MAX));
    end();
}

TEST(index, terms_are_told_apart_by_kind_and_by_every_byte)
{
    begin();
    deed_bytes term = {(const uint8_t *)"a\0b", 3}, other = {(const uint8_t *)"a\0c", 3};
    for (int kind = 0; kind < INDEX_KIND_COUNT; kind++) {
        assert_true(index_add(idx, (enum index_kind)kind, term, (uint64_t)kind + 1));
        assert_int_equal(index_term_count(idx, (enum index_kind)kind), 1);
    }
    for (int kind = 0; kind < INDEX_KIND_COUNT; kind++) {
        const struct index_list *list = index_find(idx, (enum index_kind)kind, term);
        assert_int_equal(index_count(list, UINT64_MAX), 1);
        assert_int_equal(index_at(list, 0), kind + 1);
        assert_null(index_find(idx, (enum index_kind)kind, other));
        assert_null(index_find(idx, (enum index_kind)kind, (deed_bytes){term.ptr, 2}));
        assert_null(index_find(idx, (enum index_kind)kind, (deed_bytes){NULL, 0}));
    }
    assert_true(index_add(idx, INDEX_SYSTEM, (deed_bytes){NULL, 0}, 9));
    assert_int_equal(index_at(index_find(idx, INDEX_SYSTEM, (deed_bytes){NULL, 0}), 0), 9);
    end();
}

/* What a plain search through the list says. */
static void expect_as_searched(const struct index_list *list, const uint64_t *all, size_t count,
                               uint64_t position, uint64_t limit)
{
    uint64_t in_view = 0, after = 0;
    bool there = false;
    for (size_t i = 0; i < count; i++) {
        if (all[i] <= limit) in_view = i + 1;
        if (all[i] <= limit && all[i] <= position) after = i + 1;
        there |= all[i] == position;
    }
    assert_int_equal(index_count(list, limit), in_view);
    assert_int_equal(index_last(list, limit), in_view == 0 ? 0 : all[in_view - 1]);
    assert_int_equal(index_contains(list, position), there);
    uint64_t hints[] = {0, 1, after > 0 ? after - 1 : 0, after, after + 1, in_view / 2, in_view,
                        in_view + 9};
    for (size_t i = 0; i < sizeof hints / sizeof hints[0]; i++) {
        assert_int_equal(index_after(list, position, limit, hints[i]), after);
    }
}

TEST(index, every_look_up_agrees_with_a_search)
{
    static uint64_t all[600];
    uint64_t position = 0;
    begin();
    for (size_t count = 0; count < 600; count++) {
        position += 1 + count * 7 % 3;
        all[count] = position;
        add("a", position);
        if (count % 20 > 2 && count > 40) continue;
        const struct index_list *list = find("a");
        for (uint64_t p = 0; p <= position + 2; p += 1 + p / 7) {
            expect_as_searched(list, all, count + 1, p, UINT64_MAX);
            expect_as_searched(list, all, count + 1, p, position / 2);
            expect_as_searched(list, all, count + 1, p, position - 1);
            expect_as_searched(list, all, count + 1, p, 0);
        }
    }
    end();
}

TEST(index, a_list_grows_over_all_its_chunks)
{
    begin();
    const uint64_t count = 100000;
    for (uint64_t i = 0; i < count; i++) add("a", i * 2 + 1);
    const struct index_list *list = find("a");
    for (uint64_t i = 0; i < count; i++) {
        if (index_at(list, i) != i * 2 + 1) fail_msg("ordinal %d", (int)i);
    }
    assert_int_equal(index_after(list, count, UINT64_MAX, 0), count / 2);
    assert_int_equal(index_count(list, count), count / 2);
    end();
}

TEST(index, a_table_grows_over_many_terms)
{
    begin();
    char term[32];
    const uint64_t count = 20000;
    for (uint64_t i = 1; i <= count; i++) {
        (void)snprintf(term, sizeof term, "term-%llu", (unsigned long long)i);
        add(term, i);
    }
    assert_int_equal(index_term_count(idx, INDEX_TAG), count);
    for (uint64_t i = 1; i <= count; i++) {
        (void)snprintf(term, sizeof term, "term-%llu", (unsigned long long)i);
        assert_int_equal(index_at(find(term), 0), i);
    }
    end();
}

TEST(index, a_list_stays_where_it_is_while_others_come)
{
    begin();
    char term[32];
    add("first", 1);
    const struct index_list *first = find("first");
    for (uint64_t i = 0; i < 5000; i++) {
        (void)snprintf(term, sizeof term, "other-%llu", (unsigned long long)i);
        add(term, i + 2);
    }
    add("first", 9000);
    assert_ptr_equal(find("first"), first);
    assert_int_equal(index_count(first, UINT64_MAX), 2);
    end();
}

TEST(index, what_is_taken_back_can_be_written_again)
{
    begin();
    for (uint64_t i = 1; i <= 20; i++) add("a", i);
    for (uint64_t i = 20; i > 3; i--) index_remove_last(idx, INDEX_TAG, bytes_of("a"), i);
    assert_int_equal(index_count(find("a"), UINT64_MAX), 3);
    assert_false(index_contains(find("a"), 4));
    add("a", 7);
    assert_int_equal(index_at(find("a"), 3), 7);
    for (uint64_t i = 4; i > 0; i--) {
        index_remove_last(idx, INDEX_TAG, bytes_of("a"), index_at(find("a"), i - 1));
    }
    assert_int_equal(index_count(find("a"), UINT64_MAX), 0);
    assert_int_equal(index_last(find("a"), UINT64_MAX), 0);
    add("a", 1);
    assert_int_equal(index_last(find("a"), UINT64_MAX), 1);
    end();
}

/* ---- events --------------------------------------------------------------------------------- */

TEST(index, a_category_is_what_stands_before_the_first_dash)
{
    const struct {
        const char *stream, *category;
    } cases[] = {{"order-1001", "order"}, {"order-1-2", "order"}, {"order-", "order"},
                 {"order", NULL},         {"-x", NULL},           {"", NULL},
                 {"$own-1", NULL},        {"$$order-1", NULL},    {"größe-1", "größe"}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        deed_str category = index_category_of(deed_str_of(cases[i].stream));
        if (cases[i].category == NULL) {
            assert_null(category.ptr);
        } else {
            expect_str(category, cases[i].category);
        }
    }
    assert_true(index_is_system(deed_str_of("$x")));
    assert_false(index_is_system(deed_str_of("x$")));
    assert_false(index_is_system(deed_str_of("")));
}

static deed_uuid some_id(uint8_t n)
{
    return (deed_uuid){{n, 2, 3}};
}

static const deed_str tags[] = {{"red", 3}, {"blue", 4}, {"red", 3}};

static struct index_event event_at(uint64_t position)
{
    return (struct index_event){.stream = DEED_STR("order-1"),
                                .type = DEED_STR("Placed"),
                                .correlation_id = DEED_STR("cor"),
                                .key = DEED_STR("key"),
                                .tags = tags,
                                .tag_count = 3,
                                .id = some_id((uint8_t)position),
                                .position = position};
}

static uint64_t count_of(enum index_kind kind, const char *term)
{
    return index_count(index_find_str(idx, kind, deed_str_of(term)), UINT64_MAX);
}

TEST(index, an_event_stands_under_each_of_its_terms_once)
{
    begin();
    struct index_event e = event_at(2);
    assert_true(index_add_event(idx, &e));
    assert_int_equal(count_of(INDEX_STREAM, "order-1"), 1);
    assert_int_equal(count_of(INDEX_CATEGORY, "order"), 1);
    assert_int_equal(count_of(INDEX_TYPE, "Placed"), 1);
    assert_int_equal(count_of(INDEX_TAG, "red"), 1); /* though it has it twice */
    assert_int_equal(count_of(INDEX_TAG, "blue"), 1);
    assert_int_equal(count_of(INDEX_CORRELATION, "cor"), 1);
    assert_int_equal(count_of(INDEX_KEY, "key"), 1);
    assert_int_equal(count_of(INDEX_SYSTEM, ""), 0);
    assert_int_equal(index_count(index_find_id(idx, e.stream, some_id(2)), UINT64_MAX), 1);
    assert_null(index_find_id(idx, e.stream, some_id(3)));
    assert_null(index_find_id(idx, deed_str_of("order-2"), some_id(2)));
    end();
}

TEST(index, an_event_without_a_part_has_no_term_for_it)
{
    begin();
    struct index_event e = {
        .stream = DEED_STR("$own"), .type = DEED_STR("T"), .id = some_id(1), .position = 4};
    assert_true(index_add_event(idx, &e));
    assert_int_equal(count_of(INDEX_SYSTEM, ""), 1);
    static const enum index_kind none[] = {INDEX_CATEGORY, INDEX_TAG, INDEX_CORRELATION, INDEX_KEY};
    for (size_t i = 0; i < 4; i++) assert_int_equal(index_term_count(idx, none[i]), 0);
    end();
}

TEST(index, an_event_that_is_removed_leaves_its_neighbours)
{
    begin();
    struct index_event one = event_at(2), two = event_at(3);
    two.tags = &tags[1];
    two.tag_count = 1;
    assert_true(index_add_event(idx, &one));
    assert_true(index_add_event(idx, &two));
    index_remove_event(idx, &two);
    assert_int_equal(count_of(INDEX_STREAM, "order-1"), 1);
    assert_int_equal(count_of(INDEX_TAG, "red"), 1);
    assert_int_equal(count_of(INDEX_TAG, "blue"), 1);
    assert_int_equal(index_count(index_find_id(idx, two.stream, some_id(3)), UINT64_MAX), 0);
    index_remove_event(idx, &one);
    assert_int_equal(count_of(INDEX_TYPE, "Placed"), 0);
    assert_int_equal(count_of(INDEX_TAG, "red"), 0);
    assert_true(index_add_event(idx, &one));
    assert_int_equal(count_of(INDEX_KEY, "key"), 1);
    end();
}

/* ---- readers beside the writer -------------------------------------------------------------- */

#define RACE_POSITIONS 30000
#define READERS        3

static _Atomic uint64_t published;

/* Position p has tag "all" and tag "t<p % 97>"; of what is in view nothing may be missing or wrong,
 * though the writer takes back and writes anew behind it. */
static void *look_up(void *context)
{
    (void)context;
    uint64_t view = 0;
    while (view < RACE_POSITIONS) {
        view = atomic_load_explicit(&published, memory_order_acquire);
        if (view == 0) continue;
        char term[16];
        uint64_t wanted = view - view / 3;
        const struct index_list *all = index_find(idx, INDEX_TAG, bytes_of("all"));
        (void)snprintf(term, sizeof term, "t%llu", (unsigned long long)(wanted % 97));
        const struct index_list *some = index_find(idx, INDEX_TAG, bytes_of(term));
        if (index_count(all, view) != view) return "another number of positions than published";
        if (index_at(all, wanted - 1) != wanted) return "another position than was added";
        if (!index_contains(some, wanted)) return "a published position is not found";
        if (index_last(all, view) != view) return "the last position is another";
        uint64_t after = index_after(some, wanted, view, 0);
        if (after == 0 || index_at(some, after - 1) != wanted) return "it stands elsewhere";
    }
    return NULL;
}

static void race_add(uint64_t position)
{
    char term[16];
    (void)snprintf(term, sizeof term, "t%llu", (unsigned long long)(position % 97));
    add("all", position);
    add(term, position);
}

static void race_take_back(uint64_t position)
{
    char term[16];
    (void)snprintf(term, sizeof term, "t%llu", (unsigned long long)(position % 97));
    index_remove_last(idx, INDEX_TAG, bytes_of(term), position);
    index_remove_last(idx, INDEX_TAG, bytes_of("all"), position);
}

TEST(index, readers_see_what_is_published_while_the_writer_adds_and_takes_back)
{
    begin();
    pthread_t threads[READERS];
    atomic_store(&published, 0);
    for (int i = 0; i < READERS; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, look_up, NULL), 0);
    }
    for (uint64_t p = 1; p <= RACE_POSITIONS; p++) {
        race_add(p);
        if (p % 5 == 0) { /* a group that could not be written */
            race_add(p + 1);
            race_add(p + 2);
            race_take_back(p + 2);
            race_take_back(p + 1);
        }
        atomic_store_explicit(&published, p, memory_order_release);
    }
    for (int i = 0; i < READERS; i++) {
        void *wrong = NULL;
        assert_int_equal(pthread_join(threads[i], &wrong), 0);
        if (wrong != NULL) fail_msg("%s", (const char *)wrong);
    }
    end();
}

TEST_MAIN(index)
