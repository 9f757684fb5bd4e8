/* test_store_faults.c - belongs to store.c and to what it stands on: a disk that fails, fills up or
 * is somebody else's. What was acknowledged is there afterwards; what was refused is not. */
#include "store_fixture.h"

#include "base/hash.h"
#include "base/rw.h"
#include "log/segment.h"

#include <errno.h>
#include <sys/wait.h>

/* ---- a life with a model -------------------------------------------------------------------- */

#define WORDS_MAX 64

enum fate { UNBORN, ACKED, REFUSED, UNKNOWN };

static enum fate fates[WORDS_MAX];
static unsigned word_count;
static unsigned full_count; /* refusals for want of room */

static void forget_model(void)
{
    memset(fates, 0, sizeof fates);
    word_count = full_count = 0;
}

/* Append the next word, with some kilobytes beside it so that segments roll. */
static deed_status say_next(size_t pad)
{
    static char metadata[32 << 10];
    char word[16];
    unsigned n = word_count++;
    assert_true(n < WORDS_MAX);
    (void)snprintf(word, sizeof word, "w%u", n);
    int size = snprintf(metadata, sizeof metadata, "{\"pad\":\"%0*d\"}", (int)pad + 1, 0);
    struct deed_new_event e = said(n % 2 == 0 ? "even" : "odd", word);
    e.metadata = (deed_bytes){(const uint8_t *)metadata, (size_t)size};
    deed_status status = append_event(e);
    fates[n] = status == DEED_OK ? ACKED : status == DEED_UNKNOWN ? UNKNOWN : REFUSED;
    if (status == DEED_FULL) full_count++;
    return status;
}

/* Appends of many sizes, a deletion, a mark now and then: over three segments in all. */
static void live(void)
{
    bool stopped = false;
    for (unsigned i = 0; i < 14; i++) {
        deed_status status = say_next(i % 3 == 2 ? 20000 : i * 300);
        bool known = status == DEED_OK || status == DEED_FULL || status == DEED_UNKNOWN ||
                     status == DEED_STOPPED || status == DEED_IO; /* it reads the index */
        if (!known) fail_msg("append: %s: %s", deed_status_name(status), err.message);
        if (stopped && status != DEED_STOPPED) fail_msg("a stopped store went on");
        stopped = status == DEED_UNKNOWN || status == DEED_STOPPED;
        if (i % 4 == 3) os_sim_advance(sim, SECOND);
        (void)store_step(store);
        struct deed_info info;
        store_info(store, &info);
        if (stopped) assert_false(info.writable);
        assert_true(info.writable == (info.stopped_because[0] == '\0'));
        stopped = !info.writable; /* the keeper may have found it out too */
        if (i == 6) {
            (void)!store_delete_stream(store, DEED_STR("gone"), DEED_EXPECT_ANY, 0, false,
                                       (deed_str){0}, &appended, &err);
        }
    }
}

/* What is read is what the model allows. */
static void expect_model(const char *when)
{
    char *words = strdup(read_words(&(struct deed_read_options){.after_position = 0}));
    assert_non_null(words);
    char *rest = words;
    const char *word = strtok_r(rest, " ", &rest);
    for (unsigned n = 0; n < word_count; n++) {
        char wanted[16];
        (void)snprintf(wanted, sizeof wanted, "w%u", n);
        bool there = word != NULL && strcmp(word, wanted) == 0;
        if (fates[n] == ACKED && !there) fail_msg("%s: %s is lost: \"%s\"", when, wanted, words);
        if (fates[n] == REFUSED && there) fail_msg("%s: %s was refused", when, wanted);
        /* What was seen once stays. */
        if (fates[n] == UNKNOWN) fates[n] = there ? ACKED : REFUSED;
        if (there) word = strtok_r(rest, " ", &rest);
    }
    if (word != NULL) fail_msg("%s: %s comes out of nowhere", when, word);
    free(words);
}

static void expect_healthy(const char *when)
{
    struct store_verify_report report;
    if (try_open() != DEED_OK) fail_msg("%s: open: %s", when, err.message);
    expect_model(when);
    if (say_next(0) != DEED_OK) fail_msg("%s: append: %s", when, err.message);
    expect_model(when);
    expect_ok(store_verify(store, NULL, NULL, NULL, &report, &err));
    assert_int_equal(report.events, store_position(store));
}

static const struct {
    enum os_sim_op op;
    const char *name;
    int error_number;
} fault_kinds[] = {
    {OS_SIM_WRITE, "write", EIO},     {OS_SIM_WRITE, "write", ENOSPC},
    {OS_SIM_SYNC, "sync", EIO},       {OS_SIM_SYNC, "sync", ENOSPC},
    {OS_SIM_DIR_SYNC, "dir sync", EIO}, {OS_SIM_OPEN, "open", EIO},
    {OS_SIM_OPEN, "open", ENOSPC},    {OS_SIM_READ, "read", EIO},
    {OS_SIM_SIZE, "size", EIO},       {OS_SIM_TRUNCATE, "truncate", EIO},
    {OS_SIM_REMOVE, "remove", EIO},   {OS_SIM_DIR_LIST, "list", EIO},
    {OS_SIM_DIR_OPEN, "dir open", EIO},
};
#define FAULT_KINDS (sizeof fault_kinds / sizeof fault_kinds[0])

/* One machine: the k-th operation of a kind fails, then it dies, heals and is compared. */
static uint64_t live_with_fault(size_t kind, uint64_t k, uint64_t more, bool kill)
{
    char when[128];
    (void)snprintf(when, sizeof when, "%s %llu fails with %d, %s, %s", fault_kinds[kind].name,
                   (unsigned long long)k, fault_kinds[kind].error_number,
                   more == 0 ? "once" : "for good", kill ? "killed" : "crashed");
    forget_model();
    start_machine(k);
    if (k > 0) os_sim_fail(sim, fault_kinds[kind].op, k, more, fault_kinds[kind].error_number);
    if (try_open() == DEED_OK) live();
    uint64_t count = os_sim_count(sim, fault_kinds[kind].op);
    if (kill) {
        os_sim_kill(sim);
    } else {
        os_sim_crash(sim);
    }
    close_store();
    os_sim_heal(sim);
    expect_healthy(when);
    finish();
    return count;
}

