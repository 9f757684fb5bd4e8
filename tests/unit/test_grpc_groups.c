/* test_grpc_groups.c - persistent subscriptions as a gRPC client meets them, without sockets.
 *
 * sanitize: asan */
#include "rpc_fixture.h"

#include "api/grpc_event.h"
#include "base/uuid.h"
#include "api/group_match.h"
#include "grpc/pb.h"
#include "groups/groups.h"
#include "proto/persistent_subscriptions.pb-c.h"

#define SERVICE "event_store.client.persistent_subscriptions.PersistentSubscriptions"
#define EP(name) EventStore__Client__PersistentSubscriptions__##name
#define TYPE_OF(name) &event_store__client__persistent_subscriptions__##name##__descriptor

static struct groups *groups;

static void begin(void)
{
    struct groups_options how = {.no_threads = true};
    group_match_hooks(&how);
    start();
    expect_ok(groups_open(store, &how, &groups, &err));
    struct api_parts parts = {.store = store, .groups = groups};
    expect_ok(api_create(&parts, &api, &err));
}

static void end(void)
{
    close_rpc();
    groups_close(groups);
    finish();
}

static void pump(struct talk *t)
{
    for (unsigned i = 0; i < 1000; i++) {
        bool more = groups_step(groups) == ACTOR_AGAIN;
        if (!store_step(store) && !more) break;
    }
    talk_run(t);
}

/* ---- messages: the little of them that clients always send ------------------------------------- */

static uint8_t message_room[4096];
static struct buf message;

static void message_begin(void)
{
    message = (struct buf){.ptr = message_room, .room = sizeof message_room,
                           .size_max = sizeof message_room};
}

static deed_bytes message_bytes(void)
{
    return buf_bytes(&message);
}

static void put_stream(unsigned field, const char *stream)
{
    size_t at = pb_begin(&message, field);
    pb_put_str(&message, 3, deed_str_of(stream));
    pb_end(&message, at);
}

struct creation {
    const char *stream; /* NULL: the log */
    const char *group, *strategy, *prefix;
    bool resolve_links;
    int retry_count_max, consumer_count_max, read_batch_size;
    uint64_t position; /* of the log */
};

static void put_settings(const struct creation *c)
{
    size_t at = pb_begin(&message, 3);
    pb_put_uint(&message, 1, c->resolve_links);
    pb_put_uint(&message, 5, (uint64_t)c->retry_count_max);
    pb_put_uint(&message, 7, 1);
    pb_put_uint(&message, 8, 1);
    pb_put_uint(&message, 9, (uint64_t)c->consumer_count_max);
    pb_put_uint(&message, 10, 500);
    pb_put_uint(&message, 11, c->read_batch_size == 0 ? 20 : (uint64_t)c->read_batch_size);
    pb_put_uint(&message, 12, 500);
    pb_put_uint(&message, 4, 300000000); /* ticks: 30 s */
    pb_put_uint(&message, 15, 2000);
    pb_put_str(&message, 16, deed_str_of(c->strategy == NULL ? "RoundRobin" : c->strategy));
    pb_end(&message, at);
}

static void put_all(const struct creation *c)
{
    size_t at = pb_begin(&message, 5);
    if (c->position > 0) {
        size_t position = pb_begin(&message, 1);
        pb_put_uint(&message, 1, c->position);
        pb_put_uint(&message, 2, c->position);
        pb_end(&message, position);
    } else {
        pb_put_empty(&message, 2);
    }
    if (c->prefix != NULL) {
        size_t filter = pb_begin(&message, 4);
        size_t expression = pb_begin(&message, 1);
        pb_put_str(&message, 2, deed_str_of(c->prefix));
        pb_end(&message, expression);
        pb_put_empty(&message, 4);
        pb_end(&message, filter);
    } else {
        pb_put_empty(&message, 5);
    }
    pb_end(&message, at);
}

static struct talk *change(const char *method, struct creation c)
{
    struct talk *t = talk(SERVICE, method);
    message_begin();
    size_t options_at = pb_begin(&message, 1);
    pb_put_str(&message, 2, deed_str_of(c.group == NULL ? "g" : c.group));
    put_settings(&c);
    if (c.stream == NULL) {
        put_all(&c);
    } else {
        size_t at = pb_begin(&message, 4);
        put_stream(1, c.stream);
        pb_put_empty(&message, 3);
        pb_end(&message, at);
    }
    pb_end(&message, options_at);
    talk_send_bytes(t, message_bytes());
    talk_half_close(t);
    return t;
}

