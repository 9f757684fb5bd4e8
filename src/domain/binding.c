/* binding.c - a walk over a struct and its description, in four variants: check, read, write, copy.
 *
 * (1) A struct is reached only through its description's offsets, by memcpy: no struct is laid
 *     over another's memory, so the author's compiler may assume what it likes.
 * (2) A path is a chain of steps on the C stack; it becomes text only when something is wrong.
 * (3) Reading goes on after a mistake, so that one answer tells all of them.
 * (4) A map's slots, when it has any, know every key: they are made when the map grows past
 *     MAP_SMALL and remade after a removal. */
#include "domain/binding.h"

#include "base/hash.h"
#include "base/text.h"
#include "base/timetext.h"
#include "base/uuid.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>

/* Up to here a look at every key is faster than hashing. */
#define MAP_SMALL 16
/* So many mistakes are told; the message has no room for more. */
#define MISTAKE_COUNT_MAX 8
#define FIELD_COUNT_MAX   256

struct bind_list {
    void *items;
    size_t count, room;
};

struct path {
    const struct path *parent;
    deed_str name; /* ptr NULL: `index` counts */
    size_t index;
};

struct binder {
    enum bind_rule rule;
    struct arena *arena;
    struct deed_error *err;
    size_t mistakes;
    bool no_memory;
};

/* ---- kinds ---------------------------------------------------------------------------------- */

static size_t kind_size(enum deed_kind kind, const struct deed_type *of)
{
    switch (kind) {
    case DEED_KIND_TEXT:
    case DEED_KIND_DATE:
    case DEED_KIND_TIME:
    case DEED_KIND_UUID:
    case DEED_KIND_JSON:
        return sizeof(deed_str);
    case DEED_KIND_INT:
        return sizeof(int64_t);
    case DEED_KIND_DOUBLE:
        return sizeof(double);
    case DEED_KIND_BOOL:
        return sizeof(bool);
    case DEED_KIND_OPTIONAL_INT:
        return sizeof(struct deed_optional_int);
    case DEED_KIND_OPTIONAL_DOUBLE:
        return sizeof(struct deed_optional_double);
    case DEED_KIND_OPTIONAL_BOOL:
        return sizeof(struct deed_optional_bool);
    case DEED_KIND_OBJECT:
        return of->size;
    case DEED_KIND_OPTIONAL_OBJECT:
        return sizeof(void *);
    case DEED_KIND_LIST:
    case DEED_KIND_TEXTS:
        return sizeof(struct bind_list);
    case DEED_KIND_MAP:
        return sizeof(struct bind_map);
    }
    return 0;
}

static const char *kind_name(enum deed_kind kind)
{
    switch (kind) {
    case DEED_KIND_TEXT:
        return "text";
    case DEED_KIND_DATE:
        return "date";
    case DEED_KIND_TIME:
        return "time";
    case DEED_KIND_UUID:
        return "uuid";
    case DEED_KIND_JSON:
        return "json";
    case DEED_KIND_INT:
    case DEED_KIND_OPTIONAL_INT:
        return "integer";
    case DEED_KIND_DOUBLE:
    case DEED_KIND_OPTIONAL_DOUBLE:
        return "number";
    case DEED_KIND_BOOL:
    case DEED_KIND_OPTIONAL_BOOL:
        return "boolean";
    case DEED_KIND_OBJECT:
    case DEED_KIND_OPTIONAL_OBJECT:
        return "object";
    case DEED_KIND_LIST:
        return "list";
    case DEED_KIND_TEXTS:
        return "texts";
    case DEED_KIND_MAP:
        return "map";
    }
    return "?";
}

static bool kind_has_type(enum deed_kind kind)
{
    return kind == DEED_KIND_OBJECT || kind == DEED_KIND_OPTIONAL_OBJECT ||
           kind == DEED_KIND_LIST || kind == DEED_KIND_MAP;
}

static bool field_may_be_missing(const struct deed_field *field)
{
    return field->optional || field->kind == DEED_KIND_OPTIONAL_INT ||
           field->kind == DEED_KIND_OPTIONAL_DOUBLE || field->kind == DEED_KIND_OPTIONAL_BOOL ||
           field->kind == DEED_KIND_OPTIONAL_OBJECT;
}

static size_t field_count(const struct deed_type *type)
{
    size_t count = 0;
    while (type->fields[count].name != NULL)
        count++;
    return count;
}

/* ---- check ---------------------------------------------------------------------------------- */

struct type_chain {
    const struct type_chain *parent;
    const struct deed_type *type;
};

static bool chain_has(const struct type_chain *chain, const struct deed_type *type)
{
    for (; chain != NULL; chain = chain->parent) {
        if (chain->type == type) return true;
    }
    return false;
}

