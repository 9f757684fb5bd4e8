-- A customer's orders, the newest first.
SELECT order_id, status, order_date, currency, lines, items, total_cents
  FROM order_summary
 WHERE customer_id = :customer_id
 ORDER BY order_date DESC, order_id DESC;
