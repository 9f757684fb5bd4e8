/* test_history.c - belongs to the checker in tests/support/history.h, and then uses it: threads on
 * one store, whose answers must fit one serial order.
 *
 * HISTORY_MS: how long the threads run (default 800). */
#include "store_fixture.h"
#include "support/history.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>

/* ---- the checker ---------------------------------------------------------------------------- */

static const char *const good_history = "request 1\n"
                                        "write 0 0 1\n"
                                        "stream 0 none\n"
                                        "request 2\n"
                                        "write 0 1 2\n"
                                        "write 1 0 0\n"
                                        "stream 0 0\n"
                                        "request 3\n"
                                        "write 2 2 4\n"
                                        "nomatch 1 4:4 0:8\n"
                                        "request 4\n"
                                        "write 2 2 4\n"
                                        "nomatch 0 4:4\n"
                                        "request 5\n"
                                        "write 1 0 0\n"
                                        "stream 1 exists\n"
                                        "request 6\n"
                                        "write 1 0 0\n"
                                        "request 7\n"
                                        "write 0 0 0\n"
                                        "stream 0 0 # by now at 1\n"
                                        "append 1 1 10 20 ok 2 2 0\n"
                                        "append 1 2 25 28 again 2 2 0\n"
                                        "append 2 1 30 40 ok 3 4 0\n"
                                        "append 3 2 35 50 ok 5 5 0\n"
                                        "append 4 1 60 70 refused 0 5\n"
                                        "append 5 1 80 - unknown\n"
                                        "append 6 2 80 - unknown\n"
                                        "append 7 2 75 78 refused 0 3\n"
                                        "read 3 32 33 0 2 - 0:0 end 2=1.0\n"
                                        "read 3 45 55 0 5 - 0:0 end 2=1.0 3=2.0 4=2.1 5=3.0\n"
                                        "read 3 90 95 0 0 1 0:0 end 4=2.1 6=5.0\n"
                                        "read 3 96 97 0 0 - 1:0 limit 2=1.0 4=2.1\n"
                                        "log 2 0 1 0 0 0 1\n"
                                        "log 3 1 2 0 0 1 2\n"
                                        "log 4 0 2 1 1 0 0\n"
                                        "log 5 0 3 0 2 2 4\n"
                                        "log 6 1 5 0 1 0 0\n";

static void expect_good(const char *text)
{
    struct history h;
    char message[512] = "";
    history_init(&h);
    if (!history_parse(&h, text, message, sizeof message)) fail_msg("%s", message);
    if (!history_check(&h, message, sizeof message)) fail_msg("%s", message);
    history_done(&h);
}

/* The good history with one of its parts replaced. */
static char *corrupted(const char *part, const char *instead)
{
    const char *at = strstr(good_history, part);
    size_t size = strlen(good_history) + strlen(instead) + 1;
    char *text = malloc(size);
    assert_non_null(text);
    if (at == NULL) fail_msg("the history has no \"%s\"", part);
    (void)snprintf(text, size, "%.*s%s%s", (int)(at - good_history), good_history, instead,
                   at + strlen(part));
    return text;
}

static void expect_wrong(const char *part, const char *instead, const char *why)
{
    struct history h;
    char message[512] = "";
    char *text = corrupted(part, instead);
    history_init(&h);
    if (!history_parse(&h, text, message, sizeof message)) fail_msg("%s", message);
    if (history_check(&h, message, sizeof message)) {
        fail_msg("\"%s\" instead of \"%s\" is accepted", instead, part);
    }
    if (strstr(message, why) == NULL) {
        fail_msg("\"%s\" instead of \"%s\": \"%s\" lacks \"%s\"", instead, part, message, why);
    }
    history_done(&h);
    free(text);
}

TEST(history, a_good_history_is_accepted)
{
    expect_good("");
    expect_good(good_history);
}

TEST(history, an_unknown_outcome_may_be_either)
{
    char *text = corrupted("append 5 1 80 - unknown\n", "append 5 1 80 - unknown\n"
                                                        "append 5 1 82 84 again 6 6 1\n");
    expect_good(text);
    free(text);
    /* Sent again after an unknown outcome that was none. */
    text = corrupted("log 6 1 5 0 1 0 0\n", "log 6 1 5 0 1 0 0\n"
                                            "log 7 2 6 0 1 0 0\n"
                                            "append 6 2 98 99 ok 7 7 2\n");
    expect_good(text);
    free(text);
}

