/* config.c - options from text.
 *
 * (1) `sources[i]` is the strongest source that has set option i; weaker ones are checked, then
 *     dropped.
 * (2) A list grows while values come from the source that it holds; the first value of a stronger
 *     one replaces it. */
#include "server/config.h"

#include "base/buf.h"
#include "base/text.h"
#include "os/os.h"

#include <assert.h>
#include <ctype.h>

const struct config_option config_options[] = {
#define CONFIG_ROW(field, option, kind, text, minimum, maximum, words)                     \
    {.name = option,                                                                       \
     .initial = text,                                                                      \
     .help = words,                                                                        \
     .type = CONFIG_##kind,                                                                \
     .low = minimum,                                                                       \
     .high = maximum,                                                                      \
     .offset = offsetof(struct config, field)},
    CONFIG_OPTION_MAP(CONFIG_ROW)
#undef CONFIG_ROW
};
static_assert(sizeof config_options / sizeof *config_options == CONFIG_OPTION_COUNT, "one each");

/* A file of options is short; a larger one is something else. */
#define CONFIG_FILE_SIZE_MAX (1 << 20)
#define CONFIG_ARENA_SIZE_MAX (4 << 20)

const char *config_type_name(enum config_type type)
{
    switch (type) {
    case CONFIG_TEXT:
        return "TEXT";
    case CONFIG_LIST:
        return "ADDRESS";
    case CONFIG_COUNT:
        return "N";
    case CONFIG_SIZE:
        return "SIZE";
    case CONFIG_DURATION:
        return "TIME";
    case CONFIG_BOOL:
        return NULL;
    }
    return NULL;
}

/* ---- values ------------------------------------------------------------------------------- */

struct unit {
    const char *name;
    uint64_t factor;
};
static const struct unit size_units[] = {{"", 1},          {"B", 1},          {"KiB", 1u << 10},
                                         {"MiB", 1u << 20}, {"GiB", 1u << 30}, {"K", 1u << 10},
                                         {"M", 1u << 20},   {"G", 1u << 30},   {NULL, 0}};
static const struct unit duration_units[] = {{"", 1000},   {"ms", 1},        {"s", 1000},
                                             {"m", 60000}, {"h", 3600000}, {NULL, 0}};
static const struct unit count_units[] = {{"", 1}, {NULL, 0}};

static deed_str trim(deed_str s)
{
    while (s.len > 0 && isspace((unsigned char)s.ptr[0])) s.ptr++, s.len--;
    while (s.len > 0 && isspace((unsigned char)s.ptr[s.len - 1])) s.len--;
    return s;
}

/* Digits, perhaps space, a unit. */
static bool quantity_parse(deed_str text, const struct unit *units, uint64_t *out)
{
    size_t digits = 0;
    while (digits < text.len && isdigit((unsigned char)text.ptr[digits])) digits++;
    uint64_t value;
    if (!text_u64((deed_str){text.ptr, digits}, &value)) return false;
    deed_str name = trim((deed_str){text.ptr + digits, text.len - digits});
    for (; units->name != NULL; units++) {
        if (!deed_str_equal(name, deed_str_of(units->name))) continue;
        return !__builtin_mul_overflow(value, units->factor, out);
    }
    return false;
}

static bool bool_parse(deed_str text, bool *out)
{
    static const struct {
        const char *word;
        bool value;
    } words[] = {{"true", true}, {"yes", true}, {"on", true},   {"1", true},
                 {"false", false}, {"no", false}, {"off", false}, {"0", false}};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        if (!deed_str_equal(text, deed_str_of(words[i].word))) continue;
        *out = words[i].value;
        return true;
    }
    return false;
}

static void *field_of(struct config *config, const struct config_option *option)
{
    return (char *)config + option->offset;
}

