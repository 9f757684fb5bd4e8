/* Streams.Read, by the rows of docs/protocol/kurrentdb.md. */
#include "read_fixture.h"

#include "base/uuid.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>

#define STREAM_DELETED(name) \
    "= 9 stream-name=" name " exception=stream-deleted Event stream '" name "' is deleted.\n"

static void begin_story(void)
{
    start();
    open_api();
    never_in_haste = false;
    slice_size = 1 << 20;
    buffer_size = 64 << 20;
}

static void end_story(void)
{
    cancel();
    close_api();
    finish();
}

static void five_words(void)
{
    begin_story();
    say("a", "zero"), say("a", "one"), say("b", "other"), say("a", "two"), say("a", "three");
}

/* ---- options -------------------------------------------------------------------------------- */

TEST(grpc_read, every_choice_must_be_made)
{
    five_words();
    expect_read_refused("uuid_option", .stream = "a", .count = 1, .no_uuid = true);
    expect_read_refused("neither stream nor all", .no_stream = true, .count = 1);
    expect_read_refused("count_option", .stream = "a", .no_count = true);
    expect_read_refused("filter_option", .stream = "a", .count = 1, .no_filter_option = true);
    expect_read_refused("revision_option", .stream = "a", .count = 1, .from = FROM_NOWHERE);
    expect_read_refused("all_option", .count = 1, .from = FROM_NOWHERE);
    expect_read_refused("no window", .count = 1, .regex = "a", .no_window = true);
    expect_read_refused("neither stream nor event type", .count = 1, .regex = "a",
                        .no_filter = true);
    end_story();
}

TEST(grpc_read, choices_that_do_not_go_together_are_refused)
{
    five_words();
    expect_read_refused("a subscription cannot read backwards", .stream = "a", .subscribe = true,
                        .backwards = true);
    expect_read_refused("a subscription cannot read backwards", .subscribe = true,
                        .backwards = true);
    expect_read_refused("only the log can be filtered", .stream = "a", .count = 1, .regex = "a");
    expect_read_refused("only the log can be filtered", .stream = "a", .subscribe = true,
                        .regex = "a");
    end_story();
}

TEST(grpc_read, a_message_that_is_none_is_refused)
{
    begin_story();
    begin_bytes(deed_bytes_of(DEED_STR("\x0a\xff")));
    expect_told("= 3 the message is no well-formed event_store.client.streams.ReadReq\n");
    cancel();
    begin_bytes((deed_bytes){0});
    expect_told("= 3 read: there are no options\n");
    end_story();
}

TEST(grpc_read, a_stream_has_a_name)
{
    begin_story();
    expect_read_refused("the stream has no name", .stream = "", .count = 1);
    expect_read_refused("$$ is not the name", .stream = "$$", .count = 1);
    end_story();
}

TEST(grpc_read, ids_come_in_the_form_that_was_asked_for)
{
    five_words();
    for (int structured = 0; structured < 2; structured++) {
        struct buf out;
        struct arena arena;
        buf_init(&out, 1 << 20);
        arena_init(&arena, 1 << 20);
        begin((struct asked){.stream = "a", .count = 1, .structured = structured == 1});
        assert_int_equal(call.method->pull(&call, &out, 1 << 16, false), RPC_END);
        resp *m = grpc_unpack(&event_store__client__streams__read_resp__descriptor,
                              (deed_bytes){out.ptr + 5, out.len - 5}, &arena, &err);
        assert_non_null(m);
        const EventStore__Client__UUID *id = m->event->event->id;
        assert_int_equal(id->value_case, structured == 1 ? 1 : 2);
        if (structured == 0) assert_int_equal(strlen(id->string), 36);
        cancel();
        arena_done(&arena);
        buf_done(&out);
    }
    end_story();
}

/* ---- counted reads of streams --------------------------------------------------------------- */

TEST(grpc_read, a_stream_is_read_forwards)
{
    five_words();
    expect_read("a/0 zero\na/1 one\na/2 two\na/3 three\n= 0\n", .stream = "a", .count = INT64_MAX);
    expect_read("a/0 zero\na/1 one\n= 0\n", .stream = "a", .count = 2);
    expect_read("a/2 two\na/3 three\n= 0\n", .stream = "a", .count = 9, .from = FROM_PLACE,
                .place = 2);
    expect_read("= 0\n", .stream = "a", .count = 9, .from = FROM_PLACE, .place = 4);
    expect_read("= 0\n", .stream = "a", .count = 9, .from = FROM_END);
    expect_read("= 0\n", .stream = "a", .count = 0);
    end_story();
}

TEST(grpc_read, a_stream_is_read_backwards)
{
    five_words();
    expect_read("a/3 three\na/2 two\na/1 one\na/0 zero\n= 0\n", .stream = "a", .count = 9,
                .backwards = true, .from = FROM_END);
    expect_read("a/3 three\n= 0\n", .stream = "a", .count = 1, .backwards = true, .from = FROM_PLACE,
                .place = WIRE_END);
    expect_read("a/1 one\na/0 zero\n= 0\n", .stream = "a", .count = 9, .backwards = true,
                .from = FROM_PLACE, .place = 1);
    expect_read("a/0 zero\n= 0\n", .stream = "a", .count = 9, .backwards = true,
                .from = FROM_START);
    expect_read("a/3 three\n= 0\n", .stream = "a", .count = 1, .backwards = true,
                .from = FROM_PLACE, .place = 77);
    end_story();
}

TEST(grpc_read, a_client_that_asks_learns_where_a_stream_ends)
{
    five_words();
    expect_read("a/0 zero\nlast 3\n= 0\n", .stream = "a", .count = 1, .compat = 1);
    expect_read("a/3 three\nlast 3\n= 0\n", .stream = "a", .count = 1, .compat = 1,
                .backwards = true, .from = FROM_END);
    expect_read("last 3\n= 0\n", .stream = "a", .count = 1, .compat = 1, .from = FROM_PLACE,
                .place = 4);
    expect_read("first 4\nlast 3\n= 0\n", .stream = "a", .count = 1, .compat = 1,
                .from = FROM_PLACE, .place = 5);
    expect_read("last 3\n= 0\n", .stream = "a", .count = 0, .compat = 1);
    expect_read("last 3\n= 0\n", .stream = "a", .count = 1, .compat = 1, .from = FROM_END);
    end_story();
}

TEST(grpc_read, a_client_that_asks_learns_where_a_truncated_stream_begins)
{
    begin_story();
    say_many("a", 100);
    set_metadata("a", "{\"$tb\":98}");
    expect_read("first 98\na/98 98\na/99 99\nlast 99\n= 0\n", .stream = "a", .count = 50,
                .compat = 1);
    expect_read("a/98 98\na/99 99\n= 0\n", .stream = "a", .count = 50);
    /* The first page, of 32 events, is not empty. */
    expect_read("a/98 98\na/99 99\nlast 99\n= 0\n", .stream = "a", .count = 50, .compat = 1,
                .from = FROM_PLACE, .place = 70);
    expect_read("first 98\na/98 98\nlast 99\n= 0\n", .stream = "a", .count = 1, .compat = 1,
                .from = FROM_PLACE, .place = 97);
    expect_read("a/99 99\na/98 98\nlast 99\n= 0\n", .stream = "a", .count = 50, .compat = 1,
                .backwards = true, .from = FROM_END);
    expect_read("last 99\n= 0\n", .stream = "a", .count = 50, .compat = 1, .backwards = true,
                .from = FROM_PLACE, .place = 97);
    end_story();
}

