/* http1_writer.c - responses into a buf. */
#include "http1/http1.h"

#include "base/text.h"

#include <assert.h>
#include <stdio.h>
#include <time.h>

const char *http1_reason(int status)
{
    static const struct {
        int status;
        const char *reason;
    } reasons[] = {
        {200, "OK"},
        {100, "Continue"},
        {201, "Created"},
        {202, "Accepted"},
        {204, "No Content"},
        {301, "Moved Permanently"},
        {302, "Found"},
        {303, "See Other"},
        {304, "Not Modified"},
        {307, "Temporary Redirect"},
        {308, "Permanent Redirect"},
        {400, "Bad Request"},
        {401, "Unauthorized"},
        {403, "Forbidden"},
        {404, "Not Found"},
        {405, "Method Not Allowed"},
        {406, "Not Acceptable"},
        {408, "Request Timeout"},
        {409, "Conflict"},
        {410, "Gone"},
        {411, "Length Required"},
        {412, "Precondition Failed"},
        {413, "Content Too Large"},
        {414, "URI Too Long"},
        {415, "Unsupported Media Type"},
        {416, "Range Not Satisfiable"},
        {417, "Expectation Failed"},
        {422, "Unprocessable Content"},
        {428, "Precondition Required"},
        {429, "Too Many Requests"},
        {431, "Request Header Fields Too Large"},
        {500, "Internal Server Error"},
        {501, "Not Implemented"},
        {502, "Bad Gateway"},
        {503, "Service Unavailable"},
        {504, "Gateway Timeout"},
        {505, "HTTP Version Not Supported"},
        {507, "Insufficient Storage"},
    };
    for (size_t i = 0; i < sizeof reasons / sizeof *reasons; i++) {
        if (reasons[i].status == status) return reasons[i].reason;
    }
    return "Unknown";
}

static void number_put(struct buf *out, uint64_t value)
{
    uint8_t *at = buf_reserve(out, U64_TEXT_SIZE);
    if (at != NULL) out->len += u64_format(value, (char *)at);
}

static void value_put(struct buf *out, deed_str value)
{
    const uint64_t ones = UINT64_C(0x0101010101010101), tops = UINT64_C(0x8080808080808080);
    uint8_t *at = buf_reserve(out, value.len);
    size_t i = 0;
    if (at == NULL) return;
    while (value.len - i >= 8) { /* while all eight are plain, as they nearly always are */
        uint64_t bytes;
        memcpy(&bytes, value.ptr + i, 8);
        uint64_t del = bytes ^ ones * 0x7f;
        if ((((bytes - ones * 0x20) & ~bytes) | ((del - ones) & ~del)) & tops) break;
        memcpy(at + i, &bytes, 8);
        i += 8;
    }
    for (; i < value.len; i++) {
        uint8_t c = (uint8_t)value.ptr[i];
        at[i] = (c < 0x20 && c != '\t') || c == 0x7f ? ' ' : c;
    }
    out->len += value.len;
}

/* Inline, so that a literal's size is known. */
static inline void literal_put(struct buf *out, const char *text)
{
    buf_add(out, text, strlen(text));
}

void http1_write_head(struct buf *out, const struct http1_response *response)
{
    assert(response->status >= 100 && response->status <= 999);
    if (response->status == 200) {
        literal_put(out, "HTTP/1.1 200 OK\r\n");
    } else {
        literal_put(out, "HTTP/1.1 ");
        number_put(out, (uint64_t)response->status);
        buf_add_byte(out, ' ');
        literal_put(out, http1_reason(response->status));
        literal_put(out, "\r\n");
    }
    if (response->date.len > 0) {
        literal_put(out, "Date: ");
        buf_add_str(out, response->date);
        literal_put(out, "\r\n");
    }
    for (size_t i = 0; i < response->header_count; i++) {
        value_put(out, response->headers[i].name);
        literal_put(out, ": ");
        value_put(out, response->headers[i].value);
        literal_put(out, "\r\n");
    }
    bool bodiless = response->status < 200 || response->status == 204 || response->status == 304;
    if (bodiless) {
        /* No length: RFC 9110, 8.6. */
    } else if (response->framing == HTTP1_LENGTH) {
        literal_put(out, "Content-Length: ");
        number_put(out, response->content_length);
        literal_put(out, "\r\n");
    } else if (response->framing == HTTP1_CHUNKED) {
        literal_put(out, "Transfer-Encoding: chunked\r\n");
    }
    if (response->close) {
        literal_put(out, "Connection: close\r\n");
    } else if (response->version_minor == 0) {
        literal_put(out, "Connection: keep-alive\r\n");
    }
    literal_put(out, "\r\n");
}

void http1_write_chunk(struct buf *out, deed_bytes bytes)
{
    if (bytes.len == 0) return; /* an empty chunk is the end */
    char size[24];
    int len = snprintf(size, sizeof size, "%zx\r\n", bytes.len);
    buf_add(out, size, (size_t)len);
    buf_add(out, bytes.ptr, bytes.len);
    buf_add(out, "\r\n", 2);
}

void http1_write_end(struct buf *out)
{
    literal_put(out, "0\r\n\r\n");
}

void http1_write_continue(struct buf *out)
{
    literal_put(out, "HTTP/1.1 100 Continue\r\n\r\n");
}

void http1_date(int64_t unix_seconds, char out[HTTP1_DATE_SIZE + 1])
{
    static const char days[] = "SunMonTueWedThuFriSat";
    static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
    time_t seconds = (time_t)unix_seconds;
    struct tm tm = {0};
    if (gmtime_r(&seconds, &tm) == NULL || tm.tm_year > 9999 - 1900 || tm.tm_year < -1900) {
        tm = (struct tm){.tm_mday = 1, .tm_wday = 4, .tm_year = 70}; /* out of the format's reach */
    }
    char text[64];
    (void)snprintf(text, sizeof text, "%.3s, %02d %.3s %04d %02d:%02d:%02d GMT",
                   days + 3 * tm.tm_wday, tm.tm_mday, months + 3 * tm.tm_mon, tm.tm_year + 1900,
                   tm.tm_hour, tm.tm_min, tm.tm_sec);
    memcpy(out, text, HTTP1_DATE_SIZE);
    out[HTTP1_DATE_SIZE] = '\0';
}
