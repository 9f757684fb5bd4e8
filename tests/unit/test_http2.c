/* test_http2.c - a session between a handler that echoes and frames written by hand.
 *
 * sanitize: asan */
#include "test.h"

#include "http2_frames.h"

/* ---- a handler --------------------------------------------------------------------------------- */

/* What a request wants is its path: "/echo" is answered with its own bytes; "/hold" is not consumed;
 * "/early" is answered before its end; "/none" has no body in its answer; "/much" has megabytes. */
#define MUCH_SIZE ((size_t)3 << 20)

struct request {
    struct http2_stream stream; /* first */
    char path[32];
    struct buf out;
    size_t received, sent;
    bool ended, closed, done;
    uint32_t error;
};

static struct request requests[4096];
static size_t request_count, closed_count;
static bool no_memory;

static struct request *request_of(struct http2_stream *stream)
{
    return (struct request *)stream;
}

static struct http2_stream *on_open(void *context)
{
    assert_null(context);
    if (no_memory) return NULL;
    assert_true(request_count < sizeof requests / sizeof requests[0]);
    struct request *r = &requests[request_count++];
    *r = (struct request){0};
    buf_init(&r->out, (size_t)64 << 20);
    return &r->stream;
}

static void on_header(struct http2_stream *stream, deed_str name, deed_str value)
{
    struct request *r = request_of(stream);
    if (!deed_str_equal(name, DEED_STR(":path"))) return;
    (void)snprintf(r->path, sizeof r->path, "%.*s", DEED_FMT(value));
}

static bool wants(const struct request *r, const char *path)
{
    return strcmp(r->path, path) == 0;
}

static const struct http2_header ok[] = {{DEED_STR(":status"), DEED_STR("200")},
                                         {DEED_STR("said"), DEED_STR("yes")}};

static void on_head(struct http2_stream *stream)
{
    struct request *r = request_of(stream);
    if (wants(r, "/none")) {
        http2_respond(stream, ok, 2, false);
        return;
    }
    if (wants(r, "/much")) buf_add_zeros(&r->out, MUCH_SIZE);
    if (wants(r, "/much") || wants(r, "/early")) r->done = true;
    http2_respond(stream, ok, 2, true);
}

static void on_data(struct http2_stream *stream, deed_bytes bytes)
{
    struct request *r = request_of(stream);
    r->received += bytes.len;
    if (wants(r, "/hold")) return;
    http2_consumed(stream, bytes.len);
    if (!wants(r, "/echo")) return;
    buf_add(&r->out, bytes.ptr, bytes.len);
    http2_resume(stream);
}

static void on_ended(struct http2_stream *stream)
{
    struct request *r = request_of(stream);
    assert_false(r->ended);
    r->ended = r->done = true;
    http2_resume(stream);
}

static deed_bytes on_output(struct http2_stream *stream, bool *out_end)
{
    struct request *r = request_of(stream);
    *out_end = r->done;
    return (deed_bytes){r->out.ptr + r->sent, r->out.len - r->sent};
}

static void on_sent(struct http2_stream *stream, size_t size)
{
    request_of(stream)->sent += size;
}

static size_t on_trailers(struct http2_stream *stream, struct http2_header *out, size_t max)
{
    assert_false(request_of(stream)->closed);
    assert_true(max >= 1);
    out[0] = (struct http2_header){DEED_STR("grpc-status"), DEED_STR("0")};
    return 1;
}

static void on_closed(struct http2_stream *stream, uint32_t error)
{
    struct request *r = request_of(stream);
    assert_false(r->closed);
    r->closed = true;
    r->error = error;
    buf_done(&r->out);
    closed_count++;
}

static const struct http2_handler handler = {
    .open = on_open,
    .header = on_header,
    .head = on_head,
    .data = on_data,
    .ended = on_ended,
    .output = on_output,
    .sent = on_sent,
    .trailers = on_trailers,
    .closed = on_closed,
};

/* ---- the other side ---------------------------------------------------------------------------- */

static struct http2 *session;
static struct buf in, out;
static struct http2_limits limits;

static void begin(void)
{
    request_count = closed_count = 0;
    no_memory = false;
    buf_init(&in, (size_t)64 << 20);
    buf_init(&out, (size_t)64 << 20);
    expect_ok(http2_create(&limits, &handler, NULL, &session, NULL));
    put_hello(&in);
}

static void end(void)
{
    http2_destroy(session);
    assert_int_equal(closed_count, request_count);
    buf_done(&in);
    buf_done(&out);
    limits = (struct http2_limits){0};
}

