/* event_filter.c - prefixes by bisection, expressions by PCRE2, and what of both the index knows.
 *
 * (1) Prefixes are sorted, and none begins with another: then the only one that a name can begin with is
 *     the greatest that is not greater than the name.
 * (2) An expression has limits on its own size, on the steps and on the memory of a match. A client can
 *     waste a millisecond an event, not a thread.
 * (3) Narrowing never leaves out a match. "order-1" as a prefix is the category "order" and more; "^order-1"
 *     is the same prefix, if there is no alternative to it; "^order-1$" is one stream. Where it is not
 *     obvious, every event is looked at. */
#include "api/event_filter.h"

#include "base/hash.h"
#include "base/text.h"
#include "index/index.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <assert.h>
#include <stdlib.h>

/* A name has 1,024 bytes at most: what is linear or square in it ends far below. */
#define STEPS_MAX    100000
#define DEPTH_MAX    10000
#define HEAP_MAX_KIB 4096

/* The compiler for the machine takes time and memory by the size of what it translates. */
#define JIT_SIZE_MAX 8192

/* Each of them is looked up for every event that is read. */
#define NARROW_COUNT_MAX 32

/* Names come again and again, types above all. */
#define VERDICTS          256
#define VERDICT_SIZE_MAX  62
struct verdict {
    uint8_t len_and_one; /* 0: empty */
    bool matches;
    char text[VERDICT_SIZE_MAX];
};
static_assert(VERDICT_SIZE_MAX < UINT8_MAX, "the length has a byte");

enum narrow { NARROW_NOT, NARROW_STREAMS, NARROW_TYPES, NARROW_CATEGORIES };

struct event_filter {
    enum event_filter_subject subject;
    deed_str *prefixes; /* (1) */
    size_t prefix_count;
    pcre2_code *code; /* NULL: prefixes */
    pcre2_match_data *match;
    pcre2_match_context *limits;
    struct verdict *verdicts;
    enum narrow narrow;
    deed_str terms[NARROW_COUNT_MAX];
    size_t term_count;
};

/* ---- prefixes ------------------------------------------------------------------------------- */

/* (1) */
static deed_status prefixes_create(struct event_filter *f, const struct event_filter_options *o,
                                   struct arena *arena, struct deed_error *err)
{
    if (o->prefix_count == 0) {
        return deed_fail(err, DEED_INVALID, "filter: there is neither a regex nor a prefix");
    }
    if (o->prefix_count > EVENT_FILTER_PREFIX_COUNT_MAX) {
        return deed_fail(err, DEED_TOO_LARGE, "filter: %zu prefixes, limit %d", o->prefix_count,
                         EVENT_FILTER_PREFIX_COUNT_MAX);
    }
    deed_str *all = arena_alloc_array(arena, o->prefix_count, sizeof *all);
    if (all == NULL) return deed_fail(err, DEED_NO_MEMORY, "filter: out of memory");
    for (size_t i = 0; i < o->prefix_count; i++) {
        all[i] = arena_str(arena, o->prefixes[i]);
        if (all[i].ptr == NULL) return deed_fail(err, DEED_NO_MEMORY, "filter: out of memory");
    }
    qsort(all, o->prefix_count, sizeof *all, str_order);
    size_t kept = 1;
    for (size_t i = 1; i < o->prefix_count; i++) {
        if (!str_starts_with(all[i], all[kept - 1])) all[kept++] = all[i];
    }
    f->prefixes = all;
    f->prefix_count = kept;
    return DEED_OK;
}

static bool prefixes_match(const struct event_filter *f, deed_str name)
{
    size_t low = 0; /* behind the greatest that is not greater than the name */
    size_t high = f->prefix_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (str_compare(f->prefixes[middle], name) <= 0) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low > 0 && str_starts_with(name, f->prefixes[low - 1]);
}

/* ---- expressions ---------------------------------------------------------------------------- */

static deed_status regex_fail(int code, size_t offset, deed_str regex, struct deed_error *err)
{
    PCRE2_UCHAR why[128];
    if (code == PCRE2_ERROR_NOMEMORY) {
        return deed_fail(err, DEED_NO_MEMORY, "filter: out of memory");
    }
    (void)pcre2_get_error_message(code, why, sizeof why);
    deed_str shown = {regex.ptr, regex.len < 200 ? regex.len : 200};
    return deed_fail(err, DEED_INVALID, "filter: regex %.*s: at offset %zu: %s", DEED_FMT(shown),
                     offset, (const char *)why);
}

