/* given.c - given / when / then: a domain's tests, as JSON.
 *
 *     given   events that have happened, commands that have been run, fixtures by name
 *     when    one command
 *     then    the events it yields, and maybe the state after them; or the rejection; or what is
 *             wrong with its fields
 *
 * (1) Each test stands alone: its events are folded from nothing, so a domain that crashes in one
 *     test does not disturb the next.
 * (2) Beside what the test asks for, every test checks that decide left the state alone. */
#include "domain/given.h"

#include "base/text.h"
#include "base/timetext.h"
#include "domain/explain.h"
#include "json/json.h"
#include "os/os.h"

#include <stdio.h>
#include <stdlib.h>

#define ARENA_SIZE_MAX (UINT64_C(256) << 20)
#define FILE_SIZE_MAX  ((size_t)16 << 20)
#define DIFFERENCE_MAX ((size_t)64 << 10)
#define FIXTURE_DEPTH  8
#define SLOT           DEED_STR("given")

struct given {
    struct domain_host *host;
    deed_str file;
    json_value fixtures;
    struct arena *arena; /* of one test */
    json_value model;
    deed_str stream, category;
    struct host_event *events;
    size_t event_count, event_room;
    int64_t now_ns;
    struct buf difference;
};

/* 2026-01-01T00:00:00Z: when a test does not say what time it is. */
#define NOW_NS INT64_C(1767225600000000000)

/* ---- the file -------------------------------------------------------------------------------- */

static deed_status malformed(struct deed_error *err, json_value at, const char *what)
{
    deed_str raw = json_raw(at);
    deed_str shown = str_beginning(raw, 60);
    return deed_fail(err, DEED_INVALID, "%s: %.*s%s", what, DEED_FMT(shown),
                     shown.len < raw.len ? "…" : "");
}

/* Only these members may be there: a misspelt "then" would make a test that cannot fail. */
static deed_status members_check(json_value object, const char *const *allowed,
                                 struct deed_error *err)
{
    if (json_kind_of(object) != JSON_OBJECT) return malformed(err, object, "expected an object");
    for (struct json_iterator i = json_iterate(object); json_next(&i);) {
        const char *const *name = allowed;
        while (*name != NULL && !deed_str_equal(deed_str_of(*name), i.key))
            name++;
        if (*name == NULL) {
            return deed_fail(err, DEED_INVALID, "\"%.*s\" is no member that is known here",
                             DEED_FMT(i.key));
        }
    }
    return DEED_OK;
}

static const char *const file_members[] = {"about", "fixtures", "tests", NULL};
static const char *const test_members[] = {"name", "given", "when", "then", NULL};
static const char *const test_needs[] = {"when", "then"};
static const char *const event_members[] = {"type", "data", "time", "actor", NULL};
static const char *const command_members[] = {"command", "data", "now", "actor", NULL};
static const char *const then_members[] = {"events",  "state",   "rejected",
                                           "invalid", "message", NULL};

static deed_bytes data_of(json_value object)
{
    json_value data = json_get(object, DEED_STR("data"));
    return json_kind_of(data) == JSON_NONE ? deed_bytes_of(DEED_STR("{}"))
                                           : deed_bytes_of(json_raw(data));
}

static deed_status time_of(json_value object, const char *member, int64_t *in_out,
                           struct deed_error *err)
{
    json_value value = json_get(object, deed_str_of(member));
    if (json_kind_of(value) == JSON_NONE) return DEED_OK;
    if (!time_parse(json_text(value), in_out)) {
        return malformed(err, value, "expected a time, as 2026-11-23T04:07:09Z");
    }
    return DEED_OK;
}

/* ---- given ---------------------------------------------------------------------------------- */

static deed_status event_add(struct given *g, struct host_event event, struct deed_error *err)
{
    if (g->event_count == g->event_room) {
        size_t room = g->event_room == 0 ? 16 : g->event_room * 2;
        struct host_event *events = arena_alloc_array(g->arena, room, sizeof *events);
        if (events == NULL) return deed_fail(err, DEED_NO_MEMORY, "no memory for the events");
        if (g->event_count > 0) memcpy(events, g->events, g->event_count * sizeof *events);
        g->events = events;
        g->event_room = room;
    }
    event.revision = g->event_count;
    g->events[g->event_count++] = event;
    return DEED_OK;
}

