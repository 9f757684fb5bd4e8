/* test_compaction.c - belongs to compact.c: what compaction and erasure take out of a log, what they
 * leave, and that nothing that interrupts them loses anything. */
#include "store_fixture.h"

#include <pthread.h>
#include <stdatomic.h>

#define PAD_SIZE 2000
/* Some sixty events each: larger than what a sealed file needs for itself. */
#define SEGMENT_SIZE (256u << 10)

/* ---- a log of several segments --------------------------------------------------------------- */

static void settle(void)
{
    while (store_step(store)) continue;
}

/* Bytes to give back, and what a retry must bring, too. */
static deed_bytes padding(void)
{
    static char text[PAD_SIZE];
    int size = snprintf(text, sizeof text, "{\"pad\":\"%0*d\"}", PAD_SIZE - 20, 7);
    return (deed_bytes){(const uint8_t *)text, (size_t)size};
}

static void write_event(const char *stream, const char *word, unsigned id)
{
    static const deed_str tags[] = {{"red", 3}, {"round", 5}};
    struct deed_new_event e = {.stream = deed_str_of(stream),
                               .type = DEED_STR("Said"),
                               .data = word_data(word),
                               .metadata = padding(),
                               .tags = tags,
                               .tag_count = id % 3,
                               .correlation_id = DEED_STR("cor"),
                               .causation_id = DEED_STR("cause"),
                               .actor = DEED_STR("anna")};
    if (id % 2 == 1) e.id = id_of(id);
    char key[32];
    int size = snprintf(key, sizeof key, "key-%u", id);
    struct deed_append a = {.events = &e, .event_count = 1};
    if (id % 5 == 0) a.idempotency_key = (deed_str){key, (size_t)size};
    if (store_append(store, &a, &appended, &err) != DEED_OK) fail_msg("append: %s", err.message);
}

/* Streams s-0 to s-3 in turn, `count` events of each; event n of s-2 says "s2.n". */
#define STREAMS 4
static unsigned written;
static void write_all(unsigned count)
{
    for (unsigned n = written; n < written + count; n++) {
        for (unsigned s = 0; s < STREAMS; s++) {
            char stream[16], word[32];
            (void)snprintf(stream, sizeof stream, "s-%u", s);
            (void)snprintf(word, sizeof word, "s%u.%u", s, n);
            write_event(stream, word, n * STREAMS + s + 1);
        }
    }
    written += count;
}

static void begin_with(uint64_t seed)
{
    start_machine(seed);
    options.segment_size = SEGMENT_SIZE;
    open_store();
    written = 0;
}

static void begin(void)
{
    begin_with(1);
}

static void set_metadata(const char *stream, const char *json)
{
    expect_ok(store_set_metadata(store, deed_str_of(stream), deed_bytes_of(deed_str_of(json)),
                                 DEED_EXPECT_ANY, 0, DEED_STR("me"), &appended, &err));
}

static void delete_stream(const char *stream, bool tombstone)
{
    expect_ok(store_delete_stream(store, deed_str_of(stream), DEED_EXPECT_ANY, 0, tombstone,
                                  (deed_str){0}, &appended, &err));
}

static struct deed_compaction compaction;

static deed_status try_compact(struct deed_compact_options how)
{
    deed_status status = store_compact(store, &how, &err);
    return status == DEED_OK ? store_compaction_wait(store, &compaction, &err) : status;
}

static void compact(void)
{
    if (try_compact((struct deed_compact_options){.active = true}) != DEED_OK) {
        fail_msg("compact: %s", err.message);
    }
}

static deed_status try_erase(const char *stream)
{
    deed_status status = store_erase(store, deed_str_of(stream), DEED_STR("dpo"), &err);
    return status == DEED_OK ? store_compaction_wait(store, &compaction, &err) : status;
}

static void erase(const char *stream)
{
    if (try_erase(stream) != DEED_OK) fail_msg("erase: %s", err.message);
}

/* ---- what must not change -------------------------------------------------------------------- */

struct picture_of_log {
    struct buf text;     /* every event, without its content */
    struct buf contents; /* "position data|metadata|causation|actor" of those that are stored */
    uint8_t chain[32];
    uint64_t events, removed, erased;
};

