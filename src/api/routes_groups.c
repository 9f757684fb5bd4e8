/* routes_groups.c - consumer groups over HTTP: their care, and taking and answering messages.
 *
 *   take     one request waits until there is something, and is answered with an array
 *   events   Server-Sent Events: messages as they come
 *   ack, nack   by the messages' ids, from the consumer that has them
 *
 * (1) Who takes names itself (`consumer`), so that its next request is known to be its own; those that
 *     do not are one consumer together.
 * (2) A request that goes away while it waits wants nothing any more; what it was given and could not be
 *     sent comes again after the message timeout. */
#include "api/group_sessions.h"
#include "api/reply.h"
#include "base/uuid.h"
#include "groups/groups.h"

#define LIMIT_MAX      1000
#define LIMIT_DEFAULT  100
#define BUFFER_DEFAULT 100
#define WAIT_MS_MAX    60000u
#define TAKE_MAX       16
#define PAGE_SIZE      ((size_t)8 << 20)
#define KEEPALIVE_MS   15000u
#define IDS_MAX        10000

/* ---- what is asked for ----------------------------------------------------------------------- */

static struct groups *groups_of(struct call *c)
{
    if (c->api->parts.groups == NULL) {
        call_wrong(c, DEED_NOT_FOUND, "consumer groups are not served here");
    }
    return c->api->parts.groups;
}

/* false: the call has ended. */
static bool good(struct call *c, deed_status status)
{
    if (c->status != DEED_OK) {
        call_fail(c);
    } else if (status != DEED_OK) {
        call_fail_with(c, status);
    } else {
        return true;
    }
    return false;
}

/* The body: what is not said is as usual; an empty one says nothing. */
static void read_settings(struct call *c, struct group_settings *out)
{
    json_value root = {0};
    (void)call_content_type(c);
    group_settings_default(out);
    out->start = GROUP_FROM_START;
    deed_bytes body = c->x->request.body;
    if (c->status != DEED_OK || body.len == 0) return;
    c->status = json_parse(c->arena, body, 0, &root, &c->err);
    if (c->status != DEED_OK) return;
    if (json_kind_of(root) != JSON_OBJECT) {
        call_wrong(c, DEED_INVALID, "the body must be a JSON object, it is %s",
                   json_kind_name(json_kind_of(root)));
    }
    for (struct json_iterator i = json_iterate(root); c->status == DEED_OK && json_next(&i);) {
        enum group_member member = group_settings_set(out, i.key, i.value);
        if (member == GROUP_MEMBER_UNKNOWN) {
            call_wrong(c, DEED_INVALID, "member \"%.*s\" is not known", DEED_FMT(i.key));
        } else if (member == GROUP_MEMBER_WRONG) {
            call_wrong(c, DEED_INVALID, "member \"%.*s\" cannot be %.*s", DEED_FMT(i.key),
                       json_raw(i.value).len > 60 ? 60 : (int)json_raw(i.value).len,
                       json_raw(i.value).ptr);
        }
    }
}

/* ---- telling ---------------------------------------------------------------------------------- */

static void put_number(struct json_writer *w, const char *key, uint64_t value)
{
    if (value == DEED_NONE) {
        json_key(w, deed_str_of(key));
        json_put_null(w);
    } else {
        json_member_uint(w, key, value);
    }
}

static void put_settings(struct json_writer *w, const struct group_settings *s)
{
    json_object_begin(w);
    group_settings_put(s, w);
    json_object_end(w);
}

static void put_consumers(struct json_writer *w, const struct group_info *info)
{
    json_key(w, DEED_STR("consumers"));
    json_array_begin(w);
    for (size_t i = 0; i < info->consumer_count; i++) {
        const struct group_consumer_info *one = &info->consumers[i];
        json_object_begin(w);
        json_member_text(w, "name", one->name);
        json_member_text(w, "from", one->from);
        json_member_uint(w, "delivered", one->total);
        json_member_uint(w, "per_second", one->per_second);
        json_member_uint(w, "in_flight", one->in_flight);
        json_member_uint(w, "free", one->free_slots);
        if (one->measured_count > 0) {
            json_key(w, DEED_STR("milliseconds"));
            json_object_begin(w);
            for (size_t k = 0; k < one->measured_count; k++) {
                json_member_int(w, one->measured[k].key, one->measured[k].value);
            }
            json_object_end(w);
        }
        json_object_end(w);
    }
    json_array_end(w);
}

