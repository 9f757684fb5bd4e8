/* index.c - the row of runs, its views, and what of an event goes into it.
 *
 *   view -> run 1 (segments 1 to 8) | run 2 (segment 9) | ... | the active segment's run
 *           positions 1 to 1000     | 1001 to 1200      |     | from there on
 *
 * (1) The runs of a view follow one another: each begins behind the last position of the one
 *     before, so a position belongs to exactly one of them.
 * (2) A view never changes. A new row is a new view; the old one goes with its last reader, and so
 *     does a run.
 * (3) Only the writer adds, only to the last run, and without a lock: it works with a view of its
 *     own, and takes a newer one when it sees that there is one.
 * (4) The log is the truth: a run's file that is missing, damaged, of another log or of another
 *     history is no loss, what it covered is read from the log again.
 * (5) Of files that cover the same segments the widest good one counts: it was durable before the
 *     others were removed. */
#include "index/index_state.h"

#include "base/planted.h"
#include "base/uuid.h"
#include "log/log.h"

#include <assert.h>
#include <stdlib.h>

/* ---- runs and views ------------------------------------------------------------------------- */

struct index_run *index_run_create(struct index *index, uint32_t first_segment,
                                   uint32_t last_segment, uint64_t first_position,
                                   uint64_t last_position)
{
    struct index_run *run = calloc(1, sizeof *run);
    if (run == NULL) return NULL;
    run->index = index;
    run->first_segment = first_segment;
    run->last_segment = last_segment;
    run->first_position = first_position;
    atomic_init(&run->last_position, last_position);
    return run;
}

void index_run_free(struct index_run *run)
{
    if (run == NULL) return;
    memory_run_destroy(run->memory);
    run_file_close(run->file);
    if (run->remove && run->index->dir != NULL && !run->index->options.read_only) {
        char name[RUN_NAME_SIZE];
        run_name(run->first_segment, run->last_segment, name);
        (void)!os_remove(run->index->dir, name, NULL); /* what stays is removed at the next opening */
    }
    free(run);
}

static struct index_run *run_create_memory(struct index *index, uint32_t segment,
                                           uint64_t first_position, uint64_t terms)
{
    struct index_run *run =
        index_run_create(index, segment, segment, first_position, UINT64_MAX);
    if (run == NULL) return NULL;
    run->memory = memory_run_create(terms);
    if (run->memory != NULL) return run;
    index_run_free(run);
    return NULL;
}

/* Freeing half a million lists, or removing a file, is not for who happens to be the last. */
static void run_drop(struct index_run *run)
{
    if (atomic_fetch_sub_explicit(&run->references, 1, memory_order_acq_rel) > 1) return;
    struct index *index = run->index;
    os_mutex_lock(&index->lock);
    run->dead_next = index->dead;
    index->dead = run;
    os_mutex_unlock(&index->lock);
}

void index_sweep(struct index *index)
{
    os_mutex_lock(&index->lock);
    struct index_run *dead = index->dead;
    index->dead = NULL;
    os_mutex_unlock(&index->lock);
    while (dead != NULL) {
        struct index_run *next = dead->dead_next;
        index_run_free(dead);
        dead = next;
    }
}

static struct index_view *view_create(struct index *index, size_t run_count)
{
    struct index_view *view = calloc(1, sizeof *view + run_count * sizeof view->runs[0]);
    if (view == NULL) return NULL;
    atomic_init(&view->references, 1);
    view->index = index;
    view->hashing = index->hashing;
    return view;
}

/* In its place by segment. */
static void view_put(struct index_view *view, struct index_run *run)
{
    size_t i = view->run_count++;
    for (; i > 0 && view->runs[i - 1]->first_segment > run->first_segment; i--) {
        view->runs[i] = view->runs[i - 1];
    }
    view->runs[i] = run;
    atomic_fetch_add_explicit(&run->references, 1, memory_order_relaxed);
}

/* The new view takes the old one's place (2). The caller's reference is the index's. */
static void view_publish(struct index *index, struct index_view *view)
{
    os_mutex_lock(&index->lock);
    struct index_view *old = index->view;
    view->generation = atomic_load(&index->generation) + 1;
    index->view = view;
    atomic_store_explicit(&index->generation, view->generation, memory_order_release);
    os_mutex_unlock(&index->lock);
    index_view_drop(old);
}

