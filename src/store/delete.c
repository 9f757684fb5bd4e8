/* delete.c - deleting streams: as our own users do it, and as clients of KurrentDB do.
 *
 *     $$order-1   {"$maxCount":7}  ─►  {"$maxCount":7,"$tb":3}
 *
 * (1) Softly: $tb is put behind the stream's last event, and stays right when the stream is written
 *     again. Neither the stream nor the other members may change meanwhile, which conditions see to:
 *     if one did, the attempt is repeated.
 * (2) For good: an event of a type of its own, the last one.
 * (3) Both kinds of users come by the same two appends, and differ in what they may delete: ours get
 *     an answer for each stream that is not there to be deleted. For clients of KurrentDB a stream that has
 *     metadata is there; so a $tb of 9223372036854775807, which hides what the stream holds where the
 *     metadata stands in the log, is theirs where there are no events. It is so, too, in the end,
 *     where a stream is written all the time.
 * (4) Everything else is decided by the committer; what is looked at before only saves an attempt that
 *     must fail. A stream that was ever written stays so. */
#include "store/store_state.h"

#include "base/text.h"

/* Others can only make an attempt fail by getting on themselves. */
#define ATTEMPTS       65u
#define EXACT_ATTEMPTS 8u

struct deletion {
    deed_str stream, metadata, actor;
    struct deed_condition condition; /* the user's */
    bool for_good;
};

static deed_status tombstone_append(struct store *store, const struct deletion *d,
                                    struct deed_appended *out_appended, struct deed_error *err)
{
    struct deed_new_event event = {.stream = d->stream,
                                   .type = DEED_STR(STORE_TOMBSTONE_TYPE),
                                   .data = deed_bytes_of(DEED_STR("{}")),
                                   .actor = d->actor};
    struct deed_append append = {
        .events = &event, .event_count = 1, .conditions = &d->condition, .condition_count = 1};
    return store_append_as(store, &append, APPEND_BY_SYSTEM, out_appended, err);
}

/* One attempt; `out_again`: other metadata came between, or (`exact`) events did (1). */
static deed_status soft_delete(struct store *store, const struct deletion *d,
                               const struct stream_state *s, bool exact,
                               struct deed_appended *out_appended, bool *out_again,
                               struct deed_error *err)
{
    struct buf data;
    buf_init(&data, SIZE_MAX);
    deed_status status =
        retention_set_truncate(store, s, exact ? s->count : RETENTION_DELETED, &data, err);
    if (status == DEED_OK && !buf_ok(&data)) {
        status = deed_fail(err, DEED_NO_MEMORY, "delete: out of memory");
    }
    if (status == DEED_OK) {
        struct deed_condition conditions[] = {
            d->condition,
            {.stream = d->metadata,
             .expect = s->metadata_count == 0 ? DEED_EXPECT_NONE : DEED_EXPECT_REVISION,
             .revision = s->metadata_count - 1},
            {.stream = d->stream, .expect = DEED_EXPECT_REVISION, .revision = s->count - 1},
        };
        struct deed_new_event event = {.stream = d->metadata,
                                       .type = DEED_STR(METADATA_TYPE),
                                       .data = buf_bytes(&data),
                                       .actor = d->actor};
        struct deed_append append = {.events = &event,
                                     .event_count = 1,
                                     .conditions = conditions,
                                     .condition_count = exact ? 3 : 2};
        struct deed_error why = {.condition = DEED_NONE};
        status = store_append_as(store, &append, APPEND_BY_SYSTEM, out_appended, &why);
        *out_again = status == DEED_CONFLICT && (why.condition == 1 || why.condition == 2);
        if (status != DEED_OK && err != NULL) *err = why;
    }
    buf_done(&data);
    return status;
}

static deed_status closed(deed_str stream, struct deed_error *err)
{
    return deed_fail(err, DEED_DELETED, "stream %.*s is deleted for good", DEED_FMT(stream));
}

/* ---- our own users -------------------------------------------------------------------------- */

static deed_status refuse_deleted(struct store *store, const struct deletion *d,
                                  const struct stream_state *s, struct deed_error *err)
{
    deed_status status = stream_writable(d->stream, err);
    if (status != DEED_OK) return status;
    if (s->count == 0) return stream_missing(store, d->stream, err);
    if (s->tombstoned) return closed(d->stream, err);
    if (!d->for_good && stream_deleted(s)) {
        return deed_fail(err, DEED_NOT_FOUND, "stream %.*s is deleted already", DEED_FMT(d->stream));
    }
    if (index_is_system(d->stream)) {
        return deed_fail(err, DEED_INVALID, "stream %.*s is the system's: it cannot be deleted",
                         DEED_FMT(d->stream));
    }
    return DEED_OK;
}