static void put_info(struct json_writer *w, const struct group_info *info)
{
    json_object_begin(w);
    json_member_text(w, "source", info->source);
    json_member_text(w, "group", info->name);
    json_member_text(w, "state", info->trouble.len > 0 ? DEED_STR("stopped")
                                 : info->live          ? DEED_STR("live")
                                                       : DEED_STR("behind"));
    json_member_text(w, "error", info->trouble.len > 0 ? info->trouble : (deed_str){0});
    put_number(w, "checkpoint", info->checkpoint);
    put_number(w, "last", info->last_known);
    json_member_uint(w, "delivered", info->total);
    json_member_uint(w, "per_second", info->per_second);
    json_member_uint(w, "waiting", info->waiting_count);
    json_member_uint(w, "retrying", info->retry_count);
    json_member_uint(w, "in_flight", info->in_flight_count);
    json_member_uint(w, "parked", info->parked_count);
    json_member_bool(w, "replaying", info->is_replaying);
    put_consumers(w, info);
    json_key(w, DEED_STR("settings"));
    put_settings(w, &info->settings);
    json_object_end(w);
}

static void answer_list(struct call *c, deed_str source)
{
    struct groups *groups = groups_of(c);
    struct group_info *list = NULL;
    size_t count = 0;
    deed_status status =
        c->status != DEED_OK ? c->status
                             : groups_list(groups, source, c->arena, &list, &count, &c->err);
    if (!good(c, status)) return;
    struct json_writer w;
    json_writer_init(&w, call_body(c));
    json_array_begin(&w);
    for (size_t i = 0; i < count; i++) put_info(&w, &list[i]);
    json_array_end(&w);
    buf_add_byte(&c->x->response.body, '\n');
    call_done(c, 200, "application/json");
}

void groups_list_get(struct call *c)
{
    answer_list(c, (deed_str){0});
}

void groups_source_get(struct call *c)
{
    answer_list(c, c->segments[0]);
}

static void answer_info(struct call *c, int http)
{
    struct group_info info;
    deed_status status = groups_info(c->api->parts.groups, c->segments[0], c->segments[1],
                                     c->arena, &info, &c->err);
    if (!good(c, status)) return;
    struct json_writer w;
    json_writer_init(&w, call_body(c));
    put_info(&w, &info);
    buf_add_byte(&c->x->response.body, '\n');
    call_done(c, http, "application/json");
}

void group_get(struct call *c)
{
    (void)groups_of(c);
    if (good(c, DEED_OK)) answer_info(c, 200);
}

/* ---- care ------------------------------------------------------------------------------------- */

/* Make it as the body says: create it, or change it, or leave it if it is so already. */
void group_put(struct call *c)
{
    struct group_settings settings;
    struct group_info info;
    struct groups *groups = groups_of(c);
    enum deed_expect expect = DEED_EXPECT_ANY;
    uint64_t revision = 0;
    bool conditional = call_if_match(c, &expect, &revision);
    read_settings(c, &settings);
    if (!good(c, DEED_OK)) return;
    deed_str source = c->segments[0];
    deed_str name = c->segments[1];
    deed_status status = groups_create(groups, source, name, &settings, &c->err);
    if (status == DEED_OK) {
        answer_info(c, 201);
        return;
    }
    if (status == DEED_CONFLICT && conditional) status = DEED_STALE;
    if (status == DEED_CONFLICT) {
        status = groups_info(groups, source, name, c->arena, &info, &c->err);
        if (status == DEED_OK && settings.filter.ptr != NULL &&
            !deed_str_equal(settings.filter, info.settings.filter)) {
            status = deed_fail(&c->err, DEED_CONFLICT,
                               "group %.*s has another filter: it cannot be changed",
                               DEED_FMT(name));
        }
        if (status == DEED_OK && !group_settings_same(&settings, &info.settings)) {
            status = groups_update(groups, source, name, &settings, &c->err);
        }
    }
    if (good(c, status)) answer_info(c, 200);
}

void group_delete(struct call *c)
{
    struct groups *groups = groups_of(c);
    if (!good(c, DEED_OK)) return;
    if (good(c, groups_delete(groups, c->segments[0], c->segments[1], &c->err))) {
        buf_add_str(call_body(c), DEED_STR("{\"deleted\":true}\n"));
        call_done(c, 200, "application/json");
    }
}

/* ---- what is parked --------------------------------------------------------------------------- */

