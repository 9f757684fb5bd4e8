/* index.h - one inverted index: term -> ascending positions.
 *
 * A stream is a term, and so are a type, a category, a tag, a correlation id, an event's id in its
 * stream, an idempotency key. Reading and conditions are intersections and unions of these lists,
 * which postings.h looks up.
 *
 * The index is a row of runs, each over a range of positions, oldest first: those of closed
 * segments do not change any more, the last one is the active segment's and lies in memory. One
 * writer adds to that. Readers hold a view, an immutable picture of the row. A list may hold
 * positions that are not published yet: a reader passes the published end and sees nothing behind
 * it. It takes the end first and the view after it: then the view has all up to that end. */
#ifndef INDEX_INDEX_H
#define INDEX_INDEX_H

#include "base/error.h"
#include "os/block_cache.h"
#include "os/os.h"

enum index_kind {
    INDEX_STREAM,
    INDEX_CATEGORY,
    INDEX_TYPE,
    INDEX_TAG,
    INDEX_CORRELATION,
    INDEX_EVENT_ID, /* term: 16 bytes of id, then the stream's name */
    INDEX_KEY,
    INDEX_SYSTEM, /* the empty term: events of streams whose name begins with '$'; INDEX_FIRST_TERM:
                     the first events of all other streams */
    INDEX_KIND_COUNT
};

#define INDEX_FIRST_TERM "first"

struct index;
struct index_view;

struct log;

struct index_options {
    /* Where the data directory is: runs are files in "index" inside it. NULL: all in memory. */
    struct os *os;
    struct os_dir *dir;
    struct block_cache *cache; /* must outlive the index; with `dir` */
    bool read_only;            /* write nothing, remove nothing */
    bool forget;               /* use no files that are there: what they cover is indexed again */
    uint64_t hash_seed;        /* of a new index; one that has files keeps its own */
    /* For tests: only these bits of the hash are left, so that different terms share one. 0: all. */
    uint64_t hash_mask;
    /* May be NULL. Is the position known to be lost? Then its range's last one goes to *out_last. What
     * is not known to be lost, and cannot be read, is not left out of an index silently. */
    bool (*is_lost)(void *context, uint64_t position, uint64_t *out_last);
    void *context;
    /* For tests: when a section of a run goes to a file of its own. 0: 1 MiB. */
    uint64_t spill_size_max;
};

/* Opening has three parts: this one finds the runs that are there; then the log tells, segment by
 * segment, what they do not cover (index_covers, index_roll, index_add_event); then index_opened.
 *
 *   DEED_TOO_NEW, DEED_NO_MEMORY, DEED_IO (damaged runs are no failure: they are made again) */
DEED_MUST_CHECK deed_status index_open(const struct index_options *options,
                                       struct index **out_index, struct deed_error *err);
void index_close(struct index *index); /* accepts NULL; no view may be out */

/* Does a run of a file cover this segment? */
bool index_covers(const struct index *index, uint32_t segment);
/* Does a run of a file cover any? */
bool index_has_files(const struct index *index);

/* The log is known: runs of another one, or of another history of it, are thrown away, and what
 * is missing then is read from the log. `active`: its active segment. Until here there is one
 * thread. */
void index_set_log(struct index *index, deed_uuid log_id);
DEED_MUST_CHECK deed_status index_opened(struct index *index, struct log *log, uint32_t active,
                                         struct deed_error *err);

/* ---- the writer ----------------------------------------------------------------------------- */

/* What of an event is indexed; deed_event and deed_new_event both fill it. `revision` is its place
 * in its stream: the number of the stream's events before it. */
struct index_event {
    deed_str stream, type, correlation_id, key;
    const deed_str *tags;
    size_t tag_count;
    deed_uuid id;
    uint64_t position, revision;
};
/* All terms of the event or none. Positions do not descend. DEED_NO_MEMORY. */
DEED_MUST_CHECK deed_status index_add_event(struct index *index, const struct index_event *event,
                                            struct deed_error *err);
