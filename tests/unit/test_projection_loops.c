/* test_projection_loops.c - belongs to projections.c and to what it stands on, SQLite included: short
 * scenarios, in each of which the k-th operation of the disk, or the k-th allocation, fails, once and
 * for good; or the power goes before it.
 *
 * After each: whoever was told of a failure was told a true one; what still lives catches up by itself;
 * after a crash the rows are the fold of the log to their checkpoint, and then to the log's end.
 *
 * sanitize: asan */
#include "unit/test.h"

#include "memory.h"
#include "os/os_sim.h"
#include "projection/database.h"
#include "projection/projections.h"

#include <errno.h>
#include <inttypes.h>

#define ROOT    "/data"
#define SECOND  UINT64_C(1000000000)
#define STREAMS 3

/* ---- the fixture ---------------------------------------------------------------------------- */

static struct os_sim *sim;
static struct os *os;
static struct store *store;
static struct projections *projections;
static struct deed_error err;
static uint64_t appended_count; /* events of ours: the n-th has position n + 2 */
static unsigned factor;         /* of the text that is wanted */
static uint32_t settle_pages;

enum fault { NOTHING, MEMORY, OPERATION, FULL, POWER };
static const char *const fault_names[] = {"nothing", "allocation", "operation", "write",
                                          "power before"};
static enum fault fault;
static char when[160];

static const char *text_of(unsigned with_factor)
{
    static char text[600];
    (void)snprintf(text, sizeof text,
                   "-- projection: totals\n-- tables\n"
                   "CREATE TABLE totals (stream TEXT PRIMARY KEY, count INTEGER NOT NULL,"
                   " sum INTEGER NOT NULL, hash INTEGER NOT NULL);\n"
                   "-- on Added\n"
                   "INSERT INTO totals VALUES (:stream, 1, :data.n, :data.n)\n"
                   " ON CONFLICT (stream) DO UPDATE SET count = count + 1, sum = sum + :data.n,"
                   " hash = (hash * %u + :data.n) %% 1000003;\n",
                   with_factor);
    return text;
}

/* A failure must be what was made to fail. */
static bool failed_rightly(deed_status status)
{
    bool stopped = status == DEED_STOPPED || status == DEED_UNKNOWN;
    switch (fault) {
    case MEMORY:
        return status == DEED_NO_MEMORY || stopped;
    case OPERATION:
    case POWER:
        return status == DEED_IO || stopped;
    case FULL:
        return status == DEED_FULL || status == DEED_IO || stopped;
    default:
        return false;
    }
}

static bool went_well(deed_status status, const char *what)
{
    if (status == DEED_OK) return true;
    if (!failed_rightly(status)) {
        fail_msg("%s: %s: %s: %s", when, what, deed_status_name(status), err.message);
    }
    if (err.message[0] == '\0') fail_msg("%s: %s: no message", when, what);
    return false;
}

static bool open_store(void)
{
    struct store_options options = {.no_threads = true, .segment_size = 64 << 10};
    err = (struct deed_error){0};
    return went_well(store_open(os, ROOT, &options, &store, &err), "open");
}

static bool open_set(void)
{
    struct projections_options options = {
        .no_threads = true, .batch_count_max = 7, .settle_page_count = settle_pages};
    err = (struct deed_error){0};
    return went_well(projections_open(store, &options, &projections, &err), "open projections");
}

static bool add(void)
{
    err = (struct deed_error){0};
    deed_status status =
        projections_add(projections, DEED_STR("totals.sql"), deed_str_of(text_of(factor)), &err);
    return went_well(status, "add");
}

static void step_all(void)
{
    for (unsigned i = 0; i < 200 && projections_step(projections); i++)
        continue;
}

static bool append(void)
{
    char stream[8], data[64];
    uint64_t n = appended_count;
    (void)snprintf(stream, sizeof stream, "t-%u", (unsigned)(n % STREAMS));
    (void)snprintf(data, sizeof data, "{\"n\":%" PRIu64 "}", n);
    struct deed_new_event event = {.stream = deed_str_of(stream),
                                   .type = DEED_STR("Added"),
                                   .data = deed_bytes_of(deed_str_of(data))};
    struct deed_append a = {.events = &event, .event_count = 1};
    struct deed_appended answer;
    err = (struct deed_error){0};
    if (!went_well(store_append(store, &a, &answer, &err), "append")) return false;
    appended_count++;
    return true;
}

