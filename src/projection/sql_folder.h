/* sql_folder.h - the *.sql files of a folder. */
#ifndef PROJECTION_SQL_FOLDER_H
#define PROJECTION_SQL_FOLDER_H

#include "base/arena.h"
#include "os/os.h"

struct sql_folder_file {
    deed_str name; /* "order_summary.sql" */
    deed_str text;
    /* Why there is no text, DEED_OK if there is: DEED_TOO_LARGE (over SQL_TEXT_SIZE_MAX), DEED_IO. One
     * file that cannot be read is no reason to do without the others. */
    deed_status status;
    deed_str message;
};

/* Read all of them, in order of name, into `arena`. A folder that is not there has none.
 *
 *   DEED_TOO_LARGE  too many files. DEED_IO: the folder itself. DEED_NO_MEMORY. */
DEED_MUST_CHECK deed_status sql_folder_read(struct os *os, const char *folder, struct arena *arena,
                                            struct sql_folder_file **out_files, size_t *out_count,
                                            struct deed_error *err);

#endif
