/* grpc_write.c - options, gathered events, errors.
 *
 *     first                                last
 *     +---------------------------+       +---------------------------+
 *     | events[] | the message    | ─► …  | events[] | the message    |
 *     +---------------------------+       +---------------------------+
 *         `───────── slices ──────┘
 *
 * (1) A message is copied once; what its events say are slices of the copy.
 * (2) All memory held by appends on their way is reckoned in api->gathered, so that many callers
 *     together cannot have more than one could have alone.
 * (3) Whatever is counted or allocated is compared with its limit before, not after. */
#include "api/grpc_write.h"

#include "base/uuid.h"
#include "grpc/pb.h"
#include "log/commit.h"
#include "log/event.h"
#include "store/store.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define GATHERED_SIZE_MAX ((uint64_t)256 << 20)

/* ---- where to ------------------------------------------------------------------------------- */

static bool parse_time(deed_bytes message, struct grpc_target *out)
{
    struct pb_reader r = pb_reader_over(message);
    out->seconds = out->nanos = 0;
    for (struct pb_field f; pb_next(&r, &f);) {
        if (pb_is(&f, 1, PB_VARINT)) out->seconds = (int64_t)f.value;
        if (pb_is(&f, 2, PB_VARINT)) out->nanos = (int32_t)(uint32_t)f.value;
    }
    return !r.bad;
}

static void expect(struct grpc_target *out, enum deed_expect expect, uint64_t revision)
{
    out->expects = true;
    out->expect = expect;
    out->revision = revision;
}

bool grpc_parse_target(deed_bytes options, struct grpc_target *out)
{
    struct pb_reader r = pb_reader_over(options);
    *out = (struct grpc_target){.stream = {"", 0}};
    for (struct pb_field f; pb_next(&r, &f);) {
        if (pb_is(&f, 2, PB_VARINT)) {
            /* The largest number stands for -1, which is "no stream". */
            bool none = f.value == UINT64_MAX;
            expect(out, none ? DEED_EXPECT_NONE : DEED_EXPECT_REVISION, none ? 0 : f.value);
        }
        if (f.wire != PB_BYTES) continue;
        switch (f.number) {
        case 1:
            if (!grpc_parse_stream(f.bytes, &out->stream)) return false;
            break;
        case 3: expect(out, DEED_EXPECT_NONE, 0); break;
        case 4: expect(out, DEED_EXPECT_ANY, 0); break;
        case 5: expect(out, DEED_EXPECT_EXISTS, 0); break;
        case 6:
        case 7:
            out->deadline = f.number == 6 ? GRPC_DEADLINE_AT : GRPC_DEADLINE_IN;
            if (!parse_time(f.bytes, out)) return false;
            break;
        default: break;
        }
    }
    return !r.bad;
}

const char *grpc_target_missing(const struct grpc_target *target)
{
    if (target->stream.len == 0) return "Required option StreamIdentifier is missing, or empty";
    if (!target->expects) return "Required option ExpectedStreamRevision is missing";
    return NULL;
}

int64_t grpc_expected_number(enum deed_expect expect, uint64_t revision)
{
    switch (expect) {
    case DEED_EXPECT_NONE: return -1;
    case DEED_EXPECT_ANY: return -2;
    case DEED_EXPECT_EXISTS: return -4;
    case DEED_EXPECT_DELETED: return -5;
    case DEED_EXPECT_TOMBSTONED: return -6;
    case DEED_EXPECT_REVISION: break;
    }
    return (int64_t)revision;
}

/* ---- events --------------------------------------------------------------------------------- */

struct gathered_part {
    struct gathered_part *next;
    size_t count;
    struct deed_new_event events[]; /* and the bytes behind them */
};

void gathered_init(struct grpc_gathered *g, struct api *api)
{
    *g = (struct grpc_gathered){.api = api, .size = COMMIT_HEAD_SIZE + COMMIT_ALIGN};
}

void gathered_done(struct grpc_gathered *g)
{
    while (g->first != NULL) {
        struct gathered_part *next = g->first->next;
        free(g->first);
        g->first = next;
    }
    free(g->joined);
    if (g->held > 0) (void)atomic_fetch_sub(&g->api->gathered, g->held);
    *g = (struct grpc_gathered){.api = g->api};
}

