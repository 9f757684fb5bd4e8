/* grpc_read.c - Streams.Read: a counted read of a stream or of the log, or a subscription to it.
 *
 * counted      (first_stream_position) event ... (last_stream_position)      from compatibility 1 on
 *              stream_not_found
 * subscription confirmation ─► event, checkpoint ... ─► caught_up ─► event, checkpoint ...
 *                                    ▲                                        │ the client was too slow
 *                                    └────────────────────────────────────────┘
 *
 * (1) One cursor makes both parts of a subscription: there is no seam between what was stored and what is
 *     new, so nothing can be lost or come twice at it.
 * (2) Nothing is kept for a client that does not read: pull is called when there is room, and the cursor
 *     stands where it stood. "Live" is only what the client is told.
 * (3) An event is in the answer whole or not at all: what does not fit behind others waits for the next
 *     slice.
 * (4) A slice is bounded in bytes and time, since a filter may match nothing for long. In haste it is
 *     bounded in events too, and what it could not read is read by a thread of the pool: it either adds
 *     nothing then (RPC_LATER), or what it added stands.
 * (5) Checkpoints ascend. One at P is sent when all up to P was sent or did not match.
 * (6) The log is read with its removed events, which are left out: to a KurrentDB client a log that was
 *     compacted just has fewer events, and no horizon. */
#include "api/call.h"
#include "api/grpc_event.h"
#include "api/grpc_link.h"
#include "api/grpc_write.h"
#include "api/read_plan.h"
#include "api/rpc.h"
#include "base/text.h"
#include "base/uuid.h"
#include "grpc/pb.h"
#include "store/store.h"

#include <assert.h>

/* ReadResp's content */
enum {
    RESP_EVENT = 1,
    RESP_CONFIRMATION = 2,
    RESP_CHECKPOINT = 3,
    RESP_STREAM_NOT_FOUND = 4,
    RESP_FIRST_STREAM_POSITION = 5,
    RESP_LAST_STREAM_POSITION = 6,
    RESP_CAUGHT_UP = 8,
};

/* So many events a reader of KurrentDB asks for at once: of which the first page may be empty. */
#define PAGE_EVENTS 32

#define SLICE_TIME_NS (UINT64_C(50) * 1000000)
/* The clock costs as much as a small event: it is looked at every so many. */
#define CLOCK_EVENTS 64

/* In haste: as in api/call.h. */
#define HASTE_EVENTS_MAX 64
#define HASTE_SIZE       ((size_t)64 << 10)
#define HASTE_READ_SIZE  ((size_t)512 << 10)

struct reading {
    struct rpc *rpc;
    struct store *store;
    struct read_plan plan;
    uint64_t begun_at; /* the log's end when the request came */
    struct event_filter *filter;
    struct deed_cursor *cursor; /* NULL: not opened yet */
    uint64_t left;              /* events that may still go out */
    uint64_t last_revision;     /* of the stream as far as known; DEED_NONE: it has none */
    bool empty;                 /* nothing can come: do not read */

    bool live;
    uint64_t sent_revision;   /* subscription: the last one, or where it began; DEED_NONE: none */
    uint64_t checked;         /* (5): the last checkpoint, or where the client has got */
    uint64_t looked_from;     /* where the interval to the next one began */
    struct deed_event event; /* the cursor's last one; (3): `waits` for the next slice */
    bool waits;
    struct deed_error err;
};

static bool is_type(const struct deed_event *event, deed_str type)
{
    return deed_str_equal(event->type, type);
}

/* ---- messages ------------------------------------------------------------------------------- */

static void put_name(struct buf *out, unsigned field, deed_str stream)
{
    size_t frame = grpc_frame_begin(out);
    size_t message = pb_begin(out, field);
    grpc_put_stream(out, 1, stream);
    pb_end(out, message);
    grpc_frame_end(out, frame);
}