static deed_status number_set(struct config *config, const struct config_option *option,
                              deed_str text, bool store, struct deed_error *err)
{
    const struct unit *units = option->type == CONFIG_SIZE       ? size_units
                               : option->type == CONFIG_DURATION ? duration_units
                                                                 : count_units;
    const char *kind = option->type == CONFIG_SIZE       ? "a size such as 64MiB"
                       : option->type == CONFIG_DURATION ? "a time such as 500ms or 10s"
                                                         : "a number";
    const char *unit = option->type == CONFIG_SIZE       ? " bytes"
                       : option->type == CONFIG_DURATION ? " ms"
                                                         : "";
    uint64_t value;
    if (!quantity_parse(text, units, &value)) {
        return deed_fail(err, DEED_INVALID, "%s: \"%.*s\" is not %s", option->name, DEED_FMT(text),
                         kind);
    }
    if (value < option->low || value > option->high) {
        return deed_fail(err, DEED_INVALID, "%s: %.*s is not within %llu and %llu%s", option->name,
                         DEED_FMT(text), (unsigned long long)option->low,
                         (unsigned long long)option->high, unit);
    }
    if (store) *(uint64_t *)field_of(config, option) = value;
    return DEED_OK;
}

static deed_status text_set(struct config *config, const struct config_option *option,
                            deed_str text, bool store, bool append, struct deed_error *err)
{
    if (text.len < option->low || text.len > option->high) {
        return deed_fail(err, DEED_INVALID, "%s: %zu bytes, not within %llu and %llu",
                         option->name, text.len, (unsigned long long)option->low,
                         (unsigned long long)option->high);
    }
    if (!store) return DEED_OK;
    deed_str copy = arena_str(&config->arena, text);
    if (copy.ptr == NULL) return deed_fail(err, DEED_NO_MEMORY, "%s: out of memory", option->name);
    if (option->type == CONFIG_TEXT) {
        *(const char **)field_of(config, option) = copy.ptr;
        return DEED_OK;
    }
    struct config_list *list = field_of(config, option);
    if (!append) list->count = 0;
    if (list->count == CONFIG_LIST_MAX) {
        return deed_fail(err, DEED_INVALID, "%s: given more than %d times", option->name,
                         CONFIG_LIST_MAX);
    }
    list->items[list->count++] = copy.ptr;
    return DEED_OK;
}

static deed_status address_check(deed_str text, struct deed_error *err)
{
    struct arena arena;
    arena_init(&arena, 16384);
    deed_str copy = arena_str(&arena, text);
    const char *host;
    uint16_t port;
    deed_status status = copy.ptr == NULL ? deed_fail(err, DEED_NO_MEMORY, "out of memory")
                                          : config_address(copy.ptr, &arena, &host, &port, err);
    arena_done(&arena);
    return status;
}

static deed_status option_set(struct config *config, size_t index, deed_str text,
                              enum config_source source, struct deed_error *err)
{
    const struct config_option *option = &config_options[index];
    bool store = source >= config->sources[index];
    bool append = source == config->sources[index] && source != CONFIG_FROM_DEFAULT;
    deed_status status = DEED_OK;
    bool flag = true;

    switch (option->type) {
    case CONFIG_BOOL:
        if (!bool_parse(text, &flag)) {
            return deed_fail(err, DEED_INVALID, "%s: \"%.*s\" is neither true nor false",
                             option->name, DEED_FMT(text));
        }
        if (store) *(bool *)field_of(config, option) = flag;
        break;
    case CONFIG_TEXT:
        status = text_set(config, option, text, store, false, err);
        break;
    case CONFIG_LIST:
        status = address_check(text, err);
        if (status != DEED_OK) {
            deed_wrap(err, "%s", option->name);
        } else {
            status = text_set(config, option, text, store, append, err);
        }
        break;
    case CONFIG_COUNT:
    case CONFIG_SIZE:
    case CONFIG_DURATION:
        status = number_set(config, option, text, store, err);
        break;
    }
    if (status == DEED_OK && store) config->sources[index] = source;
    return status;
}

static size_t option_find(deed_str name)
{
    size_t i = 0;
    while (i < CONFIG_OPTION_COUNT && !deed_str_equal(deed_str_of(config_options[i].name), name)) {
        i++;
    }
    return i;
}

