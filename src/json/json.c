/* json.c - one pass over the text, no recursion, a tape of 16-byte nodes.
 *
 *     {"a": [1, "x\n"]}
 *
 *     node 0  object  raw {"a": [1, "x\n"]}   count 1
 *     node 1    its span: 8 nodes from node 0 on
 *     node 2  string  raw "a"                 count 1 (bytes of decoded text)
 *     node 3  array   raw [1, "x\n"]          count 2
 *     node 4    its span: 5
 *     node 5  number  raw 1
 *     node 6  string  raw "x\n"               count 2
 *     node 7    its decoded text
 *
 * (1) A node's kind is told by the first byte of its raw text.
 * (2) A container's node is followed by its span node, then by its members (key node, value) or
 *     elements. The span counts every node of the container, its own two included.
 * (3) A string has escapes if and only if its decoded text is shorter than its raw text without
 *     quotes (every escape shrinks); then a node with the decoded text follows it.
 * (4) Keys of the objects that are open lie on a stack of their own, so that checking without a
 *     tape finds duplicates too. When an object closes, its keys are compared: few of them pair by
 *     pair on a 32-bit signature, many by sorting. Sorting is by hash, then by bytes: a hostile
 *     object can make the hashes collide, but not make it quadratic.
 * (5) No byte at or past `end` is ever read. */
#include "json/json.h"

#include "base/hash.h"
#include "base/text.h"

#include <assert.h>
#include <locale.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#ifdef __SSE2__
#include <emmintrin.h>
#endif

struct json_node {
    const char *raw;
    uint32_t raw_size;
    uint32_t count; /* members, elements, bytes of decoded text; in a span node: nodes */
};

#define DEPTH_MAX_DEFAULT 64

/* Objects with more members than this are checked for duplicates by sorting. At 16, comparing all
 * pairs of signatures costs about as much as reading the keys did. */
#define PAIRWISE_MAX 16

/* Enough for usual documents without asking malloc. */
#define KEYS_INLINE 64
#define FRAMES_INLINE 64

struct key {
    const char *ptr; /* decoded */
    uint32_t len;
    uint32_t signature; /* equal for equal keys */
    size_t offset;      /* of its opening quote in the text */
};

struct frame {
    size_t node;       /* of the container, when there is a tape */
    size_t key_base;   /* first of its keys on the key stack */
    const char *raw;   /* its first byte */
    uint32_t count;    /* members or elements so far */
    bool is_object;
};

struct parser {
    const char *start, *at, *end;
    struct deed_error *err;
    struct arena *arena; /* of the tape and of decoded strings */
    struct json_node *tape;
    size_t node_count, node_room;
    bool has_tape;
    struct key *keys;
    size_t key_count, key_room;
    struct frame *frames;
    size_t depth, frame_room, depth_max;
    struct key keys_inline[KEYS_INLINE];
    struct frame frames_inline[FRAMES_INLINE];
};

/* ---- trouble ------------------------------------------------------------------------------ */

static deed_status fail_at(struct parser *p, const char *at, const char *what)
{
    return deed_fail(p->err, DEED_INVALID, "json: byte %zu: %s", (size_t)(at - p->start), what);
}

static deed_status fail_unexpected(struct parser *p, const char *wanted)
{
    if (p->at == p->end) {
        return deed_fail(p->err, DEED_INVALID, "json: byte %zu: the text ends where %s should be",
                         (size_t)(p->at - p->start), wanted);
    }
    unsigned char c = (unsigned char)*p->at;
    size_t offset = (size_t)(p->at - p->start);
    if (c > 0x20 && c < 0x7f) {
        return deed_fail(p->err, DEED_INVALID, "json: byte %zu: '%c' where %s should be", offset, c,
                         wanted);
    }
    return deed_fail(p->err, DEED_INVALID, "json: byte %zu: 0x%02x where %s should be", offset, c,
                     wanted);
}

/* A message is one line: the key is shown up to its first control character. */
static deed_status fail_duplicate(struct parser *p, const struct key *key)
{
    size_t len = 0;
    while (len < key->len && (unsigned char)key->ptr[len] >= 0x20 && key->ptr[len] != 0x7f) len++;
    deed_str shown = str_beginning((deed_str){key->ptr, len}, 64);
    return deed_fail(p->err, DEED_INVALID, "json: byte %zu: duplicate key \"%.*s\"%s", key->offset,
                     DEED_FMT(shown), shown.len < key->len ? "..." : "");
}

static deed_status fail_memory(struct parser *p)
{
    return deed_fail(p->err, DEED_NO_MEMORY, "json: out of memory for %zu bytes of text",
                     (size_t)(p->end - p->start));
}

/* The arena gave nothing: the limit is the caller's fault, memory is not. */
static deed_status fail_arena(struct parser *p)
{
    if (p->arena->no_memory) return fail_memory(p);
    return deed_fail(p->err, DEED_TOO_LARGE, "json: over the request's memory limit, %zu bytes",
                     p->arena->total_max);
}

/* ---- the tape ----------------------------------------------------------------------------- */

/* Moves the tape to twice the room; the old one stays in the arena until its reset. */
static deed_status tape_grow(struct parser *p)
{
    size_t room = p->node_room * 2;
    struct json_node *tape = arena_alloc_array(p->arena, room, sizeof *tape);
    if (tape == NULL) return fail_arena(p);
    memcpy(tape, p->tape, p->node_count * sizeof *tape);
    p->tape = tape;
    p->node_room = room;
    return DEED_OK;
}

