/* model.c - the whole of an app on one page.
 *
 * An event reaches the projections that answer to its type, and through them the queries that read
 * their tables. Everything is small: loops inside loops are fine here. */
#include "domain/model.h"

#include "json/json.h"

#define ARENA_SIZE_MAX (UINT64_C(64) << 20)

struct page {
    const struct model_parts *parts;
    json_value domain;
    struct buf *out;
};

static bool listed(const deed_str *list, size_t count, deed_str name)
{
    for (size_t i = 0; i < count; i++) {
        if (deed_str_equal(list[i], name)) return true;
    }
    return false;
}

static bool projection_hears(const struct model_projection *p, deed_str event)
{
    return listed(p->event_types, p->event_type_count, event);
}

static bool query_hears(const struct model_parts *parts, const struct model_query *q,
                        deed_str event)
{
    for (size_t i = 0; i < parts->projection_count; i++) {
        const struct model_projection *p = &parts->projections[i];
        if (projection_hears(p, event) && listed(q->projections, q->projection_count, p->name)) {
            return true;
        }
    }
    return false;
}

static deed_str member(json_value object, const char *name)
{
    return json_text(json_get(object, deed_str_of(name)));
}

static bool flag(json_value object, const char *name)
{
    bool value = false;
    return json_bool(json_get(object, deed_str_of(name)), &value) && value;
}

/* ---- text ----------------------------------------------------------------------------------- */

/* "quantity integer ≥ 1": what an author would say of it. */
static void field_text(json_value field, struct buf *out)
{
    deed_str kind = member(field, "kind"), of = member(field, "of");
    buf_printf(out, "%.*s%s: ", DEED_FMT(member(field, "name")),
               flag(field, "optional") ? "?" : "");
    if (deed_str_equal(kind, DEED_STR("object"))) {
        buf_add_str(out, of);
    } else if (of.ptr != NULL) {
        buf_printf(out, "%.*s of %.*s", DEED_FMT(kind), DEED_FMT(of));
    } else {
        buf_add_str(out, kind);
    }
    json_value one_of = json_get(field, DEED_STR("one_of"));
    for (struct json_iterator i = json_iterate(one_of); json_next(&i);) {
        buf_printf(out, "%s%.*s", i.index == 0 ? " (" : ", ", DEED_FMT(json_text(i.value)));
    }
    if (json_count(one_of) > 0) buf_add_byte(out, ')');
    json_value min = json_get(field, DEED_STR("min")), max = json_get(field, DEED_STR("max"));
    if (json_kind_of(min) != JSON_NONE) buf_printf(out, ", from %.*s", DEED_FMT(json_raw(min)));
    if (json_kind_of(max) != JSON_NONE) buf_printf(out, ", to %.*s", DEED_FMT(json_raw(max)));
}

static void fields_text(json_value fields, int indent, struct buf *out)
{
    for (struct json_iterator i = json_iterate(fields); json_next(&i);) {
        buf_printf(out, "%*s", indent, "");
        field_text(i.value, out);
        deed_str about = member(i.value, "about");
        if (about.len > 0) buf_printf(out, " - %.*s", DEED_FMT(about));
        buf_add_byte(out, '\n');
        fields_text(json_get(i.value, DEED_STR("fields")), indent + 2, out);
    }
}

static void names_text(struct buf *out, size_t *count, const char *head, deed_str name)
{
    buf_printf(out, "%s%.*s", (*count)++ == 0 ? head : ", ", DEED_FMT(name));
}

static void reach_text(const struct page *page, deed_str event)
{
    const struct model_parts *parts = page->parts;
    size_t projections = 0, queries = 0;
    for (size_t i = 0; i < parts->projection_count; i++) {
        if (projection_hears(&parts->projections[i], event)) {
            names_text(page->out, &projections, "      projections: ", parts->projections[i].name);
        }
    }
    if (projections > 0) buf_add_byte(page->out, '\n');
    for (size_t i = 0; i < parts->query_count; i++) {
        if (query_hears(parts, &parts->queries[i], event)) {
            names_text(page->out, &queries, "      queries: ", parts->queries[i].name);
        }
    }
    if (queries > 0) buf_add_byte(page->out, '\n');
}

