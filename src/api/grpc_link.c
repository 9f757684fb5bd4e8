/* grpc_link.c - from "3@order-7" to the event, and from a place in a virtual stream to "3@order-7".
 *
 * (1) A link that leads nowhere is no failure: the client gets the link without an event. What could not
 *     be read just now is one: the client comes again.
 * (2) A link to a link is not followed further. */
#include "api/grpc_link.h"

static bool is_stored_link(const struct deed_event *event)
{
    return deed_str_equal(event->type, DEED_STR(STORE_LINK_TYPE));
}

bool grpc_link_is_one(const struct deed_event *event, bool resolve)
{
    return event->link_stream.ptr != NULL || (resolve && is_stored_link(event));
}

/* DEED_NOT_FOUND: it cannot be read, for a reason that lasts (1). */
static deed_status target_read(struct grpc_link *link, struct store *store,
                               const struct deed_event *event, struct deed_error *err)
{
    struct deed_read_options options = {.count_max = 1};
    if (!store_link_parse(event->data, &options.stream, &options.from_revision)) {
        return DEED_NOT_FOUND;
    }
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

static void virtual_open(struct grpc_link *link, struct store *store,
                         const struct deed_event *event, bool resolve)
{
    link->made = store_link_event(store, event, link->data);
    if (!resolve) {
        link->event = &link->made;
    } else {
        link->event = event->removed ? NULL : event;
        link->link = &link->made;
    }
}

deed_status grpc_link_open(struct grpc_link *link, struct store *store,
                           const struct deed_event *event, bool resolve, struct deed_error *err)
{
    link->event = link->link = NULL;
    link->cursor = NULL;
    if (event->link_stream.ptr == NULL) return stored_open(link, store, event, err);
    virtual_open(link, store, event, resolve);
    return DEED_OK;
}

void grpc_link_close(struct grpc_link *link)
{
    cursor_close(link->cursor);
    link->cursor = NULL;
}
