/* run_writer.c - the file's sections, written as the terms come.
 *
 *   NAME.new:       | dictionary ...            then | postings | skips | fences | filter | footer |
 *   NAME.postings   |                                ^          ^       ^        ^
 *   NAME.skips ...  |  sections that grow meanwhile: in memory, past a megabyte in a file each
 *
 * (1) Terms come in order of their hash, so the filter's lines do too: line = hash * lines >> 64.
 * (2) Nothing is seen under the run's name before all of it is synced.
 * (3) Each megabyte is synced on its own: the committer's sync does not wait behind a whole run.
 *
 * Normative: docs/format/index.md */
#include "index/run_writer.h"

#include "base/planted.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#define SPILL_SIZE_MAX (UINT64_C(1) << 20)
#define WRITE_SIZE     (64u << 10)
#define SYNC_SIZE      (UINT64_C(1) << 20)
#define NAME_SIZE      (RUN_NAME_SIZE + 32u)

/* Bytes on their way to a place behind the dictionary. */
struct section {
    const char *suffix;
    struct buf buf;
    struct os_file *file; /* NULL: all of it is in `buf` */
    uint64_t spilled;
};

enum { SECTION_POSTINGS, SECTION_SKIPS, SECTION_FENCES, SECTION_FILTER, SECTION_COUNT };
static const char *const suffixes[SECTION_COUNT] = {".postings", ".skips", ".fences", ".filter"};

struct run_writer {
    struct os_dir *dir;
    struct run_footer footer;
    uint64_t spill_size_max;
    char name[RUN_PART_NAME_SIZE];
    struct os_file *file;
    struct section sections[SECTION_COUNT];
    deed_status status;
    struct deed_error error;
    bool finished;

    /* The main file: a block being filled, blocks to be written. */
    uint8_t block[BLOCK_SIZE];
    size_t fill;
    uint64_t blocks, written, synced; /* count, bytes, bytes */
    struct buf out;

    /* The term at hand. */
    bool in_term;
    uint64_t hash, base, count, first, last;
    enum index_kind kind;
    struct buf term;
    uint64_t few[RUN_INLINE_MAX];
    uint64_t group[RUN_GROUP];
    size_t group_count;
    uint64_t data, skip; /* of the first group; the place of the first skip */

    uint64_t fences, line, lines_done;
    uint8_t line_bytes[RUN_LINE_SIZE];
};

static void file_name(const struct run_writer *w, const char *suffix, char out[NAME_SIZE])
{
    (void)snprintf(out, NAME_SIZE, "%s%s", w->name, suffix);
}

static void failed(struct run_writer *w, deed_status status, const struct deed_error *err)
{
    if (w->status != DEED_OK) return;
    w->status = status;
    w->error = *err;
}

static void out_of_memory(struct run_writer *w)
{
    struct deed_error err = {0};
    failed(w, deed_fail(&err, DEED_NO_MEMORY, "index: no memory to write %s", w->name), &err);
}

deed_status run_writer_create(struct os *os, struct os_dir *dir, const struct run_meta *meta,
                              struct run_writer **out_writer, struct deed_error *err)
{
    char name[NAME_SIZE];
    struct run_writer *w = calloc(1, sizeof *w);
    if (w == NULL) return deed_fail(err, DEED_NO_MEMORY, "index: no memory to write a run");
    w->dir = dir;
    w->spill_size_max = meta->spill_size_max == 0 ? SPILL_SIZE_MAX : meta->spill_size_max;
    w->footer = (struct run_footer){.log_id = meta->log_id,
                                    .hash_seed = meta->hash_seed,
                                    .first_segment = meta->first_segment,
                                    .last_segment = meta->last_segment,
                                    .first_position = meta->first_position,
                                    .last_position = meta->last_position};
    w->footer.terms_known = RUN_KNOWS_ALL & ~meta->terms_unknown;
    memcpy(w->footer.hash, meta->hash, SHA256_SIZE);
    os_random(os, w->footer.run_id, sizeof w->footer.run_id);
    w->footer.lines = blocks_for(meta->terms_max * RUN_BITS_A_TERM, RUN_LINE_BITS);
    if (w->footer.lines == 0) w->footer.lines = 1;
    buf_init(&w->out, SIZE_MAX);
    buf_init(&w->term, RUN_TERM_SIZE_MAX);
    for (size_t i = 0; i < SECTION_COUNT; i++) {
        w->sections[i].suffix = suffixes[i];
        buf_init(&w->sections[i].buf, SIZE_MAX);
    }
    run_part_name(meta->first_segment, meta->last_segment, meta->part, w->name);
    file_name(w, ".new", name);
    (void)!os_remove(dir, name, NULL);
    deed_status status = os_file_open(dir, name, OS_WRITE | OS_CREATE, &w->file, err);
    if (status != DEED_OK) {
        run_writer_destroy(w);
        return status;
    }
    *out_writer = w;
    return DEED_OK;
}

