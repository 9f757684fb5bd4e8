/* feed.c - one cursor, four dresses.
 *
 * (1) An event is in the body whole or not at all.
 * (2) A slice is bounded in bytes and in time, so that a filter that matches little does not hold a
 *     pool thread.
 * (3) A feed that failed ends in API_FAILED, after what was good has been sent.
 * (4) What a thread in haste could not read is no failure: the cursor stands where it stood, and the
 *     next slice, made by a pool thread, goes on there. */
#include "api/feed.h"

#include <assert.h>
#include <stdio.h>

#include "api/reply.h"
#include "api/token.h"

/* A page past this ends at the event that passed it: what a browser and a proxy still like. */
#define PAGE_SIZE ((size_t)8 << 20)
/* A page that takes longer ends where it is: a filter may match nothing in a large log. */
#define PAGE_TIME_NS       (UINT64_C(5) * 1000000000)
#define PAGE_LIMIT_DEFAULT 1000

/* The first slice is made by the handler, so that most replies are whole at once. */
#define FIRST_SLICE_SIZE ((size_t)64 << 10)
#define SLICE_TIME_NS    (UINT64_C(50) * 1000000)

/* The clock costs as much as a small event: it is looked at every so many. */
#define CLOCK_EVENTS 16

/* Proxies close what is silent for a minute, some for half of one. */
#define KEEPALIVE_MS 15000

/* ---- what is asked for ---------------------------------------------------------------------- */

static const struct {
    const char *type;
    enum feed_format format;
} offers[] = {
    {"application/json", FEED_PAGE},
    {"application/cloudevents-batch+json", FEED_PAGE},
    {"application/x-ndjson", FEED_LINES},
    {"text/event-stream", FEED_SSE},
    {"application/vnd.deedbook.log", FEED_LOG},
};
#define OFFER_COUNT        (sizeof offers / sizeof offers[0])
#define OFFER_FIRST_FOLLOW 2 /* pages have an end */

void feed_choose(struct call *c, bool with_log, struct feed_plan *plan)
{
    const char *types[OFFER_COUNT];
    bool follow = call_flag(c, "follow", false);
    size_t first = follow ? OFFER_FIRST_FOLLOW : 0;
    size_t count = OFFER_COUNT - first - (with_log ? 0 : 1);
    for (size_t i = 0; i < count; i++)
        types[i] = offers[first + i].type;

    size_t chosen = first + call_accept(c, types, count);
    plan->format = offers[chosen].format;
    plan->content_type = offers[chosen].type;
    /* EventSource connects again as soon as a reply ends: following is what it is for. */
    plan->read.follow = call_flag(c, "follow", plan->format == FEED_SSE && !plan->read.backwards);
    plan->exact = call_flag(c, "exact", false);

    uint64_t max = c->api->parts.read_limit_max;
    bool is_page = plan->format == FEED_PAGE;
    uint64_t fallback = max < PAGE_LIMIT_DEFAULT ? max : PAGE_LIMIT_DEFAULT;
    plan->limit =
        call_number(c, "limit", 1, is_page ? max : INT64_MAX, is_page ? fallback : DEED_NONE);
    if (plan->read.follow && plan->read.backwards) {
        call_wrong(c, DEED_INVALID, "parameters follow and direction=backwards exclude each other");
    }
}

static uint64_t now_ns(const struct api *api)
{
    return os_ticks_ns(store_os(api->parts.store));
}

/* Would a page take more events than a brief call makes? */
static bool page_is_long(const struct feed_plan *plan, const struct deed_stream_info *info)
{
    uint64_t from = plan->read.from_revision, last = info->revision;
    uint64_t first = info->first_revision == DEED_NONE ? last : info->first_revision;
    uint64_t low = plan->read.backwards || from < first ? first : from;
    uint64_t high = plan->read.backwards && from < last ? from : last;
    uint64_t count = low > high ? 0 : high - low + 1;
    return count > BRIEF_EVENTS_MAX && plan->limit > BRIEF_EVENTS_MAX;
}

/* Open the cursor. The headers say where the log, or the stream, stands; one that is not there yet
 * stands nowhere. false: the call has ended. */
static bool feed_open(struct call *c, const struct feed_plan *plan, uint64_t count_max,
                      struct deed_cursor **out_cursor)
{
    struct deed_read_options read = plan->read;
    struct deed_stream_info info;
    read.count_max = count_max;
    if (plan->format == FEED_PAGE) read.follow = false;
    deed_status status = store_read(c->api->parts.store, &read, out_cursor, &c->err);
    if (status != DEED_OK) {
        call_fail_with(c, status);
        return false;
    }
    if (!cursor_stream(*out_cursor, &info)) return true;
    if (c->brief && plan->format == FEED_PAGE && page_is_long(plan, &info)) {
        call_give_up(c);
        cursor_close(*out_cursor);
        call_done(c, 200, NULL);
        return false;
    }
    call_put_number(c, "Deedbook-Revision", info.revision);
    call_put_number(c, "Deedbook-Position", info.position);
    call_put_etag(c, info.revision);
    return true;
}

