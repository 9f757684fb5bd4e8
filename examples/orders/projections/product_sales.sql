-- How much of each product was sold, by currency. Removed lines and cancelled orders do not count.
--
-- projection: product_sales

-- tables
CREATE TABLE product_sales (
    product_id       TEXT NOT NULL,
    currency         TEXT NOT NULL,
    product_name     TEXT NOT NULL, -- as in the last line
    lines            INTEGER NOT NULL,
    quantity         INTEGER NOT NULL,
    list_cents       INTEGER NOT NULL, -- at unit prices
    total_cents      INTEGER NOT NULL, -- after discounts
    PRIMARY KEY (product_id, currency)
) WITHOUT ROWID;
-- An order's currency is said once, and a cancelled order's lines are not said again.
CREATE TABLE product_sales_orders (
    order_id         TEXT PRIMARY KEY,
    currency         TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE product_sales_lines (
    order_id         TEXT NOT NULL,
    line_id          TEXT NOT NULL,
    product_id       TEXT NOT NULL,
    quantity         INTEGER NOT NULL,
    list_cents       INTEGER NOT NULL,
    total_cents      INTEGER NOT NULL,
    PRIMARY KEY (order_id, line_id)
) WITHOUT ROWID;

-- on OrderCreated
INSERT INTO product_sales_orders (order_id, currency) VALUES (:data.order_id, :data.currency);

-- on OrderLineItemAdded
INSERT INTO product_sales_lines (order_id, line_id, product_id, quantity, list_cents, total_cents)
VALUES (:data.order_id, :data.line_id, :data.product_id, :data.quantity,
        :data.quantity * :data.unit_price_cents, :data.line_total_cents);

INSERT INTO product_sales (product_id, currency, product_name, lines, quantity, list_cents,
                           total_cents)
SELECT :data.product_id, currency, :data.product_name, 1, :data.quantity,
       :data.quantity * :data.unit_price_cents, :data.line_total_cents
  FROM product_sales_orders
 WHERE order_id = :data.order_id
    ON CONFLICT (product_id, currency) DO UPDATE
   SET product_name = excluded.product_name, lines = lines + 1,
       quantity = quantity + excluded.quantity, list_cents = list_cents + excluded.list_cents,
       total_cents = total_cents + excluded.total_cents;

-- on OrderLineItemRemoved
UPDATE product_sales
   SET lines = lines - 1, quantity = quantity - :data.quantity,
       list_cents = list_cents - :data.quantity * :data.unit_price_cents,
       total_cents = total_cents - :data.line_total_cents
 WHERE product_id = :data.product_id
   AND currency = (SELECT currency FROM product_sales_orders WHERE order_id = :data.order_id);

DELETE FROM product_sales_lines WHERE order_id = :data.order_id AND line_id = :data.line_id;

-- on OrderCancelled
UPDATE product_sales
   SET lines = product_sales.lines - gone.lines, quantity = product_sales.quantity - gone.quantity,
       list_cents = product_sales.list_cents - gone.list_cents,
       total_cents = product_sales.total_cents - gone.total_cents
  FROM (SELECT product_id, count(*) AS lines, sum(quantity) AS quantity,
               sum(list_cents) AS list_cents, sum(total_cents) AS total_cents
          FROM product_sales_lines
         WHERE order_id = :data.order_id
         GROUP BY product_id) AS gone
 WHERE product_sales.product_id = gone.product_id
   AND product_sales.currency =
       (SELECT currency FROM product_sales_orders WHERE order_id = :data.order_id);

DELETE FROM product_sales_lines WHERE order_id = :data.order_id;
