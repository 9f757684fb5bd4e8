/* The runtime in this process: folding, deciding, keeping states, checking tables. */
#include "test.h"

#include "../domains/wild.c"

#include "domain/model.h"
#include "domain/runtime.h"
#include "json/json.h"

static struct runtime *runtime;
static struct arena arena;
static struct deed_error err;

static void start(void)
{
    arena_init(&arena, (size_t)1 << 30);
    struct runtime_options options = {.call_size_max = 32 << 20};
    expect_ok(runtime_create(&deed_domain_v1, &options, &runtime, &err));
}

static void stop(void)
{
    runtime_destroy(runtime);
    arena_done(&arena);
}

static struct host_event happened(uint64_t revision, const char *data)
{
    return (struct host_event){.revision = revision,
                               .type = DEED_STR("WildHappened"),
                               .data = deed_bytes_of(deed_str_of(data))};
}

static struct host_answer fold(uint64_t base, const struct host_event *list, size_t count)
{
    struct host_request request = {.work = HOST_STATE,
                                   .slot = DEED_STR("wild-1"),
                                   .stream = DEED_STR("wild-1"),
                                   .base_revision = base,
                                   .events = list,
                                   .event_count = count};
    struct host_answer answer;
    runtime_run(runtime, &request, &answer, &arena);
    return answer;
}

static struct host_answer ask(const char *data)
{
    struct host_request request = {.work = HOST_DECIDE,
                                   .stream = DEED_STR("wild-1"),
                                   .base_revision = DEED_NONE,
                                   .command = DEED_STR("Do"),
                                   .data = deed_bytes_of(deed_str_of(data))};
    struct host_answer answer;
    runtime_run(runtime, &request, &answer, &arena);
    return answer;
}

static struct host_answer ask_for(const char *what)
{
    char data[128];
    snprintf(data, sizeof data, "{\"id\":\"1\",\"what\":\"%s\"}", what);
    return ask(data);
}

static void expect_failed(struct host_answer answer, deed_status status, const char *message)
{
    assert_int_equal(answer.outcome, HOST_FAILED);
    assert_int_equal(answer.error.status, status);
    assert_string_equal(answer.error.message, message);
    assert_int_equal(answer.event_count, 0);
}

static void expect_state(struct host_answer answer, const char *part)
{
    if (answer.outcome != HOST_DONE) fail_msg("%s", answer.error.message);
    assert_non_null(memmem(answer.state.ptr, answer.state.len, part, strlen(part)));
}

TEST(runtime, mistakes_of_the_authors_code_are_named)
{
    start();
    expect_failed(ask_for("panic"), DEED_DOMAIN, "Do: this must not be: 42");
    expect_failed(ask_for("stranger"), DEED_DOMAIN,
                  "Do: it emits Stranger, which is not in the event table of aggregate wild");
    expect_failed(ask_for("half"), DEED_DOMAIN, "Do: it emits WildHappened: what is missing");
    expect_failed(ask_for("refuse"), DEED_DOMAIN, "Do: it refused the command without deed_reject");
    expect_failed(ask_for("alloc"), DEED_DOMAIN, "Do: it used more than 32 MiB of memory");
    assert_int_equal(ask_for("emit for ever").error.status, DEED_DOMAIN);
    assert_int_equal(ask_for("fine").event_count, 1);
    stop();
}

TEST(runtime, a_rejection_takes_back_what_was_emitted)
{
    start();
    struct host_answer answer = ask_for("reject");
    expect_failed(answer, DEED_REJECTED, "not 1 deeds"); /* it saw the event that it emitted */
    assert_string_equal(answer.error.code, "no_way");
    stop();
}

TEST(runtime, an_event_is_emitted_as_often_as_wanted)
{
    start();
    struct host_answer answer = ask("{\"id\":\"1\",\"what\":\"x\",\"times\":1000}");
    assert_int_equal(answer.outcome, HOST_DONE);
    assert_int_equal(answer.event_count, 1000);
    stop();
}

TEST(runtime, requests_that_do_not_fit_are_told)
{
    start();
    expect_failed(ask("{}"), DEED_INVALID, "Do: id is missing; what is missing");
    expect_failed(ask("{\"id\":\"2\",\"what\":\"\"}"), DEED_INVALID,
                  "Do: id: 2 is not the id of stream wild-1");
    expect_failed(ask("{\"id\":\"\",\"what\":\"\"}"), DEED_INVALID,
                  "Do: id: expected a text that is not empty");
    struct host_request request = {
        .work = HOST_DECIDE, .stream = DEED_STR("tame-1"), .base_revision = DEED_NONE};
    struct host_answer answer;
    runtime_run(runtime, &request, &answer, &arena);
    expect_failed(answer, DEED_NOT_FOUND, "no aggregate has streams like tame-1");
    request.stream = DEED_STR("wild-1");
    request.command = DEED_STR("Sleep");
    runtime_run(runtime, &request, &answer, &arena);
    expect_failed(answer, DEED_NOT_FOUND, "aggregate wild has no command Sleep");
    stop();
}

