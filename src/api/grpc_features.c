/* grpc_features.c - ServerFeatures: which calls a client may make here.
 *
 * (1) The list is made from the methods' own tables, so what is not served is not advertised.
 * (2) Names are in lower case: clients look them up so. */
#include "api/grpc.h"
#include "base/text.h"
#include "proto/server_features.pb-c.h"

typedef EventStore__Client__ServerFeatures__SupportedMethods methods_message;
typedef EventStore__Client__ServerFeatures__SupportedMethod method_message;

/* What clients compare with the versions that they know: the lowest that has all of what is here. */
#define COMPATIBLE_VERSION "26.1.0"

static char *lower(struct arena *arena, const char *text)
{
    deed_str copy = arena_str(arena, deed_str_of(text));
    char *at = (char *)(uintptr_t)copy.ptr; /* just made */
    for (size_t i = 0; at != NULL && i < copy.len; i++) {
        at[i] = ascii_lower(at[i]);
    }
    return at;
}

/* NULL: no memory. */
static method_message *describe(struct arena *arena, const struct rpc_method *method)
{
    method_message *m = arena_alloc(arena, sizeof *m);
    if (m == NULL) return NULL;
    event_store__client__server_features__supported_method__init(m);
    m->method_name = lower(arena, method->name);
    m->service_name = lower(arena, method->service);
    while (method->features != NULL && method->features[m->n_features] != NULL) m->n_features++;
    m->features = (char **)(uintptr_t)method->features; /* only read */
    return m->method_name == NULL || m->service_name == NULL ? NULL : m;
}

static void supported_methods(struct rpc *rpc)
{
    methods_message reply = EVENT_STORE__CLIENT__SERVER_FEATURES__SUPPORTED_METHODS__INIT;
    size_t count = rpc_method_count();
    reply.methods = arena_alloc_array(rpc->arena, count, sizeof *reply.methods);
    bool good = reply.methods != NULL;
    for (size_t i = 0; good && i < count; i++) { /* (1) */
        const struct rpc_method *method = rpc_method_at(i);
        if (method->hidden) continue;
        method_message *m = describe(rpc->arena, method);
        good = m != NULL;
        reply.methods[reply.n_methods++] = m;
    }
    if (!good) {
        rpc_fail(rpc, GRPC_RESOURCE_EXHAUSTED, NULL, "out of memory");
        return;
    }
    char version[] = COMPATIBLE_VERSION;
    reply.event_store_server_version = version;
    rpc_reply(rpc, &reply.base);
    rpc_end(rpc);
}

/* The request is an empty message; whatever a newer client puts into it is skipped. */
static void on_message(struct rpc *rpc, deed_bytes message)
{
    (void)message;
    supported_methods(rpc);
}

const struct rpc_method grpc_features_methods[] = {
    {RPC_METHOD("event_store.client.server_features.ServerFeatures", "GetSupportedMethods"),
     .message = on_message},
};
const size_t grpc_features_method_count =
    sizeof grpc_features_methods / sizeof grpc_features_methods[0];
