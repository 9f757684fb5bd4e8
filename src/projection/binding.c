/* binding.c - one case a source.
 *
 * (1) Nothing is copied: text and JSON bind as SQLITE_STATIC slices of the event or its arena.
 * (2) Data is parsed once an event, and only if a parameter looks into it. */
#include "projection/binding.h"

#include "base/timetext.h"
#include "base/uuid.h"
#include "index/index.h"

#include <assert.h>

/* A value on its way into SQLite. */
struct value {
    enum { VALUE_MISSING, VALUE_NULL, VALUE_INTEGER, VALUE_DOUBLE, VALUE_TEXT, VALUE_BLOB } kind;
    int64_t integer;
    double fraction;
    deed_str text;
};

static struct value text_value(deed_str text)
{
    return (struct value){.kind = VALUE_TEXT, .text = text};
}

static struct value text_or_null(deed_str text)
{
    return text.len == 0 ? (struct value){.kind = VALUE_NULL} : text_value(text);
}

static struct value integer_value(uint64_t number)
{
    assert(number <= INT64_MAX); /* positions and revisions count events */
    return (struct value){.kind = VALUE_INTEGER, .integer = (int64_t)number};
}

void binding_event_init(struct binding_event *e, const struct deed_event *event,
                        struct arena *arena)
{
    e->event = event;
    e->arena = arena;
    e->data_parsed = false;
    e->metadata_parsed = false;
}

/* ---- JSON ----------------------------------------------------------------------------------- */

static deed_status parse_part(struct binding_event *e, deed_bytes text, json_value *out,
                              struct deed_error *err)
{
    *out = (json_value){0};
    if (text.len == 0) return DEED_OK;
    struct deed_error why = {0};
    deed_status status = json_parse(e->arena, text, 0, out, &why);
    /* Other content types hold any bytes: there is nothing to find in them. */
    if (status == DEED_INVALID) return DEED_OK;
    if (status != DEED_OK) return deed_fail(err, DEED_NO_MEMORY, "%s", why.message);
    return DEED_OK;
}

static deed_status part_of(struct binding_event *e, bool is_data, json_value *out,
                           struct deed_error *err)
{
    bool *parsed = is_data ? &e->data_parsed : &e->metadata_parsed;
    json_value *kept = is_data ? &e->data : &e->metadata;
    deed_status status = DEED_OK;
    if (!*parsed) {
        status = parse_part(e, is_data ? e->event->data : e->event->metadata, kept, err);
        *parsed = status == DEED_OK;
    }
    *out = *kept;
    return status;
}

static json_value follow(json_value value, const struct projection_binding *binding)
{
    for (size_t i = 0; i < binding->step_count; i++) {
        const struct projection_step *step = &binding->steps[i];
        if (json_kind_of(value) == JSON_ARRAY) {
            value = step->is_index ? json_at(value, step->index) : (json_value){0};
        } else {
            value = json_get(value, step->key);
        }
    }
    return value;
}

static bool is_written_as_integer(deed_str number)
{
    for (size_t i = 0; i < number.len; i++) {
        char c = number.ptr[i];
        if (c == '.' || c == 'e' || c == 'E') return false;
    }
    return true;
}

static deed_status number_value(json_value number, const struct projection_binding *binding,
                                struct value *out, struct deed_error *err)
{
    if (json_int64(number, &out->integer)) {
        out->kind = VALUE_INTEGER;
        return DEED_OK;
    }
    deed_str raw = json_raw(number);
    if (!is_written_as_integer(raw) && json_double(number, &out->fraction)) {
        out->kind = VALUE_DOUBLE;
        return DEED_OK;
    }
    if (raw.len > 60) raw.len = 60;
    return deed_fail(err, DEED_INVALID, "the number at %.*s is out of range: %.*s",
                     DEED_FMT(binding->name), DEED_FMT(raw));
}

static deed_status json_value_of(json_value json, const struct projection_binding *binding,
                                 struct value *out, struct deed_error *err)
{
    *out = (struct value){.kind = VALUE_MISSING};
    switch (json_kind_of(json)) {
    case JSON_NONE:
        return DEED_OK;
    case JSON_NULL:
        out->kind = VALUE_NULL;
        return DEED_OK;
    case JSON_FALSE:
    case JSON_TRUE:
        *out = integer_value(json_kind_of(json) == JSON_TRUE);
        return DEED_OK;
    case JSON_NUMBER:
        return number_value(json, binding, out, err);
    case JSON_STRING:
        *out = text_value(json_text(json));
        return DEED_OK;
    case JSON_ARRAY:
    case JSON_OBJECT:
        *out = text_value(json_raw(json));
        return DEED_OK;
    }
    return DEED_OK;
}

/* Data as a whole: its JSON text, or bytes of another content type. */
static deed_status whole_value(struct binding_event *e, bool is_data, struct value *out,
                               struct deed_error *err)
{
    deed_bytes bytes = is_data ? e->event->data : e->event->metadata;
    json_value parsed;
    deed_status status = part_of(e, is_data, &parsed, err);
    if (status != DEED_OK) return status;
    *out = text_value((deed_str){(const char *)bytes.ptr, bytes.len});
    if (json_kind_of(parsed) == JSON_NONE) out->kind = bytes.len == 0 ? VALUE_MISSING : VALUE_BLOB;
    return DEED_OK;
}

