-- What each customer has ordered so far, by currency. Cancelled orders do not count.
--
-- projection: customer_totals

-- tables
CREATE TABLE customer_totals (
    customer_id      TEXT NOT NULL,
    currency         TEXT NOT NULL,
    customer_name    TEXT NOT NULL, -- as in the last order
    orders           INTEGER NOT NULL,
    total_cents      INTEGER NOT NULL,
    last_order_date  TEXT NOT NULL, -- of any order, cancelled or not
    PRIMARY KEY (customer_id, currency)
) WITHOUT ROWID;
-- Later events of an order do not say whose it is, nor what it came to before.
CREATE TABLE customer_totals_orders (
    order_id         TEXT PRIMARY KEY,
    customer_id      TEXT NOT NULL,
    currency         TEXT NOT NULL,
    total_cents      INTEGER NOT NULL
) WITHOUT ROWID;

-- on OrderCreated
INSERT INTO customer_totals_orders (order_id, customer_id, currency, total_cents)
VALUES (:data.order_id, :data.customer.id, :data.currency, :data.order_total_cents);

INSERT INTO customer_totals (customer_id, currency, customer_name, orders, total_cents,
                             last_order_date)
VALUES (:data.customer.id, :data.currency, :data.customer.name, 1, :data.order_total_cents,
        :data.order_date)
    ON CONFLICT (customer_id, currency) DO UPDATE
   SET customer_name = excluded.customer_name, orders = orders + 1,
       total_cents = total_cents + excluded.total_cents,
       last_order_date = max(last_order_date, excluded.last_order_date);

-- on OrderLineItemAdded, OrderLineItemRemoved
UPDATE customer_totals
   SET total_cents = customer_totals.total_cents + :data.order_total_cents - o.total_cents
  FROM customer_totals_orders AS o
 WHERE o.order_id = :data.order_id
   AND customer_totals.customer_id = o.customer_id AND customer_totals.currency = o.currency;

UPDATE customer_totals_orders SET total_cents = :data.order_total_cents
 WHERE order_id = :data.order_id;

-- on OrderCancelled
UPDATE customer_totals
   SET orders = orders - 1, total_cents = customer_totals.total_cents - o.total_cents
  FROM customer_totals_orders AS o
 WHERE o.order_id = :data.order_id
   AND customer_totals.customer_id = o.customer_id AND customer_totals.currency = o.currency;

DELETE FROM customer_totals_orders WHERE order_id = :data.order_id;
