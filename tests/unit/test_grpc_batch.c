/* test_grpc_batch.c - BatchAppend: many appends in one call, each answered once, in its own words. */
#include "grpc_write_fixture.h"

#include "proto/rpcstatus.pb-c.h"
#include "proto/shared.pb-c.h"

#include <errno.h>

typedef EventStore__Client__Streams__BatchAppendResp BatchResp;

/* ---- verbs ---------------------------------------------------------------------------------- */

enum deadline { NO_DEADLINE, AT, IN };

struct chunk {
    unsigned correlation;
    bool as_text;
    const char *stream; /* NULL: no options */
    enum mode mode;
    uint64_t revision;
    enum deadline deadline;
    int64_t seconds, nanos;
    const char *words;
    bool open; /* not final */
    bool no_stream; /* options without a stream */
};

static void put_correlation(struct buf *b, const struct chunk *c)
{
    if (!c->as_text) {
        grpc_put_uuid(b, 1, id_of(c->correlation), true);
        return;
    }
    char text[64];
    (void)snprintf(text, sizeof text, "01000000-0000-0000-0000-0000000000%02X", c->correlation);
    size_t begin = pb_begin(b, 1);
    pb_put_str(b, 2, deed_str_of(text));
    pb_end(b, begin);
}

static void put_chunk(struct buf *b, const struct chunk *c)
{
    put_correlation(b, c);
    if (c->stream != NULL || c->no_stream) {
        struct buf given;
        buf_init(&given, 1 << 16);
        put_options(&given, 2, c->no_stream ? NULL : c->stream, c->mode, c->revision);
        size_t begin = pb_begin(b, 2);
        struct pb_reader r = pb_reader_over(buf_bytes(&given));
        struct pb_field f;
        assert_true(pb_next(&r, &f));
        buf_add(b, f.bytes.ptr, f.bytes.len);
        if (c->deadline != NO_DEADLINE) {
            size_t time = pb_begin(b, c->deadline == AT ? 6 : 7);
            if (c->seconds != 0) pb_put_uint(b, 1, (uint64_t)c->seconds);
            if (c->nanos != 0) pb_put_uint(b, 2, (uint64_t)c->nanos);
            pb_end(b, time);
        }
        pb_end(b, begin);
        buf_done(&given);
    }
    char data[8];
    deed_uuid id;
    const char *words = c->words == NULL ? "" : c->words;
    while (next_word(&words, data, &id)) {
        put_event(b, 3, id, "Said", (deed_bytes){0}, deed_bytes_of(deed_str_of(data)));
    }
    if (!c->open) pb_put_uint(b, 4, 1);
}

static void begin_batch(void)
{
    hang_up();
    t = talk(STREAMS, "BatchAppend");
}

static void give_chunk(struct chunk c)
{
    struct buf b;
    buf_init(&b, 64 << 20);
    put_chunk(&b, &c);
    talk_give(t, buf_bytes(&b));
    buf_done(&b);
}

#define send_chunk(...)                          \
    do {                                         \
        give_chunk((struct chunk){__VA_ARGS__}); \
        talk_run(t);                             \
    } while (0)

/* Both stand in one place. */
static bool is_success(const BatchResp *r)
{
    assert_true(r->result_case == 2 || r->result_case == 3);
    return r->result_case == 3;
}

static BatchResp *next_answer(void)
{
    BatchResp *r = talk_reply(t, &event_store__client__streams__batch_append_resp__descriptor);
    if (r == NULL) fail_msg("no answer: %.*s", DEED_FMT(t->rpc.end.message));
    assert_non_null(r->stream_identifier);
    return r;
}

static Google__Rpc__Status *refused(void)
{
    BatchResp *r = next_answer();
    assert_false(is_success(r));
    return r->error;
}

static void expect_no_answer(void)
{
    assert_null(talk_reply_bytes(t).ptr);
}

