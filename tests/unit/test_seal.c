/* test_seal.c - belongs to src/log/seal.c, sealed.c and view.c: sealing and rewriting segments, what
 * a crash or a failure in between leaves, and damage of every part of a sealed file. */
#include "store_fixture.h"

#include "log/sealed.h"
#include "store/store_state.h"

#include <errno.h>

/* Each append of a story is a sector: so many fill a segment of 64 KiB. */
#define PER_SEGMENT 15
#define WORDS_MAX   2000

static char expected[SENTENCE_SIZE];

/* "e1 e2 ... en", the words of a story. */
static const char *words_to(unsigned n)
{
    size_t len = 0;
    expected[0] = '\0';
    for (unsigned i = 1; i <= n; i++) {
        char word[16];
        int size = snprintf(word, sizeof word, "e%u", i);
        sentence_add(expected, &len, word, (size_t)size);
    }
    return expected;
}

static void tell(unsigned from, unsigned to)
{
    static const char *const streams[] = {"a-1", "a-2", "b-1"};
    for (unsigned i = from; i <= to; i++) {
        char word[16];
        (void)snprintf(word, sizeof word, "e%u", i);
        os_sim_advance(sim, SECOND);
        say(streams[i % 3], word);
    }
}

static struct log_seal_state seal_state(void)
{
    struct log_seal_state state;
    log_seal_get(store->log, &state);
    return state;
}

/* Let the sealer work until it has nothing to do, or fails. */
static void seal_all(void)
{
    while (log_seal(store->log) < SECOND)
        continue;
}

static void start_sealed(unsigned words)
{
    start();
    tell(1, words);
    seal_all();
}

static void expect_story(unsigned words)
{
    struct store_verify_report report;
    struct deed_info info;
    expect_words(words_to(words), .after_position = 1);
    expect_ok(store_verify(store, NULL, NULL, NULL, &report, &err));
    assert_int_equal(report.events, words + 1);
    store_info(store, &info);
    assert_true(info.writable);
    assert_int_equal(info.position, words + 1);
}

/* ---- sealing -------------------------------------------------------------------------------- */

static unsigned sealed_files, open_files, other_files;

static void count_name(void *context, const char *name)
{
    struct sealed_name sealed;
    uint32_t number;
    bool unfinished = false;
    (void)context;
    if (sealed_name_parse(name, &sealed, &unfinished) && !unfinished) {
        sealed_files++;
    } else if (segment_name_parse(name, &number)) {
        open_files++;
    } else {
        other_files++;
    }
}

static void count_files(void)
{
    struct os_dir *dir = NULL;
    sealed_files = open_files = other_files = 0;
    expect_ok(os_dir_open(os, ROOT "/log", false, &dir, &err));
    expect_ok(os_dir_list(dir, count_name, NULL, &err));
    os_dir_close(dir);
}

TEST(seal, closed_segments_are_sealed_and_serve_the_same)
{
    start_sealed(4 * PER_SEGMENT);
    assert_int_equal(seal_state().sealed, 4);
    assert_int_equal(seal_state().rounds, 4);
    count_files();
    assert_int_equal(sealed_files, 4);
    assert_int_equal(open_files, 1);
    assert_int_equal(other_files, 1); /* the marks */
    expect_story(4 * PER_SEGMENT);
    reopen();
    expect_story(4 * PER_SEGMENT);
    expect_words("e1 e4 e7", .stream = DEED_STR("a-2"), .count_max = 3);
    expect_words("e60 e59 e58", .backwards = true, .after_position = DEED_NONE, .count_max = 3);
    tell(61, 70);
    crash();
    open_store();
    expect_story(70);
    finish();
}

TEST(seal, sealed_segments_are_smaller_than_they_were)
{
    struct deed_info before, after;
    start();
    tell(1, PER_SEGMENT); /* one is closed, and nobody had to wait for the sealer yet */
    store_info(store, &before);
    seal_all();
    store_info(store, &after);
    assert_true(after.log_size < before.log_size - 40000);
    finish();
}

static bool never_wanted(void *context, uint32_t segment, uint64_t first, uint64_t last)
{
    (void)context, (void)segment;
    assert_true(last >= first);
    return false;
}

static deed_status no_commit(void *context, const struct commit *commit,
                             const struct commit_ref *ref, struct deed_error *e)
{
    unsigned *count = context;
    (void)ref, (void)e;
    *count += commit->event_count;
    return DEED_OK;
}

static deed_status no_damage(void *context, const struct log_damage *damage, struct deed_error *e)
{
    (void)context, (void)e;
    fail_msg("damage: %s", damage->what);
    return DEED_CORRUPT;
}

/* How many operations it takes to open a log whose sealed segments are not asked for. */
static uint64_t operations_to_open(unsigned words)
{
    struct os_dir *dir = NULL;
    struct log *log = NULL;
    unsigned events = 0;
    start_sealed(words);
    close_store();
    struct log_options how = {.segment_size = 64 << 10};
    struct log_visitor visitor = {
        .context = &events, .commit = no_commit, .damage = no_damage, .wanted = never_wanted};
    expect_ok(os_dir_open(os, ROOT, false, &dir, &err));
    uint64_t before = os_sim_count(sim, OS_SIM_ANY);
    expect_ok(log_open(os, dir, &how, &visitor, &log, &err));
    uint64_t operations = os_sim_count(sim, OS_SIM_ANY) - before;
    assert_true(events <= PER_SEGMENT);
    assert_int_equal(log_end(log), words + 1);
    log_close(log);
    os_dir_close(dir);
    finish();
    return operations;
}

