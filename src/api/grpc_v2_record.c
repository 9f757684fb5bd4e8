/* grpc_v2_record.c - records, and the values of their properties.
 *
 *     Value   1 null | 2 double | 3 text | 4 bool | 5 Struct ─► entries ─► Value | 6 list ─► Value
 *
 * (1) A Value may hold Values: how deep is counted, and bounded before the stack is.
 * (2) JSON that leaves here has each key once: of entries with one key the last counts, as in any map
 *     of Protocol Buffers.
 * (3) A double is written as the shortest text that reads back; what JSON cannot say is a string. */
#include "api/grpc_v2_record.h"

#include "base/text.h"
#include "base/uuid.h"
#include "grpc/pb.h"
#include "json/json.h"
#include "store/store.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

/* ---- values --------------------------------------------------------------------------------- */

struct value_writer {
    struct arena *scratch;
    struct json_writer *w;
    uint32_t depth_max;
    const char *why;
};

static bool wrong(struct value_writer *v, const char *why)
{
    v->why = why;
    return false;
}

struct entry {
    deed_str key;
    deed_bytes value;
    bool has_value;
    size_t index;
    bool hidden; /* another of this key comes later (2) */
};

static int entry_order(const void *a, const void *b)
{
    const struct entry *x = *(const struct entry *const *)a;
    const struct entry *y = *(const struct entry *const *)b;
    int order = str_compare(x->key, y->key);
    if (order != 0) return order;
    return (x->index > y->index) - (x->index < y->index);
}

static bool parse_entry(deed_bytes message, struct entry *out)
{
    struct pb_reader r = pb_reader_over(message);
    out->key = (deed_str){"", 0};
    for (struct pb_field f; pb_next(&r, &f);) {
        if (pb_is(&f, 1, PB_BYTES)) out->key = pb_str(&f);
        if (pb_is(&f, 2, PB_BYTES)) {
            out->value = f.bytes;
            out->has_value = true;
        }
    }
    return !r.bad;
}

/* (2) */
static bool hide_repeated(struct value_writer *v, struct entry *entries, size_t count)
{
    if (count < 2) return true;
    struct entry **sorted = arena_alloc_array(v->scratch, count, sizeof(struct entry *));
    if (sorted == NULL) return wrong(v, "out of memory for its properties");
    for (size_t i = 0; i < count; i++) sorted[i] = &entries[i];
    qsort(sorted, count, sizeof(struct entry *), entry_order);
    for (size_t i = 1; i < count; i++) {
        sorted[i - 1]->hidden = deed_str_equal(sorted[i - 1]->key, sorted[i]->key);
    }
    return true;
}

static bool put_value(struct value_writer *v, deed_bytes value, uint32_t depth);

/* The entries that stand in `message` as fields of this number. NULL: `why`. */
static struct entry *read_entries(struct value_writer *v, deed_bytes message, unsigned field,
                                  size_t *out_count)
{
    size_t count = 0;
    struct pb_field f;
    struct pb_reader r = pb_reader_over(message);
    while (pb_next(&r, &f)) count += pb_is(&f, field, PB_BYTES);
    struct entry *entries = arena_alloc_array(v->scratch, count, sizeof *entries);
    bool good = !r.bad || wrong(v, "a value is malformed");
    if (good && entries == NULL) good = wrong(v, "out of memory for its properties");
    size_t at = 0;
    r = pb_reader_over(message);
    while (good && pb_next(&r, &f)) {
        if (!pb_is(&f, field, PB_BYTES)) continue;
        struct entry *e = &entries[at];
        e->index = at++;
        if (!parse_entry(f.bytes, e)) {
            good = wrong(v, "a value is malformed");
        } else if (!utf8_valid(deed_bytes_of(e->key))) {
            good = wrong(v, "a property's name is no UTF-8");
        }
    }
    if (good) good = hide_repeated(v, entries, count);
    *out_count = count;
    return good ? entries : NULL;
}

