/* durable.c - what of a group is in the log (docs/format/groups.md).
 *
 *   $persistentSubscriptionConfig                          all groups' settings, anew at each change
 *   $persistentsubscription-SOURCE::NAME-checkpoint        how far it has come; one is kept
 *   $persistentsubscription-SOURCE::NAME-parked            links to what was parked
 *
 * (1) A group writes one append at a time, atomically: its checkpoint, what it parks, how much of the
 *     parked was replayed.
 * (2) An item that is parked stays in the window until that is durable: no checkpoint passes it
 *     before.
 * (3) Creating a group cuts off what one of the same name left, in the same append: an old checkpoint is
 *     never taken for its own. Deleting does so, too.
 * (4) A replayed item stays in the parked stream until it, and all before it, have been dealt with.
 * (5) What is in these streams and makes no sense is somebody else's, and is passed over: a client that
 *     writes there, or copies another server's streams, does not keep this one from starting.
 * (6) A checkpoint is only worth its append when events were dealt with, or a long way was gone without
 *     any that the filter lets pass: else a group on the log would answer its own checkpoints. */
#include "groups/group_state.h"

#include "base/planted.h"
#include "base/text.h"
#include "base/timetext.h"
#include "json/json.h"

#include <assert.h>
#include <stdio.h>

#define CONFIG_TYPE     "$PersistentConfig"
#define CHECKPOINT_TYPE "$SubscriptionCheckpoint"
#define METADATA_TYPE   "$metadata"
/* Older settings that are kept, should the newest be unreadable. */
#define CONFIG_KEPT     10u
#define TEXT_MAX        ((size_t)64 << 20)

static deed_status no_memory(struct deed_error *err)
{
    return deed_fail(err, DEED_NO_MEMORY, "group: out of memory");
}

/* ---- events ---------------------------------------------------------------------------------- */

static deed_bytes checkpoint_data(struct arena *arena, const struct group *g, uint64_t number)
{
    unsigned long long n = number;
    deed_str text = g->is_all ? arena_printf(arena, "\"C:%llu/P:%llu\"", n, n)
                              : arena_printf(arena, "\"%llu\"", n);
    return deed_bytes_of(text);
}

static struct deed_new_event checkpoint_event(struct arena *arena, const struct group *g,
                                              uint64_t number)
{
    return (struct deed_new_event){.stream = g->checkpoint_stream,
                                   .type = DEED_STR(CHECKPOINT_TYPE),
                                   .data = checkpoint_data(arena, g, number)};
}

static bool checkpoint_parse(const struct group *g, deed_bytes data, uint64_t *out)
{
    deed_str text = {(const char *)data.ptr, data.len};
    if (text.len < 2 || text.ptr[0] != '"' || text.ptr[text.len - 1] != '"') return false;
    text = (deed_str){text.ptr + 1, text.len - 2};
    if (!g->is_all) return text_u64(text, out);
    const char *slash = text.len == 0 ? NULL : memchr(text.ptr, '/', text.len);
    if (slash == NULL || !str_starts_with(text, DEED_STR("C:"))) return false;
    return text_u64((deed_str){text.ptr + 2, (size_t)(slash - text.ptr) - 2}, out);
}

/* `max_count` 0: no such member. */
static struct deed_new_event retention_event(struct arena *arena, deed_str stream, uint64_t before,
                                             unsigned max_count)
{
    char count[32] = "";
    if (max_count > 0) (void)snprintf(count, sizeof count, ",\"$maxCount\":%u", max_count);
    deed_str data = arena_printf(arena, "{\"$tb\":%llu%s}", (unsigned long long)before, count);
    return (struct deed_new_event){.stream = arena_printf(arena, "$$%.*s", DEED_FMT(stream)),
                                   .type = DEED_STR(METADATA_TYPE),
                                   .data = deed_bytes_of(data)};
}

