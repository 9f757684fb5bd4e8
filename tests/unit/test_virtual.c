/* test_virtual.c - belongs to virtual.c, and to what read.c and postings.c do for it: streams that show
 * events of other streams. */
#include "store_fixture.h"

#include "base/uuid.h"
#include "index/run_format.h"

#include <errno.h>
#include <pthread.h>

/* ---- telling what is read ------------------------------------------------------------------- */

#define LINKS_SIZE (1 << 16)
static char links[LINKS_SIZE];
static struct deed_cursor *cursor;

/* "0:one 1:two": places and words of what the cursor still gives; "!7" as in words_of. */
static const char *links_of(deed_str stream)
{
    size_t len = 0;
    struct deed_event e;
    links[0] = '\0';
    for (;;) {
        char text[128];
        deed_status status = cursor_next(cursor, &e, &err);
        if (status == DEED_END) return links;
        int size;
        if (status == DEED_CORRUPT) {
            size = snprintf(text, sizeof text, "!%llu", (unsigned long long)err.position);
        } else if (status != DEED_OK) {
            size = snprintf(text, sizeof text, "%s", deed_status_name(status));
        } else {
            assert_true(deed_str_equal(e.link_stream, stream));
            bool quoted = e.data.len >= 2 && e.data.ptr[0] == '"';
            size = snprintf(text, sizeof text, "%llu:%.*s", (unsigned long long)e.link_revision,
                            quoted ? (int)e.data.len - 2 : 1,
                            quoted ? (const char *)e.data.ptr + 1 : "?");
        }
        sentence_add(links, &len, text, (size_t)size);
        if (status != DEED_OK && status != DEED_CORRUPT) return links;
    }
}

static const char *read_links(const struct deed_read_options *how)
{
    deed_status status = store_read(store, how, &cursor, &err);
    if (status != DEED_OK) return deed_status_name(status);
    (void)links_of(how->stream);
    cursor_close(cursor);
    cursor = NULL;
    return links;
}

#define expect_links(wanted, ...)                                                          \
    assert_string_equal(read_links(&(struct deed_read_options){__VA_ARGS__}), wanted)

static void say_as(const char *stream, const char *type, const char *word)
{
    struct deed_new_event e = said(stream, word);
    e.type = deed_str_of(type);
    say_event(e);
}

/* Positions 2 to 7; four of category order. */
static void start_orders(void)
{
    start();
    say_as("order-1", "Placed", "one");
    say_as("bill-1", "Sent", "two");
    say_as("order-2", "Placed", "three");
    say_as("order-1", "Shipped", "four");
    say_as("stock", "Shipped", "five");
    say_as("order-1-a", "Placed", "six");
}

static const deed_str orders = {"$ce-order", 9};

/* Sealing, runs and their merging, as far as they go. */
static void settle(void)
{
    for (unsigned i = 0; i < 4; i++) {
        while (store_step(store)) continue;
        os_sim_advance(sim, 2 * SECOND);
    }
}

/* ---- what belongs to them ------------------------------------------------------------------- */

TEST(virtual, a_category_is_a_stream)
{
    start_orders();
    expect_links("0:one 1:three 2:four 3:six", .stream = orders);
    expect_links("0:two", .stream = DEED_STR("$ce-bill"));
    expect_links("DEED_NOT_FOUND", .stream = DEED_STR("$ce-stock"));
    expect_message(err, "stream $ce-stock: there is no such stream");
    expect_links("DEED_NOT_FOUND", .stream = DEED_STR("$ce-"));
    finish();
}

TEST(virtual, a_type_is_a_stream_and_so_is_a_type_of_the_systems)
{
    start_orders();
    expect_links("0:one 1:three 2:six", .stream = DEED_STR("$et-Placed"));
    expect_links("0:four 1:five", .stream = DEED_STR("$et-Shipped"));
    expect_links("DEED_NOT_FOUND", .stream = DEED_STR("$et-$metadata"));
    expect_ok(store_set_metadata(store, DEED_STR("stock"), deed_bytes_of(DEED_STR("{\"a\":1}")),
                                 DEED_EXPECT_ANY, 0, (deed_str){0}, &appended, &err));
    expect_links("0:?", .stream = DEED_STR("$et-$metadata"));
    finish();
}

