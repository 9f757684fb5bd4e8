/* index_step.c - the background actor: runs go from memory to files, and from eight files to one.
 *
 *   memory run ──build──► file ─┐
 *   memory run ──build──► file ─┼─ eight that follow one another and are of one size ──merge──► file
 *   ...                   ...  ─┘
 *   damaged file ──read the log──► parts ──merge──► file
 *
 * (1) A step is a bounded piece: some thousand terms or positions, or some 256 KiB.
 * (2) What a job made is durable under its name before it is in the row, and in the row before what
 *     it replaces is removed.
 * (3) A run of memory goes first: the committer waits when too many of them do. A merge lies still
 *     meanwhile, its place is kept.
 * (4) A job that fails leaves nothing; the next attempt is after a pause. */
#include "index/index_state.h"

#include "base/planted.h"
#include "index/run_writer.h"
#include "log/log.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#define MERGE_RUNS       8u
#define STEP_TERMS       4096u
#define STEP_POSITIONS   (64u << 10)
#define STEP_SIZE        (UINT64_C(256) << 10)
#define FAILURE_PAUSE_NS UINT64_C(1000000000)
/* Whether a look-up has come upon damage is looked at so often. */
#define IDLE_NS          UINT64_C(500000000)
/* Checking files goes at some 50 MB/s at most: it is in no hurry, others are. */
#define CHECK_PAUSE_NS   UINT64_C(5000000)
/* Terms of a part when a damaged run is read from the log: some 60 MB of memory. */
#define PART_TERMS       (UINT64_C(1) << 19)

enum job_kind { JOB_NONE, JOB_BUILD, JOB_MERGE, JOB_READ, JOB_CHECK };

/* One input of a merge. */
struct input {
    struct run_file *file;
    struct run_scan *scan;
    struct run_scan_term head;
    bool ended;
};

struct job {
    enum job_kind kind;
    const struct index_view *view; /* keeps the runs */
    struct index_run **runs;       /* that its result replaces */
    size_t run_count;
    struct run_writer *writer;
    struct run_meta meta;

    /* Build, and a part of reading. */
    struct memory_run *memory; /* a part's; a build's belongs to its run */
    const struct memory_list **lists;
    uint64_t list_count, list_next;

    /* Merge. */
    struct input *inputs;
    size_t input_count;

    /* Read. */
    uint64_t position;
    struct run_file **parts;
    uint32_t part_count, part_room;
    bool read_all;

    struct run_check *check;
};

struct index_work {
    struct job build, slow; /* (3) */
    uint64_t retry_ticks;   /* not before; 0: at once */
    bool paused;
    uint64_t generation; /* of the row when filters were looked at last */
};

struct index_work *index_work_create(void)
{
    return calloc(1, sizeof(struct index_work));
}

static void job_end(struct index *index, struct job *job)
{
    for (size_t i = 0; i < job->input_count; i++) run_scan_destroy(job->inputs[i].scan);
    for (uint32_t i = 0; i < job->part_count; i++) {
        char name[RUN_PART_NAME_SIZE];
        run_file_close(job->parts[i]);
        run_part_name(job->meta.first_segment, job->meta.last_segment, i + 1, name);
        if (index != NULL) (void)!os_remove(index->dir, name, NULL);
    }
    free(job->inputs);
    free(job->parts);
    free(job->lists);
    free(job->runs);
    memory_run_destroy(job->memory);
    run_writer_destroy(job->writer);
    run_check_destroy(job->check);
    index_view_drop(job->view);
    *job = (struct job){0};
}

void index_work_destroy(struct index_work *work)
{
    if (work == NULL) return;
    job_end(NULL, &work->build);
    job_end(NULL, &work->slow);
    free(work);
}

static deed_status no_memory(struct deed_error *err)
{
    return deed_fail(err, DEED_NO_MEMORY, "index: out of memory");
}

/* Begin a job over `count` runs of the view, from the `first` on. */
static deed_status job_begin(struct index *index, struct job *job, enum job_kind kind,
                             const struct index_view *view, size_t first, size_t count,
                             struct deed_error *err)
{
    *job = (struct job){.kind = kind, .view = view};
    job->runs = calloc(count, sizeof *job->runs);
    if (job->runs == NULL) return no_memory(err);
    for (size_t i = 0; i < count; i++) job->runs[i] = view->runs[first + i];
    job->run_count = count;
    const struct index_run *last = job->runs[count - 1];
    job->meta = (struct run_meta){.log_id = index->log_id,
                                  .hash_seed = index->hashing.seed,
                                  .first_segment = job->runs[0]->first_segment,
                                  .last_segment = last->last_segment,
                                  .first_position = job->runs[0]->first_position,
                                  .last_position = run_last_position(last),
                                  .spill_size_max = index->options.spill_size_max};
    memcpy(job->meta.hash, last->hash, SHA256_SIZE);
    return DEED_OK;
}