#define create(...) change("Create", (struct creation){__VA_ARGS__})
#define update(...) change("Update", (struct creation){__VA_ARGS__})

static void expect_good(struct talk *t)
{
    expect_ended(t, GRPC_OK, "");
    talk_close(t);
}

/* Delete, GetInfo, ReplayParked, TruncateParked: group and stream under the method's own numbers. */
static struct talk *ask(const char *method, unsigned group_field, unsigned stream_field,
                        const char *stream, int64_t stop_at)
{
    struct talk *t = talk(SERVICE, method);
    message_begin();
    size_t at = pb_begin(&message, 1);
    pb_put_str(&message, group_field, DEED_STR("g"));
    put_stream(stream_field, stream);
    if (stop_at == INT64_MAX) pb_put_empty(&message, 5);
    if (stop_at != INT64_MAX && stop_at != INT64_MIN) pb_put_uint(&message, 4, (uint64_t)stop_at);
    pb_end(&message, at);
    talk_send_bytes(t, message_bytes());
    talk_half_close(t);
    return t;
}

static struct talk *read_group(const char *stream, int buffer_size)
{
    struct talk *t = talk(SERVICE, "Read");
    message_begin();
    size_t at = pb_begin(&message, 1);
    if (stream == NULL) {
        pb_put_empty(&message, 5);
    } else {
        put_stream(1, stream);
    }
    pb_put_str(&message, 2, DEED_STR("g"));
    pb_put_uint(&message, 3, (uint64_t)buffer_size);
    size_t option = pb_begin(&message, 4);
    pb_put_empty(&message, 2);
    pb_end(&message, option);
    pb_end(&message, at);
    talk_send_bytes(t, message_bytes());
    return t;
}

static const char *next_word(struct talk *t, deed_uuid *out_id)
{
    static char word[64];
    pump(t);
    const EP(ReadResp) *r = talk_reply(t, TYPE_OF(read_resp));
    if (r == NULL) return NULL;
    const EP(ReadResp__ReadEvent) *e = r->event;
    if (e == NULL) return "no event";
    const EP(ReadResp__ReadEvent__RecordedEvent) *shown = e->event != NULL ? e->event : e->link;
    const EP(ReadResp__ReadEvent__RecordedEvent) *original = e->link != NULL ? e->link : e->event;
    assert_int_equal(e->position_case, 3); /* commit_position, retry_count: by their numbers */
    assert_int_equal(e->count_case, 5);
    assert_true(uuid_parse(deed_str_of(original->id->string), out_id));
    (void)snprintf(word, sizeof word, "%.*s*%d", (int)shown->data.len, shown->data.data,
                   (int)e->retry_count);
    return word;
}

static void expect_confirmed(struct talk *t, const char *id)
{
    pump(t);
    const EP(ReadResp) *r = talk_reply(t, TYPE_OF(read_resp));
    assert_non_null(r);
    assert_non_null(r->subscription_confirmation);
    assert_string_equal(r->subscription_confirmation->subscription_id, id);
}

static void answer_id(struct talk *t, deed_uuid id, unsigned field, unsigned action)
{
    message_begin();
    size_t at = pb_begin(&message, field);
    grpc_put_uuid(&message, 2, id, true);
    if (field == 3) {
        pb_put_uint(&message, 3, action);
        pb_put_str(&message, 4, DEED_STR("because"));
    }
    pb_end(&message, at);
    talk_send_bytes(t, message_bytes());
}

/* ---- stories ------------------------------------------------------------------------------------- */

TEST(grpc_groups, events_are_delivered_and_acknowledged)
{
    deed_uuid id;
    begin();
    say("order-1", "one");
    say("order-1", "two");
    expect_good(create(.stream = "order-1", .retry_count_max = 5));
    struct talk *t = read_group("order-1", 1);
    expect_confirmed(t, "order-1::g");
    assert_string_equal(next_word(t, &id), "\"one\"*0");
    assert_null(next_word(t, &id));
    answer_id(t, id, 2, 0);
    assert_string_equal(next_word(t, &id), "\"two\"*0");
    answer_id(t, id, 3, 2);
    assert_string_equal(next_word(t, &id), "\"two\"*1");
    talk_half_close(t);
    expect_good(t);
    end();
}