/* ---- pages -------------------------------------------------------------------------------- */

struct page {
    struct call *c;
    const struct feed_plan *plan;
    struct deed_cursor *cursor;
    uint64_t count;
    uint64_t last_position, last_revision; /* of the events in it */
    bool more;                             /* there is, or may be, something behind it */
};

static deed_status page_fill(struct page *p, struct buf *out)
{
    const struct api *api = p->c->api;
    unsigned flags = CLOUDEVENT_STORED | (p->plan->exact ? CLOUDEVENT_EXACT : 0);
    uint64_t begun_ns = now_ns(api);
    buf_add_byte(out, '[');
    for (;;) {
        struct deed_event event;
        if (p->c->brief && (p->count > BRIEF_EVENTS_MAX || out->len > BRIEF_SIZE)) {
            call_give_up(p->c);
            break;
        }
        bool look = p->count % CLOCK_EVENTS == 0; /* at the clock */
        if (out->len > PAGE_SIZE || (look && now_ns(api) - begun_ns > PAGE_TIME_NS)) {
            p->more = true;
            break;
        }
        deed_status status = cursor_next(p->cursor, &event, &p->c->err);
        if (status == DEED_END) break;
        if (status != DEED_OK) return status;
        if (p->count == p->plan->limit) { /* one was asked for beyond the limit, to know of it */
            p->more = true;
            break;
        }
        if (p->count++ > 0) buf_add(out, ",\n", 2);
        cloudevent_write(out, &api->source, &event, flags);
        p->last_position = event.position;
        p->last_revision = event_revision_read(&event);
    }
    buf_add(out, "]\n", 2);
    return DEED_OK;
}

/* Where the next page begins; false: nowhere. */
static bool page_next(const struct page *p, uint64_t *out)
{
    if (!p->more) return false;
    if (p->plan->read.stream.ptr == NULL) {
        *out = p->count > 0 ? p->last_position : p->plan->read.after_position;
        /* Cut short by time, the cursor may have come further than the last match. */
        uint64_t seen = cursor_position(p->cursor);
        if (p->count < p->plan->limit && !p->plan->read.backwards && seen > *out) *out = seen;
        return true;
    }
    if (p->count == 0) {
        *out = p->plan->read.from_revision;
        return *out != DEED_NONE;
    }
    if (p->plan->read.backwards && p->last_revision == 0) return false;
    *out = p->plan->read.backwards ? p->last_revision - 1 : p->last_revision + 1;
    return true;
}

static void page_put_link(const struct page *p)
{
    uint64_t next;
    if (!page_next(p, &next)) return;

    deed_str link;
    if (p->plan->read.stream.ptr == NULL) {
        char token[TOKEN_SIZE_MAX];
        size_t size = token_format(p->c->api, TOKEN_POSITION, next, token);
        link = call_link(p->c, "after", (deed_str){token, size});
    } else {
        char token[TOKEN_SIZE_MAX];
        size_t size = token_format(p->c->api, TOKEN_REVISION, next, token);
        link = call_link(p->c, "from", (deed_str){token, size});
    }
    deed_str header = arena_printf(p->c->arena, "<%.*s>; rel=\"next\"", DEED_FMT(link));
    if (header.ptr != NULL) call_put_header(p->c, "Link", header);
}

static void page_serve(struct call *c, const struct feed_plan *plan)
{
    struct page p = {.c = c, .plan = plan};
    if (!feed_open(c, plan, plan->limit + 1, &p.cursor)) return;

    struct buf *body = call_body(c);
    deed_status status = DEED_OK;
    if (!c->x->request.head) status = page_fill(&p, body);
    if (status == DEED_OK) page_put_link(&p);
    cursor_close(p.cursor);
    if (status != DEED_OK) {
        call_fail_with(c, status);
        return;
    }
    call_done(c, 200, plan->content_type);
}

/* ---- feeds: made while they are sent ----------------------------------------------------------
 */

struct feed {
    struct api_source source;
    struct api *api;
    enum feed_format format;
    unsigned flags;
    bool follow, is_stream;
    struct deed_cursor *cursor;
    uint64_t after;            /* of FEED_LOG */
    uint64_t left;             /* events that may still go out */
    uint64_t count;            /* that went out */
    uint64_t sent_ns;          /* when anything went out last */
    struct buf head;           /* what the handler made */
    struct deed_event pending; /* did not fit behind what is in the slice */
    bool has_pending;
    deed_status status; /* (3) */
    struct deed_error err;
};

