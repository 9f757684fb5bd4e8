/* Damage in SQLite's files: it is found, named, and never becomes an answer. */
#include "projection/page_check.h"

#include "unit/database_fixture.h"

#include <ftw.h>
#include <unistd.h>

#define PAGE  PAGE_CHECK_PAGE_SIZE
#define ROWS  400
#define FRAME (24 + PAGE)

/* ---- the fixture's verbs --------------------------------------------------------------------- */

static char folder[64], path[100], log_path[110];

static int remove_one(const char *name, const struct stat *s, int flag, struct FTW *ftw)
{
    (void)s, (void)flag, (void)ftw;
    return remove(name);
}

static void begin(void)
{
    (void)snprintf(folder, sizeof folder, "/tmp/deed-pages-XXXXXX");
    assert_non_null(mkdtemp(folder));
    (void)snprintf(path, sizeof path, "%s/rows.db", folder);
    (void)snprintf(log_path, sizeof log_path, "%s-wal", path);
}

static void end(void)
{
    assert_int_equal(nftw(folder, remove_one, 16, FTW_DEPTH | FTW_PHYS), 0);
}

/* The sum over the rows; false: it cannot be had, and `err` says why. */
static bool sum_of(struct database *db, int64_t *out)
{
    sqlite3_stmt *statement = NULL;
    deed_status status = database_prepare(
        db, DATABASE_TRUSTED, DEED_STR("SELECT count(*) + sum(n) + sum(length(t)) FROM rows"),
        false, &statement, NULL, &err);
    if (status == DEED_OK) {
        int rc = sqlite3_step(statement);
        if (rc == SQLITE_ROW) *out = sqlite3_column_int64(statement, 0);
        if (rc != SQLITE_ROW) status = database_fail(db, &err);
    }
    (void)sqlite3_finalize(statement);
    return status == DEED_OK;
}

/* As a query would: from a connection of its own. */
static bool reads(int64_t *out)
{
    struct database *db = NULL;
    struct database_options options = {.path = path, .read_only = true};
    if (database_open(os_real(), &options, &db, &err) != DEED_OK) return false;
    bool ok = sum_of(db, out);
    database_close(db);
    return ok;
}

static int64_t expect_reads(void)
{
    int64_t sum = 0;
    if (!reads(&sum)) fail_msg("%s", err.message);
    return sum;
}

static void expect_damage(const char *message)
{
    int64_t sum = 0;
    if (reads(&sum)) fail_msg("damage is served");
    assert_int_equal(err.status, DEED_CORRUPT);
    expect_message(err, message);
}

static void make_rows(struct database *db)
{
    char sql[200];
    run(db, "CREATE TABLE rows (n INTEGER PRIMARY KEY, t TEXT)");
    /* The last one goes over several pages. */
    (void)snprintf(sql, sizeof sql,
                   "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < %d)"
                   " INSERT INTO rows SELECT n, hex(zeroblob(20)) FROM c",
                   ROWS);
    run(db, sql);
    run(db, "INSERT INTO rows VALUES (1000, hex(zeroblob(5000)))");
}

/* A database as a read model's is: all in its file. */
static int64_t made(void)
{
    struct database *db = opened(os_real(), path, false);
    run(db, "PRAGMA page_size = 4096; PRAGMA journal_mode = WAL; PRAGMA wal_autocheckpoint = 0");
    make_rows(db);
    run(db, "PRAGMA wal_checkpoint(TRUNCATE)");
    database_close(db);
    return expect_reads();
}

static long size_of(const char *name)
{
    FILE *file = fopen(name, "rb");
    assert_non_null(file);
    assert_int_equal(fseek(file, 0, SEEK_END), 0);
    long size = ftell(file);
    assert_int_equal(fclose(file), 0);
    return size;
}

static void bytes_at(const char *name, long offset, void *bytes, size_t size, bool write)
{
    FILE *file = fopen(name, "r+b");
    assert_non_null(file);
    assert_int_equal(fseek(file, offset, SEEK_SET), 0);
    size_t done = write ? fwrite(bytes, 1, size, file) : fread(bytes, 1, size, file);
    assert_int_equal(done, size);
    assert_int_equal(fclose(file), 0);
}

