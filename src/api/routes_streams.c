/* routes_streams.c - one stream: append, read, delete, and the state of its aggregate. */
#include <inttypes.h>
#include <stdio.h>

#include "api/append.h"
#include "api/feed.h"
#include "api/reply.h"
#include "api/token.h"
#include "base/text.h"
#include "domain/explain.h"

/* ---- POST /streams/{stream} -------------------------------------------------------------------
 */

/* {"stream":"order-1","first_revision":0,"revision":2,"position":17} */
static void stream_answer(struct append_job *job, const struct deed_appended *appended,
                          struct buf *out)
{
    struct json_writer w;
    json_writer_init(&w, out);
    json_object_begin(&w);
    json_member_text(&w, "stream", job->c->segments[0]);
    json_member_uint(&w, "first_revision", appended->first_revision);
    json_member_uint(&w, "revision", appended->revision);
    json_member_uint(&w, "position", appended->position);
    append_put_flags(&w, appended);
    json_object_end(&w);
}

/* expected= or If-Match, not both. The text of it, for the request's hash. */
static deed_str expectation(struct call *c, enum deed_expect *out_expect, uint64_t *out_revision,
                            bool *out_if_match)
{
    enum deed_expect expect = DEED_EXPECT_ANY;
    uint64_t revision = 0;
    call_expected(c, "expected", out_expect, out_revision);
    *out_if_match = call_if_match(c, &expect, &revision);
    if (*out_if_match) {
        if (call_given(c, "expected")) {
            call_wrong(c, DEED_INVALID, "parameter expected and header If-Match are both given");
        }
        *out_expect = expect;
        *out_revision = revision;
    }
    static const char *const names[] = {
        [DEED_EXPECT_ANY] = "any", [DEED_EXPECT_NONE] = "none", [DEED_EXPECT_EXISTS] = "exists"};
    if (*out_expect != DEED_EXPECT_REVISION) return deed_str_of(names[*out_expect]);
    return arena_printf(c->arena, "%" PRIu64, *out_revision);
}

void stream_post(struct call *c)
{
    struct deed_condition *condition = arena_alloc(c->arena, sizeof *condition);
    struct append_job *job = append_job_create(c, stream_answer);
    struct event_defaults defaults = append_defaults(c);
    size_t type = call_content_type(c);
    if (condition == NULL || job == NULL) {
        call_wrong(c, DEED_NO_MEMORY, "no memory left for the append");
        call_fail(c);
        return;
    }
    deed_str stream = c->segments[0];
    job->one_stream = true;
    *condition = (struct deed_condition){.kind = DEED_CONDITION_STREAM, .stream = stream};
    deed_str expected = expectation(c, &condition->expect, &condition->revision, &job->if_match);
    defaults.stream = stream;
    defaults.is_cloudevent = type > 0;
    if (c->status == DEED_OK) {
        c->status =
            event_body_parse(c->arena, c->x->request.body, &defaults, &job->append, &c->err);
    }
    if (condition->expect != DEED_EXPECT_ANY) {
        job->append.conditions = condition;
        job->append.condition_count = 1;
    }
    append_job_run(job, DEED_STR("POST /streams"), stream, expected);
}

/* ---- GET /streams/{stream} --------------------------------------------------------------------
 */

/* "start", "end", or a revision. */
static uint64_t from_revision(struct call *c, bool backwards)
{
    deed_str text = call_text(c, "from");
    if (text.ptr == NULL) return backwards ? DEED_NONE : 0;
    if (deed_str_equal(text, DEED_STR("start"))) return 0;
    if (backwards && deed_str_equal(text, DEED_STR("end"))) return DEED_NONE;
    return call_revision(c, "from", 0);
}

/* Who has seen more of the stream than there is has seen it before the log was put back to an
 * earlier state. (A bare revision may be a guess.) */
static deed_status check_past_end(struct call *c, deed_str stream, uint64_t revision)
{
    struct deed_stream_info info;
    deed_status known = store_stream(c->api->parts.store, stream, &info, NULL);
    uint64_t next = known != DEED_OK || info.revision == DEED_NONE ? 0 : info.revision + 1;
    if (revision < next || (known != DEED_OK && known != DEED_NOT_FOUND)) return DEED_OK;
    return token_stale(&c->err,
                       "revision %llu is past the stream's end, which has %llu events: the log was "
                       "put back to an earlier state, read again from the start",
                       (unsigned long long)revision, (unsigned long long)next);
}

static void stream_last_event_id(struct call *c, struct deed_read_options *read)
{
    deed_str token = call_header(c, "Last-Event-ID", TOKEN_SIZE_MAX);
    uint64_t revision;
    if (token.len == 0 || c->status != DEED_OK) return;
    if (read->backwards) {
        call_wrong(c, DEED_INVALID, "header Last-Event-ID: not with direction=backwards");
        return;
    }
    c->status = token_parse(c->api, TOKEN_REVISION, token, &revision, &c->err);
    if (c->status == DEED_OK) c->status = check_past_end(c, read->stream, revision);
    if (c->status == DEED_OK) {
        read->from_revision = revision + 1;
    } else {
        deed_wrap(&c->err, "header Last-Event-ID");
    }
}

