/* grpc_users.c - Users: accounts are made, changed, listed.
 *
 * (1) Every call reads the log, most write it, some hash a password: all of it on a pool's thread.
 * (2) A change that another one overtook begins again from what is there now, a few times. */
#include "api/accounts.h"
#include "api/call.h"
#include "api/grpc.h"
#include "proto/users.pb-c.h"

#define SERVICE "event_store.client.users.Users"

#define ATTEMPTS 5 /* (2) */

/* What is asked for, of any of the calls. */
struct users_call {
    deed_status (*change)(struct rpc *rpc, struct users_call *u, struct account *account,
                          enum account_change *out_change, struct deed_error *err);
    deed_str login, full_name;
    deed_bytes password, current;
    deed_str *groups;
    size_t group_count;
    bool disable;
    struct password made; /* of `password`, when it was hashed */
    bool is_made;

    deed_str *logins; /* Details: whose; NULL: not looked up yet */
    size_t login_count, next;
};

/* ---- endings -------------------------------------------------------------------------------- */

static void fail(struct rpc *rpc, const struct users_call *u, const struct deed_error *err)
{
    deed_str login = u->login;
    switch (err->status) {
    case DEED_NOT_FOUND:
        rpc_trailer(rpc, "login-name", login);
        rpc_fail(rpc, GRPC_NOT_FOUND, "user-not-found", "User '%.*s' is not found.",
                 DEED_FMT(login));
        break;
    case DEED_CONFLICT:
        rpc_trailer(rpc, "login-name", login);
        rpc_fail(rpc, GRPC_FAILED_PRECONDITION, "user-conflict", "Conflict.");
        break;
    case DEED_REJECTED:
        rpc_fail(rpc, GRPC_PERMISSION_DENIED, "access-denied", "Access Denied");
        break;
    case DEED_STALE: rpc_fail(rpc, GRPC_ABORTED, NULL, "%s", err->message); break;
    default: rpc_fail_status(rpc, err); break;
    }
}

static deed_status missing(const struct users_call *u, struct deed_error *err)
{
    return deed_fail(err, DEED_NOT_FOUND, "account %.*s: there is none", DEED_FMT(u->login));
}

/* ---- what becomes of an account ------------------------------------------------------------- */

static struct os *os_of(struct rpc *rpc)
{
    return store_os(rpc->api->parts.store);
}

/* Hashed once, however often it takes (2). */
static deed_status set_password(struct rpc *rpc, struct users_call *u, struct account *account,
                                struct deed_error *err)
{
    deed_status status = DEED_OK;
    if (!u->is_made) status = password_make(os_of(rpc), u->password, &u->made, err);
    u->is_made = status == DEED_OK;
    if (!u->is_made) return status;
    account->password = u->made;
    account->built_in = false;
    return DEED_OK;
}

/* Before anything else of it is written: what everybody knows becomes a password like others. */
static deed_status keep_password(struct rpc *rpc, struct account *account, struct deed_error *err)
{
    if (!account->built_in) return DEED_OK;
    account->built_in = false;
    return password_make(os_of(rpc), deed_bytes_of(DEED_STR(ACCOUNT_FIRST_PASSWORD)),
                         &account->password, err);
}

static deed_status create(struct rpc *rpc, struct users_call *u, struct account *account,
                          enum account_change *out_change, struct deed_error *err)
{
    if (account->there) {
        return deed_fail(err, DEED_CONFLICT, "account %.*s: it is there", DEED_FMT(u->login));
    }
    account->full_name = u->full_name;
    account->groups = u->groups;
    account->group_count = u->group_count;
    account->disabled = false;
    *out_change = ACCOUNT_CREATED;
    return set_password(rpc, u, account, err);
}

static deed_status update(struct rpc *rpc, struct users_call *u, struct account *account,
                          enum account_change *out_change, struct deed_error *err)
{
    if (!account->there) return missing(u, err);
    account->full_name = u->full_name;
    account->groups = u->groups;
    account->group_count = u->group_count;
    *out_change = ACCOUNT_UPDATED;
    return u->password.len > 0 ? set_password(rpc, u, account, err)
                               : keep_password(rpc, account, err);
}

