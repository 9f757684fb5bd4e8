/* cmd_version.c - deedbook version. */
#include "cli/cli.h"

static error_t parse(int key, char *argument, struct argp_state *state)
{
    (void)argument;
    if (key == ARGP_KEY_ARG) argp_usage(state);
    return key == ARGP_KEY_ARG ? 0 : ARGP_ERR_UNKNOWN;
}

static const struct argp version_argp = {
    .parser = parse,
    .doc = "Print the version of this program and of the library in it.\v"
           "Example:\n  deedbook version",
};

int cmd_version(int argc, char **argv)
{
    cli_parse(&version_argp, argc, argv, NULL);
    printf("deedbook %s\n", deed_version());
    return CLI_OK;
}