static struct deed_new_event parked_event(struct arena *arena, const struct group *g,
                                          const struct item *item)
{
    const struct deed_event *e = group_event_original(item->content);
    char added[TIME_TEXT_SIZE + 1];
    struct buf buf;
    struct json_writer w;
    buf_init(&buf, TEXT_MAX);
    time_format(os_now_ns(g->groups->os), added);
    json_writer_init(&w, &buf);
    json_object_begin(&w);
    json_member_text(&w, "added", deed_str_of(added));
    json_member_text(&w, "reason", deed_str_of(item->reason == NULL ? "" : item->reason));
    json_member_uint(&w, "subscriptionEventNumber", item->number);
    json_object_end(&w);
    deed_str data = arena_printf(arena, "%llu@%.*s", (unsigned long long)e->revision,
                                 DEED_FMT(e->stream));
    deed_bytes metadata = arena_bytes(arena, buf_bytes(&buf));
    buf_done(&buf);
    return (struct deed_new_event){.stream = g->parked_stream,
                                   .type = DEED_STR(STORE_LINK_TYPE),
                                   .content_type = DEED_STR(STORE_LINK_CONTENT_TYPE),
                                   .data = deed_bytes_of(data),
                                   .metadata = metadata};
}

/* ---- one append a group (1) ---------------------------------------------------------------------- */

static bool checkpoint_is_due(const struct group *g, uint64_t now_ns, bool all)
{
    uint64_t number = window_checkpoint(g);
    uint64_t saved = group_saved(g);
    if (number == DEED_NONE || number == saved) return false;
    uint64_t passed = number - (saved == DEED_NONE ? 0 : saved);
    uint64_t done = g->done_since_saved;
    const struct group_settings *s = &g->settings;
    if (g->is_all && passed >= GROUP_EXAMINED_CHECKPOINT && g->oldest == NULL) return true;
    if (done == 0) return false;
    if (all || (s->checkpoint_count_max > 0 && done >= s->checkpoint_count_max)) return true;
    uint64_t after_ns = (uint64_t)s->checkpoint_after_ms * 1000000;
    return after_ns > 0 && done >= s->checkpoint_count_min && now_ns - g->saved_at_ns >= after_ns;
}

bool durable_waits(const struct group *g)
{
    const struct group_settings *s = &g->settings;
    bool checkpoint = g->done_since_saved > 0 && s->checkpoint_after_ms > 0 &&
                      g->done_since_saved >= s->checkpoint_count_min;
    return checkpoint || g->parking.count > 0 || g->write.state != WRITE_NONE;
}

/* How much of the parked stream may go (4). */
static uint64_t replayed(const struct group *g)
{
    if (!g->replaying) return g->truncated;
    uint64_t done = g->replay_oldest != NULL && !PLANTED(REPLAY_CUTS_EARLY)
                        ? g->replay_oldest->parked_at
                        : g->replay_next;
    return done > g->truncated ? done : g->truncated;
}

static bool replay_is_over(const struct group *g)
{
    return g->replaying && g->replay_oldest == NULL && g->replay_next >= g->replay_stop;
}

/* With the lock: what an append that is over means. */
static void write_settle(struct group *g)
{
    struct group_write *w = &g->write;
    if (w->state == WRITE_DONE) {
        g->write_trouble[0] = '\0';
        if (w->has_checkpoint) g->saved = w->checkpoint;
        if (w->has_truncate && w->truncate > g->truncated) g->truncated = w->truncate;
        while (w->parked.first != NULL) window_done(g, w->parked.first);
    } else if (w->state == WRITE_FAILED) {
        (void)snprintf(g->write_trouble, sizeof g->write_trouble, "progress is not saved: %.400s",
                       w->err.message);
        g->write_again_ns = group_now(g) + GROUP_TICK_NS;
        if (w->has_checkpoint) g->done_since_saved += w->done_count;
        while (w->parked.first != NULL) {
            item_list_push(&g->parking, item_list_pop(&w->parked));
        }
    } else {
        return;
    }
    w->state = WRITE_NONE;
    window_dispatch(g);
}

