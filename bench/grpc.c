/* grpc.c - a KurrentDB client without the client: how fast the server is over gRPC.
 *
 *     grpc MODE HOST:PORT [name=number]… [stream=NAME]
 *
 * One thread, a few connections, HTTP/2 by nghttp2, messages by hand (field numbers in
 * src/grpc/proto). A library client costs more processor time than the server that it measures.
 *
 *     append     `writers` Append calls are under way, each of `batch` events into a stream of its
 *                own at an expected revision; the next begins when one is answered
 *     batch      the same by BatchAppend, one call a connection; `depth` of each writer under way
 *     fill       batch, until `events` are stored; one writer writes into `stream`, if it is named
 *     read       one Read of $all, or of `stream`, from its start to its end: at least `events`
 *     page       `writers` Reads are under way, each of `batch` events of `stream` from anywhere within
 *                its first `events`; the next begins when one has ended
 *     subscribe  one subscription to the same from its start, until it has caught up
 *     consume    a group is created on `stream`, and `consumers` share it and acknowledge, until
 *                `events` have come
 *     live       `consumers` subscriptions to $all from its end; once all have caught up, batch; all must
 *                get all, once; the rate is that of all deliveries
 *     append-body, read-body
 *                only write the request's body to stdout, for h2load, which can send one to one method:
 *                an event whose id is always the same, so that all but the first are answered from it
 *
 * `seconds_ms` and `warmup_ms` measure append, batch and page; `connections` are shared evenly. One line of
 * JSON at the end. */
#include "bench.h"

#include "grpc/pb.h"

#include <errno.h>
#include <nghttp2/nghttp2.h>
#include <poll.h>
#include <stdarg.h>
#include <sys/socket.h>
#include <unistd.h>

#define WRITERS_MAX     4096
#define CONNECTIONS_MAX 64
#define DEPTH_MAX       64
#define FOLLOWERS_MAX   1024
#define DATA_SIZE       256
#define STREAM_WINDOW   (16 << 20)
#define SESSION_WINDOW  (64 << 20)
#define OUT_SIZE_WANTED ((size_t)256 << 10)
#define BUF_SIZE_MAX    ((size_t)1 << 30)
/* A message acknowledges so many at most. */
#define ACKS_MAX 64

#define STREAMS "/event_store.client.streams.Streams/"
#define GROUPS  "/event_store.client.persistent_subscriptions.PersistentSubscriptions/"

enum mode { APPEND, BATCH, FILL, READ, SUBSCRIBE, CONSUME, LIVE, PAGE, APPEND_BODY, READ_BODY };
static const char *const mode_names[] = {"append",  "batch", "fill", "read",        "subscribe",
                                         "consume", "live",  "page", "append-body", "read-body"};

static struct options {
    enum mode mode;
    char host[256], stream[1024];
    const char *port;
    uint64_t connections, writers, batch, depth, events, consumers, buffer, seconds_ms, warmup_ms;
} options = {.connections = 4,
             .writers = 64,
             .batch = 1,
             .depth = 1,
             .consumers = 1,
             .buffer = 1000,
             .seconds_ms = 3000,
             .warmup_ms = 500};

struct call;

struct connection {
    int socket;
    nghttp2_session *session;
    struct buf out;
    size_t sent;
    struct call *batches; /* BatchAppend's, which never ends */
};

struct call {
    struct connection *connection;
    int32_t id;
    bool streams; /* not half-closed when `request` is used up */
    bool deferred;
    int status; /* grpc-status; -1: none came */
    char message[512];
    struct buf request, answer;
    size_t request_sent;
    void (*on_message)(struct call *call, deed_bytes message);
    void (*on_messages)(struct call *call); /* after those that came in one piece; or NULL */
    void (*on_end)(struct call *call);
    uint64_t index, started_ns;
    uint64_t event_count; /* of a live subscription, or a page */
};

struct writer {
    char name[64];
    uint64_t next;                /* the revision that the next event gets */
    uint64_t submitted, answered; /* appends */
    uint64_t started_ns[DEPTH_MAX];
};

