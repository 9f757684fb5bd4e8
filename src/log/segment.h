/* segment.h - one file of the log: its name and its header.
 *
 * docs/format/log.md is normative. */
#ifndef LOG_SEGMENT_H
#define LOG_SEGMENT_H

#include "log/commit.h"
#include "os/os.h"

#define SEGMENT_HEADER_SIZE SECTOR_SIZE
#define SEGMENT_NAME_SIZE   16 /* "0000000001.seg" and its NUL */

struct segment_header {
    deed_uuid log_id;
    uint64_t epoch;
    uint32_t number; /* from 1 */
    uint64_t first_position;
    uint8_t previous[SHA256_SIZE]; /* hash of the commit before the first; zeros: there is none */
    int64_t created_at_ns;
    uint8_t secret[COMMIT_SECRET_SIZE]; /* the log's, in all of its segments */
    bool sealed;                        /* the file is a sealed one (sealed.h) */
    uint32_t generation;                /* of a sealed one, from 1; else 0 */
};

void segment_name(uint32_t number, char out[SEGMENT_NAME_SIZE]);
/* false: not a segment's name. */
bool segment_name_parse(const char *name, uint32_t *out_number);

void segment_header_encode(const struct segment_header *header, uint8_t out[SEGMENT_HEADER_SIZE]);

/*   DEED_CORRUPT  the checksum does not match.
 *   DEED_TOO_NEW  a newer format, or a feature this version does not know and must. */
DEED_MUST_CHECK deed_status segment_header_decode(const uint8_t in[SEGMENT_HEADER_SIZE],
                                                  struct segment_header *out_header,
                                                  struct deed_error *err);

/* Make the file with its header, durable with its name. On failure it is removed as far as the disk
 * lets it be: it may come back after a power cut, as the header that it was to have, or half of it. */
DEED_MUST_CHECK deed_status segment_create(struct os_dir *dir, const struct segment_header *header,
                                           struct os_file **out_file, struct deed_error *err);

/* Remove a segment that holds no event; that it cannot be removed does no harm. */
void segment_remove(struct os_dir *dir, uint32_t number);

#endif
