/* cmd_metadata.c - deedbook metadata: how long a stream is kept, and what else is said of it.
 *
 * (1) Options change members and leave the others: what is there is read, changed, and written back
 *     on condition that nobody else did meanwhile. */
#include "cli/out.h"
#include "cli/target.h"

#include "base/text.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define DEPTH_MAX 1024

/* A member that an option sets; "none" takes it out. */
struct change {
    const char *member;
    bool given, remove;
    uint64_t value;
};
enum { CHANGE_MAX_AGE, CHANGE_MAX_COUNT, CHANGE_TRUNCATE, CHANGE_COUNT };

struct options {
    struct cli_target target;
    const char *stream, *body, *expected, *actor;
    struct change changes[CHANGE_COUNT];
};

enum {
    KEY_EXPECTED = 'e',
    KEY_MAX_AGE = 0x300,
    KEY_MAX_COUNT,
    KEY_TRUNCATE,
    KEY_ACTOR,
};

static const struct argp_option option_list[] = {
    {"max-age", KEY_MAX_AGE, "TIME", 0, "hide events older than this: 90s, 12h, 30d; none", 0},
    {"max-count", KEY_MAX_COUNT, "COUNT", 0, "show only so many of the newest events; none", 0},
    {"truncate-before", KEY_TRUNCATE, "REVISION", 0, "hide events below this revision; none", 0},
    {"expected", KEY_EXPECTED, "REVISION", 0,
     "replace it only if its last revision is this; or none, exists, any (default)", 0},
    {"actor", KEY_ACTOR, "NAME", 0, "who did it", 0},
    {0},
};

static const char *const option_names[CHANGE_COUNT] = {"--max-age", "--max-count",
                                                       "--truncate-before"};

/* "30d" in seconds. */
static bool age_parse(const char *text, uint64_t *out_seconds)
{
    static const struct {
        char unit;
        uint64_t seconds;
    } units[] = {{'s', 1}, {'m', 60}, {'h', 3600}, {'d', 86400}};
    size_t len = strlen(text);
    uint64_t factor = 1;
    for (size_t i = 0; len > 0 && i < sizeof units / sizeof units[0]; i++) {
        if (text[len - 1] != units[i].unit) continue;
        factor = units[i].seconds;
        len--;
        break;
    }
    uint64_t number;
    if (!text_u64((deed_str){text, len}, &number) || number > UINT64_MAX / factor) return false;
    *out_seconds = number * factor;
    return true;
}

static void change_take(struct options *o, size_t which, char *argument, struct argp_state *state)
{
    struct change *change = &o->changes[which];
    change->given = true;
    change->remove = strcmp(argument, "none") == 0;
    if (change->remove) return;
    bool good = which == CHANGE_MAX_AGE ? age_parse(argument, &change->value)
                                        : text_u64(deed_str_of(argument), &change->value);
    if (!good) {
        argp_error(state, "%s: \"%s\" is neither a %s nor none", option_names[which], argument,
                   which == CHANGE_MAX_AGE ? "time (90s, 12h, 30d)" : "whole number");
    }
}

static bool changes_given(const struct options *o)
{
    for (size_t i = 0; i < CHANGE_COUNT; i++) {
        if (o->changes[i].given) return true;
    }
    return false;
}

