/* test_grpc_node.c - belongs to grpc_gossip.c, grpc_operations.c and grpc_monitoring.c: what a client
 * asks about the node, and of it. */
#include "rpc_fixture.h"

#include "base/uuid.h"
#include "groups/groups.h"
#include "proto/gossip.pb-c.h"
#include "proto/monitoring.pb-c.h"
#include "proto/operations.pb-c.h"
#include "proto/shared.pb-c.h"

static struct talk *said_to;
static unsigned stops;

static void stop(void *context)
{
    (void)context;
    stops++;
}

static void open_with(struct api_parts parts)
{
    close_rpc();
    parts.store = store;
    expect_ok(api_create(&parts, &api, &err));
}

static void begin(void)
{
    start();
    open_rpc();
    stops = 0;
}

static void done(void)
{
    if (said_to != NULL) talk_close(said_to);
    said_to = NULL;
}

static void end(void)
{
    done();
    close_rpc();
    finish();
}

static void call_at(const char *service, const char *method, const char *authority,
                    const ProtobufCMessage *request)
{
    done();
    said_to = talk(service, method);
    if (authority != NULL) {
        said_to->headers[0] = (struct api_header){DEED_STR(":authority"), deed_str_of(authority)};
        said_to->rpc.header_count = 1;
    }
    talk_send(said_to, request);
    talk_half_close(said_to);
}

/* ---- gossip --------------------------------------------------------------------------------- */

/* "host:port" of the only member. */
static const char *gossip_at(const char *authority)
{
    static char address[512];
    EventStore__Client__Empty empty = EVENT_STORE__CLIENT__EMPTY__INIT;
    call_at("event_store.client.gossip.Gossip", "Read", authority, &empty.base);
    expect_ended(said_to, GRPC_OK, "");
    EventStore__Client__Gossip__ClusterInfo *info =
        talk_reply(said_to, &event_store__client__gossip__cluster_info__descriptor);
    assert_non_null(info);
    assert_int_equal(info->n_members, 1);
    const EventStore__Client__Gossip__MemberInfo *m = info->members[0];
    assert_int_equal(m->state, EVENT_STORE__CLIENT__GOSSIP__MEMBER_INFO__VNODE_STATE__Leader);
    assert_true(m->is_alive);
    assert_int_equal(m->instance_id->value_case, EVENT_STORE__CLIENT__UUID__VALUE_STRUCTURED);
    assert_true(m->instance_id->structured->least_significant_bits != 0);
    (void)snprintf(address, sizeof address, "%s:%u", m->http_end_point->address,
                   m->http_end_point->port);
    return address;
}

TEST(grpc_node, gossip_names_the_address_that_the_client_dialed)
{
    begin();
    assert_string_equal(gossip_at("db.example:2114"), "db.example:2114");
    assert_string_equal(gossip_at("127.0.0.1:65535"), "127.0.0.1:65535");
    assert_string_equal(gossip_at("[::1]:2113"), "[::1]:2113");
    assert_string_equal(gossip_at("localhost"), "localhost:2113");
    assert_string_equal(gossip_at("[::1]"), "[::1]:2113");
    assert_string_equal(gossip_at("::1"), "::1:2113");
    assert_string_equal(gossip_at("host:0"), "host:0:2113");
    assert_string_equal(gossip_at(":80"), ":80:2113");
    assert_string_equal(gossip_at(""), "127.0.0.1:2113");
    assert_string_equal(gossip_at(NULL), "127.0.0.1:2113");
    end();
}

TEST(grpc_node, gossip_names_what_it_was_told_to)
{
    begin();
    open_with((struct api_parts){.advertise_host = "outside.example", .advertise_port = 443});
    assert_string_equal(gossip_at("inside:2113"), "outside.example:443");
    open_with((struct api_parts){.advertise_host = "outside.example"});
    assert_string_equal(gossip_at("inside:2114"), "outside.example:2114");
    open_with((struct api_parts){.advertise_host = "2001:db8::7"});
    assert_string_equal(gossip_at("inside:2114"), "[2001:db8::7]:2114");
    open_with((struct api_parts){.advertise_host = "", .advertise_port = 443});
    assert_string_equal(gossip_at("inside:2113"), "inside:443");
    end();
}

/* ---- scavenges ------------------------------------------------------------------------------ */

#define OPERATIONS "event_store.client.operations.Operations"

enum { STARTED, IN_PROGRESS, STOPPED };

/* The store does no step while these two run: calls are begun beforehand. */
static void give(struct talk *t, const ProtobufCMessage *request)
{
    uint8_t bytes[256];
    assert_true(protobuf_c_message_get_packed_size(request) <= sizeof bytes);
    talk_give(t, (deed_bytes){bytes, protobuf_c_message_pack(request, bytes)});
    t->half_closed = true;
    talk_pull(t);
}

static char told_id[64];

