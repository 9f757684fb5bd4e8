/* scan.c - the chain, commit by commit, and the damage in it.
 *
 *   | commit A | commit B | pad | ???????? | commit D | pad | zeros ...
 *              candidates: behind a good commit, else at each sector boundary
 *
 * A candidate is good when checksum, own hash and previous hash match. Behind the end of the chain:
 *
 * (1) A valid commit whose durable-before is at or past the next expected position was written when
 *     what is missing had been acknowledged: DAMAGE, from the expected position to the one before
 *     it.
 * (2) A valid commit with an older durable-before is debris of a write that was never acknowledged:
 *     go on at the next boundary.
 * (3) What the newest mark or the next segment's header claims and the scan did not find is DAMAGE.
 *
 * A sealed segment has no gaps and no debris: every commit that is not good where one must be is
 * damage, and the table of commits tells how far it goes. Each of its bytes belongs to one part:
 * header, commit or block, padding, a block of table or map, a footer. Damage is told part by part, so
 * what is accepted of a file hides nothing else in it. The hash of all bytes comes last: where a part
 * is damaged it has nothing to add.
 *
 * Normative: docs/format/log.md */
#include "log/scan.h"

#include "base/planted.h"
#include "base/uuid.h"

#include <stdlib.h>

deed_status scan_report(struct scan *s, uint64_t offset, uint64_t size, uint64_t first,
                        uint64_t last, const char *what)
{
    struct log_damage damage = {.segment = s->number,
                                .offset = offset,
                                .size = size,
                                .first_position = first,
                                .last_position = last,
                                .what = what};
    deed_status status = DEED_OK;
    s->told++;
    if (s->segment != NULL) s->segment->damaged = true;
    damage.accepted = losses_cover(&s->losses, &damage);
    if (!damage.accepted) {
        s->damaged = true;
        status = losses_add(&s->found, &damage, s->err);
    }
    return status == DEED_OK ? s->visitor->damage(s->visitor->context, &damage, s->err) : status;
}

/* ---- bytes ---------------------------------------------------------------------------------- */

/* A sector that the device will not give back is zeros to the scan, and damage to the visitor. */
static deed_status window_load_by_sector(struct scan *s, uint64_t offset, size_t size)
{
    s->window_len = 0;
    for (size_t at = 0; at < size; at += SECTOR_SIZE) {
        size_t got = 0;
        deed_status status =
            os_file_read(s->file, offset + at, s->window + at, SECTOR_SIZE, &got, s->err);
        if (status == DEED_NO_MEMORY) return status;
        if (status != DEED_OK) {
            s->unreadable = true;
            memset(s->window + at, 0, SECTOR_SIZE);
            got = SECTOR_SIZE;
            status = scan_report(s, offset + at, SECTOR_SIZE, DEED_NONE, DEED_NONE,
                            "the device cannot read this sector");
            if (status != DEED_OK) return status;
        }
        s->window_len += got;
        if (got < SECTOR_SIZE) break;
    }
    return DEED_OK;
}

/* Have [offset, offset + size) of the file in the window, as far as the file goes. */
static deed_status window_load(struct scan *s, uint64_t offset, uint64_t size)
{
    uint64_t start = offset / SECTOR_SIZE * SECTOR_SIZE;
    uint64_t need = align_up(offset + size - start, SECTOR_SIZE);
    if (need < SCAN_WINDOW_SIZE) need = SCAN_WINDOW_SIZE;
    if (need > s->window_room) {
        uint8_t *grown = realloc(s->window, need);
        if (grown == NULL) return deed_fail(s->err, DEED_NO_MEMORY, "log: no memory to recover");
        s->window = grown;
        s->window_room = need;
    }
    s->window_offset = start;
    s->window_len = 0;
    struct deed_error ignored;
    deed_status status =
        os_file_read(s->file, start, s->window, (size_t)need, &s->window_len, &ignored);
    return status == DEED_OK ? DEED_OK : window_load_by_sector(s, start, (size_t)need);
}

