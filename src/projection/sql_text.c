/* sql_text.c - a tokenizer, and a reader that gathers tokens into statements.
 *
 * (1) The tokens of a text, one after another, are the text: nothing is skipped or made up.
 * (2) A statement's `text` has a line end wherever its source has one, so that an offset into one
 *     gives the line in the other.
 * (3) SQLite never sees a colon parameter: each became ?N, N counting names by first appearance. */
#include "projection/sql_text.h"

#include "base/buf.h"
#include "base/text.h"

#include <assert.h>

static bool is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '\f';
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_word_start(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || (unsigned char)c >= 0x80;
}

static bool is_word(char c)
{
    return is_word_start(c) || is_digit(c) || c == '$';
}

static char char_at(deed_str text, size_t at)
{
    return at < text.len ? text.ptr[at] : '\0';
}

/* Past a run that ends in `close`; two of them in a row stand for one where `doubled`. 0: it does
 * not end. */
static size_t quoted_end(deed_str text, size_t at, char close, bool doubled)
{
    for (at++; at < text.len; at++) {
        if (text.ptr[at] != close) continue;
        if (!doubled || char_at(text, at + 1) != close) return at + 1;
        at++;
    }
    return 0;
}

static size_t block_comment_end(deed_str text, size_t at)
{
    for (at += 2; at < text.len; at++) {
        if (text.ptr[at] == '*' && char_at(text, at + 1) == '/') return at + 2;
    }
    return 0;
}

/* Past ":name.step."quoted step".2?". NULL or the trouble. */
static const char *parameter_end(deed_str text, size_t at, size_t *out_end)
{
    if (!is_word_start(char_at(text, at + 1))) return "a ':' without a name behind it";
    size_t steps = 0;
    do {
        at++; /* the colon, or the dot */
        if (++steps > SQL_PARAMETER_STEP_MAX) return "a parameter with more than 32 steps";
        if (char_at(text, at) == '"') {
            size_t end = quoted_end(text, at, '"', false);
            if (end == 0) return "a quoted step that is not closed";
            if (end == at + 2) return "an empty step in a parameter";
            for (size_t i = at; i < end; i++) {
                if (text.ptr[i] == '\n') return "a line end inside a parameter";
            }
            at = end;
        } else {
            if (!is_word(char_at(text, at))) return "a parameter that ends in '.'";
            while (is_word(char_at(text, at)))
                at++;
        }
    } while (char_at(text, at) == '.');
    if (char_at(text, at) == '?') at++;
    *out_end = at;
    return NULL;
}

const char *sql_token_at(deed_str text, size_t at, struct sql_token *out_token)
{
    assert(at <= text.len);
    enum sql_token_kind kind = SQL_TOKEN_OTHER;
    const char *trouble = NULL;
    size_t end = at + 1;
    char c = char_at(text, at);

    if (at == text.len) {
        kind = SQL_TOKEN_END;
        end = at;
    } else if (is_space(c)) {
        kind = SQL_TOKEN_SPACE;
        while (end < text.len && is_space(text.ptr[end]))
            end++;
    } else if (c == '-' && char_at(text, at + 1) == '-') {
        kind = SQL_TOKEN_COMMENT;
        while (end < text.len && text.ptr[end] != '\n')
            end++;
    } else if (c == '/' && char_at(text, at + 1) == '*') {
        kind = SQL_TOKEN_BLOCK_COMMENT;
        end = block_comment_end(text, at);
        if (end == 0) trouble = "a comment that is not closed";
    } else if (c == '\'') {
        kind = SQL_TOKEN_STRING;
        end = quoted_end(text, at, c, true);
        if (end == 0) trouble = "a string that is not closed";
    } else if (c == '"' || c == '`' || c == '[') {
        kind = SQL_TOKEN_QUOTED;
        end = quoted_end(text, at, c == '[' ? ']' : c, c != '[');
        if (end == 0) trouble = "a quoted name that is not closed";
    } else if (c == ':') {
        kind = SQL_TOKEN_PARAMETER;
        trouble = parameter_end(text, at, &end);
    } else if (c == '?' || c == '@' || c == '$' || c == '#') {
        trouble = "a parameter that is not written :name";
    } else if (is_word_start(c)) {
        kind = SQL_TOKEN_WORD;
        while (end < text.len && is_word(text.ptr[end]))
            end++;
    } else if (is_digit(c)) {
        kind = SQL_TOKEN_NUMBER;
        while (end < text.len && (is_word(text.ptr[end]) || text.ptr[end] == '.'))
            end++;
    } else if (c == ';') {
        kind = SQL_TOKEN_SEMICOLON;
    } else if (c == '(') {
        kind = SQL_TOKEN_OPEN;
    } else if (c == ')') {
        kind = SQL_TOKEN_CLOSE;
    } else if ((unsigned char)c < 0x20 || c == 0x7f) {
        trouble = "a control character";
    }
    if (trouble == NULL) *out_token = (struct sql_token){kind, {text.ptr + at, end - at}};
    return trouble;
}

