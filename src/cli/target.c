/* target.c - where a subcommand works. */
#include "cli/target.h"

#include "cli/client.h"
#include "cli/local.h"
#include "cli/out.h"

#include <stdlib.h>

struct target {
    struct client *client; /* one of the two */
    struct local *local;
};

deed_status target_open(const struct cli_target *options, enum target_use use,
                        struct target **out_target, struct deed_error *err)
{
    struct target *target = calloc(1, sizeof *target);
    if (target == NULL) return deed_fail(err, DEED_NO_MEMORY, "no memory");
    deed_status status = options->data != NULL ? local_open(options, use, &target->local, err)
                                               : client_create(options->server, options->timeout_ms,
                                                               &target->client, err);
    if (status != DEED_OK) {
        free(target);
        return status;
    }
    *out_target = target;
    return DEED_OK;
}

void target_close(struct target *target)
{
    if (target == NULL) return;
    client_destroy(target->client);
    local_close(target->local);
    free(target);
}

struct local *target_local(struct target *target)
{
    return target->local;
}

deed_status target_call(struct target *target, const struct request *request, struct reply *reply,
                        struct deed_error *err)
{
    deed_status status = target->local != NULL ? local_call(target->local, request, reply, err)
                                               : client_call(target->client, request, reply, err);
    if (status != DEED_OK) return status;
    if (reply->status >= 200 && reply->status < 300) return DEED_OK;
    return reply_problem(reply->status, buf_bytes(&reply->body), err);
}

deed_status target_ask(const struct cli_target *options, enum target_use use,
                       const struct request *request, struct reply *reply, struct deed_error *err)
{
    struct target *target = NULL;
    deed_status status = target_open(options, use, &target, err);
    if (status == DEED_OK) status = target_call(target, request, reply, err);
    target_close(target);
    return status;
}

/* Parsed values come on top of the decoded texts of an answer. */
#define ANSWER_ARENA_MAX (2 * REPLY_SIZE_MAX)
/* Deeper than an event may be: an answer has events and states inside. */
#define ANSWER_DEPTH_MAX 1024

deed_status target_show(const struct cli_target *options, enum target_use use,
                        const struct request *request, target_answer *show, const void *context,
                        struct deed_error *err)
{
    struct reply reply;
    struct arena arena;
    json_value answer;
    reply_init(&reply);
    arena_init(&arena, ANSWER_ARENA_MAX);
    deed_status status = target_ask(options, use, request, &reply, err);
    if (status != DEED_OK) goto done;
    if (options->json) {
        out_body(buf_bytes(&reply.body));
        goto done;
    }
    status = json_parse(&arena, buf_bytes(&reply.body), ANSWER_DEPTH_MAX, &answer, err);
    if (status == DEED_OK) show(context, answer);

done:
    arena_done(&arena);
    reply_done(&reply);
    return status;
}

deed_status target_lines(struct target *target, const struct request *request, splitter_line *line,
                         void *context, struct deed_error *err)
{
    struct splitter splitter;
    splitter_init(&splitter, line, context);
    deed_status status = target->local != NULL
                             ? local_lines(target->local, request, &splitter, err)
                             : client_lines(target->client, request, &splitter, err);
    if (status == DEED_OK) status = splitter_end(&splitter, err);
    splitter_done(&splitter);
    return status == DEED_END ? DEED_OK : status;
}
