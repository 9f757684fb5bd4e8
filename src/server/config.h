/* config.h - the options of `deedbook serve`: one table for command line, environment and file.
 *
 * An option's name is the same everywhere: --body-size-max=1MiB, DEEDBOOK_BODY_SIZE_MAX=1MiB, and
 * in the file
 *
 *     # lines of key = value; a comment begins with '#' and has its line to itself
 *     body-size-max = 1 MiB
 *     listen = 127.0.0.1:2113
 *     listen = [::1]:2113
 *
 * The command line wins over the environment, that over the file, that over the default; the
 * sources may be read in any order. An option that may be given several times (listen) is replaced
 * as a whole by the stronger source; in the environment its values are separated by commas. */
#ifndef SERVER_CONFIG_H
#define SERVER_CONFIG_H

#include "base/arena.h"
#include "base/error.h"

enum config_type {
    CONFIG_TEXT,
    CONFIG_LIST,     /* text, may be given several times */
    CONFIG_COUNT,    /* 1000 */
    CONFIG_SIZE,     /* bytes: 4096, 16KiB, 64 MiB, 1GiB */
    CONFIG_DURATION, /* 250ms, 10s, 5m, 1h; a bare number is seconds. Kept in milliseconds */
    CONFIG_BOOL,     /* true, false, yes, no, on, off, 1, 0; alone on the command line: true */
};

enum config_source { /* weakest first */
    CONFIG_FROM_DEFAULT,
    CONFIG_FROM_FILE,
    CONFIG_FROM_ENVIRONMENT,
    CONFIG_FROM_COMMAND_LINE,
};

#define CONFIG_LIST_MAX 16
struct config_list {
    const char *items[CONFIG_LIST_MAX];
    size_t count;
};

/* X(FIELD, name, TYPE, default, minimum, maximum, help) in the order in which help shows them. The
 * C type of a field follows from its TYPE; for texts and lists the maximum is bytes, for booleans
 * both mean nothing. */
#define CONFIG_OPTION_MAP(X)                                                                       \
    X(data, "data", TEXT, "data", 1, 4000, "directory of the event store, made if missing")        \
    X(backup_dir, "backup-dir", TEXT, "", 0, 4000,                                                 \
      "directory below which POST /backup makes backups; empty: it makes none")                    \
    X(listen, "listen", LIST, "127.0.0.1:2113", 1, 300,                                            \
      "address and port to serve on; may be given several times; port 0 takes a free one")         \
    X(advertise_host, "advertise-host", TEXT, "", 0, 300,                                          \
      "where gRPC clients that ask are told to find this server; empty: where they found it")      \
    X(advertise_port, "advertise-port", COUNT, "0", 0, 65535, "and at which port; 0: at theirs")   \
    X(allow_shutdown, "allow-shutdown", BOOL, "false", 0, 1,                                       \
      "gRPC clients may stop the server (Operations.Shutdown)")                                    \
    X(app, "app", TEXT, "", 0, 4000,                                                               \
      "app folder (domain, projections, queries); the same as the APP_FOLDER argument")            \
    X(reload, "reload", BOOL, "true", 0, 1, "take up changed projection and query files while "    \
                                            "running")                                             \
    X(unsafe_no_sync, "unsafe-no-sync", BOOL, "false", 0, 1,                                       \
      "acknowledge before the disk has it: a power cut may lose acknowledged events")              \
    X(pool_threads, "pool-threads", COUNT, "16", 1, 1024, "threads for requests that read")        \
    X(query_threads, "query-threads", COUNT, "128", 2, 4096,                                       \
      "threads for queries; three quarters of them may wait (after=) at once")                     \
    X(connection_count_max, "connection-count-max", COUNT, "4096", 1, 1000000,                     \
      "open connections; one more is closed at once")                                              \
    X(pipeline_count_max, "pipeline-count-max", COUNT, "64", 1, 10000,                             \
      "requests of one connection worked on at once")                                              \
    X(call_count_max, "call-count-max", COUNT, "1000", 1, 1000000,                                 \
      "gRPC calls of one connection at once; one more is refused")                                 \
    X(keepalive_interval, "keepalive-interval", DURATION, "10s", 0, 86400000,                      \
      "a silent HTTP/2 connection is asked whether it is there; 0: never")                         \
    X(keepalive_timeout, "keepalive-timeout", DURATION, "10s", 1, 86400000,                        \
      "for it to answer")                                                                          \
    X(head_size_max, "head-size-max", SIZE, "16KiB", 256, 1048576,                                 \
      "request line and headers of one request")                                                   \
    X(body_size_max, "body-size-max", SIZE, "33MiB", 0, 1073741824, "body of one request")         \
    X(in_flight_size_max, "in-flight-size-max", SIZE, "256MiB", 1048576, 1099511627776,            \
      "bodies of all requests being worked on; past it: 503")                                      \
    X(write_size_max, "write-size-max", SIZE, "1MiB", 65536, 1073741824,                           \
      "unsent bytes of one connection before its streams pause")                                   \
    X(header_timeout, "header-timeout", DURATION, "10s", 1, 3600000,                               \
      "for a request's head to arrive whole")                                                      \
    X(idle_timeout, "idle-timeout", DURATION, "60s", 1, 86400000,                                  \
      "a connection without a request")                                                            \
    X(write_timeout, "write-timeout", DURATION, "60s", 1, 86400000,                                \
      "a client that takes nothing of its answer")                                                 \
    X(body_rate_min, "body-rate-min", SIZE, "1KiB", 0, 1073741824,                                 \
      "bytes a second that a request's body must arrive with; 0: any")                             \
    X(shutdown_grace, "shutdown-grace", DURATION, "10s", 0, 3600000,                               \
      "for accepted requests to finish after SIGTERM")                                             \
    X(wait_timeout, "wait-timeout", DURATION, "10s", 1, 600000,                                    \
      "how long after=POSITION waits when the request says nothing")                               \
    X(read_count_max, "read-count-max", COUNT, "10000", 1, 10000000,                               \
      "events in one JSON array")                                                                  \
    X(query_row_count_max, "query-row-count-max", COUNT, "10000", 1, 10000000,                     \
      "rows of one query's answer")                                                                \
    X(query_size_max, "query-size-max", SIZE, "32MiB", 1024, 1073741824,                           \
      "bytes of one query's answer")                                                               \
    X(query_timeout, "query-timeout", DURATION, "10s", 1, 600000, "for one query to run")          \
    X(projection_batch_count_max, "projection-batch-count-max", COUNT, "4096", 1, 1000000,         \
      "events in one transaction of a projection")                                                 \
    X(command_timeout, "command-timeout", DURATION, "5s", 1, 600000,                               \
      "for the domain's code to decide on one command")                                            \
    X(worker_memory_max, "worker-memory-max", SIZE, "512MiB", 16777216, 1099511627776,             \
      "memory that the domain's code may take")                                                    \
    X(command_queue_count_max, "command-queue-count-max", COUNT, "4096", 1, 1000000,               \
      "commands waiting for the domain; past it: 503")                                             \
    X(segment_size, "segment-size", SIZE, "64MiB", 1048576, 4294967296, "one file of the log")     \
    X(cache_size, "cache-size", SIZE, "48MiB", 1048576, 1099511627776,                             \
      "memory for what was read of the index and of the log's tables")                             \
    X(open_file_count_max, "open-file-count-max", COUNT, "64", 8, 65536,                           \
      "files of the log that stay open for reading")                                               \
    X(event_size_max, "event-size-max", SIZE, "16MiB", 1024, 1073741824, "one event")              \
    X(commit_size_max, "commit-size-max", SIZE, "32MiB", 1024, 1073741824, "one append")           \
    X(commit_count_max, "commit-count-max", COUNT, "65536", 1, 16777216, "events in one append")   \
    X(name_size_max, "name-size-max", SIZE, "1024", 16, 65535,                                     \
      "names of streams, types, tags and ids")                                                     \
    X(tag_count_max, "tag-count-max", COUNT, "64", 0, 65535, "tags of one event")                  \
    X(json_depth_max, "json-depth-max", COUNT, "64", 1, 64, "nesting of JSON")                     \
    X(queue_count_max, "queue-count-max", COUNT, "65536", 1, 16777216,                             \
      "appends waiting for the disk; past it: 503")                                                \
    X(queue_size_max, "queue-size-max", SIZE, "256MiB", 1048576, 1099511627776,                    \
      "bytes of appends waiting for the disk; past it: 503")

