/* check.c - what an append must be, whatever the store holds. */
#include "store/store_state.h"

#include "base/hash.h"
#include "base/text.h"
#include "base/uuid.h"
#include "json/json.h"

#include <stdlib.h>

/* What of a name goes into a message. */
#define NAME_SHOWN_MAX 40

static deed_status check_name_size(uint32_t size_max, const char *what, deed_str name,
                                   bool required, struct deed_error *err)
{
    if (name.len == 0) {
        if (!required) return DEED_OK;
        return deed_fail(err, DEED_INVALID, "%s: must not be empty", what);
    }
    if (name.len > size_max) {
        return deed_fail(err, DEED_TOO_LARGE, "%s \"%.*s…\": %zu bytes, limit %u", what,
                         DEED_FMT(str_beginning(name, NAME_SHOWN_MAX)), name.len, size_max);
    }
    if (!utf8_valid(deed_bytes_of(name))) {
        return deed_fail(err, DEED_INVALID, "%s: not valid UTF-8", what);
    }
    for (size_t i = 0; i < name.len; i++) {
        unsigned char c = (unsigned char)name.ptr[i];
        if (c < 0x20 || c == 0x7f) {
            return deed_fail(err, DEED_INVALID, "%s: control character %#04x at byte %zu", what, c,
                             i);
        }
    }
    return DEED_OK;
}

static deed_status check_name(const struct deed_limits *limits, const char *what, deed_str name,
                              bool required, struct deed_error *err)
{
    return check_name_size(limits->name_size_max, what, name, required, err);
}

/* The longest name has metadata too: its "$$" comes on top. */
static deed_status check_stream(const struct deed_limits *limits, const char *what, deed_str name,
                                struct deed_error *err)
{
    uint32_t more = str_starts_with(name, DEED_STR(METADATA_PREFIX)) ? 2 : 0;
    return check_name_size(limits->name_size_max + more, what, name, true, err);
}

static deed_status check_tags(const struct deed_limits *limits, const deed_str *tags, size_t count,
                              struct deed_error *err)
{
    if (count > limits->tag_count_max) {
        return deed_fail(err, DEED_TOO_LARGE, "tags: %zu, limit %u", count, limits->tag_count_max);
    }
    for (size_t i = 0; i < count; i++) {
        deed_status status = check_name(limits, "tag", tags[i], true, err);
        if (status != DEED_OK) return status;
    }
    return DEED_OK;
}

static bool is_json(deed_str content_type)
{
    if (content_type.len == 0) return true;
    deed_str base = content_type;
    const char *semicolon = memchr(base.ptr, ';', base.len);
    if (semicolon != NULL) base.len = (size_t)(semicolon - base.ptr);
    while (base.len > 0 && base.ptr[base.len - 1] == ' ') base.len--;
    if (deed_str_equal(base, DEED_STR("application/json"))) return true;
    return base.len > 5 && memcmp(base.ptr + base.len - 5, "+json", 5) == 0;
}

/* A foreign client may write any metadata of a stream; what is none counts as empty. */
static deed_status check_reserved(const struct deed_new_event *e, bool foreign,
                                  struct deed_error *err)
{
    struct retention retention;
    if (deed_str_equal(e->stream, DEED_STR(LOG_STREAM))) {
        return deed_fail(err, DEED_INVALID, "stream " LOG_STREAM " is the log's own");
    }
    if (deed_str_equal(e->stream, DEED_STR(ALL_STREAM))) {
        return deed_fail(err, DEED_INVALID, "stream " ALL_STREAM " is the log itself");
    }
    if (deed_str_equal(e->type, DEED_STR(STORE_TOMBSTONE_TYPE))) {
        return deed_fail(err, DEED_INVALID,
                         "type " STORE_TOMBSTONE_TYPE " is reserved: delete the stream instead");
    }
    if (deed_str_equal(e->stream, DEED_STR(METADATA_PREFIX))) {
        return deed_fail(err, DEED_INVALID,
                         "stream " METADATA_PREFIX ": the name of the stream it is of is missing");
    }
    if (!str_starts_with(e->stream, DEED_STR(METADATA_PREFIX)) || foreign) return DEED_OK;
    /* The newest event of such a stream is the metadata, whatever its type says. */
    if (!deed_str_equal(e->type, DEED_STR(METADATA_TYPE))) {
        return deed_fail(err, DEED_INVALID,
                         "stream %.*s holds metadata: type \"%.*s\" should be " METADATA_TYPE,
                         DEED_FMT(str_beginning(e->stream, NAME_SHOWN_MAX)),
                         DEED_FMT(str_beginning(e->type, NAME_SHOWN_MAX)));
    }
    return retention_parse(e->data, &retention, err);
}

