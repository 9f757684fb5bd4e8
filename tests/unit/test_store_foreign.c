/* test_store_foreign.c - what clients of KurrentDB may do to the store that others may not. */
#include "store_fixture.h"

#include <errno.h>

static bool answered;
static deed_status status_of_answer;

static void take_answer(void *context, const struct deed_appended *given,
                        const struct deed_error *why)
{
    (void)context;
    answered = true;
    status_of_answer = given != NULL ? DEED_OK : why->status;
    if (given != NULL) appended = *given;
    if (why != NULL) err = *why;
}

static deed_status append_foreign(const struct deed_new_event *events, size_t count,
                                  const struct deed_condition *condition)
{
    struct deed_append a = {.events = events,
                            .event_count = count,
                            .conditions = condition,
                            .condition_count = condition != NULL};
    answered = false;
    err = (struct deed_error){0};
    deed_status status = store_submit_foreign(store, &a, take_answer, NULL, &err);
    if (status != DEED_OK) return status;
    while (!answered && store_step(store)) continue;
    assert_true(answered);
    return status_of_answer;
}

static deed_status say_foreign(const char *stream, const char *word, enum deed_expect expect,
                               uint64_t revision)
{
    struct deed_new_event e = said(stream, word);
    struct deed_condition c = stream_is(stream, expect, revision);
    return append_foreign(&e, 1, &c);
}

static deed_status set_metadata(const char *stream, const char *type, const char *data)
{
    struct deed_new_event e = {.stream = deed_str_of(stream),
                               .type = deed_str_of(type),
                               .data = deed_bytes_of(deed_str_of(data))};
    return append_foreign(&e, 1, NULL);
}

static deed_status drop(const char *stream, enum deed_expect expect, uint64_t revision,
                        bool tombstone)
{
    err = (struct deed_error){0};
    return store_delete_foreign(store, deed_str_of(stream), expect, revision, tombstone, &appended,
                                &err);
}

static struct deed_stream_info info_of(const char *stream)
{
    struct deed_stream_info info = {0};
    expect_ok(store_stream(store, deed_str_of(stream), &info, &err));
    return info;
}

/* ---- bytes ---------------------------------------------------------------------------------- */

TEST(store_foreign, metadata_that_is_no_json_is_kept)
{
    start();
    uint8_t bytes[] = {0xff, 0, '{'};
    struct deed_new_event e = said("s", "one");
    e.metadata = (deed_bytes){bytes, sizeof bytes};
    expect_status(DEED_INVALID, append_event(e));
    expect_ok(append_foreign(&e, 1, NULL));
    /* Others may, who say so: an export is read back. */
    e.stream = DEED_STR("t");
    e.metadata_unchecked = true;
    expect_ok(append_event(e));

    struct deed_read_options how = {.stream = DEED_STR("s")};
    struct deed_cursor *cursor;
    struct deed_event event;
    expect_ok(store_read(store, &how, &cursor, &err));
    expect_ok(cursor_next(cursor, &event, &err));
    assert_int_equal(event.metadata.len, sizeof bytes);
    assert_memory_equal(event.metadata.ptr, bytes, sizeof bytes);
    cursor_close(cursor);
    finish();
}

TEST(store_foreign, reserved_names_stay_reserved)
{
    start();
    expect_status(DEED_INVALID, set_metadata("$log", "x", "{}"));
    expect_status(DEED_INVALID, set_metadata("$$", "$metadata", "{}"));
    expect_status(DEED_INVALID, set_metadata("s", "$streamDeleted", "{}"));
    expect_status(DEED_INVALID, drop("$$s", DEED_EXPECT_ANY, 0, false));
    expect_status(DEED_INVALID, drop("$log", DEED_EXPECT_ANY, 0, true));
    expect_status(DEED_INVALID, drop("", DEED_EXPECT_ANY, 0, true));
    expect_ok(set_metadata("$settings", "$settings", "{}"));
    static const char *const virtual_names[] = {"$ce-a", "$et-a", "$bc-a", "$streams"};
    for (size_t i = 0; i < 4; i++) {
        expect_status(DEED_INVALID, say_foreign(virtual_names[i], "x", DEED_EXPECT_ANY, 0));
        expect_status(DEED_INVALID, drop(virtual_names[i], DEED_EXPECT_ANY, 0, false));
        expect_status(DEED_INVALID, drop(virtual_names[i], DEED_EXPECT_ANY, 0, true));
    }
    finish();
}

