/* orders.c - an order service: what a shop may do with an order, and what that changes.
 *
 * docs/orders.md lists the bodies, the events and the rules. Each amount is whole cents. */
#include <deedbook_domain.h>

/* clang-format off: one member a line */

/* Past this, JSON readers that keep numbers as doubles would round. */
#define CENTS_MAX INT64_C(9007199254740991)

DEED_STRUCT(customer, DEED_TEXT(id, DEED_NOT_EMPTY), DEED_TEXT(name, DEED_NOT_EMPTY));

DEED_STRUCT(address,
            DEED_TEXT(street),
            DEED_TEXT(city),
            DEED_TEXT(region, DEED_OPTIONAL),
            DEED_TEXT(postal_code, DEED_OPTIONAL),
            DEED_TEXT(country));

/* ---- state ---------------------------------------------------------------------------------- */

DEED_STRUCT(order_line,
            DEED_TEXT(line_id),
            DEED_TEXT(product_id),
            DEED_TEXT(product_name),
            DEED_INT(quantity),
            DEED_INT(unit_price_cents),
            DEED_INT(discount_percent),
            DEED_INT(line_total_cents));

DEED_STRUCT(order,
            DEED_TEXT(order_id),
            DEED_TEXT(status, DEED_ONE_OF("open", "shipped", "delivered", "cancelled")),
            DEED_OBJECT(customer, customer),
            DEED_OBJECT(shipping_address, address),
            DEED_TEXT(currency),
            DEED_DATE(order_date),
            DEED_LIST(lines, order_line),
            DEED_INT(order_total_cents),
            DEED_TEXT(carrier, DEED_OPTIONAL),
            DEED_TEXT(tracking_number, DEED_OPTIONAL),
            DEED_DATE(shipped_on, DEED_OPTIONAL),
            DEED_DATE(delivered_on, DEED_OPTIONAL),
            DEED_TEXT(signed_by, DEED_OPTIONAL),
            DEED_TEXT(cancel_reason, DEED_OPTIONAL));

/* ---- events --------------------------------------------------------------------------------- */

DEED_STRUCT(OrderCreated,
            DEED_TEXT(order_id),
            DEED_OBJECT(customer, customer),
            DEED_OBJECT(shipping_address, address),
            DEED_TEXT(currency),
            DEED_DATE(order_date),
            DEED_INT(order_total_cents));

DEED_EVOLVE(OrderCreated, order, event)
{
    order->order_id = event->order_id;
    order->status = DEED_STR("open");
    order->customer = event->customer;
    order->shipping_address = event->shipping_address;
    order->currency = event->currency;
    order->order_date = event->order_date;
    order->order_total_cents = event->order_total_cents;
}

DEED_STRUCT(OrderLineItemAdded,
            DEED_TEXT(order_id),
            DEED_TEXT(line_id),
            DEED_TEXT(product_id),
            DEED_TEXT(product_name),
            DEED_INT(quantity),
            DEED_INT(unit_price_cents),
            DEED_INT(discount_percent),
            DEED_INT(line_total_cents),
            DEED_INT(order_total_cents));

DEED_EVOLVE(OrderLineItemAdded, order, event)
{
    *deed_list_add(ctx, &order->lines) = (struct order_line){
        .line_id = event->line_id,
        .product_id = event->product_id,
        .product_name = event->product_name,
        .quantity = event->quantity,
        .unit_price_cents = event->unit_price_cents,
        .discount_percent = event->discount_percent,
        .line_total_cents = event->line_total_cents,
    };
    order->order_total_cents = event->order_total_cents;
}

DEED_STRUCT(OrderLineItemRemoved,
            DEED_TEXT(order_id),
            DEED_TEXT(line_id),
            DEED_TEXT(product_id),
            DEED_TEXT(product_name),
            DEED_INT(quantity),
            DEED_INT(unit_price_cents),
            DEED_INT(discount_percent),
            DEED_INT(line_total_cents),
            DEED_INT(order_total_cents));

/* Where the line is, or the count of lines. */
static size_t find_line(const struct order *order, deed_str line_id)
{
    size_t i = 0;
    while (i < order->lines.count && !deed_str_equal(order->lines.items[i].line_id, line_id)) i++;
    return i;
}

