/* test_run.c - belongs to run_format.c, run_writer.c, run_file.c, index_step.c and block_cache.c: an
 * index in files answers as the same index in memory does. */
#include "unit/test.h"

#include "base/uuid.h"
#include "index/index_state.h"
#include "index/postings.h"
#include "index/run_writer.h"
#include "os/os_sim.h"
#include "store/store_state.h"

#define DIRECTORY "/data"

static struct os_sim *sim;
static struct os_dir *dir, *run_dir;
static struct block_cache *cache;
static struct index *idx;  /* in files */
static struct index *model; /* the oracle: in memory, one run */
static struct arena arena;
static struct deed_error err;
static uint64_t mask, spill, cache_size;
static uint64_t next_position;
static uint32_t segment;
static const uint8_t no_hash[32];

static struct index *open_index(void)
{
    struct index *out = NULL;
    struct index_options options = {.os = os_sim_os(sim),
                                    .dir = dir,
                                    .cache = cache,
                                    .hash_seed = 11,
                                    .hash_mask = mask,
                                    .spill_size_max = spill};
    expect_ok(index_open(&options, &out, &err));
    index_set_log(out, (deed_uuid){{1, 2, 3}});
    return out;
}

static void begin(void)
{
    struct index_options in_memory = {.hash_seed = 12, .hash_mask = mask};
    sim = os_sim_create(5, NULL);
    expect_ok(os_dir_open(os_sim_os(sim), DIRECTORY, true, &dir, &err));
    cache = block_cache_create(cache_size == 0 ? 1 << 20 : cache_size);
    assert_non_null(cache);
    idx = open_index();
    expect_ok(os_dir_open_in(dir, "index", true, &run_dir, &err));
    expect_ok(index_open(&in_memory, &model, &err));
    expect_ok(index_roll(idx, 1, 0, no_hash, &err));
    expect_ok(index_roll(model, 1, 0, no_hash, &err));
    arena_init(&arena, SIZE_MAX);
    next_position = 1;
    segment = 1;
}

static void end(void)
{
    arena_done(&arena);
    index_close(idx);
    index_close(model);
    block_cache_destroy(cache);
    os_dir_close(run_dir);
    os_dir_close(dir);
    os_sim_destroy(sim);
}

static uint64_t revision_of(struct index *index, deed_str stream)
{
    struct postings p;
    uint64_t count = 0;
    postings_open(&p, index_writer_view(index), INDEX_STREAM, stream, &arena);
    expect_ok(postings_count(&p, UINT64_MAX, &count, &err));
    return count;
}

static void put(deed_str stream, deed_str type, const deed_str *tags, size_t tag_count)
{
    struct index_event e = {.stream = stream,
                            .type = type,
                            .tags = tags,
                            .tag_count = tag_count,
                            .position = next_position++,
                            .revision = revision_of(model, stream)};
    put_uint(e.id.bytes, e.position, 8);
    assert_int_equal(revision_of(idx, stream), e.revision);
    expect_ok(index_add_event(model, &e, &err));
    expect_ok(index_add_event(idx, &e, &err));
    arena_reset(&arena);
}

static void step(void)
{
    index_writer_rest(idx);
    while (index_step(idx, NULL) == ACTOR_AGAIN) continue;
}

/* The segment is closed, and its run written. */
static void close_segment(void)
{
    expect_ok(index_roll(idx, ++segment, next_position - 1, no_hash, &err));
    step();
    assert_int_equal(index_waiting(idx), 0);
}

static size_t file_count;
static void count_file(void *context, const char *name)
{
    (void)context;
    uint32_t first, last;
    file_count += run_name_parse(name, &first, &last);
    if (!run_name_parse(name, &first, &last)) fail_msg("left behind: %s", name);
}
static size_t files(void)
{
    file_count = 0;
    expect_ok(os_dir_list(run_dir, count_file, NULL, &err));
    return file_count;
}

