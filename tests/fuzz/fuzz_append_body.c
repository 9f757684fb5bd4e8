/* fuzz_append_body.c - any bytes as a body that appends: what is accepted, written out plainly, is
 * accepted again and means the same. The first byte says which body: POST /append, an event or
 * list, CloudEvents. */
#include "api/event_body.h"

#include <stdio.h>
#include <stdlib.h>

#include "api/cloudevent.h"
#include "base/text.h"
#include "base/timetext.h"
#include "base/uuid.h"
#include "json/json.h"
#include "fuzz/must.h"

static void same(deed_bytes a, deed_bytes b, const char *what)
{
    must(a.len == b.len && (a.len == 0 || memcmp(a.ptr, b.ptr, a.len) == 0), what);
}

static void same_text(deed_str a, deed_str b, const char *what)
{
    same(deed_bytes_of(a), deed_bytes_of(b), what);
}

static void same_texts(const deed_str *a, size_t a_count, const deed_str *b, size_t b_count)
{
    must(a_count == b_count, "number of texts");
    for (size_t i = 0; i < a_count; i++) same_text(a[i], b[i], "text of a list");
}

/* ---- writing an append as a body -------------------------------------------------------------- */

static void put_texts(struct json_writer *w, const char *key, const deed_str *texts, size_t count)
{
    json_key(w, deed_str_of(key));
    json_array_begin(w);
    for (size_t i = 0; i < count; i++) json_put_text(w, texts[i]);
    json_array_end(w);
}

static void put_text(struct json_writer *w, const char *key, deed_str text)
{
    if (text.ptr != NULL) json_member_text(w, key, text);
}

static void put_event(struct json_writer *w, const struct deed_new_event *e)
{
    struct buf base64;
    char text[UUID_TEXT_SIZE + 1];
    json_object_begin(w);
    put_text(w, "stream", e->stream);
    put_text(w, "type", e->type);
    put_text(w, "datacontenttype", e->content_type);
    if (e->data.ptr != NULL) {
        buf_init(&base64, 64 << 20);
        base64_encode(e->data, &base64);
        json_member_text(w, "data_base64",
                         base64.ptr == NULL ? DEED_STR("") : buf_str(&base64));
        buf_done(&base64);
    }
    if (e->metadata.ptr != NULL) json_member_raw(w, "metadata", e->metadata);
    put_texts(w, "tags", e->tags, e->tag_count);
    if (!uuid_is_zero(e->id)) {
        uuid_format(e->id, text);
        json_member_text(w, "id", deed_str_of(text));
    }
    if (e->has_time) {
        time_format(e->time_ns, text);
        json_member_text(w, "time", deed_str_of(text));
    }
    put_text(w, "correlation_id", e->correlation_id);
    put_text(w, "causation_id", e->causation_id);
    put_text(w, "actor", e->actor);
    json_object_end(w);
}

static void put_condition(struct json_writer *w, const struct deed_condition *c)
{
    json_object_begin(w);
    if (c->kind == DEED_CONDITION_NO_MATCH) {
        json_key(w, DEED_STR("no_match"));
        json_array_begin(w);
        for (size_t i = 0; i < c->item_count; i++) {
            json_object_begin(w);
            put_texts(w, "types", c->items[i].types, c->items[i].type_count);
            put_texts(w, "tags", c->items[i].tags, c->items[i].tag_count);
            json_object_end(w);
        }
        json_array_end(w);
        json_member_uint(w, "after", c->after);
    } else {
        put_text(w, "stream", c->stream);
        json_key(w, DEED_STR("revision"));
        if (c->expect == DEED_EXPECT_REVISION) {
            json_put_uint(w, c->revision);
        } else {
            json_put_text(w, c->expect == DEED_EXPECT_NONE ? DEED_STR("none")
                                                           : DEED_STR("exists"));
        }
    }
    json_object_end(w);
}

static void put_append(struct buf *out, const struct deed_append *append)
{
    struct json_writer w;
    json_writer_init(&w, out);
    json_object_begin(&w);
    json_key(&w, DEED_STR("events"));
    json_array_begin(&w);
    for (size_t i = 0; i < append->event_count; i++) put_event(&w, &append->events[i]);
    json_array_end(&w);
    json_key(&w, DEED_STR("conditions"));
    json_array_begin(&w);
    for (size_t i = 0; i < append->condition_count; i++) put_condition(&w, &append->conditions[i]);
    json_array_end(&w);
    json_object_end(&w);
}