/* The member of the command that names the aggregate, and its category. */
static deed_status command_find(const struct given *g, deed_str name, deed_str *out_id,
                                deed_str *out_category, struct deed_error *err)
{
    json_value aggregates = json_get(g->model, DEED_STR("aggregates"));
    for (struct json_iterator a = json_iterate(aggregates); json_next(&a);) {
        json_value commands = json_get(a.value, DEED_STR("commands"));
        for (struct json_iterator c = json_iterate(commands); json_next(&c);) {
            if (!deed_str_equal(json_text(json_get(c.value, DEED_STR("name"))), name)) continue;
            *out_id = json_text(json_get(c.value, DEED_STR("id")));
            *out_category = json_text(json_get(a.value, DEED_STR("category")));
            return DEED_OK;
        }
    }
    return deed_fail(err, DEED_INVALID, "there is no command %.*s", DEED_FMT(name));
}

/* The stream that a command is for; "category-" when it does not say. */
static deed_status stream_of(const struct given *g, json_value command, deed_str *out_stream,
                             struct deed_error *err)
{
    deed_str id_member, category;
    deed_str name = json_text(json_get(command, DEED_STR("command")));
    deed_status status = command_find(g, name, &id_member, &category, err);
    if (status != DEED_OK) return status;
    deed_str id = json_text(json_get(json_get(command, DEED_STR("data")), id_member));
    *out_stream = arena_printf(g->arena, "%.*s-%.*s", DEED_FMT(category), DEED_FMT(id));
    return out_stream->ptr != NULL ? DEED_OK : deed_fail(err, DEED_NO_MEMORY, "no memory");
}

static struct host_request request_make(const struct given *g, enum host_work work,
                                        json_value command)
{
    return (struct host_request){
        .work = work,
        .stream = g->stream,
        .base_revision = DEED_NONE,
        .events = g->events,
        .event_count = g->event_count,
        .command = json_text(json_get(command, DEED_STR("command"))),
        .data = data_of(command),
        .now_ns = g->now_ns,
        .actor = json_text(json_get(command, DEED_STR("actor"))),
    };
}

static deed_status given_command(struct given *g, json_value command, struct deed_error *err)
{
    deed_str stream;
    deed_status status = members_check(command, command_members, err);
    if (status == DEED_OK) status = stream_of(g, command, &stream, err);
    if (status == DEED_OK && !deed_str_equal(stream, g->stream)) {
        return deed_fail(err, DEED_INVALID, "a given command is for %.*s, the test is about %.*s",
                         DEED_FMT(stream), DEED_FMT(g->stream));
    }
    int64_t time_ns = g->now_ns;
    if (status == DEED_OK) status = time_of(command, "now", &time_ns, err);
    if (status != DEED_OK) return status;
    struct host_request request = request_make(g, HOST_DECIDE, command);
    struct host_answer answer;
    request.now_ns = time_ns;
    host_run(g->host, &request, 1, &answer, g->arena);
    if (answer.outcome != HOST_DONE) {
        return deed_fail(err, DEED_INVALID, "the given command %.*s fails: %s",
                         DEED_FMT(request.command), answer.error.message);
    }
    for (size_t i = 0; i < answer.event_count && status == DEED_OK; i++) {
        struct host_event event = answer.events[i];
        event.time_ns = time_ns;
        event.actor = request.actor;
        status = event_add(g, event, err);
    }
    return status;
}

/* Others change nothing: a misspelt one makes a test of something else than it says. */
static bool event_is_known(const struct given *g, deed_str type)
{
    json_value aggregates = json_get(g->model, DEED_STR("aggregates"));
    for (struct json_iterator a = json_iterate(aggregates); json_next(&a);) {
        json_value events = json_get(a.value, DEED_STR("events"));
        for (struct json_iterator e = json_iterate(events); json_next(&e);) {
            if (deed_str_equal(json_text(json_get(e.value, DEED_STR("name"))), type)) return true;
        }
    }
    return false;
}

static deed_status given_event(struct given *g, json_value item, struct deed_error *err)
{
    struct host_event event = {.time_ns = g->now_ns,
                               .type = json_text(json_get(item, DEED_STR("type"))),
                               .data = data_of(item),
                               .actor = json_text(json_get(item, DEED_STR("actor")))};
    deed_status status = members_check(item, event_members, err);
    if (status == DEED_OK && event.type.len == 0) {
        status = malformed(err, item, "expected a type or a command");
    }
    if (status == DEED_OK && !event_is_known(g, event.type)) {
        status = deed_fail(err, DEED_INVALID, "there is no event %.*s", DEED_FMT(event.type));
    }
    if (status == DEED_OK) status = time_of(item, "time", &event.time_ns, err);
    return status == DEED_OK ? event_add(g, event, err) : status;
}