const struct index_view *index_view_take(struct index *index)
{
    os_mutex_lock(&index->lock);
    struct index_view *view = index->view;
    atomic_fetch_add_explicit(&view->references, 1, memory_order_relaxed);
    os_mutex_unlock(&index->lock);
    return view;
}

void index_view_drop(const struct index_view *const_view)
{
    struct index_view *view = (struct index_view *)const_view; /* what is counted is our own */
    if (view == NULL) return;
    if (atomic_fetch_sub_explicit(&view->references, 1, memory_order_acq_rel) > 1) return;
    for (size_t i = 0; i < view->run_count; i++) run_drop(view->runs[i]);
    free(view);
}

static bool is_among(const struct index_run *run, struct index_run *const *runs, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (runs[i] == run) return true;
    }
    return false;
}

deed_status index_replace(struct index *index, struct index_run *const *out, size_t out_count,
                          struct index_run *in, struct deed_error *err)
{
    os_mutex_lock(&index->change);
    const struct index_view *old = index_view_take(index);
    struct index_view *view = view_create(index, old->run_count + 1);
    if (view != NULL) {
        for (size_t i = 0; i < old->run_count; i++) {
            if (!is_among(old->runs[i], out, out_count)) view_put(view, old->runs[i]);
        }
        if (in != NULL) view_put(view, in);
        view_publish(index, view);
    }
    index_view_drop(old);
    os_mutex_unlock(&index->change);
    return view != NULL ? DEED_OK : deed_fail(err, DEED_NO_MEMORY, "index: out of memory");
}

uint64_t index_generation(const struct index *index)
{
    return atomic_load_explicit(&index->generation, memory_order_acquire);
}

uint64_t index_view_generation(const struct index_view *view)
{
    return view->generation;
}

size_t index_view_run_count(const struct index_view *view)
{
    return view->run_count;
}

uint64_t index_stream_count(const struct index *index)
{
    return atomic_load_explicit(&index->stream_count, memory_order_relaxed);
}

uint64_t index_waiting(const struct index *index)
{
    return atomic_load_explicit(&index->waiting, memory_order_acquire);
}

bool index_failing(struct index *index)
{
    os_mutex_lock(&index->lock);
    bool failing = index->stats.failing;
    os_mutex_unlock(&index->lock);
    return failing;
}

void index_get_stats(struct index *index, struct index_stats *out)
{
    os_mutex_lock(&index->lock);
    *out = index->stats;
    out->runs = index->view->run_count;
    for (size_t i = 0; i < index->view->run_count; i++) {
        const struct index_run *run = index->view->runs[i];
        if (run->memory == NULL) continue;
        out->memory_runs++;
        out->memory_size += memory_run_size(run->memory);
    }
    os_mutex_unlock(&index->lock);
}

static deed_status verify_run(struct index_run *run, const struct index_verifier *verifier,
                              struct deed_error *err)
{
    struct run_check *check = NULL;
    struct deed_error why = {0};
    deed_status status =
        run_check_create(run->file, run->index->options.hash_mask, &check, err);
    if (status != DEED_OK) return status;
    while ((status = run_check_step(check, &why)) == DEED_OK) {
        if (verifier->progress != NULL && !verifier->progress(verifier->context)) break;
    }
    run_check_destroy(check);
    if (status == DEED_OK) return deed_fail(err, DEED_STOPPED, "stopped on request");
    if (status == DEED_END) return DEED_OK;
    if (status != DEED_CORRUPT && status != DEED_IO) {
        if (err != NULL) *err = why;
        return status;
    }
    run_file_set_damaged(run->file);
    verifier->damage(verifier->context, run->first_segment, run->last_segment, why.message);
    return DEED_OK;
}

deed_status index_verify(struct index *index, const struct index_verifier *verifier,
                         struct deed_error *err)
{
    const struct index_view *view = index_view_take(index);
    deed_status status = DEED_OK;
    for (size_t i = 0; status == DEED_OK && i < view->run_count; i++) {
        if (view->runs[i]->file != NULL) status = verify_run(view->runs[i], verifier, err);
    }
    index_view_drop(view);
    return status;
}

/* ---- the files that are there --------------------------------------------------------------- */

struct found {
    uint32_t first, last;
};

struct listing {
    struct index *index;
    struct found *found;
    size_t count, room;
    bool no_memory;
};

