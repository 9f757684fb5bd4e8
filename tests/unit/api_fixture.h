/* api_fixture.h - the HTTP API over a real store in a directory of its own, without sockets.
 *
 *     open_api();
 *     with("If-Match", "\"5\"");
 *     ask("POST", "/streams/a", "{\"type\":\"T\",\"data\":1}");
 *     expect_answer(200, "\"revision\":6");
 *     close_api();
 *
 * Executor, projections and queries are doubles: the name that is asked for says what they answer
 * ("Reject", "Busy", "slow"), so that every status of theirs can be provoked. */
#ifndef TESTS_API_FIXTURE_H
#define TESTS_API_FIXTURE_H

#include "test.h"

#include <unistd.h>

#include "api/api.h"
#include "domain/explain.h"
#include "os/os_sim.h"
#include "os/thread.h"
#include "query/queries.h"
#include "store/store.h"

/* ---- doubles ------------------------------------------------------------------------------ */

struct executor {
    struct deed_command seen; /* the last one; its slices belong to the request */
    char key[64], actor[64], correlation[64];
};
static struct executor the_executor;

struct outcome {
    const char *name;
    deed_status status;
    const char *code;
};

/* The outcome of a name; DEED_OK for one that is not listed. */
static struct outcome outcome_of(const struct outcome *list, size_t count, deed_str name)
{
    for (size_t i = 0; i < count; i++) {
        if (deed_str_equal(name, deed_str_of(list[i].name))) return list[i];
    }
    return (struct outcome){0};
}
#define OUTCOME(list, name) outcome_of(list, sizeof list / sizeof list[0], name)

static deed_status outcome_fail(struct outcome outcome, struct deed_error *err)
{
    (void)deed_fail(err, outcome.status, "%s: as it was told to", outcome.name);
    if (err != NULL && outcome.code != NULL) {
        snprintf(err->code, sizeof err->code, "%s", outcome.code);
    }
    return outcome.status;
}

static void seen_text(char *out, size_t room, deed_str text)
{
    snprintf(out, room, "%.*s", DEED_FMT(text));
}

deed_status executor_submit(struct executor *executor, const struct deed_command *command,
                            executor_done *done, void *context, struct deed_error *err)
{
    static const struct outcome at_once[] = {{"Busy", DEED_BUSY, NULL},
                                             {"Missing", DEED_NOT_FOUND, NULL}};
    static const struct outcome later[] = {{"Reject", DEED_REJECTED, "order_shipped"},
                                           {"Invalid", DEED_INVALID, NULL},
                                           {"Stale", DEED_STALE, NULL},
                                           {"Conflict", DEED_CONFLICT, NULL},
                                           {"Gone", DEED_GONE, NULL},
                                           {"Crash", DEED_DOMAIN, NULL}};
    executor->seen = *command;
    seen_text(executor->key, sizeof executor->key, command->idempotency_key);
    seen_text(executor->actor, sizeof executor->actor, command->actor);
    seen_text(executor->correlation, sizeof executor->correlation, command->correlation_id);
    struct outcome outcome = OUTCOME(at_once, command->name);
    if (outcome.name != NULL) return outcome_fail(outcome, err);
    outcome = OUTCOME(later, command->name);
    if (outcome.name != NULL) {
        struct deed_error trouble;
        (void)outcome_fail(outcome, &trouble);
        done(context, NULL, (deed_str){0}, NULL, 0, &trouble);
        return DEED_OK;
    }
    bool nothing = deed_str_equal(command->name, DEED_STR("Nothing"));
    struct deed_event event = {.position = 7,
                               .revision = 3,
                               .stream = DEED_STR("order-1"),
                               .type = DEED_STR("Done"),
                               .content_type = DEED_STR("application/json"),
                               .data = command->data};
    struct deed_decided decided = {.position = 7,
                                   .first_revision = nothing ? DEED_NONE : 3,
                                   .revision = nothing ? DEED_NONE : 3,
                                   .event_count = nothing ? 0 : 1};
    done(context, &decided, DEED_STR("order-1"), &event, nothing ? 0 : 1, NULL);
    return DEED_OK;
}

