/* store.h - the event store: append with conditions, read, follow.
 *
 * One committer assigns positions and revisions and checks conditions; any number of readers run
 * beside it without locks, up to the published end. The values are deedbook.h's own, and so are
 * the statuses unless said otherwise. */
#ifndef STORE_STORE_H
#define STORE_STORE_H

#include "base/arena.h"
#include "base/buf.h"
#include "base/text.h"
#include "os/os.h"

struct store;

struct store_options {
    struct deed_limits limits; /* zeros: defaults */
    uint64_t segment_size;     /* 0: 64 MiB */
    bool read_only;
    bool must_exist;
    bool unsafe_no_sync;
    bool accept_losses; /* go on without damaged events: writes down which, see deedbook repair */
    bool no_threads; /* the caller repeats store_step: the simulator */
    uint64_t cache_size; /* bytes for blocks of the index's files and their filters; 0: 48 MiB */
    uint32_t open_file_count_max; /* of the log, for reading; those in use may be more. 0: 64 */
    /* For tests: only these bits of the index's hashes are left, so that terms collide. 0: all. */
    uint64_t index_hash_mask;
};

/* Fill zeros with the defaults of deedbook.h. */
void store_limits_default(struct deed_limits *limits);

/* As deed_open. `os` must outlive the store. */
DEED_MUST_CHECK deed_status store_open(struct os *os, const char *directory,
                                       const struct store_options *options,
                                       struct store **out_store, struct deed_error *err);
/* Commits what is queued, writes the commit mark. Accepts NULL. No cursors may be open. */
void store_close(struct store *store);

struct os *store_os(struct store *store);
/* The data directory: others keep their files in directories of their own inside it. */
struct os_dir *store_dir(struct store *store);
const struct deed_limits *store_limits(const struct store *store);
void store_info(struct store *store, struct deed_info *out_info);
uint64_t store_position(struct store *store); /* the published end; cheap */

/* As deed_append and deed_append_async. */
DEED_MUST_CHECK deed_status store_append(struct store *store, const struct deed_append *append,
                                         struct deed_appended *out_appended,
                                         struct deed_error *err);
DEED_MUST_CHECK deed_status store_submit(struct store *store, const struct deed_append *append,
                                         deed_append_done *done, void *context,
                                         struct deed_error *err);
/* For clients of KurrentDB, whose protocol promises more of the bytes and less of what they mean. What
 * differs from store_submit:
 *
 *   data      is not checked: who says here that it is JSON has looked
 *   metadata  any bytes
 *   $$NAME    holds any events; what is no valid $metadata counts as none, and the newest one counts
 *   ids       one may stand twice in an append; a retry of that is a DEED_CONFLICT
 *   events    may be none: the conditions are checked, and the answer says where the stream is that the
 *             first one names (revision DEED_NONE: nowhere)
 *   DEED_EXPECT_EXISTS  also holds for a stream that has metadata only; where it does not for a
 *             soft-deleted one, err->revision is the last that was written */
DEED_MUST_CHECK deed_status store_submit_foreign(struct store *store,
                                                 const struct deed_append *append,
                                                 deed_append_done *done, void *context,
                                                 struct deed_error *err);
/* The same for a thread that has nothing else to do: when no other append is under way, the disk is
 * fast and no new segment is needed, this thread commits it, `done` is called before this returns,
 * and two switches of threads are saved. It may take a sync's time, some 0.1 milliseconds. */
DEED_MUST_CHECK deed_status store_submit_here(struct store *store, const struct deed_append *append,
                                              deed_append_done *done, void *context,
                                              struct deed_error *err);
DEED_MUST_CHECK deed_status store_submit_foreign_here(struct store *store,
                                                      const struct deed_append *append,
                                                      deed_append_done *done, void *context,
                                                      struct deed_error *err);
/* Check what store_append would refuse whatever the store holds: DEED_INVALID, DEED_TOO_LARGE. */
DEED_MUST_CHECK deed_status store_check(struct store *store, const struct deed_append *append,
                                        struct deed_error *err);
/* As deed_get_metadata, appended to `out`, and deed_set_metadata. */
DEED_MUST_CHECK deed_status store_get_metadata(struct store *store, deed_str stream,
                                               struct buf *out, uint64_t *out_revision,
                                               struct deed_error *err);
DEED_MUST_CHECK deed_status store_set_metadata(struct store *store, deed_str stream,
                                               deed_bytes json, enum deed_expect expect,
                                               uint64_t revision, deed_str actor,
                                               struct deed_appended *out_appended,
                                               struct deed_error *err);

/* The last event of a stream that is closed for good. */
#define STORE_TOMBSTONE_TYPE "$streamDeleted"

