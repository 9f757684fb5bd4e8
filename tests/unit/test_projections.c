/* Read models over a real log: what they hold, how they stop, go on, and are made again. */
#include "base/text.h"
#include "projection/database.h"
#include "projection/manifest.h"
#include "projection/projections.h"
#include "stub_fixture.h"
#include "test.h"

#include <ftw.h>
#include <signal.h>
#include <sqlite3.h>
#include <sys/resource.h>
#include <unistd.h>

#define ITEMS                                                                                      \
    "-- projection: items\n"                                                                       \
    "-- tables\n"                                                                                  \
    "CREATE TABLE items (id TEXT PRIMARY KEY, n INTEGER NOT NULL, at INTEGER);\n"                  \
    "-- on Added\n"                                                                                \
    "INSERT INTO items VALUES (:data.id, :data.n, :position)\n"                                    \
    "  ON CONFLICT (id) DO UPDATE SET n = n + :data.n, at = :position;\n"                          \
    "-- on Removed\n"                                                                              \
    "DELETE FROM items WHERE id = :data.id;\n"

/* ---- the fixture's verbs --------------------------------------------------------------------- */

static char folder[64];
static struct store *store;
static struct projections *projections;
static struct projections_options options;
static struct store_options log_options;
static struct deed_error failure;
static struct arena arena;

static int remove_one(const char *path, const struct stat *s, int flag, struct FTW *ftw)
{
    (void)s, (void)flag, (void)ftw;
    return remove(path);
}

static void open_both(void)
{
    expect_ok(store_open(os_real(), folder, &log_options, &store, &failure));
    expect_ok(projections_open(store, &options, &projections, &failure));
}

static void close_both(void)
{
    projections_close(projections);
    store_close(store);
    projections = NULL;
    store = NULL;
}

static void begin_with(struct projections_options wanted)
{
    (void)snprintf(folder, sizeof folder, "/tmp/deed-projections-XXXXXX");
    assert_non_null(mkdtemp(folder));
    failure = (struct deed_error){0};
    arena_init(&arena, 64u << 20);
    options = wanted;
    log_options = (struct store_options){.unsafe_no_sync = true};
    open_both();
}

static void begin(void)
{
    begin_with((struct projections_options){.no_threads = true, .batch_count_max = 3});
}

static void end(void)
{
    close_both();
    arena_done(&arena);
    assert_int_equal(nftw(folder, remove_one, 16, FTW_DEPTH | FTW_PHYS), 0);
}

static void reopen(void)
{
    close_both();
    open_both();
}

static uint64_t append_event(const char *stream, const char *type, const char *data,
                             const char *content_type)
{
    struct deed_new_event event = {
        .stream = deed_str_of(stream),
        .type = deed_str_of(type),
        .data = deed_bytes_of(deed_str_of(data)),
        .content_type = deed_str_of(content_type),
    };
    struct deed_append append = {.events = &event, .event_count = 1};
    struct deed_appended appended;
    deed_status status = store_append(store, &append, &appended, &failure);
    if (status != DEED_OK) fail_msg("append: %s", failure.message);
    return appended.position;
}

static uint64_t happens(const char *type, const char *data)
{
    return append_event("thing-1", type, data, "application/json");
}

static uint64_t added(const char *id, int n)
{
    char data[100];
    (void)snprintf(data, sizeof data, "{\"id\":\"%s\",\"n\":%d}", id, n);
    return happens("Added", data);
}

static void add(const char *text)
{
    deed_status status =
        projections_add(projections, DEED_STR("items.sql"), deed_str_of(text), &failure);
    if (status != DEED_OK) fail_msg("add: %s", failure.message);
}

static void run(void)
{
    while (projections_step(projections))
        continue;
}

static struct projection_status status_of(const char *name)
{
    struct projection_status *list = NULL;
    size_t count = 0;
    arena_reset(&arena);
    expect_ok(projections_list(projections, &arena, &list, &count, &failure));
    for (size_t i = 0; i < count; i++) {
        if (deed_str_equal(list[i].name, deed_str_of(name))) return list[i];
    }
    fail_msg("no projection %s", name);
    return (struct projection_status){0};
}

/* The rows of a database file as "a|b\n". */
static const char *rows_of(const char *path, const char *sql)
{
    static char text[16384];
    sqlite3 *db = NULL;
    sqlite3_stmt *statement = NULL;
    assert_int_equal(sqlite3_open_v2(path, &db, SQLITE_OPEN_READONLY, NULL), SQLITE_OK);
    if (sqlite3_prepare_v2(db, sql, -1, &statement, NULL) != SQLITE_OK) {
        fail_msg("%s: %s", sql, sqlite3_errmsg(db));
    }
    size_t len = 0;
    text[0] = '\0';
    while (sqlite3_step(statement) == SQLITE_ROW) {
        for (int i = 0; i < sqlite3_column_count(statement); i++) {
            const char *value = (const char *)sqlite3_column_text(statement, i);
            len += (size_t)snprintf(text + len, sizeof text - len, "%s%s", i == 0 ? "" : "|",
                                    value == NULL ? "NULL" : value);
        }
        len += (size_t)snprintf(text + len, sizeof text - len, "\n");
    }
    sqlite3_finalize(statement);
    sqlite3_close(db);
    return text;
}

static const char *rows_at(uint64_t position, const char *sql)
{
    struct projection_lease *lease = NULL;
    const char *path = NULL;
    uint64_t reached = 0;
    deed_status status = projections_lease(projections, DEED_STR("items"), position, 10000, &lease,
                                           &path, &reached, &failure);
    if (status != DEED_OK) fail_msg("lease: %s", failure.message);
    const char *rows = rows_of(path, sql);
    projections_release(lease);
    return rows;
}

static void expect_rows(const char *rows)
{
    assert_string_equal(rows_at(0, "SELECT id, n FROM items ORDER BY id"), rows);
}

static void expect_failed(uint64_t position, const char *message)
{
    struct projection_status s = status_of("items");
    assert_int_equal(s.state, PROJECTION_FAILED);
    assert_int_equal(s.error_position, position);
    if (strstr(s.error.ptr, message) == NULL) fail_msg("%s lacks %s", s.error.ptr, message);
}

static void count_databases(void *context, const char *name)
{
    size_t len = strlen(name);
    if (len > 3 && strcmp(name + len - 3, ".db") == 0) ++*(int *)context;
}

static int databases(void)
{
    struct os_dir *dir = NULL;
    int count = 0;
    expect_ok(os_dir_open_in(store_dir(store), "projections", false, &dir, &failure));
    expect_ok(os_dir_list(dir, count_databases, &count, &failure));
    os_dir_close(dir);
    return count;
}

static void write_file(const char *name, const char *text)
{
    struct os_dir *dir = NULL;
    struct os_file *file = NULL;
    expect_ok(os_dir_open_in(store_dir(store), "projections", false, &dir, &failure));
    expect_ok(os_file_open(dir, name, OS_WRITE | OS_CREATE, &file, &failure));
    expect_ok(os_file_truncate(file, 0, &failure));
    expect_ok(os_file_write(file, 0, deed_bytes_of(deed_str_of(text)), &failure));
    os_file_close(file);
    os_dir_close(dir);
}

static void copy_bytes(const char *from, const char *to)
{
    static char bytes[1 << 16];
    FILE *in = fopen(from, "rb"), *out = fopen(to, "wb");
    assert_non_null(in);
    assert_non_null(out);
    size_t size = fread(bytes, 1, sizeof bytes, in);
    assert_true(size > 0 && size < sizeof bytes);
    assert_int_equal(fwrite(bytes, 1, size, out), size);
    assert_int_equal(fclose(out), 0);
    assert_int_equal(fclose(in), 0);
}

/* ---- following ------------------------------------------------------------------------------- */