TEST(store_faults, any_failing_operation_loses_nothing_acknowledged)
{
    for (size_t kind = 0; kind < FAULT_KINDS; kind++) {
        uint64_t count = live_with_fault(kind, 0, 0, false);
        for (uint64_t k = 1; k <= count; k++) {
            live_with_fault(kind, k, 0, false);
            live_with_fault(kind, k, 0, true);
            live_with_fault(kind, k, DEED_NONE, false);
            live_with_fault(kind, k, DEED_NONE, true);
        }
    }
}

/* The same while a crash is recovered from. */
static bool recover_with_fault(size_t kind, uint64_t k, uint64_t more, uint64_t seed)
{
    char when[128];
    (void)snprintf(when, sizeof when, "%s %llu fails with %d in recovery, seed %llu",
                   fault_kinds[kind].name, (unsigned long long)k, fault_kinds[kind].error_number,
                   (unsigned long long)seed);
    forget_model();
    start_machine(seed);
    open_store();
    live();
    os_sim_fail(sim, OS_SIM_SYNC, 1, 0, EIO); /* a group in doubt, so that there is a tail */
    expect_status(DEED_UNKNOWN, say_next(9000));
    crash();
    os_sim_heal(sim);
    uint64_t before = os_sim_count(sim, fault_kinds[kind].op);
    os_sim_fail(sim, fault_kinds[kind].op, k, more, fault_kinds[kind].error_number);
    bool opened = try_open() == DEED_OK;
    bool struck = os_sim_count(sim, fault_kinds[kind].op) - before >= k;
    if (!opened && err.message[0] == '\0') fail_msg("%s: no message", when);
    os_sim_heal(sim);
    /* What cannot be read is damage to this recovery: it changes nothing, the next one decides. */
    struct deed_info info = {.writable = false};
    if (opened) store_info(store, &info);
    if (info.writable) expect_model(when);
    os_sim_crash(sim);
    close_store();
    expect_healthy(when);
    finish();
    return struck;
}

TEST(store_faults, any_failing_operation_of_a_recovery_can_be_recovered_from)
{
    for (size_t kind = 0; kind < FAULT_KINDS; kind++) {
        for (uint64_t seed = 1; seed <= 3; seed++) {
            uint64_t more = seed == 2 ? DEED_NONE : 0;
            uint64_t k = 1;
            while (recover_with_fault(kind, k, more, seed)) k++;
        }
    }
}

/* ---- failed writes and syncs ---------------------------------------------------------------- */

TEST(store_faults, after_a_failed_sync_the_outcome_is_unknown_and_writing_stops)
{
    start();
    struct deed_info info;
    say("a", "one");
    os_sim_fail(sim, OS_SIM_SYNC, 1, 0, EIO);
    uint64_t writes = os_sim_count(sim, OS_SIM_WRITE);
    expect_status(DEED_UNKNOWN, append_event(said("a", "two")));
    expect_message(err, "the outcome is unknown: cannot sync file");
    assert_true(os_sim_count(sim, OS_SIM_WRITE) > writes);

    writes = os_sim_count(sim, OS_SIM_WRITE);
    uint64_t syncs = os_sim_count(sim, OS_SIM_SYNC);
    expect_status(DEED_STOPPED, append_event(said("a", "three")));
    expect_message(err, "the log takes no more appends: a write failed: cannot sync file");
    store_info(store, &info);
    assert_false(info.writable);
    assert_non_null(strstr(info.stopped_because, "a write failed"));
    expect_words("one", .stream = DEED_STR("a")); /* nobody reads what is in doubt */
    os_sim_advance(sim, SECOND);
    (void)store_step(store);
    assert_int_equal(os_sim_count(sim, OS_SIM_WRITE), writes);
    assert_int_equal(os_sim_count(sim, OS_SIM_SYNC), syncs); /* a sync is never tried again */
    reopen();
    say("a", "four");
    finish();
}

TEST(store_faults, who_waits_in_the_failed_group_shares_its_fate)
{
    start();
    say("a", "zero");
    os_sim_fail(sim, OS_SIM_SYNC, 1, 0, EIO);
    expect_status(DEED_UNKNOWN, append_event(said("a", "one")));
    expect_status(DEED_STOPPED, store_delete_stream(store, DEED_STR("a"), DEED_EXPECT_ANY, 0, true,
                                                    (deed_str){0}, &appended, &err));
    struct deed_new_event e = said("a", "two");
    struct deed_append a = {.events = &e, .event_count = 1};
    expect_status(DEED_STOPPED, store_append(store, &a, &appended, &err));
    expect_ok(store_check(store, &a, &err)); /* what it would refuse always, it still says */
    finish();
}

static void note_answer(void *context, const struct deed_appended *answer,
                        const struct deed_error *why)
{
    *(deed_status *)context = answer != NULL ? DEED_OK : why->status;
}

