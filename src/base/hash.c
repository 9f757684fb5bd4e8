/* hash.c - thin covers over ISA-L, xxhash and OpenSSL. */
#include "base/hash.h"

#include <assert.h>
#include <openssl/evp.h>
#include <pthread.h>
#include <stdlib.h>

#include <isa-l/crc.h>
#include <xxhash.h>

uint32_t crc32c(uint32_t seed, deed_bytes bytes)
{
    /* crc32_iscsi takes an int length and a pointer without const, and leaves both inversions to
     * the caller. */
    uint32_t state = ~seed;
    while (bytes.len > 0) {
        size_t part = bytes.len > 1u << 30 ? 1u << 30 : bytes.len;
        state = crc32_iscsi((unsigned char *)(uintptr_t)bytes.ptr, (int)part, state);
        bytes.ptr += part;
        bytes.len -= part;
    }
    return ~state;
}

uint64_t xxh64(uint64_t seed, deed_bytes bytes)
{
    return XXH3_64bits_withSeed(bytes.ptr, bytes.len, seed);
}

/* Fetched once and one context a thread: half the time of EVP_Digest for an event's size. */
static EVP_MD *sha256_method, *sha1_method;
static pthread_key_t context_key;
static pthread_once_t sha256_once = PTHREAD_ONCE_INIT, sha1_once = PTHREAD_ONCE_INIT;

static void context_free(void *context)
{
    EVP_MD_CTX_free(context);
}

static void sha256_setup(void)
{
    sha256_method = EVP_MD_fetch(NULL, "SHA256", NULL);
    int failed = pthread_key_create(&context_key, context_free);
    if (sha256_method == NULL || failed != 0) abort();
}

/* By itself: who asks for no UUID of version 5 needs none, and a hardened OpenSSL may have none. */
static void sha1_setup(void)
{
    (void)pthread_once(&sha256_once, sha256_setup); /* the contexts' key */
    sha1_method = EVP_MD_fetch(NULL, "SHA1", NULL);
}

static EVP_MD_CTX *context_get(void)
{
    EVP_MD_CTX *context = pthread_getspecific(context_key);
    if (context != NULL) return context;
    context = EVP_MD_CTX_new();
    if (context == NULL || pthread_setspecific(context_key, context) != 0) abort();
    return context;
}

static void digest(const EVP_MD *method, const deed_bytes *parts, size_t count, uint8_t *out,
                   unsigned size_wanted)
{
    EVP_MD_CTX *context = context_get();
    int ok = EVP_DigestInit_ex2(context, method, NULL);
    for (size_t i = 0; i < count; i++) {
        if (parts[i].len > 0) ok &= EVP_DigestUpdate(context, parts[i].ptr, parts[i].len);
    }
    unsigned int size = 0;
    ok &= EVP_DigestFinal_ex(context, out, &size);
    if (ok != 1 || size != size_wanted) abort();
}

void sha256(const deed_bytes *parts, size_t count, uint8_t out[SHA256_SIZE])
{
    (void)pthread_once(&sha256_once, sha256_setup);
    digest(sha256_method, parts, count, out, SHA256_SIZE);
}

bool sha1_available(void)
{
    (void)pthread_once(&sha1_once, sha1_setup);
    return sha1_method != NULL;
}

void sha1(const deed_bytes *parts, size_t count, uint8_t out[SHA1_SIZE])
{
    if (!sha1_available()) abort();
    digest(sha1_method, parts, count, out, SHA1_SIZE);
}

bool sha256_begin(struct sha256_stream *stream)
{
    (void)pthread_once(&sha256_once, sha256_setup);
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    stream->context = NULL;
    if (context == NULL) return false;
    if (EVP_DigestInit_ex2(context, sha256_method, NULL) != 1) {
        EVP_MD_CTX_free(context);
        return false;
    }
    stream->context = context;
    return true;
}

void sha256_add(struct sha256_stream *stream, deed_bytes bytes)
{
    assert(stream->context != NULL);
    if (bytes.len > 0 && EVP_DigestUpdate(stream->context, bytes.ptr, bytes.len) != 1) abort();
}

void sha256_end(struct sha256_stream *stream, uint8_t *out)
{
    unsigned int size = 0;
    assert(out == NULL || stream->context != NULL);
    if (out != NULL) {
        if (EVP_DigestFinal_ex(stream->context, out, &size) != 1 || size != SHA256_SIZE) abort();
    }
    EVP_MD_CTX_free(stream->context);
    stream->context = NULL;
}
