/* test_backup.c - belongs to backup.c, restore.c, backup_set.c, backup_view.c and backup_check.c. */
#include "store_fixture.h"

#include "base/uuid.h"
#include "store/store_state.h"
#include "store/backup.h"
#include "store/backup_set.h"

#include <dirent.h>
#include <errno.h>

#define BACKUP "/backup"
#define OTHER  "/other"
#define NEW    "/new"

static struct deed_backup_report report;

/* ---- verbs ---------------------------------------------------------------------------------- */

static deed_status try_backup(void)
{
    return store_backup(store, BACKUP, NULL, &report, &err);
}

static void back_up(void)
{
    if (try_backup() != DEED_OK) fail_msg("backup: %s", err.message);
}

static deed_status check(void)
{
    return store_check_backup(os, BACKUP, NULL, NULL, NULL, &report, &err);
}

static void expect_good_backup(void)
{
    if (check() != DEED_OK) fail_msg("check: %s", err.message);
}

static deed_status try_restore(const char *directory)
{
    return store_restore(os, BACKUP, directory, NULL, &report, &err);
}

static void restore(const char *directory)
{
    if (try_restore(directory) != DEED_OK) fail_msg("restore: %s", err.message);
}

/* From now on the story goes on in that directory. */
static void move_to(const char *directory)
{
    close_store();
    (void)snprintf(root, sizeof root, "%s", directory);
}

static void move_to_restored(const char *directory)
{
    restore(directory);
    move_to(directory);
    open_store();
}

static struct deed_info info(void)
{
    struct deed_info i;
    store_info(store, &i);
    return i;
}

static uint64_t position(void)
{
    return store_position(store);
}

/* A word that takes a good part of a small segment, so that a few make the next one. */
static void say_much(const char *stream, char letter)
{
    static char word[20000];
    memset(word, letter, sizeof word);
    word[0] = word[sizeof word - 1] = '"';
    say_event((struct deed_new_event){.stream = deed_str_of(stream),
                                      .type = DEED_STR("Said"),
                                      .data = {(const uint8_t *)word, sizeof word}});
}

/* Two segments, the first closed. */
static void say_a_lot(void)
{
    for (char letter = 'a'; letter < 'e'; letter++)
        say_much("novel-1", letter);
}

/* Let the sealer work until it waits. */
static void seal(void)
{
    for (int i = 0; i < 10000 && log_backlog(store->log) > 0; i++)
        (void)store_step(store);
    assert_int_equal(log_backlog(store->log), 0);
}

/* Close what is written to, and seal it. */
static void close_and_seal(void)
{
    expect_ok(log_roll(store->log, &err));
    seal();
}

static enum event_fate remove_even(void *context, const struct deed_event *event)
{
    (void)context;
    return event->position > 1 && event->position % 2 == 0 ? EVENT_REMOVE : EVENT_KEEP;
}

static void compact(uint32_t segment, int level)
{
    struct log_rewrite how = {.decide = remove_even, .compress_level = level};
    if (log_rewrite(store->log, segment, &how, &err) != DEED_OK) fail_msg("%s", err.message);
}

/* ---- files ---------------------------------------------------------------------------------- */

static bool starts_with(const char *name, const char *beginning)
{
    return strncmp(name, beginning, strlen(beginning)) == 0;
}

struct name_list {
    char names[64][BACKUP_ENTRY_NAME_SIZE];
    size_t count;
};

static void name_add(void *context, const char *name)
{
    struct name_list *list = context;
    if (strcmp(name, "lock") == 0) return;
    if (list->count == 64) fail_msg("more files than the list holds");
    (void)snprintf(list->names[list->count++], BACKUP_ENTRY_NAME_SIZE, "%s", name);
}

static struct name_list names_in(const char *path)
{
    struct name_list list = {.count = 0};
    struct os_dir *dir = NULL;
    expect_ok(os_dir_open(os, path, false, &dir, &err));
    expect_ok(os_dir_list(dir, name_add, &list, &err));
    os_dir_close(dir);
    return list;
}

static const char *name_beginning(const char *path, const char *beginning)
{
    static char found[BACKUP_ENTRY_NAME_SIZE];
    struct name_list list = names_in(path);
    for (size_t i = 0; i < list.count; i++) {
        if (starts_with(list.names[i], beginning)) {
            (void)snprintf(found, sizeof found, "%s", list.names[i]);
            return found;
        }
    }
    fail_msg("%s has no file %s…", path, beginning);
    return NULL;
}

static uint64_t size_of(const char *path, const char *name)
{
    struct os_dir *dir = NULL;
    struct os_file *file = NULL;
    uint64_t size = 0;
    expect_ok(os_dir_open(os, path, false, &dir, &err));
    expect_ok(os_file_open(dir, name, OS_READ, &file, &err));
    expect_ok(os_file_size(file, &size, &err));
    os_file_close(file);
    os_dir_close(dir);
    return size;
}

static void put_file(const char *path, const char *name, const char *text)
{
    struct os_dir *dir = NULL;
    struct os_file *file = NULL;
    expect_ok(os_dir_open(os, path, true, &dir, &err));
    expect_ok(os_file_open(dir, name, OS_WRITE | OS_CREATE, &file, &err));
    expect_ok(os_file_truncate(file, 0, &err));
    expect_ok(os_file_write(file, 0, deed_bytes_of(deed_str_of(text)), &err));
    expect_ok(os_file_sync(file, &err));
    os_file_close(file);
    expect_ok(os_dir_sync(dir, &err));
    os_dir_close(dir);
}

static void remove_file(const char *path, const char *name)
{
    struct os_dir *dir = NULL;
    expect_ok(os_dir_open(os, path, false, &dir, &err));
    expect_ok(os_remove(dir, name, &err));
    os_dir_close(dir);
}

static void rot(const char *path, const char *name, uint64_t offset)
{
    char whole[256];
    (void)snprintf(whole, sizeof whole, "%s/%s", path, name);
    expect_ok(os_sim_rot(sim, whole, offset, OS_SIM_ROT_FLIP));
    os_sim_drop_cache(sim);
}

/* ---- making and restoring ------------------------------------------------------------------- */

TEST(backup, a_restored_backup_holds_every_event)
{
    start();
    say("order-1", "one");
    say_a_lot();
    say("order-1", "two");
    struct deed_info before = info();

    back_up();
    move_to_restored(NEW);

    expect_words("one two", .stream = DEED_STR("order-1"));
    assert_int_equal(info().position, before.position);
    assert_memory_equal(info().chain_hash, before.chain_hash, 32);
    assert_true(uuid_equal(info().log_id, before.log_id));
    assert_true(info().writable);
    finish();
}

