/* test_grpc_users.c - belongs to grpc_users.c, accounts.c and password.c. */
#include "rpc_fixture.h"

#include "api/accounts.h"
#include "proto/users.pb-c.h"

#include <pthread.h>

#define SERVICE "event_store.client.users.Users"
#define INIT(NAME) EVENT_STORE__CLIENT__USERS__##NAME##__INIT

static struct talk *said_to; /* the last call */

/* One call with one message, to its end. */
static void call(const char *method, const ProtobufCMessage *request)
{
    if (said_to != NULL) talk_close(said_to);
    said_to = talk(SERVICE, method);
    talk_send(said_to, request);
    talk_half_close(said_to);
    talk_wait(said_to);
}

static void begin(void)
{
    start_here();
    open_rpc();
}

static void end(void)
{
    if (said_to != NULL) talk_close(said_to);
    said_to = NULL;
    close_rpc();
    finish();
}

static char *text(const char *t)
{
    return (char *)(uintptr_t)t;
}

static ProtobufCBinaryData secret(const char *t)
{
    return (ProtobufCBinaryData){strlen(t), (uint8_t *)(uintptr_t)t};
}

static void create(const char *login, const char *password, const char *name)
{
    EventStore__Client__Users__CreateReq r = INIT(CREATE_REQ);
    EventStore__Client__Users__CreateReq__Options o = INIT(CREATE_REQ__OPTIONS);
    char *groups[] = {text("readers"), text("writers")};
    r.options = &o;
    o.login_name = text(login);
    o.password = secret(password);
    o.full_name = text(name);
    o.groups = groups;
    o.n_groups = 2;
    call("Create", &r.base);
}

static void update(const char *login, const char *password, const char *name)
{
    EventStore__Client__Users__UpdateReq r = INIT(UPDATE_REQ);
    EventStore__Client__Users__UpdateReq__Options o = INIT(UPDATE_REQ__OPTIONS);
    r.options = &o;
    o.login_name = text(login);
    o.password = secret(password);
    o.full_name = text(name);
    call("Update", &r.base);
}

/* Delete, Enable, Disable: their requests are the same bytes. */
static void name_to(const char *method, const char *login)
{
    EventStore__Client__Users__DeleteReq r = INIT(DELETE_REQ);
    EventStore__Client__Users__DeleteReq__Options o = INIT(DELETE_REQ__OPTIONS);
    r.options = &o;
    o.login_name = text(login);
    call(method, &r.base);
}

static void change_password(const char *login, const char *current, const char *next)
{
    EventStore__Client__Users__ChangePasswordReq r = INIT(CHANGE_PASSWORD_REQ);
    EventStore__Client__Users__ChangePasswordReq__Options o = INIT(CHANGE_PASSWORD_REQ__OPTIONS);
    r.options = &o;
    o.login_name = text(login);
    o.current_password = secret(current);
    o.new_password = secret(next);
    call("ChangePassword", &r.base);
}

static void reset_password(const char *login, const char *next)
{
    EventStore__Client__Users__ResetPasswordReq r = INIT(RESET_PASSWORD_REQ);
    EventStore__Client__Users__ResetPasswordReq__Options o = INIT(RESET_PASSWORD_REQ__OPTIONS);
    r.options = &o;
    o.login_name = text(login);
    o.new_password = secret(next);
    call("ResetPassword", &r.base);
}

static void details(const char *login)
{
    EventStore__Client__Users__DetailsReq r = INIT(DETAILS_REQ);
    EventStore__Client__Users__DetailsReq__Options o = INIT(DETAILS_REQ__OPTIONS);
    r.options = &o;
    o.login_name = text(login);
    call("Details", &r.base);
}

static void expect_well(void)
{
    expect_ended(said_to, GRPC_OK, "");
}

static void expect_done(void)
{
    expect_well();
    deed_bytes reply = talk_reply_bytes(said_to);
    assert_non_null(reply.ptr);
    assert_int_equal(reply.len, 0);
}

/* "admin[Administrator|$admins] …", a '-' before the name of one that is disabled. */
static const char *told(void)
{
    static char all[4096];
    size_t len = 0;
    EventStore__Client__Users__DetailsResp *r;
    all[0] = '\0';
    while ((r = talk_reply(said_to, &event_store__client__users__details_resp__descriptor)) != NULL) {
        const EventStore__Client__Users__DetailsResp__UserDetails *d = r->user_details;
        len += (size_t)snprintf(all + len, sizeof all - len, "%s%s%s[%s", len > 0 ? " " : "",
                                d->disabled ? "-" : "", d->login_name, d->full_name);
        for (size_t i = 0; i < d->n_groups; i++) {
            len += (size_t)snprintf(all + len, sizeof all - len, "|%s", d->groups[i]);
        }
        len += (size_t)snprintf(all + len, sizeof all - len, "]");
        /* After 2020, in units of 100 ns since 1970. */
        assert_true(d->last_updated->ticks_since_epoch > INT64_C(15778368000000000));
    }
    expect_well();
    return all;
}