static unsigned correlation_of(const BatchResp *r)
{
    if (r->correlation_id->value_case == 1) {
        return (unsigned)r->correlation_id->structured->least_significant_bits;
    }
    return (unsigned)strtoul(r->correlation_id->string + 34, NULL, 16);
}

static void expect_stored(unsigned correlation, const char *stream, uint64_t revision)
{
    BatchResp *r = next_answer();
    assert_int_equal(correlation_of(r), correlation);
    assert_int_equal(r->stream_identifier->stream_name.len, strlen(stream));
    assert_memory_equal(r->stream_identifier->stream_name.data, stream, strlen(stream));
    if (!is_success(r)) fail_msg("%s", r->error->message);
    assert_int_equal(r->success->current_revision_option_case, 1);
    assert_int_equal(r->success->current_revision, revision);
    assert_int_equal(r->success->position_option_case, 3);
    assert_int_equal(r->success->position->commit_position,
                     r->success->position->prepare_position);
}

/* The Any's value. */
static deed_bytes expect_error(unsigned correlation, int code, const char *type)
{
    char url[128];
    BatchResp *r = next_answer();
    assert_int_equal(correlation_of(r), correlation);
    if (is_success(r)) fail_msg("a success");
    if (strcmp(r->error->message, type) != 0) fail_msg("%s, not %s", r->error->message, type);
    assert_int_equal(r->error->code, code);
    (void)snprintf(url, sizeof url, "type.googleapis.com/event_store.client.%s", type);
    assert_string_equal(r->error->details->type_url, url);
    return (deed_bytes){r->error->details->value.data, r->error->details->value.len};
}

static void expect_bad(unsigned correlation, const char *part)
{
    deed_bytes value = expect_error(correlation, GRPC_INVALID_ARGUMENT, "BadRequest");
    EventStore__Client__BadRequest *bad =
        grpc_unpack(&event_store__client__bad_request__descriptor, value, &t->arena, &err);
    assert_non_null(bad);
    if (strstr(bad->message, part) == NULL) fail_msg("\"%s\" lacks \"%s\"", bad->message, part);
}

static void expect_version(unsigned correlation, unsigned expected_case, uint64_t expected,
                           uint64_t actual)
{
    deed_bytes value = expect_error(correlation, GRPC_ALREADY_EXISTS, "WrongExpectedVersion");
    EventStore__Client__WrongExpectedVersion *w = grpc_unpack(
        &event_store__client__wrong_expected_version__descriptor, value, &t->arena, &err);
    assert_non_null(w);
    assert_int_equal(w->expected_stream_position_option_case, expected_case);
    if (expected_case == 3) assert_int_equal(w->expected_stream_position, expected);
    assert_int_equal(w->current_stream_revision_option_case, actual == NOWHERE ? 2 : 1);
    if (actual != NOWHERE) assert_int_equal(w->current_stream_revision, actual);
}

static void expect_end(void)
{
    talk_half_close(t);
    expect_no_answer();
    expect_ended(t, GRPC_OK, "");
}

/* ---- appending ------------------------------------------------------------------------------ */

TEST(grpc_batch, appends_are_answered_each_by_its_id_in_the_form_it_came)
{
    start_writing();
    begin_batch();
    send_chunk(.correlation = 1, .stream = "s", .mode = NONE, .words = "a1 b2");
    send_chunk(.correlation = 2, .as_text = true, .stream = "t", .mode = ANY, .words = "c3");
    expect_stored(1, "s", 1);
    BatchResp *r = next_answer();
    assert_string_equal(r->correlation_id->string, "01000000-0000-0000-0000-000000000002");
    assert_int_equal(r->success->position->commit_position, store_position(store));
    send_chunk(.correlation = 0xab, .as_text = true, .stream = "t", .mode = ANY, .words = "d4");
    assert_string_equal(next_answer()->correlation_id->string,
                        "01000000-0000-0000-0000-0000000000AB");
    expect_end();
    expect_stream("s", "a b");
    expect_stream("t", "c d");
    stop_writing();
}

