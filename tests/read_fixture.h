/* read_fixture.h - one call of Streams.Read without sockets, told line by line.
 *
 *     start(), open_api();
 *     say("a", "one");
 *     expect_read("a/0 one\n= 0\n", .stream = "a", .count = 10);
 *
 *     begin((struct asked){.stream = "a", .subscribe = true});
 *     expect_told("confirmation\n" "a/0 one\n" "caught up at revision 0\n");
 *     say("a", "two");
 *     expect_told("a/1 two\n");
 *     cancel();
 *
 * A line a message: STREAM/REVISION and the word of an event, "<-" before the link that led to it, "-" for
 * what could not be resolved; "= CODE" and the trailers when the call has ended. */
#ifndef TESTS_READ_FIXTURE_H
#define TESTS_READ_FIXTURE_H

#include "store_fixture.h"

#include "api/api.h"
#include "api/rpc.h"
#include "grpc/pb.h"
#include "proto/streams.pb-c.h"

#define READ_PATH "/event_store.client.streams.Streams/Read"
#define WIRE_END  UINT64_MAX

enum asked_from { FROM_START, FROM_END, FROM_PLACE, FROM_NOWHERE };

struct asked {
    const char *stream; /* NULL: $all */
    enum asked_from from;
    uint64_t place;   /* a revision, or a position */
    uint64_t prepare; /* if not 0: this instead of the place */
    bool backwards, subscribe, resolve, structured;
    uint64_t count;
    uint32_t compat;
    const char *regex, *prefixes[4];
    bool by_type, window_count;
    uint32_t window, multiplier; /* both 0: 32 and 1 */
    /* What is left out of the message, or put in, although it should not. */
    bool no_stream, no_count, no_filter_option, no_uuid, with_filter, no_window, no_filter, no_from;
};

FIXTURE struct api *read_api;
FIXTURE struct rpc call;
FIXTURE struct arena call_arena, call_scratch;
FIXTURE bool call_open, call_done;
FIXTURE struct buf told;      /* since the last expect_told */
FIXTURE size_t slice_size = 1 << 20, buffer_size = 64 << 20;
FIXTURE bool never_in_haste;
FIXTURE size_t hasty_slices, slow_slices, largest_slice;
FIXTURE uint64_t last_position; /* of the event that was told last */

static void pushed(struct rpc *rpc)
{
    (void)rpc;
}
static const struct rpc_host test_host = {.push = pushed};

FIXTURE void open_api(void)
{
    struct api_parts parts = {.store = store};
    expect_ok(api_create(&parts, &read_api, &err));
    buf_init(&told, 1 << 24);
}

FIXTURE void close_api(void)
{
    api_destroy(read_api);
    buf_done(&told);
    read_api = NULL;
}

/* ---- the request ---------------------------------------------------------------------------- */

FIXTURE void put_place(struct buf *out, const struct asked *a)
{
    if (a->from == FROM_START) pb_put_empty(out, a->stream == NULL ? 2 : 3);
    if (a->from == FROM_END) pb_put_empty(out, a->stream == NULL ? 3 : 4);
    if (a->from == FROM_PLACE && a->stream != NULL) pb_put_uint(out, 2, a->place);
    if (a->from == FROM_PLACE && a->stream == NULL) {
        size_t at = pb_begin(out, 1);
        pb_put_uint(out, 1, a->place);
        pb_put_uint(out, 2, a->prepare != 0 ? a->prepare : a->place);
        pb_end(out, at);
    }
}

FIXTURE void put_filter(struct buf *out, const struct asked *a)
{
    size_t filter = pb_begin(out, 7);
    if (!a->no_filter) {
        size_t expression = pb_begin(out, a->by_type ? 2 : 1);
        if (a->regex != NULL) pb_put_str(out, 1, deed_str_of(a->regex));
        for (size_t i = 0; i < 4 && a->prefixes[i] != NULL; i++) {
            pb_put_str(out, 2, deed_str_of(a->prefixes[i]));
        }
        pb_end(out, expression);
    }
    if (!a->no_window && a->window > 0) pb_put_uint(out, 3, a->window);
    if (!a->no_window && a->window == 0) pb_put_empty(out, 4);
    if (a->multiplier > 0 || !a->window_count) {
        pb_put_uint(out, 5, a->multiplier > 0 ? a->multiplier : 1);
    }
    pb_end(out, filter);
}

