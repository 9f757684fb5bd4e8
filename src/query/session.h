/* session.h - a query ready to run: a connection that has the read models it needs attached, read-only
 * and side by side, and the SELECT prepared.
 *
 * A session is used by one thread at a time, and may be kept for the next run of the same query over
 * the same files. */
#ifndef QUERY_SESSION_H
#define QUERY_SESSION_H

#include "base/buf.h"
#include "projection/database.h"
#include "query/query_file.h"

#define SESSION_FILE_COUNT_MAX 10 /* SQLite attaches no more */

struct session;

/* The database files, and what the query reads in them. */
struct session_sources {
    const char *paths[SESSION_FILE_COUNT_MAX];
    size_t count;
    const deed_str *tables;
    size_t table_count;
};

/* All of the arguments are copied, except the file's text, which must outlive the session.
 *
 *   DEED_INVALID  SQLite does not accept the query. DEED_IO, DEED_CORRUPT, DEED_NO_MEMORY */
DEED_MUST_CHECK deed_status session_open(struct os *os, const struct query_file *file,
                                         const struct session_sources *sources,
                                         struct session **out_session, struct deed_error *err);
void session_close(struct session *session); /* accepts NULL */

/* Was it opened for this query over these files? `sources` NULL: over any. */
bool session_fits(const struct session *session, const struct query_file *file,
                  const struct session_sources *sources);

struct session_run {
    const deed_str *values; /* one a parameter; ptr NULL: NULL */
    uint64_t deadline_ticks;
    uint32_t row_count_max;
    uint64_t size_max;
    struct buf *out; /* gets the JSON array; unchanged on failure */
    /* Written: each file's checkpoint, and how many rows there were. */
    uint64_t positions[SESSION_FILE_COUNT_MAX];
    uint64_t row_count;
};

/* Everything is read as of one moment: the first read of each file.
 *
 *   DEED_TIMEOUT, DEED_TOO_LARGE
 *   DEED_INVALID  SQLite fails on what it was given: a malformed number, an overflow.
 *   DEED_IO, DEED_CORRUPT, DEED_NO_MEMORY */
DEED_MUST_CHECK deed_status session_go(struct session *session, struct session_run *run,
                                       struct deed_error *err);

/* Read a whole database file, its rows and indices. DEED_CORRUPT: it is damaged. DEED_TIMEOUT, DEED_IO,
 * DEED_NO_MEMORY */
DEED_MUST_CHECK deed_status session_examine(struct os *os, const char *path,
                                            uint64_t deadline_ticks, struct deed_error *err);

/* For a statement that was prepared: two columns of one name would make a malformed object. */
DEED_MUST_CHECK deed_status session_check_columns(sqlite3_stmt *select, struct deed_error *err);

#endif
