/* test_groups.c - consumer groups, told on a simulated machine without threads.
 *
 * sanitize: asan */
#include "groups/groups.h"
#include "base/uuid.h"
#include "store_fixture.h"

static struct groups *groups;
static struct group_settings settings;
static struct groups_options groups_options_;

#define SEATS 4
#define HELD  256

/* A consumer, and what it took and has not answered. */
static struct seat {
    struct group_consumer *consumer;
    struct {
        deed_uuid id;
        char word[32];
    } held[HELD];
    size_t held_count;
    unsigned woken;
} seats[SEATS];

static void woken(void *context)
{
    ((struct seat *)context)->woken++;
}

/* Everything that is to be done is done. */
static void pump(void)
{
    for (unsigned i = 0; i < 10000; i++) {
        bool more = groups_step(groups) == ACTOR_AGAIN;
        if (!store_step(store) && !more) return;
    }
    fail_msg("there is always something to do");
}

static void open_groups(void)
{
    groups_options_.no_threads = true;
    if (groups_open(store, &groups_options_, &groups, &err) != DEED_OK) fail_msg("%s", err.message);
}

static void begin(void)
{
    start();
    open_groups();
    group_settings_default(&settings);
    settings.start = GROUP_FROM_START;
}

static void seats_clear(void)
{
    for (size_t i = 0; i < SEATS; i++) {
        groups_leave(seats[i].consumer);
        seats[i] = (struct seat){0};
    }
}

static void end(void)
{
    seats_clear();
    groups_close(groups);
    groups = NULL;
    groups_options_ = (struct groups_options){0};
    finish();
}

static void restart(void)
{
    seats_clear();
    groups_close(groups);
    reopen();
    open_groups();
}

static void power_cut(void)
{
    os_sim_crash(sim);
    seats_clear();
    groups_close(groups);
    close_store();
    open_store();
    open_groups();
}

#define S DEED_STR("order-1")
#define G DEED_STR("mailer")

static void create(void)
{
    if (groups_create(groups, S, G, &settings, &err) != DEED_OK) fail_msg("%s", err.message);
}

static void create_all(const char *filter)
{
    settings.filter = deed_str_of(filter);
    if (groups_create(groups, DEED_STR(GROUPS_ALL), G, &settings, &err) != DEED_OK) {
        fail_msg("%s", err.message);
    }
}

/* Progress is saved at so many events; 0: not by their number. */
static void checkpoint(uint32_t count_min, uint32_t count_max)
{
    settings.checkpoint_count_min = count_min;
    settings.checkpoint_count_max = count_max;
}

static deed_status try_join_on(unsigned seat, deed_str source, uint32_t buffer_size)
{
    struct group_consumer_options how = {.buffer_size = buffer_size,
                                             .wake = woken,
                                             .context = &seats[seat],
                                             .from = DEED_STR("127.0.0.1:1"),
                                             .name = DEED_STR("reader")};
    return groups_join(groups, source, G, &how, &seats[seat].consumer, &err);
}

static void join(unsigned seat, uint32_t buffer_size)
{
    if (try_join_on(seat, S, buffer_size) != DEED_OK) fail_msg("join: %s", err.message);
}

static void join_all(unsigned seat, uint32_t buffer_size)
{
    if (try_join_on(seat, DEED_STR(GROUPS_ALL), buffer_size) != DEED_OK) {
        fail_msg("join: %s", err.message);
    }
}

static void leave(unsigned seat)
{
    groups_leave(seats[seat].consumer);
    seats[seat] = (struct seat){0};
}

static void word_of(const struct group_message *m, char *out, size_t size)
{
    const struct deed_event *e = m->event;
    char retry[16] = "";
    if (m->retry_count > 0) (void)snprintf(retry, sizeof retry, "*%u", m->retry_count);
    if (e == NULL) {
        (void)snprintf(out, size, "gone%s", retry);
    } else if (e->data.ptr[0] == '"') {
        (void)snprintf(out, size, "%.*s%s", (int)e->data.len - 2, (const char *)e->data.ptr + 1,
                       retry);
    } else {
        (void)snprintf(out, size, "%.*s%s", (int)e->data.len, (const char *)e->data.ptr, retry);
    }
}

/* What the consumer is given now: "one two*1", with how often it was delivered before. */
static const char *take(unsigned seat)
{
    static char sentence[SENTENCE_SIZE];
    struct seat *s = &seats[seat];
    size_t len = 0;
    size_t count = 1;
    sentence[0] = '\0';
    pump();
    while (count > 0) {
        struct group_message m;
        deed_status status = groups_take(s->consumer, &m, 1, 1, &count, &err);
        if (status != DEED_OK) return deed_status_name(status);
        if (count == 0) break;
        char word[64];
        word_of(&m, word, sizeof word);
        sentence_add(sentence, &len, word, strlen(word));
        if (strchr(word, '*') != NULL) *strchr(word, '*') = '\0';
        size_t at = 0;
        while (at < s->held_count && strcmp(s->held[at].word, word) != 0) at++;
        if (at == s->held_count) s->held_count++;
        s->held[at].id = m.id;
        (void)snprintf(s->held[at].word, sizeof s->held[at].word, "%.31s", word);
        group_message_done(&m);
    }
    return sentence;
}

static deed_uuid held(unsigned seat, const char *word)
{
    for (size_t i = 0; i < seats[seat].held_count; i++) {
        if (strcmp(seats[seat].held[i].word, word) == 0) return seats[seat].held[i].id;
    }
    fail_msg("consumer %u never had \"%s\"", seat, word);
    return (deed_uuid){{0}};
}

static size_t ack(unsigned seat, const char *word)
{
    deed_uuid id = held(seat, word);
    return groups_ack(seats[seat].consumer, &id, 1);
}

static size_t nack(unsigned seat, const char *word, enum group_nack action)
{
    deed_uuid id = held(seat, word);
    return groups_nack(seats[seat].consumer, &id, 1, action, DEED_STR("because"));
}

static void ack_all(unsigned seat)
{
    for (size_t i = 0; i < seats[seat].held_count; i++) {
        (void)groups_ack(seats[seat].consumer, &seats[seat].held[i].id, 1);
    }
    seats[seat].held_count = 0;
}

#define expect_take(seat, words) assert_string_equal(take(seat), words)

static struct group_info info_of(deed_str source)
{
    static struct arena arena;
    struct group_info info;
    arena_reset(&arena);
    arena.total_max = SIZE_MAX;
    if (groups_info(groups, source, G, &arena, &info, &err) != DEED_OK) fail_msg("%s", err.message);
    return info;
}

