/* log.h - the log: segments of commits, one writer, many readers.
 *
 * The writer gathers commits into a group, writes and syncs the group, then publishes it. Readers
 * see what is published, without locks. docs/format/log.md is normative for the bytes. */
#ifndef LOG_LOG_H
#define LOG_LOG_H

#include "log/commit.h"
#include "log/mark.h"
#include "os/os.h"

struct log;
struct file_cache;
struct block_cache;

#define LOG_DIR_NAME "log" /* in the data directory */

struct log_options {
    uint64_t segment_size; /* bytes; a larger commit gets a larger segment */
    bool read_only;        /* write nothing, repair nothing */
    bool no_sync;          /* unsafe: leave out the syncs of groups */
    bool accept_losses;    /* write down the damage that is found as accepted: appends go on */
    struct file_cache *files;  /* outlives the log; NULL: one of its own */
    struct block_cache *cache; /* outlives the log; NULL: none. For tables of sealed segments */
    /* May be NULL. Called by the writer before it begins another segment, with an empty group: the
     * time to wait for who seals, when log_backlog is long. */
    void (*before_segment)(void *context);
    void *context;
};

/* Where a commit lies. */
struct commit_ref {
    uint64_t first_position;
    int64_t recorded_at_ns;
    uint64_t offset;
    uint32_t segment; /* number */
    uint32_t size;
    uint32_t event_count;
};

/* Acknowledged events that cannot be read: positions first to last (DEED_NONE: no events, only
 * bytes), in a segment's file. */
struct log_damage {
    uint32_t segment;
    uint64_t offset, size;
    uint64_t first_position, last_position;
    bool accepted;    /* somebody said that the log may go on without it */
    const char *what; /* static text */
};

/* What opening and verifying tell, in the log's order. */
struct log_visitor {
    void *context;
    /* May be NULL. Opening knows which log it is, and has told nothing yet. */
    void (*begin)(void *context, deed_uuid log_id);
    /* A good commit. Another status than DEED_OK stops and is passed on. */
    deed_status (*commit)(void *context, const struct commit *commit, const struct commit_ref *ref,
                          struct deed_error *err);
    deed_status (*damage)(void *context, const struct log_damage *damage, struct deed_error *err);
    /* May be NULL: all are. Opening asks of each sealed segment, by its number and its first and last
     * position, whether its commits are to be told; of one that is not sealed they always are. */
    bool (*wanted)(void *context, uint32_t segment, uint64_t first, uint64_t last);
    /* May be NULL. Bytes done and in all; false stops with DEED_STOPPED. */
    bool (*progress)(void *context, uint64_t done, uint64_t all);
};

/* Open the log in `dir`, made if it is empty, and recover it: afterwards what is published is on
 * the device. Damage is told to the visitor and leaves the log readable but not writable.
 *
 *   DEED_CORRUPT  not even the log's identity can be read.
 *   DEED_TOO_NEW, DEED_IO, DEED_FULL, DEED_NO_MEMORY, and what the visitor returns. */
DEED_MUST_CHECK deed_status log_open(struct os *os, struct os_dir *dir,
                                     const struct log_options *options,
                                     const struct log_visitor *visitor, struct log **out_log,
                                     struct deed_error *err);
void log_close(struct log *log); /* writes the mark; accepts NULL */

deed_uuid log_id(const struct log *log);
uint64_t log_epoch(const struct log *log);
uint64_t log_end(const struct log *log); /* newest published position; 0: none */
/* Where the published log ends, as of one moment: its newest commit, and the place behind it. */
struct log_head {
    uint64_t position; /* 0: there is nothing yet */
    int64_t recorded_at_ns;
    uint8_t hash[SHA256_SIZE];
    uint32_t segment; /* of that commit, or a newer one that is still empty */
    uint64_t offset;  /* in its file; zeros follow up to the next sector boundary */
};
void log_get_head(struct log *log, struct log_head *out_head);
/* The first mark of a copy of the log that ends there. */
void log_mark_of(const struct log *log, const struct log_head *head, struct mark *out_mark);
/* The hash of the newest published commit. */
void log_chain_hash(struct log *log, uint8_t out[SHA256_SIZE]);
/* NULL while the log can be written, else why not (static or owned by the log). */
const char *log_stopped(const struct log *log);
/* Take no more appends; the first reason is kept. */
void log_stop(struct log *log, const char *format, ...) DEED_PRINTF(2, 3);
uint64_t log_segment_count(struct log *log);
/* The number of the segment that is written to; 0: none yet. The writer's. */
uint32_t log_active(const struct log *log);
uint64_t log_size(struct log *log); /* bytes of its files up to the published end, about */

/* ---- writing: one thread -------------------------------------------------------------------- */

/* Make room for a commit of at most `size` bytes in the group.
 *
 *   DEED_BUSY  the group must be written first.
 *   DEED_FULL     the disk has no room for a new segment. Nothing changed.
 *   DEED_STOPPED  the log takes no more appends, maybe since a new segment could not be made.
 *   DEED_NO_MEMORY */
