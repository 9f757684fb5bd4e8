#!/usr/bin/env python3
"""Compact and erase on a running server, beside readers and writers, and kill -9 it on the way:
nothing but what was hidden goes, what was erased is in no file, and all else stays as it was.

    compaction.py [COUNT]     so many kills (default COMPACTION_KILLS, else 20)
"""
# sanitize: asan
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../support"))
from server import PROGRAM, Server

SEED = int(os.environ.get("SEED", random.randrange(1 << 30)))
STREAMS, EVENTS = 24, 20
CONTENT = ("data", "data_base64", "metadata", "causationid", "actor", "removed")


class Wrong(Exception):
    pass


def check(condition, message):
    if not condition:
        raise Wrong(message)


def call(server, method, path, body=None, headers=None):
    request = urllib.request.Request(server.url + path, method=method, headers=headers or {},
                                     data=None if body is None else json.dumps(body).encode())
    if body is not None:
        request.add_header("Content-Type", "application/json")
    try:
        with urllib.request.urlopen(request, timeout=30) as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as problem:
        return problem.code, problem.read().decode()


def secret(stream, n):
    return f"secret-{stream}-{n}-end"


class Model:
    def __init__(self):
        self.count = {f"s-{i}": 0 for i in range(STREAMS)}
        self.hidden = {}  # stream: revisions below are hidden, or may be
        self.erased = {}  # stream: what must be gone for good
        self.log = {}     # position: the event without its content

    def fill(self, server, stream, count):
        first = self.count[stream]
        events = [{"type": "Told", "data": {"n": n, "text": secret(stream, n), "pad": "x" * 500},
                   "tags": [f"t:{n % 3}"], "actor": "anna"} for n in range(first, first + count)]
        status, text = call(server, "POST", f"/streams/{stream}", events)
        check(status == 200, f"append: {status} {text}")
        self.count[stream] += count

    def audit(self, server):
        """Everything in the log against what was there before and what may be missing."""
        status, text = call(server, "GET", "/events?removed=true&system=true",
                            headers={"Accept": "application/x-ndjson"})
        check(status == 200, text[:300])
        seen = {}
        for line in text.splitlines():
            event = json.loads(line)
            place = {key: value for key, value in event.items() if key not in CONTENT}
            position, stream = int(event["position"]), event["subject"]
            revision = int(event["revision"])
            check(position == len(seen) + 1, f"position {position} behind {len(seen)}")
            seen[position] = place
            if stream.startswith("$"):
                continue
            if event.get("removed"):
                check(revision < self.hidden.get(stream, 0), f"{stream} {revision} was removed")
            else:
                check(event["data"]["text"] == secret(stream, revision), line)
                check(revision >= self.erased.get(stream, 0), f"{stream} {revision} is back")
        for position, place in self.log.items():
            check(seen.get(position) == place, f"{place} became {seen.get(position)}")
        self.log = seen
        for stream, count in self.count.items():
            status, text = call(server, "POST", f"/streams/{stream}?expected={count}", {"type": "No", "data": 0})
            check(status == 409 and f'"revision":{count - 1}' in text, f"{stream}: {status} {text}")


def in_files(data, text):
    for folder, _, names in os.walk(os.path.join(data, "log")):
        for name in names:
            with open(os.path.join(folder, name), "rb") as file:
                if text.encode() in file.read():
                    return name
    return None


def ask(server, model, rng):
    """Hide something, and ask for it to be taken out. What must be gone when it is done."""
    stream = rng.choice(list(model.count))
    if rng.random() < 0.4:
        model.hidden[stream] = model.count[stream]
        status, text = call(server, "POST", f"/streams/{stream}/erase")
        check(status == 202, f"erase: {status} {text}")
        return stream, model.count[stream]
    below = rng.randrange(model.count[stream])
    model.hidden[stream] = max(below, model.hidden.get(stream, 0))
    status, text = call(server, "POST", f"/streams/{stream}/metadata", {"$tb": below})
    check(status == 200, text)
    level = rng.choice((0, 1, 3))
    status, text = call(server, "POST", f"/compact?active=true&compress={level}")
    check(status == 202, f"compact: {status} {text}")
    return stream, 0


def wait_until_done(server):
    while True:
        _, text = call(server, "GET", "/compact")
        job = json.loads(text)
        if job["state"] != "running":
            check(job["state"] == "done", text)
            return job
        time.sleep(0.01)


def read_on(server, stop, troubles):
    """A reader that must see every position, whatever happens to the files."""
    while not stop.is_set():
        try:
            _, text = call(server, "GET", "/events?removed=true&system=true",
                           headers={"Accept": "application/x-ndjson"})
            lines = text.splitlines()
            if [int(json.loads(line)["position"]) for line in lines] != list(range(1, len(lines) + 1)):
                troubles.append("a reader missed something")
        except (OSError, ValueError) as trouble:
            troubles.append(str(trouble))


def beside_others(server, model, rng):
    stop, troubles = threading.Event(), []
    readers = [threading.Thread(target=read_on, args=(server, stop, troubles)) for _ in range(2)]
    for reader in readers:
        reader.start()
    removed = 0
    for _ in range(6):
        stream, erased = ask(server, model, rng)
        for _ in range(3):
            model.fill(server, rng.choice(list(model.count)), 2)
        removed += wait_until_done(server)["events_removed"]
        if erased:
            model.erased[stream] = erased
    stop.set()
    for reader in readers:
        reader.join()
    check(not troubles, str(troubles[:3]))
    check(removed > 0, "nothing was removed")
    model.audit(server)


def main():
    kills = int(sys.argv[1] if len(sys.argv) > 1 else os.environ.get("COMPACTION_KILLS", "20"))
    rng = random.Random(SEED)
    model = Model()
    with tempfile.TemporaryDirectory(prefix="deedbook-compaction-") as folder:
        server = Server(data=os.path.join(folder, "data"))
        try:
            server.start()
            for stream in model.count:
                model.fill(server, stream, EVENTS)
            model.audit(server)
            for _ in range(kills):
                ask(server, model, rng)
                time.sleep(rng.uniform(0, 0.06))
                server.stop(signal.SIGKILL)
                server.start()
                model.audit(server)
                model.fill(server, rng.choice(list(model.count)), 1)
            beside_others(server, model, rng)
            for stream in model.hidden:  # again, to the end
                call(server, "POST", f"/streams/{stream}/erase")
                wait_until_done(server)
                model.hidden[stream] = model.erased[stream] = model.count[stream]
            model.audit(server)
            for stream, erased in model.erased.items():
                for n in range(erased):
                    check(not in_files(server.data, secret(stream, n)), f"{stream} {n} is on the disk")
            untouched = [stream for stream in model.count if stream not in model.hidden]
            server.stop()
            done = subprocess.run([PROGRAM, "verify", "--data", server.data], capture_output=True,
                                  text=True, check=False)
            check(done.returncode == 0 and "intact" in done.stdout, done.stdout + done.stderr)
            server.start()
            model.audit(server)
        except Wrong as wrong:
            print(f"compaction.py: {wrong}\n  again: SEED={SEED} tests/integration/compaction.py {kills}")
            print(server.log[-2000:])
            return 1
        finally:
            server.stop(signal.SIGKILL)
    print(f"{kills} kills, {len(model.log)} events, {len(model.erased)} streams erased, "
          f"{len(untouched)} untouched: as it should be")
    return 0


if __name__ == "__main__":
    sys.exit(main())
