/* grpc_event.c - RecordedEvent and ProposedMessage.
 *
 *   ReadEvent
 *   +----------------+---------------+-------------------+
 *   | 1 event        | 2 link        | 3 commit_position |
 *   +----------------+---------------+-------------------+
 *        | RecordedEvent
 *        +------+----------+------------+-----------+----------+------------+----------+--------+
 *        | 1 id | 2 stream | 3 revision | 4 prepare | 5 commit | 6 metadata | 7 custom | 8 data |
 *        +------+----------+------------+-----------+----------+------------+----------+--------+
 *
 * (1) A message's length stands before it, so its size is reckoned first, then it is written into
 *     room that is there: the one place where both must agree asserts that they do.
 * (2) Bytes of clients are never changed: what is put beside them is read from them. */
#include "api/grpc_event.h"

#include "api/cloudevent.h"
#include "base/text.h"
#include "base/uuid.h"
#include "grpc/pb.h"
#include "json/json.h"
#include "store/store.h"

#include <assert.h>
#include <endian.h>

#define NS_PER_TICK 100

static const deed_str type_key = {"type", 4};
static const deed_str created_key = {"created", 7};
static const deed_str content_type_key = {"content-type", 12};
static const deed_str json_type = {"application/json", 16};
static const deed_str bytes_type = {"application/octet-stream", 24};
static const deed_str unchecked_type = {GRPC_UNCHECKED_JSON, sizeof GRPC_UNCHECKED_JSON - 1};

/* ---- going out ------------------------------------------------------------------------------ */

static uint8_t *write_head(uint8_t *at, unsigned field, size_t len)
{
    assert(field < 16); /* one byte, as the sizes below reckon */
    *at++ = (uint8_t)pb_tag(field, PB_BYTES);
    return pb_write_varint(at, len);
}

static uint8_t *write_str(uint8_t *at, unsigned field, deed_str s)
{
    at = write_head(at, field, s.len);
    if (s.len > 0) memcpy(at, s.ptr, s.len);
    return at + s.len;
}

static uint8_t *write_uint(uint8_t *at, unsigned field, uint64_t value)
{
    *at++ = (uint8_t)pb_tag(field, PB_VARINT);
    return pb_write_varint(at, value);
}

static int64_t half(const uint8_t *bytes)
{
    uint64_t value;
    memcpy(&value, bytes, sizeof value);
    return (int64_t)be64toh(value);
}

static size_t uuid_size(deed_uuid id, bool structured)
{
    if (!structured) return 2 + UUID_TEXT_SIZE;
    size_t size = 2 + pb_varint_size((uint64_t)half(id.bytes));
    return 2 + size + pb_varint_size((uint64_t)half(id.bytes + 8));
}

/* `size`: as uuid_size says. */
static uint8_t *write_uuid(uint8_t *at, deed_uuid id, bool structured, size_t size)
{
    if (!structured) {
        char text[UUID_TEXT_SIZE + 1];
        uuid_format(id, text);
        return write_str(at, 2, (deed_str){text, UUID_TEXT_SIZE});
    }
    at = write_head(at, 1, size - 2);
    at = write_uint(at, 1, (uint64_t)half(id.bytes));
    return write_uint(at, 2, (uint64_t)half(id.bytes + 8));
}

void grpc_put_uuid(struct buf *out, unsigned field, deed_uuid id, bool structured)
{
    uint8_t room[64];
    size_t size = uuid_size(id, structured);
    const uint8_t *end = write_uuid(room, id, structured, size);
    assert((size_t)(end - room) == size);
    pb_put_bytes(out, field, (deed_bytes){room, size});
}

void grpc_put_stream(struct buf *out, unsigned field, deed_str stream)
{
    size_t begin = pb_begin(out, field);
    pb_put_str(out, 3, stream);
    pb_end(out, begin);
}