TEST(seal, opening_costs_the_same_however_many_segments_are_sealed)
{
    assert_int_equal(operations_to_open(2 * PER_SEGMENT + 3),
                     operations_to_open(20 * PER_SEGMENT + 3));
}

/* Segments one fewer, as many and one more than may be open, all read. */
TEST(seal, files_and_memory_stay_within_their_options)
{
    enum { OPEN = 3, CACHE = 1 << 20 };
    for (unsigned segments = OPEN - 1; segments <= OPEN + 1; segments++) {
        struct store_metrics metrics;
        unsigned words = (segments - 1) * PER_SEGMENT + 3; /* the active one is open too */
        start_sealed(words);
        options.open_file_count_max = OPEN;
        options.cache_size = CACHE;
        reopen();
        expect_story(words);
        store_get_metrics(store, &metrics);
        assert_int_equal(metrics.files_open, segments < OPEN ? segments : OPEN);
        assert_true(metrics.cache_size > 0 && metrics.cache_size <= CACHE);
        finish();
    }
}

static void at_once(void *context, const struct deed_appended *answer, const struct deed_error *e)
{
    (void)context, (void)e;
    assert_non_null(answer);
}

/* Many small commits in a segment: the table has several blocks, with seams between them. */
TEST(seal, every_commit_is_found_across_the_tables_blocks)
{
    enum { COMMITS = 1200, GROUP = 60 };
    static struct deed_new_event events[GROUP];
    static struct deed_append appends[GROUP];
    start_machine(1);
    options.segment_size = 1 << 20;
    open_store();
    for (unsigned i = 0; i < COMMITS; i++) {
        char word[16];
        (void)snprintf(word, sizeof word, "e%u", i + 1);
        events[i % GROUP] = said("many-1", word);
        appends[i % GROUP] = (struct deed_append){.events = &events[i % GROUP], .event_count = 1};
        expect_ok(store_submit(store, &appends[i % GROUP], at_once, NULL, &err));
        if (i % GROUP == GROUP - 1) (void)committer_step(store);
        if (i % 100 == 0) os_sim_advance(sim, SECOND);
    }
    expect_ok(log_roll(store->log, &err));
    seal_all();
    struct sealed_footer footer;
    expect_ok(log_footer(store->log, 1, &footer, &err));
    assert_int_equal(footer.commit_count, COMMITS + 1);
    assert_true(footer.table_blocks > 4);
    /* Each by itself: no reader's window hides a wrong place. */
    for (uint64_t position = 2; position <= COMMITS + 1; position++) {
        struct log_reader *reader = log_reader_create(store->log);
        struct commit commit;
        int64_t recorded_at = 0;
        assert_non_null(reader);
        expect_ok(log_reader_load(reader, position, &commit, NULL, &err));
        assert_int_equal(commit.first_position, position);
        expect_ok(log_recorded_at(store->log, position, &recorded_at, &err));
        assert_int_equal(recorded_at, commit.recorded_at_ns);
        uint64_t after = 0;
        expect_ok(log_find_time(store->log, recorded_at - 1, &after, &err));
        assert_true(after <= position);
        expect_ok(log_find_time(store->log, recorded_at, &after, &err));
        assert_true(after > position);
        log_reader_destroy(reader);
    }
    finish();
}

TEST(seal, a_cursor_goes_on_while_its_segment_is_sealed_and_rewritten)
{
    struct deed_cursor *cursor = NULL;
    struct deed_event e;
    start();
    tell(1, 3 * PER_SEGMENT);
    expect_ok(store_read(store, &(struct deed_read_options){.after_position = 1, .follow = true},
                         &cursor, &err));
    for (unsigned i = 1; i <= 3 * PER_SEGMENT; i++) {
        expect_ok(cursor_next(cursor, &e, &err));
        assert_int_equal(e.position, i + 1);
        if (i == 5) seal_all();
        if (i == 9) expect_ok(log_rewrite(store->log, 1, &(struct log_rewrite){0}, &err));
        if (i == 20) {
            struct log_rewrite packed = {.compress_level = 3};
            expect_ok(log_rewrite(store->log, 2, &packed, &err));
        }
    }
    expect_status(DEED_END, cursor_next(cursor, &e, &err));
    cursor_close(cursor);
    finish();
}

TEST(seal, who_opened_read_only_finds_what_was_sealed_since)
{
    struct store *reading = NULL;
    struct deed_cursor *cursor = NULL;
    struct deed_event e;
    start();
    tell(1, 2 * PER_SEGMENT);
    struct store_options how = {.read_only = true, .no_threads = true};
    expect_ok(store_open(os, root, &how, &reading, &err));
    seal_all();
    expect_ok(store_read(reading, &(struct deed_read_options){.after_position = 1}, &cursor, &err));
    for (unsigned i = 1; i <= 2 * PER_SEGMENT; i++) {
        expect_ok(cursor_next(cursor, &e, &err));
        assert_int_equal(e.position, i + 1);
    }
    cursor_close(cursor);
    store_close(reading);
    finish();
}

