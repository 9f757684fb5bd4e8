-- What customers have ordered, the largest total first: all of them, or one.
SELECT customer_id, customer_name, currency, orders, total_cents, last_order_date
  FROM customer_totals
 WHERE :customer_id? IS NULL OR customer_id = :customer_id?
 ORDER BY total_cents DESC, customer_id, currency;