void grpc_put_position(struct buf *out, unsigned field, uint64_t position)
{
    size_t begin = pb_begin(out, field);
    pb_put_uint(out, 1, position);
    pb_put_uint(out, 2, position);
    pb_end(out, begin);
}

/* What a RecordedEvent says that the event does not say by itself, and its size (1). */
struct recorded {
    const struct deed_event *event;
    bool structured;
    char ticks[U64_TEXT_SIZE];
    deed_str created, content_type;
    uint64_t revision;
    size_t id_size, size;
};

static size_t entry_size(deed_str key, deed_str value)
{
    return pb_bytes_size(1, key.len) + pb_bytes_size(2, value.len);
}

static bool shown_as_json(deed_str type)
{
    if (deed_str_equal(type, json_type) || deed_str_equal(type, unchecked_type)) return true;
    /* HTTP clients say more: "application/json; charset=utf-8". */
    return type.len > json_type.len && memcmp(type.ptr, json_type.ptr, json_type.len) == 0 &&
           (type.ptr[json_type.len] == ';' || type.ptr[json_type.len] == ' ');
}

static size_t optional_size(unsigned field, size_t len)
{
    return len == 0 ? 0 : pb_bytes_size(field, len);
}

static void recorded_init(struct recorded *r, const struct deed_event *event, bool structured)
{
    r->event = event;
    r->structured = structured;
    uint64_t ticks = event->recorded_at_ns < 0 ? 0 : (uint64_t)event->recorded_at_ns / NS_PER_TICK;
    r->created = (deed_str){r->ticks, u64_format(ticks, r->ticks)};
    r->content_type = shown_as_json(event->content_type) ? json_type : bytes_type;
    bool closes = deed_str_equal(event->type, DEED_STR(STORE_TOMBSTONE_TYPE));
    r->revision = closes ? INT64_MAX : event->revision;
    r->id_size = uuid_size(event->id, structured);
    r->size = pb_bytes_size(1, r->id_size) +
              pb_bytes_size(2, pb_bytes_size(3, event->stream.len)) +
              (1 + pb_varint_size(r->revision)) + 2 * (1 + pb_varint_size(event->position)) +
              pb_bytes_size(6, entry_size(type_key, event->type)) +
              pb_bytes_size(6, entry_size(created_key, r->created)) +
              pb_bytes_size(6, entry_size(content_type_key, r->content_type)) +
              optional_size(7, event->metadata.len) + optional_size(8, event->data.len);
}

static uint8_t *write_entry(uint8_t *at, deed_str key, deed_str value)
{
    at = write_head(at, 6, entry_size(key, value));
    at = write_str(at, 1, key);
    return write_str(at, 2, value);
}

static uint8_t *write_bytes(uint8_t *at, unsigned field, deed_bytes bytes)
{
    return bytes.len == 0 ? at : write_str(at, field, (deed_str){(const char *)bytes.ptr, bytes.len});
}

static uint8_t *write_recorded(uint8_t *at, unsigned field, const struct recorded *r)
{
    const struct deed_event *event = r->event;
    at = write_head(at, field, r->size);
    const uint8_t *begin = at;
    at = write_head(at, 1, r->id_size);
    at = write_uuid(at, event->id, r->structured, r->id_size);
    at = write_head(at, 2, pb_bytes_size(3, event->stream.len));
    at = write_str(at, 3, event->stream);
    at = write_uint(at, 3, r->revision);
    at = write_uint(at, 4, event->position);
    at = write_uint(at, 5, event->position);
    at = write_entry(at, type_key, event->type);
    at = write_entry(at, created_key, r->created);
    at = write_entry(at, content_type_key, r->content_type);
    at = write_bytes(at, 7, event->metadata);
    at = write_bytes(at, 8, event->data);
    assert((size_t)(at - begin) == r->size); /* (1) */
    return at;
}

