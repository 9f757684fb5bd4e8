/* The executor over a real store and the orders example, in this process. */
#include "test.h"

#include "../../examples/orders/orders.c"

#include "domain/executor.h"
#include "domain/explain.h"
#include "domain/host.h"
#include "os/thread.h"
#include "stub_fixture.h"

#include <pthread.h>
#include <unistd.h>

static char directory[64];
static struct store *store;
static struct executor *executor;
static struct deed_error err;
static struct deed_decided decided;

static void start(void)
{
    struct store_options options = {.unsafe_no_sync = true};
    struct domain_host *host = NULL;
    expect_ok(store_open(os_real(), directory, &options, &store, &err));
    expect_ok(host_in_process(&deed_domain_v1, &host, &err));
    expect_ok(executor_open(store, host, NULL, &executor, &err));
}

static void stop(void)
{
    executor_close(executor);
    store_close(store);
}

static void fresh(void)
{
    snprintf(directory, sizeof directory, "/tmp/deedbook-executor-XXXXXX");
    assert_non_null(mkdtemp(directory));
    start();
}

static void gone(void)
{
    stop();
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", directory);
    assert_int_equal(system(command), 0);
}

static deed_status run(const char *name, const char *data)
{
    return executor_decide(executor,
                           &(struct deed_command){.name = deed_str_of(name),
                                                  .data = deed_bytes_of(deed_str_of(data))},
                           &decided, NULL, NULL, &err);
}

static deed_status run_key(const char *name, const char *data, const char *key)
{
    return executor_decide(executor,
                           &(struct deed_command){.name = deed_str_of(name),
                                                  .data = deed_bytes_of(deed_str_of(data)),
                                                  .idempotency_key = deed_str_of(key)},
                           &decided, NULL, NULL, &err);
}

static deed_status run_if(const char *name, const char *data, uint64_t revision)
{
    return executor_decide(executor,
                           &(struct deed_command){.name = deed_str_of(name),
                                                  .data = deed_bytes_of(deed_str_of(data)),
                                                  .has_if_match = true,
                                                  .if_match = revision},
                           &decided, NULL, NULL, &err);
}

#define ADDRESS                                                                                    \
    "\"shipping_address\":{\"street\":\"Unter den Linden 1\",\"city\":\"Berlin\",\"region\":null," \
    "\"postal_code\":null,\"country\":\"Germany\"}"
#define CREATE(id, more)                                                                           \
    "{\"order_id\":\"" id "\",\"customer\":{\"id\":\"C1\",\"name\":\"Anna\"}," ADDRESS             \
    ",\"currency\":\"EUR\",\"order_date\":\"2026-11-23\"" more "}"
#define ADD(id, line)                                                                              \
    "{\"order_id\":\"" id "\",\"line_id\":\"" line "\",\"product_id\":\"P1\","                     \
    "\"product_name\":\"Tea\",\"quantity\":3,\"unit_price_cents\":333,\"discount_percent\":5}"

static void expect_rejected(const char *code, deed_status status)
{
    expect_status(DEED_REJECTED, status);
    assert_string_equal(err.code, code);
}

static deed_str state_at(const char *stream, uint64_t revision, struct buf *out)
{
    uint64_t at = 0, position = 0;
    buf_reset(out);
    expect_ok(executor_state(executor, deed_str_of(stream), revision, out, &at, &position, &err));
    if (revision != DEED_NONE) assert_int_equal(at, revision);
    assert_true(position > 0);
    return buf_str(out);
}

static void expect_in(deed_str text, const char *part)
{
    if (memmem(text.ptr, text.len, part, strlen(part)) == NULL) {
        fail_msg("\"%.*s\" lacks \"%s\"", DEED_FMT(text), part);
    }
}