static deed_status field_check(const struct deed_type *type, const struct deed_field *field,
                               struct deed_error *err)
{
    if (field->kind < DEED_KIND_TEXT || field->kind > DEED_KIND_MAP) {
        return deed_fail(err, DEED_INVALID, "struct %s: %s has the unknown kind %d", type->name,
                         field->name, (int)field->kind);
    }
    if (kind_has_type(field->kind) && field->of == NULL) {
        return deed_fail(err, DEED_INVALID, "struct %s: %s does not say of what type", type->name,
                         field->name);
    }
    size_t size = kind_size(field->kind, field->of);
    if (field->offset > type->size || size > type->size - field->offset) {
        return deed_fail(err, DEED_INVALID, "struct %s: %s lies outside of its %zu bytes",
                         type->name, field->name, type->size);
    }
    for (const struct deed_field *other = type->fields; other != field; other++) {
        if (strcmp(other->name, field->name) == 0) {
            return deed_fail(err, DEED_INVALID, "struct %s: %s is there twice", type->name,
                             field->name);
        }
    }
    return DEED_OK;
}

static deed_status type_check(const struct deed_type *type, const struct type_chain *parent,
                              struct deed_error *err)
{
    if (type == NULL || type->name == NULL || type->fields == NULL) {
        return deed_fail(err, DEED_INVALID, "a struct has no name or no fields");
    }
    const struct type_chain chain = {parent, type};
    if (field_count(type) > FIELD_COUNT_MAX) {
        return deed_fail(err, DEED_INVALID, "struct %s: %zu fields, limit %d", type->name,
                         field_count(type), FIELD_COUNT_MAX);
    }
    for (const struct deed_field *f = type->fields; f->name != NULL; f++) {
        deed_status status = field_check(type, f, err);
        if (status != DEED_OK) return status;
        if (!kind_has_type(f->kind) || chain_has(&chain, f->of)) continue;
        status = type_check(f->of, &chain, err);
        if (status != DEED_OK) return status;
    }
    return DEED_OK;
}

deed_status bind_check(const struct deed_type *type, struct deed_error *err)
{
    return type_check(type, NULL, err);
}

/* ---- mistakes ------------------------------------------------------------------------------- */

static void path_write(const struct path *path, struct buf *out)
{
    if (path == NULL) return;
    path_write(path->parent, out);
    if (path->parent != NULL) buf_add_byte(out, '.');
    if (path->name.ptr != NULL) {
        buf_add_str(out, path->name);
    } else {
        buf_printf(out, "%zu", path->index);
    }
}

/* As much of a value as a message can show: scalars themselves, containers by kind. */
static void value_show(json_value value, struct buf *out)
{
    enum json_kind kind = json_kind_of(value);
    deed_str raw = json_raw(value);
    if (kind == JSON_OBJECT || kind == JSON_ARRAY || kind == JSON_NULL) {
        buf_printf(out, "%s", json_kind_name(kind));
        return;
    }
    deed_str shown = str_beginning(raw, 40);
    buf_add_str(out, shown);
    if (shown.len < raw.len) buf_add_str(out, DEED_STR("…"));
}

/* Append "path what" to the message. Cut at whole mistakes: half a sentence helps nobody. */
static void mistake_add(struct binder *b, struct buf *text)
{
    b->mistakes++;
    if (b->err == NULL || b->mistakes > MISTAKE_COUNT_MAX || !buf_ok(text)) return;
    char *message = b->err->message;
    size_t len = b->mistakes == 1 ? 0 : strlen(message);
    if (len + text->len + 3 > sizeof b->err->message) return;
    if (len > 0) {
        memcpy(message + len, "; ", 2);
        len += 2;
    }
    memcpy(message + len, text->ptr, text->len);
    message[len + text->len] = '\0';
}

DEED_PRINTF(4, 5)
static void mistake(struct binder *b, const struct path *path, const json_value *came,
                    const char *format, ...)
{
    if (b->mistakes == 0) (void)deed_fail(b->err, DEED_INVALID, "the fields do not fit");
    char what[160];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(what, sizeof what, format, arguments);
    va_end(arguments);

    struct buf text;
    buf_init(&text, DEED_MESSAGE_SIZE);
    if (path == NULL) buf_add_str(&text, DEED_STR("the body"));
    path_write(path, &text);
    buf_printf(&text, "%s", what);
    if (came != NULL) {
        buf_add_str(&text, DEED_STR(", came "));
        value_show(*came, &text);
    }
    mistake_add(b, &text);
    buf_done(&text);
}

static deed_status binder_status(const struct binder *b)
{
    if (b->no_memory) {
        return deed_fail(b->err, DEED_NO_MEMORY, "the fields need more memory than is allowed");
    }
    return b->mistakes > 0 ? DEED_INVALID : DEED_OK;
}