TEST(virtual, events_that_belong_together_are_a_stream)
{
    start_orders();
    struct deed_new_event e = said("order-1", "seven");
    e.correlation_id = DEED_STR("c-1");
    say_event(e);
    say("order-1", "eight");
    e.stream = DEED_STR("bill-9");
    e.data = word_data("nine");
    say_event(e);
    expect_links("0:seven 1:nine", .stream = DEED_STR("$bc-c-1"));
    expect_links("DEED_NOT_FOUND", .stream = DEED_STR("$bc-c"));
    finish();
}

TEST(virtual, the_first_events_of_streams_are_a_stream)
{
    start_orders();
    expect_ok(store_set_metadata(store, DEED_STR("stock"), deed_bytes_of(DEED_STR("{\"a\":1}")),
                                 DEED_EXPECT_ANY, 0, (deed_str){0}, &appended, &err));
    say("stock", "seven");
    say("note", "eight");
    expect_links("0:one 1:two 2:three 3:five 4:six 5:eight", .stream = DEED_STR("$streams"));
    finish();
}

TEST(virtual, the_event_is_the_targets_own)
{
    start_orders();
    struct deed_read_options how = {.stream = orders, .from_revision = 2};
    struct deed_event e;
    expect_ok(store_read(store, &how, &cursor, &err));
    expect_ok(cursor_next(cursor, &e, &err));
    expect_str(e.stream, "order-1");
    assert_int_equal(e.revision, 1);
    assert_int_equal(e.position, 5);
    expect_str(e.link_stream, "$ce-order");
    assert_int_equal(e.link_revision, 2);
    assert_int_equal(event_revision_read(&e), 2);
    cursor_close(cursor);
    how = (struct deed_read_options){.stream = DEED_STR("order-1")};
    expect_ok(store_read(store, &how, &cursor, &err));
    expect_ok(cursor_next(cursor, &e, &err));
    assert_null(e.link_stream.ptr);
    assert_int_equal(event_revision_read(&e), 0);
    cursor_close(cursor);
    finish();
}

/* ---- reading -------------------------------------------------------------------------------- */

TEST(virtual, it_is_read_from_anywhere_in_both_directions)
{
    start_orders();
    expect_links("2:four 3:six", .stream = orders, .from_revision = 2);
    expect_links("", .stream = orders, .from_revision = 4);
    expect_links("", .stream = orders, .from_revision = DEED_NONE);
    expect_links("1:three 2:four", .stream = orders, .from_revision = 1, .count_max = 2);
    expect_links("3:six 2:four 1:three 0:one", .stream = orders, .backwards = true,
                 .from_revision = DEED_NONE);
    expect_links("2:four 1:three 0:one", .stream = orders, .backwards = true, .from_revision = 2);
    expect_links("0:one", .stream = orders, .backwards = true, .from_revision = 0);
    expect_links("3:six 2:four", .stream = orders, .backwards = true, .from_revision = 77,
                 .count_max = 2);
    expect_links("0:one 1:three", .stream = orders, .until_position = 4);
    expect_links("DEED_NOT_FOUND", .stream = orders, .until_position = 1);
    expect_links("1:three 0:one", .stream = orders, .until_position = 4, .backwards = true,
                 .from_revision = DEED_NONE);
    finish();
}

TEST(virtual, a_follower_sees_each_event_once)
{
    start_orders();
    struct deed_read_options how = {.stream = orders, .follow = true, .from_revision = 3};
    expect_ok(store_read(store, &how, &cursor, &err));
    assert_string_equal(links_of(orders), "3:six");
    say("stock", "seven");
    assert_string_equal(links_of(orders), "");
    assert_int_equal(cursor_position(cursor), 8);
    say("order-3", "eight");
    say("order-1", "nine");
    settle();
    say("order-4", "ten");
    assert_string_equal(links_of(orders), "4:eight 5:nine 6:ten");
    cursor_close(cursor);

    deed_str later = DEED_STR("$ce-later");
    how = (struct deed_read_options){.stream = later, .follow = true, .from_revision = 1};
    expect_ok(store_read(store, &how, &cursor, &err));
    assert_string_equal(links_of(later), "");
    say("later-1", "zero");
    assert_string_equal(links_of(later), "");
    say("later-2", "one");
    assert_string_equal(links_of(later), "1:one");
    cursor_close(cursor);
    finish();
}

