/* process.h - a child process to work with over a socketpair, and the child's own side.
 *
 * The parent sends and receives bytes without blocking on either, so the two can never wait for
 * each other's buffers. The child has the other end as file descriptor OS_CHILD_FD. */
#ifndef OS_PROCESS_H
#define OS_PROCESS_H

#include "base/buf.h"
#include "base/error.h"

#define OS_CHILD_FD 3

struct os_process;

/* Start `program` (NULL: the program that runs now) with `arguments`, ended by NULL, the first
 * being its name. Its standard input is empty, its output goes to our standard error, it has a
 * process group of its own (so the terminal's Ctrl-C does not reach it) and of the environment
 * only what a program needs to find its libraries and its locale. DEED_IO, DEED_NO_MEMORY. */
DEED_MUST_CHECK deed_status os_process_start(const char *program, const char *const *arguments,
                                             struct os_process **out_process,
                                             struct deed_error *err);

/* Send from the front of `out` and append to `in` what has come, waiting at most `wait_ms` until
 * either is possible.
 *
 *   DEED_TIMEOUT  neither was. DEED_END: the child has closed its end, or died.
 *   DEED_TOO_LARGE  `in` is full. DEED_IO */
DEED_MUST_CHECK deed_status os_process_transfer(struct os_process *process, struct buf *out,
                                                struct buf *in, uint32_t wait_ms,
                                                struct deed_error *err);

/* Memory it has in RAM now, bytes; 0: unknown. */
uint64_t os_process_memory(const struct os_process *process);

/* Close our end, kill it if it still runs, wait for it, free. `out_how`, unless NULL, gets how it
 * ended: "signal 11 (Segmentation fault)", "exit status 1". Accepts NULL. */
#define OS_PROCESS_HOW_SIZE 80
void os_process_stop(struct os_process *process, char out_how[OS_PROCESS_HOW_SIZE]);

/* Let this process open as many files as it is allowed to at most; how many that is. */
uint64_t os_open_files_max(void);

/* ---- in the child --------------------------------------------------------------------------- */

/* Give up what a worker does not need: other file descriptors, new privileges, core files, address
 * space past `memory_size_max` bytes more than now (not under a sanitizer, which maps terabytes).
 * From then on a thread ends the process as soon as the parent's end is closed, whatever the other
 * threads do. */
DEED_MUST_CHECK deed_status os_child_confine(uint64_t memory_size_max, struct deed_error *err);

/* Append what has come to `in`; blocks until something has. DEED_END: the parent is gone. */
DEED_MUST_CHECK deed_status os_child_receive(struct buf *in, struct deed_error *err);
/* Send all. DEED_END: the parent is gone. */
DEED_MUST_CHECK deed_status os_child_send(deed_bytes bytes, struct deed_error *err);

#endif