DEED_MUST_CHECK deed_status store_delete_stream(struct store *store, deed_str stream,
                                                enum deed_expect expect, uint64_t revision,
                                                bool tombstone, deed_str actor,
                                                struct deed_appended *out_appended,
                                                struct deed_error *err);

/* As clients of KurrentDB delete: a stream that is softly deleted already is deleted again; one that was
 * never written may be closed for good; and so may the system's, but not $$NAME.
 *
 *   DEED_CONFLICT  it is not as expected, or (softly) was never written: err->revision.
 *   DEED_DELETED   it has a tombstone, or it is expected to exist and is softly deleted. */
DEED_MUST_CHECK deed_status store_delete_foreign(struct store *store, deed_str stream,
                                                 enum deed_expect expect, uint64_t revision,
                                                 bool tombstone,
                                                 struct deed_appended *out_appended,
                                                 struct deed_error *err);

/* ---- reading: the cursor is deedbook.h's ---------------------------------------------------- */

/* Where the event stands in the stream that was read: in a virtual one its place there. */
static inline uint64_t event_revision_read(const struct deed_event *event)
{
    return event->link_stream.ptr != NULL ? event->link_revision : event->revision;
}

DEED_MUST_CHECK deed_status store_read(struct store *store, const struct deed_read_options *options,
                                       struct deed_cursor **out_cursor, struct deed_error *err);
DEED_MUST_CHECK deed_status cursor_next(struct deed_cursor *cursor, struct deed_event *out_event,
                                        struct deed_error *err);
uint64_t cursor_position(const struct deed_cursor *cursor);
/* A stream's cursor: what store_stream would have said when it was opened, without looking again.
 * false: the cursor is another's, or the stream was not there yet. */
bool cursor_stream(const struct deed_cursor *cursor, struct deed_stream_info *out_info);
DEED_MUST_CHECK deed_status cursor_wait(struct deed_cursor *cursor, uint32_t timeout_ms,
                                        struct deed_error *err);
void cursor_close(struct deed_cursor *cursor);

/* "$ce-…", "$et-…", "$bc-…", "$streams": deedbook.h says what they are. */
bool store_is_virtual(deed_str stream);
/* The id of a place in a virtual stream: a UUID of version 5 over "STREAM@REVISION", with the log's id
 * as its namespace. */
deed_uuid store_link_id(struct store *store, deed_str stream, uint64_t revision);

/* Links: events that stand for another one. Their data is "REVISION@STREAM", and the store keeps them as
 * any event. */
#define STORE_LINK_TYPE         "$>"
#define STORE_LINK_CONTENT_TYPE "application/octet-stream"
/* The longest name is the format's, whatever the limit is today. */
#define STORE_LINK_DATA_SIZE_MAX (U64_TEXT_SIZE + 1 + UINT16_MAX)

/* Where a link leads; `out_stream` borrows its data. false: nowhere. */
DEED_MUST_CHECK bool store_link_parse(deed_bytes data, deed_str *out_stream,
                                      uint64_t *out_revision);
/* An event that was read from a virtual stream, as the link that KurrentDB would have stored there. It
 * borrows the event, and `data`, where its own is written. */
struct deed_event store_link_event(struct store *store, const struct deed_event *event,
                                   char data[STORE_LINK_DATA_SIZE_MAX]);

DEED_MUST_CHECK deed_status store_stream(struct store *store, deed_str stream,
                                         struct deed_stream_info *out_info, struct deed_error *err);
DEED_MUST_CHECK deed_status store_position_at(struct store *store, int64_t time_ns,
                                              uint64_t *out_position, struct deed_error *err);
/* When the event at `position` was committed. DEED_NOT_FOUND past the end. */
DEED_MUST_CHECK deed_status store_recorded_at(struct store *store, uint64_t position,
                                              int64_t *out_time_ns, struct deed_error *err);

/* The first event of users' that is stored still, if any before it was removed; else 0. If none is
 * stored any more: the next position. */
DEED_MUST_CHECK deed_status store_horizon(struct store *store, uint64_t *out_horizon,
                                          struct deed_error *err);

/* Find the commit that an idempotency key made. DEED_NOT_FOUND: none. `out_request_hash` gets the
 * 32 bytes that came with it; `out_first` and `out_last` are its positions. */
DEED_MUST_CHECK deed_status store_find_key(struct store *store, deed_str key,
                                           uint8_t out_request_hash[32], uint64_t *out_first,
                                           uint64_t *out_last, struct deed_error *err);

/* Wait until the published end is at or past `position`. DEED_TIMEOUT, DEED_STOPPED. */
DEED_MUST_CHECK deed_status store_wait(struct store *store, uint64_t position, uint32_t timeout_ms,
                                       struct deed_error *err);

