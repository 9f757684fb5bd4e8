/* os.h - the only way to the disk, the clock and randomness.
 *
 * `struct os` is a table of functions: os_real() is this machine; os_sim.h is a machine made from
 * a seed, with a disk that loses, tears and reorders what was not synced. The engine never calls
 * the system past this header, so a test can put it on the other machine and crash that.
 *
 * Names are plain file names inside an open directory: a slash in one, "", "." and ".." are
 * DEED_MISUSE. Failures: DEED_IO, DEED_FULL, DEED_NOT_FOUND, DEED_NO_MEMORY, with the file's name
 * in the message. Out arguments are written only on success. */
#ifndef OS_OS_H
#define OS_OS_H

#include "base/error.h"

struct os;
struct os_dir;
struct os_file;

/* The machine this process runs on. Never freed. */
struct os *os_real(void);

/* ---- directories -------------------------------------------------------------------------- */

/* Open a directory; with `create` make it and its missing parents, durably. Its path is kept for
 * messages. */
DEED_MUST_CHECK deed_status os_dir_open(struct os *os, const char *path, bool create,
                                        struct os_dir **out_dir, struct deed_error *err);
/* A directory inside another; with `create` made durably too. */
DEED_MUST_CHECK deed_status os_dir_open_in(struct os_dir *parent, const char *name, bool create,
                                           struct os_dir **out_dir, struct deed_error *err);
/* The directory that a file lies in, and where in `path` its name begins. DEED_MISUSE: too long. */
DEED_MUST_CHECK deed_status os_dir_open_of(struct os *os, const char *path, struct os_dir **out_dir,
                                           const char **out_name, struct deed_error *err);
void os_dir_close(struct os_dir *dir); /* accepts NULL; releases its lock */
const char *os_dir_path(const struct os_dir *dir);

/* After this, names made, renamed and removed in it survive a power cut. */
DEED_MUST_CHECK deed_status os_dir_sync(struct os_dir *dir, struct deed_error *err);

/* Call `each` for every name in it ("." and ".." left out), in no order. `each` may remove and
 * rename what it is given. */
DEED_MUST_CHECK deed_status os_dir_list(struct os_dir *dir,
                                        void (*each)(void *context, const char *name),
                                        void *context, struct deed_error *err);

/* Take the directory for this handle until it is closed, by a lock on the file "lock" inside it.
 * DEED_LOCKED: another process has it, or another handle of this one; the message names the
 * holder's process id. The lock dies with its process, so a crash leaves none behind. */
DEED_MUST_CHECK deed_status os_dir_lock(struct os_dir *dir, struct deed_error *err);

/* DEED_NOT_FOUND if it is not there. */
DEED_MUST_CHECK deed_status os_remove(struct os_dir *dir, const char *name, struct deed_error *err);
/* Replaces `to` atomically. */
DEED_MUST_CHECK deed_status os_rename(struct os_dir *dir, const char *from, const char *to,
                                      struct deed_error *err);
/* The same, durably (replace.c): a power cut leaves the one content or the other, and where it leaves the
 * new one, every name that was made before is there, so it may speak of other files. (A file system may
 * give the blocks of a replaced file away before the name is durable: ext4 with data=writeback or
 * without a journal. The old name then comes back over another file's bytes. While the file is open it
 * does not. Should the process be killed in between, and the power go soon after, `from` has the new
 * content.) After a failure either content may be there. DEED_IO, DEED_FULL, DEED_NO_MEMORY. */
DEED_MUST_CHECK deed_status os_replace(struct os_dir *dir, const char *from, const char *to,
                                       struct deed_error *err);

/* ---- files -------------------------------------------------------------------------------- */

enum os_open_flags {
    OS_READ = 0,
    OS_WRITE = 1,
    OS_CREATE = 2,    /* make it if missing (its name is durable after os_dir_sync) */
    OS_EXCLUSIVE = 4, /* with OS_CREATE: DEED_CONFLICT if it is there */
    OS_DIRECT = 8,    /* reads come from the device, not from a cache that may lie after a failed
                       * sync; falls back to cached reads where the file system has no such thing */
};

/* What an OS_DIRECT read's offset and size must be multiples of. */
#define OS_DIRECT_ALIGN 4096

/* DEED_NOT_FOUND: it is not there and OS_CREATE was not asked for. OS_CREATE needs OS_WRITE, and
 * OS_EXCLUSIVE needs OS_CREATE: DEED_MISUSE otherwise. */
DEED_MUST_CHECK deed_status os_file_open(struct os_dir *dir, const char *name, unsigned flags,
                                         struct os_file **out_file, struct deed_error *err);
void os_file_close(struct os_file *file); /* accepts NULL; syncs nothing */

/* Read up to `size` bytes; fewer only at the end of the file. With OS_DIRECT, offset and size must
 * be multiples of OS_DIRECT_ALIGN (the memory need not be aligned), else DEED_MISUSE. Safe from
 * many threads. */
DEED_MUST_CHECK deed_status os_file_read(struct os_file *file, uint64_t offset, void *out,
                                         size_t size, size_t *out_read, struct deed_error *err);
