/* fuzz_json.c - any bytes: json_check and json_parse agree, and what was parsed, written and parsed
 * again is equal to itself. */
#include "json/json.h"
#include "fuzz/must.h"

#include <stdio.h>
#include <stdlib.h>

static void write_value(struct json_writer *w, json_value v)
{
    bool flag = false;
    switch (json_kind_of(v)) {
    case JSON_OBJECT:
        json_object_begin(w);
        for (struct json_iterator i = json_iterate(v); json_next(&i);) {
            json_key(w, i.key);
            write_value(w, i.value);
        }
        json_object_end(w);
        return;
    case JSON_ARRAY:
        json_array_begin(w);
        for (struct json_iterator i = json_iterate(v); json_next(&i);) write_value(w, i.value);
        json_array_end(w);
        return;
    case JSON_STRING:
        json_put_text(w, json_text(v));
        return;
    case JSON_NUMBER:
        json_put_raw(w, deed_bytes_of(json_raw(v)));
        return;
    case JSON_TRUE:
    case JSON_FALSE:
        must(json_bool(v, &flag), "a boolean has a value");
        json_put_bool(w, flag);
        return;
    case JSON_NULL:
        json_put_null(w);
        return;
    case JSON_NONE:
        must(false, "nothing inside a document");
    }
}

/* The readers of numbers must agree with each other. */
static void check_numbers(json_value v)
{
    if (json_kind_of(v) == JSON_NUMBER) {
        int64_t i = 0;
        uint64_t u = 0;
        double d = 0;
        bool is_int = json_int64(v, &i), is_uint = json_uint64(v, &u), is_double = json_double(v, &d);
        if (is_int && is_uint) must((uint64_t)i == u, "int64 and uint64 agree");
        if (is_int || is_uint) must(is_double, "an integer in range is a double in range");
        if (is_int && i > -(INT64_C(1) << 53) && i < INT64_C(1) << 53) {
            must(d == (double)i, "int64 and double agree");
        }
        return;
    }
    for (struct json_iterator i = json_iterate(v); json_next(&i);) check_numbers(i.value);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct arena arena;
    arena_init(&arena, 64 << 20);
    deed_bytes text = {data, size};
    json_value v = {0};
    struct deed_error parse_error = {0}, check_error = {0};
    deed_status status = json_parse(&arena, text, 64, &v, &parse_error);
    must(status == json_check(text, 64, &check_error), "json_check agrees with json_parse");
    must(strcmp(parse_error.message, check_error.message) == 0, "with the same words");
    if (status == DEED_OK) {
        struct buf out;
        buf_init(&out, 64 << 20);
        struct json_writer w;
        json_writer_init(&w, &out);
        write_value(&w, v);
        json_value again = {0};
        must(buf_ok(&out), "it fits");
        must(json_parse(&arena, buf_bytes(&out), 64, &again, NULL) == DEED_OK, "written is valid");
        must(json_equal(v, again) && json_equal(again, v), "and equal");
        check_numbers(v);
        buf_done(&out);
    }
    arena_done(&arena);
    return 0;
}