TEST(executor, a_command_becomes_events_in_one_commit)
{
    fresh();
    expect_ok(run("CreateOrder",
                  CREATE("1", ",\"lines\":[{\"line_id\":\"a\",\"product_id\":\"P1\","
                              "\"product_name\":\"Tea\",\"quantity\":2,\"unit_price_cents\":150,"
                              "\"discount_percent\":0}]")));
    assert_int_equal(decided.event_count, 2);
    assert_int_equal(decided.first_revision, 0);
    assert_int_equal(decided.revision, 1);
    assert_false(decided.repeated);

    expect_ok(run("AddLineItem", ADD("1", "b")));
    assert_int_equal(decided.revision, 2);
    struct buf out;
    buf_init(&out, 1 << 20);
    deed_str text = state_at("order-1", DEED_NONE, &out);
    expect_in(text, "\"order_total_cents\":1249"); /* 300 + round(3 * 333 * 0.95) = 300 + 949 */
    expect_in(text, "\"region\":null");
    text = state_at("order-1", 1, &out);
    expect_in(text, "\"order_total_cents\":300");
    text = state_at("order-1", 0, &out);
    expect_in(text, "\"lines\":[]");
    buf_done(&out);
    gone();
}

TEST(executor, every_rule_of_the_shop_is_kept)
{
    fresh();
    expect_rejected("order_not_found", run("AddLineItem", ADD("1", "a")));
    expect_ok(run("CreateOrder", CREATE("1", "")));
    expect_rejected("order_exists", run("CreateOrder", CREATE("1", "")));
    expect_rejected("order_empty",
                    run("ShipOrder", "{\"order_id\":\"1\",\"carrier\":\"UPS\","
                                     "\"tracking_number\":\"T\",\"shipped_on\":\"2026-11-24\"}"));
    expect_ok(run("AddLineItem", ADD("1", "a")));
    expect_rejected("line_exists", run("AddLineItem", ADD("1", "a")));
    expect_rejected("line_not_found",
                    run("RemoveLineItem", "{\"order_id\":\"1\",\"line_id\":\"b\"}"));
    expect_ok(run("ShipOrder", "{\"order_id\":\"1\",\"carrier\":\"UPS\","
                               "\"tracking_number\":\"T\",\"shipped_on\":\"2026-11-24\"}"));
    expect_rejected("order_shipped", run("AddLineItem", ADD("1", "b")));
    expect_message(err, "order 1 has been shipped");
    assert_int_equal(store_position(store), 4);
    gone();
}

TEST(executor, a_wrong_body_is_told_by_path_before_anything_is_decided)
{
    fresh();
    expect_status(DEED_INVALID, run("AddLineItem", "{\"order_id\":\"1\",\"quantity\":\"x\"}"));
    expect_message(err, "AddLineItem: quantity: expected an integer, came \"x\"");
    expect_message(err, "line_id is missing");
    expect_status(DEED_INVALID, run("AddLineItem", "[]"));
    expect_message(err, "expected an object, came an array");
    expect_status(DEED_INVALID, run("AddLineItem", "{"));
    expect_status(DEED_INVALID, run("RemoveLineItem", "{\"line_id\":\"b\"}"));
    expect_message(err, "order_id is missing");
    expect_status(DEED_INVALID, run("RemoveLineItem", "{\"order_id\":7,\"line_id\":\"b\"}"));
    expect_message(err, "order_id: expected a text, came 7");
    expect_status(DEED_INVALID, run("RemoveLineItem", "{\"order_id\":\"\",\"line_id\":\"b\"}"));
    expect_message(err, "order_id: expected a text that is not empty");
    expect_status(DEED_INVALID,
                  run("RemoveLineItem", "{\"order_id\":\"1\",\"line_id\":\"b\",\"x\":1}"));
    expect_message(err, "x is unknown");
    expect_status(DEED_NOT_FOUND, run("Remove", "{}"));
    expect_message(err, "there is no command Remove");
    assert_int_equal(store_position(store), 1);
    gone();
}

TEST(executor, if_match_is_the_revision_or_else)
{
    fresh();
    expect_status(DEED_STALE, run_if("CreateOrder", CREATE("1", ""), 0));
    expect_ok(run_if("CreateOrder", CREATE("1", ""), DEED_NONE));
    expect_status(DEED_STALE, run_if("CreateOrder", CREATE("1", ""), DEED_NONE));
    expect_status(DEED_STALE, run_if("AddLineItem", ADD("1", "a"), 7));
    expect_message(err, "stream order-1 is at revision 0, revision 7 was asked for");
    assert_int_equal(err.revision, 0);
    expect_ok(run_if("AddLineItem", ADD("1", "a"), 0));
    gone();
}

