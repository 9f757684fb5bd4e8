/* error.h - how a failure travels: a status, and a message written where the trouble is found.
 *
 *     if (size > limit) return deed_fail(err, DEED_TOO_LARGE, "event: %zu bytes, limit %zu", …);
 *     if (status != DEED_OK) return deed_wrap(err, "segment %u", number), status;
 *
 * All of these accept a NULL err. */
#ifndef BASE_ERROR_H
#define BASE_ERROR_H

#include "deedbook.h"

/* Write the message and return `status`, so that it can stand behind `return`. */
deed_status deed_fail(struct deed_error *err, deed_status status, const char *format, ...)
    DEED_PRINTF(3, 4);

/* Put context in front of the message that is there: "context: message". */
void deed_wrap(struct deed_error *err, const char *format, ...) DEED_PRINTF(2, 3);

/* deed_fail for an errno: ENOSPC and EDQUOT are DEED_FULL, ENOENT is DEED_NOT_FOUND, ENOMEM is
 * DEED_NO_MEMORY, everything else DEED_IO. The message ends in the system's own words. */
deed_status deed_fail_errno(struct deed_error *err, int error_number, const char *format, ...)
    DEED_PRINTF(3, 4);

#endif
