/* test_grpc_loops.c - what writes over gRPC, with each allocation failing in turn, and each operation of
 * the disk.
 *
 * Whatever comes of a call, a client that tries again with the same ids has, in the end, stored each of
 * its events once; and nothing that it was told is not so. */
#include "grpc_write_fixture.h"

#include "memory.h"

#include <errno.h>

enum trouble { MEMORY_ONCE, MEMORY_FOR_GOOD, DISK_ONCE };

static void some_options(struct buf *b)
{
    put_options(b, 1, "s", NONE, 0);
}

static void one_event(struct buf *b, unsigned id)
{
    put_event(b, 2, id_of(id), "Said", deed_bytes_of(DEED_STR("{\"$correlationId\":\"c\"}")),
              word_data("x"));
}

static void batch_message(struct buf *b, unsigned correlation, bool first, unsigned id, bool final)
{
    grpc_put_uuid(b, 1, id_of(correlation), true);
    if (first) put_options(b, 2, "s", ANY, 0);
    put_event(b, 3, id_of(id), "Said", (deed_bytes){0}, word_data("x"));
    if (final) pb_put_uint(b, 4, 1);
}

static void records_message(struct buf *b)
{
    for (unsigned i = 1; i <= 2; i++) {
        char id[UUID_TEXT_SIZE + 1];
        uuid_format(id_of(i), id);
        size_t record = pb_begin(b, 1);
        pb_put_str(b, 1, deed_str_of(id));
        size_t schema = pb_begin(b, 3);
        pb_put_uint(b, 1, 1);
        pb_put_str(b, 2, DEED_STR("Said"));
        pb_end(b, schema);
        pb_put_str(b, 4, DEED_STR("\"x\""));
        pb_put_str(b, 5, DEED_STR("s"));
        pb_end(b, record);
    }
    size_t check = pb_begin(b, 2);
    size_t state = pb_begin(b, 1);
    pb_put_str(b, 1, DEED_STR("other"));
    pb_put_sint(b, 2, -1);
    pb_end(b, state);
    pb_end(b, check);
}

/* A call whose messages are made before trouble begins, and what they are. */
struct story {
    const char *service, *method;
    struct buf messages[3];
    size_t count;
};

static void story_init(struct story *s, const char *service, const char *method)
{
    *s = (struct story){.service = service, .method = method};
    for (size_t i = 0; i < 3; i++) buf_init(&s->messages[i], 1 << 16);
}

static void story_done(struct story *s)
{
    for (size_t i = 0; i < 3; i++) buf_done(&s->messages[i]);
}

static struct story append_story(void)
{
    struct story s;
    story_init(&s, STREAMS, "Append");
    some_options(&s.messages[0]);
    one_event(&s.messages[1], 1);
    one_event(&s.messages[2], 2);
    s.count = 3;
    return s;
}

static struct story batch_story(void)
{
    struct story s;
    story_init(&s, STREAMS, "BatchAppend");
    batch_message(&s.messages[0], 1, true, 1, false);
    batch_message(&s.messages[1], 1, false, 2, true);
    s.count = 2;
    return s;
}

static struct story records_story(void)
{
    struct story s;
    story_init(&s, "kurrentdb.protocol.v2.streams.StreamsService", "AppendRecords");
    records_message(&s.messages[0]);
    s.count = 1;
    return s;
}

/* Tell it. true: the client was told that all went well. */
static bool tell(struct story *s)
{
    struct os_sim *machine = memory_machine;
    memory_machine = NULL;
    hang_up();
    t = talk(s->service, s->method);
    assert_non_null(buf_reserve(&t->out, 1 << 16)); /* the client's memory is not in question */
    memory_machine = machine;
    for (size_t i = 0; i < s->count; i++) {
        if (rpc_ended(&t->rpc)) break;
        t->rpc.method->message(&t->rpc, buf_bytes(&s->messages[i]));
        talk_run(t);
    }
    talk_half_close(t);
    memory_machine = NULL;
    bool well = t->over && !t->broken && t->rpc.end.code == GRPC_OK && t->out.len > 0;
    if (well && strcmp(s->method, "BatchAppend") == 0) {
        EventStore__Client__Streams__BatchAppendResp *r =
            talk_reply(t, &event_store__client__streams__batch_append_resp__descriptor);
        well = r->result_case == 3;
    }
    if (well && strcmp(s->method, "Append") == 0) well = append_reply()->result_case == 1;
    return well;
}

