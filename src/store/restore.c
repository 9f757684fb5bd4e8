/* restore.c - make a data directory of a backup, in a new epoch.
 *
 *     1  DATA/restoring             says that this is not a store yet
 *     2  DATA/log/…                 every file, hashed while it is copied, synced, read again
 *     3  DATA/log/0000000004.seg    a new segment behind the others: the new epoch is in its header,
 *        DATA/log/marks             and in a mark that names this segment
 *     4  the log's own code follows the chain
 *     5  DATA/restoring is removed
 *
 * (1) While the marker is there store_open refuses the directory, so what a crash leaves of a
 *     restore never looks like a store. Restoring again begins from nothing.
 * (2) The marker goes when all else is durable and was checked.
 * (3) Two restores of the same backup must not share an epoch: a token of the one would pass in the
 *     other. So the epoch does not just grow by one: it is the time in milliseconds, as long as that
 *     is more.
 *
 * Normative: docs/format/backup.md */
#include "store/backup.h"

#include "base/planted.h"
#include "log/segment.h"
#include "store/backup_check.h"

#include <stdio.h>

struct restoring {
    struct os *os;
    struct os_dir *backup, *data, *log;
    struct backup_set set;
    struct backup_work work;
    struct deed_error *err;
    uint32_t last_number; /* of the segments that are put back */
    bool begun;           /* the marker is there, and surely durable */
};

/* ---- the directory -------------------------------------------------------------------------- */

struct directory_look {
    bool marker, other, log;
    char name[64]; /* of something else */
};

static void directory_each(void *context, const char *name)
{
    struct directory_look *look = context;
    if (strcmp(name, RESTORE_MARKER) == 0) {
        look->marker = true;
    } else if (strcmp(name, LOG_DIR_NAME) == 0) {
        look->log = true;
    } else if (strcmp(name, "lock") != 0) {
        look->other = true;
        (void)snprintf(look->name, sizeof look->name, "%.63s", name);
    }
}

/* Empty, but for what an unfinished restore left? */
static deed_status directory_look(struct restoring *r, const char *path)
{
    struct directory_look look = {0};
    deed_status status = os_dir_list(r->data, directory_each, &look, r->err);
    if (status != DEED_OK) return status;
    if (look.other || (look.log && !look.marker)) {
        return deed_fail(r->err, DEED_CONFLICT,
                         "%s is not empty (it has %s): restore into a new directory", path,
                         look.other ? look.name : LOG_DIR_NAME);
    }
    return DEED_OK;
}

/* Looked at before the lock, which makes a file, and behind it: until then others could work here. */
static deed_status directory_take(struct restoring *r, const char *path)
{
    deed_status status = os_dir_open(r->os, path, true, &r->data, r->err);
    if (status == DEED_OK) status = directory_look(r, path);
    if (status == DEED_OK) status = os_dir_lock(r->data, r->err);
    return status == DEED_OK ? directory_look(r, path) : status;
}

static deed_status marker_write(struct restoring *r)
{
    char text[128];
    struct os_file *file = NULL;
    int size = snprintf(text, sizeof text, "a restore up to position %llu is not finished\n",
                        (unsigned long long)r->set.position);
    if (PLANTED(RESTORE_WITHOUT_MARKER)) return DEED_OK;
    deed_status status =
        os_file_open(r->data, RESTORE_MARKER, OS_WRITE | OS_CREATE, &file, r->err);
    if (status == DEED_OK) {
        status = os_file_write(file, 0, (deed_bytes){(const uint8_t *)text, (size_t)size}, r->err);
    }
    if (status == DEED_OK) status = os_file_sync(file, r->err);
    os_file_close(file);
    if (status == DEED_OK) status = os_dir_sync(r->data, r->err);
    r->begun = status == DEED_OK;
    return status;
}

static deed_status marker_remove(struct restoring *r)
{
    if (PLANTED(RESTORE_WITHOUT_MARKER)) return DEED_OK;
    r->begun = false; /* from here on it may be a store: nothing of it is taken away any more */
    deed_status status = os_remove(r->data, RESTORE_MARKER, r->err);
    return status == DEED_OK ? os_dir_sync(r->data, r->err) : status;
}

struct emptying {
    struct os_dir *dir;
    struct deed_error *err;
    deed_status status;
};

