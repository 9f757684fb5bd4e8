/* index.c - an open-addressed table of terms, each with chunks of positions.
 *
 *   table (atomic pointer) -> slots (atomic pointers) -> list -> term bytes, first position,
 *                                                             -> chunk 0, chunk 1, chunk 2 ...
 *
 * (1) A list is complete before its slot points to it, and stays until the index is destroyed.
 * (2) A position is stored before the count that covers it. Slots of positions are atomic because
 *     a position taken back (index_remove_last) may be written again while a reader, which ignores
 *     it by value, looks at it.
 * (3) A grown table is filled before it is published; the old one is kept until the end, because a
 *     reader may still probe it. It only misses what was added since, which is not published to
 *     that reader.
 * (4) A term's bytes decide; its hash only finds the slot. */
#include "index/index.h"

#include "base/hash.h"
#include "base/planted.h"

#include <assert.h>
#include <stdatomic.h>
#include <stdlib.h>

#define TABLE_SLOTS_MIN 1024
/* The first position stands in the list itself: most terms (event ids) have only one. Chunk k then
 * holds 4 << k more, so 38 chunks are past any log. */
#define LIST_CHUNKS       38
#define LIST_CHUNK_FIRST  UINT64_C(4)

typedef _Atomic uint64_t position_slot;

struct list_more {
    _Atomic(position_slot *) chunk[LIST_CHUNKS];
};

struct index_list {
    uint64_t hash;
    position_slot first;
    _Atomic uint64_t count;
    _Atomic(struct list_more *) more;
    uint32_t term_size;
    uint8_t kind;
    uint8_t term[];
};

struct table {
    struct table *older;
    uint64_t slot_count; /* a power of two */
    _Atomic(struct index_list *) slots[];
};

struct index {
    uint64_t seed;
    _Atomic(struct table *) table;
    uint64_t used;
    _Atomic uint64_t term_count[INDEX_KIND_COUNT];
};

static struct table *table_create(uint64_t slot_count)
{
    struct table *table = calloc(1, sizeof *table + slot_count * sizeof table->slots[0]);
    if (table != NULL) table->slot_count = slot_count;
    return table;
}

struct index *index_create(uint64_t hash_seed)
{
    struct index *index = calloc(1, sizeof *index);
    struct table *table = table_create(TABLE_SLOTS_MIN);
    if (index == NULL || table == NULL) {
        free(index);
        free(table);
        return NULL;
    }
    index->seed = hash_seed;
    atomic_store(&index->table, table);
    return index;
}

static void list_free(struct index_list *list)
{
    if (list == NULL) return;
    struct list_more *more = atomic_load(&list->more);
    for (size_t k = 0; more != NULL && k < LIST_CHUNKS; k++) free((void *)atomic_load(&more->chunk[k]));
    free(more);
    free(list);
}

void index_destroy(struct index *index)
{
    if (index == NULL) return;
    struct table *table = atomic_load(&index->table);
    for (uint64_t i = 0; i < table->slot_count; i++) list_free(atomic_load(&table->slots[i]));
    while (table != NULL) {
        struct table *older = table->older;
        free(table);
        table = older;
    }
    free(index);
}

/* ---- terms ---------------------------------------------------------------------------------- */

/* A term in two parts, so that (id, stream) needs no copy. */
struct term {
    enum index_kind kind;
    deed_bytes head, tail;
    uint64_t hash;
};

static struct term term_make(const struct index *index, enum index_kind kind, deed_bytes head,
                             deed_bytes tail)
{
    uint64_t hash = xxh64(index->seed + (uint64_t)kind, head);
    if (tail.len > 0) hash = xxh64(hash, tail);
    return (struct term){kind, head, tail, hash};
}

static bool term_is(const struct term *term, const struct index_list *list)
{
    size_t head = term->head.len;
    size_t tail = term->tail.len;
    return list->hash == term->hash && list->kind == (uint8_t)term->kind &&
           list->term_size == head + tail &&
           (head == 0 || memcmp(list->term, term->head.ptr, head) == 0) &&
           (tail == 0 || memcmp(list->term + head, term->tail.ptr, tail) == 0);
}

static struct index_list *find(const struct index *index, const struct term *term)
{
    const struct table *table = atomic_load_explicit(&index->table, memory_order_acquire);
    uint64_t mask = table->slot_count - 1;
    for (uint64_t i = term->hash & mask;; i = (i + 1) & mask) {
        struct index_list *list = atomic_load_explicit(&table->slots[i], memory_order_acquire);
        if (list == NULL || term_is(term, list)) return list;
    }
}

static void slot_put(struct table *table, struct index_list *list)
{
    uint64_t mask = table->slot_count - 1;
    uint64_t i = list->hash & mask;
    while (atomic_load_explicit(&table->slots[i], memory_order_relaxed) != NULL) i = (i + 1) & mask;
    atomic_store_explicit(&table->slots[i], list, memory_order_release);
}

