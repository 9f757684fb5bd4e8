/* test_base.c - belongs to src/base: arena, buf, rw, error, text, hash, uuid, timetext. */
#include "unit/test.h"

#include "base/arena.h"
#include "base/buf.h"
#include "base/chunks.h"
#include "base/error.h"
#include "base/hash.h"
#include "base/rw.h"
#include "base/text.h"
#include "base/timetext.h"
#include "base/uuid.h"
#include "os/thread.h"

#include <errno.h>
#include <inttypes.h>
#include <stdalign.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <unistd.h>

/* ---- input that ends at an unmapped page -------------------------------------------------- */

static uint8_t *guarded_end; /* the page from here on is unmapped */

static void guarded_map(void)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    uint8_t *map = mmap(NULL, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(map, MAP_FAILED);
    assert_int_equal(mprotect(map + page, page, PROT_NONE), 0);
    guarded_end = map + page;
}

/* A copy whose last byte is the last that may be read. Valid until the next call. */
static deed_bytes guarded(const void *bytes, size_t len)
{
    if (guarded_end == NULL) guarded_map();
    assert_in_range(len, 0, 4096);
    uint8_t *at = guarded_end - len;
    if (len > 0) memcpy(at, bytes, len);
    return (deed_bytes){at, len};
}

static deed_str guarded_str(const char *text)
{
    deed_bytes b = guarded(text, strlen(text));
    return (deed_str){(const char *)b.ptr, b.len};
}

/* ---- arena -------------------------------------------------------------------------------- */

TEST(arena, memory_is_zeroed_and_aligned_and_its_own)
{
    struct arena arena;
    arena_init(&arena, 1 << 20);
    uint8_t *all[200];
    for (size_t i = 0; i < 200; i++) {
        all[i] = arena_alloc(&arena, i);
        assert_non_null(all[i]);
        assert_int_equal((uintptr_t)all[i] % alignof(max_align_t), 0);
        for (size_t k = 0; k < i; k++)
            assert_int_equal(all[i][k], 0);
        memset(all[i], (int)i, i);
    }
    for (size_t i = 0; i < 200; i++) {
        for (size_t k = 0; k < i; k++)
            assert_int_equal(all[i][k], (uint8_t)i);
    }
    arena_done(&arena);
}

TEST(arena, a_reset_arena_hands_out_zeroed_memory_again)
{
    struct arena arena;
    arena_init(&arena, 1 << 16);
    for (int round = 0; round < 1000; round++) {
        uint8_t *bytes = arena_alloc(&arena, 50000);
        assert_non_null(bytes);
        assert_int_equal(bytes[49999], 0);
        memset(bytes, 0xff, 50000);
        arena_reset(&arena);
    }
    arena_done(&arena);
}

TEST(arena, its_limit_is_never_passed)
{
    struct arena arena;
    arena_init(&arena, 100000);
    size_t handed_out = 0;
    while (arena_alloc(&arena, 1000) != NULL)
        handed_out += 1000;
    assert_in_range(handed_out, 50000, 100000);
    assert_true(arena.total <= 100000);
    assert_in_range(arena_used(&arena), handed_out, 100000);
    assert_null(arena_alloc(&arena, 100000));
    arena_done(&arena);
}

TEST(arena, a_request_at_the_limit_fits_and_one_over_does_not)
{
    struct arena arena;
    size_t head = sizeof(void *) + sizeof(size_t); /* of a block, as malloc's alignment keeps it */
    arena_init(&arena, 8192 + head);
    assert_null(arena_alloc(&arena, 8193));
    assert_non_null(arena_alloc(&arena, 8192));
    assert_null(arena_alloc(&arena, 1));
    arena_reset(&arena);
    assert_non_null(arena_alloc(&arena, 8191));
    arena_done(&arena);

    arena_init(&arena, 0);
    assert_null(arena_alloc(&arena, 0));
    arena_done(&arena);
}

TEST(arena, sizes_that_overflow_are_refused)
{
    struct arena arena;
    arena_init(&arena, SIZE_MAX);
    assert_null(arena_alloc(&arena, SIZE_MAX));
    assert_null(arena_alloc(&arena, SIZE_MAX - 15));
    assert_null(arena_alloc_array(&arena, SIZE_MAX / 8 + 1, 8));
    assert_null(arena_alloc_array(&arena, 8, SIZE_MAX / 8 + 1));
    assert_non_null(arena_alloc_array(&arena, 0, 8));
    assert_non_null(arena_alloc_array(&arena, 8, 0));
    assert_non_null(arena_alloc_array(&arena, 8, 8));
    assert_null(arena_str(&arena, (deed_str){"", SIZE_MAX}).ptr);
    arena_done(&arena);
}

TEST(arena, it_remembers_that_it_gave_nothing_until_it_is_reset)
{
    struct arena arena;
    arena_init(&arena, 1 << 16);
    assert_non_null(arena_alloc(&arena, 100));
    assert_false(arena.failed);
    assert_null(arena_alloc(&arena, 1 << 20));
    assert_non_null(arena_alloc(&arena, 100));
    assert_true(arena.failed);
    assert_false(arena.no_memory); /* its limit alone */
    arena_reset(&arena);
    assert_false(arena.failed);
    assert_null(arena_alloc_array(&arena, SIZE_MAX / 2, 4));
    assert_true(arena.failed);
    arena_done(&arena);
}

TEST(arena, the_largest_block_is_kept_by_a_reset)
{
    struct arena arena;
    arena_init(&arena, 30000);
    assert_non_null(arena_alloc(&arena, 20000));
    assert_non_null(arena_alloc(&arena, 5000)); /* what is left is a smaller block */
    arena_reset(&arena);
    size_t before = arena.total;
    assert_non_null(arena_alloc(&arena, 20000));
    assert_int_equal(arena.total, before);
    arena_done(&arena);
}

