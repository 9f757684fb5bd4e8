/* test_deed.c - the library as a program meets it. What each part does, its own tests say; here it is
 * that they are joined, and that misuse gets an answer instead of a crash. */
#include "test.h"

#include <string.h>
#include <unistd.h>

static char folder[64];
static struct deed *deed;
static struct deed_error failure;

static void begin(void)
{
    (void)snprintf(folder, sizeof folder, "/tmp/deedbook-deed-XXXXXX");
    assert_non_null(mkdtemp(folder));
    failure = (struct deed_error){0};
    expect_ok(deed_open(folder, NULL, &deed, &failure));
}

static void end(void)
{
    char command[100];
    deed_close(deed);
    (void)snprintf(command, sizeof command, "rm -rf %s", folder);
    assert_int_equal(system(command), 0);
}

static const struct deed_new_event noted = {
    .stream = {"note-1", 6}, .type = {"Noted", 5}, .data = {(const uint8_t *)"1", 1}};

#define expect_misuse(call)                                                                \
    do {                                                                                   \
        failure = (struct deed_error){0};                                                  \
        expect_status(DEED_MISUSE, (call));                                                \
        assert_true(failure.message[0] != '\0');                                           \
        expect_status(DEED_MISUSE, failure.status);                                        \
    } while (0)

TEST(deed, what_must_be_given_is_asked_for)
{
    begin();
    struct deed *other = NULL;
    struct deed_event event;
    struct deed_cursor *cursor = NULL;
    char *json = NULL;
    const struct deed_append append = {.events = &noted, .event_count = 1};
    const struct deed_read_options all = {0};
    const struct deed_command command = {.name = DEED_STR("X")};

    expect_misuse(deed_open(NULL, NULL, &other, &failure));
    expect_misuse(deed_open(folder, NULL, NULL, &failure));
    expect_misuse(deed_append(NULL, &append, NULL, &failure));
    expect_misuse(deed_append(deed, NULL, NULL, &failure));
    expect_misuse(deed_append_async(deed, &append, NULL, NULL, &failure));
    expect_misuse(deed_delete_stream(NULL, noted.stream, DEED_EXPECT_ANY, 0, false, (deed_str){0},
                                     NULL, &failure));
    expect_misuse(deed_read(NULL, &all, &cursor, &failure));
    expect_misuse(deed_read(deed, NULL, &cursor, &failure));
    expect_misuse(deed_read(deed, &all, NULL, &failure));
    expect_misuse(deed_next(NULL, &event, &failure));
    expect_misuse(deed_wait(NULL, 0, &failure));
    expect_misuse(deed_get_stream(deed, noted.stream, NULL, &failure));
    expect_misuse(deed_position_at(deed, 0, NULL, &failure));
    expect_misuse(deed_use_domain(deed, NULL, &failure));
    expect_misuse(deed_load_app(deed, NULL, &failure));
    expect_misuse(deed_decide(deed, NULL, NULL, &failure));
    expect_misuse(deed_decide(deed, &command, NULL, &failure)); /* there is no domain */
    expect_misuse(deed_state(deed, noted.stream, DEED_NONE, &json, &failure));
    expect_misuse(deed_state(deed, noted.stream, DEED_NONE, NULL, &failure));
    expect_misuse(deed_add_projection(NULL, noted.stream, &failure));
    expect_misuse(deed_add_query(NULL, noted.stream, noted.stream, &failure));
    expect_misuse(deed_query(deed, noted.stream, NULL, NULL, NULL, &failure));
    expect_misuse(deed_query(NULL, noted.stream, NULL, &json, NULL, &failure));

    uint64_t revision = 0;
    struct deed_compaction compaction;
    expect_misuse(deed_get_metadata(NULL, noted.stream, &json, &revision, &failure));
    expect_misuse(deed_get_metadata(deed, noted.stream, NULL, &revision, &failure));
    expect_misuse(deed_set_metadata(NULL, noted.stream, noted.data, DEED_EXPECT_ANY, 0,
                                    (deed_str){0}, NULL, &failure));
    expect_misuse(deed_set_metadata(deed, noted.stream, (deed_bytes){NULL, 1}, DEED_EXPECT_ANY, 0,
                                    (deed_str){0}, NULL, &failure));
    expect_misuse(deed_compact(NULL, NULL, NULL, &failure));
    expect_misuse(deed_erase(NULL, noted.stream, (deed_str){0}, NULL, &failure));
    deed_get_compaction(NULL, &compaction);
    assert_int_equal(compaction.state, DEED_COMPACTION_IDLE);
    deed_get_compaction(deed, NULL);

    expect_misuse(deed_backup(deed, NULL, NULL, NULL, &failure));
    expect_misuse(deed_backup(NULL, folder, NULL, NULL, &failure));
    expect_misuse(deed_check_backup(NULL, NULL, NULL, &failure));
    expect_misuse(deed_restore(NULL, folder, NULL, NULL, &failure));
    expect_misuse(deed_restore(folder, NULL, NULL, NULL, &failure));

    /* No error is wanted: none is written. */
    expect_status(DEED_MISUSE, deed_append(NULL, NULL, NULL, NULL));
    struct deed_info info;
    deed_get_info(NULL, &info);
    assert_false(info.writable);
    deed_get_info(deed, NULL);
    assert_true(deed_cursor_position(NULL) == DEED_NONE);
    deed_cursor_close(NULL);
    deed_free(NULL);
    deed_close(NULL);
    end();
}

