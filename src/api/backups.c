/* backups.c - one actor, whose step is one backup.
 *
 * (1) `status`, `wanted` and `quick` are guarded by the lock; the step works on copies.
 * (2) `wanted` says that a backup was asked for and not begun; `status.running` is true from then
 *     until it ended, so that there is never a second one. */
#include "api/backups.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "os/thread.h"
#include "store/backup.h"

struct backups {
    struct store *store;
    char *root;
    struct actor *actor;
    atomic_bool closing;
    struct os_mutex lock;
    struct backups_status status;
    bool wanted, quick;
};

static bool on_progress(void *context, uint64_t done, uint64_t all)
{
    struct backups *b = context;
    os_mutex_lock(&b->lock);
    b->status.done = done;
    b->status.all = all;
    os_mutex_unlock(&b->lock);
    return !atomic_load(&b->closing);
}

static bool take(struct backups *b, char name[BACKUP_NAME_SIZE_MAX + 1], bool *out_quick)
{
    os_mutex_lock(&b->lock);
    bool wanted = b->wanted;
    b->wanted = false;
    *out_quick = b->quick;
    memcpy(name, b->status.name, sizeof b->status.name);
    os_mutex_unlock(&b->lock);
    return wanted;
}

static void note_end(struct backups *b, deed_status status, const struct deed_backup_report *report,
                     const struct deed_error *err, uint64_t seconds)
{
    os_mutex_lock(&b->lock);
    b->status.running = false;
    b->status.failed = status != DEED_OK;
    if (status != DEED_OK) {
        b->status.error = *err;
    } else {
        b->status.made = true;
        memcpy(b->status.made_name, b->status.name, sizeof b->status.name);
        b->status.report = *report;
        b->status.seconds = seconds;
    }
    os_mutex_unlock(&b->lock);
}

static uint64_t backups_step(void *context)
{
    struct backups *b = context;
    char name[BACKUP_NAME_SIZE_MAX + 1];
    struct deed_backup_options options = {.progress = on_progress, .context = b};
    struct deed_backup_report report = {0};
    struct deed_error err = {0};
    if (!take(b, name, &options.quick)) return ACTOR_WAIT;

    uint64_t begun = os_ticks_ns(store_os(b->store));
    size_t size = strlen(b->root) + 1 + strlen(name) + 1;
    char *target = malloc(size);
    deed_status status = DEED_OK;
    if (target == NULL) {
        status = deed_fail(&err, DEED_NO_MEMORY, "backup: out of memory");
    } else {
        (void)snprintf(target, size, "%s/%s", b->root, name);
        status = store_backup(b->store, target, &options, &report, &err);
    }
    free(target);
    note_end(b, status, &report, &err, (os_ticks_ns(store_os(b->store)) - begun) / 1000000000);
    return ACTOR_AGAIN;
}

deed_status backups_open(struct store *store, const char *root, struct backups **out_backups,
                         struct deed_error *err)
{
    struct backups *b = calloc(1, sizeof *b);
    char *copy = malloc(strlen(root) + 1);
    if (b == NULL || copy == NULL) {
        free(b);
        free(copy);
        return deed_fail(err, DEED_NO_MEMORY, "backups: out of memory");
    }
    memcpy(copy, root, strlen(root) + 1);
    b->store = store;
    b->root = copy;
    os_mutex_init(&b->lock);
    deed_status status = actor_start("backup", backups_step, b, &b->actor, err);
    if (status != DEED_OK) {
        backups_close(b);
        return status;
    }
    *out_backups = b;
    return DEED_OK;
}

void backups_close(struct backups *b)
{
    if (b == NULL) return;
    atomic_store(&b->closing, true);
    actor_stop(b->actor);
    os_mutex_done(&b->lock);
    free(b->root);
    free(b);
}

/* A name, not a path: it stays below the root. */
static bool name_good(deed_str name)
{
    if (name.len == 0 || name.len > BACKUP_NAME_SIZE_MAX || name.ptr[0] == '.') return false;
    for (size_t i = 0; i < name.len; i++) {
        char c = name.ptr[i];
        bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
        bool digit = c >= '0' && c <= '9';
        if (!letter && !digit && c != '-' && c != '_' && c != '.') return false;
    }
    return true;
}

deed_status backups_start(struct backups *b, deed_str name, bool quick, struct deed_error *err)
{
    if (!name_good(name)) {
        return deed_fail(err, DEED_INVALID,
                         "a backup's name has letters, digits, '-', '_' and '.', does not begin "
                         "with a dot and has at most %d bytes",
                         BACKUP_NAME_SIZE_MAX);
    }
    os_mutex_lock(&b->lock);
    bool running = b->status.running;
    if (!running) {
        b->status.running = b->wanted = true;
        b->quick = quick;
        b->status.done = b->status.all = 0;
        (void)snprintf(b->status.name, sizeof b->status.name, "%.*s", DEED_FMT(name));
    }
    os_mutex_unlock(&b->lock);
    if (running) return deed_fail(err, DEED_CONFLICT, "a backup is being made already");
    actor_wake(b->actor);
    return DEED_OK;
}

void backups_get_status(struct backups *b, struct backups_status *out_status)
{
    os_mutex_lock(&b->lock);
    *out_status = b->status;
    os_mutex_unlock(&b->lock);
}