TEST(arena, copies_are_whole)
{
    struct arena arena;
    arena_init(&arena, 10000);
    deed_str s = arena_str(&arena, DEED_STR("hello"));
    expect_str(s, "hello");
    assert_int_equal(s.ptr[5], '\0');
    deed_str empty = arena_str(&arena, (deed_str){0});
    assert_non_null(empty.ptr);
    assert_int_equal(empty.len, 0);
    deed_bytes b = arena_bytes(&arena, (deed_bytes){(const uint8_t *)"a\0b", 3});
    assert_memory_equal(b.ptr, "a\0b", 3);
    assert_non_null(arena_bytes(&arena, (deed_bytes){0}).ptr);
    expect_str(arena_printf(&arena, "%s %d", "number", 7), "number 7");
    expect_str(arena_printf(&arena, "%s", ""), "");
    assert_null(arena_printf(&arena, "%20000d", 1).ptr);
    const deed_str names[] = {DEED_STR("a"), DEED_STR("")}, *list = NULL;
    assert_true(arena_list(&arena, names, 2, &list));
    assert_ptr_not_equal(list, names);
    expect_str(list[0], "a");
    assert_non_null(list[1].ptr);
    assert_true(arena_list(&arena, names, 0, &list));
    assert_null(list);
    assert_false(arena_list(&arena, names, 2000, &list));
    arena_done(&arena);
    arena_done(&arena);
}

/* ---- chunks --------------------------------------------------------------------------------- */

TEST(chunks, elements_stay_where_they_are_while_it_grows)
{
    struct chunks chunks;
    chunks_init(&chunks, sizeof(uint64_t));
    assert_true(chunks_reserve(&chunks, 0));
    for (uint64_t i = 0; i < 5000; i++) {
        if (i % 700 == 0) assert_true(chunks_reserve(&chunks, 700));
        assert_int_equal(chunks_count(&chunks), i); /* room is no element */
        assert_true(chunks_add(&chunks, &i));
    }
    const uint64_t *first = chunks_at(&chunks, 0);
    for (uint64_t i = 0; i < 5000; i++) {
        assert_int_equal(*(const uint64_t *)chunks_at(&chunks, i), i);
    }
    assert_int_equal(*first, 0);
    chunks_done(&chunks);
}

/* ---- buf ---------------------------------------------------------------------------------- */

TEST(buf, it_takes_what_its_limit_allows_and_not_a_byte_more)
{
    for (size_t size = 299; size <= 301; size++) {
        struct buf buf;
        buf_init(&buf, 300);
        for (size_t i = 0; i < size; i++)
            buf_add_byte(&buf, (uint8_t)i);
        assert_int_equal(buf_ok(&buf), size <= 300);
        assert_int_equal(buf.len, size <= 300 ? size : 300);
        buf_done(&buf);
    }
}

TEST(buf, a_part_that_does_not_fit_is_dropped_whole_and_remembered)
{
    struct buf buf;
    buf_init(&buf, 8);
    buf_add(&buf, "12345", 5);
    buf_add(&buf, "6789", 4);
    assert_false(buf_ok(&buf));
    buf_add(&buf, "6", 1); /* would fit, but comes after a gap */
    expect_str(buf_str(&buf), "12345");
    assert_null(buf_reserve(&buf, 1));
    assert_null(buf_take(&buf));

    buf_reset(&buf);
    assert_true(buf_ok(&buf));
    buf_add_str(&buf, DEED_STR("12345678"));
    expect_str(buf_str(&buf), "12345678");
    buf_done(&buf);
}

TEST(buf, what_is_printed_may_fill_it_to_the_limit)
{
    struct buf buf;
    buf_init(&buf, 8);
    buf_printf(&buf, "%d", 12345678);
    expect_str(buf_str(&buf), "12345678");
    buf_printf(&buf, "%s", "");
    assert_true(buf_ok(&buf));
    buf_printf(&buf, "%d", 9);
    assert_false(buf_ok(&buf));
    expect_str(buf_str(&buf), "12345678");
    buf_done(&buf);

    buf_init(&buf, 1000);
    for (int i = 0; i < 250; i++)
        buf_printf(&buf, "%04d", i);
    assert_true(buf_ok(&buf));
    assert_memory_equal(buf.ptr + 996, "0249", 4);
    buf_done(&buf);
}

TEST(buf, reserving_gives_room_also_for_nothing)
{
    struct buf buf;
    buf_init(&buf, 0);
    assert_non_null(buf_reserve(&buf, 0));
    assert_true(buf_ok(&buf));
    assert_null(buf_reserve(&buf, 1));
    buf_done(&buf);

    buf_init(&buf, SIZE_MAX);
    assert_null(buf_reserve(&buf, SIZE_MAX));
    assert_false(buf_ok(&buf));
    buf_done(&buf);

    buf_init(&buf, 5000);
    uint8_t *at = buf_reserve(&buf, 5000);
    assert_non_null(at);
    memset(at, 'x', 5000);
    buf.len += 5000;
    assert_non_null(buf_reserve(&buf, 0));
    buf_done(&buf);
}

TEST(buf, consuming_moves_the_rest_to_the_front)
{
    struct buf buf;
    buf_init(&buf, 10);
    buf_consume(&buf, 0);
    buf_add_str(&buf, DEED_STR("0123456789"));
    buf_consume(&buf, 3);
    expect_str(buf_str(&buf), "3456789");
    buf_add_zeros(&buf, 3);
    assert_true(buf_ok(&buf));
    assert_memory_equal(buf_bytes(&buf).ptr + 7, "\0\0\0", 3);
    buf_add_zeros(&buf, 0);
    buf_consume(&buf, 10);
    assert_int_equal(buf.len, 0);
    buf_add_zeros(&buf, 11);
    assert_false(buf_ok(&buf));
    buf_done(&buf);
}

TEST(buf, moving_empties_the_other)
{
    struct buf to, from;
    buf_init(&to, 1000);
    buf_init(&from, 1000);
    buf_move(&to, &from); /* nothing, to nothing */
    assert_int_equal(to.len, 0);
    buf_printf(&from, "one");
    const uint8_t *memory = from.ptr;
    buf_move(&to, &from);
    expect_str(buf_str(&to), "one");
    assert_int_equal(from.len, 0);
    assert_ptr_equal(to.ptr, memory); /* without a copy */
    buf_printf(&from, "two");
    buf_move(&to, &from);
    expect_str(buf_str(&to), "onetwo");
    assert_int_equal(from.len, 0);
    buf_reset(&to);
    buf_printf(&from, "three");
    memory = from.ptr;
    buf_move(&to, &from); /* the memory of both goes on */
    assert_ptr_equal(to.ptr, memory);
    expect_str(buf_str(&to), "three");
    assert_true(buf_ok(&to) && buf_ok(&from));
    buf_done(&to);
    buf_done(&from);
}

