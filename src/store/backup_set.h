/* backup_set.h - what a backup directory holds: the files of one log up to one position, and the
 * manifest that names them.
 *
 *     TARGET/manifest                      names the set; replaced whole, by rename
 *     TARGET/0000000001.seg.<sha256>       a file of the log under its name and its content's hash
 *     TARGET/manifest.new, *.copy          not finished: they mean nothing
 *     TARGET/lock                          held while a backup is made
 *
 * A file that the manifest names is never written again: a name stands for its content.
 * docs/format/backup.md is normative. */
#ifndef STORE_BACKUP_SET_H
#define STORE_BACKUP_SET_H

#include "base/hash.h"
#include "os/os.h"

#define BACKUP_MANIFEST        "manifest"
#define BACKUP_FILE_NAME_SIZE  64 /* the longest is a sealed segment's, and its NUL */
#define BACKUP_ENTRY_NAME_SIZE (BACKUP_FILE_NAME_SIZE + 1 + 2 * SHA256_SIZE)

struct backup_file {
    char name[BACKUP_FILE_NAME_SIZE]; /* in the log's directory */
    uint64_t size;
    uint8_t hash[SHA256_SIZE];
    bool copied; /* this time; not kept */
};

struct backup_set {
    deed_uuid log_id;
    uint64_t epoch, position;
    int64_t recorded_at_ns, made_at_ns; /* of the newest commit; of the backup */
    uint8_t chain_hash[SHA256_SIZE];    /* of the newest commit */
    uint64_t commits, events;
    struct backup_file *files;
    size_t count, room;
    bool unnamed; /* its manifest was found under the name that it has while it is written */
};

void backup_set_done(struct backup_set *set); /* accepts a zeroed one */
/* A new entry, zeroed but for its name; valid until the next. NULL: no memory. */
struct backup_file *backup_set_add(struct backup_set *set, const char *name);
const struct backup_file *backup_set_find(const struct backup_set *set, const char *name);
uint64_t backup_set_size(const struct backup_set *set); /* bytes of its files */

/* "0000000001.seg", hash → "0000000001.seg.<64 hex digits>", and back. false: not such a name. */
void backup_entry_name(const char *name, const uint8_t hash[SHA256_SIZE],
                       char out[BACKUP_ENTRY_NAME_SIZE]);
bool backup_entry_parse(const char *entry, struct backup_file *out);
/* A file that a backup made, finished or not, or a manifest that was not finished. */
bool backup_is_ours(const char *name);

/* Read the manifest into a zeroed set; where it is damaged, the one that was to replace it, if that is
 * whole (docs/format/backup.md).
 *
 *   DEED_NOT_FOUND  there is none. DEED_CORRUPT: it is damaged. DEED_TOO_NEW: a newer format.
 *   DEED_IO, DEED_NO_MEMORY */
DEED_MUST_CHECK deed_status backup_set_load(struct os_dir *dir, struct backup_set *set,
                                            struct deed_error *err);
/* Give one that is `unnamed` its name, durably, before anything else is written. DEED_IO, … (os_replace) */
DEED_MUST_CHECK deed_status backup_set_name(struct os_dir *dir, struct backup_set *set,
                                            struct deed_error *err);
/* Replace it, durably, and see that the device has it. On failure either one may be there. */
DEED_MUST_CHECK deed_status backup_set_save(struct os_dir *dir, const struct backup_set *set,
                                            struct deed_error *err);

/* ---- files ---------------------------------------------------------------------------------- */

/* Memory for copying, and whom to tell. */
struct backup_work {
    uint8_t *buffer;
    bool (*progress)(void *context, uint64_t done, uint64_t all); /* false: stop (DEED_STOPPED) */
    void *context;
    uint64_t done, all; /* bytes */
    /* What cannot be read of a file that is copied or hashed becomes zeros: for files in which losses
     * may have been accepted. Following the chain shows whether it mattered. */
    bool forgiving;
};
DEED_MUST_CHECK deed_status backup_work_init(struct backup_work *work, struct deed_error *err);
void backup_work_done(struct backup_work *work); /* accepts a zeroed one */

/* Copy up to `size_max` bytes of `from` into the file `name`, made or overwritten, and sync it: its
 * name is not durable yet. `out` gets size and hash of what was copied.
 *
 *   DEED_FULL  the disk that is copied to has no room.
 *   DEED_IO, DEED_STOPPED, DEED_NO_MEMORY */
DEED_MUST_CHECK deed_status backup_copy(struct backup_work *work, struct os_file *from,
                                        uint64_t size_max, struct os_dir *to, const char *name,
                                        struct backup_file *out, struct deed_error *err);

/* Size and hash of up to `size_max` bytes of a file that is open (not with OS_DIRECT, unless
 * size_max is a multiple of OS_DIRECT_ALIGN or DEED_NONE). */
DEED_MUST_CHECK deed_status backup_hash(struct backup_work *work, struct os_file *file,
                                        uint64_t size_max, struct backup_file *out,
                                        struct deed_error *err);

/* Read the file `name` in `dir` from the device and compare it with size and hash of `wanted`.
 * DEED_CORRUPT: it is missing, cannot be read, or is not that. */
DEED_MUST_CHECK deed_status backup_check(struct backup_work *work, struct os_dir *dir,
                                         const char *name, const struct backup_file *wanted,
                                         struct deed_error *err);

#endif
