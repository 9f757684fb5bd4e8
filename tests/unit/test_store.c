/* test_store.c - belongs to store.c, append.c, check.c, condition.c and stream.c: what an append
 * must be, what it answers, what a stream is. Reading is test_cursor.c's; the disk's faults are
 * test_store_faults.c's. */
#include "store_fixture.h"

#include "base/uuid.h"
#include "log/commit.h"
#include "store/store_state.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/syscall.h>

/* ---- opening -------------------------------------------------------------------------------- */

TEST(store, a_new_log_begins_with_its_identity)
{
    start();
    struct deed_info info;
    store_info(store, &info);
    char id[UUID_TEXT_SIZE + 1], wanted[160];
    uuid_format(info.log_id, id);
    (void)snprintf(wanted, sizeof wanted, "{\"log_id\":\"%s\",\"epoch\":1,\"format\":1}", id);

    struct deed_cursor *cursor = NULL;
    struct deed_event e;
    struct deed_read_options all = {.filter.system = true};
    expect_ok(store_read(store, &all, &cursor, &err));
    expect_ok(cursor_next(cursor, &e, &err));
    assert_int_equal(e.position, 1);
    assert_int_equal(e.revision, 0);
    expect_str(e.stream, "$log");
    expect_str(e.type, "$log-created");
    expect_str(((deed_str){(const char *)e.data.ptr, e.data.len}), wanted);
    expect_status(DEED_END, cursor_next(cursor, &e, &err));
    cursor_close(cursor);

    assert_int_equal(info.position, 1);
    assert_int_equal(info.epoch, 1);
    assert_int_equal(info.segment_count, 1);
    assert_true(info.writable);
    assert_false(info.unsafe);
    assert_true(info.corrupt_first == DEED_NONE);
    finish();
}

TEST(store, what_was_appended_is_there_after_reopening)
{
    start();
    struct deed_info before, after;
    say("order-1", "one");
    say("order-2", "two");
    store_info(store, &before);
    reopen();
    store_info(store, &after);
    expect_words("one two", .until_position = 0);
    assert_memory_equal(before.chain_hash, after.chain_hash, 32);
    assert_memory_equal(before.log_id.bytes, after.log_id.bytes, 16);
    assert_int_equal(after.position, 3);
    assert_int_equal(before.recorded_at_ns, after.recorded_at_ns);
    finish();
}

TEST(store, a_directory_that_must_exist_is_not_made)
{
    start_machine(1);
    options.must_exist = true;
    expect_status(DEED_NOT_FOUND, try_open());
    expect_message(err, "/data");
    finish();
}

TEST(store, a_read_only_store_needs_a_log)
{
    start_machine(1);
    options.read_only = true;
    expect_status(DEED_NOT_FOUND, try_open());
    expect_message(err, "/data");
    finish();
}

TEST(store, a_directory_is_one_stores_at_a_time)
{
    start();
    struct store *second = NULL;
    expect_status(DEED_LOCKED, store_open(os, root, &options, &second, &err));
    expect_message(err, "in use");
    close_store();
    expect_ok(store_open(os, root, &options, &second, &err));
    store_close(second);
    finish();
}

