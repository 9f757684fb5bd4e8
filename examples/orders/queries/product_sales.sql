-- What was sold of each product, the largest total first: all of them, or one.
SELECT product_id, product_name, currency, lines, quantity, list_cents, total_cents
  FROM product_sales
 WHERE (:product_id? IS NULL OR product_id = :product_id?) AND lines > 0
 ORDER BY total_cents DESC, product_id, currency;