TEST(executor, the_same_key_gives_the_first_answer)
{
    fresh();
    expect_ok(run_key("CreateOrder", CREATE("1", ""), "k1"));
    struct deed_decided first = decided;
    expect_ok(run_key("CreateOrder", CREATE("1", ""), "k1"));
    assert_true(decided.repeated);
    assert_int_equal(decided.position, first.position);
    assert_int_equal(decided.revision, first.revision);
    assert_int_equal(decided.event_count, 1);
    expect_status(DEED_CONFLICT, run_key("CreateOrder", CREATE("2", ""), "k1"));
    expect_message(err, "idempotency key k1 was used for another request");

    /* A rejection is not remembered. */
    expect_rejected("line_not_found",
                    run_key("RemoveLineItem", "{\"order_id\":\"1\",\"line_id\":\"a\"}", "k2"));
    expect_ok(run("AddLineItem", ADD("1", "a")));
    expect_ok(run_key("RemoveLineItem", "{\"order_id\":\"1\",\"line_id\":\"a\"}", "k2"));
    assert_false(decided.repeated);

    /* Also after a restart. */
    stop();
    start();
    expect_ok(run_key("CreateOrder", CREATE("1", ""), "k1"));
    assert_true(decided.repeated);
    gone();
}

struct seen {
    struct os_mutex lock;
    struct os_cond cond;
    size_t answers, ok, repeated, rejected, other;
    char type[64];
    char correlation[64], causation[64], actor[64];
    uint64_t position;
    int64_t recorded_at_ns, time_ns;
};

static void seen_init(struct seen *seen)
{
    memset(seen, 0, sizeof *seen);
    os_mutex_init(&seen->lock);
    os_cond_init(&seen->cond);
}

static void seen_done(void *context, const struct deed_decided *answer, deed_str stream,
                      const struct deed_event *events, size_t event_count,
                      const struct deed_error *error)
{
    (void)stream;
    struct seen *seen = context;
    os_mutex_lock(&seen->lock);
    seen->answers++;
    seen->ok += answer != NULL;
    seen->repeated += answer != NULL && answer->repeated;
    seen->rejected += error != NULL && error->status == DEED_REJECTED;
    seen->other += error != NULL && error->status != DEED_REJECTED;
    if (event_count > 0) {
        const struct deed_event *e = &events[event_count - 1];
        snprintf(seen->type, sizeof seen->type, "%.*s", DEED_FMT(e->type));
        snprintf(seen->correlation, sizeof seen->correlation, "%.*s", DEED_FMT(e->correlation_id));
        snprintf(seen->causation, sizeof seen->causation, "%.*s", DEED_FMT(e->causation_id));
        snprintf(seen->actor, sizeof seen->actor, "%.*s", DEED_FMT(e->actor));
        seen->position = e->position;
        seen->recorded_at_ns = e->recorded_at_ns;
        seen->time_ns = e->time_ns;
    }
    os_cond_signal(&seen->cond);
    os_mutex_unlock(&seen->lock);
}

static void seen_wait(struct seen *seen, size_t answers)
{
    os_mutex_lock(&seen->lock);
    while (seen->answers < answers)
        (void)os_cond_wait(&seen->cond, &seen->lock, UINT64_MAX);
    os_mutex_unlock(&seen->lock);
}

TEST(executor, ids_and_actor_go_into_the_events)
{
    fresh();
    struct seen seen;
    seen_init(&seen);
    struct deed_command command = {.name = DEED_STR("CreateOrder"),
                                   .data = deed_bytes_of(DEED_STR(CREATE("1", ""))),
                                   .correlation_id = DEED_STR("checkout-7"),
                                   .actor = DEED_STR("anna"),
                                   .id = {{1, 2, 3}}};
    expect_ok(executor_submit(executor, &command, seen_done, &seen, &err));
    seen_wait(&seen, 1);
    assert_string_equal(seen.type, "OrderCreated");
    assert_string_equal(seen.correlation, "checkout-7");
    assert_string_equal(seen.causation, "01020300-0000-0000-0000-000000000000");
    assert_string_equal(seen.actor, "anna");
    assert_int_equal(seen.position, 2);
    assert_true(seen.recorded_at_ns >= seen.time_ns && seen.time_ns > 0);
    gone();
}

