/* load.c - what a host still has to fold to have an aggregate's state at a revision. */
#include "domain/load.h"

#include "base/planted.h"

#include <assert.h>

deed_status load_open(struct load *load, struct store *store, deed_str stream, struct arena *arena,
                      struct deed_error *err)
{
    *load = (struct load){.store = store,
                          .stream = stream,
                          .slot = stream,
                          .head = DEED_NONE,
                          .first = DEED_NONE,
                          .target = DEED_NONE,
                          .metadata_revision = DEED_NONE,
                          .base = DEED_NONE};
    struct deed_stream_info info;
    deed_status status = store_stream(store, stream, &info, err);
    if (status == DEED_NOT_FOUND) return DEED_OK;
    if (status != DEED_OK) return status;
    if (info.tombstoned) {
        return deed_fail(err, DEED_DELETED, "stream %.*s is deleted for good", DEED_FMT(stream));
    }
    load->head = info.revision;
    if (info.truncate_before <= info.revision) load->first = info.truncate_before;
    load->position = info.position;
    load->metadata_revision = info.metadata_revision;
    if (load->first == DEED_NONE) return DEED_OK;
    load->target = info.revision;
    if (load->first > 0) {
        /* A NUL cannot be in a stream's name. */
        load->slot = arena_printf(arena, "%.*s%c%llu", DEED_FMT(stream), '\0',
                                  (unsigned long long)load->first);
        if (load->slot.ptr == NULL) return deed_fail(err, DEED_NO_MEMORY, "no memory for a name");
    }
    return DEED_OK;
}

deed_status load_aim(struct load *load, uint64_t revision, struct deed_error *err)
{
    if (load->first == DEED_NONE) {
        return deed_fail(err, DEED_NOT_FOUND, "stream %.*s has no events", DEED_FMT(load->stream));
    }
    if (revision == DEED_NONE) return DEED_OK;
    if (revision > load->head || revision < load->first) {
        deed_status status =
            deed_fail(err, DEED_NOT_FOUND, "stream %.*s has no revision %llu: it has %llu to %llu",
                      DEED_FMT(load->stream), (unsigned long long)revision,
                      (unsigned long long)load->first, (unsigned long long)load->head);
        if (err != NULL) err->revision = load->head;
        return status;
    }
    load->target = revision;
    return DEED_OK;
}

void load_base(struct load *load, uint64_t host_revision, bool from_nothing)
{
    bool usable = !from_nothing && host_revision != DEED_NONE && load->target != DEED_NONE &&
                  host_revision >= load->first && host_revision <= load->target;
    load->base = usable ? host_revision : DEED_NONE;
}

deed_status load_whole(deed_str stream, const struct deed_event *event, struct deed_error *err)
{
    if (!event->removed || PLANTED(STATE_ACROSS_STUBS)) return DEED_OK;
    deed_status status = deed_fail(err, DEED_GONE,
                                   "stream %.*s: revision %llu (%.*s) was removed, without it there "
                                   "is no state",
                                   DEED_FMT(stream), (unsigned long long)event->revision,
                                   DEED_FMT(event->type));
    if (err != NULL) {
        err->position = event->position;
        err->revision = event->revision;
    }
    return status;
}

struct host_event load_event(const struct deed_event *event)
{
    bool is_json = deed_str_equal(event->content_type, DEED_STR("application/json"));
    return (struct host_event){.revision = event->revision,
                               .time_ns = event->time_ns,
                               .type = event->type,
                               .data = is_json ? event->data : (deed_bytes){0},
                               .actor = event->actor};
}

/* Its own copy; false: the arena is at its limit. */
static bool event_keep(struct arena *arena, const struct deed_event *event, struct host_event *out)
{
    *out = load_event(event);
    out->type = arena_str(arena, out->type);
    out->actor = arena_str(arena, out->actor);
    out->data = arena_bytes(arena, out->data);
    return out->type.ptr != NULL && out->actor.ptr != NULL && out->data.ptr != NULL;
}

struct gathering {
    struct host_event *events;
    size_t count, room;
};

static bool gather(struct gathering *g, struct arena *arena, const struct deed_event *event)
{
    if (g->count == g->room) {
        size_t room = g->room == 0 ? 8 : g->room * 2;
        struct host_event *events = arena_alloc_array(arena, room, sizeof *events);
        if (events == NULL) return false;
        if (g->count > 0) memcpy(events, g->events, g->count * sizeof *events);
        g->events = events;
        g->room = room;
    }
    return event_keep(arena, event, &g->events[g->count++]);
}

deed_status load_events(const struct load *load, uint64_t size_max, struct arena *arena,
                        struct host_event **out_events, size_t *out_count, uint64_t *out_last,
                        struct deed_error *err)
{
    *out_events = NULL;
    *out_count = 0;
    if (load->target == DEED_NONE || load->base == load->target) return DEED_OK;
    uint64_t from = load->base == DEED_NONE ? load->first : load->base + 1;
    assert(from <= load->target);
    struct deed_read_options options = {.stream = load->stream,
                                        .from_revision = from,
                                        .count_max = load->target - from + 1,
                                        .ignore_retention = true,
                                        .removed = true};
    struct deed_cursor *cursor = NULL;
    deed_status status = store_read(load->store, &options, &cursor, err);
    if (status != DEED_OK) return status;

    struct gathering g = {0};
    struct deed_event event;
    uint64_t size = 0;
    while (size < size_max && (status = cursor_next(cursor, &event, err)) == DEED_OK) {
        status = load_whole(load->stream, &event, err);
        if (status != DEED_OK) break;
        if (!gather(&g, arena, &event)) {
            status = deed_fail(err, DEED_NO_MEMORY, "no memory for the events of %.*s",
                               DEED_FMT(load->stream));
            break;
        }
        size += event.data.len + event.type.len + sizeof event;
        if (out_last != NULL) *out_last = event.position;
    }
    cursor_close(cursor);
    *out_events = g.events;
    *out_count = g.count;
    return status == DEED_END ? DEED_OK : status;
}