deed_status executor_state(struct executor *executor, deed_str stream, uint64_t revision,
                           struct buf *out, uint64_t *out_revision, uint64_t *out_position,
                           struct deed_error *err)
{
    (void)executor;
    if (deed_str_equal(stream, DEED_STR("alien-1"))) {
        return deed_fail(err, DEED_NOT_FOUND, "no aggregate for alien");
    }
    if (deed_str_equal(stream, DEED_STR("gone-1"))) {
        return deed_fail(err, DEED_GONE, "stream gone-1: revision 0 was removed");
    }
    *out_revision = revision == DEED_NONE ? 99 : revision;
    *out_position = 100;
    buf_printf(out, "{\"n\":%d}", 1);
    return DEED_OK;
}

deed_status executor_explain(struct executor *executor, deed_str stream, uint64_t revision,
                             uint64_t count_max, struct buf *out, struct deed_error *err)
{
    (void)executor;
    if (deed_str_equal(stream, DEED_STR("alien-1"))) {
        return deed_fail(err, DEED_NOT_FOUND, "no aggregate for alien");
    }
    if (deed_str_equal(stream, DEED_STR("gone-1"))) {
        return deed_fail(err, DEED_GONE, "stream gone-1: revision 0 was removed");
    }
    buf_printf(out, "[{\"revision\":%llu,\"max\":%llu}]",
               (unsigned long long)(revision == DEED_NONE ? 99 : revision),
               (unsigned long long)count_max);
    return DEED_OK;
}

deed_str executor_model(const struct executor *executor)
{
    (void)executor;
    return DEED_STR(
        "{\"name\":\"shop\",\"aggregates\":[{\"name\":\"order\",\"commands\":["
        "{\"name\":\"Create\",\"fields\":[\"id\"]},{\"name\":\"Ship\",\"fields\":[]}]}]}");
}

void executor_get_metrics(struct executor *executor, struct executor_metrics *out_metrics)
{
    (void)executor;
    *out_metrics = (struct executor_metrics){.commands = 5, .rejected = 2};
}

struct projections {
    bool rebuilding, forced, no_position;
    enum projection_state state;
};
static struct projections the_projections;

deed_status projections_list(struct projections *projections, struct arena *arena,
                             struct projection_status **out_list, size_t *out_count,
                             struct deed_error *err)
{
    static const deed_str types[] = {{"OrderCreated", 12}};
    static const deed_str tables[] = {{"orders", 6}};
    struct projection_status *list = arena_alloc_array(arena, 1, sizeof *list);
    if (list == NULL) return deed_fail(err, DEED_NO_MEMORY, "no memory");
    list[0] = (struct projection_status){
        .name = DEED_STR("orders"),
        .file = DEED_STR("orders \"1\".sql"),
        .state = projections->state,
        .generation = 2,
        .position = 40,
        .lag = 2,
        .error = DEED_STR("no such table"),
        .error_statement = DEED_STR("INSERT"),
        .error_position = projections->no_position ? DEED_NONE : 41,
        .event_types = types,
        .event_type_count = 1,
        .tables = tables,
        .table_count = 1,
        .rebuilding = projections->rebuilding,
        .rebuild_position = 10,
        .rebuild_target = 42,
        .rebuild_seconds_left = 0.0 / 0.0,
    };
    *out_list = list;
    *out_count = 1;
    return DEED_OK;
}

static deed_status projection_known(deed_str name, struct deed_error *err)
{
    if (deed_str_equal(name, DEED_STR("orders"))) return DEED_OK;
    return deed_fail(err, DEED_NOT_FOUND, "there is no projection %.*s", DEED_FMT(name));
}

deed_status projections_rebuild(struct projections *projections, deed_str name, bool force,
                                struct deed_error *err)
{
    deed_status status = projection_known(name, err);
    if (status != DEED_OK) return status;
    if (projections->rebuilding) {
        return deed_fail(err, DEED_CONFLICT, "projection orders is being rebuilt already");
    }
    projections->rebuilding = true;
    projections->forced = force;
    return DEED_OK;
}

deed_status projections_pause(struct projections *projections, deed_str name,
                              struct deed_error *err)
{
    deed_status status = projection_known(name, err);
    if (status == DEED_OK) projections->state = PROJECTION_PAUSED;
    return status;
}

