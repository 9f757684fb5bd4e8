#!/usr/bin/env python3
# sanitize: tsan
"""Clients that meet on the same streams and tags over HTTP, while the server is killed now and then:
what they were told must fit one serial order (tests/support/history.h says what is checked).

    history.py [KILLS]      (default HISTORY_KILLS, else 6)

Appends expect revisions, or that nothing matches a query after a position, or that a stream is new;
several clients send the same one, with its idempotency key. Whose answer a kill takes sends the same
request again in the next life, or leaves it in doubt. A history that is rejected stays in its file.
"""
import http.client
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../support"))
from server import PROGRAM, ROOT, Server

# The checker needs no sanitizer.
CHECKER = os.path.join(ROOT, "build/tests/drive/history_check")
SEED = int(os.environ.get("SEED", random.randrange(1 << 30)))
CLIENTS, STREAMS, TYPES, TAGS = 6, 5, 3, 6
SHARED = 1 << 40  # requests that every client sends, each to a stream of its own


class Gone(Exception):
    """The server did not answer."""


def bits(mask):
    return [i for i in range(TAGS) if mask >> i & 1]


class Client:
    def __init__(self, number, shared):
        self.number, self.shared = number, shared
        self.rng = random.Random(SEED * 100 + number)
        self.lines = []
        self.next = itertools.count(1)
        self.connection = None
        self.pending = None  # whose answer was lost
        self.last = None
        self.end = 1         # the newest position it knows
        self.revisions = {}  # the newest revision of each stream it knows
        self.wrong = None

    def connect(self, url):
        parts = urllib.parse.urlsplit(url)
        self.connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=30)

    def send(self, method, path, body=None, headers=None):
        data = None if body is None else json.dumps(body).encode()
        try:
            self.connection.request(method, path, data,
                                    {"Content-Type": "application/json", **(headers or {})})
            response = self.connection.getresponse()
            return response.status, json.loads(response.read())
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise Gone() from error

    # -- appends

    def make(self, number, writes, conditions):
        """Note a request, and give it in the server's words."""
        self.lines.append(f"request {number}")
        self.lines += [f"write {stream} {kind} {tags:x}" for stream, kind, tags in writes]
        asked = []
        for condition in conditions:
            if condition[0] == "stream":
                _, stream, expected = condition
                self.lines.append(f"stream {stream} {expected}")
                asked.append({"stream": f"s-{stream}", "revision": expected})
            else:
                _, after, items = condition
                words = " ".join(f"{1 << kind if kind is not None else 0:x}:{tags:x}"
                                 for kind, tags in items)
                self.lines.append(f"nomatch {after} {words}")
                asked.append({"after": after, "no_match": [
                    {"types": [] if kind is None else [f"T{kind}"],
                     "tags": [f"t{i}" for i in bits(tags)]} for kind, tags in items]})
        events = [{"stream": f"s-{stream}", "type": f"T{kind}", "data": {"r": number, "p": part},
                   "tags": [f"t{i}" for i in bits(tags)]}
                  for part, (stream, kind, tags) in enumerate(writes)]
        return number, {"events": events, "conditions": asked}

    def attempt(self, request):
        number, body = request
        self.last = request
        invoked = time.monotonic_ns()
        head = f"append {number} {self.number} {invoked}"
        try:
            status, answer = self.send("POST", "/append", body, {"Idempotency-Key": f"k{number}"})
        except Gone:
            self.lines.append(f"{head} - unknown")
            self.pending = request
            raise
        completed = time.monotonic_ns()
        if status == 200:
            revision = answer["events"][-1]["revision"]
            word = "again" if answer.get("repeated") else "ok"
            self.lines.append(f"{head} {completed} {word} {answer['first_position']} "
                              f"{answer['position']} {revision}")
            for event in answer["events"]:
                self.note(event["stream"], event["revision"], event["position"])
        elif status == 409:
            position = answer.get("position", "-")
            self.lines.append(f"{head} {completed} refused {answer['condition']} {position}")
        else:
            self.wrong = f"append {number}: {status} {answer}"

    def note(self, stream, revision, position):
        self.revisions[stream] = max(revision, self.revisions.get(stream, -1))
        self.end = max(self.end, position)

    def writes(self):
        return [(self.rng.randrange(STREAMS), self.rng.randrange(TYPES),
                 1 << self.rng.randrange(TAGS)) for _ in range(self.rng.randrange(1, 4))]

    def append(self, kind):
        rng, conditions = self.rng, []
        number = (self.number + 1) << 20 | next(self.next)
        writes = self.writes()
        if kind == "revision":
            stream = rng.randrange(STREAMS)
            conditions = [("stream", stream, self.revisions.get(f"s-{stream}", "none"))]
        elif kind == "no match":
            items = [(rng.choice([None, rng.randrange(TYPES)]), 1 << rng.randrange(TAGS))
                     for _ in range(rng.randrange(1, 3))]
            conditions = [("no match", max(1, self.end - rng.randrange(3)), items)]
        elif kind == "shared":
            n = max(0, next(self.shared) // 3 - rng.randrange(3))
            number, writes = SHARED + n, [(1000 + n, n % TYPES, 1 << n % TAGS)] * (1 + n % 2)
            conditions = [("stream", 1000 + n, "none")]
        self.attempt(self.make(number, writes, conditions))

    # -- reads

    def read(self):
        rng = self.rng
        limit = rng.choice([20, 1000])
        if rng.randrange(3) == 0:
            stream = rng.randrange(STREAMS)
            after, to, form = 0, 0, f"{stream} 0:0"
            path = f"/streams/s-{stream}?limit=1000"
            limit = 1000
        else:
            kind, tag = rng.choice([(None, None), (0, None), (None, 1), (1, 2)])
            after = max(1, self.end - rng.randrange(40))
            path = f"/events?after={after}&limit={limit}"
            path += f"&type=T{kind}" if kind is not None else ""
            path += f"&tag=t{tag}" if tag is not None else ""
            to = 0
            form = (f"- {1 << kind if kind is not None else 0:x}:"
                    f"{1 << tag if tag is not None else 0:x}")
        invoked = time.monotonic_ns()
        status, events = self.send("GET", path)
        completed = time.monotonic_ns()
        if status == 404:
            events = []
        elif status != 200:
            self.wrong = f"{path}: {status} {events}"
            return
        seen = " ".join(f"{e['position']}={e['data']['r']}.{e['data']['p']}" for e in events)
        end = "limit" if len(events) == limit else "end"
        self.lines.append(f"read {self.number} {invoked} {completed} {after} {to} {form} {end} {seen}")
        for e in events:
            self.note(e["subject"], int(e["revision"]), int(e["position"]))

    def live(self, url):
        """Until the server is gone."""
        self.connect(url)
        try:
            request, self.pending = self.pending, None
            if request is not None and self.rng.random() < 0.7:
                self.attempt(request)
            while self.wrong is None:
                kind = self.rng.choice(["plain", "revision", "revision", "no match", "no match",
                                        "shared", "shared", "again", "read", "read"])
                if kind == "read":
                    self.read()
                elif kind == "again" and self.last is not None:
                    self.attempt(self.last)
                else:
                    self.append(kind)
        except Gone:
            pass
        except Exception as error:  # a thread's error would be lost
            self.wrong = repr(error)


def log_lines(server):
    """The log as it is in the end."""
    client, lines, after = Client(0, None), [], 1
    client.connect(server.url)
    while True:
        status, events = client.send("GET", f"/events?after={after}&limit=1000")
        if status != 200:
            raise RuntimeError(f"read the log: {status} {events}")
        if not events:
            return lines
        for e in events:
            tags = sum(1 << int(tag[1:]) for tag in e.get("tags", "").split(",") if tag)
            lines.append(f"log {e['position']} {e['revision']} {e['data']['r']} {e['data']['p']} "
                         f"{e['subject'][2:]} {e['type'][1:]} {tags:x}")
            after = int(e["position"])


def run(server, clients, kills):
    rng = random.Random(SEED)
    for _ in range(kills):
        server.start()
        threads = [threading.Thread(target=c.live, args=(server.url,), daemon=True)
                   for c in clients]
        for thread in threads:
            thread.start()
        time.sleep(rng.uniform(0.1, 0.5))
        status = server.stop(signal.SIGKILL)
        if status != -signal.SIGKILL:
            with open(server.log_path, encoding="utf-8", errors="replace") as log:
                raise RuntimeError(f"the server ended by itself, with {status}:\n{log.read()}")
        for thread in threads:
            thread.join(60)
        wrong = [c.wrong for c in clients if c.wrong is not None]
        if wrong:
            raise RuntimeError("; ".join(wrong))
    server.start()
    lines = log_lines(server)
    server.stop()
    return lines


def main():
    kills = int(sys.argv[1] if len(sys.argv) > 1 else os.environ.get("HISTORY_KILLS", "6"))
    shared = itertools.count()
    clients = [Client(number, shared) for number in range(CLIENTS)]
    with tempfile.TemporaryDirectory(prefix="deedbook-history-") as folder:
        server = Server(data=os.path.join(folder, "data"))
        try:
            log = run(server, clients, kills)
        finally:
            server.stop(signal.SIGKILL)
    lines = [line for c in clients for line in c.lines] + log
    with tempfile.NamedTemporaryFile("w", prefix="deedbook-history-", suffix=".txt",
                                     delete=False) as file:
        file.write("\n".join(lines) + "\n")
    refused = sum(" refused " in line for line in lines)
    unknown = sum(line.endswith(" unknown") for line in lines)
    again = sum(" again " in line for line in lines)
    answer = subprocess.run([CHECKER, file.name], capture_output=True, text=True)
    print(f"{kills} kills; {refused} refused, {again} repeated, {unknown} unknown; "
          f"{answer.stdout}{answer.stderr}".rstrip())
    if answer.returncode != 0 or not (refused and again and unknown):
        print(f"  again: SEED={SEED} tests/integration/history.py; the history is {file.name}")
        return 1
    os.unlink(file.name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
