-- Where an order is, and what it still waits for: two read models side by side.
SELECT s.order_id, s.status, s.total_cents, s.tracking_number, q.order_id IS NOT NULL AS is_waiting,
       (SELECT count(*) FROM shipping_queue AS before
         WHERE before.position < q.position AND before.lines > 0) AS orders_before
  FROM order_summary AS s LEFT JOIN shipping_queue AS q ON q.order_id = s.order_id
 WHERE s.order_id = :order_id;