TEST(seal, the_committer_waits_for_the_sealer_when_too_many_segments_wait)
{
    start();
    for (unsigned i = 0; i < 10; i++) {
        tell(i * PER_SEGMENT + 1, (i + 1) * PER_SEGMENT);
        assert_true(seal_state().waiting <= 3);
    }
    expect_story(10 * PER_SEGMENT);
    finish();
}

TEST(seal, while_sealing_fails_the_log_goes_on_and_says_so)
{
    start();
    tell(1, 2 * PER_SEGMENT + 1);
    os_sim_fail(sim, OS_SIM_RENAME, 1, DEED_NONE, EIO);
    seal_all();
    assert_true(seal_state().failing);
    assert_int_equal(seal_state().failures, 1);
    assert_non_null(strstr(seal_state().why, "rename"));
    assert_int_equal(log_backlog(store->log), 0);
    uint64_t tried = os_sim_count(sim, OS_SIM_RENAME);
    (void)log_seal(store->log); /* not at once again */
    assert_int_equal(os_sim_count(sim, OS_SIM_RENAME), tried);
    assert_int_equal(seal_state().failures, 1);
    tell(2 * PER_SEGMENT + 2, 8 * PER_SEGMENT);
    expect_story(8 * PER_SEGMENT);
    os_sim_heal(sim);
    os_sim_advance(sim, 10 * SECOND);
    seal_all();
    assert_false(seal_state().failing);
    assert_int_equal(seal_state().waiting, 0);
    expect_story(8 * PER_SEGMENT);
    finish();
}

TEST(seal, a_roll_closes_the_active_segment_and_an_empty_one_stays)
{
    start();
    tell(1, 3);
    expect_ok(log_roll(store->log, &err));
    expect_ok(log_roll(store->log, &err));
    assert_int_equal(log_segment_count(store->log), 2);
    seal_all();
    assert_int_equal(seal_state().sealed, 1);
    reopen();
    tell(4, 5);
    expect_story(5);
    finish();
}

/* ---- crashes and failures ------------------------------------------------------------------- */

/* Seal, and rewrite one segment compressed, as far as the disk lets it. */
static void seal_and_rewrite(void)
{
    struct log_rewrite packed = {.compress_level = 1};
    seal_all();
    if (seal_state().sealed > 1) (void)!log_rewrite(store->log, 2, &packed, &err);
}

TEST(seal, a_crash_at_any_moment_loses_nothing)
{
    bool more = true;
    for (uint64_t k = 0; more; k++) {
        start_machine(k + 1);
        open_store();
        tell(1, 3 * PER_SEGMENT);
        os_sim_power_off_after(sim, k);
        seal_and_rewrite();
        more = !os_sim_powered(sim);
        if (k % 3 == 0) {
            os_sim_kill(sim);
            close_store();
        } else {
            crash();
        }
        os_sim_power_off_after(sim, DEED_NONE);
        open_store();
        expect_words(words_to(3 * PER_SEGMENT), .after_position = 1);
        seal_and_rewrite();
        expect_story(3 * PER_SEGMENT);
        crash();
        open_store();
        expect_story(3 * PER_SEGMENT);
        finish();
    }
}

static void fail_each(enum os_sim_op op, uint64_t more_failures, int error)
{
    bool struck = true;
    for (uint64_t k = 1; struck; k++) {
        start_machine(k);
        open_store();
        tell(1, 3 * PER_SEGMENT);
        uint64_t before = os_sim_count(sim, op);
        os_sim_fail(sim, op, k, more_failures, error);
        seal_and_rewrite();
        struck = os_sim_count(sim, op) - before >= k;
        os_sim_heal(sim);
        if (log_stopped(store->log) == NULL) {
            os_sim_advance(sim, 10 * SECOND);
            seal_and_rewrite();
            expect_story(3 * PER_SEGMENT);
        }
        if (k % 2 == 0) {
            os_sim_kill(sim);
            close_store();
            open_store();
            seal_and_rewrite();
        }
        crash();
        open_store();
        expect_story(3 * PER_SEGMENT);
        finish();
    }
}

TEST(seal, each_operation_may_fail_once)
{
    fail_each(OS_SIM_ANY, 0, EIO);
}

TEST(seal, each_operation_may_fail_for_good)
{
    fail_each(OS_SIM_ANY, DEED_NONE, EIO);
}

TEST(seal, the_disk_may_be_full)
{
    fail_each(OS_SIM_WRITE, DEED_NONE, ENOSPC);
}

/* What the device holds is not what was written: that is found before the old file goes. */
TEST(seal, a_write_that_went_wrong_is_found_while_the_old_file_is_there)
{
    const char *path = ROOT "/log/0000000001.00000000000000000001.1.sealed.new";
    start();
    tell(1, PER_SEGMENT);
    bool rotten = false;
    for (unsigned steps = 0; steps < 100 && seal_state().rounds == 0; steps++) {
        (void)log_seal(store->log);
        if (!rotten) rotten = os_sim_rot(sim, path, 5000, OS_SIM_ROT_FLIP) == DEED_OK;
        if (seal_state().failures > 0) break;
    }
    assert_true(rotten);
    assert_int_equal(seal_state().failures, 1);
    assert_non_null(
        strstr(seal_state().why, "the device gives back other bytes than were written"));
    os_sim_advance(sim, 10 * SECOND);
    seal_all();
    crash();
    open_store();
    expect_story(PER_SEGMENT);
    finish();
}

