/* os_real.c - the machine this process runs on: Linux, by POSIX calls.
 *
 * (1) Everything below a directory is reached through its descriptor, so moving the directory or
 *     changing the working directory under us changes nothing.
 * (2) A read or write that was interrupted or came back short goes on where it stopped. A sync is
 *     never repeated, whatever it answers: after a failure the kernel forgets what was unsynced,
 *     and a second fsync would answer "all is well" (measured on ext4 here).
 * (3) A directory made with `create` has its parent synced, also when it was there already: an
 *     earlier run may have been killed between the making and the sync. */
#include "os/os.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define NS_PER_SECOND INT64_C(1000000000)

/* One call moves at most this much: Linux cuts at 2 GiB less a page anyway, and a smaller piece
 * bounds the time a signal has to wait. */
#define TRANSFER_SIZE_MAX ((size_t)1 << 30)

/* The aligned memory that a direct read goes through, at most. */
#define BOUNCE_SIZE_MAX ((size_t)1 << 20)

#define LOCK_NAME "lock"

/* Events are nobody else's business; a group may be let in for backups. The umask narrows it. */
#define FILE_MODE      0640
#define DIRECTORY_MODE 0750

struct real_dir {
    struct os_dir base;
    int fd;
    int lock_fd; /* -1: not locked */
};

struct real_file {
    struct os_file base;
    int fd;
    int direct_fd; /* -1: no OS_DIRECT, or the file system has none */
};

static const struct os_ops real_ops;

struct os *os_real(void)
{
    static struct os os = {&real_ops};
    return &os;
}

static struct real_dir *real_dir_of(struct os_dir *dir)
{
    assert(dir->os->ops == &real_ops);
    return (struct real_dir *)dir;
}

static struct real_file *real_file_of(struct os_file *file)
{
    assert(file->os->ops == &real_ops);
    return (struct real_file *)file;
}

/* "head/tail", or "tail" without a head. NULL: no memory. */
static char *path_join(const char *head, const char *tail)
{
    char *path = NULL;
    int len = head == NULL ? asprintf(&path, "%s", tail) : asprintf(&path, "%s/%s", head, tail);
    return len < 0 ? NULL : path;
}

/* "a/b/" in a message would read "a/b//file". */
static void slashes_cut(char *path)
{
    size_t len = strlen(path);
    while (len > 1 && path[len - 1] == '/')
        path[--len] = '\0';
}

static int open_again(int dir_fd, const char *name, int flags)
{
    int fd;
    do {
        fd = openat(dir_fd, name, flags | O_CLOEXEC, FILE_MODE);
    } while (fd < 0 && errno == EINTR);
    return fd;
}

static void fd_close(int fd)
{
    /* An error of close says nothing that a sync has not said; the descriptor is gone anyway. */
    if (fd >= 0) (void)close(fd);
}

/* ---- directories -------------------------------------------------------------------------- */

/* EINVAL: a file system that has no such thing as syncing a directory; nothing to be done. */
static int dir_fd_sync(int fd)
{
    return fsync(fd) == 0 || errno == EINVAL ? 0 : errno;
}

/* Sync the directory that holds `path` (which ends before `end`). */
static int parent_sync(char *path, size_t end, bool must)
{
    while (end > 0 && path[end - 1] != '/')
        end--;
    while (end > 1 && path[end - 1] == '/')
        end--;
    char kept = path[end];
    path[end] = '\0';
    int fd = open_again(AT_FDCWD, end == 0 ? "." : path, O_RDONLY | O_DIRECTORY);
    path[end] = kept;

    /* A parent that we may pass through but not read has held `path` since before our time. */
    if (fd < 0) return must ? errno : 0;
    int error = dir_fd_sync(fd);
    fd_close(fd);
    return must ? error : 0;
}

/* Make `path` and its missing parents, each durable before the next (3). Returns an errno. */
static int directories_make(char *path)
{
    size_t len = strlen(path);
    for (size_t end = 1; end <= len; end++) {
        if (path[end] != '/' && path[end] != '\0') continue;
        if (path[end - 1] == '/') continue; /* doubled or trailing */

        char kept = path[end];
        path[end] = '\0';
        int error = mkdir(path, DIRECTORY_MODE) == 0 ? 0 : errno;
        path[end] = kept;
        if (error != 0 && error != EEXIST) return error;
        error = parent_sync(path, end, error == 0);
        if (error != 0) return error;
    }
    return 0;
}

