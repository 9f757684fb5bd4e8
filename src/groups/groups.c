/* groups.c - the groups there are, their consumers, and the actor that drives them.
 *
 *   callers ─► [admin] ─► [list] ─► [a group] ◄─ consumers: take, ack, nack
 *                                      ▲
 *   actor: for each group: settle a write, expire, read, begin a write
 *
 * (1) Locks are taken in this order: admin, list, group; and the log is never waited for inside the
 *     last two. Only one group's lock is held at a time.
 * (2) A group lives as long as somebody holds it: the list, the actor's step, each of its consumers, a
 *     call. The one who lets go last frees it, so nobody else can be looking.
 * (3) What is in the log comes first: a group can be used when its settings are durable, and is gone for
 *     its users before its deletion is.
 * (4) A consumer that was dropped stays until its user leaves; it holds nothing. */
#include "groups/group_state.h"

#include "base/text.h"
#include "json/json.h"

#include <assert.h>
#include <stdlib.h>

static deed_status no_memory(struct deed_error *err)
{
    return deed_fail(err, DEED_NO_MEMORY, "group: out of memory");
}

/* ---- a group ------------------------------------------------------------------------------------ */

static void group_free(struct group *g)
{
    assert(g->consumer_count == 0 && g->write.state != WRITE_PENDING);
    while (g->write.parked.first != NULL) window_done(g, g->write.parked.first);
    window_clear(g);
    feed_close(g);
    if (g->match != NULL) g->groups->options.match_close(g->match);
    free(g->ids);
    free(g->lanes);
    free(g->consumers);
    arena_done(&g->write.arena);
    arena_done(&g->names);
    os_cond_done(&g->written);
    os_mutex_done(&g->lock);
    free(g);
}

void group_release(struct group *g)
{
    if (g == NULL) return;
    if (atomic_fetch_sub_explicit(&g->holds, 1, memory_order_acq_rel) == 1) group_free(g);
}

static bool group_name(struct group *g, deed_str source, deed_str name)
{
    g->source = arena_str(&g->names, source);
    g->name = arena_str(&g->names, name);
    g->checkpoint_stream =
        arena_printf(&g->names, GROUPS_STATE_PREFIX "%.*s::%.*s-checkpoint", DEED_FMT(source),
                     DEED_FMT(name));
    g->parked_stream = arena_printf(&g->names, GROUPS_STATE_PREFIX "%.*s::%.*s-parked",
                                    DEED_FMT(source), DEED_FMT(name));
    g->is_all = deed_str_equal(source, DEED_STR(GROUPS_ALL));
    return g->source.ptr != NULL && g->name.ptr != NULL && g->checkpoint_stream.ptr != NULL &&
           g->parked_stream.ptr != NULL;
}

static deed_status check_names(struct groups *groups, const struct group *g, struct deed_error *err)
{
    uint32_t max = store_limits(groups->store)->name_size_max;
    if (g->source.len == 0) return deed_fail(err, DEED_INVALID, "stream: must not be empty");
    if (g->name.len == 0) return deed_fail(err, DEED_INVALID, "group name: must not be empty");
    if (!utf8_valid(deed_bytes_of(g->source)) || !utf8_valid(deed_bytes_of(g->name))) {
        return deed_fail(err, DEED_INVALID, "group: its name or its stream's is not UTF-8");
    }
    if (g->checkpoint_stream.len > max) {
        return deed_fail(err, DEED_TOO_LARGE,
                         "group: its name and its stream's are %zu bytes, limit %zu",
                         g->name.len + g->source.len,
                         max - (g->checkpoint_stream.len - g->name.len - g->source.len));
    }
    return DEED_OK;
}

deed_status group_set(struct group *g, const struct group_settings *settings,
                      struct deed_error *err)
{
    deed_str filter = g->settings.filter;
    if (filter.ptr == NULL && settings->filter.ptr != NULL) {
        filter = arena_str(&g->names, settings->filter);
        if (filter.ptr == NULL) return no_memory(err);
    }
    g->settings = *settings;
    g->settings.filter = filter;
    return DEED_OK;
}

