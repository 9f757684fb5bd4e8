/* replace.c - a small file's content changes at one moment, a power cut or not. */
#include "os/os.h"

#include "base/planted.h"

deed_status os_replace(struct os_dir *dir, const char *from, const char *to, struct deed_error *err)
{
    struct os_file *old = NULL;
    /* Held, its bytes stay. */
    deed_status status =
        PLANTED(REPLACED_LET_GO) ? DEED_NOT_FOUND : os_file_open(dir, to, OS_READ, &old, err);
    if (status == DEED_NOT_FOUND) status = DEED_OK;
    if (status == DEED_OK && !PLANTED(BACKUP_UNSYNCED_NAMES)) status = os_dir_sync(dir, err);
    if (status == DEED_OK) status = os_rename(dir, from, to, err);
    if (status == DEED_OK) status = os_dir_sync(dir, err);
    os_file_close(old);
    return status;
}
