/* store_state.h - the store's own fields, shared by the files of src/store only: store.c,
 * append.c (the committer), sealer.c, check.c, condition.c, read.c (the cursors), retention.c, delete.c,
 * stream.c and virtual.c. */
#ifndef STORE_STORE_STATE_H
#define STORE_STORE_STATE_H

#include "base/chunks.h"
#include "index/index.h"
#include "index/postings.h"
#include "log/log.h"
#include "os/block_cache.h"
#include "os/file_cache.h"
#include "os/thread.h"
#include "store/store.h"

#define METADATA_TYPE  "$metadata"
#define METADATA_PREFIX "$$" /* of the stream that keeps a stream's metadata */
#define LOG_STREAM     "$log"
#define ALL_STREAM     "$all" /* the log, to clients of KurrentDB */

/* Retention of a stream, as its newest $metadata event says. Zeros: no limit. */
struct retention {
    uint64_t truncate_before; /* $tb: revisions below are hidden */
    uint64_t max_count;
    int64_t max_age_ns;
};

/* A $tb of this value is a soft delete as KurrentDB's clients write it: everything is hidden that the
 * stream held when the metadata was written, and what comes later is not. */
#define RETENTION_DELETED ((uint64_t)INT64_MAX)

/* What a stream is at one end of the log. */
struct stream_state {
    struct postings list;
    uint64_t count; /* of its events: the next revision */
    uint64_t last_position;
    bool tombstoned;
    uint64_t metadata_count;
    uint64_t metadata_position; /* of the newest $metadata event; 0: none */
    struct retention retention;
};

static inline bool stream_deleted(const struct stream_state *s)
{
    return s->count > 0 && s->retention.truncate_before >= s->count;
}

/* For clients of KurrentDB such a stream is there. */
static inline bool stream_is_metadata_only(const struct stream_state *s)
{
    return s->count == 0 && s->metadata_count > 0;
}

/* Who appends: what is refused, whatever the store holds, differs. */
enum append_writer {
    APPEND_BY_USER,
    APPEND_BY_FOREIGN, /* store_submit_foreign */
    APPEND_BY_SYSTEM,  /* the store itself: may write what users may not */
};

/* An append on its way through the committer. Lives until it was answered. */
struct request {
    const struct deed_append *append;
    deed_append_done *done;
    void *context;
    struct request *next;
    uint64_t size; /* bytes it holds in the queue */
    uint64_t submitted_ticks;
    bool owned;  /* malloc'd by store_submit */
    enum append_writer writer;
    bool wrote;  /* its events are in the group */
    deed_status status;
    struct deed_appended appended;
    struct deed_error error;
};

struct request_list {
    struct request *first, *last;
};

#define RETENTION_CACHE_SIZE 1024
struct retention_entry {
    uint64_t position; /* of the $metadata event; 0: empty */
    struct retention retention;
};

#define RANDOM_POOL_SIZE 4096

struct metrics {
    _Atomic uint64_t appends, append_events, append_bytes, refused, failed, groups;
    _Atomic uint64_t reads, read_events, read_bytes;
    _Atomic uint64_t append_buckets[STORE_HISTOGRAM_BUCKETS + 1], append_sum_ns;
    _Atomic uint64_t sync_buckets[STORE_HISTOGRAM_BUCKETS + 1], sync_sum_ns;
};

/* Of the backups made since opening; under publish_lock. */
struct backup_state {
    uint64_t made_count, failed_count, copied_size, position;
    int64_t made_at_ns;
};

/* What the committer looked up lately: conditions, revisions and tombstones ask for the same terms
 * again and again. By hash; good for one view, until something is taken back. */
#define TERM_SLOTS 512
struct committer_terms {
    struct arena arena;
    uint64_t generation; /* of the view; 0: empty */
    struct postings slots[TERM_SLOTS];
};

/* Positions that damage took, as opening found them. */
struct lost_range {
    uint64_t first, last;
    bool accepted;
};

