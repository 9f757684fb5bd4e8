/* stream.c - what a stream is: its end, its metadata, what retention hides.
 *
 * (1) A stream's number of events is its posting list's; nothing else counts.
 * (2) A virtual stream is a list, and nothing else.
 * (3) Retention is a pure function of the newest $metadata event, so it is cached by that event's
 *     position, once published.
 * (4) Anybody may have written where metadata is kept, a foreign client or an import of the future: what
 *     has another type, is no JSON, no object, or nested too deep, counts as empty. Of an object
 *     with a limit that is malformed no limit is heeded; its other members stay. */
#include "store/store_state.h"

#include "base/planted.h"
#include "base/text.h"
#include "json/json.h"

#include <stdio.h>

#define NS_PER_SECOND INT64_C(1000000000)
#define METADATA_NAME_SIZE_MAX (UINT16_MAX + 2)

static deed_status limits_read(json_value root, struct retention *out, struct deed_error *err)
{
    deed_status status = DEED_OK;
    struct {
        const char *name;
        uint64_t least, most, value;
    } fields[] = {{"$tb", 0, UINT64_MAX, 0},
                  {"$maxCount", 1, UINT64_MAX, 0},
                  {"$maxAge", 1, INT64_MAX / NS_PER_SECOND, 0}};
    for (size_t i = 0; status == DEED_OK && i < 3; i++) {
        json_value v = json_get(root, deed_str_of(fields[i].name));
        if (json_kind_of(v) == JSON_NONE || json_kind_of(v) == JSON_NULL) continue;
        if (!json_uint64(v, &fields[i].value) || fields[i].value < fields[i].least ||
            fields[i].value > fields[i].most) {
            status = deed_fail(err, DEED_INVALID,
                               "stream metadata: %s is %.*s, it must be a whole number from %llu to "
                               "%llu",
                               fields[i].name, DEED_FMT(str_beginning(json_raw(v), 60)),
                               (unsigned long long)fields[i].least,
                               (unsigned long long)fields[i].most);
        }
    }
    if (status == DEED_OK) {
        *out = (struct retention){.truncate_before = fields[0].value,
                                  .max_count = fields[1].value,
                                  .max_age_ns = (int64_t)fields[2].value * NS_PER_SECOND};
    }
    return status;
}

deed_status retention_parse(deed_bytes json, struct retention *out, struct deed_error *err)
{
    struct arena arena;
    arena_init(&arena, json.len * 16 + (1 << 16));
    json_value root;
    *out = (struct retention){0};
    deed_status status = json_parse(&arena, json, 0, &root, err);
    if (status == DEED_OK && json_kind_of(root) != JSON_OBJECT) {
        status = deed_fail(err, DEED_INVALID, "stream metadata must be a JSON object, it is %s",
                           json_kind_name(json_kind_of(root)));
    }
    if (status == DEED_OK) status = limits_read(root, out, err);
    arena_done(&arena);
    return status;
}

/* (4): the object, or JSON_NONE if the event counts as empty. DEED_NO_MEMORY */
static deed_status metadata_members(const struct deed_event *event, struct arena *arena,
                                    json_value *out_root, struct deed_error *err)
{
    json_value root;
    *out_root = (json_value){0};
    if (!deed_str_equal(event->type, DEED_STR(METADATA_TYPE))) return DEED_OK;
    deed_status status = json_parse(arena, event->data, 0, &root, err);
    if (status == DEED_NO_MEMORY) return status;
    if (status == DEED_OK && json_kind_of(root) == JSON_OBJECT) *out_root = root;
    return DEED_OK;
}

static bool cache_get(struct store *store, uint64_t position, struct retention *out)
{
    struct retention_entry *entry = &store->retention_cache[position % RETENTION_CACHE_SIZE];
    os_mutex_lock(&store->retention_lock);
    bool found = entry->position == position;
    if (found) *out = entry->retention;
    os_mutex_unlock(&store->retention_lock);
    return found;
}

static void cache_put(struct store *store, uint64_t position, const struct retention *retention)
{
    struct retention_entry *entry = &store->retention_cache[position % RETENTION_CACHE_SIZE];
    os_mutex_lock(&store->retention_lock);
    *entry = (struct retention_entry){position, *retention};
    os_mutex_unlock(&store->retention_lock);
}

