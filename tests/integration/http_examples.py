#!/usr/bin/env python3
"""Run every example of docs/protocol/http.md, in order, against a fresh server with the orders
example, and compare what it prints with what stands below it. "…" stands for anything.

Every route of openapi.json must be named in the page, too.

    DEEDBOOK=build/deedbook tests/integration/http_examples.py
"""
# sanitize: asan
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import urllib.request

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PAGE = os.path.join(ROOT, "docs/protocol/http.md")
PROGRAM = os.environ.get("DEEDBOOK", os.path.join(ROOT, "build/deedbook"))


def examples(text):
    """Pairs of a script and what it should print, with the line where it begins."""
    blocks = [(m.group(1), m.group(2), text.count("\n", 0, m.start()) + 1)
              for m in re.finditer(r"^```(sh|text)\n(.*?)^```$", text, re.M | re.S)]
    found = []
    for index, (kind, body, line) in enumerate(blocks):
        if kind != "sh":
            continue
        below = blocks[index + 1] if index + 1 < len(blocks) else ("", "", 0)
        found.append((line, body, below[1] if below[0] == "text" else None))
    return found


def matches(wanted, printed):
    pattern = "".join(".*" if part == "…" else re.escape(part)
                      for part in re.split("(…)", wanted.rstrip("\n")))
    return re.fullmatch(pattern, printed.rstrip("\n")) is not None


def start(data):
    environment = {k: v for k, v in os.environ.items() if not k.startswith("DEEDBOOK")}
    server = subprocess.Popen([PROGRAM, "serve", "examples/orders", "--data", data,
                               "--backup-dir", data + ".backups", "--listen", "127.0.0.1:0"], cwd=ROOT, env=environment,
                              stderr=subprocess.PIPE, text=True)
    lines = []
    for line in server.stderr:
        lines.append(line)
        url = re.search(r"serving on (http://[0-9.:]+)", line)
        if url:
            return server, url.group(1)
    sys.exit("the server did not start:\n" + "".join(lines))


def run_examples(url):
    failed = 0
    with open(PAGE, encoding="utf-8") as page:
        found = examples(page.read())
    for line, script, wanted in found:
        done = subprocess.run(["bash", "-euo", "pipefail", "-c", script], cwd=ROOT, timeout=60,
                              env={**os.environ, "DEEDBOOK": url}, capture_output=True, text=True)
        if done.returncode == 0 and (wanted is None or matches(wanted, done.stdout)):
            continue
        failed += 1
        print(f"{PAGE}:{line}: exit status {done.returncode}\n{script}"
              f"--- printed\n{done.stdout}{done.stderr}--- wanted\n{wanted}")
    print(f"{len(found)} examples, {failed} failed")
    return failed


def routes_missing(url):
    with open(PAGE, encoding="utf-8") as page:
        text = page.read()
    with urllib.request.urlopen(url + "/openapi.json") as answer:
        paths = json.load(answer)["paths"]
    missing = [path for path in paths if path not in text]
    for path in missing:
        print(f"{PAGE} does not name {path}")
    return len(missing)


def main():
    with tempfile.TemporaryDirectory() as data:
        server, url = start(os.path.join(data, "log"))
        try:
            failed = run_examples(url) + routes_missing(url)
        finally:
            server.send_signal(signal.SIGTERM)
            rest = server.stderr.read()
            code = server.wait(timeout=60)
    if code != 0:
        print(f"the server ended with {code}:\n{rest}")
    return 1 if failed or code != 0 else 0


sys.exit(main())
