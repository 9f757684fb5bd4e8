/* cmd_repair.c - deedbook repair: go on without events that are damaged, once a person says so. */
#include "cli/damage.h"
#include "cli/local.h"
#include "cli/out.h"
#include "cli/target.h"

#include "store/store.h"

#include <inttypes.h>

struct options {
    struct cli_target target;
    bool accept_loss;
};

enum { KEY_ACCEPT_LOSS = 0x300 };

static const struct argp_option option_list[] = {
    {"accept-loss", KEY_ACCEPT_LOSS, NULL, 0,
     "Give up the damaged events: without it, repair only lists them", 0},
    {0},
};

static error_t parse(int key, char *argument, struct argp_state *state)
{
    struct options *o = state->input;
    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &o->target;
        return 0;
    case KEY_ACCEPT_LOSS:
        o->accept_loss = true;
        return 0;
    case ARGP_KEY_ARG:
        argp_error(state, "\"%s\"? the directory goes behind --data", argument);
        return 0;
    case ARGP_KEY_END:
        if (o->target.data == NULL) argp_error(state, "which directory? --data DIR");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp repair_argp = {
    .options = option_list,
    .parser = parse,
    .doc =
        "Let a log with damaged events take appends again. The damaged ranges are written down; "
        "reading them stays an error, their positions are never given again, and the bytes of a "
        "damaged end are kept aside. If there is a backup, restore that instead.\v"
        "Example:\n"
        "  deedbook repair --data ./data                  # list what would be given up\n"
        "  deedbook repair --data ./data --accept-loss    # give it up\n\n"
        "No server may be running on the directory. Exits with 0 if the log takes appends and with "
        "6 if it has damage that was not accepted.",
    .children = cli_target_children,
};

static void on_damage(void *context, const struct store_damage *damage)
{
    const struct options *o = context;
    damage_print(damage, o->target.json);
}

static deed_status run(struct options *o, bool *out_damaged, struct deed_error *err)
{
    struct store *store = NULL;
    struct store_verify_report report = {0};
    struct store_options options = {
        .must_exist = true, .read_only = !o->accept_loss, .accept_losses = o->accept_loss};
    deed_status status = store_open(os_real(), o->target.data, &options, &store, err);
    if (status != DEED_OK) return status;
    status = store_verify(store, on_damage, NULL, o, &report, err);
    store_close(store);
    *out_damaged = status == DEED_CORRUPT;
    if (status != DEED_OK && status != DEED_CORRUPT) return status;
    if (o->target.json) {
        printf("{\"damage_count\":%" PRIu64 ",\"accepted_count\":%" PRIu64 "}\n",
               report.damage_count, report.accepted_count);
    } else if (report.damage_count > 0) {
        printf("%" PRIu64
               " places are damaged: give them up by --accept-loss, or restore a backup\n",
               report.damage_count);
    } else if (report.accepted_count > 0) {
        printf("the log takes appends; %" PRIu64 " places are given up\n", report.accepted_count);
    } else {
        printf("nothing is damaged\n");
    }
    return DEED_OK;
}

int cmd_repair(int argc, char **argv)
{
    struct options options = {0};
    struct deed_error err = {0};
    bool damaged = false;
    cli_parse(&repair_argp, argc, argv, &options);
    deed_status status = run(&options, &damaged, &err);
    if (status != DEED_OK) return cli_trouble(status, &err);
    return damaged ? CLI_DAMAGE : CLI_OK;
}