static void put_number(struct buf *out, unsigned field, uint64_t number)
{
    size_t frame = grpc_frame_begin(out);
    pb_put_uint(out, field, number);
    grpc_frame_end(out, frame);
}

static void put_now(struct buf *out, unsigned field, struct store *store)
{
    int64_t now = os_now_ns(store_os(store));
    size_t timestamp = pb_begin(out, field);
    pb_put_uint(out, 1, (uint64_t)(now / 1000000000));
    pb_put_uint(out, 2, (uint64_t)(now % 1000000000));
    pb_end(out, timestamp);
}

static void put_confirmation(struct reading *r, struct buf *out)
{
    uint8_t random[16];
    char text[UUID_TEXT_SIZE + 1];
    os_random(store_os(r->store), random, sizeof random);
    uuid_format(uuid_v4(random), text);
    size_t frame = grpc_frame_begin(out);
    size_t message = pb_begin(out, RESP_CONFIRMATION);
    pb_put_str(out, 1, (deed_str){text, UUID_TEXT_SIZE});
    pb_end(out, message);
    grpc_frame_end(out, frame);
}

static void put_checkpoint(struct reading *r, struct buf *out, uint64_t position)
{
    assert(position > r->checked || r->checked == DEED_NONE); /* (5) */
    size_t frame = grpc_frame_begin(out);
    size_t message = pb_begin(out, RESP_CHECKPOINT);
    pb_put_uint(out, 1, position);
    pb_put_uint(out, 2, position);
    put_now(out, 3, r->store);
    pb_end(out, message);
    grpc_frame_end(out, frame);
    r->checked = position;
    r->looked_from = position;
}

static void put_caught_up(struct reading *r, struct buf *out)
{
    size_t frame = grpc_frame_begin(out);
    size_t message = pb_begin(out, RESP_CAUGHT_UP);
    put_now(out, 1, r->store);
    if (r->plan.stream.ptr == NULL) {
        grpc_put_position(out, 3, cursor_position(r->cursor));
    } else if (r->sent_revision != DEED_NONE) {
        pb_put_uint(out, 2, r->sent_revision);
    }
    pb_end(out, message);
    grpc_frame_end(out, frame);
}

/* ---- events --------------------------------------------------------------------------------- */

/* The event as it is, or with what it leads to, in one frame. */
static void put_event(struct reading *r, struct buf *out, const struct deed_event *event,
                      const struct deed_event *link)
{
    size_t frame = grpc_frame_begin(out);
    grpc_put_read_event(out, RESP_EVENT, event, link, r->plan.structured_ids, (deed_bytes){0});
    grpc_frame_end(out, frame);
}

static deed_status put_as_asked(struct reading *r, struct buf *out, const struct deed_event *event)
{
    struct grpc_link link;
    bool resolve = r->plan.resolve_links && r->plan.index == READ_INDEX_NONE;
    if (!grpc_link_is_one(event, resolve)) {
        put_event(r, out, event, NULL);
        return DEED_OK;
    }
    deed_status status = grpc_link_open(&link, r->store, event, resolve, &r->err);
    if (status != DEED_OK) return status;
    put_event(r, out, link.event, link.link);
    grpc_link_close(&link);
    return DEED_OK;
}

/* (3) DEED_BUSY without a failure: it waits for the next slice. */
static deed_status event_add(struct reading *r, struct buf *out, size_t slice_start)
{
    size_t start = out->len;
    deed_status status = put_as_asked(r, out, &r->event);
    r->waits = status != DEED_OK || !buf_ok(out);
    if (!r->waits) return DEED_OK;
    bool full = !buf_ok(out);
    out->len = start;
    out->failed = false;
    if (status != DEED_OK) return status;
    if (full && start > slice_start) return DEED_BUSY;
    return deed_fail(&r->err, DEED_TOO_LARGE,
                     "event at position %llu does not fit into the server's buffer",
                     (unsigned long long)r->event.position);
}