static bool put_entries(struct value_writer *v, const struct entry *entries, size_t count,
                        uint32_t depth)
{
    for (size_t i = 0; i < count; i++) {
        if (entries[i].hidden) continue;
        if (!entries[i].has_value) return wrong(v, "a value has no kind");
        json_key(v->w, entries[i].key);
        if (!put_value(v, entries[i].value, depth)) return false;
    }
    return true;
}

static bool put_struct(struct value_writer *v, deed_bytes message, uint32_t depth)
{
    size_t count;
    struct entry *entries = read_entries(v, message, 1, &count);
    if (entries == NULL) return false;
    json_object_begin(v->w);
    bool good = put_entries(v, entries, count, depth);
    if (good) json_object_end(v->w);
    return good;
}

static bool put_list(struct value_writer *v, deed_bytes message, uint32_t depth)
{
    struct pb_reader r = pb_reader_over(message);
    json_array_begin(v->w);
    for (struct pb_field f; pb_next(&r, &f);) {
        if (pb_is(&f, 1, PB_BYTES) && !put_value(v, f.bytes, depth)) return false;
    }
    if (r.bad) return wrong(v, "a value is malformed");
    json_array_end(v->w);
    return true;
}

/* (3) */
static void put_number(struct json_writer *w, uint64_t bits)
{
    double number;
    memcpy(&number, &bits, sizeof number);
    if (isnan(number)) {
        json_put_text(w, DEED_STR("NaN"));
    } else if (isinf(number)) {
        json_put_text(w, number > 0 ? DEED_STR("Infinity") : DEED_STR("-Infinity"));
    } else {
        json_put_double(w, number);
    }
}

/* The last of its kinds counts: it is a oneof. */
static bool find_kind(deed_bytes value, struct pb_field *out)
{
    static const enum pb_wire wires[] = {[1] = PB_VARINT, [2] = PB_FIXED64, [3] = PB_BYTES,
                                         [4] = PB_VARINT, [5] = PB_BYTES,   [6] = PB_BYTES};
    struct pb_reader r = pb_reader_over(value);
    *out = (struct pb_field){0};
    for (struct pb_field f; pb_next(&r, &f);) {
        if (f.number <= 6 && f.wire == wires[f.number]) *out = f;
    }
    return !r.bad;
}

static bool put_value(struct value_writer *v, deed_bytes value, uint32_t depth)
{
    struct pb_field kind;
    if (!find_kind(value, &kind)) return wrong(v, "a value is malformed");
    bool nests = kind.number == 5 || kind.number == 6;
    if (nests && depth >= v->depth_max) return wrong(v, "a value is nested too deep"); /* (1) */
    switch (kind.number) {
    case 1: json_put_null(v->w); return true;
    case 2: put_number(v->w, kind.value); return true;
    case 3:
        if (!utf8_valid(kind.bytes)) return wrong(v, "a text is no UTF-8");
        json_put_text(v->w, pb_str(&kind));
        return true;
    case 4: json_put_bool(v->w, kind.value != 0); return true;
    case 5: return put_struct(v, kind.bytes, depth + 1);
    case 6: return put_list(v, kind.bytes, depth + 1);
    default: return wrong(v, "a value has no kind");
    }
}

/* The writer keeps a bit a level. */
#define VALUE_DEPTH_MAX 60

static struct value_writer value_writer(uint32_t depth_max, struct arena *scratch,
                                        struct json_writer *w)
{
    uint32_t most = depth_max < VALUE_DEPTH_MAX ? depth_max : VALUE_DEPTH_MAX;
    return (struct value_writer){.scratch = scratch, .w = w, .depth_max = most};
}

/* ---- records -------------------------------------------------------------------------------- */

static const char *const format_names[] = {NULL, "Json", "Protobuf", "Avro", "Bytes"};
#define FORMAT_JSON 1
#define FORMAT_MAX  4

struct record {
    deed_str id, stream, schema_name, schema_id;
    deed_bytes data;
    uint64_t format;
    uint64_t properties_size; /* as a Struct, encoded */
};

