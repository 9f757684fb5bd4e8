/* fuzz_groups.c - any bytes as what clients of consumer groups say, over a store in a simulated machine
 * that holds a group "g" on stream "s" with a consumer.
 *
 * The input is pieces: a byte that says what it is, one for its length, the piece.
 *
 *   0 to 7   the message of a call (Create, Update, …): it ends, well or not
 *   8        a message of the consumer's, who has joined
 *   9        a new consumer's first message
 *   10       settings in the log, as somebody else may have written them: they are taken, or passed over
 *   11       time passes */
#include "api/grpc.h"

#include <stdio.h>
#include <stdlib.h>

#include "api/group_match.h"
#include "grpc/pb.h"
#include "groups/groups.h"
#include "os/os_sim.h"
#include "store/store.h"
#include "fuzz/must.h"

#define SERVICE "/event_store.client.persistent_subscriptions.PersistentSubscriptions/"

struct call {
    struct rpc rpc; /* first */
    struct arena arena, scratch;
    struct buf out;
    bool pushed;
};

static struct os_sim *sim;
static struct store *store;
static struct groups *groups;
static struct api *api;

static void push(struct rpc *rpc)
{
    struct call *c = (struct call *)rpc;
    must(!c->pushed, "pushed twice");
    c->pushed = true;
}

static void run(struct call *c)
{
    const struct rpc_method *m = c->rpc.method;
    for (unsigned i = 0; i < 1000; i++) {
        if (c->pushed) {
            c->pushed = false;
            must(!rpc_taken(&c->rpc), "the server's hold is gone");
        }
        if (rpc_ended(&c->rpc)) return;
        enum rpc_pull answer = m->pull(&c->rpc, &c->out, 1 << 16, true);
        if (answer == RPC_LATER) answer = m->pull(&c->rpc, &c->out, 1 << 16, false);
        if (answer == RPC_END) return;
        bool more = groups_step(groups) == ACTOR_AGAIN;
        if (answer == RPC_WAIT && !c->pushed && !store_step(store) && !more) return;
    }
    must(false, "there is always something to do");
}

static struct call *call_begin(const char *name)
{
    static const struct rpc_host host = {push};
    char path[128];
    struct call *c = calloc(1, sizeof *c);
    must(c != NULL, "memory");
    (void)snprintf(path, sizeof path, SERVICE "%s", name);
    const struct rpc_method *method = rpc_method_find(deed_str_of(path));
    must(method != NULL, "no such method");
    rpc_init(&c->rpc, api, method, &host);
    arena_init(&c->arena, 64 << 20);
    arena_init(&c->scratch, 64 << 20);
    buf_init(&c->out, 1 << 28);
    c->rpc.arena = &c->arena;
    c->rpc.scratch = &c->scratch;
    c->rpc.peer = DEED_STR("test");
    if (method->begin != NULL) method->begin(&c->rpc);
    return c;
}

static void call_give(struct call *c, deed_bytes message)
{
    if (rpc_ended(&c->rpc)) return;
    uint8_t *copy = malloc(message.len + 1);
    if (message.len > 0) memcpy(copy, message.ptr, message.len);
    c->rpc.method->message(&c->rpc, (deed_bytes){copy, message.len});
    memset(copy, 0xa5, message.len + 1);
    free(copy);
    arena_reset(&c->scratch);
}

static void call_end(struct call *c)
{
    if (c == NULL) return;
    bool free_now = false;
    rpc_release(&c->rpc);
    must(c->pushed, "the call is held for ever");
    free_now = rpc_taken(&c->rpc);
    must(free_now, "somebody holds the call");
    if (c->rpc.method->close != NULL) c->rpc.method->close(&c->rpc);
    rpc_done(&c->rpc);
    arena_done(&c->arena);
    arena_done(&c->scratch);
    buf_done(&c->out);
    free(c);
}

