/* cloudevent.c - the writer splices, the parser keeps.
 *
 * (1) JSON data goes out as the bytes that are stored, or, where the frame or the parser would
 *     change them (line breaks, white space around the value, text that is not JSON after all), as
 *     data_base64. Nothing is ever re-serialised.
 * (2) Only strings that a client chose are escaped; ids, times and numbers cannot need it.
 * (3) Whatever the parser accepts ends up in the event: known attributes in its fields, the rest in
 *     its metadata. What fits neither is refused by name. */
#include "api/cloudevent.h"

#include <assert.h>

#include "base/hash.h"
#include "base/text.h"
#include "base/timetext.h"
#include "base/uuid.h"

#define SOURCE_PREFIX "/deedbook/"
static_assert(sizeof SOURCE_PREFIX - 1 + UUID_TEXT_SIZE == CLOUDEVENT_SOURCE_SIZE,
              "see cloudevent.h");

struct cloudevent_source cloudevent_source_of(deed_uuid log_id)
{
    struct cloudevent_source source;
    memcpy(source.text, SOURCE_PREFIX, sizeof SOURCE_PREFIX - 1);
    uuid_format(log_id, source.text + sizeof SOURCE_PREFIX - 1);
    return source;
}

/* ---- writing ------------------------------------------------------------------------------ */

static bool ends_with_fold(deed_str s, deed_str lower)
{
    if (s.len < lower.len) return false;
    for (size_t i = 0; i < lower.len; i++) {
        if (ascii_lower(s.ptr[s.len - lower.len + i]) != lower.ptr[i]) return false;
    }
    return true;
}

bool content_type_is_json(deed_str content_type)
{
    if (content_type.len == 0) return true;
    deed_str media = content_type;
    const char *semicolon = memchr(media.ptr, ';', media.len);
    if (semicolon != NULL) media.len = (size_t)(semicolon - media.ptr);
    while (media.len > 0 && media.ptr[media.len - 1] == ' ') media.len--;
    return ends_with_fold(media, DEED_STR("/json")) || ends_with_fold(media, DEED_STR("+json"));
}

#define PUT(out, literal) buf_add(out, literal, sizeof(literal) - 1)

static void put_string(struct buf *out, deed_str text)
{
    uint8_t *at = text.len > SIZE_MAX - 2 ? NULL : buf_reserve(out, text.len + 2);
    if (at != NULL && text_is_plain(text)) {
        at[0] = '"';
        if (text.len > 0) memcpy(at + 1, text.ptr, text.len);
        at[text.len + 1] = '"';
        out->len += text.len + 2;
        return;
    }
    struct json_writer w;
    json_writer_init(&w, out);
    json_put_text(&w, text.ptr == NULL ? DEED_STR("") : text);
}

static void put_number_text(struct buf *out, uint64_t value)
{
    uint8_t *at = buf_reserve(out, U64_TEXT_SIZE);
    if (at != NULL) out->len += u64_format(value, (char *)at);
}

static void put_time(struct buf *out, int64_t time_ns)
{
    uint8_t *at = buf_reserve(out, TIME_TEXT_SIZE + 1);
    if (at == NULL) return;
    time_format(time_ns, (char *)at);
    out->len += TIME_TEXT_SIZE; /* the next bytes cover the NUL */
}

static void put_uuid(struct buf *out, deed_uuid id)
{
    uint8_t *at = buf_reserve(out, UUID_TEXT_SIZE + 1);
    if (at == NULL) return;
    uuid_format(id, (char *)at);
    out->len += UUID_TEXT_SIZE;
}

/* The tags as one list. An escaped tag needs at most three bytes for one. */
static void put_tags(struct buf *out, const deed_str *tags, size_t count)
{
    struct buf list;
    buf_init(&list, SIZE_MAX / 2);
    for (size_t i = 0; i < count; i++) {
        if (i > 0) buf_add_byte(&list, ',');
        for (size_t k = 0; k < tags[i].len; k++) {
            char c = tags[i].ptr[k];
            if (c == ',') {
                PUT(&list, "%2C");
            } else if (c == '%') {
                PUT(&list, "%25");
            } else {
                buf_add_byte(&list, (uint8_t)c);
            }
        }
    }
    if (buf_ok(&list)) {
        put_string(out, (deed_str){list.ptr == NULL ? "" : (const char *)list.ptr, list.len});
    } else {
        out->failed = true;
    }
    buf_done(&list);
}

