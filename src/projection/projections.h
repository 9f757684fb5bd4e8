/* projections.h - read models that follow the log.
 *
 * The set of an app's projections: each is a SQL file, runs on an actor of its own and keeps its
 * rows and its checkpoint in one SQLite file a generation, <name>.g<N>.db. A manifest names the
 * live generation. A rebuild makes the next generation beside the live one and switches when it has
 * caught up.
 *
 * A live generation that turns out to be damaged (at opening, while folding, or by a query, which says
 * so) is of no use any more, and the log has all that was in it: the projection is failed, says why, and
 * begins a rebuild from its newest text by itself, at once, or a minute after it did so last. It runs again
 * when that has caught up. If that rebuild cannot be done, because events that it needs were removed
 * or it meets damage too, it is given up: the projection stays failed, with both reasons, until
 * somebody asks for a rebuild, resumes it or brings another text. */
#ifndef PROJECTION_PROJECTIONS_H
#define PROJECTION_PROJECTIONS_H

#include "base/arena.h"
#include "base/buf.h"
#include "store/store.h"

struct projections;

struct projections_options {
    uint32_t batch_count_max; /* events a transaction; 0: 4,096 */
    uint32_t settle_page_count; /* for tests: see generation_settle_every; 0: 4,000 */
    bool no_threads;          /* the caller repeats projections_step */
    bool deliver_twice;       /* for tests: hand every event to the projection two times */
};

/* The set, empty; files go to "projections" in the store's directory. */
DEED_MUST_CHECK deed_status projections_open(struct store *store,
                                             const struct projections_options *options,
                                             struct projections **out_projections,
                                             struct deed_error *err);
void projections_close(struct projections *projections); /* accepts NULL */
bool projections_step(struct projections *projections);

/* Add one from the text of its file, and start it. The same text again changes nothing. Changed
 * text of a known name goes on from the checkpoint if no event before it would have been handled
 * differently: the tables are the same, and the log holds no event up to the checkpoint of a type
 * whose statements changed. Otherwise it starts a rebuild, while the old text goes on; so a mended
 * projection ends up with the rows that it would always have had. `file` is for messages only.
 *
 *   DEED_INVALID   line and reason. DEED_CONFLICT: another projection has such a table.
 *   DEED_TOO_NEW, DEED_IO, DEED_FULL, DEED_NO_MEMORY */
DEED_MUST_CHECK deed_status projections_add(struct projections *projections, deed_str file,
                                            deed_str text, struct deed_error *err);
/* All *.sql files of a folder, in order of name; a folder that is not there has none. Also called
 * again while running: takes up what changed ("resumes when the file is mended"). Files that went
 * away from the folder stop, their rows stay on disk. A file that is refused stops nothing, the
 * others are taken up; the status and the message are the first refusal's, the list shows each. */
DEED_MUST_CHECK deed_status projections_load(struct projections *projections, const char *folder,
                                             struct deed_error *err);

enum projection_state {
    PROJECTION_RUNNING, /* live, or catching up */
    PROJECTION_PAUSED,
    PROJECTION_FAILED, /* see error, error_position, error_statement */
};

struct projection_status {
    deed_str name, file;
    /* Why the file, as it is now in its folder, is not taken up; empty: it is. A file that is
     * refused from the start is listed too: by its name without ".sql", failed, of generation 0. */
    deed_str file_error;
    enum projection_state state;
    uint64_t generation, position, lag; /* of the live generation; lag in positions */
    uint64_t events, transactions;      /* since opening */
    /* What the live rows were built without, by force, since the log does not hold it any more. */
    uint64_t removed_events;
    double rate;                        /* events a second, lately */
    deed_str error, error_statement;    /* empty unless failed */
    uint64_t error_position;
    const deed_str *event_types; /* that it answers to */
    size_t event_type_count;
    const deed_str *tables;
    size_t table_count;
    uint64_t size; /* of its file, bytes */
    bool rebuilding;
    uint64_t rebuild_position, rebuild_target;
    double rebuild_rate, rebuild_seconds_left; /* NaN: not known yet */
    deed_str rebuild_error;                    /* why the last one was given up */
};

