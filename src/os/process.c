/* process.c - a child process to work with over a socketpair, and the child's own side.
 *
 * (1) Our end is close-on-exec and never blocks; the child's end blocks.
 * (2) A child never outlives its parent by more than the moment its watching thread needs: kill -9
 *     of the parent closes the socket, which is all that the thread waits for. PR_SET_PDEATHSIG
 *     would not do: it fires when the *thread* that started the child ends. */
#include "os/process.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define UNDER_SANITIZER true
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define UNDER_SANITIZER true
#endif
#endif
#ifndef UNDER_SANITIZER
#define UNDER_SANITIZER false
#endif

/* One read or write; a socketpair's buffer is about this. */
#define TRANSFER_SIZE ((size_t)256 << 10)
/* dlopen of a domain with a few libraries. */
#define CHILD_FILE_COUNT_MAX 64

struct os_process {
    pid_t pid;
    int fd;
};

/* ---- starting ------------------------------------------------------------------------------- */

extern char **environ;

static bool env_needed(const char *entry)
{
    static const char *const names[] = {
        "LD_LIBRARY_PATH=", "PATH=",         "LANG=",         "LC_",           "TZ=",
        "ASAN_OPTIONS=",    "LSAN_OPTIONS=", "TSAN_OPTIONS=", "UBSAN_OPTIONS="};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (strncmp(entry, names[i], strlen(names[i])) == 0) return true;
    }
    return false;
}

static char **env_make(void)
{
    size_t count = 0;
    while (environ[count] != NULL)
        count++;
    char **env = calloc(count + 1, sizeof *env);
    if (env == NULL) return NULL;
    size_t kept = 0;
    for (size_t i = 0; i < count; i++) {
        if (env_needed(environ[i])) env[kept++] = environ[i];
    }
    return env;
}

static int actions_make(posix_spawn_file_actions_t *actions, int child_fd)
{
    int error = posix_spawn_file_actions_init(actions);
    if (error != 0) return error;
    error = posix_spawn_file_actions_adddup2(actions, child_fd, OS_CHILD_FD);
    if (error == 0) error = posix_spawn_file_actions_addopen(actions, 0, "/dev/null", O_RDONLY, 0);
    if (error == 0) error = posix_spawn_file_actions_adddup2(actions, 2, 1);
    if (error != 0) posix_spawn_file_actions_destroy(actions);
    return error;
}

static int attributes_make(posix_spawnattr_t *attributes)
{
    int error = posix_spawnattr_init(attributes);
    if (error != 0) return error;
    sigset_t none, all;
    sigemptyset(&none);
    sigfillset(&all);
    error = posix_spawnattr_setsigmask(attributes, &none);
    if (error == 0) error = posix_spawnattr_setsigdefault(attributes, &all);
    if (error == 0) error = posix_spawnattr_setpgroup(attributes, 0);
    if (error == 0) {
        error = posix_spawnattr_setflags(
            attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETPGROUP);
    }
    if (error != 0) posix_spawnattr_destroy(attributes);
    return error;
}

static int spawn(const char *program, const char *const *arguments, int child_fd, pid_t *out_pid)
{
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    char **env = env_make();
    if (env == NULL) return ENOMEM;
    int error = actions_make(&actions, child_fd);
    if (error != 0) goto done_env;
    error = attributes_make(&attributes);
    if (error != 0) goto done_actions;

    /* posix_spawn does not change the arguments; its type is older than const. */
    error = posix_spawn(out_pid, program, &actions, &attributes, (char *const *)arguments, env);

    posix_spawnattr_destroy(&attributes);
done_actions:
    posix_spawn_file_actions_destroy(&actions);
done_env:
    free(env);
    return error;
}