TEST(backup, the_report_says_what_the_backup_holds)
{
    start();
    say("order-1", "one");
    back_up();

    assert_int_equal(report.position, position());
    assert_int_equal(report.epoch, 1);
    assert_int_equal(report.events, 2);
    assert_int_equal(report.commits, 2);
    assert_int_equal(report.file_count, 2); /* the segment and the mark */
    assert_int_equal(report.copied_count, 1);
    assert_true(report.size >= report.copied_size && report.copied_size > 4096);
    struct deed_info now = info();
    assert_memory_equal(report.chain_hash, now.chain_hash, 32);
    assert_int_equal(now.backup_position, position());
    assert_int_equal(now.backup_made_at_ns, report.made_at_ns);
    finish();
}

TEST(backup, a_restored_log_goes_on_in_a_new_epoch_behind_every_position)
{
    start();
    say("order-1", "one");
    uint64_t end = position();
    back_up();
    move_to_restored(NEW);
    assert_true(info().epoch > 1);
    assert_int_equal(info().epoch, report.epoch);

    say("order-1", "two");

    assert_int_equal(appended.position, end + 1);
    assert_int_equal(appended.revision, 1);
    reopen();
    expect_words("one two", .stream = DEED_STR("order-1"));
    struct store_verify_report verified;
    expect_ok(store_verify(store, NULL, NULL, NULL, &verified, &err));
    assert_int_equal(verified.events, end + 1);
    finish();
}

TEST(backup, two_restores_of_one_backup_have_different_epochs)
{
    start();
    say("order-1", "one");
    back_up();
    restore(NEW);
    uint64_t first = report.epoch;
    os_sim_advance(sim, SECOND);
    restore(OTHER);

    assert_true(report.epoch > first);
    finish();
}

TEST(backup, the_epoch_stays_when_its_segments_header_rots)
{
    start();
    say("order-1", "one");
    back_up();
    restore(NEW);
    uint64_t epoch = report.epoch;
    rot(NEW "/log", "0000000002.seg", 50);
    move_to(NEW);
    open_store();

    assert_int_equal(info().epoch, epoch);
    assert_false(info().writable); /* a segment's header is damaged: a person decides */

    /* And when the segment is not there at all. */
    close_store();
    remove_file(NEW "/log", "0000000002.seg");
    open_store();
    assert_int_equal(info().epoch, epoch);
    say("order-1", "two");
    reopen();
    assert_int_equal(info().epoch, epoch);
    expect_words("one two", .stream = DEED_STR("order-1"));
    finish();
}

TEST(backup, an_epoch_grows_also_where_the_clock_is_wrong)
{
    start();
    say("order-1", "one");
    back_up();
    move_to_restored(NEW);
    uint64_t first = info().epoch;
    expect_ok(store_backup(store, OTHER, NULL, &report, &err));
    os_sim_set_clock(sim, 5 * (int64_t)SECOND);
    expect_ok(store_restore(os, OTHER, "/newer", NULL, &report, &err));

    assert_int_equal(report.epoch, first + 1);
    finish();
}

TEST(backup, a_log_without_events_can_be_backed_up)
{
    start();
    back_up();
    move_to_restored(NEW);
    say("order-1", "one");
    expect_words("one", .stream = DEED_STR("order-1"));
    finish();
}

TEST(backup, a_restored_log_that_holds_nothing_new_is_backed_up_and_restored_again)
{
    start();
    say("order-1", "one");
    back_up();
    move_to_restored(NEW);
    back_up();
    assert_int_equal(report.epoch, info().epoch);
    os_sim_advance(sim, SECOND);
    move_to_restored(OTHER);
    say("order-1", "two");
    reopen();
    expect_words("one two", .stream = DEED_STR("order-1"));
    finish();
}

static bool say_on(void *context, uint64_t done, uint64_t all)
{
    unsigned *times = context;
    assert_true(done <= all);
    if ((*times)++ < 10) say_much("novel-2", 'x');
    return true;
}

TEST(backup, appends_go_on_while_it_is_made_and_are_not_in_it)
{
    start();
    say("order-1", "one");
    say_a_lot();
    uint64_t end = position();
    unsigned times = 0;
    struct deed_backup_options how = {.progress = say_on, .context = &times};

    expect_ok(store_backup(store, BACKUP, &how, &report, &err));

    assert_true(times > 3);
    assert_true(position() > end);
    assert_int_equal(report.position, end);
    move_to_restored(NEW);
    assert_int_equal(position(), end);
    finish();
}

TEST(backup, it_goes_on_while_the_log_is_stopped)
{
    start();
    say("order-1", "one");
    uint64_t end = position();
    os_sim_fail(sim, OS_SIM_SYNC, 1, 0, EIO);
    expect_status(DEED_UNKNOWN, append_event(said("order-1", "two")));

    back_up(); /* without what was not published, though the file has it */

    assert_int_equal(report.position, end);
    move_to_restored(NEW);
    expect_words("one", .stream = DEED_STR("order-1"));
    finish();
}

TEST(backup, a_read_only_store_can_be_backed_up)
{
    start();
    say("order-1", "one");
    close_store();
    options.read_only = true;
    open_store();
    back_up();
    options.read_only = false;
    move_to_restored(NEW);
    expect_words("one", .stream = DEED_STR("order-1"));
    finish();
}

TEST(backup, one_is_made_beside_appends_on_this_machine)
{
    start_here();
    char target[320], again[320];
    (void)snprintf(target, sizeof target, "%s/backup", root);
    (void)snprintf(again, sizeof again, "%s/again", root);
    for (int i = 0; i < 50; i++)
        say("order-1", "word");

    expect_ok(store_backup(store, target, NULL, &report, &err));
    expect_ok(store_restore(os, target, again, NULL, &report, &err));

    assert_int_equal(report.events, 51);
    struct store_options how = {.segment_size = 64 << 10};
    struct store *restored = NULL;
    expect_ok(store_open(os, again, &how, &restored, &err));
    assert_int_equal(store_position(restored), 51);
    store_close(restored);
    finish();
}

/* ---- the next one --------------------------------------------------------------------------- */

TEST(backup, the_next_one_copies_only_what_is_new)
{
    start();
    say_a_lot();
    back_up();
    uint64_t first_size = report.copied_size;
    assert_int_equal(report.copied_count, 2);
    say("order-1", "one");

    back_up();

    assert_int_equal(report.copied_count, 1); /* the segment that is written */
    assert_true(report.copied_size < first_size);
    assert_true(report.removed_count >= 1);
    expect_good_backup();
    assert_int_equal(names_in(BACKUP).count, 4); /* manifest, two segments, mark */
    move_to_restored(NEW);
    expect_words("one", .stream = DEED_STR("order-1"));
    finish();
}