/* A segment was begun, its name could not be synced, nor the file removed. The next process finds it, and a
 * sync of the directory says nothing any more. */
TEST(seal, an_empty_segment_whose_name_was_not_synced_loses_nothing)
{
    for (uint64_t seed = 1; seed <= 40; seed++) {
        start_machine(seed);
        open_store();
        tell(1, PER_SEGMENT - 1); /* and $log-created */
        os_sim_fail(sim, OS_SIM_DIR_SYNC, 1, 0, EIO);
        os_sim_fail(sim, OS_SIM_REMOVE, 1, 0, EIO);
        assert_true(append_event(said("a-1", "lost")) != DEED_OK);
        os_sim_kill(sim);
        close_store();
        os_sim_heal(sim);
        open_store();
        count_files();
        assert_int_equal(open_files, 2);
        tell(PER_SEGMENT, PER_SEGMENT + 2);
        crash();
        open_store();
        expect_story(PER_SEGMENT + 2);
        finish();
    }
}

/* One that was to take an empty one's place goes at the next opening; what only looks like it stays. */
TEST(seal, a_segment_that_did_not_get_its_name_goes)
{
    static const char *const names[] = {"0000000001.seg.new", "0000000001.seg.newer",
                                        "000000001.seg.new", "0000000001.seg.new.new"};
    start();
    tell(1, 1);
    close_store();
    struct os_dir *dir = NULL;
    struct os_file *file = NULL;
    expect_ok(os_dir_open(os, ROOT "/log", false, &dir, &err));
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        expect_ok(os_file_open(dir, names[i], OS_WRITE | OS_CREATE, &file, &err));
        os_file_close(file);
    }
    open_store();
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        deed_status status = os_file_open(dir, names[i], OS_READ, &file, NULL);
        assert_int_equal(status, i == 0 ? DEED_NOT_FOUND : DEED_OK);
        if (status == DEED_OK) os_file_close(file);
    }
    os_dir_close(dir);
    expect_story(1);
    finish();
}

/* A log with one closed segment, before it is sealed. */
static void take_unsealed(struct picture *out)
{
    start();
    tell(1, PER_SEGMENT + 3);
    close_store();
    picture_take(out, os, ROOT "/log");
    finish();
}

static void put_back(const struct picture *p, const char *name)
{
    struct os_dir *dir = NULL;
    struct os_file *file = NULL;
    expect_ok(os_dir_open(os, ROOT "/log", false, &dir, &err));
    expect_ok(os_file_open(dir, name, OS_WRITE | OS_CREATE, &file, &err));
    for (size_t i = 0; i < p->count; i++) {
        if (strcmp(p->files[i].name, name) != 0) continue;
        expect_ok(os_file_write(file, 0, (deed_bytes){p->files[i].bytes, p->files[i].size}, &err));
    }
    expect_ok(os_file_sync(file, &err));
    expect_ok(os_dir_sync(dir, &err));
    os_file_close(file);
    os_dir_close(dir);
}

/* Seal that segment, and bring its .seg back beside the sealed file; closed. */
static void seal_and_put_back(const struct picture *unsealed)
{
    start_from(unsealed);
    open_store();
    seal_all();
    close_store();
    put_back(unsealed, "0000000001.seg");
}

/* A power cut brings back a .seg that was removed, and its blocks have been others' since. */
TEST(seal, an_older_file_that_comes_back_counts_only_if_it_holds_everything)
{
    const char *sealed_path = ROOT "/log/0000000001.00000000000000000001.1.sealed";
    struct picture before;
    take_unsealed(&before);
    enum { GOOD, OLDER_ROTTEN, BOTH_ROTTEN, CASES };
    for (int what = 0; what < CASES; what++) {
        for (uint64_t sector = 2; sector <= PER_SEGMENT; sector++) {
            seal_and_put_back(&before);
            uint64_t offset = sector * SECTOR_SIZE + 20;
            if (what >= OLDER_ROTTEN)
                expect_ok(os_sim_rot(sim, SEGMENT(1), offset, OS_SIM_ROT_ZERO));
            if (what >= BOTH_ROTTEN) expect_ok(os_sim_rot(sim, sealed_path, 5000, OS_SIM_ROT_FLIP));
            os_sim_drop_cache(sim);
            open_store();
            count_files();
            if (what == BOTH_ROTTEN) { /* it is for a person to say what goes */
                assert_int_equal(sealed_files, 1);
                assert_int_equal(open_files, 2);
            } else {
                assert_int_equal(sealed_files, what == OLDER_ROTTEN);
                assert_int_equal(open_files, what == OLDER_ROTTEN ? 1 : 2);
                expect_story(PER_SEGMENT + 3);
            }
            finish();
        }
    }
    picture_done(&before);
}

/* A file is brought back beside its sealed one, `rotten` or whole; while it is decided which counts the
 * k-th read fails, and so many `more`. The next opening has everything. false: there was no k-th read. */
