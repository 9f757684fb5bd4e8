/* query_file.h - one SELECT with named parameters, and the comment above it. */
#ifndef QUERY_QUERY_FILE_H
#define QUERY_QUERY_FILE_H

#include "projection/sql_text.h"

#define QUERY_NAME_SIZE_MAX 64

struct query_file {
    deed_str name, comment; /* the comment lines at the top, one after another */
    struct sql_statement sql;
    const deed_str *parameters; /* each once, as written: "from?" may be left out */
    size_t parameter_count;
    struct arena arena;
};

/* DEED_INVALID: "query orders: line 3: …". */
DEED_MUST_CHECK deed_status query_file_load(deed_str name, deed_str text,
                                            struct query_file **out_file, struct deed_error *err);
void query_file_free(struct query_file *file); /* accepts NULL */

#endif