static void dump_event(struct picture_of_log *p, const struct deed_event *e)
{
    buf_printf(&p->text, "%llu %llu %.*s %.*s %.*s %lld %lld %.*s %.*s", (unsigned long long)e->position,
               (unsigned long long)e->revision, DEED_FMT(e->stream), DEED_FMT(e->type),
               DEED_FMT(e->content_type), (long long)e->time_ns, (long long)e->recorded_at_ns,
               DEED_FMT(e->correlation_id), DEED_FMT(e->idempotency_key));
    buf_add(&p->text, e->id.bytes, sizeof e->id.bytes);
    for (size_t i = 0; i < e->tag_count; i++) buf_printf(&p->text, " %.*s", DEED_FMT(e->tags[i]));
    if (e->request_hash != NULL) buf_add(&p->text, e->request_hash, 32);
    buf_add_byte(&p->text, '\n');
    p->events++;
    p->removed += e->removed;
    p->erased += e->erased;
    if (e->removed) {
        assert_int_equal(e->data.len + e->metadata.len, 0);
        if (e->erased) assert_int_equal(e->actor.len + e->causation_id.len, 0);
        return;
    }
    buf_printf(&p->contents, "%llu ", (unsigned long long)e->position);
    buf_add(&p->contents, e->data.ptr, e->data.len);
    buf_add(&p->contents, e->metadata.ptr, e->metadata.len);
    buf_printf(&p->contents, "%.*s %.*s\n", DEED_FMT(e->causation_id), DEED_FMT(e->actor));
}

static void dump(struct picture_of_log *p)
{
    struct deed_read_options all = {.filter = {.system = true}, .removed = true};
    struct deed_cursor *cursor = NULL;
    struct deed_event e;
    struct deed_info info;
    deed_status status;
    *p = (struct picture_of_log){.events = 0};
    buf_init(&p->text, 1 << 26);
    buf_init(&p->contents, 1 << 26);
    expect_ok(store_read(store, &all, &cursor, &err));
    while ((status = cursor_next(cursor, &e, &err)) == DEED_OK) dump_event(p, &e);
    if (status != DEED_END) fail_msg("read: %s", err.message);
    cursor_close(cursor);
    for (unsigned s = 0; s < STREAMS; s++) {
        char stream[16];
        struct deed_stream_info about;
        (void)snprintf(stream, sizeof stream, "s-%u", s);
        if (store_stream(store, deed_str_of(stream), &about, &err) != DEED_OK) continue;
        buf_printf(&p->text, "%s %llu %llu %llu %d %d\n", stream, (unsigned long long)about.revision,
                   (unsigned long long)about.position, (unsigned long long)about.first_revision,
                   about.deleted, about.tombstoned);
    }
    store_info(store, &info);
    memcpy(p->chain, info.chain_hash, 32);
    assert_true(buf_ok(&p->text) && buf_ok(&p->contents));
}

static void dump_done(struct picture_of_log *p)
{
    buf_done(&p->text);
    buf_done(&p->contents);
}

static struct picture_of_log before;

/* Places, names, times, ids, tags, keys and hashes are as they were in `before`. */
static void expect_the_same_log(void)
{
    struct picture_of_log now;
    dump(&now);
    assert_int_equal(now.events, before.events);
    assert_int_equal(now.text.len, before.text.len);
    assert_memory_equal(now.text.ptr, before.text.ptr, now.text.len);
    assert_memory_equal(now.chain, before.chain, 32);
    dump_done(&now);
}

static void expect_verified(void)
{
    struct store_verify_report report;
    if (store_verify(store, NULL, NULL, NULL, &report, &err) != DEED_OK) {
        fail_msg("verify: %s", err.message);
    }
    assert_memory_equal(report.chain_hash, before.chain, 32);
}

static uint64_t log_bytes(void)
{
    struct deed_info info;
    store_info(store, &info);
    return info.log_size;
}

/* A retry of event n of stream s gets the first answer, and not with other content. */
static void expect_retries(unsigned s, unsigned n, bool erased)
{
    unsigned id = n * STREAMS + s + 1;
    char stream[16], word[32];
    (void)snprintf(stream, sizeof stream, "s-%u", s);
    (void)snprintf(word, sizeof word, "s%u.%u", s, n);
    assert_int_equal(id % 2, 1);
    static const deed_str tags[] = {{"red", 3}, {"round", 5}};
    struct deed_new_event e = {.stream = deed_str_of(stream),
                               .type = DEED_STR("Said"),
                               .data = word_data(word),
                               .metadata = padding(),
                               .tags = tags,
                               .tag_count = id % 3,
                               .id = id_of(id)};
    expect_ok(append_event(e));
    assert_true(appended.repeated);
    assert_int_equal(appended.revision, n);
    e.metadata = deed_bytes_of(DEED_STR("{\"by\":\"you\"}"));
    expect_status(erased ? DEED_OK : DEED_CONFLICT, append_event(e));
}

