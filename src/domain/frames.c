/* frames.c - the bytes between server and worker.
 *
 *   0      4      5
 *   +------+------+-------------+
 *   | size | kind | fields      |    size covers kind and fields; little endian
 *   +------+------+-------------+
 *
 * (1) A frame is written whole or not at all: the size is put in when it is known.
 * (2) The worker runs other people's code, so the server trusts nothing that it sends: sizes,
 *     counts and kinds are checked, and a frame that is not exactly used up is malformed.
 *
 * Normative: docs/protocol/worker.md */
#include "domain/frames.h"

#include "base/text.h"

#include <assert.h>
#include <stdio.h>

#define HEAD_SIZE 4

/* Statuses have numbers of their own here, so that the enum may change. */
static const deed_status wire_statuses[] = {
    DEED_OK,     DEED_REJECTED,  DEED_INVALID,   DEED_NOT_FOUND, DEED_DOMAIN,
    DEED_MISUSE, DEED_NO_MEMORY, DEED_TOO_LARGE, DEED_TOO_NEW,
};
#define WIRE_STATUS_COUNT (sizeof wire_statuses / sizeof *wire_statuses)

static uint8_t status_to_wire(deed_status status)
{
    for (size_t i = 0; i < WIRE_STATUS_COUNT; i++) {
        if (wire_statuses[i] == status) return (uint8_t)i;
    }
    return status_to_wire(DEED_DOMAIN);
}

static deed_status status_from_wire(uint8_t wire)
{
    return wire < WIRE_STATUS_COUNT ? wire_statuses[wire] : DEED_DOMAIN;
}

/* ---- frames --------------------------------------------------------------------------------- */

static size_t frame_begin(struct buf *out, enum frame_kind kind)
{
    size_t start = out->len;
    write_u32(out, 0);
    write_u8(out, (uint8_t)kind);
    return start;
}

static void frame_end(struct buf *out, size_t start)
{
    if (!buf_ok(out)) return;
    assert(out->len - start > HEAD_SIZE);
    put_uint(out->ptr + start, out->len - start - HEAD_SIZE, HEAD_SIZE);
}

deed_status frame_next(deed_bytes in, deed_bytes *out_payload, size_t *out_size,
                       struct deed_error *err)
{
    if (in.len < HEAD_SIZE) return DEED_END;
    struct reader r = reader_over(in);
    size_t size = read_u32(&r);
    if (size == 0 || size > FRAME_SIZE_MAX) {
        return deed_fail(err, DEED_CORRUPT, "frame: size %zu, limit %zu", size, FRAME_SIZE_MAX);
    }
    *out_payload = read_bytes(&r, size);
    if (!reader_ok(&r)) return DEED_END;
    *out_size = HEAD_SIZE + size;
    return DEED_OK;
}

enum frame_kind frame_kind_of(deed_bytes payload)
{
    return (enum frame_kind)payload.ptr[0];
}

static struct reader payload_reader(deed_bytes payload)
{
    struct reader r = reader_over(payload);
    (void)read_u8(&r);
    return r;
}

void frame_hello(struct buf *out, deed_str model)
{
    size_t start = frame_begin(out, FRAME_HELLO);
    write_u32(out, FRAME_PROTOCOL_VERSION);
    write_text(out, model);
    frame_end(out, start);
}

bool frame_hello_read(deed_bytes payload, uint32_t *out_version, deed_str *out_model)
{
    struct reader r = payload_reader(payload);
    *out_version = read_u32(&r);
    *out_model = read_text(&r);
    return reader_finished(&r);
}

/* A message and a code, as much as a deed_error holds. The text may be anything. */
static void text_put(char *out, size_t size, deed_str text)
{
    size_t len = text.len < size - 1 ? text.len : size - 1;
    if (len > 0) memcpy(out, text.ptr, len);
    while (len > 0 && !utf8_valid((deed_bytes){(const uint8_t *)out, len}))
        len--;
    out[len] = '\0';
}

static void error_write(struct buf *out, const struct deed_error *error)
{
    write_u8(out, status_to_wire(error->status));
    write_text(out, deed_str_of(error->code));
    write_text(out, deed_str_of(error->message));
}

static void error_read(struct reader *r, struct deed_error *out)
{
    *out = (struct deed_error){.status = status_from_wire(read_u8(r)),
                               .condition = DEED_NONE,
                               .position = DEED_NONE,
                               .revision = DEED_NONE};
    text_put(out->code, sizeof out->code, read_text(r));
    text_put(out->message, sizeof out->message, read_text(r));
}