TEST(grpc_batch, chunks_of_several_appends_may_interleave)
{
    start_writing();
    begin_batch();
    send_chunk(.correlation = 1, .stream = "s", .mode = NONE, .words = "a1", .open = true);
    send_chunk(.correlation = 2, .stream = "t", .mode = NONE, .words = "b1", .open = true);
    send_chunk(.correlation = 1, .words = "c2", .open = true);
    send_chunk(.correlation = 2, .words = "d2 e3", .open = true);
    send_chunk(.correlation = 3, .stream = "u", .mode = NONE, .words = "f1");
    expect_stored(3, "u", 0);
    expect_no_answer();
    send_chunk(.correlation = 2);
    expect_stored(2, "t", 2);
    send_chunk(.correlation = 1, .stream = "s", .mode = NONE, .words = "g3");
    expect_stored(1, "s", 2);
    expect_end();
    expect_stream("s", "a c g");
    expect_stream("t", "b d e");
    stop_writing();
}

TEST(grpc_batch, appends_of_one_call_are_one_group_in_their_order)
{
    start_writing();
    begin_batch();
    struct store_metrics before, after;
    store_get_metrics(store, &before);
    for (unsigned i = 1; i <= 100; i++) {
        char word[16];
        (void)snprintf(word, sizeof word, "%c%u", 'a' + (int)(i % 26), i);
        give_chunk((struct chunk){.correlation = i, .stream = "s", .mode = ANY, .words = word});
    }
    talk_run(t);
    store_get_metrics(store, &after);
    assert_int_equal(after.groups - before.groups, 1);
    for (unsigned i = 1; i <= 100; i++) expect_stored(i, "s", i - 1);
    expect_end();
    stop_writing();
}

TEST(grpc_batch, a_call_ends_when_all_is_answered)
{
    start_writing();
    begin_batch();
    give_chunk((struct chunk){.correlation = 1, .stream = "s", .mode = ANY, .words = "a1"});
    t->half_closed = true;
    t->rpc.method->half_closed(&t->rpc);
    talk_pull(t);
    assert_false(t->over);
    talk_run(t);
    expect_stored(1, "s", 0);
    expect_ended(t, GRPC_OK, "");
    stop_writing();
}

TEST(grpc_batch, a_client_that_goes_leaves_what_was_final)
{
    start_writing();
    begin_batch();
    give_chunk((struct chunk){.correlation = 1, .stream = "s", .mode = ANY, .words = "a1"});
    give_chunk((struct chunk){.correlation = 2, .stream = "s", .words = "b2", .open = true});
    hang_up();
    expect_stream("s", "a");
    stop_writing();
}

TEST(grpc_batch, nothing_is_a_check_of_the_version)
{
    start_writing();
    begin_batch();
    send_chunk(.correlation = 1, .stream = "s", .mode = NONE);
    BatchResp *r = next_answer();
    assert_true(is_success(r));
    assert_int_equal(r->success->current_revision_option_case, 2);
    assert_int_equal(r->success->position_option_case, 4);
    send_chunk(.correlation = 2, .stream = "s", .mode = EXISTS);
    expect_version(2, 5, 0, NOWHERE);
    expect_end();
    stop_writing();
}

/* ---- errors --------------------------------------------------------------------------------- */

TEST(grpc_batch, a_wrong_version_names_both)
{
    start_writing();
    begin_batch();
    send_chunk(.correlation = 1, .stream = "s", .mode = EXISTS, .words = "a1");
    expect_version(1, 5, 0, NOWHERE);
    send_chunk(.correlation = 2, .stream = "s", .mode = EXACT, .revision = 4, .words = "a1");
    expect_version(2, 3, 4, NOWHERE);
    send_chunk(.correlation = 3, .stream = "s", .mode = NONE, .words = "a1 b2");
    expect_stored(3, "s", 1);
    send_chunk(.correlation = 4, .stream = "s", .mode = NONE, .words = "c3");
    expect_version(4, 6, 0, 1);
    send_chunk(.correlation = 5, .stream = "s", .mode = EXACT, .words = "c3");
    expect_version(5, 3, 0, 1);
    send_chunk(.correlation = 6, .stream = "s", .mode = ANY, .words = "b2 c3");
    expect_version(6, 4, 0, 1);
    expect_end();
    stop_writing();
}

