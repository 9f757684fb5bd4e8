/* loadgen.c - many HTTP/1.1 clients in one thread.
 *
 * One epoll loop. Each client has `depth` requests under way: as an answer ends, the next request
 * is made and sent at once. Latency is from the send to the end of the answer, so it includes
 * the time that this process needed to look at the socket.
 *
 * (1) A client's start times are a ring of `depth`: HTTP/1.1 answers in order.
 * (2) Only what was both sent and answered within the measured time is counted. */
#include "cli/loadgen.h"

#include "os/os.h"

#include <assert.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define INPUT_SIZE     ((size_t)64 << 10) /* a response's head must fit */
#define OUTPUT_MAX     ((size_t)64 << 20)
#define EVENTS_AT_ONCE 256
#define TICK_MS        100

/* ---- durations ----------------------------------------------------------------------------------
 */

static size_t bucket_of(uint64_t ns)
{
    if (ns < LOAD_STEPS) return (size_t)ns;
    unsigned exponent = 63u - (unsigned)__builtin_clzll(ns);
    unsigned shift = exponent - 5; /* LOAD_STEPS is 2^5 */
    return (size_t)(shift + 1) * LOAD_STEPS + ((ns >> shift) & (LOAD_STEPS - 1));
}

static uint64_t bucket_end(size_t bucket)
{
    if (bucket < LOAD_STEPS) return bucket;
    unsigned shift = (unsigned)(bucket / LOAD_STEPS) - 1;
    uint64_t step = LOAD_STEPS + bucket % LOAD_STEPS;
    return ((step + 1) << shift) - 1;
}

void load_histogram_add(struct load_histogram *histogram, uint64_t ns)
{
    histogram->buckets[bucket_of(ns)]++;
    histogram->count++;
    histogram->sum_ns += ns;
    if (ns > histogram->max_ns) histogram->max_ns = ns;
}

uint64_t load_histogram_at(const struct load_histogram *histogram, double share)
{
    double wanted = share * (double)histogram->count;
    uint64_t seen = 0;
    for (size_t i = 0; i < LOAD_BUCKET_COUNT; i++) {
        seen += histogram->buckets[i];
        if (histogram->buckets[i] == 0 || (double)seen < wanted) continue;
        uint64_t end = bucket_end(i);
        return end < histogram->max_ns ? end : histogram->max_ns;
    }
    return histogram->max_ns;
}

/* ---- responses ----------------------------------------------------------------------------------
 */

static deed_str header_value(deed_str head, const char *name)
{
    size_t size = strlen(name);
    const char *end = head.ptr + head.len;
    for (const char *line = memchr(head.ptr, '\n', head.len); line != NULL;) {
        line++;
        const char *next = memchr(line, '\n', (size_t)(end - line));
        size_t line_size = next == NULL ? (size_t)(end - line) : (size_t)(next - line);
        if (line_size > size && line[size] == ':' && strncasecmp(line, name, size) == 0) {
            const char *value = line + size + 1;
            size_t value_size = line_size - size - 1;
            while (value_size > 0 && (*value == ' ' || *value == '\t'))
                value++, value_size--;
            while (value_size > 0 && strchr(" \t\r", value[value_size - 1]) != NULL)
                value_size--;
            return (deed_str){value, value_size};
        }
        line = next;
    }
    return (deed_str){0};
}

static bool digits(deed_str text, unsigned base, uint64_t *out)
{
    uint64_t value = 0;
    size_t i = 0;
    for (; i < text.len; i++) {
        char c = text.ptr[i];
        unsigned digit = c >= '0' && c <= '9'   ? (unsigned)(c - '0')
                         : c >= 'a' && c <= 'f' ? (unsigned)(c - 'a') + 10
                         : c >= 'A' && c <= 'F' ? (unsigned)(c - 'A') + 10
                                                : base;
        if (digit >= base || value > (UINT64_MAX >> 8)) break;
        value = value * base + digit;
    }
    *out = value;
    /* A chunk's size may be followed by extensions. */
    return i > 0 && (i == text.len || text.ptr[i] == ';');
}

/* The head, from "HTTP/1.1 " up to its empty line. false: not HTTP as we need it. */
static bool head_take(struct load_parser *parser, deed_str head)
{
    uint64_t status = 0;
    if (head.len < 12 || memcmp(head.ptr, "HTTP/1.1 ", 9) != 0) return false;
    if (!digits((deed_str){head.ptr + 9, 3}, 10, &status)) return false;
    parser->status = (int)status;
    parser->sample_size = 0;
    parser->left = 0;
    deed_str length = header_value(head, "content-length");
    deed_str coding = header_value(head, "transfer-encoding");
    parser->state = LOAD_BODY;
    if (coding.len == 7 && strncasecmp(coding.ptr, "chunked", 7) == 0) {
        parser->state = LOAD_CHUNK_SIZE;
        return true;
    }
    if (length.len > 0) return digits(length, 10, &parser->left);
    return status == 204 || status == 304; /* anything else would end with the connection */
}

