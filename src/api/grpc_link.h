/* grpc_link.h - events that stand for another one.
 *
 * A link is an event of type "$>" whose data is "NUMBER@STREAM": clients and projections of KurrentDB's
 * store them. A place in a virtual stream is shown as one, too, although nothing is stored there. */
#ifndef API_GRPC_LINK_H
#define API_GRPC_LINK_H

#include "store/store.h"

struct grpc_link {
    const struct deed_event *event; /* what to show; NULL: what the link leads to cannot be read */
    const struct deed_event *link;  /* the link that led there; NULL: none is to be shown */
    /* Private. */
    struct deed_event made;
    struct deed_cursor *cursor;
    char data[STORE_LINK_DATA_SIZE_MAX];
};

/* Is the event more than itself? `resolve`: links are to be followed. If not it goes out as it is. */
bool grpc_link_is_one(const struct deed_event *event, bool resolve);

/* What to show of such an event, which is borrowed until it is closed: one of a virtual stream as a link,
 * and what a link leads to if `resolve`. A target that retention hides, that is deleted or not written
 * cannot be read.
 *
 *   DEED_CORRUPT    the target is damaged: that is no lasting "cannot be read".
 *   DEED_BUSY, DEED_IO, DEED_NO_MEMORY */
DEED_MUST_CHECK deed_status grpc_link_open(struct grpc_link *link, struct store *store,
                                           const struct deed_event *event, bool resolve,
                                           struct deed_error *err);
void grpc_link_close(struct grpc_link *link); /* after success */

#endif
