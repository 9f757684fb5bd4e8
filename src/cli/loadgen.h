/* loadgen.h - many HTTP/1.1 clients in one thread: for measuring a server on the same machine.
 *
 * Raw non-blocking sockets with keep-alive: a library client costs more CPU than the server that it
 * measures. It trusts the server: what is no plain HTTP response ends the run with an error. */
#ifndef CLI_LOADGEN_H
#define CLI_LOADGEN_H

#include "base/buf.h"
#include "base/error.h"

/* Durations, to about 3 %: 32 steps between powers of two. */
#define LOAD_STEPS        32
#define LOAD_BUCKET_COUNT (64 * LOAD_STEPS)
struct load_histogram {
    uint64_t buckets[LOAD_BUCKET_COUNT];
    uint64_t count, sum_ns, max_ns;
};
void load_histogram_add(struct load_histogram *histogram, uint64_t ns);
/* The duration that this share (0 to 1) of them did not exceed; 0 if there are none. */
uint64_t load_histogram_at(const struct load_histogram *histogram, double share);

struct load_options {
    const char *host, *port;
    unsigned client_count;
    unsigned depth; /* requests a client has under way: above 1 it pipelines */
    uint64_t warmup_ns, duration_ns;
    uint64_t request_count_max; /* end once so many are answered; 0: only the time ends it */
    /* Append one whole request, headers and body, to `out`: the client's `number`th. */
    void (*make)(void *context, unsigned client, uint64_t number, struct buf *out);
    void *context;
    /* Called about ten times a second; may be NULL. */
    void (*progress)(void *context, uint64_t elapsed_ns);
    void *progress_context;
};

struct load_result {
    uint64_t requests;             /* sent and answered in the measured time */
    uint64_t failed;               /* of these: not 2xx */
    uint64_t bytes;                /* of the answers */
    uint64_t duration_ns;          /* measured, without the warm-up */
    int failed_status;             /* the first failure's, or 0 */
    char failed_body[2048];        /* and the beginning of its body */
    struct load_histogram latency; /* from the last byte handed to the kernel to the answer's end */
};

/* A connected socket without Nagle's delay; the caller closes it. DEED_STOPPED: nobody listens. */
DEED_MUST_CHECK deed_status load_connect(const char *host, const char *port, int *out_socket,
                                         struct deed_error *err);

/* DEED_STOPPED: no connection, or the server closed one. DEED_INVALID: not HTTP. */
DEED_MUST_CHECK deed_status load_run(const struct load_options *options,
                                     struct load_result *out_result, struct deed_error *err);

/* ---- for the parser's test ---------------------------------------------------------------------
 */

/* Reads responses from a byte stream, whatever its pieces. */
struct load_parser {
    enum { LOAD_HEAD, LOAD_BODY, LOAD_CHUNK_SIZE, LOAD_CHUNK, LOAD_CHUNK_END, LOAD_TRAILER } state;
    int status;
    uint64_t left;     /* of the body or the chunk */
    char sample[2048]; /* the body's beginning, unless 2xx */
    size_t sample_size;
};
/* Take bytes from the front of `in`; `*out_used` says how many. true: a response has just ended
 * there (parser->status), call again with the rest. false: all that can be used was used; what is
 * left is part of a line and must come again with more behind it. `*out_broken`: not HTTP. */
bool load_parse(struct load_parser *parser, deed_bytes in, size_t *out_used, bool *out_broken);

#endif