static int directory_make_in(struct real_dir *parent, const char *name)
{
    if (mkdirat(parent->fd, name, DIRECTORY_MODE) != 0 && errno != EEXIST) return errno;
    return dir_fd_sync(parent->fd);
}

static deed_status real_dir_open(struct os *os, struct os_dir *parent, const char *path,
                                 bool create, struct os_dir **out, struct deed_error *err)
{
    struct real_dir *above = parent == NULL ? NULL : real_dir_of(parent);
    struct real_dir *dir = calloc(1, sizeof *dir);
    if (dir == NULL) return deed_fail(err, DEED_NO_MEMORY, "directory %s: no memory", path);
    *dir = (struct real_dir){.base.os = os, .fd = -1, .lock_fd = -1};

    deed_status status = DEED_OK;
    dir->base.path = path_join(above == NULL ? NULL : above->base.path, path);
    if (dir->base.path == NULL) {
        status = deed_fail(err, DEED_NO_MEMORY, "directory %s: no memory", path);
        goto done;
    }
    slashes_cut(dir->base.path);
    if (create) {
        int error =
            above == NULL ? directories_make(dir->base.path) : directory_make_in(above, path);
        if (error != 0) {
            status = deed_fail_errno(err, error, "directory %s: cannot make it", dir->base.path);
            goto done;
        }
    }
    dir->fd = open_again(above == NULL ? AT_FDCWD : above->fd, path, O_RDONLY | O_DIRECTORY);
    if (dir->fd < 0) {
        status = deed_fail_errno(err, errno, "directory %s: cannot open it", dir->base.path);
        goto done;
    }
    *out = &dir->base;

done:
    if (status != DEED_OK) {
        free(dir->base.path);
        free(dir);
    }
    return status;
}

static void real_dir_close(struct os_dir *base)
{
    struct real_dir *dir = real_dir_of(base);
    if (dir->lock_fd >= 0) {
        /* Unlocked by hand: a child that was just forked may still hold the descriptor. */
        (void)ftruncate(dir->lock_fd, 0);
        (void)flock(dir->lock_fd, LOCK_UN);
        fd_close(dir->lock_fd);
    }
    fd_close(dir->fd);
    free(dir->base.path);
    free(dir);
}

static deed_status real_dir_sync(struct os_dir *dir, struct deed_error *err)
{
    int error = dir_fd_sync(real_dir_of(dir)->fd);
    if (error == 0) return DEED_OK;
    return deed_fail_errno(err, error, "directory %s: cannot sync it", dir->path);
}

static deed_status real_dir_list(struct os_dir *dir, void (*each)(void *, const char *),
                                 void *context, struct deed_error *err)
{
    /* A descriptor of its own: two lists at the same time must not share a place. */
    int fd = open_again(real_dir_of(dir)->fd, ".", O_RDONLY | O_DIRECTORY);
    DIR *listing = fd < 0 ? NULL : fdopendir(fd);
    if (listing == NULL) {
        int error = errno;
        fd_close(fd);
        return deed_fail_errno(err, error, "directory %s: cannot list it", dir->path);
    }
    int error = 0;
    for (;;) {
        errno = 0;
        struct dirent *entry = readdir(listing);
        if (entry == NULL) {
            error = errno;
            break;
        }
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
        each(context, entry->d_name);
    }
    (void)closedir(listing);
    if (error == 0) return DEED_OK;
    return deed_fail_errno(err, error, "directory %s: cannot list it", dir->path);
}

/* Who holds the lock, as it wrote itself down; it may not have come to that yet. */
static deed_status locked_fail(struct os_dir *dir, int fd, struct deed_error *err)
{
    char text[32];
    ssize_t len = pread(fd, text, sizeof text - 1, 0);
    text[len < 0 ? 0 : len] = '\0';
    long pid = strtol(text, NULL, 10);
    if (pid <= 0) {
        return deed_fail(err, DEED_LOCKED, "directory %s: in use by another process", dir->path);
    }
    return deed_fail(err, DEED_LOCKED, "directory %s: in use by process %ld", dir->path, pid);
}