TEST(history, a_log_with_gaps_or_wrong_content_is_rejected)
{
    expect_wrong("log 6 1", "log 7 1", "position 7 follows 5 in the log");
    expect_wrong("log 6 1 5", "log 6 2 5", "position 6 of request 5 has revision 2 in stream 1");
    expect_wrong("log 6 1 5 0", "log 6 1 9 0", "part 0 of request 9, out of nowhere");
    expect_wrong("log 6 1 5 0", "log 6 1 5 1", "part 1 of request 5, out of nowhere");
    expect_wrong("log 6 1 5 0 1 0 0\n", "log 6 1 5 0 1 0 0\nlog 7 2 5 0 1 0 0\n",
                 "request 5 is stored twice, at 6 and 7");
    expect_wrong("log 6 1 5 0 1 0 0", "log 6 2 7 0 0 0 0",
                 "request 7 is stored at 6, but no attempt was accepted");
    expect_wrong("log 4 0 2 1", "log 4 0 5 0", "request 2 at 3: 1 of its 2 events are there");
    expect_wrong("log 6 1 5 0 1 0 0", "log 6 1 5 0 1 3 0",
                 "position 6 is not what request 5 wrote");
    expect_wrong("log 6 1 5 0 1 0 0", "log 6 1 5 0 1 0 8",
                 "position 6 is not what request 5 wrote");
}

TEST(history, a_condition_that_did_not_hold_is_found)
{
    expect_wrong("write 1 0 0\nstream 0 0", "write 1 0 0\nstream 0 none",
                 "request 2 at 3: condition 0 did not hold: stream 0 had 1 events");
    expect_wrong("write 1 0 0\nstream 0 0", "write 1 0 0\nstream 0 1",
                 "request 2 at 3: condition 0 did not hold");
    expect_wrong("stream 0 none", "stream 0 exists",
                 "request 1 at 2: condition 0 did not hold: stream 0 had 0 events");
    expect_wrong(
        "nomatch 1 4:4 0:8", "nomatch 1 4:4 2:2",
        "request 3 at 5: condition 0 did not hold: position 3 of request 2 matches after 1");
    expect_wrong("nomatch 1 4:4 0:8", "nomatch 3 4:4 0:0",
                 "position 4 of request 2 matches after 3");
}

TEST(history, an_acknowledgement_that_the_log_does_not_bear_out_is_found)
{
    expect_wrong("append 6 2 80 - unknown", "append 6 2 80 85 ok 7 7 2",
                 "the append of request 6 by client 2, sent at 80 was acknowledged and is not in");
    expect_wrong("ok 5 5 0", "ok 4 4 0",
                 "request 3 by client 2, sent at 35 was acknowledged at 4-4");
    expect_wrong("ok 3 4 0", "ok 3 3 0", "was acknowledged at 3-3, it is at 3-4");
    expect_wrong("ok 3 4 0", "ok 3 4 1", "was acknowledged at revision 1, it is at 0");
    expect_wrong("append 1 2 25 28 again", "append 1 2 25 28 ok",
                 "by client 2, sent at 25 both say they stored it");
    expect_wrong("append 1 1 10 20 ok 2 2 0\nappend 1 2 25 28 again",
                 "append 1 1 10 20 again 2 2 0\nappend 1 2 25 28 ok",
                 "says it stored what was acknowledged before it was sent");
    expect_wrong("append 3 2 35 50 ok", "append 3 2 35 50 again",
                 "request 3 by client 2, sent at 35 repeats what no attempt stored");
}

