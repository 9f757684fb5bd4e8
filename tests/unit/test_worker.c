/* Domains in a worker process: what a bad one costs, and whom. This program is its own worker. */
#include "test.h"

#include "domain/executor.h"
#include "domain/frames.h"
#include "domain/host.h"
#include "domain/worker.h"
#include "os/process.h"

#include <dirent.h>
#include <limits.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

static char wild[PATH_MAX];
static struct domain_host *host;
static struct deed_error err;
static struct arena arena;

static void start_with(const struct host_worker_options *options)
{
    arena_init(&arena, (size_t)1 << 30);
    expect_ok(host_worker(wild, options, &host, &err));
}

static void start(void)
{
    /* ThreadSanitizer sleeps a second in every exit. */
    start_with(&(struct host_worker_options){.deadline_ms = 3000, .memory_size_max = 64 << 20});
}

static void stop(void)
{
    host_close(host);
    arena_done(&arena);
}

static struct host_request request_do(const char *stream, const char *data)
{
    return (struct host_request){.work = HOST_DECIDE,
                                 .slot = deed_str_of(stream),
                                 .stream = deed_str_of(stream),
                                 .base_revision = DEED_NONE,
                                 .command = DEED_STR("Do"),
                                 .data = deed_bytes_of(deed_str_of(data)),
                                 .now_ns = 1};
}

static struct host_answer ask(const char *what)
{
    char data[128];
    snprintf(data, sizeof data, "{\"id\":\"1\",\"what\":\"%s\"}", what);
    struct host_request request = request_do("wild-1", data);
    struct host_answer answer;
    host_run(host, &request, 1, &answer, &arena);
    return answer;
}

static void expect_failed(struct host_answer answer, deed_status status, const char *message)
{
    assert_int_equal(answer.outcome, HOST_FAILED);
    assert_int_equal(answer.error.status, status);
    expect_message(answer.error, message);
}

static void expect_works(void)
{
    struct host_answer answer = ask("fine");
    if (answer.outcome != HOST_DONE) fail_msg("%s", answer.error.message);
    assert_int_equal(answer.event_count, 1);
    expect_str(answer.events[0].type, "WildHappened");
    deed_bytes data = answer.events[0].data;
    expect_str(((deed_str){(const char *)data.ptr, data.len}), "{\"id\":\"1\",\"what\":\"fine\"}");
}

static uint64_t restarts(void)
{
    struct host_metrics metrics;
    host_get_metrics(host, &metrics);
    return metrics.restarts;
}

TEST(worker, answers_and_rejects)
{
    start();
    expect_works();
    struct host_answer answer = ask("reject");
    expect_failed(answer, DEED_REJECTED, "not 1 deeds");
    assert_string_equal(answer.error.code, "no_way");
    assert_int_equal(ask("nothing").event_count, 0);
    assert_int_equal(restarts(), 0);
    stop();
}

TEST(worker, a_crash_costs_its_own_command)
{
    start();
    expect_failed(ask("crash"), DEED_DOMAIN, "signal 6");
    expect_works();
    expect_failed(ask("null"), DEED_DOMAIN, "the domain's code failed: it ended with");
    expect_failed(ask("exit"), DEED_DOMAIN, "exit status 7");
    expect_works();
    assert_int_equal(restarts(), 3);
    stop();
}

TEST(worker, an_endless_loop_costs_its_own_command)
{
    start();
    expect_failed(ask("loop"), DEED_DOMAIN, "it did not answer within 3000 ms");
    expect_works();
    struct host_metrics metrics;
    host_get_metrics(host, &metrics);
    assert_int_equal(metrics.timeouts, 1);
    stop();
}

TEST(worker, eating_memory_costs_its_own_command)
{
    start_with(&(struct host_worker_options){.deadline_ms = 20000, .memory_size_max = 64 << 20});
    expect_failed(ask("eat"), DEED_DOMAIN, "it ");
    expect_works();
    assert_int_equal(restarts(), 1);
    /* What comes from the runtime has a limit of its own; under a sanitizer, whose shadows count as
     * memory, the process may get to the other one first. */
    expect_failed(ask("alloc"), DEED_DOMAIN, "it used more than");
    expect_failed(ask("emit for ever"), DEED_DOMAIN, "it ");
    expect_works();
    stop();
}