TEST(virtual, what_is_known_of_it_is_its_end)
{
    start_orders();
    struct deed_stream_info info;
    expect_ok(store_stream(store, orders, &info, &err));
    assert_int_equal(info.revision, 3);
    assert_int_equal(info.first_revision, 0);
    assert_int_equal(info.position, 7);
    assert_true(info.metadata_revision == DEED_NONE);
    assert_false(info.deleted || info.tombstoned);
    expect_status(DEED_NOT_FOUND, store_stream(store, DEED_STR("$ce-x"), &info, &err));
    finish();
}

TEST(virtual, the_log_is_not_filtered_by_it)
{
    start_orders();
    deed_str names[] = {DEED_STR("order-1"), orders};
    struct deed_filter filter = {.streams = names, .stream_count = 2};
    expect_words("DEED_INVALID", .filter = filter);
    expect_message(err, "filter: stream $ce-order is virtual");
    filter.stream_count = 1;
    expect_words("one four", .filter = filter);
    finish();
}

TEST(virtual, retention_of_streams_does_not_change_it)
{
    start_orders();
    expect_ok(store_delete_stream(store, DEED_STR("order-1"), DEED_EXPECT_ANY, 0, false,
                                  (deed_str){0}, &appended, &err));
    expect_links("0:one 1:three 2:four 3:six", .stream = orders);
    expect_ok(store_delete_stream(store, DEED_STR("order-2"), DEED_EXPECT_ANY, 0, true,
                                  (deed_str){0}, &appended, &err));
    /* A tombstone is the stream's last event. */
    expect_links("0:one 1:three 2:four 3:six 4:?", .stream = orders);
    finish();
}

TEST(virtual, removed_events_keep_their_places)
{
    start_orders();
    expect_ok(store_delete_stream(store, DEED_STR("order-1"), DEED_EXPECT_ANY, 0, false,
                                  (deed_str){0}, &appended, &err));
    struct deed_compact_options compact = {.active = true};
    expect_ok(store_compact(store, &compact, &err));
    struct deed_compaction done;
    expect_ok(store_compaction_wait(store, &done, &err));
    assert_int_equal(done.events_removed, 2);
    settle();
    expect_links("1:three 3:six", .stream = orders);
    expect_links("0:? 1:three 2:? 3:six", .stream = orders, .removed = true);
    expect_links("3:six 1:three", .stream = orders, .backwards = true, .from_revision = DEED_NONE);
    finish();
}

/* ---- nobody writes to them ------------------------------------------------------------------ */

TEST(virtual, nothing_can_be_written_to_it)
{
    static const char *const names[] = {"$ce-order", "$et-Placed", "$bc-1", "$streams", "$ce-"};
    start_orders();
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        deed_str name = deed_str_of(names[i]);
        char metadata[32];
        (void)snprintf(metadata, sizeof metadata, "$$%s", names[i]);
        struct deed_new_event e = said(metadata, "x");
        e.type = DEED_STR("$metadata");
        e.data = deed_bytes_of(DEED_STR("{}"));
        assert_true(store_is_virtual(name));
        expect_status(DEED_INVALID, append_event(said(names[i], "x")));
        expect_message(err, "is virtual: it shows events of other streams");
        expect_message(err, names[i]);
        expect_status(DEED_INVALID, append_event(e));
        expect_message(err, "is virtual");
        expect_status(DEED_INVALID,
                      append_if(said("order-1", "x"), stream_is(names[i], DEED_EXPECT_NONE, 0)));
        expect_message(err, "is virtual");
        for (int tombstone = 0; tombstone < 2; tombstone++) {
            expect_status(DEED_INVALID,
                          store_delete_stream(store, name, DEED_EXPECT_ANY, 0, tombstone == 1,
                                              (deed_str){0}, &appended, &err));
            expect_message(err, "is virtual");
        }
        expect_status(DEED_INVALID,
                      store_set_metadata(store, name, deed_bytes_of(DEED_STR("{}")),
                                         DEED_EXPECT_ANY, 0, (deed_str){0}, &appended, &err));
        struct buf out;
        uint64_t revision = 0;
        buf_init(&out, 64);
        expect_status(DEED_INVALID, store_get_metadata(store, name, &out, &revision, &err));
        buf_done(&out);
        expect_status(DEED_INVALID, store_erase(store, name, (deed_str){0}, &err));
    }
    assert_false(store_is_virtual(DEED_STR("order-1")));
    assert_false(store_is_virtual(DEED_STR("$log")));
    assert_false(store_is_virtual(DEED_STR("$streamsx")));
    expect_links("0:one 1:three 2:four 3:six", .stream = orders);
    finish();
}

