/* Questions to read models: what they answer, refuse, and cost. */
#include "query/queries.h"

#include "test.h"

#include <ftw.h>
#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

#define ITEMS                                                                                      \
    "-- projection: items\n-- tables\n"                                                            \
    "CREATE TABLE items (id TEXT PRIMARY KEY, n INTEGER, v);\n"                                    \
    "CREATE VIEW many AS SELECT id FROM items WHERE n > 1;\n"                                      \
    "-- on Added\n"                                                                                \
    "INSERT INTO items VALUES (:data.id, :data.n?, :data.v?) ON CONFLICT (id) DO UPDATE SET n = "  \
    "n + "                                                                                         \
    ":data.n?;\n"
#define OTHERS                                                                                     \
    "-- projection: others\n-- tables\nCREATE TABLE others (at INTEGER PRIMARY KEY, id TEXT);\n"   \
    "-- on Added\nINSERT INTO others VALUES (:position, :data.id);\n"

/* ---- the fixture's verbs --------------------------------------------------------------------- */

static char folder[64];
static struct store *store;
static struct projections *projections;
static struct queries *queries;
static struct deed_error failure;
static struct arena arena;
static struct buf out;
static uint64_t position; /* of the last answer */
static bool deliver_twice;

static int remove_one(const char *path, const struct stat *s, int flag, struct FTW *ftw)
{
    (void)s, (void)flag, (void)ftw;
    return remove(path);
}

static void begin_with(struct queries_options options)
{
    struct store_options store_options = {.unsafe_no_sync = true};
    (void)snprintf(folder, sizeof folder, "/tmp/deed-queries-XXXXXX");
    assert_non_null(mkdtemp(folder));
    failure = (struct deed_error){0};
    expect_ok(store_open(os_real(), folder, &store_options, &store, &failure));
    struct projections_options projections_options = {.batch_count_max = 3,
                                                      .deliver_twice = deliver_twice};
    expect_ok(projections_open(store, deliver_twice ? &projections_options : NULL, &projections,
                               &failure));
    expect_ok(queries_open(projections, &options, &queries, &failure));
    arena_init(&arena, 64u << 20);
    buf_init(&out, 64u << 20);
}

static void begin(void)
{
    begin_with((struct queries_options){0});
}

static void end(void)
{
    queries_close(queries);
    projections_close(projections);
    store_close(store);
    arena_done(&arena);
    buf_done(&out);
    assert_int_equal(nftw(folder, remove_one, 16, FTW_DEPTH | FTW_PHYS), 0);
}

static uint64_t happens(const char *stream, const char *type, const char *data)
{
    struct deed_new_event event = {.stream = deed_str_of(stream),
                                   .type = deed_str_of(type),
                                   .data = deed_bytes_of(deed_str_of(data))};
    struct deed_append append = {.events = &event, .event_count = 1};
    struct deed_appended appended;
    deed_status status = store_append(store, &append, &appended, &failure);
    if (status != DEED_OK) fail_msg("append: %s", failure.message);
    return appended.position;
}

static uint64_t added(const char *id, const char *n)
{
    char data[200];
    (void)snprintf(data, sizeof data, "{\"id\":\"%s\",\"n\":%s}", id, n);
    return happens("thing-1", "Added", data);
}

static void project(const char *text)
{
    deed_status status =
        projections_add(projections, DEED_STR("p.sql"), deed_str_of(text), &failure);
    if (status != DEED_OK) fail_msg("project: %s", failure.message);
}

static void define(const char *name, const char *sql)
{
    deed_status status = queries_add(queries, deed_str_of(name), deed_str_of(sql), &failure);
    if (status != DEED_OK) fail_msg("define: %s", failure.message);
}

static void refuses(const char *sql, const char *message)
{
    if (queries_add(queries, DEED_STR("q"), deed_str_of(sql), &failure) != DEED_INVALID) {
        fail_msg("accepted: %s", sql);
    }
    expect_message(failure, message);
    expect_message(failure, "query q: ");
}

/* Parameters as "name=value", up to three. */
static struct deed_query_options with(const char *a, const char *b, const char *c)
{
    static struct deed_parameter parameters[3];
    const char *given[] = {a, b, c};
    size_t count = 0;
    for (; count < 3 && given[count] != NULL; count++) {
        const char *equals = strchr(given[count], '=');
        parameters[count] =
            (struct deed_parameter){.name = {given[count], (size_t)(equals - given[count])},
                                    .value = deed_str_of(equals + 1)};
    }
    return (struct deed_query_options){.parameters = parameters, .parameter_count = count};
}

static deed_status ask(const char *name, struct deed_query_options options)
{
    if (options.after == 0 && options.position == 0) options.after = store_position(store);
    buf_reset(&out);
    position = 0;
    return queries_run(queries, deed_str_of(name), &options, &out, &position, &failure);
}

