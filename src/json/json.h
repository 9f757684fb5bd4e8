/* json.h - strict JSON: RFC 8259 text into a flat tape, and a writer.
 *
 * What others repair, this refuses: trailing commas, comments, raw control characters, invalid
 * UTF-8, lone surrogates, duplicate keys in one object, NaN, text behind the value, nesting past
 * the limit. Numbers keep their text: 9007199254740993 stays itself.
 *
 * A parsed document lives in the caller's arena and borrows the text for numbers, raw slices and
 * strings without escapes: both must outlive it. */
#ifndef JSON_JSON_H
#define JSON_JSON_H

#include "base/arena.h"
#include "base/buf.h"
#include "base/error.h"

enum json_kind {
    JSON_NONE, /* not there: what a failed lookup yields; every accessor accepts it */
    JSON_NULL,
    JSON_FALSE,
    JSON_TRUE,
    JSON_NUMBER,
    JSON_STRING,
    JSON_ARRAY,
    JSON_OBJECT,
};

struct json_node; /* one entry of the tape */

/* A place in a document, passed by copy. A zeroed one is JSON_NONE. */
typedef struct {
    const struct json_node *node;
} json_value;

/* Parse one value, with white space around it.
 *
 *   DEED_INVALID    not JSON; the message has the byte offset and what was wrong there.
 *   DEED_TOO_LARGE  nested deeper than depth_max (0: 64), or the arena is at its limit. */
DEED_MUST_CHECK deed_status json_parse(struct arena *arena, deed_bytes text, uint32_t depth_max,
                                       json_value *out_root, struct deed_error *err);

/* Check only; needs no arena for the document. Same answers as json_parse. */
DEED_MUST_CHECK deed_status json_check(deed_bytes text, uint32_t depth_max,
                                       struct deed_error *err);

enum json_kind json_kind_of(json_value v);
const char *json_kind_name(enum json_kind kind); /* "a string" */

/* The bytes of the text that this value was parsed from, without white space around. */
deed_str json_raw(json_value v);

/* Decoded text of a string, without quotes; may hold NUL. ptr NULL for other kinds. */
deed_str json_text(json_value v);

/* true and *out set if it is a number that is exactly an integer in range ("12", "1e2", "3.0"). */
bool json_int64(json_value v, int64_t *out);
bool json_uint64(json_value v, uint64_t *out);
/* The nearest double; false for other kinds, and for numbers that overflow a double. */
bool json_double(json_value v, double *out);
bool json_bool(json_value v, bool *out);

/* Members or elements; 0 for other kinds. */
size_t json_count(json_value v);

/* An object's member; JSON_NONE if missing or not an object. */
json_value json_get(json_value object, deed_str key);
/* An array's element; JSON_NONE past the end. Linear: to visit all, iterate. */
json_value json_at(json_value array, size_t index);
/* "customer.address.0.city": members by name, elements by index. JSON_NONE if any step is missing.
 * An empty path is the value itself. */
json_value json_path(json_value v, deed_str path);

/*     for (struct json_iterator i = json_iterate(v); json_next(&i);) use(i.key, i.value);    */
struct json_iterator {
    deed_str key; /* of the member; ptr NULL in an array */
    json_value value;
    size_t index;
    const struct json_node *next; /* private */
    size_t left;                  /* private */
};
struct json_iterator json_iterate(json_value container);
bool json_next(struct json_iterator *iterator);

/* Same value: numbers by exact decimal value (1.0 equals 1), objects in any order. */
bool json_equal(json_value a, json_value b);

/* ---- writing: into a buf, commas and colons by itself --------------------------------------- */

/* A mistake of the calling code (a value without key in an object, unbalanced ends) is an
 * assertion. A buf at its limit shows in buf_ok. */
struct json_writer {
    struct buf *out;
    uint32_t depth;
    uint64_t is_object; /* a bit a level */
    uint64_t has_value; /* a bit a level: a comma is due */
    bool after_key;
};

void json_writer_init(struct json_writer *w, struct buf *out);
void json_object_begin(struct json_writer *w);
void json_object_end(struct json_writer *w);
void json_array_begin(struct json_writer *w);
void json_array_end(struct json_writer *w);
void json_key(struct json_writer *w, deed_str key);
void json_put_text(struct json_writer *w, deed_str text); /* ptr NULL: null */
void json_put_int(struct json_writer *w, int64_t value);
void json_put_uint(struct json_writer *w, uint64_t value);
void json_put_double(struct json_writer *w, double value); /* shortest that reads back; NaN: null */
void json_put_bool(struct json_writer *w, bool value);
void json_put_null(struct json_writer *w);
/* Bytes that are one JSON value already. */
void json_put_raw(struct json_writer *w, deed_bytes value);
/* Numbers that JavaScript would round go out as strings: "123". */
void json_put_uint_text(struct json_writer *w, uint64_t value);

/* Key and value at once. */
void json_member_text(struct json_writer *w, const char *key, deed_str text);
void json_member_int(struct json_writer *w, const char *key, int64_t value);
void json_member_uint(struct json_writer *w, const char *key, uint64_t value);
void json_member_bool(struct json_writer *w, const char *key, bool value);
void json_member_raw(struct json_writer *w, const char *key, deed_bytes value);

#endif