/* Give what was put, in pieces of so many bytes, and fetch the answer. */
static bool exchange_in(size_t piece)
{
    bool good = true;
    for (size_t at = 0; at < in.len && good; at += piece) {
        size_t size = in.len - at < piece ? in.len - at : piece;
        good = http2_receive(session, (deed_bytes){in.ptr + at, size});
    }
    buf_reset(&in);
    return good && http2_send(session, &out, SIZE_MAX);
}

static bool exchange(void)
{
    if (!http2_send(session, &out, SIZE_MAX)) return false;
    return exchange_in(SIZE_MAX / 2);
}

/* How many frames of a type came for a stream, their bytes, and the first one's payload. */
struct found {
    size_t count, size;
    struct frame first, last;
};
static struct found find(enum frame_type type, uint32_t stream)
{
    struct found found = {0};
    struct frame frame;
    deed_bytes at = buf_bytes(&out);
    while (take_frame(&at, &frame)) {
        if (frame.type != type || frame.stream != stream) continue;
        if (found.count++ == 0) found.first = frame;
        found.last = frame;
        found.size += frame.payload.len;
    }
    assert_int_equal(at.len, 0); /* whole frames only */
    return found;
}

static void expect_going(uint32_t error)
{
    struct found goaway = find(FRAME_GOAWAY, 0);
    assert_int_equal(goaway.count, 1);
    assert_int_equal(number_at(goaway.first.payload.ptr + 4), error);
    assert_true(http2_over(session));
}

/* ---- requests and answers ---------------------------------------------------------------------- */

TEST(http2, a_request_is_answered_however_its_bytes_are_cut)
{
    struct buf whole = {.size_max = 1 << 20};
    for (size_t piece = 1; piece < 120; piece += piece < 12 ? 1 : 37) {
        begin();
        put_request(&in, 1, 0, "/echo", NULL, NULL);
        put_frame(&in, FRAME_DATA, 0, 1, "twice ", 6);
        put_frame(&in, FRAME_DATA, FLAG_END_STREAM, 1, "said", 4);
        assert_true(exchange_in(piece));
        assert_true(requests[0].ended && requests[0].closed);
        assert_int_equal(requests[0].error, HTTP2_NO_ERROR);
        struct found data = find(FRAME_DATA, 1), heads = find(FRAME_HEADERS, 1);
        assert_int_equal(data.size, 10);
        assert_int_equal(heads.count, 2); /* the head, the trailers */
        assert_int_equal(heads.last.flags & FLAG_END_STREAM, FLAG_END_STREAM);
        assert_int_equal(find(FRAME_RST_STREAM, 1).count, 0);
        if (piece == 1) buf_add(&whole, out.ptr, out.len);
        assert_int_equal(out.len, whole.len);
        assert_memory_equal(out.ptr, whole.ptr, out.len);
        end();
    }
    buf_done(&whole);
}

TEST(http2, an_answer_may_be_its_head_alone)
{
    begin();
    put_request(&in, 1, FLAG_END_STREAM, "/none", NULL, NULL);
    assert_true(exchange());
    struct found heads = find(FRAME_HEADERS, 1);
    assert_int_equal(heads.count, 1);
    assert_int_equal(heads.first.flags & FLAG_END_STREAM, FLAG_END_STREAM);
    assert_int_equal(find(FRAME_DATA, 1).count, 0);
    assert_true(requests[0].closed);
    end();
}

TEST(http2, an_answer_that_comes_early_tells_the_client_to_stop)
{
    begin();
    put_request(&in, 1, 0, "/early", NULL, NULL);
    assert_true(exchange());
    struct found reset = find(FRAME_RST_STREAM, 1);
    assert_int_equal(reset.count, 1);
    assert_int_equal(number_at(reset.first.payload.ptr), HTTP2_NO_ERROR);
    assert_true(requests[0].closed);
    assert_int_equal(requests[0].error, HTTP2_NO_ERROR);
    put_frame(&in, FRAME_DATA, 0, 1, "on its way", 10); /* it had been sent before */
    assert_true(exchange());
    assert_false(http2_over(session));
    end();
}

TEST(http2, streams_that_are_open_are_closed_with_the_session)
{
    begin();
    for (uint32_t id = 1; id < 40; id += 2) put_request(&in, id, 0, "/echo", NULL, NULL);
    assert_true(exchange());
    assert_int_equal(http2_stream_count(session), 20);
    assert_int_equal(closed_count, 0);
    end();
    assert_int_equal(closed_count, 20);
    assert_int_equal(requests[7].error, HTTP2_CANCEL);
}

