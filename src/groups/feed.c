/* feed.c - from the log into a group's window: the source, and what was parked and is replayed.
 *
 *   [lock: is there room?] ─► read a batch, resolve links ─► [lock: add, give out]
 *
 * (1) Only the actor reads, so the cursor needs no lock. What it read for a window that was emptied
 *     meanwhile (a new generation) is thrown away, and the cursor with it.
 * (2) `read_number` moves only together with the items before it: a checkpoint never passes what is
 *     not in the window.
 * (3) A damaged event, or one that cannot be read, stops the group there and says so: passing over it
 *     would be a silent loss. It is tried again every second.
 * (4) Without consumers nothing is read. */
#include "groups/group_state.h"

#include "base/text.h"
#include "json/json.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#define BATCH_MAX      256u
#define FILTER_LIST_MAX 256u

bool groups_owns(deed_str stream)
{
    deed_str metadata = DEED_STR("$$");
    if (str_starts_with(stream, metadata) && stream.len > 2 && stream.ptr[2] == '$') {
        stream = (deed_str){stream.ptr + 2, stream.len - 2};
    }
    return str_starts_with(stream, DEED_STR(GROUPS_STATE_PREFIX)) ||
           deed_str_equal(stream, DEED_STR(GROUPS_CONFIG_STREAM));
}

/* ---- an event in one piece -------------------------------------------------------------------- */

static size_t event_bytes(const struct deed_event *e)
{
    size_t size = e->stream.len + e->type.len + e->content_type.len + e->data.len +
                  e->metadata.len + e->correlation_id.len + e->causation_id.len + e->actor.len +
                  e->tag_count * sizeof *e->tags;
    for (size_t i = 0; i < e->tag_count; i++) size += e->tags[i].len;
    return size;
}

static char *put(char **at, const void *bytes, size_t len)
{
    char *here = *at;
    if (len > 0) memcpy(here, bytes, len);
    *at += len;
    return here;
}

static deed_str put_str(char **at, deed_str s)
{
    return (deed_str){put(at, s.ptr, s.len), s.len};
}

/* `tags` first: they must be aligned. */
static void copy_event(struct deed_event *out, const struct deed_event *e, deed_str **tags,
                       char **at)
{
    *out = *e;
    out->link_stream = (deed_str){0}; /* a virtual stream's link is an event of its own here */
    out->link_revision = 0;
    out->tags = *tags;
    for (size_t i = 0; i < e->tag_count; i++) (*tags)[i] = put_str(at, e->tags[i]);
    *tags += e->tag_count;
    out->stream = put_str(at, e->stream);
    out->type = put_str(at, e->type);
    out->content_type = put_str(at, e->content_type);
    out->data = (deed_bytes){(const uint8_t *)put(at, e->data.ptr, e->data.len), e->data.len};
    out->metadata =
        (deed_bytes){(const uint8_t *)put(at, e->metadata.ptr, e->metadata.len), e->metadata.len};
    out->correlation_id = put_str(at, e->correlation_id);
    out->causation_id = put_str(at, e->causation_id);
    out->actor = put_str(at, e->actor);
    out->idempotency_key = (deed_str){0};
    out->request_hash = NULL;
}

struct group_event *group_event_create(const struct deed_event *event,
                                       const struct deed_event *link)
{
    size_t size = sizeof(struct group_event);
    size_t tag_count = 0;
    if (event != NULL) {
        size += event_bytes(event);
        tag_count += event->tag_count;
    }
    if (link != NULL) {
        size += event_bytes(link);
        tag_count += link->tag_count;
    }
    struct group_event *content = malloc(size);
    if (content == NULL) return NULL;
    atomic_init(&content->holds, 1);
    content->size = size;
    content->has_event = event != NULL;
    content->has_link = link != NULL;
    deed_str *tags = (deed_str *)(void *)(content + 1);
    char *at = (char *)(tags + tag_count);
    if (event != NULL) copy_event(&content->event, event, &tags, &at);
    if (link != NULL) copy_event(&content->link, link, &tags, &at);
    assert((size_t)(at - (char *)content) == size);
    return content;
}

