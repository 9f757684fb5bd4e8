/* accounts.c - accounts in the log.
 *
 *     $users         $User {"loginName":"ada"}   $User {"loginName":"bob"}  ...
 *     $user-ada      $UserCreated   $PasswordChanged   $UserUpdated
 *     $user-bob      $UserCreated   $UserDeleted       $UserCreated
 *
 * (1) The newest event alone is the account: no fold, and one event to read.
 * (2) A change is an append on condition that the account's stream is at the revision it was loaded at,
 *     so no change is lost between two who make one.
 * (3) The login's first event and its name in "$users" are one commit. */
#include "api/accounts.h"

#include "base/text.h"

#include <assert.h>
#include <stdlib.h>

#define ACCOUNT_SIZE_MAX (1u << 20)
#define USERS_STREAM     "$users"
#define USER_PREFIX      "$user-"

static const struct {
    deed_str login, full_name, group;
} built_ins[] = {
    {{"admin", 5}, {"Administrator", 13}, {"$admins", 7}},
    {{"ops", 3}, {"Operations", 10}, {"$ops", 4}},
};
#define BUILT_IN_COUNT (sizeof built_ins / sizeof built_ins[0])

static const char *const change_types[] = {
    [ACCOUNT_CREATED] = "$UserCreated",
    [ACCOUNT_UPDATED] = "$UserUpdated",
    [ACCOUNT_PASSWORD_CHANGED] = "$PasswordChanged",
    [ACCOUNT_DELETED] = "$UserDeleted",
};

static deed_status no_memory(struct deed_error *err)
{
    return deed_fail(err, DEED_NO_MEMORY, "account: out of memory");
}

/* ---- reading -------------------------------------------------------------------------------- */

static deed_status malformed(deed_str login, const struct deed_event *event, struct deed_error *err)
{
    return deed_fail(err, DEED_INVALID, "account %.*s: the event at position %llu is no account",
                     DEED_FMT(login), (unsigned long long)event->position);
}

static deed_status parse_groups(json_value list, struct arena *arena, struct account *out,
                                struct deed_error *err)
{
    deed_str *groups = arena_alloc_array(arena, json_count(list), sizeof *groups);
    if (groups == NULL) return no_memory(err);
    size_t count = 0;
    for (struct json_iterator i = json_iterate(list); json_next(&i);) {
        groups[count] = json_text(i.value);
        if (groups[count].ptr == NULL) return deed_fail(err, DEED_INVALID, "groups are texts");
        count++;
    }
    out->groups = groups;
    out->group_count = count;
    return DEED_OK;
}

static deed_status parse_account(const struct deed_event *event, deed_str login,
                                 struct arena *arena, struct account *out, struct deed_error *err)
{
    json_value root;
    deed_bytes text = arena_bytes(arena, event->data);
    *out = (struct account){
        .login = login, .revision = event->revision, .updated_ns = event->recorded_at_ns};
    if (text.ptr == NULL) return no_memory(err);
    if (deed_str_equal(event->type, deed_str_of(change_types[ACCOUNT_DELETED]))) return DEED_OK;
    deed_status status = json_parse(arena, text, 0, &root, err);
    if (status == DEED_NO_MEMORY) return status;
    if (status != DEED_OK || json_kind_of(root) != JSON_OBJECT) return malformed(login, event, err);
    out->full_name = json_text(json_get(root, DEED_STR("fullName")));
    (void)json_bool(json_get(root, DEED_STR("disabled")), &out->disabled);
    bool good = out->full_name.ptr != NULL &&
                password_read(json_get(root, DEED_STR("password")), &out->password);
    status = good ? parse_groups(json_get(root, DEED_STR("groups")), arena, out, err) : DEED_INVALID;
    if (status == DEED_INVALID) return malformed(login, event, err);
    out->there = status == DEED_OK;
    return status;
}