/* Runs are noted; what a writer left that did not come to its end is removed. */
static void list_name(void *context, const char *name)
{
    struct listing *l = context;
    struct found found;
    if (!run_name_parse(name, &found.first, &found.last)) {
        char front[RUN_NAME_SIZE];
        if (strlen(name) <= sizeof front - 1 || l->index->options.read_only) return;
        memcpy(front, name, sizeof front - 1);
        front[sizeof front - 1] = 0;
        if (run_name_parse(front, &found.first, &found.last) && name[sizeof front - 1] == '.') {
            (void)!os_remove(l->index->dir, name, NULL);
        }
        return;
    }
    if (l->count == l->room) {
        size_t room = l->room == 0 ? 64 : l->room * 2;
        struct found *grown = realloc(l->found, room * sizeof *grown);
        if (grown == NULL) {
            l->no_memory = true;
            return;
        }
        l->found = grown;
        l->room = room;
    }
    l->found[l->count++] = found;
}

/* By the first segment, the widest first (5). */
static int found_order(const void *a, const void *b)
{
    const struct found *x = a;
    const struct found *y = b;
    if (x->first != y->first) return x->first < y->first ? -1 : 1;
    return (x->last < y->last) - (x->last > y->last);
}

static void remove_file(struct index *index, const struct found *found)
{
    char name[RUN_NAME_SIZE];
    if (index->options.read_only) return;
    run_name(found->first, found->last, name);
    (void)!os_remove(index->dir, name, NULL);
}

deed_status index_run_load(struct index *index, const char *name, struct index_run **out_run,
                           struct deed_error *err)
{
    struct run_file *file;
    deed_status status = run_file_open(index->dir, name, index->options.cache, &file, err);
    if (status != DEED_OK) return status;
    const struct run_footer *f = run_file_footer(file);
    struct index_run *run = index_run_create(index, f->first_segment, f->last_segment,
                                             f->first_position, f->last_position);
    if (run == NULL) {
        run_file_close(file);
        return deed_fail(err, DEED_NO_MEMORY, "index: out of memory");
    }
    run->file = file;
    memcpy(run->hash, f->hash, SHA256_SIZE);
    *out_run = run;
    return DEED_OK;
}

static deed_status files_load(struct index *index, const struct listing *l, struct deed_error *err)
{
    uint32_t covered = 0;
    uint64_t position = 0;
    for (size_t i = 0; i < l->count; i++) {
        char name[RUN_NAME_SIZE];
        struct index_run *run = NULL;
        bool inside = l->found[i].last <= covered;
        if (inside || index->options.forget) remove_file(index, &l->found[i]);
        if (l->found[i].first <= covered || index->options.forget) continue;
        run_name(l->found[i].first, l->found[i].last, name);
        deed_status status = index_run_load(index, name, &run, err);
        if (status == DEED_NO_MEMORY || status == DEED_TOO_NEW) return status;
        if (status == DEED_CORRUPT) remove_file(index, &l->found[i]);
        if (status != DEED_OK) continue;
        const struct run_footer *f = run_file_footer(run->file);
        bool first = covered == 0;
        if (first) index->hashing.seed = f->hash_seed;
        if (f->hash_seed != index->hashing.seed || f->first_position <= position) {
            index_run_free(run);
            remove_file(index, &l->found[i]);
            continue;
        }
        status = index_replace(index, NULL, 0, run, err);
        if (status != DEED_OK) {
            index_run_free(run);
            return status;
        }
        atomic_fetch_add(&index->stream_count, f->streams);
        covered = l->found[i].last;
        position = f->last_position;
    }
    return DEED_OK;
}

static deed_status files_find(struct index *index, struct deed_error *err)
{
    struct listing l = {.index = index};
    deed_status status = os_dir_open_in(index->options.dir, INDEX_DIR_NAME,
                                        !index->options.read_only, &index->dir, err);
    if (status == DEED_NOT_FOUND) return DEED_OK; /* read-only: all in memory */
    if (status == DEED_OK) status = os_dir_list(index->dir, list_name, &l, err);
    if (status == DEED_OK && l.no_memory) {
        status = deed_fail(err, DEED_NO_MEMORY, "index: out of memory");
    }
    if (status == DEED_OK && l.count > 0) qsort(l.found, l.count, sizeof *l.found, found_order);
    if (status == DEED_OK) status = files_load(index, &l, err);
    /* Runs that are forgotten know events that are given up: their revisions are given out again, and a
     * run that a power cut brought back would not fit what is written from now on. */
    if (status == DEED_OK && index->options.forget && !index->options.read_only && l.count > 0) {
        status = os_dir_sync(index->dir, err);
    }
    free(l.found);
    return status;
}