TEST(store, options_that_the_format_cannot_hold_are_refused)
{
    const struct {
        struct store_options options;
        const char *message; /* NULL: good */
    } cases[] = {
        {{.limits.name_size_max = 65533}, NULL},
        {{.limits.name_size_max = 65534}, "name_size_max: 65534"},
        {{.limits.tag_count_max = 65535}, NULL},
        {{.limits.tag_count_max = 65536}, "tag_count_max: 65536"},
        {{.limits.commit_size_max = UINT32_MAX / 2}, NULL},
        {{.limits.commit_size_max = UINT32_MAX / 2 + 1}, "commit_size_max: 2147483648"},
        {{.segment_size = 65536}, NULL},
        {{.segment_size = 65535}, "segment_size: 65535"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        start_machine(1);
        options = cases[i].options;
        options.no_threads = true;
        expect_status(cases[i].message == NULL ? DEED_OK : DEED_INVALID, try_open());
        if (cases[i].message != NULL) expect_message(err, cases[i].message);
        finish();
    }
}

TEST(store, limits_left_at_zero_become_the_documented_ones)
{
    start();
    const struct deed_limits *l = store_limits(store);
    assert_int_equal(l->event_size_max, 16 << 20);
    assert_int_equal(l->commit_size_max, 32 << 20);
    assert_int_equal(l->commit_count_max, 65536);
    assert_int_equal(l->name_size_max, 1024);
    assert_int_equal(l->tag_count_max, 64);
    assert_int_equal(l->condition_count_max, 1024);
    assert_int_equal(l->json_depth_max, 64);
    assert_int_equal(l->queue_count_max, 65536);
    assert_int_equal(l->queue_size_max, 256 << 20);
    finish();
}

/* ---- what an append must be ----------------------------------------------------------------- */

static void expect_refused(deed_status wanted, struct deed_new_event event, const char *message)
{
    uint64_t before = store_position(store);
    expect_status(wanted, append_event(event));
    expect_message(err, message);
    assert_int_equal(err.status, wanted);
    assert_int_equal(store_position(store), before);
    struct deed_append a = {.events = &event, .event_count = 1};
    expect_status(wanted, store_check(store, &a, &err));
    expect_message(err, message);
}

TEST(store, an_append_needs_an_event)
{
    start();
    expect_status(DEED_INVALID, append_all(NULL, 0, NULL, 0));
    expect_message(err, "at least one event");
    finish();
}

TEST(store, names_are_checked)
{
    start();
    struct deed_new_event e = said("a", "one");
    e.stream = (deed_str){0};
    expect_refused(DEED_INVALID, e, "stream: must not be empty");
    e = said("a", "one");
    e.type = (deed_str){0};
    expect_refused(DEED_INVALID, e, "type: must not be empty");

    expect_refused(DEED_INVALID, said("a\xff", "one"), "stream: not valid UTF-8");
    expect_refused(DEED_INVALID, said("a\n", "one"), "stream: control character 0x0a at byte 1");
    expect_refused(DEED_INVALID, said("\x7f", "one"), "control character 0x7f at byte 0");
    e = said("a", "one");
    e.type = (deed_str){"a\0b", 3};
    expect_refused(DEED_INVALID, e, "type: control character");
    e = said("a", "one");
    e.actor = DEED_STR("\xc0\x80");
    expect_refused(DEED_INVALID, e, "actor: not valid UTF-8");
    e = said("a", "one");
    e.correlation_id = DEED_STR("\t");
    expect_refused(DEED_INVALID, e, "correlation id: control");
    e = said("a", "one");
    e.causation_id = DEED_STR("\t");
    expect_refused(DEED_INVALID, e, "causation id: control");
    e = said("a", "one");
    e.content_type = DEED_STR("\t");
    expect_refused(DEED_INVALID, e, "content type: control");

    deed_str tags[] = {DEED_STR("good"), DEED_STR("")};
    e = said("a", "one");
    e.tags = tags;
    e.tag_count = 2;
    expect_refused(DEED_INVALID, e, "tag: must not be empty");
    finish();
}

TEST(store, data_that_says_it_is_json_must_be)
{
    start();
    struct deed_new_event e = said("a", "one");
    e.data = deed_bytes_of(DEED_STR("{\"a\":}"));
    expect_refused(DEED_INVALID, e, "data: ");
    e.content_type = DEED_STR("application/json; charset=utf-8");
    expect_refused(DEED_INVALID, e, "data: ");
    e.content_type = DEED_STR("application/vnd.shop+json");
    expect_refused(DEED_INVALID, e, "data: ");
    e.content_type = DEED_STR("text/plain");
    say_event(e);
    e.content_type = (deed_str){0};
    e.data = (deed_bytes){0};
    expect_refused(DEED_INVALID, e, "data: ");

    e = said("a", "one");
    e.content_type = DEED_STR("application/octet-stream");
    e.data = (deed_bytes){0};
    say_event(e);
    e.metadata = deed_bytes_of(DEED_STR("no json"));
    expect_refused(DEED_INVALID, e, "metadata: ");
    finish();
}

TEST(store, a_fault_in_one_of_several_events_is_told_by_its_index)
{
    start();
    struct deed_new_event events[] = {said("a", "one"), said("a", "two"), said("", "three")};
    expect_status(DEED_INVALID, append_all(events, 3, NULL, 0));
    expect_message(err, "event 2: stream: must not be empty");
    expect_words("", .until_position = 0);
    finish();
}

TEST(store, the_systems_own_names_are_reserved)
{
    start();
    expect_refused(DEED_INVALID, said("$log", "one"), "stream $log is the log's own");
    struct deed_new_event e = said("a", "one");
    e.type = DEED_STR("$streamDeleted");
    expect_refused(DEED_INVALID, e, "$streamDeleted is reserved");
    e = said("$$a", "one");
    e.type = DEED_STR("$metadata");
    expect_refused(DEED_INVALID, e, "stream metadata must be a JSON object, it is a string");
    e.data = deed_bytes_of(DEED_STR("{\"$maxCount\":0}"));
    expect_refused(DEED_INVALID, e, "$maxCount is 0, it must be a whole number from 1 to ");
    e.data = deed_bytes_of(DEED_STR("{\"$maxAge\":1.5}"));
    expect_refused(DEED_INVALID, e, "$maxAge is 1.5");
    e.data = deed_bytes_of(DEED_STR("{\"$maxAge\":9223372037}"));
    expect_refused(DEED_INVALID, e, "$maxAge is 9223372037");
    e.data = deed_bytes_of(DEED_STR("{\"$tb\":-1}"));
    expect_refused(DEED_INVALID, e, "$tb is -1");
    e.data = deed_bytes_of(
        DEED_STR("{\"$tb\":null,\"$maxCount\":1,\"$maxAge\":9223372036,\"own\":[1]}"));
    say_event(e);
    say("$mine", "system streams are open to all else");
    finish();
}

TEST(store, an_event_id_stands_once_in_an_append)
{
    start();
    struct deed_new_event events[] = {said("a", "one"), said("a", "two")};
    events[0].id = events[1].id = id_of(7);
    expect_status(DEED_INVALID, append_all(events, 2, NULL, 0));
    expect_message(err, "01000000-0000-0000-0000-000000000007 stands twice");
    events[1].stream = DEED_STR("b"); /* an id belongs to its stream */
    expect_ok(append_all(events, 2, NULL, 0));
    finish();
}

/* ---- limits --------------------------------------------------------------------------------- */

TEST(store, an_event_may_be_as_large_as_the_limit)
{
    static char text[512];
    memset(text, 'x', sizeof text);
    deed_str tags[] = {DEED_STR("tag1"), DEED_STR("tag2")};
    struct deed_new_event e = {.stream = DEED_STR("stream"),
                               .type = DEED_STR("type"),
                               .content_type = DEED_STR("text/plain"),
                               .metadata = deed_bytes_of(DEED_STR("{}")),
                               .tags = tags,
                               .tag_count = 2,
                               .correlation_id = DEED_STR("cor"),
                               .causation_id = DEED_STR("cau"),
                               .actor = DEED_STR("act")};
    size_t names = 6 + 4 + 10 + 2 + 4 + 4 + 3 + 3 + 3;
    start_limited((struct deed_limits){.event_size_max = 400});
    for (size_t size = 399; size <= 401; size++) {
        e.data = (deed_bytes){(uint8_t *)text, size - names};
        expect_status(size <= 400 ? DEED_OK : DEED_TOO_LARGE, append_event(e));
    }
    expect_message(err, "event of type \"type\": 401 bytes, limit 400");
    finish();
}

TEST(store, an_append_may_be_as_large_as_the_limit)
{
    static char text[1024];
    memset(text, 'x', sizeof text);
    struct deed_new_event events[2] = {said("a", "one"), said("a", "two")};
    events[1].content_type = DEED_STR("text/plain");
    events[1].data = (deed_bytes){(uint8_t *)text, 0};
    size_t fixed = COMMIT_HEAD_SIZE + COMMIT_ALIGN + event_size(&events[0], (deed_str){0}) +
                   event_size(&events[1], (deed_str){0});
    start_limited((struct deed_limits){.commit_size_max = 1000});
    for (size_t size = 999; size <= 1001; size++) {
        events[1].data.len = size - fixed;
        expect_status(size <= 1000 ? DEED_OK : DEED_TOO_LARGE, append_all(events, 2, NULL, 0));
    }
    expect_message(err, "append: 1001 bytes, limit 1000");
    finish();
}

TEST(store, an_append_may_have_as_many_events_as_the_limit)
{
    start_limited((struct deed_limits){.commit_count_max = 3});
    struct deed_new_event events[4];
    for (size_t i = 0; i < 4; i++) events[i] = said("a", "one");
    expect_ok(append_all(events, 2, NULL, 0));
    expect_ok(append_all(events, 3, NULL, 0));
    expect_status(DEED_TOO_LARGE, append_all(events, 4, NULL, 0));
    expect_message(err, "append: 4 events, limit 3");
    finish();
}

/* Each place of a name takes `max` bytes, and refuses one more. */
static void expect_name_limit(size_t place, size_t size, deed_status wanted, const char *message)
{
    static char text[64];
    memset(text, 'n', sizeof text);
    deed_str name = {text, size};
    deed_str type = DEED_STR("Nothing");
    struct deed_query_item item = {.types = &type, .type_count = 1};
    struct deed_new_event e = said("a", "one");
    struct deed_condition c = stream_is("free", DEED_EXPECT_NONE, 0);
    struct deed_append a = {
        .events = &e, .event_count = 1, .conditions = &c, .condition_count = 1};
    switch (place) {
    case 0: e.stream = name; break;
    case 1: e.type = name; break;
    case 2: e.content_type = name; break;
    case 3: e.correlation_id = name; break;
    case 4: e.causation_id = name; break;
    case 5: e.actor = name; break;
    case 6: e.tags = &name, e.tag_count = 1; break;
    case 7: a.idempotency_key = name; break;
    case 8: c.stream = name; break;
    case 9: item.types = &name; break;
    default: item = (struct deed_query_item){.tags = &name, .tag_count = 1}; break;
    }
    if (place >= 9) {
        c = (struct deed_condition){
            .kind = DEED_CONDITION_NO_MATCH, .items = &item, .item_count = 1, .after = 1000};
    }
    expect_status(wanted, store_append(store, &a, &appended, &err));
    if (message != NULL) expect_message(err, message);
}

TEST(store, a_name_may_be_as_long_as_the_limit)
{
    static const char *const places[] = {"stream", "type", "content type", "correlation id",
                                         "causation id", "actor", "tag", "idempotency key",
                                         "condition 0: condition's stream", "condition 0: type",
                                         "condition 0: tag"};
    for (size_t place = 0; place < sizeof places / sizeof places[0]; place++) {
        char message[128];
        start_limited((struct deed_limits){.name_size_max = 20});
        expect_name_limit(place, 19, DEED_OK, NULL);
        if (place == 7) reopen(); /* the same key again would be the same append */
        finish();
        start_limited((struct deed_limits){.name_size_max = 20});
        expect_name_limit(place, 20, DEED_OK, NULL);
        (void)snprintf(message, sizeof message, "%s \"nnnnnnnnnnnnnnnnnnnnn…\": 21 bytes, limit 20",
                       places[place]);
        expect_name_limit(place, 21, DEED_TOO_LARGE, message);
        finish();
    }
}

/* "$$" in front of the longest name makes its metadata's. */
TEST(store, a_stream_with_the_longest_name_has_metadata_and_can_be_deleted)
{
    struct deed_stream_info info;
    start_limited((struct deed_limits){.name_size_max = 20});
    say("abcdefghijklmnopqrst", "one");
    struct deed_new_event e = said("$$abcdefghijklmnopqrst", "");
    e.type = DEED_STR("$metadata");
    e.data = deed_bytes_of(DEED_STR("{\"$maxCount\":1}"));
    say_event(e);
    e.stream = DEED_STR("$$abcdefghijklmnopqrstu");
    expect_status(DEED_TOO_LARGE, append_event(e));

    deed_str stream = DEED_STR("abcdefghijklmnopqrst");
    expect_ok(store_delete_stream(store, stream, DEED_EXPECT_ANY, 0, false, (deed_str){0},
                                  &appended, &err));
    expect_ok(store_stream(store, stream, &info, &err));
    assert_true(info.deleted);
    expect_ok(store_delete_stream(store, stream, DEED_EXPECT_ANY, 0, true, (deed_str){0},
                                  &appended, &err));
    finish();
}

TEST(store, the_systems_own_names_fit_below_any_limit)
{
    start_limited((struct deed_limits){.name_size_max = 2});
    say_event((struct deed_new_event){
        .stream = DEED_STR("a"), .type = DEED_STR("T"), .data = word_data("one")});
    expect_ok(store_delete_stream(store, DEED_STR("a"), DEED_EXPECT_ANY, 0, false, (deed_str){0},
                                  &appended, &err));
    expect_status(DEED_TOO_LARGE, store_delete_stream(store, DEED_STR("a"), DEED_EXPECT_ANY, 0,
                                                      true, DEED_STR("bob"), &appended, &err));
    expect_message(err, "actor");
    expect_ok(store_delete_stream(store, DEED_STR("a"), DEED_EXPECT_ANY, 0, true, DEED_STR("me"),
                                  &appended, &err));
    finish();
}

TEST(store, an_event_may_have_as_many_tags_as_the_limit)
{
    deed_str tags[] = {DEED_STR("a"), DEED_STR("b"), DEED_STR("c"), DEED_STR("d")};
    start_limited((struct deed_limits){.tag_count_max = 3});
    for (size_t count = 2; count <= 4; count++) {
        struct deed_new_event e = said("a", "one");
        e.tags = tags;
        e.tag_count = count;
        expect_status(count <= 3 ? DEED_OK : DEED_TOO_LARGE, append_event(e));
        if (count == 4) expect_message(err, "tags: 4, limit 3");

        struct deed_query_item item = {.tags = tags, .tag_count = count};
        struct deed_condition c = {
            .kind = DEED_CONDITION_NO_MATCH, .items = &item, .item_count = 1, .after = 1000};
        expect_status(count <= 3 ? DEED_OK : DEED_TOO_LARGE, append_if(said("a", "two"), c));
    }
    finish();
}

TEST(store, an_append_may_have_as_many_conditions_as_the_limit)
{
    struct deed_condition conditions[4];
    for (size_t i = 0; i < 4; i++) conditions[i] = stream_is("free", DEED_EXPECT_NONE, 0);
    struct deed_new_event e = said("a", "one");
    start_limited((struct deed_limits){.condition_count_max = 3});
    expect_ok(append_all(&e, 1, conditions, 2));
    expect_ok(append_all(&e, 1, conditions, 3));
    expect_status(DEED_TOO_LARGE, append_all(&e, 1, conditions, 4));
    expect_message(err, "append: 4 conditions, limit 3");
    finish();
}

TEST(store, json_may_be_as_deep_as_the_limit)
{
    static const char *const texts[] = {"[[1]]", "[[[1]]]", "[[[[1]]]]"};
    start_limited((struct deed_limits){.json_depth_max = 3});
    for (size_t i = 0; i < 3; i++) {
        struct deed_new_event e = said("a", "one");
        e.data = deed_bytes_of(deed_str_of(texts[i]));
        deed_status wanted = i < 2 ? DEED_OK : append_event(e);
        if (i == 2 && wanted == DEED_OK) fail_msg("deeper than the limit");
        if (i < 2) say_event(e);
        e = said("a", "one");
        e.metadata = deed_bytes_of(deed_str_of(texts[i]));
        expect_status(wanted, append_event(e));
    }
    expect_message(err, "metadata: ");
    finish();
}

/* ---- the queue ------------------------------------------------------------------------------ */

static unsigned answers, refusals;
static void count_answer(void *context, const struct deed_appended *answer,
                         const struct deed_error *why)
{
    (void)context;
    if (answer != NULL) answers++;
    if (why != NULL) refusals++;
}

static deed_status submit(const struct deed_append *a)
{
    return store_submit(store, a, count_answer, NULL, &err);
}

TEST(store, a_full_queue_is_busy_until_the_committer_has_taken_it)
{
    start_limited((struct deed_limits){.queue_count_max = 3});
    struct deed_new_event e = said("a", "one");
    struct deed_append a = {.events = &e, .event_count = 1};
    struct store_metrics metrics;
    answers = 0;
    expect_ok(submit(&a));
    expect_ok(submit(&a));
    expect_ok(submit(&a));
    expect_status(DEED_BUSY, submit(&a));
    expect_message(err, "3 appends are waiting, limit 3 or 268435456 bytes");
    store_get_metrics(store, &metrics);
    assert_int_equal(metrics.queue_count, 3);
    while (store_step(store)) continue;
    assert_int_equal(answers, 3);
    expect_ok(submit(&a));
    while (store_step(store)) continue;
    assert_int_equal(answers, 4);
    store_get_metrics(store, &metrics);
    assert_int_equal(metrics.queue_count, 0);
    assert_int_equal(metrics.queue_bytes, 0);
    assert_int_equal(metrics.appends, 4);
    assert_int_equal(metrics.groups, 2);
    finish();
}

TEST(store, the_queue_is_bounded_in_bytes_too_but_takes_any_single_append)
{
    struct deed_new_event e = said("a", "one");
    struct deed_append a = {.events = &e, .event_count = 1};
    uint64_t each = COMMIT_HEAD_SIZE + COMMIT_ALIGN + event_size(&e, (deed_str){0});
    for (uint64_t limit = 2 * each - 1; limit <= 2 * each + 1; limit++) {
        start_limited((struct deed_limits){.queue_size_max = limit});
        expect_ok(submit(&a));
        expect_status(limit < 2 * each ? DEED_BUSY : DEED_OK, submit(&a));
        finish();
    }
    start_limited((struct deed_limits){.queue_size_max = 1});
    expect_ok(submit(&a));
    expect_status(DEED_BUSY, submit(&a));
    finish();
}

TEST(store, closing_answers_what_was_accepted)
{
    start();
    struct deed_new_event e = said("a", "one");
    struct deed_append a = {.events = &e, .event_count = 1};
    answers = 0;
    expect_ok(submit(&a));
    reopen();
    assert_int_equal(answers, 1);
    expect_words("one", .stream = DEED_STR("a"));
    finish();
}

/* ---- stream conditions ---------------------------------------------------------------------- */

static void expect_conflict(struct deed_condition c, uint64_t revision, uint64_t position,
                            const char *message)
{
    uint64_t before = store_position(store);
    expect_status(DEED_CONFLICT, append_if(said("new", "never"), c));
    expect_message(err, message);
    assert_int_equal(err.condition, 0);
    assert_true(err.revision == revision);
    assert_true(err.position == position);
    assert_int_equal(store_position(store), before);
}

TEST(store, a_stream_is_expected_at_a_revision)
{
    start();
    expect_conflict(at_revision("a", 0), DEED_NONE, DEED_NONE,
                    "stream a should be at revision 0, it does not exist");
    say("a", "one");
    say("b", "two");
    say("a", "three");
    expect_conflict(at_revision("a", 0), 1, 4,
                    "stream a should be at revision 0, it is at revision 1");
    expect_conflict(at_revision("a", 2), 1, 4, "should be at revision 2");
    expect_conflict(at_revision("a", DEED_NONE), 1, 4, "it is at revision 1");
    expect_ok(append_if(said("a", "four"), at_revision("a", 1)));
    assert_int_equal(appended.revision, 2);
    finish();
}

TEST(store, a_stream_is_expected_not_to_exist)
{
    start();
    expect_ok(append_if(said("a", "one"), stream_is("a", DEED_EXPECT_NONE, 0)));
    expect_conflict(stream_is("a", DEED_EXPECT_NONE, 0), 0, 2, "stream a should not exist");
    finish();
}

TEST(store, a_stream_is_expected_to_exist)
{
    start();
    expect_conflict(stream_is("a", DEED_EXPECT_EXISTS, 0), DEED_NONE, DEED_NONE,
                    "stream a should exist, it does not exist");
    say("a", "one");
    expect_ok(append_if(said("a", "two"), stream_is("a", DEED_EXPECT_EXISTS, 0)));
    finish();
}

TEST(store, any_stream_will_do)
{
    start();
    expect_ok(append_if(said("a", "one"), stream_is("b", DEED_EXPECT_ANY, 0)));
    finish();
}

TEST(store, a_condition_of_an_unknown_kind_is_refused)
{
    start();
    struct deed_condition c = {.kind = (enum deed_condition_kind)7};
    expect_status(DEED_INVALID, append_if(said("a", "one"), c));
    expect_message(err, "condition 0: condition: kind 7 is not known");
    c = stream_is("a", (enum deed_expect)9, 0);
    expect_status(DEED_INVALID, append_if(said("a", "one"), c));
    expect_message(err, "condition 0: condition: expect 9 is not known");
    c = stream_is("", DEED_EXPECT_NONE, 0);
    expect_status(DEED_INVALID, append_if(said("a", "one"), c));
    expect_message(err, "condition's stream: must not be empty");
    c = (struct deed_condition){.kind = DEED_CONDITION_NO_MATCH};
    expect_status(DEED_INVALID, append_if(said("a", "one"), c));
    expect_message(err, "no_match needs at least one item");
    finish();
}

TEST(store, the_failing_one_of_several_conditions_is_told)
{
    start();
    say("a", "one");
    struct deed_condition conditions[] = {at_revision("a", 0),
                                          stream_is("b", DEED_EXPECT_NONE, 0),
                                          at_revision("a", 5)};
    struct deed_new_event e = said("b", "two");
    expect_status(DEED_CONFLICT, append_all(&e, 1, conditions, 3));
    assert_int_equal(err.condition, 2);
    assert_int_equal(err.revision, 0);
    expect_ok(append_all(&e, 1, conditions, 2));
    finish();
}

/* Conditions see what stands before them in the same group, though no reader does yet. */
TEST(store, of_two_appends_in_one_group_the_second_sees_the_first)
{
    start();
    struct deed_new_event e = said("a", "one");
    struct deed_condition c = stream_is("a", DEED_EXPECT_NONE, 0);
    struct deed_append a = {
        .events = &e, .event_count = 1, .conditions = &c, .condition_count = 1};
    answers = refusals = 0;
    expect_ok(submit(&a));
    expect_ok(submit(&a));
    assert_int_equal(answers + refusals, 0);
    while (store_step(store)) continue;
    assert_int_equal(answers, 1);
    assert_int_equal(refusals, 1);
    expect_words("one", .stream = DEED_STR("a"));
    finish();
}

/* ---- no_match conditions -------------------------------------------------------------------- */

static const deed_str red = {"red", 3}, round_tag = {"round", 5}, ball = {"Ball", 4},
                      cube = {"Cube", 4};

static void make(const char *stream, deed_str type, const deed_str *tags, size_t tag_count)
{
    struct deed_new_event e = said(stream, "thing");
    e.type = type;
    e.tags = tags;
    e.tag_count = tag_count;
    say_event(e);
}

/* Position 0: the condition holds. */
static void expect_match(uint64_t position, uint64_t after, struct deed_query_item item)
{
    struct deed_condition c = {
        .kind = DEED_CONDITION_NO_MATCH, .items = &item, .item_count = 1, .after = after};
    struct deed_new_event e = said("other", "word");
    e.type = DEED_STR("Word");
    expect_status(position == 0 ? DEED_OK : DEED_CONFLICT, append_if(e, c));
    if (position == 0) return;
    assert_int_equal(err.position, position);
    assert_int_equal(err.condition, 0);
    char message[64];
    (void)snprintf(message, sizeof message, "the event at position %llu matches item 0",
                   (unsigned long long)position);
    expect_message(err, message);
}

TEST(store, no_match_finds_types_tags_and_both)
{
    deed_str both[] = {red, round_tag};
    deed_str types[] = {cube, ball};
    start();
    make("a-1", ball, both, 2); /* 2 */
    make("a-2", cube, &red, 1); /* 3 */
    make("a-1", ball, NULL, 0); /* 4 */

    expect_match(2, 0, (struct deed_query_item){.types = &ball, .type_count = 1});
    expect_match(4, 2, (struct deed_query_item){.types = &ball, .type_count = 1});
    expect_match(0, 4, (struct deed_query_item){.types = &ball, .type_count = 1});
    expect_match(3, 2, (struct deed_query_item){.types = types, .type_count = 2});
    expect_match(2, 1, (struct deed_query_item){.tags = both, .tag_count = 2});
    expect_match(0, 2, (struct deed_query_item){.tags = both, .tag_count = 2});
    expect_match(3, 2, (struct deed_query_item){.tags = &red, .tag_count = 1});
    expect_match(0, 3, (struct deed_query_item){.tags = &red, .tag_count = 1});
    expect_match(3, 0, (struct deed_query_item){
                           .types = &cube, .type_count = 1, .tags = &red, .tag_count = 1});
    expect_match(0, 0, (struct deed_query_item){
                           .types = &cube, .type_count = 1, .tags = both, .tag_count = 2});
    expect_match(0, 0, (struct deed_query_item){.types = both, .type_count = 2});
    finish();
}

TEST(store, an_empty_item_matches_every_users_event)
{
    start();
    struct deed_new_event e = said("$mine", "system");
    say_event(e);
    expect_match(0, 0, (struct deed_query_item){0}); /* itself becomes position 3 */
    expect_match(3, 0, (struct deed_query_item){0});
    expect_match(3, 2, (struct deed_query_item){0});
    expect_match(0, 3, (struct deed_query_item){0});
    expect_match(0, DEED_NONE - 1, (struct deed_query_item){0});
    expect_match(0, DEED_NONE, (struct deed_query_item){0});
    expect_match(0, DEED_NONE, (struct deed_query_item){.types = &ball, .type_count = 1});
    expect_match(0, DEED_NONE, (struct deed_query_item){.tags = &red, .tag_count = 1});
    finish();
}

TEST(store, no_match_names_the_item_that_matched)
{
    start();
    make("a", cube, NULL, 0);
    struct deed_query_item items[] = {{.types = &ball, .type_count = 1},
                                      {.types = &cube, .type_count = 1}};
    struct deed_condition c = {
        .kind = DEED_CONDITION_NO_MATCH, .items = items, .item_count = 2};
    expect_status(DEED_CONFLICT, append_if(said("b", "one"), c));
    expect_message(err, "matches item 1");
    finish();
}

/* ---- several streams ------------------------------------------------------------------------ */

TEST(store, one_append_writes_to_several_streams)
{
    start();
    say("b", "zero");
    struct deed_new_event events[] = {said("a", "one"), said("b", "two"), said("a", "three"),
                                      said("c", "four"), said("b", "five")};
    uint64_t revisions[5] = {9, 9, 9, 9, 9};
    struct deed_append a = {.events = events, .event_count = 5, .out_revisions = revisions};
    expect_ok(store_append(store, &a, &appended, &err));
    const uint64_t wanted[] = {0, 1, 1, 0, 2};
    assert_memory_equal(revisions, wanted, sizeof wanted);
    assert_int_equal(appended.first_position, 3);
    assert_int_equal(appended.position, 7);
    assert_int_equal(appended.first_revision, 1); /* of this append, in the last event's stream */
    assert_int_equal(appended.revision, 2);
    assert_false(appended.repeated);
    assert_false(appended.unsafe);
    expect_words("zero two five", .stream = DEED_STR("b"));
    expect_words("one three", .stream = DEED_STR("a"));
    reopen();
    expect_words("zero one two three four five", .until_position = 0);
    finish();
}

TEST(store, a_refused_append_leaves_nothing_of_any_stream)
{
    start();
    struct deed_new_event events[] = {said("a", "one"), said("b", "two")};
    struct deed_condition c = stream_is("b", DEED_EXPECT_EXISTS, 0);
    expect_status(DEED_CONFLICT, append_all(events, 2, &c, 1));
    expect_words("DEED_NOT_FOUND", .stream = DEED_STR("a"));
    expect_words("DEED_NOT_FOUND", .stream = DEED_STR("b"));
    expect_words("", .until_position = 0);
    finish();
}

/* ---- idempotency by event ids --------------------------------------------------------------- */

static struct deed_new_event said_as(const char *stream, const char *word, unsigned id)
{
    struct deed_new_event e = said(stream, word);
    e.id = id_of(id);
    return e;
}

TEST(store, the_same_event_ids_again_give_the_first_answer)
{
    start();
    say("b", "zero");
    struct deed_new_event events[] = {said_as("a", "one", 1), said_as("b", "two", 2)};
    uint64_t revisions[2] = {9, 9};
    struct deed_append a = {.events = events, .event_count = 2, .out_revisions = revisions};
    struct deed_appended first, again;
    expect_ok(store_append(store, &a, &first, &err));
    say("b", "three");
    for (int round = 0; round < 2; round++) {
        revisions[0] = revisions[1] = 9;
        expect_ok(store_append(store, &a, &again, &err));
        assert_true(again.repeated);
        assert_int_equal(again.first_position, first.first_position);
        assert_int_equal(again.position, first.position);
        assert_int_equal(again.first_revision, first.first_revision);
        assert_int_equal(again.revision, first.revision);
        assert_int_equal(revisions[0], 0);
        assert_int_equal(revisions[1], 1);
        reopen();
    }
    expect_words("zero one two three", .until_position = 0);
    finish();
}

TEST(store, a_repeated_append_is_answered_though_its_condition_would_fail_now)
{
    start();
    struct deed_new_event e = said_as("a", "one", 1);
    expect_ok(append_if(e, stream_is("a", DEED_EXPECT_NONE, 0)));
    expect_ok(append_if(e, stream_is("a", DEED_EXPECT_NONE, 0)));
    assert_true(appended.repeated);
    assert_int_equal(appended.revision, 0);
    finish();
}

TEST(store, a_repeated_append_is_answered_though_its_stream_is_deleted_for_good)
{
    start();
    struct deed_new_event e = said_as("a", "one", 1);
    say_event(e);
    expect_ok(store_delete_stream(store, DEED_STR("a"), DEED_EXPECT_ANY, 0, true, (deed_str){0},
                                  &appended, &err));
    say_event(e);
    assert_true(appended.repeated);
    assert_int_equal(appended.position, 2);
    finish();
}

TEST(store, a_repetition_in_the_same_group_gets_the_same_answer)
{
    start();
    struct deed_new_event e = said_as("a", "one", 1);
    struct deed_append a = {.events = &e, .event_count = 1};
    answers = 0;
    expect_ok(submit(&a));
    expect_ok(submit(&a));
    while (store_step(store)) continue;
    assert_int_equal(answers, 2);
    expect_words("one", .stream = DEED_STR("a"));
    finish();
}

TEST(store, an_event_id_belongs_to_its_stream)
{
    start();
    say_event(said_as("a", "one", 1));
    say_event(said_as("b", "two", 1));
    assert_false(appended.repeated);
    expect_words("one two", .until_position = 0);
    finish();
}

TEST(store, some_known_event_ids_are_a_conflict_that_names_one)
{
    start();
    say_event(said_as("a", "one", 1));
    struct deed_new_event events[] = {said_as("a", "zero", 9), said_as("a", "one", 1)};
    expect_status(DEED_CONFLICT, append_all(events, 2, NULL, 0));
    expect_message(err, "event id 01000000-0000-0000-0000-000000000001 is in stream a already, at "
                        "position 2, but other events of this append are not");
    assert_int_equal(err.position, 2);
    assert_true(err.condition == DEED_NONE);

    struct deed_new_event with_new[] = {said_as("a", "one", 1), said("a", "without id")};
    expect_status(DEED_CONFLICT, append_all(with_new, 2, NULL, 0));
    expect_words("one", .stream = DEED_STR("a"));
    finish();
}

TEST(store, a_known_event_id_with_other_content_is_a_conflict)
{
    deed_str tag = DEED_STR("tag");
    start();
    struct deed_new_event e = said_as("a", "one", 1);
    e.tags = &tag;
    e.tag_count = 1;
    e.time_ns = 5;
    say_event(e);
    say_event(e);
    assert_true(appended.repeated);

    struct deed_new_event other[6] = {e, e, e, e, e, e};
    deed_str other_tag = DEED_STR("gat");
    other[0].data = word_data("two");
    other[1].type = DEED_STR("Sung");
    other[2].metadata = deed_bytes_of(DEED_STR("{}"));
    other[3].tag_count = 0;
    other[4].tags = &other_tag;
    other[5].content_type = DEED_STR("text/plain");
    for (size_t i = 0; i < 6; i++) {
        expect_status(DEED_CONFLICT, append_event(other[i]));
        expect_message(err, "000000000001 is in stream a already");
        expect_message(err, "at position 2, with other content");
        assert_int_equal(err.position, 2);
    }
    e.content_type = DEED_STR("application/json"); /* the same, said aloud */
    say_event(e);
    assert_true(appended.repeated);
    finish();
}

/* ---- idempotency by key --------------------------------------------------------------------- */

static deed_status append_keyed(const char *key, uint8_t hash, struct deed_new_event event)
{
    struct deed_append a = {
        .events = &event, .event_count = 1, .idempotency_key = deed_str_of(key)};
    memset(a.request_hash, hash, sizeof a.request_hash);
    return store_append(store, &a, &appended, &err);
}

TEST(store, the_same_key_again_gives_the_first_answer)
{
    start();
    expect_ok(append_keyed("k1", 1, said("a", "one")));
    say("a", "two");
    for (int round = 0; round < 2; round++) {
        expect_ok(append_keyed("k1", 1, said("a", "three")));
        assert_true(appended.repeated);
        assert_int_equal(appended.position, 2);
        assert_int_equal(appended.revision, 0);
        reopen();
    }
    expect_ok(append_keyed("k2", 1, said("a", "four")));
    assert_false(appended.repeated);
    expect_words("one two four", .stream = DEED_STR("a"));
    finish();
}

TEST(store, a_key_gives_the_whole_first_answer)
{
    start();
    say("b", "zero");
    struct deed_new_event events[] = {said("a", "one"), said("b", "two"), said("b", "three")};
    uint64_t revisions[3] = {9, 9, 9};
    const uint64_t wanted[] = {0, 1, 2};
    struct deed_append a = {.events = events,
                            .event_count = 3,
                            .idempotency_key = DEED_STR("k"),
                            .out_revisions = revisions};
    expect_ok(store_append(store, &a, &appended, &err));
    memset(revisions, 0xff, sizeof revisions);
    expect_ok(store_append(store, &a, &appended, &err));
    assert_true(appended.repeated);
    assert_int_equal(appended.first_position, 3);
    assert_int_equal(appended.position, 5);
    assert_int_equal(appended.first_revision, 1);
    assert_int_equal(appended.revision, 2);
    assert_memory_equal(revisions, wanted, sizeof wanted);
    finish();
}

TEST(store, a_key_for_another_request_is_a_conflict)
{
    start();
    expect_ok(append_keyed("k1", 1, said("a", "one")));
    expect_status(DEED_CONFLICT, append_keyed("k1", 2, said("a", "one")));
    expect_message(err, "idempotency key k1 was used for another request, at position 2");
    assert_int_equal(err.position, 2);
    finish();
}

TEST(store, a_key_is_found_with_its_commit)
{
    start();
    uint8_t hash[32], wanted[32];
    uint64_t first = 0, last = 0;
    struct deed_new_event events[] = {said("a", "one"), said("b", "two")};
    struct deed_append a = {
        .events = events, .event_count = 2, .idempotency_key = DEED_STR("k")};
    memset(a.request_hash, 7, sizeof a.request_hash);
    memset(wanted, 7, sizeof wanted);
    expect_status(DEED_NOT_FOUND,
                  store_find_key(store, DEED_STR("k"), hash, &first, &last, &err));
    expect_message(err, "idempotency key k is not known");
    expect_ok(store_append(store, &a, &appended, &err));
    for (int round = 0; round < 2; round++) {
        expect_ok(store_find_key(store, DEED_STR("k"), hash, &first, &last, &err));
        assert_int_equal(first, 2);
        assert_int_equal(last, 3);
        assert_memory_equal(hash, wanted, 32);
        reopen();
    }
    finish();
}

TEST(store, an_unsafe_store_says_so_in_every_answer)
{
    start_machine(1);
    options.unsafe_no_sync = true;
    open_store();
    struct deed_info info;
    store_info(store, &info);
    assert_true(info.unsafe);
    say_event(said_as("a", "one", 1));
    assert_true(appended.unsafe);
    say_event(said_as("a", "one", 1));
    assert_true(appended.repeated);
    assert_true(appended.unsafe);
    expect_ok(append_keyed("k", 1, said("a", "two")));
    expect_ok(append_keyed("k", 1, said("a", "two")));
    assert_true(appended.unsafe);
    finish();
}

/* ---- streams -------------------------------------------------------------------------------- */

static struct deed_stream_info stream_info(const char *stream)
{
    struct deed_stream_info info = {0};
    if (store_stream(store, deed_str_of(stream), &info, &err) != DEED_OK) {
        fail_msg("stream %s: %s", stream, err.message);
    }
    return info;
}

static void set_metadata(const char *stream, const char *json)
{
    char name[64];
    (void)snprintf(name, sizeof name, "$$%s", stream);
    struct deed_new_event e = said(name, "");
    e.type = DEED_STR("$metadata");
    e.data = deed_bytes_of(deed_str_of(json));
    say_event(e);
}

TEST(store, a_stream_tells_what_it_is)
{
    start();
    struct deed_stream_info info;
    expect_status(DEED_NOT_FOUND, store_stream(store, DEED_STR("a"), &info, &err));
    expect_message(err, "stream a: there is no such stream");
    say("a", "one");
    say("a", "two");
    info = stream_info("a");
    assert_int_equal(info.revision, 1);
    assert_int_equal(info.first_revision, 0);
    assert_int_equal(info.position, 3);
    assert_false(info.deleted);
    assert_false(info.tombstoned);
    assert_true(info.metadata_revision == DEED_NONE);
    assert_int_equal(info.max_count, 0);
    assert_int_equal(info.max_age_ns, 0);

    set_metadata("a", "{\"$maxCount\":1,\"$maxAge\":60}");
    info = stream_info("a");
    assert_int_equal(info.first_revision, 1);
    assert_int_equal(info.metadata_revision, 0);
    assert_int_equal(info.max_count, 1);
    assert_int_equal(info.max_age_ns, 60 * SECOND);
    assert_int_equal(info.position, 3);
    finish();
}

TEST(store, max_count_hides_all_but_the_last_events)
{
    start();
    say("a", "one");
    say("a", "two");
    say("a", "three");
    set_metadata("a", "{\"$maxCount\":2}");
    expect_words("two three", .stream = DEED_STR("a"));
    say("a", "four");
    expect_words("three four", .stream = DEED_STR("a"));
    expect_words("four three", .stream = DEED_STR("a"), .backwards = true,
                 .from_revision = DEED_NONE);
    expect_words("one two three four", .stream = DEED_STR("a"), .ignore_retention = true);
    expect_words("one two three four", .until_position = 0); /* the log keeps all */
    expect_ok(append_if(said("a", "five"), at_revision("a", 3)));
    reopen();
    expect_words("four five", .stream = DEED_STR("a"));
    set_metadata("a", "{}");
    expect_words("one two three four five", .stream = DEED_STR("a"));
    finish();
}

TEST(store, max_age_hides_what_the_clock_has_passed)
{
    start();
    set_metadata("a", "{\"$maxAge\":10}");
    say("a", "one");
    os_sim_advance(sim, 6 * SECOND);
    say("a", "two");
    expect_words("one two", .stream = DEED_STR("a"));
    os_sim_advance(sim, 4 * SECOND - 1);
    expect_words("one two", .stream = DEED_STR("a"));
    os_sim_advance(sim, 1);
    expect_words("two", .stream = DEED_STR("a"));
    assert_int_equal(stream_info("a").first_revision, 1);
    os_sim_advance(sim, 6 * SECOND);
    expect_words("", .stream = DEED_STR("a"));
    assert_true(stream_info("a").first_revision == DEED_NONE);
    assert_int_equal(stream_info("a").revision, 1);
    say("a", "three");
    assert_int_equal(appended.revision, 2);
    expect_words("three", .stream = DEED_STR("a"));
    finish();
}

TEST(store, truncate_before_hides_what_stands_before_it)
{
    start();
    say("a", "one");
    say("a", "two");
    set_metadata("a", "{\"$tb\":1}");
    expect_words("two", .stream = DEED_STR("a"));
    expect_words("two", .stream = DEED_STR("a"), .from_revision = 1);
    set_metadata("a", "{\"$tb\":1,\"$maxCount\":5}");
    expect_words("two", .stream = DEED_STR("a"));
    assert_false(stream_info("a").deleted);
    finish();
}

TEST(store, a_soft_deleted_stream_reads_as_missing_and_goes_on_when_written)
{
    start();
    say("a", "one");
    say("a", "two");
    set_metadata("a", "{\"$maxCount\":9,\"own\":{\"x\":[1,2.50]}}");
    expect_ok(store_delete_stream(store, DEED_STR("a"), DEED_EXPECT_REVISION, 1, false,
                                  DEED_STR("me"), &appended, &err));
    for (int round = 0; round < 2; round++) {
        expect_words("DEED_NOT_FOUND", .stream = DEED_STR("a"));
        expect_message(err, "stream a: it is deleted");
        expect_words("one two", .stream = DEED_STR("a"), .ignore_retention = true);
        struct deed_stream_info info = stream_info("a");
        assert_true(info.deleted);
        assert_false(info.tombstoned);
        assert_int_equal(info.revision, 1);
        assert_true(info.first_revision == DEED_NONE);
        assert_int_equal(info.max_count, 9);
        reopen();
    }
    expect_conflict(stream_is("a", DEED_EXPECT_EXISTS, 0), 1, 5, /* the deletion is the cause */
                    "stream a should exist, it is at revision 1 and deleted");
    expect_ok(append_if(said("a", "three"), stream_is("a", DEED_EXPECT_NONE, 0)));
    assert_int_equal(appended.revision, 2);
    expect_words("three", .stream = DEED_STR("a"));
    assert_false(stream_info("a").deleted);
    finish();
}

TEST(store, deleting_keeps_the_streams_other_metadata)
{
    start();
    say("a", "one");
    set_metadata("a", "{\"$maxCount\":9,\"$tb\":0,\"own\":{\"x\":[1,2.50]}}");
    expect_ok(store_delete_stream(store, DEED_STR("a"), DEED_EXPECT_ANY, 0, false, DEED_STR("me"),
                                  &appended, &err));
    struct deed_cursor *cursor = NULL;
    struct deed_event e;
    struct deed_read_options last = {
        .stream = DEED_STR("$$a"), .backwards = true, .from_revision = DEED_NONE};
    expect_ok(store_read(store, &last, &cursor, &err));
    expect_ok(cursor_next(cursor, &e, &err));
    expect_str(((deed_str){(const char *)e.data.ptr, e.data.len}),
               "{\"$maxCount\":9,\"own\":{\"x\":[1,2.50]},\"$tb\":1}");
    expect_str(e.actor, "me");
    cursor_close(cursor);
    finish();
}

TEST(store, a_soft_deleted_stream_is_expected_at_the_last_number_ever_written)
{
    start();
    say("a", "one");
    expect_ok(store_delete_stream(store, DEED_STR("a"), DEED_EXPECT_ANY, 0, false, (deed_str){0},
                                  &appended, &err));
    expect_ok(append_if(said("a", "two"), at_revision("a", 0)));
    expect_words("two", .stream = DEED_STR("a"));
    finish();
}

TEST(store, deleting_is_refused_where_there_is_nothing_to_delete)
{
    start();
    expect_status(DEED_NOT_FOUND, store_delete_stream(store, DEED_STR("a"), DEED_EXPECT_ANY, 0,
                                                      false, (deed_str){0}, &appended, &err));
    expect_message(err, "stream a: there is no such stream");
    say("a", "one");
    expect_status(DEED_CONFLICT, store_delete_stream(store, DEED_STR("a"), DEED_EXPECT_REVISION, 3,
                                                     false, (deed_str){0}, &appended, &err));
    expect_message(err, "should be at revision 3, it is at revision 0");
    assert_int_equal(err.revision, 0);
    expect_status(DEED_CONFLICT, store_delete_stream(store, DEED_STR("a"), DEED_EXPECT_NONE, 0,
                                                     true, (deed_str){0}, &appended, &err));
    expect_ok(store_delete_stream(store, DEED_STR("a"), DEED_EXPECT_ANY, 0, false, (deed_str){0},
                                  &appended, &err));
    expect_status(DEED_NOT_FOUND, store_delete_stream(store, DEED_STR("a"), DEED_EXPECT_ANY, 0,
                                                      false, (deed_str){0}, &appended, &err));
    expect_message(err, "stream a is deleted already");
    say("$own", "one");
    expect_status(DEED_INVALID, store_delete_stream(store, DEED_STR("$own"), DEED_EXPECT_ANY, 0,
                                                    true, (deed_str){0}, &appended, &err));
    expect_message(err, "stream $own is the system's");
    finish();
}

TEST(store, a_tombstone_closes_a_stream_for_good)
{
    start();
    say("a", "one");
    expect_ok(store_delete_stream(store, DEED_STR("a"), DEED_EXPECT_REVISION, 0, true,
                                  DEED_STR("me"), &appended, &err));
    assert_int_equal(appended.revision, 1);
    for (int round = 0; round < 2; round++) {
        expect_words("DEED_DELETED", .stream = DEED_STR("a"));
        expect_message(err, "stream a is deleted for good");
        expect_status(DEED_DELETED, append_event(said("a", "two")));
        expect_message(err, "stream a is deleted for good");
        assert_int_equal(err.position, 3);
        struct deed_new_event late = said("$$a", "");
        late.type = DEED_STR("$metadata");
        late.data = deed_bytes_of(DEED_STR("{}"));
        expect_status(DEED_DELETED, append_event(late));
        static const enum deed_expect expects[] = {DEED_EXPECT_NONE, DEED_EXPECT_EXISTS,
                                                   DEED_EXPECT_REVISION};
        for (size_t i = 0; i < 3; i++) {
            expect_status(DEED_DELETED,
                          append_if(said("b", "no"), stream_is("a", expects[i], 1)));
            assert_int_equal(err.condition, 0);
            assert_int_equal(err.revision, 1);
        }
        expect_status(DEED_DELETED, store_delete_stream(store, DEED_STR("a"), DEED_EXPECT_ANY, 0,
                                                        true, (deed_str){0}, &appended, &err));
        struct deed_stream_info info = stream_info("a");
        assert_true(info.tombstoned);
        assert_int_equal(info.revision, 1);
        assert_true(info.first_revision == DEED_NONE);
        reopen();
    }
    expect_words("one ?", .stream = DEED_STR("a"), .ignore_retention = true);
    struct deed_new_event events[] = {said("b", "good"), said("a", "bad")};
    expect_status(DEED_DELETED, append_all(events, 2, NULL, 0));
    expect_words("DEED_NOT_FOUND", .stream = DEED_STR("b"));
    finish();
}

TEST(store, a_soft_deleted_stream_can_be_closed_for_good)
{
    start();
    say("a", "one");
    expect_ok(store_delete_stream(store, DEED_STR("a"), DEED_EXPECT_ANY, 0, false, (deed_str){0},
                                  &appended, &err));
    expect_ok(store_delete_stream(store, DEED_STR("a"), DEED_EXPECT_ANY, 0, true, (deed_str){0},
                                  &appended, &err));
    assert_true(stream_info("a").tombstoned);
    finish();
}

/* ---- times ---------------------------------------------------------------------------------- */

TEST(store, positions_and_times_are_translated)
{
    start();
    int64_t created, one, two;
    uint64_t position = 9;
    expect_ok(store_recorded_at(store, 1, &created, &err));
    os_sim_advance(sim, SECOND);
    say("a", "one");
    os_sim_advance(sim, SECOND);
    struct deed_new_event events[] = {said("a", "two"), said("a", "three")};
    expect_ok(append_all(events, 2, NULL, 0));
    expect_ok(store_recorded_at(store, 2, &one, &err));
    expect_ok(store_recorded_at(store, 4, &two, &err));
    assert_int_equal(one - created, SECOND);
    assert_int_equal(two - one, SECOND);
    const struct {
        int64_t time_ns;
        uint64_t position;
    } cases[] = {{created - 1, 0}, {created, 1}, {one - 1, 1},     {one, 2},
                 {two - 1, 2},     {two, 4},     {INT64_MAX, 4}, {INT64_MIN, 0}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        expect_ok(store_position_at(store, cases[i].time_ns, &position, &err));
        assert_int_equal(position, cases[i].position);
    }
    expect_status(DEED_NOT_FOUND, store_recorded_at(store, 5, &two, &err));
    expect_message(err, "position 5: the log ends at 4");
    expect_status(DEED_NOT_FOUND, store_recorded_at(store, 0, &two, &err));
    expect_status(DEED_NOT_FOUND, store_recorded_at(store, DEED_NONE, &two, &err));
    finish();
}

TEST(store, recorded_at_stands_still_while_the_clock_runs_back)
{
    start();
    int64_t before, after;
    say("a", "one");
    expect_ok(store_recorded_at(store, 2, &before, &err));
    os_sim_set_clock(sim, before - (int64_t)SECOND);
    say("a", "two");
    expect_ok(store_recorded_at(store, 3, &after, &err));
    assert_true(after == before);
    reopen();
    say("a", "three");
    expect_ok(store_recorded_at(store, 4, &after, &err));
    assert_true(after == before);
    finish();
}

TEST(store, an_event_keeps_its_own_time_and_id)
{
    start();
    struct deed_new_event e = said_as("a", "one", 3);
    e.time_ns = -7;
    say_event(e);
    say("a", "two");
    struct deed_cursor *cursor = NULL;
    struct deed_event stored;
    struct deed_read_options how = {.stream = DEED_STR("a")};
    expect_ok(store_read(store, &how, &cursor, &err));
    expect_ok(cursor_next(cursor, &stored, &err));
    assert_int_equal(stored.time_ns, -7);
    assert_memory_equal(stored.id.bytes, id_of(3).bytes, 16);
    expect_ok(cursor_next(cursor, &stored, &err));
    assert_true(stored.time_ns == stored.recorded_at_ns);
    assert_int_equal(stored.id.bytes[6] >> 4, 7); /* a version 7 UUID was made */
    cursor_close(cursor);
    finish();
}

/* ---- waiting and watching ------------------------------------------------------------------- */

static void note_position(void *context, uint64_t position)
{
    *(uint64_t *)context = position;
}

TEST(store, a_watcher_hears_of_each_publication_until_it_leaves)
{
    start();
    uint64_t first = 0, second = 0;
    struct store_watch one = {.changed = note_position, .context = &first};
    struct store_watch two = {.changed = note_position, .context = &second};
    store_watch(store, &one);
    store_watch(store, &two);
    say("a", "one");
    assert_int_equal(first, 2);
    assert_int_equal(second, 2);
    store_unwatch(store, &one);
    say("a", "two");
    assert_int_equal(first, 2);
    assert_int_equal(second, 3);
    store_unwatch(store, &two);
    store_unwatch(store, &two);
    finish();
}

TEST(store, waiting_ends_at_the_position_or_in_time)
{
    start_here();
    expect_ok(store_wait(store, 1, 0, &err));
    expect_status(DEED_TIMEOUT, store_wait(store, 2, 20, &err));
    expect_message(err, "the log is at position 1, not at 2 yet");
    say("a", "one");
    expect_ok(store_wait(store, 2, 0, &err));
    finish();
}

static void *wait_for_two(void *status)
{
    *(deed_status *)status = store_wait(store, 2, 60000, NULL);
    return NULL;
}

TEST(store, a_waiter_wakes_when_its_position_is_published)
{
    start_here();
    pthread_t thread;
    deed_status status = DEED_IO;
    assert_int_equal(pthread_create(&thread, NULL, wait_for_two, &status), 0);
    usleep(20000);
    say("a", "one");
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(status, DEED_OK);
    finish();
}

static void *wait_long(void *status)
{
    *(deed_status *)status = store_wait(store, 99, 60000, NULL);
    return NULL;
}

TEST(store, closing_sends_those_who_wait_away)
{
    start_here();
    pthread_t threads[3];
    deed_status status[3];
    for (int i = 0; i < 3; i++) {
        status[i] = DEED_OK;
        assert_int_equal(pthread_create(&threads[i], NULL, wait_long, &status[i]), 0);
    }
    for (uint64_t waiting = 0; waiting < 3;) { /* who comes after closing has no store to wait for */
        os_mutex_lock(&store->publish_lock);
        waiting = store->waiters;
        os_mutex_unlock(&store->publish_lock);
    }
    store_close(store);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
        assert_int_equal(status[i], DEED_STOPPED);
    }
    store = NULL;
    finish();
}