/* Everything that can be asked of a term gives one answer. */
static void expect_same(enum index_kind kind, deed_str term)
{
    struct postings a, b;
    uint64_t x = 0, y = 0;
    arena_reset(&arena);
    postings_open(&a, index_writer_view(model), kind, term, &arena);
    postings_open(&b, index_writer_view(idx), kind, term, &arena);
    expect_ok(postings_count(&a, UINT64_MAX, &x, &err));
    expect_ok(postings_count(&b, UINT64_MAX, &y, &err));
    assert_int_equal(x, y);
    uint64_t stride = 1 + next_position / 257;
    for (uint64_t p = 0; p <= next_position + 1; p += stride) {
        bool there = false, is_there = false;
        expect_ok(postings_count(&a, p, &x, &err));
        expect_ok(postings_count(&b, p, &y, &err));
        assert_int_equal(x, y);
        expect_ok(postings_last(&a, p, &x, &err));
        expect_ok(postings_last(&b, p, &y, &err));
        assert_int_equal(x, y);
        expect_ok(postings_next(&a, p, UINT64_MAX, &x, &err));
        expect_ok(postings_next(&b, p, UINT64_MAX, &y, &err));
        assert_int_equal(x, y);
        expect_ok(postings_contains(&a, p, &there, &err));
        expect_ok(postings_contains(&b, p, &is_there, &err));
        assert_int_equal(there, is_there);
    }
    uint64_t from = 0; /* straight through, each one */
    do {
        expect_ok(postings_next(&a, from, next_position, &x, &err));
        expect_ok(postings_next(&b, from, next_position, &y, &err));
        assert_int_equal(x, y);
        from = x;
    } while (x != 0);
    expect_ok(postings_count(&a, UINT64_MAX, &x, &err));
    for (uint64_t r = 0; r < x; r += 1 + x / 300) {
        uint64_t in_model = 0, in_files = 0;
        expect_ok(postings_at(&a, r, &in_model, &err));
        expect_ok(postings_at(&b, r, &in_files, &err));
        assert_int_equal(in_model, in_files);
        expect_ok(postings_at(&a, x - 1 - r, &in_model, &err)); /* and from the other end */
        expect_ok(postings_at(&b, x - 1 - r, &in_files, &err));
        assert_int_equal(in_model, in_files);
    }
}

static void expect_same_ids(void)
{
    for (uint64_t p = 1; p < next_position + 5; p += 1 + next_position / 97) {
        struct postings a;
        uint64_t count = 0;
        deed_uuid id = {{0}};
        put_uint(id.bytes, p, 8);
        arena_reset(&arena);
        postings_open_id(&a, index_writer_view(idx), DEED_STR("order-1"), &id, &arena);
        expect_ok(postings_count(&a, UINT64_MAX, &count, &err));
        struct postings b;
        uint64_t wanted = 0;
        postings_open_id(&b, index_writer_view(model), DEED_STR("order-1"), &id, &arena);
        expect_ok(postings_count(&b, UINT64_MAX, &wanted, &err));
        assert_int_equal(count, wanted);
    }
}

static char text_room[64];
static deed_str text(const char *front, uint64_t n)
{
    int len = snprintf(text_room, sizeof text_room, "%s-%llu", front, (unsigned long long)n);
    return (deed_str){text_room, (size_t)len};
}

/* Events of streams, types and tags of all lengths of lists. */
static void fill(uint64_t events, uint64_t salt)
{
    for (uint64_t i = 0; i < events; i++) {
        char stream[32], rare[32];
        (void)snprintf(stream, sizeof stream, "order-%llu",
                       (unsigned long long)((i * 7 + salt) % (1 + i % 97)));
        (void)snprintf(rare, sizeof rare, "rare-%llu", (unsigned long long)((i + salt) % 61));
        deed_str tags[] = {DEED_STR("all"), deed_str_of(rare)};
        put(deed_str_of(stream), i % 3 == 0 ? DEED_STR("Third") : DEED_STR("Other"), tags, 2);
    }
}

static void expect_all_same(void)
{
    expect_same(INDEX_TAG, DEED_STR("all"));
    expect_same(INDEX_TAG, DEED_STR("none"));
    expect_same(INDEX_TYPE, DEED_STR("Third"));
    expect_same(INDEX_TYPE, DEED_STR("Other"));
    expect_same(INDEX_CATEGORY, DEED_STR("order"));
    for (uint64_t i = 0; i < 100; i += 7) expect_same(INDEX_STREAM, text("order", i));
    for (uint64_t i = 0; i < 63; i += 5) expect_same(INDEX_TAG, text("rare", i));
    expect_same_ids();
    assert_int_equal(index_stream_count(idx), index_stream_count(model));
}

/* ---- answers -------------------------------------------------------------------------------- */

TEST(run, a_run_in_a_file_answers_as_it_did_in_memory)
{
    begin();
    fill(3000, 1);
    expect_all_same();
    close_segment();
    assert_int_equal(files(), 1);
    expect_all_same();
    fill(500, 2);
    expect_all_same();
    close_segment();
    assert_int_equal(files(), 2);
    expect_all_same();
    end();
}

TEST(run, lists_of_every_length_around_the_limits_come_back)
{
    static const uint64_t lengths[] = {1,   2,   3,   7,   8,   9,    126,  127,  128,
                                       129, 130, 255, 256, 257, 1000, 4095, 20000};
    begin();
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        for (uint64_t n = 0; n < lengths[i]; n++) {
            struct index_event e = {.stream = text("s", lengths[i]),
                                    .type = DEED_STR("T"),
                                    .position = next_position,
                                    .revision = n};
            put_uint(e.id.bytes, e.position, 8);
            next_position += 1 + (n * n) % 1000; /* deltas of one byte and two */
            expect_ok(index_add_event(model, &e, &err));
            expect_ok(index_add_event(idx, &e, &err));
        }
        if (i % 5 == 4) close_segment();
    }
    close_segment();
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        expect_same(INDEX_STREAM, text("s", lengths[i]));
    }
    expect_same(INDEX_STREAM, text("s", 0));
    expect_same(INDEX_TYPE, DEED_STR("T"));
    end();
}