static deed_status real_dir_lock(struct os_dir *base, struct deed_error *err)
{
    struct real_dir *dir = real_dir_of(base);
    if (dir->lock_fd >= 0) return DEED_OK;

    int fd = open_again(dir->fd, LOCK_NAME, O_RDWR | O_CREAT);
    if (fd < 0) return deed_fail_errno(err, errno, "file %s/lock: cannot open it", base->path);

    /* flock belongs to the open file: it also keeps a second handle of this process out, which
     * fcntl's locks would let in. */
    int failed;
    do {
        failed = flock(fd, LOCK_EX | LOCK_NB);
    } while (failed != 0 && errno == EINTR);
    if (failed != 0) {
        int error = errno;
        deed_status status =
            error == EWOULDBLOCK
                ? locked_fail(base, fd, err)
                : deed_fail_errno(err, error, "file %s/lock: cannot lock it", base->path);
        fd_close(fd);
        return status;
    }
    /* The id is for messages only: a full disk must not keep us from reading. */
    char text[32];
    int len = snprintf(text, sizeof text, "%ld\n", (long)getpid());
    if (ftruncate(fd, 0) == 0) (void)!pwrite(fd, text, (size_t)len, 0);
    dir->lock_fd = fd;
    return DEED_OK;
}

static deed_status real_remove(struct os_dir *dir, const char *name, struct deed_error *err)
{
    if (unlinkat(real_dir_of(dir)->fd, name, 0) == 0) return DEED_OK;
    return deed_fail_errno(err, errno, "file %s/%s: cannot remove it", dir->path, name);
}

static deed_status real_rename(struct os_dir *dir, const char *from, const char *to,
                               struct deed_error *err)
{
    int fd = real_dir_of(dir)->fd;
    if (renameat(fd, from, fd, to) == 0) return DEED_OK;
    return deed_fail_errno(err, errno, "file %s/%s: cannot rename it to %s", dir->path, from, to);
}

/* ---- files -------------------------------------------------------------------------------- */

static deed_status real_file_open(struct os_dir *dir, const char *name, unsigned flags,
                                  struct os_file **out, struct deed_error *err)
{
    int how = (flags & OS_WRITE) != 0 ? O_RDWR : O_RDONLY;
    if ((flags & OS_CREATE) != 0) how |= O_CREAT;
    if ((flags & OS_EXCLUSIVE) != 0) how |= O_EXCL;

    struct real_file *file = calloc(1, sizeof *file);
    char *path = path_join(dir->path, name);
    if (file == NULL || path == NULL) {
        free(file);
        free(path);
        return deed_fail(err, DEED_NO_MEMORY, "file %s/%s: no memory", dir->path, name);
    }
    *file =
        (struct real_file){.base = {.os = dir->os, .name = path, .flags = flags}, .direct_fd = -1};
    int dir_fd = real_dir_of(dir)->fd;
    file->fd = open_again(dir_fd, name, how);
    int error = file->fd < 0 ? errno : 0;
    if (error == 0 && (flags & OS_DIRECT) != 0) {
        file->direct_fd = open_again(dir_fd, name, O_RDONLY | O_DIRECT);
        if (file->direct_fd < 0 && errno != EINVAL) error = errno;
    }
    if (error == 0) {
        *out = &file->base;
        return DEED_OK;
    }
    deed_status status = error == EEXIST
                             ? deed_fail(err, DEED_CONFLICT, "file %s: is there already", path)
                             : deed_fail_errno(err, error, "file %s: cannot open it", path);
    fd_close(file->fd);
    free(path);
    free(file);
    return status;
}

static void real_file_close(struct os_file *base)
{
    struct real_file *file = real_file_of(base);
    fd_close(file->direct_fd);
    fd_close(file->fd);
    free(file->base.name);
    free(file);
}

/* pread until `size` bytes or the end (2). Returns an errno. */
static int read_fully(int fd, uint64_t offset, uint8_t *out, size_t size, size_t *out_read)
{
    size_t done = 0;
    while (done < size) {
        size_t part = size - done < TRANSFER_SIZE_MAX ? size - done : TRANSFER_SIZE_MAX;
        ssize_t got = pread(fd, out + done, part, (off_t)(offset + done));
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return errno;
        if (got == 0) break;
        done += (size_t)got;
    }
    *out_read = done;
    return 0;
}

