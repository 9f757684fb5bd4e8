/* run_file.c - looking terms up in a run's file.
 *
 *   hash ─► filter line: not there ─► done
 *        └► first hashes of the fence blocks (in memory) ─► fence block ─► dictionary block ─► entry
 *                                                  entry ─► its few positions, or
 *                                                        ─► skips ─► group of 128 positions
 *
 * (1) Every block is checked by its checksum when it is read; what it says is checked all the same
 *     before it is used: a number that leads out of its section is damage, never a crash.
 * (2) The filter and the hash only say where to look. The term's bytes decide.
 * (3) The first entry of the fence with a smaller hash than the term's stands before the term, also
 *     when many entries share the term's hash.
 *
 * Normative: docs/format/index.md */
#include "index/run_file.h"

#include "base/planted.h"

#include <assert.h>
#include <stdatomic.h>
#include <stdlib.h>

#define SCAN_BLOCKS 16u /* read in one go by a scan */
#define CHECK_STEP  (UINT64_C(256) << 10)

struct run_file {
    struct os_file *file;
    struct block_cache *cache;
    uint64_t source; /* in the cache */
    struct run_footer footer;
    struct run_layout layout;
    uint64_t *tops; /* the first hash of each fence block */
    uint64_t top_count;
    _Atomic(uint8_t *) filter; /* lines; NULL: not in memory */
    uint64_t filter_size;
    _Atomic bool damaged, suspect;
};

/* ---- blocks --------------------------------------------------------------------------------- */

static bool block_good(const struct run_file *run, uint64_t number, const uint8_t *block)
{
    uint64_t crc = get_uint(block + RUN_PAYLOAD_SIZE, 4);
    return run_block_crc(run->footer.run_id, number, block) == crc || PLANTED(RUN_UNCHECKED);
}

static deed_status damage(struct deed_error *err, uint64_t number)
{
    return deed_fail(err, DEED_CORRUPT, "block %llu is damaged", (unsigned long long)number);
}

static deed_status block_load(void *context, uint64_t number, uint8_t out[BLOCK_SIZE],
                              struct deed_error *err)
{
    struct run_file *run = context;
    size_t got = 0;
    deed_status status =
        os_file_read(run->file, number * BLOCK_SIZE, out, BLOCK_SIZE, &got, err);
    if (status != DEED_OK) return status;
    if (got < BLOCK_SIZE || !block_good(run, number, out)) return damage(err, number);
    return DEED_OK;
}

static deed_status block_get(struct run_file *run, uint64_t number, struct block **out,
                             struct deed_error *err)
{
    return block_cache_get(run->cache, run->source, number, block_load, run, out, err);
}

/* What the caller is told of trouble below: the one place where damage becomes DEED_BUSY. */
static deed_status told(struct run_file *run, deed_status status, struct deed_error *err)
{
    if (status == DEED_IO) run_file_set_suspect(run);
    if (status != DEED_CORRUPT) return status;
    run_file_set_damaged(run);
    if (err != NULL) err->position = DEED_NONE;
    return deed_fail(err, DEED_BUSY, "the index of segments %u to %u is being rebuilt",
                     run->footer.first_segment, run->footer.last_segment);
}

/* ---- opening -------------------------------------------------------------------------------- */

static deed_status footer_load(struct run_file *run, const char *name, struct deed_error *err)
{
    uint64_t size = 0;
    char wanted[RUN_NAME_SIZE];
    uint8_t block[BLOCK_SIZE];
    size_t got = 0;
    deed_status status = os_file_size(run->file, &size, err);
    if (status != DEED_OK) return status;
    if (size < BLOCK_SIZE || size % BLOCK_SIZE != 0) {
        return deed_fail(err, DEED_CORRUPT, "it ends in the middle of a block");
    }
    status = os_file_read(run->file, size - BLOCK_SIZE, block, sizeof block, &got, err);
    if (status != DEED_OK) return status;
    if (got < sizeof block) return deed_fail(err, DEED_CORRUPT, "it ends early");
    status = run_footer_decode(block, size / BLOCK_SIZE - 1, &run->footer, err);
    if (status != DEED_OK) return status;
    run->layout = run_layout_of(&run->footer);
    run_name(run->footer.first_segment, run->footer.last_segment, wanted);
    if (run->layout.footer != size / BLOCK_SIZE - 1 ||
        strncmp(name, wanted, RUN_NAME_SIZE - 1) != 0) {
        return deed_fail(err, DEED_CORRUPT, "the footer is of another file");
    }
    return DEED_OK;
}

/* A hash for each 409 blocks of the dictionary stays in memory. */
static deed_status tops_load(struct run_file *run, struct deed_error *err)
{
    run->top_count = run->layout.filter - run->layout.fences;
    run->tops = malloc((run->top_count + 1) * sizeof *run->tops);
    if (run->tops == NULL) return deed_fail(err, DEED_NO_MEMORY, "out of memory");
    for (uint64_t i = 0; i < run->top_count; i++) {
        uint8_t block[BLOCK_SIZE];
        deed_status status = block_load(run, run->layout.fences + i, block, err);
        if (status != DEED_OK) return status;
        run->tops[i] = get_uint(block, 8);
    }
    return DEED_OK;
}