void stream_get(struct call *c)
{
    struct feed_plan plan = {.read = {.stream = c->segments[0]}};
    plan.read.backwards = call_choice(c, "direction", 0) == 1;
    plan.read.from_revision = from_revision(c, plan.read.backwards);
    plan.read.until_position = call_number(c, "until", 1, INT64_MAX, DEED_NONE);
    plan.read.removed = call_flag(c, "removed", false);
    feed_choose(c, false, &plan);
    if (plan.format == FEED_SSE) stream_last_event_id(c, &plan.read);
    if (c->status != DEED_OK) {
        call_fail(c);
        return;
    }
    call_put_header(c, "Deedbook-Log", deed_str_of(c->api->log_header));
    feed_serve(c, &plan);
}

/* ---- DELETE /streams/{stream} ------------------------------------------------------------------
 */

void stream_delete(struct call *c)
{
    enum deed_expect expect;
    uint64_t revision;
    bool if_match;
    bool tombstone = call_flag(c, "tombstone", false);
    (void)expectation(c, &expect, &revision, &if_match);
    struct call_origin origin = call_origin(c);
    if (c->status != DEED_OK) {
        call_fail(c);
        return;
    }
    struct deed_appended appended;
    deed_status status = store_delete_stream(c->api->parts.store, c->segments[0], expect, revision,
                                             tombstone, origin.actor, &appended, &c->err);
    if (status == DEED_CONFLICT && if_match) status = DEED_STALE;
    if (status != DEED_OK) {
        call_fail_with(c, status);
        return;
    }
    struct json_writer w;
    json_writer_init(&w, call_body(c));
    json_object_begin(&w);
    json_member_text(&w, "stream", c->segments[0]);
    json_member_text(&w, "deleted", tombstone ? DEED_STR("tombstone") : DEED_STR("soft"));
    json_member_uint(&w, "position", appended.position);
    append_put_flags(&w, &appended);
    json_object_end(&w);
    buf_add_byte(&c->x->response.body, '\n');
    call_put_position(c, appended.position);
    call_done(c, 200, "application/json");
}

/* ---- /streams/{stream}/metadata ------------------------------------------------------------------
 */

void stream_metadata_get(struct call *c)
{
    struct buf json;
    uint64_t revision = DEED_NONE;
    buf_init(&json, RESPONSE_SIZE_MAX / 2);
    deed_status status =
        store_get_metadata(c->api->parts.store, c->segments[0], &json, &revision, &c->err);
    if (status == DEED_OK) {
        struct json_writer w;
        json_writer_init(&w, call_body(c));
        json_object_begin(&w);
        json_member_text(&w, "stream", c->segments[0]);
        json_key(&w, DEED_STR("revision"));
        if (revision == DEED_NONE) {
            json_put_null(&w);
        } else {
            json_put_uint(&w, revision);
        }
        json_member_raw(&w, "metadata", buf_bytes(&json));
        json_object_end(&w);
        buf_add_byte(&c->x->response.body, '\n');
        call_put_etag(c, revision);
        call_done(c, 200, "application/json");
    } else {
        call_fail_with(c, status);
    }
    buf_done(&json);
}

/* {"stream":"order-1","revision":0,"position":17}: the metadata's revision. */
static void metadata_answer(struct append_job *job, const struct deed_appended *appended,
                            struct buf *out)
{
    struct json_writer w;
    json_writer_init(&w, out);
    json_object_begin(&w);
    json_member_text(&w, "stream", job->c->segments[0]);
    json_member_uint(&w, "revision", appended->revision);
    json_member_uint(&w, "position", appended->position);
    append_put_flags(&w, appended);
    json_object_end(&w);
}

void stream_metadata_post(struct call *c)
{
    struct append_job *job = append_job_create(c, metadata_answer);
    struct deed_condition *condition = arena_alloc(c->arena, sizeof *condition);
    struct deed_new_event *event = arena_alloc(c->arena, sizeof *event);
    struct call_origin origin = call_origin(c);
    deed_str name = arena_printf(c->arena, "$$%.*s", DEED_FMT(c->segments[0]));
    (void)call_content_type(c);
    if (job == NULL || condition == NULL || event == NULL || name.ptr == NULL) {
        call_wrong(c, DEED_NO_MEMORY, "no memory left for the append");
        call_fail(c);
        return;
    }
    job->one_stream = true;
    *condition = (struct deed_condition){.kind = DEED_CONDITION_STREAM, .stream = name};
    deed_str expected = expectation(c, &condition->expect, &condition->revision, &job->if_match);
    *event = (struct deed_new_event){.stream = name,
                                     .type = DEED_STR("$metadata"),
                                     .data = c->x->request.body,
                                     .correlation_id = origin.correlation_id,
                                     .causation_id = origin.causation_id,
                                     .actor = origin.actor};
    job->append.events = event;
    job->append.event_count = 1;
    if (condition->expect != DEED_EXPECT_ANY) {
        job->append.conditions = condition;
        job->append.condition_count = 1;
    }
    append_job_run(job, DEED_STR("POST /streams/metadata"), c->segments[0], expected);
}