/* With the lock. false: nothing is due. */
static bool write_fill(struct group *g, bool all)
{
    struct group_write *w = &g->write;
    uint64_t now_ns = group_now(g);
    assert(w->state == WRITE_NONE && w->parked.count == 0);
    size_t count = 0;
    uint64_t before = replayed(g);
    if (PLANTED(PARK_BEFORE_DURABLE)) {
        while (g->parking.first != NULL) window_done(g, g->parking.first);
    }
    w->has_checkpoint = checkpoint_is_due(g, now_ns, all);
    w->has_truncate = before > g->truncated && (replay_is_over(g) || w->has_checkpoint || all);
    if (!w->has_checkpoint && !w->has_truncate && g->parking.count == 0) return false;
    arena_reset(&w->arena);
    while (g->parking.count > 0 && count < GROUP_PARK_MAX) {
        struct item *item = item_list_pop(&g->parking);
        w->events[count++] = parked_event(&w->arena, g, item);
        item_list_push(&w->parked, item);
    }
    if (w->has_checkpoint) {
        w->checkpoint = window_checkpoint(g);
        w->done_count = g->done_since_saved;
        w->events[count++] = checkpoint_event(&w->arena, g, w->checkpoint);
        g->done_since_saved = 0;
        g->saved_at_ns = now_ns;
    }
    if (w->has_truncate) {
        w->truncate = before;
        w->events[count++] = retention_event(&w->arena, g->parked_stream, before, 0);
    }
    w->append = (struct deed_append){.events = w->events, .event_count = count};
    w->state = WRITE_PENDING;
    for (size_t i = 0; i < count; i++) {
        if (w->events[i].stream.ptr != NULL && w->events[i].data.ptr != NULL) continue;
        w->err.status = no_memory(&w->err); /* half a link would lose its event */
        w->state = WRITE_FAILED;
        write_settle(g);
        return false;
    }
    return true;
}

static void write_done(void *context, const struct deed_appended *appended,
                       const struct deed_error *err)
{
    struct group *g = context;
    struct groups *groups = g->groups;
    os_mutex_lock(&g->lock);
    g->write.state = appended != NULL ? WRITE_DONE : WRITE_FAILED;
    if (appended == NULL) g->write.err = *err;
    os_cond_broadcast(&g->written);
    /* Inside the lock: whoever waits for the write may end the actor afterwards. */
    actor_wake(groups->actor);
    os_mutex_unlock(&g->lock);
}

void durable_step(struct group *g)
{
    struct deed_error err = {0};
    os_mutex_lock(&g->lock);
    write_settle(g);
    /* Its own write has cut off what was replayed, or somebody has dropped it meanwhile. */
    if (replay_is_over(g) && g->truncated >= g->replay_next) g->replaying = false;
    bool closing = g->removed || atomic_load(&g->groups->closing);
    bool due = g->write.state == WRITE_NONE && !closing && group_now(g) >= g->write_again_ns &&
               write_fill(g, false);
    os_mutex_unlock(&g->lock);
    if (!due) return;
    if (store_submit(g->groups->store, &g->write.append, write_done, g, &err) != DEED_OK) {
        write_done(g, NULL, &err);
    }
}

void durable_wait(struct group *g)
{
    while (g->write.state == WRITE_PENDING) {
        if (!g->groups->options.no_threads) {
            (void)os_cond_wait(&g->written, &g->lock, UINT64_MAX);
            continue;
        }
        os_mutex_unlock(&g->lock);
        (void)store_step(g->groups->store);
        os_mutex_lock(&g->lock);
    }
    write_settle(g);
}

void durable_flush(struct group *g)
{
    struct deed_error err = {0};
    struct deed_appended appended;
    os_mutex_lock(&g->lock);
    durable_wait(g);
    while (write_fill(g, true)) {
        os_mutex_unlock(&g->lock);
        deed_status status = store_append(g->groups->store, &g->write.append, &appended, &err);
        os_mutex_lock(&g->lock);
        g->write.state = status == DEED_OK ? WRITE_DONE : WRITE_FAILED;
        g->write.err = err;
        write_settle(g);
        if (status != DEED_OK) break;
    }
    os_mutex_unlock(&g->lock);
}