static bool parse_schema(deed_bytes message, struct record *out)
{
    struct pb_reader r = pb_reader_over(message);
    for (struct pb_field f; pb_next(&r, &f);) {
        if (pb_is(&f, 1, PB_VARINT)) out->format = f.value;
        if (pb_is(&f, 2, PB_BYTES)) out->schema_name = pb_str(&f);
        if (pb_is(&f, 3, PB_BYTES)) out->schema_id = pb_str(&f);
    }
    return !r.bad;
}

static bool parse_record(deed_bytes message, struct record *out)
{
    struct pb_reader r = pb_reader_over(message);
    *out = (struct record){0};
    for (struct pb_field f; pb_next(&r, &f);) {
        if (f.wire != PB_BYTES) continue;
        switch (f.number) {
        case 1: out->id = pb_str(&f); break;
        case 2: out->properties_size += pb_bytes_size(1, f.bytes.len); break;
        case 3:
            if (!parse_schema(f.bytes, out)) return false;
            break;
        case 4: out->data = f.bytes; break;
        case 5: out->stream = pb_str(&f); break;
        default: break;
        }
    }
    return !r.bad;
}

static enum v2_fault bad(struct v2_trouble *t, const char *format, ...) DEED_PRINTF(2, 3);
static enum v2_fault bad(struct v2_trouble *t, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(t->message, sizeof t->message, format, arguments);
    va_end(arguments);
    return V2_RECORD_BAD;
}

static bool schema_name_valid(deed_str name)
{
    if (name.len == 0 || !utf8_valid(deed_bytes_of(name))) return false;
    for (size_t i = 0; i < name.len; i++) {
        unsigned char c = (unsigned char)name.ptr[i];
        bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c >= 0x80;
        bool digit = c >= '0' && c <= '9';
        if (!letter && !digit && strchr("_.$:-", c) == NULL) return false;
    }
    return true;
}

bool v2_stream_valid(deed_str stream, struct v2_trouble *t)
{
    if (stream.len == 0) {
        (void)bad(t, "a stream's name is missing, or empty");
        return false;
    }
    if (deed_str_equal(stream, DEED_STR("$$"))) {
        (void)bad(t, "stream $$: the name of the stream it is of is missing");
        return false;
    }
    if (!utf8_valid(deed_bytes_of(stream))) {
        (void)bad(t, "a stream's name is no UTF-8");
        return false;
    }
    return true;
}

static enum v2_fault check_record(const struct record *record, deed_uuid *out_id,
                                  struct v2_trouble *t)
{
    deed_uuid schema_id;
    *out_id = (deed_uuid){{0}};
    if (record->id.len > 0 && (!uuid_parse(record->id, out_id) || uuid_is_zero(*out_id))) {
        return bad(t, "record_id \"%.*s\" is no UUID, or the empty one",
                   (int)(record->id.len > 40 ? 40 : record->id.len), record->id.ptr);
    }
    if (record->format == 0 || record->format > FORMAT_MAX) {
        return bad(t, "a record's schema needs a format");
    }
    if (!schema_name_valid(record->schema_name)) {
        return bad(t, "a record's schema needs a name of letters, digits and _ . $ : -");
    }
    if (record->schema_id.len > 0 && !uuid_parse(record->schema_id, &schema_id)) {
        return bad(t, "a record's schema id is no UUID");
    }
    return V2_RECORD_OK;
}

/* The event's metadata: all properties, and what the schema says in our words. */
static enum v2_fault put_metadata(deed_bytes message, const struct record *record,
                                  uint32_t depth_max, struct arena *scratch, struct buf *out,
                                  struct v2_trouble *t)
{
    struct json_writer w;
    json_writer_init(&w, out);
    struct value_writer v = value_writer(depth_max, scratch, &w);
    size_t count;
    struct entry *entries = read_entries(&v, message, 2, &count);
    if (entries == NULL) return bad(t, "%s", v.why);
    for (size_t i = 0; i < count; i++) {
        if (entries[i].key.len == 0) return bad(t, "a property has no name");
        bool schemas = deed_str_equal(entries[i].key, DEED_STR("$schema.name")) ||
                       deed_str_equal(entries[i].key, DEED_STR("$schema.format")) ||
                       deed_str_equal(entries[i].key, DEED_STR("$schema.id"));
        if (schemas) entries[i].hidden = true;
    }
    json_object_begin(&w);
    if (!put_entries(&v, entries, count, 1)) return bad(t, "%s", v.why);
    json_member_text(&w, "$schema.name", record->schema_name);
    json_member_text(&w, "$schema.format", deed_str_of(format_names[record->format]));
    if (record->schema_id.len > 0) json_member_text(&w, "$schema.id", record->schema_id);
    json_object_end(&w);
    return buf_ok(out) ? V2_RECORD_OK : bad(t, "a record's properties are too large");
}