static void answers(const char *name, struct deed_query_options options, const char *json)
{
    deed_status status = ask(name, options);
    if (status != DEED_OK) fail_msg("%s", failure.message);
    buf_add_byte(&out, 0);
    assert_string_equal((const char *)out.ptr, json);
}

static const struct deed_query_options plain;

/* ---- answering ------------------------------------------------------------------------------- */

TEST(queries, rows_become_objects)
{
    begin();
    project(ITEMS);
    define("all", "-- Everything.\n-- In order.\nSELECT id, n FROM items ORDER BY id");
    added("a", "1");
    added("b", "2");
    uint64_t last = added("a", "10");

    answers("all", plain, "[{\"id\":\"a\",\"n\":11},{\"id\":\"b\",\"n\":2}]");
    assert_int_equal(position, last);
    answers("all", plain, "[{\"id\":\"a\",\"n\":11},{\"id\":\"b\",\"n\":2}]");
    struct query_description *list = NULL;
    size_t count = 0;
    expect_ok(queries_list(queries, &arena, &list, &count, &failure));
    assert_int_equal(count, 1);
    expect_str(list[0].name, "all");
    expect_str(list[0].comment, "Everything.\nIn order.");
    assert_int_equal(list[0].projection_count, 1);
    expect_str(list[0].projections[0], "items");
    struct query_metrics metrics;
    queries_get_metrics(queries, &metrics);
    assert_int_equal(metrics.queries, 2);
    assert_int_equal(metrics.rows, 4);
    assert_int_equal(metrics.run.count, 2);
    end();
}

TEST(queries, values_keep_their_kind_and_every_digit)
{
    begin();
    project(ITEMS);
    define("all", "SELECT v FROM items ORDER BY id");
    define("odd",
           "SELECT x'00ff10' AS blob, CAST(x'61ff62c3' AS TEXT) AS bad, CAST(x'' AS TEXT) AS none,"
           " x'' AS empty, 9223372036854775807 AS big, 1e999 AS inf, 0.1 AS tenth");
    static const char *const values[] = {
        "9007199254740993", "-0.25", "\"q\\\"\\u0001é\"", "null", "1e300", "\"\""};
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
        char data[200];
        (void)snprintf(data, sizeof data, "{\"id\":\"%zu\",\"v\":%s}", i, values[i]);
        happens("t-1", "Added", data);
    }
    answers("all", plain,
            "[{\"v\":9007199254740993},{\"v\":-0.25},{\"v\":\"q\\\"\\u0001é\"},{\"v\":null},"
            "{\"v\":1e+300},{\"v\":\"\"}]");
    answers("odd", plain,
            "[{\"blob\":\"AP8Q\",\"bad\":\"a\xEF\xBF\xBD"
            "b\xEF\xBF\xBD\",\"none\":\"\",\"empty\":\"\",\"big\":9223372036854775807,"
            "\"inf\":null,\"tenth\":0.1}]");
    assert_int_equal(position, store_position(store)); /* of no projection: the log's end */
    end();
}

TEST(queries, several_projections_and_views_side_by_side)
{
    begin();
    project(ITEMS);
    project(OTHERS);
    define("join", "SELECT i.id, count(*) AS times FROM items i JOIN others o ON o.id = i.id "
                   "GROUP BY i.id ORDER BY i.id");
    define("view", "SELECT count(*) AS n FROM many");
    define("steps", "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3) "
                    "SELECT count(*) AS n FROM n");
    define("parts", "SELECT value FROM json_each('[1,2]')");
    added("a", "1");
    added("a", "2");
    added("b", "1");

    answers("join", plain, "[{\"id\":\"a\",\"times\":2},{\"id\":\"b\",\"times\":1}]");
    answers("view", plain, "[{\"n\":1}]");
    answers("steps", plain, "[{\"n\":3}]");
    answers("parts", plain, "[{\"value\":1},{\"value\":2}]");
    end();
}