void run_writer_destroy(struct run_writer *w)
{
    if (w == NULL) return;
    char name[NAME_SIZE];
    for (size_t i = 0; i < SECTION_COUNT; i++) {
        struct section *s = &w->sections[i];
        buf_done(&s->buf);
        if (s->file == NULL) continue;
        os_file_close(s->file);
        file_name(w, s->suffix, name);
        (void)!os_remove(w->dir, name, NULL);
    }
    if (w->file != NULL) {
        os_file_close(w->file);
        file_name(w, ".new", name);
        if (!w->finished) (void)!os_remove(w->dir, name, NULL);
    }
    buf_done(&w->out);
    buf_done(&w->term);
    free(w);
}

deed_status run_writer_status(const struct run_writer *w)
{
    return w->status;
}

uint64_t run_writer_size(const struct run_writer *w)
{
    return w->footer.dictionary_size + w->footer.postings_size;
}

/* ---- blocks --------------------------------------------------------------------------------- */

static void out_write(struct run_writer *w, size_t least)
{
    struct deed_error err = {0};
    if (w->status != DEED_OK || w->out.len < least || w->out.len == 0) return;
    deed_status status = os_file_write(w->file, w->written, buf_bytes(&w->out), &err);
    w->written += w->out.len;
    buf_reset(&w->out);
    if (status == DEED_OK && w->written - w->synced >= SYNC_SIZE) { /* (3) */
        status = os_file_sync(w->file, &err);
        w->synced = w->written;
    }
    if (status != DEED_OK) failed(w, status, &err);
}

/* Close the block at hand: zeros to its end, and the checksum. */
static void block_end(struct run_writer *w)
{
    if (w->fill == 0) return;
    memset(w->block + w->fill, 0, BLOCK_SIZE - w->fill);
    put_uint(w->block + RUN_PAYLOAD_SIZE, run_block_crc(w->footer.run_id, w->blocks, w->block), 4);
    w->blocks++;
    w->fill = 0;
    if (w->status != DEED_OK) return;
    buf_add(&w->out, w->block, BLOCK_SIZE);
    if (!buf_ok(&w->out)) out_of_memory(w);
    out_write(w, WRITE_SIZE);
}

/* `room`: bytes of a block that are used, a multiple of the records' size. */
static void blocks_add(struct run_writer *w, const uint8_t *bytes, size_t size, size_t room)
{
    while (size > 0) {
        size_t part = room - w->fill < size ? room - w->fill : size;
        memcpy(w->block + w->fill, bytes, part);
        w->fill += part;
        bytes += part;
        size -= part;
        if (w->fill == room) block_end(w);
    }
}

/* ---- sections ------------------------------------------------------------------------------- */

static void section_spill(struct run_writer *w, struct section *s)
{
    char name[NAME_SIZE];
    struct deed_error err = {0};
    deed_status status = DEED_OK;
    file_name(w, s->suffix, name);
    if (s->file == NULL) {
        (void)!os_remove(w->dir, name, NULL);
        status = os_file_open(w->dir, name, OS_WRITE | OS_CREATE, &s->file, &err);
    }
    if (status == DEED_OK) status = os_file_write(s->file, s->spilled, buf_bytes(&s->buf), &err);
    s->spilled += s->buf.len;
    buf_reset(&s->buf);
    if (status != DEED_OK) failed(w, status, &err);
}

static void section_add(struct run_writer *w, size_t which, const void *bytes, size_t size)
{
    struct section *s = &w->sections[which];
    if (w->status != DEED_OK) return;
    buf_add(&s->buf, bytes, size);
    if (!buf_ok(&s->buf)) out_of_memory(w);
    if (s->buf.len >= w->spill_size_max) section_spill(w, s);
}