deed_status os_process_start(const char *program, const char *const *arguments,
                             struct os_process **out_process, struct deed_error *err)
{
    *out_process = NULL;
    if (program == NULL) program = "/proc/self/exe";
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) {
        return deed_fail_errno(err, errno, "process %s: socketpair", program);
    }
    struct os_process *process = calloc(1, sizeof *process);
    int error = process == NULL ? ENOMEM : 0;
    if (error == 0 && fcntl(ends[0], F_SETFL, O_NONBLOCK) != 0) error = errno;
    if (error == 0) error = spawn(program, arguments, ends[1], &process->pid);
    close(ends[1]);
    if (error != 0) {
        close(ends[0]);
        free(process);
        return deed_fail_errno(err, error, "process %s", program);
    }
    process->fd = ends[0];
    *out_process = process;
    return DEED_OK;
}

/* ---- transferring --------------------------------------------------------------------------- */

static bool is_gone(int error)
{
    return error == EPIPE || error == ECONNRESET || error == ENOTCONN;
}

static bool is_later(int error)
{
    return error == EAGAIN || error == EWOULDBLOCK || error == EINTR;
}

static deed_status receive(int fd, struct buf *in, struct deed_error *err)
{
    uint8_t *at = buf_reserve(in, TRANSFER_SIZE);
    if (at == NULL) {
        return deed_fail(err, DEED_TOO_LARGE, "process: over %zu bytes have come", in->size_max);
    }
    ssize_t got = recv(fd, at, TRANSFER_SIZE, 0);
    if (got > 0) in->len += (size_t)got;
    if (got > 0) return DEED_OK;
    if (got == 0 || is_gone(errno)) return deed_fail(err, DEED_END, "the process is gone");
    if (is_later(errno)) return DEED_TIMEOUT;
    return deed_fail_errno(err, errno, "process: receiving");
}

static deed_status transmit(int fd, struct buf *out, struct deed_error *err)
{
    ssize_t sent = send(fd, out->ptr, out->len, MSG_NOSIGNAL);
    if (sent > 0) buf_consume(out, (size_t)sent);
    if (sent >= 0) return DEED_OK;
    /* It may have answered before it went: what it sent is read first. */
    if (is_later(errno) || is_gone(errno)) return DEED_TIMEOUT;
    return deed_fail_errno(err, errno, "process: sending");
}

deed_status os_process_transfer(struct os_process *process, struct buf *out, struct buf *in,
                                uint32_t wait_ms, struct deed_error *err)
{
    struct pollfd wait = {.fd = process->fd, .events = POLLIN};
    if (out->len > 0) wait.events |= POLLOUT;
    int ready = poll(&wait, 1, wait_ms > INT32_MAX ? -1 : (int)wait_ms);
    if (ready == 0 || (ready < 0 && errno == EINTR)) return DEED_TIMEOUT;
    if (ready < 0) return deed_fail_errno(err, errno, "process: waiting");

    deed_status sent = DEED_TIMEOUT;
    if ((wait.revents & POLLOUT) != 0) sent = transmit(process->fd, out, err);
    if ((wait.revents & (POLLIN | POLLHUP | POLLERR)) != 0) {
        return receive(process->fd, in, err);
    }
    return sent;
}

uint64_t os_process_memory(const struct os_process *process)
{
    char path[40];
    snprintf(path, sizeof path, "/proc/%ld/statm", (long)process->pid);
    FILE *file = fopen(path, "re");
    if (file == NULL) return 0;
    unsigned long long size = 0, resident = 0;
    int read = fscanf(file, "%llu %llu", &size, &resident);
    fclose(file);
    return read == 2 ? resident * (uint64_t)sysconf(_SC_PAGESIZE) : 0;
}

static void how_write(int state, char out[OS_PROCESS_HOW_SIZE])
{
    if (WIFSIGNALED(state)) {
        int number = WTERMSIG(state);
        snprintf(out, OS_PROCESS_HOW_SIZE, "signal %d (%s)", number, strsignal(number));
    } else {
        snprintf(out, OS_PROCESS_HOW_SIZE, "exit status %d", WEXITSTATUS(state));
    }
}

