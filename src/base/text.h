/* text.h - checks and conversions on text. */
#ifndef BASE_TEXT_H
#define BASE_TEXT_H

#include "base/buf.h"

/* Well-formed UTF-8 as RFC 3629 has it: no overlong forms, no surrogates, none past U+10FFFF. */
bool utf8_valid(deed_bytes bytes);

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

#endif
