#!/usr/bin/env python3
"""Rot: every kind of file in a data directory and a backup is flipped, zeroed, cut, made longer, emptied
and deleted, one file at a time. Then either nothing is wrong, or the damage is named: a wrong event,
revision, condition or row never comes out, and nothing is missing without a word.

    rot.py [PART]     only the cases whose name contains it; ROT_ROUNDS=1: so often each

The truth is what a healthy server said before. Of each damaged copy:

(1) what the log gives is equal to the truth; a position it does not give is one it names as damaged;
(2) the same for streams, and for all rows of read models once they have caught up, also where a
    database rots while it is served;
(3) an expected revision that is wrong is refused, and an event id that is known is not taken again;
(4) files that are made from the log (index, read models, marks) cost nothing in the end: everything
    is there, and appends go on;
(5) `verify` finds damage that costs anything; a damaged backup is not restored.
"""
import glob
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../support"))
from audit import Client, Wrong, check
from server import PROGRAM, Server

SEED = int(os.environ.get("SEED", random.randrange(1 << 30)))
ROUNDS = int(os.environ.get("ROT_ROUNDS", "1"))
APP = "examples/orders"
OPTIONS = ["--segment-size=1MiB"]
STREAMS, ORDERS = 12, 6
QUERIES = ["all_orders_total", "customer_totals", "daily_revenue", "orders", "orders_by_status", "product_sales",
           "shipping_queue"]
ORDER_QUERIES = ["order_lines", "order_status", "order_summary"]
rng = random.Random(SEED)

# Kinds of files, by where they are; what is made from the log is `made`.
KINDS = [("sealed", "log/*.sealed", False), ("segment", "log/*.seg", False), ("marks", "log/marks", True),
         ("run", "index/*.run", True), ("manifest", "projections/*.manifest", True),
         ("database", "projections/*.db", True), ("wal", "projections/*.db-wal", True),
         ("shm", "projections/*.db-shm", True), ("lock", "lock", True)]
BACKUP_KINDS = [("backup sealed", "*.sealed.*"), ("backup segment", "*.seg.*"), ("backup marks", "marks.*"),
                ("backup manifest", "manifest")]


# ---- damage -------------------------------------------------------------------------------------

def flip(path, size):
    with open(path, "r+b") as file:
        for _ in range(rng.choice([1, 1, 1, 20])):
            at = rng.randrange(size)
            file.seek(at)
            byte = file.read(1)[0]
            file.seek(at)
            file.write(bytes([byte ^ 1 << rng.randrange(8)]))


def zero(path, size):
    length = rng.choice([16, 512, 4096, 65536])
    with open(path, "r+b") as file:
        at = rng.randrange(size)
        file.seek(at)
        file.write(bytes(min(length, size - at)))


def scramble(path, size):
    with open(path, "r+b") as file:
        at = rng.randrange(size)
        file.seek(at)
        file.write(os.urandom(min(rng.choice([16, 4096]), size - at)))


