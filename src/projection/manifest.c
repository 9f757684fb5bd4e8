/* manifest.c - three lines of text, the last one a checksum of the others:
 *
 *     deedbook projection 1
 *     generation 3
 *     crc32c 1b2c3d4e
 *
 * (1) The new text is synced before the rename, the directory after it. */
#include "projection/manifest.h"

#include "base/hash.h"
#include "base/text.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>

#define FORMAT_VERSION    1
#define MANIFEST_SIZE_MAX 128
#define MANIFEST_HEAD     "deedbook projection "
#define MANIFEST_CHECKSUM "crc32c "

void manifest_file_name(deed_str projection, bool temporary, uint64_t number,
                        char out[MANIFEST_FILE_NAME_SIZE])
{
    int len = snprintf(out, MANIFEST_FILE_NAME_SIZE, "%.*s.%c%" PRIu64 ".db", DEED_FMT(projection),
                       temporary ? 't' : 'g', number);
    assert(len > 0 && len < MANIFEST_FILE_NAME_SIZE);
    (void)len;
}

static bool cut_suffix(deed_str *s, deed_str suffix)
{
    if (s->len < suffix.len || memcmp(s->ptr + s->len - suffix.len, suffix.ptr, suffix.len) != 0) {
        return false;
    }
    s->len -= suffix.len;
    return true;
}

bool manifest_file_parse(deed_str file_name, struct manifest_entry *out_entry)
{
    deed_str s = file_name;
    (void)(cut_suffix(&s, DEED_STR("-wal")) || cut_suffix(&s, DEED_STR("-shm")) ||
           cut_suffix(&s, DEED_STR("-journal")));
    if (!cut_suffix(&s, DEED_STR(".db"))) return false;
    size_t digits = 0;
    while (digits < s.len && s.ptr[s.len - 1 - digits] >= '0' && s.ptr[s.len - 1 - digits] <= '9') {
        digits++;
    }
    uint64_t number = 0;
    if (!text_u64((deed_str){s.ptr + s.len - digits, digits}, &number)) return false;
    s.len -= digits;
    bool temporary = cut_suffix(&s, DEED_STR(".t"));
    if (!temporary && !cut_suffix(&s, DEED_STR(".g"))) return false;
    if (s.len == 0 || s.len >= MANIFEST_FILE_NAME_SIZE) return false;
    *out_entry = (struct manifest_entry){.temporary = temporary, .number = number};
    memcpy(out_entry->name, s.ptr, s.len);
    return true;
}

static void manifest_name(deed_str projection, const char *suffix,
                          char out[MANIFEST_FILE_NAME_SIZE])
{
    int len =
        snprintf(out, MANIFEST_FILE_NAME_SIZE, "%.*s.manifest%s", DEED_FMT(projection), suffix);
    assert(len > 0 && len < MANIFEST_FILE_NAME_SIZE);
    (void)len;
}

static size_t manifest_text(uint64_t version, uint64_t generation, char out[MANIFEST_SIZE_MAX])
{
    int len = snprintf(out, MANIFEST_SIZE_MAX,
                       MANIFEST_HEAD "%" PRIu64 "\ngeneration %" PRIu64 "\n", version, generation);
    assert(len > 0 && len < MANIFEST_SIZE_MAX);
    uint32_t sum = crc32c(0, (deed_bytes){(const uint8_t *)out, (size_t)len});
    len += snprintf(out + len, MANIFEST_SIZE_MAX - (size_t)len, MANIFEST_CHECKSUM "%08x\n", sum);
    assert(len < MANIFEST_SIZE_MAX);
    return (size_t)len;
}

/* What stands behind `label` on the line that begins with it. */
static bool line_number(deed_str *text, deed_str label, uint64_t *out)
{
    const char *end = text->len == 0 ? NULL : memchr(text->ptr, '\n', text->len);
    if (end == NULL || !str_starts_with(*text, label)) return false;
    size_t len = (size_t)(end - text->ptr);
    if (len < label.len) return false;
    deed_str number = {text->ptr + label.len, len - label.len};
    *text = (deed_str){end + 1, text->len - len - 1};
    return text_u64(number, out);
}

static deed_status manifest_parse(deed_str text, uint64_t *out_generation, struct deed_error *err)
{
    uint64_t version = 0, generation = 0;
    deed_str rest = text;
    if (line_number(&rest, DEED_STR(MANIFEST_HEAD), &version) && version > FORMAT_VERSION) {
        return deed_fail(err, DEED_TOO_NEW, "format %" PRIu64 ", this version reads up to %d",
                         version, FORMAT_VERSION);
    }
    if (line_number(&rest, DEED_STR("generation "), &generation)) {
        char expected[MANIFEST_SIZE_MAX];
        size_t len = manifest_text(version, generation, expected);
        if (deed_str_equal(text, (deed_str){expected, len})) {
            *out_generation = generation;
            return DEED_OK;
        }
    }
    return deed_fail(err, DEED_CORRUPT, "it is damaged");
}

deed_status manifest_read(struct os_dir *dir, deed_str projection, uint64_t *out_generation,
                          struct deed_error *err)
{
    char name[MANIFEST_FILE_NAME_SIZE], text[MANIFEST_SIZE_MAX + 1];
    manifest_name(projection, "", name);
    struct os_file *file = NULL;
    deed_status status = os_file_open(dir, name, OS_READ, &file, err);
    if (status != DEED_OK) return status;
    size_t len = 0;
    status = os_file_read(file, 0, text, sizeof text, &len, err);
    os_file_close(file);
    if (status != DEED_OK) return status;
    status = manifest_parse((deed_str){text, len}, out_generation, err);
    if (status != DEED_OK) deed_wrap(err, "%s/%s", os_dir_path(dir), name);
    return status;
}

static deed_status write_whole(struct os_dir *dir, const char *name, deed_bytes bytes,
                               struct deed_error *err)
{
    struct os_file *file = NULL;
    deed_status status = os_file_open(dir, name, OS_WRITE | OS_CREATE, &file, err);
    if (status != DEED_OK) return status;
    status = os_file_truncate(file, 0, err);
    if (status == DEED_OK) status = os_file_write(file, 0, bytes, err);
    if (status == DEED_OK) status = os_file_sync(file, err);
    os_file_close(file);
    return status;
}

deed_status manifest_write(struct os_dir *dir, deed_str projection, uint64_t generation,
                           struct deed_error *err)
{
    char name[MANIFEST_FILE_NAME_SIZE], fresh[MANIFEST_FILE_NAME_SIZE], text[MANIFEST_SIZE_MAX];
    manifest_name(projection, "", name);
    manifest_name(projection, ".new", fresh);
    size_t len = manifest_text(FORMAT_VERSION, generation, text);
    deed_status status = write_whole(dir, fresh, (deed_bytes){(const uint8_t *)text, len}, err);
    return status == DEED_OK ? os_replace(dir, fresh, name, err) : status;
}

void manifest_remove_database(struct os_dir *dir, const char *file_name)
{
    static const char *const suffixes[] = {"", "-wal", "-shm", "-journal"};
    for (size_t i = 0; i < sizeof suffixes / sizeof suffixes[0]; i++) {
        char name[MANIFEST_FILE_NAME_SIZE + 16];
        (void)snprintf(name, sizeof name, "%s%s", file_name, suffixes[i]);
        /* What stays is removed when the projections are opened again. */
        (void)!os_remove(dir, name, NULL);
    }
}