/* ---- opening -------------------------------------------------------------------------------- */

/* A stream's metadata goes with it, and only the newest is read. */
static deed_status metadata_stream_check(struct reading *r, struct deed_read_options *options,
                                         struct deed_stream_info *info)
{
    deed_str stream = r->plan.stream;
    struct deed_stream_info of = {0};
    deed_str original = {stream.ptr + 2, stream.len - 2};
    deed_status status = store_stream(r->store, original, &of, &r->err);
    if (status != DEED_OK && status != DEED_NOT_FOUND) return status;
    if (status == DEED_OK && of.tombstoned) return DEED_DELETED;
    status = store_stream(r->store, stream, info, &r->err);
    if (status != DEED_OK) return status == DEED_NOT_FOUND ? DEED_OK : status;
    if (r->plan.backwards) {
        options->count_max = 1;
        r->empty = options->from_revision < info->revision;
    } else if (options->from_revision < info->revision) {
        options->from_revision = info->revision;
    }
    return DEED_OK;
}

/* Where a read of a stream begins, in the store's terms. */
static deed_status stream_from(struct reading *r, struct deed_read_options *options)
{
    const struct read_plan *plan = &r->plan;
    struct deed_stream_info info = {.revision = DEED_NONE};
    options->from_revision = 0;
    if (plan->from == READ_FROM_PLACE) {
        options->from_revision = plan->revision;
        if (plan->subscription) {
            options->from_revision++;
            r->sent_revision = plan->revision;
        }
    } else if (plan->from == READ_FROM_END && plan->backwards) {
        options->from_revision = DEED_NONE;
    } else if (plan->from == READ_FROM_END && plan->subscription) {
        deed_status status = store_stream(r->store, plan->stream, &info, &r->err);
        if (status != DEED_OK && status != DEED_NOT_FOUND) return status;
        r->sent_revision = info.revision;
        options->from_revision = info.revision == DEED_NONE ? 0 : info.revision + 1;
    } else if (plan->from == READ_FROM_END) {
        r->empty = true;
    }
    if (str_starts_with(plan->stream, DEED_STR("$$"))) {
        return metadata_stream_check(r, options, &info);
    }
    return DEED_OK;
}

/* The stream's first readable revision, if the client should be told. */
static void put_first_position(struct reading *r, struct buf *out,
                               const struct deed_read_options *options,
                               const struct deed_stream_info *info)
{
    uint64_t from = r->plan.from == READ_FROM_PLACE ? r->plan.revision : 0;
    uint64_t page = r->plan.count < PAGE_EVENTS ? r->plan.count : PAGE_EVENTS;
    uint64_t next = info->revision + 1;
    bool told = r->plan.compatibility > 0 && !r->plan.backwards && !r->plan.subscription;
    if (!told || page == 0 || r->plan.from == READ_FROM_END) return;
    if (from <= info->revision) {
        uint64_t first = info->first_revision;
        if (first == DEED_NONE) return; /* all has expired */
        if (options->from_revision > first) first = options->from_revision;
        if (first <= from || first - from < page) return;
        next = first;
    }
    if (next != from) put_number(out, RESP_FIRST_STREAM_POSITION, next);
}

static deed_status stream_open(struct reading *r, struct buf *out)
{
    struct deed_read_options options = {.stream = r->plan.stream,
                                        .backwards = r->plan.backwards,
                                        .follow = r->plan.subscription,
                                        .removed = store_is_virtual(r->plan.stream)};
    struct deed_stream_info info;
    deed_status status = stream_from(r, &options);
    if (status == DEED_OK) status = store_read(r->store, &options, &r->cursor, &r->err);
    if (status != DEED_OK) return status;
    if (!cursor_stream(r->cursor, &info)) return DEED_OK;
    r->last_revision = info.revision;
    put_first_position(r, out, &options, &info);
    return DEED_OK;
}

