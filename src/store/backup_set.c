/* backup_set.c - the manifest, and files that are named by their content.
 *
 *     {"format":1,"log_id":"…","epoch":1,"position":812,…,"files":[{"name":…,"size":…,"sha256":…}]}
 *     {"sha256":"…"}                                                            of the line above
 *
 * (1) The manifest is two lines. It is good when the second names the hash of the first.
 * (2) A file gets its name by rename when its bytes are synced: what has a hash in its name is
 *     whole, unless it rots.
 * (3) The manifest is replaced when every file that it names is durable under its name.
 *
 * Normative: docs/format/backup.md */
#include "store/backup_set.h"

#include "base/arena.h"
#include "base/planted.h"
#include "base/text.h"
#include "base/timetext.h"
#include "base/uuid.h"
#include "json/json.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#define BACKUP_FORMAT     1
#define MANIFEST_NEW      BACKUP_MANIFEST ".new"
#define MANIFEST_SIZE_MAX (UINT64_C(1) << 30)
#define COPY_SUFFIX       ".copy"
#define HASH_TEXT_SIZE    ((size_t)2 * SHA256_SIZE)

#define BUFFER_SIZE ((size_t)1 << 20)
/* If the target is on the log's own disk, the committer's sync waits behind what was not synced. */
#define SYNC_STEP_SIZE (UINT64_C(4) << 20)

static_assert(BUFFER_SIZE % OS_DIRECT_ALIGN == 0, "the device is read in these");

/* ---- the set -------------------------------------------------------------------------------- */

void backup_set_done(struct backup_set *set)
{
    free(set->files);
    *set = (struct backup_set){0};
}

struct backup_file *backup_set_add(struct backup_set *set, const char *name)
{
    assert(strlen(name) < BACKUP_FILE_NAME_SIZE);
    if (set->count == set->room) {
        size_t room = set->room == 0 ? 16 : set->room * 2;
        struct backup_file *grown = realloc(set->files, room * sizeof *grown);
        if (grown == NULL) return NULL;
        set->files = grown;
        set->room = room;
    }
    struct backup_file *file = &set->files[set->count++];
    *file = (struct backup_file){0};
    (void)snprintf(file->name, sizeof file->name, "%s", name);
    return file;
}

const struct backup_file *backup_set_find(const struct backup_set *set, const char *name)
{
    for (size_t i = 0; i < set->count; i++) {
        if (strcmp(set->files[i].name, name) == 0) return &set->files[i];
    }
    return NULL;
}

uint64_t backup_set_size(const struct backup_set *set)
{
    uint64_t size = 0;
    for (size_t i = 0; i < set->count; i++)
        size += set->files[i].size;
    return size;
}

/* ---- names ---------------------------------------------------------------------------------- */

static void hash_text(const uint8_t hash[SHA256_SIZE], char out[2 * SHA256_SIZE + 1])
{
    for (size_t i = 0; i < SHA256_SIZE; i++)
        (void)snprintf(out + 2 * i, 3, "%02x", hash[i]);
}

static bool hash_parse(deed_str text, uint8_t out[SHA256_SIZE])
{
    static const char digits[] = "0123456789abcdef";
    if (text.len != HASH_TEXT_SIZE) return false;
    for (size_t i = 0; i < text.len; i++) {
        const char *digit = text.ptr[i] == '\0' ? NULL : strchr(digits, text.ptr[i]);
        if (digit == NULL) return false;
        unsigned value = (unsigned)(digit - digits);
        out[i / 2] = (uint8_t)(i % 2 == 0 ? value << 4 : out[i / 2] | value);
    }
    return true;
}

void backup_entry_name(const char *name, const uint8_t hash[SHA256_SIZE],
                       char out[BACKUP_ENTRY_NAME_SIZE])
{
    char text[2 * SHA256_SIZE + 1];
    hash_text(hash, text);
    (void)snprintf(out, BACKUP_ENTRY_NAME_SIZE, "%s.%s", name, text);
}

bool backup_entry_parse(const char *entry, struct backup_file *out)
{
    size_t len = strlen(entry);
    if (len < HASH_TEXT_SIZE + 2 || len >= BACKUP_ENTRY_NAME_SIZE) return false;
    size_t name_len = len - HASH_TEXT_SIZE - 1;
    *out = (struct backup_file){0};
    if (entry[name_len] != '.' || name_len >= BACKUP_FILE_NAME_SIZE) return false;
    memcpy(out->name, entry, name_len);
    return hash_parse((deed_str){entry + name_len + 1, HASH_TEXT_SIZE}, out->hash);
}

