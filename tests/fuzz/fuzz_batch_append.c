/* fuzz_batch_append.c - any bytes as what a client says in a BatchAppend, over a store in a simulated
 * machine.
 *
 * The first byte says how the rest is read. Odd: as the messages themselves, each behind its length.
 * Even: as a script that makes well-formed chunks, lets time pass and deletes streams; then what must
 * come of it is known:
 *
 *   - what is accepted is in its stream, equal to the byte, and nothing else is;
 *   - what is refused, or not answered, changes nothing;
 *   - an append is answered once, when it fails or with its last chunk, and what still comes of it
 *     afterwards is dropped. */
#include "api/grpc.h"

#include <stdio.h>
#include <stdlib.h>

#include "api/grpc_event.h"
#include "base/uuid.h"
#include "grpc/pb.h"
#include "os/os_sim.h"
#include "proto/streams.pb-c.h"
#include "store/store.h"
#include "fuzz/rpc_world.h"

typedef EventStore__Client__Streams__BatchAppendResp Answer;

/* ---- the input as a script ------------------------------------------------------------------ */

struct script {
    const uint8_t *at, *end;
};

static unsigned draw(struct script *s, unsigned limit)
{
    return s->at == s->end ? 0 : *s->at++ % limit;
}

static deed_bytes draw_bytes(struct script *s, unsigned most)
{
    size_t len = draw(s, most);
    if (len > (size_t)(s->end - s->at)) len = (size_t)(s->end - s->at);
    deed_bytes out = {s->at, len};
    s->at += len;
    return out;
}

/* ---- one call ------------------------------------------------------------------------------- */

static struct talk t;
static size_t read_size; /* of t.out */

static void begin_call(void)
{
    world_begin(8192);
    talk_begin(&t, "/event_store.client.streams.Streams/BatchAppend");
    read_size = 0;
}

static void end_call(void)
{
    talk_end(&t);
    world_end();
}

static void give(deed_bytes message)
{
    uint8_t *copy = malloc(message.len + 1);
    if (message.len > 0) memcpy(copy, message.ptr, message.len);
    t.rpc.method->message(&t.rpc, (deed_bytes){copy, message.len});
    memset(copy, 0xa5, message.len + 1);
    free(copy);
}

/* Both stand in one place. */
static bool accepted(const Answer *answer)
{
    must(answer->result_case == 2 || answer->result_case == 3, "an error or a success");
    return answer->result_case == 3;
}

/* NULL: none. */
static Answer *next_answer(void)
{
    size_t left = t.out.len - read_size;
    if (left == 0) return NULL;
    const uint8_t *at = t.out.ptr + read_size;
    must(left >= 5 && at[0] == 0, "a frame");
    size_t size = (size_t)at[1] << 24 | (size_t)at[2] << 16 | (size_t)at[3] << 8 | at[4];
    must(size <= left - 5, "a frame's size");
    read_size += 5 + size;
    Answer *answer = grpc_unpack(&event_store__client__streams__batch_append_resp__descriptor,
                                 (deed_bytes){at + 5, size}, &t.arena, NULL);
    must(answer != NULL && answer->stream_identifier != NULL && answer->correlation_id != NULL,
         "an answer");
    return answer;
}

/* ---- the model ------------------------------------------------------------------------------ */

#define CORRELATIONS 8
#define EVENTS_MAX   64

struct proposed {
    deed_uuid id;
    const char *type;
    deed_bytes data, metadata;
};

struct model {
    bool open, lost;
    const char *stream;
    struct proposed events[EVENTS_MAX];
    size_t count;
};
static struct model models[CORRELATIONS];

static const char *const streams[] = {"s", "t-1", "$$s", "$x", "", "$$", "\x01", "$log"};
static const char *const types[] = {"T", "$metadata", "", "$streamDeleted", NULL};
static const char *const content_types[] = {"application/json", "application/octet-stream",
                                            "text/plain", "", NULL};

static deed_uuid uuid_of(unsigned n)
{
    deed_uuid id = {{0}};
    id.bytes[15] = (uint8_t)n;
    return id;
}

static void put_entry(struct buf *b, const char *key, const char *value)
{
    if (value == NULL) return;
    size_t begin = pb_begin(b, 2);
    pb_put_str(b, 1, deed_str_of(key));
    pb_put_str(b, 2, deed_str_of(value));
    pb_end(b, begin);
}

