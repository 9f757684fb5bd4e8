/* binding.h - between JSON and the structs that describe themselves (deedbook_domain.h).
 *
 * Everything a domain's author does not write by hand: reading a struct from JSON, writing it,
 * copying it whole, describing it, and the containers' insides. */
#ifndef DOMAIN_BINDING_H
#define DOMAIN_BINDING_H

#include "deedbook_domain.h"
#include "json/json.h"

/* How deep structs may nest in values: recursive types are possible. */
#define BINDING_DEPTH_MAX 64

enum bind_rule {
    BIND_EXACT,  /* commands, and events that are emitted: everything must fit */
    BIND_STORED, /* events that are read back, states: what is missing is zero, bounds are open */
};

/* Check that a description makes sense: what DEED_STRUCT writes always does, but tables may be
 * made by hand. DEED_INVALID: the message names the type and the field. */
DEED_MUST_CHECK deed_status bind_check(const struct deed_type *type, struct deed_error *err);

/* Fill the struct at `out` (type->size bytes, zeroed by this) from `value`. Texts and containers are
 * copied into `arena`.
 *
 *   DEED_INVALID    the message tells every path that does not fit (as many as there is room for),
 *                   what was expected there and what came.
 *   DEED_NO_MEMORY  the arena is at its limit. */
DEED_MUST_CHECK deed_status bind_read(const struct deed_type *type, json_value value,
                                      enum bind_rule rule, struct arena *arena, void *out,
                                      struct deed_error *err);

/* Append the struct as JSON, members in the order of the description. BIND_STORED writes whatever
 * is there, with null for what has no value. DEED_INVALID: it does not fit BIND_EXACT, or a text
 * is not UTF-8, a DEED_JSON not JSON; `out` then holds a part. DEED_TOO_LARGE: `out` is full. */
DEED_MUST_CHECK deed_status bind_write(const struct deed_type *type, const void *value,
                                       enum bind_rule rule, struct buf *out,
                                       struct deed_error *err);

/* Copy a struct with all it refers to: nothing is shared afterwards. false: the arena is at its
 * limit, or the value is nested deeper than BINDING_DEPTH_MAX. */
DEED_MUST_CHECK bool bind_copy(const struct deed_type *type, const void *from, struct arena *arena,
                               void *to);

/* Write the fields as a JSON array: docs/domain.md. */
void bind_describe(const struct deed_type *type, struct json_writer *w);

/* What every map made by DEED_STRUCT looks like from here. */
struct bind_map {
    deed_str *keys;
    void *values;
    size_t count, room;
    uint32_t
        *slots; /* open addressing, index + 1; NULL while the map is small or was made by hand */
    size_t slot_count;
};
/* SIZE_MAX: not there. */
size_t bind_map_find(const struct bind_map *map, deed_str key);
/* Space for `key`, which is not there. NULL: the arena is at its limit. The key is borrowed. */
void *bind_map_add(struct bind_map *map, size_t value_size, deed_str key, struct arena *arena);
void bind_map_cut(struct bind_map *map, size_t value_size, size_t index);

#endif
