/* test_cursor.c - belongs to read.c: reading a stream, the log and the log filtered, forwards and
 * backwards, then following. */
#include "store_fixture.h"

#include "log/commit.h"

#include <errno.h>
#include <pthread.h>

static struct deed_cursor *cursor;

static void open_cursor(struct deed_read_options how)
{
    cursor_close(cursor);
    cursor = NULL;
    if (store_read(store, &how, &cursor, &err) != DEED_OK) fail_msg("read: %s", err.message);
}

static void expect_next_words(const char *wanted)
{
    assert_string_equal(words_of(cursor), wanted);
}

static void finish_reading(void)
{
    cursor_close(cursor);
    cursor = NULL;
    finish();
}

/* Three events of stream a, two of b between them: positions 2 to 6. */
static void start_story(void)
{
    start();
    say("a", "one");
    say("b", "two");
    say("a", "three");
    say("b", "four");
    say("a", "five");
}

/* ---- a stream ------------------------------------------------------------------------------- */

TEST(cursor, a_stream_is_read_forwards_from_a_revision)
{
    start_story();
    deed_str a = DEED_STR("a");
    expect_words("one three five", .stream = a);
    expect_words("three five", .stream = a, .from_revision = 1);
    expect_words("five", .stream = a, .from_revision = 2);
    expect_words("", .stream = a, .from_revision = 3);
    expect_words("", .stream = a, .from_revision = DEED_NONE);
    finish();
}

TEST(cursor, a_stream_is_read_backwards_from_a_revision)
{
    start_story();
    deed_str a = DEED_STR("a");
    expect_words("five three one", .stream = a, .backwards = true, .from_revision = DEED_NONE);
    expect_words("five three one", .stream = a, .backwards = true, .from_revision = 3);
    expect_words("five three one", .stream = a, .backwards = true, .from_revision = 2);
    expect_words("three one", .stream = a, .backwards = true, .from_revision = 1);
    expect_words("one", .stream = a, .backwards = true, .from_revision = 0);
    finish();
}

TEST(cursor, a_read_ends_after_as_many_events_as_asked_for)
{
    start_story();
    deed_str a = DEED_STR("a");
    expect_words("one three", .stream = a, .count_max = 2);
    expect_words("one three five", .stream = a, .count_max = 3);
    expect_words("one three five", .stream = a, .count_max = 4);
    expect_words("five", .stream = a, .backwards = true, .from_revision = DEED_NONE,
                 .count_max = 1);
    expect_words("one two", .count_max = 2);
    expect_words("five four", .count_max = 2, .backwards = true, .after_position = DEED_NONE);
    finish();
}

TEST(cursor, a_read_ends_at_the_position_asked_for)
{
    start_story();
    deed_str a = DEED_STR("a");
    expect_words("one three five", .stream = a, .until_position = DEED_NONE);
    expect_words("one three five", .stream = a, .until_position = 6);
    expect_words("one three", .stream = a, .until_position = 5);
    expect_words("one", .stream = a, .until_position = 3);
    expect_words("DEED_NOT_FOUND", .stream = a, .until_position = 1);
    expect_words("three one", .stream = a, .backwards = true, .from_revision = DEED_NONE,
                 .until_position = 5);
    expect_words("one two three four five", .until_position = 7);
    expect_words("one two three four", .until_position = 5);
    expect_words("", .until_position = 1);
    expect_words("four three", .backwards = true, .after_position = 6, .until_position = 5,
                 .count_max = 2);
    finish();
}

TEST(cursor, a_stream_that_is_not_there_is_not_found)
{
    start_story();
    expect_words("DEED_NOT_FOUND", .stream = DEED_STR("c"));
    expect_message(err, "stream c: there is no such stream");
    expect_words("DEED_INVALID", .stream = {"", 0});
    expect_message(err, "stream: must not be empty");
    finish();
}

TEST(cursor, a_backwards_read_cannot_follow)
{
    start_story();
    expect_words("DEED_MISUSE", .backwards = true, .follow = true);
    expect_message(err, "a backwards read cannot follow");
    finish();
}