TEST(queries, parameters_are_named_when_wrong)
{
    begin();
    project(ITEMS);
    define("q",
           "SELECT id FROM items WHERE n >= :low AND n <= :high AND (:id? IS NULL OR id = :id?) "
           "ORDER BY id");
    added("a", "1");
    added("b", "2");
    added("c", "3");

    answers("q", with("low=1", "high=10", NULL), "[{\"id\":\"a\"},{\"id\":\"b\"},{\"id\":\"c\"}]");
    answers("q", with("low=2", "high=2", NULL), "[{\"id\":\"b\"}]");
    answers("q", with("low=1", "high=10", "id=c"), "[{\"id\":\"c\"}]");
    answers("q", with("low=1", "high=10", "id="), "[]");
    expect_status(DEED_INVALID, ask("q", plain));
    expect_message(failure, "query q: missing parameters: low, high");
    expect_status(DEED_INVALID, ask("q", with("low=1", "x=1", "y=2")));
    expect_message(failure, "query q: missing parameters: high; unknown parameters: x, y");
    expect_status(DEED_INVALID, ask("q", with("low=1", "high=1", "low=2")));
    expect_message(failure, "parameters given twice: low");
    expect_status(DEED_INVALID, ask("q", with("low=1", "high=\xff", NULL)));
    expect_message(failure, "parameter high is not UTF-8");
    struct query_description *list = NULL;
    size_t count = 0;
    expect_ok(queries_list(queries, &arena, &list, &count, &failure));
    assert_int_equal(list[0].parameter_count, 3);
    expect_str(list[0].parameters[0], "low");
    expect_str(list[0].parameters[2], "id?");
    expect_status(DEED_NOT_FOUND, ask("none", plain));
    expect_message(failure, "there is no query none");
    end();
}

/* ---- refusing -------------------------------------------------------------------------------- */

TEST(queries, only_one_select_is_a_query)
{
    begin();
    project(ITEMS);
    refuses("", "there is no SELECT");
    refuses("-- nothing", "there is no SELECT");
    refuses("SELECT 1 AS a; SELECT 2 AS b", "line 1: a second statement");
    refuses("DELETE FROM items", "line 1: DELETE is not allowed in a query");
    refuses("WITH a AS (SELECT 1) DELETE FROM items", "line 1: ");
    refuses("WITH a AS (SELECT 1) INSERT INTO items SELECT 'x', 1, 2",
            "line 1: INSERT is not allowed");
    refuses("PRAGMA user_version", "PRAGMA is not allowed in a query");
    refuses("ATTACH 'x' AS y", "ATTACH is not allowed in a query");
    refuses("EXPLAIN SELECT 1", "EXPLAIN is not allowed in a query");
    refuses("VACUUM INTO 'x'", "VACUUM is not allowed in a query");
    refuses("\n\nSELECT missing FROM items", "line 3: no such column: missing");
    refuses("SELECT FROM items", "line 1: near \"FROM\": syntax error");
    refuses("SELECT 1 AS a, 2 AS a", "two columns are called \"a\": name them with AS");
    refuses("SELECT :at AS x", "parameter :at: every query has that one");
    refuses("SELECT :timeout? AS x", "parameter :timeout: every query has that one");
    refuses("SELECT :a.b AS x", "a query's parameters have no '.'");
    refuses("SELECT :a AS x, :a? AS y", "parameter :a is written both with and without '?'");
    refuses("SELECT name FROM sqlite_master", "the table sqlite_master is reserved");
    define("ours", "SELECT position FROM _deedbook_checkpoint");
    expect_status(DEED_STOPPED, ask("ours", plain));
    define("ours", "SELECT (SELECT position FROM _deedbook_checkpoint) AS p FROM items");
    expect_status(DEED_STOPPED, ask("ours", plain));
    refuses("SELECT name FROM pragma_table_info('items')", "reserved");
    refuses("SELECT load_extension('x') AS x", "the function load_extension is not allowed");
    refuses("SELECT sqlite_compileoption_get(1) AS x", "is not allowed");
    refuses("SELECT id FROM items WHERE id = \"text\"", "no such column: text");
    assert_int_equal(queries_add(queries, DEED_STR("a b"), DEED_STR("SELECT 1"), &failure),
                     DEED_INVALID);
    expect_message(failure, "query name \"a b\"");
    static char text[(1u << 20) + 2];
    memset(text, ' ', sizeof text - 1);
    expect_status(DEED_TOO_LARGE, queries_add(queries, DEED_STR("q"), deed_str_of(text), &failure));
    define(
        "now",
        "SELECT date('now') > '2020' AS x, random() IS NOT NULL AS y, CURRENT_DATE > '2020' AS z");
    answers("now", plain, "[{\"x\":1,\"y\":1,\"z\":1}]");
    end();
}

TEST(queries, a_table_that_is_not_there_may_come)
{
    begin();
    define("later", "SELECT id FROM items");
    expect_status(DEED_STOPPED, ask("later", plain));
    expect_message(failure, "query later cannot run: line 1: no such table: items");
    project(ITEMS);
    added("a", "1");
    answers("later", plain, "[{\"id\":\"a\"}]");
    end();
}

