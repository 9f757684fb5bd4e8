/* backup_print.h - what a backup holds, as backup, restore and verify print it. */
#ifndef CLI_BACKUP_PRINT_H
#define CLI_BACKUP_PRINT_H

#include "deedbook.h"

/* A line of JSON, or lines of text that begin with `verb`, to stdout. */
void backup_print(const char *verb, const struct deed_backup_report *report, bool json);

#endif
