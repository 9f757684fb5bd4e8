/* fuzz_sealed.c - patches of sealed segments' files: whatever stands there, opening, reading, verifying
 * and going on never crash; what was only damaged is never served otherwise than it was written.
 *
 *   flags (1), then patches: file (1), kind (1), offset (3), and for some a size (1) and bytes
 *
 * The story has three sealed segments, the second one rewritten: compressed, with removed events.
 * Checksums and hashes are made right afterwards where the flags say so, or the fuzzer would never get
 * past them. */
#include "fuzz/fuzz_log.h"

#include "base/rw.h"
#include "log/sealed.h"
#include "store/store_state.h"

#define FILES     3
#define FILE_ROOM (160u << 10)
#define WORDS     48
#define SEGMENT   (64u << 10)

enum {
    MEND_COMMITS = 1, /* right checksums of the commits of files that are not compressed */
    MEND_BLOCKS = 2,  /* of table and map */
    MEND_FOOTER = 4,  /* of the last footer, which is copied over the other */
    MEND_HASH = 8,    /* the footer's hash of the content */
    MEND_HEADER = 16,
    READ_ONLY = 32,
};
#define MENDS (MEND_COMMITS | MEND_BLOCKS | MEND_FOOTER | MEND_HASH | MEND_HEADER)

enum { XOR, SET, CUT, ZERO_SECTOR, COPY_SECTOR, KINDS };

struct image {
    char name[SEALED_NAME_SIZE];
    uint8_t bytes[FILE_ROOM];
    size_t size;
};

/* The story's files, made once; the first three are sealed. */
static struct image story[8], files[FILES];
static size_t story_count;
static uint8_t secret[COMMIT_SECRET_SIZE];
static deed_uuid log_id_of_story;

/* ---- the story ------------------------------------------------------------------------------ */

static size_t word(unsigned n, char out[32])
{
    return (size_t)snprintf(out, 32, "{\"word\":%u}", n);
}

static void say(struct store *store, unsigned n)
{
    static const char *const streams[] = {"a-1", "a-2", "b-1"};
    char text[32];
    struct deed_appended appended;
    struct deed_new_event e = {.stream = deed_str_of(streams[n % 3]), .type = DEED_STR("Said")};
    e.data = (deed_bytes){(uint8_t *)text, word(n, text)};
    struct deed_append a = {.events = &e, .event_count = 1};
    must(store_append(store, &a, &appended, NULL) == DEED_OK, "an append");
}

static enum event_fate some_go(void *context, const struct deed_event *event)
{
    (void)context;
    return event->position % 5 == 0 ? EVENT_REMOVE : EVENT_KEEP;
}

static void keep_file(void *context, const char *name)
{
    struct os_dir *dir = context;
    struct image *f = &story[story_count];
    struct os_file *file = NULL;
    must(story_count++ < sizeof story / sizeof story[0], "few files");
    (void)snprintf(f->name, sizeof f->name, "%s", name);
    must(os_file_open(dir, name, OS_READ, &file, NULL) == DEED_OK, "a file");
    must(os_file_read(file, 0, f->bytes, sizeof f->bytes, &f->size, NULL) == DEED_OK, "its bytes");
    must(f->size < sizeof f->bytes, "it is small");
    os_file_close(file);
}

static int by_name(const void *a, const void *b)
{
    const struct image *x = a;
    const struct image *y = b;
    return strcmp(x->name, y->name);
}