static bool is_json_space(uint8_t c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

static bool has_line_break(deed_bytes data)
{
    return memchr(data.ptr, '\n', data.len) != NULL || memchr(data.ptr, '\r', data.len) != NULL;
}

static bool is_usual_type(deed_str content_type)
{
    return content_type.len == 0 || deed_str_equal(content_type, DEED_STR("application/json"));
}

/* Can these bytes stand behind "data": and come back? (1) */
static bool data_can_be_spliced(const struct deed_event *event, unsigned flags)
{
    deed_bytes data = event->data;
    bool is_usual = is_usual_type(event->content_type);
    if (!is_usual && !content_type_is_json(event->content_type)) return false;
    if ((flags & CLOUDEVENT_EXACT) != 0) {
        if (is_json_space(data.ptr[0]) || is_json_space(data.ptr[data.len - 1])) return false;
        if ((flags & CLOUDEVENT_LINE) != 0 && has_line_break(data)) return false;
    }
    /* To check again what the store checked was a fifth of the cost of an event. The depth is the
     * store's limit too; here any depth that the checker's own stack allows will do. */
    if (is_usual && (flags & CLOUDEVENT_STORED) != 0) return true;
    return json_check(data, 1024, NULL) == DEED_OK;
}

static void put_data(struct buf *out, const struct deed_event *event, unsigned flags)
{
    deed_bytes data = event->data;
    if (data.len == 0) return;
    if (!data_can_be_spliced(event, flags)) {
        PUT(out, ",\"data_base64\":\"");
        base64_encode(data, out);
        buf_add_byte(out, '"');
        return;
    }
    PUT(out, ",\"data\":");
    uint8_t *at = buf_reserve(out, data.len);
    if (at == NULL) return;
    memcpy(at, data.ptr, data.len);
    out->len += data.len;
    if ((flags & CLOUDEVENT_LINE) == 0 || !has_line_break(data)) return;
    /* A raw line break in valid JSON stands between tokens, never inside a string. */
    for (size_t i = 0; i < data.len; i++) {
        if (at[i] == '\n' || at[i] == '\r') at[i] = ' ';
    }
}

/* Metadata that came over gRPC may be any bytes; what is to be read back says so. */
static void put_metadata(struct buf *out, deed_bytes metadata, unsigned flags)
{
    if (metadata.len == 0) return;
    bool text = (flags & CLOUDEVENT_EXACT) != 0 ? json_check(metadata, 1024, NULL) == DEED_OK
                                                : utf8_valid(metadata);
    if (text) {
        PUT(out, ",\"metadata\":");
        put_string(out, (deed_str){(const char *)metadata.ptr, metadata.len});
    } else {
        PUT(out, ",\"metadatabase64\":\"");
        base64_encode(metadata, out);
        buf_add_byte(out, '"');
    }
}

void cloudevent_write(struct buf *out, const struct cloudevent_source *source,
                      const struct deed_event *event, unsigned flags)
{
    PUT(out, "{\"specversion\":\"1.0\",\"id\":\"");
    put_uuid(out, event->id);
    PUT(out, "\",\"source\":\"");
    buf_add(out, source->text, CLOUDEVENT_SOURCE_SIZE);
    PUT(out, "\",\"type\":");
    put_string(out, event->type);
    PUT(out, ",\"subject\":");
    put_string(out, event->stream);
    PUT(out, ",\"time\":\"");
    put_time(out, event->time_ns);
    PUT(out, "\",\"revision\":\"");
    put_number_text(out, event->revision);
    PUT(out, "\",\"position\":\"");
    put_number_text(out, event->position);
    PUT(out, "\",\"recordedat\":\"");
    put_time(out, event->recorded_at_ns);
    buf_add_byte(out, '"');
    if (event->tag_count > 0) {
        PUT(out, ",\"tags\":");
        put_tags(out, event->tags, event->tag_count);
    }
    if (event->correlation_id.len > 0) {
        PUT(out, ",\"correlationid\":");
        put_string(out, event->correlation_id);
    }
    if (event->causation_id.len > 0) {
        PUT(out, ",\"causationid\":");
        put_string(out, event->causation_id);
    }
    if (event->actor.len > 0) {
        PUT(out, ",\"actor\":");
        put_string(out, event->actor);
    }
    put_metadata(out, event->metadata, flags);
    if (event->content_type.len > 0) {
        PUT(out, ",\"datacontenttype\":");
        put_string(out, event->content_type);
    }
    if (event->link_stream.ptr != NULL) {
        PUT(out, ",\"linkstream\":");
        put_string(out, event->link_stream);
        PUT(out, ",\"linkrevision\":\"");
        put_number_text(out, event->link_revision);
        buf_add_byte(out, '"');
    }
    if (event->removed) {
        PUT(out, ",\"removed\":true");
    } else {
        put_data(out, event, flags);
    }
    buf_add_byte(out, '}');
}

/* ---- parsing ------------------------------------------------------------------------------ */

/* The attributes by name; what is not here is foreign. */
enum attribute {
    ATTRIBUTE_SPECVERSION,
    ATTRIBUTE_ID,
    ATTRIBUTE_SOURCE,
    ATTRIBUTE_TYPE,
    ATTRIBUTE_SUBJECT,
    ATTRIBUTE_TIME,
    ATTRIBUTE_DATACONTENTTYPE,
    ATTRIBUTE_DATA,
    ATTRIBUTE_DATA_BASE64,
    ATTRIBUTE_REVISION,
    ATTRIBUTE_POSITION,
    ATTRIBUTE_RECORDEDAT,
    ATTRIBUTE_TAGS,
    ATTRIBUTE_CORRELATIONID,
    ATTRIBUTE_CAUSATIONID,
    ATTRIBUTE_ACTOR,
    ATTRIBUTE_METADATA,
    ATTRIBUTE_METADATABASE64,
    ATTRIBUTE_REMOVED,
    ATTRIBUTE_LINKSTREAM,
    ATTRIBUTE_LINKREVISION,
    ATTRIBUTE_COUNT
};
static const char *const attribute_names[ATTRIBUTE_COUNT] = {
    "specversion", "id",         "source",        "type",        "subject",  "time",
    "datacontenttype", "data",   "data_base64",   "revision",    "position", "recordedat",
    "tags",        "correlationid", "causationid", "actor",      "metadata", "metadatabase64",
    "removed",     "linkstream", "linkrevision"};

struct parse {
    struct arena *arena;
    json_value values[ATTRIBUTE_COUNT];
    deed_str stream;
    bool foreign; /* from another program: its extensions are its own */
    struct buf kept; /* members of metadata's "cloudevents", each behind a comma */
    struct cloudevent event;
    struct deed_error *err;
};

static deed_status no_memory(struct deed_error *err)
{
    return deed_fail(err, DEED_NO_MEMORY, "event: no memory left for it");
}

deed_status base64_to_arena(struct arena *arena, deed_str text, const char *name, deed_bytes *out,
                            struct deed_error *err)
{
    size_t room = text.len / 4 * 3;
    uint8_t *memory = arena_alloc(arena, room + 1);
    if (memory == NULL) return no_memory(err);
    /* A buf over the arena's memory: it cannot outgrow its room, so it never takes its own. */
    struct buf over = {.ptr = memory, .room = room, .size_max = room};
    if (text.ptr == NULL || !base64_decode(text, &over)) {
        return deed_fail(err, DEED_INVALID, "%s is not base64", name);
    }
    assert(over.ptr == memory);
    *out = (deed_bytes){memory, over.len};
    return DEED_OK;
}

static deed_status attribute_wrong(struct parse *p, enum attribute attribute, const char *wanted)
{
    deed_str raw = str_beginning(json_raw(p->values[attribute]), 80);
    return deed_fail(p->err, DEED_INVALID, "%s: %.*s is not %s", attribute_names[attribute],
                     DEED_FMT(raw), wanted);
}

static bool attribute_given(const struct parse *p, enum attribute attribute)
{
    enum json_kind kind = json_kind_of(p->values[attribute]);
    return kind != JSON_NONE && kind != JSON_NULL;
}

/* A text attribute; ptr NULL when it is not given. */
static deed_status attribute_text(struct parse *p, enum attribute attribute, bool required,
                                  deed_str *out)
{
    *out = (deed_str){0};
    if (!attribute_given(p, attribute)) {
        if (!required) return DEED_OK;
        return deed_fail(p->err, DEED_INVALID, "%s is missing", attribute_names[attribute]);
    }
    deed_str text = json_text(p->values[attribute]);
    if (text.ptr == NULL || (required && text.len == 0)) {
        return attribute_wrong(p, attribute, required ? "a text that is not empty" : "a text");
    }
    *out = text;
    return DEED_OK;
}

static deed_status attribute_number(struct parse *p, enum attribute attribute, uint64_t *out)
{
    *out = DEED_NONE;
    if (!attribute_given(p, attribute)) return DEED_OK;
    deed_str text = json_text(p->values[attribute]);
    bool good = text.ptr != NULL ? text_u64(text, out) : json_uint64(p->values[attribute], out);
    return good ? DEED_OK : attribute_wrong(p, attribute, "a whole number");
}

static deed_status attribute_time(struct parse *p, enum attribute attribute, int64_t *out,
                                  bool *out_given)
{
    deed_str text;
    *out = 0;
    *out_given = false;
    deed_status status = attribute_text(p, attribute, false, &text);
    if (status != DEED_OK || text.ptr == NULL) return status;
    if (!time_parse(text, out)) return attribute_wrong(p, attribute, "a time as RFC 3339 has it");
    *out_given = true;
    return DEED_OK;
}

/* ---- what is kept of foreign events */

static void keep(struct parse *p, deed_str name, json_value value)
{
    deed_str raw = json_raw(value);
    buf_add_byte(&p->kept, ',');
    put_string(&p->kept, name);
    buf_add_byte(&p->kept, ':');
    buf_add_str(&p->kept, raw);
}

static bool attribute_name_valid(deed_str name)
{
    for (size_t i = 0; i < name.len; i++) {
        char c = name.ptr[i];
        if ((c < 'a' || c > 'z') && (c < '0' || c > '9')) return false;
    }
    return name.len > 0;
}

static deed_status keep_unknown(struct parse *p, deed_str name, json_value value)
{
    enum json_kind kind = json_kind_of(value);
    if (!attribute_name_valid(name)) {
        return deed_fail(p->err, DEED_INVALID,
                         "attribute \"%.*s\": names are of lower-case letters and digits",
                         (int)(name.len > 80 ? 80 : name.len), name.ptr);
    }
    if (kind == JSON_NULL) return DEED_OK;
    if (kind == JSON_ARRAY || kind == JSON_OBJECT) {
        return deed_fail(p->err, DEED_INVALID, "attribute %.*s: %s is not an attribute's value",
                         (int)(name.len > 80 ? 80 : name.len), name.ptr, json_kind_name(kind));
    }
    keep(p, name, value);
    return DEED_OK;
}

static deed_status sort_attributes(struct parse *p, json_value object)
{
    for (struct json_iterator i = json_iterate(object); json_next(&i);) {
        size_t known = 0;
        while (known < ATTRIBUTE_COUNT &&
               !deed_str_equal(i.key, deed_str_of(attribute_names[known]))) {
            known++;
        }
        if (known < ATTRIBUTE_COUNT) {
            p->values[known] = i.value;
            continue;
        }
        deed_status status = keep_unknown(p, i.key, i.value);
        if (status != DEED_OK) return status;
    }
    return DEED_OK;
}

/* ---- the fields */

static deed_uuid uuid_from(deed_str source, deed_str id)
{
    static const char scope[] = "deedbook cloudevent id";
    const deed_bytes parts[] = {{(const uint8_t *)scope, sizeof scope},
                                deed_bytes_of(source),
                                {(const uint8_t *)"", 1},
                                deed_bytes_of(id)};
    uint8_t hash[SHA256_SIZE];
    sha256(parts, sizeof parts / sizeof parts[0], hash);
    deed_uuid made;
    memcpy(made.bytes, hash, sizeof made.bytes);
    made.bytes[6] = (uint8_t)((made.bytes[6] & 0x0f) | 0x80); /* version 8: our own recipe */
    made.bytes[8] = (uint8_t)((made.bytes[8] & 0x3f) | 0x80);
    return made;
}

static deed_status parse_identity(struct parse *p)
{
    struct deed_new_event *event = &p->event.event;
    deed_str version, id, source;
    deed_status status = attribute_text(p, ATTRIBUTE_SPECVERSION, true, &version);
    if (status != DEED_OK) return status;
    if (!deed_str_equal(version, DEED_STR("1.0"))) {
        return attribute_wrong(p, ATTRIBUTE_SPECVERSION, "\"1.0\", the version known here");
    }
    status = attribute_text(p, ATTRIBUTE_ID, true, &id);
    if (status == DEED_OK) status = attribute_text(p, ATTRIBUTE_SOURCE, true, &source);
    if (status == DEED_OK) status = attribute_text(p, ATTRIBUTE_TYPE, true, &event->type);
    if (status != DEED_OK) return status;

    p->foreign = !str_starts_with(source, DEED_STR(SOURCE_PREFIX));
    if (p->foreign) keep(p, DEED_STR("source"), p->values[ATTRIBUTE_SOURCE]);
    if (!uuid_parse(id, &event->id) || uuid_is_zero(event->id)) {
        event->id = uuid_from(source, id);
        keep(p, DEED_STR("id"), p->values[ATTRIBUTE_ID]);
    }
    return DEED_OK;
}

static deed_status parse_stream(struct parse *p)
{
    deed_str subject;
    deed_status status = attribute_text(p, ATTRIBUTE_SUBJECT, p->stream.ptr == NULL, &subject);
    if (status != DEED_OK) return status;
    p->event.event.stream = p->stream.ptr == NULL ? subject : p->stream;
    if (subject.ptr != NULL && !deed_str_equal(subject, p->event.event.stream)) {
        keep(p, DEED_STR("subject"), p->values[ATTRIBUTE_SUBJECT]);
    }
    return DEED_OK;
}

static deed_status parse_place(struct parse *p)
{
    static const enum attribute places[] = {ATTRIBUTE_REVISION, ATTRIBUTE_POSITION,
                                            ATTRIBUTE_RECORDEDAT, ATTRIBUTE_REMOVED,
                                            ATTRIBUTE_LINKSTREAM, ATTRIBUTE_LINKREVISION};
    p->event.revision = DEED_NONE;
    p->event.position = DEED_NONE;
    if (p->foreign) { /* another program's words, whatever they mean there */
        for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
            if (!attribute_given(p, places[i])) continue;
            deed_status status = keep_unknown(p, deed_str_of(attribute_names[places[i]]),
                                              p->values[places[i]]);
            if (status != DEED_OK) return status;
        }
        return DEED_OK;
    }
    enum json_kind removed = json_kind_of(p->values[ATTRIBUTE_REMOVED]);
    if (removed != JSON_NONE && removed != JSON_NULL && removed != JSON_FALSE) {
        return deed_fail(p->err, DEED_INVALID,
                         "removed: the event's content was removed where it stood, there is nothing "
                         "to store");
    }
    deed_status status = attribute_number(p, ATTRIBUTE_REVISION, &p->event.revision);
    if (status == DEED_OK) status = attribute_number(p, ATTRIBUTE_POSITION, &p->event.position);
    if (status != DEED_OK) return status;
    bool given;
    return attribute_time(p, ATTRIBUTE_RECORDEDAT, &p->event.recorded_at_ns, &given);
}

