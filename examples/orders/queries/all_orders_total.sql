-- What all orders that were not cancelled come to, in cents: at list prices, the discounts, and after
-- them.
SELECT count(DISTINCT order_id) AS orders, count(*) AS lines,
       coalesce(sum(quantity), 0) AS items,
       coalesce(sum(quantity * unit_price_cents), 0) AS list_cents,
       coalesce(sum(quantity * unit_price_cents - line_total_cents), 0) AS discount_cents,
       coalesce(sum(line_total_cents), 0) AS total_cents
  FROM order_lines
 WHERE cancelled = 0;