void os_process_stop(struct os_process *process, char out_how[OS_PROCESS_HOW_SIZE])
{
    if (process == NULL) return;
    close(process->fd);
    /* One that is dying already keeps its own reason: a signal to a zombie changes nothing. */
    kill(process->pid, SIGKILL);
    int state = 0;
    pid_t waited;
    do {
        waited = waitpid(process->pid, &state, 0);
    } while (waited < 0 && errno == EINTR);
    if (out_how != NULL) {
        if (waited == process->pid) {
            how_write(state, out_how);
        } else {
            snprintf(out_how, OS_PROCESS_HOW_SIZE, "an unknown end");
        }
    }
    free(process);
}

/* ---- in the child --------------------------------------------------------------------------- */

/* (2) */
static void *watch(void *unused)
{
    (void)unused;
    struct pollfd wait = {.fd = OS_CHILD_FD, .events = POLLRDHUP};
    for (;;) {
        int ready = poll(&wait, 1, -1);
        if (ready > 0) _exit(0);
        if (ready < 0 && errno != EINTR) _exit(1);
    }
}

static uint64_t address_space(void)
{
    FILE *file = fopen("/proc/self/statm", "re");
    if (file == NULL) return 0;
    unsigned long long pages = 0;
    int read = fscanf(file, "%llu", &pages);
    fclose(file);
    return read == 1 ? pages * (uint64_t)sysconf(_SC_PAGESIZE) : 0;
}

static int limit_set(__rlimit_resource_t resource, uint64_t most)
{
    struct rlimit limit;
    if (getrlimit(resource, &limit) != 0) return errno;
    if (limit.rlim_max != RLIM_INFINITY && most > limit.rlim_max) most = limit.rlim_max;
    limit.rlim_cur = limit.rlim_max = most;
    return setrlimit(resource, &limit) == 0 ? 0 : errno;
}

uint64_t os_open_files_max(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return 0;
    rlim_t before = limit.rlim_cur;
    limit.rlim_cur = limit.rlim_max;
    return setrlimit(RLIMIT_NOFILE, &limit) == 0 ? limit.rlim_max : before;
}

static int watch_start(void)
{
    pthread_attr_t attributes;
    pthread_t thread;
    int error = pthread_attr_init(&attributes);
    if (error != 0) return error;
    error = pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    if (error == 0) error = pthread_create(&thread, &attributes, watch, NULL);
    pthread_attr_destroy(&attributes);
    return error;
}

deed_status os_child_confine(uint64_t memory_size_max, struct deed_error *err)
{
    if (close_range(OS_CHILD_FD + 1, ~0U, 0) != 0 && errno != ENOSYS) {
        return deed_fail_errno(err, errno, "worker: closing files");
    }
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) {
        return deed_fail_errno(err, errno, "worker: giving up privileges");
    }
    int error = watch_start();
    if (error == 0) error = limit_set(RLIMIT_CORE, 0);
    if (error == 0) error = limit_set(RLIMIT_NOFILE, CHILD_FILE_COUNT_MAX);
    uint64_t base = address_space();
    if (error == 0 && !UNDER_SANITIZER && memory_size_max > 0 && base > 0) {
        error = limit_set(RLIMIT_AS, base + memory_size_max);
    }
    return error == 0 ? DEED_OK : deed_fail_errno(err, error, "worker: limits");
}

deed_status os_child_receive(struct buf *in, struct deed_error *err)
{
    deed_status status;
    do {
        status = receive(OS_CHILD_FD, in, err);
    } while (status == DEED_TIMEOUT);
    return status;
}

deed_status os_child_send(deed_bytes bytes, struct deed_error *err)
{
    while (bytes.len > 0) {
        ssize_t sent = send(OS_CHILD_FD, bytes.ptr, bytes.len, MSG_NOSIGNAL);
        if (sent > 0) {
            bytes.ptr += sent;
            bytes.len -= (size_t)sent;
        } else if (sent < 0 && is_gone(errno)) {
            return deed_fail(err, DEED_END, "the server is gone");
        } else if (sent < 0 && !is_later(errno)) {
            return deed_fail_errno(err, errno, "worker: sending");
        }
    }
    return DEED_OK;
}