DEED_EVOLVE(OrderLineItemRemoved, order, event)
{
    deed_list_remove(&order->lines, find_line(order, event->line_id));
    order->order_total_cents = event->order_total_cents;
}

DEED_STRUCT(OrderShipped,
            DEED_TEXT(order_id),
            DEED_TEXT(carrier),
            DEED_TEXT(tracking_number),
            DEED_DATE(shipped_on));

DEED_EVOLVE(OrderShipped, order, event)
{
    order->status = DEED_STR("shipped");
    order->carrier = event->carrier;
    order->tracking_number = event->tracking_number;
    order->shipped_on = event->shipped_on;
}

DEED_STRUCT(OrderDelivered, DEED_TEXT(order_id), DEED_DATE(delivered_on), DEED_TEXT(signed_by));

DEED_EVOLVE(OrderDelivered, order, event)
{
    order->status = DEED_STR("delivered");
    order->delivered_on = event->delivered_on;
    order->signed_by = event->signed_by;
}

DEED_STRUCT(OrderCancelled, DEED_TEXT(order_id), DEED_TEXT(reason));

DEED_EVOLVE(OrderCancelled, order, event)
{
    order->status = DEED_STR("cancelled");
    order->cancel_reason = event->reason;
}

/* ---- rules ---------------------------------------------------------------------------------- */

static bool has_status(const struct order *order, const char *status)
{
    return deed_str_equal(order->status, deed_str_of(status));
}

static deed_decision must_not_be(struct deed_context *ctx, const struct order *order,
                                 const char *status, const char *code)
{
    DEED_REJECT_IF(has_status(order, status), code, "order %.*s has been %s", DEED_FMT(ctx->id),
                   status);
    return deed_accept(ctx);
}

static deed_decision must_be_open(struct deed_context *ctx, const struct order *order)
{
    DEED_TRY(must_not_be(ctx, order, "shipped", "order_shipped"));
    DEED_TRY(must_not_be(ctx, order, "delivered", "order_delivered"));
    return must_not_be(ctx, order, "cancelled", "order_cancelled");
}

/* round half up(quantity * unit price * (100 - discount) / 100); false: over CENTS_MAX. All three
 * are not negative here. */
static bool line_total(int64_t quantity, int64_t unit_price_cents, int64_t discount_percent,
                       int64_t *out_cents)
{
    int64_t full, hundredths;
    if (__builtin_mul_overflow(quantity, unit_price_cents, &full)) return false;
    if (__builtin_mul_overflow(full, 100 - discount_percent, &hundredths)) return false;
    *out_cents = hundredths / 100 + (hundredths % 100 >= 50 ? 1 : 0);
    return *out_cents <= CENTS_MAX;
}

DEED_STRUCT(new_line,
            DEED_TEXT(line_id, DEED_NOT_EMPTY),
            DEED_TEXT(product_id, DEED_NOT_EMPTY),
            DEED_TEXT(product_name, DEED_NOT_EMPTY),
            DEED_INT(quantity),
            DEED_INT(unit_price_cents),
            DEED_INT(discount_percent));

static deed_decision add_line(struct deed_context *ctx, const struct order *order,
                              const struct new_line *line)
{
    DEED_REJECT_IF(find_line(order, line->line_id) < order->lines.count, "line_exists",
                   "order %.*s has a line %.*s already", DEED_FMT(ctx->id),
                   DEED_FMT(line->line_id));
    DEED_REJECT_IF(line->quantity < 1, "quantity_not_positive",
                   "line %.*s: the quantity is %lld, it must be at least 1",
                   DEED_FMT(line->line_id), (long long)line->quantity);
    DEED_REJECT_IF(line->unit_price_cents < 1, "price_not_positive",
                   "line %.*s: the unit price is %lld cents, it must be at least 1",
                   DEED_FMT(line->line_id), (long long)line->unit_price_cents);
    DEED_REJECT_IF(line->discount_percent < 0 || line->discount_percent > 100,
                   "discount_out_of_range",
                   "line %.*s: the discount is %lld percent, it must be from 0 to 100",
                   DEED_FMT(line->line_id), (long long)line->discount_percent);

    int64_t total = 0;
    bool fits = line_total(line->quantity, line->unit_price_cents, line->discount_percent, &total);
    DEED_REJECT_IF(!fits || total > CENTS_MAX - order->order_total_cents, "amount_too_large",
                   "line %.*s: the amount would pass %lld cents", DEED_FMT(line->line_id),
                   (long long)CENTS_MAX);

    return DEED_EMIT(OrderLineItemAdded,
                     .order_id = ctx->id,
                     .line_id = line->line_id,
                     .product_id = line->product_id,
                     .product_name = line->product_name,
                     .quantity = line->quantity,
                     .unit_price_cents = line->unit_price_cents,
                     .discount_percent = line->discount_percent,
                     .line_total_cents = total,
                     .order_total_cents = order->order_total_cents + total);
}