static void say_many(const char *stream, unsigned from, unsigned count)
{
    for (unsigned i = from; i < from + count; i++) {
        char word[16];
        (void)snprintf(word, sizeof word, "%u", i);
        say(stream, word);
    }
}

static char parked_text[4096];

static bool list_parked(void *context, const struct group_parked *p)
{
    size_t *len = context;
    char text[256];
    int size = snprintf(text, sizeof text, "%llu:%.*s(%.*s)", (unsigned long long)p->number,
                        p->event == NULL ? 4 : (int)p->event->data.len - 2,
                        p->event == NULL ? "gone" : (const char *)p->event->data.ptr + 1,
                        DEED_FMT(p->reason));
    sentence_add(parked_text, len, text, (size_t)size);
    return true;
}

static const char *parked(void)
{
    size_t len = 0;
    parked_text[0] = '\0';
    pump();
    expect_ok(groups_parked(groups, S, G, 0, list_parked, &len, &err));
    return parked_text;
}

/* ---- delivering ------------------------------------------------------------------------------- */

TEST(groups, a_group_delivers_each_event_once)
{
    begin();
    say("order-1", "one");
    say("order-2", "elsewhere");
    say("order-1", "two");
    create();
    join(0, 10);
    expect_take(0, "one two");
    assert_int_equal(ack(0, "one"), 1);
    assert_int_equal(ack(0, "one"), 0);
    say("order-1", "three");
    expect_take(0, "three");
    expect_take(0, "");
    end();
}

TEST(groups, a_consumer_is_woken_when_there_is_something)
{
    begin();
    create();
    join(0, 10);
    pump();
    assert_int_equal(seats[0].woken, 0);
    say("order-1", "one");
    pump();
    assert_int_equal(seats[0].woken, 1);
    expect_take(0, "one");
    end();
}

TEST(groups, a_consumer_has_no_more_than_its_buffer)
{
    begin();
    say_many("order-1", 1, 5);
    create();
    join(0, 2);
    expect_take(0, "1 2");
    expect_take(0, "");
    ack(0, "2");
    expect_take(0, "3");
    ack(0, "1");
    ack(0, "3");
    expect_take(0, "4 5");
    end();
}

TEST(groups, a_group_begins_where_it_was_told)
{
    begin();
    say_many("order-1", 0, 4);
    settings.start = GROUP_FROM;
    settings.from = 2;
    create();
    join(0, 10);
    expect_take(0, "2 3");
    end();
}

TEST(groups, from_the_end_means_what_comes_after_its_creation)
{
    begin();
    say("order-1", "before");
    settings.start = GROUP_FROM_END;
    create();
    say("order-1", "after");
    restart(); /* it does not begin anew at the end */
    join(0, 10);
    expect_take(0, "after");
    end();
}

TEST(groups, a_group_waits_for_a_stream_that_is_not_there)
{
    begin();
    create();
    join(0, 10);
    expect_take(0, "");
    say("order-1", "first");
    expect_take(0, "first");
    end();
}

TEST(groups, round_robin_gives_to_each_in_turn)
{
    begin();
    say_many("order-1", 1, 6);
    create();
    join(0, 10);
    join(1, 10);
    expect_take(0, "1 3 5");
    expect_take(1, "2 4 6");
    end();
}

TEST(groups, dispatch_to_single_fills_one_first)
{
    begin();
    say_many("order-1", 1, 4);
    settings.strategy = GROUP_DISPATCH_TO_SINGLE;
    create();
    join(0, 3);
    join(1, 3);
    expect_take(0, "1 2 3");
    expect_take(1, "4");
    ack_all(0);
    say("order-1", "5");
    expect_take(0, "5");
    end();
}

TEST(groups, the_log_is_delivered_without_the_systems_streams)
{
    begin();
    say("a-1", "one");
    create_all(NULL);
    say("b-1", "two");
    join_all(0, 10);
    expect_take(0, "one two");
    ack_all(0);
    expect_take(0, "");
    end();
}

TEST(groups, a_filter_lets_pass_what_it_says)
{
    begin();
    create_all("{\"categories\":[\"a\"]}");
    say("a-1", "one");
    say("b-1", "two");
    say("a-2", "three");
    join_all(0, 10);
    expect_take(0, "one three");
    end();
}

TEST(groups, a_position_is_where_it_begins_inclusive)
{
    begin();
    say("a-1", "one");
    say("a-1", "two");
    uint64_t position = appended.position;
    say("a-1", "three");
    settings.start = GROUP_FROM;
    settings.from = position;
    create_all(NULL);
    join_all(0, 10);
    expect_take(0, "two three");
    end();
}

/* ---- giving back ---------------------------------------------------------------------------------- */

TEST(groups, what_is_given_back_comes_again)
{
    begin();
    say_many("order-1", 1, 2);
    create();
    join(0, 10);
    expect_take(0, "1 2");
    assert_int_equal(nack(0, "1", GROUP_NACK_RETRY), 1);
    expect_take(0, "1*1");
    nack(0, "1", GROUP_NACK_UNKNOWN);
    expect_take(0, "1*2");
    end();
}

TEST(groups, skipping_is_being_done)
{
    begin();
    say_many("order-1", 1, 2);
    create();
    join(0, 1);
    expect_take(0, "1");
    nack(0, "1", GROUP_NACK_SKIP);
    expect_take(0, "2");
    assert_int_equal(info_of(S).parked_count, 0);
    end();
}

TEST(groups, stop_leaves_it_where_it_is)
{
    begin();
    say("order-1", "1");
    create();
    join(0, 10);
    expect_take(0, "1");
    nack(0, "1", GROUP_NACK_STOP);
    expect_take(0, "");
    leave(0);
    join(1, 10);
    expect_take(1, "1*1");
    end();
}

TEST(groups, what_failed_too_often_is_parked)
{
    begin();
    say_many("order-1", 1, 2);
    settings.retry_count_max = 1;
    create();
    join(0, 1);
    expect_take(0, "1");
    nack(0, "1", GROUP_NACK_RETRY);
    expect_take(0, "1*1");
    nack(0, "1", GROUP_NACK_RETRY);
    expect_take(0, "2");
    assert_string_equal(parked(), "0:1(because)");
    end();
}

