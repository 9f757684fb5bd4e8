/* host_worker.c - the host that is a worker process, from the server's side.
 *
 *     run(batch) ──► all at once ──► all answered ──────────────────────────────► done
 *                        │ died, looped, ate memory, talked nonsense
 *                        ▼
 *                    kill, start again ──► the unanswered ones, one by one, each at its own risk
 *
 * (1) A request is answered exactly once: by the worker, or with DEED_DOMAIN by us.
 * (2) `seen` is a guess of what the worker has: the worker says when it is wrong. It is emptied
 *     with every new process.
 * (3) The worker's bytes are not trusted: a malformed frame is a death like any other.
 * (4) A worker that cannot be started is tried again later and later, so that a broken build does not
 *     cost the server its processor. One that dies of a command is started again at once. */
#include "domain/host.h"

#include "base/hash.h"
#include "domain/frames.h"
#include "os/os.h"
#include "os/process.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#define DEADLINE_MS     5000
#define START_MS        10000
#define MEMORY_SIZE_MAX (UINT64_C(512) << 20)
/* Requests of one batch and the events they bring. */
#define OUT_SIZE_MAX ((size_t)1 << 30)
/* How often the worker's memory is looked at while we wait. */
#define WATCH_MS       20
#define RETRY_FIRST_NS UINT64_C(100000000)
#define RETRY_LAST_NS  UINT64_C(5000000000)

/* A cache of guesses needs no keys: a wrong one costs one question. Four places a set. */
#define SEEN_SET_COUNT 8192
struct seen {
    uint64_t hash, revision;
};

struct host_process {
    struct domain_host host;
    char *path, *program;
    struct host_worker_options options;
    struct os_process *process; /* NULL: none runs */
    struct buf out, in;
    char *model; /* of the first process; later ones must have the same */
    struct seen (*seen)[4];
    _Atomic uint64_t restarts, timeouts;
    uint64_t retry_at, retry_ns; /* (4); ticks */
    uint64_t memory_at_start;
    struct deed_error start_error;
};

/* ---- what the worker has -------------------------------------------------------------------- */

static struct seen *seen_set(struct host_process *h, uint64_t hash)
{
    return h->seen[hash & (SEEN_SET_COUNT - 1)];
}

static void seen_put(struct host_process *h, deed_str slot, uint64_t revision)
{
    uint64_t hash = xxh64(1, deed_bytes_of(slot));
    struct seen *set = seen_set(h, hash);
    size_t at = 0;
    while (at < 3 && set[at].hash != hash)
        at++;
    /* To the front; the last place is the oldest. */
    memmove(set + 1, set, at * sizeof *set);
    set[0] = (struct seen){hash, revision};
}

static uint64_t process_slot_revision(struct domain_host *host, deed_str slot)
{
    struct host_process *h = (struct host_process *)host;
    uint64_t hash = xxh64(1, deed_bytes_of(slot));
    const struct seen *set = seen_set(h, hash);
    for (size_t i = 0; i < 4; i++) {
        if (set[i].hash == hash) return set[i].revision;
    }
    return DEED_NONE;
}

static void seen_clear(struct host_process *h)
{
    for (size_t s = 0; s < SEEN_SET_COUNT; s++) {
        for (size_t i = 0; i < 4; i++)
            h->seen[s][i] = (struct seen){0, DEED_NONE};
    }
}

static void seen_learn(struct host_process *h, const struct host_request *request,
                       const struct host_answer *answer)
{
    if (request->slot.len == 0) return;
    uint64_t revision = DEED_NONE;
    if (answer->outcome != HOST_NEED_EVENTS) {
        revision = request->event_count > 0 ? request->events[request->event_count - 1].revision
                                            : request->base_revision;
    }
    seen_put(h, request->slot, revision);
}

/* ---- life of the process -------------------------------------------------------------------- */

static void process_drop(struct host_process *h, char how[OS_PROCESS_HOW_SIZE])
{
    os_process_stop(h->process, how);
    h->process = NULL;
    buf_reset(&h->out);
    buf_reset(&h->in);
    seen_clear(h);
}

