/* redis.c - Redis streams as an event store: a key a stream, revisions as ids.
 *
 *     redis MODE PORT [name=number]…
 *
 * The server runs with appendonly yes, appendfsync always. An append is one EVALSHA: the script
 * compares XLEN with the expected revision and XADDs with the id "<revision + 1>-0". There is no
 * global order: an event is stored once, in its stream's key, which favours Redis.
 *
 *     append   `clients` connections in one event loop, one request under way each
 *     fill     `events` order lines, ten a stream, and the same once more in the key "all"
 *     read     XRANGE of one stream, `clients` connections
 *     replay   XRANGE over "all" in pages of ten thousand
 *     project  "all" into a hash a row, a thousand a MULTI with the checkpoint, pipelined
 *     live     one connection appends, another waits in XREAD BLOCK */
#include "bench/peers/peer.h"

#include <errno.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#define INPUT_SIZE ((size_t)16 << 20)

static const char script[] =
    "local last = redis.call('XLEN', KEYS[1]) - 1\n"
    "if last ~= tonumber(ARGV[1]) then return redis.error_reply('CONFLICT at ' .. last) end\n"
    "for i = 2, #ARGV do\n"
    "  redis.call('XADD', KEYS[1], string.format('%d-0', last + i), 'type', 'Measured', 'data', "
    "ARGV[i])\n"
    "end\n"
    "return last + #ARGV - 1";

static struct peer peer;
static char script_sha[41];

struct connection {
    int socket;
    uint64_t index, made, started_ns;
    struct buf out;
    uint8_t *in;
    size_t in_size;
};

/* ---- RESP ---------------------------------------------------------------------------------------
 */

static void command(struct buf *out, size_t count)
{
    buf_printf(out, "*%zu\r\n", count);
}

static void argument(struct buf *out, const void *bytes, size_t size)
{
    char head[32];
    int head_size = snprintf(head, sizeof head, "$%zu\r\n", size);
    buf_add(out, head, (size_t)head_size);
    buf_add(out, bytes, size);
    buf_add(out, "\r\n", 2);
}

static void text(struct buf *out, const char *format, ...) DEED_PRINTF(2, 3);
static void text(struct buf *out, const char *format, ...)
{
    char bytes[256];
    va_list list;
    va_start(list, format);
    int size = vsnprintf(bytes, sizeof bytes, format, list);
    va_end(list);
    argument(out, bytes, (size_t)size);
}

/* Called for each bulk string of a reply. */
typedef void on_bulk(void *context, const uint8_t *bytes, size_t size);

/* The size of the reply at the front, or 0 if it is not all there. */
static size_t reply_size(const uint8_t *in, size_t size, on_bulk *bulk, void *context)
{
    const uint8_t *end = size == 0 ? NULL : memchr(in, '\n', size);
    if (end == NULL) return 0;
    size_t used = (size_t)(end - in) + 1;
    long number = in[0] == '$' || in[0] == '*' ? strtol((const char *)in + 1, NULL, 10) : 0;
    switch (in[0]) {
    case '-':
        peer_die("redis: %.*s", (int)used, (const char *)in);
    case '+':
    case ':':
        return used;
    case '$':
        if (number < 0) return used;
        if (size - used < (size_t)number + 2) return 0;
        if (bulk != NULL) bulk(context, in + used, (size_t)number);
        return used + (size_t)number + 2;
    case '*':
        for (long i = 0; i < number; i++) {
            size_t some = reply_size(in + used, size - used, bulk, context);
            if (some == 0) return 0;
            used += some;
        }
        return used;
    default:
        peer_die("redis: a reply begins with %02x", in[0]);
    }
    return 0;
}

/* ---- connections --------------------------------------------------------------------------------
 */

static void connection_open(struct connection *c, uint64_t index)
{
    struct deed_error err = {0};
    *c = (struct connection){.index = index, .in = malloc(INPUT_SIZE)};
    if (c->in == NULL) peer_die("no memory");
    buf_init(&c->out, (size_t)256 << 20);
    bench_ok(load_connect("127.0.0.1", peer.address, &c->socket, &err));
}

static void connection_send(struct connection *c)
{
    for (size_t sent = 0; sent < c->out.len;) {
        ssize_t size = send(c->socket, c->out.ptr + sent, c->out.len - sent, MSG_NOSIGNAL);
        if (size < 0 && errno != EINTR) peer_die("redis: %s", strerror(errno));
        if (size > 0) sent += (size_t)size;
    }
    buf_reset(&c->out);
}

static void connection_receive(struct connection *c)
{
    ssize_t size = recv(c->socket, c->in + c->in_size, INPUT_SIZE - c->in_size, 0);
    if (size <= 0) peer_die("redis: the connection ended");
    c->in_size += (size_t)size;
}

static void connection_drop(struct connection *c, size_t used)
{
    c->in_size -= used;
    memmove(c->in, c->in + used, c->in_size);
}