static void append_many(unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        if (!append()) return;
    }
}

static void close_all(void)
{
    projections_close(projections);
    projections = NULL;
    store_close(store);
    store = NULL;
}

/* ---- checks --------------------------------------------------------------------------------- */

struct totals {
    uint64_t count[STREAMS], sum[STREAMS], hash[STREAMS];
};

static struct totals fold(uint64_t until, unsigned by)
{
    struct totals t = {0};
    for (uint64_t n = 0; n + 2 <= until; n++) {
        unsigned k = (unsigned)(n % STREAMS);
        t.hash[k] = t.count[k] == 0 ? n : (t.hash[k] * by + n) % 1000003;
        t.count[k]++;
        t.sum[k] += n;
    }
    return t;
}

static int64_t number(struct database *db, const char *sql)
{
    sqlite3_stmt *statement = NULL;
    int64_t value = 0;
    if (database_prepare(db, DATABASE_TRUSTED, deed_str_of(sql), false, &statement, NULL, &err) !=
        DEED_OK) {
        fail_msg("%s: %s", when, err.message);
    }
    if (sqlite3_step(statement) == SQLITE_ROW) value = sqlite3_column_int64(statement, 0);
    (void)sqlite3_finalize(statement);
    return value;
}

/* The rows in this file are the fold of the log to its checkpoint, which is returned. */
static uint64_t expect_fold(const char *path)
{
    struct database *db = NULL;
    struct database_options options = {.path = path, .read_only = true};
    if (database_open(os, &options, &db, &err) != DEED_OK) fail_msg("%s: %s", when, err.message);
    uint64_t checkpoint = (uint64_t)number(db, "SELECT position FROM _deedbook_checkpoint");
    bool other = number(db, "SELECT instr(text, '* 37') > 0 FROM _deedbook_file") != 0;
    struct totals wanted = fold(checkpoint, other ? 37 : 31);
    for (unsigned k = 0; k < STREAMS; k++) {
        char sql[100];
        static const char *const columns[] = {"count", "sum", "hash"};
        uint64_t values[] = {wanted.count[k], wanted.sum[k], wanted.hash[k]};
        for (size_t c = 0; c < 3; c++) {
            (void)snprintf(sql, sizeof sql, "SELECT %s FROM totals WHERE stream = 't-%u'",
                           columns[c], k);
            uint64_t got = (uint64_t)number(db, sql);
            if (got == values[c]) continue;
            fail_msg("%s: %s of t-%u at %" PRIu64 " is %" PRIu64 ", not %" PRIu64, when, columns[c],
                     k, checkpoint, got, values[c]);
        }
    }
    database_close(db);
    return checkpoint;
}

static uint64_t expect_live_fold(void)
{
    struct projection_lease *lease = NULL;
    const char *path = NULL;
    if (projections_lease(projections, DEED_STR("totals"), 0, 0, &lease, &path, NULL, &err) !=
        DEED_OK) {
        fail_msg("%s: lease: %s", when, err.message);
    }
    uint64_t checkpoint = expect_fold(path);
    projections_release(lease);
    return checkpoint;
}

/* Nothing fails any more: it gets to the log's end by itself. */
static void expect_recovery(void)
{
    struct arena arena;
    struct projection_status *list = NULL;
    size_t count = 0;
    arena_init(&arena, 1 << 20);
    for (unsigned round = 0; round < 30; round++) {
        os_sim_advance(sim, SECOND);
        (void)store_step(store);
        step_all();
    }
    expect_ok(projections_list(projections, &arena, &list, &count, &err));
    assert_int_equal(count, 1);
    if (list[0].state != PROJECTION_RUNNING || list[0].lag > 0 || list[0].rebuilding) {
        fail_msg("%s: state %d at %" PRIu64 ", %" PRIu64 " late: %.*s", when, list[0].state,
                 list[0].position, list[0].lag, DEED_FMT(list[0].error));
    }
    arena_done(&arena);
    assert_int_equal(expect_live_fold(), store_position(store));
}

/* ---- scenarios ------------------------------------------------------------------------------ */

static void with_log(void)
{
    (void)open_store();
    append_many(20);
}

static void with_set(void)
{
    with_log();
    (void)open_set();
}

static void with_rows(void)
{
    with_set();
    (void)add();
    step_all();
}