TEST(run, a_term_of_64_kib_goes_over_many_blocks)
{
    begin();
    static char name[UINT16_MAX];
    memset(name, 'x', sizeof name);
    for (size_t len = sizeof name; len > 1000; len = len * 2 / 3) {
        put((deed_str){name, len}, DEED_STR("T"), NULL, 0);
        fill(20, len);
    }
    close_segment();
    for (size_t len = sizeof name; len > 1000; len = len * 2 / 3) {
        expect_same(INDEX_STREAM, (deed_str){name, len});
        expect_same(INDEX_STREAM, (deed_str){name, len - 1});
    }
    name[sizeof name - 1] = 'y';
    assert_int_equal(revision_of(idx, (deed_str){name, sizeof name}), 0);
    expect_all_same();
    end();
}

TEST(run, eight_runs_become_one_and_eight_of_those_too)
{
    begin();
    for (unsigned i = 0; i < 64; i++) {
        fill(40, i);
        close_segment();
        if (i == 6) assert_int_equal(files(), 7);
        if (i == 7) assert_int_equal(files(), 1);
        if (i == 20) expect_all_same();
    }
    assert_int_equal(files(), 1);
    struct index_stats stats;
    index_get_stats(idx, &stats);
    assert_int_equal(stats.written, 64);
    assert_int_equal(stats.merged, 9);
    assert_int_equal(stats.failures, 0);
    assert_int_equal(stats.runs, 2); /* and the active one */
    expect_all_same();
    fill(100, 3);
    expect_all_same();
    end();
}

TEST(run, sections_that_do_not_fit_in_memory_come_out_the_same)
{
    spill = 64;
    begin();
    for (unsigned i = 0; i < 9; i++) {
        fill(700, i);
        close_segment();
    }
    assert_int_equal(files(), 2);
    expect_all_same();
    end();
    spill = 0;
}

TEST(run, a_cache_of_a_few_blocks_is_only_slower)
{
    cache_size = 1;
    begin();
    for (unsigned i = 0; i < 3; i++) {
        fill(2000, i);
        close_segment();
    }
    expect_all_same();
    struct block_cache_stats stats;
    block_cache_get_stats(cache, &stats);
    assert_true(stats.size < 16 * 5 * 5000);
    assert_int_equal(stats.charged, 0); /* no room for filters: they are read */
    end();
    cache_size = 0;
}

TEST(run, all_of_it_holds_when_terms_share_their_hashes)
{
    static const uint64_t masks[] = {UINT64_C(0xf), UINT64_C(0xf) << 60, UINT64_C(1) << 63};
    for (size_t i = 0; i < 3; i++) {
        mask = masks[i];
        begin();
        for (unsigned k = 0; k < 9; k++) {
            fill(60, k);
            close_segment();
        }
        assert_int_equal(files(), 2);
        expect_all_same();
        end();
    }
    mask = 0;
}

TEST(run, an_empty_segment_has_a_run_too)
{
    begin();
    for (unsigned i = 0; i < 8; i++) {
        if (i == 3) fill(10, i);
        close_segment();
    }
    assert_int_equal(files(), 1);
    expect_same(INDEX_TAG, DEED_STR("all"));
    end();
}

TEST(run, lost_revisions_keep_their_places_through_merging)
{
    begin();
    for (unsigned i = 0; i < 8; i++) {
        fill(30, i);
        if (i == 2) {
            for (unsigned k = 0; k < 3; k++) {
                uint64_t revision = revision_of(model, DEED_STR("order-0"));
                expect_ok(index_add_lost(model, DEED_STR("order-0"), revision, next_position, &err));
                expect_ok(index_add_lost(idx, DEED_STR("order-0"), revision, next_position, &err));
            }
            next_position += 2;
        }
        close_segment();
    }
    expect_same(INDEX_STREAM, DEED_STR("order-0"));
    end();
}

/* ---- opening -------------------------------------------------------------------------------- */

static void reopen(void)
{
    index_close(idx);
    idx = open_index();
    expect_ok(index_roll(idx, segment, next_position - 1, no_hash, &err));
}

TEST(run, what_is_in_files_is_there_after_opening)
{
    begin();
    for (unsigned i = 0; i < 11; i++) {
        fill(200, i);
        close_segment();
    }
    reopen();
    assert_true(index_has_files(idx));
    assert_true(index_covers(idx, 1));
    assert_true(index_covers(idx, 11));
    assert_false(index_covers(idx, 12));
    step();
    expect_all_same();
    fill(50, 20);
    expect_all_same();
    end();
}

static void put_file(const char *name, const char *content)
{
    struct os_file *file;
    expect_ok(os_file_open(run_dir, name, OS_WRITE | OS_CREATE, &file, &err));
    expect_ok(os_file_write(file, 0, deed_bytes_of(deed_str_of(content)), &err));
    os_file_close(file);
}