TEST(queries, a_query_is_replaced_whole)
{
    begin();
    project(ITEMS);
    added("a", "1");
    define("q", "SELECT 1 AS x");
    answers("q", plain, "[{\"x\":1}]");
    define("q", "SELECT id FROM items");
    answers("q", plain, "[{\"id\":\"a\"}]");
    refuses("SELECT", "line 1: incomplete input");
    answers("q", plain, "[{\"id\":\"a\"}]");
    end();
}

TEST(queries, tables_that_change_change_the_answer)
{
    begin();
    project(ITEMS);
    define("q", "SELECT * FROM items");
    added("a", "1");
    answers("q", plain, "[{\"id\":\"a\",\"n\":1,\"v\":null}]");
    project(
        "-- projection: items\n-- tables\nCREATE TABLE items (id TEXT PRIMARY KEY);\n-- on Added\n"
        "INSERT INTO items VALUES (:data.id);\n");
    bool changed = false;
    for (int i = 0; i < 2000 && !changed; i++) {
        expect_ok(ask("q", plain));
        changed = strncmp((const char *)out.ptr, "[{\"id\":\"a\"}]", out.len) == 0;
        usleep(1000);
    }
    assert_true(changed);

    define("n", "SELECT id FROM items");
    project(
        "-- projection: items\n-- tables\nCREATE TABLE things (id TEXT PRIMARY KEY);\n-- on Added\n"
        "INSERT INTO things VALUES (:data.id);\n");
    deed_status status = DEED_OK;
    for (int i = 0; i < 2000 && status == DEED_OK; i++) {
        status = ask("n", plain);
        usleep(1000);
    }
    assert_int_equal(status, DEED_STOPPED);
    expect_message(failure, "no such table: items");
    end();
}

/* ---- limits ---------------------------------------------------------------------------------- */

TEST(queries, rows_bytes_and_time_are_limited)
{
    begin_with((struct queries_options){.row_count_max = 3, .size_max = 200, .timeout_ms = 50});
    define("three", "VALUES (1), (2), (3)");
    define("four", "VALUES (1), (2), (3), (4)");
    define("large", "SELECT printf('%0300d', 1) AS x");
    define("endless", "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) "
                      "SELECT count(*) AS n FROM n");
    answers("three", plain, "[{\"column1\":1},{\"column1\":2},{\"column1\":3}]");
    expect_status(DEED_TOO_LARGE, ask("four", plain));
    expect_message(failure, "query four: more than 3 rows");
    assert_int_equal(out.len, 0);
    expect_status(DEED_TOO_LARGE, ask("large", plain));
    expect_message(failure, "query large: the answer is over its limit of 200 bytes");
    struct deed_query_options options = {.timeout_ms = 60000};
    expect_status(DEED_TIMEOUT, ask("endless", options));
    expect_message(failure, "query endless: it ran too long");
    answers("three", plain, "[{\"column1\":1},{\"column1\":2},{\"column1\":3}]");
    struct query_metrics metrics;
    queries_get_metrics(queries, &metrics);
    assert_int_equal(metrics.failed, 3);
    end();
}

TEST(queries, what_sqlite_makes_of_parameters_is_told)
{
    begin();
    define("json", "SELECT value FROM json_each(:text)");
    define("sum", "SELECT sum(value) AS s FROM json_each(:list)");
    answers("json", with("text=[1]", NULL, NULL), "[{\"value\":1}]");
    expect_status(DEED_INVALID, ask("json", with("text=[", NULL, NULL)));
    expect_message(failure, "query json: malformed JSON");
    expect_status(DEED_INVALID, ask("sum", with("list=[9223372036854775807,1]", NULL, NULL)));
    expect_message(failure, "query sum: integer overflow");
    answers("sum", with("list=[1]", NULL, NULL), "[{\"s\":1}]");
    end();
}

/* ---- consistency ----------------------------------------------------------------------------- */

TEST(queries, waiting_for_a_position_that_does_not_come)
{
    begin();
    project(ITEMS);
    define("q", "SELECT id FROM items");
    uint64_t last = added("a", "1");
    struct deed_query_options options = {.after = last + 1, .timeout_ms = 30};
    expect_status(DEED_TIMEOUT, ask("q", options));
    expect_message(failure, "query q: projection items is at position");

    /* Where nothing matches, the place still moves on. */
    last = happens("x-1", "Other", "{}");
    options = (struct deed_query_options){.after = last, .timeout_ms = 5000};
    answers("q", options, "[{\"id\":\"a\"}]");
    assert_int_equal(position, last);
    end();
}

