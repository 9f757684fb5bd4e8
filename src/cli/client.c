/* client.c - the HTTP API of a server, over libcurl.
 *
 * (1) One easy handle: its connection is kept alive from call to call.
 * (2) Nothing is asked twice unless the server said that it did nothing (503 with Retry-After). */
#include "cli/client.h"

#include "base/text.h"
#include "os/os.h"

#include <curl/curl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#define CONNECT_TIMEOUT_MS 10000L
#define RETRY_COUNT_MAX    3
#define RETRY_WAIT_S_MAX   5
/* The server's own deadlines end a little before ours, so that its reason is what the user sees. */
#define TIMEOUT_MARGIN_MS 2000u

struct client {
    CURL *curl;
    char *base;
    uint32_t timeout_ms;
    char curl_error[CURL_ERROR_SIZE];
    char log[80]; /* Deedbook-Log of the first answer: what later requests rest on */
};

/* One exchange: what the callbacks fill. */
struct exchange {
    struct client *client;
    struct reply *reply;
    struct splitter *splitter; /* NULL: the body is kept */
    struct deed_error *err;
    deed_status line_status; /* what a line answered */
    uint64_t retry_after_s;  /* DEED_NONE: the header was not there */
    bool lines;              /* the answer is 2xx and goes to the splitter */
};

/* Proxies from the environment are for the world outside; this machine is never behind one. */
static void proxy_set(CURL *curl)
{
    const char *list = getenv("no_proxy");
    if (list == NULL) list = getenv("NO_PROXY");
    char text[1024];
    snprintf(text, sizeof text, "%s%slocalhost,127.0.0.1,::1", list == NULL ? "" : list,
             list == NULL || list[0] == '\0' ? "" : ",");
    curl_easy_setopt(curl, CURLOPT_NOPROXY, text);
}

deed_status client_create(const char *url, uint32_t timeout_ms, struct client **out_client,
                          struct deed_error *err)
{
    if (strncasecmp(url, "http://", 7) != 0 && strncasecmp(url, "https://", 8) != 0) {
        return deed_fail(err, DEED_INVALID, "server \"%s\": a URL begins with http:// or https://",
                         url);
    }
    struct client *client = calloc(1, sizeof *client);
    if (client == NULL) return deed_fail(err, DEED_NO_MEMORY, "no memory");
    client->timeout_ms = timeout_ms;
    client->base = strdup(url);
    client->curl = curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK ? curl_easy_init() : NULL;
    if (client->base == NULL || client->curl == NULL) {
        client_destroy(client);
        return deed_fail(err, DEED_NO_MEMORY, "libcurl could not be started");
    }
    size_t size = strlen(client->base);
    while (size > 0 && client->base[size - 1] == '/')
        client->base[--size] = '\0';
    *out_client = client;
    return DEED_OK;
}

void client_destroy(struct client *client)
{
    if (client == NULL) return;
    if (client->curl != NULL) curl_easy_cleanup(client->curl);
    free(client->base);
    free(client);
}

/* ---- what libcurl calls -------------------------------------------------------------------------
 */

static bool header_is(deed_str line, const char *name, deed_str *out_value)
{
    size_t size = strlen(name);
    if (line.len <= size || line.ptr[size] != ':' || strncasecmp(line.ptr, name, size) != 0) {
        return false;
    }
    deed_str value = {line.ptr + size + 1, line.len - size - 1};
    while (value.len > 0 && (value.ptr[0] == ' ' || value.ptr[0] == '\t')) {
        value = (deed_str){value.ptr + 1, value.len - 1};
    }
    while (value.len > 0 && strchr(" \t\r\n", value.ptr[value.len - 1]) != NULL)
        value.len--;
    *out_value = value;
    return true;
}

static size_t on_header(char *text, size_t size, size_t count, void *context)
{
    struct exchange *exchange = context;
    deed_str line = {text, size * count}, value;
    if (header_is(line, "deedbook-position", &value)) {
        (void)text_u64(value, &exchange->reply->position);
    } else if (header_is(line, "deedbook-log", &value)) {
        char *log = exchange->client->log;
        bool first = log[0] == '\0' && value.len < sizeof exchange->client->log;
        if (first) memcpy(log, value.ptr, value.len), log[value.len] = '\0';
    } else if (header_is(line, "retry-after", &value)) {
        (void)text_u64(value, &exchange->retry_after_s);
    } else if (line.len > 5 && memcmp(line.ptr, "HTTP/", 5) == 0) {
        long status = 0;
        curl_easy_getinfo(exchange->client->curl, CURLINFO_RESPONSE_CODE, &status);
        exchange->reply->status = (int)status;
        exchange->lines = exchange->splitter != NULL && status >= 200 && status < 300;
    }
    return size * count;
}