TEST(http2, open_streams_can_be_gone_through)
{
    static const uint8_t cancel[4] = {0, 0, 0, HTTP2_CANCEL};
    begin();
    assert_null(http2_streams(session));
    for (uint32_t id = 1; id < 8; id += 2) put_request(&in, id, 0, "/echo", NULL, NULL);
    put_frame(&in, FRAME_RST_STREAM, 0, 5, cancel, 4);
    assert_true(exchange());
    static const int wanted[] = {7, 3, 1};
    size_t count = 0;
    for (struct http2_stream *s = http2_streams(session); s != NULL; s = s->next) {
        assert_true(count < 3);
        assert_int_equal(s->id, wanted[count++]);
    }
    assert_int_equal(count, 3);
    end();
}

TEST(http2, a_client_that_cancels_is_heard)
{
    static const uint8_t cancel[4] = {0, 0, 0, HTTP2_CANCEL};
    begin();
    put_request(&in, 1, 0, "/echo", NULL, NULL);
    put_frame(&in, FRAME_RST_STREAM, 0, 1, cancel, 4);
    assert_true(exchange());
    assert_true(requests[0].closed);
    assert_int_equal(requests[0].error, HTTP2_CANCEL);
    end();
}

TEST(http2, without_memory_for_a_request_it_is_refused)
{
    begin();
    no_memory = true;
    put_request(&in, 1, FLAG_END_STREAM, "/echo", NULL, NULL);
    assert_true(exchange());
    assert_int_equal(number_at(find(FRAME_RST_STREAM, 1).first.payload.ptr), HTTP2_REFUSED_STREAM);
    no_memory = false;
    put_request(&in, 3, FLAG_END_STREAM, "/echo", NULL, NULL);
    assert_true(exchange());
    assert_int_equal(find(FRAME_HEADERS, 3).count, 2);
    end();
}

TEST(http2, pings_are_answered)
{
    begin();
    put_frame(&in, FRAME_PING, 0, 0, "12345678", 8);
    assert_true(exchange());
    struct found pong = find(FRAME_PING, 0);
    assert_int_equal(pong.count, 1);
    assert_int_equal(pong.first.flags, FLAG_ACK);
    assert_memory_equal(pong.first.payload.ptr, "12345678", 8);
    http2_ping(session);
    assert_true(http2_has_output(session));
    assert_true(exchange());
    assert_int_equal(find(FRAME_PING, 0).count, 2);
    end();
}

TEST(http2, after_goaway_only_what_is_open_goes_on)
{
    begin();
    put_request(&in, 1, 0, "/echo", NULL, NULL);
    assert_true(exchange());
    http2_goaway(session, HTTP2_NO_ERROR);
    assert_true(exchange());
    put_request(&in, 3, FLAG_END_STREAM, "/echo", NULL, NULL);
    put_frame(&in, FRAME_DATA, FLAG_END_STREAM, 1, "late", 4);
    assert_true(exchange());
    assert_int_equal(find(FRAME_DATA, 1).size, 4);
    assert_int_equal(find(FRAME_HEADERS, 3).count, 0);
    assert_int_equal(request_count, 1);
    expect_going(HTTP2_NO_ERROR);
    end();
}

/* ---- flow control ------------------------------------------------------------------------------ */

static void put_data(uint32_t stream, size_t size)
{
    static const uint8_t zeros[16384];
    for (; size > 0; size -= size < sizeof zeros ? size : sizeof zeros) {
        put_frame(&in, FRAME_DATA, 0, stream, zeros, size < sizeof zeros ? size : sizeof zeros);
    }
}

TEST(http2, a_stream_that_is_not_consumed_stalls_only_itself)
{
    limits.stream_window = 100000;
    begin();
    put_frame(&in, FRAME_SETTINGS, FLAG_ACK, 0, NULL, 0); /* from here on the window is ours */
    assert_true(exchange());
    put_request(&in, 1, 0, "/hold", NULL, NULL);
    put_request(&in, 3, 0, "/echo", NULL, NULL);
    put_data(1, 100000);
    for (int i = 0; i < 10; i++) {
        put_data(3, 40000);
        assert_true(exchange());
    }
    assert_int_equal(requests[0].received, 100000);
    assert_int_equal(requests[1].received, 400000);
    assert_int_equal(find(FRAME_WINDOW_UPDATE, 1).count, 0);
    assert_true(find(FRAME_WINDOW_UPDATE, 3).count > 0);
    http2_consumed(&requests[0].stream, 100000);
    assert_true(exchange());
    assert_int_equal(find(FRAME_WINDOW_UPDATE, 1).count, 1);

    put_data(3, 40000); /* one byte more than its window ends a stream */
    put_data(1, 100001);
    assert_true(exchange());
    assert_true(requests[0].closed || http2_over(session));
    end();
}