TEST(cursor, a_stored_event_is_what_was_appended)
{
    start();
    deed_str tags[] = {DEED_STR("red"), DEED_STR("round"), DEED_STR("red")};
    static const uint8_t data[] = {0, 1, 255, 0};
    struct deed_new_event e = {.stream = DEED_STR("order-7"),
                               .type = DEED_STR("Placed"),
                               .data = {data, sizeof data},
                               .metadata = deed_bytes_of(DEED_STR("{\"a\" : 1}")),
                               .content_type = DEED_STR("application/octet-stream"),
                               .tags = tags,
                               .tag_count = 3,
                               .id = id_of(5),
                               .time_ns = 123,
                               .correlation_id = DEED_STR("cor"),
                               .causation_id = DEED_STR("cau"),
                               .actor = DEED_STR("Zoë")};
    struct deed_append append = {
        .events = &e, .event_count = 1, .idempotency_key = DEED_STR("key")};
    memset(append.request_hash, 9, 32);
    expect_ok(store_append(store, &append, &appended, &err));
    for (int round = 0; round < 2; round++) {
        struct deed_event got;
        open_cursor((struct deed_read_options){.stream = DEED_STR("order-7")});
        expect_ok(cursor_next(cursor, &got, &err));
        assert_int_equal(got.position, 2);
        assert_int_equal(got.revision, 0);
        assert_memory_equal(got.id.bytes, e.id.bytes, 16);
        assert_int_equal(got.time_ns, 123);
        assert_true(got.recorded_at_ns > 123);
        expect_str(got.stream, "order-7");
        expect_str(got.type, "Placed");
        expect_str(got.content_type, "application/octet-stream");
        assert_int_equal(got.data.len, 4);
        assert_memory_equal(got.data.ptr, data, 4);
        expect_str(((deed_str){(const char *)got.metadata.ptr, got.metadata.len}), "{\"a\" : 1}");
        assert_int_equal(got.tag_count, 3);
        for (size_t i = 0; i < 3; i++) assert_true(deed_str_equal(got.tags[i], tags[i]));
        expect_str(got.correlation_id, "cor");
        expect_str(got.causation_id, "cau");
        expect_str(got.actor, "Zoë");
        expect_str(got.idempotency_key, "key");
        assert_memory_equal(got.request_hash, append.request_hash, 32);
        cursor_close(cursor);
        cursor = NULL;
        reopen();
    }
    finish_reading();
}

/* ---- the log -------------------------------------------------------------------------------- */

TEST(cursor, the_log_is_read_forwards_behind_a_position)
{
    start_story();
    expect_words("one two three four five", .after_position = 0);
    expect_words("one two three four five", .after_position = 1);
    expect_words("three four five", .after_position = 3);
    expect_words("five", .after_position = 5);
    expect_words("", .after_position = 6);
    expect_words("", .after_position = 7);
    expect_words("", .after_position = DEED_NONE);
    finish();
}

TEST(cursor, the_log_is_read_backwards_before_a_position)
{
    start_story();
    expect_words("five four three two one", .backwards = true, .after_position = DEED_NONE);
    expect_words("five four three two one", .backwards = true, .after_position = 7);
    expect_words("four three two one", .backwards = true, .after_position = 6);
    expect_words("one", .backwards = true, .after_position = 3);
    expect_words("", .backwards = true, .after_position = 2);
    expect_words("", .backwards = true, .after_position = 1);
    expect_words("", .backwards = true, .after_position = 0);
    finish();
}

TEST(cursor, system_streams_are_read_only_when_asked_for)
{
    start_story();
    say("$mine", "six");
    deed_str mine = DEED_STR("$mine");
    expect_words("one two three four five", .until_position = 0);
    expect_words("? one two three four five six", .filter.system = true);
    expect_words("six", .filter.streams = &mine, .filter.stream_count = 1);
    expect_words("six", .stream = mine);
    finish();
}

TEST(cursor, its_position_is_how_far_it_has_looked)
{
    start_story();
    deed_str b = DEED_STR("b");
    struct deed_event e;
    open_cursor((struct deed_read_options){.filter = {.streams = &b, .stream_count = 1}});
    assert_int_equal(cursor_position(cursor), 0);
    expect_ok(cursor_next(cursor, &e, &err));
    assert_int_equal(cursor_position(cursor), 3);
    expect_ok(cursor_next(cursor, &e, &err));
    assert_int_equal(cursor_position(cursor), 5);
    expect_status(DEED_END, cursor_next(cursor, &e, &err));
    assert_int_equal(cursor_position(cursor), 6); /* what stands behind did not match */

    open_cursor((struct deed_read_options){.stream = b});
    expect_ok(cursor_next(cursor, &e, &err));
    assert_int_equal(cursor_position(cursor), 3);
    expect_next_words("four");
    assert_int_equal(cursor_position(cursor), 6);

    open_cursor((struct deed_read_options){.after_position = 4, .until_position = 5});
    expect_next_words("four");
    assert_int_equal(cursor_position(cursor), 5);
    finish_reading();
}

TEST(cursor, a_read_sees_the_log_as_it_was_when_it_was_opened)
{
    start_story();
    open_cursor((struct deed_read_options){.stream = DEED_STR("a")});
    say("a", "six");
    expect_next_words("one three five");
    expect_next_words("");
    open_cursor((struct deed_read_options){.after_position = 5});
    say("a", "seven");
    expect_next_words("five six");
    finish_reading();
}

