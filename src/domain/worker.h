/* worker.h - the worker process: `deedbook worker DOMAIN.so`.
 *
 * Not for people: the server starts it, with one end of a socketpair as file descriptor 3, and
 * speaks docs/protocol/worker.md with it. */
#ifndef DOMAIN_WORKER_H
#define DOMAIN_WORKER_H

/* argv[1] is "worker", argv[2] the shared object, argv[3] the memory limit in bytes. Returns the
 * process's exit status when the server has closed its end: 0, or 1 after writing the reason to
 * standard error (the only place in the library that prints: this is a program's main). */
int worker_main(int argc, char **argv);

#endif
