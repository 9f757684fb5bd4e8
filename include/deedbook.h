/* deedbook.h - an event store and CQRS runtime in your process.
 *
 * In teaching order:
 *
 *   1. Values     slices, ids, statuses, errors
 *   2. Opening    deed_open, deed_close
 *   3. Appending  deed_append: events, conditions, idempotency
 *   4. Reading    deed_read, deed_next: a stream, or the whole log, filtered
 *   5. Following  deed_wait: the same cursor, live
 *   6. Deciding   deed_use_domain, deed_decide: commands become events
 *   7. Projecting deed_add_projection, deed_query: events become rows
 *   8. Caring     deed_backup, deed_check_backup, deed_restore
 *
 * Threads: every function may be called from any thread, but one cursor belongs to one thread
 * at a time. Nothing here prints, logs or exits.
 *
 * Ownership: what you pass in is borrowed for the call. What comes out as a slice is borrowed too;
 * each function says for how long. */
#ifndef DEEDBOOK_H
#define DEEDBOOK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#ifdef __cplusplus
extern "C" {
#endif

#define DEED_VERSION "0.1.0"

#if defined(__GNUC__)
#define DEED_MUST_CHECK __attribute__((warn_unused_result))
#define DEED_PRINTF(format_at, arguments_at) \
    __attribute__((format(printf, format_at, arguments_at)))
#define DEED_PUBLIC __attribute__((visibility("default")))
#else
#define DEED_MUST_CHECK
#define DEED_PRINTF(format_at, arguments_at)
#define DEED_PUBLIC
#endif

/* ---- 1. Values ---------------------------------------------------------------------------- */

typedef struct {
    const uint8_t *ptr;
    size_t len;
} deed_bytes; /* borrowed */

typedef struct {
    const char *ptr;
    size_t len;
} deed_str; /* borrowed UTF-8, no NUL; ptr is NULL for "none" */

typedef struct {
    uint8_t bytes[16];
} deed_uuid; /* all zero: not given */

/* A deed_str over a literal or an array, and over a NUL-terminated string. */
#define DEED_STR(literal) ((deed_str){"" literal, sizeof(literal) - 1})
static inline deed_str deed_str_of(const char *text)
{
    return (deed_str){text, text == NULL ? 0 : strlen(text)};
}
static inline bool deed_str_equal(deed_str a, deed_str b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.ptr, b.ptr, a.len) == 0);
}
static inline deed_bytes deed_bytes_of(deed_str s)
{
    return (deed_bytes){(const uint8_t *)s.ptr, s.len};
}
/* printf("%.*s", DEED_FMT(s)) */
#define DEED_FMT(s) (int)(s).len, (s).ptr == NULL ? "" : (const char *)(s).ptr

/* "No revision", "no position", "no limit": what a number is when there is none. */
#define DEED_NONE UINT64_MAX

/* Each status, its HTTP status, its gRPC code, and what it means to a caller. */
#define DEED_STATUS_MAP(X)                                                     \
    X(DEED_OK, 200, 0, "ok")                                                   \
    X(DEED_END, 200, 0, "nothing more to read now")                            \
    X(DEED_TIMEOUT, 504, 4, "the time allowed has passed")                     \
    X(DEED_MISUSE, 400, 3, "the call is not valid here")                       \
    X(DEED_INVALID, 400, 3, "the input is malformed")                          \
    X(DEED_TOO_LARGE, 413, 3, "the input is over a limit")                     \
    X(DEED_NOT_FOUND, 404, 5, "there is no such thing")                        \
    X(DEED_CONFLICT, 409, 9, "a condition does not hold")                      \
    X(DEED_STALE, 412, 9, "the stream is not at the revision asked for")       \
    X(DEED_GONE, 410, 11, "the events asked for are no longer stored")         \
    X(DEED_DELETED, 410, 5, "the stream is deleted")                           \
    X(DEED_REJECTED, 422, 9, "the domain rejects the command")                 \
    X(DEED_BUSY, 503, 14, "a queue is full")                                   \
    X(DEED_STOPPED, 503, 14, "that part is stopped")                           \
    X(DEED_NO_MEMORY, 503, 8, "out of memory")                                 \
    X(DEED_FULL, 507, 8, "no room left on the disk")                           \
    X(DEED_IO, 500, 13, "storage failed")                                      \
    X(DEED_UNKNOWN, 500, 2, "the outcome is unknown")                          \
    X(DEED_CORRUPT, 500, 15, "stored bytes are damaged")                       \
    X(DEED_TOO_NEW, 500, 9, "written by a newer version")                      \
    X(DEED_LOCKED, 409, 9, "in use by another process")                        \
    X(DEED_DOMAIN, 500, 13, "the domain's code failed")