static void make_story(void)
{
    struct os_sim *sim = os_sim_create(1, NULL);
    struct store_options options = {.no_threads = true, .segment_size = SEGMENT};
    struct store *store = NULL;
    struct os_dir *dir = NULL;
    struct segment_header header;
    must(store_open(os_sim_os(sim), FUZZ_ROOT, &options, &store, NULL) == DEED_OK, "a store");
    for (unsigned n = 1; n <= WORDS; n++) say(store, n);
    struct log_rewrite how = {.decide = some_go, .compress_level = 1};
    while (log_seal(store->log) != ACTOR_WAIT) continue;
    must(log_rewrite(store->log, 2, &how, NULL) == DEED_OK, "a rewrite");
    store_close(store);
    must(os_dir_open(os_sim_os(sim), FUZZ_ROOT "/log", false, &dir, NULL) == DEED_OK, "a folder");
    must(os_dir_list(dir, keep_file, dir, NULL) == DEED_OK, "its files");
    qsort(story, story_count, sizeof story[0], by_name);
    os_dir_close(dir);
    os_sim_destroy(sim);
    must(segment_header_decode(story[0].bytes, &header, NULL) == DEED_OK, "a header");
    memcpy(secret, header.secret, sizeof secret);
    log_id_of_story = header.log_id;
}

/* ---- patches -------------------------------------------------------------------------------- */

static void patch(struct reader *r)
{
    struct image *f = &files[read_u8(r) % FILES];
    unsigned kind = read_u8(r) % KINDS;
    size_t offset = (size_t)read_uint(r, 3);
    if (f->size == 0) return;
    offset %= f->size;
    size_t sector = offset / SECTOR_SIZE * SECTOR_SIZE;
    size_t room = f->size - sector < SECTOR_SIZE ? f->size - sector : SECTOR_SIZE;
    switch (kind) {
    case XOR: f->bytes[offset] ^= read_u8(r); break;
    case SET: {
        deed_bytes bytes = read_bytes(r, read_u8(r));
        size_t len = bytes.len < f->size - offset ? bytes.len : f->size - offset;
        if (len > 0) memcpy(f->bytes + offset, bytes.ptr, len);
        break;
    }
    case CUT: f->size = offset; break;
    case ZERO_SECTOR: memset(f->bytes + sector, 0, room); break;
    default: {
        const struct image *from = &story[read_u8(r) % FILES];
        size_t at = (size_t)read_uint(r, 1) * SECTOR_SIZE % from->size;
        memmove(f->bytes + sector, from->bytes + at, room);
        break;
    }
    }
}

static uint64_t number_at(const uint8_t *at, size_t size)
{
    uint64_t value = 0;
    for (size_t i = size; i > 0; i--) value = value << 8 | at[i - 1];
    return value;
}

static void mend_commits(struct image *f, uint32_t number)
{
    for (size_t at = SEGMENT_HEADER_SIZE; at < f->size;) {
        deed_bytes rest = {f->bytes + at, f->size - at};
        uint32_t size = commit_peek_size(rest);
        if (size == 0 || size > rest.len) return;
        struct commit_seed seed = {.log_id = log_id_of_story, .segment = number, .offset = at};
        memcpy(seed.secret, secret, sizeof secret);
        commit_reseal(f->bytes + at, &seed);
        at += size;
    }
}

static void mend_blocks(struct image *f, const uint8_t *footer, size_t place, unsigned copies)
{
    uint64_t offset = number_at(footer + place, 8);
    uint64_t count = number_at(footer + place + 8, 8) * copies;
    for (uint64_t i = 0; i < count && i < 64; i++, offset += SECTOR_SIZE) {
        uint8_t seed[32];
        if (offset > f->size || f->size - offset < SECTOR_SIZE) return;
        memcpy(seed, footer + 16, 16);
        memcpy(seed + 16, footer + 40, 8);
        put_uint(seed + 24, offset, 8);
        uint32_t crc = crc32c(0, (deed_bytes){seed, sizeof seed});
        crc = crc32c(crc, (deed_bytes){f->bytes + offset + 4, SECTOR_SIZE - 4});
        put_uint(f->bytes + offset, crc, 4);
    }
}

