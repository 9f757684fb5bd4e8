/* json_writer.c - JSON text into a buf.
 *
 * (1) Bit `depth - 1` of is_object and has_value belongs to the innermost open container.
 * (2) What is written is valid JSON whatever the texts are: bytes that are not UTF-8 (a file's
 *     name, say) become U+FFFD. */
#include "json/json.h"

#include "base/text.h"

#include <assert.h>
#include <locale.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define WRITER_DEPTH_MAX 64

static inline uint64_t level_bit(const struct json_writer *w)
{
    return UINT64_C(1) << (w->depth - 1);
}

/* The comma that is due, and the check that a value may stand here. */
static void value_begin(struct json_writer *w)
{
    if (w->after_key) {
        w->after_key = false;
        return;
    }
    if (w->depth == 0) return;
    assert((w->is_object & level_bit(w)) == 0); /* a value in an object needs a key */
    if ((w->has_value & level_bit(w)) != 0) buf_add_byte(w->out, ',');
    w->has_value |= level_bit(w);
}

void json_writer_init(struct json_writer *w, struct buf *out)
{
    *w = (struct json_writer){.out = out};
}

static void container_begin(struct json_writer *w, bool is_object)
{
    value_begin(w);
    assert(w->depth < WRITER_DEPTH_MAX);
    w->depth++;
    w->has_value &= ~level_bit(w);
    w->is_object = is_object ? w->is_object | level_bit(w) : w->is_object & ~level_bit(w);
    buf_add_byte(w->out, is_object ? '{' : '[');
}

static void container_end(struct json_writer *w, bool is_object)
{
    assert(w->depth > 0 && !w->after_key);
    assert(((w->is_object & level_bit(w)) != 0) == is_object);
    w->depth--;
    buf_add_byte(w->out, is_object ? '}' : ']');
}

void json_object_begin(struct json_writer *w)
{
    container_begin(w, true);
}

void json_object_end(struct json_writer *w)
{
    container_end(w, true);
}

void json_array_begin(struct json_writer *w)
{
    container_begin(w, false);
}

void json_array_end(struct json_writer *w)
{
    container_end(w, false);
}

/* ---- strings ------------------------------------------------------------------------------ */

static inline bool is_plain(unsigned char c)
{
    return c >= 0x20 && c != '"' && c != '\\';
}

/* Bytes from `at` on that need no escape. */
static size_t plain_run(const char *at, size_t len)
{
    const uint64_t ones = UINT64_C(0x0101010101010101), tops = UINT64_C(0x8080808080808080);
    size_t i = 0;
    while (len - i >= 8) {
        uint64_t bytes;
        memcpy(&bytes, at + i, 8);
        uint64_t quote = bytes ^ ones * '"', backslash = bytes ^ ones * '\\';
        uint64_t stop = ((quote - ones) & ~quote) | ((backslash - ones) & ~backslash) |
                        ((bytes - ones * 0x20) & ~bytes);
        if ((stop & tops) != 0) break;
        i += 8;
    }
    while (i < len && is_plain((unsigned char)at[i])) i++;
    return i;
}

static void escape_put(struct buf *out, unsigned char c)
{
    static const char letters[] = "btn?fr"; /* from 0x08 on */
    if (c == '"' || c == '\\') {
        buf_add(out, (char[]){'\\', (char)c}, 2);
    } else if (c >= 0x08 && c <= 0x0d && c != 0x0b) {
        buf_add(out, (char[]){'\\', letters[c - 0x08]}, 2);
    } else {
        static const char digits[] = "0123456789abcdef";
        buf_add(out, (char[]){'\\', 'u', '0', '0', digits[c >> 4], digits[c & 15]}, 6);
    }
}

static void simple_put(struct buf *out, deed_str text)
{
    uint8_t *at = text.len > SIZE_MAX - 2 ? NULL : buf_reserve(out, text.len + 2);
    if (at == NULL) return;
    at[0] = '"';
    if (text.len > 0) memcpy(at + 1, text.ptr, text.len);
    at[text.len + 1] = '"';
    out->len += text.len + 2;
}

static void quoted_put(struct buf *out, deed_str text)
{
    size_t run = plain_run(text.ptr, text.len);
    if (run == text.len) {
        simple_put(out, text);
        return;
    }
    buf_add_byte(out, '"');
    for (size_t i = 0; i < text.len;) {
        run = plain_run(text.ptr + i, text.len - i);
        buf_add(out, text.ptr + i, run);
        i += run;
        if (i < text.len) escape_put(out, (unsigned char)text.ptr[i++]);
    }
    buf_add_byte(out, '"');
}

/* Bytes of the well-formed character at `at`; 0: there is none. */
static size_t character_size(const char *at, size_t left)
{
    for (size_t size = 1; size <= 4 && size <= left; size++) {
        if (utf8_valid((deed_bytes){(const uint8_t *)at, size})) return size;
    }
    return 0;
}

