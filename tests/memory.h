/* memory.h - memory that fails as a simulated machine says.
 *
 * For programs that are linked with --wrap=malloc,--wrap=calloc,--wrap=realloc: allocations of the
 * engine come here first. SQLite's join them by memory_configure_sqlite, which must be its first call. */
#ifndef TESTS_MEMORY_H
#define TESTS_MEMORY_H

#include "os/os_sim.h"

#include <sqlite3.h>
#include <stdlib.h>
#include <string.h>

static struct os_sim *memory_machine; /* NULL: no allocation fails */

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *old, size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *old, size_t size);

static bool memory_fails(void)
{
    return memory_machine != NULL && os_sim_allocation_fails(memory_machine);
}

void *__wrap_malloc(size_t size)
{
    return memory_fails() ? NULL : __real_malloc(size);
}

void *__wrap_calloc(size_t count, size_t size)
{
    return memory_fails() ? NULL : __real_calloc(count, size);
}

void *__wrap_realloc(void *old, size_t size)
{
    return memory_fails() ? NULL : __real_realloc(old, size);
}

/* SQLite wants to know sizes, so each stands before its memory. */
#define MEMORY_HEAD 16

static void *memory_sqlite_malloc(int size)
{
    uint8_t *memory = malloc((size_t)size + MEMORY_HEAD);
    if (memory == NULL) return NULL;
    memcpy(memory, &size, sizeof size);
    return memory + MEMORY_HEAD;
}

static void memory_sqlite_free(void *memory)
{
    if (memory != NULL) free((uint8_t *)memory - MEMORY_HEAD);
}

static void *memory_sqlite_realloc(void *old, int size)
{
    uint8_t *memory = realloc((uint8_t *)old - MEMORY_HEAD, (size_t)size + MEMORY_HEAD);
    if (memory == NULL) return NULL;
    memcpy(memory, &size, sizeof size);
    return memory + MEMORY_HEAD;
}

static int memory_sqlite_size(void *memory)
{
    int size;
    memcpy(&size, (uint8_t *)memory - MEMORY_HEAD, sizeof size);
    return size;
}

static int memory_sqlite_roundup(int size)
{
    return (size + 7) & ~7;
}

static int memory_sqlite_init(void *context)
{
    (void)context;
    return SQLITE_OK;
}

static void memory_sqlite_shutdown(void *context)
{
    (void)context;
}

static __attribute__((unused)) void memory_configure_sqlite(void)
{
    static sqlite3_mem_methods methods = {
        .xMalloc = memory_sqlite_malloc,
        .xFree = memory_sqlite_free,
        .xRealloc = memory_sqlite_realloc,
        .xSize = memory_sqlite_size,
        .xRoundup = memory_sqlite_roundup,
        .xInit = memory_sqlite_init,
        .xShutdown = memory_sqlite_shutdown,
    };
    if (sqlite3_config(SQLITE_CONFIG_MALLOC, &methods) != SQLITE_OK) abort();
    if (sqlite3_initialize() != SQLITE_OK) abort();
}

#endif
