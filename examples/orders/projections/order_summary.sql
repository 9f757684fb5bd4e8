-- Each order as it stands: what a list of orders shows, one row an order.
--
-- projection: order_summary

-- tables
CREATE TABLE order_summary (
    order_id         TEXT PRIMARY KEY,
    status           TEXT NOT NULL DEFAULT 'open', -- open, shipped, delivered, cancelled
    customer_id      TEXT NOT NULL,
    customer_name    TEXT NOT NULL,
    order_date       TEXT NOT NULL,
    currency         TEXT NOT NULL,
    lines            INTEGER NOT NULL DEFAULT 0,
    items            INTEGER NOT NULL DEFAULT 0,
    total_cents      INTEGER NOT NULL,
    ship_city        TEXT NOT NULL,
    ship_country     TEXT NOT NULL,
    carrier          TEXT,
    tracking_number  TEXT,
    shipped_on       TEXT,
    delivered_on     TEXT,
    signed_by        TEXT,
    cancelled_because TEXT,
    revision         INTEGER NOT NULL, -- of its last event: what If-Match compares with
    changed_at       TEXT NOT NULL
);
CREATE INDEX order_summary_by_customer ON order_summary (customer_id, order_date);
CREATE INDEX order_summary_by_status ON order_summary (status, order_date);

-- on OrderCreated
INSERT INTO order_summary (order_id, customer_id, customer_name, order_date, currency, total_cents,
                           ship_city, ship_country, revision, changed_at)
VALUES (:data.order_id, :data.customer.id, :data.customer.name, :data.order_date, :data.currency,
        :data.order_total_cents, :data.shipping_address.city, :data.shipping_address.country,
        :revision, :time);

-- on OrderLineItemAdded
UPDATE order_summary
   SET lines = lines + 1, items = items + :data.quantity, total_cents = :data.order_total_cents,
       revision = :revision, changed_at = :time
 WHERE order_id = :data.order_id;

-- on OrderLineItemRemoved
UPDATE order_summary
   SET lines = lines - 1, items = items - :data.quantity, total_cents = :data.order_total_cents,
       revision = :revision, changed_at = :time
 WHERE order_id = :data.order_id;

-- on OrderShipped
UPDATE order_summary
   SET status = 'shipped', carrier = :data.carrier, tracking_number = :data.tracking_number,
       shipped_on = :data.shipped_on, revision = :revision, changed_at = :time
 WHERE order_id = :data.order_id;

-- on OrderDelivered
UPDATE order_summary
   SET status = 'delivered', delivered_on = :data.delivered_on, signed_by = :data.signed_by,
       revision = :revision, changed_at = :time
 WHERE order_id = :data.order_id;

-- on OrderCancelled
UPDATE order_summary
   SET status = 'cancelled', cancelled_because = :data.reason, revision = :revision,
       changed_at = :time
 WHERE order_id = :data.order_id;
