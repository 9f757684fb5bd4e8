/* test_log.c - belongs to src/log: the bytes of events, commits, segments and marks, what opening
 * makes of damaged ones, and the golden log that every version must read. */
#include "store_fixture.h"

#include "base/uuid.h"
#include "log/commit.h"
#include "log/losses.h"
#include "log/mark.h"
#include "log/segment.h"
#include "store/store_state.h"

#include <errno.h>
#include <sys/mman.h>

/* ---- bytes against an unmapped page --------------------------------------------------------- */

static uint8_t *guard_map;
static size_t guard_room;

/* A copy of `bytes` that ends where memory ends. */
static deed_bytes guarded(deed_bytes bytes)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    if (guard_map != NULL) munmap(guard_map, guard_room + page);
    guard_room = (bytes.len + page) / page * page;
    guard_map = mmap(NULL, guard_room + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
                     -1, 0);
    assert_true(guard_map != MAP_FAILED);
    assert_int_equal(mprotect(guard_map + guard_room, page, PROT_NONE), 0);
    uint8_t *copy = guard_map + guard_room - bytes.len;
    if (bytes.len > 0) memcpy(copy, bytes.ptr, bytes.len);
    return (deed_bytes){copy, bytes.len};
}

/* ---- events --------------------------------------------------------------------------------- */

static struct buf out;
static struct arena arena;
static const uint8_t salt[EVENT_SALT_SIZE] = "0123456789abcdef";
static uint8_t leaf[SHA256_SIZE];
static const deed_str two_tags[] = {{"red", 3}, {"", 0}};

static void begin_bytes(void)
{
    buf_init(&out, 1 << 20);
    arena_init(&arena, 1 << 20);
}

static void end_bytes(void)
{
    buf_done(&out);
    arena_done(&arena);
}

/* An event with the optional parts that the bits of `parts` name. */
static struct deed_new_event event_with(unsigned parts)
{
    struct deed_new_event e = {.stream = DEED_STR("order-1"), .type = DEED_STR("Placed")};
    if (parts & 1) e.data = deed_bytes_of(DEED_STR("some data"));
    if (parts & 2) e.metadata = deed_bytes_of(DEED_STR("{}"));
    if (parts & 4) e.content_type = DEED_STR("text/plain");
    if (parts & 8) e.tags = two_tags, e.tag_count = 2;
    if (parts & 16) e.correlation_id = DEED_STR("cor");
    if (parts & 32) e.causation_id = DEED_STR("cau");
    if (parts & 64) e.actor = DEED_STR("me");
    return e;
}

static struct event_place place_with(unsigned parts)
{
    static const uint8_t hash[EVENT_KEY_HASH_SIZE] = "hash of the request";
    struct event_place place = {
        .position = 7, .revision = 3, .id = id_of(9), .time_ns = INT64_MIN + 1};
    if (parts & 128) place.idempotency_key = DEED_STR("key"), place.request_hash = hash;
    return place;
}

static void encode_event(unsigned parts)
{
    struct deed_new_event e = event_with(parts);
    struct event_place place = place_with(parts);
    buf_reset(&out);
    event_encode(&out, &e, &place, salt, leaf);
    assert_true(buf_ok(&out));
}

static bool decode_event(deed_bytes bytes, struct deed_event *e, uint8_t *out_leaf)
{
    struct reader r = reader_over(guarded(bytes));
    arena_reset(&arena);
    bool ok = event_decode(&r, &arena, e, out_leaf);
    assert_true(ok == reader_ok(&r));
    return ok && reader_finished(&r);
}

static bool bytes_are(deed_bytes got, deed_bytes wanted)
{
    return got.len == wanted.len && (got.len == 0 || memcmp(got.ptr, wanted.ptr, got.len) == 0);
}

static void expect_event(const struct deed_event *got, unsigned parts)
{
    struct deed_new_event e = event_with(parts);
    struct event_place place = place_with(parts);
    assert_int_equal(got->position, 7);
    assert_int_equal(got->revision, 3);
    assert_true(uuid_equal(got->id, id_of(9)));
    assert_true(got->time_ns == INT64_MIN + 1);
    expect_str(got->stream, "order-1");
    expect_str(got->type, "Placed");
    expect_str(got->content_type, parts & 4 ? "text/plain" : "application/json");
    assert_true(bytes_are(got->data, e.data));
    assert_true(bytes_are(got->metadata, e.metadata));
    assert_int_equal(got->tag_count, e.tag_count);
    for (size_t i = 0; i < e.tag_count; i++) assert_true(deed_str_equal(got->tags[i], e.tags[i]));
    assert_true(deed_str_equal(got->correlation_id, e.correlation_id));
    assert_true(deed_str_equal(got->causation_id, e.causation_id));
    assert_true(deed_str_equal(got->actor, e.actor));
    assert_true(deed_str_equal(got->idempotency_key, place.idempotency_key));
    assert_true((got->request_hash == NULL) == (place.request_hash == NULL));
    if (got->request_hash != NULL) assert_memory_equal(got->request_hash, place.request_hash, 32);
}

TEST(log, every_mix_of_an_events_parts_comes_back)
{
    begin_bytes();
    for (unsigned parts = 0; parts < 256; parts++) {
        struct deed_event got;
        uint8_t got_leaf[SHA256_SIZE];
        encode_event(parts);
        struct deed_new_event e = event_with(parts);
        assert_true(out.len <= event_size(&e, place_with(parts).idempotency_key));
        assert_true(decode_event(buf_bytes(&out), &got, got_leaf));
        expect_event(&got, parts);
        assert_memory_equal(got_leaf, leaf, SHA256_SIZE);
        struct reader r = reader_over(buf_bytes(&out));
        assert_true(event_skip(&r));
        assert_true(reader_finished(&r));
    }
    end_bytes();
}

/* docs/format/log.md: the leaf is SHA-256 over the record from byte 8 on. */
TEST(log, an_events_leaf_is_its_salt_and_its_canonical_bytes)
{
    begin_bytes();
    encode_event(255);
    uint8_t wanted[SHA256_SIZE];
    sha256(&(deed_bytes){out.ptr + 8, out.len - 8}, 1, wanted);
    assert_memory_equal(leaf, wanted, SHA256_SIZE);
    assert_memory_equal(out.ptr + 8, salt, sizeof salt);
    end_bytes();
}

TEST(log, an_event_that_was_cut_is_refused_at_every_length)
{
    begin_bytes();
    struct deed_event got;
    for (unsigned parts = 0; parts < 256; parts += 85) {
        encode_event(parts);
        for (size_t size = 0; size < out.len; size++) {
            assert_false(decode_event((deed_bytes){out.ptr, size}, &got, NULL));
            /* Also when the record itself claims to be that short. */
            uint8_t *copy = malloc(out.len);
            assert_non_null(copy);
            memcpy(copy, out.ptr, out.len);
            put_uint(copy, size, 4);
            assert_false(decode_event((deed_bytes){copy, size < 4 ? 4 : size}, &got, NULL));
            free(copy);
        }
        write_u8(&out, 0); /* and longer than its parts */
        put_uint(out.ptr, out.len, 4);
        assert_false(decode_event(buf_bytes(&out), &got, NULL));
    }
    end_bytes();
}

/* Whatever an altered record decodes to, its leaf tells. */
TEST(log, an_altered_event_is_refused_or_has_another_leaf)
{
    begin_bytes();
    encode_event(255);
    for (size_t i = 0; i < out.len; i++) {
        for (unsigned bit = 0; bit < 8; bit++) {
            struct deed_event got;
            uint8_t got_leaf[SHA256_SIZE];
            out.ptr[i] ^= (uint8_t)(1u << bit);
            bool decoded = decode_event(buf_bytes(&out), &got, got_leaf);
            out.ptr[i] ^= (uint8_t)(1u << bit);
            if (decoded && memcmp(got_leaf, leaf, SHA256_SIZE) == 0) fail_msg("byte %zu", i);
            if (decoded && i < 8) fail_msg("size, kind or reserved byte %zu does not matter", i);
        }
    }
    end_bytes();
}