TEST(grpc_read, retention_hides)
{
    begin_story();
    say_many("a", 5);
    set_metadata("a", "{\"$maxCount\":2}");
    expect_read("a/3 3\na/4 4\n= 0\n", .stream = "a", .count = 50);
    expect_read("a/4 4\na/3 3\n= 0\n", .stream = "a", .count = 50, .backwards = true,
                .from = FROM_END);
    set_metadata("a", "{\"$maxAge\":10}");
    os_sim_advance(sim, 11 * SECOND);
    say("b", "later");
    expect_read("= 0\n", .stream = "a", .count = 50);
    expect_read("last 4\n= 0\n", .stream = "a", .count = 50, .compat = 1);
    say("a", "new");
    expect_read("a/5 new\n= 0\n", .stream = "a", .count = 50);
    end_story();
}

TEST(grpc_read, a_stream_that_is_not_there_is_said_so_in_band)
{
    five_words();
    expect_read("not found: nobody\n= 0\n", .stream = "nobody", .count = 1);
    expect_read("not found: nobody\n= 0\n", .stream = "nobody", .count = 1, .compat = 1,
                .backwards = true, .from = FROM_END);
    expect_read("not found: $$nobody\n= 0\n", .stream = "$$nobody", .count = 1, .backwards = true,
                .from = FROM_END);
    delete_stream("a", false);
    expect_read("not found: a\n= 0\n", .stream = "a", .count = 1, .compat = 1);
    say("a", "again");
    expect_read("a/4 again\nlast 4\n= 0\n", .stream = "a", .count = 9, .compat = 1);
    end_story();
}

TEST(grpc_read, a_tombstoned_stream_ends_the_call)
{
    five_words();
    delete_stream("a", true);
    expect_read(STREAM_DELETED("a"), .stream = "a", .count = 1);
    expect_read(STREAM_DELETED("a"), .stream = "a", .count = 1, .backwards = true,
                .from = FROM_END, .compat = 1);
    expect_read(STREAM_DELETED("$$a"), .stream = "$$a", .count = 1);
    say("b\xc3\xa4", "one");
    delete_stream("b\xc3\xa4", true);
    expect_read("= 9 stream-name=b%C3%A4 exception=stream-deleted Event stream 'b\xc3\xa4' is "
                "deleted.\n",
                .stream = "b\xc3\xa4", .count = 1);
    end_story();
}

TEST(grpc_read, of_metadata_only_the_newest_is_read)
{
    five_words();
    set_metadata("a", "{\"x\":1}");
    set_metadata("a", "{\"x\":2}");
    expect_read("$$a/1 {\"x\":2}\n= 0\n", .stream = "$$a", .count = 1, .backwards = true,
                .from = FROM_END);
    expect_read("$$a/1 {\"x\":2}\n= 0\n", .stream = "$$a", .count = 9, .backwards = true,
                .from = FROM_END);
    expect_read("$$a/1 {\"x\":2}\n= 0\n", .stream = "$$a", .count = 9);
    expect_read("= 0\n", .stream = "$$a", .count = 9, .backwards = true, .from = FROM_PLACE,
                .place = 0);
    end_story();
}

TEST(grpc_read, a_long_read_is_made_in_slices)
{
    begin_story();
    say_many("a", 1000);
    slice_size = 1000;
    largest_slice = 0;
    begin((struct asked){.stream = "a", .count = 5000, .compat = 1});
    const char *all = tell();
    assert_non_null(strstr(all, "a/0 0\na/1 1\n"));
    assert_non_null(strstr(all, "a/998 998\na/999 999\nlast 999\n= 0\n"));
    size_t lines = 0;
    for (; *all != '\0'; all++) lines += *all == '\n';
    assert_int_equal(lines, 1002);
    assert_true(largest_slice < 1400);
    end_story();
}

TEST(grpc_read, an_event_that_does_not_fit_behind_others_waits)
{
    begin_story();
    say_many("a", 20);
    buffer_size = 600;
    largest_slice = 0;
    begin((struct asked){.stream = "a", .count = 20});
    const char *all = tell();
    assert_non_null(strstr(all, "a/0 0\na/1 1\na/2 2\na/3 3\na/4 4\na/5 5\n"));
    assert_non_null(strstr(all, "a/18 18\na/19 19\n= 0\n"));
    assert_true(largest_slice <= 600);
    cancel();
    buffer_size = 100;
    begin((struct asked){.stream = "a", .count = 20});
    expect_told("= 3 event at position 2 does not fit into the server's buffer\n");
    end_story();
}

/* ---- counted reads of the log --------------------------------------------------------------- */

TEST(grpc_read, the_log_is_read_from_a_position_and_backwards_before_it)
{
    five_words(); /* positions 2 to 6, behind the log's own first event */
    begin((struct asked){.count = 1});
    assert_non_null(strstr(tell(), "$log/0 "));
    cancel();
    expect_read("a/2 two\na/3 three\n= 0\n", .count = 9, .from = FROM_PLACE, .place = 5);
    assert_int_equal(last_position, 6);
    expect_read("b/0 other\na/1 one\n= 0\n", .count = 2, .backwards = true, .from = FROM_PLACE,
                .place = 5);
    expect_read("a/3 three\n= 0\n", .count = 1, .backwards = true, .from = FROM_END);
    expect_read("a/3 three\n= 0\n", .count = 1, .backwards = true, .from = FROM_PLACE,
                .place = WIRE_END);
    expect_read("= 0\n", .count = 9, .from = FROM_END);
    expect_read("= 0\n", .count = 9, .from = FROM_PLACE, .place = WIRE_END);
    expect_read("= 0\n", .count = 9, .from = FROM_PLACE, .place = 7);
    expect_read("= 0\n", .count = 9, .from = FROM_PLACE, .place = 700);
    expect_read("= 0\n", .count = 9, .backwards = true, .from = FROM_START);
    expect_read("= 0\n", .count = 9, .backwards = true, .from = FROM_PLACE, .place = 0);
    expect_read("a/3 three\na/2 two\n= 0\n", .count = 2, .backwards = true, .from = FROM_PLACE,
                .place = 700);
    expect_read("= 0\n", .count = 0);
    end_story();
}