void group_event_release(struct group_event *content)
{
    if (content == NULL) return;
    if (atomic_fetch_sub_explicit(&content->holds, 1, memory_order_acq_rel) == 1) free(content);
}

/* ---- links -------------------------------------------------------------------------------------- */

static deed_status no_memory(struct deed_error *err)
{
    return deed_fail(err, DEED_NO_MEMORY, "group: out of memory");
}

/* One event of a stream, hidden or not. DEED_NOT_FOUND: it is not stored. */
static deed_status read_one(struct groups *groups, deed_str stream, uint64_t revision,
                            struct deed_cursor **out_cursor, struct deed_event *out_event,
                            struct deed_error *err)
{
    struct deed_read_options options = {.stream = stream,
                                        .from_revision = revision,
                                        .count_max = 1,
                                        .ignore_retention = true,
                                        .removed = true};
    struct deed_cursor *cursor = NULL;
    deed_status status = store_read(groups->store, &options, &cursor, err);
    if (status == DEED_OK) status = cursor_next(cursor, out_event, err);
    bool there = status == DEED_OK && !out_event->removed &&
                 event_revision_read(out_event) == revision;
    if (status == DEED_END || (status == DEED_OK && !there)) {
        status = deed_fail(err, DEED_NOT_FOUND, "revision %llu of stream %.*s is not stored",
                           (unsigned long long)revision, DEED_FMT(stream));
    }
    if (status != DEED_OK) {
        cursor_close(cursor);
        return status;
    }
    *out_cursor = cursor;
    return DEED_OK;
}

static struct group_event *virtual_content(struct groups *groups, const struct deed_event *e,
                                           bool resolve)
{
    char data[STORE_LINK_DATA_SIZE_MAX];
    struct deed_event link = store_link_event(groups->store, e, data);
    return resolve ? group_event_create(e, &link) : group_event_create(&link, NULL);
}

/* What a group delivers for an event that was read. */
static deed_status content_of(struct groups *groups, const struct deed_event *e, bool resolve,
                              struct group_event **out_content, struct deed_error *err)
{
    uint64_t revision;
    deed_str stream;
    struct group_event *content = NULL;
    bool is_link = resolve && deed_str_equal(e->type, DEED_STR(STORE_LINK_TYPE));
    if (e->link_stream.ptr != NULL) {
        content = virtual_content(groups, e, resolve);
    } else if (is_link && store_link_parse(e->data, &stream, &revision)) {
        struct deed_cursor *cursor = NULL;
        struct deed_event target;
        deed_status status = read_one(groups, stream, revision, &cursor, &target, err);
        bool gone = status == DEED_NOT_FOUND || status == DEED_DELETED;
        if (status != DEED_OK && !gone) return status;
        content = group_event_create(gone ? NULL : &target, e);
        cursor_close(cursor);
    } else {
        content = group_event_create(e, NULL);
    }
    if (content == NULL) return no_memory(err);
    *out_content = content;
    return DEED_OK;
}

deed_status feed_resolve(struct groups *groups, deed_bytes link_data, bool links,
                         struct group_event **out_content, struct deed_error *err)
{
    uint64_t revision;
    deed_str stream;
    struct deed_cursor *cursor = NULL;
    struct deed_event event;
    if (!store_link_parse(link_data, &stream, &revision)) {
        return deed_fail(err, DEED_NOT_FOUND, "\"%.*s\" is no link", DEED_FMT(link_data));
    }
    deed_status status = read_one(groups, stream, revision, &cursor, &event, err);
    if (status == DEED_DELETED) status = DEED_NOT_FOUND;
    if (status != DEED_OK) return status;
    status = content_of(groups, &event, links, out_content, err);
    cursor_close(cursor);
    return status;
}

/* ---- the filter ----------------------------------------------------------------------------------- */

struct filter {
    struct deed_filter filter;
    deed_str match; /* JSON; ptr NULL: none */
};