TEST(runtime, a_state_is_kept_at_its_revision)
{
    start();
    struct host_event list[] = {happened(0, "{\"what\":\"a\"}"), happened(1, "{\"what\":\"b\"}"),
                                happened(5, "{\"what\":\"a\"}")};
    expect_state(fold(DEED_NONE, list, 2), "\"deeds\":2,\"last\":\"b\"");
    assert_int_equal(runtime_slot_revision(runtime, DEED_STR("wild-1")), 1);
    expect_state(fold(1, list + 2, 1), "\"items\":{\"a\":{\"name\":null,\"count\":2},\"b\":");
    assert_int_equal(runtime_slot_revision(runtime, DEED_STR("wild-1")), 5);
    assert_int_equal(fold(1, list, 1).outcome, HOST_NEED_EVENTS);
    expect_state(fold(5, NULL, 0), "\"deeds\":3,");
    expect_state(fold(DEED_NONE, list, 1), "\"deeds\":1,");
    stop();
}

TEST(runtime, unknown_events_do_not_matter_and_unreadable_ones_are_named)
{
    start();
    struct host_event list[] = {happened(0, "{\"what\":\"a\",\"later\":true}"),
                                {.revision = 1, .type = DEED_STR("Foreign")},
                                happened(2, "{}"),
                                {.revision = 3,
                                 .type = DEED_STR("Misread"),
                                 .data = deed_bytes_of(DEED_STR("{\"number\":\"7\"}"))},
                                happened(4, "no JSON")};
    expect_state(fold(DEED_NONE, list, 3), "\"deeds\":2,\"last\":null");
    expect_failed(fold(2, list + 3, 1), DEED_DOMAIN,
                  "event Misread at revision 3 of wild-1: number: expected an integer, came \"7\"");
    assert_int_equal(runtime_slot_revision(runtime, DEED_STR("wild-1")), DEED_NONE);
    struct host_answer answer = fold(DEED_NONE, list + 4, 1);
    assert_int_equal(answer.error.status, DEED_DOMAIN);
    expect_message(answer.error, "event WildHappened at revision 4 of wild-1: ");
    stop();
}

TEST(runtime, a_long_life_does_not_eat_memory)
{
    arena_init(&arena, (size_t)1 << 30);
    struct runtime_options options = {.call_size_max = 1 << 20};
    expect_ok(runtime_create(&deed_domain_v1, &options, &runtime, &err));
    /* 100,000 events with 300 bytes of text each go through a state that keeps eight of them: as
     * much as the limit would never hold. */
    static char data[300];
    memset(data, 'x', sizeof data - 1);
    memcpy(data, "{\"what\":\"", 9);
    memcpy(data + sizeof data - 3, "\"}", 3);
    static struct host_event list[1000];
    uint64_t revision = 0;
    for (int i = 0; i < 100; i++) {
        for (size_t e = 0; e < 1000; e++)
            list[e] = happened(revision++, data);
        arena_reset(&arena);
        struct host_answer answer = fold(i == 0 ? DEED_NONE : revision - 1001, list, 1000);
        assert_int_equal(answer.outcome, HOST_DONE);
    }
    stop();
}

TEST(runtime, the_oldest_states_are_forgotten_first)
{
    arena_init(&arena, (size_t)1 << 30);
    struct runtime_options options = {.slot_count_max = 10};
    expect_ok(runtime_create(&deed_domain_v1, &options, &runtime, &err));
    struct host_event event = happened(0, "{\"what\":\"a\"}");
    char name[20];
    for (int i = 0; i < 15; i++) {
        snprintf(name, sizeof name, "wild-%d", i);
        struct host_request request = {.slot = deed_str_of(name),
                                       .stream = deed_str_of(name),
                                       .base_revision = DEED_NONE,
                                       .events = &event,
                                       .event_count = 1};
        struct host_answer answer;
        runtime_run(runtime, &request, &answer, &arena);
        assert_int_equal(answer.outcome, HOST_DONE);
    }
    for (int i = 0; i < 15; i++) {
        snprintf(name, sizeof name, "wild-%d", i);
        assert_int_equal(runtime_slot_revision(runtime, deed_str_of(name)), i < 5 ? DEED_NONE : 0);
    }
    stop();
}

/* ---- tables --------------------------------------------------------------------------------- */

DEED_STRUCT(other, DEED_INT(n));

static void expect_table(struct deed_domain domain, const char *message)
{
    struct runtime *none = NULL;
    expect_status(DEED_INVALID, runtime_create(&domain, NULL, &none, &err));
    expect_message(err, message);
    assert_null(none);
}

#define DOMAIN_WITH(aggregate_)                                                                    \
    ((struct deed_domain)DEED_DOMAIN_OF("d", ((const struct deed_aggregate[]){aggregate_})))

