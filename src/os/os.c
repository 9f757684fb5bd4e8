/* os.c - checks what every implementation would have to check, and passes the rest on.
 *
 * (1) Names reach an implementation only as plain file names: nothing leaves its directory.
 * (2) Offsets and sizes reach it only where their sum is a file offset (63 bits). */
#define OS_WITHOUT_FAILPOINTS /* its functions bear the names that the points are put around */
#include "os/os.h"

#include <assert.h>

/* What Linux file systems allow (NAME_MAX), so that both machines refuse the same names. */
#define NAME_SIZE_MAX 255
/* And its calls (PATH_MAX). */
#define PATH_SIZE_MAX 4096

/* A file's offsets are signed 64 bits on POSIX. */
#define OFFSET_MAX ((uint64_t)INT64_MAX)

static deed_status name_check(const struct os_dir *dir, const char *name, struct deed_error *err)
{
    const char *reason = NULL;
    if (name == NULL || name[0] == '\0') {
        reason = "is empty";
    } else if (strchr(name, '/') != NULL) {
        reason = "has a slash";
    } else if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0) {
        reason = "is a directory's own";
    } else if (strlen(name) > NAME_SIZE_MAX) {
        reason = "is over 255 bytes";
    }
    if (reason == NULL) return DEED_OK;
    return deed_fail(err, DEED_MISUSE, "directory %s: file name \"%s\" %s", dir->path,
                     name == NULL ? "" : name, reason);
}

deed_status os_dir_open(struct os *os, const char *path, bool create, struct os_dir **out_dir,
                        struct deed_error *err)
{
    assert(os != NULL);
    if (path == NULL || path[0] == '\0') {
        return deed_fail(err, DEED_MISUSE, "directory path is empty");
    }
    return os->ops->dir_open(os, NULL, path, create, out_dir, err);
}

deed_status os_dir_open_in(struct os_dir *parent, const char *name, bool create,
                           struct os_dir **out_dir, struct deed_error *err)
{
    deed_status status = name_check(parent, name, err);
    if (status != DEED_OK) return status;
    return parent->os->ops->dir_open(parent->os, parent, name, create, out_dir, err);
}

deed_status os_dir_open_of(struct os *os, const char *path, struct os_dir **out_dir,
                           const char **out_name, struct deed_error *err)
{
    char folder[PATH_SIZE_MAX + 1];
    const char *slash = strrchr(path, '/');
    size_t len = slash == NULL ? 0 : (size_t)(slash - path);
    if (len >= sizeof folder) return deed_fail(err, DEED_MISUSE, "%.100s...: the path is too long", path);
    memcpy(folder, path, len);
    folder[len] = '\0';
    *out_name = slash == NULL ? path : slash + 1;
    const char *where = slash == NULL ? "." : len == 0 ? "/" : folder;
    return os_dir_open(os, where, false, out_dir, err);
}

void os_dir_close(struct os_dir *dir)
{
    if (dir != NULL) dir->os->ops->dir_close(dir);
}

const char *os_dir_path(const struct os_dir *dir)
{
    return dir->path;
}

deed_status os_dir_sync(struct os_dir *dir, struct deed_error *err)
{
    return dir->os->ops->dir_sync(dir, err);
}

deed_status os_dir_list(struct os_dir *dir, void (*each)(void *context, const char *name),
                        void *context, struct deed_error *err)
{
    assert(each != NULL);
    return dir->os->ops->dir_list(dir, each, context, err);
}

deed_status os_dir_lock(struct os_dir *dir, struct deed_error *err)
{
    return dir->os->ops->dir_lock(dir, err);
}

deed_status os_remove(struct os_dir *dir, const char *name, struct deed_error *err)
{
    deed_status status = name_check(dir, name, err);
    if (status != DEED_OK) return status;
    return dir->os->ops->remove(dir, name, err);
}

deed_status os_rename(struct os_dir *dir, const char *from, const char *to, struct deed_error *err)
{
    deed_status status = name_check(dir, from, err);
    if (status == DEED_OK) status = name_check(dir, to, err);
    if (status != DEED_OK) return status;
    return dir->os->ops->rename(dir, from, to, err);
}

deed_status os_file_open(struct os_dir *dir, const char *name, unsigned flags,
                         struct os_file **out_file, struct deed_error *err)
{
    deed_status status = name_check(dir, name, err);
    if (status != DEED_OK) return status;
    const unsigned known = OS_WRITE | OS_CREATE | OS_EXCLUSIVE | OS_DIRECT;
    bool create_alone = (flags & OS_CREATE) != 0 && (flags & OS_WRITE) == 0;
    bool exclusive_alone = (flags & OS_EXCLUSIVE) != 0 && (flags & OS_CREATE) == 0;
    if ((flags & ~known) != 0 || create_alone || exclusive_alone) {
        return deed_fail(err, DEED_MISUSE, "file %s/%s: open flags %#x do not go together",
                         dir->path, name, flags);
    }
    return dir->os->ops->file_open(dir, name, flags, out_file, err);
}

