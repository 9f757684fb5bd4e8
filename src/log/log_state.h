/* log_state.h - the log's own fields, shared by log.c (writing), reader.c and recovery.c only. */
#ifndef LOG_LOG_STATE_H
#define LOG_LOG_STATE_H

#include "base/chunks.h"
#include "log/log.h"
#include "log/segment.h"
#include "os/thread.h"

#define LOG_CREATED_TYPE "$log-created"
#define LOG_STREAM       "$log"

struct log_segment {
    struct os_file *file; /* NULL: the file is missing */
    uint32_t number;
    bool header_good;
    struct segment_header header;
};

struct log {
    struct os *os;
    struct os_dir *dir;
    struct log_options options;
    deed_uuid id;
    uint64_t epoch;
    uint8_t secret[COMMIT_SECRET_SIZE]; /* of the commits' checksums; never shown */

    struct chunks segments; /* struct log_segment, by number from first_number on */
    uint32_t first_number;
    struct chunks refs; /* struct commit_ref, published ones only */
    _Atomic uint64_t end;
    bool found_damage; /* by opening, accepted or not */

    /* The writer's. `head_…`: what the published log ends with; the rest includes the group. */
    struct os_file *active;
    uint32_t active_number;
    uint64_t group_offset; /* where the group begins: a sector boundary */
    uint64_t head_offset;  /* behind the newest published commit */
    uint32_t head_segment; /* that holds it */
    uint64_t head_position, next_position;
    int64_t head_recorded_at_ns, recorded_at_ns;
    uint8_t head_hash[SHA256_SIZE], hash[SHA256_SIZE];
    struct buf group;
    size_t commit_start;
    struct commit_ref *pending;
    size_t pending_count, pending_room;
    bool written;
    bool roll_due; /* the next segment was begun, maybe without success */
    _Atomic uint64_t writer_offset; /* group_offset, for the filler */

    /* Growth of the active segment: `grow` is held by whoever writes zeros. */
    struct os_mutex grow;
    struct os_file *fill_file;
    uint64_t filled; /* everything below was written once */
    uint64_t claimed; /* below this a group was or is being written */
    bool fill_stopped;

    /* The mark: what may be claimed, and what was. Guarded by `mark_lock`, as the `head_…` are; the
     * writer, which alone changes `durable` and the `head_…`, reads them without it. */
    struct os_mutex mark_lock;
    struct mark durable;
    struct os_file *mark_file;
    uint64_t marked_position, mark_sequence;
    uint64_t marked_ticks;
    _Atomic bool keeper_idle;

    _Atomic bool stopped;
    struct os_mutex stopped_lock;
    char stopped_because[DEED_MESSAGE_SIZE];
};

static inline struct commit_seed log_seed(const struct log *log, uint32_t segment, uint64_t offset)
{
    struct commit_seed seed = {.log_id = log->id, .segment = segment, .offset = offset};
    memcpy(seed.secret, log->secret, COMMIT_SECRET_SIZE);
    return seed;
}

const struct log_segment *log_segment_get(const struct log *log, uint32_t number);

/* How many commits are published, and the i-th. */
uint64_t log_commit_count(const struct log *log);
struct commit_ref log_commit_at(const struct log *log, uint64_t index);
/* The index of the commit that holds `position`. DEED_NOT_FOUND: past the end, or lost to damage;
 * then `*out_index` is the first commit behind it. */
deed_status log_find(const struct log *log, uint64_t position, uint64_t *out_index);
/* Read raw bytes of a segment; fewer at the end of its file. */
DEED_MUST_CHECK deed_status log_read(const struct log *log, uint32_t segment, uint64_t offset,
                                     void *out, size_t size, size_t *out_read,
                                     struct deed_error *err);
/* Check and decode the commit at `ref` from its bytes. DEED_CORRUPT names segment and offset. */
DEED_MUST_CHECK deed_status log_decode(const struct log *log, const struct commit_ref *ref,
                                       deed_bytes bytes, struct commit *out_commit,
                                       struct deed_error *err);
deed_status log_ref_add(struct log *log, const struct commit_ref *ref, struct deed_error *err);

/* Scan what is there, tell the visitor, clean the tail, set up the writer. */
deed_status log_recover(struct log *log, const struct log_visitor *visitor,
                        struct deed_error *err);

#endif
