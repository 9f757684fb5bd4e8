/* memory_run.c - an open-addressed table of terms, each with an array of positions.
 *
 *   table (atomic pointer) -> slots (atomic pointers) -> list -> term bytes, first position,
 *                          -> marks (a slot's 16 bits)        -> array of the further positions
 *
 * (1) A list is complete before its slot points to it, and stays until the run is destroyed.
 * (2) A position is stored before the count that covers it. Slots of positions are atomic because
 *     a position taken back (memory_run_remove) may be written again while a reader, which ignores
 *     it by value, looks at it.
 * (3) A grown table or array is filled before it is published; the old one is kept until the end,
 *     because a reader may still look at it. It only misses what was added since, which is not
 *     published to that reader.
 * (4) A term's bytes decide; its hash only finds the slot.
 * (5) Lists and arrays lie in large blocks that are given back together: a segment has some
 *     hundred thousand of them.
 * (6) A mark is 0 for an empty slot, else low bits of its list's hash. It is stored after the slot.
 *     Most terms (event ids) are looked for in vain, and a look at a list is
 *     a cache line from anywhere in memory: the marks of 32 slots are one line.
 * (7) A slot is chosen by the hash's high bits, so the table is nearly in the order of a run file. */
#include "index/memory_run.h"

#include "base/planted.h"

#include <assert.h>
#include <stdatomic.h>
#include <stdlib.h>

#define TABLE_SLOTS_MIN 1024
/* The first position stands in the list itself: most terms (event ids) have only one. */
#define ARRAY_ROOM_MIN 3u
#define TAKE_SIZE     (256u << 10)
#define TAKE_SIZE_MIN (4u << 10)

typedef _Atomic uint64_t position_slot;

struct positions {
    uint64_t room;
    position_slot at[];
};

struct memory_list {
    uint64_t hash;
    position_slot first;
    _Atomic(struct positions *) more;
    _Atomic uint64_t base;
    _Atomic uint32_t count;
    uint32_t term_size : 24;
    uint32_t kind : 8;
    uint8_t term[];
};

struct table {
    struct table *older;
    uint64_t slot_count; /* a power of two */
    unsigned shift;      /* of a hash, to its slot (7) */
    _Atomic uint16_t *marks; /* behind the slots (6) */
    _Atomic(struct memory_list *) slots[];
};

struct block {
    struct block *older;
    uint64_t room[];
};

struct memory_run {
    _Atomic(struct table *) table;
    _Atomic uint64_t used, size;
    struct block *blocks;
    size_t block_used, block_size;
};

static struct table *table_create(struct memory_run *run, uint64_t slot_count)
{
    size_t slots_size = slot_count * sizeof(_Atomic(struct memory_list *));
    size_t size = sizeof(struct table) + slots_size + slot_count * sizeof(_Atomic uint16_t);
    struct table *table = calloc(1, size);
    if (table == NULL) return NULL;
    table->slot_count = slot_count;
    table->shift = (unsigned)__builtin_clzll(slot_count) + 1;
    table->marks = (_Atomic uint16_t *)(void *)((uint8_t *)table->slots + slots_size);
    atomic_fetch_add_explicit(&run->size, size, memory_order_relaxed);
    return table;
}

struct memory_run *memory_run_create(uint64_t terms)
{
    struct memory_run *run = calloc(1, sizeof *run);
    if (run == NULL) return NULL;
    uint64_t slots = TABLE_SLOTS_MIN;
    while (slots / 10 * 7 < terms && slots < UINT64_C(1) << 40) slots *= 2;
    struct table *table = table_create(run, slots);
    if (table == NULL) {
        free(run);
        return NULL;
    }
    atomic_store(&run->table, table);
    return run;
}

void memory_run_destroy(struct memory_run *run)
{
    if (run == NULL) return;
    struct table *table = atomic_load(&run->table);
    while (table != NULL) {
        struct table *older = table->older;
        free(table);
        table = older;
    }
    for (struct block *b = run->blocks; b != NULL;) {
        struct block *older = b->older;
        free(b);
        b = older;
    }
    free(run);
}