static void append(deed_str stream, deed_str type, deed_bytes data)
{
    struct deed_new_event event = {.stream = stream,
                                   .type = type,
                                   .content_type = DEED_STR("application/octet-stream"),
                                   .data = data};
    struct deed_append all = {.events = &event, .event_count = 1};
    struct deed_appended appended;
    (void)store_append(store, &all, &appended, NULL);
}

static deed_status open_groups(void)
{
    struct groups_options how = {.no_threads = true};
    group_match_hooks(&how);
    deed_status status = groups_open(store, &how, &groups, NULL);
    if (status != DEED_OK) return status;
    struct api_parts parts = {.store = store, .groups = groups};
    must(api_create(&parts, &api, NULL) == DEED_OK, "api");
    return DEED_OK;
}

static void close_groups(void)
{
    api_destroy(api);
    api = NULL;
    groups_close(groups);
    groups = NULL;
}

/* A consumer of g on s. */
static struct call *join(void)
{
    uint8_t room[128];
    struct buf b = {.ptr = room, .room = sizeof room, .size_max = sizeof room};
    size_t options = pb_begin(&b, 1);
    size_t stream = pb_begin(&b, 1);
    pb_put_str(&b, 3, DEED_STR("s"));
    pb_end(&b, stream);
    pb_put_str(&b, 2, DEED_STR("g"));
    pb_put_uint(&b, 3, 4);
    size_t uuids = pb_begin(&b, 4);
    pb_put_empty(&b, 1);
    pb_end(&b, uuids);
    pb_end(&b, options);
    struct call *c = call_begin("Read");
    call_give(c, buf_bytes(&b));
    run(c);
    return c;
}

static struct call *piece(unsigned what, deed_bytes bytes, struct call *consumer)
{
    static const char *const names[] = {"Create", "Update", "Delete", "GetInfo",
                                        "List", "ReplayParked", "TruncateParked",
                                        "RestartSubsystem"};
    if (what < 8 || what == 9) {
        struct call *c = call_begin(what == 9 ? "Read" : names[what]);
        call_give(c, bytes);
        if (c->rpc.method->half_closed != NULL && !rpc_ended(&c->rpc) && what != 9) {
            c->rpc.method->half_closed(&c->rpc);
        }
        run(c);
        must(what == 9 || rpc_ended(&c->rpc), "a call does not end");
        call_end(c);
    } else if (what == 8) {
        call_give(consumer, bytes);
        run(consumer);
    } else if (what == 10) {
        call_end(consumer);
        append(DEED_STR("$persistentSubscriptionConfig"), DEED_STR("$PersistentConfig"), bytes);
        close_groups();
        deed_status status = open_groups();
        must(status == DEED_OK, "somebody else's settings keep the groups from loading");
        return join();
    } else {
        os_sim_advance(sim, UINT64_C(40000000000));
        run(consumer);
    }
    return consumer;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct store_options options = {.no_threads = true, .segment_size = 64 << 10};
    struct group_settings settings;
    sim = os_sim_create(1, NULL);
    must(store_open(os_sim_os(sim), "/data", &options, &store, NULL) == DEED_OK, "open");
    must(open_groups() == DEED_OK, "groups");
    group_settings_default(&settings);
    settings.start = GROUP_FROM_START;
    must(groups_create(groups, DEED_STR("s"), DEED_STR("g"), &settings, NULL) == DEED_OK, "create");
    for (unsigned i = 0; i < 3; i++) append(DEED_STR("s"), DEED_STR("T"), (deed_bytes){data, 0});
    struct call *consumer = join();
    const uint8_t *at = data;
    const uint8_t *end = data + size;
    while (end - at >= 2 && consumer != NULL) {
        unsigned what = at[0] % 12;
        size_t len = at[1];
        at += 2;
        if (len > (size_t)(end - at)) len = (size_t)(end - at);
        consumer = piece(what, (deed_bytes){at, len}, consumer);
        at += len;
    }
    call_end(consumer);
    if (groups != NULL) close_groups();
    store_close(store);
    os_sim_destroy(sim);
    return 0;
}