static int hex_value(char c)
{
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

/* One tag of the list, decoded where it lies. false: a percent sign without its two digits. */
static bool tag_decode(char *text, size_t size, size_t *out_size)
{
    size_t to = 0;
    for (size_t i = 0; i < size; i++) {
        char c = text[i];
        if (c == '%') {
            if (size - i < 3) return false;
            int high = hex_value(text[i + 1]);
            int low = hex_value(text[i + 2]);
            if (high < 0 || low < 0) return false;
            c = (char)(high << 4 | low);
            i += 2;
        }
        text[to++] = c;
    }
    *out_size = to;
    return utf8_valid((deed_bytes){(const uint8_t *)text, to});
}

static deed_status parse_tags_text(struct parse *p, deed_str list)
{
    if (list.len == 0) return DEED_OK;
    size_t count = 1;
    for (size_t i = 0; i < list.len; i++) {
        if (list.ptr[i] == ',') count++;
    }
    deed_str *tags = arena_alloc_array(p->arena, count, sizeof *tags);
    deed_str copy = arena_str(p->arena, list);
    if (tags == NULL || copy.ptr == NULL) return no_memory(p->err);

    char *at = (char *)copy.ptr; /* the arena's memory, ours to write */
    char *end = at + copy.len;
    for (size_t i = 0; i < count; i++) {
        char *comma = memchr(at, ',', (size_t)(end - at));
        size_t size = (size_t)((comma == NULL ? end : comma) - at);
        if (!tag_decode(at, size, &tags[i].len)) {
            return attribute_wrong(p, ATTRIBUTE_TAGS, "a list of tags: % needs two hex digits");
        }
        tags[i].ptr = at;
        if (comma != NULL) at = comma + 1;
    }
    p->event.event.tags = tags;
    p->event.event.tag_count = count;
    return DEED_OK;
}

/* Also an array of texts, which CloudEvents does not know but people write. */
static deed_status parse_tags(struct parse *p)
{
    json_value value = p->values[ATTRIBUTE_TAGS];
    if (!attribute_given(p, ATTRIBUTE_TAGS)) return DEED_OK;
    if (json_kind_of(value) != JSON_ARRAY) {
        deed_str text;
        deed_status status = attribute_text(p, ATTRIBUTE_TAGS, false, &text);
        return status == DEED_OK ? parse_tags_text(p, text) : status;
    }
    deed_str *tags = arena_alloc_array(p->arena, json_count(value), sizeof *tags);
    if (tags == NULL) return no_memory(p->err);
    size_t count = 0;
    for (struct json_iterator i = json_iterate(value); json_next(&i);) {
        tags[count] = json_text(i.value);
        if (tags[count].ptr == NULL) return attribute_wrong(p, ATTRIBUTE_TAGS, "a list of texts");
        count++;
    }
    p->event.event.tags = tags;
    p->event.event.tag_count = count;
    return DEED_OK;
}

static deed_status parse_data(struct parse *p)
{
    struct deed_new_event *event = &p->event.event;
    json_value data = p->values[ATTRIBUTE_DATA];
    deed_status status =
        attribute_text(p, ATTRIBUTE_DATACONTENTTYPE, false, &event->content_type);
    if (status != DEED_OK) return status;
    if (attribute_given(p, ATTRIBUTE_DATA_BASE64)) {
        if (json_kind_of(data) != JSON_NONE) {
            return deed_fail(p->err, DEED_INVALID, "data and data_base64 are both given");
        }
        return base64_to_arena(p->arena, json_text(p->values[ATTRIBUTE_DATA_BASE64]),
                               "data_base64", &event->data, p->err);
    }
    if (json_kind_of(data) == JSON_NONE) {
        /* The store keeps no JSON that is empty; null is what comes nearest to nothing. */
        if (content_type_is_json(event->content_type)) {
            event->data = deed_bytes_of(DEED_STR("null"));
        }
        return DEED_OK;
    }
    /* The JSON format's rule: a text under a content type that is not JSON is the data itself. */
    if (json_kind_of(data) == JSON_STRING && !content_type_is_json(event->content_type)) {
        event->data = deed_bytes_of(json_text(data));
    } else {
        event->data = deed_bytes_of(json_raw(data));
    }
    return DEED_OK;
}

/* metadata's own JSON text, with what was kept put into it as the member "cloudevents". */
static deed_status metadata_join(struct parse *p)
{
    deed_bytes given = p->event.event.metadata;
    if (p->kept.len == 0) return DEED_OK;
    if (!buf_ok(&p->kept)) return no_memory(p->err);
    deed_str members = {(const char *)p->kept.ptr + 1, p->kept.len - 1}; /* without the comma */

    deed_str joined;
    if (given.len == 0) {
        joined = arena_printf(p->arena, "{\"cloudevents\":{%.*s}}", DEED_FMT(members));
    } else {
        json_value object;
        deed_status status = json_parse(p->arena, given, 1024, &object, p->err);
        if (status != DEED_OK) return deed_wrap(p->err, "metadata"), status;
        if (json_kind_of(object) != JSON_OBJECT ||
            json_kind_of(json_get(object, DEED_STR("cloudevents"))) != JSON_NONE) {
            return deed_fail(p->err, DEED_INVALID,
                             "metadata: there is no room in it for the attributes {%.*s}",
                             (int)(members.len > 80 ? 80 : members.len), members.ptr);
        }
        deed_str raw = json_raw(object);
        deed_str head = {raw.ptr, raw.len - 1}; /* without its closing brace */
        joined = arena_printf(p->arena, "%.*s%s\"cloudevents\":{%.*s}}", DEED_FMT(head),
                              json_count(object) == 0 ? "" : ",", DEED_FMT(members));
    }
    if (joined.ptr == NULL) return no_memory(p->err);
    p->event.event.metadata = deed_bytes_of(joined);
    return DEED_OK;
}

static deed_status parse_metadata(struct parse *p)
{
    struct deed_new_event *event = &p->event.event;
    deed_str text;
    if (attribute_given(p, ATTRIBUTE_METADATABASE64)) {
        if (attribute_given(p, ATTRIBUTE_METADATA)) {
            return deed_fail(p->err, DEED_INVALID, "metadata and metadatabase64 are both given");
        }
        deed_status status =
            base64_to_arena(p->arena, json_text(p->values[ATTRIBUTE_METADATABASE64]),
                            "metadatabase64", &event->metadata, p->err);
        event->metadata_unchecked = true;
        return status == DEED_OK ? metadata_join(p) : status;
    }
    deed_status status = attribute_text(p, ATTRIBUTE_METADATA, false, &text);
    if (status != DEED_OK) return status;
    event->metadata = deed_bytes_of(text);
    return metadata_join(p);
}

static deed_status parse_all(struct parse *p, json_value object)
{
    if (json_kind_of(object) != JSON_OBJECT) {
        return deed_fail(p->err, DEED_INVALID, "event: %s, where an object is wanted",
                         json_kind_name(json_kind_of(object)));
    }
    struct deed_new_event *event = &p->event.event;
    deed_status status = sort_attributes(p, object);
    if (status == DEED_OK) status = parse_identity(p);
    if (status == DEED_OK) status = parse_stream(p);
    if (status == DEED_OK) {
        status = attribute_time(p, ATTRIBUTE_TIME, &event->time_ns, &event->has_time);
    }
    if (status == DEED_OK) status = parse_place(p);
    if (status == DEED_OK) status = parse_tags(p);
    if (status == DEED_OK) {
        status = attribute_text(p, ATTRIBUTE_CORRELATIONID, false, &event->correlation_id);
    }
    if (status == DEED_OK) {
        status = attribute_text(p, ATTRIBUTE_CAUSATIONID, false, &event->causation_id);
    }
    if (status == DEED_OK) status = attribute_text(p, ATTRIBUTE_ACTOR, false, &event->actor);
    if (status == DEED_OK) status = parse_data(p);
    if (status == DEED_OK) status = parse_metadata(p);
    return status;
}

deed_status cloudevent_parse(struct arena *arena, json_value object, deed_str stream,
                             struct cloudevent *out, struct deed_error *err)
{
    struct parse p = {.arena = arena, .stream = stream, .err = err};
    buf_init(&p.kept, arena->total_max);
    deed_status status = parse_all(&p, object);
    if (status == DEED_OK) *out = p.event;
    buf_done(&p.kept);
    return status;
}

deed_status cloudevent_parse_text(struct arena *arena, deed_bytes text, uint32_t depth_max,
                                  deed_str stream, struct cloudevent *out, struct deed_error *err)
{
    json_value root;
    /* The event itself is one level above its data. */
    uint32_t depth = (depth_max == 0 ? 64 : depth_max) + 1;
    deed_status status = json_parse(arena, text, depth, &root, err);
    if (status != DEED_OK) return status;
    return cloudevent_parse(arena, root, stream, out, err);
}