static void count_one(struct index *index, uint64_t *counter)
{
    os_mutex_lock(&index->lock);
    (*counter)++;
    index->stats.failing = false;
    os_mutex_unlock(&index->lock);
}

/* The file is there: it takes the place of what it was made from (2). */
static deed_status job_publish(struct index *index, struct job *job, uint64_t *counter,
                               struct deed_error *err)
{
    char name[RUN_NAME_SIZE];
    struct index_run *run = NULL;
    bool loaded;
    run_name(job->meta.first_segment, job->meta.last_segment, name);
    deed_status status = index_run_load(index, name, &run, err);
    if (status == DEED_CORRUPT) { /* the device's fault: another attempt at once may go the same way */
        status = DEED_IO;
        if (err != NULL) err->status = status;
    }
    if (status != DEED_OK) return status;
    status = index_replace(index, job->runs, job->run_count, run, err);
    if (status != DEED_OK) {
        index_run_free(run);
        return status;
    }
    run->checked = true;
    for (size_t i = 0; i < job->run_count; i++) {
        struct index_run *old = job->runs[i];
        bool same_name = old->first_segment == job->meta.first_segment &&
                         old->last_segment == job->meta.last_segment;
        if (old->file != NULL && !same_name) old->remove = true;
        if (old->memory != NULL) atomic_fetch_sub(&index->waiting, 1);
    }
    (void)!run_file_load_filter(run->file, &loaded, NULL); /* else it is tried again later */
    count_one(index, counter);
    return DEED_OK;
}

/* ---- from memory ---------------------------------------------------------------------------- */

static deed_status lists_begin(struct index *index, struct job *job, const struct memory_run *memory,
                               struct deed_error *err)
{
    job->lists = memory_run_sorted(memory, &job->list_count);
    job->list_next = 0;
    if (job->lists == NULL) return no_memory(err);
    job->meta.terms_max = job->list_count;
    return run_writer_create(index->options.os, index->dir, &job->meta, &job->writer, err);
}

static void list_write(struct run_writer *writer, const struct memory_list *list)
{
    uint64_t count = memory_list_count(list, UINT64_MAX);
    run_writer_term(writer, memory_list_hash(list), memory_list_kind(list),
                    memory_list_term(list), memory_list_base(list));
    if (PLANTED(BLOCK_SEAM_LOST) && count > RUN_GROUP) count--;
    for (uint64_t i = 0; i < count; i++) run_writer_position(writer, memory_list_at(list, i));
}

/* DEED_END: all is written. */
static deed_status lists_step(struct job *job, struct deed_error *err)
{
    uint64_t positions = 0;
    for (size_t n = 0; n < STEP_TERMS && positions < STEP_POSITIONS; n++) {
        if (job->list_next == job->list_count || run_writer_status(job->writer) != DEED_OK) {
            deed_status status = run_writer_finish(job->writer, err);
            run_writer_destroy(job->writer);
            job->writer = NULL;
            free(job->lists);
            job->lists = NULL;
            return status == DEED_OK ? DEED_END : status;
        }
        const struct memory_list *list = job->lists[job->list_next++];
        /* They lie anywhere in memory: the next ones are on their way while this one is written. */
        if (job->list_next + 8 < job->list_count) {
            __builtin_prefetch(job->lists[job->list_next + 8]);
        }
        positions += memory_list_count(list, UINT64_MAX);
        list_write(job->writer, list);
    }
    return DEED_OK;
}

static deed_status build_step(struct index *index, struct job *job, struct deed_error *err)
{
    if (job->lists == NULL) return lists_begin(index, job, job->runs[0]->memory, err);
    deed_status status = lists_step(job, err);
    if (status != DEED_END) return status;
    status = job_publish(index, job, &index->stats.written, err);
    return status == DEED_OK ? DEED_END : status;
}

/* ---- merging -------------------------------------------------------------------------------- */

/* Whoever looks it up meets the damage too: it is built again before it is merged. What the device
 * does not read may be damage: it is checked before it is merged. */
