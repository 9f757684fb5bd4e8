/* fuzz_cloudevent.c - any bytes: what is accepted as a CloudEvent is written and read back the same,
 * whole and as a line. */
#include "api/cloudevent.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/uuid.h"
#include "fuzz/must.h"

static void same(deed_bytes a, deed_bytes b, const char *what)
{
    must(a.len == b.len && (a.len == 0 || memcmp(a.ptr, b.ptr, a.len) == 0), what);
}

static void same_text(deed_str a, deed_str b, const char *what)
{
    same(deed_bytes_of(a), deed_bytes_of(b), what);
}

/* The event as the store would keep it. */
static struct deed_event stored(const struct cloudevent *c)
{
    return (struct deed_event){
        .position = c->position == DEED_NONE ? 7 : c->position,
        .revision = c->revision == DEED_NONE ? 3 : c->revision,
        .id = c->event.id,
        .time_ns = c->event.time_ns,
        .recorded_at_ns = c->recorded_at_ns == 0 ? 1 : c->recorded_at_ns,
        .stream = c->event.stream,
        .type = c->event.type,
        .content_type = c->event.content_type,
        .data = c->event.data,
        .metadata = c->event.metadata,
        .tags = c->event.tags,
        .tag_count = c->event.tag_count,
        .correlation_id = c->event.correlation_id,
        .causation_id = c->event.causation_id,
        .actor = c->event.actor,
    };
}

static void compare(const struct deed_event *a, const struct cloudevent *b)
{
    must(a->position == b->position, "position");
    must(a->revision == b->revision, "revision");
    must(a->time_ns == b->event.time_ns, "time");
    must(a->recorded_at_ns == b->recorded_at_ns, "recordedat");
    must(uuid_equal(a->id, b->event.id), "id");
    same_text(a->stream, b->event.stream, "stream");
    same_text(a->type, b->event.type, "type");
    same_text(a->content_type, b->event.content_type, "content type");
    same_text(a->correlation_id, b->event.correlation_id, "correlation id");
    same_text(a->causation_id, b->event.causation_id, "causation id");
    same_text(a->actor, b->event.actor, "actor");
    same(a->data, b->event.data, "data");
    same(a->metadata, b->event.metadata, "metadata");
    must(a->tag_count == b->event.tag_count, "number of tags");
    for (size_t i = 0; i < a->tag_count; i++) same_text(a->tags[i], b->event.tags[i], "tag");
}

static void round_trip(const struct deed_event *event, unsigned flags)
{
    const struct cloudevent_source source = cloudevent_source_of((deed_uuid){{1, 2, 3}});
    struct arena arena;
    struct buf text;
    struct cloudevent again;
    struct deed_error err = {0};
    arena_init(&arena, 64 << 20);
    buf_init(&text, 64 << 20);
    cloudevent_write(&text, &source, event, flags);
    must(buf_ok(&text), "it fits");
    if ((flags & CLOUDEVENT_LINE) != 0) {
        must(memchr(text.ptr, '\n', text.len) == NULL, "a line has no line feed");
        must(memchr(text.ptr, '\r', text.len) == NULL, "a line has no carriage return");
    }
    /* Data may be as deep as the first parse allowed. */
    deed_status status =
        cloudevent_parse_text(&arena, buf_bytes(&text), 70, (deed_str){0}, &again, &err);
    if (status != DEED_OK) fprintf(stderr, "%s\n%.*s\n", err.message, DEED_FMT(buf_str(&text)));
    must(status == DEED_OK, "what was written is read");
    if ((flags & CLOUDEVENT_EXACT) != 0) compare(event, &again);
    buf_done(&text);
    arena_done(&arena);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct arena arena;
    struct cloudevent parsed;
    struct deed_error err = {0};
    arena_init(&arena, 16 << 20);
    deed_status status =
        cloudevent_parse_text(&arena, (deed_bytes){data, size}, 0, (deed_str){0}, &parsed, &err);
    if (status != DEED_OK) must(err.status == status && err.message[0] != '\0', "a reason is given");
    bool storable = status == DEED_OK; /* the store refuses empty tags and empty JSON */
    for (size_t i = 0; storable && i < parsed.event.tag_count; i++) {
        if (parsed.event.tags[i].len == 0) storable = false;
    }
    if (storable && parsed.event.data.len == 0) {
        storable = !content_type_is_json(parsed.event.content_type);
    }
    if (storable) {
        struct deed_event event = stored(&parsed);
        for (unsigned flags = 0; flags < 4; flags++) round_trip(&event, flags);
    }
    arena_done(&arena);
    return 0;
}