TEST(deed, metadata_compaction_and_erasure_are_the_librarys_too)
{
    begin();
    struct deed_append append = {.events = &noted, .event_count = 1};
    struct deed_compaction done;
    char *json = NULL;
    uint64_t revision = 0;
    for (int i = 0; i < 3; i++) expect_ok(deed_append(deed, &append, NULL, &failure));
    expect_ok(deed_get_metadata(deed, noted.stream, &json, &revision, &failure));
    assert_string_equal(json, "{}");
    assert_true(revision == DEED_NONE);
    deed_free(json);
    expect_ok(deed_set_metadata(deed, noted.stream, deed_bytes_of(DEED_STR("{\"$tb\":2}")),
                                DEED_EXPECT_NONE, 0, DEED_STR("me"), NULL, &failure));
    expect_ok(deed_get_metadata(deed, noted.stream, &json, NULL, &failure));
    assert_string_equal(json, "{\"$tb\":2}");
    deed_free(json);

    expect_ok(deed_compact(deed, NULL, NULL, &failure)); /* nothing is sealed */
    struct deed_compact_options how = {.active = true};
    expect_ok(deed_compact(deed, &how, &done, &failure));
    assert_int_equal(done.state, DEED_COMPACTION_DONE);
    assert_int_equal(done.events_removed, 2);
    how.compress_level = 99;
    expect_status(DEED_INVALID, deed_compact(deed, &how, &done, &failure));

    expect_ok(deed_erase(deed, noted.stream, DEED_STR("me"), &done, &failure));
    assert_true(done.erase);
    assert_int_equal(done.events_removed, 2); /* the last event, and the metadata before the newest */
    deed_get_compaction(deed, &done);
    assert_int_equal(done.state, DEED_COMPACTION_DONE);
    struct deed_read_options all = {.removed = true};
    struct deed_cursor *cursor = NULL;
    struct deed_event event;
    expect_ok(deed_read(deed, &all, &cursor, &failure));
    for (int i = 0; i < 3; i++) {
        expect_ok(deed_next(cursor, &event, &failure));
        assert_true(event.removed && event.erased);
        assert_int_equal(event.data.len, 0);
    }
    deed_cursor_close(cursor);
    expect_status(DEED_GONE, deed_read(deed, &(struct deed_read_options){0}, &cursor, &failure));
    expect_status(DEED_NOT_FOUND,
                  deed_erase(deed, DEED_STR("nothing"), (deed_str){0}, &done, &failure));
    end();
}