static size_t on_body(char *bytes, size_t size, size_t count, void *context)
{
    struct exchange *exchange = context;
    deed_bytes piece = {(const uint8_t *)bytes, size * count};
    if (exchange->lines) {
        exchange->line_status = splitter_add(exchange->splitter, piece, exchange->err);
        return exchange->line_status == DEED_OK ? piece.len : CURL_WRITEFUNC_ERROR;
    }
    buf_add(&exchange->reply->body, piece.ptr, piece.len);
    return buf_ok(&exchange->reply->body) ? piece.len : CURL_WRITEFUNC_ERROR;
}

/* ---- one exchange -------------------------------------------------------------------------------
 */

/* NULL: no memory. */
static struct curl_slist *header_add(struct curl_slist *list, const char *name, deed_str value)
{
    struct buf line;
    buf_init(&line, 64 << 10);
    buf_printf(&line, "%s: %.*s", name, DEED_FMT(value));
    char *text = buf_take(&line);
    struct curl_slist *grown = text == NULL ? NULL : curl_slist_append(list, text);
    if (grown == NULL) curl_slist_free_all(list);
    free(text);
    buf_done(&line);
    return grown;
}

/* A log that was restored between two requests of one command is another log: the server refuses. */
static struct curl_slist *headers_make(const struct client *client, const struct request *request)
{
    deed_str accept = request->accept.len > 0 ? request->accept : DEED_STR("application/json");
    deed_str type =
        request->content_type.len > 0 ? request->content_type : DEED_STR("application/json");
    struct curl_slist *list = header_add(NULL, "Accept", accept);
    if (list != NULL) list = header_add(list, "Expect", DEED_STR("")); /* no 100-continue */
    if (list != NULL && request->body.len > 0) list = header_add(list, "Content-Type", type);
    if (list != NULL && client->log[0] != '\0') {
        list = header_add(list, "Deedbook-Log", deed_str_of(client->log));
    }
    for (size_t i = 0; i < request->header_count && list != NULL; i++) {
        list = header_add(list, request->headers[i].name.ptr, request->headers[i].value);
    }
    return list;
}

static void options_set(struct client *client, const struct request *request, const char *url,
                        struct curl_slist *headers, struct exchange *exchange)
{
    CURL *curl = client->curl;
    curl_easy_reset(curl);
    curl_easy_setopt(curl, CURLOPT_URL, url);
    curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, client->curl_error);
    curl_easy_setopt(curl, CURLOPT_USERAGENT, "deedbook/" DEED_VERSION);
    curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
    curl_easy_setopt(curl, CURLOPT_CUSTOMREQUEST, request->method);
    curl_easy_setopt(curl, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(curl, CURLOPT_HEADERDATA, exchange);
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, exchange);
    curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT_MS, CONNECT_TIMEOUT_MS);
    curl_easy_setopt(curl, CURLOPT_TCP_KEEPALIVE, 1L); /* a dead peer ends a follow some time */
    proxy_set(curl);
    uint64_t all_ms = (uint64_t)client->timeout_ms + TIMEOUT_MARGIN_MS;
    if (exchange->splitter == NULL) {
        curl_easy_setopt(curl, CURLOPT_TIMEOUT_MS, (long)all_ms);
    } else if (!request->follows) {
        /* Lines may come for as long as they like, but they must come. */
        curl_easy_setopt(curl, CURLOPT_LOW_SPEED_LIMIT, 1L);
        curl_easy_setopt(curl, CURLOPT_LOW_SPEED_TIME, (long)(all_ms / 1000));
    }
    if (strcmp(request->method, "GET") != 0) {
        curl_easy_setopt(curl, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)request->body.len);
        curl_easy_setopt(curl, CURLOPT_POSTFIELDS,
                         request->body.len == 0 ? "" : (const char *)request->body.ptr);
    }
}

/* What libcurl says, as a status. Reading cannot have changed anything; of anything else, once it
 * was sent, nobody knows. */
