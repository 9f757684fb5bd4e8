/* live.c - from append to live delivery.
 *
 *     writer    --- POST ---> server          t0: the last byte is handed to the kernel
 *               <--- 200 ----
 *     follower  <-- event ---                 t1: the line with its revision is here
 *
 * (1) One event is under way at a time, so the follower only needs to look for one revision.
 * (2) Answer and event may come in either order; the next append waits for both. */
#include "cli/live.h"

#include "os/os.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define INPUT_SIZE  ((size_t)256 << 10)
#define PATIENCE_MS 10000

struct end {
    const char *name;
    int socket;
    uint8_t *input;
    size_t size;
};

struct live {
    struct end writer, follower;
    struct load_parser parser;
    struct buf request;
};

static deed_status end_open(struct end *end, const char *name, const char *host, const char *port,
                            struct deed_error *err)
{
    end->name = name;
    end->input = malloc(INPUT_SIZE);
    if (end->input == NULL) return deed_fail(err, DEED_NO_MEMORY, "no memory");
    return load_connect(host, port, &end->socket, err);
}

static void end_close(struct end *end)
{
    if (end->socket >= 0) close(end->socket);
    free(end->input);
}

static deed_status end_send(struct end *end, struct buf *request, struct deed_error *err)
{
    for (size_t sent = 0; sent < request->len;) {
        ssize_t size = send(end->socket, request->ptr + sent, request->len - sent, MSG_NOSIGNAL);
        if (size < 0 && errno == EINTR) continue;
        if (size < 0) return deed_fail(err, DEED_STOPPED, "the %s: %s", end->name, strerror(errno));
        sent += (size_t)size;
    }
    buf_reset(request);
    return DEED_OK;
}

static deed_status end_receive(struct end *end, struct deed_error *err)
{
    if (end->size == INPUT_SIZE) {
        return deed_fail(err, DEED_INVALID, "the %s was sent more than %zu bytes at once",
                         end->name, INPUT_SIZE);
    }
    ssize_t size = recv(end->socket, end->input + end->size, INPUT_SIZE - end->size, MSG_DONTWAIT);
    if (size < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR)) return DEED_OK;
    if (size < 0) return deed_fail(err, DEED_STOPPED, "the %s: %s", end->name, strerror(errno));
    if (size == 0) {
        return deed_fail(err, DEED_STOPPED, "the server closed the connection of the %s",
                         end->name);
    }
    end->size += (size_t)size;
    return DEED_OK;
}

static void end_drop(struct end *end, size_t used)
{
    end->size -= used;
    memmove(end->input, end->input + used, end->size);
}

/* Has the writer's answer come? A failure is noted in the result. */
static deed_status answer_take(struct live *live, struct load_result *result, bool *out_done,
                               struct deed_error *err)
{
    size_t used = 0;
    bool broken = false;
    *out_done = load_parse(&live->parser, (deed_bytes){live->writer.input, live->writer.size},
                           &used, &broken);
    end_drop(&live->writer, used);
    if (broken) return deed_fail(err, DEED_INVALID, "the server's answer is not plain HTTP/1.1");
    if (*out_done && (live->parser.status < 200 || live->parser.status > 299)) {
        result->failed = 1;
        result->failed_status = live->parser.status;
        snprintf(result->failed_body, sizeof result->failed_body, "%.*s",
                 (int)live->parser.sample_size, live->parser.sample);
    }
    return DEED_OK;
}

/* Has the event of this revision come? (1) */
static bool event_take(struct live *live, uint64_t revision)
{
    char wanted[48];
    int size = snprintf(wanted, sizeof wanted, "\"revision\":\"%" PRIu64 "\"", revision);
    struct end *follower = &live->follower;
    const uint8_t *at = memmem(follower->input, follower->size, wanted, (size_t)size);
    if (at == NULL) return false;
    const uint8_t *end = memchr(at, '\n', follower->size - (size_t)(at - follower->input));
    if (end == NULL) return false;
    end_drop(follower, (size_t)(end - follower->input) + 1);
    return true;
}

/* Append the event of this revision and wait until it was acknowledged and delivered (2). */
static deed_status round_run(struct live *live, uint64_t revision, struct load_result *result,
                             uint64_t *out_latency_ns, struct deed_error *err)
{
    bool answered = false, delivered = false;
    deed_status status = end_send(&live->writer, &live->request, err);
    uint64_t sent_ns = os_ticks_ns(os_real());
    while (status == DEED_OK && (!answered || !delivered) && result->failed == 0) {
        struct pollfd polls[2] = {{.fd = live->writer.socket, .events = POLLIN},
                                  {.fd = live->follower.socket, .events = POLLIN}};
        int count = poll(polls, 2, PATIENCE_MS);
        if (count < 0 && errno == EINTR) continue;
        if (count < 0) return deed_fail_errno(err, errno, "poll");
        if (count == 0) {
            return deed_fail(err, DEED_TIMEOUT, "event %" PRIu64 " was %s within %d s", revision,
                             answered ? "not delivered" : "not acknowledged", PATIENCE_MS / 1000);
        }
        if (polls[1].revents != 0) status = end_receive(&live->follower, err);
        if (status == DEED_OK && !delivered && event_take(live, revision)) {
            *out_latency_ns = os_ticks_ns(os_real()) - sent_ns;
            delivered = true;
        }
        if (status == DEED_OK && polls[0].revents != 0) {
            status = end_receive(&live->writer, err);
            if (status == DEED_OK) status = answer_take(live, result, &answered, err);
        }
    }
    return status;
}

deed_status live_run(struct workload *workload, const char *host, const char *port,
                     uint64_t warmup_ns, uint64_t duration_ns, struct load_result *out_result,
                     struct deed_error *err)
{
    struct live live = {.writer.socket = -1, .follower.socket = -1};
    memset(out_result, 0, sizeof *out_result);
    buf_init(&live.request, (size_t)64 << 20);
    deed_status status = end_open(&live.writer, "writer", host, port, err);
    if (status == DEED_OK) status = end_open(&live.follower, "follower", host, port, err);
    if (status == DEED_OK) {
        workload_make_following(workload, &live.request);
        status = end_send(&live.follower, &live.request, err);
    }
    uint64_t begun_ns = os_ticks_ns(os_real()), now_ns = begun_ns, measured_ns = 0;
    for (uint64_t revision = 0; status == DEED_OK && out_result->failed == 0; revision++) {
        bool counts = now_ns - begun_ns >= warmup_ns;
        uint64_t latency_ns = 0;
        if (counts && measured_ns == 0) measured_ns = now_ns;
        if (counts && now_ns - measured_ns >= duration_ns) break;
        workload_make(workload, 0, revision, &live.request);
        if (!buf_ok(&live.request)) status = deed_fail(err, DEED_NO_MEMORY, "no memory");
        if (status == DEED_OK) status = round_run(&live, revision, out_result, &latency_ns, err);
        if (status == DEED_OK && counts) {
            out_result->requests++;
            load_histogram_add(&out_result->latency, latency_ns);
        }
        now_ns = os_ticks_ns(os_real());
    }
    out_result->duration_ns = measured_ns == 0 ? 0 : now_ns - measured_ns;
    buf_done(&live.request);
    end_close(&live.writer);
    end_close(&live.follower);
    return status;
}