TEST(queries, a_failed_projection_stops_its_queries_only)
{
    begin();
    project(
        "-- projection: items\n-- tables\nCREATE TABLE items (id TEXT PRIMARY KEY);\n-- on Added\n"
        "INSERT INTO items VALUES (:data.id);\n");
    project(OTHERS);
    define("q", "SELECT id FROM items");
    define("o", "SELECT count(*) AS n FROM others");
    added("a", "1");
    uint64_t bad = added("a", "1");
    expect_status(DEED_STOPPED, ask("q", plain));
    char message[100];
    (void)snprintf(message, sizeof message,
                   "query q: projection items has failed on event %d: line 5: UNIQUE", (int)bad);
    expect_message(failure, message);
    answers("o", plain, "[{\"n\":2}]");
    end();
}

TEST(queries, answers_as_of_a_position)
{
    begin();
    project(ITEMS);
    project(OTHERS);
    define("q", "SELECT id, n FROM items ORDER BY id");
    define("both",
           "SELECT (SELECT count(*) FROM items) AS items, (SELECT count(*) FROM others) AS others");
    uint64_t first = added("a", "1");
    uint64_t second = added("b", "2");
    uint64_t third = added("a", "3");

    answers("q", (struct deed_query_options){.position = second},
            "[{\"id\":\"a\",\"n\":1},{\"id\":\"b\",\"n\":2}]");
    assert_int_equal(position, second);
    answers("both", (struct deed_query_options){.position = third}, "[{\"items\":2,\"others\":3}]");
    answers("both", (struct deed_query_options){.position = first}, "[{\"items\":1,\"others\":1}]");
    answers("q", (struct deed_query_options){.position = first - 1}, "[]");
    expect_status(DEED_INVALID, ask("q", (struct deed_query_options){.position = third + 1}));
    expect_message(failure, "is past the log's end");
    end();
}

static atomic_bool stop_asking;
static _Atomic deed_status asking_failed;

static void *ask_again_and_again(void *context)
{
    (void)context;
    struct buf mine;
    buf_init(&mine, 1u << 20);
    uint64_t last = 0;
    while (!atomic_load(&stop_asking) && asking_failed == DEED_OK) {
        struct deed_query_options options = {.timeout_ms = 5000};
        struct deed_error err;
        uint64_t at = 0;
        buf_reset(&mine);
        deed_status status = queries_run(queries, DEED_STR("same"), &options, &mine, &at, &err);
        /* Rows and position go together, and never back. */
        bool same = mine.len == strlen("[{\"same\":1}]");
        if (status != DEED_OK || !same || at < last) asking_failed = DEED_UNKNOWN;
        last = at;
    }
    buf_done(&mine);
    return NULL;
}

/* Every page that a file of this generation has, in it or in SQLite's log, loses a bit. */
static void damage(const char *name, long first, long step)
{
    char path[200];
    (void)snprintf(path, sizeof path, "%s/projections/%s", folder, name);
    FILE *file = fopen(path, "r+b");
    if (file == NULL) fail_msg("no %s", name);
    assert_int_equal(fseek(file, 0, SEEK_END), 0);
    long size = ftell(file), flipped = 0;
    for (long at = first + 4000; at < size; at += step) {
        assert_int_equal(fseek(file, at, SEEK_SET), 0);
        int byte = fgetc(file);
        assert_int_equal(fseek(file, at, SEEK_SET), 0);
        assert_int_equal(fputc(byte ^ 1, file), byte ^ 1);
        flipped++;
    }
    assert_true(flipped > 0);
    assert_int_equal(fclose(file), 0);
}

static uint64_t generation_of(const char *name)
{
    struct projection_status *list = NULL;
    size_t count = 0;
    arena_reset(&arena);
    expect_ok(projections_list(projections, &arena, &list, &count, &failure));
    for (size_t i = 0; i < count; i++) {
        if (deed_str_equal(list[i].name, deed_str_of(name))) return list[i].generation;
    }
    fail_msg("no projection %s", name);
    return 0;
}

TEST(queries, damage_that_a_query_meets_is_mended_and_never_answered)
{
    begin();
    project(ITEMS);
    project(OTHERS);
    define("both", "SELECT i.id, n, at FROM items i JOIN others o ON i.id = o.id ORDER BY at");
    added("a", "1"), added("b", "2");
    static const char rows[] = "[{\"id\":\"a\",\"n\":1,\"at\":2},{\"id\":\"b\",\"n\":2,\"at\":3}]";
    answers("both", plain, rows);
    damage("others.g1.db-wal", 32, 4120);
    answers("both", plain, rows); /* what it has read is in its memory, and right */
    /* A new connection reads the file: who waits for it gets the rows that were made anew. */
    define("again", "SELECT i.id, n, at FROM items i JOIN others o ON i.id = o.id ORDER BY at");
    answers("again", plain, rows);
    assert_int_equal(generation_of("others"), 2);
    assert_int_equal(generation_of("items"), 1); /* that one is sound */

    /* Who does not wait is told. */
    queries_close(queries);
    projections_close(projections); /* which brings SQLite's log over */
    expect_ok(projections_open(store, NULL, &projections, &failure));
    expect_ok(queries_open(projections, NULL, &queries, &failure));
    project(ITEMS);
    define("items", "SELECT id, n FROM items ORDER BY id");
    static const char items[] = "[{\"id\":\"a\",\"n\":1},{\"id\":\"b\",\"n\":2}]";
    damage("items.g1.db", 4096, 4096);
    buf_reset(&out);
    expect_status(DEED_STOPPED, queries_run(queries, DEED_STR("items"), &plain, &out, NULL, &failure));
    expect_message(failure, "projection items has failed: items.g1.db: page ");
    expect_message(failure, "rebuilt");
    answers("items", plain, items);
    assert_int_equal(generation_of("items"), 2);
    end();
}

