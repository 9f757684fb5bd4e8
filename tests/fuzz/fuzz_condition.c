/* fuzz_condition.c - a small log and questions to it, both made from any bytes: conditions and filtered
 * reads, which go through the index, say what looking at every event says.
 *
 *   'a' to 'z' and other bytes below 0x80: an event; two bits of stream, three of type, and a byte of
 *   tags, the next one. 0x80 and above: a question; its next bytes are a position, types and tags. */
#include "fuzz_log.h"

#define EVENT_MAX 400
#define TYPES     5
#define TAGS      6

struct told {
    unsigned stream, type, tags;
};

static struct told told[EVENT_MAX];
static size_t told_count; /* told[i] has position i + 2: the first is the log's own */

static const char *const streams[] = {"a", "b", "c", "d"};
static const char *const types[] = {"T0", "T1", "T2", "T3", "T4"};
static const char *const tags[] = {"t0", "t1", "t2", "t3", "t4", "t5"};

struct input {
    const uint8_t *at, *end;
};

static unsigned next_byte(struct input *in)
{
    return in->at < in->end ? *in->at++ : 0;
}

static size_t names_of(unsigned mask, const char *const *names, size_t count, deed_str *out)
{
    size_t n = 0;
    for (size_t i = 0; i < count; i++) {
        if ((mask >> i & 1) != 0) out[n++] = deed_str_of(names[i]);
    }
    return n;
}

/* ---- the model ------------------------------------------------------------------------------ */

struct item {
    unsigned types, tags; /* masks; no type: every type */
};

static bool item_matches(const struct item *item, const struct told *e)
{
    bool type = item->types == 0 || (item->types >> e->type & 1) != 0;
    return type && (e->tags & item->tags) == item->tags;
}

static bool any_matches(const struct item *items, size_t count, const struct told *e)
{
    for (size_t i = 0; i < count; i++) {
        if (item_matches(&items[i], e)) return true;
    }
    return false;
}

/* ---- the store ------------------------------------------------------------------------------ */

static void add_event(struct store *store, unsigned byte, struct input *in)
{
    if (told_count == EVENT_MAX) return;
    struct told e = {byte & 3, (byte >> 2) % TYPES, next_byte(in) & ((1u << TAGS) - 1)};
    deed_str names[TAGS];
    struct deed_new_event event = {.stream = deed_str_of(streams[e.stream]),
                                   .type = deed_str_of(types[e.type]),
                                   .data = deed_bytes_of(DEED_STR("1")),
                                   .tags = names,
                                   .tag_count = names_of(e.tags, tags, TAGS, names)};
    struct deed_append append = {.events = &event, .event_count = 1};
    struct deed_appended appended;
    must(store_append(store, &append, &appended, NULL) == DEED_OK, "an event");
    told[told_count++] = e;
    must(appended.position == told_count + 1, "its position");
}

/* Together with the condition an event is sent: it is stored if the condition holds. */
static void ask_condition(struct store *store, const struct item *items, size_t count, uint64_t after)
{
    deed_str type_names[4][TYPES], tag_names[4][TAGS];
    struct deed_query_item query[4];
    for (size_t i = 0; i < count; i++) {
        query[i] = (struct deed_query_item){
            .types = type_names[i],
            .type_count = names_of(items[i].types, types, TYPES, type_names[i]),
            .tags = tag_names[i],
            .tag_count = names_of(items[i].tags, tags, TAGS, tag_names[i])};
        if (query[i].type_count == 0 && query[i].tag_count == 0) return; /* matches all: refused */
    }
    bool conflict = false;
    for (size_t i = 0; i < told_count; i++) {
        if (i + 2 > after && any_matches(items, count, &told[i])) conflict = true;
    }
    if (told_count == EVENT_MAX && !conflict) return;
    struct deed_new_event event = {.stream = DEED_STR("a"),
                                   .type = DEED_STR("T0"),
                                   .data = deed_bytes_of(DEED_STR("2"))};
    struct deed_condition condition = {.kind = DEED_CONDITION_NO_MATCH,
                                       .items = query,
                                       .item_count = count,
                                       .after = after};
    struct deed_append append = {
        .events = &event, .event_count = 1, .conditions = &condition, .condition_count = 1};
    struct deed_appended appended;
    struct deed_error err = {.position = DEED_NONE};
    deed_status status = store_append(store, &append, &appended, &err);
    must(status == (conflict ? DEED_CONFLICT : DEED_OK), "the condition holds as a full scan says");
    if (!conflict) {
        told[told_count++] = (struct told){0};
        return;
    }
    bool named = err.position != DEED_NONE && err.position > after && err.position >= 2 &&
                 err.position < told_count + 2;
    must(named && any_matches(items, count, &told[err.position - 2]), "the conflict names a match");
}

