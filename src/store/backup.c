/* backup.c - copy the log while it runs, up to one published position.
 *
 *     DATA/log                                        TARGET
 *     0000000001.…00001.2.sealed   whole        ──►   0000000001.…00001.2.sealed.<sha256>
 *     0000000002.seg               whole        ──►   0000000002.seg.<sha256>
 *     0000000003.seg  [commits | being written] ──►   0000000003.seg.<sha256>
 *                     up to the head                  marks.<sha256>   made here: claims the head
 *     losses                                    ──►   losses.<sha256>
 *                                               last  manifest
 *
 * (1) The head (position, place, hash) is of one moment, and the file that holds it is opened before
 *     anything else: what is appended, sealed or removed later changes nothing of the copy. (If that
 *     segment was closed and sealed before anything was published behind it, it is whole.) Segments
 *     before it are whole in each of their states; one that is gone by its name was sealed or
 *     rewritten, and is looked up again.
 * (2) The older backup is whole at every moment: files with other content have other names, the
 *     manifest is replaced last, and what only the older one needs is removed after that.
 * (3) A file is taken for the one that is there already when it was hashed now and has that name,
 *     or, if it is sealed, when its last bytes, which hold a hash of all before, are the same. Unless
 *     the older backup names it, it gets its name once more, so that there is something to sync.
 * (4) Before the manifest names it, a file was read again from the device.
 * (5) A directory that changes while it is listed may show neither the old name of a segment nor the
 *     new one: only a segment of which the log knows no file has none.
 *
 * Normative: docs/format/backup.md */
#include "store/backup.h"

#include "base/planted.h"
#include "base/uuid.h"
#include "log/losses.h"
#include "log/sealed.h"
#include "log/segment.h"
#include "store/backup_check.h"
#include "store/backup_view.h"
#include "store/store_state.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

/* Each time a file is gone the log has got on by a step of sealing or rewriting. It does not outrun
 * a copy that often unless something is wrong. */
#define TRIES_MAX 64

/* What a sealed segment's file is compared by: its footers have a hash of all before them. */
#define TAIL_SIZE SEALED_FOOTERS_SIZE

/* A segment's file as the log's directory lists it. */
struct source {
    uint32_t number, generation; /* of a sealed one, from 1; 0: not sealed */
    char name[BACKUP_FILE_NAME_SIZE];
};

struct source_list {
    struct source *ptr;
    size_t count, room;
    bool no_memory, has_losses;
};

struct making {
    struct store *store;
    const struct deed_backup_options *options;
    struct os_dir *source, *target;
    struct source_list sources;
    struct log_head head;
    struct os_file *head_file;
    struct backup_set old;   /* what the manifest names now; empty: nothing that can be read */
    bool old_damaged;        /* there is a manifest, and it cannot */
    struct backup_set there; /* files with a hash in their name, of whatever backup */
    struct backup_set set;   /* what the new one will name */
    struct backup_work work;
    uint64_t copied_count, copied_size, removed_count;
    struct deed_error *err;
};

static deed_status no_memory(struct deed_error *err)
{
    return deed_fail(err, DEED_NO_MEMORY, "backup: out of memory");
}

/* ---- what is there -------------------------------------------------------------------------- */

/* "0000000007.seg", "0000000007.00000000000000040961.2.sealed". */
static bool source_parse(const char *name, struct source *out)
{
    struct sealed_name sealed;
    bool unfinished = false;
    *out = (struct source){0};
    if (strlen(name) >= sizeof out->name) return false;
    (void)snprintf(out->name, sizeof out->name, "%s", name);
    if (segment_name_parse(name, &out->number)) return true;
    if (!sealed_name_parse(name, &sealed, &unfinished) || unfinished) return false;
    out->number = sealed.number;
    out->generation = sealed.generation;
    return true;
}