TEST(projections, rows_follow_the_log)
{
    begin();
    add(ITEMS);
    added("a", 1);
    added("b", 2);
    happens("Other", "{}");
    added("a", 10);
    uint64_t last = happens("Removed", "{\"id\":\"b\"}");
    run();

    expect_rows("a|11\n");
    struct projection_status s = status_of("items");
    assert_int_equal(s.state, PROJECTION_RUNNING);
    assert_int_equal(s.position, last);
    assert_int_equal(s.lag, 0);
    assert_int_equal(s.events, 4);
    assert_int_equal(s.generation, 1);
    assert_int_equal(s.event_type_count, 2);
    expect_str(s.event_types[0], "Added");
    assert_int_equal(s.table_count, 1);
    expect_str(s.tables[0], "items");
    assert_true(s.size > 0);
    assert_false(s.rebuilding);
    end();
}

TEST(projections, the_checkpoint_survives_and_nothing_counts_twice)
{
    begin();
    add(ITEMS);
    for (int i = 0; i < 10; i++)
        added("a", 1);
    run();
    reopen();
    add(ITEMS);
    added("a", 1);
    run();

    expect_rows("a|11\n");
    assert_int_equal(status_of("items").events, 1);
    end();
}

TEST(projections, every_event_delivered_twice_gives_the_same_rows)
{
    begin_with((struct projections_options){
        .no_threads = true, .batch_count_max = 3, .deliver_twice = true});
    add(ITEMS);
    for (int i = 0; i < 10; i++)
        added(i % 2 == 0 ? "a" : "b", i);
    run();
    reopen(); /* begins at the log's first event again */
    add(ITEMS);
    added("b", 100);
    run();

    expect_rows("a|20\nb|125\n");
    end();
}

TEST(projections, a_place_where_nothing_matched_is_known_at_once_and_saved_on_closing)
{
    begin();
    add(ITEMS);
    uint64_t last = 0;
    for (int i = 0; i < 5; i++)
        last = happens("Other", "{}");
    run();
    assert_int_equal(status_of("items").position, last);

    reopen();
    assert_string_equal(rows_of("/dev/null", "SELECT 1"), "1\n");
    add(ITEMS);
    assert_int_equal(status_of("items").position, last);
    end();
}

TEST(projections, each_runs_on_a_thread_of_its_own)
{
    begin_with((struct projections_options){0});
    add(ITEMS);
    expect_ok(projections_add(projections, DEED_STR("count.sql"),
                              DEED_STR("-- projection: count\n-- tables\n"
                                       "CREATE TABLE counts (type TEXT PRIMARY KEY, n INTEGER);\n"
                                       "-- on *\nINSERT INTO counts VALUES (:type, 1) "
                                       "ON CONFLICT (type) DO UPDATE SET n = n + 1;\n"),
                              &failure));
    uint64_t last = 0;
    for (int i = 0; i < 500; i++)
        last = added("a", 1);
    expect_ok(projections_wait(projections, NULL, 0, last, 10000, &failure));

    expect_rows("a|500\n");
    assert_int_equal(status_of("count").position, last);
    expect_ok(projections_wait(projections, (deed_str[]){DEED_STR("items")}, 1, last, 0, &failure));
    expect_status(DEED_TIMEOUT, projections_wait(projections, NULL, 0, last + 1, 20, &failure));
    expect_message(failure, "is at position");
    expect_status(DEED_NOT_FOUND,
                  projections_wait(projections, (deed_str[]){DEED_STR("x")}, 1, 1, 20, &failure));
    end();
}

TEST(projections, values_bind_by_kind)
{
    begin();
    expect_ok(projections_add(
        projections, DEED_STR("items.sql"),
        DEED_STR(
            "-- projection: items\n-- tables\nCREATE TABLE items (at INTEGER PRIMARY KEY, v);\n"
            "-- on V\nINSERT INTO items VALUES (:position, :data.v);\n"
            "-- on Q\nINSERT INTO items VALUES (:position, :data.v.0.\"a b\"?);\n"
            "-- on W\nINSERT INTO items VALUES (:position, :data);\n"),
        &failure));
    static const char *const values[] = {
        "1",
        "-9223372036854775808",
        "9223372036854775807",
        "1e2",
        "3.0",
        "0.5",
        "1e300",
        "true",
        "false",
        "null",
        "\"text\"",
        "\"\"",
        "{\"x\": [1]}",
        "[1, 2]",
        "1e19",
    };
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
        char data[100];
        (void)snprintf(data, sizeof data, "{\"v\": %s}", values[i]);
        happens("V", data);
    }
    happens("Q", "{\"v\": [{\"a b\": 7}]}");
    happens("Q", "{\"v\": {\"0\": {\"a b\": 8}}}");
    happens("Q", "{}");
    happens("Q", "[]");
    append_event("x", "Q", "not json", "text/plain");
    append_event("x", "W", "not json", "text/plain");
    happens("W", "{\"a\":1}");
    run();

    assert_string_equal(rows_at(0, "SELECT typeof(v), CAST(v AS TEXT) FROM items ORDER BY at"),
                        "integer|1\ninteger|-9223372036854775808\ninteger|9223372036854775807\n"
                        "integer|100\ninteger|3\nreal|0.5\nreal|1.0e+300\ninteger|1\ninteger|0\n"
                        "null|NULL\ntext|text\ntext|\ntext|{\"x\": [1]}\ntext|[1, 2]\n"
                        "real|1.0e+19\n"
                        "integer|7\ninteger|8\nnull|NULL\nnull|NULL\nnull|NULL\n"
                        "blob|not json\ntext|{\"a\":1}\n");
    end();
}

TEST(projections, everything_about_an_event_can_be_bound)
{
    begin();
    expect_ok(projections_add(
        projections, DEED_STR("items.sql"),
        DEED_STR(
            "-- projection: items\n-- tables\nCREATE TABLE items (at INTEGER PRIMARY KEY, a, b, c, "
            "d, e, f, g, h, i, j, k);\n"
            "-- on *\nINSERT INTO items VALUES (:position, :stream, :category, :revision, :time, "
            ":type, :id, :tags, :correlation_id, :causation_id, :actor, :metadata.m?);\n"),
        &failure));
    deed_str tags[] = {DEED_STR("a"), DEED_STR("b\"c")};
    struct deed_new_event events[] = {
        {.stream = DEED_STR("order-7-x"),
         .type = DEED_STR("T"),
         .data = deed_bytes_of(DEED_STR("{}")),
         .metadata = deed_bytes_of(DEED_STR("{\"m\":5}")),
         .tags = tags,
         .tag_count = 2,
         .id = {{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}},
         .time_ns = 1500000000000000001,
         .correlation_id = DEED_STR("c1"),
         .causation_id = DEED_STR("c2"),
         .actor = DEED_STR("ann")},
        {.stream = DEED_STR("plain"),
         .type = DEED_STR("U"),
         .data = deed_bytes_of(DEED_STR("{}")),
         .time_ns = 1},
    };
    struct deed_append append = {.events = events, .event_count = 2};
    struct deed_appended appended;
    expect_ok(store_append(store, &append, &appended, &failure));
    run();

    assert_string_equal(
        rows_at(0, "SELECT a, b, c, d, e, f, g, h, i, j, k FROM items WHERE e = 'T'"),
        "order-7-x|order|0|2017-07-14T02:40:00.000000001Z|T|01020304-0506-0708-090a-0b0c0d0e0f10|"
        "[\"a\",\"b\\\"c\"]|c1|c2|ann|5\n");
    assert_string_equal(rows_at(0, "SELECT a, b, g, h, i, j, k FROM items WHERE e = 'U'"),
                        "plain|NULL|[]|NULL|NULL|NULL|NULL\n");
    end();
}

TEST(projections, dates_are_counted_and_now_is_nothing)
{
    begin();
    expect_ok(projections_add(
        projections, DEED_STR("items.sql"),
        DEED_STR(
            "-- projection: items\n-- tables\nCREATE TABLE items (at INTEGER PRIMARY KEY, v);\n"
            "-- on D\nINSERT INTO items VALUES (:position, date(:data.d, 'start of month') || ' ' "
            "|| strftime('%Y', :data.d) || ' ' || unixepoch(:data.d));\n"
            "-- on Z\nINSERT INTO items VALUES (:position, date(:data.d, :data.z));\n"),
        &failure));
    happens("D", "{\"d\": \"2026-11-23\"}");
    happens("D", "{\"d\": \"now\"}");
    run();
    assert_string_equal(rows_at(0, "SELECT v FROM items ORDER BY at"),
                        "2026-11-01 2026 1795392000\nNULL\n");

    uint64_t bad = happens("Z", "{\"d\": \"2026-11-23\", \"z\": \"localtime\"}");
    run();
    expect_failed(bad, "depends on the time zone");
    end();
}