static bool trouble(struct gather_trouble *out, enum gather_fault fault, uint64_t size,
                    uint64_t limit)
{
    *out = (struct gather_trouble){.fault = fault, .size = size, .limit = limit};
    return false;
}

/* (2), (3) */
static bool hold(struct grpc_gathered *g, uint64_t size, struct gather_trouble *out)
{
    uint64_t before = atomic_fetch_add(&g->api->gathered, size);
    g->held += size;
    if (before > 0 && before + size > GATHERED_SIZE_MAX) {
        return trouble(out, GATHER_BUSY, before + size, GATHERED_SIZE_MAX);
    }
    return true;
}

static const struct deed_limits *limits_of(const struct grpc_gathered *g)
{
    return store_limits(g->api->parts.store);
}

struct deed_new_event *gathered_room(struct grpc_gathered *g, size_t count, size_t size,
                                     uint8_t **out_bytes, struct gather_trouble *out_trouble)
{
    uint32_t count_max = limits_of(g)->commit_count_max;
    struct gathered_part *part;
    if (count > count_max - g->count) {
        (void)trouble(out_trouble, GATHER_COUNT, g->count + count, count_max);
        return NULL;
    }
    size_t all = sizeof *part + count * sizeof part->events[0] + size;
    if (!hold(g, all, out_trouble)) return NULL;
    part = malloc(all);
    if (part == NULL) {
        (void)trouble(out_trouble, GATHER_NO_MEMORY, all, 0);
        return NULL;
    }
    part->next = NULL;
    part->count = count;
    if (g->last == NULL) {
        g->first = part;
    } else {
        g->last->next = part;
    }
    g->last = part;
    g->count += count;
    *out_bytes = (uint8_t *)&part->events[count];
    return part->events;
}

/* The last kilobytes of the store's limit are for names. */
#define NAMES_SIZE 10000

uint64_t gathered_event_max(const struct deed_limits *limits)
{
    uint64_t most = limits->event_size_max;
    return most > 2 * NAMES_SIZE ? most - NAMES_SIZE : most;
}

/* What the real server counts, and what the store does. */
static uint64_t proposed_size(const struct deed_new_event *e)
{
    return e->data.len + e->metadata.len + 2 * e->type.len;
}

static uint64_t stored_size(const struct deed_new_event *e)
{
    return e->data.len + e->metadata.len + e->stream.len + e->type.len + e->content_type.len +
           e->correlation_id.len + e->causation_id.len;
}

bool gathered_count_in(struct grpc_gathered *g, const struct deed_new_event *event,
                       struct gather_trouble *out_trouble)
{
    const struct deed_limits *limits = limits_of(g);
    uint64_t most = gathered_event_max(limits);
    uint64_t size = proposed_size(event);
    if (size > most || stored_size(event) + g->stream_size > limits->event_size_max) {
        (void)trouble(out_trouble, GATHER_EVENT_SIZE, size, most);
        out_trouble->id = event->id;
        return false;
    }
    g->size += event_size(event, (deed_str){0}) + g->stream_size;
    if (g->size > limits->commit_size_max) {
        return trouble(out_trouble, GATHER_APPEND_SIZE, g->size, limits->commit_size_max);
    }
    return true;
}

static size_t count_fields(deed_bytes message, unsigned field, bool *out_ok)
{
    size_t count = 0;
    struct pb_reader r = pb_reader_over(message);
    for (struct pb_field f; pb_next(&r, &f);) count += pb_is(&f, field, PB_BYTES);
    *out_ok = !r.bad;
    return count;
}