/* ---- two writers ---------------------------------------------------------------------------- */

#define RACE_REVISIONS 200

struct racer {
    const char *word;
    bool won[RACE_REVISIONS];
    const char *wrong; /* NULL: all is well */
};

/* Read the revision, append behind it; when the other was first, look again. */
static void *race(void *context)
{
    struct racer *r = context;
    for (;;) {
        struct deed_stream_info info = {.revision = DEED_NONE};
        struct deed_error why;
        struct deed_appended got;
        deed_status status = store_stream(store, DEED_STR("race-1"), &info, &why);
        bool first = status == DEED_NOT_FOUND;
        uint64_t seen = first ? 0 : info.revision + 1; /* the next revision */
        if (seen >= RACE_REVISIONS) return NULL;
        struct deed_condition c = first ? stream_is("race-1", DEED_EXPECT_NONE, 0)
                                        : at_revision("race-1", info.revision);
        struct deed_new_event e = {.stream = DEED_STR("race-1"),
                                   .type = DEED_STR("Said"),
                                   .data = deed_bytes_of(deed_str_of(r->word))};
        struct deed_append a = {
            .events = &e, .event_count = 1, .conditions = &c, .condition_count = 1};
        status = store_append(store, &a, &got, &why);
        if (status == DEED_OK) {
            if (got.revision != seen) r->wrong = "not the revision behind the one that was read";
            r->won[got.revision] = true;
        } else if (status != DEED_CONFLICT) {
            r->wrong = "neither won nor lost";
        } else if (why.revision == DEED_NONE || why.revision < seen || why.condition != 0) {
            r->wrong = "the conflict does not tell the actual revision";
        }
        if (r->wrong != NULL) return NULL;
    }
}