/* Call `changed` after each publication, from the committer's thread; it must not block. One
 * watcher object, owned by the caller, until store_unwatch returns. */
struct store_watch {
    void (*changed)(void *context, uint64_t position);
    void *context;
    struct store_watch *next; /* private */
};
void store_watch(struct store *store, struct store_watch *watch);
void store_unwatch(struct store *store, struct store_watch *watch);

/* Whole commits as they are on disk (docs/format/log.md), without padding and with zeros for the
 * checksum (what shows that they are whole is their own hash), from the commit that
 * holds position `after` + 1; appended to `out`, at least one, until `size_wanted` is reached.
 * DEED_END: nothing after it yet. `*out_position`: the last position that was added. */
DEED_MUST_CHECK deed_status store_read_commits(struct store *store, uint64_t after,
                                               size_t size_wanted, struct buf *out,
                                               uint64_t *out_position, struct deed_error *err);

/* ---- care ----------------------------------------------------------------------------------- */

struct store_damage {
    uint32_t segment;
    uint64_t offset, size;                    /* bytes in the segment's file */
    uint64_t first_position, last_position;   /* lost or unreadable; DEED_NONE: none */
    bool accepted;                            /* by a repair: not counted as damage any more */
    char what[160];
};

struct store_verify_report {
    uint64_t commits, events, bytes; /* checked and good */
    uint64_t damage_count, accepted_count;
    uint8_t chain_hash[32];
};

/* Read every byte of the log again, check every checksum, leaf and link of the chain. Damage is
 * told one by one and does not stop it. `progress` (may be NULL) returns false to stop early
 * (DEED_STOPPED). DEED_CORRUPT: damage was found; DEED_OK: none. */
DEED_MUST_CHECK deed_status store_verify(struct store *store,
                                         void (*damage)(void *, const struct store_damage *),
                                         bool (*progress)(void *, uint64_t done, uint64_t all),
                                         void *context, struct store_verify_report *out_report,
                                         struct deed_error *err);

/* Ask for a compaction, or for the erasure of a stream, as deed_compact and deed_erase do, without
 * waiting for the end: an actor of the store's does it. One at a time. */
DEED_MUST_CHECK deed_status store_compact(struct store *store,
                                          const struct deed_compact_options *options,
                                          struct deed_error *err);
DEED_MUST_CHECK deed_status store_erase(struct store *store, deed_str stream, deed_str actor,
                                        struct deed_error *err);
void store_compaction(struct store *store, struct deed_compaction *out);
/* Have the compaction of that number end behind the segment that it is at: DEED_STOPPED is what becomes
 * of it then, and what it did counts. An erasure goes on: half of one would be no erasure.
 *
 *   DEED_NOT_FOUND  it does not run. DEED_INVALID: it is an erasure. */
DEED_MUST_CHECK deed_status store_compaction_stop(struct store *store, uint64_t number,
                                                  struct deed_error *err);
/* Wait for the end of the one that runs; its trouble is the answer. */
DEED_MUST_CHECK deed_status store_compaction_wait(struct store *store,
                                                  struct deed_compaction *out,
                                                  struct deed_error *err);

/* Counters since opening, for /metrics. Times in nanoseconds. */
#define STORE_HISTOGRAM_BUCKETS 24 /* bucket i counts values up to 2^i microseconds */
struct store_histogram {
    uint64_t buckets[STORE_HISTOGRAM_BUCKETS + 1]; /* the last: longer than all */
    uint64_t count, sum_ns;
};
struct store_metrics {
    uint64_t appends, append_events, append_bytes, appends_refused, appends_failed;
    uint64_t groups, reads, read_events, read_bytes;
    uint64_t queue_count, queue_bytes; /* now */
    uint64_t backups, backups_failed, backup_bytes; /* made; not; copied by those that were */
    uint64_t compactions, compactions_failed; /* erasures, too */
    uint64_t events_removed, bytes_reclaimed; /* by them */
    uint64_t segments_sealed, segments_waiting; /* now: sealed; closed, and not sealed yet */
    uint64_t seals, seal_failures;            /* segments sealed or rewritten; attempts that failed */
    uint64_t runs, runs_in_memory, run_memory; /* of the index, now; bytes of those in memory */
    uint64_t runs_written, runs_merged, runs_rebuilt, run_failures;
    bool seal_failing, run_failing; /* the last attempt did */
    uint64_t cache_size, cache_hits, cache_misses; /* blocks of the index and of sealed segments */
    uint64_t files_open;                           /* of both, held open */
    struct store_histogram append, sync; /* from submission to answer; the device's part */
};
void store_get_metrics(struct store *store, struct store_metrics *out_metrics);

/* One step of each of the store's actors, without threads (no_threads). true: something was done. */
bool store_step(struct store *store);

#endif