static void expect_scavenge(struct talk *t, int result)
{
    expect_ended(t, GRPC_OK, "");
    EventStore__Client__Operations__ScavengeResp *reply =
        talk_reply(t, &event_store__client__operations__scavenge_resp__descriptor);
    assert_non_null(reply);
    assert_int_equal(reply->scavenge_result, result);
    (void)snprintf(told_id, sizeof told_id, "%s", reply->scavenge_id);
    talk_close(t);
}

static void start_scavenge(struct talk *t)
{
    EventStore__Client__Operations__StartScavengeReq r =
        EVENT_STORE__CLIENT__OPERATIONS__START_SCAVENGE_REQ__INIT;
    give(t, &r.base);
}

static void stop_scavenge(struct talk *t, const char *id)
{
    EventStore__Client__Operations__StopScavengeReq r =
        EVENT_STORE__CLIENT__OPERATIONS__STOP_SCAVENGE_REQ__INIT;
    EventStore__Client__Operations__StopScavengeReq__Options o =
        EVENT_STORE__CLIENT__OPERATIONS__STOP_SCAVENGE_REQ__OPTIONS__INIT;
    r.options = &o;
    o.scavenge_id = (char *)(uintptr_t)id;
    give(t, &r.base);
}

static void expect_no_scavenge(struct talk *t, const char *id)
{
    expect_ended(t, GRPC_NOT_FOUND, "is not running");
    expect_trailer(t, "exception", "scavenge-not-found");
    expect_trailer(t, "scavenge-id", id);
    talk_close(t);
}

static struct talk *starting(void)
{
    return talk(OPERATIONS, "StartScavenge");
}

static struct talk *stopping(void)
{
    return talk(OPERATIONS, "StopScavenge");
}

static struct deed_compaction compaction_now(void)
{
    struct deed_compaction c;
    store_compaction(store, &c);
    return c;
}

TEST(grpc_node, a_scavenge_is_a_compaction)
{
    char first[64];
    deed_uuid id;
    begin();
    struct talk *one = starting(), *two = starting(), *late = stopping();
    start_scavenge(one);
    expect_scavenge(one, STARTED);
    assert_true(uuid_parse(deed_str_of(told_id), &id));
    (void)snprintf(first, sizeof first, "%s", told_id);
    assert_int_equal(compaction_now().state, DEED_COMPACTION_RUNNING);
    start_scavenge(two);
    expect_scavenge(two, IN_PROGRESS);
    assert_string_equal(told_id, first);
    struct deed_compaction c;
    expect_ok(store_compaction_wait(store, &c, &err));
    stop_scavenge(late, first);
    expect_no_scavenge(late, first);
    one = starting();
    start_scavenge(one);
    expect_scavenge(one, STARTED);
    assert_string_not_equal(told_id, first);
    end();
}

TEST(grpc_node, a_scavenge_is_stopped_by_its_id)
{
    begin();
    struct talk *none = stopping(), *one = starting(), *other = stopping(), *right = stopping();
    stop_scavenge(none, "nonsense");
    expect_no_scavenge(none, "nonsense");
    start_scavenge(one);
    expect_scavenge(one, STARTED);
    stop_scavenge(other, "2f6c7d8e-0000-4000-8000-000000000001");
    expect_no_scavenge(other, "2f6c7d8e-0000-4000-8000-000000000001");
    stop_scavenge(right, told_id);
    expect_scavenge(right, STOPPED);
    struct deed_compaction c;
    expect_status(DEED_STOPPED, store_compaction_wait(store, &c, &err));
    end();
}

/* It is in progress as a scavenge is, and was promised to somebody. */
TEST(grpc_node, an_erasure_is_not_stopped)
{
    begin();
    say("a", "one");
    struct talk *one = starting(), *two = stopping();
    expect_ok(store_erase(store, DEED_STR("a"), (deed_str){0}, &err));
    start_scavenge(one);
    expect_scavenge(one, IN_PROGRESS);
    stop_scavenge(two, told_id);
    expect_ended(two, GRPC_FAILED_PRECONDITION, "an erasure cannot be stopped");
    talk_close(two);
    struct deed_compaction c;
    expect_ok(store_compaction_wait(store, &c, &err));
    end();
}

TEST(grpc_node, what_a_scavenge_cannot_be_is_said)
{
    EventStore__Client__Operations__StartScavengeReq r =
        EVENT_STORE__CLIENT__OPERATIONS__START_SCAVENGE_REQ__INIT;
    EventStore__Client__Operations__StartScavengeReq__Options o =
        EVENT_STORE__CLIENT__OPERATIONS__START_SCAVENGE_REQ__OPTIONS__INIT;
    begin();
    r.options = &o;
    o.start_from_chunk = -1;
    call_at(OPERATIONS, "StartScavenge", NULL, &r.base);
    expect_ended(said_to, GRPC_INVALID_ARGUMENT, "start_from_chunk -1 must not be negative");
    o.start_from_chunk = 7;
    o.thread_count = 3;
    call_at(OPERATIONS, "StartScavenge", NULL, &r.base);
    expect_ended(said_to, GRPC_OK, "");
    end();
}

/* ---- the node ------------------------------------------------------------------------------- */

