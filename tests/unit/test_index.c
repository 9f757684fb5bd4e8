/* test_index.c - belongs to index.c: lists of positions by term, one writer, readers without
 * locks. */
#include "unit/test.h"

#include "index/memory_run.h"
#include "index/postings.h"

#include <pthread.h>
#include <stdatomic.h>

static struct index *idx;
static struct memory_run *run;
static struct arena arena;

/* One mask for the whole file: TEST_MAIN runs it whole and weakened, see the end. */
static uint64_t hash_mask;
static const uint8_t no_hash[32];
static struct index_hashing hashing;

static void begin(void)
{
    struct index_options options = {.hash_seed = 7, .hash_mask = hash_mask};
    hashing = (struct index_hashing){7, hash_mask == 0 ? UINT64_MAX : hash_mask};
    expect_ok(index_open(&options, &idx, NULL));
    run = memory_run_create(0);
    arena_init(&arena, SIZE_MAX);
    assert_non_null(idx);
    assert_non_null(run);
}

static void end(void)
{
    arena_done(&arena);
    memory_run_destroy(run);
    index_close(idx);
    idx = NULL;
    run = NULL;
}

static deed_bytes bytes_of(const char *text)
{
    return deed_bytes_of(deed_str_of(text));
}

static struct index_term term_of(enum index_kind kind, deed_bytes bytes)
{
    return term_make(hashing, kind, bytes, (deed_bytes){0});
}

static bool add_kind(enum index_kind kind, deed_bytes bytes, uint64_t position)
{
    struct index_term term = term_of(kind, bytes);
    return memory_run_add(run, &term, position, 0);
}

static void add(const char *term, uint64_t position)
{
    assert_true(add_kind(INDEX_TAG, bytes_of(term), position));
}

static void take_back(const char *text, uint64_t position)
{
    struct index_term term = term_of(INDEX_TAG, bytes_of(text));
    memory_run_remove(run, &term, position);
}

static const struct memory_list *find_kind(enum index_kind kind, deed_bytes bytes)
{
    struct index_term term = term_of(kind, bytes);
    return memory_run_find(run, &term);
}

static const struct memory_list *find(const char *term)
{
    return find_kind(INDEX_TAG, bytes_of(term));
}

/* ---- lists ---------------------------------------------------------------------------------- */

static uint64_t list_last(const struct memory_list *list, uint64_t limit)
{
    uint64_t count = memory_list_count(list, limit);
    return count == 0 ? 0 : memory_list_at(list, count - 1);
}

static bool list_contains(const struct memory_list *list, uint64_t position)
{
    uint64_t after = list == NULL ? 0 : memory_list_after(list, position, UINT64_MAX, 0);
    return after > 0 && memory_list_at(list, after - 1) == position;
}

TEST(index, a_term_that_nothing_has_has_no_list)
{
    begin();
    assert_null(find("a"));
    assert_int_equal(memory_list_count(NULL, UINT64_MAX), 0);
    assert_int_equal(list_last(NULL, UINT64_MAX), 0);
    assert_false(list_contains(NULL, 1));
    assert_int_equal(memory_run_term_count(run), 0);
    index_close(NULL);
    memory_run_destroy(NULL);
    end();
}

TEST(index, a_list_keeps_positions_in_order)
{
    begin();
    add("a", 3);
    add("a", 5);
    add("a", 5); /* a lost one stands where the damage ended */
    add("a", UINT64_MAX - 1);
    const struct memory_list *a = find("a");
    assert_int_equal(memory_list_count(a, UINT64_MAX), 4);
    assert_int_equal(memory_list_at(a, 0), 3);
    assert_int_equal(memory_list_at(a, 2), 5);
    assert_true(memory_list_at(a, 3) == UINT64_MAX - 1);
    assert_true(list_contains(a, 3));
    assert_true(list_contains(a, 5));
    assert_false(list_contains(a, 4));
    assert_false(list_contains(a, 0));
    assert_true(list_contains(a, UINT64_MAX - 1));
    assert_false(list_contains(a, UINT64_MAX));
    end();
}