/* ---- bounds, the same for reading and writing ------------------------------------------------ */

static void text_bounds(struct binder *b, const struct path *path, const struct deed_field *f,
                        deed_str text)
{
    if (text.len < f->size_min) {
        if (f->size_min == 1) {
            mistake(b, path, NULL, ": expected a text that is not empty");
        } else {
            mistake(b, path, NULL, ": expected at least %zu bytes, came %zu", f->size_min,
                    text.len);
        }
    }
    if (f->size_max > 0 && text.len > f->size_max) {
        mistake(b, path, NULL, ": expected at most %zu bytes, came %zu", f->size_max, text.len);
    }
    if (f->one_of == NULL) return;
    char list[128] = "";
    for (const char *const *one = f->one_of; *one != NULL; one++) {
        if (deed_str_equal(text, deed_str_of(*one))) return;
        size_t len = strlen(list);
        snprintf(list + len, sizeof list - len, "%s%s", len == 0 ? "" : ", ", *one);
    }
    mistake(b, path, NULL, ": expected one of %s, came \"%.*s\"", list,
            (int)(text.len > 40 ? 40 : text.len), text.ptr == NULL ? "" : text.ptr);
}

static void number_bounds(struct binder *b, const struct path *path, const struct deed_field *f,
                          bool below, bool above, const char *came)
{
    if (below) {
        mistake(b, path, NULL, ": expected at least %lld, came %s", (long long)f->min, came);
    }
    if (above) mistake(b, path, NULL, ": expected at most %lld, came %s", (long long)f->max, came);
}

static void int_bounds(struct binder *b, const struct path *path, const struct deed_field *f,
                       int64_t value)
{
    char came[24];
    snprintf(came, sizeof came, "%lld", (long long)value);
    number_bounds(b, path, f, f->has_min && value < f->min, f->has_max && value > f->max, came);
}

static void double_bounds(struct binder *b, const struct path *path, const struct deed_field *f,
                          double value)
{
    char came[32];
    snprintf(came, sizeof came, "%g", value);
    number_bounds(b, path, f, f->has_min && value < (double)f->min,
                  f->has_max && value > (double)f->max, came);
}

static void count_bounds(struct binder *b, const struct path *path, const struct deed_field *f,
                         size_t count)
{
    if (count < f->size_min) {
        mistake(b, path, NULL, ": expected at least %zu item%s, came %zu", f->size_min,
                f->size_min == 1 ? "" : "s", count);
    }
    if (f->size_max > 0 && count > f->size_max) {
        mistake(b, path, NULL, ": expected at most %zu items, came %zu", f->size_max, count);
    }
}

/* What the text of a kind must look like; NULL: it does. */
static const char *text_wrong(enum deed_kind kind, deed_str text)
{
    int64_t time_ns;
    deed_uuid id;
    switch (kind) {
    case DEED_KIND_DATE:
        return date_valid(text) ? NULL : "a date, YYYY-MM-DD";
    case DEED_KIND_TIME:
        return time_parse(text, &time_ns) ? NULL : "a time, as 2026-11-23T04:07:09Z";
    case DEED_KIND_UUID:
        return uuid_parse(text, &id) ? NULL : "a UUID";
    default:
        return NULL;
    }
}

/* ---- read ----------------------------------------------------------------------------------- */

static void struct_read(struct binder *b, const struct path *path, const struct deed_type *type,
                        json_value value, void *out);

static void *binder_alloc(struct binder *b, size_t count, size_t size)
{
    void *memory = arena_alloc_array(b->arena, count, size);
    if (memory == NULL) b->no_memory = true;
    return memory;
}

static deed_str binder_keep(struct binder *b, deed_str text)
{
    deed_str kept = arena_str(b->arena, text);
    if (kept.ptr == NULL) b->no_memory = true;
    return kept;
}

static void text_read(struct binder *b, const struct path *path, const struct deed_field *f,
                      json_value value, char *at)
{
    deed_str text = json_text(value);
    if (f->kind == DEED_KIND_JSON) {
        text = json_raw(value);
    } else if (json_kind_of(value) != JSON_STRING) {
        mistake(b, path, &value, ": expected %s",
                f->kind == DEED_KIND_TEXT ? "a text" : text_wrong(f->kind, DEED_STR("")));
        return;
    }
    if (b->rule == BIND_EXACT) {
        const char *wanted = text_wrong(f->kind, text);
        if (wanted != NULL) {
            mistake(b, path, &value, ": expected %s", wanted);
            return;
        }
        text_bounds(b, path, f, text);
    }
    deed_str kept = binder_keep(b, text);
    memcpy(at, &kept, sizeof kept);
}