/* Wait for `count` replies; the last one's bulk strings go to `bulk`. */
static void connection_wait(struct connection *c, size_t count, on_bulk *bulk, void *context)
{
    while (count > 0) {
        /* A first pass without `bulk`, since a reply may not be all there yet. */
        size_t used = reply_size(c->in, c->in_size, NULL, NULL);
        if (used == 0) {
            connection_receive(c);
            continue;
        }
        if (bulk != NULL && count == 1) (void)reply_size(c->in, c->in_size, bulk, context);
        connection_drop(c, used);
        count--;
    }
}

/* ---- many connections, one request under way each ----------------------------------------------- */

typedef void make_request(struct connection *c);

static void loop(make_request *make)
{
    struct connection *connections = calloc(peer.clients, sizeof *connections);
    int poll = epoll_create1(EPOLL_CLOEXEC);
    if (connections == NULL || poll < 0) peer_die("no memory");
    peer_begin(&peer);
    for (uint64_t i = 0; i < peer.clients; i++) {
        struct connection *c = &connections[i];
        connection_open(c, i);
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
        if (epoll_ctl(poll, EPOLL_CTL_ADD, c->socket, &event) != 0) peer_die("epoll");
        make(c);
        c->started_ns = bench_now();
        connection_send(c);
    }
    while (bench_now() < peer.end_ns) {
        struct epoll_event events[64];
        int count = epoll_wait(poll, events, 64, 100);
        for (int i = 0; i < count; i++) {
            struct connection *c = events[i].data.ptr;
            connection_receive(c);
            size_t used = reply_size(c->in, c->in_size, NULL, NULL);
            if (used == 0) continue;
            uint64_t now = bench_now();
            peer_answered(&peer, c->started_ns, now);
            connection_drop(c, used);
            c->made++;
            make(c);
            c->started_ns = now;
            connection_send(c);
        }
    }
}

static void script_load(void)
{
    struct connection c;
    connection_open(&c, 0);
    command(&c.out, 3);
    text(&c.out, "SCRIPT");
    text(&c.out, "LOAD");
    argument(&c.out, script, sizeof script - 1);
    connection_send(&c);
    while (c.in_size < 40 + 7)
        connection_receive(&c);
    memcpy(script_sha, c.in + 5, 40); /* "$40\r\n" */
    close(c.socket);
}

static void append_make(struct connection *c)
{
    command(&c->out, 5 + peer.batch);
    text(&c->out, "EVALSHA");
    argument(&c->out, script_sha, 40);
    text(&c->out, "1");
    text(&c->out, "bench-%d-%" PRIu64, (int)getpid(), c->index);
    text(&c->out, "%" PRId64, (int64_t)(c->made * peer.batch) - 1);
    for (uint64_t i = 0; i < peer.batch; i++)
        argument(&c->out, peer.data.ptr, peer.data.len);
}

static void append(void)
{
    script_load();
    loop(append_make);
    peer_report(&peer, peer.batch);
}

static void read_make(struct connection *c)
{
    command(&c->out, 6);
    text(&c->out, "XRANGE");
    text(&c->out, "stream-%" PRIu64, peer_mix((c->made << 16) + c->index + 1) % peer.streams);
    text(&c->out, "-");
    text(&c->out, "+");
    text(&c->out, "COUNT");
    text(&c->out, "%" PRIu64, peer.per_read);
}

static void read_streams(void)
{
    loop(read_make);
    peer_report(&peer, peer.per_read);
}

/* ---- one connection ----------------------------------------------------------------------------- */

static void add(struct buf *out, const char *key, uint64_t id, const char *line)
{
    command(out, 7);
    text(out, "XADD");
    text(out, "%s", key);
    text(out, "%" PRIu64 "-0", id);
    text(out, "type");
    text(out, "Measured");
    text(out, "data");
    argument(out, line, BENCH_LINE_SIZE);
}

/* Filling is not what is measured. */
static void sync_set(struct connection *c, const char *when)
{
    command(&c->out, 4);
    text(&c->out, "CONFIG");
    text(&c->out, "SET");
    text(&c->out, "appendfsync");
    text(&c->out, "%s", when);
    connection_send(c);
    connection_wait(c, 1, NULL, NULL);
}

static void fill(void)
{
    struct connection c;
    uint64_t streams = peer.events / 10, begun = bench_now();
    char line[BENCH_LINE_SIZE + 1], key[64];
    connection_open(&c, 0);
    sync_set(&c, "no");
    for (uint64_t n = 0; n < streams * 10; n++) {
        bench_line(n, line);
        snprintf(key, sizeof key, "stream-%" PRIu64, n % streams);
        add(&c.out, key, n / streams + 1, line);
        add(&c.out, "all", n + 1, line);
        if (n % 1000 == 999 || n + 1 == streams * 10) {
            connection_send(&c);
            connection_wait(&c, 2 * (n % 1000 + 1), NULL, NULL);
        }
    }
    sync_set(&c, "always");
    peer_report_all(&peer, streams * 10, bench_now() - begun);
}

