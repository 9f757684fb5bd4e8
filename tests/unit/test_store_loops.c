/* test_store_loops.c - belongs to store.c and to what it stands on: short scenarios, in each of
 * which the k-th operation of the disk, or the k-th allocation, fails, for every k, once and for
 * good; or the power goes before it.
 *
 * After each: whoever was told of a failure was told a true one; what still lives goes on rightly;
 * the store opens on a healthy machine with all that was acknowledged, nothing that was refused, and
 * commits that are whole or not there.
 *
 * Allocations are those of the engine: the program is linked so that its calls of malloc, calloc and
 * realloc come here first. The simulated machine's own are let through; this machine's fail too, in
 * the scenarios that can run on it. */
#include "store_fixture.h"

#include "store/store_state.h"

#include "store/backup.h"

#include <dirent.h>
#include <errno.h>
#include <stdatomic.h>

/* ---- memory that fails ---------------------------------------------------------------------- */

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *old, size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *old, size_t size);

/* Atomic, since a store on this machine may have threads. */
static _Atomic bool memory_armed; /* false in the simulated machine, and between scenarios */
static _Atomic uint64_t memory_count;
static uint64_t memory_fail_at;
static bool memory_for_good;

static bool memory_fails(void)
{
    if (!memory_armed) return false;
    uint64_t count = atomic_fetch_add(&memory_count, 1) + 1;
    return memory_for_good ? count >= memory_fail_at : count == memory_fail_at;
}

void *__wrap_malloc(size_t size)
{
    return memory_fails() ? NULL : __real_malloc(size);
}

void *__wrap_calloc(size_t count, size_t size)
{
    return memory_fails() ? NULL : __real_calloc(count, size);
}

void *__wrap_realloc(void *old, size_t size)
{
    return memory_fails() ? NULL : __real_realloc(old, size);
}

/* The simulated machine ends the process without memory, so each way into it passes here. It also
 * insists on its own table of functions while it works. */
static const struct os_ops *machine_ops;
static struct os_ops guarded_ops;

struct guard {
    bool armed;
};

static struct guard machine_enter(void)
{
    struct guard g = {memory_armed};
    memory_armed = false;
    os->ops = machine_ops;
    return g;
}

static void machine_leave(struct guard g)
{
    os->ops = &guarded_ops;
    memory_armed = g.armed;
}

#define GUARDED(name, params, ...)                                                                 \
    static deed_status guarded_##name params                                                       \
    {                                                                                              \
        struct guard g = machine_enter();                                                          \
        deed_status status = machine_ops->name(__VA_ARGS__);                                       \
        machine_leave(g);                                                                          \
        return status;                                                                             \
    }

GUARDED(dir_open,
        (struct os * o, struct os_dir *parent, const char *path, bool create, struct os_dir **out,
         struct deed_error *why),
        o, parent, path, create, out, why)
GUARDED(dir_sync, (struct os_dir * dir, struct deed_error *why), dir, why)
GUARDED(dir_lock, (struct os_dir * dir, struct deed_error *why), dir, why)
GUARDED(remove, (struct os_dir * dir, const char *name, struct deed_error *why), dir, name, why)
GUARDED(rename, (struct os_dir * dir, const char *from, const char *to, struct deed_error *why),
        dir, from, to, why)
GUARDED(file_open,
        (struct os_dir * dir, const char *name, unsigned flags, struct os_file **out,
         struct deed_error *why),
        dir, name, flags, out, why)
GUARDED(file_read,
        (struct os_file * file, uint64_t offset, void *out, size_t size, size_t *out_read,
         struct deed_error *why),
        file, offset, out, size, out_read, why)
GUARDED(file_write,
        (struct os_file * file, uint64_t offset, deed_bytes bytes, struct deed_error *why), file,
        offset, bytes, why)
GUARDED(file_sync, (struct os_file * file, struct deed_error *why), file, why)
GUARDED(file_size, (struct os_file * file, uint64_t *out, struct deed_error *why), file, out, why)
GUARDED(file_truncate, (struct os_file * file, uint64_t size, struct deed_error *why), file, size,
        why)

static void guarded_dir_close(struct os_dir *dir)
{
    struct guard g = machine_enter();
    machine_ops->dir_close(dir);
    machine_leave(g);
}

static void guarded_file_close(struct os_file *file)
{
    struct guard g = machine_enter();
    machine_ops->file_close(file);
    machine_leave(g);
}

static int64_t guarded_now_ns(struct os *o)
{
    struct guard g = machine_enter();
    int64_t now = machine_ops->now_ns(o);
    machine_leave(g);
    return now;
}

static uint64_t guarded_ticks_ns(struct os *o)
{
    struct guard g = machine_enter();
    uint64_t ticks = machine_ops->ticks_ns(o);
    machine_leave(g);
    return ticks;
}

static void guarded_random(struct os *o, void *out, size_t size)
{
    struct guard g = machine_enter();
    machine_ops->random(o, out, size);
    machine_leave(g);
}

/* What is called for each name is the engine's again. */
struct listing {
    void (*each)(void *, const char *);
    void *context;
    struct guard guard;
};

