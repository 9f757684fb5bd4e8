/* group_sessions.h - consumers of groups that come by HTTP: one request after another, under a name.
 *
 * A session is a consumer that its user asks on demand. It is made by the first request that names it,
 * and forgotten when nobody has taken by it for GROUP_SESSION_IDLE_NS, or its group dropped it: then what it
 * had not acknowledged goes to others, if the message timeout has not sent it there already. */
#ifndef API_GROUP_SESSIONS_H
#define API_GROUP_SESSIONS_H

#include "groups/groups.h"

#define GROUP_SESSION_IDLE_NS  (UINT64_C(600) * 1000000000)
#define GROUP_SESSION_MAX      10000u
#define GROUP_SESSION_BUFFER   65536u

struct os;
struct group_sessions;
struct group_session;

/* `nudge`: have those who wait for messages look again; from any thread; may be NULL. */
DEED_MUST_CHECK deed_status group_sessions_create(struct groups *groups, struct os *os,
                                                  void (*nudge)(void *context), void *context,
                                                  struct group_sessions **out,
                                                  struct deed_error *err);
/* All leave. Nobody may be using one. Accepts NULL. */
void group_sessions_destroy(struct group_sessions *sessions);

/* The session of this name, made if it is not there. It stays until given back.
 *
 *   DEED_NOT_FOUND  no such group. DEED_BUSY: too many consumers, or sessions. */
DEED_MUST_CHECK deed_status group_session_get(struct group_sessions *sessions, deed_str source,
                                              deed_str group, deed_str name, deed_str peer,
                                              struct group_session **out, struct deed_error *err);
/* `gone`: its consumer was dropped, so the next who asks gets a new one. */
void group_session_give_back(struct group_sessions *sessions, struct group_session *session,
                             bool gone);
struct group_consumer *group_session_consumer(struct group_session *session);

#endif