static void input_note(const struct input *in, deed_status status)
{
    if (status == DEED_CORRUPT) run_file_set_damaged(in->file);
    if (status == DEED_IO) run_file_set_suspect(in->file);
}

static deed_status input_next(struct input *in, struct deed_error *err)
{
    deed_status status = run_scan_next(in->scan, &in->head, err);
    if (status == DEED_END) in->ended = true;
    input_note(in, status);
    return status == DEED_END ? DEED_OK : status;
}

static deed_status merge_begin(struct index *index, struct job *job, struct run_file *const *files,
                               size_t count, struct deed_error *err)
{
    job->inputs = calloc(count, sizeof *job->inputs);
    if (job->inputs == NULL) return no_memory(err);
    job->meta.terms_max = 0;
    job->meta.terms_unknown = 0;
    for (size_t i = 0; i < count; i++) {
        struct input *in = &job->inputs[i];
        in->file = files[i];
        job->meta.terms_max += run_file_footer(files[i])->terms;
        uint32_t unknown = RUN_KNOWS_ALL & ~run_file_footer(files[i])->terms_known;
        if (!PLANTED(FIRST_NOT_MERGED)) job->meta.terms_unknown |= unknown;
        job->input_count++;
        deed_status status = run_scan_create(files[i], &in->scan, err);
        if (status == DEED_OK) status = input_next(in, err);
        if (status != DEED_OK) return status;
    }
    return run_writer_create(index->options.os, index->dir, &job->meta, &job->writer, err);
}

static int head_order(const struct run_scan_term *a, const struct run_scan_term *b)
{
    if (a->hash != b->hash) return a->hash < b->hash ? -1 : 1;
    if (a->kind != b->kind) return a->kind < b->kind ? -1 : 1;
    size_t least = a->term.len < b->term.len ? a->term.len : b->term.len;
    int order = least == 0 ? 0 : memcmp(a->term.ptr, b->term.ptr, least);
    if (order != 0) return order;
    return (a->term.len > b->term.len) - (a->term.len < b->term.len);
}

/* The inputs that have the least term, as bits in order; 0: all have ended. */
static size_t merge_least(const struct job *job, size_t *out_which)
{
    size_t count = 0;
    for (size_t i = 0; i < job->input_count; i++) {
        const struct input *in = &job->inputs[i];
        if (in->ended) continue;
        int order = count == 0 ? -1 : head_order(&in->head, &job->inputs[out_which[0]].head);
        if (order < 0) count = 0;
        if (order <= 0) out_which[count++] = i;
    }
    return count;
}

static deed_status merge_term(struct job *job, const size_t *which, size_t count,
                              uint64_t *inout_positions, struct deed_error *err)
{
    const struct run_scan_term *first = &job->inputs[which[0]].head;
    uint64_t next = first->base; /* revision */
    uint64_t position = 0;
    run_writer_term(job->writer, first->hash, first->kind, first->term, first->base);
    for (size_t k = 0; k < count; k++) {
        struct input *in = &job->inputs[which[k]];
        if (PLANTED(MERGE_DROPS_PART) && k == 7) continue;
        /* Revisions that were lost between two runs keep their places. */
        bool stream = in->head.kind == INDEX_STREAM;
        if (stream && (in->head.base < next || in->head.base - next > STEP_POSITIONS * 256)) {
            /* No damage, or one that reading the log again does not mend: they stay apart. */
            if (job->kind == JOB_MERGE) job->runs[which[k]]->no_merge = true;
            return deed_fail(err, DEED_CORRUPT, "a stream's revisions do not follow each other");
        }
        for (; stream && next < in->head.base; next++) run_writer_position(job->writer, position);
        for (uint64_t i = 0; i < in->head.count; i++) {
            uint64_t before = position;
            deed_status status = run_scan_position(in->scan, &position, err);
            if (status == DEED_OK && position < before) {
                status = deed_fail(err, DEED_CORRUPT, "positions are out of order");
            }
            input_note(in, status);
            if (status != DEED_OK) return status;
            run_writer_position(job->writer, position);
        }
        next += in->head.count;
        *inout_positions += in->head.count;
    }
    for (size_t k = 0; k < count; k++) {
        deed_status status = input_next(&job->inputs[which[k]], err);
        if (status != DEED_OK) return status;
    }
    return DEED_OK;
}

