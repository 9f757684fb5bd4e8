/* mark.h - the commit mark: how far the log was known durable, kept beside it.
 *
 * Two slots are written in turn, so a torn write leaves the older one. A mark never claims what is
 * not durable; it may lag. What it claims and the log lacks is damage, not a torn tail. */
#ifndef LOG_MARK_H
#define LOG_MARK_H

#include "log/commit.h"
#include "os/os.h"

#define MARK_FILE "marks"

struct mark {
    deed_uuid log_id;
    uint64_t epoch;
    uint64_t sequence; /* grows by one a mark; its parity is the slot */
    uint32_t segment;
    uint64_t offset; /* end of the last durable commit in that segment */
    uint64_t position;
    uint8_t hash[SHA256_SIZE]; /* of that commit */
    uint8_t secret[COMMIT_SECRET_SIZE]; /* the log's, should no segment's header be left */
};

/* The newest valid mark; all zero if there is none, or no file. */
DEED_MUST_CHECK deed_status mark_load(struct os_dir *dir, struct mark *out_mark,
                                      struct deed_error *err);

/* Open the file, made if missing, for mark_write. */
DEED_MUST_CHECK deed_status mark_open(struct os_dir *dir, struct os_file **out_file,
                                      struct deed_error *err);
/* Write to the slot of its sequence and sync. */
DEED_MUST_CHECK deed_status mark_write(struct os_file *file, const struct mark *mark,
                                       struct deed_error *err);

#endif
