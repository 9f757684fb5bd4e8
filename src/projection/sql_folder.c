/* sql_folder.c - list, sort, read. */
#include "projection/sql_folder.h"

#include "base/text.h"
#include "projection/sql_text.h"

#include <stdlib.h>

/* An app's folder is written by hand. */
#define FOLDER_FILE_COUNT_MAX 1000

struct listing {
    struct arena *arena;
    struct sql_folder_file files[FOLDER_FILE_COUNT_MAX];
    size_t count;
    bool no_memory, too_many;
};

static void take_name(void *context, const char *name)
{
    struct listing *listing = context;
    deed_str s = deed_str_of(name);
    /* Editors keep their own files beside: ".x.sql.swp" does not end so, ".x.sql" begins so. */
    if (s.len <= 4 || s.ptr[0] == '.' || strcmp(name + s.len - 4, ".sql") != 0) return;
    listing->too_many |= listing->count == FOLDER_FILE_COUNT_MAX;
    if (listing->too_many) return;
    deed_str copy = arena_str(listing->arena, s);
    if (copy.ptr == NULL) {
        listing->no_memory = true;
        return;
    }
    listing->files[listing->count++] = (struct sql_folder_file){.name = copy};
}

static int compare_files(const void *a, const void *b)
{
    const struct sql_folder_file *x = a, *y = b;
    return str_compare(x->name, y->name);
}

static deed_status read_file(struct os_dir *dir, struct arena *arena, struct sql_folder_file *file,
                             struct deed_error *err)
{
    struct os_file *handle = NULL;
    deed_status status = os_file_open(dir, file->name.ptr, OS_READ, &handle, err);
    if (status != DEED_OK) return status;
    uint64_t size = 0;
    status = os_file_size(handle, &size, err);
    if (status == DEED_OK && size > SQL_TEXT_SIZE_MAX) {
        status = deed_fail(err, DEED_TOO_LARGE, "%s: %llu bytes, limit %u", file->name.ptr,
                           (unsigned long long)size, SQL_TEXT_SIZE_MAX);
    }
    char *text = status == DEED_OK ? arena_alloc(arena, (size_t)size + 1) : NULL;
    if (status == DEED_OK && text == NULL) {
        status = deed_fail(err, DEED_NO_MEMORY, "%s: no memory", file->name.ptr);
    }
    size_t len = 0;
    if (status == DEED_OK) status = os_file_read(handle, 0, text, (size_t)size, &len, err);
    os_file_close(handle);
    if (status == DEED_OK) file->text = (deed_str){text, len};
    return status;
}

static deed_status read_listed(struct os_dir *dir, struct arena *arena, struct listing *listing,
                               struct deed_error *err)
{
    deed_status status = os_dir_list(dir, take_name, listing, err);
    if (status != DEED_OK) return status;
    if (listing->no_memory) return deed_fail(err, DEED_NO_MEMORY, "no memory for a folder");
    if (listing->too_many) {
        return deed_fail(err, DEED_TOO_LARGE, "%s: more than %d *.sql files", os_dir_path(dir),
                         FOLDER_FILE_COUNT_MAX);
    }
    qsort(listing->files, listing->count, sizeof listing->files[0], compare_files);
    for (size_t i = 0; i < listing->count; i++) {
        struct sql_folder_file *file = &listing->files[i];
        struct deed_error why = {0};
        file->status = read_file(dir, arena, file, &why);
        if (file->status == DEED_OK) continue;
        if (file->status == DEED_NOT_FOUND) file->status = DEED_IO; /* the folder is there */
        file->message = arena_str(arena, deed_str_of(why.message));
        if (file->status == DEED_NO_MEMORY || file->message.ptr == NULL) {
            return deed_fail(err, DEED_NO_MEMORY, "%s", why.message);
        }
    }
    return DEED_OK;
}

deed_status sql_folder_read(struct os *os, const char *folder, struct arena *arena,
                            struct sql_folder_file **out_files, size_t *out_count,
                            struct deed_error *err)
{
    struct listing *listing = arena_alloc(arena, sizeof *listing);
    if (listing == NULL) return deed_fail(err, DEED_NO_MEMORY, "no memory for a folder");
    listing->arena = arena;
    struct os_dir *dir = NULL;
    deed_status status = os_dir_open(os, folder, false, &dir, err);
    if (status != DEED_OK && status != DEED_NOT_FOUND) return status;
    if (status == DEED_OK) status = read_listed(dir, arena, listing, err);
    os_dir_close(dir);
    if (status == DEED_NOT_FOUND) status = DEED_OK;
    if (status != DEED_OK) return status;
    *out_files = listing->files;
    *out_count = listing->count;
    return DEED_OK;
}
