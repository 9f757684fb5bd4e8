/* Verbs of the tests that work on SQLite's files. */
#ifndef UNIT_DATABASE_FIXTURE_H
#define UNIT_DATABASE_FIXTURE_H

#include "projection/database.h"
#include "unit/test.h"

static struct deed_error err;

static inline struct database *opened(struct os *os, const char *path, bool read_only)
{
    struct database *db = NULL;
    struct database_options options = {.path = path, .read_only = read_only, .create = !read_only};
    deed_status status = database_open(os, &options, &db, &err);
    if (status != DEED_OK) fail_msg("open: %s", err.message);
    return db;
}

static inline deed_status try_run(struct database *db, const char *sql)
{
    return database_run(db, DATABASE_TRUSTED, sql, &err);
}

static inline void run(struct database *db, const char *sql)
{
    if (try_run(db, sql) != DEED_OK) fail_msg("%s: %s", sql, err.message);
}

#endif