static bool table_grow(struct index *index)
{
    struct table *old = atomic_load_explicit(&index->table, memory_order_relaxed);
    if (index->used * 10 < old->slot_count * 7) return true;
    struct table *grown = table_create(old->slot_count * 2);
    if (grown == NULL) return false;
    for (uint64_t i = 0; i < old->slot_count; i++) {
        struct index_list *list = atomic_load_explicit(&old->slots[i], memory_order_relaxed);
        if (list != NULL) slot_put(grown, list);
    }
    grown->older = old;
    atomic_store_explicit(&index->table, grown, memory_order_release);
    return true;
}

static struct index_list *list_create(struct index *index, const struct term *term)
{
    size_t size = term->head.len + term->tail.len;
    if (size > UINT32_MAX || !table_grow(index)) return NULL;
    struct index_list *list = calloc(1, sizeof *list + size);
    if (list == NULL) return NULL;
    list->hash = term->hash;
    list->kind = (uint8_t)term->kind;
    list->term_size = (uint32_t)size;
    if (term->head.len > 0) memcpy(list->term, term->head.ptr, term->head.len);
    if (term->tail.len > 0) memcpy(list->term + term->head.len, term->tail.ptr, term->tail.len);
    slot_put(atomic_load_explicit(&index->table, memory_order_relaxed), list);
    index->used++;
    atomic_fetch_add_explicit(&index->term_count[term->kind], 1, memory_order_relaxed);
    return list;
}

/* ---- positions ------------------------------------------------------------------------------ */

static unsigned chunk_of(uint64_t i, uint64_t *out_offset)
{
    uint64_t shifted = (i - 1) / LIST_CHUNK_FIRST + 1;
    unsigned k = 63u - (unsigned)__builtin_clzll(shifted);
    *out_offset = i - 1 - LIST_CHUNK_FIRST * ((UINT64_C(1) << k) - 1);
    return k;
}

static position_slot *slot_of(const struct index_list *list, uint64_t i)
{
    if (i == 0) return (position_slot *)&list->first;
    uint64_t offset;
    unsigned k = chunk_of(i, &offset);
    struct list_more *more = atomic_load_explicit(&list->more, memory_order_acquire);
    return atomic_load_explicit(&more->chunk[k], memory_order_acquire) + offset;
}

static bool slot_make(struct index_list *list, uint64_t i)
{
    if (i == 0) return true;
    struct list_more *more = atomic_load_explicit(&list->more, memory_order_relaxed);
    if (more == NULL) {
        more = calloc(1, sizeof *more);
        if (more == NULL) return false;
        atomic_store_explicit(&list->more, more, memory_order_release);
    }
    uint64_t offset;
    unsigned k = chunk_of(i, &offset);
    if (k >= LIST_CHUNKS) return false;
    if (atomic_load_explicit(&more->chunk[k], memory_order_relaxed) != NULL) return true;
    position_slot *chunk = calloc(LIST_CHUNK_FIRST << k, sizeof *chunk);
    if (chunk == NULL) return false;
    atomic_store_explicit(&more->chunk[k], chunk, memory_order_release);
    return true;
}

static bool add(struct index *index, const struct term *term, uint64_t position)
{
    struct index_list *list = find(index, term);
    if (list == NULL) list = list_create(index, term);
    if (list == NULL) return false;
    uint64_t count = atomic_load_explicit(&list->count, memory_order_relaxed);
    assert(count == 0 || index_at(list, count - 1) <= position);
    if (!slot_make(list, count)) return false;
    atomic_store_explicit(slot_of(list, count), position, memory_order_relaxed);
    atomic_store_explicit(&list->count, count + 1, memory_order_release);
    return true;
}

static void remove_last(struct index *index, const struct term *term, uint64_t position)
{
    struct index_list *list = find(index, term);
    assert(list != NULL);
    uint64_t count = atomic_load_explicit(&list->count, memory_order_relaxed);
    assert(count > 0 && index_at(list, count - 1) == position);
    atomic_store_explicit(&list->count, count - 1, memory_order_release);
}

bool index_add(struct index *index, enum index_kind kind, deed_bytes term, uint64_t position)
{
    struct term t = term_make(index, kind, term, (deed_bytes){0});
    return add(index, &t, position);
}

void index_remove_last(struct index *index, enum index_kind kind, deed_bytes term,
                       uint64_t position)
{
    struct term t = term_make(index, kind, term, (deed_bytes){0});
    remove_last(index, &t, position);
}

const struct index_list *index_find(const struct index *index, enum index_kind kind,
                                    deed_bytes term)
{
    struct term t = term_make(index, kind, term, (deed_bytes){0});
    return find(index, &t);
}

uint64_t index_at(const struct index_list *list, uint64_t i)
{
    return atomic_load_explicit(slot_of(list, i), memory_order_relaxed);
}

uint64_t index_count(const struct index_list *list, uint64_t end)
{
    if (list == NULL) return 0;
    uint64_t count = atomic_load_explicit(&list->count, memory_order_acquire);
    if (PLANTED(COUNT_PAST_END)) return count;
    /* Few, if any, are unpublished: they are at the end. */
    uint64_t step = 1;
    while (count > 0 && index_at(list, count - 1) > end) {
        if (count > step && index_at(list, count - 1 - step) > end) {
            count -= step;
            step *= 2;
        } else {
            count--;
            step = 1;
        }
    }
    return count;
}