static deed_status named_set(struct config *config, deed_str name, deed_str value,
                             enum config_source source, struct deed_error *err)
{
    size_t index = option_find(name);
    if (index == CONFIG_OPTION_COUNT) {
        return deed_fail(err, DEED_INVALID, "no option \"%.*s\"", DEED_FMT(name));
    }
    return option_set(config, index, value, source, err);
}

/* ---- the public part ---------------------------------------------------------------------- */

deed_status config_init(struct config *config, struct deed_error *err)
{
    *config = (struct config){0};
    arena_init(&config->arena, CONFIG_ARENA_SIZE_MAX);
    for (size_t i = 0; i < CONFIG_OPTION_COUNT; i++) {
        deed_status status = option_set(config, i, deed_str_of(config_options[i].initial),
                                        CONFIG_FROM_DEFAULT, err);
        if (status != DEED_OK) {
            config_done(config);
            return status;
        }
    }
    return DEED_OK;
}

void config_done(struct config *config)
{
    arena_done(&config->arena);
}

deed_status config_set(struct config *config, const char *name, const char *value,
                       enum config_source source, struct deed_error *err)
{
    size_t index = option_find(deed_str_of(name));
    if (value == NULL && index < CONFIG_OPTION_COUNT && config_options[index].type != CONFIG_BOOL) {
        return deed_fail(err, DEED_INVALID, "%s: a value is missing", name);
    }
    return named_set(config, deed_str_of(name), deed_str_of(value == NULL ? "true" : value), source,
                     err);
}

static deed_status line_set(struct config *config, deed_str line, struct deed_error *err)
{
    line = trim(line);
    if (line.len == 0 || line.ptr[0] == '#') return DEED_OK;
    const char *sign = memchr(line.ptr, '=', line.len);
    if (sign == NULL) {
        return deed_fail(err, DEED_INVALID, "\"%.*s\" is not key = value", DEED_FMT(line));
    }
    deed_str name = trim((deed_str){line.ptr, (size_t)(sign - line.ptr)});
    deed_str value = trim((deed_str){sign + 1, (size_t)(line.ptr + line.len - sign) - 1});
    return named_set(config, name, value, CONFIG_FROM_FILE, err);
}

static deed_status file_read(const char *path, struct buf *out, struct deed_error *err)
{
    char folder[4096] = ".";
    const char *slash = strrchr(path, '/');
    if (slash != NULL) {
        size_t len = slash == path ? 1 : (size_t)(slash - path);
        if (len >= sizeof folder) return deed_fail(err, DEED_INVALID, "%.60s...: too long", path);
        memcpy(folder, path, len);
        folder[len] = '\0';
    }
    struct os_dir *dir = NULL;
    struct os_file *file = NULL;
    deed_status status = os_dir_open(os_real(), folder, false, &dir, err);
    if (status == DEED_OK) {
        status = os_file_open(dir, slash == NULL ? path : slash + 1, OS_READ, &file, err);
    }
    size_t size = 1;
    while (status == DEED_OK && size > 0 && out->len < CONFIG_FILE_SIZE_MAX) {
        uint8_t chunk[4096];
        status = os_file_read(file, out->len, chunk, sizeof chunk, &size, err);
        if (status == DEED_OK) buf_add(out, chunk, size);
    }
    os_file_close(file);
    os_dir_close(dir);
    if (status == DEED_OK && out->len >= CONFIG_FILE_SIZE_MAX) {
        status = deed_fail(err, DEED_TOO_LARGE, "%s: more than %d bytes", path,
                           CONFIG_FILE_SIZE_MAX);
    }
    return status;
}

deed_status config_load_file(struct config *config, const char *path, struct deed_error *err)
{
    struct buf text;
    buf_init(&text, 2 * CONFIG_FILE_SIZE_MAX);
    deed_status status = file_read(path, &text, err);
    deed_str rest = buf_str(&text);
    for (unsigned line = 1; status == DEED_OK && rest.len > 0; line++) {
        const char *end = memchr(rest.ptr, '\n', rest.len);
        size_t len = end == NULL ? rest.len : (size_t)(end - rest.ptr);
        status = line_set(config, (deed_str){rest.ptr, len}, err);
        if (status != DEED_OK) deed_wrap(err, "%s line %u", path, line);
        size_t taken = end == NULL ? len : len + 1;
        rest = (deed_str){rest.ptr + taken, rest.len - taken};
    }
    buf_done(&text);
    return status;
}