static bool decide_without_a_read(const struct picture *before, bool rotten, uint64_t k,
                                  uint64_t more)
{
    seal_and_put_back(before);
    if (rotten) expect_ok(os_sim_rot(sim, SEGMENT(1), 2 * SECTOR_SIZE + 20, OS_SIM_ROT_ZERO));
    os_sim_drop_cache(sim);
    uint64_t reads = os_sim_count(sim, OS_SIM_READ);
    os_sim_fail(sim, OS_SIM_READ, k, more, EIO);
    if (store_open(os, ROOT, &options, &store, &err) == DEED_OK) close_store();
    bool struck = os_sim_count(sim, OS_SIM_READ) - reads >= k;
    os_sim_heal(sim);
    os_sim_drop_cache(sim);
    open_store();
    expect_story(PER_SEGMENT + 3);
    tell(PER_SEGMENT + 4, PER_SEGMENT + 4);
    seal_all();
    expect_story(PER_SEGMENT + 4);
    finish();
    return struck;
}

TEST(seal, a_read_that_fails_removes_no_file_that_counts)
{
    struct picture before;
    take_unsealed(&before);
    for (unsigned rotten = 0; rotten <= 1; rotten++) {
        for (uint64_t more = 0; more <= 4; more++) {
            for (uint64_t k = 1; decide_without_a_read(&before, rotten, k, more); k++)
                continue;
        }
    }
    picture_done(&before);
}

/* ---- rewriting ------------------------------------------------------------------------------ */

static enum event_fate remove_a1(void *context, const struct deed_event *event)
{
    (void)context;
    return deed_str_equal(event->stream, DEED_STR("a-1")) ? EVENT_REMOVE : EVENT_KEEP;
}

TEST(seal, a_rewrite_takes_events_out_and_leaves_the_chain_as_it_was)
{
    struct deed_info before, after;
    struct sealed_footer footer;
    struct log_rewrite how = {.decide = remove_a1, .compress_level = 3};
    start_sealed(3 * PER_SEGMENT);
    store_info(store, &before);
    expect_ok(log_rewrite(store->log, 1, &how, &err));
    expect_ok(log_footer(store->log, 1, &footer, &err));
    assert_int_equal(footer.generation, 2);
    assert_int_equal(footer.removed_count, 4); /* e3 e6 e9 e12 */
    assert_int_equal(footer.first_kept, 2);
    assert_int_equal(footer.first_removed, 4);
    assert_true(footer.map_blocks > 0);
    store_info(store, &after);
    assert_memory_equal(before.chain_hash, after.chain_hash, sizeof before.chain_hash);
    count_files();
    assert_int_equal(sealed_files, 3);

    crash();
    open_store();
    struct store_verify_report report;
    expect_ok(store_verify(store, NULL, NULL, NULL, &report, &err));
    assert_memory_equal(report.chain_hash, before.chain_hash, sizeof before.chain_hash);
    expect_words("e1 e2 e4 e5 e7", .after_position = 1, .count_max = 5);
    assert_non_null(
        strstr(read_words(&(struct deed_read_options){.stream = DEED_STR("a-2")}), "e7"));
    finish();
}

TEST(seal, an_erasure_that_succeeded_does_not_come_back)
{
    struct log_rewrite how = {.decide = remove_a1};
    bool more = true;
    for (uint64_t k = 0; more; k++) {
        struct sealed_footer footer;
        start_machine(k + 1);
        open_store();
        tell(1, 2 * PER_SEGMENT);
        seal_all();
        os_sim_power_off_after(sim, k);
        deed_status status = log_rewrite(store->log, 1, &how, &err);
        more = status != DEED_OK;
        crash();
        os_sim_power_off_after(sim, DEED_NONE);
        open_store();
        expect_ok(log_footer(store->log, 1, &footer, &err));
        if (status == DEED_OK) assert_int_equal(footer.removed_count, 4);
        finish();
    }
}

TEST(seal, what_cannot_be_rewritten_says_why)
{
    struct log_rewrite how = {0};
    struct sealed_footer footer;
    struct log_visitor visitor = {0};
    start_sealed(PER_SEGMENT + 1);
    expect_status(DEED_NOT_FOUND, log_rewrite(store->log, 2, &how, &err));
    expect_message(err, "segment 2: there is no sealed one");
    expect_status(DEED_NOT_FOUND, log_rewrite(store->log, 9, &how, &err));
    expect_status(DEED_NOT_FOUND, log_footer(store->log, 2, &footer, &err));
    expect_status(DEED_NOT_FOUND, log_scan_segment(store->log, 9, &visitor, &err));
    expect_message(err, "segment 9: it is not there");
    log_stop(store->log, "enough");
    expect_status(DEED_STOPPED, log_rewrite(store->log, 1, &how, &err));
    expect_message(err, "enough");
    finish();
}

/* ---- beside each other ---------------------------------------------------------------------- */

#define BESIDE_APPENDS 400

static _Atomic unsigned reads_done, rewrites_done, wrong_reads;

/* The whole log, once. */
static uint64_t read_beside(void *context)
{
    struct deed_cursor *cursor = NULL;
    struct deed_event e;
    struct deed_error why;
    uint64_t next = 1;
    (void)context;
    if (store_read(store, &(struct deed_read_options){.filter.system = true}, &cursor, &why) !=
        DEED_OK) {
        wrong_reads++;
        return SECOND / 100;
    }
    deed_status status;
    while ((status = cursor_next(cursor, &e, &why)) == DEED_OK)
        wrong_reads += e.position != next++;
    if (status != DEED_END) wrong_reads++;
    cursor_close(cursor);
    reads_done++;
    return SECOND / 1000;
}