static void remove_each(void *context, const char *name)
{
    struct emptying *e = context;
    if (e->status == DEED_OK) e->status = os_remove(e->dir, name, e->err);
}

static deed_status log_empty(struct restoring *r)
{
    struct emptying e = {.dir = r->log, .err = r->err};
    deed_status status = os_dir_list(r->log, remove_each, &e, r->err);
    if (status == DEED_OK) status = e.status;
    return status == DEED_OK ? os_dir_sync(r->log, r->err) : status;
}

/* ---- the files ------------------------------------------------------------------------------ */

/* A segment in which nothing stands yet: the new epoch's takes its number. */
static bool is_empty_segment(const struct backup_file *file)
{
    uint32_t number;
    return segment_name_parse(file->name, &number) && file->size <= SEGMENT_HEADER_SIZE;
}

static void number_note(struct restoring *r, const char *name)
{
    uint64_t number = 0;
    for (size_t i = 0; i < 10; i++) {
        if (name[i] < '0' || name[i] > '9') return; /* not a segment's */
        number = number * 10 + (uint64_t)(name[i] - '0');
    }
    if (number <= UINT32_MAX && number > r->last_number) r->last_number = (uint32_t)number;
}

static deed_status file_restore(struct restoring *r, const struct backup_file *file)
{
    char entry[BACKUP_ENTRY_NAME_SIZE];
    struct os_file *from = NULL;
    struct backup_file copied = {0};
    backup_entry_name(file->name, file->hash, entry);
    deed_status status = os_file_open(r->backup, entry, OS_READ, &from, r->err);
    if (status == DEED_NOT_FOUND) {
        return deed_fail(r->err, DEED_CORRUPT, "%s is missing", entry);
    }
    if (status != DEED_OK) return status;
    status = backup_copy(&r->work, from, DEED_NONE, r->log, file->name, &copied, r->err);
    os_file_close(from);
    if (status != DEED_OK || PLANTED(RESTORE_UNCHECKED)) return status;
    if (copied.size != file->size || memcmp(copied.hash, file->hash, SHA256_SIZE) != 0) {
        return deed_fail(r->err, DEED_CORRUPT, "%s is damaged: its hash does not match", entry);
    }
    return DEED_OK;
}

static deed_status files_restore(struct restoring *r)
{
    deed_status status = DEED_OK;
    r->work.all = 3 * backup_set_size(&r->set);
    for (size_t i = 0; status == DEED_OK && i < r->set.count; i++) {
        const struct backup_file *file = &r->set.files[i];
        if (is_empty_segment(file)) continue;
        number_note(r, file->name);
        status = file_restore(r, file);
    }
    return status == DEED_OK ? os_dir_sync(r->log, r->err) : status;
}

/* What was written is on the device, and is that. */
static deed_status files_check(struct restoring *r)
{
    deed_status status = DEED_OK;
    for (size_t i = 0; status == DEED_OK && i < r->set.count; i++) {
        const struct backup_file *file = &r->set.files[i];
        if (is_empty_segment(file) || PLANTED(RESTORE_UNCHECKED)) continue;
        status = backup_check(&r->work, r->log, file->name, file, r->err);
        if (status != DEED_CORRUPT) continue;
        deed_wrap(r->err, "reading the copy again");
        if (r->err != NULL) r->err->status = DEED_IO;
        status = DEED_IO;
    }
    return status;
}

/* ---- the new epoch -------------------------------------------------------------------------- */

static uint64_t epoch_next(struct restoring *r) /* (3) */
{
    uint64_t next = r->set.epoch + 1;
    int64_t now_ms = os_now_ns(r->os) / 1000000;
    if (PLANTED(RESTORE_KEEPS_EPOCH)) return r->set.epoch;
    if (now_ms < 0 || (uint64_t)now_ms <= next || PLANTED(RESTORE_EPOCH_PLUS_ONE)) return next;
    return (uint64_t)now_ms;
}