TEST(grpc_read, position_zero_is_the_start)
{
    five_words();
    begin((struct asked){.count = 2, .from = FROM_PLACE, .place = 0});
    const char *all = tell();
    assert_true(strncmp(all, "$log/0 ", 7) == 0);
    assert_non_null(strstr(all, "\na/0 zero\n= 0\n"));
    end_story();
}

TEST(grpc_read, positions_of_two_numbers_are_ordered)
{
    five_words();
    expect_read("a/2 two\na/3 three\n= 0\n", .count = 9, .from = FROM_PLACE, .place = 5,
                .prepare = 4);
    expect_read("b/0 other\n= 0\n", .count = 1, .backwards = true, .from = FROM_PLACE, .place = 5,
                .prepare = 4);
    const char *wrong = "Trying to read from an invalid position.";
    expect_read_refused(wrong, .count = 9, .from = FROM_PLACE, .place = 5, .prepare = 6);
    expect_read_refused(wrong, .count = 9, .from = FROM_PLACE, .place = WIRE_END - 1);
    expect_read_refused(wrong, .count = 9, .from = FROM_PLACE, .place = 5, .prepare = WIRE_END);
    expect_read_refused(wrong, .count = 9, .from = FROM_PLACE, .place = WIRE_END, .prepare = 5);
    end_story();
}

TEST(grpc_read, the_log_shows_the_systems_events_and_deleted_streams)
{
    five_words();
    delete_stream("b", false);
    delete_stream("a", true);
    expect_read("a/0 zero\na/1 one\nb/0 other\na/2 two\na/3 three\n$$b/0 {\"$tb\":1}\n"
                "a/9223372036854775807 {}\n= 0\n",
                .count = 99, .from = FROM_PLACE, .place = 2, .compat = 1);
    end_story();
}

TEST(grpc_read, groups_keep_their_state_of_the_log_out_of_it)
{
    begin_story();
    say("$persistentsubscription-$all::g-checkpoint", "hidden");
    say("$persistentsubscription-$all::g-parked", "hidden");
    say("$persistentsubscription-$all::g", "seen");
    say("$persistentsubscription-a::g-parked", "seen");
    say("$persistentSubscriptionConfig", "seen");
    expect_read("$persistentsubscription-$all::g/0 seen\n"
                "$persistentsubscription-a::g-parked/0 seen\n"
                "$persistentSubscriptionConfig/0 seen\n= 0\n",
                .count = 9, .from = FROM_PLACE, .place = 2);
    expect_read("$persistentsubscription-$all::g-parked/0 hidden\n= 0\n", .count = 9,
                .stream = "$persistentsubscription-$all::g-parked");
    end_story();
}

/* ---- links ---------------------------------------------------------------------------------- */

TEST(grpc_read, links_are_resolved_if_that_is_asked_for)
{
    five_words();
    say_link("l", "1@a");
    say("l", "no link");
    expect_read("l/0 1@a\nl/1 no link\n= 0\n", .stream = "l", .count = 9);
    expect_read("a/1 one <- l/0 1@a\nl/1 no link\n= 0\n", .stream = "l", .count = 9,
                .resolve = true);
    expect_read("a/1 one <- l/0 1@a\nl/1 no link\n= 0\n", .count = 9, .resolve = true,
                .from = FROM_PLACE, .place = 7);
    assert_int_equal(last_position, 8);
    expect_read("l/1 no link\na/1 one <- l/0 1@a\n= 0\n", .stream = "l", .count = 9,
                .resolve = true, .backwards = true, .from = FROM_END);
    assert_int_equal(last_position, 7); /* the link's */
    end_story();
}

TEST(grpc_read, a_link_that_leads_nowhere_comes_alone)
{
    five_words();
    const char *const broken[] = {"9@a", "0@nobody", "x@a", "@a", "1@", "1", "", "-1@a", "1@ a"};
    for (size_t i = 0; i < sizeof broken / sizeof broken[0]; i++) say_link("l", broken[i]);
    expect_read("- <- l/0 9@a\n- <- l/1 0@nobody\n- <- l/2 x@a\n- <- l/3 @a\n- <- l/4 1@\n"
                "- <- l/5 1\n- <- l/6 \n- <- l/7 -1@a\n- <- l/8 1@ a\n= 0\n",
                .stream = "l", .count = 9, .resolve = true);
    end_story();
}

TEST(grpc_read, a_link_to_what_is_hidden_or_deleted_comes_alone)
{
    five_words();
    say_link("l", "1@a"), say_link("l", "2@a"), say_link("l", "0@b");
    set_metadata("a", "{\"$tb\":2}");
    delete_stream("b", true);
    expect_read("- <- l/0 1@a\na/2 two <- l/1 2@a\n- <- l/2 0@b\n= 0\n", .stream = "l", .count = 9,
                .resolve = true);
    end_story();
}

TEST(grpc_read, the_stream_of_a_link_may_have_any_sign_in_its_name)
{
    begin_story();
    say("x@y", "one");
    say_link("l", "0@x@y");
    expect_read("x@y/0 one <- l/0 0@x@y\n= 0\n", .stream = "l", .count = 9, .resolve = true);
    end_story();
}

TEST(grpc_read, a_virtual_stream_reads_as_links)
{
    begin_story();
    say("order-1", "one"), say("x", "other"), say("order-2", "two");
    expect_read("$ce-order/0 0@order-1\n$ce-order/1 0@order-2\n= 0\n", .stream = "$ce-order",
                .count = 9);
    expect_read("order-1/0 one <- $ce-order/0 0@order-1\norder-2/0 two <- $ce-order/1 0@order-2\n"
                "last 1\n= 0\n",
                .stream = "$ce-order", .count = 9, .resolve = true, .compat = 1);
    assert_int_equal(last_position, 4);
    expect_read("order-2/0 two <- $ce-order/1 0@order-2\n= 0\n", .stream = "$ce-order", .count = 1,
                .resolve = true, .backwards = true, .from = FROM_END);
    expect_read("order-2/0 two <- $et-Said/2 0@order-2\n= 0\n", .stream = "$et-Said", .count = 9,
                .resolve = true, .from = FROM_PLACE, .place = 2);
    expect_read("not found: $ce-nobody\n= 0\n", .stream = "$ce-nobody", .count = 9);
    end_story();
}

TEST(grpc_read, a_virtual_link_has_room_for_the_longest_name)
{
    static char name[65533 + 1];
    char wanted[64]; /* the fixture tells forty bytes of the link's data */
    memset(name, 'n', sizeof name - 1);
    memcpy(name, "a-", 2);
    start_limited((struct deed_limits){.name_size_max = sizeof name - 1});
    open_api();
    say(name, "one");
    (void)snprintf(wanted, sizeof wanted, "$ce-a/0 0@%.38s\n= 0\n", name);
    expect_read(wanted, .stream = "$ce-a", .count = 9);
    end_story();
}