static deed_status check_names(const struct deed_limits *limits, const struct deed_new_event *e,
                               bool system, struct deed_error *err)
{
    deed_status status = check_stream(limits, "stream", e->stream, err);
    if (status == DEED_OK) status = stream_writable(e->stream, err);
    /* The system's own types are good below any limit. */
    if (status == DEED_OK && !system) status = check_name(limits, "type", e->type, true, err);
    if (status == DEED_OK) status = check_name(limits, "content type", e->content_type, false, err);
    if (status == DEED_OK) {
        status = check_name(limits, "correlation id", e->correlation_id, false, err);
    }
    if (status == DEED_OK) status = check_name(limits, "causation id", e->causation_id, false, err);
    if (status == DEED_OK) status = check_name(limits, "actor", e->actor, false, err);
    if (status == DEED_OK) status = check_tags(limits, e->tags, e->tag_count, err);
    return status;
}

/* What the client brings, as event_size_max counts it. */
static uint64_t content_size(const struct deed_new_event *e)
{
    uint64_t size = e->data.len + e->metadata.len + e->stream.len + e->type.len +
                    e->content_type.len + e->correlation_id.len + e->causation_id.len +
                    e->actor.len;
    for (size_t i = 0; i < e->tag_count; i++) size += e->tags[i].len;
    return size;
}

static deed_status check_event(const struct deed_limits *limits, const struct deed_new_event *e,
                               enum append_writer writer, struct deed_error *err)
{
    bool system = writer == APPEND_BY_SYSTEM;
    bool foreign = writer == APPEND_BY_FOREIGN;
    deed_status status = check_names(limits, e, system, err);
    if (status != DEED_OK) return status;

    uint64_t size = content_size(e);
    if (size > limits->event_size_max) {
        return deed_fail(err, DEED_TOO_LARGE, "event of type \"%.*s\": %llu bytes, limit %llu",
                         DEED_FMT(e->type), (unsigned long long)size,
                         (unsigned long long)limits->event_size_max);
    }
    if (!foreign && is_json(e->content_type)) {
        status = json_check(e->data, limits->json_depth_max, err);
        if (status != DEED_OK) deed_wrap(err, "data");
    }
    bool look = !foreign && !e->metadata_unchecked && e->metadata.len > 0;
    if (status == DEED_OK && look) {
        status = json_check(e->metadata, limits->json_depth_max, err);
        if (status != DEED_OK) deed_wrap(err, "metadata");
    }
    if (status == DEED_OK && !system) status = check_reserved(e, foreign, err);
    return status;
}

static deed_status check_condition(const struct deed_limits *limits, const struct deed_condition *c,
                                   struct deed_error *err)
{
    if (c->kind == DEED_CONDITION_STREAM) {
        if ((unsigned)c->expect > DEED_EXPECT_TOMBSTONED) {
            return deed_fail(err, DEED_INVALID, "condition: expect %d is not known",
                             (int)c->expect);
        }
        deed_status status = check_stream(limits, "condition's stream", c->stream, err);
        return status == DEED_OK ? stream_writable(c->stream, err) : status;
    }
    if (c->kind != DEED_CONDITION_NO_MATCH) {
        return deed_fail(err, DEED_INVALID, "condition: kind %d is not known", (int)c->kind);
    }
    if (c->item_count == 0) {
        return deed_fail(err, DEED_INVALID, "condition: no_match needs at least one item");
    }
    for (size_t i = 0; i < c->item_count; i++) {
        const struct deed_query_item *item = &c->items[i];
        deed_status status = check_tags(limits, item->tags, item->tag_count, err);
        for (size_t k = 0; status == DEED_OK && k < item->type_count; k++) {
            status = check_name(limits, "type", item->types[k], true, err);
        }
        if (status != DEED_OK) return status;
    }
    return DEED_OK;
}

