/* fuzz_v2_records.c - any bytes as an AppendRecordsRequest, over a store in a simulated machine.
 *
 * Whatever is refused changes nothing. Whatever is accepted is in the log: as many events as the answer's
 * streams have grown by, each with metadata that is a JSON object of the store's depth, in which the
 * schema's name is the event's type; and the same bytes again store nothing more than they did, if all
 * their records have ids. */
#include "api/grpc.h"

#include <stdio.h>
#include <stdlib.h>

#include "api/grpc_event.h"
#include "grpc/pb.h"
#include "json/json.h"
#include "os/os_sim.h"
#include "store/store.h"

static void must(bool holds, const char *what)
{
    if (holds) return;
    fprintf(stderr, "%s\n", what);
    abort();
}

struct world {
    struct os_sim *sim;
    struct store *store;
    struct api *api;
    bool pushed;
};
static struct world w;

static void push(struct rpc *rpc)
{
    (void)rpc;
    must(!w.pushed, "pushed twice");
    w.pushed = true;
}

static void begin_world(void)
{
    struct store_options options = {
        .no_threads = true,
        .segment_size = 64 << 10,
        .limits = {.event_size_max = 4096, .commit_size_max = 16384, .commit_count_max = 16}};
    memset(&w, 0, sizeof w);
    w.sim = os_sim_create(1, NULL);
    must(store_open(os_sim_os(w.sim), "/data", &options, &w.store, NULL) == DEED_OK, "open");
    struct api_parts parts = {.store = w.store};
    must(api_create(&parts, &w.api, NULL) == DEED_OK, "api");
}

static void end_world(void)
{
    api_destroy(w.api);
    store_close(w.store);
    os_sim_destroy(w.sim);
}

static void drive(struct rpc *rpc, struct buf *out)
{
    for (bool over = false;;) {
        if (w.pushed) {
            w.pushed = false;
            must(!rpc_taken(rpc), "the server's hold is gone");
        }
        while (!over && !rpc_ended(rpc)) {
            enum rpc_pull answer = rpc->method->pull(rpc, out, 1 << 16, true);
            if (answer == RPC_LATER) answer = rpc->method->pull(rpc, out, 1 << 16, false);
            must(answer != RPC_LATER, "later again");
            over = answer == RPC_END;
            if (answer != RPC_MORE) break;
        }
        if (!w.pushed && !store_step(w.store)) return;
    }
}

static void finish_call(struct rpc *rpc)
{
    bool free_now = false;
    rpc_release(rpc);
    while (!free_now) {
        if (w.pushed) {
            w.pushed = false;
            free_now = rpc_taken(rpc);
        } else {
            must(store_step(w.store), "the call is held for ever");
        }
    }
    rpc->method->close(rpc);
    rpc_done(rpc);
}

/* true: it was accepted. */
static bool ask(deed_bytes message)
{
    static const struct rpc_host host = {push};
    struct arena arena, scratch;
    struct buf out;
    struct rpc rpc;
    const struct rpc_method *method = rpc_method_find(
        DEED_STR("/kurrentdb.protocol.v2.streams.StreamsService/AppendRecords"));
    must(method != NULL, "no such method");
    rpc_init(&rpc, w.api, method, &host);
    arena_init(&arena, 64 << 20);
    arena_init(&scratch, 64 << 20);
    buf_init(&out, 1 << 30);
    rpc.arena = &arena;
    rpc.scratch = &scratch;
    w.pushed = false;
    method->begin(&rpc);
    uint8_t *copy = malloc(message.len + 1);
    if (message.len > 0) memcpy(copy, message.ptr, message.len);
    method->message(&rpc, (deed_bytes){copy, message.len});
    memset(copy, 0xa5, message.len + 1);
    free(copy);
    arena_done(&scratch); /* the server's is emptied here */
    if (!rpc_ended(&rpc)) method->half_closed(&rpc);
    drive(&rpc, &out);
    bool accepted = out.len > 0;
    must(accepted || rpc_ended(&rpc), "an answer, or none and an end");
    must(!accepted || !rpc_ended(&rpc) || rpc.end.code == GRPC_OK, "an answer and an error");
    finish_call(&rpc);
    arena_done(&arena);
    arena_done(&scratch);
    buf_done(&out);
    return accepted;
}

static void check_event(const struct deed_event *e)
{
    struct arena arena;
    json_value root;
    arena_init(&arena, 64 << 20);
    must(json_parse(&arena, e->metadata, 64, &root, NULL) == DEED_OK, "metadata is JSON");
    must(json_kind_of(root) == JSON_OBJECT, "metadata is an object");
    must(deed_str_equal(json_text(json_get(root, DEED_STR("$schema.name"))), e->type),
         "the schema's name is the type");
    must(json_kind_of(json_get(root, DEED_STR("$schema.format"))) == JSON_STRING, "a format");
    bool json = deed_str_equal(e->content_type, DEED_STR("application/json"));
    must(!json || json_check(e->data, 64, NULL) == DEED_OK, "what is called JSON is");
    arena_done(&arena);
}

static void check_log(uint64_t count)
{
    struct deed_read_options how = {.after_position = 1, .filter.system = true};
    struct deed_cursor *cursor;
    struct deed_event e;
    must(store_read(w.store, &how, &cursor, NULL) == DEED_OK, "the log");
    for (; cursor_next(cursor, &e, NULL) == DEED_OK; count--) {
        must(count > 0, "more events than were accepted");
        check_event(&e);
    }
    cursor_close(cursor);
    must(count == 0, "fewer events than were accepted");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    deed_bytes message = {data, size};
    size_t records = 0;
    bool all_have_ids = true;
    struct pb_reader r = pb_reader_over(message);
    for (struct pb_field f; pb_next(&r, &f);) {
        if (!pb_is(&f, 1, PB_BYTES)) continue;
        bool has_id = false;
        struct pb_reader record = pb_reader_over(f.bytes);
        for (struct pb_field g; pb_next(&record, &g);) {
            if (pb_is(&g, 1, PB_BYTES)) has_id = g.bytes.len > 0;
        }
        all_have_ids &= has_id;
        records++;
    }
    begin_world();
    bool accepted = ask(message);
    uint64_t stored = store_position(w.store) - 1;
    must(stored == (accepted ? records : 0), "all of it, or nothing");
    check_log(stored);
    if (accepted && all_have_ids) {
        (void)ask(message);
        must(store_position(w.store) - 1 == stored, "the same again stores nothing");
    }
    end_world();
    return 0;
}
