/* stub_fixture.h - take events out of a log by hand, as rewriting a segment does, where it lies.
 *
 * Each commit stays at its offset, so it must be the last of its group and not outgrow its sectors:
 * true for a story that appends one small event after another. */
#ifndef TESTS_STUB_FIXTURE_H
#define TESTS_STUB_FIXTURE_H

#include "unit/test.h"

#include "log/commit.h"
#include "log/segment.h"
#include "os/os.h"

#define STUB_EVENTS_MAX   64
#define STUB_SEGMENTS_MAX 16

typedef enum event_fate fate_of(const struct deed_event *event);

static void stub_commit(uint8_t *bytes, size_t room, const struct commit_seed *seed, fate_of *fate)
{
    struct arena arena;
    struct buf out;
    struct commit commit;
    uint8_t leaves[STUB_EVENTS_MAX][SHA256_SIZE];
    uint8_t hash[SHA256_SIZE];
    arena_init(&arena, SIZE_MAX);
    buf_init(&out, room);
    assert_true(commit_decode((deed_bytes){bytes, room}, seed, &commit));
    assert_in_range(commit.event_count, 1, STUB_EVENTS_MAX);
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

static void stub_commits(uint8_t *bytes, size_t size, fate_of *fate)
{
    struct segment_header header;
    expect_ok(segment_header_decode(bytes, &header, NULL));
    for (size_t at = SEGMENT_HEADER_SIZE; at + COMMIT_HEAD_SIZE <= size;) {
        uint32_t commit = commit_peek_size((deed_bytes){bytes + at, size - at});
        if (commit == 0) {
            at += SECTOR_SIZE;
            continue;
        }
        struct commit_seed seed = {.log_id = header.log_id, .segment = header.number, .offset = at};
        memcpy(seed.secret, header.secret, sizeof seed.secret);
        size_t room = (size_t)align_up(commit, SECTOR_SIZE);
        stub_commit(bytes + at, room, &seed, fate);
        at += room;
    }
}

static void stub_segment(struct os_dir *dir, uint32_t number, fate_of *fate)
{
    char name[SEGMENT_NAME_SIZE];
    struct os_file *file = NULL;
    uint64_t size = 0;
    size_t got = 0;
    segment_name(number, name);
    expect_ok(os_file_open(dir, name, OS_READ | OS_WRITE, &file, NULL));
    expect_ok(os_file_size(file, &size, NULL));
    uint8_t *bytes = calloc(size + SECTOR_SIZE, 1); /* the last group may stand without padding */
    assert_non_null(bytes);
    expect_ok(os_file_read(file, 0, bytes, size, &got, NULL));
    stub_commits(bytes, got, fate);
    expect_ok(os_file_write(file, 0, (deed_bytes){bytes, size}, NULL));
    expect_ok(os_file_sync(file, NULL));
    os_file_close(file);
    free(bytes);
}

struct stub_list {
    uint32_t numbers[STUB_SEGMENTS_MAX];
    size_t count;
};

static void stub_note(void *context, const char *name)
{
    struct stub_list *list = context;
    uint32_t number;
    if (!segment_name_parse(name, &number)) return;
    if (list->count == STUB_SEGMENTS_MAX) fail_msg("more segments than a story has");
    list->numbers[list->count++] = number;
}

/* Rewrite every segment of the store in `directory`, which must be closed. */
static inline void stub_log(struct os *machine, const char *directory, fate_of *fate)
{
    struct os_dir *data = NULL;
    struct os_dir *dir = NULL;
    struct stub_list list = {.count = 0};
    expect_ok(os_dir_open(machine, directory, false, &data, NULL));
    expect_ok(os_dir_open_in(data, "log", false, &dir, NULL));
    expect_ok(os_dir_list(dir, stub_note, &list, NULL));
    for (size_t i = 0; i < list.count; i++) stub_segment(dir, list.numbers[i], fate);
    os_dir_close(dir);
    os_dir_close(data);
}

#endif
