/* postgres.c - PostgreSQL as an event store: one table with a unique (stream, revision).
 *
 *     postgres MODE CONNECTION [name=number]…
 *
 * synchronous_commit is on. An append is one prepared statement, a transaction by itself, that
 * inserts only if the stream's last revision is the expected one; the unique index settles races.
 * Positions come from an identity column. (They are not in commit order, so a careful reader of the
 * whole table would need more than is asked for here; that favours PostgreSQL.)
 *
 *     append     `clients` connections in one event loop, one request under way each
 *     fill       `events` order lines, ten a stream, by INSERT … SELECT; with `tags`, ten events each
 *     read       one stream by its index, `clients` connections, binary results
 *     replay     COPY of the whole table in order, binary
 *     project    a cursor over it; into a table, a thousand rows a transaction, pipelined
 *     live       one connection inserts and notifies, another LISTENs
 *     plain, condition
 *                SERIALIZABLE: insert unless the tag has an event of some types behind a position;
 *                the tags are a table with an index. Again after a serialization failure */
#include "bench/peers/peer.h"

#include <errno.h>
#include <libpq-fe.h>
#include <poll.h>
#include <sys/epoll.h>

static struct peer peer;

static const char schema[] =
    "SET client_min_messages TO warning;"
    "CREATE TABLE IF NOT EXISTS events ("
    " position bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, stream text NOT NULL,"
    " revision bigint NOT NULL, id uuid NOT NULL DEFAULT gen_random_uuid(), type text NOT NULL,"
    " data json NOT NULL, recorded_at timestamptz NOT NULL DEFAULT now(),"
    " UNIQUE (stream, revision));"
    "CREATE TABLE IF NOT EXISTS tags (tag text, type text, position bigint,"
    " PRIMARY KEY (tag, position))";

#define LAST(stream)                                                                               \
    "coalesce((SELECT revision FROM events WHERE stream = " stream                                 \
    " ORDER BY revision DESC LIMIT 1), -1)"

static const char append_one[] =
    "INSERT INTO events (stream, revision, type, data) SELECT $1, $2::bigint + 1, 'Measured', $3"
    " WHERE " LAST("$1") " = $2::bigint RETURNING position";
/* $3 is an array of JSON texts. */
static const char append_many[] =
    "INSERT INTO events (stream, revision, type, data)"
    " SELECT $1, $2::bigint + n, 'Measured', d FROM unnest($3::json[]) WITH ORDINALITY AS u (d, n)"
    " WHERE " LAST("$1") " = $2::bigint ORDER BY n RETURNING position";
static const char append_notify[] = "WITH e AS (INSERT INTO events (stream, revision, type, data)"
                                    " SELECT $1, $2::bigint + 1, 'Measured', $3 WHERE " LAST(
                                        "$1") " = $2::bigint RETURNING data)"
                                              " SELECT pg_notify('events', data::text) FROM e";
static const char read_stream[] =
    "SELECT position, revision, id, type, data, recorded_at FROM events WHERE stream = $1"
    " ORDER BY revision LIMIT $2::bigint";
static const char append_tagged[] =
    "WITH e AS (INSERT INTO events (stream, revision, type, data)"
    " SELECT $1, $2::bigint + 1, 'Measured', $3 WHERE " LAST(
        "$1") " = $2::bigint"
              " RETURNING position, type) INSERT INTO tags SELECT $4, type, position FROM e";
static const char append_condition[] =
    "WITH e AS (INSERT INTO events (stream, revision, type, data)"
    " SELECT $1, $2::bigint + 1, 'Measured', $3 WHERE NOT EXISTS (SELECT 1 FROM tags"
    " WHERE tag = $4 AND type = ANY (ARRAY['Filled-0', 'Filled-1']) AND position > $5::bigint)"
    " RETURNING position, type) INSERT INTO tags SELECT $4, type, position FROM e";

/* ---- connections --------------------------------------------------------------------------------
 */

