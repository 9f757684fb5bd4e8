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
 * What is left of a removed event is a stub:
 *
 *   0      4      5          8      24     56                           size
 *   +------+------+----------+------+------+-----------------------------+
 *   | size | kind | reserved | salt | leaf | canonical event, without... |
 *   +------+------+----------+------+------+-----------------------------+
 *
 * (1) `fields` has a bit for each optional part that follows the type, in the order of the bits.
 * (2) The leaf covers the salt and the canonical event, nothing else: neither size nor kind, which
 *     change when an event is removed. A stub brings the leaf that it had when it was whole.
 * (3) Bytes have one decoding, and a decoded event has one encoding.
 * (4) A removed event is without metadata and data; an erased one also without causation id and
 *     actor, and without its salt: so its leaf tells nothing about what it was. What else there is
 *     stays, since conditions, revisions and idempotency are made from it.
 *
 * Normative: docs/format/log.md */
#include "log/event.h"

#include "base/planted.h"

#include <assert.h>

enum event_kind { EVENT_WHOLE = 1, EVENT_REMOVED = 2, EVENT_ERASED = 3 };

enum {
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
    FIELDS_SAYING = FIELDS_KNOWN & ~FIELD_TAGS, /* see parts_say_something */
    /* (4) */
    FIELDS_REMOVED = FIELD_METADATA,
    FIELDS_ERASED = FIELD_METADATA | FIELD_CAUSATION | FIELD_ACTOR,
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

/* `data`: a removed event has not even an empty one. */
static void write_canonical(struct buf *out, const struct deed_new_event *event,
                            const struct event_place *place, bool data)
{
    assert(event->tag_count <= UINT16_MAX);
    uint16_t fields = fields_of(event, place->idempotency_key);
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
    if (data) write_block(out, event->data);
}

static size_t begin_record(struct buf *out, enum event_kind kind,
                           const uint8_t salt[EVENT_SALT_SIZE])
{
    size_t start = out->len;
    write_u32(out, 0); /* the size, known at the end */
    write_u8(out, (uint8_t)kind);
    write_uint(out, 0, 3);
    buf_add(out, salt, EVENT_SALT_SIZE);
    return start;
}

static void end_record(struct buf *out, size_t start)
{
    if (buf_ok(out)) put_uint(out->ptr + start, out->len - start, 4);
}

void event_encode(struct buf *out, const struct deed_new_event *event,
                  const struct event_place *place, const uint8_t salt[EVENT_SALT_SIZE],
                  uint8_t out_leaf[SHA256_SIZE])
{
    size_t start = begin_record(out, EVENT_WHOLE, salt);
    write_canonical(out, event, place, true);
    end_record(out, start);
    if (!buf_ok(out)) return;

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
    if ((fields & FIELDS_SAYING) == 0) return true; /* most events */
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

static bool decode_canonical(deed_bytes bytes, enum event_kind kind, struct arena *arena,
                             struct deed_event *event)
{
    static const uint16_t missing[] = {[EVENT_REMOVED] = FIELDS_REMOVED,
                                       [EVENT_ERASED] = FIELDS_ERASED};
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
    if ((fields & ~(unsigned)FIELDS_KNOWN) != 0 || (fields & missing[kind]) != 0) return false;
    if (!read_optional(&r, arena, fields, event)) return false;
    if (kind == EVENT_WHOLE) event->data = read_block(&r);
    return reader_finished(&r);
}

/* A record, taken apart; its event goes where the caller wants it. */
struct record {
    enum event_kind kind;
    deed_bytes salt, leaf; /* leaf: of a stub */
    deed_bytes salted;     /* salt and canonical event, as the leaf of a whole event covers them */
};

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

static bool all_zero(deed_bytes bytes)
{
    for (size_t i = 0; i < bytes.len; i++) {
        if (bytes.ptr[i] != 0) return false;
    }
    return true;
}

static bool decode_record(struct reader *r, struct arena *arena, struct record *out,
                          struct deed_event *out_event)
{
    struct reader bytes = reader_over(read_record(r));
    if (!reader_ok(r)) return false;

    uint32_t kind_and_reserved = read_u32(&bytes);
    struct record record = {.kind = kind_and_reserved & 255};
    uint32_t reserved = kind_and_reserved >> 8;
    size_t salt_at = bytes.at;
    record.salt = read_bytes(&bytes, EVENT_SALT_SIZE);
    bool known = record.kind >= EVENT_WHOLE && record.kind <= EVENT_ERASED;
    if (known && record.kind != EVENT_WHOLE) record.leaf = read_bytes(&bytes, SHA256_SIZE);
    deed_bytes canonical = read_bytes(&bytes, reader_left(&bytes));
    record.salted = (deed_bytes){bytes.in.ptr + salt_at, bytes.in.len - salt_at};
    *out_event = (struct deed_event){0};
    if (!known || reserved != 0 || !reader_ok(&bytes) ||
        (record.kind == EVENT_ERASED && !all_zero(record.salt)) ||
        !decode_canonical(canonical, record.kind, arena, out_event)) {
        r->dry = true;
        return false;
    }
    out_event->removed = record.kind != EVENT_WHOLE;
    out_event->erased = record.kind == EVENT_ERASED;
    *out = record;
    return true;
}

static void leaf_of(const struct record *record, uint8_t out_leaf[SHA256_SIZE])
{
    if (record->kind == EVENT_WHOLE) {
        sha256(&record->salted, 1, out_leaf);
    } else {
        memcpy(out_leaf, record->leaf.ptr, SHA256_SIZE);
    }
}

bool event_decode(struct reader *r, struct arena *arena, struct deed_event *out_event,
                  uint8_t *out_leaf)
{
    struct record record;
    if (!decode_record(r, arena, &record, out_event)) return false;
    if (out_leaf != NULL) leaf_of(&record, out_leaf);
    return true;
}

bool event_skip(struct reader *r)
{
    (void)read_record(r);
    return reader_ok(r);
}

/* ---- removing ------------------------------------------------------------------------------- */

/* What is to be encoded again, from what was decoded. */
static void undecode(const struct deed_event *event, struct deed_new_event *out_new,
                     struct event_place *out_place)
{
    *out_new = (struct deed_new_event){.stream = event->stream,
                                       .type = event->type,
                                       .data = event->data,
                                       .metadata = event->metadata,
                                       .content_type = event->content_type,
                                       .tags = event->tags,
                                       .tag_count = event->tag_count,
                                       .correlation_id = event->correlation_id,
                                       .causation_id = event->causation_id,
                                       .actor = event->actor};
    *out_place = (struct event_place){.position = event->position,
                                      .revision = event->revision,
                                      .id = event->id,
                                      .time_ns = event->time_ns,
                                      .idempotency_key = event->idempotency_key,
                                      .request_hash = event->request_hash};
}

static void write_stub(struct buf *out, const struct record *record,
                       const struct deed_event *whole, enum event_kind kind,
                       const uint8_t leaf[SHA256_SIZE])
{
    static const uint8_t no_salt[EVENT_SALT_SIZE];
    struct deed_new_event event;
    struct event_place place;
    undecode(whole, &event, &place);
    event.metadata = event.data = (deed_bytes){0};
    if (kind == EVENT_ERASED) event.causation_id = event.actor = (deed_str){0};
    bool keep_salt = kind == EVENT_REMOVED || PLANTED(ERASE_KEEPS_SALT);
    size_t start = begin_record(out, kind, keep_salt ? record->salt.ptr : no_salt);
    buf_add(out, leaf, SHA256_SIZE);
    if (PLANTED(STUB_WITHOUT_TAGS)) event.tag_count = 0;
    write_canonical(out, &event, &place, false);
    end_record(out, start);
}

bool event_reduce(struct reader *r, enum event_fate fate, struct arena *arena, struct buf *out,
                  uint8_t out_leaf[SHA256_SIZE])
{
    size_t from = r->at;
    struct record record;
    struct deed_event event;
    if (!decode_record(r, arena, &record, &event)) return false;
    leaf_of(&record, out_leaf);
    enum event_kind kind = fate == EVENT_ERASE    ? EVENT_ERASED
                           : fate == EVENT_REMOVE ? EVENT_REMOVED
                                                  : EVENT_WHOLE;
    if (kind > record.kind) {
        write_stub(out, &record, &event, kind, out_leaf);
    } else {
        buf_add(out, r->in.ptr + from, r->at - from); /* what is gone stays gone */
    }
    return true;
}

bool event_was(struct reader *r, struct arena *arena, deed_bytes data, deed_bytes metadata,
               struct buf *scratch, bool *out_same)
{
    struct record record;
    struct deed_event stub;
    if (!decode_record(r, arena, &record, &stub)) return false;
    assert(stub.removed);
    *out_same = true;
    if (record.kind == EVENT_ERASED) return true;

    struct deed_new_event event;
    struct event_place place;
    uint8_t leaf[SHA256_SIZE];
    undecode(&stub, &event, &place);
    event.data = data;
    event.metadata = metadata;
    size_t start = scratch->len;
    event_encode(scratch, &event, &place, record.salt.ptr, leaf);
    bool ok = buf_ok(scratch);
    scratch->len = start;
    *out_same = ok && memcmp(leaf, record.leaf.ptr, SHA256_SIZE) == 0;
    return ok;
}
