/* fuzz_backup.c - bytes as a backup's manifest: they are refused, or they say the same when they are
 * written again; and what is restored from them is never taken for a store.
 *
 *   flags (1), then the manifest; with the flag SEAL its second line is made, and right. */
#include "os/os_sim.h"
#include "store/backup.h"
#include "store/backup_set.h"
#include "fuzz/must.h"

#include <stdio.h>
#include <stdlib.h>

enum { SEAL = 1 };

#define BACKUP "/backup"
#define NEW    "/new"

static void put_manifest(struct os_dir *dir, deed_bytes line, uint8_t flags)
{
    struct os_file *file = NULL;
    char seal[100];
    uint8_t hash[SHA256_SIZE];
    must(os_file_open(dir, BACKUP_MANIFEST, OS_WRITE | OS_CREATE, &file, NULL) == DEED_OK, "a file");
    must(os_file_write(file, 0, line, NULL) == DEED_OK, "a write");
    if ((flags & SEAL) != 0) {
        int size = snprintf(seal, sizeof seal, "\n{\"sha256\":\"");
        sha256(&line, 1, hash);
        for (size_t i = 0; i < sizeof hash; i++) {
            size += snprintf(seal + size, sizeof seal - (size_t)size, "%02x", hash[i]);
        }
        size += snprintf(seal + size, sizeof seal - (size_t)size, "\"}\n");
        deed_bytes bytes = {(const uint8_t *)seal, (size_t)size};
        must(os_file_write(file, line.len, bytes, NULL) == DEED_OK, "a write");
    }
    must(os_file_sync(file, NULL) == DEED_OK && os_dir_sync(dir, NULL) == DEED_OK, "a sync");
    os_file_close(file);
}

static void must_be_equal(const struct backup_set *a, const struct backup_set *b)
{
    must(memcmp(&a->log_id, &b->log_id, sizeof a->log_id) == 0, "log id");
    must(a->epoch == b->epoch && a->position == b->position, "place");
    must(a->recorded_at_ns == b->recorded_at_ns && a->made_at_ns == b->made_at_ns, "times");
    must(memcmp(a->chain_hash, b->chain_hash, SHA256_SIZE) == 0, "chain");
    must(a->commits == b->commits && a->events == b->events && a->count == b->count, "counts");
    for (size_t i = 0; i < a->count; i++) {
        const struct backup_file *f = &a->files[i];
        const struct backup_file *g = &b->files[i];
        must(strcmp(f->name, g->name) == 0 && f->size == g->size, "a file");
        must(memcmp(f->hash, g->hash, SHA256_SIZE) == 0, "a file's hash");
        must(strchr(f->name, '/') == NULL && f->name[0] != '.', "a name that leaves the directory");
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct deed_error err;
    struct os_dir *dir = NULL;
    struct backup_set set = {0}, again = {0};
    struct store *store = NULL;
    struct store_options options = {.no_threads = true, .must_exist = true, .read_only = true};
    if (size == 0) return 0;
    struct os_sim *sim = os_sim_create(1, NULL);
    struct os *os = os_sim_os(sim);
    must(os_dir_open(os, BACKUP, true, &dir, NULL) == DEED_OK, "a folder");
    put_manifest(dir, (deed_bytes){data + 1, size - 1}, data[0]);

    deed_status restored = store_restore(os, BACKUP, NEW, NULL, NULL, &err);
    must(restored == DEED_CORRUPT || restored == DEED_TOO_NEW, "nothing is there to restore");
    must(store_open(os, NEW, &options, &store, &err) != DEED_OK, "it is no store");
    deed_status checked = store_check_backup(os, BACKUP, NULL, NULL, NULL, NULL, &err);
    must(checked != DEED_OK, "nothing is there to check");
    if (backup_set_load(dir, &set, &err) == DEED_OK) {
        must(backup_set_save(dir, &set, &err) == DEED_OK, "it can be written");
        must(backup_set_load(dir, &again, &err) == DEED_OK, "and read again");
        must_be_equal(&set, &again);
    }
    backup_set_done(&set);
    backup_set_done(&again);
    os_dir_close(dir);
    os_sim_destroy(sim);
    return 0;
}