static void int_read(struct binder *b, const struct path *path, const struct deed_field *f,
                     json_value value, char *at)
{
    struct deed_optional_int got = {.has = true};
    if (!json_int64(value, &got.value)) {
        mistake(b, path, &value, ": expected an integer");
        return;
    }
    if (b->rule == BIND_EXACT) int_bounds(b, path, f, got.value);
    if (f->kind == DEED_KIND_INT) {
        memcpy(at, &got.value, sizeof got.value);
    } else {
        memcpy(at, &got, sizeof got);
    }
}

static void double_read(struct binder *b, const struct path *path, const struct deed_field *f,
                        json_value value, char *at)
{
    struct deed_optional_double got = {.has = true};
    if (!json_double(value, &got.value)) {
        mistake(b, path, &value, ": expected a number");
        return;
    }
    if (b->rule == BIND_EXACT) double_bounds(b, path, f, got.value);
    if (f->kind == DEED_KIND_DOUBLE) {
        memcpy(at, &got.value, sizeof got.value);
    } else {
        memcpy(at, &got, sizeof got);
    }
}

static void bool_read(struct binder *b, const struct path *path, const struct deed_field *f,
                      json_value value, char *at)
{
    struct deed_optional_bool got = {.has = true};
    if (!json_bool(value, &got.value)) {
        mistake(b, path, &value, ": expected true or false");
        return;
    }
    if (f->kind == DEED_KIND_BOOL) {
        memcpy(at, &got.value, sizeof got.value);
    } else {
        memcpy(at, &got, sizeof got);
    }
}

static void list_read(struct binder *b, const struct path *path, const struct deed_field *f,
                      json_value value, char *at)
{
    if (json_kind_of(value) != JSON_ARRAY) {
        mistake(b, path, &value, ": expected a list");
        return;
    }
    size_t count = json_count(value);
    if (b->rule == BIND_EXACT) count_bounds(b, path, f, count);
    if (count == 0) return;

    size_t size = f->kind == DEED_KIND_TEXTS ? sizeof(deed_str) : f->of->size;
    struct bind_list list = {binder_alloc(b, count, size), count, count};
    if (list.items == NULL) return;
    const struct deed_field text = {.kind = DEED_KIND_TEXT};
    for (struct json_iterator i = json_iterate(value); json_next(&i);) {
        char *item = (char *)list.items + i.index * size;
        const struct path step = {path, {0}, i.index};
        if (f->kind == DEED_KIND_TEXTS) {
            text_read(b, &step, &text, i.value, item);
        } else {
            struct_read(b, &step, f->of, i.value, item);
        }
    }
    memcpy(at, &list, sizeof list);
}

static void map_read(struct binder *b, const struct path *path, const struct deed_field *f,
                     json_value value, char *at)
{
    if (json_kind_of(value) != JSON_OBJECT) {
        mistake(b, path, &value, ": expected an object");
        return;
    }
    if (b->rule == BIND_EXACT) count_bounds(b, path, f, json_count(value));
    struct bind_map map = {0};
    for (struct json_iterator i = json_iterate(value); json_next(&i) && !b->no_memory;) {
        deed_str key = binder_keep(b, i.key);
        void *item = b->no_memory ? NULL : bind_map_add(&map, f->of->size, key, b->arena);
        if (item == NULL) {
            b->no_memory = true;
            return;
        }
        const struct path step = {path, key, 0};
        struct_read(b, &step, f->of, i.value, item);
    }
    memcpy(at, &map, sizeof map);
}

static void field_read(struct binder *b, const struct path *path, const struct deed_field *f,
                       json_value value, char *at)
{
    switch (f->kind) {
    case DEED_KIND_TEXT:
    case DEED_KIND_DATE:
    case DEED_KIND_TIME:
    case DEED_KIND_UUID:
    case DEED_KIND_JSON:
        text_read(b, path, f, value, at);
        break;
    case DEED_KIND_INT:
    case DEED_KIND_OPTIONAL_INT:
        int_read(b, path, f, value, at);
        break;
    case DEED_KIND_DOUBLE:
    case DEED_KIND_OPTIONAL_DOUBLE:
        double_read(b, path, f, value, at);
        break;
    case DEED_KIND_BOOL:
    case DEED_KIND_OPTIONAL_BOOL:
        bool_read(b, path, f, value, at);
        break;
    case DEED_KIND_OBJECT:
        struct_read(b, path, f->of, value, at);
        break;
    case DEED_KIND_OPTIONAL_OBJECT: {
        void *object = binder_alloc(b, 1, f->of->size);
        if (object == NULL) return;
        struct_read(b, path, f->of, value, object);
        memcpy(at, &object, sizeof object);
        break;
    }
    case DEED_KIND_LIST:
    case DEED_KIND_TEXTS:
        list_read(b, path, f, value, at);
        break;
    case DEED_KIND_MAP:
        map_read(b, path, f, value, at);
        break;
    }
}

