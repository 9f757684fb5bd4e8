/* sqlite_log.h - SQLite's write-ahead log, as the device holds it.
 *
 * After a sync that failed, the page cache shows bytes that the device never got, counts them as clean,
 * and no later sync brings them there. SQLite reads its log through that cache. Were it brought over into
 * the database like that, a power cut in the midst would leave half of the database new, and no log to
 * finish it with. */
#ifndef PROJECTION_SQLITE_LOG_H
#define PROJECTION_SQLITE_LOG_H

#include "os/os.h"

/* Before the database at `path` is opened: what its log shows is on the device afterwards. Blocks of
 * which the device holds other bytes are written again; those that it holds are not touched, as a power
 * cut may spoil what is being written. Without a log there is nothing to do. DEED_IO, DEED_FULL,
 * DEED_NO_MEMORY, DEED_MISUSE (the path is too long). */
DEED_MUST_CHECK deed_status sqlite_log_persist(struct os *os, const char *path,
                                               struct deed_error *err);

#endif
