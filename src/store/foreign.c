/* foreign.c - deleting as clients of KurrentDB do it.
 *
 *     $$order-1   {"$maxCount":7}  ─►  {"$maxCount":7,"$tb":3}
 *
 * (1) Softly: $tb is put behind the stream's last event, and stays right when the stream is written
 *     again. Neither the stream nor the other members may change meanwhile, which conditions see to. A
 *     stream that is written all the time gets a $tb of 9223372036854775807 in the end: it hides what
 *     the stream holds where the metadata stands in the log. So does one that has no events.
 * (2) Everything else is decided by the committer; what is looked at before only saves an attempt that
 *     must fail. A stream that was ever written stays so. */
#include "store/store_state.h"

#define EXACT_ATTEMPTS 8

static deed_status no_stream(deed_str stream, struct deed_error *err)
{
    return deed_fail(err, DEED_CONFLICT, "stream %.*s should exist, it was never written",
                     DEED_FMT(stream));
}

static deed_status tombstone(struct store *store, deed_str stream,
                             const struct deed_condition *condition,
                             struct deed_appended *out_appended, struct deed_error *err)
{
    struct deed_new_event event = {.stream = stream,
                                   .type = DEED_STR(TOMBSTONE_TYPE),
                                   .data = deed_bytes_of(DEED_STR("{}"))};
    struct deed_append append = {
        .events = &event, .event_count = 1, .conditions = condition, .condition_count = 1};
    return store_append_as(store, &append, APPEND_BY_SYSTEM, out_appended, err);
}

/* One attempt; `out_again`: other metadata came between, or (`exact`) events did (1). */
static deed_status soft_delete(struct store *store, deed_str metadata,
                               const struct deed_condition *condition,
                               const struct stream_state *s, bool exact,
                               struct deed_appended *out_appended, bool *out_again,
                               struct deed_error *err)
{
    struct buf data;
    buf_init(&data, SIZE_MAX);
    exact = exact && s->count > 0;
    deed_status status =
        retention_set_truncate(store, s, exact ? s->count : RETENTION_DELETED, &data, err);
    if (status == DEED_OK && !buf_ok(&data)) {
        status = deed_fail(err, DEED_NO_MEMORY, "delete: out of memory");
    }
    if (status == DEED_OK) {
        struct deed_condition conditions[] = {
            *condition,
            {.stream = metadata,
             .expect = s->metadata_count == 0 ? DEED_EXPECT_NONE : DEED_EXPECT_REVISION,
             .revision = s->metadata_count - 1},
            {.stream = condition->stream,
             .expect = DEED_EXPECT_REVISION,
             .revision = s->count - 1},
        };
        struct deed_new_event event = {
            .stream = metadata, .type = DEED_STR(METADATA_TYPE), .data = buf_bytes(&data)};
        struct deed_append append = {
            .events = &event,
            .event_count = 1,
            .conditions = conditions,
            .condition_count = exact ? 3 : 2,
        };
        struct deed_error why = {.condition = DEED_NONE};
        status = store_append_as(store, &append, APPEND_BY_SYSTEM, out_appended, &why);
        *out_again = status == DEED_CONFLICT && (why.condition == 1 || why.condition == 2);
        if (status != DEED_OK && err != NULL) *err = why;
    }
    buf_done(&data);
    return status;
}

/* A stream that has metadata only is there, for these clients. */
static void expect_metadata(const struct stream_state *s, struct deed_condition *condition)
{
    if (condition->expect == DEED_EXPECT_EXISTS && s->count == 0 && s->metadata_count > 0) {
        condition->expect = DEED_EXPECT_ANY;
    }
}

static deed_status delete_once(struct store *store, deed_str stream, deed_str metadata,
                               struct deed_condition condition, bool for_good, bool exact,
                               struct deed_appended *out_appended, bool *out_again,
                               struct deed_error *err)
{
    struct stream_state s;
    *out_again = false;
    deed_status status = stream_state_now(store, stream, &s, err);
    if (status == DEED_OK && s.count == 0) status = stream_lost(store, stream, 0, UINT64_MAX, err);
    if (status != DEED_OK) return status;
    if (s.tombstoned) {
        return deed_fail(err, DEED_DELETED, "stream %.*s is deleted for good", DEED_FMT(stream));
    }
    expect_metadata(&s, &condition);
    if (for_good) {
        status = tombstone(store, stream, &condition, out_appended, err);
    } else if (s.count == 0 && s.metadata_count == 0) {
        return no_stream(stream, err);
    } else {
        status = soft_delete(store, metadata, &condition, &s, exact, out_appended, out_again, err);
    }
    /* Only a soft delete makes a stream that was written not exist. */
    if (status == DEED_CONFLICT && condition.expect == DEED_EXPECT_EXISTS && err != NULL &&
        err->revision != DEED_NONE && !*out_again) {
        return deed_fail(err, DEED_DELETED, "stream %.*s is deleted", DEED_FMT(stream));
    }
    return status;
}

deed_status store_delete_foreign(struct store *store, deed_str stream, enum deed_expect expect,
                                 uint64_t revision, bool tombstone,
                                 struct deed_appended *out_appended, struct deed_error *err)
{
    struct arena arena;
    bool names_metadata = stream.len >= 2 && memcmp(stream.ptr, METADATA_PREFIX, 2) == 0;
    bool names_log =
        deed_str_equal(stream, DEED_STR(LOG_STREAM)) || deed_str_equal(stream, DEED_STR(ALL_STREAM));
    if (stream.len == 0 || names_metadata || names_log) {
        return deed_fail(err, DEED_INVALID, "stream \"%.*s\" cannot be deleted", DEED_FMT(stream));
    }
    deed_status status = stream_writable(stream, err);
    if (status != DEED_OK) return status;
    struct deed_condition condition = {
        .kind = DEED_CONDITION_STREAM, .stream = stream, .expect = expect, .revision = revision};
    arena_init(&arena, SIZE_MAX);
    deed_str metadata = arena_printf(&arena, METADATA_PREFIX "%.*s", DEED_FMT(stream));
    if (metadata.ptr == NULL) status = deed_fail(err, DEED_NO_MEMORY, "delete: out of memory");
    bool again = status == DEED_OK;
    /* Others can only make the attempt fail by getting on themselves. */
    for (unsigned attempt = 0; again && attempt <= 64; attempt++) {
        bool exact = attempt < EXACT_ATTEMPTS;
        struct deed_error why = {.condition = DEED_NONE};
        status = delete_once(store, stream, metadata, condition, tombstone, exact, out_appended,
                             &again, &why);
        if (status != DEED_OK && err != NULL) *err = why;
    }
    arena_done(&arena);
    return status;
}
