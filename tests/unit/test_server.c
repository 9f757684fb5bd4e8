/* test_server.c - what stands beside the loop: pool, traffic, watcher. tests/integration/
 * server_wire.py has the rest. */
#include "test.h"

#include "server/pool.h"
#include "server/server.h"
#include "server/traffic.h"
#include "server/watcher.h"

#include "os/thread.h"

#include <netinet/in.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <unistd.h>

static struct deed_error error;

/* ---- pool ----------------------------------------------------------------------------------- */

struct job {
    struct pool_task task;
    struct pool *pool;
    unsigned times;
    useconds_t pause;
    bool waits; /* until jobs_go */
};
static _Atomic bool jobs_go;
static _Atomic unsigned jobs_done, jobs_inside, jobs_inside_max;

static void job_run(struct pool_task *task)
{
    struct job *job = (struct job *)(void *)task;
    unsigned inside = atomic_fetch_add(&jobs_inside, 1) + 1;
    unsigned most = atomic_load(&jobs_inside_max);
    while (inside > most && !atomic_compare_exchange_weak(&jobs_inside_max, &most, inside)) {}
    if (job->pause > 0) usleep(job->pause);
    while (job->waits && !atomic_load(&jobs_go)) usleep(1000);
    atomic_fetch_sub(&jobs_inside, 1);
    if (--job->times > 0) {
        pool_submit(job->pool, task); /* the task is the thread's own no more */
    } else {
        atomic_fetch_add(&jobs_done, 1);
    }
}

static void jobs_reset(void)
{
    atomic_store(&jobs_done, 0);
    atomic_store(&jobs_inside_max, 0);
}

TEST(server, the_pool_runs_every_task_on_at_most_so_many_threads)
{
    struct pool *pool;
    static struct job jobs[200];
    jobs_reset();
    expect_ok(pool_create(4, &pool, &error));
    for (size_t i = 0; i < 200; i++) {
        jobs[i] = (struct job){{.run = job_run}, pool, 3, 200, false};
        pool_submit(pool, &jobs[i].task);
    }
    while (atomic_load(&jobs_done) < 200) usleep(1000);
    pool_destroy(pool);
    assert_int_equal(atomic_load(&jobs_done), 200);
    assert_in_range(atomic_load(&jobs_inside_max), 2, 4);
}

TEST(server, destroying_the_pool_runs_what_was_submitted)
{
    struct pool *pool;
    static struct job jobs[50];
    jobs_reset();
    expect_ok(pool_create(2, &pool, &error));
    for (size_t i = 0; i < 50; i++) {
        jobs[i] = (struct job){{.run = job_run}, pool, 1, 100, false};
        pool_submit(pool, &jobs[i].task);
    }
    pool_destroy(pool);
    assert_int_equal(atomic_load(&jobs_done), 50);
    pool_destroy(NULL);
}

TEST(server, waiting_tasks_do_not_keep_others_from_a_thread)
{
    struct pool *pool;
    static struct job slow[3], fast;
    jobs_reset();
    expect_ok(pool_create(4, &pool, &error));
    for (size_t i = 0; i < 3; i++) {
        slow[i] = (struct job){{.run = job_run}, pool, 1, 0, true};
        pool_submit(pool, &slow[i].task);
    }
    fast = (struct job){{.run = job_run}, pool, 1, 0, false};
    pool_submit(pool, &fast.task);
    for (int i = 0; i < 10000 && atomic_load(&jobs_done) == 0; i++) usleep(1000);
    assert_int_equal(atomic_load(&jobs_done), 1);
    atomic_store(&jobs_go, true);
    pool_destroy(pool);
}

/* ---- traffic -------------------------------------------------------------------------------- */

static const char *rendered(struct traffic *traffic)
{
    static struct buf out;
    buf_done(&out);
    buf_init(&out, 4 << 20);
    traffic_render(traffic, &out);
    buf_add_byte(&out, '\0');
    assert_true(buf_ok(&out));
    return (const char *)out.ptr;
}

#define expect_line(text, line)                                                            \
    do {                                                                                   \
        if (strstr((text), (line)) == NULL) fail_msg("lacks \"%s\"", (line));              \
    } while (0)