/* A refusal must be as durable as what it rests on. */
TEST(store_faults, an_answer_that_rests_on_a_failed_group_fails_with_it)
{
    static const struct {
        enum os_sim_op op;
        int error_number;
        deed_status status;
    } ways[] = {{OS_SIM_SYNC, EIO, DEED_UNKNOWN}, {OS_SIM_WRITE, ENOSPC, DEED_FULL}};
    for (size_t way = 0; way < 2; way++) {
        start();
        say("b", "zero");
        struct deed_new_event first = said("a", "one"), repeated = said("a", "one");
        first.id = repeated.id = id_of(1);
        struct deed_new_event other = said("c", "never");
        struct deed_condition rests = stream_is("a", DEED_EXPECT_NONE, 0);
        struct deed_condition old = stream_is("b", DEED_EXPECT_NONE, 0);
        struct deed_append appends[] = {
            {.events = &first, .event_count = 1},
            {.events = &repeated, .event_count = 1},
            {.events = &other, .event_count = 1, .conditions = &rests, .condition_count = 1},
            {.events = &other, .event_count = 1, .conditions = &old, .condition_count = 1}};
        deed_status got[4] = {0};
        for (size_t i = 0; i < 4; i++) {
            expect_ok(store_submit(store, &appends[i], note_answer, &got[i], &err));
        }
        os_sim_fail(sim, ways[way].op, 1, 0, ways[way].error_number);
        (void)store_step(store);
        assert_int_equal(got[0], ways[way].status);
        assert_int_equal(got[1], ways[way].status);
        assert_int_equal(got[2], ways[way].status);
        assert_int_equal(got[3], DEED_CONFLICT); /* this one rests on what is durable */
        finish();
    }
}

/* What deletes a stream is the event that a condition on the stream rests on. */
TEST(store_faults, a_refusal_that_rests_on_a_failed_deletion_fails_with_it)
{
    for (unsigned fails = 0; fails < 2; fails++) {
        start();
        say("a", "one");
        struct deed_new_event deletion = {.stream = DEED_STR("$$a"),
                                          .type = DEED_STR("$metadata"),
                                          .data = deed_bytes_of(DEED_STR("{\"$tb\":1}"))};
        struct deed_new_event other = said("c", "never");
        struct deed_condition exists = stream_is("a", DEED_EXPECT_EXISTS, 0);
        struct deed_append appends[] = {
            {.events = &deletion, .event_count = 1},
            {.events = &other, .event_count = 1, .conditions = &exists, .condition_count = 1}};
        deed_status got[2] = {0};
        for (size_t i = 0; i < 2; i++) {
            expect_ok(store_submit(store, &appends[i], note_answer, &got[i], &err));
        }
        if (fails == 1) os_sim_fail(sim, OS_SIM_SYNC, 1, 0, EIO);
        (void)store_step(store);
        assert_int_equal(got[0], fails == 1 ? DEED_UNKNOWN : DEED_OK);
        assert_int_equal(got[1], fails == 1 ? DEED_UNKNOWN : DEED_CONFLICT);
        if (fails == 0) {
            expect_status(DEED_CONFLICT, append_if(other, exists));
            expect_message(err, "stream a should exist, it is at revision 0 and deleted");
            assert_int_equal(err.position, 3); /* the deletion's */
        }
        finish();
    }
}

TEST(store_faults, a_refusal_that_rests_on_failed_metadata_fails_with_it)
{
    for (unsigned fails = 0; fails < 2; fails++) {
        start();
        say("a", "one");
        expect_ok(store_delete_stream(store, DEED_STR("a"), DEED_EXPECT_ANY, 0, false, (deed_str){0},
                                      &appended, &err));
        /* Metadata without $tb brings the stream back. */
        struct deed_new_event metadata = {.stream = DEED_STR("$$a"),
                                          .type = DEED_STR("$metadata"),
                                          .data = deed_bytes_of(DEED_STR("{}"))};
        struct deed_new_event other = said("c", "never");
        struct deed_condition none = stream_is("a", DEED_EXPECT_NONE, 0);
        struct deed_append appends[] = {
            {.events = &metadata, .event_count = 1},
            {.events = &other, .event_count = 1, .conditions = &none, .condition_count = 1}};
        deed_status got[2] = {0};
        for (size_t i = 0; i < 2; i++) {
            expect_ok(store_submit(store, &appends[i], note_answer, &got[i], &err));
        }
        if (fails == 1) os_sim_fail(sim, OS_SIM_WRITE, 1, 0, ENOSPC);
        (void)store_step(store);
        assert_int_equal(got[0], fails == 1 ? DEED_FULL : DEED_OK);
        assert_int_equal(got[1], fails == 1 ? DEED_FULL : DEED_CONFLICT);
        finish();
    }
}

TEST(store_faults, a_segment_that_cannot_be_made_stops_writing_without_doubt)
{
    static const enum os_sim_op ops[] = {OS_SIM_OPEN, OS_SIM_WRITE, OS_SIM_SYNC, OS_SIM_DIR_SYNC};
    for (size_t i = 0; i < 4; i++) {
        forget_model();
        start();
        for (int n = 0; n < 2; n++) expect_ok(say_next(20000));
        os_sim_fail(sim, ops[i], 1, DEED_NONE, EIO);
        expect_status(DEED_STOPPED, say_next(25000));
        expect_message(err, "segment 2 cannot be made");
        os_sim_heal(sim);
        expect_status(DEED_STOPPED, say_next(0));
        crash();
        expect_healthy("after a segment could not be made");
        finish();
    }
}

/* What was begun of the next segment may come back with the power: appends that fit into the old one
 * must not pass it. */
TEST(store_faults, a_segment_that_there_was_no_room_for_comes_before_what_fits_into_the_old_one)
{
    static const enum os_sim_op ops[] = {OS_SIM_WRITE, OS_SIM_SYNC, OS_SIM_DIR_SYNC};
    for (uint64_t seed = 0; seed < 90; seed++) {
        forget_model();
        start_machine(seed);
        open_store();
        for (int n = 0; n < 2; n++) expect_ok(say_next(20000));
        os_sim_fail(sim, ops[seed % 3], 1, 0, ENOSPC);
        deed_status status = say_next(25000);
        if (status != DEED_FULL && status != DEED_STOPPED) fail_msg("%s", err.message);
        os_sim_heal(sim);
        if (status == DEED_FULL) expect_ok(say_next(0));
        crash();
        expect_healthy("after there was no room for a segment");
        finish();
    }
}

/* ---- a full disk ---------------------------------------------------------------------------- */

