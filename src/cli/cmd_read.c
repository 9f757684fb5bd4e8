/* cmd_read.c - deedbook read: a stream, or the log. */
#include "cli/events.h"

/* Rows of one printing: wide enough columns for all of them, without keeping a whole log. */
#define PAGE_ROWS 1000
/* On a terminal nobody reads more; --limit asks for it. */
#define TERMINAL_LIMIT 1000

struct options {
    struct cli_target target;
    struct events_filter filter;
    bool limited;
};

static const struct argp_option option_list[] = {
    {"from", EVENTS_KEY_FROM, "REVISION", 0, "stream: begin at this revision (inclusive)", 0},
    {"after", EVENTS_KEY_AFTER, "POSITION", 0, "log: begin behind this position", 0},
    {"until", EVENTS_KEY_UNTIL, "POSITION", 0, "nothing behind this position", 0},
    {"limit", EVENTS_KEY_LIMIT, "COUNT", 0, "at most this many events (0: all)", 0},
    {"backwards", EVENTS_KEY_BACKWARDS, NULL, 0, "newest first", 0},
    {"removed", EVENTS_KEY_REMOVED, NULL, 0, "also events whose content was removed, marked so", 0},
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
    case EVENTS_KEY_LIMIT:
        o->limited = true;
        return events_range_parse(&o->filter, key, argument, state);
    case ARGP_KEY_ARG:
        cli_one(state, &o->filter.stream, "stream", argument);
        return 0;
    default:
        return events_range_parse(&o->filter, key, argument, state);
    }
}

static const struct argp read_argp = {
    .options = option_list,
    .parser = parse,
    .args_doc = "[STREAM]",
    .doc = "Read a stream, or without one the whole log, filtered.\v"
           "Examples:\n"
           "  deedbook read order-1001\n"
           "  deedbook read '$ce-order' --limit 10\n"
           "  deedbook read --type OrderShipped --backwards --limit 10\n"
           "  deedbook read --json --data ./data | wc -l",
    .children = events_children,
};

struct reading {
    const struct options *options;
    struct out_table *table;
    struct arena arena;
    uint64_t count;
};

static deed_status on_line(void *context, deed_str line, struct deed_error *err)
{
    struct reading *reading = context;
    reading->count++;
    if (reading->options->target.json) {
        fwrite(line.ptr, 1, line.len, stdout);
        putchar('\n');
        return ferror(stdout) ? deed_fail(err, DEED_IO, "standard output is gone") : DEED_OK;
    }
    struct events_view view;
    arena_reset(&reading->arena);
    deed_status status = events_parse(&reading->arena, line, true, &view, err);
    if (status != DEED_OK) return status;
    events_table_row(reading->table, &view);
    if (out_table_count(reading->table) == PAGE_ROWS && !out_table_print(reading->table, stdout)) {
        return deed_fail(err, DEED_NO_MEMORY, "no memory for the table");
    }
    return DEED_OK;
}

static deed_status run(struct options *o, struct deed_error *err)
{
    struct target *target = NULL;
    struct reading reading = {.options = o};
    bool capped = !o->limited && !o->target.json && out_is_terminal(stdout);
    if (capped) o->filter.limit = TERMINAL_LIMIT;
    arena_init(&reading.arena, REPLY_SIZE_MAX);
    reading.table = events_table_create();

    deed_status status = target_open(&o->target, TARGET_READS, &target, err);
    if (status != DEED_OK) goto done;
    status = events_read(target, &o->filter, on_line, &reading, err);
    if (!o->target.json && !out_table_print(reading.table, stdout) && status == DEED_OK) {
        status = deed_fail(err, DEED_NO_MEMORY, "no memory for the table");
    }
    if (status == DEED_OK && capped && reading.count == TERMINAL_LIMIT) {
        fprintf(stderr, "the first %d events; --limit 0 shows all\n", TERMINAL_LIMIT);
    }

done:
    target_close(target);
    out_table_destroy(reading.table);
    arena_done(&reading.arena);
    return status;
}

int cmd_read(int argc, char **argv)
{
    struct options options = {0};
    struct deed_error err = {0};
    cli_parse(&read_argp, argc, argv, &options);
    return cli_end(run(&options, &err), &err);
}