static void start_full(void)
{
    begin();
    write_all(150);
    settle();
    struct deed_info info;
    store_info(store, &info);
    assert_true(info.segment_count >= 4);
}

/* ---- compaction ------------------------------------------------------------------------------ */

TEST(compaction, removes_what_streams_hide_and_nothing_else)
{
    start_full();
    set_metadata("s-0", "{\"$maxCount\":3}");
    set_metadata("s-1", "{\"$tb\":100}");
    delete_stream("s-2", false);
    dump(&before);
    uint64_t bytes = log_bytes();
    compact();
    for (int round = 0; round < 2; round++) {
        expect_the_same_log();
        struct picture_of_log now;
        dump(&now);
        assert_int_equal(now.removed, 147 + 100 + 150);
        assert_int_equal(now.erased, 0);
        dump_done(&now);
        expect_verified();
        expect_words("s0.147 s0.148 s0.149", .stream = DEED_STR("s-0"));
        struct deed_read_options last = {.stream = DEED_STR("s-1"), .count_max = 2};
        assert_string_equal(read_words(&last), "s1.100 s1.101");
        expect_words("DEED_NOT_FOUND", .stream = DEED_STR("s-2"));
        expect_retries(0, 2, false);
        expect_retries(2, 3, false);
        reopen();
    }
    assert_int_equal(compaction.state, DEED_COMPACTION_DONE);
    assert_int_equal(compaction.events_removed, 147 + 100 + 150);
    assert_int_equal(compaction.segments_done, compaction.segments);
    assert_true(compaction.bytes_after < compaction.bytes_before);
    /* Two thirds of the events had gone, and most of an event is its data. */
    assert_true(log_bytes() < bytes * 2 / 3);
    dump_done(&before);
    finish();
}

TEST(compaction, keeps_every_byte_of_what_stays)
{
    start_full();
    set_metadata("s-0", "{\"$maxCount\":3}");
    dump(&before);
    compact();
    struct picture_of_log now;
    dump(&now);
    /* The contents that are left are, in order, lines of those before. */
    const char *from = (const char *)before.contents.ptr;
    size_t left = before.contents.len;
    for (size_t at = 0; at < now.contents.len;) {
        const char *line = (const char *)now.contents.ptr + at;
        size_t size = (size_t)((const char *)memchr(line, '\n', now.contents.len - at) - line) + 1;
        const char *there = memmem(from, left, line, size);
        if (there == NULL) fail_msg("not there before: %.*s", (int)size, line);
        left -= (size_t)(there - from) + size;
        from = there + size;
        at += size;
    }
    assert_int_equal(now.events - now.removed, before.events - 147);
    dump_done(&now);
    dump_done(&before);
    finish();
}

TEST(compaction, leaves_a_log_alone_in_which_nothing_is_hidden)
{
    start_full();
    set_metadata("s-0", "{\"owner\":1}");
    set_metadata("s-1", "{\"$maxCount\":150}");
    compact();
    assert_int_equal(compaction.rewritten, 0);
    assert_int_equal(compaction.events_removed, 0);
    assert_true(compaction.segments > 3);
    finish();
}

TEST(compaction, a_second_one_finds_nothing_left)
{
    start_full();
    delete_stream("s-2", false);
    compact();
    assert_int_equal(compaction.events_removed, 150);
    compact();
    assert_int_equal(compaction.rewritten, 0);
    assert_int_equal(compaction.events_removed, 0);
    finish();
}

TEST(compaction, keeps_metadata_tombstones_and_the_logs_first_event)
{
    start_full();
    set_metadata("s-0", "{\"$maxCount\":1}");
    set_metadata("s-0", "{\"$maxCount\":2}");
    delete_stream("s-1", true);
    dump(&before);
    compact();
    for (int round = 0; round < 2; round++) {
        expect_the_same_log();
        expect_words("s0.148 s0.149", .stream = DEED_STR("s-0"));
        expect_words("DEED_DELETED", .stream = DEED_STR("s-1"));
        expect_status(DEED_DELETED, append_event(said("s-1", "no")));
        struct deed_read_options how = {.stream = DEED_STR("s-1"), .ignore_retention = true};
        struct deed_cursor *cursor = NULL;
        struct deed_event e;
        expect_ok(store_read(store, &how, &cursor, &err));
        expect_ok(cursor_next(cursor, &e, &err));
        expect_str(e.type, "$streamDeleted");
        assert_int_equal(e.revision, 150);
        expect_status(DEED_END, cursor_next(cursor, &e, &err));
        cursor_close(cursor);
        struct deed_read_options meta = {.stream = DEED_STR("$$s-0")};
        expect_ok(store_read(store, &meta, &cursor, &err));
        expect_ok(cursor_next(cursor, &e, &err));
        expect_ok(cursor_next(cursor, &e, &err));
        cursor_close(cursor);
        reopen();
    }
    dump_done(&before);
    finish();
}