TEST(grpc_read, a_virtual_link_has_one_id_for_ever)
{
    struct deed_cursor *cursor = NULL;
    begin_story();
    say("order-1", "one");
    deed_uuid id = store_link_id(store, DEED_STR("$ce-order"), 0);
    struct buf out;
    struct arena arena;
    buf_init(&out, 1 << 20);
    arena_init(&arena, 1 << 20);
    begin((struct asked){.stream = "$ce-order", .count = 1, .resolve = true});
    assert_int_equal(call.method->pull(&call, &out, 1 << 16, false), RPC_END);
    resp *m = grpc_unpack(&event_store__client__streams__read_resp__descriptor,
                          (deed_bytes){out.ptr + 5, out.len - 5}, &arena, &err);
    assert_non_null(m);
    char text[37];
    uuid_format(id, text);
    assert_string_equal(m->event->link->id->string, text);
    assert_string_not_equal(m->event->event->id->string, text);
    arena_done(&arena);
    buf_done(&out);
    cursor_close(cursor);
    end_story();
}

/* ---- filters -------------------------------------------------------------------------------- */

static void a_mixed_log(void)
{
    begin_story();
    say("order-1", "one"), say("invoice-1", "two"), say("order-2", "three"), say("other", "four");
    say_event((struct deed_new_event){
        .stream = DEED_STR("order-1"), .type = DEED_STR("Done"), .data = word_data("five")});
}

TEST(grpc_read, the_log_is_filtered_by_stream)
{
    a_mixed_log();
    expect_read("order-1/0 one\norder-2/0 three\norder-1/1 five\n= 0\n", .count = 9,
                .prefixes = {"order-"});
    expect_read("order-1/1 five\nother/0 four\ninvoice-1/0 two\norder-1/0 one\n= 0\n", .count = 9,
                .prefixes = {"order-1", "invoice", "ot"}, .backwards = true, .from = FROM_END);
    expect_read("order-1/0 one\norder-1/1 five\n= 0\n", .count = 9, .regex = "^order-1$");
    expect_read("order-1/0 one\ninvoice-1/0 two\n= 0\n", .count = 2, .regex = "^[^\\$].*");
    expect_read("= 0\n", .count = 9, .prefixes = {"nothing"});
    expect_read("= 0\n", .count = 9, .prefixes = {"nothing-1"});
    expect_read("order-2/0 three\n= 0\n", .count = 1, .prefixes = {"order"}, .from = FROM_PLACE,
                .place = 3);
    end_story();
}

TEST(grpc_read, the_log_is_filtered_by_type)
{
    a_mixed_log();
    expect_read("order-1/1 five\n= 0\n", .count = 9, .prefixes = {"Do"}, .by_type = true);
    expect_read("order-1/1 five\n= 0\n", .count = 9, .regex = "^Done$", .by_type = true);
    expect_read("order-1/1 five\nother/0 four\n= 0\n", .count = 2, .regex = "^[SD]",
                .by_type = true, .backwards = true, .from = FROM_END);
    end_story();
}