static deed_status filter_make(struct reading *r, struct deed_filter *read)
{
    const struct read_plan *plan = &r->plan;
    if (plan->index == READ_INDEX_ALL) {
        read->system = false;
    } else if (plan->index == READ_INDEX_CATEGORY) {
        read->categories = &plan->index_term;
        read->category_count = 1;
    } else if (plan->index == READ_INDEX_TYPE) {
        read->types = &plan->index_term;
        read->type_count = 1;
    } else if (plan->filtered) {
        if (r->filter == NULL) {
            deed_status status =
                event_filter_create(&plan->filter, r->rpc->arena, &r->filter, &r->err);
            if (status != DEED_OK) return status;
        }
        (void)event_filter_narrow(r->filter, read);
    }
    return DEED_OK;
}

static deed_status log_open(struct reading *r)
{
    const struct read_plan *plan = &r->plan;
    struct deed_read_options options = {.backwards = plan->backwards,
                                        .follow = plan->subscription,
                                        .filter = {.system = true},
                                        .removed = true}; /* (6) */
    if (plan->from == READ_FROM_PLACE) {
        options.after_position = plan->after;
    } else if (plan->from == READ_FROM_END) {
        options.after_position = plan->backwards ? DEED_NONE : r->begun_at;
        r->empty = !plan->backwards && !plan->subscription;
    }
    deed_status status = filter_make(r, &options.filter);
    if (status == DEED_OK) status = store_read(r->store, &options, &r->cursor, &r->err);
    r->checked = plan->from == READ_FROM_PLACE ? options.after_position : 0;
    r->looked_from = options.after_position;
    return status;
}

/* The read cannot begin. RPC_LATER: not in haste. */
static enum rpc_pull open_failed(struct reading *r, struct buf *out, deed_status status)
{
    bool missing = status == DEED_NOT_FOUND && !r->plan.subscription;
    if (missing && r->plan.stream.ptr != NULL) {
        put_name(out, RESP_STREAM_NOT_FOUND, r->plan.stream);
        rpc_end(r->rpc);
        return RPC_END;
    }
    if (os_haste_refused()) return RPC_LATER;
    if (status == DEED_DELETED) {
        if (r->plan.subscription) put_confirmation(r, out); /* always first, where there is a stream */
        grpc_fail_deleted(r->rpc, r->plan.stream);
    } else {
        r->err.status = status;
        rpc_fail_status(r->rpc, &r->err);
    }
    return RPC_END;
}

/* Open the cursor and say what comes first. RPC_MORE: go on. */
static enum rpc_pull reading_open(struct reading *r, struct buf *out)
{
    struct read_plan *plan = &r->plan;
    size_t start = out->len;
    if (plan->index == READ_INDEX_UNKNOWN) {
        rpc_trailer(r->rpc, "index-name", plan->index_name);
        rpc_fail(r->rpc, GRPC_NOT_FOUND, "index-not-found", "Index '%.*s' is not found.",
                 DEED_FMT(plan->index_name));
        return RPC_END;
    }
    r->last_revision = r->sent_revision = DEED_NONE;
    r->empty = false;
    if (plan->subscription) put_confirmation(r, out);
    deed_status status = plan->stream.ptr != NULL ? stream_open(r, out) : log_open(r);
    if (status == DEED_OK) return RPC_MORE;
    out->len = start;
    return open_failed(r, out, status);
}

/* ---- one slice ------------------------------------------------------------------------------ */

static bool hidden(deed_str stream)
{
    const deed_str groups = DEED_STR("$persistentsubscription-$all::");
    const deed_str ends[] = {DEED_STR("-checkpoint"), DEED_STR("-parked")};
    if (stream.len == 0 || stream.ptr[0] != '$' || !str_starts_with(stream, groups)) return false;
    for (size_t i = 0; i < 2; i++) {
        size_t size = ends[i].len;
        if (stream.len < groups.len + size) continue;
        if (memcmp(stream.ptr + stream.len - size, ends[i].ptr, size) == 0) return true;
    }
    return false;
}