/* ---- failing and mending --------------------------------------------------------------------- */

TEST(projections, a_failing_statement_stops_behind_the_events_before_it)
{
    begin();
    add(ITEMS);
    expect_ok(projections_add(projections, DEED_STR("other.sql"),
                              DEED_STR("-- projection: other\n-- tables\n"
                                       "CREATE TABLE others (at INTEGER PRIMARY KEY);\n"
                                       "-- on Added\nINSERT INTO others VALUES (:position);\n"),
                              &failure));
    added("a", 1);
    added("b", 2);
    uint64_t bad = happens("Added", "{\"id\":\"c\",\"n\":null}");
    uint64_t last = added("d", 4);
    run();

    expect_failed(bad, "line 5: NOT NULL constraint failed: items.n");
    struct projection_status s = status_of("items");
    assert_int_equal(s.position, bad - 1);
    assert_true(str_starts_with(s.error_statement, DEED_STR("INSERT INTO items VALUES (:data.id")));
    assert_int_equal(status_of("other").state, PROJECTION_RUNNING);
    assert_int_equal(status_of("other").position, last);
    char path[200];
    (void)snprintf(path, sizeof path, "%s/projections/items.g1.db", folder);
    assert_string_equal(rows_of(path, "SELECT id, n FROM items"), "a|1\nb|2\n");
    assert_string_equal(rows_of(path, "SELECT position = (SELECT max(at) FROM items) FROM "
                                      "_deedbook_checkpoint"),
                        "1\n");
    end();
}

TEST(projections, a_failed_one_answers_stopped)
{
    begin();
    add(ITEMS);
    uint64_t bad = happens("Added", "{\"id\":\"c\",\"n\":null}");
    run();

    struct projection_lease *lease = NULL;
    const char *path = NULL;
    expect_status(DEED_STOPPED, projections_lease(projections, DEED_STR("items"), 0, 0, &lease,
                                                  &path, NULL, &failure));
    expect_message(failure, "projection items has failed on event");
    expect_message(failure, "NOT NULL constraint failed");
    expect_status(DEED_STOPPED, projections_wait(projections, NULL, 0, bad, 0, &failure));
    expect_message(failure, "projection items has failed on event");
    expect_status(DEED_STOPPED, projections_lease(projections, DEED_STR("items"), bad, 1000, &lease,
                                                  &path, NULL, &failure));
    expect_message(failure, "projection items: event");
    assert_string_equal(rows_at(bad - 1, "SELECT count(*) FROM items"), "0\n");
    end();
}

TEST(projections, half_an_event_is_never_kept)
{
    begin();
    add("-- projection: items\n-- tables\nCREATE TABLE items (id TEXT PRIMARY KEY, n INTEGER);\n"
        "-- on Added\nINSERT INTO items VALUES (:data.id, 1);\n"
        "UPDATE items SET n = n + :data.n WHERE id = :data.id;\n");
    added("a", 1);
    uint64_t bad = happens("Added", "{\"id\":\"b\"}");
    run();

    expect_failed(bad, "line 6: no value at data.n (write :data.n? where it may be missing)");
    char path[200];
    (void)snprintf(path, sizeof path, "%s/projections/items.g1.db", folder);
    assert_string_equal(rows_of(path, "SELECT id, n FROM items"), "a|2\n");
    end();
}

TEST(projections, a_number_out_of_range_stops)
{
    begin();
    add(ITEMS);
    uint64_t bad = happens("Added", "{\"id\":\"a\",\"n\":9223372036854775808}");
    run();
    expect_failed(bad, "the number at data.n is out of range: 9223372036854775808");
    end();
}

TEST(projections, failing_again_after_a_restart_and_on_resuming)
{
    begin();
    add(ITEMS);
    uint64_t bad = happens("Added", "{\"id\":\"c\",\"n\":null}");
    run();
    expect_ok(projections_resume(projections, DEED_STR("items"), &failure));
    run();
    expect_failed(bad, "NOT NULL");
    reopen();
    add(ITEMS);
    run();
    expect_failed(bad, "NOT NULL");
    end();
}

static const char mended[] =
    "-- projection: items\n"
    "-- tables\n"
    "CREATE TABLE items (id TEXT PRIMARY KEY, n INTEGER NOT NULL, at INTEGER);\n"
    "-- on Added\n"
    "INSERT INTO items VALUES (:data.id, coalesce(:data.n, 0), :position)\n"
    "  ON CONFLICT (id) DO UPDATE SET n = n + :data.n, at = :position;\n"
    "-- on Removed\n"
    "DELETE FROM items WHERE id = :data.id;\n";

TEST(projections, a_mended_file_goes_on_where_no_earlier_event_is_concerned)
{
    begin();
    add(ITEMS);
    happens("Removed", "{\"id\":\"x\"}");
    happens("Added", "{\"id\":\"c\",\"n\":null}");
    run();
    add(mended);
    run();

    expect_rows("c|0\n");
    struct projection_status s = status_of("items");
    assert_int_equal(s.generation, 1);
    assert_int_equal(s.state, PROJECTION_RUNNING);
    assert_int_equal(s.error.len, 0);
    reopen();
    add(mended);
    run();
    expect_rows("c|0\n");
    assert_int_equal(status_of("items").generation, 1);
    end();
}

TEST(projections, a_mended_file_is_rebuilt_where_earlier_events_are)
{
    begin();
    add(ITEMS);
    added("a", 1);
    happens("Added", "{\"id\":\"c\",\"n\":null}");
    run();
    assert_int_equal(status_of("items").state, PROJECTION_FAILED);
    add(mended);
    run();

    expect_rows("a|1\nc|0\n");
    assert_int_equal(status_of("items").generation, 2);
    assert_int_equal(databases(), 1);
    end();
}

TEST(projections, a_new_type_without_events_goes_on)
{
    begin();
    add(ITEMS);
    added("a", 1);
    run();
    add(ITEMS "-- on Cleared\nDELETE FROM items;\n");
    run();
    assert_int_equal(status_of("items").generation, 1);
    happens("Cleared", "{}");
    run();
    expect_rows("");

    /* A type that is no longer answered to, and of which there was an event. */
    add(ITEMS);
    run();
    expect_rows("a|1\n");
    assert_int_equal(status_of("items").generation, 2);
    end();
}

TEST(projections, comments_and_layout_change_nothing)
{
    begin();
    add(ITEMS);
    added("a", 1);
    run();
    add("-- what it is for\n" ITEMS "\n\n");
    run();
    assert_int_equal(status_of("items").generation, 1);
    end();
}

/* ---- rebuilding ------------------------------------------------------------------------------ */

TEST(projections, a_rebuild_gives_the_same_rows_beside_the_live_one)
{
    begin();
    add(ITEMS);
    for (int i = 0; i < 20; i++)
        added(i % 3 == 0 ? "a" : "b", i);
    run();
    char before[2000];
    (void)snprintf(before, sizeof before, "%s", rows_at(0, "SELECT * FROM items ORDER BY id"));

    expect_ok(projections_rebuild(projections, DEED_STR("items"), false, &failure));
    expect_status(DEED_CONFLICT, projections_rebuild(projections, DEED_STR("items"), false, &failure));
    expect_message(failure, "is being rebuilt already");
    (void)projections_step(projections);
    struct projection_status s = status_of("items");
    assert_true(s.rebuilding);
    assert_int_equal(s.generation, 1);
    assert_true(s.rebuild_position > 0 && s.rebuild_position < s.rebuild_target);
    assert_true(s.rebuild_rate > 0);
    assert_true(s.rebuild_seconds_left > 0);
    assert_string_equal(rows_at(0, "SELECT * FROM items ORDER BY id"), before);

    run();
    s = status_of("items");
    assert_false(s.rebuilding);
    assert_int_equal(s.generation, 2);
    assert_string_equal(rows_at(0, "SELECT * FROM items ORDER BY id"), before);
    assert_int_equal(databases(), 1);
    reopen();
    add(ITEMS);
    run();
    assert_int_equal(status_of("items").generation, 2);
    assert_string_equal(rows_at(0, "SELECT * FROM items ORDER BY id"), before);
    end();
}