/* An entry is [id, [type, Measured, data, …]]: five bulk strings. */
struct page {
    uint64_t bulks, touched;
    char last[32];
    void (*event)(struct page *page, const uint8_t *data, size_t size);
    struct buf *out;
    struct arena arena;
};

static void page_bulk(void *context, const uint8_t *bytes, size_t size)
{
    struct page *page = context;
    uint64_t field = page->bulks++ % 5;
    if (field == 0) snprintf(page->last, sizeof page->last, "%.*s", (int)size, (const char *)bytes);
    if (field != 4) return;
    page->touched += bytes[size - 1];
    if (page->event != NULL) page->event(page, bytes, size);
}

/* Ask for the next page of "all"; how many events it had. */
static uint64_t page_read(struct connection *c, struct page *page, uint64_t count)
{
    command(&c->out, 6);
    text(&c->out, "XRANGE");
    text(&c->out, "all");
    text(&c->out, "(%s", page->last);
    text(&c->out, "+");
    text(&c->out, "COUNT");
    text(&c->out, "%" PRIu64, count);
    connection_send(c);
    page->bulks = 0;
    connection_wait(c, 1, page_bulk, page);
    return page->bulks / 5;
}

static void replay(void)
{
    struct connection c;
    struct page page = {.last = "0-0"};
    uint64_t count = 0, some = 0, begun = bench_now();
    connection_open(&c, 0);
    while ((some = page_read(&c, &page, 10000)) > 0)
        count += some;
    if (page.touched == 0) peer_die("nothing was read");
    peer_report_all(&peer, count, bench_now() - begun);
}

static void row_make(struct page *page, const uint8_t *data, size_t size)
{
    struct peer_line line;
    arena_reset(&page->arena);
    peer_line(&page->arena, (deed_bytes){data, size}, &line);
    command(page->out, 10);
    text(page->out, "HSET");
    text(page->out, "line:%.*s:%" PRId64, (int)line.order_id.len, line.order_id.ptr, line.line_id);
    text(page->out, "product");
    argument(page->out, line.product_id.ptr, line.product_id.len);
    text(page->out, "quantity");
    text(page->out, "%" PRId64, line.quantity);
    text(page->out, "price");
    text(page->out, "%" PRId64, line.price);
    text(page->out, "total");
    text(page->out, "%" PRId64, line.total);
}

static void project(void)
{
    struct connection from, to;
    struct page page = {.last = "0-0", .event = row_make};
    uint64_t count = 0, some = 0, waiting = 0, begun = bench_now();
    connection_open(&from, 0);
    connection_open(&to, 1);
    arena_init(&page.arena, 1u << 20);
    page.out = &to.out;
    for (;;) {
        command(&to.out, 1);
        text(&to.out, "MULTI");
        some = page_read(&from, &page, 1000);
        command(&to.out, 3);
        text(&to.out, "SET");
        text(&to.out, "checkpoint");
        text(&to.out, "%s", page.last);
        command(&to.out, 1);
        text(&to.out, "EXEC");
        connection_send(&to);
        if (waiting > 0) connection_wait(&to, waiting, NULL, NULL); /* the last one's */
        waiting = some + 3;
        if (some == 0) break;
        count += some;
    }
    connection_wait(&to, waiting, NULL, NULL);
    peer_report_all(&peer, count, bench_now() - begun);
}

static void live(void)
{
    struct connection writer, follower;
    script_load();
    connection_open(&writer, 0);
    connection_open(&follower, 1);
    peer_begin(&peer);
    for (uint64_t now = peer.begun_ns; now < peer.end_ns;) {
        command(&follower.out, 6);
        text(&follower.out, "XREAD");
        text(&follower.out, "BLOCK");
        text(&follower.out, "0");
        text(&follower.out, "STREAMS");
        text(&follower.out, "bench-%d-0", (int)getpid());
        text(&follower.out, "%" PRIu64 "-0", writer.made);
        connection_send(&follower);
        append_make(&writer);
        uint64_t started = bench_now();
        connection_send(&writer);
        connection_wait(&follower, 1, NULL, NULL);
        peer_answered(&peer, started, bench_now());
        connection_wait(&writer, 1, NULL, NULL);
        writer.made++;
        now = bench_now();
    }
    peer.clients = 1;
    peer_report(&peer, 1);
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*run)(void);
    } modes[] = {{"append", append}, {"fill", fill},       {"read", read_streams},
                 {"replay", replay}, {"project", project}, {"live", live},
                 {NULL, NULL}};
    peer_options(argc, argv, &peer);
    for (size_t i = 0; modes[i].name != NULL; i++) {
        if (strcmp(modes[i].name, peer.mode) != 0) continue;
        modes[i].run();
        return 0;
    }
    peer_die("redis: no mode \"%s\"", peer.mode);
}