TEST(store_foreign, stream_metadata_may_be_anything_and_counts_if_it_is_some)
{
    start();
    say("s", "one");
    say("s", "two");
    expect_ok(set_metadata("$$s", "$metadata", "{\"$maxCount\":1}"));
    assert_int_equal(info_of("s").max_count, 1);
    expect_ok(set_metadata("$$s", "$metadata", "{\"$maxCount\":-1}"));
    assert_int_equal(info_of("s").max_count, 0);
    expect_ok(set_metadata("$$s", "$metadata", "nonsense"));
    assert_int_equal(info_of("s").max_count, 0);
    struct buf json;
    uint64_t revision;
    buf_init(&json, 1000);
    expect_ok(store_get_metadata(store, DEED_STR("s"), &json, &revision, &err));
    expect_str(buf_str(&json), "{}");
    buf_done(&json);
    expect_ok(set_metadata("$$s", "Other", "{\"$maxCount\":1}"));
    assert_int_equal(info_of("s").max_count, 0);
    reopen();
    assert_int_equal(info_of("s").max_count, 0);
    expect_ok(drop("s", DEED_EXPECT_ANY, 0, false));
    assert_true(info_of("s").deleted);
    finish();
}

static void expect_metadata(const char *stream, const char *wanted)
{
    struct buf json;
    uint64_t revision;
    buf_init(&json, 1000);
    expect_ok(store_get_metadata(store, deed_str_of(stream), &json, &revision, &err));
    expect_str(buf_str(&json), wanted);
    buf_done(&json);
}

TEST(store_foreign, stream_metadata_that_is_not_heeded_is_shown_if_it_is_an_object)
{
    char deep[300] = "{\"a\":";
    memset(deep + 5, '[', 100);
    memset(deep + 105, ']', 100);
    strcpy(deep + 205, "}");
    start();
    say("s", "one");
    expect_ok(set_metadata("$$s", "$metadata", " {\"$maxCount\":-1,\"own\":1}"));
    expect_metadata("s", " {\"$maxCount\":-1,\"own\":1}");
    expect_ok(drop("s", DEED_EXPECT_ANY, 0, false));
    assert_true(info_of("s").deleted);
    expect_metadata("s", "{\"own\":1,\"$tb\":1}");
    expect_ok(set_metadata("$$s", "$metadata", "[1,2]"));
    expect_metadata("s", "{}");
    expect_ok(drop("s", DEED_EXPECT_ANY, 0, false));
    assert_true(info_of("s").deleted);
    expect_metadata("s", "{\"$tb\":1}");
    expect_ok(set_metadata("$$s", "$metadata", "{\"a\":1,\"a\":2}"));
    expect_ok(drop("s", DEED_EXPECT_ANY, 0, false));
    assert_true(info_of("s").deleted);
    expect_ok(set_metadata("$$s", "Other", "{\"own\":1}"));
    expect_metadata("s", "{}");
    expect_ok(drop("s", DEED_EXPECT_ANY, 0, false));
    expect_metadata("s", "{\"$tb\":1}");
    expect_ok(set_metadata("$$s", "$metadata", deep));
    expect_metadata("s", "{}");
    expect_ok(drop("s", DEED_EXPECT_ANY, 0, false));
    assert_true(info_of("s").deleted);
    finish();
}

/* ---- ids ------------------------------------------------------------------------------------ */

TEST(store_foreign, an_id_may_stand_twice_but_a_retry_of_that_is_refused)
{
    start();
    struct deed_new_event twice[] = {said("s", "one"), said("s", "one")};
    twice[0].id = twice[1].id = id_of(7);
    expect_ok(append_foreign(twice, 2, NULL));
    assert_int_equal(appended.revision, 1);
    expect_words("one one", .stream = DEED_STR("s"));
    expect_status(DEED_CONFLICT, append_foreign(twice, 2, NULL));
    expect_message(err, "stands twice");
    assert_int_equal(err.revision, 1);
    finish();
}

TEST(store_foreign, a_conflict_over_ids_says_where_the_stream_is)
{
    start();
    struct deed_new_event two[] = {said("s", "one"), said("s", "two")};
    two[0].id = id_of(1);
    two[1].id = id_of(2);
    expect_ok(append_foreign(two, 1, NULL));
    say("s", "more");
    expect_status(DEED_CONFLICT, append_foreign(two, 2, NULL));
    assert_int_equal(err.revision, 1);
    two[0].data = word_data("changed");
    expect_status(DEED_CONFLICT, append_foreign(two, 1, NULL));
    assert_int_equal(err.revision, 1);
    finish();
}