/* ---- removed events -------------------------------------------------------------------------- */

static enum event_fate remove_b(const struct deed_event *e)
{
    return e->data.len > 7 && e->data.ptr[7] == 'b' ? EVENT_REMOVE : EVENT_KEEP;
}

/* {"id":"b",… go; the store and the read models are opened again. */
static void b_is_removed(void)
{
    close_both();
    stub_log(os_real(), folder, remove_b);
    open_both();
    add(ITEMS);
    run();
}

TEST(projections, a_rebuild_across_a_removed_event_is_given_up_unless_forced)
{
    begin();
    add(ITEMS);
    added("a", 1), added("b", 2), added("b", 3), added("c", 4);
    run();
    b_is_removed();
    assert_string_equal(rows_at(0, "SELECT id, n FROM items ORDER BY id"), "a|1\nb|5\nc|4\n");

    expect_ok(projections_rebuild(projections, DEED_STR("items"), false, &failure));
    run();
    struct projection_status s = status_of("items");
    assert_int_equal(s.state, PROJECTION_RUNNING);
    assert_false(s.rebuilding);
    assert_int_equal(s.generation, 1);
    assert_true(memmem(s.rebuild_error.ptr, s.rebuild_error.len, "event 3: the Added is removed",
                       29) != NULL);
    assert_string_equal(rows_at(0, "SELECT id, n FROM items ORDER BY id"), "a|1\nb|5\nc|4\n");

    expect_ok(projections_rebuild(projections, DEED_STR("items"), true, &failure));
    run();
    s = status_of("items");
    assert_int_equal(s.generation, 3);
    assert_int_equal(s.removed_events, 2);
    assert_string_equal(rows_at(0, "SELECT id, n FROM items ORDER BY id"), "a|1\nc|4\n");
    reopen();
    add(ITEMS);
    added("d", 5);
    run();
    assert_int_equal(status_of("items").removed_events, 2);
    assert_string_equal(rows_at(0, "SELECT id FROM items ORDER BY id"), "a\nc\nd\n");
    end();
}

TEST(projections, a_live_one_that_comes_late_stops_at_a_removed_event)
{
    begin();
    added("a", 1), added("b", 2), added("c", 4);
    b_is_removed();
    struct projection_status s = status_of("items");
    assert_int_equal(s.state, PROJECTION_FAILED);
    assert_int_equal(s.error_position, 3);
    assert_int_equal(s.position, 2);
    assert_int_equal(s.removed_events, 0);
    expect_ok(projections_resume(projections, DEED_STR("items"), &failure));
    run();
    assert_int_equal(status_of("items").state, PROJECTION_FAILED);
    expect_ok(projections_rebuild(projections, DEED_STR("items"), true, &failure));
    run();
    s = status_of("items");
    assert_int_equal(s.state, PROJECTION_RUNNING);
    assert_int_equal(s.removed_events, 1);
    assert_string_equal(rows_at(0, "SELECT id FROM items ORDER BY id"), "a\nc\n");
    end();
}

TEST(projections, removed_events_that_it_does_not_answer_to_are_nothing_to_it)
{
    begin();
    added("a", 1);
    happens("Other", "{\"id\":\"b\"}");
    added("c", 4);
    b_is_removed();
    struct projection_status s = status_of("items");
    assert_int_equal(s.state, PROJECTION_RUNNING);
    assert_int_equal(s.removed_events, 0);
    assert_string_equal(rows_at(0, "SELECT id FROM items ORDER BY id"), "a\nc\n");
    end();
}

TEST(projections, the_past_across_a_removed_event_is_gone)
{
    begin();
    add(ITEMS);
    added("a", 1), added("b", 2), added("c", 4);
    run();
    b_is_removed();
    struct projection_lease *lease = NULL;
    const char *path = NULL;
    uint64_t position = 0;
    expect_status(DEED_GONE, projections_lease(projections, DEED_STR("items"), 4, 1000, &lease,
                                               &path, &position, &failure));
    expect_message(failure, "event 3: the Added is removed");
    assert_int_equal(failure.position, 3);
    expect_ok(projections_lease(projections, DEED_STR("items"), 2, 1000, &lease, &path, &position,
                                &failure));
    assert_string_equal(rows_of(path, "SELECT id FROM items"), "a\n");
    projections_release(lease);
    end();
}

TEST(projections, a_leased_generation_stays_until_it_is_released)
{
    begin();
    add(ITEMS);
    added("a", 1);
    run();
    struct projection_lease *lease = NULL;
    const char *path = NULL;
    uint64_t position = 0;
    expect_ok(projections_lease(projections, DEED_STR("items"), 0, 0, &lease, &path, &position,
                                &failure));
    expect_ok(projections_rebuild(projections, DEED_STR("items"), false, &failure));
    run();
    assert_int_equal(status_of("items").generation, 2);
    assert_int_equal(databases(), 2);
    assert_string_equal(rows_of(path, "SELECT id FROM items"), "a\n");

    projections_release(lease);
    assert_int_equal(databases(), 1);
    projections_release(NULL);
    end();
}

TEST(projections, changed_tables_are_rebuilt_while_the_old_ones_serve)
{
    begin();
    add(ITEMS);
    for (int i = 0; i < 10; i++)
        added("a", 1);
    run();
    add("-- projection: items\n-- tables\nCREATE TABLE items (id TEXT PRIMARY KEY, n INTEGER, "
        "twice "
        "INTEGER);\n-- on Added\nINSERT INTO items VALUES (:data.id, 1, 2) ON CONFLICT (id) DO "
        "UPDATE "
        "SET n = n + 1, twice = twice + 2;\n");
    (void)projections_step(projections);
    added("b", 1);
    (void)projections_step(projections);
    assert_true(status_of("items").rebuilding);
    expect_rows("a|10\nb|1\n"); /* the old one still follows */

    run();
    assert_string_equal(rows_at(0, "SELECT id, n, twice FROM items"), "a|10|20\nb|1|2\n");
    end();
}

TEST(projections, a_changed_file_is_rebuilt_after_a_restart)
{
    begin();
    add(ITEMS);
    added("a", 1);
    run();
    reopen();
    add(mended);
    added("b", 2);
    run();
    expect_rows("a|1\nb|2\n");
    assert_int_equal(status_of("items").generation, 2);
    end();
}

TEST(projections, a_failing_rebuild_leaves_the_live_one)
{
    begin();
    add(ITEMS);
    uint64_t first = added("a", 1);
    run();
    add("-- projection: items\n-- tables\nCREATE TABLE items (id TEXT PRIMARY KEY, n INTEGER);\n"
        "-- on Added\nINSERT INTO items VALUES (:data.id, :data.nothing);\n");
    run();

    struct projection_status s = status_of("items");
    assert_false(s.rebuilding);
    assert_int_equal(s.state, PROJECTION_RUNNING);
    char message[100];
    (void)snprintf(message, sizeof message, "event %d: line 5: no value at data.nothing",
                   (int)first);
    assert_true(str_starts_with(s.rebuild_error, deed_str_of(message)));
    added("a", 1);
    run();
    expect_rows("a|2\n");
    assert_int_equal(databases(), 1);

    add(ITEMS);
    run();
    assert_int_equal(status_of("items").generation, 1);
    assert_int_equal(status_of("items").rebuild_error.len, 0);
    end();
}

TEST(projections, a_rebuild_of_a_failed_one_runs)
{
    begin();
    add(ITEMS);
    added("a", 1);
    happens("Added", "{\"id\":\"c\",\"n\":null}");
    run();
    expect_ok(projections_rebuild(projections, DEED_STR("items"), false, &failure));
    run();
    struct projection_status s = status_of("items");
    assert_int_equal(s.state, PROJECTION_FAILED);
    assert_true(s.rebuild_error.len > 0);
    assert_int_equal(s.generation, 1);
    expect_status(DEED_NOT_FOUND, projections_rebuild(projections, DEED_STR("x"), false, &failure));
    end();
}