static error_t parse(int key, char *argument, struct argp_state *state)
{
    struct options *o = state->input;
    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &o->target;
        return 0;
    case KEY_MAX_AGE:
        change_take(o, CHANGE_MAX_AGE, argument, state);
        return 0;
    case KEY_MAX_COUNT:
        change_take(o, CHANGE_MAX_COUNT, argument, state);
        return 0;
    case KEY_TRUNCATE:
        change_take(o, CHANGE_TRUNCATE, argument, state);
        return 0;
    case KEY_EXPECTED:
        o->expected = argument;
        return 0;
    case KEY_ACTOR:
        o->actor = argument;
        return 0;
    case ARGP_KEY_ARG:
        if (state->arg_num == 0) o->stream = argument;
        if (state->arg_num == 1) o->body = argument;
        if (state->arg_num > 1) {
            argp_error(state, "more than a stream and a body: \"%s\"", argument);
        }
        return 0;
    case ARGP_KEY_END:
        if (o->stream == NULL) argp_error(state, "which stream?");
        if (o->body != NULL && changes_given(o)) {
            argp_error(state, "a body replaces all of it, options change members: not both");
        }
        if (o->body == NULL && o->expected != NULL) {
            argp_error(state, "--expected is for a body; options see to it themselves");
        }
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp metadata_argp = {
    .options = option_list,
    .parser = parse,
    .args_doc = "STREAM [BODY]",
    .doc = "Show a stream's metadata, replace it by BODY (a JSON object: text, @FILE, or - for "
           "standard input), or change single members of it. $maxAge (seconds), $maxCount and $tb "
           "hide events from reads of the stream at once; other members are yours.\v"
           "Examples:\n"
           "  deedbook metadata order-1\n"
           "  deedbook metadata session-7 --max-age 30d --max-count none\n"
           "  deedbook metadata order-1 '{\"$maxCount\":100,\"owner\":\"anna\"}' --expected none",
    .children = cli_target_children,
};

static void metadata_url(struct url *url, const char *stream)
{
    url_init(url, "/streams");
    url_part(url, stream);
    url_part(url, "metadata");
}

static void metadata_show(const void *context, json_value answer)
{
    (void)context;
    json_value revision = json_get(answer, DEED_STR("revision"));
    printf("%s", out_start(stdout, OUT_DIM));
    out_text(stdout, json_text(json_get(answer, DEED_STR("stream"))));
    if (json_kind_of(revision) == JSON_NULL) {
        printf("  no metadata%s\n", out_stop(stdout));
        return;
    }
    printf("  metadata revision %.*s%s\n", DEED_FMT(json_raw(revision)), out_stop(stdout));
    out_json(stdout, json_get(answer, DEED_STR("metadata")));
}

static void written_show(const void *context, json_value answer)
{
    const struct options *o = context;
    printf("%s  metadata revision %.*s  position %.*s\n", o->stream,
           DEED_FMT(json_raw(json_get(answer, DEED_STR("revision")))),
           DEED_FMT(json_raw(json_get(answer, DEED_STR("position")))));
}

static deed_status metadata_write(const struct options *o, const char *expected, deed_bytes body,
                                  struct deed_error *err)
{
    struct url url;
    metadata_url(&url, o->stream);
    url_param(&url, "expected", expected);
    struct request request = {.method = "POST", .path = url_text(&url), .body = body};
    request_header(&request, "Deedbook-Actor", o->actor);
    deed_status status =
        target_show(&o->target, TARGET_WRITES, &request, written_show, o, err);
    url_done(&url);
    return status;
}

static const struct change *change_of(const struct options *o, deed_str member)
{
    for (size_t i = 0; i < CHANGE_COUNT; i++) {
        const struct change *change = &o->changes[i];
        if (change->given && deed_str_equal(deed_str_of(change->member), member)) return change;
    }
    return NULL;
}

/* The metadata with the changes in it; the others' bytes stay as they were. */
static void members_write(const struct options *o, json_value metadata, struct buf *out)
{
    struct json_writer w;
    json_writer_init(&w, out);
    json_object_begin(&w);
    for (struct json_iterator i = json_iterate(metadata); json_next(&i);) {
        if (change_of(o, i.key) != NULL) continue;
        json_key(&w, i.key);
        json_put_raw(&w, deed_bytes_of(json_raw(i.value)));
    }
    for (size_t i = 0; i < CHANGE_COUNT; i++) {
        const struct change *change = &o->changes[i];
        if (change->given && !change->remove) json_member_uint(&w, change->member, change->value);
    }
    json_object_end(&w);
}

/* (1): the metadata to write, and the revision that it rests on. A stream that is not there yet has
 * none. */
static deed_status metadata_change(const struct options *o, struct buf *out, char expected[32],
                                   struct deed_error *err)
{
    struct reply reply;
    struct arena arena;
    struct url url;
    json_value answer = {0};
    uint64_t revision = DEED_NONE;
    reply_init(&reply);
    arena_init(&arena, 2 * REPLY_SIZE_MAX);
    metadata_url(&url, o->stream);
    struct request request = {.method = "GET", .path = url_text(&url)};
    /* A directory that is not there yet is made by the write. */
    deed_status status = target_ask(&o->target, TARGET_WRITES, &request, &reply, err);
    bool none = status == DEED_NOT_FOUND && reply.status == 404;
    if (none) status = json_parse(&arena, deed_bytes_of(DEED_STR("{}")), 0, &answer, err);
    if (status == DEED_OK && !none) {
        status = json_parse(&arena, buf_bytes(&reply.body), DEPTH_MAX, &answer, err);
    }
    if (status == DEED_OK) {
        members_write(o, json_get(answer, DEED_STR("metadata")), out);
        bool has = json_uint64(json_get(answer, DEED_STR("revision")), &revision);
        (void)snprintf(expected, 32, "%" PRIu64, revision);
        if (!has) (void)snprintf(expected, 32, "none");
        if (!buf_ok(out)) status = deed_fail(err, DEED_NO_MEMORY, "no memory");
    }
    url_done(&url);
    arena_done(&arena);
    reply_done(&reply);
    return status;
}

static deed_status run(const struct options *o, struct deed_error *err)
{
    deed_status status;
    if (o->body != NULL) {
        char *text = NULL;
        size_t size = 0;
        status = cli_body(o->body, CLI_BODY_SIZE_MAX, &text, &size, err);
        if (status == DEED_OK) {
            status = metadata_write(o, o->expected, (deed_bytes){(const uint8_t *)text, size}, err);
        }
        free(text);
        return status;
    }
    if (changes_given(o)) {
        struct buf changed;
        char expected[32];
        buf_init(&changed, CLI_BODY_SIZE_MAX);
        status = metadata_change(o, &changed, expected, err);
        if (status == DEED_OK) status = metadata_write(o, expected, buf_bytes(&changed), err);
        buf_done(&changed);
        return status;
    }
    struct url url;
    metadata_url(&url, o->stream);
    struct request request = {.method = "GET", .path = url_text(&url)};
    status = target_show(&o->target, TARGET_READS, &request, metadata_show, NULL, err);
    url_done(&url);
    return status;
}

int cmd_metadata(int argc, char **argv)
{
    struct options options = {.changes = {[CHANGE_MAX_AGE] = {.member = "$maxAge"},
                                          [CHANGE_MAX_COUNT] = {.member = "$maxCount"},
                                          [CHANGE_TRUNCATE] = {.member = "$tb"}}};
    struct deed_error err = {0};
    cli_parse(&metadata_argp, argc, argv, &options);
    return cli_end(run(&options, &err), &err);
}