void grpc_put_recorded(struct buf *out, unsigned field, const struct deed_event *event,
                       bool structured_ids)
{
    struct recorded r;
    recorded_init(&r, event, structured_ids);
    uint8_t *at = buf_reserve(out, pb_bytes_size(field, r.size));
    if (at == NULL) return;
    out->len += (size_t)(write_recorded(at, field, &r) - at);
}

void grpc_put_read_event(struct buf *out, unsigned field, const struct deed_event *event,
                         const struct deed_event *link, bool structured_ids, deed_bytes more)
{
    struct recorded first, second;
    assert(event != NULL || link != NULL);
    const struct deed_event *original = link != NULL ? link : event;
    size_t size = 1 + pb_varint_size(original->position) + more.len;
    if (event != NULL) {
        recorded_init(&first, event, structured_ids);
        size += pb_bytes_size(1, first.size);
    }
    if (link != NULL) {
        recorded_init(&second, link, structured_ids);
        size += pb_bytes_size(2, second.size);
    }
    uint8_t *room = buf_reserve(out, pb_bytes_size(field, size));
    if (room == NULL) return;
    uint8_t *at = write_head(room, field, size);
    const uint8_t *begin = at;
    if (event != NULL) at = write_recorded(at, 1, &first);
    if (link != NULL) at = write_recorded(at, 2, &second);
    at = write_uint(at, 3, original->position);
    if (more.len > 0) memcpy(at, more.ptr, more.len);
    at += more.len;
    assert((size_t)(at - begin) == size); /* (1) */
    out->len += (size_t)(at - room);
}

/* ---- coming in ------------------------------------------------------------------------------ */

static bool parse_structured(deed_bytes message, deed_uuid *out)
{
    uint64_t halves[2] = {0, 0};
    struct pb_reader r = pb_reader_over(message);
    for (struct pb_field f; pb_next(&r, &f);) {
        if (f.wire == PB_VARINT && (f.number == 1 || f.number == 2)) halves[f.number - 1] = f.value;
    }
    for (size_t i = 0; i < 16; i++) {
        out->bytes[i] = (uint8_t)(halves[i / 8] >> (56 - 8 * (i % 8)));
    }
    return !r.bad;
}

bool grpc_parse_uuid(deed_bytes message, deed_uuid *out)
{
    struct pb_reader r = pb_reader_over(message);
    bool found = false;
    for (struct pb_field f; pb_next(&r, &f);) {
        if (pb_is(&f, 1, PB_BYTES)) {
            found = parse_structured(f.bytes, out);
        } else if (pb_is(&f, 2, PB_BYTES)) {
            found = uuid_parse(pb_str(&f), out);
        } else {
            continue;
        }
        if (!found) return false;
    }
    return found && !r.bad;
}

bool grpc_parse_stream(deed_bytes message, deed_str *out)
{
    struct pb_reader r = pb_reader_over(message);
    *out = (deed_str){"", 0};
    for (struct pb_field f; pb_next(&r, &f);) {
        if (pb_is(&f, 3, PB_BYTES)) *out = pb_str(&f);
    }
    return !r.bad;
}

static bool parse_entry(deed_bytes message, deed_str *out_key, deed_str *out_value)
{
    struct pb_reader r = pb_reader_over(message);
    *out_key = *out_value = (deed_str){"", 0};
    for (struct pb_field f; pb_next(&r, &f);) {
        if (pb_is(&f, 1, PB_BYTES)) *out_key = pb_str(&f);
        if (pb_is(&f, 2, PB_BYTES)) *out_value = pb_str(&f);
    }
    return !r.bad;
}

/* The type that the event is stored with. Without "application/json" it is bytes, for which a client
 * may have a name of its own; one that claims JSON otherwise is kept if it is right. */
static deed_str stored_type(deed_str given, deed_bytes data, uint32_t depth_max)
{
    if (deed_str_equal(given, json_type)) {
        return json_check(data, depth_max, NULL) == DEED_OK ? json_type : unchecked_type;
    }
    bool plain = given.len > 0 && given.len <= 255 && text_is_plain(given);
    if (!plain || deed_str_equal(given, unchecked_type)) return bytes_type;
    if (!content_type_is_json(given)) return given;
    return json_check(data, depth_max, NULL) == DEED_OK ? given : bytes_type;
}

