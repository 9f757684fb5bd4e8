/* settings.c - what a group is set to, checked, and as JSON in the log (docs/format/groups.md). */
#include "groups/group_state.h"

#include "json/json.h"

#include <string.h>

const char *group_strategy_name(enum group_strategy strategy)
{
    static const char *const names[] = {
#define GROUP_STRATEGY_NAME(name, text) text,
        GROUP_STRATEGY_MAP(GROUP_STRATEGY_NAME)
#undef GROUP_STRATEGY_NAME
    };
    return (unsigned)strategy < GROUP_STRATEGY_COUNT ? names[strategy] : "?";
}

bool group_strategy_parse(deed_str name, enum group_strategy *out)
{
    for (unsigned i = 0; i < GROUP_STRATEGY_COUNT; i++) {
        if (!deed_str_equal(name, deed_str_of(group_strategy_name(i)))) continue;
        *out = (enum group_strategy)i;
        return true;
    }
    return false;
}

void group_settings_default(struct group_settings *out)
{
    *out = (struct group_settings){.start = GROUP_FROM_END,
                                   .strategy = GROUP_ROUND_ROBIN,
                                   .message_timeout_ms = 30000,
                                   .retry_count_max = 10,
                                   .checkpoint_after_ms = 2000,
                                   .checkpoint_count_min = 10,
                                   .checkpoint_count_max = 1000,
                                   .live_buffer_size = 500,
                                   .history_buffer_size = 500,
                                   .read_batch_size = 20};
}

deed_status settings_check(struct groups *groups, bool is_all, const struct group_settings *s,
                           struct deed_error *err)
{
    if ((unsigned)s->strategy >= GROUP_STRATEGY_COUNT) {
        return deed_fail(err, DEED_INVALID, "strategy %d is not known", (int)s->strategy);
    }
    if (s->read_batch_size == 0) {
        return deed_fail(err, DEED_INVALID, "read batch size: 0, it must be at least 1");
    }
    if (s->read_batch_size >= s->history_buffer_size) {
        return deed_fail(err, DEED_INVALID,
                         "read batch size %u must be smaller than the history buffer size %u",
                         s->read_batch_size, s->history_buffer_size);
    }
    if (s->checkpoint_count_max != 0 && s->checkpoint_count_max < s->checkpoint_count_min) {
        return deed_fail(err, DEED_INVALID,
                         "checkpoint count: at most %u, but at least %u, is no range",
                         s->checkpoint_count_max, s->checkpoint_count_min);
    }
    if (is_all && s->start == GROUP_FROM && s->from != DEED_NONE &&
        s->from > store_position(groups->store) + 1) {
        return deed_fail(err, DEED_INVALID, "start position %llu is beyond the log's end, %llu",
                         (unsigned long long)s->from,
                         (unsigned long long)store_position(groups->store));
    }
    if (s->filter.ptr == NULL) return DEED_OK;
    if (!is_all) {
        return deed_fail(err, DEED_INVALID, "only a group on " GROUPS_ALL " takes a filter");
    }
    return feed_check_filter(groups, s->filter, err);
}

/* Numbers with the same name in JSON and here. */
#define NUMBERS(X)                                              \
    X("message_timeout_ms", message_timeout_ms)                 \
    X("retry_count_max", retry_count_max)                       \
    X("checkpoint_after_ms", checkpoint_after_ms)               \
    X("checkpoint_count_min", checkpoint_count_min)             \
    X("checkpoint_count_max", checkpoint_count_max)             \
    X("consumer_count_max", consumer_count_max)                 \
    X("live_buffer_size", live_buffer_size)                     \
    X("history_buffer_size", history_buffer_size)               \
    X("read_batch_size", read_batch_size)

void group_settings_put(const struct group_settings *s, struct json_writer *w)
{
    json_key(w, DEED_STR("start"));
    if (s->start == GROUP_FROM) {
        json_put_uint(w, s->from);
    } else {
        json_put_text(w, s->start == GROUP_FROM_END ? DEED_STR("end") : DEED_STR("start"));
    }
    json_member_text(w, "strategy", deed_str_of(group_strategy_name(s->strategy)));
    json_member_bool(w, "resolve_links", s->resolve_links);
    json_member_bool(w, "extra_statistics", s->extra_statistics);
#define SETTINGS_WRITE(text, field) json_member_uint(w, text, s->field);
    NUMBERS(SETTINGS_WRITE)
#undef SETTINGS_WRITE
    if (s->filter.ptr != NULL) json_member_raw(w, "filter", deed_bytes_of(s->filter));
}

