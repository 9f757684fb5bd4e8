/* history.c - each answer is compared with the one log.
 *
 *   places  (stream, position) sorted, and (kind, position) sorted: how often, and where next, by
 *           binary search; a kind is a distinct (type, tags)
 *   known   time -> the highest position that somebody was told by then, and who
 *
 * The letters (1) to (6) are the header's. */
#include "support/history.h"

#include <assert.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

/* ---- recording ------------------------------------------------------------------------------ */

static void *grown(void *at, size_t count, size_t *room, size_t size)
{
    if (count < *room) return at;
    *room = *room == 0 ? 64 : *room * 2;
    void *out = realloc(at, *room * size);
    if (out == NULL) abort();
    return out;
}

#define LIST_ADD(list, element)                                                                    \
    do {                                                                                           \
        (list).at = grown((list).at, (list).count, &(list).room, sizeof *(list).at);               \
        (list).at[(list).count++] = (element);                                                     \
    } while (0)

void history_init(struct history *h)
{
    *h = (struct history){0};
}

void history_done(struct history *h)
{
    free(h->requests.at);
    free(h->writes.at);
    free(h->conditions.at);
    free(h->items.at);
    free(h->appends.at);
    free(h->reads.at);
    free(h->seen.at);
    free(h->log.at);
    history_init(h);
}

void history_add_request(struct history *h, uint64_t id)
{
    struct history_request r = {
        .id = id, .writes.from = h->writes.count, .conditions.from = h->conditions.count};
    LIST_ADD(h->requests, r);
}

void history_add_write(struct history *h, struct history_write write)
{
    assert(h->requests.count > 0);
    LIST_ADD(h->writes, write);
    h->requests.at[h->requests.count - 1].writes.count++;
}

void history_add_condition(struct history *h, struct history_condition condition)
{
    assert(h->requests.count > 0);
    condition.items = (struct history_slice){.from = h->items.count};
    LIST_ADD(h->conditions, condition);
    h->requests.at[h->requests.count - 1].conditions.count++;
}

void history_add_item(struct history *h, struct history_item item)
{
    assert(h->conditions.count > 0);
    LIST_ADD(h->items, item);
    h->conditions.at[h->conditions.count - 1].items.count++;
}

void history_add_append(struct history *h, struct history_append append)
{
    if (append.outcome == HISTORY_UNKNOWN) append.completed = UINT64_MAX;
    LIST_ADD(h->appends, append);
}

void history_add_read(struct history *h, struct history_read read)
{
    read.seen = (struct history_slice){.from = h->seen.count};
    LIST_ADD(h->reads, read);
}

void history_add_seen(struct history *h, struct history_seen seen)
{
    assert(h->reads.count > 0);
    LIST_ADD(h->seen, seen);
    h->reads.at[h->reads.count - 1].seen.count++;
}

void history_add_event(struct history *h, struct history_event event)
{
    LIST_ADD(h->log, event);
}

static void add_request_of(struct history *h, const struct history *other,
                           const struct history_request *r)
{
    history_add_request(h, r->id);
    for (size_t i = 0; i < r->writes.count; i++) {
        history_add_write(h, other->writes.at[r->writes.from + i]);
    }
    for (size_t i = 0; i < r->conditions.count; i++) {
        const struct history_condition *c = &other->conditions.at[r->conditions.from + i];
        history_add_condition(h, *c);
        for (size_t k = 0; k < c->items.count; k++) {
            history_add_item(h, other->items.at[c->items.from + k]);
        }
    }
}

void history_add_all(struct history *h, const struct history *other)
{
    for (size_t i = 0; i < other->requests.count; i++) {
        add_request_of(h, other, &other->requests.at[i]);
    }
    for (size_t i = 0; i < other->appends.count; i++)
        LIST_ADD(h->appends, other->appends.at[i]);
    for (size_t i = 0; i < other->reads.count; i++) {
        const struct history_read *r = &other->reads.at[i];
        history_add_read(h, *r);
        for (size_t k = 0; k < r->seen.count; k++) {
            history_add_seen(h, other->seen.at[r->seen.from + k]);
        }
    }
    for (size_t i = 0; i < other->log.count; i++)
        LIST_ADD(h->log, other->log.at[i]);
}

