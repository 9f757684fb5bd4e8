/* cmd_restore.c - deedbook restore: a data directory from a backup. */
#include "cli/backup_print.h"
#include "cli/cli.h"
#include "cli/out.h"

#include "store/backup.h"

struct options {
    const char *backup, *directory;
    bool json;
};

enum { KEY_JSON = 0x300 };

static const struct argp_option option_list[] = {
    {"json", KEY_JSON, NULL, 0, "print the result as JSON", 0},
    {0},
};

static error_t parse(int key, char *argument, struct argp_state *state)
{
    struct options *o = state->input;
    switch (key) {
    case KEY_JSON:
        o->json = true;
        return 0;
    case ARGP_KEY_ARG:
        if (o->backup == NULL) {
            o->backup = argument;
        } else {
            cli_one(state, &o->directory, "DIRECTORY", argument);
        }
        return 0;
    case ARGP_KEY_END:
        if (o->directory == NULL) argp_error(state, "from where to where? BACKUP DIRECTORY");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp restore_argp = {
    .options = option_list,
    .parser = parse,
    .args_doc = "BACKUP DIRECTORY",
    .doc =
        "Make DIRECTORY, which must be empty or not be there, a data directory that holds what the "
        "backup does, and check every byte of it. The log goes on in a new epoch: tokens, event "
        "ids and read models of before are refused. Read models are built anew.\v"
        "Example:\n"
        "  deedbook restore /mnt/backup/orders ./data\n\n"
        "Until it is done the directory cannot be opened. After an interruption run it again. Exits "
        "with 6 if the backup is damaged.",
};

static bool on_progress(void *context, uint64_t done, uint64_t all)
{
    struct out_progress *progress = context;
    progress->all = all;
    out_progress_step(progress, done);
    return true;
}

int cmd_restore(int argc, char **argv)
{
    struct options options = {0};
    struct deed_error err = {0};
    struct deed_backup_report report;
    struct out_progress progress;
    struct deed_backup_options how = {.progress = on_progress, .context = &progress};
    cli_parse(&restore_argp, argc, argv, &options);
    out_progress_start(&progress, "restoring", "bytes", 0);
    deed_status status =
        store_restore(os_real(), options.backup, options.directory, &how, &report, &err);
    out_progress_stop(&progress);
    if (status != DEED_OK) return cli_trouble(status, &err);
    backup_print("restored", &report, options.json);
    return CLI_OK;
}
