/* target.h - where a subcommand works: a server, or a data directory that it opens itself.
 *
 * Both speak the HTTP API (docs/protocol/http.md): against a server through libcurl (client.h), in
 * a directory by running the same routes in this process (local.h). So a subcommand is written
 * once, and answers are the same byte for byte. */
#ifndef CLI_TARGET_H
#define CLI_TARGET_H

#include "cli/cli.h"

#include "cli/request.h"

/* ---- the target
 * ----------------------------------------------------------------------------------- */

struct target;
struct local;

/* What a directory is opened for; a server has all of it. */
enum target_use {
    TARGET_READS,   /* read-only, beside a running server; with --app its domain, for states */
    TARGET_WRITES,  /* locked; with --app its domain decides */
    TARGET_QUERIES, /* locked, since read models are kept in it; projections and queries */
};

/* DEED_LOCKED, DEED_NOT_FOUND, DEED_CORRUPT, DEED_TOO_NEW as deed_open; a server is first asked by
 * the first call. */
DEED_MUST_CHECK deed_status target_open(const struct cli_target *options, enum target_use use,
                                        struct target **out_target, struct deed_error *err);
void target_close(struct target *target); /* accepts NULL */
/* The directory's store and parts, or NULL for a server. */
struct local *target_local(struct target *target);

/* Ask, and get the whole answer. Anything but 2xx is a status: the problem's title and detail are
 * the message, its code the code. Out of reach: DEED_STOPPED; broken off behind a request that may
 * have changed something: DEED_UNKNOWN. */
DEED_MUST_CHECK deed_status target_call(struct target *target, const struct request *request,
                                        struct reply *reply, struct deed_error *err);

/* Open a target, call it once, and close it. */
DEED_MUST_CHECK deed_status target_ask(const struct cli_target *options, enum target_use use,
                                       const struct request *request, struct reply *reply,
                                       struct deed_error *err);

/* Show a parsed answer to people. `context` is the subcommand's own. */
typedef void target_answer(const void *context, json_value answer);
/* As target_ask, and print the answer: with --json as it came, else parsed, by `show`;
 * statuses of json_parse too. */
DEED_MUST_CHECK deed_status target_show(const struct cli_target *options, enum target_use use,
                                        const struct request *request, target_answer *show,
                                        const void *context, struct deed_error *err);

/* Ask, and get the answer line by line while it comes (NDJSON). A server that goes away in the
 * middle is DEED_STOPPED: the lines so far were whole. */
DEED_MUST_CHECK deed_status target_lines(struct target *target, const struct request *request,
                                         splitter_line *line, void *context,
                                         struct deed_error *err);

#endif