deed_status run_file_open(struct os_dir *dir, const char *name, struct block_cache *cache,
                          struct run_file **out_run, struct deed_error *err)
{
    struct run_file *run = calloc(1, sizeof *run);
    if (run == NULL) return deed_fail(err, DEED_NO_MEMORY, "index: out of memory");
    run->cache = cache;
    run->source = block_cache_source(cache);
    deed_status status = os_file_open(dir, name, OS_READ, &run->file, err);
    if (status == DEED_OK) status = footer_load(run, name, err);
    if (status == DEED_OK) status = tops_load(run, err);
    if (status != DEED_OK) {
        deed_wrap(err, "%s", name);
        run_file_close(run);
        return status;
    }
    *out_run = run;
    return DEED_OK;
}

void run_file_close(struct run_file *run)
{
    if (run == NULL) return;
    uint8_t *filter = atomic_load(&run->filter);
    if (filter != NULL) block_cache_discharge(run->cache, run->filter_size);
    free(filter);
    free(run->tops);
    os_file_close(run->file);
    free(run);
}

const struct run_footer *run_file_footer(const struct run_file *run)
{
    return &run->footer;
}

bool run_file_damaged(const struct run_file *run)
{
    return atomic_load(&run->damaged);
}

bool run_file_suspect(struct run_file *run)
{
    return atomic_exchange(&run->suspect, false);
}

void run_file_set_suspect(struct run_file *run)
{
    atomic_store(&run->suspect, true);
}

void run_file_set_damaged(struct run_file *run)
{
    atomic_store(&run->damaged, true);
}

/* ---- the filter ----------------------------------------------------------------------------- */

static deed_status filter_read(struct run_file *run, uint8_t *out, struct deed_error *err)
{
    uint64_t left = run->footer.lines;
    for (uint64_t i = 0; left > 0; i++) {
        uint8_t block[BLOCK_SIZE];
        uint64_t lines = left < RUN_LINES_A_BLOCK ? left : RUN_LINES_A_BLOCK;
        deed_status status = block_load(run, run->layout.filter + i, block, err);
        if (status != DEED_OK) return status;
        memcpy(out, block, lines * RUN_LINE_SIZE);
        out += lines * RUN_LINE_SIZE;
        left -= lines;
    }
    return DEED_OK;
}

deed_status run_file_load_filter(struct run_file *run, bool *out_loaded, struct deed_error *err)
{
    *out_loaded = run_file_filter_loaded(run);
    if (*out_loaded) return DEED_OK;
    run->filter_size = run->footer.lines * RUN_LINE_SIZE;
    if (!block_cache_charge(run->cache, run->filter_size)) return DEED_OK;
    uint8_t *filter = aligned_alloc(RUN_LINE_SIZE, run->filter_size);
    deed_status status = DEED_OK;
    if (filter == NULL) status = deed_fail(err, DEED_NO_MEMORY, "index: no memory for a filter");
    if (status == DEED_OK) status = filter_read(run, filter, err);
    if (status != DEED_OK) {
        block_cache_discharge(run->cache, run->filter_size);
        free(filter);
        return told(run, status, err);
    }
    atomic_store_explicit(&run->filter, filter, memory_order_release);
    *out_loaded = true;
    return DEED_OK;
}

bool run_file_filter_loaded(const struct run_file *run)
{
    return atomic_load_explicit(&run->filter, memory_order_acquire) != NULL;
}

void run_file_prefetch(const struct run_file *run, uint64_t hash)
{
    const uint8_t *filter = atomic_load_explicit(&run->filter, memory_order_acquire);
    if (filter == NULL) return;
    __builtin_prefetch(filter + run_line_of(hash, run->footer.lines) * RUN_LINE_SIZE);
}

static deed_status filter_ask(struct run_file *run, uint64_t hash, bool *out_maybe,
                              struct deed_error *err)
{
    uint64_t line = run_line_of(hash, run->footer.lines);
    const uint8_t *filter = atomic_load_explicit(&run->filter, memory_order_acquire);
    if (filter != NULL) {
        *out_maybe = run_line_has(filter + line * RUN_LINE_SIZE, hash);
        return DEED_OK;
    }
    struct block *block;
    deed_status status = block_get(run, run->layout.filter + line / RUN_LINES_A_BLOCK, &block, err);
    if (status != DEED_OK) return status;
    const uint8_t *lines = block_bytes(block);
    *out_maybe = run_line_has(lines + line % RUN_LINES_A_BLOCK * RUN_LINE_SIZE, hash);
    block_cache_put(run->cache, block);
    return DEED_OK;
}

/* ---- a section's bytes over its blocks ------------------------------------------------------ */

struct stream {
    struct run_file *run;
    uint64_t first_block, size; /* of the section; bytes of payload */
    uint64_t at;
    struct block *block;
    uint64_t block_number;
};

static void stream_done(struct stream *s)
{
    block_cache_put(s->run->cache, s->block);
    s->block = NULL;
}

/* What is left of the block at `at`, in place. DEED_CORRUPT: the section ends before (1). */
static deed_status stream_peek(struct stream *s, deed_bytes *out, struct deed_error *err)
{
    uint64_t number = s->first_block + s->at / RUN_PAYLOAD_SIZE;
    size_t offset = (size_t)(s->at % RUN_PAYLOAD_SIZE);
    if (s->at >= s->size) return damage(err, number);
    if (s->block == NULL || s->block_number != number) {
        stream_done(s);
        deed_status status = block_get(s->run, number, &s->block, err);
        if (status != DEED_OK) {
            s->block = NULL;
            return status;
        }
        s->block_number = number;
    }
    size_t left = RUN_PAYLOAD_SIZE - offset;
    if (left > s->size - s->at) left = (size_t)(s->size - s->at);
    *out = (deed_bytes){block_bytes(s->block) + offset, left};
    return DEED_OK;
}

