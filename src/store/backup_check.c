/* backup_check.c - the log's own code reads the copy, so whatever it would refuse is refused here. */
#include "store/backup_check.h"

#include "base/uuid.h"

#include <stdio.h>

struct chain_check {
    struct backup_work *work;
    const struct backup_listener *listener;
    uint64_t commits, events, damage_count, done_before;
    struct store_damage first;
};

static deed_status opened_commit(void *context, const struct commit *commit,
                                 const struct commit_ref *ref, struct deed_error *err)
{
    (void)context, (void)commit, (void)ref, (void)err;
    return DEED_OK;
}

static deed_status opened_damage(void *context, const struct log_damage *damage,
                                 struct deed_error *err)
{
    (void)context, (void)damage, (void)err;
    return DEED_OK; /* reading all of it will tell it again */
}

/* Opening need not read what reading all of it will. */
static bool opened_wanted(void *context, uint32_t segment, uint64_t first, uint64_t last)
{
    (void)context, (void)segment, (void)first, (void)last;
    return false;
}

static deed_status check_commit(void *context, const struct commit *commit,
                                const struct commit_ref *ref, struct deed_error *err)
{
    struct chain_check *c = context;
    (void)ref, (void)err;
    c->commits++;
    c->events += commit->event_count;
    return DEED_OK;
}

static deed_status check_damage(void *context, const struct log_damage *damage,
                                struct deed_error *err)
{
    struct chain_check *c = context;
    (void)err;
    struct store_damage told = {.segment = damage->segment,
                                .offset = damage->offset,
                                .size = damage->size,
                                .first_position = damage->first_position,
                                .last_position = damage->last_position,
                                .accepted = damage->accepted};
    (void)snprintf(told.what, sizeof told.what, "%s", damage->what);
    if (!damage->accepted && c->damage_count++ == 0) c->first = told;
    if (c->listener != NULL && c->listener->damage != NULL) {
        c->listener->damage(c->listener->context, &told);
    }
    return DEED_OK;
}

static bool check_progress(void *context, uint64_t done, uint64_t all)
{
    const struct chain_check *c = context;
    const struct backup_work *work = c->work;
    if (work->progress == NULL) return true;
    uint64_t end = c->done_before + all > work->all ? c->done_before + all : work->all;
    return work->progress(work->context, c->done_before + done, end);
}

static deed_status fail_damaged(const struct chain_check *c, struct deed_error *err)
{
    const struct store_damage *d = &c->first;
    if (d->first_position == DEED_NONE) {
        return deed_fail(err, DEED_CORRUPT, "the log is damaged: segment %u at offset %llu: %s",
                         d->segment, (unsigned long long)d->offset, d->what);
    }
    deed_status status =
        deed_fail(err, DEED_CORRUPT, "the log is damaged: positions %llu to %llu: %s",
                  (unsigned long long)d->first_position, (unsigned long long)d->last_position,
                  d->what);
    if (err != NULL) err->position = d->first_position;
    return status;
}

/* It is whole; is it the one that was meant? */
static deed_status compare(struct log *log, const struct chain_check *c, bool count,
                           struct backup_set *set, struct deed_error *err)
{
    struct log_head head;
    log_get_head(log, &head);
    if (!uuid_equal(log_id(log), set->log_id) || log_epoch(log) != set->epoch) {
        return deed_fail(err, DEED_CORRUPT, "the segments are of another log, or of epoch %llu "
                                            "instead of %llu",
                         (unsigned long long)log_epoch(log), (unsigned long long)set->epoch);
    }
    if (head.position != set->position ||
        memcmp(head.hash, set->chain_hash, SHA256_SIZE) != 0) {
        return deed_fail(err, DEED_CORRUPT,
                         "the log ends at position %llu with another commit than the one at %llu",
                         (unsigned long long)head.position, (unsigned long long)set->position);
    }
    if (count && (c->commits != set->commits || c->events != set->events)) {
        return deed_fail(err, DEED_CORRUPT,
                         "the log has %llu commits with %llu events instead of %llu with %llu",
                         (unsigned long long)c->commits, (unsigned long long)c->events,
                         (unsigned long long)set->commits, (unsigned long long)set->events);
    }
    set->commits = c->commits;
    set->events = c->events;
    return DEED_OK;
}

deed_status backup_check_chain(struct os *os, struct os_dir *data, bool read_only, bool count,
                               struct backup_set *set, struct backup_work *work,
                               const struct backup_listener *listener, struct deed_error *err)
{
    struct chain_check c = {.work = work, .listener = listener, .done_before = work->done};
    struct log_options options = {.read_only = read_only, .segment_size = UINT64_C(64) << 20};
    struct log_visitor opening = {
        .commit = opened_commit, .damage = opened_damage, .wanted = opened_wanted};
    struct log_visitor checking = {.context = &c,
                                   .commit = check_commit,
                                   .damage = check_damage,
                                   .progress = check_progress};
    struct log *log = NULL;
    deed_status status = log_open(os, data, &options, &opening, &log, err);
    if (status != DEED_OK) return status;
    status = log_verify(log, &checking, err);
    if (status == DEED_OK && c.damage_count > 0) status = fail_damaged(&c, err);
    if (status == DEED_OK) status = compare(log, &c, count, set, err);
    log_close(log);
    return status;
}

struct deed_backup_report backup_report_of(const struct backup_set *set)
{
    struct deed_backup_report report = {.log_id = set->log_id,
                                        .epoch = set->epoch,
                                        .position = set->position,
                                        .recorded_at_ns = set->recorded_at_ns,
                                        .made_at_ns = set->made_at_ns,
                                        .commits = set->commits,
                                        .events = set->events,
                                        .file_count = set->count,
                                        .size = backup_set_size(set)};
    memcpy(report.chain_hash, set->chain_hash, SHA256_SIZE);
    return report;
}