/* ---- words ---------------------------------------------------------------------------------- */

struct line {
    const char *at;
    bool good;
};

/* The next word of the line; "" at its end. */
static void word_next(struct line *line, char out[64])
{
    line->at += strspn(line->at, " ");
    size_t size = strcspn(line->at, " \n");
    size_t kept = size < 63 ? size : 63;
    memcpy(out, line->at, kept);
    out[kept] = '\0';
    if (kept < size) line->good = false;
    line->at += size;
}

static uint64_t number_next(struct line *line)
{
    char word[64];
    char *end;
    word_next(line, word);
    if (strcmp(word, "-") == 0) return DEED_NONE;
    uint64_t n = strtoull(word, &end, 10);
    if (word[0] == '\0' || *end != '\0') line->good = false;
    return n;
}

static uint32_t small_next(struct line *line)
{
    uint64_t n = number_next(line);
    if (n > UINT32_MAX) line->good = false;
    return (uint32_t)n;
}

static uint64_t mask_next(struct line *line)
{
    char word[64];
    char *end;
    word_next(line, word);
    uint64_t mask = strtoull(word, &end, 16);
    if (word[0] == '\0' || *end != '\0') line->good = false;
    return mask;
}

/* false: no more items in the line. */
static bool item_next(struct line *line, struct history_item *out)
{
    char word[64];
    word_next(line, word);
    if (word[0] == '\0') return false;
    if (sscanf(word, "%" SCNx64 ":%" SCNx64, &out->types, &out->tags) != 2) line->good = false;
    return true;
}

static void parse_condition(struct history *h, struct line *line, bool no_match)
{
    struct history_condition c = {.kind =
                                      no_match ? DEED_CONDITION_NO_MATCH : DEED_CONDITION_STREAM};
    if (h->requests.count == 0) {
        line->good = false;
        return;
    }
    if (no_match) {
        struct history_item item;
        c.after = number_next(line);
        history_add_condition(h, c);
        while (item_next(line, &item))
            history_add_item(h, item);
        return;
    }
    char word[64];
    c.stream = small_next(line);
    struct line back = *line;
    word_next(line, word);
    c.expect = strcmp(word, "none") == 0     ? DEED_EXPECT_NONE
               : strcmp(word, "exists") == 0 ? DEED_EXPECT_EXISTS
                                             : DEED_EXPECT_REVISION;
    if (c.expect == DEED_EXPECT_REVISION) {
        *line = back;
        c.revision = number_next(line);
    }
    history_add_condition(h, c);
}

static void parse_append(struct history *h, struct line *line)
{
    char word[64];
    struct history_append a = {.request = number_next(line)};
    a.client = small_next(line);
    a.invoked = number_next(line);
    a.completed = number_next(line);
    word_next(line, word);
    if (strcmp(word, "ok") == 0 || strcmp(word, "again") == 0) {
        a.repeated = word[0] == 'a';
        a.first = number_next(line);
        a.last = number_next(line);
        a.revision = number_next(line);
    } else if (strcmp(word, "refused") == 0) {
        a.outcome = HISTORY_REFUSED;
        a.condition = number_next(line);
        a.position = number_next(line);
    } else if (strcmp(word, "unknown") == 0) {
        a.outcome = HISTORY_UNKNOWN;
    } else {
        line->good = false;
    }
    history_add_append(h, a);
}

static void parse_read(struct history *h, struct line *line)
{
    char word[64];
    struct history_read r = {.client = small_next(line)};
    r.invoked = number_next(line);
    r.completed = number_next(line);
    r.after = number_next(line);
    r.to = number_next(line);
    uint64_t stream = number_next(line);
    r.by_stream = stream != DEED_NONE;
    r.stream = (uint32_t)stream;
    if (!item_next(line, &r.filter)) line->good = false;
    word_next(line, word);
    r.limited = strcmp(word, "limit") == 0;
    if (!r.limited && strcmp(word, "end") != 0) line->good = false;
    history_add_read(h, r);
    for (word_next(line, word); word[0] != '\0'; word_next(line, word)) {
        struct history_seen seen = {0};
        if (sscanf(word, "%" SCNu64 "=%" SCNu64 ".%" SCNu32, &seen.position, &seen.request,
                   &seen.part) != 3) {
            line->good = false;
        }
        history_add_seen(h, seen);
    }
}