TEST(http2, what_the_client_does_not_take_stays_where_it_is)
{
    static const uint8_t more[4] = {0, 0x10, 0, 0};
    begin();
    put_request(&in, 1, FLAG_END_STREAM, "/much", NULL, NULL);
    put_frame(&in, FRAME_WINDOW_UPDATE, 0, 0, more, 4); /* of the connection */
    assert_true(exchange());
    assert_int_equal(find(FRAME_DATA, 1).size, 65535);
    assert_int_equal(requests[0].sent, 65535);
    put_request(&in, 3, 0, "/echo", NULL, NULL);
    put_frame(&in, FRAME_DATA, FLAG_END_STREAM, 3, "past it", 7);
    assert_true(exchange());
    assert_int_equal(find(FRAME_DATA, 3).size, 7);
    put_frame(&in, FRAME_WINDOW_UPDATE, 0, 1, more, 4);
    assert_true(exchange());
    assert_int_equal(find(FRAME_DATA, 1).size, 65535 + (1 << 20) - 7);
    end();
}

TEST(http2, output_stops_at_the_room_that_is_given)
{
    static const uint8_t more[4] = {0x10, 0, 0, 0};
    begin();
    put_request(&in, 1, FLAG_END_STREAM, "/much", NULL, NULL);
    put_frame(&in, FRAME_WINDOW_UPDATE, 0, 0, more, 4);
    put_frame(&in, FRAME_WINDOW_UPDATE, 0, 1, more, 4);
    assert_true(http2_receive(session, buf_bytes(&in)));
    for (size_t room = 50000; room < MUCH_SIZE; room += 50000) {
        assert_true(http2_send(session, &out, room));
        assert_true(out.len >= room && out.len < room + 16384 + 64);
        assert_true(http2_has_output(session));
    }
    assert_true(http2_send(session, &out, SIZE_MAX));
    assert_int_equal(find(FRAME_DATA, 1).size, MUCH_SIZE);
    assert_true(requests[0].closed);
    end();
}

/* ---- limits ------------------------------------------------------------------------------------ */

TEST(http2, as_many_streams_as_the_limit_are_open_at_once)
{
    limits.stream_count_max = 3;
    begin();
    for (uint32_t id = 1; id <= 7; id += 2) put_request(&in, id, 0, "/echo", NULL, NULL);
    assert_true(exchange());
    assert_int_equal(request_count, 3);
    assert_int_equal(number_at(find(FRAME_RST_STREAM, 7).first.payload.ptr), HTTP2_REFUSED_STREAM);
    put_frame(&in, FRAME_DATA, FLAG_END_STREAM, 1, NULL, 0);
    put_request(&in, 9, 0, "/echo", NULL, NULL);
    assert_true(exchange());
    put_request(&in, 11, 0, "/echo", NULL, NULL); /* there is room again */
    assert_true(exchange());
    assert_int_equal(request_count, 4);

    put_frame(&in, FRAME_SETTINGS, FLAG_ACK, 0, NULL, 0);
    put_request(&in, 13, 0, "/echo", NULL, NULL); /* a client that knows the limit, and passes it */
    assert_true(exchange());
    expect_going(HTTP2_PROTOCOL_ERROR);
    end();
}

TEST(http2, a_head_over_its_limit_ends_its_stream)
{
    /* The fields of put_request, 32 bytes more for each. */
    const size_t usual = 7 + 4 + 7 + 4 + 10 + 4 + 5 + 5 + 12 + 16 + 2 + 8 + 6 * 32;
    for (size_t over = 0; over < 2; over++) {
        char value[800];
        memset(value, 'v', sizeof value);
        value[1000 - usual - 4 - 32 + over] = '\0';
        limits.head_size_max = 1000;
        begin();
        put_request(&in, 1, FLAG_END_STREAM, "/echo", "more", value);
        put_request(&in, 3, FLAG_END_STREAM, "/echo", NULL, NULL);
        assert_true(exchange());
        assert_int_equal(find(FRAME_HEADERS, 1).count, over ? 0 : 2);
        if (over) {
            assert_int_equal(number_at(find(FRAME_RST_STREAM, 1).first.payload.ptr),
                             HTTP2_ENHANCE_YOUR_CALM);
        }
        assert_int_equal(find(FRAME_HEADERS, 3).count, 2);
        end();
    }
}

