/* test_grpc.c - frames, endings and messages, as bytes.
 *
 * sanitize: asan */
#include "test.h"

#include "grpc/frame.h"
#include "grpc/proto.h"
#include "grpc/status.h"
#include "proto/server_features.pb-c.h"

#define LIMIT 1000

static struct buf bytes;

static void put_message(size_t size, uint8_t fill)
{
    size_t begin = grpc_frame_begin(&bytes);
    uint8_t *at = buf_reserve(&bytes, size + 1);
    memset(at, fill, size);
    bytes.len += size;
    grpc_frame_end(&bytes, begin);
}

/* Read `bytes`, given in two pieces; answers the last thing said. */
static enum grpc_read read_all(size_t cut, size_t *out_count, size_t *out_size)
{
    struct grpc_reader reader;
    enum grpc_read got = GRPC_READ_MORE;
    grpc_reader_init(&reader, LIMIT);
    *out_count = *out_size = 0;
    const deed_bytes pieces[2] = {{bytes.ptr, cut}, {bytes.ptr + cut, bytes.len - cut}};
    for (size_t i = 0; i < 2; i++) {
        /* A copy that ends where the piece ends: a byte too far is found by the sanitizer. */
        uint8_t *copy = malloc(pieces[i].len + (pieces[i].len == 0));
        if (pieces[i].len > 0) memcpy(copy, pieces[i].ptr, pieces[i].len);
        deed_bytes in = {copy, pieces[i].len}, message;
        while ((got = grpc_read(&reader, &in, &message)) == GRPC_READ_MESSAGE) {
            ++*out_count;
            *out_size += message.len;
            for (size_t k = 0; k < message.len; k++) assert_int_equal(message.ptr[k], *out_count);
        }
        free(copy);
        if (got != GRPC_READ_MORE) break;
        assert_int_equal(in.len, 0);
    }
    if (got == GRPC_READ_MORE && *out_count == 4) assert_true(grpc_reader_empty(&reader));
    grpc_reader_done(&reader);
    return got;
}

TEST(grpc, messages_are_found_however_they_are_cut)
{
    size_t count, size;
    buf_init(&bytes, 1 << 20);
    put_message(3, 1);
    put_message(0, 2);
    put_message(LIMIT, 3);
    put_message(1, 4);
    for (size_t cut = 0; cut <= bytes.len; cut++) {
        assert_int_equal(read_all(cut, &count, &size), GRPC_READ_MORE);
        assert_int_equal(count, 4);
        assert_int_equal(size, 3 + LIMIT + 1);
    }
    buf_done(&bytes);
}

TEST(grpc, a_message_over_its_limit_is_refused_by_its_head)
{
    size_t count, size;
    buf_init(&bytes, 1 << 20);
    for (size_t wanted = LIMIT - 1; wanted <= LIMIT + 1; wanted++) {
        buf_reset(&bytes);
        put_message(wanted, 1);
        bool fits = wanted <= LIMIT;
        for (size_t cut = 0; cut < 10; cut++) {
            assert_int_equal(read_all(cut, &count, &size),
                             fits ? GRPC_READ_MORE : GRPC_READ_TOO_LARGE);
            assert_int_equal(count, fits);
        }
        bytes.len = GRPC_FRAME_HEAD_SIZE;
        assert_int_equal(read_all(2, &count, &size), fits ? GRPC_READ_MORE : GRPC_READ_TOO_LARGE);
    }
    buf_done(&bytes);
}

TEST(grpc, what_a_head_announces_costs_nothing)
{
    struct grpc_reader reader;
    deed_bytes in = {(const uint8_t *)"\0\0\xff\xff\xff", 5}, message;
    grpc_reader_init(&reader, 16 << 20);
    assert_int_equal(grpc_read(&reader, &in, &message), GRPC_READ_MORE);
    assert_true(reader.partial.room < 10000);
    assert_false(grpc_reader_empty(&reader));
    grpc_reader_done(&reader);
}

TEST(grpc, compressed_messages_and_unknown_flags_are_told_apart)
{
    static const struct {
        uint8_t flag;
        enum grpc_read said;
    } cases[] = {{0, GRPC_READ_MORE}, {1, GRPC_READ_COMPRESSED}, {2, GRPC_READ_MALFORMED},
                 {255, GRPC_READ_MALFORMED}};
    size_t count, size;
    buf_init(&bytes, 1 << 20);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        buf_reset(&bytes);
        put_message(3, 1);
        bytes.ptr[0] = cases[i].flag;
        for (size_t cut = 0; cut < bytes.len; cut++) {
            assert_int_equal(read_all(cut, &count, &size), cases[i].said);
        }
    }
    buf_done(&bytes);
}

/* ---- endings ----------------------------------------------------------------------------------- */

static void expect_encoded(deed_str text, const char *wanted)
{
    struct buf out;
    buf_init(&out, 1000);
    grpc_percent_encode(text, &out);
    assert_int_equal(out.len, strlen(wanted));
    if (out.len > 0) assert_memory_equal(out.ptr, wanted, out.len);
    buf_done(&out);
}

