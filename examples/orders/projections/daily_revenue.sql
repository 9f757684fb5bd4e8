-- What each day's orders come to, by currency. An order counts on its order date, with what it comes
-- to now, until it is cancelled.
--
-- projection: daily_revenue

-- tables
CREATE TABLE daily_revenue (
    day              TEXT NOT NULL,
    currency         TEXT NOT NULL,
    orders           INTEGER NOT NULL,
    total_cents      INTEGER NOT NULL,
    PRIMARY KEY (day, currency)
) WITHOUT ROWID;
CREATE TABLE daily_revenue_orders (
    order_id         TEXT PRIMARY KEY,
    day              TEXT NOT NULL,
    currency         TEXT NOT NULL,
    total_cents      INTEGER NOT NULL
) WITHOUT ROWID;

-- on OrderCreated
INSERT INTO daily_revenue_orders (order_id, day, currency, total_cents)
VALUES (:data.order_id, :data.order_date, :data.currency, :data.order_total_cents);

INSERT INTO daily_revenue (day, currency, orders, total_cents)
VALUES (:data.order_date, :data.currency, 1, :data.order_total_cents)
    ON CONFLICT (day, currency) DO UPDATE
   SET orders = orders + 1, total_cents = total_cents + excluded.total_cents;

-- on OrderLineItemAdded, OrderLineItemRemoved
UPDATE daily_revenue
   SET total_cents = daily_revenue.total_cents + :data.order_total_cents - o.total_cents
  FROM daily_revenue_orders AS o
 WHERE o.order_id = :data.order_id
   AND daily_revenue.day = o.day AND daily_revenue.currency = o.currency;

UPDATE daily_revenue_orders SET total_cents = :data.order_total_cents
 WHERE order_id = :data.order_id;

-- on OrderCancelled
UPDATE daily_revenue
   SET orders = orders - 1, total_cents = daily_revenue.total_cents - o.total_cents
  FROM daily_revenue_orders AS o
 WHERE o.order_id = :data.order_id
   AND daily_revenue.day = o.day AND daily_revenue.currency = o.currency;

DELETE FROM daily_revenue_orders WHERE order_id = :data.order_id;
