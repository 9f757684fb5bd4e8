/* telling.c - what a group says about itself. */
#include "groups/group_state.h"

#include <stdlib.h>

static int by_value(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a;
    uint32_t y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static int64_t part_of(const uint32_t *sorted, size_t count, double share)
{
    size_t at = (size_t)((double)count * share);
    return sorted[at < count ? at : count - 1] / 1000;
}

/* How long the last events took from being taken to their acknowledgement. */
static void measure(const struct group_consumer *c, struct group_consumer_info *out)
{
    static const struct {
        const char *key;
        double share;
    } parts[] = {{"Quintile 1", 0.2}, {"Quintile 2", 0.4}, {"Quintile 3", 0.6},
                 {"Quintile 4", 0.8}, {"Quintile 5", 1.0}, {"90%", 0.9},
                 {"95%", 0.95},       {"99%", 0.99},       {"99.5%", 0.995},
                 {"99.9%", 0.999}};
    uint32_t sorted[GROUP_LATENCIES];
    size_t count = c->latency_count < GROUP_LATENCIES ? c->latency_count : GROUP_LATENCIES;
    if (count == 0) return;
    memcpy(sorted, c->latencies_us, count * sizeof *sorted);
    qsort(sorted, count, sizeof *sorted, by_value);
    uint64_t sum = 0;
    for (size_t i = 0; i < count; i++) sum += sorted[i];
    struct group_measurement *m = out->measured;
    size_t n = 0;
    m[n++] = (struct group_measurement){"Mean", (int64_t)(sum / count / 1000)};
    m[n++] = (struct group_measurement){"Median", part_of(sorted, count, 0.5)};
    m[n++] = (struct group_measurement){"Fastest", sorted[0] / 1000};
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        m[n++] = (struct group_measurement){parts[i].key, part_of(sorted, count, parts[i].share)};
    }
    m[n++] = (struct group_measurement){"Highest", sorted[count - 1] / 1000};
    out->measured_count = n;
}

static bool tell_consumers(const struct group *g, struct arena *arena, struct group_info *out)
{
    struct group_consumer_info *list =
        arena_alloc_array(arena, g->consumer_count, sizeof *list);
    if (list == NULL) return false;
    for (size_t i = 0; i < g->consumer_count; i++) {
        const struct group_consumer *c = g->consumers[i];
        list[i] = (struct group_consumer_info){
            .from = arena_str(arena, deed_str_of(c->from)),
            .user = arena_str(arena, deed_str_of(c->user)),
            .name = arena_str(arena, deed_str_of(c->name)),
            .total = c->total,
            .since_measurement = c->since_measurement,
            .per_second = (uint32_t)c->per_second,
            .free_slots = c->options.buffer_size - (uint32_t)consumer_held(c),
            .in_flight = (uint32_t)consumer_held(c)};
        if (g->settings.extra_statistics) measure(c, &list[i]);
    }
    out->consumers = list;
    out->consumer_count = g->consumer_count;
    return true;
}

static deed_status last_known(const struct group *g, uint64_t *out, struct deed_error *err)
{
    struct deed_stream_info info;
    *out = DEED_NONE;
    if (g->is_all) {
        *out = store_position(g->groups->store);
        return DEED_OK;
    }
    deed_status status = store_stream(g->groups->store, g->source, &info, err);
    if (status == DEED_OK) *out = info.revision;
    return status == DEED_NOT_FOUND ? DEED_OK : status;
}

deed_status group_tell(struct group *g, struct arena *arena, struct group_info *out,
                       struct deed_error *err)
{
    uint64_t known;
    struct deed_stream_info parked;
    deed_status status = last_known(g, &known, err);
    if (status != DEED_OK) return status;
    status = store_stream(g->groups->store, g->parked_stream, &parked, err);
    if (status != DEED_OK && status != DEED_NOT_FOUND) return status;
    bool any = status == DEED_OK && parked.first_revision != DEED_NONE;

    os_mutex_lock(&g->lock);
    bool nothing_new = known == DEED_NONE || (g->read_number != DEED_NONE && g->read_number >= known);
    bool behind = known != DEED_NONE && g->begin > known; /* asked to begin later than there is */
    *out = (struct group_info){
        .source = arena_str(arena, g->source),
        .name = arena_str(arena, g->name),
        .settings = g->settings,
        .live = g->live || nothing_new || behind,
        .trouble = arena_str(arena, deed_str_of(g->trouble[0] != '\0' ? g->trouble
                                                                        : g->write_trouble)),
        .checkpoint = g->saved,
        .last_known = known,
        .total = g->total,
        .since_measurement = g->since_measurement,
        .per_second = (uint32_t)g->per_second,
        .waiting_count = g->waiting - g->again_count,
        .retry_count = g->again_count,
        .in_flight_count = g->out,
        .outstanding_count = g->item_count,
        .parked_count = any ? parked.revision - parked.first_revision + 1 : 0,
        .is_replaying = g->replaying};
    out->settings.filter = g->settings.filter.ptr == NULL ? (deed_str){0}
                                                          : arena_str(arena, g->settings.filter);
    bool told = tell_consumers(g, arena, out);
    os_mutex_unlock(&g->lock);
    out->status = out->trouble.len > 0 ? "NotReady" : out->live ? "Live" : "Behind";
    if (!told || out->source.ptr == NULL || out->name.ptr == NULL) {
        return deed_fail(err, DEED_NO_MEMORY, "group: out of memory");
    }
    return DEED_OK;
}
