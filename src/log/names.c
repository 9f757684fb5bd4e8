/* names.c - of the files that one segment has, the one that counts.
 *
 * (1) Of the two newest the older counts: it is removed last, when the newer one is on the device for
 *     certain. That a newer one is there proves nothing: the sync of its name may have failed, and a
 *     second one would not tell. It is thrown away, and made anew.
 * (2) What is older still had been removed before the newest was made, and came back, as a sync of
 *     the directory had failed. It may hold what was erased since.
 * (3) The older of the two may have been removed, and come back by a power cut. By then another file may
 *     have got its blocks: ext4 with data=writeback or without a journal gives them away before the
 *     removal is durable. So it is read, and counts only if it has all that the newer one has. If not,
 *     who removed it knew that the newer one is durable: that one counts.
 * (4) All files stay where that is doubtful: both are damaged, a newer one than the chosen one is, or the
 *     device failed to give back what decides. The next opening may see more, or a person.
 *
 * Normative: docs/format/log.md, section 10 */
#include "log/names.h"

#include "base/planted.h"
#include "log/scan.h"

#include <stdlib.h>
#include <string.h>

/* ---- the files that are there --------------------------------------------------------------- */

static void unfinished_add(struct names *n, const char *text)
{
    size_t size = strlen(text) + 1;
    char *copy = arena_alloc(&n->arena, size);
    char **grown = realloc(n->unfinished, (n->unfinished_count + 1) * sizeof *grown);
    if (grown != NULL) n->unfinished = grown;
    if (copy == NULL || grown == NULL) return; /* the next opening finds it again */
    memcpy(copy, text, size);
    n->unfinished[n->unfinished_count++] = copy;
}

/* What was to take a .seg's place (recovery.c (5)). */
static bool is_new_segment(const char *text)
{
    char name[SEGMENT_NAME_SIZE];
    uint32_t number = 0;
    const char *end = strstr(text, NAME_UNFINISHED);
    if (end == NULL || strcmp(end, NAME_UNFINISHED) != 0) return false;
    size_t len = (size_t)(end - text);
    if (len >= sizeof name) return false;
    memcpy(name, text, len);
    name[len] = '\0';
    return segment_name_parse(name, &number);
}

static void names_add(void *context, const char *text)
{
    struct names *n = context;
    struct sealed_name name = {0};
    bool unfinished = is_new_segment(text);
    if (!unfinished && !segment_name_parse(text, &name.number) &&
        !sealed_name_parse(text, &name, &unfinished)) {
        return;
    }
    if (unfinished) {
        unfinished_add(n, text);
        return;
    }
    if (n->count == n->room) {
        size_t room = n->room == 0 ? 64 : n->room * 2;
        struct sealed_name *grown = realloc(n->ptr, room * sizeof *grown);
        if (grown == NULL) {
            n->no_memory = true;
            return;
        }
        n->ptr = grown;
        n->room = room;
    }
    n->ptr[n->count++] = name;
}

/* By number, then the oldest generation first. */
static int name_order(const void *a, const void *b)
{
    const struct sealed_name *x = a;
    const struct sealed_name *y = b;
    if (x->number != y->number) return x->number > y->number ? 1 : -1;
    return (x->generation > y->generation) - (x->generation < y->generation);
}

void names_done(struct names *n)
{
    arena_done(&n->arena);
    free(n->ptr);
    free(n->unfinished);
}

deed_status names_list(struct log *log, struct names *names, struct deed_error *err)
{
    names->count = 0;
    names->unfinished_count = 0;
    arena_reset(&names->arena);
    deed_status status = os_dir_list(log->dir, names_add, names, err);
    if (status == DEED_OK && names->no_memory) {
        status = deed_fail(err, DEED_NO_MEMORY, "log: out of memory");
    }
    if (status == DEED_OK && names->count > 0) {
        qsort(names->ptr, names->count, sizeof *names->ptr, name_order);
    }
    return status;
}

