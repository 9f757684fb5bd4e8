/* password.h - what is kept of a password: argon2id over it and a salt, so that neither the log nor a
 * backup gives it away. */
#ifndef API_PASSWORD_H
#define API_PASSWORD_H

#include "base/buf.h"
#include "base/error.h"
#include "json/json.h"
#include "os/os.h"

#define PASSWORD_SIZE_MAX  1024 /* bytes; longer ones are refused, not cut */
#define PASSWORD_SALT_SIZE 16
#define PASSWORD_HASH_SIZE 32

struct password {
    uint64_t passes, memory_size; /* what it cost; 0: there is none, and nothing is right */
    uint8_t salt[PASSWORD_SALT_SIZE], hash[PASSWORD_HASH_SIZE];
};

/* Takes some 20 ms of a processor and 19 MiB, by intent: not on the loop's thread.
 *
 *   DEED_INVALID  it is empty. DEED_TOO_LARGE.
 *   DEED_BUSY     too many are being hashed just now. DEED_NO_MEMORY. */
DEED_MUST_CHECK deed_status password_make(struct os *os, deed_bytes text, struct password *out,
                                          struct deed_error *err);
/* Is it the one? Costs what making it did. DEED_BUSY, DEED_NO_MEMORY. */
DEED_MUST_CHECK deed_status password_check(const struct password *password, deed_bytes text,
                                           bool *out_right, struct deed_error *err);

/* As a JSON object. */
void password_write(struct json_writer *w, const struct password *password);
/* false: it is none, or would cost more than any that is made here. */
bool password_read(json_value object, struct password *out);

#endif