static void expect_no_event(size_t at, uint64_t value, size_t size)
{
    struct deed_event got;
    uint64_t before = 0;
    for (size_t i = 0; i < size; i++) before |= (uint64_t)out.ptr[at + i] << (8 * i);
    put_uint(out.ptr + at, value, size);
    assert_false(decode_event(buf_bytes(&out), &got, NULL));
    put_uint(out.ptr + at, before, size);
    assert_true(decode_event(buf_bytes(&out), &got, NULL));
}

TEST(log, what_an_event_must_not_be)
{
    begin_bytes();
    encode_event(1 + 8);
    expect_no_event(4, 2, 1);  /* an unknown kind */
    expect_no_event(5, 1, 3);  /* reserved */
    expect_no_event(64, 128 + 4, 2); /* an unknown part */
    expect_no_event(64, 0, 2);       /* tags that are not announced */
    expect_no_event(70 + 7 + 6, 0, 2);      /* announced, but none */
    expect_no_event(70 + 7 + 6, 0xffff, 2); /* more than there is room for */
    end_bytes();
}

/* One event has one encoding: a part that is there is not empty, and JSON is not said aloud. */
TEST(log, a_part_that_says_nothing_is_refused)
{
    static const deed_str none = {"", 0}, json = {"application/json", 16};
    static const struct {
        uint16_t field;
        const deed_str *name;
        bool long_size;
    } cases[] = {{1, &none, false}, {1, &json, false}, {2, &none, true},
                 {8, &none, false}, {16, &none, false}, {32, &none, false}};
    begin_bytes();
    for (size_t i = 0; i < 6; i++) {
        struct deed_event got;
        encode_event(1);
        struct buf with;
        buf_init(&with, 4096);
        size_t data_at = out.len - 9 - 4;
        buf_add(&with, out.ptr, data_at);
        if (cases[i].long_size) {
            write_text(&with, *cases[i].name);
        } else {
            write_u16(&with, (uint16_t)cases[i].name->len);
            buf_add_str(&with, *cases[i].name);
        }
        buf_add(&with, out.ptr + data_at, 9 + 4);
        put_uint(with.ptr, with.len, 4);
        put_uint(with.ptr + 64, cases[i].field, 2);
        assert_false(decode_event(buf_bytes(&with), &got, NULL));
        buf_done(&with);
    }
    end_bytes();
}

TEST(log, an_event_larger_than_the_arena_is_refused)
{
    begin_bytes();
    struct deed_event got;
    encode_event(8);
    struct arena small;
    arena_init(&small, 8);
    struct reader r = reader_over(buf_bytes(&out));
    assert_false(event_decode(&r, &small, &got, NULL));
    assert_true(small.failed);
    assert_false(reader_ok(&r));
    arena_done(&small);
    end_bytes();
}

/* ---- stubs ---------------------------------------------------------------------------------- */

/* The event in `out` becomes what `fate` makes of it; its leaf must not change. */
static bool reduce_event(enum event_fate fate)
{
    struct buf reduced;
    uint8_t reduced_leaf[SHA256_SIZE];
    buf_init(&reduced, 1 << 20);
    arena_reset(&arena);
    struct reader r = reader_over(guarded(buf_bytes(&out)));
    bool ok = event_reduce(&r, fate, &arena, &reduced, reduced_leaf) && buf_ok(&reduced);
    if (ok) {
        assert_true(reader_finished(&r));
        assert_memory_equal(reduced_leaf, leaf, SHA256_SIZE);
        buf_done(&out);
        out = reduced;
    } else {
        buf_done(&reduced);
    }
    return ok;
}

static void expect_reduced(unsigned parts, enum event_fate fate)
{
    unsigned left = parts;
    if (fate != EVENT_KEEP) left &= ~3u;
    if (fate == EVENT_ERASE) left &= ~(32u | 64u);
    struct deed_event got;
    uint8_t got_leaf[SHA256_SIZE];
    assert_true(decode_event(buf_bytes(&out), &got, got_leaf));
    expect_event(&got, left);
    assert_true(got.removed == (fate != EVENT_KEEP));
    assert_memory_equal(got_leaf, leaf, SHA256_SIZE);
    assert_int_equal(out.ptr[4], fate == EVENT_KEEP ? 1 : fate == EVENT_REMOVE ? 2 : 3);
}

TEST(log, every_mix_of_parts_leaves_a_stub_that_comes_back)
{
    begin_bytes();
    for (unsigned parts = 0; parts < 256; parts++) {
        for (unsigned fate = EVENT_KEEP; fate <= EVENT_ERASE; fate++) {
            encode_event(parts);
            assert_true(reduce_event((enum event_fate)fate));
            expect_reduced(parts, (enum event_fate)fate);
        }
    }
    end_bytes();
}

TEST(log, what_is_removed_stays_removed_and_can_be_erased)
{
    begin_bytes();
    encode_event(255);
    assert_true(reduce_event(EVENT_REMOVE));
    assert_true(reduce_event(EVENT_KEEP));
    expect_reduced(255, EVENT_REMOVE);
    assert_true(reduce_event(EVENT_ERASE));
    expect_reduced(255, EVENT_ERASE);
    assert_true(reduce_event(EVENT_REMOVE));
    expect_reduced(255, EVENT_ERASE);
    end_bytes();
}

TEST(log, a_removed_event_keeps_its_salt_and_an_erased_one_does_not)
{
    static const uint8_t zeros[EVENT_SALT_SIZE];
    begin_bytes();
    encode_event(255);
    assert_true(reduce_event(EVENT_REMOVE));
    assert_memory_equal(out.ptr + 8, salt, EVENT_SALT_SIZE);
    assert_true(reduce_event(EVENT_ERASE));
    assert_memory_equal(out.ptr + 8, zeros, EVENT_SALT_SIZE);
    end_bytes();
}

static bool was(const char *data, const char *metadata)
{
    struct buf scratch;
    bool same = false;
    buf_init(&scratch, 1 << 20);
    arena_reset(&arena);
    struct reader r = reader_over(guarded(buf_bytes(&out)));
    assert_true(event_was(&r, &arena, deed_bytes_of(deed_str_of(data)),
                          deed_bytes_of(deed_str_of(metadata)), &scratch, &same));
    assert_int_equal(scratch.len, 0);
    buf_done(&scratch);
    return same;
}

TEST(log, a_stub_tells_what_it_was_and_an_erased_one_does_not)
{
    begin_bytes();
    for (unsigned parts = 0; parts < 256; parts++) {
        const char *data = parts & 1 ? "some data" : "";
        const char *metadata = parts & 2 ? "{}" : "";
        encode_event(parts);
        assert_true(reduce_event(EVENT_REMOVE));
        assert_true(was(data, metadata));
        assert_false(was("other data", metadata));
        assert_false(was(data, "[]"));
        assert_false(was(metadata, parts & 3 ? data : "x"));
        assert_true(reduce_event(EVENT_ERASE));
        assert_true(was("anything", "{}"));
    }
    end_bytes();
}

