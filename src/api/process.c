/* process.c - read from /proc/self, through os as every file is. */
#include "api/process.h"

#include "base/text.h"
#include "os/os.h"

/* What the kernel promises to user space, whatever it ticks at itself (USER_HZ). */
#define TICKS_PER_SECOND 100

static bool file_text(struct os_dir *dir, const char *name, char *out, size_t room, deed_str *text)
{
    struct os_file *file = NULL;
    size_t size = 0;
    deed_status status = os_file_open(dir, name, OS_READ, &file, NULL);
    if (status == DEED_OK) status = os_file_read(file, 0, out, room, &size, NULL);
    os_file_close(file);
    *text = (deed_str){out, size};
    return status == DEED_OK;
}

/* "VmRSS:    1234 kB": the number behind the name, or 0. */
static uint64_t field_of(deed_str text, const char *name)
{
    const char *at = text.ptr, *end = text.ptr + text.len;
    size_t size = strlen(name);
    while (at < end) {
        const char *line_end = memchr(at, '\n', (size_t)(end - at));
        if (line_end == NULL) line_end = end;
        if ((size_t)(line_end - at) > size && memcmp(at, name, size) == 0 && at[size] == ':') {
            uint64_t value = 0;
            for (const char *c = at + size + 1; c < line_end; c++) {
                if (*c >= '0' && *c <= '9') value = value * 10 + (uint64_t)(*c - '0');
            }
            return value;
        }
        at = line_end + 1;
    }
    return 0;
}

/* Fields 14 and 15 of stat, counted behind the name in brackets, which may hold spaces. */
static double cpu_seconds(deed_str stat)
{
    size_t at = stat.len;
    while (at > 0 && stat.ptr[at - 1] != ')') at--;
    uint64_t ticks = 0, value = 0;
    unsigned field = 1; /* of what follows: a space first, so that the state is field 2 */
    for (; at < stat.len && field <= 14; at++) {
        char c = stat.ptr[at];
        if (c == ' ') {
            if (field == 13 || field == 14) ticks += value;
            field++;
            value = 0;
        } else if (c >= '0' && c <= '9') {
            value = value * 10 + (uint64_t)(c - '0');
        }
    }
    return (double)ticks / TICKS_PER_SECOND;
}

static void count_name(void *context, const char *name)
{
    (void)name;
    ++*(uint64_t *)context;
}

static uint64_t open_files(struct os_dir *self)
{
    struct os_dir *dir = NULL;
    uint64_t count = 0;
    if (os_dir_open_in(self, "fd", false, &dir, NULL) != DEED_OK) return 0;
    if (os_dir_list(dir, count_name, &count, NULL) != DEED_OK) count = 0;
    os_dir_close(dir);
    return count;
}

bool process_stats_get(struct process_stats *out)
{
    char memory[4096];
    deed_str text;
    struct os_dir *self = NULL;
    if (os_dir_open(os_real(), "/proc/self", false, &self, NULL) != DEED_OK) return false;

    *out = (struct process_stats){0};
    bool found = file_text(self, "status", memory, sizeof memory, &text);
    if (found) {
        out->resident_size = field_of(text, "VmRSS") * 1024;
        out->virtual_size = field_of(text, "VmSize") * 1024;
        out->threads = field_of(text, "Threads");
    }
    found = found && file_text(self, "stat", memory, sizeof memory, &text);
    if (found) out->cpu_seconds = cpu_seconds(text);
    out->open_files = open_files(self);
    os_dir_close(self);
    return found;
}
