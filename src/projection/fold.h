/* fold.h - bring a generation forward along the log, a transaction at a time.
 *
 * The same loop serves a live projection, a rebuild, and a question about the past. It skips what
 * is folded in already, saves its place also where nothing matched, and, when an event fails,
 * commits everything before that event and stops there. */
#ifndef PROJECTION_FOLD_H
#define PROJECTION_FOLD_H

#include "projection/generation.h"
#include "store/store.h"

#define FOLD_STATEMENT_SIZE 1024

enum fold_result {
    FOLD_MORE,   /* call again */
    FOLD_END,    /* nothing more now; or `until` is reached */
    FOLD_FAILED, /* see `failure`; fold_retry to try again */
    FOLD_BUSY,   /* a part of the log's index is being rebuilt: call again in a while */
};

struct fold_failure {
    deed_status status;
    bool of_log;       /* it is the log that could not be read, not the read model */
    uint64_t position; /* of the event; DEED_NONE: not about one */
    char message[DEED_MESSAGE_SIZE];
    char statement[FOLD_STATEMENT_SIZE]; /* its beginning; empty: none */
};

struct fold_options {
    uint64_t until;     /* do not go past this position; DEED_NONE: follow the log */
    /* Pass over events up to here that were removed from the log, and count them; else the first
     * one that the projection answers to is a failure, DEED_GONE. */
    uint64_t without_removed;
    bool deliver_twice; /* for tests: begin at the log's first event, hand each one in two times */
};

struct fold {
    struct store *store;
    struct generation *generation; /* owned */
    struct fold_options options;
    struct deed_cursor *cursor; /* NULL: opened by the next step */
    uint64_t position;          /* folded in; committed up to the generation's checkpoint */
    uint64_t failed_position;   /* fold up to here, without it, then say `failure`; or DEED_NONE */
    uint64_t saved_ticks;       /* when the checkpoint was last written */
    uint64_t events, transactions; /* done by this fold */
    struct fold_failure failure;
};

/* Takes over the generation. */
void fold_init(struct fold *f, struct store *store, struct generation *generation,
               const struct fold_options *options);
/* Save the place, close the generation. Accepts a zeroed fold. */
void fold_done(struct fold *f);

/* One transaction of at most `count_max` events. */
enum fold_result fold_step(struct fold *f, uint32_t count_max);

/* After FOLD_END: how long until the place, which moved past events that did not match, must be
 * saved by another step; UINT64_MAX: it is saved. */
uint64_t fold_save_wait(const struct fold *f);

/* Forget a failure and go on from the checkpoint, maybe with another text of the projection. */
void fold_retry(struct fold *f);

/* May `file` carry on where the generation has got to? Yes if its tables are the same, and no event
 * that was folded in would be handled differently: then a rebuild would give the same rows. */
DEED_MUST_CHECK deed_status fold_can_carry_on(struct fold *f, const struct projection_file *file,
                                              bool *out_can, struct deed_error *err);

#endif