static deed_status given_list(struct given *g, json_value list, unsigned depth,
                              struct deed_error *err)
{
    if (json_kind_of(list) == JSON_NONE) return DEED_OK;
    if (json_kind_of(list) != JSON_ARRAY) return malformed(err, list, "expected a list");
    if (depth == FIXTURE_DEPTH) return malformed(err, list, "fixtures go round in circles");
    deed_status status = DEED_OK;
    for (struct json_iterator i = json_iterate(list); status == DEED_OK && json_next(&i);) {
        if (json_kind_of(i.value) == JSON_STRING) {
            json_value fixture = json_get(g->fixtures, json_text(i.value));
            if (json_kind_of(fixture) == JSON_NONE) {
                return malformed(err, i.value, "there is no such fixture");
            }
            status = given_list(g, fixture, depth + 1, err);
        } else if (json_kind_of(json_get(i.value, DEED_STR("command"))) != JSON_NONE) {
            status = given_command(g, i.value, err);
        } else {
            status = given_event(g, i.value, err);
        }
    }
    return status;
}

/* ---- then ----------------------------------------------------------------------------------- */

static void came(struct given *g, const struct host_answer *answer)
{
    struct buf *out = &g->difference;
    if (answer->outcome != HOST_DONE) {
        const struct deed_error *e = &answer->error;
        if (e->status == DEED_REJECTED) {
            buf_printf(out, "+ rejected %s: %s\n", e->code, e->message);
        } else {
            buf_printf(out, "+ %s: %s\n", deed_status_text(e->status), e->message);
        }
        return;
    }
    if (answer->event_count == 0) buf_printf(out, "+ no events\n");
    for (size_t i = 0; i < answer->event_count; i++) {
        buf_printf(out, "+ event %.*s %.*s\n", DEED_FMT(answer->events[i].type),
                   (int)answer->events[i].data.len, (const char *)answer->events[i].data.ptr);
    }
}

static void values_differ(struct given *g, const char *what, size_t index, deed_bytes wanted,
                          deed_bytes got)
{
    struct buf changes;
    json_value root = {0};
    buf_init(&changes, FILE_SIZE_MAX);
    if (explain_changes(wanted, got, &changes, NULL) == DEED_OK) {
        deed_status parsed = json_parse(g->arena, buf_bytes(&changes), 0, &root, NULL);
        if (parsed == DEED_OK && json_count(root) > 0) {
            buf_printf(&g->difference, "  %s", what);
            if (index != SIZE_MAX) buf_printf(&g->difference, " %zu", index + 1);
            buf_printf(&g->difference, ":\n");
        }
    }
    for (struct json_iterator i = json_iterate(root); json_next(&i);) {
        deed_str path = json_text(json_get(i.value, DEED_STR("path")));
        json_value from = json_get(i.value, DEED_STR("from"));
        json_value to = json_get(i.value, DEED_STR("to"));
        if (json_kind_of(from) != JSON_NONE) {
            buf_printf(&g->difference, "-   %.*s: %.*s\n", DEED_FMT(path),
                       DEED_FMT(json_raw(from)));
        }
        if (json_kind_of(to) != JSON_NONE) {
            buf_printf(&g->difference, "+   %.*s: %.*s\n", DEED_FMT(path), DEED_FMT(json_raw(to)));
        }
    }
    buf_done(&changes);
}

static deed_status then_events(struct given *g, json_value wanted, const struct host_answer *answer,
                               struct deed_error *err)
{
    bool same = answer->outcome == HOST_DONE && json_count(wanted) == answer->event_count;
    for (struct json_iterator i = json_iterate(wanted); json_next(&i);) {
        deed_status status = members_check(i.value, event_members, err);
        deed_str type = json_text(json_get(i.value, DEED_STR("type")));
        if (status == DEED_OK && type.len == 0) status = malformed(err, i.value, "expected a type");
        if (status != DEED_OK) return status;
        same = same && deed_str_equal(type, answer->events[i.index].type);
    }
    if (!same) {
        if (json_count(wanted) == 0) buf_printf(&g->difference, "- no events\n");
        for (struct json_iterator i = json_iterate(wanted); json_next(&i);) {
            buf_printf(&g->difference, "- event %.*s %.*s\n",
                       DEED_FMT(json_text(json_get(i.value, DEED_STR("type")))),
                       DEED_FMT(json_raw(json_get(i.value, DEED_STR("data")))));
        }
        came(g, answer);
        return DEED_OK;
    }
    for (struct json_iterator i = json_iterate(wanted); json_next(&i);) {
        if (json_kind_of(json_get(i.value, DEED_STR("data"))) == JSON_NONE) continue;
        values_differ(g, "event", i.index, data_of(i.value), answer->events[i.index].data);
    }
    return DEED_OK;
}