TEST(log, each_cut_and_each_flipped_byte_of_a_stub_is_told_or_changes_it)
{
    begin_bytes();
    struct deed_event got;
    for (unsigned fate = EVENT_REMOVE; fate <= EVENT_ERASE; fate++) {
        encode_event(255);
        assert_true(reduce_event((enum event_fate)fate));
        size_t size = out.len;
        for (size_t cut = 0; cut < size; cut++) {
            assert_false(decode_event((deed_bytes){out.ptr, cut}, &got, NULL));
        }
        for (size_t at = 0; at < size; at++) {
            struct buf again;
            uint8_t got_leaf[SHA256_SIZE];
            out.ptr[at] ^= 0x41;
            if (decode_event(buf_bytes(&out), &got, NULL)) {
                struct reader r = reader_over(buf_bytes(&out));
                buf_init(&again, 1 << 20);
                arena_reset(&arena);
                assert_true(event_reduce(&r, EVENT_KEEP, &arena, &again, got_leaf));
                assert_true(bytes_are(buf_bytes(&again), buf_bytes(&out)));
                buf_done(&again);
            }
            out.ptr[at] ^= 0x41;
        }
        out.ptr[5] = 1; /* reserved */
        assert_false(decode_event(buf_bytes(&out), &got, NULL));
        out.ptr[5] = 0;
        out.ptr[4] = 4; /* a kind that is not known */
        assert_false(decode_event(buf_bytes(&out), &got, NULL));
        out.ptr[4] = 0;
        assert_false(decode_event(buf_bytes(&out), &got, NULL));
    }
    end_bytes();
}

TEST(log, a_stub_says_nothing_of_parts_that_it_cannot_have)
{
    begin_bytes();
    struct deed_event got;
    encode_event(32 | 64); /* causation id and actor */
    assert_true(reduce_event(EVENT_REMOVE));
    out.ptr[4] = 3; /* an erased one has neither, nor a salt */
    assert_false(decode_event(buf_bytes(&out), &got, NULL));
    memset(out.ptr + 8, 0, EVENT_SALT_SIZE);
    assert_false(decode_event(buf_bytes(&out), &got, NULL));
    encode_event(0);
    assert_true(reduce_event(EVENT_REMOVE));
    out.ptr[56 + 40] |= 2; /* metadata */
    assert_false(decode_event(buf_bytes(&out), &got, NULL));
    end_bytes();
}

TEST(log, a_buffer_or_an_arena_that_is_full_shows_when_reducing)
{
    begin_bytes();
    struct buf tight;
    encode_event(255);
    deed_bytes whole = guarded(buf_bytes(&out));
    size_t all = 0;
    for (size_t room = 0; all == 0; room++) {
        struct reader r = reader_over(whole);
        buf_init(&tight, room);
        arena_reset(&arena);
        assert_true(event_reduce(&r, EVENT_REMOVE, &arena, &tight, leaf));
        if (buf_ok(&tight)) all = room;
        buf_done(&tight);
    }
    assert_true(reduce_event(EVENT_REMOVE));
    assert_int_equal(all, out.len);

    struct arena small;
    struct reader r = reader_over(buf_bytes(&out));
    arena_init(&small, 8);
    buf_init(&tight, 1 << 20);
    assert_false(event_reduce(&r, EVENT_REMOVE, &small, &tight, leaf));
    assert_true(small.failed);
    buf_done(&tight);
    arena_done(&small);
    end_bytes();
}

/* ---- commits -------------------------------------------------------------------------------- */

static const struct commit_seed seed = {
    .log_id = {{1, 2, 3}}, .secret = {4, 5, 6}, .segment = 5, .offset = 8192};

static void encode_commit(struct commit *commit, uint32_t event_count)
{
    uint8_t leaves[3][SHA256_SIZE];
    buf_reset(&out);
    size_t start = commit_begin(&out);
    for (uint32_t i = 0; i < event_count; i++) {
        struct deed_new_event e = event_with(i * 37 + 1);
        struct event_place place = place_with(0);
        place.position += i;
        event_encode(&out, &e, &place, salt, leaves[i]);
    }
    *commit = (struct commit){.event_count = event_count,
                              .first_position = 7,
                              .recorded_at_ns = 99,
                              .durable_before = 6,
                              .previous = "the previous commit's own hash."};
    commit_finish(&out, start, &seed, (const uint8_t(*)[SHA256_SIZE])leaves, commit);
    assert_true(buf_ok(&out));
}

TEST(log, a_commit_comes_back)
{
    begin_bytes();
    struct commit wrote, got;
    for (uint32_t count = 1; count <= 3; count++) {
        encode_commit(&wrote, count);
        assert_int_equal(out.len % COMMIT_ALIGN, 0);
        assert_int_equal(wrote.size, out.len);
        assert_int_equal(commit_peek_size(buf_bytes(&out)), out.len);
        assert_true(commit_decode(guarded(buf_bytes(&out)), &seed, &got));
        assert_int_equal(got.size, out.len);
        assert_int_equal(got.event_count, count);
        assert_int_equal(got.first_position, 7);
        assert_int_equal(got.recorded_at_ns, 99);
        assert_int_equal(got.durable_before, 6);
        assert_memory_equal(got.previous, wrote.previous, SHA256_SIZE);
        assert_memory_equal(got.hash, wrote.hash, SHA256_SIZE);
        assert_true(commit_hash_good(&got, seed.log_id, &arena));
        buf_add(&out, "what stands behind it", 21);
        assert_true(commit_decode(buf_bytes(&out), &seed, &got));
        assert_int_equal(got.size, wrote.size);
    }
    end_bytes();
}

TEST(log, a_commit_belongs_to_its_log_its_segment_and_its_place)
{
    begin_bytes();
    struct commit wrote, got;
    encode_commit(&wrote, 2);
    struct commit_seed others[] = {seed, seed, seed, seed};
    others[0].log_id.bytes[15] = 1;
    others[1].segment++;
    others[2].offset += 4096;
    others[3].secret[15] = 1;
    for (size_t i = 0; i < 4; i++) assert_false(commit_decode(buf_bytes(&out), &others[i], &got));
    assert_true(commit_decode(buf_bytes(&out), &seed, &got));
    deed_uuid other = {{9}};
    assert_false(commit_hash_good(&got, other, &arena));
    end_bytes();
}

/* What is known of all places of a log changes no checksum. */
TEST(log, a_place_known_ahead_has_the_same_checksum)
{
    static struct commit_places places;
    begin_bytes();
    struct commit wrote, got;
    commit_places_make(seed.log_id, seed.secret, &places);
    encode_commit(&wrote, 2);
    for (unsigned bit = 0; bit < 96; bit++) {
        struct commit_seed slow = seed;
        if (bit < 32) slow.segment ^= UINT32_C(1) << bit;
        if (bit >= 32) slow.offset ^= UINT64_C(1) << (bit - 32);
        struct commit_seed fast = slow, wrong = seed;
        fast.places = wrong.places = &places;
        commit_reseal(out.ptr, &slow);
        assert_true(commit_decode(buf_bytes(&out), &fast, &got));
        assert_false(commit_decode(buf_bytes(&out), &wrong, &got));
    }
    end_bytes();
}

TEST(log, a_commit_that_was_cut_or_altered_is_refused)
{
    begin_bytes();
    struct commit wrote, got;
    encode_commit(&wrote, 2);
    for (size_t size = 0; size < out.len; size++) {
        assert_false(commit_decode(guarded((deed_bytes){out.ptr, size}), &seed, &got));
    }
    for (size_t i = 0; i < out.len; i++) {
        for (unsigned bit = 0; bit < 8; bit++) {
            out.ptr[i] ^= (uint8_t)(1u << bit);
            assert_false(commit_decode(buf_bytes(&out), &seed, &got));
            out.ptr[i] ^= (uint8_t)(1u << bit);
        }
    }
    end_bytes();
}

/* With a checksum that is right again. */
static void seal(void)
{
    uint8_t place[44];
    memcpy(place, seed.log_id.bytes, 16);
    memcpy(place + 16, seed.secret, 16);
    put_uint(place + 32, seed.segment, 4);
    put_uint(place + 36, seed.offset, 8);
    uint32_t crc = crc32c(0, (deed_bytes){place, sizeof place});
    put_uint(out.ptr + 4, crc32c(crc, (deed_bytes){out.ptr + 8, out.len - 8}), 4);
}

static bool sealed_decodes(size_t at, uint64_t value, size_t size, struct commit *got)
{
    struct commit wrote;
    encode_commit(&wrote, 2);
    put_uint(out.ptr + at, value, size);
    seal();
    return commit_decode(guarded(buf_bytes(&out)), &seed, got);
}

