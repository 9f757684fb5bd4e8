/* password.c - argon2id (RFC 9106) by libsodium, with what it costs beside each hash.
 *
 * (1) The salt comes from os, as all randomness does.
 * (2) Who can write an account's stream can write any costs there: what is over ours is no password.
 * (3) Hashing is what a flood of requests would ask for: so many at a time, the others come again. */
#include "api/password.h"

#include "base/text.h"

#include <sodium.h>
#include <stdatomic.h>

/* OWASP's advice for argon2id, of 2023: an attacker's graphics card gets at memory slowly. */
#define PASSES      2
#define MEMORY_SIZE (19u << 20)

/* (2): room for dearer ones of the future. */
#define PASSES_MAX      16
#define MEMORY_SIZE_MAX (256u << 20)

#define AT_WORK_MAX 4 /* (3) */

static _Atomic unsigned at_work;

static deed_status hash(const struct password *p, deed_bytes text, uint8_t *out,
                        struct deed_error *err)
{
    if (sodium_init() < 0) return deed_fail(err, DEED_STOPPED, "libsodium does not work here");
    if (atomic_fetch_add(&at_work, 1) >= AT_WORK_MAX) {
        atomic_fetch_sub(&at_work, 1);
        return deed_fail(err, DEED_BUSY, "%u passwords are being hashed already: try again",
                         AT_WORK_MAX);
    }
    const char *bytes = text.len == 0 ? "" : (const char *)text.ptr;
    int result = crypto_pwhash(out, PASSWORD_HASH_SIZE, bytes, text.len, p->salt, p->passes,
                               (size_t)p->memory_size, crypto_pwhash_ALG_ARGON2ID13);
    atomic_fetch_sub(&at_work, 1);
    if (result == 0) return DEED_OK;
    return deed_fail(err, DEED_NO_MEMORY, "no memory to hash a password, %llu bytes",
                     (unsigned long long)p->memory_size);
}

deed_status password_make(struct os *os, deed_bytes text, struct password *out,
                          struct deed_error *err)
{
    struct password p = {.passes = PASSES, .memory_size = MEMORY_SIZE};
    if (text.len == 0) return deed_fail(err, DEED_INVALID, "password: must not be empty");
    if (text.len > PASSWORD_SIZE_MAX) {
        return deed_fail(err, DEED_TOO_LARGE, "password: %zu bytes, limit %d", text.len,
                         PASSWORD_SIZE_MAX);
    }
    os_random(os, p.salt, sizeof p.salt); /* (1) */
    deed_status status = hash(&p, text, p.hash, err);
    if (status == DEED_OK) *out = p;
    return status;
}

deed_status password_check(const struct password *password, deed_bytes text, bool *out_right,
                           struct deed_error *err)
{
    uint8_t got[PASSWORD_HASH_SIZE];
    bool possible = password->passes > 0 && text.len > 0 && text.len <= PASSWORD_SIZE_MAX;
    if (!possible) {
        *out_right = false;
        return DEED_OK;
    }
    deed_status status = hash(password, text, got, err);
    if (status == DEED_OK) *out_right = sodium_memcmp(got, password->hash, sizeof got) == 0;
    return status;
}

/* ---- as JSON -------------------------------------------------------------------------------- */

static void member_base64(struct json_writer *w, const char *name, deed_bytes bytes)
{
    struct buf text;
    buf_init(&text, 128);
    base64_encode(bytes, &text);
    if (!buf_ok(&text)) w->out->failed = true;
    json_member_text(w, name, buf_str(&text));
    buf_done(&text);
}

void password_write(struct json_writer *w, const struct password *p)
{
    json_object_begin(w);
    json_member_text(w, "algorithm", DEED_STR("argon2id"));
    json_member_uint(w, "passes", p->passes);
    json_member_uint(w, "memory", p->memory_size);
    member_base64(w, "salt", (deed_bytes){p->salt, sizeof p->salt});
    member_base64(w, "hash", (deed_bytes){p->hash, sizeof p->hash});
    json_object_end(w);
}

static bool read_base64(json_value value, uint8_t *out, size_t size)
{
    struct buf bytes;
    deed_str text = json_text(value);
    buf_init(&bytes, 128);
    bool good = text.ptr != NULL && base64_decode(text, &bytes) && bytes.len == size;
    if (good) memcpy(out, bytes.ptr, size);
    buf_done(&bytes);
    return good;
}

bool password_read(json_value object, struct password *out)
{
    struct password p = {0};
    bool good = deed_str_equal(json_text(json_get(object, DEED_STR("algorithm"))),
                               DEED_STR("argon2id")) &&
                json_uint64(json_get(object, DEED_STR("passes")), &p.passes) &&
                json_uint64(json_get(object, DEED_STR("memory")), &p.memory_size) &&
                read_base64(json_get(object, DEED_STR("salt")), p.salt, sizeof p.salt) &&
                read_base64(json_get(object, DEED_STR("hash")), p.hash, sizeof p.hash);
    if (!good || p.passes < 1 || p.passes > PASSES_MAX) return false;
    if (p.memory_size < crypto_pwhash_MEMLIMIT_MIN || p.memory_size > MEMORY_SIZE_MAX) return false;
    *out = p;
    return true;
}
