/* event_body.c - one table of members, one pass over each object.
 *
 * (1) A member is read by exactly one case; what has none is refused by name. Duplicates the JSON
 *     parser has refused already.
 * (2) null is "not given", except as data, where it is JSON's null. */
#include "api/event_body.h"

#include "api/cloudevent.h"
#include "api/token.h"
#include "base/text.h"
#include "base/timetext.h"
#include "base/uuid.h"
#include "json/json.h"

/* What of a client's text goes into a message. */
#define QUOTED_SIZE_MAX 80

static deed_str quoted(deed_str text)
{
    return str_beginning(text, QUOTED_SIZE_MAX);
}

struct body {
    struct arena *arena;
    const struct event_defaults *defaults;
    struct deed_error *err;
};

static deed_status no_memory(struct body *b)
{
    return deed_fail(b->err, DEED_NO_MEMORY, "body: no memory left for it");
}

static deed_status wrong_member(struct body *b, deed_str name, json_value value, const char *wanted)
{
    return deed_fail(b->err, DEED_INVALID, "%.*s: %.*s is not %s", DEED_FMT(quoted(name)),
                     DEED_FMT(quoted(json_raw(value))), wanted);
}

static deed_status unknown_member(struct body *b, deed_str name, const char *known)
{
    if (deed_str_equal(name, DEED_STR("specversion"))) {
        return deed_fail(b->err, DEED_INVALID,
                         "member \"specversion\" is unknown: a CloudEvent goes in as "
                         "application/cloudevents+json");
    }
    return deed_fail(b->err, DEED_INVALID, "member \"%.*s\" is unknown; known: %s",
                     DEED_FMT(quoted(name)), known);
}

static deed_status take_text(struct body *b, deed_str name, json_value value, deed_str *out)
{
    if (json_kind_of(value) == JSON_NULL) return DEED_OK; /* (2) */
    deed_str text = json_text(value);
    if (text.ptr == NULL) return wrong_member(b, name, value, "a text");
    *out = text;
    return DEED_OK;
}

/* A list of texts; null and a missing one are empty. */
static deed_status take_texts(struct body *b, deed_str name, json_value value,
                              const deed_str **out_texts, size_t *out_count)
{
    if (json_kind_of(value) == JSON_NULL || json_kind_of(value) == JSON_NONE) return DEED_OK;
    if (json_kind_of(value) != JSON_ARRAY) return wrong_member(b, name, value, "a list of texts");

    deed_str *texts = arena_alloc_array(b->arena, json_count(value), sizeof *texts);
    if (texts == NULL) return no_memory(b);
    size_t count = 0;
    for (struct json_iterator i = json_iterate(value); json_next(&i);) {
        texts[count] = json_text(i.value);
        if (texts[count].ptr == NULL) return wrong_member(b, name, i.value, "a text");
        count++;
    }
    *out_texts = texts;
    *out_count = count;
    return DEED_OK;
}

/* 12 or "12": positions come as texts in CloudEvents. */
static bool whole_number(json_value value, uint64_t *out)
{
    deed_str text = json_text(value);
    bool good = text.ptr != NULL ? text_u64(text, out) : json_uint64(value, out);
    return good && *out != DEED_NONE;
}

/* ---- an event ----------------------------------------------------------------------------- */

#define EVENT_MEMBERS                                                                              \
    "stream, type, data, data_base64, id, metadata, tags, time, datacontenttype, correlation_id, " \
    "causation_id, actor"

enum event_member {
    EVENT_STREAM,
    EVENT_TYPE,
    EVENT_DATA,
    EVENT_DATA_BASE64,
    EVENT_ID,
    EVENT_METADATA,
    EVENT_TAGS,
    EVENT_TIME,
    EVENT_DATACONTENTTYPE,
    EVENT_CORRELATION_ID,
    EVENT_CAUSATION_ID,
    EVENT_ACTOR,
    EVENT_UNKNOWN
};