bool sql_word_in(deed_str word, const char *const *keywords, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (str_equal_fold(word, keywords[i])) return true;
    }
    return false;
}

deed_str sql_statement_verb(const struct sql_statement *statement)
{
    struct sql_token token = {0};
    const char *trouble = sql_token_at(statement->canonical, 0, &token);
    return trouble == NULL && token.kind == SQL_TOKEN_WORD ? token.text : (deed_str){0};
}

static uint32_t count_lines(deed_str text)
{
    uint32_t count = 0;
    for (size_t i = 0; i < text.len; i++)
        count += text.ptr[i] == '\n';
    return count;
}

uint32_t sql_statement_line(const struct sql_statement *statement, size_t offset)
{
    deed_str before = statement->text;
    if (offset < before.len) before.len = offset;
    return statement->line + count_lines(before);
}

static deed_str trim(deed_str s)
{
    while (s.len > 0 && is_space(s.ptr[0]))
        s.ptr++, s.len--;
    while (s.len > 0 && is_space(s.ptr[s.len - 1]))
        s.len--;
    return s;
}

static deed_str comment_text(deed_str token)
{
    return trim((deed_str){token.ptr + 2, token.len - 2});
}

/* Does nothing but white space stand before it on its line? */
static bool alone_on_line(const struct sql_reader *r, size_t at)
{
    while (at > 0 && r->text.ptr[at - 1] != '\n') {
        if (!is_space(r->text.ptr[--at])) return false;
    }
    return true;
}

/* ---- one statement -------------------------------------------------------------------------- */

struct gathering {
    struct buf text, canonical;
    struct sql_parameter parameters[SQL_PARAMETER_COUNT_MAX];
    size_t parameter_count;
    bool blank_due; /* canonical: white space since the last token */
};

static deed_status parameter_number(struct gathering *g, struct sql_token token, uint32_t line,
                                    size_t *out_number, struct deed_error *err)
{
    deed_str name = {token.text.ptr + 1, token.text.len - 1};
    bool optional = name.ptr[name.len - 1] == '?';
    if (optional) name.len--;
    for (size_t i = 0; i < g->parameter_count; i++) {
        if (g->parameters[i].optional == optional && deed_str_equal(g->parameters[i].name, name)) {
            *out_number = i + 1;
            return DEED_OK;
        }
    }
    if (g->parameter_count == SQL_PARAMETER_COUNT_MAX) {
        return deed_fail(err, DEED_TOO_LARGE, "line %u: a statement with more than %d parameters",
                         line, SQL_PARAMETER_COUNT_MAX);
    }
    g->parameters[g->parameter_count++] =
        (struct sql_parameter){.name = name, .optional = optional, .line = line};
    *out_number = g->parameter_count;
    return DEED_OK;
}

static deed_status gather_token(struct gathering *g, struct sql_token token, uint32_t line,
                                struct deed_error *err)
{
    if (token.kind == SQL_TOKEN_SPACE || token.kind == SQL_TOKEN_COMMENT ||
        token.kind == SQL_TOKEN_BLOCK_COMMENT) {
        buf_add_str(&g->text, token.text);
        g->blank_due = true;
        return DEED_OK;
    }
    if (g->blank_due && g->canonical.len > 0) buf_add_byte(&g->canonical, ' ');
    g->blank_due = false;
    buf_add_str(&g->canonical, token.text);
    if (token.kind != SQL_TOKEN_PARAMETER) {
        buf_add_str(&g->text, token.text);
        return DEED_OK;
    }
    size_t number = 0;
    deed_status status = parameter_number(g, token, line, &number, err);
    /* The blank keeps a digit that may follow from running into the number. */
    if (status == DEED_OK) buf_printf(&g->text, "?%zu ", number);
    return status;
}

static deed_status gathered(struct gathering *g, struct arena *arena, deed_str source,
                            uint32_t line, struct sql_statement *out, struct deed_error *err)
{
    source = trim(source);
    deed_str text = {(const char *)g->text.ptr, g->text.len};
    deed_str canonical = {(const char *)g->canonical.ptr, g->canonical.len};
    struct sql_parameter *parameters =
        arena_alloc_array(arena, g->parameter_count, sizeof *parameters);
    *out = (struct sql_statement){
        .text = arena_str(arena, text),
        .source = source,
        .canonical = arena_str(arena, canonical),
        .line = line,
        .parameters = parameters,
        .parameter_count = g->parameter_count,
    };
    if (!buf_ok(&g->text) || !buf_ok(&g->canonical) || out->text.ptr == NULL ||
        out->canonical.ptr == NULL || parameters == NULL) {
        return deed_fail(err, DEED_NO_MEMORY, "line %u: no memory for a statement", line);
    }
    if (g->parameter_count > 0) {
        memcpy(parameters, g->parameters, g->parameter_count * sizeof *parameters);
    }
    return DEED_OK;
}