TEST(backup, nothing_new_is_nothing_copied)
{
    start();
    say_a_lot();
    back_up();
    back_up();
    assert_int_equal(report.copied_count, 0);
    assert_int_equal(report.removed_count, 0);
    expect_good_backup();
    finish();
}

TEST(backup, a_quick_one_is_not_read_again_but_for_what_is_new)
{
    start();
    say_a_lot();
    back_up();
    say("order-1", "one");
    struct deed_backup_options how = {.quick = true};
    expect_ok(store_backup(store, BACKUP, &how, &report, &err));
    assert_int_equal(report.copied_count, 1);
    expect_good_backup();
    move_to_restored(NEW);
    expect_words("one", .stream = DEED_STR("order-1"));
    finish();
}

TEST(backup, what_has_rotted_in_it_is_copied_again)
{
    start();
    say_a_lot();
    back_up();
    rot(BACKUP, name_beginning(BACKUP, "0000000001.seg"), 9000);
    expect_status(DEED_CORRUPT, check());

    back_up();

    assert_int_equal(report.copied_count, 1);
    expect_good_backup();
    finish();
}

TEST(backup, what_is_missing_in_it_is_copied_again)
{
    start();
    say_a_lot();
    back_up();
    remove_file(BACKUP, name_beginning(BACKUP, "0000000001.seg"));
    expect_status(DEED_CORRUPT, check());
    expect_message(err, "is missing");

    back_up();

    assert_int_equal(report.copied_count, 1);
    expect_good_backup();
    finish();
}

TEST(backup, a_damaged_manifest_is_replaced)
{
    start();
    say_a_lot();
    back_up();
    put_file(BACKUP, "manifest", "{}");
    expect_status(DEED_CORRUPT, check());

    back_up();

    assert_int_equal(report.copied_count, 0);
    expect_good_backup();
    finish();
}

TEST(backup, files_of_others_in_its_directory_stay)
{
    start();
    put_file(BACKUP, "README", "mine");
    back_up();
    say("order-1", "one");
    back_up();
    assert_string_equal(name_beginning(BACKUP, "README"), "README");
    finish();
}

TEST(backup, it_can_be_made_after_a_restore_into_the_same_directory)
{
    start();
    say("order-1", "one");
    back_up();
    say("order-1", "lost");
    move_to_restored(NEW);
    say("order-1", "other");

    back_up();

    expect_good_backup();
    assert_int_equal(report.epoch, info().epoch);
    move_to_restored(OTHER);
    expect_words("one other", .stream = DEED_STR("order-1"));
    finish();
}

/* ---- sealed segments ------------------------------------------------------------------------ */

TEST(backup, sealed_segments_are_copied_once)
{
    start();
    say("order-1", "one");
    say_a_lot();
    say_a_lot();
    seal();
    back_up();
    uint64_t files = report.file_count;
    assert_true(strstr(name_beginning(BACKUP, "0000000001."), ".1.sealed.") != NULL);
    say("order-1", "two");

    back_up();

    assert_int_equal(report.copied_count, 1);
    assert_true(report.file_count - files <= 1);
    move_to_restored(NEW);
    expect_words("one two", .stream = DEED_STR("order-1"));
    assert_int_equal(info().epoch, report.epoch);
    say_a_lot();
    seal();
    reopen();
    assert_int_equal(info().epoch, report.epoch);
    expect_words("one two", .stream = DEED_STR("order-1"));
    finish();
}

TEST(backup, a_segment_that_was_sealed_since_takes_the_place_of_the_open_one)
{
    start();
    say("order-1", "one");
    back_up();
    close_and_seal();
    say("order-1", "two");

    back_up();

    assert_true(strstr(name_beginning(BACKUP, "0000000001."), ".1.sealed.") != NULL);
    assert_int_equal(names_in(BACKUP).count, 4);
    move_to_restored(NEW);
    expect_words("one two", .stream = DEED_STR("order-1"));
    finish();
}

TEST(backup, a_log_that_ends_with_a_sealed_segment_is_copied)
{
    start();
    say("order-1", "one");
    close_and_seal();
    back_up();
    expect_good_backup();
    move_to_restored(NEW);
    say("order-1", "two");
    reopen();
    expect_words("one two", .stream = DEED_STR("order-1"));
    finish();
}

TEST(backup, a_log_whose_only_file_is_a_sealed_segment_is_copied)
{
    start();
    say("order-1", "one");
    close_and_seal();
    close_store();
    struct name_list list = names_in(ROOT "/log");
    for (size_t i = 0; i < list.count; i++) {
        bool open = strstr(list.names[i], ".seg") != NULL;
        if (open || strcmp(list.names[i], "marks") == 0) remove_file(ROOT "/log", list.names[i]);
    }
    open_store();
    back_up();
    expect_good_backup();
    move_to_restored(NEW);
    say("order-1", "two");
    reopen();
    expect_words("one two", .stream = DEED_STR("order-1"));
    finish();
}

TEST(backup, a_compacted_segment_is_copied_again)
{
    start();
    for (int i = 0; i < 6; i++)
        say("order-1", "word"); /* 2 to 7 */
    close_and_seal();
    say("order-1", "last"); /* 8 */
    back_up();
    uint64_t commits = report.commits;
    for (int level = 0; level < 2; level++) {
        compact(1, level == 0 ? 0 : 3);

        back_up();

        assert_int_equal(report.copied_count, 1);
        assert_int_equal(report.removed_count, 1);
        assert_int_equal(report.commits, commits);
        expect_good_backup();
        assert_true(strstr(name_beginning(BACKUP, "0000000001."),
                           level == 0 ? ".2.sealed." : ".3.sealed.") != NULL);
    }
    struct deed_info before = info();
    move_to_restored(NEW);
    assert_memory_equal(info().chain_hash, before.chain_hash, 32);
    expect_words("word word word last", .stream = DEED_STR("order-1"));
    finish();
}

/* Does any file in the directory hold this text? */
static bool holds(const char *path, const char *text)
{
    struct os_dir *dir = NULL;
    struct name_list list = names_in(path);
    bool found = false;
    expect_ok(os_dir_open(os, path, false, &dir, &err));
    for (size_t i = 0; i < list.count; i++) {
        struct os_file *file = NULL;
        size_t size = (size_t)size_of(path, list.names[i]), got = 0;
        char *bytes = malloc(size + 1);
        assert_non_null(bytes);
        expect_ok(os_file_open(dir, list.names[i], OS_READ, &file, &err));
        expect_ok(os_file_read(file, 0, bytes, size, &got, &err));
        found = found || memmem(bytes, got, text, strlen(text)) != NULL;
        free(bytes);
        os_file_close(file);
    }
    os_dir_close(dir);
    return found;
}