static enum event_member event_member_of(deed_str name)
{
    static const char *const names[EVENT_UNKNOWN] = {
        "stream", "type", "data",            "data_base64",    "id",           "metadata",
        "tags",   "time", "datacontenttype", "correlation_id", "causation_id", "actor"};
    size_t i = 0;
    while (i < EVENT_UNKNOWN && !deed_str_equal(name, deed_str_of(names[i]))) i++;
    return (enum event_member)i;
}

static deed_status take_id(struct body *b, json_value value, deed_uuid *out)
{
    deed_str text = {0};
    deed_status status = take_text(b, DEED_STR("id"), value, &text);
    if (status != DEED_OK || text.ptr == NULL) return status;
    if (!uuid_parse(text, out)) return wrong_member(b, DEED_STR("id"), value, "a UUID");
    if (uuid_is_zero(*out)) {
        return wrong_member(b, DEED_STR("id"), value, "an id: the nil UUID is nobody's");
    }
    return DEED_OK;
}

static deed_status take_time(struct body *b, json_value value, int64_t *out, bool *out_given)
{
    deed_str text = {0};
    deed_status status = take_text(b, DEED_STR("time"), value, &text);
    if (status != DEED_OK || text.ptr == NULL) return status;
    if (!time_parse(text, out)) {
        return wrong_member(b, DEED_STR("time"), value, "a time as RFC 3339 has it");
    }
    *out_given = true;
    return DEED_OK;
}

static deed_status take_metadata(struct body *b, json_value value, deed_bytes *out)
{
    if (json_kind_of(value) == JSON_NULL) return DEED_OK;
    if (json_kind_of(value) != JSON_OBJECT) {
        return wrong_member(b, DEED_STR("metadata"), value, "an object");
    }
    *out = deed_bytes_of(json_raw(value));
    return DEED_OK;
}

struct event_parts {
    struct deed_new_event event;
    json_value data, data_base64;
};

static deed_status take_event_member(struct body *b, const struct json_iterator *i,
                                     struct event_parts *parts)
{
    struct deed_new_event *event = &parts->event;
    switch (event_member_of(i->key)) {
    case EVENT_STREAM:
        if (b->defaults->stream.ptr != NULL) {
            return deed_fail(b->err, DEED_INVALID, "stream: the path names it already");
        }
        return take_text(b, i->key, i->value, &event->stream);
    case EVENT_TYPE:
        return take_text(b, i->key, i->value, &event->type);
    case EVENT_DATA:
        parts->data = i->value;
        return DEED_OK;
    case EVENT_DATA_BASE64:
        if (json_kind_of(i->value) != JSON_NULL) parts->data_base64 = i->value;
        return DEED_OK;
    case EVENT_ID:
        return take_id(b, i->value, &event->id);
    case EVENT_METADATA:
        return take_metadata(b, i->value, &event->metadata);
    case EVENT_TAGS:
        return take_texts(b, i->key, i->value, &event->tags, &event->tag_count);
    case EVENT_TIME:
        return take_time(b, i->value, &event->time_ns, &event->has_time);
    case EVENT_DATACONTENTTYPE:
        return take_text(b, i->key, i->value, &event->content_type);
    case EVENT_CORRELATION_ID:
        return take_text(b, i->key, i->value, &event->correlation_id);
    case EVENT_CAUSATION_ID:
        return take_text(b, i->key, i->value, &event->causation_id);
    case EVENT_ACTOR:
        return take_text(b, i->key, i->value, &event->actor);
    case EVENT_UNKNOWN:
        break;
    }
    return unknown_member(b, i->key, EVENT_MEMBERS);
}

