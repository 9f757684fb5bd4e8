/* view.h - which segments the log consists of, as of one moment.
 *
 * A view never changes. The log has a current one, and makes another when a segment is begun, sealed
 * or rewritten; who took one keeps it, and its segments' memory, until it is dropped. Files are not
 * kept: that of a segment that was replaced is gone, and who misses it takes the current view.
 *
 * Shared by the files of src/log. */
#ifndef LOG_VIEW_H
#define LOG_VIEW_H

#include "base/chunks.h"
#include "log/log.h"
#include "log/sealed.h"
#include "os/thread.h"

struct log_segment {
    _Atomic unsigned holders;
    uint32_t number;
    uint32_t generation; /* 0: a .seg file */
    bool missing;        /* there is no file */
    char name[SEALED_NAME_SIZE];
    bool header_good;    /* of a .seg file: as opening found it */
    bool damaged;        /* of a .seg file: opening found damage in or before it, accepted or not */
    struct segment_header header;
    uint64_t first_position; /* that it may hold; the next one's is behind its last */
    struct chunks refs;      /* of a .seg file: struct commit_ref, published ones only */
    _Atomic bool unsealable; /* sealing it found damage: it stays as it is */
    _Atomic bool settled;    /* what it was rewritten from is gone, durably, as this process saw */
    _Atomic uint64_t size;   /* of the file, when it does not change any more; 0: not known yet */
    struct os_mutex lock;
    bool footer_known; /* guarded by `lock`, as the footer is; neither changes once it is true */
    struct sealed_footer footer;
    uint64_t cache_source; /* set with the footer */
};

struct log_view {
    _Atomic unsigned holders;
    uint64_t serial; /* grows by one a view */
    size_t count;
    struct log_segment *segments[]; /* held; by first position */
};

/* A segment object with one holder; NULL: out of memory. */
struct log_segment *log_segment_make(uint32_t number, uint32_t generation, uint64_t first_position);
struct log_segment *log_segment_hold(struct log_segment *segment);
void log_segment_drop(struct log_segment *segment); /* accepts NULL */
/* The name of a segment's file: sealed, or (generation 0) written to. */
void log_file_name(const struct sealed_name *name, char out[SEALED_NAME_SIZE]);

/* The segment's file, to be unpinned. DEED_NOT_FOUND: it was replaced, or it is missing. */
DEED_MUST_CHECK deed_status log_segment_pin(struct log *log, const struct log_segment *segment,
                                            struct os_file **out_file, struct deed_error *err);
/* The footer of a sealed one, whose file is pinned; read once. As sealed_footer_load. */
DEED_MUST_CHECK deed_status log_segment_footer(struct log *log, struct log_segment *segment,
                                               struct os_file *file,
                                               const struct sealed_footer **out_footer,
                                               struct deed_error *err);

/* The pinned file of a sealed one, whose footer is known, with its place in the block cache. */
struct sealed_file log_segment_sealed(struct log *log, const struct log_segment *segment,
                                      struct os_file *file);
/* What is known of a file that was just written. */
void log_segment_set_footer(struct log *log, struct log_segment *segment,
                            const struct sealed_footer *footer);

/* Of a .seg file: how many commits begin at or before `position`, and the i-th of its commits. */
uint64_t log_segment_up_to(const struct log_segment *segment, uint64_t position);
struct commit_ref log_segment_ref(const struct log_segment *segment, uint64_t i);

struct log_view *log_view_take(struct log *log);
void log_view_drop(struct log_view *view); /* accepts NULL */
/* The index of the segment in whose range `position` lies; the view is not empty. */
size_t log_view_find(const struct log_view *view, uint64_t position);
/* The index of a segment by its number; the count: there is none. */
size_t log_view_number(const struct log_view *view, uint32_t number);
/* The last position of the i-th segment's range, 0 if it is empty; of the last one's, `end`. */
uint64_t log_view_last(const struct log_view *view, size_t i, uint64_t end);
/* Is the view the current one still? */
bool log_view_current(struct log *log, const struct log_view *view);

/* The first view, which takes over a holder of each segment. */
DEED_MUST_CHECK deed_status log_view_start(struct log *log, struct log_segment *const *segments,
                                           size_t count, struct deed_error *err);
/* Make and show a view with one more segment, or with another in place of one of that number. They
 * take over the segment's holder when they succeed. DEED_NO_MEMORY. */
DEED_MUST_CHECK deed_status log_view_append(struct log *log, struct log_segment *segment,
                                            struct deed_error *err);
DEED_MUST_CHECK deed_status log_view_replace(struct log *log, struct log_segment *segment,
                                             struct deed_error *err);

#endif