static deed_status retention_load(struct store *store, uint64_t position, struct retention *out,
                                  struct deed_error *err)
{
    if (cache_get(store, position, out)) return DEED_OK;
    bool published = position <= log_end(store->log);
    struct arena arena;
    struct deed_event event;
    json_value root;
    struct log_reader *reader = log_reader_create(store->log);
    if (reader == NULL) return deed_fail(err, DEED_NO_MEMORY, "read: out of memory");
    arena_init(&arena, SIZE_MAX);
    deed_status status = log_event(store->log, reader, position, &arena, &event, NULL, err);
    if (status == DEED_OK) status = metadata_members(&event, &arena, &root, err);
    if (status == DEED_OK && limits_read(root, out, NULL) != DEED_OK) *out = (struct retention){0};
    if (status == DEED_OK && published) cache_put(store, position, out);
    arena_done(&arena);
    log_reader_destroy(reader);
    return status;
}

/* All but $tb. Where a limit is malformed none is heeded, and what is written beside it would not be
 * either: then limits stay behind. */
static void copy_members(json_value root, struct json_writer *w)
{
    struct retention limits;
    bool heeded = limits_read(root, &limits, NULL) == DEED_OK;
    for (struct json_iterator i = json_iterate(root); json_next(&i);) {
        bool limit = deed_str_equal(i.key, DEED_STR("$maxCount")) ||
                     deed_str_equal(i.key, DEED_STR("$maxAge"));
        if (deed_str_equal(i.key, DEED_STR("$tb")) || (limit && !heeded)) continue;
        json_key(w, i.key);
        json_put_raw(w, deed_bytes_of(json_raw(i.value)));
    }
}

deed_status retention_set_truncate(struct store *store, const struct stream_state *s,
                                   uint64_t truncate_before, struct buf *out,
                                   struct deed_error *err)
{
    struct arena arena;
    struct deed_event event;
    struct json_writer w;
    json_value root;
    deed_status status = DEED_OK;
    struct log_reader *reader = log_reader_create(store->log);
    if (reader == NULL) return deed_fail(err, DEED_NO_MEMORY, "read: out of memory");
    arena_init(&arena, SIZE_MAX);
    json_writer_init(&w, out);
    json_object_begin(&w);
    if (s->metadata_count > 0) {
        status = log_event(store->log, reader, s->metadata_position, &arena, &event, NULL, err);
        if (status == DEED_OK) status = metadata_members(&event, &arena, &root, err);
        if (status == DEED_OK) copy_members(root, &w);
    }
    json_member_uint(&w, "$tb", truncate_before);
    json_object_end(&w);
    log_reader_destroy(reader);
    arena_done(&arena);
    return status;
}

/* Look the term up for a reader, or for the committer. */
static deed_status list_open(struct store *store, const struct index_view *view,
                             enum index_kind kind, deed_str term, struct arena *arena,
                             struct postings *out, struct deed_error *err)
{
    if (view != NULL) {
        postings_open(out, view, kind, term, arena);
        return DEED_OK;
    }
    struct postings *kept = terms_get(store, kind, term);
    if (kept == NULL) return deed_fail(err, DEED_NO_MEMORY, "index: out of memory");
    *out = *kept; /* the parts are shared */
    return DEED_OK;
}

/* The newest $metadata event of the stream, and how many there are. */
static deed_status metadata_find(struct store *store, const struct index_view *view,
                                 deed_str stream, uint64_t end, struct arena *arena,
                                 struct stream_state *out, struct deed_error *err)
{
    char name[METADATA_NAME_SIZE_MAX];
    struct postings list;
    if (stream.len + 2 > sizeof name) return DEED_OK;
    name[0] = name[1] = '$';
    memcpy(name + 2, stream.ptr, stream.len);
    deed_status status = list_open(store, view, INDEX_STREAM, (deed_str){name, stream.len + 2},
                                   arena, &list, err);
    if (status == DEED_OK) status = postings_count(&list, end, &out->metadata_count, err);
    if (status != DEED_OK || out->metadata_count == 0) return status;
    return postings_last(&list, end, &out->metadata_position, err);
}

deed_status stream_has_metadata(struct store *store, const struct index_view *view,
                                deed_str stream, uint64_t end, struct arena *arena, bool *out_has,
                                struct deed_error *err)
{
    struct stream_state s = {0};
    deed_status status = metadata_find(store, view, stream, end, arena, &s, err);
    if (status == DEED_OK) *out_has = s.metadata_count > 0;
    return status;
}