TEST(backup, what_was_erased_is_gone_from_the_next_one)
{
    start();
    say("person-1", "confidential");
    say("order-1", "one");
    back_up();
    assert_true(holds(BACKUP, "confidential"));

    expect_ok(store_erase(store, DEED_STR("person-1"), (deed_str){0}, &err));
    while (store_step(store))
        continue;
    expect_ok(store_compaction_wait(store, NULL, &err));
    say("order-1", "two");
    back_up();

    assert_false(holds(BACKUP, "confidential"));
    expect_good_backup();
    move_to_restored(NEW);
    assert_false(holds(NEW "/log", "confidential"));
    expect_words("one two", .stream = DEED_STR("order-1"));
    finish();
}

/* The log gets on by everything that it can: appends, sealing, rewriting. */
static bool get_on(void *context, uint64_t done, uint64_t all)
{
    unsigned *times = context;
    (void)done, (void)all;
    if (*times < 40) {
        say_much("novel-2", (char)('a' + *times % 26));
        for (int i = 0; i < 20; i++)
            (void)store_step(store);
        if (*times % 3 == 2) {
            struct log_rewrite how = {.compress_level = (int)(*times % 2)};
            (void)!log_rewrite(store->log, 1 + *times % 4, &how, NULL);
        }
    }
    (*times)++;
    return true;
}

TEST(backup, sealing_and_compaction_go_on_while_it_is_made)
{
    for (unsigned begin = 0; begin < 6; begin++) {
        start();
        say("order-1", "one");
        for (unsigned i = 0; i <= begin; i++)
            say_a_lot();
        if (begin % 2 == 0) seal();
        uint64_t end = position();
        struct deed_info before = info();
        unsigned times = 0;
        struct deed_backup_options how = {.progress = get_on, .context = &times};

        deed_status status = store_backup(store, BACKUP, &how, &report, &err);

        if (status != DEED_OK) fail_msg("%u: %s", begin, err.message);
        assert_int_equal(report.position, end);
        assert_memory_equal(report.chain_hash, before.chain_hash, 32);
        assert_true(times > 3 && position() > end);
        back_up();
        expect_good_backup();
        move_to_restored(NEW);
        expect_words("one", .stream = DEED_STR("order-1"));
        finish();
    }
}

/* Threads that append, and that write segments anew, as fast as they can, up to a hundred segments or two. */
static uint64_t append_on(void *context)
{
    static char word[5000];
    if (store_position(context) > 1000) return SECOND;
    struct deed_error why;
    struct deed_appended ignored;
    memset(word, 'x', sizeof word);
    word[0] = word[sizeof word - 1] = '"';
    struct deed_new_event e = {.stream = DEED_STR("novel-1"),
                               .type = DEED_STR("Said"),
                               .data = {(const uint8_t *)word, sizeof word}};
    struct deed_append a = {.events = &e, .event_count = 1};
    expect_ok(store_append(context, &a, &ignored, &why));
    return ACTOR_AGAIN;
}

static uint64_t rewrite_on(void *context)
{
    static unsigned turn;
    struct store *all = context;
    struct log_rewrite how = {.compress_level = (int)(turn % 2)};
    uint64_t count = log_segment_count(all->log);
    (void)!log_rewrite(all->log, 1 + (uint32_t)(turn++ % count), &how, NULL);
    return 1000000;
}

TEST(backup, threads_append_seal_and_compact_while_it_is_made)
{
    char target[320], again[320];
    struct actor *writer = NULL, *compactor = NULL;
    start_here();
    (void)snprintf(target, sizeof target, "%s/backup", root);
    (void)snprintf(again, sizeof again, "%s/again", root);
    expect_ok(actor_start("writer", append_on, store, &writer, &err));
    expect_ok(actor_start("compactor", rewrite_on, store, &compactor, &err));
    uint64_t last = 0;
    for (int i = 0; i < 12; i++) {
        struct deed_backup_options how = {.quick = i % 4 == 3};
        uint64_t before = position();
        deed_status status = store_backup(store, target, &how, &report, &err);
        if (status != DEED_OK) fail_msg("%d: %s", i, err.message);
        assert_true(report.position >= before && report.position >= last);
        last = report.position;
        status = store_check_backup(os, target, NULL, NULL, NULL, &report, &err);
        if (status != DEED_OK) fail_msg("%d: %s", i, err.message);
        assert_int_equal(report.position, last);
        assert_int_equal(report.events, last);
    }
    actor_stop(writer);
    actor_stop(compactor);
    expect_ok(store_restore(os, target, again, NULL, &report, &err));
    finish();
}

/* A directory that changes while it is listed may show neither name of a file: here one segment's are
 * left out of some listings. The program is linked so that readdir (of large files) comes here first. */
struct dirent *__real_readdir64(DIR *dir);
struct dirent *__wrap_readdir64(DIR *dir);
static unsigned long hidden_number;
static _Atomic unsigned hidden_times;

struct dirent *__wrap_readdir64(DIR *dir)
{
    struct dirent *found;
    do {
        found = __real_readdir64(dir);
    } while (found != NULL && hidden_times > 0 &&
             strtoul(found->d_name, NULL, 10) == hidden_number);
    if (found == NULL && hidden_times > 0) hidden_times--;
    return found;
}

TEST(backup, a_segment_that_a_listing_misses_is_looked_for_again)
{
    char target[320];
    start_here();
    options.no_threads = true;
    reopen();
    for (int i = 0; i < 4; i++)
        say_a_lot();
    seal();
    uint64_t events = position();
    for (hidden_number = 1; hidden_number <= 3; hidden_number++) {
        (void)snprintf(target, sizeof target, "%s/backup-%lu", root, hidden_number);
        hidden_times = 3;
        deed_status status = store_backup(store, target, NULL, &report, &err);
        if (status != DEED_OK) fail_msg("segment %lu: %s", hidden_number, err.message);
        assert_int_equal(hidden_times, 0);
        assert_int_equal(report.events, events);
    }
    /* One who only reads beside the writer is told of no damage either. */
    struct store_options reading = {.read_only = true};
    for (hidden_number = 2; hidden_number <= 3; hidden_number++) {
        struct store *reader = NULL;
        struct deed_info seen;
        hidden_times = 3;
        expect_ok(store_open(os, root, &reading, &reader, &err));
        store_info(reader, &seen);
        assert_int_equal(seen.corrupt_first, DEED_NONE);
        assert_int_equal(seen.position, events);
        store_close(reader);
    }
    hidden_times = 0;
    finish();
}