bool backup_is_ours(const char *name)
{
    struct backup_file ignored;
    size_t len = strlen(name);
    bool copy =
        len > strlen(COPY_SUFFIX) && strcmp(name + len - strlen(COPY_SUFFIX), COPY_SUFFIX) == 0;
    return copy || strcmp(name, MANIFEST_NEW) == 0 || backup_entry_parse(name, &ignored);
}

/* ---- the manifest --------------------------------------------------------------------------- */

static void put_hash(struct json_writer *w, const char *key, const uint8_t hash[SHA256_SIZE])
{
    char text[2 * SHA256_SIZE + 1];
    hash_text(hash, text);
    json_member_text(w, key, deed_str_of(text));
}

static void put_time(struct json_writer *w, const char *key, int64_t time_ns)
{
    char text[TIME_TEXT_SIZE + 1];
    time_format(time_ns, text);
    json_member_text(w, key, deed_str_of(text));
}

static void manifest_encode(const struct backup_set *set, struct buf *out)
{
    struct json_writer w;
    char id[UUID_TEXT_SIZE + 1];
    uint8_t hash[SHA256_SIZE];
    uuid_format(set->log_id, id);
    json_writer_init(&w, out);
    json_object_begin(&w);
    json_member_uint(&w, "format", BACKUP_FORMAT);
    json_member_text(&w, "log_id", deed_str_of(id));
    json_member_uint(&w, "epoch", set->epoch);
    json_member_uint(&w, "position", set->position);
    put_time(&w, "recorded_at", set->recorded_at_ns);
    put_hash(&w, "chain_hash", set->chain_hash);
    json_member_uint(&w, "commits", set->commits);
    json_member_uint(&w, "events", set->events);
    put_time(&w, "made_at", set->made_at_ns);
    json_key(&w, DEED_STR("files"));
    json_array_begin(&w);
    for (size_t i = 0; i < set->count; i++) {
        json_object_begin(&w);
        json_member_text(&w, "name", deed_str_of(set->files[i].name));
        json_member_uint(&w, "size", set->files[i].size);
        put_hash(&w, "sha256", set->files[i].hash);
        json_object_end(&w);
    }
    json_array_end(&w);
    json_object_end(&w);

    deed_bytes line = buf_bytes(out); /* (1) */
    sha256(&line, 1, hash);
    buf_add_byte(out, '\n');
    json_writer_init(&w, out);
    json_object_begin(&w);
    put_hash(&w, "sha256", hash);
    json_object_end(&w);
    buf_add_byte(out, '\n');
}

static deed_status manifest_damaged(struct deed_error *err, const char *what)
{
    return deed_fail(err, DEED_CORRUPT, BACKUP_MANIFEST ": %s", what);
}

static bool get_hash(json_value object, const char *key, uint8_t out[SHA256_SIZE])
{
    return hash_parse(json_text(json_get(object, deed_str_of(key))), out);
}

static bool get_time(json_value object, const char *key, int64_t *out)
{
    deed_str text = json_text(json_get(object, deed_str_of(key)));
    return text.ptr != NULL && time_parse(text, out);
}

static bool get_uint(json_value object, const char *key, uint64_t *out)
{
    return json_uint64(json_get(object, deed_str_of(key)), out);
}

/* Not a name that would leave the log's directory, or that no log has. */
static bool name_good(deed_str name)
{
    if (name.len == 0 || name.len >= BACKUP_FILE_NAME_SIZE || name.ptr[0] == '.') return false;
    for (size_t i = 0; i < name.len; i++) {
        char c = name.ptr[i];
        bool good = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '.';
        if (!good) return false;
    }
    return true;
}

static deed_status files_decode(json_value list, struct backup_set *set, struct deed_error *err)
{
    for (struct json_iterator i = json_iterate(list); json_next(&i);) {
        char name[BACKUP_FILE_NAME_SIZE];
        deed_str text = json_text(json_get(i.value, DEED_STR("name")));
        if (text.ptr == NULL || !name_good(text)) {
            return manifest_damaged(err, "it names a file that no log has");
        }
        (void)snprintf(name, sizeof name, "%.*s", DEED_FMT(text));
        struct backup_file *file = backup_set_add(set, name);
        if (file == NULL) return deed_fail(err, DEED_NO_MEMORY, "backup: out of memory");
        if (!get_uint(i.value, "size", &file->size) || !get_hash(i.value, "sha256", file->hash)) {
            return manifest_damaged(err, "a file has no size or no hash");
        }
    }
    return DEED_OK;
}