deed_status stream_lost(struct store *store, deed_str stream, uint64_t last, uint64_t end,
                        struct deed_error *err)
{
    for (uint64_t i = 0; i < chunks_count(&store->lost); i++) {
        const struct lost_range *range = chunks_at(&store->lost, i);
        if (range->accepted || range->first <= last || range->first > end) continue;
        deed_status status = deed_fail(
            err, DEED_CORRUPT,
            "stream %.*s: positions %llu to %llu are damaged, and whether they held events of it "
            "is not known",
            DEED_FMT(stream), (unsigned long long)range->first, (unsigned long long)range->last);
        if (err != NULL) err->position = range->first;
        return status;
    }
    return DEED_OK;
}

deed_status stream_missing(struct store *store, deed_str stream, struct deed_error *err)
{
    deed_status status = stream_lost(store, stream, 0, UINT64_MAX, err);
    if (status != DEED_OK) return status;
    return deed_fail(err, DEED_NOT_FOUND, "stream %.*s: there is no such stream",
                     DEED_FMT(stream));
}

deed_status stream_state_get(struct store *store, const struct index_view *view, deed_str stream,
                             uint64_t end, struct arena *arena, struct stream_state *out,
                             struct deed_error *err)
{
    *out = (struct stream_state){0};
    struct stream_list list = stream_list_of(stream);
    deed_status status = list_open(store, view, list.kind, list.term, arena, &out->list, err);
    if (status == DEED_OK) status = postings_count(&out->list, end, &out->count, err);
    if (status == DEED_OK && list.kind != INDEX_STREAM) {
        return postings_last(&out->list, end, &out->last_position, err);
    }
    if (status == DEED_OK && out->count > 0) {
        struct postings tombstones;
        status = list_open(store, view, INDEX_TYPE, DEED_STR(STORE_TOMBSTONE_TYPE), arena, &tombstones,
                           err);
        if (status == DEED_OK) status = postings_last(&out->list, end, &out->last_position, err);
        if (status == DEED_OK) {
            status = postings_contains(&tombstones, out->last_position, &out->tombstoned, err);
        }
    }
    if (status == DEED_OK) status = metadata_find(store, view, stream, end, arena, out, err);
    if (status != DEED_OK || out->metadata_count == 0) return status;
    status = retention_load(store, out->metadata_position, &out->retention, err);
    bool all = out->retention.truncate_before == RETENTION_DELETED && !PLANTED(DELETED_FOR_EVER);
    if (status != DEED_OK || !all) return status;
    return postings_count(&out->list, out->metadata_position, &out->retention.truncate_before, err);
}

deed_status stream_state_now(struct store *store, deed_str stream, struct stream_state *out,
                             struct deed_error *err)
{
    struct arena arena;
    arena_init(&arena, SIZE_MAX);
    uint64_t end = log_end(store->log);
    const struct index_view *view = index_view_take(store->index);
    deed_status status = stream_state_get(store, view, stream, end, &arena, out, err);
    index_view_drop(view);
    arena_done(&arena);
    out->list = (struct postings){0};
    return status;
}

deed_status store_position_at(struct store *store, int64_t time_ns, uint64_t *out_position,
                              struct deed_error *err)
{
    uint64_t after = 0;
    deed_status status = log_find_time(store->log, time_ns, &after, err);
    if (status == DEED_OK) *out_position = after - 1;
    return status;
}

deed_status store_recorded_at(struct store *store, uint64_t position, int64_t *out_time_ns,
                              struct deed_error *err)
{
    return log_recorded_at(store->log, position, out_time_ns, err);
}

deed_status stream_first_visible(struct store *store, struct stream_state *s,
                                 uint64_t *out_revision, struct deed_error *err)
{
    uint64_t first = s->retention.truncate_before;
    *out_revision = 0;
    if (s->count == 0) return DEED_OK;
    if (s->retention.max_count > 0 && s->count > s->retention.max_count &&
        s->count - s->retention.max_count > first) {
        first = s->count - s->retention.max_count;
    }
    if (s->retention.max_age_ns > 0) {
        int64_t oldest = os_now_ns(store->os) - s->retention.max_age_ns;
        uint64_t position = 0;
        uint64_t expired = 0;
        deed_status status = store_position_at(store, oldest, &position, err);
        if (status == DEED_OK) status = postings_count(&s->list, position, &expired, err);
        if (status != DEED_OK) return status;
        if (expired > first) first = expired;
    }
    *out_revision = first < s->count ? first : s->count;
    return DEED_OK;
}

