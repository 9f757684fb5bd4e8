-- What the warehouse has to pack: orders that were neither shipped nor cancelled. An order without
-- lines waits here too; the query leaves it out until there is something to pack.
--
-- projection: shipping_queue

-- tables
CREATE TABLE shipping_queue (
    order_id         TEXT PRIMARY KEY,
    order_date       TEXT NOT NULL,
    customer_name    TEXT NOT NULL,
    street           TEXT NOT NULL,
    city             TEXT NOT NULL,
    region           TEXT,
    postal_code      TEXT,
    country          TEXT NOT NULL,
    lines            INTEGER NOT NULL DEFAULT 0,
    items            INTEGER NOT NULL DEFAULT 0,
    position         INTEGER NOT NULL -- of OrderCreated: first come, first served
);

-- on OrderCreated
INSERT INTO shipping_queue (order_id, order_date, customer_name, street, city, region, postal_code,
                            country, position)
VALUES (:data.order_id, :data.order_date, :data.customer.name, :data.shipping_address.street,
        :data.shipping_address.city, :data.shipping_address.region?,
        :data.shipping_address.postal_code?, :data.shipping_address.country, :position);

-- on OrderLineItemAdded
UPDATE shipping_queue SET lines = lines + 1, items = items + :data.quantity
 WHERE order_id = :data.order_id;

-- on OrderLineItemRemoved
UPDATE shipping_queue SET lines = lines - 1, items = items - :data.quantity
 WHERE order_id = :data.order_id;

-- on OrderShipped, OrderCancelled
DELETE FROM shipping_queue WHERE order_id = :data.order_id;
