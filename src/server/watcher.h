/* watcher.h - notices that the files of a folder changed: names, sizes, times of change. */
#ifndef SERVER_WATCHER_H
#define SERVER_WATCHER_H

#include "base/error.h"

struct watcher;

/* Call `changed` from a thread of its own when anything about the *.sql files of a folder differs
 * from what it was at `fingerprint`, and after each later change; looks every `interval_ms`.
 * `folder` is copied; it may be missing and come later. */
DEED_MUST_CHECK deed_status watcher_start(const char *folder, uint64_t fingerprint,
                                          uint32_t interval_ms,
                                          void (*changed)(void *context), void *context,
                                          struct watcher **out_watcher, struct deed_error *err);
void watcher_stop(struct watcher *watcher); /* accepts NULL; no call comes after it */

/* The print of a folder as it is now: equal for equal names, sizes and times. 0: no such folder. */
uint64_t watcher_fingerprint(const char *folder);

#endif
