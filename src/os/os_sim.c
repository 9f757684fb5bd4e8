/* os_sim.c - a machine in memory: a tree of nodes, and a journal of names for each directory.
 *
 *     program ──► entries (what is seen) ──dir_sync──► durable entries
 *                    changes since then: pending, in order
 *     program ──► cache image ──file_sync──► platter image          (sim_disk.h)
 *
 * (1) A node lives as long as an entry, a durable entry, a pending change or a handle refers to it.
 * (2) Directories are made durably; only names of files are ever pending.
 * (3) A rename is one change: after a crash the file is under one of its names at least.
 * (4) Every operation begins with sim_begin: it counts, and decides whether this one fails. What it
 *     decides comes from the seed and the operations before alone.
 * (5) A handle of an earlier boot is refused everywhere but in close.
 * (6) `inside` counts the operations under way in this thread: what they allocate is the machine's. */
#include "os/os_sim.h"

#include "base/hash.h"
#include "os/sim_disk.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#define FAIL_PLAN_COUNT_MAX 16
#define DESCRIPTION_SIZE    512
/* Enough of a store's files for a sector to get lost in. */
#define STRAY_FILE_COUNT_MAX 64

/* 2026-01-01T00:00:00Z; each seed begins within the year after it. */
#define CLOCK_START_NS INT64_C(1767225600000000000)
#define YEAR_NS        UINT64_C(31536000000000000)

#define SLOW_NS_MAX UINT64_C(1000000000)

/* Beside errno's numbers, which are positive. */
#define ERROR_POWER_OFF  (-1)
#define ERROR_OTHER_BOOT (-2)

struct entry {
    char *name;
    struct node *node;
};

struct entries {
    struct entry *list;
    size_t count, room;
};

enum change_kind { CHANGE_CREATE, CHANGE_REMOVE, CHANGE_RENAME };

struct change {
    enum change_kind kind;
    uint64_t sequence;
    char *name, *to; /* `to` of a rename, else NULL */
    struct node *node;
};

struct node {
    size_t ref_count;
    bool is_dir;
    struct sim_image image;          /* of a file */
    struct entries entries, durable; /* of a directory */
    struct change *pending;
    size_t pending_count, pending_room;
    struct sim_dir *locked_by;
    uint64_t open_boot; /* `open_count` is of this boot's handles */
    size_t open_count;
    bool given_away; /* its blocks, while a crash is under way */
};

struct fail_plan {
    enum os_sim_op op;
    uint64_t first, last; /* by os_sim_count of that kind */
    int error_number;
};

struct os_sim {
    struct os os;
    pthread_t thread;
    uint64_t seed, boot, sequence;
    size_t sector_size;
    struct os_sim_faults faults;
    struct sim_random disk, ids, test, memory, reuse;
    int64_t now_ns;
    uint64_t ticks_ns;
    uint64_t op_count[OS_SIM_OP_COUNT];
    uint64_t struck[OS_SIM_FAULT_COUNT];
    struct fail_plan plans[FAIL_PLAN_COUNT_MAX];
    size_t plan_count;
    uint64_t power_off_at; /* of op_count[OS_SIM_ANY] */
    struct {
        enum os_sim_op op;
        uint64_t number, more; /* when op_count[op] gets there, the power goes after so many more */
    } power_plan;              /* number 0: none */
    uint64_t capacity;
    size_t handle_count;
    uint64_t digest;
    struct node *root;
    struct sim_crash crash; /* the last one */
    char description[DESCRIPTION_SIZE];
};

struct sim_dir {
    struct os_dir base;
    struct node *node;
    uint64_t boot;
};

struct sim_file {
    struct os_file base;
    struct node *node;
    uint64_t boot;
};

static const struct os_ops sim_ops;

static _Thread_local unsigned inside; /* (6) */

/* Every way in passes here: a second thread would make runs differ. */
static struct os_sim *sim_of(struct os *os)
{
    assert(os->ops == &sim_ops);
    struct os_sim *sim = (struct os_sim *)os;
    assert(pthread_equal(sim->thread, pthread_self()));
    return sim;
}

static struct sim_dir *sim_dir_of(struct os_dir *dir)
{
    (void)sim_of(dir->os);
    return (struct sim_dir *)dir;
}

static struct sim_file *sim_file_of(struct os_file *file)
{
    (void)sim_of(file->os);
    return (struct sim_file *)file;
}

/* ---- memory ------------------------------------------------------------------------------- */

static void *must_have(void *memory)
{
    if (memory == NULL) abort();
    return memory;
}

static char *text_of(const char *text)
{
    return must_have(strdup(text));
}

/* "head/tail" without trailing slashes, or "tail" without a head. */
static char *path_join(const char *head, const char *tail)
{
    char *path = NULL;
    int len = head == NULL ? asprintf(&path, "%s", tail) : asprintf(&path, "%s/%s", head, tail);
    if (len < 0) abort();
    while (len > 1 && path[len - 1] == '/')
        path[--len] = '\0';
    return path;
}

/* ---- nodes and entries -------------------------------------------------------------------- */

static struct node *node_create(bool is_dir, size_t sector_size)
{
    struct node *node = must_have(calloc(1, sizeof *node));
    node->is_dir = is_dir;
    sim_image_init(&node->image, sector_size);
    return node;
}

static void entries_clear(struct entries *entries);
static void pending_clear(struct node *dir);

static struct node *node_hold(struct node *node)
{
    node->ref_count++;
    return node;
}

static void node_drop(struct node *node)
{
    assert(node->ref_count > 0);
    if (--node->ref_count > 0) return;
    pending_clear(node);
    entries_clear(&node->entries);
    entries_clear(&node->durable);
    free(node->entries.list);
    free(node->durable.list);
    free(node->pending);
    sim_image_done(&node->image);
    free(node);
}