TEST(backup, a_flipped_bit_in_any_sector_of_a_sealed_file_is_found)
{
    for (int level = 0; level < 2; level++) {
        start();
        for (int i = 0; i < 6; i++)
            say("order-1", "word");
        say_a_lot();
        close_and_seal();
        compact(1, level);
        back_up();
        const char *name = name_beginning(BACKUP, "0000000001.");
        char kept[BACKUP_ENTRY_NAME_SIZE];
        (void)snprintf(kept, sizeof kept, "%s", name);
        uint64_t size = size_of(BACKUP, kept);
        for (uint64_t at = 100; at < size; at += 2048 - 7) {
            rot(BACKUP, kept, at);
            expect_status(DEED_CORRUPT, check());
            expect_status(DEED_CORRUPT, try_restore(NEW));
            back_up(); /* mends it */
            assert_int_equal(report.copied_count, 1);
        }
        move_to_restored(NEW);
        finish();
    }
}

TEST(backup, a_sealed_segment_that_has_rotted_is_not_backed_up)
{
    start();
    for (int i = 0; i < 6; i++)
        say("order-1", "word");
    close_and_seal();
    back_up();
    compact(1, 0);
    rot(ROOT "/log", name_beginning(ROOT "/log", "0000000001."), 4096 + 300);

    expect_status(DEED_CORRUPT, try_backup());

    expect_message(err, "the log is damaged: ");
    expect_good_backup();
    finish();
}

/* ---- refusals ------------------------------------------------------------------------------- */

TEST(backup, a_directory_keeps_the_backup_of_one_log)
{
    start();
    say("order-1", "one");
    back_up();
    move_to(OTHER);
    open_store();
    say("order-1", "two");

    expect_status(DEED_CONFLICT, try_backup());

    expect_message(err, "/backup holds a backup of log ");
    expect_good_backup();
    finish();
}

/* The data directory as it is now, copied by hand to another place. */
static void copy_data(const char *to)
{
    struct picture picture;
    char path[64];
    close_store();
    picture_take(&picture, os, ROOT "/log");
    (void)snprintf(path, sizeof path, "%s/log", to);
    picture_put(&picture, os, path);
    picture_done(&picture);
    open_store();
}

TEST(backup, a_later_state_is_not_replaced_by_an_earlier_one)
{
    start();
    say("order-1", "one");
    copy_data(OTHER);
    say("order-1", "two");
    back_up();
    move_to(OTHER);
    open_store();

    expect_status(DEED_CONFLICT, try_backup());

    expect_message(err, "holds a backup of a later state (epoch 1, position 3)");
    expect_good_backup();
    finish();
}

TEST(backup, a_later_epoch_is_not_replaced_by_an_earlier_one)
{
    start();
    say("order-1", "one");
    back_up();
    move_to_restored(NEW);
    back_up();
    move_to(ROOT);
    open_store();
    say("order-1", "stale");

    expect_status(DEED_CONFLICT, try_backup());

    expect_message(err, "holds a backup of a later state");
    finish();
}

TEST(backup, another_history_is_not_replaced)
{
    start();
    say("order-1", "one");
    copy_data(OTHER);
    say("order-1", "two");
    back_up();
    move_to(OTHER);
    open_store();
    say("order-1", "zwei");
    say("order-1", "drei");

    expect_status(DEED_CONFLICT, try_backup());

    expect_message(err, "another history up to position 3");
    expect_good_backup();
    finish();
}

TEST(backup, a_data_directory_is_no_target)
{
    start();
    say("order-1", "one");
    expect_status(DEED_CONFLICT, store_backup(store, ROOT, NULL, NULL, &err));
    expect_message(err, "is a data directory");
    expect_status(DEED_CONFLICT, store_backup(store, ROOT "/log", NULL, NULL, &err));
    finish();
}

TEST(backup, one_at_a_time_is_made_in_a_directory)
{
    start();
    struct os_dir *dir = NULL;
    expect_ok(os_dir_open(os, BACKUP, true, &dir, &err));
    expect_ok(os_dir_lock(dir, &err));
    expect_status(DEED_LOCKED, try_backup());
    os_dir_close(dir);
    back_up();
    finish();
}

/* A manifest whose second line is right, whatever the first says. */
static void put_manifest(const char *line)
{
    char text[1024];
    uint8_t hash[SHA256_SIZE];
    deed_bytes bytes = deed_bytes_of(deed_str_of(line));
    sha256(&bytes, 1, hash);
    int size = snprintf(text, sizeof text, "%s\n{\"sha256\":\"", line);
    for (size_t i = 0; i < sizeof hash; i++) {
        size += snprintf(text + size, sizeof text - (size_t)size, "%02x", hash[i]);
    }
    (void)snprintf(text + size, sizeof text - (size_t)size, "\"}\n");
    put_file(BACKUP, "manifest", text);
}

TEST(backup, one_of_a_newer_version_is_left_alone)
{
    start();
    say("order-1", "one");
    back_up();
    put_manifest("{\"format\":2}");
    expect_status(DEED_TOO_NEW, try_backup());
    expect_message(err, "format 2, this program reads 1");
    expect_status(DEED_TOO_NEW, check());
    expect_status(DEED_TOO_NEW, try_restore(NEW));
    finish();
}

#define MANIFEST_LINE(position, files)                                                             \
    "{\"format\":1,\"log_id\":\"01234567-89ab-4def-8123-456789abcdef\",\"epoch\":1,"               \
    "\"position\":" position ",\"recorded_at\":\"2026-11-23T00:00:00Z\",\"chain_hash\":"           \
    "\"0000000000000000000000000000000000000000000000000000000000000000\",\"commits\":1,"          \
    "\"events\":1,\"made_at\":\"2026-11-23T00:00:00Z\",\"files\":[" files "]}"

