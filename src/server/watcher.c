/* watcher.c - polling, since it works on every file system, network ones included, and an editor's
 * way of saving (write, rename, truncate) makes no difference.
 *
 * (1) The fingerprint is taken before `changed` is called: a change that comes during the call
 *     is seen by the next look. */
#include "server/watcher.h"

#include "base/hash.h"
#include "base/text.h"
#include "os/thread.h"

#include <stdio.h>
#include <stdlib.h>
#include <uv.h>

struct watcher {
    struct actor *actor;
    char *folder;
    uint64_t interval_ns, fingerprint;
    void (*changed)(void *context);
    void *context;
};

static uint64_t file_fingerprint(const char *folder, const char *name)
{
    char path[4096];
    int len = snprintf(path, sizeof path, "%s/%s", folder, name);
    if (len < 0 || (size_t)len >= sizeof path) return 0;
    uv_fs_t request;
    uint64_t facts[4] = {0};
    if (uv_fs_stat(NULL, &request, path, NULL) == 0) {
        facts[0] = request.statbuf.st_size;
        facts[1] = (uint64_t)request.statbuf.st_mtim.tv_sec;
        facts[2] = (uint64_t)request.statbuf.st_mtim.tv_nsec;
        facts[3] = request.statbuf.st_ino;
    }
    uv_fs_req_cleanup(&request);
    return xxh64(xxh64(1, deed_bytes_of(deed_str_of(name))),
                 (deed_bytes){(const uint8_t *)facts, sizeof facts});
}

uint64_t watcher_fingerprint(const char *folder)
{
    uv_fs_t request;
    uint64_t sum = 0;
    int result = uv_fs_scandir(NULL, &request, folder, 0, NULL);
    if (result >= 0) sum = 1;
    uv_dirent_t entry;
    while (result >= 0 && uv_fs_scandir_next(&request, &entry) == 0) {
        size_t len = strlen(entry.name);
        if (len < 4 || strcmp(entry.name + len - 4, ".sql") != 0) continue;
        sum += file_fingerprint(folder, entry.name); /* in any order */
    }
    uv_fs_req_cleanup(&request);
    return sum;
}

static uint64_t watcher_step(void *context)
{
    struct watcher *w = context;
    uint64_t now = watcher_fingerprint(w->folder);
    if (now != w->fingerprint) {
        w->fingerprint = now; /* (1) */
        w->changed(w->context);
    }
    return w->interval_ns;
}

deed_status watcher_start(const char *folder, uint64_t fingerprint, uint32_t interval_ms,
                          void (*changed)(void *context), void *context,
                          struct watcher **out_watcher, struct deed_error *err)
{
    struct watcher *w = calloc(1, sizeof *w);
    if (w != NULL) w->folder = strdup(folder);
    if (w == NULL || w->folder == NULL) {
        watcher_stop(w);
        return deed_fail(err, DEED_NO_MEMORY, "watch %s: out of memory", folder);
    }
    w->interval_ns = (uint64_t)interval_ms * 1000000;
    w->changed = changed;
    w->context = context;
    w->fingerprint = fingerprint;
    deed_status status = actor_start("watcher", watcher_step, w, &w->actor, err);
    if (status != DEED_OK) {
        watcher_stop(w);
        return status;
    }
    *out_watcher = w;
    return DEED_OK;
}

void watcher_stop(struct watcher *w)
{
    if (w == NULL) return;
    actor_stop(w->actor);
    free(w->folder);
    free(w);
}