struct parked_list {
    struct call *c;
    struct json_writer w;
    uint64_t left;
};

static bool put_parked(void *context, const struct group_parked *p)
{
    struct parked_list *list = context;
    struct json_writer *w = &list->w;
    struct buf event;
    json_object_begin(w);
    json_member_uint(w, "number", p->number);
    json_member_text(w, "stream", p->stream);
    json_member_uint(w, "revision", p->revision);
    json_member_text(w, "reason", p->reason);
    json_member_text(w, "added", p->added);
    json_key(w, DEED_STR("event"));
    buf_init(&event, (size_t)64 << 20);
    if (p->event != NULL) {
        cloudevent_write(&event, &list->c->api->source, p->event,
                         CLOUDEVENT_STORED | CLOUDEVENT_LINE);
    }
    if (event.len > 0 && buf_ok(&event)) {
        json_put_raw(w, buf_bytes(&event));
    } else {
        json_put_null(w);
    }
    buf_done(&event);
    json_object_end(w);
    return --list->left > 0 && list->c->x->response.body.len < PAGE_SIZE;
}

void group_parked_get(struct call *c)
{
    struct groups *groups = groups_of(c);
    struct parked_list list = {.c = c, .left = call_number(c, "limit", 1, LIMIT_MAX, LIMIT_DEFAULT)};
    uint64_t from = call_number(c, "from", 0, INT64_MAX, 0);
    if (!good(c, DEED_OK)) return;
    json_writer_init(&list.w, call_body(c));
    json_array_begin(&list.w);
    deed_status status = groups_parked(groups, c->segments[0], c->segments[1], from, put_parked,
                                       &list, &c->err);
    if (!good(c, status)) return;
    json_array_end(&list.w);
    buf_add_byte(&c->x->response.body, '\n');
    call_done(c, 200, "application/json");
}

static void answer_count(struct call *c, int http, uint64_t count)
{
    struct json_writer w;
    json_writer_init(&w, call_body(c));
    json_object_begin(&w);
    json_member_uint(&w, "count", count);
    json_object_end(&w);
    buf_add_byte(&c->x->response.body, '\n');
    call_done(c, http, "application/json");
}

void group_parked_replay(struct call *c)
{
    struct groups *groups = groups_of(c);
    uint64_t before = call_number(c, "before", 0, INT64_MAX, DEED_NONE);
    uint64_t count = 0;
    if (!good(c, DEED_OK)) return;
    deed_status status =
        groups_replay_parked(groups, c->segments[0], c->segments[1], before, &count, &c->err);
    if (good(c, status)) answer_count(c, 202, count);
}

void group_parked_delete(struct call *c)
{
    struct groups *groups = groups_of(c);
    uint64_t before = call_number(c, "before", 0, INT64_MAX, DEED_NONE);
    uint64_t count = 0;
    if (!good(c, DEED_OK)) return;
    deed_status status =
        groups_drop_parked(groups, c->segments[0], c->segments[1], before, &count, &c->err);
    if (good(c, status)) answer_count(c, 200, count);
}

/* ---- taking ------------------------------------------------------------------------------------ */

static void put_message(struct api *api, struct buf *out, const struct group_message *m)
{
    char id[UUID_TEXT_SIZE + 1];
    uuid_format(m->id, id);
    buf_printf(out, "{\"id\":\"%s\",\"retry_count\":%u,\"event\":", id, m->retry_count);
    if (m->event == NULL) {
        buf_add_str(out, DEED_STR("null"));
    } else {
        cloudevent_write(out, &api->source, m->event, CLOUDEVENT_STORED | CLOUDEVENT_LINE);
    }
    if (m->link != NULL) {
        struct json_writer w;
        buf_add_str(out, DEED_STR(",\"link\":"));
        json_writer_init(&w, out);
        json_object_begin(&w);
        json_member_text(&w, "stream", m->link->stream);
        json_member_uint(&w, "revision", m->link->revision);
        json_object_end(&w);
    }
    buf_add_byte(out, '}');
}

/* One that waits for messages: an array's (ends with the first), or Server-Sent Events'. */
struct taking {
    struct api_source source;
    struct api *api;
    struct group_session *session; /* of an array; NULL: the consumer is the connection's own */
    struct group_consumer *consumer;
    bool gone; /* it was dropped */
    uint64_t limit;
    uint64_t until_ns, sent_ns; /* ticks */
    struct deed_error err;
};