/* Bring the section to its place. */
static void section_copy(struct run_writer *w, size_t which, size_t room)
{
    struct section *s = &w->sections[which];
    uint8_t *bytes = s->spilled == 0 ? NULL : malloc(WRITE_SIZE);
    if (s->spilled > 0 && bytes == NULL) out_of_memory(w);
    for (uint64_t at = 0; at < s->spilled && w->status == DEED_OK;) {
        struct deed_error err = {0};
        size_t want = s->spilled - at < WRITE_SIZE ? (size_t)(s->spilled - at) : WRITE_SIZE;
        size_t got = 0;
        deed_status status = os_file_read(s->file, at, bytes, want, &got, &err);
        if (status == DEED_OK && got < want) {
            status = deed_fail(&err, DEED_IO, "%s%s: it ends early", w->name, s->suffix);
        }
        if (status != DEED_OK) failed(w, status, &err);
        if (status == DEED_OK) blocks_add(w, bytes, got, room);
        at += got;
    }
    free(bytes);
    if (w->status == DEED_OK) blocks_add(w, s->buf.ptr, s->buf.len, room);
    block_end(w);
}

/* ---- terms ---------------------------------------------------------------------------------- */

static void skip_add(struct run_writer *w, uint64_t first, uint64_t data)
{
    uint8_t record[RUN_SKIP_SIZE];
    put_uint(record, first, 8);
    put_uint(record + 8, data, 8);
    section_add(w, SECTION_SKIPS, record, sizeof record);
    w->footer.skips++;
}

/* Write the positions at hand as a group. The first group has its place in the dictionary; when a
 * second one comes, the list gets skips. */
static void group_end(struct run_writer *w, bool is_first)
{
    uint8_t bytes[RUN_GROUP * VARINT_SIZE_MAX];
    size_t size = 0;
    uint64_t data = w->footer.postings_size;
    for (size_t i = 1; i < w->group_count; i++) {
        size += varint_put(bytes + size, w->group[i] - w->group[i - 1]);
    }
    if (is_first) {
        w->data = data;
        w->skip = w->footer.skips;
    } else {
        if (w->footer.skips == w->skip) skip_add(w, w->first, w->data);
        skip_add(w, w->group[0], data);
    }
    section_add(w, SECTION_POSTINGS, bytes, size);
    w->footer.postings_size += size;
    w->group_count = 0;
}

static void fence_add(struct run_writer *w, uint64_t hash, uint16_t offset)
{
    uint8_t record[RUN_FENCE_SIZE];
    put_uint(record, hash, 8);
    put_uint(record + 8, offset, 2);
    section_add(w, SECTION_FENCES, record, sizeof record);
    w->fences++;
}

static void filter_add(struct run_writer *w, uint64_t hash)
{
    uint64_t line = run_line_of(hash, w->footer.lines);
    assert(line >= w->lines_done); /* (1) */
    while (w->lines_done < line) {
        section_add(w, SECTION_FILTER, w->line_bytes, RUN_LINE_SIZE);
        memset(w->line_bytes, 0, RUN_LINE_SIZE);
        w->lines_done++;
    }
    if (!PLANTED(FILTER_FORGETS) || hash % 64 != 0) run_line_add(w->line_bytes, hash);
}

static size_t entry_numbers(const struct run_writer *w, uint8_t *out)
{
    size_t n = varint_put(out, w->count);
    if (w->kind == INDEX_STREAM) n += varint_put(out + n, PLANTED(RUN_FORGETS_BASE) ? 0 : w->base);
    n += varint_put(out + n, w->first);
    if (w->count > 1) n += varint_put(out + n, w->last - w->first);
    if (w->count > RUN_INLINE_MAX) {
        n += varint_put(out + n, w->data);
        if (w->count > RUN_GROUP) n += varint_put(out + n, w->skip);
        return n;
    }
    for (size_t i = 1; i + 1 < w->count; i++) n += varint_put(out + n, w->few[i] - w->few[i - 1]);
    return n;
}

