-- How many orders there are in each status, and what they come to.
SELECT status, currency, count(*) AS orders, sum(total_cents) AS total_cents
  FROM order_summary
 GROUP BY status, currency
 ORDER BY status, currency;
