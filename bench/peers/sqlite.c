/* sqlite.c - SQLite as an event store inside the program: the hand-written loop.
 *
 *     sqlite MODE DIRECTORY [name=number]…
 *
 * WAL, synchronous=FULL, one table with a unique (stream, revision). One writer: SQLite has no more.
 *
 *     append   BEGIN IMMEDIATE, the stream's last revision is compared, `batch` INSERTs, COMMIT
 *     fill     `events` order lines, ten a stream, in large transactions
 *     read     one stream's events, one thread
 *     replay   every event in order
 *     project  every event into a table of another file, a thousand a transaction with the checkpoint */
#include "bench/peers/peer.h"

#include <sqlite3.h>

static struct peer peer;
static sqlite3 *db;

static void check(int code, const char *what)
{
    if (code != SQLITE_OK && code != SQLITE_ROW && code != SQLITE_DONE)
        peer_die("sqlite: %s: %s", what, sqlite3_errmsg(db));
}

static void run(const char *sql)
{
    check(sqlite3_exec(db, sql, NULL, NULL, NULL), sql);
}

static sqlite3_stmt *prepare(const char *sql)
{
    sqlite3_stmt *stmt = NULL;
    check(sqlite3_prepare_v3(db, sql, -1, SQLITE_PREPARE_PERSISTENT, &stmt, NULL), sql);
    return stmt;
}

static void step(sqlite3_stmt *stmt)
{
    check(sqlite3_step(stmt), sqlite3_sql(stmt));
    check(sqlite3_reset(stmt), sqlite3_sql(stmt));
}

static void open_files(void)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/events.db", peer.address);
    check(sqlite3_open(path, &db), path);
    run("PRAGMA journal_mode=WAL");
    run("PRAGMA synchronous=FULL");
    run("PRAGMA cache_size=-262144");
    run("CREATE TABLE IF NOT EXISTS events (position INTEGER PRIMARY KEY, stream TEXT NOT NULL,"
        " revision INTEGER NOT NULL, type TEXT NOT NULL, data TEXT NOT NULL,"
        " UNIQUE (stream, revision))");
}

static const char insert_sql[] =
    "INSERT INTO events (stream, revision, type, data) VALUES (?1, ?2, 'Measured', ?3)";

static void append(void)
{
    sqlite3_stmt *begin = prepare("BEGIN IMMEDIATE"), *commit = prepare("COMMIT");
    sqlite3_stmt *last = prepare("SELECT max(revision) FROM events WHERE stream = ?1");
    sqlite3_stmt *insert = prepare(insert_sql);
    int64_t expected = -1;
    uint64_t now = 0;
    char stream[64];
    snprintf(stream, sizeof stream, "bench-%d-%" PRIu64, (int)getpid(), bench_now());
    check(sqlite3_bind_text(last, 1, stream, -1, SQLITE_STATIC), "bind");
    check(sqlite3_bind_text(insert, 1, stream, -1, SQLITE_STATIC), "bind");
    check(sqlite3_bind_text(insert, 3, (char *)peer.data.ptr, (int)peer.data.len, SQLITE_STATIC),
          "bind");
    peer_begin(&peer);
    for (now = peer.begun_ns; now < peer.end_ns;) {
        uint64_t started = now;
        step(begin);
        check(sqlite3_step(last), "last");
        bool none = sqlite3_column_type(last, 0) == SQLITE_NULL;
        if ((none ? -1 : sqlite3_column_int64(last, 0)) != expected) peer_die("conflict");
        check(sqlite3_reset(last), "last");
        for (uint64_t i = 0; i < peer.batch; i++) {
            check(sqlite3_bind_int64(insert, 2, ++expected), "bind");
            step(insert);
        }
        step(commit);
        now = bench_now();
        peer_answered(&peer, started, now);
    }
    peer.clients = 1;
    peer_report(&peer, peer.batch);
}

/* Streams take turns, as events come; ten a stream. */
static void fill(void)
{
    sqlite3_stmt *insert = prepare(insert_sql);
    uint64_t streams = peer.events / 10;
    char stream[64], line[BENCH_LINE_SIZE + 1];
    uint64_t begun = bench_now();
    for (uint64_t n = 0; n < streams * 10; n++) {
        if (n % 10000 == 0) run(n == 0 ? "BEGIN" : "COMMIT; BEGIN");
        bench_line(n, line);
        snprintf(stream, sizeof stream, "stream-%" PRIu64, n % streams);
        check(sqlite3_bind_text(insert, 1, stream, -1, SQLITE_STATIC), "bind");
        check(sqlite3_bind_int64(insert, 2, (int64_t)(n / streams)), "bind");
        check(sqlite3_bind_text(insert, 3, line, BENCH_LINE_SIZE, SQLITE_STATIC), "bind");
        step(insert);
    }
    run("COMMIT; PRAGMA wal_checkpoint(TRUNCATE)");
    peer_report_all(&peer, streams * 10, bench_now() - begun);
}