static void with_closed_rows(void)
{
    with_rows();
    close_all();
}

static void with_crashed_rows(void)
{
    with_rows();
    append_many(10);
    step_all();
    os_sim_crash(sim);
    close_all();
}

static void with_small_log(void)
{
    settle_pages = 1;
    with_rows();
}

static void with_new_events(void)
{
    with_rows();
    append_many(20);
}

static void make_first(void)
{
    if (!open_set()) return;
    (void)add();
}

static void add_first(void)
{
    if (add()) step_all();
}

static void follow(void)
{
    step_all();
    if (append()) step_all();
}

static void follow_one_by_one(void)
{
    for (unsigned i = 0; i < 6; i++) {
        if (append()) (void)projections_step(projections);
    }
}

static void save_place(void)
{
    step_all();
    os_sim_advance(sim, 2 * SECOND);
    step_all();
}

static void rebuild(void)
{
    err = (struct deed_error){0};
    if (went_well(projections_rebuild(projections, DEED_STR("totals"), false, &err), "rebuild")) {
        step_all();
    }
}

static void change_text(void)
{
    factor = 37;
    if (add()) step_all();
}

static void pause_and_resume(void)
{
    (void)!projections_pause(projections, DEED_STR("totals"), NULL);
    step_all();
    (void)!projections_resume(projections, DEED_STR("totals"), NULL);
    step_all();
}

static void reopen(void)
{
    if (open_store() && open_set() && add()) step_all();
}

static void close_and_reopen(void)
{
    close_all();
    reopen();
}

static void ask_the_past(void)
{
    for (uint64_t position = 5; position < 20; position += 7) {
        struct projection_lease *lease = NULL;
        const char *path = NULL;
        err = (struct deed_error){0};
        deed_status status = projections_lease(projections, DEED_STR("totals"), position, 1000,
                                               &lease, &path, NULL, &err);
        if (!went_well(status, "the past")) continue;
        os_sim_heal(sim); /* what it says is looked at in peace */
        os_sim_power_off_after(sim, DEED_NONE);
        uint64_t got = expect_fold(path);
        if (got != position) fail_msg("%s: the past is at %" PRIu64, when, got);
        projections_release(lease);
        return;
    }
}

static const struct scenario {
    const char *name;
    void (*prepare)(void), (*act)(void);
} scenarios[] = {
    {"making the first projection", with_log, make_first},
    {"adding and catching up", with_set, add_first},
    {"following", with_new_events, follow},
    {"following one by one", with_rows, follow_one_by_one},
    {"following with a small write-ahead log", with_small_log, follow_one_by_one},
    {"saving the place", with_new_events, save_place},
    {"a rebuild", with_rows, rebuild},
    {"a rebuild while events wait", with_new_events, rebuild},
    {"another text", with_rows, change_text},
    {"a pause", with_new_events, pause_and_resume},
    {"opening", with_closed_rows, reopen},
    {"opening after a crash", with_crashed_rows, reopen},
    {"closing and opening", with_new_events, close_and_reopen},
    {"a question about the past", with_rows, ask_the_past},
};
#define SCENARIOS (sizeof scenarios / sizeof scenarios[0])

/* ---- the loops ------------------------------------------------------------------------------ */

static uint64_t counted(void)
{
    return os_sim_count(sim, fault == MEMORY ? OS_SIM_ALLOCATE
                             : fault == FULL ? OS_SIM_WRITE
                                             : OS_SIM_ANY);
}

static void arm(uint64_t k, bool for_good)
{
    uint64_t more = for_good ? DEED_NONE : 0;
    if (fault == MEMORY) os_sim_fail(sim, OS_SIM_ALLOCATE, k, more, ENOMEM);
    if (fault == OPERATION) os_sim_fail(sim, OS_SIM_ANY, k, more, EIO);
    if (fault == FULL) os_sim_fail(sim, OS_SIM_WRITE, k, more, ENOSPC);
    if (fault == POWER) os_sim_power_off_after(sim, k - 1);
}

/* In what still lives; a store that stopped writing goes on being read. */
static void expect_living(void)
{
    if (store == NULL || fault == POWER) return;
    fault = NOTHING;
    if (projections == NULL && !open_set()) return;
    (void)add();
    expect_recovery();
}