TEST(executor, one_key_sent_many_times_at_once_is_done_once)
{
    fresh();
    struct seen seen;
    seen_init(&seen);
    for (int i = 0; i < 50; i++) {
        struct deed_command command = {.name = DEED_STR("CreateOrder"),
                                       .data = deed_bytes_of(DEED_STR(CREATE("1", ""))),
                                       .idempotency_key = DEED_STR("once")};
        expect_ok(executor_submit(executor, &command, seen_done, &seen, &err));
    }
    seen_wait(&seen, 50);
    assert_int_equal(seen.ok, 50);
    assert_int_equal(seen.repeated, 49);
    assert_int_equal(store_position(store), 2);
    gone();
}

TEST(executor, commands_on_one_stream_are_decided_one_after_the_other)
{
    fresh();
    struct seen seen;
    seen_init(&seen);
    expect_ok(run("CreateOrder", CREATE("1", "")));
    /* 100 lines, each sent twice: one of each two must be rejected. */
    for (int i = 0; i < 200; i++) {
        char data[256];
        snprintf(
            data, sizeof data,
            "{\"order_id\":\"1\",\"line_id\":\"L%d\",\"product_id\":\"P\",\"product_name\":\"T\","
            "\"quantity\":1,\"unit_price_cents\":1,\"discount_percent\":0}",
            i / 2);
        struct deed_command command = {.name = DEED_STR("AddLineItem"),
                                       .data = deed_bytes_of(deed_str_of(data))};
        expect_ok(executor_submit(executor, &command, seen_done, &seen, &err));
    }
    seen_wait(&seen, 200);
    assert_int_equal(seen.ok, 100);
    assert_int_equal(seen.rejected, 100);
    struct buf out;
    buf_init(&out, 1 << 20);
    expect_in(state_at("order-1", DEED_NONE, &out), "\"order_total_cents\":100,");
    buf_done(&out);

    struct executor_metrics metrics;
    executor_get_metrics(executor, &metrics);
    assert_int_equal(metrics.commands, 201);
    assert_int_equal(metrics.rejected, 100);
    assert_int_equal(metrics.conflicts, 0);
    assert_int_equal(metrics.decide.count, 201);
    gone();
}

/* Another writer on the same stream, past the executor. */
static void write_past(const char *stream, const char *type, const char *data)
{
    struct deed_new_event event = {.stream = deed_str_of(stream),
                                   .type = deed_str_of(type),
                                   .data = deed_bytes_of(deed_str_of(data))};
    struct deed_append append = {.events = &event, .event_count = 1};
    struct deed_appended appended;
    expect_ok(store_append(store, &append, &appended, &err));
}

static void *writer(void *context)
{
    (void)context;
    for (int i = 0; i < 300; i++)
        write_past("order-1", "Noted", "{\"note\":\"…\"}");
    return NULL;
}

TEST(executor, another_writer_makes_it_decide_again)
{
    fresh();
    expect_ok(run("CreateOrder", CREATE("1", "")));
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, writer, NULL), 0);
    int added = 0;
    for (int i = 0; i < 60; i++) {
        char data[256];
        snprintf(
            data, sizeof data,
            "{\"order_id\":\"1\",\"line_id\":\"L%d\",\"product_id\":\"P\",\"product_name\":\"T\","
            "\"quantity\":1,\"unit_price_cents\":1,\"discount_percent\":0}",
            i);
        deed_status status = run("AddLineItem", data);
        assert_true(status == DEED_OK || status == DEED_CONFLICT);
        added += status == DEED_OK;
    }
    pthread_join(thread, NULL);
    assert_true(added > 0);
    struct buf out;
    char total[64];
    buf_init(&out, 1 << 20);
    snprintf(total, sizeof total, "\"order_total_cents\":%d,", added);
    expect_in(state_at("order-1", DEED_NONE, &out), total);
    buf_done(&out);
    gone();
}