static void expect_missing(const char *login)
{
    expect_ended(said_to, GRPC_NOT_FOUND, "is not found");
    expect_trailer(said_to, "exception", "user-not-found");
    expect_trailer(said_to, "login-name", login);
}

static void expect_denied(void)
{
    expect_ended(said_to, GRPC_PERMISSION_DENIED, "Access Denied");
    expect_trailer(said_to, "exception", "access-denied");
}

/* ---- accounts ------------------------------------------------------------------------------- */

TEST(grpc_users, what_was_created_is_told)
{
    begin();
    create("ada", "secret", "Ada Lovelace");
    expect_done();
    details("ada");
    assert_string_equal(told(), "ada[Ada Lovelace|readers|writers]");
    details("bob");
    expect_missing("bob");
    end();
}

TEST(grpc_users, a_login_is_taken_once)
{
    begin();
    create("ada", "secret", "Ada Lovelace");
    expect_done();
    create("ada", "other", "Somebody");
    expect_ended(said_to, GRPC_FAILED_PRECONDITION, "Conflict.");
    expect_trailer(said_to, "exception", "user-conflict");
    expect_trailer(said_to, "login-name", "ada");
    create("admin", "other", "Somebody");
    expect_ended(said_to, GRPC_FAILED_PRECONDITION, "Conflict.");
    details("ada");
    assert_string_equal(told(), "ada[Ada Lovelace|readers|writers]");
    end();
}

TEST(grpc_users, all_are_listed_by_name_without_the_deleted)
{
    begin();
    details("");
    assert_string_equal(told(), "admin[Administrator|$admins] ops[Operations|$ops]");
    create("zoë", "secret", "Zoë");
    create("ada", "secret", "Ada");
    create("bob", "secret", "Bob");
    name_to("Delete", "bob");
    expect_done();
    details("");
    assert_string_equal(told(), "ada[Ada|readers|writers] admin[Administrator|$admins] "
                                "ops[Operations|$ops] zoë[Zoë|readers|writers]");
    create("bob", "again", "Robert");
    expect_done();
    name_to("Delete", "ops");
    expect_done();
    close_store();
    close_rpc();
    open_store();
    open_rpc();
    details("");
    assert_string_equal(told(), "ada[Ada|readers|writers] admin[Administrator|$admins] "
                                "bob[Robert|readers|writers] zoë[Zoë|readers|writers]");
    end();
}

TEST(grpc_users, an_update_keeps_the_password_unless_one_is_given)
{
    begin();
    create("ada", "secret", "Ada");
    update("ada", "", "Ada Lovelace");
    expect_done();
    details("ada");
    assert_string_equal(told(), "ada[Ada Lovelace]");
    change_password("ada", "secret", "next");
    expect_done();
    update("ada", "given", "Ada Lovelace");
    expect_done();
    change_password("ada", "next", "other");
    expect_denied();
    change_password("ada", "given", "other");
    expect_done();
    update("bob", "", "Bob");
    expect_missing("bob");
    end();
}

TEST(grpc_users, one_is_disabled_and_enabled)
{
    begin();
    create("ada", "secret", "Ada");
    name_to("Disable", "ada");
    expect_done();
    details("ada");
    assert_string_equal(told(), "-ada[Ada|readers|writers]");
    update("ada", "", "Ada Lovelace");
    details("ada");
    assert_string_equal(told(), "-ada[Ada Lovelace]");
    name_to("Enable", "ada");
    expect_done();
    details("ada");
    assert_string_equal(told(), "ada[Ada Lovelace]");
    name_to("Disable", "bob");
    expect_missing("bob");
    name_to("Enable", "bob");
    expect_missing("bob");
    name_to("Delete", "bob");
    expect_missing("bob");
    end();
}

