/* grpc_groups.c - PersistentSubscriptions: consumer groups as KurrentDB's clients know them.
 *
 *   care   one message ─► kept ─► pull on a pool's thread: waits for the log, answers, ends
 *   Read   options ─► join ─► confirmation ─► events, as the client takes them
 *                      ack, nack ─┘
 *
 * (1) Care waits for the disk, so it runs where that is allowed: a pull in haste puts it off.
 * (2) A consumer is a call's: it leaves when the call closes, for whatever reason. It is handed from
 *     message to pull, which may run on different threads, by one atomic pointer, set once.
 * (3) What is taken is put into the answer at once. So an event is with the client, or in what is sent to
 *     it, or in the group; and the group's allowance bounds how much that is. */
#include "api/call.h"
#include "api/grpc.h"
#include "api/grpc_event.h"
#include "base/text.h"
#include "grpc/pb.h"
#include "groups/groups.h"
#include "proto/persistent_subscriptions.pb-c.h"

#define SERVICE "event_store.client.persistent_subscriptions.PersistentSubscriptions"

#define EP(name) EventStore__Client__PersistentSubscriptions__##name
#define EP_CASE(name) EVENT_STORE__CLIENT__PERSISTENT_SUBSCRIPTIONS__##name
typedef EP(CreateReq__Options) options_message;
typedef EP(CreateReq__Settings) settings_message;
typedef EP(CreateReq__AllOptions__FilterOptions) filter_message;
typedef EP(ReplayParkedReq__Options) parked_message;
typedef EP(SubscriptionInfo) info_message;
typedef EP(SubscriptionInfo__ConnectionInfo) connection_message;
typedef EP(SubscriptionInfo__Measurement) measurement_message;
typedef EventStore__Client__StreamIdentifier identifier_message;

#define TYPE_OF(name) &event_store__client__persistent_subscriptions__##name##__descriptor

/* What clients know the failures by. */
#define NOT_THERE "persistent-subscription-does-not-exist"
#define FAILED    "persistent-subscription-failed"

static deed_str identifier(const identifier_message *id)
{
    if (id == NULL || id->stream_name.len == 0) return (deed_str){"", 0};
    return (deed_str){(const char *)id->stream_name.data, id->stream_name.len};
}

static deed_str source_of(bool all, const identifier_message *id)
{
    return all ? DEED_STR(GROUPS_ALL) : identifier(id);
}

static deed_str text(const char *s)
{
    return deed_str_of(s == NULL ? "" : s);
}

/* ---- failures ------------------------------------------------------------------------------- */

static void name_trailers(struct rpc *rpc, deed_str source, deed_str name)
{
    rpc_trailer(rpc, "stream-name", source);
    rpc_trailer(rpc, "group-name", name);
}

static void fail_not_there(struct rpc *rpc, deed_str source, deed_str name)
{
    name_trailers(rpc, source, name);
    rpc_fail(rpc, GRPC_NOT_FOUND, NOT_THERE,
             "Subscription group %.*s on stream %.*s does not exist.", DEED_FMT(name),
             DEED_FMT(source));
}

static void fail_reason(struct rpc *rpc, deed_str source, deed_str name, const char *reason)
{
    name_trailers(rpc, source, name);
    rpc_trailer(rpc, "reason", deed_str_of(reason));
    rpc_fail(rpc, GRPC_INTERNAL, FAILED, "Subscription group %.*s on stream %.*s failed: '%s'",
             DEED_FMT(name), DEED_FMT(source), reason);
}

static void fail_status(struct rpc *rpc, deed_str source, deed_str name,
                        const struct deed_error *err)
{
    switch (err->status) {
    case DEED_NOT_FOUND:
        fail_not_there(rpc, source, name);
        break;
    case DEED_CONFLICT:
        name_trailers(rpc, source, name);
        rpc_fail(rpc, GRPC_ALREADY_EXISTS, "persistent-subscription-exists",
                 "Subscription group %.*s on stream %.*s exists.", DEED_FMT(name),
                 DEED_FMT(source));
        break;
    case DEED_INVALID:
    case DEED_TOO_LARGE:
    case DEED_BUSY:
        fail_reason(rpc, source, name, err->message);
        break;
    default:
        rpc_fail_status(rpc, err);
        break;
    }
}

/* ---- settings --------------------------------------------------------------------------------- */

static uint32_t count_of(int32_t value, const char *what, const char **out_wrong)
{
    if (value < 0) *out_wrong = what;
    return value < 0 ? 0 : (uint32_t)value;
}