static uint64_t rewrite_beside(void *context)
{
    unsigned *round = context;
    struct deed_error why;
    struct log_rewrite how = {.compress_level = *round % 3 == 0 ? 0 : 1};
    uint32_t count = (uint32_t)seal_state().sealed;
    if (count == 0) return SECOND / 1000;
    if (log_rewrite(store->log, 1 + (*round)++ % count, &how, &why) == DEED_OK) rewrites_done++;
    return SECOND / 1000;
}

TEST(seal, readers_the_writer_the_sealer_and_rewrites_go_on_beside_each_other)
{
    struct actor *readers[2] = {NULL, NULL};
    struct actor *rewriter = NULL;
    static uint8_t pad[3000];
    unsigned round = 0;
    start_here();
    memset(pad, '7', sizeof pad);
    reads_done = rewrites_done = wrong_reads = 0;
    for (unsigned i = 0; i < 2; i++) {
        expect_ok(actor_start("reader", read_beside, NULL, &readers[i], &err));
    }
    expect_ok(actor_start("rewriter", rewrite_beside, &round, &rewriter, &err));
    for (unsigned i = 0; i < BESIDE_APPENDS || reads_done < 4 || rewrites_done < 4; i++) {
        say_event((struct deed_new_event){
            .stream = DEED_STR("pad-1"), .type = DEED_STR("Said"), .data = {pad, sizeof pad}});
    }
    for (unsigned i = 0; i < 2; i++)
        actor_stop(readers[i]);
    actor_stop(rewriter);
    assert_int_equal(wrong_reads, 0);
    struct store_verify_report report;
    expect_ok(store_verify(store, NULL, NULL, NULL, &report, &err));
    reopen();
    expect_ok(store_verify(store, NULL, NULL, NULL, &report, &err));
    assert_int_equal(report.events, store_position(store));
    finish();
}

/* ---- damage --------------------------------------------------------------------------------- */

static struct picture story; /* sealed segments 1 to 3, all with a table, the second compressed */
static struct sealed_footer footers[3];

static void take_story(void)
{
    start();
    tell(1, 3 * PER_SEGMENT + 2);
    struct log_rewrite packed = {.compress_level = 3};
    seal_all();
    expect_ok(log_rewrite(store->log, 2, &packed, &err));
    for (uint32_t i = 0; i < 3; i++)
        expect_ok(log_footer(store->log, i + 1, &footers[i], &err));
    close_store();
    picture_take(&story, os, ROOT "/log");
    finish();
}

static struct picture_file *sealed_file(uint32_t number)
{
    char name[SEALED_NAME_SIZE];
    const struct sealed_footer *f = &footers[number - 1];
    struct sealed_name wanted = {number, f->generation, f->first_position};
    sealed_name_format(&wanted, name);
    return picture_find(&story, name);
}

static uint64_t damages;

static void count_damage(void *context, const struct store_damage *damage)
{
    (void)context;
    assert_true(damage->what[0] != '\0');
    damages++;
}

/* Every word that is served is the right one at its place, every other one is an error that names its
 * position. How many errors? */
static unsigned count_lost(void)
{
    struct deed_cursor *cursor = NULL;
    struct deed_event e;
    unsigned lost = 0;
    uint64_t seen = 1;
    deed_status status;
    struct deed_read_options how = {.after_position = 1};
    expect_ok(store_read(store, &how, &cursor, &err));
    while ((status = cursor_next(cursor, &e, &err)) != DEED_END) {
        char word[16];
        if (status == DEED_CORRUPT) {
            assert_true(err.position > seen && err.position <= 3 * PER_SEGMENT + 3);
            seen = err.position;
            lost++;
            continue;
        }
        expect_ok(status);
        assert_true(e.position > seen);
        seen = e.position;
        int size = snprintf(word, sizeof word, "\"e%u\"", (unsigned)e.position - 1);
        assert_int_equal(e.data.len, size);
        assert_memory_equal(e.data.ptr, word, (size_t)size);
    }
    cursor_close(cursor);
    return lost;
}

/* Whatever was damaged: nothing wrong is served, and verifying tells of what is not. */
static unsigned lost_words(bool must_verify)
{
    struct deed_cursor *cursor = NULL;
    struct deed_event e;
    struct store_verify_report report;
    deed_status status;
    start_from(&story);
    options.read_only = false;
    status = try_open();
    if (status != DEED_OK) {
        assert_true(status == DEED_CORRUPT);
        finish();
        return 1000;
    }
    damages = 0;
    status = store_verify(store, count_damage, NULL, NULL, &report, &err);
    assert_true(status == DEED_OK || status == DEED_CORRUPT);
    assert_int_equal(status == DEED_CORRUPT, damages > 0);
    if (must_verify) assert_true(damages > 0);
    unsigned lost = count_lost();
    assert_true(lost == 0 || damages > 0);
    /* Each stream, by the index: nothing wrong there either. */
    expect_ok(
        store_read(store, &(struct deed_read_options){.stream = DEED_STR("a-1")}, &cursor, &err));
    while ((status = cursor_next(cursor, &e, &err)) != DEED_END) {
        assert_true(status == DEED_OK || status == DEED_CORRUPT);
    }
    cursor_close(cursor);
    finish();
    return lost;
}

static void with_flip(uint32_t number, uint64_t offset)
{
    struct picture_file *f = sealed_file(number);
    assert_true(offset < f->size);
    f->bytes[offset] ^= 0x10;
    (void)lost_words(true);
    f->bytes[offset] ^= 0x10;
}