typedef enum {
#define DEED_STATUS_ENUM(name, http, grpc, text) name,
    DEED_STATUS_MAP(DEED_STATUS_ENUM)
#undef DEED_STATUS_ENUM
        DEED_STATUS_COUNT
} deed_status;

#define DEED_MESSAGE_SIZE 512
#define DEED_CODE_SIZE 64

/* What went wrong. Every function that takes one accepts NULL. Written only on failure. */
struct deed_error {
    deed_status status;
    char message[DEED_MESSAGE_SIZE]; /* lower case, names the object and the value */
    char code[DEED_CODE_SIZE];       /* a rejection's code, else empty */
    uint64_t condition;              /* index of the condition that failed, or DEED_NONE */
    uint64_t position;               /* the event that caused a conflict, or DEED_NONE */
    uint64_t revision;               /* the stream's actual revision, or DEED_NONE: no events */
};

DEED_PUBLIC const char *deed_status_name(deed_status status); /* "DEED_CONFLICT" */
DEED_PUBLIC const char *deed_status_text(deed_status status);
DEED_PUBLIC int deed_status_http(deed_status status);
DEED_PUBLIC int deed_status_grpc(deed_status status);
DEED_PUBLIC const char *deed_version(void);

/* ---- 2. Opening --------------------------------------------------------------------------- */

struct deed;

/* Every limit; zero means the default that stands beside it. */
struct deed_limits {
    uint64_t event_size_max;     /* data + metadata + names of one event, bytes: 16 MiB */
    uint64_t commit_size_max;    /* one append, bytes: 32 MiB */
    uint32_t commit_count_max;   /* events in one append: 65,536 */
    uint32_t name_size_max;      /* stream, type, tag, id and key names, bytes: 1,024 */
    uint32_t tag_count_max;      /* tags of one event: 64 */
    uint32_t condition_count_max; /* conditions of one append: 1,024 */
    uint32_t json_depth_max;     /* nesting of JSON data: 64 */
    uint32_t queue_count_max;    /* appends waiting for the committer: 65,536 */
    uint64_t queue_size_max;     /* bytes waiting for the committer: 256 MiB */
};

struct deed_options {
    struct deed_limits limits;
    uint64_t segment_size; /* bytes; 0: 64 MiB */
    uint64_t cache_size;   /* bytes for what was read of the index and of the log's tables; 0: 48 MiB */
    uint32_t open_file_count_max; /* files of the log that stay open for reading; 0: 64 */
    bool read_only;        /* open without the lock's write side: no appends, nothing is repaired */
    bool must_exist;       /* do not make a missing directory */
    /* Acknowledge before the disk has it. A power cut may then lose acknowledged events; every
     * deed_appended says unsafe. For tests and imports only. */
    bool unsafe_no_sync;
    unsigned projection_batch_max; /* events in one projection transaction; 0: 4,096 */
    const char *app; /* an app folder to load at once, or NULL (see deed_load_app) */
};

/* Open the event store in `directory`, made if missing, and lock it. Recovers what a crash left:
 * ready when this returns.
 *
 *   DEED_LOCKED   another process has it open.
 *   DEED_CORRUPT  acknowledged events are damaged so that nothing can be served at all. Damage
 *                 that leaves a readable rest opens, and refuses appends (see deed_info).
 *   DEED_TOO_NEW  a newer version wrote it.
 *   DEED_STOPPED  a restore into it was not finished (see deed_restore).
 *   DEED_IO, DEED_NO_MEMORY, DEED_NOT_FOUND (must_exist) */
DEED_PUBLIC DEED_MUST_CHECK deed_status deed_open(const char *directory,
                                                  const struct deed_options *options,
                                                  struct deed **out_deed, struct deed_error *err);

/* Finish what was accepted, stop the projections, release the directory. Accepts NULL. All cursors
 * must be closed before. */