static deed_status window_get(struct scan *s, uint64_t offset, uint64_t size, deed_bytes *out)
{
    bool there = offset >= s->window_offset &&
                 offset - s->window_offset <= s->window_len &&
                 size <= s->window_len - (offset - s->window_offset);
    if (!there) {
        deed_status status = window_load(s, offset, size);
        if (status != DEED_OK) return status;
    }
    uint64_t from = offset - s->window_offset;
    uint64_t len = from >= s->window_len ? 0 : s->window_len - from;
    *out = (deed_bytes){s->window + from, len < size ? (size_t)len : (size_t)size};
    return DEED_OK;
}

/* ---- commits -------------------------------------------------------------------------------- */

/* A valid commit at `offset`? `out->size` is 0 if not. */
static deed_status candidate(struct scan *s, uint64_t offset, struct commit *out)
{
    *out = (struct commit){0};
    deed_bytes head;
    deed_status status = window_get(s, offset, 12, &head);
    if (status != DEED_OK) return status;
    uint32_t size = commit_peek_size(head);
    if (size == 0 || size > s->file_size - offset) return DEED_OK;

    deed_bytes whole;
    status = window_get(s, offset, size, &whole);
    if (status != DEED_OK) return status;
    struct commit_seed seed = log_seed(s->log, s->number, offset);
    struct commit commit;
    if (!commit_decode(whole, &seed, &commit)) return DEED_OK;
    if (commit.first_position >= s->hash_from) {
        arena_reset(&s->arena);
        bool good = commit_hash_good(&commit, s->log->id, &s->arena);
        /* What could not be looked at must not pass for a torn tail. */
        if (!good && s->arena.failed) {
            return deed_fail(s->err, DEED_NO_MEMORY, "log: no memory to recover");
        }
        /* No accident leaves the right checksum over other bytes. To pass it over would be to decide
         * what it was; and once a mark is past it, it would count. */
        if (!good) {
            return scan_report(s, offset, size, DEED_NONE, DEED_NONE,
                          "a commit's checksum is right and its own hash is not");
        }
    }
    *out = commit;
    return DEED_OK;
}

static deed_status accept(struct scan *s, uint64_t offset, const struct commit *commit)
{
    struct commit_ref ref = {.first_position = commit->first_position,
                             .recorded_at_ns = commit->recorded_at_ns,
                             .offset = offset,
                             .segment = s->number,
                             .size = commit->size,
                             .event_count = commit->event_count};
    s->expected = commit->first_position + commit->event_count;
    memcpy(s->previous, commit->hash, SHA256_SIZE);
    s->previous_known = true;
    s->recorded_at_ns = commit->recorded_at_ns;
    s->end_offset = offset + commit->size;
    deed_status status = DEED_OK;
    if (s->segment != NULL) status = log_ref_add(s->segment, &ref, s->err);
    bool marked = s->mark.position > 0 && s->expected == s->mark.position + 1;
    if (status == DEED_OK && marked && memcmp(commit->hash, s->mark.hash, SHA256_SIZE) != 0) {
        status = scan_report(s, offset, commit->size, DEED_NONE, DEED_NONE,
                        "the commit mark names another commit"); /* (3) */
    }
    if (status != DEED_OK) return status;
    return s->visitor->commit(s->visitor->context, commit, &ref, s->err);
}

/* Is it the next link, the far side of damage (1), or debris (2)? */
static deed_status judge(struct scan *s, uint64_t offset, const struct commit *commit,
                         bool *out_accepted)
{
    bool next = commit->first_position == s->expected;
    bool linked = !s->previous_known || PLANTED(IGNORE_CHAIN) ||
                  memcmp(commit->previous, s->previous, SHA256_SIZE) == 0;
    *out_accepted = next && linked;
    if (*out_accepted) return accept(s, offset, commit);

    bool proves_loss = (commit->durable_before >= s->expected || PLANTED(DEBRIS_PROVES_LOSS)) &&
                       commit->first_position > s->expected && !PLANTED(IGNORE_DURABLE_BEFORE);
    if (!proves_loss) return DEED_OK;
    deed_status status =
        scan_report(s, s->end_offset, offset - s->end_offset, s->expected, commit->first_position - 1,
               "acknowledged events are damaged or missing");
    if (status != DEED_OK) return status;
    *out_accepted = true;
    return accept(s, offset, commit);
}

