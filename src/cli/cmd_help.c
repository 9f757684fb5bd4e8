/* cmd_help.c - deedbook help: the list of subcommands, or one's options. */
#include "cli/cli.h"
#include "cli/out.h"

#include <string.h>

static void list_print(void)
{
    printf("Usage: deedbook SUBCOMMAND [OPTION...]\n"
           "An event store and CQRS runtime: commands in, events stored, queries out.\n");
    const char *group = "";
    for (size_t i = 0; i < cli_command_count; i++) {
        const struct cli_command *command = &cli_commands[i];
        if (command->group == NULL) continue;
        if (strcmp(command->group, group) != 0) {
            group = command->group;
            printf("\n%s%s%s\n", out_start(stdout, OUT_BOLD), group, out_stop(stdout));
        }
        printf("  %-12s %s\n", command->name, command->summary);
    }
    printf("\n%sExit codes%s\n", out_start(stdout, OUT_BOLD), out_stop(stdout));
#define EXIT_LINE(name, code, text) printf("  %-12d %s\n", code, text);
    CLI_EXIT_MAP(EXIT_LINE)
#undef EXIT_LINE
    printf("\n`deedbook SUBCOMMAND --help` shows a subcommand's options, with an example.\n"
           "Most of them talk to a server (--server URL, default " CLI_SERVER_DEFAULT "),\n"
           "or open a data directory themselves (--data DIR).\n");
}

int cmd_help(int argc, char **argv)
{
    if (argc < 2 || strcmp(argv[1], "--help") == 0) {
        list_print();
        return CLI_OK;
    }
    const struct cli_command *command = cli_find(argv[1]);
    if (command == NULL) {
        return cli_fail(CLI_USAGE, "there is no subcommand \"%s\"; `deedbook help` lists them",
                        argv[1]);
    }
    if (command->run == cmd_help) {
        list_print();
        return CLI_OK;
    }
    static char help[] = "--help";
    char *arguments[] = {argv[1], help, NULL};
    return command->run(2, arguments);
}