static deed_status read_names(struct arena *arena, json_value list, const char *what,
                              const deed_str **out, size_t *out_count, struct deed_error *err)
{
    size_t count = json_count(list);
    if (json_kind_of(list) != JSON_ARRAY || count > FILTER_LIST_MAX) {
        return deed_fail(err, DEED_INVALID, "filter: %s must be a list of at most %u names", what,
                         FILTER_LIST_MAX);
    }
    deed_str *names = arena_alloc_array(arena, count, sizeof *names);
    if (names == NULL) return no_memory(err);
    for (struct json_iterator i = json_iterate(list); json_next(&i);) {
        names[i.index] = json_text(i.value);
        if (names[i.index].len == 0) {
            return deed_fail(err, DEED_INVALID, "filter: %s: element %zu is no name", what,
                             i.index);
        }
    }
    *out = names;
    *out_count = count;
    return DEED_OK;
}

static deed_status filter_member(struct arena *arena, deed_str key, json_value v,
                                 struct filter *out, struct deed_error *err)
{
    struct deed_filter *f = &out->filter;
    if (deed_str_equal(key, DEED_STR("types"))) {
        return read_names(arena, v, "types", &f->types, &f->type_count, err);
    }
    if (deed_str_equal(key, DEED_STR("tags"))) {
        return read_names(arena, v, "tags", &f->tags, &f->tag_count, err);
    }
    if (deed_str_equal(key, DEED_STR("categories"))) {
        return read_names(arena, v, "categories", &f->categories, &f->category_count, err);
    }
    if (deed_str_equal(key, DEED_STR("system"))) {
        if (json_bool(v, &f->system)) return DEED_OK;
        return deed_fail(err, DEED_INVALID, "filter: system must be true or false");
    }
    if (deed_str_equal(key, DEED_STR("match"))) {
        out->match = json_raw(v);
        return DEED_OK;
    }
    return deed_fail(err, DEED_INVALID, "filter: member \"%.*s\" is not known", DEED_FMT(key));
}

static deed_status filter_parse(struct arena *arena, deed_str json, struct filter *out,
                                struct deed_error *err)
{
    json_value root;
    *out = (struct filter){0};
    if (json.ptr == NULL) return DEED_OK;
    deed_status status = json_parse(arena, deed_bytes_of(json), 0, &root, err);
    if (status != DEED_OK) return status;
    if (json_kind_of(root) != JSON_OBJECT) {
        return deed_fail(err, DEED_INVALID, "a filter must be a JSON object, it is %s",
                         json_kind_name(json_kind_of(root)));
    }
    for (struct json_iterator i = json_iterate(root); status == DEED_OK && json_next(&i);) {
        status = filter_member(arena, i.key, i.value, out, err);
    }
    return status;
}

static deed_status match_open(struct groups *groups, deed_str match, void **out,
                              struct deed_error *err)
{
    if (match.ptr == NULL) {
        *out = NULL;
        return DEED_OK;
    }
    if (groups->options.match_open == NULL) {
        return deed_fail(err, DEED_INVALID, "filter: \"match\" is not known here");
    }
    return groups->options.match_open(groups->options.context, match, out, err);
}

deed_status feed_check_filter(struct groups *groups, deed_str filter, struct deed_error *err)
{
    struct arena arena;
    struct filter parsed;
    void *match = NULL;
    arena_init(&arena, SIZE_MAX);
    deed_status status = filter_parse(&arena, filter, &parsed, err);
    if (status == DEED_OK) status = match_open(groups, parsed.match, &match, err);
    if (match != NULL) groups->options.match_close(match);
    arena_done(&arena);
    return status;
}

/* ---- the source ----------------------------------------------------------------------------------- */

struct batch {
    struct {
        struct group_event *content;
        uint64_t number, before, parked_at;
    } items[BATCH_MAX];
    size_t count, wanted;
    uint64_t bytes; /* of its items */
    uint64_t generation;
    uint64_t read_number; /* behind the batch */
    uint64_t replay_next; /* behind what was replayed */
    bool resolve, live;
    deed_str filter;
};

void feed_close(struct group *g)
{
    cursor_close(g->cursor);
    g->cursor = NULL;
}