static void put_event(struct script *s, struct buf *b, struct proposed *out)
{
    size_t begin = pb_begin(b, 3);
    out->id = uuid_of(draw(s, 12));
    out->type = types[draw(s, 5) % (draw(s, 8) == 0 ? 5 : 1)];
    out->metadata = draw_bytes(s, 12);
    out->data = draw_bytes(s, 24);
    grpc_put_uuid(b, 1, out->id, draw(s, 2) == 0);
    put_entry(b, "type", out->type);
    put_entry(b, "content-type", content_types[draw(s, 5) % (draw(s, 8) == 0 ? 5 : 4)]);
    if (out->metadata.len > 0) pb_put_bytes(b, 3, out->metadata);
    if (out->data.len > 0) pb_put_bytes(b, 4, out->data);
    pb_end(b, begin);
}

static void put_options(struct script *s, struct buf *b, const char *stream)
{
    size_t options = pb_begin(b, 2);
    size_t identifier = pb_begin(b, 1);
    pb_put_str(b, 3, deed_str_of(stream));
    pb_end(b, identifier);
    unsigned mode = draw(s, 9);
    if (mode == 1) pb_put_uint(b, 2, draw(s, 8));
    if (mode >= 2 && mode <= 5) pb_put_empty(b, mode);
    if (mode >= 6) pb_put_empty(b, 4);
    unsigned deadline = draw(s, 12);
    if (deadline < 2) {
        size_t time = pb_begin(b, 6 + deadline);
        pb_put_uint(b, 1, (uint64_t)((int64_t)draw(s, 64) - 8) << draw(s, 64));
        pb_put_uint(b, 2, draw(s, 256));
        pb_end(b, time);
    }
    pb_end(b, options);
}

/* ---- reading back --------------------------------------------------------------------------- */

static bool same_bytes(deed_bytes a, deed_bytes b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.ptr, b.ptr, a.len) == 0);
}

static bool is_stored(const struct proposed *p, const struct deed_event *e)
{
    return uuid_equal(p->id, e->id) && deed_str_equal(deed_str_of(p->type), e->type) &&
           same_bytes(p->data, e->data) && same_bytes(p->metadata, e->metadata);
}

/* How many of the events from `from` on are the model's, in its order; and whether each of them is
 * somewhere in the stream. */
static size_t read_back(const struct model *m, uint64_t from, bool *out_all)
{
    struct deed_read_options how = {.stream = deed_str_of(m->stream), .ignore_retention = true};
    struct deed_cursor *cursor;
    struct deed_event e;
    bool found[EVENTS_MAX] = {false};
    size_t in_order = 0;
    must(store_read(w.store, &how, &cursor, NULL) == DEED_OK, "an accepted append's stream");
    while (cursor_next(cursor, &e, NULL) == DEED_OK) {
        if (e.revision >= from && in_order < m->count && is_stored(&m->events[in_order], &e)) {
            in_order++;
        }
        for (size_t i = 0; i < m->count; i++) found[i] |= is_stored(&m->events[i], &e);
    }
    cursor_close(cursor);
    *out_all = true;
    for (size_t i = 0; i < m->count; i++) *out_all &= found[i];
    return in_order;
}

static void check_accepted(const struct model *m, const Answer *answer, uint64_t before)
{
    uint64_t after = store_position(w.store);
    bool all;
    if (m->count == 0) {
        must(after == before, "an append of nothing stores something");
        return;
    }
    must(answer->success->current_revision_option_case == 1, "a revision");
    uint64_t revision = answer->success->current_revision;
    must(after == before || after == before + m->count, "all of it is stored, or nothing new");
    must(answer->success->position->commit_position <= after, "a position that is there");
    if (after == before) {
        (void)read_back(m, 0, &all);
        must(all, "what is said to be stored already is");
        return;
    }
    must(answer->success->position->commit_position == after, "the position of the last event");
    must(revision + 1 >= m->count, "a revision below the number of its events");
    must(read_back(m, revision + 1 - m->count, &all) == m->count, "what was accepted reads back");
}

/* ---- steps ---------------------------------------------------------------------------------- */

static unsigned correlation_of(const Answer *answer)
{
    const EventStore__Client__UUID *id = answer->correlation_id;
    if (id->value_case == 1) return (unsigned)id->structured->least_significant_bits;
    return (unsigned)strtoul(id->string + 34, NULL, 16);
}