TEST(cursor, a_commit_larger_than_any_window_is_read)
{
    static char large[3 << 20];
    start_machine(1);
    options.segment_size = 1 << 20;
    open_store();
    memset(large, 'x', sizeof large);
    struct deed_new_event e = said("a", "one");
    e.content_type = DEED_STR("text/plain");
    e.data = (deed_bytes){(const uint8_t *)large, sizeof large};
    say("a", "before");
    say_event(e);
    say("a", "after");
    for (int round = 0; round < 2; round++) {
        struct deed_event got;
        open_cursor((struct deed_read_options){.stream = DEED_STR("a")});
        expect_ok(cursor_next(cursor, &got, &err));
        expect_ok(cursor_next(cursor, &got, &err));
        assert_int_equal(got.data.len, sizeof large);
        assert_memory_equal(got.data.ptr, large, sizeof large);
        expect_next_words("after");
        cursor_close(cursor);
        cursor = NULL;
        reopen();
    }
    finish_reading();
}

/* ---- filters -------------------------------------------------------------------------------- */

TEST(cursor, a_time_range_is_from_inclusive_to_exclusive)
{
    start();
    int64_t one, two, three;
    os_sim_advance(sim, SECOND);
    say("a", "one");
    os_sim_advance(sim, SECOND);
    say("a", "two");
    os_sim_advance(sim, SECOND);
    say("a", "three");
    expect_ok(store_recorded_at(store, 2, &one, &err));
    expect_ok(store_recorded_at(store, 3, &two, &err));
    expect_ok(store_recorded_at(store, 4, &three, &err));
    expect_words("two three", .filter.from_time_ns = two);
    expect_words("three", .filter.from_time_ns = two + 1);
    expect_words("", .filter.from_time_ns = three + 1);
    expect_words("one", .filter.to_time_ns = two);
    expect_words("one two", .filter.to_time_ns = two + 1);
    expect_words("one two three", .filter.to_time_ns = three + 1);
    expect_words("", .filter.to_time_ns = one);
    expect_words("two", .filter.from_time_ns = two, .filter.to_time_ns = three);
    expect_words("", .filter.from_time_ns = two, .filter.to_time_ns = two);
    expect_words("two", .filter.from_time_ns = two, .filter.to_time_ns = three, .backwards = true,
                 .after_position = DEED_NONE);
    expect_words("three two", .filter.from_time_ns = two, .backwards = true,
                 .after_position = DEED_NONE);
    expect_words("one two three", .filter.from_time_ns = INT64_MIN);
    expect_words("", .filter.to_time_ns = INT64_MIN);
    expect_words("one two three", .filter.to_time_ns = INT64_MAX);
    expect_words("", .filter.from_time_ns = INT64_MAX);
    finish();
}

/* Random logs, random filters: the cursor against a list. */

#define MODEL_EVENTS 400

static const char *const model_streams[] = {"order-1", "order-2", "cart-1", "plain", "$own", "-x"};
static const char *const model_types[] = {"Made", "Sold", "Lost", "Rare"};
static const char *const model_tags[] = {"red", "blue", "big", "rare"};
static const char *const model_ids[] = {"", "c1", "c2", "c3"};

struct model_event {
    unsigned stream, type, correlation;
    bool tags[4];
    int64_t recorded_at_ns;
};
static struct model_event model[MODEL_EVENTS];

static unsigned pick(unsigned limit)
{
    return (unsigned)os_sim_pick(sim, limit);
}

/* Few events have the last of each list, so that filters go by lists as well as by scanning. */
static unsigned pick_term(unsigned count)
{
    return pick(30) == 0 ? count - 1 : pick(count - 1);
}

static void model_append(unsigned n)
{
    struct model_event *m = &model[n];
    deed_str tags[4];
    char word[16];
    size_t tag_count = 0;
    *m = (struct model_event){pick_term(6), pick_term(4), pick_term(4), {false}, 0};
    for (unsigned i = 0; i < 4; i++) {
        m->tags[i] = pick(i == 3 ? 40 : 3) == 0;
        if (m->tags[i]) tags[tag_count++] = deed_str_of(model_tags[i]);
    }
    (void)snprintf(word, sizeof word, "%u", n + 2);
    struct deed_new_event e = said(model_streams[m->stream], word);
    e.type = deed_str_of(model_types[m->type]);
    e.correlation_id = deed_str_of(model_ids[m->correlation]);
    e.tags = tags;
    e.tag_count = tag_count;
    say_event(e);
    expect_ok(store_recorded_at(store, n + 2, &m->recorded_at_ns, &err));
    if (pick(4) == 0) os_sim_advance(sim, SECOND);
}

/* A random choice out of a list of names; its bits, 0 for no filter. */
static unsigned pick_names(const char *const *names, unsigned count, deed_str *out,
                           size_t *out_count)
{
    unsigned bits = 0;
    *out_count = 0;
    if (pick(2) == 0) return 0;
    for (unsigned i = 0; i < count; i++) {
        if (names[i][0] == '\0' || pick(3) != 0) continue;
        bits |= 1u << i;
        out[(*out_count)++] = deed_str_of(names[i]);
    }
    return bits;
}

