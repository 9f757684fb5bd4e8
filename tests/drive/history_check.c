/* history_check.c - check a history that a test wrote down in words (tests/support/history.h).
 *
 *     history_check FILE        0: good; 1: rejected, with the operations' names; 2: not a history */
#include "support/history.h"

#include <stdio.h>
#include <stdlib.h>

static char *file_text(const char *path)
{
    FILE *file = fopen(path, "rb");
    char *text = NULL;
    size_t len = 0;
    if (file == NULL) return NULL;
    if (getdelim(&text, &len, '\0', file) < 0) {
        free(text);
        text = NULL;
    }
    (void)fclose(file);
    return text;
}

int main(int argc, char **argv)
{
    struct history h;
    char message[512];
    char *text = argc == 2 ? file_text(argv[1]) : NULL;
    if (text == NULL) {
        fprintf(stderr, "usage: history_check FILE\n");
        return 2;
    }
    history_init(&h);
    int status = 0;
    if (!history_parse(&h, text, message, sizeof message)) {
        status = 2;
    } else if (!history_check(&h, message, sizeof message)) {
        status = 1;
    }
    if (status != 0) {
        fprintf(stderr, "%s: %s\n", argv[1], message);
    } else {
        printf("%zu appends, %zu reads of %zu events, %zu events: good\n", h.appends.count,
               h.reads.count, h.seen.count, h.log.count);
    }
    history_done(&h);
    free(text);
    return status;
}