static void sample_add(struct load_parser *parser, const uint8_t *bytes, size_t size)
{
    if (parser->status >= 200 && parser->status < 300) return;
    size_t room = sizeof parser->sample - 1 - parser->sample_size;
    if (size > room) size = room;
    memcpy(parser->sample + parser->sample_size, bytes, size);
    parser->sample_size += size;
    parser->sample[parser->sample_size] = '\0';
}

/* A whole line in `in`, without its end; false: not there yet. */
static bool line_find(deed_bytes in, deed_str *out_line, size_t *out_size)
{
    const uint8_t *end = in.len == 0 ? NULL : memchr(in.ptr, '\n', in.len);
    if (end == NULL) return false;
    size_t size = (size_t)(end - in.ptr);
    *out_size = size + 1;
    if (size > 0 && in.ptr[size - 1] == '\r') size--;
    *out_line = (deed_str){(const char *)in.ptr, size};
    return true;
}

/* One step at the front of `in`: how many bytes it used, 0 if it needs more. */
static size_t parse_step(struct load_parser *parser, deed_bytes in, bool *ended, bool *broken)
{
    deed_str line;
    size_t size = 0;
    switch (parser->state) {
    case LOAD_HEAD: {
        const uint8_t *end = in.len == 0 ? NULL : memmem(in.ptr, in.len, "\r\n\r\n", 4);
        if (end == NULL) return 0;
        size = (size_t)(end - in.ptr) + 4;
        *broken = !head_take(parser, (deed_str){(const char *)in.ptr, size - 2});
        if (parser->state == LOAD_BODY && parser->left == 0) *ended = true;
        return size;
    }
    case LOAD_BODY:
    case LOAD_CHUNK:
        size = in.len < parser->left ? in.len : (size_t)parser->left;
        sample_add(parser, in.ptr, size);
        parser->left -= size;
        if (parser->left > 0) return size;
        *ended = parser->state == LOAD_BODY;
        if (parser->state == LOAD_CHUNK) parser->state = LOAD_CHUNK_END;
        return size;
    case LOAD_CHUNK_SIZE:
        if (!line_find(in, &line, &size)) return 0;
        *broken = !digits(line, 16, &parser->left);
        parser->state = parser->left == 0 ? LOAD_TRAILER : LOAD_CHUNK;
        return size;
    case LOAD_CHUNK_END:
        if (!line_find(in, &line, &size)) return 0;
        *broken = line.len != 0;
        parser->state = LOAD_CHUNK_SIZE;
        return size;
    case LOAD_TRAILER:
        if (!line_find(in, &line, &size)) return 0;
        *ended = line.len == 0;
        return size;
    }
    return 0;
}

bool load_parse(struct load_parser *parser, deed_bytes in, size_t *out_used, bool *out_broken)
{
    *out_used = 0;
    *out_broken = false;
    while (*out_used < in.len) {
        bool ended = false;
        size_t used = parse_step(parser, (deed_bytes){in.ptr + *out_used, in.len - *out_used},
                                 &ended, out_broken);
        *out_used += used;
        if (*out_broken) return false;
        if (ended) {
            parser->state = LOAD_HEAD;
            return true;
        }
        if (used == 0) return false;
    }
    return false;
}

/* ---- clients ------------------------------------------------------------------------------------
 */

struct client {
    int socket;
    unsigned index;
    struct load_parser parser;
    uint8_t *input;
    size_t input_size;
    struct buf output;
    size_t sent;
    uint64_t made; /* requests, and the next one's number */
    uint64_t answered;
    uint64_t *started_ns; /* (1) */
    bool wants_write;
};

struct load {
    const struct load_options *options;
    struct load_result *result;
    struct client *clients;
    int epoll;
    uint64_t measure_from_ns, end_ns;
    uint64_t made, answered; /* by all clients */
};