static void source_add(void *context, const char *name)
{
    struct source_list *list = context;
    struct source source;
    if (strcmp(name, LOSSES_FILE) == 0) list->has_losses = true;
    if (!source_parse(name, &source)) return;
    if (list->count == list->room) {
        size_t room = list->room == 0 ? 64 : list->room * 2;
        struct source *grown = realloc(list->ptr, room * sizeof *grown);
        if (grown == NULL) {
            list->no_memory = true;
            return;
        }
        list->ptr = grown;
        list->room = room;
    }
    list->ptr[list->count++] = source;
}

static int source_order(const void *a, const void *b)
{
    const struct source *x = a;
    const struct source *y = b;
    if (x->number != y->number) return x->number < y->number ? -1 : 1;
    return (x->generation > y->generation) - (x->generation < y->generation);
}

static deed_status sources_list(struct making *m)
{
    m->sources.count = 0;
    m->sources.has_losses = false;
    deed_status status = os_dir_list(m->source, source_add, &m->sources, m->err);
    if (status == DEED_OK && m->sources.no_memory) status = no_memory(m->err);
    if (status == DEED_OK && m->sources.count > 0) {
        qsort(m->sources.ptr, m->sources.count, sizeof *m->sources.ptr, source_order);
    }
    return status;
}

/* The file of a segment that the log reads, or else (the log went on) the newest; of one that is written
 * to there is no other. NULL: none. */
static const struct source *source_find(const struct making *m, uint32_t number)
{
    struct log_segment_info info;
    const struct source *found = NULL;
    bool known = log_segment_info(m->store->log, number, &info, NULL) == DEED_OK;
    for (size_t i = 0; i < m->sources.count; i++) {
        if (m->sources.ptr[i].number != number) continue;
        found = &m->sources.ptr[i];
        if (known && found->generation == info.generation) break;
    }
    return found;
}

/* The head's segment is not written to any more, and sealed: then it ends with the head, if that is
 * still the same after the look. A segment is closed when all of it is published. */
static bool head_is_sealed(struct making *m)
{
    struct log_head now;
    const struct source *source = source_find(m, m->head.segment);
    log_get_head(m->store->log, &now);
    return source != NULL && source->generation > 0 && now.position == m->head.position &&
           now.segment == m->head.segment;
}

/* (1) */
static deed_status head_take(struct making *m)
{
    for (int tries = 0; tries < TRIES_MAX; tries++) {
        char name[SEGMENT_NAME_SIZE];
        log_get_head(m->store->log, &m->head);
        if (m->head.segment == 0) {
            return deed_fail(m->err, DEED_CORRUPT, "the log has no segment");
        }
        segment_name(m->head.segment, name);
        deed_status status = os_file_open(m->source, name, OS_READ, &m->head_file, m->err);
        if (status != DEED_OK && status != DEED_NOT_FOUND) return status;
        bool open = status == DEED_OK;
        status = sources_list(m);
        if (status != DEED_OK || open || head_is_sealed(m)) return status;
        if (m->store->options.read_only) break; /* it does not see what the writer does */
    }
    return deed_fail(m->err, DEED_BUSY, "the log changes too fast to be copied: try again");
}

/* ---- the target ----------------------------------------------------------------------------- */

struct target_list {
    struct making *m;
    bool is_data, no_memory;
};

static void target_each(void *context, const char *name)
{
    struct target_list *list = context;
    struct backup_file entry;
    if (strcmp(name, "log") == 0 || strcmp(name, MARK_FILE) == 0) list->is_data = true;
    if (!backup_entry_parse(name, &entry)) return;
    struct backup_file *file = backup_set_add(&list->m->there, entry.name);
    if (file == NULL) {
        list->no_memory = true;
    } else {
        memcpy(file->hash, entry.hash, SHA256_SIZE);
    }
}