static bool model_matches(const struct model_event *m, const struct deed_filter *f,
                          const unsigned bits[4])
{
    static const char *const categories[] = {"order", "order", "cart", NULL, NULL, NULL};
    bool system = m->stream == 4;
    bool asked_for = (bits[1] >> m->stream & 1) != 0;
    if (system && !f->system && !asked_for) return false;
    if (bits[0] != 0 && (bits[0] >> m->type & 1) == 0) return false;
    if (bits[1] != 0 && !asked_for) return false;
    if (bits[2] != 0 && (bits[2] >> m->correlation & 1) == 0) return false;
    for (unsigned i = 0; i < 4; i++) {
        if ((bits[3] >> i & 1) != 0 && !m->tags[i]) return false;
    }
    const char *category = categories[m->stream];
    if (f->category_count > 0) {
        bool found = false;
        for (size_t i = 0; i < f->category_count; i++) {
            found |= category != NULL && deed_str_equal(f->categories[i], deed_str_of(category));
        }
        if (!found) return false;
    }
    if (f->from_time_ns != 0 && m->recorded_at_ns < f->from_time_ns) return false;
    return f->to_time_ns == 0 || m->recorded_at_ns < f->to_time_ns;
}

static const char *model_words(const struct deed_read_options *o, const unsigned bits[4])
{
    static char sentence[SENTENCE_SIZE];
    size_t len = 0;
    uint64_t count = 0;
    sentence[0] = '\0';
    for (unsigned i = 0; i < MODEL_EVENTS; i++) {
        unsigned n = o->backwards ? MODEL_EVENTS - 1 - i : i;
        uint64_t position = n + 2;
        if (o->backwards ? position >= o->after_position : position <= o->after_position) continue;
        if (o->until_position != 0 && position > o->until_position) continue;
        if (!model_matches(&model[n], &o->filter, bits)) continue;
        if (o->count_max != 0 && count++ == o->count_max) break;
        char word[16];
        int size = snprintf(word, sizeof word, "%u", n + 2);
        sentence_add(sentence, &len, word, (size_t)size);
    }
    return sentence;
}

static void expect_as_model(uint64_t seed)
{
    deed_str types[4], streams[6], ids[4], tags[4];
    static const deed_str categories[] = {{"order", 5}, {"cart", 4}, {"none", 4}};
    struct deed_read_options o = {.backwards = pick(2) == 0};
    unsigned bits[4];
    struct deed_filter *f = &o.filter;
    f->types = types, f->streams = streams, f->correlation_ids = ids, f->tags = tags;
    bits[0] = pick_names(model_types, 4, types, &f->type_count);
    bits[1] = pick_names(model_streams, 6, streams, &f->stream_count);
    bits[2] = pick_names(model_ids, 4, ids, &f->correlation_id_count);
    bits[3] = pick_names(model_tags, 4, tags, &f->tag_count);
    if (pick(3) == 0) {
        f->categories = &categories[pick(3)];
        f->category_count = 1;
    }
    f->system = pick(2) == 0;
    if (pick(4) == 0) f->from_time_ns = model[pick(MODEL_EVENTS)].recorded_at_ns;
    if (pick(4) == 0) f->to_time_ns = model[pick(MODEL_EVENTS)].recorded_at_ns + pick(2);
    /* The first event of the log is none of the model's. */
    o.after_position = o.backwards ? (pick(2) == 0 ? DEED_NONE : pick(MODEL_EVENTS + 4))
                                   : 1 + pick(pick(2) == 0 ? 1 : MODEL_EVENTS + 4);
    if (pick(4) == 0) o.until_position = 1 + pick(MODEL_EVENTS + 4);
    if (pick(4) == 0) o.count_max = 1 + pick(9);
    const char *wanted = model_words(&o, bits);
    char *got = strdup(read_words(&o));
    assert_non_null(got);
    /* Backwards from before the log's first event: the model does not know that one. */
    size_t len = strlen(got);
    if (o.backwards && f->system && len > 0 && got[len - 1] == '?') got[len > 1 ? len - 2 : 0] = 0;
    if (strcmp(got, wanted) != 0) {
        fail_msg("seed %llu: read \"%s\", not \"%s\"", (unsigned long long)seed, got, wanted);
    }
    free(got);
}

TEST(cursor, any_filter_gives_what_a_list_gives)
{
    const char *given = getenv("SEED");
    uint64_t first = given == NULL ? 1 : strtoull(given, NULL, 10);
    for (uint64_t seed = first; seed < first + (given == NULL ? 6 : 1); seed++) {
        start_machine(seed);
        open_store();
        for (unsigned n = 0; n < MODEL_EVENTS; n++) model_append(n);
        for (int round = 0; round < 300; round++) expect_as_model(seed);
        reopen();
        for (int round = 0; round < 100; round++) expect_as_model(seed);
        finish();
    }
}

/* ---- following ------------------------------------------------------------------------------ */

