/* What an author may write, and what he is told otherwise. */
#include "projection/projection_file.h"
#include "test.h"

#define HEAD "-- projection: p\n-- tables\nCREATE TABLE t (id TEXT PRIMARY KEY, n INTEGER);\n"
#define ON   "-- on A\n"

static struct projection_file *file;
static struct deed_error failure;

static deed_status load(const char *text)
{
    projection_file_free(file);
    file = NULL;
    failure = (struct deed_error){0};
    return projection_file_load(os_real(), DEED_STR("p.sql"), deed_str_of(text), &file, &failure);
}

static void accepts(const char *text)
{
    deed_status status = load(text);
    if (status != DEED_OK) fail_msg("%s\n%s", failure.message, text);
}

static void refuses(const char *text, const char *message)
{
    if (load(text) == DEED_OK) fail_msg("accepted: %s", text);
    expect_message(failure, message);
    expect_message(failure, "p.sql: ");
}

static void refuses_statement(const char *statement, const char *message)
{
    char text[2000];
    (void)snprintf(text, sizeof text, HEAD ON "%s", statement);
    refuses(text, message);
}

static void accepts_statement(const char *statement)
{
    char text[2000];
    (void)snprintf(text, sizeof text, HEAD ON "%s", statement);
    accepts(text);
}

TEST(projection_file, names_become_numbers_and_each_name_counts_once)
{
    accepts_statement("INSERT INTO t VALUES (:data.id, :data.n + :revision) "
                      "ON CONFLICT (id) DO UPDATE SET n = :data.n;");

    assert_int_equal(file->statement_count, 1);
    expect_str(file->statements[0].sql.text,
               "INSERT INTO t VALUES (?1 , ?2  + ?3 ) ON CONFLICT (id) DO UPDATE SET n = ?2 ");
    assert_int_equal(file->statements[0].sql.parameter_count, 3);
    expect_str(file->statements[0].bindings[1].name, "data.n");
    assert_int_equal(file->statements[0].bindings[2].source, PROJECTION_REVISION);
}

TEST(projection_file, strings_quoted_names_and_comments_are_left_alone)
{
    accepts(
        "-- projection: p\n-- tables\nCREATE TABLE t (\"a:b\" TEXT PRIMARY KEY, [c;d] TEXT, `e'f` "
        "TEXT);\n-- on A\n"
        "INSERT INTO t VALUES ('it''s :data.x; -- no', /* :data.y; */ :data.z -- :data.w ;\n"
        ", '-- on B');");

    assert_int_equal(file->statements[0].sql.parameter_count, 1);
    expect_str(file->statements[0].bindings[0].name, "data.z");
    assert_int_equal(file->type_count, 1);
}

TEST(projection_file, a_digit_behind_an_optional_name_does_not_join_its_number)
{
    refuses_statement("UPDATE t SET n = :data.n?1;", "syntax error");
}

TEST(projection_file, steps_are_members_indices_or_quoted)
{
    accepts_statement("UPDATE t SET n = :data.lines.0.\"unit price\".x? WHERE id = :metadata.é;");

    const struct projection_binding *b = &file->statements[0].bindings[0];
    assert_int_equal(b->step_count, 4);
    expect_str(b->steps[0].key, "lines");
    assert_false(b->steps[0].is_index);
    assert_true(b->steps[1].is_index);
    expect_str(b->steps[2].key, "unit price");
    assert_true(b->optional);
    assert_false(file->statements[0].bindings[1].optional);
}

TEST(projection_file, every_source_has_a_name)
{
    accepts_statement(
        "INSERT INTO t SELECT :stream, :position WHERE :category IS :type AND :time < "
        ":recorded_at AND :id <> :tags AND :correlation_id IS :causation_id AND :actor "
        "IS :data AND :metadata AND :revision;");

    assert_int_equal(file->statements[0].sql.parameter_count, 14);
    refuses_statement("UPDATE t SET n = :date.x;", "line 5: unknown parameter :date.x");
    refuses_statement("UPDATE t SET n =\n :stream.x;",
                      "line 6: parameter :stream.x: nothing is below");
}

TEST(projection_file, sections_answer_to_types_in_the_files_order)
{
    accepts(HEAD "-- on B, A\nUPDATE t SET n = 1; UPDATE t SET n = 2;\n"
                 "--   ON   \"with space\" , A\nDELETE FROM t;\n");

    assert_int_equal(file->type_count, 3);
    expect_str(file->types[0], "A");
    expect_str(file->types[2], "with space");
    const struct projection_reaction *a = projection_file_reaction(file, DEED_STR("A"));
    assert_int_equal(a->statement_count, 3);
    assert_int_equal(a->statements[2], 2);
    assert_int_equal(projection_file_reaction(file, DEED_STR("B"))->statement_count, 2);
    assert_null(projection_file_reaction(file, DEED_STR("C")));
    assert_false(file->system);
}