static deed_status part_value(struct binding_event *e, const struct projection_binding *binding,
                              struct value *out, struct deed_error *err)
{
    bool is_data = binding->source == PROJECTION_DATA;
    if (binding->step_count == 0) return whole_value(e, is_data, out, err);
    json_value part;
    deed_status status = part_of(e, is_data, &part, err);
    if (status != DEED_OK) return status;
    return json_value_of(follow(part, binding), binding, out, err);
}

/* ---- the rest of an event ------------------------------------------------------------------- */

static deed_status tags_value(struct binding_event *e, struct value *out, struct deed_error *err)
{
    struct buf text;
    buf_init(&text, 16u << 20);
    struct json_writer w;
    json_writer_init(&w, &text);
    json_array_begin(&w);
    for (size_t i = 0; i < e->event->tag_count; i++)
        json_put_text(&w, e->event->tags[i]);
    json_array_end(&w);
    deed_str kept = buf_ok(&text) ? arena_str(e->arena, buf_str(&text)) : (deed_str){0};
    buf_done(&text);
    if (kept.ptr == NULL) return deed_fail(err, DEED_NO_MEMORY, "no memory for tags");
    *out = text_value(kept);
    return DEED_OK;
}

static deed_status value_of(struct binding_event *e, const struct projection_binding *binding,
                            struct value *out, struct deed_error *err)
{
    const struct deed_event *event = e->event;
    switch (binding->source) {
    case PROJECTION_DATA:
    case PROJECTION_METADATA:
        return part_value(e, binding, out, err);
    case PROJECTION_STREAM:
        *out = text_value(event->stream);
        return DEED_OK;
    case PROJECTION_CATEGORY:
        *out = text_or_null(index_category_of(event->stream));
        return DEED_OK;
    case PROJECTION_REVISION:
        *out = integer_value(event->revision);
        return DEED_OK;
    case PROJECTION_POSITION:
        *out = integer_value(event->position);
        return DEED_OK;
    case PROJECTION_TIME:
        time_format(event->time_ns, e->time);
        *out = text_value(deed_str_of(e->time));
        return DEED_OK;
    case PROJECTION_RECORDED_AT:
        time_format(event->recorded_at_ns, e->recorded_at);
        *out = text_value(deed_str_of(e->recorded_at));
        return DEED_OK;
    case PROJECTION_TYPE:
        *out = text_value(event->type);
        return DEED_OK;
    case PROJECTION_ID:
        uuid_format(event->id, e->id);
        *out = text_value(deed_str_of(e->id));
        return DEED_OK;
    case PROJECTION_TAGS:
        return tags_value(e, out, err);
    case PROJECTION_CORRELATION_ID:
        *out = text_or_null(event->correlation_id);
        return DEED_OK;
    case PROJECTION_CAUSATION_ID:
        *out = text_or_null(event->causation_id);
        return DEED_OK;
    case PROJECTION_ACTOR:
        *out = text_or_null(event->actor);
        return DEED_OK;
    }
    assert(false); /* projection_file.c makes no other */
    return DEED_OK;
}

/* ---- binding -------------------------------------------------------------------------------- */

static int bind_value(sqlite3_stmt *prepared, int index, const struct value *value)
{
    const char *text = value->text.ptr == NULL ? "" : value->text.ptr;
    switch (value->kind) {
    case VALUE_INTEGER:
        return sqlite3_bind_int64(prepared, index, value->integer);
    case VALUE_DOUBLE:
        return sqlite3_bind_double(prepared, index, value->fraction);
    case VALUE_TEXT:
        return sqlite3_bind_text64(prepared, index, text, value->text.len, SQLITE_STATIC,
                                   SQLITE_UTF8);
    case VALUE_BLOB:
        return sqlite3_bind_blob64(prepared, index, text, value->text.len, SQLITE_STATIC);
    case VALUE_MISSING:
    case VALUE_NULL:
        break;
    }
    return sqlite3_bind_null(prepared, index);
}

deed_status bind_statement(struct binding_event *e, const struct projection_statement *statement,
                           sqlite3_stmt *prepared, struct deed_error *err)
{
    for (size_t i = 0; i < statement->sql.parameter_count; i++) {
        const struct projection_binding *binding = &statement->bindings[i];
        struct value value = {.kind = VALUE_MISSING};
        deed_status status = value_of(e, binding, &value, err);
        if (status != DEED_OK) return status;
        if (value.kind == VALUE_MISSING && !binding->optional) {
            return deed_fail(err, DEED_INVALID,
                             "no value at %.*s (write :%.*s? where it may be missing)",
                             DEED_FMT(binding->name), DEED_FMT(binding->name));
        }
        int rc = bind_value(prepared, (int)i + 1, &value);
        if (rc != SQLITE_OK) {
            bool too_big = (rc & 0xff) == SQLITE_TOOBIG;
            return deed_fail(err, too_big ? DEED_INVALID : DEED_NO_MEMORY, "the value at %.*s: %s",
                             DEED_FMT(binding->name), sqlite3_errstr(rc));
        }
    }
    return DEED_OK;
}