/* (2) */
static deed_status regex_create(struct event_filter *f, deed_str regex, struct arena *arena,
                                struct deed_error *err)
{
    /* As .NET has it: classes know all of Unicode, "\u00e4" is a character. A name that is no UTF-8 matches
     * nothing where it is not. */
    uint32_t options = PCRE2_UTF | PCRE2_UCP | PCRE2_MATCH_INVALID_UTF | PCRE2_ALT_BSUX |
                       PCRE2_NEVER_BACKSLASH_C;
    int code = 0;
    PCRE2_SIZE offset = 0;
    if (regex.len > EVENT_FILTER_REGEX_SIZE_MAX) {
        return deed_fail(err, DEED_TOO_LARGE, "filter: a regex of %zu bytes, limit %d", regex.len,
                         EVENT_FILTER_REGEX_SIZE_MAX);
    }
    f->verdicts = arena_alloc_array(arena, VERDICTS, sizeof *f->verdicts);
    f->limits = pcre2_match_context_create(NULL);
    if (f->verdicts == NULL || f->limits == NULL) {
        return deed_fail(err, DEED_NO_MEMORY, "filter: out of memory");
    }
    (void)pcre2_set_match_limit(f->limits, STEPS_MAX);
    (void)pcre2_set_depth_limit(f->limits, DEPTH_MAX);
    (void)pcre2_set_heap_limit(f->limits, HEAP_MAX_KIB);
    f->code = pcre2_compile((PCRE2_SPTR)regex.ptr, regex.len, options, &code, &offset, NULL);
    if (f->code == NULL) return regex_fail(code, offset, regex, err);
    f->match = pcre2_match_data_create(1, NULL);
    if (f->match == NULL) return deed_fail(err, DEED_NO_MEMORY, "filter: out of memory");
    size_t size = 0;
    (void)pcre2_pattern_info(f->code, PCRE2_INFO_SIZE, &size);
    /* Where it fails the interpreter does it. */
    if (size <= JIT_SIZE_MAX) (void)pcre2_jit_compile(f->code, PCRE2_JIT_COMPLETE);
    return DEED_OK;
}

static deed_status regex_match(struct event_filter *f, deed_str name, bool *out_matches,
                               struct deed_error *err)
{
    PCRE2_SPTR text = (PCRE2_SPTR)(name.len == 0 ? "" : name.ptr);
    int code = pcre2_match(f->code, text, name.len, 0, 0, f->match, f->limits);
    if (code == PCRE2_ERROR_JIT_STACKLIMIT) {
        code = pcre2_match(f->code, text, name.len, 0, PCRE2_NO_JIT, f->match, f->limits);
    }
    *out_matches = code >= 0;
    if (code >= 0 || code == PCRE2_ERROR_NOMATCH) return DEED_OK;
    if (code == PCRE2_ERROR_NOMEMORY) {
        return deed_fail(err, DEED_NO_MEMORY, "filter: out of memory");
    }
    return deed_fail(err, DEED_TOO_LARGE, "filter: the regex takes too many steps on the %s %.*s",
                     f->subject == EVENT_FILTER_TYPE ? "type" : "stream", DEED_FMT(name));
}

static struct verdict *verdict_of(struct event_filter *f, deed_str name)
{
    if (name.len > VERDICT_SIZE_MAX) return NULL;
    return &f->verdicts[xxh64(0, deed_bytes_of(name)) % VERDICTS];
}

deed_status event_filter_match(struct event_filter *f, const struct deed_event *event,
                               bool *out_matches, struct deed_error *err)
{
    deed_str name = f->subject == EVENT_FILTER_TYPE ? event->type : event->stream;
    if (f->code == NULL) {
        *out_matches = prefixes_match(f, name);
        return DEED_OK;
    }
    struct verdict *v = verdict_of(f, name);
    if (v != NULL && v->len_and_one == name.len + 1 && memcmp(v->text, name.ptr, name.len) == 0) {
        *out_matches = v->matches;
        return DEED_OK;
    }
    bool matches = false;
    deed_status status = regex_match(f, name, &matches, err);
    if (status != DEED_OK) return status;
    if (v != NULL) {
        v->len_and_one = (uint8_t)(name.len + 1);
        v->matches = matches;
        if (name.len > 0) memcpy(v->text, name.ptr, name.len);
    }
    *out_matches = matches;
    return DEED_OK;
}

/* ---- what the index knows (3) --------------------------------------------------------------- */

/* What every match of the expression begins with, into `out`, which has room for all of it; and whether
 * it is all of the name. false: not known. */