DEED_MUST_CHECK deed_status log_reserve(struct log *log, uint64_t size, struct deed_error *err);

/* Would log_reserve take a commit of that size without a new group or a new segment? */
bool log_has_room(const struct log *log, uint64_t size);

/* The position that the next event gets, and when the next commit is recorded. */
uint64_t log_next_position(const struct log *log);
int64_t log_next_recorded_at(struct log *log);

/* After log_reserve: encode events into the buffer this returns, then end the commit. */
struct buf *log_commit_begin(struct log *log);
DEED_MUST_CHECK deed_status log_commit_end(struct log *log, uint32_t event_count,
                                           int64_t recorded_at_ns,
                                           const uint8_t (*leaves)[SHA256_SIZE],
                                           struct deed_error *err);
/* Forget the commit that was begun. */
void log_commit_cancel(struct log *log);

/* Write the group and sync it. The group stays readable to the writer until log_publish.
 *
 *   DEED_UNKNOWN  it failed half way: the log is stopped.
 *   DEED_FULL     the disk has no room.
 *   DEED_STOPPED, DEED_NO_MEMORY
 *                 as with DEED_FULL nothing was written: log_forget the group. */
DEED_MUST_CHECK deed_status log_write(struct log *log, struct deed_error *err);
/* Show the written group to readers and begin the next. */
void log_publish(struct log *log);
/* Drop the group that was not written. */
void log_forget(struct log *log);
/* How many commits the group holds, and the i-th. */
size_t log_group_commits(const struct log *log);
DEED_MUST_CHECK deed_status log_group_commit(struct log *log, size_t i, struct commit *out_commit,
                                             struct deed_error *err);

struct log_reader;
/* Decode the event at `position`: a published one through the reader, from any thread; one of the
 * group from the writer's thread only. It is valid until the reader's or the writer's next call;
 * `arena` keeps the tags. `out_commit` may be NULL. As log_reader_event. */
DEED_MUST_CHECK deed_status log_event(struct log *log, struct log_reader *reader,
                                      uint64_t position, struct arena *arena,
                                      struct deed_event *out_event, struct commit *out_commit,
                                      struct deed_error *err);

/* Grow the active segment by a step of zeros, if it is due; and write the mark, if it is due. For
 * one background actor. Answers how long to wait, as actor_step does. */
uint64_t log_keep(struct log *log);
/* After log_publish: was log_keep told to wait for ever? Then wake its actor; says so once. */
bool log_keeper_due(struct log *log);

/* ---- reading: any thread -------------------------------------------------------------------- */

/* What one reader has at hand: a window of bytes, and the commit in it that was looked at last. For
 * one thread at a time. It keeps no file and no memory of the log busy between calls, and goes on by
 * position whatever becomes of the files. */
struct log_reader *log_reader_create(struct log *log); /* NULL: out of memory */
void log_reader_destroy(struct log_reader *reader);    /* accepts NULL; before log_close */

/* So many bytes from each place on will probably be asked for: read them in one go. Without this it
 * reads ahead when it finds that reading goes straight on. */
void log_reader_expect(struct log_reader *reader, size_t size);
/* Nothing is asked for now, maybe for long: what a large read took of memory goes back, and what it gave
 * is not valid any more. Cheap when there is nothing to give. */
void log_reader_rest(struct log_reader *reader);
/* Bytes read from files since the last call, for metrics. */
uint64_t log_reader_bytes(struct log_reader *reader);

/* The checked commit that holds `position`; `out_bytes` (may be NULL): all of it, head included.
 * Valid until the next call. Going on to the next commit costs no look-up, and a position of the
 * commit at hand costs nothing.
 *
 *   DEED_NOT_FOUND  past the published end, or 0.
 *   DEED_CORRUPT    this position cannot be read, err->position names it: see log_lost_around.
 *   DEED_IO, DEED_NO_MEMORY */
DEED_MUST_CHECK deed_status log_reader_load(struct log_reader *reader, uint64_t position,
                                            struct commit *out_commit, deed_bytes *out_bytes,
                                            struct deed_error *err);
/* Where the commit that was loaded last stands: its offset, logical in a sealed segment. */
uint64_t log_reader_place(const struct log_reader *reader, uint32_t *out_segment);
/* The event at `position`: its slices are valid until the next call, its tags as long as `arena`.
 * As log_reader_load. */
DEED_MUST_CHECK deed_status log_reader_event(struct log_reader *reader, uint64_t position,
                                             struct arena *arena, struct deed_event *out_event,
                                             struct deed_error *err);

/* After DEED_CORRUPT: the positions around this one that are known not to be readable, so where
 * reading can go on. */
void log_lost_around(struct log *log, uint64_t position, uint64_t *out_first, uint64_t *out_last);