static void titled(struct buf *out, json_value thing)
{
    deed_str about = member(thing, "about");
    buf_printf(out, "    %.*s", DEED_FMT(member(thing, "name")));
    if (about.len > 0) buf_printf(out, " - %.*s", DEED_FMT(about));
    buf_add_byte(out, '\n');
}

static void existence_text(json_value command, struct buf *out)
{
    deed_str existence = member(command, "existence");
    if (deed_str_equal(existence, DEED_STR("required"))) {
        buf_printf(out, "      of one that exists\n");
    } else if (deed_str_equal(existence, DEED_STR("refused"))) {
        buf_printf(out, "      makes a new one\n");
    }
}

static void aggregate_text(const struct page *page, json_value aggregate)
{
    struct buf *out = page->out;
    deed_str name = member(aggregate, "name");
    buf_printf(out, "\naggregate %.*s (streams %.*s-…)\n", DEED_FMT(name),
               DEED_FMT(member(aggregate, "category")));
    buf_printf(out, "  attributes\n");
    fields_text(json_get(aggregate, DEED_STR("state")), 4, out);
    buf_printf(out, "  commands\n");
    json_value commands = json_get(aggregate, DEED_STR("commands"));
    for (struct json_iterator i = json_iterate(commands); json_next(&i);) {
        titled(out, i.value);
        existence_text(i.value, out);
        fields_text(json_get(i.value, DEED_STR("fields")), 6, out);
    }
    buf_printf(out, "  events\n");
    json_value events = json_get(aggregate, DEED_STR("events"));
    for (struct json_iterator i = json_iterate(events); json_next(&i);) {
        titled(out, i.value);
        fields_text(json_get(i.value, DEED_STR("fields")), 6, out);
        reach_text(page, member(i.value, "name"));
    }
}

static void list_text(struct buf *out, const char *head, const deed_str *list, size_t count)
{
    size_t shown = 0;
    for (size_t i = 0; i < count; i++)
        names_text(out, &shown, head, list[i]);
    if (shown > 0) buf_add_byte(out, '\n');
}

static void page_text(const struct page *page)
{
    const struct model_parts *parts = page->parts;
    struct buf *out = page->out;
    deed_str name = member(page->domain, "name");
    if (name.len > 0) buf_printf(out, "domain %.*s\n", DEED_FMT(name));
    json_value aggregates = json_get(page->domain, DEED_STR("aggregates"));
    for (struct json_iterator i = json_iterate(aggregates); json_next(&i);) {
        aggregate_text(page, i.value);
    }
    if (parts->projection_count > 0) buf_printf(out, "\nprojections\n");
    for (size_t i = 0; i < parts->projection_count; i++) {
        const struct model_projection *p = &parts->projections[i];
        buf_printf(out, "    %.*s\n", DEED_FMT(p->name));
        list_text(out, "      events: ", p->event_types, p->event_type_count);
        list_text(out, "      tables: ", p->tables, p->table_count);
    }
    if (parts->query_count > 0) buf_printf(out, "\nqueries\n");
    for (size_t i = 0; i < parts->query_count; i++) {
        const struct model_query *q = &parts->queries[i];
        buf_printf(out, "    %.*s\n", DEED_FMT(q->name));
        list_text(out, "      parameters: ", q->parameters, q->parameter_count);
        list_text(out, "      projections: ", q->projections, q->projection_count);
    }
}

/* ---- JSON ----------------------------------------------------------------------------------- */

static void list_json(struct json_writer *w, const char *key, const deed_str *list, size_t count)
{
    json_key(w, deed_str_of(key));
    json_array_begin(w);
    for (size_t i = 0; i < count; i++)
        json_put_text(w, list[i]);
    json_array_end(w);
}