static deed_status take_data(struct body *b, struct event_parts *parts)
{
    struct deed_new_event *event = &parts->event;
    if (json_kind_of(parts->data_base64) != JSON_NONE) {
        if (json_kind_of(parts->data) != JSON_NONE) {
            return deed_fail(b->err, DEED_INVALID, "data and data_base64 are both given");
        }
        return base64_to_arena(b->arena, json_text(parts->data_base64), "data_base64", &event->data,
                               b->err);
    }
    if (json_kind_of(parts->data) == JSON_NONE) {
        if (!content_type_is_json(event->content_type)) return DEED_OK; /* no bytes at all */
        return deed_fail(b->err, DEED_INVALID, "member \"data\" is missing; null is data, too");
    }
    /* As in CloudEvents: a text under a content type that is not JSON is the data itself. */
    if (json_kind_of(parts->data) == JSON_STRING && !content_type_is_json(event->content_type)) {
        event->data = deed_bytes_of(json_text(parts->data));
    } else {
        event->data = deed_bytes_of(json_raw(parts->data));
    }
    return DEED_OK;
}

static void put_default(deed_str *field, deed_str fallback)
{
    if (field->ptr == NULL) *field = fallback;
}

static deed_status event_parse(struct body *b, json_value value, struct deed_new_event *out)
{
    struct event_parts parts = {.event.stream = b->defaults->stream};
    if (b->defaults->is_cloudevent) {
        struct cloudevent cloudevent;
        deed_status status =
            cloudevent_parse(b->arena, value, b->defaults->stream, &cloudevent, b->err);
        if (status != DEED_OK) return status;
        parts.event = cloudevent.event;
    } else {
        if (json_kind_of(value) != JSON_OBJECT) {
            return deed_fail(b->err, DEED_INVALID, "%s, where an object is wanted",
                             json_kind_name(json_kind_of(value)));
        }
        for (struct json_iterator i = json_iterate(value); json_next(&i);) {
            deed_status status = take_event_member(b, &i, &parts);
            if (status != DEED_OK) return status;
        }
        if (parts.event.stream.len == 0) {
            return deed_fail(b->err, DEED_INVALID, "member \"stream\" is missing");
        }
        if (parts.event.type.len == 0) {
            return deed_fail(b->err, DEED_INVALID, "member \"type\" is missing");
        }
        deed_status status = take_data(b, &parts);
        if (status != DEED_OK) return status;
    }
    put_default(&parts.event.actor, b->defaults->actor);
    put_default(&parts.event.correlation_id, b->defaults->correlation_id);
    put_default(&parts.event.causation_id, b->defaults->causation_id);
    *out = parts.event;
    return DEED_OK;
}

static deed_status events_parse(struct body *b, json_value list, struct deed_append *append)
{
    bool is_list = json_kind_of(list) == JSON_ARRAY;
    size_t count = is_list ? json_count(list) : 1;
    if (count == 0) return deed_fail(b->err, DEED_INVALID, "events: none is given");

    struct deed_new_event *events = arena_alloc_array(b->arena, count, sizeof *events);
    if (events == NULL) return no_memory(b);
    append->events = events;
    append->event_count = count;
    if (!is_list) {
        deed_status status = event_parse(b, list, &events[0]);
        return status == DEED_OK ? status : (deed_wrap(b->err, "event 0"), status);
    }
    for (struct json_iterator i = json_iterate(list); json_next(&i);) {
        deed_status status = event_parse(b, i.value, &events[i.index]);
        if (status != DEED_OK) return deed_wrap(b->err, "event %zu", i.index), status;
    }
    return DEED_OK;
}

/* ---- conditions --------------------------------------------------------------------------- */

static deed_status item_parse(struct body *b, json_value value, struct deed_query_item *out)
{
    struct deed_query_item item = {0};
    if (json_kind_of(value) != JSON_OBJECT) {
        return wrong_member(b, DEED_STR("no_match"), value, "an object with types and tags");
    }
    for (struct json_iterator i = json_iterate(value); json_next(&i);) {
        deed_status status;
        if (deed_str_equal(i.key, DEED_STR("types"))) {
            status = take_texts(b, i.key, i.value, &item.types, &item.type_count);
        } else if (deed_str_equal(i.key, DEED_STR("tags"))) {
            status = take_texts(b, i.key, i.value, &item.tags, &item.tag_count);
        } else {
            status = unknown_member(b, i.key, "types, tags");
        }
        if (status != DEED_OK) return status;
    }
    *out = item;
    return DEED_OK;
}