static deed_status line_decode(deed_bytes line, struct arena *arena, struct backup_set *set,
                               struct deed_error *err)
{
    json_value root;
    uint64_t format = 0;
    deed_status status = json_parse(arena, line, 0, &root, err);
    if (status != DEED_OK)
        return status == DEED_NO_MEMORY ? status : manifest_damaged(err, "is no JSON");
    if (!get_uint(root, "format", &format)) return manifest_damaged(err, "has no format");
    if (format != BACKUP_FORMAT) {
        return deed_fail(err, DEED_TOO_NEW, BACKUP_MANIFEST ": format %llu, this program reads %d",
                         (unsigned long long)format, BACKUP_FORMAT);
    }
    deed_str id = json_text(json_get(root, DEED_STR("log_id")));
    bool good = id.ptr != NULL && uuid_parse(id, &set->log_id) &&
                get_uint(root, "epoch", &set->epoch) &&
                get_uint(root, "position", &set->position) &&
                get_time(root, "recorded_at", &set->recorded_at_ns) &&
                get_time(root, "made_at", &set->made_at_ns) &&
                get_hash(root, "chain_hash", set->chain_hash) &&
                get_uint(root, "commits", &set->commits) && get_uint(root, "events", &set->events);
    if (!good) return manifest_damaged(err, "lacks what a backup is");
    return files_decode(json_get(root, DEED_STR("files")), set, err);
}

static deed_status manifest_decode(deed_bytes bytes, struct backup_set *set, struct deed_error *err)
{
    uint8_t said[SHA256_SIZE], hash[SHA256_SIZE];
    struct arena arena;
    json_value seal;
    const uint8_t *newline = bytes.len == 0 ? NULL : memchr(bytes.ptr, '\n', bytes.len);
    if (newline == NULL) return manifest_damaged(err, "its second line is missing");
    deed_bytes line = {bytes.ptr, (size_t)(newline - bytes.ptr)};
    deed_bytes rest = {newline + 1, bytes.len - line.len - 1};

    arena_init(&arena, SIZE_MAX);
    deed_status status = json_parse(&arena, rest, 0, &seal, err);
    if (status == DEED_OK) {
        sha256(&line, 1, hash);
        if (!get_hash(seal, "sha256", said) || memcmp(said, hash, SHA256_SIZE) != 0) {
            status = manifest_damaged(err, "its hash does not match");
        }
    } else if (status != DEED_NO_MEMORY) {
        status = manifest_damaged(err, "its second line is damaged");
    }
    if (status == DEED_OK) status = line_decode(line, &arena, set, err);
    arena_done(&arena);
    return status;
}

/* All of a small file, from the device; malloc'd. */
static deed_status file_load(struct os_dir *dir, const char *name, uint8_t **out_bytes,
                             size_t *out_size, struct deed_error *err)
{
    struct os_file *file = NULL;
    uint64_t size = 0;
    size_t got = 0;
    uint8_t *bytes = NULL;
    deed_status status = os_file_open(dir, name, OS_READ | OS_DIRECT, &file, err);
    if (status == DEED_OK) status = os_file_size(file, &size, err);
    if (status == DEED_OK && size > MANIFEST_SIZE_MAX) {
        status = deed_fail(err, DEED_CORRUPT, "%s: %llu bytes is not its size", name,
                           (unsigned long long)size);
    }
    if (status == DEED_OK) {
        size = (size + OS_DIRECT_ALIGN) / OS_DIRECT_ALIGN * OS_DIRECT_ALIGN;
        bytes = malloc((size_t)size);
        if (bytes == NULL) status = deed_fail(err, DEED_NO_MEMORY, "%s: out of memory", name);
    }
    if (status == DEED_OK) status = os_file_read(file, 0, bytes, (size_t)size, &got, err);
    os_file_close(file);
    if (status != DEED_OK) {
        free(bytes);
        return status;
    }
    *out_bytes = bytes;
    *out_size = got;
    return DEED_OK;
}