deed_status projections_resume(struct projections *projections, deed_str name,
                               struct deed_error *err)
{
    deed_status status = projection_known(name, err);
    if (status == DEED_OK) projections->state = PROJECTION_RUNNING;
    return status;
}

struct queries {
    char seen[512]; /* "after=5 timeout=10000 position=0 a=1 b=2" */
};
static struct queries the_queries;

deed_status queries_list(struct queries *queries, struct arena *arena,
                         struct query_description **out_list, size_t *out_count,
                         struct deed_error *err)
{
    (void)queries;
    static const deed_str parameters[] = {{"customer", 8}};
    struct query_description *list = arena_alloc_array(arena, 1, sizeof *list);
    if (list == NULL) return deed_fail(err, DEED_NO_MEMORY, "no memory");
    list[0] = (struct query_description){
        .name = DEED_STR("by_customer"), .parameters = parameters, .parameter_count = 1};
    *out_list = list;
    *out_count = 1;
    return DEED_OK;
}

deed_status queries_run(struct queries *queries, deed_str name,
                        const struct deed_query_options *options, struct buf *out,
                        uint64_t *out_position, struct deed_error *err)
{
    static const struct outcome outcomes[] = {{"missing", DEED_NOT_FOUND, NULL},
                                              {"invalid", DEED_INVALID, NULL},
                                              {"slow", DEED_TIMEOUT, NULL},
                                              {"stopped", DEED_STOPPED, NULL},
                                              {"large", DEED_TOO_LARGE, NULL},
                                              {"gone", DEED_GONE, NULL}};
    struct buf seen;
    buf_init(&seen, 4096);
    buf_printf(&seen, "after=%llu timeout=%u position=%llu", (unsigned long long)options->after,
               options->timeout_ms, (unsigned long long)options->position);
    for (size_t i = 0; i < options->parameter_count; i++) {
        buf_printf(&seen, " %.*s=%.*s", DEED_FMT(options->parameters[i].name),
                   DEED_FMT(options->parameters[i].value));
    }
    seen_text(queries->seen, sizeof queries->seen, buf_str(&seen));
    buf_done(&seen);
    struct outcome outcome = OUTCOME(outcomes, name);
    if (outcome.name != NULL) return outcome_fail(outcome, err);
    buf_add_str(out, DEED_STR("[{\"n\":1}]"));
    *out_position = 42;
    return DEED_OK;
}

void queries_get_metrics(struct queries *queries, struct query_metrics *out_metrics)
{
    (void)queries;
    *out_metrics = (struct query_metrics){.queries = 3};
}

/* ---- the store and the api ------------------------------------------------------------------- */

static char api_directory[] = "/tmp/deedbook-api-XXXXXX";
static struct store *store;
static struct api *api;
static struct store_options store_options;
static struct api_parts api_parts;
static struct os_sim *sim; /* the machine, or NULL: this one */
static bool api_ready = true;

static bool ready_now(void *context)
{
    (void)context;
    return api_ready;
}

static void server_metrics(void *context, struct buf *out)
{
    (void)context;
    buf_add_str(out, DEED_STR("server_metric 1\n"));
}

/* Close and open again, on what is in the directory, under store_options. */
static void reopen_api(void)
{
    struct deed_error err = {0};
    api_destroy(api);
    store_close(store);
    store = NULL;
    struct os *os = sim == NULL ? os_real() : os_sim_os(sim);
    deed_status status = store_open(os, api_directory, &store_options, &store, &err);
    if (status != DEED_OK) fail_msg("store_open: %s", err.message);
    api_parts.store = store;
    expect_ok(api_create(&api_parts, &api, &err));
}

static void open_fresh(struct store_options options)
{
    store_options = options;
    the_executor = (struct executor){0};
    the_projections = (struct projections){0};
    the_queries = (struct queries){0};
    api_ready = true;
    api_parts = (struct api_parts){.executor = &the_executor,
                                   .projections = &the_projections,
                                   .queries = &the_queries,
                                   .read_limit_max = 1000,
                                   .metrics = server_metrics,
                                   .ready = ready_now};
    reopen_api();
}