TEST(queries, a_damaged_past_is_folded_anew)
{
    begin();
    project(ITEMS);
    define("all", "SELECT id, n FROM items ORDER BY id");
    uint64_t first = added("a", "1");
    uint64_t second = added("b", "2");
    (void)added("a", "5");
    struct deed_query_options past = {.position = first};
    answers("all", past, "[{\"id\":\"a\",\"n\":1}]");
    damage("items.t1.db", 0, 4096);
    answers("all", past, "[{\"id\":\"a\",\"n\":1}]");
    /* And where it would have been carried on. */
    damage("items.t2.db", 0, 4096);
    past.position = second;
    answers("all", past, "[{\"id\":\"a\",\"n\":1},{\"id\":\"b\",\"n\":2}]");
    answers("all", plain, "[{\"id\":\"a\",\"n\":6},{\"id\":\"b\",\"n\":2}]");
    assert_int_equal(generation_of("items"), 1);
    end();
}

TEST(queries, readers_beside_a_writer_and_a_rebuild)
{
    begin();
    project(ITEMS);
    define("same", "SELECT coalesce(sum(n), 0) >= 0 AS same FROM items");
    added("a", "1");
    expect_ok(ask("same", plain));
    atomic_store(&stop_asking, false);
    asking_failed = DEED_OK;
    pthread_t threads[3];
    for (int i = 0; i < 3; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, ask_again_and_again, NULL), 0);
    }
    for (int i = 0; i < 200; i++) {
        added("a", "1");
        if (i % 50 == 25) (void)!projections_rebuild(projections, DEED_STR("items"), false, &failure);
    }
    expect_ok(ask("same", plain));
    atomic_store(&stop_asking, true);
    for (int i = 0; i < 3; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    assert_int_equal(asking_failed, DEED_OK);
    end();
}

static void *ask_about_the_past(void *context)
{
    uint64_t seed = (uint64_t)(uintptr_t)context;
    struct buf mine;
    buf_init(&mine, 1u << 20);
    for (int i = 0; i < 40 && asking_failed == DEED_OK; i++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        uint64_t at = 2 + (seed >> 33) % 50, answered = 0;
        struct deed_query_options options = {.position = at};
        struct deed_error err;
        char wanted[40];
        (void)snprintf(wanted, sizeof wanted, "[{\"n\":%d}]", (int)at - 1); /* 1 is the log's own */
        buf_reset(&mine);
        deed_status status =
            queries_run(queries, DEED_STR("count"), &options, &mine, &answered, &err);
        bool right = status == DEED_OK && answered == at &&
                     deed_str_equal(buf_str(&mine), deed_str_of(wanted));
        if (!right) asking_failed = DEED_UNKNOWN;
    }
    buf_done(&mine);
    return NULL;
}

TEST(queries, many_threads_ask_about_the_past)
{
    begin();
    project(OTHERS);
    define("count", "SELECT count(*) AS n FROM others");
    uint64_t last = 0;
    for (int i = 0; i < 60; i++)
        last = added("a", "1");
    assert_int_equal(last, 61);
    asking_failed = DEED_OK;
    pthread_t threads[4];
    for (uintptr_t i = 0; i < 4; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, ask_about_the_past, (void *)(i + 1)), 0);
    }
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    assert_int_equal(asking_failed, DEED_OK);
    end();
}

/* ---- the orders example ---------------------------------------------------------------------- */

static void order(const char *id, const char *type, const char *rest)
{
    char stream[40], data[1000];
    (void)snprintf(stream, sizeof stream, "order-%s", id);
    (void)snprintf(data, sizeof data, "{\"order_id\":\"%s\",%s}", id, rest);
    happens(stream, type, data);
}