TEST(grpc_read, a_filter_that_cannot_decide_fails_the_read)
{
    begin_story();
    say("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "one");
    expect_read_refused("at offset 1: missing closing parenthesis", .count = 9, .regex = "(");
    expect_read_refused("at offset 1: missing closing parenthesis", .subscribe = true,
                        .regex = "(");
    expect_read_refused("neither a regex nor a prefix", .count = 9, .with_filter = true);
    expect_read_refused("takes too many steps", .count = 9,
                        .regex = "^(([a-z])+.)+[A-Z]([a-z])+$");
    end_story();
}

TEST(grpc_read, lists_of_the_index_are_read_by_name)
{
    a_mixed_log();
    expect_read("order-1/0 one\norder-2/0 three\norder-1/1 five\n= 0\n", .count = 9,
                .prefixes = {"$idx-ce-order"});
    expect_read("order-1/1 five\n= 0\n", .count = 9, .prefixes = {"$idx-et-Done"});
    expect_read("order-1/0 one\ninvoice-1/0 two\n= 0\n", .count = 2, .prefixes = {"$idx-all"});
    expect_read("= 5 index-name=$idx-user-x exception=index-not-found Index '$idx-user-x' is not "
                "found.\n",
                .count = 2, .prefixes = {"$idx-user-x"});
    expect_read_refused("an index stands alone", .count = 2, .prefixes = {"$idx-all", "order"});
    end_story();
}

TEST(grpc_read, events_that_were_removed_are_not_there_and_there_is_no_horizon)
{
    struct deed_compaction done;
    begin_story();
    say_many("a", 30);
    say("b", "kept");
    say_link("l", "0@a");
    set_metadata("a", "{\"$tb\":28}");
    expect_ok(store_compact(store, &(struct deed_compact_options){.active = true}, &err));
    do {
        (void)store_step(store);
        store_compaction(store, &done);
    } while (done.state == DEED_COMPACTION_RUNNING);
    assert_int_equal(done.events_removed, 28);
    expect_read("a/28 28\na/29 29\nb/0 kept\n- <- l/0 0@a\n$$a/0 {\"$tb\":28}\n= 0\n", .count = 99,
                .from = FROM_PLACE, .place = 2, .resolve = true);
    expect_read("a/28 28\na/29 29\n= 0\n", .count = 99, .prefixes = {"a"});
    begin((struct asked){.stream = "$et-Said", .count = 1, .resolve = true});
    expect_told("- <- $et-Said/0 0@a\n= 0\n");
    end_story();
}

/* ---- subscriptions to streams --------------------------------------------------------------- */

TEST(grpc_read, a_subscription_confirms_catches_up_and_goes_on)
{
    five_words();
    begin((struct asked){.stream = "a", .subscribe = true});
    expect_told("confirmation\na/0 zero\na/1 one\na/2 two\na/3 three\ncaught up at revision 3\n");
    expect_told("");
    say("b", "not for it");
    expect_told("");
    say("a", "four"), say("b", "nor this"), say("a", "five");
    expect_told("a/4 four\na/5 five\n");
    end_story();
}

TEST(grpc_read, a_subscription_begins_behind_its_revision)
{
    five_words();
    begin((struct asked){.stream = "a", .subscribe = true, .from = FROM_PLACE, .place = 2});
    expect_told("confirmation\na/3 three\ncaught up at revision 3\n");
    cancel();
    begin((struct asked){.stream = "a", .subscribe = true, .from = FROM_PLACE, .place = 3});
    expect_told("confirmation\ncaught up at revision 3\n");
    say("a", "four");
    expect_told("a/4 four\n");
    cancel();
    begin((struct asked){.stream = "a", .subscribe = true, .from = FROM_PLACE, .place = 5});
    expect_told("confirmation\ncaught up at revision 5\n");
    say("a", "five"), say("a", "six");
    expect_told("a/6 six\n");
    end_story();
}

TEST(grpc_read, a_subscription_from_the_end_gets_what_is_written_from_then_on)
{
    five_words();
    begin((struct asked){.stream = "a", .subscribe = true, .from = FROM_END});
    expect_told("confirmation\ncaught up at revision 3\n");
    say("a", "four");
    expect_told("a/4 four\n");
    cancel();
    begin((struct asked){.stream = "a", .subscribe = true, .from = FROM_PLACE, .place = WIRE_END});
    expect_told("confirmation\ncaught up at revision 4\n");
    end_story();
}

TEST(grpc_read, a_subscription_waits_for_a_stream_that_is_not_there)
{
    five_words();
    for (int from = FROM_START; from <= FROM_END; from++) {
        char name[16];
        (void)snprintf(name, sizeof name, "new%d", from);
        begin((struct asked){.stream = name, .subscribe = true, .from = (enum asked_from)from});
        expect_told("confirmation\ncaught up\n");
        say(name, "first");
        char wanted[64];
        (void)snprintf(wanted, sizeof wanted, "%s/0 first\n", name);
        expect_told(wanted);
        cancel();
    }
    end_story();
}

TEST(grpc_read, a_subscription_to_a_tombstoned_stream_ends)
{
    five_words();
    delete_stream("a", true);
    begin((struct asked){.stream = "a", .subscribe = true});
    expect_told("confirmation\n" STREAM_DELETED("a"));
    cancel();
    begin((struct asked){.stream = "a", .subscribe = true, .from = FROM_END});
    expect_told("confirmation\n" STREAM_DELETED("a"));
    end_story();
}

TEST(grpc_read, a_tombstone_is_delivered_before_it_ends_the_subscription)
{
    five_words();
    begin((struct asked){.stream = "a", .subscribe = true, .from = FROM_PLACE, .place = 2});
    expect_told("confirmation\na/3 three\ncaught up at revision 3\n");
    say("a", "four");
    delete_stream("a", true);
    expect_told("a/4 four\na/9223372036854775807 {}\n" STREAM_DELETED("a"));
    end_story();
}

TEST(grpc_read, a_subscription_outlives_a_soft_deletion)
{
    five_words();
    begin((struct asked){.stream = "a", .subscribe = true, .from = FROM_PLACE, .place = 2});
    expect_told("confirmation\na/3 three\ncaught up at revision 3\n");
    delete_stream("a", false);
    expect_told("");
    say("a", "again");
    expect_told("a/4 again\n");
    cancel();
    delete_stream("a", false);
    begin((struct asked){.stream = "a", .subscribe = true});
    expect_told("confirmation\ncaught up\n");
    say("a", "once more");
    expect_told("a/5 once more\n");
    end_story();
}

TEST(grpc_read, retention_hides_from_catching_up_and_not_from_the_living)
{
    begin_story();
    say_many("a", 5);
    set_metadata("a", "{\"$maxCount\":2}");
    begin((struct asked){.stream = "a", .subscribe = true});
    expect_told("confirmation\na/3 3\na/4 4\ncaught up at revision 4\n");
    say_many("a", 4);
    expect_told("a/5 0\na/6 1\na/7 2\na/8 3\n");
    cancel();
    set_metadata("a", "{\"$maxCount\":1}");
    begin((struct asked){.stream = "$$a", .subscribe = true});
    expect_told("confirmation\n$$a/1 {\"$maxCount\":1}\ncaught up at revision 1\n");
    set_metadata("a", "{}");
    set_metadata("a", "{\"x\":1}");
    expect_told("$$a/2 {}\n$$a/3 {\"x\":1}\n");
    end_story();
}

TEST(grpc_read, a_virtual_stream_can_be_subscribed_to)
{
    begin_story();
    say("order-1", "one");
    begin((struct asked){.stream = "$ce-order", .subscribe = true, .resolve = true});
    expect_told("confirmation\norder-1/0 one <- $ce-order/0 0@order-1\ncaught up at revision 0\n");
    say("x", "other"), say("order-2", "two");
    delete_stream("order-1", true);
    expect_told("order-2/0 two <- $ce-order/1 0@order-2\n"
                "order-1/9223372036854775807 {} <- $ce-order/2 1@order-1\n");
    say("order-2", "three");
    expect_told("order-2/1 three <- $ce-order/3 1@order-2\n");
    cancel();
    begin((struct asked){.stream = "$ce-order", .subscribe = true, .from = FROM_END});
    expect_told("confirmation\ncaught up at revision 3\n");
    say("order-3", "four");
    expect_told("$ce-order/4 0@order-3\n");
    end_story();
}

TEST(grpc_read, links_are_resolved_live)
{
    begin_story();
    begin((struct asked){.stream = "l", .subscribe = true, .resolve = true});
    expect_told("confirmation\ncaught up\n");
    say("a", "one");
    say_link("l", "0@a");
    say_link("l", "1@a");
    expect_told("a/0 one <- l/0 0@a\n- <- l/1 1@a\n");
    end_story();
}

TEST(grpc_read, a_slow_client_is_told_again_when_it_has_caught_up)
{
    begin_story();
    say_many("a", 3);
    begin((struct asked){.stream = "a", .subscribe = true, .from = FROM_END});
    expect_told("confirmation\ncaught up at revision 2\n");
    slice_size = 300;
    say_many("a", 3);
    expect_told("a/3 0\na/4 1\na/5 2\ncaught up at revision 5\n");
    slice_size = 1 << 20;
    say_many("a", 3);
    expect_told("a/6 0\na/7 1\na/8 2\n");
    end_story();
}

/* ---- subscriptions to the log --------------------------------------------------------------- */

TEST(grpc_read, the_log_is_followed_from_a_position_on)
{
    five_words();
    begin((struct asked){.subscribe = true, .from = FROM_PLACE, .place = 4});
    expect_told("confirmation\na/2 two\na/3 three\ncaught up at 6\n");
    say("c", "new");
    expect_told("c/0 new\n");
    assert_int_equal(last_position, 7);
    cancel();
    begin((struct asked){.subscribe = true, .from = FROM_PLACE, .place = 5, .prepare = 4});
    expect_told("confirmation\na/2 two\na/3 three\nc/0 new\ncaught up at 7\n");
    cancel();
    begin((struct asked){.subscribe = true, .from = FROM_END});
    expect_told("confirmation\ncaught up at 7\n");
    say("c", "newer");
    expect_told("c/1 newer\n");
    cancel();
    begin((struct asked){.subscribe = true, .from = FROM_END});
    say("c", "before anything was told"); /* and after the subscription began */
    expect_told("confirmation\nc/2 before anything was told\ncaught up at 9\n");
    cancel();
    begin((struct asked){.subscribe = true});
    const char *all = tell();
    assert_true(strncmp(all, "confirmation\n$log/0 ", 20) == 0);
    assert_non_null(strstr(all, "\ncaught up at 9\n"));
    end_story();
}

TEST(grpc_read, nothing_is_lost_or_repeated_while_others_write)
{
    char wanted[16];
    begin_story();
    slice_size = 200;
    begin((struct asked){.subscribe = true, .from = FROM_END});
    unsigned next = 0;
    unsigned written = 0;
    for (unsigned round = 0; round < 300; round++) {
        for (unsigned i = 0; i < round % 7; i++, written++) {
            (void)snprintf(wanted, sizeof wanted, "%u", written);
            say(written % 3 == 0 ? "a" : "b", wanted);
        }
        if (round % 5 == 0) never_in_haste = !never_in_haste;
        if (one_slice() == RPC_END) fail_msg("it ended");
    }
    (void)one_slice(), (void)one_slice();
    const char *all = tell();
    for (const char *line = all; *line != '\0'; line = strchr(line, '\n') + 1) {
        if (line[0] == 'c') continue; /* confirmation, caught up */
        const char *word = strchr(line, ' ') + 1;
        (void)snprintf(wanted, sizeof wanted, "%u\n", next++);
        assert_memory_equal(word, wanted, strlen(wanted));
    }
    assert_int_equal(next, written);
    end_story();
}

TEST(grpc_read, a_filtered_subscription_has_checkpoints)
{
    begin_story();
    say_many("x", 10); /* 2 to 11 */
    say("order-1", "one"); /* 12 */
    say_many("x", 5); /* 13 to 17 */
    begin((struct asked){.subscribe = true, .regex = "order", .window = 4, .multiplier = 2});
    expect_told("confirmation\ncheckpoint 8\norder-1/0 one\ncheckpoint 16\ncheckpoint 17\n"
                "caught up at 17\n");
    say_many("x", 7); /* to 24 */
    expect_told("");
    say("order-1", "two"); /* 25 */
    expect_told("order-1/1 two\ncheckpoint 25\n");
    say_many("x", 17); /* to 42 */
    expect_told("checkpoint 33\ncheckpoint 41\n");
    end_story();
}

TEST(grpc_read, a_checkpoint_is_where_to_go_on)
{
    begin_story();
    say_many("x", 10); /* to 11 */
    say("order-1", "one"); /* 12 */
    begin((struct asked){.subscribe = true, .regex = "order", .from = FROM_PLACE, .place = 11});
    expect_told("confirmation\norder-1/0 one\ncheckpoint 12\ncaught up at 12\n");
    cancel();
    begin((struct asked){.subscribe = true, .regex = "order", .from = FROM_PLACE, .place = 12});
    expect_told("confirmation\ncaught up at 12\n"); /* that one it has */
    cancel();
    begin((struct asked){.subscribe = true, .regex = "order", .from = FROM_END});
    expect_told("confirmation\ncheckpoint 12\ncaught up at 12\n");
    end_story();
}

TEST(grpc_read, what_the_index_passes_over_counts_for_checkpoints)
{
    begin_story();
    say_many("x-1", 1000);
    say("order-1", "one"); /* 1002 */
    say_many("x-1", 10);
    begin((struct asked){.subscribe = true, .prefixes = {"order-"}});
    expect_told("confirmation\ncheckpoint 992\norder-1/0 one\ncheckpoint 1012\n"
                "caught up at 1012\n");
    say_many("x-1", 31);
    expect_told("");
    say("x-1", "the 32nd");
    expect_told("checkpoint 1044\n");
    end_story();
}

TEST(grpc_read, checkpoints_ascend_whatever_the_slices)
{
    begin_story();
    begin((struct asked){.subscribe = true, .regex = "7", .by_type = true, .window = 3,
                         .multiplier = 1});
    slice_size = 50;
    for (unsigned round = 0; round < 50; round++) {
        char name[16];
        for (unsigned i = 0; i < round % 11; i++) {
            struct deed_new_event event = said("a", "x");
            (void)snprintf(name, sizeof name, "T%u", round + i);
            event.type = deed_str_of(name);
            say_event(event);
        }
        (void)one_slice();
    }
    unsigned long long before = 0;
    unsigned long long at = 0;
    size_t count = 0;
    for (const char *line = tell(); *line != '\0'; line = strchr(line, '\n') + 1) {
        if (sscanf(line, "checkpoint %llu", &at) != 1) continue;
        assert_true(at > before);
        before = at;
        count++;
    }
    assert_true(count > 50);
    end_story();
}

TEST(grpc_read, a_checkpoint_needs_an_interval)
{
    five_words();
    expect_read_refused("checkpointIntervalMultiplier is 0", .subscribe = true, .regex = "a",
                        .window_count = true);
    expect_read("a/0 zero\n= 0\n", .count = 1, .regex = "a", .window_count = true);
    end_story();
}

/* ---- filters against a model ---------------------------------------------------------------- */

static const char *const some_streams[] = {"order-1", "order-2", "order", "orders-1", "$order-1", "x"};
static const char *const some_types[] = {"Made", "Done", "Undone", "$made"};

struct written {
    const char *stream, *type;
    char line[64]; /* as it is told */
};
static struct written all_written[200];
static size_t written_count; /* all_written[i] is at position i + 2 */

static bool begins(const char *name, const char *prefix)
{
    return strncmp(name, prefix, strlen(prefix)) == 0;
}
static bool of_order_1(const struct written *w)
{
    return begins(w->stream, "order-1");
}
static bool of_order(const struct written *w)
{
    return begins(w->stream, "order-");
}
static bool of_two(const struct written *w)
{
    return begins(w->stream, "order-2") || begins(w->stream, "orders-");
}
static bool of_orders(const struct written *w)
{
    return begins(w->stream, "order") || begins(w->stream, "$");
}
static bool just_order_2(const struct written *w)
{
    return strcmp(w->stream, "order-2") == 0;
}
static bool not_system(const struct written *w)
{
    return w->stream[0] != '$';
}
static bool just_done(const struct written *w)
{
    return strcmp(w->type, "Done") == 0;
}
static bool any_one(const struct written *w)
{
    return strstr(w->type, "one") != NULL;
}

static const struct {
    const char *regex, *prefixes[4];
    bool by_type;
    bool (*matches)(const struct written *w);
} some_filters[] = {
    {NULL, {"order-1"}, false, of_order_1},
    {NULL, {"order-"}, false, of_order},
    {NULL, {"orders-", "order-2"}, false, of_two},
    {NULL, {"order", "$", "order-1"}, false, of_orders},
    {"^order-2$", {NULL}, false, just_order_2},
    {"^order-\\d", {NULL}, false, of_order},
    {"^(order-2|orders-)", {NULL}, false, of_two},
    {"^[^\\$].*", {NULL}, false, not_system},
    {"^Done$", {NULL}, true, just_done},
    {NULL, {"Done"}, true, just_done},
    {"one$", {NULL}, true, any_one},
};
#define SOME_FILTERS (sizeof some_filters / sizeof some_filters[0])

static uint64_t chance;
static size_t below(size_t limit)
{
    chance = chance * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (size_t)(chance >> 33) % limit;
}

static void write_some(size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct written *w = &all_written[written_count++];
        char word[16];
        w->stream = some_streams[below(6)];
        w->type = some_types[below(4)];
        (void)snprintf(word, sizeof word, "%zu", written_count);
        struct deed_new_event event = said(w->stream, word);
        event.type = deed_str_of(w->type);
        say_event(event);
        (void)snprintf(w->line, sizeof w->line, "%s/%llu %s\n", w->stream,
                       (unsigned long long)appended.revision, word);
    }
}