static bool progress(struct scan *s, uint64_t offset)
{
    if (s->visitor->progress == NULL) return true;
    return s->visitor->progress(s->visitor->context, s->done + offset, s->all);
}

static deed_status scan_commits(struct scan *s)
{
    uint64_t offset = SEGMENT_HEADER_SIZE;
    uint64_t told = 0;
    s->window_len = 0;
    s->end_offset = offset;
    while (offset < s->file_size && (s->until == DEED_NONE || s->expected <= s->until)) {
        struct commit commit;
        bool accepted = false;
        deed_status status = candidate(s, offset, &commit);
        if (status == DEED_OK && commit.size > 0) status = judge(s, offset, &commit, &accepted);
        if (status != DEED_OK) return status;
        offset = accepted ? s->end_offset : (offset / SECTOR_SIZE + 1) * SECTOR_SIZE;
        if (PLANTED(STOP_AT_FIRST_GAP) && !accepted) break;
        if (offset - told >= SCAN_WINDOW_SIZE) {
            told = offset;
            if (!progress(s, offset)) return deed_fail(s->err, DEED_STOPPED, "stopped on request");
        }
    }
    return DEED_OK;
}

deed_status scan_join(struct scan *s, uint64_t first, const uint8_t *previous)
{
    if (first > s->expected) {
        deed_status status = scan_report(s, 0, 0, s->expected, first - 1,
                                         "acknowledged events before this segment are missing");
        if (status != DEED_OK) return status;
        s->expected = first;
        s->previous_known = false;
    }
    bool linked = first == s->expected && (previous == NULL || !s->previous_known ||
                                           memcmp(previous, s->previous, SHA256_SIZE) == 0);
    if (!linked) {
        s->previous_known = false; /* what stands behind it is still good to read */
        return scan_report(s, 0, SEGMENT_HEADER_SIZE, DEED_NONE, DEED_NONE,
                           "the segment's header does not continue the chain");
    }
    if (!s->previous_known && previous != NULL) {
        memcpy(s->previous, previous, SHA256_SIZE);
        s->previous_known = true;
    }
    return DEED_OK;
}

deed_status scan_segment(struct scan *s, struct os_file *file, uint32_t number, bool header_good,
                         const struct segment_header *header)
{
    s->file = file;
    s->number = number;
    deed_status status = os_file_size(file, &s->file_size, s->err);
    if (status == DEED_OK && header_good) {
        status = scan_join(s, header->first_position, header->previous);
    } else if (status == DEED_OK) {
        status = scan_report(s, 0, SEGMENT_HEADER_SIZE, DEED_NONE, DEED_NONE,
                             "the segment's header is damaged");
    }
    if (s->segment != NULL) s->segment->first_position = s->expected;
    if (status == DEED_OK) status = scan_commits(s);
    s->done += s->file_size;
    return status;
}

/* Read past the block cache: what the file says now. */
#define SEALED(s) (&(struct sealed_file){.file = (s)->file})

/* ---- sealed segments ------------------------------------------------------------------------ */

