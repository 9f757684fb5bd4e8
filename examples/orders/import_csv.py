#!/usr/bin/env python3
"""Turn a shop's CSV files into commands of the orders example, and send them to a server.

    examples/orders/import_csv.py FOLDER [--server http://127.0.0.1:2113]

FOLDER holds files of the shape of Microsoft's Northwind sample:

    orders.csv         orderID, customerID, employeeID, orderDate, shippedDate, shipVia, shipName,
                       shipAddress, shipCity, shipRegion, shipPostalCode, shipCountry
    order-details.csv  orderID, productID, unitPrice, quantity, discount (0.15 is 15 percent)
    customers.csv      customerID, companyName
    products.csv       productID, productName
    shippers.csv       shipperID, companyName

Columns may stand in any order and others may be there; NULL or nothing is a value that is not
known. Each order becomes CreateOrder, one AddLineItem a line, and ShipOrder once it was shipped. Each
command carries an idempotency key, so that an import that was interrupted can simply be run again.
Needs Python 3 and nothing else.
"""

import argparse
import csv
import http.client
import json
import sys
import urllib.parse
from decimal import Decimal, InvalidOperation
from pathlib import Path


class Trouble(Exception):
    """What a user should read instead of a stack trace."""


def read_csv(folder, name, columns):
    path = Path(folder) / name
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
            header = rows[0].keys() if rows else columns
    except OSError as error:
        raise Trouble(f"{path}: {error.strerror}") from error
    missing = [column for column in columns if column not in header]
    if missing:
        raise Trouble(f"{path}: no column {', '.join(missing)}")
    for number, row in enumerate(rows, 2):
        row["_place"] = f"{path}, line {number}"
    return rows


def known(value):
    """None for NULL and for nothing."""
    return None if value is None or value.strip() in ("", "NULL") else value.strip()


def exact(row, column, factor):
    """A decimal number times a factor, as the whole number it must be."""
    text = known(row[column])
    try:
        value = Decimal(text if text is not None else "0") * factor
    except InvalidOperation as error:
        raise Trouble(f"{row['_place']}: {column} is {row[column]!r}, not a number") from error
    if value != value.to_integral_value():
        raise Trouble(f"{row['_place']}: {column} is {row[column]}, finer than 1/{factor}")
    return int(value)


def date(row, column):
    """The day of "1996-07-04 00:00:00.000"."""
    text = known(row[column])
    return None if text is None else text[:10]


def commands_of(folder):
    """(idempotency key, actor, command, body) in the order in which they are to be sent."""
    customers = {row["customerID"]: row for row in
                 read_csv(folder, "customers.csv", ["customerID", "companyName"])}
    products = {row["productID"]: row for row in
                read_csv(folder, "products.csv", ["productID", "productName"])}
    shippers = {row["shipperID"]: row for row in
                read_csv(folder, "shippers.csv", ["shipperID", "companyName"])}
    lines = {}
    for row in read_csv(folder, "order-details.csv",
                        ["orderID", "productID", "unitPrice", "quantity", "discount"]):
        lines.setdefault(row["orderID"], []).append(row)
    orders = read_csv(folder, "orders.csv",
                      ["orderID", "customerID", "employeeID", "orderDate", "shippedDate", "shipVia",
                       "shipAddress", "shipCity", "shipRegion", "shipPostalCode", "shipCountry"])

    for order in orders:
        order_id = order["orderID"]
        employee = known(order["employeeID"])
        actor = f"employee-{employee}" if employee else "import"
        customer = customers.get(order["customerID"])
        if customer is None:
            raise Trouble(f"{order['_place']}: no customer {order['customerID']} in customers.csv")
        yield f"import-{order_id}-create", actor, "CreateOrder", {
            "order_id": order_id,
            "customer": {"id": order["customerID"], "name": customer["companyName"]},
            "shipping_address": {
                "street": known(order["shipAddress"]) or "",
                "city": known(order["shipCity"]) or "",
                "region": known(order["shipRegion"]),
                "postal_code": known(order["shipPostalCode"]),
                "country": known(order["shipCountry"]) or "",
            },
            "currency": "USD",
            "order_date": date(order, "orderDate"),
        }
        for number, line in enumerate(lines.get(order_id, []), 1):
            product = products.get(line["productID"])
            if product is None:
                raise Trouble(f"{line['_place']}: no product {line['productID']} in products.csv")
            yield f"import-{order_id}-line-{number}", actor, "AddLineItem", {
                "order_id": order_id,
                "line_id": str(number),
                "product_id": line["productID"],
                "product_name": product["productName"],
                "quantity": exact(line, "quantity", 1),
                "unit_price_cents": exact(line, "unitPrice", 100),
                "discount_percent": exact(line, "discount", 100),
            }
        if date(order, "shippedDate") is not None:
            shipper = shippers.get(order["shipVia"])
            yield f"import-{order_id}-ship", actor, "ShipOrder", {
                "order_id": order_id,
                "carrier": shipper["companyName"] if shipper else f"shipper {order['shipVia']}",
                "tracking_number": f"{order['shipVia']}-{order_id}",
                "shipped_on": date(order, "shippedDate"),
            }


def send(connection, key, actor, name, body):
    connection.request("POST", f"/commands/{name}", json.dumps(body, ensure_ascii=False).encode(),
                       {"Content-Type": "application/json", "Idempotency-Key": key,
                        "Deedbook-Actor": actor})
    response = connection.getresponse()
    answer = json.loads(response.read())
    if response.status >= 300:
        raise Trouble(f"{name} of order {body['order_id']}: {response.status} "
                      f"{answer.get('title', '')}: {answer.get('detail', '')}")
    return answer


def main():
    parser = argparse.ArgumentParser(description="Import a shop's CSV files into the orders example.")
    parser.add_argument("folder", help="the folder of the CSV files")
    parser.add_argument("--server", default="http://127.0.0.1:2113")
    arguments = parser.parse_args()
    server = urllib.parse.urlsplit(arguments.server)
    connection = http.client.HTTPConnection(server.hostname, server.port or 80, timeout=60)
    counts, position = {}, 0
    try:
        for key, actor, name, body in commands_of(arguments.folder):
            position = send(connection, key, actor, name, body).get("position", position)
            counts[name] = counts.get(name, 0) + 1
            if sys.stderr.isatty() and sum(counts.values()) % 100 == 0:
                print(f"\r{sum(counts.values())} commands", end="", file=sys.stderr)
    except Trouble as trouble:
        print(f"import_csv: {trouble}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"import_csv: {arguments.server}: {error}", file=sys.stderr)
        return 1
    told = ", ".join(f"{count} {name}" for name, count in counts.items())
    print(f"{told or 'nothing to import'}; the log is at position {position}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
