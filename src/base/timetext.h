/* timetext.h - instants as text: RFC 3339, UTC, nanoseconds since 1970 inside. */
#ifndef BASE_TIMETEXT_H
#define BASE_TIMETEXT_H

#include "deedbook.h"

#define TIME_TEXT_SIZE 30 /* "2026-11-23T04:07:09.123456789Z" */

/* Always nine digits of fraction, so that texts sort as instants do; a NUL behind it. The years
 * that 64 bits of nanoseconds reach: 1677 to 2262. */
void time_format(int64_t time_ns, char out[TIME_TEXT_SIZE + 1]);

/* "2026-11-23T04:07:09Z", any fraction (digits past the ninth are cut), any offset, 't', 'z' and a
 * space for the 'T' too; or a date alone, its midnight UTC. false: not an instant, or out of reach
 * of 64 bits. A leap second (":60") counts as the first instant of the next minute. */
bool time_parse(deed_str text, int64_t *out_time_ns);

/* "2026-11-23", a day that exists. */
bool date_valid(deed_str text);

#endif
