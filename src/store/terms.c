/* terms.c - what the committer looked up lately.
 *
 * One append asks for its stream when its condition is checked, when tombstones are, and when its
 * revision is given; and the next one asks for the same types. A look-up costs a question to each
 * run of the index, so its answer is kept.
 *
 * (1) What is kept holds for one view: a newer one empties it.
 * (2) Postings find what is added to the run in memory. What is taken back they may remember: then
 *     it is emptied, too. */
#include "store/store_state.h"

/* Names and parts that have piled up: time to begin anew. */
#define TERMS_SIZE_MAX (1u << 20)

void terms_forget(struct store *store)
{
    struct committer_terms *t = &store->terms;
    if (t->generation != 0) memset(t->slots, 0, sizeof t->slots);
    t->generation = 0;
    arena_reset(&t->arena);
}

void terms_renew(struct store *store)
{
    struct committer_terms *t = &store->terms;
    index_writer_renew(store->index);
    bool same = t->generation == index_view_generation(index_writer_view(store->index));
    if (!same || t->arena.failed || arena_used(&t->arena) > TERMS_SIZE_MAX) terms_forget(store);
}

static bool is_kept(const struct postings *p, const struct index_term *term)
{
    return p->view != NULL && p->term.hash == term->hash && p->term.kind == term->kind &&
           term_is(term, p->term.head.ptr, p->term.head.len);
}

struct postings *terms_get(struct store *store, enum index_kind kind, deed_str text)
{
    struct committer_terms *t = &store->terms;
    const struct index_view *view = index_writer_view(store->index);
    t->generation = index_view_generation(view);
    struct index_term term = index_term_of(view, kind, text);
    struct postings *p = &t->slots[(term.hash >> 32 ^ term.hash) % TERM_SLOTS];
    if (is_kept(p, &term)) return p;
    deed_str copy = arena_str(&t->arena, text);
    if (copy.ptr == NULL) return NULL;
    term.head = deed_bytes_of(copy);
    postings_open_term(p, view, &term, &t->arena);
    return p;
}