void settings_write(const struct group *g, struct json_writer *w)
{
    json_object_begin(w);
    json_member_text(w, "source", g->source);
    json_member_text(w, "name", g->name);
    json_member_uint(w, "begin", g->begin);
    group_settings_put(&g->settings, w);
    json_object_end(w);
}

static deed_status damaged(struct deed_error *err, const char *what)
{
    return deed_fail(err, DEED_CORRUPT, "settings of a group: %s is missing or malformed", what);
}

static deed_status settings_read(json_value v, struct group_settings *s, struct deed_error *err)
{
    group_settings_default(s);
    json_value start = json_get(v, DEED_STR("start"));
    if (json_uint64(start, &s->from)) {
        s->start = GROUP_FROM;
    } else if (deed_str_equal(json_text(start), DEED_STR("start"))) {
        s->start = GROUP_FROM_START;
    } else if (!deed_str_equal(json_text(start), DEED_STR("end"))) {
        return damaged(err, "start");
    }
    if (!group_strategy_parse(json_text(json_get(v, DEED_STR("strategy"))), &s->strategy)) {
        return damaged(err, "strategy");
    }
    if (!json_bool(json_get(v, DEED_STR("resolve_links")), &s->resolve_links)) {
        return damaged(err, "resolve_links");
    }
    if (!json_bool(json_get(v, DEED_STR("extra_statistics")), &s->extra_statistics)) {
        return damaged(err, "extra_statistics");
    }
    uint64_t number;
#define SETTINGS_READ(text, field)                                                   \
    if (!json_uint64(json_get(v, DEED_STR(text)), &number) || number > UINT32_MAX) { \
        return damaged(err, text);                                                   \
    }                                                                                \
    s->field = (uint32_t)number;
    NUMBERS(SETTINGS_READ)
#undef SETTINGS_READ
    json_value filter = json_get(v, DEED_STR("filter"));
    if (json_kind_of(filter) != JSON_NONE) s->filter = json_raw(filter);
    return DEED_OK;
}

static deed_status group_read(struct groups *groups, json_value v, struct deed_error *err)
{
    struct group_settings settings;
    deed_str source = json_text(json_get(v, DEED_STR("source")));
    deed_str name = json_text(json_get(v, DEED_STR("name")));
    uint64_t begin = 0;
    struct group *g = NULL;
    if (source.len == 0) return damaged(err, "source");
    if (name.len == 0) return damaged(err, "name");
    if (!json_uint64(json_get(v, DEED_STR("begin")), &begin)) return damaged(err, "begin");
    deed_status status = settings_read(v, &settings, err);
    if (status == DEED_OK) status = group_create(groups, source, name, &settings, &g, err);
    if (status == DEED_INVALID || status == DEED_TOO_LARGE) return damaged(err, "a good name");
    if (status != DEED_OK) return status;
    g->begin = begin;
    status = groups_insert(groups, g, err);
    if (status != DEED_OK) group_release(g);
    return status == DEED_CONFLICT ? damaged(err, "a name of its own") : status;
}

deed_status settings_load(struct groups *groups, deed_bytes json, struct deed_error *err)
{
    struct arena arena;
    json_value root;
    arena_init(&arena, SIZE_MAX);
    deed_status status = json_parse(&arena, json, 0, &root, err);
    if (status == DEED_OK) {
        json_value list = json_get(root, DEED_STR("groups"));
        if (json_kind_of(list) != JSON_ARRAY) status = damaged(err, "the list of groups");
        for (struct json_iterator i = json_iterate(list); status == DEED_OK && json_next(&i);) {
            status = group_read(groups, i.value, err);
        }
    } else if (status != DEED_NO_MEMORY) {
        status = damaged(err, "the JSON of all");
    }
    arena_done(&arena);
    return status;
}