TEST(run, leftovers_are_removed_and_strangers_left_alone)
{
    begin();
    for (unsigned i = 0; i < 8; i++) {
        fill(20, i);
        close_segment();
    }
    put_file("0000000009-0000000009.run.new", "half");
    put_file("0000000009-0000000009.run.postings", "half");
    put_file("0000000001-0000000008.run.part1", "half");
    put_file("0000000002-0000000002.run", "an input that was to be removed");
    put_file("0000000009-0000000009.run", "no run");
    reopen();
    assert_int_equal(files(), 1);
    assert_false(index_covers(idx, 9));
    expect_all_same();
    end();
}

TEST(run, a_newer_format_is_refused)
{
    begin();
    fill(20, 1);
    close_segment();
    struct os_file *file;
    uint64_t size = 0;
    uint8_t footer[BLOCK_SIZE];
    size_t got = 0;
    expect_ok(os_file_open(run_dir, "0000000001-0000000001.run", OS_WRITE, &file, &err));
    expect_ok(os_file_size(file, &size, &err));
    expect_ok(os_file_read(file, size - BLOCK_SIZE, footer, BLOCK_SIZE, &got, &err));
    static const uint8_t no_id[16];
    footer[8] = 2;
    put_uint(footer + RUN_PAYLOAD_SIZE, run_block_crc(no_id, size / BLOCK_SIZE - 1, footer), 4);
    expect_ok(os_file_write(file, size - BLOCK_SIZE, (deed_bytes){footer, BLOCK_SIZE}, &err));
    os_file_close(file);
    struct index *other = NULL;
    struct index_options options = {.os = os_sim_os(sim), .dir = dir, .cache = cache};
    expect_status(DEED_TOO_NEW, index_open(&options, &other, &err));
    expect_message(err, "0000000001-0000000001.run: format 2");
    end();
}

TEST(run, a_read_only_index_changes_nothing)
{
    begin();
    fill(300, 1);
    close_segment();
    put_file("0000000009-0000000009.run.new", "half");
    struct index *reader = NULL;
    struct index_options options = {
        .os = os_sim_os(sim), .dir = dir, .cache = cache, .read_only = true};
    uint64_t before = os_sim_count(sim, OS_SIM_WRITE) + os_sim_count(sim, OS_SIM_REMOVE);
    expect_ok(index_open(&options, &reader, &err));
    while (index_step(reader, NULL) == ACTOR_AGAIN) continue;
    assert_true(index_covers(reader, 1));
    struct postings p;
    uint64_t count = 0;
    postings_open(&p, index_writer_view(reader), INDEX_TAG, DEED_STR("all"), &arena);
    expect_ok(postings_count(&p, UINT64_MAX, &count, &err));
    assert_int_equal(count, 300);
    index_close(reader);
    assert_int_equal(os_sim_count(sim, OS_SIM_WRITE) + os_sim_count(sim, OS_SIM_REMOVE), before);
    end();
}

/* ---- cost ----------------------------------------------------------------------------------- */

TEST(run, what_does_not_exist_costs_no_read)
{
    begin();
    for (unsigned i = 0; i < 5; i++) {
        fill(3000, i);
        close_segment();
    }
    step();
    uint64_t reads = os_sim_count(sim, OS_SIM_READ);
    for (uint64_t i = 0; i < 1000; i++) {
        assert_int_equal(revision_of(idx, text("new", i)), 0);
        arena_reset(&arena);
    }
    /* A filter errs for a term in some sixty, and five are asked; blocks that were read once stay. */
    assert_in_range(os_sim_count(sim, OS_SIM_READ) - reads, 0, 200);
    end();
}

TEST(run, a_look_after_a_position_leaves_older_runs_alone)
{
    begin();
    for (unsigned i = 0; i < 5; i++) {
        fill(3000, i);
        close_segment();
    }
    fill(10, 1);
    reopen();
    uint64_t reads = os_sim_count(sim, OS_SIM_READ);
    struct postings p;
    uint64_t next = 0;
    postings_open(&p, index_writer_view(idx), INDEX_TYPE, DEED_STR("Third"), &arena);
    expect_ok(postings_next(&p, next_position - 1, UINT64_MAX, &next, &err));
    assert_int_equal(next, 0);
    assert_int_equal(os_sim_count(sim, OS_SIM_READ), reads);
    end();
}

/* ---- faults --------------------------------------------------------------------------------- */

TEST(run, a_run_that_cannot_be_written_stays_in_memory_and_is_tried_again)
{
    static const enum os_sim_op ops[] = {OS_SIM_OPEN, OS_SIM_WRITE, OS_SIM_SYNC, OS_SIM_RENAME,
                                         OS_SIM_DIR_SYNC, OS_SIM_READ, OS_SIM_SIZE};
    for (size_t op = 0; op < sizeof ops / sizeof ops[0]; op++) {
        for (uint64_t k = 1; k < 4; k++) {
            begin();
            fill(100, 1);
            expect_ok(index_roll(idx, ++segment, next_position - 1, no_hash, &err));
            os_sim_fail(sim, ops[op], k, 0, k % 2 == 0 ? 28 : 5);
            step();
            expect_all_same();
            os_sim_heal(sim);
            os_sim_advance(sim, 2000000000);
            step();
            assert_int_equal(index_waiting(idx), 0);
            assert_false(index_failing(idx));
            assert_int_equal(files(), 1);
            expect_all_same();
            end();
        }
    }
}