deed_status durable_truncate(struct group *g, uint64_t before, struct deed_error *err)
{
    struct arena arena;
    struct deed_appended appended;
    os_mutex_lock(&g->lock);
    durable_wait(g);
    uint64_t truncated = g->truncated;
    bool further = before > truncated;
    if (further) g->truncated = before; /* so that no write in between takes it back */
    os_mutex_unlock(&g->lock);
    if (!further) return DEED_OK;
    arena_init(&arena, SIZE_MAX);
    struct deed_new_event event = retention_event(&arena, g->parked_stream, before, 0);
    struct deed_append append = {.events = &event, .event_count = 1};
    deed_status status = event.stream.ptr == NULL || event.data.ptr == NULL
                             ? no_memory(err)
                             : store_append(g->groups->store, &append, &appended, err);
    arena_done(&arena);
    if (status == DEED_OK) return DEED_OK;
    os_mutex_lock(&g->lock);
    if (g->truncated == before) g->truncated = truncated;
    os_mutex_unlock(&g->lock);
    return status;
}

/* ---- settings -------------------------------------------------------------------------------------- */

static deed_str config_text(struct groups *groups, const struct group *without,
                            const struct group *with, struct arena *arena)
{
    struct buf buf;
    struct json_writer w;
    buf_init(&buf, TEXT_MAX);
    json_writer_init(&w, &buf);
    json_object_begin(&w);
    json_member_uint(&w, "version", 1);
    json_key(&w, DEED_STR("groups"));
    json_array_begin(&w);
    os_mutex_lock(&groups->lock);
    for (size_t i = 0; i < groups->count; i++) {
        if (groups->list[i] != without) settings_write(groups->list[i], &w);
    }
    os_mutex_unlock(&groups->lock);
    if (with != NULL) settings_write(with, &w);
    json_array_end(&w);
    json_object_end(&w);
    deed_str text = buf_ok(&buf) ? arena_str(arena, buf_str(&buf)) : (deed_str){0};
    buf_done(&buf);
    return text;
}

deed_status durable_stream_end(struct groups *groups, deed_str stream, uint64_t *out_end,
                               struct deed_error *err)
{
    struct deed_stream_info info;
    *out_end = 0;
    deed_status status = store_stream(groups->store, stream, &info, err);
    if (status == DEED_NOT_FOUND) return DEED_OK;
    if (status == DEED_OK && info.revision != DEED_NONE) *out_end = info.revision + 1;
    return status;
}

/* (3): what stands in the group's streams is of no group any more. */
static deed_status cut_off(struct groups *groups, const struct group *g, struct arena *arena,
                           struct deed_new_event events[2], struct deed_error *err)
{
    uint64_t checkpoints = 0;
    uint64_t parked = 0;
    deed_status status = durable_stream_end(groups, g->checkpoint_stream, &checkpoints, err);
    if (status == DEED_OK) status = durable_stream_end(groups, g->parked_stream, &parked, err);
    if (PLANTED(GROUP_INHERITS)) checkpoints = parked = 0;
    if (status != DEED_OK) return status;
    events[0] = retention_event(arena, g->checkpoint_stream, checkpoints, 1);
    events[1] = retention_event(arena, g->parked_stream, parked, 0);
    return DEED_OK;
}

deed_status durable_save(struct groups *groups, const struct group *without,
                         const struct group *with, struct deed_error *err)
{
    struct arena arena;
    struct deed_new_event events[6];
    struct deed_appended appended;
    size_t count = 0;
    deed_status status = DEED_OK;
    arena_init(&arena, SIZE_MAX);
    deed_str text = config_text(groups, without, with, &arena);
    events[count++] = (struct deed_new_event){.stream = DEED_STR(GROUPS_CONFIG_STREAM),
                                              .type = DEED_STR(CONFIG_TYPE),
                                              .data = deed_bytes_of(text)};
    if (groups->count == 0) {
        events[count++] = retention_event(&arena, DEED_STR(GROUPS_CONFIG_STREAM), 0, CONFIG_KEPT);
    }
    if (without != NULL) {
        status = cut_off(groups, without, &arena, &events[count], err);
        count += 2;
    }
    if (status == DEED_OK && with != NULL) {
        status = cut_off(groups, with, &arena, &events[count], err);
        count += 2;
    }
    for (size_t i = 0; status == DEED_OK && i < count; i++) {
        if (events[i].stream.ptr == NULL || events[i].data.ptr == NULL) status = no_memory(err);
    }
    struct deed_append append = {.events = events, .event_count = count};
    if (status == DEED_OK) status = store_append(groups->store, &append, &appended, err);
    arena_done(&arena);
    return status;
}