static bool api_is_ready(const struct api *api)
{
    return api->parts.ready == NULL || api->parts.ready(api->parts.context);
}

static void sse_put_id(struct feed *f, struct buf *out, enum token_kind kind, uint64_t value)
{
    char token[TOKEN_SIZE_MAX];
    size_t size = token_format(f->api, kind, value, token);
    buf_add(out, "id: ", 4);
    buf_add(out, token, size);
    buf_add_byte(out, '\n');
}

static void event_put(struct feed *f, struct buf *out, const struct deed_event *event)
{
    if (f->format == FEED_LINES) {
        cloudevent_write(out, &f->api->source, event, f->flags);
        buf_add_byte(out, '\n');
        return;
    }
    if (f->is_stream) {
        sse_put_id(f, out, TOKEN_REVISION, event_revision_read(event));
    } else {
        sse_put_id(f, out, TOKEN_POSITION, event->position);
    }
    buf_add(out, "data: ", 6);
    cloudevent_write(out, &f->api->source, event, f->flags);
    buf_add(out, "\n\n", 2);
}

/* (1): what does not fit waits for the next slice; alone in its slice it never will. */
static bool event_add(struct feed *f, struct buf *out, size_t slice_start,
                      const struct deed_event *event)
{
    size_t start = out->len;
    event_put(f, out, event);
    if (buf_ok(out)) {
        f->has_pending = false;
        f->count++;
        f->left--;
        return true;
    }
    out->len = start;
    if (start > slice_start) {
        out->failed = false;
        f->pending = *event;
        f->has_pending = true;
    } else {
        f->status = deed_fail(&f->err, DEED_TOO_LARGE,
                              "event at position %llu does not fit into the server's buffer",
                              (unsigned long long)event->position);
    }
    return false;
}

static void feed_failed(struct feed *f, struct buf *out, deed_status status)
{
    f->status = status;
    if (f->format != FEED_SSE) return;
    struct json_writer w;
    buf_add_str(out, DEED_STR("event: error\ndata: "));
    json_writer_init(&w, out);
    json_object_begin(&w);
    json_member_text(&w, "title", deed_str_of(deed_status_text(status)));
    json_member_text(&w, "detail", deed_str_of(f->err.message));
    if (f->err.position != DEED_NONE) json_member_uint(&w, "position", f->err.position);
    json_object_end(&w);
    buf_add(out, "\n\n", 2);
}

/* Nothing new: keep the connection warm, and the client's place in the log up to date. */
static enum api_pull feed_idle(struct feed *f, struct buf *out)
{
    uint64_t silent_ms = (now_ns(f->api) - f->sent_ns) / 1000000;
    f->source.wait_ms = KEEPALIVE_MS;
    if (f->format != FEED_SSE) return API_WAIT;
    if (silent_ms < KEEPALIVE_MS) {
        f->source.wait_ms = (uint32_t)(KEEPALIVE_MS - silent_ms);
        return API_WAIT;
    }
    if (!f->is_stream && cursor_position(f->cursor) > 0) {
        sse_put_id(f, out, TOKEN_POSITION, cursor_position(f->cursor));
    }
    buf_add_str(out, DEED_STR(": keepalive\n\n"));
    return API_MORE;
}

/* The next event, or the next commits of a log feed. */
static deed_status feed_step(struct feed *f, struct buf *out, size_t slice_start, size_t wanted)
{
    if (f->format == FEED_LOG) {
        size_t start = out->len;
        deed_status status =
            store_read_commits(f->api->parts.store, f->after, wanted, out, &f->after, &f->err);
        if (status == DEED_OK && !buf_ok(out)) {
            out->len = start;
            return deed_fail(&f->err, DEED_TOO_LARGE,
                             "the commit after position %llu does not fit into the server's buffer",
                             (unsigned long long)f->after);
        }
        f->count += status == DEED_OK;
        return status;
    }
    struct deed_event event = f->pending;
    if (!f->has_pending) {
        deed_status status = cursor_next(f->cursor, &event, &f->err);
        if (status != DEED_OK) return status;
    }
    (void)event_add(f, out, slice_start, &event);
    return f->status;
}

static enum api_pull feed_slice(struct feed *f, struct buf *out, size_t wanted, bool brief)
{
    size_t start = out->len;
    uint64_t count_end = brief ? f->count + BRIEF_EVENTS_MAX : UINT64_MAX;
    if (brief && wanted > BRIEF_SIZE) wanted = BRIEF_SIZE;
    uint64_t begun_ns = now_ns(f->api);
    for (;;) {
        if (f->left == 0) return API_END;
        bool look = f->count % CLOCK_EVENTS == 0;
        if (out->len - start >= wanted || f->count >= count_end ||
            (look && now_ns(f->api) - begun_ns > SLICE_TIME_NS)) {
            return API_MORE; /* (2) */
        }
        deed_status status = feed_step(f, out, start, wanted);
        if (status == DEED_OK) {
            if (f->has_pending) return API_MORE;
            continue;
        }
        if (status != DEED_END) {
            if (os_haste_refused()) return out->len > start ? API_MORE : API_LATER; /* (4) */
            feed_failed(f, out, status);
            return out->len > start ? API_MORE : API_FAILED; /* (3) */
        }
        if (!f->follow || !api_is_ready(f->api)) return API_END;
        return out->len > start ? API_MORE : feed_idle(f, out);
    }
}