TEST(grpc_groups, the_log_is_filtered)
{
    deed_uuid id;
    begin();
    expect_good(create(.prefix = "order-"));
    say("invoice-1", "no");
    say("order-1", "yes");
    struct talk *t = read_group(NULL, 10);
    expect_confirmed(t, "$all::g");
    assert_string_equal(next_word(t, &id), "\"yes\"*0");
    assert_null(next_word(t, &id));
    talk_close(t);
    end();
}

TEST(grpc_groups, a_virtual_streams_link_and_event_are_there)
{
    deed_uuid id;
    begin();
    expect_good(create(.stream = "$ce-order", .resolve_links = true));
    say("order-1", "yes");
    struct talk *t = read_group("$ce-order", 10);
    expect_confirmed(t, "$ce-order::g");
    assert_string_equal(next_word(t, &id), "\"yes\"*0");
    deed_uuid expected = store_link_id(store, DEED_STR("$ce-order"), 0);
    assert_memory_equal(&id, &expected, sizeof id);
    answer_id(t, id, 3, 1); /* park */
    pump(t);
    talk_close(t);
    t = ask("GetInfo", 3, 1, "$ce-order", INT64_MIN);
    EP(GetInfoResp) *info = talk_reply(t, TYPE_OF(get_info_resp));
    assert_int_equal(info->subscription_info->parked_message_count, 1);
    expect_good(t);
    end();
}

TEST(grpc_groups, a_group_that_is_there_already_is_an_error_of_its_own)
{
    begin();
    expect_good(create(.stream = "order-1"));
    struct talk *t = create(.stream = "order-1");
    expect_ended(t, GRPC_ALREADY_EXISTS, "exists");
    expect_trailer(t, "exception", "persistent-subscription-exists");
    expect_trailer(t, "stream-name", "order-1");
    expect_trailer(t, "group-name", "g");
    talk_close(t);
    end();
}

static void expect_not_there(struct talk *t)
{
    expect_ended(t, GRPC_NOT_FOUND, "does not exist");
    expect_trailer(t, "exception", "persistent-subscription-does-not-exist");
    expect_trailer(t, "stream-name", "order-1");
    talk_close(t);
}

TEST(grpc_groups, a_group_that_is_not_there_is_an_error_of_its_own)
{
    begin();
    expect_not_there(update(.stream = "order-1"));
    expect_not_there(ask("Delete", 2, 1, "order-1", INT64_MIN));
    expect_not_there(ask("GetInfo", 3, 1, "order-1", INT64_MIN));
    expect_not_there(ask("ReplayParked", 1, 2, "order-1", INT64_MAX));
    expect_not_there(ask("TruncateParked", 1, 2, "order-1", 5));
    expect_not_there(read_group("order-1", 10));
    end();
}

static void expect_failed(struct talk *t, const char *reason)
{
    expect_ended(t, GRPC_INTERNAL, reason);
    expect_trailer(t, "exception", "persistent-subscription-failed");
    assert_non_null(trailer_of(t, "reason").ptr);
    talk_close(t);
}

TEST(grpc_groups, settings_that_make_no_sense_are_refused_with_a_reason)
{
    begin();
    expect_failed(create(.stream = "order-1", .strategy = "Random"), "strategy");
    expect_failed(create(.stream = "order-1", .read_batch_size = 500), "read batch size");
    expect_failed(create(.stream = "order-1", .consumer_count_max = -1), "subscriber count");
    expect_failed(create(.position = 100000), "beyond");
    expect_failed(create(.stream = "$all"), "$all");
    expect_failed(create(.stream = ""), "empty");
    end();
}

TEST(grpc_groups, what_must_be_there_is_asked_for)
{
    static const char *const methods[] = {"Create", "Update", "Delete", "GetInfo",
                                          "List", "ReplayParked", "TruncateParked", "Read"};
    begin();
    for (size_t i = 0; i < sizeof methods / sizeof methods[0]; i++) {
        struct talk *t = talk(SERVICE, methods[i]);
        talk_send_bytes(t, (deed_bytes){0});
        talk_half_close(t);
        expect_ended(t, GRPC_INVALID_ARGUMENT, "missing");
        talk_close(t);
    }
    struct talk *t = ask("ReplayParked", 1, 2, "order-1", INT64_MIN);
    expect_ended(t, GRPC_INVALID_ARGUMENT, "stop_at_option");
    talk_close(t);
    expect_failed(ask("ReplayParked", 1, 2, "order-1", -1), "negative");
    end();
}