TEST(cursor, a_following_read_goes_on_where_it_ended)
{
    start_story();
    open_cursor((struct deed_read_options){.follow = true, .after_position = 4});
    expect_next_words("four five");
    expect_next_words("");
    say("c", "six");
    say("c", "seven");
    expect_next_words("six seven");
    assert_int_equal(cursor_position(cursor), 8);
    say("$own", "eight");
    expect_next_words("");
    assert_int_equal(cursor_position(cursor), 9);
    finish_reading();
}

/* What is read ahead may reach past the end: nothing is there yet, and then something is. */
TEST(cursor, a_following_read_sees_what_came_while_it_read)
{
    struct deed_event event;
    start_story();
    open_cursor((struct deed_read_options){.follow = true, .after_position = 4});
    expect_ok(cursor_next(cursor, &event, &err));
    assert_int_equal(event.position, 5);
    say("c", "six");
    say("c", "seven");
    expect_next_words("five six seven");
    finish_reading();
}

TEST(cursor, a_stream_can_be_followed_before_it_is_there)
{
    start_story();
    open_cursor((struct deed_read_options){.follow = true, .stream = DEED_STR("c")});
    expect_next_words("");
    say("a", "six");
    expect_next_words("");
    say("c", "seven");
    say("c", "eight");
    expect_next_words("seven eight");
    open_cursor((struct deed_read_options){
        .follow = true, .stream = DEED_STR("c"), .from_revision = 3});
    expect_next_words("");
    say("c", "nine");
    say("c", "ten");
    expect_next_words("ten");
    finish_reading();
}

TEST(cursor, a_filter_can_be_followed_before_anything_matches)
{
    start_story();
    for (int i = 0; i < 20; i++) say("x", "other");
    deed_str type = DEED_STR("New"), tag = DEED_STR("fresh");
    struct deed_filter f = {.types = &type, .type_count = 1, .tags = &tag, .tag_count = 1};
    open_cursor((struct deed_read_options){.follow = true, .filter = f});
    expect_next_words("");
    struct deed_new_event e = said("c", "six");
    e.type = type;
    say_event(e);
    expect_next_words("");
    e.tags = &tag;
    e.tag_count = 1;
    e.data = word_data("seven");
    say_event(e);
    expect_next_words("seven");
    finish_reading();
}

TEST(cursor, a_following_read_stops_where_it_was_to_stop)
{
    start_story();
    open_cursor((struct deed_read_options){.follow = true, .until_position = 8});
    expect_next_words("one two three four five");
    say("a", "six");
    say("a", "seven");
    say("a", "eight");
    expect_next_words("six seven");
    expect_next_words("");
    assert_int_equal(cursor_position(cursor), 8);
    expect_status(DEED_TIMEOUT, cursor_wait(cursor, 0, &err));
    expect_message(err, "the position it was to stop at");

    open_cursor((struct deed_read_options){.follow = true, .count_max = 7, .after_position = 1});
    expect_next_words("one two three four five six seven");
    expect_next_words("");
    say("a", "nine");
    expect_status(DEED_TIMEOUT, cursor_wait(cursor, 0, &err)); /* or its caller would spin */
    expect_message(err, "has returned all");
    finish_reading();
}

TEST(cursor, a_following_read_stops_at_the_time_it_was_to_stop)
{
    start_story();
    int64_t last;
    expect_ok(store_recorded_at(store, 6, &last, &err));
    open_cursor(
        (struct deed_read_options){.follow = true, .filter.to_time_ns = last + (int64_t)SECOND});
    expect_next_words("one two three four five");
    os_sim_advance(sim, SECOND - 1);
    say("a", "six");
    os_sim_advance(sim, 1);
    say("a", "seven");
    expect_next_words("six");
    assert_int_equal(cursor_position(cursor), 7);
    say("a", "eight");
    expect_next_words("");
    expect_status(DEED_TIMEOUT, cursor_wait(cursor, 0, &err));
    finish_reading();
}

TEST(cursor, only_a_following_read_can_wait)
{
    start_story();
    open_cursor((struct deed_read_options){.after_position = 0});
    expect_status(DEED_MISUSE, cursor_wait(cursor, 0, &err));
    expect_message(err, "this cursor does not follow");
    finish_reading();
}

TEST(cursor, waiting_ends_when_there_is_more_or_in_time)
{
    start_here();
    say("a", "one");
    open_cursor((struct deed_read_options){.follow = true});
    expect_ok(cursor_wait(cursor, 60000, &err)); /* nothing was read yet */
    expect_next_words("one");
    uint64_t before = os_ticks_ns(os);
    expect_status(DEED_TIMEOUT, cursor_wait(cursor, 30, &err));
    expect_message(err, "the log is at position 2");
    assert_true(os_ticks_ns(os) - before >= 30000000);
    say("a", "two");
    expect_ok(cursor_wait(cursor, 60000, &err));
    expect_next_words("two");
    finish_reading();
}