static void guarded_each(void *context, const char *name)
{
    const struct listing *l = context;
    machine_leave(l->guard);
    l->each(l->context, name);
    (void)machine_enter();
}

static deed_status guarded_dir_list(struct os_dir *dir, void (*each)(void *, const char *),
                                    void *context, struct deed_error *why)
{
    struct listing l = {each, context, machine_enter()};
    deed_status status = machine_ops->dir_list(dir, guarded_each, &l, why);
    machine_leave(l.guard);
    return status;
}

static void guard_machine(void)
{
    machine_ops = os->ops;
    guarded_ops = (struct os_ops){.dir_open = guarded_dir_open,
                                  .dir_close = guarded_dir_close,
                                  .dir_sync = guarded_dir_sync,
                                  .dir_list = guarded_dir_list,
                                  .dir_lock = guarded_dir_lock,
                                  .remove = guarded_remove,
                                  .rename = guarded_rename,
                                  .file_open = guarded_file_open,
                                  .file_close = guarded_file_close,
                                  .file_read = guarded_file_read,
                                  .file_write = guarded_file_write,
                                  .file_sync = guarded_file_sync,
                                  .file_size = guarded_file_size,
                                  .file_truncate = guarded_file_truncate,
                                  .now_ns = guarded_now_ns,
                                  .ticks_ns = guarded_ticks_ns,
                                  .random = guarded_random};
    os->ops = &guarded_ops;
}

static void pass_a_second(void)
{
    const struct os_ops *ops = os->ops;
    if (memory_armed) os->ops = machine_ops;
    os_sim_advance(sim, SECOND);
    os->ops = ops;
}

/* ---- faults --------------------------------------------------------------------------------- */

enum fault { FAULT_NONE, FAULT_MEMORY, FAULT_ERROR, FAULT_FULL, FAULT_POWER, FAULT_COUNT };

static const char *const fault_names[FAULT_COUNT] = {"nothing", "allocation", "operation", "write",
                                                     "power before operation"};

static enum fault fault; /* of the scenario under way */
static char when[160];   /* it in words */

static uint64_t fault_ops(void)
{
    if (fault == FAULT_MEMORY) return memory_count;
    return os_sim_count(sim, fault == FAULT_FULL ? OS_SIM_WRITE : OS_SIM_ANY);
}

static void arm(uint64_t k, bool for_good)
{
    memory_count = 0;
    memory_fail_at = fault == FAULT_MEMORY ? k : UINT64_MAX;
    memory_for_good = for_good;
    uint64_t more = for_good ? DEED_NONE : 0;
    if (fault == FAULT_ERROR) os_sim_fail(sim, OS_SIM_ANY, k, more, EIO);
    if (fault == FAULT_FULL) os_sim_fail(sim, OS_SIM_WRITE, k, more, ENOSPC);
    if (fault == FAULT_POWER) os_sim_power_off_after(sim, k - 1);
    if (fault == FAULT_MEMORY && sim != NULL) guard_machine();
    memory_armed = fault == FAULT_MEMORY;
}

static void disarm(void)
{
    memory_armed = false;
    if (sim == NULL) return;
    if (fault == FAULT_MEMORY) os->ops = machine_ops;
    if (fault != FAULT_POWER) os_sim_heal(sim);
}

/* A failure must be what was made to fail. */
static bool failed_rightly(deed_status status)
{
    switch (fault) {
    case FAULT_MEMORY:
        return status == DEED_NO_MEMORY;
    case FAULT_ERROR:
    case FAULT_POWER:
        return status == DEED_IO || status == DEED_CORRUPT;
    /* Overwriting zeros needs no room here; where it does, opening is in doubt. */
    case FAULT_FULL:
        return status == DEED_FULL || status == DEED_IO;
    default:
        return false;
    }
}

/* Every call of a scenario answers through this; true: it succeeded. */
static bool went_well(deed_status status, const char *what)
{
    if (status == DEED_OK) return true;
    bool stopped = false;
    if (store != NULL) {
        struct deed_info info;
        bool armed = memory_armed;
        memory_armed = false;
        store_info(store, &info);
        memory_armed = armed;
        stopped = !info.writable;
    }
    bool by_stop = stopped && (status == DEED_STOPPED || status == DEED_UNKNOWN);
    if (!by_stop && !failed_rightly(status)) {
        fail_msg("%s: %s: %s: %s", when, what, deed_status_name(status), err.message);
    }
    if (err.message[0] == '\0') fail_msg("%s: %s: no message", when, what);
    return false;
}

/* ---- the model ------------------------------------------------------------------------------ */

enum fate { ACKED, REFUSED, UNKNOWN };

struct fact {
    enum fate fate;
    unsigned batch;
    char label[48];
};

#define FACTS_MAX 512
static struct fact facts[FACTS_MAX];
static size_t fact_count;
static unsigned batch_count;
static bool opened_since; /* the scenario began: what was in doubt before is decided */

/* What an event is recognised by. A system event's data is the store's. */
static void label_make(char out[48], deed_str stream, deed_str type, deed_bytes data)
{
    bool own = type.len > 0 && type.ptr[0] != '$';
    (void)snprintf(out, 48, "%.*s %.*s %.*s", DEED_FMT(stream), DEED_FMT(type),
                   own ? (int)data.len : 0, own ? (const char *)data.ptr : "");
}