static void reach_json(const struct page *page, struct json_writer *w, deed_str event)
{
    const struct model_parts *parts = page->parts;
    json_key(w, DEED_STR("projections"));
    json_array_begin(w);
    for (size_t i = 0; i < parts->projection_count; i++) {
        if (projection_hears(&parts->projections[i], event)) {
            json_put_text(w, parts->projections[i].name);
        }
    }
    json_array_end(w);
    json_key(w, DEED_STR("queries"));
    json_array_begin(w);
    for (size_t i = 0; i < parts->query_count; i++) {
        if (query_hears(parts, &parts->queries[i], event)) json_put_text(w, parts->queries[i].name);
    }
    json_array_end(w);
}

/* The aggregate as the domain has it, its events with what they reach. */
static void aggregate_json(const struct page *page, struct json_writer *w, json_value aggregate)
{
    json_object_begin(w);
    for (struct json_iterator m = json_iterate(aggregate); json_next(&m);) {
        json_key(w, m.key);
        if (!deed_str_equal(m.key, DEED_STR("events"))) {
            json_put_raw(w, deed_bytes_of(json_raw(m.value)));
            continue;
        }
        json_array_begin(w);
        for (struct json_iterator e = json_iterate(m.value); json_next(&e);) {
            json_object_begin(w);
            for (struct json_iterator i = json_iterate(e.value); json_next(&i);) {
                json_key(w, i.key);
                json_put_raw(w, deed_bytes_of(json_raw(i.value)));
            }
            reach_json(page, w, member(e.value, "name"));
            json_object_end(w);
        }
        json_array_end(w);
    }
    json_object_end(w);
}

static void page_json(const struct page *page)
{
    const struct model_parts *parts = page->parts;
    struct json_writer w;
    json_writer_init(&w, page->out);
    json_object_begin(&w);
    json_member_text(&w, "name", member(page->domain, "name"));
    json_key(&w, DEED_STR("aggregates"));
    json_array_begin(&w);
    json_value aggregates = json_get(page->domain, DEED_STR("aggregates"));
    for (struct json_iterator i = json_iterate(aggregates); json_next(&i);) {
        aggregate_json(page, &w, i.value);
    }
    json_array_end(&w);
    json_key(&w, DEED_STR("projections"));
    json_array_begin(&w);
    for (size_t i = 0; i < parts->projection_count; i++) {
        const struct model_projection *p = &parts->projections[i];
        json_object_begin(&w);
        json_member_text(&w, "name", p->name);
        list_json(&w, "events", p->event_types, p->event_type_count);
        list_json(&w, "tables", p->tables, p->table_count);
        json_object_end(&w);
    }
    json_array_end(&w);
    json_key(&w, DEED_STR("queries"));
    json_array_begin(&w);
    for (size_t i = 0; i < parts->query_count; i++) {
        const struct model_query *q = &parts->queries[i];
        json_object_begin(&w);
        json_member_text(&w, "name", q->name);
        if (q->comment.len > 0) json_member_text(&w, "about", q->comment);
        list_json(&w, "parameters", q->parameters, q->parameter_count);
        list_json(&w, "projections", q->projections, q->projection_count);
        json_object_end(&w);
    }
    json_array_end(&w);
    json_object_end(&w);
}

/* ---- Mermaid -------------------------------------------------------------------------------- */

/* An id that Mermaid takes for any name: prefix and the name, other bytes in hex. */
static void node_id(struct buf *out, char prefix, deed_str name)
{
    buf_add_byte(out, (uint8_t)prefix);
    buf_add_byte(out, '_');
    for (size_t i = 0; i < name.len; i++) {
        char c = name.ptr[i];
        bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
        if (plain) {
            buf_add_byte(out, (uint8_t)c);
        } else {
            buf_printf(out, "_%02x", (unsigned char)c);
        }
    }
}

