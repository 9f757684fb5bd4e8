/* manifest.h - which generation of a projection is live, and the names of its files.
 *
 *     <name>.g<N>.db          generation N, with -wal and -shm beside it while it is open
 *     <name>.manifest         names the live one
 *     <name>.t<N>.db          folded up to a position for a question about the past
 *
 * Database files are never renamed: SQLite's log beside one would then belong to another. The
 * manifest is replaced whole, by rename, so it names either the old or the new generation. */
#ifndef PROJECTION_MANIFEST_H
#define PROJECTION_MANIFEST_H

#include "os/os.h"

#define MANIFEST_FILE_NAME_SIZE                                                                    \
    128 /* a projection's name, a number, and what stands around them  \
                                     */

/* A file's place in the scheme above. */
struct manifest_entry {
    char name[MANIFEST_FILE_NAME_SIZE]; /* of the projection */
    bool temporary;                     /* t, not g */
    uint64_t number;
};

/* "order_summary", 3 → "order_summary.g3.db". */
void manifest_file_name(deed_str projection, bool temporary, uint64_t number,
                        char out[MANIFEST_FILE_NAME_SIZE]);
/* The reverse, also for SQLite's files beside it ("-wal", "-shm", "-journal"). false: some other
 * file. */
bool manifest_file_parse(deed_str file_name, struct manifest_entry *out_entry);

/* Read it. DEED_NOT_FOUND: there is none. DEED_CORRUPT: it is damaged. DEED_TOO_NEW, DEED_IO. */
DEED_MUST_CHECK deed_status manifest_read(struct os_dir *dir, deed_str projection,
                                          uint64_t *out_generation, struct deed_error *err);
/* Replace it, durably. On failure either one may be there. */
DEED_MUST_CHECK deed_status manifest_write(struct os_dir *dir, deed_str projection,
                                           uint64_t generation, struct deed_error *err);

/* Remove a database file and what SQLite keeps beside it; what is not there is not missed. */
void manifest_remove_database(struct os_dir *dir, const char *file_name);

#endif