static deed_bytes place(uint8_t **at, deed_bytes bytes)
{
    deed_bytes out = {*at, bytes.len};
    if (bytes.len > 0) memcpy(*at, bytes.ptr, bytes.len);
    *at += bytes.len;
    return out;
}

static deed_str place_str(uint8_t **at, deed_str s)
{
    deed_bytes out = place(at, deed_bytes_of(s));
    return (deed_str){(const char *)out.ptr, out.len};
}

static deed_str stored_type(const struct record *record, uint32_t depth_max)
{
    if (record->format != FORMAT_JSON) return DEED_STR("application/octet-stream");
    bool json = json_check(record->data, depth_max, NULL) == DEED_OK;
    return json ? DEED_STR("application/json") : DEED_STR(GRPC_UNCHECKED_JSON);
}

static enum v2_fault keep(struct grpc_gathered *g, const struct record *record, deed_uuid id,
                          deed_str stream, deed_bytes metadata, deed_str *out_stream,
                          struct v2_trouble *t)
{
    uint32_t depth_max = store_limits(g->api->parts.store)->json_depth_max;
    uint8_t *at;
    size_t size = record->data.len + metadata.len + record->schema_name.len + stream.len;
    struct deed_new_event *e = gathered_room(g, 1, size, &at, &t->gather);
    if (e == NULL) return V2_RECORD_GATHER;
    *e = (struct deed_new_event){.stream = place_str(&at, stream),
                                 .type = place_str(&at, record->schema_name),
                                 .metadata = place(&at, metadata),
                                 .data = place(&at, record->data),
                                 .content_type = stored_type(record, depth_max),
                                 .id = id};
    grpc_find_ids(e, depth_max);
    *out_stream = e->stream;
    if (gathered_count_in(g, e, &t->gather)) return V2_RECORD_OK;
    return t->gather.fault == GATHER_EVENT_SIZE ? V2_RECORD_SIZE : V2_RECORD_GATHER;
}

enum v2_fault v2_record_take(struct grpc_gathered *g, deed_bytes message, deed_str stream,
                             struct arena *scratch, deed_str *out_stream, struct v2_trouble *t)
{
    const struct deed_limits *limits = store_limits(g->api->parts.store);
    struct record record;
    deed_uuid id;
    if (!parse_record(message, &record)) return bad(t, "a record is malformed");
    enum v2_fault fault = check_record(&record, &id, t);
    if (fault != V2_RECORD_OK) return fault;
    if (stream.ptr == NULL) stream = record.stream;
    if (!v2_stream_valid(stream, t)) return V2_RECORD_BAD;
    *out_stream = stream;

    uint64_t size = record.data.len + record.properties_size + record.schema_name.len;
    uint64_t most = gathered_event_max(limits);
    if (size > most) {
        t->gather =
            (struct gather_trouble){.fault = GATHER_EVENT_SIZE, .id = id, .size = size, .limit = most};
        return V2_RECORD_SIZE;
    }
    struct buf metadata;
    buf_init(&metadata, limits->event_size_max * 2 + 1024);
    fault = put_metadata(message, &record, limits->json_depth_max, scratch, &metadata, t);
    if (fault == V2_RECORD_OK) {
        fault = keep(g, &record, id, stream, buf_bytes(&metadata), out_stream, t);
    }
    buf_done(&metadata);
    return fault;
}