TEST(deed, a_list_that_is_counted_must_be_there)
{
    begin();
    struct deed_new_event event = noted;
    struct deed_append append = {.event_count = 1};
    expect_misuse(deed_append(deed, &append, NULL, &failure));
    append.events = &event;
    event.tag_count = 1;
    expect_misuse(deed_append(deed, &append, NULL, &failure));
    event.tag_count = 0;
    append.condition_count = 1;
    expect_misuse(deed_append(deed, &append, NULL, &failure));
    struct deed_condition condition = {.kind = DEED_CONDITION_NO_MATCH, .item_count = 1};
    append.conditions = &condition;
    expect_misuse(deed_append(deed, &append, NULL, &failure));
    struct deed_query_item item = {.type_count = 1};
    condition.items = &item;
    expect_misuse(deed_append(deed, &append, NULL, &failure));
    item = (struct deed_query_item){.tag_count = 1};
    expect_misuse(deed_append(deed, &append, NULL, &failure));

    struct deed_cursor *cursor = NULL;
    struct deed_read_options read = {.filter.type_count = 1};
    expect_misuse(deed_read(deed, &read, &cursor, &failure));
    char *json = NULL;
    struct deed_query_options query = {.parameter_count = 1};
    expect_misuse(deed_query(deed, noted.stream, &query, &json, NULL, &failure));

    item = (struct deed_query_item){0};
    expect_ok(deed_append(deed, &append, NULL, &failure)); /* every list is there, or empty */
    end();
}

TEST(deed, a_read_only_opening_reads_and_nothing_else)
{
    begin();
    const struct deed_append append = {.events = &noted, .event_count = 1};
    expect_ok(deed_append(deed, &append, NULL, &failure));
    struct deed *reader = NULL;
    expect_ok(deed_open(folder, &(struct deed_options){.read_only = true}, &reader, &failure));
    expect_status(DEED_STOPPED, deed_append(reader, &append, NULL, &failure));
    expect_message(failure, "opened read-only");
    expect_misuse(deed_add_query(reader, DEED_STR("q"), DEED_STR("SELECT 1"), &failure));
    expect_misuse(deed_load_app(reader, folder, &failure));

    struct deed_cursor *cursor = NULL;
    struct deed_event event;
    expect_ok(deed_read(reader, &(struct deed_read_options){0}, &cursor, &failure));
    expect_ok(deed_next(cursor, &event, &failure));
    assert_true(deed_str_equal(event.type, noted.type));
    expect_status(DEED_END, deed_next(cursor, &event, &failure));
    deed_cursor_close(cursor);
    deed_close(reader);
    end();
}

TEST(deed, a_backup_is_made_checked_and_restored)
{
    begin();
    char backup[80], restored[80];
    struct deed_backup_report report;
    struct deed_info info;
    struct deed *again = NULL;
    const struct deed_append append = {.events = &noted, .event_count = 1};
    (void)snprintf(backup, sizeof backup, "%s/backup", folder);
    (void)snprintf(restored, sizeof restored, "%s/restored", folder);
    expect_ok(deed_append(deed, &append, NULL, &failure));

    expect_ok(deed_backup(deed, backup, NULL, &report, &failure));
    assert_int_equal(report.events, 2);
    deed_get_info(deed, &info);
    assert_int_equal(info.backup_position, 2);
    expect_ok(deed_check_backup(backup, NULL, &report, &failure));
    expect_status(DEED_CONFLICT, deed_restore(backup, folder, NULL, NULL, &failure));
    expect_ok(deed_restore(backup, restored, NULL, &report, &failure));

    expect_ok(deed_open(restored, NULL, &again, &failure));
    deed_get_info(again, &info);
    assert_int_equal(info.position, 2);
    assert_int_equal(info.epoch, report.epoch);
    deed_close(again);
    end();
}

TEST_MAIN(deed)