static deed_status delete_own(struct store *store, const struct deletion *d, unsigned attempt,
                              struct deed_appended *out_appended, bool *out_again,
                              struct deed_error *err)
{
    struct stream_state s;
    (void)attempt;
    deed_status status = stream_state_now(store, d->stream, &s, err);
    if (status == DEED_OK) status = refuse_deleted(store, d, &s, err);
    if (status != DEED_OK) return status;
    if (d->for_good) return tombstone_append(store, d, out_appended, err);
    return soft_delete(store, d, &s, true, out_appended, out_again, err);
}

/* ---- clients of KurrentDB ------------------------------------------------------------------- */

static deed_status delete_foreign(struct store *store, const struct deletion *given,
                                  unsigned attempt, struct deed_appended *out_appended,
                                  bool *out_again, struct deed_error *err)
{
    struct stream_state s;
    struct deletion d = *given;
    deed_status status = stream_state_now(store, d.stream, &s, err);
    if (status == DEED_OK && s.count == 0) status = stream_lost(store, d.stream, 0, UINT64_MAX, err);
    if (status != DEED_OK) return status;
    if (s.tombstoned) return closed(d.stream, err);
    /* The appends are the system's: what only foreign ones may expect is decided here. */
    if (d.condition.expect == DEED_EXPECT_EXISTS && stream_is_metadata_only(&s)) {
        d.condition.expect = DEED_EXPECT_ANY;
    }
    if (d.for_good) {
        status = tombstone_append(store, &d, out_appended, err);
    } else if (s.count == 0 && s.metadata_count == 0) {
        return deed_fail(err, DEED_CONFLICT, "stream %.*s should exist, it was never written",
                         DEED_FMT(d.stream));
    } else {
        bool exact = s.count > 0 && attempt < EXACT_ATTEMPTS;
        status = soft_delete(store, &d, &s, exact, out_appended, out_again, err);
    }
    /* Only a soft delete makes a stream that was written not exist. */
    if (status == DEED_CONFLICT && d.condition.expect == DEED_EXPECT_EXISTS && err != NULL &&
        err->revision != DEED_NONE && !*out_again) {
        return deed_fail(err, DEED_DELETED, "stream %.*s is deleted", DEED_FMT(d.stream));
    }
    return status;
}

static deed_status refuse_foreign(deed_str stream, struct deed_error *err)
{
    bool names_metadata = str_starts_with(stream, DEED_STR(METADATA_PREFIX));
    bool names_log =
        deed_str_equal(stream, DEED_STR(LOG_STREAM)) || deed_str_equal(stream, DEED_STR(ALL_STREAM));
    if (stream.len == 0 || names_metadata || names_log) {
        return deed_fail(err, DEED_INVALID, "stream \"%.*s\" cannot be deleted", DEED_FMT(stream));
    }
    return stream_writable(stream, err);
}

/* ---- both ----------------------------------------------------------------------------------- */

typedef deed_status deletion_attempt(struct store *store, const struct deletion *d,
                                     unsigned attempt, struct deed_appended *out_appended,
                                     bool *out_again, struct deed_error *err);

static deed_status repeat(struct store *store, struct deletion *d, deletion_attempt *once,
                          struct deed_appended *out_appended, struct deed_error *err)
{
    struct arena arena;
    arena_init(&arena, SIZE_MAX);
    d->metadata = arena_printf(&arena, METADATA_PREFIX "%.*s", DEED_FMT(d->stream));
    bool again = d->metadata.ptr != NULL;
    deed_status status = again ? DEED_OK : deed_fail(err, DEED_NO_MEMORY, "delete: out of memory");
    for (unsigned attempt = 0; again && attempt < ATTEMPTS; attempt++) {
        struct deed_error why = {.condition = DEED_NONE};
        again = false;
        status = once(store, d, attempt, out_appended, &again, &why);
        if (status != DEED_OK && err != NULL) *err = why;
    }
    arena_done(&arena);
    return status;
}

deed_status store_delete_stream(struct store *store, deed_str stream, enum deed_expect expect,
                                uint64_t revision, bool tombstone, deed_str actor,
                                struct deed_appended *out_appended, struct deed_error *err)
{
    struct deletion d = {.stream = stream,
                         .actor = actor,
                         .condition = {.stream = stream, .expect = expect, .revision = revision},
                         .for_good = tombstone};
    return repeat(store, &d, delete_own, out_appended, err);
}

deed_status store_delete_foreign(struct store *store, deed_str stream, enum deed_expect expect,
                                 uint64_t revision, bool tombstone,
                                 struct deed_appended *out_appended, struct deed_error *err)
{
    struct deletion d = {.stream = stream,
                         .condition = {.stream = stream, .expect = expect, .revision = revision},
                         .for_good = tombstone};
    deed_status status = refuse_foreign(stream, err);
    if (status != DEED_OK) return status;
    return repeat(store, &d, delete_foreign, out_appended, err);
}