static deed_status stream_read(struct stream *s, uint8_t *out, size_t size, struct deed_error *err)
{
    while (size > 0) {
        deed_bytes part;
        deed_status status = stream_peek(s, &part, err);
        if (status != DEED_OK) return status;
        if (part.len > size) part.len = size;
        memcpy(out, part.ptr, part.len);
        s->at += part.len;
        out += part.len;
        size -= part.len;
    }
    return DEED_OK;
}

/* Up to `size` bytes, fewer at the section's end. */
static deed_status stream_read_some(struct stream *s, uint8_t *out, size_t size, size_t *out_size,
                                    struct deed_error *err)
{
    if (s->at >= s->size) return damage(err, s->first_block + s->at / RUN_PAYLOAD_SIZE);
    if (size > s->size - s->at) size = (size_t)(s->size - s->at);
    *out_size = size;
    return stream_read(s, out, size, err);
}

/* ---- the dictionary ------------------------------------------------------------------------- */

/* The front of an entry: its hash, and how many bytes come behind. */
struct entry_head {
    uint64_t hash, size;
};

#define ENTRY_HEAD_MAX (8 + VARINT_SIZE_MAX)

static deed_status head_read(struct stream *s, struct entry_head *out, struct deed_error *err)
{
    uint8_t copy[ENTRY_HEAD_MAX];
    deed_bytes in;
    uint64_t start = s->at;
    deed_status status = stream_peek(s, &in, err);
    if (status != DEED_OK) return status;
    if (in.len < ENTRY_HEAD_MAX) { /* over the end of the block, or of the section */
        size_t size = 0;
        status = stream_read_some(s, copy, sizeof copy, &size, err);
        if (status != DEED_OK) return status;
        in = (deed_bytes){copy, size};
    }
    struct reader r = reader_over(in);
    out->hash = read_u64(&r);
    out->size = read_varint(&r);
    s->at = start + r.at;
    if (!reader_ok(&r) || out->size < 2 || out->size > s->size - s->at) {
        return damage(err, s->first_block + start / RUN_PAYLOAD_SIZE);
    }
    return DEED_OK;
}

/* The numbers behind a term. `r` is over exactly them. */
static bool numbers_decode(struct reader *r, enum index_kind kind, const struct run_footer *f,
                           struct run_entry *out)
{
    *out = (struct run_entry){.count = read_varint(r)};
    if (kind == INDEX_STREAM) out->base = read_varint(r);
    out->first = read_varint(r);
    uint64_t span = out->count > 1 ? read_varint(r) : 0;
    if (out->count == 0 || out->count > f->postings || out->first > POSITION_RANGE_MAX ||
        span > POSITION_RANGE_MAX || out->base > POSITION_RANGE_MAX) {
        return false;
    }
    out->last = out->first + span;
    if (out->count > RUN_INLINE_MAX) {
        out->data = read_varint(r);
        if (out->count > RUN_GROUP) out->skip = read_varint(r);
        return reader_finished(r);
    }
    out->few[0] = out->first;
    for (size_t i = 1; i + 1 < out->count; i++) {
        uint64_t delta = read_varint(r);
        if (delta > out->last - out->few[i - 1]) return false;
        out->few[i] = out->few[i - 1] + delta;
    }
    if (out->count > 1) out->few[out->count - 1] = out->last;
    return reader_finished(r);
}

/* Compare the term's bytes, at the stream, with those of the entry (2); the stream moves behind
 * them. */
static deed_status term_compare(struct stream *s, const struct index_term *term, bool *out_equal,
                                struct deed_error *err)
{
    deed_bytes parts[2] = {term->head, term->tail};
    *out_equal = true;
    for (size_t i = 0; i < 2; i++) {
        for (size_t done = 0; done < parts[i].len;) {
            deed_bytes in;
            deed_status status = stream_peek(s, &in, err);
            if (status != DEED_OK) return status;
            if (in.len > parts[i].len - done) in.len = parts[i].len - done;
            if (memcmp(in.ptr, parts[i].ptr + done, in.len) != 0) *out_equal = false;
            done += in.len;
            s->at += in.len;
        }
    }
    if (PLANTED(HASH_DECIDES)) *out_equal = true;
    return DEED_OK;
}

/* Is it the term's entry? `s` stands behind its head. */
static deed_status entry_match(struct stream *s, const struct entry_head *head,
                               const struct index_term *term, bool *out_found,
                               struct run_entry *out, struct deed_error *err)
{
    uint8_t front[1 + VARINT_SIZE_MAX];
    uint64_t start = s->at;
    uint64_t end = start + head->size;
    size_t size = head->size < sizeof front ? (size_t)head->size : sizeof front;
    deed_status status = stream_read(s, front, size, err);
    if (status != DEED_OK) return status;
    struct reader r = reader_over((deed_bytes){front, size});
    uint8_t kind = read_u8(&r);
    uint64_t length = read_varint(&r);
    s->at = start + r.at;
    if (!reader_ok(&r) || length > end - s->at || length > RUN_TERM_SIZE_MAX) {
        return damage(err, s->first_block + start / RUN_PAYLOAD_SIZE);
    }
    *out_found = false;
    if (kind != (uint8_t)term->kind || length != term_size(term)) return DEED_OK;
    status = term_compare(s, term, out_found, err);
    if (status != DEED_OK || !*out_found) return status;