static uint64_t now_ns(const struct taking *t)
{
    return os_ticks_ns(store_os(t->api->parts.store));
}

static void taking_close(struct api_source *source)
{
    struct taking *t = (struct taking *)source; /* its first member */
    if (t->session != NULL) {
        groups_want(t->consumer, 0); /* (2) */
        group_session_give_back(t->api->sessions, t->session, t->gone);
    } else {
        groups_leave(t->consumer);
    }
    t->session = NULL;
    t->consumer = NULL;
}

static bool is_ready(const struct api *api)
{
    return api->parts.ready == NULL || api->parts.ready(api->parts.context);
}

/* Take what there is into `out`, each between two texts; answers how many. */
static size_t take_into(struct taking *t, struct buf *out, size_t wanted, const char *before,
                        const char *between, const char *after)
{
    size_t done = 0;
    size_t begin = out->len;
    while (done < t->limit && out->len - begin < wanted && !t->gone) {
        struct group_message messages[TAKE_MAX];
        size_t count = 0;
        size_t most = t->limit - done < TAKE_MAX ? (size_t)(t->limit - done) : TAKE_MAX;
        size_t room = wanted - (out->len - begin);
        t->gone = groups_take(t->consumer, messages, most, room, &count, &t->err) != DEED_OK;
        for (size_t i = 0; i < count; i++) {
            buf_add_str(out, deed_str_of(done == 0 ? before : between));
            put_message(t->api, out, &messages[i]);
            buf_add_str(out, deed_str_of(after));
            group_message_done(&messages[i]);
            done++;
        }
        if (count == 0) break;
    }
    return done;
}

static enum api_pull array_pull(struct api_source *source, struct buf *out, size_t wanted)
{
    struct taking *t = (struct taking *)source;
    groups_want(t->consumer, (size_t)t->limit);
    size_t done = take_into(t, out, wanted < PAGE_SIZE ? PAGE_SIZE : wanted, "[", ",\n", "");
    uint64_t now = now_ns(t);
    if (done > 0) {
        buf_add_str(out, DEED_STR("]\n"));
        return API_END;
    }
    if (t->gone || now >= t->until_ns || !is_ready(t->api)) {
        buf_add_str(out, DEED_STR("[]\n"));
        return API_END;
    }
    uint64_t left_ms = (t->until_ns - now) / 1000000 + 1;
    t->source.wait_ms = left_ms > 1000 ? 1000 : (uint32_t)left_ms;
    return API_WAIT;
}

static enum api_pull events_pull(struct api_source *source, struct buf *out, size_t wanted)
{
    struct taking *t = (struct taking *)source;
    size_t done = take_into(t, out, wanted, "data: ", "data: ", "\n\n");
    if (done > 0) {
        t->sent_ns = now_ns(t);
        return API_MORE;
    }
    if (!is_ready(t->api)) return API_END;
    if (t->gone) {
        buf_add_str(out, DEED_STR("event: dropped\ndata: "));
        struct json_writer w;
        json_writer_init(&w, out);
        json_object_begin(&w);
        json_member_text(&w, "detail", deed_str_of(t->err.message));
        json_object_end(&w);
        buf_add_str(out, DEED_STR("\n\n"));
        return API_END;
    }
    t->source.wait_ms = 1000;
    if (now_ns(t) - t->sent_ns < (uint64_t)KEEPALIVE_MS * 1000000) return API_WAIT;
    t->sent_ns = now_ns(t);
    buf_add_str(out, DEED_STR(": keepalive\n\n"));
    return API_MORE;
}

static struct taking *taking_create(struct call *c)
{
    struct taking *t = arena_alloc(c->arena, sizeof *t);
    if (t == NULL) {
        call_wrong(c, DEED_NO_MEMORY, "no memory left to wait with");
        return NULL;
    }
    t->api = c->api;
    t->source.close = taking_close;
    t->sent_ns = now_ns(t);
    return t;
}

void group_take(struct call *c)
{
    (void)groups_of(c);
    deed_str consumer = call_text(c, "consumer");
    uint64_t limit = call_number(c, "limit", 1, LIMIT_MAX, LIMIT_DEFAULT);
    uint32_t wait_ms = call_duration_ms(c, "timeout", WAIT_MS_MAX, 0);
    struct taking *t = c->status == DEED_OK ? taking_create(c) : NULL;
    if (!good(c, DEED_OK)) return;
    deed_status status = group_session_get(c->api->sessions, c->segments[0], c->segments[1],
                                           consumer, c->x->request.peer, &t->session, &c->err);
    if (!good(c, status)) return;
    t->consumer = group_session_consumer(t->session);
    t->limit = limit;
    t->source.pull = array_pull;
    t->until_ns = now_ns(t) + (uint64_t)wait_ms * 1000000;
    c->x->response.source = &t->source;
    call_done(c, 200, "application/json");
}