/* Does the client get this event? Of a stream it gets all that the cursor gives. */
static deed_status wanted_event(struct reading *r, const struct deed_event *event, bool *out_wanted)
{
    *out_wanted = true;
    if (r->plan.stream.ptr != NULL) return DEED_OK;
    *out_wanted = !event->removed && !hidden(event->stream);
    if (!*out_wanted || r->filter == NULL) return DEED_OK;
    return event_filter_match(r->filter, event, out_wanted, &r->err);
}

static void event_sent(struct reading *r, const struct deed_event *event)
{
    uint64_t revision = event_revision_read(event);
    r->left--;
    if (r->plan.stream.ptr == NULL) return;
    r->sent_revision = revision;
    if (r->last_revision == DEED_NONE || revision > r->last_revision) r->last_revision = revision;
}

/* All up to `position` was looked at. */
static void checkpoint_due(struct reading *r, struct buf *out, uint64_t position)
{
    uint64_t every = r->plan.checkpoint_every;
    bool due = r->plan.filtered && r->plan.subscription && position > r->looked_from &&
               position - r->looked_from >= every;
    if (due && position > r->checked) put_checkpoint(r, out, position);
}

/* What lies before `position` and behind the last one that was looked at, the index has passed over: of
 * the checkpoints in it the last is sent. */
static void checkpoint_before(struct reading *r, struct buf *out, uint64_t position)
{
    uint64_t every = r->plan.checkpoint_every;
    if (every == 0 || position <= r->looked_from) return;
    uint64_t passed = position - 1 - r->looked_from;
    checkpoint_due(r, out, r->looked_from + passed / every * every);
}

/* The next event, sent if it is wanted. DEED_BUSY as event_add. */
static deed_status reading_step(struct reading *r, struct buf *out, size_t slice_start)
{
    bool wanted = true;
    deed_status status = DEED_OK;
    if (!r->waits) {
        status = cursor_next(r->cursor, &r->event, &r->err);
        if (status == DEED_OK) status = wanted_event(r, &r->event, &wanted);
    }
    if (status == DEED_OK && wanted) {
        if (r->plan.filtered) checkpoint_before(r, out, r->event.position);
        status = event_add(r, out, slice_start);
        if (status == DEED_OK) event_sent(r, &r->event);
    }
    if (status != DEED_OK) return status;
    checkpoint_due(r, out, r->event.position);
    bool closed = r->plan.subscription && r->plan.stream.ptr != NULL &&
                  r->event.link_stream.ptr == NULL && is_type(&r->event, DEED_STR(STORE_TOMBSTONE_TYPE));
    return closed ? DEED_DELETED : DEED_OK;
}

/* All that there is has been sent. */
static enum rpc_pull reading_end(struct reading *r, struct buf *out)
{
    if (!r->plan.subscription) {
        bool told = r->plan.compatibility > 0 && r->plan.stream.ptr != NULL;
        if (told && r->last_revision != DEED_NONE) {
            put_number(out, RESP_LAST_STREAM_POSITION, r->last_revision);
        }
        rpc_end(r->rpc);
        return RPC_END;
    }
    uint64_t position = cursor_position(r->cursor);
    if (r->plan.filtered && !r->live && position > r->checked) put_checkpoint(r, out, position);
    checkpoint_due(r, out, position);
    if (!r->live) put_caught_up(r, out);
    r->live = true;
    return RPC_WAIT;
}

static enum rpc_pull reading_failed(struct reading *r, struct buf *out, size_t start,
                                    deed_status status)
{
    if (status == DEED_BUSY && r->waits && out->len > start) return RPC_MORE; /* (3) */
    if (status == DEED_DELETED) {
        grpc_fail_deleted(r->rpc, r->plan.stream);
        return RPC_END;
    }
    if (os_haste_refused()) return out->len > start ? RPC_MORE : RPC_LATER; /* (4) */
    r->err.status = status;
    rpc_fail_status(r->rpc, &r->err);
    return RPC_END;
}