static struct entry *entry_find(const struct entries *entries, const char *name)
{
    for (size_t i = 0; i < entries->count; i++) {
        if (strcmp(entries->list[i].name, name) == 0) return &entries->list[i];
    }
    return NULL;
}

static void entry_remove(struct entries *entries, const char *name)
{
    struct entry *entry = entry_find(entries, name);
    if (entry == NULL) return;
    struct entry gone = *entry;
    size_t behind = entries->count - 1 - (size_t)(entry - entries->list);
    memmove(entry, entry + 1, behind * sizeof *entry);
    entries->count--;
    free(gone.name);
    node_drop(gone.node);
}

static void entry_set(struct entries *entries, const char *name, struct node *node)
{
    (void)node_hold(node); /* first: it may be what the name stands for already */
    entry_remove(entries, name);
    if (entries->count == entries->room) {
        entries->room = entries->room == 0 ? 8 : entries->room * 2;
        entries->list = must_have(realloc(entries->list, entries->room * sizeof *entries->list));
    }
    entries->list[entries->count++] = (struct entry){text_of(name), node};
}

static void entries_clear(struct entries *entries)
{
    while (entries->count > 0)
        entry_remove(entries, entries->list[entries->count - 1].name);
}

static void entries_copy(struct entries *to, const struct entries *from)
{
    entries_clear(to);
    for (size_t i = 0; i < from->count; i++)
        entry_set(to, from->list[i].name, from->list[i].node);
}

/* ---- changes of names --------------------------------------------------------------------- */

static void change_apply(const struct change *change, struct entries *entries)
{
    struct entry *old;
    switch (change->kind) {
    case CHANGE_CREATE:
        entry_set(entries, change->name, change->node);
        break;
    case CHANGE_REMOVE:
        entry_remove(entries, change->name);
        break;
    case CHANGE_RENAME:
        old = entry_find(entries, change->name);
        if (old != NULL && old->node == change->node) entry_remove(entries, change->name);
        entry_set(entries, change->to, change->node);
        break;
    }
}

/* Do it, and note that it is not durable yet. */
static void change_make(struct os_sim *sim, struct node *dir, enum change_kind kind,
                        const char *name, const char *to, struct node *node)
{
    if (dir->pending_count == dir->pending_room) {
        dir->pending_room = dir->pending_room == 0 ? 8 : dir->pending_room * 2;
        dir->pending = must_have(realloc(dir->pending, dir->pending_room * sizeof *dir->pending));
    }
    struct change *change = &dir->pending[dir->pending_count++];
    *change = (struct change){.kind = kind,
                              .sequence = ++sim->sequence,
                              .name = text_of(name),
                              .to = to == NULL ? NULL : text_of(to),
                              .node = node_hold(node)};
    change_apply(change, &dir->entries);
}

static void pending_clear(struct node *dir)
{
    for (size_t i = 0; i < dir->pending_count; i++) {
        free(dir->pending[i].name);
        free(dir->pending[i].to);
        node_drop(dir->pending[i].node);
    }
    dir->pending_count = 0;
}

/* ---- whether an operation fails ----------------------------------------------------------- */

static int plan_error(const struct os_sim *sim, enum os_sim_op op)
{
    for (size_t i = 0; i < sim->plan_count; i++) {
        const struct fail_plan *plan = &sim->plans[i];
        bool any = plan->op == OS_SIM_ANY && op != OS_SIM_ALLOCATE;
        if (plan->op != op && !any) continue;
        uint64_t number = sim->op_count[plan->op];
        if (number >= plan->first && number <= plan->last) return plan->error_number;
    }
    return 0;
}

static bool strikes(struct os_sim *sim, enum os_sim_fault fault)
{
    /* No draw for what is switched off: a fault kind added later leaves old seeds as they are. */
    if (sim->faults.ppm[fault] == 0) return false;
    bool struck = sim_random_chance(&sim->disk, sim->faults.ppm[fault]);
    if (struck) sim->struck[fault]++;
    return struck;
}

static int chance_error(struct os_sim *sim, enum os_sim_op op)
{
    if (op == OS_SIM_READ && strikes(sim, OS_SIM_READ_ERROR)) return EIO;
    if (op == OS_SIM_WRITE && strikes(sim, OS_SIM_WRITE_ERROR)) return EIO;
    bool syncs = op == OS_SIM_SYNC || op == OS_SIM_DIR_SYNC;
    if (syncs && strikes(sim, OS_SIM_SYNC_ERROR)) return EIO;
    if (op == OS_SIM_WRITE && strikes(sim, OS_SIM_DISK_FULL)) return ENOSPC;
    return 0;
}

static void digest_add(struct os_sim *sim, uint64_t value)
{
    sim->digest = sim_mix(sim->digest ^ value);
}

/* 0, an errno, or one of the errors above (4), (5). `boot`: the handle's, or 0 for none. */
static int sim_begin(struct os_sim *sim, enum os_sim_op op, uint64_t boot)
{
    assert(op < OS_SIM_ANY);
    sim->op_count[op]++;
    sim->op_count[OS_SIM_ANY]++;
    digest_add(sim, op);
    if (sim->power_plan.number != 0 &&
        sim->op_count[sim->power_plan.op] >= sim->power_plan.number) {
        uint64_t before = sim->power_off_at;
        os_sim_power_off_after(sim, sim->power_plan.more);
        if (before < sim->power_off_at) sim->power_off_at = before;
    }
    if (boot != 0 && boot != sim->boot) return ERROR_OTHER_BOOT;
    if (!os_sim_powered(sim)) return ERROR_POWER_OFF;
    if (strikes(sim, OS_SIM_SLOW)) {
        os_sim_advance(sim, sim_random_below(&sim->disk, SLOW_NS_MAX));
    }
    int error = plan_error(sim, op);
    return error != 0 ? error : chance_error(sim, op);
}