static void model_add(struct buf *out, size_t filter, size_t i, size_t *left)
{
    if (*left == 0 || !some_filters[filter].matches(&all_written[i])) return;
    buf_add_str(out, deed_str_of(all_written[i].line));
    (*left)--;
}

/* What lies at positions from `low` to before `high`, in this direction. */
static const char *model_of(struct buf *out, size_t filter, uint64_t low, uint64_t high,
                            bool backwards, size_t count)
{
    uint64_t end = written_count + 2;
    buf_reset(out);
    if (high > end) high = end;
    for (uint64_t p = low < 2 ? 2 : low; !backwards && p < high; p++) {
        model_add(out, filter, (size_t)p - 2, &count);
    }
    for (uint64_t p = high; backwards && p > 2 && p > low; p--) {
        model_add(out, filter, (size_t)p - 3, &count);
    }
    buf_add_byte(out, '\0');
    return (const char *)out->ptr;
}

/* Of what was told only the events. */
static const char *events_told(struct buf *out)
{
    buf_reset(out);
    for (const char *line = tell(); *line != '\0'; line = strchr(line, '\n') + 1) {
        if (strchr(line, '/') > strchr(line, '\n') || strchr(line, '/') == NULL) continue;
        if (begins(line, "$log/")) continue;
        buf_add(out, line, (size_t)(strchr(line, '\n') + 1 - line));
    }
    buf_add_byte(out, '\0');
    return (const char *)out->ptr;
}