#define FOLLOW_EVENTS 3000
#define FOLLOWERS     4

struct follower {
    int kind; /* everything, one type, one stream, one tag of many */
    struct store *store;
    uint64_t seen;
    const char *wrong;
};

/* Event n is in stream f-(n % 3), has type T(n % 2) and tag g(n % 50). */
static bool follower_wants(int kind, uint64_t n)
{
    switch (kind) {
    case 0: return true;
    case 1: return n % 2 == 1;
    case 2: return n % 3 == 2;
    default: return n % 50 == 7;
    }
}

static void follow_step(struct follower *f, const struct deed_event *e, uint64_t *next)
{
    while (*next < FOLLOW_EVENTS && !follower_wants(f->kind, *next)) (*next)++;
    char wanted[32];
    int size = snprintf(wanted, sizeof wanted, "\"%llu\"", (unsigned long long)*next);
    bool right = e->data.len == (size_t)size && memcmp(e->data.ptr, wanted, (size_t)size) == 0;
    if (!right) f->wrong = "a gap, a duplicate or another order";
    (*next)++;
    f->seen++;
}

static void *follow(void *context)
{
    struct follower *f = context;
    deed_str type = DEED_STR("T1"), tag = DEED_STR("g7");
    struct deed_read_options how = {.follow = true};
    if (f->kind == 1) how.filter = (struct deed_filter){.types = &type, .type_count = 1};
    if (f->kind == 2) how.stream = DEED_STR("f-2");
    if (f->kind == 3) how.filter = (struct deed_filter){.tags = &tag, .tag_count = 1};
    struct deed_cursor *c = NULL;
    struct deed_event e;
    struct deed_error why;
    uint64_t next = 0;
    if (store_read(f->store, &how, &c, &why) != DEED_OK) {
        f->wrong = "the read did not open";
        return NULL;
    }
    uint64_t end = FOLLOW_EVENTS;
    while (!follower_wants(f->kind, end - 1)) end--;
    while (next < end && f->wrong == NULL) {
        deed_status status = cursor_next(c, &e, &why);
        if (status == DEED_OK) follow_step(f, &e, &next);
        if (status == DEED_END && cursor_wait(c, 60000, &why) != DEED_OK) f->wrong = "no more came";
        if (status != DEED_OK && status != DEED_END) f->wrong = "the read failed";
    }
    cursor_close(c);
    return NULL;
}

static void *write_followed(void *context)
{
    struct store *to = context;
    for (unsigned n = 0; n < FOLLOW_EVENTS;) {
        struct deed_new_event events[7];
        char data[7][32], streams[7][16], types[7][16], tag_names[7][16];
        deed_str tags[7];
        size_t count = 1 + n % 7;
        if (count > FOLLOW_EVENTS - n) count = FOLLOW_EVENTS - n;
        for (size_t i = 0; i < count; i++, n++) {
            int size = snprintf(data[i], sizeof data[i], "\"%u\"", n);
            (void)snprintf(streams[i], sizeof streams[i], "f-%u", n % 3);
            (void)snprintf(types[i], sizeof types[i], "T%u", n % 2);
            (void)snprintf(tag_names[i], sizeof tag_names[i], "g%u", n % 50);
            tags[i] = deed_str_of(tag_names[i]);
            events[i] = (struct deed_new_event){.stream = deed_str_of(streams[i]),
                                                .type = deed_str_of(types[i]),
                                                .data = {(const uint8_t *)data[i], (size_t)size},
                                                .tags = &tags[i],
                                                .tag_count = 1};
        }
        struct deed_append a = {.events = events, .event_count = count};
        struct deed_appended done;
        if (store_append(to, &a, &done, NULL) != DEED_OK) return "an append failed";
    }
    return NULL;
}

TEST(cursor, followers_see_each_event_once_in_order_while_it_is_written)
{
    start_here();
    pthread_t writer, threads[FOLLOWERS];
    static struct follower followers[FOLLOWERS];
    void *wrong = NULL;
    memset(followers, 0, sizeof followers);
    for (int i = 0; i < FOLLOWERS; i++) {
        followers[i] = (struct follower){.kind = i, .store = store};
        assert_int_equal(pthread_create(&threads[i], NULL, follow, &followers[i]), 0);
        if (i == FOLLOWERS / 2 - 1) { /* half of them begin beside the writer */
            assert_int_equal(pthread_create(&writer, NULL, write_followed, store), 0);
        }
    }
    assert_int_equal(pthread_join(writer, &wrong), 0);
    for (int i = 0; i < FOLLOWERS; i++) assert_int_equal(pthread_join(threads[i], NULL), 0);
    if (wrong != NULL) fail_msg("%s", (const char *)wrong);
    for (int i = 0; i < FOLLOWERS; i++) {
        if (followers[i].wrong != NULL) fail_msg("follower %d: %s", i, followers[i].wrong);
    }
    assert_int_equal(followers[0].seen, FOLLOW_EVENTS);
    assert_int_equal(followers[1].seen, FOLLOW_EVENTS / 2);
    assert_int_equal(followers[2].seen, FOLLOW_EVENTS / 3);
    assert_int_equal(followers[3].seen, FOLLOW_EVENTS / 50);
    finish();
}

