/* event.c - the record of an event.
 *
 *   0      4      5          8      24                      size
 *   +------+------+----------+------+------------------------+
 *   | size | kind | reserved | salt | canonical event        |   little endian
 *   +------+------+----------+------+------------------------+
 *
 *   0          8          16   32     40       42         44       46
 *   +----------+----------+----+------+--------+----------+--------+--------+------+-----+------+
 *   | position | revision | id | time | fields | stream n | type n | stream | type | ... | data |
 *   +----------+----------+----+------+--------+----------+--------+--------+------+-----+------+
 *
 * (1) `fields` has a bit for each optional part that follows the type, in the order of the bits.
 * (2) The leaf covers the salt and the canonical event, nothing else: neither size nor kind, which
 *     change when an event is removed.
 * (3) Bytes have one decoding, and a decoded event has one encoding.
 *
 * Normative: docs/format/log.md */
#include "log/event.h"

#include <assert.h>

enum {
    EVENT_WHOLE = 1, /* kind; a later version's stub is another */
    EVENT_HEAD_SIZE = 4 + 1 + 3 + EVENT_SALT_SIZE,
    EVENT_FIXED_SIZE = 8 + 8 + 16 + 8 + 2 + 2 + 2,
};

enum {
    FIELD_CONTENT_TYPE = 1, /* absent: application/json */
    FIELD_METADATA = 2,
    FIELD_TAGS = 4,
    FIELD_CORRELATION = 8,
    FIELD_CAUSATION = 16,
    FIELD_ACTOR = 32,
    FIELD_KEY = 64,
    FIELDS_KNOWN = 127,
};

static const deed_str json_type = {"application/json", 16};

static void write_name(struct buf *out, deed_str name)
{
    assert(name.len <= UINT16_MAX);
    write_u16(out, (uint16_t)name.len);
    buf_add_str(out, name);
}

static deed_str read_name(struct reader *r)
{
    deed_bytes b = read_bytes(r, read_u16(r));
    return (deed_str){(const char *)b.ptr, b.len};
}

size_t event_size(const struct deed_new_event *event, deed_str idempotency_key)
{
    size_t size = EVENT_HEAD_SIZE + EVENT_FIXED_SIZE + event->stream.len + event->type.len;
    size += 2 + event->content_type.len + 4 + event->metadata.len + 2;
    for (size_t i = 0; i < event->tag_count; i++) size += 2 + event->tags[i].len;
    size += 2 + event->correlation_id.len + 2 + event->causation_id.len + 2 + event->actor.len;
    size += 2 + idempotency_key.len + EVENT_KEY_HASH_SIZE + 4 + event->data.len;
    return size;
}

static uint16_t fields_of(const struct deed_new_event *event, deed_str key)
{
    bool json = event->content_type.len == 0 || deed_str_equal(event->content_type, json_type);
    unsigned fields = 0;
    if (!json) fields |= FIELD_CONTENT_TYPE;
    if (event->metadata.len > 0) fields |= FIELD_METADATA;
    if (event->tag_count > 0) fields |= FIELD_TAGS;
    if (event->correlation_id.len > 0) fields |= FIELD_CORRELATION;
    if (event->causation_id.len > 0) fields |= FIELD_CAUSATION;
    if (event->actor.len > 0) fields |= FIELD_ACTOR;
    if (key.len > 0) fields |= FIELD_KEY;
    return (uint16_t)fields;
}

static void write_optional(struct buf *out, const struct deed_new_event *event,
                           const struct event_place *place, uint16_t fields)
{
    if (fields & FIELD_CONTENT_TYPE) write_name(out, event->content_type);
    if (fields & FIELD_METADATA) write_block(out, event->metadata);
    if (fields & FIELD_TAGS) {
        write_u16(out, (uint16_t)event->tag_count);
        for (size_t i = 0; i < event->tag_count; i++) write_name(out, event->tags[i]);
    }
    if (fields & FIELD_CORRELATION) write_name(out, event->correlation_id);
    if (fields & FIELD_CAUSATION) write_name(out, event->causation_id);
    if (fields & FIELD_ACTOR) write_name(out, event->actor);
    if (fields & FIELD_KEY) {
        write_name(out, place->idempotency_key);
        buf_add(out, place->request_hash, EVENT_KEY_HASH_SIZE);
    }
}

void event_encode(struct buf *out, const struct deed_new_event *event,
                  const struct event_place *place, const uint8_t salt[EVENT_SALT_SIZE],
                  uint8_t out_leaf[SHA256_SIZE])
{
    assert(event->tag_count <= UINT16_MAX);
    size_t start = out->len;
    uint16_t fields = fields_of(event, place->idempotency_key);

    write_u32(out, 0); /* the size, known below */
    write_u8(out, EVENT_WHOLE);
    write_uint(out, 0, 3);
    buf_add(out, salt, EVENT_SALT_SIZE);

    write_u64(out, place->position);
    write_u64(out, place->revision);
    buf_add(out, place->id.bytes, sizeof place->id.bytes);
    write_i64(out, place->time_ns);
    write_u16(out, fields);
    write_u16(out, (uint16_t)event->stream.len);
    write_u16(out, (uint16_t)event->type.len);
    buf_add_str(out, event->stream);
    buf_add_str(out, event->type);
    write_optional(out, event, place, fields);
    write_block(out, event->data);
    if (!buf_ok(out)) return;

    size_t size = out->len - start;
    put_uint(out->ptr + start, size, 4);
    size_t covered_from = start + EVENT_HEAD_SIZE - EVENT_SALT_SIZE;
    sha256(&(deed_bytes){out->ptr + covered_from, out->len - covered_from}, 1, out_leaf);
}

