/* commit.h - events appended atomically: the unit of durability, and a link of the chain.
 *
 * docs/format/log.md is normative. */
#ifndef LOG_COMMIT_H
#define LOG_COMMIT_H

#include "log/event.h"

#define COMMIT_HEAD_SIZE 112
#define COMMIT_ALIGN     8
#define SECTOR_SIZE      4096

/* No log gets there: larger numbers in a file are nonsense, and sums with them would overflow. */
#define POSITION_MAX (UINT64_MAX >> 1)

#define COMMIT_SECRET_SIZE 16

/* The checksums of all seeds of one log, taken apart: that of place zero, and what each byte of another
 * place changes in it. */
#define COMMIT_PLACE_SIZE 12
struct commit_places {
    uint32_t zero;
    uint32_t changes[COMMIT_PLACE_SIZE][256];
};

/* Where a commit's bytes belong: a stale or misdirected block has another seed and cannot pass.
 * The secret is the log's, and leaves it in no form. */
struct commit_seed {
    deed_uuid log_id;
    uint8_t secret[COMMIT_SECRET_SIZE];
    uint32_t segment;
    uint64_t offset;
    const struct commit_places *places; /* of this log; NULL: the same, slower */
};

void commit_places_make(deed_uuid log_id, const uint8_t secret[COMMIT_SECRET_SIZE],
                        struct commit_places *out);

struct commit {
    uint32_t size; /* bytes with head and alignment, without a group's padding */
    uint32_t event_count;
    uint64_t first_position;
    int64_t recorded_at_ns;
    uint64_t durable_before; /* newest position known durable when this was written */
    uint8_t previous[SHA256_SIZE], hash[SHA256_SIZE];
    deed_bytes events; /* the records */
};

/* Begin a commit at the end of `out`: room for the head is left. Then event_encode each event, then
 * finish. The result goes to commit_finish. */
size_t commit_begin(struct buf *out);

/* Write the head over the room that was left: hashes the leaves into the chain, aligns, checksums.
 * `commit` brings event_count, first_position, recorded_at_ns, durable_before and previous, and
 * gets size, hash and events. */
void commit_finish(struct buf *out, size_t start, const struct commit_seed *seed,
                   const uint8_t (*leaves)[SHA256_SIZE], struct commit *commit);

/* Decode the commit at the front of `in` (which may go on behind it) and check its checksum.
 * Slices point into `in`. false: not a good commit, and `out_commit` is anything. */
bool commit_decode(deed_bytes in, const struct commit_seed *seed, struct commit *out_commit);

/* Make a whole commit's checksum right for another place. */
void commit_reseal(uint8_t *bytes, const struct commit_seed *seed);

/* Take the checksum out of a commit's bytes, for those who must not learn what it is made with. */
void commit_blank(uint8_t *bytes);

/* Could a commit begin here? Its size, from a head that is not checked yet; 0: no. */
uint32_t commit_peek_size(deed_bytes in);

/* Recompute the commit's own hash from its events. `arena` is for decoding; not reset. false: not
 * good; or, if arena->failed, there was no memory to find out. */
bool commit_hash_good(const struct commit *commit, deed_uuid log_id, struct arena *arena);

static inline uint64_t align_up(uint64_t offset, uint64_t to)
{
    return (offset + to - 1) / to * to;
}

#endif
