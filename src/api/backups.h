/* backups.h - backups that a running server makes of itself, one at a time, below one directory.
 *
 * A request names a backup, never a path: what a client can have written is in directories of the
 * root that the operator chose. A thread of its own makes them, so nobody waits for one. */
#ifndef API_BACKUPS_H
#define API_BACKUPS_H

#include "store/store.h"

struct backups;

#define BACKUP_NAME_SIZE_MAX 64

struct backups_status {
    bool running;
    uint64_t done, all; /* of the one that runs: bytes, about */
    /* The one that runs, or the newest one; empty: none was asked for since opening. */
    char name[BACKUP_NAME_SIZE_MAX + 1];
    bool failed;              /* the newest one */
    struct deed_error error;  /* then: why */
    bool made;                /* one was, since opening */
    char made_name[BACKUP_NAME_SIZE_MAX + 1];
    struct deed_backup_report report; /* then: of the newest that was */
    uint64_t seconds;                 /* and how long it took */
};

/* `root` is made when the first backup is. It is copied. */
DEED_MUST_CHECK deed_status backups_open(struct store *store, const char *root,
                                         struct backups **out_backups, struct deed_error *err);
/* A backup that runs is stopped; what it has copied is used by the next one. Accepts NULL. */
void backups_close(struct backups *backups);

/* Begin a backup into ROOT/name.
 *
 *   DEED_INVALID   not a name: letters, digits, '-', '_' and '.', not a dot first, 64 at most.
 *   DEED_CONFLICT  one is being made. */
DEED_MUST_CHECK deed_status backups_start(struct backups *backups, deed_str name, bool quick,
                                          struct deed_error *err);
void backups_get_status(struct backups *backups, struct backups_status *out_status);

#endif