/* The same as far as it is in memory. EAGAIN: not all of it; so says every file system that cannot
 * tell. */
static int read_at_hand(int fd, uint64_t offset, uint8_t *out, size_t size, size_t *out_read)
{
    size_t done = 0;
    while (done < size) {
        struct iovec part = {.iov_base = out + done, .iov_len = size - done};
        ssize_t got = preadv2(fd, &part, 1, (off_t)(offset + done), RWF_NOWAIT);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return errno == EOPNOTSUPP || errno == ENOSYS ? EAGAIN : errno;
        if (got == 0) break;
        done += (size_t)got;
    }
    *out_read = done;
    return 0;
}

/* Has this block of a file no place on the device yet? Allocation is put off until pages are written
 * back; where a process was killed in the midst of a large write, blocks can be left for which it is put
 * off for good, as no page of theirs is dirty. A direct read of such a block is EIO (Linux 6.18, ext4). */
static bool is_unplaced(int fd, uint64_t offset)
{
    union {
        struct fiemap map;
        uint8_t room[sizeof(struct fiemap) + sizeof(struct fiemap_extent)];
    } ask = {.map = {.fm_start = offset, .fm_length = OS_DIRECT_ALIGN, .fm_extent_count = 1}};
    if (ioctl(fd, FS_IOC_FIEMAP, &ask) != 0) return false;
    return ask.map.fm_mapped_extents == 1 &&
           (ask.map.fm_extents[0].fe_flags & FIEMAP_EXTENT_DELALLOC) != 0 &&
           ask.map.fm_extents[0].fe_logical <= offset;
}

/* The device holds nothing of it: zeros, to the end of the file. */
static ssize_t unplaced_bytes(int fd, uint64_t offset, void *out, size_t size)
{
    struct stat s;
    if (fstat(fd, &s) != 0) return -1;
    uint64_t left = (uint64_t)s.st_size > offset ? (uint64_t)s.st_size - offset : 0;
    if (left < size) size = (size_t)left;
    memset(out, 0, size);
    return (ssize_t)size;
}

static ssize_t pread_again(int fd, void *out, size_t size, uint64_t offset)
{
    ssize_t got;
    do {
        got = pread(fd, out, size, (off_t)offset);
    } while (got < 0 && errno == EINTR);
    return got;
}

/* The same from the device, through aligned memory. EINVAL: this file system has no such thing. */
static int read_direct(int fd, uint64_t offset, uint8_t *out, size_t size, size_t *out_read)
{
    size_t bounce_size = size < BOUNCE_SIZE_MAX ? size : BOUNCE_SIZE_MAX;
    void *bounce = aligned_alloc(OS_DIRECT_ALIGN, bounce_size);
    if (bounce == NULL) return ENOMEM;

    int error = 0;
    size_t done = 0, step = bounce_size;
    while (done < size) {
        size_t part = size - done < step ? size - done : step;
        ssize_t got = pread_again(fd, bounce, part, offset + done);
        if (got < 0 && errno == EIO && step > OS_DIRECT_ALIGN) {
            step = OS_DIRECT_ALIGN; /* which block is it? */
            continue;
        }
        int trouble = got < 0 ? errno : 0;
        if (trouble == EIO && is_unplaced(fd, offset + done)) {
            got = unplaced_bytes(fd, offset + done, bounce, part);
        }
        if (got < 0) error = trouble;
        if (got <= 0) break;
        memcpy(out + done, bounce, (size_t)got);
        done += (size_t)got;
        if (got % OS_DIRECT_ALIGN != 0) break; /* the file ends within a block */
    }
    free(bounce);
    if (error == 0) *out_read = done;
    return error;
}

static int read_patiently(struct real_file *file, uint64_t offset, void *out, size_t size,
                          size_t *out_read)
{
    int error = EINVAL;
    if (file->direct_fd >= 0) error = read_direct(file->direct_fd, offset, out, size, out_read);
    if (error != EINVAL) return error;
    /* The next best thing to a direct read: clean pages are dropped and read anew. */
    if ((file->base.flags & OS_DIRECT) != 0) {
        (void)posix_fadvise(file->fd, (off_t)offset, (off_t)size, POSIX_FADV_DONTNEED);
    }
    return read_fully(file->fd, offset, out, size, out_read);
}