TEST(backup, a_manifest_that_makes_no_sense_is_refused)
{
    static const char *const lines[] = {
        "",
        "[]",
        "{}",
        "{\"format\":1}",
        "{\"format\":1,\"format\":1}",
        MANIFEST_LINE("-1", ""),
        MANIFEST_LINE("0", ""),
        MANIFEST_LINE("5", ""),
        MANIFEST_LINE("18446744073709551615", ""),
        MANIFEST_LINE("5", "{}"),
        MANIFEST_LINE("5", "{\"name\":\"../log\",\"size\":1,\"sha256\":\"00\"}"),
        MANIFEST_LINE("5", "{\"name\":\"marks\",\"size\":1,\"sha256\":\"00\"}"),
        MANIFEST_LINE("5",
                      "{\"name\":\"marks\",\"size\":1,\"sha256\":\"0000000000000000000000000000"
                      "000000000000000000000000000000000000\"}"),
    };
    start();
    put_file(BACKUP, "README", "");
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++) {
        put_manifest(lines[i]);
        deed_status checked = check();
        if (checked != DEED_CORRUPT && checked != DEED_NOT_FOUND) fail_msg("%s", lines[i]);
        expect_status(DEED_CORRUPT, try_restore(NEW));
    }
    finish();
}

static bool stop_at_once(void *context, uint64_t done, uint64_t all)
{
    (void)context, (void)done, (void)all;
    return false;
}

TEST(backup, it_stops_on_request_and_the_older_one_stays)
{
    start();
    say("order-1", "one");
    back_up();
    say_a_lot();
    struct deed_backup_options how = {.progress = stop_at_once};
    expect_status(DEED_STOPPED, store_backup(store, BACKUP, &how, &report, &err));
    expect_good_backup();
    assert_int_equal(report.position, 2);
    expect_status(DEED_STOPPED, store_restore(os, BACKUP, NEW, &how, &report, &err));
    expect_status(DEED_STOPPED, store_check_backup(os, BACKUP, &how, NULL, NULL, &report, &err));
    finish();
}

TEST(backup, where_there_is_none_none_is_checked_or_restored)
{
    start();
    expect_status(DEED_NOT_FOUND, check());
    expect_status(DEED_NOT_FOUND, try_restore(NEW));
    put_file(BACKUP, "README", "nothing");
    expect_status(DEED_NOT_FOUND, check());
    assert_false(backup_is_there(os, BACKUP));
    back_up();
    assert_true(backup_is_there(os, BACKUP));
    finish();
}

TEST(backup, a_damaged_log_is_not_backed_up)
{
    start();
    for (int i = 0; i < 3; i++)
        say("order-1", "word");
    back_up();
    say_a_lot();
    rot(ROOT "/log", "0000000001.seg", 3 * 4096 + 120);

    expect_status(DEED_CORRUPT, try_backup());

    expect_message(err, "the log is damaged: positions 3 to 3");
    assert_int_equal(err.position, 3);
    expect_good_backup();
    assert_int_equal(report.position, 4);
    finish();
}

TEST(backup, accepted_losses_come_along)
{
    start();
    for (int i = 0; i < 3; i++)
        say("order-1", "word");
    close_store();
    rot(ROOT "/log", "0000000001.seg", 3 * 4096 + 120);
    options.accept_losses = true;
    open_store();
    options.accept_losses = false;

    back_up();
    move_to_restored(NEW);

    assert_true(info().writable);
    expect_words("word !3 word", .stream = DEED_STR("order-1"));
    say("order-1", "on");
    assert_int_equal(appended.position, 5);
    finish();
}

/* A device that gives some sectors back no more: what is zeros then shows in the chain. */
TEST(backup, sectors_that_cannot_be_read_are_damage_and_no_failure)
{
    start();
    for (int i = 0; i < 3; i++)
        say("order-1", "word");
    uint64_t refused = 0, made = 0;
    for (uint64_t k = 1; k < 12; k++) {
        for (uint64_t more = 0; more < 2; more++) {
            os_sim_fail(sim, OS_SIM_READ, k, more, EIO);
            deed_status status = try_backup();
            os_sim_heal(sim);
            if (status == DEED_OK) expect_good_backup();
            made += status == DEED_OK;
            refused += status == DEED_CORRUPT && strstr(err.message, "the log is damaged") != NULL;
        }
        move_to(ROOT);
        open_store();
        say("order-1", "word"); /* something new to copy */
    }
    assert_true(made > 5 && refused > 0);
    finish();
}

TEST(backup, an_accepted_loss_at_the_end_comes_along)
{
    start();
    for (int i = 0; i < 3; i++)
        say("order-1", "word");
    reopen();
    close_store();
    rot(ROOT "/log", "0000000001.seg", 4 * 4096 + 120);
    options.accept_losses = true;
    open_store();
    options.accept_losses = false;

    back_up();
    move_to_restored(NEW);

    say("order-1", "on");
    assert_int_equal(appended.position, 5); /* that of the lost one is not given again */
    reopen();
    assert_true(info().writable);
    finish();
}

/* ---- the directory that is restored into ---------------------------------------------------- */

TEST(backup, a_directory_that_is_not_empty_is_not_restored_into)
{
    start();
    say("order-1", "one");
    back_up();
    put_file(NEW, "notes", "mine");
    expect_status(DEED_CONFLICT, try_restore(NEW));
    expect_message(err, "/new is not empty (it has notes)");
    expect_status(DEED_CONFLICT, try_restore(ROOT));
    expect_message(err, "is not empty (it has ");
    finish();
}

TEST(backup, a_directory_in_use_is_not_restored_into)
{
    start();
    back_up();
    struct os_dir *dir = NULL;
    expect_ok(os_dir_open(os, NEW, true, &dir, &err));
    expect_ok(os_dir_lock(dir, &err));
    expect_status(DEED_LOCKED, try_restore(NEW));
    os_dir_close(dir);
    restore(NEW);
    finish();
}

TEST(backup, an_unfinished_restore_is_not_opened_and_can_be_begun_again)
{
    start();
    say("order-1", "one");
    back_up();
    put_file(NEW, "restoring", "");
    put_file(NEW "/log", "0000000001.seg", "half of it");
    move_to(NEW);

    expect_status(DEED_STOPPED, try_open());
    expect_message(err, "restore again");
    options.read_only = true;
    expect_status(DEED_STOPPED, try_open());
    options.read_only = false;

    move_to_restored(NEW);
    expect_words("one", .stream = DEED_STR("order-1"));
    finish();
}

/* ---- rot ------------------------------------------------------------------------------------ */

static deed_status open_there(const char *directory)
{
    struct store_options how = {.no_threads = true, .must_exist = true, .read_only = true};
    struct store *other = NULL;
    deed_status status = store_open(os, directory, &how, &other, &err);
    store_close(other);
    return status;
}

