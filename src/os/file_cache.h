/* file_cache.h - handles of files that are only read, kept open up to a limit.
 *
 * Who reads pins a file by its directory and name, reads, and unpins it; a pin lasts for one
 * operation, so idle readers hold nothing open. The least recently used handles are closed when there
 * are more than the limit. Safe from any thread. */
#ifndef OS_FILE_CACHE_H
#define OS_FILE_CACHE_H

#include "os/os.h"

struct file_cache;

#define FILE_CACHE_LIMIT 64 /* the default: a few for each thread that reads, and some to come back to */

struct file_cache *file_cache_create(size_t limit); /* 0: the default; NULL: out of memory */
void file_cache_destroy(struct file_cache *cache);  /* accepts NULL; nothing may be pinned */

/* The open file; while it is pinned it stays so, also when its name is removed meanwhile. More than
 * the limit may be pinned at once: they are closed when they are let go.
 *
 *   DEED_NOT_FOUND  there is no such file (any more).
 *   DEED_IO, DEED_NO_MEMORY */
DEED_MUST_CHECK deed_status file_cache_pin(struct file_cache *cache, struct os_dir *dir,
                                           const char *name, struct os_file **out_file,
                                           struct deed_error *err);
void file_cache_unpin(struct file_cache *cache, struct os_file *file); /* accepts NULL */

/* The name is about to be removed, or another file got it: no later pin gets the old one. */
void file_cache_forget(struct file_cache *cache, struct os_dir *dir, const char *name);

/* How many files are open now. */
size_t file_cache_count(struct file_cache *cache);

#endif