static deed_status set_disabled(struct rpc *rpc, struct users_call *u, struct account *account,
                                enum account_change *out_change, struct deed_error *err)
{
    if (!account->there) return missing(u, err);
    account->disabled = u->disable;
    *out_change = ACCOUNT_UPDATED;
    return keep_password(rpc, account, err);
}

static deed_status delete_account(struct rpc *rpc, struct users_call *u, struct account *account,
                                  enum account_change *out_change, struct deed_error *err)
{
    (void)rpc;
    if (!account->there) return missing(u, err);
    *out_change = ACCOUNT_DELETED;
    return DEED_OK;
}

static deed_status reset_password(struct rpc *rpc, struct users_call *u, struct account *account,
                                  enum account_change *out_change, struct deed_error *err)
{
    if (!account->there) return missing(u, err);
    *out_change = ACCOUNT_PASSWORD_CHANGED;
    return set_password(rpc, u, account, err);
}

static deed_status change_password(struct rpc *rpc, struct users_call *u, struct account *account,
                                   enum account_change *out_change, struct deed_error *err)
{
    bool right = false;
    if (!account->there) return missing(u, err);
    deed_status status = keep_password(rpc, account, err);
    if (status == DEED_OK) status = password_check(&account->password, u->current, &right, err);
    if (status != DEED_OK) return status;
    if (!right) {
        return deed_fail(err, DEED_REJECTED, "account %.*s: that is not its password",
                         DEED_FMT(u->login));
    }
    return reset_password(rpc, u, account, out_change, err);
}

/* (2) */
static deed_status run(struct rpc *rpc, struct users_call *u, struct deed_error *err)
{
    struct store *store = rpc->api->parts.store;
    for (unsigned i = 0; i < ATTEMPTS; i++) {
        struct account account;
        enum account_change change = ACCOUNT_UPDATED;
        deed_status status = accounts_load(store, u->login, rpc->arena, &account, err);
        if (status == DEED_OK) status = u->change(rpc, u, &account, &change, err);
        if (status != DEED_OK) return status;
        status = accounts_save(store, &account, change, err);
        if (status != DEED_CONFLICT) return status;
    }
    return deed_fail(err, DEED_STALE, "account %.*s: others change it all the time, try again",
                     DEED_FMT(u->login));
}

static enum rpc_pull change_pull(struct rpc *rpc, struct buf *out, size_t size_wanted, bool haste)
{
    struct users_call *u = rpc->state;
    struct deed_error err = {0};
    (void)size_wanted;
    if (haste) return RPC_LATER; /* (1) */
    if (run(rpc, u, &err) != DEED_OK) {
        fail(rpc, u, &err);
    } else {
        grpc_frame_end(out, grpc_frame_begin(out)); /* all answers are empty */
        rpc_end(rpc);
    }
    return RPC_END;
}

/* ---- Details -------------------------------------------------------------------------------- */

static deed_status put_details(const struct account *a, struct arena *arena, struct buf *out,
                               struct deed_error *err)
{
    EventStore__Client__Users__DetailsResp reply = EVENT_STORE__CLIENT__USERS__DETAILS_RESP__INIT;
    EventStore__Client__Users__DetailsResp__UserDetails details =
        EVENT_STORE__CLIENT__USERS__DETAILS_RESP__USER_DETAILS__INIT;
    EventStore__Client__Users__DetailsResp__UserDetails__DateTime updated =
        EVENT_STORE__CLIENT__USERS__DETAILS_RESP__USER_DETAILS__DATE_TIME__INIT;
    updated.ticks_since_epoch = a->updated_ns / 100;
    details.login_name = (char *)(uintptr_t)arena_str(arena, a->login).ptr;
    details.full_name = (char *)(uintptr_t)arena_str(arena, a->full_name).ptr;
    details.groups = arena_alloc_array(arena, a->group_count, sizeof *details.groups);
    details.last_updated = &updated;
    details.disabled = a->disabled;
    bool good = details.login_name != NULL && details.full_name != NULL && details.groups != NULL;
    for (; good && details.n_groups < a->group_count; details.n_groups++) {
        char *group = (char *)(uintptr_t)arena_str(arena, a->groups[details.n_groups]).ptr;
        details.groups[details.n_groups] = group;
        good = group != NULL;
    }
    reply.user_details = &details;
    if (good) good = grpc_pack(&reply.base, out);
    return good ? DEED_OK : deed_fail(err, DEED_NO_MEMORY, "account: out of memory");
}