/* The commit at a logical offset; `out->size` is 0 if there is no good one. */
static deed_status sealed_commit(struct scan *s, const struct sealed_footer *f, uint64_t offset,
                                 struct commit *out)
{
    deed_bytes bytes = {0};
    for (uint64_t need = COMMIT_HEAD_SIZE;;) {
        uint64_t from = offset - s->window_offset;
        bool there = s->window_len > 0 && offset >= s->window_offset && from <= s->body.len &&
                     need <= s->body.len - from;
        if (!there) {
            uint64_t size = need < SCAN_WINDOW_SIZE ? SCAN_WINDOW_SIZE : need;
            struct deed_error why;
            deed_status status = sealed_read(SEALED(s), f, offset, size, &s->body, &s->packed,
                                             &s->window_offset, &why);
            if (status == DEED_CORRUPT && size > need) { /* maybe only what lies behind is */
                status = sealed_read(SEALED(s), f, offset, need, &s->body, &s->packed,
                                     &s->window_offset, &why);
            }
            s->window_len = status == DEED_OK ? s->body.len : 0;
            s->unreadable |= status == DEED_IO;
            if (status == DEED_CORRUPT || status == DEED_IO) return DEED_OK;
            if (status != DEED_OK) {
                if (s->err != NULL) *s->err = why;
                return status;
            }
            from = offset - s->window_offset;
        }
        bytes = (deed_bytes){s->body.ptr + from, s->body.len - (size_t)from};
        uint32_t size = commit_peek_size(bytes);
        if (size == 0 || size > f->logical_end - offset) return DEED_OK;
        if (size <= bytes.len) break;
        need = size;
    }
    struct commit_seed seed = log_seed(s->log, s->number, offset);
    struct commit commit;
    if (!commit_decode(bytes, &seed, &commit)) return DEED_OK;
    if (commit.first_position >= s->hash_from) {
        arena_reset(&s->arena);
        bool good = commit_hash_good(&commit, s->log->id, &s->arena);
        if (!good && s->arena.failed) {
            return deed_fail(s->err, DEED_NO_MEMORY, "log: no memory to read a commit");
        }
        if (!good) return DEED_OK;
    }
    *out = commit;
    return DEED_OK;
}

/* Behind a damaged commit the table tells where the next one begins; where that is damaged too, its
 * next good block does. */
static void sealed_next(struct scan *s, const struct sealed_footer *f, uint64_t offset,
                        uint64_t *inout_i, uint64_t *inout_next, uint64_t *inout_next_offset)
{
    struct sealed_entry entry;
    if (s->expected > f->last_position) return;
    if (sealed_find(SEALED(s), f, s->expected, &entry, NULL) == DEED_OK) {
        if (entry.offset < offset) return;
        *inout_next = entry.next_position;
        *inout_next_offset = entry.offset + entry.size;
        ++*inout_i;
        return;
    }
    for (uint64_t i = 0; i < f->commit_count; i += SEALED_TABLE_PER_BLOCK) {
        if (sealed_at(SEALED(s), f, i, &entry, NULL) != DEED_OK) continue;
        if (entry.position <= s->expected || entry.offset <= offset) continue;
        *inout_next = entry.position;
        *inout_next_offset = entry.offset;
        *inout_i = i;
        return;
    }
}

static deed_status sealed_skip(struct scan *s, const struct sealed_footer *f, uint64_t *inout_i,
                               uint64_t *inout_offset)
{
    uint64_t next_offset = f->logical_end;
    uint64_t next = f->last_position + 1;
    sealed_next(s, f, *inout_offset, inout_i, &next, &next_offset);
    deed_status status =
        s->expected <= f->last_position
            ? scan_report(s, *inout_offset, next_offset - *inout_offset, s->expected, next - 1,
                          "events of a sealed segment are damaged")
            : scan_report(s, *inout_offset, next_offset - *inout_offset, DEED_NONE, DEED_NONE,
                          "bytes behind a sealed segment's last event");
    s->expected = next;
    s->previous_known = false;
    *inout_offset = next_offset;
    return status;
}

/* Is the i-th entry of the table that of this commit? If the table has damaged blocks, an entry that
 * cannot be read is no news. */
static deed_status sealed_check_entry(struct scan *s, const struct sealed_footer *f, uint64_t i,
                                      uint64_t offset, const struct commit *commit,
                                      bool table_good, bool *inout_told)
{
    struct sealed_entry entry = {0};
    deed_status status = i < f->commit_count ? sealed_at(SEALED(s), f, i, &entry, NULL) : DEED_CORRUPT;
    if (status == DEED_NO_MEMORY) return status;
    bool good = status == DEED_OK ? entry.position == commit->first_position &&
                                        entry.offset == offset &&
                                        entry.recorded_at_ns == commit->recorded_at_ns
                                  : !table_good;
    if (good || *inout_told) return DEED_OK;
    *inout_told = true;
    return scan_report(s, f->table_offset, f->table_blocks * SECTOR_SIZE, DEED_NONE, DEED_NONE,
                       "a sealed segment's table of commits does not fit its commits");
}

