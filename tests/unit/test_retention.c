/* test_retention.c - what is left when events were removed: reads, conditions, retries, opening. */
#include "store_fixture.h"
#include "stub_fixture.h"

#include "store/store_state.h"

static enum event_fate remove_all(const struct deed_event *e)
{
    return e->stream.ptr[0] == '$' ? EVENT_KEEP : EVENT_REMOVE;
}

static enum event_fate erase_all(const struct deed_event *e)
{
    return e->stream.ptr[0] == '$' ? EVENT_KEEP : EVENT_ERASE;
}

static void rewrite(fate_of *fate)
{
    close_store();
    stub_log(os, root, fate);
    open_store();
}

static struct deed_new_event tagged(const char *stream, const char *word, unsigned id)
{
    static const deed_str tags[] = {{"red", 3}};
    struct deed_new_event e = said(stream, word);
    e.id = id_of(id);
    e.tags = tags;
    e.tag_count = 1;
    e.metadata = deed_bytes_of(DEED_STR("{\"by\":1}"));
    e.correlation_id = DEED_STR("cor");
    return e;
}

/* ---- retries -------------------------------------------------------------------------------- */

TEST(retention, a_retry_of_a_removed_event_gets_the_first_answer)
{
    start();
    say_event(tagged("order-1", "one", 1));
    struct deed_appended first = appended;
    rewrite(remove_all);
    say_event(tagged("order-1", "one", 1));
    assert_true(appended.repeated);
    assert_int_equal(appended.position, first.position);
    assert_int_equal(appended.revision, first.revision);
    finish();
}

TEST(retention, a_removed_event_is_no_retry_of_other_content)
{
    start();
    say_event(tagged("order-1", "one", 1));
    rewrite(remove_all);

    expect_status(DEED_CONFLICT, append_event(tagged("order-1", "two", 1)));
    expect_message(err, "with other content");
    struct deed_new_event e = tagged("order-1", "one", 1);
    e.metadata = deed_bytes_of(DEED_STR("{\"by\":2}"));
    expect_status(DEED_CONFLICT, append_event(e));
    e.metadata = (deed_bytes){0};
    expect_status(DEED_CONFLICT, append_event(e));
    e = tagged("order-1", "one", 1);
    e.tag_count = 0;
    expect_status(DEED_CONFLICT, append_event(e));
    e = tagged("order-1", "one", 1);
    e.type = DEED_STR("Shouted");
    expect_status(DEED_CONFLICT, append_event(e));
    finish();
}

TEST(retention, an_erased_event_answers_for_whatever_its_id_comes_with)
{
    start();
    say_event(tagged("order-1", "one", 1));
    rewrite(erase_all);
    say_event(tagged("order-1", "one", 1));
    assert_true(appended.repeated);
    say_event(tagged("order-1", "two", 1));
    assert_true(appended.repeated);
    finish();
}

TEST(retention, a_key_of_removed_events_is_remembered)
{
    start();
    struct deed_new_event e = said("order-1", "one");
    struct deed_append a = {
        .events = &e, .event_count = 1, .idempotency_key = DEED_STR("key"), .request_hash = "hash"};
    expect_ok(store_append(store, &a, &appended, &err));
    uint64_t first = appended.position;
    for (int round = 0; round < 2; round++) {
        rewrite(round == 0 ? remove_all : erase_all);
        expect_ok(store_append(store, &a, &appended, &err));
        assert_true(appended.repeated);
        assert_int_equal(appended.position, first);
        struct deed_append other = a;
        other.request_hash[0] = 'H';
        expect_status(DEED_CONFLICT, store_append(store, &other, &appended, &err));
    }
    finish();
}

/* ---- reads ---------------------------------------------------------------------------------- */

/* Words that begin with an x go. */
static enum event_fate remove_x(const struct deed_event *e)
{
    return e->data.len > 1 && e->data.ptr[1] == 'x' ? EVENT_REMOVE : EVENT_KEEP;
}

TEST(retention, a_stream_read_passes_over_what_was_removed)
{
    start();
    say("a-1", "x0"), say("a-1", "one"), say("a-1", "x2"), say("a-1", "x3"), say("a-1", "four");
    rewrite(remove_x);
    expect_words("one four", .stream = DEED_STR("a-1"));
    expect_words("four one", .stream = DEED_STR("a-1"), .backwards = true,
                 .from_revision = DEED_NONE);
    expect_words("four", .stream = DEED_STR("a-1"), .from_revision = 2);
    expect_words("one", .stream = DEED_STR("a-1"), .from_revision = 3, .backwards = true);
    expect_words("one", .stream = DEED_STR("a-1"), .count_max = 1);
    expect_words("? one ? ? four", .stream = DEED_STR("a-1"), .removed = true);
    finish();
}