TEST(store, of_two_writers_exactly_one_wins_each_revision)
{
    start_here();
    static struct racer racers[2];
    pthread_t threads[2];
    memset(racers, 0, sizeof racers);
    racers[0].word = "\"left\"";
    racers[1].word = "\"right\"";
    for (int i = 0; i < 2; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, race, &racers[i]), 0);
    }
    for (int i = 0; i < 2; i++) assert_int_equal(pthread_join(threads[i], NULL), 0);
    for (int i = 0; i < 2; i++) {
        if (racers[i].wrong != NULL) fail_msg("%s", racers[i].wrong);
    }
    struct deed_cursor *cursor = NULL;
    struct deed_event e;
    struct deed_read_options how = {.stream = DEED_STR("race-1")};
    expect_ok(store_read(store, &how, &cursor, &err));
    for (uint64_t i = 0; i < RACE_REVISIONS; i++) {
        expect_ok(cursor_next(cursor, &e, &err));
        assert_int_equal(e.revision, i);
        assert_true(racers[0].won[i] != racers[1].won[i]);
        const char *winner = racers[racers[0].won[i] ? 0 : 1].word;
        expect_str(((deed_str){(const char *)e.data.ptr, e.data.len}), winner);
    }
    expect_status(DEED_END, cursor_next(cursor, &e, &err));
    cursor_close(cursor);
    finish();
}