/* Any child of a process, from the process table; 0: none. */
static long child_of(pid_t parent)
{
    DIR *table = opendir("/proc");
    long found = 0;
    struct dirent *entry;
    while (table != NULL && found == 0 && (entry = readdir(table)) != NULL) {
        char path[300];
        long pid = strtol(entry->d_name, NULL, 10), of = 0;
        snprintf(path, sizeof path, "/proc/%s/stat", entry->d_name);
        FILE *file = pid > 0 ? fopen(path, "r") : NULL;
        if (file == NULL) continue;
        if (fscanf(file, "%*d (%*[^)]) %*c %ld", &of) == 1 && of == (long)parent) found = pid;
        fclose(file);
    }
    if (table != NULL) closedir(table);
    return found;
}

TEST(worker, a_death_while_idle_costs_nothing)
{
    start();
    expect_works();
    assert_int_equal(kill((pid_t)child_of(getpid()), SIGKILL), 0);
    usleep(100000);
    expect_works();
    assert_int_equal(restarts(), 1);
    stop();
}

TEST(worker, nonsense_on_the_wire_is_a_death)
{
    start();
    expect_failed(ask("scribble"), DEED_DOMAIN, "the domain's code failed");
    expect_works();
    stop();
}

TEST(worker, in_a_batch_only_the_guilty_suffer)
{
    start();
    struct host_request requests[40];
    struct host_answer answers[40];
    char streams[40][16], data[40][64];
    for (int i = 0; i < 40; i++) {
        const char *what = i == 7 ? "crash" : i == 21 ? "loop" : i == 39 ? "exit" : "fine";
        snprintf(streams[i], sizeof streams[i], "wild-%d", i);
        snprintf(data[i], sizeof data[i], "{\"id\":\"%d\",\"what\":\"%s\"}", i, what);
        requests[i] = request_do(streams[i], data[i]);
    }
    host_run(host, requests, 40, answers, &arena);
    for (int i = 0; i < 40; i++) {
        bool guilty = i == 7 || i == 21 || i == 39;
        assert_int_equal(answers[i].outcome, guilty ? HOST_FAILED : HOST_DONE);
        if (guilty) assert_int_equal(answers[i].error.status, DEED_DOMAIN);
    }
    stop();
}

TEST(worker, states_are_kept_and_asked_for_again_after_a_crash)
{
    start();
    struct host_event events[3];
    for (uint64_t i = 0; i < 3; i++) {
        events[i] = (struct host_event){.revision = i,
                                        .type = DEED_STR("WildHappened"),
                                        .data = deed_bytes_of(DEED_STR("{\"what\":\"x\"}"))};
    }
    struct host_request request = {.work = HOST_STATE,
                                   .slot = DEED_STR("wild-1"),
                                   .stream = DEED_STR("wild-1"),
                                   .base_revision = DEED_NONE,
                                   .events = events,
                                   .event_count = 2};
    struct host_answer answer;
    host_run(host, &request, 1, &answer, &arena);
    assert_int_equal(answer.outcome, HOST_DONE);
    assert_int_equal(host_slot_revision(host, DEED_STR("wild-1")), 1);

    request.base_revision = 1;
    request.events = &events[2];
    request.event_count = 1;
    host_run(host, &request, 1, &answer, &arena);
    assert_int_equal(answer.outcome, HOST_DONE);
    deed_str state_text = {(const char *)answer.state.ptr, answer.state.len};
    expect_str(state_text,
               "{\"deeds\":3,\"last\":\"x\",\"items\":{\"x\":{\"name\":null,\"count\":3}},"
               "\"log\":[\"x\",\"x\",\"x\"]}");
    assert_int_equal(host_slot_revision(host, DEED_STR("wild-1")), 2);

    request.event_count = 0;
    request.base_revision = 1; /* not where it is */
    host_run(host, &request, 1, &answer, &arena);
    assert_int_equal(answer.outcome, HOST_NEED_EVENTS);

    expect_failed(ask("crash"), DEED_DOMAIN, "signal 6");
    assert_int_equal(host_slot_revision(host, DEED_STR("wild-1")), DEED_NONE);
    request.base_revision = 2;
    host_run(host, &request, 1, &answer, &arena);
    assert_int_equal(answer.outcome, HOST_NEED_EVENTS);
    stop();
}