/* The member's field. Members mostly come in the table's order, so the search starts where the
 * last one ended. */
static size_t field_find(const struct deed_type *type, size_t count, size_t start, deed_str name)
{
    for (size_t i = 0; i < count; i++) {
        size_t at = start + i < count ? start + i : start + i - count;
        if (deed_str_equal(deed_str_of(type->fields[at].name), name)) return at;
    }
    return count;
}

static void struct_read(struct binder *b, const struct path *path, const struct deed_type *type,
                        json_value value, void *out)
{
    memset(out, 0, type->size);
    if (json_kind_of(value) != JSON_OBJECT) {
        mistake(b, path, &value, ": expected an object");
        return;
    }
    const size_t count = field_count(type);
    bool seen[FIELD_COUNT_MAX] = {false};
    size_t next = 0;
    for (struct json_iterator i = json_iterate(value); json_next(&i) && !b->no_memory;) {
        size_t at = field_find(type, count, next, i.key);
        const struct path step = {path, i.key, 0};
        if (at == count) {
            if (b->rule == BIND_EXACT) mistake(b, &step, NULL, " is unknown");
            continue;
        }
        next = at + 1 < count ? at + 1 : 0;
        const struct deed_field *f = &type->fields[at];
        seen[at] = true;
        if (json_kind_of(i.value) == JSON_NULL && f->kind != DEED_KIND_JSON &&
            (field_may_be_missing(f) || b->rule == BIND_STORED)) {
            continue;
        }
        field_read(b, &step, f, i.value, (char *)out + f->offset);
    }
    if (b->rule == BIND_STORED) return;
    for (size_t at = 0; at < count; at++) {
        const struct deed_field *f = &type->fields[at];
        if (seen[at] || field_may_be_missing(f)) continue;
        const struct path step = {path, deed_str_of(f->name), 0};
        mistake(b, &step, NULL, " is missing");
    }
}

deed_status bind_read(const struct deed_type *type, json_value value, enum bind_rule rule,
                      struct arena *arena, void *out, struct deed_error *err)
{
    struct binder b = {.rule = rule, .arena = arena, .err = err};
    struct_read(&b, NULL, type, value, out);
    return binder_status(&b);
}

/* ---- write ---------------------------------------------------------------------------------- */

static void struct_write(struct binder *b, const struct path *path, size_t depth,
                         const struct deed_type *type, const void *value, struct json_writer *w);

/* A value that cannot be written is null, so that the JSON stays whole; the mistake is told. */
static void text_write(struct binder *b, const struct path *path, const struct deed_field *f,
                       deed_str text, struct json_writer *w)
{
    const char *wrong = NULL;
    if (text.ptr == NULL) {
        if (!field_may_be_missing(f) && b->rule == BIND_EXACT) wrong = "is missing";
    } else if (f->kind == DEED_KIND_JSON) {
        if (json_check(deed_bytes_of(text), BINDING_DEPTH_MAX / 2, NULL) != DEED_OK) {
            wrong = "is not JSON";
        }
    } else if (!utf8_valid(deed_bytes_of(text))) {
        wrong = "is not UTF-8";
    }
    if (wrong != NULL) mistake(b, path, NULL, " %s", wrong);
    if (wrong != NULL || text.ptr == NULL) {
        json_put_null(w);
        return;
    }
    if (f->kind == DEED_KIND_JSON) {
        json_put_raw(w, deed_bytes_of(text));
        return;
    }
    if (b->rule == BIND_EXACT) {
        const char *wanted = text_wrong(f->kind, text);
        if (wanted != NULL) {
            mistake(b, path, NULL, ": expected %s, came \"%.*s\"", wanted,
                    (int)(text.len > 40 ? 40 : text.len), text.ptr);
        }
        text_bounds(b, path, f, text);
    }
    json_put_text(w, text);
}

static void number_write(struct binder *b, const struct path *path, const struct deed_field *f,
                         double value, struct json_writer *w)
{
    if (b->rule == BIND_EXACT) {
        if (!isfinite(value)) mistake(b, path, NULL, ": %g is no number that JSON has", value);
        double_bounds(b, path, f, value);
    }
    if (isfinite(value)) {
        json_put_double(w, value);
    } else {
        json_put_null(w);
    }
}