/* A damaged manifest is none: what its files are worth shows when they are read. */
static deed_status target_open(struct making *m, const char *path)
{
    struct target_list list = {.m = m};
    struct deed_error why = {0};
    deed_status status = os_dir_open(m->store->os, path, true, &m->target, m->err);
    if (status == DEED_OK) status = os_dir_list(m->target, target_each, &list, m->err);
    if (status == DEED_OK && list.is_data) {
        return deed_fail(m->err, DEED_CONFLICT, "%s is a data directory: a backup needs its own",
                         path);
    }
    if (status == DEED_OK && list.no_memory) status = no_memory(m->err);
    if (status == DEED_OK) status = os_dir_lock(m->target, m->err);
    if (status != DEED_OK) return status;
    status = backup_set_load(m->target, &m->old, &why);
    m->old_damaged = status == DEED_CORRUPT;
    if (status == DEED_NOT_FOUND || status == DEED_CORRUPT) return DEED_OK;
    if (status != DEED_OK && m->err != NULL) *m->err = why;
    return status == DEED_OK ? backup_set_name(m->target, &m->old, m->err) : status;
}

/* The newest commit of the older backup must be in this log, unless the log was restored since. */
static deed_status check_history(struct making *m)
{
    const struct backup_set *old = &m->old;
    struct commit commit;
    struct log_reader *reader = log_reader_create(m->store->log);
    if (reader == NULL) return no_memory(m->err);
    deed_status status = log_reader_load(reader, old->position, &commit, NULL, NULL);
    bool other = status == DEED_OK &&
                 commit.first_position + commit.event_count - 1 == old->position &&
                 memcmp(commit.hash, old->chain_hash, SHA256_SIZE) != 0;
    log_reader_destroy(reader);
    if (!other) return DEED_OK; /* what cannot be read is found when it is copied */
    return deed_fail(m->err, DEED_CONFLICT,
                     "%s holds a backup with another history up to position %" PRIu64
                     ": this data directory and the one it was made of went different ways; "
                     "use another directory",
                     os_dir_path(m->target), old->position);
}

static deed_status check_old(struct making *m)
{
    const struct backup_set *old = &m->old;
    struct log *log = m->store->log;
    if (old->count == 0) return DEED_OK;
    if (!uuid_equal(old->log_id, log_id(log))) {
        char theirs[UUID_TEXT_SIZE + 1], ours[UUID_TEXT_SIZE + 1];
        uuid_format(old->log_id, theirs);
        uuid_format(log_id(log), ours);
        return deed_fail(m->err, DEED_CONFLICT,
                         "%s holds a backup of log %s, this is %s: each needs "
                         "a directory of its own",
                         os_dir_path(m->target), theirs, ours);
    }
    bool later = old->epoch > log_epoch(log) ||
                 (old->epoch == log_epoch(log) && old->position > m->head.position);
    if (later) {
        return deed_fail(m->err, DEED_CONFLICT,
                         "%s holds a backup of a later state (epoch %" PRIu64 ", position %" PRIu64
                         ") than this log's (epoch %" PRIu64 ", position %" PRIu64
                         "): use another directory",
                         os_dir_path(m->target), old->epoch, old->position, log_epoch(log),
                         m->head.position);
    }
    return old->epoch == log_epoch(log) ? check_history(m) : DEED_OK;
}

/* ---- taking a file -------------------------------------------------------------------------- */

/* Is a file of this name and content there? */
static bool is_there(const struct making *m, const struct backup_file *wanted)
{
    for (size_t i = 0; i < m->there.count; i++) {
        const struct backup_file *f = &m->there.files[i];
        if (strcmp(f->name, wanted->name) != 0) continue;
        if (memcmp(f->hash, wanted->hash, SHA256_SIZE) == 0) return true;
    }
    return false;
}

static void forget_there(struct making *m, const struct backup_file *unwanted)
{
    for (size_t i = 0; i < m->there.count; i++) {
        struct backup_file *f = &m->there.files[i];
        if (strcmp(f->name, unwanted->name) != 0) continue;
        if (memcmp(f->hash, unwanted->hash, SHA256_SIZE) == 0) f->name[0] = '\0';
    }
}