TEST(groups, what_is_not_acknowledged_in_time_comes_again)
{
    begin();
    say_many("order-1", 1, 2);
    settings.message_timeout_ms = 5000;
    create();
    join(0, 10);
    expect_take(0, "1 2");
    os_sim_advance(sim, 4 * SECOND);
    ack(0, "2");
    expect_take(0, "");
    os_sim_advance(sim, 2 * SECOND);
    expect_take(0, "1*1");
    end();
}

TEST(groups, without_a_timeout_nothing_comes_again_by_itself)
{
    begin();
    say("order-1", "1");
    settings.message_timeout_ms = 0;
    create();
    join(0, 10);
    expect_take(0, "1");
    os_sim_advance(sim, 100000 * SECOND);
    expect_take(0, "");
    end();
}

TEST(groups, an_acknowledgement_counts_after_the_time_if_nobody_else_has_it)
{
    begin();
    say_many("order-1", 1, 2);
    settings.message_timeout_ms = 1000;
    create();
    join(0, 1);
    expect_take(0, "1");
    os_sim_advance(sim, 2 * SECOND);
    pump(); /* it is in the outbox again */
    assert_int_equal(ack(0, "1"), 1);
    expect_take(0, "2");
    end();
}

TEST(groups, what_a_consumer_had_goes_to_others_when_it_leaves)
{
    begin();
    say_many("order-1", 1, 4);
    create();
    join(0, 10);
    join(1, 10);
    expect_take(0, "1 3");
    ack(0, "3");
    leave(0);
    expect_take(1, "2 4 1*1");
    end();
}

TEST(groups, leaving_parks_nothing)
{
    begin();
    say("order-1", "1");
    settings.retry_count_max = 0;
    create();
    join(0, 10);
    expect_take(0, "1");
    leave(0);
    join(0, 10);
    expect_take(0, "1*1");
    nack(0, "1", GROUP_NACK_RETRY);
    expect_take(0, "");
    assert_string_equal(parked(), "0:1(because)");
    end();
}

TEST(groups, who_asks_now_and_then_has_only_what_it_wants)
{
    begin();
    say_many("order-1", 1, 5);
    create();
    struct group_consumer_options how = {.buffer_size = 4, .on_demand = true};
    expect_ok(groups_join(groups, S, G, &how, &seats[0].consumer, &err));
    expect_take(0, "");
    groups_want(seats[0].consumer, 2);
    expect_take(0, "1 2");
    groups_want(seats[0].consumer, 10);
    expect_take(0, "3 4"); /* its buffer */
    ack_all(0);
    say("order-1", "6");
    expect_take(0, "5 6"); /* it wanted ten, and had four */
    ack_all(0);
    groups_want(seats[0].consumer, 1);
    say("order-1", "7");
    pump();
    groups_want(seats[0].consumer, 0); /* it did not wait for it */
    join(1, 10);
    expect_take(1, "7");
    end();
}

TEST(groups, who_asks_for_nothing_any_more_is_dropped)
{
    begin();
    say("order-1", "1");
    settings.strategy = GROUP_PINNED;
    settings.message_timeout_ms = 5000;
    create();
    struct group_consumer_options how = {.buffer_size = 4, .on_demand = true};
    expect_ok(groups_join(groups, S, G, &how, &seats[0].consumer, &err));
    groups_want(seats[0].consumer, 1);
    expect_take(0, "1");
    join(1, 10);
    os_sim_advance(sim, 40 * SECOND); /* the time for 1 has passed */
    pump();
    os_sim_advance(sim, 2 * SECOND);
    pump();
    assert_true(groups_dropped(seats[0].consumer));
    expect_take(1, "1*1");
    end();
}

static bool answer_late(deed_status (*answer)(const deed_uuid *id, size_t *out_done))
{
    size_t done = 0;
    begin();
    say("order-1", "1");
    create();
    struct group_consumer_options how = {.buffer_size = 4, .on_demand = true, .name = DEED_STR("m")};
    expect_ok(groups_join(groups, S, G, &how, &seats[0].consumer, &err));
    groups_want(seats[0].consumer, 1);
    expect_take(0, "1");
    os_sim_advance(sim, 29 * SECOND); /* as long as it may take */
    deed_uuid id = held(0, "1");
    expect_ok(answer(&id, &done));
    assert_int_equal(done, 1);
    os_sim_advance(sim, 2 * SECOND);
    pump();
    bool dropped = groups_dropped(seats[0].consumer);
    os_sim_advance(sim, 30 * SECOND);
    pump();
    assert_true(groups_dropped(seats[0].consumer));
    end();
    return !dropped;
}

static deed_status say_done(const deed_uuid *id, size_t *out_done)
{
    return groups_ack_by_name(groups, S, G, DEED_STR("m"), id, 1, out_done, &err);
}

static deed_status say_skip(const deed_uuid *id, size_t *out_done)
{
    return groups_nack_by_name(groups, S, G, DEED_STR("m"), id, 1, GROUP_NACK_SKIP, DEED_STR(""),
                               out_done, &err);
}

TEST(groups, who_answers_is_not_dropped_whatever_the_answer_is)
{
    assert_true(answer_late(say_done));
    assert_true(answer_late(say_skip));
}

TEST(groups, answers_by_a_consumers_name)
{
    size_t done = 0;
    begin();
    say_many("order-1", 1, 2);
    create();
    join(0, 10);
    expect_take(0, "1 2");
    deed_uuid ids[] = {held(0, "1"), held(0, "2")};
    deed_str nobody = DEED_STR("nobody");
    expect_ok(groups_ack_by_name(groups, S, G, nobody, ids, 2, &done, &err));
    assert_int_equal(done, 0);
    expect_ok(groups_ack_by_name(groups, S, G, DEED_STR("reader"), ids, 1, &done, &err));
    assert_int_equal(done, 1);
    expect_ok(groups_nack_by_name(groups, S, G, DEED_STR("reader"), ids, 2, GROUP_NACK_RETRY,
                                  DEED_STR(""), &done, &err));
    assert_int_equal(done, 1);
    expect_take(0, "2*1");
    expect_status(DEED_NOT_FOUND, groups_ack_by_name(groups, DEED_STR("x"), G, nobody, ids, 1,
                                                     &done, &err));
    end();
}

/* ---- in order ------------------------------------------------------------------------------------- */

static void begin_pinned(void)
{
    begin();
    settings.strategy = GROUP_PINNED;
    create_all(NULL);
}