/* ---- damage and errors under a cursor ------------------------------------------------------- */

/* Where the commit of a position lies in segment 1 of a story, whose groups are a sector each. */
static uint64_t sector_of(uint64_t position)
{
    return position * SECTOR_SIZE;
}

TEST(cursor, a_failed_read_skips_nothing)
{
    start_story();
    struct deed_event e;
    deed_str b = DEED_STR("b");
    const struct deed_read_options ways[] = {
        {.after_position = 0},
        {.stream = DEED_STR("a")},
        {.backwards = true, .after_position = DEED_NONE},
        {.stream = DEED_STR("a"), .backwards = true, .from_revision = DEED_NONE},
        {.filter = {.streams = &b, .stream_count = 1}},
    };
    static const char *const wanted[] = {"one two three four five", "one three five",
                                         "five four three two one", "five three one", "two four"};
    for (size_t i = 0; i < 5; i++) {
        open_cursor(ways[i]);
        os_sim_fail(sim, OS_SIM_READ, 1, 1, EIO);
        expect_status(DEED_IO, cursor_next(cursor, &e, &err));
        expect_message(err, "cannot read file");
        expect_status(DEED_IO, cursor_next(cursor, &e, &err));
        expect_next_words(wanted[i]);
        os_sim_heal(sim);
    }
    finish_reading();
}

TEST(cursor, a_damaged_event_is_told_and_the_rest_is_read)
{
    start_story();
    expect_ok(os_sim_rot(sim, SEGMENT(1), sector_of(4) + 120, OS_SIM_ROT_FLIP));
    os_sim_drop_cache(sim);
    expect_words("one two !4 four five", .after_position = 0);
    expect_message(err, "segment 1: the commit at offset 16384 (position 4) is damaged");
    expect_words("one !4 five", .stream = DEED_STR("a"));
    expect_words("five !4 one", .stream = DEED_STR("a"), .backwards = true,
                 .from_revision = DEED_NONE);
    expect_words("five four !4 two one", .backwards = true, .after_position = DEED_NONE);
    expect_words("two four", .stream = DEED_STR("b"));
    finish();
}

/* After reopening, what was lost is a hole in the index. */
TEST(cursor, a_lost_range_is_told_once_by_every_kind_of_read)
{
    start_machine(1);
    options.segment_size = 1 << 20;
    open_store();
    for (int i = 0; i < 30; i++) say("x", "x"); /* 2 to 31 */
    deed_str tag = DEED_STR("t"), type = DEED_STR("Said"), other = DEED_STR("Never");
    struct deed_new_event e = said("a", "early");
    e.tags = &tag;
    e.tag_count = 1;
    say_event(e); /* 32 */
    struct deed_new_event lost[] = {e, e, e};
    expect_ok(append_all(lost, 3, NULL, 0)); /* 33 to 35 */
    say("x", "x");                           /* 36 */
    e.data = word_data("late");
    say_event(e); /* 37 */
    close_store();
    expect_ok(os_sim_rot(sim, SEGMENT(1), sector_of(33) + 120, OS_SIM_ROT_FLIP));
    os_sim_drop_cache(sim);
    open_store();
    struct deed_info info;
    store_info(store, &info);
    assert_int_equal(info.corrupt_first, 33);
    assert_int_equal(info.corrupt_last, 35);
    assert_false(info.writable);
    expect_status(DEED_STOPPED, append_event(e));
    expect_message(err, "acknowledged events are damaged");

    struct deed_filter by_tag = {.tags = &tag, .tag_count = 1};
    struct deed_filter by_nothing = {.types = &other, .type_count = 1};
    struct deed_filter by_type = {.types = &type, .type_count = 1};
    expect_words("early !33 late", .filter = by_tag);
    expect_words("late !35 early", .filter = by_tag, .backwards = true,
                 .after_position = DEED_NONE);
    expect_words("!33", .filter = by_nothing);
    expect_words("!35", .filter = by_nothing, .backwards = true, .after_position = DEED_NONE);
    expect_words("early !33 x late", .filter = by_type, .after_position = 31);
    expect_words("!34 x late", .filter = by_type, .after_position = 33);
    expect_words("late x !35 early x", .backwards = true, .after_position = DEED_NONE,
                 .count_max = 4);
    expect_words("late", .filter = by_tag, .after_position = 35);
    expect_words("early", .filter = by_tag, .until_position = 32);
    expect_words("early", .filter = by_tag, .backwards = true, .after_position = 33);
    expect_words("early !35 !35 !35 late", .stream = DEED_STR("a"));
    finish();
}

/* ---- raw commits ---------------------------------------------------------------------------- */