/* ---- comparing ------------------------------------------------------------------------------ */

static void compare_event(const struct deed_new_event *a, const struct deed_new_event *b)
{
    same_text(a->stream, b->stream, "stream");
    same_text(a->type, b->type, "type");
    same_text(a->content_type, b->content_type, "content type");
    same_text(a->correlation_id, b->correlation_id, "correlation id");
    same_text(a->causation_id, b->causation_id, "causation id");
    same_text(a->actor, b->actor, "actor");
    same(a->data, b->data, "data");
    same(a->metadata, b->metadata, "metadata");
    same_texts(a->tags, a->tag_count, b->tags, b->tag_count);
    must(uuid_equal(a->id, b->id), "id");
    must(a->time_ns == b->time_ns, "time");
}

static void compare_condition(const struct deed_condition *a, const struct deed_condition *b)
{
    must(a->kind == b->kind, "kind of condition");
    if (a->kind == DEED_CONDITION_STREAM) {
        same_text(a->stream, b->stream, "stream of a condition");
        must(a->expect == b->expect && a->revision == b->revision, "expectation");
        return;
    }
    must(a->after == b->after, "after");
    must(a->item_count == b->item_count, "number of items");
    for (size_t i = 0; i < a->item_count; i++) {
        const struct deed_query_item *x = &a->items[i], *y = &b->items[i];
        same_texts(x->types, x->type_count, y->types, y->type_count);
        same_texts(x->tags, x->tag_count, y->tags, y->tag_count);
    }
}

/* A CloudEvent's metadata may be any text: only an object can be written as a member. */
static bool writable(const struct deed_append *append)
{
    struct arena arena;
    bool all = true;
    arena_init(&arena, 16 << 20);
    for (size_t i = 0; i < append->event_count; i++) {
        const struct deed_new_event *e = &append->events[i];
        json_value root = {0};
        if (e->metadata.ptr == NULL) continue;
        bool object = json_parse(&arena, e->metadata, 64, &root, NULL) == DEED_OK &&
                      json_kind_of(root) == JSON_OBJECT && json_raw(root).len == e->metadata.len;
        if (!object) all = false;
    }
    arena_done(&arena);
    return all;
}

static void round_trip(const struct deed_append *append)
{
    const struct event_defaults none = {.depth_max = 80};
    struct arena arena;
    struct buf text;
    struct deed_append again;
    struct deed_error err = {0};
    arena_init(&arena, 64 << 20);
    buf_init(&text, 64 << 20);
    put_append(&text, append);
    must(buf_ok(&text), "it fits");
    deed_status status = append_body_parse(&arena, buf_bytes(&text), &none, &again, &err);
    if (status != DEED_OK) fprintf(stderr, "%s\n%.*s\n", err.message, DEED_FMT(buf_str(&text)));
    must(status == DEED_OK, "what was written is read");
    must(again.event_count == append->event_count, "number of events");
    must(again.condition_count == append->condition_count, "number of conditions");
    for (size_t i = 0; i < append->event_count; i++) {
        compare_event(&append->events[i], &again.events[i]);
    }
    for (size_t i = 0; i < append->condition_count; i++) {
        compare_condition(&append->conditions[i], &again.conditions[i]);
    }
    buf_done(&text);
    arena_done(&arena);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0) return 0;
    struct arena arena;
    struct deed_append append = {0};
    struct deed_error err = {0};
    struct event_defaults defaults = {.actor = DEED_STR("anna")};
    deed_bytes body = {data + 1, size - 1};
    deed_status status;
    arena_init(&arena, 16 << 20);
    if (data[0] % 4 == 0) {
        status = append_body_parse(&arena, body, &defaults, &append, &err);
    } else {
        if (data[0] % 4 == 1) defaults.stream = DEED_STR("s-1");
        defaults.is_cloudevent = data[0] % 4 == 3;
        status = event_body_parse(&arena, body, &defaults, &append, &err);
    }
    if (status != DEED_OK) must(err.status == status && err.message[0] != '\0', "a reason is given");
    if (status == DEED_OK) {
        must(append.event_count > 0, "an append has events");
        if (writable(&append)) round_trip(&append);
    }
    arena_done(&arena);
    return 0;
}