TEST(store, many_threads_append_delete_and_ask_at_once)
{
    start_here();
    pthread_t threads[3];
    static struct racer racers[2];
    memset(racers, 0, sizeof racers);
    racers[0].word = racers[1].word = "\"word\"";
    deed_status waited = DEED_IO;
    assert_int_equal(pthread_create(&threads[0], NULL, race, &racers[0]), 0);
    assert_int_equal(pthread_create(&threads[1], NULL, race, &racers[1]), 0);
    assert_int_equal(pthread_create(&threads[2], NULL, wait_for_two, &waited), 0);
    for (int i = 0; i < 50; i++) {
        char stream[16];
        struct deed_info info;
        struct store_metrics metrics;
        (void)snprintf(stream, sizeof stream, "gone-%d", i % 5);
        say(stream, "word");
        expect_ok(store_delete_stream(store, deed_str_of(stream), DEED_EXPECT_EXISTS, 0, false,
                                      (deed_str){0}, &appended, &err));
        store_info(store, &info);
        store_get_metrics(store, &metrics);
        assert_true(info.position >= appended.position);
        assert_true(info.writable);
    }
    for (int i = 0; i < 3; i++) assert_int_equal(pthread_join(threads[i], NULL), 0);
    assert_int_equal(waited, DEED_OK);
    finish();
}