static deed_status hello_take(struct host_process *h, deed_bytes payload, struct deed_error *err)
{
    struct deed_error failure;
    if (frame_kind_of(payload) == FRAME_FAILED && frame_failed_read(payload, &failure)) {
        if (err != NULL) *err = failure;
        return failure.status;
    }
    uint32_t version = 0;
    deed_str model = {0};
    if (frame_kind_of(payload) != FRAME_HELLO || !frame_hello_read(payload, &version, &model)) {
        return deed_fail(err, DEED_DOMAIN, "worker for %s: its first frame is malformed", h->path);
    }
    if (version != FRAME_PROTOCOL_VERSION) {
        return deed_fail(err, DEED_TOO_NEW, "worker for %s: protocol version %u, expected %d",
                         h->path, version, FRAME_PROTOCOL_VERSION);
    }
    if (h->model != NULL) {
        if (deed_str_equal(deed_str_of(h->model), model)) return DEED_OK;
        return deed_fail(err, DEED_DOMAIN,
                         "domain %s has other commands or events than when it was opened: "
                         "restart to use it",
                         h->path);
    }
    h->model = malloc(model.len + 1);
    if (h->model == NULL) return deed_fail(err, DEED_NO_MEMORY, "no memory for a model");
    memcpy(h->model, model.ptr, model.len);
    h->model[model.len] = '\0';
    h->host.model = (deed_str){h->model, model.len};
    return DEED_OK;
}

static deed_status hello_await(struct host_process *h, struct deed_error *err)
{
    const uint64_t from = os_ticks_ns(os_real());
    for (;;) {
        deed_bytes payload;
        size_t size;
        deed_status status = frame_next(buf_bytes(&h->in), &payload, &size, err);
        if (status == DEED_OK) {
            status = hello_take(h, payload, err);
            buf_consume(&h->in, size);
            return status;
        }
        if (status != DEED_END) return status;
        uint64_t waited_ms = (os_ticks_ns(os_real()) - from) / 1000000;
        if (waited_ms >= START_MS) {
            return deed_fail(err, DEED_DOMAIN, "worker for %s: not ready within %d ms", h->path,
                             START_MS);
        }
        status =
            os_process_transfer(h->process, &h->out, &h->in, (uint32_t)(START_MS - waited_ms), err);
        if (status == DEED_END) {
            char how[OS_PROCESS_HOW_SIZE];
            process_drop(h, how);
            return deed_fail(err, DEED_DOMAIN, "worker for %s: it ended at once: %s", h->path, how);
        }
        if (status != DEED_OK && status != DEED_TIMEOUT) return status;
    }
}

static deed_status process_start(struct host_process *h, struct deed_error *err)
{
    char memory[24];
    snprintf(memory, sizeof memory, "%llu", (unsigned long long)h->options.memory_size_max);
    const char *arguments[] = {"deedbook", "worker", h->path, memory, NULL};
    deed_status status = os_process_start(h->program, arguments, &h->process, err);
    if (status == DEED_OK) status = hello_await(h, err);
    if (status != DEED_OK) {
        process_drop(h, NULL);
        return status;
    }
    h->memory_at_start = os_process_memory(h->process);
    return DEED_OK;
}

/* One that died, or spoke unasked, while nothing was asked of it must not cost the next command. */
static void process_look(struct host_process *h)
{
    if (h->process == NULL) return;
    deed_status status = os_process_transfer(h->process, &h->out, &h->in, 0, NULL);
    if (status != DEED_TIMEOUT) process_drop(h, NULL);
}