static void fact_add(deed_str stream, deed_str type, deed_bytes data, deed_status status)
{
    if (fact_count == FACTS_MAX) fail_msg("too many facts");
    struct fact *f = &facts[fact_count++];
    f->batch = batch_count;
    f->fate = status == DEED_OK ? ACKED : status == DEED_UNKNOWN ? UNKNOWN : REFUSED;
    label_make(f->label, stream, type, data);
}

static uint64_t acked_in(const char *stream)
{
    uint64_t count = 0;
    size_t len = strlen(stream);
    for (size_t i = 0; i < fact_count; i++) {
        count += facts[i].fate == ACKED && strncmp(facts[i].label, stream, len) == 0 &&
                 facts[i].label[len] == ' ';
    }
    return count;
}

static bool is_fact(const struct fact *f, const char *label, bool opened)
{
    bool possible = f->fate == ACKED || (f->fate == UNKNOWN && opened);
    return possible && strcmp(f->label, label) == 0;
}

/* Compare with all that a cursor over the log gives. `opened`: after an opening, which decides what
 * was in doubt; otherwise nobody may see that. */
static deed_status compare_log(struct deed_cursor *cursor, bool opened)
{
    struct deed_event e;
    size_t n = 0;
    deed_status status;
    while ((status = cursor_next(cursor, &e, &err)) == DEED_OK) {
        char label[48];
        if (e.position == 1) continue;
        label_make(label, e.stream, e.type, e.data);
        for (; n < fact_count && !is_fact(&facts[n], label, opened); n++) {
            if (facts[n].fate == ACKED) {
                fail_msg("%s: \"%s\" is lost, \"%s\" follows", when, facts[n].label, label);
            }
            if (opened) facts[n].fate = REFUSED;
        }
        if (n == fact_count) fail_msg("%s: \"%s\" should not be there", when, label);
        facts[n++].fate = ACKED;
    }
    if (status != DEED_END) return status;
    for (; n < fact_count; n++) {
        if (facts[n].fate == ACKED) fail_msg("%s: \"%s\" is lost", when, facts[n].label);
        if (opened) facts[n].fate = REFUSED;
    }
    for (size_t i = 1; opened && i < fact_count; i++) {
        if (facts[i].batch == facts[i - 1].batch && facts[i].fate != facts[i - 1].fate) {
            fail_msg("%s: \"%s\" is there without the rest of its commit", when, facts[i].label);
        }
    }
    return DEED_OK;
}

static deed_status read_log(bool opened)
{
    struct deed_read_options how = {.filter.system = true};
    struct deed_cursor *cursor = NULL;
    deed_status status = store_read(store, &how, &cursor, &err);
    if (status == DEED_OK) status = compare_log(cursor, opened);
    cursor_close(cursor);
    return status;
}

/* ---- verbs of scenarios --------------------------------------------------------------------- */

static bool put(struct deed_append a, deed_status also)
{
    batch_count++;
    err = (struct deed_error){0};
    deed_status status = store_append(store, &a, &appended, &err);
    for (size_t i = 0; i < a.event_count && !(status == DEED_OK && appended.repeated); i++) {
        const struct deed_new_event *e = &a.events[i];
        fact_add(e->stream, e->type, e->data, status);
    }
    if (status == also) return true;
    return went_well(status, "append");
}

static bool put_event(struct deed_new_event e)
{
    return put((struct deed_append){.events = &e, .event_count = 1}, DEED_OK);
}

static bool put_word(const char *stream, const char *word)
{
    return put_event(said(stream, word));
}

static struct deed_new_event padded(const char *stream, const char *word, int pad)
{
    static char metadata[64 << 10];
    struct deed_new_event e = said(stream, word);
    int size = snprintf(metadata, sizeof metadata, "{\"pad\":\"%0*d\"}", pad, 0);
    e.metadata = (deed_bytes){(const uint8_t *)metadata, (size_t)size};
    return e;
}

static bool delete_stream(const char *stream, bool tombstone)
{
    batch_count++;
    err = (struct deed_error){0};
    deed_status status = store_delete_stream(store, deed_str_of(stream), DEED_EXPECT_ANY, 0,
                                             tombstone, (deed_str){0}, &appended, &err);
    char name[32];
    (void)snprintf(name, sizeof name, "%s%s", tombstone ? "" : "$$", stream);
    fact_add(deed_str_of(name), tombstone ? DEED_STR("$streamDeleted") : DEED_STR("$metadata"),
             (deed_bytes){0}, status);
    return went_well(status, "delete");
}

static bool put_metadata(const char *json)
{
    return put_event((struct deed_new_event){.stream = DEED_STR("$$a"),
                                             .type = DEED_STR("$metadata"),
                                             .data = deed_bytes_of(deed_str_of(json))});
}

static bool open_now(void)
{
    err = (struct deed_error){0};
    store = NULL;
    opened_since = true;
    return went_well(try_open(), "open");
}