void os_file_close(struct os_file *file)
{
    if (file != NULL) file->os->ops->file_close(file);
}

/* ---- haste -------------------------------------------------------------------------------- */

static _Thread_local struct {
    bool on, refused;
    size_t left; /* bytes that may still be read */
} haste;

void os_haste_begin(size_t size_max)
{
    assert(!haste.on);
    haste.on = true;
    haste.refused = false;
    haste.left = size_max;
}

bool os_haste_end(void)
{
    assert(haste.on);
    haste.on = false;
    return haste.refused;
}

bool os_haste_refused(void)
{
    return haste.on && haste.refused;
}

bool os_in_haste(void)
{
    return haste.on;
}

deed_status os_haste_refuse(const char *what, struct deed_error *err)
{
    assert(haste.on);
    haste.refused = true;
    return deed_fail(err, DEED_BUSY, "%s: not at hand", what);
}

static deed_status read_in_haste(struct os_file *file, uint64_t offset, void *out, size_t size,
                                 size_t *out_read, struct deed_error *err)
{
    deed_status status = DEED_BUSY;
    bool takes = size <= haste.left && (file->flags & OS_DIRECT) == 0;
    if (takes) status = file->os->ops->file_read(file, offset, out, size, out_read, err);
    if (status == DEED_OK) haste.left -= *out_read;
    if (status != DEED_BUSY) return status;
    haste.refused = true;
    return deed_fail(err, DEED_BUSY, "file %s: %zu bytes at offset %llu are not at hand",
                     file->name, size, (unsigned long long)offset);
}

deed_status os_file_read(struct os_file *file, uint64_t offset, void *out, size_t size,
                         size_t *out_read, struct deed_error *err)
{
    if ((file->flags & OS_DIRECT) != 0 &&
        (offset % OS_DIRECT_ALIGN != 0 || size % OS_DIRECT_ALIGN != 0)) {
        return deed_fail(err, DEED_MISUSE,
                         "file %s: direct read of %zu bytes at offset %llu is not in multiples of "
                         "%d",
                         file->name, size, (unsigned long long)offset, OS_DIRECT_ALIGN);
    }
    /* An offset out of damaged bytes may be anything: no file reaches that far. */
    if (offset > OFFSET_MAX || size == 0) {
        *out_read = 0;
        return DEED_OK;
    }
    if (size > OFFSET_MAX - offset) size = (size_t)(OFFSET_MAX - offset);
    if (haste.on) return read_in_haste(file, offset, out, size, out_read, err);
    return file->os->ops->file_read(file, offset, out, size, out_read, err);
}

static deed_status write_check(const struct os_file *file, uint64_t end_max, uint64_t offset,
                               const char *verb, struct deed_error *err)
{
    if ((file->flags & OS_WRITE) == 0) {
        return deed_fail(err, DEED_MISUSE, "file %s: cannot %s, opened for reading only",
                         file->name, verb);
    }
    if (offset > end_max) {
        return deed_fail(err, DEED_MISUSE, "file %s: cannot %s at %llu, past the last offset",
                         file->name, verb, (unsigned long long)offset);
    }
    return DEED_OK;
}

deed_status os_file_write(struct os_file *file, uint64_t offset, deed_bytes bytes,
                          struct deed_error *err)
{
    if (bytes.len > OFFSET_MAX) {
        return deed_fail(err, DEED_MISUSE, "file %s: cannot write %zu bytes", file->name,
                         bytes.len);
    }
    deed_status status = write_check(file, OFFSET_MAX - bytes.len, offset, "write", err);
    if (status != DEED_OK || bytes.len == 0) return status;
    return file->os->ops->file_write(file, offset, bytes, err);
}

deed_status os_file_sync(struct os_file *file, struct deed_error *err)
{
    return file->os->ops->file_sync(file, err);
}

deed_status os_file_size(struct os_file *file, uint64_t *out_size, struct deed_error *err)
{
    return file->os->ops->file_size(file, out_size, err);
}

deed_status os_file_truncate(struct os_file *file, uint64_t size, struct deed_error *err)
{
    deed_status status = write_check(file, OFFSET_MAX, size, "truncate", err);
    if (status != DEED_OK) return status;
    return file->os->ops->file_truncate(file, size, err);
}

int64_t os_now_ns(struct os *os)
{
    return os->ops->now_ns(os);
}

uint64_t os_ticks_ns(struct os *os)
{
    return os->ops->ticks_ns(os);
}

void os_random(struct os *os, void *out, size_t size)
{
    if (size > 0) os->ops->random(os, out, size);
}