TEST(retention, revisions_positions_and_conditions_stay)
{
    start();
    say("a-1", "one"), say("a-1", "x1"), say("b-1", "x"), say("a-1", "x2");
    rewrite(remove_x);
    struct deed_stream_info info;
    expect_ok(store_stream(store, DEED_STR("a-1"), &info, &err));
    assert_int_equal(info.revision, 2);
    assert_int_equal(store_position(store), 5);
    expect_status(DEED_CONFLICT, append_if(said("a-1", "no"), at_revision("a-1", 1)));
    expect_status(DEED_CONFLICT, append_if(said("b-1", "no"), stream_is("b-1", DEED_EXPECT_NONE, 0)));
    expect_ok(append_if(said("a-1", "yes"), at_revision("a-1", 2)));
    assert_int_equal(appended.revision, 3);
    assert_int_equal(appended.position, 6);
    finish();
}

TEST(retention, a_condition_by_tag_sees_what_was_removed)
{
    start();
    say_event(tagged("a-1", "x", 1));
    static const deed_str tags[] = {{"red", 3}};
    struct deed_query_item item = {.tags = tags, .tag_count = 1};
    struct deed_condition none = {
        .kind = DEED_CONDITION_NO_MATCH, .items = &item, .item_count = 1};
    for (int round = 0; round < 2; round++) {
        rewrite(round == 0 ? remove_all : erase_all);
        expect_status(DEED_CONFLICT, append_if(said("b-1", "no"), none));
        assert_int_equal(err.position, 2);
    }
    finish();
}

TEST(retention, the_log_is_read_from_the_horizon_on)
{
    start();
    say("a-1", "x1"), say("a-1", "x2"), say("a-1", "one"), say("b-1", "x3"), say("b-1", "two");
    uint64_t horizon;
    expect_ok(store_horizon(store, &horizon, &err));
    assert_int_equal(horizon, 0);
    rewrite(remove_x);
    expect_ok(store_horizon(store, &horizon, &err));
    assert_int_equal(horizon, 4);

    expect_words("DEED_GONE");
    expect_message(err, "kept from position 4 on");
    expect_message(err, "after position 3");
    assert_int_equal(err.position, 4);
    expect_words("DEED_GONE", .after_position = 2);
    expect_words("one two", .after_position = 3);
    expect_words("two", .after_position = 4);
    expect_words("DEED_GONE", .follow = true);
    expect_words("DEED_GONE", .filter = {.system = true});
    expect_words("two one", .backwards = true, .after_position = DEED_NONE);
    expect_words("", .backwards = true, .after_position = 4);
    expect_words("DEED_GONE", .backwards = true, .after_position = 3);
    expect_words("? ? one ? two", .removed = true);
    finish();
}

TEST(retention, a_thread_in_haste_does_not_wait_for_who_looks_for_the_horizon)
{
    start();
    say("a-1", "one");
    uint64_t horizon = 99;
    os_mutex_lock(&store->horizon.lock); /* as while another thread reads footers */
    os_haste_begin(1 << 20);
    assert_int_equal(store_horizon(store, &horizon, &err), DEED_BUSY);
    assert_true(os_haste_end());
    os_mutex_unlock(&store->horizon.lock);
    os_haste_begin(1 << 20);
    expect_ok(store_horizon(store, &horizon, &err));
    assert_false(os_haste_end());
    assert_int_equal(horizon, 0);
    finish();
}

TEST(retention, a_hole_behind_the_horizon_is_passed_over)
{
    start();
    say("a-1", "one"), say("a-1", "x2"), say("b-1", "x3"), say("b-1", "two");
    rewrite(remove_x);
    uint64_t horizon;
    expect_ok(store_horizon(store, &horizon, &err));
    assert_int_equal(horizon, 0);
    expect_words("one two");
    static const deed_str types[] = {{"Said", 4}};
    expect_words("one two", .filter = {.types = types, .type_count = 1});
    static const deed_str streams[] = {{"b-1", 3}};
    expect_words("two", .filter = {.streams = streams, .stream_count = 1});
    expect_words("? two", .filter = {.streams = streams, .stream_count = 1}, .removed = true);
    finish();
}

TEST(retention, a_log_without_any_stored_event_begins_at_its_end)
{
    start();
    say("a-1", "x1"), say("a-1", "x2");
    rewrite(remove_all);
    uint64_t horizon;
    expect_ok(store_horizon(store, &horizon, &err));
    assert_int_equal(horizon, 4);
    expect_words("DEED_GONE");
    expect_words("", .after_position = 3);
    expect_words("", .backwards = true, .after_position = DEED_NONE);
    say("a-1", "three");
    expect_ok(store_horizon(store, &horizon, &err));
    assert_int_equal(horizon, 4);
    expect_words("three", .after_position = 3);
    expect_words("DEED_GONE");
    finish();
}