/* Aligned for any of ours, not zeroed (5). A first block is small: many runs of tests are. */
static void *take(struct memory_run *run, size_t size)
{
    size = (size + 7) / 8 * 8;
    if (run->blocks == NULL || size > run->block_size - run->block_used) {
        size_t room = run->blocks == NULL ? TAKE_SIZE_MIN : run->block_size * 2;
        if (room > TAKE_SIZE) room = TAKE_SIZE;
        if (room < size) room = size;
        struct block *block = malloc(sizeof *block + room);
        if (block == NULL) return NULL;
        atomic_fetch_add_explicit(&run->size, sizeof *block + room, memory_order_relaxed);
        block->older = run->blocks;
        run->blocks = block;
        run->block_size = room;
        run->block_used = 0;
    }
    void *out = (uint8_t *)run->blocks->room + run->block_used;
    run->block_used += size;
    return out;
}

/* ---- terms ---------------------------------------------------------------------------------- */

static uint16_t mark_of(uint64_t hash)
{
    return (uint16_t)(hash | 1);
}

static struct memory_list *find(const struct memory_run *run, const struct index_term *term)
{
    const struct table *table = atomic_load_explicit(&run->table, memory_order_acquire);
    uint64_t mask = table->slot_count - 1;
    uint16_t wanted = mark_of(term->hash);
    for (uint64_t i = term->hash >> table->shift;; i = (i + 1) & mask) {
        uint16_t mark = atomic_load_explicit(&table->marks[i], memory_order_acquire);
        if (mark == 0) return NULL;
        if (mark != wanted) continue;
        struct memory_list *list = atomic_load_explicit(&table->slots[i], memory_order_acquire);
        if (list->hash == term->hash && list->kind == (uint32_t)term->kind &&
            term_is(term, list->term, list->term_size)) {
            return list;
        }
    }
}

static void slot_put(struct table *table, struct memory_list *list)
{
    uint64_t mask = table->slot_count - 1;
    uint64_t i = list->hash >> table->shift;
    while (atomic_load_explicit(&table->marks[i], memory_order_relaxed) != 0) i = (i + 1) & mask;
    atomic_store_explicit(&table->slots[i], list, memory_order_relaxed);
    atomic_store_explicit(&table->marks[i], mark_of(list->hash), memory_order_release); /* (6) */
}

static bool table_grow(struct memory_run *run)
{
    struct table *old = atomic_load_explicit(&run->table, memory_order_relaxed);
    if (run->used * 10 < old->slot_count * 7) return true;
    struct table *grown = table_create(run, old->slot_count * 2);
    if (grown == NULL) return false;
    for (uint64_t i = 0; i < old->slot_count; i++) {
        struct memory_list *list = atomic_load_explicit(&old->slots[i], memory_order_relaxed);
        if (list != NULL) slot_put(grown, list);
    }
    grown->older = old;
    atomic_store_explicit(&run->table, grown, memory_order_release);
    return true;
}

static struct memory_list *list_create(struct memory_run *run, const struct index_term *term)
{
    size_t size = term_size(term);
    if (size >= 1u << 24 || !table_grow(run)) return NULL;
    struct memory_list *list = take(run, sizeof *list + size);
    if (list == NULL) return NULL;
    list->hash = term->hash;
    list->kind = (uint8_t)term->kind;
    list->term_size = size & 0xffffff;
    atomic_init(&list->first, 0);
    atomic_init(&list->more, NULL);
    atomic_init(&list->base, 0);
    atomic_init(&list->count, 0);
    if (term->head.len > 0) memcpy(list->term, term->head.ptr, term->head.len);
    if (term->tail.len > 0) memcpy(list->term + term->head.len, term->tail.ptr, term->tail.len);
    slot_put(atomic_load_explicit(&run->table, memory_order_relaxed), list);
    atomic_fetch_add_explicit(&run->used, 1, memory_order_relaxed);
    return list;
}

/* ---- positions ------------------------------------------------------------------------------ */