/* ---- opening and closing -------------------------------------------------------------------- */

static deed_status first_view(struct index *index, struct deed_error *err)
{
    struct index_view *view = view_create(index, 1);
    struct index_run *active = run_create_memory(index, UINT32_MAX, 1, 0);
    if (view == NULL || active == NULL || index->work == NULL) {
        free(view);
        index_run_free(active);
        return deed_fail(err, DEED_NO_MEMORY, "index: out of memory");
    }
    view_put(view, active);
    index->active = active;
    view_publish(index, view);
    return DEED_OK;
}

/* Views that were made before the seed was known are nobody's yet. */
static deed_status views_begin(struct index *index, struct deed_error *err)
{
    return index_replace(index, NULL, 0, NULL, err);
}

deed_status index_open(const struct index_options *options, struct index **out_index,
                       struct deed_error *err)
{
    struct index *index = calloc(1, sizeof *index);
    if (index == NULL) return deed_fail(err, DEED_NO_MEMORY, "index: out of memory");
    os_mutex_init(&index->lock);
    os_mutex_init(&index->change);
    index->options = *options;
    index->hashing.seed = options->hash_seed;
    index->hashing.mask = options->hash_mask == 0 ? UINT64_MAX : options->hash_mask;
    index->work = index_work_create();
    deed_status status = first_view(index, err);
    if (status == DEED_OK && options->dir != NULL) status = files_find(index, err);
    if (status == DEED_OK) status = views_begin(index, err);
    if (status != DEED_OK) {
        index_close(index);
        return status;
    }
    *out_index = index;
    return DEED_OK;
}

void index_close(struct index *index)
{
    if (index == NULL) return;
    index_work_destroy(index->work);
    index_view_drop(index->writer_view);
    index_view_drop(index->view);
    index_sweep(index);
    os_dir_close(index->dir);
    os_mutex_done(&index->lock);
    os_mutex_done(&index->change);
    free(index);
}

bool index_covers(const struct index *index, uint32_t segment)
{
    for (size_t i = 0; i < index->view->run_count; i++) {
        const struct index_run *run = index->view->runs[i];
        if (run->file == NULL) continue;
        if (run->first_segment <= segment && segment <= run->last_segment) return true;
    }
    return false;
}

bool index_has_files(const struct index *index)
{
    for (size_t i = 0; i < index->view->run_count; i++) {
        if (index->view->runs[i]->file != NULL) return true;
    }
    return false;
}

void index_set_log(struct index *index, deed_uuid log_id)
{
    index->log_id = log_id;
}

/* Is the file's run of this log, and of what happened in it? */
static bool run_belongs(const struct index *index, const struct index_run *run, struct log *log,
                        struct log_reader *reader, uint32_t active)
{
    uint64_t last = run_last_position(run);
    struct commit commit;
    if (PLANTED(ANY_RUN_BELONGS)) return true;
    if (!uuid_equal(run_file_footer(run->file)->log_id, index->log_id)) return false;
    if (run->last_segment >= active || last > log_end(log)) return false;
    if (last < run->first_position) return true; /* of segments without events */
    deed_status status = log_reader_load(reader, last, &commit, NULL, NULL);
    if (status != DEED_OK) return true; /* damage of the log is for the log to tell */
    return commit.first_position + commit.event_count - 1 == last &&
           memcmp(commit.hash, run->hash, SHA256_SIZE) == 0;
}