static struct asked asked_for(size_t filter)
{
    struct asked asked = {.regex = some_filters[filter].regex,
                          .by_type = some_filters[filter].by_type,
                          .from = FROM_PLACE,
                          .window = (uint32_t)below(9) + 1,
                          .multiplier = (uint32_t)below(3) + 1};
    memcpy(asked.prefixes, some_filters[filter].prefixes, sizeof asked.prefixes);
    return asked;
}

static void read_like_the_model(size_t filter, struct buf *got, struct buf *model)
{
    struct asked asked = asked_for(filter);
    asked.place = below(written_count + 5);
    asked.backwards = below(2) == 0;
    asked.count = below(2) == 0 ? 1 + below(5) : 1000;
    begin(asked);
    const char *wanted = asked.backwards
                             ? model_of(model, filter, 0, asked.place, true, asked.count)
                             : model_of(model, filter, asked.place, UINT64_MAX, false, asked.count);
    bool log_counts = !asked.backwards && asked.place < 2 && asked.count < 1000 &&
                      some_filters[filter].matches == of_orders; /* "$log" is one of them */
    if (!log_counts) assert_string_equal(events_told(got), wanted);
    cancel();
}

static size_t matches_in(size_t filter, uint64_t after, uint64_t last)
{
    size_t count = 0;
    for (uint64_t p = after < 1 ? 2 : after + 1; p <= last; p++) {
        count += some_filters[filter].matches(&all_written[p - 2]);
    }
    return count;
}

/* At a checkpoint all that matches up to there was told, and nothing behind it: who comes back with it
 * misses nothing. They ascend. */
static void check_checkpoints(size_t filter, uint64_t start, size_t *seen, uint64_t *checkpoint)
{
    for (const char *line = (const char *)told.ptr; *line != '\0'; line = strchr(line, '\n') + 1) {
        unsigned long long at = 0;
        if (sscanf(line, "checkpoint %llu", &at) == 1) {
            assert_true(at > *checkpoint && at < written_count + 2);
            assert_int_equal(*seen, matches_in(filter, start, at));
            *checkpoint = at;
        }
        const char *slash = strchr(line, '/');
        *seen += slash != NULL && slash < strchr(line, '\n') && !begins(line, "$log/");
    }
}

static void follow_like_the_model(size_t filter, struct buf *got, struct buf *model)
{
    struct asked asked = asked_for(filter);
    uint64_t after = below(written_count + 2);
    uint64_t start = after, checkpoint = 0;
    size_t seen = 0;
    asked.place = after;
    asked.subscribe = true;
    slice_size = 50 + below(500);
    begin(asked);
    for (int round = 0; round < 3; round++) {
        uint64_t end = written_count + 2;
        assert_string_equal(events_told(got),
                            model_of(model, filter, after + 1, end, false, SIZE_MAX));
        after = end - 1 > after ? end - 1 : after;
        check_checkpoints(filter, start, &seen, &checkpoint);
        write_some(1 + below(9));
    }
    cancel();
}

TEST(grpc_read, filters_say_what_looking_at_every_event_says)
{
    struct buf got, model;
    buf_init(&got, 1 << 20), buf_init(&model, 1 << 20);
    for (uint64_t seed = 1; seed <= 100; seed++) {
        chance = seed;
        written_count = 0;
        begin_story();
        write_some(20 + below(60));
        for (int round = 0; round < 4; round++) {
            size_t filter = below(SOME_FILTERS);
            never_in_haste = below(2) == 0;
            for (int i = 0; i < 4; i++) read_like_the_model(filter, &got, &model);
            follow_like_the_model(filter, &got, &model);
            slice_size = 1 << 20;
            if (below(3) == 0) close_api(), reopen(), open_api();
        }
        end_story();
    }
    buf_done(&got), buf_done(&model);
}

/* ---- haste, faults -------------------------------------------------------------------------- */

TEST(grpc_read, what_is_new_is_told_in_haste_and_what_is_old_is_not)
{
    begin_story();
    say_many("a", 1000);
    begin((struct asked){.subscribe = true, .stream = "a"});
    hasty_slices = slow_slices = 0;
    (void)tell();
    assert_true(slow_slices >= 1);
    say("a", "new");
    slow_slices = 0;
    expect_told("a/1000 new\n");
    assert_int_equal(slow_slices, 0);
    cancel();
    hasty_slices = slow_slices = 0;
    expect_read("a/0 0\na/1 1\n= 0\n", .stream = "a", .count = 2);
    assert_int_equal(slow_slices, 0);
    end_story();
}

TEST(grpc_read, damage_fails_the_read_and_says_where)
{
    begin_story();
    say("a", "zero"), say("a", "one"), say("a", "two");
    expect_ok(os_sim_rot(sim, SEGMENT(1), 3 * 4096 + 120, OS_SIM_ROT_FLIP));
    os_sim_drop_cache(sim);
    begin((struct asked){.stream = "a", .count = 9});
    const char *all = tell();
    if (strncmp(all, "a/0 zero\n= 15 ", 14) != 0) fail_msg("%s", all);
    end_story();
}

/* An event too large to be read in haste. */
static void say_large(const char *stream)
{
    static char data[700 << 10];
    memset(data, 'x', sizeof data);
    struct deed_new_event event = said(stream, "");
    event.data = (deed_bytes){(const uint8_t *)data, sizeof data};
    event.content_type = DEED_STR("text/plain");
    say_event(event);
}

