/* sql_text.h - SQL text cut into statements, with named parameters made into numbered ones.
 *
 * Projection and query files write `:data.customer.name` where SQLite wants `?1`. This reader knows
 * just enough SQL to do that: strings, quoted names, comments and numbers are left as they are, and
 * a statement ends at its semicolon. What a statement means is SQLite's business. */
#ifndef PROJECTION_SQL_TEXT_H
#define PROJECTION_SQL_TEXT_H

#include "base/arena.h"
#include "base/error.h"

/* A file of SQL is written by hand: a megabyte is far past any that was. */
#define SQL_TEXT_SIZE_MAX       (1u << 20)
#define SQL_PARAMETER_COUNT_MAX 500
#define SQL_PARAMETER_STEP_MAX  32

/* ---- tokens --------------------------------------------------------------------------------- */

enum sql_token_kind {
    SQL_TOKEN_END,
    SQL_TOKEN_SPACE,
    SQL_TOKEN_COMMENT, /* from "--" to the end of the line, without it */
    SQL_TOKEN_BLOCK_COMMENT,
    SQL_TOKEN_WORD,   /* a keyword or a bare name */
    SQL_TOKEN_QUOTED, /* "name", `name`, [name] */
    SQL_TOKEN_STRING, /* 'text' */
    SQL_TOKEN_NUMBER,
    SQL_TOKEN_PARAMETER, /* :name, :name.step, :name?, with the colon */
    SQL_TOKEN_SEMICOLON,
    SQL_TOKEN_OPEN,  /* ( */
    SQL_TOKEN_CLOSE, /* ) */
    SQL_TOKEN_OTHER,
};

struct sql_token {
    enum sql_token_kind kind;
    deed_str text;
};

/* The token that begins at `at`. NULL, or what is wrong there: something that is not closed, or a
 * parameter of another style. */
const char *sql_token_at(deed_str text, size_t at, struct sql_token *out_token);

/* ---- statements ----------------------------------------------------------------------------- */

struct sql_parameter {
    deed_str name; /* "data.customer.name": without colon and question mark */
    bool optional; /* it ended in '?' */
    uint32_t line;
};

struct sql_statement {
    deed_str text;   /* for SQLite: names replaced by ?1, ?2, …; line ends kept; a NUL behind */
    deed_str source; /* as written, without the semicolon; borrowed from the file's text */
    deed_str canonical; /* as written, without comments, runs of white space as one blank */
    uint32_t line;      /* that it begins on, from 1 */
    const struct sql_parameter *parameters; /* [i] is ?(i+1); each name once */
    size_t parameter_count;
};

/* Its first keyword, as written: "INSERT". Empty: it does not begin with a word. */
deed_str sql_statement_verb(const struct sql_statement *statement);
/* Is a bare word one of `count` keywords? Letters compare without case. */
bool sql_word_in(deed_str word, const char *const *keywords, size_t count);

/* The line of the file that a byte of `statement->text` stands on. */
uint32_t sql_statement_line(const struct sql_statement *statement, size_t offset);

enum sql_item_kind {
    SQL_ITEM_END,
    SQL_ITEM_COMMENT, /* alone on its line and not inside a statement */
    SQL_ITEM_STATEMENT,
};

struct sql_item {
    enum sql_item_kind kind;
    uint32_t line;
    deed_str comment; /* without "--" and white space around */
    struct sql_statement statement;
};

struct sql_reader {
    struct arena *arena; /* what items point to */
    deed_str text;       /* must outlive the items */
    /* Is this comment a heading? One in the middle of a statement, outside parentheses, means that
     * a semicolon is missing. May be NULL. */
    bool (*is_heading)(deed_str comment);
    size_t at;     /* start with 0 */
    uint32_t line; /* start with 0 */
};

/* The next comment or statement.
 *
 *   DEED_INVALID    "line 7: …".
 *   DEED_TOO_LARGE  the text, or a statement's parameters, exceed a limit above.
 *   DEED_NO_MEMORY  the arena is at its limit. */
DEED_MUST_CHECK deed_status sql_next(struct sql_reader *reader, struct sql_item *out_item,
                                     struct deed_error *err);

#endif