TEST(index, terms_are_told_apart_by_kind_and_by_every_byte)
{
    begin();
    deed_bytes term = {(const uint8_t *)"a\0b", 3}, other = {(const uint8_t *)"a\0c", 3};
    for (int kind = 0; kind < INDEX_KIND_COUNT; kind++) {
        assert_true(add_kind((enum index_kind)kind, term, (uint64_t)kind + 1));
        assert_int_equal(memory_run_term_count(run), kind + 1);
    }
    for (int kind = 0; kind < INDEX_KIND_COUNT; kind++) {
        const struct memory_list *list = find_kind((enum index_kind)kind, term);
        assert_int_equal(memory_list_count(list, UINT64_MAX), 1);
        assert_int_equal(memory_list_at(list, 0), kind + 1);
        assert_null(find_kind((enum index_kind)kind, other));
        assert_null(find_kind((enum index_kind)kind, (deed_bytes){term.ptr, 2}));
        assert_null(find_kind((enum index_kind)kind, (deed_bytes){NULL, 0}));
    }
    assert_true(add_kind(INDEX_SYSTEM, (deed_bytes){NULL, 0}, 9));
    assert_int_equal(memory_list_at(find_kind(INDEX_SYSTEM, (deed_bytes){NULL, 0}), 0), 9);
    end();
}