static enum api_pull feed_pull(struct api_source *source, struct buf *out, size_t size_wanted)
{
    struct feed *f = (struct feed *)source; /* its first member */
    size_t start = out->len;
    enum api_pull answer;
    if (f->head.len > 0) {
        buf_add(out, f->head.ptr, f->head.len);
        buf_done(&f->head);
        answer = API_MORE;
    } else if (f->status != DEED_OK) {
        answer = API_FAILED; /* (3) */
    } else {
        answer = feed_slice(f, out, size_wanted, false);
    }
    if (!buf_ok(out)) answer = API_FAILED;
    if (out->len > start) f->sent_ns = now_ns(f->api);
    return answer;
}

/* Whoever follows and has all but the newest events gets them at once. */
static enum api_pull feed_glance(struct api_source *source, struct buf *out, size_t size_wanted)
{
    struct feed *f = (struct feed *)source;
    size_t start = out->len;
    uint64_t seen = f->format == FEED_LOG ? f->after : cursor_position(f->cursor);
    uint64_t end = store_position(f->api->parts.store);
    bool near = end <= seen || end - seen <= BRIEF_EVENTS_MAX;
    if (f->head.len > 0) return feed_pull(source, out, size_wanted);
    if (!f->follow || !near || f->status != DEED_OK) return API_LATER;

    os_haste_begin(BRIEF_READ_SIZE);
    enum api_pull answer = feed_slice(f, out, size_wanted, true);
    (void)os_haste_end();
    if (!buf_ok(out)) answer = API_FAILED;
    if (out->len > start) f->sent_ns = now_ns(f->api);
    return answer;
}

static void feed_close(struct api_source *source)
{
    struct feed *f = (struct feed *)source;
    cursor_close(f->cursor);
    f->cursor = NULL;
    buf_done(&f->head);
}

static struct feed *feed_create(struct call *c, const struct feed_plan *plan)
{
    struct feed *f = arena_alloc(c->arena, sizeof *f);
    if (f == NULL) return NULL;
    *f = (struct feed){
        .source = {.pull = feed_pull,
                   .close = feed_close,
                   .wait_ms = KEEPALIVE_MS,
                   .glance = feed_glance},
        .api = c->api,
        .format = plan->format,
        .flags = CLOUDEVENT_STORED | CLOUDEVENT_LINE | (plan->exact ? CLOUDEVENT_EXACT : 0),
        .follow = plan->read.follow,
        .is_stream = plan->read.stream.ptr != NULL,
        .after = plan->read.after_position,
        .left = plan->limit,
        .sent_ns = now_ns(c->api),
    };
    return f;
}

/* Hand what the first slice made to the source, and the source to the response. */
static void feed_hand_over(struct call *c, struct feed *f)
{
    struct buf *body = &c->x->response.body;
    f->head = *body;
    *body = (struct buf){.size_max = f->head.size_max};
    f->sent_ns = now_ns(f->api);
    c->x->response.source = &f->source;
}

void feed_serve(struct call *c, const struct feed_plan *plan)
{
    if (plan->format == FEED_PAGE) {
        page_serve(c, plan);
        return;
    }
    struct feed *f = feed_create(c, plan);
    if (f == NULL) {
        call_fail_with(c, deed_fail(&c->err, DEED_NO_MEMORY, "no memory left for the feed"));
        return;
    }
    uint64_t count_max = plan->limit == DEED_NONE ? 0 : plan->limit;
    if (plan->format != FEED_LOG && !feed_open(c, plan, count_max, &f->cursor)) return;

    struct buf *body = call_body(c);
    enum api_pull answer = API_END;
    if (!c->x->request.head) {
        if (plan->format == FEED_SSE) buf_add_str(body, DEED_STR("retry: 2000\n\n"));
        answer = feed_slice(f, body, FIRST_SLICE_SIZE, c->brief);
    }
    if (f->status != DEED_OK && f->count == 0) {
        c->err = f->err;
        feed_close(&f->source);
        call_fail_with(c, f->status);
        return;
    }
    if (answer == API_END) {
        feed_close(&f->source);
    } else {
        feed_hand_over(c, f);
    }
    call_done(c, 200, plan->content_type);
}