/* DEED_END: the file is there. */
static deed_status merge_some(struct job *job, size_t *which, struct deed_error *err)
{
    uint64_t size = run_writer_size(job->writer);
    uint64_t positions = 0;
    for (size_t n = 0; n < STEP_TERMS && positions < STEP_POSITIONS; n++) {
        size_t count = merge_least(job, which);
        if (count == 0 || run_writer_status(job->writer) != DEED_OK) {
            deed_status status = run_writer_finish(job->writer, err);
            return status == DEED_OK ? DEED_END : status;
        }
        deed_status status = merge_term(job, which, count, &positions, err);
        if (status != DEED_OK) return status;
        if (run_writer_size(job->writer) - size >= STEP_SIZE) break;
    }
    return DEED_OK;
}

static deed_status merge_step(struct index *index, struct job *job, uint64_t *counter,
                              struct deed_error *err)
{
    size_t *which = malloc(job->input_count * sizeof *which);
    if (which == NULL) return no_memory(err);
    deed_status status = merge_some(job, which, err);
    free(which);
    if (status != DEED_END) return status;
    status = job_publish(index, job, counter, err);
    return status == DEED_OK ? DEED_END : status;
}

/* ---- reading the log again ------------------------------------------------------------------ */

static bool parts_room(struct job *job)
{
    if (job->part_count < job->part_room) return true;
    uint32_t room = job->part_room == 0 ? 16 : job->part_room * 2;
    struct run_file **grown = realloc(job->parts, room * sizeof *grown);
    if (grown == NULL) return false;
    job->parts = grown;
    job->part_room = room;
    return true;
}

/* A part's positions into memory, until there are enough terms or no more positions. */
static deed_status read_part(struct index *index, struct job *job, struct log *log,
                             struct deed_error *err)
{
    uint64_t streams = 0;
    uint64_t last = job->meta.last_position;
    uint64_t step_last = last;
    if (job->position <= last && last - job->position >= STEP_POSITIONS) { /* (1) */
        step_last = job->position + STEP_POSITIONS - 1;
    }
    uint64_t terms = job->memory == NULL ? 0 : memory_run_term_count(job->memory);
    if (job->memory == NULL) job->memory = memory_run_create(0);
    if (job->memory == NULL) return no_memory(err);
    uint64_t until = terms + STEP_TERMS < PART_TERMS ? terms + STEP_TERMS : PART_TERMS;
    /* Where the log is damaged too, who asks is put off until it is repaired, or read better. */
    deed_status status =
        index_scan(index, log, &job->position, step_last, until, job->memory, &streams, err);
    if (status != DEED_OK) return status;
    job->read_all = job->position > last;
    if (!job->read_all && memory_run_term_count(job->memory) < PART_TERMS) return DEED_OK;
    job->meta.part = job->part_count + 1;
    return lists_begin(index, job, job->memory, err);
}

static deed_status part_write(struct index *index, struct job *job, struct deed_error *err)
{
    char name[RUN_PART_NAME_SIZE];
    if (!parts_room(job)) return no_memory(err);
    deed_status status = lists_step(job, err);
    if (status != DEED_END) return status;
    run_part_name(job->meta.first_segment, job->meta.last_segment, job->meta.part, name);
    status = run_file_open(index->dir, name, index->options.cache, &job->parts[job->part_count], err);
    if (status != DEED_OK) return status;
    job->part_count++;
    job->meta.part = 0;
    memory_run_destroy(job->memory);
    job->memory = NULL;
    return job->read_all ? merge_begin(index, job, job->parts, job->part_count, err) : DEED_OK;
}

static deed_status read_step(struct index *index, struct job *job, struct log *log,
                             struct deed_error *err)
{
    if (job->inputs != NULL) return merge_step(index, job, &index->stats.rebuilt, err);
    if (job->lists != NULL) return part_write(index, job, err);
    return read_part(index, job, log, err);
}

/* ---- what is to be done --------------------------------------------------------------------- */

static bool is_frozen(const struct index_run *run)
{
    return run->memory != NULL && run_last_position(run) != UINT64_MAX;
}

/* Eights: a run that covers n segments is of level log8 n. */
static unsigned level_of(const struct index_run *run)
{
    unsigned level = 0;
    for (uint64_t n = (uint64_t)run->last_segment - run->first_segment + 1; n >= MERGE_RUNS; level++) {
        n /= MERGE_RUNS;
    }
    return level;
}

