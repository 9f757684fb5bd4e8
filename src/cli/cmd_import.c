/* cmd_import.c - deedbook import: events from NDJSON of CloudEvents.
 *
 * Events go in as they are, in batches, each one append. Their ids make it safe to stop anywhere
 * and start again: what is stored already is found by its id and left alone.
 *
 * (1) A batch that was stored in part (the last time its borders lay elsewhere) is refused as a
 *     whole; it is halved until each part is all known or all new.
 * (2) A tombstone cannot be appended: the stream is closed in the same place instead.
 * (3) A line is checked before anything of its batch is sent, so that trouble has a line number. */
#include "cli/events.h"

#include "api/cloudevent.h"
#include "store/store.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* A batch is one commit, below the server's limits (32 MiB, 65,536 events) with room to spare. */
#define BATCH_COUNT_DEFAULT 1000
#define BATCH_COUNT_MAX     65536
#define BATCH_SIZE_MAX      ((size_t)8 << 20)

struct options {
    struct cli_target target;
    const char *file;
    uint64_t batch;
};

enum { KEY_BATCH = 'b' };

static const struct argp_option option_list[] = {
    {"batch", KEY_BATCH, "COUNT", 0, "events of one append (default 1000)", 0},
    {0},
};

static error_t parse(int key, char *argument, struct argp_state *state)
{
    struct options *o = state->input;
    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &o->target;
        return 0;
    case KEY_BATCH:
        o->batch = cli_number(state, "--batch", argument);
        if (o->batch < 1 || o->batch > BATCH_COUNT_MAX) {
            argp_error(state, "--batch: 1 to %d", BATCH_COUNT_MAX);
        }
        return 0;
    case ARGP_KEY_ARG:
        cli_one(state, &o->file, "file", argument);
        return 0;
    case ARGP_KEY_END:
        if (o->file == NULL) argp_error(state, "which file? (- for standard input)");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp import_argp = {
    .options = option_list,
    .parser = parse,
    .args_doc = "FILE",
    .doc = "Take in events from a file of CloudEvents, one JSON object a line, or from standard "
           "input (-). Ids, times, tags, metadata, correlation, causation, actor and data are kept "
           "to the byte; positions, revisions and the recording time are this log's own. An import "
           "that was cut short is finished by running it again.\v"
           "Examples:\n"
           "  deedbook import backup.ndjson --data ./data\n"
           "  zcat orders.ndjson.gz | deedbook import - --server http://127.0.0.1:2113",
    .children = cli_target_children,
};

struct importing {
    const struct options *options;
    struct target *target;
    struct arena arena;
    struct buf lines;    /* of the batch, without line ends */
    size_t *ends;        /* where each line of the batch ends in `lines` */
    size_t count;        /* lines of the batch */
    uint64_t first_line; /* number of the batch's first line in the file */
    uint64_t line, events, known, position;
    struct out_progress progress;
};

/* ---- sending ------------------------------------------------------------------------------------
 */

static deed_str batch_line(const struct importing *importing, size_t index)
{
    size_t from = index == 0 ? 0 : importing->ends[index - 1];
    return (deed_str){(const char *)importing->lines.ptr + from, importing->ends[index] - from};
}

/* Lines [from, to) as one append: {"…"},{"…"} in brackets. */
static deed_status range_send(struct importing *importing, size_t from, size_t to,
                              bool *out_repeated, struct deed_error *err)
{
    struct reply reply;
    struct buf body;
    struct arena arena;
    json_value answer;
    reply_init(&reply);
    buf_init(&body, importing->lines.len + 2 * importing->count + 16);
    arena_init(&arena, REPLY_SIZE_MAX);
    for (size_t i = from; i < to; i++) {
        buf_add_byte(&body, i == from ? '[' : ',');
        buf_add_str(&body, batch_line(importing, i));
    }
    buf_add_byte(&body, ']');
    struct request request = {.method = "POST",
                              .path = "/append",
                              .body = buf_bytes(&body),
                              .content_type = DEED_STR("application/cloudevents-batch+json")};
    deed_status status = buf_ok(&body) ? target_call(importing->target, &request, &reply, err)
                                       : deed_fail(err, DEED_NO_MEMORY, "no memory for a batch");
    if (status == DEED_OK) {
        status = json_parse(&arena, buf_bytes(&reply.body), 0, &answer, err);
    }
    if (status == DEED_OK) {
        *out_repeated = json_kind_of(json_get(answer, DEED_STR("repeated"))) == JSON_TRUE;
        (void)json_uint64(json_get(answer, DEED_STR("position")), &importing->position);
    }
    arena_done(&arena);
    buf_done(&body);
    reply_done(&reply);
    return status;
}

/* (1) Halving nests at most 17 deep: a batch has at most 65,536 lines. */
static deed_status range_import(struct importing *importing, size_t from, size_t to,
                                struct deed_error *err)
{
    bool repeated = false;
    deed_status status = range_send(importing, from, to, &repeated, err);
    if (status == DEED_OK && repeated) importing->known += to - from;
    if (status == DEED_OK) importing->events += to - from;
    if (status == DEED_CONFLICT && to - from > 1) {
        size_t middle = from + (to - from) / 2;
        status = range_import(importing, from, middle, err);
        if (status == DEED_OK) status = range_import(importing, middle, to, err);
        return status;
    }
    if (status != DEED_OK && to - from == 1) {
        deed_wrap(err, "line %" PRIu64, importing->first_line + from);
    } else if (status != DEED_OK) {
        deed_wrap(err, "lines %" PRIu64 " to %" PRIu64, importing->first_line + from,
                  importing->first_line + to - 1);
    }
    return status;
}

static deed_status batch_import(struct importing *importing, struct deed_error *err)
{
    if (importing->count == 0) return DEED_OK;
    deed_status status = range_import(importing, 0, importing->count, err);
    buf_reset(&importing->lines);
    importing->count = 0;
    out_progress_step(&importing->progress, importing->line);
    return status;
}

/* ---- reading ------------------------------------------------------------------------------------
 */

/* (2) A stream that is closed already was closed by an earlier run. */
static deed_status tombstone_import(struct importing *importing, const struct deed_new_event *event,
                                    struct deed_error *err)
{
    deed_status status = batch_import(importing, err);
    if (status != DEED_OK) return status;
    struct reply reply;
    struct url url;
    char actor[1024];
    reply_init(&reply);
    url_init(&url, "/streams");
    url_part_str(&url, event->stream);
    url_param(&url, "tombstone", "true");
    snprintf(actor, sizeof actor, "%.*s", DEED_FMT(event->actor));
    struct request request = {.method = "DELETE", .path = url_text(&url)};
    request_header(&request, "Deedbook-Actor", actor);
    status = target_call(importing->target, &request, &reply, err);
    if (status == DEED_DELETED) {
        importing->known++;
        status = DEED_OK;
    }
    if (status == DEED_OK) importing->events++;
    if (status != DEED_OK) deed_wrap(err, "line %" PRIu64, importing->line);
    url_done(&url);
    reply_done(&reply);
    return status;
}

/* (3) */
static deed_status line_take(struct importing *importing, deed_str line, struct deed_error *err)
{
    struct cloudevent event;
    arena_reset(&importing->arena);
    deed_status status = cloudevent_parse_text(&importing->arena, deed_bytes_of(line), 1000,
                                               (deed_str){0}, &event, err);
    if (status != DEED_OK) {
        deed_wrap(err, "line %" PRIu64, importing->line);
        return status;
    }
    if (deed_str_equal(event.event.type, DEED_STR(STORE_TOMBSTONE_TYPE))) {
        return tombstone_import(importing, &event.event, err);
    }
    bool full = importing->count == importing->options->batch ||
                importing->lines.len + line.len > BATCH_SIZE_MAX;
    if (full) status = batch_import(importing, err);
    if (status != DEED_OK) return status;
    if (importing->count == 0) importing->first_line = importing->line;
    buf_add_str(&importing->lines, line);
    importing->ends[importing->count++] = importing->lines.len;
    return buf_ok(&importing->lines)
               ? DEED_OK
               : deed_fail(err, DEED_TOO_LARGE, "line %" PRIu64 ": too large", importing->line);
}

static deed_status file_read(struct importing *importing, FILE *file, struct deed_error *err)
{
    char *text = NULL;
    size_t room = 0;
    deed_status status = DEED_OK;
    for (;;) {
        errno = 0;
        ssize_t size = getline(&text, &room, file);
        if (size < 0) break;
        importing->line++;
        while (size > 0 && strchr(" \t\r\n", text[size - 1]) != NULL)
            size--;
        if (size == 0) continue;
        status = line_take(importing, (deed_str){text, (size_t)size}, err);
        if (status != DEED_OK) break;
    }
    if (status == DEED_OK && ferror(file)) {
        status = deed_fail_errno(err, errno, "%s: read", importing->options->file);
    }
    free(text);
    /* What was read before a bad line is good, and stored. */
    if (status == DEED_OK) return batch_import(importing, err);
    struct deed_error ignored = {0};
    if (status == DEED_INVALID) (void)!batch_import(importing, &ignored);
    return status;
}

static void summary_print(const struct importing *importing)
{
    char events[OUT_NUMBER_SIZE], known[OUT_NUMBER_SIZE];
    if (importing->options->target.json) {
        printf("{\"events\":%" PRIu64 ",\"known\":%" PRIu64 ",\"position\":%" PRIu64 "}\n",
               importing->events, importing->known, importing->position);
        return;
    }
    printf("%s events, of which %s were stored already; position %" PRIu64 "\n",
           out_count(importing->events, events), out_count(importing->known, known),
           importing->position);
}

static deed_status run(const struct options *o, struct deed_error *err)
{
    struct importing importing = {.options = o};
    bool standard_input = strcmp(o->file, "-") == 0;
    FILE *file = standard_input ? stdin : fopen(o->file, "rb");
    if (file == NULL) return deed_fail_errno(err, errno, "%s", o->file);
    arena_init(&importing.arena, REPLY_SIZE_MAX);
    buf_init(&importing.lines, BATCH_SIZE_MAX + ((size_t)64 << 20));
    importing.ends = calloc(o->batch, sizeof *importing.ends);
    deed_status status = importing.ends == NULL
                             ? deed_fail(err, DEED_NO_MEMORY, "no memory for a batch")
                             : target_open(&o->target, TARGET_WRITES, &importing.target, err);
    if (status == DEED_OK) {
        out_progress_start(&importing.progress, "importing", "events", 0);
        status = file_read(&importing, file, err);
        out_progress_stop(&importing.progress);
        summary_print(&importing);
    }
    target_close(importing.target);
    free(importing.ends);
    buf_done(&importing.lines);
    arena_done(&importing.arena);
    if (!standard_input) fclose(file);
    return status;
}

int cmd_import(int argc, char **argv)
{
    struct options options = {.batch = BATCH_COUNT_DEFAULT};
    struct deed_error err = {0};
    cli_parse(&import_argp, argc, argv, &options);
    return cli_end(run(&options, &err), &err);
}