FIXTURE void put_request(struct buf *out, const struct asked *a)
{
    size_t options_at = pb_begin(out, 1);
    if (!a->no_stream) {
        size_t at = pb_begin(out, a->stream == NULL ? 2 : 1);
        if (a->stream != NULL) {
            size_t name = pb_begin(out, 1);
            pb_put_str(out, 3, deed_str_of(a->stream));
            pb_end(out, name);
        }
        put_place(out, a);
        pb_end(out, at);
    }
    if (a->backwards) pb_put_uint(out, 3, 1);
    if (a->resolve) pb_put_uint(out, 4, 1);
    if (!a->no_count && !a->subscribe) pb_put_uint(out, 5, a->count);
    if (!a->no_count && a->subscribe) pb_put_empty(out, 6);
    bool filtered = a->regex != NULL || a->prefixes[0] != NULL || a->with_filter;
    if (filtered) {
        put_filter(out, a);
    } else if (!a->no_filter_option) {
        pb_put_empty(out, 8);
    }
    if (!a->no_uuid) {
        size_t at = pb_begin(out, 9);
        pb_put_empty(out, a->structured ? 1 : 2);
        pb_end(out, at);
    }
    if (a->compat > 0) {
        size_t at = pb_begin(out, 10);
        pb_put_uint(out, 1, a->compat);
        pb_end(out, at);
    }
    pb_end(out, options_at);
}

/* ---- the call ------------------------------------------------------------------------------- */

FIXTURE void begin_bytes(deed_bytes message)
{
    const struct rpc_method *method = rpc_method_find(DEED_STR(READ_PATH));
    assert_non_null(method);
    buf_reset(&told);
    arena_init(&call_arena, 1 << 20);
    arena_init(&call_scratch, 16 << 20);
    rpc_init(&call, read_api, method, &test_host);
    call.arena = &call_arena;
    call.scratch = &call_scratch;
    call.peer = DEED_STR("test");
    call_open = true;
    call_done = false;
    method->begin(&call);
    if (!rpc_ended(&call)) method->message(&call, message);
    arena_reset(&call_scratch);
}

FIXTURE void begin(struct asked asked)
{
    struct buf message;
    buf_init(&message, 1 << 20);
    put_request(&message, &asked);
    begin_bytes(buf_bytes(&message));
    buf_done(&message);
}

FIXTURE void cancel(void)
{
    if (!call_open) return;
    call.method->close(&call);
    while (rpc_queued(&call) && rpc_taken(&call)) {
    }
    rpc_done(&call);
    arena_done(&call_arena);
    arena_done(&call_scratch);
    call_open = false;
}

typedef EventStore__Client__Streams__ReadResp resp;
typedef EventStore__Client__Streams__ReadResp__ReadEvent__RecordedEvent recorded_event;

FIXTURE void tell_recorded(const recorded_event *e)
{
    if (e == NULL) {
        buf_printf(&told, "-");
        return;
    }
    const ProtobufCBinaryData *name = &e->stream_identifier->stream_name;
    deed_str word = {(const char *)e->data.data, e->data.len};
    if (word.len >= 2 && word.ptr[0] == '"') word = (deed_str){word.ptr + 1, word.len - 2};
    if (word.len > 40) word.len = 40;
    buf_printf(&told, "%.*s/%llu %.*s", (int)name->len, (const char *)name->data,
               (unsigned long long)e->stream_revision, DEED_FMT(word));
}

FIXTURE void tell_event(const resp *message)
{
    const EventStore__Client__Streams__ReadResp__ReadEvent *e = message->event;
    assert_int_equal(e->position_case,
                     EVENT_STORE__CLIENT__STREAMS__READ_RESP__READ_EVENT__POSITION_COMMIT_POSITION);
    const recorded_event *original = e->link != NULL ? e->link : e->event;
    assert_int_equal(original->commit_position, e->commit_position);
    assert_int_equal(original->prepare_position, e->commit_position);
    last_position = e->commit_position;
    tell_recorded(e->event);
    if (e->link != NULL) {
        buf_printf(&told, " <- ");
        tell_recorded(e->link);
    }
}

FIXTURE void tell_caught_up(const EventStore__Client__Streams__ReadResp__CaughtUp *c)
{
    assert_non_null(c->timestamp);
    buf_printf(&told, "caught up");
    if (c->stream_revision_option_case != 0) {
        buf_printf(&told, " at revision %lld", (long long)c->stream_revision);
    }
    if (c->position != NULL) {
        assert_int_equal(c->position->commit_position, c->position->prepare_position);
        buf_printf(&told, " at %llu", (unsigned long long)c->position->commit_position);
    }
}

FIXTURE void tell_message(const resp *m)
{
#define IS(name) m->content_case == EVENT_STORE__CLIENT__STREAMS__READ_RESP__CONTENT_##name
    if (IS(EVENT)) tell_event(m);
    if (IS(CONFIRMATION)) {
        assert_int_equal(strlen(m->confirmation->subscription_id), 36);
        buf_printf(&told, "confirmation");
    }
    if (IS(CHECKPOINT)) {
        assert_non_null(m->checkpoint->timestamp);
        assert_int_equal(m->checkpoint->commit_position, m->checkpoint->prepare_position);
        buf_printf(&told, "checkpoint %llu", (unsigned long long)m->checkpoint->commit_position);
    }
    if (IS(STREAM_NOT_FOUND)) {
        const ProtobufCBinaryData *name = &m->stream_not_found->stream_identifier->stream_name;
        buf_printf(&told, "not found: %.*s", (int)name->len, (const char *)name->data);
    }
    if (IS(FIRST_STREAM_POSITION)) {
        buf_printf(&told, "first %llu", (unsigned long long)m->first_stream_position);
    }
    if (IS(LAST_STREAM_POSITION)) {
        buf_printf(&told, "last %llu", (unsigned long long)m->last_stream_position);
    }
    if (IS(CAUGHT_UP)) tell_caught_up(m->caught_up);
    assert_int_not_equal(m->content_case, 0);
#undef IS
    buf_printf(&told, "\n");
}

