#!/usr/bin/env python3
"""A real shop's history through the whole house: the Northwind sample as commands, then

(1) the queries agree to the cent with totals computed here from the CSV files alone;
(2) the state of each order at each of its revisions agrees with a fold done here;
(3) rebuilding every read model gives identical rows, and so does following live from two copies;
(4) running the import again changes nothing.

Skipped where the folder (../shared/data/northwind, or $DEEDBOOK_NORTHWIND) is absent.
"""
import csv
import glob
import http.client
import json
import os
import sqlite3
import subprocess
import sys
import time
import urllib.parse
from collections import defaultdict
from decimal import Decimal

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../support"))
from server import ROOT, Server

FOLDER = os.environ.get("DEEDBOOK_NORTHWIND", os.path.join(ROOT, "../shared/data/northwind"))


def check(condition, message):
    if not condition:
        print(f"northwind.py: {message}")
        sys.exit(1)


def equal(got, wanted, what):
    check(got == wanted, f"{what}: {got!r}, computed from the CSV files: {wanted!r}")


class Client:
    def __init__(self, url):
        parts = urllib.parse.urlsplit(url)
        self.connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=120)

    def get(self, path, **parameters):
        self.connection.request("GET", path + ("?" + urllib.parse.urlencode(parameters)
                                               if parameters else ""))
        response = self.connection.getresponse()
        body = response.read()
        check(response.status == 200, f"GET {path} {parameters}: {response.status} {body[:300]}")
        return json.loads(body)

    def post(self, path):
        self.connection.request("POST", path, b"", {"Content-Type": "application/json"})
        response = self.connection.getresponse()
        body = response.read()
        check(response.status < 300, f"POST {path}: {response.status} {body[:300]}")


# ---- the totals, from the CSV files alone ------------------------------------------------------


def rows_of(name):
    with open(os.path.join(FOLDER, name), newline="", encoding="utf-8-sig") as file:
        return list(csv.DictReader(file))


def half_up(numerator, denominator):
    return (2 * numerator + denominator) // (2 * denominator)


def compute():
    """Everything the queries should say, in cents."""
    totals = defaultdict(int)
    full = 0
    products = defaultdict(lambda: [0, 0])
    for line in rows_of("order-details.csv"):
        cents = int(Decimal(line["unitPrice"]) * 100)
        percent = int(Decimal(line["discount"]) * 100)
        quantity = int(line["quantity"])
        total = half_up(quantity * cents * (100 - percent), 100)
        totals[line["orderID"]] += total
        full += quantity * cents
        products[line["productID"]][0] += quantity
        products[line["productID"]][1] += total
    customers, days = defaultdict(int), defaultdict(int)
    shipped = set()
    for order in rows_of("orders.csv"):
        customers[order["customerID"]] += totals[order["orderID"]]
        days[order["orderDate"][:10]] += totals[order["orderID"]]
        if order["shippedDate"] != "NULL":
            shipped.add(order["orderID"])
    return totals, full, products, customers, days, shipped


# ---- the fold, independent of the domain's code ------------------------------------------------


def fold(state, event):
    data = event["data"]
    if event["type"] == "OrderCreated":
        return {**data, "status": "open", "lines": [], "carrier": None, "tracking_number": None,
                "shipped_on": None, "delivered_on": None, "signed_by": None, "cancel_reason": None}
    state = dict(state)
    if event["type"] == "OrderLineItemAdded":
        line = {k: v for k, v in data.items() if k not in ("order_id", "order_total_cents")}
        state["lines"] = state["lines"] + [line]
        state["order_total_cents"] = sum(line["line_total_cents"] for line in state["lines"])
    elif event["type"] == "OrderShipped":
        state.update(status="shipped", carrier=data["carrier"],
                     tracking_number=data["tracking_number"], shipped_on=data["shipped_on"])
    else:
        check(False, f"an event that no CSV file asks for: {event['type']}")
    return state


def check_states(client, order_ids):
    states = 0
    for order_id in order_ids:
        events = client.get(f"/streams/order-{order_id}", limit=1000)
        state = None
        for revision, event in enumerate(events):
            check(int(event["revision"]) == revision, f"order {order_id}: {event['revision']}")
            state = fold(state, event)
            answer = client.get(f"/streams/order-{order_id}/state", revision=revision)
            check(answer["state"] == state,
                  f"order {order_id} at revision {revision}: {answer['state']}, folded here: {state}")
            states += 1
    return states