/* `what` names the object and what could not be done. */
static deed_status sim_fail(struct deed_error *err, int error, const char *what, const char *name)
{
    if (error == ERROR_POWER_OFF) {
        return deed_fail(err, DEED_IO, "%s %s: the power is off", what, name);
    }
    if (error == ERROR_OTHER_BOOT) {
        return deed_fail(err, DEED_IO, "%s %s: opened before the machine crashed", what, name);
    }
    return deed_fail_errno(err, error, "%s %s", what, name);
}

/* ---- directories -------------------------------------------------------------------------- */

/* Follow or make one directory in another. Returns an errno. */
static int dir_step(struct os_sim *sim, struct node **dir, const char *name, bool create)
{
    struct entry *entry = entry_find(&(*dir)->entries, name);
    if (entry == NULL && !create) return ENOENT;
    if (entry == NULL) {
        struct node *made = node_create(true, sim->sector_size);
        entry_set(&(*dir)->entries, name, made);
        entry_set(&(*dir)->durable, name, made); /* (2) */
        *dir = made;
        return 0;
    }
    if (!entry->node->is_dir) return ENOTDIR;
    *dir = entry->node;
    return 0;
}

/* Follow `path` from the root; the last name stays in `last` when it is asked for. */
static int path_walk(struct os_sim *sim, struct node **dir, const char *path, bool create,
                     char **last)
{
    char *copy = text_of(path);
    char *rest = copy;
    char *name = NULL;
    int error = 0;
    for (char *part; error == 0 && (part = strtok_r(rest, "/", &rest)) != NULL;) {
        if (strcmp(part, ".") == 0) continue;
        if (strcmp(part, "..") == 0) error = EINVAL; /* this machine has no way up */
        if (name != NULL && error == 0) error = dir_step(sim, dir, name, create);
        name = part;
    }
    if (last == NULL && name != NULL && error == 0) error = dir_step(sim, dir, name, create);
    if (last != NULL && error == 0) *last = text_of(name == NULL ? "" : name);
    free(copy);
    return error;
}

static deed_status sim_dir_open(struct os *os, struct os_dir *parent, const char *path, bool create,
                                struct os_dir **out, struct deed_error *err)
{
    struct os_sim *sim = sim_of(os);
    struct sim_dir *above = parent == NULL ? NULL : sim_dir_of(parent);
    char *whole = path_join(parent == NULL ? NULL : parent->path, path);
    struct node *node = above == NULL ? sim->root : above->node;

    int error = sim_begin(sim, OS_SIM_DIR_OPEN, above == NULL ? 0 : above->boot);
    if (error == 0) {
        error = above == NULL ? path_walk(sim, &node, path, create, NULL)
                              : dir_step(sim, &node, path, create);
    }
    if (error != 0) {
        deed_status status = sim_fail(err, error, "cannot open directory", whole);
        free(whole);
        return status;
    }
    struct sim_dir *dir = must_have(calloc(1, sizeof *dir));
    *dir = (struct sim_dir){
        .base = {.os = os, .path = whole}, .node = node_hold(node), .boot = sim->boot};
    sim->handle_count++;
    *out = &dir->base;
    return DEED_OK;
}

static void sim_dir_close(struct os_dir *base)
{
    struct sim_dir *dir = sim_dir_of(base);
    if (dir->node->locked_by == dir) dir->node->locked_by = NULL;
    sim_of(base->os)->handle_count--;
    node_drop(dir->node);
    free(base->path);
    free(dir);
}

static deed_status sim_dir_sync(struct os_dir *base, struct deed_error *err)
{
    struct os_sim *sim = sim_of(base->os);
    struct sim_dir *dir = sim_dir_of(base);
    int error = sim_begin(sim, OS_SIM_DIR_SYNC, dir->boot);
    if (error < 0) return sim_fail(err, error, "cannot sync directory", base->path);

    /* A sync that fails forgets as a file's does: the next one will not make up for it. */
    for (size_t i = 0; i < dir->node->pending_count; i++) {
        bool arrives = error == 0 || sim_random_below(&sim->disk, 2) == 0;
        if (arrives) change_apply(&dir->node->pending[i], &dir->node->durable);
    }
    pending_clear(dir->node);
    if (error == 0) return DEED_OK;
    return sim_fail(err, error, "cannot sync directory", base->path);
}

static deed_status sim_dir_list(struct os_dir *base, void (*each)(void *, const char *),
                                void *context, struct deed_error *err)
{
    struct os_sim *sim = sim_of(base->os);
    struct sim_dir *dir = sim_dir_of(base);
    int error = sim_begin(sim, OS_SIM_DIR_LIST, dir->boot);
    if (error != 0) return sim_fail(err, error, "cannot list directory", base->path);

    /* `each` may remove and rename: it sees the names as they were. */
    struct entries now = {0};
    entries_copy(&now, &dir->node->entries);
    inside--; /* what is called is the caller's again */
    for (size_t i = 0; i < now.count; i++)
        each(context, now.list[i].name);
    inside++;
    entries_clear(&now);
    free(now.list);
    return DEED_OK;
}