TEST(history, a_refusal_without_a_reason_is_found)
{
    expect_wrong("refused 0 5", "refused 0 9",
                 "was refused by position 9, which is not in the log");
    expect_wrong("refused 0 5", "refused 0 -", "which is not in the log");
    expect_wrong("refused 0 5", "refused 0 3", "position 3, which its condition allows");
    expect_wrong("refused 0 5", "refused 1 5", "was refused by condition 1, it has 1");
    expect_wrong("nomatch 0 4:4", "nomatch 5 4:4", "position 5, which its condition allows");
    expect_wrong(
        "append 4 1 60 70 refused", "append 4 1 30 34 refused",
        "request 4 by client 1, sent at 30 was refused by request 3, which was sent later");
    expect_wrong("refused 0 3", "refused 0 4",
                 "was refused by position 4, which is in another stream");
    expect_wrong("refused 0 3", "refused 0 2",
                 "was refused though condition 0 holds at position 2");
    expect_wrong("write 0 0 0\nstream 0 0", "write 0 0 0\nstream 0 1",
                 "was refused though condition 0 holds at position 3");
    expect_wrong("append 1 2 25 28 again 2 2 0", "append 1 2 12 28 refused 0 2",
                 "sent at 12 was refused by its own event at position 2");
    expect_wrong("append 1 2 25 28 again 2 2 0", "append 1 2 25 28 refused 0 2",
                 "was refused, it had been acknowledged before it was sent");
}

TEST(history, a_refusal_by_a_state_that_was_over_is_found)
{
    char *text = corrupted("append 7 2 75 78 refused 0 3", "append 7 2 75 78 refused 0 2");
    char *at = strstr(text, "stream 0 0 # by now");
    struct history h;
    char message[512];
    at[9] = '7'; /* refused by revision 0, long after revision 1 */
    history_init(&h);
    assert_true(history_parse(&h, text, message, sizeof message));
    assert_false(history_check(&h, message, sizeof message));
    assert_non_null(strstr(message, "was refused by an older state: position 3 follows"));
    history_done(&h);
    free(text);
}

TEST(history, an_order_against_time_is_found)
{
    expect_wrong("append 2 1 30 40 ok", "append 2 1 60 65 ok",
                 "request 2 was first sent at 60 and is at 3, but position 5 was known before, by "
                 "the append of request 3 by client 2");
    expect_wrong("append 5 1 80 - unknown\n",
                 "append 5 1 80 - unknown\n"
                 "read 4 71 72 0 6 - 0:0 end 2=1.0 3=2.0 4=2.1 5=3.0 6=5.0\n",
                 "request 5 was first sent at 80 and is at 6, but position 6 was known before, by "
                 "the read by client 4, sent at 71");
}

TEST(history, a_read_with_gaps_or_from_the_past_or_the_future_is_found)
{
    expect_wrong("read 3 45 55 0 5 - 0:0 end 2=1.0 3=2.0", "read 3 45 55 0 5 - 0:0 end 2=1.0",
                 "the read by client 3, sent at 45 gives position 4 where 3 matches");
    expect_wrong("4=2.1 5=3.0", "4=2.0 5=3.0",
                 "position 4 gives part 0 of request 2, the log has part 1 of request 2");
    expect_wrong("4=2.1 5=3.0", "4=2.1 4=2.1 5=3.0", "gives position 4 where 5 matches");
    expect_wrong("read 3 45 55 0 5 - 0:0 end 2=1.0 3=2.0 4=2.1 5=3.0",
                 "read 3 52 55 0 4 - 0:0 end 2=1.0 3=2.0 4=2.1",
                 "the read by client 3, sent at 52 lacks position 5, position 5 was known before, "
                 "by the append of request 3");
    expect_wrong("read 3 45 55 0 5 - 0:0 end 2=1.0 3=2.0 4=2.1 5=3.0",
                 "read 3 45 55 0 5 - 0:0 end 2=1.0 3=2.0 4=2.1",
                 "says it saw all up to 5, but not 5");
    expect_wrong("read 3 32 33 0 2 - 0:0 end 2=1.0",
                 "read 3 32 33 0 5 - 0:0 end 2=1.0 3=2.0 "
                 "4=2.1 5=3.0",
                 "request 3 was first sent at 35 and is at 5, but position 5 was known before");
    expect_wrong("limit 2=1.0 4=2.1", "limit 2=1.0 3=2.0", "gives position 3 where 4 matches");
    expect_wrong("4=2.1 6=5.0", "4=2.1 6=5.0 7=6.0", "gives position 7, nothing more matches");
    /* What one reader saw, a later one sees. */
    expect_wrong("read 3 90 95 0 0 1 0:0 end 4=2.1 6=5.0\n",
                 "read 4 85 88 5 6 - 0:0 end 6=5.0\nread 3 90 95 0 0 1 0:0 end 4=2.1\n",
                 "the read by client 3, sent at 90 lacks position 6, position 6 was known before, "
                 "by the read by client 4");
}

