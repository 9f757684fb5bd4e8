/* text.h - checks and conversions on text. */
#ifndef BASE_TEXT_H
#define BASE_TEXT_H

#include "base/buf.h"

/* Well-formed UTF-8 as RFC 3629 has it: no overlong forms, no surrogates, none past U+10FFFF. */
bool utf8_valid(deed_bytes bytes);

/* At most so many bytes of it, cut between characters, for a message; and nothing from where it is no
 * UTF-8 on. */
deed_str str_beginning(deed_str s, size_t size_max);

/* A number's decimal digits, without a NUL; answers how many. */
#define U64_TEXT_SIZE 20
size_t u64_format(uint64_t value, char out[U64_TEXT_SIZE]);

/* Decimal digits only, no sign, no space, at least one; false also past 64 bits. */
bool text_u64(deed_str text, uint64_t *out);
/* An optional '-' first. */
bool text_i64(deed_str text, int64_t *out);

/* RFC 4648 base64 with padding. Decoding is strict: no spaces, no missing padding, zero rest bits;
 * false also when `out` is full. What was decoded before the fault may be in `out`. */
void base64_encode(deed_bytes in, struct buf *out);
bool base64_decode(deed_str in, struct buf *out);

void hex_encode(deed_bytes in, struct buf *out); /* lower case */

bool str_starts_with(deed_str s, deed_str prefix);
int str_compare(deed_str a, deed_str b); /* by bytes, shorter first */
int str_order(const void *a, const void *b); /* the same, of two deed_str, for qsort */

/* Letters of ASCII only, whatever the locale. */
static inline char ascii_lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c + ('a' - 'A')) : c;
}
/* Without case, as names of headers and words of languages are compared; inline, since each header of a
 * request is compared with several. */
static inline bool str_equal_fold(deed_str a, const char *b)
{
    for (size_t i = 0; i < a.len; i++, b++) {
        if (*b == '\0' || ascii_lower(a.ptr[i]) != ascii_lower(*b)) return false;
    }
    return *b == '\0';
}

/* Printable ASCII without quote and backslash, as most names are: JSON takes it unescaped. Inline: it
 * is asked of each string that is written. */
static inline bool text_is_plain(deed_str text)
{
    const uint64_t ones = UINT64_C(0x0101010101010101), tops = UINT64_C(0x8080808080808080);
    uint64_t stop = 0;
    for (size_t i = 0; i < text.len; i += 8) {
        uint64_t bytes = ones * ' ';
        if (text.len >= 8) {
            memcpy(&bytes, text.ptr + (i + 8 <= text.len ? i : text.len - 8), 8);
        } else {
            for (size_t k = 0; k < text.len; k++)
                bytes = bytes << 8 | (uint8_t)text.ptr[k];
        }
        uint64_t quote = bytes ^ ones * '"', backslash = bytes ^ ones * '\\';
        stop |= ((quote - ones) & ~quote) | ((backslash - ones) & ~backslash) |
                ((bytes - ones * ' ') & ~bytes) | bytes;
    }
    return (stop & tops) == 0;
}

#endif