DEED_PUBLIC void deed_close(struct deed *deed);

struct deed_info {
    deed_uuid log_id;
    uint64_t epoch;
    uint64_t position; /* of the newest event; 1 when only the log's own first event is there */
    int64_t recorded_at_ns; /* when that was committed */
    uint64_t segment_count;
    uint64_t log_size; /* bytes on disk */
    uint64_t stream_count;
    uint8_t chain_hash[32]; /* of the newest commit */
    bool writable;          /* false after a failed write, or while damage is unrepaired */
    bool unsafe;            /* appends are acknowledged before they are durable (unsafe_no_sync) */
    char stopped_because[DEED_MESSAGE_SIZE]; /* why not writable */
    uint64_t corrupt_first, corrupt_last; /* first damaged range of positions, or DEED_NONE */
    uint64_t backup_position;  /* of the newest backup that was made since opening; 0: none was */
    int64_t backup_made_at_ns; /* when that was */
};
DEED_PUBLIC void deed_get_info(struct deed *deed, struct deed_info *out_info);

/* ---- 3. Appending ------------------------------------------------------------------------- */

/* An event to be stored. Only stream and type must be given. */
struct deed_new_event {
    deed_str stream; /* "order-1001": its category is "order" */
    deed_str type;
    deed_bytes data;       /* kept byte for byte */
    deed_bytes metadata;   /* JSON, or empty; see metadata_unchecked */
    deed_str content_type; /* empty: "application/json", and then data must be JSON */
    const deed_str *tags;
    size_t tag_count;
    deed_uuid id;    /* all zero: a version 7 UUID is made */
    int64_t time_ns; /* when it happened, UTC since 1970; 0: when it is recorded, unless has_time */
    bool has_time;   /* time_ns is meant also if it is 0 */
    deed_str correlation_id, causation_id;
    deed_str actor; /* who did it, for the audit trail */
    bool metadata_unchecked; /* the metadata may be any bytes, not only JSON */
};

enum deed_expect {
    DEED_EXPECT_ANY,
    DEED_EXPECT_REVISION, /* the stream's last event has exactly `revision` */
    DEED_EXPECT_NONE,     /* no events, or soft-deleted */
    DEED_EXPECT_EXISTS,   /* at least one readable event */
    DEED_EXPECT_DELETED,  /* soft-deleted, and not written since */
    DEED_EXPECT_TOMBSTONED, /* closed for good */
};

/* Matches an event whose type is any of `types` (none: every type) and that has all of `tags`. */
struct deed_query_item {
    const deed_str *types;
    size_t type_count;
    const deed_str *tags;
    size_t tag_count;
};

enum deed_condition_kind {
    DEED_CONDITION_STREAM,   /* `stream` is as `expect` and `revision` say */
    DEED_CONDITION_NO_MATCH, /* no event matches any of `items` after position `after` */
};

/* What must hold for an append; the Dynamic Consistency Boundary's condition and the classic
 * expected revision in one language. */
struct deed_condition {
    enum deed_condition_kind kind;
    deed_str stream;
    enum deed_expect expect;
    uint64_t revision;
    const struct deed_query_item *items; /* any of these */
    size_t item_count;
    uint64_t after; /* exclusive; 0: any match fails */
};

struct deed_append {
    const struct deed_new_event *events;
    size_t event_count;
    const struct deed_condition *conditions; /* all must hold */
    size_t condition_count;
    /* A retry with the same key gives the first answer; with another request_hash it is refused.
     * Empty: none. */
    deed_str idempotency_key;
    uint8_t request_hash[32];
    uint64_t *out_revisions; /* NULL, or room for event_count revisions; of no meaning on failure */
};

struct deed_appended {
    uint64_t first_position, position; /* of the first and the last event */
    uint64_t first_revision, revision; /* in the last event's stream */
    bool repeated; /* these events were stored before; this is the first answer */
    bool unsafe;   /* acknowledged before it was durable (unsafe_no_sync) */
};