static void flip(const char *name, long offset, uint8_t mask)
{
    uint8_t byte = 0;
    bytes_at(name, offset, &byte, 1, false);
    byte ^= mask;
    bytes_at(name, offset, &byte, 1, true);
}

static void exchange(const char *name, long a, long b)
{
    static uint8_t one[PAGE], two[PAGE];
    bytes_at(name, a, one, PAGE, false);
    bytes_at(name, b, two, PAGE, false);
    bytes_at(name, a, two, PAGE, true);
    bytes_at(name, b, one, PAGE, true);
}

/* ---- pages ------------------------------------------------------------------------------------ */

TEST(page_check, a_flipped_bit_anywhere_is_found)
{
    begin();
    int64_t want = made(), sum = 0;
    long pages = size_of(path) / PAGE, found = 0;
    assert_true(pages >= 8);
    for (long page = 0; page < pages; page++) {
        for (long at = page; at < PAGE; at += 97) {
            flip(path, page * PAGE + at, (uint8_t)(1u << at % 8));
            if (reads(&sum)) {
                fail_msg("page %ld byte %ld: %lld, not %lld", page + 1, at, (long long)sum,
                         (long long)want);
            }
            assert_int_equal(err.status, DEED_CORRUPT);
            flip(path, page * PAGE + at, (uint8_t)(1u << at % 8));
            found++;
        }
    }
    assert_true(found > 300);
    assert_int_equal(expect_reads(), want);
    flip(path, 2 * PAGE + 5, 1);
    expect_damage("rows.db: page 3 is damaged: its checksum does not match");
    end();
}

TEST(page_check, every_byte_of_the_header_counts)
{
    begin();
    int64_t want = made(), sum = 0;
    for (long at = 0; at < 100; at++) {
        for (unsigned bit = 0; bit < 8; bit++) {
            flip(path, at, (uint8_t)(1u << bit));
            if (reads(&sum)) fail_msg("byte %ld bit %u is served", at, bit);
            if (err.status != DEED_CORRUPT) fail_msg("byte %ld bit %u: %s", at, bit, err.message);
            flip(path, at, (uint8_t)(1u << bit));
        }
    }
    assert_int_equal(expect_reads(), want);
    end();
}

TEST(page_check, a_page_in_anothers_place_is_found)
{
    begin();
    (void)made();
    /* Two pages of the long row: SQLite itself sees nothing wrong with them. */
    long last = size_of(path) / PAGE - 1;
    exchange(path, last * PAGE, (last - 1) * PAGE);
    expect_damage("its checksum does not match");
    end();
}

TEST(page_check, a_page_of_another_file_is_found)
{
    begin();
    int64_t want = made();
    char other[120];
    (void)snprintf(other, sizeof other, "%s/other.db", folder);
    struct database *db = opened(os_real(), other, false);
    run(db, "PRAGMA page_size = 4096; PRAGMA journal_mode = WAL");
    make_rows(db);
    database_close(db);
    assert_int_equal(size_of(other), size_of(path));
    static uint8_t page[PAGE], own[PAGE];
    bytes_at(path, 3 * PAGE, own, PAGE, false);
    bytes_at(other, 3 * PAGE, page, PAGE, false);
    assert_memory_equal(page, own, PAGE - PAGE_CHECK_SIZE);
    bytes_at(path, 3 * PAGE, page, PAGE, true);
    expect_damage("rows.db: page 4 is damaged");
    bytes_at(path, 3 * PAGE, own, PAGE, true);
    assert_int_equal(expect_reads(), want);
    end();
}

TEST(page_check, zeros_and_missing_pages_are_found)
{
    begin();
    int64_t want = made();
    long size = size_of(path);
    static uint8_t zeros[PAGE], own[PAGE];
    bytes_at(path, size - PAGE, own, PAGE, false);
    bytes_at(path, size - PAGE, zeros, PAGE, true);
    expect_damage("is damaged");
    bytes_at(path, size - PAGE, own, PAGE, true);
    assert_int_equal(expect_reads(), want);
    assert_int_equal(truncate(path, size - 100), 0);
    int64_t sum = 0;
    assert_false(reads(&sum));
    assert_int_equal(err.status, DEED_CORRUPT);
    end();
}

