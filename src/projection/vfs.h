/* vfs.h - SQLite's files on any machine that os.h can name.
 *
 * It stands below page_check.h. On the real machine SQLite keeps its own way to the disk
 * (docs/decisions/0007). On every other one, say the simulator's, its files go through `struct os`: so
 * read models lose, tear and keep what the log beside them does, in the same crash.
 *
 * What SQLite is told here is what its own says on Unix: a file's name is durable after its directory
 * was synced, which happens with the first sync of a new journal; a write leaves the bytes around it
 * alone, unless the file's URI says otherwise. Locks and the write-ahead log's index hold among the
 * connections of one process: no other opens these files. */
#ifndef PROJECTION_VFS_H
#define PROJECTION_VFS_H

#include "os/os.h"

/* The name that sqlite3_open_v2 wants; NULL: SQLite's own. It is valid until the release that belongs
 * to this call, which comes after the connection's end. From any thread. DEED_NO_MEMORY. */
DEED_MUST_CHECK deed_status vfs_hold(struct os *os, const char **out_name, struct deed_error *err);
void vfs_release(struct os *os);

#endif