    uint8_t numbers[(RUN_INLINE_MAX + 6) * VARINT_SIZE_MAX];
    uint64_t left = end - s->at;
    if (left > sizeof numbers) return damage(err, s->first_block + start / RUN_PAYLOAD_SIZE);
    status = stream_read(s, numbers, (size_t)left, err);
    if (status != DEED_OK) return status;
    struct reader n = reader_over((deed_bytes){numbers, (size_t)left});
    if (!numbers_decode(&n, term->kind, &s->run->footer, out)) {
        return damage(err, s->first_block + start / RUN_PAYLOAD_SIZE);
    }
    return DEED_OK;
}

/* Where to begin (3): the offset of an entry in the dictionary. */
static deed_status fence_find(struct run_file *run, uint64_t hash, uint64_t *out_offset,
                              struct deed_error *err)
{
    uint64_t low = 0;
    uint64_t high = run->top_count;
    *out_offset = 0;
    while (high - low > 1) {
        uint64_t middle = low + (high - low) / 2;
        if (run->tops[middle] < hash) {
            low = middle;
        } else {
            high = middle;
        }
    }
    struct block *block;
    deed_status status = block_get(run, run->layout.fences + low, &block, err);
    if (status != DEED_OK) return status;
    const uint8_t *fences = block_bytes(block);
    uint64_t first = low * RUN_FENCES_A_BLOCK; /* the dictionary block of the first fence here */
    uint64_t left = run->layout.dictionary_blocks - first;
    size_t count = left < RUN_FENCES_A_BLOCK ? (size_t)left : RUN_FENCES_A_BLOCK;
    size_t from = 0;
    size_t to = count;
    while (to - from > 1) {
        size_t middle = from + (to - from) / 2;
        if (get_uint(fences + middle * RUN_FENCE_SIZE, 8) < hash + PLANTED(FENCE_AT_HASH)) {
            from = middle;
        } else {
            to = middle;
        }
    }
    uint32_t offset = (uint32_t)get_uint(fences + from * RUN_FENCE_SIZE + 8, 2);
    block_cache_put(run->cache, block);
    if (first + from == 0) return DEED_OK;
    if (offset >= RUN_PAYLOAD_SIZE) return damage(err, run->layout.fences + low);
    *out_offset = (first + from) * RUN_PAYLOAD_SIZE + offset;
    return DEED_OK;
}

/* Pass entries of smaller hashes, as long as they begin in the block at hand: most of a look-up. What
 * is odd is left for head_read to tell. */
static deed_status skip_smaller(struct stream *s, uint64_t hash, struct deed_error *err)
{
    deed_bytes in;
    size_t at = 0;
    deed_status status = stream_peek(s, &in, err);
    if (status != DEED_OK) return status;
    while (at < in.len && in.len - at >= ENTRY_HEAD_MAX && get_uint(in.ptr + at, 8) < hash) {
        struct reader r = reader_over((deed_bytes){in.ptr + at + 8, ENTRY_HEAD_MAX - 8});
        uint64_t size = read_varint(&r);
        size_t behind = at + 8 + r.at;
        if (!reader_ok(&r) || size < 2 || size > s->size - s->at - behind) break;
        at = behind + (size_t)size;
    }
    s->at += at;
    return DEED_OK;
}

static deed_status dictionary_find(struct run_file *run, const struct index_term *term,
                                   bool *out_found, struct run_entry *out, struct deed_error *err)
{
    struct stream s = {.run = run, .size = run->footer.dictionary_size};
    deed_status status = fence_find(run, term->hash, &s.at, err);
    while (status == DEED_OK && !*out_found && s.at < s.size) {
        struct entry_head head;
        status = skip_smaller(&s, term->hash, err);
        if (status == DEED_OK && s.at == s.size) break;
        if (status == DEED_OK) status = head_read(&s, &head, err);
        if (status != DEED_OK || head.hash > term->hash) break;
        uint64_t next = s.at + head.size;
        if (head.hash == term->hash) status = entry_match(&s, &head, term, out_found, out, err);
        s.at = next;
    }
    stream_done(&s);
    return status;
}

deed_status run_file_find(struct run_file *run, const struct index_term *term, bool *out_found,
                          struct run_entry *out_entry, struct deed_error *err)
{
    *out_found = false;
    if (run->footer.terms == 0) return DEED_OK;
    deed_status status = filter_ask(run, term->hash, out_found, err);
    if (status != DEED_OK || !*out_found) return told(run, status, err);
    *out_found = false;
    return told(run, dictionary_find(run, term, out_found, out_entry, err), err);
}

/* ---- positions ------------------------------------------------------------------------------ */

static uint64_t group_size(const struct run_entry *e, uint64_t group)
{
    uint64_t left = e->count - group * RUN_GROUP;
    return left < RUN_GROUP ? left : RUN_GROUP;
}