/* (4) */
static deed_status process_ensure(struct host_process *h, struct deed_error *err)
{
    process_look(h);
    if (h->process != NULL) return DEED_OK;
    uint64_t now = os_ticks_ns(os_real());
    if (h->retry_ns > 0 && now < h->retry_at) {
        if (err != NULL) *err = h->start_error;
        return DEED_DOMAIN;
    }
    h->restarts++;
    deed_status status = process_start(h, &h->start_error);
    if (status == DEED_OK) {
        h->retry_ns = 0;
        return DEED_OK;
    }
    h->retry_ns = h->retry_ns == 0 ? RETRY_FIRST_NS : h->retry_ns * 2;
    if (h->retry_ns > RETRY_LAST_NS) h->retry_ns = RETRY_LAST_NS;
    h->retry_at = os_ticks_ns(os_real()) + h->retry_ns;
    h->start_error.status = DEED_DOMAIN;
    deed_wrap(&h->start_error, "the domain cannot be started again");
    if (err != NULL) *err = h->start_error;
    return DEED_DOMAIN;
}

/* ---- running -------------------------------------------------------------------------------- */

struct batch {
    struct host_process *h;
    const struct host_request *requests;
    struct host_answer *answers;
    size_t count, answered; /* answers come in order */
    struct arena *arena;
    uint32_t deadline_ms;
    uint64_t progress_at; /* ticks of the last answer */
};

static deed_status answers_take(struct batch *b, struct deed_error *err)
{
    struct buf *in = &b->h->in;
    size_t used = 0;
    deed_status status = DEED_OK;
    while (b->answered < b->count) {
        deed_bytes payload;
        size_t size;
        deed_bytes rest = {in->ptr + used, in->len - used};
        status = frame_next(rest, &payload, &size, err);
        if (status != DEED_OK) break;
        uint32_t sequence = 0;
        struct host_answer *answer = &b->answers[b->answered];
        if (frame_kind_of(payload) != FRAME_ANSWER ||
            !frame_answer_read(payload, b->arena, &sequence, answer) || sequence != b->answered) {
            status = deed_fail(err, DEED_CORRUPT, "it sent a malformed answer");
            break;
        }
        seen_learn(b->h, &b->requests[b->answered], answer);
        b->answered++;
        b->progress_at = os_ticks_ns(os_real());
        used += size;
    }
    buf_consume(in, used);
    return status == DEED_END ? DEED_OK : status;
}

static deed_status memory_check(struct host_process *h, struct deed_error *err)
{
    uint64_t used = os_process_memory(h->process);
    if (used <= h->memory_at_start || used - h->memory_at_start <= h->options.memory_size_max) {
        return DEED_OK;
    }
    return deed_fail(err, DEED_TOO_LARGE, "it used more than %llu MiB of memory",
                     (unsigned long long)(h->options.memory_size_max >> 20));
}

static deed_status deadline_check(struct batch *b, struct deed_error *err)
{
    uint64_t waited_ns = os_ticks_ns(os_real()) - b->progress_at;
    if (waited_ns / 1000000 < b->deadline_ms) return DEED_OK;
    return deed_fail(err, DEED_TIMEOUT, "it did not answer within %u ms", b->deadline_ms);
}

/* Until all are answered, or the worker is of no more use: then not DEED_OK, and `err` says why. */
static deed_status batch_exchange(struct batch *b, struct deed_error *err)
{
    struct host_process *h = b->h;
    for (size_t i = 0; i < b->count; i++)
        frame_request(&h->out, (uint32_t)i, &b->requests[i]);
    if (!buf_ok(&h->out)) return deed_fail(err, DEED_NO_MEMORY, "no memory for its input");
    b->progress_at = os_ticks_ns(os_real());
    uint64_t watched_at = b->progress_at;
    for (;;) {
        deed_status status = answers_take(b, err);
        if (status != DEED_OK || b->answered == b->count) return status;

        status = os_process_transfer(h->process, &h->out, &h->in, WATCH_MS, err);
        if (status != DEED_OK && status != DEED_TIMEOUT) return status;
        uint64_t now = os_ticks_ns(os_real());
        if (now - watched_at >= WATCH_MS * UINT64_C(1000000)) {
            watched_at = now;
            status = memory_check(h, err);
            if (status != DEED_OK) return status;
        }
        status = deadline_check(b, err);
        if (status != DEED_OK) return status;
    }
}

static void answer_fail(struct host_answer *answer, const struct deed_error *why)
{
    *answer = (struct host_answer){.outcome = HOST_FAILED, .error = *why};
    answer->error.status = DEED_DOMAIN;
}