static deed_status sim_dir_lock(struct os_dir *base, struct deed_error *err)
{
    struct os_sim *sim = sim_of(base->os);
    struct sim_dir *dir = sim_dir_of(base);
    int error = sim_begin(sim, OS_SIM_DIR_LOCK, dir->boot);
    if (error != 0) return sim_fail(err, error, "cannot lock directory", base->path);

    struct node *node = dir->node;
    if (node->locked_by != NULL && node->locked_by != dir) {
        return deed_fail(err, DEED_LOCKED, "directory %s: in use by process %llu", base->path,
                         (unsigned long long)node->locked_by->boot);
    }
    node->locked_by = dir;
    if (entry_find(&node->entries, "lock") == NULL) {
        struct node *file = node_create(false, sim->sector_size);
        change_make(sim, node, CHANGE_CREATE, "lock", NULL, file);
    }
    return DEED_OK;
}

static deed_status sim_remove(struct os_dir *base, const char *name, struct deed_error *err)
{
    struct os_sim *sim = sim_of(base->os);
    struct sim_dir *dir = sim_dir_of(base);
    int error = sim_begin(sim, OS_SIM_REMOVE, dir->boot);
    struct entry *entry = entry_find(&dir->node->entries, name);
    if (error == 0 && entry == NULL) error = ENOENT;
    if (error == 0 && entry->node->is_dir) error = EISDIR;
    if (error == 0) {
        change_make(sim, dir->node, CHANGE_REMOVE, name, NULL, entry->node);
        return DEED_OK;
    }
    char *whole = path_join(base->path, name);
    deed_status status = sim_fail(err, error, "cannot remove file", whole);
    free(whole);
    return status;
}

static deed_status sim_rename(struct os_dir *base, const char *from, const char *to,
                              struct deed_error *err)
{
    struct os_sim *sim = sim_of(base->os);
    struct sim_dir *dir = sim_dir_of(base);
    int error = sim_begin(sim, OS_SIM_RENAME, dir->boot);
    struct entry *entry = entry_find(&dir->node->entries, from);
    struct entry *there = entry_find(&dir->node->entries, to);
    if (error == 0 && entry == NULL) error = ENOENT;
    if (error == 0 && entry->node->is_dir) error = EISDIR; /* (2) */
    if (error == 0 && there != NULL && there->node->is_dir) error = EISDIR;
    if (error == 0) {
        bool same = there != NULL && there->node == entry->node;
        if (!same) change_make(sim, dir->node, CHANGE_RENAME, from, to, entry->node);
        return DEED_OK;
    }
    char *whole = path_join(base->path, from);
    deed_status status = sim_fail(err, error, "cannot rename file", whole);
    free(whole);
    return status;
}

/* ---- files -------------------------------------------------------------------------------- */

static deed_status sim_file_open(struct os_dir *base, const char *name, unsigned flags,
                                 struct os_file **out, struct deed_error *err)
{
    struct os_sim *sim = sim_of(base->os);
    struct sim_dir *dir = sim_dir_of(base);
    int error = sim_begin(sim, OS_SIM_OPEN, dir->boot);
    char *whole = path_join(base->path, name);
    struct entry *entry = entry_find(&dir->node->entries, name);
    bool create = (flags & OS_CREATE) != 0;

    if (error == 0 && entry == NULL && !create) error = ENOENT;
    if (error == 0 && entry != NULL && (flags & OS_EXCLUSIVE) != 0) error = EEXIST;
    if (error == 0 && entry != NULL && entry->node->is_dir) error = EISDIR;
    if (error != 0) {
        deed_status status = error == EEXIST
                                 ? deed_fail(err, DEED_CONFLICT, "file %s: is there already", whole)
                                 : sim_fail(err, error, "cannot open file", whole);
        free(whole);
        return status;
    }
    if (entry == NULL) {
        struct node *made = node_create(false, sim->sector_size);
        change_make(sim, dir->node, CHANGE_CREATE, name, NULL, made);
        entry = entry_find(&dir->node->entries, name);
    }
    struct sim_file *file = must_have(calloc(1, sizeof *file));
    *file = (struct sim_file){.base = {.os = base->os, .name = whole, .flags = flags},
                              .node = node_hold(entry->node),
                              .boot = sim->boot};
    sim->handle_count++;
    if (file->node->open_boot != sim->boot) file->node->open_count = 0;
    file->node->open_boot = sim->boot;
    file->node->open_count++;
    *out = &file->base;
    return DEED_OK;
}

static void sim_file_close(struct os_file *base)
{
    struct sim_file *file = sim_file_of(base);
    sim_of(base->os)->handle_count--;
    /* Without power nothing is given away any more. */
    bool counts = file->boot == file->node->open_boot && os_sim_powered(sim_of(base->os));
    if (counts) file->node->open_count--;
    node_drop(file->node);
    free(base->name);
    free(file);
}

static void files_under(struct node *dir, struct node *out[], size_t *inout_count)
{
    for (size_t i = 0; i < dir->entries.count; i++) {
        struct node *node = dir->entries.list[i].node;
        if (node->is_dir) {
            files_under(node, out, inout_count);
        } else if (node->image.size > 0 && *inout_count < STRAY_FILE_COUNT_MAX) {
            out[(*inout_count)++] = node;
        }
    }
}

/* Where what is misdirected goes to or comes from: half the time the same file. */
static struct sim_image *stray_image(struct os_sim *sim, struct sim_image *own,
                                     uint64_t *out_offset)
{
    struct node *files[STRAY_FILE_COUNT_MAX];
    size_t count = 0;
    struct sim_image *image = own;
    files_under(sim->root, files, &count);
    if (count > 0 && sim_random_below(&sim->disk, 2) == 0) {
        image = &files[sim_random_below(&sim->disk, count)]->image;
    }
    *out_offset = sim_random_below(&sim->disk, image->size);
    return image;
}

static bool reads_lie(const struct os_sim *sim)
{
    return sim->faults.ppm[OS_SIM_STRAY_READ] != 0 || sim->faults.ppm[OS_SIM_STALE_READ] != 0;
}

