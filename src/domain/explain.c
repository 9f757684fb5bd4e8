/* explain.c - an aggregate's life, event by event, with what each changed.
 *
 * A change is a difference between the states before and after, as JSON. Lists are compared as sets
 * of things with names where their items have names, so that taking the first line out of an order is
 * one change and not a shift of all the others. */
#include "domain/explain.h"

#include "base/timetext.h"
#include "base/uuid.h"
#include "json/json.h"

#define COUNT_MAX     1000
#define ARENA_MAX     (UINT64_C(256) << 20)
#define PATH_SIZE_MAX 4096

struct changes {
    struct json_writer *w;
    struct buf path;
};

static void differ(struct changes *c, json_value from, json_value to);

static size_t path_mark(const struct changes *c)
{
    return c->path.len;
}

static void path_member(struct changes *c, deed_str name)
{
    if (c->path.len > 0) buf_add_byte(&c->path, '.');
    buf_add_str(&c->path, name);
}

static void change(struct changes *c, json_value from, json_value to)
{
    json_object_begin(c->w);
    json_member_text(c->w, "path", buf_str(&c->path));
    if (json_kind_of(from) != JSON_NONE) {
        json_member_raw(c->w, "from", deed_bytes_of(json_raw(from)));
    }
    if (json_kind_of(to) != JSON_NONE) json_member_raw(c->w, "to", deed_bytes_of(json_raw(to)));
    json_object_end(c->w);
}

static void differ_objects(struct changes *c, json_value from, json_value to)
{
    for (struct json_iterator i = json_iterate(to); json_next(&i);) {
        size_t mark = path_mark(c);
        path_member(c, i.key);
        differ(c, json_get(from, i.key), i.value);
        c->path.len = mark;
    }
    for (struct json_iterator i = json_iterate(from); json_next(&i);) {
        if (json_kind_of(json_get(to, i.key)) != JSON_NONE) continue;
        size_t mark = path_mark(c);
        path_member(c, i.key);
        differ(c, i.value, (json_value){0});
        c->path.len = mark;
    }
}

/* ---- lists ---------------------------------------------------------------------------------- */

/* An item's first member if it is a text: mostly its id. */
static bool item_name(json_value item, deed_str *out_key, deed_str *out_name)
{
    struct json_iterator i = json_iterate(item);
    if (json_kind_of(item) != JSON_OBJECT || !json_next(&i)) return false;
    *out_key = i.key;
    *out_name = json_text(i.value);
    return out_name->ptr != NULL;
}

static json_value item_named(json_value list, deed_str name)
{
    for (struct json_iterator i = json_iterate(list); json_next(&i);) {
        deed_str key, other;
        if (item_name(i.value, &key, &other) && deed_str_equal(name, other)) return i.value;
    }
    return (json_value){0};
}

/* Every item has a name of its own. Quadratic, so only for lists that a person would read. */
static bool list_has_names(json_value list)
{
    if (json_count(list) > 1000) return false;
    for (struct json_iterator i = json_iterate(list); json_next(&i);) {
        deed_str key, name;
        if (!item_name(i.value, &key, &name)) return false;
        if (json_raw(item_named(list, name)).ptr != json_raw(i.value).ptr) return false;
    }
    return true;
}

static void differ_item(struct changes *c, json_value named, json_value from, json_value to)
{
    deed_str key, name;
    if (!item_name(named, &key, &name)) return;
    size_t mark = path_mark(c);
    buf_printf(&c->path, "[%.*s=%.*s]", DEED_FMT(key), DEED_FMT(name));
    differ(c, from, to);
    c->path.len = mark;
}

static void differ_named(struct changes *c, json_value from, json_value to)
{
    for (struct json_iterator i = json_iterate(to); json_next(&i);) {
        deed_str key, name;
        if (!item_name(i.value, &key, &name)) continue;
        differ_item(c, i.value, item_named(from, name), i.value);
    }
    for (struct json_iterator i = json_iterate(from); json_next(&i);) {
        deed_str key, name;
        if (!item_name(i.value, &key, &name)) continue;
        if (json_kind_of(item_named(to, name)) == JSON_NONE) {
            differ_item(c, i.value, i.value, (json_value){0});
        }
    }
}

static void differ_counted(struct changes *c, json_value from, json_value to)
{
    struct json_iterator f = json_iterate(from), t = json_iterate(to);
    bool more_from = json_next(&f), more_to = json_next(&t);
    for (size_t index = 0; more_from || more_to; index++) {
        size_t mark = path_mark(c);
        buf_printf(&c->path, "[%zu]", index);
        differ(c, more_from ? f.value : (json_value){0}, more_to ? t.value : (json_value){0});
        c->path.len = mark;
        more_from = more_from && json_next(&f);
        more_to = more_to && json_next(&t);
    }
}

static void differ(struct changes *c, json_value from, json_value to)
{
    if (!buf_ok(&c->path) || json_equal(from, to)) return;
    enum json_kind a = json_kind_of(from), b = json_kind_of(to);
    if (a == JSON_OBJECT && b == JSON_OBJECT) {
        differ_objects(c, from, to);
    } else if (a == JSON_ARRAY && b == JSON_ARRAY) {
        if (list_has_names(from) && list_has_names(to)) {
            differ_named(c, from, to);
        } else {
            differ_counted(c, from, to);
        }
    } else {
        change(c, from, to);
    }
}