/* The members that the test names; a state has many that it does not care for. */
static deed_status then_state(struct given *g, json_value wanted, const struct host_answer *answer,
                              struct deed_error *err)
{
    if (json_kind_of(wanted) != JSON_OBJECT) return malformed(err, wanted, "expected an object");
    for (size_t i = 0; i < answer->event_count; i++) {
        struct host_event event = answer->events[i];
        event.time_ns = g->now_ns;
        deed_status status = event_add(g, event, err);
        if (status != DEED_OK) return status;
    }
    struct host_request request = request_make(g, HOST_STATE, (json_value){0});
    struct host_answer after;
    json_value state = {0};
    host_run(g->host, &request, 1, &after, g->arena);
    if (after.outcome != HOST_DONE) {
        came(g, &after);
        return DEED_OK;
    }
    deed_status status = json_parse(g->arena, after.state, 0, &state, err);
    for (struct json_iterator i = json_iterate(wanted); status == DEED_OK && json_next(&i);) {
        json_value got = json_get(state, i.key);
        if (json_kind_of(got) == JSON_NONE) {
            buf_printf(&g->difference, "- state %.*s: %.*s\n+ state has no such member\n",
                       DEED_FMT(i.key), DEED_FMT(json_raw(i.value)));
        } else if (!json_equal(got, i.value)) {
            buf_printf(&g->difference, "- state %.*s: %.*s\n+ state %.*s: %.*s\n", DEED_FMT(i.key),
                       DEED_FMT(json_raw(i.value)), DEED_FMT(i.key), DEED_FMT(json_raw(got)));
        }
    }
    return status;
}

static bool contains(const char *text, deed_str part)
{
    return memmem(text, strlen(text), part.ptr, part.len) != NULL;
}

static void then_rejected(struct given *g, json_value then, const struct host_answer *answer)
{
    deed_str code = json_text(json_get(then, DEED_STR("rejected")));
    deed_str message = json_text(json_get(then, DEED_STR("message")));
    bool rejected = answer->outcome == HOST_FAILED && answer->error.status == DEED_REJECTED &&
                    deed_str_equal(deed_str_of(answer->error.code), code);
    if (rejected && (message.ptr == NULL || contains(answer->error.message, message))) return;
    buf_printf(&g->difference, "- rejected %.*s%s%.*s\n", DEED_FMT(code),
               message.ptr == NULL ? "" : ": … ", DEED_FMT(message));
    came(g, answer);
}

static void then_invalid(struct given *g, deed_str part, const struct host_answer *answer)
{
    if (answer->outcome == HOST_FAILED && answer->error.status == DEED_INVALID &&
        contains(answer->error.message, part)) {
        return;
    }
    buf_printf(&g->difference, "- %s: … %.*s …\n", deed_status_text(DEED_INVALID), DEED_FMT(part));
    came(g, answer);
}

static deed_status then(struct given *g, json_value then, const struct host_answer *answer,
                        struct deed_error *err)
{
    json_value events = json_get(then, DEED_STR("events"));
    json_value state = json_get(then, DEED_STR("state"));
    json_value rejected = json_get(then, DEED_STR("rejected"));
    json_value invalid = json_get(then, DEED_STR("invalid"));
    deed_status status = members_check(then, then_members, err);
    if (status != DEED_OK) return status;
    int kinds = (json_kind_of(events) == JSON_ARRAY || json_kind_of(state) == JSON_OBJECT) +
                (json_kind_of(rejected) == JSON_STRING) + (json_kind_of(invalid) == JSON_STRING);
    if (kinds != 1) {
        return malformed(err, then, "\"then\" must have events or state, or rejected, or invalid");
    }
    if (json_kind_of(rejected) == JSON_STRING) {
        then_rejected(g, then, answer);
    } else if (json_kind_of(invalid) == JSON_STRING) {
        then_invalid(g, json_text(invalid), answer);
    } else {
        if (json_kind_of(events) != JSON_NONE) status = then_events(g, events, answer, err);
        if (status == DEED_OK && json_kind_of(state) != JSON_NONE) {
            if (answer->outcome == HOST_DONE) {
                status = then_state(g, state, answer, err);
            } else if (json_kind_of(events) == JSON_NONE) {
                buf_printf(&g->difference, "- events\n");
                came(g, answer);
            }
        }
    }
    return status;
}

