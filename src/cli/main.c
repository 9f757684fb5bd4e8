/* main.c - the program's door: find the subcommand in the table, run it. */
#include "cli/cli.h"

#include "os/failpoint.h"

#include <locale.h>
#include <stdlib.h>
#include <string.h>

const struct cli_command cli_commands[] = {
#define CLI_COMMAND_ROW(function, name, group, summary) {name, group, summary, cmd_##function},
    CLI_COMMAND_MAP(CLI_COMMAND_ROW)
#undef CLI_COMMAND_ROW
};
const size_t cli_command_count = sizeof cli_commands / sizeof cli_commands[0];

const struct cli_command *cli_find(const char *name)
{
    for (size_t i = 0; i < cli_command_count; i++) {
        if (strcmp(cli_commands[i].name, name) == 0) return &cli_commands[i];
    }
    return NULL;
}

#ifdef DEED_FAILPOINTS
/* `deedbook failpoints`, for the test that goes through them; the product has no such command. */
static int failpoints_list(void)
{
    char name[FAILPOINT_NAME_SIZE];
    for (size_t i = 0; i < failpoint_count(); i++) {
        failpoint_name(i, name);
        printf("%s\n", name);
    }
    return CLI_OK;
}
#endif

int main(int argc, char **argv)
{
#ifdef DEED_FAILPOINTS
    if (argc == 2 && strcmp(argv[1], "failpoints") == 0) return failpoints_list();
#endif
    /* smartcols prints what the locale does not know as \x escapes. Everything here is UTF-8, also
     * where no locale was chosen, as in most containers. */
    setlocale(LC_ALL, "");
    if (MB_CUR_MAX == 1) setlocale(LC_CTYPE, "C.UTF-8");

    const char *name = argc > 1 ? argv[1] : "help";
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0 || strcmp(name, "-?") == 0) {
        name = "help";
    }
    if (strcmp(name, "--version") == 0 || strcmp(name, "-V") == 0) name = "version";

    const struct cli_command *command = cli_find(name);
    if (command == NULL) {
        return cli_fail(CLI_USAGE, "there is no subcommand \"%s\"; `deedbook help` lists them",
                        name);
    }
    if (argc <= 1) {
        char *arguments[] = {argv[0], NULL};
        return command->run(1, arguments);
    }
    int code = command->run(argc - 1, argv + 1);
    /* What was printed but could not be written (a full disk behind a redirection) is a failure,
     * not a success with half an answer. */
    if (fflush(stdout) != 0 || ferror(stdout)) {
        return cli_fail(CLI_STORAGE, "standard output could not be written");
    }
    return code;
}