static uint32_t ms_of_ticks(int64_t ticks, const char *what, const char **out_wrong)
{
    int64_t ms = ticks / 10000;
    if (ticks < 0) *out_wrong = what;
    if (ms > INT32_MAX) ms = INT32_MAX;
    return ticks < 0 ? 0 : (uint32_t)ms;
}

static bool set_strategy(const settings_message *m, struct group_settings *out)
{
    static const enum group_strategy old[] = {GROUP_DISPATCH_TO_SINGLE, GROUP_ROUND_ROBIN,
                                              GROUP_PINNED};
    deed_str name = text(m->consumer_strategy);
    if (name.len > 0) return group_strategy_parse(name, &out->strategy);
    unsigned number = (unsigned)m->named_consumer_strategy;
    if (number >= sizeof old / sizeof old[0]) return false;
    out->strategy = old[number];
    return true;
}

/* NULL: good; else what is wrong. */
static const char *settings_of(const settings_message *m, struct group_settings *out)
{
    const char *wrong = NULL;
    if (!set_strategy(m, out)) return "consumer strategy is not known";
    out->resolve_links = m->resolve_links;
    out->extra_statistics = m->extra_statistics;
    /* Fewer than none: however often. */
    out->retry_count_max = m->max_retry_count < 0 ? UINT32_MAX : (uint32_t)m->max_retry_count;
    out->checkpoint_count_min =
        count_of(m->min_checkpoint_count, "minimum checkpoint count is negative", &wrong);
    out->checkpoint_count_max =
        count_of(m->max_checkpoint_count, "maximum checkpoint count is negative", &wrong);
    out->consumer_count_max =
        count_of(m->max_subscriber_count, "maximum subscriber count is negative", &wrong);
    out->live_buffer_size = count_of(m->live_buffer_size, "live buffer size is negative", &wrong);
    out->history_buffer_size =
        count_of(m->history_buffer_size, "history buffer size is negative", &wrong);
    out->read_batch_size = count_of(m->read_batch_size, "read batch size is negative", &wrong);
    bool ticks = m->message_timeout_case ==
                 EP_CASE(CREATE_REQ__SETTINGS__MESSAGE_TIMEOUT_MESSAGE_TIMEOUT_TICKS);
    out->message_timeout_ms =
        ticks ? ms_of_ticks(m->message_timeout_ticks, "message timeout is negative", &wrong)
              : count_of(m->message_timeout_ms, "message timeout is negative", &wrong);
    ticks = m->checkpoint_after_case ==
            EP_CASE(CREATE_REQ__SETTINGS__CHECKPOINT_AFTER_CHECKPOINT_AFTER_TICKS);
    out->checkpoint_after_ms =
        ticks ? ms_of_ticks(m->checkpoint_after_ticks, "checkpoint time is negative", &wrong)
              : count_of(m->checkpoint_after_ms, "checkpoint time is negative", &wrong);
    return wrong;
}

static void set_from(struct group_settings *out, uint64_t from)
{
    out->start = from > INT64_MAX ? GROUP_FROM_END : GROUP_FROM;
    out->from = from;
}

/* {"system":true,"match":{…}}: as groups.h and group_match.h have it. */
static deed_str filter_of(struct arena *arena, const filter_message *m)
{
    struct buf buf;
    struct json_writer w;
    bool by_type = m->filter_case ==
                   EP_CASE(CREATE_REQ__ALL_OPTIONS__FILTER_OPTIONS__FILTER_EVENT_TYPE);
    const EP(CreateReq__AllOptions__FilterOptions__Expression) *e =
        by_type ? m->event_type : m->stream_identifier;
    buf_init(&buf, (size_t)1 << 20);
    json_writer_init(&w, &buf);
    json_object_begin(&w);
    json_member_bool(&w, "system", true);
    json_key(&w, DEED_STR("match"));
    json_object_begin(&w);
    json_member_text(&w, "of", by_type ? DEED_STR("type") : DEED_STR("stream"));
    if (text(e->regex).len > 0) {
        json_member_text(&w, "regex", text(e->regex));
    } else {
        json_key(&w, DEED_STR("prefix"));
        json_array_begin(&w);
        for (size_t i = 0; i < e->n_prefix; i++) json_put_text(&w, text(e->prefix[i]));
        json_array_end(&w);
    }
    json_object_end(&w);
    json_object_end(&w);
    deed_str json = buf_ok(&buf) ? arena_str(arena, buf_str(&buf)) : (deed_str){0};
    buf_done(&buf);
    return json;
}

