"""Writers that remember what was acknowledged, and ask for it after the server died.

Appenders append events, Commanders send commands, one request under way each. Asked by check:

(1) every acknowledged event is in its stream, at its revision and position, with its content;
(2) what was under way is there whole or not at all, and sent again it gives one answer;
(3) each order's total in the read model is the sum of its acknowledged lines.
"""
import http.client
import json
import random
import subprocess
import threading
import urllib.parse
import uuid


class Wrong(Exception):
    pass


def check(condition, message):
    if not condition:
        raise Wrong(message)


class Failed(Wrong):
    """The server answered that it cannot; whether something was stored may be unknown."""


def check_stored(status, message):
    if status >= 500:
        raise Failed(message)
    check(status in (200, 201), message)


class Client:
    """One keep-alive connection."""

    def __init__(self, url):
        parts = urllib.parse.urlsplit(url)
        self.connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=30)

    def send(self, method, path, body=None, headers=None):
        data = None if body is None else json.dumps(body).encode()
        self.connection.request(method, path, data,
                                {"Content-Type": "application/json", **(headers or {})})
        response = self.connection.getresponse()
        return response.status, json.loads(response.read())


class Appender:
    """Appends to one stream of its own, each event at the revision it expects."""

    def __init__(self, number):
        self.stream = f"load-{number}"
        self.acknowledged = []  # (position, n) by revision
        self.checked = 0
        self.pending = None
        self.extra = False  # an event may be there that nobody answered for, and nobody sends again

    def begin(self, number):
        pass

    def step(self, client, rng):
        if self.pending is None:
            self.pending = {"id": str(uuid.uuid4()), "type": "Counted", "tags": [self.stream],
                            "data": {"n": rng.randrange(1 << 40), "pad": "x" * rng.randrange(300)}}
        expected = len(self.acknowledged) - 1 if self.acknowledged else "none"
        status, answer = client.send("POST", f"/streams/{self.stream}?expected={expected}",
                                     self.pending)
        check_stored(status, f"append to {self.stream}: {status} {answer}")
        check(answer["revision"] == len(self.acknowledged),
              f"{self.stream}: revision {answer['revision']}, not {len(self.acknowledged)}")
        self.acknowledged.append((answer["position"], self.pending["data"]["n"]))
        self.pending = None

    def check(self, client):
        while self.checked < len(self.acknowledged):  # an answer is limited in bytes, too
            wanted = len(self.acknowledged) - self.checked
            status, events = client.send(
                "GET", f"/streams/{self.stream}?from={self.checked}&limit={wanted + 5}")
            check(status == 200 and len(events) > 0, f"read {self.stream}: {status} {events}")
            check(len(events) <= wanted + (self.pending is not None or self.extra),
                  f"{self.stream}: {len(events)} events after {wanted} acknowledged ones")
            for event in events[:wanted]:
                position, n = self.acknowledged[self.checked]
                got = (int(event["revision"]), int(event["position"]), event["data"]["n"])
                check(got == (self.checked, position, n),
                      f"{self.stream}: {got} instead of {(self.checked, position, n)}")
                self.checked += 1
        if self.pending is not None:  # (2): the same event again, whether it is there or not
            self.step(client, None)


class Commander:
    """Sends commands for one order a life."""

    def __init__(self, number):
        self.number = number
        self.life = 0
        self.orders = 0

    def begin(self, life):
        self.life = life
        self.order_id = f"{life}-{self.number}"
        self.total = 0
        self.lines = -1  # before CreateOrder
        self.position = 0
        self.pending = None

    def make(self, rng):
        if self.lines < 0:
            return "CreateOrder", 0, {
                "order_id": self.order_id, "customer": {"id": "c", "name": "Anna"},
                "shipping_address": {"street": "S 1", "city": "Lund", "region": None,
                                     "postal_code": None, "country": "SE"},
                "currency": "EUR", "order_date": "2026-11-23"}
        cents = rng.randrange(1, 1000)
        return "AddLineItem", cents, {
            "order_id": self.order_id, "line_id": str(self.lines), "product_id": "p",
            "product_name": "Tea", "quantity": 1, "unit_price_cents": cents, "discount_percent": 0}

    def step(self, client, rng):
        if self.pending is None:
            self.pending = (*self.make(rng), str(uuid.uuid4()))
        name, cents, body, key = self.pending
        status, answer = client.send("POST", f"/commands/{name}", body, {"Idempotency-Key": key})
        check_stored(status, f"{name} of order {self.order_id}: {status} {answer}")
        self.total += cents
        self.lines += 1
        self.position = answer["position"]
        check(answer["revision"] == self.lines,
              f"order {self.order_id}: revision {answer['revision']}, not {self.lines}")
        self.pending = None

    def check(self, client):
        if self.life == 0:
            return
        if self.pending is not None:  # (2): the same command again, by its key
            self.step(client, None)
        status, rows = client.send("GET", f"/queries/order_summary?order_id={self.order_id}"
                                          f"&after={self.position}&timeout=20000")
        check(status == 200, f"query: {status} {rows}")
        check(len(rows) == 1 and rows[0]["total_cents"] == self.total,
              f"order {self.order_id}: rows {rows}, acknowledged total {self.total}")
        self.orders += 1


