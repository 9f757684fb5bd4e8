/* read_plan.c - the rules of a ReadReq's options, one function an option.
 *
 *     stream | all  ×  count | subscription  ×  forwards | backwards  ×  filter | no_filter
 *
 * Illegal are a subscription backwards and a filter of a stream; each choice must be made. */
#include "api/read_plan.h"

#include "base/text.h"
#include "grpc/proto.h"
#include "proto/streams.pb-c.h"

typedef EventStore__Client__Streams__ReadReq request;
typedef EventStore__Client__Streams__ReadReq__Options options;
typedef EventStore__Client__Streams__ReadReq__Options__FilterOptions filter_options;
typedef EventStore__Client__Streams__ReadReq__Options__FilterOptions__Expression expression;

#define CASE(name) EVENT_STORE__CLIENT__STREAMS__READ_REQ__OPTIONS__##name

/* What clients say for "the end", which is -1 to the protocol's other side. */
#define WIRE_END UINT64_MAX

/* What a client that has no wish of its own gets. */
#define WINDOW_DEFAULT 32

static deed_status stream_parse(const options *o, struct arena *arena, struct read_plan *plan,
                                struct deed_error *err)
{
    const EventStore__Client__StreamIdentifier *name = o->stream->stream_identifier;
    if (name == NULL || name->stream_name.len == 0) {
        return deed_fail(err, DEED_INVALID, "read: stream_identifier: the stream has no name");
    }
    deed_str given = {(const char *)name->stream_name.data, name->stream_name.len};
    if (deed_str_equal(given, DEED_STR("$$"))) {
        return deed_fail(err, DEED_INVALID,
                         "read: stream_identifier: $$ is not the name of a stream");
    }
    plan->stream = arena_str(arena, given);
    if (plan->stream.ptr == NULL) return deed_fail(err, DEED_NO_MEMORY, "read: out of memory");
    switch (o->stream->revision_option_case) {
    case CASE(STREAM_OPTIONS__REVISION_OPTION_REVISION):
        plan->revision = o->stream->revision;
        plan->from = plan->revision == WIRE_END ? READ_FROM_END : READ_FROM_PLACE;
        return DEED_OK;
    case CASE(STREAM_OPTIONS__REVISION_OPTION_START): plan->from = READ_FROM_START; return DEED_OK;
    case CASE(STREAM_OPTIONS__REVISION_OPTION_END): plan->from = READ_FROM_END; return DEED_OK;
    default: return deed_fail(err, DEED_INVALID, "read: revision_option: none is set");
    }
}

/* Our events have one position, which is both. With a prepare position below the commit's the place is
 * just before the event there. */
static deed_status position_parse(uint64_t commit, uint64_t prepare, struct read_plan *plan,
                                  struct deed_error *err)
{
    if (commit == WIRE_END && prepare == WIRE_END) {
        plan->from = READ_FROM_END;
        return DEED_OK;
    }
    if (commit < prepare || commit > INT64_MAX) {
        return deed_fail(err, DEED_INVALID,
                         "Trying to read from an invalid position. commit %llu, prepare %llu",
                         (unsigned long long)commit, (unsigned long long)prepare);
    }
    plan->from = READ_FROM_PLACE;
    if (plan->backwards) {
        plan->after = commit;
    } else if (plan->subscription && commit == prepare) {
        plan->after = commit;
    } else {
        plan->after = commit == 0 ? 0 : commit - 1;
    }
    return DEED_OK;
}

static deed_status all_parse(const options *o, struct read_plan *plan, struct deed_error *err)
{
    switch (o->all->all_option_case) {
    case CASE(ALL_OPTIONS__ALL_OPTION_POSITION):
        return position_parse(o->all->position->commit_position,
                              o->all->position->prepare_position, plan, err);
    case CASE(ALL_OPTIONS__ALL_OPTION_START): plan->from = READ_FROM_START; return DEED_OK;
    case CASE(ALL_OPTIONS__ALL_OPTION_END): plan->from = READ_FROM_END; return DEED_OK;
    default: return deed_fail(err, DEED_INVALID, "read: all_option: none is set");
    }
}

