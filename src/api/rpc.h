/* rpc.h - the gRPC API without sockets: one call as its method sees it.
 *
 * The server owns connections, frames and threads; a method is a row of a table (grpc_*.c). The server
 * makes a struct rpc per call and drives the method through it:
 *
 *     begin ─► message, message, … ─► half_closed ─► … ─► close
 *               └──── pull, pull, … (answers) ────┘
 *
 * begin, message, half_closed and close run on the loop's thread and must not block. pull is tried on
 * it in haste, and else runs on a pool's thread. It is called after begin, message, half_closed and
 * rpc_wake, and as long as it answers RPC_MORE and the client takes what it made; never on a call that
 * has ended, so what begin or message failed over, pull need not look at.
 *
 * A method whose client sends one message only (not `client_streams`) is given it when the client has
 * half-closed: message, half_closed, and only then is pull called. So its pull runs beside nothing of
 * its own. For others message and half_closed may run on the loop's thread while pull runs on a
 * pool's: what both use needs a mutex. */
#ifndef API_RPC_H
#define API_RPC_H

#include "api/api.h"
#include "grpc/proto.h"
#include "grpc/status.h"
#include "os/thread.h"

#include <stdatomic.h>

struct rpc;

enum rpc_pull {
    RPC_MORE,  /* call again when there is room */
    RPC_WAIT,  /* nothing more now: call again after rpc_wake, a message, or (method->follows) growth */
    RPC_END,   /* this was all: the call ends as rpc_fail said, or well */
    RPC_LATER, /* in haste only: it would take long; nothing was added */
};

struct rpc_method {
    const char *service, *name; /* "event_store.client.streams.Streams", "Append" */
    deed_str path; /* "/service/name", NUL behind it; RPC_METHOD writes all three */
    size_t message_size_max;    /* of one request message; 0: 1 MiB. Longer: RESOURCE_EXHAUSTED */
    bool client_streams;        /* the client may send any number of messages; else exactly one */
    bool follows;               /* RPC_WAIT also ends when the log has grown */
    const char *const *features; /* to advertise, NULL-terminated; or NULL */
    bool hidden;                 /* not advertised */

    /* The headers are there. May end the call. NULL: nothing to do. */
    void (*begin)(struct rpc *rpc);
    /* One whole message, valid during the call. Quick: parse, store_submit, queue. */
    void (*message)(struct rpc *rpc, deed_bytes message);
    /* The client sends no more. NULL: nothing to do. */
    void (*half_closed)(struct rpc *rpc);
    /* Append frames (grpc_pack) to `out`, about size_wanted bytes and never part of one. NULL: all
     * answers go through rpc_reply. */
    enum rpc_pull (*pull)(struct rpc *rpc, struct buf *out, size_t size_wanted, bool haste);
    /* Once, last, when all holds are given back: free `state`. NULL: nothing to do. */
    void (*close)(struct rpc *rpc);
};
#define RPC_METHOD(service_, name_) \
    .service = (service_), .name = (name_), .path = DEED_STR("/" service_ "/" name_)

#define RPC_MESSAGE_SIZE_MAX ((size_t)1 << 20)
#define RPC_TRAILERS_MAX     8

/* How the call ends. Under the call's mutex until it has, then unchanged. */
struct rpc_ending {
    enum grpc_code code;
    deed_str message; /* as the method wrote it, not encoded */
    struct api_header trailers[RPC_TRAILERS_MAX]; /* encoded */
    size_t trailer_count;
    struct arena arena; /* of these texts: whoever ends the call may be on any thread */
};

struct rpc {
    struct api *api;
    const struct rpc_method *method;
    /* The call's memory. Used from begin, message, half_closed and close, and by pull only where the
     * client sends one message: it has no lock. */
    struct arena *arena;
    /* For grpc_unpack in `message`: emptied after each message. */
    struct arena *scratch;
    const struct api_header *headers;
    size_t header_count;
    deed_str peer;
    uint64_t deadline_ticks; /* os_ticks_ns; DEED_NONE: none. The server ends the call by itself */
    void *state;             /* the method's own */
    uint32_t wait_ms;        /* set by pull with RPC_WAIT: call it again after so long at the latest; 0:
                              * only when there is something new */
    bool alone; /* half_closed: nobody else has asked for anything of late: it may hold its thread for a
                 * sync */
    /* Set by message: no more messages come, and the client is told to stop when its window is full,
     * until this is false and rpc_wake was called. */
    _Atomic bool paused;
    /* Set by the method: bytes that it keeps for the call, of requests which are not whole yet, or of answers
     * before they are pulled. They count as in flight, and who leaves many of them lying is reset when memory
     * gets short. */
    _Atomic size_t held;