TEST(grpc_batch, a_retry_gets_the_first_answer)
{
    start_writing();
    begin_batch();
    send_chunk(.correlation = 1, .stream = "s", .mode = NONE, .words = "a1 b2");
    expect_stored(1, "s", 1);
    send_chunk(.correlation = 2, .stream = "s", .mode = NONE, .words = "a1 b2");
    expect_stored(2, "s", 1);
    expect_stream("s", "a b");
    expect_end();
    stop_writing();
}

TEST(grpc_batch, a_deleted_stream_is_not_found)
{
    start_writing();
    append("s", ANY, 0, "a1");
    append("t", ANY, 0, "a1");
    tombstone("s");
    soft_delete("t");
    begin_batch();
    send_chunk(.correlation = 1, .stream = "s", .mode = ANY, .words = "b2");
    deed_bytes value = expect_error(1, GRPC_NOT_FOUND, "StreamDeleted");
    EventStore__Client__StreamDeleted *d =
        grpc_unpack(&event_store__client__stream_deleted__descriptor, value, &t->arena, &err);
    assert_memory_equal(d->stream_identifier->stream_name.data, "s", 1);
    send_chunk(.correlation = 2, .stream = "t", .mode = EXISTS, .words = "b2");
    (void)expect_error(2, GRPC_NOT_FOUND, "StreamDeleted");
    send_chunk(.correlation = 3, .stream = "t", .mode = NONE, .words = "b2");
    expect_stored(3, "t", 1);
    expect_end();
    stop_writing();
}

TEST(grpc_batch, options_that_lack_something_are_answered_at_once)
{
    start_writing();
    begin_batch();
    send_chunk(.correlation = 1, .stream = "s", .mode = UNSET, .words = "a1", .open = true);
    expect_bad(1, "expected position");
    send_chunk(.correlation = 2, .no_stream = true, .mode = ANY, .words = "a1", .open = true);
    expect_bad(2, "stream's name");
    send_chunk(.correlation = 3, .stream = "$$", .mode = ANY, .words = "a1");
    expect_bad(3, "is missing");
    /* What still comes of them is dropped, with options or without. */
    send_chunk(.correlation = 1, .words = "b2", .open = true);
    send_chunk(.correlation = 1, .stream = "s", .mode = ANY, .words = "c3");
    send_chunk(.correlation = 2, .words = "c3");
    send_chunk(.correlation = 9, .words = "d4");
    expect_no_answer();
    /* And after the last chunk the id may be used again. */
    send_chunk(.correlation = 1, .stream = "s", .mode = NONE, .words = "e5");
    expect_stored(1, "s", 0);
    expect_end();
    expect_stream("s", "e");
    stop_writing();
}

TEST(grpc_batch, options_of_later_chunks_are_only_checked)
{
    start_writing();
    begin_batch();
    send_chunk(.correlation = 1, .stream = "s", .mode = NONE, .words = "a1", .open = true);
    send_chunk(.correlation = 1, .stream = "other", .mode = EXACT, .revision = 7, .words = "b2");
    expect_stored(1, "s", 1);
    send_chunk(.correlation = 2, .stream = "s", .mode = ANY, .words = "c3", .open = true);
    send_chunk(.correlation = 2, .stream = "s", .mode = UNSET, .words = "d4");
    expect_bad(2, "expected position");
    expect_end();
    expect_stream("s", "a b");
    stop_writing();
}

