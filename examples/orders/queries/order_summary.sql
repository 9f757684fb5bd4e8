-- One order as it stands.
SELECT * FROM order_summary WHERE order_id = :order_id;