static deed_status drop_strangers(struct index *index, struct log *log, uint32_t active,
                                  struct deed_error *err)
{
    const struct index_view *view = index_view_take(index);
    struct log_reader *reader = log_reader_create(log);
    deed_status status = DEED_OK;
    if (reader == NULL) status = deed_fail(err, DEED_NO_MEMORY, "index: out of memory");
    for (size_t i = 0; status == DEED_OK && i < view->run_count; i++) {
        struct index_run *run = view->runs[i];
        if (run->file == NULL || run_belongs(index, run, log, reader, active)) continue;
        status = index_replace(index, &run, 1, NULL, err);
        if (status != DEED_OK) break;
        /* Now: when the last view of it goes, one that was made again may have its name. */
        struct found name = {run->first_segment, run->last_segment};
        remove_file(index, &name);
        atomic_fetch_sub(&index->stream_count, run_file_footer(run->file)->streams);
    }
    log_reader_destroy(reader);
    index_view_drop(view);
    return status;
}

/* While opening, what cannot be read is left out: no append may rest on that. */
static deed_status scan_or_stop(struct index *index, struct log *log, uint64_t first, uint64_t last,
                                struct memory_run *run, uint64_t *out_streams,
                                struct deed_error *err)
{
    uint64_t streams = 0;
    deed_status status;
    while ((status = index_scan(index, log, &first, last, UINT64_MAX, run, out_streams, err)) ==
           DEED_CORRUPT) {
        uint64_t lost_first = first;
        uint64_t lost_last = first;
        log_stop(log, "the index cannot be made again: %.300s",
                 err == NULL ? "the log is damaged" : err->message);
        log_lost_around(log, first, &lost_first, &lost_last);
        first = lost_last < first ? first + 1 : lost_last + 1;
        streams += *out_streams;
    }
    *out_streams += streams;
    return status;
}

/* Positions that no run has: read them from the log into memory. In the middle they make a run of
 * their own; at the end they are the active one's. */
static deed_status fill_gap(struct index *index, struct log *log, const struct index_run *before,
                            struct index_run *next, uint64_t first, uint64_t last,
                            struct deed_error *err)
{
    uint32_t segment = before == NULL ? 1 : before->last_segment + 1;
    uint64_t streams = 0;
    if (next == index->active && memory_run_term_count(next->memory) == 0) {
        next->first_segment = segment < next->last_segment ? segment : next->last_segment;
        next->first_position = first;
        deed_status read = scan_or_stop(index, log, first, last, next->memory, &streams, err);
        atomic_fetch_add(&index->stream_count, streams);
        return read;
    }
    struct index_run *run = run_create_memory(index, segment, first, 0);
    if (run == NULL) return deed_fail(err, DEED_NO_MEMORY, "index: out of memory");
    atomic_store(&run->last_position, last);
    deed_status status = scan_or_stop(index, log, first, last, run->memory, &streams, err);
    /* Lost positions are no gap, and have no segment. */
    bool empty = memory_run_term_count(run->memory) == 0 || segment >= next->first_segment;
    if (status != DEED_OK || empty) {
        index_run_free(run);
        return status;
    }
    run->last_segment = next->first_segment - 1;
    struct log_reader *reader = log_reader_create(log);
    struct commit commit;
    if (reader != NULL && log_reader_load(reader, last, &commit, NULL, NULL) == DEED_OK) {
        memcpy(run->hash, commit.hash, SHA256_SIZE);
    }
    log_reader_destroy(reader);
    status = index_replace(index, NULL, 0, run, err);
    if (status != DEED_OK) index_run_free(run);
    if (status != DEED_OK) return status;
    atomic_fetch_add(&index->stream_count, streams);
    if (index->dir != NULL && !index->options.read_only) atomic_fetch_add(&index->waiting, 1);
    return DEED_OK;
}

static deed_status fill_gaps(struct index *index, struct log *log, struct deed_error *err)
{
    const struct index_view *view = index_view_take(index);
    const struct index_run *before = NULL;
    uint64_t expected = 1;
    deed_status status = DEED_OK;
    for (size_t i = 0; status == DEED_OK && i < view->run_count; i++) {
        struct index_run *run = view->runs[i];
        uint64_t end = run->first_position - 1;
        if (run == index->active && end > log_end(log)) end = log_end(log);
        if (expected <= end) status = fill_gap(index, log, before, run, expected, end, err);
        expected = run_last_position(run) + 1;
        before = run;
    }
    index_view_drop(view);
    return status;
}

