/* accounts.h - who there is: names, groups, passwords.
 *
 * An account is the newest event of stream "$user-LOGIN", whole: $UserCreated, $UserUpdated,
 * $PasswordChanged or $UserDeleted, JSON each. Stream "$users" names every login once, in $User events.
 * "admin" and "ops" are there without being written, with the password "changeit", until somebody
 * changes or deletes them. docs/decisions/0023-accounts.md.
 *
 * Nobody is asked who he is yet: accounts are kept, and not heeded. All of it may read the disk, and
 * wait for it. */
#ifndef API_ACCOUNTS_H
#define API_ACCOUNTS_H

#include "api/password.h"
#include "base/arena.h"
#include "store/store.h"

struct account {
    deed_str login, full_name;
    const deed_str *groups;
    size_t group_count;
    bool there;    /* else it was never made, or deleted */
    bool disabled;
    bool built_in; /* never changed: its password is ACCOUNT_FIRST_PASSWORD, and not in `password` */
    struct password password;
    int64_t updated_ns;
    uint64_t revision; /* of its newest event; DEED_NONE: none */
};
#define ACCOUNT_FIRST_PASSWORD "changeit"

/* Also of a login that has no account (`there`). The slices are in the arena; `login` is borrowed.
 *
 *   DEED_INVALID   the stream's newest event is no account.
 *   DEED_DELETED   the stream has a tombstone: no account of that login can be made any more.
 *   DEED_NO_MEMORY, and what reading a stream returns */
DEED_MUST_CHECK deed_status accounts_load(struct store *store, deed_str login, struct arena *arena,
                                          struct account *out, struct deed_error *err);

enum account_change { ACCOUNT_CREATED, ACCOUNT_UPDATED, ACCOUNT_PASSWORD_CHANGED, ACCOUNT_DELETED };

/* Write it down, if nothing has changed since it was loaded: account->revision says.
 *
 *   DEED_CONFLICT  something has. DEED_INVALID, DEED_TOO_LARGE: a name is not valid.
 *   and what an append returns */
DEED_MUST_CHECK deed_status accounts_save(struct store *store, const struct account *account,
                                          enum account_change change, struct deed_error *err);

/* Is this stream one of those that accounts are kept in? */
bool accounts_own(deed_str stream);

/* Every login that ever had an account, and those that are built in; by name. */
DEED_MUST_CHECK deed_status accounts_logins(struct store *store, struct arena *arena,
                                            deed_str **out_logins, size_t *out_count,
                                            struct deed_error *err);

#endif