static deed_status find_logins(struct rpc *rpc, struct users_call *u, struct deed_error *err)
{
    if (u->login.len == 0) {
        return accounts_logins(rpc->api->parts.store, rpc->arena, &u->logins, &u->login_count, err);
    }
    u->logins = &u->login;
    u->login_count = 1;
    return DEED_OK;
}

/* The next account; of all, those that are deleted or malformed are passed over. */
static deed_status next_details(struct rpc *rpc, struct users_call *u, struct buf *out,
                                struct deed_error *err)
{
    struct account account;
    struct arena arena;
    arena_init(&arena, (size_t)8 << 20); /* as it is stored, and as it is told */
    deed_status status =
        accounts_load(rpc->api->parts.store, u->logins[u->next], &arena, &account, err);
    bool all = u->login.len == 0;
    bool there = status == DEED_OK && account.there;
    bool none = status == DEED_INVALID || status == DEED_DELETED ||
                (status == DEED_OK && !account.there);
    if (there) status = put_details(&account, &arena, out, err);
    if (none) status = all ? DEED_OK : missing(u, err);
    if (status == DEED_OK) u->next++;
    arena_done(&arena);
    return status;
}

static enum rpc_pull details_pull(struct rpc *rpc, struct buf *out, size_t size_wanted, bool haste)
{
    struct users_call *u = rpc->state;
    struct deed_error err = {0};
    size_t before = out->len;
    if (haste) return RPC_LATER; /* (1) */
    deed_status status = DEED_OK;
    if (u->logins == NULL) status = find_logins(rpc, u, &err);
    while (status == DEED_OK && u->next < u->login_count) {
        if (out->len - before >= size_wanted || rpc_cancelled(rpc)) return RPC_MORE;
        status = next_details(rpc, u, out, &err);
    }
    if (status == DEED_OK) {
        rpc_end(rpc);
    } else {
        fail(rpc, u, &err);
    }
    return RPC_END;
}

/* ---- requests ------------------------------------------------------------------------------- */

/* The request, in the call's own memory: pull reads it later. NULL: the call has failed. */
static void *unpack(struct rpc *rpc, const ProtobufCMessageDescriptor *type, deed_bytes message,
                    struct users_call **out_call)
{
    struct deed_error err = {0};
    void *request = grpc_unpack(type, message, rpc->arena, &err);
    *out_call = arena_alloc(rpc->arena, sizeof **out_call);
    if (request == NULL || *out_call == NULL) {
        if (request != NULL) (void)deed_fail(&err, DEED_NO_MEMORY, "out of memory");
        rpc_fail_status(rpc, &err);
        return NULL;
    }
    return request;
}

static void need_options(struct rpc *rpc)
{
    rpc_fail(rpc, GRPC_INVALID_ARGUMENT, NULL, "the request has no options");
}

static deed_bytes bytes_of(ProtobufCBinaryData data)
{
    return (deed_bytes){data.data, data.len};
}

static void take(struct rpc *rpc, struct users_call *u, const char *login)
{
    u->login = deed_str_of(login);
    if (u->login.len == 0 && u->change != NULL) {
        rpc_fail(rpc, GRPC_INVALID_ARGUMENT, NULL, "login_name: must not be empty");
        return;
    }
    rpc->state = u;
}

static void take_groups(struct rpc *rpc, struct users_call *u, char **groups, size_t count)
{
    u->groups = arena_alloc_array(rpc->arena, count, sizeof *u->groups);
    u->group_count = u->groups == NULL ? 0 : count;
    for (size_t i = 0; i < u->group_count; i++) u->groups[i] = deed_str_of(groups[i]);
    if (u->groups == NULL) rpc_fail(rpc, GRPC_RESOURCE_EXHAUSTED, NULL, "out of memory");
}

static void on_create(struct rpc *rpc, deed_bytes message)
{
    struct users_call *u;
    EventStore__Client__Users__CreateReq *r =
        unpack(rpc, &event_store__client__users__create_req__descriptor, message, &u);
    if (r == NULL) return;
    if (r->options == NULL) return need_options(rpc);
    u->change = create;
    u->password = bytes_of(r->options->password);
    u->full_name = deed_str_of(r->options->full_name);
    take_groups(rpc, u, r->options->groups, r->options->n_groups);
    take(rpc, u, r->options->login_name);
}