/* What a plain search through the list says. */
static void expect_as_searched(const struct memory_list *list, const uint64_t *all, size_t count,
                               uint64_t position, uint64_t limit)
{
    uint64_t in_view = 0, after = 0;
    bool there = false;
    for (size_t i = 0; i < count; i++) {
        if (all[i] <= limit) in_view = i + 1;
        if (all[i] <= limit && all[i] <= position) after = i + 1;
        there |= all[i] == position;
    }
    assert_int_equal(memory_list_count(list, limit), in_view);
    assert_int_equal(list_last(list, limit), in_view == 0 ? 0 : all[in_view - 1]);
    assert_int_equal(list_contains(list, position), there);
    uint64_t hints[] = {0, 1, after > 0 ? after - 1 : 0, after, after + 1, in_view / 2, in_view,
                        in_view + 9};
    for (size_t i = 0; i < sizeof hints / sizeof hints[0]; i++) {
        assert_int_equal(memory_list_after(list, position, limit, hints[i]), after);
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
        const struct memory_list *list = find("a");
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
    const struct memory_list *list = find("a");
    for (uint64_t i = 0; i < count; i++) {
        if (memory_list_at(list, i) != i * 2 + 1) fail_msg("ordinal %d", (int)i);
    }
    assert_int_equal(memory_list_after(list, count, UINT64_MAX, 0), count / 2);
    assert_int_equal(memory_list_count(list, count), count / 2);
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
    assert_int_equal(memory_run_term_count(run), count);
    for (uint64_t i = 1; i <= count; i++) {
        (void)snprintf(term, sizeof term, "term-%llu", (unsigned long long)i);
        assert_int_equal(memory_list_at(find(term), 0), i);
    }
    end();
}

TEST(index, a_list_stays_where_it_is_while_others_come)
{
    begin();
    char term[32];
    add("first", 1);
    const struct memory_list *first = find("first");
    for (uint64_t i = 0; i < 5000; i++) {
        (void)snprintf(term, sizeof term, "other-%llu", (unsigned long long)i);
        add(term, i + 2);
    }
    add("first", 9000);
    assert_ptr_equal(find("first"), first);
    assert_int_equal(memory_list_count(first, UINT64_MAX), 2);
    end();
}

TEST(index, what_is_taken_back_can_be_written_again)
{
    begin();
    for (uint64_t i = 1; i <= 20; i++) add("a", i);
    for (uint64_t i = 20; i > 3; i--) take_back("a", i);
    assert_int_equal(memory_list_count(find("a"), UINT64_MAX), 3);
    assert_false(list_contains(find("a"), 4));
    add("a", 7);
    assert_int_equal(memory_list_at(find("a"), 3), 7);
    for (uint64_t i = 4; i > 0; i--) {
        take_back("a", memory_list_at(find("a"), i - 1));
    }
    assert_int_equal(memory_list_count(find("a"), UINT64_MAX), 0);
    assert_int_equal(list_last(find("a"), UINT64_MAX), 0);
    add("a", 1);
    assert_int_equal(list_last(find("a"), UINT64_MAX), 1);
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

static struct index_event event_at(uint64_t position, uint64_t revision)
{
    return (struct index_event){.stream = DEED_STR("order-1"),
                                .type = DEED_STR("Placed"),
                                .correlation_id = DEED_STR("cor"),
                                .key = DEED_STR("key"),
                                .tags = tags,
                                .tag_count = 3,
                                .id = some_id((uint8_t)position),
                                .position = position,
                                .revision = revision};
}

static uint64_t count_of(enum index_kind kind, const char *term)
{
    struct postings p;
    uint64_t count = 0;
    postings_open(&p, index_writer_view(idx), kind, deed_str_of(term), &arena);
    expect_ok(postings_count(&p, UINT64_MAX, &count, NULL));
    return count;
}

static uint64_t count_of_id(const char *stream, uint8_t n)
{
    struct postings p;
    uint64_t count = 0;
    deed_uuid id = some_id(n);
    postings_open_id(&p, index_writer_view(idx), deed_str_of(stream), &id, &arena);
    expect_ok(postings_count(&p, UINT64_MAX, &count, NULL));
    return count;
}

TEST(index, an_event_stands_under_each_of_its_terms_once)
{
    begin();
    struct index_event e = event_at(2, 0);
    expect_ok(index_add_event(idx, &e, NULL));
    assert_int_equal(count_of(INDEX_STREAM, "order-1"), 1);
    assert_int_equal(count_of(INDEX_CATEGORY, "order"), 1);
    assert_int_equal(count_of(INDEX_TYPE, "Placed"), 1);
    assert_int_equal(count_of(INDEX_TAG, "red"), 1); /* though it has it twice */
    assert_int_equal(count_of(INDEX_TAG, "blue"), 1);
    assert_int_equal(count_of(INDEX_CORRELATION, "cor"), 1);
    assert_int_equal(count_of(INDEX_KEY, "key"), 1);
    assert_int_equal(count_of(INDEX_SYSTEM, ""), 0);
    assert_int_equal(count_of_id("order-1", 2), 1);
    assert_int_equal(count_of_id("order-1", 3), 0);
    assert_int_equal(count_of_id("order-2", 2), 0);
    assert_int_equal(index_stream_count(idx), 1);
    end();
}

TEST(index, an_event_without_a_part_has_no_term_for_it)
{
    begin();
    struct index_event e = {
        .stream = DEED_STR("$own"), .type = DEED_STR("T"), .id = some_id(1), .position = 4};
    expect_ok(index_add_event(idx, &e, NULL));
    assert_int_equal(count_of(INDEX_SYSTEM, ""), 1);
    assert_int_equal(count_of(INDEX_CATEGORY, ""), 0);
    assert_int_equal(count_of(INDEX_TAG, ""), 0);
    assert_int_equal(count_of(INDEX_CORRELATION, ""), 0);
    assert_int_equal(count_of(INDEX_KEY, ""), 0);
    end();
}

TEST(index, an_event_that_is_removed_leaves_its_neighbours)
{
    begin();
    struct index_event one = event_at(2, 0), two = event_at(3, 1);
    two.tags = &tags[1];
    two.tag_count = 1;
    expect_ok(index_add_event(idx, &one, NULL));
    expect_ok(index_add_event(idx, &two, NULL));
    index_remove_event(idx, &two);
    assert_int_equal(count_of(INDEX_STREAM, "order-1"), 1);
    assert_int_equal(count_of(INDEX_TAG, "red"), 1);
    assert_int_equal(count_of(INDEX_TAG, "blue"), 1);
    assert_int_equal(count_of_id("order-1", 3), 0);
    assert_int_equal(index_stream_count(idx), 1);
    index_remove_event(idx, &one);
    assert_int_equal(index_stream_count(idx), 0);
    assert_int_equal(count_of(INDEX_TYPE, "Placed"), 0);
    assert_int_equal(count_of(INDEX_TAG, "red"), 0);
    expect_ok(index_add_event(idx, &one, NULL));
    assert_int_equal(count_of(INDEX_KEY, "key"), 1);
    end();
}

/* ---- runs ----------------------------------------------------------------------------------- */

TEST(index, a_streams_revisions_go_on_over_runs)
{
    begin();
    const char *const stream = "order-1";
    for (uint64_t p = 1; p <= 60; p++) {
        struct index_event e = event_at(p, p - 1);
        if (p % 10 == 1) expect_ok(index_roll(idx, (uint32_t)(3 + p / 10), p - 1, no_hash, NULL));
        if (p <= 20 || p > 40) { /* no events of it in two of the runs */
            e.revision = p <= 20 ? p - 1 : p - 21;
            expect_ok(index_add_event(idx, &e, NULL));
        }
    }
    const struct index_view *view = index_view_take(idx);
    assert_int_equal(index_view_run_count(view), 6);
    struct postings p;
    postings_open(&p, view, INDEX_STREAM, deed_str_of(stream), &arena);
    for (uint64_t limit = 0; limit <= 61; limit++) {
        uint64_t count = 0, last = 0, next = 0;
        uint64_t wanted = limit <= 20 ? limit : limit <= 40 ? 20 : limit > 60 ? 40 : limit - 20;
        expect_ok(postings_count(&p, limit, &count, NULL));
        assert_int_equal(count, wanted);
        expect_ok(postings_last(&p, limit, &last, NULL));
        assert_int_equal(last, limit <= 20 ? limit : limit <= 40 ? 20 : limit > 60 ? 60 : limit);
        expect_ok(postings_next(&p, limit, UINT64_MAX, &next, NULL));
        assert_int_equal(next, limit < 20 ? limit + 1 : limit <= 40 ? 41 : limit < 60 ? limit + 1 : 0);
        expect_ok(postings_next(&p, limit, limit + 5, &next, NULL));
        uint64_t there = limit < 20 ? limit + 1 : limit <= 40 ? 41 : limit < 60 ? limit + 1 : 0;
        assert_int_equal(next, there > limit + 5 ? 0 : there);
    }
    for (uint64_t r = 0; r < 40; r++) {
        uint64_t position = 0;
        bool there = false;
        expect_ok(postings_at(&p, r, &position, NULL));
        assert_int_equal(position, r < 20 ? r + 1 : r + 21);
        expect_ok(postings_contains(&p, position, &there, NULL));
        assert_true(there);
    }
    assert_int_equal(index_stream_count(idx), 1);
    index_view_drop(view);
    end();
}

TEST(index, a_view_stays_as_it_is_while_the_row_of_runs_changes)
{
    begin();
    struct index_event e = event_at(1, 0);
    expect_ok(index_roll(idx, 1, 0, no_hash, NULL));
    expect_ok(index_add_event(idx, &e, NULL));
    const struct index_view *view = index_view_take(idx);
    uint64_t generation = index_generation(idx);
    expect_ok(index_roll(idx, 2, 1, no_hash, NULL));
    expect_ok(index_roll(idx, 2, 1, no_hash, NULL)); /* it is the active one already */
    assert_true(index_generation(idx) != generation);
    assert_true(index_view_generation(view) == generation);
    assert_int_equal(index_view_run_count(view), 1);
    struct index_event f = event_at(2, 1);
    expect_ok(index_add_event(idx, &f, NULL));
    struct postings old, new;
    uint64_t in_old = 0, in_new = 0;
    postings_open(&old, view, INDEX_TYPE, DEED_STR("Placed"), &arena);
    postings_open(&new, index_writer_view(idx), INDEX_TYPE, DEED_STR("Placed"), &arena);
    expect_ok(postings_count(&old, 1, &in_old, NULL));
    expect_ok(postings_count(&new, 2, &in_new, NULL));
    assert_int_equal(in_old, 1);
    assert_int_equal(in_new, 2);
    index_view_drop(view);
    index_view_drop(NULL);
    end();
}

TEST(index, a_lost_revision_keeps_its_place)
{
    begin();
    expect_ok(index_add_lost(idx, DEED_STR("order-1"), 0, 5, NULL));
    expect_ok(index_add_lost(idx, DEED_STR("order-1"), 1, 5, NULL));
    struct index_event e = event_at(6, 2);
    expect_ok(index_add_event(idx, &e, NULL));
    uint64_t count = 0;
    assert_true(index_active_count(idx, DEED_STR("order-1"), &count));
    assert_int_equal(count, 3);
    assert_false(index_active_count(idx, DEED_STR("order-2"), &count));
    assert_int_equal(count_of(INDEX_STREAM, "order-1"), 3);
    assert_int_equal(index_stream_count(idx), 1);
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
        const struct memory_list *all = find_kind(INDEX_TAG, bytes_of("all"));
        (void)snprintf(term, sizeof term, "t%llu", (unsigned long long)(wanted % 97));
        const struct memory_list *some = find_kind(INDEX_TAG, bytes_of(term));
        if (memory_list_count(all, view) != view) return "another number of positions than published";
        if (memory_list_at(all, wanted - 1) != wanted) return "another position than was added";
        if (!list_contains(some, wanted)) return "a published position is not found";
        if (list_last(all, view) != view) return "the last position is another";
        uint64_t after = memory_list_after(some, wanted, view, 0);
        if (after == 0 || memory_list_at(some, after - 1) != wanted) return "it stands elsewhere";
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
    take_back(term, position);
    take_back("all", position);
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

/* ---- the hash ------------------------------------------------------------------------------- */

TEST(index, all_of_it_holds_when_terms_share_their_hashes)
{
    static const uint64_t masks[] = {UINT64_C(0xf), UINT64_C(0xf) << 60, UINT64_C(1) << 63};
    for (size_t i = 0; i < 3; i++) {
        hash_mask = masks[i];
        index_terms_are_told_apart_by_kind_and_by_every_byte(NULL);
        index_an_event_stands_under_each_of_its_terms_once(NULL);
        index_an_event_that_is_removed_leaves_its_neighbours(NULL);
        index_a_streams_revisions_go_on_over_runs(NULL);
    }
    hash_mask = 0;
}

TEST_MAIN(index)