TEST(store_faults, a_full_disk_refuses_appends_and_goes_on_when_there_is_room)
{
    start();
    struct deed_info info;
    say("a", "one");
    os_sim_set_capacity(sim, 1);
    expect_status(DEED_FULL, append_event(said("a", "two")));
    expect_message(err, "nothing was stored");
    expect_status(DEED_FULL, append_event(said("a", "three")));
    expect_words("one", .stream = DEED_STR("a"));
    store_info(store, &info);
    assert_true(info.writable);
    os_sim_advance(sim, SECOND);
    (void)store_step(store);
    os_sim_set_capacity(sim, DEED_NONE);
    say("a", "four");
    assert_int_equal(appended.revision, 1);
    assert_int_equal(appended.position, 3);
    expect_words("one four", .stream = DEED_STR("a"));
    expect_ok(append_if(said("a", "five"), at_revision("a", 1)));
    crash();
    open_store();
    expect_words("one four five", .stream = DEED_STR("a"));
    finish();
}

TEST(store_faults, a_full_disk_gets_back_what_was_filled_ahead)
{
    start();
    say("a", "one");
    struct deed_info before, after;
    store_info(store, &before);
    /* Room for the marks and a part of what the keeper would fill. */
    os_sim_set_capacity(sim, before.log_size + 8192 + 16384);
    for (int i = 0; i < 8; i++) {
        os_sim_advance(sim, SECOND);
        (void)store_step(store);
    }
    store_info(store, &after);
    assert_int_equal(after.log_size, before.log_size);
    assert_true(after.writable);
    say("a", "two");
    os_sim_set_capacity(sim, DEED_NONE);
    crash();
    open_store();
    expect_words("one two", .stream = DEED_STR("a"));
    finish();
}

/* What the refused group had put into the index is gone from it. */
TEST(store_faults, what_a_full_disk_refused_leaves_no_trace)
{
    start();
    deed_str tag = DEED_STR("tag");
    struct deed_new_event e = said("a", "one");
    e.id = id_of(1);
    e.tags = &tag;
    e.tag_count = 1;
    struct deed_append a = {
        .events = &e, .event_count = 1, .idempotency_key = DEED_STR("key")};
    uint8_t hash[32];
    uint64_t first, last;
    os_sim_set_capacity(sim, 1);
    expect_status(DEED_FULL, store_append(store, &a, &appended, &err));
    os_sim_set_capacity(sim, DEED_NONE);
    expect_status(DEED_NOT_FOUND,
                  store_find_key(store, DEED_STR("key"), hash, &first, &last, &err));
    expect_words("DEED_NOT_FOUND", .stream = DEED_STR("a"));
    struct deed_query_item item = {.tags = &tag, .tag_count = 1};
    struct deed_condition c = {
        .kind = DEED_CONDITION_NO_MATCH, .items = &item, .item_count = 1};
    a.conditions = &c;
    a.condition_count = 1;
    expect_ok(store_append(store, &a, &appended, &err));
    assert_false(appended.repeated);
    assert_int_equal(appended.revision, 0);
    expect_words("one", .filter = {.tags = &tag, .tag_count = 1});
    finish();
}

/* However large the disk is: it only ever says that it is full, and works when it no longer is. */
TEST(store_faults, a_disk_of_any_size_fills_up_in_good_order)
{
    unsigned never_full = 0;
    for (uint64_t size = 0; never_full < 3; size += 1531) {
        char when[64];
        (void)snprintf(when, sizeof when, "a disk of %llu bytes", (unsigned long long)size);
        forget_model();
        start_machine(size);
        os_sim_set_capacity(sim, size);
        deed_status status = try_open();
        if (status == DEED_OK) {
            live();
            struct deed_info info;
            store_info(store, &info);
            if (!info.writable) fail_msg("%s: %s", when, info.stopped_because);
            os_sim_set_capacity(sim, DEED_NONE);
            if (say_next(0) != DEED_OK) fail_msg("%s: still full: %s", when, err.message);
            if (full_count == 0) never_full++;
        } else if (status != DEED_FULL) {
            fail_msg("%s: open: %s", when, err.message);
        }
        os_sim_crash(sim);
        close_store();
        os_sim_heal(sim);
        expect_healthy(when);
        finish();
    }
}

TEST(store_faults, a_torn_tail_is_cut_off_though_there_is_no_room_to_keep_it)
{
    forget_model();
    start();
    expect_ok(say_next(0));
    os_sim_fail(sim, OS_SIM_SYNC, 1, 0, EIO);
    expect_status(DEED_UNKNOWN, say_next(9000));
    crash();
    os_sim_set_capacity(sim, 1);
    open_store();
    expect_model("on a full disk");
    os_sim_heal(sim);
    expect_ok(say_next(0));
    expect_model("with room again");
    finish();
}

/* ---- without syncs -------------------------------------------------------------------------- */

/* A power cut may take what was acknowledged, but only from the end, and the store goes on. */
TEST(store_faults, an_unsafe_store_loses_only_its_end_and_goes_on)
{
    for (uint64_t seed = 1; seed <= 300; seed++) {
        forget_model();
        start_machine(seed);
        options.unsafe_no_sync = true;
        open_store();
        uint64_t count = os_sim_pick(sim, 24);
        for (uint64_t i = 0; i < count; i++) {
            expect_ok(say_next(os_sim_pick(sim, 2) == 0 ? 0 : 9000));
            if (os_sim_pick(sim, 4) == 0) os_sim_advance(sim, SECOND);
            if (os_sim_pick(sim, 4) == 0) (void)store_step(store);
        }
        crash();
        if (try_open() != DEED_OK) fail_msg("seed %llu: %s", (unsigned long long)seed, err.message);
        struct deed_info info;
        store_info(store, &info);
        if (!info.writable) {
            fail_msg("seed %llu: %s", (unsigned long long)seed, info.stopped_because);
        }
        bool lost = false;
        const char *words = read_words(&(struct deed_read_options){.after_position = 0});
        for (unsigned n = 0; n < word_count; n++) {
            char wanted[16];
            int size = snprintf(wanted, sizeof wanted, "w%u", n);
            bool there = strncmp(words, wanted, (size_t)size) == 0;
            if (there && lost) fail_msg("seed %llu: a hole", (unsigned long long)seed);
            if (there) words += words[size] == ' ' ? size + 1 : size;
            lost |= !there;
        }
        assert_string_equal(words, "");
        say("even", "on");
        finish();
    }
}

