/* out.c - how answers look.
 *
 * (1) Every text that is not ours passes out_text or smartcols' own escaping.
 * (2) Progress is written to stderr only, and only if that is a terminal: a log file or a pipe gets
 *     nothing but the answer. */
#include "cli/out.h"

#include "os/os.h"

#include <inttypes.h>
#include <libsmartcols/libsmartcols.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

bool out_is_terminal(FILE *file)
{
    return isatty(fileno(file)) == 1;
}

static bool colours_wanted(FILE *file)
{
    const char *no_color = getenv("NO_COLOR");
    const char *term = getenv("TERM");
    if (no_color != NULL && no_color[0] != '\0') return false;
    if (term == NULL || strcmp(term, "dumb") == 0) return false;
    return out_is_terminal(file);
}

const char *out_start(FILE *file, enum out_colour colour)
{
    static const char *const sequences[] = {
        [OUT_PLAIN] = "",        [OUT_BOLD] = "\x1b[1m",   [OUT_DIM] = "\x1b[2m",
        [OUT_RED] = "\x1b[31m",  [OUT_GREEN] = "\x1b[32m", [OUT_YELLOW] = "\x1b[33m",
        [OUT_BLUE] = "\x1b[34m",
    };
    return colours_wanted(file) ? sequences[colour] : "";
}

const char *out_stop(FILE *file)
{
    return colours_wanted(file) ? "\x1b[0m" : "";
}

/* ---- text ---------------------------------------------------------------------------------------
 */

/* C0, DEL and, as UTF-8, C1: what a terminal might obey. */
static size_t control_size(deed_str text, size_t at)
{
    uint8_t byte = (uint8_t)text.ptr[at];
    if (byte < 0x20 || byte == 0x7f) return 1;
    if (byte != 0xc2 || text.len - at < 2) return 0;
    uint8_t next = (uint8_t)text.ptr[at + 1];
    return next >= 0x80 && next < 0xa0 ? 2 : 0;
}

void out_text_add(struct buf *buf, deed_str text)
{
    size_t from = 0;
    for (size_t at = 0; at < text.len;) {
        size_t size = control_size(text, at);
        if (size == 0) {
            at++;
            continue;
        }
        buf_add(buf, text.ptr + from, at - from);
        for (size_t i = 0; i < size; i++)
            buf_printf(buf, "\\x%02x", (uint8_t)text.ptr[at + i]);
        at += size;
        from = at;
    }
    if (text.len > from) buf_add(buf, text.ptr + from, text.len - from);
}

void out_text(FILE *file, deed_str text)
{
    struct buf safe;
    buf_init(&safe, 4 * text.len + 1);
    out_text_add(&safe, text);
    fwrite(safe.ptr, 1, safe.len, file);
    buf_done(&safe);
}

/* ---- JSON ---------------------------------------------------------------------------------------
 */

static void json_add_name(struct buf *buf, deed_str key)
{
    struct json_writer w;
    json_writer_init(&w, buf);
    json_put_text(&w, key);
}

void out_json_add(struct buf *buf, json_value value)
{
    enum json_kind kind = json_kind_of(value);
    if (kind != JSON_OBJECT && kind != JSON_ARRAY) {
        deed_str raw = json_raw(value);
        buf_add(buf, raw.ptr, raw.len);
        return;
    }
    buf_add_byte(buf, kind == JSON_OBJECT ? '{' : '[');
    for (struct json_iterator i = json_iterate(value); json_next(&i);) {
        if (i.index > 0) buf_add_byte(buf, ',');
        if (kind == JSON_OBJECT) {
            json_add_name(buf, i.key);
            buf_add_byte(buf, ':');
        }
        out_json_add(buf, i.value);
    }
    buf_add_byte(buf, kind == JSON_OBJECT ? '}' : ']');
}

/* What fits into a line of this many bytes is not broken up. */
#define JSON_LINE_SIZE 80

static void json_pretty(struct buf *buf, json_value value, int depth)
{
    enum json_kind kind = json_kind_of(value);
    size_t from = buf->len;
    out_json_add(buf, value);
    if (kind != JSON_OBJECT && kind != JSON_ARRAY) return;
    if (depth > 0 && buf->len - from <= JSON_LINE_SIZE) return;
    if (json_count(value) == 0) return;

    buf->len = from;
    buf_add_byte(buf, kind == JSON_OBJECT ? '{' : '[');
    for (struct json_iterator i = json_iterate(value); json_next(&i);) {
        buf_printf(buf, "%s\n%*s", i.index > 0 ? "," : "", 2 * (depth + 1), "");
        if (kind == JSON_OBJECT) {
            json_add_name(buf, i.key);
            buf_add_str(buf, DEED_STR(": "));
        }
        json_pretty(buf, i.value, depth + 1);
    }
    buf_printf(buf, "\n%*s", 2 * depth, "");
    buf_add_byte(buf, kind == JSON_OBJECT ? '}' : ']');
}