static void read_streams(void)
{
    sqlite3_stmt *select = prepare("SELECT position, revision, type, data FROM events"
                                   " WHERE stream = ?1 ORDER BY revision LIMIT ?2");
    char stream[64];
    uint64_t touched = 0;
    peer_begin(&peer);
    uint64_t now = peer.begun_ns;
    for (uint64_t i = 1; now < peer.end_ns; i++) {
        uint64_t started = now, rows = 0;
        snprintf(stream, sizeof stream, "stream-%" PRIu64, peer_mix(i) % peer.streams);
        check(sqlite3_bind_text(select, 1, stream, -1, SQLITE_STATIC), "bind");
        check(sqlite3_bind_int64(select, 2, (int64_t)peer.per_read), "bind");
        while (sqlite3_step(select) == SQLITE_ROW) {
            rows++;
            touched += (uint64_t)sqlite3_column_bytes(select, 3);
        }
        check(sqlite3_reset(select), "read");
        if (rows != peer.per_read) peer_die("%s has %" PRIu64 " events", stream, rows);
        now = bench_now();
        peer_answered(&peer, started, now);
    }
    if (touched == 0) peer_die("nothing was read");
    peer.clients = 1;
    peer_report(&peer, peer.per_read);
}

static void replay(void)
{
    sqlite3_stmt *select =
        prepare("SELECT position, stream, revision, type, data FROM events ORDER BY position");
    uint64_t count = 0, touched = 0, begun = bench_now();
    while (sqlite3_step(select) == SQLITE_ROW) {
        const unsigned char *data = sqlite3_column_text(select, 4);
        touched += data[0] + (uint64_t)sqlite3_column_bytes(select, 1);
        count++;
    }
    if (touched == 0) peer_die("nothing was read");
    peer_report_all(&peer, count, bench_now() - begun);
}

static void project(void)
{
    char sql[4200];
    snprintf(sql, sizeof sql, "ATTACH '%s/rows.db' AS target", peer.address);
    run(sql);
    run("PRAGMA target.journal_mode=WAL");
    run("PRAGMA target.synchronous=NORMAL"); /* as our read models, which the log can rebuild */
    run("DROP TABLE IF EXISTS target.lines");
    run("CREATE TABLE target.lines (order_id TEXT NOT NULL, line_id INTEGER NOT NULL, product TEXT,"
        " quantity INTEGER, price INTEGER, total INTEGER, PRIMARY KEY (order_id, line_id))"
        " WITHOUT ROWID");
    run("CREATE TABLE IF NOT EXISTS target.checkpoint (id INTEGER PRIMARY KEY, position INTEGER)");
    sqlite3_stmt *insert = prepare("INSERT INTO target.lines VALUES (?1, ?2, ?3, ?4, ?5, ?6)");
    sqlite3_stmt *checkpoint = prepare("INSERT OR REPLACE INTO target.checkpoint VALUES (1, ?1)");
    sqlite3_stmt *select = prepare(
        "SELECT position, data FROM events WHERE position > ?1 ORDER BY position LIMIT 1000");
    struct arena arena;
    arena_init(&arena, 1u << 20);
    int64_t position = 0;
    uint64_t count = 0, rows = 1, begun = bench_now();
    while (rows > 0) {
        rows = 0;
        run("BEGIN");
        check(sqlite3_bind_int64(select, 1, position), "bind");
        while (sqlite3_step(select) == SQLITE_ROW) {
            struct peer_line line;
            arena_reset(&arena);
            position = sqlite3_column_int64(select, 0);
            peer_line(&arena,
                      (deed_bytes){sqlite3_column_text(select, 1),
                                   (size_t)sqlite3_column_bytes(select, 1)},
                      &line);
            check(sqlite3_bind_text(insert, 1, line.order_id.ptr, (int)line.order_id.len,
                                    SQLITE_STATIC),
                  "bind");
            check(sqlite3_bind_int64(insert, 2, line.line_id), "bind");
            check(sqlite3_bind_text(insert, 3, line.product_id.ptr, (int)line.product_id.len,
                                    SQLITE_STATIC),
                  "bind");
            check(sqlite3_bind_int64(insert, 4, line.quantity), "bind");
            check(sqlite3_bind_int64(insert, 5, line.price), "bind");
            check(sqlite3_bind_int64(insert, 6, line.total), "bind");
            step(insert);
            rows++;
        }
        check(sqlite3_reset(select), "select");
        check(sqlite3_bind_int64(checkpoint, 1, position), "bind");
        step(checkpoint);
        run("COMMIT");
        count += rows;
    }
    arena_done(&arena);
    peer_report_all(&peer, count, bench_now() - begun);
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*run)(void);
    } modes[] = {{"append", append}, {"fill", fill},       {"read", read_streams},
                 {"replay", replay}, {"project", project}, {NULL, NULL}};
    peer_options(argc, argv, &peer);
    open_files();
    for (size_t i = 0; modes[i].name != NULL; i++) {
        if (strcmp(modes[i].name, peer.mode) != 0) continue;
        modes[i].run();
        return 0;
    }
    peer_die("sqlite: no mode \"%s\"", peer.mode);
}
