-- The lines of one order.
SELECT line_id, product_id, product_name, quantity, unit_price_cents, discount_percent,
       line_total_cents
  FROM order_lines
 WHERE order_id = :order_id
 ORDER BY line_id;
