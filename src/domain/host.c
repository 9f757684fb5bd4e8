/* host.c - what all hosts share, and the host that is this process. */
#include "domain/host.h"

#include "domain/runtime.h"
#include "os/os.h"

#include <assert.h>
#include <stdlib.h>

void host_run(struct domain_host *host, const struct host_request *requests, size_t count,
              struct host_answer *answers, struct arena *arena)
{
    assert(host != NULL && (count == 0 || (requests != NULL && answers != NULL)));
    host->ops->run(host, requests, count, answers, arena);
}

uint64_t host_slot_revision(struct domain_host *host, deed_str slot)
{
    return host->ops->slot_revision(host, slot);
}

deed_str host_model(const struct domain_host *host)
{
    return host->model;
}

void host_get_metrics(struct domain_host *host, struct host_metrics *out_metrics)
{
    host->ops->metrics(host, out_metrics);
}

void host_close(struct domain_host *host)
{
    if (host != NULL) host->ops->close(host);
}

/* ---- finding -------------------------------------------------------------------------------- */

struct finding {
    struct arena *arena;
    deed_str name, other; /* the first and the second in order of name */
};

static bool is_shared_object(deed_str name)
{
    return name.len > 3 && memcmp(name.ptr + name.len - 3, ".so", 3) == 0;
}

static void find_each(void *context, const char *text)
{
    struct finding *finding = context;
    deed_str name = deed_str_of(text);
    if (!is_shared_object(name)) return;
    name = arena_str(finding->arena, name);
    if (finding->name.ptr == NULL) {
        finding->name = name;
    } else {
        finding->other = name;
    }
}

deed_status host_find_domain(const char *app, struct arena *arena, const char **out_path,
                             struct deed_error *err)
{
    *out_path = NULL;
    deed_str path = deed_str_of(app);
    if (!is_shared_object(path)) {
        struct os_dir *dir = NULL;
        deed_status status = os_dir_open(os_real(), app, false, &dir, err);
        if (status != DEED_OK) return status;
        struct finding finding = {.arena = arena};
        status = os_dir_list(dir, find_each, &finding, err);
        os_dir_close(dir);
        if (status != DEED_OK) return status;
        if (finding.name.ptr == NULL) {
            return deed_fail(err, DEED_NOT_FOUND, "app %s: no domain (a shared object, *.so) in it",
                             app);
        }
        if (finding.other.ptr != NULL) {
            return deed_fail(err, DEED_INVALID, "app %s: two domains, %s and %s", app,
                             finding.name.ptr, finding.other.ptr);
        }
        path = arena_printf(arena, "%s/%s", app, finding.name.ptr);
    } else {
        path = arena_str(arena, path);
    }
    *out_path = path.ptr;
    return path.ptr != NULL ? DEED_OK : deed_fail(err, DEED_NO_MEMORY, "no memory for a path");
}

/* ---- in this process ------------------------------------------------------------------------ */

struct host_here {
    struct domain_host host;
    struct runtime *runtime;
};

static void here_run(struct domain_host *host, const struct host_request *requests, size_t count,
                     struct host_answer *answers, struct arena *arena)
{
    struct host_here *here = (struct host_here *)host;
    for (size_t i = 0; i < count; i++) {
        runtime_run(here->runtime, &requests[i], &answers[i], arena);
    }
}

static uint64_t here_slot_revision(struct domain_host *host, deed_str slot)
{
    return runtime_slot_revision(((struct host_here *)host)->runtime, slot);
}

static void here_metrics(struct domain_host *host, struct host_metrics *out_metrics)
{
    (void)host;
    *out_metrics = (struct host_metrics){0};
}

static void here_close(struct domain_host *host)
{
    struct host_here *here = (struct host_here *)host;
    runtime_destroy(here->runtime);
    free(here);
}

static const struct host_ops here_ops = {
    .run = here_run,
    .slot_revision = here_slot_revision,
    .metrics = here_metrics,
    .close = here_close,
};

deed_status host_in_process(const struct deed_domain *domain, struct domain_host **out_host,
                            struct deed_error *err)
{
    *out_host = NULL;
    struct host_here *here = calloc(1, sizeof *here);
    if (here == NULL) return deed_fail(err, DEED_NO_MEMORY, "no memory for a domain");
    deed_status status = runtime_create(domain, NULL, &here->runtime, err);
    if (status != DEED_OK) {
        free(here);
        return status;
    }
    here->host = (struct domain_host){.ops = &here_ops, .model = runtime_model(here->runtime)};
    *out_host = &here->host;
    return DEED_OK;
}

deed_status host_in_process_load(const char *path, struct domain_host **out_host,
                                 struct deed_error *err)
{
    *out_host = NULL;
    const struct deed_domain *domain = NULL;
    deed_status status = runtime_load(path, &domain, err);
    if (status != DEED_OK) return status;
    return host_in_process(domain, out_host, err);
}