TEST(store_faults, an_unsafe_store_that_was_closed_is_durable)
{
    forget_model();
    start_machine(1);
    options.unsafe_no_sync = true;
    open_store();
    for (int i = 0; i < 10; i++) expect_ok(say_next(9000));
    close_store();
    os_sim_crash(sim);
    options.unsafe_no_sync = false;
    expect_healthy("after closing");
    finish();
}

/* ---- somebody else's ------------------------------------------------------------------------ */

TEST(store_faults, another_process_holding_the_directory_is_named)
{
    start_here();
    close_store();
    int ready[2], over[2];
    char byte = 0;
    assert_int_equal(pipe(ready), 0);
    assert_int_equal(pipe(over), 0);
    options.no_threads = true;
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        bool opened = try_open() == DEED_OK;
        if (write(ready[1], "r", 1) != 1 || read(over[0], &byte, 1) != 1) _exit(2);
        _exit(opened ? 0 : 1);
    }
    assert_int_equal(read(ready[0], &byte, 1), 1);
    expect_status(DEED_LOCKED, try_open());
    char holder[32];
    (void)snprintf(holder, sizeof holder, "%d", (int)child);
    expect_message(err, holder);
    options.read_only = true; /* reading needs no lock */
    open_store();
    close_store();
    options.read_only = false;
    assert_int_equal(write(over[1], "o", 1), 1);
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    open_store(); /* the lock died with it */
    say("a", "one");
    for (int i = 0; i < 2; i++) (void)close(ready[i]), (void)close(over[i]);
    finish();
}

TEST(store_faults, a_read_only_store_sees_what_was_published_and_writes_nothing)
{
    start_here();
    say("a", "one");
    struct store *writer = store;
    struct picture before, after;
    char log_path[300];
    (void)snprintf(log_path, sizeof log_path, "%s/log", root);
    usleep(120000); /* the keeper rests */
    picture_take(&before, os, log_path);
    options.read_only = true;
    open_store();
    expect_words("one", .stream = DEED_STR("a"));
    expect_status(DEED_STOPPED, append_event(said("a", "two")));
    expect_message(err, "opened read-only");
    struct deed_info info;
    store_info(store, &info);
    assert_false(info.writable);
    struct store *reader = store;
    store_close(reader);
    picture_take(&after, os, log_path);
    assert_int_equal(before.count, after.count);
    for (size_t i = 0; i < before.count; i++) {
        const struct picture_file *f = picture_find(&after, before.files[i].name);
        assert_int_equal(f->size, before.files[i].size);
        assert_memory_equal(f->bytes, before.files[i].bytes, f->size);
    }
    picture_done(&before);
    picture_done(&after);
    store = writer;
    say("a", "two");
    finish();
}

/* The machine beneath, but for a call to `before_read`, once, when its time has come. */
struct spy_dir {
    struct os_dir base;
    struct os_dir *below;
};
struct spy_file {
    struct os_file base;
    struct os_file *below;
};
static struct os spy;
static void (*before_read)(void);
static unsigned reads_until;

static struct os_dir *dir_below(struct os_dir *dir)
{
    return ((struct spy_dir *)dir)->below;
}

static struct os_file *file_below(struct os_file *file)
{
    return ((struct spy_file *)file)->below;
}

static deed_status spy_dir_open(struct os *on, struct os_dir *parent, const char *path, bool create,
                                struct os_dir **out, struct deed_error *e)
{
    struct spy_dir *dir = calloc(1, sizeof *dir);
    assert_non_null(dir);
    deed_status status = parent == NULL
                             ? os_dir_open(os, path, create, &dir->below, e)
                             : os_dir_open_in(dir_below(parent), path, create, &dir->below, e);
    if (status != DEED_OK) {
        free(dir);
        return status;
    }
    dir->base = (struct os_dir){.os = on, .path = dir->below->path};
    *out = &dir->base;
    return DEED_OK;
}

static void spy_dir_close(struct os_dir *dir)
{
    os_dir_close(dir_below(dir));
    free(dir);
}

static deed_status spy_dir_list(struct os_dir *dir, void (*each)(void *, const char *),
                                void *context, struct deed_error *e)
{
    return os_dir_list(dir_below(dir), each, context, e);
}

static deed_status spy_file_open(struct os_dir *dir, const char *name, unsigned flags,
                                 struct os_file **out, struct deed_error *e)
{
    struct spy_file *file = calloc(1, sizeof *file);
    assert_non_null(file);
    deed_status status = os_file_open(dir_below(dir), name, flags, &file->below, e);
    if (status != DEED_OK) {
        free(file);
        return status;
    }
    file->base = (struct os_file){.os = dir->os, .name = file->below->name, .flags = flags};
    *out = &file->base;
    return DEED_OK;
}

static void spy_file_close(struct os_file *file)
{
    os_file_close(file_below(file));
    free(file);
}

static deed_status spy_file_read(struct os_file *file, uint64_t offset, void *out, size_t size,
                                 size_t *out_read, struct deed_error *e)
{
    if (reads_until > 0 && --reads_until == 0) before_read();
    return os_file_read(file_below(file), offset, out, size, out_read, e);
}

static deed_status spy_file_size(struct os_file *file, uint64_t *out_size, struct deed_error *e)
{
    return os_file_size(file_below(file), out_size, e);
}

static int64_t spy_now(struct os *on)
{
    (void)on;
    return os_now_ns(os);
}

static uint64_t spy_ticks(struct os *on)
{
    (void)on;
    return os_ticks_ns(os);
}