/* ---- tests ---------------------------------------------------------------------------------- */

/* (2) The state is asked for before the decision, and again from the slot that was decided on. */
static void decide(struct given *g, json_value when, struct host_answer *out_answer)
{
    struct host_request requests[3] = {
        request_make(g, HOST_STATE, (json_value){0}),
        request_make(g, HOST_DECIDE, when),
        request_make(g, HOST_STATE, (json_value){0}),
    };
    struct host_answer answers[3];
    requests[1].slot = requests[2].slot = SLOT;
    requests[2].base_revision = g->event_count - 1;
    requests[2].events = NULL;
    requests[2].event_count = 0;
    size_t count = g->event_count == 0 ? 2 : 3;
    host_run(g->host, requests, count, answers, g->arena);
    *out_answer = answers[1];
    if (count == 3 && answers[0].outcome == HOST_DONE && answers[2].outcome == HOST_DONE &&
        memcmp(answers[0].state.ptr, answers[2].state.ptr,
               answers[0].state.len < answers[2].state.len ? answers[0].state.len
                                                           : answers[2].state.len) != 0) {
        buf_printf(&g->difference, "+ the decide function changed the state; only evolve may\n");
        values_differ(g, "state", SIZE_MAX, answers[0].state, answers[2].state);
    }
}

static deed_status test_run(struct given *g, json_value test, struct deed_error *err)
{
    json_value when = json_get(test, DEED_STR("when"));
    deed_status status = members_check(test, test_members, err);
    for (size_t i = 0; status == DEED_OK && i < sizeof test_needs / sizeof *test_needs; i++) {
        if (json_kind_of(json_get(test, deed_str_of(test_needs[i]))) != JSON_NONE) continue;
        return deed_fail(err, DEED_INVALID, "\"%s\" is missing", test_needs[i]);
    }
    if (status == DEED_OK) status = members_check(when, command_members, err);
    if (status == DEED_OK) status = stream_of(g, when, &g->stream, err);
    if (status == DEED_OK) {
        status = given_list(g, json_get(test, DEED_STR("given")), 0, err);
    }
    if (status == DEED_OK) status = time_of(when, "now", &g->now_ns, err);
    if (status != DEED_OK) return status;
    struct host_answer answer;
    decide(g, when, &answer);
    return then(g, json_get(test, DEED_STR("then")), &answer, err);
}

static void test_tell(struct given *g, json_value test, given_each *each, void *context,
                      struct given_summary *summary)
{
    struct os *os = os_real();
    uint64_t from = os_ticks_ns(os);
    struct deed_error err = {0};
    buf_reset(&g->difference);
    g->events = NULL;
    g->event_count = g->event_room = 0;
    g->now_ns = NOW_NS;
    deed_status status = test_run(g, test, &err);
    if (status != DEED_OK) {
        buf_reset(&g->difference);
        buf_printf(&g->difference, "  the test is malformed: %s\n", err.message);
    }
    deed_str difference = buf_str(&g->difference);
    if (!buf_ok(&g->difference)) difference = DEED_STR("  the difference is too long to show\n");
    struct given_result result = {.file = g->file,
                                  .name = json_text(json_get(test, DEED_STR("name"))),
                                  .passed = difference.len == 0,
                                  .difference = difference,
                                  .duration_ns = os_ticks_ns(os) - from};
    if (result.name.len == 0) result.name = DEED_STR("(without name)");
    summary->passed += result.passed;
    summary->failed += !result.passed;
    if (each != NULL) each(context, &result);
}

static deed_status file_parse(struct given *g, deed_bytes text, struct arena *arena,
                              json_value *out_tests, struct deed_error *err)
{
    json_value root;
    deed_status status = json_parse(arena, text, 0, &root, err);
    if (status == DEED_OK) status = members_check(root, file_members, err);
    if (status == DEED_OK) {
        status = json_parse(arena, deed_bytes_of(host_model(g->host)), 0, &g->model, err);
    }
    if (status != DEED_OK) return status;
    g->fixtures = json_get(root, DEED_STR("fixtures"));
    *out_tests = json_get(root, DEED_STR("tests"));
    if (json_kind_of(*out_tests) != JSON_ARRAY || json_count(*out_tests) == 0) {
        return malformed(err, *out_tests, "expected a list of \"tests\"");
    }
    return DEED_OK;
}