TEST(compaction, goes_by_age)
{
    begin();
    set_metadata("s-0", "{\"$maxAge\":100}");
    write_all(100);
    os_sim_advance(sim, 60 * SECOND);
    write_all(100);
    os_sim_advance(sim, 40 * SECOND);
    settle();
    compact();
    assert_int_equal(compaction.events_removed, 100);
    struct deed_read_options how = {.stream = DEED_STR("s-0"), .count_max = 1};
    assert_string_equal(read_words(&how), "s0.100");
    finish();
}

TEST(compaction, removes_what_was_deleted_and_keeps_what_was_written_again)
{
    begin();
    write_all(50);
    delete_stream("s-0", false);
    write_all(50);
    settle();
    compact();
    assert_int_equal(compaction.events_removed, 50);
    struct deed_read_options how = {.stream = DEED_STR("s-0"), .count_max = 2};
    assert_string_equal(read_words(&how), "s0.50 s0.51");
    struct deed_stream_info info;
    expect_ok(store_stream(store, DEED_STR("s-0"), &info, &err));
    assert_int_equal(info.revision, 99);
    finish();
}

TEST(compaction, conditions_see_removed_events)
{
    start_full();
    delete_stream("s-2", false);
    compact();
    static const deed_str tags[] = {{"red", 3}, {"round", 5}};
    static const deed_str types[] = {{"Said", 4}};
    struct deed_query_item item = {
        .types = types, .type_count = 1, .tags = tags, .tag_count = 2};
    struct deed_condition c = {.kind = DEED_CONDITION_NO_MATCH, .items = &item, .item_count = 1};
    for (int round = 0; round < 2; round++) {
        expect_status(DEED_CONFLICT, append_if(said("x-1", "no"), c));
        expect_status(DEED_CONFLICT, append_if(said("s-2", "no"), at_revision("s-2", 148)));
        reopen();
    }
    expect_ok(append_if(said("s-2", "yes"), at_revision("s-2", 149)));
    assert_int_equal(appended.revision, 150);
    finish();
}

TEST(compaction, moves_the_horizon)
{
    start_full();
    uint64_t horizon = 99;
    expect_ok(store_horizon(store, &horizon, &err));
    assert_int_equal(horizon, 0);
    set_metadata("s-0", "{\"$tb\":150}");
    compact();
    expect_ok(store_horizon(store, &horizon, &err));
    assert_int_equal(horizon, 3); /* the first of s-1 */
    set_metadata("s-1", "{\"$tb\":10}");
    set_metadata("s-2", "{\"$tb\":10}");
    set_metadata("s-3", "{\"$tb\":20}");
    compact();
    for (int round = 0; round < 2; round++) {
        expect_ok(store_horizon(store, &horizon, &err));
        assert_int_equal(horizon, 2 + 10 * STREAMS + 1);
        struct deed_read_options how = {.count_max = 1};
        assert_string_equal(read_words(&how), "DEED_GONE");
        how.after_position = horizon - 1;
        assert_string_equal(read_words(&how), "s1.10");
        reopen();
    }
    finish();
}

TEST(compaction, compresses_and_reads_as_before)
{
    start_full();
    dump(&before);
    uint64_t bytes = log_bytes();
    expect_ok(try_compact((struct deed_compact_options){.compress_level = 3, .active = true}));
    assert_true(compaction.rewritten == compaction.segments);
    assert_int_equal(compaction.events_removed, 0);
    assert_true(log_bytes() < bytes / 2);
    for (int round = 0; round < 2; round++) {
        struct picture_of_log now;
        expect_the_same_log();
        expect_verified();
        dump(&now);
        assert_int_equal(now.contents.len, before.contents.len);
        assert_memory_equal(now.contents.ptr, before.contents.ptr, now.contents.len);
        dump_done(&now);
        expect_retries(0, 2, false);
        reopen();
    }
    /* Compressed already. */
    expect_ok(try_compact((struct deed_compact_options){.compress_level = 3}));
    assert_int_equal(compaction.rewritten, 0);
    /* What is removed from a compressed segment leaves it compressed. */
    bytes = log_bytes();
    delete_stream("s-2", false);
    compact();
    assert_int_equal(compaction.events_removed, 150);
    assert_true(log_bytes() <= bytes + (64 << 10));
    dump_done(&before);
    finish();
}