static const char *set_all(struct arena *arena, const EP(CreateReq__AllOptions) *all,
                           struct group_settings *out)
{
    out->filter = DEED_STR("{\"system\":true}");
    switch (all->all_option_case) {
    case EP_CASE(CREATE_REQ__ALL_OPTIONS__ALL_OPTION_POSITION):
        set_from(out, all->position->commit_position);
        if (all->position->prepare_position > all->position->commit_position) {
            return "start position: prepare is behind commit";
        }
        break;
    case EP_CASE(CREATE_REQ__ALL_OPTIONS__ALL_OPTION_END):
        out->start = GROUP_FROM_END;
        break;
    default:
        out->start = GROUP_FROM_START;
        break;
    }
    bool filtered = all->filter_option_case ==
                    EP_CASE(CREATE_REQ__ALL_OPTIONS__FILTER_OPTION_FILTER);
    if (!filtered) return NULL;
    if (all->filter->stream_identifier == NULL) return "filter: neither stream nor type";
    out->filter = filter_of(arena, all->filter);
    return out->filter.ptr == NULL ? "filter: out of memory, or it is too long" : NULL;
}

static const char *set_stream(const options_message *o, deed_str *out_source,
                              struct group_settings *out)
{
    const EP(CreateReq__StreamOptions) *stream = o->stream;
    switch (stream->revision_option_case) {
    case EP_CASE(CREATE_REQ__STREAM_OPTIONS__REVISION_OPTION_REVISION):
        set_from(out, stream->revision);
        break;
    case EP_CASE(CREATE_REQ__STREAM_OPTIONS__REVISION_OPTION_END):
        out->start = GROUP_FROM_END;
        break;
    default:
        out->start = GROUP_FROM_START;
        break;
    }
    *out_source = identifier(stream->stream_identifier);
    return NULL;
}

/* Of Create and Update. NULL: good. */
static const char *options_of(struct arena *arena, const options_message *o, deed_str *out_source,
                              struct group_settings *out)
{
    group_settings_default(out);
    const char *wrong = settings_of(o->settings, out);
    bool all = o->stream_option_case ==
               EP_CASE(CREATE_REQ__OPTIONS__STREAM_OPTION_ALL);
    bool stream = o->stream_option_case ==
                  EP_CASE(CREATE_REQ__OPTIONS__STREAM_OPTION_STREAM);
    const char *also = NULL;
    if (all) {
        *out_source = DEED_STR(GROUPS_ALL);
        also = set_all(arena, o->all, out);
    } else if (stream) {
        also = set_stream(o, out_source, out);
    } else {
        *out_source = identifier(o->stream_identifier);
        set_from(out, o->settings->revision);
    }
    if (!all && deed_str_equal(*out_source, DEED_STR(GROUPS_ALL))) {
        also = "a group on $all is not made by its stream's name";
    }
    return wrong != NULL ? wrong : also;
}

/* ---- care ------------------------------------------------------------------------------------- */

/* false: the call has failed. */
static bool served(struct rpc *rpc)
{
    if (rpc->api->parts.groups != NULL) return true;
    rpc_fail(rpc, GRPC_UNAVAILABLE, NULL, "consumer groups are not served here");
    return false;
}

/* The message, unpacked into the call's arena, until pull answers it (1). */
static void keep(struct rpc *rpc, deed_bytes message, const ProtobufCMessageDescriptor *type)
{
    struct deed_error err = {0};
    if (!served(rpc)) return;
    rpc->state = grpc_unpack(type, message, rpc->arena, &err);
    if (rpc->state == NULL) rpc_fail_status(rpc, &err);
}

static enum rpc_pull missing(struct rpc *rpc, const char *what)
{
    rpc_fail(rpc, GRPC_INVALID_ARGUMENT, NULL, "required option %s is missing", what);
    return RPC_END;
}

static enum rpc_pull answer(struct rpc *rpc, deed_status status, deed_str source, deed_str name,
                            const struct deed_error *err, const ProtobufCMessage *reply)
{
    if (status != DEED_OK) {
        fail_status(rpc, source, name, err);
        return RPC_END;
    }
    rpc_reply(rpc, reply);
    rpc_end(rpc);
    return RPC_END;
}

static void create_message(struct rpc *rpc, deed_bytes message)
{
    keep(rpc, message, TYPE_OF(create_req));
}

typedef deed_status change_call(struct groups *groups, deed_str source, deed_str name,
                                const struct group_settings *settings, struct deed_error *err);