static struct connection connections[CONNECTIONS_MAX];
static struct writer writers[WRITERS_MAX];
static struct buf event_tail; /* of a proposed message: metadata and data */

/* What is measured. */
static struct load_histogram latency;
static uint64_t measure_from_ns, end_ns, received, received_bytes, first_ns, last_ns, submitted;
static bool finished;
static bool stopping; /* nothing more is appended; what is under way is waited for */

static void die(const char *format, ...) DEED_PRINTF(1, 2);
static void die(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    exit(1);
}

static void must(int outcome, const char *what)
{
    if (outcome < 0) die("%s: %s", what, nghttp2_strerror(outcome));
}

/* ---- calls -------------------------------------------------------------------------------------
 */

static ssize_t on_request_wanted(nghttp2_session *session, int32_t id, uint8_t *out, size_t room,
                                 uint32_t *flags, nghttp2_data_source *source, void *context)
{
    (void)session;
    (void)id;
    (void)context;
    struct call *call = source->ptr;
    size_t left = call->request.len - call->request_sent;
    size_t size = left < room ? left : room;
    if (size == 0 && call->streams) {
        call->deferred = true;
        return NGHTTP2_ERR_DEFERRED;
    }
    if (size > 0) memcpy(out, call->request.ptr + call->request_sent, size);
    call->request_sent += size;
    if (call->request_sent == call->request.len) {
        buf_reset(&call->request);
        call->request_sent = 0;
        if (!call->streams) *flags |= NGHTTP2_DATA_FLAG_EOF;
    }
    return (ssize_t)size;
}

/* What was added to call->request goes out. */
static void call_push(struct call *call)
{
    if (!call->deferred) return;
    call->deferred = false;
    must(nghttp2_session_resume_data(call->connection->session, call->id), "resume");
}

static nghttp2_nv header(const char *name, const char *value)
{
    return (nghttp2_nv){.name = (uint8_t *)(uintptr_t)name,
                        .value = (uint8_t *)(uintptr_t)value,
                        .namelen = strlen(name),
                        .valuelen = strlen(value)};
}

static void call_begin(struct call *call, const char *path)
{
    nghttp2_nv headers[] = {
        header(":method", "POST"),
        header(":scheme", "http"),
        header(":path", path),
        header(":authority", options.host),
        header("content-type", "application/grpc"),
        header("te", "trailers"),
    };
    nghttp2_data_provider provider = {.source = {.ptr = call}, .read_callback = on_request_wanted};
    call->status = -1;
    call->deferred = false;
    call->request_sent = 0;
    call->started_ns = bench_now();
    call->id = nghttp2_submit_request(call->connection->session, NULL, headers,
                                      sizeof headers / sizeof *headers, &provider, call);
    must(call->id, "request");
}

static struct call *call_create(struct connection *connection)
{
    struct call *call = calloc(1, sizeof *call);
    if (call == NULL) die("out of memory");
    call->connection = connection;
    buf_init(&call->request, BUF_SIZE_MAX);
    buf_init(&call->answer, BUF_SIZE_MAX);
    return call;
}

static size_t frame_begin(struct buf *out)
{
    buf_add_zeros(out, 5);
    return out->len;
}

static void frame_end(struct buf *out, size_t begin)
{
    uint32_t size = __builtin_bswap32((uint32_t)(out->len - begin));
    if (!buf_ok(out)) die("out of memory");
    memcpy(out->ptr + begin - 4, &size, 4);
}

static void call_messages(struct call *call)
{
    size_t used = 0;
    while (call->answer.len - used >= 5) {
        const uint8_t *at = call->answer.ptr + used;
        uint32_t size;
        memcpy(&size, at + 1, 4);
        size = __builtin_bswap32(size);
        if (call->answer.len - used - 5 < size) break;
        call->on_message(call, (deed_bytes){at + 5, size});
        used += 5 + size;
    }
    if (used > 0 && call->on_messages != NULL) call->on_messages(call);
    if (used == call->answer.len)
        buf_reset(&call->answer);
    else if (used > 0)
        buf_consume(&call->answer, used);
}