TEST(groups, pinned_streams_stay_with_one_consumer)
{
    begin_pinned();
    join_all(0, 100);
    join_all(1, 100);
    const char *streams[] = {"a-1", "a-2", "a-3", "a-4", "a-5", "a-6", "a-7", "a-8"};
    for (unsigned round = 0; round < 3; round++) {
        for (unsigned i = 0; i < 8; i++) say(streams[i], streams[i]);
    }
    char first[512], second[512];
    (void)snprintf(first, sizeof first, "%s", take(0));
    (void)snprintf(second, sizeof second, "%s", take(1));
    unsigned both = 0;
    for (unsigned i = 0; i < 8; i++) {
        bool in_first = strstr(first, streams[i]) != NULL;
        bool in_second = strstr(second, streams[i]) != NULL;
        assert_true(in_first != in_second);
        both += in_first;
    }
    assert_in_range(both, 1, 7);
    end();
}

TEST(groups, a_retried_event_holds_back_its_stream)
{
    begin_pinned();
    join_all(0, 2);
    say("a-1", "1");
    say("a-1", "2");
    say("a-1", "3");
    expect_take(0, "1 2");
    nack(0, "1", GROUP_NACK_RETRY);
    ack(0, "2");
    say("b-1", "other");
    expect_take(0, "1*1 other");
    ack(0, "other");
    expect_take(0, ""); /* 3 waits for 1 */
    ack(0, "1");
    expect_take(0, "3");
    end();
}

TEST(groups, retries_of_a_stream_are_in_order)
{
    begin_pinned();
    join_all(0, 10);
    say("a-1", "1");
    say("a-1", "2");
    expect_take(0, "1 2");
    nack(0, "2", GROUP_NACK_RETRY);
    expect_take(0, "");
    nack(0, "1", GROUP_NACK_RETRY);
    expect_take(0, "1*1");
    ack(0, "1");
    expect_take(0, "2*1");
    end();
}

TEST(groups, a_stream_moves_only_when_nothing_of_it_is_out)
{
    begin_pinned();
    join_all(0, 2);
    for (unsigned i = 0; i < 10; i++) {
        char stream[16];
        (void)snprintf(stream, sizeof stream, "a-%u", i);
        say(stream, "first");
        say(stream, "second");
    }
    expect_take(0, "first first");
    /* Two streams are with consumer 0; of all others some belong to the newcomers now. */
    for (unsigned seat = 1; seat < SEATS; seat++) join_all(seat, 100);
    for (unsigned seat = 1; seat < SEATS; seat++) {
        const char *words = take(seat);
        size_t firsts = 0, seconds = 0;
        for (const char *w = words; (w = strstr(w, "first")) != NULL; w++) firsts++;
        for (const char *w = words; (w = strstr(w, "second")) != NULL; w++) seconds++;
        assert_int_equal(firsts, seconds); /* whole streams */
    }
    end();
}

TEST(groups, pinned_by_correlation_keeps_what_belongs_together)
{
    begin();
    settings.strategy = GROUP_PINNED_BY_CORRELATION;
    create_all(NULL);
    join_all(0, 100);
    join_all(1, 100);
    for (unsigned i = 0; i < 24; i++) {
        char stream[16], word[16];
        (void)snprintf(stream, sizeof stream, "a-%u", i);
        (void)snprintf(word, sizeof word, "c%u", i % 6);
        struct deed_new_event e = said(stream, word);
        e.correlation_id = deed_str_of(word);
        say_event(e);
    }
    char first[512];
    (void)snprintf(first, sizeof first, "%s", take(0));
    const char *second = take(1);
    for (unsigned i = 0; i < 6; i++) {
        char word[16];
        (void)snprintf(word, sizeof word, "c%u", i);
        assert_true((strstr(first, word) != NULL) != (strstr(second, word) != NULL));
    }
    end();
}

/* ---- parking --------------------------------------------------------------------------------------- */

/* Events 1 to 3 have been given to consumer 0, and are parked. */
static void park_three(void)
{
    static const char *const words[] = {"1", "2", "3"};
    say_many("order-1", 1, 3);
    create();
    join(0, 10);
    expect_take(0, "1 2 3");
    for (size_t i = 0; i < 3; i++) nack(0, words[i], GROUP_NACK_PARK);
    pump();
}

TEST(groups, parked_events_are_listed_and_replayed)
{
    begin();
    say_many("order-1", 1, 3);
    create();
    join(0, 10);
    expect_take(0, "1 2 3");
    nack(0, "1", GROUP_NACK_PARK);
    nack(0, "3", GROUP_NACK_PARK);
    ack(0, "2");
    assert_string_equal(parked(), "0:1(because) 1:3(because)");
    assert_int_equal(info_of(S).parked_count, 2);
    uint64_t count = 0;
    expect_ok(groups_replay_parked(groups, S, G, DEED_NONE, &count, &err));
    assert_int_equal(count, 2);
    expect_take(0, "1 3");
    assert_true(info_of(S).is_replaying);
    expect_status(DEED_BUSY, groups_replay_parked(groups, S, G, DEED_NONE, NULL, &err));
    expect_message(err, "replaying");
    ack(0, "1");
    nack(0, "3", GROUP_NACK_PARK);
    pump();
    assert_string_equal(parked(), "2:3(because)");
    assert_false(info_of(S).is_replaying);
    end();
}

TEST(groups, a_replay_stops_where_it_was_told)
{
    begin();
    park_three();
    expect_ok(groups_replay_parked(groups, S, G, 2, NULL, &err));
    expect_take(0, "1 2");
    ack_all(0);
    assert_string_equal(parked(), "2:3(because)");
    end();
}

TEST(groups, a_crash_amid_a_replay_loses_nothing)
{
    begin();
    say_many("order-1", 1, 2);
    create();
    join(0, 10);
    expect_take(0, "1 2");
    nack(0, "1", GROUP_NACK_PARK);
    nack(0, "2", GROUP_NACK_PARK);
    pump();
    expect_ok(groups_replay_parked(groups, S, G, DEED_NONE, NULL, &err));
    expect_take(0, "1 2");
    ack(0, "2");
    power_cut();
    assert_string_equal(parked(), "0:1(because) 1:2(because)");
    end();
}

TEST(groups, parked_events_can_be_dropped)
{
    begin();
    park_three();
    uint64_t count = 0;
    expect_ok(groups_drop_parked(groups, S, G, 1, &count, &err));
    assert_int_equal(count, 1);
    assert_string_equal(parked(), "1:2(because) 2:3(because)");
    expect_ok(groups_drop_parked(groups, S, G, DEED_NONE, &count, &err));
    assert_int_equal(count, 2);
    assert_string_equal(parked(), "");
    end();
}