deed_status name_header_read(struct os_file *file, const struct sealed_name *name,
                             struct segment_header *out_header, bool *out_good,
                             struct deed_error *err)
{
    uint8_t bytes[SEGMENT_HEADER_SIZE];
    struct segment_header header = {0};
    size_t size = 0;
    deed_status status = os_file_read(file, 0, bytes, sizeof bytes, &size, err);
    if (status == DEED_IO) size = 0;
    if (status != DEED_OK && status != DEED_IO) return status;
    memset(bytes + size, 0, sizeof bytes - size);
    status = segment_header_decode(bytes, &header, err);
    if (status == DEED_TOO_NEW) return status;
    if (PLANTED(ANY_HEADER)) header.number = name->number;
    *out_good = status == DEED_OK && header.number == name->number &&
                header.generation == name->generation && header.sealed == (name->generation > 0) &&
                (name->generation == 0 || header.first_position == name->first_position);
    if (*out_good) *out_header = header;
    return DEED_OK;
}

/* What a file says at its ends; of a .seg, whose end says nothing, the header alone. */
struct ends {
    struct segment_header header;
    struct sealed_footer footer;
    bool whole; /* it is what its name says; a sealed one: finished */
};

static deed_status ends_read(struct log *log, const struct sealed_name *name, struct ends *out,
                             struct deed_error *err)
{
    char text[SEALED_NAME_SIZE];
    struct os_file *file = NULL;
    *out = (struct ends){0};
    log_file_name(name, text);
    deed_status status = os_file_open(log->dir, text, OS_READ, &file, err);
    if (status != DEED_OK) return status;
    status = name_header_read(file, name, &out->header, &out->whole, err);
    if (status == DEED_OK && out->whole && name->generation > 0) {
        status = sealed_footer_load(file, name, out->header.log_id, &out->footer, err);
        if (status == DEED_CORRUPT || status == DEED_IO) {
            out->whole = false;
            status = DEED_OK;
        }
    }
    os_file_close(file);
    if (status != DEED_OK) deed_wrap(err, "%s", text);
    return status;
}

/* ---- what a file holds ---------------------------------------------------------------------- */

static deed_status pass_commit(void *context, const struct commit *commit,
                               const struct commit_ref *ref, struct deed_error *err)
{
    (void)context, (void)commit, (void)ref, (void)err;
    return DEED_OK;
}

static deed_status pass_damage(void *context, const struct log_damage *damage,
                               struct deed_error *err)
{
    (void)context, (void)damage, (void)err;
    return DEED_OK;
}

/* Does this file of a segment, with whole ends, hold, undamaged, what the sealed one does? (That a part of
 * it could not be read goes into `*inout_doubtful`.) It is asked before it is known which log this is: the
 * sealed one tells. */
static deed_status is_intact(struct log *log, const struct sealed_name *name,
                             const struct ends *ends, const struct ends *sealed, bool *out_intact,
                             bool *inout_doubtful, struct deed_error *err)
{
    static const struct log_visitor nobody = {.commit = pass_commit, .damage = pass_damage};
    const struct sealed_footer *f = &sealed->footer;
    char text[SEALED_NAME_SIZE];
    struct os_file *file = NULL;
    struct scan scan;
    log_file_name(name, text);
    /* A sealed one was read from the device before it had its name. */
    unsigned flags = name->generation == 0 ? OS_READ | OS_DIRECT : OS_READ;
    deed_status status = os_file_open(log->dir, text, flags, &file, err);
    if (status != DEED_OK) return status;
    log->id = sealed->header.log_id;
    memcpy(log->secret, sealed->header.secret, COMMIT_SECRET_SIZE);
    commit_places_make(log->id, log->secret, &log->places);
    scan_init(&scan, log, &nobody, err);
    scan.expected = f->first_position;
    scan.until = f->last_position;
    scan.hash_from = DEED_NONE;
    memcpy(scan.previous, f->previous, SHA256_SIZE);
    status = name->generation == 0 ? scan_segment(&scan, file, name->number, true, &ends->header)
                                   : scan_sealed(&scan, file, &ends->footer, true);
    *out_intact = scan.told == 0 && scan.expected == f->last_position + 1 &&
                  memcmp(scan.previous, f->hash, SHA256_SIZE) == 0;
    *inout_doubtful |= scan.unreadable;
    scan_done(&scan);
    log->id = (deed_uuid){0};
    memset(log->secret, 0, COMMIT_SECRET_SIZE);
    os_file_close(file);
    return status;
}