deed_status index_opened(struct index *index, struct log *log, uint32_t active,
                         struct deed_error *err)
{
    static const uint8_t no_hash[SHA256_SIZE];
    if (active == 0) active = 1;
    index->log_id = log_id(log);
    deed_status status = drop_strangers(index, log, active, err);
    /* The active segment has no events, or they were thought to be covered. */
    if (status == DEED_OK && (!index->begun || index->active->last_segment != active)) {
        uint8_t hash[SHA256_SIZE];
        memcpy(hash, no_hash, sizeof hash);
        log_chain_hash(log, hash);
        status = index_roll(index, active, log_end(log), hash, err);
    }
    return status == DEED_OK ? fill_gaps(index, log, err) : status;
}

/* ---- the writer ----------------------------------------------------------------------------- */

const struct index_view *index_writer_view(struct index *index)
{
    if (index->writer_view == NULL) {
        index->writer_view = (struct index_view *)index_view_take(index);
    }
    return index->writer_view;
}

void index_writer_renew(struct index *index)
{
    const struct index_view *view = index->writer_view;
    if (view != NULL && view->generation != index_generation(index)) index_writer_rest(index);
}

void index_writer_rest(struct index *index)
{
    index_view_drop(index->writer_view);
    index->writer_view = NULL;
}

/* Runs of files lie between the segments that opening reads: one that ends must not claim their
 * positions. */
static uint64_t end_of(struct index *index, const struct index_run *run, uint64_t last_position)
{
    const struct index_view *view = index_writer_view(index);
    for (size_t i = 0; i < view->run_count; i++) {
        const struct index_run *other = view->runs[i];
        if (other == run || other->first_segment < run->first_segment) continue;
        if (other->first_position <= last_position) return other->first_position - 1;
    }
    return last_position;
}

static bool is_lost(const struct index *index, uint64_t position, uint64_t *out_last)
{
    const struct index_options *o = &index->options;
    return o->is_lost != NULL && o->is_lost(o->context, position, out_last);
}

/* Where the run of a segment begins whose first event stands at `first`: positions that are known to
 * be lost before it are its own, so that nobody looks for them there again. `active_end`: where the
 * active run is about to end. */
static uint64_t begin_of(struct index *index, uint32_t segment, uint64_t first,
                         uint64_t active_end)
{
    const struct index_view *view = index_writer_view(index);
    uint64_t before = 0;
    for (size_t i = 0; i < view->run_count && view->runs[i]->first_segment < segment; i++) {
        const struct index_run *run = view->runs[i];
        uint64_t last = run == index->active ? active_end : run_last_position(run);
        if (last != UINT64_MAX) before = last;
    }
    uint64_t position = before + 1;
    uint64_t last = 0;
    while (position < first && is_lost(index, position, &last)) position = last + 1;
    return position >= first && before < first ? before + 1 : first;
}

deed_status index_roll(struct index *index, uint32_t segment, uint64_t last_position,
                       const uint8_t hash[32], struct deed_error *err)
{
    struct index_run *active = index->active;
    index_writer_renew(index);
    if (!index->begun) {
        active->first_segment = active->last_segment = segment;
        active->first_position = begin_of(index, segment, last_position + 1, UINT64_MAX);
        deed_status status = index_replace(index, &active, 1, active, err);
        index->begun = status == DEED_OK;
        index_writer_renew(index);
        return status;
    }
    if (segment == active->last_segment) return DEED_OK;
    memcpy(active->hash, hash, SHA256_SIZE);
    uint64_t end = end_of(index, active, last_position);
    struct index_run *next =
        run_create_memory(index, segment, begin_of(index, segment, last_position + 1, end),
                          memory_run_term_count(active->memory));
    if (next == NULL) return deed_fail(err, DEED_NO_MEMORY, "index: out of memory");
    deed_status status = index_replace(index, NULL, 0, next, err);
    if (status != DEED_OK) {
        index_run_free(next);
        return status;
    }
    /* Nothing can fail any more: a run that has an end may be written at once, and replaced. */
    if (index->dir != NULL && !index->options.read_only) atomic_fetch_add(&index->waiting, 1);
    atomic_store_explicit(&active->last_position, end, memory_order_release);
    index->active = next;
    index_writer_renew(index);
    return DEED_OK;
}

/* ---- events --------------------------------------------------------------------------------- */

bool index_is_system(deed_str stream)
{
    return stream.len > 0 && stream.ptr[0] == '$';
}