static void spy_random(struct os *on, void *out, size_t size)
{
    (void)on;
    os_random(os, out, size);
}

/* What a read-only store may call; all else ends the test. */
static const struct os_ops spy_ops = {
    .dir_open = spy_dir_open,
    .dir_close = spy_dir_close,
    .dir_list = spy_dir_list,
    .file_open = spy_file_open,
    .file_close = spy_file_close,
    .file_read = spy_file_read,
    .file_size = spy_file_size,
    .now_ns = spy_now,
    .ticks_ns = spy_ticks,
    .random = spy_random,
};

static struct store *busy_writer;

/* The first lies where the reader has looked already, the second where it looks next. */
static void write_two_large_ones(void)
{
    static char large[1200000];
    memset(large, 'x', sizeof large);
    struct deed_new_event e = {.stream = DEED_STR("a"),
                               .type = DEED_STR("Said"),
                               .content_type = DEED_STR("text/plain"),
                               .data = {(const uint8_t *)large, sizeof large}};
    struct deed_append a = {.events = &e, .event_count = 1};
    for (int i = 0; i < 2; i++) expect_ok(store_append(busy_writer, &a, &appended, &err));
}

TEST(store_faults, a_read_only_store_beside_a_busy_writer_finds_no_damage)
{
    unsigned reads = 0;
    for (unsigned k = 1; k == 1 || reads_until == 0; k++) {
        start_machine(1);
        options.segment_size = 16 << 20;
        open_store();
        busy_writer = store;
        write_two_large_ones();
        write_two_large_ones();
        for (int i = 0; i < 32; i++) { /* the keeper writes zeros ahead */
            os_sim_advance(sim, SECOND);
            (void)store_step(store);
        }
        spy.ops = &spy_ops;
        before_read = write_two_large_ones;
        reads_until = k;
        options.read_only = true;
        if (store_open(&spy, root, &options, &store, &err) != DEED_OK) fail_msg("%s", err.message);
        struct deed_info info;
        store_info(store, &info);
        if (info.corrupt_first != DEED_NONE) fail_msg("read %u: %s", k, info.stopped_because);
        assert_string_equal(info.stopped_because, "opened read-only");
        assert_true(info.position >= 5);
        if (reads_until == 0) reads++;
        close_store();
        store = busy_writer;
        finish();
    }
    assert_true(reads >= 4);
}

TEST(store_faults, a_read_only_store_leaves_a_torn_tail_as_it_is)
{
    forget_model();
    start();
    expect_ok(say_next(0));
    os_sim_fail(sim, OS_SIM_SYNC, 1, 0, EIO);
    expect_status(DEED_UNKNOWN, say_next(9000));
    crash();
    os_sim_heal(sim);
    options.read_only = true;
    uint64_t writes = os_sim_count(sim, OS_SIM_WRITE);
    open_store();
    expect_words("w0", .after_position = 0, .until_position = 2);
    struct store_verify_report report;
    expect_ok(store_verify(store, NULL, NULL, NULL, &report, &err));
    close_store();
    assert_int_equal(os_sim_count(sim, OS_SIM_WRITE), writes);
    options.read_only = false;
    expect_healthy("after reading only");
    finish();
}

/* ---- versions ------------------------------------------------------------------------------- */

/* Change bytes of segment 1's header and seal it with a good checksum again. */
static void patch_header(struct picture *p, size_t at, uint64_t value, size_t size)
{
    struct picture_file *f = picture_find(p, "0000000001.seg");
    put_uint(f->bytes + at, value, size);
    put_uint(f->bytes + 8, crc32c(0, (deed_bytes){f->bytes + 12, SEGMENT_HEADER_SIZE - 12}), 4);
}

static void expect_patched(size_t at, uint64_t value, size_t size, deed_status wanted,
                           const char *message)
{
    struct picture p;
    start();
    say("a", "one");
    close_store();
    picture_take(&p, os, ROOT "/log");
    finish();
    patch_header(&p, at, value, size);
    start_from(&p);
    expect_status(wanted, try_open());
    if (wanted == DEED_OK) {
        expect_words("one", .stream = DEED_STR("a"));
        say("a", "two");
    } else {
        expect_message(err, message);
        expect_message(err, "0000000001.seg");
        struct picture after; /* nothing was changed */
        picture_take(&after, os, ROOT "/log");
        const struct picture_file *was = picture_find(&p, "0000000001.seg");
        const struct picture_file *is = picture_find(&after, "0000000001.seg");
        assert_int_equal(was->size, is->size);
        assert_memory_equal(was->bytes, is->bytes, is->size);
        picture_done(&after);
    }
    picture_done(&p);
    finish();
}

TEST(store_faults, a_newer_version_is_refused)
{
    expect_patched(12, 2, 4, DEED_TOO_NEW, "segment format 2, this program reads 1");
}

TEST(store_faults, a_feature_that_must_be_known_is_refused)
{
    expect_patched(24, 2, 8, DEED_TOO_NEW, "segment uses features 0x2 that are not known here");
    expect_patched(24, UINT64_C(1) << 63, 8, DEED_TOO_NEW, "0x8000000000000000");
}

TEST(store_faults, a_feature_that_may_be_ignored_is)
{
    expect_patched(16, UINT64_MAX, 8, DEED_OK, NULL);
}

/* ---- verifying ------------------------------------------------------------------------------ */

static struct store_damage told[16];
static size_t told_count;

static void note_damage(void *context, const struct store_damage *damage)
{
    (void)context;
    if (told_count < 16) told[told_count] = *damage;
    told_count++;
}

static uint64_t progress_done, progress_all;
static bool progress_goes_on;

static bool note_progress(void *context, uint64_t done, uint64_t all)
{
    (void)context;
    progress_done = done;
    progress_all = all;
    return progress_goes_on;
}

