/* sql_folder.h - the *.sql files of a folder. */
#ifndef PROJECTION_SQL_FOLDER_H
#define PROJECTION_SQL_FOLDER_H

#include "base/arena.h"
#include "os/os.h"

struct sql_folder_file {
    deed_str name; /* "order_summary.sql" */
    deed_str text;
};

/* Read all of them, in order of name, into `arena`. A folder that is not there has none.
 *
 *   DEED_TOO_LARGE  a file is over SQL_TEXT_SIZE_MAX. DEED_IO, DEED_NO_MEMORY. */
DEED_MUST_CHECK deed_status sql_folder_read(struct os *os, const char *folder, struct arena *arena,
                                            struct sql_folder_file **out_files, size_t *out_count,
                                            struct deed_error *err);

#endif