/* Put the reason of a death into words, and end the process for good. */
static void worker_died(struct host_process *h, deed_status status, struct deed_error *why)
{
    char how[OS_PROCESS_HOW_SIZE];
    process_drop(h, how);
    if (status == DEED_TIMEOUT) h->timeouts++;
    if (status == DEED_END) (void)deed_fail(why, DEED_DOMAIN, "it ended with %s", how);
    deed_wrap(why, "the domain's code failed");
}

static void batch_run(struct batch *b)
{
    struct deed_error why = {0};
    deed_status status = process_ensure(b->h, &why);
    if (status != DEED_OK) {
        while (b->answered < b->count)
            answer_fail(&b->answers[b->answered++], &why);
        return;
    }
    status = batch_exchange(b, &why);
    if (status == DEED_OK) return;
    worker_died(b->h, status, &why);
    if (b->count - b->answered == 1) answer_fail(&b->answers[b->answered++], &why);
}

static void process_run(struct domain_host *host, const struct host_request *requests, size_t count,
                        struct host_answer *answers, struct arena *arena)
{
    struct host_process *h = (struct host_process *)host;
    struct batch all = {.h = h,
                        .requests = requests,
                        .answers = answers,
                        .count = count,
                        .arena = arena,
                        /* One of many may be slow alone; then it gets its time alone. */
                        .deadline_ms =
                            count > 1 ? h->options.deadline_ms / 5 + 1 : h->options.deadline_ms};
    if (count > 0) batch_run(&all);
    for (size_t i = all.answered; i < count; i++) {
        struct batch one = {.h = h,
                            .requests = &requests[i],
                            .answers = &answers[i],
                            .count = 1,
                            .arena = arena,
                            .deadline_ms = h->options.deadline_ms};
        batch_run(&one);
        assert(one.answered == 1);
    }
}

static void process_metrics(struct domain_host *host, struct host_metrics *out_metrics)
{
    struct host_process *h = (struct host_process *)host;
    *out_metrics = (struct host_metrics){.restarts = h->restarts, .timeouts = h->timeouts};
}

static void process_close(struct domain_host *host)
{
    struct host_process *h = (struct host_process *)host;
    if (h->seen != NULL) process_drop(h, NULL);
    buf_done(&h->out);
    buf_done(&h->in);
    free(h->seen);
    free(h->model);
    free(h->program);
    free(h->path);
    free(h);
}

static const struct host_ops process_ops = {
    .run = process_run,
    .slot_revision = process_slot_revision,
    .metrics = process_metrics,
    .close = process_close,
};

deed_status host_worker(const char *path, const struct host_worker_options *options,
                        struct domain_host **out_host, struct deed_error *err)
{
    *out_host = NULL;
    struct host_process *h = calloc(1, sizeof *h);
    if (h == NULL) return deed_fail(err, DEED_NO_MEMORY, "no memory for a worker");
    h->host.ops = &process_ops;
    if (options != NULL) h->options = *options;
    if (h->options.deadline_ms == 0) h->options.deadline_ms = DEADLINE_MS;
    if (h->options.memory_size_max == 0) h->options.memory_size_max = MEMORY_SIZE_MAX;
    buf_init(&h->out, OUT_SIZE_MAX);
    buf_init(&h->in, 2 * FRAME_SIZE_MAX);
    h->path = strdup(path);
    if (h->options.program != NULL) h->program = strdup(h->options.program);
    h->seen = calloc(SEEN_SET_COUNT, sizeof *h->seen);
    deed_status status = DEED_OK;
    if (h->path == NULL || h->seen == NULL || (h->options.program != NULL && h->program == NULL)) {
        status = deed_fail(err, DEED_NO_MEMORY, "no memory for a worker");
    } else {
        seen_clear(h);
        status = process_start(h, err);
    }
    if (status != DEED_OK) {
        process_close(&h->host);
        return status;
    }
    *out_host = &h->host;
    return DEED_OK;
}