/* Every byte before the footer has its place in one hash. Its header was found good. */
static deed_status sealed_check_content(struct scan *s, const struct sealed_footer *f)
{
    struct sha256_stream hash;
    uint8_t found[SHA256_SIZE];
    uint64_t end = f->file_size - SEALED_FOOTERS_SIZE;
    uint8_t *bytes = malloc(SCAN_WINDOW_SIZE);
    if (bytes == NULL || !sha256_begin(&hash)) {
        free(bytes);
        return deed_fail(s->err, DEED_NO_MEMORY, "log: no memory to verify");
    }
    bool readable = true;
    for (uint64_t at = 0; at < end && readable; at += SCAN_WINDOW_SIZE) {
        size_t size = end - at < SCAN_WINDOW_SIZE ? (size_t)(end - at) : SCAN_WINDOW_SIZE;
        size_t got = 0;
        readable = os_file_read(s->file, at, bytes, size, &got, NULL) == DEED_OK && got == size;
        sha256_add(&hash, (deed_bytes){bytes, got});
    }
    sha256_end(&hash, found);
    free(bytes);
    if (readable && memcmp(found, f->content_hash, SHA256_SIZE) == 0) return DEED_OK;
    return scan_report(s, SEGMENT_HEADER_SIZE, end - SEGMENT_HEADER_SIZE, DEED_NONE, DEED_NONE,
                       "a sealed segment's bytes are not those that its footer names");
}

static deed_status sealed_check_header(struct scan *s, const struct sealed_footer *f)
{
    uint8_t bytes[SEGMENT_HEADER_SIZE] = {0};
    struct segment_header header = {0};
    size_t got = 0;
    deed_status status = os_file_read(s->file, 0, bytes, sizeof bytes, &got, NULL);
    if (status == DEED_OK) status = segment_header_decode(bytes, &header, NULL);
    bool good = status == DEED_OK && header.sealed && header.number == f->number &&
                header.generation == f->generation && header.first_position == f->first_position &&
                memcmp(header.previous, f->previous, SHA256_SIZE) == 0 &&
                memcmp(header.secret, s->log->secret, COMMIT_SECRET_SIZE) == 0;
    if (good) return DEED_OK;
    return scan_report(s, 0, SEGMENT_HEADER_SIZE, DEED_NONE, DEED_NONE,
                       "a sealed segment's header is damaged");
}

/* What stands behind the commits, block by block. */
static deed_status sealed_check_blocks(struct scan *s, const struct sealed_footer *f,
                                       bool *out_table_good)
{
    uint64_t offset = DEED_NONE;
    *out_table_good = true;
    deed_status status = sealed_check_pad(SEALED(s), f, &offset, s->err);
    s->unreadable |= status == DEED_IO;
    if (status == DEED_CORRUPT || status == DEED_IO) {
        status = DEED_OK;
        if (offset != DEED_NONE) {
            status = scan_report(s, offset, f->table_offset - offset, DEED_NONE, DEED_NONE,
                                 "the zeros behind a sealed segment's commits are damaged");
        }
    }
    for (offset = f->table_offset; status == DEED_OK && offset < f->file_size;
         offset += BLOCK_SIZE) {
        const char *what = NULL;
        status = sealed_check_block(SEALED(s), f, offset, &what, s->err);
        s->unreadable |= status == DEED_IO;
        if (status != DEED_CORRUPT && status != DEED_IO) continue;
        if (offset < f->table_offset + f->table_blocks * BLOCK_SIZE) *out_table_good = false;
        status = scan_report(s, offset, BLOCK_SIZE, DEED_NONE, DEED_NONE, what);
    }
    return status;
}