TEST(retention, a_follower_passes_over_holes_and_goes_on)
{
    start();
    say("a-1", "one"), say("a-1", "x1");
    rewrite(remove_x);
    struct deed_read_options how = {.follow = true};
    struct deed_cursor *cursor = NULL;
    expect_ok(store_read(store, &how, &cursor, &err));
    assert_string_equal(words_of(cursor), "one");
    assert_int_equal(cursor_position(cursor), 3);
    say("a-1", "two");
    assert_string_equal(words_of(cursor), "two");
    cursor_close(cursor);
    finish();
}

TEST(retention, raw_commits_bring_stubs)
{
    start();
    say("a-1", "x1"), say("a-1", "two");
    rewrite(remove_x);
    struct buf bytes;
    uint64_t position = 0;
    size_t removed = 0;
    buf_init(&bytes, 1 << 20);
    expect_ok(store_read_commits(store, 0, 1 << 20, &bytes, &position, &err));
    assert_int_equal(position, 3);
    struct arena arena;
    arena_init(&arena, 1 << 20);
    for (size_t at = 0; at < bytes.len;) {
        uint32_t size = commit_peek_size((deed_bytes){bytes.ptr + at, bytes.len - at});
        struct reader r = reader_over(
            (deed_bytes){bytes.ptr + at + COMMIT_HEAD_SIZE, size - COMMIT_HEAD_SIZE});
        struct deed_event e;
        assert_true(event_decode(&r, &arena, &e, NULL));
        removed += e.removed;
        at += size;
    }
    assert_int_equal(removed, 1);
    arena_done(&arena);
    buf_done(&bytes);
    finish();
}

TEST(retention, a_log_with_stubs_verifies)
{
    start();
    say("a-1", "x1"), say("a-1", "two"), say("a-1", "x3");
    struct deed_info before, after;
    store_info(store, &before);
    for (int round = 0; round < 2; round++) {
        rewrite(round == 0 ? remove_x : erase_all);
        struct store_verify_report report;
        expect_ok(store_verify(store, NULL, NULL, NULL, &report, &err));
        store_info(store, &after);
        assert_memory_equal(before.chain_hash, after.chain_hash, 32);
        assert_memory_equal(report.chain_hash, after.chain_hash, 32);
        assert_int_equal(report.events, 4);
    }
    finish();
}

/* ---- metadata ------------------------------------------------------------------------------- */

static uint64_t metadata_revision;

static const char *metadata_of(const char *stream)
{
    static char text[256];
    struct buf out;
    buf_init(&out, sizeof text - 1);
    deed_status status =
        store_get_metadata(store, deed_str_of(stream), &out, &metadata_revision, &err);
    (void)snprintf(text, sizeof text, "%.*s", (int)out.len, (const char *)out.ptr);
    buf_done(&out);
    return status == DEED_OK ? text : deed_status_name(status);
}

static deed_status set_metadata(const char *stream, const char *json, enum deed_expect expect,
                                uint64_t revision)
{
    return store_set_metadata(store, deed_str_of(stream), deed_bytes_of(deed_str_of(json)), expect,
                              revision, DEED_STR("me"), &appended, &err);
}

TEST(retention, metadata_is_kept_as_it_was_written)
{
    start();
    assert_string_equal(metadata_of("a-1"), "DEED_NOT_FOUND");
    say("a-1", "one");
    assert_string_equal(metadata_of("a-1"), "{}");
    assert_true(metadata_revision == DEED_NONE);
    expect_ok(set_metadata("a-1", " {\"own\" : [1.50],\"$acl\":{\"$r\":\"x\"}}", DEED_EXPECT_NONE, 0));
    assert_int_equal(appended.revision, 0);
    assert_string_equal(metadata_of("a-1"), " {\"own\" : [1.50],\"$acl\":{\"$r\":\"x\"}}");
    assert_int_equal(metadata_revision, 0);
    reopen();
    expect_ok(set_metadata("a-1", "{}", DEED_EXPECT_ANY, 0));
    assert_string_equal(metadata_of("a-1"), "{}");
    assert_int_equal(metadata_revision, 1);
    finish();
}