deed_str index_category_of(deed_str stream)
{
    if (index_is_system(stream)) return (deed_str){0};
    const char *dash = stream.len == 0 ? NULL : memchr(stream.ptr, '-', stream.len);
    if (dash == NULL || dash == stream.ptr) return (deed_str){0};
    return (deed_str){stream.ptr, (size_t)(dash - stream.ptr)};
}

/* A tag that an event repeats is indexed once. */
static bool tag_repeated(const struct index_event *event, size_t i)
{
    for (size_t k = 0; k < i; k++) {
        if (deed_str_equal(event->tags[k], event->tags[i])) return true;
    }
    return false;
}

static struct index_term text_term(const struct index *index, enum index_kind kind, deed_str text)
{
    return term_make(index->hashing, kind, deed_bytes_of(text), (deed_bytes){0});
}

#define TERMS_FIXED 8 /* and then the tags */

/* The event's i-th term. false: past the last; a kind of INDEX_KIND_COUNT: this one is left out. */
static bool event_term(const struct index *index, const struct index_event *event, size_t i,
                       struct index_term *out)
{
    deed_str category = index_category_of(event->stream);
    out->kind = INDEX_KIND_COUNT;
    switch (i) {
    case 0: *out = text_term(index, INDEX_STREAM, event->stream); break;
    case 1: *out = text_term(index, INDEX_TYPE, event->type); break;
    case 2: *out = term_make_id(index->hashing, event->stream, &event->id); break;
    case 3:
        if (category.ptr == NULL) break;
        *out = text_term(index, INDEX_CATEGORY, category);
        break;
    case 4:
        if (event->correlation_id.len == 0) break;
        *out = text_term(index, INDEX_CORRELATION, event->correlation_id);
        break;
    case 5:
        if (event->key.len == 0) break;
        *out = text_term(index, INDEX_KEY, event->key);
        break;
    case 6:
        if (!index_is_system(event->stream)) break;
        *out = text_term(index, INDEX_SYSTEM, (deed_str){0});
        break;
    case 7:
        if (event->revision != 0 || index_is_system(event->stream)) break;
        *out = text_term(index, INDEX_SYSTEM, DEED_STR(INDEX_FIRST_TERM));
        break;
    default:
        if (i - TERMS_FIXED >= event->tag_count) return false;
        if (tag_repeated(event, i - TERMS_FIXED) ||
            (PLANTED(LOSE_POSTING) && event->position % 64 == 0)) {
            break;
        }
        *out = text_term(index, INDEX_TAG, event->tags[i - TERMS_FIXED]);
        break;
    }
    return true;
}

static void remove_terms(struct index *index, struct memory_run *run,
                         const struct index_event *event, size_t count)
{
    for (size_t i = count; i > 0; i--) {
        struct index_term term;
        (void)event_term(index, event, i - 1, &term);
        if (PLANTED(FIRST_STAYS) && i == TERMS_FIXED) continue;
        if (term.kind != INDEX_KIND_COUNT) memory_run_remove(run, &term, event->position);
    }
}

/* All terms of the event or none. false: out of memory. */
static bool add_terms(struct index *index, struct memory_run *run, const struct index_event *event)
{
    struct index_term term;
    for (size_t i = 0; event_term(index, event, i, &term); i++) {
        if (term.kind == INDEX_KIND_COUNT) continue;
        uint64_t base = term.kind == INDEX_STREAM ? event->revision : 0;
        if (memory_run_add(run, &term, event->position, base)) continue;
        remove_terms(index, run, event, i);
        return false;
    }
    return true;
}

deed_status index_add_event(struct index *index, const struct index_event *event,
                            struct deed_error *err)
{
    assert(event->position >= index->active->first_position);
    if (!add_terms(index, index->active->memory, event)) {
        return deed_fail(err, DEED_NO_MEMORY, "index: out of memory");
    }
    if (event->revision == 0) {
        atomic_fetch_add_explicit(&index->stream_count, 1, memory_order_relaxed);
    }
    return DEED_OK;
}

void index_remove_event(struct index *index, const struct index_event *event)
{
    remove_terms(index, index->active->memory, event, TERMS_FIXED + event->tag_count);
    if (event->revision == 0) {
        atomic_fetch_sub_explicit(&index->stream_count, 1, memory_order_relaxed);
    }
}

