/* call.c - from bytes to typed values, strictly.
 *
 * (1) Each parameter is decoded once, checked to be UTF-8 without NUL, and belongs to the route's
 *     table; a name that is not in it is refused, since a misspelt filter that is ignored answers
 *     another question than was asked.
 * (2) The first failure stays; what follows it changes nothing. */
#include "api/call.h"

#include <assert.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "api/token.h"
#include "base/text.h"
#include "base/timetext.h"

/* What of a client's text goes into a message. */
#define QUOTED_SIZE_MAX 100

static deed_str quoted(deed_str text)
{
    return str_beginning(text, QUOTED_SIZE_MAX);
}

/* ---- small texts ---------------------------------------------------------------------------- */

deed_str str_trim(deed_str s)
{
    while (s.len > 0 && (s.ptr[0] == ' ' || s.ptr[0] == '\t'))
        s = (deed_str){s.ptr + 1, s.len - 1};
    while (s.len > 0 && (s.ptr[s.len - 1] == ' ' || s.ptr[s.len - 1] == '\t'))
        s.len--;
    return s;
}

/* The part before the next `mark`, without white space around; false at the end. */
static bool part_next(deed_str *rest, char mark, deed_str *out_part)
{
    if (rest->ptr == NULL) return false;
    const char *at = rest->len == 0 ? NULL : memchr(rest->ptr, mark, rest->len);
    if (at == NULL) {
        *out_part = str_trim(*rest);
        *rest = (deed_str){0};
    } else {
        size_t size = (size_t)(at - rest->ptr);
        *out_part = str_trim((deed_str){rest->ptr, size});
        *rest = (deed_str){at + 1, rest->len - size - 1};
    }
    return true;
}