TEST(compaction, refuses_levels_that_are_none)
{
    begin();
    expect_status(DEED_INVALID, try_compact((struct deed_compact_options){.compress_level = -1}));
    expect_status(DEED_INVALID, try_compact((struct deed_compact_options){.compress_level = 20}));
    expect_message(err, "compress level 20: it must be 0 to 19");
    expect_ok(try_compact((struct deed_compact_options){.compress_level = 1}));
    expect_ok(try_compact((struct deed_compact_options){.compress_level = 19}));
    finish();
}

TEST(compaction, only_one_runs_at_a_time)
{
    start_full();
    struct deed_compact_options how = {.compress_level = 0};
    store_compaction(store, &compaction);
    assert_int_equal(compaction.state, DEED_COMPACTION_IDLE);
    expect_ok(store_compact(store, &how, &err));
    store_compaction(store, &compaction);
    assert_int_equal(compaction.state, DEED_COMPACTION_RUNNING);
    expect_status(DEED_BUSY, store_compact(store, &how, &err));
    expect_message(err, "a compaction is running already");
    expect_status(DEED_BUSY, store_erase(store, DEED_STR("s-0"), (deed_str){0}, &err));
    struct deed_stream_info info;
    expect_ok(store_stream(store, DEED_STR("s-0"), &info, &err));
    assert_false(info.deleted);
    expect_ok(store_compaction_wait(store, &compaction, &err));
    expect_ok(try_compact(how));
    finish();
}

TEST(compaction, one_that_is_stopped_ends_behind_a_segment_and_can_be_asked_for_again)
{
    start_full();
    delete_stream("s-2", false);
    struct deed_compact_options how = {.active = true};
    dump(&before);
    expect_status(DEED_NOT_FOUND, store_compaction_stop(store, 1, &err));
    expect_message(err, "compaction 1: it does not run");
    expect_ok(store_compact(store, &how, &err));
    store_compaction(store, &compaction);
    assert_int_equal(compaction.number, 1);
    while (compaction.segments_done == 0) {
        if (!store_step(store)) os_sim_advance(sim, SECOND);
        store_compaction(store, &compaction);
    }
    expect_status(DEED_NOT_FOUND, store_compaction_stop(store, 2, &err));
    expect_ok(store_compaction_stop(store, 1, &err));
    expect_status(DEED_STOPPED, store_compaction_wait(store, &compaction, &err));
    expect_message(err, "it was stopped on request: what it did until then counts");
    assert_int_equal(compaction.state, DEED_COMPACTION_FAILED);
    assert_true(compaction.segments_done < compaction.segments);
    expect_status(DEED_NOT_FOUND, store_compaction_stop(store, 1, &err));
    expect_the_same_log();
    expect_verified();
    compact();
    store_compaction(store, &compaction);
    assert_int_equal(compaction.number, 2);
    assert_int_equal(compaction.state, DEED_COMPACTION_DONE);
    dump_done(&before);
    finish();
}

TEST(compaction, an_erasure_is_not_stopped)
{
    start_full();
    expect_ok(store_erase(store, DEED_STR("s-2"), (deed_str){0}, &err));
    expect_status(DEED_INVALID, store_compaction_stop(store, 1, &err));
    expect_message(err, "an erasure cannot be stopped");
    expect_ok(store_compaction_wait(store, &compaction, &err));
    finish();
}

TEST(compaction, one_that_is_closed_upon_loses_nothing_and_is_asked_for_again)
{
    start_full();
    delete_stream("s-2", false);
    struct deed_compact_options how = {.active = true};
    dump(&before);
    for (int steps = 0; steps < 12; steps++) {
        expect_ok(store_compact(store, &how, &err));
        for (int i = 0; i < steps; i++) (void)store_step(store);
        reopen();
        expect_the_same_log();
        expect_verified();
    }
    compact();
    struct picture_of_log now;
    dump(&now);
    assert_int_equal(now.removed, 150);
    dump_done(&now);
    dump_done(&before);
    finish();
}