TEST(projections, rebuilding_with_threads_while_events_come)
{
    begin_with((struct projections_options){.batch_count_max = 16});
    add(ITEMS);
    uint64_t last = 0;
    for (int i = 0; i < 300; i++)
        last = added("a", 1);
    expect_ok(projections_wait(projections, NULL, 0, last, 10000, &failure));
    expect_ok(projections_rebuild(projections, DEED_STR("items"), false, &failure));
    for (int i = 0; i < 300; i++)
        last = added("b", 1);
    for (int i = 0; i < 5000 && status_of("items").rebuilding; i++)
        usleep(2000);
    expect_ok(projections_wait(projections, NULL, 0, last, 10000, &failure));

    assert_int_equal(status_of("items").generation, 2);
    expect_rows("a|300\nb|300\n");
    end();
}

/* ---- pausing --------------------------------------------------------------------------------- */

TEST(projections, a_paused_one_waits_to_be_resumed)
{
    begin();
    add(ITEMS);
    added("a", 1);
    run();
    expect_ok(projections_pause(projections, DEED_STR("items"), &failure));
    uint64_t last = added("a", 1);
    run();

    assert_int_equal(status_of("items").state, PROJECTION_PAUSED);
    assert_int_equal(status_of("items").lag, 1);
    expect_rows("a|1\n");
    expect_status(DEED_STOPPED, projections_wait(projections, NULL, 0, last, 0, &failure));
    expect_message(failure, "projection items is paused at position");
    expect_ok(projections_wait(projections, NULL, 0, last - 1, 0, &failure));

    expect_ok(projections_resume(projections, DEED_STR("items"), &failure));
    expect_ok(projections_wait(projections, NULL, 0, last, 1000, &failure));
    expect_rows("a|2\n");
    expect_status(DEED_NOT_FOUND, projections_pause(projections, DEED_STR("x"), &failure));
    expect_status(DEED_NOT_FOUND, projections_resume(projections, DEED_STR("x"), &failure));
    end();
}

/* ---- the set --------------------------------------------------------------------------------- */

TEST(projections, a_table_is_in_one_projection_only)
{
    begin();
    add(ITEMS);
    expect_status(
        DEED_CONFLICT,
        projections_add(projections, DEED_STR("b.sql"),
                        DEED_STR("-- projection: b\n-- tables\nCREATE TABLE ITEMS (id PRIMARY "
                                 "KEY);\n-- on A\nDELETE FROM items;"),
                        &failure));
    expect_message(failure, "b.sql: projection items has a table ITEMS already");
    expect_str(projections_table_owner(projections, DEED_STR("Items")), "items");
    assert_null(projections_table_owner(projections, DEED_STR("none")).ptr);
    expect_status(DEED_INVALID,
                  projections_add(projections, DEED_STR("c.sql"), DEED_STR("x"), &failure));
    expect_message(failure, "c.sql: line 1: ");
    end();
}

static char app[100];

static void app_file(const char *name, const char *text)
{
    char path[200];
    (void)snprintf(path, sizeof path, "%s/%s", app, name);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
}

TEST(projections, a_folder_is_taken_up_again_and_again)
{
    begin();
    (void)snprintf(app, sizeof app, "%s/app", folder);
    expect_ok(projections_load(projections, app, &failure)); /* not there: none */
    struct os_dir *dir = NULL;
    expect_ok(os_dir_open(os_real(), app, true, &dir, &failure));
    os_dir_close(dir);
    app_file("items.sql", ITEMS);
    app_file("other.sql", "-- projection: other\n-- tables\nCREATE TABLE o (id PRIMARY KEY);\n"
                          "-- on A\nDELETE FROM o;");
    app_file(".items.sql.swp", "x");
    app_file("README", "x");
    expect_ok(projections_load(projections, app, &failure));
    expect_str(status_of("items").file, "items.sql");
    expect_str(status_of("other").file, "other.sql");

    /* One is refused: it goes on as it was; the others are taken up. */
    app_file("items.sql", "-- projection: items\n");
    app_file("third.sql", "-- projection: third\n-- tables\nCREATE TABLE p (id PRIMARY KEY);\n"
                          "-- on A\nDELETE FROM p;");
    expect_status(DEED_INVALID, projections_load(projections, app, &failure));
    expect_message(failure, "items.sql: there is no \"-- tables\"");
    assert_int_equal(status_of("items").state, PROJECTION_RUNNING);
    assert_non_null(strstr(status_of("items").file_error.ptr, "there is no \"-- tables\""));
    assert_int_equal(status_of("third").file_error.len, 0);
    added("a", 1);
    run();
    expect_rows("a|1\n");

    /* Nor does one that cannot be read. */
    char path[200];
    (void)snprintf(path, sizeof path, "%s/broken.sql", app);
    assert_int_equal(symlink("nowhere", path), 0);
    app_file("items.sql", ITEMS);
    app_file("third.sql", "-- projection: third\n-- tables\nCREATE TABLE p3 (id PRIMARY KEY);\n"
                          "-- on A\nDELETE FROM p3;");
    expect_status(DEED_IO, projections_load(projections, app, &failure));
    expect_message(failure, "broken.sql: cannot open it");
    struct projection_status broken = status_of("broken");
    assert_int_equal(broken.state, PROJECTION_FAILED);
    assert_int_equal(broken.generation, 0);
    expect_str(broken.file, "broken.sql");
    assert_non_null(strstr(broken.error.ptr, "cannot open it"));
    assert_int_equal(status_of("items").file_error.len, 0);
    expect_str(projections_table_owner(projections, DEED_STR("p3")), "third");
    expect_rows("a|1\n");
    assert_int_equal(unlink(path), 0);

    /* A table moves from one file to another. */
    app_file("other.sql", "-- projection: other\n-- tables\nCREATE TABLE p (id PRIMARY KEY);\n"
                          "-- on A\nDELETE FROM p;");
    app_file("third.sql", "-- projection: third\n-- tables\nCREATE TABLE o (id PRIMARY KEY);\n"
                          "-- on A\nDELETE FROM o;");
    expect_ok(projections_load(projections, app, &failure));
    expect_str(projections_table_owner(projections, DEED_STR("p")), "other");

    app_file("third.sql", "-- projection: other\n-- tables\nCREATE TABLE q (id PRIMARY KEY);\n"
                          "-- on A\nDELETE FROM q;");
    expect_status(DEED_CONFLICT, projections_load(projections, app, &failure));
    expect_message(failure, "third.sql: other.sql holds a projection other already");

    (void)snprintf(path, sizeof path, "%s/third.sql", app);
    assert_int_equal(unlink(path), 0);
    (void)snprintf(path, sizeof path, "%s/items.sql", app);
    assert_int_equal(unlink(path), 0);
    expect_ok(projections_load(projections, app, &failure));
    struct projection_status *list = NULL;
    size_t count = 0;
    expect_ok(projections_list(projections, &arena, &list, &count, &failure));
    assert_int_equal(count, 1);

    app_file("items.sql", ITEMS); /* it comes back, with the rows it had */
    expect_ok(projections_load(projections, app, &failure));
    expect_rows("a|1\n");
    end();
}

TEST(projections, the_schema_is_that_of_the_live_generations)
{
    begin();
    uint64_t before = projections_schema_version(projections), version = 0;
    add(ITEMS);
    struct projection_schema *list = NULL;
    size_t count = 0;
    expect_ok(projections_schema(projections, &arena, &list, &count, &version, &failure));
    assert_int_equal(count, 1);
    assert_true(version > before);
    expect_str(list[0].projection, "items");
    assert_int_equal(list[0].statement_count, 1);
    assert_true(str_starts_with(list[0].statements[0], DEED_STR("CREATE TABLE items")));
    expect_str(list[0].tables[0], "items");
    assert_ptr_equal(projections_store(projections), store);
    end();
}

/* ---- the past -------------------------------------------------------------------------------- */