TEST(projection_file, a_star_answers_to_every_type)
{
    accepts(HEAD "-- on $A\nUPDATE t SET n = 1;\n-- on *\nUPDATE t SET n = 2;\n");

    assert_true(file->every_type);
    assert_true(file->system);
    assert_int_equal(file->type_count, 1);
    assert_int_equal(projection_file_reaction(file, DEED_STR("$A"))->statement_count, 2);
    assert_int_equal(projection_file_reaction(file, DEED_STR("Z"))->statement_count, 1);
}

TEST(projection_file, headings_that_do_not_fit_are_told_by_line)
{
    refuses("", "there is no \"-- projection: NAME\"");
    refuses("-- tables\n", "line 1: the file must begin with");
    refuses("SELECT 1;", "line 1: a statement before");
    refuses("-- projection: a b\n", "line 1: projection name \"a b\"");
    refuses("-- projection: 1a\n", "projection name");
    refuses("-- projection: ../x\n", "projection name");
    refuses("-- projection:\n", "projection name \"\"");
    refuses("-- projection: a\n\n-- projection: b\n", "line 3: a second projection");
    refuses("-- projection: p\n", "there is no \"-- tables\"");
    refuses(HEAD, "there is no \"-- on TYPE\"");
    refuses(HEAD "-- tables\n", "line 4: a second tables section; the first is at 2");
    refuses(HEAD "-- on\n", "line 4: \"-- on\" takes event types");
    refuses(HEAD "-- on A,,B\n", "line 4: \"-- on\" takes event types");
    refuses(HEAD "-- on the other hand\n", "\"the other hand\" is none");
    refuses(HEAD "-- on A\n-- on B\n", "line 4: a section without statements");
    refuses(HEAD "-- on A\n", "line 4: a section without statements");
    refuses("-- projection: p\n-- tables\n-- on A\n", "line 2: a section without statements");
    refuses(HEAD ON "UPDATE t SET n = 1\n-- on B\nUPDATE t SET n = 2;",
            "line 6: the heading \"-- on B\" stands inside the statement that begins at line 5");
}

TEST(projection_file, other_comments_are_comments)
{
    accepts("-- Orders as the shop sees them.\n-- projection: p\n-- tables of ours\n-- tables\n"
            "CREATE TABLE t ( -- on one line\n  -- on its own line in parentheses\n"
            "  id TEXT PRIMARY KEY);\n-- only this\n-- on A\n/* -- on B */ DELETE FROM t;"
            " -- on C\n");
}

TEST(projection_file, what_is_not_closed_is_told_by_line)
{
    refuses_statement("UPDATE t SET n = 'x", "line 5: a string that is not closed");
    refuses_statement("UPDATE t SET n =\n\"x", "line 6: a quoted name that is not closed");
    refuses_statement("UPDATE t /* ", "line 5: a comment that is not closed");
    refuses_statement("UPDATE t SET n = :data.", "line 5: a parameter that ends in '.'");
    refuses_statement("UPDATE t SET n = :1;", "line 5: a ':' without a name");
    refuses_statement("UPDATE t SET n = :data.\"\";", "line 5: an empty step");
    refuses_statement("UPDATE t SET n = :data.\"a\n\";", "line 5: a line end inside");
    refuses_statement("UPDATE t SET n = ?1;", "line 5: a parameter that is not written :name");
    refuses_statement("UPDATE t SET n = $n;", "line 5: a parameter that is not written :name");
    refuses_statement("UPDATE t SET n = \x01;", "line 5: a control character");
    refuses_statement("UPDATE t SET n = '\xff';", "not UTF-8");
}

TEST(projection_file, sqlites_complaints_come_with_the_line)
{
    refuses_statement("UPDATE t SET n = 1;\nUPDATE t SET n = 2\n WHERE m = 1;",
                      "line 7: no such column: m");
    refuses_statement("UPDTE t SET n = 1;", "line 5: UPDTE is not allowed");
    refuses_statement("UPDATE u SET n = 1;", "line 5: no such table: u");
    refuses_statement("UPDATE t SET n = \"text\";", "no such column: text");
    refuses(
        "-- projection: p\n-- tables\nCREATE TABLE t (id PRIMARY KEY);\nCREATE TABLE T (id PRIMARY "
        "KEY);\n" ON "DELETE FROM t;",
        "line 4: table T already exists");
}