TEST(compaction, a_reader_goes_on_through_it)
{
    start_full();
    struct deed_read_options how = {.filter = {.system = true}, .removed = true};
    struct deed_cursor *log = NULL, *stream = NULL;
    struct deed_event e;
    delete_stream("s-2", false);
    expect_ok(store_read(store, &how, &log, &err));
    struct deed_read_options one = {.stream = DEED_STR("s-1")};
    expect_ok(store_read(store, &one, &stream, &err));
    for (int i = 0; i < 10; i++) expect_ok(cursor_next(log, &e, &err));
    for (int i = 0; i < 10; i++) expect_ok(cursor_next(stream, &e, &err));
    struct deed_compact_options all = {.active = true};
    expect_ok(store_compact(store, &all, &err));
    uint64_t position = e.position;
    uint64_t next = 11;
    do {
        (void)store_step(store);
        store_compaction(store, &compaction);
        for (int i = 0; i < 20 && next <= 600; i++, next++) {
            expect_ok(cursor_next(log, &e, &err));
            assert_int_equal(e.position, next);
        }
        if (cursor_next(stream, &e, &err) == DEED_OK) {
            assert_int_equal(e.position, position + STREAMS);
            position = e.position;
        }
    } while (compaction.state == DEED_COMPACTION_RUNNING);
    assert_int_equal(compaction.state, DEED_COMPACTION_DONE);
    while (next <= store_position(store)) {
        expect_ok(cursor_next(log, &e, &err));
        assert_int_equal(e.position, next++);
    }
    expect_status(DEED_END, cursor_next(log, &e, &err));
    cursor_close(log);
    cursor_close(stream);
    finish();
}

/* What failed was a rewrite: segments that are closed are sealed as ever. */
TEST(compaction, a_failed_rewrite_does_not_hold_up_the_next_job)
{
    begin();
    write_all(40);
    settle();
    delete_stream("s-2", false);
    settle();
    os_sim_fail(sim, OS_SIM_RENAME, 1, 0, 28 /* ENOSPC */);
    expect_status(DEED_FULL, try_compact((struct deed_compact_options){0}));
    os_sim_heal(sim);
    struct store_metrics m;
    store_get_metrics(store, &m);
    assert_int_equal(m.seal_failures, 1);
    assert_false(m.seal_failing);
    erase("s-3");
    compact();
    finish();
}

/* ---- erasure --------------------------------------------------------------------------------- */

/* Does any file of the log still hold these bytes? */
static bool files_hold(const char *text)
{
    struct picture p;
    picture_take(&p, os, ROOT "/log");
    bool found = false;
    for (size_t i = 0; i < p.count; i++) {
        found |= memmem(p.files[i].bytes, p.files[i].size, text, strlen(text)) != NULL;
    }
    picture_done(&p);
    return found;
}

TEST(compaction, an_erasure_takes_a_streams_content_out_of_every_file)
{
    begin();
    write_all(60);
    set_metadata("s-2", "{\"owner\":\"secret-one\"}");
    set_metadata("s-2", "{}");
    dump(&before);
    assert_true(files_hold("\"s2.1\""));
    assert_true(files_hold("secret-one"));
    erase("s-2");
    for (int round = 0; round < 2; round++) {
        char word[32];
        for (unsigned n = 0; n < 60; n++) {
            (void)snprintf(word, sizeof word, "\"s2.%u\"", n);
            if (files_hold(word)) fail_msg("%s is there still", word);
        }
        assert_false(files_hold("secret-one"));
        assert_true(files_hold("\"s1.1\""));
        struct picture_of_log now;
        dump(&now);
        assert_int_equal(now.erased, 60 + 2);
        assert_int_equal(now.events, before.events + 1); /* the deletion */
        dump_done(&now);
        struct store_verify_report report;
        expect_ok(store_verify(store, NULL, NULL, NULL, &report, &err));
        expect_words("DEED_NOT_FOUND", .stream = DEED_STR("s-2"));
        expect_retries(2, 3, true);
        reopen();
    }
    assert_int_equal(compaction.events_removed, 62);
    dump_done(&before);
    finish();
}

TEST(compaction, an_erasure_changes_nothing_else)
{
    begin();
    write_all(60);
    delete_stream("s-2", false);
    dump(&before);
    erase("s-2");
    for (int round = 0; round < 2; round++) {
        expect_the_same_log();
        expect_verified();
        reopen();
    }
    dump_done(&before);
    finish();
}

TEST(compaction, an_erasure_after_a_compaction_takes_the_salts_too)
{
    start_full();
    delete_stream("s-2", false);
    compact();
    struct picture_of_log now;
    dump(&now);
    assert_int_equal(now.removed, 150);
    assert_int_equal(now.erased, 0);
    dump_done(&now);
    erase("s-2");
    dump(&now);
    assert_int_equal(now.removed, 150);
    assert_int_equal(now.erased, 150);
    dump_done(&now);
    expect_retries(2, 3, true);
    erase("s-2"); /* nothing is left to do */
    assert_int_equal(compaction.rewritten, 0);
    finish();
}