/* The first position of a group, and where its other ones stand. */
static deed_status skip_get(struct run_file *run, const struct run_entry *e, uint64_t group,
                            uint64_t *out_first, uint64_t *out_data, struct deed_error *err)
{
    if (e->count <= RUN_GROUP) {
        *out_first = e->first;
        *out_data = e->data;
        return DEED_OK;
    }
    if (e->skip > run->footer.skips || group >= run->footer.skips - e->skip) {
        return damage(err, run->layout.skips);
    }
    uint64_t record = e->skip + group;
    uint64_t number = run->layout.skips + record / RUN_SKIPS_A_BLOCK;
    struct block *block;
    deed_status status = block_get(run, number, &block, err);
    if (status != DEED_OK) return status;
    const uint8_t *at = block_bytes(block) + record % RUN_SKIPS_A_BLOCK * RUN_SKIP_SIZE;
    *out_first = get_uint(at, 8);
    *out_data = get_uint(at + 8, 8);
    block_cache_put(run->cache, block);
    if (*out_first < e->first || *out_first > e->last) return damage(err, number);
    return DEED_OK;
}

static deed_status group_load(struct run_file *run, struct run_entry *e, uint64_t group,
                              struct deed_error *err)
{
    if (e->group_number == group + 1) return DEED_OK;
    uint8_t bytes[RUN_GROUP * VARINT_SIZE_MAX];
    uint64_t count = group_size(e, group);
    size_t size = 0;
    struct stream s = {.run = run,
                       .first_block = run->layout.postings,
                       .size = run->footer.postings_size};
    e->group_number = 0;
    deed_status status = skip_get(run, e, group, &e->group[0], &s.at, err);
    if (status == DEED_OK && count > 1) {
        status = stream_read_some(&s, bytes, (size_t)(count - 1) * VARINT_SIZE_MAX, &size, err);
    }
    stream_done(&s);
    if (status != DEED_OK) return status;
    struct reader r = reader_over((deed_bytes){bytes, size});
    for (uint64_t i = 1; i < count; i++) {
        uint64_t delta = read_varint(&r);
        if (!reader_ok(&r) || delta > e->last - e->group[i - 1]) {
            return damage(err, run->layout.postings + s.at / RUN_PAYLOAD_SIZE);
        }
        e->group[i] = e->group[i - 1] + delta;
    }
    if (PLANTED(GROUP_SEAM) && group > 0) e->group[0] = e->group[count > 1 ? 1 : 0];
    e->group_number = group + 1;
    return DEED_OK;
}

static bool same_skip_block(const struct run_entry *e, uint64_t a, uint64_t b)
{
    return (e->skip + a) / RUN_SKIPS_A_BLOCK == (e->skip + b) / RUN_SKIPS_A_BLOCK;
}

/* A group above `low` at which a block of skips begins, near `group`. */
static uint64_t first_in_skip_block(const struct run_entry *e, uint64_t group, uint64_t low)
{
    uint64_t record = (e->skip + group) / RUN_SKIPS_A_BLOCK * RUN_SKIPS_A_BLOCK;
    if (record > e->skip + low) return record - e->skip;
    return record + RUN_SKIPS_A_BLOCK - e->skip;
}

/* Between records of one block. */
static deed_status skip_search(struct run_file *run, const struct run_entry *e, uint64_t low,
                               uint64_t high, uint64_t end, uint64_t *out_group,
                               struct deed_error *err)
{
    if (e->skip > run->footer.skips || high > run->footer.skips - e->skip) {
        return damage(err, run->layout.skips);
    }
    uint64_t number = (e->skip + low) / RUN_SKIPS_A_BLOCK;
    struct block *block;
    deed_status status = block_get(run, run->layout.skips + number, &block, err);
    if (status != DEED_OK) return status;
    const uint8_t *records = block_bytes(block);
    while (high - low > 1) {
        uint64_t middle = low + (high - low) / 2;
        uint64_t record = e->skip + middle - number * RUN_SKIPS_A_BLOCK;
        if (get_uint(records + record * RUN_SKIP_SIZE, 8) <= end) {
            low = middle;
        } else {
            high = middle;
        }
    }
    block_cache_put(run->cache, block);
    *out_group = low;
    return DEED_OK;
}

/* The last group that begins at or below `end`. */
static deed_status group_find(struct run_file *run, struct run_entry *e, uint64_t end,
                              uint64_t *out_group, struct deed_error *err)
{
    uint64_t low = 0;
    uint64_t high = blocks_for(e->count, RUN_GROUP);
    if (e->group_number > 0) { /* mostly it is the one at hand */
        uint64_t at_hand = e->group_number - 1;
        if (e->group[0] <= end && end < e->group[group_size(e, at_hand) - 1]) {
            *out_group = at_hand;
            return DEED_OK;
        }
    }
    /* First between blocks of skips, then in the one block that is left. */
    while (high - low > 1 && !same_skip_block(e, low, high - 1)) {
        uint64_t middle = first_in_skip_block(e, low + (high - low) / 2, low);
        uint64_t first = 0;
        uint64_t data = 0;
        deed_status status = skip_get(run, e, middle, &first, &data, err);
        if (status != DEED_OK) return status;
        if (first <= end) {
            low = middle;
        } else {
            high = middle;
        }
    }
    *out_group = low;
    return high - low > 1 ? skip_search(run, e, low, high, end, out_group, err) : DEED_OK;
}

