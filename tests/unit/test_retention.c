/* test_retention.c - what is left when events were removed: reads, conditions, retries, opening. */
#include "stub_fixture.h"

static enum event_fate remove_all(const struct deed_event *e)
{
    return e->stream.ptr[0] == '$' ? EVENT_KEEP : EVENT_REMOVE;
}

static enum event_fate erase_all(const struct deed_event *e)
{
    return e->stream.ptr[0] == '$' ? EVENT_KEEP : EVENT_ERASE;
}

static void rewrite(fate_of *fate)
{
    close_store();
    stub_log(fate);
    open_store();
}

static struct deed_new_event tagged(const char *stream, const char *word, unsigned id)
{
    static const deed_str tags[] = {{"red", 3}};
    struct deed_new_event e = said(stream, word);
    e.id = id_of(id);
    e.tags = tags;
    e.tag_count = 1;
    e.metadata = deed_bytes_of(DEED_STR("{\"by\":1}"));
    e.correlation_id = DEED_STR("cor");
    return e;
}

/* ---- retries -------------------------------------------------------------------------------- */

TEST(retention, a_retry_of_a_removed_event_gets_the_first_answer)
{
    start();
    say_event(tagged("order-1", "one", 1));
    struct deed_appended first = appended;
    rewrite(remove_all);
    say_event(tagged("order-1", "one", 1));
    assert_true(appended.repeated);
    assert_int_equal(appended.position, first.position);
    assert_int_equal(appended.revision, first.revision);
    finish();
}

TEST(retention, a_removed_event_is_no_retry_of_other_content)
{
    start();
    say_event(tagged("order-1", "one", 1));
    rewrite(remove_all);

    expect_status(DEED_CONFLICT, append_event(tagged("order-1", "two", 1)));
    expect_message(err, "with other content");
    struct deed_new_event e = tagged("order-1", "one", 1);
    e.metadata = deed_bytes_of(DEED_STR("{\"by\":2}"));
    expect_status(DEED_CONFLICT, append_event(e));
    e.metadata = (deed_bytes){0};
    expect_status(DEED_CONFLICT, append_event(e));
    e = tagged("order-1", "one", 1);
    e.tag_count = 0;
    expect_status(DEED_CONFLICT, append_event(e));
    e = tagged("order-1", "one", 1);
    e.type = DEED_STR("Shouted");
    expect_status(DEED_CONFLICT, append_event(e));
    finish();
}

TEST(retention, an_erased_event_answers_for_whatever_its_id_comes_with)
{
    start();
    say_event(tagged("order-1", "one", 1));
    rewrite(erase_all);
    say_event(tagged("order-1", "one", 1));
    assert_true(appended.repeated);
    say_event(tagged("order-1", "two", 1));
    assert_true(appended.repeated);
    finish();
}

TEST(retention, a_key_of_removed_events_is_remembered)
{
    start();
    struct deed_new_event e = said("order-1", "one");
    struct deed_append a = {
        .events = &e, .event_count = 1, .idempotency_key = DEED_STR("key"), .request_hash = "hash"};
    expect_ok(store_append(store, &a, &appended, &err));
    uint64_t first = appended.position;
    for (int round = 0; round < 2; round++) {
        rewrite(round == 0 ? remove_all : erase_all);
        expect_ok(store_append(store, &a, &appended, &err));
        assert_true(appended.repeated);
        assert_int_equal(appended.position, first);
        struct deed_append other = a;
        other.request_hash[0] = 'H';
        expect_status(DEED_CONFLICT, store_append(store, &other, &appended, &err));
    }
    finish();
}

TEST_MAIN(retention)