bool gathered_add(struct grpc_gathered *g, deed_bytes message, unsigned field,
                  deed_bytes *out_copy, struct gather_trouble *out_trouble)
{
    bool ok;
    uint8_t *bytes;
    size_t count = count_fields(message, field, &ok);
    if (!ok) return trouble(out_trouble, GATHER_MALFORMED, 0, 0);
    struct deed_new_event *events = gathered_room(g, count, message.len, &bytes, out_trouble);
    if (events == NULL) return false;
    if (message.len > 0) memcpy(bytes, message.ptr, message.len);
    deed_bytes copy = {bytes, message.len}; /* (1) */
    uint32_t depth_max = limits_of(g)->json_depth_max;
    struct pb_reader r = pb_reader_over(copy);
    for (struct pb_field f; pb_next(&r, &f);) {
        if (!pb_is(&f, field, PB_BYTES)) continue;
        *events = (struct deed_new_event){0};
        switch (grpc_parse_proposed(f.bytes, depth_max, events)) {
        case GRPC_PROPOSED_OK: break;
        case GRPC_PROPOSED_MALFORMED: return trouble(out_trouble, GATHER_MALFORMED, 0, 0);
        case GRPC_PROPOSED_NO_ID: return trouble(out_trouble, GATHER_NO_ID, 0, 0);
        case GRPC_PROPOSED_METADATA: return trouble(out_trouble, GATHER_METADATA, 0, 0);
        }
        if (!gathered_count_in(g, events, out_trouble)) return false;
        events++;
    }
    if (out_copy != NULL) *out_copy = copy;
    return true;
}

/* NULL: no memory. */
static struct deed_new_event *in_one_array(struct grpc_gathered *g)
{
    static struct deed_new_event none[1];
    if (g->count == 0) return none;
    if (g->joined != NULL) return g->joined;
    for (struct gathered_part *part = g->first; part != NULL; part = part->next) {
        if (part->count == g->count) return part->events; /* the others are empty */
    }
    g->joined = malloc(g->count * sizeof *g->joined);
    if (g->joined == NULL) return NULL;
    size_t at = 0;
    for (struct gathered_part *part = g->first; part != NULL; part = part->next) {
        if (part->count > 0) memcpy(g->joined + at, part->events, part->count * sizeof *g->joined);
        at += part->count;
    }
    assert(at == g->count);
    return g->joined;
}

bool gathered_join(struct grpc_gathered *g, deed_str stream, struct deed_new_event **out_events)
{
    struct deed_new_event *events = in_one_array(g);
    if (events == NULL) return false;
    for (size_t i = 0; stream.ptr != NULL && i < g->count; i++) events[i].stream = stream;
    *out_events = events;
    return true;
}

bool gathered_append(struct grpc_gathered *g, const struct grpc_target *target,
                     struct deed_condition *out_condition, struct deed_append *out_append)
{
    struct deed_new_event *events;
    if (!gathered_join(g, target->stream, &events)) return false;
    *out_condition = (struct deed_condition){.kind = DEED_CONDITION_STREAM,
                                             .stream = target->stream,
                                             .expect = target->expect,
                                             .revision = target->revision};
    bool any = target->expect == DEED_EXPECT_ANY && g->count > 0;
    *out_append = (struct deed_append){.events = events,
                                       .event_count = g->count,
                                       .conditions = out_condition,
                                       .condition_count = any ? 0 : 1};
    return true;
}

void grpc_put_success(struct buf *out, unsigned field, const struct deed_appended *appended,
                      bool has_events)
{
    size_t begin = pb_begin(out, field);
    if (appended->revision == DEED_NONE) {
        pb_put_empty(out, 2);
    } else {
        pb_put_uint(out, 1, appended->revision);
    }
    if (has_events) {
        grpc_put_position(out, 3, appended->position);
    } else {
        pb_put_empty(out, 4);
    }
    pb_end(out, begin);
}

/* ---- what went wrong ------------------------------------------------------------------------ */

void gather_message(const struct gather_trouble *t, char *out, size_t room)
{
    char id[UUID_TEXT_SIZE + 1];
    switch (t->fault) {
    case GATHER_OK:
    case GATHER_MALFORMED: (void)snprintf(out, room, "the message is malformed"); break;
    case GATHER_NO_ID: (void)snprintf(out, room, "an event has no id, or an empty one"); break;
    case GATHER_METADATA:
        (void)snprintf(out, room,
                       "Required Metadata Property missing: an event needs type and content-type");
        break;
    case GATHER_EVENT_SIZE:
        uuid_format(t->id, id);
        (void)snprintf(out, room,
                       "Maximum Append Event Size Exceeded: event %s has %" PRIu64
                       " bytes, limit %" PRIu64,
                       id, t->size, t->limit);
        break;
    case GATHER_APPEND_SIZE:
        (void)snprintf(out, room, "Maximum Append Size of %" PRIu64 " Exceeded.", t->limit);
        break;
    case GATHER_COUNT:
        (void)snprintf(out, room, "an append of %" PRIu64 " events, limit %" PRIu64, t->size,
                       t->limit);
        break;
    case GATHER_BUSY: (void)snprintf(out, room, "Server Is Too Busy"); break;
    case GATHER_NO_MEMORY: (void)snprintf(out, room, "out of memory"); break;
    }
}