/* How many events a read gives, which must be `wanted` unless it fails. */
static void count_events(const char *what, struct deed_read_options how, uint64_t wanted)
{
    struct deed_cursor *cursor = NULL;
    struct deed_event e;
    uint64_t count = 0;
    err = (struct deed_error){0};
    deed_status status = store_read(store, &how, &cursor, &err);
    while (status == DEED_OK) {
        status = cursor_next(cursor, &e, &err);
        count += status == DEED_OK;
    }
    cursor_close(cursor);
    bool none = status == DEED_NOT_FOUND && wanted == 0;
    if (status != DEED_END && !none) {
        (void)went_well(status, what);
    } else if (count != wanted) {
        fail_msg("%s: %s: %llu events, not %llu", when, what, (unsigned long long)count,
                 (unsigned long long)wanted);
    }
}

/* ---- scenarios ------------------------------------------------------------------------------ */

static const deed_str red = {"red", 3};
static const deed_str blue = {"blue", 4};

static struct deed_new_event tagged(const char *stream, const char *word, const deed_str *tag)
{
    struct deed_new_event e = said(stream, word);
    e.tags = tag;
    e.tag_count = 1;
    return e;
}

static void with_nothing(void)
{
}

static void with_some(void)
{
    (void)open_now();
    (void)put_word("a", "a0");
    (void)put_word("a", "a1");
    (void)put_event(tagged("b-1", "b0", &red));
    (void)put_event(tagged("b-2", "b1", &blue));
}

static void with_segments(void)
{
    with_some();
    (void)put_event(padded("a", "a2", 30000));
    (void)put_event(padded("b-1", "b2", 30000));
    (void)put_event(padded("a", "a3", 30000));
}

static void closed(void)
{
    with_segments();
    close_store();
}

static void in_doubt(void)
{
    with_some();
    enum fault later = fault;
    fault = FAULT_ERROR;
    os_sim_fail(sim, OS_SIM_SYNC, 1, 0, EIO);
    (void)put_event(padded("a", "doubt", 9000));
    fault = later;
    crash();
    os_sim_heal(sim);
}

static void damaged(void)
{
    with_some();
    close_store();
    expect_ok(os_sim_rot(sim, SEGMENT(1), 3 * 4096 + 130, OS_SIM_ROT_FLIP));
    os_sim_drop_cache(sim);
    facts[1].fate = UNKNOWN; /* "a1" is at position 3, in the fourth sector */
}

static void with_metadata(void)
{
    with_some();
    (void)put_metadata("{\"$maxCount\":5,\"own\":[1,{\"x\":null}]}");
}

static void with_many(void)
{
    static struct deed_new_event events[230];
    static char names[230][16];
    with_some();
    for (size_t i = 0; i < 230; i++) {
        (void)snprintf(names[i], sizeof names[i], "many%zu", i);
        events[i] = said(names[i], "m");
    }
    (void)put((struct deed_append){.events = events, .event_count = 230}, DEED_OK);
}

static void open_once(void)
{
    (void)open_now();
}

static void append_one(void)
{
    (void)put_event(tagged("a", "new", &red));
}

static void append_batch(void)
{
    struct deed_new_event events[12];
    for (size_t i = 0; i < 12; i++) {
        static const char *const streams[] = {"a", "c-1", "b-1", "c-2"};
        char word[8];
        (void)snprintf(word, sizeof word, "w%zu", i);
        events[i] = tagged(streams[i % 4], word, i % 2 == 0 ? &red : &blue);
        events[i].correlation_id = DEED_STR("batch");
    }
    (void)put((struct deed_append){.events = events, .event_count = 12}, DEED_OK);
}

static void append_more_terms(void)
{
    static struct deed_new_event events[60];
    static char names[60][16];
    for (size_t i = 0; i < 60; i++) {
        (void)snprintf(names[i], sizeof names[i], "more%zu-x", i);
        events[i] = tagged(names[i], "n", &red);
    }
    (void)put((struct deed_append){.events = events, .event_count = 60}, DEED_OK);
    (void)put_word("a", "after");
}

static void append_large(void)
{
    (void)put_event(padded("a", "large", 50000));
}

static void append_deep_json(void)
{
    static char text[8192];
    size_t len = 0;
    for (int i = 0; i < 25; i++)
        len += (size_t)snprintf(text + len, 16, "[{\"k\":");
    text[len++] = '{';
    for (int i = 0; i < 120; i++) {
        len += (size_t)snprintf(text + len, 32, "%s\"key%d\":%d", i == 0 ? "" : ",", i, i);
    }
    text[len++] = '}';
    for (int i = 0; i < 25; i++)
        len += (size_t)snprintf(text + len, 16, "}]");
    struct deed_new_event e = said("a", "x");
    e.data = (deed_bytes){(const uint8_t *)text, len};
    (void)put((struct deed_append){.events = &e, .event_count = 1}, DEED_OK);
}