TEST(retention, metadata_is_replaced_at_the_revision_that_is_expected)
{
    start();
    expect_status(DEED_CONFLICT, set_metadata("a-1", "{}", DEED_EXPECT_EXISTS, 0));
    expect_status(DEED_CONFLICT, set_metadata("a-1", "{}", DEED_EXPECT_REVISION, 0));
    expect_ok(set_metadata("a-1", "{\"$maxCount\":1}", DEED_EXPECT_NONE, 0)); /* before its stream */
    assert_string_equal(metadata_of("a-1"), "{\"$maxCount\":1}");
    expect_status(DEED_CONFLICT, set_metadata("a-1", "{}", DEED_EXPECT_NONE, 0));
    expect_status(DEED_CONFLICT, set_metadata("a-1", "{}", DEED_EXPECT_REVISION, 1));
    assert_int_equal(err.revision, 0);
    expect_ok(set_metadata("a-1", "{\"$maxCount\":2}", DEED_EXPECT_REVISION, 0));
    expect_ok(set_metadata("a-1", "{\"$maxCount\":1}", DEED_EXPECT_EXISTS, 0));
    say("a-1", "one"), say("a-1", "two");
    expect_words("two", .stream = DEED_STR("a-1"));
    finish();
}

TEST(retention, metadata_goes_with_a_tombstone_and_stays_with_a_soft_delete)
{
    start();
    say("a-1", "one");
    expect_ok(set_metadata("a-1", "{\"own\":1}", DEED_EXPECT_NONE, 0));
    expect_ok(store_delete_stream(store, DEED_STR("a-1"), DEED_EXPECT_ANY, 0, false, (deed_str){0},
                                  &appended, &err));
    assert_string_equal(metadata_of("a-1"), "{\"own\":1,\"$tb\":1}");
    expect_ok(set_metadata("a-1", "{\"own\":2,\"$tb\":1}", DEED_EXPECT_REVISION, 1));
    expect_ok(store_delete_stream(store, DEED_STR("a-1"), DEED_EXPECT_ANY, 0, true, (deed_str){0},
                                  &appended, &err));
    assert_string_equal(metadata_of("a-1"), "DEED_DELETED");
    expect_status(DEED_DELETED, set_metadata("a-1", "{}", DEED_EXPECT_ANY, 0));
    finish();
}

TEST(retention, each_member_has_a_range)
{
    static const struct {
        const char *json;
        bool good;
    } cases[] = {
        {"{\"$tb\":0}", true},
        {"{\"$tb\":18446744073709551615}", true},
        {"{\"$tb\":18446744073709551616}", false},
        {"{\"$tb\":-1}", false},
        {"{\"$tb\":\"1\"}", false},
        {"{\"$tb\":1.5}", false},
        {"{\"$tb\":null}", true},
        {"{\"$maxCount\":0}", false},
        {"{\"$maxCount\":1}", true},
        {"{\"$maxCount\":18446744073709551615}", true},
        {"{\"$maxAge\":0}", false},
        {"{\"$maxAge\":1}", true},
        {"{\"$maxAge\":9223372036}", true},
        {"{\"$maxAge\":9223372037}", false},
        {"{\"$maxAge\":true}", false},
        {"[]", false},
        {"null", false},
        {"", false},
        {"{", false},
    };
    start();
    say("a-1", "one");
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        deed_status status = set_metadata("a-1", cases[i].json, DEED_EXPECT_ANY, 0);
        if (status != (cases[i].good ? DEED_OK : DEED_INVALID)) {
            fail_msg("%s: %s", cases[i].json, deed_status_name(status));
        }
        expect_ok(set_metadata("a-1", "{}", DEED_EXPECT_ANY, 0));
    }
    expect_status(DEED_INVALID, set_metadata("a-1", "{\"$maxAge\":9223372037}", DEED_EXPECT_ANY, 0));
    expect_message(err, "$maxAge is 9223372037, it must be a whole number from 1 to 9223372036");
    expect_status(DEED_INVALID, set_metadata("", "{}", DEED_EXPECT_ANY, 0));
    finish();
}

TEST(retention, the_longest_name_has_metadata_and_a_longer_one_has_none)
{
    struct deed_limits limits = {.name_size_max = 20};
    start_limited(limits);
    expect_ok(set_metadata("abcdefghijklmnopqrs", "{}", DEED_EXPECT_NONE, 0));
    expect_ok(set_metadata("abcdefghijklmnopqrst", "{}", DEED_EXPECT_NONE, 0));
    expect_status(DEED_TOO_LARGE, set_metadata("abcdefghijklmnopqrstu", "{}", DEED_EXPECT_NONE, 0));
    finish();
}

TEST(retention, a_metadata_stream_takes_nothing_else)
{
    start();
    expect_status(DEED_INVALID, append_event(said("$$a-1", "one")));
    expect_message(err, "stream $$a-1 holds metadata: type \"Said\" should be $metadata");
    finish();
}

TEST_MAIN(retention)