static PGconn *connection_open(void)
{
    PGconn *c = PQconnectdb(peer.address);
    if (PQstatus(c) != CONNECTION_OK) peer_die("postgres: %s", PQerrorMessage(c));
    return c;
}

static void result_check(PGconn *c, PGresult *result, const char *what)
{
    ExecStatusType status = PQresultStatus(result);
    if (status != PGRES_COMMAND_OK && status != PGRES_TUPLES_OK && status != PGRES_COPY_OUT &&
        status != PGRES_PIPELINE_SYNC) {
        peer_die("postgres: %s: %s", what, PQerrorMessage(c));
    }
}

static void run(PGconn *c, const char *sql)
{
    PGresult *result = PQexec(c, sql);
    result_check(c, result, sql);
    PQclear(result);
}

static uint64_t number(PGconn *c, const char *sql)
{
    PGresult *result = PQexec(c, sql);
    result_check(c, result, sql);
    uint64_t value = strtoull(PQgetvalue(result, 0, 0), NULL, 10);
    PQclear(result);
    return value;
}

static void prepare(PGconn *c, const char *name, const char *sql)
{
    PGresult *result = PQprepare(c, name, sql, 0, NULL);
    result_check(c, result, sql);
    PQclear(result);
}

/* ---- many connections, one request under way each ----------------------------------------------- */

struct client {
    PGconn *pg;
    uint64_t index, made, started_ns;
};
typedef int send_request(struct client *client);

static const char *appended; /* what append sends as $3 */
static uint64_t filled_end;

static void loop_send(struct client *client, send_request *send)
{
    if (send(client) != 1) peer_die("postgres: %s", PQerrorMessage(client->pg));
    while (PQflush(client->pg) == 1) {
        struct pollfd wait = {.fd = PQsocket(client->pg), .events = POLLOUT};
        (void)poll(&wait, 1, -1);
    }
}

/* Take what has come. true: the request is done; it must have done what it should to `rows` rows
 * (0: do not look). `*again`: two transactions could not be put in an order. */
static bool loop_receive(struct client *client, uint64_t rows, bool *again)
{
    if (PQconsumeInput(client->pg) == 0) peer_die("postgres: %s", PQerrorMessage(client->pg));
    while (!PQisBusy(client->pg)) {
        PGresult *result = PQgetResult(client->pg);
        if (result == NULL) return true;
        const char *state = PQresultErrorField(result, PG_DIAG_SQLSTATE);
        if (state != NULL && strcmp(state, "40001") == 0) {
            *again = true;
        } else {
            result_check(client->pg, result, peer.mode);
            const char *count = PQcmdTuples(result);
            if (rows > 0 && strtoull(count, NULL, 10) != rows)
                peer_die("postgres: %s rows instead of %" PRIu64 ": a conflict", count, rows);
        }
        PQclear(result);
    }
    return false;
}

static void loop(const char *statement, const char *setting, send_request *send, uint64_t rows)
{
    struct client *clients = calloc(peer.clients, sizeof *clients);
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    if (clients == NULL || epoll < 0) peer_die("no memory");
    for (uint64_t i = 0; i < peer.clients; i++) {
        clients[i] = (struct client){.pg = connection_open(), .index = i};
        if (setting != NULL) run(clients[i].pg, setting);
        prepare(clients[i].pg, "it", statement);
        (void)PQsetnonblocking(clients[i].pg, 1);
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = &clients[i]};
        if (epoll_ctl(epoll, EPOLL_CTL_ADD, PQsocket(clients[i].pg), &event) != 0)
            peer_die("epoll");
    }
    peer_begin(&peer);
    for (uint64_t i = 0; i < peer.clients; i++) {
        clients[i].started_ns = bench_now();
        loop_send(&clients[i], send);
    }
    while (bench_now() < peer.end_ns) {
        struct epoll_event events[64];
        int count = epoll_wait(epoll, events, 64, 100);
        for (int i = 0; i < count; i++) {
            struct client *client = events[i].data.ptr;
            bool again = false;
            if (!loop_receive(client, rows, &again)) continue;
            uint64_t now = bench_now();
            if (again) {
                peer.failed++; /* asked again; its time goes on */
            } else {
                peer_answered(&peer, client->started_ns, now);
                client->made++;
                client->started_ns = now;
            }
            loop_send(client, send);
        }
    }
}

