/* arena.h - memory that is given back all at once.
 *
 * What one request needs comes from one arena and dies at arena_reset. The limit is the arena's
 * own: reaching it is NULL, which callers turn into DEED_TOO_LARGE or DEED_NO_MEMORY. */
#ifndef BASE_ARENA_H
#define BASE_ARENA_H

#include "deedbook.h"

struct arena_block;

struct arena {
    struct arena_block *block; /* newest first */
    size_t used, size;         /* of the newest block's room */
    size_t total, total_max;   /* bytes taken from the system, and how many may be */
    bool failed;               /* NULL was given since the last reset: a decoder's false is not
                                * the bytes' fault */
    bool no_memory;            /* and not for its limit: the system had none */
};

void arena_init(struct arena *arena, size_t total_max);
void arena_done(struct arena *arena); /* accepts a zeroed arena */

/* Empty it; the largest block is kept for the next request. */
void arena_reset(struct arena *arena);

/* Zeroed, aligned for any type. NULL at the limit or without memory. A size of 0 gives a valid
 * pointer. */
void *arena_alloc(struct arena *arena, size_t size);
void *arena_alloc_array(struct arena *arena, size_t count, size_t size); /* checks the product */

/* Copies. `ptr` is NULL if and only if there was no memory. arena_str adds a NUL behind it. */
deed_str arena_str(struct arena *arena, deed_str s);
deed_bytes arena_bytes(struct arena *arena, deed_bytes b);
/* Names and all; `*out_list` is NULL where `count` is 0. false: no memory. */
bool arena_list(struct arena *arena, const deed_str *list, size_t count, const deed_str **out_list);
deed_str arena_printf(struct arena *arena, const char *format, ...) DEED_PRINTF(2, 3);

/* What has been handed out since the last reset, bytes (an upper bound). */
size_t arena_used(const struct arena *arena);

#endif