TEST(groups, a_replay_is_over_when_what_is_left_of_it_is_dropped)
{
    begin();
    checkpoint(0, 0);
    settings.checkpoint_after_ms = 0;
    park_three();
    expect_ok(groups_replay_parked(groups, S, G, DEED_NONE, NULL, &err));
    expect_take(0, "1 2 3");
    expect_ok(groups_drop_parked(groups, S, G, DEED_NONE, NULL, &err));
    assert_true(info_of(S).is_replaying);
    ack(0, "1");
    ack(0, "2");
    ack(0, "3");
    pump();
    assert_false(info_of(S).is_replaying);
    expect_ok(groups_replay_parked(groups, S, G, DEED_NONE, NULL, &err));
    assert_string_equal(parked(), "");
    end();
}

TEST(groups, an_event_whose_stream_was_hidden_is_replayed_still)
{
    begin();
    say("order-1", "1");
    create();
    join(0, 10);
    expect_take(0, "1");
    nack(0, "1", GROUP_NACK_PARK);
    pump();
    expect_ok(store_delete_stream(store, S, DEED_EXPECT_ANY, 0, false, (deed_str){0}, &appended, &err));
    expect_ok(groups_replay_parked(groups, S, G, DEED_NONE, NULL, &err));
    expect_take(0, "1");
    end();
}

/* ---- links --------------------------------------------------------------------------------------- */

static void link_to(const char *stream, const char *target)
{
    struct deed_new_event e = {.stream = deed_str_of(stream),
                               .type = DEED_STR("$>"),
                               .content_type = DEED_STR("application/octet-stream"),
                               .data = deed_bytes_of(deed_str_of(target))};
    say_event(e);
}

TEST(groups, links_are_resolved_when_asked)
{
    begin();
    say("a-1", "target");
    link_to("order-1", "0@a-1");
    link_to("order-1", "7@a-1");
    settings.resolve_links = true;
    create();
    join(0, 10);
    expect_take(0, "target gone");
    assert_int_equal(ack(0, "target"), 1); /* by the link's id */
    assert_int_equal(ack(0, "gone"), 1);
    end();
}

TEST(groups, links_are_delivered_as_they_are_otherwise)
{
    begin();
    say("a-1", "target");
    link_to("order-1", "0@a-1");
    create();
    join(0, 10);
    expect_take(0, "0@a-1");
    end();
}

static void begin_category(bool resolve)
{
    begin();
    settings.resolve_links = resolve;
    expect_ok(groups_create(groups, DEED_STR("$ce-a"), G, &settings, &err));
    say("a-1", "one");
    say("b-1", "other");
    say("a-2", "two");
    expect_ok(try_join_on(0, DEED_STR("$ce-a"), 10));
}

TEST(groups, a_virtual_stream_is_delivered_as_links)
{
    begin_category(false);
    expect_take(0, "0@a-1 0@a-2");
    deed_uuid id = store_link_id(store, DEED_STR("$ce-a"), 1);
    assert_int_equal(groups_ack(seats[0].consumer, &id, 1), 1);
    end();
}

TEST(groups, a_virtual_stream_is_resolved_and_its_checkpoint_counts_in_it)
{
    begin_category(true);
    expect_take(0, "one two");
    ack(0, "one");
    leave(0);
    restart();
    assert_int_equal(info_of(DEED_STR("$ce-a")).checkpoint, 0);
    expect_ok(try_join_on(0, DEED_STR("$ce-a"), 10));
    expect_take(0, "two");
    nack(0, "two", GROUP_NACK_PARK);
    pump();
    expect_ok(groups_replay_parked(groups, DEED_STR("$ce-a"), G, DEED_NONE, NULL, &err));
    expect_take(0, "two");
    end();
}

/* ---- progress -------------------------------------------------------------------------------------- */

TEST(groups, progress_is_saved_after_a_while_if_there_is_enough)
{
    begin();
    say_many("order-1", 1, 20);
    create();
    join(0, 100);
    (void)take(0);
    for (unsigned i = 0; i < 9; i++) ack(0, (const char *[]){"1", "2", "3", "4", "5", "6", "7", "8", "9"}[i]);
    os_sim_advance(sim, 3 * SECOND);
    pump();
    assert_int_equal(info_of(S).checkpoint, DEED_NONE);
    ack(0, "10");
    pump();
    assert_int_equal(info_of(S).checkpoint, 9);
    ack(0, "12");
    ack(0, "13");
    power_cut();
    join(0, 100);
    expect_take(0, "11 12 13 14 15 16 17 18 19 20");
    end();
}

TEST(groups, progress_is_saved_at_once_when_there_is_much)
{
    begin();
    say_many("order-1", 1, 5);
    checkpoint(1, 3);
    create();
    join(0, 100);
    (void)take(0);
    ack(0, "1");
    ack(0, "2");
    pump();
    assert_int_equal(info_of(S).checkpoint, DEED_NONE);
    ack(0, "3");
    pump();
    assert_int_equal(info_of(S).checkpoint, 2);
    end();
}

TEST(groups, a_restart_goes_on_where_it_was)
{
    begin();
    say_many("order-1", 1, 4);
    create();
    join(0, 10);
    (void)take(0);
    ack(0, "1");
    ack(0, "2");
    ack(0, "4");
    restart();
    join(0, 10);
    expect_take(0, "3 4"); /* 4 was done before 3: at least once */
    end();
}

TEST(groups, a_group_on_the_log_does_not_answer_its_own_checkpoints)
{
    begin();
    checkpoint(1, 1);
    create_all("{\"system\":true}");
    join_all(0, 10);
    (void)take(0);
    ack_all(0);
    say("a-1", "one");
    (void)take(0);
    ack_all(0);
    pump();
    uint64_t position = store_position(store);
    os_sim_advance(sim, 10 * SECOND);
    pump();
    assert_int_equal(store_position(store), position);
    end();
}

TEST(groups, a_filter_that_passes_nothing_moves_on_all_the_same)
{
    begin();
    create_all("{\"types\":[\"Never\"]}");
    join_all(0, 10);
    struct deed_new_event events[1000];
    for (unsigned i = 0; i < 1000; i++) events[i] = said("a-1", "x");
    for (unsigned i = 0; i < 12; i++) expect_ok(append_all(events, 1000, NULL, 0));
    pump();
    assert_in_range(info_of(DEED_STR(GROUPS_ALL)).checkpoint, 10000, 12100);
    end();
}