TEST(run, a_merge_that_fails_anywhere_leaves_the_runs_that_it_reads)
{
    for (uint64_t k = 1; k < 200; k++) {
        spill = 512;
        begin();
        for (unsigned i = 0; i < 7; i++) {
            fill(60, i);
            close_segment();
        }
        fill(60, 7);
        expect_ok(index_roll(idx, ++segment, next_position - 1, no_hash, &err));
        while (index_waiting(idx) > 0) (void)index_step(idx, NULL);
        uint64_t before = os_sim_count(sim, OS_SIM_ANY);
        os_sim_fail(sim, OS_SIM_ANY, k, 0, 5);
        step();
        bool struck = os_sim_count(sim, OS_SIM_ANY) - before >= k;
        os_sim_heal(sim);
        expect_all_same();
        os_sim_advance(sim, 2000000000);
        step();
        expect_all_same();
        reopen();
        expect_all_same();
        end();
        if (!struck) break;
    }
    spill = 0;
}

TEST(run, a_crash_at_any_moment_leaves_what_can_be_opened)
{
    for (uint64_t k = 0; k < 400; k += 3) {
        begin();
        for (unsigned i = 0; i < 7; i++) {
            fill(30, i);
            close_segment();
        }
        fill(30, 7);
        expect_ok(index_roll(idx, ++segment, next_position - 1, no_hash, &err));
        uint64_t before = os_sim_count(sim, OS_SIM_ANY);
        os_sim_power_off_after(sim, k);
        step();
        bool struck = os_sim_count(sim, OS_SIM_ANY) - before > k;
        index_close(idx);
        os_dir_close(run_dir);
        os_dir_close(dir);
        os_sim_crash(sim);
        os_sim_heal(sim);
        os_sim_power_off_after(sim, DEED_NONE);
        expect_ok(os_dir_open(os_sim_os(sim), DIRECTORY, true, &dir, &err));
        expect_ok(os_dir_open_in(dir, "index", true, &run_dir, &err));
        idx = open_index();
        /* The runs of the first seven segments were durable, in one file or in seven. */
        for (uint32_t s = 1; s <= 7; s++) assert_true(index_covers(idx, s));
        bool whole = index_covers(idx, 8);
        expect_ok(index_roll(idx, whole ? 9 : 8, next_position - 1, no_hash, &err));
        if (whole) expect_all_same();
        end();
        if (!struck) break;
    }
}

/* Each byte of a file in turn is wrong: the answer is the right one, or that it must be made again. */
TEST(run, a_damaged_byte_is_an_error_or_changes_nothing)
{
    begin();
    fill(1500, 1);
    close_segment();
    struct os_file *file;
    uint64_t size = 0;
    expect_ok(os_file_open(run_dir, "0000000001-0000000001.run", OS_WRITE, &file, &err));
    expect_ok(os_file_size(file, &size, &err));
    uint64_t wrong = 0;
    for (uint64_t at = 0; at < size; at += size / 397 + 1) {
        uint8_t byte = 0;
        size_t got = 0;
        expect_ok(os_file_read(file, at, &byte, 1, &got, &err));
        uint8_t flipped = byte ^ (uint8_t)(1u << at % 8);
        expect_ok(os_file_write(file, at, (deed_bytes){&flipped, 1}, &err));
        struct block_cache *fresh = block_cache_create(1 << 20);
        struct run_file *run = NULL;
        deed_status status =
            run_file_open(run_dir, "0000000001-0000000001.run", fresh, &run, &err);
        if (status != DEED_OK) {
            expect_status(DEED_CORRUPT, status);
            wrong++;
        } else {
            struct run_check *check = NULL;
            expect_ok(run_check_create(run, 0, &check, &err));
            while ((status = run_check_step(check, &err)) == DEED_OK) continue;
            expect_status(DEED_CORRUPT, status);
            run_check_destroy(check);
            struct index_hashing hashing = {11, UINT64_MAX};
            for (uint64_t i = 0; i < 97; i++) {
                struct index_term term = term_make(hashing, INDEX_STREAM,
                                                   deed_bytes_of(text("order", i)), (deed_bytes){0});
                struct run_entry entry = {0};
                bool found = false;
                status = run_file_find(run, &term, &found, &entry, &err);
                if (status == DEED_OK) {
                    assert_int_equal(found ? entry.count : 0, revision_of(model, text("order", i)));
                    arena_reset(&arena);
                } else {
                    expect_status(DEED_BUSY, status);
                    expect_message(err, "the index of segments 1 to 1 is being rebuilt");
                    assert_true(run_file_damaged(run));
                    wrong++;
                }
            }
            run_file_close(run);
        }
        expect_ok(os_file_write(file, at, (deed_bytes){&byte, 1}, &err));
        block_cache_destroy(fresh);
    }
    assert_true(wrong > 50);
    os_file_close(file);
    end();
}