static deed_status no_match_parse(struct body *b, json_value list, struct deed_condition *out)
{
    if (json_kind_of(list) != JSON_ARRAY || json_count(list) == 0) {
        return wrong_member(b, DEED_STR("no_match"), list, "a list of at least one item");
    }
    struct deed_query_item *items = arena_alloc_array(b->arena, json_count(list), sizeof *items);
    if (items == NULL) return no_memory(b);
    for (struct json_iterator i = json_iterate(list); json_next(&i);) {
        deed_status status = item_parse(b, i.value, &items[i.index]);
        if (status != DEED_OK) return status;
    }
    out->kind = DEED_CONDITION_NO_MATCH;
    out->items = items;
    out->item_count = json_count(list);
    return DEED_OK;
}

static deed_status revision_parse(struct body *b, json_value value, struct deed_condition *out)
{
    deed_str text = json_text(value);
    if (whole_number(value, &out->revision)) {
        out->expect = DEED_EXPECT_REVISION;
    } else if (deed_str_equal(text, DEED_STR("none"))) {
        out->expect = DEED_EXPECT_NONE;
    } else if (deed_str_equal(text, DEED_STR("exists"))) {
        out->expect = DEED_EXPECT_EXISTS;
    } else {
        return wrong_member(b, DEED_STR("revision"), value,
                            "a revision, \"none\" or \"exists\"");
    }
    return DEED_OK;
}

static deed_status stream_condition_parse(struct body *b, json_value object,
                                          struct deed_condition *out)
{
    out->kind = DEED_CONDITION_STREAM;
    bool has_revision = false;
    for (struct json_iterator i = json_iterate(object); json_next(&i);) {
        deed_status status;
        if (deed_str_equal(i.key, DEED_STR("stream"))) {
            status = take_text(b, i.key, i.value, &out->stream);
        } else if (deed_str_equal(i.key, DEED_STR("revision"))) {
            status = revision_parse(b, i.value, out);
            has_revision = true;
        } else {
            status = unknown_member(b, i.key, "stream, revision");
        }
        if (status != DEED_OK) return status;
    }
    if (out->stream.len == 0) {
        return deed_fail(b->err, DEED_INVALID, "member \"stream\" is missing");
    }
    if (!has_revision) return deed_fail(b->err, DEED_INVALID, "member \"revision\" is missing");
    return DEED_OK;
}

/* A position, bare or in a token of this log. */
static deed_status after_parse(struct body *b, json_value value, uint64_t *out)
{
    deed_str text = json_text(value);
    bool token = text.ptr != NULL && memchr(text.ptr, '.', text.len) != NULL;
    if (!token || b->defaults->api == NULL) {
        if (whole_number(value, out)) return DEED_OK;
        return wrong_member(b, DEED_STR("after"), value, "a position");
    }
    deed_status status = token_parse(b->defaults->api, TOKEN_POSITION, text, out, b->err);
    if (status != DEED_OK) deed_wrap(b->err, "after");
    return status;
}

static deed_status condition_parse(struct body *b, json_value object, struct deed_condition *out)
{
    if (json_kind_of(object) != JSON_OBJECT) {
        return deed_fail(b->err, DEED_INVALID, "%s, where an object is wanted",
                         json_kind_name(json_kind_of(object)));
    }
    if (json_kind_of(json_get(object, DEED_STR("no_match"))) == JSON_NONE) {
        return stream_condition_parse(b, object, out);
    }
    for (struct json_iterator i = json_iterate(object); json_next(&i);) {
        deed_status status = DEED_OK;
        if (deed_str_equal(i.key, DEED_STR("no_match"))) {
            status = no_match_parse(b, i.value, out);
        } else if (!deed_str_equal(i.key, DEED_STR("after"))) {
            status = unknown_member(b, i.key, "no_match, after");
        } else if (json_kind_of(i.value) != JSON_NULL) {
            status = after_parse(b, i.value, &out->after);
        }
        if (status != DEED_OK) return status;
    }
    return DEED_OK;
}

