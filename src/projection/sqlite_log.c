/* sqlite_log.c - belongs to sqlite_log.h. */
#include "projection/sqlite_log.h"

#include "base/planted.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WINDOW_SIZE   (1u << 20)
#define NAME_SIZE_MAX 512

struct views {
    struct os_file *file, *direct;
    uint8_t *cached, *device; /* a window each */
};

/* Write again what differs in the window at `offset`; false in `*out_more`: it was the last. */
static deed_status window_persist(struct views *v, uint64_t offset, bool *inout_wrote,
                                  bool *out_more, struct deed_error *err)
{
    size_t size = 0, got = 0;
    deed_status status = os_file_read(v->file, offset, v->cached, WINDOW_SIZE, &size, err);
    if (status == DEED_OK) {
        status = os_file_read(v->direct, offset, v->device, WINDOW_SIZE, &got, err);
    }
    if (status != DEED_OK) return status;
    for (size_t at = 0; at < size && status == DEED_OK; at += OS_DIRECT_ALIGN) {
        size_t part = size - at < OS_DIRECT_ALIGN ? size - at : OS_DIRECT_ALIGN;
        bool same = at + part <= got && memcmp(v->cached + at, v->device + at, part) == 0;
        if (same) continue;
        status = os_file_write(v->file, offset + at, (deed_bytes){v->cached + at, part}, err);
        *inout_wrote = true;
    }
    *out_more = size == WINDOW_SIZE;
    return status;
}

static deed_status views_persist(struct views *v, struct deed_error *err)
{
    deed_status status = os_file_sync(v->file, err);
    bool wrote = false, more = true;
    for (uint64_t offset = 0; status == DEED_OK && more; offset += WINDOW_SIZE) {
        status = window_persist(v, offset, &wrote, &more, err);
    }
    return status == DEED_OK && wrote ? os_file_sync(v->file, err) : status;
}

deed_status sqlite_log_persist(struct os *os, const char *path, struct deed_error *err)
{
    char name[NAME_SIZE_MAX];
    struct os_dir *dir = NULL;
    const char *database = NULL;
    struct views v = {0};
    if (PLANTED(WAL_TRUSTED)) return DEED_OK;
    deed_status status = os_dir_open_of(os, path, &dir, &database, err);
    if (status != DEED_OK) return status;
    (void)snprintf(name, sizeof name, "%s-wal", database);
    status = os_file_open(dir, name, OS_WRITE, &v.file, err);
    if (status == DEED_OK) status = os_file_open(dir, name, OS_READ | OS_DIRECT, &v.direct, err);
    if (status == DEED_OK) {
        v.cached = malloc(WINDOW_SIZE);
        v.device = malloc(WINDOW_SIZE);
        status = v.cached == NULL || v.device == NULL
                     ? deed_fail(err, DEED_NO_MEMORY, "%s: no memory to open it", name)
                     : views_persist(&v, err);
    }
    free(v.cached);
    free(v.device);
    os_file_close(v.direct);
    os_file_close(v.file);
    os_dir_close(dir);
    return status == DEED_NOT_FOUND ? DEED_OK : status;
}