/* The first of eight runs to be merged; SIZE_MAX: there are none. The smallest first: the others
 * can wait. */
static size_t find_merge(const struct index_view *view)
{
    size_t best = SIZE_MAX;
    unsigned best_level = UINT32_MAX;
    size_t same = 0;
    for (size_t i = 0; i < view->run_count; i++) {
        const struct index_run *run = view->runs[i];
        const struct index_run *before = i == 0 ? NULL : view->runs[i - 1];
        bool mergeable = run->file != NULL && !run_file_damaged(run->file) && !run->no_merge;
        bool joins = mergeable && same > 0 && before->last_segment + 1 == run->first_segment &&
                     level_of(before) == level_of(run);
        same = joins ? same + 1 : mergeable;
        if (same == MERGE_RUNS && level_of(run) < best_level) {
            best = i + 1 - MERGE_RUNS;
            best_level = level_of(run);
        }
        if (same == MERGE_RUNS) same = 0;
    }
    return best;
}

static deed_status begin_build(struct index *index, struct index_work *work, struct deed_error *err)
{
    const struct index_view *view = index_view_take(index);
    size_t i = 0;
    while (i < view->run_count && !is_frozen(view->runs[i])) i++;
    if (i == view->run_count) {
        index_view_drop(view);
        return DEED_END;
    }
    return job_begin(index, &work->build, JOB_BUILD, view, i, 1, err);
}

static bool find_damaged(const struct index_view *view, size_t *out)
{
    for (size_t i = 0; i < view->run_count; i++) {
        struct index_run *run = view->runs[i];
        if (run->file == NULL) continue;
        if (run_file_suspect(run->file)) run->suspect = true;
        if (run_file_damaged(run->file)) {
            *out = i;
            return true;
        }
    }
    return false;
}

/* A run that lacks terms which are indexed now. */
static bool find_outdated(const struct index_view *view, size_t *out)
{
    for (size_t i = view->run_count; i > 0; i--) {
        const struct index_run *run = view->runs[i - 1];
        if (run->file == NULL || run->not_renewed) continue;
        if (run_file_footer(run->file)->terms_known == RUN_KNOWS_ALL) continue;
        *out = i - 1;
        return true;
    }
    return false;
}

static bool find_suspect(const struct index_view *view, size_t *out)
{
    for (size_t i = 0; i < view->run_count; i++) {
        if (!view->runs[i]->suspect) continue;
        *out = i;
        return true;
    }
    return false;
}

static bool find_unchecked(const struct index_view *view, size_t *out)
{
    for (size_t i = view->run_count; i > 0; i--) {
        if (view->runs[i - 1]->file == NULL || view->runs[i - 1]->checked) continue;
        *out = i - 1;
        return true;
    }
    return false;
}

static deed_status begin_merge(struct index *index, struct job *job, const struct index_view *view,
                               size_t first, struct deed_error *err)
{
    struct run_file *files[MERGE_RUNS];
    deed_status status = job_begin(index, job, JOB_MERGE, view, first, MERGE_RUNS, err);
    if (status != DEED_OK) return status;
    for (size_t i = 0; i < MERGE_RUNS; i++) files[i] = job->runs[i]->file;
    return merge_begin(index, job, files, MERGE_RUNS, err);
}

static deed_status begin_check(struct index *index, struct job *job, const struct index_view *view,
                               size_t i, struct deed_error *err)
{
    deed_status status = job_begin(index, job, JOB_CHECK, view, i, 1, err);
    if (status != DEED_OK) return status;
    return run_check_create(job->runs[0]->file, index->options.hash_mask, &job->check, err);
}

/* Make the run again from the log. */
static deed_status begin_read(struct index *index, struct job *job, const struct index_view *view,
                              size_t i, struct deed_error *err)
{
    deed_status status = job_begin(index, job, JOB_READ, view, i, 1, err);
    job->position = job->meta.first_position;
    return status;
}

/* DEED_END: nothing is to be done. */
static deed_status begin_slow(struct index *index, struct index_work *work, struct log *log,
                              struct deed_error *err)
{
    const struct index_view *view = index_view_take(index);
    struct job *job = &work->slow;
    size_t i = 0;
    if (find_damaged(view, &i) && log != NULL) return begin_read(index, job, view, i, err);
    /* A merge that reads what cannot be read would fail again and again. */
    if (find_suspect(view, &i)) return begin_check(index, job, view, i, err);
    if (find_outdated(view, &i) && log != NULL) return begin_read(index, job, view, i, err);
    i = find_merge(view);
    if (i != SIZE_MAX) return begin_merge(index, job, view, i, err);
    if (find_unchecked(view, &i)) return begin_check(index, job, view, i, err);
    index_view_drop(view);
    return DEED_END;
}

