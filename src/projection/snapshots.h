/* snapshots.h - read models as they were: folded from the log up to a position, kept for a while.
 *
 * A question about the past costs a fold from the log's beginning. The next one about the same
 * position finds the file; one about a later position carries an older file on, if nobody reads it.
 * A fold that runs out of time is kept too, so that asking again gets further. One that is damaged is
 * dropped, and folded anew. */
#ifndef PROJECTION_SNAPSHOTS_H
#define PROJECTION_SNAPSHOTS_H

#include "projection/fold.h"

struct snapshots;
struct snapshot;

/* Files go to `dir` (borrowed). */
DEED_MUST_CHECK deed_status snapshots_create(struct store *store, struct os_dir *dir,
                                             struct snapshots **out_snapshots,
                                             struct deed_error *err);
/* Removes the files. None may be taken. Accepts NULL. */
void snapshots_destroy(struct snapshots *snapshots);

/* What a read model is folded by. */
struct snapshot_source {
    deed_str name, file, text;
    uint8_t hash[SHA256_SIZE];
};

/* Take the read model as of `position`; the path is valid until it is given back. From any thread.
 *
 *   DEED_TIMEOUT  os_ticks_ns passed `deadline_ticks`. DEED_STOPPED: the projection fails on an
 * event up to there. DEED_GONE: such an event was removed from the log. DEED_INVALID: the position
 * is past the log's end. DEED_BUSY: the index is being rebuilt. */
DEED_MUST_CHECK deed_status snapshots_take(struct snapshots *snapshots,
                                           const struct snapshot_source *source, uint64_t position,
                                           uint64_t deadline_ticks, struct snapshot **out_snapshot,
                                           const char **out_path, struct deed_error *err);
void snapshots_give_back(struct snapshots *snapshots, struct snapshot *snapshot);
/* It is damaged: nobody else takes it, and it goes when it was given back by all. */
void snapshots_drop(struct snapshots *snapshots, struct snapshot *snapshot);

#endif