TEST(store_faults, verifying_a_good_log_counts_what_it_read)
{
    forget_model();
    start();
    struct store_verify_report report;
    struct deed_info info;
    for (int i = 0; i < 6; i++) expect_ok(say_next(20000));
    told_count = 0;
    expect_ok(store_verify(store, note_damage, NULL, NULL, &report, &err));
    store_info(store, &info);
    assert_int_equal(told_count, 0);
    assert_int_equal(report.events, 7);
    assert_int_equal(report.commits, 7);
    assert_int_equal(report.damage_count, 0);
    assert_true(report.bytes > 6 * 20000);
    assert_true(info.segment_count > 1);
    assert_memory_equal(report.chain_hash, info.chain_hash, 32);
    finish();
}

TEST(store_faults, verifying_tells_each_damage_and_goes_on)
{
    start();
    struct store_verify_report report;
    say("a", "one");
    say("a", "two");
    say("a", "three");
    say("a", "four");
    expect_ok(os_sim_rot(sim, SEGMENT(1), 2 * 4096 + 130, OS_SIM_ROT_FLIP));
    expect_ok(os_sim_rot(sim, SEGMENT(1), 4 * 4096 + 130, OS_SIM_ROT_ZERO));
    os_sim_drop_cache(sim);
    told_count = 0;
    expect_status(DEED_CORRUPT, store_verify(store, note_damage, NULL, NULL, &report, &err));
    expect_message(err, "the log has 2 damaged places");
    assert_int_equal(report.damage_count, 2);
    assert_int_equal(told_count, 2);
    assert_int_equal(told[0].segment, 1);
    assert_int_equal(told[0].first_position, 2);
    assert_int_equal(told[0].last_position, 2);
    assert_true(told[0].offset <= 2 * 4096 && told[0].offset + told[0].size > 2 * 4096);
    assert_string_equal(told[0].what, "acknowledged events are damaged or missing");
    assert_int_equal(told[1].first_position, 4);
    assert_int_equal(told[1].last_position, 4);
    assert_int_equal(report.events, 3); /* 1, 3 and 5 */
    finish();
}

TEST(store_faults, verifying_finds_the_missing_end)
{
    start();
    struct store_verify_report report;
    say("a", "one");
    say("a", "two");
    expect_ok(os_sim_rot(sim, SEGMENT(1), 3 * 4096, OS_SIM_ROT_ZERO));
    os_sim_drop_cache(sim);
    told_count = 0;
    expect_status(DEED_CORRUPT, store_verify(store, note_damage, NULL, NULL, &report, &err));
    assert_int_equal(told[told_count - 1].first_position, 3);
    assert_int_equal(told[told_count - 1].last_position, 3);
    assert_string_equal(told[told_count - 1].what,
                        "acknowledged events are missing at the end of the log");
    finish();
}

TEST(store_faults, verifying_can_be_stopped)
{
    static char large[2 << 20];
    memset(large, 'x', sizeof large);
    start_machine(1);
    options.segment_size = 16 << 20;
    open_store();
    struct store_verify_report report;
    struct deed_new_event e = said("a", "one");
    e.content_type = DEED_STR("text/plain");
    e.data = (deed_bytes){(const uint8_t *)large, sizeof large};
    say_event(e);
    say_event(e);
    progress_goes_on = false;
    expect_status(DEED_STOPPED, store_verify(store, NULL, note_progress, NULL, &report, &err));
    progress_goes_on = true;
    expect_ok(store_verify(store, NULL, note_progress, NULL, &report, &err));
    assert_true(progress_done <= progress_all);
    assert_true(progress_all >= 2 * sizeof large);
    finish();
}

TEST(store_faults, a_sector_that_cannot_be_read_is_damage_not_the_end)
{
    start();
    struct store_verify_report report;
    struct deed_info info;
    say("a", "one");
    say("a", "two");
    close_store();
    /* The tail is read in one go, then sector by sector: header, then the fourth fails again. */
    os_sim_fail(sim, OS_SIM_READ, 4, 0, EIO);
    os_sim_fail(sim, OS_SIM_READ, 6, 0, EIO);
    open_store();
    store_info(store, &info);
    assert_false(info.writable);
    expect_status(DEED_OK, store_verify(store, NULL, NULL, NULL, &report, &err));
    finish();
}

static void ignore_answer(void *context, const struct deed_appended *answer,
                          const struct deed_error *why)
{
    (void)context, (void)answer, (void)why;
}

/* A commit that only the cache shows whole, in the sector of one that arrived: whoever scans the log
 * through the cache later must not take it for the next link. */
TEST(store_faults, what_a_failed_sync_left_in_the_cache_beside_a_commit_is_gone)
{
    for (uint64_t seed = 1; seed <= 64; seed++) {
        struct store_verify_report report;
        struct deed_new_event events[] = {said("a", "one"), said("a", "two"), said("a", "three")};
        struct deed_append appends[3];
        start_machine(seed);
        open_store();
        say("a", "zero");
        os_sim_fail(sim, OS_SIM_SYNC, 1, 0, EIO);
        for (size_t i = 0; i < 3; i++) {
            appends[i] = (struct deed_append){.events = &events[i], .event_count = 1};
            expect_ok(store_submit(store, &appends[i], ignore_answer, NULL, &err));
        }
        while (store_step(store))
            continue;
        os_sim_kill(sim);
        close_store();

        open_store();
        say("a", "four");
        say("a", "five");
        expect_ok(store_verify(store, NULL, NULL, NULL, &report, &err));
        reopen();
        expect_ok(store_verify(store, NULL, NULL, NULL, &report, &err));
        finish();
    }
}

/* Have, or give back, what stands in a segment's file at an offset. */
static void segment_bytes(const char *name, uint64_t offset, uint8_t *bytes, size_t size, bool give)
{
    struct os_dir *dir = NULL;
    struct os_file *file = NULL;
    size_t got = 0;
    expect_ok(os_dir_open(os, ROOT "/log", false, &dir, &err));
    expect_ok(os_file_open(dir, name, OS_WRITE, &file, &err));
    if (give) {
        expect_ok(os_file_write(file, offset, (deed_bytes){bytes, size}, &err));
        expect_ok(os_file_sync(file, &err));
    } else {
        expect_ok(os_file_read(file, offset, bytes, size, &got, &err));
        assert_int_equal(got, size);
    }
    os_file_close(file);
    os_dir_close(dir);
}

