/* backup_view.h - a backup as the machine would show it in a data directory.
 *
 * In a backup a file of the log has its content's hash in its name. The view is an `os` with one
 * directory, in which they have the log's names again: so the log's own code opens and verifies a
 * backup, whatever kinds of segments there are. It writes nothing. */
#ifndef STORE_BACKUP_VIEW_H
#define STORE_BACKUP_VIEW_H

#include "store/backup_set.h"

struct backup_view {
    struct os os;
    struct os_dir data, log; /* the data directory, and the log's inside it */
    struct os_dir *target;   /* where the files are */
    const struct backup_set *set;
};

/* Both must outlive the view. Open a log with `&view->os` and `&view->data`. */
void backup_view_init(struct backup_view *view, struct os_dir *target,
                      const struct backup_set *set);

#endif