static deed_status sealed_check_end(struct scan *s, const struct sealed_footer *f)
{
    bool good = s->expected == f->last_position + 1 &&
                (!s->previous_known || memcmp(s->previous, f->hash, SHA256_SIZE) == 0);
    if (good) {
        memcpy(s->previous, f->hash, SHA256_SIZE);
        s->previous_known = true;
        return DEED_OK;
    }
    return scan_report(s, f->file_size - SEALED_FOOTER_SIZE, SEALED_FOOTER_SIZE, DEED_NONE, DEED_NONE,
                       "a sealed segment does not end as its footer says");
}

deed_status scan_sealed(struct scan *s, struct os_file *file, const struct sealed_footer *f,
                        bool deep)
{
    s->file = file;
    s->number = f->number;
    s->file_size = f->file_size;
    s->window_len = 0;
    uint64_t offset = SEGMENT_HEADER_SIZE;
    uint64_t i = 0;
    bool told = false;
    bool whole = true;
    bool table_good = true;
    deed_status status = scan_join(s, f->first_position, f->previous);
    uint64_t told_before = s->told;
    if (status == DEED_OK && deep) status = sealed_check_header(s, f);
    if (status == DEED_OK && deep) status = sealed_check_blocks(s, f, &table_good);
    while (status == DEED_OK && offset < f->logical_end && s->expected <= s->until) {
        struct commit commit = {0};
        status = sealed_commit(s, f, offset, &commit);
        if (status != DEED_OK) break;
        bool next = commit.size > 0 && commit.first_position == s->expected &&
                    (!s->previous_known ||
                     memcmp(commit.previous, s->previous, SHA256_SIZE) == 0);
        if (next && deep) {
            status = sealed_check_entry(s, f, i, offset, &commit, table_good, &told);
        }
        if (next && status == DEED_OK) {
            status = accept(s, offset, &commit);
            offset += commit.size;
            i++;
        } else if (status == DEED_OK) {
            whole = false;
            status = sealed_skip(s, f, &i, &offset);
        }
        if (status == DEED_OK && !progress(s, offset)) {
            status = deed_fail(s->err, DEED_STOPPED, "stopped on request");
        }
    }
    if (status == DEED_OK && whole && s->expected <= s->until) status = sealed_check_end(s, f);
    if (status == DEED_OK && deep && s->told == told_before) status = sealed_check_content(s, f);
    s->done += s->file_size;
    return status;
}

deed_status scan_unreadable(struct scan *s, uint32_t number, uint64_t first, uint64_t last,
                            const char *what)
{
    s->number = number;
    deed_status status = scan_join(s, first, NULL);
    if (status == DEED_OK && last >= first) {
        status = scan_report(s, 0, 0, first, last, what);
    } else if (status == DEED_OK) {
        status = scan_report(s, 0, 0, DEED_NONE, DEED_NONE, what);
    }
    if (last >= s->expected) s->expected = last + 1;
    s->previous_known = false;
    return status;
}

/* ---- beginning and end ---------------------------------------------------------------------- */

void scan_init(struct scan *s, struct log *log, const struct log_visitor *visitor,
               struct deed_error *err)
{
    *s = (struct scan){.log = log,
                       .visitor = visitor,
                       .err = err,
                       .expected = 1,
                       .previous_known = true,
                       .until = DEED_NONE};
    arena_init(&s->arena, SIZE_MAX);
    buf_init(&s->body, SIZE_MAX);
    buf_init(&s->packed, SIZE_MAX);
}

void scan_done(struct scan *s)
{
    arena_done(&s->arena);
    losses_done(&s->losses);
    losses_done(&s->found);
    buf_done(&s->body);
    buf_done(&s->packed);
    free(s->window);
}

deed_status scan_losses(struct scan *s, bool tell)
{
    deed_status status = losses_load(s->log->dir, s->log->id, &s->losses, s->err);
    if (status != DEED_CORRUPT) return status;
    losses_done(&s->losses);
    if (!tell) return DEED_OK;
    return scan_report(s, 0, 0, DEED_NONE, DEED_NONE, "the list of accepted losses is damaged");
}

