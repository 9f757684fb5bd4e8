/* page_check.h - checksums for the pages of SQLite's files.
 *
 * SQLite takes what it reads for what it wrote: a flipped bit in a row is a wrong row. This is a
 * virtual file system between it and the one below (SQLite's own, or vfs.h's), which puts a checksum
 * at the end of every page of a database as it is written, and compares it as the page is read. Pages
 * that are read from the write-ahead log are compared with the checksums that SQLite puts there and
 * looks at only when it recovers the log.
 *
 * A database has checksums if it was made with PAGE_CHECK_SIZE reserved bytes a page
 * (SQLITE_FCNTL_RESERVE_BYTES) and PAGE_CHECK_PAGE_SIZE bytes a page. Any other is passed through.
 *
 * Found: changed bytes, a page in another page's place or from another file, a page or frame that is
 * cut off. Not found: a page that is as it was before its last write (the disk lost that write). */
#ifndef PROJECTION_PAGE_CHECK_H
#define PROJECTION_PAGE_CHECK_H

#include "base/error.h"

#define PAGE_CHECK_PAGE_SIZE 4096
#define PAGE_CHECK_SIZE      8

/* The name for sqlite3_open_v2 of the file system that checks what `under` reads (NULL: SQLite's
 * own). It is valid until the release that belongs to this call, which comes after the connection's end
 * and before that of `under`. From any thread. DEED_NO_MEMORY. */
DEED_MUST_CHECK deed_status page_check_hold(const char *under, const char **out_name,
                                            struct deed_error *err);
void page_check_release(const char *name);

/* A read of damage fails with SQLITE_IOERR_DATA. What was found on this thread last, with page and
 * file; empty: nothing yet. */
const char *page_check_words(void);

#endif