TEST(buf, moving_keeps_each_ones_limit)
{
    struct buf to, from;
    buf_init(&to, 10);
    buf_init(&from, 1000);
    buf_printf(&from, "123456");
    buf_move(&to, &from);
    expect_str(buf_str(&to), "123456");
    buf_printf(&from, "78901");
    buf_move(&to, &from); /* one byte more than it takes */
    assert_false(buf_ok(&to));
    assert_true(buf_ok(&from));
    assert_int_equal(from.len, 0);
    assert_int_equal(to.size_max, 10);
    assert_int_equal(from.size_max, 1000);
    buf_done(&to);
    buf_done(&from);
}

TEST(buf, moving_moves_the_failure_too)
{
    struct buf to, from;
    buf_init(&to, 1000);
    buf_init(&from, 2);
    buf_printf(&from, "123");
    assert_false(buf_ok(&from));
    buf_move(&to, &from);
    assert_false(buf_ok(&to));
    assert_true(buf_ok(&from));
    buf_printf(&from, "12");
    buf_move(&to, &from); /* a failed one stays so */
    assert_false(buf_ok(&to));
    assert_int_equal(from.len, 0);
    buf_done(&to);
    buf_done(&from);
}

TEST(buf, taking_leaves_it_empty)
{
    struct buf buf;
    buf_init(&buf, 10);
    buf_add_str(&buf, DEED_STR("hello"));
    char *text = buf_take(&buf);
    assert_string_equal(text, "hello");
    free(text);
    assert_int_equal(buf.len, 0);
    text = buf_take(&buf);
    assert_string_equal(text, "");
    free(text);
    buf_add_str(&buf, DEED_STR("0123456789")); /* its limit is as before */
    assert_true(buf_ok(&buf));
    buf_add_byte(&buf, 'x');
    assert_false(buf_ok(&buf));
    buf_done(&buf);
    buf_done(&buf);
}

/* ---- reader and writer -------------------------------------------------------------------- */

TEST(rw, what_is_written_is_read)
{
    struct buf buf;
    buf_init(&buf, 1000);
    write_u8(&buf, 0x01);
    write_u16(&buf, 0x0302);
    write_u32(&buf, 0x07060504);
    write_u64(&buf, UINT64_C(0x0f0e0d0c0b0a0908));
    write_i64(&buf, -2);
    write_block(&buf, (deed_bytes){(const uint8_t *)"ab", 2});
    write_text(&buf, DEED_STR(""));
    for (uint8_t i = 1; i < 16; i++)
        assert_int_equal(buf.ptr[i - 1], i); /* little endian */

    struct reader r = reader_over(guarded(buf.ptr, buf.len));
    assert_int_equal(read_u8(&r), 0x01);
    assert_int_equal(read_u16(&r), 0x0302);
    assert_int_equal(read_u32(&r), 0x07060504);
    assert_true(read_u64(&r) == UINT64_C(0x0f0e0d0c0b0a0908));
    assert_true(read_i64(&r) == -2);
    deed_bytes block = read_block(&r);
    assert_int_equal(block.len, 2);
    assert_memory_equal(block.ptr, "ab", 2);
    assert_false(reader_finished(&r));
    assert_int_equal(read_text(&r).len, 0);
    assert_true(reader_finished(&r));
    buf_done(&buf);
}

TEST(rw, a_dry_reader_yields_zeros_and_remembers)
{
    const uint8_t ones[8] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
    for (size_t len = 0; len < 8; len++) {
        struct reader r = reader_over(guarded(ones, len));
        assert_true(read_u64(&r) == 0);
        assert_false(reader_ok(&r));
        assert_int_equal(read_u8(&r), 0); /* though a byte is left */
        uint8_t into[4] = {1, 1, 1, 1};
        read_into(&r, into, sizeof into);
        assert_memory_equal(into, "\0\0\0\0", 4);
        assert_null(read_bytes(&r, 0).ptr);
        assert_false(reader_finished(&r));
    }
}

TEST(rw, a_length_past_the_end_is_dry)
{
    const uint8_t block[] = {3, 0, 0, 0, 'a', 'b', 'c'};
    const uint8_t lying[] = {0xff, 0xff, 0xff, 0xff, 'a', 'b', 'c'};
    struct reader r = reader_over(guarded(block, 7));
    assert_int_equal(read_block(&r).len, 3);
    assert_true(reader_finished(&r));
    r = reader_over(guarded(block, 6));
    assert_int_equal(read_block(&r).len, 0);
    assert_false(reader_ok(&r));
    r = reader_over(guarded(lying, 7));
    assert_int_equal(read_text(&r).len, 0);
    assert_false(reader_ok(&r));
    r = reader_over(guarded(block, 7));
    (void)read_u8(&r);
    assert_null(read_bytes(&r, SIZE_MAX).ptr); /* at + len overflows */
    assert_false(reader_ok(&r));
}

TEST(rw, reading_nothing_from_nothing_is_fine)
{
    struct reader r = reader_over((deed_bytes){0});
    assert_int_equal(read_bytes(&r, 0).len, 0);
    read_into(&r, NULL, 0);
    assert_true(reader_finished(&r));
    assert_int_equal(reader_left(&r), 0);
}

TEST(rw, a_block_over_its_length_field_fails)
{
    struct buf buf;
    buf_init(&buf, SIZE_MAX);
    write_block(&buf, (deed_bytes){(const uint8_t *)"", (size_t)UINT32_MAX + 1});
    assert_false(buf_ok(&buf));
    assert_int_equal(buf.len, 0);
    buf_done(&buf);
}

/* ---- error -------------------------------------------------------------------------------- */

TEST(error, every_status_has_its_words)
{
    for (int status = 0; status < DEED_STATUS_COUNT; status++) {
        assert_int_equal(strncmp(deed_status_name((deed_status)status), "DEED_", 5), 0);
        assert_int_not_equal(deed_status_text((deed_status)status)[0], '\0');
        assert_in_range(deed_status_http((deed_status)status), 200, 599);
        assert_in_range(deed_status_grpc((deed_status)status), 0, 16);
    }
    assert_string_equal(deed_status_name((deed_status)-1), "unknown status");
    assert_string_equal(deed_status_text(DEED_STATUS_COUNT), "unknown status");
    assert_int_equal(deed_status_http(DEED_STATUS_COUNT), 500);
    assert_int_equal(deed_status_grpc((deed_status)9999), 2);
    assert_string_equal(deed_version(), DEED_VERSION);
}

