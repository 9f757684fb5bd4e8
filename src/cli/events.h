/* events.h - events as a target sends them: CloudEvents, one a line, and how people see them. */
#ifndef CLI_EVENTS_H
#define CLI_EVENTS_H

#include "cli/out.h"
#include "cli/target.h"

/* What read, follow and export ask for; each list as it was given on the command line. */
struct events_filter {
    const char *stream; /* NULL: the log */
    struct cli_list types, tags, categories, streams, correlations;
    const char *from_time, *to_time;
    const char *after; /* log: exclusive */
    const char *from;  /* stream: inclusive */
    const char *until; /* a position: do not read past it */
    uint64_t limit;    /* 0: none */
    bool backwards, system, follow;
    bool removed; /* also those whose content was removed */
    bool exact; /* as an import takes them: data to the byte */
};

/* The options of a filter, as a child argp of a subcommand's; its input is the filter. */
extern const struct argp events_filter_argp;
/* It and cli_target_argp, in this order, with the headings of a subcommand that shows events. */
extern const struct argp_child events_children[];

/* Keys of the options that say where in the log or the stream, and what of it. A subcommand declares
 * those that it has, with its own words; its parser leaves to events_range_parse what it does not
 * know. */
enum events_range_key {
    EVENTS_KEY_FROM = 'f',
    EVENTS_KEY_AFTER = 'a',
    EVENTS_KEY_UNTIL = 'u',
    EVENTS_KEY_LIMIT = 'n',
    EVENTS_KEY_BACKWARDS = 'b',
    EVENTS_KEY_REMOVED = 0x180,
};
error_t events_range_parse(struct events_filter *filter, int key, char *argument,
                           struct argp_state *state);

/* The URL that asks for them. */
void events_url(struct url *url, const struct events_filter *filter);

/* Ask for them, and get each as a line; statuses as target_lines. */
DEED_MUST_CHECK deed_status events_read(struct target *target, const struct events_filter *filter,
                                        splitter_line *line, void *context, struct deed_error *err);

/* One event of a line; the slices borrow from the line and the arena. `for_people` has the data
 * made, which programs that only look at the rest do not need. */
struct events_view {
    deed_str stream, type, id, time, tags, correlation, causation, actor;
    deed_str data; /* JSON without white space between its tokens, or base64 */
    uint64_t position, revision;
    uint64_t place; /* in the stream that was read: of a virtual one, the place there */
    bool removed;
};
DEED_MUST_CHECK deed_status events_parse(struct arena *arena, deed_str line, bool for_people,
                                         struct events_view *out_view, struct deed_error *err);

/* Columns for a table of them, and a row. */
struct out_table *events_table_create(void);
void events_table_row(struct out_table *table, const struct events_view *view);

/* One line for people: "12  order-1@3  OrderShipped  2026-11-23 04:07:09  {…}". */
void events_print_line(FILE *file, const struct events_view *view);

/* "2026-11-23T04:07:09.123456789Z" as "2026-11-23 04:07:09.123"; anything else stays. */
deed_str events_time_short(deed_str time, char out[32]);

#endif