/* ---- sessions ----------------------------------------------------------------------------------
 */

static int on_data(nghttp2_session *session, uint8_t flags, int32_t id, const uint8_t *data,
                   size_t size, void *context)
{
    (void)flags;
    (void)context;
    struct call *call = nghttp2_session_get_stream_user_data(session, id);
    if (call == NULL) return 0;
    buf_add(&call->answer, data, size);
    if (!buf_ok(&call->answer)) die("out of memory");
    call_messages(call);
    return 0;
}

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name,
                     size_t name_size, const uint8_t *value, size_t value_size, uint8_t flags,
                     void *context)
{
    (void)flags;
    (void)context;
    struct call *call = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);
    if (call == NULL) return 0;
    if (name_size == 11 && memcmp(name, "grpc-status", 11) == 0)
        call->status = atoi((const char *)value);
    if (name_size == 12 && memcmp(name, "grpc-message", 12) == 0)
        snprintf(call->message, sizeof call->message, "%.*s", (int)value_size, (const char *)value);
    return 0;
}

static int on_close(nghttp2_session *session, int32_t id, uint32_t code, void *context)
{
    (void)context;
    struct call *call = nghttp2_session_get_stream_user_data(session, id);
    if (call == NULL || finished) return 0;
    if (call->status != 0)
        die("a call ended with status %d, code %" PRIu32 ": %s", call->status, code, call->message);
    call->on_end(call);
    return 0;
}

static void connection_open(struct connection *connection)
{
    struct deed_error err = {0};
    nghttp2_session_callbacks *callbacks;
    nghttp2_settings_entry settings[] = {
        {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, STREAM_WINDOW},
        {NGHTTP2_SETTINGS_ENABLE_PUSH, 0},
    };
    bench_ok(load_connect(options.host, options.port, &connection->socket, &err));
    buf_init(&connection->out, BUF_SIZE_MAX);
    must(nghttp2_session_callbacks_new(&callbacks), "callbacks");
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data);
    nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_close);
    must(nghttp2_session_client_new(&connection->session, callbacks, connection), "session");
    nghttp2_session_callbacks_del(callbacks);
    must(nghttp2_submit_settings(connection->session, NGHTTP2_FLAG_NONE, settings, 2), "settings");
    must(nghttp2_session_set_local_window_size(connection->session, NGHTTP2_FLAG_NONE, 0,
                                               SESSION_WINDOW),
         "window");
}

/* false: it must wait until the socket takes more. */
static bool connection_write(struct connection *connection)
{
    for (;;) {
        while (connection->out.len < OUT_SIZE_WANTED) {
            const uint8_t *bytes;
            ssize_t size = nghttp2_session_mem_send(connection->session, &bytes);
            must((int)size, "send");
            if (size == 0) break;
            buf_add(&connection->out, bytes, (size_t)size);
        }
        size_t left = connection->out.len - connection->sent;
        if (left == 0) return true;
        ssize_t size = send(connection->socket, connection->out.ptr + connection->sent, left,
                            MSG_NOSIGNAL | MSG_DONTWAIT);
        if (size < 0 && (errno == EAGAIN || errno == EINTR)) return false;
        if (size < 0) die("send: %s", strerror(errno));
        connection->sent += (size_t)size;
        if (connection->sent < connection->out.len) continue;
        buf_reset(&connection->out);
        connection->sent = 0;
    }
}

