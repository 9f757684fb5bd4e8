/* scan.h - following the chain through the files: what recovery and verifying have in common.
 *
 * Shared by the files of src/log. */
#ifndef LOG_SCAN_H
#define LOG_SCAN_H

#include "log/log_state.h"
#include "log/losses.h"

#define SCAN_WINDOW_SIZE (UINT64_C(1) << 20)

struct scan {
    struct log *log;
    const struct log_visitor *visitor;
    struct deed_error *err;
    struct arena arena;

    /* The segment being read. */
    struct log_segment *segment; /* gets the refs, when opening; NULL: none does */
    struct os_file *file;
    uint32_t number;
    uint64_t file_size;
    uint8_t *window;
    uint64_t window_offset;
    size_t window_len, window_room;
    struct buf body, packed; /* of a sealed one */

    /* The chain so far. */
    uint64_t expected; /* the next position */
    uint8_t previous[SHA256_SIZE];
    bool previous_known; /* false behind damage */
    int64_t recorded_at_ns;
    uint64_t end_offset; /* behind the last good commit of this segment */

    struct mark mark;   /* opening: what it claims */
    uint64_t hash_from; /* recompute own hashes from this position on */
    uint64_t until;     /* stop behind this position; DEED_NONE: at the end */
    struct losses losses; /* accepted */
    struct losses found;  /* to be accepted now */
    bool damaged;
    uint64_t told; /* how often damage was, accepted or not */
    bool unreadable; /* some of it, as the device failed: it may be good */
    uint64_t done, all; /* bytes, for progress */
};

void scan_init(struct scan *s, struct log *log, const struct log_visitor *visitor,
               struct deed_error *err);
void scan_done(struct scan *s); /* accepts a zeroed one */

/* Tell the visitor of damage, and remember it unless it is accepted. */
DEED_MUST_CHECK deed_status scan_report(struct scan *s, uint64_t offset, uint64_t size,
                                        uint64_t first, uint64_t last, const char *what);

/* Load the accepted losses; a damaged list accepts nothing, and is told if `tell`. */
DEED_MUST_CHECK deed_status scan_losses(struct scan *s, bool tell);

/* What a segment's name or header says of its beginning, joined to the chain. `previous` may be
 * NULL: not known. */
DEED_MUST_CHECK deed_status scan_join(struct scan *s, uint64_t first, const uint8_t *previous);

/* Follow the chain through a .seg file. */
DEED_MUST_CHECK deed_status scan_segment(struct scan *s, struct os_file *file, uint32_t number,
                                         bool header_good, const struct segment_header *header);
/* Go through a sealed file with a good footer. `deep`: read its header, all its bytes and the whole
 * table too, and compare. A repair does: what verifying will find is what it accepts. */
DEED_MUST_CHECK deed_status scan_sealed(struct scan *s, struct os_file *file,
                                        const struct sealed_footer *footer, bool deep);
/* A sealed segment of these positions cannot be read at all: go on behind it. */
DEED_MUST_CHECK deed_status scan_unreadable(struct scan *s, uint32_t number, uint64_t first,
                                            uint64_t last, const char *what);

#endif