TEST(projections, rows_as_they_were_at_each_position)
{
    begin();
    add(ITEMS);
    uint64_t first = added("a", 1);
    added("b", 2);
    uint64_t third = added("a", 3);
    uint64_t last = happens("Removed", "{\"id\":\"b\"}");
    run();

    static const char *const sql = "SELECT id, n FROM items ORDER BY id";
    assert_string_equal(rows_at(third, sql), "a|4\nb|2\n");
    assert_string_equal(rows_at(first, sql), "a|1\n");
    assert_string_equal(rows_at(last, sql), "a|4\n");
    assert_string_equal(rows_at(first - 1, sql), "");
    assert_string_equal(rows_at(third, sql), "a|4\nb|2\n");
    for (int round = 0; round < 3; round++) {
        for (uint64_t p = 1; p <= last; p++)
            (void)rows_at(p, sql);
    }
    assert_true(databases() <= 1 + 8);
    end();
}

TEST(projections, a_position_past_the_end_is_refused)
{
    begin();
    add(ITEMS);
    uint64_t last = added("a", 1);
    struct projection_lease *lease = NULL;
    const char *path = NULL;
    expect_status(DEED_INVALID, projections_lease(projections, DEED_STR("items"), last + 1, 100,
                                                  &lease, &path, NULL, &failure));
    expect_message(failure, "is past the log's end");
    expect_status(DEED_NOT_FOUND, projections_lease(projections, DEED_STR("x"), last, 100, &lease,
                                                    &path, NULL, &failure));
    expect_status(DEED_NOT_FOUND, projections_lease(projections, DEED_STR("x"), 0, 100, &lease,
                                                    &path, NULL, &failure));
    end();
}

TEST(projections, the_past_runs_out_of_time_and_goes_on_when_asked_again)
{
    begin();
    add(ITEMS);
    uint64_t last = 0;
    struct deed_new_event events[1000];
    for (size_t i = 0; i < 1000; i++) {
        events[i] =
            (struct deed_new_event){.stream = DEED_STR("thing-1"),
                                    .type = DEED_STR("Added"),
                                    .data = deed_bytes_of(DEED_STR("{\"id\":\"a\",\"n\":1}"))};
    }
    struct deed_append append = {.events = events, .event_count = 1000};
    struct deed_appended appended;
    for (int i = 0; i < 20; i++)
        expect_ok(store_append(store, &append, &appended, &failure));
    last = appended.position;

    struct projection_lease *lease = NULL;
    const char *path = NULL;
    uint64_t position = 0;
    expect_status(DEED_TIMEOUT, projections_lease(projections, DEED_STR("items"), last, 0, &lease,
                                                  &path, &position, &failure));
    expect_message(failure, "in time; asking again goes on from there");
    deed_status status = DEED_TIMEOUT;
    for (int i = 0; i < 1000 && status == DEED_TIMEOUT; i++) {
        status = projections_lease(projections, DEED_STR("items"), last, 5, &lease, &path,
                                   &position, &failure);
    }
    expect_ok(status);
    assert_int_equal(position, last);
    assert_string_equal(rows_of(path, "SELECT id, n FROM items"), "a|20000\n");
    projections_release(lease);
    end();
}

/* ---- at random ------------------------------------------------------------------------------- */

static uint64_t random_state;

static uint64_t random_below(uint64_t end)
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (random_state >> 33) % end;
}

/* One seed: events, restarts, rebuilds, pauses and questions about the past in any order; rows always
 * agree with sums kept here. */
static void live_through(uint64_t seed)
{
    int64_t sums[4] = {0}, past[4] = {0};
    uint64_t past_position = 0;
    random_state = seed;
    begin_with((struct projections_options){.no_threads = true,
                                            .batch_count_max = (uint32_t)random_below(7) + 1,
                                            .deliver_twice = random_below(2) == 0});
    add(ITEMS);
    char text[200];
    for (int i = 0; i < 120; i++) {
        switch (random_below(12)) {
        case 0:
            reopen();
            add(ITEMS);
            break;
        case 1:
            (void)!projections_rebuild(projections, DEED_STR("items"), false, &failure);
            break;
        case 2:
            (void)!projections_pause(projections, DEED_STR("items"), &failure);
            break;
        case 3:
            (void)!projections_resume(projections, DEED_STR("items"), &failure);
            break;
        case 4:
            (void)happens("Other", "{}");
            break;
        case 5:
            memcpy(past, sums, sizeof past);
            past_position = store_position(store);
            break;
        case 6:
        case 7:
            (void)projections_step(projections);
            break;
        default: {
            uint64_t which = random_below(4), n = random_below(100);
            const char name[2] = {(char)('a' + which), '\0'};
            (void)added(name, (int)n);
            sums[which] += (int64_t)n;
        }
        }
    }
    expect_ok(projections_resume(projections, DEED_STR("items"), &failure));
    run();
    static const char *const sql = "SELECT coalesce((SELECT n FROM items WHERE id = 'a'), 0), "
                                   "coalesce((SELECT n FROM items WHERE id = 'b'), 0), "
                                   "coalesce((SELECT n FROM items WHERE id = 'c'), 0), "
                                   "coalesce((SELECT n FROM items WHERE id = 'd'), 0)";
    for (int round = 0; round < 2; round++) {
        const int64_t *wanted = round == 0 ? sums : past;
        if (round == 1 && past_position == 0) break;
        (void)snprintf(text, sizeof text, "%d|%d|%d|%d\n", (int)wanted[0], (int)wanted[1],
                       (int)wanted[2], (int)wanted[3]);
        const char *rows = rows_at(round == 0 ? 0 : past_position, sql);
        if (strcmp(rows, text) != 0) {
            fail_msg("seed %llu, round %d: %s, not %s", (unsigned long long)seed, round, rows,
                     text);
        }
    }
    end();
}

TEST(projections, whatever_happens_the_rows_are_the_events)
{
    const char *given = getenv("SEED");
    uint64_t first = given == NULL ? 1 : strtoull(given, NULL, 10);
    for (uint64_t seed = first; seed < first + (given == NULL ? 60 : 1); seed++)
        live_through(seed);
}

/* ---- damage ---------------------------------------------------------------------------------- */

TEST(projections, a_missing_or_damaged_manifest_starts_again)
{
    begin();
    add(ITEMS);
    added("a", 1);
    run();
    close_both();
    open_both();
    write_file("items.manifest", "deedbook projection 1\ngeneration 7\ncrc32c 00000000\n");
    add(ITEMS);
    run();
    expect_rows("a|1\n");
    assert_int_equal(status_of("items").generation, 2);
    assert_int_equal(databases(), 1);

    close_both();
    open_both();
    write_file("items.manifest", "deedbook projection 2\ngeneration 2\n");
    expect_status(DEED_TOO_NEW,
                  projections_add(projections, DEED_STR("items.sql"), DEED_STR(ITEMS), &failure));
    expect_message(failure, "items.manifest: format 2, this version reads up to 1");
    end();
}

TEST(projections, a_manifest_without_its_file_starts_again)
{
    begin();
    add(ITEMS);
    added("a", 1);
    run();
    close_both();
    char path[200];
    (void)snprintf(path, sizeof path, "%s/projections/items.g1.db", folder);
    assert_int_equal(unlink(path), 0);
    open_both();
    add(ITEMS);
    run();
    expect_rows("a|1\n");
    end();
}

TEST(projections, a_power_cut_that_takes_the_write_ahead_log_costs_no_generation)
{
    begin();
    add(ITEMS);
    char path[200], log[220], kept[220];
    (void)snprintf(path, sizeof path, "%s/projections/items.g1.db", folder);
    (void)snprintf(log, sizeof log, "%s-wal", path);
    (void)snprintf(kept, sizeof kept, "%s.kept", path);
    copy_bytes(path, kept); /* what is in the database's file without its log */
    added("a", 1);
    run();
    close_both();
    (void)unlink(log);
    assert_int_equal(rename(kept, path), 0);

    open_both();
    add(ITEMS);
    run();
    assert_int_equal(status_of("items").state, PROJECTION_RUNNING);
    assert_int_equal(status_of("items").generation, 1);
    expect_rows("a|1\n");
    end();
}