TEST(server, traffic_counts_by_route_method_and_status)
{
    static const char stream[] = "/streams/{stream}", query[] = "/queries/{name}";
    struct traffic *traffic;
    expect_ok(traffic_create(&traffic, &error));
    for (int i = 0; i < 3; i++) traffic_request(traffic, stream, DEED_STR("POST"), 200, 50000);
    traffic_request(traffic, stream, DEED_STR("POST"), 409, 2000000);
    traffic_request(traffic, query, DEED_STR("BREW"), 405, UINT64_C(20000000000));
    traffic_set(traffic, TRAFFIC_CONNECTIONS, 7);
    traffic_add(traffic, TRAFFIC_TIMEOUTS, 2);
    const char *text = rendered(traffic);
    expect_line(text, "deedbook_http_requests_total{route=\"/streams/{stream}\",method=\"POST\","
                      "status=\"200\"} 3\n");
    expect_line(text, "method=\"POST\",status=\"409\"} 1\n");
    expect_line(text, "{route=\"/queries/{name}\",method=\"other\",status=\"405\"} 1\n");
    expect_line(text, "_bucket{route=\"/streams/{stream}\",le=\"0.0001\"} 3\n");
    expect_line(text, "_bucket{route=\"/streams/{stream}\",le=\"0.001\"} 3\n");
    expect_line(text, "_bucket{route=\"/streams/{stream}\",le=\"0.0025\"} 4\n");
    expect_line(text, "_bucket{route=\"/queries/{name}\",le=\"10\"} 0\n");
    expect_line(text, "_bucket{route=\"/queries/{name}\",le=\"+Inf\"} 1\n");
    expect_line(text, "_sum{route=\"/streams/{stream}\"} 0.002150000\n");
    expect_line(text, "deedbook_http_connections 7\n");
    expect_line(text, "deedbook_http_timeouts_total 2\n");
    assert_int_equal(traffic_get(traffic, TRAFFIC_REQUESTS), 5);
    traffic_destroy(traffic);
    traffic_destroy(NULL);
}

TEST(server, traffic_does_not_grow_without_end)
{
    static char routes[1500][16];
    struct traffic *traffic;
    expect_ok(traffic_create(&traffic, &error));
    for (int i = 0; i < 1500; i++) {
        snprintf(routes[i], sizeof routes[i], "/%d", i);
        traffic_request(traffic, routes[i], DEED_STR("GET"), 200, 1000);
    }
    const char *text = rendered(traffic);
    expect_line(text, "{route=\"other\",method=\"GET\",status=\"200\"} 476\n");
    traffic_destroy(traffic);
}

/* ---- watcher -------------------------------------------------------------------------------- */

static char folder[] = "/tmp/deedbook-watch-XXXXXX";
static _Atomic unsigned changes;

static void on_change(void *context)
{
    (void)context;
    atomic_fetch_add(&changes, 1);
}

static void file_write(const char *name, const char *text)
{
    char path[200], whole[200];
    snprintf(path, sizeof path, "%s/%s.new", folder, name);
    snprintf(whole, sizeof whole, "%s/%s", folder, name);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
    assert_int_equal(rename(path, whole), 0); /* or it might be seen twice: empty, then written */
}

static bool changes_reach(unsigned wanted)
{
    for (int i = 0; i < 300 && atomic_load(&changes) < wanted; i++) usleep(10000);
    return atomic_load(&changes) == wanted;
}

TEST(server, the_watcher_sees_files_come_change_and_go)
{
    struct watcher *watcher;
    assert_non_null(mkdtemp(folder));
    assert_int_equal(watcher_fingerprint("/no/such/folder"), 0);
    uint64_t before = watcher_fingerprint(folder);
    file_write("early.sql", "between the print and the start");
    expect_ok(watcher_start(folder, before, 20, on_change, NULL, &watcher, &error));
    assert_true(changes_reach(1));
    file_write("early.sql", "longer than it was between the print and the start");
    assert_true(changes_reach(2));
    file_write("notes.txt", "not SQL");
    usleep(100000);
    assert_int_equal(atomic_load(&changes), 2);
    char path[200];
    snprintf(path, sizeof path, "%s/early.sql", folder);
    unlink(path);
    assert_true(changes_reach(3));
    watcher_stop(watcher);
    watcher_stop(NULL);
    snprintf(path, sizeof path, "%s/notes.txt", folder);
    unlink(path);
    rmdir(folder);
}

