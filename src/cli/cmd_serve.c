/* cmd_serve.c - deedbook serve: the options of server/config.h as a command line.
 *
 * (1) The table of config.h is the only list of options: what argp knows is made from it. */
#include "cli/cli.h"

#include "os/os.h"
#include "server/serve.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

extern char **environ;

enum { KEY_CONFIG = 0x400, KEY_FIRST = 0x1000 };

struct options {
    struct config config;
    const char *config_file;
    bool app_given;
};

static error_t parse(int key, char *argument, struct argp_state *state)
{
    struct options *o = state->input;
    struct deed_error err = {0};
    if (key >= KEY_FIRST && key < KEY_FIRST + CONFIG_OPTION_COUNT) {
        const struct config_option *option = &config_options[key - KEY_FIRST];
        if (config_set(&o->config, option->name, argument, CONFIG_FROM_COMMAND_LINE, &err) !=
            DEED_OK) {
            argp_error(state, "%s", err.message);
        }
        return 0;
    }
    switch (key) {
    case KEY_CONFIG:
        o->config_file = argument;
        return 0;
    case ARGP_KEY_ARG:
        if (o->app_given) argp_error(state, "one app folder, not also \"%s\"", argument);
        o->app_given = true;
        if (config_set(&o->config, "app", argument, CONFIG_FROM_COMMAND_LINE, &err) != DEED_OK) {
            argp_error(state, "%s", err.message);
        }
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

/* "(default 16KiB) request line and headers of one request" */
static char *help_make(const struct config_option *option)
{
    char *text = NULL;
    int size = option->initial[0] == '\0'
                   ? asprintf(&text, "%s", option->help)
                   : asprintf(&text, "%s (default %s)", option->help, option->initial);
    if (size < 0) exit(cli_fail(CLI_FAILED, "out of memory"));
    return text;
}

/* Lives as long as the process: argp keeps pointers into it. */
static const struct argp_option *options_make(void)
{
    static struct argp_option list[CONFIG_OPTION_COUNT + 2];
    list[0] = (struct argp_option){.name = "config",
                                   .key = KEY_CONFIG,
                                   .arg = "FILE",
                                   .doc = "read options from this file, as lines of key = value"};
    for (int i = 0; i < CONFIG_OPTION_COUNT; i++) {
        const struct config_option *option = &config_options[i];
        list[i + 1] = (struct argp_option){
            .name = option->name,
            .key = KEY_FIRST + i,
            .arg = option->type == CONFIG_BOOL ? "BOOL" : config_type_name(option->type),
            .flags = option->type == CONFIG_BOOL ? OPTION_ARG_OPTIONAL : 0,
            .doc = help_make(option),
        };
    }
    return list;
}

static void log_line(void *context, const char *line)
{
    (void)context;
    fprintf(stderr, "%s\n", line);
}

/* DEEDBOOK_SERVER is the other subcommands' variable; any other unknown one is likely a slip. */
static void warn_unknown(const struct config *config)
{
    for (size_t i = 0; i < config->unknown_variables.count; i++) {
        const char *name = config->unknown_variables.items[i];
        if (strcmp(name, "DEEDBOOK_SERVER") == 0 || strcmp(name, "DEEDBOOK_CONFIG") == 0) continue;
        fprintf(stderr, "deedbook: the environment has %s, which is no option\n", name);
    }
}

static deed_status run(struct options *o, struct deed_error *err)
{
    if (o->config_file == NULL) o->config_file = getenv("DEEDBOOK_CONFIG");
    if (o->config_file != NULL && o->config_file[0] != '\0') {
        deed_status status = config_load_file(&o->config, o->config_file, err);
        if (status != DEED_OK) return status;
    }
    deed_status status = config_load_environment(&o->config, environ, err);
    if (status != DEED_OK) return status;
    warn_unknown(&o->config);
    struct serve_options options = {.log = log_line};
    return serve_run(&o->config, &options, err);
}

int cmd_serve(int argc, char **argv)
{
    struct options options = {0};
    struct deed_error err = {0};
    deed_status status = config_init(&options.config, &err);
    if (status != DEED_OK) return cli_trouble(status, &err);
    const struct argp argp = {
        .options = options_make(),
        .parser = parse,
        .args_doc = "[APP_FOLDER]",
        .doc = "Serve a data directory, and an app's commands and queries, over HTTP until SIGTERM "
               "or SIGINT; KurrentDB's gRPC protocol is spoken on the same port. Without APP_FOLDER "
               "it is a plain event store. Each option may also "
               "stand in the file, or in the environment as DEEDBOOK_NAME; the command line wins "
               "over the environment, and that over the file.\v"
               "Examples:\n"
               "  deedbook serve examples/orders --data data/orders\n"
               "  DEEDBOOK_LISTEN=0.0.0.0:2113 deedbook serve --config /etc/deedbook.conf",
    };
    cli_parse(&argp, argc, argv, &options);
    status = run(&options, &err);
    config_done(&options.config);
    return cli_end(status, &err);
}