/* The first position recorded after `time_ns`; the published end + 1 if none is. */
DEED_MUST_CHECK deed_status log_find_time(struct log *log, int64_t time_ns, uint64_t *out_position,
                                          struct deed_error *err);
/* When `position` was recorded. DEED_NOT_FOUND past the end, DEED_CORRUPT: it is lost. */
DEED_MUST_CHECK deed_status log_recorded_at(struct log *log, uint64_t position,
                                            int64_t *out_time_ns, struct deed_error *err);

/* ---- segments: any thread ------------------------------------------------------------------- */

enum log_segment_state {
    LOG_ACTIVE,  /* written to */
    LOG_CLOSED,  /* full, and not sealed: not yet, or because of damage */
    LOG_SEALED,  /* an immutable file of its own format (sealed.h) */
    LOG_MISSING, /* there is no file */
};

struct log_segment_info {
    uint32_t number, generation; /* generation: of a sealed one, from 1 */
    enum log_segment_state state;
    bool damaged;                          /* opening or sealing found damage in it */
    bool settled; /* a rewrite since opening made it, and what it was made from is gone durably */
    uint64_t first_position, last_position; /* last 0: it has none */
};

/* About one. DEED_NOT_FOUND: there is none of this number. */
DEED_MUST_CHECK deed_status log_segment_info(struct log *log, uint32_t number,
                                             struct log_segment_info *out_info,
                                             struct deed_error *err);
/* The hash of a segment's last commit, as its footer or the next segment's header says. DEED_NOT_FOUND:
 * neither does. */
DEED_MUST_CHECK deed_status log_segment_hash(struct log *log, uint32_t number,
                                             uint8_t out_hash[SHA256_SIZE],
                                             struct deed_error *err);
/* Tell all segments, in order. */
void log_each_segment(struct log *log,
                      void (*each)(void *context, const struct log_segment_info *info),
                      void *context);
/* What a sealed segment's footer says. DEED_NOT_FOUND: it is not sealed. */
struct sealed_footer;
DEED_MUST_CHECK deed_status log_footer(struct log *log, uint32_t segment,
                                       struct sealed_footer *out_footer, struct deed_error *err);
/* Tell the commits of a segment, checked, and the damage in it, as log_open does; positions behind
 * the published end are left out. DEED_NOT_FOUND: there is no such segment. */
DEED_MUST_CHECK deed_status log_scan_segment(struct log *log, uint32_t segment,
                                             const struct log_visitor *visitor,
                                             struct deed_error *err);

/* ---- sealing: one background actor ---------------------------------------------------------- */

/* One step of sealing the oldest closed segment: read some, write some, sync. Answers how long to
 * wait, as actor_step does. After a failure it waits, and tries again from the beginning. */
uint64_t log_seal(struct log *log);
/* Has a segment been closed? Then wake the actor, which may wait for ever; says so once. */
bool log_sealer_due(struct log *log);

struct log_seal_state {
    uint64_t waiting; /* closed segments that can be sealed */
    uint64_t sealed;  /* segments that are */
    uint64_t rounds, failures; /* since opening: segments sealed or rewritten; attempts that failed */
    bool failing;              /* the last attempt at sealing did */
    char why[DEED_MESSAGE_SIZE];
};
void log_seal_get(struct log *log, struct log_seal_state *out_state);
/* Closed segments that wait, when the last attempt did not fail: what to wait for. Cheap. */
uint64_t log_backlog(struct log *log);

/* Close the active segment now, if anything is in it: the next commit begins another one. The
 * writer's thread, with an empty group. As log_reserve. */
DEED_MUST_CHECK deed_status log_roll(struct log *log, struct deed_error *err);

/* What is to become of the events of a sealed segment. */
struct log_rewrite {
    /* May be NULL: all are kept. Called in the log's order, maybe more than once for an event. */
    enum event_fate (*decide)(void *context, const struct deed_event *event);
    void *context;
    int compress_level; /* 0: not; else zstd's, 1 to 19 */
};
/* Write a sealed segment anew, as its next generation, durably; the old file is removed. Its hashes,
 * positions and terms stay what they are. Any thread; one at a time, sealing waits meanwhile.
 *
 *   DEED_NOT_FOUND  there is no such segment, or it is not sealed.
 *   DEED_CORRUPT    it is damaged, and stays as it is.
 *   DEED_STOPPED    the log takes no more writes.
 *   DEED_FULL, DEED_IO, DEED_NO_MEMORY: it stays as it is. */
DEED_MUST_CHECK deed_status log_rewrite(struct log *log, uint32_t segment,
                                        const struct log_rewrite *how, struct deed_error *err);

/* Read everything published again and check all of it, the chain included. As log_open's visitor.
 * DEED_OK also with damage. */
DEED_MUST_CHECK deed_status log_verify(struct log *log, const struct log_visitor *visitor,
                                       struct deed_error *err);

#endif