static deed_status tail_read(struct os_file *file, uint64_t size, uint8_t out[TAIL_SIZE],
                             size_t *out_len, struct deed_error *err)
{
    uint64_t from = size < TAIL_SIZE ? 0 : size - TAIL_SIZE;
    return os_file_read(file, from, out, TAIL_SIZE, out_len, err);
}

/* (3), for a sealed segment: is the candidate the file? `out` gets size and hash if it is. */
static deed_status same_tail(struct making *m, struct os_file *file,
                             const struct backup_file *candidate, struct backup_file *out,
                             bool *out_same)
{
    char entry[BACKUP_ENTRY_NAME_SIZE];
    uint8_t ours[TAIL_SIZE], theirs[TAIL_SIZE];
    uint64_t our_size = 0, their_size = 0;
    size_t our_len = 0, their_len = 0;
    struct os_file *there = NULL;
    *out_same = false;
    deed_status status = os_file_size(file, &our_size, m->err);
    if (status == DEED_OK) status = tail_read(file, our_size, ours, &our_len, m->err);
    if (status != DEED_OK) return status;
    /* What cannot be read there is copied again. */
    backup_entry_name(candidate->name, candidate->hash, entry);
    status = os_file_open(m->target, entry, OS_READ, &there, NULL);
    if (status == DEED_OK) status = os_file_size(there, &their_size, NULL);
    if (status == DEED_OK) status = tail_read(there, their_size, theirs, &their_len, NULL);
    os_file_close(there);
    *out_same = status == DEED_OK && our_size == their_size && our_len == their_len &&
                memcmp(ours, theirs, our_len) == 0;
    if (*out_same) {
        out->size = our_size;
        memcpy(out->hash, candidate->hash, SHA256_SIZE);
    }
    return DEED_OK;
}

/* Give a copy its name. One that is there already may be the older backup's, with these bytes. */
static deed_status entry_put(struct making *m, const char *temporary, const char *entry)
{
    struct os_file *there = NULL;
    bool replaces = os_file_open(m->target, entry, OS_READ, &there, NULL) != DEED_NOT_FOUND;
    os_file_close(there);
    return replaces ? os_replace(m->target, temporary, entry, m->err)
                    : os_rename(m->target, temporary, entry, m->err);
}

/* Have the file's content in the target, under its hash. `slot` has its name. */
static deed_status file_copy(struct making *m, struct os_file *file, uint64_t size_max,
                             struct backup_file *slot)
{
    char temporary[BACKUP_FILE_NAME_SIZE + 8], entry[BACKUP_ENTRY_NAME_SIZE];
    (void)snprintf(temporary, sizeof temporary, "%s.copy", slot->name);
    deed_status status = backup_copy(&m->work, file, size_max, m->target, temporary, slot, m->err);
    if (status == DEED_OK) {
        backup_entry_name(slot->name, slot->hash, entry);
        status = entry_put(m, temporary, entry);
    }
    if (status != DEED_OK) {
        (void)!os_remove(m->target, temporary, NULL);
        return status;
    }
    slot->copied = true;
    m->copied_count++;
    m->copied_size += slot->size;
    return DEED_OK;
}

/* That a name can be seen does not say that it is durable: its sync may have failed, and the next one has
 * nothing to write (docs/decisions/0017). What the older backup names is; the others are named anew. */
static deed_status entry_renew(struct making *m, const struct backup_file *slot)
{
    char temporary[BACKUP_FILE_NAME_SIZE + 8], entry[BACKUP_ENTRY_NAME_SIZE];
    const struct backup_file *before = backup_set_find(&m->old, slot->name);
    if (before != NULL && memcmp(before->hash, slot->hash, SHA256_SIZE) == 0) return DEED_OK;
    (void)snprintf(temporary, sizeof temporary, "%s.copy", slot->name);
    backup_entry_name(slot->name, slot->hash, entry);
    deed_status status = os_rename(m->target, entry, temporary, m->err);
    return status == DEED_OK ? os_rename(m->target, temporary, entry, m->err) : status;
}