/* A write that was lost leaves an older sector: a commit of this log, at its place, with the next
 * position, that continues another history. */
TEST(store_faults, a_commit_that_continues_another_history_is_no_part_of_this_one)
{
    static uint8_t zeros[2 * 4096], other[4096], sector[4096];
    start();
    say("a", "zero");
    say("a", "one");
    say("a", "two");
    close_store();
    segment_bytes("0000000001.seg", 4 * 4096, other, sizeof other, false);
    segment_bytes("0000000001.seg", 3 * 4096, zeros, sizeof zeros, true);
    segment_bytes("marks", 0, zeros, sizeof zeros, true);
    open_store();
    say("a", "another");
    close_store();
    segment_bytes("0000000001.seg", 4 * 4096, other, sizeof other, true);
    os_sim_drop_cache(sim);

    open_store();
    expect_words("zero another", .stream = DEED_STR("a"));
    segment_bytes("0000000001.seg", 4 * 4096, sector, sizeof sector, false);
    assert_memory_equal(sector, zeros, sizeof sector); /* nor does it stay there */
    say("a", "more");
    reopen();
    expect_words("zero another more", .stream = DEED_STR("a"));
    finish();
}

/* A commit that a misdirected write put in another's place proves nothing by standing there. */
TEST(store_faults, a_commit_in_the_place_of_another_costs_that_one_alone)
{
    static uint8_t later[4096];
    start();
    struct deed_info info;
    const char *words[] = {"one", "two", "three", "four", "five"};
    for (size_t i = 0; i < 5; i++)
        say("a", words[i]);
    close_store();
    segment_bytes("0000000001.seg", 5 * 4096, later, sizeof later, false);
    segment_bytes("0000000001.seg", 3 * 4096, later, sizeof later, true);
    os_sim_drop_cache(sim);

    open_store();
    store_info(store, &info);
    assert_int_equal(info.corrupt_first, 3);
    assert_int_equal(info.corrupt_last, 3);
    finish();
}

/* The first sectors of one segment's file are overwritten with another's. */
static void copy_header(const char *from, const char *to)
{
    struct os_dir *dir = NULL;
    struct os_file *source = NULL, *target = NULL;
    uint8_t header[4096];
    size_t size = 0;
    expect_ok(os_dir_open(os, ROOT "/log", false, &dir, &err));
    expect_ok(os_file_open(dir, from, OS_READ, &source, &err));
    expect_ok(os_file_open(dir, to, OS_WRITE, &target, &err));
    expect_ok(os_file_read(source, 0, header, sizeof header, &size, &err));
    expect_ok(os_file_write(target, 0, (deed_bytes){header, size}, &err));
    expect_ok(os_file_sync(target, &err));
    os_file_close(source);
    os_file_close(target);
    os_dir_close(dir);
}

TEST(store_faults, verifying_knows_a_header_that_belongs_to_another_segment)
{
    forget_model();
    start();
    struct store_verify_report report;
    for (int i = 0; i < 9; i++)
        expect_ok(say_next(20000));
    close_store();
    copy_header("0000000003.seg", "0000000002.seg");

    open_store();
    told_count = 0;
    expect_status(DEED_CORRUPT, store_verify(store, note_damage, NULL, NULL, &report, &err));
    assert_int_equal(told_count, 1);
    assert_int_equal(told[0].segment, 2);
    assert_true(told[0].first_position == DEED_NONE); /* every event is there */
    assert_int_equal(report.events, 10);
    finish();
}

/* Only a file that holds nothing is taken for a segment that was never begun. */
TEST(store_faults, the_last_segment_stays_when_its_header_rots)
{
    forget_model();
    start();
    struct store_verify_report report;
    for (int i = 0; i < 9; i++)
        expect_ok(say_next(20000));
    close_store();
    expect_ok(os_sim_rot(sim, SEGMENT(4), 0, OS_SIM_ROT_ZERO));
    os_sim_drop_cache(sim);
    open_store();
    expect_status(DEED_CORRUPT, store_verify(store, NULL, NULL, NULL, &report, &err));
    assert_int_equal(report.events, 10);
    finish();
}

/* The sync of a new segment's header fails, and so does removing the file: the cache shows a header
 * that the device does not have. Who opens then must not build on it, not even while the disk has no room
 * for an equal file in its place. */
TEST(store_faults, a_segments_header_that_only_the_cache_shows_is_not_built_on)
{
    static char much[20000];
    memset(much, 'x', sizeof much);
    much[0] = much[sizeof much - 1] = '"';
    struct deed_new_event large = {.stream = DEED_STR("b"),
                                   .type = DEED_STR("Said"),
                                   .data = {(const uint8_t *)much, sizeof much}};
    for (uint64_t seed = 1; seed <= 40; seed++) {
        start_machine(seed);
        open_store();
        say("a", "one");
        say_event(large);
        say_event(large);
        while (store_step(store)) continue;
        os_sim_fail(sim, OS_SIM_SYNC, 1, 0, EIO);
        os_sim_fail(sim, OS_SIM_REMOVE, 1, DEED_NONE, EIO);
        expect_status(DEED_STOPPED, append_event(large)); /* it would begin the next segment */
        os_sim_heal(sim);
        os_sim_kill(sim);
        close_store();

        if (seed % 2 == 0) os_sim_set_capacity(sim, 1);
        open_store();
        os_sim_set_capacity(sim, DEED_NONE);
        say("a", "two");
        crash();

        open_store();
        expect_words("one two", .stream = DEED_STR("a"));
        say("a", "three"); /* nothing is damaged */
        finish();
    }
}

TEST_MAIN(store_faults)