/* Newest first: those are asked most. */
static bool load_filter(struct index *index, struct index_work *work)
{
    const struct index_view *view = index_view_take(index);
    bool again = view->generation != work->generation;
    bool done = false;
    work->generation = view->generation;
    for (size_t i = view->run_count; i > 0 && !done; i--) {
        struct index_run *run = view->runs[i - 1];
        if (run->file == NULL || run_file_filter_loaded(run->file)) continue;
        if (again) run->filter_tried = false; /* others may have given room back */
        if (run->filter_tried) continue;
        run->filter_tried = true;
        (void)!run_file_load_filter(run->file, &done, NULL);
    }
    index_view_drop(view);
    return done;
}

static deed_status check_step(struct job *job, struct deed_error *err)
{
    struct index_run *run = job->runs[0];
    deed_status status = run_check_step(job->check, err);
    bool damaged = status == DEED_CORRUPT || status == DEED_IO;
    if (damaged) run_file_set_damaged(run->file); /* the next job is to build it again */
    if (!damaged && status != DEED_END) return status;
    run->checked = true;
    run->suspect = false;
    return DEED_END;
}

static deed_status slow_step(struct index *index, struct job *job, struct log *log,
                             struct deed_error *err)
{
    switch (job->kind) {
    case JOB_MERGE: return merge_step(index, job, &index->stats.merged, err);
    case JOB_READ: return read_step(index, job, log, err);
    default: return check_step(job, err);
    }
}

static uint64_t failed(struct index *index, struct index_work *work, const struct deed_error *err)
{
    const struct job *slow = &work->slow;
    /* One that lacks terms is good for all others: let it be, and go on with the rest. */
    if (slow->kind == JOB_READ && slow->runs != NULL && !run_file_damaged(slow->runs[0]->file)) {
        slow->runs[0]->not_renewed = err->status == DEED_CORRUPT;
    }
    os_mutex_lock(&index->lock);
    index->stats.failures++;
    index->stats.failing = true;
    (void)snprintf(index->stats.failure, sizeof index->stats.failure, "%.150s", err->message);
    os_mutex_unlock(&index->lock);
    job_end(index, &work->build);
    job_end(index, &work->slow);
    work->paused = true;
    work->retry_ticks = os_ticks_ns(index->options.os) + FAILURE_PAUSE_NS;
    return FAILURE_PAUSE_NS;
}

uint64_t index_step(struct index *index, struct log *log)
{
    struct index_work *work = index->work;
    struct deed_error err = {0};
    index_sweep(index);
    if (index->dir == NULL) return ACTOR_WAIT;
    if (index->options.read_only) return load_filter(index, work) ? ACTOR_AGAIN : ACTOR_WAIT;
    if (work->paused) {
        uint64_t now = os_ticks_ns(index->options.os);
        if (now < work->retry_ticks) return work->retry_ticks - now;
        work->paused = false;
    }
    bool building = work->build.kind != JOB_NONE || index_waiting(index) > 0;
    deed_status status = DEED_OK;
    if (building) {
        status = work->build.kind == JOB_NONE ? begin_build(index, work, &err)
                                              : build_step(index, &work->build, &err);
        if (status == DEED_END) job_end(index, &work->build);
    } else {
        if (load_filter(index, work)) return ACTOR_AGAIN;
        bool idle = work->slow.kind == JOB_NONE;
        status = idle ? begin_slow(index, work, log, &err)
                      : slow_step(index, &work->slow, log, &err);
        bool checking = work->slow.kind == JOB_CHECK;
        /* Damage that a merge meets is mended first. */
        bool mend = status == DEED_CORRUPT && work->slow.kind == JOB_MERGE;
        if (mend) status = DEED_END;
        if (status == DEED_END && (!idle || mend)) {
            job_end(index, &work->slow);
            return ACTOR_AGAIN;
        }
        if (status == DEED_END && idle) return IDLE_NS;
        if (status == DEED_OK && checking && !idle) return CHECK_PAUSE_NS;
    }
    if (status != DEED_OK && status != DEED_END) return failed(index, work, &err);
    return ACTOR_AGAIN;
}
