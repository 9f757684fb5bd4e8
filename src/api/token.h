/* token.h - places in the log that can be kept outside: "9f3a01bc.1.p17".
 *
 * Eight digits of the log's id, its epoch, then a position of the log or a revision of a stream. A
 * token from another log, or from before a restore, names events that may be others now: it is
 * refused, never guessed at. */
#ifndef API_TOKEN_H
#define API_TOKEN_H

#include "base/error.h"

struct api;

enum token_kind {
    TOKEN_POSITION = 'p',
    TOKEN_REVISION = 'r',
};

#define TOKEN_SIZE_MAX 52 /* 8 + 1 + 20 + 2 + 20, and a NUL */
size_t token_format(const struct api *api, enum token_kind kind, uint64_t value,
                    char out[TOKEN_SIZE_MAX]);

/*   DEED_INVALID   not a token, or of the other kind.
 *   DEED_CONFLICT  of another log or epoch, or past the log's end (a copy of the directory was put
 *                  back); the code is "stale_token". */
DEED_MUST_CHECK deed_status token_parse(const struct api *api, enum token_kind kind, deed_str text,
                                        uint64_t *out_value, struct deed_error *err);

/* DEED_CONFLICT with the code "stale_token", and a message. */
deed_status token_stale(struct deed_error *err, const char *format, ...) DEED_PRINTF(2, 3);

#endif
