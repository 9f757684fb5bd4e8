/* store_fixture.h - a store, and verbs to tell stories about it with.
 *
 *     start();                             on a simulated machine, without threads
 *     say("order-1", "one");               append an event of type Said with data "one"
 *     crash(), open_store();
 *     expect_words("one", .stream = DEED_STR("order-1"));
 *     finish();
 *
 * A story's events carry one word each, so that what a read returns is a sentence. */
#ifndef TESTS_STORE_FIXTURE_H
#define TESTS_STORE_FIXTURE_H

#include "unit/test.h"

#include "os/os_sim.h"
#include "store/store.h"

#include <ftw.h>
#include <unistd.h>

#define FIXTURE static __attribute__((unused))

#define ROOT    "/data"
#define SEGMENT(number) ROOT "/log/000000000" #number ".seg"
#define SECOND  UINT64_C(1000000000)

FIXTURE struct os_sim *sim; /* NULL: on this machine */
FIXTURE struct os *os;
FIXTURE char root[256];
FIXTURE struct store_options options;
FIXTURE struct store *store;
FIXTURE struct deed_error err;
FIXTURE struct deed_appended appended; /* the last answer */

/* ---- machines ------------------------------------------------------------------------------- */

FIXTURE deed_status try_open(void)
{
    return store_open(os, root, &options, &store, &err);
}

FIXTURE void open_store(void)
{
    if (try_open() != DEED_OK) fail_msg("open: %s", err.message);
}

FIXTURE void close_store(void)
{
    store_close(store);
    store = NULL;
}

FIXTURE void reopen(void)
{
    close_store();
    open_store();
}

/* A machine without faults; its crashes lose what they may. */
FIXTURE void start_machine(uint64_t seed)
{
    sim = os_sim_create(seed, NULL);
    os = os_sim_os(sim);
    (void)snprintf(root, sizeof root, ROOT);
    options = (struct store_options){.no_threads = true, .segment_size = 64 << 10};
}

FIXTURE void start(void)
{
    start_machine(1);
    open_store();
}

FIXTURE void start_limited(struct deed_limits limits)
{
    start_machine(1);
    options.limits = limits;
    open_store();
}

/* On this machine, with threads. */
FIXTURE void start_here(void)
{
    const char *tmp = getenv("TMPDIR");
    (void)snprintf(root, sizeof root, "%s/deedbook-test-XXXXXX", tmp == NULL ? "/tmp" : tmp);
    assert_non_null(mkdtemp(root));
    sim = NULL;
    os = os_real();
    options = (struct store_options){.segment_size = 64 << 10};
    open_store();
}

static int remove_one(const char *path, const struct stat *about, int kind, struct FTW *place)
{
    (void)about, (void)kind, (void)place;
    return remove(path);
}

FIXTURE void finish(void)
{
    close_store();
    if (sim == NULL) assert_int_equal(nftw(root, remove_one, 8, FTW_DEPTH | FTW_PHYS), 0);
    os_sim_destroy(sim);
    sim = NULL;
    err = (struct deed_error){0};
}

/* The power goes, and comes back. */
FIXTURE void crash(void)
{
    os_sim_crash(sim);
    close_store();
}

/* ---- appending ------------------------------------------------------------------------------ */

/* "word" as JSON; the last 64 are kept. */
FIXTURE deed_bytes word_data(const char *word)
{
    static char ring[64][256];
    static unsigned next;
    char *text = ring[next++ % 64];
    int size = snprintf(text, sizeof ring[0], "\"%s\"", word);
    return (deed_bytes){(const uint8_t *)text, (size_t)size};
}

FIXTURE struct deed_new_event said(const char *stream, const char *word)
{
    return (struct deed_new_event){
        .stream = deed_str_of(stream), .type = DEED_STR("Said"), .data = word_data(word)};
}

FIXTURE deed_status append_all(const struct deed_new_event *events, size_t count,
                               const struct deed_condition *conditions, size_t condition_count)
{
    struct deed_append a = {.events = events,
                            .event_count = count,
                            .conditions = conditions,
                            .condition_count = condition_count};
    return store_append(store, &a, &appended, &err);
}

FIXTURE deed_status append_event(struct deed_new_event event)
{
    return append_all(&event, 1, NULL, 0);
}

FIXTURE deed_status append_if(struct deed_new_event event, struct deed_condition condition)
{
    return append_all(&event, 1, &condition, 1);
}

FIXTURE void say_event(struct deed_new_event event)
{
    if (append_event(event) != DEED_OK) fail_msg("append: %s", err.message);
}

FIXTURE void say(const char *stream, const char *word)
{
    say_event(said(stream, word));
}

FIXTURE struct deed_condition stream_is(const char *stream, enum deed_expect expect,
                                        uint64_t revision)
{
    return (struct deed_condition){.kind = DEED_CONDITION_STREAM,
                                   .stream = deed_str_of(stream),
                                   .expect = expect,
                                   .revision = revision};
}

FIXTURE struct deed_condition at_revision(const char *stream, uint64_t revision)
{
    return stream_is(stream, DEED_EXPECT_REVISION, revision);
}