TEST(seal, a_flipped_bit_anywhere_is_found_and_nothing_wrong_is_served)
{
    take_story();
    for (uint32_t number = 1; number <= 3; number++) {
        uint64_t size = sealed_file(number)->size;
        uint64_t step = number == 2 ? 61 : 173;
        for (uint64_t offset = number; offset < size; offset += step)
            with_flip(number, offset);
    }
    picture_done(&story);
}

static unsigned with_zeros(uint32_t number, uint64_t offset)
{
    struct picture_file *f = sealed_file(number);
    uint8_t kept[SECTOR_SIZE];
    memcpy(kept, f->bytes + offset, sizeof kept);
    memset(f->bytes + offset, 0, sizeof kept);
    unsigned lost = lost_words(true);
    memcpy(f->bytes + offset, kept, sizeof kept);
    return lost;
}

TEST(seal, a_lost_sector_of_table_map_or_footer_costs_no_event)
{
    take_story();
    for (uint32_t number = 1; number <= 3; number++) {
        const struct sealed_footer *f = &footers[number - 1];
        for (uint64_t at = f->table_offset; at < f->file_size; at += SECTOR_SIZE) {
            assert_int_equal(with_zeros(number, at), 0);
        }
        assert_int_equal(with_zeros(number, 0), 0); /* the header */
        assert_true(with_zeros(number, SEGMENT_HEADER_SIZE) > 0);
    }
    picture_done(&story);
}

TEST(seal, a_file_that_is_cut_or_gone_is_an_error_for_its_positions_alone)
{
    take_story();
    for (uint32_t number = 1; number <= 3; number++) {
        struct picture_file *f = sealed_file(number);
        size_t size = f->size;
        for (size_t cut = 0; cut < size; cut += SECTOR_SIZE / 2) {
            f->size = cut;
            unsigned lost = lost_words(true);
            /* One error for all of its range, then the rest. */
            assert_true(lost >= 1);
        }
        f->size = size;
    }
    struct picture_file *f = sealed_file(2);
    struct picture_file gone = *f;
    *f = story.files[--story.count];
    assert_int_equal(lost_words(true), 1);
    story.files[story.count++] = *f;
    *f = gone;
    picture_done(&story);
}

/* ---- repair --------------------------------------------------------------------------------- */

static void open_accepting(void)
{
    options.accept_losses = true;
    open_store();
    options.accept_losses = false;
}

/* Verifying finds so much that was accepted, and nothing else. */
static void expect_accepted(uint64_t count)
{
    struct store_verify_report report;
    struct deed_info info;
    expect_ok(store_verify(store, NULL, NULL, NULL, &report, &err));
    assert_int_equal(report.damage_count, 0);
    assert_int_equal(report.accepted_count, count);
    store_info(store, &info);
    assert_true(info.writable);
}

static void expect_same_losses(const struct picture *before)
{
    struct picture now;
    close_store();
    picture_take(&now, os, ROOT "/log");
    const struct picture_file *was = picture_find((struct picture *)before, "losses");
    const struct picture_file *is = picture_find(&now, "losses");
    assert_int_equal(is->size, was->size);
    assert_memory_equal(is->bytes, was->bytes, was->size);
    picture_done(&now);
}

/* Damage the story at one place, and accept that. The log as it is then, in `out`. */
static void repair_flip(uint32_t number, uint64_t offset, unsigned lost, uint64_t places,
                        struct picture *out)
{
    struct store_verify_report report;
    struct picture_file *f = sealed_file(number);
    f->bytes[offset] ^= 0x10;
    start_from(&story);
    f->bytes[offset] ^= 0x10;
    open_store();
    expect_status(DEED_CORRUPT, store_verify(store, NULL, NULL, NULL, &report, &err));
    assert_int_equal(report.damage_count, places);
    close_store();
    open_accepting();
    expect_accepted(places);
    assert_int_equal(count_lost(), lost);
    close_store();
    picture_take(out, os, ROOT "/log");
    open_store();
    expect_accepted(places);
    assert_int_equal(count_lost(), lost);
    tell(3 * PER_SEGMENT + 3, 3 * PER_SEGMENT + 4);
    assert_int_equal(count_lost(), lost);
    close_store();
    open_accepting();
    expect_accepted(places);
    expect_same_losses(out);
    finish();
}

/* One more flip, which nobody accepted. */
static void expect_news(const struct picture *repaired, uint32_t number, uint64_t offset,
                        uint64_t accepted)
{
    struct store_verify_report report;
    struct picture kept = story;
    story = *repaired;
    struct picture_file *f = sealed_file(number);
    f->bytes[offset] ^= 0x10;
    start_from(&story);
    open_store();
    expect_status(DEED_CORRUPT, store_verify(store, NULL, NULL, NULL, &report, &err));
    assert_true(report.damage_count > 0);
    assert_int_equal(report.accepted_count, accepted);
    f->bytes[offset] ^= 0x10;
    finish();
    story = kept;
}

enum { TABLE_PLACE = 3 };