static enum rpc_pull change(struct rpc *rpc, bool haste, change_call *call,
                            const ProtobufCMessage *reply)
{
    if (haste) return RPC_LATER;
    const EP(CreateReq) *req = rpc->state;
    if (req->options == NULL) return missing(rpc, "options");
    if (req->options->settings == NULL) return missing(rpc, "settings");
    struct group_settings settings;
    struct deed_error err = {0};
    deed_str source = {"", 0};
    deed_str name = text(req->options->group_name);
    const char *wrong = options_of(rpc->arena, req->options, &source, &settings);
    if (wrong != NULL) {
        fail_reason(rpc, source, name, wrong);
        return RPC_END;
    }
    deed_status status = call(rpc->api->parts.groups, source, name, &settings, &err);
    return answer(rpc, status, source, name, &err, reply);
}

static enum rpc_pull create_pull(struct rpc *rpc, struct buf *out, size_t wanted, bool haste)
{
    (void)out, (void)wanted;
    EP(CreateResp) reply = EP_CASE(CREATE_RESP__INIT);
    return change(rpc, haste, groups_create, &reply.base);
}

static enum rpc_pull update_pull(struct rpc *rpc, struct buf *out, size_t wanted, bool haste)
{
    (void)out, (void)wanted;
    EP(UpdateResp) reply = EP_CASE(UPDATE_RESP__INIT);
    return change(rpc, haste, groups_update, &reply.base);
}

static void delete_message(struct rpc *rpc, deed_bytes message)
{
    keep(rpc, message, TYPE_OF(delete_req));
}

static enum rpc_pull delete_pull(struct rpc *rpc, struct buf *out, size_t wanted, bool haste)
{
    (void)out, (void)wanted;
    if (haste) return RPC_LATER;
    const EP(DeleteReq) *req = rpc->state;
    EP(DeleteResp) reply = EP_CASE(DELETE_RESP__INIT);
    if (req->options == NULL) return missing(rpc, "options");
    bool all = req->options->stream_option_case ==
               EP_CASE(DELETE_REQ__OPTIONS__STREAM_OPTION_ALL);
    struct deed_error err = {0};
    deed_str source = source_of(all, req->options->stream_identifier);
    deed_str name = text(req->options->group_name);
    deed_status status = groups_delete(rpc->api->parts.groups, source, name, &err);
    return answer(rpc, status, source, name, &err, &reply.base);
}

/* ---- what is parked --------------------------------------------------------------------------- */

static void parked_message_in(struct rpc *rpc, deed_bytes message)
{
    keep(rpc, message, TYPE_OF(replay_parked_req));
}

typedef deed_status parked_call(struct groups *groups, deed_str source, deed_str name,
                                uint64_t stop_at, uint64_t *out_count, struct deed_error *err);

static enum rpc_pull parked(struct rpc *rpc, bool haste, parked_call *call,
                            const ProtobufCMessage *reply)
{
    if (haste) return RPC_LATER;
    const EP(ReplayParkedReq) *req = rpc->state;
    if (req->options == NULL) return missing(rpc, "options");
    const parked_message *o = req->options;
    bool all = o->stream_option_case ==
               EP_CASE(REPLAY_PARKED_REQ__OPTIONS__STREAM_OPTION_ALL);
    deed_str source = source_of(all, o->stream_identifier);
    deed_str name = text(o->group_name);
    uint64_t stop_at = DEED_NONE;
    switch (o->stop_at_option_case) {
    case EP_CASE(REPLAY_PARKED_REQ__OPTIONS__STOP_AT_OPTION_STOP_AT):
        if (o->stop_at < 0) {
            fail_reason(rpc, source, name, "stop at: it is negative");
            return RPC_END;
        }
        stop_at = (uint64_t)o->stop_at;
        break;
    case EP_CASE(REPLAY_PARKED_REQ__OPTIONS__STOP_AT_OPTION_NO_LIMIT):
        break;
    default:
        return missing(rpc, "stop_at_option");
    }
    struct deed_error err = {0};
    deed_status status = call(rpc->api->parts.groups, source, name, stop_at, NULL, &err);
    return answer(rpc, status, source, name, &err, reply);
}

static enum rpc_pull replay_pull(struct rpc *rpc, struct buf *out, size_t wanted, bool haste)
{
    (void)out, (void)wanted;
    EP(ReplayParkedResp) reply =
        EP_CASE(REPLAY_PARKED_RESP__INIT);
    return parked(rpc, haste, groups_replay_parked, &reply.base);
}

static enum rpc_pull truncate_pull(struct rpc *rpc, struct buf *out, size_t wanted, bool haste)
{
    (void)out, (void)wanted;
    EP(TruncateParkedResp) reply =
        EP_CASE(TRUNCATE_PARKED_RESP__INIT);
    return parked(rpc, haste, groups_drop_parked, &reply.base);
}