struct deed_stream_info stream_info_of(const struct stream_state *s, uint64_t first)
{
    return (struct deed_stream_info){
        .revision = s->count == 0 ? DEED_NONE : s->count - 1,
        .first_revision = first < s->count && !s->tombstoned ? first : DEED_NONE,
        .position = s->last_position,
        .deleted = stream_deleted(s),
        .tombstoned = s->tombstoned,
        .metadata_revision = s->metadata_count == 0 ? DEED_NONE : s->metadata_count - 1,
        .max_count = s->retention.max_count,
        .max_age_ns = s->retention.max_age_ns,
        .truncate_before = s->retention.truncate_before,
    };
}

deed_status store_stream(struct store *store, deed_str stream, struct deed_stream_info *out_info,
                         struct deed_error *err)
{
    struct stream_state s;
    struct arena arena;
    uint64_t first = 0;
    arena_init(&arena, SIZE_MAX);
    uint64_t end = log_end(store->log);
    const struct index_view *view = index_view_take(store->index);
    deed_status status = stream_state_get(store, view, stream, end, &arena, &s, err);
    if (status == DEED_OK && s.count == 0) status = stream_missing(store, stream, err);
    if (status == DEED_OK) status = stream_first_visible(store, &s, &first, err);
    index_view_drop(view);
    arena_done(&arena);
    if (status == DEED_OK) *out_info = stream_info_of(&s, first);
    return status;
}

/* ---- metadata ------------------------------------------------------------------------------- */

static deed_status metadata_load(struct store *store, uint64_t position, struct buf *out,
                                 struct deed_error *err)
{
    struct arena arena;
    struct deed_event event;
    json_value root;
    struct log_reader *reader = log_reader_create(store->log);
    if (reader == NULL) return deed_fail(err, DEED_NO_MEMORY, "read: out of memory");
    arena_init(&arena, SIZE_MAX);
    deed_status status = log_event(store->log, reader, position, &arena, &event, NULL, err);
    if (status == DEED_OK) status = metadata_members(&event, &arena, &root, err);
    if (status == DEED_OK) {
        bool empty = json_kind_of(root) == JSON_NONE;
        if (empty) event.data = deed_bytes_of(DEED_STR("{}"));
        buf_add(out, event.data.ptr, event.data.len);
        if (!buf_ok(out)) status = deed_fail(err, DEED_NO_MEMORY, "metadata: out of memory");
    }
    arena_done(&arena);
    log_reader_destroy(reader);
    return status;
}

deed_status store_get_metadata(struct store *store, deed_str stream, struct buf *out,
                               uint64_t *out_revision, struct deed_error *err)
{
    struct stream_state s;
    deed_status status = stream_writable(stream, err);
    if (status == DEED_OK) status = stream_state_now(store, stream, &s, err);
    if (status != DEED_OK) return status;
    if (s.tombstoned) {
        return deed_fail(err, DEED_DELETED, "stream %.*s is deleted for good", DEED_FMT(stream));
    }
    if (s.count == 0 && s.metadata_count == 0) return stream_missing(store, stream, err);
    if (s.metadata_count == 0) {
        buf_add_str(out, DEED_STR("{}"));
        if (!buf_ok(out)) return deed_fail(err, DEED_NO_MEMORY, "metadata: out of memory");
    } else {
        status = metadata_load(store, s.metadata_position, out, err);
    }
    if (status == DEED_OK) *out_revision = s.metadata_count == 0 ? DEED_NONE : s.metadata_count - 1;
    return status;
}

deed_status store_set_metadata(struct store *store, deed_str stream, deed_bytes json,
                               enum deed_expect expect, uint64_t revision, deed_str actor,
                               struct deed_appended *out_appended, struct deed_error *err)
{
    struct arena arena;
    if (stream.len == 0) return deed_fail(err, DEED_INVALID, "stream: must not be empty");
    arena_init(&arena, SIZE_MAX);
    deed_str name = arena_printf(&arena, METADATA_PREFIX "%.*s", DEED_FMT(stream));
    struct deed_new_event event = {
        .stream = name, .type = DEED_STR(METADATA_TYPE), .data = json, .actor = actor};
    struct deed_condition condition = {
        .kind = DEED_CONDITION_STREAM, .stream = name, .expect = expect, .revision = revision};
    struct deed_append append = {.events = &event,
                                 .event_count = 1,
                                 .conditions = &condition,
                                 .condition_count = expect == DEED_EXPECT_ANY ? 0 : 1};
    deed_status status = name.ptr == NULL
                             ? deed_fail(err, DEED_NO_MEMORY, "metadata: out of memory")
                             : store_append(store, &append, out_appended, err);
    arena_done(&arena);
    return status;
}
