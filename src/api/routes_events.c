/* routes_events.c - the log: read it filtered, append to many streams at once. */
#include <inttypes.h>

#include "api/append.h"
#include "api/event_body.h"
#include "api/feed.h"
#include "api/reply.h"
#include "api/token.h"

/* ---- GET /events -------------------------------------------------------------------------- */

static void filter_get(struct call *c, struct deed_filter *filter)
{
    bool has_to = false;
    filter->type_count = call_list(c, "type", &filter->types);
    filter->tag_count = call_list(c, "tag", &filter->tags);
    filter->category_count = call_list(c, "category", &filter->categories);
    filter->stream_count = call_list(c, "stream", &filter->streams);
    filter->correlation_id_count = call_list(c, "correlation", &filter->correlation_ids);
    filter->from_time_ns = call_time(c, "from_time", NULL);
    filter->to_time_ns = call_time(c, "to_time", &has_to);
    /* Zero leaves the end open; the first instant of 1970 as an end is before everything. */
    if (has_to && filter->to_time_ns == 0) filter->to_time_ns = 1;
    filter->system = call_flag(c, "system", false);
}

/* The next event that matches may be far away. */
static bool is_filtered(const struct deed_filter *f)
{
    return f->type_count + f->tag_count + f->category_count + f->stream_count +
                   f->correlation_id_count > 0 ||
           f->from_time_ns != 0 || f->to_time_ns != 0;
}

/* Whole commits cannot be filtered: a part of one has no checksum. */
static void log_format_check(struct call *c)
{
    static const char *const refused[] = {"type",        "tag",       "category", "stream",
                                          "correlation", "from_time", "to_time",  "system",
                                          "limit",       "until",     "exact",    "direction",
                                          "removed"};
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++) {
        if (call_given(c, refused[i])) {
            call_wrong(c, DEED_INVALID,
                       "parameter %s: application/vnd.deedbook.log gives whole commits, unfiltered",
                       refused[i]);
        }
    }
}

static void last_event_id(struct call *c, struct deed_read_options *read)
{
    deed_str token = call_header(c, "Last-Event-ID", TOKEN_SIZE_MAX);
    if (token.len == 0 || c->status != DEED_OK) return;
    if (read->backwards) {
        call_wrong(c, DEED_INVALID, "header Last-Event-ID: not with direction=backwards");
        return;
    }
    c->status = token_parse(c->api, TOKEN_POSITION, token, &read->after_position, &c->err);
    if (c->status != DEED_OK) deed_wrap(&c->err, "header Last-Event-ID");
}

void events_get(struct call *c)
{
    struct feed_plan plan = {0};
    plan.read.backwards = call_choice(c, "direction", 0) == 1;
    plan.read.after_position = call_position(c, "after", plan.read.backwards ? DEED_NONE : 0);
    plan.read.until_position = call_number(c, "until", 1, INT64_MAX, DEED_NONE);
    plan.read.removed = call_flag(c, "removed", false);
    filter_get(c, &plan.read.filter);
    feed_choose(c, true, &plan);
    if (c->brief && is_filtered(&plan.read.filter)) {
        call_give_up(c);
        call_done(c, 200, NULL);
        return;
    }
    if (plan.format == FEED_SSE) last_event_id(c, &plan.read);
    if (plan.format == FEED_LOG) log_format_check(c);
    if (c->status != DEED_OK) {
        call_fail(c);
        return;
    }
    call_put_header(c, "Deedbook-Log", deed_str_of(c->api->log_header));
    call_put_number(c, "Deedbook-Position", store_position(c->api->parts.store));
    feed_serve(c, &plan);
}

/* ---- POST /append ------------------------------------------------------------------------- */

/* {"first_position":5,"position":6,"events":[{"stream":"a","revision":0,"position":5},…]} */
static void append_answer(struct append_job *job, const struct deed_appended *appended,
                          struct buf *out)
{
    struct json_writer w;
    size_t count = job->append.event_count;
    /* Events that were known one by one need not lie side by side. */
    bool dense = appended->position - appended->first_position == count - 1;
    json_writer_init(&w, out);
    json_object_begin(&w);
    json_member_uint(&w, "first_position", appended->first_position);
    json_member_uint(&w, "position", appended->position);
    json_key(&w, DEED_STR("events"));
    json_array_begin(&w);
    for (size_t i = 0; i < count; i++) {
        json_object_begin(&w);
        json_member_text(&w, "stream", job->append.events[i].stream);
        json_member_uint(&w, "revision", job->revisions[i]);
        if (dense) json_member_uint(&w, "position", appended->first_position + i);
        json_object_end(&w);
    }
    json_array_end(&w);
    append_put_flags(&w, appended);
    json_object_end(&w);
}

/* Nobody has seen positions past the end: who says so has seen those of a log that was put back to
 * an earlier state since. The condition would look at nothing and hold. */
static void check_after(struct call *c, const struct deed_append *append)
{
    uint64_t end = store_position(c->api->parts.store);
    for (size_t i = 0; i < append->condition_count; i++) {
        const struct deed_condition *condition = &append->conditions[i];
        if (condition->kind != DEED_CONDITION_NO_MATCH || condition->after <= end) continue;
        c->status = token_stale(&c->err,
                                "condition %zu: after position %" PRIu64 ", but the log ends at "
                                "%" PRIu64 ": it was put back to an earlier state, read again from "
                                "the start",
                                i, condition->after, end);
        return;
    }
}

void append_post(struct call *c)
{
    bool is_batch = call_content_type(c) == 1;
    struct append_job *job = append_job_create(c, append_answer);
    struct event_defaults defaults = append_defaults(c);
    if (c->status != DEED_OK) {
        call_fail(c);
        return;
    }
    deed_bytes body = c->x->request.body;
    defaults.is_cloudevent = is_batch;
    c->status = is_batch ? event_body_parse(c->arena, body, &defaults, &job->append, &c->err)
                         : append_body_parse(c->arena, body, &defaults, &job->append, &c->err);
    if (c->status == DEED_OK) check_after(c, &job->append);
    append_job_run(job, DEED_STR("POST /append"), DEED_STR(""), DEED_STR(""));
}