static void ask_read(struct store *store, const struct item *item, unsigned stream_mask,
                     uint64_t after, bool backwards)
{
    deed_str type_names[TYPES], tag_names[TAGS], stream_names[4];
    struct deed_read_options options = {
        .after_position = after,
        .backwards = backwards,
        .filter = {.types = type_names,
                   .type_count = names_of(item->types, types, TYPES, type_names),
                   .tags = tag_names,
                   .tag_count = names_of(item->tags, tags, TAGS, tag_names),
                   .streams = stream_names,
                   .stream_count = names_of(stream_mask, streams, 4, stream_names)}};
    struct deed_cursor *cursor = NULL;
    must(store_read(store, &options, &cursor, NULL) == DEED_OK, "a read");
    size_t seen = 0, wanted = 0;
    uint64_t last = backwards ? DEED_NONE : after;
    for (;;) {
        struct deed_event e;
        deed_status status = cursor_next(cursor, &e, NULL);
        if (status == DEED_END) break;
        must(status == DEED_OK, "an event of a read");
        must(backwards ? e.position < last : e.position > last, "in order");
        last = e.position;
        const struct told *t = &told[e.position - 2];
        must(item_matches(item, t), "only what matches");
        must(stream_mask == 0 || (stream_mask >> t->stream & 1) != 0, "only of these streams");
        seen++;
    }
    cursor_close(cursor);
    for (size_t i = 0; i < told_count; i++) {
        bool there = backwards ? i + 2 < after : i + 2 > after;
        bool of_stream = stream_mask == 0 || (stream_mask >> told[i].stream & 1) != 0;
        if (there && of_stream && item_matches(item, &told[i])) wanted++;
    }
    must(seen == wanted, "all that matches");
}

static void ask(struct store *store, unsigned byte, struct input *in)
{
    struct item items[4];
    size_t count = 1 + (byte >> 1 & 3);
    uint64_t after = told_count == 0 ? 0 : next_byte(in) * 2 % (told_count + 2);
    for (size_t i = 0; i < count; i++) {
        unsigned mask = next_byte(in);
        items[i] = (struct item){mask & ((1u << TYPES) - 1), next_byte(in) & ((1u << TAGS) - 1)};
    }
    if ((byte & 1) != 0) {
        ask_condition(store, items, count, after);
    } else {
        ask_read(store, &items[0], byte >> 3 & 15, after, false);
        ask_read(store, &items[0], byte >> 3 & 15, told_count + 2 - after, true);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct os_sim *sim = os_sim_create(1, NULL);
    struct store_options options = {.no_threads = true, .segment_size = 64 << 10};
    struct store *store = NULL;
    struct input in = {data, data + size};
    told_count = 0;
    must(sim != NULL, "a machine");
    must(store_open(os_sim_os(sim), FUZZ_ROOT, &options, &store, NULL) == DEED_OK, "a store");
    while (in.at < in.end) {
        unsigned byte = next_byte(&in);
        if (byte < 0x80) {
            add_event(store, byte, &in);
        } else {
            ask(store, byte, &in);
        }
        if (byte == 0x7f) (void)store_step(store); /* seals, and writes runs */
    }
    store_close(store);
    os_sim_destroy(sim);
    return 0;
}