/* Use what is there, if it is this file, else copy. `sealed`: it never changes under its name. */
static deed_status file_take(struct making *m, struct os_file *file, uint64_t size_max, bool sealed,
                             struct backup_file *slot)
{
    bool same = false;
    deed_status status = DEED_OK;
    for (size_t i = 0; i < m->there.count && !same && status == DEED_OK; i++) {
        const struct backup_file *candidate = &m->there.files[i];
        if (strcmp(candidate->name, slot->name) != 0) continue;
        if (PLANTED(BACKUP_TRUSTS_NAMES)) {
            const struct backup_file *before = backup_set_find(&m->old, slot->name);
            if (before != NULL) return *slot = *before, DEED_OK;
        }
        if (sealed) {
            status = same_tail(m, file, candidate, slot, &same);
        } else {
            status = backup_hash(&m->work, file, size_max, slot, m->err);
            same = status == DEED_OK && is_there(m, slot);
            break;
        }
    }
    if (status != DEED_OK) return status;
    return same ? entry_renew(m, slot) : file_copy(m, file, size_max, slot);
}

static uint64_t head_size(const struct making *m)
{
    return PLANTED(BACKUP_PAST_END) ? DEED_NONE : align_up(m->head.offset, SECTOR_SIZE);
}

/* (5) */
static bool has_file(const struct making *m, uint32_t number)
{
    struct log_segment_info info;
    return log_segment_info(m->store->log, number, &info, NULL) == DEED_OK &&
           info.state != LOG_MISSING;
}

/* `*out_taken` is false if the segment has no file. A segment with accepted losses is not sealed. */
static deed_status segment_look(struct making *m, uint32_t number, struct backup_file *slot,
                                bool *out_taken)
{
    for (int tries = 0; tries < TRIES_MAX; tries++) {
        const struct source *source = source_find(m, number);
        struct os_file *file = number == m->head.segment ? m->head_file : NULL;
        deed_status status = DEED_OK;
        *out_taken = source != NULL || file != NULL || has_file(m, number);
        if (!*out_taken) return DEED_OK;
        *slot = (struct backup_file){0};
        if (file != NULL) {
            segment_name(number, slot->name);
            m->work.forgiving = true;
            return file_take(m, file, head_size(m), false, slot);
        }
        status = DEED_NOT_FOUND;
        if (source != NULL) {
            (void)snprintf(slot->name, sizeof slot->name, "%s", source->name);
            status = os_file_open(m->source, source->name, OS_READ, &file, m->err);
        }
        if (status == DEED_OK) {
            m->work.forgiving = source->generation == 0;
            status = file_take(m, file, DEED_NONE, source->generation > 0, slot);
            os_file_close(file);
            return status;
        }
        if (status != DEED_NOT_FOUND) return status;
        status = sources_list(m); /* (1) */
        if (status != DEED_OK) return status;
    }
    return deed_fail(m->err, DEED_BUSY, "segment %u changes too fast to be copied: try again",
                     number);
}

static deed_status segment_take(struct making *m, uint32_t number, struct backup_file *slot,
                                bool *out_taken)
{
    deed_status status = segment_look(m, number, slot, out_taken);
    m->work.forgiving = false;
    return status;
}

static deed_status losses_take(struct making *m, struct backup_file *slot)
{
    struct os_file *file = NULL;
    *slot = (struct backup_file){.name = LOSSES_FILE};
    deed_status status = os_file_open(m->source, LOSSES_FILE, OS_READ, &file, m->err);
    if (status == DEED_OK) status = file_take(m, file, DEED_NONE, false, slot);
    os_file_close(file);
    return status;
}

/* ---- the mark ------------------------------------------------------------------------------- */