FIXTURE void tell_frames(const struct buf *frames)
{
    struct arena arena;
    arena_init(&arena, SIZE_MAX / 2);
    for (size_t at = 0; at < frames->len;) {
        const uint8_t *head = frames->ptr + at;
        assert_true(frames->len - at >= 5);
        assert_int_equal(head[0], 0);
        size_t size = (size_t)head[1] << 24 | (size_t)head[2] << 16 | (size_t)head[3] << 8 | head[4];
        assert_true(frames->len - at - 5 >= size);
        arena_reset(&arena);
        resp *m = grpc_unpack(&event_store__client__streams__read_resp__descriptor,
                              (deed_bytes){head + 5, size}, &arena, &err);
        if (m == NULL) fail_msg("%s", err.message);
        tell_message(m);
        at += 5 + size;
    }
    arena_done(&arena);
}

FIXTURE void tell_end(void)
{
    buf_printf(&told, "= %d", (int)call.end.code);
    for (size_t i = 0; i < call.end.trailer_count; i++) {
        buf_printf(&told, " %.*s=%.*s", DEED_FMT(call.end.trailers[i].name),
                   DEED_FMT(call.end.trailers[i].value));
    }
    if (call.end.message.len > 0) buf_printf(&told, " %.*s", DEED_FMT(call.end.message));
    buf_printf(&told, "\n");
    call_done = true;
}

/* One slice, in haste if it can be. */
FIXTURE enum rpc_pull one_slice(void)
{
    struct buf out;
    buf_init(&out, buffer_size);
    enum rpc_pull answer = never_in_haste ? RPC_LATER
                                          : call.method->pull(&call, &out, slice_size, true);
    if (answer == RPC_LATER) {
        assert_int_equal(out.len, 0);
        answer = call.method->pull(&call, &out, slice_size, false);
        slow_slices++;
    } else {
        hasty_slices++;
    }
    assert_int_not_equal(answer, RPC_LATER);
    assert_true(buf_ok(&out));
    if (out.len > largest_slice) largest_slice = out.len;
    tell_frames(&out);
    buf_done(&out);
    return answer;
}

/* What the call says until it waits or ends. */
FIXTURE const char *tell(void)
{
    enum rpc_pull answer = RPC_MORE;
    if (!call_done && rpc_ended(&call)) tell_end();
    for (size_t i = 0; !call_done && answer == RPC_MORE; i++) {
        assert_true(i < 1000000);
        answer = one_slice();
        if (answer == RPC_END) tell_end();
    }
    buf_add_byte(&told, '\0');
    told.len = 0;
    return (const char *)told.ptr;
}

#define expect_told(wanted) assert_string_equal(tell(), (wanted))

FIXTURE const char *read_all(struct asked asked)
{
    begin(asked);
    const char *all = tell();
    assert_true(call_done);
    cancel();
    return all;
}

#define expect_read(wanted, ...) \
    assert_string_equal(read_all((struct asked){__VA_ARGS__}), (wanted))

/* The request is refused, and the reason has these words. */
#define expect_read_refused(part, ...)                                     \
    do {                                                                   \
        const char *all_ = read_all((struct asked){__VA_ARGS__});          \
        if (strncmp(all_, "= 3 ", 4) != 0 || strstr(all_, (part)) == NULL) \
            fail_msg("%s", all_);                                          \
    } while (0)

/* ---- the log -------------------------------------------------------------------------------- */

FIXTURE void say_many(const char *stream, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        char word[16];
        (void)snprintf(word, sizeof word, "%u", i);
        say(stream, word);
    }
}

FIXTURE void set_metadata(const char *stream, const char *json)
{
    expect_ok(store_set_metadata(store, deed_str_of(stream), deed_bytes_of(deed_str_of(json)),
                                 DEED_EXPECT_ANY, 0, (deed_str){0}, &appended, &err));
}

FIXTURE void delete_stream(const char *stream, bool tombstone)
{
    expect_ok(store_delete_stream(store, deed_str_of(stream), DEED_EXPECT_ANY, 0, tombstone,
                                  (deed_str){0}, &appended, &err));
}

FIXTURE void say_link(const char *stream, const char *target)
{
    say_event((struct deed_new_event){.stream = deed_str_of(stream),
                                      .type = DEED_STR("$>"),
                                      .data = deed_bytes_of(deed_str_of(target)),
                                      .content_type = DEED_STR("application/octet-stream")});
}

#endif
