/* grpc_gossip.c - Gossip: who leads, for clients that were told to find out ("+discover").
 *
 * There is one node, and it leads. Clients dial what they are told here, so it must be an address that
 * they can reach: the one that --advertise-host names, else the one they have just reached us at, which
 * is what their request's :authority says. */
#include "api/call.h"
#include "api/grpc.h"
#include "base/text.h"
#include "proto/gossip.pb-c.h"

#define PORT_DEFAULT 2113

/* .NET counts 100 ns since the year 1. */
#define TICKS_AT_1970 INT64_C(621355968000000000)

/* "localhost:2113", "[::1]:2113", "localhost": an IPv6 address keeps its brackets, so that clients can
 * put the port behind it. */
static void split_authority(deed_str authority, deed_str *out_host, uint32_t *out_port)
{
    size_t at = authority.len;
    uint64_t port = 0;
    while (at > 0 && authority.ptr[at - 1] >= '0' && authority.ptr[at - 1] <= '9') at--;
    bool has_port = at > 1 && authority.ptr[at - 1] == ':' &&
                    text_u64((deed_str){authority.ptr + at, authority.len - at}, &port) &&
                    port > 0 && port <= UINT16_MAX;
    bool bare_ipv6 = has_port && memchr(authority.ptr, ':', at - 1) != NULL &&
                     authority.ptr[at - 2] != ']';
    *out_host = authority;
    *out_port = PORT_DEFAULT;
    if (!has_port || bare_ipv6) return;
    *out_host = (deed_str){authority.ptr, at - 1};
    *out_port = (uint32_t)port;
}

/* NULL: out of memory. */
static char *find_address(struct rpc *rpc, uint32_t *out_port)
{
    const struct api_parts *parts = &rpc->api->parts;
    deed_str host;
    deed_str authority = rpc_header(rpc, ":authority");
    if (authority.len == 0) authority = rpc_header(rpc, "host");
    split_authority(authority, &host, out_port);
    if (host.len == 0) host = DEED_STR("127.0.0.1"); /* a client that sends none is near, if anywhere */
    if (parts->advertise_port != 0) *out_port = parts->advertise_port;
    if (parts->advertise_host != NULL && parts->advertise_host[0] != '\0') {
        host = deed_str_of(parts->advertise_host);
        bool bare_ipv6 = host.ptr[0] != '[' && memchr(host.ptr, ':', host.len) != NULL;
        if (bare_ipv6) host = arena_printf(rpc->arena, "[%s]", parts->advertise_host);
    }
    return (char *)(uintptr_t)arena_str(rpc->arena, host).ptr;
}

static int64_t read_half(const uint8_t *bytes)
{
    uint64_t value = 0;
    for (size_t i = 0; i < 8; i++) value = value << 8 | bytes[i];
    return (int64_t)value;
}

/* The request is an empty message; whatever a newer client puts into it is skipped. */
static void on_message(struct rpc *rpc, deed_bytes message)
{
    EventStore__Client__Gossip__ClusterInfo info = EVENT_STORE__CLIENT__GOSSIP__CLUSTER_INFO__INIT;
    EventStore__Client__Gossip__MemberInfo member = EVENT_STORE__CLIENT__GOSSIP__MEMBER_INFO__INIT;
    EventStore__Client__Gossip__EndPoint end_point = EVENT_STORE__CLIENT__GOSSIP__END_POINT__INIT;
    EventStore__Client__UUID id = EVENT_STORE__CLIENT__UUID__INIT;
    EventStore__Client__UUID__Structured halves = EVENT_STORE__CLIENT__UUID__STRUCTURED__INIT;
    EventStore__Client__Gossip__MemberInfo *members[] = {&member};
    (void)message;
    end_point.address = find_address(rpc, &end_point.port);
    if (end_point.address == NULL) {
        rpc_fail(rpc, GRPC_RESOURCE_EXHAUSTED, NULL, "out of memory");
        return;
    }
    halves.most_significant_bits = read_half(rpc->api->instance.bytes);
    halves.least_significant_bits = read_half(rpc->api->instance.bytes + 8);
    id.value_case = EVENT_STORE__CLIENT__UUID__VALUE_STRUCTURED;
    id.structured = &halves;
    member.instance_id = &id;
    member.time_stamp = os_now_ns(store_os(rpc->api->parts.store)) / 100 + TICKS_AT_1970;
    member.state = EVENT_STORE__CLIENT__GOSSIP__MEMBER_INFO__VNODE_STATE__Leader;
    member.is_alive = 1;
    member.http_end_point = &end_point;
    info.members = members;
    info.n_members = 1;
    rpc_reply(rpc, &info.base);
    rpc_end(rpc);
}

const struct rpc_method grpc_gossip_methods[] = {
    {RPC_METHOD("event_store.client.gossip.Gossip", "Read"), .message = on_message},
};
const size_t grpc_gossip_method_count = sizeof grpc_gossip_methods / sizeof grpc_gossip_methods[0];