TEST(virtual, a_places_id_is_the_same_for_everybody)
{
    start_orders();
    struct deed_info info;
    store_info(store, &info);
    deed_bytes name = deed_bytes_of(DEED_STR("$ce-order@2"));
    deed_uuid wanted = uuid_v5(info.log_id, &name, 1);
    deed_uuid id = store_link_id(store, orders, 2);
    assert_true(uuid_equal(id, wanted));
    assert_int_equal(id.bytes[6] >> 4, 5);
    assert_false(uuid_equal(id, store_link_id(store, orders, 3)));
    reopen();
    assert_true(uuid_equal(store_link_id(store, orders, 2), wanted));
    finish();
}

/* ---- as links ------------------------------------------------------------------------------- */

static bool leads(const char *data, const char *stream, uint64_t revision)
{
    deed_str to = {0};
    uint64_t at = 0;
    return store_link_parse(deed_bytes_of(deed_str_of(data)), &to, &at) &&
           deed_str_equal(to, deed_str_of(stream)) && at == revision;
}

TEST(virtual, a_links_data_is_a_revision_and_a_stream)
{
    static const char *const nowhere[] = {"",    "7",    "@a",   "7@",    "-1@a", "+1@a",
                                          "x@a", "1x@a", " 1@a", "a@1@b", "18446744073709551616@a"};
    assert_true(leads("0@a", "a", 0));
    assert_true(leads("12@order-7", "order-7", 12));
    assert_true(leads("3@me@home", "me@home", 3));
    assert_true(leads("3@@", "@", 3));
    assert_true(leads("18446744073709551615@a", "a", UINT64_MAX));
    for (size_t i = 0; i < sizeof nowhere / sizeof nowhere[0]; i++) {
        deed_str to = DEED_STR("kept");
        uint64_t at = 42;
        assert_false(store_link_parse(deed_bytes_of(deed_str_of(nowhere[i])), &to, &at));
        assert_true(deed_str_equal(to, DEED_STR("kept")) && at == 42);
    }
    deed_str to;
    uint64_t at;
    assert_false(store_link_parse((deed_bytes){0}, &to, &at));
}

TEST(virtual, a_place_is_told_as_the_link_that_would_stand_there)
{
    start_orders();
    static char data[STORE_LINK_DATA_SIZE_MAX];
    struct deed_read_options how = {.stream = orders, .from_revision = 2};
    struct deed_event e;
    expect_ok(store_read(store, &how, &cursor, &err));
    expect_ok(cursor_next(cursor, &e, &err));
    struct deed_event link = store_link_event(store, &e, data);
    assert_true(deed_str_equal(link.stream, orders));
    assert_int_equal(link.revision, 2);
    assert_int_equal(link.position, e.position);
    assert_int_equal(link.time_ns, e.time_ns);
    assert_int_equal(link.recorded_at_ns, e.recorded_at_ns);
    assert_true(deed_str_equal(link.type, DEED_STR("$>")));
    assert_true(deed_str_equal(link.content_type, DEED_STR("application/octet-stream")));
    assert_int_equal(link.data.len, strlen("1@order-1"));
    assert_memory_equal(link.data.ptr, "1@order-1", link.data.len);
    assert_true(uuid_equal(link.id, store_link_id(store, orders, 2)));
    assert_null(link.link_stream.ptr);
    cursor_close(cursor);
    cursor = NULL;
    finish();
}

/* ---- places stay ---------------------------------------------------------------------------- */

#define MANY 3000

/* Enough for merged runs: every third event is of category c, every fifth begins a stream. */
static void say_many(unsigned first, unsigned count)
{
    static uint8_t data[1200];
    memset(data, ' ', sizeof data);
    data[0] = '1';
    for (unsigned i = first; i < first + count; i++) {
        char name[32];
        (void)snprintf(name, sizeof name, "%s-%u", i % 3 == 0 ? "c" : "d", i / 5);
        struct deed_new_event e = {.stream = deed_str_of(name),
                                   .type = i % 7 == 0 ? DEED_STR("Seventh") : DEED_STR("Other"),
                                   .data = {data, sizeof data}};
        say_event(e);
    }
}