/* ---- slow disks and fast ones ---------------------------------------------------------------- */

/* What a sync takes on this machine, in these tests. */
#define SYNC_AS_IT_IS UINT32_MAX
static _Atomic uint32_t sync_ms = SYNC_AS_IT_IS;

/* In front of the C library's. */
int fdatasync(int fd)
{
    uint32_t ms = atomic_load(&sync_ms);
    if (ms == SYNC_AS_IT_IS) return (int)syscall(SYS_fdatasync, fd);
    if (ms > 0) (void)usleep(ms * 1000);
    return 0;
}

static void expect_revisions(const char *stream, uint64_t count)
{
    struct deed_stream_info info;
    expect_ok(store_stream(store, deed_str_of(stream), &info, &err));
    assert_int_equal(info.revision + 1, count);
}

struct handed {
    _Atomic bool done;
    pthread_t by;
    bool good;
    struct deed_new_event event;
    struct deed_append append;
};

static void handed_done(void *context, const struct deed_appended *got, const struct deed_error *why)
{
    struct handed *h = context;
    (void)why;
    h->good = got != NULL;
    h->by = pthread_self();
    atomic_store(&h->done, true);
}

static void hand_over(struct handed *h)
{
    *h = (struct handed){.event = said("here-1", "word")};
    h->append = (struct deed_append){.events = &h->event, .event_count = 1};
    expect_ok(store_submit_here(store, &h->append, handed_done, h, &err));
}