static void created(const char *id, const char *customer, const char *day)
{
    char rest[500];
    (void)snprintf(
        rest, sizeof rest,
        "\"customer\":{\"id\":\"%s\",\"name\":\"%s Ltd\"},\"shipping_address\":{\"street\":"
        "\"s\",\"city\":\"c\",\"region\":null,\"postal_code\":\"1\",\"country\":\"DE\"},"
        "\"currency\":\"EUR\",\"order_date\":\"%s\",\"order_total_cents\":0",
        customer, customer, day);
    order(id, "OrderCreated", rest);
}

static void line(const char *id, const char *type, const char *line_id, const char *product,
                 int quantity, int price, int discount, int total, int order_total)
{
    char rest[500];
    (void)snprintf(
        rest, sizeof rest,
        "\"line_id\":\"%s\",\"product_id\":\"%s\",\"product_name\":\"the %s\",\"quantity\":%d,"
        "\"unit_price_cents\":%d,\"discount_percent\":%d,\"line_total_cents\":%d,"
        "\"order_total_cents\":%d",
        line_id, product, product, quantity, price, discount, total, order_total);
    order(id, type, rest);
}

/* Three orders: one shipped and delivered, one cancelled, one open from which a line was removed. */
static void sell(void)
{
    created("1", "ann", "2026-01-01");
    line("1", "OrderLineItemAdded", "a", "tea", 3, 100, 10, 270, 270);
    line("1", "OrderLineItemAdded", "b", "cup", 1, 500, 0, 500, 770);
    created("2", "bob", "2026-01-02");
    line("2", "OrderLineItemAdded", "a", "tea", 1, 100, 0, 100, 100);
    order("2", "OrderCancelled", "\"reason\":\"late\"");
    created("3", "ann", "2026-01-02");
    line("3", "OrderLineItemAdded", "a", "tea", 2, 100, 0, 200, 200);
    line("3", "OrderLineItemAdded", "b", "cup", 2, 500, 50, 500, 700);
    line("3", "OrderLineItemRemoved", "a", "tea", 2, 100, 0, 200, 500);
    order("1", "OrderShipped",
          "\"carrier\":\"DHL\",\"tracking_number\":\"T1\",\"shipped_on\":\"2026-01-03\"");
    order("1", "OrderDelivered", "\"delivered_on\":\"2026-01-04\",\"signed_by\":\"Ann\"");
}

static void expect_that_orders_agree(void)
{
    begin();
    expect_ok(projections_load(projections, "examples/orders/projections", &failure));
    expect_ok(queries_load(queries, "examples/orders/queries", &failure));
    sell();

    answers("all_orders_total", plain,
            "[{\"orders\":2,\"lines\":3,\"items\":6,\"list_cents\":1800,\"discount_cents\":530,"
            "\"total_cents\":1270}]");
    answers(
        "order_lines", with("order_id=1", NULL, NULL),
        "[{\"line_id\":\"a\",\"product_id\":\"tea\",\"product_name\":\"the tea\",\"quantity\":3,"
        "\"unit_price_cents\":100,\"discount_percent\":10,\"line_total_cents\":270},"
        "{\"line_id\":\"b\",\"product_id\":\"cup\",\"product_name\":\"the cup\",\"quantity\":1,"
        "\"unit_price_cents\":500,\"discount_percent\":0,\"line_total_cents\":500}]");
    answers(
        "customer_totals", plain,
        "[{\"customer_id\":\"ann\",\"customer_name\":\"ann Ltd\",\"currency\":\"EUR\",\"orders\":2,"
        "\"total_cents\":1270,\"last_order_date\":\"2026-01-02\"},"
        "{\"customer_id\":\"bob\",\"customer_name\":\"bob Ltd\",\"currency\":\"EUR\",\"orders\":0,"
        "\"total_cents\":0,\"last_order_date\":\"2026-01-02\"}]");
    answers(
        "product_sales", plain,
        "[{\"product_id\":\"cup\",\"product_name\":\"the cup\",\"currency\":\"EUR\",\"lines\":2,"
        "\"quantity\":3,\"list_cents\":1500,\"total_cents\":1000},"
        "{\"product_id\":\"tea\",\"product_name\":\"the tea\",\"currency\":\"EUR\",\"lines\":1,"
        "\"quantity\":3,\"list_cents\":300,\"total_cents\":270}]");
    answers(
        "shipping_queue", plain,
        "[{\"order_id\":\"3\",\"order_date\":\"2026-01-02\",\"customer_name\":\"ann "
        "Ltd\",\"street\":"
        "\"s\",\"city\":\"c\",\"region\":null,\"postal_code\":\"1\",\"country\":\"DE\",\"lines\":1,"
        "\"items\":2}]");
    answers("shipping_queue", with("country=FR", NULL, NULL), "[]");
    answers("daily_revenue", plain,
            "[{\"day\":\"2026-01-01\",\"currency\":\"EUR\",\"orders\":1,\"total_cents\":770},"
            "{\"day\":\"2026-01-02\",\"currency\":\"EUR\",\"orders\":1,\"total_cents\":500}]");
    answers("daily_revenue", with("from=2026-01-02", "to=2026-01-31", NULL),
            "[{\"day\":\"2026-01-02\",\"currency\":\"EUR\",\"orders\":1,\"total_cents\":500}]");
    answers("orders_by_status", plain,
            "[{\"status\":\"cancelled\",\"currency\":\"EUR\",\"orders\":1,\"total_cents\":100},"
            "{\"status\":\"delivered\",\"currency\":\"EUR\",\"orders\":1,\"total_cents\":770},"
            "{\"status\":\"open\",\"currency\":\"EUR\",\"orders\":1,\"total_cents\":500}]");
    answers(
        "orders", with("customer_id=ann", "limit=1", NULL),
        "[{\"order_id\":\"3\",\"status\":\"open\",\"customer_id\":\"ann\",\"customer_name\":\"ann "
        "Ltd\",\"order_date\":\"2026-01-02\",\"currency\":\"EUR\",\"lines\":1,\"items\":2,"
        "\"total_cents\":500}]");
    answers(
        "orders_by_customer", with("customer_id=bob", NULL, NULL),
        "[{\"order_id\":\"2\",\"status\":\"cancelled\",\"order_date\":\"2026-01-02\",\"currency\":"
        "\"EUR\",\"lines\":1,\"items\":1,\"total_cents\":100}]");
    answers("order_status", with("order_id=3", NULL, NULL),
            "[{\"order_id\":\"3\",\"status\":\"open\",\"total_cents\":500,\"tracking_number\":null,"
            "\"is_waiting\":1,\"orders_before\":0}]");
    expect_ok(ask("order_summary", with("order_id=1", NULL, NULL)));
    buf_add_byte(&out, 0);
    assert_non_null(strstr(
        (char *)out.ptr, "\"status\":\"delivered\",\"customer_id\":\"ann\",\"customer_name\":\"ann "
                         "Ltd\",\"order_date\":\"2026-01-01\",\"currency\":\"EUR\",\"lines\":2,"
                         "\"items\":4,\"total_cents\":770,"));
    assert_non_null(strstr((char *)out.ptr,
                           "\"tracking_number\":\"T1\",\"shipped_on\":\"2026-01-03\","
                           "\"delivered_on\":\"2026-01-04\",\"signed_by\":\"Ann\","
                           "\"cancelled_because\":null,\"revision\":4,"));
    end();
}