/* What the device does wrong while it reads, without saying so. */
static void read_faults(struct os_sim *sim, struct sim_image *image, uint64_t offset, void *out,
                        size_t size)
{
    if (size == 0) return;
    uint64_t at = offset + sim_random_below(&sim->disk, size);
    if (strikes(sim, OS_SIM_STRAY_READ)) {
        uint64_t from;
        const struct sim_image *other = stray_image(sim, image, &from);
        sim_image_read_stray(image, offset, out, size, at, other, from);
    }
    if (strikes(sim, OS_SIM_STALE_READ)) sim_image_read_stale(image, offset, out, size, at);
}

static deed_status sim_file_read(struct os_file *base, uint64_t offset, void *out, size_t size,
                                 size_t *out_read, struct deed_error *err)
{
    struct os_sim *sim = sim_of(base->os);
    struct sim_file *file = sim_file_of(base);
    int error = sim_begin(sim, OS_SIM_READ, file->boot);
    if (error != 0) return sim_fail(err, error, "cannot read file", base->name);
    digest_add(sim, offset ^ size);
    bool direct = (base->flags & OS_DIRECT) != 0;
    struct sim_image *image = &file->node->image;
    if (image->size > 0 && strikes(sim, OS_SIM_BIT_ROT)) {
        sim_image_flip(image, sim_random_below(&sim->disk, image->size),
                       (unsigned)sim_random_below(&sim->disk, 8));
    }
    *out_read = sim_image_read(image, offset, out, size, direct);
    if (reads_lie(sim)) read_faults(sim, image, offset, out, *out_read);
    return DEED_OK;
}

static uint64_t node_size(const struct node *node)
{
    uint64_t size = node->image.size;
    for (size_t i = 0; i < node->entries.count; i++)
        size += node_size(node->entries.list[i].node);
    return size;
}

/* How much larger a file of `size` may get. */
static uint64_t room_left(const struct os_sim *sim)
{
    if (sim->capacity == DEED_NONE) return UINT64_MAX;
    uint64_t used = node_size(sim->root);
    return used >= sim->capacity ? 0 : sim->capacity - used;
}

/* Of a write that grows the file, what still fits. */
static size_t fitting(const struct os_sim *sim, const struct node *node, uint64_t offset,
                      size_t len)
{
    uint64_t end = offset + len;
    uint64_t room = room_left(sim);
    uint64_t end_max = room > UINT64_MAX - node->image.size ? UINT64_MAX : node->image.size + room;
    if (end <= end_max) return len;
    return end_max <= offset ? 0 : (size_t)(end_max - offset);
}

/* What fits of `bytes`, as one write; then `error`. */
static deed_status write_part(struct sim_file *file, uint64_t offset, deed_bytes bytes, int error,
                              struct deed_error *err)
{
    struct os_sim *sim = sim_of(file->base.os);
    size_t fits = fitting(sim, file->node, offset, bytes.len);
    if (fits < bytes.len && error == 0) error = ENOSPC;
    bytes.len = fits;
    if (bytes.len > 0) {
        sim_image_write(&file->node->image, ++sim->sequence, &sim->disk, offset, bytes);
    }
    if (error == 0) return DEED_OK;
    return sim_fail(err, error, "cannot write file", file->base.name);
}

static deed_status sim_file_write(struct os_file *base, uint64_t offset, deed_bytes bytes,
                                  struct deed_error *err)
{
    struct os_sim *sim = sim_of(base->os);
    struct sim_file *file = sim_file_of(base);
    int error = sim_begin(sim, OS_SIM_WRITE, file->boot);
    digest_add(sim, xxh64(offset, bytes));
    if (error < 0) return sim_fail(err, error, "cannot write file", base->name);

    size_t len = bytes.len;
    if (error == 0 && len > 1 && strikes(sim, OS_SIM_SHORT_WRITE)) {
        /* os.h's write goes on where the system's stopped. The power may go between the two. */
        deed_bytes rest = bytes;
        bytes.len = 1 + (size_t)sim_random_below(&sim->disk, len - 1);
        rest.ptr += bytes.len;
        rest.len -= bytes.len;
        deed_status status = write_part(file, offset, bytes, error, err);
        return status == DEED_OK ? sim_file_write(base, offset + bytes.len, rest, err) : status;
    }
    if (error != 0) len = (size_t)sim_random_below(&sim->disk, bytes.len + 1);
    bytes.len = len;
    return write_part(file, offset, bytes, error, err);
}

static deed_status sim_file_sync(struct os_file *base, struct deed_error *err)
{
    struct os_sim *sim = sim_of(base->os);
    struct sim_file *file = sim_file_of(base);
    int error = sim_begin(sim, OS_SIM_SYNC, file->boot);
    if (error == 0) {
        struct sim_image *image = &file->node->image;
        if (strikes(sim, OS_SIM_LYING_SYNC)) return DEED_OK;
        uint64_t offset;
        bool dirty =
            sim->faults.ppm[OS_SIM_STRAY_WRITE] != 0 && sim_image_dirty(image, &sim->disk, &offset);
        sim_image_sync(image);
        if (dirty && strikes(sim, OS_SIM_STRAY_WRITE)) {
            uint64_t to_offset;
            struct sim_image *to = stray_image(sim, image, &to_offset);
            sim_image_misdirect(image, offset, to, to_offset);
        }
        return DEED_OK;
    }
    if (error > 0) sim_image_sync_fail(&file->node->image, &sim->disk);
    return sim_fail(err, error, "cannot sync file", base->name);
}

static deed_status sim_file_size(struct os_file *base, uint64_t *out_size, struct deed_error *err)
{
    struct os_sim *sim = sim_of(base->os);
    struct sim_file *file = sim_file_of(base);
    int error = sim_begin(sim, OS_SIM_SIZE, file->boot);
    if (error != 0) return sim_fail(err, error, "cannot ask size of file", base->name);
    *out_size = file->node->image.size;
    return DEED_OK;
}