TEST(log, what_a_commit_must_not_be)
{
    begin_bytes();
    struct commit got;
    assert_true(sealed_decodes(4, 0, 4, &got)); /* only sealed again */
    assert_false(sealed_decodes(0, 0x544d4343, 4, &got));
    assert_false(sealed_decodes(8, 0, 4, &got));
    assert_false(sealed_decodes(8, COMMIT_HEAD_SIZE - 8, 4, &got));
    assert_false(sealed_decodes(8, COMMIT_HEAD_SIZE + 1, 4, &got));
    assert_false(sealed_decodes(8, UINT32_MAX - 7, 4, &got));
    assert_false(sealed_decodes(12, 0, 4, &got));                   /* no events */
    assert_false(sealed_decodes(16, 0, 8, &got));                   /* no position */
    assert_false(sealed_decodes(16, POSITION_MAX + 1, 8, &got));    /* past all */
    assert_false(sealed_decodes(40, 1, 8, &got));                   /* unknown flags */
    end_bytes();
}

/* What the checksum no longer protects, the commit's own hash does. */
TEST(log, a_forged_commit_does_not_have_its_hash)
{
    begin_bytes();
    struct commit got, wrote;
    encode_commit(&wrote, 2);
    size_t size = out.len;
    for (size_t i = 12; i < size; i++) {
        bool covered = !(i >= 40 && i < 48);
        if (!sealed_decodes(i, (uint8_t)(out.ptr[i] ^ 1), 1, &got)) continue;
        arena_reset(&arena);
        bool good = commit_hash_good(&got, seed.log_id, &arena);
        if (good && covered) fail_msg("byte %zu of a commit is not covered", i);
    }
    assert_true(sealed_decodes(12, UINT32_MAX, 4, &got)); /* more events than bytes */
    assert_false(commit_hash_good(&got, seed.log_id, &arena));
    assert_true(sealed_decodes(12, 3, 4, &got));
    assert_false(commit_hash_good(&got, seed.log_id, &arena));
    assert_true(sealed_decodes(12, 1, 4, &got));
    assert_false(commit_hash_good(&got, seed.log_id, &arena));
    end_bytes();
}

/* docs/format/log.md, the chain, said once more. */
TEST(log, a_commits_own_hash_is_what_the_page_says)
{
    begin_bytes();
    struct commit wrote, got;
    struct deed_event e;
    encode_commit(&wrote, 3);
    assert_true(commit_decode(buf_bytes(&out), &seed, &got));
    struct buf text;
    buf_init(&text, 4096);
    buf_add(&text, got.previous, SHA256_SIZE);
    buf_add(&text, seed.log_id.bytes, 16);
    write_u64(&text, 7);
    write_u32(&text, 3);
    write_u64(&text, 99);
    write_u64(&text, 6);
    struct reader r = reader_over(got.events);
    for (int i = 0; i < 3; i++) {
        assert_true(event_decode(&r, &arena, &e, leaf));
        buf_add(&text, leaf, SHA256_SIZE);
    }
    uint8_t wanted[SHA256_SIZE];
    deed_bytes all = buf_bytes(&text);
    sha256(&all, 1, wanted);
    assert_memory_equal(got.hash, wanted, SHA256_SIZE);
    buf_done(&text);
    end_bytes();
}

TEST(log, a_commit_with_stubs_keeps_its_hash)
{
    begin_bytes();
    struct commit wrote, got;
    for (unsigned fate = EVENT_KEEP; fate <= EVENT_ERASE; fate++) {
        encode_commit(&wrote, 3);
        struct buf again;
        uint8_t leaves[3][SHA256_SIZE];
        struct commit stubs = wrote;
        struct reader r = reader_over(wrote.events);
        buf_init(&again, 1 << 20);
        size_t at = commit_begin(&again);
        for (int i = 0; i < 3; i++) {
            enum event_fate one = i == 1 ? EVENT_KEEP : (enum event_fate)fate;
            assert_true(event_reduce(&r, one, &arena, &again, leaves[i]));
        }
        commit_finish(&again, at, &seed, (const uint8_t(*)[SHA256_SIZE])leaves, &stubs);
        assert_memory_equal(stubs.hash, wrote.hash, SHA256_SIZE);
        assert_true(commit_decode(buf_bytes(&again), &seed, &got));
        assert_true(commit_hash_good(&got, seed.log_id, &arena));
        /* The leaf is what it was or the chain breaks. */
        if (fate != EVENT_KEEP) {
            again.ptr[COMMIT_HEAD_SIZE + 24] ^= 1;
            assert_false(commit_hash_good(&got, seed.log_id, &arena));
        }
        buf_done(&again);
    }
    end_bytes();
}

/* ---- segments ------------------------------------------------------------------------------- */

TEST(log, segments_are_named_by_ten_digits)
{
    char name[SEGMENT_NAME_SIZE];
    uint32_t number = 0;
    segment_name(1, name);
    assert_string_equal(name, "0000000001.seg");
    segment_name(UINT32_MAX, name);
    assert_string_equal(name, "4294967295.seg");
    assert_true(segment_name_parse(name, &number));
    assert_int_equal(number, UINT32_MAX);
    static const char *const wrong[] = {"",
                                        "0000000000.seg",
                                        "4294967296.seg",
                                        "9999999999.seg",
                                        "000000001.seg",
                                        "00000000001.seg",
                                        "0000000001.se",
                                        "0000000001.segs",
                                        "0000000001",
                                        "000000000x.seg",
                                        "-000000001.seg",
                                        "0000000001.4096.99.torn",
                                        "marks",
                                        "losses"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        assert_false(segment_name_parse(wrong[i], &number));
    }
}

static const struct segment_header some_header = {.log_id = {{1, 2, 3}},
                                                  .epoch = 4,
                                                  .number = 5,
                                                  .first_position = 6,
                                                  .previous = "previous",
                                                  .created_at_ns = -7,
                                                  .secret = "secret"};

TEST(log, a_segments_header_comes_back)
{
    uint8_t bytes[SEGMENT_HEADER_SIZE];
    struct segment_header got;
    segment_header_encode(&some_header, bytes);
    expect_ok(segment_header_decode(bytes, &got, &err));
    assert_true(uuid_equal(got.log_id, some_header.log_id));
    assert_int_equal(got.epoch, 4);
    assert_int_equal(got.number, 5);
    assert_int_equal(got.first_position, 6);
    assert_memory_equal(got.previous, some_header.previous, SHA256_SIZE);
    assert_true(got.created_at_ns == -7);
    assert_memory_equal(got.secret, some_header.secret, COMMIT_SECRET_SIZE);
}

TEST(log, an_altered_segment_header_is_damaged_not_newer)
{
    uint8_t bytes[SEGMENT_HEADER_SIZE];
    struct segment_header got;
    segment_header_encode(&some_header, bytes);
    for (size_t i = 0; i < sizeof bytes; i++) {
        bytes[i] ^= (uint8_t)(1u << (i % 8));
        expect_status(DEED_CORRUPT, segment_header_decode(bytes, &got, &err));
        bytes[i] ^= (uint8_t)(1u << (i % 8));
    }
    expect_message(err, "checksum does not match");
}

TEST(log, a_segment_header_with_a_nonsensical_position_is_damaged)
{
    static const uint64_t positions[] = {0, POSITION_MAX, POSITION_MAX + 1, UINT64_MAX};
    for (size_t i = 0; i < 4; i++) {
        uint8_t bytes[SEGMENT_HEADER_SIZE];
        struct segment_header header = some_header, got;
        header.first_position = positions[i];
        segment_header_encode(&header, bytes);
        expect_status(i == 1 ? DEED_OK : DEED_CORRUPT, segment_header_decode(bytes, &got, &err));
    }
    expect_message(err, "first position 18446744073709551615");
}

/* ---- marks ---------------------------------------------------------------------------------- */

static struct os_dir *dir;