/* Store all events or none. When this returns DEED_OK they survive a power cut.
 *
 *   DEED_INVALID    an event or condition is malformed.
 *   DEED_TOO_LARGE  a limit is exceeded; the message names it.
 *   DEED_CONFLICT   a condition does not hold (err->condition, position, revision), an event id is
 *                   known with other content, or the idempotency key with another request.
 *   DEED_DELETED    a stream has a tombstone.
 *   DEED_BUSY       the queue is full: try again. DEED_FULL: the disk is.
 *   DEED_UNKNOWN    the disk failed while this was being written: it may or may not be stored.
 *   DEED_STOPPED    an earlier failure stopped writing; nothing of this was written.
 *   DEED_IO, DEED_CORRUPT, DEED_NO_MEMORY
 *                   what must be read to decide (a stored event with the same id or key, a stream's
 *                   metadata) could not be; nothing of this was written. */
DEED_PUBLIC DEED_MUST_CHECK deed_status deed_append(struct deed *deed,
                                                    const struct deed_append *append,
                                                    struct deed_appended *out_appended,
                                                    struct deed_error *err);

/* Called once from the committer's thread; must not block. `appended` is NULL on failure, `err` on
 * success; both are valid during the call only. */
typedef void deed_append_done(void *context, const struct deed_appended *appended,
                              const struct deed_error *err);

/* The same without waiting. On DEED_OK `done` will be called exactly once, and everything `append`
 * points to must stay until then. Otherwise it is not called. */
DEED_PUBLIC DEED_MUST_CHECK deed_status deed_append_async(struct deed *deed,
                                                          const struct deed_append *append,
                                                          deed_append_done *done, void *context,
                                                          struct deed_error *err);

/* Soft-delete a stream (its events are no longer read by stream, numbering goes on if it is written
 * again), or with `tombstone` close it for good. `expect` as in a stream condition.
 *
 *   DEED_NOT_FOUND  no such stream. DEED_CONFLICT, DEED_DELETED and the rest as deed_append. */
DEED_PUBLIC DEED_MUST_CHECK deed_status deed_delete_stream(struct deed *deed, deed_str stream,
                                                           enum deed_expect expect,
                                                           uint64_t revision, bool tombstone,
                                                           deed_str actor,
                                                           struct deed_appended *out_appended,
                                                           struct deed_error *err);

/* A stream's metadata is one JSON object, kept as the newest event of stream "$$NAME". Deedbook
 * heeds these members of it; all others are yours:
 *
 *   $maxAge    seconds: older events are hidden from reads of the stream
 *   $maxCount  only so many of the newest events are shown
 *   $tb        truncate before: revisions below this are hidden. A soft delete sets it to behind the
 *              last event. 9223372036854775807: all that the stream held when this was set
 *   $acl       who may do what; kept, not heeded yet
 *
 * What is hidden is removed from disk by the next deed_compact.
 *
 * `*out_json` is yours: deed_free it; "{}" if none was set. `*out_revision` (may be NULL): of the
 * metadata, to be expected when it is set; DEED_NONE: none.
 *
 *   DEED_NOT_FOUND  neither stream nor metadata. DEED_DELETED: the stream has a tombstone.
 *   DEED_IO, DEED_CORRUPT, DEED_NO_MEMORY */
DEED_PUBLIC DEED_MUST_CHECK deed_status deed_get_metadata(struct deed *deed, deed_str stream,
                                                          char **out_json, uint64_t *out_revision,
                                                          struct deed_error *err);

/* Replace it as a whole, by `json`, kept byte for byte. `expect` and `revision` are the metadata's:
 * DEED_EXPECT_NONE if none was set. The stream need not exist yet.
 *
 *   DEED_INVALID  not a JSON object, or a member that Deedbook heeds is no whole number in its range.
 *   DEED_CONFLICT, DEED_DELETED and the rest as deed_append. */
DEED_PUBLIC DEED_MUST_CHECK deed_status deed_set_metadata(struct deed *deed, deed_str stream,
                                                          deed_bytes json, enum deed_expect expect,
                                                          uint64_t revision, deed_str actor,
                                                          struct deed_appended *out_appended,
                                                          struct deed_error *err);

/* What of a log is not wanted any more can be taken out of its sealed segments, while everything else
 * goes on: positions, revisions, conditions, ids, keys and the hash chain stay as they are.
 * docs/operations/retention.md says what readers see of it. */