TEST(compaction, what_is_written_after_an_erasure_was_asked_for_stays)
{
    begin();
    write_all(60);
    expect_ok(store_erase(store, DEED_STR("s-2"), DEED_STR("dpo"), &err));
    write_all(3);
    expect_ok(store_compaction_wait(store, &compaction, &err));
    assert_int_equal(compaction.events_removed, 60);
    expect_words("s2.60 s2.61 s2.62", .stream = DEED_STR("s-2"));
    erase("s-2");
    assert_int_equal(compaction.events_removed, 3 + 1); /* the metadata before the newest, too */
    finish();
}

TEST(compaction, a_closed_stream_is_erased_but_for_what_closes_it)
{
    begin();
    write_all(60);
    delete_stream("s-2", true);
    erase("s-2");
    assert_int_equal(compaction.events_removed, 60);
    for (int round = 0; round < 2; round++) {
        expect_status(DEED_DELETED, append_event(said("s-2", "no")));
        reopen();
    }
    finish();
}

TEST(compaction, there_must_be_something_to_erase)
{
    begin();
    expect_status(DEED_NOT_FOUND, try_erase("nothing"));
    expect_message(err, "stream nothing: there is no such stream");
    store_compaction(store, &compaction);
    assert_int_equal(compaction.state, DEED_COMPACTION_FAILED);
    expect_status(DEED_INVALID, try_erase("$log"));
    expect_message(err, "stream $log is the system's");
    say("a-1", "one");
    erase("a-1");
    finish();
}

/* ---- interruptions --------------------------------------------------------------------------- */

/* Cut the power, or only end the process, without closing; then open again. */
static void die(bool kill)
{
    if (kill) {
        os_sim_kill(sim);
    } else {
        os_sim_crash(sim);
    }
    close_store();
    open_store();
}

/* Begin a job, cut the power after `operations`, and open again: true if the job had ended. */
static bool interrupted(uint64_t operations, bool erasing, bool kill)
{
    struct deed_compact_options how = {.active = true};
    os_sim_power_off_after(sim, operations);
    deed_status status = erasing ? store_erase(store, DEED_STR("s-2"), (deed_str){0}, &err)
                                 : store_compact(store, &how, &err);
    if (status == DEED_OK) status = store_compaction_wait(store, &compaction, &err);
    bool ended = os_sim_powered(sim);
    os_sim_power_off_after(sim, DEED_NONE);
    die(kill);
    if (ended) assert_int_equal(status, DEED_OK);
    return ended;
}

static void interrupt_everywhere(bool erasing, bool kill)
{
    uint64_t step = 1;
    bool ended = false;
    for (uint64_t at = 1; !ended; at += step) {
        begin_with(at);
        write_all(40);
        settle();
        delete_stream("s-2", false);
        set_metadata("s-1", "{\"$maxCount\":5}");
        dump(&before);
        ended = interrupted(at, erasing, kill);
        expect_the_same_log();
        expect_verified();
        deed_status status =
            erasing ? try_erase("s-2") : try_compact((struct deed_compact_options){.active = true});
        if (status != DEED_OK) {
            fail_msg("after %llu operations: %s", (unsigned long long)at, err.message);
        }
        expect_the_same_log();
        expect_verified();
        struct picture_of_log now;
        dump(&now);
        assert_int_equal(now.removed, erasing ? 40 : 40 + 35);
        assert_int_equal(now.erased, erasing ? 40 : 0);
        assert_true(erasing || !files_hold("\"s1.3\""));
        assert_false(files_hold("\"s2.3\""));
        dump_done(&now);
        dump_done(&before);
        finish();
        if (at > 40) step = 3;
    }
}

TEST(compaction, the_power_may_go_at_any_moment)
{
    interrupt_everywhere(false, false);
}

TEST(compaction, the_power_may_go_while_erasing)
{
    interrupt_everywhere(true, false);
}

TEST(compaction, it_may_be_killed_at_any_moment)
{
    interrupt_everywhere(false, true);
}

/* A sync of the log's directory fails while the erasure seals segments, or writes them anew, and the
 * process ends: what was removed is seen to be gone, but the device may have it. An erasure that says
 * after that that it is done is done for good, whatever the power brings back. */
