/* losses.c - one small file, replaced as a whole.
 *
 *   0       8        12        16       32      40
 *   +-------+--------+---------+--------+-------+-----------------------------------------------+
 *   | magic | crc32c | version | log id | count | count x (segment, offset, size, first, last)  |
 *   +-------+--------+---------+--------+-------+-----------------------------------------------+
 *
 * (1) The checksum covers everything behind it. Each number of an entry has 8 bytes. */
#include "log/losses.h"

#include "base/planted.h"
#include "base/uuid.h"

#include <stdlib.h>

static const uint8_t losses_magic[8] = {'D', 'E', 'E', 'D', 'L', 'O', 'S', '\n'};

enum { LOSSES_VERSION = 1, LOSSES_HEAD_SIZE = 40, LOSSES_ENTRY_SIZE = 40, LOSSES_CRC_FROM = 12 };

#define LOSSES_TEMPORARY LOSSES_FILE ".new"

void losses_done(struct losses *losses)
{
    free(losses->ptr);
    *losses = (struct losses){0};
}

deed_status losses_add(struct losses *losses, const struct log_damage *damage,
                       struct deed_error *err)
{
    if (losses->count == losses->room) {
        size_t room = losses->room == 0 ? 16 : losses->room * 2;
        struct log_damage *grown = realloc(losses->ptr, room * sizeof *grown);
        if (grown == NULL) return deed_fail(err, DEED_NO_MEMORY, "losses: out of memory");
        losses->ptr = grown;
        losses->room = room;
    }
    losses->ptr[losses->count++] = *damage;
    return DEED_OK;
}

bool losses_cover(const struct losses *losses, const struct log_damage *damage)
{
    for (size_t i = 0; i < losses->count; i++) {
        const struct log_damage *l = &losses->ptr[i];
        if (damage->first_position == DEED_NONE) {
            if (l->first_position == DEED_NONE && l->segment == damage->segment &&
                l->offset == damage->offset) {
                return true;
            }
        } else if (l->first_position != DEED_NONE && l->first_position <= damage->first_position &&
                   damage->last_position <= l->last_position) {
            return true;
        }
    }
    return false;
}

static deed_status decode(deed_bytes bytes, deed_uuid log_id, struct losses *losses,
                          struct deed_error *err)
{
    struct reader r = reader_over(bytes);
    deed_bytes magic = read_bytes(&r, sizeof losses_magic);
    uint32_t crc = read_u32(&r);
    bool good = reader_ok(&r) && memcmp(magic.ptr, losses_magic, magic.len) == 0 &&
                crc32c(0, (deed_bytes){bytes.ptr + LOSSES_CRC_FROM,
                                       bytes.len - LOSSES_CRC_FROM}) == crc;
    if (!good) return deed_fail(err, DEED_CORRUPT, LOSSES_FILE ": checksum does not match");
    uint32_t version = read_u32(&r);
    if (version != LOSSES_VERSION) {
        return deed_fail(err, DEED_TOO_NEW, LOSSES_FILE ": format %u, this program reads %d",
                         version, LOSSES_VERSION);
    }
    deed_uuid owner;
    read_into(&r, owner.bytes, sizeof owner.bytes);
    uint64_t count = read_u64(&r);
    if (!uuid_equal(owner, log_id)) {
        return deed_fail(err, DEED_CORRUPT, LOSSES_FILE ": belongs to another log");
    }
    for (uint64_t i = 0; i < count; i++) {
        struct log_damage damage = {.segment = (uint32_t)read_u64(&r),
                                    .offset = read_u64(&r),
                                    .size = read_u64(&r),
                                    .first_position = read_u64(&r),
                                    .last_position = read_u64(&r),
                                    .what = "accepted"};
        if (!reader_ok(&r)) return deed_fail(err, DEED_CORRUPT, LOSSES_FILE ": too short");
        deed_status status = losses_add(losses, &damage, err);
        if (status != DEED_OK) return status;
    }
    return DEED_OK;
}

deed_status losses_load(struct os_dir *dir, deed_uuid log_id, struct losses *losses,
                        struct deed_error *err)
{
    struct os_file *file = NULL;
    uint64_t size = 0;
    size_t got = 0;
    uint8_t *bytes = NULL;
    deed_status status = os_file_open(dir, LOSSES_FILE, OS_READ, &file, err);
    if (status == DEED_NOT_FOUND) return DEED_OK;
    if (status == DEED_OK) status = os_file_size(file, &size, err);
    if (status == DEED_OK && (size < LOSSES_HEAD_SIZE || size > UINT32_MAX)) {
        status = deed_fail(err, DEED_CORRUPT, LOSSES_FILE ": %llu bytes is not its size",
                           (unsigned long long)size);
    }
    if (status == DEED_OK) {
        bytes = malloc((size_t)size);
        if (bytes == NULL) status = deed_fail(err, DEED_NO_MEMORY, "losses: out of memory");
    }
    if (status == DEED_OK) status = os_file_read(file, 0, bytes, (size_t)size, &got, err);
    if (status == DEED_OK) status = decode((deed_bytes){bytes, got}, log_id, losses, err);
    free(bytes);
    os_file_close(file);
    return status;
}

deed_status losses_save(struct os_dir *dir, deed_uuid log_id, const struct losses *losses,
                        struct deed_error *err)
{
    struct buf out;
    struct os_file *file = NULL;
    buf_init(&out, UINT32_MAX);
    buf_add(&out, losses_magic, sizeof losses_magic);
    write_u32(&out, 0);
    write_u32(&out, LOSSES_VERSION);
    buf_add(&out, log_id.bytes, sizeof log_id.bytes);
    write_u64(&out, losses->count);
    for (size_t i = 0; i < losses->count; i++) {
        const struct log_damage *l = &losses->ptr[i];
        write_u64(&out, l->segment);
        write_u64(&out, l->offset);
        write_u64(&out, l->size);
        write_u64(&out, l->first_position);
        write_u64(&out, l->last_position);
    }
    deed_status status = DEED_OK;
    if (!buf_ok(&out)) {
        status = deed_fail(err, DEED_NO_MEMORY, "losses: out of memory");
    } else {
        deed_bytes covered = {out.ptr + LOSSES_CRC_FROM, out.len - LOSSES_CRC_FROM};
        put_uint(out.ptr + 8, crc32c(0, covered), 4);
    }
    if (status == DEED_OK) {
        status = os_file_open(dir, LOSSES_TEMPORARY, OS_WRITE | OS_CREATE, &file, err);
    }
    if (status == DEED_OK) status = os_file_truncate(file, 0, err);
    if (status == DEED_OK) status = os_file_write(file, 0, buf_bytes(&out), err);
    if (status == DEED_OK && !PLANTED(ACCEPT_UNSYNCED)) status = os_file_sync(file, err);
    os_file_close(file);
    if (status == DEED_OK) status = os_replace(dir, LOSSES_TEMPORARY, LOSSES_FILE, err);
    buf_done(&out);
    return status;
}
