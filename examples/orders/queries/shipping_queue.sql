-- Orders that wait to be packed, in the order in which they came: all of them, or those of a country.
SELECT order_id, order_date, customer_name, street, city, region, postal_code, country, lines, items
  FROM shipping_queue
 WHERE lines > 0 AND (:country? IS NULL OR country = :country?)
 ORDER BY position;