static void parse_line(struct history *h, struct line *line)
{
    char verb[64];
    word_next(line, verb);
    if (verb[0] == '\0' || verb[0] == '#') return;
    if (strcmp(verb, "request") == 0) {
        history_add_request(h, number_next(line));
    } else if (strcmp(verb, "write") == 0 && h->requests.count > 0) {
        struct history_write w = {.stream = small_next(line)};
        w.type = small_next(line);
        w.tags = mask_next(line);
        history_add_write(h, w);
    } else if (strcmp(verb, "stream") == 0 || strcmp(verb, "nomatch") == 0) {
        parse_condition(h, line, verb[0] == 'n');
    } else if (strcmp(verb, "append") == 0) {
        parse_append(h, line);
    } else if (strcmp(verb, "read") == 0) {
        parse_read(h, line);
    } else if (strcmp(verb, "log") == 0) {
        struct history_event e = {.position = number_next(line)};
        e.revision = number_next(line);
        e.request = number_next(line);
        e.part = small_next(line);
        e.stream = small_next(line);
        e.type = small_next(line);
        e.tags = mask_next(line);
        history_add_event(h, e);
    } else {
        line->good = false;
    }
}

bool history_parse(struct history *h, const char *text, char *message, size_t size)
{
    for (unsigned number = 1; *text != '\0'; number++) {
        struct line line = {.at = text, .good = true};
        const char *end = strchr(text, '\n');
        parse_line(h, &line);
        if (!line.good) {
            (void)snprintf(message, size, "line %u is malformed: %.*s", number,
                           (int)(end == NULL ? strlen(text) : (size_t)(end - text)), text);
            return false;
        }
        if (end == NULL) break;
        text = end + 1;
    }
    return true;
}

/* ---- the checker's tables ------------------------------------------------------------------- */

struct place {
    uint64_t key, position;
};

struct kind {
    uint64_t type, tags;
};

/* A request and what became of it. */
struct fact {
    uint64_t id;
    const struct history_request *request;
    uint64_t first;   /* position; 0: it is not in the log */
    uint64_t born;    /* when the first attempt that may have stored it was sent */
    uint64_t known;   /* when the first of its acknowledgements was there */
    size_t stored_by; /* the attempt that says it did, not repeated; SIZE_MAX: none */
    bool possible;    /* an attempt was acknowledged or is unknown */
    bool unknown;     /* an attempt is unknown: it may be the one that stored it */
};

/* At `time` somebody was told about `position`. */
struct telling {
    uint64_t time, position;
    bool by_read;
    size_t index; /* of the append or read */
};

struct checker {
    const struct history *h;
    struct fact *facts; /* by id */
    struct place *streams, *kinds;
    struct kind *kind_table;
    size_t kind_count;
    struct telling *told; /* by time, each with the highest position so far */
    size_t told_count;
    char *message;
    size_t message_size;
};

static void *table(size_t count, size_t size)
{
    void *out = calloc(count + 1, size);
    if (out == NULL) abort();
    return out;
}

DEED_PRINTF(2, 3) static bool wrong(struct checker *c, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(c->message, c->message_size, format, arguments);
    va_end(arguments);
    return false;
}

/* "append of request 7 by client 2, sent at 100": one of the last few. */
static const char *name_append(const struct checker *c, size_t index)
{
    static _Thread_local char names[4][96];
    static _Thread_local unsigned next;
    const struct history_append *a = &c->h->appends.at[index];
    char *out = names[next++ % 4];
    (void)snprintf(out, sizeof names[0],
                   "the append of request %" PRIu64 " by client %u, sent at %" PRIu64, a->request,
                   a->client, a->invoked);
    return out;
}

static const char *name_read(const struct checker *c, size_t index)
{
    static _Thread_local char names[4][96];
    static _Thread_local unsigned next;
    const struct history_read *r = &c->h->reads.at[index];
    char *out = names[next++ % 4];
    (void)snprintf(out, sizeof names[0], "the read by client %u, sent at %" PRIu64, r->client,
                   r->invoked);
    return out;
}

static const char *name_telling(const struct checker *c, const struct telling *t)
{
    return t->by_read ? name_read(c, t->index) : name_append(c, t->index);
}