static void start_marks(void)
{
    start_machine(1);
    expect_ok(os_dir_open(os, ROOT, true, &dir, &err));
}

static void finish_marks(void)
{
    os_dir_close(dir);
    dir = NULL;
    finish();
}

static void write_mark(uint64_t sequence, uint64_t position)
{
    struct os_file *file = NULL;
    struct mark mark = {.log_id = {{8}},
                        .epoch = 2,
                        .sequence = sequence,
                        .segment = 3,
                        .offset = 4096 * sequence,
                        .position = position,
                        .hash = "hash",
                        .secret = "secret"};
    expect_ok(mark_open(dir, &file, &err));
    expect_ok(mark_write(file, &mark, &err));
    os_file_close(file);
}

static struct mark load_mark(void)
{
    struct mark mark = {.sequence = 99};
    if (mark_load(dir, &mark, &err) != DEED_OK) fail_msg("marks: %s", err.message);
    return mark;
}

TEST(log, the_newest_mark_counts)
{
    start_marks();
    assert_int_equal(load_mark().sequence, 0); /* no file */
    struct os_file *file = NULL;
    expect_ok(mark_open(dir, &file, &err));
    os_file_close(file);
    assert_int_equal(load_mark().sequence, 0); /* no mark in it */
    for (uint64_t sequence = 1; sequence < 5; sequence++) {
        write_mark(sequence, sequence * 10);
        struct mark mark = load_mark();
        assert_int_equal(mark.sequence, sequence);
        assert_int_equal(mark.position, sequence * 10);
        assert_int_equal(mark.epoch, 2);
        assert_int_equal(mark.segment, 3);
        assert_int_equal(mark.offset, 4096 * sequence);
        assert_int_equal(mark.log_id.bytes[0], 8);
        assert_memory_equal(mark.hash, "hash", 5);
        assert_memory_equal(mark.secret, "secret", 7);
    }
    finish_marks();
}

TEST(log, a_damaged_mark_leaves_the_one_before)
{
    struct picture p;
    start_marks();
    write_mark(1, 10);
    write_mark(2, 20);
    picture_take(&p, os, ROOT);
    finish_marks();
    struct picture_file *f = picture_find(&p, "marks");
    assert_int_equal(f->size, 8192);
    for (size_t i = 0; i < 120; i++) { /* sequence 2 is in the first slot */
        f->bytes[i] ^= 1;
        start_machine(1);
        picture_put(&p, os, ROOT);
        expect_ok(os_dir_open(os, ROOT, true, &dir, &err));
        assert_int_equal(load_mark().sequence, 1);
        finish_marks();
        f->bytes[i] ^= 1;
    }
    for (size_t size = 0; size <= 8192; size += 512) { /* and a file that was cut */
        f->size = size;
        start_machine(1);
        picture_put(&p, os, ROOT);
        expect_ok(os_dir_open(os, ROOT, true, &dir, &err));
        assert_int_equal(load_mark().sequence, size < 4096 ? 0 : 2);
        write_mark(3, 30);
        assert_int_equal(load_mark().sequence, 3);
        finish_marks();
    }
    f->size = 8192;
    picture_done(&p);
}

TEST(log, marks_that_cannot_be_read_are_an_error)
{
    start_marks();
    write_mark(1, 10);
    struct mark mark;
    os_sim_fail(sim, OS_SIM_READ, 1, 0, EIO);
    expect_status(DEED_IO, mark_load(dir, &mark, &err));
    expect_message(err, "marks");
    finish_marks();
}

/* ---- opening what was damaged --------------------------------------------------------------- */

/* Six groups: some with several commits, some commits with several events. */
static struct picture story;
static char story_words[1024];
static uint64_t story_end;

static void submit_done(void *context, const struct deed_appended *answer,
                        const struct deed_error *why)
{
    (void)context;
    if (answer == NULL) fail_msg("append: %s", why->message);
}

static void take_story(void)
{
    start();
    say("a", "one");
    say("b", "two");
    struct deed_new_event three[] = {said("a", "three"), said("b", "four"), said("a", "five")};
    expect_ok(append_all(three, 3, NULL, 0));
    struct deed_new_event more[] = {said("c", "six"), said("c", "seven"), said("a", "eight")};
    struct deed_append each[2];
    for (size_t i = 0; i < 2; i++) { /* one group of three commits */
        each[i] = (struct deed_append){.events = &more[i], .event_count = 1};
        expect_ok(store_submit(store, &each[i], submit_done, NULL, &err));
    }
    say_event(more[2]);
    say("a", "nine");
    story_end = store_position(store);
    (void)snprintf(story_words, sizeof story_words, "%s",
                   read_words(&(struct deed_read_options){.after_position = 1}));
    assert_string_equal(story_words, "one two three four five six seven eight nine");
    close_store();
    picture_take(&story, os, ROOT "/log");
    finish();
}

/* Does the log hold all that the story told, and nothing else? Else: is each loss told? */
static void expect_story_or_told(const char *what)
{
    static const char *const words[] = {"one", "two",   "three", "four", "five",
                                        "six", "seven", "eight", "nine"};
    struct deed_info info;
    store_info(store, &info);
    struct deed_cursor *cursor = NULL;
    struct deed_event e;
    struct deed_read_options all = {.after_position = 1, .filter.system = true};
    bool seen[16] = {false};
    bool told = false;
    expect_ok(store_read(store, &all, &cursor, &err));
    for (;;) {
        deed_status status = cursor_next(cursor, &e, &err);
        if (status == DEED_END) break;
        if (status == DEED_CORRUPT) {
            told = true;
            continue;
        }
        if (status != DEED_OK) fail_msg("%s: read: %s", what, err.message);
        char wanted[16];
        if (e.position < 2 || e.position > story_end) fail_msg("%s: an event of nobody's", what);
        int size = snprintf(wanted, sizeof wanted, "\"%s\"", words[e.position - 2]);
        bool right = e.data.len == (size_t)size && memcmp(e.data.ptr, wanted, (size_t)size) == 0;
        if (!right) fail_msg("%s: position %d is another event", what, (int)e.position);
        seen[e.position] = true;
    }
    cursor_close(cursor);
    for (uint64_t position = 2; position <= story_end; position++) {
        if (seen[position]) continue;
        bool at_the_end = info.position < position; /* nothing to read there, but it is reported */
        bool reported = info.corrupt_first != DEED_NONE && info.corrupt_first <= position;
        if (!reported || (!told && !at_the_end)) {
            fail_msg("%s: position %d is missing and nobody says so", what, (int)position);
        }
        if (info.writable) fail_msg("%s: position %d is missing, appends go on", what, (int)position);
    }
}

static void expect_opened_well(const char *what)
{
    deed_status status = try_open();
    if (status == DEED_CORRUPT && err.message[0] != '\0') return; /* refused as a whole */
    if (status != DEED_OK) fail_msg("%s: open: %s: %s", what, deed_status_name(status), err.message);
    expect_story_or_told(what);
    struct store_verify_report report;
    struct deed_info info;
    store_info(store, &info);
    status = store_verify(store, NULL, NULL, NULL, &report, &err);
    if (status != DEED_OK && status != DEED_CORRUPT) fail_msg("%s: verify: %s", what, err.message);
    if (info.writable && status != DEED_OK) fail_msg("%s: writable, does not verify", what);
    if (info.writable && append_event(said("a", "ten")) != DEED_OK) {
        fail_msg("%s: writable, but: %s", what, err.message);
    }
}

/* Every byte and every length; under a sanitizer, which watches the memory and takes ten times and
 * more, one in so many. */
#if defined(__SANITIZE_THREAD__)
#define STRIDE 101
#elif defined(__SANITIZE_ADDRESS__)
#define STRIDE 13
#else
#define STRIDE 1
#endif