/* A mark that claims the head: what the copy lacks of it is damage, not a torn tail. */
static deed_status mark_take(struct making *m, struct backup_file *slot)
{
    static const char temporary[] = MARK_FILE ".copy";
    static const uint8_t zeros[2 * SECTOR_SIZE];
    char entry[BACKUP_ENTRY_NAME_SIZE];
    struct os_file *file = NULL;
    struct mark mark;
    log_mark_of(m->store->log, &m->head, &mark);
    *slot = (struct backup_file){.name = MARK_FILE, .copied = true};
    deed_status status = os_file_open(m->target, temporary, OS_WRITE | OS_CREATE, &file, m->err);
    if (status == DEED_OK) status = os_file_truncate(file, 0, m->err);
    if (status == DEED_OK) {
        status = os_file_write(file, 0, (deed_bytes){zeros, sizeof zeros}, m->err);
    }
    if (status == DEED_OK) status = mark_write(file, &mark, m->err);
    if (status == DEED_OK) status = backup_hash(&m->work, file, DEED_NONE, slot, m->err);
    os_file_close(file);
    if (status == DEED_OK) {
        backup_entry_name(slot->name, slot->hash, entry);
        status = entry_put(m, temporary, entry);
    }
    return status;
}

/* ---- all files ------------------------------------------------------------------------------ */

static deed_status slot_add(struct making *m, struct backup_file **out)
{
    *out = backup_set_add(&m->set, "");
    return *out != NULL ? DEED_OK : no_memory(m->err);
}

static void note_first(void *context, const struct log_segment_info *info)
{
    uint32_t *first = context;
    if (info->number < *first) *first = info->number;
}

/* (5) */
static uint32_t number_first(const struct making *m)
{
    uint32_t first = m->head.segment;
    log_each_segment(m->store->log, note_first, &first);
    return first;
}

static deed_status files_take(struct making *m)
{
    struct backup_file *slot;
    deed_status status = DEED_OK;
    uint32_t number = number_first(m);
    m->work.all = 3 * log_size(m->store->log);
    for (; status == DEED_OK && number <= m->head.segment; number++) {
        bool taken = false;
        status = slot_add(m, &slot);
        if (status == DEED_OK) status = segment_take(m, number, slot, &taken);
        if (status == DEED_OK && !taken) m->set.count--;
    }
    if (status == DEED_OK && m->sources.has_losses) {
        status = slot_add(m, &slot);
        if (status == DEED_OK) status = losses_take(m, slot);
    }
    if (status == DEED_OK) status = slot_add(m, &slot);
    return status == DEED_OK ? mark_take(m, slot) : status;
}

static deed_status file_retake(struct making *m, struct backup_file *slot)
{
    struct source source;
    bool taken = false;
    forget_there(m, slot);
    if (strcmp(slot->name, LOSSES_FILE) == 0) return losses_take(m, slot);
    if (!source_parse(slot->name, &source)) return mark_take(m, slot);
    deed_status status = segment_take(m, source.number, slot, &taken);
    if (status == DEED_OK && !taken) {
        status = deed_fail(m->err, DEED_CORRUPT, "segment %u is gone from the log", source.number);
    }
    return status;
}

/* (4). What has rotted there since it was copied is copied again. */
static deed_status file_check(struct making *m, struct backup_file *slot)
{
    char entry[BACKUP_ENTRY_NAME_SIZE];
    const struct backup_file *before = backup_set_find(&m->old, slot->name);
    bool known =
        !slot->copied && before != NULL && memcmp(before->hash, slot->hash, SHA256_SIZE) == 0;
    if (known && m->options->quick) return DEED_OK;
    backup_entry_name(slot->name, slot->hash, entry);
    if (PLANTED(BACKUP_NOT_READ_AGAIN)) return DEED_OK;
    deed_status status = backup_check(&m->work, m->target, entry, slot, m->err);
    if (status != DEED_CORRUPT) return status;
    if (!slot->copied) {
        status = file_retake(m, slot);
        if (status != DEED_OK) return status;
        backup_entry_name(slot->name, slot->hash, entry);
        status = backup_check(&m->work, m->target, entry, slot, m->err);
    }
    if (status != DEED_CORRUPT) return status;
    /* Not the log is damaged: the disk does not keep what it is given. */
    deed_wrap(m->err, "reading the copy again");
    if (m->err != NULL) m->err->status = DEED_IO;
    return DEED_IO;
}

