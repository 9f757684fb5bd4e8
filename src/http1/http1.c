/* http1.c - a scanner finds where a head ends, llhttp takes it apart, a decoder reads the body.
 *
 *     bytes ──► scanner ──► whole head ──► llhttp ──► request line, headers ──► rules ──► body
 *
 * (1) llhttp only ever sees whole heads, in one piece: how the bytes were cut cannot change what
 *     it says.
 * (2) The scanner lets through CR and LF in pairs only, no other control character but TAB, and no
 *     line that begins with white space (a folded header).
 * (3) Framing is decided by head_rules alone, from the headers: a request has a body of
 *     `content_length` bytes, or a chunked one, or none, and never two ways to read it.
 * (4) An error is final: the bytes behind it have no meaning any more. */
#include "http1/http1.h"

#include "base/text.h"

#include <llhttp.h>
#include <stdlib.h>

#define HEAD_SIZE_DEFAULT ((size_t)16 << 10)
#define BODY_SIZE_DEFAULT ((size_t)33 << 20)

/* A request's body buffer up to this size is kept for the next request. */
#define BODY_KEPT_MAX ((size_t)64 << 10)

enum phase { PHASE_HEAD, PHASE_NO_BODY, PHASE_LENGTH, PHASE_CHUNKED, PHASE_FAILED };

enum scan {
    SCAN_BEFORE,    /* empty lines before a request are skipped */
    SCAN_BEFORE_CR,
    SCAN_LINE,
    SCAN_LINE_CR,
    SCAN_LINE_START,
    SCAN_LAST_CR,
};

/* In the chunked body `scan` is one of these. */
enum chunk {
    CHUNK_SIZE,
    CHUNK_EXTENSION,
    CHUNK_SIZE_LF,
    CHUNK_DATA,
    CHUNK_DATA_CR,
    CHUNK_DATA_LF,
    CHUNK_TRAILER_START,
    CHUNK_TRAILER,
    CHUNK_TRAILER_LF,
    CHUNK_END_LF,
};

/* 15 hexadecimal digits cannot overflow, and no body is that large. */
#define CHUNK_DIGITS_MAX 15

static enum http1_event refuse(struct http1 *h, int status, struct deed_error *err,
                               const char *message)
{
    h->phase = PHASE_FAILED;
    h->status = status;
    deed_status kind = status == 413 || status == 414 || status == 431 ? DEED_TOO_LARGE
                       : status == 503                                 ? DEED_NO_MEMORY
                                                                       : DEED_INVALID;
    (void)deed_fail(err, kind, "%s", message);
    return HTTP1_ERROR;
}

void http1_request_init(struct http1_request *r, struct arena *arena, size_t body_size_max)
{
    *r = (struct http1_request){.arena = arena};
    buf_init(&r->body, body_size_max == 0 ? BODY_SIZE_DEFAULT : body_size_max);
}

void http1_request_reset(struct http1_request *r)
{
    struct buf body = r->body;
    if (body.room > BODY_KEPT_MAX) buf_done(&body);
    buf_reset(&body);
    *r = (struct http1_request){.arena = r->arena, .body = body};
}

void http1_request_done(struct http1_request *r)
{
    buf_done(&r->body);
}

deed_str http1_header_get(const struct http1_request *r, const char *name)
{
    for (size_t i = 0; i < r->header_count; i++) {
        if (str_equal_fold(r->headers[i].name, name)) return r->headers[i].value;
    }
    return (deed_str){0};
}

void http1_init(struct http1 *h, const struct http1_limits *limits)
{
    *h = (struct http1){.limits = *limits};
    if (h->limits.head_size_max == 0) h->limits.head_size_max = HEAD_SIZE_DEFAULT;
    if (h->limits.body_size_max == 0) h->limits.body_size_max = BODY_SIZE_DEFAULT;
    buf_init(&h->partial, h->limits.head_size_max);
}

void http1_done(struct http1 *h)
{
    buf_done(&h->partial);
}

bool http1_between_requests(const struct http1 *h)
{
    return h->phase == PHASE_HEAD && h->scan == SCAN_BEFORE;
}

bool http1_in_body(const struct http1 *h)
{
    return h->phase == PHASE_NO_BODY || h->phase == PHASE_LENGTH || h->phase == PHASE_CHUNKED;
}