static void mend(struct image *f, uint8_t flags, uint32_t number)
{
    if (f->size < SEGMENT_HEADER_SIZE + SEALED_FOOTERS_SIZE) return;
    uint8_t *footer = f->bytes + f->size - SEALED_FOOTER_SIZE;
    if (flags & MEND_HEADER) {
        put_uint(f->bytes + 8, crc32c(0, (deed_bytes){f->bytes + 12, SEGMENT_HEADER_SIZE - 12}), 4);
    }
    if (flags & MEND_COMMITS) mend_commits(f, number);
    if (flags & MEND_BLOCKS) {
        mend_blocks(f, footer, 192, 1);
        mend_blocks(f, footer, 208, 2);
    }
    if (flags & MEND_HASH) {
        deed_bytes content = {f->bytes, f->size - SEALED_FOOTERS_SIZE};
        sha256(&content, 1, footer + 232);
    }
    if (flags & MEND_FOOTER) {
        put_uint(footer + 8, crc32c(0, (deed_bytes){footer + 12, SEALED_FOOTER_SIZE - 12}), 4);
        memcpy(footer - SEALED_FOOTER_SIZE, footer, SEALED_FOOTER_SIZE);
    }
}

/* ---- what must hold ------------------------------------------------------------------------- */

/* Read everything; `honest`: nothing was made to look right. */
static uint64_t read_story(struct store *store, bool honest)
{
    struct deed_cursor *cursor = NULL;
    struct deed_event e;
    struct deed_error err = {0};
    struct deed_read_options all = {.filter.system = true, .after_position = 1};
    uint64_t position = 1, count = 0;
    deed_status status = store_read(store, &all, &cursor, &err);
    if (status == DEED_GONE) return 0; /* what is left begins later */
    must(status == DEED_OK, "the log can be read");
    while ((status = cursor_next(cursor, &e, &err)) != DEED_END) {
        char text[32];
        must(status == DEED_OK || status == DEED_CORRUPT, "an event or damage");
        uint64_t at = status == DEED_OK ? e.position : err.position;
        must(at > position, "positions grow");
        position = at;
        if (status != DEED_OK) continue;
        count++;
        if (!honest || e.position > WORDS + 1) continue;
        size_t size = word((unsigned)e.position - 1, text);
        must(e.data.len == size && memcmp(e.data.ptr, text, size) == 0, "the word that was said");
    }
    cursor_close(cursor);
    return count;
}

static void live(struct os *os, bool honest, bool read_only)
{
    struct store *store = must_open(os, read_only);
    if (store == NULL) return;
    struct deed_info info;
    struct store_verify_report report;
    struct deed_error err;
    uint64_t count = read_story(store, honest);
    store_info(store, &info);
    tell("opened", &info, count);
    deed_status status = store_verify(store, tell_damage, NULL, NULL, &report, &err);
    must(status == DEED_OK || status == DEED_CORRUPT, "a verification ends");
    struct log_rewrite how = {.decide = some_go, .compress_level = 1};
    for (uint32_t n = 1; n <= FILES && !read_only; n++) {
        status = log_rewrite(store->log, n, &how, &err);
        must(status == DEED_OK || err.message[0] != '\0', "a rewrite, or a reason");
    }
    if (info.writable) (void)must_append(store);
    (void)read_story(store, honest);
    store_close(store);
    store = must_open(os, read_only);
    must(store != NULL, "what opened once opens again");
    (void)read_story(store, honest);
    store_close(store);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    if (size == 0) return 0;
    if (story_count == 0) make_story();
    struct reader r = reader_over((deed_bytes){bytes + 1, size - 1});
    uint8_t flags = bytes[0];
    memcpy(files, story, sizeof files);
    for (unsigned i = 0; i < 32 && reader_ok(&r) && reader_left(&r) >= 5; i++) patch(&r);
    struct os_sim *sim = os_sim_create(1, NULL);
    for (uint32_t i = 0; i < story_count; i++) {
        const struct image *f = i < FILES ? &files[i] : &story[i];
        if (i < FILES) mend(&files[i], flags, i + 1);
        file_put(os_sim_os(sim), f->name, (deed_bytes){f->bytes, f->size});
    }
    live(os_sim_os(sim), (flags & MENDS) == 0, (flags & READ_ONLY) != 0);
    os_sim_destroy(sim);
    return 0;
}