static size_t count_up_to(const uint64_t *positions, uint64_t count, uint64_t end)
{
    size_t low = 0;
    size_t high = (size_t)count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (positions[middle] <= end) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

deed_status run_entry_count(struct run_file *run, struct run_entry *e, uint64_t end,
                            uint64_t *out_count, struct deed_error *err)
{
    if (end >= e->last || end < e->first) {
        *out_count = end >= e->last ? e->count : 0;
        return DEED_OK;
    }
    if (e->count <= RUN_INLINE_MAX) {
        *out_count = count_up_to(e->few, e->count, end);
        return DEED_OK;
    }
    assert(e->group != NULL);
    uint64_t group = 0;
    deed_status status = group_find(run, e, end, &group, err);
    if (status == DEED_OK) status = group_load(run, e, group, err);
    if (status == DEED_OK) {
        *out_count = group * RUN_GROUP + count_up_to(e->group, group_size(e, group), end);
    }
    return told(run, status, err);
}

deed_status run_entry_at(struct run_file *run, struct run_entry *e, uint64_t i,
                         uint64_t *out_position, struct deed_error *err)
{
    assert(i < e->count);
    if (i == 0 || i + 1 == e->count) {
        *out_position = i == 0 ? e->first : e->last;
        return DEED_OK;
    }
    if (e->count <= RUN_INLINE_MAX) {
        *out_position = e->few[i];
        return DEED_OK;
    }
    assert(e->group != NULL);
    deed_status status = group_load(run, e, i / RUN_GROUP, err);
    if (status == DEED_OK) *out_position = e->group[i % RUN_GROUP];
    return told(run, status, err);
}

/* ---- a scan --------------------------------------------------------------------------------- */

/* A section read straight on, some blocks at a time. */
struct straight {
    uint64_t first_block, size, at;
    uint64_t window; /* number of the first block in `bytes` */
    size_t blocks;   /* there */
    uint8_t *bytes;
};

struct run_scan {
    struct run_file *run;
    struct straight dictionary, postings, skips;
    struct run_entry entry;
    uint8_t *term;
    uint64_t given; /* positions of the term at hand */
    uint64_t previous;
    uint64_t next_data, next_skip; /* where the next list begins */
};

static deed_status straight_peek(struct run_file *run, struct straight *s, deed_bytes *out,
                                 struct deed_error *err)
{
    uint64_t number = s->first_block + s->at / RUN_PAYLOAD_SIZE;
    if (s->at >= s->size) return damage(err, number);
    if (s->blocks == 0 || number < s->window || number - s->window >= s->blocks) {
        uint64_t end = s->first_block + blocks_for(s->size, RUN_PAYLOAD_SIZE);
        size_t want = end - number < SCAN_BLOCKS ? (size_t)(end - number) : SCAN_BLOCKS;
        size_t got = 0;
        s->blocks = 0;
        deed_status status = os_file_read(run->file, number * BLOCK_SIZE, s->bytes,
                                          want * BLOCK_SIZE, &got, err);
        if (status != DEED_OK) return status;
        for (size_t i = 0; i < want; i++) {
            bool there = got >= (i + 1) * BLOCK_SIZE;
            if (!there || !block_good(run, number + i, s->bytes + i * BLOCK_SIZE)) {
                return damage(err, number + i);
            }
        }
        s->window = number;
        s->blocks = want;
    }
    size_t offset = (size_t)(s->at % RUN_PAYLOAD_SIZE);
    size_t left = RUN_PAYLOAD_SIZE - offset;
    if (left > s->size - s->at) left = (size_t)(s->size - s->at);
    *out = (deed_bytes){s->bytes + (number - s->window) * BLOCK_SIZE + offset, left};
    return DEED_OK;
}

static deed_status straight_read(struct run_file *run, struct straight *s, uint8_t *out,
                                 size_t size, struct deed_error *err)
{
    while (size > 0) {
        deed_bytes part;
        deed_status status = straight_peek(run, s, &part, err);
        if (status != DEED_OK) return status;
        if (part.len > size) part.len = size;
        memcpy(out, part.ptr, part.len);
        s->at += part.len;
        out += part.len;
        size -= part.len;
    }
    return DEED_OK;
}

static deed_status straight_varint(struct run_file *run, struct straight *s, uint64_t *out,
                                   struct deed_error *err)
{
    uint64_t value = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
        deed_bytes in;
        deed_status status = straight_peek(run, s, &in, err);
        if (status != DEED_OK) return status;
        s->at++;
        value |= (uint64_t)(in.ptr[0] & 0x7f) << shift;
        if (in.ptr[0] < 0x80) {
            *out = value;
            return DEED_OK;
        }
    }
    return damage(err, s->first_block + s->at / RUN_PAYLOAD_SIZE);
}

deed_status run_scan_create(struct run_file *run, struct run_scan **out_scan, struct deed_error *err)
{
    struct run_scan *scan = calloc(1, sizeof *scan);
    if (scan == NULL) return deed_fail(err, DEED_NO_MEMORY, "index: out of memory");
    const struct run_footer *f = &run->footer;
    scan->run = run;
    scan->dictionary = (struct straight){.size = f->dictionary_size};
    scan->postings =
        (struct straight){.first_block = run->layout.postings, .size = f->postings_size};
    /* Records fill a block but for its last bytes: their place in it is counted by records. */
    scan->skips = (struct straight){.first_block = run->layout.skips,
                                    .size = blocks_for(f->skips, RUN_SKIPS_A_BLOCK) *
                                            RUN_PAYLOAD_SIZE};
    scan->dictionary.bytes = malloc(SCAN_BLOCKS * BLOCK_SIZE);
    scan->postings.bytes = malloc(SCAN_BLOCKS * BLOCK_SIZE);
    scan->skips.bytes = malloc(SCAN_BLOCKS * BLOCK_SIZE);
    scan->term = malloc(RUN_TERM_SIZE_MAX);
    if (scan->dictionary.bytes == NULL || scan->postings.bytes == NULL ||
        scan->skips.bytes == NULL || scan->term == NULL) {
        run_scan_destroy(scan);
        return deed_fail(err, DEED_NO_MEMORY, "index: out of memory");
    }
    *out_scan = scan;
    return DEED_OK;
}

