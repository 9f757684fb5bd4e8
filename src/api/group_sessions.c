/* group_sessions.c - named consumers between requests.
 *
 * (1) A session in use is not ended, only taken out of the list: who gives it back last ends it.
 * (2) Sessions that are too old are ended by whoever comes next; nothing is lost by being late, since a
 *     consumer on demand is given nothing that it does not ask for, and what it had times out.
 * (3) The group drops one that is silent sooner: then the next request makes a new one. */
#include "api/group_sessions.h"

#include "os/os.h"

#include <assert.h>
#include <stdlib.h>

struct group_session {
    struct group_session *next;
    struct group_consumer *consumer;
    uint64_t used_ns;
    uint32_t users;
    bool listed;
    deed_str source, group, name; /* in `text` */
    char text[];
};

struct group_sessions {
    struct groups *groups;
    struct os *os;
    void (*nudge)(void *context);
    void *context;
    struct os_mutex lock;
    struct group_session *first;
    size_t count;
};

deed_status group_sessions_create(struct groups *groups, struct os *os,
                                  void (*nudge)(void *context), void *context,
                                  struct group_sessions **out, struct deed_error *err)
{
    struct group_sessions *s = calloc(1, sizeof *s);
    if (s == NULL) return deed_fail(err, DEED_NO_MEMORY, "consumers: out of memory");
    s->groups = groups;
    s->os = os;
    s->nudge = nudge;
    s->context = context;
    os_mutex_init(&s->lock);
    *out = s;
    return DEED_OK;
}

static void session_end(struct group_session *session)
{
    assert(session->users == 0);
    groups_leave(session->consumer);
    free(session);
}

void group_sessions_destroy(struct group_sessions *s)
{
    if (s == NULL) return;
    while (s->first != NULL) {
        struct group_session *session = s->first;
        s->first = session->next;
        session_end(session);
    }
    os_mutex_done(&s->lock);
    free(s);
}

/* With the lock: out of the list; true: nobody uses it, and the caller ends it. */
static bool session_unlist(struct group_sessions *s, struct group_session *session)
{
    struct group_session **at = &s->first;
    while (session->listed && *at != session) at = &(*at)->next;
    if (session->listed) {
        *at = session->next;
        s->count--;
    }
    session->listed = false;
    return session->users == 0;
}

/* With the lock (2). */
static void sessions_sweep(struct group_sessions *s, uint64_t now_ns)
{
    for (struct group_session *session = s->first, *next; session != NULL; session = next) {
        next = session->next;
        bool old = session->users == 0 && now_ns - session->used_ns > GROUP_SESSION_IDLE_NS;
        if (old && session_unlist(s, session)) session_end(session);
    }
}

static char *text_add(char *at, deed_str *out, deed_str s)
{
    if (s.len > 0) memcpy(at, s.ptr, s.len);
    *out = (deed_str){at, s.len};
    return at + s.len;
}

static struct group_session *session_create(deed_str source, deed_str group, deed_str name)
{
    struct group_session *session =
        calloc(1, sizeof *session + source.len + group.len + name.len + 1);
    if (session == NULL) return NULL;
    char *at = text_add(session->text, &session->source, source);
    at = text_add(at, &session->group, group);
    (void)text_add(at, &session->name, name);
    return session;
}

/* With the lock. */
static deed_status session_make(struct group_sessions *s, deed_str source, deed_str group,
                                deed_str name, deed_str peer, struct group_session **out,
                                struct deed_error *err)
{
    if (s->count >= GROUP_SESSION_MAX) {
        return deed_fail(err, DEED_BUSY, "%u consumers have come by HTTP, which is the limit",
                         GROUP_SESSION_MAX);
    }
    struct group_session *session = session_create(source, group, name);
    if (session == NULL) return deed_fail(err, DEED_NO_MEMORY, "consumers: out of memory");
    struct group_consumer_options options = {.buffer_size = GROUP_SESSION_BUFFER,
                                             .on_demand = true,
                                             .wake = s->nudge,
                                             .context = s->context,
                                             .from = peer,
                                             .name = name};
    deed_status status =
        groups_join(s->groups, source, group, &options, &session->consumer, err);
    if (status != DEED_OK) {
        free(session);
        return status;
    }
    session->listed = true;
    session->next = s->first;
    s->first = session;
    s->count++;
    *out = session;
    return DEED_OK;
}

deed_status group_session_get(struct group_sessions *s, deed_str source, deed_str group,
                              deed_str name, deed_str peer, struct group_session **out,
                              struct deed_error *err)
{
    uint64_t now_ns = os_ticks_ns(s->os);
    deed_status status = DEED_OK;
    os_mutex_lock(&s->lock);
    sessions_sweep(s, now_ns);
    struct group_session *found = s->first;
    while (found != NULL &&
           !(deed_str_equal(found->name, name) && deed_str_equal(found->group, group) &&
             deed_str_equal(found->source, source))) {
        found = found->next;
    }
    if (found != NULL && groups_dropped(found->consumer)) { /* it was silent, or the group changed */
        if (session_unlist(s, found)) session_end(found);
        found = NULL;
    }
    if (found == NULL) status = session_make(s, source, group, name, peer, &found, err);
    if (status == DEED_OK) {
        found->users++;
        found->used_ns = now_ns;
        *out = found;
    }
    os_mutex_unlock(&s->lock);
    return status;
}

void group_session_give_back(struct group_sessions *s, struct group_session *session, bool gone)
{
    os_mutex_lock(&s->lock);
    session->users--;
    session->used_ns = os_ticks_ns(s->os);
    bool over = !session->listed && session->users == 0; /* (1) */
    if (gone && session->listed) over = session_unlist(s, session);
    os_mutex_unlock(&s->lock);
    if (over) session_end(session);
}

struct group_consumer *group_session_consumer(struct group_session *session)
{
    return session->consumer;
}
