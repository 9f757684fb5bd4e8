/* database.h - a SQLite connection under guard.
 *
 * Read models are kept in SQLite, and their SQL comes from an app's author; queries' parameters
 * come from anyone. So every connection is hardened (defensive, small limits, no extensions), and
 * SQL that is not our own is prepared under a role that says what it may do. What a role refuses is
 * refused when the SQL is loaded, with a reason, before anything runs.
 *
 * One connection belongs to one thread at a time. */
#ifndef PROJECTION_DATABASE_H
#define PROJECTION_DATABASE_H

#include "base/error.h"
#include "os/os.h"

#include <sqlite3.h>
#include <stdatomic.h>

/* Tables of our own in every read model; SQL of an app cannot see them. */
#define DATABASE_RESERVED_PREFIX "_deedbook"

enum database_role {
    DATABASE_STEP,      /* while statements run: what a prepared statement may have to do again */
    DATABASE_TRUSTED,   /* our own SQL */
    DATABASE_TABLES,    /* a projection's tables section: CREATE TABLE, INDEX, VIEW */
    DATABASE_STATEMENT, /* a projection's statements: INSERT, UPDATE, DELETE on its own tables */
    DATABASE_QUERY,     /* a query: SELECT */
};

struct database;

struct database_options {
    const char *path; /* NULL: in memory */
    bool read_only;   /* databases attached later are read-only too */
    bool create;
    /* For projections: functions that would give another result on another day, machine or time
     * zone fail, so that a rebuild gives the same rows. */
    bool deterministic;
    /* A write may spoil bytes of its sector that were there before: SQLite's log is padded where it is
     * synced with a commit. */
    bool sectors_tear;
};

/* Its files are where vfs.h says, and what is read of them is checked as page_check.h says. With
 * `create` the pages of a new database have checksums. */
DEED_MUST_CHECK deed_status database_open(struct os *os, const struct database_options *options,
                                          struct database **out_database, struct deed_error *err);
/* Statements must be finalized before. Accepts NULL. */
void database_close(struct database *db);
sqlite3 *database_sqlite(struct database *db);

/* Prepare one statement. `*out_offset` (may be NULL): on failure, the byte of `sql` that SQLite
 * complains about, or 0.
 *
 *   DEED_INVALID  refused by SQLite or by the role: the message is the reason alone. */
DEED_MUST_CHECK deed_status database_prepare(struct database *db, enum database_role role,
                                             deed_str sql, bool kept, sqlite3_stmt **out_statement,
                                             size_t *out_offset, struct deed_error *err);
/* Run SQL without parameters to its end. */
DEED_MUST_CHECK deed_status database_run(struct database *db, enum database_role role,
                                         const char *sql, struct deed_error *err);

/* Step a statement of our own that yields no rows and asks the authorizer again while it runs. */
DEED_MUST_CHECK deed_status database_step_trusted(struct database *db, sqlite3_stmt *statement,
                                                  struct deed_error *err);

/* The status that belongs to the last failure on this connection, with SQLite's words:
 *
 *   DEED_FULL, DEED_NO_MEMORY, DEED_IO, DEED_CORRUPT   storage: the statement may be fine
 *   DEED_TIMEOUT   the deadline passed; DEED_STOPPED: it was cancelled
 *   DEED_INVALID   the statement's or its data's own fault */
deed_status database_fail(struct database *db, struct deed_error *err);
/* Is this one of the storage failures? */
bool database_is_storage(deed_status status);

/* The tables and views that DATABASE_STATEMENT and DATABASE_QUERY may name (borrowed until the
 * next call). Before the first call: none. */
void database_set_tables(struct database *db, const deed_str *tables, size_t count);
/* DATABASE_QUERY: told each table that a statement reads, while it is prepared. */
void database_on_read(struct database *db, void (*on_read)(void *context, deed_str table),
                      void *context);
/* Did the last prepared statement use a date function? */
bool database_used_dates(const struct database *db);

/* Statements that run past `deadline_ticks` (os_ticks_ns; UINT64_MAX: none), or while
 * `*cancelled` (may be NULL), end with DEED_TIMEOUT or DEED_STOPPED. */
void database_limit_run(struct database *db, uint64_t deadline_ticks, const atomic_bool *cancelled);

/* Does a bare word name a function or constant that is not deterministic? Column defaults are not
 * seen by SQLite's authorizer, so the tables section is searched for these. */
bool database_word_is_random(deed_str word);

#endif