struct deed_compact_options {
    int compress_level; /* zstd's, 1 to 19: compress what is rewritten or not compressed yet; 0: not */
    bool active;        /* close the segment that is being written, so that it is looked at too */
};

enum deed_compaction_state {
    DEED_COMPACTION_IDLE, /* there was none since opening */
    DEED_COMPACTION_RUNNING,
    DEED_COMPACTION_DONE,
    DEED_COMPACTION_FAILED, /* error says why; what it did until then counts */
};

struct deed_compaction {
    enum deed_compaction_state state;
    uint64_t number;                   /* of those asked for since opening, from 1 */
    bool erase;                        /* of one stream, else of the log */
    uint64_t segments, segments_done;  /* to look at, and looked at */
    uint64_t rewritten;                /* segments, of those */
    uint64_t skipped;                  /* segments, of those: damaged, so they stay as they are */
    uint64_t events_removed;           /* their content, by this one */
    uint64_t bytes_before, bytes_after; /* of the rewritten segments' files */
    char error[DEED_MESSAGE_SIZE];
};

/* Remove the content of events that streams' metadata hides ($maxAge, $maxCount, $tb), and of deleted
 * streams'. Streams of the system ("$...") keep theirs. Waits until it is done; `out` may be NULL.
 *
 *   DEED_BUSY     one is running already. DEED_INVALID: no such level. DEED_STOPPED: the log takes no
 *                 writes, or the store is closing; it can be asked for again, and goes on.
 *   DEED_FULL, DEED_IO, DEED_CORRUPT, DEED_NO_MEMORY  it was given up there; nothing is lost. */
DEED_PUBLIC DEED_MUST_CHECK deed_status deed_compact(struct deed *deed,
                                                     const struct deed_compact_options *options,
                                                     struct deed_compaction *out,
                                                     struct deed_error *err);

/* Delete the stream softly, unless it is deleted, and at once erase the content of all its events,
 * whatever segment holds them, and of its older metadata: so that not even a guess at it could be
 * checked against the chain. Names, types, tags and ids stay. Interrupted or failed, it is called
 * again: the stream may be deleted already, and only what it said that it erased stays erased.
 *
 *   DEED_NOT_FOUND  no such stream. DEED_INVALID: it is the system's.
 *   DEED_CORRUPT    a damaged segment holds events of it, and keeps them.
 *   and what deed_compact and deed_delete_stream return. */
DEED_PUBLIC DEED_MUST_CHECK deed_status deed_erase(struct deed *deed, deed_str stream,
                                                   deed_str actor, struct deed_compaction *out,
                                                   struct deed_error *err);

/* The one that runs, or the last one. */
DEED_PUBLIC void deed_get_compaction(struct deed *deed, struct deed_compaction *out);

/* ---- 4. Reading --------------------------------------------------------------------------- */

/* A stored event; every slice is valid until the next call on its cursor. */
struct deed_event {
    uint64_t position; /* in the log, from 1 */
    uint64_t revision; /* in the stream, from 0 */
    deed_uuid id;
    int64_t time_ns;        /* when it happened: the client's word */
    int64_t recorded_at_ns; /* when it was committed; never decreases along the log */
    deed_str stream, type, content_type;
    deed_bytes data, metadata;
    const deed_str *tags;
    size_t tag_count;
    deed_str correlation_id, causation_id, actor;
    deed_str idempotency_key;    /* on the first event of its commit */
    const uint8_t *request_hash; /* 32 bytes with the key, else NULL */
    /* Its content was removed: data and metadata are empty, and if it was erased causation id and
     * actor too. The rest is as it was. Only reads that ask for such events meet one. */
    bool removed;
    bool erased; /* removed, and nothing is left to check a guess at it with */
    /* Read from a virtual stream: its name, and the event's place in it; all else is the event's own.
     * ptr NULL: read from where it stands. */
    deed_str link_stream;
    uint64_t link_revision;
};

/* Each list: any of it, except tags: all of them. Empty lists do not filter. */
struct deed_filter {
    const deed_str *types, *tags, *categories, *streams, *correlation_ids;
    size_t type_count, tag_count, category_count, stream_count, correlation_id_count;
    int64_t from_time_ns, to_time_ns; /* recorded_at, from inclusive, to exclusive; 0: open */
    bool system;                      /* also streams whose name begins with '$' */
};