TEST(page_check, a_file_without_checksums_is_read_as_it_is)
{
    begin();
    sqlite3 *plain = NULL;
    assert_int_equal(sqlite3_open(path, &plain), SQLITE_OK);
    assert_int_equal(sqlite3_exec(plain,
                                  "PRAGMA page_size = 4096; PRAGMA journal_mode = WAL;"
                                  "CREATE TABLE rows (n INTEGER PRIMARY KEY, t TEXT);"
                                  "INSERT INTO rows VALUES (7, 'seven')",
                                  NULL, NULL, NULL),
                     SQLITE_OK);
    assert_int_equal(sqlite3_close(plain), SQLITE_OK);
    assert_int_equal(expect_reads(), 1 + 7 + 5);
    /* And written: it goes on without. */
    struct database *db = opened(os_real(), path, false);
    run(db, "INSERT INTO rows VALUES (8, 'eight')");
    run(db, "PRAGMA wal_checkpoint(TRUNCATE)");
    database_close(db);
    assert_int_equal(expect_reads(), 2 + 15 + 10);
    flip(path, 2 * PAGE - 1, 0x20); /* the last letter of the first row */
    assert_int_equal(expect_reads(), 2 + 15 + 10);
    end();
}

TEST(page_check, sqlite_by_itself_can_read_what_has_checksums)
{
    begin();
    (void)made();
    sqlite3 *plain = NULL;
    sqlite3_stmt *check = NULL;
    assert_int_equal(sqlite3_open_v2(path, &plain, SQLITE_OPEN_READONLY, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_prepare_v2(plain, "PRAGMA integrity_check", -1, &check, NULL),
                     SQLITE_OK);
    assert_int_equal(sqlite3_step(check), SQLITE_ROW);
    assert_string_equal((const char *)sqlite3_column_text(check, 0), "ok");
    (void)sqlite3_finalize(check);
    assert_int_equal(sqlite3_close(plain), SQLITE_OK);
    end();
}

/* Where there is no log SQLite leaves out pages, cuts the file, and takes them into use again. */
TEST(page_check, without_a_log_pages_come_and_go)
{
    begin();
    struct database *db = opened(os_real(), path, false);
    run(db, "PRAGMA page_size = 4096; PRAGMA journal_mode = MEMORY; PRAGMA synchronous = OFF;"
            "PRAGMA cache_size = 10");
    make_rows(db);
    for (int i = 0; i < 20; i++) {
        run(db, "BEGIN");
        run(db, "INSERT INTO rows SELECT n + 2000, t || t || t || t FROM rows WHERE n <= 400");
        run(db, "CREATE TABLE more AS SELECT t || t || t AS t FROM rows");
        run(db, i % 3 == 0 ? "DROP TABLE more" : "UPDATE more SET t = t || t");
        run(db, "DELETE FROM rows WHERE n > 2000");
        run(db, i % 2 == 0 ? "COMMIT" : "ROLLBACK");
        (void)try_run(db, "DROP TABLE IF EXISTS more");
    }
    int64_t sum = 0;
    assert_true(sum_of(db, &sum));
    database_close(db);
    assert_int_equal(expect_reads(), sum);
    flip(path, 2 * PAGE + 9, 4);
    expect_damage("page 3 is damaged");
    end();
}

/* ---- frames of the log ------------------------------------------------------------------------ */

TEST(page_check, damage_in_the_log_is_found_by_who_reads_it_later)
{
    begin();
    struct database *db = opened(os_real(), path, false);
    run(db, "PRAGMA page_size = 4096; PRAGMA journal_mode = WAL; PRAGMA wal_autocheckpoint = 0");
    make_rows(db);
    int64_t want = expect_reads(), sum = 0;
    long frames = (size_of(log_path) - 32) / FRAME, found = 0;
    assert_true(frames >= 8);
    for (long frame = 0; frame < frames; frame++) {
        for (long at = frame; at < FRAME; at += 211) {
            flip(log_path, 32 + frame * FRAME + at, 16);
            /* Frames of pages that were written again are not read; page numbers are looked up in
             * memory, and stand in the sum. */
            if (reads(&sum)) {
                assert_int_equal(sum, want);
            } else {
                assert_int_equal(err.status, DEED_CORRUPT);
                found++;
            }
            flip(log_path, 32 + frame * FRAME + at, 16);
        }
    }
    assert_true(found > 100);
    assert_int_equal(expect_reads(), want);

    /* It is not brought over into the database, where it would get a good checksum. */
    flip(log_path, 32 + (frames - 1) * FRAME + 24 + 1000, 1);
    expect_damage("rows.db-wal: frame ");
    expect_message(err, "is damaged: its checksum does not match");
    expect_status(DEED_CORRUPT, try_run(db, "PRAGMA wal_checkpoint(TRUNCATE)"));
    flip(log_path, 32 + (frames - 1) * FRAME + 24 + 1000, 1);
    run(db, "PRAGMA wal_checkpoint(TRUNCATE)");
    assert_int_equal(expect_reads(), want);
    database_close(db);
    end();
}

/* Frames of the log's life before do not count for this one's. */
TEST(page_check, a_log_that_is_begun_anew_is_read)
{
    begin();
    struct database *db = opened(os_real(), path, false);
    run(db, "PRAGMA page_size = 4096; PRAGMA journal_mode = WAL; PRAGMA wal_autocheckpoint = 0");
    make_rows(db);
    for (int i = 0; i < 5; i++) {
        run(db, "PRAGMA wal_checkpoint(PASSIVE)");
        run(db, "UPDATE rows SET n = n + 10000 WHERE n % 3 = 0");
        (void)expect_reads();
        run(db, "UPDATE rows SET n = n - 10000 WHERE n > 10000");
        (void)expect_reads();
    }
    database_close(db);
    (void)expect_reads();
    end();
}

/* With so little memory its pages are written in the midst of a transaction, read again, and written
 * again in place; it may be undone, whole or in part. */
TEST(page_check, a_transaction_larger_than_memory_reads_its_own)
{
    begin();
    struct database *db = opened(os_real(), path, false), *reader = NULL;
    run(db, "PRAGMA page_size = 4096; PRAGMA journal_mode = WAL; PRAGMA wal_autocheckpoint = 0;"
            "PRAGMA cache_size = 8");
    make_rows(db);
    int64_t before = expect_reads(), sum = 0;
    for (int i = 0; i < 12; i++) {
        run(db, "BEGIN");
        run(db, "UPDATE rows SET t = t || 'x'");
        run(db, "UPDATE rows SET t = t || 'y' WHERE n % 2 = 0");
        run(db, "SAVEPOINT s; UPDATE rows SET t = 'z' || t");
        if (i % 3 == 0) run(db, "ROLLBACK TO s");
        run(db, "RELEASE s; UPDATE rows SET t = substr(t, 1, length(t) - 1)");
        if (!sum_of(db, &sum)) fail_msg("%s", err.message);
        assert_int_equal(expect_reads(), before); /* not committed */
        run(db, i % 4 == 1 ? "ROLLBACK" : "COMMIT");
        if (!sum_of(db, &sum)) fail_msg("%s", err.message);
        before = expect_reads();
        assert_int_equal(before, sum);
        if (i == 7) run(db, "PRAGMA wal_checkpoint(PASSIVE)");
        database_close(reader);
        reader = opened(os_real(), path, true);
        run(reader, "BEGIN");
        assert_true(sum_of(reader, &sum));
    }
    database_close(reader);
    run(db, "PRAGMA wal_checkpoint(TRUNCATE)");
    assert_int_equal(expect_reads(), before);
    database_close(db);
    end();
}

TEST(page_check, a_file_system_lives_as_long_as_it_is_held)
{
    const char *name = NULL, *again = NULL;
    expect_ok(page_check_hold(NULL, &name, &err));
    expect_ok(page_check_hold(NULL, &again, &err));
    assert_string_equal(name, again);
    char kept[64];
    (void)snprintf(kept, sizeof kept, "%s", name);
    assert_non_null(sqlite3_vfs_find(kept));
    page_check_release(kept);
    assert_non_null(sqlite3_vfs_find(kept));
    page_check_release(kept);
    assert_null(sqlite3_vfs_find(kept));
}

TEST_MAIN(page_check)
