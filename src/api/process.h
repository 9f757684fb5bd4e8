/* process.h - what this process takes of the machine, for /metrics. */
#ifndef API_PROCESS_H
#define API_PROCESS_H

#include "deedbook.h"

struct process_stats {
    uint64_t resident_size, virtual_size; /* bytes */
    uint64_t threads, open_files;
    double cpu_seconds; /* in user and in kernel mode */
};

/* false where there is no /proc: then nothing is known. */
bool process_stats_get(struct process_stats *out);

#endif