TEST(groups, memory_is_bounded_by_the_buffers)
{
    begin();
    say_many("order-1", 1, 100);
    settings.history_buffer_size = 20;
    settings.live_buffer_size = 20;
    settings.read_batch_size = 5;
    create();
    join(0, 1);
    expect_take(0, "1");
    struct group_info info = info_of(S);
    assert_in_range(info.outstanding_count, 15, 21);
    assert_string_equal(info.status, "Behind");
    for (unsigned i = 2; i <= 100; i++) {
        ack_all(0);
        char word[8];
        (void)snprintf(word, sizeof word, "%u", i);
        expect_take(0, word);
    }
    assert_string_equal(info_of(S).status, "Live");
    end();
}

static char big[256 << 10];

static void say_big(const char *stream, unsigned count)
{
    memset(big, 'x', sizeof big);
    for (unsigned i = 0; i < count; i++) {
        say_event((struct deed_new_event){.stream = deed_str_of(stream),
                                          .type = DEED_STR("T"),
                                          .content_type = DEED_STR("text/plain"),
                                          .data = {(const uint8_t *)big, sizeof big}});
    }
}

static size_t outstanding(deed_str source)
{
    return info_of(source).outstanding_count;
}

/* Take and acknowledge all that comes; how many. */
static size_t drain(unsigned seat)
{
    size_t all = 0;
    for (;;) {
        struct group_message m;
        size_t count = 0;
        pump();
        expect_ok(groups_take(seats[seat].consumer, &m, 1, 1, &count, &err));
        if (count == 0) return all;
        all++;
        (void)groups_ack(seats[seat].consumer, &m.id, 1);
        group_message_done(&m);
    }
}

TEST(groups, large_events_are_read_a_few_at_a_time)
{
    begin();
    say_big("order-1", 40);
    settings.read_batch_size = 100;
    create();
    join(0, 1);
    (void)groups_step(groups);
    assert_int_equal(outstanding(S), 16); /* 4 MiB */
    assert_int_equal(drain(0), 40);
    end();
}

TEST(groups, all_groups_together_hold_no_more_than_they_may)
{
    groups_options_.bytes_max = 16 * sizeof big;
    begin();
    say_big("order-1", 12);
    say_big("order-2", 12);
    settings.read_batch_size = 1;
    create();
    expect_ok(groups_create(groups, DEED_STR("order-2"), G, &settings, &err));
    join(0, 1);
    for (unsigned i = 0; i < 40; i++) (void)groups_step(groups);
    assert_int_equal(outstanding(S), 2); /* an eighth */
    if (try_join_on(1, DEED_STR("order-2"), 1) != DEED_OK) fail_msg("%s", err.message);
    for (unsigned i = 0; i < 40; i++) (void)groups_step(groups);
    assert_int_equal(outstanding(DEED_STR("order-2")), 2);
    assert_int_equal(drain(0), 12);
    assert_int_equal(drain(1), 12);
    end();
}

TEST(groups, a_group_that_holds_nothing_reads_whatever_others_hold)
{
    groups_options_.bytes_max = sizeof big / 2;
    begin();
    say_big("order-1", 3);
    say_big("order-2", 3);
    settings.read_batch_size = 1;
    create();
    expect_ok(groups_create(groups, DEED_STR("order-2"), G, &settings, &err));
    join(0, 1);
    if (try_join_on(1, DEED_STR("order-2"), 1) != DEED_OK) fail_msg("%s", err.message);
    for (unsigned i = 0; i < 20; i++) (void)groups_step(groups);
    assert_int_equal(outstanding(S), 1);
    assert_int_equal(outstanding(DEED_STR("order-2")), 1);
    assert_int_equal(drain(0), 3);
    assert_int_equal(drain(1), 3);
    end();
}

/* ---- care -------------------------------------------------------------------------------------------- */

TEST(groups, a_group_is_created_once)
{
    begin();
    create();
    expect_status(DEED_CONFLICT, groups_create(groups, S, G, &settings, &err));
    expect_message(err, "stream order-1 has a group mailer already");
    end();
}

TEST(groups, settings_that_contradict_each_other_are_refused)
{
    begin();
    settings.read_batch_size = settings.history_buffer_size;
    expect_status(DEED_INVALID, groups_create(groups, S, G, &settings, &err));
    expect_message(err, "read batch size 500 must be smaller");
    settings.read_batch_size = 0;
    expect_status(DEED_INVALID, groups_create(groups, S, G, &settings, &err));
    settings.read_batch_size = 20;
    settings.checkpoint_count_max = 2;
    expect_status(DEED_INVALID, groups_create(groups, S, G, &settings, &err));
    expect_message(err, "is no range");
    group_settings_default(&settings);
    settings.filter = DEED_STR("{}");
    expect_status(DEED_INVALID, groups_create(groups, S, G, &settings, &err));
    expect_message(err, "only a group on $all takes a filter");
    settings.filter = DEED_STR("{\"colour\":1}");
    expect_status(DEED_INVALID, groups_create(groups, DEED_STR(GROUPS_ALL), G, &settings, &err));
    expect_message(err, "member \"colour\" is not known");
    settings.filter = DEED_STR("{\"match\":{}}");
    expect_status(DEED_INVALID, groups_create(groups, DEED_STR(GROUPS_ALL), G, &settings, &err));
    settings.filter = (deed_str){0};
    settings.start = GROUP_FROM;
    settings.from = 1000;
    expect_status(DEED_INVALID, groups_create(groups, DEED_STR(GROUPS_ALL), G, &settings, &err));
    expect_message(err, "beyond the log's end");
    settings.start = GROUP_FROM_START;
    expect_status(DEED_INVALID, groups_create(groups, (deed_str){"", 0}, G, &settings, &err));
    char name[1025];
    memset(name, 'n', sizeof name);
    expect_status(DEED_TOO_LARGE,
                  groups_create(groups, S, (deed_str){name, sizeof name}, &settings, &err));
    end();
}