TEST(error, a_failure_fills_the_error)
{
    struct deed_error err;
    memset(&err, 0x55, sizeof err);
    assert_int_equal(deed_fail(&err, DEED_CONFLICT, "stream %s at %d", "a", 4), DEED_CONFLICT);
    assert_int_equal(err.status, DEED_CONFLICT);
    assert_string_equal(err.message, "stream a at 4");
    assert_string_equal(err.code, "");
    assert_true(err.condition == DEED_NONE);
    assert_true(err.position == DEED_NONE);
    assert_true(err.revision == DEED_NONE);
    assert_int_equal(deed_fail(NULL, DEED_IO, "x"), DEED_IO);
}

TEST(error, a_message_may_be_made_from_the_old_one)
{
    struct deed_error err;
    (void)deed_fail(&err, DEED_IO, "inner");
    (void)deed_fail(&err, DEED_UNKNOWN, "outer (%s)", err.message);
    assert_string_equal(err.message, "outer (inner)");
}

TEST(error, context_goes_in_front_and_the_rest_stays)
{
    struct deed_error err;
    (void)deed_fail(&err, DEED_STALE, "is at 5");
    err.revision = 5;
    deed_wrap(&err, "stream %s", "order-1");
    assert_string_equal(err.message, "stream order-1: is at 5");
    assert_int_equal(err.status, DEED_STALE);
    assert_true(err.revision == 5);
    deed_wrap(NULL, "x");
}

TEST(error, a_long_message_is_cut_between_characters)
{
    char text[1024];
    struct deed_error err;
    static const char *const characters[] = {"x", "é", "€", "𝄞"};
    for (size_t kind = 0; kind < 4; kind++) {
        for (size_t shift = 0; shift < 4; shift++) {
            size_t size = strlen(characters[kind]);
            memset(text, 'a', shift);
            size_t at = shift;
            while (at + size < sizeof text) {
                memcpy(text + at, characters[kind], size);
                at += size;
            }
            text[at] = '\0';
            (void)deed_fail(&err, DEED_IO, "%s", text);
            deed_bytes message = deed_bytes_of(deed_str_of(err.message));
            assert_true(utf8_valid(message));
            assert_in_range(message.len, DEED_MESSAGE_SIZE - 8, DEED_MESSAGE_SIZE - 1);

            deed_wrap(&err, "context");
            message = deed_bytes_of(deed_str_of(err.message));
            assert_true(utf8_valid(message));
            assert_memory_equal(message.ptr, "context: ", 9);
            deed_wrap(&err, "%s", text);
            assert_true(utf8_valid(deed_bytes_of(deed_str_of(err.message))));
        }
    }
}

TEST(error, a_message_fits_to_the_last_byte)
{
    char text[DEED_MESSAGE_SIZE + 1];
    struct deed_error err;
    memset(text, 'a', sizeof text);
    text[DEED_MESSAGE_SIZE - 1] = '\0';
    (void)deed_fail(&err, DEED_IO, "%s", text);
    assert_string_equal(err.message, text);
    text[DEED_MESSAGE_SIZE - 1] = 'a';
    text[DEED_MESSAGE_SIZE] = '\0';
    (void)deed_fail(&err, DEED_IO, "%s", text);
    assert_int_equal(strlen(err.message), DEED_MESSAGE_SIZE - 1);
}

TEST(error, an_errno_becomes_a_status_and_words)
{
    static const struct {
        int number;
        deed_status status;
        const char *message;
    } all[] = {
        {ENOSPC, DEED_FULL, "file x: No space left on device"},
        {EDQUOT, DEED_FULL, "file x: Disk quota exceeded"},
        {ENOENT, DEED_NOT_FOUND, "file x: No such file or directory"},
        {ENOMEM, DEED_NO_MEMORY, "file x: Cannot allocate memory"},
        {EIO, DEED_IO, "file x: Input/output error"},
        {EACCES, DEED_IO, "file x: Permission denied"},
        {99999, DEED_IO, "file x: Unknown error 99999"},
    };
    struct deed_error err;
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        assert_int_equal(deed_fail_errno(&err, all[i].number, "file %s", "x"), all[i].status);
        assert_string_equal(err.message, all[i].message);
        assert_int_equal(deed_fail_errno(NULL, all[i].number, "x"), all[i].status);
    }
}

/* ---- hash --------------------------------------------------------------------------------- */

/* RFC 3720, appendix B.4; and the check value of every catalogue. */
TEST(hash, crc32c_gives_the_known_values)
{
    uint8_t bytes[32];
    memset(bytes, 0, 32);
    assert_int_equal(crc32c(0, guarded(bytes, 32)), 0x8a9136aa);
    memset(bytes, 0xff, 32);
    assert_int_equal(crc32c(0, guarded(bytes, 32)), 0x62a8ab43);
    for (size_t i = 0; i < 32; i++)
        bytes[i] = (uint8_t)i;
    assert_int_equal(crc32c(0, guarded(bytes, 32)), 0x46dd794e);
    for (size_t i = 0; i < 32; i++)
        bytes[i] = (uint8_t)(31 - i);
    assert_int_equal(crc32c(0, guarded(bytes, 32)), 0x113fdb5c);
    assert_int_equal(crc32c(0, guarded("123456789", 9)), 0xe3069283);
    assert_int_equal(crc32c(0, (deed_bytes){0}), 0);
}

TEST(hash, crc32c_goes_on_where_it_stopped)
{
    uint8_t bytes[100];
    for (size_t i = 0; i < 100; i++)
        bytes[i] = (uint8_t)(i * 7);
    uint32_t whole = crc32c(0, (deed_bytes){bytes, 100});
    for (size_t cut = 0; cut <= 100; cut++) {
        uint32_t head = crc32c(0, guarded(bytes, cut));
        assert_int_equal(crc32c(head, guarded(bytes + cut, 100 - cut)), whole);
    }
}