static void on_update(struct rpc *rpc, deed_bytes message)
{
    struct users_call *u;
    EventStore__Client__Users__UpdateReq *r =
        unpack(rpc, &event_store__client__users__update_req__descriptor, message, &u);
    if (r == NULL) return;
    if (r->options == NULL) return need_options(rpc);
    u->change = update;
    u->password = bytes_of(r->options->password);
    u->full_name = deed_str_of(r->options->full_name);
    take_groups(rpc, u, r->options->groups, r->options->n_groups);
    take(rpc, u, r->options->login_name);
}

static void on_delete(struct rpc *rpc, deed_bytes message)
{
    struct users_call *u;
    EventStore__Client__Users__DeleteReq *r =
        unpack(rpc, &event_store__client__users__delete_req__descriptor, message, &u);
    if (r == NULL) return;
    if (r->options == NULL) return need_options(rpc);
    u->change = delete_account;
    take(rpc, u, r->options->login_name);
}

static void on_enable(struct rpc *rpc, deed_bytes message)
{
    struct users_call *u;
    EventStore__Client__Users__EnableReq *r =
        unpack(rpc, &event_store__client__users__enable_req__descriptor, message, &u);
    if (r == NULL) return;
    if (r->options == NULL) return need_options(rpc);
    u->change = set_disabled;
    take(rpc, u, r->options->login_name);
}

static void on_disable(struct rpc *rpc, deed_bytes message)
{
    struct users_call *u;
    EventStore__Client__Users__DisableReq *r =
        unpack(rpc, &event_store__client__users__disable_req__descriptor, message, &u);
    if (r == NULL) return;
    if (r->options == NULL) return need_options(rpc);
    u->change = set_disabled;
    u->disable = true;
    take(rpc, u, r->options->login_name);
}

static void on_details(struct rpc *rpc, deed_bytes message)
{
    struct users_call *u;
    EventStore__Client__Users__DetailsReq *r =
        unpack(rpc, &event_store__client__users__details_req__descriptor, message, &u);
    if (r == NULL) return;
    take(rpc, u, r->options == NULL ? "" : r->options->login_name);
}

static void on_change_password(struct rpc *rpc, deed_bytes message)
{
    struct users_call *u;
    EventStore__Client__Users__ChangePasswordReq *r =
        unpack(rpc, &event_store__client__users__change_password_req__descriptor, message, &u);
    if (r == NULL) return;
    if (r->options == NULL) return need_options(rpc);
    u->change = change_password;
    u->current = bytes_of(r->options->current_password);
    u->password = bytes_of(r->options->new_password);
    take(rpc, u, r->options->login_name);
}

static void on_reset_password(struct rpc *rpc, deed_bytes message)
{
    struct users_call *u;
    EventStore__Client__Users__ResetPasswordReq *r =
        unpack(rpc, &event_store__client__users__reset_password_req__descriptor, message, &u);
    if (r == NULL) return;
    if (r->options == NULL) return need_options(rpc);
    u->change = reset_password;
    u->password = bytes_of(r->options->new_password);
    take(rpc, u, r->options->login_name);
}

const struct rpc_method grpc_users_methods[] = {
    {RPC_METHOD(SERVICE, "Create"), .message = on_create, .pull = change_pull},
    {RPC_METHOD(SERVICE, "Update"), .message = on_update, .pull = change_pull},
    {RPC_METHOD(SERVICE, "Delete"), .message = on_delete, .pull = change_pull},
    {RPC_METHOD(SERVICE, "Enable"), .message = on_enable, .pull = change_pull},
    {RPC_METHOD(SERVICE, "Disable"), .message = on_disable, .pull = change_pull},
    {RPC_METHOD(SERVICE, "Details"), .message = on_details, .pull = details_pull},
    {RPC_METHOD(SERVICE, "ChangePassword"), .message = on_change_password, .pull = change_pull},
    {RPC_METHOD(SERVICE, "ResetPassword"), .message = on_reset_password, .pull = change_pull},
};
const size_t grpc_users_method_count = sizeof grpc_users_methods / sizeof grpc_users_methods[0];