static deed_status feed_open(struct group *g, const struct batch *b, struct deed_error *err)
{
    struct arena arena;
    struct filter filter;
    uint64_t read = b->read_number;
    if (g->cursor != NULL && g->cursor_generation == b->generation) return DEED_OK;
    feed_close(g);
    arena_init(&arena, SIZE_MAX);
    deed_status status = filter_parse(&arena, b->filter, &filter, err);
    if (status == DEED_OK && !g->is_match_open) {
        status = match_open(g->groups, filter.match, &g->match, err);
        g->is_match_open = status == DEED_OK;
    }
    if (status == DEED_OK) {
        struct deed_read_options options = {.follow = true, .filter = filter.filter};
        if (g->is_all) {
            options.after_position = read == DEED_NONE ? 0 : read;
            options.removed = true; /* the horizon is no end of it */
        } else {
            options.stream = g->source;
            options.from_revision = read == DEED_NONE ? 0 : read + 1;
        }
        status = store_read(g->groups->store, &options, &g->cursor, err);
    }
    g->cursor_generation = b->generation;
    arena_done(&arena);
    return status;
}

static deed_status feed_wants(const struct group *g, const struct deed_event *e, bool *out_wants,
                              struct deed_error *err)
{
    *out_wants = !g->is_all || (!e->removed && !groups_owns(e->stream));
    if (!*out_wants || g->match == NULL) return DEED_OK;
    return g->groups->options.match_wants(g->match, e, out_wants, err);
}

static bool batch_is_full(const struct batch *b)
{
    return b->count == b->wanted || b->bytes >= GROUP_BATCH_BYTES;
}

static void batch_add(struct batch *b, struct group_event *content, uint64_t number, uint64_t before,
                      uint64_t parked_at)
{
    b->items[b->count].content = content;
    b->items[b->count].number = number;
    b->items[b->count].before = before;
    b->items[b->count++].parked_at = parked_at;
    b->bytes += content->size;
}

static deed_status read_source(struct group *g, struct batch *b, struct deed_error *err)
{
    deed_status status = feed_open(g, b, err);
    for (unsigned i = 0; status == DEED_OK && !batch_is_full(b) && i < GROUP_EXAMINE_MAX; i++) {
        struct deed_event e;
        struct group_event *content = NULL;
        status = cursor_next(g->cursor, &e, err);
        if (status == DEED_END) {
            if (g->is_all && cursor_position(g->cursor) > 0) {
                b->read_number = cursor_position(g->cursor);
            }
            b->live = true;
            return DEED_OK;
        }
        if (status != DEED_OK) break;
        uint64_t number = g->is_all ? e.position : event_revision_read(&e);
        bool wants = true;
        status = feed_wants(g, &e, &wants, err);
        if (status != DEED_OK) break;
        if (wants) {
            status = content_of(g->groups, &e, b->resolve, &content, err);
            if (status != DEED_OK) break;
            batch_add(b, content, number, b->read_number, DEED_NONE);
        }
        b->read_number = number;
    }
    /* What was read before the failure is good; the rest is read again by another cursor. */
    if (status != DEED_OK) feed_close(g);
    return status;
}

/* ---- what was parked --------------------------------------------------------------------------- */

static deed_status read_parked(struct group *g, struct batch *b, uint64_t stop,
                               struct deed_error *err)
{
    struct deed_cursor *cursor = NULL;
    struct deed_event link;
    struct deed_read_options options = {.stream = g->parked_stream,
                                        .from_revision = b->replay_next,
                                        .count_max = b->wanted};
    deed_status status = store_read(g->groups->store, &options, &cursor, err);
    if (status == DEED_NOT_FOUND) {
        b->replay_next = stop;
        return DEED_OK;
    }
    size_t seen = 0;
    while (status == DEED_OK && b->replay_next < stop && !batch_is_full(b)) {
        status = cursor_next(cursor, &link, err);
        if (status != DEED_OK) break;
        seen++;
        if (link.revision >= stop) {
            b->replay_next = stop;
            break;
        }
        struct group_event *content = NULL;
        status = feed_resolve(g->groups, link.data, b->resolve, &content, err);
        if (status == DEED_OK) {
            const struct deed_event *original = group_event_original(content);
            batch_add(b, content, g->is_all ? original->position : original->revision, DEED_NONE,
                      link.revision);
        }
        if (status == DEED_NOT_FOUND) status = DEED_OK; /* removed since: nothing to deliver */
        if (status == DEED_OK) b->replay_next = link.revision + 1;
    }
    if (status == DEED_END) {
        /* Fewer than asked for: behind the last one there is nothing before `stop`. */
        if (seen < b->wanted) b->replay_next = stop;
        status = DEED_OK;
    }
    cursor_close(cursor);
    return status;
}

