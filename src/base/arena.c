/* arena.c - a list of blocks; each new one is at least twice the one before.
 *
 * (1) `used` <= `size`; both belong to the newest block.
 * (2) `total` counts what malloc gave, block heads included, and never exceeds `total_max`. */
#include "base/arena.h"

#include <assert.h>
#include <stdarg.h>
#include <stdalign.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

struct arena_block {
    struct arena_block *older;
    size_t size; /* of the room behind the head */
    alignas(max_align_t) unsigned char room[];
};

/* A first block that holds a small request whole. */
#define ARENA_BLOCK_SIZE_MIN 4096

void arena_init(struct arena *arena, size_t total_max)
{
    *arena = (struct arena){.total_max = total_max};
}

void arena_done(struct arena *arena)
{
    while (arena->block != NULL) {
        struct arena_block *older = arena->block->older;
        free(arena->block);
        arena->block = older;
    }
    *arena = (struct arena){.total_max = arena->total_max};
}

void arena_reset(struct arena *arena)
{
    arena->failed = arena->no_memory = false;
    if (arena->block == NULL) return;

    /* Mostly the newest; near the limit a block may be smaller than the one before. */
    struct arena_block *kept = arena->block;
    for (struct arena_block *b = kept; b != NULL; b = b->older) {
        if (b->size > kept->size) kept = b;
    }
    for (struct arena_block *b = arena->block; b != NULL;) {
        struct arena_block *older = b->older;
        if (b != kept) free(b);
        b = older;
    }
    kept->older = NULL;
    arena->block = kept;
    arena->size = kept->size;
    arena->used = 0;
    arena->total = sizeof *kept + kept->size;
}

static bool block_add(struct arena *arena, size_t size)
{
    size_t wanted = arena->size > SIZE_MAX / 4 ? size : arena->size * 2;
    if (wanted < ARENA_BLOCK_SIZE_MIN) wanted = ARENA_BLOCK_SIZE_MIN;
    if (wanted < size) wanted = size;
    if (arena->total > arena->total_max) return false;
    size_t left = arena->total_max - arena->total;
    if (left < sizeof(struct arena_block) || size > left - sizeof(struct arena_block)) return false;
    if (wanted > left - sizeof(struct arena_block)) wanted = left - sizeof(struct arena_block);

    struct arena_block *block = malloc(sizeof *block + wanted);
    if (block == NULL) {
        arena->no_memory = true;
        return false;
    }
    block->older = arena->block;
    block->size = wanted;
    arena->block = block;
    arena->used = 0;
    arena->size = wanted;
    arena->total += sizeof *block + wanted;
    return true;
}

void *arena_alloc(struct arena *arena, size_t size)
{
    const size_t align = alignof(max_align_t);
    if (size > SIZE_MAX / 4) {
        arena->failed = true;
        return NULL;
    }
    size_t rounded = size == 0 ? align : (size + align - 1) / align * align;

    assert(arena->used <= arena->size);
    if (rounded > arena->size - arena->used && !block_add(arena, rounded)) {
        arena->failed = true;
        return NULL;
    }

    void *out = arena->block->room + arena->used;
    arena->used += rounded;
    memset(out, 0, rounded);
    return out;
}

void *arena_alloc_array(struct arena *arena, size_t count, size_t size)
{
    bool overflows = size != 0 && count > SIZE_MAX / size;
    return arena_alloc(arena, overflows ? SIZE_MAX : count * size);
}

deed_str arena_str(struct arena *arena, deed_str s)
{
    if (s.len == SIZE_MAX) return (deed_str){0};
    char *copy = arena_alloc(arena, s.len + 1);
    if (copy == NULL) return (deed_str){0};
    if (s.len > 0) memcpy(copy, s.ptr, s.len);
    return (deed_str){copy, s.len};
}

deed_bytes arena_bytes(struct arena *arena, deed_bytes b)
{
    uint8_t *copy = arena_alloc(arena, b.len);
    if (copy == NULL) return (deed_bytes){0};
    if (b.len > 0) memcpy(copy, b.ptr, b.len);
    return (deed_bytes){copy, b.len};
}

bool arena_list(struct arena *arena, const deed_str *list, size_t count, const deed_str **out_list)
{
    deed_str *copy = count == 0 ? NULL : arena_alloc_array(arena, count, sizeof *copy);
    if (copy == NULL && count > 0) return false;
    for (size_t i = 0; i < count; i++) {
        copy[i] = arena_str(arena, list[i]);
        if (copy[i].ptr == NULL) return false;
    }
    *out_list = copy;
    return true;
}

deed_str arena_printf(struct arena *arena, const char *format, ...)
{
    va_list arguments, again;
    va_start(arguments, format);
    va_copy(again, arguments);
    int len = vsnprintf(NULL, 0, format, arguments);
    va_end(arguments);

    char *text = len < 0 ? NULL : arena_alloc(arena, (size_t)len + 1);
    if (text != NULL) (void)vsnprintf(text, (size_t)len + 1, format, again);
    va_end(again);
    return text == NULL ? (deed_str){0} : (deed_str){text, (size_t)len};
}

size_t arena_used(const struct arena *arena)
{
    return arena->total - (arena->size - arena->used);
}
