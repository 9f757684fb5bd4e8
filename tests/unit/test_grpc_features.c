/* test_grpc_features.c - what a client is told that it may call. */
#include "rpc_fixture.h"

#include "proto/server_features.pb-c.h"

#define SERVICE "event_store.client.server_features.ServerFeatures"

TEST(grpc_features, every_method_is_named_in_lower_case)
{
    start();
    open_rpc();
    struct talk *t = talk(SERVICE, "GetSupportedMethods");
    talk_send_bytes(t, (deed_bytes){0});
    talk_half_close(t);

    EventStore__Client__ServerFeatures__SupportedMethods *m = talk_reply(
        t, &event_store__client__server_features__supported_methods__descriptor);
    assert_non_null(m);
    assert_null(talk_reply_bytes(t).ptr);
    expect_ended(t, GRPC_OK, "");
    unsigned major, minor, patch;
    char more;
    assert_int_equal(
        sscanf(m->event_store_server_version, "%u.%u.%u%c", &major, &minor, &patch, &more), 3);
    size_t shown = 0;
    for (size_t i = 0; i < rpc_method_count(); i++) {
        const struct rpc_method *method = rpc_method_at(i);
        shown += !method->hidden;
        for (size_t k = 0; k < m->n_methods; k++) {
            if (strcasecmp(m->methods[k]->service_name, method->service) != 0) continue;
            if (strcasecmp(m->methods[k]->method_name, method->name) != 0) continue;
            assert_false(method->hidden);
            for (const char *c = m->methods[k]->method_name; *c != '\0'; c++) {
                assert_false(*c >= 'A' && *c <= 'Z');
            }
        }
    }
    assert_int_equal(m->n_methods, shown);
    talk_close(t);
    close_rpc();
    finish();
}

TEST_MAIN(grpc_features)