/* A label in quotes; Mermaid writes a quote as an entity. */
static void node(struct buf *out, char prefix, deed_str name, const char *open, const char *shut)
{
    buf_printf(out, "    ");
    node_id(out, prefix, name);
    buf_printf(out, "%s\"", open);
    for (size_t i = 0; i < name.len; i++) {
        if (name.ptr[i] == '"') {
            buf_printf(out, "#quot;");
        } else {
            buf_add_byte(out, (uint8_t)name.ptr[i]);
        }
    }
    buf_printf(out, "\"%s\n", shut);
}

static void edge(struct buf *out, char from_prefix, deed_str from, char to_prefix, deed_str to)
{
    buf_printf(out, "    ");
    node_id(out, from_prefix, from);
    buf_printf(out, " --> ");
    node_id(out, to_prefix, to);
    buf_add_byte(out, '\n');
}

static void aggregate_mermaid(const struct page *page, json_value aggregate)
{
    struct buf *out = page->out;
    deed_str name = member(aggregate, "name");
    node(out, 'a', name, "[[", "]]");
    json_value commands = json_get(aggregate, DEED_STR("commands"));
    for (struct json_iterator i = json_iterate(commands); json_next(&i);) {
        node(out, 'c', member(i.value, "name"), "[/", "/]");
        edge(out, 'c', member(i.value, "name"), 'a', name);
    }
    json_value events = json_get(aggregate, DEED_STR("events"));
    for (struct json_iterator i = json_iterate(events); json_next(&i);) {
        node(out, 'e', member(i.value, "name"), "([", "])");
        edge(out, 'a', name, 'e', member(i.value, "name"));
    }
}

static void page_mermaid(const struct page *page)
{
    const struct model_parts *parts = page->parts;
    struct buf *out = page->out;
    buf_printf(out, "flowchart LR\n");
    json_value aggregates = json_get(page->domain, DEED_STR("aggregates"));
    for (struct json_iterator i = json_iterate(aggregates); json_next(&i);) {
        aggregate_mermaid(page, i.value);
    }
    for (size_t i = 0; i < parts->projection_count; i++) {
        const struct model_projection *p = &parts->projections[i];
        node(out, 'p', p->name, "[(", ")]");
        for (size_t e = 0; e < p->event_type_count; e++) {
            edge(out, 'e', p->event_types[e], 'p', p->name);
        }
    }
    for (size_t i = 0; i < parts->query_count; i++) {
        const struct model_query *q = &parts->queries[i];
        node(out, 'q', q->name, "{{", "}}");
        for (size_t p = 0; p < q->projection_count; p++) {
            edge(out, 'p', q->projections[p], 'q', q->name);
        }
    }
}

/* --------------------------------------------------------------------------------------------- */

deed_status model_write(const struct model_parts *parts, enum model_format format, struct buf *out,
                        struct deed_error *err)
{
    struct arena arena;
    arena_init(&arena, ARENA_SIZE_MAX);
    struct page page = {.parts = parts, .out = out};
    deed_status status = DEED_OK;
    if (parts->domain.len > 0) {
        status = json_parse(&arena, deed_bytes_of(parts->domain), 0, &page.domain, err);
        if (status == DEED_OK &&
            json_kind_of(json_get(page.domain, DEED_STR("aggregates"))) != JSON_ARRAY) {
            status = deed_fail(err, DEED_INVALID, "it has no aggregates");
        }
        if (status != DEED_OK) deed_wrap(err, "the domain's model");
    }
    if (status == DEED_OK) {
        switch (format) {
        case MODEL_TEXT:
            page_text(&page);
            break;
        case MODEL_JSON:
            page_json(&page);
            break;
        case MODEL_MERMAID:
            page_mermaid(&page);
            break;
        }
        if (!buf_ok(out)) status = deed_fail(err, DEED_TOO_LARGE, "the model is over the limit");
    }
    arena_done(&arena);
    return status;
}