TEST(run, a_block_of_another_file_or_place_does_not_pass)
{
    begin();
    fill(1500, 1);
    close_segment();
    fill(1500, 1);
    close_segment();
    struct os_file *a, *b;
    uint8_t block[BLOCK_SIZE];
    size_t got = 0;
    expect_ok(os_file_open(run_dir, "0000000001-0000000001.run", OS_WRITE, &a, &err));
    expect_ok(os_file_open(run_dir, "0000000002-0000000002.run", OS_WRITE, &b, &err));
    expect_ok(os_file_read(b, 0, block, BLOCK_SIZE, &got, &err));
    expect_ok(os_file_write(a, 0, (deed_bytes){block, BLOCK_SIZE}, &err));
    expect_ok(os_file_read(b, 4 * BLOCK_SIZE, block, BLOCK_SIZE, &got, &err));
    expect_ok(os_file_write(b, 5 * BLOCK_SIZE, (deed_bytes){block, BLOCK_SIZE}, &err));
    os_file_close(a);
    os_file_close(b);
    reopen();
    for (unsigned i = 0; i < 2; i++) {
        struct run_check *check = NULL;
        deed_status status;
        expect_ok(run_check_create(index_writer_view(idx)->runs[i]->file, 0, &check, &err));
        while ((status = run_check_step(check, &err)) == DEED_OK) continue;
        expect_status(DEED_CORRUPT, status);
        expect_message(err, i == 0 ? "run of segments 1 to 1: block 0 is damaged"
                                   : "run of segments 2 to 2: block 5 is damaged");
        run_check_destroy(check);
    }
    end();
}

/* ---- with a log ----------------------------------------------------------------------------- */

static struct store *store;

static void open_store(const char *where)
{
    struct store_options options = {.segment_size = 64 << 10, .no_threads = true};
    expect_ok(store_open(os_sim_os(sim), where, &options, &store, &err));
}

static void settle(void)
{
    for (unsigned i = 0; i < 4; i++) {
        while (store_step(store)) continue;
        os_sim_advance(sim, 2000000000);
    }
}

static void say(const char *stream, unsigned count)
{
    static uint8_t data[1000];
    memset(data, ' ', sizeof data);
    data[0] = '1';
    for (unsigned i = 0; i < count; i++) {
        struct deed_new_event e = {.stream = deed_str_of(stream),
                                   .type = DEED_STR("T"),
                                   .data = {data, sizeof data}};
        struct deed_append append = {.events = &e, .event_count = 1};
        struct deed_appended appended;
        expect_ok(store_append(store, &append, &appended, &err));
    }
    settle();
}

static uint64_t revision_in_store(const char *stream)
{
    struct deed_stream_info info;
    deed_status status = store_stream(store, deed_str_of(stream), &info, &err);
    if (status == DEED_NOT_FOUND) return 0;
    expect_ok(status);
    return info.revision + 1;
}

static void begin_with_log(void)
{
    sim = os_sim_create(5, NULL);
    open_store("/a");
}

static void end_with_log(void)
{
    store_close(store);
    os_sim_destroy(sim);
}

static void copy_run(const char *from, const char *to, const char *name)
{
    static uint8_t bytes[1 << 20];
    struct os_dir *a, *b;
    struct os_file *in, *out;
    size_t size = 0;
    expect_ok(os_dir_open(os_sim_os(sim), from, false, &a, &err));
    expect_ok(os_dir_open(os_sim_os(sim), to, true, &b, &err));
    expect_ok(os_file_open(a, name, OS_READ, &in, &err));
    expect_ok(os_file_read(in, 0, bytes, sizeof bytes, &size, &err));
    expect_ok(os_file_open(b, name, OS_WRITE | OS_CREATE, &out, &err));
    expect_ok(os_file_truncate(out, 0, &err));
    expect_ok(os_file_write(out, 0, (deed_bytes){bytes, size}, &err));
    os_file_close(in);
    os_file_close(out);
    os_dir_close(a);
    os_dir_close(b);
}

#define FIRST_RUN "0000000001-0000000001.run"

TEST(run, a_run_of_another_log_is_made_again)
{
    begin_with_log();
    say("theirs", 40);
    store_close(store);
    open_store("/b");
    say("ours", 40);
    store_close(store);
    copy_run("/a/index", "/b/index", FIRST_RUN);
    open_store("/b");
    assert_int_equal(revision_in_store("theirs"), 0);
    assert_int_equal(revision_in_store("ours"), 40);
    say("ours", 5);
    store_close(store);
    open_store("/b");
    assert_int_equal(revision_in_store("ours"), 45);
    struct deed_info info;
    store_info(store, &info);
    assert_int_equal(info.stream_count, 2); /* $log */
    end_with_log();
}