static void expect_healthy(bool kill)
{
    fault = NOTHING;
    if (kill) {
        os_sim_kill(sim);
    } else {
        os_sim_crash(sim);
    }
    close_all();
    os_sim_power_off_after(sim, DEED_NONE);
    (void)open_store();
    appended_count = store_position(store) - 1; /* one of unknown outcome may be there */
    (void)open_set();
    (void)add();
    (void)expect_live_fold();
    (void)append();
    expect_recovery();
    close_all();
}

static bool at_once;     /* the power goes soon after what failed, and spoils what it can */
static uint64_t machine; /* another one, where more than one is tried */

/* One life; false: k is past the last that could fail. */
static bool run(const struct scenario *s, enum fault kind, uint64_t k, bool for_good)
{
    struct os_sim_faults faults = os_sim_faults_crash();
    for (int f = OS_SIM_LOST_WRITE; at_once && f <= OS_SIM_SCRAMBLED; f++)
        faults.ppm[f] = 1000000;
    sim = os_sim_create(k + machine * 100000, &faults);
    os = os_sim_os(sim);
    memory_machine = sim;
    appended_count = 0;
    factor = 31;
    settle_pages = 0;
    fault = NOTHING;
    (void)snprintf(when, sizeof when, "%s", s->name);
    s->prepare();
    (void)snprintf(when, sizeof when, "%s: %s %" PRIu64 " fails %s", s->name, fault_names[kind], k,
                   for_good ? "for good" : "once");
    fault = kind;
    uint64_t before = counted();
    arm(k, for_good);
    if (at_once && kind == FULL) os_sim_power_off_at(sim, OS_SIM_WRITE, k, 2 * machine);
    s->act();
    bool struck = counted() - before >= k;
    os_sim_heal(sim);
    if (!at_once) expect_living();
    expect_healthy(!at_once && k % 2 == 0);
    memory_machine = NULL;
    os_sim_destroy(sim);
    return struck;
}

/* Every k of the first ones, then ever fewer of them, unless all are asked for. */
static void run_all(enum fault kind, bool for_good)
{
    bool all = getenv("LOOPS_ALL") != NULL;
    uint64_t lives = 0, sparse = kind == MEMORY ? 12 : 24;
    for (size_t i = 0; i < SCENARIOS; i++) {
        uint64_t k = 1;
        while (run(&scenarios[i], kind, k, for_good)) {
            k += all ? 1 : 1 + k / sparse;
            lives++;
        }
        if (k == 1 && kind != FULL) fail_msg("%s: nothing could fail", scenarios[i].name);
    }
    print_message("%zu scenarios, %" PRIu64 " lives\n", SCENARIOS, lives);
}

__attribute__((constructor)) static void configure(void)
{
    memory_configure_sqlite();
}

TEST(projection_loops, an_allocation_fails_once)
{
    run_all(MEMORY, false);
}

TEST(projection_loops, allocations_fail_for_good)
{
    run_all(MEMORY, true);
}

TEST(projection_loops, an_operation_of_the_disk_fails_once)
{
    run_all(OPERATION, false);
}

TEST(projection_loops, operations_of_the_disk_fail_for_good)
{
    run_all(OPERATION, true);
}

TEST(projection_loops, a_write_finds_the_disk_full_once)
{
    run_all(FULL, false);
}

TEST(projection_loops, writes_find_the_disk_full_for_good)
{
    run_all(FULL, true);
}

TEST(projection_loops, the_power_goes)
{
    run_all(POWER, false);
}

/* SQLite's log was brought over in part, and written on behind: what was synced of it must not be what
 * a torn sector spoils. */
TEST(projection_loops, the_power_goes_soon_after_a_write_failed)
{
    at_once = true;
    for (size_t i = 0; i < SCENARIOS; i++) {
        const struct scenario *s = &scenarios[i];
        for (machine = 1; s->prepare == with_small_log && machine <= 8; machine++) {
            for (uint64_t k = 1; run(s, FULL, k, false); k++)
                continue;
        }
        for (machine = 1; s->act == rebuild && machine <= 3; machine++) {
            for (uint64_t k = 1; run(s, POWER, k, false); k++)
                continue;
        }
    }
    at_once = false;
    machine = 0;
}