static deed_status real_file_read(struct os_file *base, uint64_t offset, void *out, size_t size,
                                  size_t *out_read, struct deed_error *err)
{
    struct real_file *file = real_file_of(base);
    bool haste = os_in_haste();
    int error = haste ? read_at_hand(file->fd, offset, out, size, out_read)
                      : read_patiently(file, offset, out, size, out_read);
    if (error == 0) return DEED_OK;
    if (haste && error == EAGAIN) return DEED_BUSY; /* os.c says of what */
    return deed_fail_errno(err, error, "file %s: cannot read %zu bytes at offset %llu", base->name,
                           size, (unsigned long long)offset);
}

static deed_status real_file_write(struct os_file *base, uint64_t offset, deed_bytes bytes,
                                   struct deed_error *err)
{
    int fd = real_file_of(base)->fd;
    size_t done = 0;
    while (done < bytes.len) {
        size_t part = bytes.len - done;
        if (part > TRANSFER_SIZE_MAX) part = TRANSFER_SIZE_MAX;
        ssize_t put = pwrite(fd, bytes.ptr + done, part, (off_t)(offset + done));
        if (put < 0 && errno == EINTR) continue;
        /* No progress and no error would spin for ever; only a full device can mean it. */
        if (put <= 0) {
            return deed_fail_errno(err, put < 0 ? errno : ENOSPC,
                                   "file %s: cannot write %zu bytes at offset %llu", base->name,
                                   bytes.len, (unsigned long long)offset);
        }
        done += (size_t)put;
    }
    return DEED_OK;
}

static deed_status real_file_sync(struct os_file *base, struct deed_error *err)
{
    if (fdatasync(real_file_of(base)->fd) == 0) return DEED_OK;
    return deed_fail_errno(err, errno, "file %s: cannot sync it", base->name);
}

static deed_status real_file_size(struct os_file *base, uint64_t *out_size, struct deed_error *err)
{
    struct stat about;
    if (fstat(real_file_of(base)->fd, &about) != 0) {
        return deed_fail_errno(err, errno, "file %s: cannot ask its size", base->name);
    }
    *out_size = (uint64_t)about.st_size;
    return DEED_OK;
}

static deed_status real_file_truncate(struct os_file *base, uint64_t size, struct deed_error *err)
{
    int failed;
    do {
        failed = ftruncate(real_file_of(base)->fd, (off_t)size);
    } while (failed != 0 && errno == EINTR);
    if (failed == 0) return DEED_OK;
    return deed_fail_errno(err, errno, "file %s: cannot set its size to %llu", base->name,
                           (unsigned long long)size);
}

/* ---- clock, randomness -------------------------------------------------------------------- */

static int64_t clock_read_ns(clockid_t clock)
{
    struct timespec now;
    int failed = clock_gettime(clock, &now);
    assert(failed == 0); /* only an unknown clock fails */
    (void)failed;
    return (int64_t)now.tv_sec * NS_PER_SECOND + now.tv_nsec;
}

static int64_t real_now_ns(struct os *os)
{
    (void)os;
    return clock_read_ns(CLOCK_REALTIME);
}

static uint64_t real_ticks_ns(struct os *os)
{
    (void)os;
    return (uint64_t)clock_read_ns(CLOCK_MONOTONIC);
}

static void real_random(struct os *os, void *out, size_t size)
{
    (void)os;
    uint8_t *at = out;
    while (size > 0) {
        ssize_t got = getrandom(at, size, 0);
        if (got < 0 && errno == EINTR) continue;
        /* A kernel without it cannot run Debian 12; ids and salts must never be guessable. */
        if (got <= 0) abort();
        at += got;
        size -= (size_t)got;
    }
}

static const struct os_ops real_ops = {
    .dir_open = real_dir_open,
    .dir_close = real_dir_close,
    .dir_sync = real_dir_sync,
    .dir_list = real_dir_list,
    .dir_lock = real_dir_lock,
    .remove = real_remove,
    .rename = real_rename,
    .file_open = real_file_open,
    .file_close = real_file_close,
    .file_read = real_file_read,
    .file_write = real_file_write,
    .file_sync = real_file_sync,
    .file_size = real_file_size,
    .file_truncate = real_file_truncate,
    .now_ns = real_now_ns,
    .ticks_ns = real_ticks_ns,
    .random = real_random,
};