TEST(run, a_run_that_is_missing_is_made_again)
{
    begin_with_log();
    say("some", 60);
    store_close(store);
    struct os_dir *runs;
    expect_ok(os_dir_open(os_sim_os(sim), "/a/index", false, &runs, &err));
    expect_ok(os_remove(runs, "0000000002-0000000002.run", &err));
    os_dir_close(runs);
    open_store("/a");
    assert_int_equal(revision_in_store("some"), 60);
    say("other", 40);
    assert_int_equal(revision_in_store("some"), 60);
    end_with_log();
}

TEST(run, a_run_that_is_damaged_is_read_from_the_log_again)
{
    for (uint64_t block = 0; block < 12; block++) {
        begin_with_log();
        say("some", 700); /* eight runs and more */
        store_close(store);
        deed_status status = os_sim_rot(sim, "/a/index/0000000001-0000000008.run", block * 4096 + 77,
                                        OS_SIM_ROT_FLIP);
        os_sim_drop_cache(sim);
        open_store("/a");
        settle();
        assert_int_equal(revision_in_store("some"), 700);
        say("some", 1);
        assert_int_equal(revision_in_store("some"), 701);
        end_with_log();
        if (status != DEED_OK) break;
    }
}

/* Sixty streams of one event; what the first segment's run and log have is damaged. False: the file
 * has no such sector. */
static bool rot_run_and_log(uint64_t sector, bool while_open)
{
    begin_with_log();
    for (unsigned i = 0; i < 60; i++) {
        char stream[16];
        (void)snprintf(stream, sizeof stream, "s-%u", i);
        say(stream, 1);
    }
    if (!while_open) store_close(store);
    expect_ok(os_sim_rot(sim, "/a/index/" FIRST_RUN, 77, OS_SIM_ROT_FLIP));
    deed_status status = os_sim_rot(sim, "/a/log/0000000001.00000000000000000001.1.sealed",
                                    sector * 4096 + 77, OS_SIM_ROT_FLIP);
    os_sim_drop_cache(sim);
    if (!while_open) open_store("/a");
    struct store_verify_report report;
    (void)!store_verify(store, NULL, NULL, NULL, &report, &err); /* it finds the run out */
    settle();
    return status == DEED_OK;
}

/* What cannot be read now is not taken for missing. */
TEST(run, a_run_is_not_made_without_what_the_log_cannot_give)
{
    unsigned told[2] = {0};
    bool more = true;
    for (uint64_t sector = 1; more; sector++) {
        for (unsigned while_open = 0; while_open < 2; while_open++) {
            more = rot_run_and_log(sector, while_open == 1);
            for (unsigned i = 0; i < 60; i++) {
                struct deed_stream_info info;
                char stream[16];
                (void)snprintf(stream, sizeof stream, "s-%u", i);
                deed_status status = store_stream(store, deed_str_of(stream), &info, &err);
                /* The run that cannot be made anew is tried again. */
                bool known = status == DEED_OK || status == DEED_CORRUPT || status == DEED_BUSY;
                if (!known) fail_msg("sector %u: %s", (unsigned)sector, err.message);
                told[while_open] += status != DEED_OK;
            }
            end_with_log();
        }
    }
    assert_true(told[0] > 0 && told[1] > 0);
}

static void append_one(void)
{
    static const uint8_t data[1000] = "1";
    struct deed_new_event e = {.stream = DEED_STR("some"),
                               .type = DEED_STR("T"),
                               .content_type = DEED_STR("text/plain"),
                               .data = {data, sizeof data}};
    struct deed_append append = {.events = &e, .event_count = 1};
    struct deed_appended appended;
    expect_ok(store_append(store, &append, &appended, &err));
}

static uint64_t runs_in_files(void)
{
    struct index_stats stats;
    index_get_stats(store->index, &stats);
    return stats.runs - stats.memory_runs;
}

/* One step's read fails. */
static void step_unread(void)
{
    os_sim_fail(sim, OS_SIM_READ, 1, 0, 5);
    while (index_step(store->index, store->log) == ACTOR_AGAIN) continue;
    os_sim_heal(sim);
    assert_true(index_failing(store->index));
    os_sim_advance(sim, 2000000000);
}

TEST(run, a_merge_that_cannot_read_a_run_has_it_checked_and_made_again)
{
    struct index_stats stats;
    begin_with_log();
    while (runs_in_files() < 7) {
        append_one();
        settle();
    }
    while (index_waiting(store->index) == 0) append_one();
    while (index_waiting(store->index) > 0) (void)index_step(store->index, store->log);
    assert_int_equal(runs_in_files(), 8);
    step_unread(); /* it is the merge that reads */
    os_sim_fail(sim, OS_SIM_READ, 1, 0, 5);
    (void)index_step(store->index, store->log);
    (void)index_step(store->index, store->log); /* the check meets the same sector */
    os_sim_heal(sim);
    settle();
    index_get_stats(store->index, &stats);
    assert_int_equal(stats.rebuilt, 1);
    assert_int_equal(stats.merged, 1);
    end_with_log();
}