TEST(groups, a_group_that_is_not_there_is_not_found)
{
    begin();
    struct group_info info;
    struct arena arena;
    size_t len = 0;
    arena_init(&arena, SIZE_MAX);
    expect_status(DEED_NOT_FOUND, groups_update(groups, S, G, &settings, &err));
    expect_message(err, "stream order-1 has no group mailer");
    expect_status(DEED_NOT_FOUND, groups_delete(groups, S, G, &err));
    expect_status(DEED_NOT_FOUND, groups_info(groups, S, G, &arena, &info, &err));
    expect_status(DEED_NOT_FOUND, groups_replay_parked(groups, S, G, DEED_NONE, NULL, &err));
    expect_status(DEED_NOT_FOUND, groups_drop_parked(groups, S, G, DEED_NONE, NULL, &err));
    expect_status(DEED_NOT_FOUND, groups_parked(groups, S, G, 0, list_parked, &len, &err));
    expect_status(DEED_NOT_FOUND, try_join_on(0, S, 1));
    arena_done(&arena);
    end();
}

TEST(groups, a_group_has_as_many_consumers_as_it_may)
{
    begin();
    settings.consumer_count_max = 1;
    create();
    join(0, 1);
    expect_status(DEED_BUSY, try_join_on(1, S, 1));
    expect_message(err, "1 consumers, which is its limit");
    leave(0);
    join(1, 1);
    end();
}

TEST(groups, an_update_drops_consumers_and_goes_on)
{
    begin();
    say_many("order-1", 1, 3);
    create();
    join(0, 1);
    expect_take(0, "1");
    ack(0, "1");
    expect_take(0, "2");
    settings.strategy = GROUP_PINNED;
    settings.retry_count_max = 3;
    expect_ok(groups_update(groups, S, G, &settings, &err));
    expect_take(0, "DEED_STOPPED");
    expect_message(err, "dropped");
    assert_int_equal(ack(0, "2"), 0);
    leave(0);
    restart();
    assert_int_equal(info_of(S).settings.retry_count_max, 3);
    assert_int_equal(info_of(S).settings.strategy, GROUP_PINNED);
    join(0, 10);
    expect_take(0, "2 3");
    end();
}

TEST(groups, an_update_of_a_group_that_never_began_moves_its_beginning)
{
    begin();
    say_many("order-1", 1, 3);
    create();
    settings.start = GROUP_FROM;
    settings.from = 2;
    expect_ok(groups_update(groups, S, G, &settings, &err));
    join(0, 10);
    expect_take(0, "3");
    end();
}

TEST(groups, a_deleted_group_leaves_nothing_to_one_of_its_name)
{
    begin();
    say_many("order-1", 1, 3);
    create();
    join(0, 10);
    expect_take(0, "1 2 3");
    ack(0, "1");
    nack(0, "2", GROUP_NACK_PARK);
    pump();
    leave(0);
    restart();
    assert_int_equal(info_of(S).checkpoint, 1);
    expect_ok(groups_delete(groups, S, G, &err));
    expect_status(DEED_NOT_FOUND, try_join_on(0, S, 1));
    create();
    restart();
    assert_int_equal(info_of(S).checkpoint, DEED_NONE);
    assert_int_equal(info_of(S).parked_count, 0);
    join(0, 10);
    expect_take(0, "1 2 3");
    end();
}

TEST(groups, a_deletion_drops_consumers)
{
    begin();
    create();
    join(0, 10);
    expect_ok(groups_delete(groups, S, G, &err));
    assert_int_equal(seats[0].woken, 1);
    expect_take(0, "DEED_STOPPED");
    end();
}

TEST(groups, a_restart_of_all_drops_consumers_and_keeps_progress)
{
    begin();
    say_many("order-1", 1, 2);
    create();
    join(0, 10);
    expect_take(0, "1 2");
    ack(0, "1");
    groups_restart(groups);
    expect_take(0, "DEED_STOPPED");
    leave(0);
    join(0, 10);
    expect_take(0, "2");
    end();
}

TEST(groups, groups_are_listed_by_stream_and_name)
{
    begin();
    struct arena arena;
    struct group_info *list = NULL;
    size_t count = 0;
    arena_init(&arena, SIZE_MAX);
    expect_ok(groups_create(groups, DEED_STR("b"), DEED_STR("x"), &settings, &err));
    expect_ok(groups_create(groups, DEED_STR("a"), DEED_STR("y"), &settings, &err));
    expect_ok(groups_create(groups, DEED_STR("a"), DEED_STR("x"), &settings, &err));
    expect_ok(groups_list(groups, (deed_str){0}, &arena, &list, &count, &err));
    assert_int_equal(count, 3);
    expect_str(list[0].name, "x");
    expect_str(list[1].name, "y");
    expect_str(list[2].source, "b");
    expect_ok(groups_list(groups, DEED_STR("b"), &arena, &list, &count, &err));
    assert_int_equal(count, 1);
    arena_done(&arena);
    end();
}

TEST(groups, a_group_says_how_it_is)
{
    begin();
    say_many("order-1", 1, 4);
    settings.extra_statistics = true;
    create();
    assert_string_equal(info_of(S).status, "Behind");
    join(0, 2);
    expect_take(0, "1 2");
    os_sim_advance(sim, SECOND / 4);
    ack(0, "1");
    struct group_info info = info_of(S);
    assert_string_equal(info.status, "Live");
    assert_int_equal(info.total, 2);
    assert_int_equal(info.last_known, 3);
    assert_int_equal(info.in_flight_count, 2);
    assert_int_equal(info.waiting_count, 1);
    assert_int_equal(info.outstanding_count, 3);
    assert_int_equal(info.consumer_count, 1);
    expect_str(info.consumers[0].name, "reader");
    assert_int_equal(info.consumers[0].free_slots, 0);
    assert_int_equal(info.consumers[0].measured[0].value, 250);
    assert_string_equal(info.consumers[0].measured[0].key, "Mean");
    nack(0, "2", GROUP_NACK_PARK);
    pump();
    os_sim_advance(sim, SECOND);
    (void)take(0);
    assert_int_equal(info_of(S).parked_count, 1);
    assert_in_range(info_of(S).per_second, 1, 4);
    end();
}

static void write_foreign(const char *stream, const char *type, const char *data)
{
    struct deed_new_event e = {.stream = deed_str_of(stream),
                               .type = deed_str_of(type),
                               .data = deed_bytes_of(deed_str_of(data))};
    say_event(e);
}