static deed_status heading_inside(const struct sql_reader *r, deed_str comment, uint32_t begun,
                                  struct deed_error *err)
{
    return deed_fail(err, DEED_INVALID,
                     "line %u: the heading \"-- %.*s\" stands inside the statement that begins at "
                     "line %u: is a semicolon missing?",
                     r->line, DEED_FMT(comment), begun);
}

/* From the statement's first token, which is at r->at, past its semicolon. */
static deed_status read_statement(struct sql_reader *r, struct gathering *g,
                                  struct sql_statement *out, struct deed_error *err)
{
    size_t begin = r->at, depth = 0;
    uint32_t begin_line = r->line;
    for (;;) {
        struct sql_token token;
        const char *trouble = sql_token_at(r->text, r->at, &token);
        if (trouble != NULL) return deed_fail(err, DEED_INVALID, "line %u: %s", r->line, trouble);
        if (token.kind == SQL_TOKEN_END || token.kind == SQL_TOKEN_SEMICOLON) {
            deed_str source = {r->text.ptr + begin, r->at - begin};
            r->at += token.text.len;
            return gathered(g, r->arena, source, begin_line, out, err);
        }
        if (token.kind == SQL_TOKEN_COMMENT && depth == 0 && r->is_heading != NULL &&
            alone_on_line(r, r->at) && r->is_heading(comment_text(token.text))) {
            return heading_inside(r, comment_text(token.text), begin_line, err);
        }
        if (token.kind == SQL_TOKEN_OPEN) depth++;
        if (token.kind == SQL_TOKEN_CLOSE && depth > 0) depth--;
        deed_status status = gather_token(g, token, r->line, err);
        if (status != DEED_OK) return status;
        r->at += token.text.len;
        r->line += count_lines(token.text);
    }
}

static deed_status check_text(struct sql_reader *r, struct deed_error *err)
{
    if (r->text.len > SQL_TEXT_SIZE_MAX) {
        return deed_fail(err, DEED_TOO_LARGE, "%zu bytes of SQL, limit %u", r->text.len,
                         SQL_TEXT_SIZE_MAX);
    }
    if (!utf8_valid(deed_bytes_of(r->text))) {
        return deed_fail(err, DEED_INVALID, "the text is not UTF-8");
    }
    if (r->text.len > 0 && memchr(r->text.ptr, '\0', r->text.len) != NULL) {
        return deed_fail(err, DEED_INVALID, "the text has a NUL byte");
    }
    r->line = 1;
    return DEED_OK;
}

deed_status sql_next(struct sql_reader *r, struct sql_item *out_item, struct deed_error *err)
{
    assert(r->at <= r->text.len);
    deed_status status = r->line == 0 ? check_text(r, err) : DEED_OK;
    if (status != DEED_OK) return status;
    for (;;) {
        struct sql_token token;
        const char *trouble = sql_token_at(r->text, r->at, &token);
        if (trouble != NULL) return deed_fail(err, DEED_INVALID, "line %u: %s", r->line, trouble);
        struct sql_item item = {.line = r->line};
        switch (token.kind) {
        case SQL_TOKEN_END:
            *out_item = item;
            return DEED_OK;
        case SQL_TOKEN_COMMENT:
            item.kind = SQL_ITEM_COMMENT;
            item.comment = comment_text(token.text);
            if (!alone_on_line(r, r->at)) break;
            r->at += token.text.len;
            *out_item = item;
            return DEED_OK;
        case SQL_TOKEN_SPACE:
        case SQL_TOKEN_BLOCK_COMMENT:
        case SQL_TOKEN_SEMICOLON: /* an empty statement */
            break;
        default: {
            struct gathering g = {.parameter_count = 0};
            buf_init(&g.text, 2 * SQL_TEXT_SIZE_MAX);
            buf_init(&g.canonical, 2 * SQL_TEXT_SIZE_MAX);
            item.kind = SQL_ITEM_STATEMENT;
            status = read_statement(r, &g, &item.statement, err);
            buf_done(&g.text);
            buf_done(&g.canonical);
            if (status == DEED_OK) *out_item = item;
            return status;
        }
        }
        r->at += token.text.len;
        r->line += count_lines(token.text);
    }
}