/* ---- telling ---------------------------------------------------------------------------------- */

/* What groups_info has put into the call's arena, or a constant: it ends with a NUL, and is only read. */
static char *shown(deed_str s)
{
    return (char *)(uintptr_t)(s.ptr == NULL ? "" : s.ptr);
}

/* A revision, or a position twice. */
static char *shown_number(struct arena *arena, bool is_all, uint64_t number)
{
    if (number == DEED_NONE) return shown(DEED_STR(""));
    unsigned long long n = number;
    return shown(is_all ? arena_printf(arena, "C:%llu/P:%llu", n, n)
                        : arena_printf(arena, "%llu", n));
}

static char *shown_start(struct arena *arena, bool is_all, const struct group_settings *s)
{
    if (s->start == GROUP_FROM_END) {
        return shown(is_all ? DEED_STR("C:-1/P:-1") : DEED_STR("-1"));
    }
    return shown_number(arena, is_all, s->start == GROUP_FROM ? s->from : 0);
}

static int32_t fits(uint64_t value)
{
    return value > INT32_MAX ? INT32_MAX : (int32_t)value;
}

static connection_message *connection_of(struct arena *arena, const struct group_consumer_info *c)
{
    connection_message *m = arena_alloc(arena, sizeof *m);
    if (m == NULL) return NULL;
    event_store__client__persistent_subscriptions__subscription_info__connection_info__init(m);
    m->from = shown(c->from);
    m->username = shown(c->user);
    m->connection_name = shown(c->name);
    m->average_items_per_second = (int32_t)c->per_second;
    m->total_items = (int64_t)c->total;
    m->count_since_last_measurement = (int64_t)c->since_measurement;
    m->available_slots = fits(c->free_slots);
    m->in_flight_messages = fits(c->in_flight);
    m->observed_measurements =
        arena_alloc_array(arena, c->measured_count, sizeof *m->observed_measurements);
    if (m->observed_measurements == NULL) return NULL;
    for (size_t i = 0; i < c->measured_count; i++) {
        measurement_message *one = arena_alloc(arena, sizeof *one);
        if (one == NULL) return NULL;
        event_store__client__persistent_subscriptions__subscription_info__measurement__init(one);
        one->key = shown(deed_str_of(c->measured[i].key));
        one->value = c->measured[i].value;
        m->observed_measurements[m->n_observed_measurements++] = one;
    }
    return m;
}

/* NULL: no memory. */
static info_message *info_of(struct arena *arena, const struct group_info *i)
{
    info_message *m = arena_alloc(arena, sizeof *m);
    if (m == NULL) return NULL;
    event_store__client__persistent_subscriptions__subscription_info__init(m);
    const struct group_settings *s = &i->settings;
    bool all = deed_str_equal(i->source, DEED_STR(GROUPS_ALL));
    m->event_source = shown(i->source);
    m->group_name = shown(i->name);
    m->status = shown(deed_str_of(i->status));
    m->average_per_second = fits(i->per_second);
    m->total_items = (int64_t)i->total;
    m->count_since_last_measurement = (int64_t)i->since_measurement;
    m->last_checkpointed_event_position = shown_number(arena, all, i->checkpoint);
    m->last_known_event_position = shown_number(arena, all, i->last_known);
    m->resolve_link_tos = s->resolve_links;
    m->start_from = shown_start(arena, all, s);
    m->message_timeout_milliseconds = fits(s->message_timeout_ms);
    m->extra_statistics = s->extra_statistics;
    m->max_retry_count = s->retry_count_max == UINT32_MAX ? -1 : fits(s->retry_count_max);
    m->live_buffer_size = fits(s->live_buffer_size);
    m->buffer_size = fits(s->history_buffer_size);
    m->read_batch_size = fits(s->read_batch_size);
    m->check_point_after_milliseconds = fits(s->checkpoint_after_ms);
    m->min_check_point_count = fits(s->checkpoint_count_min);
    m->max_check_point_count = fits(s->checkpoint_count_max);
    m->read_buffer_count = i->live ? 0 : fits(i->waiting_count);
    m->live_buffer_count = i->live ? (int64_t)i->waiting_count : 0;
    m->retry_buffer_count = fits(i->retry_count);
    m->total_in_flight_messages = fits(i->in_flight_count);
    m->outstanding_messages_count = fits(i->in_flight_count);
    m->named_consumer_strategy = shown(deed_str_of(group_strategy_name(s->strategy)));
    m->max_subscriber_count = fits(s->consumer_count_max);
    m->parked_message_count = (int64_t)i->parked_count;
    m->connections = arena_alloc_array(arena, i->consumer_count, sizeof *m->connections);
    for (size_t k = 0; m->connections != NULL && k < i->consumer_count; k++) {
        connection_message *connection = connection_of(arena, &i->consumers[k]);
        if (connection == NULL) return NULL;
        m->connections[m->n_connections++] = connection;
    }
    return m->connections == NULL ? NULL : m;
}

