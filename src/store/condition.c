/* condition.c - does a condition hold, with the group included?
 *
 * Answered from posting lists alone: no event is read. Runs of the index that end before `after` are
 * not looked at, so a condition on what nobody wrote lately costs a look into the newest of them. */
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

/* Whether the stream is deleted, softly or for good, is what is asked for. */
static deed_status check_deleted(const struct deed_condition *c, const struct stream_state *s,
                                 struct deed_error *err)
{
    bool wants_tombstone = c->expect == DEED_EXPECT_TOMBSTONED;
    if (wants_tombstone ? s->tombstoned : stream_deleted(s) && !s->tombstoned) return DEED_OK;
    deed_status status =
        conflict(err, s, c->stream, wants_tombstone ? "be deleted for good" : "be deleted");
    /* The metadata that brought it back is the cause: if it fails with its group, this does. */
    if (err != NULL && s->metadata_count > 0 &&
        (err->position == DEED_NONE || s->metadata_position > err->position)) {
        err->position = s->metadata_position;
    }
    return status;
}

static deed_status check_stream(struct store *store, const struct deed_condition *c,
                                enum append_writer writer, struct deed_error *err)
{
    struct stream_state s;
    uint64_t end = PLANTED(CONDITION_WITHOUT_GROUP) ? log_end(store->log) : UINT64_MAX;
    deed_status status = stream_state_get(store, NULL, c->stream, end, NULL, &s, err);
    if (status != DEED_OK || c->expect == DEED_EXPECT_ANY) return status;
    if (c->expect == DEED_EXPECT_DELETED || c->expect == DEED_EXPECT_TOMBSTONED) {
        return check_deleted(c, &s, err);
    }
    if (s.tombstoned) {
        status =
            deed_fail(err, DEED_DELETED, "stream %.*s is deleted for good", DEED_FMT(c->stream));
        if (err != NULL) {
            err->position = s.last_position;
            err->revision = s.count - 1;
        }
        return status;
    }
    bool exists = s.count > 0 && !stream_deleted(&s);
    switch (c->expect) {
    case DEED_EXPECT_NONE:
        if (!exists) return DEED_OK;
        status = conflict(err, &s, c->stream, "not exist");
        /* Metadata of this very group may have brought it back: then the refusal fails with it. */
        if (err != NULL && s.metadata_position > log_end(store->log) &&
            !PLANTED(REFUSAL_FORGETS_METADATA)) {
            err->position = s.metadata_position;
        }
        return status;
    case DEED_EXPECT_EXISTS:
        if (exists) return DEED_OK;
        if (writer == APPEND_BY_FOREIGN && stream_is_metadata_only(&s)) return DEED_OK;
        status = conflict(err, &s, c->stream, "exist");
        /* The deletion is the cause: if it fails with its group, this refusal does. */
        if (s.count > 0 && err != NULL) err->position = s.metadata_position;
        return status;
    default:
        break;
    }
    if (s.count > 0 && s.count - 1 == c->revision) return DEED_OK;
    char wanted[64];
    (void)snprintf(wanted, sizeof wanted, "be at revision %llu", (unsigned long long)c->revision);
    return conflict(err, &s, c->stream, wanted);
}

/* Any event of a user's stream after `after`; 0: none. It steps over the system's own. */
static deed_status match_anything(struct store *store, uint64_t after, uint64_t *out_position,
                                  struct deed_error *err)
{
    struct postings system;
    uint64_t next = log_next_position(store->log);
    postings_open(&system, index_writer_view(store->index), INDEX_SYSTEM, (deed_str){0},
                  &store->arena);
    *out_position = 0;
    for (uint64_t position = after + 1; position < next; position++) {
        bool is_system = false;
        deed_status status = postings_contains(&system, position, &is_system, err);
        if (status != DEED_OK) return status;
        if (!is_system) {
            *out_position = position;
            return DEED_OK;
        }
    }
    return DEED_OK;
}

/* What an item asks for, looked up: any of the types, all of the tags. */
struct item {
    struct postings **types, **tags;
    size_t type_count, tag_count;
};