static deed_status count_parse(const options *o, struct read_plan *plan, struct deed_error *err)
{
    switch (o->count_option_case) {
    case CASE(COUNT_OPTION_COUNT): plan->count = o->count; return DEED_OK;
    case CASE(COUNT_OPTION_SUBSCRIPTION): plan->subscription = true; break;
    default: return deed_fail(err, DEED_INVALID, "read: count_option: none is set");
    }
    if (plan->backwards) {
        return deed_fail(err, DEED_INVALID, "read: a subscription cannot read backwards");
    }
    return DEED_OK;
}

/* ---- filters -------------------------------------------------------------------------------- */

static deed_status window_parse(const filter_options *f, struct read_plan *plan,
                                struct deed_error *err)
{
    uint64_t window = WINDOW_DEFAULT;
    switch (f->window_case) {
    case CASE(FILTER_OPTIONS__WINDOW_MAX):
        if (f->max > 0) window = f->max;
        break;
    case CASE(FILTER_OPTIONS__WINDOW_COUNT): break;
    default: return deed_fail(err, DEED_INVALID, "read: filter: no window is set");
    }
    if (plan->subscription && f->checkpointintervalmultiplier == 0) {
        return deed_fail(err, DEED_INVALID,
                         "read: filter: checkpointIntervalMultiplier is 0, it must be 1 or more");
    }
    plan->checkpoint_every = window * f->checkpointintervalmultiplier; /* 32 bits each */
    return DEED_OK;
}

static enum read_index index_of(deed_str name, deed_str *out_term)
{
    static const struct {
        deed_str prefix;
        enum read_index index;
    } kinds[] = {{{"$idx-ce-", 8}, READ_INDEX_CATEGORY}, {{"$idx-et-", 8}, READ_INDEX_TYPE}};
    if (deed_str_equal(name, DEED_STR("$idx-all"))) return READ_INDEX_ALL;
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        if (!str_starts_with(name, kinds[i].prefix)) continue;
        *out_term = (deed_str){name.ptr + kinds[i].prefix.len, name.len - kinds[i].prefix.len};
        return out_term->len > 0 ? kinds[i].index : READ_INDEX_UNKNOWN;
    }
    return READ_INDEX_UNKNOWN;
}

static deed_status index_parse(struct read_plan *plan, struct deed_error *err)
{
    const struct event_filter_options *f = &plan->filter;
    if (f->subject != EVENT_FILTER_STREAM || f->regex.len > 0) return DEED_OK;
    for (size_t i = 0; i < f->prefix_count; i++) {
        if (!str_starts_with(f->prefixes[i], DEED_STR("$idx-"))) continue;
        if (f->prefix_count > 1) {
            return deed_fail(err, DEED_INVALID, "read: filter: an index stands alone, not among "
                                                "%zu prefixes", f->prefix_count);
        }
        plan->index_name = f->prefixes[0];
        plan->index = index_of(plan->index_name, &plan->index_term);
    }
    return DEED_OK;
}

static deed_status expression_parse(const expression *e, struct arena *arena,
                                    struct read_plan *plan, struct deed_error *err)
{
    if (e->n_prefix > EVENT_FILTER_PREFIX_COUNT_MAX) {
        return deed_fail(err, DEED_TOO_LARGE, "read: filter: %zu prefixes, limit %d", e->n_prefix,
                         EVENT_FILTER_PREFIX_COUNT_MAX);
    }
    deed_str *prefixes = arena_alloc_array(arena, e->n_prefix, sizeof *prefixes);
    bool ok = prefixes != NULL;
    for (size_t i = 0; ok && i < e->n_prefix; i++) {
        prefixes[i] = arena_str(arena, deed_str_of(e->prefix[i]));
        ok = prefixes[i].ptr != NULL;
    }
    plan->filter.regex = arena_str(arena, deed_str_of(e->regex));
    if (!ok || plan->filter.regex.ptr == NULL) {
        return deed_fail(err, DEED_NO_MEMORY, "read: out of memory");
    }
    plan->filter.prefixes = prefixes;
    plan->filter.prefix_count = e->n_prefix;
    return index_parse(plan, err);
}