TEST(log, no_flipped_byte_is_served_and_no_loss_is_silent)
{
    take_story();
    for (size_t n = 0; n < story.count; n++) {
        struct picture_file *f = &story.files[n];
        for (size_t at = 0; at < f->size; at += STRIDE) {
            char what[64];
            (void)snprintf(what, sizeof what, "%s, byte %zu flipped", f->name, at);
            f->bytes[at] ^= (uint8_t)(1u << (at % 8));
            start_from(&story);
            expect_opened_well(what);
            finish();
            f->bytes[at] ^= (uint8_t)(1u << (at % 8));
        }
    }
    picture_done(&story);
}

TEST(log, no_sector_lost_in_zeros_or_noise_is_silent)
{
    take_story();
    for (size_t n = 0; n < story.count; n++) {
        struct picture_file *f = &story.files[n];
        for (size_t at = 0; at + 512 <= f->size; at += 512) {
            for (int noise = 0; noise < 2; noise++) {
                char what[64];
                uint8_t kept[512];
                (void)snprintf(what, sizeof what, "%s, sector at %zu lost", f->name, at);
                memcpy(kept, f->bytes + at, 512);
                memset(f->bytes + at, noise * 0x5a, 512);
                start_from(&story);
                expect_opened_well(what);
                finish();
                memcpy(f->bytes + at, kept, 512);
            }
        }
    }
    picture_done(&story);
}

TEST(log, no_cut_is_silent)
{
    take_story();
    for (size_t n = 0; n < story.count; n++) {
        struct picture_file *f = &story.files[n];
        size_t whole = f->size;
        for (f->size = 0; f->size < whole; f->size += STRIDE) {
            char what[64];
            (void)snprintf(what, sizeof what, "%s, cut at %zu", f->name, f->size);
            start_from(&story);
            expect_opened_well(what);
            finish();
        }
        f->size = whole;
    }
    picture_done(&story);
}

TEST(log, a_missing_file_is_not_silent)
{
    take_story();
    for (size_t n = 0; n < story.count; n++) {
        struct picture without = story;
        without.files[n] = story.files[--without.count];
        start_from(&without);
        expect_opened_well(without.count == 1 ? without.files[0].name : "");
        finish();
    }
    picture_done(&story);
}

/* Without any mark a torn end is all that damage at the end can look like: nothing wrong is served,
 * and what stands before it is whole. */
TEST(log, without_a_mark_a_cut_loses_only_the_end)
{
    take_story();
    struct picture alone = {.count = 1};
    alone.files[0] = *picture_find(&story, "0000000001.seg");
    size_t whole = alone.files[0].size;
    for (size_t size = SEGMENT_HEADER_SIZE; size < whole; size += STRIDE) {
        alone.files[0].size = size;
        start_from(&alone);
        open_store();
        const char *words = read_words(&(struct deed_read_options){.after_position = 1});
        if (strncmp(words, story_words, strlen(words)) != 0) fail_msg("cut at %zu: %s", size, words);
        say("a", "more");
        finish();
    }
    picture_done(&story);
}

TEST(log, segments_of_another_log_are_refused)
{
    struct picture first, second;
    start();
    say("a", "one");
    close_store();
    picture_take(&first, os, ROOT "/log");
    finish();
    start_machine(2);
    open_store();
    for (int i = 0; i < 20; i++) say("a", "one");
    close_store();
    picture_take(&second, os, ROOT "/log");
    finish();
    first.files[first.count++] = *picture_find(&second, "0000000002.seg");
    start_from(&first);
    expect_status(DEED_CORRUPT, try_open());
    expect_message(err, "another log");
    first.count--;
    picture_done(&first);
    picture_done(&second);
    finish();
}

TEST(log, a_log_whose_identity_is_lost_is_refused_as_a_whole)
{
    take_story();
    for (size_t n = 0; n < story.count; n++) {
        for (size_t at = 0; at < story.files[n].size; at += 4096) story.files[n].bytes[at] ^= 1;
    }
    picture_find(&story, "0000000001.seg")->bytes[4096] ^= 1; /* its commits are good */
    start_from(&story);
    expect_status(DEED_CORRUPT, try_open());
    expect_message(err, "the log cannot be told from another");
    finish();
    picture_done(&story);
}

TEST(log, a_mark_of_another_log_claims_nothing)
{
    take_story();
    struct picture mixed = story, other;
    start_machine(2);
    open_store();
    for (int i = 0; i < 40; i++) say("a", "one");
    close_store();
    picture_take(&other, os, ROOT "/log");
    finish();
    for (size_t i = 0; i < mixed.count; i++) {
        if (strcmp(mixed.files[i].name, "marks") == 0) mixed.files[i] = *picture_find(&other, "marks");
    }
    start_from(&mixed);
    open_store();
    expect_story_or_told("a mark of another log");
    say("a", "ten");
    finish();
    picture_done(&other);
    picture_done(&story);
}

/* The same log grown in two ways from a copy: one's mark, the other's commits. */
TEST(log, a_mark_that_names_another_commit_is_told)
{
    struct picture base_log, left, right;
    start();
    say("a", "one");
    close_store();
    picture_take(&base_log, os, ROOT "/log");
    finish();
    struct picture *sides[] = {&left, &right};
    for (int i = 0; i < 2; i++) {
        start_machine((uint64_t)i + 5);
        picture_put(&base_log, os, ROOT "/log");
        open_store();
        say("a", i == 0 ? "left" : "right");
        close_store();
        picture_take(sides[i], os, ROOT "/log");
        finish();
    }
    struct picture mixed = left;
    for (size_t i = 0; i < mixed.count; i++) {
        if (strcmp(mixed.files[i].name, "marks") == 0) mixed.files[i] = *picture_find(&right, "marks");
    }
    start_from(&mixed);
    open_store();
    struct deed_info info;
    store_info(store, &info);
    assert_false(info.writable);
    finish();
    picture_done(&base_log);
    picture_done(&left);
    picture_done(&right);
}

/* Somebody changes an event and makes the checksum right again. What the mark covers is opened
 * without its hashes, since no accident does that; verifying computes them all. */
TEST(log, a_forged_event_is_found_by_its_hash)
{
    take_story();
    struct picture_file *f = picture_find(&story, "0000000001.seg");
    uint8_t *commit = f->bytes + 3 * SECTOR_SIZE; /* position 3 */
    uint32_t size = commit_peek_size((deed_bytes){commit, SECTOR_SIZE});
    uint8_t place[44];
    memcpy(place, f->bytes + 32, 16);
    memcpy(place + 16, f->bytes + 112, 16);
    put_uint(place + 32, 1, 4);
    put_uint(place + 36, 3 * SECTOR_SIZE, 8);
    uint8_t *word = memmem(commit, size, "\"two\"", 5);
    assert_non_null(word);
    memcpy(word, "\"six\"", 5);
    uint32_t crc = crc32c(crc32c(0, (deed_bytes){place, sizeof place}),
                          (deed_bytes){commit + 8, size - 8});
    put_uint(commit + 4, crc, 4);

    struct store_verify_report report;
    struct deed_info info;
    start_from(&story);
    open_store();
    expect_status(DEED_CORRUPT, store_verify(store, NULL, NULL, NULL, &report, &err));
    finish();

    struct picture alone = {.count = 1, .files = {*f}};
    start_from(&alone);
    open_store();
    store_info(store, &info);
    assert_false(info.writable);
    expect_words("one !3 three four five six seven eight nine", .after_position = 1);
    finish();
    picture_done(&story);
}

/* A client that knows all that clients can know puts a commit into its event's data, where a sector
 * will begin. The machine dies, and the sector before it did not arrive. */