static void expect_empty_answer(const char *method)
{
    EventStore__Client__Empty empty = EVENT_STORE__CLIENT__EMPTY__INIT;
    call_at(OPERATIONS, method, NULL, &empty.base);
    expect_ended(said_to, GRPC_OK, "");
    deed_bytes reply = talk_reply_bytes(said_to);
    assert_non_null(reply.ptr);
    assert_int_equal(reply.len, 0);
}

TEST(grpc_node, the_server_is_stopped_only_where_that_is_allowed)
{
    EventStore__Client__Empty empty = EVENT_STORE__CLIENT__EMPTY__INIT;
    begin();
    call_at(OPERATIONS, "Shutdown", NULL, &empty.base);
    expect_ended(said_to, GRPC_PERMISSION_DENIED, "--allow-shutdown");
    expect_trailer(said_to, "exception", "access-denied");
    done();
    open_with((struct api_parts){.stop = stop});
    assert_int_equal(stops, 0);
    expect_empty_answer("Shutdown");
    assert_int_equal(stops, 1);
    end();
}

TEST(grpc_node, what_needs_a_cluster_is_answered)
{
    begin();
    expect_empty_answer("MergeIndexes");
    expect_empty_answer("ResignNode");
    expect_empty_answer("SetNodePriority");
    done();
    said_to = talk(OPERATIONS, "SetNodePriority");
    talk_send_bytes(said_to, (deed_bytes){(const uint8_t *)"\xff", 1});
    talk_half_close(said_to);
    expect_ended(said_to, GRPC_INVALID_ARGUMENT, "");
    end();
}

TEST(grpc_node, consumer_groups_are_restarted)
{
    EventStore__Client__Empty empty = EVENT_STORE__CLIENT__EMPTY__INIT;
    struct groups_options how = {.no_threads = true};
    struct group_consumer_options joining = {.buffer_size = 1};
    struct group_settings settings;
    struct group_consumer *consumer;
    struct group_message message;
    struct groups *groups;
    size_t count;
    begin();
    call_at(OPERATIONS, "RestartPersistentSubscriptions", NULL, &empty.base);
    expect_ended(said_to, GRPC_UNAVAILABLE, "consumer groups are not served here");
    done();
    expect_ok(groups_open(store, &how, &groups, &err));
    open_with((struct api_parts){.groups = groups});
    group_settings_default(&settings);
    expect_ok(groups_create(groups, DEED_STR("a"), DEED_STR("g"), &settings, &err));
    expect_ok(groups_join(groups, DEED_STR("a"), DEED_STR("g"), &joining, &consumer, &err));
    expect_ok(groups_take(consumer, &message, 1, 1, &count, &err));
    expect_empty_answer("RestartPersistentSubscriptions");
    expect_status(DEED_STOPPED, groups_take(consumer, &message, 1, 1, &count, &err));
    groups_leave(consumer);
    done();
    close_rpc();
    groups_close(groups);
    end();
}

/* ---- stats ---------------------------------------------------------------------------------- */

static void stats_begin(uint64_t period_ms)
{
    EventStore__Client__Monitoring__StatsReq r = EVENT_STORE__CLIENT__MONITORING__STATS_REQ__INIT;
    r.refresh_time_period_in_ms = period_ms;
    call_at("event_store.client.monitoring.Monitoring", "Stats", NULL, &r.base);
}

/* A value of the next map. */
static const char *value_of(const char *key)
{
    EventStore__Client__Monitoring__StatsResp *r =
        talk_reply(said_to, &event_store__client__monitoring__stats_resp__descriptor);
    for (size_t i = 0; r != NULL && i < r->n_stats; i++) {
        if (strcmp(r->stats[i]->key, key) == 0) return r->stats[i]->value;
    }
    return r == NULL ? "nothing was sent" : "no such key";
}

TEST(grpc_node, stats_come_at_once_and_then_every_so_often)
{
    begin();
    stats_begin(5000);
    assert_string_equal(value_of("es-log-position"), "1");
    assert_true(said_to->rpc.wait_ms > 4900 && said_to->rpc.wait_ms <= 5001);
    say("a", "one");
    talk_run(said_to);
    assert_string_equal(value_of("es-log-position"), "nothing was sent");
    os_sim_advance(sim, 4 * SECOND);
    talk_run(said_to);
    assert_int_equal(talk_reply_count(said_to), 0);
    assert_true(said_to->rpc.wait_ms <= 1001);
    os_sim_advance(sim, SECOND + SECOND / 100);
    talk_run(said_to);
    assert_string_equal(value_of("es-log-position"), "2");
    assert_false(said_to->over); /* until the client has gone */
    end();
}

TEST(grpc_node, stats_do_not_come_all_the_time)
{
    begin();
    stats_begin(0);
    assert_string_equal(value_of("es-streams"), "1");
    assert_true(said_to->rpc.wait_ms >= 100);
    stats_begin(UINT64_MAX);
    assert_string_equal(value_of("es-log-writable"), "1");
    assert_int_equal(said_to->rpc.wait_ms, 86400001);
    end();
}

TEST_MAIN(grpc_node)