static int append_send(struct client *client)
{
    char stream[64], expected[32];
    snprintf(stream, sizeof stream, "bench-%d-%" PRIu64, (int)getpid(), client->index);
    snprintf(expected, sizeof expected, "%" PRId64, (int64_t)(client->made * peer.batch) - 1);
    const char *values[] = {stream, expected, appended};
    return PQsendQueryPrepared(client->pg, "it", 3, values, NULL, NULL, 1);
}

/* {"…","…"} with quotes and backslashes escaped, `batch` times the data. */
static const char *array_make(void)
{
    struct buf out;
    buf_init(&out, 64u << 20);
    for (uint64_t i = 0; i < peer.batch; i++) {
        buf_add(&out, i == 0 ? "{\"" : ",\"", 2);
        for (size_t at = 0; at < peer.data.len; at++) {
            if (peer.data.ptr[at] == '"' || peer.data.ptr[at] == '\\') buf_add_byte(&out, '\\');
            buf_add_byte(&out, peer.data.ptr[at]);
        }
        buf_add_byte(&out, '"');
    }
    buf_add_byte(&out, '}');
    return buf_take(&out);
}

static void append(void)
{
    appended = peer.batch > 1 ? array_make() : (const char *)peer.data.ptr;
    loop(peer.batch > 1 ? append_many : append_one, NULL, append_send, peer.batch);
    peer_report(&peer, peer.batch);
}

static int read_send(struct client *client)
{
    char stream[64], limit[32];
    snprintf(stream, sizeof stream, "stream-%" PRIu64,
             peer_mix((client->made << 16) + client->index + 1) % peer.streams);
    snprintf(limit, sizeof limit, "%" PRIu64, peer.per_read);
    const char *values[] = {stream, limit};
    return PQsendQueryPrepared(client->pg, "it", 2, values, NULL, NULL, 1);
}

static void read_streams(void)
{
    loop(read_stream, NULL, read_send, peer.per_read);
    peer_report(&peer, peer.per_read);
}

static int condition_send(struct client *client)
{
    char stream[64], expected[32], tag[32], after[32];
    snprintf(stream, sizeof stream, "bench-%d-%" PRIu64, (int)getpid(), client->index);
    snprintf(expected, sizeof expected, "%" PRId64, (int64_t)client->made - 1);
    snprintf(tag, sizeof tag, "tag-%" PRIu64,
             peer_mix((client->made << 16) + client->index + 1) % peer.tags);
    snprintf(after, sizeof after, "%" PRIu64, filled_end);
    const char *values[] = {stream, expected, (const char *)peer.data.ptr, tag, after};
    bool plain = strcmp(peer.mode, "plain") == 0;
    return PQsendQueryPrepared(client->pg, "it", plain ? 4 : 5, values, NULL, NULL, 1);
}

static void condition(void)
{
    PGconn *c = connection_open();
    filled_end = number(c, "SELECT coalesce(max(position), 0) FROM events");
    PQfinish(c);
    bool plain = strcmp(peer.mode, "plain") == 0;
    loop(plain ? append_tagged : append_condition,
         plain ? NULL : "SET default_transaction_isolation TO serializable", condition_send, 1);
    peer_report(&peer, 1);
}

/* ---- one connection ----------------------------------------------------------------------------- */

