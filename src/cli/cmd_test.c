/* cmd_test.c - deedbook test: an app's given/when/then tests. */
#include "cli/out.h"
#include "cli/cli.h"

#include "domain/given.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

struct options {
    const char *app;
    bool json, verbose;
};

enum { KEY_JSON = 0x300, KEY_VERBOSE = 'v' };

static const struct argp_option option_list[] = {
    {"json", KEY_JSON, NULL, 0, "print one JSON object a test", 0},
    {"verbose", KEY_VERBOSE, NULL, 0, "name passed tests too", 0},
    {0},
};

static error_t parse(int key, char *argument, struct argp_state *state)
{
    struct options *o = state->input;
    switch (key) {
    case KEY_JSON:
        o->json = true;
        return 0;
    case KEY_VERBOSE:
        o->verbose = true;
        return 0;
    case ARGP_KEY_ARG:
        cli_one(state, &o->app, "app folder", argument);
        return 0;
    case ARGP_KEY_END:
        if (o->app == NULL) argp_error(state, "which app folder?");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp test_argp = {
    .options = option_list,
    .parser = parse,
    .args_doc = "APP_FOLDER",
    .doc =
        "Run the given/when/then tests in APP_FOLDER/tests against the app's domain. No store and "
        "no server are needed.\v"
        "Example:\n"
        "  deedbook test examples/orders\n\n"
        "Exits with 1 if a test fails.",
};

static void result_json(const struct given_result *result)
{
    struct buf line;
    struct json_writer w;
    buf_init(&line, 1 << 20);
    json_writer_init(&w, &line);
    json_object_begin(&w);
    json_member_text(&w, "file", result->file);
    json_member_text(&w, "name", result->name);
    json_member_bool(&w, "passed", result->passed);
    if (!result->passed) json_member_text(&w, "difference", result->difference);
    json_member_uint(&w, "duration_ns", result->duration_ns);
    json_object_end(&w);
    printf("%.*s\n", DEED_FMT(buf_str(&line)));
    buf_done(&line);
}

static void difference_print(deed_str text)
{
    while (text.len > 0) {
        const char *end = memchr(text.ptr, '\n', text.len);
        size_t size = end == NULL ? text.len : (size_t)(end - text.ptr);
        enum out_colour colour = text.ptr[0] == '-'   ? OUT_RED
                                 : text.ptr[0] == '+' ? OUT_GREEN
                                                      : OUT_PLAIN;
        printf("    %s", out_start(stdout, colour));
        out_text(stdout, (deed_str){text.ptr, size});
        printf("%s\n", out_stop(stdout));
        if (end == NULL) break;
        text = (deed_str){text.ptr + size + 1, text.len - size - 1};
    }
}

static void on_result(void *context, const struct given_result *result)
{
    const struct options *o = context;
    if (o->json) {
        result_json(result);
        return;
    }
    if (result->passed && !o->verbose) return;
    printf("%s%s%s  ", out_start(stdout, result->passed ? OUT_GREEN : OUT_RED),
           result->passed ? "ok  " : "FAIL", out_stop(stdout));
    out_text(stdout, result->file);
    printf(": ");
    out_text(stdout, result->name);
    putchar('\n');
    if (!result->passed) difference_print(result->difference);
}

static deed_status run(struct options *o, struct given_summary *summary, struct deed_error *err)
{
    struct arena arena;
    struct domain_host *host = NULL;
    const char *path = NULL;
    char *folder = NULL;
    arena_init(&arena, 1 << 20);
    deed_status status = host_find_domain(o->app, &arena, &path, err);
    if (status == DEED_OK) status = host_worker(path, NULL, &host, err);
    if (status == DEED_OK && asprintf(&folder, "%s/tests", o->app) < 0) {
        folder = NULL;
        status = deed_fail(err, DEED_NO_MEMORY, "no memory");
    }
    if (status == DEED_OK) status = given_run_folder(host, folder, on_result, o, summary, err);
    host_close(host);
    free(folder);
    arena_done(&arena);
    return status;
}

int cmd_test(int argc, char **argv)
{
    struct options options = {0};
    struct given_summary summary = {0};
    struct deed_error err = {0};
    cli_parse(&test_argp, argc, argv, &options);
    deed_status status = run(&options, &summary, &err);
    if (status != DEED_OK) return cli_trouble(status, &err);
    if (!options.json) {
        printf("%" PRIu64 " passed, %" PRIu64 " failed\n", summary.passed, summary.failed);
    }
    return summary.failed > 0 ? CLI_FAILED : CLI_OK;
}