/* ---- a step ------------------------------------------------------------------------------------- */

size_t feed_capacity(const struct group *g)
{
    uint32_t size = g->live ? g->settings.live_buffer_size : g->settings.history_buffer_size;
    if (size == 0) size = 1;
    return size < GROUP_WAITING_MAX ? size : GROUP_WAITING_MAX;
}

/* With the lock: is there anything to read, and room for it? */
static bool feed_begin(struct group *g, struct batch *b, bool *out_replay, uint64_t *out_stop)
{
    g->wants_room = false;
    if (g->removed || g->consumer_count == 0 || group_now(g) < g->retry_at_ns) return false;
    size_t capacity = feed_capacity(g);
    size_t batch = g->settings.read_batch_size;
    if (batch > BATCH_MAX) batch = BATCH_MAX;
    if (batch > capacity) batch = capacity;
    if (g->waiting + batch > capacity || feed_is_heavy(g) || g->parking.count >= capacity) {
        g->wants_room = true;
        return false;
    }
    *out_replay = g->replaying && g->replay_next < g->replay_stop;
    *out_stop = g->replay_stop;
    b->count = 0;
    b->bytes = 0;
    b->wanted = batch;
    b->generation = g->generation;
    b->read_number = g->read_number;
    b->replay_next = g->replay_next;
    b->resolve = g->settings.resolve_links;
    b->filter = g->settings.filter;
    b->live = false;
    return true;
}

/* With the lock. false: there was no memory for all of it; what follows is read again (2). */
static bool feed_add(struct group *g, struct batch *b, bool replay)
{
    for (size_t i = 0; i < b->count; i++) {
        if (window_add(g, b->items[i].content, b->items[i].number, b->items[i].before,
                       b->items[i].parked_at)) {
            if (replay) g->replay_next = b->items[i].parked_at + 1;
            if (!replay) g->read_number = b->items[i].number;
            continue;
        }
        for (size_t k = i; k < b->count; k++) group_event_release(b->items[k].content);
        return false;
    }
    if (replay) {
        g->replay_next = b->replay_next;
    } else {
        g->read_number = b->read_number;
        g->live = b->live;
    }
    return true;
}

bool feed_step(struct group *g)
{
    struct batch b;
    bool replay = false;
    uint64_t stop = 0;
    os_mutex_lock(&g->lock);
    bool wanted = feed_begin(g, &b, &replay, &stop);
    bool unused = g->consumer_count == 0;
    os_mutex_unlock(&g->lock);
    if (!wanted) {
        if (unused) feed_close(g); /* it holds memory for reading ahead */
        return false;
    }

    struct deed_error err = {0};
    deed_status status = replay ? read_parked(g, &b, stop, &err) : read_source(g, &b, &err);

    os_mutex_lock(&g->lock);
    bool current = g->generation == b.generation && !g->removed;
    if (!current) {
        for (size_t i = 0; i < b.count; i++) group_event_release(b.items[i].content);
    } else if (!feed_add(g, &b, replay)) {
        status = no_memory(&err);
    }
    g->trouble[0] = '\0';
    if (current && status != DEED_OK) {
        (void)snprintf(g->trouble, sizeof g->trouble, "%s", err.message);
        g->retry_at_ns = group_now(g) + GROUP_TICK_NS;
    }
    if (current) window_dispatch(g);
    os_mutex_unlock(&g->lock);
    /* The cursor is ahead of what was taken over. */
    if (status != DEED_OK || !current) feed_close(g);
    return status == DEED_OK && (replay || !b.live);
}