/* What is known of the log's first events of users'. */
struct horizon {
    struct os_mutex lock;
    uint64_t looked;        /* positions up to here were looked at */
    uint64_t removed, kept; /* the first of each kind among them; 0: none */
};

/* compact.c: the job that runs, or the last one. */
struct compaction {
    struct os_mutex lock;
    struct os_cond changed;
    struct deed_compaction status; /* under the lock, as `result` */
    deed_status result;
    uint64_t jobs, failed, events_removed, bytes_reclaimed; /* under the lock: since opening */
    uint64_t waiters; /* under the lock: the store outlives them */
    uint64_t numbers; /* under the lock: given out */
    atomic_bool stop; /* the one that runs is to end */
    atomic_bool asked; /* the job is set up: it is the compactor's until it says that it is done */
    struct compaction_job *job;
};

struct store {
    struct os *os;
    struct os_dir *dir;
    struct store_options options;
    struct log *log;
    struct block_cache *cache;
    struct index *index;
    uint32_t segment; /* the committer's: that it indexes into */
    struct committer_terms terms;
    uint64_t rested_generation; /* the sealer's: of the index, when the committer's view went last */
    bool forget_index; /* opening: make the index anew */

    /* Opening: what the log tells, and which of it is indexed already. */
    bool index_has_files;
    uint32_t visited_segment;
    bool visited_covered;
    uint8_t visited_hash[SHA256_SIZE];

    struct os_mutex queue_lock;
    struct request_list queue;
    uint64_t queue_count, queue_size;
    uint64_t gather_wanted; /* so many in the queue wake the committer early */
    bool closing;
    struct actor *committer, *keeper, *sealer, *compactor;
    struct file_cache *files; /* of the log's sealed segments and the index's runs */

    struct os_mutex seal_lock;
    struct os_cond seal_changed; /* the sealer has done a step */

    /* Held by the thread that is the committer just now: mostly the actor (append.c, (5)). What
     * follows up to `publish_lock` is the committer's own. */
    struct os_mutex commit_lock;
    uint64_t sync_ns; /* what a write and its sync take, as of late */
    uint64_t gather_until, gather_look, gather_seen; /* append.c */
    struct request_list group; /* processed, to be answered after the sync */
    struct arena arena;
    struct log_reader *reader;
    uint8_t (*leaves)[SHA256_SIZE];
    size_t leaves_room;
    uint8_t random[RANDOM_POOL_SIZE];
    size_t random_left;
    bool index_spoilt; /* it holds what was never stored, and the log has stopped: decide nothing */

    struct os_mutex publish_lock;
    struct os_cond published;
    uint64_t waiters; /* in store_wait: the store outlives them */
    struct store_watch *watches;

    struct os_mutex retention_lock;
    struct retention_entry retention_cache[RETENTION_CACHE_SIZE];

    struct horizon horizon;
    struct compaction compaction;

    struct chunks lost;  /* struct lost_range, ascending; complete when opening ends */
    uint64_t lost_count; /* positions in all of them */
    struct metrics metrics;
    struct backup_state backup;
};

/* virtual.c. The index's list that a stream of this name is. */
struct stream_list {
    enum index_kind kind; /* INDEX_STREAM: it is no virtual one */
    deed_str term;        /* a part of the name, or a constant */
};
struct stream_list stream_list_of(deed_str stream);
/* May somebody write it, or (names that begin with "$$") what its metadata is of? DEED_INVALID. */
DEED_MUST_CHECK deed_status stream_writable(deed_str stream, struct deed_error *err);

/* stream.c. `end`: as readers see it, taken before the view; UINT64_MAX: with the group, for the
 * committer. `stream`, `view` and `arena` are borrowed for as long as `out` is used; the committer
 * has NULL for both of these: terms_get. */
DEED_MUST_CHECK deed_status stream_state_get(struct store *store, const struct index_view *view,
                                             deed_str stream, uint64_t end, struct arena *arena,
                                             struct stream_state *out, struct deed_error *err);