void out_json(FILE *file, json_value value)
{
    struct buf text;
    buf_init(&text, SIZE_MAX / 4);
    json_pretty(&text, value, 0);
    /* JSON escapes C0 itself; DEL and C1 may stand raw in a string. Line ends are ours. */
    for (size_t from = 0; from < text.len;) {
        const uint8_t *end = memchr(text.ptr + from, '\n', text.len - from);
        size_t size = end == NULL ? text.len - from : (size_t)(end - text.ptr) - from;
        out_text(file, (deed_str){(const char *)text.ptr + from, size});
        if (end != NULL) fputc('\n', file);
        from += size + 1;
    }
    fputc('\n', file);
    buf_done(&text);
}

void out_body(deed_bytes body)
{
    if (body.len == 0) return;
    fwrite(body.ptr, 1, body.len, stdout);
    if (body.ptr[body.len - 1] != '\n') putchar('\n');
}

/* ---- tables -------------------------------------------------------------------------------------
 */

struct out_table {
    struct libscols_table *table;
    struct libscols_line *line;
    size_t column, column_count, row_count;
    bool headed, failed;
};

struct out_table *out_table_create(const struct out_column *columns, size_t count)
{
    struct out_table *table = calloc(1, sizeof *table);
    if (table == NULL) return NULL;
    table->column_count = count;
    table->table = scols_new_table();
    table->failed = table->table == NULL;
    for (size_t i = 0; i < count && !table->failed; i++) {
        int flags = (columns[i].flags & OUT_RIGHT ? SCOLS_FL_RIGHT : 0) |
                    (columns[i].flags & OUT_CUT ? SCOLS_FL_TRUNC : 0);
        table->failed = scols_table_new_column(table->table, columns[i].heading, 0, flags) == NULL;
    }
    return table;
}

void out_table_destroy(struct out_table *table)
{
    if (table == NULL) return;
    scols_unref_table(table->table);
    free(table);
}

void out_table_row(struct out_table *table)
{
    if (table == NULL || table->failed) return;
    table->line = scols_table_new_line(table->table, NULL);
    table->failed = table->line == NULL;
    table->column = 0;
    table->row_count++;
}

void out_table_text(struct out_table *table, deed_str text)
{
    out_table_cell(table, "%.*s", DEED_FMT(text));
}

void out_table_cell(struct out_table *table, const char *format, ...)
{
    if (table == NULL || table->failed || table->column >= table->column_count) return;
    va_list arguments;
    va_start(arguments, format);
    char *text = NULL;
    int size = vasprintf(&text, format, arguments);
    va_end(arguments);
    if (size < 0) {
        table->failed = true;
        return;
    }
    /* The table takes the memory over. */
    table->failed = scols_line_refer_data(table->line, table->column++, text) != 0;
    if (table->failed) free(text);
}

size_t out_table_count(const struct out_table *table)
{
    return table == NULL ? 0 : table->row_count;
}

bool out_table_print(struct out_table *table, FILE *file)
{
    if (table == NULL || table->failed) return false;
    scols_table_set_stream(table->table, file);
    scols_table_enable_noheadings(table->table, table->headed);
    /* Into a file or a pipe nothing is cut: that width is not a screen's. */
    if (!out_is_terminal(file)) {
        scols_table_set_termforce(table->table, SCOLS_TERMFORCE_NEVER);
    }
    bool ok = table->row_count == 0 || scols_print_table(table->table) == 0;
    scols_table_remove_lines(table->table);
    table->headed = true;
    table->row_count = 0;
    return ok;
}

deed_status out_table_end(struct out_table *table, FILE *file, struct deed_error *err)
{
    bool ok = out_table_print(table, file);
    out_table_destroy(table);
    return ok ? DEED_OK : deed_fail(err, DEED_NO_MEMORY, "no memory for the table");
}

/* ---- progress -----------------------------------------------------------------------------------
 */

#define PROGRESS_EVERY_NS UINT64_C(100000000) /* ten times a second: smooth, and costs nothing */
#define PROGRESS_WIDTH    24

void out_progress_start(struct out_progress *progress, const char *what, const char *unit,
                        uint64_t all)
{
    *progress = (struct out_progress){.what = what,
                                      .unit = unit,
                                      .all = all,
                                      .started_ns = os_ticks_ns(os_real()),
                                      .shown_ns = os_ticks_ns(os_real()),
                                      .on = out_is_terminal(stderr)};
}