TEST(worker, what_cannot_be_loaded_is_said_at_once)
{
    arena_init(&arena, 1 << 20);
    expect_status(DEED_INVALID, host_worker("/nowhere.so", NULL, &host, &err));
    expect_message(err, "/nowhere.so");
    struct host_worker_options options = {.program = "/bin/true"};
    expect_status(DEED_DOMAIN, host_worker(wild, &options, &host, &err));
    expect_message(err, "it ended at once: exit status 0");
    options.program = "/nowhere/program";
    expect_status(DEED_NOT_FOUND, host_worker(wild, &options, &host, &err));

    const char *path = NULL;
    expect_status(DEED_NOT_FOUND, host_find_domain("/nowhere", &arena, &path, &err));
    expect_status(DEED_NOT_FOUND, host_find_domain("tests/unit", &arena, &path, &err));
    expect_message(err, "no domain");
    expect_ok(host_find_domain(wild, &arena, &path, &err));
    assert_string_equal(path, wild);
    arena_done(&arena);
}

/* ---- with a store --------------------------------------------------------------------------- */

static deed_status run(struct executor *executor, const char *id, const char *what,
                       struct deed_decided *decided)
{
    char data[128];
    snprintf(data, sizeof data, "{\"id\":\"%s\",\"what\":\"%s\"}", id, what);
    struct deed_command command = {.name = DEED_STR("Do"),
                                   .data = deed_bytes_of(deed_str_of(data))};
    return executor_decide(executor, &command, decided, NULL, NULL, &err);
}

TEST(worker, the_store_never_notices)
{
    char directory[] = "/tmp/deedbook-worker-XXXXXX";
    assert_non_null(mkdtemp(directory));
    struct store_options store_options = {.unsafe_no_sync = true};
    struct store *store = NULL;
    struct executor *executor = NULL;
    struct deed_decided decided;
    start();
    expect_ok(store_open(os_real(), directory, &store_options, &store, &err));
    expect_ok(executor_open(store, host, NULL, &executor, &err));
    for (int i = 0; i < 5; i++) {
        expect_ok(run(executor, "1", "fine", &decided));
        assert_int_equal(decided.revision, i);
        expect_status(DEED_DOMAIN, run(executor, "1", "crash", &decided));
        expect_message(err, "the domain's code failed: it ended with signal 6");
    }
    expect_status(DEED_DOMAIN, run(executor, "1", "loop", &decided));
    assert_int_equal(store_position(store), 6);
    struct buf out;
    buf_init(&out, 1 << 20);
    expect_ok(executor_state(executor, DEED_STR("wild-1"), DEED_NONE, &out, NULL, NULL, &err));
    assert_non_null(memmem(out.ptr, out.len, "\"deeds\":5,", 10));
    struct executor_metrics metrics;
    executor_get_metrics(executor, &metrics);
    assert_int_equal(metrics.worker_restarts, 6);
    assert_int_equal(metrics.worker_timeouts, 1);
    assert_int_equal(metrics.failed, 6);
    buf_done(&out);
    executor_close(executor);
    store_close(store);
    arena_done(&arena);
    char command[64];
    snprintf(command, sizeof command, "rm -rf %s", directory);
    assert_int_equal(system(command), 0);
}

/* ---- the process itself --------------------------------------------------------------------- */

