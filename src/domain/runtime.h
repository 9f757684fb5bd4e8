/* runtime.h - runs a domain's functions: folds events, decides commands, keeps states.
 *
 * What host_in_process and the worker process have in common. Requests and answers are host.h's.
 * One thread at a time. */
#ifndef DOMAIN_RUNTIME_H
#define DOMAIN_RUNTIME_H

#include "domain/host.h"

struct runtime;

struct runtime_options {
    uint32_t slot_count_max; /* states kept; 0: 10,000 */
    uint64_t slot_size_max;  /* bytes of all states kept; 0: 128 MiB */
    uint64_t call_size_max;  /* memory of one call of the author's code; 0: 128 MiB */
};

/* `domain` must stay. DEED_INVALID: its tables are wrong; the message says where. */
DEED_MUST_CHECK deed_status runtime_create(const struct deed_domain *domain,
                                           const struct runtime_options *options,
                                           struct runtime **out_runtime, struct deed_error *err);
void runtime_destroy(struct runtime *runtime); /* accepts NULL */

/* The domain as JSON, valid until runtime_destroy. */
deed_str runtime_model(const struct runtime *runtime);

/* As host_run, one request. */
void runtime_run(struct runtime *runtime, const struct host_request *request,
                 struct host_answer *answer, struct arena *arena);

uint64_t runtime_slot_revision(const struct runtime *runtime, deed_str slot);

/* The domain in a shared object, loaded for good. Failures as host_in_process_load. */
DEED_MUST_CHECK deed_status runtime_load(const char *path, const struct deed_domain **out_domain,
                                         struct deed_error *err);

#endif
