/* cloudevent.h - events as CloudEvents 1.0 JSON, both ways.
 *
 *   id               the event's UUID
 *   source           "/deedbook/" and the log's id: which book it stands in
 *   type             the event's type
 *   subject          the stream
 *   time             when it happened: RFC 3339, UTC, nine digits of fraction
 *   datacontenttype  the content type
 *   data             JSON data, its bytes spliced in as they are stored, or
 *   data_base64      what is not JSON, or whose exact bytes `data` could not carry
 *   revision, position, recordedat        the server's; 64-bit numbers are strings
 *   tags             "order:1,product:7"; a comma or percent sign inside a tag is %2C or %25
 *   correlationid, causationid, actor     as they are
 *   metadata         its JSON text in a string: a CloudEvents attribute is no object
 *   metadatabase64   instead, where metadata is not UTF-8
 *   removed          true: its content was removed, there is no data; else left out
 *   linkstream, linkrevision              the virtual stream it was read from, and its place there
 *
 * Attributes without a value are left out. What cloudevent_write writes with CLOUDEVENT_EXACT,
 * cloudevent_parse reads back to the byte. */
#ifndef API_CLOUDEVENT_H
#define API_CLOUDEVENT_H

#include "base/arena.h"
#include "base/buf.h"
#include "base/error.h"
#include "json/json.h"

enum cloudevent_flags {
    /* No line feed or carriage return in the text: for lines (NDJSON) and Server-Sent Events. Those
     * that stand between the tokens of JSON data become spaces, unless CLOUDEVENT_EXACT. */
    CLOUDEVENT_LINE = 1,
    /* JSON data whose bytes would not come back from `data` as they are stored (white space around
     * the value, line breaks with CLOUDEVENT_LINE) goes out as data_base64; and metadata that is
     * no JSON, as clients of gRPC may bring, as metadatabase64. */
    CLOUDEVENT_EXACT = 2,
    /* The event comes from the store, which takes nothing but JSON under the usual content type:
     * that data is not checked again. */
    CLOUDEVENT_STORED = 4,
};

/* "/deedbook/xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx" */
#define CLOUDEVENT_SOURCE_SIZE (10 + 36)
struct cloudevent_source {
    char text[CLOUDEVENT_SOURCE_SIZE + 1];
};
struct cloudevent_source cloudevent_source_of(deed_uuid log_id);

/* Append one event as a JSON object, without a line end. */
void cloudevent_write(struct buf *out, const struct cloudevent_source *source,
                      const struct deed_event *event, unsigned flags);

struct cloudevent {
    struct deed_new_event event;
    uint64_t revision, position; /* as it was written elsewhere; DEED_NONE: not given */
    int64_t recorded_at_ns;      /* 0: not given */
};

/* Read one event from a parsed JSON object. `stream`: where it goes; ptr NULL: its `subject`, which
 * must be given then. The slices borrow from the document and from `arena`.
 *
 * Events from elsewhere keep everything: an id that is no UUID yields one that is made from source
 * and id (the same again on a retry); that id, a foreign source, a subject other than `stream` and
 * attributes unknown here go into the metadata's member "cloudevents". Without data it is JSON's null,
 * unless the content type is another.
 *
 *   DEED_INVALID    not a CloudEvent; the message names the attribute.
 *   DEED_NO_MEMORY  the arena is at its limit. */
DEED_MUST_CHECK deed_status cloudevent_parse(struct arena *arena, json_value object,
                                             deed_str stream, struct cloudevent *out,
                                             struct deed_error *err);

/* The same from text: one line of an export. `depth_max`: of the data (0: 64). */
DEED_MUST_CHECK deed_status cloudevent_parse_text(struct arena *arena, deed_bytes text,
                                                  uint32_t depth_max, deed_str stream,
                                                  struct cloudevent *out, struct deed_error *err);

/* "application/json", "application/x+json; charset=utf-8", "": JSON as far as its name says. */
bool content_type_is_json(deed_str content_type);

/* Base64 text into the arena. DEED_INVALID: `name` is not base64. */
DEED_MUST_CHECK deed_status base64_to_arena(struct arena *arena, deed_str text, const char *name,
                                            deed_bytes *out, struct deed_error *err);

#endif