static void do_chunk(struct script *s)
{
    unsigned c = draw(s, CORRELATIONS);
    struct model *m = &models[c];
    const char *stream = streams[draw(s, 8) % (draw(s, 4) == 0 ? 8 : 3)];
    bool has_options = draw(s, 4) != 0;
    bool final = draw(s, 3) != 0;
    struct model next = *m;
    struct buf b;
    buf_init(&b, 1 << 20);
    grpc_put_uuid(&b, 1, uuid_of(c + 1), draw(s, 2) == 0);
    if (has_options) put_options(s, &b, stream);
    if (!next.open) next = (struct model){.open = true, .lost = m->lost, .stream = stream};
    unsigned count = draw(s, 4);
    for (unsigned i = 0; i < count && next.count < EVENTS_MAX; i++) {
        put_event(s, &b, &next.events[next.count++]);
    }
    if (final) pb_put_uint(&b, 4, 1);
    bool taken = m->open || (has_options && !m->lost);

    uint64_t before = store_position(w.store);
    must(buf_ok(&b), "room");
    give(buf_bytes(&b));
    buf_done(&b);
    talk_run(&t, true);
    must(!rpc_ended(&t.rpc), "a well-formed chunk does not end the call");
    Answer *answer = next_answer();
    if (answer == NULL) {
        must(store_position(w.store) == before, "what is not answered changes nothing");
        must(!(taken && final), "a final chunk is answered");
        if (taken) *m = next;
        if (final) m->lost = false;
        return;
    }
    must(next_answer() == NULL, "one answer");
    must(taken, "what was dropped is not answered");
    must(correlation_of(answer) == c + 1, "the answer's id");
    if (accepted(answer)) {
        must(final, "only what is final is accepted");
        check_accepted(&next, answer, before);
    } else {
        must(store_position(w.store) == before, "what is refused changes nothing");
    }
    *m = (struct model){.lost = !final};
}

static void do_wait(struct script *s)
{
    uint64_t before = store_position(w.store);
    os_sim_advance(w.sim, (uint64_t)draw(s, 40) * 1000000000);
    talk_run(&t, true);
    for (Answer *answer; (answer = next_answer()) != NULL;) {
        unsigned c = correlation_of(answer);
        must(!accepted(answer) && answer->error->code == GRPC_DEADLINE_EXCEEDED, "a timeout");
        must(c >= 1 && c <= CORRELATIONS && models[c - 1].open, "of an open append");
        models[c - 1] = (struct model){.lost = true};
    }
    must(store_position(w.store) == before, "waiting stores nothing");
}

static void do_delete(struct script *s)
{
    struct deed_appended appended;
    deed_str stream = deed_str_of(streams[draw(s, 3)]);
    bool tombstone = draw(s, 4) == 0;
    (void)(store_delete_foreign(w.store, stream, DEED_EXPECT_ANY, 0, tombstone, &appended, NULL) ==
           DEED_OK);
}

static void do_end(void)
{
    uint64_t before = store_position(w.store);
    size_t open = 0;
    for (size_t i = 0; i < CORRELATIONS; i++) open += models[i].open;
    t.rpc.method->half_closed(&t.rpc);
    talk_run(&t, true);
    for (Answer *answer; (answer = next_answer()) != NULL; open--) {
        must(open > 0 && !accepted(answer), "what was not final is refused");
    }
    must(open == 0, "everything is answered");
    must(t.over && t.rpc.end.code == GRPC_OK, "the call ends well");
    must(store_position(w.store) == before, "the end stores nothing");
}

static void run_script(struct script s)
{
    memset(models, 0, sizeof models);
    while (s.at < s.end) {
        unsigned op = draw(&s, 16);
        if (op == 0) {
            do_wait(&s);
        } else if (op == 1) {
            do_delete(&s);
        } else {
            do_chunk(&s);
        }
    }
    do_end();
}

static void run_bytes(struct script s)
{
    size_t count = 0;
    while (s.at < s.end && !rpc_ended(&t.rpc)) {
        give(draw_bytes(&s, 256));
        talk_run(&t, true);
    }
    if (!rpc_ended(&t.rpc)) {
        t.rpc.method->half_closed(&t.rpc);
        talk_run(&t, true);
    }
    for (Answer *answer; (answer = next_answer()) != NULL;) count += accepted(answer);
    must(count > 0 || store_position(w.store) == 1, "what is refused changes nothing");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0) return 0;
    begin_call();
    struct script s = {data + 1, data + size};
    if (data[0] % 2 == 0) {
        run_script(s);
    } else {
        run_bytes(s);
    }
    end_call();
    return 0;
}