TEST(grpc_batch, what_is_too_large_says_so)
{
    start_writing_limited((struct deed_limits){
        .event_size_max = 1000, .commit_size_max = 3000, .commit_count_max = 5});
    begin_batch();
    static uint8_t data[2000];
    struct buf b;
    buf_init(&b, 1 << 16);
    put_chunk(&b, &(struct chunk){.correlation = 1, .stream = "s", .mode = ANY, .open = true});
    put_event(&b, 3, id_of(7), "T", (deed_bytes){0}, (deed_bytes){data, 1500});
    send_buf(&b);
    deed_bytes value = expect_error(1, GRPC_INVALID_ARGUMENT, "MaximumAppendEventSizeExceeded");
    EventStore__Client__MaximumAppendEventSizeExceeded *e =
        grpc_unpack(&event_store__client__maximum_append_event_size_exceeded__descriptor, value,
                    &t->arena, &err);
    assert_string_equal(e->eventid, "01000000-0000-0000-0000-000000000007");
    assert_int_equal(e->proposedeventsize, 1502);
    assert_int_equal(e->maxappendeventsize, 1000);
    for (unsigned i = 0; i < 4; i++) {
        buf_init(&b, 1 << 16);
        put_chunk(&b, &(struct chunk){.correlation = 2, .stream = "s", .mode = ANY, .open = true});
        put_event(&b, 3, id_of(i + 1), "T", (deed_bytes){0}, (deed_bytes){data, 900});
        send_buf(&b);
    }
    value = expect_error(2, GRPC_INVALID_ARGUMENT, "MaximumAppendSizeExceeded");
    EventStore__Client__MaximumAppendSizeExceeded *m = grpc_unpack(
        &event_store__client__maximum_append_size_exceeded__descriptor, value, &t->arena, &err);
    assert_int_equal(m->maxappendsize, 3000);
    send_chunk(.correlation = 3, .stream = "s", .mode = ANY, .words = "a1 b2 c3 d4 e5 f6");
    expect_bad(3, "limit 5");
    expect_end();
    assert_int_equal(store_position(store), 1);
    stop_writing();
}

TEST(grpc_batch, an_event_without_its_properties_is_a_bad_request)
{
    start_writing();
    begin_batch();
    struct buf b;
    buf_init(&b, 1 << 16);
    put_chunk(&b, &(struct chunk){.correlation = 1, .stream = "s", .mode = ANY, .words = "a1"});
    size_t begin = pb_begin(&b, 3);
    grpc_put_uuid(&b, 1, id_of(1), false);
    pb_end(&b, begin);
    send_buf(&b);
    expect_bad(1, "type and content-type");
    expect_end();
    stop_writing();
}

TEST(grpc_batch, a_message_that_is_none_ends_the_call)
{
    static const char *const wrong[] = {"\x0a", "", "\x0a\x02\x12\x00", "\x12\x00"};
    static const size_t sizes[] = {1, 0, 4, 2};
    for (size_t i = 0; i < 4; i++) {
        start_writing();
        begin_batch();
        talk_send_bytes(t, (deed_bytes){(const uint8_t *)wrong[i], sizes[i]});
        expect_ended(t, GRPC_INVALID_ARGUMENT, "malformed");
        stop_writing();
    }
}

TEST(grpc_batch, a_full_queue_is_busy_and_a_stopped_log_not_ready)
{
    start_writing_limited((struct deed_limits){.queue_count_max = 2});
    begin_batch();
    for (unsigned i = 1; i <= 3; i++) {
        char word[] = {'a', (char)('0' + i), '\0'};
        give_chunk((struct chunk){.correlation = i, .stream = "s", .mode = ANY, .words = word});
    }
    talk_run(t);
    BatchResp *r = next_answer();
    assert_int_equal(correlation_of(r), 3);
    assert_int_equal(r->error->code, 0);
    assert_string_equal(r->error->message, "Server Is Busy");
    assert_string_equal(r->error->details->type_url, "type.googleapis.com/google.protobuf.Empty");
    expect_stored(1, "s", 0);
    expect_stored(2, "s", 1);

    give_chunk((struct chunk){.correlation = 4, .stream = "s", .mode = ANY, .words = "z9"});
    os_sim_fail(sim, OS_SIM_SYNC, 1, 0, EIO);
    talk_run(t);
    assert_int_equal(refused()->code, GRPC_UNKNOWN);
    send_chunk(.correlation = 5, .stream = "s", .mode = ANY, .words = "y8");
    assert_string_equal(refused()->message, "Server Is Not Ready");
    os_sim_heal(sim);
    expect_end();
    stop_writing();
}