/* ---- no events ------------------------------------------------------------------------------ */

static deed_status ask(const char *stream, enum deed_expect expect, uint64_t revision)
{
    struct deed_condition c = stream_is(stream, expect, revision);
    return append_foreign(NULL, 0, &c);
}

TEST(store_foreign, an_append_of_nothing_says_where_the_stream_is)
{
    start();
    expect_ok(ask("s", DEED_EXPECT_ANY, 0));
    assert_true(appended.revision == DEED_NONE);
    expect_ok(ask("s", DEED_EXPECT_NONE, 0));
    expect_status(DEED_CONFLICT, ask("s", DEED_EXPECT_EXISTS, 0));
    uint64_t position = store_position(store);
    say("s", "one");
    say("s", "two");
    expect_ok(ask("s", DEED_EXPECT_REVISION, 1));
    assert_int_equal(appended.revision, 1);
    assert_int_equal(appended.position, position + 2);
    expect_status(DEED_CONFLICT, ask("s", DEED_EXPECT_REVISION, 0));
    assert_int_equal(store_position(store), position + 2);
    expect_ok(drop("s", DEED_EXPECT_ANY, 0, true));
    expect_status(DEED_DELETED, ask("s", DEED_EXPECT_ANY, 0));
    expect_status(DEED_INVALID, append_foreign(NULL, 0, NULL));
    finish();
}

/* ---- deleting ------------------------------------------------------------------------------- */

TEST(store_foreign, a_stream_that_was_never_written_is_not_deleted_but_may_be_closed)
{
    start();
    expect_status(DEED_CONFLICT, drop("s", DEED_EXPECT_ANY, 0, false));
    assert_true(err.revision == DEED_NONE);
    expect_status(DEED_CONFLICT, drop("s", DEED_EXPECT_NONE, 0, false));
    expect_status(DEED_CONFLICT, drop("s", DEED_EXPECT_EXISTS, 0, true));
    expect_status(DEED_CONFLICT, drop("s", DEED_EXPECT_REVISION, 0, true));
    expect_ok(drop("s", DEED_EXPECT_NONE, 0, true));
    expect_ok(drop("t", DEED_EXPECT_ANY, 0, true));
    expect_status(DEED_DELETED, drop("s", DEED_EXPECT_ANY, 0, true));
    expect_status(DEED_DELETED, drop("s", DEED_EXPECT_ANY, 0, false));
    expect_status(DEED_DELETED, say_foreign("s", "one", DEED_EXPECT_ANY, 0));
    expect_status(DEED_DELETED, set_metadata("$$s", "$metadata", "{}"));
    finish();
}

TEST(store_foreign, what_was_there_is_hidden_and_what_comes_is_not)
{
    start();
    say("s", "one");
    say("s", "two");
    expect_ok(set_metadata("$$s", "$metadata", "{\"mine\":1,\"$tb\":1}"));
    expect_status(DEED_CONFLICT, drop("s", DEED_EXPECT_REVISION, 0, false));
    assert_int_equal(err.revision, 1);
    expect_ok(drop("s", DEED_EXPECT_REVISION, 1, false));
    assert_int_equal(appended.position, store_position(store));

    struct deed_stream_info info = info_of("s");
    assert_true(info.deleted);
    assert_int_equal(info.truncate_before, 2);
    struct buf json;
    uint64_t revision;
    buf_init(&json, 1000);
    expect_ok(store_get_metadata(store, DEED_STR("s"), &json, &revision, &err));
    expect_str(buf_str(&json), "{\"mine\":1,\"$tb\":2}");
    buf_done(&json);

    say("s", "three");
    expect_words("three", .stream = DEED_STR("s"));
    assert_int_equal(info_of("s").revision, 2);
    assert_int_equal(info_of("s").first_revision, 2);
    reopen();
    expect_words("three", .stream = DEED_STR("s"));
    expect_ok(drop("s", DEED_EXPECT_EXISTS, 0, false));
    assert_true(info_of("s").deleted);
    assert_int_equal(info_of("s").truncate_before, 3);
    finish();
}

/* As clients that delete by writing the metadata themselves do. */
TEST(store_foreign, the_largest_truncate_before_hides_what_was_there_then)
{
    start();
    say("s", "one");
    expect_ok(set_metadata("$$s", "$metadata", "{\"$tb\":9223372036854775807}"));
    assert_true(info_of("s").deleted);
    say("s", "two");
    say("s", "three");
    assert_int_equal(info_of("s").first_revision, 1);
    reopen();
    expect_words("two three", .stream = DEED_STR("s"));
    finish();
}