static void append_on_conditions(void)
{
    struct deed_query_item item = {.tags = &red, .tag_count = 1};
    struct deed_condition c[] = {at_revision("a", 1),
                                 stream_is("new", DEED_EXPECT_NONE, 0),
                                 {.kind = DEED_CONDITION_NO_MATCH,
                                  .items = &item,
                                  .item_count = 1,
                                  .after = store_position(store)}};
    struct deed_new_event e = said("a", "on condition");
    (void)put(
        (struct deed_append){.events = &e, .event_count = 1, .conditions = c, .condition_count = 3},
        DEED_OK);
    struct deed_new_event never = said("a", "never");
    c[2].after = 0; /* there is a red one */
    (void)put((struct deed_append){.events = &never,
                                   .event_count = 1,
                                   .conditions = c + 2,
                                   .condition_count = 1},
              DEED_CONFLICT);
}

static deed_status group_got[4];

static void group_answer(void *context, const struct deed_appended *answer,
                         const struct deed_error *why)
{
    *(deed_status *)context = answer != NULL ? DEED_OK : why->status;
    if (why != NULL) err = *why;
}

static void append_group(void)
{
    struct deed_new_event e[] = {said("a", "g0"), said("g", "g1"), said("g", "g2"),
                                 said("a", "g3")};
    struct deed_condition old = at_revision("a", 0); /* a is past that */
    struct deed_append a[4];
    for (size_t i = 0; i < 4; i++) {
        a[i] = (struct deed_append){.events = &e[i], .event_count = 1};
        group_got[i] = DEED_STATUS_COUNT;
    }
    a[3].conditions = &old;
    a[3].condition_count = 1;
    for (size_t i = 0; i < 4; i++) {
        err = (struct deed_error){0};
        deed_status status = store_submit(store, &a[i], group_answer, &group_got[i], &err);
        if (!went_well(status, "submit")) group_got[i] = status;
    }
    (void)store_step(store);
    for (size_t i = 0; i < 4; i++) {
        batch_count++;
        if (group_got[i] == DEED_STATUS_COUNT) fail_msg("%s: append %zu: no answer", when, i);
        fact_add(e[i].stream, e[i].type, e[i].data, group_got[i]);
        if (i < 3 || group_got[i] != DEED_CONFLICT) (void)went_well(group_got[i], "group");
    }
    if (group_got[3] == DEED_OK) fail_msg("%s: a condition was overlooked", when);
}

static void append_again(void)
{
    uint64_t revisions[1];
    uint8_t hash[32];
    uint64_t first, last;
    struct deed_new_event by_id = said("a", "by id"), by_key = said("a", "by key");
    by_id.id = id_of(7);
    by_id.tags = &red;
    by_id.tag_count = 1;
    struct deed_append a = {.events = &by_id, .event_count = 1, .out_revisions = revisions};
    struct deed_append b = {
        .events = &by_key, .event_count = 1, .idempotency_key = DEED_STR("key")};
    bool stored = put(a, DEED_OK);
    if (put(a, DEED_OK) && appended.repeated != stored) {
        fail_msg("%s: the same id %s", when, stored ? "was stored twice" : "is said to repeat");
    }
    stored = put(b, DEED_OK);
    if (put(b, DEED_OK) && appended.repeated != stored) {
        fail_msg("%s: the same key %s", when, stored ? "was stored twice" : "is said to repeat");
    }
    err = (struct deed_error){0};
    deed_status status = store_find_key(store, DEED_STR("key"), hash, &first, &last, &err);
    if (status != DEED_NOT_FOUND) (void)went_well(status, "find key");
}

static void append_over_segments(void)
{
    (void)put_event(padded("a", "r0", 25000));
    (void)put_event(padded("b-1", "r1", 25000));
    (void)put_event(padded("a", "r2", 25000));
    (void)put_word("a", "r3");
}

static void delete_softly(void)
{
    if (!delete_stream("a", false)) return;
    count_events("the deleted stream", (struct deed_read_options){.stream = DEED_STR("a")}, 0);
    if (!put_word("a", "reborn")) return;
    count_events("the stream reborn", (struct deed_read_options){.stream = DEED_STR("a")}, 1);
}

static void delete_for_good(void)
{
    if (!delete_stream("a", true)) return;
    struct deed_new_event e = said("a", "never");
    (void)put((struct deed_append){.events = &e, .event_count = 1}, DEED_DELETED);
}

static void set_metadata(void)
{
    struct deed_stream_info info;
    if (!put_metadata("{\"$maxCount\":1}")) return;
    count_events("the last event", (struct deed_read_options){.stream = DEED_STR("a")}, 1);
    err = (struct deed_error){0};
    if (went_well(store_stream(store, DEED_STR("a"), &info, &err), "stream")) {
        if (info.max_count != 1) fail_msg("%s: $maxCount is forgotten", when);
    }
}

static void write_marks(void)
{
    for (unsigned i = 0; i < 2; i++) {
        (void)put_word("a", i == 0 ? "m0" : "m1");
        pass_a_second();
        (void)store_step(store);
    }
}

/* Sealing and the index's runs, as far as they go. */
static void seal_some(void)
{
    for (unsigned i = 0; i < 40; i++) (void)store_step(store);
    (void)went_well(read_log(opened_since), "read what is sealed");
}

static void with_sealed(void)
{
    with_segments();
    seal_some();
}

static void sealed_and_closed(void)
{
    with_sealed();
    close_store();
}