static bool read_tags(struct reader *r, struct arena *arena, struct deed_event *event)
{
    size_t count = read_u16(r);
    if (count == 0 || count > reader_left(r) / 2) return false;
    deed_str *tags = arena_alloc_array(arena, count, sizeof *tags);
    if (tags == NULL) return false;
    for (size_t i = 0; i < count; i++) tags[i] = read_name(r);
    event->tags = tags;
    event->tag_count = count;
    return true;
}

/* A part that is said to be there says something (3). */
static bool parts_say_something(const struct deed_event *event, uint16_t fields)
{
    struct {
        unsigned field;
        bool empty;
    } parts[] = {
        {FIELD_CONTENT_TYPE, event->content_type.len == 0},
        {FIELD_CONTENT_TYPE, deed_str_equal(event->content_type, json_type)},
        {FIELD_METADATA, event->metadata.len == 0},
        {FIELD_CORRELATION, event->correlation_id.len == 0},
        {FIELD_CAUSATION, event->causation_id.len == 0},
        {FIELD_ACTOR, event->actor.len == 0},
        {FIELD_KEY, event->idempotency_key.len == 0},
    };
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        if ((fields & parts[i].field) != 0 && parts[i].empty) return false;
    }
    return true;
}

static bool read_optional(struct reader *r, struct arena *arena, uint16_t fields,
                          struct deed_event *event)
{
    event->content_type = fields & FIELD_CONTENT_TYPE ? read_name(r) : json_type;
    if (fields & FIELD_METADATA) event->metadata = read_block(r);
    if (fields & FIELD_TAGS && !read_tags(r, arena, event)) return false;
    if (fields & FIELD_CORRELATION) event->correlation_id = read_name(r);
    if (fields & FIELD_CAUSATION) event->causation_id = read_name(r);
    if (fields & FIELD_ACTOR) event->actor = read_name(r);
    if (fields & FIELD_KEY) {
        event->idempotency_key = read_name(r);
        event->request_hash = read_bytes(r, EVENT_KEY_HASH_SIZE).ptr;
    }
    return parts_say_something(event, fields);
}

static bool decode_canonical(deed_bytes bytes, struct arena *arena, struct deed_event *event)
{
    struct reader r = reader_over(bytes);
    event->position = read_u64(&r);
    event->revision = read_u64(&r);
    read_into(&r, event->id.bytes, sizeof event->id.bytes);
    event->time_ns = read_i64(&r);
    uint16_t fields = read_u16(&r);
    size_t stream_size = read_u16(&r);
    size_t type_size = read_u16(&r);
    deed_bytes stream = read_bytes(&r, stream_size);
    deed_bytes type = read_bytes(&r, type_size);
    event->stream = (deed_str){(const char *)stream.ptr, stream.len};
    event->type = (deed_str){(const char *)type.ptr, type.len};
    if ((fields & ~(unsigned)FIELDS_KNOWN) != 0) return false;
    if (!read_optional(&r, arena, fields, event)) return false;
    event->data = read_block(&r);
    return reader_finished(&r);
}

/* The record's bytes behind its size; the reader moves on. */
static deed_bytes read_record(struct reader *r)
{
    size_t size = read_u32(r);
    if (size < EVENT_HEAD_SIZE + EVENT_FIXED_SIZE) {
        r->dry = true;
        return (deed_bytes){0};
    }
    return read_bytes(r, size - 4);
}

bool event_decode(struct reader *r, struct arena *arena, struct deed_event *out_event,
                  uint8_t *out_leaf)
{
    struct reader record = reader_over(read_record(r));
    if (!reader_ok(r)) return false;

    uint8_t kind = read_u8(&record);
    uint64_t reserved = read_uint(&record, 3);
    size_t salt_at = record.at;
    (void)read_bytes(&record, EVENT_SALT_SIZE);
    deed_bytes canonical = read_bytes(&record, reader_left(&record));

    struct deed_event event = {0};
    if (kind != EVENT_WHOLE || reserved != 0 || !reader_ok(&record) ||
        !decode_canonical(canonical, arena, &event)) {
        r->dry = true;
        return false;
    }
    if (out_leaf != NULL) {
        sha256(&(deed_bytes){record.in.ptr + salt_at, record.in.len - salt_at}, 1, out_leaf);
    }
    *out_event = event;
    return true;
}

bool event_skip(struct reader *r)
{
    (void)read_record(r);
    return reader_ok(r);
}