TEST(projection_file, every_table_has_a_primary_key)
{
    refuses(
        "-- projection: p\n-- tables\nCREATE TABLE a (id PRIMARY KEY);\n\nCREATE TABLE b (id);\n" ON
        "DELETE FROM a;",
        "line 5: table b has no primary key");
    refuses("-- projection: p\n-- tables\nCREATE TABLE a AS SELECT 1 AS x;\n" ON "DELETE FROM a;",
            "line 3: table a has no primary key");
    accepts(
        "-- projection: p\n-- tables\nCREATE TABLE a (x, y, PRIMARY KEY (x, y)) WITHOUT ROWID;\n"
        "CREATE TABLE b (id INTEGER PRIMARY KEY AUTOINCREMENT);\nCREATE UNIQUE INDEX i ON a (y);\n"
        "CREATE VIEW v AS SELECT x FROM a;\nCREATE INDEX j ON b (id) WHERE id > 3;\n" ON
        "INSERT INTO a SELECT x, 2 FROM v;");
    assert_int_equal(file->table_count, 3);
    expect_str(file->tables[2], "v");
}

TEST(projection_file, only_tables_indices_and_views_stand_among_the_tables)
{
#define AMONG_TABLES(sql) HEAD sql "\n" ON "DELETE FROM t;"
    refuses(AMONG_TABLES("INSERT INTO t VALUES ('a', 1);"), "line 4: only CREATE TABLE");
    refuses(AMONG_TABLES("DROP TABLE t;"), "line 4: only CREATE TABLE");
    refuses(AMONG_TABLES("PRAGMA user_version = 3;"), "line 4: only CREATE TABLE");
    refuses(AMONG_TABLES("CREATE TRIGGER x AFTER INSERT ON t BEGIN DELETE FROM t; END;"),
            "line 4: only CREATE TABLE");
    refuses(AMONG_TABLES("CREATE VIRTUAL TABLE f USING fts5(x);"), "line 4: only CREATE TABLE");
    refuses(AMONG_TABLES("CREATE TEMP TABLE x (id PRIMARY KEY);"), "line 4: only CREATE TABLE");
    refuses(AMONG_TABLES("CREATE TABLE temp.x (id PRIMARY KEY);"), "line 4: temporary tables");
    refuses(AMONG_TABLES("CREATE TABLE _deedbook_x (id PRIMARY KEY);"),
            "line 4: the name _deedbook_x is reserved");
    refuses(AMONG_TABLES("CREATE VIEW _Deedbook_checkpoint AS SELECT 1;"), "is reserved");
    refuses(AMONG_TABLES("CREATE TABLE x (id PRIMARY KEY DEFAULT :stream);"),
            "line 4: parameter :stream among the tables");
    refuses(AMONG_TABLES("CREATE TABLE x (id PRIMARY KEY, at TEXT DEFAULT CURRENT_TIMESTAMP);"),
            "line 4: CURRENT_TIMESTAMP is not deterministic");
    refuses(AMONG_TABLES("CREATE TABLE x (id PRIMARY KEY, at INTEGER DEFAULT (random () % 7));"),
            "line 4: random is not deterministic");
    refuses(AMONG_TABLES("CREATE TABLE x (id PRIMARY KEY, at TEXT DEFAULT (date('now')));"),
            "line 4: 'now' is not deterministic");
    accepts(
        AMONG_TABLES("CREATE TABLE x (id PRIMARY KEY, random INTEGER, \"current_date\" TEXT);"));
}

TEST(projection_file, a_statement_reaches_nothing_but_its_tables)
{
    static const char *const others[] = {
        "ATTACH 'x.db' AS x;",
        "DETACH main;",
        "PRAGMA journal_mode = DELETE;",
        "VACUUM;",
        "VACUUM INTO 'x.db';",
        "BEGIN;",
        "COMMIT;",
        "END;",
        "ROLLBACK;",
        "SAVEPOINT s;",
        "RELEASE s;",
        "ANALYZE;",
        "REINDEX;",
        "DROP TABLE t;",
        "ALTER TABLE t ADD COLUMN x;",
        "CREATE TABLE x (id PRIMARY KEY);",
        "CREATE TEMP TABLE x (id PRIMARY KEY);",
        "CREATE TRIGGER x AFTER INSERT ON t BEGIN DELETE FROM t; END;",
        "EXPLAIN DELETE FROM t;",
        "SELECT 1;",
        "VALUES (1);",
        "(SELECT 1);",
        "\"UPDATE\" t;",
    };
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
        refuses_statement(others[i], "is not allowed in a projection: a statement begins with");
    }
    refuses_statement("INSERT INTO t SELECT name, 1 FROM sqlite_master;",
                      "the table sqlite_master is");
    refuses_statement("UPDATE sqlite_schema SET name = 'x';", "line 5: ");
    refuses_statement("INSERT INTO t SELECT name, 1 FROM pragma_table_info('t');", "is reserved");
    refuses_statement("INSERT INTO t SELECT count(*), 1 FROM pragma_database_list;", "is reserved");
    refuses_statement("INSERT INTO t SELECT name, 1 FROM dbstat;", "line 5: ");
    refuses_statement("WITH a AS (SELECT 1) SELECT * FROM a;",
                      "line 5: this statement changes nothing");
    accepts_statement("INSERT INTO t SELECT value, key FROM json_each(:data.lines);");
    accepts_statement("INSERT INTO t SELECT count(*), 1 FROM json_each(:data.lines);");
    accepts_statement("WITH RECURSIVE n(i) AS (SELECT 1 UNION SELECT i + 1 FROM n WHERE i < 9) "
                      "INSERT INTO t SELECT 'x', count(*) FROM n;");
    accepts_statement("REPLACE INTO t VALUES (:data.id, (SELECT count(*) FROM t));");
    accepts_statement("DELETE FROM t WHERE id = :data.id RETURNING n;");
}