void out_progress_line(struct buf *out, const struct out_progress *progress, uint64_t done,
                       uint64_t elapsed_ns)
{
    char count[OUT_NUMBER_SIZE], rate_text[OUT_NUMBER_SIZE], left[OUT_NUMBER_SIZE];
    double seconds = (double)elapsed_ns / 1e9;
    double rate = seconds > 0 ? (double)done / seconds : 0;
    buf_printf(out, "%s  ", progress->what);
    if (progress->all > 0) {
        uint64_t most = done > progress->all ? progress->all : done;
        int share = (int)((double)most * 100 / (double)progress->all);
        int full = share * PROGRESS_WIDTH / 100;
        buf_add_byte(out, '[');
        for (int i = 0; i < PROGRESS_WIDTH; i++) {
            buf_add_byte(out, i < full ? '=' : i == full ? '>' : ' ');
        }
        buf_printf(out, "] %3d%%  ", share);
    }
    if (progress->unit != NULL) {
        buf_printf(out, "%s %s  %s/s  ", out_count(done, count), progress->unit,
                   out_count((uint64_t)rate, rate_text));
    }
    if (progress->all > done && rate > 0) {
        uint64_t wait = (uint64_t)((double)(progress->all - done) / rate) + 1;
        buf_printf(out, "%s left", out_seconds(wait, left));
    }
}

void out_progress_step(struct out_progress *progress, uint64_t done)
{
    if (!progress->on) return;
    uint64_t now = os_ticks_ns(os_real());
    if (now - progress->shown_ns < PROGRESS_EVERY_NS) return;
    progress->shown_ns = now;
    progress->shown = true;
    struct buf line;
    buf_init(&line, 512);
    out_progress_line(&line, progress, done, now - progress->started_ns);
    fprintf(stderr, "\r\x1b[K%.*s", DEED_FMT(buf_str(&line)));
    fflush(stderr);
    buf_done(&line);
}

void out_progress_stop(struct out_progress *progress)
{
    if (progress->shown) fputs("\r\x1b[K", stderr);
    progress->shown = progress->on = false;
}

/* ---- numbers ------------------------------------------------------------------------------------
 */

const char *out_count(uint64_t value, char out[OUT_NUMBER_SIZE])
{
    char digits[OUT_NUMBER_SIZE];
    size_t size = (size_t)snprintf(digits, sizeof digits, "%" PRIu64, value);
    size_t at = 0;
    for (size_t i = 0; i < size; i++) {
        if (i > 0 && (size - i) % 3 == 0) out[at++] = ',';
        out[at++] = digits[i];
    }
    out[at] = '\0';
    return out;
}

const char *out_size(uint64_t bytes, char out[OUT_NUMBER_SIZE])
{
    static const char *const units[] = {"KiB", "MiB", "GiB", "TiB", "PiB"};
    double value = (double)bytes / 1024;
    size_t unit = 0;
    while (value >= 1024 && unit + 1 < sizeof units / sizeof units[0]) {
        value /= 1024;
        unit++;
    }
    if (bytes < 1024) {
        snprintf(out, OUT_NUMBER_SIZE, "%" PRIu64 " B", bytes);
    } else {
        snprintf(out, OUT_NUMBER_SIZE, "%.1f %s", value, units[unit]);
    }
    return out;
}

const char *out_time(uint64_t ns, char out[OUT_NUMBER_SIZE])
{
    if (ns < 1000) {
        snprintf(out, OUT_NUMBER_SIZE, "%" PRIu64 " ns", ns);
    } else if (ns < 1000000) {
        snprintf(out, OUT_NUMBER_SIZE, "%.1f us", (double)ns / 1e3);
    } else if (ns < 1000000000) {
        snprintf(out, OUT_NUMBER_SIZE, "%.2f ms", (double)ns / 1e6);
    } else {
        snprintf(out, OUT_NUMBER_SIZE, "%.2f s", (double)ns / 1e9);
    }
    return out;
}

const char *out_seconds(uint64_t seconds, char out[OUT_NUMBER_SIZE])
{
    if (seconds < 60) {
        snprintf(out, OUT_NUMBER_SIZE, "%" PRIu64 "s", seconds);
    } else if (seconds < 3600) {
        snprintf(out, OUT_NUMBER_SIZE, "%" PRIu64 "m %02" PRIu64 "s", seconds / 60, seconds % 60);
    } else {
        snprintf(out, OUT_NUMBER_SIZE, "%" PRIu64 "h %02" PRIu64 "m", seconds / 3600,
                 seconds / 60 % 60);
    }
    return out;
}