TEST(store_foreign, a_deleted_stream_is_deleted_again_unless_it_should_exist)
{
    start();
    say("s", "one");
    expect_ok(drop("s", DEED_EXPECT_ANY, 0, false));
    expect_ok(drop("s", DEED_EXPECT_ANY, 0, false));
    expect_ok(drop("s", DEED_EXPECT_NONE, 0, false));
    expect_ok(drop("s", DEED_EXPECT_REVISION, 0, false));
    expect_status(DEED_DELETED, drop("s", DEED_EXPECT_EXISTS, 0, false));
    expect_status(DEED_DELETED, drop("s", DEED_EXPECT_EXISTS, 0, true));
    expect_ok(drop("s", DEED_EXPECT_NONE, 0, true));
    finish();
}

TEST(store_foreign, a_deleted_stream_is_written_again_by_each_mode_but_exists)
{
    static const struct {
        enum deed_expect expect;
        uint64_t revision;
    } modes[] = {{DEED_EXPECT_ANY, 0}, {DEED_EXPECT_NONE, 0}, {DEED_EXPECT_REVISION, 0}};
    for (size_t i = 0; i < 3; i++) {
        start();
        say("s", "one");
        expect_ok(drop("s", DEED_EXPECT_ANY, 0, false));
        expect_status(DEED_CONFLICT, say_foreign("s", "two", DEED_EXPECT_EXISTS, 0));
        assert_int_equal(err.revision, 0);
        expect_ok(say_foreign("s", "two", modes[i].expect, modes[i].revision));
        assert_int_equal(appended.revision, 1);
        expect_words("two", .stream = DEED_STR("s"));
        finish();
    }
}

TEST(store_foreign, a_stream_with_metadata_only_exists)
{
    start();
    expect_ok(set_metadata("$$s", "$metadata", "{}"));
    expect_ok(ask("s", DEED_EXPECT_EXISTS, 0));
    expect_status(DEED_CONFLICT, append_if(said("s", "one"), stream_is("s", DEED_EXPECT_EXISTS, 0)));
    expect_ok(drop("s", DEED_EXPECT_EXISTS, 0, false));
    expect_ok(say_foreign("s", "one", DEED_EXPECT_EXISTS, 0));
    expect_words("one", .stream = DEED_STR("s"));
    finish();
}

TEST(store_foreign, conditions_ask_for_deleted_and_closed_streams)
{
    start();
    say("s", "one");
    expect_status(DEED_CONFLICT, append_if(said("x", "a"), stream_is("s", DEED_EXPECT_DELETED, 0)));
    expect_status(DEED_CONFLICT,
                  append_if(said("x", "a"), stream_is("s", DEED_EXPECT_TOMBSTONED, 0)));
    expect_message(err, "should be deleted for good");
    expect_ok(drop("s", DEED_EXPECT_ANY, 0, false));
    expect_ok(append_if(said("x", "b"), stream_is("s", DEED_EXPECT_DELETED, 0)));
    expect_ok(drop("s", DEED_EXPECT_ANY, 0, true));
    expect_status(DEED_CONFLICT, append_if(said("x", "c"), stream_is("s", DEED_EXPECT_DELETED, 0)));
    expect_ok(append_if(said("x", "d"), stream_is("s", DEED_EXPECT_TOMBSTONED, 0)));
    expect_status(DEED_CONFLICT,
                  append_if(said("x", "e"), stream_is("none", DEED_EXPECT_TOMBSTONED, 0)));
    expect_words("b d", .stream = DEED_STR("x"));
    finish();
}

TEST(store_foreign, a_failed_write_leaves_the_stream_as_it_was)
{
    for (unsigned k = 1; k < 12; k++) {
        start();
        say("s", "one");
        os_sim_fail(sim, OS_SIM_ANY, k, 0, EIO);
        deed_status status = drop("s", DEED_EXPECT_ANY, 0, false);
        os_sim_heal(sim);
        crash();
        open_store();
        if (status == DEED_OK) assert_true(info_of("s").deleted);
        /* Whatever came of it, what follows is seen. */
        say("s", "two");
        expect_ok(drop("s", DEED_EXPECT_ANY, 0, false));
        say("s", "three");
        expect_words("three", .stream = DEED_STR("s"));
        finish();
    }
}

TEST_MAIN(store_foreign)