static void await_handed(struct handed *h)
{
    while (!atomic_load(&h->done)) (void)usleep(1000);
    assert_true(h->good);
}

TEST(store, a_lone_append_is_committed_by_its_own_thread)
{
    start_here();
    struct handed h;
    atomic_store(&sync_ms, 0);
    for (int i = 0; i < 40; i++) say("here-1", "word"); /* the opening's syncs are forgotten */
    unsigned here = 0;
    for (int i = 0; i < 200; i++) {
        hand_over(&h);
        here += atomic_load(&h.done) && pthread_equal(h.by, pthread_self()) != 0;
        await_handed(&h);
    }
    assert_in_range(here, 100, 200); /* but where a new segment was due, or the machine was busy */
    expect_revisions("here-1", 240);

    atomic_store(&sync_ms, 30);
    for (int i = 0; i < 3; i++) say("here-1", "word");
    for (int i = 0; i < 3; i++) { /* a disk too slow to wait for */
        hand_over(&h);
        assert_false(atomic_load(&h.done) && pthread_equal(h.by, pthread_self()) != 0);
        await_handed(&h);
    }
    expect_revisions("here-1", 246);
    atomic_store(&sync_ms, SYNC_AS_IT_IS);
    finish();
}

struct hurrier {
    char stream[16];
    unsigned count;
    bool here;
    const char *wrong;
};