TEST(grpc_groups, malformed_messages_end_the_call)
{
    static const uint8_t bad[] = {0x0a, 0x7f, 0x00};
    begin();
    struct talk *t = talk(SERVICE, "Create");
    talk_send_bytes(t, (deed_bytes){bad, sizeof bad});
    expect_ended(t, GRPC_INVALID_ARGUMENT, "");
    talk_close(t);
    expect_good(create(.stream = "order-1"));
    t = read_group("order-1", 10);
    talk_send_bytes(t, (deed_bytes){bad, sizeof bad});
    expect_ended(t, GRPC_INVALID_ARGUMENT, "malformed");
    talk_close(t);
    end();
}

TEST(grpc_groups, too_many_consumers_are_told_so)
{
    begin();
    expect_good(create(.stream = "order-1", .consumer_count_max = 1));
    struct talk *first = read_group("order-1", 10);
    struct talk *second = read_group("order-1", 10);
    expect_ended(second, GRPC_FAILED_PRECONDITION, "Maximum subscriptions reached");
    expect_trailer(second, "exception", "maximum-subscribers-reached");
    talk_close(second);
    talk_close(first);
    talk_close(read_group("order-1", 10)); /* the place is free again */
    end();
}

TEST(grpc_groups, consumers_are_dropped_by_an_update_and_a_deletion)
{
    begin();
    expect_good(create(.stream = "order-1"));
    for (unsigned i = 0; i < 2; i++) {
        struct talk *t = read_group("order-1", 10);
        expect_confirmed(t, "order-1::g");
        expect_good(i == 0 ? update(.stream = "order-1") : ask("Delete", 2, 1, "order-1", INT64_MIN));
        talk_run(t);
        expect_ended(t, GRPC_CANCELLED, "was dropped");
        expect_trailer(t, "exception", "persistent-subscription-dropped");
        talk_close(t);
    }
    end();
}

TEST(grpc_groups, parked_events_are_replayed_and_truncated)
{
    deed_uuid id;
    begin();
    say("order-1", "one");
    expect_good(create(.stream = "order-1"));
    struct talk *t = read_group("order-1", 10);
    expect_confirmed(t, "order-1::g");
    assert_string_equal(next_word(t, &id), "\"one\"*0");
    answer_id(t, id, 3, 1);
    pump(t);
    expect_good(ask("ReplayParked", 1, 2, "order-1", INT64_MAX));
    assert_string_equal(next_word(t, &id), "\"one\"*0");
    expect_failed(ask("ReplayParked", 1, 2, "order-1", INT64_MAX), "replaying");
    answer_id(t, id, 3, 1);
    pump(t);
    expect_good(ask("TruncateParked", 1, 2, "order-1", INT64_MAX));
    struct talk *info = ask("GetInfo", 3, 1, "order-1", INT64_MIN);
    EP(GetInfoResp) *reply = talk_reply(info, TYPE_OF(get_info_resp));
    assert_int_equal(reply->subscription_info->parked_message_count, 0);
    expect_good(info);
    talk_close(t);
    end();
}

