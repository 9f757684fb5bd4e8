/* compaction.c - a job of the store's, seen from outside. */
#include "cli/compaction.h"

#include <inttypes.h>
#include <unistd.h>

#define POLL_US 100000u

struct standing {
    bool running, failed;
    uint64_t segments, done, rewritten, skipped, removed, before, after;
    char error[DEED_MESSAGE_SIZE];
};

static uint64_t number_of(json_value answer, const char *name)
{
    uint64_t number = 0;
    (void)json_uint64(json_get(answer, deed_str_of(name)), &number);
    return number;
}

static deed_status standing_read(const struct reply *reply, struct standing *out,
                                 struct deed_error *err)
{
    struct arena arena;
    json_value answer;
    arena_init(&arena, 1 << 20);
    deed_status status = json_parse(&arena, buf_bytes(&reply->body), 0, &answer, err);
    if (status == DEED_OK) {
        deed_str state = json_text(json_get(answer, DEED_STR("state")));
        *out = (struct standing){.running = deed_str_equal(state, DEED_STR("running")),
                                 .failed = deed_str_equal(state, DEED_STR("failed")),
                                 .segments = number_of(answer, "segments"),
                                 .done = number_of(answer, "segments_done"),
                                 .rewritten = number_of(answer, "rewritten"),
                                 .skipped = number_of(answer, "skipped"),
                                 .removed = number_of(answer, "events_removed"),
                                 .before = number_of(answer, "bytes_before"),
                                 .after = number_of(answer, "bytes_after")};
        (void)snprintf(out->error, sizeof out->error, "%.*s",
                       DEED_FMT(json_text(json_get(answer, DEED_STR("error")))));
    }
    arena_done(&arena);
    return status;
}

static deed_status standing_follow(struct target *target, const char *what, struct reply *reply,
                                   struct standing *standing, struct deed_error *err)
{
    struct out_progress progress;
    deed_status status = standing_read(reply, standing, err);
    out_progress_start(&progress, what, "segments", standing->segments);
    while (status == DEED_OK && standing->running) {
        struct request request = {.method = "GET", .path = "/compact"};
        progress.all = standing->segments;
        out_progress_step(&progress, standing->done);
        usleep(POLL_US);
        buf_reset(&reply->body);
        status = target_call(target, &request, reply, err);
        if (status == DEED_OK) status = standing_read(reply, standing, err);
    }
    out_progress_stop(&progress);
    return status;
}

static void standing_print(const struct standing *s)
{
    char removed[OUT_NUMBER_SIZE], segments[OUT_NUMBER_SIZE], rewritten[OUT_NUMBER_SIZE];
    char before[OUT_NUMBER_SIZE], after[OUT_NUMBER_SIZE];
    printf("%s events removed, %s of %s segments rewritten", out_count(s->removed, removed),
           out_count(s->rewritten, rewritten), out_count(s->segments, segments));
    if (s->rewritten > 0) {
        printf(": %s became %s", out_size(s->before, before), out_size(s->after, after));
    }
    putchar('\n');
    if (s->skipped > 0) {
        printf("%" PRIu64 " segments are damaged, and stay as they are: see deedbook verify\n",
               s->skipped);
    }
}

deed_status compaction_run(const struct cli_target *options, const struct request *request,
                           const char *what, bool no_wait, struct deed_error *err)
{
    struct target *target = NULL;
    struct reply reply;
    struct standing standing = {0};
    reply_init(&reply);
    /* A directory is opened to write, and must be there: as for queries. */
    deed_status status = target_open(options, TARGET_QUERIES, &target, err);
    if (status == DEED_OK) status = target_call(target, request, &reply, err);
    if (status == DEED_OK && !no_wait) {
        status = standing_follow(target, what, &reply, &standing, err);
    }
    if (status == DEED_OK && options->json) out_body(buf_bytes(&reply.body));
    if (status == DEED_OK && !no_wait && !standing.failed && !options->json) {
        standing_print(&standing);
    }
    if (status == DEED_OK && standing.failed) {
        status = deed_fail(err, DEED_STOPPED, "%s was given up: %s", what, standing.error);
    }
    target_close(target);
    reply_done(&reply);
    return status;
}