static void *hurry(void *context)
{
    struct hurrier *r = context;
    for (unsigned i = 0; i < r->count; i++) {
        struct deed_appended got = {0};
        struct deed_error why = {0};
        struct deed_new_event e = {.stream = deed_str_of(r->stream),
                                   .type = DEED_STR("Said"),
                                   .data = deed_bytes_of(DEED_STR("\"word\""))};
        struct deed_append a = {.events = &e, .event_count = 1};
        if (!r->here) {
            if (store_append(store, &a, &got, &why) != DEED_OK || got.revision != i) {
                r->wrong = "an append failed, or lies elsewhere";
            }
            continue;
        }
        struct handed h = {.event = e};
        if (store_submit_here(store, &a, handed_done, &h, &why) != DEED_OK) {
            r->wrong = "refused";
            continue;
        }
        while (!atomic_load(&h.done)) (void)usleep(50);
        if (!h.good) r->wrong = "an append failed";
    }
    return NULL;
}

static uint64_t hurry_all(unsigned threads, unsigned count, bool here)
{
    static struct hurrier hurriers[8];
    pthread_t ids[8];
    struct store_metrics before, after;
    store_get_metrics(store, &before);
    for (unsigned i = 0; i < threads; i++) {
        hurriers[i] = (struct hurrier){.count = count, .here = here && i % 2 == 0};
        (void)snprintf(hurriers[i].stream, sizeof hurriers[i].stream, "hurry%d-%u", here, i);
        assert_int_equal(pthread_create(&ids[i], NULL, hurry, &hurriers[i]), 0);
    }
    for (unsigned i = 0; i < threads; i++) assert_int_equal(pthread_join(ids[i], NULL), 0);
    for (unsigned i = 0; i < threads; i++) {
        if (hurriers[i].wrong != NULL) fail_msg("%s", hurriers[i].wrong);
        expect_revisions(hurriers[i].stream, count);
    }
    store_get_metrics(store, &after);
    return after.groups - before.groups;
}

TEST(store, threads_that_commit_themselves_take_turns)
{
    start_here();
    atomic_store(&sync_ms, 0);
    (void)hurry_all(6, 300, true);
    atomic_store(&sync_ms, SYNC_AS_IT_IS);
    reopen();
    for (unsigned i = 0; i < 6; i++) {
        char stream[16];
        (void)snprintf(stream, sizeof stream, "hurry1-%u", i);
        expect_revisions(stream, 300);
    }
    finish();
}

/* Answered clients come back while the next group is under way already: without waiting for them,
 * eight make two groups that take turns. */
TEST(store, on_a_slow_disk_those_who_were_answered_are_waited_for)
{
    start_here();
    atomic_store(&sync_ms, 50);
    uint64_t groups = hurry_all(8, 12, false);
    atomic_store(&sync_ms, SYNC_AS_IT_IS);
    assert_in_range(groups, 12, 18); /* 23 or 24 in turns */
    finish();
}

/* ---- one store closing while another waits -------------------------------------------------- */

TEST(store, a_wait_that_cannot_be_met_without_threads_ends_at_once)
{
    start();
    expect_status(DEED_TIMEOUT, store_wait(store, 9, 60000, &err));
    finish();
}

TEST_MAIN(store)
