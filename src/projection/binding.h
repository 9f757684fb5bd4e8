/* binding.h - from an event to a statement's parameters.
 *
 * Integers bind as 64-bit, other numbers as doubles, booleans as 0 and 1, null as NULL, objects and
 * arrays as their JSON text, instants as RFC 3339 text. What is missing stops the projection unless
 * the parameter ends in '?'; so does a number that neither kind can hold. */
#ifndef PROJECTION_BINDING_H
#define PROJECTION_BINDING_H

#include "json/json.h"
#include "projection/projection_file.h"

/* One event while its statements run: what was parsed of it, at first use. */
struct binding_event {
    const struct deed_event *event;
    struct arena *arena; /* until the event is done */
    json_value data, metadata;
    bool data_parsed, metadata_parsed;
    char time[32], recorded_at[32], id[40];
};

void binding_event_init(struct binding_event *e, const struct deed_event *event,
                        struct arena *arena);

/* Bind all of a statement's parameters. What is bound borrows from the event and its arena: step
 * and reset before either goes away.
 *
 *   DEED_INVALID    "no value at data.customer.name", or a number out of range.
 *   DEED_NO_MEMORY  the event is too large for its arena, or SQLite has none. */
DEED_MUST_CHECK deed_status bind_statement(struct binding_event *e,
                                           const struct projection_statement *statement,
                                           sqlite3_stmt *prepared, struct deed_error *err);

#endif