/* A place in each part of a sealed file. */
static size_t places_of(uint32_t number, uint64_t out[8])
{
    const struct sealed_footer *f = &footers[number - 1];
    size_t count = 0;
    out[count++] = 100;                       /* header */
    out[count++] = SEGMENT_HEADER_SIZE + 130; /* the first commit, or the only block */
    out[count++] = f->table_offset - 1;       /* padding */
    out[count++] = f->table_offset + 20;      /* table */
    if (f->map_blocks > 0) {
        out[count++] = f->map_offset + 20;
        out[count++] = f->map_offset + f->map_blocks * SECTOR_SIZE + 20;
    }
    out[count++] = f->file_size - SEALED_FOOTERS_SIZE + 90;
    if (f->map_blocks == 0) out[count++] = f->logical_end - 20; /* the last commit */
    return count;
}

TEST(seal, accepted_damage_is_no_news_and_hides_none_in_the_same_file)
{
    take_story();
    for (uint32_t number = 1; number <= 3; number++) {
        bool packed = footers[number - 1].map_blocks > 0;
        uint64_t offsets[8];
        size_t count = places_of(number, offsets);
        for (size_t i = 0; i < count; i++) {
            struct picture repaired;
            /* All of a compressed block's commits are lost. */
            bool in_commits = i == 1 || (!packed && i == count - 1);
            unsigned lost = !in_commits ? 0 : packed ? PER_SEGMENT : 1;
            if (number == 1 && i == 1) lost = 0; /* that is $log-created, which is not read */
            uint64_t places = in_commits && packed ? PER_SEGMENT : 1;
            repair_flip(number, offsets[i], lost, places, &repaired);
            for (size_t k = 0; k < count; k++) {
                /* Without the table all behind a lost commit is lost, which nobody accepted. */
                uint64_t still = i == 1 && k == TABLE_PLACE ? 0 : places;
                if (k != i) expect_news(&repaired, number, offsets[k], still);
            }
            picture_done(&repaired);
        }
    }
    picture_done(&story);
}

/* Each part is good by its own checksum, but not what the footer's hash names. */
TEST(seal, a_hash_of_all_bytes_that_is_wrong_alone_is_told_and_can_be_accepted)
{
    struct picture repaired;
    take_story();
    struct picture_file *f = sealed_file(1);
    for (unsigned i = 1; i <= 2; i++) {
        uint8_t *footer = f->bytes + f->size - i * SEALED_FOOTER_SIZE;
        footer[232] ^= 1;
        uint32_t crc = crc32c(0, (deed_bytes){footer + 12, SEALED_FOOTER_SIZE - 12});
        for (unsigned k = 0; k < 4; k++)
            footer[8 + k] = (uint8_t)(crc >> 8 * k);
    }
    assert_int_equal(lost_words(true), 0);
    assert_int_equal(damages, 1);
    start_from(&story);
    open_accepting();
    expect_accepted(1);
    close_store();
    picture_take(&repaired, os, ROOT "/log");
    finish();
    expect_news(&repaired, 1, 100, 0);
    expect_news(&repaired, 1, SEGMENT_HEADER_SIZE + 130, 0);
    picture_done(&repaired);
    picture_done(&story);
}

TEST(seal, damage_in_a_closed_segment_keeps_it_from_being_sealed)
{
    struct picture p;
    start();
    tell(1, 2 * PER_SEGMENT);
    close_store();
    picture_take(&p, os, ROOT "/log");
    finish();
    start_from(&p);
    open_store();
    expect_ok(os_sim_rot(sim, SEGMENT(1), 3 * SECTOR_SIZE + 150, OS_SIM_ROT_FLIP));
    os_sim_drop_cache(sim);
    seal_all();
    assert_int_equal(seal_state().sealed, 1);
    assert_int_equal(seal_state().waiting, 0);
    struct log_segment_info info;
    expect_ok(log_segment_info(store->log, 1, &info, &err));
    assert_true(info.damaged);
    assert_int_equal(info.state, LOG_CLOSED);
    assert_non_null(strstr(seal_state().why, "segment 1"));
    tell(2 * PER_SEGMENT + 1, 2 * PER_SEGMENT + 2);
    finish();
    picture_done(&p);
}

/* ---- names ---------------------------------------------------------------------------------- */

TEST(seal, names_are_read_as_they_are_written)
{
    struct sealed_name name;
    bool unfinished = true;
    char text[SEALED_NAME_SIZE];
    sealed_name_format(&(struct sealed_name){7, 3, 1234}, text);
    assert_string_equal(text, "0000000007.00000000000000001234.3.sealed");
    assert_true(sealed_name_parse(text, &name, &unfinished));
    assert_int_equal(name.number, 7);
    assert_int_equal(name.generation, 3);
    assert_int_equal(name.first_position, 1234);
    assert_false(unfinished);
    assert_true(
        sealed_name_parse("0000000007.00000000000000001234.3.sealed.new", &name, &unfinished));
    assert_true(unfinished);
    static const char *const others[] = {"",
                                         "0000000007.seg",
                                         "7.1234.3.sealed",
                                         "0000000007.00000000000000001234.03.sealed",
                                         "0000000007.00000000000000001234.0.sealed",
                                         "0000000000.00000000000000001234.1.sealed",
                                         "0000000007.00000000000000000000.1.sealed",
                                         "0000000007.99999999999999999999.1.sealed",
                                         "9999999999.00000000000000001234.1.sealed",
                                         "0000000007.00000000000000001234.3.sealed.old"};
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
        assert_false(sealed_name_parse(others[i], &name, &unfinished));
    }
}

TEST_MAIN(seal)
