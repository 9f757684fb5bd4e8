/* settings.c - what a group is set to, checked, and as JSON in the log (docs/format/groups.md). */
#include "groups/group_state.h"

#include "json/json.h"

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
#define SETTINGS_WRITE(field) json_member_uint(w, #field, s->field);
    GROUP_SETTINGS_NUMBERS(SETTINGS_WRITE)
#undef SETTINGS_WRITE
    if (s->filter.ptr != NULL) json_member_raw(w, "filter", deed_bytes_of(s->filter));
}

static bool set_start(struct group_settings *s, json_value v)
{
    deed_str text = json_text(v);
    if (json_uint64(v, &s->from)) {
        s->start = GROUP_FROM;
    } else if (deed_str_equal(text, DEED_STR("start"))) {
        s->start = GROUP_FROM_START;
    } else if (deed_str_equal(text, DEED_STR("end"))) {
        s->start = GROUP_FROM_END;
    } else {
        return false;
    }
    return true;
}

static bool set_number(uint32_t *out, json_value v)
{
    uint64_t number;
    if (!json_uint64(v, &number) || number > UINT32_MAX) return false;
    *out = (uint32_t)number;
    return true;
}

static enum group_member answer(bool good)
{
    return good ? GROUP_MEMBER_SET : GROUP_MEMBER_WRONG;
}

enum group_member group_settings_set(struct group_settings *s, deed_str key, json_value v)
{
#define SETTINGS_SET(field) \
    if (deed_str_equal(key, DEED_STR(#field))) return answer(set_number(&s->field, v));
    GROUP_SETTINGS_NUMBERS(SETTINGS_SET)
#undef SETTINGS_SET
    if (deed_str_equal(key, DEED_STR("start"))) return answer(set_start(s, v));
    if (deed_str_equal(key, DEED_STR("strategy"))) {
        return answer(group_strategy_parse(json_text(v), &s->strategy));
    }
    if (deed_str_equal(key, DEED_STR("resolve_links"))) {
        return answer(json_bool(v, &s->resolve_links));
    }
    if (deed_str_equal(key, DEED_STR("extra_statistics"))) {
        return answer(json_bool(v, &s->extra_statistics));
    }
    if (!deed_str_equal(key, DEED_STR("filter"))) return GROUP_MEMBER_UNKNOWN;
    s->filter = json_raw(v);
    return GROUP_MEMBER_SET;
}

bool group_settings_same(const struct group_settings *a, const struct group_settings *b)
{
    bool same = a->start == b->start && (a->start != GROUP_FROM || a->from == b->from) &&
                a->strategy == b->strategy && a->resolve_links == b->resolve_links &&
                a->extra_statistics == b->extra_statistics;
#define SETTINGS_SAME(field) same = same && a->field == b->field;
    GROUP_SETTINGS_NUMBERS(SETTINGS_SAME)
#undef SETTINGS_SAME
    return same;
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

/* All were written, but for the filter, which may be none. */
static deed_status settings_read(json_value v, struct group_settings *s, struct deed_error *err)
{
#define SETTINGS_NAME(field) #field,
    static const char *const names[] = {"start", "strategy", "resolve_links", "extra_statistics",
                                        GROUP_SETTINGS_NUMBERS(SETTINGS_NAME)};
#undef SETTINGS_NAME
    group_settings_default(s);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        deed_str name = deed_str_of(names[i]);
        if (group_settings_set(s, name, json_get(v, name)) != GROUP_MEMBER_SET) {
            return damaged(err, names[i]);
        }
    }
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
        uint64_t version = 0;
        if (json_kind_of(list) != JSON_ARRAY) status = damaged(err, "the list of groups");
        if (!json_uint64(json_get(root, DEED_STR("version")), &version) || version != 1) {
            status = damaged(err, "version 1");
        }
        for (struct json_iterator i = json_iterate(list); status == DEED_OK && json_next(&i);) {
            status = group_read(groups, i.value, err);
        }
    } else if (status != DEED_NO_MEMORY) {
        status = damaged(err, "the JSON of all");
    }
    arena_done(&arena);
    return status;
}
