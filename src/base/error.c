/* error.c - statuses and messages. */
#include "base/error.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

static const struct {
    const char *name, *text;
    int http, grpc;
} status_table[DEED_STATUS_COUNT] = {
#define STATUS_ROW(name, http, grpc, text) [name] = {#name, text, http, grpc},
    DEED_STATUS_MAP(STATUS_ROW)
#undef STATUS_ROW
};

static bool status_known(deed_status status)
{
    return (unsigned)status < DEED_STATUS_COUNT;
}

const char *deed_status_name(deed_status status)
{
    return status_known(status) ? status_table[status].name : "unknown status";
}

const char *deed_status_text(deed_status status)
{
    return status_known(status) ? status_table[status].text : "unknown status";
}

int deed_status_http(deed_status status)
{
    return status_known(status) ? status_table[status].http : 500;
}

int deed_status_grpc(deed_status status)
{
    return status_known(status) ? status_table[status].grpc : 2;
}

const char *deed_version(void)
{
    return DEED_VERSION;
}

/* Cut a message that did not fit at a character's start, so that it stays UTF-8. */
static void message_cut(char *message, size_t size, int wanted)
{
    if (wanted < 0 || (size_t)wanted < size) return;
    size_t end = size - 1;
    while (end > 0 && ((unsigned char)message[end - 1] & 0xc0) == 0x80) end--;
    if (end > 0 && (unsigned char)message[end - 1] >= 0xc0) end--;
    message[end] = '\0';
}

static void error_reset(struct deed_error *err, deed_status status)
{
    err->status = status;
    err->message[0] = '\0';
    err->code[0] = '\0';
    err->condition = DEED_NONE;
    err->position = DEED_NONE;
    err->revision = DEED_NONE;
}

deed_status deed_fail(struct deed_error *err, deed_status status, const char *format, ...)
{
    assert(status != DEED_OK);
    if (err == NULL) return status;

    /* The arguments may be the old message itself. */
    char message[DEED_MESSAGE_SIZE];
    va_list arguments;
    va_start(arguments, format);
    int wanted = vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    message_cut(message, sizeof message, wanted);

    error_reset(err, status);
    memcpy(err->message, message, sizeof message);
    return status;
}

void deed_wrap(struct deed_error *err, const char *format, ...)
{
    if (err == NULL) return;

    char message[DEED_MESSAGE_SIZE];
    va_list arguments;
    va_start(arguments, format);
    int head = vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    message_cut(message, sizeof message, head);
    if (head < 0) return;

    size_t used = strlen(message);
    int tail = snprintf(message + used, sizeof message - used, ": %s", err->message);
    message_cut(message, sizeof message, tail < 0 ? tail : (int)used + tail);
    memcpy(err->message, message, sizeof message);
}

deed_status deed_fail_errno(struct deed_error *err, int error_number, const char *format, ...)
{
    deed_status status = DEED_IO;
    if (error_number == ENOSPC || error_number == EDQUOT) status = DEED_FULL;
    if (error_number == ENOENT) status = DEED_NOT_FOUND;
    if (error_number == ENOMEM) status = DEED_NO_MEMORY;
    if (err == NULL) return status;

    char what[DEED_MESSAGE_SIZE];
    va_list arguments;
    va_start(arguments, format);
    int wanted = vsnprintf(what, sizeof what, format, arguments);
    va_end(arguments);
    message_cut(what, sizeof what, wanted);

    /* GNU's form, which answers the text; it uses the room only for numbers it does not know. */
    char room[64];
    const char *reason = strerror_r(error_number, room, sizeof room);
    return deed_fail(err, status, "%s: %s", what, reason);
}