static deed_status manifest_load(struct os_dir *dir, const char *name, struct backup_set *set,
                                 struct deed_error *err)
{
    uint8_t *bytes = NULL;
    size_t size = 0;
    deed_status status = file_load(dir, name, &bytes, &size, err);
    if (status != DEED_OK) return status;
    status = manifest_decode((deed_bytes){bytes, size}, set, err);
    free(bytes);
    if (status != DEED_OK) {
        deed_wrap(err, "%s", os_dir_path(dir));
        backup_set_done(set);
    }
    return status;
}

/* A power cut may undo the replacing and leave other bytes under the manifest's name (os_replace). The
 * new one is under its own then, and what it names is there. */
deed_status backup_set_load(struct os_dir *dir, struct backup_set *set, struct deed_error *err)
{
    deed_status status = manifest_load(dir, BACKUP_MANIFEST, set, err);
    if (status != DEED_CORRUPT) return status;
    set->unnamed = manifest_load(dir, MANIFEST_NEW, set, NULL) == DEED_OK;
    return set->unnamed ? DEED_OK : status;
}

deed_status backup_set_name(struct os_dir *dir, struct backup_set *set, struct deed_error *err)
{
    deed_status status =
        set->unnamed ? os_replace(dir, MANIFEST_NEW, BACKUP_MANIFEST, err) : DEED_OK;
    if (status == DEED_OK) set->unnamed = false;
    return status;
}

static deed_status manifest_read_back(struct os_dir *dir, deed_bytes wanted, struct deed_error *err)
{
    uint8_t *bytes = NULL;
    size_t size = 0;
    deed_status status = file_load(dir, MANIFEST_NEW, &bytes, &size, err);
    if (status != DEED_OK) return status;
    if (size != wanted.len || memcmp(bytes, wanted.ptr, size) != 0) {
        status = deed_fail(err, DEED_IO, "%s/" MANIFEST_NEW " reads back otherwise than written",
                           os_dir_path(dir));
    }
    free(bytes);
    return status;
}

deed_status backup_set_save(struct os_dir *dir, const struct backup_set *set,
                            struct deed_error *err)
{
    struct buf text;
    struct os_file *file = NULL;
    buf_init(&text, MANIFEST_SIZE_MAX);
    manifest_encode(set, &text);
    deed_status status =
        buf_ok(&text) ? DEED_OK : deed_fail(err, DEED_NO_MEMORY, "backup: out of memory");
    if (status == DEED_OK)
        status = os_file_open(dir, MANIFEST_NEW, OS_WRITE | OS_CREATE, &file, err);
    if (status == DEED_OK) status = os_file_truncate(file, 0, err);
    if (status == DEED_OK) status = os_file_write(file, 0, buf_bytes(&text), err);
    if (status == DEED_OK && !PLANTED(BACKUP_MANIFEST_UNSYNCED)) status = os_file_sync(file, err);
    os_file_close(file);
    if (status == DEED_OK) status = manifest_read_back(dir, buf_bytes(&text), err);
    if (status == DEED_OK) status = os_replace(dir, MANIFEST_NEW, BACKUP_MANIFEST, err);
    buf_done(&text);
    return status;
}

/* ---- files ---------------------------------------------------------------------------------- */

deed_status backup_work_init(struct backup_work *work, struct deed_error *err)
{
    *work = (struct backup_work){.buffer = malloc(BUFFER_SIZE)};
    return work->buffer != NULL ? DEED_OK : deed_fail(err, DEED_NO_MEMORY, "backup: out of memory");
}

void backup_work_done(struct backup_work *work)
{
    free(work->buffer);
    *work = (struct backup_work){0};
}

static deed_status tell(struct backup_work *work, size_t size, struct deed_error *err)
{
    work->done += size;
    if (work->all < work->done) work->all = work->done;
    if (work->progress == NULL || work->progress(work->context, work->done, work->all))
        return DEED_OK;
    return deed_fail(err, DEED_STOPPED, "stopped on request");
}