TEST(executor, a_soft_deleted_aggregate_begins_anew_and_a_closed_one_stays_closed)
{
    fresh();
    expect_ok(run("CreateOrder", CREATE("1", "")));
    expect_ok(run("AddLineItem", ADD("1", "a")));
    struct deed_appended appended;
    expect_ok(store_delete_stream(store, DEED_STR("order-1"), DEED_EXPECT_ANY, 0, false,
                                  (deed_str){0}, &appended, &err));
    expect_rejected("order_not_found", run("AddLineItem", ADD("1", "b")));
    expect_status(DEED_STALE, run_if("AddLineItem", ADD("1", "b"), 1));
    struct buf out;
    buf_init(&out, 1 << 20);
    expect_status(DEED_NOT_FOUND,
                  executor_state(executor, DEED_STR("order-1"), DEED_NONE, &out, NULL, NULL, &err));
    expect_ok(run("CreateOrder", CREATE("1", "")));
    assert_int_equal(decided.revision, 2);
    expect_ok(run("AddLineItem", ADD("1", "b")));
    expect_in(state_at("order-1", DEED_NONE, &out), "\"lines\":[{\"line_id\":\"b\"");
    expect_status(DEED_NOT_FOUND,
                  executor_state(executor, DEED_STR("order-1"), 1, &out, NULL, NULL, &err));
    expect_message(err, "has no revision 1: it has 2 to 3");

    expect_ok(store_delete_stream(store, DEED_STR("order-1"), DEED_EXPECT_ANY, 0, true,
                                  (deed_str){0}, &appended, &err));
    expect_status(DEED_DELETED, run("CreateOrder", CREATE("1", "")));
    buf_done(&out);
    gone();
}

TEST(executor, retention_hides_events_from_readers_but_not_from_decisions)
{
    fresh();
    expect_ok(run("CreateOrder", CREATE("1", "")));
    expect_ok(run("AddLineItem", ADD("1", "a")));
    write_past("$$order-1", "$metadata", "{\"$maxCount\":1,\"$maxAge\":1}");
    expect_ok(run("AddLineItem", ADD("1", "b")));
    struct buf out;
    buf_init(&out, 1 << 20);
    expect_in(state_at("order-1", DEED_NONE, &out), "\"order_total_cents\":1898");
    expect_in(state_at("order-1", 0, &out), "\"order_id\":\"1\",\"status\":\"open\"");

    /* A cut is another matter: what is before it is no longer meant. */
    write_past("$$order-1", "$metadata", "{\"$tb\":2}");
    expect_in(state_at("order-1", DEED_NONE, &out), "\"status\":null");
    expect_status(DEED_NOT_FOUND,
                  executor_state(executor, DEED_STR("order-1"), 1, &out, NULL, NULL, &err));
    buf_done(&out);
    gone();
}

TEST(executor, what_is_not_there_is_not_found)
{
    fresh();
    struct buf out;
    buf_init(&out, 1 << 20);
    expect_status(DEED_NOT_FOUND,
                  executor_state(executor, DEED_STR("order-9"), DEED_NONE, &out, NULL, NULL, &err));
    expect_status(DEED_NOT_FOUND,
                  executor_state(executor, DEED_STR("cart-9"), DEED_NONE, &out, NULL, NULL, &err));
    expect_message(err, "is of no aggregate");
    expect_ok(run("CreateOrder", CREATE("9", "")));
    expect_status(DEED_NOT_FOUND,
                  executor_state(executor, DEED_STR("order-9"), 1, &out, NULL, NULL, &err));
    assert_null(executor_aggregate(executor, DEED_STR("cart")).ptr);
    expect_str(executor_aggregate(executor, DEED_STR("order")), "order");
    expect_in(executor_model(executor), "\"name\":\"AddLineItem\",\"id\":\"order_id\"");
    buf_done(&out);
    gone();
}

TEST(executor, damage_in_the_domains_own_events_is_named)
{
    fresh();
    expect_ok(run("CreateOrder", CREATE("1", "")));
    write_past("order-1", "OrderShipped", "{\"carrier\":7}");
    expect_status(DEED_DOMAIN, run("AddLineItem", ADD("1", "a")));
    expect_message(err, "event OrderShipped at revision 1 of order-1: carrier: expected a text");
    gone();
}