static void connection_read(struct connection *connection)
{
    static uint8_t in[1 << 20];
    ssize_t size = recv(connection->socket, in, sizeof in, MSG_DONTWAIT);
    if (size < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (size <= 0) die("the server has closed a connection");
    received_bytes += (uint64_t)size;
    ssize_t used = nghttp2_session_mem_recv(connection->session, in, (size_t)size);
    must((int)used, "receive");
}

static void run(void)
{
    struct pollfd polls[CONNECTIONS_MAX];
    while (!finished) {
        for (size_t i = 0; i < options.connections; i++) {
            bool written = connection_write(&connections[i]);
            polls[i] = (struct pollfd){.fd = connections[i].socket,
                                       .events = (short)(POLLIN | (written ? 0 : POLLOUT))};
        }
        if (poll(polls, options.connections, 10000) == 0) die("nothing has come for 10 s");
        for (size_t i = 0; i < options.connections && !finished; i++)
            if (polls[i].revents & (POLLIN | POLLERR | POLLHUP)) connection_read(&connections[i]);
    }
}

/* ---- appending ---------------------------------------------------------------------------------
 */

/* splitmix64 */
static uint64_t random_number(void)
{
    static uint64_t state;
    if (state == 0) os_random(os_real(), &state, sizeof state);
    uint64_t x = state += UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return (x ^ (x >> 31)) | 1;
}

static void put_uuid(struct buf *out, unsigned field, uint64_t high, uint64_t low)
{
    size_t uuid = pb_begin(out, field), parts = pb_begin(out, 1);
    pb_put_uint(out, 1, high);
    pb_put_uint(out, 2, low);
    pb_end(out, parts);
    pb_end(out, uuid);
}

static void put_entry(struct buf *out, deed_str key, deed_str value)
{
    size_t entry = pb_begin(out, 2);
    pb_put_str(out, 1, key);
    pb_put_str(out, 2, value);
    pb_end(out, entry);
}

static void event_init(void)
{
    char data[BENCH_LINE_SIZE + 1];
    bench_line(1, data);
    buf_init(&event_tail, 4096);
    put_entry(&event_tail, DEED_STR("type"), DEED_STR("Measured"));
    put_entry(&event_tail, DEED_STR("content-type"), DEED_STR("application/json"));
    pb_put_str(&event_tail, 4, (deed_str){data, BENCH_LINE_SIZE});
}

static void put_event(struct buf *out, unsigned field)
{
    size_t event = pb_begin(out, field);
    put_uuid(out, 1, random_number(), random_number());
    buf_add(out, event_tail.ptr, event_tail.len);
    pb_end(out, event);
}

static void put_name(struct buf *out, unsigned field, const char *name)
{
    size_t identifier = pb_begin(out, field);
    pb_put_str(out, 3, deed_str_of(name));
    pb_end(out, identifier);
}

/* Options of Append and of BatchAppend: the same numbers as far as they are used here. */
static void put_options(struct buf *out, unsigned field, const struct writer *writer)
{
    size_t begin = pb_begin(out, field);
    put_name(out, 1, writer->name);
    if (writer->next == 0)
        pb_put_empty(out, 3);
    else
        pb_put_uint(out, 2, writer->next - 1);
    pb_end(out, begin);
}

static void append_measured(uint64_t started_ns)
{
    uint64_t now_ns = bench_now();
    if (started_ns >= measure_from_ns) load_histogram_add(&latency, now_ns - started_ns);
    received += options.batch;
    last_ns = now_ns;
    bool over = options.mode == FILL ? received >= options.events : now_ns >= end_ns;
    if (options.mode == LIVE) {
        stopping = over;
    } else if (over) {
        finished = true;
    }
}

static void append_request(struct call *call)
{
    struct writer *writer = &writers[call->index];
    size_t frame = frame_begin(&call->request);
    put_options(&call->request, 1, writer);
    frame_end(&call->request, frame);
    for (uint64_t i = 0; i < options.batch; i++) {
        frame = frame_begin(&call->request);
        put_event(&call->request, 2);
        frame_end(&call->request, frame);
    }
    writer->next += options.batch;
    call_begin(call, STREAMS "Append");
}

static void append_answered(struct call *call, deed_bytes message)
{
    struct pb_reader r = pb_reader_over(message);
    struct pb_field field;
    if (!pb_next(&r, &field) || !pb_is(&field, 1, PB_BYTES))
        die("an append to %s was refused", writers[call->index].name);
}

static void append_ended(struct call *call)
{
    append_measured(call->started_ns);
    if (!finished) append_request(call);
}

static void batch_request(struct call *call, uint64_t index)
{
    struct writer *writer = &writers[index];
    if (options.mode == FILL && submitted >= options.events) return;
    size_t frame = frame_begin(&call->request);
    put_uuid(&call->request, 1, writer->submitted + 1, index + 1);
    put_options(&call->request, 2, writer);
    for (uint64_t i = 0; i < options.batch; i++)
        put_event(&call->request, 3);
    pb_put_uint(&call->request, 4, 1);
    frame_end(&call->request, frame);
    writer->started_ns[writer->submitted++ % options.depth] = bench_now();
    writer->next += options.batch;
    submitted += options.batch;
}

/* The writer that a correlation id names. */
static uint64_t batch_writer(deed_bytes uuid)
{
    struct pb_reader r = pb_reader_over(uuid);
    struct pb_field parts, field;
    if (!pb_next(&r, &parts) || !pb_is(&parts, 1, PB_BYTES)) die("an id of another form came back");
    r = pb_reader_over(parts.bytes);
    while (pb_next(&r, &field))
        if (pb_is(&field, 2, PB_VARINT) && field.value - 1 < options.writers)
            return field.value - 1;
    die("an unknown correlation id came back");
    return 0;
}

static void batch_answered(struct call *call, deed_bytes message)
{
    struct pb_reader r = pb_reader_over(message);
    struct pb_field field;
    uint64_t index = 0;
    bool success = false;
    while (pb_next(&r, &field)) {
        if (pb_is(&field, 1, PB_BYTES)) index = batch_writer(field.bytes);
        if (pb_is(&field, 3, PB_BYTES)) success = true;
    }
    struct writer *writer = &writers[index];
    if (!success) die("an append to %s was refused", writer->name);
    append_measured(writer->started_ns[writer->answered++ % options.depth]);
    if (finished || stopping) return;
    batch_request(call, index);
    call_push(call);
}

static void unexpected_end(struct call *call)
{
    (void)call;
    die("a call that does not end has ended");
}

static void writers_begin(void)
{
    uint64_t now_ns = bench_now(), run = random_number() % 1000000000;
    event_init();
    measure_from_ns = options.mode == FILL ? now_ns : now_ns + options.warmup_ms * 1000000;
    end_ns = measure_from_ns + options.seconds_ms * 1000000;
    for (uint64_t i = 0; i < options.writers; i++) {
        if (options.stream[0] != 0 && options.writers == 1)
            snprintf(writers[i].name, sizeof writers[i].name, "%.60s", options.stream);
        else
            snprintf(writers[i].name, sizeof writers[i].name, "bench%" PRIu64 "-%" PRIu64, run, i);
        struct connection *connection = &connections[i % options.connections];
        if (options.mode == APPEND) {
            struct call *call = call_create(connection);
            call->index = i;
            call->on_message = append_answered;
            call->on_end = append_ended;
            append_request(call);
            continue;
        }
        if (connection->batches == NULL) {
            struct call *call = connection->batches = call_create(connection);
            call->streams = true;
            call->on_message = batch_answered;
            call->on_end = unexpected_end;
            call_begin(call, STREAMS "BatchAppend");
        }
        for (uint64_t n = 0; n < options.depth; n++)
            batch_request(connection->batches, i);
    }
}

/* ---- reading -----------------------------------------------------------------------------------
 */

static void event_received(void)
{
    received++;
    if (options.mode != CONSUME || received < options.events) return; /* no clock for each of millions */
    last_ns = bench_now();
    finished = true;
}

static void read_answered(struct call *call, deed_bytes message)
{
    (void)call;
    if (message.len == 0 || finished) return;
    if (message.ptr[0] == (1 << 3 | PB_BYTES)) event_received();
    if (message.ptr[0] != (8 << 3 | PB_BYTES) || options.mode != SUBSCRIBE) return;
    last_ns = bench_now(); /* it has caught up */
    finished = true;
}

static void read_ended(struct call *call)
{
    (void)call;
    last_ns = bench_now();
    finished = true;
}

static void put_read(struct buf *out)
{
    bool one = options.stream[0] != 0;
    size_t frame = frame_begin(out), request = pb_begin(out, 1);
    size_t from = pb_begin(out, one ? 1 : 2);
    if (one) put_name(out, 1, options.stream);
    if (options.mode == PAGE)
        pb_put_uint(out, 2, random_number() % (options.events - options.batch + 1));
    else
        pb_put_empty(out, options.mode == LIVE || one ? 3 : 2); /* $all's end, a stream's start */
    pb_end(out, from);
    if (options.mode == SUBSCRIBE || options.mode == LIVE)
        pb_put_empty(out, 6);
    else
        pb_put_uint(out, 5, options.mode == PAGE ? options.batch : INT64_MAX);
    pb_put_empty(out, 8);
    size_t ids = pb_begin(out, 9);
    pb_put_empty(out, 1);
    pb_end(out, ids);
    pb_end(out, request);
    frame_end(out, frame);
}

static void read_begin(void)
{
    struct call *call = call_create(&connections[0]);
    put_read(&call->request);
    call->on_message = read_answered;
    call->on_end = read_ended;
    first_ns = bench_now();
    call_begin(call, STREAMS "Read");
}

/* ---- pages -------------------------------------------------------------------------------------
 */

static void page_request(struct call *call)
{
    call->event_count = 0;
    put_read(&call->request);
    call_begin(call, STREAMS "Read");
}

static void page_answered(struct call *call, deed_bytes message)
{
    if (message.len > 0 && message.ptr[0] == (1 << 3 | PB_BYTES)) call->event_count++;
}

static void page_ended(struct call *call)
{
    if (call->event_count != options.batch)
        die("%" PRIu64 " of %" PRIu64 " events have come", call->event_count, options.batch);
    append_measured(call->started_ns);
    if (!finished) page_request(call);
}

static void pages_begin(void)
{
    if (options.stream[0] == 0 || options.events < options.batch)
        die("page needs stream=NAME, events=N and no more as batch=N");
    measure_from_ns = bench_now() + options.warmup_ms * 1000000;
    end_ns = measure_from_ns + options.seconds_ms * 1000000;
    for (uint64_t i = 0; i < options.writers; i++) {
        struct call *call = call_create(&connections[i % options.connections]);
        call->on_message = page_answered;
        call->on_end = page_ended;
        page_request(call);
    }
}

/* ---- live subscriptions ------------------------------------------------------------------------
 */

static struct call *followers[FOLLOWERS_MAX];
static uint64_t ready_count, delivered;

/* Over when all that was appended is answered, and all have got it. */
static void live_check(struct call *call)
{
    (void)call;
    if (!stopping || received < submitted) return;
    for (uint64_t i = 0; i < options.consumers; i++) {
        if (followers[i]->event_count > submitted) die("an event has come twice");
        if (followers[i]->event_count < submitted) return;
    }
    last_ns = bench_now();
    finished = true;
}

static void live_answered(struct call *call, deed_bytes message)
{
    if (message.len == 0) return;
    if (message.ptr[0] == (1 << 3 | PB_BYTES)) {
        call->event_count++;
        delivered++;
    }
    if (message.ptr[0] != (8 << 3 | PB_BYTES) || call->index != 0) return;
    call->index = 1; /* it has caught up for the first time */
    if (++ready_count < options.consumers) return;
    first_ns = bench_now();
    writers_begin();
    for (uint64_t i = 0; i < options.connections; i++)
        if (connections[i].batches != NULL) connections[i].batches->on_messages = live_check;
}

static void live_begin(void)
{
    for (uint64_t i = 0; i < options.consumers; i++) {
        struct call *call = followers[i] = call_create(&connections[i % options.connections]);
        put_read(&call->request);
        call->on_message = live_answered;
        call->on_messages = live_check;
        call->on_end = unexpected_end;
        call_begin(call, STREAMS "Read");
    }
}

/* ---- groups ------------------------------------------------------------------------------------
 */

static struct buf acks; /* ids, as fields of an Ack, of what has come */
static uint64_t ack_count;

static void acks_send(struct call *call)
{
    if (ack_count == 0) return;
    size_t frame = frame_begin(&call->request);
    pb_put_bytes(&call->request, 2, buf_bytes(&acks));
    frame_end(&call->request, frame);
    buf_reset(&acks);
    ack_count = 0;
    call_push(call);
}

/* The id of the link, if it is one, else of the event. */
static deed_bytes event_id(deed_bytes read_event)
{
    struct pb_reader r = pb_reader_over(read_event);
    struct pb_field recorded, field;
    deed_bytes id = {0};
    while (pb_next(&r, &recorded)) {
        if (!pb_is(&recorded, 1, PB_BYTES) && !pb_is(&recorded, 2, PB_BYTES)) continue;
        struct pb_reader inner = pb_reader_over(recorded.bytes);
        while (pb_next(&inner, &field))
            if (pb_is(&field, 1, PB_BYTES)) {
                id = field.bytes;
                break;
            }
    }
    return id;
}

static void consume_answered(struct call *call, deed_bytes message)
{
    struct pb_reader r = pb_reader_over(message);
    struct pb_field field;
    if (!pb_next(&r, &field) || !pb_is(&field, 1, PB_BYTES)) return;
    pb_put_bytes(&acks, 2, event_id(field.bytes));
    if (++ack_count >= ACKS_MAX) acks_send(call);
    if (!finished) event_received();
}

static void ignore_message(struct call *call, deed_bytes message)
{
    (void)call;
    (void)message;
}

static void group_created(struct call *create)
{
    (void)create;
    for (uint64_t i = 0; i < options.consumers; i++) {
        struct call *call = call_create(&connections[i % options.connections]);
        size_t frame = frame_begin(&call->request), request = pb_begin(&call->request, 1);
        put_name(&call->request, 1, options.stream);
        pb_put_str(&call->request, 2, DEED_STR("bench"));
        pb_put_uint(&call->request, 3, options.buffer);
        size_t ids = pb_begin(&call->request, 4);
        pb_put_empty(&call->request, 1);
        pb_end(&call->request, ids);
        pb_end(&call->request, request);
        frame_end(&call->request, frame);
        call->streams = true;
        call->on_message = consume_answered;
        call->on_messages = acks_send;
        call->on_end = unexpected_end;
        call_begin(call, GROUPS "Read");
    }
    first_ns = bench_now();
}

static void consume_begin(void)
{
    struct call *call = call_create(&connections[0]);
    struct buf *out = &call->request;
    if (options.stream[0] == 0 || options.events == 0)
        die("consume needs stream=NAME and events=N");
    buf_init(&acks, BUF_SIZE_MAX);
    size_t frame = frame_begin(out), request = pb_begin(out, 1);
    pb_put_str(out, 2, DEED_STR("bench"));
    size_t settings = pb_begin(out, 3);
    pb_put_uint(out, 14, 30000);
    pb_put_uint(out, 15, 2000);
    pb_put_uint(out, 5, 10);
    pb_put_uint(out, 7, 10);
    pb_put_uint(out, 8, 1000);
    pb_put_uint(out, 10, 500);
    pb_put_uint(out, 11, 200);
    pb_put_uint(out, 12, 5000);
    pb_put_str(out, 16, DEED_STR("RoundRobin"));
    pb_end(out, settings);
    size_t stream = pb_begin(out, 4);
    put_name(out, 1, options.stream);
    pb_put_empty(out, 3);
    pb_end(out, stream);
    pb_end(out, request);
    frame_end(out, frame);
    call->on_message = ignore_message;
    call->on_end = group_created;
    call_begin(call, GROUPS "Create");
}

/* ---- bodies for others -------------------------------------------------------------------------
 */

static void body_write(void)
{
    struct buf out;
    buf_init(&out, BUF_SIZE_MAX);
    if (options.mode == READ_BODY) {
        put_read(&out);
    } else {
        event_init();
        size_t frame = frame_begin(&out), target = pb_begin(&out, 1);
        put_name(&out, 1, "bench-again");
        pb_put_empty(&out, 4);
        pb_end(&out, target);
        frame_end(&out, frame);
        frame = frame_begin(&out);
        put_event(&out, 2);
        frame_end(&out, frame);
    }
    if (fwrite(out.ptr, 1, out.len, stdout) != out.len) die("stdout: %s", strerror(errno));
    buf_done(&out);
}

/* ---- the program -------------------------------------------------------------------------------
 */

static void option_take(const char *argument)
{
    const char *value = strchr(argument, '=');
    static const struct {
        const char *name;
        uint64_t *to;
    } numbers[] = {
        {"connections", &options.connections},
        {"writers", &options.writers},
        {"batch", &options.batch},
        {"depth", &options.depth},
        {"events", &options.events},
        {"consumers", &options.consumers},
        {"buffer", &options.buffer},
        {"seconds_ms", &options.seconds_ms},
        {"warmup_ms", &options.warmup_ms},
    };
    size_t size = value == NULL ? 0 : (size_t)(value - argument);
    if (size == 6 && memcmp(argument, "stream", 6) == 0) {
        snprintf(options.stream, sizeof options.stream, "%s", value + 1);
        return;
    }
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        if (size == strlen(numbers[i].name) && memcmp(argument, numbers[i].name, size) == 0) {
            *numbers[i].to = strtoull(value + 1, NULL, 10);
            return;
        }
    die("unknown option %s", argument);
}

static void options_take(int argc, char **argv)
{
    if (argc < 3) die("grpc MODE HOST:PORT [name=number]… [stream=NAME]");
    for (options.mode = APPEND; strcmp(argv[1], mode_names[options.mode]) != 0; options.mode++)
        if (options.mode == READ_BODY) die("no mode %s", argv[1]);
    const char *colon = strrchr(argv[2], ':');
    if (colon == NULL) die("%s is not HOST:PORT", argv[2]);
    snprintf(options.host, sizeof options.host, "%.*s", (int)(colon - argv[2]), argv[2]);
    options.port = colon + 1;
    for (int i = 3; i < argc; i++)
        option_take(argv[i]);
    if (options.connections == 0 || options.connections > CONNECTIONS_MAX || options.writers == 0 ||
        options.writers > WRITERS_MAX || options.depth == 0 || options.depth > DEPTH_MAX ||
        options.batch == 0 || options.consumers == 0 || options.consumers > FOLLOWERS_MAX)
        die("1 to %d connections, %d writers, a depth of 1 to %d", CONNECTIONS_MAX, WRITERS_MAX,
            DEPTH_MAX);
    if (options.mode == FILL && options.events == 0) die("fill needs events=N");
}

static void report(void)
{
    char what[128];
    const char *mode = mode_names[options.mode];
    if (options.mode <= FILL || options.mode == PAGE) {
        snprintf(what, sizeof what,
                 "gRPC %s, %" PRIu64 " writers, %" PRIu64 " under way, %" PRIu64 " events", mode,
                 options.writers, options.writers * options.depth, options.batch);
        bench_report_latency(what, &latency, options.batch, last_ns - measure_from_ns);
        return;
    }
    snprintf(what, sizeof what, "gRPC %s", mode);
    if (options.mode == LIVE) received = delivered;
    if (received == 0 || (options.events != 0 && received < options.events))
        die("%s: %" PRIu64 " events have come", what, received);
    double seconds = (double)(last_ns - first_ns) / 1e9;
    printf("{\"what\":\"%s\",\"count\":%" PRIu64 ",\"events\":%" PRIu64
           ",\"seconds\":%.3f,\"rate\":%.0f,\"bytes\":%" PRIu64 "}\n",
           what, received, received, seconds, (double)received / seconds, received_bytes);
}

int main(int argc, char **argv)
{
    options_take(argc, argv);
    if (options.mode >= APPEND_BODY) {
        body_write();
        return 0;
    }
    for (size_t i = 0; i < options.connections; i++)
        connection_open(&connections[i]);
    if (options.mode <= FILL)
        writers_begin();
    else if (options.mode == CONSUME)
        consume_begin();
    else if (options.mode == LIVE)
        live_begin();
    else if (options.mode == PAGE)
        pages_begin();
    else
        read_begin();
    run();
    report();
    return 0;
}