void run_scan_destroy(struct run_scan *scan)
{
    if (scan == NULL) return;
    free(scan->dictionary.bytes);
    free(scan->postings.bytes);
    free(scan->skips.bytes);
    free(scan->term);
    free(scan);
}

deed_status run_scan_position(struct run_scan *scan, uint64_t *out_position, struct deed_error *err)
{
    struct run_entry *e = &scan->entry;
    struct run_file *run = scan->run;
    uint64_t i = scan->given;
    uint64_t position = 0;
    assert(i < e->count);
    if (e->count <= RUN_INLINE_MAX) {
        position = e->few[i];
    } else if (i % RUN_GROUP == 0) {
        uint64_t data = e->data;
        position = e->first;
        if (e->count > RUN_GROUP) {
            uint8_t record[RUN_SKIP_SIZE];
            uint64_t number = scan->next_skip++;
            scan->skips.at = number / RUN_SKIPS_A_BLOCK * RUN_PAYLOAD_SIZE +
                             number % RUN_SKIPS_A_BLOCK * RUN_SKIP_SIZE;
            if (number >= run->footer.skips) return damage(err, run->layout.skips);
            deed_status status = straight_read(run, &scan->skips, record, sizeof record, err);
            if (status != DEED_OK) return status;
            position = get_uint(record, 8);
            data = get_uint(record + 8, 8);
        }
        /* The groups stand one behind another. */
        if (data != scan->postings.at || position < scan->previous || position > e->last ||
            (i == 0 && position != e->first)) {
            return damage(err, run->layout.skips);
        }
    } else {
        uint64_t delta = 0;
        deed_status status = straight_varint(run, &scan->postings, &delta, err);
        if (status != DEED_OK) return status;
        if (delta > e->last - scan->previous) return damage(err, run->layout.postings);
        position = scan->previous + delta;
    }
    if (i + 1 == e->count && position != e->last) return damage(err, run->layout.postings);
    scan->previous = position;
    scan->given++;
    *out_position = position;
    return DEED_OK;
}

deed_status run_scan_next(struct run_scan *scan, struct run_scan_term *out_term,
                          struct deed_error *err)
{
    struct run_file *run = scan->run;
    struct straight *d = &scan->dictionary;
    uint8_t numbers[(RUN_INLINE_MAX + 6) * VARINT_SIZE_MAX];
    uint8_t hash[8];
    uint8_t kind = 0;
    uint64_t size = 0;
    uint64_t length = 0;
    while (scan->given < scan->entry.count) {
        uint64_t ignored;
        deed_status status = run_scan_position(scan, &ignored, err);
        if (status != DEED_OK) return status;
    }
    if (d->at >= d->size) return DEED_END;
    uint64_t block = d->at / RUN_PAYLOAD_SIZE;
    deed_status status = straight_read(run, d, hash, sizeof hash, err);
    if (status == DEED_OK) status = straight_varint(run, d, &size, err);
    if (status != DEED_OK) return status;
    uint64_t end = d->at + size;
    if (size < 2 || size > d->size - d->at) return damage(err, block);
    status = straight_read(run, d, &kind, 1, err);
    if (status == DEED_OK) status = straight_varint(run, d, &length, err);
    if (status != DEED_OK) return status;
    if (kind >= INDEX_KIND_COUNT || d->at > end || length > end - d->at ||
        length > RUN_TERM_SIZE_MAX || end - d->at - length > sizeof numbers) {
        return damage(err, block);
    }
    status = straight_read(run, d, scan->term, (size_t)length, err);
    size_t numbers_size = (size_t)(end - d->at);
    if (status == DEED_OK) status = straight_read(run, d, numbers, numbers_size, err);
    if (status != DEED_OK) return status;
    struct reader r = reader_over((deed_bytes){numbers, numbers_size});
    if (!numbers_decode(&r, (enum index_kind)kind, &run->footer, &scan->entry)) {
        return damage(err, block);
    }
    const struct run_entry *e = &scan->entry;
    if ((e->count > RUN_INLINE_MAX && e->data != scan->postings.at) ||
        (e->count > RUN_GROUP && e->skip != scan->next_skip)) {
        return damage(err, block);
    }
    scan->given = 0;
    scan->previous = 0;
    *out_term = (struct run_scan_term){.hash = get_uint(hash, 8),
                                       .kind = (enum index_kind)kind,
                                       .term = {scan->term, (size_t)length},
                                       .count = e->count,
                                       .base = e->base};
    return DEED_OK;
}

/* ---- checking ------------------------------------------------------------------------------- */

struct run_check {
    struct run_file *run;
    struct run_scan *scan;
    struct index_hashing hashing;
    uint64_t terms, postings, streams;
    uint64_t last_hash;
    enum index_kind last_kind;
    struct buf last_term;
    uint64_t filter_block; /* behind the terms: the blocks that no term led to */
    bool terms_done;
};