static uint64_t failures(enum trouble trouble)
{
    return os_sim_count(sim, trouble == DISK_ONCE ? OS_SIM_ANY : OS_SIM_ALLOCATE);
}

/* The k-th step of a call fails. false: it had no such step. */
static bool fail_at(struct story *s, enum trouble trouble, uint64_t k)
{
    start_writing();
    talk_may_break = true;
    say("warm", "up");
    while (store_step(store)) continue;
    uint64_t before = failures(trouble);
    os_sim_fail(sim, trouble == DISK_ONCE ? OS_SIM_ANY : OS_SIM_ALLOCATE, k,
                trouble == MEMORY_FOR_GOOD ? DEED_NONE : 0, trouble == DISK_ONCE ? EIO : ENOMEM);
    if (trouble != DISK_ONCE) memory_machine = sim;
    bool well = tell(s);
    memory_machine = NULL;
    bool reached = failures(trouble) - before >= k;
    os_sim_heal(sim);
    hang_up();
    if (well) expect_stream("s", "x x");

    /* Another life, since a failed write has stopped this one. */
    close_rpc();
    crash();
    open_store();
    open_rpc();
    if (well) expect_stream("s", "x x");
    if (!tell(s)) fail_msg("step %llu: %.*s", (unsigned long long)k, DEED_FMT(t->rpc.end.message));
    expect_stream("s", "x x");
    talk_may_break = false;
    stop_writing();
    return reached;
}

static void in_turn(struct story s, enum trouble trouble, uint64_t least)
{
    uint64_t k = 1;
    while (fail_at(&s, trouble, k)) k++;
    if (k <= least) fail_msg("only %llu steps were seen", (unsigned long long)k);
    story_done(&s);
}

TEST(grpc_loops, append_with_each_allocation_failing)
{
    in_turn(append_story(), MEMORY_ONCE, 5);
    in_turn(append_story(), MEMORY_FOR_GOOD, 5);
}

TEST(grpc_loops, append_with_each_operation_of_the_disk_failing)
{
    in_turn(append_story(), DISK_ONCE, 2);
}

TEST(grpc_loops, batches_with_each_allocation_failing)
{
    in_turn(batch_story(), MEMORY_ONCE, 5);
    in_turn(batch_story(), MEMORY_FOR_GOOD, 5);
}

TEST(grpc_loops, batches_with_each_operation_of_the_disk_failing)
{
    in_turn(batch_story(), DISK_ONCE, 2);
}

TEST(grpc_loops, records_with_each_allocation_failing)
{
    in_turn(records_story(), MEMORY_ONCE, 5);
    in_turn(records_story(), MEMORY_FOR_GOOD, 5);
}

TEST(grpc_loops, records_with_each_operation_of_the_disk_failing)
{
    in_turn(records_story(), DISK_ONCE, 2);
}

/* A deletion is made whole or not at all, and can be asked for again. */
TEST(grpc_loops, a_deletion_with_each_allocation_failing)
{
    bool reached = true;
    for (uint64_t k = 1; reached; k++) {
        start_writing();
        talk_may_break = true;
        say("s", "one");
        while (store_step(store)) continue;
        t = talk(STREAMS, "Delete");
        struct buf b;
        buf_init(&b, 1 << 16);
        put_options(&b, 1, "s", ANY, 0);
        assert_non_null(buf_reserve(&t->out, 1 << 16));
        uint64_t before = failures(MEMORY_ONCE);
        os_sim_fail(sim, OS_SIM_ALLOCATE, k, 0, ENOMEM);
        memory_machine = sim;
        t->rpc.method->message(&t->rpc, buf_bytes(&b));
        talk_half_close(t);
        memory_machine = NULL;
        reached = failures(MEMORY_ONCE) - before >= k;
        os_sim_heal(sim);
        bool well = t->over && !t->broken && t->rpc.end.code == GRPC_OK;
        hang_up();
        buf_done(&b);
        struct deed_stream_info info;
        expect_ok(store_stream(store, DEED_STR("s"), &info, &err));
        if (well) assert_true(info.deleted);
        close_rpc();
        crash();
        open_store();
        open_rpc();
        delete_as("Delete", "s", ANY, 0);
        expect_ended(t, GRPC_OK, "");
        expect_ok(store_stream(store, DEED_STR("s"), &info, &err));
        assert_true(info.deleted);
        talk_may_break = false;
        stop_writing();
        assert_true(k < 200);
    }
}

TEST_MAIN(grpc_loops)