TEST(queries, the_orders_examples_queries_agree_with_its_events)
{
    expect_that_orders_agree();
}

TEST(queries, the_orders_examples_read_models_count_an_event_that_comes_twice_once)
{
    deliver_twice = true;
    expect_that_orders_agree();
    deliver_twice = false;
}

TEST(queries, a_folder_is_taken_up_again_and_again)
{
    begin();
    char app[100], path[200];
    (void)snprintf(app, sizeof app, "%s/app", folder);
    expect_ok(queries_load(queries, app, &failure)); /* not there: none */
    struct os_dir *dir = NULL;
    expect_ok(os_dir_open(os_real(), app, true, &dir, &failure));
    os_dir_close(dir);
    static const char *const texts[] = {"SELECT 1 AS x", "SELECT 2 AS x", "SELECT"};
    static const char *const names[] = {"one.sql", "two.sql", "two.sql"};
    define("mine", "SELECT 0 AS x");
    for (size_t i = 0; i < 3; i++) {
        (void)snprintf(path, sizeof path, "%s/%s", app, names[i]);
        FILE *f = fopen(path, "w");
        assert_non_null(f);
        assert_true(fputs(texts[i], f) >= 0);
        assert_int_equal(fclose(f), 0);
        deed_status status = queries_load(queries, app, &failure);
        assert_int_equal(status, i == 2 ? DEED_INVALID : DEED_OK);
    }
    expect_message(failure, "query two: line 1: ");
    answers("one", plain, "[{\"x\":1}]");
    answers("two", plain, "[{\"x\":2}]"); /* as it was */
    assert_int_equal(unlink(path), 0);
    assert_int_equal(symlink("nowhere", path), 0);
    expect_status(DEED_IO, queries_load(queries, app, &failure));
    expect_message(failure, "two.sql: cannot open it");
    answers("one", plain, "[{\"x\":1}]"); /* one that cannot be read stops no other */
    assert_int_equal(unlink(path), 0);
    expect_ok(queries_load(queries, app, &failure));
    expect_status(DEED_NOT_FOUND, ask("two", plain));
    answers("mine", plain, "[{\"x\":0}]");
    end();
}

TEST_MAIN(queries)