TEST(projections, what_a_crash_left_is_removed)
{
    begin();
    add(ITEMS);
    added("a", 1);
    run();
    write_file("items.g9.db", "half");
    write_file("items.g9.db-wal", "half");
    write_file("items.t3.db", "half");
    write_file("items.g9.txt", "mine");
    write_file("itemsx.g9.db", "another's");
    reopen();
    add(ITEMS);
    assert_int_equal(databases(), 2);
    /* Numbers are not used again. */
    expect_ok(projections_rebuild(projections, DEED_STR("items"), false, &failure));
    run();
    assert_int_equal(status_of("items").generation, 10);
    end();
}

/* ---- damage ----------------------------------------------------------------------------------- */

static char not_a_database[] = "this is not a database, but it is long enough to be looked at as one, "
                               "as SQLite's own header has a hundred bytes and this has more.";

/* The read model of before, with its file spoiled while nobody had it open. */
static void damaged_meanwhile(void)
{
    close_both();
    open_both();
    write_file("items.g1.db", not_a_database);
    add(ITEMS);
}

static void expect_refused_lease(const char *message)
{
    struct projection_lease *lease = NULL;
    const char *path = NULL;
    expect_status(DEED_STOPPED, projections_lease(projections, DEED_STR("items"), 0, 0, &lease,
                                                  &path, NULL, &failure));
    expect_message(failure, message);
}

TEST(projections, a_damaged_file_is_rebuilt_unasked)
{
    begin();
    add(ITEMS);
    added("a", 1);
    uint64_t last = added("b", 2);
    run();
    damaged_meanwhile();
    struct projection_status s = status_of("items");
    assert_int_equal(s.state, PROJECTION_FAILED);
    assert_non_null(strstr(s.error.ptr, "file is not a database"));
    assert_true(s.rebuilding);
    expect_refused_lease("file is not a database; it is being rebuilt");
    expect_status(DEED_CONFLICT,
                  projections_rebuild(projections, DEED_STR("items"), false, &failure));
    /* Who waits for it gets what it wants. */
    expect_ok(projections_wait(projections, NULL, 0, last, 1000, &failure));
    expect_rows("a|1\nb|2\n");
    run();
    s = status_of("items");
    assert_int_equal(s.state, PROJECTION_RUNNING);
    assert_int_equal(s.generation, 2);
    assert_int_equal(s.error.len, 0);
    assert_int_equal(s.rebuild_error.len, 0);
    assert_int_equal(databases(), 1); /* the damaged one is gone */
    end();
}

/* All of it but what was read when it was opened. */
static void spoil_first_run(void)
{
    static const char zeros[4096];
    char path[200];
    (void)snprintf(path, sizeof path, "%s/index/0000000001-0000000001.run", folder);
    FILE *file = fopen(path, "r+b");
    assert_non_null(file);
    assert_int_equal(fseek(file, 0, SEEK_END), 0);
    long blocks = ftell(file) / 4096;
    rewind(file);
    for (long i = 0; i < blocks - 1; i++)
        assert_int_equal(fwrite(zeros, sizeof zeros, 1, file), 1);
    assert_int_equal(fclose(file), 0);
}

static void log_works(void)
{
    while (store_step(store))
        continue;
}

TEST(projections, a_damaged_index_is_waited_for)
{
    begin();
    log_options = (struct store_options){
        .unsafe_no_sync = true, .no_threads = true, .segment_size = 64 << 10};
    reopen();
    uint64_t last = 0;
    for (int i = 0; i < 40; i++)
        last = added("a", 1);
    log_works();
    reopen();
    spoil_first_run();

    /* The first reading of it, and a rebuild. */
    add(ITEMS);
    run();
    struct projection_status s = status_of("items");
    assert_int_equal(s.state, PROJECTION_RUNNING);
    assert_int_equal(s.position, 0);
    expect_ok(projections_rebuild(projections, DEED_STR("items"), false, &failure));
    run();
    assert_true(status_of("items").rebuilding);
    expect_status(DEED_TIMEOUT, projections_wait(projections, NULL, 0, last, 0, &failure));
    expect_message(failure, "projection items is at position 0, not yet at 41");

    /* A question about the past. */
    struct projection_lease *lease = NULL;
    const char *path = NULL;
    expect_status(DEED_BUSY, projections_lease(projections, DEED_STR("items"), 7, 1000, &lease,
                                               &path, NULL, &failure));
    expect_message(failure, "the index is being rebuilt; ask again in a while");

    log_works();
    run();
    s = status_of("items");
    assert_int_equal(s.generation, 2);
    assert_int_equal(s.lag, 0);
    expect_rows("a|40\n");
    expect_ok(projections_lease(projections, DEED_STR("items"), 7, 1000, &lease, &path, NULL,
                                &failure));
    projections_release(lease);
    end();
}

TEST(projections, a_damaged_file_whose_events_are_removed_waits_for_force)
{
    begin();
    add(ITEMS);
    added("a", 1), added("b", 2), added("c", 4);
    run();
    b_is_removed();
    damaged_meanwhile();
    run();
    struct projection_status s = status_of("items");
    assert_int_equal(s.state, PROJECTION_FAILED);
    assert_false(s.rebuilding);
    assert_non_null(strstr(s.error.ptr, "file is not a database"));
    assert_non_null(strstr(s.rebuild_error.ptr, "event 3: the Added is removed"));
    expect_refused_lease("file is not a database; it could not be rebuilt: event 3: the Added");
    run();
    assert_int_equal(status_of("items").state, PROJECTION_FAILED); /* and that is that */

    expect_ok(projections_rebuild(projections, DEED_STR("items"), true, &failure));
    run();
    expect_rows("a|1\nc|4\n");
    assert_int_equal(status_of("items").removed_events, 1);
    end();
}

TEST(projections, what_is_damaged_again_at_once_is_rebuilt_a_minute_later)
{
    begin();
    add(ITEMS);
    added("a", 1);
    run();
    damaged_meanwhile();
    run();
    assert_int_equal(status_of("items").generation, 2);
    struct projection_lease *lease = NULL;
    const char *path = NULL;
    expect_ok(projections_lease(projections, DEED_STR("items"), 0, 0, &lease, &path, NULL,
                                &failure));
    projections_damaged(lease, "page 3 is damaged");
    expect_refused_lease("page 3 is damaged; it is about to be rebuilt");
    run();
    projections_damaged(lease, "page 4 is damaged"); /* the file is closed already */
    run();
    projections_release(lease);
    struct projection_status s = status_of("items");
    assert_int_equal(s.state, PROJECTION_FAILED);
    assert_false(s.rebuilding);
    assert_non_null(strstr(s.error.ptr, "page 3 is damaged"));
    assert_non_null(strstr(s.rebuild_error.ptr, "the next rebuild waits"));
    /* Unless somebody asks. */
    expect_ok(projections_rebuild(projections, DEED_STR("items"), false, &failure));
    run();
    assert_int_equal(status_of("items").generation, 3);
    assert_int_equal(status_of("items").state, PROJECTION_RUNNING);
    expect_rows("a|1\n");
    end();
}

TEST(projections, a_paused_one_that_is_damaged_is_rebuilt_when_it_goes_on)
{
    begin();
    add(ITEMS);
    added("a", 1);
    run();
    expect_ok(projections_pause(projections, DEED_STR("items"), &failure));
    run();
    struct projection_lease *lease = NULL;
    const char *path = NULL;
    expect_ok(projections_lease(projections, DEED_STR("items"), 0, 0, &lease, &path, NULL,
                                &failure));
    projections_damaged(lease, "page 3 is damaged");
    projections_release(lease);
    run();
    assert_int_equal(status_of("items").state, PROJECTION_PAUSED);
    assert_int_equal(status_of("items").generation, 1);
    expect_ok(projections_resume(projections, DEED_STR("items"), &failure));
    run();
    assert_int_equal(status_of("items").generation, 2);
    expect_rows("a|1\n");
    end();
}