TEST(executor, a_long_stream_is_folded_in_pieces)
{
    fresh();
    expect_ok(run("CreateOrder", CREATE("1", "")));
    /* 6,000 events of about 1 kB: several pieces of 1 MiB. */
    static char big[1100];
    memset(big, 'x', sizeof big - 1);
    char data[1400];
    snprintf(data, sizeof data, "{\"note\":\"%s\"}", big);
    struct deed_new_event events[100];
    for (int i = 0; i < 100; i++) {
        events[i] = (struct deed_new_event){.stream = DEED_STR("order-1"),
                                            .type = DEED_STR("Noted"),
                                            .data = deed_bytes_of(deed_str_of(data))};
    }
    struct deed_append append = {.events = events, .event_count = 100};
    struct deed_appended appended;
    for (int i = 0; i < 60; i++)
        expect_ok(store_append(store, &append, &appended, &err));
    expect_ok(run("AddLineItem", ADD("1", "a")));
    assert_int_equal(decided.revision, 6001);
    struct buf out;
    buf_init(&out, 1 << 20);
    expect_in(state_at("order-1", 5999, &out), "\"order_total_cents\":0");
    stop();
    start();
    expect_in(state_at("order-1", DEED_NONE, &out), "\"order_total_cents\":949");
    buf_done(&out);
    gone();
}

static void start_without_threads(void)
{
    struct domain_host *host = NULL;
    struct executor_options options = {.no_threads = true};
    struct store_options store_options = {.no_threads = true, .unsafe_no_sync = true};
    stop();
    expect_ok(host_in_process(&deed_domain_v1, &host, &err));
    expect_ok(store_open(os_real(), directory, &store_options, &store, &err));
    expect_ok(executor_open(store, host, &options, &executor, &err));
}

static void nothing_done(void *context, const struct deed_appended *appended,
                         const struct deed_error *error)
{
    (void)context, (void)error;
    assert_non_null(appended);
}

TEST(executor, if_match_still_holds_when_only_the_metadata_moves)
{
    fresh();
    expect_ok(run("CreateOrder", CREATE("1", "")));
    start_without_threads();
    struct deed_command command = {.name = DEED_STR("AddLineItem"),
                                   .data = deed_bytes_of(DEED_STR(ADD("1", "a"))),
                                   .has_if_match = true,
                                   .if_match = 0};
    struct deed_new_event event = {.stream = DEED_STR("$$order-1"),
                                   .type = DEED_STR("$metadata"),
                                   .data = deed_bytes_of(DEED_STR("{\"$maxCount\":100}"))};
    struct deed_append append = {.events = &event, .event_count = 1};
    struct seen seen;
    seen_init(&seen);
    /* Stored between the decision and its append. */
    expect_ok(store_submit(store, &append, nothing_done, NULL, &err));
    expect_ok(executor_submit(executor, &command, seen_done, &seen, &err));
    assert_true(executor_step(executor));
    while (store_step(store) || executor_step(executor))
        continue;
    assert_int_equal(seen.ok, 1);
    struct executor_metrics metrics;
    executor_get_metrics(executor, &metrics);
    assert_int_equal(metrics.conflicts, 1);
    gone();
}

TEST(executor, a_full_queue_is_busy_and_closing_finishes_what_was_accepted)
{
    fresh();
    executor_close(executor);
    struct domain_host *host = NULL;
    struct executor_options options = {.queue_count_max = 4, .no_threads = true};
    expect_ok(host_in_process(&deed_domain_v1, &host, &err));
    store_close(store);
    struct store_options store_options = {.no_threads = true, .unsafe_no_sync = true};
    expect_ok(store_open(os_real(), directory, &store_options, &store, &err));
    expect_ok(executor_open(store, host, &options, &executor, &err));

    struct seen seen;
    seen_init(&seen);
    struct deed_command command = {.name = DEED_STR("CreateOrder"),
                                   .data = deed_bytes_of(DEED_STR(CREATE("1", "")))};
    for (int i = 0; i < 4; i++) {
        expect_ok(executor_submit(executor, &command, seen_done, &seen, &err));
    }
    expect_status(DEED_BUSY, executor_submit(executor, &command, seen_done, &seen, &err));
    expect_message(err, "4 commands are waiting, limit 4");
    executor_close(executor);
    executor = NULL;
    assert_int_equal(seen.answers, 4);
    assert_int_equal(seen.ok, 1);
    assert_int_equal(seen.rejected, 3);
    gone();
}