deed_status group_create(struct groups *groups, deed_str source, deed_str name,
                         const struct group_settings *settings, struct group **out_group,
                         struct deed_error *err)
{
    struct group *g = calloc(1, sizeof *g);
    if (g == NULL) return no_memory(err);
    g->groups = groups;
    atomic_init(&g->holds, 1);
    os_mutex_init(&g->lock);
    os_cond_init(&g->written);
    arena_init(&g->names, SIZE_MAX);
    arena_init(&g->write.arena, SIZE_MAX);
    g->saved = g->read_number = DEED_NONE;
    g->saved_at_ns = g->ticked_ns = os_ticks_ns(groups->os);
    deed_status status = group_name(g, source, name) ? DEED_OK : no_memory(err);
    if (status == DEED_OK) status = check_names(groups, g, err);
    if (status == DEED_OK) status = group_set(g, settings, err);
    if (status != DEED_OK) {
        group_release(g);
        return status;
    }
    *out_group = g;
    return DEED_OK;
}

/* ---- the list --------------------------------------------------------------------------------- */

static int group_order(const struct group *g, deed_str source, deed_str name)
{
    int order = str_compare(g->source, source);
    return order != 0 ? order : str_compare(g->name, name);
}

/* Where it is, or belongs. The list's lock is held. */
static size_t list_place(const struct groups *groups, deed_str source, deed_str name)
{
    size_t low = 0;
    size_t high = groups->count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (group_order(groups->list[middle], source, name) < 0) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

static deed_status not_found(struct deed_error *err, deed_str source, deed_str name)
{
    return deed_fail(err, DEED_NOT_FOUND, "stream %.*s has no group %.*s", DEED_FMT(source),
                     DEED_FMT(name));
}

/* With a hold of the caller's. */
static deed_status group_find(struct groups *groups, deed_str source, deed_str name,
                              struct group **out, struct deed_error *err)
{
    struct group *found = NULL;
    os_mutex_lock(&groups->lock);
    size_t at = list_place(groups, source, name);
    if (at < groups->count && group_order(groups->list[at], source, name) == 0) {
        found = groups->list[at];
        atomic_fetch_add_explicit(&found->holds, 1, memory_order_relaxed);
    }
    os_mutex_unlock(&groups->lock);
    if (found == NULL) return not_found(err, source, name);
    *out = found;
    return DEED_OK;
}

deed_status groups_insert(struct groups *groups, struct group *g, struct deed_error *err)
{
    os_mutex_lock(&groups->lock);
    deed_status status = DEED_OK;
    if (groups->count == groups->room) {
        size_t room = groups->room == 0 ? 16 : groups->room * 2;
        struct group **grown = realloc(groups->list, room * sizeof *grown);
        if (grown != NULL) {
            groups->list = grown;
            groups->room = room;
        } else {
            status = no_memory(err);
        }
    }
    if (status == DEED_OK) {
        size_t at = list_place(groups, g->source, g->name);
        bool there = at < groups->count && group_order(groups->list[at], g->source, g->name) == 0;
        if (there) status = deed_fail(err, DEED_CONFLICT, "group %.*s is there twice", DEED_FMT(g->name));
        if (there) goto done;
        memmove(&groups->list[at + 1], &groups->list[at],
                (groups->count - at) * sizeof *groups->list);
        groups->list[at] = g;
        groups->count++;
    }
done:
    os_mutex_unlock(&groups->lock);
    return status;
}

static void list_remove(struct groups *groups, struct group *g)
{
    os_mutex_lock(&groups->lock);
    size_t at = list_place(groups, g->source, g->name);
    if (at < groups->count && groups->list[at] == g) {
        groups->count--;
        memmove(&groups->list[at], &groups->list[at + 1],
                (groups->count - at) * sizeof *groups->list);
    }
    os_mutex_unlock(&groups->lock);
}

/* ---- the actor ---------------------------------------------------------------------------------- */

/* With the lock: it holds nothing any more, and learns so when it asks (4). */
static void drop(struct group *g, struct group_consumer *c)
{
    window_leave(g, c);
    atomic_fetch_sub_explicit(&g->groups->consumers, 1, memory_order_relaxed);
    if (c->options.wake != NULL) c->options.wake(c->options.context);
}

static void drop_silent(struct group *g, uint64_t now_ns)
{
    for (size_t i = g->consumer_count; i-- > 0;) {
        struct group_consumer *c = g->consumers[i];
        bool idle = c->options.on_demand && consumer_held(c) == 0 && c->wanted == 0;
        if (idle && now_ns - c->asked_ns > GROUP_DEMAND_IDLE_NS) drop(g, c);
    }
}

static void group_tick(struct group *g, uint64_t now_ns)
{
    uint64_t elapsed = now_ns - g->ticked_ns;
    if (elapsed < GROUP_TICK_NS) return;
    g->ticked_ns = now_ns;
    g->per_second = g->since_measurement * GROUP_TICK_NS / elapsed;
    g->since_measurement = 0;
    for (size_t i = 0; i < g->consumer_count; i++) {
        struct group_consumer *c = g->consumers[i];
        c->per_second = c->since_measurement * GROUP_TICK_NS / elapsed;
        c->since_measurement = 0;
    }
    window_expire(g, now_ns);
    drop_silent(g, now_ns);
    window_dispatch(g);
}

/* When it wants to be stepped again if nothing happens. */
static uint64_t group_step(struct group *g)
{
    os_mutex_lock(&g->lock);
    group_tick(g, group_now(g));
    bool idle = g->consumer_count == 0 && !durable_waits(g);
    os_mutex_unlock(&g->lock);
    bool more = feed_step(g);
    durable_step(g);
    if (more) return ACTOR_AGAIN;
    return idle ? ACTOR_WAIT : GROUP_TICK_NS / 4;
}

uint64_t groups_step(void *context)
{
    struct groups *groups = context;
    uint64_t wait = ACTOR_WAIT;
    for (size_t i = 0;; i++) {
        os_mutex_lock(&groups->lock);
        struct group *g = i < groups->count ? groups->list[i] : NULL;
        if (g != NULL) atomic_fetch_add_explicit(&g->holds, 1, memory_order_relaxed);
        os_mutex_unlock(&groups->lock);
        if (g == NULL) return wait;
        uint64_t wanted = group_step(g);
        if (wanted < wait) wait = wanted;
        group_release(g);
    }
}

static void log_grew(void *context, uint64_t position)
{
    struct groups *groups = context;
    (void)position;
    if (atomic_load_explicit(&groups->consumers, memory_order_relaxed) > 0) {
        actor_wake(groups->actor);
    }
}

static void groups_free(struct groups *groups)
{
    for (size_t i = 0; i < groups->count; i++) group_release(groups->list[i]);
    free(groups->list);
    os_mutex_done(&groups->lock);
    os_mutex_done(&groups->admin);
    free(groups);
}

deed_status groups_open(struct store *store, const struct groups_options *options,
                        struct groups **out_groups, struct deed_error *err)
{
    struct groups *groups = calloc(1, sizeof *groups);
    if (groups == NULL) return no_memory(err);
    groups->store = store;
    groups->os = store_os(store);
    if (options != NULL) groups->options = *options;
    if (groups->options.bytes_max == 0) groups->options.bytes_max = GROUPS_BYTES_MAX;
    os_mutex_init(&groups->admin);
    os_mutex_init(&groups->lock);
    deed_status status = durable_load(groups, err);
    if (status == DEED_OK && !groups->options.no_threads) {
        status = actor_start("groups", groups_step, groups, &groups->actor, err);
    }
    if (status != DEED_OK) {
        deed_wrap(err, "consumer groups");
        groups_free(groups);
        return status;
    }
    groups->watch = (struct store_watch){.changed = log_grew, .context = groups};
    store_watch(store, &groups->watch);
    *out_groups = groups;
    return DEED_OK;
}

void groups_close(struct groups *groups)
{
    if (groups == NULL) return;
    store_unwatch(groups->store, &groups->watch);
    /* The writes' answers wake the actor: it goes when none is under way. */
    atomic_store(&groups->closing, true);
    for (size_t i = 0; i < groups->count; i++) {
        os_mutex_lock(&groups->list[i]->lock);
        durable_wait(groups->list[i]);
        os_mutex_unlock(&groups->list[i]->lock);
    }
    actor_stop(groups->actor);
    groups->actor = NULL;
    for (size_t i = 0; i < groups->count; i++) durable_flush(groups->list[i]);
    groups_free(groups);
}

/* ---- care ------------------------------------------------------------------------------------------ */

/* Where a group begins that has no checkpoint. */
static deed_status find_begin(const struct group *g, const struct group_settings *s,
                              uint64_t *out_begin, struct deed_error *err)
{
    *out_begin = 0;
    if (s->start == GROUP_FROM && s->from != DEED_NONE) *out_begin = s->from;
    if (s->start == GROUP_FROM_START || *out_begin != 0) return DEED_OK;
    if (s->start == GROUP_FROM && s->from == 0) return DEED_OK;
    if (g->is_all) {
        *out_begin = store_position(g->groups->store) + 1;
        return DEED_OK;
    }
    return durable_stream_end(g->groups, g->source, out_begin, err);
}

static deed_status create(struct groups *groups, struct group *g, struct deed_error *err)
{
    struct group *found = NULL;
    deed_status status = settings_check(groups, g->is_all, &g->settings, err);
    if (status != DEED_OK) return status;
    if (group_find(groups, g->source, g->name, &found, NULL) == DEED_OK) {
        group_release(found);
        return deed_fail(err, DEED_CONFLICT, "stream %.*s has a group %.*s already",
                         DEED_FMT(g->source), DEED_FMT(g->name));
    }
    status = find_begin(g, &g->settings, &g->begin, err);
    if (status == DEED_OK) status = durable_save(groups, NULL, g, err);
    if (status == DEED_OK) status = durable_load_group(g, err);
    if (status == DEED_OK) status = groups_insert(groups, g, err);
    return status;
}

deed_status groups_create(struct groups *groups, deed_str source, deed_str name,
                          const struct group_settings *settings, struct deed_error *err)
{
    struct group *g = NULL;
    deed_status status = group_create(groups, source, name, settings, &g, err);
    if (status != DEED_OK) return status;
    os_mutex_lock(&groups->admin);
    status = create(groups, g, err);
    os_mutex_unlock(&groups->admin);
    if (status != DEED_OK) group_release(g);
    return status;
}

/* With the group's lock: nobody has anything of it any more (4), and it is as after a restart. */
static void group_reset(struct group *g)
{
    while (g->consumer_count > 0) {
        drop(g, g->consumers[g->consumer_count - 1]);
    }
    g->read_number = window_checkpoint(g);
    if (g->replay_oldest != NULL) g->replay_next = g->replay_oldest->parked_at;
    window_clear(g);
    g->generation++;
    g->live = false;
    g->retry_at_ns = 0;
}

static deed_status update(struct groups *groups, struct group *g,
                          const struct group_settings *settings, struct deed_error *err)
{
    deed_status status = settings_check(groups, g->is_all, settings, err);
    if (status != DEED_OK) return status;
    os_mutex_lock(&g->lock);
    durable_wait(g);
    struct group_settings before = g->settings;
    uint64_t begin = g->begin;
    uint64_t new_begin = begin;
    group_reset(g);
    /* Asked for "the end" again it does not pass over what has come since. */
    bool moved = settings->start != before.start ||
                 (settings->start == GROUP_FROM && settings->from != before.from);
    bool fresh = moved && g->saved == DEED_NONE && g->read_number == group_initial(g);
    os_mutex_unlock(&g->lock);
    if (fresh) status = find_begin(g, settings, &new_begin, err);
    if (status != DEED_OK) return status;
    os_mutex_lock(&g->lock);
    status = group_set(g, settings, err);
    g->begin = new_begin;
    os_mutex_unlock(&g->lock);
    if (status == DEED_OK) status = durable_save(groups, NULL, NULL, err);
    os_mutex_lock(&g->lock);
    durable_wait(g);
    group_reset(g); /* those who came meanwhile, and what they were given, are of the old settings */
    if (status != DEED_OK) {
        g->settings = before;
        g->begin = begin;
    }
    if (fresh) g->read_number = group_initial(g);
    os_mutex_unlock(&g->lock);
    return status;
}

deed_status groups_update(struct groups *groups, deed_str source, deed_str name,
                          const struct group_settings *settings, struct deed_error *err)
{
    struct group *g = NULL;
    struct group_settings wanted = *settings;
    wanted.filter = (deed_str){0};
    os_mutex_lock(&groups->admin);
    deed_status status = group_find(groups, source, name, &g, err);
    if (status == DEED_OK) status = update(groups, g, &wanted, err);
    os_mutex_unlock(&groups->admin);
    group_release(g);
    actor_wake(groups->actor);
    return status;
}

static deed_status delete(struct groups *groups, struct group *g, struct deed_error *err)
{
    os_mutex_lock(&g->lock);
    g->removed = true; /* no write begins */
    durable_wait(g);
    group_reset(g);
    os_mutex_unlock(&g->lock);
    deed_status status = durable_save(groups, g, NULL, err);
    if (status != DEED_OK) {
        os_mutex_lock(&g->lock);
        g->removed = false;
        os_mutex_unlock(&g->lock);
        return status;
    }
    list_remove(groups, g);
    group_release(g);
    return DEED_OK;
}

deed_status groups_delete(struct groups *groups, deed_str source, deed_str name,
                          struct deed_error *err)
{
    struct group *g = NULL;
    os_mutex_lock(&groups->admin);
    deed_status status = group_find(groups, source, name, &g, err);
    if (status == DEED_OK) status = delete(groups, g, err);
    os_mutex_unlock(&groups->admin);
    group_release(g);
    /* A step that goes through the list may have passed over the group that moved up. */
    actor_wake(groups->actor);
    return status;
}

/* The parked events: from `*out_first` to before `*out_end`. */
static deed_status parked_range(struct group *g, uint64_t *out_first, uint64_t *out_end,
                                struct deed_error *err)
{
    struct deed_stream_info info;
    *out_first = *out_end = 0;
    deed_status status = store_stream(g->groups->store, g->parked_stream, &info, err);
    if (status == DEED_NOT_FOUND) return DEED_OK;
    if (status != DEED_OK) return status;
    if (info.revision != DEED_NONE) *out_end = info.revision + 1;
    *out_first = info.first_revision == DEED_NONE ? *out_end : info.first_revision;
    return DEED_OK;
}

deed_status groups_replay_parked(struct groups *groups, deed_str source, deed_str name,
                                 uint64_t stop_at, uint64_t *out_count, struct deed_error *err)
{
    struct group *g = NULL;
    uint64_t first, end;
    deed_status status = group_find(groups, source, name, &g, err);
    if (status == DEED_OK) status = parked_range(g, &first, &end, err);
    if (status == DEED_OK) {
        if (stop_at < end) end = stop_at;
        uint64_t count = end > first ? end - first : 0;
        os_mutex_lock(&g->lock);
        if (g->replaying) {
            status = deed_fail(err, DEED_BUSY, "group %.*s is replaying what is parked already",
                               DEED_FMT(name));
        } else if (count > 0) {
            g->replaying = true;
            g->replay_next = first;
            g->replay_stop = end;
        }
        if (status == DEED_OK && out_count != NULL) *out_count = count;
        os_mutex_unlock(&g->lock);
        actor_wake(groups->actor);
    }
    group_release(g);
    return status;
}

deed_status groups_drop_parked(struct groups *groups, deed_str source, deed_str name,
                               uint64_t stop_at, uint64_t *out_count, struct deed_error *err)
{
    struct group *g = NULL;
    uint64_t first, end;
    os_mutex_lock(&groups->admin);
    deed_status status = group_find(groups, source, name, &g, err);
    if (status == DEED_OK) status = parked_range(g, &first, &end, err);
    if (status == DEED_OK) {
        if (stop_at < end) end = stop_at;
        uint64_t count = end > first ? end - first : 0;
        if (count > 0) status = durable_truncate(g, end, err);
        if (status == DEED_OK && out_count != NULL) *out_count = count;
    }
    os_mutex_unlock(&groups->admin);
    group_release(g);
    actor_wake(groups->actor); /* a replay may be over with it */
    return status;
}

static bool tell_parked(struct group *g, const struct deed_event *link,
                        bool (*each)(void *, const struct group_parked *), void *context,
                        deed_status *out_status, struct deed_error *err)
{
    struct arena arena;
    json_value root;
    struct group_event *content = NULL;
    struct group_parked parked = {.number = link->revision};
    arena_init(&arena, SIZE_MAX);
    if (json_parse(&arena, link->metadata, 0, &root, NULL) == DEED_OK) {
        parked.reason = json_text(json_get(root, DEED_STR("reason")));
        parked.added = json_text(json_get(root, DEED_STR("added")));
    }
    bool more = true;
    deed_status status = DEED_OK;
    if (store_link_parse(link->data, &parked.stream, &parked.revision)) {
        status = feed_resolve(g->groups, link->data, true, &content, err);
        if (status == DEED_OK && content->has_event) parked.event = &content->event;
        if (status == DEED_NOT_FOUND) status = DEED_OK;
        if (status == DEED_OK) more = each(context, &parked);
    }
    group_event_release(content);
    arena_done(&arena);
    *out_status = status;
    return more && status == DEED_OK;
}

deed_status groups_parked(struct groups *groups, deed_str source, deed_str name, uint64_t from,
                          bool (*each)(void *context, const struct group_parked *), void *context,
                          struct deed_error *err)
{
    struct group *g = NULL;
    struct deed_cursor *cursor = NULL;
    struct deed_event link;
    deed_status status = group_find(groups, source, name, &g, err);
    if (status != DEED_OK) return status;
    struct deed_read_options options = {.stream = g->parked_stream, .from_revision = from};
    status = store_read(groups->store, &options, &cursor, err);
    while (status == DEED_OK) {
        status = cursor_next(cursor, &link, err);
        if (status == DEED_OK && !tell_parked(g, &link, each, context, &status, err)) break;
    }
    if (status == DEED_END || status == DEED_NOT_FOUND) status = DEED_OK;
    cursor_close(cursor);
    group_release(g);
    return status;
}

void groups_restart(struct groups *groups)
{
    os_mutex_lock(&groups->admin);
    for (size_t i = 0; i < groups->count; i++) { /* admin: the list does not change */
        struct group *g = groups->list[i];
        durable_flush(g);
        os_mutex_lock(&g->lock);
        durable_wait(g);
        group_reset(g);
        os_mutex_unlock(&g->lock);
    }
    os_mutex_unlock(&groups->admin);
}

/* ---- telling ----------------------------------------------------------------------------------- */

deed_status groups_info(struct groups *groups, deed_str source, deed_str name, struct arena *arena,
                        struct group_info *out, struct deed_error *err)
{
    struct group *g = NULL;
    deed_status status = group_find(groups, source, name, &g, err);
    if (status == DEED_OK) status = group_tell(g, arena, out, err);
    group_release(g);
    return status;
}

/* A list of those there are now, each held; it is the arena's. NULL: no memory. Not by `admin`, which is
 * held while the log is written: who asks how things are must not wait for that. */
static struct group **hold_all(struct groups *groups, struct arena *arena, size_t *out_count)
{
    os_mutex_lock(&groups->lock);
    struct group **held = arena_alloc_array(arena, groups->count, sizeof *held);
    *out_count = held == NULL ? 0 : groups->count;
    for (size_t i = 0; i < *out_count; i++) {
        held[i] = groups->list[i];
        atomic_fetch_add_explicit(&held[i]->holds, 1, memory_order_relaxed);
    }
    os_mutex_unlock(&groups->lock);
    return held;
}

deed_status groups_list(struct groups *groups, deed_str source, struct arena *arena,
                        struct group_info **out, size_t *out_count, struct deed_error *err)
{
    size_t held_count = 0;
    size_t count = 0;
    struct group **held = hold_all(groups, arena, &held_count);
    struct group_info *list =
        held == NULL ? NULL : arena_alloc_array(arena, held_count, sizeof *list);
    deed_status status = list == NULL ? no_memory(err) : DEED_OK;
    for (size_t i = 0; i < held_count; i++) {
        bool wanted = source.ptr == NULL || deed_str_equal(held[i]->source, source);
        if (status == DEED_OK && wanted) status = group_tell(held[i], arena, &list[count++], err);
        group_release(held[i]);
    }
    if (status != DEED_OK) return status;
    *out = list;
    *out_count = count;
    return DEED_OK;
}

/* ---- consuming ------------------------------------------------------------------------------------- */

static char *copy_text(deed_str text)
{
    char *copy = calloc(1, text.len + 1);
    if (copy != NULL && text.len > 0) memcpy(copy, text.ptr, text.len);
    return copy;
}

static void consumer_free(struct group_consumer *c)
{
    if (c == NULL) return;
    free(c->from);
    free(c->user);
    free(c->name);
    free(c);
}

static struct group_consumer *consumer_create(const struct group_consumer_options *options)
{
    struct group_consumer *c = calloc(1, sizeof *c);
    if (c == NULL) return NULL;
    c->options = *options;
    if (c->options.buffer_size == 0) c->options.buffer_size = 1;
    if (c->options.buffer_size > GROUP_BUFFER_MAX) c->options.buffer_size = GROUP_BUFFER_MAX;
    c->from = copy_text(options->from);
    c->user = copy_text(options->user);
    c->name = copy_text(options->name);
    if (c->from != NULL && c->user != NULL && c->name != NULL) return c;
    consumer_free(c);
    return NULL;
}

static deed_status join(struct group *g, struct group_consumer *c, struct deed_error *err)
{
    uint32_t max = g->settings.consumer_count_max;
    if (g->removed) return not_found(err, g->source, g->name);
    if (max > 0 && g->consumer_count >= max) {
        return deed_fail(err, DEED_BUSY, "group %.*s has %u consumers, which is its limit",
                         DEED_FMT(g->name), max);
    }
    c->group = g;
    c->asked_ns = group_now(g);
    if (!window_join(g, c)) return no_memory(err);
    atomic_fetch_add_explicit(&g->groups->consumers, 1, memory_order_relaxed);
    return DEED_OK;
}

deed_status groups_join(struct groups *groups, deed_str source, deed_str name,
                        const struct group_consumer_options *options,
                        struct group_consumer **out_consumer, struct deed_error *err)
{
    struct group *g = NULL;
    deed_status status = group_find(groups, source, name, &g, err);
    if (status != DEED_OK) return status;
    struct group_consumer *c = consumer_create(options);
    if (c == NULL) {
        group_release(g);
        return no_memory(err);
    }
    os_mutex_lock(&g->lock);
    status = join(g, c, err);
    os_mutex_unlock(&g->lock);
    if (status != DEED_OK) {
        consumer_free(c);
        group_release(g);
        return status;
    }
    *out_consumer = c;
    actor_wake(groups->actor);
    return DEED_OK;
}

void groups_leave(struct group_consumer *consumer)
{
    if (consumer == NULL) return;
    struct group *g = consumer->group;
    os_mutex_lock(&g->lock);
    if (!consumer->dropped) {
        window_leave(g, consumer);
        atomic_fetch_sub_explicit(&g->groups->consumers, 1, memory_order_relaxed);
    }
    os_mutex_unlock(&g->lock);
    consumer_free(consumer);
    group_release(g);
}

void groups_want(struct group_consumer *c, size_t count)
{
    struct group *g = c->group;
    os_mutex_lock(&g->lock);
    c->asked_ns = group_now(g);
    window_want(g, c, count);
    os_mutex_unlock(&g->lock);
}

bool groups_dropped(struct group_consumer *c)
{
    os_mutex_lock(&c->group->lock);
    bool dropped = c->dropped;
    os_mutex_unlock(&c->group->lock);
    return dropped;
}

deed_status groups_take(struct group_consumer *c, struct group_message *messages, size_t count_max,
                        size_t size_wanted, size_t *out_count, struct deed_error *err)
{
    struct group *g = c->group;
    size_t count = 0;
    size_t size = 0;
    os_mutex_lock(&g->lock);
    bool dropped = c->dropped;
    uint64_t now_ns = c->outbox.count > 0 ? group_now(g) : 0;
    while (!dropped && count < count_max && size < size_wanted && c->outbox.count > 0) {
        struct item *item = window_take(c, now_ns);
        size += item->content->size;
        struct group_event *content = item->content;
        atomic_fetch_add_explicit(&content->holds, 1, memory_order_relaxed);
        messages[count++] =
            (struct group_message){.id = item->id,
                                   .event = content->has_event ? &content->event : NULL,
                                   .link = content->has_link ? &content->link : NULL,
                                   .retry_count = item->deliveries++,
                                   .content = content};
    }
    c->total += count;
    c->since_measurement += count;
    g->total += count;
    g->since_measurement += count;
    os_mutex_unlock(&g->lock);
    if (dropped) {
        return deed_fail(err, DEED_STOPPED, "group %.*s on %.*s was changed, and its consumers dropped",
                         DEED_FMT(g->name), DEED_FMT(g->source));
    }
    *out_count = count;
    return DEED_OK;
}

void group_message_done(struct group_message *message)
{
    group_event_release(message->content);
    *message = (struct group_message){0};
}

/* With the lock: after slots became free. true: the actor has something to do. */
static bool after_answers(struct group *g)
{
    window_dispatch(g);
    uint32_t max = g->settings.checkpoint_count_max;
    bool due = max > 0 && g->done_since_saved >= max && g->write.state == WRITE_NONE;
    bool room = g->wants_room && g->waiting <= feed_capacity(g) / 2 && !feed_is_heavy(g);
    if (room) g->wants_room = false;
    bool replayed = g->replaying && g->replay_oldest == NULL;
    return due || room || replayed || g->parking.count > 0;
}

/* With the lock: whoever answers is there. */
static void heard(struct group *g, struct group_consumer *c)
{
    if (c->options.on_demand) c->asked_ns = group_now(g);
}

/* With the lock. */
static size_t ack_ids(struct group *g, struct group_consumer *c, const deed_uuid *ids, size_t count)
{
    size_t done = 0;
    uint64_t now_ns = g->settings.extra_statistics ? group_now(g) : 0;
    heard(g, c);
    for (size_t i = 0; i < count && !c->dropped; i++) {
        struct item *item = window_find(g, c, ids[i]);
        if (item == NULL) continue;
        if (g->settings.extra_statistics && item->state == ITEM_OUT) {
            uint64_t us = (now_ns - item->since_ns) / 1000;
            c->latencies_us[c->latency_count++ % GROUP_LATENCIES] =
                us > UINT32_MAX ? UINT32_MAX : (uint32_t)us;
        }
        window_done(g, item);
        done++;
    }
    return done;
}

size_t groups_ack(struct group_consumer *c, const deed_uuid *ids, size_t count)
{
    struct group *g = c->group;
    os_mutex_lock(&g->lock);
    size_t done = ack_ids(g, c, ids, count);
    bool wake = done > 0 && after_answers(g);
    os_mutex_unlock(&g->lock);
    if (wake) actor_wake(g->groups->actor);
    return done;
}

static void nack(struct group *g, struct item *item, enum group_nack action, deed_str reason)
{
    switch (action) {
    case GROUP_NACK_PARK:
        window_park(g, item, reason);
        break;
    case GROUP_NACK_SKIP:
        window_done(g, item);
        break;
    case GROUP_NACK_STOP:
        break;
    case GROUP_NACK_UNKNOWN:
    case GROUP_NACK_RETRY:
    default:
        window_return(g, item, true, reason);
        break;
    }
}

/* With the lock. */
static size_t nack_ids(struct group *g, struct group_consumer *c, const deed_uuid *ids,
                       size_t count, enum group_nack action, deed_str reason)
{
    size_t done = 0;
    heard(g, c);
    for (size_t i = 0; i < count && !c->dropped; i++) {
        struct item *item = window_find(g, c, ids[i]);
        /* What timed out waits already. */
        if (item == NULL || item->state != ITEM_OUT) continue;
        nack(g, item, action, reason);
        done++;
    }
    return done;
}

size_t groups_nack(struct group_consumer *c, const deed_uuid *ids, size_t count,
                   enum group_nack action, deed_str reason)
{
    struct group *g = c->group;
    os_mutex_lock(&g->lock);
    size_t done = nack_ids(g, c, ids, count, action, reason);
    bool wake = done > 0 && after_answers(g);
    os_mutex_unlock(&g->lock);
    if (wake) actor_wake(g->groups->actor);
    return done;
}

static deed_status answer_by_name(struct groups *groups, deed_str source, deed_str name,
                                  deed_str consumer, const deed_uuid *ids, size_t count,
                                  bool is_ack, enum group_nack action, deed_str reason,
                                  size_t *out_done, struct deed_error *err)
{
    struct group *g = NULL;
    size_t done = 0;
    deed_status status = group_find(groups, source, name, &g, err);
    if (status != DEED_OK) return status;
    os_mutex_lock(&g->lock);
    for (size_t i = 0; i < g->consumer_count; i++) {
        struct group_consumer *c = g->consumers[i];
        if (!deed_str_equal(deed_str_of(c->name), consumer)) continue;
        done += is_ack ? ack_ids(g, c, ids, count) : nack_ids(g, c, ids, count, action, reason);
    }
    bool wake = done > 0 && after_answers(g);
    os_mutex_unlock(&g->lock);
    if (wake) actor_wake(groups->actor);
    group_release(g);
    *out_done = done;
    return DEED_OK;
}

deed_status groups_ack_by_name(struct groups *groups, deed_str source, deed_str name,
                               deed_str consumer, const deed_uuid *ids, size_t count,
                               size_t *out_done, struct deed_error *err)
{
    return answer_by_name(groups, source, name, consumer, ids, count, true, GROUP_NACK_UNKNOWN,
                          (deed_str){0}, out_done, err);
}

deed_status groups_nack_by_name(struct groups *groups, deed_str source, deed_str name,
                                deed_str consumer, const deed_uuid *ids, size_t count,
                                enum group_nack action, deed_str reason, size_t *out_done,
                                struct deed_error *err)
{
    return answer_by_name(groups, source, name, consumer, ids, count, false, action, reason,
                          out_done, err);
}
