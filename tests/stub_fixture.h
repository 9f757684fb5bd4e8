/* stub_fixture.h - take events out of a log by hand, as rewriting a segment does, where it lies.
 *
 * Each commit stays at its offset, so it must be the last of its group and not outgrow its sectors:
 * true for a story that appends one small event after another. */
#ifndef TESTS_STUB_FIXTURE_H
#define TESTS_STUB_FIXTURE_H

#include "store_fixture.h"

#include "log/commit.h"
#include "log/segment.h"

typedef enum event_fate fate_of(const struct deed_event *event);

static void stub_commit(uint8_t *bytes, size_t room, const struct commit_seed *seed, fate_of *fate)
{
    struct arena arena;
    struct buf out;
    struct commit commit;
    uint8_t leaves[64][SHA256_SIZE];
    uint8_t hash[SHA256_SIZE];
    arena_init(&arena, SIZE_MAX);
    buf_init(&out, room);
    assert_true(commit_decode((deed_bytes){bytes, room}, seed, &commit));
    assert_in_range(commit.event_count, 1, 64);
    memcpy(hash, commit.hash, SHA256_SIZE);
    struct reader events = reader_over(commit.events);
    size_t start = commit_begin(&out);
    for (uint32_t i = 0; i < commit.event_count; i++) {
        struct deed_event event;
        struct reader look = events;
        assert_true(event_decode(&look, &arena, &event, NULL));
        assert_true(event_reduce(&events, fate(&event), &arena, &out, leaves[i]));
    }
    size_t old_size = commit.size;
    commit_finish(&out, start, seed, (const uint8_t(*)[SHA256_SIZE])leaves, &commit);
    assert_true(buf_ok(&out));
    assert_memory_equal(commit.hash, hash, SHA256_SIZE);
    memset(bytes, 0, old_size);
    memcpy(bytes, out.ptr, out.len);
    buf_done(&out);
    arena_done(&arena);
}

/* Rewrite the segment file in `file`. */
static void stub_segment(struct picture_file *file, fate_of *fate)
{
    struct segment_header header;
    expect_ok(segment_header_decode(file->bytes, &header, &err));
    for (size_t at = SEGMENT_HEADER_SIZE; at + COMMIT_HEAD_SIZE <= file->size;) {
        uint32_t size = commit_peek_size((deed_bytes){file->bytes + at, file->size - at});
        if (size == 0) {
            at += SECTOR_SIZE;
            continue;
        }
        struct commit_seed seed = {.log_id = header.log_id, .segment = header.number, .offset = at};
        memcpy(seed.secret, header.secret, sizeof seed.secret);
        size_t room = (size_t)align_up(size, SECTOR_SIZE);
        stub_commit(file->bytes + at, room, &seed, fate);
        at += room;
    }
}

/* Rewrite every segment of the log in the machine's directory; the store must be closed. */
FIXTURE void stub_log(fate_of *fate)
{
    struct picture p;
    char path[300];
    (void)snprintf(path, sizeof path, "%s/log", root);
    picture_take(&p, os, path);
    for (size_t i = 0; i < p.count; i++) {
        uint32_t number;
        if (segment_name_parse(p.files[i].name, &number)) stub_segment(&p.files[i], fate);
    }
    picture_put(&p, os, path);
    picture_done(&p);
}

#endif