TEST(http2, resetting_streams_rapidly_ends_the_connection)
{
    static const uint8_t cancel[4] = {0, 0, 0, HTTP2_CANCEL};
    for (uint32_t over = 0; over < 2; over++) {
        limits.reset_burst = 50;
        limits.reset_rate = 1;
        begin();
        for (uint32_t i = 0; i < 50 + over; i++) {
            put_request(&in, 2 * i + 1, 0, "/echo", NULL, NULL);
            put_frame(&in, FRAME_RST_STREAM, 0, 2 * i + 1, cancel, 4);
        }
        (void)exchange();
        assert_int_equal(find(FRAME_GOAWAY, 0).count, over);
        assert_int_equal(http2_over(session), over != 0);
        end();
    }
}

TEST(http2, frames_that_bring_nothing_end_the_connection)
{
    for (size_t over = 0; over < 2; over++) {
        limits.empty_count_max = 20;
        begin();
        put_request(&in, 1, 0, "/echo", NULL, NULL);
        for (size_t i = 0; i < 20; i++) put_frame(&in, FRAME_DATA, 0, 1, NULL, 0);
        put_frame(&in, FRAME_DATA, 0, 1, "x", 1); /* a byte is something: the count begins again */
        for (size_t i = 0; i < 20 + over; i++) {
            put_frame(&in, i % 2 ? FRAME_PRIORITY : FRAME_DATA, 0, 1, "\0\0\0\0\x10", i % 2 ? 5 : 0);
        }
        assert_true(exchange());
        assert_int_equal(find(FRAME_GOAWAY, 0).count, over);
        if (over) expect_going(HTTP2_ENHANCE_YOUR_CALM);
        end();
    }
}

TEST(http2, answers_to_pings_that_are_not_read_end_the_connection)
{
    for (size_t over = 0; over < 2; over++) {
        limits.ack_count_max = 100;
        begin();
        assert_true(exchange());
        for (size_t i = 0; i < 100 + over; i++) put_frame(&in, FRAME_PING, 0, 0, "12345678", 8);
        assert_int_equal(http2_receive(session, buf_bytes(&in)), !over);
        assert_int_equal(http2_over(session), over != 0);
        end();
    }
}

TEST(http2, settings_with_too_many_entries_end_the_connection)
{
    for (size_t over = 0; over < 2; over++) {
        uint8_t entries[33 * 6];
        for (size_t i = 0; i < 33; i++) memcpy(entries + i * 6, "\0\x01\0\0\x10\0", 6);
        begin();
        put_frame(&in, FRAME_SETTINGS, 0, 0, entries, (32 + over) * 6);
        (void)exchange();
        assert_int_equal(http2_over(session), over != 0);
        end();
    }
}

TEST(http2, a_head_in_endless_pieces_ends_the_connection)
{
    for (size_t over = 0; over < 2; over++) {
        struct buf field = {.size_max = 1000};
        begin();
        put_request(&in, 1, 0, "/echo", NULL, NULL);
        size_t head = HTTP2_PREFACE_SIZE + 9;
        in.ptr[head + 4] = 0; /* its flags: more follows */
        put_field(&field, "x", "y");
        size_t count = over ? 65 : 64;
        for (size_t i = 0; i < count; i++) {
            put_frame(&in, FRAME_CONTINUATION, i == count - 1 ? FLAG_END_HEADERS : 0, 1, field.ptr,
                      field.len);
        }
        (void)exchange();
        assert_int_equal(http2_over(session), over != 0);
        assert_string_equal(requests[0].path, "/echo");
        end();
        buf_done(&field);
    }
}

TEST(http2, what_is_no_http2_ends_the_connection)
{
    begin();
    buf_reset(&in);
    buf_add(&in, "GET / HTTP/1.1\r\nHost: x\r\n\r\n", 27);
    (void)exchange();
    assert_true(http2_over(session));
    end();

    begin();
    put_frame(&in, FRAME_DATA, 0, 7, "of no stream", 12);
    assert_true(exchange());
    expect_going(HTTP2_PROTOCOL_ERROR);
    end();
}

TEST_MAIN(http2)