TEST(executor, a_life_is_explained_event_by_event)
{
    fresh();
    expect_ok(run("CreateOrder", CREATE("1", "")));
    expect_ok(run("AddLineItem", ADD("1", "a")));
    expect_ok(run("AddLineItem", ADD("1", "b")));
    expect_ok(run("RemoveLineItem", "{\"order_id\":\"1\",\"line_id\":\"a\"}"));
    struct buf out;
    buf_init(&out, 1 << 20);
    expect_ok(executor_explain(executor, DEED_STR("order-1"), DEED_NONE, 0, &out, &err));
    expect_in(buf_str(&out), "\"type\":\"OrderCreated\"");
    expect_in(buf_str(&out), "{\"path\":\"status\",\"to\":\"open\"}");
    expect_in(buf_str(&out), "{\"path\":\"order_total_cents\",\"from\":949,\"to\":1898}");
    expect_in(buf_str(&out), "{\"path\":\"lines[line_id=b]\",\"to\":{\"line_id\":\"b\"");
    expect_in(buf_str(&out), "{\"path\":\"lines[line_id=a]\",\"from\":{\"line_id\":\"a\"");
    buf_reset(&out);
    expect_ok(executor_explain(executor, DEED_STR("order-1"), 2, 1, &out, &err));
    expect_in(buf_str(&out), "[{\"revision\":2,");
    expect_in(buf_str(&out), "{\"path\":\"order_total_cents\",\"from\":949,\"to\":1898}");
    buf_done(&out);
    gone();
}

/* ---- removed events ------------------------------------------------------------------------- */

static enum event_fate remove_added(const struct deed_event *e)
{
    return deed_str_equal(e->type, DEED_STR("OrderLineItemAdded")) ? EVENT_REMOVE : EVENT_KEEP;
}

TEST(executor, an_aggregate_without_some_of_its_events_has_no_state_and_takes_no_command)
{
    fresh();
    expect_ok(run("CreateOrder", CREATE("1", "")));
    expect_ok(run("AddLineItem", ADD("1", "a")));
    expect_ok(run("CreateOrder", CREATE("2", "")));
    stop();
    stub_log(os_real(), directory, remove_added);
    start();

    struct buf out;
    buf_init(&out, 1 << 20);
    expect_status(DEED_GONE, run("AddLineItem", ADD("1", "b")));
    expect_message(err, "stream order-1: revision 1 (OrderLineItemAdded) was removed");
    assert_int_equal(err.revision, 1);
    assert_int_equal(err.position, 3);
    expect_status(DEED_GONE, executor_state(executor, DEED_STR("order-1"), DEED_NONE, &out, NULL,
                                            NULL, &err));
    assert_int_equal(out.len, 0);
    expect_status(DEED_GONE, executor_explain(executor, DEED_STR("order-1"), DEED_NONE, 0, &out,
                                              &err));
    /* What lies before the hole is right still, and so are others. */
    expect_in(state_at("order-1", 0, &out), "\"status\":\"open\"");
    expect_ok(run("AddLineItem", ADD("2", "a")));

    /* Whoever cuts the stream off behind the hole begins anew. */
    write_past("$$order-1", "$metadata", "{\"$tb\":2}");
    expect_ok(run("CreateOrder", CREATE("1", "")));
    buf_done(&out);
    gone();
}

TEST(executor, a_repeated_command_whose_events_were_removed_gets_the_first_answer)
{
    fresh();
    expect_ok(run("CreateOrder", CREATE("1", "")));
    expect_ok(run_key("AddLineItem", ADD("1", "a"), "k"));
    struct deed_decided first = decided;
    stop();
    stub_log(os_real(), directory, remove_added);
    start();
    expect_ok(run_key("AddLineItem", ADD("1", "a"), "k"));
    assert_true(decided.repeated);
    assert_int_equal(decided.position, first.position);
    assert_int_equal(decided.first_revision, first.first_revision);
    assert_int_equal(decided.revision, first.revision);
    assert_int_equal(decided.event_count, 1);
    gone();
}

TEST_MAIN(executor)