static bool regex_beginning(deed_str regex, char *out, size_t *out_len, bool *out_whole)
{
    size_t len = 0;
    *out_whole = false;
    if (regex.len == 0 || regex.ptr[0] != '^') return false;
    if (memchr(regex.ptr, '|', regex.len) != NULL) return false;
    for (size_t i = 1; i < regex.len; i++) {
        char c = regex.ptr[i];
        bool escaped = c == '\\' && i + 1 < regex.len;
        if (escaped) c = regex.ptr[++i];
        bool alnum = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
        bool mark = c > ' ' && c <= '~' && !alnum;
        if (escaped ? !mark : !alnum && (!mark || strchr("\\^$.|?*+()[]{}", c) != NULL)) {
            *out_whole = !escaped && c == '$' && i + 1 == regex.len;
            bool repeats = !escaped && c != '\0' && strchr("?*+{", c) != NULL;
            if (repeats && len > 0) len--;
            break;
        }
        out[len++] = c;
    }
    *out_len = len;
    return len > 0;
}

static bool term_add(struct event_filter *f, deed_str term)
{
    for (size_t i = 0; i < f->term_count; i++) {
        if (deed_str_equal(f->terms[i], term)) return true;
    }
    if (f->term_count == NARROW_COUNT_MAX) return false;
    f->terms[f->term_count++] = term;
    return true;
}

/* Streams that begin so are all of one category? */
static bool category_add(struct event_filter *f, deed_str prefix)
{
    deed_str category = index_category_of(prefix);
    return category.ptr != NULL && term_add(f, category);
}

/* `$` matches before a last line feed, too. */
static bool whole_add(struct event_filter *f, deed_str name, struct arena *arena)
{
    deed_str with_line_feed = arena_printf(arena, "%.*s\n", DEED_FMT(name));
    return with_line_feed.ptr != NULL && term_add(f, name) && term_add(f, with_line_feed);
}

static void find_terms(struct event_filter *f, deed_str regex, struct arena *arena)
{
    if (f->code == NULL) {
        bool all = f->subject == EVENT_FILTER_STREAM;
        for (size_t i = 0; all && i < f->prefix_count; i++) all = category_add(f, f->prefixes[i]);
        if (all) f->narrow = NARROW_CATEGORIES;
        return;
    }
    char *text = arena_alloc(arena, regex.len);
    size_t len = 0;
    bool whole = false;
    if (text == NULL || !regex_beginning(regex, text, &len, &whole)) return;
    deed_str beginning = {text, len};
    if (whole) {
        bool added = whole_add(f, beginning, arena);
        enum narrow narrow = f->subject == EVENT_FILTER_TYPE ? NARROW_TYPES : NARROW_STREAMS;
        if (added) f->narrow = narrow;
    } else if (f->subject == EVENT_FILTER_STREAM && category_add(f, beginning)) {
        f->narrow = NARROW_CATEGORIES;
    }
}

bool event_filter_narrow(const struct event_filter *f, struct deed_filter *read)
{
    switch (f->narrow) {
    case NARROW_STREAMS:
        read->streams = f->terms;
        read->stream_count = f->term_count;
        return true;
    case NARROW_TYPES:
        read->types = f->terms;
        read->type_count = f->term_count;
        return true;
    case NARROW_CATEGORIES:
        read->categories = f->terms;
        read->category_count = f->term_count;
        return true;
    case NARROW_NOT: break;
    }
    return false;
}

/* ---- life ----------------------------------------------------------------------------------- */

deed_status event_filter_create(const struct event_filter_options *options, struct arena *arena,
                                struct event_filter **out_filter, struct deed_error *err)
{
    struct event_filter *f = arena_alloc(arena, sizeof *f);
    if (f == NULL) return deed_fail(err, DEED_NO_MEMORY, "filter: out of memory");
    f->subject = options->subject;
    deed_status status = options->regex.len > 0 ? regex_create(f, options->regex, arena, err)
                                                : prefixes_create(f, options, arena, err);
    if (status != DEED_OK) {
        event_filter_destroy(f);
        return status;
    }
    find_terms(f, options->regex, arena);
    assert((f->narrow == NARROW_NOT) || f->term_count > 0);
    *out_filter = f;
    return DEED_OK;
}

void event_filter_destroy(struct event_filter *f)
{
    if (f == NULL) return;
    pcre2_match_data_free(f->match);
    pcre2_match_context_free(f->limits);
    pcre2_code_free(f->code);
}
