/* queries.h - named SELECTs over read models.
 *
 * A query file is one SELECT with named parameters (":customer_id"). It runs read-only under an
 * authorizer, with a deadline and a row cap, over the projections whose tables it names: now, not
 * before a position, or as of a position. */
#ifndef QUERY_QUERIES_H
#define QUERY_QUERIES_H

#include "projection/projections.h"

struct queries;

struct queries_options {
    uint32_t row_count_max; /* 0: 10,000 */
    uint64_t size_max;      /* bytes of one answer; 0: 32 MiB */
    uint32_t timeout_ms;    /* default and cap of a query's; 0: 10,000 */
};

DEED_MUST_CHECK deed_status queries_open(struct projections *projections,
                                         const struct queries_options *options,
                                         struct queries **out_queries, struct deed_error *err);
void queries_close(struct queries *queries); /* accepts NULL */

/* DEED_INVALID: not one SELECT, or SQLite does not accept it; the message has SQLite's words. A
 * query of tables that no projection has is accepted, and DEED_STOPPED when asked. */
DEED_MUST_CHECK deed_status queries_add(struct queries *queries, deed_str name, deed_str sql,
                                        struct deed_error *err);
/* All *.sql files of a folder; the name is the file's without ".sql". Also called again: takes up what
 * changed, drops what went away. A file that is refused leaves the query as it was; the others are taken
 * up; the status and the message are the first refusal's. */
DEED_MUST_CHECK deed_status queries_load(struct queries *queries, const char *folder,
                                         struct deed_error *err);

struct query_description {
    deed_str name, comment;     /* the comment lines at the file's top */
    const deed_str *parameters; /* "from?": may be left out */
    size_t parameter_count;
    const deed_str *projections;
    size_t projection_count;
};
DEED_MUST_CHECK deed_status queries_list(struct queries *queries, struct arena *arena,
                                         struct query_description **out_list, size_t *out_count,
                                         struct deed_error *err);

/* As deed_query: appends a JSON array of objects, one a row, to `out`. `*out_position`: the lowest
 * position that the answer is as of. DEED_INVALID names every missing and every unknown
 * parameter, or what SQLite makes of their values. A parameter ending in "?" in the SQL (":region?") may
 * be left out: NULL. DEED_STOPPED: a table is not there, or its projection has failed. */
DEED_MUST_CHECK deed_status queries_run(struct queries *queries, deed_str name,
                                        const struct deed_query_options *options, struct buf *out,
                                        uint64_t *out_position, struct deed_error *err);

struct query_metrics {
    uint64_t queries, failed, rows;
    struct store_histogram run;
};
void queries_get_metrics(struct queries *queries, struct query_metrics *out_metrics);

#endif