TEST(grpc_read, what_haste_cannot_read_is_read_without)
{
    begin_story();
    say_many("a", 3);
    say_large("a");
    say("a", "last");
    hasty_slices = slow_slices = 0;
    begin((struct asked){.stream = "a", .count = 9});
    expect_told("a/0 0\na/1 1\na/2 2\na/3 xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\na/4 last\n= 0\n");
    assert_int_equal(hasty_slices, 1);
    assert_int_equal(slow_slices, 1);
    end_story();
}

TEST(grpc_read, a_subscription_that_cannot_begin_in_haste_says_nothing_yet)
{
    static char json[700 << 10];
    struct buf out;
    begin_story();
    say("a", "one");
    (void)snprintf(json, sizeof json, "{\"$maxCount\":5,\"x\":\"%0600000d\"}", 0);
    set_metadata("a", json);
    buf_init(&out, 1 << 20);
    begin((struct asked){.stream = "a", .subscribe = true});
    assert_int_equal(call.method->pull(&call, &out, 1 << 16, true), RPC_LATER);
    assert_int_equal(out.len, 0);
    buf_done(&out);
    never_in_haste = true;
    expect_told("confirmation\na/0 one\ncaught up at revision 0\n");
    end_story();
}

/* Fail the k-th read of the disk and all that follow, for every k: what was told until then is right. */
static void fail_each_read(struct asked asked, const char *whole)
{
    bool complete = false;
    for (uint64_t k = 1; !complete; k++) {
        assert_true(k < 100);
        close_api(), reopen(), open_api();
        os_sim_drop_cache(sim);
        os_sim_fail(sim, OS_SIM_READ, k, 1000, EIO);
        begin(asked);
        const char *all = tell();
        os_sim_heal(sim);
        complete = strcmp(all, whole) == 0;
        const char *end = strstr(all, "= 13 ");
        if (!complete && (end == NULL || strncmp(all, whole, (size_t)(end - all)) != 0)) {
            fail_msg("read %d: %s", (int)k, all);
        }
        cancel();
    }
}

TEST(grpc_read, a_disk_that_fails_fails_the_read_after_what_was_good)
{
    five_words();
    say_link("l", "1@a"), say_link("l", "0@b");
    fail_each_read((struct asked){.stream = "a", .count = 9, .compat = 1},
                   "a/0 zero\na/1 one\na/2 two\na/3 three\nlast 3\n= 0\n");
    fail_each_read((struct asked){.stream = "l", .count = 9, .resolve = true},
                   "a/1 one <- l/0 1@a\nb/0 other <- l/1 0@b\n= 0\n");
    fail_each_read((struct asked){.subscribe = true, .from = FROM_PLACE, .place = 3,
                                  .regex = "[ab]"},
                   "confirmation\nb/0 other\na/2 two\na/3 three\ncheckpoint 8\ncaught up at 8\n");
    end_story();
}

/* ---- threads -------------------------------------------------------------------------------- */

#define FOLLOWERS 8
#define WRITTEN   2000

struct follower {
    struct rpc rpc;
    struct arena arena, scratch;
    size_t got; /* events */
    bool wrong;
};

static void *write_many(void *context)
{
    struct store *into = context;
    for (unsigned i = 0; i < WRITTEN; i++) {
        char data[16];
        int size = snprintf(data, sizeof data, "%u", i);
        struct deed_new_event event = {.stream = DEED_STR("a"),
                                       .type = DEED_STR("T"),
                                       .data = {(const uint8_t *)data, (size_t)size}};
        struct deed_append append = {.events = &event, .event_count = 1};
        struct deed_appended done;
        if (store_append(into, &append, &done, NULL) != DEED_OK) abort();
    }
    return NULL;
}

/* Revisions in the frames follow one another. */
static void count_frames(struct follower *f, const struct buf *out)
{
    struct arena arena;
    arena_init(&arena, SIZE_MAX / 2);
    for (size_t at = 0; at < out->len;) {
        const uint8_t *head = out->ptr + at;
        size_t size = (size_t)head[2] << 16 | (size_t)head[3] << 8 | head[4];
        arena_reset(&arena);
        resp *m = grpc_unpack(&event_store__client__streams__read_resp__descriptor,
                              (deed_bytes){head + 5, size}, &arena, NULL);
        f->wrong |= m == NULL;
        if (m != NULL && m->event != NULL &&
            m->content_case == EVENT_STORE__CLIENT__STREAMS__READ_RESP__CONTENT_EVENT) {
            f->wrong |= m->event->event->stream_revision != f->got;
            f->got++;
        }
        at += 5 + size;
    }
    arena_done(&arena);
}

static void *follow(void *context)
{
    struct follower *f = context;
    struct buf out;
    buf_init(&out, 1 << 20);
    bool haste = true;
    while (f->got < WRITTEN && !f->wrong) {
        buf_reset(&out);
        enum rpc_pull answer = f->rpc.method->pull(&f->rpc, &out, 500 + f->got % 3000, haste);
        count_frames(f, &out);
        f->wrong |= answer == RPC_END;
        haste = answer != RPC_LATER;
        if (answer == RPC_WAIT) sched_yield();
    }
    buf_done(&out);
    return NULL;
}

TEST(grpc_read, followers_on_threads_of_their_own_get_each_event_once)
{
    static struct follower followers[FOLLOWERS];
    pthread_t writer, threads[FOLLOWERS];
    const struct rpc_method *method = rpc_method_find(DEED_STR(READ_PATH));
    struct buf message;
    start_here();
    open_api();
    buf_init(&message, 1 << 16);
    put_request(&message, &(struct asked){.stream = "a", .subscribe = true});
    assert_int_equal(pthread_create(&writer, NULL, write_many, store), 0);
    for (size_t i = 0; i < FOLLOWERS; i++) {
        struct follower *f = &followers[i];
        *f = (struct follower){0};
        arena_init(&f->arena, 1 << 20), arena_init(&f->scratch, 1 << 20);
        rpc_init(&f->rpc, read_api, method, &test_host);
        f->rpc.arena = &f->arena;
        f->rpc.scratch = &f->scratch;
        method->begin(&f->rpc);
        method->message(&f->rpc, buf_bytes(&message));
        assert_int_equal(pthread_create(&threads[i], NULL, follow, f), 0);
    }
    assert_int_equal(pthread_join(writer, NULL), 0);
    for (size_t i = 0; i < FOLLOWERS; i++) {
        struct follower *f = &followers[i];
        assert_int_equal(pthread_join(threads[i], NULL), 0);
        assert_false(f->wrong);
        assert_int_equal(f->got, WRITTEN);
        method->close(&f->rpc);
        rpc_done(&f->rpc);
        arena_done(&f->arena), arena_done(&f->scratch);
    }
    buf_done(&message);
    close_api();
    finish();
}

TEST_MAIN(grpc_read)