TEST(backup, a_flipped_bit_in_any_sector_of_any_file_is_found)
{
    start();
    say("order-1", "one");
    say_a_lot();
    back_up();
    struct name_list list = names_in(BACKUP);
    assert_int_equal(list.count, 4);
    for (size_t i = 0; i < list.count; i++) {
        uint64_t size = size_of(BACKUP, list.names[i]);
        for (uint64_t at = 0; at < size; at += at % 4096 == 0 ? 2048 + i : 4096 - at % 4096) {
            rot(BACKUP, list.names[i], at);
            expect_status(DEED_CORRUPT, check());
            expect_status(DEED_CORRUPT, try_restore(NEW));
            if (open_there(NEW) == DEED_OK) fail_msg("%s: flipped at %d", list.names[i], (int)at);
            back_up(); /* mends it */
        }
    }
    expect_good_backup();
    move_to_restored(NEW);
    finish();
}

static unsigned damage_count;

static void count_damage(void *context, const struct store_damage *damage)
{
    (void)context;
    assert_true(damage->what[0] != '\0');
    damage_count++;
}

TEST(backup, checking_tells_each_damage)
{
    start();
    say_a_lot();
    back_up();
    rot(BACKUP, name_beginning(BACKUP, "0000000001.seg"), 9000);
    rot(BACKUP, name_beginning(BACKUP, "0000000002.seg"), 9000);
    damage_count = 0;
    expect_status(DEED_CORRUPT,
                  store_check_backup(os, BACKUP, NULL, count_damage, NULL, &report, &err));
    assert_true(damage_count >= 4); /* two files, and the commits in them */
    finish();
}

/* ---- faults --------------------------------------------------------------------------------- */

/* A store with an older backup, up to position 3, and more behind it. */
static uint64_t older, newer;
static void begin_again(uint64_t seed)
{
    start_machine(seed);
    open_store();
    say("order-1", "one");
    say("order-1", "two");
    back_up();
    older = report.position;
    say_a_lot();
    if (seed % 3 > 0) seal();
    if (seed % 3 > 1) compact(1, 1);
    say("order-1", "three");
    newer = position();
}

/* Whatever has happened: one of the two is there and whole; the newer one if it was called done. */
static void expect_one_of_both(bool done, const char *when, uint64_t k)
{
    struct deed_backup_report found;
    deed_status status = store_check_backup(os, BACKUP, NULL, NULL, NULL, &found, &err);
    if (status != DEED_OK) fail_msg("%s %d: %s", when, (int)k, err.message);
    bool right = found.position == newer || (found.position == older && !done);
    if (!right) fail_msg("%s %d: the backup is of %d", when, (int)k, (int)found.position);
    status = store_restore(os, BACKUP, NEW, NULL, &report, &err);
    if (status != DEED_OK) fail_msg("%s %d: %s", when, (int)k, err.message);
    if (open_there(NEW) != DEED_OK) fail_msg("%s %d: %s", when, (int)k, err.message);
}

static void next_backup_works(const char *when, uint64_t k)
{
    if (try_backup() != DEED_OK) fail_msg("%s %d: afterwards: %s", when, (int)k, err.message);
    expect_one_of_both(true, when, k);
}

/* A power cut undid the manifest's replacing, on a file system that had given the old one's blocks away. */
static void lose_manifest_name(void)
{
    struct os_dir *dir = NULL;
    expect_ok(os_dir_open(os, BACKUP, false, &dir, &err));
    expect_ok(os_rename(dir, "manifest", "manifest.new", &err));
    os_dir_close(dir);
    put_file(BACKUP, "manifest", "bytes of another file\n");
}

/* true: it was done before the power went. */
static bool back_up_until(uint64_t k, uint64_t seed, bool unnamed)
{
    begin_again(seed);
    if (unnamed) lose_manifest_name();
    os_sim_power_off_after(sim, k);
    bool done = try_backup() == DEED_OK;
    os_sim_power_off_after(sim, DEED_NONE);
    crash();
    expect_one_of_both(done, "power off after operation", k);
    open_store();
    if (try_backup() != DEED_OK) fail_msg("%d: %s", (int)k, err.message);
    expect_good_backup();
    assert_int_equal(report.position, newer);
    finish();
    return done;
}

TEST(backup, one_whose_manifest_lost_its_name_outlives_a_full_disk)
{
    begin_again(1);
    lose_manifest_name();
    expect_good_backup();
    uint64_t files = names_in(BACKUP).count;
    os_sim_set_capacity(sim, 1);
    expect_status(DEED_FULL, try_backup());
    os_sim_heal(sim);
    assert_int_equal(names_in(BACKUP).count, files - 1); /* the damaged one */
    expect_one_of_both(false, "full disk", 0);
    back_up();
    expect_good_backup();
    assert_int_equal(report.position, newer);
    finish();
}

static uint64_t operations_of(uint64_t seed)
{
    begin_again(seed);
    uint64_t before = os_sim_count(sim, OS_SIM_ANY);
    back_up();
    uint64_t count = os_sim_count(sim, OS_SIM_ANY) - before;
    finish();
    return count;
}

/* What a crash takes is drawn: names and bytes in any order. Most hangs on the last operations, in
 * which the manifest is exchanged. */
TEST(backup, the_power_may_go_at_any_moment_and_the_older_one_stays)
{
    for (uint64_t kind = 0; kind < 3; kind++) { /* of begin_again: open, sealed, compacted */
        uint64_t count = operations_of(kind + 3);
        bool done = false;
        for (uint64_t k = 0; k <= count + 1; k++) {
            uint64_t seeds = k + 12 >= count ? 40 : 3;
            for (uint64_t i = 1; i <= seeds; i++) {
                uint64_t seed = 3 * (100 * k + i) + kind;
                done = back_up_until(k, seed, false);
                if (i % 3 == 1) (void)back_up_until(k, seed, true);
            }
        }
        assert_true(done);
    }
}

TEST(backup, when_it_is_done_a_power_cut_takes_nothing_of_it)
{
    for (uint64_t seed = 1; seed < 60; seed++) {
        begin_again(seed);
        back_up();
        crash();
        expect_one_of_both(true, "seed", seed);
        finish();
    }
}

static void fail_each(enum os_sim_op op, int error, uint64_t more, const char *when)
{
    for (uint64_t k = 1;; k++) {
        begin_again(k);
        uint64_t before = os_sim_count(sim, op);
        os_sim_fail(sim, op, k, more, error);
        deed_status status = try_backup();
        bool struck = os_sim_count(sim, op) - before >= k;
        os_sim_heal(sim);
        bool expected = status == DEED_OK || status == (error == ENOSPC ? DEED_FULL : DEED_IO) ||
                        status == DEED_CORRUPT;
        if (!expected) fail_msg("%s %d: %s", when, (int)k, deed_status_name(status));
        expect_one_of_both(status == DEED_OK, when, k);
        remove_file(NEW, "lock"); /* so that the directory is another one */
        finish();
        if (!struck) return;
    }
}