#define CORRELATION_KEY "$correlationId"
#define CAUSATION_KEY   "$causationId"
#define ID_SIZE_MAX     255

/* (2): the slice lies in the metadata. An id with an escape in it, or one that the store would not
 * take for a name, is none. */
static deed_str id_of(json_value root, deed_str key)
{
    json_value value = json_get(root, key);
    if (json_kind_of(value) != JSON_STRING) return (deed_str){0};
    deed_str raw = json_raw(value);
    deed_str text = json_text(value);
    bool as_it_stands = raw.len == text.len + 2;
    if (!as_it_stands || text.len == 0 || text.len > ID_SIZE_MAX) return (deed_str){0};
    if (memchr(text.ptr, 0x7f, text.len) != NULL) return (deed_str){0};
    return (deed_str){raw.ptr + 1, text.len};
}

/* Most metadata has no such id, and a look for the name is cheaper than to parse it. */
void grpc_find_ids(struct deed_new_event *event, uint32_t depth_max)
{
    deed_bytes m = event->metadata;
    if (m.len == 0) return;
    if (memmem(m.ptr, m.len, CORRELATION_KEY, sizeof CORRELATION_KEY - 1) == NULL &&
        memmem(m.ptr, m.len, CAUSATION_KEY, sizeof CAUSATION_KEY - 1) == NULL) {
        return;
    }
    struct arena arena;
    json_value root;
    arena_init(&arena, m.len * 16 + (1 << 16));
    if (json_parse(&arena, m, depth_max, &root, NULL) == DEED_OK) {
        event->correlation_id = id_of(root, DEED_STR(CORRELATION_KEY));
        event->causation_id = id_of(root, DEED_STR(CAUSATION_KEY));
    }
    arena_done(&arena);
}

/* One field. false: malformed. */
static bool take_field(const struct pb_field *f, struct deed_new_event *event,
                       deed_str *content_type, enum grpc_proposed *fault)
{
    if (f->wire != PB_BYTES) return true;
    deed_str key, value;
    switch (f->number) {
    case 1:
        *fault = grpc_parse_uuid(f->bytes, &event->id) ? GRPC_PROPOSED_OK : GRPC_PROPOSED_NO_ID;
        return true;
    case 2:
        if (!parse_entry(f->bytes, &key, &value)) return false;
        if (deed_str_equal(key, type_key)) event->type = value;
        if (deed_str_equal(key, content_type_key)) *content_type = value;
        return true;
    case 3:
        event->metadata = f->bytes;
        return true;
    case 4:
        event->data = f->bytes;
        return true;
    default:
        return true;
    }
}

enum grpc_proposed grpc_parse_proposed(deed_bytes message, uint32_t depth_max,
                                       struct deed_new_event *out)
{
    struct deed_new_event event = {.stream = out->stream};
    deed_str content_type = {0};
    enum grpc_proposed fault = GRPC_PROPOSED_NO_ID;
    struct pb_reader r = pb_reader_over(message);
    for (struct pb_field f; pb_next(&r, &f);) {
        if (!take_field(&f, &event, &content_type, &fault)) return GRPC_PROPOSED_MALFORMED;
    }
    if (r.bad) return GRPC_PROPOSED_MALFORMED;
    if (fault != GRPC_PROPOSED_OK || uuid_is_zero(event.id)) return GRPC_PROPOSED_NO_ID;
    if (event.type.len == 0 || content_type.ptr == NULL) return GRPC_PROPOSED_METADATA;
    event.content_type = stored_type(content_type, event.data, depth_max);
    grpc_find_ids(&event, depth_max);
    *out = event;
    return GRPC_PROPOSED_OK;
}
