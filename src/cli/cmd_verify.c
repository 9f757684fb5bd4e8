/* cmd_verify.c - deedbook verify: every checksum, every leaf, every link of the chain. */
#include "cli/backup_print.h"
#include "cli/damage.h"
#include "cli/local.h"
#include "cli/out.h"
#include "cli/target.h"

#include "base/text.h"
#include "store/backup.h"
#include "store/store.h"

#include <inttypes.h>

struct options {
    struct cli_target target;
};

static error_t parse(int key, char *argument, struct argp_state *state)
{
    struct options *o = state->input;
    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &o->target;
        return 0;
    case ARGP_KEY_ARG:
        argp_error(state, "\"%s\"? the directory goes behind --data", argument);
        return 0;
    case ARGP_KEY_END:
        if (o->target.data == NULL) {
            argp_error(state, "which directory? --data DIR; a server may be running on it");
        }
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp verify_argp = {
    .parser = parse,
    .doc =
        "Read every byte of the log again and check every checksum, every event's leaf and every "
        "link of the hash chain. Each damage is printed with its place; nothing is changed. The "
        "directory may be a data directory or a backup; of a backup the files' hashes are checked, "
        "too.\v"
        "Examples:\n"
        "  deedbook verify --data ./data\n"
        "  deedbook verify --data /mnt/backup/orders\n\n"
        "Exits with 0 if all is well and with 6 if there is damage. The chain's hash stands for "
        "everything before it: kept elsewhere, it shows later whether history was changed.",
    .children = cli_target_children,
};

struct verifying {
    const struct options *options;
    struct out_progress progress;
};

static bool on_progress(void *context, uint64_t done, uint64_t all)
{
    struct verifying *verifying = context;
    verifying->progress.all = all;
    out_progress_step(&verifying->progress, done);
    return true;
}

static void on_damage(void *context, const struct store_damage *damage)
{
    struct verifying *verifying = context;
    out_progress_stop(&verifying->progress);
    verifying->progress.on = out_is_terminal(stderr);
    damage_print(damage, verifying->options->target.json);
}

static void report_print(const struct verifying *verifying,
                         const struct store_verify_report *report)
{
    struct buf hash;
    buf_init(&hash, 256);
    hex_encode((deed_bytes){report->chain_hash, sizeof report->chain_hash}, &hash);
    if (verifying->options->target.json) {
        printf("{\"commits\":%" PRIu64 ",\"events\":%" PRIu64 ",\"bytes\":%" PRIu64
               ",\"damage_count\":%" PRIu64 ",\"chain_hash\":\"%.*s\"}\n",
               report->commits, report->events, report->bytes, report->damage_count,
               DEED_FMT(buf_str(&hash)));
    } else {
        char commits[OUT_NUMBER_SIZE], events[OUT_NUMBER_SIZE], size[OUT_NUMBER_SIZE];
        bool good = report->damage_count == 0;
        printf("%s%s%s  %s commits, %s events, %s good",
               out_start(stdout, good ? OUT_GREEN : OUT_RED), good ? "intact" : "damaged",
               out_stop(stdout), out_count(report->commits, commits),
               out_count(report->events, events), out_size(report->bytes, size));
        if (!good) printf("; %" PRIu64 " places damaged", report->damage_count);
        printf("\nchain hash %.*s\n", DEED_FMT(buf_str(&hash)));
    }
    buf_done(&hash);
}

/* The damage has been told place by place; the summary is the answer. */
static deed_status run(const struct options *o, bool *out_damaged, struct deed_error *err)
{
    struct target *target = NULL;
    struct verifying verifying = {.options = o};
    struct store_verify_report report = {0};
    deed_status status = target_open(&o->target, TARGET_READS, &target, err);
    if (status != DEED_OK) return status;
    out_progress_start(&verifying.progress, "verifying", "bytes", 0);
    status = store_verify(local_store(target_local(target)), on_damage, on_progress, &verifying,
                          &report, err);
    out_progress_stop(&verifying.progress);
    *out_damaged = status == DEED_CORRUPT;
    if (status == DEED_OK || status == DEED_CORRUPT) {
        report_print(&verifying, &report);
        status = DEED_OK;
    }
    target_close(target);
    return status;
}

/* A backup's files first, then the chain in them. */
static deed_status run_backup(const struct options *o, bool *out_damaged, struct deed_error *err)
{
    struct verifying verifying = {.options = o};
    struct deed_backup_report report = {0};
    struct deed_backup_options how = {.progress = on_progress, .context = &verifying};
    out_progress_start(&verifying.progress, "verifying", "bytes", 0);
    deed_status status = store_check_backup(os_real(), o->target.data, &how, on_damage, &verifying,
                                            &report, err);
    out_progress_stop(&verifying.progress);
    *out_damaged = status == DEED_CORRUPT;
    if (status == DEED_OK) backup_print("intact", &report, o->target.json);
    return status;
}

int cmd_verify(int argc, char **argv)
{
    struct options options = {0};
    struct deed_error err = {0};
    bool damaged = false;
    cli_parse(&verify_argp, argc, argv, &options);
    bool is_backup = backup_is_there(os_real(), options.target.data);
    deed_status status = is_backup ? run_backup(&options, &damaged, &err)
                                   : run(&options, &damaged, &err);
    if (status != DEED_OK) return cli_trouble(status, &err);
    return damaged ? CLI_DAMAGE : CLI_OK;
}
