/* orders.c - Deedbook inside a program: append, read, follow, decide, project, query.
 *
 *     cc orders.c -o orders $(pkg-config --cflags --libs deedbook) && ./orders /tmp/shop */
#include <deedbook.h>
#include <deedbook_domain.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

/* The domain: an order has lines and a total, and takes no lines once it is shipped. */
DEED_STRUCT(order, DEED_INT(total_cents), DEED_BOOL(shipped));
DEED_STRUCT(LineAdded, DEED_TEXT(order_id), DEED_TEXT(product), DEED_INT(total_cents));
DEED_STRUCT(Shipped, DEED_TEXT(order_id));
DEED_STRUCT(AddLine, DEED_TEXT(order_id), DEED_TEXT(product, DEED_NOT_EMPTY),
            DEED_INT(cents, DEED_MIN(1)));
DEED_STRUCT(Ship, DEED_TEXT(order_id));

DEED_EVOLVE(LineAdded, order, event)
{
    order->total_cents = event->total_cents;
}
DEED_EVOLVE(Shipped, order, event)
{
    order->shipped = true;
}
DEED_DECIDE(AddLine, order, command)
{
    DEED_REJECT_IF(order->shipped, "shipped", "the order has been shipped");
    return DEED_EMIT(LineAdded, .order_id = command->order_id, .product = command->product,
                     .total_cents = order->total_cents + command->cents);
}
DEED_DECIDE(Ship, order, command)
{
    DEED_REJECT_IF(order->total_cents == 0, "empty", "there is nothing to ship");
    return DEED_EMIT(Shipped, .order_id = command->order_id);
}
static const struct deed_event_type events[] = {DEED_EVENT(LineAdded), DEED_EVENT(Shipped)};
static const struct deed_command_type commands[] = {DEED_COMMAND(AddLine, order_id),
                                                    DEED_COMMAND(Ship, order_id)};
static const struct deed_aggregate aggregates[] = {DEED_AGGREGATE("order", order, events, commands)};
DEED_EXPORT_DOMAIN("shop", aggregates);

static void check(deed_status status, const struct deed_error *err)
{
    if (status == DEED_OK) return;
    fprintf(stderr, "%s: %s\n", deed_status_text(status), err->message);
    exit(1);
}

int main(int argc, char **argv)
{
    struct deed *deed = NULL;
    struct deed_error err = {0};
    struct deed_decided decided;
    check(deed_open(argc > 1 ? argv[1] : "shop-data", NULL, &deed, &err), &err);

    /* Commands in, events stored; rows out, no older than the command. */
    check(deed_use_domain(deed, &deed_domain_v1, &err), &err);
    check(deed_add_projection(deed, DEED_STR("-- projection: totals\n"
                                             "-- tables\n"
                                             "CREATE TABLE totals (id TEXT PRIMARY KEY, cents INT);\n"
                                             "-- on LineAdded\n"
                                             "INSERT INTO totals VALUES (:data.order_id, :data.total_cents)\n"
                                             "ON CONFLICT DO UPDATE SET cents = excluded.cents;\n"),
                              &err), &err);
    check(deed_add_query(deed, DEED_STR("totals"), DEED_STR("SELECT id, cents FROM totals"), &err), &err);
    struct deed_command add = {.name = DEED_STR("AddLine"), .actor = DEED_STR("anna"), .data = deed_bytes_of(
                               DEED_STR("{\"order_id\":\"7\",\"product\":\"tea\",\"cents\":450}"))};
    check(deed_decide(deed, &add, &decided, &err), &err);
    char *json = NULL;
    check(deed_query(deed, DEED_STR("totals"), &(struct deed_query_options){.after = decided.position},
                     &json, NULL, &err), &err);
    printf("totals at position %" PRIu64 ": %s\n", decided.position, json);
    deed_free(json);

    /* The events themselves: an append of our own, then all of the log as it grows. */
    struct deed_new_event note = {.stream = DEED_STR("note-1"), .type = DEED_STR("Noted"),
                                  .data = deed_bytes_of(DEED_STR("{\"text\":\"hello\"}"))};
    check(deed_append(deed, &(struct deed_append){.events = &note, .event_count = 1}, NULL, &err), &err);
    struct deed_cursor *cursor = NULL;
    struct deed_event event;
    check(deed_read(deed, &(struct deed_read_options){.follow = true}, &cursor, &err), &err);
    do {
        while (deed_next(cursor, &event, &err) == DEED_OK)
            printf("%" PRIu64 " %.*s@%" PRIu64 " %.*s %.*s\n", event.position, DEED_FMT(event.stream),
                   event.revision, DEED_FMT(event.type), (int)event.data.len, (const char *)event.data.ptr);
    } while (deed_wait(cursor, 100, &err) == DEED_OK);
    deed_cursor_close(cursor);
    deed_close(deed);
}