deed_status index_add_lost(struct index *index, deed_str stream, uint64_t revision,
                           uint64_t position, struct deed_error *err)
{
    struct index_term term = text_term(index, INDEX_STREAM, stream);
    if (!memory_run_add(index->active->memory, &term, position, revision)) {
        return deed_fail(err, DEED_NO_MEMORY, "index: out of memory");
    }
    if (revision == 0) {
        atomic_fetch_add_explicit(&index->stream_count, 1, memory_order_relaxed);
    }
    return DEED_OK;
}

bool index_active_count(struct index *index, deed_str stream, uint64_t *out_count)
{
    struct index_term term = text_term(index, INDEX_STREAM, stream);
    const struct memory_list *list = memory_run_find(index->active->memory, &term);
    uint64_t count = memory_list_count(list, UINT64_MAX);
    if (count == 0) return false;
    *out_count = memory_list_base(list) + count;
    return true;
}

/* ---- reading the log again ------------------------------------------------------------------ */

/* Revisions that are missing within the run were lost: they keep their places in the list. */
static bool fill_lost(struct index *index, struct memory_run *run, const struct deed_event *event,
                      uint64_t lost)
{
    struct index_term term = text_term(index, INDEX_STREAM, event->stream);
    const struct memory_list *list = memory_run_find(run, &term);
    uint64_t count = memory_list_count(list, UINT64_MAX);
    if (count == 0) return true;
    uint64_t last = memory_list_at(list, count - 1);
    uint64_t revision = memory_list_base(list) + count;
    for (; revision < event->revision; revision++) {
        if (!memory_run_add(run, &term, lost > last ? lost : last, 0)) return false;
    }
    return true;
}

static deed_status scan_commit(struct index *index, const struct commit *commit, uint64_t from,
                               uint64_t lost, struct memory_run *run, struct arena *arena,
                               uint64_t *inout_streams, struct deed_error *err)
{
    struct reader r = reader_over(commit->events);
    for (uint32_t i = 0; i < commit->event_count; i++) {
        struct deed_event event;
        arena_reset(arena);
        if (!event_decode(&r, arena, &event, NULL)) {
            if (arena->failed) return deed_fail(err, DEED_NO_MEMORY, "index: out of memory");
            return deed_fail(err, DEED_CORRUPT, "position %llu is malformed",
                             (unsigned long long)(commit->first_position + i));
        }
        if (event.position < from) continue;
        struct index_event terms = {.stream = event.stream,
                                    .type = event.type,
                                    .correlation_id = event.correlation_id,
                                    .key = event.idempotency_key,
                                    .tags = event.tags,
                                    .tag_count = event.tag_count,
                                    .id = event.id,
                                    .position = event.position,
                                    .revision = event.revision};
        if (!fill_lost(index, run, &event, lost) || !add_terms(index, run, &terms)) {
            return deed_fail(err, DEED_NO_MEMORY, "index: out of memory");
        }
        *inout_streams += event.revision == 0;
    }
    return DEED_OK;
}

deed_status index_scan(struct index *index, struct log *log, uint64_t *inout_first, uint64_t last,
                       uint64_t terms_max, struct memory_run *run, uint64_t *out_streams,
                       struct deed_error *err)
{
    struct arena arena;
    uint64_t lost = 0;
    deed_status status = DEED_OK;
    struct log_reader *reader = log_reader_create(log);
    if (reader == NULL) return deed_fail(err, DEED_NO_MEMORY, "index: out of memory");
    log_reader_expect(reader, 256u << 10);
    arena_init(&arena, SIZE_MAX);
    uint64_t position = *inout_first;
    *out_streams = 0;
    while (position <= last && memory_run_term_count(run) < terms_max) {
        struct commit commit;
        status = log_reader_load(reader, position, &commit, NULL, err);
        if (status == DEED_CORRUPT && PLANTED(MEND_SKIPS_DAMAGE)) lost = position;
        if (status == DEED_CORRUPT &&
            (is_lost(index, position, &lost) || PLANTED(MEND_SKIPS_DAMAGE))) {
            position = lost + 1;
            status = DEED_OK;
            continue;
        }
        if (status == DEED_OK) {
            status =
                scan_commit(index, &commit, position, lost, run, &arena, out_streams, err);
        }
        if (status != DEED_OK) break;
        position = commit.first_position + commit.event_count;
    }
    *inout_first = position;
    arena_done(&arena);
    log_reader_destroy(reader);
    return status;
}
