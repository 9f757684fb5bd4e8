-- What was ordered, line by line. A line that was removed is gone; those of a cancelled order stay,
-- marked.
--
-- projection: order_lines

-- tables
CREATE TABLE order_lines (
    order_id         TEXT NOT NULL,
    line_id          TEXT NOT NULL,
    product_id       TEXT NOT NULL,
    product_name     TEXT NOT NULL,
    quantity         INTEGER NOT NULL,
    unit_price_cents INTEGER NOT NULL,
    discount_percent INTEGER NOT NULL,
    line_total_cents INTEGER NOT NULL,
    cancelled        INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (order_id, line_id)
) WITHOUT ROWID;

-- on OrderLineItemAdded
INSERT INTO order_lines (order_id, line_id, product_id, product_name, quantity, unit_price_cents,
                         discount_percent, line_total_cents)
VALUES (:data.order_id, :data.line_id, :data.product_id, :data.product_name, :data.quantity,
        :data.unit_price_cents, :data.discount_percent, :data.line_total_cents);

-- on OrderLineItemRemoved
DELETE FROM order_lines WHERE order_id = :data.order_id AND line_id = :data.line_id;

-- on OrderCancelled
UPDATE order_lines SET cancelled = 1 WHERE order_id = :data.order_id;
