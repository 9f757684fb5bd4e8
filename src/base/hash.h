/* hash.h - the hashes, each for one purpose.
 *
 *   crc32c   accidents: torn and rotten bytes (ISA-L, RFC 3720's polynomial)
 *   xxh64    hash tables and filters: fast, keyed, never a proof (XXH3)
 *   sha256   the chain: a proof (OpenSSL, FIPS 180-4)
 *   sha1     ids that others compute the same way; it proves nothing (OpenSSL) */
#ifndef BASE_HASH_H
#define BASE_HASH_H

#include "deedbook.h"

#define SHA1_SIZE   20
#define SHA256_SIZE 32

/* The checksum of `bytes` as a continuation of `seed`; start with seed 0. */
uint32_t crc32c(uint32_t seed, deed_bytes bytes);

uint64_t xxh64(uint64_t seed, deed_bytes bytes);

/* For names that others compute too (UUIDs of version 5). Cannot fail where sha1_available, which a
 * hardened OpenSSL may deny; elsewhere it ends the process, so whoever serves strangers asks first. */
bool sha1_available(void);
void sha1(const deed_bytes *parts, size_t count, uint8_t out[SHA1_SIZE]);

/* The hash of the `count` parts one after another. Cannot fail: OpenSSL without SHA-256, or
 * without memory for its context, ends the process at the first use, before anything is stored. */
void sha256(const deed_bytes *parts, size_t count, uint8_t out[SHA256_SIZE]);

/* The same for bytes that come piece by piece: begin, add as often as needed, end. */
struct sha256_stream {
    void *context; /* private */
};
/* false: no memory. What was begun must be ended. */
DEED_MUST_CHECK bool sha256_begin(struct sha256_stream *stream);
void sha256_add(struct sha256_stream *stream, deed_bytes bytes);
/* `out` may be NULL: the hash is not wanted any more. Accepts a zeroed stream then. */
void sha256_end(struct sha256_stream *stream, uint8_t *out);

#endif
