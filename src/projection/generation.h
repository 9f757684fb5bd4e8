/* generation.h - one SQLite file: a projection's rows, and how far they have got.
 *
 * Rows and checkpoint change in one transaction, so that they agree whatever happens: an event
 * counts once, however often it is delivered. The file also holds the text of the projection that
 * it was built by, so that it can be carried on while a changed one is built beside it.
 *
 * What a transaction is about to commit is lost when the process or the machine stops; the log has
 * it still, and it is folded in again. So a generation is never ahead of the log, nor of itself.
 *
 * Its pages have checksums (page_check.h): damage is DEED_CORRUPT wherever it is met.
 *
 * One thread at a time; queries read the file by connections of their own. */
#ifndef PROJECTION_GENERATION_H
#define PROJECTION_GENERATION_H

#include "projection/binding.h"

struct generation;

struct generation_checkpoint {
    deed_uuid log_id;
    uint64_t epoch;
    uint64_t position; /* all events up to here are folded in */
};

/* Make a new file at `path`, from `file` (copied) and starting at `start`. A `temporary` one is
 * nobody's after a crash, and not synced.
 *
 *   DEED_FULL, DEED_IO, DEED_CORRUPT, DEED_NO_MEMORY  and what projection_file_load returns. */
DEED_MUST_CHECK deed_status generation_create(struct os *os, const char *path,
                                              const struct projection_file *file, bool temporary,
                                              const struct generation_checkpoint *start,
                                              struct generation **out_generation,
                                              struct deed_error *err);
/* Open a file that is there.
 *
 *   DEED_IO       it cannot be opened. DEED_CORRUPT: it is not a generation, or damaged.
 *   DEED_TOO_NEW  a newer version wrote it. DEED_INVALID: the text in it is not accepted any more.
 */
DEED_MUST_CHECK deed_status generation_open(struct os *os, const char *path, bool temporary,
                                            struct generation **out_generation,
                                            struct deed_error *err);
/* Rolls back what is not committed. Accepts NULL. */
void generation_close(struct generation *generation);

const struct projection_file *generation_file(const struct generation *generation);
const char *generation_path(const struct generation *generation);
/* As committed. */
const struct generation_checkpoint *generation_checkpoint(const struct generation *generation);

/* Carry on with another text of the same tables, from the checkpoint. Not in a transaction. */
DEED_MUST_CHECK deed_status generation_change_file(struct generation *generation,
                                                   const struct projection_file *file,
                                                   struct deed_error *err);

/* Fold one event in, in the transaction that is begun at need. `*out_statement` (may be NULL): the
 * statement that failed, valid as long as generation_file; ptr NULL if it was none.
 *
 *   DEED_INVALID  a statement or a parameter fails. The generation must be rolled back: parts of
 *                 this event may have been done.
 *   DEED_FULL, DEED_IO, DEED_CORRUPT, DEED_NO_MEMORY  storage fails: close it.
 *   DEED_TIMEOUT  a statement ran longer than a minute. DEED_STOPPED: it was cancelled. */
DEED_MUST_CHECK deed_status generation_apply(struct generation *generation,
                                             const struct deed_event *event,
                                             deed_str *out_statement, struct deed_error *err);
/* Count, in the transaction, an event that should have been applied and is not stored any more. */
DEED_MUST_CHECK deed_status generation_pass_over(struct generation *generation,
                                                 struct deed_error *err);
/* How many the rows were made without. As committed. */
uint64_t generation_passed_over(const struct generation *generation);
/* Commit with this checkpoint; nothing happens if it is the committed one and no event was applied. A
 * failure may also be that of settling, after the commit. */
DEED_MUST_CHECK deed_status generation_commit(struct generation *generation, uint64_t position,
                                              struct deed_error *err);
void generation_rollback(struct generation *generation);
/* Applied events wait for a commit. */
bool generation_in_transaction(const struct generation *generation);

/* Bring everything that was committed from the write-ahead log into the file, and sync it. */
DEED_MUST_CHECK deed_status generation_settle(struct generation *generation,
                                              struct deed_error *err);

/* While it goes on, do so whenever the log has so many pages (4,000). */
void generation_settle_every(struct generation *generation, uint32_t page_count);

/* Running statements end with DEED_STOPPED once `*cancelled` is true (borrowed; NULL: never). */
void generation_on_cancel(struct generation *generation, const atomic_bool *cancelled);

/* For printf: the checkpoint's position where the file is attached as this schema. */
#define GENERATION_POSITION_SQL "SELECT %s position FROM %s._deedbook_checkpoint WHERE id = 1"

#endif