/* Write all of it. On failure any part may have been written. A handle without OS_WRITE is
 * DEED_MISUSE, here and in truncate. */
DEED_MUST_CHECK deed_status os_file_write(struct os_file *file, uint64_t offset, deed_bytes bytes,
                                          struct deed_error *err);
/* fdatasync: what was written, and the size needed to read it, survives. After a failure nothing
 * may be assumed about unsynced bytes, and calling it again proves nothing. */
DEED_MUST_CHECK deed_status os_file_sync(struct os_file *file, struct deed_error *err);
DEED_MUST_CHECK deed_status os_file_size(struct os_file *file, uint64_t *out_size,
                                         struct deed_error *err);
DEED_MUST_CHECK deed_status os_file_truncate(struct os_file *file, uint64_t size,
                                             struct deed_error *err);

/* ---- threads in haste ----------------------------------------------------------------------- */

/* For a thread that must not wait for the disk: from here to os_haste_end its reads take what is in
 * memory, at most `size_max` bytes in all. A read that would wait, or goes past that, is DEED_BUSY,
 * and nothing is wrong with the file: the caller gives up and does the work again on a thread that
 * may wait. Nothing but reads is affected. Not nested. */
void os_haste_begin(size_t size_max);
/* true: a read was refused, so whatever came of it is to be thrown away. */
bool os_haste_end(void);
/* This thread is in haste: file_read takes only what is in memory, else DEED_BUSY. */
bool os_in_haste(void);
/* A read of this thread was refused since os_haste_begin. */
bool os_haste_refused(void);
/* For who finds that something else than a read would keep this thread in haste waiting, as another
 * thread's look at the disk: counts as a read that was refused. DEED_BUSY. */
deed_status os_haste_refuse(const char *what, struct deed_error *err);

/* ---- clock, randomness -------------------------------------------------------------------- */

int64_t os_now_ns(struct os *os);    /* UTC since 1970; may jump */
uint64_t os_ticks_ns(struct os *os); /* never goes back; only differences mean anything */
void os_random(struct os *os, void *out, size_t size); /* unpredictable; cannot fail */

/* ---- for implementations ------------------------------------------------------------------ */

/* os.c checks names, flags, offsets and sizes; an implementation sees only valid ones. */

struct os_ops {
    deed_status (*dir_open)(struct os *, struct os_dir *parent, const char *path, bool create,
                            struct os_dir **out, struct deed_error *);
    void (*dir_close)(struct os_dir *);
    deed_status (*dir_sync)(struct os_dir *, struct deed_error *);
    deed_status (*dir_list)(struct os_dir *, void (*each)(void *, const char *), void *,
                            struct deed_error *);
    deed_status (*dir_lock)(struct os_dir *, struct deed_error *);
    deed_status (*remove)(struct os_dir *, const char *, struct deed_error *);
    deed_status (*rename)(struct os_dir *, const char *, const char *, struct deed_error *);
    deed_status (*file_open)(struct os_dir *, const char *, unsigned, struct os_file **,
                             struct deed_error *);
    void (*file_close)(struct os_file *);
    deed_status (*file_read)(struct os_file *, uint64_t, void *, size_t, size_t *,
                             struct deed_error *);
    deed_status (*file_write)(struct os_file *, uint64_t, deed_bytes, struct deed_error *);
    deed_status (*file_sync)(struct os_file *, struct deed_error *);
    deed_status (*file_size)(struct os_file *, uint64_t *, struct deed_error *);
    deed_status (*file_truncate)(struct os_file *, uint64_t, struct deed_error *);
    int64_t (*now_ns)(struct os *);
    uint64_t (*ticks_ns)(struct os *);
    void (*random)(struct os *, void *, size_t);
};

/* Every implementation's structs begin with these. */
struct os {
    const struct os_ops *ops;
};
struct os_dir {
    struct os *os;
    char *path;
};
struct os_file {
    struct os *os;
    char *name; /* with its directory's path, for messages */
    unsigned flags;
};

/* ---- for tests ---------------------------------------------------------------------------- */

/* Whoever changes the disk passes a point before and after it: see os/failpoint.h. */
#if defined(DEED_FAILPOINTS) && !defined(OS_WITHOUT_FAILPOINTS)
#include "os/failpoint.h"
#define os_dir_sync(...)      FAILPOINTS_AROUND("dir-sync", (os_dir_sync)(__VA_ARGS__))
#define os_remove(...)        FAILPOINTS_AROUND("remove", (os_remove)(__VA_ARGS__))
#define os_rename(...)        FAILPOINTS_AROUND("rename", (os_rename)(__VA_ARGS__))
#define os_file_write(...)    FAILPOINTS_AROUND("write", (os_file_write)(__VA_ARGS__))
#define os_file_sync(...)     FAILPOINTS_AROUND("sync", (os_file_sync)(__VA_ARGS__))
#define os_file_truncate(...) FAILPOINTS_AROUND("truncate", (os_file_truncate)(__VA_ARGS__))
#endif

#endif