/* The same lines as bench_line, made by the server: that is not what is measured. */
static void fill(void)
{
    PGconn *c = connection_open();
    char sql[2048];
    uint64_t begun = bench_now(), streams = peer.events / 10;
    snprintf(
        sql, sizeof sql,
        "INSERT INTO events (stream, revision, type, data) SELECT 'stream-' || n %% %" PRIu64
        ", n / %" PRIu64 ", 'Filled-' || n %% 5, (head || repeat('n', %d - length(head)) || "
        "'\"}')::json FROM (SELECT n, '{\"order_id\":\"' || lpad((n / 10)::text, 8, '0') || "
        "'\",\"line_id\":' || n %% 10 || ',\"product_id\":\"p-' || n %% 77 || "
        "'\",\"product_name\":\"Some product\",\"quantity\":' || n %% 9 + 1 || "
        "',\"unit_price_cents\":1250,\"discount_percent\":5,\"line_total_cents\":' || n %% 9999 "
        "|| ',\"note\":\"' AS head FROM generate_series(0, %" PRIu64 ") AS g (n)) AS h ORDER BY n",
        streams, streams, BENCH_LINE_SIZE - 2, streams * 10 - 1);
    run(c, sql);
    if (peer.tags > 0) {
        snprintf(sql, sizeof sql,
                 "INSERT INTO tags SELECT 'tag-' || position %% %" PRIu64 ", type, position"
                 " FROM events WHERE stream LIKE 'stream-%%' ORDER BY position LIMIT %" PRIu64,
                 peer.tags, peer.tags * 10);
        run(c, sql);
    }
    run(c, "VACUUM ANALYZE");
    run(c, "CHECKPOINT");
    peer_report_all(&peer, streams * 10, bench_now() - begun);
    PQfinish(c);
}

static void replay(void)
{
    PGconn *c = connection_open();
    uint64_t begun = bench_now(), count = 0, touched = 0;
    run(c, "COPY (SELECT position, stream, revision, id, type, data, recorded_at FROM events"
           " ORDER BY position) TO STDOUT (FORMAT binary)");
    char *row = NULL;
    int size = 0;
    while ((size = PQgetCopyData(c, &row, 0)) > 0) {
        touched += (uint64_t)(uint8_t)row[size - 1];
        count += size > 21 ? 1 : 0; /* the trailer is shorter than any row */
        PQfreemem(row);
    }
    if (size != -1 || touched == 0) peer_die("postgres: %s", PQerrorMessage(c));
    peer_report_all(&peer, count, bench_now() - begun);
    PQfinish(c);
}

static void row_send(PGconn *c, struct arena *arena, const char *data, size_t size)
{
    struct peer_line line;
    char order_id[64], product_id[64], numbers[4][24];
    arena_reset(arena);
    peer_line(arena, (deed_bytes){(const uint8_t *)data, size}, &line);
    snprintf(order_id, sizeof order_id, "%.*s", (int)line.order_id.len, line.order_id.ptr);
    snprintf(product_id, sizeof product_id, "%.*s", (int)line.product_id.len, line.product_id.ptr);
    const int64_t integers[] = {line.line_id, line.quantity, line.price, line.total};
    for (size_t i = 0; i < 4; i++)
        snprintf(numbers[i], sizeof numbers[i], "%" PRId64, integers[i]);
    const char *values[] = {order_id, numbers[0], product_id, numbers[1], numbers[2], numbers[3]};
    if (PQsendQueryPrepared(c, "row", 6, values, NULL, NULL, 1) != 1)
        peer_die("postgres: %s", PQerrorMessage(c));
}

static void pipeline_end(PGconn *c)
{
    if (PQpipelineSync(c) != 1) peer_die("postgres: %s", PQerrorMessage(c));
    for (;;) {
        PGresult *result = PQgetResult(c);
        if (result == NULL) continue; /* between two commands */
        result_check(c, result, "pipeline");
        bool ended = PQresultStatus(result) == PGRES_PIPELINE_SYNC;
        PQclear(result);
        if (ended) return;
    }
}

