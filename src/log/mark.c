/* mark.c - two slots of one sector each.
 *
 *   0       8        12        16       32      40         48        56       64         72     104
 *   +-------+--------+---------+--------+-------+----------+---------+--------+----------+------+---
 *   | magic | crc32c | version | log id | epoch | sequence | segment | offset | position | hash |
 *   +-------+--------+---------+--------+-------+----------+---------+--------+----------+------+---
 *   104      120
 *   +--------+
 *   | secret |
 *   +--------+
 *
 * (1) The checksum covers bytes 12 to 120. Normative: docs/format/log.md */
#include "log/mark.h"

#include "base/planted.h"

static const uint8_t mark_magic[8] = {'D', 'E', 'E', 'D', 'M', 'R', 'K', '\n'};

enum { MARK_VERSION = 1, MARK_SIZE = 120, MARK_CRC_FROM = 12 };

static void mark_encode(const struct mark *mark, uint8_t out[SECTOR_SIZE])
{
    memset(out, 0, SECTOR_SIZE);
    memcpy(out, mark_magic, sizeof mark_magic);
    put_uint(out + 12, MARK_VERSION, 4);
    memcpy(out + 16, mark->log_id.bytes, 16);
    put_uint(out + 32, mark->epoch, 8);
    put_uint(out + 40, mark->sequence, 8);
    put_uint(out + 48, mark->segment, 8);
    put_uint(out + 56, mark->offset, 8);
    put_uint(out + 64, mark->position, 8);
    memcpy(out + 72, mark->hash, SHA256_SIZE);
    memcpy(out + 104, mark->secret, COMMIT_SECRET_SIZE);
    put_uint(out + 8, crc32c(0, (deed_bytes){out + MARK_CRC_FROM, MARK_SIZE - MARK_CRC_FROM}), 4);
}

static bool mark_decode(const uint8_t in[SECTOR_SIZE], struct mark *out)
{
    struct reader r = reader_over((deed_bytes){in, MARK_SIZE});
    deed_bytes magic = read_bytes(&r, sizeof mark_magic);
    uint32_t crc = read_u32(&r);
    if (memcmp(magic.ptr, mark_magic, magic.len) != 0) return false;
    deed_bytes covered = {in + MARK_CRC_FROM, MARK_SIZE - MARK_CRC_FROM};
    if (crc32c(0, covered) != crc || read_u32(&r) != MARK_VERSION) return false;

    struct mark mark = {0};
    read_into(&r, mark.log_id.bytes, 16);
    mark.epoch = read_u64(&r);
    mark.sequence = read_u64(&r);
    mark.segment = (uint32_t)read_u64(&r);
    mark.offset = read_u64(&r);
    mark.position = read_u64(&r);
    read_into(&r, mark.hash, SHA256_SIZE);
    read_into(&r, mark.secret, COMMIT_SECRET_SIZE);
    if (mark.position > POSITION_MAX) return false;
    *out = mark;
    return true;
}

deed_status mark_load(struct os_dir *dir, struct mark *out_mark, struct deed_error *err)
{
    struct os_file *file = NULL;
    *out_mark = (struct mark){0};
    deed_status status = os_file_open(dir, MARK_FILE, OS_READ | OS_DIRECT, &file, err);
    if (status == DEED_NOT_FOUND) return DEED_OK;
    if (status != DEED_OK) return status;

    for (uint64_t slot = 0; slot < 2; slot++) {
        uint8_t bytes[SECTOR_SIZE];
        size_t size = 0;
        struct mark mark;
        status = os_file_read(file, slot * SECTOR_SIZE, bytes, sizeof bytes, &size, err);
        if (status != DEED_OK) break;
        if (size == sizeof bytes && mark_decode(bytes, &mark) &&
            (mark.sequence > out_mark->sequence) != (PLANTED(OLDER_MARK) && slot == 1)) {
            *out_mark = mark;
        }
    }
    os_file_close(file);
    return status;
}

deed_status mark_open(struct os_dir *dir, struct os_file **out_file, struct deed_error *err)
{
    static const uint8_t zeros[2 * SECTOR_SIZE];
    struct os_file *file = NULL;
    uint64_t size = 0;
    deed_status status = os_file_open(dir, MARK_FILE, OS_WRITE | OS_CREATE, &file, err);
    if (status == DEED_OK) status = os_file_size(file, &size, err);
    /* Both slots from the first: on a disk that is full later they can still be written. */
    if (status == DEED_OK && size < sizeof zeros) {
        deed_bytes rest = {zeros, (size_t)(sizeof zeros - size)};
        status = os_file_write(file, size, rest, err);
        if (status == DEED_OK) status = os_file_sync(file, err);
    }
    if (status == DEED_OK) status = os_dir_sync(dir, err);
    if (status != DEED_OK) {
        os_file_close(file);
        return status;
    }
    *out_file = file;
    return DEED_OK;
}

deed_status mark_write(struct os_file *file, const struct mark *mark, struct deed_error *err)
{
    uint8_t bytes[SECTOR_SIZE];
    mark_encode(mark, bytes);
    deed_status status =
        os_file_write(file, PLANTED(MARKS_IN_ONE_SLOT) ? 0 : mark->sequence % 2 * SECTOR_SIZE,
                      (deed_bytes){bytes, sizeof bytes}, err);
    if (status != DEED_OK || PLANTED(MARK_NOT_SYNCED)) return status;
    return os_file_sync(file, err);
}