FIXTURE deed_uuid id_of(unsigned n)
{
    deed_uuid id = {{0}};
    id.bytes[0] = 1;
    id.bytes[14] = (uint8_t)(n >> 8);
    id.bytes[15] = (uint8_t)n;
    return id;
}

/* ---- reading -------------------------------------------------------------------------------- */

#define SENTENCE_SIZE (1 << 16)

FIXTURE void sentence_add(char *sentence, size_t *len, const char *word, size_t size)
{
    if (*len + size + 2 > SENTENCE_SIZE) fail_msg("the sentence is too long");
    if (*len > 0) sentence[(*len)++] = ' ';
    memcpy(sentence + *len, word, size);
    *len += size;
    sentence[*len] = '\0';
}

/* What the cursor still gives: the events' words; "!7" for position 7 that is damaged; the status
 * if it ends in another way than at its end. Valid until the next call. */
FIXTURE const char *words_of(struct deed_cursor *cursor)
{
    static char sentence[SENTENCE_SIZE];
    size_t len = 0;
    struct deed_event e;
    sentence[0] = '\0';
    for (;;) {
        deed_status status = cursor_next(cursor, &e, &err);
        if (status == DEED_END) return sentence;
        if (status == DEED_CORRUPT) {
            char text[32];
            int size = snprintf(text, sizeof text, "!%llu", (unsigned long long)err.position);
            sentence_add(sentence, &len, text, (size_t)size);
            continue;
        }
        if (status != DEED_OK) {
            sentence_add(sentence, &len, deed_status_name(status),
                         strlen(deed_status_name(status)));
            return sentence;
        }
        bool quoted = e.data.len >= 2 && e.data.ptr[0] == '"';
        sentence_add(sentence, &len, quoted ? (const char *)e.data.ptr + 1 : "?",
                     quoted ? e.data.len - 2 : 1);
    }
}

FIXTURE const char *read_words(const struct deed_read_options *how)
{
    struct deed_cursor *cursor = NULL;
    deed_status status = store_read(store, how, &cursor, &err);
    if (status != DEED_OK) return deed_status_name(status);
    const char *words = words_of(cursor);
    cursor_close(cursor);
    return words;
}

/* The sentence that a read with these options gives. */
#define expect_words(wanted, ...)                                                          \
    assert_string_equal(read_words(&(struct deed_read_options){__VA_ARGS__}), wanted)

/* ---- files ---------------------------------------------------------------------------------- */

/* A directory's files, taken out of one machine and put into another. */
#define PICTURE_FILES_MAX 64

struct picture_file {
    char name[64];
    uint8_t *bytes;
    size_t size;
};
struct picture {
    struct picture_file files[PICTURE_FILES_MAX];
    size_t count;
};

static void picture_name(void *context, const char *name)
{
    struct picture *p = context;
    if (p->count == PICTURE_FILES_MAX) fail_msg("more files than a picture holds");
    (void)snprintf(p->files[p->count++].name, sizeof p->files[0].name, "%s", name);
}

FIXTURE void picture_take(struct picture *p, struct os *from, const char *path)
{
    struct os_dir *dir = NULL;
    *p = (struct picture){.count = 0};
    expect_ok(os_dir_open(from, path, false, &dir, &err));
    expect_ok(os_dir_list(dir, picture_name, p, &err));
    for (size_t i = 0; i < p->count; i++) {
        struct picture_file *f = &p->files[i];
        struct os_file *file = NULL;
        uint64_t size = 0;
        expect_ok(os_file_open(dir, f->name, OS_READ, &file, &err));
        expect_ok(os_file_size(file, &size, &err));
        f->bytes = calloc(size + 1, 1);
        assert_non_null(f->bytes);
        expect_ok(os_file_read(file, 0, f->bytes, size, &f->size, &err));
        os_file_close(file);
    }
    os_dir_close(dir);
}

FIXTURE void picture_put(const struct picture *p, struct os *to, const char *path)
{
    struct os_dir *dir = NULL;
    expect_ok(os_dir_open(to, path, true, &dir, &err));
    for (size_t i = 0; i < p->count; i++) {
        const struct picture_file *f = &p->files[i];
        struct os_file *file = NULL;
        expect_ok(os_file_open(dir, f->name, OS_WRITE | OS_CREATE, &file, &err));
        if (f->size > 0) {
            expect_ok(os_file_write(file, 0, (deed_bytes){f->bytes, f->size}, &err));
        }
        expect_ok(os_file_sync(file, &err));
        os_file_close(file);
    }
    expect_ok(os_dir_sync(dir, &err));
    os_dir_close(dir);
}

FIXTURE struct picture_file *picture_find(struct picture *p, const char *name)
{
    for (size_t i = 0; i < p->count; i++) {
        if (strcmp(p->files[i].name, name) == 0) return &p->files[i];
    }
    fail_msg("no file %s in the picture", name);
    return NULL;
}

FIXTURE void picture_done(struct picture *p)
{
    for (size_t i = 0; i < p->count; i++) free(p->files[i].bytes);
    p->count = 0;
}

/* A new machine that holds the picture as its log, and nothing open. */
FIXTURE void start_from(const struct picture *p)
{
    start_machine(1);
    picture_put(p, os, ROOT "/log");
}

#endif