TEST(grpc, texts_are_percent_encoded)
{
    expect_encoded(DEED_STR(""), "");
    expect_encoded(DEED_STR("Event stream 'a' is deleted."), "Event stream 'a' is deleted.");
    expect_encoded(DEED_STR("100%"), "100%25");
    expect_encoded(DEED_STR("\xc3\xa4 \n~\x7f"), "%C3%A4 %0A~%7F");
    expect_encoded((deed_str){"\0x", 2}, "%00x");
}

TEST(grpc, bytes_are_base64_with_padding_or_without)
{
    static const char *const plain[] = {"", "f", "fo", "foo", "foob"};
    static const char *const coded[] = {"", "Zg", "Zm8", "Zm9v", "Zm9vYg"};
    struct buf out;
    buf_init(&out, 1000);
    for (size_t i = 0; i < 5; i++) {
        buf_reset(&out);
        grpc_base64_encode(deed_bytes_of(deed_str_of(plain[i])), &out);
        assert_true(deed_str_equal(buf_str(&out), deed_str_of(coded[i])));
        buf_reset(&out);
        assert_true(grpc_base64_decode(deed_str_of(coded[i]), &out));
        assert_true(deed_str_equal(buf_str(&out), deed_str_of(plain[i])));
    }
    buf_reset(&out);
    assert_true(grpc_base64_decode(DEED_STR("Zg=="), &out));
    assert_false(grpc_base64_decode(DEED_STR("Z"), &out));
    assert_false(grpc_base64_decode(DEED_STR("Zg="), &out));
    assert_false(grpc_base64_decode(DEED_STR("Z!"), &out));
    buf_done(&out);
}

TEST(grpc, timeouts_are_read)
{
    static const struct {
        const char *text;
        uint64_t ns;
    } good[] = {{"1H", 3600000000000}, {"2M", 120000000000}, {"10S", 10000000000},
                {"100m", 100000000},   {"7u", 7000},         {"0n", 0},
                {"99999999n", 99999999}, {"99999999H", UINT64_MAX}};
    static const char *const bad[] = {"", "S", "1", "1s", "-1S", "1.5S", "123456789S", "1 S", "1SS"};
    uint64_t ns;
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        assert_true(grpc_timeout_parse(deed_str_of(good[i].text), &ns));
        assert_int_equal(ns, good[i].ns);
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_false(grpc_timeout_parse(deed_str_of(bad[i]), &ns));
    }
}

/* ---- messages ---------------------------------------------------------------------------------- */

typedef EventStore__Client__ServerFeatures__SupportedMethods methods_message;
#define METHODS &event_store__client__server_features__supported_methods__descriptor

static methods_message *unpack(deed_bytes message, size_t arena_size, struct arena *arena,
                               struct deed_error *err)
{
    arena_init(arena, arena_size);
    return grpc_unpack(METHODS, message, arena, err);
}

TEST(grpc, messages_go_in_and_come_out)
{
    struct arena arena;
    struct deed_error err;
    methods_message message = EVENT_STORE__CLIENT__SERVER_FEATURES__SUPPORTED_METHODS__INIT;
    char version[] = "1.2.3";
    message.event_store_server_version = version;
    buf_init(&bytes, 1000);
    assert_true(grpc_pack(&message.base, &bytes));
    assert_int_equal(bytes.len, 5 + 2 + 5);
    assert_int_equal(bytes.ptr[4], 7);
    deed_bytes body = {bytes.ptr + 5, bytes.len - 5};
    methods_message *again = unpack(body, 1 << 20, &arena, &err);
    assert_non_null(again);
    assert_string_equal(again->event_store_server_version, "1.2.3");
    arena_done(&arena);

    again = unpack((deed_bytes){0}, 1 << 20, &arena, &err); /* an empty message is one, too */
    assert_non_null(again);
    assert_int_equal(again->n_methods, 0);
    arena_done(&arena);
    for (size_t len = 1; len < body.len; len++) {
        assert_null(unpack((deed_bytes){body.ptr, len}, 1 << 20, &arena, &err));
        assert_int_equal(err.status, DEED_INVALID);
        expect_message(err, "SupportedMethods");
        arena_done(&arena);
    }
    buf_done(&bytes);

    buf_init(&bytes, 11); /* one byte short */
    assert_false(grpc_pack(&message.base, &bytes));
    assert_false(buf_ok(&bytes));
    buf_done(&bytes);
}

TEST(grpc, many_empty_elements_cost_no_more_than_the_arena_has)
{
    struct arena arena;
    struct deed_error err;
    buf_init(&bytes, 1 << 20);
    for (size_t i = 0; i < 100000; i++) buf_add(&bytes, "\x0a\0", 2);
    assert_null(unpack(buf_bytes(&bytes), 1 << 20, &arena, &err));
    assert_int_equal(err.status, DEED_TOO_LARGE);
    arena_done(&arena);
    assert_non_null(unpack(buf_bytes(&bytes), 64 << 20, &arena, &err));
    arena_done(&arena);
    buf_done(&bytes);
}

TEST_MAIN(grpc)