static void expect_sha256(const char *wanted_hex, const deed_bytes *parts, size_t count)
{
    uint8_t digest[SHA256_SIZE];
    struct buf hex;
    sha256(parts, count, digest);
    buf_init(&hex, 64);
    hex_encode((deed_bytes){digest, SHA256_SIZE}, &hex);
    expect_str(buf_str(&hex), wanted_hex);
    buf_done(&hex);
}

/* FIPS 180-4's examples. */
TEST(hash, sha256_gives_the_known_values)
{
    expect_sha256("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", NULL, 0);
    deed_bytes parts[3] = {guarded("abc", 3)};
    expect_sha256("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", parts, 1);
    parts[0] = (deed_bytes){(const uint8_t *)"abcdbcdecdefdefgefgh", 20};
    parts[1] = (deed_bytes){0};
    parts[2] = (deed_bytes){(const uint8_t *)"fghighijhijkijkljklmklmnlmnomnopnopq", 36};
    expect_sha256("248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1", parts, 3);
    static uint8_t million[1000000];
    memset(million, 'a', sizeof million);
    parts[0] = (deed_bytes){million, sizeof million};
    expect_sha256("cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0", parts, 1);
}

TEST(hash, sha1_gives_the_known_values)
{
    static const uint8_t wanted[SHA1_SIZE] = {0xa9, 0x99, 0x3e, 0x36, 0x47, 0x06, 0x81,
                                              0x6a, 0xba, 0x3e, 0x25, 0x71, 0x78, 0x50,
                                              0xc2, 0x6c, 0x9c, 0xd0, 0xd8, 0x9d};
    uint8_t digest[SHA1_SIZE];
    deed_bytes parts[] = {deed_bytes_of(DEED_STR("a")), deed_bytes_of(DEED_STR("bc"))};
    sha1(parts, 2, digest);
    assert_memory_equal(digest, wanted, SHA1_SIZE);
}

TEST(hash, sha256_of_pieces_is_sha256_of_the_whole)
{
    uint8_t bytes[1000], whole[SHA256_SIZE], pieces[SHA256_SIZE];
    for (size_t i = 0; i < sizeof bytes; i++) bytes[i] = (uint8_t)(i * 7);
    deed_bytes all = {bytes, sizeof bytes};
    sha256(&all, 1, whole);
    for (size_t step = 1; step < sizeof bytes; step = step * 3 + 1) {
        struct sha256_stream stream;
        assert_true(sha256_begin(&stream));
        for (size_t at = 0; at < sizeof bytes; at += step) {
            size_t left = sizeof bytes - at;
            sha256_add(&stream, (deed_bytes){bytes + at, left < step ? left : step});
        }
        sha256_end(&stream, pieces);
        assert_memory_equal(pieces, whole, sizeof whole);
    }
    struct sha256_stream none = {0};
    sha256_end(&none, NULL);
}

struct hashing {
    uint8_t digest[SHA256_SIZE];
    atomic_bool done;
};

static uint64_t hash_step(void *context)
{
    struct hashing *hashing = context;
    deed_bytes part = {hashing->digest, SHA256_SIZE};
    for (int i = 0; i < 1000; i++) sha256(&part, 1, hashing->digest);
    atomic_store(&hashing->done, true);
    return ACTOR_WAIT;
}

TEST(hash, sha256_works_in_many_threads)
{
    struct hashing all[4] = {0};
    struct hashing here = {0};
    struct actor *actors[4];
    struct deed_error err;
    for (size_t i = 0; i < 4; i++) {
        expect_ok(actor_start("hash", hash_step, &all[i], &actors[i], &err));
    }
    (void)hash_step(&here);
    for (size_t i = 0; i < 4; i++) {
        while (!atomic_load(&all[i].done)) (void)usleep(1000);
        actor_stop(actors[i]);
        assert_memory_equal(all[i].digest, here.digest, SHA256_SIZE);
    }
}

TEST(hash, xxh64_is_xxh3_and_keyed)
{
    assert_true(xxh64(0, (deed_bytes){0}) == UINT64_C(0x2d06800538d394c2));
    assert_true(xxh64(1, guarded("hello", 5)) != xxh64(0, guarded("hello", 5)));
    assert_true(xxh64(1, guarded("hello", 5)) == xxh64(1, guarded("hello", 5)));
}

/* ---- text --------------------------------------------------------------------------------- */

/* What RFC 3629 says, the slow way: decode, and look whether the number encodes to the same. */
static bool utf8_valid_slowly(deed_bytes b)
{
    for (size_t i = 0; i < b.len;) {
        uint8_t lead = b.ptr[i];
        size_t size = lead < 0x80       ? 1
                      : lead >> 5 == 6  ? 2
                      : lead >> 4 == 14 ? 3
                      : lead >> 3 == 30 ? 4
                                        : 0;
        if (size == 0 || size > b.len - i) return false;
        uint32_t point = size == 1 ? lead : lead & (0x7fu >> size);
        for (size_t k = 1; k < size; k++) {
            if (b.ptr[i + k] >> 6 != 2) return false;
            point = point << 6 | (b.ptr[i + k] & 63u);
        }
        static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
        if (point < least[size] || point > 0x10ffff || (point >= 0xd800 && point < 0xe000))
            return false;
        i += size;
    }
    return true;
}

static void expect_same_utf8(const uint8_t *bytes, size_t len)
{
    deed_bytes b = guarded(bytes, len);
    if (utf8_valid(b) != utf8_valid_slowly(b))
        fail_msg("%02x %02x %02x %02x", bytes[0], bytes[1], bytes[2], bytes[3]);
}

TEST(text, utf8_is_checked_to_the_letter)
{
    uint8_t b[4] = {0};
    for (uint32_t two = 0; two < 0x10000; two++) {
        b[0] = (uint8_t)(two >> 8);
        b[1] = (uint8_t)two;
        expect_same_utf8(b, 1);
        expect_same_utf8(b, 2);
    }
    static const uint8_t edges[] = {0x00, 0x7f, 0x80, 0x8f, 0x90, 0x9f,
                                    0xa0, 0xbf, 0xc0, 0xc2, 0xe0, 0xff};
    const size_t count = sizeof edges;
    for (uint32_t lead = 0xc0; lead < 0x100; lead++) {
        b[0] = (uint8_t)lead;
        for (uint32_t second = 0; second < 0x100; second++) {
            b[1] = (uint8_t)second;
            for (size_t i = 0; i < count * count; i++) {
                b[2] = edges[i / count];
                b[3] = edges[i % count];
                expect_same_utf8(b, 3);
                expect_same_utf8(b, 4);
            }
        }
    }
}