/* Nothing is written of it: it is built in, or not there. */
static deed_status load_built_in(struct store *store, deed_str login, struct account *out,
                                 struct deed_error *err)
{
    *out = (struct account){.login = login, .revision = DEED_NONE};
    for (size_t i = 0; i < BUILT_IN_COUNT; i++) {
        if (!deed_str_equal(login, built_ins[i].login)) continue;
        out->full_name = built_ins[i].full_name;
        out->groups = &built_ins[i].group;
        out->group_count = 1;
        out->there = out->built_in = true;
        return store_recorded_at(store, 1, &out->updated_ns, err);
    }
    return DEED_OK;
}

deed_status accounts_load(struct store *store, deed_str login, struct arena *arena,
                          struct account *out, struct deed_error *err)
{
    struct deed_cursor *cursor = NULL;
    struct deed_event event;
    struct deed_read_options options = {
        .backwards = true, .from_revision = DEED_NONE, .count_max = 1};
    options.stream = arena_printf(arena, USER_PREFIX "%.*s", DEED_FMT(login));
    if (options.stream.ptr == NULL) return no_memory(err);
    deed_status status = store_read(store, &options, &cursor, err);
    if (status == DEED_NOT_FOUND) return load_built_in(store, login, out, err);
    if (status == DEED_OK) status = cursor_next(cursor, &event, err);
    if (status == DEED_END) status = load_built_in(store, login, out, err);
    else if (status == DEED_OK) status = parse_account(&event, login, arena, out, err);
    cursor_close(cursor);
    return status;
}

/* ---- writing -------------------------------------------------------------------------------- */

static void write_account(struct buf *out, const struct account *a, enum account_change change)
{
    struct json_writer w;
    json_writer_init(&w, out);
    json_object_begin(&w);
    json_member_text(&w, "loginName", a->login);
    if (change != ACCOUNT_DELETED) {
        json_member_text(&w, "fullName", a->full_name.ptr == NULL ? DEED_STR("") : a->full_name);
        json_key(&w, DEED_STR("groups"));
        json_array_begin(&w);
        for (size_t i = 0; i < a->group_count; i++) json_put_text(&w, a->groups[i]);
        json_array_end(&w);
        json_member_bool(&w, "disabled", a->disabled);
        json_key(&w, DEED_STR("password"));
        password_write(&w, &a->password);
    }
    json_object_end(&w);
}

static deed_status check_texts(const struct account *a, struct deed_error *err)
{
    bool good = utf8_valid(deed_bytes_of(a->full_name));
    for (size_t i = 0; i < a->group_count; i++) good &= utf8_valid(deed_bytes_of(a->groups[i]));
    if (good) return DEED_OK;
    return deed_fail(err, DEED_INVALID, "account %.*s: a name is not valid UTF-8",
                     DEED_FMT(a->login));
}

/* `data`: the account; `name`: of its login alone (3). */
static deed_status append_change(struct store *store, const struct account *a,
                                 enum account_change change, deed_str stream, struct buf *data,
                                 struct buf *name, struct deed_error *err)
{
    bool first = a->revision == DEED_NONE;
    struct deed_new_event events[] = {
        {.stream = stream, .type = deed_str_of(change_types[change]), .data = buf_bytes(data)},
        {.stream = DEED_STR(USERS_STREAM), .type = DEED_STR("$User"), .data = buf_bytes(name)},
    };
    struct deed_condition unchanged = {.kind = DEED_CONDITION_STREAM, /* (2) */
                                       .stream = stream,
                                       .expect = first ? DEED_EXPECT_NONE : DEED_EXPECT_REVISION,
                                       .revision = first ? 0 : a->revision};
    struct deed_append append = {.events = events,
                                 .event_count = first ? 2 : 1,
                                 .conditions = &unchanged,
                                 .condition_count = 1};
    struct deed_appended appended;
    return store_append(store, &append, &appended, err);
}