static enum rpc_pull reading_slice(struct reading *r, struct buf *out, size_t wanted, bool haste)
{
    struct os *os = store_os(r->store);
    size_t start = out->len;
    size_t size_max = haste && wanted > HASTE_SIZE ? HASTE_SIZE : wanted;
    uint64_t begun_ns = os_ticks_ns(os);
    if (r->cursor == NULL) {
        enum rpc_pull opened = reading_open(r, out);
        if (opened != RPC_MORE) return opened;
    }
    for (uint64_t looked = 0;; looked++) {
        if (r->left == 0 || r->empty) return reading_end(r, out);
        bool late = looked % CLOCK_EVENTS == CLOCK_EVENTS - 1 &&
                    os_ticks_ns(os) - begun_ns > SLICE_TIME_NS;
        if (out->len - start >= size_max || late || (haste && looked == HASTE_EVENTS_MAX)) {
            if (out->len - start >= wanted) r->live = false; /* (2): the client does not keep up */
            return RPC_MORE;
        }
        deed_status status = reading_step(r, out, start);
        if (status == DEED_END) return reading_end(r, out);
        if (status != DEED_OK) return reading_failed(r, out, start, status);
    }
}

/* ---- the method ----------------------------------------------------------------------------- */

static void read_begin(struct rpc *rpc)
{
    struct reading *r = arena_alloc(rpc->arena, sizeof *r);
    if (r == NULL) {
        rpc_fail(rpc, GRPC_RESOURCE_EXHAUSTED, NULL, "read: out of memory");
        return;
    }
    r->rpc = rpc;
    r->store = rpc->api->parts.store;
    rpc->state = r;
}

static void read_message(struct rpc *rpc, deed_bytes message)
{
    struct reading *r = rpc->state;
    if (r == NULL) return;
    deed_status status = read_plan_parse(message, rpc->scratch, rpc->arena, &r->plan, &r->err);
    if (status != DEED_OK) {
        r->err.status = status;
        rpc_fail_status(rpc, &r->err);
        return;
    }
    r->begun_at = store_position(r->store);
    r->left = r->plan.subscription ? UINT64_MAX : r->plan.count;
}

/* From memory and soon: the first slice of a read, and the newest events for who has all others. */
static bool suits_haste(const struct reading *r)
{
    if (r->cursor == NULL) return !r->plan.filtered;
    uint64_t seen = cursor_position(r->cursor);
    uint64_t end = store_position(r->store);
    return r->plan.subscription && (end <= seen || end - seen <= HASTE_EVENTS_MAX);
}

static enum rpc_pull read_pull(struct rpc *rpc, struct buf *out, size_t size_wanted, bool haste)
{
    struct reading *r = rpc->state;
    if (!haste) return reading_slice(r, out, size_wanted, false);
    if (!suits_haste(r)) return RPC_LATER;
    os_haste_begin(HASTE_READ_SIZE);
    enum rpc_pull answer = reading_slice(r, out, size_wanted, true);
    (void)os_haste_end();
    return answer;
}

static void read_close(struct rpc *rpc)
{
    struct reading *r = rpc->state;
    if (r == NULL) return;
    cursor_close(r->cursor);
    event_filter_destroy(r->filter);
}

static const char *const read_features[] = {"position", "events", NULL};

const struct rpc_method grpc_read_methods[] = {
    {
        RPC_METHOD("event_store.client.streams.Streams", "Read"),
        .follows = true,
        .features = read_features,
        .begin = read_begin,
        .message = read_message,
        .pull = read_pull,
        .close = read_close,
    },
};
const size_t grpc_read_method_count = sizeof grpc_read_methods / sizeof grpc_read_methods[0];