TEST(history, a_line_that_says_nothing_is_named)
{
    static const char *const lines[] = {"reqest 1",
                                        "request one",
                                        "append 1 1 1 2 yes 1 1 1",
                                        "log 1 0 1 0 0",
                                        "write 0 0 0",
                                        "read 1 1 2 0 0 - 0 end",
                                        "request 1\nread 1 1 2 0 0 - 0:0 end 4"};
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++) {
        struct history h;
        char message[512];
        history_init(&h);
        if (history_parse(&h, lines[i], message, sizeof message)) fail_msg("%s", lines[i]);
        assert_non_null(strstr(message, "is malformed"));
        history_done(&h);
    }
}

/* ---- threads on a store --------------------------------------------------------------------- */

#define CLIENTS     8
#define STREAMS     6
#define TYPES       4
#define TAGS        8
#define WRITES_MAX  3
#define SHARED      (UINT64_C(1) << 40) /* requests that every client sends */
#define OWN_STREAMS 1000                /* and the streams that they begin */

static const char *const type_names[TYPES] = {"Opened", "Changed", "Closed", "Counted"};
static const deed_str tag_names[TAGS] = {DEED_STR("a"), DEED_STR("b"), DEED_STR("c"),
                                         DEED_STR("d"), DEED_STR("e"), DEED_STR("f"),
                                         DEED_STR("g"), DEED_STR("h")};

struct client {
    struct history h;
    struct deed_cursor *follower;
    uint64_t random, deadline, next;
    uint64_t follower_at;
    uint32_t number;
    char wrong[DEED_MESSAGE_SIZE];
};

static _Atomic uint64_t shared_next;

static uint64_t draw(uint64_t *random, uint64_t limit)
{
    *random ^= *random << 13;
    *random ^= *random >> 7;
    *random ^= *random << 17;
    return (*random >> 11) % limit;
}

/* A request in the store's words; the slices point into itself. */
struct wire {
    struct deed_new_event events[WRITES_MAX];
    struct deed_append append;
    struct deed_condition condition;
    struct deed_query_item items[2];
    deed_str item_types[2], tags[WRITES_MAX][TAGS], item_tags[2][TAGS];
    char streams[WRITES_MAX + 1][24], data[WRITES_MAX][64], key[24];
};

static deed_str stream_name(char out[24], uint32_t stream)
{
    (void)snprintf(out, 24, "s-%u", stream);
    return deed_str_of(out);
}

static size_t tags_of(uint64_t mask, deed_str out[TAGS])
{
    size_t count = 0;
    for (unsigned i = 0; i < TAGS; i++) {
        if ((mask >> i & 1) != 0) out[count++] = tag_names[i];
    }
    return count;
}

static void wire_event(struct wire *w, size_t i, uint64_t id, const struct history_write *write)
{
    int size = snprintf(w->data[i], sizeof w->data[i], "{\"r\":%" PRIu64 ",\"p\":%zu}", id, i);
    w->events[i] = (struct deed_new_event){
        .stream = stream_name(w->streams[i], write->stream),
        .type = deed_str_of(type_names[write->type]),
        .data = {(const uint8_t *)w->data[i], (size_t)size},
        .tags = w->tags[i],
        .tag_count = tags_of(write->tags, w->tags[i]),
    };
    if (id % 2 == 0) { /* known again by its id; by its key otherwise */
        memcpy(w->events[i].id.bytes, &id, sizeof id);
        w->events[i].id.bytes[15] = (uint8_t)(i + 1);
    }
}

static void wire_condition(struct wire *w, const struct history *h,
                           const struct history_condition *c)
{
    w->condition = (struct deed_condition){.kind = c->kind,
                                           .stream = stream_name(w->streams[WRITES_MAX], c->stream),
                                           .expect = c->expect,
                                           .revision = c->revision,
                                           .items = w->items,
                                           .item_count = c->items.count,
                                           .after = c->after};
    for (size_t i = 0; i < c->items.count; i++) {
        const struct history_item *item = &h->items.at[c->items.from + i];
        w->items[i] = (struct deed_query_item){.types = &w->item_types[i],
                                               .type_count = item->types != 0,
                                               .tags = w->item_tags[i],
                                               .tag_count = tags_of(item->tags, w->item_tags[i])};
        if (item->types != 0) {
            w->item_types[i] = deed_str_of(type_names[__builtin_ctzll(item->types)]);
        }
    }
    w->append.conditions = &w->condition;
    w->append.condition_count = 1;
}