static void flip_page(const char *name, long page, long at)
{
    char path[200];
    (void)snprintf(path, sizeof path, "%s/projections/%s", folder, name);
    FILE *file = fopen(path, "r+b");
    assert_non_null(file);
    assert_int_equal(fseek(file, page * 4096 + at, SEEK_SET), 0);
    int byte = fgetc(file);
    assert_int_equal(fseek(file, page * 4096 + at, SEEK_SET), 0);
    assert_int_equal(fputc(byte ^ 64, file), byte ^ 64);
    assert_int_equal(fclose(file), 0);
}

/* Whichever page of it is damaged, found at opening, while folding, or by nobody: the rows are right. */
TEST(projections, a_flipped_bit_in_any_page_is_never_a_row)
{
    begin();
    add(ITEMS);
    for (int i = 0; i < 300; i++) {
        char id[64];
        (void)snprintf(id, sizeof id, "%03d-which-is-rather-long-for-a-name", i);
        added(id, i);
    }
    run();
    char rows[16384];
    (void)snprintf(rows, sizeof rows, "%s", rows_at(0, "SELECT id, n FROM items ORDER BY id"));
    unsigned rebuilt = 0;
    for (long page = 0;; page++) {
        char name[40];
        uint64_t generation = status_of("items").generation;
        if (page * 4096 >= (long)status_of("items").size) break;
        close_both();
        (void)snprintf(name, sizeof name, "items.g%llu.db", (unsigned long long)generation);
        flip_page(name, page, 900 + 37 * page);
        open_both();
        add(ITEMS);
        added("000-which-is-rather-long-for-a-name", 0);
        added("150-which-is-rather-long-for-a-name", 0);
        added("299-which-is-rather-long-for-a-name", 0);
        run();
        assert_int_equal(status_of("items").state, PROJECTION_RUNNING);
        if (status_of("items").generation == generation) {
            /* Nobody came by: a whole look does. */
            struct projection_lease *lease = NULL;
            const char *path = NULL;
            expect_ok(projections_lease(projections, DEED_STR("items"), 0, 0, &lease, &path, NULL,
                                        &failure));
            struct database *db = NULL;
            struct database_options look = {.path = path, .read_only = true};
            expect_ok(database_open(os_real(), &look, &db, &failure));
            expect_status(DEED_CORRUPT, database_run(db, DATABASE_TRUSTED,
                                                     "PRAGMA integrity_check", &failure));
            database_close(db);
            projections_damaged(lease, failure.message);
            projections_release(lease);
            run();
        }
        assert_int_equal(status_of("items").generation, generation + 1);
        assert_string_equal(rows_at(0, "SELECT id, n FROM items ORDER BY id"), rows);
        rebuilt++;
    }
    assert_true(rebuilt >= 8);
    end();
}

static void run_sql(const char *sql)
{
    char path[200];
    struct database *db = NULL;
    (void)snprintf(path, sizeof path, "%s/projections/items.g1.db", folder);
    struct database_options how = {.path = path};
    expect_ok(database_open(os_real(), &how, &db, &failure));
    if (database_run(db, DATABASE_TRUSTED, sql, &failure) != DEED_OK) {
        fail_msg("%s: %s", sql, failure.message);
    }
    database_close(db);
}

static void expect_refused(const char *sql, const char *message, bool mends)
{
    begin();
    add(ITEMS);
    added("a", 1);
    run();
    close_both();
    run_sql(sql);
    open_both();
    add(ITEMS);
    if (!mends) run();
    struct projection_status s = status_of("items");
    assert_int_equal(s.state, PROJECTION_FAILED);
    if (strstr(s.error.ptr, message) == NULL) fail_msg("%s lacks %s", s.error.ptr, message);
    if (!mends) expect_ok(projections_rebuild(projections, DEED_STR("items"), false, &failure));
    run();
    expect_rows("a|1\n");
    end();
}

TEST(projections, a_stale_checkpoint_is_refused)
{
    expect_refused("UPDATE _deedbook_checkpoint SET log_id = "
                   "'01234567-89ab-cdef-0123-456789abcdef'",
                   "its rows were made from another log: rebuild it", false);
    expect_refused("UPDATE _deedbook_checkpoint SET epoch = epoch + 1", "of the log, which is in",
                   false);
    expect_refused("UPDATE _deedbook_checkpoint SET position = 1000",
                   "its rows have seen position 1000, but the log ends at", false);
    expect_refused("UPDATE _deedbook_file SET format = 9", "format 9, this version reads up to 1",
                   false);
}

TEST(projections, a_file_that_lacks_a_part_is_rebuilt)
{
    static const char message[] = "not a read model of Deedbook's";
    expect_refused("DELETE FROM _deedbook_checkpoint", message, true);
    expect_refused("DROP TABLE _deedbook_checkpoint", message, true);
    expect_refused("DROP TABLE _deedbook_file", message, true);
}

/* A write past the limit fails as on a full disk. */
static void limit_files(rlim_t size)
{
    struct rlimit limit;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
    limit.rlim_cur = size;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

TEST(projections, storage_that_fails_is_shown_and_tried_again)
{
    begin();
    add(ITEMS);
    added("a", 1);
    run();
    uint64_t last = added("b", 2);
    (void)signal(SIGXFSZ, SIG_IGN);
    limit_files(1024);
    run();
    limit_files(RLIM_INFINITY);
    struct projection_status s = status_of("items");
    assert_int_equal(s.state, PROJECTION_FAILED);
    assert_int_equal(s.position, last - 1);
    assert_true(s.error.len > 0);
    assert_int_equal(s.error_statement.len, 0);
    (void)projections_step(projections); /* not yet due */
    assert_int_equal(status_of("items").state, PROJECTION_FAILED);

    expect_ok(projections_resume(projections, DEED_STR("items"), &failure));
    run();
    expect_rows("a|1\nb|2\n");
    assert_int_equal(status_of("items").state, PROJECTION_RUNNING);
    end();
}

static bool comes_to(enum projection_state state, unsigned seconds)
{
    for (unsigned i = 0; i < seconds * 20; i++) {
        if (status_of("items").state == state) return true;
        (void)usleep(50000);
    }
    return false;
}

/* Nothing is appended meanwhile, and nobody resumes it. */
TEST(projections, storage_that_is_well_again_is_found_so_without_being_asked)
{
    begin_with((struct projections_options){0});
    add(ITEMS);
    uint64_t first = added("a", 1);
    expect_ok(projections_wait(projections, NULL, 0, first, 5000, &failure));
    expect_ok(projections_pause(projections, DEED_STR("items"), &failure));
    assert_true(comes_to(PROJECTION_PAUSED, 5));
    (void)added("b", 2);
    (void)signal(SIGXFSZ, SIG_IGN);
    limit_files(1024);
    expect_ok(projections_resume(projections, DEED_STR("items"), &failure));
    bool failed = comes_to(PROJECTION_FAILED, 5);
    limit_files(RLIM_INFINITY);
    assert_true(failed);
    assert_true(comes_to(PROJECTION_RUNNING, 15));
    expect_ok(projections_wait(projections, NULL, 0, first + 1, 5000, &failure));
    expect_rows("a|1\nb|2\n");
    end();
}

TEST(projections, a_statement_that_does_not_end_ends_with_the_set)
{
    begin_with((struct projections_options){0});
    add("-- projection: items\n-- tables\nCREATE TABLE items (id TEXT PRIMARY KEY, n INTEGER);\n"
        "-- on Added\nINSERT INTO items WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 "
        "FROM "
        "n) SELECT 'x', max(i) FROM n;\n");
    added("a", 1);
    expect_status(DEED_TIMEOUT, projections_wait(projections, NULL, 0, 2, 50, &failure));
    end();
}

TEST(projections, a_stored_text_that_is_no_longer_accepted_is_replaced)
{
    begin();
    add(ITEMS);
    added("a", 1);
    run();
    close_both();
    run_sql("UPDATE _deedbook_file SET text = '-- projection: items'");
    open_both();
    add(ITEMS);
    run();
    expect_rows("a|1\n");
    assert_int_equal(status_of("items").generation, 2);
    end();
}

TEST_MAIN(projections)
