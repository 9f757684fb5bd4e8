-- Orders, the newest first: all of them, or those of a customer, with a status, of some days.
SELECT order_id, status, customer_id, customer_name, order_date, currency, lines, items, total_cents
  FROM order_summary
 WHERE (:customer_id? IS NULL OR customer_id = :customer_id?)
   AND (:status? IS NULL OR status = :status?)
   AND (:from? IS NULL OR order_date >= :from?)
   AND (:to? IS NULL OR order_date <= :to?)
 ORDER BY order_date DESC, order_id DESC
 LIMIT coalesce(CAST(:limit? AS INTEGER), 100);
