/* reply.c - the ends of every call.
 *
 * (1) Every path ends in exactly one finish.
 * (2) A response whose body did not fit into memory becomes a problem, never a short body. */
#include "api/reply.h"

#include "api/token.h"
#include "base/text.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>

/* The server hands in an exchange whose body may be zeroed or kept from the last request. */
static void response_reset(struct api_exchange *x)
{
    struct buf *body = &x->response.body;
    buf_reset(body);
    if (body->size_max < RESPONSE_SIZE_MAX) body->size_max = RESPONSE_SIZE_MAX;
}

struct buf *call_body(struct call *c)
{
    response_reset(c->x);
    return &c->x->response.body;
}

static void header_put(struct api_exchange *x, const char *name, deed_str value)
{
    struct api_response *response = &x->response;
    assert(response->header_count < API_RESPONSE_HEADERS_MAX);
    response->headers[response->header_count++] = (struct api_header){deed_str_of(name), value};
}

void call_put_header(struct call *c, const char *name, deed_str value)
{
    header_put(c->x, name, value);
}

/* Without memory for the digits the header stays away: it repeats what the body says. */
void call_put_number(struct call *c, const char *name, uint64_t value)
{
    char *digits = arena_alloc(c->arena, U64_TEXT_SIZE);
    if (digits == NULL) return;
    call_put_header(c, name, (deed_str){digits, u64_format(value, digits)});
}

void call_put_position(struct call *c, uint64_t position)
{
    char token[TOKEN_SIZE_MAX];
    size_t size = token_format(c->api, TOKEN_POSITION, position, token);
    deed_str text = arena_str(c->arena, (deed_str){token, size});
    call_put_number(c, "Deedbook-Position", position);
    if (text.ptr != NULL) call_put_header(c, "Deedbook-Token", text);
}

void call_put_etag(struct call *c, uint64_t revision)
{
    char *tag = revision == DEED_NONE ? NULL : arena_alloc(c->arena, U64_TEXT_SIZE + 2);
    if (tag == NULL) return;
    size_t size = 1 + u64_format(revision, tag + 1);
    tag[0] = tag[size] = '"';
    call_put_header(c, "ETag", (deed_str){tag, size + 1});
}

void call_done(struct call *c, int http, const char *content_type)
{
    struct api_exchange *x = c->x;
    if (!buf_ok(&x->response.body)) { /* (2) */
        c->http = 0;
        (void)deed_fail(&c->err, DEED_NO_MEMORY, "the answer is too large for memory");
        call_fail_with(c, DEED_NO_MEMORY);
        return;
    }
    x->response.status = http;
    if (content_type != NULL) header_put(x, "Content-Type", deed_str_of(content_type));
    x->finish(x);
}

/* ---- problems ----------------------------------------------------------------------------- */

static const char *http_title(int http, deed_status status)
{
    switch (http) {
    case 403:
        return "the request comes from another site";
    case 405:
        return "the path does not take this method";
    case 406:
        return "no acceptable media type";
    case 415:
        return "the body's media type is not accepted";
    case 408:
        return "the request took too long";
    case 431:
        return "the headers are over a limit";
    default:
        return deed_status_text(status);
    }
}

/* "DEED_NOT_FOUND" as "not_found"; statuses that only HTTP knows by their own names. */
static void status_code(int http, deed_status status, char out[DEED_CODE_SIZE])
{
    const char *name = deed_status_name(status);
    if (strncmp(name, "DEED_", 5) == 0) name += 5;
    if (http == 403) name = "cross_origin";
    if (http == 405) name = "method_not_allowed";
    if (http == 406) name = "not_acceptable";
    if (http == 408) name = "request_timeout";
    if (http == 415) name = "unsupported_media_type";
    if (http == 431) name = "headers_too_large";
    size_t i = 0;
    for (; name[i] != '\0' && i + 1 < DEED_CODE_SIZE; i++) {
        out[i] = ascii_lower(name[i]);
    }
    out[i] = '\0';
}