/* ---- commands ------------------------------------------------------------------------------- */

DEED_STRUCT(CreateOrder,
            DEED_TEXT(order_id, DEED_NOT_EMPTY),
            DEED_OBJECT(customer, customer),
            DEED_OBJECT(shipping_address, address),
            DEED_TEXT(currency, DEED_NOT_EMPTY),
            DEED_DATE(order_date),
            DEED_LIST(lines, new_line, DEED_OPTIONAL));

static bool is_currency(deed_str text)
{
    if (text.len != 3) return false;
    for (size_t i = 0; i < text.len; i++) {
        if (text.ptr[i] < 'A' || text.ptr[i] > 'Z') return false;
    }
    return true;
}

DEED_DECIDE(CreateOrder, order, command)
{
    DEED_REJECT_IF(!is_currency(command->currency), "currency_unknown",
                   "%.*s is no currency: three capital letters are", DEED_FMT(command->currency));
    DEED_EMIT(OrderCreated,
              .order_id = command->order_id,
              .customer = command->customer,
              .shipping_address = command->shipping_address,
              .currency = command->currency,
              .order_date = command->order_date,
              .order_total_cents = 0);
    for (size_t i = 0; i < command->lines.count; i++) {
        DEED_TRY(add_line(ctx, order, &command->lines.items[i]));
    }
    return deed_accept(ctx);
}

DEED_STRUCT(AddLineItem,
            DEED_TEXT(order_id, DEED_NOT_EMPTY),
            DEED_TEXT(line_id, DEED_NOT_EMPTY),
            DEED_TEXT(product_id, DEED_NOT_EMPTY),
            DEED_TEXT(product_name, DEED_NOT_EMPTY),
            DEED_INT(quantity),
            DEED_INT(unit_price_cents),
            DEED_INT(discount_percent));

DEED_DECIDE(AddLineItem, order, command)
{
    DEED_TRY(must_be_open(ctx, order));
    return add_line(ctx, order,
                    &(const struct new_line){
                        .line_id = command->line_id,
                        .product_id = command->product_id,
                        .product_name = command->product_name,
                        .quantity = command->quantity,
                        .unit_price_cents = command->unit_price_cents,
                        .discount_percent = command->discount_percent,
                    });
}

DEED_STRUCT(RemoveLineItem,
            DEED_TEXT(order_id, DEED_NOT_EMPTY),
            DEED_TEXT(line_id, DEED_NOT_EMPTY));

DEED_DECIDE(RemoveLineItem, order, command)
{
    DEED_TRY(must_be_open(ctx, order));
    size_t i = find_line(order, command->line_id);
    DEED_REJECT_IF(i == order->lines.count, "line_not_found", "order %.*s has no line %.*s",
                   DEED_FMT(ctx->id), DEED_FMT(command->line_id));

    const struct order_line *line = &order->lines.items[i];
    return DEED_EMIT(OrderLineItemRemoved,
                     .order_id = command->order_id,
                     .line_id = line->line_id,
                     .product_id = line->product_id,
                     .product_name = line->product_name,
                     .quantity = line->quantity,
                     .unit_price_cents = line->unit_price_cents,
                     .discount_percent = line->discount_percent,
                     .line_total_cents = line->line_total_cents,
                     .order_total_cents = order->order_total_cents - line->line_total_cents);
}

