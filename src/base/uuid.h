/* uuid.h - ids of events, commands and logs (RFC 9562). */
#ifndef BASE_UUID_H
#define BASE_UUID_H

#include "deedbook.h"

#define UUID_TEXT_SIZE 36

bool uuid_is_zero(deed_uuid id);
bool uuid_equal(deed_uuid a, deed_uuid b);

/* "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx", lower case, with a NUL behind it. */
void uuid_format(deed_uuid id, char out[UUID_TEXT_SIZE + 1]);

/* Either case; false for anything else than the 36 characters. */
bool uuid_parse(deed_str text, deed_uuid *out);

/* Version 7: 48 bits of milliseconds, then random bits. */
deed_uuid uuid_v7(int64_t now_ns, const uint8_t random[10]);
/* Version 4 from 16 random bytes. */
deed_uuid uuid_v4(const uint8_t random[16]);

/* Version 5: of a name of up to 7 parts, in the namespace: the same name, the same id, everywhere. */
deed_uuid uuid_v5(deed_uuid space, const deed_bytes *name, size_t part_count);

#endif