static struct buf raw;

static deed_status read_raw(uint64_t after, size_t size_wanted, uint64_t *out_position)
{
    buf_reset(&raw);
    return store_read_commits(store, after, size_wanted, &raw, out_position, &err);
}

/* But for the checksum: who sees how it is made could make a commit. */
TEST(cursor, raw_commits_are_the_logs_own_bytes)
{
    start_story();
    struct deed_new_event three[] = {said("c", "six"), said("c", "seven"), said("c", "eight")};
    expect_ok(append_all(three, 3, NULL, 0));
    buf_init(&raw, 1 << 20);
    uint64_t position = 0;
    expect_ok(read_raw(0, SIZE_MAX, &position));
    assert_int_equal(position, 9);
    struct picture p;
    picture_take(&p, os, ROOT "/log");
    const uint8_t *file = picture_find(&p, "0000000001.seg")->bytes;
    static const uint8_t blank[4];
    size_t at = 0;
    for (uint64_t i = 1; i <= 7; i++) {
        const uint8_t *stored = file + sector_of(i);
        uint32_t size = commit_peek_size((deed_bytes){stored, SECTOR_SIZE});
        assert_true(size > 0 && size <= raw.len - at);
        assert_memory_equal(raw.ptr + at, stored, 4);
        assert_memory_equal(raw.ptr + at + 4, blank, 4);
        assert_memory_not_equal(stored + 4, blank, 4);
        assert_memory_equal(raw.ptr + at + 8, stored + 8, size - 8);
        at += size;
    }
    assert_int_equal(at, raw.len);
    picture_done(&p);
    buf_done(&raw);
    finish();
}

TEST(cursor, raw_commits_come_whole_and_as_many_as_wanted)
{
    start_story();
    struct deed_new_event three[] = {said("c", "six"), said("c", "seven"), said("c", "eight")};
    expect_ok(append_all(three, 3, NULL, 0));
    buf_init(&raw, 1 << 20);
    uint64_t position = 0;
    expect_ok(read_raw(0, 0, &position)); /* one at least */
    assert_int_equal(position, 1);
    size_t first = raw.len;
    expect_ok(read_raw(0, first, &position));
    assert_int_equal(position, 1);
    expect_ok(read_raw(0, first + 1, &position));
    assert_int_equal(position, 2);
    expect_ok(read_raw(7, 1, &position)); /* the commit that holds 8 begins at 7 */
    assert_int_equal(position, 9);
    expect_status(DEED_END, read_raw(9, 1, &position));
    expect_status(DEED_END, read_raw(DEED_NONE, 1, &position));
    buf_done(&raw);

    buf_init(&raw, first); /* a buffer that holds no more than one */
    expect_ok(read_raw(0, SIZE_MAX, &position));
    assert_int_equal(position, 1);
    assert_int_equal(raw.len, first);
    buf_done(&raw);
    buf_init(&raw, first - 1);
    expect_status(DEED_NO_MEMORY, read_raw(0, SIZE_MAX, &position));
    buf_done(&raw);
    finish();
}

TEST(cursor, raw_commits_end_before_damage_and_then_tell_it)
{
    start_story();
    buf_init(&raw, 1 << 20);
    uint64_t position = 0;
    expect_ok(os_sim_rot(sim, SEGMENT(1), sector_of(4) + 120, OS_SIM_ROT_FLIP));
    os_sim_drop_cache(sim);
    for (int round = 0; round < 2; round++) {
        expect_ok(read_raw(0, SIZE_MAX, &position));
        assert_int_equal(position, 3);
        expect_status(DEED_CORRUPT, read_raw(3, SIZE_MAX, &position));
        assert_int_equal(err.position, 4);
        expect_ok(read_raw(4, SIZE_MAX, &position));
        assert_int_equal(position, 6);
        reopen();
    }
    buf_done(&raw);
    finish();
}

TEST(cursor, a_stream_whose_last_events_are_lost_says_so)
{
    start();
    say("a", "one");
    say("b", "two");
    say("a", "three");
    reopen();
    close_store();
    expect_ok(os_sim_rot(sim, SEGMENT(1), sector_of(4) + 120, OS_SIM_ROT_FLIP));
    open_store();

    expect_words("one !4", .stream = DEED_STR("a"));
    expect_message(err, "stream a: positions 4 to 4 are damaged");
    expect_words("two !4", .stream = DEED_STR("b"));
    expect_words("!4 one", .stream = DEED_STR("a"), .backwards = true, .from_revision = DEED_NONE);
    expect_words("one", .stream = DEED_STR("a"), .until_position = 3);

    /* Who accepts the loss wants to go on without it. */
    close_store();
    options.accept_losses = true;
    open_store();
    options.accept_losses = false;
    expect_words("one", .stream = DEED_STR("a"));
    say("a", "on");
    expect_words("one on", .stream = DEED_STR("a"));
    finish();
}

TEST_MAIN(cursor)