/* ---- the scanner -------------------------------------------------------------------------- */

/* Bytes from `at` on, up to `size`, that are neither control characters nor DEL. */
static size_t plain_run(const uint8_t *at, size_t size)
{
    const uint64_t ones = UINT64_C(0x0101010101010101), tops = UINT64_C(0x8080808080808080);
    size_t i = 0;
    while (size - i >= 8) {
        uint64_t bytes;
        memcpy(&bytes, at + i, 8);
        uint64_t del = bytes ^ ones * 0x7f;
        if ((((bytes - ones * 0x20) & ~bytes) | ((del - ones) & ~del)) & tops) break;
        i += 8;
    }
    while (i < size && at[i] >= 0x20 && at[i] != 0x7f) i++;
    return i;
}

enum scanned { SCANNED_MORE, SCANNED_WHOLE, SCANNED_BAD, SCANNED_TOO_LARGE };

/* One byte that is not plain, or any byte where the state is not SCAN_LINE. */
static enum scanned scan_byte(struct http1 *h, uint8_t c)
{
    switch ((enum scan)h->scan) {
    case SCAN_BEFORE:
        if (c == '\r') {
            h->scan = SCAN_BEFORE_CR;
            return SCANNED_MORE;
        }
        if (c <= 0x20 || c == 0x7f) return SCANNED_BAD;
        h->scan = SCAN_LINE;
        return SCANNED_MORE;
    case SCAN_BEFORE_CR:
        h->scan = SCAN_BEFORE;
        return c == '\n' ? SCANNED_MORE : SCANNED_BAD;
    case SCAN_LINE:
        if (c == '\r') {
            h->scan = SCAN_LINE_CR;
            return SCANNED_MORE;
        }
        return (c >= 0x20 && c != 0x7f) || (c == '\t' && h->first_line_ended) ? SCANNED_MORE
                                                                             : SCANNED_BAD;
    case SCAN_LINE_CR:
        h->scan = SCAN_LINE_START;
        h->first_line_ended = true;
        return c == '\n' ? SCANNED_MORE : SCANNED_BAD;
    case SCAN_LINE_START:
        if (c == '\r') {
            h->scan = SCAN_LAST_CR;
            return SCANNED_MORE;
        }
        if (c <= 0x20 || c == 0x7f) return SCANNED_BAD;
        h->scan = SCAN_LINE;
        return SCANNED_MORE;
    case SCAN_LAST_CR:
        return c == '\n' ? SCANNED_WHOLE : SCANNED_BAD;
    }
    return SCANNED_BAD;
}

/* Look for the head's end; `*out_used` bytes were looked at. */
static enum scanned scan_head(struct http1 *h, deed_bytes in, size_t *out_used)
{
    size_t i = 0;
    enum scanned result = SCANNED_MORE;
    while (i < in.len && result == SCANNED_MORE) {
        size_t left = h->limits.head_size_max - h->head_size;
        if (left == 0) {
            result = SCANNED_TOO_LARGE;
            break;
        }
        if (left > in.len - i) left = in.len - i;
        size_t run = h->scan == SCAN_LINE ? plain_run(in.ptr + i, left) : 0;
        if (run == 0) {
            result = scan_byte(h, in.ptr[i]);
            run = 1;
        }
        h->head_size += run;
        i += run;
    }
    *out_used = i;
    return result;
}

/* ---- llhttp ------------------------------------------------------------------------------- */

struct parse {
    deed_str method, target;
    struct http1_header headers[HTTP1_HEADER_COUNT_MAX];
    size_t header_count;
    bool in_value, too_many;
};

/* A span may come in pieces; they lie side by side. */
static void span_add(deed_str *span, const char *at, size_t len)
{
    if (span->ptr == NULL) {
        *span = (deed_str){at, len};
    } else {
        span->len = (size_t)(at - span->ptr) + len;
    }
}

static int on_method(llhttp_t *parser, const char *at, size_t len)
{
    span_add(&((struct parse *)parser->data)->method, at, len);
    return 0;
}

static int on_url(llhttp_t *parser, const char *at, size_t len)
{
    span_add(&((struct parse *)parser->data)->target, at, len);
    return 0;
}

