/* SQLite on a simulated machine: what its files, locks and syncs are there. */
#include "os/os_sim.h"
#include "projection/vfs.h"
#include "unit/database_fixture.h"

#include <errno.h>
#include <sqlite3.h>

#define FOLDER "/data"
#define PATH   FOLDER "/rows.db"

static struct os_sim *sim;
static struct os *os;
static struct os_dir *folder;

static void start(void)
{
    sim = os_sim_create(1, NULL);
    os = os_sim_os(sim);
    expect_ok(os_dir_open(os, FOLDER, true, &folder, &err));
}

static void finish(void)
{
    os_dir_close(folder);
    os_sim_destroy(sim);
}

static int64_t number(struct database *db, const char *sql)
{
    sqlite3_stmt *statement = NULL;
    int64_t value = -1;
    if (database_prepare(db, DATABASE_TRUSTED, deed_str_of(sql), false, &statement, NULL, &err) !=
        DEED_OK) {
        fail_msg("%s: %s", sql, err.message);
    }
    if (sqlite3_step(statement) == SQLITE_ROW) value = sqlite3_column_int64(statement, 0);
    (void)sqlite3_finalize(statement);
    return value;
}

static void expect_sound(struct database *db)
{
    sqlite3_stmt *statement = NULL;
    expect_ok(database_prepare(db, DATABASE_TRUSTED, DEED_STR("PRAGMA integrity_check"), false,
                               &statement, NULL, &err));
    assert_int_equal(sqlite3_step(statement), SQLITE_ROW);
    assert_string_equal((const char *)sqlite3_column_text(statement, 0), "ok");
    (void)sqlite3_finalize(statement);
}

static struct database *with_rows(const char *mode)
{
    char sql[64];
    struct database *db = opened(os, PATH, false);
    (void)snprintf(sql, sizeof sql, "PRAGMA journal_mode = %s; PRAGMA synchronous = FULL", mode);
    run(db, sql);
    run(db, "CREATE TABLE t (n INTEGER PRIMARY KEY); INSERT INTO t VALUES (1), (2), (3)");
    expect_ok(os_dir_sync(folder, &err)); /* the file's own name is its maker's affair */
    return db;
}

static bool is_there(const char *name)
{
    struct os_file *file = NULL;
    bool there = os_file_open(folder, name, OS_READ, &file, &err) == DEED_OK;
    os_file_close(file);
    return there;
}

static void crash(void)
{
    os_sim_power_off_after(sim, 0);
    os_sim_crash(sim);
    os_sim_power_off_after(sim, 0);
}

static void come_back(void)
{
    os_sim_power_off_after(sim, DEED_NONE);
    os_dir_close(folder);
    expect_ok(os_dir_open(os, FOLDER, true, &folder, &err));
}

TEST(vfs, the_real_machine_keeps_sqlites_own)
{
    const char *name = "something";
    expect_ok(vfs_hold(os_real(), &name, &err));
    assert_null(name);
    vfs_release(os_real());
}

TEST(vfs, a_machine_has_one_as_long_as_it_is_held)
{
    const char *name = NULL, *again = NULL;
    start();
    expect_ok(vfs_hold(os, &name, &err));
    expect_ok(vfs_hold(os, &again, &err));
    assert_string_equal(name, again);
    assert_non_null(sqlite3_vfs_find(name));
    char kept[32];
    (void)snprintf(kept, sizeof kept, "%s", name);
    vfs_release(os);
    assert_non_null(sqlite3_vfs_find(kept));
    vfs_release(os);
    assert_null(sqlite3_vfs_find(kept));
    finish();
}

TEST(vfs, what_was_committed_survives_a_crash)
{
    static const char *const modes[] = {"DELETE", "TRUNCATE", "PERSIST", "WAL"};
    for (size_t i = 0; i < 4; i++) {
        start();
        struct database *db = with_rows(modes[i]);
        run(db, "INSERT INTO t VALUES (4)");
        run(db, "BEGIN; INSERT INTO t VALUES (5)");
        crash();
        database_close(db);
        come_back();
        db = opened(os, PATH, false);
        assert_int_equal(number(db, "SELECT count(*) FROM t"), 4);
        expect_sound(db);
        database_close(db);
        finish();
    }
}

TEST(vfs, a_new_journals_name_is_synced_with_it)
{
    start();
    struct database *db = with_rows("DELETE");
    uint64_t before = os_sim_count(sim, OS_SIM_DIR_SYNC);
    run(db, "INSERT INTO t VALUES (4)");
    assert_int_equal(os_sim_count(sim, OS_SIM_DIR_SYNC) - before, 1);
    assert_false(is_there("rows.db-journal"));
    database_close(db);
    finish();
}