DEED_STRUCT(ShipOrder,
            DEED_TEXT(order_id, DEED_NOT_EMPTY),
            DEED_TEXT(carrier, DEED_NOT_EMPTY),
            DEED_TEXT(tracking_number, DEED_NOT_EMPTY),
            DEED_DATE(shipped_on));

DEED_DECIDE(ShipOrder, order, command)
{
    DEED_TRY(must_be_open(ctx, order));
    DEED_REJECT_IF(order->lines.count == 0, "order_empty", "order %.*s has no lines to ship",
                   DEED_FMT(ctx->id));
    DEED_REJECT_IF(deed_compare(command->shipped_on, order->order_date) < 0, "shipped_too_early",
                   "order %.*s cannot be shipped on %.*s: it is of %.*s", DEED_FMT(ctx->id),
                   DEED_FMT(command->shipped_on), DEED_FMT(order->order_date));
    return DEED_EMIT(OrderShipped,
                     .order_id = command->order_id,
                     .carrier = command->carrier,
                     .tracking_number = command->tracking_number,
                     .shipped_on = command->shipped_on);
}

DEED_STRUCT(DeliverOrder,
            DEED_TEXT(order_id, DEED_NOT_EMPTY),
            DEED_DATE(delivered_on),
            DEED_TEXT(signed_by, DEED_NOT_EMPTY));

DEED_DECIDE(DeliverOrder, order, command)
{
    DEED_TRY(must_not_be(ctx, order, "delivered", "order_delivered"));
    DEED_TRY(must_not_be(ctx, order, "cancelled", "order_cancelled"));
    DEED_REJECT_IF(!has_status(order, "shipped"), "order_not_shipped",
                   "order %.*s has not been shipped", DEED_FMT(ctx->id));
    DEED_REJECT_IF(deed_compare(command->delivered_on, order->shipped_on) < 0,
                   "delivered_too_early",
                   "order %.*s cannot be delivered on %.*s: it was shipped on %.*s",
                   DEED_FMT(ctx->id), DEED_FMT(command->delivered_on),
                   DEED_FMT(order->shipped_on));
    return DEED_EMIT(OrderDelivered,
                     .order_id = command->order_id,
                     .delivered_on = command->delivered_on,
                     .signed_by = command->signed_by);
}

DEED_STRUCT(CancelOrder,
            DEED_TEXT(order_id, DEED_NOT_EMPTY),
            DEED_TEXT(reason, DEED_NOT_EMPTY));

DEED_DECIDE(CancelOrder, order, command)
{
    DEED_TRY(must_be_open(ctx, order));
    return DEED_EMIT(OrderCancelled, .order_id = command->order_id, .reason = command->reason);
}

/* ---- the tables ----------------------------------------------------------------------------- */

static const struct deed_event_type order_events[] = {
    DEED_EVENT(OrderCreated, DEED_ABOUT("an order was placed; its lines follow")),
    DEED_EVENT(OrderLineItemAdded, DEED_ABOUT("a line was added; the order's new total")),
    DEED_EVENT(OrderLineItemRemoved, DEED_ABOUT("a line was taken off; the order's new total")),
    DEED_EVENT(OrderShipped, DEED_ABOUT("the order left the shop")),
    DEED_EVENT(OrderDelivered, DEED_ABOUT("somebody signed for it")),
    DEED_EVENT(OrderCancelled, DEED_ABOUT("it will not be shipped")),
};

static const struct deed_command_type order_commands[] = {
    DEED_COMMAND(CreateOrder, order_id, DEED_MUST_NOT_EXIST,
                 DEED_ABOUT("place an order, with its lines or without")),
    DEED_COMMAND(AddLineItem, order_id, DEED_MUST_EXIST),
    DEED_COMMAND(RemoveLineItem, order_id, DEED_MUST_EXIST),
    DEED_COMMAND(ShipOrder, order_id, DEED_MUST_EXIST),
    DEED_COMMAND(DeliverOrder, order_id, DEED_MUST_EXIST),
    DEED_COMMAND(CancelOrder, order_id, DEED_MUST_EXIST),
};

static const struct deed_aggregate aggregates[] = {
    DEED_AGGREGATE("order", order, order_events, order_commands),
};

DEED_EXPORT_DOMAIN("orders", aggregates);
