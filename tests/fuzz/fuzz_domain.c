/* fuzz_domain.c - any bytes: frames are decoded or refused, and what is bound from JSON exactly is
 * written and bound again to the same text. */
#include "../domains/wild.c"

#include "domain/binding.h"
#include "domain/explain.h"
#include "domain/frames.h"
#include "domain/given.h"
#include "json/json.h"
#include "fuzz/must.h"

#include <stdio.h>

DEED_STRUCT(leaf, DEED_TEXT(name), DEED_OPTIONAL_INT(n));
DEED_STRUCT(all, DEED_TEXT(t, DEED_OPTIONAL, DEED_SIZE_MAX(8)), DEED_DATE(d, DEED_OPTIONAL),
            DEED_TIME(at, DEED_OPTIONAL), DEED_UUID(u, DEED_OPTIONAL), DEED_JSON(j, DEED_OPTIONAL),
            DEED_OPTIONAL_INT(i), DEED_OPTIONAL_DOUBLE(f), DEED_OPTIONAL_BOOL(b),
            DEED_OPTIONAL_OBJECT(o, leaf), DEED_LIST(l, leaf, DEED_OPTIONAL),
            DEED_TEXTS(s, DEED_OPTIONAL), DEED_MAP(m, all, DEED_OPTIONAL));

static bool read_all(deed_bytes text, enum bind_rule rule, struct arena *arena, struct all *out)
{
    json_value root;
    if (json_parse(arena, text, 0, &root, NULL) != DEED_OK) return false;
    struct deed_error err = {0};
    deed_status status = bind_read(&deed_type_all, root, rule, arena, out, &err);
    must(status == DEED_OK || err.message[0] != '\0', "a failure has a message");
    must(json_check(deed_bytes_of(DEED_STR("1")), 0, NULL) == DEED_OK, "the parser still works");
    return status == DEED_OK;
}

static void bindings(deed_bytes text, struct arena *arena)
{
    struct all first, copy, second;
    if (!read_all(text, BIND_EXACT, arena, &first)) {
        (void)read_all(text, BIND_STORED, arena, &first);
        return;
    }
    struct buf once, twice;
    buf_init(&once, 1 << 24);
    buf_init(&twice, 1 << 24);
    /* A deep value may be read and yet be too deep to write. */
    if (bind_copy(&deed_type_all, &first, arena, &copy) &&
        bind_write(&deed_type_all, &copy, BIND_EXACT, &once, NULL) == DEED_OK) {
        must(read_all(buf_bytes(&once), BIND_EXACT, arena, &second), "what was written is read");
        must(bind_write(&deed_type_all, &second, BIND_EXACT, &twice, NULL) == DEED_OK,
             "and written again");
        must(deed_str_equal(buf_str(&once), buf_str(&twice)), "as the same text");
        struct buf changes;
        buf_init(&changes, 1 << 20);
        if (explain_changes(buf_bytes(&once), buf_bytes(&twice), &changes, NULL) == DEED_OK) {
            must(deed_str_equal(buf_str(&changes), DEED_STR("[]")), "the same text has no changes");
        }
        buf_done(&changes);
    }
    buf_done(&once);
    buf_done(&twice);
}

static void frames(deed_bytes bytes, struct arena *arena)
{
    deed_bytes payload;
    size_t size;
    uint32_t sequence;
    struct host_request request;
    struct host_answer answer;
    struct deed_error error;
    deed_str model;
    if (frame_next(bytes, &payload, &size, NULL) != DEED_OK) return;
    must(size <= bytes.len, "a frame lies in its bytes");
    (void)frame_hello_read(payload, &sequence, &model);
    (void)frame_failed_read(payload, &error);
    (void)frame_answer_read(payload, arena, &sequence, &answer);
    if (!frame_request_read(payload, arena, &sequence, &request)) return;
    struct buf again;
    buf_init(&again, 1 << 24);
    frame_request(&again, sequence, &request);
    /* The kind is not the reader's business. */
    must(again.len == size && memcmp(again.ptr + 5, bytes.ptr + 5, size - 5) == 0,
         "a request is encoded as it was");
    buf_done(&again);
}

static void given(deed_bytes text)
{
    static struct domain_host *host;
    if (host == NULL) must(host_in_process(&deed_domain_v1, &host, NULL) == DEED_OK, "a host");
    /* Commands that misbehave on purpose stay out of the fuzzer's own process. */
    static const char *const wild_words[] = {"crash", "null",     "exit",     "loop", "eat",
                                             "alloc", "for ever", "scribble", "\\u",  "times"};
    for (size_t i = 0; i < sizeof wild_words / sizeof *wild_words; i++) {
        if (memmem(text.ptr, text.len, wild_words[i], strlen(wild_words[i])) != NULL) return;
    }
    struct given_summary summary = {0};
    struct deed_error err = {0};
    deed_status status = given_run_text(host, DEED_STR("f"), text, NULL, NULL, &summary, &err);
    must(status != DEED_OK || summary.files == 1, "a file was run");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0) return 0;
    /* At the end of its own memory, so that reading past it is seen. */
    uint8_t *copy = malloc(size);
    memcpy(copy, data, size);
    deed_bytes rest = {copy + 1, size - 1};
    struct arena arena;
    arena_init(&arena, 1 << 26);
    switch (copy[0] % 3) {
    case 0:
        bindings(rest, &arena);
        break;
    case 1:
        frames(rest, &arena);
        break;
    default:
        given(rest);
        break;
    }
    arena_done(&arena);
    free(copy);
    return 0;
}