static void project(void)
{
    PGconn *from = connection_open(), *to = connection_open();
    struct arena arena;
    arena_init(&arena, 1u << 20);
    run(to, "SET client_min_messages TO warning; DROP TABLE IF EXISTS lines;"
            "CREATE TABLE lines (order_id text, line_id bigint, product text, quantity bigint,"
            " price bigint, total bigint, PRIMARY KEY (order_id, line_id));"
            "CREATE TABLE IF NOT EXISTS checkpoint (position bigint);"
            "TRUNCATE checkpoint; INSERT INTO checkpoint VALUES (0)");
    prepare(to, "row",
            "INSERT INTO lines VALUES ($1, $2::bigint, $3, $4::bigint, $5::bigint, $6::bigint)");
    prepare(to, "checkpoint", "UPDATE checkpoint SET position = $1::bigint");
    run(from, "BEGIN; DECLARE c NO SCROLL CURSOR FOR SELECT position, data FROM events"
              " ORDER BY position");
    if (PQenterPipelineMode(to) != 1) peer_die("postgres: no pipeline mode");
    uint64_t begun = bench_now(), count = 0;
    for (;;) {
        PGresult *page = PQexec(from, "FETCH 1000 FROM c");
        result_check(from, page, "FETCH");
        int rows = PQntuples(page);
        if (rows == 0) break;
        /* Up to the sync it is one transaction. */
        for (int i = 0; i < rows; i++)
            row_send(to, &arena, PQgetvalue(page, i, 1), (size_t)PQgetlength(page, i, 1));
        const char *position = PQgetvalue(page, rows - 1, 0);
        if (PQsendQueryPrepared(to, "checkpoint", 1, &position, NULL, NULL, 1) != 1)
            peer_die("postgres: %s", PQerrorMessage(to));
        pipeline_end(to);
        PQclear(page);
        count += (uint64_t)rows;
    }
    arena_done(&arena);
    peer_report_all(&peer, count, bench_now() - begun);
}

static bool notified(PGconn *c)
{
    bool any = false;
    for (PGnotify *notify; (notify = PQnotifies(c)) != NULL; any = true)
        PQfreemem(notify);
    return any;
}

static void live(void)
{
    struct client writer = {.pg = connection_open()};
    PGconn *listener = connection_open();
    prepare(writer.pg, "it", append_notify);
    run(listener, "LISTEN events");
    appended = (const char *)peer.data.ptr;
    peer_begin(&peer);
    for (uint64_t now = peer.begun_ns; now < peer.end_ns; now = bench_now()) {
        bool answered = false, delivered = false, again = false;
        uint64_t started = now;
        loop_send(&writer, append_send);
        while (!answered || !delivered) {
            struct pollfd wait[2] = {{.fd = PQsocket(listener), .events = POLLIN},
                                     {.fd = PQsocket(writer.pg), .events = POLLIN}};
            if (poll(wait, 2, 10000) == 0) peer_die("postgres: no notification within 10 s");
            if (wait[0].revents != 0 && PQconsumeInput(listener) == 0)
                peer_die("postgres: %s", PQerrorMessage(listener));
            if (!delivered && notified(listener)) {
                delivered = true;
                peer_answered(&peer, started, bench_now());
            }
            if (wait[1].revents != 0 && !answered) answered = loop_receive(&writer, 1, &again);
        }
        writer.made++;
    }
    peer.clients = 1;
    peer_report(&peer, 1);
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*run)(void);
    } modes[] = {{"append", append},   {"fill", fill},           {"read", read_streams},
                 {"replay", replay},   {"project", project},     {"live", live},
                 {"plain", condition}, {"condition", condition}, {NULL, NULL}};
    peer_options(argc, argv, &peer);
    PGconn *c = connection_open();
    run(c, schema);
    PQfinish(c);
    for (size_t i = 0; modes[i].name != NULL; i++) {
        if (strcmp(modes[i].name, peer.mode) != 0) continue;
        modes[i].run();
        return 0;
    }
    peer_die("postgres: no mode \"%s\"", peer.mode);
}