/* Room for the two nodes that one value may take. */
static inline deed_status tape_reserve(struct parser *p)
{
    if (p->node_room - p->node_count >= 2) return DEED_OK;
    return tape_grow(p);
}

/* ---- strings ------------------------------------------------------------------------------ */

static int hex_value(char c)
{
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

/* The four digits behind "\u"; -1 if they are not there. */
static int32_t hex_four(const char *at, const char *end)
{
    if (end - at < 4) return -1;
    int32_t value = 0;
    for (int i = 0; i < 4; i++) {
        int digit = hex_value(at[i]);
        if (digit < 0) return -1;
        value = value << 4 | digit;
    }
    return value;
}

/* `at` is a backslash; past the escape on success. */
static deed_status escape_check(struct parser *p, const char **at)
{
    const char *s = *at;
    if (p->end - s < 2) return fail_at(p, s, "a string without its closing quote");
    switch (s[1]) {
    case '"':
    case '\\':
    case '/':
    case 'b':
    case 'f':
    case 'n':
    case 'r':
    case 't':
        *at = s + 2;
        return DEED_OK;
    case 'u':
        break;
    default:
        return fail_at(p, s, "an escape that JSON does not know");
    }
    int32_t unit = hex_four(s + 2, p->end);
    if (unit < 0) return fail_at(p, s, "\\u without four hexadecimal digits");
    if (unit >= 0xdc00 && unit <= 0xdfff) return fail_at(p, s, "a low surrogate alone");
    if (unit < 0xd800 || unit > 0xdbff) {
        *at = s + 6;
        return DEED_OK;
    }
    int32_t low = p->end - s >= 12 && s[6] == '\\' && s[7] == 'u' ? hex_four(s + 8, p->end) : -1;
    if (low < 0xdc00 || low > 0xdfff) return fail_at(p, s, "a high surrogate alone");
    *at = s + 12;
    return DEED_OK;
}

/* The first byte from `at` on that is a quote, a backslash or a control character, or `end`.
 * `*high` becomes non-zero if a byte past ASCII may be before it. */
static inline const char *string_run(const char *at, const char *end, unsigned *high)
{
#ifdef __SSE2__
    const __m128i quote = _mm_set1_epi8('"'), backslash = _mm_set1_epi8('\\');
    const __m128i control = _mm_set1_epi8(0x1f);
    while (end - at >= 16) {
        __m128i bytes = _mm_loadu_si128((const __m128i *)(const void *)at);
        __m128i stop = _mm_or_si128(_mm_cmpeq_epi8(bytes, quote), _mm_cmpeq_epi8(bytes, backslash));
        stop = _mm_or_si128(stop, _mm_cmpeq_epi8(_mm_min_epu8(bytes, control), bytes));
        unsigned mask = (unsigned)_mm_movemask_epi8(stop);
        unsigned high_mask = (unsigned)_mm_movemask_epi8(bytes);
        if (mask != 0) {
            unsigned index = (unsigned)__builtin_ctz(mask);
            *high |= high_mask & ((1u << index) - 1);
            return at + index;
        }
        *high |= high_mask;
        at += 16;
    }
#else
    /* Eight at a time, by carries: a byte's top bit in `stop` is set if it is one to look at. */
    const uint64_t ones = UINT64_C(0x0101010101010101), tops = UINT64_C(0x8080808080808080);
    while (end - at >= 8) {
        uint64_t bytes;
        memcpy(&bytes, at, 8);
        uint64_t quote = bytes ^ ones * '"', backslash = bytes ^ ones * '\\';
        uint64_t stop = ((quote - ones) & ~quote) | ((backslash - ones) & ~backslash) |
                        ((bytes - ones * 0x20) & ~bytes);
        if ((stop & tops) != 0) break;
        *high |= (bytes & tops) != 0;
        at += 8;
    }
#endif
    for (; at < end; at++) {
        unsigned char c = (unsigned char)*at;
        if (c == '"' || c == '\\' || c < 0x20) break;
        *high |= c & 0x80;
    }
    return at;
}

/* `p->at` is behind the opening quote; behind the closing one on success. Checks everything that a
 * string must be. */
static deed_status string_scan(struct parser *p, bool *out_escaped)
{
    const char *begin = p->at, *at = begin;
    unsigned high = 0;
    bool escaped = false;
    for (;;) {
        at = string_run(at, p->end, &high);
        if (at == p->end) return fail_at(p, begin - 1, "a string without its closing quote");
        if (*at == '"') break;
        if (*at != '\\') return fail_at(p, at, "a raw control character in a string");
        escaped = true;
        deed_status status = escape_check(p, &at);
        if (status != DEED_OK) return status;
    }
    if (high != 0 && !utf8_valid((deed_bytes){(const uint8_t *)begin, (size_t)(at - begin)})) {
        return fail_at(p, begin - 1, "a string that is not UTF-8");
    }
    p->at = at + 1;
    *out_escaped = escaped;
    return DEED_OK;
}

static char *utf8_put(char *out, uint32_t c)
{
    if (c < 0x80) {
        *out++ = (char)c;
    } else if (c < 0x800) {
        *out++ = (char)(0xc0 | c >> 6);
        *out++ = (char)(0x80 | (c & 0x3f));
    } else if (c < 0x10000) {
        *out++ = (char)(0xe0 | c >> 12);
        *out++ = (char)(0x80 | (c >> 6 & 0x3f));
        *out++ = (char)(0x80 | (c & 0x3f));
    } else {
        *out++ = (char)(0xf0 | c >> 18);
        *out++ = (char)(0x80 | (c >> 12 & 0x3f));
        *out++ = (char)(0x80 | (c >> 6 & 0x3f));
        *out++ = (char)(0x80 | (c & 0x3f));
    }
    return out;
}

static const char *escape_decode(const char *at, const char *end, char **out)
{
    switch (at[1]) {
    case 'b':
        *(*out)++ = '\b';
        return at + 2;
    case 'f':
        *(*out)++ = '\f';
        return at + 2;
    case 'n':
        *(*out)++ = '\n';
        return at + 2;
    case 'r':
        *(*out)++ = '\r';
        return at + 2;
    case 't':
        *(*out)++ = '\t';
        return at + 2;
    case 'u':
        break;
    default:
        *(*out)++ = at[1];
        return at + 2;
    }
    uint32_t unit = (uint32_t)hex_four(at + 2, end);
    if (unit < 0xd800 || unit > 0xdbff) {
        *out = utf8_put(*out, unit);
        return at + 6;
    }
    uint32_t low = (uint32_t)hex_four(at + 8, end);
    *out = utf8_put(*out, 0x10000 + ((unit - 0xd800) << 10) + (low - 0xdc00));
    return at + 12;
}

/* Decode a string that string_scan has checked; without quotes. */
static deed_status string_decode(struct parser *p, const char *at, const char *end,
                                 deed_str *out_text)
{
    char *text = arena_alloc(p->arena, (size_t)(end - at));
    if (text == NULL) return fail_arena(p);
    char *out = text;
    while (at < end) {
        const char *escape = memchr(at, '\\', (size_t)(end - at));
        size_t run = (size_t)((escape == NULL ? end : escape) - at);
        memcpy(out, at, run);
        out += run;
        at += run;
        if (at < end) at = escape_decode(at, end, &out);
    }
    *out_text = (deed_str){text, (size_t)(out - text)};
    return DEED_OK;
}

/* ---- keys --------------------------------------------------------------------------------- */

static uint32_t key_signature(deed_str s)
{
    uint32_t first = 0, last = 0;
    if (s.len >= 4) {
        memcpy(&first, s.ptr, 4);
        memcpy(&last, s.ptr + s.len - 4, 4);
    } else if (s.len > 0) {
        first = (uint32_t)(unsigned char)s.ptr[0] << 16 |
                (uint32_t)(unsigned char)s.ptr[s.len / 2] << 8 |
                (uint32_t)(unsigned char)s.ptr[s.len - 1];
    }
    return (first * UINT32_C(0x9e3779b1)) ^ (last * UINT32_C(0x85ebca77)) ^ (uint32_t)s.len;
}

static deed_status key_push(struct parser *p, deed_str text, size_t offset)
{
    if (p->key_count == p->key_room) {
        size_t room = p->key_room * 2;
        bool is_inline = p->keys == p->keys_inline;
        struct key *keys = realloc(is_inline ? NULL : p->keys, room * sizeof *keys);
        if (keys == NULL) return fail_memory(p);
        if (is_inline) memcpy(keys, p->keys_inline, sizeof p->keys_inline);
        p->keys = keys;
        p->key_room = room;
    }
    p->keys[p->key_count++] = (struct key){.ptr = text.ptr,
                                           .len = (uint32_t)text.len,
                                           .signature = key_signature(text),
                                           .offset = offset};
    return DEED_OK;
}

/* A key to sort: by hash, then by bytes, then by place. */
struct sort_key {
    uint64_t hash;
    deed_str text;
    size_t index;
};

static int sort_key_compare(const struct sort_key *a, const struct sort_key *b)
{
    if (a->hash != b->hash) return a->hash < b->hash ? -1 : 1;
    return str_compare(a->text, b->text);
}

/* Bottom-up merge sort, stable; `spare` is as long as `keys`. Returns where the result lies. */
static struct sort_key *sort_keys(struct sort_key *keys, struct sort_key *spare, size_t count)
{
    for (size_t width = 1; width < count; width *= 2) {
        for (size_t low = 0; low < count; low += 2 * width) {
            size_t middle = count - low < width ? count : low + width;
            size_t high = count - middle < width ? count : middle + width;
            size_t a = low, b = middle;
            for (size_t i = low; i < high; i++) {
                bool take_a = a < middle &&
                              (b == high || sort_key_compare(&keys[a], &keys[b]) <= 0);
                spare[i] = take_a ? keys[a++] : keys[b++];
            }
        }
        struct sort_key *swap = keys;
        keys = spare;
        spare = swap;
    }
    return keys;
}

static deed_status keys_check_many(struct parser *p, const struct key *keys, size_t count)
{
    struct sort_key *memory = malloc(2 * count * sizeof *memory);
    if (memory == NULL) return fail_memory(p);
    for (size_t i = 0; i < count; i++) {
        deed_str text = {keys[i].ptr, keys[i].len};
        memory[i] = (struct sort_key){xxh64(0, deed_bytes_of(text)), text, i};
    }
    const struct sort_key *sorted = sort_keys(memory, memory + count, count);

    deed_status status = DEED_OK;
    for (size_t i = 1; i < count && status == DEED_OK; i++) {
        if (sort_key_compare(&sorted[i - 1], &sorted[i]) == 0) {
            status = fail_duplicate(p, &keys[sorted[i].index]);
        }
    }
    free(memory);
    return status;
}

static deed_status keys_check(struct parser *p, size_t base)
{
    const struct key *keys = p->keys + base;
    size_t count = p->key_count - base;
    if (count > PAIRWISE_MAX) return keys_check_many(p, keys, count);
    for (size_t i = 1; i < count; i++) {
        for (size_t k = 0; k < i; k++) {
            if (keys[i].signature == keys[k].signature && keys[i].len == keys[k].len &&
                memcmp(keys[i].ptr, keys[k].ptr, keys[i].len) == 0) {
                return fail_duplicate(p, &keys[i]);
            }
        }
    }
    return DEED_OK;
}

/* ---- values ------------------------------------------------------------------------------- */

static inline void space_skip(struct parser *p)
{
    const char *at = p->at, *end = p->end;
    while (at < end && (*at == ' ' || *at == '\n' || *at == '\r' || *at == '\t')) {
        /* Indentation comes in runs. */
        while (end - at >= 8 && memcmp(at, "        ", 8) == 0) at += 8;
        if (at < end && (*at == ' ' || *at == '\n' || *at == '\r' || *at == '\t')) at++;
    }
    p->at = at;
}

static inline bool is_digit(const char *at, const char *end)
{
    return at < end && *at >= '0' && *at <= '9';
}

static deed_status number_scan(struct parser *p)
{
    const char *at = p->at, *end = p->end;
    if (*at == '-') at++;
    if (!is_digit(at, end)) {
        p->at = at;
        return fail_unexpected(p, "a digit");
    }
    if (*at == '0') {
        at++;
        if (is_digit(at, end)) return fail_at(p, at - 1, "a number with a leading zero");
    } else {
        while (is_digit(at, end)) at++;
    }
    if (at < end && *at == '.') {
        p->at = ++at;
        if (!is_digit(at, end)) return fail_unexpected(p, "a digit behind the point");
        while (is_digit(at, end)) at++;
    }
    if (at < end && (*at == 'e' || *at == 'E')) {
        at++;
        if (at < end && (*at == '+' || *at == '-')) at++;
        p->at = at;
        if (!is_digit(at, end)) return fail_unexpected(p, "a digit of the exponent");
        while (is_digit(at, end)) at++;
    }
    p->at = at;
    return DEED_OK;
}

static deed_status literal_scan(struct parser *p, const char *word, size_t len)
{
    if ((size_t)(p->end - p->at) < len || memcmp(p->at, word, len) != 0) {
        return fail_unexpected(p, "a value");
    }
    p->at += len;
    return DEED_OK;
}

/* A string, as value or as key: `p->at` is at its opening quote. */
static deed_status string_take(struct parser *p, bool is_key)
{
    const char *raw = p->at++;
    bool escaped = false;
    deed_status status = string_scan(p, &escaped);
    if (status != DEED_OK) return status;

    deed_str text = {raw + 1, (size_t)(p->at - raw) - 2};
    if (escaped && (p->has_tape || is_key)) {
        status = string_decode(p, text.ptr, text.ptr + text.len, &text);
        if (status != DEED_OK) return status;
    }
    if (p->has_tape) {
        status = tape_reserve(p);
        if (status != DEED_OK) return status;
        p->tape[p->node_count++] =
            (struct json_node){raw, (uint32_t)(p->at - raw), (uint32_t)text.len};
        if (escaped) p->tape[p->node_count++] = (struct json_node){.raw = text.ptr};
    }
    return is_key ? key_push(p, text, (size_t)(raw - p->start)) : DEED_OK;
}

static deed_status scalar_take(struct parser *p)
{
    const char *raw = p->at;
    deed_status status;
    if (*raw == 't') {
        status = literal_scan(p, "true", 4);
    } else if (*raw == 'f') {
        status = literal_scan(p, "false", 5);
    } else if (*raw == 'n') {
        status = literal_scan(p, "null", 4);
    } else if (*raw == '-' || (*raw >= '0' && *raw <= '9')) {
        status = number_scan(p);
    } else {
        status = fail_unexpected(p, "a value");
    }
    if (status != DEED_OK || !p->has_tape) return status;

    status = tape_reserve(p);
    if (status != DEED_OK) return status;
    p->tape[p->node_count++] = (struct json_node){raw, (uint32_t)(p->at - raw), 0};
    return DEED_OK;
}

static deed_status container_open(struct parser *p)
{
    if (p->depth >= p->depth_max) {
        return deed_fail(p->err, DEED_TOO_LARGE, "json: byte %zu: nested deeper than %zu levels",
                         (size_t)(p->at - p->start), p->depth_max);
    }
    if (p->depth == p->frame_room) {
        bool is_inline = p->frames == p->frames_inline;
        struct frame *frames =
            realloc(is_inline ? NULL : p->frames, 2 * p->frame_room * sizeof *frames);
        if (frames == NULL) return fail_memory(p);
        if (is_inline) memcpy(frames, p->frames_inline, sizeof p->frames_inline);
        p->frames = frames;
        p->frame_room *= 2;
    }
    if (p->has_tape) {
        deed_status status = tape_reserve(p);
        if (status != DEED_OK) return status;
    }
    p->frames[p->depth++] = (struct frame){.node = p->node_count,
                                           .key_base = p->key_count,
                                           .raw = p->at,
                                           .is_object = *p->at == '{'};
    if (p->has_tape) p->node_count += 2;
    p->at++;
    return DEED_OK;
}

static deed_status container_close(struct parser *p)
{
    struct frame *frame = &p->frames[p->depth - 1];
    p->at++;
    if (frame->is_object) {
        deed_status status = keys_check(p, frame->key_base);
        if (status != DEED_OK) return status;
        p->key_count = frame->key_base;
    }
    if (p->has_tape) {
        p->tape[frame->node] =
            (struct json_node){frame->raw, (uint32_t)(p->at - frame->raw), frame->count};
        p->tape[frame->node + 1] =
            (struct json_node){.count = (uint32_t)(p->node_count - frame->node)};
    }
    p->depth--;
    return DEED_OK;
}

/* A key and its colon. */
static deed_status key_take(struct parser *p)
{
    if (p->at == p->end || *p->at != '"') return fail_unexpected(p, "a key in quotes");
    deed_status status = string_take(p, true);
    if (status != DEED_OK) return status;
    space_skip(p);
    if (p->at == p->end || *p->at != ':') return fail_unexpected(p, "':'");
    p->at++;
    return DEED_OK;
}

/* What may follow '{' or '[': the end, or the first member's key. `*out_closed`: it was the end. */
static deed_status container_begin(struct parser *p, bool *out_closed)
{
    bool is_object = *p->at == '{';
    deed_status status = container_open(p);
    if (status != DEED_OK) return status;
    space_skip(p);
    *out_closed = p->at < p->end && *p->at == (is_object ? '}' : ']');
    if (*out_closed) return container_close(p);
    return is_object ? key_take(p) : DEED_OK;
}

/* After a value inside a container: a comma (and the next key), or the end. */
static deed_status container_continue(struct parser *p, bool *out_closed)
{
    struct frame *frame = &p->frames[p->depth - 1];
    space_skip(p);
    char c = p->at < p->end ? *p->at : '\0';
    *out_closed = c == (frame->is_object ? '}' : ']');
    if (*out_closed) return container_close(p);
    if (c != ',') return fail_unexpected(p, frame->is_object ? "',' or '}'" : "',' or ']'");
    p->at++;
    if (!frame->is_object) return DEED_OK;
    space_skip(p);
    return key_take(p);
}

static deed_status document_parse(struct parser *p)
{
    for (;;) {
        bool closed = true; /* a value ended here */
        deed_status status;
        space_skip(p);
        if (p->at == p->end) return fail_unexpected(p, "a value");
        if (p->depth > 0) p->frames[p->depth - 1].count++;
        if (*p->at == '"') {
            status = string_take(p, false);
        } else if (*p->at == '{' || *p->at == '[') {
            status = container_begin(p, &closed);
        } else {
            status = scalar_take(p);
        }
        while (status == DEED_OK && closed && p->depth > 0) status = container_continue(p, &closed);
        if (status != DEED_OK) return status;
        if (closed) break;
    }
    space_skip(p);
    if (p->at != p->end) return fail_unexpected(p, "the end");
    return DEED_OK;
}

static void parser_init(struct parser *p, deed_bytes text, uint32_t depth_max, struct arena *arena,
                        struct deed_error *err)
{
    static const char nothing[1];
    p->start = text.len == 0 ? nothing : (const char *)text.ptr;
    p->at = p->start;
    p->end = p->start + text.len;
    p->err = err;
    p->arena = arena;
    p->tape = NULL;
    p->node_count = p->node_room = 0;
    p->has_tape = false;
    p->keys = p->keys_inline;
    p->key_count = 0;
    p->key_room = KEYS_INLINE;
    p->frames = p->frames_inline;
    p->depth = 0;
    p->frame_room = FRAMES_INLINE;
    p->depth_max = depth_max == 0 ? DEPTH_MAX_DEFAULT : depth_max;
}

static void parser_done(struct parser *p)
{
    if (p->keys != p->keys_inline) free(p->keys);
    if (p->frames != p->frames_inline) free(p->frames);
}

static deed_status size_check(deed_bytes text, struct deed_error *err)
{
    if (text.len <= UINT32_MAX) return DEED_OK;
    return deed_fail(err, DEED_TOO_LARGE, "json: %zu bytes, limit %zu", text.len,
                     (size_t)UINT32_MAX);
}

deed_status json_parse(struct arena *arena, deed_bytes text, uint32_t depth_max,
                       json_value *out_root, struct deed_error *err)
{
    deed_status status = size_check(text, err);
    if (status != DEED_OK) return status;

    struct parser p;
    parser_init(&p, text, depth_max, arena, err);
    p.has_tape = true;
    /* Usual documents have a node for every 8 to 20 bytes. */
    p.node_room = text.len / 10 + 8;
    p.tape = arena_alloc_array(arena, p.node_room, sizeof *p.tape);
    if (p.tape == NULL) {
        status = fail_arena(&p);
    } else {
        status = document_parse(&p);
    }
    if (status == DEED_OK) *out_root = (json_value){p.tape};
    parser_done(&p);
    return status;
}

deed_status json_check(deed_bytes text, uint32_t depth_max, struct deed_error *err)
{
    deed_status status = size_check(text, err);
    if (status != DEED_OK) return status;

    struct arena keys; /* decoded keys only */
    arena_init(&keys, SIZE_MAX / 4);
    struct parser p;
    parser_init(&p, text, depth_max, &keys, err);
    status = document_parse(&p);
    parser_done(&p);
    arena_done(&keys);
    return status;
}

/* ---- reading ------------------------------------------------------------------------------ */

enum json_kind json_kind_of(json_value v)
{
    if (v.node == NULL) return JSON_NONE;
    switch (*v.node->raw) {
    case '{':
        return JSON_OBJECT;
    case '[':
        return JSON_ARRAY;
    case '"':
        return JSON_STRING;
    case 't':
        return JSON_TRUE;
    case 'f':
        return JSON_FALSE;
    case 'n':
        return JSON_NULL;
    default:
        return JSON_NUMBER;
    }
}

const char *json_kind_name(enum json_kind kind)
{
    switch (kind) {
    case JSON_NONE:
        return "nothing";
    case JSON_NULL:
        return "null";
    case JSON_FALSE:
        return "false";
    case JSON_TRUE:
        return "true";
    case JSON_NUMBER:
        return "a number";
    case JSON_STRING:
        return "a string";
    case JSON_ARRAY:
        return "an array";
    case JSON_OBJECT:
        return "an object";
    }
    return "nothing";
}

static inline bool node_is_container(const struct json_node *node)
{
    return *node->raw == '{' || *node->raw == '[';
}

static inline bool node_is_escaped(const struct json_node *node)
{
    return *node->raw == '"' && node->raw_size != node->count + 2;
}

static inline const struct json_node *node_after(const struct json_node *node)
{
    if (node_is_container(node)) return node + node[1].count;
    return node + (node_is_escaped(node) ? 2 : 1);
}

static inline deed_str node_text(const struct json_node *node)
{
    return (deed_str){node_is_escaped(node) ? node[1].raw : node->raw + 1, node->count};
}

deed_str json_raw(json_value v)
{
    if (v.node == NULL) return (deed_str){0};
    return (deed_str){v.node->raw, v.node->raw_size};
}

deed_str json_text(json_value v)
{
    if (json_kind_of(v) != JSON_STRING) return (deed_str){0};
    return node_text(v.node);
}

bool json_bool(json_value v, bool *out)
{
    enum json_kind kind = json_kind_of(v);
    if (kind != JSON_TRUE && kind != JSON_FALSE) return false;
    *out = kind == JSON_TRUE;
    return true;
}

size_t json_count(json_value v)
{
    return v.node != NULL && node_is_container(v.node) ? v.node->count : 0;
}

struct json_iterator json_iterate(json_value container)
{
    struct json_iterator i = {.left = json_count(container)};
    if (i.left == 0) return i;
    i.index = SIZE_MAX; /* json_next makes it 0 */
    i.next = container.node + 2;
    if (*container.node->raw == '{') i.key = (deed_str){"", 0};
    return i;
}

bool json_next(struct json_iterator *i)
{
    if (i->left == 0) return false;
    if (i->key.ptr != NULL) {
        i->key = node_text(i->next);
        i->next = node_after(i->next);
    }
    i->value = (json_value){i->next};
    i->next = node_after(i->next);
    i->left--;
    i->index++;
    return true;
}

json_value json_get(json_value object, deed_str key)
{
    if (json_kind_of(object) != JSON_OBJECT) return (json_value){0};
    const struct json_node *node = object.node + 2;
    for (size_t left = object.node->count; left > 0; left--) {
        const struct json_node *value = node_after(node);
        if (node->count == key.len && deed_str_equal(node_text(node), key)) {
            return (json_value){value};
        }
        node = node_after(value);
    }
    return (json_value){0};
}

json_value json_at(json_value array, size_t index)
{
    if (json_kind_of(array) != JSON_ARRAY || index >= array.node->count) return (json_value){0};
    const struct json_node *node = array.node + 2;
    while (index-- > 0) node = node_after(node);
    return (json_value){node};
}

json_value json_path(json_value v, deed_str path)
{
    if (path.len == 0) return v;
    const char *at = path.ptr, *end = path.ptr + path.len;
    for (;;) {
        const char *dot = memchr(at, '.', (size_t)(end - at));
        deed_str step = {at, (size_t)((dot == NULL ? end : dot) - at)};
        if (json_kind_of(v) == JSON_ARRAY) {
            uint64_t index;
            v = text_u64(step, &index) && index <= SIZE_MAX ? json_at(v, (size_t)index)
                                                            : (json_value){0};
        } else {
            v = json_get(v, step);
        }
        if (v.node == NULL || dot == NULL) return v;
        at = dot + 1;
    }
}

/* ---- numbers ------------------------------------------------------------------------------ */

/* A number as sign, significant digits and a power of ten: digits × 10^(exponent + shift). The
 * digits lie in [first, last) of the text, with perhaps a point among them. */
struct decimal {
    bool negative, exponent_negative;
    const char *first, *last;
    size_t digit_count;     /* 0: the number is zero */
    int64_t shift;          /* from the place of the point and from trailing zeros */
    deed_str exponent_text; /* digits without sign and leading zeros; empty: 0 */
};

static struct decimal decimal_of(deed_str text)
{
    struct decimal d = {.negative = *text.ptr == '-'};
    const char *at = text.ptr + d.negative, *end = text.ptr + text.len;
    const char *digits_end = at;
    while (digits_end < end && *digits_end != 'e' && *digits_end != 'E') digits_end++;

    if (digits_end < end) {
        const char *e = digits_end + 1;
        d.exponent_negative = *e == '-';
        if (*e == '-' || *e == '+') e++;
        while (e < end && *e == '0') e++;
        d.exponent_text = (deed_str){e, (size_t)(end - e)};
    }
    const char *point = memchr(at, '.', (size_t)(digits_end - at));
    while (at < digits_end && (*at == '0' || *at == '.')) at++;
    const char *last = digits_end;
    while (last > at && (last[-1] == '0' || last[-1] == '.')) last--;
    if (at == last) return d; /* zero */

    d.first = at;
    d.last = last;
    bool point_inside = point != NULL && point > at && point < last;
    d.digit_count = (size_t)(last - at) - point_inside;
    /* Where the last digit stands as seen from the point. */
    const char *units = point == NULL ? digits_end : point;
    d.shift = last <= units ? units - last : -(last - units - 1);
    return d;
}

/* exponent + shift, if it fits; hostile exponents have thousands of digits. */
static bool decimal_exponent(const struct decimal *d, int64_t *out)
{
    uint64_t magnitude = 0;
    if (d->exponent_text.len > 18) return false;
    if (d->exponent_text.len > 0 && !text_u64(d->exponent_text, &magnitude)) return false;
    *out = (d->exponent_negative ? -(int64_t)magnitude : (int64_t)magnitude) + d->shift;
    return true;
}

/* The magnitude, if the number is an integer below 2^64. */
static bool decimal_integer(const struct decimal *d, uint64_t *out)
{
    int64_t exponent;
    *out = 0;
    if (d->digit_count == 0) return true;
    if (d->digit_count > 20 || !decimal_exponent(d, &exponent) || exponent < 0) return false;
    if (exponent > 19) return false;
    uint64_t value = 0;
    for (const char *at = d->first; at < d->last; at++) {
        if (*at == '.') continue;
        if (__builtin_mul_overflow(value, UINT64_C(10), &value)) return false;
        if (__builtin_add_overflow(value, (uint64_t)(*at - '0'), &value)) return false;
    }
    for (; exponent > 0; exponent--) {
        if (__builtin_mul_overflow(value, UINT64_C(10), &value)) return false;
    }
    *out = value;
    return true;
}

bool json_int64(json_value v, int64_t *out)
{
    if (json_kind_of(v) != JSON_NUMBER) return false;
    if (text_i64(json_raw(v), out)) return true;
    struct decimal d = decimal_of(json_raw(v));
    uint64_t magnitude;
    if (!decimal_integer(&d, &magnitude)) return false;
    if (magnitude > (uint64_t)INT64_MAX + d.negative) return false;
    *out = d.negative ? (int64_t)(0 - magnitude) : (int64_t)magnitude;
    return true;
}

bool json_uint64(json_value v, uint64_t *out)
{
    if (json_kind_of(v) != JSON_NUMBER) return false;
    if (text_u64(json_raw(v), out)) return true;
    struct decimal d = decimal_of(json_raw(v));
    uint64_t magnitude;
    if (!decimal_integer(&d, &magnitude)) return false;
    if (d.negative && magnitude != 0) return false;
    *out = magnitude;
    return true;
}

/* Past this many digits a double's rounding depends only on whether any of the rest is not zero
 * (767 suffice for binary64). */
#define DIGITS_KEPT 800

/* strtod wants a NUL behind the text, and the C locale whatever the process has set. */
static double decimal_to_double(const struct decimal *d, int64_t exponent)
{
    char text[DIGITS_KEPT + 32];
    size_t len = 0;
    const char *at = d->first;
    for (; at < d->last && len < DIGITS_KEPT; at++) {
        if (*at != '.') text[len++] = *at;
    }
    size_t dropped = d->digit_count - len;
    if (dropped > 0) { /* the last digit is not zero: see decimal_of */
        text[len++] = '1';
        exponent += (int64_t)dropped - 1;
    }
    (void)snprintf(text + len, sizeof text - len, "e%lld", (long long)exponent);

    locale_t c_locale = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    double value = c_locale == (locale_t)0 ? strtod(text, NULL) : strtod_l(text, NULL, c_locale);
    if (c_locale != (locale_t)0) freelocale(c_locale);
    return value;
}

bool json_double(json_value v, double *out)
{
    /* Exact: both factors are exact doubles, so one rounding gives the nearest (Clinger). */
    static const double powers[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,
                                    1e8,  1e9,  1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
                                    1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
    if (json_kind_of(v) != JSON_NUMBER) return false;
    struct decimal d = decimal_of(json_raw(v));
    int64_t exponent = 0;
    double value = 0;
    if (d.digit_count > 0 && !decimal_exponent(&d, &exponent)) {
        if (!d.exponent_negative) return false; /* no text of 4 GiB brings it back into range */
    } else if (d.digit_count > 0 && d.digit_count <= 15 && exponent >= -22 && exponent <= 22) {
        int64_t digits = 0;
        for (const char *at = d.first; at < d.last; at++) {
            if (*at != '.') digits = digits * 10 + (*at - '0');
        }
        value = exponent < 0 ? (double)digits / powers[-exponent]
                             : (double)digits * powers[exponent];
    } else if (d.digit_count > 0) {
        value = decimal_to_double(&d, exponent);
        if (isinf(value)) return false;
    }
    *out = d.negative ? -value : value;
    return true;
}

/* ---- equality ----------------------------------------------------------------------------- */

/* a + difference == b, for magnitudes of any length. */
static bool digits_differ_by(deed_str a, deed_str b, int64_t difference)
{
    int64_t carry = difference;
    for (size_t i = 0; i < a.len || i < b.len || carry > 0; i++) {
        int64_t digit = i < a.len ? a.ptr[a.len - 1 - i] - '0' : 0;
        int64_t wanted = i < b.len ? b.ptr[b.len - 1 - i] - '0' : 0;
        int64_t sum = digit + carry;
        int64_t rest = ((sum % 10) + 10) % 10;
        if (rest != wanted) return false;
        carry = (sum - rest) / 10;
        if (i >= a.len && i >= b.len && carry < 0) return false;
    }
    return carry == 0;
}

static bool exponents_equal(const struct decimal *a, const struct decimal *b)
{
    int64_t x, y;
    bool x_fits = decimal_exponent(a, &x), y_fits = decimal_exponent(b, &y);
    if (x_fits && y_fits) return x == y;
    /* At least one is past 10^18, where no shift reaches from one sign to the other. */
    if (a->exponent_negative != b->exponent_negative) return false;
    int64_t difference = a->shift - b->shift;
    return digits_differ_by(a->exponent_text, b->exponent_text,
                            a->exponent_negative ? -difference : difference);
}

static bool numbers_equal(deed_str x, deed_str y)
{
    if (deed_str_equal(x, y)) return true;
    struct decimal a = decimal_of(x), b = decimal_of(y);
    if (a.digit_count == 0 || b.digit_count == 0) return a.digit_count == b.digit_count;
    if (a.negative != b.negative || a.digit_count != b.digit_count) return false;
    const char *p = a.first, *q = b.first;
    while (p < a.last && q < b.last) {
        if (*p == '.') {
            p++;
        } else if (*q == '.') {
            q++;
        } else if (*p++ != *q++) {
            return false;
        }
    }
    return exponents_equal(&a, &b);
}

struct sort_member {
    struct sort_key key;
    json_value value;
};

static int sort_member_compare(const void *a, const void *b)
{
    return sort_key_compare(&((const struct sort_member *)a)->key,
                            &((const struct sort_member *)b)->key);
}

static void members_sorted(json_value object, struct sort_member *out)
{
    size_t count = 0;
    for (struct json_iterator i = json_iterate(object); json_next(&i);) {
        out[count++] = (struct sort_member){
            .key = {xxh64(0, deed_bytes_of(i.key)), i.key, i.index}, .value = i.value};
    }
    qsort(out, count, sizeof *out, sort_member_compare);
}

/* Many members in different orders: sort both, compare pair by pair. */
static bool objects_equal_sorted(json_value a, json_value b, bool *out_done)
{
    size_t count = json_count(a);
    struct sort_member *members = malloc(2 * count * sizeof *members);
    *out_done = members != NULL;
    if (members == NULL) return false;
    members_sorted(a, members);
    members_sorted(b, members + count);
    bool equal = true;
    for (size_t i = 0; i < count && equal; i++) {
        equal = sort_member_compare(&members[i], &members[count + i]) == 0 &&
                json_equal(members[i].value, members[count + i].value);
    }
    free(members);
    return equal;
}

static bool objects_equal(json_value a, json_value b)
{
    struct json_iterator i = json_iterate(a), k = json_iterate(b);
    bool same_order = true;
    while (same_order && json_next(&i) && json_next(&k)) same_order = deed_str_equal(i.key, k.key);

    if (!same_order && json_count(a) > PAIRWISE_MAX) {
        bool done;
        bool equal = objects_equal_sorted(a, b, &done);
        if (done) return equal; /* without memory: slow, but right */
    }
    i = json_iterate(a);
    k = json_iterate(b);
    while (json_next(&i) && json_next(&k)) {
        json_value other = same_order ? k.value : json_get(b, i.key);
        if (!json_equal(i.value, other)) return false;
    }
    return true;
}

bool json_equal(json_value a, json_value b)
{
    enum json_kind kind = json_kind_of(a);
    if (kind != json_kind_of(b)) return false;
    if (kind == JSON_NUMBER) return numbers_equal(json_raw(a), json_raw(b));
    if (kind == JSON_STRING) return deed_str_equal(json_text(a), json_text(b));
    if (json_count(a) != json_count(b)) return false;
    if (kind == JSON_OBJECT) return objects_equal(a, b);
    struct json_iterator i = json_iterate(a), k = json_iterate(b);
    while (json_next(&i) && json_next(&k)) {
        if (!json_equal(i.value, k.value)) return false;
    }
    return true;
}