TEST(text, utf8_is_found_bad_at_any_place)
{
    for (size_t len = 0; len < 40; len++) {
        uint8_t bytes[48];
        memset(bytes, 'a', sizeof bytes);
        assert_true(utf8_valid(guarded(bytes, len)));
        memcpy(bytes + len, "€", 3);
        assert_true(utf8_valid(guarded(bytes, len + 3)));
        assert_false(utf8_valid(guarded(bytes, len + 2)));
        assert_false(utf8_valid(guarded(bytes, len + 1)));
        for (size_t at = 0; at < len; at++) {
            bytes[at] = 0x80;
            assert_false(utf8_valid(guarded(bytes, len)));
            bytes[at] = 'a';
        }
    }
}

static void expect_beginning(const char *text, size_t size_max, const char *expected)
{
    deed_str shown = str_beginning(guarded_str(text), size_max);
    if (!deed_str_equal(shown, deed_str_of(expected)))
        fail_msg("%zu bytes of \"%s\": \"%.*s\"", size_max, text, DEED_FMT(shown));
}

TEST(text, a_beginning_is_cut_between_characters)
{
    expect_beginning("", 4, "");
    expect_beginning("name", 4, "name");
    expect_beginning("names", 4, "name");
    expect_beginning("naïve", 2, "na");
    expect_beginning("naïve", 3, "na");
    expect_beginning("naïve", 4, "naï");
    expect_beginning("€", 2, "");
    expect_beginning("\xf0\x9f\x99\x82!", 3, "");
    expect_beginning("\xf0\x9f\x99\x82!", 4, "\xf0\x9f\x99\x82");
    expect_beginning("eight and more", 12, "eight and mo");
    expect_beginning("good, then \xff bad", 40, "good, then ");
    expect_beginning("\xed\xa0\x80", 3, "");
}

TEST(text, numbers_are_digits_within_64_bits)
{
    static const char *const bad[] = {"",
                                      "-",
                                      "-1",
                                      "+1",
                                      " 1",
                                      "1 ",
                                      "1.0",
                                      "0x1",
                                      "1e3",
                                      "18446744073709551616",
                                      "99999999999999999999",
                                      "184467440737095516150"};
    uint64_t value = 7;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_false(text_u64(guarded_str(bad[i]), &value));
    assert_int_equal(value, 7);
    assert_true(text_u64(guarded_str("0"), &value) && value == 0);
    assert_true(text_u64(guarded_str("007"), &value) && value == 7);
    assert_true(text_u64(guarded_str("18446744073709551614"), &value) && value == UINT64_MAX - 1);
    assert_true(text_u64(guarded_str("18446744073709551615"), &value) && value == UINT64_MAX);
}

static void expect_digits(uint64_t value)
{
    char digits[U64_TEXT_SIZE], expected[U64_TEXT_SIZE + 1];
    int size = snprintf(expected, sizeof expected, "%" PRIu64, value);
    assert_int_equal(u64_format(value, digits), size);
    assert_memory_equal(digits, expected, (size_t)size);
}

TEST(text, numbers_are_written_with_every_count_of_digits)
{
    expect_digits(0);
    for (uint64_t power = 1;; power *= 10) {
        for (uint64_t factor = 1; factor < 10; factor++) expect_digits(power * factor - 1);
        expect_digits(power);
        expect_digits(power + 7);
        if (power > UINT64_MAX / 10) break;
    }
    for (uint64_t value = 0; value < 10100; value++) expect_digits(value);
    expect_digits(UINT64_MAX - 1);
    expect_digits(UINT64_MAX);
}

TEST(text, signed_numbers_reach_both_ends)
{
    static const char *const bad[] = {"",
                                      "-",
                                      "--1",
                                      "+1",
                                      "9223372036854775808",
                                      "-9223372036854775809",
                                      "18446744073709551615"};
    int64_t value = 7;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_false(text_i64(guarded_str(bad[i]), &value));
    assert_int_equal(value, 7);
    assert_true(text_i64(guarded_str("-0"), &value) && value == 0);
    assert_true(text_i64(guarded_str("-1"), &value) && value == -1);
    assert_true(text_i64(guarded_str("9223372036854775807"), &value) && value == INT64_MAX);
    assert_true(text_i64(guarded_str("-9223372036854775807"), &value) && value == -INT64_MAX);
    assert_true(text_i64(guarded_str("-9223372036854775808"), &value) && value == INT64_MIN);
}

/* RFC 4648, section 10. */
TEST(text, base64_gives_the_known_values)
{
    static const char *const known[][2] = {{"", ""},
                                           {"f", "Zg=="},
                                           {"fo", "Zm8="},
                                           {"foo", "Zm9v"},
                                           {"foob", "Zm9vYg=="},
                                           {"fooba", "Zm9vYmE="},
                                           {"foobar", "Zm9vYmFy"}};
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        struct buf out;
        buf_init(&out, 100);
        base64_encode(guarded(known[i][0], strlen(known[i][0])), &out);
        expect_str(buf_str(&out), known[i][1]);
        buf_reset(&out);
        assert_true(base64_decode(guarded_str(known[i][1]), &out));
        expect_str(buf_str(&out), known[i][0]);
        buf_done(&out);
    }
}

TEST(text, base64_brings_every_byte_back)
{
    uint8_t bytes[256];
    struct buf text, back;
    buf_init(&text, 1000);
    buf_init(&back, 1000);
    for (size_t i = 0; i < 256; i++)
        bytes[i] = (uint8_t)(i * 197);
    for (size_t len = 0; len <= 256; len++) {
        buf_reset(&text);
        buf_reset(&back);
        base64_encode(guarded(bytes, len), &text);
        assert_true(base64_decode(buf_str(&text), &back));
        assert_int_equal(back.len, len);
        if (len > 0) assert_memory_equal(back.ptr, bytes, len);
    }
    buf_done(&text);
    buf_done(&back);
}