    /* Below: rpc.c's and the server's. */
    const struct rpc_host *host;
    struct os_mutex mutex;
    struct rpc_ending end; /* under `mutex` */
    struct buf replies;    /* under `mutex`: of rpc_reply */
    _Atomic uint32_t life; /* see rpc.c */
    _Atomic bool cancelled, ended, woken, has_replies;
};

/* ---- for methods ------------------------------------------------------------------------------ */

/* A request header, names in lower case. ptr NULL: it is not there. */
deed_str rpc_header(const struct rpc *rpc, const char *name);

/* From any thread, between begin and close's return: have pull called again. */
void rpc_wake(struct rpc *rpc);

/* From any thread: close waits until every hold is given back. For what will call back later, as an
 * append under way. The last thing that a callback does is rpc_release. */
void rpc_hold(struct rpc *rpc);
void rpc_release(struct rpc *rpc);

/* The client has gone, or its deadline has passed: nothing that is still made will be sent. Any thread. */
bool rpc_cancelled(const struct rpc *rpc);

/* End the call, from any thread; the first ending counts. What was given to rpc_reply, and what pull
 * had added, is sent before it; pull is not called again. A pull that returns RPC_END without either
 * ends it well. */
void rpc_end(struct rpc *rpc);
/* `exception`: the trailer by which clients know the failure, or NULL. */
void rpc_fail(struct rpc *rpc, enum grpc_code code, const char *exception, const char *format, ...)
    DEED_PRINTF(4, 5);
/* With the status's own code and the error's message. */
void rpc_fail_status(struct rpc *rpc, const struct deed_error *err);
/* Before the end, from any thread. The name must stay; the value is copied: what is not printable ASCII
 * is percent-encoded, or all of it becomes base64 where the name ends in "-bin". */
void rpc_trailer(struct rpc *rpc, const char *name, deed_str value);

/* Send a message, from any thread. Wakes the call. */
void rpc_reply(struct rpc *rpc, const ProtobufCMessage *message);
/* The same with frames made by hand (grpc_frame_begin): holds the call's lock between the two, so keep
 * it short and call nothing else of the call's. */
struct buf *rpc_reply_begin(struct rpc *rpc);
void rpc_reply_end(struct rpc *rpc);

/* Unpack into rpc->scratch; NULL: the call has failed with INVALID_ARGUMENT or RESOURCE_EXHAUSTED. */
void *rpc_unpack(struct rpc *rpc, const ProtobufCMessageDescriptor *type, deed_bytes message);

/* ---- for the server --------------------------------------------------------------------------- */

/* The server's side of rpc_wake and rpc_release. */
struct rpc_host {
    /* From any thread: take this call up on the loop's thread, with rpc_taken. The call is not queued
     * again before that. */
    void (*push)(struct rpc *rpc);
};

/* Every method, in no order. */
size_t rpc_method_count(void);
const struct rpc_method *rpc_method_at(size_t index);
/* By path; NULL: there is none. */
const struct rpc_method *rpc_method_find(deed_str path);

/* A call with one hold, the server's. arena, scratch, headers, peer, deadline are set by the caller. */
void rpc_init(struct rpc *rpc, struct api *api, const struct rpc_method *method,
              const struct rpc_host *host);
void rpc_done(struct rpc *rpc);

/* Have the call taken up, without waking its method. */
void rpc_push(struct rpc *rpc);
/* The call was pushed and is now taken up. true: nobody holds it any more. */
DEED_MUST_CHECK bool rpc_taken(struct rpc *rpc);
/* Was its method woken since this was last asked? */
bool rpc_woken(struct rpc *rpc);
/* Is it pushed and not yet taken up? */
bool rpc_queued(const struct rpc *rpc);

/* Has it ended? Then it changes no more. */
bool rpc_ended(const struct rpc *rpc);
/* Move the replies to the end of `out`. */
void rpc_take_replies(struct rpc *rpc, struct buf *out);

#endif