/* Virtual streams show events of other streams in the order of the log, and are read like any other:
 * nothing is stored for them, and nothing can be written to them, neither events nor metadata.
 *
 *   $ce-CATEGORY  the events of the category: "$ce-order" of "order-1", "order-2" ...
 *   $et-TYPE      those of the type
 *   $bc-ID        those with the correlation id
 *   $streams      the first event of each stream that is not the system's
 *
 * docs/decisions/0022-virtual-streams.md says what belongs to them, and what they do about damage. */

struct deed_read_options {
    deed_str stream; /* one stream; or ptr NULL: the log */
    /* Stream: first revision, inclusive; DEED_NONE backwards: from its end. */
    uint64_t from_revision;
    /* Log: exclusive; backwards, DEED_NONE: from its end. */
    uint64_t after_position;
    bool backwards;
    bool follow; /* at the end wait for more (forwards only) */
    /* Do not read past this position; 0 or DEED_NONE: the end. */
    uint64_t until_position;
    uint64_t count_max; /* 0: no limit */
    /* Log: which events. A stream read ignores it. */
    struct deed_filter filter;
    /* Stream: also what $maxAge, $maxCount and $tb hide, and soft-deleted streams. */
    bool ignore_retention;
    /* Also events whose content was removed, each marked so: for who must not miss that something
     * was there. The horizon is no limit then. */
    bool removed;
};

struct deed_cursor;

/* Start reading. The options are copied. Events whose content was removed are passed over; where a
 * log's first events were, its *horizon* is the first one of users' that is stored still.
 *
 *   DEED_NOT_FOUND  the stream has no events (not with follow: it then waits for them).
 *   DEED_DELETED    it has a tombstone.
 *   DEED_GONE       the log, from a place before the horizon, which is err->position: read after
 *                   the position before it, or ask for what was removed, too.
 *   DEED_INVALID    the filter names a virtual stream: no event stands in one.
 *   DEED_MISUSE     options that contradict each other. */
DEED_PUBLIC DEED_MUST_CHECK deed_status deed_read(struct deed *deed,
                                                  const struct deed_read_options *options,
                                                  struct deed_cursor **out_cursor,
                                                  struct deed_error *err);

/* The next event; its slices are valid until the next call on this cursor.
 *
 *   DEED_END      no more now. A following cursor may be asked again, see deed_wait.
 *   DEED_CORRUPT  the event at err->position is damaged; the next call goes on behind it.
 *   DEED_IO */
DEED_PUBLIC DEED_MUST_CHECK deed_status deed_next(struct deed_cursor *cursor,
                                                  struct deed_event *out_event,
                                                  struct deed_error *err);

/* Everything up to this position has been seen or did not match: go on with after_position. */
DEED_PUBLIC uint64_t deed_cursor_position(const struct deed_cursor *cursor);

DEED_PUBLIC void deed_cursor_close(struct deed_cursor *cursor); /* accepts NULL */

struct deed_stream_info {
    uint64_t revision;       /* last ever written, or DEED_NONE */
    uint64_t first_revision; /* first that a read returns, or DEED_NONE when none is */
    uint64_t position;       /* of its last event */
    bool deleted;            /* soft-deleted: nothing to read, but it may be written again */
    bool tombstoned;
    uint64_t metadata_revision; /* of $$stream, or DEED_NONE */
    uint64_t max_count;         /* 0: none */
    int64_t max_age_ns;         /* 0: none */
    uint64_t truncate_before;   /* $tb: what a soft delete, or somebody, cut off; 0: nothing */
};
/* DEED_NOT_FOUND: never written. */
DEED_PUBLIC DEED_MUST_CHECK deed_status deed_get_stream(struct deed *deed, deed_str stream,
                                                        struct deed_stream_info *out_info,
                                                        struct deed_error *err);

/* The last position whose recorded_at is at or before `time_ns`; 0: none. */
DEED_PUBLIC DEED_MUST_CHECK deed_status deed_position_at(struct deed *deed, int64_t time_ns,
                                                         uint64_t *out_position,
                                                         struct deed_error *err);

/* ---- 5. Following ------------------------------------------------------------------------- */

/* Block until a following cursor may have more, at most `timeout_ms`. DEED_TIMEOUT: it has not.
 * DEED_STOPPED: the store is closing. */