static void rewrite_one(void)
{
    struct log_rewrite how = {.compress_level = 1};
    err = (struct deed_error){0};
    (void)went_well(log_rewrite(store->log, 1, &how, &err), "rewrite");
    (void)went_well(read_log(opened_since), "read what was rewritten");
}

static void close_and_open(void)
{
    (void)put_word("a", "last");
    close_store();
    (void)open_now();
}

static void open_to_read(void)
{
    options.read_only = true;
    if (open_now()) (void)went_well(read_log(true), "read");
    close_store();
    options.read_only = false;
}

static void repair(void)
{
    options.accept_losses = true;
    (void)open_now();
}

static void verify_all(void)
{
    struct store_verify_report report;
    err = (struct deed_error){0};
    (void)went_well(store_verify(store, NULL, NULL, NULL, &report, &err), "verify");
}

static void read_all_ways(void)
{
    deed_str type = DEED_STR("Said"), category = DEED_STR("b"), stream = DEED_STR("a");
    count_events("all", (struct deed_read_options){.filter = {0}}, 7);
    count_events("a type", (struct deed_read_options){.filter = {.types = &type, .type_count = 1}},
                 7);
    count_events("a tag", (struct deed_read_options){.filter = {.tags = &red, .tag_count = 1}}, 1);
    count_events(
        "a category",
        (struct deed_read_options){.filter = {.categories = &category, .category_count = 1}}, 3);
    count_events("a filtered stream, backwards",
                 (struct deed_read_options){.backwards = true,
                                            .after_position = DEED_NONE,
                                            .filter = {.streams = &stream, .stream_count = 1}},
                 4);
    count_events("a stream", (struct deed_read_options){.stream = stream}, 4);
    count_events(
        "a stream backwards",
        (struct deed_read_options){.stream = stream, .backwards = true, .from_revision = DEED_NONE},
        4);
}

static void follow_appends(void)
{
    struct deed_read_options how = {.follow = true, .filter.system = true};
    struct deed_cursor *cursor = NULL;
    struct deed_event e;
    err = (struct deed_error){0};
    if (!went_well(store_read(store, &how, &cursor, &err), "follow")) return;
    uint64_t next = 1;
    for (unsigned i = 0; i < 3; i++) {
        deed_status status;
        while ((status = cursor_next(cursor, &e, &err)) == DEED_OK) {
            if (e.position != next++)
                fail_msg("%s: a gap before %llu", when, (unsigned long long)e.position);
        }
        if (status != DEED_END) {
            (void)went_well(status, "next");
            if (status == DEED_CORRUPT) next = cursor_position(cursor) + 1;
        }
        if (i < 2) (void)put_word("f-1", i == 0 ? "f0" : "f1");
    }
    bool armed = memory_armed;
    memory_armed = false;
    if (fault == FAULT_MEMORY || fault == FAULT_NONE) { /* then nothing is skipped */
        while (cursor_next(cursor, &e, &err) == DEED_OK) {
            if (e.position != next++)
                fail_msg("%s: a gap before %llu", when, (unsigned long long)e.position);
        }
        if (next != store_position(store) + 1) fail_msg("%s: the follower stays behind", when);
    }
    cursor_close(cursor);
    memory_armed = armed;
}

static void read_raw_commits(void)
{
    struct buf out;
    uint64_t position = 0;
    deed_status status = DEED_OK;
    buf_init(&out, 1 << 20);
    while (status == DEED_OK) {
        err = (struct deed_error){0};
        status = store_read_commits(store, position, 4096, &out, &position, &err);
    }
    if (status != DEED_END) (void)went_well(status, "read commits");
    if (status == DEED_END && position != 8) fail_msg("%s: commits end at %d", when, (int)position);
    buf_done(&out);
}

static void live_with_threads(void)
{
    close_store();
    options.no_threads = false;
    if (open_now()) (void)put_word("a", "threaded");
    close_store();
    options.no_threads = true;
}

static const char *place(const char *name)
{
    static char path[320];
    (void)snprintf(path, sizeof path, "%s/%s", root, name);
    return path;
}

static bool back_up(void)
{
    err = (struct deed_error){0};
    return went_well(store_backup(store, place("backup"), NULL, NULL, &err), "backup");
}

static void back_up_once(void)
{
    struct deed_backup_report report;
    if (!back_up()) return;
    err = (struct deed_error){0};
    deed_status status =
        store_check_backup(os, place("backup"), NULL, NULL, NULL, &report, &err);
    if (went_well(status, "check") && report.position != store_position(store)) {
        fail_msg("%s: the backup is of another position", when);
    }
}

static void with_a_backup(void)
{
    with_segments();
    if (!back_up()) fail_msg("%s: %s", when, err.message);
    (void)put_word("b-1", "after the backup");
}

/* While the store lives: it does not matter to a backup. */
static void restore_once(void)
{
    char from[320];
    struct store *restored = NULL;
    struct store_options how = {.no_threads = true, .must_exist = true, .read_only = true};
    (void)snprintf(from, sizeof from, "%s", place("backup"));
    err = (struct deed_error){0};
    if (!went_well(store_restore(os, from, place("restored"), NULL, NULL, &err), "restore")) return;
    err = (struct deed_error){0};
    if (!went_well(store_open(os, place("restored"), &how, &restored, &err), "open restored")) return;
    if (store_position(restored) + 1 != store_position(store)) fail_msg("%s: not all is there", when);
    store_close(restored);
}

