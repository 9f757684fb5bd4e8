/* request.c - what goes to a target and what comes back. */
#include "cli/request.h"

#include "base/text.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

/* A line holds one event: 16 MiB of data as base64 and its names fit well. */
#define LINE_SIZE_MAX ((size_t)64 << 20)
/* Names are at most 1,024 bytes, three characters each when escaped; a query has a few of them. */
#define URL_SIZE_MAX ((size_t)256 << 10)

/* ---- requests -----------------------------------------------------------------------------------
 */

void request_header(struct request *request, const char *name, const char *value)
{
    if (value == NULL || value[0] == '\0') return;
    assert(request->header_count < REQUEST_HEADERS_MAX);
    request->headers[request->header_count++] =
        (struct api_header){deed_str_of(name), deed_str_of(value)};
}

/* RFC 3986's unreserved characters stand for themselves everywhere. */
static bool url_plain(uint8_t byte)
{
    return (byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z') ||
           (byte >= '0' && byte <= '9') || byte == '-' || byte == '.' || byte == '_' || byte == '~';
}

static void url_escape(struct buf *out, deed_str text)
{
    for (size_t i = 0; i < text.len; i++) {
        uint8_t byte = (uint8_t)text.ptr[i];
        if (url_plain(byte)) {
            buf_add_byte(out, byte);
        } else {
            buf_printf(out, "%%%02X", byte);
        }
    }
}

void url_init(struct url *url, const char *path)
{
    *url = (struct url){0};
    buf_init(&url->text, URL_SIZE_MAX);
    buf_add_str(&url->text, deed_str_of(path));
}

void url_done(struct url *url)
{
    buf_done(&url->text);
}

void url_part_str(struct url *url, deed_str part)
{
    assert(!url->has_query);
    buf_add_byte(&url->text, '/');
    url_escape(&url->text, part);
}

void url_part(struct url *url, const char *part)
{
    url_part_str(url, deed_str_of(part));
}

void url_param_str(struct url *url, const char *name, deed_str value)
{
    buf_add_byte(&url->text, url->has_query ? '&' : '?');
    url->has_query = true;
    url_escape(&url->text, deed_str_of(name));
    buf_add_byte(&url->text, '=');
    url_escape(&url->text, value);
}

void url_param(struct url *url, const char *name, const char *value)
{
    if (value != NULL) url_param_str(url, name, deed_str_of(value));
}

void url_param_uint(struct url *url, const char *name, uint64_t value)
{
    char text[24];
    snprintf(text, sizeof text, "%" PRIu64, value);
    url_param(url, name, text);
}

const char *url_text(struct url *url)
{
    uint8_t *end = buf_reserve(&url->text, 1);
    if (end == NULL) return "/"; /* past every limit of the server: it would answer 414 anyway */
    *end = '\0';
    return (const char *)url->text.ptr;
}

void reply_init(struct reply *reply)
{
    *reply = (struct reply){.position = DEED_NONE};
    buf_init(&reply->body, REPLY_SIZE_MAX);
}

void reply_done(struct reply *reply)
{
    buf_done(&reply->body);
}

/* ---- trouble ------------------------------------------------------------------------------------
 */

static deed_status status_of_http(int http_status)
{
    switch (http_status) {
    case 400:
    case 405:
    case 406:
    case 411:
    case 415:
    case 428:
        return DEED_INVALID;
    case 404:
        return DEED_NOT_FOUND;
    case 408:
    case 504:
        return DEED_TIMEOUT;
    case 409:
        return DEED_CONFLICT;
    case 410:
        return DEED_GONE;
    case 412:
        return DEED_STALE;
    case 413:
    case 414:
    case 431:
        return DEED_TOO_LARGE;
    case 422:
        return DEED_REJECTED;
    case 429:
    case 502:
    case 503:
        return DEED_BUSY;
    case 507:
        return DEED_FULL;
    case 500:
        return DEED_IO;
    default:
        return DEED_DOMAIN;
    }
}

#define PROBLEM_TYPE "urn:deedbook:problem:"

/* "urn:deedbook:problem:not_found" is DEED_NOT_FOUND: more exact than an HTTP status, which many
 * share. Anything else (a proxy's answer) leaves `otherwise`. */
static deed_status status_of_type(deed_str type, deed_status otherwise)
{
    size_t head = sizeof PROBLEM_TYPE - 1;
    if (!str_starts_with(type, DEED_STR(PROBLEM_TYPE))) return otherwise;
    for (int i = 0; i < DEED_STATUS_COUNT; i++) {
        const char *name = deed_status_name((deed_status)i) + strlen("DEED_");
        if (strlen(name) == type.len - head &&
            strncasecmp(name, type.ptr + head, type.len - head) == 0) {
            return (deed_status)i;
        }
    }
    return otherwise;
}

static void error_number(json_value problem, const char *key, uint64_t *out)
{
    json_value value = json_get(problem, deed_str_of(key));
    if (json_uint64(value, out)) return;
    (void)text_u64(json_text(value), out);
}

deed_status reply_problem(int http_status, deed_bytes body, struct deed_error *err)
{
    deed_status status = status_of_http(http_status);
    struct arena arena;
    arena_init(&arena, 1 << 20);
    json_value problem = {0};
    if (json_parse(&arena, body, 0, &problem, NULL) != DEED_OK) problem = (json_value){0};

    deed_str title = json_text(json_get(problem, DEED_STR("title")));
    deed_str detail = json_text(json_get(problem, DEED_STR("detail")));
    deed_str type = json_text(json_get(problem, DEED_STR("type")));
    status = status_of_type(type, status);
    if (detail.len > 0 && title.len > 0) {
        status = deed_fail(err, status, "%.*s: %.*s", DEED_FMT(title), DEED_FMT(detail));
    } else if (detail.len > 0 || title.len > 0) {
        status = deed_fail(err, status, "%.*s", DEED_FMT(detail.len > 0 ? detail : title));
    } else {
        status = deed_fail(err, status, "the server answered %d", http_status);
    }
    if (err != NULL) {
        /* Without a rejection's own code the server repeats the problem's kind: no news. */
        deed_str code = json_text(json_get(problem, DEED_STR("code")));
        bool news = code.len > 0 && (type.len <= code.len || memcmp(type.ptr + type.len - code.len,
                                                                    code.ptr, code.len) != 0);
        snprintf(err->code, sizeof err->code, "%.*s", news ? (int)code.len : 0,
                 news ? code.ptr : "");
        error_number(problem, "position", &err->position);
        error_number(problem, "revision", &err->revision);
        error_number(problem, "condition", &err->condition);
    }
    arena_done(&arena);
    return status;
}

/* ---- lines --------------------------------------------------------------------------------------
 */

void splitter_init(struct splitter *splitter, splitter_line *line, void *context)
{
    *splitter = (struct splitter){.line = line, .context = context};
    buf_init(&splitter->rest, LINE_SIZE_MAX);
}

void splitter_done(struct splitter *splitter)
{
    buf_done(&splitter->rest);
}

static deed_status splitter_give(struct splitter *splitter, deed_str line, struct deed_error *err)
{
    if (line.len > 0 && line.ptr[line.len - 1] == '\r') line.len--;
    return line.len == 0 ? DEED_OK : splitter->line(splitter->context, line, err);
}

deed_status splitter_add(struct splitter *splitter, deed_bytes piece, struct deed_error *err)
{
    deed_str left = {(const char *)piece.ptr, piece.len};
    while (left.len > 0) {
        const char *end = memchr(left.ptr, '\n', left.len);
        if (end == NULL) break;
        size_t size = (size_t)(end - left.ptr);
        deed_str line = {left.ptr, size};
        if (splitter->rest.len > 0) {
            buf_add(&splitter->rest, left.ptr, size);
            if (!buf_ok(&splitter->rest)) break;
            line = buf_str(&splitter->rest);
        }
        deed_status status = splitter_give(splitter, line, err);
        if (status != DEED_OK) return status;
        buf_reset(&splitter->rest);
        left = (deed_str){end + 1, left.len - size - 1};
    }
    if (left.len > 0) buf_add(&splitter->rest, left.ptr, left.len);
    if (!buf_ok(&splitter->rest)) {
        return deed_fail(err, DEED_TOO_LARGE, "a line is longer than %zu bytes", LINE_SIZE_MAX);
    }
    return DEED_OK;
}

deed_status splitter_end(struct splitter *splitter, struct deed_error *err)
{
    if (splitter->rest.len == 0) return DEED_OK;
    return splitter_give(splitter, buf_str(&splitter->rest), err);
}
