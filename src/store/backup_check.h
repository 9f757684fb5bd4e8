/* backup_check.h - following the chain of a copy: what backup and restore have in common. */
#ifndef STORE_BACKUP_CHECK_H
#define STORE_BACKUP_CHECK_H

#include "log/log.h"
#include "store/backup_set.h"
#include "store/store.h"

/* Whom to tell of what is damaged. */
struct backup_listener {
    void (*damage)(void *context, const struct store_damage *); /* may be NULL */
    void *context;
};

/* Open the log in `data` on `os` (a backup's view, or a data directory), read all of it and compare
 * it with what `set` says: id, epoch, position, chain. `count`: commits and events too, else they
 * are put into the set. With `read_only` nothing is written; else the log's mark is.
 *
 *   DEED_CORRUPT  it is damaged, or it is not that log; the message says where first. */
DEED_MUST_CHECK deed_status backup_check_chain(struct os *os, struct os_dir *data, bool read_only,
                                               bool count, struct backup_set *set,
                                               struct backup_work *work,
                                               const struct backup_listener *listener,
                                               struct deed_error *err);

/* What the set holds; what it took to make it is left at 0. */
struct deed_backup_report backup_report_of(const struct backup_set *set);

#endif