/* ---- GET /streams/{stream}/state ---------------------------------------------------------------
 */

/* The stream's last revision at or before a position. */
static deed_status revision_at(struct call *c, uint64_t position, uint64_t *out_revision)
{
    struct store *store = c->api->parts.store;
    deed_str stream = c->segments[0];
    if (position > store_position(store)) {
        return deed_fail(&c->err, DEED_NOT_FOUND,
                         "position %" PRIu64 " is past the end of the log, %" PRIu64, position,
                         store_position(store));
    }
    const struct deed_read_options options = {.stream = stream,
                                              .from_revision = DEED_NONE,
                                              .backwards = true,
                                              .until_position = position,
                                              .count_max = 1,
                                              .ignore_retention = true,
                                              .removed = true};
    struct deed_cursor *cursor = NULL;
    struct deed_event event;
    deed_status status = store_read(store, &options, &cursor, &c->err);
    if (status == DEED_OK) status = cursor_next(cursor, &event, &c->err);
    if (status == DEED_OK) *out_revision = event.revision;
    cursor_close(cursor);
    if (status != DEED_END && status != DEED_NOT_FOUND) return status;
    return deed_fail(&c->err, DEED_NOT_FOUND,
                     "stream %.*s has no event at or before position %" PRIu64, DEED_FMT(stream),
                     position);
}

/* Which revision is meant: named, or the last at a position or a time. DEED_NONE: now. */
static deed_status state_revision(struct call *c, uint64_t *out_revision)
{
    bool has_time = false;
    uint64_t revision = call_number(c, "revision", 0, INT64_MAX, DEED_NONE);
    uint64_t position = call_position(c, "position", DEED_NONE);
    int64_t time_ns = call_time(c, "at", &has_time);
    if ((revision != DEED_NONE) + (position != DEED_NONE) + has_time > 1) {
        call_wrong(c, DEED_INVALID, "parameters revision, position and at exclude each other");
    }
    if (c->status != DEED_OK) return c->status;
    *out_revision = revision;
    if (has_time) {
        deed_status status = store_position_at(c->api->parts.store, time_ns, &position, &c->err);
        if (status != DEED_OK) return status;
    }
    if (position == DEED_NONE) return DEED_OK;
    if (position == 0) {
        return deed_fail(&c->err, DEED_NOT_FOUND, "nothing was stored then");
    }
    return revision_at(c, position, out_revision);
}

static void state_answer(struct call *c, deed_bytes state, uint64_t revision, uint64_t position)
{
    struct json_writer w;
    json_writer_init(&w, call_body(c));
    json_object_begin(&w);
    json_member_text(&w, "stream", c->segments[0]);
    json_member_uint(&w, "revision", revision);
    json_member_uint(&w, "position", position);
    json_member_raw(&w, "state", state);
    json_object_end(&w);
    buf_add_byte(&c->x->response.body, '\n');
    call_put_number(c, "Deedbook-Revision", revision);
    call_put_position(c, position);
    call_put_etag(c, revision);
    call_done(c, 200, "application/json");
}

void stream_state(struct call *c)
{
    struct buf state;
    uint64_t revision, position;
    buf_init(&state, RESPONSE_SIZE_MAX / 2);
    deed_status status = state_revision(c, &revision);
    if (status == DEED_OK && c->api->parts.executor == NULL) {
        status = deed_fail(&c->err, DEED_NOT_FOUND,
                           "there is no state without a domain: this server has none");
    }
    if (status == DEED_OK) {
        status = executor_state(c->api->parts.executor, c->segments[0], revision, &state, &revision,
                                &position, &c->err);
    }
    if (status == DEED_OK && !buf_ok(&state)) {
        status = deed_fail(&c->err, DEED_NO_MEMORY, "the state is too large for memory");
    }
    if (status == DEED_OK) {
        state_answer(c, buf_bytes(&state), revision, position);
    } else {
        call_fail_with(c, status);
    }
    buf_done(&state);
}

/* ---- GET /streams/{stream}/explain --------------------------------------------------------------
 */

#define EXPLAIN_COUNT_MAX 10000

void stream_explain(struct call *c)
{
    uint64_t revision = call_number(c, "revision", 0, INT64_MAX, DEED_NONE);
    uint64_t count = call_number(c, "limit", 1, EXPLAIN_COUNT_MAX, 0);
    if (c->api->parts.executor == NULL) {
        call_wrong(c, DEED_NOT_FOUND, "there is no state without a domain: this server has none");
    }
    if (c->status != DEED_OK) {
        call_fail(c);
        return;
    }
    struct buf *out = call_body(c);
    deed_status status =
        executor_explain(c->api->parts.executor, c->segments[0], revision, count, out, &c->err);
    if (status != DEED_OK) {
        call_fail_with(c, status);
        return;
    }
    buf_add_byte(out, '\n');
    call_done(c, 200, "application/json");
}