static void term_end(struct run_writer *w)
{
    if (!w->in_term) return;
    w->in_term = false;
    assert(w->count > 0);
    if (w->count > RUN_INLINE_MAX && w->group_count > 0) group_end(w, w->count <= RUN_GROUP);

    uint8_t head[8 + VARINT_SIZE_MAX + 1 + VARINT_SIZE_MAX];
    uint8_t term_size_bytes[VARINT_SIZE_MAX];
    uint8_t numbers[(RUN_INLINE_MAX + 6) * VARINT_SIZE_MAX];
    size_t numbers_size = entry_numbers(w, numbers);
    size_t term_size_size = varint_put(term_size_bytes, w->term.len);
    size_t n = 8;
    put_uint(head, w->hash, 8);
    n += varint_put(head + n, 1 + term_size_size + w->term.len + numbers_size);
    head[n++] = (uint8_t)w->kind;
    memcpy(head + n, term_size_bytes, term_size_size);
    n += term_size_size;

    uint64_t block = w->footer.dictionary_size / RUN_PAYLOAD_SIZE;
    uint64_t offset = w->footer.dictionary_size % RUN_PAYLOAD_SIZE;
    while (w->fences < block) fence_add(w, w->hash, RUN_FENCE_NONE);
    if (w->fences == block) fence_add(w, w->hash, (uint16_t)offset);
    blocks_add(w, head, n, RUN_PAYLOAD_SIZE);
    blocks_add(w, w->term.ptr, w->term.len, RUN_PAYLOAD_SIZE);
    blocks_add(w, numbers, numbers_size, RUN_PAYLOAD_SIZE);
    w->footer.dictionary_size += n + w->term.len + numbers_size;
    w->footer.terms++;
    w->footer.postings += w->count;
    if (w->kind == INDEX_STREAM && w->base == 0) w->footer.streams++;
    filter_add(w, w->hash);
}

void run_writer_term(struct run_writer *w, uint64_t hash, enum index_kind kind, deed_bytes term,
                     uint64_t base)
{
    term_end(w);
    assert(hash >= w->hash);
    w->in_term = true;
    w->hash = hash;
    w->kind = kind;
    w->base = base;
    w->count = 0;
    w->group_count = 0;
    buf_reset(&w->term);
    buf_add(&w->term, term.ptr, term.len);
    if (!buf_ok(&w->term)) out_of_memory(w);
}

void run_writer_position(struct run_writer *w, uint64_t position)
{
    assert(w->in_term);
    assert(w->count == 0 || position >= w->last);
    if (w->group_count == RUN_GROUP) group_end(w, w->count == RUN_GROUP);
    if (w->count == 0) w->first = position;
    if (w->count < RUN_INLINE_MAX) w->few[w->count] = position;
    w->group[w->group_count++] = position;
    w->last = position;
    w->count++;
}

/* ---- the end -------------------------------------------------------------------------------- */

static void sections_end(struct run_writer *w)
{
    term_end(w);
    uint64_t dictionary_blocks = blocks_for(w->footer.dictionary_size, RUN_PAYLOAD_SIZE);
    block_end(w);
    while (w->fences < dictionary_blocks) fence_add(w, UINT64_MAX, RUN_FENCE_NONE);
    while (w->lines_done < w->footer.lines) {
        section_add(w, SECTION_FILTER, w->line_bytes, RUN_LINE_SIZE);
        memset(w->line_bytes, 0, RUN_LINE_SIZE);
        w->lines_done++;
    }
    section_copy(w, SECTION_POSTINGS, RUN_PAYLOAD_SIZE);
    section_copy(w, SECTION_SKIPS, RUN_SKIPS_A_BLOCK * RUN_SKIP_SIZE);
    section_copy(w, SECTION_FENCES, RUN_FENCES_A_BLOCK * RUN_FENCE_SIZE);
    section_copy(w, SECTION_FILTER, RUN_LINES_A_BLOCK * RUN_LINE_SIZE);
}

deed_status run_writer_finish(struct run_writer *w, struct deed_error *err)
{
    char name[NAME_SIZE];
    uint8_t footer[BLOCK_SIZE];
    sections_end(w);
    if (w->status == DEED_OK) {
        assert(w->blocks == run_layout_of(&w->footer).footer);
        run_footer_encode(&w->footer, w->blocks, footer);
        buf_add(&w->out, footer, sizeof footer);
        if (!buf_ok(&w->out)) out_of_memory(w);
        out_write(w, 0);
    }
    struct deed_error why = {0};
    file_name(w, ".new", name);
    deed_status status = w->status;
    if (status == DEED_OK && !PLANTED(RUN_NOT_SYNCED)) status = os_file_sync(w->file, &why);
    if (status == DEED_OK) status = os_rename(w->dir, name, w->name, &why);
    if (status == DEED_OK) w->finished = true;
    if (status == DEED_OK) status = os_dir_sync(w->dir, &why);
    if (status != DEED_OK) failed(w, status, &why);
    if (w->status != DEED_OK && err != NULL) *err = w->error;
    return w->status;
}
