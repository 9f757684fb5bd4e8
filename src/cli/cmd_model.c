/* cmd_model.c - deedbook model: the whole of an app on one page.
 *
 * Projections and queries are read by their own modules, which need a store: an empty one in a
 * folder that goes away again. Nothing runs in it. */
#include "cli/request.h"
#include "cli/out.h"
#include "cli/cli.h"

#include "domain/host.h"
#include "domain/model.h"
#include "os/os.h"
#include "projection/projections.h"
#include "query/queries.h"
#include "store/store.h"

#include <errno.h>
#include <ftw.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

struct options {
    const char *app;
    enum model_format format;
};

enum { KEY_JSON = 0x300, KEY_MERMAID = 'm' };

static const struct argp_option option_list[] = {
    {"json", KEY_JSON, NULL, 0, "print JSON", 0},
    {"mermaid", KEY_MERMAID, NULL, 0, "print a Mermaid flowchart", 0},
    {0},
};

static error_t parse(int key, char *argument, struct argp_state *state)
{
    struct options *o = state->input;
    switch (key) {
    case KEY_JSON:
        o->format = MODEL_JSON;
        return 0;
    case KEY_MERMAID:
        o->format = MODEL_MERMAID;
        return 0;
    case ARGP_KEY_ARG:
        cli_one(state, &o->app, "app folder", argument);
        return 0;
    case ARGP_KEY_END:
        if (o->app == NULL) argp_error(state, "which app folder?");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp model_argp = {
    .options = option_list,
    .parser = parse,
    .args_doc = "APP_FOLDER",
    .doc =
        "Show the domain model of an app: aggregates with their attributes, commands, events, and "
        "the projections and queries that each event reaches.\v"
        "Examples:\n"
        "  deedbook model examples/orders\n"
        "  deedbook model examples/orders --mermaid > model.mmd",
};

/* ---- an empty store, for a while ----------------------------------------------------------------
 */

static int entry_remove(const char *path, const struct stat *stat, int kind, struct FTW *place)
{
    (void)stat;
    (void)kind;
    (void)place;
    return remove(path);
}

static deed_status scratch_make(char *path, size_t size, struct deed_error *err)
{
    const char *tmp = getenv("TMPDIR");
    snprintf(path, size, "%s/deedbook-model-XXXXXX", tmp == NULL || tmp[0] == '\0' ? "/tmp" : tmp);
    if (mkdtemp(path) == NULL) return deed_fail_errno(err, errno, "%s", path);
    return DEED_OK;
}

/* ---- what the modules know
 * ------------------------------------------------------------------------ */

static deed_status projections_get(struct projections *projections, struct arena *arena,
                                   struct model_parts *parts, struct deed_error *err)
{
    struct projection_status *list = NULL;
    size_t count = 0;
    deed_status status = projections_list(projections, arena, &list, &count, err);
    if (status != DEED_OK) return status;
    struct model_projection *out = arena_alloc_array(arena, count, sizeof *out);
    if (out == NULL) return deed_fail(err, DEED_NO_MEMORY, "no memory");
    for (size_t i = 0; i < count; i++) {
        out[i] = (struct model_projection){.name = list[i].name,
                                           .event_types = list[i].event_types,
                                           .event_type_count = list[i].event_type_count,
                                           .tables = list[i].tables,
                                           .table_count = list[i].table_count};
    }
    parts->projections = out;
    parts->projection_count = count;
    return DEED_OK;
}

static deed_status queries_get(struct queries *queries, struct arena *arena,
                               struct model_parts *parts, struct deed_error *err)
{
    struct query_description *list = NULL;
    size_t count = 0;
    deed_status status = queries_list(queries, arena, &list, &count, err);
    if (status != DEED_OK) return status;
    struct model_query *out = arena_alloc_array(arena, count, sizeof *out);
    if (out == NULL) return deed_fail(err, DEED_NO_MEMORY, "no memory");
    for (size_t i = 0; i < count; i++) {
        out[i] = (struct model_query){.name = list[i].name,
                                      .comment = list[i].comment,
                                      .parameters = list[i].parameters,
                                      .parameter_count = list[i].parameter_count,
                                      .projections = list[i].projections,
                                      .projection_count = list[i].projection_count};
    }
    parts->queries = out;
    parts->query_count = count;
    return DEED_OK;
}

/* DEED_NOT_FOUND is an app without that folder. */
static deed_status optional(deed_status status)
{
    return status == DEED_NOT_FOUND ? DEED_OK : status;
}

static deed_status read_side_get(const char *app, const char *scratch, struct arena *arena,
                                 struct model_parts *parts, struct deed_error *err)
{
    struct store *store = NULL;
    struct projections *projections = NULL;
    struct queries *queries = NULL;
    deed_str projection_folder = arena_printf(arena, "%s/projections", app);
    deed_str query_folder = arena_printf(arena, "%s/queries", app);
    if (projection_folder.ptr == NULL || query_folder.ptr == NULL) {
        return deed_fail(err, DEED_NO_MEMORY, "no memory");
    }
    const struct store_options store_options = {.no_threads = true};
    const struct projections_options options = {.no_threads = true};
    deed_status status = store_open(os_real(), scratch, &store_options, &store, err);
    if (status == DEED_OK) status = projections_open(store, &options, &projections, err);
    if (status == DEED_OK)
        status = optional(projections_load(projections, projection_folder.ptr, err));
    if (status == DEED_OK) status = queries_open(projections, NULL, &queries, err);
    if (status == DEED_OK) status = optional(queries_load(queries, query_folder.ptr, err));
    if (status == DEED_OK) status = projections_get(projections, arena, parts, err);
    if (status == DEED_OK) status = queries_get(queries, arena, parts, err);
    queries_close(queries);
    projections_close(projections);
    store_close(store);
    return status;
}

/* An app may have read models only: then there is no host, and that is fine. */
static deed_status domain_start(const char *app, struct arena *arena, struct domain_host **out_host,
                                struct deed_error *err)
{
    const char *path = NULL;
    struct stat stat_of_app;
    deed_status status = host_find_domain(app, arena, &path, err);
    bool is_folder = stat(app, &stat_of_app) == 0 && S_ISDIR(stat_of_app.st_mode);
    if (status == DEED_NOT_FOUND && is_folder) return DEED_OK;
    return status == DEED_OK ? host_worker(path, NULL, out_host, err) : status;
}

static deed_status run(const struct options *o, struct deed_error *err)
{
    struct arena arena;
    struct buf page;
    struct model_parts parts = {0};
    struct domain_host *host = NULL;
    char scratch[4096] = "";
    arena_init(&arena, REPLY_SIZE_MAX);
    buf_init(&page, REPLY_SIZE_MAX);
    deed_status status = domain_start(o->app, &arena, &host, err);
    if (status == DEED_OK && host != NULL) parts.domain = host_model(host);
    if (status == DEED_OK) status = scratch_make(scratch, sizeof scratch, err);
    if (status != DEED_OK) goto done;
    status = read_side_get(o->app, scratch, &arena, &parts, err);
    (void)nftw(scratch, entry_remove, 16, FTW_DEPTH | FTW_PHYS);
    if (status == DEED_OK && host == NULL && parts.projection_count + parts.query_count == 0) {
        status = deed_fail(err, DEED_NOT_FOUND,
                           "%s: no domain (*.so), no projections, no queries: is it an app, and built?",
                           o->app);
    }
    if (status == DEED_OK) status = model_write(&parts, o->format, &page, err);
    if (status == DEED_OK) fwrite(page.ptr, 1, page.len, stdout);

done:
    host_close(host);
    buf_done(&page);
    arena_done(&arena);
    return status;
}

int cmd_model(int argc, char **argv)
{
    struct options options = {.format = MODEL_TEXT};
    struct deed_error err = {0};
    cli_parse(&model_argp, argc, argv, &options);
    return cli_end(run(&options, &err), &err);
}