static const struct scenario {
    const char *name;
    void (*prepare)(void), (*act)(void);
    enum { ANYWHERE, SIMULATED, HERE, REPAIRS } kind;
} scenarios[] = {
    {"making a store", with_nothing, open_once, ANYWHERE},
    {"an append", with_some, append_one, ANYWHERE},
    {"a commit of twelve events", with_some, append_batch, ANYWHERE},
    {"a commit with many new terms", with_many, append_more_terms, ANYWHERE},
    {"a large event", with_some, append_large, ANYWHERE},
    {"json of many parts", with_some, append_deep_json, ANYWHERE},
    {"appends on conditions", with_some, append_on_conditions, ANYWHERE},
    {"a group", with_some, append_group, ANYWHERE},
    {"appends sent again", with_some, append_again, ANYWHERE},
    {"appends over segments", with_some, append_over_segments, ANYWHERE},
    {"a soft delete", with_some, delete_softly, ANYWHERE},
    {"a soft delete beside metadata", with_metadata, delete_softly, ANYWHERE},
    {"a tombstone", with_some, delete_for_good, ANYWHERE},
    {"metadata", with_some, set_metadata, ANYWHERE},
    {"commit marks", with_some, write_marks, SIMULATED},
    {"closing and opening", with_segments, close_and_open, ANYWHERE},
    {"opening", closed, open_once, ANYWHERE},
    {"opening to read", closed, open_to_read, ANYWHERE},
    {"opening after a crash in doubt", in_doubt, open_once, SIMULATED},
    {"a repair", damaged, repair, REPAIRS},
    {"verifying", with_segments, verify_all, ANYWHERE},
    {"reading in all ways", with_segments, read_all_ways, ANYWHERE},
    {"following", with_some, follow_appends, ANYWHERE},
    {"raw commits", with_segments, read_raw_commits, ANYWHERE},
    {"a backup", with_segments, back_up_once, ANYWHERE},
    {"the next backup", with_a_backup, back_up_once, ANYWHERE},
    {"a restore", with_a_backup, restore_once, ANYWHERE},
    {"sealing", with_segments, seal_some, ANYWHERE},
    {"rewriting", with_sealed, rewrite_one, ANYWHERE},
    {"opening what is sealed", sealed_and_closed, open_once, ANYWHERE},
    {"living with threads", with_segments, live_with_threads, HERE},
};
#define SCENARIOS (sizeof scenarios / sizeof scenarios[0])

/* ---- the loops ------------------------------------------------------------------------------ */

/* The failure is over, the store still lives: what it says now must be right. */
static void expect_living(void)
{
    struct deed_info info;
    struct deed_condition c = stream_is("a", DEED_EXPECT_NONE, 0);
    store_info(store, &info);
    fault = FAULT_NONE; /* nothing may fail any more */
    if (info.corrupt_first == DEED_NONE) (void)went_well(read_log(opened_since), "read afterwards");
    if (!info.writable) return;
    uint64_t count = acked_in("a");
    bool deleted = acked_in("$$a") > 0 || acked_in("a $streamDeleted") > 0;
    if (deleted || info.corrupt_first != DEED_NONE) return;
    if (count > 0) c = at_revision("a", count - 1);
    struct deed_new_event e = said("a", "afterwards");
    (void)put((struct deed_append){.events = &e,
                                   .event_count = 1,
                                   .conditions = &c,
                                   .condition_count = 1},
              DEED_OK);
    if (appended.revision != count) fail_msg("%s: the revision is wrong afterwards", when);
}

static void expect_healthy(const struct scenario *s)
{
    struct store_verify_report report;
    fault = FAULT_NONE;
    options.accept_losses = s->kind == REPAIRS;
    (void)open_now();
    if (s->kind == REPAIRS) { /* the accepted loss is told once */
        struct deed_read_options how = {.filter.system = true};
        struct deed_cursor *cursor = NULL;
        struct deed_event e;
        deed_status status;
        size_t told = 0;
        size_t read = 0;
        expect_ok(store_read(store, &how, &cursor, &err));
        while ((status = cursor_next(cursor, &e, &err)) != DEED_END) {
            told += status == DEED_CORRUPT;
            read += status == DEED_OK;
            if (status == DEED_CORRUPT && err.position != 3) fail_msg("%s: other damage", when);
        }
        cursor_close(cursor);
        if (told != 1 || read < 4) fail_msg("%s: %zu read, %zu lost", when, read, told);
    } else {
        (void)went_well(read_log(true), "read at last");
    }
    (void)put_word("z", "at last");
    expect_ok(store_verify(store, NULL, NULL, NULL, &report, &err));
    assert_int_equal(report.damage_count, 0);
}

/* Nearly all of this has one thread: ThreadSanitizer only makes it slow. */
#ifdef __SANITIZE_THREAD__
static const bool under_tsan = true;
#else
static const bool under_tsan = false;
#endif