static enum rpc_pull no_memory(struct rpc *rpc)
{
    rpc_fail(rpc, GRPC_RESOURCE_EXHAUSTED, NULL, "out of memory");
    return RPC_END;
}

static void info_message_in(struct rpc *rpc, deed_bytes message)
{
    keep(rpc, message, TYPE_OF(get_info_req));
}

static enum rpc_pull info_pull(struct rpc *rpc, struct buf *out, size_t wanted, bool haste)
{
    (void)out, (void)wanted;
    if (haste) return RPC_LATER;
    const EP(GetInfoReq) *req = rpc->state;
    if (req->options == NULL) return missing(rpc, "options");
    EP(GetInfoResp) reply = EP_CASE(GET_INFO_RESP__INIT);
    bool all = req->options->stream_option_case ==
               EP_CASE(GET_INFO_REQ__OPTIONS__STREAM_OPTION_ALL);
    struct group_info info;
    struct deed_error err = {0};
    deed_str source = source_of(all, req->options->stream_identifier);
    deed_str name = text(req->options->group_name);
    deed_status status =
        groups_info(rpc->api->parts.groups, source, name, rpc->arena, &info, &err);
    if (status == DEED_OK) {
        reply.subscription_info = info_of(rpc->arena, &info);
        if (reply.subscription_info == NULL) return no_memory(rpc);
    }
    return answer(rpc, status, source, name, &err, &reply.base);
}

static void list_message(struct rpc *rpc, deed_bytes message)
{
    keep(rpc, message, TYPE_OF(list_req));
}

static enum rpc_pull list_pull(struct rpc *rpc, struct buf *out, size_t wanted, bool haste)
{
    (void)out, (void)wanted;
    if (haste) return RPC_LATER;
    const EP(ListReq) *req = rpc->state;
    if (req->options == NULL) return missing(rpc, "options");
    EP(ListResp) reply = EP_CASE(LIST_RESP__INIT);
    deed_str source = {0};
    switch (req->options->list_option_case) {
    case EP_CASE(LIST_REQ__OPTIONS__LIST_OPTION_LIST_ALL_SUBSCRIPTIONS):
        break;
    case EP_CASE(LIST_REQ__OPTIONS__LIST_OPTION_LIST_FOR_STREAM): {
        const EP(ListReq__StreamOption) *o = req->options->list_for_stream;
        bool all = o->stream_option_case ==
                   EP_CASE(LIST_REQ__STREAM_OPTION__STREAM_OPTION_ALL);
        source = source_of(all, o->stream);
        break;
    }
    default:
        return missing(rpc, "list_option");
    }
    struct group_info *list = NULL;
    size_t count = 0;
    struct deed_error err = {0};
    deed_status status =
        groups_list(rpc->api->parts.groups, source, rpc->arena, &list, &count, &err);
    if (status == DEED_OK && count == 0 && source.ptr != NULL) {
        fail_not_there(rpc, source, DEED_STR(""));
        return RPC_END;
    }
    if (status == DEED_OK) {
        reply.subscriptions = arena_alloc_array(rpc->arena, count, sizeof *reply.subscriptions);
        if (reply.subscriptions == NULL) return no_memory(rpc);
    }
    for (size_t i = 0; status == DEED_OK && i < count; i++) {
        info_message *info = info_of(rpc->arena, &list[i]);
        if (info == NULL) return no_memory(rpc);
        reply.subscriptions[reply.n_subscriptions++] = info;
    }
    return answer(rpc, status, source, DEED_STR(""), &err, &reply.base);
}

static void restart_message(struct rpc *rpc, deed_bytes message)
{
    keep(rpc, message, &event_store__client__empty__descriptor);
}

static enum rpc_pull restart_pull(struct rpc *rpc, struct buf *out, size_t wanted, bool haste)
{
    (void)out, (void)wanted;
    if (haste) return RPC_LATER;
    EventStore__Client__Empty reply = EVENT_STORE__CLIENT__EMPTY__INIT;
    groups_restart(rpc->api->parts.groups);
    rpc_reply(rpc, &reply.base);
    rpc_end(rpc);
    return RPC_END;
}

