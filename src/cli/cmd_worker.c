/* cmd_worker.c - deedbook worker: the other end of the domain's host (domain/worker.h). */
#include "cli/cli.h"

#include "domain/worker.h"

#include <string.h>

int cmd_worker(int argc, char **argv)
{
    if (argc < 2 || strcmp(argv[1], "--help") == 0) {
        printf("Usage: deedbook worker DOMAIN.so [BYTES]\n"
               "Run a domain's code for a server, which starts this by itself.\n");
        return argc < 2 ? CLI_USAGE : CLI_OK;
    }
    /* It wants to see the command line as the server wrote it, the program's name first. */
    static char program[] = "deedbook";
    char *arguments[] = {program, argv[0], argv[1], argc > 2 ? argv[2] : NULL, NULL};
    return worker_main(argc > 2 ? 4 : 3, arguments);
}