/* Costs no read where there is none. */
DEED_MUST_CHECK deed_status stream_has_metadata(struct store *store, const struct index_view *view,
                                                deed_str stream, uint64_t end, struct arena *arena,
                                                bool *out_has, struct deed_error *err);
/* As published, without its list, which has gone with the view. */
DEED_MUST_CHECK deed_status stream_state_now(struct store *store, deed_str stream,
                                             struct stream_state *out, struct deed_error *err);
/* Check the text of a $metadata event. */
DEED_MUST_CHECK deed_status retention_parse(deed_bytes json, struct retention *out,
                                            struct deed_error *err);
/* The first revision that a read returns; the count if none is. */
DEED_MUST_CHECK deed_status stream_first_visible(struct store *store, struct stream_state *s,
                                                 uint64_t *out_revision, struct deed_error *err);
/* `first`: as stream_first_visible says. */
struct deed_stream_info stream_info_of(const struct stream_state *s, uint64_t first);

/* Of a stream whose last known event is at `last` (0: none is). DEED_CORRUPT: what damage took of
 * positions behind it and up to `end` may have been its own. Not if somebody has accepted the loss. */
DEED_MUST_CHECK deed_status stream_lost(struct store *store, deed_str stream, uint64_t last,
                                        uint64_t end, struct deed_error *err);
/* Why there is nothing of the stream. DEED_NOT_FOUND, or as above. */
DEED_MUST_CHECK deed_status stream_missing(struct store *store, deed_str stream,
                                           struct deed_error *err);

/* Write the stream's metadata with this $tb: other members stay as they are. */
DEED_MUST_CHECK deed_status retention_set_truncate(struct store *store,
                                                   const struct stream_state *s,
                                                   uint64_t truncate_before, struct buf *out,
                                                   struct deed_error *err);

/* retention.c. DEED_GONE: a read of the log from behind `position` (backwards: before it) would begin
 * before the horizon. */
DEED_MUST_CHECK deed_status horizon_check(struct store *store, uint64_t position, bool backwards,
                                          struct deed_error *err);

/* Removals may have moved it: look again. */
void horizon_forget(struct store *store);

/* append.c. Close the active segment now. As log_roll. */
DEED_MUST_CHECK deed_status store_roll(struct store *store, struct deed_error *err);

/* compact.c */
void compaction_init(struct store *store);
void compaction_done(struct store *store); /* the compactor has stopped */
uint64_t compactor_step(void *store);

/* condition.c. Check with the group included. DEED_CONFLICT fills position and revision. */
DEED_MUST_CHECK deed_status condition_check(struct store *store, const struct deed_condition *c,
                                            enum append_writer writer, struct deed_error *err);

/* check.c */
DEED_MUST_CHECK deed_status append_check(const struct deed_limits *limits,
                                         const struct deed_append *append,
                                         enum append_writer writer, uint64_t *out_size,
                                         struct deed_error *err);
/* Does an id stand twice in one stream in this append? `out_id`, unless NULL: which. */
DEED_MUST_CHECK deed_status append_ids_repeat(const struct deed_append *append, bool *out_repeat,
                                              deed_uuid *out_id, struct deed_error *err);

/* append.c */
uint64_t committer_step(void *store);
DEED_MUST_CHECK deed_status store_append_as(struct store *store, const struct deed_append *append,
                                            enum append_writer writer,
                                            struct deed_appended *out_appended,
                                            struct deed_error *err);
/* terms.c, with `commit_lock`. Before each request: see the newest view, and keep what was looked up
 * in it. */
void terms_renew(struct store *store);
/* The term's postings, with the group; itself until the next call, a copy until terms_renew. NULL:
 * out of memory. */
struct postings *terms_get(struct store *store, enum index_kind kind, deed_str term);
/* Positions were taken back, or the view is to go. */
void terms_forget(struct store *store);

/* sealer.c: the actor's step; and the committer's wait before it begins another segment. */
uint64_t sealer_step(void *store);
void sealer_wait(void *store);
/* append.c: commit what is queued, and answer it. */
void committer_drain(struct store *store);

#endif
