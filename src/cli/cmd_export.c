/* cmd_export.c - deedbook export: events as NDJSON of CloudEvents.
 *
 * What an export holds, and what an import of it brings back to the byte:
 * docs/operations/running.md.
 *
 * (1) A file takes its name only when it is whole: it is written as NAME.part, synced, renamed. */
#include "cli/events.h"

#include "os/os.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <unistd.h>

struct options {
    struct cli_target target;
    struct events_filter filter;
    const char *output;
};

enum { KEY_OUTPUT = 'o' };

static const struct argp_option option_list[] = {
    {"output", KEY_OUTPUT, "FILE", 0, "write to this file, which appears when it is whole", 0},
    {"after", EVENTS_KEY_AFTER, "POSITION", 0, "begin behind this position", 0},
    {"until", EVENTS_KEY_UNTIL, "POSITION", 0, "nothing behind this position", 0},
    {"limit", EVENTS_KEY_LIMIT, "COUNT", 0, "at most this many events", 0},
    {0},
};

static error_t parse(int key, char *argument, struct argp_state *state)
{
    struct options *o = state->input;
    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &o->filter;
        state->child_inputs[1] = &o->target;
        return 0;
    case KEY_OUTPUT:
        o->output = argument;
        return 0;
    default:
        return events_range_parse(&o->filter, key, argument, state);
    }
}

static const struct argp_child children[] = {
    {&events_filter_argp, 0, "Which events:", 5},
    {&cli_target_argp, 0, "Where:", 10},
    {0},
};

static const struct argp export_argp = {
    .options = option_list,
    .parser = parse,
    .doc = "Write events to standard output or a file, one CloudEvent a line, in the log's order; "
           "`deedbook import` takes them in again. Without a filter everything goes out: also "
           "the streams whose name begins with $, but not the log's own first event. Events whose "
           "content was removed are left out, and counted at the end.\v"
           "Examples:\n"
           "  deedbook export --data ./data --output backup.ndjson\n"
           "  deedbook export --category order | gzip > orders.ndjson.gz",
    .children = children,
};

struct exporting {
    FILE *file;
    struct arena arena;
    struct out_progress progress;
    uint64_t count, position; /* of the last event that came whole */
    uint64_t removed;         /* events that are not in it, since the log does not hold them */
    uint64_t removed_first, removed_last;
};

/* The log's own events (its identity) belong to this log; the importing one has its own. */
static bool is_own(const struct events_view *view)
{
    return deed_str_equal(view->stream, DEED_STR("$log"));
}

static deed_status on_line(void *context, deed_str line, struct deed_error *err)
{
    struct exporting *exporting = context;
    struct events_view view;
    arena_reset(&exporting->arena);
    deed_status status = events_parse(&exporting->arena, line, false, &view, err);
    if (status != DEED_OK) return status;
    exporting->position = view.position;
    if (is_own(&view)) return DEED_OK;
    if (view.removed) {
        if (exporting->removed++ == 0) exporting->removed_first = view.position;
        exporting->removed_last = view.position;
        return DEED_OK;
    }
    if (fwrite(line.ptr, 1, line.len, exporting->file) != line.len ||
        fputc('\n', exporting->file) == EOF) {
        return deed_fail_errno(err, errno, "writing the export");
    }
    exporting->count++;
    out_progress_step(&exporting->progress, exporting->count);
    return DEED_OK;
}

static bool is_filtered(const struct events_filter *filter)
{
    return filter->types.count > 0 || filter->tags.count > 0 || filter->categories.count > 0 ||
           filter->streams.count > 0 || filter->correlations.count > 0;
}

static deed_status events_fetch(const struct options *o, struct exporting *exporting,
                                struct deed_error *err)
{
    struct target *target = NULL;
    struct events_filter filter = o->filter;
    filter.exact = filter.removed = true;
    if (!is_filtered(&filter)) filter.system = true;
    deed_status status = target_open(&o->target, TARGET_READS, &target, err);
    if (status == DEED_OK) {
        out_progress_start(&exporting->progress, "exporting", "events", 0);
        status = events_read(target, &filter, on_line, exporting, err);
        out_progress_stop(&exporting->progress);
        if (status != DEED_OK && exporting->position > 0) {
            deed_wrap(err, "behind position %" PRIu64, exporting->position);
        }
    }
    target_close(target);
    return status;
}

/* (1) */
static deed_status file_finish(FILE *file, const char *part, const char *name,
                               struct deed_error *err)
{
    if (fflush(file) != 0 || fsync(fileno(file)) != 0) {
        return deed_fail_errno(err, errno, "%s", part);
    }
    if (rename(part, name) != 0) return deed_fail_errno(err, errno, "%s", name);
    return DEED_OK;
}

static deed_status run(const struct options *o, struct deed_error *err)
{
    struct exporting exporting = {.file = stdout};
    char *part = NULL;
    deed_status status = DEED_OK;
    arena_init(&exporting.arena, REPLY_SIZE_MAX);
    if (o->output != NULL) {
        if (asprintf(&part, "%s.part", o->output) < 0) {
            part = NULL;
            status = deed_fail(err, DEED_NO_MEMORY, "no memory");
            goto done;
        }
        exporting.file = fopen(part, "wb");
        if (exporting.file == NULL) {
            status = deed_fail_errno(err, errno, "%s", part);
            goto done;
        }
    }
    status = events_fetch(o, &exporting, err);
    if (status == DEED_OK && fflush(exporting.file) != 0) {
        status = deed_fail_errno(err, errno, "writing the export");
    }
    if (o->output != NULL) {
        if (status == DEED_OK) status = file_finish(exporting.file, part, o->output, err);
        fclose(exporting.file);
        if (status != DEED_OK) (void)unlink(part);
    }
    if (status == DEED_OK && o->output != NULL) {
        char count[OUT_NUMBER_SIZE];
        fprintf(stderr, "%s events exported\n", out_count(exporting.count, count));
    }
    if (status == DEED_OK && exporting.removed > 0) {
        char count[OUT_NUMBER_SIZE];
        fprintf(stderr,
                "not in it: %s events between positions %" PRIu64 " and %" PRIu64
                ", whose content was removed from the log\n",
                out_count(exporting.removed, count), exporting.removed_first,
                exporting.removed_last);
    }

done:
    free(part);
    arena_done(&exporting.arena);
    return status;
}

int cmd_export(int argc, char **argv)
{
    struct options options = {0};
    struct deed_error err = {0};
    cli_parse(&export_argp, argc, argv, &options);
    return cli_end(run(&options, &err), &err);
}