/* ---- states --------------------------------------------------------------------------------- */

/* "Nothing yet": before the first event a member is not shown as a change from null, from an empty
 * list, or from zero. */
static bool is_nothing(json_value v)
{
    enum json_kind kind = json_kind_of(v);
    int64_t number;
    return kind == JSON_NULL || kind == JSON_FALSE ||
           ((kind == JSON_ARRAY || kind == JSON_OBJECT) && json_count(v) == 0) ||
           (kind == JSON_NUMBER && json_int64(v, &number) && number == 0);
}

static void differ_first(struct changes *c, json_value to)
{
    for (struct json_iterator i = json_iterate(to); json_next(&i);) {
        if (is_nothing(i.value)) continue;
        size_t mark = path_mark(c);
        path_member(c, i.key);
        change(c, (json_value){0}, i.value);
        c->path.len = mark;
    }
}

static deed_status changes_write(deed_bytes from, deed_bytes to, struct json_writer *w,
                                 struct deed_error *err)
{
    struct arena arena;
    arena_init(&arena, ARENA_MAX);
    json_value before = {0}, after = {0};
    deed_status status = DEED_OK;
    if (from.len > 0) status = json_parse(&arena, from, 0, &before, err);
    if (status == DEED_OK) status = json_parse(&arena, to, 0, &after, err);
    json_array_begin(w);
    if (status == DEED_OK) {
        struct changes c = {.w = w};
        buf_init(&c.path, PATH_SIZE_MAX);
        if (from.len == 0 && json_kind_of(after) == JSON_OBJECT) {
            differ_first(&c, after);
        } else {
            differ(&c, before, after);
        }
        if (!buf_ok(&c.path))
            status = deed_fail(err, DEED_TOO_LARGE, "a path in the state is too long");
        buf_done(&c.path);
    }
    json_array_end(w);
    arena_done(&arena);
    return status;
}

deed_status explain_changes(deed_bytes from, deed_bytes to, struct buf *out, struct deed_error *err)
{
    struct json_writer w;
    json_writer_init(&w, out);
    deed_status status = changes_write(from, to, &w, err);
    if (status == DEED_OK && !buf_ok(out)) {
        status = deed_fail(err, DEED_TOO_LARGE, "the changes are over %zu bytes", out->size_max);
    }
    return status;
}

struct telling {
    struct json_writer w;
    struct buf *out;
    struct buf before; /* the state before the next event */
    deed_status status;
    struct deed_error error;
};

static void time_member(struct json_writer *w, const char *key, int64_t time_ns)
{
    char text[TIME_TEXT_SIZE + 1];
    time_format(time_ns, text);
    json_member_text(w, key, deed_str_of(text));
}

static void event_tell(struct json_writer *w, const struct deed_event *event)
{
    char id[UUID_TEXT_SIZE + 1];
    uuid_format(event->id, id);
    json_member_uint(w, "revision", event->revision);
    json_member_uint(w, "position", event->position);
    json_member_text(w, "type", event->type);
    json_member_text(w, "id", deed_str_of(id));
    time_member(w, "time", event->time_ns);
    time_member(w, "recorded_at", event->recorded_at_ns);
    json_member_text(w, "actor", event->actor.len > 0 ? event->actor : (deed_str){0});
    bool is_json = deed_str_equal(event->content_type, DEED_STR("application/json"));
    if (is_json) {
        json_member_raw(w, "data", event->data);
    } else {
        json_key(w, DEED_STR("data"));
        json_put_null(w);
    }
}

static bool tell(void *context, const struct deed_event *event, deed_bytes state)
{
    struct telling *t = context;
    if (event != NULL) {
        json_object_begin(&t->w);
        event_tell(&t->w, event);
        json_key(&t->w, DEED_STR("changes"));
        t->status = changes_write(buf_bytes(&t->before), state, &t->w, &t->error);
        json_object_end(&t->w);
    }
    buf_reset(&t->before);
    buf_add(&t->before, state.ptr, state.len);
    if (t->status == DEED_OK && (!buf_ok(&t->before) || !buf_ok(t->out))) {
        t->status = deed_fail(&t->error, DEED_TOO_LARGE, "the explanation is over %zu bytes",
                              t->out->size_max);
    }
    return t->status == DEED_OK;
}

deed_status executor_explain(struct executor *executor, deed_str stream, uint64_t revision,
                             uint64_t count_max, struct buf *out, struct deed_error *err)
{
    if (count_max == 0) count_max = COUNT_MAX;
    struct buf newest;
    uint64_t last = 0;
    buf_init(&newest, ARENA_MAX);
    /* Says whether it is there, and what its last revision is. */
    deed_status status = executor_state(executor, stream, revision, &newest, &last, NULL, err);
    buf_done(&newest);
    if (status != DEED_OK) return status;

    struct telling t = {.out = out};
    buf_init(&t.before, ARENA_MAX);
    json_writer_init(&t.w, out);
    json_array_begin(&t.w);
    uint64_t from = last + 1 > count_max ? last + 1 - count_max : 0;
    status = executor_states(executor, stream, from, last, tell, &t, err);
    json_array_end(&t.w);
    if (status == DEED_OK && t.status != DEED_OK) {
        status = t.status;
        if (err != NULL) *err = t.error;
    }
    buf_done(&t.before);
    return status;
}