/* Each virtual stream is what a scan of the log finds. */
static void expect_as_scanned(deed_str stream, bool (*belongs)(const struct deed_event *))
{
    struct deed_cursor *scan;
    struct deed_read_options all = {.filter.system = true};
    struct deed_read_options how = {.stream = stream};
    struct deed_event a, b;
    uint64_t place = 0;
    expect_ok(store_read(store, &all, &scan, &err));
    expect_ok(store_read(store, &how, &cursor, &err));
    while (cursor_next(scan, &a, &err) == DEED_OK) {
        if (!belongs(&a)) continue;
        expect_ok(cursor_next(cursor, &b, &err));
        assert_int_equal(a.position, b.position);
        assert_int_equal(b.link_revision, place);
        place++;
    }
    expect_status(DEED_END, cursor_next(cursor, &b, &err));
    assert_true(place > 0);
    cursor_close(scan);
    cursor_close(cursor);
    how.backwards = true;
    how.from_revision = DEED_NONE;
    expect_ok(store_read(store, &how, &cursor, &err));
    for (; place > 0; place--) {
        expect_ok(cursor_next(cursor, &b, &err));
        assert_int_equal(b.link_revision, place - 1);
        assert_true(belongs(&b));
    }
    expect_status(DEED_END, cursor_next(cursor, &b, &err));
    cursor_close(cursor);
}

static bool is_c(const struct deed_event *e)
{
    return e->stream.len > 2 && memcmp(e->stream.ptr, "c-", 2) == 0;
}
static bool is_seventh(const struct deed_event *e)
{
    return deed_str_equal(e->type, DEED_STR("Seventh"));
}
static bool is_first(const struct deed_event *e)
{
    return e->revision == 0 && e->stream.ptr[0] != '$';
}

static void expect_all_as_scanned(void)
{
    expect_as_scanned(DEED_STR("$ce-c"), is_c);
    expect_as_scanned(DEED_STR("$et-Seventh"), is_seventh);
    expect_as_scanned(DEED_STR("$streams"), is_first);
}

TEST(virtual, places_stay_through_sealing_merging_and_restarts)
{
    start();
    for (unsigned i = 0; i < MANY; i += MANY / 4) {
        say_many(i, MANY / 4);
        expect_all_as_scanned();
        settle();
        expect_all_as_scanned();
        reopen();
        expect_all_as_scanned();
    }
    crash();
    open_store();
    expect_all_as_scanned();
    struct store_metrics metrics;
    store_get_metrics(store, &metrics);
    assert_true(metrics.runs > 4);
    finish();
}

/* Followers in threads of their own, while runs are written and merged under them. */
struct follower {
    deed_str stream;
    bool (*belongs)(const struct deed_event *);
    uint64_t wanted, seen;
};

static void *follow(void *context)
{
    struct follower *f = context;
    struct deed_cursor *mine = NULL;
    struct deed_error trouble;
    struct deed_event e;
    uint64_t last = 0;
    struct deed_read_options how = {.stream = f->stream, .follow = true};
    expect_ok(store_read(store, &how, &mine, &trouble));
    while (f->seen < f->wanted) {
        deed_status status = cursor_next(mine, &e, &trouble);
        if (status == DEED_END) {
            status = cursor_wait(mine, 20000, &trouble);
            if (status != DEED_OK) fail_msg("after %u: %s", (unsigned)f->seen, trouble.message);
            continue;
        }
        expect_ok(status);
        assert_int_equal(e.link_revision, f->seen);
        assert_true(e.position > last);
        assert_true(f->belongs(&e));
        last = e.position;
        f->seen++;
    }
    cursor_close(mine);
    return NULL;
}

TEST(virtual, followers_in_threads_miss_nothing)
{
    struct follower followers[] = {
        {DEED_STR("$ce-c"), is_c, MANY / 3, 0},
        {DEED_STR("$et-Seventh"), is_seventh, MANY / 7, 0},
        {DEED_STR("$streams"), is_first, 2 * MANY / 5, 0},
    };
    enum { COUNT = sizeof followers / sizeof followers[0] };
    pthread_t threads[COUNT];
    start_here();
    for (int i = 0; i < COUNT; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, follow, &followers[i]), 0);
    }
    for (unsigned i = 0; i < MANY; i += MANY / 10) {
        struct deed_new_event refused = said("c-never", "x");
        say_many(i, MANY / 10);
        expect_status(DEED_CONFLICT, append_if(refused, at_revision("c-never", 7)));
    }
    for (int i = 0; i < COUNT; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
        assert_int_equal(followers[i].seen, followers[i].wanted);
    }
    finish();
}

