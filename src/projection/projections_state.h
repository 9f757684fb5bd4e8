/* projections_state.h - what the files of the set share: projections.c (the set and its folders),
 * projection_open.c, projection_actor.c (folding, rebuilding), projection_publish.c (what others may
 * see) and projections_view.c (others, who look and wait).
 *
 * (1) `admin` is held while the list's members change (add, load, close), across disk and SQLite.
 *     `mutex` guards the list, what is published of each projection, and what is asked of it; under
 *     it nothing waits and nothing touches a disk, since the committer's thread takes it to wake us.
 * (2) `live` and `next` belong to the actor. Others see `shown` and the published numbers.
 * (3) A position is published after its commit: whoever reads the file later finds its rows.
 * (4) A database file is removed when it is dead and nobody holds a reference. The live one has one
 *     reference of its own. */
#ifndef PROJECTION_PROJECTIONS_STATE_H
#define PROJECTION_PROJECTIONS_STATE_H

#include "os/thread.h"
#include "projection/fold.h"
#include "projection/manifest.h"
#include "projection/projections.h"
#include "projection/snapshots.h"

/* A rate older than this says nothing about now. */
#define RATE_STALE_NS UINT64_C(3000000000)

struct database_file {
    char name[MANIFEST_FILE_NAME_SIZE];
    char *path;
    unsigned references; /* under the set's mutex, as `dead` */
    bool dead;
};

/* A generation being folded; the actor's own. */
struct side {
    bool open;
    uint64_t number;
    struct database_file *file;
    struct fold fold;
};

struct rate {
    uint64_t window_ticks, window_count, noted_ticks;
    double value; /* a second; NaN: not known yet */
};

struct wants {
    bool pause, resume, rebuild;
    uint64_t without_removed;     /* rebuild: pass over removed events up to here */
    struct projection_file *file; /* another text; owned */
    /* What a query found wrong with this live generation; empty: nothing. */
    char damage[DEED_MESSAGE_SIZE];
    uint64_t damaged_generation;
};

struct projection {
    struct projections *set;
    char *name;
    char *folder; /* that it was loaded from; NULL: it was added. Under admin */
    struct actor *actor;
    atomic_bool stopping;

    /* The actor's own. */
    struct side live, next;
    uint64_t number_max;  /* of generations that ever were */
    uint64_t retry_ticks; /* when to open the live one again after storage failed; 0: not */
    uint64_t text_ticks;  /* when to look at the newest text again, for the same reason; 0: not */
    char damage[DEED_MESSAGE_SIZE]; /* of the live generation, which is open still; empty: none */
    bool mending;          /* the live generation is damaged and closed, and is to be rebuilt */
    uint64_t mend_ticks;   /* when that begins; 0: it has, or is not wanted */
    uint64_t mended_ticks; /* when it began last; 0: never */
    bool did_work;

    /* Under the set's mutex. */
    struct wants wants;
    struct projection_file *shown;  /* of the live generation, or what it would be */
    struct projection_file *newest; /* the last text that was accepted */
    struct database_file *live_file;
    enum projection_state state;
    uint64_t generation, position, events, transactions, passed_over;
    struct rate rate;
    struct fold_failure failure;
    bool rebuilding;
    uint64_t rebuild_position, rebuild_target;
    struct rate rebuild_rate;
    char rebuild_error[DEED_MESSAGE_SIZE];
};

/* A file of a folder that was not taken up when the folder was read last. */
struct refusal {
    struct refusal *next;
    char *file, *message;
};

struct projections {
    struct store *store;
    struct os *os;
    struct os_dir *dir;
    struct projections_options options;
    struct os_mutex admin, mutex; /* see (1) */
    struct os_cond changed;       /* a position, a state */
    struct projection **list;     /* in order of name */
    size_t count;
    struct refusal *refusals;
    uint64_t schema_version;
    struct snapshots *snapshots;
    struct store_watch watch;
};

struct projection_lease {
    struct projections *set;
    struct database_file *file;
    struct snapshot *snapshot;
};

static inline deed_status projection_no_memory(struct deed_error *err)
{
    return deed_fail(err, DEED_NO_MEMORY, "no memory for a projection");
}

static inline deed_status projection_not_found(deed_str name, struct deed_error *err)
{
    return deed_fail(err, DEED_NOT_FOUND, "there is no projection %.*s", DEED_FMT(name));
}

static inline uint64_t set_now(const struct projections *set)
{
    return os_ticks_ns(set->os);
}

/* ---- projections.c --------------------------------------------------------------------------- */

/* The mutex is held, or admin by the only thread that changes the list. */
struct projection *projections_find(struct projections *set, deed_str name);
bool projection_file_has_table(const struct projection_file *file, deed_str table);

/* ---- projection_open.c ----------------------------------------------------------------------- */

/* Takes over `file`. */
deed_status projection_create(struct projections *set, struct projection_file *file,
                              struct projection **out, struct deed_error *err);
/* Its actor begins, unless there are no threads. */
deed_status projection_start(struct projection *p, struct deed_error *err);
void projection_destroy(struct projection *p); /* accepts NULL */

/* ---- projection_actor.c ---------------------------------------------------------------------- */

/* As an actor's step (os/thread.h). */
uint64_t projection_step(void *context);

/* The rest is for opening, before there is an actor. Close a side; with `dead` its files go when
 * nobody reads them any more. */
void side_close(struct projection *p, struct side *side, bool dead);
deed_status side_create(struct projection *p, struct side *side, const struct projection_file *file,
                        struct deed_error *err);
deed_status side_open(struct projection *p, struct side *side, uint64_t number,
                      struct deed_error *err);
void rebuild_start(struct projection *p, const struct projection_file *file,
                   uint64_t without_removed);
void live_not_opened(struct projection *p, deed_status status, const char *message);
/* Another text: carry on, or rebuild. */
void take_file(struct projection *p, const struct projection_file *file);

/* ---- projection_publish.c -------------------------------------------------------------------- */

struct database_file *file_create(struct projections *set, deed_str projection, uint64_t number);
/* Give a reference back; see (4). The mutex is not held. */
void file_release(struct projections *set, struct database_file *file);

void rate_start(struct rate *rate, uint64_t ticks, uint64_t count);
/* NaN: not known. */
double rate_now(const struct rate *rate, uint64_t ticks, uint64_t count);

void publish_switch(struct projection *p, const struct projection_file *text);
void publish_live(struct projection *p);
/* `failure` NULL: none, or the one there was. */
void publish_state(struct projection *p, enum projection_state state,
                   const struct fold_failure *failure);
/* The same for damage, and in the same moment that a rebuild is about to begin: so nobody sees a
 * projection that has failed and does nothing about it. */
void publish_damage(struct projection *p, const struct fold_failure *failure, bool at_once);
void publish_rebuild(struct projection *p);
void publish_rebuild_end(struct projection *p, const char *error);

#endif