/* The reverse, newest event first; only what is not published. */
void index_remove_event(struct index *index, const struct index_event *event);

/* A revision whose event was lost to damage keeps its place in the stream's list: its position is
 * one of the lost ones. DEED_NO_MEMORY. */
DEED_MUST_CHECK deed_status index_add_lost(struct index *index, deed_str stream, uint64_t revision,
                                           uint64_t position, struct deed_error *err);

/* From now on events are of segment `segment`: what was added until now, positions up to
 * `last_position`, is a run of its own that does not change any more; `hash` is that of the commit
 * there. The first call (on an index without events) only says which segment it is. Asking for the
 * segment that is the active one already does nothing. DEED_NO_MEMORY: nothing changed. */
DEED_MUST_CHECK deed_status index_roll(struct index *index, uint32_t segment,
                                       uint64_t last_position, const uint8_t hash[32],
                                       struct deed_error *err);

/* The view that the writer works with, its own additions included: valid until it renews it, rests,
 * or rolls (which renews it too). */
const struct index_view *index_writer_view(struct index *index);
/* Work with the newest from now on: no lock, unless the row of runs has changed. */
void index_writer_renew(struct index *index);
/* The writer has nothing to do: it holds no view, so that what was replaced can go. */
void index_writer_rest(struct index *index);

/* What the active segment alone knows of a stream: the number of its events, lost ones included.
 * false: the active segment has none of it. */
bool index_active_count(struct index *index, deed_str stream, uint64_t *out_count);

/* ---- readers -------------------------------------------------------------------------------- */

const struct index_view *index_view_take(struct index *index);
void index_view_drop(const struct index_view *view); /* accepts NULL */
/* Changes when the row of runs does: time to take a newer view. Cheap. */
uint64_t index_generation(const struct index *index);
uint64_t index_view_generation(const struct index_view *view);
/* Runs in the view; the active one counts. */
size_t index_view_run_count(const struct index_view *view);

/* How many streams there are. */
uint64_t index_stream_count(const struct index *index);

/* ---- the background actor: one thread -------------------------------------------------------- */

/* One piece of what is to be done: write a run of memory to its file, read what has been damaged
 * again from the log, merge runs, bring filters into memory, check files. Answers as actor_step
 * does. What fails is tried again after a pause. Without a log (a test) nothing is built again. */
uint64_t index_step(struct index *index, struct log *log);

/* Runs that wait to be written; the active one does not count. Cheap. */
uint64_t index_waiting(const struct index *index);
/* The last attempt to do so, or at anything else of index_step, failed. */
bool index_failing(struct index *index);

/* Check every byte of every run's file. `damage` is told of each run that is not good, by its segments
 * and by what is wrong; such a run is made again by index_step. `progress` (may be NULL): false stops
 * it with DEED_STOPPED. DEED_NO_MEMORY. From any thread. */
struct index_verifier {
    void *context;
    void (*damage)(void *context, uint32_t first_segment, uint32_t last_segment, const char *what);
    bool (*progress)(void *context);
};
DEED_MUST_CHECK deed_status index_verify(struct index *index, const struct index_verifier *verifier,
                                         struct deed_error *err);

struct index_stats {
    uint64_t runs, memory_runs; /* in the newest view; the active one counts */
    uint64_t memory_size;       /* bytes of the runs in memory */
    uint64_t written, merged, rebuilt; /* runs, since opening */
    uint64_t failures;          /* attempts that failed */
    bool failing;               /* the last attempt did */
    char failure[160];          /* why the last one that failed did */
};
void index_get_stats(struct index *index, struct index_stats *out);

/* ---- terms of an event ---------------------------------------------------------------------- */

/* "order-1001" -> "order"; ptr NULL: a system stream, or one without '-'. */
deed_str index_category_of(deed_str stream);
bool index_is_system(deed_str stream);

#endif