/* ---- runs of before first events were indexed ------------------------------------------------ */

#define RUN_DIR ROOT "/index"

/* Say in the footers of all runs that they do not know first events. */
static unsigned make_runs_old(void)
{
    struct picture p;
    unsigned count = 0;
    picture_take(&p, os, RUN_DIR);
    for (size_t i = 0; i < p.count; i++) {
        struct picture_file *f = &p.files[i];
        struct run_footer footer;
        uint64_t number = f->size / BLOCK_SIZE - 1;
        expect_ok(run_footer_decode(f->bytes + number * BLOCK_SIZE, number, &footer, &err));
        assert_int_equal(footer.terms_known, RUN_KNOWS_ALL);
        footer.terms_known = 0;
        run_footer_encode(&footer, number, f->bytes + number * BLOCK_SIZE);
        count++;
    }
    picture_put(&p, os, RUN_DIR);
    picture_done(&p);
    os_sim_drop_cache(sim);
    return count;
}

TEST(virtual, an_index_of_before_is_made_again_while_all_else_is_read)
{
    start();
    say_many(0, 600);
    settle();
    close_store();
    assert_true(make_runs_old() > 2);
    open_store();
    expect_as_scanned(DEED_STR("$ce-c"), is_c);
    expect_words("DEED_BUSY", .stream = DEED_STR("$streams"));
    expect_message(err, "is being rebuilt: it does not know streams' first events yet");
    settle();
    expect_all_as_scanned();
    struct store_metrics metrics;
    store_get_metrics(store, &metrics);
    assert_true(metrics.runs_rebuilt > 2);
    reopen();
    expect_all_as_scanned();
    store_get_metrics(store, &metrics);
    assert_int_equal(metrics.runs_rebuilt, 0);
    finish();
}

static void rot_newest_sealed(void)
{
    struct picture p;
    char newest[64] = "", path[128];
    picture_take(&p, os, ROOT "/log");
    for (size_t i = 0; i < p.count; i++) {
        if (strstr(p.files[i].name, ".sealed") == NULL) continue;
        if (strcmp(p.files[i].name, newest) > 0) strcpy(newest, p.files[i].name);
    }
    picture_done(&p);
    (void)snprintf(path, sizeof path, ROOT "/log/%s", newest);
    expect_ok(os_sim_rot(sim, path, 4096 * 3 + 77, OS_SIM_ROT_FLIP));
    os_sim_drop_cache(sim);
}

/* One that the log cannot give again is used as it is, and does not keep the others from it. */
TEST(virtual, an_index_of_before_over_damage_stays)
{
    start();
    say_many(0, 600);
    settle();
    close_store();
    (void)make_runs_old();
    open_store();
    rot_newest_sealed();
    settle();
    struct store_metrics metrics;
    store_get_metrics(store, &metrics);
    assert_true(metrics.runs_rebuilt > 2);
    expect_words("DEED_BUSY", .stream = DEED_STR("$streams"));
    say_many(600, 600); /* nor does what it is merged into know more */
    settle();
    store_get_metrics(store, &metrics);
    assert_true(metrics.runs_merged > 1);
    expect_words("DEED_BUSY", .stream = DEED_STR("$streams"));
    finish();
}

/* ---- damage and errors ---------------------------------------------------------------------- */

static uint64_t sector_of(uint64_t position)
{
    return position * 4096;
}

TEST(virtual, a_failed_read_skips_nothing)
{
    start_orders();
    struct deed_event e;
    for (int backwards = 0; backwards < 2; backwards++) {
        struct deed_read_options how = {.stream = orders,
                                        .backwards = backwards == 1,
                                        .from_revision = backwards == 1 ? DEED_NONE : 0};
        expect_ok(store_read(store, &how, &cursor, &err));
        os_sim_fail(sim, OS_SIM_READ, 1, 1, EIO);
        expect_status(DEED_IO, cursor_next(cursor, &e, &err));
        expect_status(DEED_IO, cursor_next(cursor, &e, &err));
        assert_string_equal(links_of(orders), backwards == 1 ? "3:six 2:four 1:three 0:one"
                                                             : "0:one 1:three 2:four 3:six");
        os_sim_heal(sim);
        cursor_close(cursor);
    }
    finish();
}