TEST(grpc_groups, a_group_tells_all_about_itself)
{
    deed_uuid id;
    begin();
    say("order-1", "one");
    expect_good(create(.stream = "order-1", .strategy = "Pinned", .retry_count_max = 3));
    struct talk *t = read_group("order-1", 10);
    expect_confirmed(t, "order-1::g");
    assert_string_equal(next_word(t, &id), "\"one\"*0");
    answer_id(t, id, 2, 0);
    pump(t);
    struct talk *asked = ask("GetInfo", 3, 1, "order-1", INT64_MIN);
    EP(GetInfoResp) *reply = talk_reply(asked, TYPE_OF(get_info_resp));
    const EP(SubscriptionInfo) *info = reply->subscription_info;
    assert_string_equal(info->event_source, "order-1");
    assert_string_equal(info->group_name, "g");
    assert_string_equal(info->status, "Live");
    assert_string_equal(info->last_checkpointed_event_position, "0");
    assert_string_equal(info->last_known_event_position, "0");
    assert_string_equal(info->start_from, "0");
    assert_string_equal(info->named_consumer_strategy, "Pinned");
    assert_int_equal(info->message_timeout_milliseconds, 30000);
    assert_int_equal(info->check_point_after_milliseconds, 2000);
    assert_int_equal(info->max_retry_count, 3);
    assert_int_equal(info->total_items, 1);
    assert_int_equal(info->n_connections, 1);
    assert_string_equal(info->connections[0]->connection_name, "<unknown>");
    assert_string_equal(info->connections[0]->from, "127.0.0.1:5000");
    assert_int_equal(info->connections[0]->available_slots, 10);
    expect_good(asked);
    talk_close(t);
    end();
}

static struct talk *list(const char *stream)
{
    struct talk *t = talk(SERVICE, "List");
    message_begin();
    size_t at = pb_begin(&message, 1);
    if (stream == NULL) {
        pb_put_empty(&message, 1);
    } else {
        size_t option = pb_begin(&message, 2);
        put_stream(1, stream);
        pb_end(&message, option);
    }
    pb_end(&message, at);
    talk_send_bytes(t, message_bytes());
    talk_half_close(t);
    return t;
}

TEST(grpc_groups, groups_are_listed)
{
    begin();
    struct talk *t = list(NULL);
    assert_int_equal(((EP(ListResp) *)talk_reply(t, TYPE_OF(list_resp)))->n_subscriptions, 0);
    expect_good(t);
    expect_good(create(.stream = "order-1"));
    expect_good(create(.prefix = "a"));
    t = list(NULL);
    EP(ListResp) *r = talk_reply(t, TYPE_OF(list_resp));
    assert_int_equal(r->n_subscriptions, 2);
    assert_string_equal(r->subscriptions[0]->event_source, "$all");
    assert_string_equal(r->subscriptions[0]->start_from, "C:0/P:0");
    expect_good(t);
    t = list("order-1");
    assert_int_equal(((EP(ListResp) *)talk_reply(t, TYPE_OF(list_resp)))->n_subscriptions, 1);
    expect_good(t);
    t = list("order-2");
    expect_ended(t, GRPC_NOT_FOUND, "");
    expect_trailer(t, "group-name", "");
    talk_close(t);
    end();
}

TEST(grpc_groups, a_restart_of_the_subsystem_drops_consumers)
{
    begin();
    expect_good(create(.stream = "order-1"));
    struct talk *t = read_group("order-1", 10);
    struct talk *r = talk(SERVICE, "RestartSubsystem");
    talk_send_bytes(r, (deed_bytes){0});
    talk_half_close(r);
    expect_good(r);
    talk_run(t);
    expect_ended(t, GRPC_CANCELLED, "dropped");
    talk_close(t);
    end();
}

TEST(grpc_groups, a_slow_client_is_given_what_it_takes)
{
    begin();
    static char large[40000];
    memset(large, 'x', sizeof large - 1);
    for (unsigned i = 0; i < 20; i++) {
        struct deed_new_event e = said("order-1", "x");
        e.content_type = DEED_STR("text/plain");
        e.data = deed_bytes_of(deed_str_of(large));
        say_event(e);
    }
    expect_good(create(.stream = "order-1"));
    talk_out_max = 1; /* nothing while there is something to read */
    struct talk *t = read_group("order-1", 100);
    expect_confirmed(t, "order-1::g");
    talk_out_max = 100000;
    pump(t);
    assert_in_range(t->out.len - t->read, 60000, 260000);
    talk_out_max = (size_t)64 << 20;
    pump(t);
    assert_int_equal(talk_reply_count(t), 20);
    talk_close(t);
    end();
}

TEST(grpc_groups, without_groups_the_service_is_unavailable)
{
    start();
    open_rpc();
    struct talk *t = create(.stream = "order-1");
    expect_ended(t, GRPC_UNAVAILABLE, "not served here");
    talk_close(t);
    t = talk(SERVICE, "Read");
    expect_ended(t, GRPC_UNAVAILABLE, "not served here");
    talk_close(t);
    close_rpc();
    finish();
}

TEST_MAIN(grpc_groups)
