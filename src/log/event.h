/* event.h - one event's bytes inside a commit.
 *
 * docs/format/log.md is normative. The leaf of an event is SHA-256 over its salt and its canonical
 * bytes: what the chain binds, and what stays when an event is removed. What else stays of it, its
 * stub, decodes as an event that is `removed`. */
#ifndef LOG_EVENT_H
#define LOG_EVENT_H

#include "base/arena.h"
#include "base/hash.h"
#include "base/rw.h"

#define EVENT_SALT_SIZE     16
#define EVENT_KEY_HASH_SIZE 32

/* What the log adds to a new event. */
struct event_place {
    uint64_t position, revision;
    deed_uuid id;
    int64_t time_ns;
    deed_str idempotency_key; /* on the first event of a commit, else empty */
    const uint8_t *request_hash;
};

/* An upper bound of event_encode's bytes. */
size_t event_size(const struct deed_new_event *event, deed_str idempotency_key);

/* Append the record; `out_leaf` gets its leaf. A buf at its limit shows in buf_ok. */
void event_encode(struct buf *out, const struct deed_new_event *event,
                  const struct event_place *place, const uint8_t salt[EVENT_SALT_SIZE],
                  uint8_t out_leaf[SHA256_SIZE]);

/* Decode the record at the reader, which moves behind it. Slices point into the reader's bytes;
 * the tags come from `arena`. `recorded_at_ns` is the commit's, left at 0. `out_leaf` may be NULL:
 * of a whole event it is computed, of a stub it is the one that was stored.
 * false: malformed, the reader is dry; or, if arena->failed, there was no memory. */
bool event_decode(struct reader *r, struct arena *arena, struct deed_event *out_event,
                  uint8_t *out_leaf);

/* Move behind the record without decoding it. */
bool event_skip(struct reader *r);

/* What becomes of an event when its segment is rewritten. */
enum event_fate {
    EVENT_KEEP,
    EVENT_REMOVE, /* data and metadata go */
    EVENT_ERASE,  /* so do causation id, actor and salt: nothing can be guessed and compared */
};

/* Copy the record at the reader to `out`, reduced as `fate` says; what is removed already stays so
 * at least. `out_leaf` is the same before and after, so is the hash of a commit. As event_decode;
 * a buf at its limit shows in buf_ok. */
bool event_reduce(struct reader *r, enum event_fate fate, struct arena *arena, struct buf *out,
                  uint8_t out_leaf[SHA256_SIZE]);

/* Did the removed event at the reader have this data and metadata? Told by its leaf; an erased one
 * has nothing to tell by, and is taken to be the same. As event_decode; `scratch` gets back the
 * length that it had. */
bool event_was(struct reader *r, struct arena *arena, deed_bytes data, deed_bytes metadata,
               struct buf *scratch, bool *out_same);

#endif