TEST(projection_file, a_view_is_looked_into)
{
    refuses(AMONG_TABLES("CREATE VIEW v AS\n SELECT m FROM t;"), "line 4: no such column: m");
    refuses(AMONG_TABLES("CREATE VIEW v AS SELECT name FROM sqlite_master;"),
            "line 4: the table sqlite_master is reserved");
    accepts(AMONG_TABLES("CREATE VIEW v AS SELECT n FROM u;\nCREATE TABLE u (n PRIMARY KEY);"));
}

TEST(projection_file, our_own_tables_are_reserved)
{
    refuses_statement("UPDATE _deedbook_checkpoint SET position = 0;", "line 5: ");
    refuses_statement("INSERT INTO t SELECT 'x', position FROM _DEEDBOOK_checkpoint;", "line 5: ");
}

TEST(projection_file, what_differs_from_day_to_day_is_refused)
{
    static const char *const calls[] = {
        "random()",
        "hex(randomblob(4))",
        "changes()",
        "total_changes()",
        "last_insert_rowid()",
        "CURRENT_TIMESTAMP",
        "CURRENT_DATE",
        "current_time",
        "sqlite_version()",
        "load_extension('x')",
        "\"random\"()",
    };
    for (size_t i = 0; i < sizeof calls / sizeof calls[0]; i++) {
        char sql[200];
        (void)snprintf(sql, sizeof sql, "UPDATE t SET n = %s;", calls[i]);
        refuses_statement(sql, "is not deterministic");
    }
    refuses_statement("UPDATE t SET n = sqlite_compileoption_get(1);", "is not allowed");
    refuses_statement("UPDATE t SET n = fts5(1);", "line 5: ");
    refuses_statement("UPDATE t SET n = datetime('now');", "line 5: 'now' in a date function");
    refuses_statement("UPDATE t SET n = strftime('%s', 'NOW');", "in a date function is not");
    refuses_statement("UPDATE t SET n = date(:time, 'localtime');",
                      "'localtime' in a date function");
    accepts_statement("UPDATE t SET n = date(:time, 'start of month');");
    accepts_statement("UPDATE t SET n = 'now';");
}

TEST(projection_file, the_hash_sees_sql_and_not_layout)
{
    accepts(HEAD ON "UPDATE t SET n = 1 WHERE id = 'a  b';");
    uint8_t first[SHA256_SIZE];
    memcpy(first, file->hash, sizeof first);

    accepts("-- a comment\n" HEAD ON "\n\nUPDATE  t\nSET n = 1 /* why */ WHERE id = 'a  b' ;");
    assert_memory_equal(first, file->hash, sizeof first);
    accepts(HEAD ON "UPDATE t SET n = 1 WHERE id = 'a b';");
    assert_memory_not_equal(first, file->hash, sizeof first);
    accepts(HEAD "-- on B\nUPDATE t SET n = 1 WHERE id = 'a  b';");
    assert_memory_not_equal(first, file->hash, sizeof first);
}

TEST(projection_file, sizes_have_limits)
{
    static char text[SQL_TEXT_SIZE_MAX + 2];
    memset(text, ' ', sizeof text - 1);
    expect_status(DEED_TOO_LARGE, load(text));
    expect_message(failure, "1048577 bytes, limit 1048576");

    size_t len = (size_t)snprintf(text, sizeof text, HEAD ON "UPDATE t SET n = 0");
    for (int i = 0; i <= SQL_PARAMETER_COUNT_MAX; i++) {
        len += (size_t)snprintf(text + len, sizeof text - len, " + :data.a%d", i);
    }
    expect_status(DEED_TOO_LARGE, load(text));
    expect_message(failure, "line 5: a statement with more than 500 parameters");

    projection_file_free(file);
    file = NULL;
}

TEST_MAIN(projection_file)