TEST(text, base64_is_strict)
{
    static const char *const bad[] = {"Z",      "Zg",       "Zg=",   "Zh==",   "Zm9=", "Z===",
                                      "====",   "=Zg=",     "Zg=a",  "Zm9v\n", "Zm 9", "Zm-_",
                                      "Zm9vZg", "Zg==Zg==", "Zm9v=", "Zm\x80v"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct buf out;
        buf_init(&out, 100);
        if (base64_decode(guarded_str(bad[i]), &out)) fail_msg("\"%s\" was accepted", bad[i]);
        buf_done(&out);
    }
    struct buf small;
    buf_init(&small, 2);
    assert_false(base64_decode(guarded_str("Zm9v"), &small)); /* three bytes */
    buf_done(&small);
}

TEST(text, hex_is_lower_case)
{
    struct buf out;
    buf_init(&out, 100);
    hex_encode(guarded("\x00\x09\xaf\xff", 4), &out);
    expect_str(buf_str(&out), "0009afff");
    buf_done(&out);
}

TEST(text, names_compare_without_the_case_of_letters)
{
    assert_true(str_equal_fold(DEED_STR("Content-Type"), "content-TYPE"));
    assert_false(str_equal_fold(DEED_STR("Content-Typ"), "content-type"));
    assert_false(str_equal_fold(DEED_STR("Content-Types"), "content-type"));
    assert_false(str_equal_fold(DEED_STR("a\0"), "a"));
    assert_true(str_equal_fold((deed_str){0}, ""));
    assert_false(str_equal_fold((deed_str){0}, "a"));
    for (int c = 0; c < 256; c++) {
        bool is_capital = c >= 'A' && c <= 'Z'; /* not '@', '[' or what Latin-1 has */
        assert_int_equal((uint8_t)ascii_lower((char)c), is_capital ? c + 32 : c);
    }
}

TEST(text, strings_compare_by_bytes)
{
    assert_true(str_starts_with(DEED_STR("order-1"), DEED_STR("order-")));
    assert_true(str_starts_with(DEED_STR(""), (deed_str){0}));
    assert_true(str_starts_with(DEED_STR("a"), DEED_STR("a")));
    assert_false(str_starts_with(DEED_STR("a"), DEED_STR("ab")));
    assert_false(str_starts_with(DEED_STR("ba"), DEED_STR("a")));
    assert_true(str_compare(DEED_STR("a"), DEED_STR("b")) < 0);
    assert_true(str_compare(DEED_STR("a"), DEED_STR("aa")) < 0);
    assert_true(str_compare(DEED_STR("\xff"), DEED_STR("a")) > 0);
    assert_true(str_compare((deed_str){0}, DEED_STR("")) == 0);
    assert_true(str_compare(DEED_STR("b"), DEED_STR("ab")) > 0);
    assert_true(deed_str_equal((deed_str){0}, DEED_STR("")));
    assert_false(deed_str_equal(DEED_STR("a"), DEED_STR("b")));
    assert_int_equal(deed_str_of(NULL).len, 0);
}

/* ---- uuid --------------------------------------------------------------------------------- */

/* RFC 9562, appendix A.4: www.example.com in the namespace of domain names. */
TEST(uuid, a_name_has_the_id_that_everybody_gives_it)
{
    deed_uuid space, wanted;
    deed_bytes name[] = {deed_bytes_of(DEED_STR("www.")), deed_bytes_of(DEED_STR("example.com"))};
    assert_true(uuid_parse(DEED_STR("6ba7b810-9dad-11d1-80b4-00c04fd430c8"), &space));
    assert_true(uuid_parse(DEED_STR("2ed6657d-e927-568b-95e1-2665a8aea6a2"), &wanted));
    assert_true(uuid_equal(uuid_v5(space, name, 2), wanted));
}

TEST(uuid, text_and_bytes_go_both_ways)
{
    deed_uuid id;
    char text[UUID_TEXT_SIZE + 1];
    assert_true(uuid_parse(guarded_str("00112233-4455-6677-8899-AabbCCddeeFF"), &id));
    for (size_t i = 0; i < 16; i++)
        assert_int_equal(id.bytes[i], i * 0x11);
    uuid_format(id, text);
    assert_string_equal(text, "00112233-4455-6677-8899-aabbccddeeff");
    assert_false(uuid_is_zero(id));
    assert_true(uuid_is_zero((deed_uuid){{0}}));
    assert_true(uuid_equal(id, id));
    assert_false(uuid_equal(id, (deed_uuid){{0}}));
}

TEST(uuid, anything_else_is_refused)
{
    const char good[] = "00112233-4455-6677-8899-aabbccddeeff";
    deed_uuid id = {{1}};
    for (size_t len = 0; len < UUID_TEXT_SIZE; len++) {
        deed_bytes b = guarded(good, len);
        assert_false(uuid_parse((deed_str){(const char *)b.ptr, len}, &id));
    }
    assert_false(uuid_parse(guarded_str("00112233-4455-6677-8899-aabbccddeeff0"), &id));
    assert_false(uuid_parse(guarded_str("{0112233-4455-6677-8899-aabbccddeef}"), &id));
    for (size_t at = 0; at < UUID_TEXT_SIZE; at++) {
        char bad[sizeof good];
        memcpy(bad, good, sizeof good);
        bad[at] = 'g';
        assert_false(uuid_parse(guarded_str(bad), &id));
        bad[at] = good[at] == '-' ? '0' : '-';
        assert_false(uuid_parse(guarded_str(bad), &id));
    }
    assert_int_equal(id.bytes[0], 1);
}

/* RFC 9562, appendix A. */
TEST(uuid, versions_4_and_7_give_the_known_values)
{
    char text[UUID_TEXT_SIZE + 1];
    const uint8_t seven[10] = {0xfc, 0xc3, 0xd8, 0xc4, 0xdc, 0x0c, 0x0c, 0x07, 0x39, 0x8f};
    uuid_format(uuid_v7(INT64_C(1645557742000999999), seven), text);
    assert_string_equal(text, "017f22e2-79b0-7cc3-98c4-dc0c0c07398f");
    uuid_format(uuid_v7(-5, seven), text);
    assert_string_equal(text, "00000000-0000-7cc3-98c4-dc0c0c07398f");
    const uint8_t four[16] = {0x91, 0x91, 0x08, 0xf7, 0x52, 0xd1, 0xf3, 0x20,
                              0xdb, 0xac, 0xf8, 0x47, 0xdb, 0x41, 0x48, 0xa8};
    uuid_format(uuid_v4(four), text);
    assert_string_equal(text, "919108f7-52d1-4320-9bac-f847db4148a8");
}