/* A copy: two of an item's terms may share a slot of what is kept. */
static struct postings *item_list(struct store *store, enum index_kind kind, deed_str term)
{
    struct postings *copy = arena_alloc(&store->arena, sizeof *copy);
    struct postings *kept = copy == NULL ? NULL : terms_get(store, kind, term);
    if (kept == NULL) return NULL;
    *copy = *kept;
    return copy;
}

static deed_status item_open(struct store *store, const struct deed_query_item *query,
                             struct item *out, struct deed_error *err)
{
    struct arena *arena = &store->arena;
    bool ok = true;
    *out = (struct item){.types = arena_alloc_array(arena, query->type_count, sizeof *out->types),
                         .tags = arena_alloc_array(arena, query->tag_count, sizeof *out->tags),
                         .type_count = query->type_count,
                         .tag_count = query->tag_count};
    if (out->types == NULL || out->tags == NULL) {
        return deed_fail(err, DEED_NO_MEMORY, "condition: out of memory");
    }
    for (size_t i = 0; ok && i < query->type_count; i++) {
        ok = (out->types[i] = item_list(store, INDEX_TYPE, query->types[i])) != NULL;
    }
    for (size_t i = 0; ok && i < query->tag_count; i++) {
        ok = (out->tags[i] = item_list(store, INDEX_TAG, query->tags[i])) != NULL;
    }
    return ok ? DEED_OK : deed_fail(err, DEED_NO_MEMORY, "condition: out of memory");
}

/* The first position after `after` with any of the types; 0: none. */
static deed_status next_of_types(struct item *item, uint64_t after, uint64_t *out_position,
                                 struct deed_error *err)
{
    *out_position = 0;
    for (size_t i = 0; i < item->type_count; i++) {
        uint64_t position = 0;
        deed_status status = postings_next(item->types[i], after, UINT64_MAX, &position, err);
        if (status != DEED_OK) return status;
        if (position != 0 && (*out_position == 0 || position < *out_position)) {
            *out_position = position;
        }
    }
    return DEED_OK;
}

/* The first event after `after` that the item matches; 0: none. Each list in turn moves the
 * candidate forward to its own next position, until all of them have it. */
static deed_status match_item(struct store *store, const struct deed_query_item *query,
                              uint64_t after, uint64_t *out_position, struct deed_error *err)
{
    struct item item;
    *out_position = 0;
    if (query->tag_count == 0 && query->type_count == 0) {
        return match_anything(store, after, out_position, err);
    }
    deed_status status = item_open(store, query, &item, err);
    if (status != DEED_OK) return status;
    if (PLANTED(CONDITION_IGNORES_TYPE) && item.tag_count > 0) item.type_count = 0;
    size_t lists = item.tag_count + (item.type_count > 0);
    uint64_t candidate = after + 1;
    for (size_t i = 0, agreed = 0; agreed < lists; i = (i + 1) % lists, agreed++) {
        uint64_t position = 0;
        status = i < item.tag_count
                     ? postings_next(item.tags[i], candidate - 1, UINT64_MAX, &position, err)
                     : next_of_types(&item, candidate - 1, &position, err);
        if (status != DEED_OK || position == 0) return status;
        if (position == candidate) continue;
        candidate = position;
        agreed = 0; /* this list has it; the others are asked again */
    }
    *out_position = candidate;
    return DEED_OK;
}

static deed_status check_no_match(struct store *store, const struct deed_condition *c,
                                  struct deed_error *err)
{
    for (size_t i = 0; i < c->item_count; i++) {
        uint64_t after = c->after + PLANTED(CONDITION_SKIPS_ONE);
        if (PLANTED(CONDITION_SEES_ONE_MORE) && after > 0) after--;
        uint64_t position = 0;
        deed_status status = match_item(store, &c->items[i], after, &position, err);
        if (status != DEED_OK) return status;
        if (position == 0) continue;
        status = deed_fail(err, DEED_CONFLICT,
                           "the event at position %llu matches item %zu of the condition",
                           (unsigned long long)position, i);
        if (err != NULL) err->position = position;
        return status;
    }
    return DEED_OK;
}

deed_status condition_check(struct store *store, const struct deed_condition *c,
                            enum append_writer writer, struct deed_error *err)
{
    return c->kind == DEED_CONDITION_STREAM ? check_stream(store, c, writer, err)
                                            : check_no_match(store, c, err);
}
