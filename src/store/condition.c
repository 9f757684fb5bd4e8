/* condition.c - does a condition hold, with the group included?
 *
 * Answered from posting lists alone: no event is read. The first comparison is the term's newest
 * position with `after`, so a condition on what nobody wrote lately costs one look-up. */
#include "store/store_state.h"

#include "base/planted.h"

#include <stdio.h>

static deed_status conflict(struct deed_error *err, const struct stream_state *s, deed_str stream,
                            const char *wanted)
{
    uint64_t revision = s->count == 0 ? DEED_NONE : s->count - 1;
    deed_status status;
    if (s->count == 0) {
        status = deed_fail(err, DEED_CONFLICT, "stream %.*s should %s, it does not exist",
                           DEED_FMT(stream), wanted);
    } else {
        status = deed_fail(err, DEED_CONFLICT, "stream %.*s should %s, it is at revision %llu%s",
                           DEED_FMT(stream), wanted, (unsigned long long)revision,
                           stream_deleted(s) ? " and deleted" : "");
    }
    if (err != NULL) {
        err->revision = revision;
        err->position = s->count == 0 ? DEED_NONE : s->last_position;
    }
    return status;
}

static deed_status check_stream(struct store *store, const struct deed_condition *c,
                                struct deed_error *err)
{
    struct stream_state s;
    deed_status status =
        stream_state_get(store, c->stream,
                         PLANTED(CONDITION_WITHOUT_GROUP) ? log_end(store->log) : UINT64_MAX, &s,
                         err);
    if (status != DEED_OK || c->expect == DEED_EXPECT_ANY) return status;
    if (s.tombstoned) {
        status = deed_fail(err, DEED_DELETED, "stream %.*s is deleted for good", DEED_FMT(c->stream));
        if (err != NULL) {
            err->position = s.last_position;
            err->revision = s.count - 1;
        }
        return status;
    }
    bool exists = s.count > 0 && !stream_deleted(&s);
    switch (c->expect) {
    case DEED_EXPECT_NONE:
        return exists ? conflict(err, &s, c->stream, "not exist") : DEED_OK;
    case DEED_EXPECT_EXISTS:
        if (exists) return DEED_OK;
        status = conflict(err, &s, c->stream, "exist");
        /* The deletion is the cause: if it fails with its group, this refusal does. */
        if (s.count > 0 && err != NULL) {
            err->position = index_at(s.metadata_list, s.metadata_count - 1);
        }
        return status;
    default: break;
    }
    if (s.count > 0 && s.count - 1 == c->revision) return DEED_OK;
    char wanted[64];
    (void)snprintf(wanted, sizeof wanted, "be at revision %llu", (unsigned long long)c->revision);
    return conflict(err, &s, c->stream, wanted);
}

/* The first position after `after` in the list; 0: none. */
static uint64_t first_after(const struct index_list *list, uint64_t after)
{
    if (index_last(list, UINT64_MAX) <= after) return 0;
    return index_at(list, index_after(list, after, UINT64_MAX, 0));
}

/* Any event of a user's stream after `after`; 0: none. */
static uint64_t match_anything(const struct store *store, uint64_t after)
{
    const struct index_list *system = index_find(store->index, INDEX_SYSTEM, (deed_bytes){0});
    uint64_t next = log_next_position(store->log);
    for (uint64_t position = after + 1; position < next; position++) {
        if (!index_contains(system, position)) return position;
    }
    return 0;
}

static bool type_matches(const struct store *store, const struct deed_query_item *item,
                         uint64_t position)
{
    for (size_t i = 0; i < item->type_count; i++) {
        if (index_contains(index_find_str(store->index, INDEX_TYPE, item->types[i]), position)) {
            return true;
        }
    }
    return item->type_count == 0;
}

static bool tags_match(const struct store *store, const struct deed_query_item *item,
                       uint64_t position)
{
    for (size_t i = 0; i < item->tag_count; i++) {
        if (!index_contains(index_find_str(store->index, INDEX_TAG, item->tags[i]), position)) {
            return false;
        }
    }
    return true;
}

/* The tag with the fewest positions after `after`; NULL: a tag has none, so nothing matches. */
static const struct index_list *rarest_tag(const struct store *store,
                                           const struct deed_query_item *item, uint64_t after)
{
    const struct index_list *rarest = NULL;
    uint64_t fewest = UINT64_MAX;
    for (size_t i = 0; i < item->tag_count; i++) {
        const struct index_list *list = index_find_str(store->index, INDEX_TAG, item->tags[i]);
        if (index_last(list, UINT64_MAX) <= after) return NULL;
        uint64_t count =
            index_count(list, UINT64_MAX) - index_after(list, after, UINT64_MAX, 0);
        if (count < fewest) {
            fewest = count;
            rarest = list;
        }
    }
    return rarest;
}

/* The first event after `after` that the item matches; 0: none. */
static uint64_t match_item(const struct store *store, const struct deed_query_item *item,
                           uint64_t after)
{
    if (item->tag_count == 0 && item->type_count == 0) return match_anything(store, after);
    if (item->tag_count == 0) {
        uint64_t first = 0;
        for (size_t i = 0; i < item->type_count; i++) {
            uint64_t position =
                first_after(index_find_str(store->index, INDEX_TYPE, item->types[i]), after);
            if (position != 0 && (first == 0 || position < first)) first = position;
        }
        return first;
    }
    const struct index_list *tag = rarest_tag(store, item, after);
    if (tag == NULL) return 0;
    uint64_t count = index_count(tag, UINT64_MAX);
    for (uint64_t i = index_after(tag, after, UINT64_MAX, 0); i < count; i++) {
        uint64_t position = index_at(tag, i);
        if ((type_matches(store, item, position) || PLANTED(CONDITION_IGNORES_TYPE)) &&
            tags_match(store, item, position)) {
            return position;
        }
    }
    return 0;
}

static deed_status check_no_match(struct store *store, const struct deed_condition *c,
                                  struct deed_error *err)
{
    for (size_t i = 0; i < c->item_count; i++) {
        uint64_t after = c->after + PLANTED(CONDITION_SKIPS_ONE);
        if (PLANTED(CONDITION_SEES_ONE_MORE) && after > 0) after--;
        uint64_t position = match_item(store, &c->items[i], after);
        if (position == 0) continue;
        deed_status status = deed_fail(
            err, DEED_CONFLICT, "the event at position %llu matches item %zu of the condition",
            (unsigned long long)position, i);
        if (err != NULL) err->position = position;
        return status;
    }
    return DEED_OK;
}

deed_status condition_check(struct store *store, const struct deed_condition *c,
                            struct deed_error *err)
{
    return c->kind == DEED_CONDITION_STREAM ? check_stream(store, c, err)
                                            : check_no_match(store, c, err);
}