deed_status given_run_text(struct domain_host *host, deed_str file, deed_bytes text,
                           given_each *each, void *context, struct given_summary *summary,
                           struct deed_error *err)
{
    struct arena kept, arena;
    struct given g = {.host = host, .file = file, .arena = &arena};
    json_value tests;
    arena_init(&kept, ARENA_SIZE_MAX);
    arena_init(&arena, ARENA_SIZE_MAX);
    buf_init(&g.difference, DIFFERENCE_MAX);
    deed_status status = file_parse(&g, text, &kept, &tests, err);
    if (status == DEED_OK) {
        summary->files++;
        for (struct json_iterator i = json_iterate(tests); json_next(&i);) {
            arena_reset(&arena);
            test_tell(&g, i.value, each, context, summary);
        }
    } else {
        deed_wrap(err, "%.*s", DEED_FMT(file));
    }
    buf_done(&g.difference);
    arena_done(&arena);
    arena_done(&kept);
    return status;
}

/* ---- folders -------------------------------------------------------------------------------- */

struct names {
    char **list;
    size_t count;
    bool no_memory;
};

static void name_add(void *context, const char *name)
{
    struct names *names = context;
    size_t len = strlen(name);
    if (len < 6 || strcmp(name + len - 5, ".json") != 0) return;
    char **list = realloc(names->list, (names->count + 1) * sizeof *list);
    if (list != NULL) names->list = list;
    char *copy = list == NULL ? NULL : strdup(name);
    if (copy == NULL) {
        names->no_memory = true;
        return;
    }
    names->list[names->count++] = copy;
}

static int name_compare(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static deed_status file_read(struct os_dir *dir, const char *name, struct buf *out,
                             struct deed_error *err)
{
    struct os_file *file = NULL;
    uint64_t size = 0;
    size_t got = 0;
    deed_status status = os_file_open(dir, name, OS_READ, &file, err);
    if (status == DEED_OK) status = os_file_size(file, &size, err);
    if (status == DEED_OK && size > FILE_SIZE_MAX) {
        status = deed_fail(err, DEED_TOO_LARGE, "%llu bytes, limit %zu", (unsigned long long)size,
                           FILE_SIZE_MAX);
    }
    uint8_t *at = status == DEED_OK ? buf_reserve(out, (size_t)size) : NULL;
    if (status == DEED_OK && at == NULL) status = deed_fail(err, DEED_NO_MEMORY, "no memory");
    if (status == DEED_OK) status = os_file_read(file, 0, at, (size_t)size, &got, err);
    out->len += got;
    os_file_close(file);
    return status;
}

static void file_run(struct domain_host *host, struct os_dir *dir, const char *name,
                     given_each *each, void *context, struct given_summary *summary)
{
    struct buf text;
    struct deed_error err = {0};
    buf_init(&text, FILE_SIZE_MAX);
    deed_status status = file_read(dir, name, &text, &err);
    if (status == DEED_OK) {
        status =
            given_run_text(host, deed_str_of(name), buf_bytes(&text), each, context, summary, &err);
    }
    buf_done(&text);
    if (status == DEED_OK) return;
    char difference[DEED_MESSAGE_SIZE + 8];
    int len = snprintf(difference, sizeof difference, "  %s\n", err.message);
    struct given_result result = {.file = deed_str_of(name),
                                  .name = DEED_STR("the file can be read"),
                                  .difference = {difference, (size_t)len}};
    summary->failed++;
    if (each != NULL) each(context, &result);
}

deed_status given_run_folder(struct domain_host *host, const char *folder, given_each *each,
                             void *context, struct given_summary *summary, struct deed_error *err)
{
    struct os_dir *dir = NULL;
    struct names names = {0};
    deed_status status = os_dir_open(os_real(), folder, false, &dir, err);
    if (status == DEED_OK) status = os_dir_list(dir, name_add, &names, err);
    if (status == DEED_OK && names.no_memory) status = deed_fail(err, DEED_NO_MEMORY, "no memory");
    if (names.count > 0) qsort(names.list, names.count, sizeof *names.list, name_compare);
    for (size_t i = 0; i < names.count; i++) {
        if (status == DEED_OK) file_run(host, dir, names.list[i], each, context, summary);
        free(names.list[i]);
    }
    free(names.list);
    os_dir_close(dir);
    return status;
}
