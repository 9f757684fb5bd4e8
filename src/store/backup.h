/* backup.h - copies of the log that can be put back: made while the store runs, incremental, checked.
 *
 * What deedbook.h says of deed_backup, deed_check_backup and deed_restore holds here. Everything
 * goes through `os`. docs/format/backup.md is normative for the files, docs/operations/backup.md
 * says how to use them. */
#ifndef STORE_BACKUP_H
#define STORE_BACKUP_H

#include "os/os.h"
#include "store/store.h"

/* Marks a data directory whose restore was not finished: store_open refuses it. */
#define RESTORE_MARKER "restoring"

/* From any thread; beside appends, sealing and compaction. `options` and `out_report` may be NULL. */
DEED_MUST_CHECK deed_status store_backup(struct store *store, const char *target,
                                         const struct deed_backup_options *options,
                                         struct deed_backup_report *out_report,
                                         struct deed_error *err);

/* `damage` (may be NULL) is told of each damaged file and place, with `context`. Of a file that is
 * not what the manifest says, the offset is 0 and there are no positions. */
DEED_MUST_CHECK deed_status store_check_backup(
    struct os *os, const char *backup, const struct deed_backup_options *options,
    void (*damage)(void *context, const struct store_damage *), void *context,
    struct deed_backup_report *out_report, struct deed_error *err);

/* restore.c */
DEED_MUST_CHECK deed_status store_restore(struct os *os, const char *backup, const char *directory,
                                          const struct deed_backup_options *options,
                                          struct deed_backup_report *out_report,
                                          struct deed_error *err);

/* Is a backup in this directory? A data directory has none. */
bool backup_is_there(struct os *os, const char *directory);

#endif
