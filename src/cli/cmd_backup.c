/* cmd_backup.c - deedbook backup: a copy of the log, while it is written. */
#include "cli/backup_print.h"
#include "cli/local.h"
#include "cli/out.h"
#include "cli/target.h"

#include "base/timetext.h"
#include "store/backup.h"

#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

/* How often the server is asked how far it is: soon at first, since many are small. */
#define POLL_FIRST_US 20000u
#define POLL_LAST_US  500000u

struct options {
    struct cli_target target;
    const char *name;
    bool quick, no_wait;
};

enum { KEY_QUICK = 0x300, KEY_NO_WAIT };

static const struct argp_option option_list[] = {
    {"quick", KEY_QUICK, NULL, 0, "read again only what is copied this time", 0},
    {"no-wait", KEY_NO_WAIT, NULL, 0, "server: only start it", 0},
    {0},
};

static error_t parse(int key, char *argument, struct argp_state *state)
{
    struct options *o = state->input;
    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &o->target;
        return 0;
    case KEY_QUICK:
        o->quick = true;
        return 0;
    case KEY_NO_WAIT:
        o->no_wait = true;
        return 0;
    case ARGP_KEY_ARG:
        cli_one(state, &o->name, "TARGET", argument);
        return 0;
    case ARGP_KEY_END:
        if (o->name == NULL) argp_error(state, "where to? a directory, or a name on the server");
        if (o->no_wait && o->target.data != NULL) argp_error(state, "--no-wait is for a server");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp backup_argp = {
    .options = option_list,
    .parser = parse,
    .args_doc = "TARGET",
    .doc =
        "Copy the log, up to what is stored now, while appends go on. The same target again takes "
        "only what is new; the backup before stays whole until the new one is on the disk and was "
        "checked. With --data, TARGET is a directory. With a server it is a name below the server's "
        "--backup-dir.\v"
        "Examples:\n"
        "  deedbook backup --data ./data /mnt/backup/orders\n"
        "  deedbook backup nightly --server http://127.0.0.1:2113\n\n"
        "A server may be running on the data directory. The backup holds everything that the log "
        "does: keep it as safe. `deedbook restore` puts it back, `deedbook verify --data TARGET` "
        "looks at it.",
    .children = cli_target_children,
};

/* ---- of a directory ------------------------------------------------------------------------- */

static bool on_progress(void *context, uint64_t done, uint64_t all)
{
    struct out_progress *progress = context;
    progress->all = all;
    out_progress_step(progress, done);
    return true;
}

static deed_status run_local(const struct options *o, struct deed_error *err)
{
    struct target *target = NULL;
    struct out_progress progress;
    struct deed_backup_report report;
    struct deed_backup_options options = {
        .quick = o->quick, .progress = on_progress, .context = &progress};
    deed_status status = target_open(&o->target, TARGET_READS, &target, err);
    if (status != DEED_OK) return status;
    out_progress_start(&progress, "copying", "bytes", 0);
    status = store_backup(local_store(target_local(target)), o->name, &options, &report, err);
    out_progress_stop(&progress);
    if (status == DEED_OK) backup_print("backed up", &report, o->target.json);
    target_close(target);
    return status;
}

/* ---- of a server ---------------------------------------------------------------------------- */

/* What GET /backup says. */
struct standing {
    bool running, failed;
    uint64_t done, all;
    char message[DEED_MESSAGE_SIZE], status[DEED_CODE_SIZE];
    struct deed_backup_report report;
};

static void hash_read(deed_str text, uint8_t out[32])
{
    for (size_t i = 0; i < 32 && text.len == 64; i++) {
        unsigned byte = 0;
        char pair[3] = {text.ptr[2 * i], text.ptr[2 * i + 1], '\0'};
        if (sscanf(pair, "%2x", &byte) == 1) out[i] = (uint8_t)byte;
    }
}

static json_value member(json_value object, const char *key)
{
    return json_get(object, deed_str_of(key));
}

static void standing_read(json_value answer, struct standing *out)
{
    json_value last = member(answer, "last"), error = member(answer, "error");
    struct deed_backup_report *r = &out->report;
    deed_str state = json_text(member(answer, "state"));
    *out = (struct standing){.running = deed_str_equal(state, DEED_STR("running")),
                             .failed = deed_str_equal(state, DEED_STR("failed"))};
    (void)json_uint64(member(answer, "done"), &out->done);
    (void)json_uint64(member(answer, "all"), &out->all);
    snprintf(out->message, sizeof out->message, "%.*s",
             DEED_FMT(json_text(member(error, "message"))));
    snprintf(out->status, sizeof out->status, "%.*s", DEED_FMT(json_text(member(error, "status"))));
    (void)json_uint64(member(last, "position"), &r->position);
    (void)json_uint64(member(last, "epoch"), &r->epoch);
    (void)json_uint64(member(last, "events"), &r->events);
    (void)json_uint64(member(last, "files"), &r->file_count);
    (void)json_uint64(member(last, "size"), &r->size);
    (void)json_uint64(member(last, "copied_files"), &r->copied_count);
    (void)json_uint64(member(last, "copied_size"), &r->copied_size);
    hash_read(json_text(member(last, "chain_hash")), r->chain_hash);
}

static deed_status ask(struct target *target, const struct request *request, bool json_end,
                       struct standing *out, struct deed_error *err)
{
    struct reply reply;
    struct arena arena;
    json_value answer;
    reply_init(&reply);
    arena_init(&arena, REPLY_SIZE_MAX);
    deed_status status = target_call(target, request, &reply, err);
    if (status == DEED_OK) status = json_parse(&arena, buf_bytes(&reply.body), 0, &answer, err);
    if (status == DEED_OK) standing_read(answer, out);
    if (status == DEED_OK && json_end && !out->running && !out->failed) {
        out_body(buf_bytes(&reply.body));
    }
    arena_done(&arena);
    reply_done(&reply);
    return status;
}

/* The server told a status by its name. */
static deed_status status_named(const char *name)
{
    for (int i = 0; i < DEED_STATUS_COUNT; i++) {
        if (strcmp(deed_status_name((deed_status)i), name) == 0) return (deed_status)i;
    }
    return DEED_IO;
}

static deed_status wait_for_it(const struct options *o, struct target *target,
                               struct deed_error *err)
{
    struct request request = {.method = "GET", .path = "/backup"};
    struct out_progress progress;
    struct standing s = {.running = true};
    useconds_t pause = POLL_FIRST_US;
    deed_status status = DEED_OK;
    out_progress_start(&progress, "copying", "bytes", 0);
    for (;;) {
        status = ask(target, &request, o->target.json, &s, err);
        if (status != DEED_OK || !s.running) break;
        progress.all = s.all;
        out_progress_step(&progress, s.done);
        usleep(pause);
        pause = pause * 2 > POLL_LAST_US ? POLL_LAST_US : pause * 2;
    }
    out_progress_stop(&progress);
    if (status != DEED_OK) return status;
    if (s.failed) return deed_fail(err, status_named(s.status), "%s", s.message);
    if (!o->target.json) backup_print("backed up", &s.report, false);
    return DEED_OK;
}

static deed_status run_server(const struct options *o, struct deed_error *err)
{
    struct target *target = NULL;
    struct url url;
    struct standing s;
    deed_status status = target_open(&o->target, TARGET_READS, &target, err);
    if (status != DEED_OK) return status;
    url_init(&url, "/backup");
    url_param(&url, "name", o->name);
    if (o->quick) url_param(&url, "quick", "true");
    struct request request = {.method = "POST", .path = url_text(&url)};
    status = ask(target, &request, false, &s, err);
    if (status == DEED_OK && o->no_wait) puts("begun");
    if (status == DEED_OK && !o->no_wait) status = wait_for_it(o, target, err);
    url_done(&url);
    target_close(target);
    return status;
}

int cmd_backup(int argc, char **argv)
{
    struct options options = {0};
    struct deed_error err = {0};
    cli_parse(&backup_argp, argc, argv, &options);
    deed_status status =
        options.target.data != NULL ? run_local(&options, &err) : run_server(&options, &err);
    return cli_end(status, &err);
}