static void quoted_put_mended(struct buf *out, deed_str text)
{
    buf_add_byte(out, '"');
    for (size_t i = 0; i < text.len;) {
        size_t size = character_size(text.ptr + i, text.len - i);
        if (size == 0) {
            buf_add(out, "\xef\xbf\xbd", 3);
            i++;
        } else if (size == 1 && !is_plain((unsigned char)text.ptr[i])) {
            escape_put(out, (unsigned char)text.ptr[i++]);
        } else {
            buf_add(out, text.ptr + i, size);
            i += size;
        }
    }
    buf_add_byte(out, '"');
}

static void string_put(struct buf *out, deed_str text)
{
    if (text.len <= 64 && text_is_plain(text)) {
        simple_put(out, text);
        return;
    }
    if (utf8_valid(deed_bytes_of(text))) {
        quoted_put(out, text);
    } else {
        quoted_put_mended(out, text);
    }
}

void json_key(struct json_writer *w, deed_str key)
{
    assert(w->depth > 0 && !w->after_key);
    assert((w->is_object & level_bit(w)) != 0);
    if ((w->has_value & level_bit(w)) != 0) buf_add_byte(w->out, ',');
    w->has_value |= level_bit(w);
    string_put(w->out, key);
    buf_add_byte(w->out, ':');
    w->after_key = true;
}

void json_put_text(struct json_writer *w, deed_str text)
{
    if (text.ptr == NULL) {
        json_put_null(w);
        return;
    }
    value_begin(w);
    string_put(w->out, text);
}

/* ---- numbers and the rest ------------------------------------------------------------------ */

static void digits_put(struct buf *out, uint64_t value, bool negative)
{
    char *at = (char *)buf_reserve(out, 1 + U64_TEXT_SIZE);
    if (at == NULL) return;
    at[0] = '-';
    out->len += negative + u64_format(value, at + negative);
}

void json_put_int(struct json_writer *w, int64_t value)
{
    value_begin(w);
    digits_put(w->out, value < 0 ? 0 - (uint64_t)value : (uint64_t)value, value < 0);
}

void json_put_uint(struct json_writer *w, uint64_t value)
{
    value_begin(w);
    digits_put(w->out, value, false);
}

void json_put_uint_text(struct json_writer *w, uint64_t value)
{
    value_begin(w);
    buf_add_byte(w->out, '"');
    digits_put(w->out, value, false);
    buf_add_byte(w->out, '"');
}

/* In the C locale: a process that set another may print a decimal comma. Fifteen digits give back
 * the shortest text where there is one of at most fifteen, except below the normal range. */
static int double_format(double value, char *out, size_t size)
{
    int len = 0;
    int first = fabs(value) < 2.2250738585072014e-308 ? 1 : 15;
    locale_t c_locale = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    locale_t before = c_locale == (locale_t)0 ? (locale_t)0 : uselocale(c_locale);
    for (int precision = first; precision <= 17; precision++) {
        len = snprintf(out, size, "%.*g", precision, value);
        if (strtod(out, NULL) == value) break;
    }
    if (c_locale != (locale_t)0) {
        (void)uselocale(before);
        freelocale(c_locale);
    }
    return len;
}

void json_put_double(struct json_writer *w, double value)
{
    if (isnan(value) || isinf(value)) {
        json_put_null(w);
        return;
    }
    value_begin(w);
    if (value == floor(value) && fabs(value) < 9007199254740992.0 &&
        !(value == 0 && signbit(value))) {
        digits_put(w->out, (uint64_t)fabs(value), value < 0);
        return;
    }
    char text[32];
    int len = double_format(value, text, sizeof text);
    buf_add(w->out, text, len < 0 ? 0 : (size_t)len);
}

void json_put_bool(struct json_writer *w, bool value)
{
    value_begin(w);
    buf_add_str(w->out, value ? DEED_STR("true") : DEED_STR("false"));
}

void json_put_null(struct json_writer *w)
{
    value_begin(w);
    buf_add(w->out, "null", 4);
}

void json_put_raw(struct json_writer *w, deed_bytes value)
{
    assert(value.len > 0);
    value_begin(w);
    buf_add(w->out, value.ptr, value.len);
}

void json_member_text(struct json_writer *w, const char *key, deed_str text)
{
    json_key(w, deed_str_of(key));
    json_put_text(w, text);
}

void json_member_int(struct json_writer *w, const char *key, int64_t value)
{
    json_key(w, deed_str_of(key));
    json_put_int(w, value);
}

void json_member_uint(struct json_writer *w, const char *key, uint64_t value)
{
    json_key(w, deed_str_of(key));
    json_put_uint(w, value);
}

void json_member_bool(struct json_writer *w, const char *key, bool value)
{
    json_key(w, deed_str_of(key));
    json_put_bool(w, value);
}

void json_member_raw(struct json_writer *w, const char *key, deed_bytes value)
{
    json_key(w, deed_str_of(key));
    json_put_raw(w, value);
}