TEST(worker, a_worker_ends_when_its_server_is_killed)
{
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    pid_t server = fork();
    assert_true(server >= 0);
    if (server == 0) {
        struct domain_host *child = NULL;
        if (host_worker(wild, NULL, &child, NULL) != DEED_OK) _exit(1);
        long pid = child_of(getpid());
        if (pid == 0) _exit(2);
        if (write(ends[1], &pid, sizeof pid) != (ssize_t)sizeof pid) _exit(3);
        struct host_request request = request_do("wild-1", "{\"id\":\"1\",\"what\":\"loop\"}");
        struct host_answer answer;
        struct arena mine;
        arena_init(&mine, 1 << 20);
        host_run(child, &request, 1, &answer, &mine);
        _exit(4);
    }
    assert_int_equal(close(ends[1]), 0); /* so that a server that fails ends the wait */
    long worker = 0;
    assert_int_equal(read(ends[0], &worker, sizeof worker), sizeof worker);
    usleep(200000); /* it loops by now */
    kill(server, SIGKILL);
    int end = 0;
    waitpid(server, &end, 0);
    assert_true(WIFSIGNALED(end));
    for (int i = 0; i < 100 && kill((pid_t)worker, 0) == 0; i++) {
        /* Whoever adopted it may be slow to bury it: a zombie has ended. */
        char path[64], line[256] = "";
        snprintf(path, sizeof path, "/proc/%ld/stat", worker);
        FILE *file = fopen(path, "r");
        if (file == NULL) break;
        char *got = fgets(line, sizeof line, file);
        fclose(file);
        if (got != NULL && strstr(line, ") Z ") != NULL) return;
        usleep(50000);
        assert_true(i < 99);
    }
    close(ends[0]);
    close(ends[1]);
}

/* ---- frames --------------------------------------------------------------------------------- */

TEST(worker, a_frame_cut_or_flipped_anywhere_is_malformed_or_another_frame)
{
    arena_init(&arena, 1 << 20);
    struct host_event events[2] = {
        {.revision = 1,
         .time_ns = -5,
         .type = DEED_STR("A"),
         .data = deed_bytes_of(DEED_STR("{}"))},
        {.revision = 2, .type = DEED_STR("Bc"), .actor = DEED_STR("anna")}};
    struct host_request request = request_do("wild-1", "{\"id\":\"1\"}");
    request.events = events;
    request.event_count = 2;
    struct buf out;
    buf_init(&out, 1 << 20);
    frame_request(&out, 7, &request);

    deed_bytes payload;
    size_t size;
    uint32_t sequence;
    struct host_request got;
    expect_ok(frame_next(buf_bytes(&out), &payload, &size, &err));
    assert_int_equal(size, out.len);
    assert_true(frame_request_read(payload, &arena, &sequence, &got));
    assert_int_equal(sequence, 7);
    assert_int_equal(got.event_count, 2);
    assert_int_equal(got.events[0].time_ns, -5);
    expect_str(got.events[1].actor, "anna");
    expect_str(got.stream, "wild-1");
    for (size_t len = 0; len < out.len; len++) {
        expect_status(DEED_END, frame_next((deed_bytes){out.ptr, len}, &payload, &size, &err));
    }
    for (size_t len = 1; len < out.len - 4; len++) {
        /* At the end of its own memory, so that reading past it is seen. */
        uint8_t *copy = malloc(len);
        memcpy(copy, out.ptr + 4, len);
        assert_false(frame_request_read((deed_bytes){copy, len}, &arena, &sequence, &got));
        struct host_answer answer;
        (void)frame_answer_read((deed_bytes){copy, len}, &arena, &sequence, &answer);
        free(copy);
    }
    for (size_t i = 4; i < out.len; i++) {
        out.ptr[i] ^= 0x81;
        struct host_answer answer;
        deed_bytes flipped = {out.ptr + 4, out.len - 4};
        (void)frame_request_read(flipped, &arena, &sequence, &got);
        (void)frame_answer_read(flipped, &arena, &sequence, &answer);
        out.ptr[i] ^= 0x81;
    }
    memset(out.ptr, 0xff, 4);
    expect_status(DEED_CORRUPT, frame_next(buf_bytes(&out), &payload, &size, &err));
    memset(out.ptr, 0, 4);
    expect_status(DEED_CORRUPT, frame_next(buf_bytes(&out), &payload, &size, &err));
    buf_done(&out);
    arena_done(&arena);
}

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "worker") == 0) return worker_main(argc, argv);
    char self[PATH_MAX];
    ssize_t len = readlink("/proc/self/exe", self, sizeof self - 1);
    if (len < 0) return 1;
    self[len] = '\0';
    *strrchr(self, '/') = '\0';
    snprintf(wild, sizeof wild, "%.3900s/../domains/wild.so", self);
    if (argc > 1) cmocka_set_test_filter(argv[1]);
    return _cmocka_run_group_tests("worker", test_list, test_count, NULL, NULL) != 0;
}