/* ---- server ---------------------------------------------------------------------------------- */

TEST(server, an_address_in_use_is_told)
{
    struct server *first, *second;
    struct server_address address = {"127.0.0.1", 0};
    struct server_options options = {.addresses = &address, .address_count = 1};
    expect_ok(server_create(&options, &first, &error));
    unsigned port = 0;
    assert_int_equal(sscanf(server_url(first, 0), "http://127.0.0.1:%u", &port), 1);
    assert_null(server_url(first, 1));
    address.port = (uint16_t)port;
    expect_status(DEED_LOCKED, server_create(&options, &second, &error));
    expect_message(error, "listen on 127.0.0.1:");
    expect_message(error, "address already in use");
    server_destroy(first);
    server_destroy(NULL);
}

TEST(server, an_address_that_is_not_here_is_told)
{
    struct server *server;
    struct server_address address = {"203.0.113.7", 0};
    struct server_options options = {.addresses = &address, .address_count = 1};
    expect_status(DEED_INVALID, server_create(&options, &server, &error));
    expect_message(error, "listen on 203.0.113.7:0");
}

TEST(server, a_stop_before_the_run_ends_it_at_once)
{
    struct server *server;
    struct server_address addresses[] = {{"127.0.0.1", 0}, {"localhost", 0}};
    struct server_options options = {
        .addresses = addresses, .address_count = 2, .no_signals = true};
    expect_ok(server_create(&options, &server, &error));
    assert_false(server_ready(server));
    server_stop(server);
    expect_ok(server_run(server, NULL, &error));
    assert_false(server_ready(server));
    server_destroy(server);
}

/* ---- without memory ------------------------------------------------------------------------- */

/* The program is linked so that calloc comes here first. A connection is large. */
static _Atomic bool large_fail;
static _Atomic unsigned large_failed;

void *__real_calloc(size_t count, size_t size);
void *__wrap_calloc(size_t count, size_t size);

void *__wrap_calloc(size_t count, size_t size)
{
    if (!atomic_load(&large_fail) || count * size < 512) return __real_calloc(count, size);
    atomic_fetch_add(&large_failed, 1);
    return NULL;
}

static uint64_t run_server(void *context)
{
    expect_ok(server_run(context, NULL, NULL));
    return ACTOR_WAIT;
}

static int connect_to(const struct server *server)
{
    unsigned port = 0;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(sscanf(server_url(server, 0), "http://127.0.0.1:%u", &port), 1);
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof to), 0);
    return fd;
}

/* What is no HTTP is answered without an api. */
static void expect_served(int fd)
{
    char answer[13] = {0};
    assert_int_equal(send(fd, "\x01\r\n\r\n", 5, 0), 5);
    assert_int_equal(recv(fd, answer, 12, MSG_WAITALL), 12);
    assert_string_equal(answer, "HTTP/1.1 400");
    close(fd);
}

TEST(server, a_listener_goes_on_when_there_was_no_memory_for_a_connection)
{
    struct server *server;
    struct actor *runner;
    struct server_address address = {"127.0.0.1", 0};
    struct server_options options = {
        .addresses = &address, .address_count = 1, .no_signals = true};
    expect_ok(server_create(&options, &server, &error));
    expect_ok(actor_start("server", run_server, server, &runner, &error));
    while (!server_ready(server)) usleep(1000);
    expect_served(connect_to(server));

    atomic_store(&large_fail, true);
    int waiting[2] = {connect_to(server), connect_to(server)};
    while (atomic_load(&large_failed) < 3) usleep(1000); /* it is tried again and again */
    atomic_store(&large_fail, false);

    expect_served(waiting[0]);
    expect_served(waiting[1]);
    expect_served(connect_to(server));
    server_stop(server);
    actor_stop(runner);
    server_destroy(server);
}

TEST_MAIN(server)