static void expect_first_generation(void)
{
    struct projection_lease *lease = NULL;
    const char *path = NULL;
    expect_ok(projections_lease(projections, DEED_STR("totals"), 0, 0, &lease, &path, NULL, &err));
    bool first = strstr(path, "totals.g1.db") != NULL;
    projections_release(lease);
    if (!first) fail_msg("%s: the rows had to be built anew", when);
}

/* A sync fails, the projection is opened again, and the power goes `after` so many operations; false:
 * there are no so many syncs. */
static bool sync_and_power_fail(uint64_t seed, uint64_t k, uint64_t after)
{
    struct os_sim_faults faults = os_sim_faults_crash();
    for (int f = OS_SIM_LOST_WRITE; f <= OS_SIM_SCRAMBLED; f++) faults.ppm[f] = 1000000;
    sim = os_sim_create(seed, &faults);
    os = os_sim_os(sim);
    appended_count = 0;
    factor = 31;
    fault = NOTHING;
    settle_pages = 1 + (uint32_t)(seed % 4);
    with_rows();
    (void)snprintf(when, sizeof when, "machine %" PRIu64 ": sync %" PRIu64 " fails, power off after %" PRIu64,
                   seed, k, after);
    fault = OPERATION;
    uint64_t before = os_sim_count(sim, OS_SIM_SYNC);
    os_sim_fail(sim, OS_SIM_SYNC, k, 0, EIO);
    os_sim_power_off_at(sim, OS_SIM_SYNC, k, after);
    bool struck = false;
    for (unsigned i = 0; i < 8 && !struck; i++) {
        if (append()) (void)projections_step(projections);
        struck = os_sim_count(sim, OS_SIM_SYNC) - before >= k;
    }
    for (unsigned round = 0; round < 30 && os_sim_powered(sim); round++) {
        os_sim_advance(sim, SECOND);
        step_all();
    }
    fault = NOTHING;
    os_sim_crash(sim);
    close_all();
    os_sim_heal(sim);
    (void)open_store();
    appended_count = store_position(store) - 1;
    (void)open_set();
    (void)add();
    (void)expect_live_fold();
    expect_recovery();
    expect_first_generation();
    close_all();
    os_sim_destroy(sim);
    return struck;
}

/* What a sync lost of SQLite's log is not what a later one makes durable. */
TEST(projection_loops, the_power_goes_soon_after_a_sync_failed)
{
    for (uint64_t seed = 1; seed <= 8; seed++) {
        bool more = true;
        for (uint64_t k = 1; more; k++) {
            for (uint64_t after = 1; after < 60; after += 1 + after / 16) {
                more = sync_and_power_fail(seed, k, after);
            }
        }
    }
}

#define WAL_HEAD  32
#define WAL_FRAME (24 + 4096)

static void read_wal(struct os_file *file, uint64_t offset, void *out, size_t size)
{
    size_t got = 0;
    expect_ok(os_file_read(file, offset, out, size, &got, &err));
    memset((uint8_t *)out + got, 0, size - got);
}

TEST(projection_loops, what_is_brought_over_is_padded_to_the_end_of_a_sector)
{
    uint8_t last[4096], before[4096], salt[8], frame_salt[8];
    struct os_dir *dir = NULL;
    struct os_file *file = NULL;
    uint64_t frames = 0;
    sim = os_sim_create(1, NULL);
    os = os_sim_os(sim);
    appended_count = 0;
    factor = 31;
    with_small_log();
    append_many(1);
    step_all();
    expect_ok(os_dir_open(os, ROOT "/projections", false, &dir, &err));
    expect_ok(os_file_open(dir, "totals.g1.db-wal", OS_READ, &file, &err));
    /* Frames of this use of the log have its salt; behind them there may be older ones. */
    read_wal(file, 16, salt, sizeof salt);
    for (;; frames++) {
        read_wal(file, WAL_HEAD + frames * WAL_FRAME + 8, frame_salt, sizeof frame_salt);
        if (memcmp(salt, frame_salt, sizeof salt) != 0) break;
    }
    assert_true(frames > 2);
    read_wal(file, WAL_HEAD + (frames - 1) * WAL_FRAME + 24, last, sizeof last);
    read_wal(file, WAL_HEAD + (frames - 2) * WAL_FRAME + 24, before, sizeof before);
    assert_memory_equal(last, before, sizeof last); /* SQLite pads with copies */
    os_file_close(file);
    os_dir_close(dir);
    close_all();
    os_sim_destroy(sim);
}

TEST_MAIN(projection_loops)