TEST(vfs, one_writes_and_the_others_wait)
{
    start();
    struct database *one = with_rows("DELETE"), *two = opened(os, PATH, false);
    run(one, "BEGIN IMMEDIATE; INSERT INTO t VALUES (4)");
    assert_int_equal(number(two, "SELECT count(*) FROM t"), 3);
    expect_status(DEED_IO, try_run(two, "INSERT INTO t VALUES (5)"));
    expect_message(err, "locked");
    run(one, "COMMIT");
    run(two, "INSERT INTO t VALUES (5)");
    assert_int_equal(number(one, "SELECT count(*) FROM t"), 5);
    database_close(one);
    database_close(two);
    finish();
}

TEST(vfs, readers_keep_their_view_beside_a_write_ahead_log)
{
    start();
    struct database *writer = with_rows("WAL"), *reader = opened(os, PATH, true);
    run(reader, "BEGIN");
    assert_int_equal(number(reader, "SELECT count(*) FROM t"), 3);
    run(writer, "INSERT INTO t VALUES (4)");
    run(writer, "PRAGMA wal_checkpoint(PASSIVE)");
    assert_int_equal(number(reader, "SELECT count(*) FROM t"), 3);
    /* Its log cannot be emptied under the reader. */
    assert_int_equal(number(writer, "PRAGMA wal_checkpoint(TRUNCATE)"), 1);
    run(reader, "COMMIT");
    assert_int_equal(number(reader, "SELECT count(*) FROM t"), 4);
    assert_int_equal(number(writer, "PRAGMA wal_checkpoint(TRUNCATE)"), 0);
    database_close(writer);
    database_close(reader);
    finish();
}

TEST(vfs, the_last_writer_leaves_one_file_and_a_reader_leaves_all)
{
    start();
    struct database *writer = with_rows("WAL"), *reader = opened(os, PATH, true);
    assert_int_equal(number(reader, "SELECT count(*) FROM t"), 3);
    (void)sqlite3_db_config(database_sqlite(writer), SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
    database_close(writer);
    database_close(reader);
    assert_true(is_there("rows.db-wal"));
    writer = opened(os, PATH, false);
    assert_int_equal(number(writer, "SELECT count(*) FROM t"), 3);
    database_close(writer);
    assert_false(is_there("rows.db-wal"));
    finish();
}

TEST(vfs, a_file_in_the_place_of_a_removed_one_is_another)
{
    start();
    struct database *old = with_rows("WAL");
    assert_int_equal(number(old, "SELECT count(*) FROM t"), 3);
    expect_ok(os_remove(folder, "rows.db", &err));
    expect_ok(os_remove(folder, "rows.db-wal", &err));
    database_close(old);
    struct database *fresh = opened(os, PATH, false);
    assert_int_equal(number(fresh, "SELECT count(*) FROM sqlite_schema"), 0);
    database_close(fresh);
    finish();
}

TEST(vfs, a_disk_that_fails_says_so)
{
    start();
    struct database *db = with_rows("WAL");
    os_sim_fail(sim, OS_SIM_WRITE, 1, 0, ENOSPC);
    expect_status(DEED_FULL, try_run(db, "INSERT INTO t VALUES (4)"));
    os_sim_fail(sim, OS_SIM_WRITE, 1, 0, EIO);
    expect_status(DEED_IO, try_run(db, "INSERT INTO t VALUES (4)"));
    os_sim_fail(sim, OS_SIM_SYNC, 1, 0, EIO);
    expect_status(DEED_IO, try_run(db, "INSERT INTO t VALUES (4)"));
    run(db, "INSERT INTO t VALUES (4)");
    assert_int_equal(number(db, "SELECT count(*) FROM t"), 4);
    database_close(db);
    finish();
}

TEST(vfs, a_missing_file_is_not_made_by_a_reader)
{
    start();
    struct database *db = NULL;
    struct database_options options = {.path = PATH, .read_only = true};
    expect_status(DEED_IO, database_open(os, &options, &db, &err));
    expect_message(err, "unable to open");
    assert_false(is_there("rows.db"));
    finish();
}

TEST(vfs, paths_may_hold_what_a_uri_takes_for_its_own)
{
    start();
    struct database *db = NULL;
    struct database_options options = {
        .path = FOLDER "/100%25?x#y.db", .create = true, .sectors_tear = true};
    expect_ok(database_open(os, &options, &db, &err));
    run(db, "CREATE TABLE t (n INTEGER PRIMARY KEY)");
    database_close(db);
    assert_true(is_there("100%25?x#y.db"));
    finish();
}

TEST(vfs, time_is_the_machines)
{
    start();
    struct database *db = opened(os, PATH, false);
    os_sim_set_clock(sim, INT64_C(1000000000) * 86400 * 365);
    assert_int_equal(number(db, "SELECT strftime('%s', 'now')"), 86400 * 365);
    database_close(db);
    finish();
}

TEST_MAIN(vfs)