/* ---- Read --------------------------------------------------------------------------------------- */

#define TAKE_MAX 32
#define IDS_MAX  64

struct reading {
    _Atomic(struct group_consumer *) consumer; /* (2) */
    deed_str source, name;
    bool structured;
    bool confirmed; /* pull's own */
};

static void consumer_woken(void *context)
{
    rpc_wake(context);
}

static deed_str join_source(const EP(ReadReq__Options) *o)
{
    bool all = o->stream_option_case ==
               EP_CASE(READ_REQ__OPTIONS__STREAM_OPTION_ALL);
    return source_of(all, o->stream_identifier);
}

static void join(struct rpc *rpc, const EP(ReadReq__Options) *o)
{
    struct reading *r = rpc->state;
    struct group_consumer *consumer = NULL;
    struct deed_error err = {0};
    if (o == NULL || o->uuid_option == NULL) {
        (void)missing(rpc, o == NULL ? "options" : "uuid_option");
        return;
    }
    r->structured = o->uuid_option->content_case !=
                    EP_CASE(READ_REQ__OPTIONS__UUIDOPTION__CONTENT_STRING);
    r->source = arena_str(rpc->arena, join_source(o));
    r->name = arena_str(rpc->arena, text(o->group_name));
    if (r->source.ptr == NULL || r->name.ptr == NULL) {
        (void)no_memory(rpc);
        return;
    }
    deed_str name = rpc_header(rpc, "connection-name");
    struct group_consumer_options options = {
        .buffer_size = o->buffer_size < 1 ? 1 : (uint32_t)o->buffer_size,
        .wake = consumer_woken,
        .context = rpc,
        .from = rpc->peer,
        .user = DEED_STR("anonymous"),
        .name = name.ptr == NULL ? DEED_STR("<unknown>") : name};
    deed_status status = groups_join(rpc->api->parts.groups, r->source, r->name, &options,
                                     &consumer, &err);
    if (status == DEED_BUSY) {
        name_trailers(rpc, r->source, r->name);
        rpc_fail(rpc, GRPC_FAILED_PRECONDITION, "maximum-subscribers-reached",
                 "Maximum subscriptions reached for subscription group %.*s on stream %.*s.",
                 DEED_FMT(r->name), DEED_FMT(r->source));
    } else if (status != DEED_OK) {
        fail_status(rpc, r->source, r->name, &err);
    } else {
        atomic_store(&r->consumer, consumer);
    }
}

static void read_begin(struct rpc *rpc)
{
    if (!served(rpc)) return;
    rpc->state = arena_alloc(rpc->arena, sizeof(struct reading));
    if (rpc->state == NULL) (void)no_memory(rpc);
}

static void answer_ids(struct group_consumer *c, const deed_uuid *ids, size_t count, bool is_ack,
                       uint64_t action, deed_str reason)
{
    if (count == 0) return;
    if (is_ack) {
        (void)groups_ack(c, ids, count);
    } else {
        (void)groups_nack(c, ids, count, (enum group_nack)(action > 4 ? 0 : action), reason);
    }
}

/* An Ack or a Nack. A batch of ids at a time; what the action is stands behind them, so it is looked for
 * first. false: malformed. */
static bool take_answers(struct group_consumer *c, deed_bytes message, bool is_ack)
{
    deed_uuid ids[IDS_MAX];
    size_t count = 0;
    uint64_t action = 0;
    deed_str reason = {"", 0};
    struct pb_field f;
    struct pb_reader r = pb_reader_over(message);
    while (!is_ack && pb_next(&r, &f)) {
        if (pb_is(&f, 3, PB_VARINT)) action = f.value;
        if (pb_is(&f, 4, PB_BYTES)) reason = pb_str(&f);
    }
    r = pb_reader_over(message);
    while (pb_next(&r, &f)) {
        if (!pb_is(&f, 2, PB_BYTES)) continue;
        if (!grpc_parse_uuid(f.bytes, &ids[count])) return false;
        if (++count < IDS_MAX) continue;
        answer_ids(c, ids, count, is_ack, action, reason);
        count = 0;
    }
    answer_ids(c, ids, count, is_ack, action, reason);
    return !r.bad;
}