/* ---- deadlines ------------------------------------------------------------------------------ */

static void expect_timeout(unsigned correlation)
{
    size_t read = t->read;
    BatchResp *r = next_answer();
    assert_int_equal(r->correlation_id->value_case, 1);
    t->read = read;
    (void)expect_error(correlation, GRPC_DEADLINE_EXCEEDED, "Timeout");
}

TEST(grpc_batch, an_append_that_stays_open_too_long_is_dropped)
{
    start_writing();
    begin_batch();
    send_chunk(.correlation = 1, .as_text = true, .stream = "s", .mode = ANY, .deadline = IN,
               .seconds = 2, .words = "a1", .open = true);
    send_chunk(.correlation = 2, .stream = "s", .mode = ANY, .words = "b2", .open = true);
    assert_true(t->rpc.wait_ms > 1900 && t->rpc.wait_ms <= 2001);
    os_sim_advance(sim, 2 * SECOND);
    talk_run(t);
    expect_timeout(1);
    expect_no_answer();
    send_chunk(.correlation = 1, .stream = "s", .mode = ANY, .words = "c3");
    expect_no_answer();
    os_sim_advance(sim, 28 * SECOND);
    talk_run(t);
    expect_timeout(2);
    assert_int_equal(t->rpc.wait_ms, 0);
    expect_end();
    assert_int_equal(store_position(store), 1);
    stop_writing();
}