def work(writer, url, seed, stop, trouble, failures):
    client, rng = Client(url), random.Random(seed)
    try:
        while not stop.is_set():
            writer.step(client, rng)
    except (OSError, http.client.HTTPException, ValueError):
        pass  # the server is gone; what was under way stays pending
    except Failed as failed:
        failures.append(str(failed))  # the same
    except Wrong as wrong:
        trouble.append(str(wrong))


class Work:
    """Some writers at work on a running server: with Work(…): …, and trouble is raised. Those who are
    told that the server cannot stop, and are in `failures`: only a broken disk may_fail."""

    def __init__(self, server, writers, life, rng, may_fail=False):
        self.trouble, self.failures, self.stop = [], [], threading.Event()
        self.may_fail = may_fail
        self.threads = []
        for writer in writers:
            writer.begin(life)
            self.threads.append(threading.Thread(target=work, daemon=True, args=(
                writer, server.url, rng.random(), self.stop, self.trouble, self.failures)))

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        for thread in self.threads:
            thread.join(60)
        check(not self.trouble, "; ".join(self.trouble))
        check(self.may_fail or not self.failures, "; ".join(self.failures))


def do_chores(url, life):
    """What writers do not do: rebuilds, queries of the past, deletions, compaction. Their answers do not
    matter here, and the server may go at any time."""
    try:
        client = Client(url)
        stream = f"gone-{life}"
        for n in range(3):
            client.send("POST", f"/streams/{stream}", {"type": "Gone", "data": {"n": n}})
        client.send("DELETE", f"/streams/{stream}" + ("?tombstone=true" if life % 2 else ""))
        client.send("POST", f"/projections/{['order_summary', 'order_lines'][life % 2]}/rebuild")
        _, found = client.send("GET", "/events?limit=1&system=true&removed=true")
        position = int(found[0]["position"]) + 5
        client.send("GET", f"/queries/order_summary?order_id=1-3&position={position}")
        client.send("GET", f"/queries/order_summary?order_id=1-3&position={position + 3}")
        if life % 3 == 0:
            client.send("POST", f"/streams/{stream}/erase")
        else:
            client.send("POST", "/compact" + ("?compress=true" if life % 3 == 1 else ""))
    except (OSError, http.client.HTTPException, ValueError, LookupError):
        pass


def audit(server, writers):
    """Start the server, read the whole log, and verify it offline. The log's last position."""
    server.start()
    client = Client(server.url)
    for writer in writers:
        writer.check(client)
    wanted = {(position, n) for writer in writers if isinstance(writer, Appender)
              for position, n in writer.acknowledged}
    after, seen, last = 0, set(), 0
    while True:
        status, events = client.send("GET", f"/events?after={after}&limit=1000&system=true&removed=true")
        check(status == 200, f"read the log: {status} {events}")
        if not events:
            break
        for event in events:
            position = int(event["position"])
            check(position == last + 1, f"position {position} follows {last}")
            last = position
            if event["type"] == "Counted":
                seen.add((position, event["data"]["n"]))
        after = last
    check(seen == wanted, f"{len(seen ^ wanted)} events differ")
    check(server.stop() == 0, "the server does not stop cleanly")
    verify = subprocess.run([server.program, "verify", "--data", server.data], capture_output=True, text=True)
    check(verify.returncode == 0, f"verify: {verify.stdout}{verify.stderr}")
    return last
