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
#include "fuzz/rpc_world.h"

/* true: it was accepted. */
static bool ask(deed_bytes message)
{
    struct talk t;
    talk_begin(&t, "/kurrentdb.protocol.v2.streams.StreamsService/AppendRecords");
    uint8_t *copy = malloc(message.len + 1);
    if (message.len > 0) memcpy(copy, message.ptr, message.len);
    t.rpc.method->message(&t.rpc, (deed_bytes){copy, message.len});
    memset(copy, 0xa5, message.len + 1);
    free(copy);
    arena_done(&t.scratch); /* the server's is emptied here */
    if (!rpc_ended(&t.rpc)) t.rpc.method->half_closed(&t.rpc);
    talk_run(&t, false);
    bool accepted = t.out.len > 0;
    must(accepted || rpc_ended(&t.rpc), "an answer, or none and an end");
    must(!accepted || !rpc_ended(&t.rpc) || t.rpc.end.code == GRPC_OK, "an answer and an error");
    talk_end(&t);
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
    world_begin(16384);
    bool accepted = ask(message);
    uint64_t stored = store_position(w.store) - 1;
    must(stored == (accepted ? records : 0), "all of it, or nothing");
    check_log(stored);
    if (accepted && all_have_ids) {
        (void)ask(message);
        must(store_position(w.store) - 1 == stored, "the same again stores nothing");
    }
    world_end();
    return 0;
}