static int compare(uint64_t a, uint64_t b)
{
    return (a > b) - (a < b);
}

static int compare_facts(const void *a, const void *b)
{
    return compare(((const struct fact *)a)->id, ((const struct fact *)b)->id);
}

static int compare_places(const void *a, const void *b)
{
    const struct place *x = a, *y = b;
    int by_key = compare(x->key, y->key);
    return by_key != 0 ? by_key : compare(x->position, y->position);
}

static int compare_kinds(const void *a, const void *b)
{
    const struct kind *x = a, *y = b;
    int by_type = compare(x->type, y->type);
    return by_type != 0 ? by_type : compare(x->tags, y->tags);
}

static int compare_tellings(const void *a, const void *b)
{
    return compare(((const struct telling *)a)->time, ((const struct telling *)b)->time);
}

/* How many places stand before (key, position). */
static size_t places_before(const struct place *places, size_t count, uint64_t key,
                            uint64_t position)
{
    const struct place wanted = {key, position};
    size_t low = 0;
    size_t high = count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (compare_places(&places[middle], &wanted) < 0) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

/* The first position of `key` after `after`; DEED_NONE: none. */
static uint64_t place_after(const struct place *places, size_t count, uint64_t key, uint64_t after)
{
    if (after == DEED_NONE) return DEED_NONE;
    size_t i = places_before(places, count, key, after + 1);
    return i < count && places[i].key == key ? places[i].position : DEED_NONE;
}

static struct fact *fact_of(const struct checker *c, uint64_t id)
{
    const struct fact wanted = {.id = id};
    return bsearch(&wanted, c->facts, c->h->requests.count, sizeof wanted, compare_facts);
}

static bool item_matches(const struct history_item *item, uint64_t type, uint64_t tags)
{
    return (item->types == 0 || (item->types >> type & 1) != 0) &&
           (tags & item->tags) == item->tags;
}

/* The first event after `after` that the item matches. */
static uint64_t match_after(const struct checker *c, const struct history_item *item,
                            uint64_t after)
{
    uint64_t first = DEED_NONE;
    for (size_t k = 0; k < c->kind_count; k++) {
        if (!item_matches(item, c->kind_table[k].type, c->kind_table[k].tags)) continue;
        uint64_t position = place_after(c->kinds, c->h->log.count, k, after);
        if (position < first) first = position;
    }
    return first;
}

/* What somebody knew before `time`; NULL: nothing. */
static const struct telling *known_before(const struct checker *c, uint64_t time)
{
    size_t low = 0;
    size_t high = c->told_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (c->told[middle].time < time) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low == 0 ? NULL : &c->told[low - 1];
}

static const struct history_event *event_at(const struct checker *c, uint64_t position)
{
    const struct history *h = c->h;
    if (h->log.count == 0 || position < h->log.at[0].position) return NULL;
    uint64_t index = position - h->log.at[0].position;
    return index < h->log.count ? &h->log.at[index] : NULL;
}

/* ---- making them ---------------------------------------------------------------------------- */

static bool same_request(const struct history *h, const struct history_request *a,
                         const struct history_request *b)
{
    if (a->writes.count != b->writes.count || a->conditions.count != b->conditions.count) {
        return false;
    }
    for (size_t i = 0; i < a->writes.count; i++) {
        const struct history_write *x = &h->writes.at[a->writes.from + i];
        const struct history_write *y = &h->writes.at[b->writes.from + i];
        if (x->stream != y->stream || x->type != y->type || x->tags != y->tags) return false;
    }
    return true;
}

static bool make_facts(struct checker *c)
{
    const struct history *h = c->h;
    c->facts = table(h->requests.count, sizeof *c->facts);
    for (size_t i = 0; i < h->requests.count; i++) {
        c->facts[i] = (struct fact){.id = h->requests.at[i].id,
                                    .request = &h->requests.at[i],
                                    .born = UINT64_MAX,
                                    .known = UINT64_MAX,
                                    .stored_by = SIZE_MAX};
    }
    qsort(c->facts, h->requests.count, sizeof *c->facts, compare_facts);
    /* Clients that share a request each recorded it. bsearch may find any of them: all are kept
     * equal by finding the one that the others find. */
    for (size_t i = 1; i < h->requests.count; i++) {
        if (c->facts[i].id == c->facts[i - 1].id &&
            !same_request(h, c->facts[i].request, c->facts[i - 1].request)) {
            return wrong(c, "request %" PRIu64 " is recorded twice, differently", c->facts[i].id);
        }
    }
    for (size_t i = 0; i < h->appends.count; i++) {
        const struct history_append *a = &h->appends.at[i];
        struct fact *f = fact_of(c, a->request);
        if (f == NULL) return wrong(c, "%s: there is no such request", name_append(c, i));
        if (a->completed < a->invoked) {
            return wrong(c, "%s: it was answered before", name_append(c, i));
        }
        if (a->outcome == HISTORY_REFUSED) continue;
        f->possible = true;
        f->unknown |= a->outcome == HISTORY_UNKNOWN;
        if (a->invoked < f->born) f->born = a->invoked;
        if (a->outcome == HISTORY_OK && a->completed < f->known) f->known = a->completed;
    }
    return true;
}

static void make_places(struct checker *c)
{
    const struct history *h = c->h;
    size_t count = h->log.count;
    c->streams = table(count, sizeof *c->streams);
    c->kinds = table(count, sizeof *c->kinds);
    c->kind_table = table(count, sizeof *c->kind_table);
    for (size_t i = 0; i < count; i++) {
        const struct history_event *e = &h->log.at[i];
        c->streams[i] = (struct place){e->stream, e->position};
        c->kind_table[i] = (struct kind){e->type, e->tags};
    }
    qsort(c->streams, count, sizeof *c->streams, compare_places);
    qsort(c->kind_table, count, sizeof *c->kind_table, compare_kinds);
    for (size_t i = 0; i < count; i++) {
        if (i > 0 && compare_kinds(&c->kind_table[i], &c->kind_table[i - 1]) == 0) continue;
        c->kind_table[c->kind_count++] = c->kind_table[i];
    }
    for (size_t i = 0; i < count; i++) {
        const struct kind wanted = {h->log.at[i].type, h->log.at[i].tags};
        const struct kind *kind =
            bsearch(&wanted, c->kind_table, c->kind_count, sizeof *c->kind_table, compare_kinds);
        c->kinds[i] = (struct place){(uint64_t)(kind - c->kind_table), h->log.at[i].position};
    }
    qsort(c->kinds, count, sizeof *c->kinds, compare_places);
}

static void tell(struct checker *c, uint64_t time, uint64_t position, bool by_read, size_t index)
{
    c->told[c->told_count++] =
        (struct telling){.time = time, .position = position, .by_read = by_read, .index = index};
}

static void make_tellings(struct checker *c)
{
    const struct history *h = c->h;
    c->told = table(h->appends.count + h->reads.count, sizeof *c->told);
    for (size_t i = 0; i < h->appends.count; i++) {
        const struct history_append *a = &h->appends.at[i];
        if (a->outcome == HISTORY_OK) tell(c, a->completed, a->last, false, i);
        if (a->outcome == HISTORY_REFUSED && a->position != DEED_NONE) {
            tell(c, a->completed, a->position, false, i);
        }
    }
    for (size_t i = 0; i < h->reads.count; i++) {
        const struct history_read *r = &h->reads.at[i];
        uint64_t last = r->to;
        if (r->seen.count > 0) {
            uint64_t seen = h->seen.at[r->seen.from + r->seen.count - 1].position;
            if (seen > last) last = seen;
        }
        if (last > 0) tell(c, r->completed, last, true, i);
    }
    qsort(c->told, c->told_count, sizeof *c->told, compare_tellings);
    for (size_t i = 1; i < c->told_count; i++) {
        if (c->told[i].position > c->told[i - 1].position) continue;
        uint64_t time = c->told[i].time;
        c->told[i] = c->told[i - 1];
        c->told[i].time = time;
    }
}

/* ---- (1) the log ---------------------------------------------------------------------------- */

/* The events of one request, from index i of the log on; gives the index behind them. */
static bool check_run(struct checker *c, size_t i, size_t *out_next)
{
    const struct history *h = c->h;
    const struct history_event *head = &h->log.at[i];
    struct fact *f = fact_of(c, head->request);
    if (f == NULL || head->part != 0) {
        return wrong(c, "position %" PRIu64 " is part %u of request %" PRIu64 ", out of nowhere",
                     head->position, head->part, head->request);
    }
    if (f->first != 0) {
        return wrong(c, "request %" PRIu64 " is stored twice, at %" PRIu64 " and %" PRIu64,
                     head->request, f->first, head->position);
    }
    if (!f->possible) {
        return wrong(c, "request %" PRIu64 " is stored at %" PRIu64 ", but no attempt was accepted",
                     head->request, head->position);
    }
    f->first = head->position;
    for (size_t part = 0; part < f->request->writes.count; part++) {
        const struct history_write *w = &h->writes.at[f->request->writes.from + part];
        const struct history_event *e = i + part < h->log.count ? &h->log.at[i + part] : NULL;
        if (e == NULL || e->request != head->request || e->part != part) {
            return wrong(c, "request %" PRIu64 " at %" PRIu64 ": %zu of its %zu events are there",
                         head->request, head->position, part, f->request->writes.count);
        }
        if (e->stream != w->stream || e->type != w->type || e->tags != w->tags) {
            return wrong(c, "position %" PRIu64 " is not what request %" PRIu64 " wrote",
                         e->position, e->request);
        }
    }
    *out_next = i + f->request->writes.count;
    return true;
}

static bool check_log(struct checker *c)
{
    const struct history *h = c->h;
    for (size_t i = 0; i < h->log.count; i++) {
        const struct history_event *e = &h->log.at[i];
        if (e->position != h->log.at[0].position + i || e->position == 0) {
            return wrong(c, "position %" PRIu64 " follows %" PRIu64 " in the log", e->position,
                         i > 0 ? h->log.at[i - 1].position : 0);
        }
    }
    for (size_t i = 0; i < h->log.count; i++) {
        const struct history_event *e = &h->log.at[i];
        uint64_t revision = places_before(c->streams, h->log.count, e->stream, e->position) -
                            places_before(c->streams, h->log.count, e->stream, 0);
        if (e->revision != revision) {
            return wrong(c,
                         "position %" PRIu64 " of request %" PRIu64 " has revision %" PRIu64
                         " in stream %u, not %" PRIu64,
                         e->position, e->request, e->revision, e->stream, revision);
        }
    }
    size_t next = 0;
    while (next < h->log.count) {
        if (!check_run(c, next, &next)) return false;
    }
    return true;
}

/* ---- (2) conditions ------------------------------------------------------------------------- */

static uint64_t stream_count(const struct checker *c, uint32_t stream, uint64_t before)
{
    return places_before(c->streams, c->h->log.count, stream, before) -
           places_before(c->streams, c->h->log.count, stream, 0);
}

static bool stream_holds(const struct history_condition *k, uint64_t count)
{
    switch (k->expect) {
    case DEED_EXPECT_REVISION:
        return count > 0 && count - 1 == k->revision;
    case DEED_EXPECT_NONE:
        return count == 0;
    case DEED_EXPECT_EXISTS:
        return count > 0;
    case DEED_EXPECT_DELETED: /* histories delete nothing */
    case DEED_EXPECT_TOMBSTONED:
        return false;
    case DEED_EXPECT_ANY:
        break;
    }
    return true;
}

static bool check_conditions(struct checker *c, const struct fact *f)
{
    const struct history *h = c->h;
    for (size_t i = 0; i < f->request->conditions.count; i++) {
        const struct history_condition *k = &h->conditions.at[f->request->conditions.from + i];
        if (k->kind == DEED_CONDITION_STREAM) {
            uint64_t count = stream_count(c, k->stream, f->first);
            if (stream_holds(k, count)) continue;
            return wrong(c,
                         "request %" PRIu64 " at %" PRIu64 ": condition %zu did not hold: "
                         "stream %u had %" PRIu64 " events",
                         f->id, f->first, i, k->stream, count);
        }
        for (size_t n = 0; n < k->items.count; n++) {
            uint64_t match = match_after(c, &h->items.at[k->items.from + n], k->after);
            if (match >= f->first) continue;
            return wrong(c,
                         "request %" PRIu64 " at %" PRIu64 ": condition %zu did not hold: "
                         "position %" PRIu64 " of request %" PRIu64 " matches after %" PRIu64,
                         f->id, f->first, i, match, event_at(c, match)->request, k->after);
        }
    }
    return true;
}

/* ---- (3) and (4) answers -------------------------------------------------------------------- */

static bool check_acknowledged(struct checker *c, size_t index)
{
    const struct history_append *a = &c->h->appends.at[index];
    struct fact *f = fact_of(c, a->request);
    const char *name = name_append(c, index);
    uint64_t last = f->first + f->request->writes.count - 1;
    if (f->first == 0) return wrong(c, "%s was acknowledged and is not in the log", name);
    if (a->first != f->first || a->last != last) {
        return wrong(c,
                     "%s was acknowledged at %" PRIu64 "-%" PRIu64 ", it is at %" PRIu64
                     "-%" PRIu64,
                     name, a->first, a->last, f->first, last);
    }
    if (a->revision != event_at(c, last)->revision) {
        return wrong(c, "%s was acknowledged at revision %" PRIu64 ", it is at %" PRIu64, name,
                     a->revision, event_at(c, last)->revision);
    }
    if (a->repeated) return true;
    if (f->stored_by != SIZE_MAX) {
        return wrong(c, "%s and %s both say they stored it", name_append(c, f->stored_by), name);
    }
    if (f->known < a->invoked) {
        return wrong(c, "%s says it stored what was acknowledged before it was sent", name);
    }
    f->stored_by = index;
    return true;
}

static bool check_refused_stream(struct checker *c, size_t index, const struct history_condition *k)
{
    const struct history_append *a = &c->h->appends.at[index];
    const char *name = name_append(c, index);
    const struct history_event *e = event_at(c, a->position);
    uint64_t count = e == NULL ? 0 : e->revision + 1;
    if (e != NULL && e->stream != k->stream) {
        return wrong(c, "%s was refused by position %" PRIu64 ", which is in another stream", name,
                     a->position);
    }
    if (stream_holds(k, count)) {
        return wrong(c, "%s was refused though condition %" PRIu64 " holds at position %" PRIu64,
                     name, a->condition, a->position);
    }
    uint64_t next =
        place_after(c->streams, c->h->log.count, k->stream, e == NULL ? 0 : e->position);
    const struct telling *known = known_before(c, a->invoked);
    if (known != NULL && next <= known->position) {
        return wrong(c,
                     "%s was refused by an older state: position %" PRIu64
                     " follows in the stream and was known before, by %s",
                     name, next, name_telling(c, known));
    }
    return true;
}

static bool check_refused(struct checker *c, size_t index)
{
    const struct history_append *a = &c->h->appends.at[index];
    const struct fact *f = fact_of(c, a->request);
    const char *name = name_append(c, index);
    if (a->condition >= f->request->conditions.count) {
        return wrong(c, "%s was refused by condition %" PRIu64 ", it has %zu", name, a->condition,
                     f->request->conditions.count);
    }
    if (f->known < a->invoked) {
        return wrong(c, "%s was refused, it had been acknowledged before it was sent", name);
    }
    const struct history_condition *k =
        &c->h->conditions.at[f->request->conditions.from + a->condition];
    const struct history_event *e = event_at(c, a->position);
    if (e == NULL && (a->position != DEED_NONE || k->kind == DEED_CONDITION_NO_MATCH)) {
        return wrong(c, "%s was refused by position %" PRIu64 ", which is not in the log", name,
                     a->position);
    }
    if (e != NULL && e->request == a->request) {
        return wrong(c, "%s was refused by its own event at position %" PRIu64, name, a->position);
    }
    if (e != NULL && fact_of(c, e->request)->born > a->completed) {
        return wrong(c, "%s was refused by request %" PRIu64 ", which was sent later", name,
                     e->request);
    }
    if (k->kind == DEED_CONDITION_STREAM) return check_refused_stream(c, index, k);
    bool matches = false;
    for (size_t i = 0; i < k->items.count; i++) {
        matches |= item_matches(&c->h->items.at[k->items.from + i], e->type, e->tags);
    }
    if (!matches || e->position <= k->after) {
        return wrong(c, "%s was refused by position %" PRIu64 ", which its condition allows", name,
                     a->position);
    }
    return true;
}

static bool check_appends(struct checker *c)
{
    for (size_t i = 0; i < c->h->appends.count; i++) {
        const struct history_append *a = &c->h->appends.at[i];
        if (a->outcome == HISTORY_OK && !check_acknowledged(c, i)) return false;
        if (a->outcome == HISTORY_REFUSED && !check_refused(c, i)) return false;
    }
    for (size_t i = 0; i < c->h->appends.count; i++) {
        const struct history_append *a = &c->h->appends.at[i];
        const struct fact *f = fact_of(c, a->request);
        if (a->outcome == HISTORY_OK && f->stored_by == SIZE_MAX && !f->unknown) {
            return wrong(c, "%s repeats what no attempt stored", name_append(c, i));
        }
    }
    return true;
}

/* ---- (5) order ------------------------------------------------------------------------------ */

static bool check_order(struct checker *c)
{
    for (size_t i = 0; i < c->h->requests.count; i++) {
        const struct fact *f = fact_of(c, c->facts[i].id);
        if (f->first == 0) continue;
        if (!check_conditions(c, f)) return false;
        const struct telling *known = known_before(c, f->born);
        if (known == NULL || known->position < f->first) continue;
        return wrong(c,
                     "request %" PRIu64 " was first sent at %" PRIu64 " and is at %" PRIu64
                     ", but position %" PRIu64 " was known before, by %s",
                     f->id, f->born, f->first, known->position, name_telling(c, known));
    }
    return true;
}

/* ---- (6) reads: from the future they are found by (5) --------------------------------------- */

static uint64_t read_next(const struct checker *c, const struct history_read *r, uint64_t after)
{
    if (r->by_stream) return place_after(c->streams, c->h->log.count, r->stream, after);
    if (r->filter.types != 0 || r->filter.tags != 0) return match_after(c, &r->filter, after);
    if (c->h->log.count == 0) return DEED_NONE;
    uint64_t first = c->h->log.at[0].position;
    if (after < first) return first;
    return after - first + 1 < c->h->log.count ? after + 1 : DEED_NONE;
}

static bool check_seen(struct checker *c, size_t index, const struct history_seen *seen)
{
    const struct history_event *e = event_at(c, seen->position);
    if (e->request != seen->request || e->part != seen->part) {
        return wrong(c,
                     "%s: position %" PRIu64 " gives part %u of request %" PRIu64
                     ", the log has part %u of request %" PRIu64,
                     name_read(c, index), seen->position, seen->part, seen->request, e->part,
                     e->request);
    }
    return true;
}

static bool check_read(struct checker *c, size_t index)
{
    const struct history *h = c->h;
    const struct history_read *r = &h->reads.at[index];
    uint64_t at = r->after;
    for (size_t i = 0; i < r->seen.count; i++) {
        const struct history_seen *seen = &h->seen.at[r->seen.from + i];
        uint64_t next = read_next(c, r, at);
        if (next == DEED_NONE) {
            return wrong(c, "%s gives position %" PRIu64 ", nothing more matches",
                         name_read(c, index), seen->position);
        }
        if (seen->position != next) {
            return wrong(c, "%s gives position %" PRIu64 " where %" PRIu64 " matches",
                         name_read(c, index), seen->position, next);
        }
        if (!check_seen(c, index, seen)) return false;
        at = next;
    }
    uint64_t next = read_next(c, r, at);
    if (next <= r->to) {
        return wrong(c, "%s says it saw all up to %" PRIu64 ", but not %" PRIu64,
                     name_read(c, index), r->to, next);
    }
    const struct telling *known = known_before(c, r->invoked);
    if (!r->limited && known != NULL && next <= known->position) {
        return wrong(c,
                     "%s lacks position %" PRIu64 ", position %" PRIu64 " was known before, by %s",
                     name_read(c, index), next, known->position, name_telling(c, known));
    }
    return true;
}

bool history_check(const struct history *h, char *message, size_t size)
{
    struct checker c = {.h = h, .message = message, .message_size = size};
    make_places(&c);
    bool good = make_facts(&c);
    make_tellings(&c);
    good = good && check_log(&c) && check_appends(&c) && check_order(&c);
    for (size_t i = 0; good && i < h->reads.count; i++)
        good = check_read(&c, i);
    free(c.facts);
    free(c.streams);
    free(c.kinds);
    free(c.kind_table);
    free(c.told);
    return good;
}