/* `i` is below a count that was loaded before: the array is at least as new (3). */
static position_slot *slot_of(const struct memory_list *list, uint64_t i)
{
    if (i == 0) return (position_slot *)&list->first;
    return &atomic_load_explicit(&list->more, memory_order_acquire)->at[i - 1];
}

static bool slot_make(struct memory_run *run, struct memory_list *list, uint64_t i)
{
    if (i == 0) return true;
    if (i >= UINT32_MAX) return false;
    struct positions *old = atomic_load_explicit(&list->more, memory_order_relaxed);
    if (old != NULL && i <= old->room) return true;
    uint64_t room = old == NULL ? ARRAY_ROOM_MIN : old->room * 2 + 1;
    struct positions *grown = take(run, sizeof *grown + room * sizeof grown->at[0]);
    if (grown == NULL) return false;
    grown->room = room;
    for (uint64_t k = 0; old != NULL && k < old->room; k++) {
        atomic_init(&grown->at[k], atomic_load_explicit(&old->at[k], memory_order_relaxed));
    }
    atomic_store_explicit(&list->more, grown, memory_order_release);
    return true;
}

bool memory_run_add(struct memory_run *run, const struct index_term *term, uint64_t position,
                    uint64_t base)
{
    struct memory_list *list = find(run, term);
    if (list == NULL) list = list_create(run, term);
    if (list == NULL) return false;
    uint32_t count = atomic_load_explicit(&list->count, memory_order_relaxed);
    assert(count == 0 || memory_list_at(list, count - 1) <= position);
    if (!slot_make(run, list, count)) return false;
    /* To a reader that sees the count of an earlier try, the position is not published. */
    if (count == 0) atomic_store_explicit(&list->base, base, memory_order_relaxed);
    atomic_store_explicit(slot_of(list, count), position, memory_order_relaxed);
    atomic_store_explicit(&list->count, count + 1, memory_order_release);
    return true;
}

void memory_run_remove(struct memory_run *run, const struct index_term *term, uint64_t position)
{
    struct memory_list *list = find(run, term);
    assert(list != NULL);
    uint32_t count = atomic_load_explicit(&list->count, memory_order_relaxed);
    assert(count > 0 && memory_list_at(list, count - 1) == position);
    (void)position;
    atomic_store_explicit(&list->count, count - 1, memory_order_release);
}

void memory_run_prefetch(const struct memory_run *run, uint64_t hash)
{
    const struct table *table = atomic_load_explicit(&run->table, memory_order_acquire);
    __builtin_prefetch((const void *)&table->slots[hash >> table->shift]);
}

const struct memory_list *memory_run_find(const struct memory_run *run,
                                          const struct index_term *term)
{
    return find(run, term);
}

uint64_t memory_list_at(const struct memory_list *list, uint64_t i)
{
    return atomic_load_explicit(slot_of(list, i), memory_order_relaxed);
}

uint64_t memory_list_base(const struct memory_list *list)
{
    return atomic_load_explicit(&list->base, memory_order_relaxed);
}

uint64_t memory_list_count(const struct memory_list *list, uint64_t end)
{
    if (list == NULL) return 0;
    uint64_t count = atomic_load_explicit(&list->count, memory_order_acquire);
    if (PLANTED(COUNT_PAST_END)) return count;
    /* Few, if any, are unpublished: they are at the end. */
    uint64_t step = 1;
    while (count > 0 && memory_list_at(list, count - 1) > end) {
        if (count > step && memory_list_at(list, count - 1 - step) > end) {
            count -= step;
            step *= 2;
        } else {
            count--;
            step = 1;
        }
    }
    return count;
}