TEST(groups, what_others_write_into_its_streams_is_passed_over)
{
    begin();
    say_many("order-1", 1, 3);
    create();
    join(0, 10);
    expect_take(0, "1 2 3");
    ack(0, "1");
    restart(); /* saves */
    const char *config = "$persistentSubscriptionConfig";
    const char *checkpoint = "$persistentsubscription-order-1::mailer-checkpoint";
    write_foreign(config, "$PersistentConfig", "{\"version\":\"2\",\"entries\":[]}");
    write_foreign(config, "$PersistentConfig",
                  "{\"groups\":[{\"source\":\"x\",\"name\":\"y\",\"begin\":0,\"start\":\"end\"}]}");
    write_foreign(config, "$PersistentConfig", "{\"version\":7,\"groups\":[]}");
    write_foreign(config, "Strange", "7");
    write_foreign(checkpoint, "$SubscriptionCheckpoint", "\"-1\"");
    write_foreign(checkpoint, "Strange", "\"9\"");
    restart();
    assert_int_equal(info_of(S).checkpoint, 0);
    join(0, 10);
    expect_take(0, "2 3");
    end();
}

/* ---- trouble ----------------------------------------------------------------------------------------- */

TEST(groups, a_stream_closed_for_good_is_told)
{
    begin();
    say("order-1", "one");
    expect_ok(store_delete_stream(store, S, DEED_EXPECT_ANY, 0, true, (deed_str){0}, &appended, &err));
    create();
    join(0, 10);
    expect_take(0, "");
    struct group_info info = info_of(S);
    assert_string_equal(info.status, "NotReady");
    expect_str(info.trouble, "stream order-1 is deleted for good");
    end();
}

TEST(groups, large_events_are_held_one_by_one)
{
    static char large[12 << 20];
    begin();
    memset(large, 'x', sizeof large);
    for (unsigned i = 0; i < 6; i++) {
        struct deed_new_event e = said("order-1", "x");
        e.content_type = DEED_STR("text/plain");
        e.data = (deed_bytes){(const uint8_t *)large, sizeof large};
        say_event(e);
    }
    create();
    join(0, 1);
    pump();
    assert_in_range(info_of(S).outstanding_count, 2, 4);
    for (unsigned i = 0; i < 6; i++) {
        struct group_message m;
        size_t count = 0;
        expect_ok(groups_take(seats[0].consumer, &m, 1, 1, &count, &err));
        assert_int_equal(count, 1);
        assert_int_equal(groups_ack(seats[0].consumer, &m.id, 1), 1);
        group_message_done(&m);
        pump();
    }
    end();
}

TEST(groups, what_cannot_be_parked_stays)
{
    begin();
    say_many("order-1", 1, 2);
    create();
    join(0, 10);
    expect_take(0, "1 2");
    ack(0, "2");
    os_sim_fail(sim, OS_SIM_WRITE, 1, DEED_NONE, 5);
    nack(0, "1", GROUP_NACK_PARK);
    pump();
    expect_take(0, "");
    struct group_info info = info_of(S);
    assert_string_equal(info.status, "NotReady");
    assert_memory_equal(info.trouble.ptr, "progress is not saved", 21);
    os_sim_heal(sim);
    power_cut();
    join(0, 10);
    expect_take(0, "1 2");
    end();
}

TEST(groups, a_read_that_fails_is_tried_again)
{
    begin();
    say_many("order-1", 1, 3);
    create();
    os_sim_drop_cache(sim);
    os_sim_fail(sim, OS_SIM_READ, 1, 0, 5);
    join(0, 10);
    expect_take(0, "");
    assert_string_equal(info_of(S).status, "NotReady");
    os_sim_advance(sim, 2 * SECOND);
    expect_take(0, "1 2 3");
    assert_string_equal(info_of(S).status, "Live");
    end();
}

TEST(groups, every_failing_operation_of_care_leaves_all_or_nothing)
{
    for (uint64_t nth = 1; nth < 12; nth++) {
        begin();
        say("order-1", "one");
        os_sim_fail(sim, OS_SIM_ANY, nth, DEED_NONE, 5);
        deed_status status = groups_create(groups, S, G, &settings, &err);
        os_sim_heal(sim);
        power_cut();
        struct group_info info;
        struct arena arena;
        arena_init(&arena, SIZE_MAX);
        deed_status found = groups_info(groups, S, G, &arena, &info, &err);
        assert_true(found == DEED_OK || found == DEED_NOT_FOUND);
        if (status == DEED_OK) assert_int_equal(found, DEED_OK);
        arena_done(&arena);
        end();
    }
}

TEST(groups, settings_that_others_hide_or_close_go_on_as_they_are)
{
    for (unsigned closed = 0; closed < 2; closed++) {
        begin();
        create();
        if (closed != 0) {
            expect_ok(store_delete_foreign(store, DEED_STR("$persistentSubscriptionConfig"),
                                           DEED_EXPECT_ANY, 0, true, &appended, &err));
        } else {
            write_foreign("$$$persistentSubscriptionConfig", "$metadata", "{\"$tb\":999}");
        }
        restart();
        (void)info_of(S);
        deed_status status = groups_delete(groups, S, G, &err);
        assert_int_equal(status, closed != 0 ? DEED_DELETED : DEED_OK);
        if (closed != 0) expect_message(err, "is deleted for good");
        end();
    }
}

/* Whichever commit it is, settings or a group's progress among them. */
TEST(groups, a_damaged_log_is_served_without_groups_until_it_is_repaired)
{
    bool without = false;
    for (unsigned sector = 2; sector < 8; sector++) {
        begin();
        say_many("order-1", 1, 3);
        create();
        join(0, 10);
        expect_take(0, "1 2 3");
        ack(0, "1");
        seats_clear();
        groups_close(groups); /* saves */
        say("order-1", "4");
        assert_true(store_position(store) >= 8);
        close_store();
        expect_ok(os_sim_rot(sim, SEGMENT(1), sector * 4096 + 120, OS_SIM_ROT_FLIP));
        os_sim_drop_cache(sim);

        open_store();
        open_groups();
        struct group_info info;
        struct arena arena;
        arena_init(&arena, SIZE_MAX);
        if (groups_info(groups, S, G, &arena, &info, &err) != DEED_OK) {
            without = true;
            assert_true(groups_create(groups, S, G, &settings, &err) != DEED_OK);
        }
        groups_close(groups);
        close_store();

        options.accept_losses = true;
        open_store();
        open_groups();
        if (groups_info(groups, S, G, &arena, &info, &err) != DEED_OK) create();
        arena_done(&arena);
        end();
    }
    assert_true(without);
}

TEST_MAIN(groups)