DEED_PUBLIC DEED_MUST_CHECK deed_status deed_wait(struct deed_cursor *cursor, uint32_t timeout_ms,
                                                  struct deed_error *err);

/* ---- 6. Deciding -------------------------------------------------------------------------- */

struct deed_domain; /* deedbook_domain.h: how to write one */

/* Take commands for the aggregates of `domain`, run in this process. The tables must stay.
 * DEED_INVALID: the tables are wrong, the message says where. DEED_MISUSE: there is one already. */
DEED_PUBLIC DEED_MUST_CHECK deed_status deed_use_domain(struct deed *deed,
                                                        const struct deed_domain *domain,
                                                        struct deed_error *err);

/* Load an app folder: its domain (*.so, run in this process), projections/ and queries/. */
DEED_PUBLIC DEED_MUST_CHECK deed_status deed_load_app(struct deed *deed, const char *folder,
                                                      struct deed_error *err);

struct deed_command {
    deed_str name; /* "AddLineItem" */
    deed_bytes data; /* JSON object with the command's fields */
    deed_str idempotency_key;
    bool has_if_match;  /* fail with DEED_STALE unless the aggregate is at if_match */
    uint64_t if_match;  /* DEED_NONE: it must not exist yet */
    deed_str correlation_id, causation_id, actor;
    deed_uuid id; /* the command's own id; all zero: made. Becomes its events' causation id unless
                   * one is given. */
};

struct deed_decided {
    uint64_t position;                 /* of the last event, or of the state if there were none */
    uint64_t first_revision, revision; /* of the first and last event; DEED_NONE: none at all */
    size_t event_count;                /* 0: the command changed nothing */
    bool repeated;                     /* the first answer to this idempotency key */
};

/* Run a command: check its fields, load the aggregate, decide, append; on a conflict with another
 * writer decide again, a bounded number of times.
 *
 *   DEED_NOT_FOUND  no such command. DEED_INVALID: its fields are wrong.
 *   DEED_REJECTED   the domain said no: err->code and message. DEED_STALE: if_match does not hold.
 *   DEED_CONFLICT   other writers won every retry, or the key was used for another command.
 *   DEED_DOMAIN     the domain's code failed; nothing was stored.
 *   and what deed_append returns. */
DEED_PUBLIC DEED_MUST_CHECK deed_status deed_decide(struct deed *deed,
                                                    const struct deed_command *command,
                                                    struct deed_decided *out_decided,
                                                    struct deed_error *err);

/* The state of the aggregate in `stream` as JSON, at `revision` (DEED_NONE: now). The text is
 * yours: deed_free it.
 *
 *   DEED_NOT_FOUND  no such stream or revision, or no aggregate for its category. */
DEED_PUBLIC DEED_MUST_CHECK deed_status deed_state(struct deed *deed, deed_str stream,
                                                   uint64_t revision, char **out_json,
                                                   struct deed_error *err);

/* ---- 7. Projecting and querying ----------------------------------------------------------- */

/* Keep a read model: `sql` is a projection file (docs/projections.md). It follows the log on a
 * thread of its own from now on. Its rows stay in the data directory.
 *
 *   DEED_INVALID  the file is wrong: the message has its line. */
DEED_PUBLIC DEED_MUST_CHECK deed_status deed_add_projection(struct deed *deed, deed_str sql,
                                                            struct deed_error *err);

/* Name a query: one SELECT with :parameters (docs/queries.md). */
DEED_PUBLIC DEED_MUST_CHECK deed_status deed_add_query(struct deed *deed, deed_str name,
                                                       deed_str sql, struct deed_error *err);

struct deed_parameter {
    deed_str name, value; /* text; SQLite converts it where the query compares it with a number */
};

struct deed_query_options {
    const struct deed_parameter *parameters;
    size_t parameter_count;
    uint64_t after;      /* wait until the projections have seen this position; 0: do not wait */
    uint32_t timeout_ms; /* for waiting and running; 0: 10 s */
    uint64_t position;   /* answer as of this position; 0: now */
};