static void scalar_write(struct binder *b, const struct path *path, const struct deed_field *f,
                         const char *at, struct json_writer *w)
{
    if (f->kind == DEED_KIND_INT || f->kind == DEED_KIND_OPTIONAL_INT) {
        struct deed_optional_int got = {.has = true};
        if (f->kind == DEED_KIND_INT) {
            memcpy(&got.value, at, sizeof got.value);
        } else {
            memcpy(&got, at, sizeof got);
        }
        if (got.has && b->rule == BIND_EXACT) int_bounds(b, path, f, got.value);
        got.has ? json_put_int(w, got.value) : json_put_null(w);
    } else if (f->kind == DEED_KIND_DOUBLE || f->kind == DEED_KIND_OPTIONAL_DOUBLE) {
        struct deed_optional_double got = {.has = true};
        if (f->kind == DEED_KIND_DOUBLE) {
            memcpy(&got.value, at, sizeof got.value);
        } else {
            memcpy(&got, at, sizeof got);
        }
        got.has ? number_write(b, path, f, got.value, w) : json_put_null(w);
    } else {
        struct deed_optional_bool got = {.has = true};
        if (f->kind == DEED_KIND_BOOL) {
            memcpy(&got.value, at, sizeof got.value);
        } else {
            memcpy(&got, at, sizeof got);
        }
        got.has ? json_put_bool(w, got.value) : json_put_null(w);
    }
}

static void list_write(struct binder *b, const struct path *path, size_t depth,
                       const struct deed_field *f, const char *at, struct json_writer *w)
{
    struct bind_list list;
    memcpy(&list, at, sizeof list);
    if (b->rule == BIND_EXACT) count_bounds(b, path, f, list.count);
    const struct deed_field text = {.kind = DEED_KIND_TEXT};
    size_t size = f->kind == DEED_KIND_TEXTS ? sizeof(deed_str) : f->of->size;
    json_array_begin(w);
    for (size_t i = 0; i < list.count && buf_ok(w->out); i++) {
        const char *item = (const char *)list.items + i * size;
        const struct path step = {path, {0}, i};
        if (f->kind == DEED_KIND_TEXTS) {
            deed_str s;
            memcpy(&s, item, sizeof s);
            text_write(b, &step, &text, s, w);
        } else {
            struct_write(b, &step, depth + 1, f->of, item, w);
        }
    }
    json_array_end(w);
}

static void map_write(struct binder *b, const struct path *path, size_t depth,
                      const struct deed_field *f, const char *at, struct json_writer *w)
{
    struct bind_map map;
    memcpy(&map, at, sizeof map);
    if (b->rule == BIND_EXACT) count_bounds(b, path, f, map.count);
    json_object_begin(w);
    for (size_t i = 0; i < map.count && buf_ok(w->out); i++) {
        const struct path step = {path, map.keys[i], i};
        if (!utf8_valid(deed_bytes_of(map.keys[i]))) {
            mistake(b, path, NULL, ": key %zu is not UTF-8", i);
            continue;
        }
        json_key(w, map.keys[i].ptr == NULL ? DEED_STR("") : map.keys[i]);
        struct_write(b, &step, depth + 1, f->of, (const char *)map.values + i * f->of->size, w);
    }
    json_object_end(w);
}

static void field_write(struct binder *b, const struct path *path, size_t depth,
                        const struct deed_field *f, const char *at, struct json_writer *w)
{
    switch (f->kind) {
    case DEED_KIND_TEXT:
    case DEED_KIND_DATE:
    case DEED_KIND_TIME:
    case DEED_KIND_UUID:
    case DEED_KIND_JSON: {
        deed_str text;
        memcpy(&text, at, sizeof text);
        text_write(b, path, f, text, w);
        break;
    }
    case DEED_KIND_INT:
    case DEED_KIND_OPTIONAL_INT:
    case DEED_KIND_DOUBLE:
    case DEED_KIND_OPTIONAL_DOUBLE:
    case DEED_KIND_BOOL:
    case DEED_KIND_OPTIONAL_BOOL:
        scalar_write(b, path, f, at, w);
        break;
    case DEED_KIND_OBJECT:
        struct_write(b, path, depth, f->of, at, w);
        break;
    case DEED_KIND_OPTIONAL_OBJECT: {
        const void *object;
        memcpy(&object, at, sizeof object);
        if (object == NULL) {
            json_put_null(w);
        } else {
            struct_write(b, path, depth, f->of, object, w);
        }
        break;
    }
    case DEED_KIND_LIST:
    case DEED_KIND_TEXTS:
        list_write(b, path, depth, f, at, w);
        break;
    case DEED_KIND_MAP:
        map_write(b, path, depth, f, at, w);
        break;
    }
}

/* `depth` counts the JSON containers around it. */
static void struct_write(struct binder *b, const struct path *path, size_t depth,
                         const struct deed_type *type, const void *value, struct json_writer *w)
{
    if (depth + 3 > BINDING_DEPTH_MAX) {
        mistake(b, path, NULL, " is nested deeper than %d", BINDING_DEPTH_MAX);
        json_put_null(w);
        return;
    }
    json_object_begin(w);
    for (const struct deed_field *f = type->fields; f->name != NULL && buf_ok(w->out); f++) {
        const struct path step = {path, deed_str_of(f->name), 0};
        json_key(w, step.name);
        field_write(b, &step, depth + 1, f, (const char *)value + f->offset, w);
    }
    if (!buf_ok(w->out) && w->after_key) json_put_null(w);
    json_object_end(w);
}

