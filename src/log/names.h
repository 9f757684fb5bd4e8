/* names.h - the files of a log's directory, and which of a segment's files counts.
 *
 * Shared by the files of src/log. */
#ifndef LOG_NAMES_H
#define LOG_NAMES_H

#include "log/log_state.h"

/* The files that are there. */
struct names {
    struct sealed_name *ptr; /* generation 0 is a .seg */
    size_t count, room;
    struct arena arena;
    char **unfinished; /* names that end in NAME_UNFINISHED */
    size_t unfinished_count;
    bool no_memory;
};

/* `names->arena` is initialised, or what an earlier call left is replaced. By number, then the oldest
 * generation first. */
DEED_MUST_CHECK deed_status names_list(struct log *log, struct names *names, struct deed_error *err);
void names_done(struct names *names);

/* Leave one file a segment, the one that counts. The others that have nothing else, and what was not
 * finished, are removed, unless the log is opened to be read. */
DEED_MUST_CHECK deed_status names_choose(struct log *log, struct names *names, struct deed_error *err);

/* Read a file's header; `*out_good`: it is the header of a file of this name. */
DEED_MUST_CHECK deed_status name_header_read(struct os_file *file, const struct sealed_name *name,
                                             struct segment_header *out_header, bool *out_good,
                                             struct deed_error *err);

#endif
