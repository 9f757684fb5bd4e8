/* reporter.c - compares what is with what was a second ago.
 *
 * (1) A change is told once: what stays broken does not fill the log. */
#include "server/reporter.h"

#include "os/thread.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#define LOOK_INTERVAL_NS UINT64_C(1000000000)
#define LINE_SIZE        900
/* More projections than this are followed too, but their changes are not told. */
#define KNOWN_MAX        256

struct known {
    char name[64];
    enum projection_state state;
    uint64_t generation;
    bool rebuilding, rebuild_failed;
};

struct reporter {
    struct reporter_options options;
    struct actor *actor;
    bool stopped;
    uint64_t restarts;
    struct known known[KNOWN_MAX];
    size_t known_count;
};

static void tell(struct reporter *r, const char *format, ...) DEED_PRINTF(2, 3);
static void tell(struct reporter *r, const char *format, ...)
{
    char line[LINE_SIZE];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    r->options.say(r->options.context, line);
}

static void look_at_store(struct reporter *r)
{
    struct deed_info info;
    store_info(r->options.store, &info);
    if (!info.writable && !r->stopped) tell(r, "appends are stopped: %s", info.stopped_because);
    r->stopped = !info.writable;
}

static void look_at_worker(struct reporter *r)
{
    if (r->options.executor == NULL) return;
    struct executor_metrics metrics;
    executor_get_metrics(r->options.executor, &metrics);
    if (metrics.worker_restarts > r->restarts) {
        tell(r, "the domain's worker died and was started again (%" PRIu64 " times so far)",
             metrics.worker_restarts);
    }
    r->restarts = metrics.worker_restarts;
}

static struct known *known_find(struct reporter *r, const struct projection_status *p)
{
    for (size_t i = 0; i < r->known_count; i++) {
        if (deed_str_equal(deed_str_of(r->known[i].name), p->name)) return &r->known[i];
    }
    if (r->known_count == KNOWN_MAX || p->name.len >= sizeof r->known[0].name) return NULL;
    struct known *k = &r->known[r->known_count++];
    *k = (struct known){.state = PROJECTION_RUNNING, .generation = p->generation};
    memcpy(k->name, p->name.ptr, p->name.len);
    return k;
}

static void look_at_projection(struct reporter *r, const struct projection_status *p)
{
    struct known *k = known_find(r, p);
    if (k == NULL) return;
    if (p->state == PROJECTION_FAILED && k->state != PROJECTION_FAILED) {
        tell(r, "projection %s has failed at position %" PRIu64 ": %.*s", k->name, p->position,
             DEED_FMT(p->error));
    }
    if (p->state == PROJECTION_RUNNING && k->state == PROJECTION_FAILED) {
        tell(r, "projection %s goes on from position %" PRIu64, k->name, p->position);
    }
    if (p->rebuilding && !k->rebuilding) {
        tell(r, "projection %s is being rebuilt, up to position %" PRIu64, k->name,
             p->rebuild_target);
    }
    if (p->generation > k->generation && k->generation > 0) {
        tell(r, "projection %s is rebuilt: generation %" PRIu64 " answers now", k->name,
             p->generation);
    }
    bool rebuild_failed = p->rebuild_error.len > 0;
    if (rebuild_failed && !k->rebuild_failed) {
        tell(r, "projection %s could not be rebuilt: %.*s", k->name, DEED_FMT(p->rebuild_error));
    }
    k->state = p->state;
    k->generation = p->generation;
    k->rebuilding = p->rebuilding;
    k->rebuild_failed = rebuild_failed;
}

static void look_at_projections(struct reporter *r)
{
    if (r->options.projections == NULL) return;
    struct arena arena;
    struct projection_status *list = NULL;
    size_t count = 0;
    arena_init(&arena, 16u << 20);
    if (projections_list(r->options.projections, &arena, &list, &count, NULL) == DEED_OK) {
        for (size_t i = 0; i < count; i++) look_at_projection(r, &list[i]);
    }
    arena_done(&arena);
}

static uint64_t look(void *context)
{
    struct reporter *r = context;
    look_at_store(r);
    look_at_worker(r);
    look_at_projections(r);
    return LOOK_INTERVAL_NS;
}

deed_status reporter_start(const struct reporter_options *options, struct reporter **out_reporter,
                           struct deed_error *err)
{
    struct reporter *r = calloc(1, sizeof *r);
    if (r == NULL) return deed_fail(err, DEED_NO_MEMORY, "reporter: out of memory");
    r->options = *options;
    struct deed_info info;
    store_info(options->store, &info);
    r->stopped = !info.writable; /* serve has said so already */
    deed_status status = actor_start("reporter", look, r, &r->actor, err);
    if (status != DEED_OK) {
        free(r);
        return status;
    }
    *out_reporter = r;
    return DEED_OK;
}

void reporter_stop(struct reporter *reporter)
{
    if (reporter == NULL) return;
    actor_stop(reporter->actor);
    free(reporter);
}
