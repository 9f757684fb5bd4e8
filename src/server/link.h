/* link.h - one client's socket: reading, writing, closing. What its bytes mean is the protocol's.
 *
 * All on the loop's thread. */
#ifndef SERVER_LINK_H
#define SERVER_LINK_H

#include "server/service.h"

struct link;

/* A buffer that held more than this once is not kept for the next. */
#define BUFFER_KEPT_MAX ((size_t)64 << 10)
void buffer_shrink(struct buf *buf); /* empties it */

/* What a link does with its bytes; each may close it. */
struct protocol {
    void (*input)(struct link *link, deed_bytes in); /* valid during the call */
    void (*eof)(struct link *link);                  /* the client has ended its side */
    void (*settle)(struct link *link); /* the turn ends: fill `out`, flush it, end if all is done */
    void (*tick)(struct link *link, uint64_t now);
    void (*stop)(struct link *link);    /* the service stops */
    void (*closing)(struct link *link); /* let go of all that is under way */
    void (*closed)(struct link *link);  /* the socket is gone: free the protocol's own */
};

struct link {
    uv_tcp_t tcp; /* first */
    struct service *service;
    const struct protocol *protocol;
    void *state; /* the protocol's own */
    struct link *previous, *next, *next_unflushed;
    struct buf out;     /* to be written next */
    struct buf sending; /* under uv_write */
    uv_write_t write;
    uv_shutdown_t shutdown;
    uint64_t write_since; /* uv_now */
    size_t write_left;
    uint64_t linger_since;
    uint64_t enqueued; /* bytes given to the socket, ever */
    char peer[64];
    bool reads, writing, unflushed;
    bool eof; /* the client has ended its side */
    bool lingering, closing;
};

/* Begin: a socket that listens has one more. false: no memory. The link is freed by itself. */
DEED_MUST_CHECK bool link_accept(struct service *service, uv_stream_t *listener);

void link_read(struct link *link, bool on);
void link_mark(struct link *link); /* settle it at the end of this turn */
void link_flush(struct link *link);
/* All is written and there is nothing more to do. */
void link_end(struct link *link);
void link_close(struct link *link); /* now */
/* Close it if its client takes nothing, or lingers for too long. */
void link_check(struct link *link, uint64_t now);

#endif