/* A sector that the device does not give back is zeros. */
static deed_status read_by_sector(struct backup_work *work, struct os_file *file, uint64_t offset,
                                  size_t want, size_t *out_got, struct deed_error *err)
{
    uint64_t size = 0;
    size_t at = 0;
    deed_status status = os_file_size(file, &size, err);
    if (status != DEED_OK) return status;
    uint64_t left = size > offset ? size - offset : 0;
    if (want > left) want = (size_t)left;
    while (at < want) {
        size_t step = want - at < OS_DIRECT_ALIGN ? want - at : OS_DIRECT_ALIGN;
        size_t got = 0;
        if (os_file_read(file, offset + at, work->buffer + at, step, &got, NULL) != DEED_OK)
            got = 0;
        memset(work->buffer + at + got, 0, step - got);
        at += step;
    }
    *out_got = want;
    return DEED_OK;
}

/* Read on to the end, or to size_max; write what was read to `to` unless NULL. */
static deed_status pass(struct backup_work *work, struct os_file *from, uint64_t size_max,
                        struct os_file *to, struct backup_file *out, struct deed_error *err)
{
    struct sha256_stream hash;
    uint64_t at = 0, synced = 0;
    deed_status status = DEED_OK;
    if (!sha256_begin(&hash)) return deed_fail(err, DEED_NO_MEMORY, "backup: out of memory");
    while (status == DEED_OK && at < size_max) {
        size_t want = size_max - at < BUFFER_SIZE ? (size_t)(size_max - at) : BUFFER_SIZE;
        size_t got = 0;
        status = os_file_read(from, at, work->buffer, want, &got, err);
        if (status == DEED_IO && work->forgiving) {
            status = read_by_sector(work, from, at, want, &got, err);
        }
        if (status != DEED_OK || got == 0) break;
        deed_bytes bytes = {work->buffer, got};
        sha256_add(&hash, bytes);
        if (to != NULL) status = os_file_write(to, at, bytes, err);
        at += got;
        if (to != NULL && status == DEED_OK && at - synced >= SYNC_STEP_SIZE) {
            status = os_file_sync(to, err);
            synced = at;
        }
        if (status == DEED_OK) status = tell(work, got, err);
        if (got < want) break;
    }
    out->size = at;
    sha256_end(&hash, out->hash);
    return status;
}

deed_status backup_copy(struct backup_work *work, struct os_file *from, uint64_t size_max,
                        struct os_dir *to, const char *name, struct backup_file *out,
                        struct deed_error *err)
{
    struct os_file *file = NULL;
    deed_status status = os_file_open(to, name, OS_WRITE | OS_CREATE, &file, err);
    if (status == DEED_OK) status = os_file_truncate(file, 0, err);
    if (status == DEED_OK) status = pass(work, from, size_max, file, out, err);
    if (status == DEED_OK && !PLANTED(BACKUP_UNSYNCED_COPY)) status = os_file_sync(file, err);
    os_file_close(file);
    return status;
}

deed_status backup_hash(struct backup_work *work, struct os_file *file, uint64_t size_max,
                        struct backup_file *out, struct deed_error *err)
{
    return pass(work, file, size_max, NULL, out, err);
}

deed_status backup_check(struct backup_work *work, struct os_dir *dir, const char *name,
                         const struct backup_file *wanted, struct deed_error *err)
{
    struct os_file *file = NULL;
    struct backup_file found = {0};
    struct deed_error why = {0};
    deed_status status = os_file_open(dir, name, OS_READ | OS_DIRECT, &file, &why);
    if (status == DEED_OK) status = pass(work, file, DEED_NONE, NULL, &found, &why);
    os_file_close(file);
    if (status == DEED_NO_MEMORY || status == DEED_STOPPED) {
        if (err != NULL) *err = why;
        return status;
    }
    if (status == DEED_NOT_FOUND) {
        return deed_fail(err, DEED_CORRUPT, "%s/%s is missing", os_dir_path(dir), name);
    }
    if (status != DEED_OK) {
        return deed_fail(err, DEED_CORRUPT, "%s cannot be read: %.300s", name, why.message);
    }
    if (found.size != wanted->size) {
        return deed_fail(err, DEED_CORRUPT, "%s/%s has %llu bytes instead of %llu",
                         os_dir_path(dir), name, (unsigned long long)found.size,
                         (unsigned long long)wanted->size);
    }
    if (memcmp(found.hash, wanted->hash, SHA256_SIZE) != 0) {
        return deed_fail(err, DEED_CORRUPT, "%s/%s is damaged: its hash does not match",
                         os_dir_path(dir), name);
    }
    return DEED_OK;
}
