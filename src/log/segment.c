/* segment.c - names and headers.
 *
 *   0       8        12        16       24       32       48      56       64      72      104
 *   +-------+--------+---------+--------+--------+--------+-------+--------+-------+------+--------
 *   | magic | crc32c | version | ignore | refuse | log id | epoch | number | first | prev | created
 *   +-------+--------+---------+--------+--------+--------+-------+--------+-------+------+--------
 *   112      128          132
 *   +--------+------------+
 *   | secret | generation | zeros
 *   +--------+------------+
 *
 * (1) The checksum covers bytes 12 to 4096. The rest of the sector is zero.
 * (2) A reader ignores unknown bits of `ignore` and refuses unknown bits of `refuse`.
 *
 * Normative: docs/format/log.md */
#include "log/segment.h"

#include "base/planted.h"

#include <stdio.h>

static const uint8_t segment_magic[8] = {'D', 'E', 'E', 'D', 'S', 'E', 'G', '\n'};

#define SEGMENT_VERSION       1
#define SEGMENT_SEALED        UINT64_C(1)
#define SEGMENT_REFUSE_KNOWN  SEGMENT_SEALED
#define SEGMENT_CRC_FROM      12

void segment_name(uint32_t number, char out[SEGMENT_NAME_SIZE])
{
    (void)snprintf(out, SEGMENT_NAME_SIZE, "%010u.seg", number);
}

bool segment_name_parse(const char *name, uint32_t *out_number)
{
    uint64_t number = 0;
    for (size_t i = 0; i < 10; i++) {
        if (name[i] < '0' || name[i] > '9') return false;
        number = number * 10 + (uint64_t)(name[i] - '0');
    }
    if (strcmp(name + 10, ".seg") != 0 || number == 0 || number > UINT32_MAX) return false;
    *out_number = (uint32_t)number;
    return true;
}

void segment_header_encode(const struct segment_header *header, uint8_t out[SEGMENT_HEADER_SIZE])
{
    memset(out, 0, SEGMENT_HEADER_SIZE);
    memcpy(out, segment_magic, sizeof segment_magic);
    put_uint(out + 12, SEGMENT_VERSION, 4);
    put_uint(out + 24, header->sealed ? SEGMENT_SEALED : 0, 8);
    memcpy(out + 32, header->log_id.bytes, 16);
    put_uint(out + 48, header->epoch, 8);
    put_uint(out + 56, header->number, 4);
    put_uint(out + 64, header->first_position, 8);
    memcpy(out + 72, header->previous, SHA256_SIZE);
    put_uint(out + 104, (uint64_t)header->created_at_ns, 8);
    memcpy(out + 112, header->secret, COMMIT_SECRET_SIZE);
    put_uint(out + 128, header->generation, 4);
    deed_bytes covered = {out + SEGMENT_CRC_FROM, SEGMENT_HEADER_SIZE - SEGMENT_CRC_FROM};
    put_uint(out + 8, crc32c(0, covered), 4);
}

deed_status segment_header_decode(const uint8_t in[SEGMENT_HEADER_SIZE],
                                  struct segment_header *out_header, struct deed_error *err)
{
    struct reader r = reader_over((deed_bytes){in, SEGMENT_HEADER_SIZE});
    deed_bytes magic = read_bytes(&r, sizeof segment_magic);
    uint32_t crc = read_u32(&r);
    deed_bytes covered = {in + SEGMENT_CRC_FROM, SEGMENT_HEADER_SIZE - SEGMENT_CRC_FROM};
    if (memcmp(magic.ptr, segment_magic, magic.len) != 0 || crc32c(0, covered) != crc) {
        return deed_fail(err, DEED_CORRUPT, "segment header: checksum does not match");
    }
    uint32_t version = read_u32(&r);
    (void)read_u64(&r);
    uint64_t refuse = read_u64(&r);
    if (version != SEGMENT_VERSION) {
        return deed_fail(err, DEED_TOO_NEW, "segment format %u, this program reads %d", version,
                         SEGMENT_VERSION);
    }
    if ((refuse & ~SEGMENT_REFUSE_KNOWN) != 0) {
        return deed_fail(err, DEED_TOO_NEW, "segment uses features %#llx that are not known here",
                         (unsigned long long)refuse);
    }
    struct segment_header header = {0};
    read_into(&r, header.log_id.bytes, 16);
    header.epoch = read_u64(&r);
    header.number = read_u32(&r);
    (void)read_u32(&r);
    header.first_position = read_u64(&r);
    read_into(&r, header.previous, SHA256_SIZE);
    header.created_at_ns = read_i64(&r);
    read_into(&r, header.secret, COMMIT_SECRET_SIZE);
    header.sealed = (refuse & SEGMENT_SEALED) != 0;
    if (header.sealed) header.generation = read_u32(&r);
    if (header.first_position == 0 || header.first_position > POSITION_MAX) {
        return deed_fail(err, DEED_CORRUPT, "segment header: first position %llu",
                         (unsigned long long)header.first_position);
    }
    *out_header = header;
    return DEED_OK;
}

void segment_remove(struct os_dir *dir, uint32_t number)
{
    char name[SEGMENT_NAME_SIZE];
    segment_name(number, name);
    (void)!os_remove(dir, name, NULL);
}

deed_status segment_create(struct os_dir *dir, const struct segment_header *header,
                           struct os_file **out_file, struct deed_error *err)
{
    char name[SEGMENT_NAME_SIZE];
    uint8_t bytes[SEGMENT_HEADER_SIZE];
    struct os_file *file = NULL;
    segment_name(header->number, name);
    segment_header_encode(header, bytes);

    deed_status status =
        os_file_open(dir, name, OS_WRITE | OS_CREATE | OS_EXCLUSIVE, &file, err);
    /* Left by an attempt whose file could not be removed. */
    if (status == DEED_CONFLICT) status = deed_fail(err, DEED_IO, "%s is there already", name);
    if (status != DEED_OK) return status;
    status = os_file_write(file, 0, (deed_bytes){bytes, sizeof bytes}, err);
    if (status == DEED_OK) status = os_file_sync(file, err);
    if (status == DEED_OK && !PLANTED(ROLL_WITHOUT_DIR_SYNC)) status = os_dir_sync(dir, err);
    if (status != DEED_OK) {
        os_file_close(file);
        segment_remove(dir, header->number);
        return status;
    }
    *out_file = file;
    return DEED_OK;
}