void group_events(struct call *c)
{
    struct groups *groups = groups_of(c);
    deed_str consumer = call_text(c, "consumer");
    uint64_t buffer = call_number(c, "buffer", 1, GROUP_SESSION_BUFFER, BUFFER_DEFAULT);
    struct taking *t = c->status == DEED_OK ? taking_create(c) : NULL;
    if (!good(c, DEED_OK)) return;
    struct group_consumer_options options = {.buffer_size = (uint32_t)buffer,
                                             .wake = c->api->parts.nudge,
                                             .context = c->api->parts.context,
                                             .from = c->x->request.peer,
                                             .name = consumer};
    deed_status status =
        groups_join(groups, c->segments[0], c->segments[1], &options, &t->consumer, &c->err);
    if (!good(c, status)) return;
    t->limit = DEED_NONE;
    t->source.pull = events_pull;
    c->x->response.source = &t->source;
    call_done(c, 200, "text/event-stream");
}

/* ---- answering -------------------------------------------------------------------------------- */

/* {"ids": […], "action": …, "reason": …} */
static size_t read_ids(struct call *c, bool is_nack, const deed_uuid **out_ids,
                       enum group_nack *out_action, deed_str *out_reason)
{
    json_value root = {0};
    *out_action = GROUP_NACK_RETRY;
    *out_reason = (deed_str){"", 0};
    (void)call_content_type(c);
    if (c->status == DEED_OK) {
        c->status = json_parse(c->arena, c->x->request.body, 0, &root, &c->err);
    }
    json_value list = json_get(root, DEED_STR("ids"));
    size_t count = json_count(list);
    if (json_kind_of(list) != JSON_ARRAY || count > IDS_MAX) {
        call_wrong(c, DEED_INVALID, "\"ids\" must be a list of at most %d ids", IDS_MAX);
        return 0;
    }
    deed_uuid *ids = arena_alloc_array(c->arena, count, sizeof *ids);
    if (ids == NULL) call_wrong(c, DEED_NO_MEMORY, "no memory left for the ids");
    for (struct json_iterator i = json_iterate(list); c->status == DEED_OK && json_next(&i);) {
        if (!uuid_parse(json_text(i.value), &ids[i.index])) {
            call_wrong(c, DEED_INVALID, "\"ids\": element %zu is no id", i.index);
        }
    }
    *out_ids = ids;
    if (!is_nack) return count;
    deed_str action = json_text(json_get(root, DEED_STR("action")));
    deed_str reason = json_text(json_get(root, DEED_STR("reason")));
    if (deed_str_equal(action, DEED_STR("park"))) {
        *out_action = GROUP_NACK_PARK;
    } else if (deed_str_equal(action, DEED_STR("skip"))) {
        *out_action = GROUP_NACK_SKIP;
    } else if (action.ptr != NULL && !deed_str_equal(action, DEED_STR("retry"))) {
        call_wrong(c, DEED_INVALID, "\"action\" must be retry, park or skip");
    }
    if (reason.ptr != NULL) *out_reason = reason;
    return count;
}

/* From whoever has them: the named consumer's session, or the connections that are named so. */
static void answer_ids(struct call *c, bool is_nack)
{
    const deed_uuid *ids = NULL;
    enum group_nack action;
    deed_str reason;
    struct groups *groups = groups_of(c);
    deed_str consumer = call_text(c, "consumer");
    size_t count = read_ids(c, is_nack, &ids, &action, &reason);
    if (!good(c, DEED_OK)) return;
    size_t done = 0;
    deed_status status =
        is_nack ? groups_nack_by_name(groups, c->segments[0], c->segments[1], consumer, ids, count,
                                      action, reason, &done, &c->err)
                : groups_ack_by_name(groups, c->segments[0], c->segments[1], consumer, ids, count,
                                     &done, &c->err);
    if (good(c, status)) answer_count(c, 200, done);
}

void group_ack(struct call *c)
{
    answer_ids(c, false);
}

void group_nack_post(struct call *c)
{
    answer_ids(c, true);
}
