/* losses.h - damage that somebody has accepted: what `deedbook repair` writes down.
 *
 * An accepted loss stays an error for who reads it, but appends go on. docs/format/log.md is
 * normative. */
#ifndef LOG_LOSSES_H
#define LOG_LOSSES_H

#include "log/log.h"

#define LOSSES_FILE "losses"

struct losses {
    struct log_damage *ptr; /* `what` is not kept */
    size_t count, room;
};

void losses_done(struct losses *losses); /* accepts a zeroed one */

/* Those of this log; none if there is no file. DEED_CORRUPT: the file is damaged. */
DEED_MUST_CHECK deed_status losses_load(struct os_dir *dir, deed_uuid log_id,
                                        struct losses *losses, struct deed_error *err);
/* Replace the file, atomically and durably. */
DEED_MUST_CHECK deed_status losses_save(struct os_dir *dir, deed_uuid log_id,
                                        const struct losses *losses, struct deed_error *err);

DEED_MUST_CHECK deed_status losses_add(struct losses *losses, const struct log_damage *damage,
                                       struct deed_error *err);
/* Is all of this damage accepted? */
bool losses_cover(const struct losses *losses, const struct log_damage *damage);

#endif