/* A snapshot, copied into `arena`, in order of name. */
DEED_MUST_CHECK deed_status projections_list(struct projections *projections, struct arena *arena,
                                             struct projection_status **out_list, size_t *out_count,
                                             struct deed_error *err);

/* Asks for it; the list tells how it goes. DEED_NOT_FOUND: no such projection. DEED_CONFLICT: it is
 * being rebuilt already. A rebuild that meets an event which was removed from the log, and which the
 * projection answers to, is given up, and the live rows stay; with `force` it goes on without what
 * was removed up to now, and counts it. A pause holds until it is resumed or the process ends. */
DEED_MUST_CHECK deed_status projections_rebuild(struct projections *projections, deed_str name,
                                                bool force, struct deed_error *err);
DEED_MUST_CHECK deed_status projections_pause(struct projections *projections, deed_str name,
                                              struct deed_error *err);
/* From a pause or a failure: try again at the checkpoint. */
DEED_MUST_CHECK deed_status projections_resume(struct projections *projections, deed_str name,
                                               struct deed_error *err);

/* Wait until all named projections (count 0: all) have seen `position`. DEED_TIMEOUT;
 * DEED_STOPPED: one has failed or is paused; the message names it. */
DEED_MUST_CHECK deed_status projections_wait(struct projections *projections, const deed_str *names,
                                             size_t count, uint64_t position, uint32_t timeout_ms,
                                             struct deed_error *err);

/* Which projection has this table? ptr NULL: none. Names compare without case, as SQLite's do. */
deed_str projections_table_owner(struct projections *projections, deed_str table);

/* The tables of the live generations, for preparing a query without their data. `*out_version`
 * changes whenever they do. */
struct projection_schema {
    deed_str projection;
    const deed_str *statements; /* CREATE TABLE, INDEX, VIEW, each with a NUL behind */
    size_t statement_count;
    const deed_str *tables; /* and views */
    size_t table_count;
};
DEED_MUST_CHECK deed_status projections_schema(struct projections *projections, struct arena *arena,
                                               struct projection_schema **out_list,
                                               size_t *out_count, uint64_t *out_version,
                                               struct deed_error *err);
uint64_t projections_schema_version(struct projections *projections);

/* Keep the database file of a projection's read model from being removed: the live generation
 * (position 0), or a temporary one folded from the log up to `position`. The path is valid until
 * the release. `*out_position`: what its rows have seen at least (a live one goes on).
 *
 *   DEED_NOT_FOUND  no such projection. DEED_INVALID: the position is past the log's end.
 *   DEED_STOPPED    it has failed, or fails on an event up to `position`; or it was damaged, and is
 *                   being rebuilt.
 *   DEED_GONE       an event up to `position` that it answers to was removed from the log.
 *   DEED_TIMEOUT    it could not be folded so far in time; asking again goes on.
 *   DEED_BUSY       the same, since the index is being rebuilt. */
struct projection_lease;
DEED_MUST_CHECK deed_status projections_lease(struct projections *projections, deed_str name,
                                              uint64_t position, uint32_t timeout_ms,
                                              struct projection_lease **out_lease,
                                              const char **out_path, uint64_t *out_position,
                                              struct deed_error *err);
void projections_release(struct projection_lease *lease); /* accepts NULL */
/* Whoever reads a leased file and meets damage (DEED_CORRUPT) says so, before the release. A live
 * generation answers no more until it was rebuilt, which begins by itself; a temporary one is folded anew
 * for whoever asks next. */
void projections_damaged(struct projection_lease *lease, const char *message);

/* Where it all rests. */
struct store *projections_store(struct projections *projections);

#endif