static deed_status sim_file_truncate(struct os_file *base, uint64_t size, struct deed_error *err)
{
    struct os_sim *sim = sim_of(base->os);
    struct sim_file *file = sim_file_of(base);
    int error = sim_begin(sim, OS_SIM_TRUNCATE, file->boot);
    digest_add(sim, size);
    bool grows = size > file->node->image.size;
    if (error == 0 && grows && size - file->node->image.size > room_left(sim)) error = ENOSPC;
    if (error != 0) return sim_fail(err, error, "cannot set size of file", base->name);
    sim_image_truncate(&file->node->image, ++sim->sequence, size);
    return DEED_OK;
}

/* ---- clock, randomness -------------------------------------------------------------------- */

static int64_t sim_now_ns(struct os *os)
{
    return sim_of(os)->now_ns;
}

static uint64_t sim_ticks_ns(struct os *os)
{
    return sim_of(os)->ticks_ns;
}

static void sim_random_fill(struct os *os, void *out, size_t size)
{
    struct os_sim *sim = sim_of(os);
    uint8_t *at = out;
    for (size_t i = 0; i < size; i++)
        at[i] = (uint8_t)(sim_random_next(&sim->ids) >> 32);
}

/* ---- the ways in: (6) ---------------------------------------------------------------------- */

#define WAY_IN(name, parameters, ...)                                                              \
    static deed_status in_##name parameters                                                        \
    {                                                                                              \
        inside++;                                                                                  \
        deed_status status = sim_##name(__VA_ARGS__);                                              \
        inside--;                                                                                  \
        return status;                                                                             \
    }

WAY_IN(dir_open,
       (struct os * os, struct os_dir *parent, const char *path, bool create, struct os_dir **out,
        struct deed_error *err),
       os, parent, path, create, out, err)
WAY_IN(dir_sync, (struct os_dir * dir, struct deed_error *err), dir, err)
WAY_IN(dir_list,
       (struct os_dir * dir, void (*each)(void *, const char *), void *context,
        struct deed_error *err),
       dir, each, context, err)
WAY_IN(dir_lock, (struct os_dir * dir, struct deed_error *err), dir, err)
WAY_IN(remove, (struct os_dir * dir, const char *name, struct deed_error *err), dir, name, err)
WAY_IN(rename, (struct os_dir * dir, const char *from, const char *to, struct deed_error *err), dir,
       from, to, err)
WAY_IN(file_open,
       (struct os_dir * dir, const char *name, unsigned flags, struct os_file **out,
        struct deed_error *err),
       dir, name, flags, out, err)
WAY_IN(file_read,
       (struct os_file * file, uint64_t offset, void *out, size_t size, size_t *out_read,
        struct deed_error *err),
       file, offset, out, size, out_read, err)
WAY_IN(file_write,
       (struct os_file * file, uint64_t offset, deed_bytes bytes, struct deed_error *err), file,
       offset, bytes, err)
WAY_IN(file_sync, (struct os_file * file, struct deed_error *err), file, err)
WAY_IN(file_size, (struct os_file * file, uint64_t *out, struct deed_error *err), file, out, err)
WAY_IN(file_truncate, (struct os_file * file, uint64_t size, struct deed_error *err), file, size,
       err)

static const struct os_ops sim_ops = {
    .dir_open = in_dir_open,
    .dir_close = sim_dir_close,
    .dir_sync = in_dir_sync,
    .dir_list = in_dir_list,
    .dir_lock = in_dir_lock,
    .remove = in_remove,
    .rename = in_rename,
    .file_open = in_file_open,
    .file_close = sim_file_close,
    .file_read = in_file_read,
    .file_write = in_file_write,
    .file_sync = in_file_sync,
    .file_size = in_file_size,
    .file_truncate = in_file_truncate,
    .now_ns = sim_now_ns,
    .ticks_ns = sim_ticks_ns,
    .random = sim_random_fill,
};

/* ---- the machine -------------------------------------------------------------------------- */

struct os_sim_faults os_sim_faults_crash(void)
{
    struct os_sim_faults faults = {{0}};
    for (int fault = OS_SIM_LOST_WRITE; fault <= OS_SIM_REUSED; fault++) {
        faults.ppm[fault] = 500000;
    }
    return faults;
}

struct os_sim *os_sim_create(uint64_t seed, const struct os_sim_faults *faults)
{
    struct os_sim *sim = must_have(calloc(1, sizeof *sim));
    struct sim_random shape = sim_random_of(seed, 0);
    *sim = (struct os_sim){
        .os.ops = &sim_ops,
        .thread = pthread_self(),
        .seed = seed,
        .boot = 1,
        .sector_size = sim_random_below(&shape, 2) == 0 ? 512 : 4096,
        .faults = faults == NULL ? os_sim_faults_crash() : *faults,
        .disk = sim_random_of(seed, 1),
        .ids = sim_random_of(seed, 2),
        .test = sim_random_of(seed, 3),
        .memory = sim_random_of(seed, 4),
        .reuse = sim_random_of(seed, 5),
        .now_ns = CLOCK_START_NS + (int64_t)sim_random_below(&shape, YEAR_NS),
        .ticks_ns = sim_random_below(&shape, YEAR_NS),
        .power_off_at = DEED_NONE,
        .capacity = DEED_NONE,
    };
    sim->root = node_hold(node_create(true, sim->sector_size));
    return sim;
}

void os_sim_destroy(struct os_sim *sim)
{
    if (sim == NULL) return;
    (void)sim_of(&sim->os);
    assert(sim->handle_count == 0); /* somebody forgot to close */
    node_drop(sim->root);
    free(sim);
}