#define CONFIG_FIELD_TEXT     const char *
#define CONFIG_FIELD_LIST     struct config_list
#define CONFIG_FIELD_COUNT    uint64_t
#define CONFIG_FIELD_SIZE     uint64_t
#define CONFIG_FIELD_DURATION uint64_t
#define CONFIG_FIELD_BOOL     bool

enum config_index {
#define CONFIG_ENUM(field, name, type, initial, low, high, help) CONFIG_INDEX_##field,
    CONFIG_OPTION_MAP(CONFIG_ENUM)
#undef CONFIG_ENUM
        CONFIG_OPTION_COUNT
};

struct config {
#define CONFIG_FIELD(field, name, type, initial, low, high, help) CONFIG_FIELD_##type field;
    CONFIG_OPTION_MAP(CONFIG_FIELD)
#undef CONFIG_FIELD
    /* Variables of the environment that begin with DEEDBOOK_ and are no option: likely a slip. */
    struct config_list unknown_variables;
    enum config_source sources[CONFIG_OPTION_COUNT]; /* where each value is from */
    struct arena arena;                              /* of every text above */
};

struct config_option {
    const char *name, *initial, *help;
    enum config_type type;
    uint64_t low, high;
    size_t offset; /* private: of the field */
};
/* CONFIG_OPTION_COUNT of them, indexed by enum config_index. */
extern const struct config_option config_options[];

/* "SIZE": what stands for the value in a usage line; NULL for booleans. */
const char *config_type_name(enum config_type type);

/* Everything at its default. */
DEED_MUST_CHECK deed_status config_init(struct config *config, struct deed_error *err);
void config_done(struct config *config); /* accepts a zeroed one */

/* Set one option from text, unless a stronger source has set it already (the value is checked all
 * the same). A NULL value is a boolean's "true". DEED_INVALID: no such option, or no such value;
 * the message names both, the caller adds where it stands. */
DEED_MUST_CHECK deed_status config_set(struct config *config, const char *name, const char *value,
                                       enum config_source source, struct deed_error *err);

/* DEED_INVALID: "serve.conf line 3: no option \"lisen\"". DEED_NOT_FOUND, DEED_IO. */
DEED_MUST_CHECK deed_status config_load_file(struct config *config, const char *path,
                                             struct deed_error *err);
/* Every DEEDBOOK_… of a NULL-terminated list like `environ`. Unknown ones are only listed, since
 * other subcommands have variables too. DEED_INVALID: "DEEDBOOK_LISTEN: …". */
DEED_MUST_CHECK deed_status config_load_environment(struct config *config, char *const *variables,
                                                    struct deed_error *err);

/* Split "127.0.0.1:2113", "[::1]:80", "localhost:0", "2113" (then 127.0.0.1). Both outs are copied
 * into `arena`. */
DEED_MUST_CHECK deed_status config_address(const char *text, struct arena *arena,
                                           const char **out_host, uint16_t *out_port,
                                           struct deed_error *err);

#endif