static void problem_write(struct buf *out, int http, const struct deed_error *err)
{
    char kind[DEED_CODE_SIZE], type[DEED_CODE_SIZE + 32];
    status_code(http, err->status, kind);
    (void)snprintf(type, sizeof type, "urn:deedbook:problem:%s", kind);

    struct json_writer w;
    json_writer_init(&w, out);
    json_object_begin(&w);
    json_member_text(&w, "type", deed_str_of(type));
    json_member_text(&w, "title", deed_str_of(http_title(http, err->status)));
    json_member_int(&w, "status", http);
    json_member_text(&w, "detail", deed_str_of(err->message));
    json_member_text(&w, "code", deed_str_of(err->code[0] != '\0' ? err->code : kind));
    if (err->condition != DEED_NONE) json_member_uint(&w, "condition", err->condition);
    if (err->position != DEED_NONE) json_member_uint(&w, "position", err->position);
    if (err->revision != DEED_NONE) json_member_uint(&w, "revision", err->revision);
    json_object_end(&w);
    buf_add_byte(out, '\n');
}

static void problem_fill(struct api_exchange *x, int http, const struct deed_error *err)
{
    assert(err->status != DEED_OK);
    response_reset(x);
    x->response.status = http;
    x->response.source = NULL;
    header_put(x, "Content-Type", DEED_STR("application/problem+json"));
    if (http == 503) header_put(x, "Retry-After", DEED_STR("1"));
    problem_write(&x->response.body, http, err);
    if (!buf_ok(&x->response.body)) buf_reset(&x->response.body); /* the status alone must do */
}

void api_problem(struct api_exchange *x, int status, const struct deed_error *err)
{
    static const struct deed_error unnamed = {.status = DEED_INVALID,
                                              .message = "the request cannot be served",
                                              .condition = DEED_NONE,
                                              .position = DEED_NONE,
                                              .revision = DEED_NONE};
    x->response.header_count = 0;
    problem_fill(x, status, err == NULL ? &unnamed : err);
}

void call_fail_with(struct call *c, deed_status status)
{
    assert(status != DEED_OK);
    c->status = status;
    c->err.status = status;
    int http = c->http != 0 ? c->http : deed_status_http(status);
    c->x->response.header_count = 0; /* what was put for a success is not true of this */
    problem_fill(c->x, http, &c->err);
    c->x->finish(c->x);
}

void call_fail(struct call *c)
{
    call_fail_with(c, c->status);
}

/* ---- links -------------------------------------------------------------------------------- */

/* Percent-encode what must not stand raw: in a Link (`keep` false) only what breaks the URI, in a
 * value everything but the unreserved characters. */
static void link_add(struct buf *out, deed_str text, bool is_value)
{
    static const char digits[] = "0123456789ABCDEF";
    for (size_t i = 0; i < text.len; i++) {
        unsigned char ch = (unsigned char)text.ptr[i];
        bool plain = ch > 0x20 && ch < 0x7f && strchr("<>\"\\^`{|}", ch) == NULL;
        if (is_value && strchr("&=+#%?/ ", ch) != NULL) plain = false;
        if (plain) {
            buf_add_byte(out, ch);
        } else {
            buf_add_byte(out, '%');
            buf_add_byte(out, (uint8_t)digits[ch >> 4]);
            buf_add_byte(out, (uint8_t)digits[ch & 15]);
        }
    }
}

deed_str call_link(struct call *c, const char *name, deed_str value)
{
    struct buf link;
    buf_init(&link, RESPONSE_SIZE_MAX);
    link_add(&link, c->x->request.path, false);
    char mark = '?';
    for (size_t i = 0; i < c->value_count; i++) {
        if (deed_str_equal(c->values[i].name, deed_str_of(name))) continue;
        buf_add_byte(&link, (uint8_t)mark);
        link_add(&link, c->values[i].raw, false);
        mark = '&';
    }
    buf_add_byte(&link, (uint8_t)mark);
    buf_add_str(&link, deed_str_of(name));
    buf_add_byte(&link, '=');
    link_add(&link, value, true);
    deed_str out = {0};
    if (buf_ok(&link)) out = arena_str(c->arena, buf_str(&link));
    buf_done(&link);
    return out;
}
