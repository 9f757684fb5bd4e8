/* cmd_rebuild.c - deedbook rebuild: read models from the log anew, beside the live ones. */
#include "cli/out.h"
#include "cli/target.h"

#include "os/os.h"

#include <inttypes.h>
#include <unistd.h>

/* How often the server is asked how far it is. */
#define POLL_NS UINT64_C(200000000)

struct options {
    struct cli_target target;
    struct cli_list names;
    bool all, no_wait, force;
};

enum { KEY_ALL = 'a', KEY_NO_WAIT = 0x300, KEY_FORCE };

static const struct argp_option option_list[] = {
    {"all", KEY_ALL, NULL, 0, "every projection", 0},
    {"no-wait", KEY_NO_WAIT, NULL, 0, "only start it", 0},
    {"force", KEY_FORCE, NULL, 0, "go on without events that were removed from the log", 0},
    {0},
};

static error_t parse(int key, char *argument, struct argp_state *state)
{
    struct options *o = state->input;
    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &o->target;
        return 0;
    case KEY_ALL:
        o->all = true;
        return 0;
    case KEY_NO_WAIT:
        o->no_wait = true;
        return 0;
    case KEY_FORCE:
        o->force = true;
        return 0;
    case ARGP_KEY_ARG:
        cli_list_add(&o->names, argument);
        return 0;
    case ARGP_KEY_END:
        if (o->all == (o->names.count > 0)) argp_error(state, "which projections? names, or --all");
        if (o->target.data != NULL) argp_error(state, "projections run in a server");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp rebuild_argp = {
    .options = option_list,
    .parser = parse,
    .args_doc = "[PROJECTION...]",
    .doc = "Rebuild read models from the log. The live rows answer until the new ones have caught "
           "up; then they are exchanged at once. A rebuild that meets an event which was removed "
           "from the log is given up, and the live rows stay; with --force the new ones are built "
           "without it, and how many they lack is said from then on.\v"
           "Examples:\n"
           "  deedbook rebuild order_summary\n"
           "  deedbook rebuild --all --no-wait",
    .children = cli_target_children,
};

static deed_status projection_call(struct target *target, const char *method, const char *name,
                                   const char *verb, bool force, struct reply *reply,
                                   struct deed_error *err)
{
    struct url url;
    url_init(&url, "/projections");
    if (name != NULL) url_part(&url, name);
    if (verb != NULL) url_part(&url, verb);
    if (force) url_param(&url, "force", "true");
    struct request request = {.method = method, .path = url_text(&url)};
    deed_status status = target_call(target, &request, reply, err);
    url_done(&url);
    return status;
}

/* Where a rebuild is, from the projection's JSON. */
struct standing {
    bool rebuilding;
    uint64_t position, target, generation, removed;
    char trouble[DEED_MESSAGE_SIZE];
};

static deed_status standing_get(struct target *target, const char *name, struct standing *out,
                                struct deed_error *err)
{
    struct reply reply;
    struct arena arena;
    json_value projection;
    reply_init(&reply);
    arena_init(&arena, REPLY_SIZE_MAX);
    *out = (struct standing){0};
    deed_status status = projection_call(target, "GET", name, NULL, false, &reply, err);
    if (status == DEED_OK) status = json_parse(&arena, buf_bytes(&reply.body), 0, &projection, err);
    if (status == DEED_OK) {
        json_value rebuild = json_get(projection, DEED_STR("rebuild"));
        out->rebuilding = json_kind_of(rebuild) == JSON_OBJECT;
        (void)json_uint64(json_get(rebuild, DEED_STR("position")), &out->position);
        (void)json_uint64(json_get(rebuild, DEED_STR("target")), &out->target);
        (void)json_uint64(json_get(projection, DEED_STR("generation")), &out->generation);
        (void)json_uint64(json_get(projection, DEED_STR("removed_events")), &out->removed);
        deed_str trouble = json_text(json_get(projection, DEED_STR("rebuild_error")));
        snprintf(out->trouble, sizeof out->trouble, "%.*s", DEED_FMT(trouble));
    }
    arena_done(&arena);
    reply_done(&reply);
    return status;
}

static deed_status rebuild_wait(struct target *target, const char *name, uint64_t begun_ns,
                                struct deed_error *err)
{
    struct out_progress progress;
    struct standing standing = {.rebuilding = true};
    deed_status status = DEED_OK;
    out_progress_start(&progress, name, "positions", 0);
    for (;;) {
        status = standing_get(target, name, &standing, err);
        if (status != DEED_OK || !standing.rebuilding) break;
        progress.all = standing.target;
        out_progress_step(&progress, standing.position);
        usleep((useconds_t)(POLL_NS / 1000));
    }
    out_progress_stop(&progress);
    if (status == DEED_OK && standing.trouble[0] != '\0') {
        status = deed_fail(err, DEED_STOPPED, "%s: the rebuild failed: %s", name, standing.trouble);
    }
    if (status != DEED_OK) return status;
    char time[OUT_NUMBER_SIZE];
    printf("%s  rebuilt in %s, generation %" PRIu64, name,
           out_time(os_ticks_ns(os_real()) - begun_ns, time), standing.generation);
    if (standing.removed > 0) {
        printf(", built across %" PRIu64 " removed event%s", standing.removed,
               standing.removed == 1 ? "" : "s");
    }
    putchar('\n');
    return DEED_OK;
}

static deed_status rebuild_one(const struct options *o, struct target *target, const char *name,
                               struct deed_error *err)
{
    struct reply reply;
    uint64_t begun_ns = os_ticks_ns(os_real());
    reply_init(&reply);
    deed_status status =
        projection_call(target, "POST", name, "rebuild", o->force, &reply, err);
    reply_done(&reply);
    if (status != DEED_OK || o->no_wait) return status;
    return rebuild_wait(target, name, begun_ns, err);
}

/* The names of all, copied into the arena. */
static deed_status names_get(struct target *target, struct arena *arena, struct cli_list *names,
                             struct deed_error *err)
{
    struct reply reply;
    json_value list;
    reply_init(&reply);
    deed_status status = projection_call(target, "GET", NULL, NULL, false, &reply, err);
    if (status == DEED_OK) status = json_parse(arena, buf_bytes(&reply.body), 0, &list, err);
    if (status == DEED_OK) {
        for (struct json_iterator i = json_iterate(list); json_next(&i);) {
            deed_str name = arena_str(arena, json_text(json_get(i.value, DEED_STR("name"))));
            if (name.ptr != NULL) cli_list_add(names, name.ptr);
        }
    }
    reply_done(&reply);
    return status;
}

static deed_status run(struct options *o, struct deed_error *err)
{
    struct target *target = NULL;
    struct arena arena;
    arena_init(&arena, REPLY_SIZE_MAX);
    deed_status status = target_open(&o->target, TARGET_READS, &target, err);
    if (status == DEED_OK && o->all) status = names_get(target, &arena, &o->names, err);
    for (size_t i = 0; i < o->names.count && status == DEED_OK; i++) {
        status = rebuild_one(o, target, o->names.items[i], err);
    }
    target_close(target);
    arena_done(&arena);
    return status;
}

int cmd_rebuild(int argc, char **argv)
{
    struct options options = {0};
    struct deed_error err = {0};
    cli_parse(&rebuild_argp, argc, argv, &options);
    return cli_end(run(&options, &err), &err);
}
