/* log_state.h - the log's own fields, shared by log.c (writing), reader.c, view.c, seal.c (sealing,
 * rewriting), scan.c and recovery.c only. */
#ifndef LOG_LOG_STATE_H
#define LOG_LOG_STATE_H

#include "base/chunks.h"
#include "log/log.h"
#include "log/view.h"
#include "os/file_cache.h"
#include "os/thread.h"

#define LOG_CREATED_TYPE "$log-created"
#define LOG_STREAM       "$log"

struct log {
    struct os *os;
    struct os_dir *dir;
    struct log_options options;
    deed_uuid id;
    uint64_t epoch;
    uint8_t secret[COMMIT_SECRET_SIZE]; /* of the commits' checksums; never shown */
    struct commit_places places;        /* of both */

    struct file_cache *files;
    bool own_files;
    _Atomic uint64_t end;

    /* What there is to read; `view_lock` guards the pointer. */
    struct os_mutex view_lock;
    struct log_view *view;
    _Atomic uint64_t view_serial;

    /* The writer's. `head_…`: what the published log ends with; the rest includes the group. */
    struct os_file *active;
    uint32_t active_number;
    struct log_segment *active_segment; /* held */
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
    struct os_mutex fill_sync; /* held while the keeper syncs, and notes a failure */
    struct os_file *fill_file;
    uint64_t filled; /* everything below was written once */
    uint64_t claimed; /* below this a group was or is being written */
    bool fill_stopped;
    struct os_file *fill_held;  /* what the keeper syncs now, without `grow` */
    struct os_file *fill_stale; /* that, once it is a closed segment's: the keeper closes it */

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

    struct sealing *sealing;  /* seal.c's own */
    _Atomic bool closed_one;  /* a segment, and the sealer was not woken for it yet */
};

static inline struct commit_seed log_seed(const struct log *log, uint32_t segment, uint64_t offset)
{
    struct commit_seed seed = {
        .log_id = log->id, .segment = segment, .offset = offset, .places = &log->places};
    memcpy(seed.secret, log->secret, COMMIT_SECRET_SIZE);
    return seed;
}

deed_status log_ref_add(struct log_segment *segment, const struct commit_ref *ref,
                        struct deed_error *err);

/* seal.c */
DEED_MUST_CHECK deed_status sealing_create(struct log *log, struct deed_error *err);
void sealing_destroy(struct log *log);

/* Opened read-only beside a writer, which has replaced the segment's file: find the new one. */
bool log_find_again(struct log *log, uint32_t number);

/* Scan what is there, tell the visitor, clean the tail, set up the writer. */
deed_status log_recover(struct log *log, const struct log_visitor *visitor,
                        struct deed_error *err);

#endif
