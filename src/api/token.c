/* token.c - written and read in one place. */
#include "api/token.h"

#include <assert.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#include "api/call.h"
#include "base/planted.h"
#include "base/text.h"

size_t token_format(const struct api *api, enum token_kind kind, uint64_t value,
                    char out[TOKEN_SIZE_MAX])
{
    static_assert(sizeof api->log_name + 3 + 2 * U64_TEXT_SIZE <= TOKEN_SIZE_MAX, "see token.h");
    size_t size = sizeof api->log_name - 1;
    memcpy(out, api->log_name, size);
    out[size++] = '.';
    size += u64_format(api->epoch, out + size);
    out[size++] = '.';
    out[size++] = (char)kind;
    size += u64_format(value, out + size);
    out[size] = '\0';
    return size;
}

/* The part before the next dot; `rest` goes behind it. ptr NULL: there is no dot. */
static deed_str part_take(deed_str *rest)
{
    const char *dot = rest->len == 0 ? NULL : memchr(rest->ptr, '.', rest->len);
    if (dot == NULL) return (deed_str){0};
    deed_str part = {rest->ptr, (size_t)(dot - rest->ptr)};
    *rest = (deed_str){dot + 1, rest->len - part.len - 1};
    return part;
}

static deed_status token_invalid(deed_str text, struct deed_error *err)
{
    return deed_fail(err, DEED_INVALID, "\"%.*s\" is not a token of this server",
                     DEED_FMT(str_beginning(text, TOKEN_SIZE_MAX)));
}

deed_status token_stale(struct deed_error *err, const char *format, ...)
{
    char text[DEED_MESSAGE_SIZE];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    deed_status status = deed_fail(err, DEED_CONFLICT, "%s", text);
    if (err != NULL) (void)snprintf(err->code, sizeof err->code, "stale_token");
    return status;
}

deed_status token_parse(const struct api *api, enum token_kind kind, deed_str text,
                        uint64_t *out_value, struct deed_error *err)
{
    deed_str rest = text;
    deed_str log = part_take(&rest);
    deed_str epoch_text = part_take(&rest);
    uint64_t epoch, value;
    if (log.len != sizeof api->log_name - 1 || !text_u64(epoch_text, &epoch)) {
        return token_invalid(text, err);
    }
    if (rest.len < 2 || rest.ptr[0] != (char)kind) return token_invalid(text, err);
    if (!text_u64((deed_str){rest.ptr + 1, rest.len - 1}, &value)) return token_invalid(text, err);

    bool same_epoch = epoch == api->epoch || PLANTED(TOKEN_OF_ANY_EPOCH);
    if (memcmp(log.ptr, api->log_name, log.len) != 0 || !same_epoch) {
        return token_stale(err,
                           "token %.*s is of another log or epoch; this is log %s, epoch %" PRIu64
                           ": read again from the start",
                           DEED_FMT(text), api->log_name, api->epoch);
    }
    uint64_t end = store_position(api->parts.store);
    if (kind == TOKEN_POSITION && value > end) {
        return token_stale(err,
                           "token %.*s is past the log's end at position %" PRIu64
                           ": the log was put back to an earlier state, read again from the start",
                           DEED_FMT(text), end);
    }
    *out_value = value;
    return DEED_OK;
}