TEST(backup, each_operation_may_fail_once)
{
    fail_each(OS_SIM_ANY, EIO, 0, "operation");
}

TEST(backup, each_operation_may_fail_for_good)
{
    fail_each(OS_SIM_ANY, EIO, DEED_NONE, "operation and all after it");
}

TEST(backup, the_disk_may_be_full_at_any_write)
{
    fail_each(OS_SIM_WRITE, ENOSPC, 0, "write");
    fail_each(OS_SIM_WRITE, ENOSPC, DEED_NONE, "write and all after it");
}

TEST(backup, after_any_failure_the_next_one_works)
{
    for (uint64_t k = 1;; k++) {
        begin_again(k);
        uint64_t before = os_sim_count(sim, OS_SIM_ANY);
        os_sim_fail(sim, OS_SIM_ANY, k, 0, EIO);
        deed_status status = try_backup();
        bool struck = os_sim_count(sim, OS_SIM_ANY) - before >= k;
        os_sim_heal(sim);
        if (status != DEED_OK) next_backup_works("operation", k);
        finish();
        if (!struck) return;
    }
}

TEST(backup, a_full_disk_gets_back_what_was_taken_of_it)
{
    begin_again(1);
    size_t files = names_in(BACKUP).count;
    os_sim_fail(sim, OS_SIM_WRITE, 5, DEED_NONE, ENOSPC);
    expect_status(DEED_FULL, try_backup());
    expect_message(err, "backup to /backup: ");
    os_sim_heal(sim);
    assert_int_equal(names_in(BACKUP).count, files);
    finish();
}

/* It is a whole store or it is none, whatever it looks like. */
static void expect_whole_or_refused(bool done, uint64_t k)
{
    deed_status status = open_there(NEW);
    if (status != DEED_OK && done) fail_msg("%d: done, but %s", (int)k, err.message);
    if (status != DEED_OK) return;
    close_store();
    (void)snprintf(root, sizeof root, NEW);
    open_store();
    if (position() != older || info().epoch == 1) fail_msg("%d: opens, and is not whole", (int)k);
    expect_words("one two", .stream = DEED_STR("order-1"));
    close_store();
}

TEST(backup, the_power_may_go_at_any_moment_of_a_restore)
{
    for (uint64_t k = 0;; k++) {
        begin_again(k + 1);
        os_sim_power_off_after(sim, k);
        bool done = try_restore(NEW) == DEED_OK;
        os_sim_power_off_after(sim, DEED_NONE);
        crash();
        expect_whole_or_refused(done, k);
        if (open_there(NEW) != DEED_OK) {
            os_sim_advance(sim, SECOND);
            restore(NEW);
            expect_whole_or_refused(true, k);
        }
        finish();
        if (done) return;
    }
}

TEST(backup, each_operation_of_a_restore_may_fail)
{
    for (uint64_t k = 1;; k++) {
        begin_again(k);
        uint64_t before = os_sim_count(sim, OS_SIM_ANY);
        os_sim_fail(sim, OS_SIM_ANY, k, k % 2 == 0 ? DEED_NONE : 0, EIO);
        deed_status status = try_restore(NEW);
        bool struck = os_sim_count(sim, OS_SIM_ANY) - before >= k;
        os_sim_heal(sim);
        bool expected = status == DEED_OK || status == DEED_IO || status == DEED_CORRUPT;
        if (!expected) fail_msg("%d: %s", (int)k, deed_status_name(status));
        expect_whole_or_refused(status == DEED_OK, k);
        finish();
        if (!struck) return;
    }
}

TEST(backup, a_restore_on_a_full_disk_says_so)
{
    unsigned full = 0;
    for (uint64_t k = 1;; k++) {
        begin_again(k);
        uint64_t before = os_sim_count(sim, OS_SIM_WRITE);
        os_sim_fail(sim, OS_SIM_WRITE, k, DEED_NONE, ENOSPC);
        deed_status status = try_restore(NEW);
        bool struck = os_sim_count(sim, OS_SIM_WRITE) - before >= k;
        os_sim_heal(sim);
        full += status == DEED_FULL;
        /* Without its newest mark the log is whole, too. */
        if (status != DEED_OK) expect_status(DEED_FULL, status);
        expect_whole_or_refused(status == DEED_OK, k);
        finish();
        if (!struck) break;
    }
    assert_true(full >= 4);
}

/* A sync that lies: what was written does not arrive, and only the cache shows it. */
TEST(backup, what_the_device_did_not_keep_is_found_by_reading_it_again)
{
    unsigned struck = 0;
    for (uint64_t seed = 1; seed < 40; seed++) {
        begin_again(seed);
        struct os_sim_faults faults = {0};
        faults.ppm[OS_SIM_STRAY_WRITE] = 200000;
        os_sim_set_faults(sim, &faults);
        deed_status status = try_backup();
        struck += os_sim_struck(sim, OS_SIM_STRAY_WRITE) > 0;
        os_sim_heal(sim);
        if (status == DEED_OK) {
            crash();
            struct deed_backup_report found;
            deed_status again = store_check_backup(os, BACKUP, NULL, NULL, NULL, &found, &err);
            /* A stray write may hit what was checked before it. Then it is known by its hash. */
            if (again != DEED_OK) assert_int_equal(again, DEED_CORRUPT);
        }
        finish();
    }
    assert_true(struck > 0);
}

/* ---- names ---------------------------------------------------------------------------------- */

TEST(backup, an_entry_name_is_read_back)
{
    uint8_t hash[SHA256_SIZE];
    char name[BACKUP_ENTRY_NAME_SIZE];
    struct backup_file file;
    for (size_t i = 0; i < sizeof hash; i++)
        hash[i] = (uint8_t)(i * 9);
    backup_entry_name("0000000001.00000000000000000001.4294967295.sealed", hash, name);
    assert_true(backup_entry_parse(name, &file));
    assert_string_equal(file.name, "0000000001.00000000000000000001.4294967295.sealed");
    assert_memory_equal(file.hash, hash, sizeof hash);
    name[strlen(name) - 1] = 'g';
    assert_false(backup_entry_parse(name, &file));
    assert_false(backup_entry_parse("0000000001.seg", &file));
    assert_false(backup_entry_parse("", &file));
    assert_true(backup_is_ours("losses.copy"));
    assert_false(backup_is_ours("manifest"));
    assert_false(backup_is_ours(".copy"));
}

TEST_MAIN(backup)