def cut(path, size):
    os.truncate(path, rng.choice([size - 1, size // 2, max(0, size - 4096), rng.randrange(size)]))


def lengthen(path, size):
    with open(path, "ab") as file:
        file.write(rng.choice([bytes(5000), os.urandom(5000)]))


def empty(path, size):
    os.truncate(path, 0)


def delete(path, size):
    os.unlink(path)


def pages(path, size):
    """Some of a database's pages, each in its own way, so that what is asked for is likely to be hit."""
    with open(path, "r+b") as file:
        for page in rng.sample(range(size // PAGE + 1), min(size // PAGE + 1, rng.choice([1, 3, 8]))):
            how, at = rng.choice(["flip", "zero", "scramble"]), page * PAGE + rng.randrange(PAGE)
            if at >= size:
                continue
            file.seek(at)
            old = file.read(1)
            file.seek(at)
            file.write({"flip": bytes([old[0] ^ 1 << rng.randrange(8)]), "zero": bytes(min(16, size - at)),
                        "scramble": os.urandom(min(16, size - at))}[how])


def exchange(path, size):
    """Two pages stand in each other's place."""
    if size < 2 * PAGE:
        return
    a, b = rng.sample(range(size // PAGE), 2)
    with open(path, "r+b") as file:
        file.seek(a * PAGE)
        one = file.read(PAGE)
        file.seek(b * PAGE)
        two = file.read(PAGE)
        file.seek(a * PAGE)
        file.write(two)
        file.seek(b * PAGE)
        file.write(one)


PAGE = 4096
DAMAGES = [flip, flip, flip, zero, zero, scramble, cut, lengthen, empty, delete]
PAGE_DAMAGES = [pages, pages, pages, pages, exchange]


# ---- the truth ------------------------------------------------------------------------------------

class Truth:
    def __init__(self):
        self.events = {}   # by position, as the API shows them
        self.streams = {}  # positions, by stream
        self.totals = {}   # of orders
        self.rows = {}     # of read models: what each query answers
        self.ids = []      # (stream, event, answer)


def post(client, path, body, **headers):
    status, answer = client.send("POST", path, body, headers)
    check(status in (200, 201), f"{path}: {status} {answer}")
    return answer


def make(server, truth):
    """A log of some sealed segments, one that is written to, read models with and without their WAL."""
    server.start()
    client = Client(server.url)
    for order in range(ORDERS):
        post(client, "/commands/CreateOrder", {
            "order_id": str(order), "customer": {"id": "c", "name": "Anna"},
            "shipping_address": {"street": "S 1", "city": "Lund", "region": None, "postal_code": None,
                                 "country": "SE"}, "currency": "EUR", "order_date": "2026-11-23"})
    for n in range(900):
        if n == 600:  # what came before is in the databases, not in SQLite's logs
            server.stop()
            server.start()
            client = Client(server.url)
        stream = f"load-{rng.randrange(STREAMS)}"
        event = {"id": "%08x-0000-4000-8000-%012x" % (n, rng.randrange(1 << 48)), "type": f"T{n % 5}",
                 "tags": [f"tag-{n % 7}"], "data": {"n": n, "pad": "x" * rng.randrange(6000)}}
        truth.ids.append((stream, event, post(client, f"/streams/{stream}", event)))
        if n % 10 == 0:
            order = rng.randrange(ORDERS)
            cents = rng.randrange(1, 1000)
            post(client, "/commands/AddLineItem", {
                "order_id": str(order), "line_id": str(n), "product_id": "p", "product_name": "Tea",
                "quantity": 1, "unit_price_cents": cents, "discount_percent": 0})
            truth.totals[order] = truth.totals.get(order, 0) + cents
    end = truth.ids[-1][2]["position"]
    after = 0
    while after < end:
        status, events = client.send("GET", f"/events?after={after}&limit=1000&system=true")
        check(status == 200, f"read the truth: {status} {events}")
        for event in events:
            after = int(event["position"])
            truth.events[after] = event
            truth.streams.setdefault(event["subject"], []).append(after)
    for order in truth.totals:
        check(total(client, order, end)[1] == truth.totals[order], "the truth itself is wrong")
    for query in QUERIES + [f"{name}?order_id={order}" for name in ORDER_QUERIES for order in range(ORDERS)]:
        status, rows = ask_query(client, query, end)
        check(status == 200 and rows, f"read the truth: {query}: {status} {rows}")
        truth.rows[query] = rows
    time.sleep(0.3)  # the mark is synced, runs are written


def total(client, order, position, timeout=8000):
    status, rows = client.send("GET", f"/queries/order_summary?order_id={order}&after={position}"
                                      f"&timeout={timeout}")
    return status, rows[0]["total_cents"] if status == 200 and rows else rows


def ask_query(client, query, position, timeout=8000):
    return client.send("GET", f"/queries/{query}{'&' if '?' in query else '?'}after={position}&timeout={timeout}")


# ---- what a damaged copy says ------------------------------------------------------------------------

class Findings:
    """What was named as damaged."""

    def __init__(self):
        self.positions = set()
        self.words = []


def names_damage(answer):
    return isinstance(answer, dict) and answer.get("code") in ("corrupt", "busy", "io", "stopped", "gone")


def ask_log(client, truth, findings):
    """(1)"""
    end, after = max(truth.events), 0
    while after < end:
        status, events = client.send("GET", f"/events?after={after}&limit=200&system=true")
        if status == 200 and events:
            for event in events:
                position = int(event["position"])
                check(position == after + 1, f"position {position} follows {after} without a word")
                check(position > end or event == truth.events[position], f"position {position} is another: {event}")
                after = position
            continue
        status, answer = client.send("GET", f"/events?after={after}&limit=1&system=true")
        if status == 200 and answer:
            check(answer[0] == truth.events.get(after + 1), f"position {after + 1} is another: {answer}")
            after += 1
            continue
        check(status != 200, f"positions {after + 1} to {end} are missing without a word")
        check(names_damage(answer), f"position {after + 1}: {status} {answer}")
        findings.words.append(answer["detail"])
        findings.positions.add(after + 1)
        after += 1


def ask_streams(client, truth, findings):
    """(2)"""
    for stream, positions in truth.streams.items():
        if stream.startswith("$"):
            continue
        revision = 0
        while revision < len(positions):
            status, events = client.send("GET", f"/streams/{stream}?from={revision}&limit=100")
            if status != 200:
                status, events = client.send("GET", f"/streams/{stream}?from={revision}&limit=1")
            if status == 200 and events:
                for event in events:
                    want = truth.events[positions[revision]]
                    check(event == want, f"{stream} revision {revision} is another: {event}")
                    revision += 1
                continue
            check(status != 200, f"{stream}: revisions from {revision} are missing without a word")
            check(names_damage(events) or positions[revision] in findings.positions,
                  f"{stream} revision {revision}: {status} {events}")
            revision += 1


def ask_writes(client, truth, findings, must):
    """(3), and (4) where it must take appends."""
    stream, event, answer = rng.choice(truth.ids)
    status, again = client.send("POST", f"/streams/{stream}", event)
    check(status >= 500 or (status == 200 and again["position"] == answer["position"]) or
          (status in (200, 201) and answer["position"] in findings.positions),
          f"an event id that is known at {answer['position']}: {status} {again}")
    stream, positions = rng.choice([item for item in truth.streams.items() if item[0].startswith("load-")])
    for expected in (len(positions) - 2, len(positions), "none"):
        status, answer = client.send("POST", f"/streams/{stream}?expected={expected}", {"type": "T", "data": {}})
        check(status >= 409 and status != 410, f"{stream} at {expected}: {status} {answer}")
    body = {"events": [{"stream": "new", "type": "T", "data": {}}],
            "conditions": [{"no_match": [{"types": ["T1"], "tags": ["tag-1"]}], "after": 1}]}
    status, answer = client.send("POST", "/append", body)
    check(status >= 409, f"a condition that fails holds: {status} {answer}")
    status, answer = client.send("POST", f"/streams/{stream}?expected={len(positions) - 1}",
                                 {"type": "T", "data": {}})
    check(status in (200, 201) or (status >= 500 and not must), f"append: {status} {answer}")
    return status < 300


def ask_rows(client, truth, must):
    """(2)"""
    end = max(truth.events)
    deadline = time.monotonic() + 30
    for query, want in rng.sample(sorted(truth.rows.items()), len(truth.rows)):
        status, got = ask_query(client, query, end)
        while must and status != 200 and time.monotonic() < deadline:
            time.sleep(0.2)
            status, got = ask_query(client, query, end)
        check(status != 200 or got == want, f"{query}: {got}, not {want}")
        check(status == 200 or not must, f"{query}: {status} {got}")


def command(*arguments):
    try:
        done = subprocess.run([PROGRAM, *arguments], capture_output=True, text=True, timeout=60)
    except subprocess.TimeoutExpired as forever:
        raise Wrong(f"{arguments} does not end") from forever
    return done.returncode, done.stdout + done.stderr


def verify(data):
    return command("verify", "--data", data)


def ask_all(data, truth, made, damage=None):
    """One damaged copy, in words for the log of this test. `damage`: done to it when it is served."""
    server = Server(app=APP, data=data, options=OPTIONS)
    findings = Findings()
    try:
        server.start()
    except RuntimeError:
        check(server.status not in (None, -signal.SIGSEGV, -signal.SIGABRT), f"a crash:\n{server.log}")
        check(not made, f"what is made from the log keeps it from opening:\n{server.log}")
        check(data in server.log or "segment" in server.log, f"it does not open, and names nothing:\n{server.log}")
        return "refused to open"
    try:
        client = Client(server.url)
        if damage:
            damage()
        ask_log(client, truth, findings)
        check(not made or not findings.positions, f"events are gone: {findings.words[:3]}")
        ask_streams(client, truth, findings)
        appends = ask_writes(client, truth, findings, made)
        ask_rows(client, truth, made)
    except (OSError, ValueError) as error:
        raise Wrong(f"the server is gone: {error!r}") from error
    finally:
        status = server.stop()
    check(status == 0, f"the server ended with {status}:\n{server.log}")
    code, words = verify(data)
    check(code in (0, 6), f"verify: {code} {words}")
    check(code == 6 or (appends and not findings.positions), f"verify finds nothing of {findings.words[:3]}")
    if not findings.positions:
        return "whole" if code == 0 else "whole, and verify names the damage"
    return f"{len(findings.positions)} events named as damaged"


def ask_backup(backup, target, truth):
    """(5)"""
    code, words = verify(backup)
    shutil.rmtree(target, ignore_errors=True)
    restored, reason = command("restore", backup, target)
    if restored != 0:
        check(restored in (3, 6, 7), f"restore: {restored} {reason}")
        check(code != 0, f"verify passes a backup that is not restored: {reason}")
        return "not restored"
    words = ask_all(target, truth, True)
    check(code == 0 and words == "whole", f"restored from a damaged backup: {words}")
    return "whole"


# ---- cases --------------------------------------------------------------------------------------------

def cases(master, backup):
    for name, pattern, made in KINDS:
        found = sorted(glob.glob(os.path.join(master, pattern)))
        check(found or name == "shm", f"there is no {name} to damage")
        for damage in (DAMAGES + (PAGE_DAMAGES if name in ("database", "wal") else [])) * ROUNDS:
            if found:
                yield f"{damage.__name__} {name}", master, rng.choice(found), made
        # Rot does not wait for a restart.
        for damage in (PAGE_DAMAGES if name == "database" else []) * ROUNDS:
            yield f"{damage.__name__} served {name}", master, rng.choice(found), made
    for name, pattern in BACKUP_KINDS:
        found = sorted(glob.glob(os.path.join(backup, pattern)))
        check(found, f"there is no {name} to damage")
        for damage in DAMAGES * ROUNDS:
            yield f"{damage.__name__} {name}", backup, rng.choice(found), None


def one_case(folder, name, source, path, made, truth):
    copy, target = os.path.join(folder, "copy"), os.path.join(folder, "target")
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(source, copy)
    victim = os.path.join(copy, os.path.relpath(path, source))

    def damage():
        size = os.path.getsize(victim)
        if size > 0 or name.startswith(("lengthen", "delete")):
            globals()[name.split()[0]](victim, size)

    if " served " in name:
        return ask_all(copy, truth, made, damage)
    damage()
    if made is None:
        return ask_backup(copy, target, truth)
    return ask_all(copy, truth, made)


def main():
    wanted = sys.argv[1] if len(sys.argv) > 1 else ""
    truth, name, count, trouble = Truth(), "(making the truth)", {}, []
    with tempfile.TemporaryDirectory(prefix="deedbook-rot-") as folder:
        master, backup = os.path.join(folder, "data"), os.path.join(folder, "backup")
        server = Server(app=APP, data=master, options=OPTIONS)
        try:
            make(server, truth)
            subprocess.run([PROGRAM, "backup", "--data", master, backup], check=True, capture_output=True)
            server.stop(signal.SIGKILL)  # so that there are write-ahead logs
            for name, source, path, made in cases(master, backup):
                if wanted not in name:
                    continue
                try:
                    answer = one_case(folder, name, source, path, made, truth)
                except Wrong as wrong:
                    trouble.append(f"{name} ({os.path.basename(path)}): {wrong}")
                    print("WRONG", trouble[-1], flush=True)
                    keep = os.environ.get("ROT_KEEP")  # a folder for what went wrong
                    if keep:
                        shutil.copytree(folder, os.path.join(keep, str(len(trouble))))
                    answer = "WRONG"
                answer = re.sub(r"^\d+ ", "", answer)
                key = (name.split(" ", 1)[1], answer)
                count[key] = count.get(key, 0) + 1
        finally:
            server.stop(signal.SIGKILL)
    for (kind, answer), n in sorted(count.items()):
        print(f"{kind}: {n} times {answer}")
    if trouble:
        print(f"  again: SEED={SEED} tests/integration/rot.py")
    return 1 if trouble else 0


if __name__ == "__main__":
    sys.exit(main())