static unsigned open_files(void)
{
    unsigned count = 0;
    DIR *dir = opendir("/proc/self/fd");
    assert_non_null(dir);
    while (readdir(dir) != NULL)
        count++;
    (void)closedir(dir);
    return count;
}

/* Power stays on: a file system in memory has no syncs to wait for. */
static void start_in_memory(void)
{
    bool shm = access("/dev/shm", W_OK) == 0;
    (void)snprintf(root, sizeof root, "%s/deedbook-test-XXXXXX", shm ? "/dev/shm" : "/tmp");
    assert_non_null(mkdtemp(root));
    sim = NULL;
    os = os_real();
    options = (struct store_options){.no_threads = true, .segment_size = 64 << 10};
}

/* One life on this machine, in which only memory fails; false: k is past the last allocation. */
static bool run_here(const struct scenario *s, uint64_t k, bool for_good)
{
    unsigned files = open_files();
    fact_count = 0;
    batch_count = 0;
    start_in_memory();
    fault = FAULT_NONE;
    s->prepare();
    (void)snprintf(when, sizeof when, "%s: allocation %llu fails %s, on this machine", s->name,
                   (unsigned long long)k, for_good ? "for good" : "once");
    fault = FAULT_MEMORY;
    opened_since = false;
    arm(k, for_good);
    s->act();
    bool struck = fault_ops() >= k;
    disarm();
    if (store != NULL) expect_living();
    close_store();
    expect_healthy(s);
    finish();
    assert_int_equal(open_files(), files);
    return struck;
}

/* One life; false: k is past the scenario's last operation. */
static bool run(const struct scenario *s, enum fault kind, uint64_t k, bool for_good, bool kill)
{
    memory_armed = false; /* it may be left from a life that failed */
    fact_count = 0;
    batch_count = 0;
    store = NULL;
    start_machine(k);
    fault = FAULT_NONE;
    (void)snprintf(when, sizeof when, "%s, before anything fails", s->name);
    s->prepare();
    fault = kind;
    (void)snprintf(when, sizeof when, "%s: %s %llu fails %s, then %s", s->name, fault_names[kind],
                   (unsigned long long)k, for_good ? "for good" : "once",
                   kill ? "a kill" : "a crash");
    opened_since = false;
    uint64_t before = kind == FAULT_MEMORY ? 0 : fault_ops();
    arm(k, for_good);
    s->act();
    bool struck = fault_ops() - before >= k;
    disarm();
    if (store != NULL && kind != FAULT_POWER) expect_living();
    if (kill) {
        os_sim_kill(sim);
    } else {
        os_sim_crash(sim);
    }
    close_store();
    os_sim_heal(sim);
    os_sim_power_off_after(sim, DEED_NONE);
    expect_healthy(s);
    finish();
    return struck;
}

static void run_all(enum fault kind, bool for_good)
{
    uint64_t lives = 0;
    const uint64_t step = under_tsan ? 9 : 1;
    for (size_t i = 0; i < SCENARIOS; i++) {
        uint64_t k = 1;
        if (scenarios[i].kind == HERE) continue;
        while (run(&scenarios[i], kind, k, for_good, k % 2 == 0)) {
            k += step;
            lives++;
        }
        /* An append into memory that is there already takes none, and not all write. */
        bool may_be_none = kind == FAULT_FULL || kind == FAULT_MEMORY;
        if (k == 1 && !may_be_none) fail_msg("%s: nothing could fail", scenarios[i].name);
    }
    if (lives * step < SCENARIOS) fail_msg("only %d lives", (int)lives);
    print_message("%zu scenarios, %llu lives\n", SCENARIOS, (unsigned long long)lives);
}

TEST(store_loops, an_allocation_fails_once)
{
    run_all(FAULT_MEMORY, false);
}

TEST(store_loops, allocations_fail_for_good)
{
    run_all(FAULT_MEMORY, true);
}

static void run_all_here(bool for_good)
{
    uint64_t lives = 0;
    for (size_t i = 0; i < SCENARIOS; i++) {
        bool left_out = scenarios[i].kind == SIMULATED || scenarios[i].kind == REPAIRS ||
                        (under_tsan && scenarios[i].kind != HERE);
        for (uint64_t k = 1; !left_out && run_here(&scenarios[i], k, for_good); k += 1 + k / 8) {
            lives++;
        }
    }
    print_message("%llu lives\n", (unsigned long long)lives);
}

TEST(store_loops, an_allocation_fails_once_on_this_machine)
{
    run_all_here(false);
}

TEST(store_loops, allocations_fail_for_good_on_this_machine)
{
    run_all_here(true);
}

TEST(store_loops, an_operation_of_the_disk_fails_once)
{
    run_all(FAULT_ERROR, false);
}

TEST(store_loops, operations_of_the_disk_fail_for_good)
{
    run_all(FAULT_ERROR, true);
}

TEST(store_loops, a_write_finds_the_disk_full_once)
{
    run_all(FAULT_FULL, false);
}

TEST(store_loops, writes_find_the_disk_full_for_good)
{
    run_all(FAULT_FULL, true);
}

TEST(store_loops, the_power_goes)
{
    run_all(FAULT_POWER, false);
}

TEST_MAIN(store_loops)