/* ---- the choice ----------------------------------------------------------------------------- */

struct choice {
    bool *whole;   /* for each file: its ends are */
    size_t chosen; /* the number of files: none is whole */
    bool doubtful; /* (4) */
};

static deed_status group_choose(struct log *log, const struct sealed_name *group, size_t count,
                                struct choice *out, struct deed_error *err)
{
    struct ends newest_ends = {0}, chosen_ends = {0};
    size_t newest = count;
    out->chosen = count;
    for (size_t k = count; k-- > 0;) {
        struct ends ends;
        deed_status status = ends_read(log, &group[k], &ends, err);
        if (status != DEED_OK) return status;
        out->whole[k] = ends.whole;
        if (!ends.whole) {
            out->doubtful |= newest == count;
            continue;
        }
        if (newest == count) {
            newest = out->chosen = k;
            newest_ends = ends;
        } else if (!out->doubtful && !PLANTED(NEW_GENERATION_WINS) &&
                   (group[k].generation + 1 == group[newest].generation || /* (1), (2) */
                    PLANTED(OLD_GENERATION_WINS))) {
            out->chosen = k;
            chosen_ends = ends;
        }
    }
    if (out->chosen == newest || PLANTED(OLD_GENERATION_WINS) || PLANTED(OLDER_UNREAD)) {
        return DEED_OK;
    }
    bool intact = false; /* (3) */
    deed_status status = is_intact(log, &group[out->chosen], &chosen_ends, &newest_ends, &intact,
                                   &out->doubtful, err);
    if (status != DEED_OK || intact) return status;
    out->chosen = newest;
    status =
        is_intact(log, &group[newest], &newest_ends, &newest_ends, &intact, &out->doubtful, err);
    out->doubtful |= !intact;
    return status;
}

/* The newer ones go, and the older ones that are whole. */
static deed_status group_clear(struct log *log, const struct sealed_name *group, size_t count,
                               const bool *whole, size_t chosen, struct deed_error *err)
{
    /* The names of what stays, as far as a sync tells. */
    deed_status status = os_dir_sync(log->dir, err);
    for (size_t k = count; status == DEED_OK && k-- > 0;) {
        char text[SEALED_NAME_SIZE];
        if (k == chosen || (k < chosen && !whole[k])) continue;
        log_file_name(&group[k], text);
        status = os_remove(log->dir, text, err);
    }
    return status;
}

deed_status names_choose(struct log *log, struct names *names, struct deed_error *err)
{
    size_t kept = 0;
    for (size_t i = 0; i < names->count;) {
        const struct sealed_name *group = names->ptr + i;
        size_t count = 1;
        struct choice choice = {0};
        while (i + count < names->count && group[count].number == group[0].number)
            count++;
        if (count > 1) {
            choice.whole = arena_alloc_array(&names->arena, count, sizeof *choice.whole);
            if (choice.whole == NULL) return deed_fail(err, DEED_NO_MEMORY, "log: out of memory");
            deed_status status = group_choose(log, group, count, &choice, err);
            bool clear = choice.chosen < count && !choice.doubtful && !log->options.read_only;
            if (status == DEED_OK && clear) {
                status = group_clear(log, group, count, choice.whole, choice.chosen, err);
            }
            if (status != DEED_OK) return status;
            if (choice.chosen == count) choice.chosen = 0; /* what it holds is damage */
        }
        struct sealed_name name = group[choice.chosen];
        names->ptr[kept++] = name;
        i += count;
    }
    names->count = kept;
    for (size_t i = 0; i < names->unfinished_count && !log->options.read_only; i++) {
        (void)!os_remove(log->dir, names->unfinished[i], NULL);
    }
    return DEED_OK;
}