static deed_status filter_parse(const options *o, struct arena *arena, struct read_plan *plan,
                                struct deed_error *err)
{
    switch (o->filter_option_case) {
    case CASE(FILTER_OPTION_NO_FILTER): return DEED_OK;
    case CASE(FILTER_OPTION_FILTER): break;
    default: return deed_fail(err, DEED_INVALID, "read: filter_option: none is set");
    }
    if (plan->stream.ptr != NULL) {
        return deed_fail(err, DEED_INVALID, "read: only the log can be filtered, not a stream");
    }
    plan->filtered = true;
    deed_status status = window_parse(o->filter, plan, err);
    if (status != DEED_OK) return status;
    switch (o->filter->filter_case) {
    case CASE(FILTER_OPTIONS__FILTER_STREAM_IDENTIFIER):
        plan->filter.subject = EVENT_FILTER_STREAM;
        return expression_parse(o->filter->stream_identifier, arena, plan, err);
    case CASE(FILTER_OPTIONS__FILTER_EVENT_TYPE):
        plan->filter.subject = EVENT_FILTER_TYPE;
        return expression_parse(o->filter->event_type, arena, plan, err);
    default:
        return deed_fail(err, DEED_INVALID, "read: filter: it says neither stream nor event type");
    }
}

/* ---- all of it ------------------------------------------------------------------------------ */

static deed_status options_parse(const options *o, struct arena *arena, struct read_plan *plan,
                                 struct deed_error *err)
{
    if (o->uuid_option == NULL) {
        return deed_fail(err, DEED_INVALID, "read: uuid_option: none is set");
    }
    plan->structured_ids =
        o->uuid_option->content_case != CASE(UUIDOPTION__CONTENT_STRING);
    plan->resolve_links = o->resolve_links;
    plan->compatibility = o->control_option == NULL ? 0 : o->control_option->compatibility;
    if (o->read_direction != CASE(READ_DIRECTION__Forwards) &&
        o->read_direction != CASE(READ_DIRECTION__Backwards)) {
        return deed_fail(err, DEED_INVALID, "read: read_direction: %d is none",
                         (int)o->read_direction);
    }
    plan->backwards = o->read_direction == CASE(READ_DIRECTION__Backwards);
    deed_status status = count_parse(o, plan, err);
    if (status != DEED_OK) return status;
    switch (o->stream_option_case) {
    case CASE(STREAM_OPTION_STREAM): status = stream_parse(o, arena, plan, err); break;
    case CASE(STREAM_OPTION_ALL): status = all_parse(o, plan, err); break;
    default: return deed_fail(err, DEED_INVALID, "read: stream_option: neither stream nor all");
    }
    return status == DEED_OK ? filter_parse(o, arena, plan, err) : status;
}

deed_status read_plan_parse(deed_bytes message, struct arena *scratch, struct arena *arena,
                            struct read_plan *out_plan, struct deed_error *err)
{
    struct read_plan plan = {0};
    const request *req =
        grpc_unpack(&event_store__client__streams__read_req__descriptor, message, scratch, err);
    if (req == NULL) return err == NULL ? DEED_INVALID : err->status;
    if (req->options == NULL) return deed_fail(err, DEED_INVALID, "read: there are no options");
    deed_status status = options_parse(req->options, arena, &plan, err);
    if (status == DEED_OK) *out_plan = plan;
    return status;
}
