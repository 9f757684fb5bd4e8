/* host.h - where a domain's code runs: in this process, or in a worker process.
 *
 * A host takes requests in batches. Each names a slot, which is one aggregate's state kept by the
 * host, says at which revision the slot must be, brings the events to fold onto it, and then maybe
 * a command to decide or a wish to see the state. A host may have dropped a slot at any time; it
 * then asks for all the events again. A request that crashes, loops or eats memory costs only
 * itself DEED_DOMAIN, if the host is a worker.
 *
 * One thread at a time may call a host. */
#ifndef DOMAIN_HOST_H
#define DOMAIN_HOST_H

#include "base/arena.h"
#include "base/buf.h"
#include "base/error.h"

struct deed_domain; /* deedbook_domain.h */
struct domain_host;

enum host_work {
    HOST_FOLD = 0,   /* only fold the events */
    HOST_DECIDE = 1, /* then decide `command` on the state */
    HOST_STATE = 2,  /* then write the state as JSON */
};

struct host_event {
    uint64_t revision; /* ascending; gaps are allowed (retention) */
    int64_t time_ns;
    deed_str type;
    deed_bytes
        data; /* JSON; empty: an event whose data is not JSON, which only unknown types may */
    deed_str actor;
};

struct host_request {
    enum host_work work;
    deed_str slot;   /* key of the cached state; usually the stream's name. Empty: keep nothing */
    deed_str stream; /* its category selects the aggregate */
    /* The slot must hold the state at this revision; DEED_NONE: start from nothing. */
    uint64_t base_revision;
    const struct host_event *events; /* to fold onto it */
    size_t event_count;
    /* HOST_DECIDE */
    deed_str command;
    deed_bytes data;
    int64_t now_ns;
    deed_str actor;
};

enum host_outcome {
    HOST_DONE = 0,
    HOST_FAILED = 1,      /* `error` says why; nothing of the request counts */
    HOST_NEED_EVENTS = 2, /* the slot is not at base_revision: ask again from nothing */
};

struct host_answer {
    enum host_outcome outcome;
    struct deed_error error;         /* DEED_REJECTED, DEED_INVALID, DEED_NOT_FOUND, DEED_DOMAIN */
    const struct host_event *events; /* HOST_DECIDE: type and data of what it yields */
    size_t event_count;
    deed_bytes state; /* HOST_STATE */
};

/* Run them in order; answers[i] is for requests[i], its memory comes from `arena`. Cannot fail as
 * a whole: each answer says how its request went. Requests of one batch may share a slot. */
void host_run(struct domain_host *host, const struct host_request *requests, size_t count,
              struct host_answer *answers, struct arena *arena);

/* The revision that the host's slot is probably at; DEED_NONE: it has none. */
uint64_t host_slot_revision(struct domain_host *host, deed_str slot);

/* The domain as JSON, docs/domain.md. Valid until host_close. */
deed_str host_model(const struct domain_host *host);

struct host_metrics {
    uint64_t restarts, timeouts; /* of the worker process */
};
/* From any thread, also while the host works. */
void host_get_metrics(struct domain_host *host, struct host_metrics *out_metrics);

void host_close(struct domain_host *host); /* accepts NULL */

/* ---- the hosts ------------------------------------------------------------------------------ */

/* This process. `domain` must stay. DEED_INVALID: its tables are wrong; the message says where. */
DEED_MUST_CHECK deed_status host_in_process(const struct deed_domain *domain,
                                            struct domain_host **out_host, struct deed_error *err);

/* This process, from a shared object. DEED_INVALID: it cannot be loaded, is no domain, or has
 * wrong tables. DEED_TOO_NEW: made for another version of deedbook_domain.h. */
DEED_MUST_CHECK deed_status host_in_process_load(const char *path, struct domain_host **out_host,
                                                 struct deed_error *err);

struct host_worker_options {
    const char *program;      /* that has the `worker` subcommand; NULL: this program */
    uint32_t deadline_ms;     /* for one command; 0: 5,000 */
    uint64_t memory_size_max; /* of the process, bytes above what it starts with; 0: 512 MiB */
};

/* A worker process that loads the shared object; it is started at once and again when it died.
 * Failures as host_in_process_load; DEED_IO: no process can be made; DEED_DOMAIN: it died. */
DEED_MUST_CHECK deed_status host_worker(const char *path, const struct host_worker_options *options,
                                        struct domain_host **out_host, struct deed_error *err);

/* The one shared object (*.so) in an app folder, as a path in `arena`. `app` may also name the
 * shared object itself. DEED_NOT_FOUND: none, or no folder. DEED_INVALID: several. */
DEED_MUST_CHECK deed_status host_find_domain(const char *app, struct arena *arena,
                                             const char **out_path, struct deed_error *err);

/* ---- for implementations -------------------------------------------------------------------- */

struct host_ops {
    void (*run)(struct domain_host *, const struct host_request *, size_t, struct host_answer *,
                struct arena *);
    uint64_t (*slot_revision)(struct domain_host *, deed_str slot);
    void (*metrics)(struct domain_host *, struct host_metrics *);
    void (*close)(struct domain_host *);
};

/* Every implementation's struct begins with this. */
struct domain_host {
    const struct host_ops *ops;
    deed_str model;
};

#endif