TEST(virtual, a_damaged_event_is_told_and_keeps_its_place)
{
    start_orders();
    expect_ok(os_sim_rot(sim, SEGMENT(1), sector_of(4) + 120, OS_SIM_ROT_FLIP));
    os_sim_drop_cache(sim);
    expect_links("0:one !4 2:four 3:six", .stream = orders);
    expect_links("3:six 2:four !4 0:one", .stream = orders, .backwards = true,
                 .from_revision = DEED_NONE);
    expect_links("0:two", .stream = DEED_STR("$ce-bill"));
    finish();
}

/* What was lost before opening is not in the list: the read tells where, and places behind it are
 * lower than they were. */
TEST(virtual, a_lost_range_is_told_once_by_each_read)
{
    start_orders();
    close_store();
    expect_ok(os_sim_rot(sim, SEGMENT(1), sector_of(4) + 120, OS_SIM_ROT_FLIP));
    os_sim_drop_cache(sim);
    open_store();
    expect_links("0:one !4 1:four 2:six", .stream = orders);
    expect_links("!4 1:four 2:six", .stream = orders, .from_revision = 1);
    expect_links("2:six", .stream = orders, .from_revision = 2);
    expect_links("2:six 1:four !4 0:one", .stream = orders, .backwards = true,
                 .from_revision = DEED_NONE);
    expect_links("!4 0:one", .stream = orders, .backwards = true, .from_revision = 0);
    expect_links("0:two !4", .stream = DEED_STR("$ce-bill"));
    expect_links("!4 0:two", .stream = DEED_STR("$ce-bill"), .backwards = true,
                 .from_revision = DEED_NONE);
    expect_links("0:two", .stream = DEED_STR("$ce-bill"), .until_position = 3);
    /* A stream that has nothing may have had something there. */
    assert_string_equal(read_links(&(struct deed_read_options){.stream = DEED_STR("$ce-x")}),
                        "DEED_CORRUPT");
    struct deed_read_options how = {.stream = orders, .follow = true, .from_revision = 9};
    expect_ok(store_read(store, &how, &cursor, &err));
    assert_string_equal(links_of(orders), "");
    cursor_close(cursor);
    finish();
}

/* ---- what it costs -------------------------------------------------------------------------- */

static uint64_t blocks_asked(void)
{
    struct store_metrics m;
    store_get_metrics(store, &m);
    return m.cache_hits + m.cache_misses;
}

/* Blocks of the index and the log's tables that reading one event of a category takes. */
static uint64_t cost_of(uint64_t place)
{
    struct deed_read_options how = {
        .stream = DEED_STR("$ce-c"), .from_revision = place, .count_max = 1};
    struct deed_event e;
    uint64_t before = blocks_asked();
    expect_ok(store_read(store, &how, &cursor, &err));
    expect_ok(cursor_next(cursor, &e, &err));
    assert_int_equal(e.link_revision, place);
    cursor_close(cursor);
    return blocks_asked() - before;
}

TEST(virtual, the_cost_of_a_place_does_not_grow_with_it)
{
    enum { EVENTS = 200000, BATCH = 2000 };
    static struct deed_new_event events[BATCH];
    start_machine(1);
    options.segment_size = 4 << 20;
    open_store();
    for (unsigned i = 0; i < EVENTS; i += BATCH) {
        for (unsigned k = 0; k < BATCH; k++) events[k] = said("c-1", "x");
        expect_ok(append_all(events, BATCH, NULL, 0));
    }
    settle();
    struct store_metrics m;
    store_get_metrics(store, &m);
    uint64_t first = cost_of(0), last = cost_of(EVENTS - 1);
    for (unsigned place = 0; place < EVENTS; place += EVENTS / 37) {
        uint64_t cost = cost_of(place);
        /* For each run its entry, and then a group: nothing that grows with the place. */
        if (cost > m.runs * 8 + 24) fail_msg("place %u: %u blocks", place, (unsigned)cost);
    }
    if (last > first + m.runs * 8) fail_msg("%u, then %u blocks", (unsigned)first, (unsigned)last);
    finish();
}

TEST_MAIN(virtual)