static int on_header_field(llhttp_t *parser, const char *at, size_t len)
{
    struct parse *p = parser->data;
    if (p->in_value || p->header_count == 0) {
        if (p->header_count == HTTP1_HEADER_COUNT_MAX) {
            p->too_many = true;
            return -1;
        }
        p->headers[p->header_count++] = (struct http1_header){0};
        p->in_value = false;
    }
    span_add(&p->headers[p->header_count - 1].name, at, len);
    return 0;
}

static int on_header_value(llhttp_t *parser, const char *at, size_t len)
{
    struct parse *p = parser->data;
    p->in_value = true;
    span_add(&p->headers[p->header_count - 1].value, at, len);
    return 0;
}

static int on_headers_complete(llhttp_t *parser __attribute__((unused)))
{
    return HPE_PAUSED; /* the body is read by this module */
}

static const llhttp_settings_t settings = {
    .on_method = on_method,
    .on_url = on_url,
    .on_header_field = on_header_field,
    .on_header_value = on_header_value,
    .on_headers_complete = on_headers_complete,
};

static bool is_token_byte(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           (c != '\0' && strchr("!#$%&'*+-.^_`|~", c) != NULL);
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* Tell apart, in a request line that llhttp refuses, what has a status of its own: a method or a
 * version that is well-formed and unknown. */
static int line_status(deed_str head)
{
    const char *end = memchr(head.ptr, '\r', head.len);
    deed_str line = {head.ptr, end == NULL ? head.len : (size_t)(end - head.ptr)};
    size_t token = 0;
    while (token < line.len && is_token_byte(line.ptr[token])) token++;
    if (token == 0 || token == line.len || line.ptr[token] != ' ' || line.len < token + 11) {
        return 400;
    }
    const char *version = line.ptr + line.len - 9;
    if (memcmp(version, " HTTP/", 6) != 0 || !is_digit(version[6]) || version[7] != '.' ||
        !is_digit(version[8])) {
        return 400;
    }
    const char *target_end = version;
    for (const char *at = line.ptr + token + 1; at < target_end; at++) {
        if ((unsigned char)*at <= 0x20 || (unsigned char)*at >= 0x7f) return 400;
    }
    return version[6] != '1' || version[8] > '1' ? 505 : 501;
}

/* One space on each side of the target: llhttp skips any number. */
static bool line_exact(const struct parse *p)
{
    const char *target_end = p->target.ptr + p->target.len;
    return p->method.ptr != NULL && p->target.ptr == p->method.ptr + p->method.len + 1 &&
           memcmp(target_end, " HTTP/1.", 8) == 0 && target_end[9] == '\r';
}

static enum http1_event parse_head(struct http1 *h, deed_str head, struct parse *p,
                                   struct http1_request *r, struct deed_error *err)
{
    llhttp_t parser;
    llhttp_init(&parser, HTTP_REQUEST, &settings);
    parser.data = p;
    p->method = p->target = (deed_str){0};
    p->header_count = 0;
    p->in_value = p->too_many = false;

    llhttp_errno_t result = llhttp_execute(&parser, head.ptr, head.len);
    if (result == HPE_PAUSED && parser.http_major == 1 && parser.http_minor <= 1) {
        r->version_minor = parser.http_minor;
        if (!line_exact(p)) return refuse(h, 400, err, "the request line is malformed");
        return HTTP1_HEAD;
    }
    if (p->too_many) return refuse(h, 431, err, "more than 100 headers");
    if (result == HPE_INVALID_CONTENT_LENGTH && parser.reason != NULL &&
        strstr(parser.reason, "overflow") != NULL) {
        return refuse(h, 413, err, "body: Content-Length is past any limit");
    }
    if (result == HPE_PAUSED || p->header_count == 0) { /* the request line itself */
        int status = line_status(head);
        if (status == 505) {
            return refuse(h, 505, err, "only HTTP/1.0 and HTTP/1.1 are spoken here");
        }
        if (status == 501 && result == HPE_INVALID_METHOD) {
            return refuse(h, 501, err, "no such method is known here");
        }
        return refuse(h, 400, err, "the request line is malformed");
    }
    (void)refuse(h, 400, err, "");
    (void)deed_fail(err, DEED_INVALID, "malformed request: %s",
                    parser.reason == NULL ? llhttp_errno_name(result) : parser.reason);
    return HTTP1_ERROR;
}

/* ---- the rules ---------------------------------------------------------------------------- */

static deed_str trim(deed_str s)
{
    while (s.len > 0 && (s.ptr[0] == ' ' || s.ptr[0] == '\t')) s.ptr++, s.len--;
    while (s.len > 0 && (s.ptr[s.len - 1] == ' ' || s.ptr[s.len - 1] == '\t')) s.len--;
    return s;
}

/* Is `word` in a comma-separated list? */
static bool list_has(deed_str list, const char *word)
{
    while (list.len > 0) {
        const char *comma = memchr(list.ptr, ',', list.len);
        size_t len = comma == NULL ? list.len : (size_t)(comma - list.ptr);
        if (str_equal_fold(trim((deed_str){list.ptr, len}), word)) return true;
        size_t taken = comma == NULL ? len : len + 1;
        list = (deed_str){list.ptr + taken, list.len - taken};
    }
    return false;
}

static bool host_valid(deed_str host)
{
    for (size_t i = 0; i < host.len; i++) {
        char c = host.ptr[i];
        bool good = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || is_digit(c) ||
                    (c != '\0' && strchr("-._~!$&'()*+,;=:[]%", c) != NULL);
        if (!good) return false;
    }
    return true;
}

/* What the headers that matter here say together. */
struct facts {
    unsigned host_count, length_count, coding_count, expect_count;
    deed_str host, length, coding, expect;
    bool says_close, says_keep_alive;
};

static void facts_add(struct facts *f, const struct http1_header *header)
{
    switch (header->name.len) {
    case 4:
        if (!str_equal_fold(header->name, "host")) return;
        f->host = header->value;
        f->host_count++;
        return;
    case 6:
        if (!str_equal_fold(header->name, "expect")) return;
        f->expect = header->value;
        f->expect_count++;
        return;
    case 10:
        if (!str_equal_fold(header->name, "connection")) return;
        f->says_close = f->says_close || list_has(header->value, "close");
        f->says_keep_alive = f->says_keep_alive || list_has(header->value, "keep-alive");
        return;
    case 14:
        if (!str_equal_fold(header->name, "content-length")) return;
        f->length = header->value;
        f->length_count++;
        return;
    case 17:
        if (!str_equal_fold(header->name, "transfer-encoding")) return;
        f->coding = header->value;
        f->coding_count++;
        return;
    default:
        return;
    }
}

/* How the body is framed (3). */
static enum http1_event framing_rules(struct http1 *h, const struct facts *f,
                                      struct http1_request *r, struct deed_error *err)
{
    if (f->length_count > 0 && f->coding_count > 0) {
        return refuse(h, 400, err, "both Content-Length and Transfer-Encoding");
    }
    if (f->length_count > 1) return refuse(h, 400, err, "Content-Length more than once");
    if (f->coding_count > 1) return refuse(h, 400, err, "Transfer-Encoding more than once");
    if (f->coding_count == 1) {
        if (r->version_minor == 0) return refuse(h, 400, err, "Transfer-Encoding in HTTP/1.0");
        if (!str_equal_fold(f->coding, "chunked")) {
            deed_str last = f->coding;
            for (size_t i = last.len; i > 0; i--) {
                if (last.ptr[i - 1] != ',') continue;
                last = trim((deed_str){last.ptr + i, last.len - i});
                break;
            }
            if (last.len < f->coding.len && str_equal_fold(last, "chunked")) {
                return refuse(h, 501, err, "no transfer coding but chunked is known here");
            }
            return refuse(h, 400, err, "the last transfer coding is not chunked");
        }
        r->content_length = DEED_NONE;
        h->phase = PHASE_CHUNKED;
        h->scan = CHUNK_SIZE;
        h->left = 0;
        h->extra_size = h->line_size = 0;
        return HTTP1_HEAD;
    }
    uint64_t length = 0;
    if (f->length_count == 1 && !text_u64(f->length, &length)) {
        bool digits = f->length.len > 0;
        for (size_t i = 0; i < f->length.len; i++) digits = digits && is_digit(f->length.ptr[i]);
        if (!digits) return refuse(h, 400, err, "Content-Length is not a number");
        length = DEED_NONE - 1;
    }
    if (length > h->limits.body_size_max) {
        (void)refuse(h, 413, err, "");
        (void)deed_fail(err, DEED_TOO_LARGE, "body: %.*s bytes, limit %zu", DEED_FMT(f->length),
                        h->limits.body_size_max);
        return HTTP1_ERROR;
    }
    r->content_length = length;
    h->left = length;
    h->phase = length == 0 ? PHASE_NO_BODY : PHASE_LENGTH;
    return HTTP1_HEAD;
}

/* "/path?query", "http://host/path?query", "*". */
static enum http1_event target_rules(struct http1 *h, deed_str target, struct http1_request *r,
                                     struct deed_error *err)
{
    if (target.len == 0) return refuse(h, 400, err, "the target is empty");
    for (size_t i = 0; i < target.len; i++) {
        unsigned char c = (unsigned char)target.ptr[i];
        if (c <= 0x20 || c >= 0x7f || c == '#') {
            return refuse(h, 400, err, "the target has a character that must be percent-encoded");
        }
    }
    if (target.ptr[0] != '/' && !(target.len == 1 && target.ptr[0] == '*')) {
        size_t at = 0;
        if (target.len >= 7 && str_equal_fold((deed_str){target.ptr, 7}, "http://")) at = 7;
        if (target.len >= 8 && str_equal_fold((deed_str){target.ptr, 8}, "https://")) at = 8;
        size_t host = at;
        while (at < target.len && target.ptr[at] != '/' && target.ptr[at] != '?') at++;
        if (host == 0 || at == host) return refuse(h, 400, err, "the target is no path");
        target = (deed_str){target.ptr + at, target.len - at};
    }
    const char *mark = target.len == 0 ? NULL : memchr(target.ptr, '?', target.len);
    r->path = (deed_str){target.ptr, mark == NULL ? target.len : (size_t)(mark - target.ptr)};
    r->query = mark == NULL ? DEED_STR("")
                            : (deed_str){mark + 1, target.len - (size_t)(mark - target.ptr) - 1};
    if (r->path.len == 0) r->path = DEED_STR("/");
    return HTTP1_HEAD;
}

static enum http1_event head_rules(struct http1 *h, struct parse *p, struct http1_request *r,
                                   struct deed_error *err)
{
    struct facts f = {0};
    r->headers = arena_alloc_array(r->arena, p->header_count, sizeof *r->headers);
    if (r->headers == NULL) return refuse(h, 503, err, "out of memory");
    for (size_t i = 0; i < p->header_count; i++) {
        struct http1_header *header = &r->headers[i];
        *header = p->headers[i];
        if (header->name.len == 0) return refuse(h, 400, err, "a header without a name");
        for (size_t k = 0; k < header->name.len; k++) {
            if (!is_token_byte(header->name.ptr[k])) {
                return refuse(h, 400, err, "a header's name has a character that none may have");
            }
        }
        header->value = header->value.ptr == NULL ? DEED_STR("") : trim(header->value);
        facts_add(&f, header);
    }
    r->header_count = p->header_count;
    r->method = p->method;
    r->is_head = deed_str_equal(p->method, DEED_STR("HEAD"));
    r->keep_alive = !f.says_close && (r->version_minor == 1 || f.says_keep_alive);

    if (deed_str_equal(p->method, DEED_STR("CONNECT"))) {
        return refuse(h, 501, err, "CONNECT is not for servers like this one");
    }
    if (f.host_count == 0 && r->version_minor == 1) return refuse(h, 400, err, "Host is missing");
    if (f.host_count > 1) return refuse(h, 400, err, "Host more than once");
    if (!host_valid(f.host)) return refuse(h, 400, err, "Host is malformed");
    if (target_rules(h, p->target, r, err) == HTTP1_ERROR) return HTTP1_ERROR;
    if (framing_rules(h, &f, r, err) == HTTP1_ERROR) return HTTP1_ERROR;
    if (f.expect_count > 0 && r->version_minor == 1) {
        if (f.expect_count > 1 || !str_equal_fold(f.expect, "100-continue")) {
            return refuse(h, 417, err, "no expectation but 100-continue is known here");
        }
        r->expects_continue = h->phase != PHASE_NO_BODY;
    }
    return HTTP1_HEAD;
}

/* Leading empty lines are not llhttp's. */
static deed_str without_empty_lines(deed_str head)
{
    while (head.len >= 2 && head.ptr[0] == '\r') head.ptr += 2, head.len -= 2;
    return head;
}

static enum http1_event read_head(struct http1 *h, struct http1_request *r, deed_bytes *in,
                                  struct deed_error *err)
{
    size_t used;
    enum scanned scanned = scan_head(h, *in, &used);
    if (scanned == SCANNED_BAD) {
        return refuse(h, 400, err, "a control character, or a line that does not end in CR LF");
    }
    if (scanned == SCANNED_TOO_LARGE) {
        int status = h->first_line_ended ? 431 : 414;
        (void)refuse(h, status, err, "");
        (void)deed_fail(err, DEED_TOO_LARGE, "%s: more than %zu bytes",
                        status == 414 ? "request line" : "headers", h->limits.head_size_max);
        return HTTP1_ERROR;
    }
    deed_bytes bytes = {in->ptr, used};
    *in = (deed_bytes){in->len == 0 ? in->ptr : in->ptr + used, in->len - used};
    if (scanned == SCANNED_MORE || h->partial.len > 0) {
        buf_add(&h->partial, bytes.ptr, bytes.len);
        if (!buf_ok(&h->partial)) return refuse(h, 503, err, "out of memory");
        if (scanned == SCANNED_MORE) return HTTP1_MORE;
        bytes = buf_bytes(&h->partial);
    }
    bytes = arena_bytes(r->arena, bytes);
    buf_reset(&h->partial);
    if (bytes.ptr == NULL) return refuse(h, 503, err, "out of memory");

    struct parse parse;
    deed_str head = without_empty_lines((deed_str){(const char *)bytes.ptr, bytes.len});
    if (parse_head(h, head, &parse, r, err) == HTTP1_ERROR) return HTTP1_ERROR;
    return head_rules(h, &parse, r, err);
}

/* ---- the body ----------------------------------------------------------------------------- */

static void next_request(struct http1 *h)
{
    h->phase = PHASE_HEAD;
    h->scan = SCAN_BEFORE;
    h->head_size = 0;
    h->first_line_ended = false;
}

static void skip(deed_bytes *in, size_t size)
{
    in->ptr += size;
    in->len -= size;
}

/* Up to h->left bytes of body. false: no memory. */
static bool take_body(struct http1 *h, struct http1_request *r, deed_bytes *in)
{
    size_t size = h->left < in->len ? (size_t)h->left : in->len;
    buf_add(&r->body, in->ptr, size);
    if (size > 0) skip(in, size);
    h->left -= size;
    return buf_ok(&r->body);
}

static int hex_digit(uint8_t c)
{
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

enum chunked {
    CHUNKED_GOES_ON,
    CHUNKED_WHOLE,
    CHUNKED_BAD,
    CHUNKED_BODY_LARGE,
    CHUNKED_EXTRA_LARGE,
};

static enum chunked chunk_begins(struct http1 *h, const struct http1_request *r)
{
    if (h->left == 0) {
        h->scan = CHUNK_TRAILER_START;
        return CHUNKED_GOES_ON;
    }
    h->scan = CHUNK_DATA;
    return h->left > h->limits.body_size_max - r->body.len ? CHUNKED_BODY_LARGE : CHUNKED_GOES_ON;
}

static enum chunked size_byte(struct http1 *h, uint8_t c)
{
    int digit = hex_digit(c);
    if (digit >= 0) {
        if (++h->line_size > CHUNK_DIGITS_MAX) return CHUNKED_BAD;
        h->left = h->left << 4 | (uint64_t)digit;
        return CHUNKED_GOES_ON;
    }
    if (h->line_size == 0) return CHUNKED_BAD;
    if (c == '\r') {
        h->scan = CHUNK_SIZE_LF;
    } else if (c == ';') {
        h->scan = CHUNK_EXTENSION;
    } else {
        return CHUNKED_BAD;
    }
    return CHUNKED_GOES_ON;
}

/* A byte of an extension or a trailer: they are read over, within the limit of a head. */
static enum chunked extra_byte(struct http1 *h, uint8_t c, int after_cr)
{
    if (++h->extra_size > h->limits.head_size_max) return CHUNKED_EXTRA_LARGE;
    if (c == '\r') {
        h->scan = after_cr;
        return CHUNKED_GOES_ON;
    }
    return (c >= 0x20 && c != 0x7f) || c == '\t' ? CHUNKED_GOES_ON : CHUNKED_BAD;
}

static enum chunked expect_byte(struct http1 *h, bool holds, int next)
{
    h->scan = next;
    return holds ? CHUNKED_GOES_ON : CHUNKED_BAD;
}

/* One byte of the framing around chunks. */
static enum chunked chunk_byte(struct http1 *h, const struct http1_request *r, uint8_t c)
{
    switch ((enum chunk)h->scan) {
    case CHUNK_SIZE:
        return size_byte(h, c);
    case CHUNK_EXTENSION:
        return extra_byte(h, c, CHUNK_SIZE_LF);
    case CHUNK_SIZE_LF:
        return c == '\n' ? chunk_begins(h, r) : CHUNKED_BAD;
    case CHUNK_DATA:
        break;
    case CHUNK_DATA_CR:
        return expect_byte(h, c == '\r', CHUNK_DATA_LF);
    case CHUNK_DATA_LF:
        h->left = 0;
        h->line_size = 0;
        return expect_byte(h, c == '\n', CHUNK_SIZE);
    case CHUNK_TRAILER_START:
        if (c == '\r') return expect_byte(h, true, CHUNK_END_LF);
        if (!is_token_byte((char)c)) return CHUNKED_BAD;
        h->scan = CHUNK_TRAILER;
        return extra_byte(h, c, CHUNK_TRAILER_LF);
    case CHUNK_TRAILER:
        return extra_byte(h, c, CHUNK_TRAILER_LF);
    case CHUNK_TRAILER_LF:
        return expect_byte(h, c == '\n', CHUNK_TRAILER_START);
    case CHUNK_END_LF:
        return c == '\n' ? CHUNKED_WHOLE : CHUNKED_BAD;
    }
    return CHUNKED_BAD; /* chunk data is read_chunked's */
}

static enum http1_event read_chunked(struct http1 *h, struct http1_request *r, deed_bytes *in,
                                     struct deed_error *err)
{
    while (in->len > 0) {
        if (h->scan == CHUNK_DATA) {
            if (!take_body(h, r, in)) return refuse(h, 503, err, "out of memory");
            if (h->left == 0) h->scan = CHUNK_DATA_CR;
            continue;
        }
        enum chunked result = chunk_byte(h, r, *in->ptr);
        skip(in, 1);
        switch (result) {
        case CHUNKED_GOES_ON:
            continue;
        case CHUNKED_WHOLE:
            next_request(h);
            return HTTP1_REQUEST;
        case CHUNKED_BAD:
            return refuse(h, 400, err, "the chunked body is malformed");
        case CHUNKED_BODY_LARGE:
            (void)refuse(h, 413, err, "");
            (void)deed_fail(err, DEED_TOO_LARGE, "body: more than %zu bytes",
                            h->limits.body_size_max);
            return HTTP1_ERROR;
        case CHUNKED_EXTRA_LARGE:
            return refuse(h, 431, err, "chunk extensions and trailers are too large");
        }
    }
    return HTTP1_MORE;
}

enum http1_event http1_read(struct http1 *h, struct http1_request *r, deed_bytes *in,
                            struct deed_error *err)
{
    switch ((enum phase)h->phase) {
    case PHASE_HEAD:
        return in->len == 0 ? HTTP1_MORE : read_head(h, r, in, err);
    case PHASE_NO_BODY:
        next_request(h);
        return HTTP1_REQUEST;
    case PHASE_LENGTH:
        if (!take_body(h, r, in)) return refuse(h, 503, err, "out of memory");
        if (h->left > 0) return HTTP1_MORE;
        next_request(h);
        return HTTP1_REQUEST;
    case PHASE_CHUNKED:
        return read_chunked(h, r, in, err);
    case PHASE_FAILED:
        break;
    }
    return HTTP1_ERROR;
}