static void wire_make(struct wire *w, const struct history *h, const struct history_request *r)
{
    *w = (struct wire){0};
    for (size_t i = 0; i < r->writes.count; i++) {
        wire_event(w, i, r->id, &h->writes.at[r->writes.from + i]);
    }
    w->append.events = w->events;
    w->append.event_count = r->writes.count;
    if (r->id % 2 != 0) {
        (void)snprintf(w->key, sizeof w->key, "k%" PRIu64, r->id);
        w->append.idempotency_key = deed_str_of(w->key);
    }
    if (r->conditions.count > 0) wire_condition(w, h, &h->conditions.at[r->conditions.from]);
}

/* Send the client's newest request and write down what came of it. */
static void send_request(struct client *c)
{
    const struct history_request *r = &c->h.requests.at[c->h.requests.count - 1];
    struct wire w;
    struct deed_appended answer;
    struct deed_error why = {0};
    wire_make(&w, &c->h, r);
    struct history_append a = {.request = r->id, .client = c->number};
    a.invoked = os_ticks_ns(os);
    deed_status status = store_append(store, &w.append, &answer, &why);
    a.completed = os_ticks_ns(os);
    if (status == DEED_OK) {
        a.repeated = answer.repeated;
        a.first = answer.first_position;
        a.last = answer.position;
        a.revision = answer.revision;
    } else if (status == DEED_CONFLICT) {
        a.outcome = HISTORY_REFUSED;
        a.condition = why.condition;
        a.position = why.position;
    } else {
        (void)snprintf(c->wrong, sizeof c->wrong, "append: %.400s", why.message);
    }
    history_add_append(&c->h, a);
}

static void begin_request(struct client *c)
{
    history_add_request(&c->h, (uint64_t)(c->number + 1) << 32 | c->next++);
    size_t count = 1 + draw(&c->random, WRITES_MAX);
    for (size_t i = 0; i < count; i++) {
        uint64_t tag = UINT64_C(1) << draw(&c->random, TAGS);
        history_add_write(
            &c->h, (struct history_write){.stream = (uint32_t)draw(&c->random, STREAMS),
                                          .type = (uint32_t)draw(&c->random, TYPES),
                                          .tags = draw(&c->random, 4) == 0
                                                      ? tag | UINT64_C(1) << draw(&c->random, TAGS)
                                                      : tag});
    }
}

static void append_at_revision(struct client *c)
{
    struct deed_stream_info info;
    char name[24];
    uint32_t stream = (uint32_t)draw(&c->random, STREAMS);
    struct history_condition k = {.stream = stream, .expect = DEED_EXPECT_REVISION};
    if (store_stream(store, stream_name(name, stream), &info, NULL) == DEED_OK) {
        k.revision = info.revision;
        if (draw(&c->random, 16) == 0) k.expect = DEED_EXPECT_EXISTS;
    } else {
        k.expect = DEED_EXPECT_NONE;
    }
    begin_request(c);
    history_add_condition(&c->h, k);
    send_request(c);
}

static void append_unless_matched(struct client *c)
{
    uint64_t end = store_position(store);
    uint64_t back = draw(&c->random, 4);
    begin_request(c);
    history_add_condition(&c->h, (struct history_condition){.kind = DEED_CONDITION_NO_MATCH,
                                                            .after = end > back ? end - back : 1});
    size_t count = 1 + draw(&c->random, 2);
    for (size_t i = 0; i < count; i++) {
        struct history_item item = {.types = UINT64_C(1) << draw(&c->random, TYPES)};
        if (draw(&c->random, 3) > 0) item.tags = UINT64_C(1) << draw(&c->random, TAGS);
        if (item.tags != 0 && draw(&c->random, 2) == 0) item.types = 0;
        history_add_item(&c->h, item);
    }
    send_request(c);
}

/* Several clients send it, some at the same moment: one of them stores it. The condition would
 * refuse whoever comes second. */