TEST(grpc_batch, a_deadline_in_the_past_is_a_timeout_and_any_other_overflows_nothing)
{
    static const struct {
        enum deadline deadline;
        int64_t seconds, nanos;
        bool passed;
    } cases[] = {
        {IN, 0, 0, true},          {IN, -1, 0, true},
        {IN, INT64_MIN, 0, true},  {IN, 0, -5, true},
        {IN, 0, 1000000, false},   {IN, 1, 0, false},
        {IN, 315576000000, 0, false}, {IN, INT64_MAX, INT32_MAX, false},
        {IN, 1800000010, 0, false}, /* Rust's */
        {AT, 0, 0, true},          {AT, INT64_MIN, INT32_MIN, true},
        {AT, 253402300799, 999999999, false}, /* .NET's */
        {AT, INT64_MAX, INT32_MAX, false},
        {AT, -62135596800, 0, true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        start_writing();
        begin_batch();
        send_chunk(.correlation = 1, .stream = "s", .mode = ANY, .deadline = cases[i].deadline,
                   .seconds = cases[i].seconds, .nanos = cases[i].nanos, .words = "a1");
        if (cases[i].passed) {
            expect_timeout(1);
        } else {
            expect_stored(1, "s", 0);
        }
        expect_end();
        stop_writing();
    }
}

TEST(grpc_batch, an_instant_is_compared_with_the_clock)
{
    start_writing();
    os_sim_set_clock(sim, 1800000000 * (int64_t)SECOND + 500000000);
    begin_batch();
    send_chunk(.correlation = 1, .stream = "s", .mode = ANY, .deadline = AT, .seconds = 1800000000,
               .nanos = 400000000, .words = "a1");
    expect_timeout(1);
    send_chunk(.correlation = 2, .stream = "s", .mode = ANY, .deadline = AT, .seconds = 1800000001,
               .words = "b2", .open = true);
    assert_true(t->rpc.wait_ms > 490 && t->rpc.wait_ms <= 501);
    send_chunk(.correlation = 2);
    expect_stored(2, "s", 0);
    expect_end();
    stop_writing();
}

/* ---- what is held --------------------------------------------------------------------------- */

TEST(grpc_batch, what_stays_open_is_bounded_and_what_is_not_final_is_answered_at_the_end)
{
    start_writing();
    begin_batch();
    for (unsigned i = 1; i <= 1025; i++) {
        give_chunk((struct chunk){.correlation = i, .stream = "s", .mode = ANY, .open = true});
    }
    talk_run(t);
    expect_bad(1025, "too many appends");
    expect_no_answer();
    assert_true(atomic_load(&t->rpc.held) > (size_t)1024 * 32);
    talk_half_close(t);
    assert_int_equal(atomic_load(&t->rpc.held), 0);
    for (unsigned i = 1; i <= 1024; i++) {
        assert_string_equal(refused()->message, "BadRequest");
    }
    expect_no_answer();
    expect_ended(t, GRPC_OK, "");
    stop_writing();
}

TEST(grpc_batch, a_client_that_sends_much_is_paused_until_it_is_stored)
{
    start_writing();
    begin_batch();
    static uint8_t data[4 << 20];
    unsigned sent = 0;
    while (!atomic_load(&t->rpc.paused)) {
        struct buf b;
        buf_init(&b, 64 << 20);
        put_chunk(&b, &(struct chunk){.correlation = ++sent, .stream = "s", .mode = ANY});
        put_event(&b, 3, id_of(sent), "T", (deed_bytes){0}, (deed_bytes){data, sizeof data});
        talk_give(t, buf_bytes(&b));
        buf_done(&b);
        assert_true(sent < 20);
    }
    assert_true(sent > 4);
    talk_run(t);
    assert_false(atomic_load(&t->rpc.paused));
    for (unsigned i = 1; i <= sent; i++) expect_stored(i, "s", i - 1);
    expect_end();
    stop_writing();
}

TEST(grpc_batch, a_client_that_reads_nothing_is_paused)
{
    start_writing();
    begin_batch();
    talk_out_max = 0; /* nothing is pulled */
    unsigned sent = 0;
    for (; !atomic_load(&t->rpc.paused); sent++) {
        give_chunk((struct chunk){.correlation = 1, .stream = "s", .mode = ANY});
        if (sent % 1000 == 0) talk_run(t);
        assert_true(sent < 100000);
    }
    talk_out_max = (size_t)64 << 20;
    talk_run(t);
    assert_false(atomic_load(&t->rpc.paused));
    assert_int_equal(talk_reply_count(t), sent);
    stop_writing();
}

TEST(grpc_batch, a_client_that_errs_and_reads_nothing_is_paused)
{
    start_writing();
    begin_batch();
    talk_out_max = 0;
    unsigned sent = 0;
    for (; !atomic_load(&t->rpc.paused); sent++) {
        give_chunk((struct chunk){.correlation = 1, .stream = "", .mode = ANY});
        assert_true(sent < 100000);
    }
    assert_true(atomic_load(&t->rpc.held) > (size_t)1 << 20);
    talk_out_max = (size_t)64 << 20;
    talk_run(t);
    assert_false(atomic_load(&t->rpc.paused));
    assert_int_equal(atomic_load(&t->rpc.held), 0);
    assert_int_equal(talk_reply_count(t), sent);
    stop_writing();
}

TEST(grpc_batch, with_threads_every_append_is_answered_in_order)
{
    start_here();
    open_rpc();
    begin_batch();
    for (unsigned i = 1; i <= 5000; i++) {
        struct chunk c = {.correlation = i & 0xffff, .stream = "s", .mode = ANY};
        char word[16];
        (void)snprintf(word, sizeof word, "a%u", i);
        c.words = word;
        give_chunk(c);
        if (i % 100 == 0) talk_run(t);
    }
    t->half_closed = true;
    t->rpc.method->half_closed(&t->rpc);
    talk_wait(t);
    for (unsigned i = 1; i <= 5000; i++) {
        BatchResp *r = next_answer();
        assert_true(is_success(r));
        assert_int_equal(r->success->current_revision, i - 1);
    }
    expect_no_answer();
    expect_ended(t, GRPC_OK, "");
    stop_writing();
}

TEST_MAIN(grpc_batch)
