/* term.h - a term in two parts, so that (id, stream) needs no copy, and its hash.
 *
 * The hash finds and filters, the bytes decide. Every run of an index uses the same seed, so a term
 * is hashed once for all of them. */
#ifndef INDEX_TERM_H
#define INDEX_TERM_H

#include "base/hash.h"
#include "index/index.h"

struct index_term {
    enum index_kind kind;
    deed_bytes head, tail;
    uint64_t hash;
};

struct index_hashing {
    uint64_t seed, mask;
};

/* The hash of an event id is over the id, then over the stream's name with that as its seed: the
 * parts of other terms are one. */
static inline struct index_term term_make(struct index_hashing hashing, enum index_kind kind,
                                          deed_bytes head, deed_bytes tail)
{
    uint64_t hash = xxh64(hashing.seed + (uint64_t)kind, head);
    if (tail.len > 0) hash = xxh64(hash, tail);
    return (struct index_term){kind, head, tail, hash & hashing.mask};
}

static inline struct index_term term_make_id(struct index_hashing hashing, deed_str stream,
                                             const deed_uuid *id)
{
    return term_make(hashing, INDEX_EVENT_ID, (deed_bytes){id->bytes, sizeof id->bytes},
                     deed_bytes_of(stream));
}

static inline size_t term_size(const struct index_term *term)
{
    return term->head.len + term->tail.len;
}

static inline bool term_is(const struct index_term *term, const uint8_t *bytes, size_t size)
{
    size_t head = term->head.len;
    size_t tail = term->tail.len;
    return size == head + tail && (head == 0 || memcmp(bytes, term->head.ptr, head) == 0) &&
           (tail == 0 || memcmp(bytes + head, term->tail.ptr, tail) == 0);
}

#endif
