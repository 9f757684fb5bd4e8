/* cli.c - what every subcommand shares. */
#include "cli/cli.h"

#include "base/arena.h"
#include "base/buf.h"
#include "base/text.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

enum cli_exit cli_exit_of(deed_status status)
{
    switch (status) {
    case DEED_OK:
    case DEED_END:
        return CLI_OK;
    case DEED_MISUSE:
    case DEED_INVALID:
    case DEED_TOO_LARGE:
        return CLI_USAGE;
    case DEED_NOT_FOUND:
    case DEED_GONE:
    case DEED_DELETED:
        return CLI_NOT_FOUND;
    case DEED_CONFLICT:
    case DEED_STALE:
    case DEED_LOCKED:
        return CLI_CONFLICT;
    case DEED_TIMEOUT:
    case DEED_BUSY:
    case DEED_STOPPED:
        return CLI_UNAVAILABLE;
    case DEED_CORRUPT:
        return CLI_DAMAGE;
    case DEED_FULL:
    case DEED_IO:
    case DEED_UNKNOWN:
        return CLI_STORAGE;
    default:
        return CLI_FAILED;
    }
}

int cli_fail(enum cli_exit code, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fflush(stdout);
    fputs("deedbook: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    return (int)code;
}

int cli_trouble(deed_status status, const struct deed_error *err)
{
    const char *message = err->message[0] != '\0' ? err->message : deed_status_text(status);
    if (err->code[0] != '\0') {
        return cli_fail(cli_exit_of(status), "%s (%s)", message, err->code);
    }
    return cli_fail(cli_exit_of(status), "%s", message);
}

int cli_end(deed_status status, const struct deed_error *err)
{
    return status == DEED_OK ? CLI_OK : cli_trouble(status, err);
}

void cli_parse(const struct argp *argp, int argc, char **argv, void *input)
{
    static char name[64];
    snprintf(name, sizeof name, "deedbook %s", argv[0]);
    argv[0] = name;
    argp_err_exit_status = CLI_USAGE;
    argp_parse(argp, argc, argv, 0, NULL, input);
}

uint64_t cli_number(struct argp_state *state, const char *option, const char *text)
{
    uint64_t value = 0;
    if (!text_u64(deed_str_of(text), &value)) {
        argp_error(state, "%s: \"%s\" is not a whole number", option, text);
    }
    return value;
}

bool cli_duration_parse(const char *text, uint32_t *out_ms)
{
    static const struct {
        const char *name;
        uint64_t ms;
    } units[] = {{"ms", 1}, {"s", 1000}, {"", 1000}, {"m", 60000}, {"h", 3600000}};

    size_t digits = strspn(text, "0123456789");
    uint64_t count = 0;
    if (!text_u64((deed_str){text, digits}, &count)) return false;
    for (size_t i = 0; i < sizeof units / sizeof units[0]; i++) {
        if (strcmp(text + digits, units[i].name) != 0) continue;
        if (count > UINT32_MAX / units[i].ms) return false;
        *out_ms = (uint32_t)(count * units[i].ms);
        return true;
    }
    return false;
}

uint32_t cli_duration_ms(struct argp_state *state, const char *option, const char *text)
{
    uint32_t ms = 0;
    if (!cli_duration_parse(text, &ms)) {
        argp_error(state, "%s: \"%s\" is not a time like 500ms, 10s or 2m", option, text);
    }
    return ms;
}

void cli_one(struct argp_state *state, const char **place, const char *what, char *argument)
{
    if (*place != NULL) argp_error(state, "one %s, not also \"%s\"", what, argument);
    *place = argument;
}

/* What the command line says lives as long as the process: static, so that it stays in reach. */
static struct arena list_arena;

void cli_list_add(struct cli_list *list, const char *item)
{
    if (list->count == list->room) {
        if (list_arena.total_max == 0) arena_init(&list_arena, (size_t)64 << 20);
        size_t room = list->room == 0 ? 8 : 2 * list->room;
        const char **items = arena_alloc_array(&list_arena, room, sizeof *items);
        if (items == NULL) exit(cli_fail(CLI_FAILED, "out of memory"));
        if (list->count > 0) memcpy(items, list->items, list->count * sizeof *items);
        list->items = items;
        list->room = room;
    }
    list->items[list->count++] = item;
}

/* ---- bodies
 * --------------------------------------------------------------------------------------- */

static deed_status body_slurp(FILE *file, const char *name, size_t size_max, char **out_text,
                              size_t *out_size, struct deed_error *err)
{
    struct buf text;
    buf_init(&text, size_max + 1); /* one byte more tells "too large" from "just fits" */
    for (;;) {
        uint8_t *room = buf_reserve(&text, 1);
        if (room == NULL) break;
        size_t count = fread(room, 1, text.room - text.len, file);
        text.len += count;
        if (count == 0 || text.len > size_max) break;
    }
    deed_status status = DEED_OK;
    if (ferror(file)) {
        status = deed_fail_errno(err, errno, "%s: read", name);
    } else if (text.len > size_max) {
        status = deed_fail(err, DEED_TOO_LARGE, "%s: larger than %zu bytes", name, size_max);
    } else {
        *out_size = text.len;
        *out_text = buf_take(&text);
        if (*out_text == NULL) status = deed_fail(err, DEED_NO_MEMORY, "%s: no memory", name);
    }
    buf_done(&text);
    return status;
}

deed_status cli_body(const char *argument, size_t size_max, char **out_text, size_t *out_size,
                     struct deed_error *err)
{
    if (strcmp(argument, "-") == 0) {
        return body_slurp(stdin, "standard input", size_max, out_text, out_size, err);
    }
    if (argument[0] == '@') {
        FILE *file = fopen(argument + 1, "rb");
        if (file == NULL) return deed_fail_errno(err, errno, "%s", argument + 1);
        deed_status status = body_slurp(file, argument + 1, size_max, out_text, out_size, err);
        fclose(file);
        return status;
    }
    char *copy = strdup(argument);
    if (copy == NULL) return deed_fail(err, DEED_NO_MEMORY, "no memory");
    *out_size = strlen(copy);
    *out_text = copy;
    return DEED_OK;
}

/* ---- options that choose the target -------------------------------------------------------------
 */

enum { KEY_SERVER = 0x100, KEY_DATA, KEY_APP, KEY_TIMEOUT, KEY_JSON };

static const struct argp_option target_options[] = {
    {"server", KEY_SERVER, "URL", 0,
     "the server to talk to (default: $DEEDBOOK_SERVER, then " CLI_SERVER_DEFAULT ")", 0},
    {"data", KEY_DATA, "DIR", 0, "open this data directory itself, without a server", 0},
    {"app", KEY_APP, "DIR", 0, "with --data: the app folder (domain, projections, queries)", 0},
    {"timeout", KEY_TIMEOUT, "TIME", 0, "give up after this long (default 30s)", 0},
    {"json", KEY_JSON, NULL, 0, "print JSON", 0},
    {0},
};

static error_t target_parse(int key, char *argument, struct argp_state *state)
{
    struct cli_target *target = state->input;
    switch (key) {
    case ARGP_KEY_INIT:
        target->timeout_ms = CLI_TIMEOUT_DEFAULT_MS;
        return 0;
    case KEY_SERVER:
        target->server = argument;
        return 0;
    case KEY_DATA:
        target->data = argument;
        return 0;
    case KEY_APP:
        target->app = argument;
        return 0;
    case KEY_JSON:
        target->json = true;
        return 0;
    case KEY_TIMEOUT:
        target->timeout_ms = cli_duration_ms(state, "--timeout", argument);
        return 0;
    case ARGP_KEY_END:
        if (target->data != NULL && target->server != NULL) {
            argp_error(state, "--server and --data exclude each other");
        }
        if (target->app != NULL && target->data == NULL) {
            argp_error(state, "--app needs --data; a server has its own app");
        }
        if (target->server == NULL) target->server = getenv("DEEDBOOK_SERVER");
        if (target->server == NULL || target->server[0] == '\0') {
            target->server = CLI_SERVER_DEFAULT;
        }
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

const struct argp cli_target_argp = {.options = target_options, .parser = target_parse};
const struct argp_child cli_target_children[] = {
    {&cli_target_argp, 0, "Where, and how to print:", 10},
    {0},
};
