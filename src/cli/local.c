/* local.c - the HTTP API of a data directory, run in this process.
 *
 * The api owns routes, not sockets: an exchange is filled here as the server would fill it, and
 * what comes back is read as the client would read it.
 *
 * (1) One exchange at a time. Its `finish` may come from the committer's thread.
 * (2) A watch on the store wakes a source that waits for events, so that nothing is polled. */
#include "cli/local.h"

#include "base/text.h"
#include "domain/executor.h"
#include "domain/host.h"
#include "os/os.h"
#include "os/thread.h"
#include "projection/projections.h"
#include "query/queries.h"
#include "store/store.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define ARENA_SIZE_MAX ((size_t)512 << 20)
#define PULL_SIZE      ((size_t)256 << 10)

struct local {
    struct store *store;
    struct executor *executor;
    struct projections *projections;
    struct queries *queries;
    struct api *api;
    struct store_watch watch;
    bool watching;
    struct os_mutex mutex;
    struct os_cond cond;
    bool finished;  /* the exchange under way */
    uint64_t grown; /* how often the log has grown */
};

static void on_change(void *context, uint64_t position)
{
    struct local *local = context;
    (void)position;
    os_mutex_lock(&local->mutex);
    local->grown++;
    os_cond_broadcast(&local->cond);
    os_mutex_unlock(&local->mutex);
}

static void on_finish(struct api_exchange *x)
{
    struct local *local = x->server;
    os_mutex_lock(&local->mutex);
    local->finished = true;
    os_cond_broadcast(&local->cond);
    os_mutex_unlock(&local->mutex);
}

/* ---- opening ------------------------------------------------------------------------------------
 */

static deed_status domain_open(struct local *local, const char *app, struct deed_error *err)
{
    struct arena arena;
    const char *path = NULL;
    struct domain_host *host = NULL;
    arena_init(&arena, 1 << 20);
    deed_status status = host_find_domain(app, &arena, &path, err);
    if (status == DEED_OK) status = host_worker(path, NULL, &host, err);
    if (status == DEED_OK) {
        status = executor_open(local->store, host, NULL, &local->executor, err);
    }
    arena_done(&arena);
    return status;
}

/* "APP/projections"; the memory is the caller's. NULL: none. */
static char *folder_of(const char *app, const char *name)
{
    char *path = NULL;
    return asprintf(&path, "%s/%s", app, name) < 0 ? NULL : path;
}

static deed_status queries_part_open(struct local *local, const char *app, struct deed_error *err)
{
    char *projections = folder_of(app, "projections");
    char *queries = folder_of(app, "queries");
    deed_status status = projections == NULL || queries == NULL
                             ? deed_fail(err, DEED_NO_MEMORY, "no memory")
                             : projections_open(local->store, NULL, &local->projections, err);
    if (status == DEED_OK) status = projections_load(local->projections, projections, err);
    if (status == DEED_OK) status = queries_open(local->projections, NULL, &local->queries, err);
    if (status == DEED_OK) status = queries_load(local->queries, queries, err);
    free(projections);
    free(queries);
    return status;
}

static deed_status parts_open(struct local *local, const struct cli_target *options,
                              enum target_use use, struct deed_error *err)
{
    /* Only an append makes a directory: to read one that is not there is a slip. */
    struct store_options store = {.read_only = use == TARGET_READS,
                                  .must_exist = use != TARGET_WRITES};
    deed_status status = store_open(os_real(), options->data, &store, &local->store, err);
    if (status != DEED_OK) return status;
    local->watch = (struct store_watch){.changed = on_change, .context = local};
    store_watch(local->store, &local->watch);
    local->watching = true;
    if (options->app != NULL && use == TARGET_QUERIES) {
        status = queries_part_open(local, options->app, err);
    } else if (options->app != NULL) {
        status = domain_open(local, options->app, err);
    }
    if (status != DEED_OK) return status;
    struct api_parts parts = {
        .store = local->store,
        .executor = local->executor,
        .projections = local->projections,
        .queries = local->queries,
        .wait_timeout_ms = options->timeout_ms,
    };
    return api_create(&parts, &local->api, err);
}

deed_status local_open(const struct cli_target *options, enum target_use use,
                       struct local **out_local, struct deed_error *err)
{
    struct local *local = calloc(1, sizeof *local);
    if (local == NULL) return deed_fail(err, DEED_NO_MEMORY, "no memory");
    os_mutex_init(&local->mutex);
    os_cond_init(&local->cond);
    deed_status status = parts_open(local, options, use, err);
    if (status != DEED_OK) {
        local_close(local);
        return status;
    }
    *out_local = local;
    return DEED_OK;
}

void local_close(struct local *local)
{
    if (local == NULL) return;
    api_destroy(local->api);
    queries_close(local->queries);
    executor_close(local->executor);
    projections_close(local->projections);
    if (local->watching) store_unwatch(local->store, &local->watch);
    store_close(local->store);
    os_cond_done(&local->cond);
    os_mutex_done(&local->mutex);
    free(local);
}

struct store *local_store(struct local *local)
{
    return local->store;
}

/* ---- one exchange -------------------------------------------------------------------------------
 */