void grpc_trailer_number(struct rpc *rpc, const char *name, int64_t value)
{
    char text[24];
    int size = snprintf(text, sizeof text, "%" PRId64, value);
    rpc_trailer(rpc, name, (deed_str){text, (size_t)size});
}

void grpc_fail_gather(struct rpc *rpc, const struct gather_trouble *t)
{
    char message[256];
    char id[UUID_TEXT_SIZE + 1];
    const char *exception = NULL;
    enum grpc_code code = GRPC_INVALID_ARGUMENT;
    gather_message(t, message, sizeof message);
    switch (t->fault) {
    case GATHER_METADATA:
        exception = "missing-required-metadata-property";
        rpc_trailer(rpc, "required-metadata-properties", DEED_STR("type,content-type"));
        break;
    case GATHER_EVENT_SIZE:
        exception = "maximum-append-event-size-exceeded";
        uuid_format(t->id, id);
        rpc_trailer(rpc, "event-id", deed_str_of(id));
        grpc_trailer_number(rpc, "proposed-append-event-size", (int64_t)t->size);
        grpc_trailer_number(rpc, "maximum-append-event-size", (int64_t)t->limit);
        break;
    case GATHER_APPEND_SIZE:
        exception = "maximum-append-size-exceeded";
        grpc_trailer_number(rpc, "maximum-append-size", (int64_t)t->limit);
        break;
    case GATHER_BUSY: code = GRPC_UNAVAILABLE; break;
    case GATHER_NO_MEMORY: code = GRPC_RESOURCE_EXHAUSTED; break;
    default: break;
    }
    rpc_fail(rpc, code, exception, "%s", message);
}

enum write_outcome grpc_outcome(enum deed_expect expect, const struct deed_error *err)
{
    switch (err->status) {
    case DEED_OK: return WRITE_DONE;
    case DEED_CONFLICT:
        /* A stream that was written and does not exist is deleted. */
        if (expect == DEED_EXPECT_EXISTS && err->condition != DEED_NONE &&
            err->revision != DEED_NONE) {
            return WRITE_STREAM_DELETED;
        }
        return WRITE_WRONG_VERSION;
    case DEED_DELETED: return WRITE_STREAM_DELETED;
    case DEED_INVALID:
    case DEED_TOO_LARGE: return WRITE_INVALID;
    case DEED_BUSY: return WRITE_BUSY;
    case DEED_STOPPED: return WRITE_NOT_READY;
    default: return WRITE_FAILED;
    }
}

void grpc_fail_deleted(struct rpc *rpc, deed_str stream)
{
    rpc_trailer(rpc, "stream-name", stream);
    rpc_fail(rpc, GRPC_FAILED_PRECONDITION, "stream-deleted", "Event stream '%.*s' is deleted.",
             DEED_FMT(stream));
}

void grpc_fail_outcome(struct rpc *rpc, enum write_outcome outcome, deed_str stream,
                       const struct deed_error *err)
{
    switch (outcome) {
    case WRITE_STREAM_DELETED: grpc_fail_deleted(rpc, stream); break;
    case WRITE_INVALID: rpc_fail(rpc, GRPC_INVALID_ARGUMENT, NULL, "%s", err->message); break;
    case WRITE_BUSY:
        rpc_fail(rpc, GRPC_UNAVAILABLE, NULL, "Server Is Too Busy: %s", err->message);
        break;
    case WRITE_NOT_READY:
        rpc_fail(rpc, GRPC_UNAVAILABLE, NULL, "Server Is Not Ready: %s", err->message);
        break;
    default: rpc_fail_status(rpc, err); break;
    }
}