static deed_status files_check(struct making *m)
{
    struct backup_view view;
    deed_status status = DEED_OK;
    for (size_t i = 0; status == DEED_OK && i < m->set.count; i++) {
        status = file_check(m, &m->set.files[i]);
    }
    if (status != DEED_OK || m->options->quick) return status;
    backup_view_init(&view, m->target, &m->set);
    return backup_check_chain(&view.os, &view.data, true, false, &m->set, &m->work, NULL, m->err);
}

/* ---- what is not needed any more ------------------------------------------------------------ */

struct removal {
    struct os_dir *dir;
    const struct backup_set *set;
    uint64_t count;
};

static void remove_unneeded(void *context, const char *name)
{
    struct removal *r = context;
    if (!backup_is_ours(name)) return;
    for (size_t i = 0; i < r->set->count; i++) {
        char entry[BACKUP_ENTRY_NAME_SIZE];
        backup_entry_name(r->set->files[i].name, r->set->files[i].hash, entry);
        if (strcmp(entry, name) == 0) return;
    }
    if (os_remove(r->dir, name, NULL) == DEED_OK) r->count++;
}

/* That a file stays does no harm: the next backup removes it. */
static uint64_t clear(struct os_dir *dir, const struct backup_set *needed)
{
    struct removal r = {.dir = dir, .set = needed};
    if (os_dir_list(dir, remove_unneeded, &r, NULL) == DEED_OK) (void)!os_dir_sync(dir, NULL);
    return r.count;
}

/* ---- the whole ------------------------------------------------------------------------------ */

static void set_describe(struct making *m)
{
    m->set.log_id = log_id(m->store->log);
    m->set.epoch = log_epoch(m->store->log);
    m->set.position = m->head.position;
    m->set.recorded_at_ns = m->head.recorded_at_ns;
    m->set.made_at_ns = os_now_ns(m->store->os);
    memcpy(m->set.chain_hash, m->head.hash, SHA256_SIZE);
}

static deed_status make(struct making *m, const char *target)
{
    deed_status status =
        os_dir_open_in(store_dir(m->store), LOG_DIR_NAME, false, &m->source, m->err);
    if (status == DEED_OK) status = backup_work_init(&m->work, m->err);
    if (status == DEED_OK) status = target_open(m, target);
    if (status != DEED_OK) return status;
    m->work.progress = m->options->progress;
    m->work.context = m->options->context;

    status = head_take(m);
    if (status == DEED_OK) status = check_old(m);
    if (status != DEED_OK) return status;
    set_describe(m);
    if (PLANTED(BACKUP_REMOVES_EARLY)) (void)clear(m->target, &m->set);
    status = files_take(m);
    if (status == DEED_OK && PLANTED(BACKUP_MANIFEST_FIRST)) {
        status = backup_set_save(m->target, &m->set, m->err);
    }
    if (status == DEED_OK) status = files_check(m);
    if (status == DEED_OK) status = backup_set_save(m->target, &m->set, m->err);
    if (status == DEED_OK) m->removed_count = clear(m->target, &m->set);
    /* A full disk gets back what was taken of it; after other trouble the next backup goes on from
     * there. */
    if (status == DEED_FULL && !m->old_damaged) (void)clear(m->target, &m->old);
    return status;
}

static void note_made(struct store *store, const struct making *m, deed_status status)
{
    struct backup_state *state = &store->backup;
    os_mutex_lock(&store->publish_lock);
    if (status == DEED_OK) {
        state->made_count++;
        state->position = m->set.position;
        state->made_at_ns = m->set.made_at_ns;
        state->copied_size += m->copied_size;
    } else {
        state->failed_count++;
    }
    os_mutex_unlock(&store->publish_lock);
}

