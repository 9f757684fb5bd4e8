/* A store on a simulated machine, and calls to it without sockets: for fuzzers of gRPC methods. */
#ifndef FUZZ_RPC_WORLD_H
#define FUZZ_RPC_WORLD_H

#include "api/grpc.h"
#include "fuzz/must.h"
#include "os/os_sim.h"
#include "store/store.h"

#include <string.h>

struct world {
    struct os_sim *sim;
    struct store *store;
    struct api *api;
    bool pushed; /* the one call there is */
};
static struct world w;

struct talk {
    struct rpc rpc;
    struct arena arena, scratch;
    struct buf out; /* frames of answers */
    bool over;
};

static inline void world_begin(uint64_t commit_size_max)
{
    struct store_options options = {.no_threads = true,
                                    .segment_size = 64 << 10,
                                    .limits = {.event_size_max = 4096,
                                               .commit_size_max = commit_size_max,
                                               .commit_count_max = 16}};
    memset(&w, 0, sizeof w);
    w.sim = os_sim_create(1, NULL);
    must(store_open(os_sim_os(w.sim), "/data", &options, &w.store, NULL) == DEED_OK, "open");
    struct api_parts parts = {.store = w.store};
    must(api_create(&parts, &w.api, NULL) == DEED_OK, "api");
}

static inline void world_end(void)
{
    api_destroy(w.api);
    store_close(w.store);
    os_sim_destroy(w.sim);
}

static inline void world_push(struct rpc *rpc)
{
    (void)rpc;
    must(!w.pushed, "pushed twice");
    w.pushed = true;
}

static inline void talk_begin(struct talk *t, const char *path)
{
    static const struct rpc_host host = {world_push};
    const struct rpc_method *method = rpc_method_find(deed_str_of(path));
    must(method != NULL, "no such method");
    w.pushed = false;
    memset(t, 0, sizeof *t);
    rpc_init(&t->rpc, w.api, method, &host);
    arena_init(&t->arena, 64 << 20);
    arena_init(&t->scratch, 64 << 20);
    buf_init(&t->out, 1 << 30);
    t->rpc.arena = &t->arena;
    t->rpc.scratch = &t->scratch;
    method->begin(&t->rpc);
}

/* The server's part after begin, message and half_closed, until nothing happens any more. `brief`:
 * nothing of this method takes long. */
static inline void talk_run(struct talk *t, bool brief)
{
    struct rpc *rpc = &t->rpc;
    for (;;) {
        if (w.pushed) {
            w.pushed = false;
            must(!rpc_taken(rpc), "the server's hold is gone");
        }
        while (rpc->method->pull != NULL && !t->over && !rpc_ended(rpc)) {
            enum rpc_pull answer = rpc->method->pull(rpc, &t->out, 1 << 16, true);
            must(answer != RPC_LATER || !brief, "nothing of it takes long");
            if (answer == RPC_LATER) answer = rpc->method->pull(rpc, &t->out, 1 << 16, false);
            must(answer != RPC_LATER, "later again");
            t->over = answer == RPC_END;
            if (answer != RPC_MORE) break;
        }
        if (rpc_ended(rpc)) t->over = true;
        if (!w.pushed && !store_step(w.store)) return;
    }
}

static inline void talk_end(struct talk *t)
{
    struct rpc *rpc = &t->rpc;
    bool free_now = false;
    rpc_release(rpc);
    while (!free_now) {
        if (w.pushed) {
            w.pushed = false;
            free_now = rpc_taken(rpc);
        } else {
            must(store_step(w.store), "the call is held for ever");
        }
    }
    rpc->method->close(rpc);
    rpc_done(rpc);
    arena_done(&t->arena);
    arena_done(&t->scratch);
    buf_done(&t->out);
}

#endif