static void open_api(void)
{
    memcpy(api_directory + sizeof api_directory - 7, "XXXXXX", 6);
    assert_non_null(mkdtemp(api_directory));
    open_fresh((struct store_options){.segment_size = 1 << 20});
}

/* On a machine whose clock and disk the test holds in its hands. */
static __attribute__((unused)) void open_api_sim(void)
{
    sim = os_sim_create(1, NULL);
    open_fresh((struct store_options){.segment_size = 1 << 20, .no_threads = true});
}

static void close_api(void)
{
    char command[256];
    api_destroy(api);
    store_close(store);
    api = NULL;
    store = NULL;
    if (sim != NULL) {
        os_sim_destroy(sim);
        sim = NULL;
        return;
    }
    snprintf(command, sizeof command, "rm -rf '%s'", api_directory);
    assert_int_equal(system(command), 0);
}

/* ---- one request -------------------------------------------------------------------------- */

static struct api_header asked_headers[24];
static size_t asked_header_count;

/* Of the next request. */
static __attribute__((unused)) void with(const char *name, const char *value)
{
    assert_true(asked_header_count < sizeof asked_headers / sizeof asked_headers[0]);
    asked_headers[asked_header_count++] =
        (struct api_header){deed_str_of(name), deed_str_of(value)};
}

struct answer {
    int status, finished;
    char headers[API_RESPONSE_HEADERS_MAX][2][1024];
    size_t header_count;
    struct buf body;
    enum api_pull last_pull; /* of a source: API_WAIT when it follows */
    bool had_source;
    enum api_where where;
    bool brief; /* api_try made it */
    size_t glances; /* pulls that were glances */
    char route[128];
};
static struct answer answer;
static bool no_haste; /* have what is brief run as on a pool thread */

static struct {
    struct os_mutex mutex;
    struct os_cond cond;
    bool done;
} finish_line;

static struct arena x_arena;
static struct api_exchange x;

static void on_finish(struct api_exchange *exchange)
{
    (void)exchange;
    os_mutex_lock(&finish_line.mutex);
    answer.finished++;
    finish_line.done = true;
    os_cond_broadcast(&finish_line.cond);
    os_mutex_unlock(&finish_line.mutex);
}

static void copy_headers(void)
{
    answer.header_count = x.response.header_count;
    for (size_t i = 0; i < x.response.header_count; i++) {
        seen_text(answer.headers[i][0], sizeof answer.headers[i][0], x.response.headers[i].name);
        seen_text(answer.headers[i][1], sizeof answer.headers[i][1], x.response.headers[i].value);
    }
}

static size_t pull_size = 4096;

/* Pull until it ends, fails or waits. */
static void drain(void)
{
    struct buf piece;
    buf_init(&piece, 64 << 20);
    enum api_pull pull = API_MORE;
    while (pull == API_MORE) {
        struct api_source *source = x.response.source;
        buf_reset(&piece);
        pull = source->glance == NULL ? API_LATER : source->glance(source, &piece, pull_size);
        if (pull == API_LATER) {
            assert_int_equal(piece.len, 0);
            pull = source->pull(source, &piece, pull_size);
        } else {
            answer.glances++;
        }
        buf_add(&answer.body, piece.ptr, piece.len);
    }
    answer.last_pull = pull;
    buf_done(&piece);
}

static void let_go(void)
{
    if (x.response.source != NULL) x.response.source->close(x.response.source);
    x.response.source = NULL;
    buf_done(&x.response.body);
    arena_done(&x_arena);
}

static const char *body_text(void)
{
    buf_add_byte(&answer.body, '\0');
    answer.body.len--;
    return (const char *)answer.body.ptr;
}

