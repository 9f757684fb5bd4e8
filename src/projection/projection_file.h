/* projection_file.h - what an author writes: a projection's tables, and what each event does to
 * them.
 *
 *     -- projection: order_summary
 *     -- tables
 *     CREATE TABLE order_summary (order_id TEXT PRIMARY KEY, status TEXT);
 *     -- on OrderCreated
 *     INSERT INTO order_summary VALUES (:data.order_id, 'open');
 *     -- on OrderShipped, OrderDelivered
 *     UPDATE order_summary SET status = :type WHERE order_id = :data.order_id;
 *
 * Loading checks everything that can be known without events: the file's shape, every parameter's
 * name, that SQLite accepts each statement, that each table has a primary key, and that nothing in
 * it could give other rows on another day. docs/projections.md is the author's manual. */
#ifndef PROJECTION_PROJECTION_FILE_H
#define PROJECTION_PROJECTION_FILE_H

#include "base/arena.h"
#include "base/hash.h"
#include "projection/database.h"
#include "projection/sql_text.h"

#define PROJECTION_NAME_SIZE_MAX 64

/* What a parameter is bound from. */
enum projection_source {
    PROJECTION_DATA,
    PROJECTION_METADATA,
    PROJECTION_STREAM,
    PROJECTION_CATEGORY,
    PROJECTION_REVISION,
    PROJECTION_POSITION,
    PROJECTION_TIME,
    PROJECTION_RECORDED_AT,
    PROJECTION_TYPE,
    PROJECTION_ID,
    PROJECTION_TAGS,
    PROJECTION_CORRELATION_ID,
    PROJECTION_CAUSATION_ID,
    PROJECTION_ACTOR,
};

/* One step into JSON: a member's name, and the index it is if the value is an array. */
struct projection_step {
    deed_str key;
    bool is_index;
    size_t index;
};

struct projection_binding {
    enum projection_source source;
    bool optional;                       /* missing: NULL instead of stopping */
    deed_str name;                       /* as written, "data.customer.name" */
    const struct projection_step *steps; /* below data or metadata */
    size_t step_count;
};

struct projection_statement {
    struct sql_statement sql;
    const struct projection_binding *bindings; /* as many as sql.parameter_count */
};

/* What happens on an event type: statements of all its sections, in the file's order. */
struct projection_reaction {
    deed_str type; /* ptr NULL: every type that has no reaction of its own ("-- on *") */
    const uint32_t *statements; /* indices */
    size_t statement_count;
    uint8_t hash[SHA256_SIZE]; /* of the statements' canonical texts */
};

struct projection_file {
    deed_str name;
    deed_str file; /* for messages */
    deed_str text; /* as it was given */
    const struct sql_statement *table_statements;
    size_t table_statement_count;
    const struct projection_statement *statements;
    size_t statement_count;
    const struct projection_reaction *reactions; /* in order of type */
    size_t reaction_count;
    bool every_type;       /* the last reaction is that of "*" */
    const deed_str *types; /* of the reactions, without "*" */
    size_t type_count;
    bool system;            /* answers to a type that begins with '$' */
    const deed_str *tables; /* tables and views, as SQLite found them, in order of creation */
    size_t table_count;
    uint8_t tables_hash[SHA256_SIZE];
    uint8_t hash[SHA256_SIZE]; /* of everything but comments and white space */
    struct arena arena;        /* all of the above */
};

/* Parse and check. `file` is for messages; both texts are copied.
 *
 *   DEED_INVALID    "order_summary.sql line 7: …".
 *   DEED_TOO_LARGE  over a limit of sql_text.h. */
DEED_MUST_CHECK deed_status projection_file_load(struct os *os, deed_str file, deed_str text,
                                                 struct projection_file **out_file,
                                                 struct deed_error *err);
void projection_file_free(struct projection_file *file); /* accepts NULL */

/* What to do on an event of this type; NULL: nothing. */
const struct projection_reaction *projection_file_reaction(const struct projection_file *file,
                                                           deed_str type);

#endif