static void request_fill(const struct request *request, struct api_header *headers,
                         struct api_request *out)
{
    const char *query = strchr(request->path, '?');
    size_t path_size = query == NULL ? strlen(request->path) : (size_t)(query - request->path);
    size_t count = 0;
    if (request->accept.len > 0) {
        headers[count++] = (struct api_header){DEED_STR("Accept"), request->accept};
    }
    if (request->body.len > 0) {
        headers[count++] =
            (struct api_header){DEED_STR("Content-Type"), request->content_type.len > 0
                                                              ? request->content_type
                                                              : DEED_STR("application/json")};
    }
    for (size_t i = 0; i < request->header_count; i++)
        headers[count++] = request->headers[i];
    *out = (struct api_request){
        .method = deed_str_of(request->method),
        .path = {request->path, path_size},
        .query = query == NULL ? DEED_STR("") : deed_str_of(query + 1),
        .headers = headers,
        .header_count = count,
        .body = request->body,
        .peer = DEED_STR("local"),
    };
}

/* A feed that was begun can only be cut, so it does not say why: the store does. */
static deed_status broken_off(struct local *local, struct deed_error *err)
{
    struct deed_info info;
    store_info(local->store, &info);
    if (info.corrupt_first == DEED_NONE) return deed_fail(err, DEED_IO, "the answer broke off");
    return deed_fail(err, DEED_CORRUPT,
                     "the answer broke off: positions %" PRIu64 " to %" PRIu64 " are damaged",
                     info.corrupt_first, info.corrupt_last);
}

/* Call the source until it ends; what it makes goes to the splitter or the reply. */
static deed_status source_drain(struct local *local, struct api_source *source,
                                struct splitter *splitter, struct reply *reply,
                                struct deed_error *err)
{
    struct buf piece;
    deed_status status = DEED_OK;
    enum api_pull pull = API_MORE;
    buf_init(&piece, REPLY_SIZE_MAX);
    while (status == DEED_OK && pull != API_END) {
        os_mutex_lock(&local->mutex);
        uint64_t grown = local->grown;
        os_mutex_unlock(&local->mutex);
        buf_reset(&piece);
        pull = source->pull(source, &piece, PULL_SIZE);
        if (!buf_ok(&piece)) {
            status = deed_fail(err, DEED_TOO_LARGE, "the answer is too large");
        } else if (splitter != NULL) {
            status = splitter_add(splitter, buf_bytes(&piece), err);
        } else {
            buf_add(&reply->body, piece.ptr, piece.len);
        }
        if (pull == API_FAILED && status == DEED_OK) status = broken_off(local, err);
        if (pull == API_WAIT && status == DEED_OK) {
            os_mutex_lock(&local->mutex);
            if (grown == local->grown) {
                (void)os_cond_wait(&local->cond, &local->mutex,
                                   (uint64_t)source->wait_ms * 1000000u);
            }
            os_mutex_unlock(&local->mutex);
        }
    }
    buf_done(&piece);
    return status;
}

static void reply_header(struct reply *reply, const struct api_response *response)
{
    for (size_t i = 0; i < response->header_count; i++) {
        if (!deed_str_equal(response->headers[i].name, DEED_STR("Deedbook-Position"))) continue;
        (void)text_u64(response->headers[i].value, &reply->position);
    }
}

static deed_status exchange(struct local *local, const struct request *request,
                            struct splitter *splitter, struct reply *reply, struct deed_error *err)
{
    struct arena arena;
    struct api_header headers[REQUEST_HEADERS_MAX + 2];
    struct api_exchange x = {.arena = &arena, .finish = on_finish, .server = local};
    arena_init(&arena, ARENA_SIZE_MAX);
    request_fill(request, headers, &x.request);
    buf_init(&x.response.body, REPLY_SIZE_MAX);
    local->finished = false;
    (void)api_route(local->api, &x);
    api_run(local->api, &x);
    os_mutex_lock(&local->mutex);
    while (!local->finished)
        (void)os_cond_wait(&local->cond, &local->mutex, UINT64_MAX);
    os_mutex_unlock(&local->mutex);

    deed_status status = DEED_OK;
    bool good = x.response.status >= 200 && x.response.status < 300;
    reply->status = x.response.status;
    reply_header(reply, &x.response);
    if (!good) splitter = NULL;
    if (x.response.source != NULL) {
        status = source_drain(local, x.response.source, splitter, reply, err);
        x.response.source->close(x.response.source);
    } else if (splitter != NULL) {
        status = splitter_add(splitter, buf_bytes(&x.response.body), err);
    } else {
        buf_add(&reply->body, x.response.body.ptr, x.response.body.len);
    }
    if (status == DEED_OK && !buf_ok(&reply->body)) {
        status = deed_fail(err, DEED_TOO_LARGE, "%s: the answer is larger than %zu bytes",
                           request->path, REPLY_SIZE_MAX);
    }
    buf_done(&x.response.body);
    arena_done(&arena);
    return status;
}

deed_status local_call(struct local *local, const struct request *request, struct reply *reply,
                       struct deed_error *err)
{
    return exchange(local, request, NULL, reply, err);
}

deed_status local_lines(struct local *local, const struct request *request,
                        struct splitter *splitter, struct deed_error *err)
{
    struct reply reply;
    reply_init(&reply);
    deed_status status = exchange(local, request, splitter, &reply, err);
    if (status == DEED_OK && (reply.status < 200 || reply.status >= 300)) {
        status = reply_problem(reply.status, buf_bytes(&reply.body), err);
    }
    reply_done(&reply);
    return status;
}