static deed_status trouble(struct client *client, const struct request *request, CURLcode code,
                           struct deed_error *err)
{
    const char *why = client->curl_error[0] != '\0' ? client->curl_error : curl_easy_strerror(code);
    bool reads = strcmp(request->method, "GET") == 0;
    switch (code) {
    case CURLE_URL_MALFORMAT:
    case CURLE_UNSUPPORTED_PROTOCOL:
        return deed_fail(err, DEED_INVALID, "server \"%s\": %s", client->base, why);
    case CURLE_COULDNT_CONNECT:
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_RESOLVE_PROXY:
        return deed_fail(err, DEED_STOPPED, "no server at %s: %s", client->base, why);
    case CURLE_OUT_OF_MEMORY:
        return deed_fail(err, DEED_NO_MEMORY, "no memory");
    default:
        break;
    }
    if (!reads) {
        return deed_fail(err, DEED_UNKNOWN,
                         "%s: %s; the outcome is unknown: the same event ids or idempotency key "
                         "make it safe to ask again",
                         client->base, why);
    }
    return deed_fail(err, code == CURLE_OPERATION_TIMEDOUT ? DEED_TIMEOUT : DEED_STOPPED, "%s: %s",
                     client->base, why);
}

static deed_status perform(struct client *client, const struct request *request,
                           struct exchange *exchange, struct deed_error *err)
{
    size_t size = strlen(client->base) + strlen(request->path) + 1;
    char *url = malloc(size);
    struct curl_slist *headers = url == NULL ? NULL : headers_make(client, request);
    deed_status status = DEED_OK;
    if (headers == NULL) {
        status = deed_fail(err, DEED_NO_MEMORY, "no memory");
        goto done;
    }
    snprintf(url, size, "%s%s", client->base, request->path);
    client->curl_error[0] = '\0';
    options_set(client, request, url, headers, exchange);
    CURLcode code = curl_easy_perform(client->curl);
    if (code == CURLE_OK) goto done;
    if (exchange->line_status != DEED_OK) {
        status = exchange->line_status;
    } else if (!buf_ok(&exchange->reply->body)) {
        status = deed_fail(err, DEED_TOO_LARGE, "%s: the answer is larger than %zu bytes",
                           request->path, exchange->reply->body.size_max);
    } else {
        status = trouble(client, request, code, err);
    }

done:
    curl_slist_free_all(headers);
    free(url);
    return status;
}

static bool retry_wait(const struct exchange *exchange, unsigned attempt, uint64_t deadline_ns)
{
    if (exchange->reply->status != 503 || exchange->retry_after_s == DEED_NONE) return false;
    if (attempt >= RETRY_COUNT_MAX || exchange->retry_after_s > RETRY_WAIT_S_MAX) return false;
    uint64_t wait_ns = exchange->retry_after_s * 1000000000u;
    if (os_ticks_ns(os_real()) + wait_ns > deadline_ns) return false;
    sleep((unsigned)exchange->retry_after_s);
    return true;
}

static deed_status ask(struct client *client, const struct request *request, struct reply *reply,
                       struct splitter *splitter, struct deed_error *err)
{
    uint64_t deadline_ns = os_ticks_ns(os_real()) + (uint64_t)client->timeout_ms * 1000000;
    for (unsigned attempt = 0;; attempt++) {
        buf_reset(&reply->body);
        reply->position = DEED_NONE;
        struct exchange exchange = {.client = client,
                                    .reply = reply,
                                    .splitter = splitter,
                                    .err = err,
                                    .retry_after_s = DEED_NONE};
        deed_status status = perform(client, request, &exchange, err);
        if (status != DEED_OK || !retry_wait(&exchange, attempt, deadline_ns)) return status;
    }
}

deed_status client_call(struct client *client, const struct request *request, struct reply *reply,
                        struct deed_error *err)
{
    return ask(client, request, reply, NULL, err);
}

deed_status client_lines(struct client *client, const struct request *request,
                         struct splitter *splitter, struct deed_error *err)
{
    struct reply reply;
    reply_init(&reply);
    deed_status status = ask(client, request, &reply, splitter, err);
    if (status == DEED_OK && (reply.status < 200 || reply.status >= 300)) {
        status = reply_problem(reply.status, buf_bytes(&reply.body), err);
    }
    reply_done(&reply);
    return status;
}