deed_status load_connect(const char *host, const char *port, int *out_socket,
                         struct deed_error *err)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *addresses = NULL;
    int error = getaddrinfo(host, port, &hints, &addresses);
    if (error != 0) {
        return deed_fail(err, DEED_STOPPED, "%s:%s: %s", host, port, gai_strerror(error));
    }
    int fd = -1;
    error = 0;
    for (const struct addrinfo *a = addresses; a != NULL && fd < 0; a = a->ai_next) {
        fd = socket(a->ai_family, a->ai_socktype | SOCK_CLOEXEC, a->ai_protocol);
        if (fd >= 0 && connect(fd, a->ai_addr, a->ai_addrlen) == 0) break;
        error = errno;
        if (fd >= 0) close(fd);
        fd = -1;
    }
    freeaddrinfo(addresses);
    if (fd < 0) {
        return deed_fail(err, DEED_STOPPED, "no server at %s:%s: %s", host, port, strerror(error));
    }
    int on = 1;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    *out_socket = fd;
    return DEED_OK;
}

static deed_status client_connect(struct load *load, struct client *client, struct deed_error *err)
{
    deed_status status =
        load_connect(load->options->host, load->options->port, &client->socket, err);
    if (status != DEED_OK) return status;
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = client};
    if (epoll_ctl(load->epoll, EPOLL_CTL_ADD, client->socket, &event) != 0) {
        return deed_fail_errno(err, errno, "epoll");
    }
    return DEED_OK;
}

static deed_status client_broken(struct deed_error *err, struct client *client, const char *why)
{
    return deed_fail(err, DEED_STOPPED, "client %u, after %llu answers: %s", client->index,
                     (unsigned long long)client->answered, why);
}

/* Hand what is waiting to the kernel; ask for EPOLLOUT while it takes no more. */
static deed_status client_send(struct load *load, struct client *client, struct deed_error *err)
{
    while (client->sent < client->output.len) {
        ssize_t size = send(client->socket, client->output.ptr + client->sent,
                            client->output.len - client->sent, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (size < 0 && errno == EINTR) continue;
        if (size < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) break;
        if (size < 0) return client_broken(err, client, strerror(errno));
        client->sent += (size_t)size;
    }
    bool waiting = client->sent < client->output.len;
    if (!waiting) {
        buf_reset(&client->output);
        client->sent = 0;
    }
    if (waiting != client->wants_write) {
        client->wants_write = waiting;
        struct epoll_event event = {.events = EPOLLIN | (waiting ? EPOLLOUT : 0u),
                                    .data.ptr = client};
        if (epoll_ctl(load->epoll, EPOLL_CTL_MOD, client->socket, &event) != 0) {
            return deed_fail_errno(err, errno, "epoll");
        }
    }
    return DEED_OK;
}

static deed_status client_make(struct load *load, struct client *client, uint64_t now_ns,
                               struct deed_error *err)
{
    const struct load_options *options = load->options;
    while (client->made - client->answered < options->depth &&
           (options->request_count_max == 0 || load->made < options->request_count_max)) {
        client->started_ns[client->made % options->depth] = now_ns;
        options->make(options->context, client->index, client->made, &client->output);
        if (!buf_ok(&client->output)) return deed_fail(err, DEED_NO_MEMORY, "no memory");
        client->made++;
        load->made++;
    }
    return DEED_OK;
}

static void client_count(struct load *load, struct client *client, uint64_t now_ns)
{
    struct load_result *result = load->result;
    uint64_t started_ns = client->started_ns[client->answered % load->options->depth];
    client->answered++;
    load->answered++;
    if (client->parser.status < 200 || client->parser.status > 299) {
        if (result->failed_status == 0) {
            result->failed_status = client->parser.status;
            snprintf(result->failed_body, sizeof result->failed_body, "%.*s",
                     (int)client->parser.sample_size, client->parser.sample);
        }
        if (started_ns >= load->measure_from_ns && now_ns <= load->end_ns) result->failed++;
    }
    if (started_ns < load->measure_from_ns || now_ns > load->end_ns) return; /* (2) */
    result->requests++;
    load_histogram_add(&result->latency, now_ns - started_ns);
}

static deed_status client_receive(struct load *load, struct client *client, struct deed_error *err)
{
    ssize_t size = recv(client->socket, client->input + client->input_size,
                        INPUT_SIZE - client->input_size, MSG_DONTWAIT);
    if (size < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR)) return DEED_OK;
    if (size < 0) return client_broken(err, client, strerror(errno));
    if (size == 0) return client_broken(err, client, "the server closed the connection");
    client->input_size += (size_t)size;

    uint64_t now_ns = os_ticks_ns(os_real());
    if (now_ns >= load->measure_from_ns) load->result->bytes += (uint64_t)size;
    size_t at = 0;
    for (;;) {
        size_t used = 0;
        bool broken = false;
        bool ended =
            load_parse(&client->parser, (deed_bytes){client->input + at, client->input_size - at},
                       &used, &broken);
        at += used;
        if (broken || (!ended && used == 0 && client->input_size - at == INPUT_SIZE)) {
            return deed_fail(err, DEED_INVALID, "the server's answer is not plain HTTP/1.1");
        }
        if (!ended) break;
        if (client->answered == client->made) {
            return deed_fail(err, DEED_INVALID, "the server answered what was not asked");
        }
        client_count(load, client, now_ns);
    }
    client->input_size -= at;
    memmove(client->input, client->input + at, client->input_size);

    deed_status status = client_make(load, client, now_ns, err);
    return status == DEED_OK ? client_send(load, client, err) : status;
}

