/* worker.c - the worker process: requests in, author's code, answers out.
 *
 * (1) Answers go out in the order of the requests. They gather while more requests are at hand, but
 *     not for long: what has been answered should not be lost to a crash that follows.
 * (2) Nothing the author's code does to this process matters to the server, except through the
 *     frames it sends. */
#include "domain/worker.h"

#include "base/text.h"
#include "domain/frames.h"
#include "domain/runtime.h"
#include "os/os.h"
#include "os/process.h"

#include <stdio.h>

#define GATHER_NS   UINT64_C(200000)
#define GATHER_SIZE ((size_t)64 << 10)
#define IN_SIZE_MAX ((size_t)2 << 30)
/* Address space past the limit that the server enforces by looking at the memory in use: its
 * answer says what happened, while running out of address space is mostly a crash. */
#define ADDRESS_SPACE_PARTS 2

struct worker {
    struct runtime *runtime;
    struct buf in, out;
    struct arena arena;
    uint64_t sent_at;
};

static deed_status flush(struct worker *w, struct deed_error *err)
{
    if (!buf_ok(&w->out)) return deed_fail(err, DEED_NO_MEMORY, "no memory for the answers");
    deed_status status = os_child_send(buf_bytes(&w->out), err);
    buf_reset(&w->out);
    w->sent_at = os_ticks_ns(os_real());
    return status;
}

/* An answer that would not fit into a frame becomes a failure that does. */
static void answer_put(struct worker *w, uint32_t sequence, struct host_answer *answer)
{
    size_t size = answer->state.len;
    for (size_t i = 0; i < answer->event_count; i++) {
        size += 64 + answer->events[i].type.len + answer->events[i].data.len;
    }
    if (size > FRAME_SIZE_MAX / 2) {
        *answer = (struct host_answer){.outcome = HOST_FAILED};
        (void)deed_fail(&answer->error, DEED_TOO_LARGE, "the answer has %zu bytes, limit %zu", size,
                        FRAME_SIZE_MAX / 2);
    }
    frame_answer(&w->out, sequence, answer);
}

static deed_status request_run(struct worker *w, deed_bytes payload, struct deed_error *err)
{
    arena_reset(&w->arena);
    uint32_t sequence = 0;
    struct host_request request;
    struct host_answer answer;
    if (frame_kind_of(payload) != FRAME_REQUEST ||
        !frame_request_read(payload, &w->arena, &sequence, &request)) {
        return deed_fail(err, DEED_CORRUPT, "the server sent a malformed request");
    }
    runtime_run(w->runtime, &request, &answer, &w->arena);
    answer_put(w, sequence, &answer);
    bool full = w->out.len >= GATHER_SIZE;
    if (full || os_ticks_ns(os_real()) - w->sent_at > GATHER_NS) return flush(w, err);
    return DEED_OK;
}

static deed_status serve(struct worker *w, struct deed_error *err)
{
    for (;;) {
        size_t used = 0;
        deed_status status;
        for (;;) {
            deed_bytes payload;
            size_t size;
            status =
                frame_next((deed_bytes){w->in.ptr + used, w->in.len - used}, &payload, &size, err);
            if (status != DEED_OK) break;
            status = request_run(w, payload, err);
            if (status != DEED_OK) return status;
            used += size;
        }
        if (status != DEED_END) return status;
        buf_consume(&w->in, used);
        status = flush(w, err);
        if (status == DEED_OK) status = os_child_receive(&w->in, err);
        if (status != DEED_OK) return status;
    }
}

static deed_status worker_start(struct worker *w, const char *path, uint64_t memory_size_max,
                                struct deed_error *err)
{
    const struct deed_domain *domain = NULL;
    struct runtime_options options = {.slot_size_max = memory_size_max / 4,
                                      .call_size_max = memory_size_max / 4};
    deed_status status = os_child_confine(memory_size_max * ADDRESS_SPACE_PARTS, err);
    if (status == DEED_OK) status = runtime_load(path, &domain, err);
    if (status == DEED_OK) status = runtime_create(domain, &options, &w->runtime, err);
    return status;
}

int worker_main(int argc, char **argv)
{
    uint64_t memory_size_max = UINT64_C(512) << 20;
    bool ok = argc == 3 || (argc == 4 && text_u64(deed_str_of(argv[3]), &memory_size_max) &&
                            memory_size_max >= (UINT64_C(1) << 20));
    if (!ok) {
        fprintf(stderr, "usage: deedbook worker DOMAIN.so [MEMORY_BYTES]\n"
                        "the server starts it; there is nothing to see here\n");
        return 1;
    }
    struct worker w = {0};
    struct deed_error error = {0};
    buf_init(&w.in, IN_SIZE_MAX);
    buf_init(&w.out, IN_SIZE_MAX);
    arena_init(&w.arena, (size_t)memory_size_max);

    deed_status status = worker_start(&w, argv[2], memory_size_max, &error);
    if (status == DEED_OK) {
        frame_hello(&w.out, runtime_model(w.runtime));
        status = serve(&w, &error);
    } else {
        frame_failed(&w.out, &error);
        (void)flush(&w, NULL);
    }
    if (status != DEED_END) fprintf(stderr, "deedbook worker: %s\n", error.message);
    runtime_destroy(w.runtime);
    arena_done(&w.arena);
    buf_done(&w.in);
    buf_done(&w.out);
    return status == DEED_END ? 0 : 1;
}