TEST(runtime, wrong_tables_are_refused_by_name)
{
    static const struct deed_event_type twice[] = {DEED_EVENT(WildHappened),
                                                   DEED_EVENT(WildHappened)};
    static const struct deed_command_type twice_commands[] = {DEED_COMMAND(Do, id),
                                                              DEED_COMMAND(Do, id)};
    static const struct deed_command_type wrong_id[] = {
        {.name = "Do", .type = &deed_type_Do, .decider = &deed_decider_Do, .id_member = "times"}};
    struct deed_aggregate a = aggregates[0];
    a.category = "wi-ld";
    expect_table(DOMAIN_WITH(a), "its category must be a name without '-'");
    a = aggregates[0];
    a.events = twice;
    expect_table(DOMAIN_WITH(a), "domain d, aggregate wild: event WildHappened is there twice");
    a = aggregates[0];
    a.commands = twice_commands;
    a.command_count = 2;
    expect_table(DOMAIN_WITH(a), "command Do is there twice");
    a.commands = wrong_id;
    a.command_count = 1;
    expect_table(DOMAIN_WITH(a), "command Do: its id must be a member that is a text");
    a = aggregates[0];
    a.state = &deed_type_other;
    expect_table(DOMAIN_WITH(a), "event WildHappened evolves a wild, not a other");
    a.event_count = 0;
    expect_table(DOMAIN_WITH(a),
                 "command Do has no decide function for it and a state of type other");

    struct deed_domain domain = deed_domain_v1;
    domain.aggregate_count = 0;
    expect_table(domain, "the domain has no name or no aggregates");
    domain = deed_domain_v1;
    domain.abi = DEED_DOMAIN_ABI + 1;
    expect_status(DEED_TOO_NEW, runtime_create(&domain, NULL, &runtime, &err));
    expect_message(err, "built for version 2 of deedbook_domain.h, this is 1");
}

TEST(runtime, a_renamed_event_is_read_by_both_names_and_written_by_the_new_one)
{
    static const struct deed_event_type renamed[] = {
        DEED_EVENT(WildHappened, .stored_as = "wild.happened"), DEED_EVENT(WildHappened)};
    struct deed_aggregate a = aggregates[0];
    a.events = renamed;
    a.event_count = 2;
    struct deed_domain domain = DOMAIN_WITH(a);
    arena_init(&arena, (size_t)1 << 30);
    expect_ok(runtime_create(&domain, NULL, &runtime, &err));
    struct host_event list[] = {happened(0, "{\"what\":\"a\"}"), happened(1, "{\"what\":\"b\"}")};
    list[1].type = DEED_STR("wild.happened");
    expect_state(fold(DEED_NONE, list, 2), "\"deeds\":2,");
    expect_str(ask_for("x").events[0].type, "wild.happened");
    stop();
}

/* ---- the model ------------------------------------------------------------------------------ */

static struct buf page;

static void write_page(enum model_format format)
{
    static const deed_str types[] = {DEED_STR("WildHappened")};
    static const deed_str tables[] = {DEED_STR("wild_count")};
    static const deed_str projection_names[] = {DEED_STR("counts")};
    const struct model_projection projections[] = {{.name = DEED_STR("counts"),
                                                    .event_types = types,
                                                    .event_type_count = 1,
                                                    .tables = tables,
                                                    .table_count = 1}};
    const struct model_query queries[] = {
        {.name = DEED_STR("how-many"), .projections = projection_names, .projection_count = 1}};
    buf_reset(&page);
    expect_ok(model_write(&(struct model_parts){.domain = runtime_model(runtime),
                                                .projections = projections,
                                                .projection_count = 1,
                                                .queries = queries,
                                                .query_count = 1},
                          format, &page, &err));
}

static void expect_page(const char *part)
{
    if (memmem(page.ptr, page.len, part, strlen(part)) == NULL) {
        fail_msg("\"%.*s\" lacks \"%s\"", (int)page.len, page.ptr, part);
    }
}

TEST(runtime, the_model_shows_what_each_event_reaches)
{
    start();
    buf_init(&page, 1 << 20);
    write_page(MODEL_TEXT);
    expect_page(
        "domain wild\n\naggregate wild (streams wild-…)\n  attributes\n    deeds: integer\n");
    expect_page("    WildHappened\n      id: text\n      what: text\n      projections: counts\n"
                "      queries: how-many\n    Misread\n      number: integer\n\nprojections");
    write_page(MODEL_JSON);
    json_value root;
    expect_ok(json_parse(&arena, buf_bytes(&page), 0, &root, &err));
    expect_str(json_text(json_path(root, DEED_STR("aggregates.0.events.0.projections.0"))),
               "counts");
    expect_str(json_text(json_path(root, DEED_STR("aggregates.0.events.0.queries.0"))), "how-many");
    assert_int_equal(json_count(json_path(root, DEED_STR("aggregates.0.events.1.queries"))), 0);
    write_page(MODEL_MERMAID);
    expect_page("flowchart LR\n    a_wild[[\"wild\"]]\n    c_Do[/\"Do\"/]\n    c_Do --> a_wild\n");
    expect_page("    e_WildHappened --> p_counts\n");
    expect_page("    p_counts --> q_how_2dmany\n");
    expect_status(DEED_INVALID, model_write(&(struct model_parts){.domain = DEED_STR("[]")},
                                            MODEL_TEXT, &page, &err));
    buf_done(&page);
    stop();
}

TEST_MAIN(runtime)