/* ---- the run ------------------------------------------------------------------------------------
 */

static deed_status load_open(struct load *load, struct deed_error *err)
{
    const struct load_options *options = load->options;
    deed_status status = DEED_OK;
    for (unsigned i = 0; i < options->client_count && status == DEED_OK; i++) {
        struct client *client = &load->clients[i];
        client->index = i;
        client->input = malloc(INPUT_SIZE);
        client->started_ns = calloc(options->depth, sizeof *client->started_ns);
        buf_init(&client->output, OUTPUT_MAX);
        if (client->input == NULL || client->started_ns == NULL) {
            return deed_fail(err, DEED_NO_MEMORY, "no memory for %u clients",
                             options->client_count);
        }
        status = client_connect(load, client, err);
    }
    return status;
}

static void load_close(struct load *load)
{
    for (unsigned i = 0; load->clients != NULL && i < load->options->client_count; i++) {
        struct client *client = &load->clients[i];
        if (client->socket >= 0) close(client->socket);
        free(client->input);
        free(client->started_ns);
        buf_done(&client->output);
    }
    free(load->clients);
    if (load->epoll >= 0) close(load->epoll);
}

static deed_status load_loop(struct load *load, struct deed_error *err)
{
    const struct load_options *options = load->options;
    uint64_t begun_ns = os_ticks_ns(os_real()), shown_ns = begun_ns;
    load->measure_from_ns = begun_ns + options->warmup_ns;
    load->end_ns = load->measure_from_ns + options->duration_ns;
    deed_status status = DEED_OK;
    for (unsigned i = 0; i < options->client_count && status == DEED_OK; i++) {
        status = client_make(load, &load->clients[i], os_ticks_ns(os_real()), err);
        if (status == DEED_OK) status = client_send(load, &load->clients[i], err);
    }
    while (status == DEED_OK) {
        struct epoll_event events[EVENTS_AT_ONCE];
        int count = epoll_wait(load->epoll, events, EVENTS_AT_ONCE, TICK_MS);
        if (count < 0 && errno != EINTR) return deed_fail_errno(err, errno, "epoll");
        for (int i = 0; i < count && status == DEED_OK; i++) {
            struct client *client = events[i].data.ptr;
            if (events[i].events & EPOLLOUT) status = client_send(load, client, err);
            if (status == DEED_OK && (events[i].events & ~(uint32_t)EPOLLOUT) != 0) {
                status = client_receive(load, client, err);
            }
        }
        uint64_t now_ns = os_ticks_ns(os_real());
        if (now_ns >= load->end_ns) break;
        if (options->request_count_max != 0 && load->answered >= options->request_count_max) {
            load->end_ns = now_ns;
            break;
        }
        if (options->progress != NULL && now_ns - shown_ns >= UINT64_C(100000000)) {
            options->progress(options->progress_context, now_ns - begun_ns);
            shown_ns = now_ns;
        }
    }
    return status;
}

deed_status load_run(const struct load_options *options, struct load_result *out_result,
                     struct deed_error *err)
{
    assert(options->client_count > 0 && options->depth > 0);
    memset(out_result, 0, sizeof *out_result);
    struct load load = {.options = options, .result = out_result, .epoll = -1};
    load.clients = calloc(options->client_count, sizeof *load.clients);
    if (load.clients == NULL) return deed_fail(err, DEED_NO_MEMORY, "no memory");
    for (unsigned i = 0; i < options->client_count; i++)
        load.clients[i].socket = -1;

    load.epoll = epoll_create1(EPOLL_CLOEXEC);
    deed_status status =
        load.epoll < 0 ? deed_fail_errno(err, errno, "epoll") : load_open(&load, err);
    if (status == DEED_OK) status = load_loop(&load, err);
    if (load.end_ns > load.measure_from_ns) {
        out_result->duration_ns = load.end_ns - load.measure_from_ns;
    }
    load_close(&load);
    return status;
}