static void append_shared(struct client *c)
{
    uint64_t newest = atomic_load(&shared_next);
    if (draw(&c->random, 3) == 0) newest = atomic_fetch_add(&shared_next, 1);
    uint64_t back = draw(&c->random, 4);
    uint64_t n = newest > back ? newest - back : 0;
    uint32_t stream = OWN_STREAMS + (uint32_t)n;
    history_add_request(&c->h, SHARED + n);
    for (uint32_t i = 0; i <= n % 2; i++) {
        history_add_write(&c->h, (struct history_write){.stream = stream,
                                                        .type = (uint32_t)(n % TYPES),
                                                        .tags = UINT64_C(1) << n % TAGS});
    }
    history_add_condition(&c->h,
                          (struct history_condition){.stream = stream, .expect = DEED_EXPECT_NONE});
    send_request(c);
}

static void note_seen(struct client *c, const struct deed_event *e)
{
    struct history_seen seen = {.position = e->position};
    char text[64] = "";
    size_t len = e->data.len < sizeof text - 1 ? e->data.len : sizeof text - 1;
    memcpy(text, e->data.ptr, len);
    if (sscanf(text, "{\"r\":%" SCNu64 ",\"p\":%" SCNu32 "}", &seen.request, &seen.part) != 2) {
        (void)snprintf(c->wrong, sizeof c->wrong, "position %" PRIu64 " has other data",
                       e->position);
    }
    history_add_seen(&c->h, seen);
}

/* Read to the cursor's end, or its limit, into a read that was begun. */
static void note_all(struct client *c, struct deed_cursor *cursor, uint64_t limit)
{
    struct deed_event e;
    struct deed_error why;
    size_t at = c->h.reads.count - 1;
    uint64_t count = 0;
    deed_status status;
    while ((status = cursor_next(cursor, &e, &why)) == DEED_OK) {
        note_seen(c, &e);
        if (++count == limit) break;
    }
    struct history_read *r = &c->h.reads.at[at];
    r->completed = os_ticks_ns(os);
    r->limited = status == DEED_OK;
    if (!r->by_stream) r->to = cursor_position(cursor);
    if (status != DEED_OK && status != DEED_END) {
        (void)snprintf(c->wrong, sizeof c->wrong, "read: %.400s", why.message);
    }
}

static void read_some(struct client *c)
{
    struct deed_read_options how = {.count_max = 200};
    struct history_read r = {.client = c->number};
    struct deed_cursor *cursor = NULL;
    struct deed_error why;
    deed_str type, tag;
    char name[24];
    uint64_t end = store_position(store);
    uint64_t kind = draw(&c->random, 4);
    r.after = end > 60 ? end - 60 : 1;
    if (kind == 0) {
        struct deed_stream_info info;
        r.by_stream = true;
        r.stream = (uint32_t)draw(&c->random, STREAMS);
        how.stream = stream_name(name, r.stream);
        if (store_stream(store, how.stream, &info, NULL) != DEED_OK || info.revision > 150) return;
        r.after = 0;
    } else if (kind == 1) {
        r.filter.types = UINT64_C(1) << draw(&c->random, TYPES);
        type = deed_str_of(type_names[__builtin_ctzll(r.filter.types)]);
        how.filter.types = &type;
        how.filter.type_count = 1;
    } else if (kind == 2) {
        r.filter.tags = UINT64_C(1) << draw(&c->random, TAGS);
        tag = tag_names[__builtin_ctzll(r.filter.tags)];
        how.filter.tags = &tag;
        how.filter.tag_count = 1;
    }
    how.after_position = r.by_stream ? 0 : r.after;
    r.invoked = os_ticks_ns(os);
    if (store_read(store, &how, &cursor, &why) != DEED_OK) {
        (void)snprintf(c->wrong, sizeof c->wrong, "read: %.400s", why.message);
        return;
    }
    history_add_read(&c->h, r);
    note_all(c, cursor, how.count_max);
    cursor_close(cursor);
}

static void follow_on(struct client *c)
{
    struct history_read r = {.client = c->number, .after = c->follower_at};
    if (c->number % 2 == 0) (void)!cursor_wait(c->follower, 1, NULL);
    r.invoked = os_ticks_ns(os);
    history_add_read(&c->h, r);
    note_all(c, c->follower, 500);
    c->follower_at = cursor_position(c->follower);
}

