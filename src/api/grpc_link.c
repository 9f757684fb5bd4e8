/* grpc_link.c - from "3@order-7" to the event, and from a place in a virtual stream to "3@order-7".
 *
 * (1) A link that leads nowhere is no failure: the client gets the link without an event. What could not
 *     be read just now is one: the client comes again.
 * (2) A link to a link is not followed further. */
#include "api/grpc_link.h"

#include "base/text.h"

#define LINK_TYPE "$>"

static bool is_stored_link(const struct deed_event *event)
{
    return event->type.len == 2 && memcmp(event->type.ptr, LINK_TYPE, 2) == 0;
}

bool grpc_link_is_one(const struct deed_event *event, bool resolve)
{
    return event->link_stream.ptr != NULL || (resolve && is_stored_link(event));
}

/* "NUMBER@STREAM"; names may have the sign, too. */
static bool data_parse(deed_bytes data, deed_str *out_stream, uint64_t *out_revision)
{
    const char *text = (const char *)data.ptr;
    const char *at = data.len == 0 ? NULL : memchr(text, '@', data.len);
    if (at == NULL) return false;
    size_t digits = (size_t)(at - text);
    *out_stream = (deed_str){at + 1, data.len - digits - 1};
    return text_u64((deed_str){text, digits}, out_revision) && out_stream->len > 0;
}

/* DEED_NOT_FOUND: it cannot be read, for a reason that lasts (1). */
static deed_status target_read(struct grpc_link *link, struct store *store,
                               const struct deed_event *event, struct deed_error *err)
{
    struct deed_read_options options = {.count_max = 1};
    if (!data_parse(event->data, &options.stream, &options.from_revision)) return DEED_NOT_FOUND;
    deed_status status = store_read(store, &options, &link->cursor, err);
    if (status == DEED_OK) status = cursor_next(link->cursor, &link->made, err);
    if (status == DEED_END || status == DEED_DELETED || status == DEED_GONE) return DEED_NOT_FOUND;
    if (status != DEED_OK) return status;
    bool there = event_revision_read(&link->made) == options.from_revision; /* else it is hidden */
    return there ? DEED_OK : DEED_NOT_FOUND;
}

static deed_status stored_open(struct grpc_link *link, struct store *store,
                               const struct deed_event *event, struct deed_error *err)
{
    deed_status status = target_read(link, store, event, err);
    if (status != DEED_OK && status != DEED_NOT_FOUND) {
        grpc_link_close(link);
        return status;
    }
    link->event = status == DEED_OK ? &link->made : NULL;
    link->link = event;
    return DEED_OK;
}

/* The link that a projection of KurrentDB's would have stored there. */
static deed_status virtual_open(struct grpc_link *link, struct store *store,
                                const struct deed_event *event, bool resolve,
                                struct deed_error *err)
{
    size_t size = u64_format(event->revision, link->data);
    if (event->stream.len > sizeof link->data - size - 1) {
        return deed_fail(err, DEED_TOO_LARGE, "stream %.*s: its name does not fit into a link",
                         DEED_FMT(event->stream));
    }
    link->data[size++] = '@';
    memcpy(link->data + size, event->stream.ptr, event->stream.len);
    size += event->stream.len;
    link->made = (struct deed_event){
        .position = event->position,
        .revision = event->link_revision,
        .id = store_link_id(store, event->link_stream, event->link_revision),
        .time_ns = event->time_ns,
        .recorded_at_ns = event->recorded_at_ns,
        .stream = event->link_stream,
        .type = DEED_STR(LINK_TYPE),
        .content_type = DEED_STR("application/octet-stream"),
        .data = {(const uint8_t *)link->data, size},
    };
    if (!resolve) {
        link->event = &link->made;
    } else {
        link->event = event->removed ? NULL : event;
        link->link = &link->made;
    }
    return DEED_OK;
}

deed_status grpc_link_open(struct grpc_link *link, struct store *store,
                           const struct deed_event *event, bool resolve, struct deed_error *err)
{
    link->event = link->link = NULL;
    link->cursor = NULL;
    if (event->link_stream.ptr != NULL) return virtual_open(link, store, event, resolve, err);
    return stored_open(link, store, event, err);
}

void grpc_link_close(struct grpc_link *link)
{
    cursor_close(link->cursor);
    link->cursor = NULL;
}