TEST(grpc_users, a_password_is_changed_by_who_knows_it_and_reset_by_anybody)
{
    begin();
    create("ada", "secret", "Ada");
    change_password("ada", "Secret", "next");
    expect_denied();
    change_password("ada", "", "next");
    expect_denied();
    change_password("ada", "secret", "next");
    expect_done();
    change_password("ada", "secret", "other");
    expect_denied();
    reset_password("ada", "reset");
    expect_done();
    change_password("ada", "reset", "last");
    expect_done();
    reset_password("bob", "x");
    expect_missing("bob");
    change_password("bob", "x", "y");
    expect_missing("bob");
    end();
}

TEST(grpc_users, what_is_built_in_has_its_known_password_until_it_is_changed)
{
    begin();
    change_password("admin", "wrong", "next");
    expect_denied();
    name_to("Disable", "ops"); /* written now, with the same password */
    expect_done();
    change_password("ops", "changeit", "next");
    expect_done();
    details("ops");
    assert_string_equal(told(), "-ops[Operations|$ops]");
    change_password("admin", "changeit", "next");
    expect_done();
    change_password("admin", "changeit", "other");
    expect_denied();
    change_password("admin", "next", "other");
    expect_done();
    end();
}

TEST(grpc_users, what_is_wrong_with_a_request_is_said)
{
    begin();
    EventStore__Client__Users__CreateReq without = INIT(CREATE_REQ);
    call("Create", &without.base);
    expect_ended(said_to, GRPC_INVALID_ARGUMENT, "the request has no options");
    create("", "secret", "Nobody");
    expect_ended(said_to, GRPC_INVALID_ARGUMENT, "login_name: must not be empty");
    create("ada", "", "Ada");
    expect_ended(said_to, GRPC_INVALID_ARGUMENT, "password: must not be empty");
    static char long_one[PASSWORD_SIZE_MAX + 2];
    memset(long_one, 'x', sizeof long_one - 1);
    create("ada", long_one, "Ada");
    expect_ended(said_to, GRPC_INVALID_ARGUMENT, "password: 1025 bytes, limit 1024");
    create("a\x01", "secret", "Ada");
    expect_ended(said_to, GRPC_INVALID_ARGUMENT, "stream: control character");
    talk_close(said_to);
    said_to = talk(SERVICE, "Create");
    talk_send_bytes(said_to, (deed_bytes){(const uint8_t *)"\xff", 1});
    talk_half_close(said_to);
    talk_wait(said_to);
    expect_ended(said_to, GRPC_INVALID_ARGUMENT, "");
    details("ada");
    expect_missing("ada");
    end();
}

/* Anybody can write to these streams: that breaks the account, not the service. */
TEST(grpc_users, what_is_no_account_is_told_and_left_out_of_lists)
{
    static const char *const wrong[] = {
        "{}", "[]", "{\"fullName\":\"x\",\"groups\":[1]}",
        "{\"fullName\":\"x\",\"groups\":[],\"password\":{\"algorithm\":\"argon2id\",\"passes\":4000000000,"
        "\"memory\":4000000000000,\"salt\":\"AAAAAAAAAAAAAAAAAAAAAA==\","
        "\"hash\":\"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\"}}"};
    begin();
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        struct deed_new_event e = said("$user-ada", "x");
        e.type = DEED_STR("$UserUpdated");
        e.data = deed_bytes_of(deed_str_of(wrong[i]));
        say_event(e);
        e.stream = DEED_STR("$users");
        say_event(e);
        change_password("ada", "x", "y");
        expect_ended(said_to, GRPC_INVALID_ARGUMENT, "is no account");
    }
    create("bob", "secret", "Bob");
    details("");
    assert_string_equal(told(), "admin[Administrator|$admins] bob[Bob|readers|writers] "
                                "ops[Operations|$ops]");
    end();
}

/* A thread each; the store's condition decides who was first. */
static void *add_group(void *name)
{
    struct arena arena;
    arena_init(&arena, SIZE_MAX);
    for (unsigned i = 0; i < 20;) {
        struct account a;
        struct deed_error trouble;
        expect_ok(accounts_load(store, DEED_STR("ada"), &arena, &a, &trouble));
        deed_str *groups = arena_alloc_array(&arena, a.group_count + 1, sizeof *groups);
        for (size_t k = 0; k < a.group_count; k++) groups[k] = a.groups[k];
        groups[a.group_count++] = deed_str_of(name);
        a.groups = groups;
        deed_status status = accounts_save(store, &a, ACCOUNT_UPDATED, &trouble);
        if (status == DEED_CONFLICT) continue;
        expect_ok(status);
        i++;
    }
    arena_done(&arena);
    return NULL;
}