static deed_status conditions_parse(struct body *b, json_value list, struct deed_append *append)
{
    if (json_kind_of(list) == JSON_NONE || json_kind_of(list) == JSON_NULL) return DEED_OK;
    if (json_kind_of(list) != JSON_ARRAY) {
        return wrong_member(b, DEED_STR("conditions"), list, "a list");
    }
    struct deed_condition *conditions =
        arena_alloc_array(b->arena, json_count(list), sizeof *conditions);
    if (conditions == NULL) return no_memory(b);
    for (struct json_iterator i = json_iterate(list); json_next(&i);) {
        deed_status status = condition_parse(b, i.value, &conditions[i.index]);
        if (status != DEED_OK) return deed_wrap(b->err, "condition %zu", i.index), status;
    }
    append->conditions = conditions;
    append->condition_count = json_count(list);
    return DEED_OK;
}

/* ---- the bodies --------------------------------------------------------------------------- */

/* `levels`: how deep in the body an event's data may begin. */
static deed_status body_parse(struct body *b, deed_bytes text, uint32_t levels, json_value *out)
{
    uint32_t depth = b->defaults->depth_max == 0 ? 64 : b->defaults->depth_max;
    deed_status status = json_parse(b->arena, text, depth + levels, out, b->err);
    if (status != DEED_OK) deed_wrap(b->err, "body");
    return status;
}

deed_status event_body_parse(struct arena *arena, deed_bytes body,
                             const struct event_defaults *defaults, struct deed_append *out_append,
                             struct deed_error *err)
{
    struct body b = {.arena = arena, .defaults = defaults, .err = err};
    struct deed_append append = {0};
    json_value root;
    deed_status status = body_parse(&b, body, 2, &root);
    if (status == DEED_OK) status = events_parse(&b, root, &append);
    if (status == DEED_OK) *out_append = append;
    return status;
}

static deed_status append_members(struct body *b, json_value root, struct deed_append *append)
{
    if (json_kind_of(root) != JSON_OBJECT) {
        return deed_fail(b->err, DEED_INVALID, "body: %s, where an object is wanted",
                         json_kind_name(json_kind_of(root)));
    }
    for (struct json_iterator i = json_iterate(root); json_next(&i);) {
        if (deed_str_equal(i.key, DEED_STR("events")) ||
            deed_str_equal(i.key, DEED_STR("conditions"))) {
            continue;
        }
        return unknown_member(b, i.key, "events, conditions");
    }
    json_value events = json_get(root, DEED_STR("events"));
    if (json_kind_of(events) == JSON_NONE) {
        return deed_fail(b->err, DEED_INVALID, "member \"events\" is missing");
    }
    if (json_kind_of(events) != JSON_ARRAY) {
        return wrong_member(b, DEED_STR("events"), events, "a list");
    }
    deed_status status = events_parse(b, events, append);
    if (status != DEED_OK) return status;
    return conditions_parse(b, json_get(root, DEED_STR("conditions")), append);
}

deed_status append_body_parse(struct arena *arena, deed_bytes body,
                              const struct event_defaults *defaults, struct deed_append *out_append,
                              struct deed_error *err)
{
    struct body b = {.arena = arena, .defaults = defaults, .err = err};
    struct deed_append append = {0};
    json_value root;
    deed_status status = body_parse(&b, body, 3, &root);
    if (status == DEED_OK) status = append_members(&b, root, &append);
    if (status == DEED_OK) *out_append = append;
    return status;
}