deed_status bind_write(const struct deed_type *type, const void *value, enum bind_rule rule,
                       struct buf *out, struct deed_error *err)
{
    struct binder b = {.rule = rule, .err = err};
    struct json_writer w;
    json_writer_init(&w, out);
    struct_write(&b, NULL, 0, type, value, &w);
    if (!buf_ok(out)) {
        return deed_fail(err, DEED_TOO_LARGE, "as JSON it is over the limit of %zu bytes",
                         out->size_max);
    }
    return binder_status(&b);
}

/* ---- copy ----------------------------------------------------------------------------------- */

static bool struct_copy(const struct deed_type *type, const void *from, struct arena *arena,
                        size_t depth, void *to);

static bool text_copy(struct arena *arena, void *at)
{
    deed_str text;
    memcpy(&text, at, sizeof text);
    if (text.ptr == NULL) return true;
    text = arena_str(arena, text);
    memcpy(at, &text, sizeof text);
    return text.ptr != NULL;
}

static bool list_copy(const struct deed_field *f, struct arena *arena, size_t depth, void *at)
{
    struct bind_list list;
    memcpy(&list, at, sizeof list);
    size_t size = f->kind == DEED_KIND_TEXTS ? sizeof(deed_str) : f->of->size;
    const char *from = list.items;
    list = (struct bind_list){.count = list.count, .room = list.count};
    if (list.count > 0) {
        list.items = arena_alloc_array(arena, list.count, size);
        if (list.items == NULL) return false;
    }
    for (size_t i = 0; i < list.count; i++) {
        char *item = (char *)list.items + i * size;
        if (f->kind == DEED_KIND_TEXTS) {
            memcpy(item, from + i * size, size);
            if (!text_copy(arena, item)) return false;
        } else if (!struct_copy(f->of, from + i * size, arena, depth + 1, item)) {
            return false;
        }
    }
    memcpy(at, &list, sizeof list);
    return true;
}

static bool map_copy(const struct deed_field *f, struct arena *arena, size_t depth, void *at)
{
    struct bind_map map, copy = {0};
    memcpy(&map, at, sizeof map);
    for (size_t i = 0; i < map.count; i++) {
        deed_str key = arena_str(arena, map.keys[i]);
        if (key.ptr == NULL) return false;
        void *value = bind_map_add(&copy, f->of->size, key, arena);
        const char *from = (const char *)map.values + i * f->of->size;
        if (value == NULL || !struct_copy(f->of, from, arena, depth + 1, value)) return false;
    }
    memcpy(at, &copy, sizeof copy);
    return true;
}

/* `at` holds a copy of the field's own bytes already; make what it refers to its own. */
static bool field_copy(const struct deed_field *f, struct arena *arena, size_t depth, char *at)
{
    switch (f->kind) {
    case DEED_KIND_TEXT:
    case DEED_KIND_DATE:
    case DEED_KIND_TIME:
    case DEED_KIND_UUID:
    case DEED_KIND_JSON:
        return text_copy(arena, at);
    case DEED_KIND_OBJECT:
        return struct_copy(f->of, at, arena, depth + 1, at);
    case DEED_KIND_OPTIONAL_OBJECT: {
        const void *object;
        memcpy(&object, at, sizeof object);
        if (object == NULL) return true;
        void *copy = arena_alloc(arena, f->of->size);
        memcpy(at, &copy, sizeof copy);
        return copy != NULL && struct_copy(f->of, object, arena, depth + 1, copy);
    }
    case DEED_KIND_LIST:
    case DEED_KIND_TEXTS:
        return list_copy(f, arena, depth, at);
    case DEED_KIND_MAP:
        return map_copy(f, arena, depth, at);
    default:
        return true;
    }
}

static bool struct_copy(const struct deed_type *type, const void *from, struct arena *arena,
                        size_t depth, void *to)
{
    if (depth > BINDING_DEPTH_MAX) return false;
    if (from != to) memcpy(to, from, type->size);
    for (const struct deed_field *f = type->fields; f->name != NULL; f++) {
        if (!field_copy(f, arena, depth, (char *)to + f->offset)) return false;
    }
    return true;
}

bool bind_copy(const struct deed_type *type, const void *from, struct arena *arena, void *to)
{
    return struct_copy(type, from, arena, 0, to);
}

/* ---- describe ------------------------------------------------------------------------------- */

static void type_describe(const struct deed_type *type, const struct type_chain *parent,
                          struct json_writer *w);