static int hex_value(char c)
{
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

bool percent_decode(struct arena *arena, deed_str raw, bool plus, deed_str *out, const char **what)
{
    char *text = arena_alloc(arena, raw.len + 1);
    *what = "does not fit into memory";
    if (text == NULL) return false;

    size_t size = 0;
    for (size_t i = 0; i < raw.len; i++) {
        char c = raw.ptr[i];
        if (c == '+' && plus) {
            c = ' ';
        } else if (c == '%') {
            int high = raw.len - i > 2 ? hex_value(raw.ptr[i + 1]) : -1;
            int low = raw.len - i > 2 ? hex_value(raw.ptr[i + 2]) : -1;
            *what = "has a % without two hexadecimal digits";
            if (high < 0 || low < 0) return false;
            c = (char)(high << 4 | low);
            i += 2;
        }
        *what = "holds a NUL";
        if (c == '\0') return false;
        text[size++] = c;
    }
    *what = "is not UTF-8";
    *out = (deed_str){text, size};
    return utf8_valid(deed_bytes_of(*out));
}

/* ---- failures ----------------------------------------------------------------------------- */

void call_wrong(struct call *c, deed_status status, const char *format, ...)
{
    if (c->status != DEED_OK) return; /* (2) */
    char message[DEED_MESSAGE_SIZE];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    c->status = deed_fail(&c->err, status, "%s", message);
}

static void wrong_value(struct call *c, const char *name, deed_str value, const char *wanted)
{
    call_wrong(c, DEED_INVALID, "parameter %s: \"%.*s\" is not %s", name, DEED_FMT(quoted(value)),
               wanted);
}

/* ---- splitting ---------------------------------------------------------------------------- */

static void decode_path(struct call *c)
{
    deed_str raw[ROUTE_SEGMENTS_MAX] = {{0}};
    if (c->route->pattern == NULL || !route_matches(c->route->pattern, c->x->request.path, raw)) {
        return; /* 404, 405, OPTIONS */
    }
    for (size_t i = 0; i < ROUTE_SEGMENTS_MAX; i++) {
        const char *what = NULL;
        if (raw[i].ptr == NULL) continue;
        if (!percent_decode(c->arena, raw[i], false, &c->segments[i], &what)) {
            call_wrong(c, DEED_INVALID, "path: \"%.*s\" %s", DEED_FMT(quoted(raw[i])), what);
        }
    }
}

static const struct route_parameter *parameter_find(const struct api_route *route, deed_str name)
{
    for (const struct route_parameter *p = route->parameters; p != NULL && p->name != NULL; p++) {
        if (p->in == IN_QUERY && deed_str_equal(name, deed_str_of(p->name))) return p;
    }
    return NULL;
}

/* "after, type, tag": what a route takes. */
static deed_str parameters_known(struct call *c)
{
    deed_str list = DEED_STR("");
    for (const struct route_parameter *p = c->route->parameters; p != NULL && p->name != NULL;
         p++) {
        if (p->in != IN_QUERY) continue;
        list =
            arena_printf(c->arena, "%.*s%s%s", DEED_FMT(list), list.len == 0 ? "" : ", ", p->name);
    }
    return list.len == 0 ? DEED_STR("none") : list;
}

static void value_check(struct call *c, size_t index)
{
    const struct call_value *value = &c->values[index];
    const struct route_parameter *parameter = parameter_find(c->route, value->name);
    if (parameter == NULL && !c->route->free_parameters) {
        deed_str known = parameters_known(c);
        call_wrong(c, DEED_INVALID, "parameter \"%.*s\" is unknown here; known: %.*s",
                   DEED_FMT(quoted(value->name)), DEED_FMT(known));
        return;
    }
    if (parameter != NULL && parameter->is_list) return;
    for (size_t i = 0; i < index; i++) {
        if (deed_str_equal(c->values[i].name, value->name)) {
            call_wrong(c, DEED_INVALID, "parameter \"%.*s\" is given twice",
                       DEED_FMT(quoted(value->name)));
            return;
        }
    }
}

static void decode_value(struct call *c, deed_str raw)
{
    struct call_value *value = &c->values[c->value_count];
    const char *equals = memchr(raw.ptr, '=', raw.len);
    size_t name_size = equals == NULL ? raw.len : (size_t)(equals - raw.ptr);
    deed_str name = {raw.ptr, name_size};
    deed_str text = {raw.ptr + raw.len, 0};
    if (equals != NULL) text = (deed_str){equals + 1, raw.len - name_size - 1};

    const char *what = NULL;
    if (!percent_decode(c->arena, name, true, &value->name, &what) ||
        !percent_decode(c->arena, text, true, &value->value, &what)) {
        call_wrong(c, DEED_INVALID, "query: \"%.*s\" %s", DEED_FMT(quoted(raw)), what);
        return;
    }
    value->raw = raw;
    value_check(c, c->value_count++);
}

static void decode_query(struct call *c)
{
    deed_str query = c->x->request.query;
    if (query.len == 0 || c->route->pattern == NULL) return;

    size_t count = 1;
    for (size_t i = 0; i < query.len; i++)
        count += query.ptr[i] == '&';
    c->values = arena_alloc_array(c->arena, count, sizeof *c->values);
    if (c->values == NULL) {
        call_wrong(c, DEED_NO_MEMORY, "query: no memory left for it");
        return;
    }
    const char *end = query.ptr + query.len;
    for (const char *at = query.ptr; at < end && c->status == DEED_OK;) {
        const char *mark = memchr(at, '&', (size_t)(end - at));
        if (mark == NULL) mark = end;
        if (mark > at) decode_value(c, (deed_str){at, (size_t)(mark - at)});
        at = mark + 1;
    }
}

/* A client that sends back the Deedbook-Log it was answered with has bare positions and revisions
 * checked, too: of another log, or of before a restore, they may name other events now. */
static void check_log(struct call *c)
{
    deed_str log = call_header(c, "Deedbook-Log", sizeof c->api->log_header);
    if (c->status != DEED_OK || log.ptr == NULL) return;
    if (deed_str_equal(log, deed_str_of(c->api->log_header))) return;
    c->status = token_stale(&c->err,
                            "header Deedbook-Log: %.*s is of another log or epoch; this is %s: "
                            "read again from the start",
                            DEED_FMT(quoted(log)), c->api->log_header);
}

struct call *call_create(struct api *api, struct api_exchange *x)
{
    struct call *c = arena_alloc(x->arena, sizeof *c);
    if (c == NULL) return NULL;
    c->api = api;
    c->x = x;
    c->arena = x->arena;
    c->route = x->route;
    decode_path(c);
    decode_query(c);
    check_log(c);
    return c;
}

/* ---- parameters ----------------------------------------------------------------------------- */

/* (1): asking for what the table does not have is our bug. */
static const struct route_parameter *parameter_of(const struct call *c, const char *name)
{
    const struct route_parameter *parameter = parameter_find(c->route, deed_str_of(name));
    assert(parameter != NULL);
    return parameter;
}

static const struct call_value *value_find(const struct call *c, const char *name)
{
    for (size_t i = 0; i < c->value_count; i++) {
        if (deed_str_equal(c->values[i].name, deed_str_of(name))) return &c->values[i];
    }
    return NULL;
}

bool call_given(struct call *c, const char *name)
{
    (void)parameter_of(c, name);
    return value_find(c, name) != NULL;
}

deed_str call_text(struct call *c, const char *name)
{
    (void)parameter_of(c, name);
    const struct call_value *value = value_find(c, name);
    return value == NULL ? (deed_str){0} : value->value;
}

uint64_t call_number(struct call *c, const char *name, uint64_t min, uint64_t max,
                     uint64_t fallback)
{
    deed_str text = call_text(c, name);
    uint64_t value;
    if (text.ptr == NULL) return fallback;
    if (text_u64(text, &value) && value >= min && value <= max) return value;

    char wanted[80];
    if (max == UINT64_MAX || max == INT64_MAX) {
        (void)snprintf(wanted, sizeof wanted, "a whole number from %" PRIu64 " on", min);
    } else {
        (void)snprintf(wanted, sizeof wanted, "a whole number from %" PRIu64 " to %" PRIu64, min,
                       max);
    }
    wrong_value(c, name, text, wanted);
    return fallback;
}

bool call_flag(struct call *c, const char *name, bool fallback)
{
    deed_str text = call_text(c, name);
    if (text.ptr == NULL) return fallback;
    if (text.len == 0 || deed_str_equal(text, DEED_STR("true"))) return true;
    if (deed_str_equal(text, DEED_STR("false"))) return false;
    wrong_value(c, name, text, "true or false");
    return fallback;
}

int64_t call_time(struct call *c, const char *name, bool *out_given)
{
    deed_str text = call_text(c, name);
    int64_t time_ns = 0;
    if (out_given != NULL) *out_given = text.ptr != NULL;
    if (text.ptr == NULL) return 0;

    /* "+02:00" that was not encoded has become " 02:00". */
    deed_str copy = arena_str(c->arena, text);
    if (copy.ptr != NULL && copy.len > 6 && copy.ptr[copy.len - 6] == ' ') {
        ((char *)copy.ptr)[copy.len - 6] = '+';
    }
    if (copy.ptr == NULL || !time_parse(copy, &time_ns)) {
        wrong_value(c, name, text, "a time as RFC 3339 has it, like 2026-11-23T04:07:09Z");
        return 0;
    }
    return time_ns;
}

uint64_t call_position(struct call *c, const char *name, uint64_t fallback)
{
    deed_str text = call_text(c, name);
    uint64_t value;
    if (text.ptr == NULL || c->status != DEED_OK) return fallback;
    if (text_u64(text, &value) && value != DEED_NONE) return value;
    if (memchr(text.ptr, '.', text.len) == NULL) {
        wrong_value(c, name, text, "a position or a token");
        return fallback;
    }
    c->status = token_parse(c->api, TOKEN_POSITION, text, &value, &c->err);
    if (c->status != DEED_OK) {
        deed_wrap(&c->err, "parameter %s", name);
        return fallback;
    }
    return value;
}

uint64_t call_revision(struct call *c, const char *name, uint64_t fallback)
{
    deed_str text = call_text(c, name);
    uint64_t value;
    if (text.ptr == NULL || c->status != DEED_OK) return fallback;
    if (memchr(text.ptr, '.', text.len) == NULL) {
        return call_number(c, name, 0, INT64_MAX, fallback);
    }
    c->status = token_parse(c->api, TOKEN_REVISION, text, &value, &c->err);
    if (c->status != DEED_OK) {
        deed_wrap(&c->err, "parameter %s", name);
        return fallback;
    }
    return value;
}

static bool str_ends_with(deed_str s, deed_str tail)
{
    return s.len >= tail.len && memcmp(s.ptr + s.len - tail.len, tail.ptr, tail.len) == 0;
}

uint32_t call_duration_ms(struct call *c, const char *name, uint32_t max, uint32_t fallback)
{
    deed_str text = call_text(c, name);
    if (text.ptr == NULL) return fallback;

    deed_str digits = text;
    uint64_t unit = 1, value;
    if (str_ends_with(text, DEED_STR("ms"))) {
        digits.len -= 2;
    } else if (str_ends_with(text, DEED_STR("s"))) {
        digits.len -= 1;
        unit = 1000;
    }
    if (text_u64(digits, &value) && value <= max / unit) return (uint32_t)(value * unit);

    char wanted[80];
    (void)snprintf(wanted, sizeof wanted, "a time from 0 to %" PRIu32 " ms, like 500ms or 2s", max);
    wrong_value(c, name, text, wanted);
    return fallback;
}

size_t call_choice(struct call *c, const char *name, size_t fallback)
{
    const struct route_parameter *parameter = parameter_of(c, name);
    deed_str text = call_text(c, name), choice;
    if (text.ptr == NULL) return fallback;

    deed_str rest = deed_str_of(parameter->choices);
    for (size_t i = 0; part_next(&rest, '|', &choice); i++) {
        if (deed_str_equal(choice, text)) return i;
    }
    char wanted[80];
    (void)snprintf(wanted, sizeof wanted, "one of %s", parameter->choices);
    wrong_value(c, name, text, wanted);
    return fallback;
}

size_t call_list(struct call *c, const char *name, const deed_str **out_list)
{
    assert(parameter_of(c, name)->is_list);
    size_t count = 0;
    *out_list = NULL;
    for (size_t i = 0; i < c->value_count; i++) {
        if (deed_str_equal(c->values[i].name, deed_str_of(name))) count++;
    }
    if (count == 0) return 0;

    deed_str *list = arena_alloc_array(c->arena, count, sizeof *list);
    if (list == NULL) {
        call_wrong(c, DEED_NO_MEMORY, "parameter %s: no memory left for %zu values", name, count);
        return 0;
    }
    size_t at = 0;
    for (size_t i = 0; i < c->value_count; i++) {
        if (!deed_str_equal(c->values[i].name, deed_str_of(name))) continue;
        if (c->values[i].value.len == 0) wrong_value(c, name, c->values[i].value, "a name");
        list[at++] = c->values[i].value;
    }
    *out_list = list;
    return count;
}

void call_expected(struct call *c, const char *name, enum deed_expect *out_expect,
                   uint64_t *out_revision)
{
    deed_str text = call_text(c, name);
    uint64_t revision;
    *out_expect = DEED_EXPECT_ANY;
    *out_revision = 0;
    if (text.ptr == NULL || deed_str_equal(text, DEED_STR("any"))) return;
    if (deed_str_equal(text, DEED_STR("none"))) {
        *out_expect = DEED_EXPECT_NONE;
    } else if (deed_str_equal(text, DEED_STR("exists"))) {
        *out_expect = DEED_EXPECT_EXISTS;
    } else if (text_u64(text, &revision) && revision != DEED_NONE) {
        *out_expect = DEED_EXPECT_REVISION;
        *out_revision = revision;
    } else {
        wrong_value(c, name, text, "any, none, exists or a revision");
    }
}

/* ---- headers ------------------------------------------------------------------------------ */

deed_str call_header(struct call *c, const char *name, size_t size_max)
{
    deed_str found = {0};
    const struct api_request *request = &c->x->request;
    for (size_t i = 0; i < request->header_count; i++) {
        if (!str_equal_fold(request->headers[i].name, name)) continue;
        if (found.ptr != NULL) {
            call_wrong(c, DEED_INVALID, "header %s is given twice", name);
            return (deed_str){0};
        }
        found = str_trim(request->headers[i].value);
        if (found.ptr == NULL) found = DEED_STR("");
    }
    if (found.ptr == NULL) return found;
    if (found.len > size_max) {
        call_wrong(c, DEED_INVALID, "header %s: %zu bytes, limit %zu", name, found.len, size_max);
        return (deed_str){0};
    }
    if (!utf8_valid(deed_bytes_of(found))) {
        call_wrong(c, DEED_INVALID, "header %s is not UTF-8", name);
        return (deed_str){0};
    }
    return found;
}

#define ETAG_SIZE_MAX 64

/* "5" with its quotes. */
static bool etag_revision(deed_str tag, uint64_t *out)
{
    if (tag.len < 3 || tag.ptr[0] != '"' || tag.ptr[tag.len - 1] != '"') return false;
    return text_u64((deed_str){tag.ptr + 1, tag.len - 2}, out) && *out != DEED_NONE;
}

bool call_if_match(struct call *c, enum deed_expect *out_expect, uint64_t *out_revision)
{
    deed_str match = call_header(c, "If-Match", ETAG_SIZE_MAX);
    deed_str none_match = call_header(c, "If-None-Match", ETAG_SIZE_MAX);
    if (match.ptr != NULL && none_match.ptr != NULL) {
        call_wrong(c, DEED_INVALID, "headers If-Match and If-None-Match are both given");
        return false;
    }
    *out_revision = 0;
    if (none_match.ptr != NULL) {
        *out_expect = DEED_EXPECT_NONE;
        if (deed_str_equal(none_match, DEED_STR("*"))) return true;
        call_wrong(c, DEED_INVALID, "header If-None-Match: %.*s is not *",
                   DEED_FMT(quoted(none_match)));
        return false;
    }
    if (match.ptr == NULL) return false;
    *out_expect = DEED_EXPECT_EXISTS;
    if (deed_str_equal(match, DEED_STR("*"))) return true;
    *out_expect = DEED_EXPECT_REVISION;
    if (etag_revision(match, out_revision)) return true;
    if (str_starts_with(match, DEED_STR("W/"))) {
        call_wrong(c, DEED_INVALID, "header If-Match: %.*s is weak, and a weak tag matches nothing",
                   DEED_FMT(quoted(match)));
    } else {
        call_wrong(c, DEED_INVALID,
                   "header If-Match: %.*s is not one revision in quotes, like \"5\"",
                   DEED_FMT(quoted(match)));
    }
    return false;
}

deed_str call_idempotency_key(struct call *c)
{
    size_t size_max = store_limits(c->api->parts.store)->name_size_max;
    deed_str key = call_header(c, "Idempotency-Key", size_max + 2);
    if (key.len >= 2 && key.ptr[0] == '"' && key.ptr[key.len - 1] == '"') {
        key = (deed_str){key.ptr + 1, key.len - 2};
    }
    if (key.ptr == NULL) return key;
    if (key.len == 0) call_wrong(c, DEED_INVALID, "header Idempotency-Key is empty");
    if (key.len > size_max) {
        call_wrong(c, DEED_INVALID, "header Idempotency-Key: %zu bytes, limit %zu", key.len,
                   size_max);
    }
    return key;
}

struct call_origin call_origin(struct call *c)
{
    size_t size_max = store_limits(c->api->parts.store)->name_size_max;
    return (struct call_origin){
        .actor = call_header(c, "Deedbook-Actor", size_max),
        .correlation_id = call_header(c, "Deedbook-Correlation-Id", size_max),
        .causation_id = call_header(c, "Deedbook-Causation-Id", size_max),
    };
}

/* ---- media types -------------------------------------------------------------------------- */

/* How well a range of Accept names a type: 3 "a/b", 2 "a/ *", 1 "* / *", 0 not at all. */
static int range_fits(deed_str range, const char *type)
{
    if (str_equal_fold(range, type)) return 3;
    if (deed_str_equal(range, DEED_STR("*/*"))) return 1;
    const char *slash = strchr(type, '/');
    size_t head = (size_t)(slash - type) + 1;
    if (range.len != head + 1 || range.ptr[head] != '*') return 0;
    for (size_t i = 0; i < head; i++) {
        if (ascii_lower(range.ptr[i]) != type[i]) return 0;
    }
    return 2;
}

/* "0.8" in thousandths; -1: not a weight. */
static int weight_parse(deed_str text)
{
    if (text.len == 0 || text.len > 5 || (text.ptr[0] != '0' && text.ptr[0] != '1')) return -1;
    int value = (text.ptr[0] - '0') * 1000;
    int unit = 100;
    for (size_t i = 1; i < text.len; i++) {
        if (i == 1 && text.ptr[i] == '.') continue;
        if (i == 1 || text.ptr[i] < '0' || text.ptr[i] > '9') return -1;
        value += (text.ptr[i] - '0') * unit;
        unit /= 10;
    }
    return value > 1000 ? -1 : value;
}

/* What the Accept list says of one type, in thousandths: its most exact range counts. */
static int accept_weight(deed_str accept, const char *type)
{
    deed_str item, part;
    int best_fit = 0, best_weight = 0;
    while (part_next(&accept, ',', &item)) {
        deed_str rest = item;
        int weight = 1000;
        (void)part_next(&rest, ';', &part);
        int fit = range_fits(part, type);
        while (part_next(&rest, ';', &part)) {
            if (part.len < 2 || ascii_lower(part.ptr[0]) != 'q' || part.ptr[1] != '=') continue;
            weight = weight_parse((deed_str){part.ptr + 2, part.len - 2});
            if (weight < 0) weight = 1000;
        }
        if (fit > best_fit) {
            best_fit = fit;
            best_weight = weight;
        }
    }
    return best_weight;
}

/* All Accept headers as one list. */
static deed_str accept_list(struct call *c)
{
    deed_str list = {0};
    const struct api_request *request = &c->x->request;
    for (size_t i = 0; i < request->header_count; i++) {
        if (!str_equal_fold(request->headers[i].name, "Accept")) continue;
        deed_str value = request->headers[i].value;
        list = list.ptr == NULL
                   ? value
                   : arena_printf(c->arena, "%.*s,%.*s", DEED_FMT(list), DEED_FMT(value));
    }
    return str_trim(list);
}

size_t call_accept(struct call *c, const char *const *offers, size_t count)
{
    deed_str accept = accept_list(c);
    if (accept.len == 0) return 0;

    size_t best = 0;
    int best_weight = 0;
    for (size_t i = 0; i < count; i++) {
        int weight = accept_weight(accept, offers[i]);
        if (weight > best_weight) {
            best = i;
            best_weight = weight;
        }
    }
    if (best_weight > 0) return best;

    deed_str list = DEED_STR("");
    for (size_t i = 0; i < count; i++) {
        list = arena_printf(c->arena, "%.*s%s%s", DEED_FMT(list), i == 0 ? "" : ", ", offers[i]);
    }
    if (c->status == DEED_OK) c->http = 406;
    call_wrong(c, DEED_INVALID, "header Accept: %.*s is none of %.*s", DEED_FMT(quoted(accept)),
               DEED_FMT(list));
    return 0;
}

static void wrong_content_type(struct call *c, deed_str type, const char *what)
{
    const char *const *types = c->route->body_types;
    deed_str list = DEED_STR("");
    for (size_t i = 0; i < ROUTE_BODY_TYPES_MAX && types[i] != NULL; i++) {
        list = arena_printf(c->arena, "%.*s%s%s", DEED_FMT(list), i == 0 ? "" : ", ", types[i]);
    }
    if (c->status == DEED_OK) c->http = 415;
    call_wrong(c, DEED_INVALID, "%s: \"%.*s\" is not accepted here; accepted: %.*s", what,
               DEED_FMT(quoted(type)), DEED_FMT(list));
}

/* A page of another site, open in a browser on this machine, must not write here: browsers tell where
 * a request that may change something comes from (RFC 6454; the Fetch standard). */
bool call_from_elsewhere(struct call *c)
{
    deed_str origin = call_header(c, "Origin", 1024);
    deed_str host = call_header(c, "Host", 1024);
    if (origin.len == 0) return false;
    const char *authority = memmem(origin.ptr, origin.len, "://", 3);
    size_t before = authority == NULL ? 0 : (size_t)(authority - origin.ptr) + 3;
    deed_str rest = {origin.ptr + before, origin.len - before};
    bool same = authority != NULL && rest.len == host.len &&
                (host.len == 0 || strncasecmp(rest.ptr, host.ptr, host.len) == 0);
    if (same) return false;
    c->http = 403;
    call_wrong(c, DEED_INVALID, "header Origin: %.*s is another site than this server",
               DEED_FMT(quoted(origin)));
    return true;
}

size_t call_content_type(struct call *c)
{
    deed_str encoding = call_header(c, "Content-Encoding", 1024);
    if (encoding.len > 0 && !str_equal_fold(encoding, "identity")) {
        wrong_content_type(c, encoding, "header Content-Encoding");
        return 0;
    }
    deed_str type = call_header(c, "Content-Type", 1024), rest = type, media, part;
    if (type.len == 0 || !part_next(&rest, ';', &media)) return 0;

    while (part_next(&rest, ';', &part)) {
        deed_str name;
        if (!part_next(&part, '=', &name) || !str_equal_fold(name, "charset")) continue;
        if (part.len >= 2 && part.ptr[0] == '"') part = (deed_str){part.ptr + 1, part.len - 2};
        if (!str_equal_fold(part, "utf-8")) {
            wrong_content_type(c, type, "header Content-Type");
            return 0;
        }
    }
    /* What curl -d says of any body. A browser's form says it too, and is refused by its Origin. */
    if (str_equal_fold(media, "application/x-www-form-urlencoded")) return 0;
    for (size_t i = 0; i < ROUTE_BODY_TYPES_MAX && c->route->body_types[i] != NULL; i++) {
        if (str_equal_fold(media, c->route->body_types[i])) return i;
    }
    wrong_content_type(c, type, "header Content-Type");
    return 0;
}