/* Answer a named query: a JSON array of objects, one a row. The text is yours: deed_free it.
 * `out_position`, unless NULL: the position the answer is as of.
 *
 *   DEED_NOT_FOUND  no such query. DEED_INVALID: parameters missing or unknown, named.
 *   DEED_TIMEOUT    the read model did not get there, or the query took too long, in time.
 *   DEED_STOPPED    a projection it needs has failed. DEED_TOO_LARGE: too many rows.
 *   DEED_BUSY       a damaged part of the index is being rebuilt from the log: try again. */
DEED_PUBLIC DEED_MUST_CHECK deed_status deed_query(struct deed *deed, deed_str name,
                                                   const struct deed_query_options *options,
                                                   char **out_json, uint64_t *out_position,
                                                   struct deed_error *err);

DEED_PUBLIC void deed_free(void *memory); /* accepts NULL */

/* ---- 8. Caring ---------------------------------------------------------------------------- */

struct deed_backup_options {
    /* Read again only what was copied this time, and do not follow the chain. Unless set, every file
     * of the backup is read again: what has rotted there is found, and copied anew. */
    bool quick;
    /* Bytes done and in all, about; may be NULL. false: stop, with DEED_STOPPED. */
    bool (*progress)(void *context, uint64_t done, uint64_t all);
    void *context;
};

/* What a backup holds, and what making or restoring it took. */
struct deed_backup_report {
    deed_uuid log_id;
    uint64_t epoch;    /* of the log; after a restore: the new one */
    uint64_t position; /* every event up to this one, and none behind it */
    int64_t recorded_at_ns; /* when that was committed */
    int64_t made_at_ns;     /* when the backup was */
    uint8_t chain_hash[32]; /* of the newest commit */
    uint64_t commits, events;
    uint64_t file_count, size;           /* of the backup, bytes */
    uint64_t copied_count, copied_size;  /* this time: the others were there already */
    uint64_t removed_count;              /* files of older backups that nothing needs any more */
};

/* Copy the log into the directory `target`, made if missing, up to the position that is published
 * now, while appends go on. Once more into the same directory copies only what is new. The backup
 * before stays whole until the new one is on the device and was checked. The files hold everything
 * that the log's do: keep them as safe. `options` and `out_report` may be NULL.
 *
 *   DEED_CONFLICT  `target` holds a backup of another log, or of a later state of this one; or it
 *                  is a data directory.
 *   DEED_LOCKED    a backup is being made there.
 *   DEED_FULL      there is no room. DEED_IO: reading or writing failed. In both cases, and in all
 *                  others, the backup before is whole.
 *   DEED_CORRUPT   the log is damaged: repair or restore it first.
 *   DEED_TOO_NEW, DEED_STOPPED, DEED_NO_MEMORY */
DEED_PUBLIC DEED_MUST_CHECK deed_status deed_backup(struct deed *deed, const char *target,
                                                    const struct deed_backup_options *options,
                                                    struct deed_backup_report *out_report,
                                                    struct deed_error *err);

/* Read a backup whole and check every hash, checksum and link of the chain.
 *
 *   DEED_NOT_FOUND  there is none. DEED_CORRUPT: it is damaged, the message says where first.
 *   DEED_TOO_NEW, DEED_IO, DEED_STOPPED, DEED_NO_MEMORY */
DEED_PUBLIC DEED_MUST_CHECK deed_status deed_check_backup(const char *backup,
                                                          const struct deed_backup_options *options,
                                                          struct deed_backup_report *out_report,
                                                          struct deed_error *err);

/* Make `directory` a data directory that holds what the backup does, and check all of it. The log
 * goes on in a new epoch: whoever comes back with a token, checkpoint or event id of before is
 * refused. Read models are built anew. Until it is done the directory cannot be opened; after an
 * interruption restore again.
 *
 *   DEED_CONFLICT   `directory` is not empty. DEED_LOCKED: somebody has it.
 *   DEED_NOT_FOUND  there is no backup. DEED_CORRUPT: it is damaged. DEED_FULL: there is no room.
 *   DEED_TOO_NEW, DEED_IO, DEED_STOPPED, DEED_NO_MEMORY */
DEED_PUBLIC DEED_MUST_CHECK deed_status deed_restore(const char *backup, const char *directory,
                                                     const struct deed_backup_options *options,
                                                     struct deed_backup_report *out_report,
                                                     struct deed_error *err);

#ifdef __cplusplus
}
#endif
#endif