static void read_message(struct rpc *rpc, deed_bytes message)
{
    struct reading *r = rpc->state;
    struct group_consumer *c = atomic_load(&r->consumer);
    if (c == NULL) {
        const EP(ReadReq) *req = rpc_unpack(rpc, TYPE_OF(read_req), message);
        if (req == NULL) return;
        bool options = req->content_case ==
                       EP_CASE(READ_REQ__CONTENT_OPTIONS);
        join(rpc, options ? req->options : NULL);
        return;
    }
    struct pb_reader reader = pb_reader_over(message);
    bool good = true;
    for (struct pb_field f; good && pb_next(&reader, &f);) {
        if (pb_is(&f, 2, PB_BYTES)) good = take_answers(c, f.bytes, true);
        if (pb_is(&f, 3, PB_BYTES)) good = take_answers(c, f.bytes, false);
    }
    if (!good || reader.bad) {
        rpc_fail(rpc, GRPC_INVALID_ARGUMENT, NULL, "the message is malformed");
    }
}

/* Whoever sends no more acknowledgements wants no more events. */
static void read_half_closed(struct rpc *rpc)
{
    const struct reading *r = rpc->state;
    if (r != NULL && atomic_load(&r->consumer) == NULL) {
        (void)missing(rpc, "options");
        return;
    }
    rpc_end(rpc);
}

static void put_confirmation(const struct reading *r, struct buf *out)
{
    size_t frame = grpc_frame_begin(out);
    size_t message = pb_begin(out, 2);
    size_t id = pb_begin(out, 1);
    buf_add_str(out, r->source);
    buf_add_str(out, DEED_STR("::"));
    buf_add_str(out, r->name);
    pb_end(out, id);
    pb_end(out, message);
    grpc_frame_end(out, frame);
}

static void put_message(const struct reading *r, const struct group_message *m, struct buf *out)
{
    uint8_t count[1 + PB_VARINT_SIZE_MAX];
    uint8_t *end = count;
    *end++ = (uint8_t)pb_tag(5, PB_VARINT);
    end = pb_write_varint(end, m->retry_count > INT32_MAX ? INT32_MAX : m->retry_count);
    size_t frame = grpc_frame_begin(out);
    grpc_put_read_event(out, 1, m->event, m->link, r->structured,
                        (deed_bytes){count, (size_t)(end - count)});
    grpc_frame_end(out, frame);
}

static enum rpc_pull dropped(struct rpc *rpc, const struct reading *r)
{
    name_trailers(rpc, r->source, r->name);
    rpc_fail(rpc, GRPC_CANCELLED, "persistent-subscription-dropped",
             "Subscription group %.*s on stream %.*s was dropped.", DEED_FMT(r->name),
             DEED_FMT(r->source));
    return RPC_END;
}

static enum rpc_pull read_pull(struct rpc *rpc, struct buf *out, size_t wanted, bool haste)
{
    struct reading *r = rpc->state;
    struct group_consumer *c = r == NULL ? NULL : atomic_load(&r->consumer);
    (void)haste; /* all of it is in memory */
    if (c == NULL) return RPC_WAIT;
    size_t begin = out->len;
    if (!r->confirmed) put_confirmation(r, out);
    r->confirmed = true;
    while (out->len - begin < wanted) {
        struct group_message messages[TAKE_MAX];
        size_t count = 0;
        size_t room = wanted - (out->len - begin);
        if (groups_take(c, messages, TAKE_MAX, room, &count, NULL) != DEED_OK) {
            return dropped(rpc, r);
        }
        for (size_t i = 0; i < count; i++) {
            put_message(r, &messages[i], out);
            group_message_done(&messages[i]);
        }
        if (count == 0) return RPC_WAIT;
    }
    return RPC_MORE;
}

static void read_close(struct rpc *rpc)
{
    struct reading *r = rpc->state;
    if (r != NULL) groups_leave(atomic_load(&r->consumer));
}

static const char *const features[] = {"stream", "all", NULL};

#define CARE(name, message_, pull_) \
    {RPC_METHOD(SERVICE, name), .features = features, .message = (message_), .pull = (pull_)}

const struct rpc_method grpc_groups_methods[] = {
    {RPC_METHOD(SERVICE, "Read"), .client_streams = true, .features = features,
     .begin = read_begin, .message = read_message, .half_closed = read_half_closed,
     .pull = read_pull, .close = read_close},
    CARE("Create", create_message, create_pull),
    CARE("Update", create_message, update_pull),
    CARE("Delete", delete_message, delete_pull),
    CARE("GetInfo", info_message_in, info_pull),
    CARE("List", list_message, list_pull),
    CARE("ReplayParked", parked_message_in, replay_pull),
    CARE("TruncateParked", parked_message_in, truncate_pull),
    CARE("RestartSubsystem", restart_message, restart_pull),
};
const size_t grpc_groups_method_count = sizeof grpc_groups_methods / sizeof grpc_groups_methods[0];