/* DEEDBOOK_BODY_SIZE_MAX=1MiB: the part between prefix and '=' as an option's name. */
static bool variable_split(const char *variable, char *name, size_t size, const char **out_value)
{
    static const char prefix[] = "DEEDBOOK_";
    if (strncmp(variable, prefix, sizeof prefix - 1) != 0) return false;
    const char *at = variable + sizeof prefix - 1;
    const char *sign = strchr(at, '=');
    if (sign == NULL || (size_t)(sign - at) >= size) return false;
    for (; at < sign; at++) *name++ = *at == '_' ? '-' : (char)tolower((unsigned char)*at);
    *name = '\0';
    *out_value = sign + 1;
    return true;
}

/* A list's values are separated by commas. */
static deed_status variable_set(struct config *config, size_t index, const char *value,
                                struct deed_error *err)
{
    deed_str rest = deed_str_of(value);
    deed_status status = DEED_OK;
    if (config_options[index].type != CONFIG_LIST) {
        return option_set(config, index, trim(rest), CONFIG_FROM_ENVIRONMENT, err);
    }
    for (bool more = true; more && status == DEED_OK;) {
        const char *comma = memchr(rest.ptr, ',', rest.len);
        size_t len = comma == NULL ? rest.len : (size_t)(comma - rest.ptr);
        status = option_set(config, index, trim((deed_str){rest.ptr, len}),
                            CONFIG_FROM_ENVIRONMENT, err);
        more = comma != NULL;
        if (more) rest = (deed_str){comma + 1, rest.len - len - 1};
    }
    return status;
}

deed_status config_load_environment(struct config *config, char *const *variables,
                                    struct deed_error *err)
{
    for (; *variables != NULL; variables++) {
        char name[64];
        const char *value;
        if (!variable_split(*variables, name, sizeof name, &value)) continue;
        size_t index = option_find(deed_str_of(name));
        deed_str variable = {*variables, (size_t)(value - *variables) - 1};
        if (index == CONFIG_OPTION_COUNT) {
            struct config_list *unknown = &config->unknown_variables;
            deed_str copy = arena_str(&config->arena, variable);
            if (copy.ptr == NULL) return deed_fail(err, DEED_NO_MEMORY, "out of memory");
            if (unknown->count < CONFIG_LIST_MAX) unknown->items[unknown->count++] = copy.ptr;
            continue;
        }
        deed_status status = variable_set(config, index, value, err);
        if (status != DEED_OK) {
            deed_wrap(err, "%.*s", DEED_FMT(variable));
            return status;
        }
    }
    return DEED_OK;
}

deed_status config_address(const char *text, struct arena *arena, const char **out_host,
                           uint16_t *out_port, struct deed_error *err)
{
    const char *colon = strrchr(text, ':');
    deed_str host = DEED_STR("127.0.0.1");
    deed_str port = deed_str_of(text);
    if (colon != NULL) {
        host = (deed_str){text, (size_t)(colon - text)};
        port = deed_str_of(colon + 1);
        bool bracketed = host.len >= 2 && host.ptr[0] == '[' && host.ptr[host.len - 1] == ']';
        if (bracketed) {
            host = (deed_str){host.ptr + 1, host.len - 2};
        } else if (memchr(host.ptr, ':', host.len) != NULL) {
            return deed_fail(err, DEED_INVALID,
                             "\"%s\" is not ADDRESS:PORT (an IPv6 address stands in brackets)",
                             text);
        }
    }
    uint64_t number;
    if (host.len == 0 || !text_u64(port, &number) || number > UINT16_MAX) {
        return deed_fail(err, DEED_INVALID, "\"%s\" is not ADDRESS:PORT", text);
    }
    deed_str copy = arena_str(arena, host);
    if (copy.ptr == NULL) return deed_fail(err, DEED_NO_MEMORY, "out of memory");
    *out_host = copy.ptr;
    *out_port = (uint16_t)number;
    return DEED_OK;
}