void frame_failed(struct buf *out, const struct deed_error *error)
{
    size_t start = frame_begin(out, FRAME_FAILED);
    error_write(out, error);
    frame_end(out, start);
}

bool frame_failed_read(deed_bytes payload, struct deed_error *out_error)
{
    struct reader r = payload_reader(payload);
    error_read(&r, out_error);
    return reader_finished(&r);
}

/* ---- requests ------------------------------------------------------------------------------- */

/* The least an event takes: revision, time, and three lengths. */
#define EVENT_SIZE_MIN (8 + 8 + 4 + 4 + 4)

static void event_write(struct buf *out, const struct host_event *event)
{
    write_u64(out, event->revision);
    write_i64(out, event->time_ns);
    write_text(out, event->type);
    write_text(out, event->actor);
    write_block(out, event->data);
}

/* NULL only when it is malformed or there is no memory; a count of 0 is fine. */
static struct host_event *events_read(struct reader *r, struct arena *arena, size_t *out_count)
{
    size_t count = read_u32(r);
    if (count > reader_left(r) / EVENT_SIZE_MIN) return NULL;
    struct host_event *events = arena_alloc_array(arena, count, sizeof *events);
    if (events == NULL) return NULL;
    for (size_t i = 0; i < count; i++) {
        events[i].revision = read_u64(r);
        events[i].time_ns = read_i64(r);
        events[i].type = read_text(r);
        events[i].actor = read_text(r);
        events[i].data = read_block(r);
    }
    *out_count = count;
    return events;
}

void frame_request(struct buf *out, uint32_t sequence, const struct host_request *request)
{
    size_t start = frame_begin(out, FRAME_REQUEST);
    write_u32(out, sequence);
    write_u8(out, (uint8_t)request->work);
    write_text(out, request->slot);
    write_text(out, request->stream);
    write_u64(out, request->base_revision);
    write_u32(out, (uint32_t)request->event_count);
    for (size_t i = 0; i < request->event_count; i++)
        event_write(out, &request->events[i]);
    write_text(out, request->command);
    write_block(out, request->data);
    write_i64(out, request->now_ns);
    write_text(out, request->actor);
    frame_end(out, start);
}

bool frame_request_read(deed_bytes payload, struct arena *arena, uint32_t *out_sequence,
                        struct host_request *out_request)
{
    struct reader r = payload_reader(payload);
    struct host_request q = {0};
    *out_sequence = read_u32(&r);
    q.work = (enum host_work)read_u8(&r);
    q.slot = read_text(&r);
    q.stream = read_text(&r);
    q.base_revision = read_u64(&r);
    q.events = events_read(&r, arena, &q.event_count);
    if (q.events == NULL) return false;
    q.command = read_text(&r);
    q.data = read_block(&r);
    q.now_ns = read_i64(&r);
    q.actor = read_text(&r);
    *out_request = q;
    return reader_finished(&r) && q.work <= HOST_STATE;
}

/* ---- answers -------------------------------------------------------------------------------- */

void frame_answer(struct buf *out, uint32_t sequence, const struct host_answer *answer)
{
    size_t start = frame_begin(out, FRAME_ANSWER);
    write_u32(out, sequence);
    write_u8(out, (uint8_t)answer->outcome);
    if (answer->outcome == HOST_FAILED) {
        error_write(out, &answer->error);
    } else if (answer->outcome == HOST_DONE) {
        write_u32(out, (uint32_t)answer->event_count);
        for (size_t i = 0; i < answer->event_count; i++)
            event_write(out, &answer->events[i]);
        write_block(out, answer->state);
    }
    frame_end(out, start);
}

bool frame_answer_read(deed_bytes payload, struct arena *arena, uint32_t *out_sequence,
                       struct host_answer *out_answer)
{
    deed_bytes kept = arena_bytes(arena, payload);
    if (kept.ptr == NULL) return false;
    struct reader r = payload_reader(kept);
    struct host_answer a = {0};
    *out_sequence = read_u32(&r);
    a.outcome = (enum host_outcome)read_u8(&r);
    if (a.outcome == HOST_FAILED) {
        error_read(&r, &a.error);
        if (a.error.status == DEED_OK) return false;
    } else if (a.outcome == HOST_DONE) {
        a.events = events_read(&r, arena, &a.event_count);
        if (a.events == NULL) return false;
        a.state = read_block(&r);
    }
    *out_answer = a;
    return reader_finished(&r) && a.outcome <= HOST_NEED_EVENTS;
}
