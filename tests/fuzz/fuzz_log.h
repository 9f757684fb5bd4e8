/* fuzz_log.h - files of a log put on a simulated machine, and what must hold of any store. */
#ifndef TESTS_FUZZ_LOG_H
#define TESTS_FUZZ_LOG_H

#include "base/hash.h"
#include "log/commit.h"
#include "os/os_sim.h"
#include "store/store.h"

#include <stdio.h>
#include <stdlib.h>

#define FUZZ_ROOT "/data"

/* With FUZZ_TELL in the environment a run says what it finds. */
static inline void tell(const char *what, const struct deed_info *info, uint64_t count)
{
    if (getenv("FUZZ_TELL") == NULL) return;
    fprintf(stderr, "%s: %llu events, position %llu, %llu segments, lost from %lld: %s\n", what,
            (unsigned long long)count, (unsigned long long)info->position,
            (unsigned long long)info->segment_count, (long long)info->corrupt_first,
            info->stopped_because);
}

static inline void tell_damage(void *context, const struct store_damage *d)
{
    (void)context;
    if (getenv("FUZZ_TELL") == NULL) return;
    fprintf(stderr, "segment %u offset %llu size %llu positions %lld to %lld: %s\n", d->segment,
            (unsigned long long)d->offset, (unsigned long long)d->size,
            (long long)d->first_position, (long long)d->last_position, d->what);
}

static inline void must(bool holds, const char *what)
{
    if (holds) return;
    fprintf(stderr, "%s\n", what);
    abort();
}

static inline void file_put(struct os *os, const char *name, deed_bytes bytes)
{
    struct os_dir *dir = NULL;
    struct os_file *file = NULL;
    must(os_dir_open(os, FUZZ_ROOT "/log", true, &dir, NULL) == DEED_OK, "a folder");
    must(os_file_open(dir, name, OS_WRITE | OS_CREATE, &file, NULL) == DEED_OK, "a file");
    if (bytes.len > 0) must(os_file_write(file, 0, bytes, NULL) == DEED_OK, "a write");
    must(os_file_sync(file, NULL) == DEED_OK && os_dir_sync(dir, NULL) == DEED_OK, "a sync");
    os_file_close(file);
    os_dir_close(dir);
}

/* Whatever is read can be read in another way too. */
static inline void must_be_found(struct store *store, const struct deed_event *e)
{
    struct deed_cursor *cursor = NULL;
    struct deed_event again;
    struct deed_error err;
    struct deed_read_options by_stream = {.stream = e->stream,
                                          .from_revision = e->revision,
                                          .count_max = 1,
                                          .ignore_retention = true};
    /* Nobody can append under a virtual stream's name, but bytes may say so. */
    if (e->stream.len > 0 && !store_is_virtual(e->stream)) {
        must(store_read(store, &by_stream, &cursor, &err) == DEED_OK, "its stream is there");
        must(cursor_next(cursor, &again, &err) == DEED_OK, "it is in its stream");
        must(again.position == e->position, "its revision is its place in its stream");
        cursor_close(cursor);
    }
    struct deed_read_options by_type = {.after_position = e->position - 1,
                                        .filter = {.types = &e->type,
                                                   .type_count = 1,
                                                   .tags = e->tags,
                                                   .tag_count = e->tag_count,
                                                   .system = true},
                                        .count_max = 1};
    must(store_read(store, &by_type, &cursor, &err) == DEED_OK, "a filtered read opens");
    must(cursor_next(cursor, &again, &err) == DEED_OK, "a filter finds it");
    must(again.position == e->position, "and finds it first");
    cursor_close(cursor);
}

/* Read everything; the number of events. Each is in its place, its commit has its checksum. */
static inline uint64_t must_read(struct store *store, uint64_t *out_lost)
{
    struct deed_cursor *cursor = NULL;
    struct deed_event e;
    struct deed_error err = {0};
    struct deed_read_options all = {.filter.system = true};
    uint64_t count = 0, position = 0, lost = 0;
    must(store_read(store, &all, &cursor, &err) == DEED_OK, "the log can be read");
    for (;;) {
        deed_status status = cursor_next(cursor, &e, &err);
        if (status == DEED_END) break;
        must(status == DEED_OK || status == DEED_CORRUPT, "an event or damage");
        uint64_t at = status == DEED_OK ? e.position : err.position;
        must(at > position, "positions grow");
        position = at;
        lost += status == DEED_CORRUPT;
        if (status != DEED_OK) continue;
        count++;
        if (count <= 50) must_be_found(store, &e);
    }
    cursor_close(cursor);
    if (out_lost != NULL) *out_lost = lost;
    return count;
}

static inline uint64_t must_append(struct store *store)
{
    struct deed_appended appended;
    struct deed_error err = {0};
    struct deed_new_event e = {.stream = DEED_STR("fuzz-1"),
                               .type = DEED_STR("Appended"),
                               .data = deed_bytes_of(DEED_STR("{}"))};
    struct deed_append a = {.events = &e, .event_count = 1};
    deed_status status = store_append(store, &a, &appended, &err);
    /* The log's bytes may have closed that stream. */
    if (status == DEED_DELETED) return 0;
    if (status != DEED_OK) fprintf(stderr, "%s\n", err.message);
    must(status == DEED_OK, "a store that says it is writable takes an append");
    return 1;
}

static inline struct store *must_open(struct os *os, bool read_only)
{
    struct store *store = NULL;
    struct deed_error err = {0};
    struct store_options options = {
        .no_threads = true, .segment_size = 64 << 10, .read_only = read_only};
    deed_status status = store_open(os, FUZZ_ROOT, &options, &store, &err);
    if (status == DEED_OK) return store;
    if (getenv("FUZZ_TELL") != NULL) fprintf(stderr, "refused: %s\n", err.message);
    must(err.status == status && err.message[0] != '\0', "a refusal has a reason");
    must(status == DEED_CORRUPT || status == DEED_TOO_NEW ||
             (read_only && status == DEED_NOT_FOUND),
         "a refusal is about the bytes");
    return NULL;
}

/* Open, read, append, open again: nothing is lost and nothing appears. */
static inline void must_live(struct os *os, bool read_only)
{
    struct store *store = must_open(os, read_only);
    if (store == NULL) return;
    struct deed_info info;
    struct store_verify_report report;
    struct deed_error err;
    uint64_t lost = 0;
    store_info(store, &info);
    uint64_t count = must_read(store, &lost);
    tell("opened", &info, count);
    must(count <= info.position, "no more events than positions");
    must(!info.writable || lost == 0, "who lost something does not go on");
    deed_status status = store_verify(store, tell_damage, NULL, NULL, &report, &err);
    must(status == DEED_OK || status == DEED_CORRUPT, "a verification ends");
    must(!info.writable || status == DEED_OK, "what is writable verifies");
    must(!info.writable || report.events == count, "what verifies is what is read");
    if (info.writable) count += must_append(store);
    bool writable = info.writable;
    store_close(store);
    store = must_open(os, read_only);
    must(store != NULL, "what opened once opens again");
    store_info(store, &info);
    uint64_t again = must_read(store, NULL);
    tell("opened again", &info, again);
    must(again == count, "and holds the same");
    must(info.writable == writable, "and is as it was");
    store_close(store);
}

#endif
