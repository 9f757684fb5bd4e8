/* backup_view.c - names are translated, and everything else is passed on.
 *
 *     log/0000000001.seg  ──►  TARGET/0000000001.seg.<sha256>
 *
 * (1) A file that is opened is the target's own: it knows its machine, so reading, closing and
 *     asking its size never come here.
 * (2) Directories are the view's own fields, closed by forgetting them.
 * (3) Only what the set names is there, and nothing can be written. */
#include "store/backup_view.h"

static const struct os_ops view_ops;

static struct backup_view *view_of(struct os *os)
{
    return (struct backup_view *)(void *)os;
}

void backup_view_init(struct backup_view *view, struct os_dir *target,
                      const struct backup_set *set)
{
    *view = (struct backup_view){.os = {.ops = &view_ops}, .target = target, .set = set};
    view->data = view->log = (struct os_dir){.os = &view->os, .path = target->path};
}

static deed_status read_only(const struct os_dir *dir, struct deed_error *err)
{
    return deed_fail(err, DEED_MISUSE, "%s: a backup is not written to", os_dir_path(dir));
}

static deed_status view_dir_open(struct os *os, struct os_dir *parent, const char *path, bool create,
                                 struct os_dir **out, struct deed_error *err)
{
    struct backup_view *view = view_of(os);
    if (parent != &view->data || strcmp(path, "log") != 0 || create) {
        return deed_fail(err, DEED_NOT_FOUND, "a backup has no directory %s", path);
    }
    *out = &view->log;
    return DEED_OK;
}

static void view_dir_close(struct os_dir *dir)
{
    (void)dir;
}

static deed_status view_dir_sync(struct os_dir *dir, struct deed_error *err)
{
    return read_only(dir, err);
}

static deed_status view_dir_lock(struct os_dir *dir, struct deed_error *err)
{
    return read_only(dir, err);
}

static deed_status view_dir_list(struct os_dir *dir, void (*each)(void *, const char *),
                                 void *context, struct deed_error *err)
{
    const struct backup_view *view = view_of(dir->os);
    (void)err;
    for (size_t i = 0; dir == &view->log && i < view->set->count; i++) {
        each(context, view->set->files[i].name);
    }
    return DEED_OK;
}

static deed_status view_remove(struct os_dir *dir, const char *name, struct deed_error *err)
{
    (void)name;
    return read_only(dir, err);
}

static deed_status view_rename(struct os_dir *dir, const char *from, const char *to,
                               struct deed_error *err)
{
    (void)from, (void)to;
    return read_only(dir, err);
}

static deed_status view_file_open(struct os_dir *dir, const char *name, unsigned flags,
                                  struct os_file **out, struct deed_error *err)
{
    const struct backup_view *view = view_of(dir->os);
    const struct backup_file *file = backup_set_find(view->set, name);
    if ((flags & OS_WRITE) != 0) return read_only(dir, err);
    if (dir != &view->log || file == NULL) {
        return deed_fail(err, DEED_NOT_FOUND, "the backup has no file %s", name);
    }
    char entry[BACKUP_ENTRY_NAME_SIZE];
    backup_entry_name(file->name, file->hash, entry);
    return os_file_open(view->target, entry, flags, out, err); /* (1) */
}

static int64_t view_now_ns(struct os *os)
{
    return os_now_ns(view_of(os)->target->os);
}

static uint64_t view_ticks_ns(struct os *os)
{
    return os_ticks_ns(view_of(os)->target->os);
}

static void view_random(struct os *os, void *out, size_t size)
{
    os_random(view_of(os)->target->os, out, size);
}

static const struct os_ops view_ops = {
    .dir_open = view_dir_open,
    .dir_close = view_dir_close,
    .dir_sync = view_dir_sync,
    .dir_list = view_dir_list,
    .dir_lock = view_dir_lock,
    .remove = view_remove,
    .rename = view_rename,
    .file_open = view_file_open,
    .now_ns = view_now_ns,
    .ticks_ns = view_ticks_ns,
    .random = view_random,
};