deed_status store_backup(struct store *store, const char *target,
                         const struct deed_backup_options *options,
                         struct deed_backup_report *out_report, struct deed_error *err)
{
    static const struct deed_backup_options defaults = {0};
    struct making m = {
        .store = store, .options = options == NULL ? &defaults : options, .err = err};
    deed_status status = make(&m, target);
    note_made(store, &m, status);
    if (status == DEED_OK && out_report != NULL) {
        *out_report = backup_report_of(&m.set);
        out_report->copied_count = m.copied_count;
        out_report->copied_size = m.copied_size;
        out_report->removed_count = m.removed_count;
    }
    if (status != DEED_OK) deed_wrap(err, "backup to %s", target);
    backup_work_done(&m.work);
    backup_set_done(&m.set);
    backup_set_done(&m.there);
    backup_set_done(&m.old);
    free(m.sources.ptr);
    os_file_close(m.head_file);
    os_dir_close(m.target);
    os_dir_close(m.source);
    return status;
}

/* ---- looking at one ------------------------------------------------------------------------- */

bool backup_is_there(struct os *os, const char *directory)
{
    struct os_dir *dir = NULL;
    struct os_file *file = NULL;
    bool there = os_dir_open(os, directory, false, &dir, NULL) == DEED_OK &&
                 os_file_open(dir, BACKUP_MANIFEST, OS_READ, &file, NULL) == DEED_OK;
    os_file_close(file);
    os_dir_close(dir);
    return there;
}

/* All files are read also when one is damaged: who looks wants to know of all. */
static deed_status entries_check(struct os_dir *dir, const struct backup_set *set,
                                 struct backup_work *work, const struct backup_listener *listener,
                                 struct deed_error *err)
{
    deed_status worst = DEED_OK;
    for (size_t i = 0; i < set->count; i++) {
        char entry[BACKUP_ENTRY_NAME_SIZE];
        struct deed_error why = {0};
        struct source source;
        backup_entry_name(set->files[i].name, set->files[i].hash, entry);
        deed_status status = backup_check(work, dir, entry, &set->files[i], &why);
        if (status == DEED_OK) continue;
        if (worst == DEED_OK && err != NULL) *err = why;
        worst = status;
        if (status != DEED_CORRUPT) return status;
        struct store_damage damage = {.first_position = DEED_NONE, .last_position = DEED_NONE};
        if (source_parse(set->files[i].name, &source)) damage.segment = source.number;
        damage.size = set->files[i].size;
        (void)snprintf(damage.what, sizeof damage.what, "%.159s", why.message);
        if (listener->damage != NULL) listener->damage(listener->context, &damage);
    }
    return worst;
}

deed_status store_check_backup(struct os *os, const char *backup,
                               const struct deed_backup_options *options,
                               void (*damage)(void *context, const struct store_damage *),
                               void *context, struct deed_backup_report *out_report,
                               struct deed_error *err)
{
    struct os_dir *dir = NULL;
    struct backup_set set = {0};
    struct backup_work work = {0};
    struct backup_view view;
    struct backup_listener listener = {damage, context};
    deed_status status = os_dir_open(os, backup, false, &dir, err);
    if (status == DEED_OK) status = backup_set_load(dir, &set, err);
    if (status == DEED_OK) status = backup_work_init(&work, err);
    if (status == DEED_OK) {
        struct deed_error why = {0};
        if (options != NULL) work.progress = options->progress, work.context = options->context;
        work.all = 2 * backup_set_size(&set);
        status = entries_check(dir, &set, &work, &listener, err);
        if (status == DEED_OK || status == DEED_CORRUPT) {
            backup_view_init(&view, dir, &set);
            deed_status chain = backup_check_chain(&view.os, &view.data, true, set.commits > 0,
                                                   &set, &work, &listener, &why);
            if (status == DEED_OK) {
                status = chain;
                if (chain != DEED_OK && err != NULL) *err = why;
            }
        }
    }
    if (status == DEED_OK && out_report != NULL) *out_report = backup_report_of(&set);
    if (status != DEED_OK) deed_wrap(err, "backup in %s", backup);
    backup_work_done(&work);
    backup_set_done(&set);
    os_dir_close(dir);
    return status;
}