TEST(log, a_commit_inside_an_event_is_none)
{
    static uint8_t data[4 * SECTOR_SIZE];
    start();
    say("a", "one");
    struct deed_info info;
    store_info(store, &info);
    const uint64_t group = 3 * SECTOR_SIZE;
    const size_t data_at = COMMIT_HEAD_SIZE + 24 + 46 + 1 + 4 + 2 + 10 + 4;

    uint8_t leaves[1][SHA256_SIZE];
    begin_bytes();
    size_t begin = commit_begin(&out);
    struct deed_new_event forged = said("a", "forged");
    forged.type = DEED_STR("$streamDeleted");
    struct event_place place = {.position = info.position + 1, .revision = 1, .id = id_of(7)};
    event_encode(&out, &forged, &place, salt, leaves[0]);
    struct commit commit = {.event_count = 1,
                            .first_position = info.position + 1,
                            .recorded_at_ns = info.recorded_at_ns,
                            .durable_before = info.position};
    memcpy(commit.previous, info.chain_hash, SHA256_SIZE);
    struct commit_seed guess = {.log_id = info.log_id, .segment = 1, .offset = group + SECTOR_SIZE};
    commit_finish(&out, begin, &guess, (const uint8_t(*)[SHA256_SIZE])leaves, &commit);
    memcpy(data + SECTOR_SIZE - data_at, out.ptr, out.len);
    end_bytes();

    struct deed_new_event e = said("b", "two");
    e.content_type = DEED_STR("text/plain");
    e.data = (deed_bytes){data, sizeof data};
    say_event(e);
    close_store();
    picture_take(&story, os, ROOT "/log");
    finish();
    struct picture_file *f = picture_find(&story, "0000000001.seg");
    assert_memory_equal(f->bytes + group + SECTOR_SIZE, "DCMT", 4); /* it stands where it must */
    memset(f->bytes + group, 0, SECTOR_SIZE);
    struct picture alone = {.count = 1, .files = {*f}};
    start_from(&alone);
    open_store();
    expect_words("one", .stream = DEED_STR("a"));
    expect_words("one", .after_position = 1);
    say("a", "on");
    finish();
    picture_done(&story);
}

/* ---- a torn tail ---------------------------------------------------------------------------- */

static unsigned torn_files;
static char torn_name[64];

static void count_torn(void *context, const char *name)
{
    (void)context;
    size_t len = strlen(name);
    if (len < 5 || strcmp(name + len - 5, ".torn") != 0) return;
    torn_files++;
    (void)snprintf(torn_name, sizeof torn_name, "%s", name);
}

TEST(log, a_torn_tail_is_kept_aside)
{
    take_story();
    struct picture_file *f = picture_find(&story, "0000000001.seg");
    size_t end = f->size;
    assert_int_equal(end % SECTOR_SIZE, 0);
    f->bytes = realloc(f->bytes, end + 2 * SECTOR_SIZE);
    assert_non_null(f->bytes);
    memset(f->bytes + end, 0, 2 * SECTOR_SIZE);
    memset(f->bytes + end + 100, 0x77, 50);
    f->size = end + 2 * SECTOR_SIZE;
    start_from(&story);
    open_store();
    expect_story_or_told("with a torn tail");
    say("a", "ten");
    close_store();
    torn_files = 0;
    expect_ok(os_dir_open(os, ROOT "/log", false, &dir, &err));
    expect_ok(os_dir_list(dir, count_torn, NULL, &err));
    assert_int_equal(torn_files, 1);
    char begin[64];
    (void)snprintf(begin, sizeof begin, "0000000001.%zu.", end);
    assert_memory_equal(torn_name, begin, strlen(begin));
    struct os_file *file = NULL;
    uint8_t bytes[2 * SECTOR_SIZE];
    size_t size = 0;
    expect_ok(os_file_open(dir, torn_name, OS_READ, &file, &err));
    expect_ok(os_file_read(file, 0, bytes, sizeof bytes, &size, &err));
    assert_int_equal(size, SECTOR_SIZE); /* whole sectors, up to the last that holds anything */
    assert_int_equal(bytes[100], 0x77);
    assert_int_equal(bytes[149], 0x77);
    assert_int_equal(bytes[150], 0);
    os_file_close(file);
    os_dir_close(dir);
    dir = NULL;
    open_store();
    const char *words = read_words(&(struct deed_read_options){.after_position = 1});
    assert_memory_equal(words, story_words, strlen(story_words));
    assert_string_equal(words + strlen(story_words), " ten");
    finish();
    picture_done(&story);
}

/* ---- repair --------------------------------------------------------------------------------- */

/* The story with its second event damaged, opened by somebody who accepts that. */
static void start_repaired(void)
{
    take_story();
    picture_find(&story, "0000000001.seg")->bytes[3 * SECTOR_SIZE + 130] ^= 1;
    start_from(&story);
    open_store();
    expect_words("one !3 three four five six seven eight nine", .after_position = 1);
    expect_status(DEED_STOPPED, append_event(said("a", "ten")));
    close_store();
    options.accept_losses = true;
    open_store();
    options.accept_losses = false;
    picture_done(&story);
}

TEST(log, accepted_losses_stay_errors_but_appends_go_on)
{
    start_repaired();
    struct store_verify_report report;
    for (int round = 0; round < 2; round++) {
        expect_words(round == 0 ? "one !3 three four five six seven eight nine"
                                : "one !3 three four five six seven eight nine ten",
                     .after_position = 1);
        expect_ok(store_verify(store, NULL, NULL, NULL, &report, &err));
        assert_int_equal(report.accepted_count, 1);
        if (round == 0) say("a", "ten");
        reopen();
    }
    expect_words("!3 four", .stream = DEED_STR("b"));
    finish();
}

TEST(log, a_damaged_list_of_losses_accepts_nothing)
{
    struct picture p;
    start_repaired();
    close_store();
    picture_take(&p, os, ROOT "/log");
    finish();
    struct picture_file *f = picture_find(&p, LOSSES_FILE);
    for (size_t at = 0; at < f->size; at++) {
        struct deed_info info;
        struct store_verify_report report;
        f->bytes[at] ^= 1;
        start_from(&p);
        open_store();
        store_info(store, &info);
        assert_false(info.writable);
        expect_words("one !3 three four five six seven eight nine", .after_position = 1);
        expect_status(DEED_CORRUPT, store_verify(store, NULL, NULL, NULL, &report, &err));
        assert_int_equal(report.damage_count, 2); /* the list itself, and what it accepted */
        finish();
        f->bytes[at] ^= 1;
    }
    for (size_t whole = f->size; f->size > 0;) {
        f->size--;
        start_from(&p);
        open_store();
        expect_words("one !3 three four five six seven eight nine", .after_position = 1);
        struct deed_info info;
        store_info(store, &info);
        assert_false(info.writable);
        finish();
        (void)whole;
    }
    picture_done(&p);
}

TEST(log, a_lost_end_that_was_accepted_is_not_numbered_again)
{
    take_story();
    struct picture_file *f = picture_find(&story, "0000000001.seg");
    f->size -= SECTOR_SIZE;
    start_from(&story);
    options.accept_losses = true;
    open_store();
    say("a", "ten");
    assert_int_equal(appended.position, story_end + 1);
    expect_words("one two three four five six seven eight !10 ten", .after_position = 1);
    options.accept_losses = false;
    reopen();
    expect_words("one two three four five six seven eight !10 ten", .after_position = 1);
    say("b", "eleven");
    finish();
    picture_done(&story);
}

/* ---- the golden log ------------------------------------------------------------------------- */

/* Written once by the first version that had the format, and never again: GOLDEN_MAKE=FOLDER
 * writes new ones below there, for a new format. `log-sealed-v1` is the same story, its first segment
 * rewritten with blocks of zstd, a removed and an erased event, its second one sealed. */

#define GOLDEN        "tests/golden/log-v1"
#define GOLDEN_SEALED "tests/golden/log-sealed-v1"

static void golden_commit(struct deed_new_event *events, size_t count, const char *key)
{
    struct deed_append a = {
        .events = events, .event_count = count, .idempotency_key = deed_str_of(key)};
    for (unsigned i = 0; i < 32; i++) a.request_hash[i] = (uint8_t)i;
    if (store_append(store, &a, &appended, &err) != DEED_OK) fail_msg("%s", err.message);
    os_sim_advance(sim, SECOND + 1);
}