static bool erase_with_failed_sync(uint64_t at, uint64_t seed)
{
    begin_with(at * 100 + seed);
    write_all(40);
    uint64_t count = os_sim_count(sim, OS_SIM_DIR_SYNC);
    os_sim_fail(sim, OS_SIM_DIR_SYNC, at, 0, 5 /* EIO */);
    deed_status status = try_erase("s-2");
    bool struck = os_sim_count(sim, OS_SIM_DIR_SYNC) - count >= at;
    assert_true(struck || status == DEED_OK);
    os_sim_heal(sim);
    die(true);
    if (status != DEED_OK) erase("s-2");
    die(false);
    struct picture_of_log now;
    dump(&now);
    if (now.erased < 40 || files_hold("\"s2.1\"") || files_hold("\"s2.39\"")) {
        fail_msg("sync %llu, seed %llu: only %llu events are erased", (unsigned long long)at,
                 (unsigned long long)seed, (unsigned long long)now.erased);
    }
    dump_done(&now);
    struct store_verify_report report;
    expect_ok(store_verify(store, NULL, NULL, NULL, &report, &err));
    finish();
    return struck;
}

TEST(compaction, what_was_erased_does_not_come_back)
{
    bool struck = true;
    for (uint64_t at = 1; struck; at++) {
        for (uint64_t seed = 1; seed <= 6; seed++) struck = erase_with_failed_sync(at, seed);
    }
}

/* Any one operation may fail: the log is as it was, and the next attempt works. */
TEST(compaction, any_operation_may_fail)
{
    static const int errors[] = {5 /* EIO */, 28 /* ENOSPC */};
    for (size_t e = 0; e < 2; e++) {
        for (uint64_t at = 1;; at += at > 30 ? 3 : 1) {
            begin();
            write_all(40);
            settle();
            delete_stream("s-2", false);
            settle();
            dump(&before);
            uint64_t count = os_sim_count(sim, OS_SIM_ANY);
            os_sim_fail(sim, OS_SIM_ANY, at, 0, errors[e]);
            deed_status status = try_compact((struct deed_compact_options){.compress_level = 0});
            bool struck = os_sim_count(sim, OS_SIM_ANY) - count >= at;
            if (!struck) assert_int_equal(status, DEED_OK);
            os_sim_heal(sim);
            expect_the_same_log();
            reopen();
            expect_the_same_log();
            expect_verified();
            expect_ok(try_compact((struct deed_compact_options){.active = true}));
            expect_the_same_log();
            struct picture_of_log now;
            dump(&now);
            assert_int_equal(now.removed, 40);
            dump_done(&now);
            dump_done(&before);
            finish();
            if (!struck) break;
        }
    }
}

/* ---- beside others --------------------------------------------------------------------------- */

static _Atomic bool stop_reading;

static void *read_on(void *context)
{
    uint64_t *rounds = context;
    while (!stop_reading) {
        struct deed_read_options how = {.filter = {.system = true}, .removed = true};
        struct deed_cursor *cursor = NULL;
        struct deed_error trouble;
        struct deed_event e;
        uint64_t next = 1;
        deed_status status = store_read(store, &how, &cursor, &trouble);
        while (status == DEED_OK && (status = cursor_next(cursor, &e, &trouble)) == DEED_OK) {
            if (e.position != next++) return "positions are not dense";
            if (!e.removed && e.data.len == 0) return "an event without data";
        }
        cursor_close(cursor);
        if (status != DEED_END) return "a read failed";
        (*rounds)++;
    }
    return NULL;
}

TEST(compaction, readers_and_writers_go_on_while_it_runs)
{
    start_here();
    written = 0;
    write_all(150);
    uint64_t rounds[2] = {0};
    pthread_t readers[2];
    stop_reading = false;
    for (int i = 0; i < 2; i++) {
        assert_int_equal(pthread_create(&readers[i], NULL, read_on, &rounds[i]), 0);
    }
    for (unsigned round = 0; round < 4; round++) {
        char stream[16];
        (void)snprintf(stream, sizeof stream, "s-%u", round);
        if (round % 2 == 0) {
            delete_stream(stream, false);
            struct deed_compact_options how = {.active = true, .compress_level = (int)round};
            expect_ok(store_compact(store, &how, &err));
        } else {
            expect_ok(store_erase(store, deed_str_of(stream), (deed_str){0}, &err));
        }
        write_all(5);
        if (store_compaction_wait(store, &compaction, &err) != DEED_OK) {
            fail_msg("%s", err.message);
        }
        assert_true(compaction.events_removed >= 150);
    }
    stop_reading = true;
    for (int i = 0; i < 2; i++) {
        void *trouble = NULL;
        assert_int_equal(pthread_join(readers[i], &trouble), 0);
        if (trouble != NULL) fail_msg("%s", (const char *)trouble);
        assert_true(rounds[i] > 0);
    }
    struct store_verify_report report;
    expect_ok(store_verify(store, NULL, NULL, NULL, &report, &err));
    reopen();
    expect_ok(store_verify(store, NULL, NULL, NULL, &report, &err));
    finish();
}

TEST_MAIN(compaction)
