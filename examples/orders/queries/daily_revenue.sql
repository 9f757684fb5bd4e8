-- What each day's orders come to, from one day to another, both included.
SELECT day, currency, orders, total_cents
  FROM daily_revenue
 WHERE orders > 0
   AND (:from? IS NULL OR day >= :from?)
   AND (:to? IS NULL OR day <= :to?)
 ORDER BY day, currency;