static void golden_story(void)
{
    static char large[40000];
    static const uint8_t odd[] = {0, 255, '\n', '"', 128};
    deed_str tags[] = {DEED_STR("red"), DEED_STR("größe:7")};
    start();
    struct deed_new_event bare = {.stream = DEED_STR("order-1"),
                                  .type = DEED_STR("Placed"),
                                  .data = deed_bytes_of(DEED_STR("{\"n\": 1.50}")),
                                  .id = id_of(1)};
    golden_commit(&bare, 1, "");
    struct deed_new_event full = {.stream = DEED_STR("größe"),
                                  .type = DEED_STR("Measured"),
                                  .data = {odd, sizeof odd},
                                  .metadata = deed_bytes_of(DEED_STR("{\"a\":[]}")),
                                  .content_type = DEED_STR("application/octet-stream"),
                                  .tags = tags,
                                  .tag_count = 2,
                                  .id = id_of(2),
                                  .time_ns = -1,
                                  .correlation_id = DEED_STR("correlation"),
                                  .causation_id = DEED_STR("causation"),
                                  .actor = DEED_STR("Zoë")};
    struct deed_new_event three[] = {full, bare, full};
    three[1].id = id_of(3);
    three[2].id = id_of(4);
    three[2].tag_count = 1;
    golden_commit(three, 3, "key-1");
    memset(large, 'x', sizeof large);
    struct deed_new_event big = {.stream = DEED_STR("order-1"),
                                 .type = DEED_STR("Attached"),
                                 .content_type = DEED_STR("text/plain"),
                                 .data = {(const uint8_t *)large, sizeof large},
                                 .id = id_of(5)};
    golden_commit(&big, 1, "");
    big.id = id_of(6);
    golden_commit(&big, 1, ""); /* into a second segment */
    expect_ok(store_delete_stream(store, DEED_STR("größe"), DEED_EXPECT_ANY, 0, false,
                                  DEED_STR("me"), &appended, &err));
    expect_ok(store_delete_stream(store, DEED_STR("order-1"), DEED_EXPECT_REVISION, 3, true,
                                  DEED_STR("me"), &appended, &err));
}

static enum event_fate golden_fate(void *context, const struct deed_event *event)
{
    (void)context;
    return event->position == 4 ? EVENT_REMOVE : event->position == 5 ? EVENT_ERASE : EVENT_KEEP;
}

static void golden_seal(void)
{
    struct log_rewrite how = {.decide = golden_fate, .compress_level = 3};
    expect_ok(log_roll(store->log, &err));
    while (log_seal(store->log) < SECOND) continue;
    expect_ok(log_rewrite(store->log, 1, &how, &err));
    say("order-3", "active");
}

static void add_hex(struct buf *to, const char *name, deed_bytes bytes)
{
    buf_printf(to, " %s ", name);
    if (bytes.len > 64) {
        uint8_t hash[SHA256_SIZE];
        sha256(&bytes, 1, hash);
        buf_printf(to, "%zu bytes, sha256 ", bytes.len);
        for (size_t i = 0; i < SHA256_SIZE; i++) buf_printf(to, "%02x", hash[i]);
        return;
    }
    for (size_t i = 0; i < bytes.len; i++) buf_printf(to, "%02x", bytes.ptr[i]);
}

/* Everything there is to know of the log, a line an event. */
static void describe_log(struct buf *to)
{
    struct deed_cursor *cursor = NULL;
    struct deed_event e;
    struct deed_info info;
    struct deed_read_options all = {.filter.system = true};
    expect_ok(store_read(store, &all, &cursor, &err));
    while (cursor_next(cursor, &e, &err) == DEED_OK) {
        buf_printf(to, "%llu %.*s %llu %.*s %.*s time %lld recorded %lld",
                   (unsigned long long)e.position, DEED_FMT(e.stream),
                   (unsigned long long)e.revision, DEED_FMT(e.type), DEED_FMT(e.content_type),
                   (long long)e.time_ns, (long long)e.recorded_at_ns);
        add_hex(to, "id", (deed_bytes){e.id.bytes, 16});
        add_hex(to, "data", e.data);
        add_hex(to, "metadata", e.metadata);
        for (size_t i = 0; i < e.tag_count; i++) buf_printf(to, " tag %.*s", DEED_FMT(e.tags[i]));
        buf_printf(to, " correlation %.*s causation %.*s actor %.*s key %.*s",
                   DEED_FMT(e.correlation_id), DEED_FMT(e.causation_id), DEED_FMT(e.actor),
                   DEED_FMT(e.idempotency_key));
        if (e.request_hash != NULL) add_hex(to, "hash", (deed_bytes){e.request_hash, 32});
        buf_add_byte(to, '\n');
    }
    cursor_close(cursor);
    store_info(store, &info);
    buf_printf(to, "epoch %llu", (unsigned long long)info.epoch);
    add_hex(to, "log", (deed_bytes){info.log_id.bytes, 16});
    add_hex(to, "chain", (deed_bytes){info.chain_hash, 32});
    buf_add_byte(to, '\n');
}

static void golden_make(const char *below, const char *golden, bool sealed)
{
    struct picture p;
    struct buf text;
    char folder[512];
    buf_init(&text, 1 << 20);
    (void)snprintf(folder, sizeof folder, "%s/%s", below, golden);
    golden_story();
    if (sealed) golden_seal();
    close_store();
    picture_take(&p, os, ROOT "/log");
    picture_put(&p, os_real(), folder);
    open_store();
    describe_log(&text);
    finish();
    struct picture described = {.count = 1};
    described.files[0] = (struct picture_file){"described.txt", text.ptr, text.len};
    picture_put(&described, os_real(), folder);
    picture_done(&p);
    buf_done(&text);
}

static void expect_golden(const char *golden)
{
    struct picture p;
    struct buf text;
    buf_init(&text, 1 << 20);
    picture_take(&p, os_real(), golden);
    struct picture_file wanted = *picture_find(&p, "described.txt");
    struct picture log_files = {.count = 0};
    for (size_t i = 0; i < p.count; i++) {
        if (strcmp(p.files[i].name, "described.txt") == 0) continue;
        log_files.files[log_files.count++] = p.files[i];
    }
    assert_true(log_files.count >= 3);
    start_from(&log_files);
    for (int round = 0; round < 2; round++) {
        options.read_only = round == 0;
        open_store();
        buf_reset(&text);
        describe_log(&text);
        if (text.len != wanted.size || memcmp(text.ptr, wanted.bytes, text.len) != 0) {
            fail_msg("the golden log reads otherwise:\n%.*s", (int)text.len, (char *)text.ptr);
        }
        struct store_verify_report report;
        expect_ok(store_verify(store, NULL, NULL, NULL, &report, &err));
        assert_int_equal(report.events, store_position(store));
        if (round == 0) close_store();
    }
    expect_words("DEED_DELETED", .stream = DEED_STR("order-1"));
    expect_words("DEED_NOT_FOUND", .stream = DEED_STR("größe"));
    uint8_t hash[32];
    uint64_t first, last;
    expect_ok(store_find_key(store, DEED_STR("key-1"), hash, &first, &last, &err));
    assert_int_equal(first, 3);
    assert_int_equal(last, 5);
    say("order-2", "and it goes on");
    finish();
    buf_done(&text);
    picture_done(&p);
}

TEST(log, the_golden_log_reads_as_it_was_written)
{
    if (getenv("GOLDEN_MAKE") != NULL) golden_make(getenv("GOLDEN_MAKE"), GOLDEN, false);
    expect_golden(GOLDEN);
}

TEST(log, the_golden_sealed_log_reads_as_it_was_written)
{
    if (getenv("GOLDEN_MAKE") != NULL) golden_make(getenv("GOLDEN_MAKE"), GOLDEN_SEALED, true);
    expect_golden(GOLDEN_SEALED);
}

TEST_MAIN(log)
