/* group_match.c - a consumer group's filter by name, over event_filter. */
#include "api/group_match.h"

#include "api/event_filter.h"
#include "json/json.h"

#include <stdlib.h>

struct match {
    struct arena arena;
    struct event_filter *filter;
};

static deed_status parse(struct arena *arena, deed_str json, struct event_filter_options *out,
                         struct deed_error *err)
{
    json_value root;
    deed_status status = json_parse(arena, deed_bytes_of(json), 0, &root, err);
    if (status != DEED_OK) return status;
    deed_str of = json_text(json_get(root, DEED_STR("of")));
    if (deed_str_equal(of, DEED_STR("type"))) {
        out->subject = EVENT_FILTER_TYPE;
    } else if (deed_str_equal(of, DEED_STR("stream"))) {
        out->subject = EVENT_FILTER_STREAM;
    } else {
        return deed_fail(err, DEED_INVALID, "filter: match.of must be \"stream\" or \"type\"");
    }
    out->regex = json_text(json_get(root, DEED_STR("regex")));
    json_value list = json_get(root, DEED_STR("prefix"));
    size_t count = json_count(list);
    deed_str *prefixes = arena_alloc_array(arena, count, sizeof *prefixes);
    if (prefixes == NULL) return deed_fail(err, DEED_NO_MEMORY, "filter: out of memory");
    for (struct json_iterator i = json_iterate(list); json_next(&i);) {
        prefixes[i.index] = json_text(i.value);
        if (prefixes[i.index].ptr != NULL) continue;
        return deed_fail(err, DEED_INVALID, "filter: match.prefix: element %zu is no text", i.index);
    }
    out->prefixes = prefixes;
    out->prefix_count = count;
    return DEED_OK;
}

static deed_status match_open(void *context, deed_str json, void **out_match,
                              struct deed_error *err)
{
    (void)context;
    struct event_filter_options options = {0};
    struct match *m = calloc(1, sizeof *m);
    if (m == NULL) return deed_fail(err, DEED_NO_MEMORY, "filter: out of memory");
    arena_init(&m->arena, (size_t)16 << 20);
    deed_status status = parse(&m->arena, json, &options, err);
    if (status == DEED_OK) status = event_filter_create(&options, &m->arena, &m->filter, err);
    if (status != DEED_OK) {
        arena_done(&m->arena);
        free(m);
        return status;
    }
    *out_match = m;
    return DEED_OK;
}

static deed_status match_wants(void *match, const struct deed_event *event, bool *out_wants,
                               struct deed_error *err)
{
    struct match *m = match;
    return event_filter_match(m->filter, event, out_wants, err);
}

static void match_close(void *match)
{
    struct match *m = match;
    event_filter_destroy(m->filter);
    arena_done(&m->arena);
    free(m);
}

void group_match_hooks(struct groups_options *out)
{
    out->match_open = match_open;
    out->match_wants = match_wants;
    out->match_close = match_close;
}