uint64_t index_after(const struct index_list *list, uint64_t position, uint64_t end, uint64_t hint)
{
    uint64_t high = index_count(list, end);
    uint64_t low = 0;
    if (hint < high && index_at(list, hint) <= position) {
        /* Gallop from the hint: a reader going forwards finds its place in a step or two. */
        uint64_t step = 1;
        low = hint + 1;
        while (low + step < high && index_at(list, low + step) <= position) {
            low += step + 1;
            step *= 2;
        }
        if (low + step < high) high = low + step;
    } else if (hint < high) {
        high = hint;
    }
    while (low < high) {
        uint64_t middle = low + (high - low) / 2;
        if (index_at(list, middle) <= position) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

bool index_contains(const struct index_list *list, uint64_t position)
{
    if (list == NULL) return false;
    uint64_t after = index_after(list, position, UINT64_MAX, 0);
    return after > 0 && index_at(list, after - 1) == position;
}

uint64_t index_last(const struct index_list *list, uint64_t end)
{
    uint64_t count = index_count(list, end);
    return count == 0 ? 0 : index_at(list, count - 1);
}

uint64_t index_term_count(const struct index *index, enum index_kind kind)
{
    return atomic_load_explicit(&index->term_count[kind], memory_order_relaxed);
}

/* ---- events --------------------------------------------------------------------------------- */

bool index_is_system(deed_str stream)
{
    return stream.len > 0 && stream.ptr[0] == '$';
}

deed_str index_category_of(deed_str stream)
{
    if (index_is_system(stream)) return (deed_str){0};
    const char *dash = stream.len == 0 ? NULL : memchr(stream.ptr, '-', stream.len);
    if (dash == NULL || dash == stream.ptr) return (deed_str){0};
    return (deed_str){stream.ptr, (size_t)(dash - stream.ptr)};
}

const struct index_list *index_find_str(const struct index *index, enum index_kind kind,
                                        deed_str term)
{
    return index_find(index, kind, deed_bytes_of(term));
}

static struct term id_term(const struct index *index, deed_str stream, const deed_uuid *id)
{
    return term_make(index, INDEX_EVENT_ID, (deed_bytes){id->bytes, sizeof id->bytes},
                     deed_bytes_of(stream));
}

const struct index_list *index_find_id(const struct index *index, deed_str stream, deed_uuid id)
{
    struct term t = id_term(index, stream, &id);
    return find(index, &t);
}

/* A tag that an event repeats is indexed once. */
static bool tag_repeated(const struct index_event *event, size_t i)
{
    for (size_t k = 0; k < i; k++) {
        if (deed_str_equal(event->tags[k], event->tags[i])) return true;
    }
    return false;
}

/* The event's i-th term. false: past the last; a kind of INDEX_KIND_COUNT: this one is left out. */
static bool event_term(const struct index *index, const struct index_event *event, size_t i,
                       struct term *out)
{
    const deed_bytes none = {0};
    deed_str category = index_category_of(event->stream);
    out->kind = INDEX_KIND_COUNT;
    switch (i) {
    case 0: *out = term_make(index, INDEX_STREAM, deed_bytes_of(event->stream), none); break;
    case 1: *out = term_make(index, INDEX_TYPE, deed_bytes_of(event->type), none); break;
    case 2: *out = id_term(index, event->stream, &event->id); break;
    case 3:
        if (category.ptr == NULL) break;
        *out = term_make(index, INDEX_CATEGORY, deed_bytes_of(category), none);
        break;
    case 4:
        if (event->correlation_id.len == 0) break;
        *out = term_make(index, INDEX_CORRELATION, deed_bytes_of(event->correlation_id), none);
        break;
    case 5:
        if (event->key.len == 0) break;
        *out = term_make(index, INDEX_KEY, deed_bytes_of(event->key), none);
        break;
    case 6:
        if (!index_is_system(event->stream)) break;
        *out = term_make(index, INDEX_SYSTEM, none, none);
        break;
    default:
        if (i - 7 >= event->tag_count) return false;
        if (tag_repeated(event, i - 7) || (PLANTED(LOSE_POSTING) && event->position % 64 == 0)) {
            break;
        }
        *out = term_make(index, INDEX_TAG, deed_bytes_of(event->tags[i - 7]), none);
        break;
    }
    return true;
}

static void remove_terms(struct index *index, const struct index_event *event, size_t count)
{
    for (size_t i = count; i > 0; i--) {
        struct term term;
        (void)event_term(index, event, i - 1, &term);
        if (term.kind != INDEX_KIND_COUNT) remove_last(index, &term, event->position);
    }
}

bool index_add_event(struct index *index, const struct index_event *event)
{
    struct term term;
    for (size_t i = 0; event_term(index, event, i, &term); i++) {
        if (term.kind == INDEX_KIND_COUNT) continue;
        if (!add(index, &term, event->position)) {
            remove_terms(index, event, i);
            return false;
        }
    }
    return true;
}

void index_remove_event(struct index *index, const struct index_event *event)
{
    remove_terms(index, event, 7 + event->tag_count);
}