uint64_t memory_list_after(const struct memory_list *list, uint64_t position, uint64_t end,
                           uint64_t hint)
{
    uint64_t high = memory_list_count(list, end);
    uint64_t low = 0;
    if (hint < high && memory_list_at(list, hint) <= position) {
        /* Gallop from the hint: a reader going forwards finds its place in a step or two. */
        uint64_t step = 1;
        low = hint + 1;
        while (low + step < high && memory_list_at(list, low + step) <= position) {
            low += step + 1;
            step *= 2;
        }
        if (low + step < high) high = low + step;
    } else if (hint < high) {
        high = hint;
    }
    while (low < high) {
        uint64_t middle = low + (high - low) / 2;
        if (memory_list_at(list, middle) <= position) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

uint64_t memory_run_term_count(const struct memory_run *run)
{
    return atomic_load_explicit(&run->used, memory_order_relaxed);
}

uint64_t memory_run_size(const struct memory_run *run)
{
    return atomic_load_explicit(&run->size, memory_order_relaxed);
}

/* ---- writing it down ------------------------------------------------------------------------ */

uint64_t memory_list_hash(const struct memory_list *list)
{
    return list->hash;
}

enum index_kind memory_list_kind(const struct memory_list *list)
{
    return (enum index_kind)list->kind;
}

deed_bytes memory_list_term(const struct memory_list *list)
{
    return (deed_bytes){list->term, list->term_size};
}

/* A list and its hash, since a look at the list is a cache line of its own. */
struct keyed {
    uint64_t hash;
    const struct memory_list *list;
};

static int keyed_order(const void *a, const void *b)
{
    const struct keyed *left = a, *right = b;
    if (left->hash != right->hash) return left->hash < right->hash ? -1 : 1;
    const struct memory_list *x = left->list, *y = right->list;
    if (x->kind != y->kind) return x->kind < y->kind ? -1 : 1;
    uint32_t least = x->term_size < y->term_size ? x->term_size : y->term_size;
    int order = memcmp(x->term, y->term, least);
    if (order != 0) return order;
    return (x->term_size > y->term_size) - (x->term_size < y->term_size);
}

/* Lists are looked at so many slots ahead. */
#define AHEAD 16u

/* The lists in the table's order: but those that wrapped around its end come last. */
static uint64_t collect(const struct table *table, struct keyed *out, uint64_t room)
{
    uint64_t count = 0;
    for (int wrapped = 0; wrapped < 2; wrapped++) {
        for (uint64_t i = 0; i < table->slot_count; i++) {
            if (i + AHEAD < table->slot_count) {
                __builtin_prefetch(atomic_load_explicit(&table->slots[i + AHEAD],
                                                        memory_order_relaxed));
            }
            struct memory_list *list = atomic_load_explicit(&table->slots[i], memory_order_acquire);
            if (wrapped == 1 && list == NULL) return count; /* they stand at its beginning */
            if (list == NULL || (list->hash >> table->shift > i) != (wrapped == 1)) continue;
            if (memory_list_count(list, UINT64_MAX) == 0) continue;
            assert(count < room);
            out[count++] = (struct keyed){list->hash, list};
        }
    }
    return count;
}

/* Nearly in order already (7): few steps each. Hashes that are not spread (a test's) would make many,
 * then it is sorted as anything else. */
static void sort_nearly(struct keyed *all, uint64_t count)
{
    uint64_t steps = 0, steps_max = 32 * count;
    for (uint64_t i = 1; i < count && steps < steps_max; i++) {
        struct keyed one = all[i];
        uint64_t to = i;
        for (; to > 0 && keyed_order(&all[to - 1], &one) > 0; to--, steps++) all[to] = all[to - 1];
        all[to] = one;
    }
    if (steps >= steps_max) qsort(all, count, sizeof *all, keyed_order);
}

const struct memory_list **memory_run_sorted(const struct memory_run *run, uint64_t *out_count)
{
    const struct table *table = atomic_load_explicit(&run->table, memory_order_acquire);
    uint64_t used = memory_run_term_count(run);
    struct keyed *all = malloc((used + 1) * sizeof *all);
    const struct memory_list **lists = malloc((used + 1) * sizeof *lists);
    if (all == NULL || lists == NULL) {
        free(all);
        free(lists);
        return NULL;
    }
    uint64_t count = collect(table, all, used);
    sort_nearly(all, count);
    for (uint64_t i = 0; i < count; i++) lists[i] = all[i].list;
    free(all);
    *out_count = count;
    return lists;
}