static void *client_run(void *context)
{
    struct client *c = context;
    while (c->wrong[0] == '\0' && os_ticks_ns(os) < c->deadline) {
        switch (draw(&c->random, 10)) {
        case 0:
            begin_request(c);
            send_request(c);
            break;
        case 1: /* the newest request again */
            if (c->h.requests.count > 0) send_request(c);
            break;
        case 2:
        case 3:
            append_at_revision(c);
            break;
        case 4:
        case 5:
            append_unless_matched(c);
            break;
        case 6:
        case 7:
            append_shared(c);
            break;
        case 8:
            read_some(c);
            break;
        default:
            follow_on(c);
            break;
        }
    }
    follow_on(c);
    return NULL;
}

static void client_start(struct client *c, uint32_t number, uint64_t deadline)
{
    struct deed_read_options how = {.follow = true, .after_position = 1};
    *c = (struct client){.number = number,
                         .random = UINT64_C(0x9e3779b97f4a7c15) * (number + 1),
                         .deadline = deadline,
                         .follower_at = 1};
    history_init(&c->h);
    expect_ok(store_read(store, &how, &c->follower, &err));
}

/* The log as it is after a restart. */
static void add_log(struct history *all)
{
    struct deed_read_options how = {.after_position = 1};
    struct deed_cursor *cursor = NULL;
    struct deed_event e;
    deed_status status;
    expect_ok(store_read(store, &how, &cursor, &err));
    while ((status = cursor_next(cursor, &e, &err)) == DEED_OK) {
        struct history_event h = {.position = e.position, .revision = e.revision};
        char text[64] = "";
        memcpy(text, e.data.ptr, e.data.len < sizeof text - 1 ? e.data.len : sizeof text - 1);
        (void)sscanf(text, "{\"r\":%" SCNu64 ",\"p\":%" SCNu32 "}", &h.request, &h.part);
        (void)sscanf(e.stream.ptr, "s-%" SCNu32, &h.stream);
        while (h.type < TYPES && !deed_str_equal(e.type, deed_str_of(type_names[h.type])))
            h.type++;
        for (size_t i = 0; i < e.tag_count; i++) {
            h.tags |= UINT64_C(1) << (e.tags[i].ptr[0] - 'a');
        }
        history_add_event(all, h);
    }
    cursor_close(cursor);
    assert_int_equal(status, DEED_END);
}

static void expect_enough(const struct history *h)
{
    size_t refused = 0;
    size_t repeated = 0;
    for (size_t i = 0; i < h->appends.count; i++) {
        refused += h->appends.at[i].outcome == HISTORY_REFUSED;
        repeated += h->appends.at[i].outcome == HISTORY_OK && h->appends.at[i].repeated;
    }
    print_message("%zu appends (%zu refused, %zu repeated), %zu reads of %zu events, %zu events\n",
                  h->appends.count, refused, repeated, h->reads.count, h->seen.count, h->log.count);
    /* Otherwise the threads did not meet, and nothing was tested. */
    assert_true(refused > 0 && repeated > 0 && h->reads.count > CLIENTS && h->log.count > CLIENTS);
}

TEST(history, threads_get_the_answers_of_one_serial_order)
{
    static struct client clients[CLIENTS];
    pthread_t threads[CLIENTS];
    struct history all;
    char message[512];
    const char *wanted = getenv("HISTORY_MS");
    uint64_t ms = wanted != NULL ? strtoull(wanted, NULL, 10) : 800;
    start_here();
    history_init(&all);
    atomic_store(&shared_next, 0);
    uint64_t deadline = os_ticks_ns(os) + ms * 1000000;
    for (uint32_t i = 0; i < CLIENTS; i++)
        client_start(&clients[i], i, deadline);
    for (uint32_t i = 0; i < CLIENTS; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, client_run, &clients[i]), 0);
    }
    for (uint32_t i = 0; i < CLIENTS; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
        if (clients[i].wrong[0] != '\0') fail_msg("client %u: %s", i, clients[i].wrong);
        cursor_close(clients[i].follower);
        history_add_all(&all, &clients[i].h);
        history_done(&clients[i].h);
    }
    reopen();
    add_log(&all);
    expect_enough(&all);
    if (!history_check(&all, message, sizeof message)) fail_msg("%s", message);
    history_done(&all);
    finish();
}

TEST_MAIN(history)