# ---- read models -------------------------------------------------------------------------------


def model_rows(data):
    """Every row of every live read model, from the SQLite files themselves."""
    models = {}
    for path in sorted(glob.glob(os.path.join(data, "projections", "*.db"))):
        name = os.path.basename(path).split(".")[0]
        database = sqlite3.connect(path)
        tables = [row[0] for row in database.execute(
            "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE '\\_%' ESCAPE '\\'"
            " AND name NOT LIKE 'sqlite%' ORDER BY name")]
        for table in tables:
            models[name, table] = sorted(map(repr, database.execute(f'SELECT * FROM "{table}"')))
        database.close()
    return models


def wait_for(client, position):
    for projection in client.get("/projections"):
        deadline = time.monotonic() + 60
        while client.get(f"/projections/{projection['name']}")["position"] < position:
            check(time.monotonic() < deadline, f"{projection['name']} does not get to {position}")
            time.sleep(0.05)


def rebuild_all(client):
    names = {p["name"]: p["generation"] for p in client.get("/projections")}
    for name in names:
        client.post(f"/projections/{name}/rebuild")
    for name, generation in names.items():
        deadline = time.monotonic() + 60
        while client.get(f"/projections/{name}")["generation"] <= generation:
            check(time.monotonic() < deadline, f"{name} is not rebuilt in time")
            time.sleep(0.05)
    return len(names)


def run_import(url):
    done = subprocess.run([os.path.join(ROOT, "examples/orders/import_csv.py"), FOLDER,
                           "--server", url], capture_output=True, text=True)
    check(done.returncode == 0, f"import: {done.stdout}{done.stderr}")
    print(done.stdout.strip())
    return int(done.stdout.split()[-1])


def check_queries(client, position):
    totals, full, products, customers, days, shipped = compute()
    everything = client.get("/queries/all_orders_total", after=position)[0]
    equal(everything["total_cents"], sum(totals.values()), "all lines")
    equal(everything["list_cents"], full, "all lines without discounts")
    equal((sum(totals.values()), full), (126579329, 135445859), "the figures of the issue")
    for order_id, total in totals.items():
        row = client.get("/queries/order_summary", order_id=order_id)[0]
        equal(row["total_cents"], total, f"order {order_id}")
        equal(row["status"], "shipped" if order_id in shipped else "open", f"order {order_id}")
        lines = client.get("/queries/order_lines", order_id=order_id)
        equal(sum(line["line_total_cents"] for line in lines), total, f"lines of order {order_id}")
    equal({row["customer_id"]: row["total_cents"] for row in client.get("/queries/customer_totals")},
          dict(customers), "customer totals")
    equal({row["product_id"]: [row["quantity"], row["total_cents"]]
           for row in client.get("/queries/product_sales")}, dict(products), "product sales")
    equal({row["day"]: row["total_cents"] for row in client.get("/queries/daily_revenue")},
          dict(days), "daily revenue")
    equal({row["order_id"] for row in client.get("/queries/shipping_queue")},
          set(totals) - shipped, "shipping queue")
    return totals


def main():
    if not os.path.isdir(FOLDER):
        print(f"skipped: the Northwind sample is not at {FOLDER}")
        return 77
    with Server(app="examples/orders") as server:
        client = Client(server.url)
        position = run_import(server.url)
        totals = check_queries(client, position)
        states = check_states(client, totals)
        wait_for(client, position)
        live = model_rows(server.data)
        check(sum(map(len, live.values())) > 3000, f"too few rows: {[(k, len(v)) for k, v in live.items()]}")
        rebuilt = rebuild_all(client)
        # Old generations go away once nobody reads them.
        check(run_import(server.url) == position, "importing again moved the log")
        check_queries(client, position)
        check(server.stop() == 0, "the server does not stop cleanly")
        again = model_rows(server.data)
        check(again.keys() == live.keys(), f"{again.keys() ^ live.keys()} differ")
        for key in live:
            check(again[key] == live[key], f"{key}: rebuilding gives other rows")
    print(f"{len(totals)} orders, {states} states, {rebuilt} read models rebuilt: all agree")
    return 0


if __name__ == "__main__":
    sys.exit(main())
