/* cli.h - what every subcommand shares: the table of subcommands, exit codes, trouble, options.
 *
 * A subcommand is one file, cmd_<name>.c, with one function cmd_<name>(argc, argv) that parses its
 * options with argp and returns an exit code. It talks to a target (target.h): a server, or a
 * directory that it opens itself. */
#ifndef CLI_CLI_H
#define CLI_CLI_H

#include "base/error.h"

#include <argp.h>
#include <stdio.h>

/* ---- the subcommands --------------------------------------------------------------------------
 */

/* Function, name, group, one line for the list. A group of NULL keeps it out of the list. */
#define CLI_COMMAND_MAP(X)                                                                         \
    X(serve, "serve", "Serve", "serve a data directory, and an app, over HTTP")                    \
    X(command, "command", "Write", "run a command of the app's domain")                            \
    X(append, "append", "Write", "append events to a stream")                                      \
    X(metadata, "metadata", "Write", "show or change a stream's metadata: how long it is kept")    \
    X(delete, "delete", "Write", "delete a stream softly, or close it for good")                   \
    X(read, "read", "Read", "read a stream, or the whole log, filtered")                           \
    X(follow, "follow", "Read", "print events as they happen")                                     \
    X(state, "state", "Read", "show an aggregate's state, now or then")                            \
    X(explain, "explain", "Read", "tell an aggregate's life, event by event")                      \
    X(query, "query", "Read", "answer a query of the app, now or then")                            \
    X(model, "model", "App", "show the domain model of an app")                                    \
    X(projections, "projections", "App", "list, pause and resume projections")                     \
    X(groups, "groups", "App", "list, make and change consumer groups; what they have parked")     \
    X(rebuild, "rebuild", "App", "rebuild read models from the log")                               \
    X(test, "test", "App", "run an app's given/when/then tests")                                   \
    X(import, "import", "Care", "take in events from NDJSON of CloudEvents")                       \
    X(export, "export", "Care", "write events as NDJSON of CloudEvents")                           \
    X(backup, "backup", "Care", "copy the log while it is written")                                \
    X(restore, "restore", "Care", "make a data directory from a backup")                           \
    X(compact, "compact", "Care", "remove from the log what streams hide, and compress it")        \
    X(erase, "erase", "Care", "erase a stream's content from the log, at once")                    \
    X(verify, "verify", "Care", "check every checksum and the chain")                              \
    X(repair, "repair", "Care", "let a damaged log take appends again")                            \
    X(info, "info", "Care", "show the log's identity, position and size")                          \
    X(bench, "bench", "Care", "measure a server, or a disk")                                       \
    X(worker, "worker", NULL, "run a domain for a server (started by it, not by hand)")            \
    X(version, "version", "Help", "print the version")                                             \
    X(help, "help", "Help", "show this list, or a subcommand's options")

struct cli_command {
    const char *name, *group, *summary;
    int (*run)(int argc, char **argv);
};
extern const struct cli_command cli_commands[];
extern const size_t cli_command_count;

#define CLI_COMMAND_DECLARE(function, name, group, summary)                                        \
    int cmd_##function(int argc, char **argv);
CLI_COMMAND_MAP(CLI_COMMAND_DECLARE)
#undef CLI_COMMAND_DECLARE

/* NULL: there is none of that name. */
const struct cli_command *cli_find(const char *name);

/* ---- exit codes: this table, `deedbook help` and the man page say the same ---------------------
 */

#define CLI_EXIT_MAP(X)                                                                            \
    X(CLI_OK, 0, "done")                                                                           \
    X(CLI_FAILED, 1, "the answer is no: a rejected command, a failed test, other trouble")         \
    X(CLI_USAGE, 2, "the command line or the input is malformed")                                  \
    X(CLI_NOT_FOUND, 3, "there is no such thing, or it was deleted")                               \
    X(CLI_CONFLICT, 4, "a condition does not hold, or the directory is in use")                    \
    X(CLI_UNAVAILABLE, 5, "the server is out of reach, busy, stopped, or took too long")           \
    X(CLI_DAMAGE, 6, "stored bytes are damaged")                                                   \
    X(CLI_STORAGE, 7, "storage failed or is full, or the outcome is unknown")

enum cli_exit {
#define CLI_EXIT_ENUM(name, code, text) name = (code),
    CLI_EXIT_MAP(CLI_EXIT_ENUM)
#undef CLI_EXIT_ENUM
};
enum cli_exit cli_exit_of(deed_status status);

/* ---- trouble ------------------------------------------------------------------------------------
 */

/* Print "deedbook: message" to stderr and return `code`, so that it can stand behind `return`. */
int cli_fail(enum cli_exit code, const char *format, ...) DEED_PRINTF(2, 3);
/* The same for an error: its message, a rejection's code, and the exit code of its status. */
int cli_trouble(deed_status status, const struct deed_error *err);
/* How most subcommands end: CLI_OK, or the trouble told and its exit code. */
int cli_end(deed_status status, const struct deed_error *err);

/* ---- options ------------------------------------------------------------------------------------
 */

/* Where a subcommand works, and how it prints. Its argp, cli_target_argp, is a child of the
 * subcommand's own; the subcommand hands it a zeroed cli_target. */
struct cli_target {
    const char *server; /* --server, DEEDBOOK_SERVER, or the default */
    const char *data;   /* --data: open this directory instead; NULL: the server */
    const char *app;    /* --app: the app folder, with --data */
    uint32_t timeout_ms;
    bool json;
};
#define CLI_SERVER_DEFAULT     "http://127.0.0.1:2113"
#define CLI_TIMEOUT_DEFAULT_MS 30000u

extern const struct argp cli_target_argp;
/* {cli_target_argp} as a list of children, with its heading. */
extern const struct argp_child cli_target_children[];

/* argp's parse with this house's ways: usage trouble exits with CLI_USAGE, "deedbook <name>" is the
 * program's name in messages. Ends the process after --help and on usage trouble. */
void cli_parse(const struct argp *argp, int argc, char **argv, void *input);

/* Values of options; trouble ends the process by argp_error, naming the option. */
uint64_t cli_number(struct argp_state *state, const char *option, const char *text);
/* "250ms", "10s", "2m", "1h", or seconds. */
uint32_t cli_duration_ms(struct argp_state *state, const char *option, const char *text);
bool cli_duration_parse(const char *text, uint32_t *out_ms);

/* The only argument of its kind, into `place`; a second is trouble, which names `what`. */
void cli_one(struct argp_state *state, const char **place, const char *what, char *argument);

/* A list that grows as options repeat. Its memory is the process's: nobody frees it. */
struct cli_list {
    const char **items;
    size_t count, room;
};
void cli_list_add(struct cli_list *list, const char *item);

/* The bytes behind a BODY argument: itself, @FILE, or - for standard input. The memory is
 * malloc'd. DEED_NOT_FOUND, DEED_IO, DEED_TOO_LARGE (size_max), DEED_NO_MEMORY. */
DEED_MUST_CHECK deed_status cli_body(const char *argument, size_t size_max, char **out_text,
                                     size_t *out_size, struct deed_error *err);

/* The largest body that a server takes, and with it the largest that we read. */
#define CLI_BODY_SIZE_MAX ((size_t)33 << 20)

#endif