static size_t files_of_store(void)
{
    expect_ok(os_dir_open(os_sim_os(sim), "/a/index", false, &run_dir, &err));
    size_t count = files();
    os_dir_close(run_dir);
    return count;
}

TEST(run, a_slow_reader_lets_go_of_what_was_replaced)
{
    struct deed_read_options options = {.stream = DEED_STR("some")};
    struct deed_cursor *cursor;
    struct deed_event event;
    begin_with_log();
    while (runs_in_files() < 7) {
        append_one();
        settle();
    }
    expect_ok(store_read(store, &options, &cursor, &err));
    expect_ok(cursor_next(cursor, &event, &err));
    while (runs_in_files() > 1) {
        append_one();
        settle();
    }
    assert_int_equal(files_of_store(), 8); /* the merged one, and seven that the cursor looks at */
    for (uint64_t revision = 1; revision < 100; revision++) {
        expect_ok(cursor_next(cursor, &event, &err));
        assert_int_equal(event.revision, revision);
        settle();
        assert_int_equal(files_of_store(), 1);
    }
    cursor_close(cursor);
    end_with_log();
}

/* Nobody can make it again: that is found once. */
TEST(run, damage_without_a_log_is_no_endless_work)
{
    begin();
    fill(60, 1);
    close_segment();
    reopen();
    expect_ok(os_sim_rot(sim, DIRECTORY "/index/" FIRST_RUN, 100, OS_SIM_ROT_FLIP));
    os_sim_drop_cache(sim);
    unsigned steps = 0;
    while (index_step(idx, NULL) != UINT64_C(500000000)) assert_true(++steps < 1000);
    end();
}

static char damage_told[160];
static void note_store_damage(void *context, const struct store_damage *d)
{
    (void)context;
    assert_int_equal(d->first_position, DEED_NONE);
    (void)snprintf(damage_told, sizeof damage_told, "%s", d->what);
}

TEST(run, verifying_reads_runs_too_and_has_the_damaged_one_made_again)
{
    struct store_verify_report report;
    begin_with_log();
    say("some", 60);
    expect_ok(store_verify(store, note_store_damage, NULL, NULL, &report, &err));
    expect_ok(os_sim_rot(sim, "/a/index/" FIRST_RUN, 100, OS_SIM_ROT_FLIP));
    os_sim_drop_cache(sim);
    expect_status(DEED_CORRUPT,
                  store_verify(store, note_store_damage, NULL, NULL, &report, &err));
    expect_message(err, "the index has 1 damaged places");
    assert_int_equal(report.damage_count, 1);
    assert_non_null(strstr(damage_told, "run of segments 1 to 1: block 0 is damaged"));
    settle();
    expect_ok(store_verify(store, note_store_damage, NULL, NULL, &report, &err));
    end_with_log();
}

/* ---- the cache ------------------------------------------------------------------------------ */

static deed_status load_number(void *context, uint64_t number, uint8_t out[BLOCK_SIZE],
                               struct deed_error *e)
{
    uint64_t *loads = context;
    (*loads)++;
    if (number == 13) return deed_fail(e, DEED_IO, "thirteen");
    memset(out, (int)(number & 0xff), BLOCK_SIZE);
    return DEED_OK;
}

TEST(run, a_cache_gives_each_block_its_own_bytes_and_keeps_its_size)
{
    struct block_cache *c = block_cache_create(64 * 5000);
    uint64_t loads = 0;
    uint64_t one = block_cache_source(c), two = block_cache_source(c);
    for (unsigned round = 0; round < 3; round++) {
        for (uint64_t n = 0; n < 300; n++) {
            struct block *block = NULL;
            uint64_t source = n % 2 == 0 ? one : two;
            deed_status status = block_cache_get(c, source, n, load_number, &loads, &block, &err);
            if (n == 13) {
                expect_status(DEED_IO, status);
                continue;
            }
            expect_ok(status);
            assert_int_equal(block_bytes(block)[BLOCK_SIZE - 1], n & 0xff);
            block_cache_put(c, block);
        }
    }
    struct block_cache_stats stats;
    block_cache_get_stats(c, &stats);
    assert_true(stats.size <= 64 * 5000 + 16 * 5000);
    assert_int_equal(stats.misses, loads);
    /* What is asked for again and again stays. */
    loads = 0;
    for (uint64_t n = 0; n < 2000; n++) {
        struct block *block = NULL, *hot = NULL;
        expect_ok(block_cache_get(c, one, 5, load_number, &loads, &hot, &err));
        expect_ok(block_cache_get(c, two, 1000 + n, load_number, &loads, &block, &err));
        block_cache_put(c, block);
        block_cache_put(c, hot);
    }
    assert_in_range(loads, 2000, 2010);
    assert_false(block_cache_charge(c, 64 * 5000));
    assert_true(block_cache_charge(c, 32 * 5000));
    assert_false(block_cache_charge(c, 32 * 5000));
    block_cache_discharge(c, 32 * 5000);
    block_cache_put(c, NULL);
    block_cache_destroy(c);
    block_cache_destroy(NULL);
}

TEST_MAIN(run)