static deed_status epoch_begin(struct restoring *r)
{
    struct mark mark;
    struct os_file *file = NULL;
    /* The backup's own mark holds the log's secret, as every segment does. */
    deed_status status = mark_load(r->log, &mark, r->err);
    if (status != DEED_OK) return status;
    if (mark.position != r->set.position || r->last_number == UINT32_MAX) {
        return deed_fail(r->err, DEED_CORRUPT, "the backup's mark is at position %llu, its manifest "
                                               "at %llu",
                         (unsigned long long)mark.position, (unsigned long long)r->set.position);
    }
    r->set.epoch = epoch_next(r);
    struct segment_header header = {.log_id = r->set.log_id,
                                    .epoch = r->set.epoch,
                                    .number = r->last_number + 1,
                                    .first_position = r->set.position + 1,
                                    .created_at_ns = os_now_ns(r->os)};
    memcpy(header.previous, r->set.chain_hash, SHA256_SIZE);
    memcpy(header.secret, mark.secret, COMMIT_SECRET_SIZE);
    status = segment_create(r->log, &header, &file, r->err);
    os_file_close(file);
    if (status != DEED_OK || PLANTED(RESTORE_WITHOUT_MARK)) return status;
    /* Nothing is in that segment. If its header rots nobody could tell it from one that was never
     * made, but for the mark: the epoch would be the old one again. */
    mark.epoch = header.epoch;
    mark.sequence++;
    mark.segment = header.number;
    mark.offset = SEGMENT_HEADER_SIZE;
    status = mark_open(r->log, &file, r->err);
    if (status != DEED_OK) return status;
    status = mark_write(file, &mark, r->err);
    os_file_close(file);
    return status;
}

/* ---- the whole ------------------------------------------------------------------------------ */

static deed_status restore(struct restoring *r, const char *backup, const char *directory)
{
    deed_status status = os_dir_open(r->os, backup, false, &r->backup, r->err);
    if (status == DEED_OK) status = backup_set_load(r->backup, &r->set, r->err);
    if (status == DEED_OK && (r->set.position == 0 || r->set.position >= POSITION_MAX)) {
        status = deed_fail(r->err, DEED_CORRUPT, "the manifest says position %llu",
                           (unsigned long long)r->set.position);
    }
    if (status == DEED_OK) status = directory_take(r, directory);
    if (status == DEED_OK) status = marker_write(r);
    if (status == DEED_OK) {
        status = os_dir_open_in(r->data, LOG_DIR_NAME, true, &r->log, r->err);
    }
    if (status == DEED_OK) status = log_empty(r);
    if (status == DEED_OK) status = files_restore(r);
    if (status == DEED_OK && PLANTED(RESTORE_MARKER_EARLY)) status = marker_remove(r);
    if (status == DEED_OK) status = files_check(r);
    if (status == DEED_OK) status = epoch_begin(r);
    if (status != DEED_OK) return status;
    status = backup_check_chain(r->os, r->data, false, r->set.commits > 0, &r->set, &r->work, NULL,
                                r->err);
    if (status == DEED_OK && !PLANTED(RESTORE_MARKER_EARLY)) status = marker_remove(r); /* (2) */
    return status;
}

/* What cannot become a store gives its room back; the marker stays, so that nobody takes the
 * directory for one. */
static void give_up(struct restoring *r)
{
    struct emptying e = {.dir = r->log};
    if (r->begun && r->log != NULL) (void)!os_dir_list(r->log, remove_each, &e, NULL);
}

deed_status store_restore(struct os *os, const char *backup, const char *directory,
                          const struct deed_backup_options *options,
                          struct deed_backup_report *out_report, struct deed_error *err)
{
    struct restoring r = {.os = os, .err = err};
    deed_status status = backup_work_init(&r.work, err);
    if (status == DEED_OK && options != NULL) {
        r.work.progress = options->progress;
        r.work.context = options->context;
    }
    if (status == DEED_OK) status = restore(&r, backup, directory);
    if (status == DEED_OK && out_report != NULL) {
        *out_report = backup_report_of(&r.set);
        out_report->copied_count = r.set.count;
        out_report->copied_size = backup_set_size(&r.set);
    }
    if (status != DEED_OK) {
        give_up(&r);
        deed_wrap(err, "restore from %s to %s", backup, directory);
    }
    backup_work_done(&r.work);
    backup_set_done(&r.set);
    os_dir_close(r.log);
    os_dir_close(r.data);
    os_dir_close(r.backup);
    return status;
}