deed_status accounts_save(struct store *store, const struct account *account,
                          enum account_change change, struct deed_error *err)
{
    struct buf data, name, stream;
    assert(change == ACCOUNT_DELETED || !account->built_in); /* its password is in no account */
    deed_status status = check_texts(account, err);
    if (status != DEED_OK) return status;
    buf_init(&data, ACCOUNT_SIZE_MAX);
    buf_init(&name, ACCOUNT_SIZE_MAX);
    buf_init(&stream, ACCOUNT_SIZE_MAX);
    write_account(&data, account, change);
    write_account(&name, account, ACCOUNT_DELETED);
    buf_add_str(&stream, DEED_STR(USER_PREFIX));
    buf_add_str(&stream, account->login);
    if (account->login.len == 0) {
        status = deed_fail(err, DEED_INVALID, "login name: must not be empty");
    } else if (!buf_ok(&data) || !buf_ok(&name) || !buf_ok(&stream)) {
        status = deed_fail(err, DEED_TOO_LARGE, "account: it is larger than %u bytes",
                           ACCOUNT_SIZE_MAX);
    } else {
        status = append_change(store, account, change, buf_str(&stream), &data, &name, err);
    }
    buf_done(&data);
    buf_done(&name);
    buf_done(&stream);
    return status;
}

/* ---- all of them ---------------------------------------------------------------------------- */

struct logins {
    deed_str *ptr;
    size_t count, room;
    struct arena *arena;
};

static bool login_add(struct logins *l, deed_str login)
{
    if (l->count == l->room) {
        size_t room = l->room * 2 + 16;
        deed_str *grown = arena_alloc_array(l->arena, room, sizeof *grown);
        if (grown == NULL) return false;
        if (l->count > 0) memcpy(grown, l->ptr, l->count * sizeof *grown);
        l->ptr = grown;
        l->room = room;
    }
    deed_str copy = arena_str(l->arena, login);
    if (copy.ptr == NULL) return false;
    l->ptr[l->count++] = copy;
    return true;
}

bool accounts_own(deed_str stream)
{
    return deed_str_equal(stream, DEED_STR(USERS_STREAM)) ||
           str_starts_with(stream, DEED_STR(USER_PREFIX));
}

/* Of an event in "$users"; what is none there is passed over: anybody may have written it. */
static deed_status login_read(struct logins *l, const struct deed_event *event,
                              struct deed_error *err)
{
    struct arena arena;
    json_value root;
    arena_init(&arena, ACCOUNT_SIZE_MAX);
    deed_status status = json_parse(&arena, event->data, 0, &root, NULL);
    deed_str login = status == DEED_OK ? json_text(json_get(root, DEED_STR("loginName")))
                                       : (deed_str){0};
    bool good = login.len == 0 || login_add(l, login);
    arena_done(&arena);
    return good ? DEED_OK : no_memory(err);
}

deed_status accounts_logins(struct store *store, struct arena *arena, deed_str **out_logins,
                            size_t *out_count, struct deed_error *err)
{
    struct logins l = {.arena = arena};
    struct deed_read_options options = {.stream = DEED_STR(USERS_STREAM)};
    struct deed_cursor *cursor = NULL;
    struct deed_event event;
    for (size_t i = 0; i < BUILT_IN_COUNT; i++) {
        if (!login_add(&l, built_ins[i].login)) return no_memory(err);
    }
    deed_status status = store_read(store, &options, &cursor, err);
    while (status == DEED_OK && (status = cursor_next(cursor, &event, err)) == DEED_OK) {
        status = login_read(&l, &event, err);
    }
    cursor_close(cursor);
    bool all = status == DEED_END || status == DEED_NOT_FOUND || status == DEED_DELETED;
    if (!all) return status;
    qsort(l.ptr, l.count, sizeof *l.ptr, str_order);
    size_t kept = 0;
    for (size_t i = 0; i < l.count; i++) {
        if (kept == 0 || !deed_str_equal(l.ptr[kept - 1], l.ptr[i])) l.ptr[kept++] = l.ptr[i];
    }
    *out_logins = l.ptr;
    *out_count = kept;
    return DEED_OK;
}