static void bounds_describe(const struct deed_field *f, struct json_writer *w)
{
    if (f->has_min) json_member_int(w, "min", f->min);
    if (f->has_max) json_member_int(w, "max", f->max);
    if (f->size_min > 0) json_member_uint(w, "size_min", f->size_min);
    if (f->size_max > 0) json_member_uint(w, "size_max", f->size_max);
    if (f->one_of != NULL) {
        json_key(w, DEED_STR("one_of"));
        json_array_begin(w);
        for (const char *const *one = f->one_of; *one != NULL; one++) {
            json_put_text(w, deed_str_of(*one));
        }
        json_array_end(w);
    }
    if (f->about != NULL) json_member_text(w, "about", deed_str_of(f->about));
}

static void type_describe(const struct deed_type *type, const struct type_chain *parent,
                          struct json_writer *w)
{
    const struct type_chain chain = {parent, type};
    json_array_begin(w);
    for (const struct deed_field *f = type->fields; f->name != NULL; f++) {
        json_object_begin(w);
        json_member_text(w, "name", deed_str_of(f->name));
        json_member_text(w, "kind", deed_str_of(kind_name(f->kind)));
        json_member_bool(w, "optional", field_may_be_missing(f));
        bounds_describe(f, w);
        if (kind_has_type(f->kind)) {
            json_member_text(w, "of", deed_str_of(f->of->name));
            /* A struct inside itself is named only. The writer has 64 levels. */
            if (!chain_has(&chain, f->of) && w->depth < 48) {
                json_key(w, DEED_STR("fields"));
                type_describe(f->of, &chain, w);
            }
        }
        json_object_end(w);
    }
    json_array_end(w);
}

void bind_describe(const struct deed_type *type, struct json_writer *w)
{
    type_describe(type, NULL, w);
}

/* ---- maps ----------------------------------------------------------------------------------- */

static size_t slot_of(const struct bind_map *map, deed_str key)
{
    return (size_t)xxh64(0, deed_bytes_of(key)) & (map->slot_count - 1);
}

size_t bind_map_find(const struct bind_map *map, deed_str key)
{
    if (map->slots == NULL) {
        for (size_t i = 0; i < map->count; i++) {
            if (deed_str_equal(map->keys[i], key)) return i;
        }
        return SIZE_MAX;
    }
    for (size_t at = slot_of(map, key); map->slots[at] != 0; at = (at + 1) % map->slot_count) {
        size_t index = map->slots[at] - 1;
        if (deed_str_equal(map->keys[index], key)) return index;
    }
    return SIZE_MAX;
}

static void slot_set(struct bind_map *map, size_t index)
{
    size_t at = slot_of(map, map->keys[index]);
    while (map->slots[at] != 0)
        at = (at + 1) % map->slot_count;
    map->slots[at] = (uint32_t)index + 1;
}

/* Half full at most, so a search ends soon. */
static bool map_grow(struct bind_map *map, size_t value_size, struct arena *arena)
{
    if (map->count >= UINT32_MAX / 4) return false;
    size_t room = map->count < 4 ? 4 : map->count * 2;
    deed_str *keys = arena_alloc_array(arena, room, sizeof *keys);
    char *values = arena_alloc_array(arena, room, value_size);
    if (keys == NULL || values == NULL) return false;
    if (map->count > 0) {
        memcpy(keys, map->keys, map->count * sizeof *keys);
        memcpy(values, map->values, map->count * value_size);
    }
    map->keys = keys;
    map->values = values;
    map->room = room;
    if (room <= MAP_SMALL) return true;

    map->slot_count = 4 * MAP_SMALL;
    while (map->slot_count < 2 * room)
        map->slot_count *= 2;
    map->slots = arena_alloc_array(arena, map->slot_count, sizeof *map->slots);
    if (map->slots == NULL) return false;
    for (size_t i = 0; i < map->count; i++)
        slot_set(map, i);
    return true;
}

void *bind_map_add(struct bind_map *map, size_t value_size, deed_str key, struct arena *arena)
{
    if (map->count >= map->room && !map_grow(map, value_size, arena)) return NULL;
    size_t index = map->count++;
    map->keys[index] = key;
    if (map->slots != NULL) slot_set(map, index);
    return memset((char *)map->values + index * value_size, 0, value_size);
}

void bind_map_cut(struct bind_map *map, size_t value_size, size_t index)
{
    assert(index < map->count);
    size_t after = map->count - index - 1;
    char *at = (char *)map->values + index * value_size;
    memmove(map->keys + index, map->keys + index + 1, after * sizeof *map->keys);
    memmove(at, at + value_size, after * value_size);
    map->count--;
    if (map->slots == NULL) return;
    memset(map->slots, 0, map->slot_count * sizeof *map->slots);
    for (size_t i = 0; i < map->count; i++)
        slot_set(map, i);
}
