/* out.h - how answers look: tables, lines, JSON, progress, colours.
 *
 * Colours only on a terminal, and not with NO_COLOR set or TERM=dumb. Whatever comes from the log
 * is printed with control characters escaped: an event cannot drive the reader's terminal. */
#ifndef CLI_OUT_H
#define CLI_OUT_H

#include "base/buf.h"
#include "json/json.h"

#include <stdio.h>

enum out_colour { OUT_PLAIN, OUT_BOLD, OUT_DIM, OUT_RED, OUT_GREEN, OUT_YELLOW, OUT_BLUE };

bool out_is_terminal(FILE *file);
/* The escape sequences, or "" where colours are not wanted. */
const char *out_start(FILE *file, enum out_colour colour);
const char *out_stop(FILE *file);

/* Text with control characters as \xNN. */
void out_text(FILE *file, deed_str text);
void out_text_add(struct buf *buf, deed_str text);

/* The value again, indented by two spaces a level; short lists and objects stay on one line. */
void out_json(FILE *file, json_value value);
/* The value in one line, without white space outside of strings, to `buf`. */
void out_json_add(struct buf *buf, json_value value);

/* An answer's body to stdout, as it came; it ends its line. */
void out_body(deed_bytes body);

/* ---- tables --------------------------------------------------------------------------------- */

enum out_column_flags {
    OUT_RIGHT = 1, /* numbers */
    OUT_CUT = 2,   /* may be cut to fit the terminal */
};
struct out_column {
    const char *heading;
    int flags;
};

struct out_table;

/* NULL without memory; every function below accepts that. */
struct out_table *out_table_create(const struct out_column *columns, size_t count);
void out_table_destroy(struct out_table *table);
/* Begin a row; its cells are filled from the left. */
void out_table_row(struct out_table *table);
void out_table_text(struct out_table *table, deed_str text);
void out_table_cell(struct out_table *table, const char *format, ...) DEED_PRINTF(2, 3);
size_t out_table_count(const struct out_table *table); /* rows */
/* Print and empty it. The headings come with the first print only. false: no memory. */
bool out_table_print(struct out_table *table, FILE *file);

/* Print what is left and destroy it, printed or not. DEED_NO_MEMORY. */
DEED_MUST_CHECK deed_status out_table_end(struct out_table *table, FILE *file,
                                          struct deed_error *err);

/* ---- progress: one line on stderr, only on a terminal ---------------------------------------- */

struct out_progress {
    const char *what; /* "verifying" */
    const char *unit; /* "events"; NULL: what is counted is time, and says nothing more */
    uint64_t all;     /* 0: not known */
    uint64_t started_ns, shown_ns;
    bool on, shown;
};
void out_progress_start(struct out_progress *progress, const char *what, const char *unit,
                        uint64_t all);
void out_progress_step(struct out_progress *progress, uint64_t done);
void out_progress_stop(struct out_progress *progress); /* wipes the line */
/* The line itself: "verifying  [=====>    ]  51%  1.2 M/s  4s left". */
void out_progress_line(struct buf *out, const struct out_progress *progress, uint64_t done,
                       uint64_t elapsed_ns);

/* ---- numbers for people ------------------------------------------------------------------------
 */

#define OUT_NUMBER_SIZE 32
/* 1234567 -> "1,234,567" */
const char *out_count(uint64_t value, char out[OUT_NUMBER_SIZE]);
/* 1536 -> "1.5 KiB" */
const char *out_size(uint64_t bytes, char out[OUT_NUMBER_SIZE]);
/* 41234567 ns -> "41.2 ms" */
const char *out_time(uint64_t ns, char out[OUT_NUMBER_SIZE]);
/* 93 -> "1m 33s" */
const char *out_seconds(uint64_t seconds, char out[OUT_NUMBER_SIZE]);

#endif