deed_status run_check_create(struct run_file *run, uint64_t hash_mask, struct run_check **out_check,
                             struct deed_error *err)
{
    struct run_check *check = calloc(1, sizeof *check);
    if (check == NULL) return deed_fail(err, DEED_NO_MEMORY, "index: out of memory");
    check->run = run;
    check->hashing =
        (struct index_hashing){run->footer.hash_seed, hash_mask == 0 ? UINT64_MAX : hash_mask};
    check->filter_block = run->layout.fences;
    buf_init(&check->last_term, RUN_TERM_SIZE_MAX);
    deed_status status = run_scan_create(run, &check->scan, err);
    if (status != DEED_OK) {
        run_check_destroy(check);
        return status;
    }
    *out_check = check;
    return DEED_OK;
}

void run_check_destroy(struct run_check *check)
{
    if (check == NULL) return;
    run_scan_destroy(check->scan);
    buf_done(&check->last_term);
    free(check);
}

static int terms_order(const struct run_check *c, const struct run_scan_term *t)
{
    if (c->last_hash != t->hash) return c->last_hash < t->hash ? -1 : 1;
    if (c->last_kind != t->kind) return c->last_kind < t->kind ? -1 : 1;
    size_t least = c->last_term.len < t->term.len ? c->last_term.len : t->term.len;
    int order = least == 0 ? 0 : memcmp(c->last_term.ptr, t->term.ptr, least);
    if (order != 0) return order;
    return (c->last_term.len > t->term.len) - (c->last_term.len < t->term.len);
}

/* Is the term found by looking it up, and in its place? */
static deed_status check_term(struct run_check *c, const struct run_scan_term *t,
                              struct deed_error *err)
{
    deed_bytes head = t->term;
    deed_bytes tail = {0};
    if (t->kind == INDEX_EVENT_ID && t->term.len > 16) {
        head.len = 16;
        tail = (deed_bytes){t->term.ptr + 16, t->term.len - 16};
    }
    struct index_term term = term_make(c->hashing, t->kind, head, tail);
    struct run_entry entry;
    bool found = false;
    if (term.hash != t->hash) return deed_fail(err, DEED_CORRUPT, "a term's hash is wrong");
    if (c->terms > 0 && terms_order(c, t) >= 0) {
        return deed_fail(err, DEED_CORRUPT, "terms are out of order");
    }
    deed_status status = filter_ask(c->run, term.hash, &found, err);
    if (status == DEED_OK && !found) {
        return deed_fail(err, DEED_CORRUPT, "the filter denies a term");
    }
    /* Looking each one up would take as long again as all the rest: one in sixteen. */
    if (status != DEED_OK || c->terms % 16 != 0) return status;
    found = false;
    status = dictionary_find(c->run, &term, &found, &entry, err);
    if (status == DEED_OK && (!found || entry.count != t->count)) {
        return deed_fail(err, DEED_CORRUPT, "the fences do not lead to a term");
    }
    return status;
}

static deed_status check_terms(struct run_check *c, struct deed_error *err)
{
    uint64_t from = c->scan->dictionary.at + c->scan->postings.at;
    while (c->scan->dictionary.at + c->scan->postings.at - from < CHECK_STEP) {
        struct run_scan_term term;
        deed_status status = run_scan_next(c->scan, &term, err);
        if (status == DEED_END) {
            c->terms_done = true;
            return DEED_OK;
        }
        if (status == DEED_OK) status = check_term(c, &term, err);
        if (status != DEED_OK) return status;
        c->terms++;
        c->postings += term.count;
        if (term.kind == INDEX_STREAM && term.base == 0) c->streams++;
        c->last_hash = term.hash;
        c->last_kind = term.kind;
        buf_reset(&c->last_term);
        buf_add(&c->last_term, term.term.ptr, term.term.len);
        if (!buf_ok(&c->last_term)) return deed_fail(err, DEED_NO_MEMORY, "out of memory");
    }
    return DEED_OK;
}

static deed_status check_totals(const struct run_check *c, struct deed_error *err)
{
    const struct run_footer *f = &c->run->footer;
    if (c->terms != f->terms || c->postings != f->postings || c->streams != f->streams ||
        c->scan->postings.at != f->postings_size || c->scan->next_skip != f->skips) {
        return deed_fail(err, DEED_CORRUPT, "the footer counts something else than there is");
    }
    return DEED_OK;
}

/* Fences and filter, block by block: what no term led to is to be good too. */
static deed_status check_rest(struct run_check *c, struct deed_error *err)
{
    for (uint64_t done = 0; done < CHECK_STEP / BLOCK_SIZE; done++) {
        uint8_t block[BLOCK_SIZE];
        if (c->filter_block >= c->run->layout.footer) return DEED_END;
        deed_status status = block_load(c->run, c->filter_block++, block, err);
        if (status != DEED_OK) return status;
    }
    return DEED_OK;
}

deed_status run_check_step(struct run_check *c, struct deed_error *err)
{
    deed_status status;
    if (c->terms_done) {
        status = check_rest(c, err);
    } else {
        status = check_terms(c, err);
        if (status == DEED_OK && c->terms_done) status = check_totals(c, err);
    }
    if (status != DEED_OK && status != DEED_END) {
        deed_wrap(err, "run of segments %u to %u", c->run->footer.first_segment,
                  c->run->footer.last_segment);
    }
    return status;
}