TEST(grpc_users, no_change_is_lost_between_two)
{
    begin();
    create("ada", "secret", "Ada");
    pthread_t threads[2];
    assert_int_equal(pthread_create(&threads[0], NULL, add_group, text("x")), 0);
    assert_int_equal(pthread_create(&threads[1], NULL, add_group, text("y")), 0);
    for (int i = 0; i < 2; i++) assert_int_equal(pthread_join(threads[i], NULL), 0);
    struct arena arena;
    struct account a;
    arena_init(&arena, SIZE_MAX);
    expect_ok(accounts_load(store, DEED_STR("ada"), &arena, &a, &err));
    assert_int_equal(a.group_count, 42);
    arena_done(&arena);
    end();
}

/* ---- passwords ------------------------------------------------------------------------------ */

TEST(grpc_users, no_event_holds_a_password)
{
    begin();
    create("ada", "correct horse", "Ada");
    change_password("ada", "correct horse", "battery staple");
    struct deed_read_options all = {.filter.system = true};
    struct deed_cursor *cursor;
    struct deed_event e;
    unsigned seen = 0;
    expect_ok(store_read(store, &all, &cursor, &err));
    while (cursor_next(cursor, &e, &err) == DEED_OK) {
        if (e.data.len == 0) continue;
        seen += memmem(e.data.ptr, e.data.len, "argon2id", 8) != NULL;
        assert_null(memmem(e.data.ptr, e.data.len, "horse", 5));
        assert_null(memmem(e.data.ptr, e.data.len, "staple", 6));
    }
    cursor_close(cursor);
    assert_int_equal(seen, 2);
    end();
}

TEST(grpc_users, a_password_is_right_or_wrong)
{
    struct password p, q;
    bool right = false;
    os = os_real();
    deed_bytes word = deed_bytes_of(DEED_STR("with a \0 in it"));
    expect_ok(password_make(os, word, &p, &err));
    expect_ok(password_make(os, word, &q, &err));
    assert_memory_not_equal(p.salt, q.salt, sizeof p.salt);
    assert_memory_not_equal(p.hash, q.hash, sizeof p.hash);
    expect_ok(password_check(&p, word, &right, &err));
    assert_true(right);
    word.len--;
    expect_ok(password_check(&p, word, &right, &err));
    assert_false(right);
    p.passes = 0;
    right = true;
    expect_ok(password_check(&p, word, &right, &err));
    assert_false(right);
}

TEST(grpc_users, a_hash_is_kept_with_what_it_cost)
{
    static const char *const json = "{\"algorithm\":\"argon2id\",\"passes\":2,\"memory\":8388608,"
                                    "\"salt\":\"c29tZXNhbHRzb21lc2FsdA==\",\"hash\":\"%s\"}";
    struct password p = {.passes = 2, .memory_size = 8388608};
    struct arena arena;
    struct buf out;
    json_value value;
    char text_of[512], hash[64];
    memcpy(p.salt, "somesaltsomesalt", sizeof p.salt);
    memset(p.hash, 7, sizeof p.hash);
    arena_init(&arena, SIZE_MAX);
    buf_init(&out, 4096);
    struct json_writer w;
    json_writer_init(&w, &out);
    password_write(&w, &p);
    (void)snprintf(hash, sizeof hash, "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=");
    int size = snprintf(text_of, sizeof text_of, json, hash);
    assert_int_equal(out.len, size);
    assert_memory_equal(out.ptr, text_of, out.len);
    expect_ok(json_parse(&arena, buf_bytes(&out), 0, &value, &err));
    struct password back;
    assert_true(password_read(value, &back));
    assert_memory_equal(back.hash, p.hash, sizeof p.hash);
    assert_int_equal(back.memory_size, 8388608);
    assert_false(password_read((json_value){0}, &back));
    buf_done(&out);
    arena_done(&arena);
}

static void *hash_some(void *busy)
{
    struct password p;
    struct deed_error trouble;
    for (unsigned i = 0; i < 6; i++) {
        deed_status status = password_make(os, deed_bytes_of(DEED_STR("x")), &p, &trouble);
        if (status == DEED_BUSY) *(unsigned *)busy += 1;
        else expect_ok(status);
    }
    return NULL;
}

TEST(grpc_users, only_so_many_are_hashed_at_once)
{
    enum { THREADS = 12 };
    pthread_t threads[THREADS];
    unsigned busy[THREADS] = {0}, all = 0;
    os = os_real();
    for (int i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, hash_some, &busy[i]), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
        all += busy[i];
    }
    assert_true(all > 0);
    struct password p;
    expect_ok(password_make(os, deed_bytes_of(DEED_STR("x")), &p, &err));
}

TEST_MAIN(grpc_users)