/* ---- time --------------------------------------------------------------------------------- */

static const struct {
    int64_t ns;
    const char *text;
} instants[] = {
    {0, "1970-01-01T00:00:00.000000000Z"},
    {1, "1970-01-01T00:00:00.000000001Z"},
    {-1, "1969-12-31T23:59:59.999999999Z"},
    {INT64_C(-1000000000), "1969-12-31T23:59:59.000000000Z"},
    {INT64_C(951782400000000000), "2000-02-29T00:00:00.000000000Z"},
    {INT64_C(1795406829123456789), "2026-11-23T04:07:09.123456789Z"},
    {INT64_C(-2203891200000000000), "1900-03-01T00:00:00.000000000Z"},
    {INT64_MAX, "2262-04-11T23:47:16.854775807Z"},
    {INT64_MIN, "1677-09-21T00:12:43.145224192Z"},
    {INT64_MIN + 1, "1677-09-21T00:12:43.145224193Z"},
};

TEST(timetext, instants_go_both_ways)
{
    for (size_t i = 0; i < sizeof instants / sizeof instants[0]; i++) {
        char text[TIME_TEXT_SIZE + 1];
        int64_t ns = 0;
        time_format(instants[i].ns, text);
        assert_string_equal(text, instants[i].text);
        assert_true(time_parse(guarded_str(text), &ns));
        assert_true(ns == instants[i].ns);
    }
}

TEST(timetext, every_day_goes_both_ways)
{
    char before[TIME_TEXT_SIZE + 1] = "";
    for (int64_t day = -106750; day <= 106750; day++) {
        char text[TIME_TEXT_SIZE + 1];
        int64_t ns = 0;
        time_format(day * INT64_C(86400000000000), text);
        assert_true(strcmp(before, text) < 0);
        assert_true(time_parse(guarded_str(text), &ns));
        assert_true(ns == day * INT64_C(86400000000000));
        assert_true(date_valid((deed_str){text, 10}));
        memcpy(before, text, sizeof text);
    }
}

static void expect_time(const char *text, int64_t wanted)
{
    int64_t ns = 0;
    if (!time_parse(guarded_str(text), &ns)) fail_msg("\"%s\" was refused", text);
    if (ns != wanted) fail_msg("\"%s\" is %lld", text, (long long)ns);
}

TEST(timetext, the_forms_of_rfc_3339_are_understood)
{
    const int64_t at = INT64_C(1795406829000000000);
    expect_time("2026-11-23T04:07:09Z", at);
    expect_time("2026-11-23t04:07:09z", at);
    expect_time("2026-11-23 04:07:09Z", at);
    expect_time("2026-11-23T05:07:09+01:00", at);
    expect_time("2026-11-22T22:37:09-05:30", at);
    expect_time("2026-11-24T04:06:09+23:59", at);
    expect_time("2026-11-23T04:07:09-00:00", at);
    expect_time("2026-11-23T04:07:09.5Z", at + 500000000);
    expect_time("2026-11-23T04:07:09.000000001Z", at + 1);
    expect_time("2026-11-23T04:07:09.0000000019999Z", at + 1);
    expect_time("2026-11-23", at - (4 * 3600 + 7 * 60 + 9) * INT64_C(1000000000));
    expect_time("2016-12-31T23:59:60Z", INT64_C(1483228800000000000));
    expect_time("2016-12-31T23:59:60.7Z", INT64_C(1483228800000000000));
    expect_time("1969-12-31T23:59:59.25Z", -750000000);
}

TEST(timetext, anything_else_is_no_instant)
{
    static const char *const bad[] = {"",
                                      "2026",
                                      "2026-11",
                                      "2026-11-2",
                                      "2026-11-231",
                                      "26-11-23",
                                      "2026/11/23",
                                      "2026-00-10",
                                      "2026-13-10",
                                      "2026-11-00",
                                      "2026-11-31",
                                      "2026-02-29",
                                      "1900-02-29",
                                      "2026-11-23T",
                                      "2026-11-23T04:07:09",
                                      "2026-11-23T04:07Z",
                                      "2026-11-23T24:00:00Z",
                                      "2026-11-23T04:60:00Z",
                                      "2026-11-23T04:07:61Z",
                                      "2026-11-23T04:07:09.Z",
                                      "2026-11-23T04:07:09,5Z",
                                      "2026-11-23T04:07:09+24:00",
                                      "2026-11-23T04:07:09+01:60",
                                      "2026-11-23T04:07:09+0100",
                                      "2026-11-23T04:07:09+01",
                                      "2026-11-23T04:07:09Zx",
                                      "2026-11-23T04:07:09Z ",
                                      " 2026-11-23T04:07:09Z",
                                      "-026-11-23T04:07:09Z",
                                      "2026-11-23X04:07:09Z",
                                      "2262-04-11T23:47:16.854775808Z",
                                      "1677-09-21T00:12:43.145224191Z",
                                      "1677-09-21T00:12:43Z",
                                      "0000-01-01",
                                      "9999-12-31T23:59:59Z"};
    int64_t ns = 7;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        if (time_parse(guarded_str(bad[i]), &ns)) fail_msg("\"%s\" was accepted", bad[i]);
    }
    assert_int_equal(ns, 7);
}

TEST(timetext, a_date_is_a_day_that_exists)
{
    assert_true(date_valid(guarded_str("2026-11-23")));
    assert_true(date_valid(guarded_str("2000-02-29")));
    assert_true(date_valid(guarded_str("9999-12-31")));
    assert_false(date_valid(guarded_str("2100-02-29")));
    assert_false(date_valid(guarded_str("2026-04-31")));
    assert_false(date_valid(guarded_str("2026-11-23T00:00:00Z")));
    assert_false(date_valid(guarded_str("")));
}

TEST_MAIN(base)