/* ---- loading ---------------------------------------------------------------------------------------- */

/* The newest one that is a checkpoint: clients may write into any stream, and what they write here is not
 * ours. Not those that were cut off (3). */
static deed_status checkpoint_load(struct group *g, struct deed_error *err)
{
    struct deed_cursor *cursor = NULL;
    struct deed_event e;
    struct deed_stream_info info;
    struct deed_read_options options = {.stream = g->checkpoint_stream,
                                        .from_revision = DEED_NONE,
                                        .backwards = true,
                                        .ignore_retention = true};
    g->saved = DEED_NONE;
    deed_status status = store_stream(g->groups->store, g->checkpoint_stream, &info, err);
    if (status == DEED_OK) status = store_read(g->groups->store, &options, &cursor, err);
    while (status == DEED_OK) {
        status = cursor_next(cursor, &e, err);
        if (status != DEED_OK || e.revision < info.truncate_before) break;
        bool ours = deed_str_equal(e.type, DEED_STR(CHECKPOINT_TYPE));
        if (ours && checkpoint_parse(g, e.data, &g->saved)) break;
    }
    cursor_close(cursor);
    if (status == DEED_NOT_FOUND || status == DEED_END) status = DEED_OK;
    g->read_number = group_saved(g);
    return status;
}

static deed_status parked_load(struct group *g, struct deed_error *err)
{
    struct deed_stream_info info;
    deed_status status = store_stream(g->groups->store, g->parked_stream, &info, err);
    if (status == DEED_NOT_FOUND) return DEED_OK;
    if (status == DEED_OK) g->truncated = info.truncate_before;
    return status;
}

deed_status durable_load_group(struct group *g, struct deed_error *err)
{
    deed_status status = checkpoint_load(g, err);
    return status == DEED_OK ? parked_load(g, err) : status;
}

static void forget_all(struct groups *groups)
{
    while (groups->count > 0) group_release(groups->list[--groups->count]);
}

static deed_status config_load(struct groups *groups, struct deed_error *err)
{
    struct deed_cursor *cursor = NULL;
    struct deed_event e;
    /* Whatever others wrote into the stream's metadata, or behind its end, a tombstone among it: the groups
     * go on as they are. That they cannot be changed is told to who tries. */
    struct deed_read_options options = {.stream = DEED_STR(GROUPS_CONFIG_STREAM),
                                        .from_revision = DEED_NONE,
                                        .backwards = true,
                                        .ignore_retention = true};
    deed_status status = store_read(groups->store, &options, &cursor, err);
    if (status == DEED_NOT_FOUND) return DEED_OK;
    while (status == DEED_OK) {
        status = cursor_next(cursor, &e, err);
        if (status == DEED_END) {
            status = DEED_OK;
            break;
        }
        if (status != DEED_OK || !deed_str_equal(e.type, DEED_STR(CONFIG_TYPE))) continue;
        status = settings_load(groups, e.data, err);
        if (status != DEED_CORRUPT) break;
        /* Somebody else's, as copied from another server: ours are behind it, if there are any. */
        forget_all(groups);
        status = DEED_OK;
    }
    cursor_close(cursor);
    return status;
}

deed_status durable_load(struct groups *groups, struct deed_error *err)
{
    deed_status status = config_load(groups, err);
    for (size_t i = 0; status == DEED_OK && i < groups->count; i++) {
        status = durable_load_group(groups->list[i], err);
    }
    if (status != DEED_CORRUPT) return status;
    /* Of a log whose damage is not repaired the rest is served. Nothing is appended to it meanwhile, so
     * that what is not known here of groups is not overwritten. */
    struct deed_info store;
    store_info(groups->store, &store);
    if (store.writable) return status;
    forget_all(groups);
    return DEED_OK;
}