struct id_place {
    deed_uuid id;
    deed_str stream;
};

static int id_place_order(const void *a, const void *b)
{
    const struct id_place *x = a;
    const struct id_place *y = b;
    int order = memcmp(x->id.bytes, y->id.bytes, sizeof x->id.bytes);
    return order != 0 ? order : str_compare(x->stream, y->stream);
}

/* An id may stand once in a stream, so once in an append too. */
deed_status append_ids_repeat(const struct deed_append *append, bool *out_repeat,
                              deed_uuid *out_id, struct deed_error *err)
{
    *out_repeat = false;
    if (append->event_count < 2) return DEED_OK;
    struct id_place *places = calloc(append->event_count, sizeof *places);
    if (places == NULL) return deed_fail(err, DEED_NO_MEMORY, "append: out of memory");
    size_t count = 0;
    for (size_t i = 0; i < append->event_count; i++) {
        if (uuid_is_zero(append->events[i].id)) continue;
        places[count++] = (struct id_place){append->events[i].id, append->events[i].stream};
    }
    qsort(places, count, sizeof *places, id_place_order);
    for (size_t i = 1; i < count && !*out_repeat; i++) {
        if (id_place_order(&places[i - 1], &places[i]) != 0) continue;
        *out_repeat = true;
        if (out_id != NULL) *out_id = places[i].id;
    }
    free(places);
    return DEED_OK;
}

static deed_status check_ids(const struct deed_append *append, struct deed_error *err)
{
    deed_uuid id;
    bool repeat;
    deed_status status = append_ids_repeat(append, &repeat, &id, err);
    if (status != DEED_OK || !repeat) return status;
    char text[UUID_TEXT_SIZE + 1];
    uuid_format(id, text);
    return deed_fail(err, DEED_INVALID, "event id %s stands twice in this append", text);
}

deed_status append_check(const struct deed_limits *limits, const struct deed_append *append,
                         enum append_writer writer, uint64_t *out_size, struct deed_error *err)
{
    bool only_asks = writer == APPEND_BY_FOREIGN && append->condition_count > 0;
    if (append->event_count == 0 && !only_asks) {
        return deed_fail(err, DEED_INVALID, "an append needs at least one event");
    }
    if (append->event_count > limits->commit_count_max) {
        return deed_fail(err, DEED_TOO_LARGE, "append: %zu events, limit %u", append->event_count,
                         limits->commit_count_max);
    }
    if (append->condition_count > limits->condition_count_max) {
        return deed_fail(err, DEED_TOO_LARGE, "append: %zu conditions, limit %u",
                         append->condition_count, limits->condition_count_max);
    }
    uint64_t size = COMMIT_HEAD_SIZE + COMMIT_ALIGN + append->idempotency_key.len;
    deed_status status =
        check_name(limits, "idempotency key", append->idempotency_key, false, err);
    for (size_t i = 0; status == DEED_OK && i < append->event_count; i++) {
        status = check_event(limits, &append->events[i], writer, err);
        if (status != DEED_OK && append->event_count > 1) deed_wrap(err, "event %zu", i);
        size += event_size(&append->events[i], (deed_str){0});
    }
    for (size_t i = 0; status == DEED_OK && i < append->condition_count; i++) {
        status = check_condition(limits, &append->conditions[i], err);
        if (status != DEED_OK) deed_wrap(err, "condition %zu", i);
    }
    if (status == DEED_OK && writer != APPEND_BY_FOREIGN) status = check_ids(append, err);
    if (status == DEED_OK && size > limits->commit_size_max) {
        return deed_fail(err, DEED_TOO_LARGE, "append: %llu bytes, limit %llu",
                         (unsigned long long)size, (unsigned long long)limits->commit_size_max);
    }
    if (status == DEED_OK) *out_size = size;
    return status;
}