/* The exchange stays (a source can be pulled again) until let_go. */
static void begin_ask(const char *method, const char *target, deed_bytes body)
{
    const char *query = strchr(target, '?');
    size_t path_size = query == NULL ? strlen(target) : (size_t)(query - target);
    arena_init(&x_arena, 64 << 20);
    x = (struct api_exchange){.arena = &x_arena, .finish = on_finish};
    x.request = (struct api_request){
        .method = deed_str_of(method),
        .path = {target, path_size},
        .query = query == NULL ? DEED_STR("") : deed_str_of(query + 1),
        .headers = asked_headers,
        .header_count = asked_header_count,
        .body = body,
        .peer = DEED_STR("test"),
    };
    asked_header_count = 0;
    buf_done(&answer.body);
    answer = (struct answer){0};
    buf_init(&answer.body, 256 << 20);
    if (finish_line.done) os_cond_done(&finish_line.cond), os_mutex_done(&finish_line.mutex);
    os_mutex_init(&finish_line.mutex);
    os_cond_init(&finish_line.cond);
    finish_line.done = false;

    answer.where = api_route(api, &x);
    snprintf(answer.route, sizeof answer.route, "%s", api_route_name(x.route));
    answer.brief = answer.where == API_BRIEF && !no_haste && api_try(api, &x);
    if (!answer.brief) api_run(api, &x);
}

static void await_answer(void)
{
    while (sim != NULL && !finish_line.done) (void)store_step(store);
    os_mutex_lock(&finish_line.mutex);
    while (!finish_line.done) {
        (void)os_cond_wait(&finish_line.cond, &finish_line.mutex, UINT64_MAX);
    }
    os_mutex_unlock(&finish_line.mutex);
    answer.status = x.response.status;
    copy_headers();
    answer.had_source = x.response.source != NULL;
    if (answer.had_source) {
        drain();
    } else {
        buf_add(&answer.body, x.response.body.ptr, x.response.body.len);
        answer.last_pull = API_END;
    }
    (void)body_text();
}

static void ask_bytes(const char *method, const char *target, deed_bytes body)
{
    begin_ask(method, target, body);
    await_answer();
    assert_int_equal(answer.finished, 1);
    let_go();
}

static void ask(const char *method, const char *target, const char *body)
{
    ask_bytes(method, target, deed_bytes_of(deed_str_of(body)));
}

static void get(const char *target)
{
    ask("GET", target, NULL);
}

static const char *header_of(const char *name)
{
    for (size_t i = 0; i < answer.header_count; i++) {
        if (strcasecmp(answer.headers[i][0], name) == 0) return answer.headers[i][1];
    }
    return NULL;
}

#define expect_header(name, value)                                                                 \
    do {                                                                                           \
        const char *got_ = header_of(name);                                                        \
        if (got_ == NULL) fail_msg("no header %s", name);                                          \
        assert_string_equal(got_, value);                                                          \
    } while (0)

#define expect_answer(wanted_status, part)                                                         \
    do {                                                                                           \
        if (answer.status != (wanted_status) || strstr(body_text(), (part)) == NULL) {             \
            fail_msg("%d %s\nnot %d with %s", answer.status, body_text(), (wanted_status),         \
                     (part));                                                                      \
        }                                                                                          \
    } while (0)

static size_t count_of(const char *part)
{
    size_t count = 0;
    for (const char *at = body_text(); (at = strstr(at, part)) != NULL; at += strlen(part))
        count++;
    return count;
}

/* `count` events {"n":0}, {"n":1}, … of type T in one append. */
static void append_many(const char *stream, unsigned count)
{
    struct buf body;
    char target[256];
    buf_init(&body, 64 << 20);
    for (unsigned i = 0; i < count; i++) {
        buf_printf(&body, "%s{\"type\":\"T\",\"data\":{\"n\":%u}}", i == 0 ? "[" : ",", i);
    }
    buf_add_byte(&body, ']');
    snprintf(target, sizeof target, "/streams/%s", stream);
    ask_bytes("POST", target, buf_bytes(&body));
    expect_answer(200, "\"position\":");
    buf_done(&body);
}

/* One event whose data is a text of `size` bytes. */
static __attribute__((unused)) void append_large(const char *stream, size_t size)
{
    struct buf body;
    char target[256];
    buf_init(&body, size + 256);
    buf_add_str(&body, DEED_STR("{\"type\":\"T\",\"data\":\""));
    memset(buf_reserve(&body, size), 'x', size);
    body.len += size;
    buf_add_str(&body, DEED_STR("\"}"));
    snprintf(target, sizeof target, "/streams/%s", stream);
    ask_bytes("POST", target, buf_bytes(&body));
    expect_answer(200, "\"position\":");
    buf_done(&body);
}

#endif