struct os *os_sim_os(struct os_sim *sim)
{
    return &sim->os;
}

const char *os_sim_describe(struct os_sim *sim)
{
    static const char *const names[] = {
#define OS_SIM_FAULT_NAME(name, text) text,
        OS_SIM_FAULT_MAP(OS_SIM_FAULT_NAME)
#undef OS_SIM_FAULT_NAME
    };
    const bool took_part[] = {sim->crash.lost,        sim->crash.reordered, sim->crash.torn,
                              sim->crash.torn_sector, sim->crash.scrambled, sim->crash.lost_names,
                              sim->crash.reused};
    int len =
        snprintf(sim->description, DESCRIPTION_SIZE,
                 "seed %llu, sectors of %zu, boot %llu, %llu operations",
                 (unsigned long long)sim->seed, sim->sector_size, (unsigned long long)sim->boot,
                 (unsigned long long)sim->op_count[OS_SIM_ANY]);
    size_t at = (size_t)len;
    const char *between = "; last crash: ";
    for (size_t i = 0; i < sizeof took_part / sizeof took_part[0]; i++) {
        if (!took_part[i]) continue;
        len = snprintf(sim->description + at, DESCRIPTION_SIZE - at, "%s%s", between, names[i]);
        at += (size_t)len;
        between = ", ";
    }
    assert(at < DESCRIPTION_SIZE); /* the table's names are short */
    return sim->description;
}

uint64_t os_sim_pick(struct os_sim *sim, uint64_t limit)
{
    assert(limit > 0);
    return sim_random_below(&sim->test, limit);
}

uint64_t os_sim_digest(const struct os_sim *sim)
{
    return sim->digest;
}

size_t os_sim_sector_size(const struct os_sim *sim)
{
    return sim->sector_size;
}

void os_sim_advance(struct os_sim *sim, uint64_t ns)
{
    sim->now_ns += (int64_t)ns;
    sim->ticks_ns += ns;
}

void os_sim_set_clock(struct os_sim *sim, int64_t ns)
{
    sim->now_ns = ns;
}

/* ---- power -------------------------------------------------------------------------------- */

static void locks_drop(struct node *dir)
{
    dir->locked_by = NULL;
    for (size_t i = 0; i < dir->entries.count; i++)
        locks_drop(dir->entries.list[i].node);
}

/* What this crash does, drawn from the seed. */
static struct sim_crash crash_draw(struct os_sim *sim)
{
    struct sim_random *r = &sim->disk;
    struct sim_crash crash = {
        .lost = sim_random_chance(r, sim->faults.ppm[OS_SIM_LOST_WRITE]),
        .reordered = sim_random_chance(r, sim->faults.ppm[OS_SIM_REORDERED]),
        .torn = sim_random_chance(r, sim->faults.ppm[OS_SIM_TORN_WRITE]),
        .torn_sector = sim_random_chance(r, sim->faults.ppm[OS_SIM_TORN_SECTOR]),
        .scrambled = sim_random_chance(r, sim->faults.ppm[OS_SIM_SCRAMBLED]),
        .lost_names = sim_random_chance(r, sim->faults.ppm[OS_SIM_LOST_NAME]),
        .reused = sim_random_chance(&sim->reuse, sim->faults.ppm[OS_SIM_REUSED]),
        .cut_sequence = sim->sequence,
        .salt = sim_random_next(r),
    };
    static const uint32_t keeps[] = {0, 16, 128, 240};
    crash.keep_of_256 = keeps[sim_random_below(r, sizeof keeps / sizeof keeps[0])];

    /* Most engines sync often: the writes in doubt are the last few. */
    static const uint64_t doubts[] = {1, 4, 64};
    uint64_t doubted = doubts[sim_random_below(r, sizeof doubts / sizeof doubts[0])];
    if (doubted > sim->sequence) doubted = sim->sequence;
    crash.cut_sequence -= sim_random_below(r, doubted + 1);
    return crash;
}

/* Of files without a name and without a handle the blocks are free. */
static void find_given_away(struct os_sim *sim, struct node *dir)
{
    for (size_t i = 0; i < dir->durable.count; i++) {
        struct node *node = dir->durable.list[i].node;
        bool named = false;
        for (size_t k = 0; k < dir->entries.count; k++)
            named |= dir->entries.list[k].node == node;
        bool open = node->open_boot == sim->boot && node->open_count > 0;
        node->given_away = !node->is_dir && !named && !open;
    }
}

/* What was cut off of a file is free as well. It may be back, or what was written there since may not have
 * arrived. */
static void file_crash(struct os_sim *sim, struct node *file)
{
    struct sim_image *image = &file->image;
    bool reused = sim->crash.reused, cut = image->size_least < image->platter_size;
    if (reused && cut && !file->given_away) sim_image_reuse(image, &sim->reuse, image->size_least);
    sim_image_crash(image, &sim->crash, &sim->disk);
    if (reused && file->given_away) sim_image_reuse(image, &sim->reuse, 0);
    file->given_away = false;
}

static void dir_crash(struct os_sim *sim, struct node *dir)
{
    for (size_t i = 0; i < dir->pending_count; i++) {
        const struct change *change = &dir->pending[i];
        bool kept =
            !sim->crash.lost_names || sim_crash_keeps(&sim->crash, change->sequence, &sim->disk);
        if (kept) change_apply(change, &dir->durable);
    }
    pending_clear(dir);
    if (sim->crash.reused) find_given_away(sim, dir);
    entries_copy(&dir->entries, &dir->durable);
    for (size_t i = 0; i < dir->entries.count; i++) {
        struct node *node = dir->entries.list[i].node;
        if (node->is_dir) {
            dir_crash(sim, node);
        } else {
            file_crash(sim, node);
        }
    }
}

void os_sim_crash(struct os_sim *sim)
{
    (void)sim_of(&sim->os);
    sim->crash = crash_draw(sim);
    locks_drop(sim->root);
    inside++;
    dir_crash(sim, sim->root);
    inside--;
    sim->power_plan.number = 0;
    sim->power_off_at = DEED_NONE;
    sim->boot++;
    digest_add(sim, sim->boot);
}

void os_sim_kill(struct os_sim *sim)
{
    (void)sim_of(&sim->os);
    locks_drop(sim->root);
    sim->boot++;
    digest_add(sim, sim->boot);
}

void os_sim_power_off_after(struct os_sim *sim, uint64_t op_count)
{
    uint64_t now = sim->op_count[OS_SIM_ANY];
    if (op_count != DEED_NONE && !os_sim_powered(sim)) return; /* it stays off */
    sim->power_off_at = op_count > UINT64_MAX - now ? DEED_NONE : now + op_count;
    sim->power_plan.number = 0;
}

void os_sim_power_off_at(struct os_sim *sim, enum os_sim_op op, uint64_t nth, uint64_t op_count)
{
    assert(op < OS_SIM_OP_COUNT);
    assert(nth > 0);
    sim->power_plan.op = op;
    sim->power_plan.number = sim->op_count[op] + nth;
    sim->power_plan.more = op_count;
}

bool os_sim_powered(const struct os_sim *sim)
{
    return sim->op_count[OS_SIM_ANY] <= sim->power_off_at;
}

/* ---- faults ------------------------------------------------------------------------------- */

uint64_t os_sim_count(const struct os_sim *sim, enum os_sim_op op)
{
    assert(op < OS_SIM_OP_COUNT);
    return sim->op_count[op];
}

void os_sim_fail(struct os_sim *sim, enum os_sim_op op, uint64_t nth, uint64_t more,
                 int error_number)
{
    assert(nth > 0);
    assert(error_number > 0);
    assert(sim->plan_count < FAIL_PLAN_COUNT_MAX);
    uint64_t first = sim->op_count[op] + nth;
    uint64_t last = more > UINT64_MAX - first ? UINT64_MAX : first + more;
    sim->plans[sim->plan_count++] = (struct fail_plan){op, first, last, error_number};
}

void os_sim_set_faults(struct os_sim *sim, const struct os_sim_faults *faults)
{
    sim->faults = *faults;
}

uint64_t os_sim_struck(const struct os_sim *sim, enum os_sim_fault fault)
{
    assert(fault < OS_SIM_FAULT_COUNT);
    return sim->struck[fault];
}

bool os_sim_allocation_fails(struct os_sim *sim)
{
    if (inside > 0) return false;
    sim->op_count[OS_SIM_ALLOCATE]++;
    if (sim->plan_count > 0 && plan_error(sim, OS_SIM_ALLOCATE) != 0) return true;
    uint32_t ppm = sim->faults.ppm[OS_SIM_NO_MEMORY];
    if (ppm == 0 || !sim_random_chance(&sim->memory, ppm)) return false;
    sim->struck[OS_SIM_NO_MEMORY]++;
    return true;
}

void os_sim_heal(struct os_sim *sim)
{
    sim->plan_count = 0;
    sim->capacity = DEED_NONE;
    for (int fault = OS_SIM_LOST_NAME + 1; fault < OS_SIM_FAULT_COUNT; fault++) {
        sim->faults.ppm[fault] = 0;
    }
}

void os_sim_set_capacity(struct os_sim *sim, uint64_t size_max)
{
    sim->capacity = size_max;
}

static void node_drop_cache(struct node *node)
{
    if (!node->is_dir) sim_image_drop_clean(&node->image);
    for (size_t i = 0; i < node->entries.count; i++)
        node_drop_cache(node->entries.list[i].node);
}

void os_sim_drop_cache(struct os_sim *sim)
{
    node_drop_cache(sim->root);
}

/* ---- rot ---------------------------------------------------------------------------------- */

/* The image of the file at `path`, if it reaches past `offset`; else NULL. */
static struct sim_image *image_at(struct os_sim *sim, const char *path, uint64_t offset)
{
    struct node *dir = sim->root;
    char *name = NULL;
    if (path_walk(sim, &dir, path, false, &name) != 0) return NULL;
    struct entry *entry = entry_find(&dir->entries, name);
    free(name);
    if (entry == NULL || entry->node->is_dir || offset >= entry->node->image.size) return NULL;
    return &entry->node->image;
}

deed_status os_sim_rot(struct os_sim *sim, const char *path, uint64_t offset, enum os_sim_rot rot)
{
    struct sim_image *image = image_at(sim, path, offset);
    if (image == NULL) return DEED_NOT_FOUND;
    switch (rot) {
    case OS_SIM_ROT_FLIP:
        sim_image_flip(image, offset, (unsigned)sim_random_below(&sim->disk, 8));
        break;
    case OS_SIM_ROT_ZERO:
        sim_image_zero(image, offset);
        break;
    case OS_SIM_ROT_STALE:
        sim_image_stale(image, offset);
        break;
    }
    return DEED_OK;
}

deed_status os_sim_misdirect(struct os_sim *sim, const char *from, uint64_t from_offset,
                             const char *to, uint64_t to_offset)
{
    struct sim_image *source = image_at(sim, from, from_offset);
    struct sim_image *target = image_at(sim, to, to_offset);
    if (source == NULL || target == NULL) return DEED_NOT_FOUND;
    sim_image_misdirect(source, from_offset, target, to_offset);
    return DEED_OK;
}
