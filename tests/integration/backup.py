#!/usr/bin/env python3
"""Backup and restore of the program itself: the examples of docs/operations/backup.md, clients and
read models that come back after a restore, and kill -9 while a backup is made or put back.

    DEEDBOOK=build/deedbook python3 tests/integration/backup.py"""
# sanitize: asan
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
import urllib.error
import urllib.request

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../support"))
from server import PROGRAM, ROOT, Server

PAGE = os.path.join(ROOT, "docs/operations/backup.md")
ORDER = {"order_id": "1", "customer": {"id": "c1", "name": "Anna"},
         "shipping_address": {"street": "S 1", "city": "Lund", "region": None, "postal_code": None,
                              "country": "SE"}, "currency": "EUR", "order_date": "2026-11-23"}
LINE = {"order_id": "1", "line_id": "1", "product_id": "p", "product_name": "Tea", "quantity": 2,
        "unit_price_cents": 950, "discount_percent": 10}


class Failed(Exception):
    pass


def check(condition, message):
    if not condition:
        raise Failed(message)


def run(*arguments, expect=0):
    done = subprocess.run([PROGRAM, *map(str, arguments)], capture_output=True, text=True,
                          timeout=120, env=dict(os.environ, NO_COLOR="1"))
    check(done.returncode == expect,
          f"deedbook {' '.join(map(str, arguments))}: exit {done.returncode}, not {expect}\n"
          f"{done.stdout}{done.stderr}")
    return done.stdout + done.stderr


def examples(text):
    """Scripts, what they should print, and the lines where they begin."""
    blocks = [(m.group(1), m.group(2), text.count("\n", 0, m.start()) + 1)
              for m in re.finditer(r"^```(sh|text)\n(.*?)^```$", text, re.M | re.S)]
    return [(line, body, blocks[i + 1][1] if i + 1 < len(blocks) and blocks[i + 1][0] == "text" else "")
            for i, (kind, body, line) in enumerate(blocks) if kind == "sh"]


def matches(wanted, printed):
    pattern = "".join(".*" if part == "…" else re.escape(part)
                      for part in re.split("(…)", wanted.rstrip("\n")))
    return re.fullmatch(pattern, printed.rstrip("\n"), re.S) is not None


def test_the_examples_of_the_page(scratch):
    for name, body in (("order.json", ORDER), ("line.json", LINE)):
        with open(os.path.join(scratch, name), "w", encoding="utf-8") as file:
            json.dump(body, file)
    tools = os.path.join(scratch, "bin")
    os.mkdir(tools)
    os.symlink(os.path.abspath(PROGRAM), os.path.join(tools, "deedbook"))
    server = Server(app="examples/orders", data=os.path.join(scratch, "data"),
                    options=["--backup-dir", os.path.join(scratch, "backups")]).start()
    environment = dict(os.environ, NO_COLOR="1", DEEDBOOK_SERVER=server.url,
                       PATH=tools + ":" + os.environ["PATH"])
    try:
        with open(PAGE, encoding="utf-8") as page:
            found = examples(page.read())
        check(len(found) >= 6, f"only {len(found)} examples")
        for line, script, wanted in found:
            done = subprocess.run(["bash", "-euo", "pipefail", "-c", script], cwd=scratch,
                                  timeout=60, env=environment, capture_output=True, text=True)
            check(done.returncode == 0 and matches(wanted, done.stdout),
                  f"{PAGE}:{line}: exit {done.returncode}\n{script}--- printed\n{done.stdout}"
                  f"{done.stderr}--- wanted\n{wanted}")
    finally:
        server.stop()


def ask(url, headers=None, body=None, method=None):
    request = urllib.request.Request(url, headers=headers or {}, method=method,
                                     data=None if body is None else json.dumps(body).encode())
    if body is not None:
        request.add_header("Content-Type", "application/json")
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, answer.read().decode(), answer.headers
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode(), error.headers


def test_clients_and_read_models_of_before_a_restore_are_refused(scratch):
    data, backups = os.path.join(scratch, "data"), os.path.join(scratch, "backups")
    options = ["--backup-dir", backups]
    server = Server(app="examples/orders", data=data, options=options).start()
    status, _, _ = ask(server.url + "/commands/CreateOrder", body=ORDER)
    check(status == 200, "command")
    run("backup", "nightly", "--server", server.url)
    status, _, headers = ask(server.url + "/commands/AddLineItem", body=LINE)
    token = headers["Deedbook-Token"]
    check(status == 200 and token.endswith(".1.p3"), f"token {token}")
    status, rows, _ = ask(server.url + f"/queries/order_summary?order_id=1&after={token}")
    check(status == 200 and '"lines":1' in rows, rows)
    _, _, headers = ask(server.url + "/events?limit=1")
    log = headers["Deedbook-Log"]
    server.stop()

    os.rename(data, data + ".before")
    run("restore", os.path.join(backups, "nightly"), data)
    # Somebody copies the read models along, to save the time.
    shutil.copytree(os.path.join(data + ".before", "projections"), os.path.join(data, "projections"))
    server = Server(app="examples/orders", data=data, options=options).start()
    try:
        for path, headers in ((f"/queries/order_summary?order_id=1&after={token}", {}),
                              (f"/events?after={token}", {}),
                              ("/events?after=1", {"Deedbook-Log": log}),
                              ("/events?follow=false", {"Accept": "text/event-stream",
                                                        "Last-Event-ID": token})):
            status, text, _ = ask(server.url + path, headers)
            check(status == 409 and "stale_token" in text and "read again from the start" in text,
                  f"{path}: {status} {text}")
        _, text, _ = ask(server.url + "/projections/order_summary")
        check('"state":"failed"' in text and "since it was restored: rebuild it" in text, text)
        status, _, _ = ask(server.url + "/projections/order_summary/rebuild", method="POST")
        check(status == 202, "rebuild")
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            _, text, _ = ask(server.url + "/projections/order_summary")
            if '"rebuild":null' in text and '"state":"running"' in text:
                break
            time.sleep(0.05)
        status, rows, _ = ask(server.url + "/queries/order_summary?order_id=1&after=2")
        check(status == 200 and '"lines":0' in rows, f"{status} {rows}")
        run("backup", "nightly", "--server", server.url)  # the next epoch, into the same directory
    finally:
        server.stop()


def test_over_http_only_names_are_taken(scratch):
    server = Server(data=os.path.join(scratch, "data"),
                    options=["--backup-dir", os.path.join(scratch, "backups")]).start()
    try:
        for name in ("../x", "/tmp/x", ".", "..", "a/b", "", "a" * 65, "%00"):
            status, text, _ = ask(f"{server.url}/backup?name={name}", method="POST")
            check(status == 400, f"{name}: {status} {text}")
        check(not os.path.exists(os.path.join(scratch, "x")), "it was made")
        status, text, _ = ask(f"{server.url}/backup")
        check(status == 200 and '"state":"none"' in text, text)
        status, _, _ = ask(f"{server.url}/backup", method="POST")
        check(status == 202, "begun")
        while '"running"' in text or '"none"' in text:
            _, text, _ = ask(f"{server.url}/backup")
        check('"state":"done"' in text and '"name":"backup"' in text, text)
    finally:
        server.stop()
    server = Server(data=os.path.join(scratch, "data")).start()
    try:
        status, text, _ = ask(f"{server.url}/backup", method="POST")
        check(status == 404 and "backup-dir" in text, text)
    finally:
        server.stop()


def fill(data, count):
    lines = "\n".join(json.dumps({"specversion": "1.0", "id": f"00000000-0000-4000-8000-{n:012x}",
                                  "source": "x", "type": "T", "subject": f"s-{n % 97}",
                                  "data": "x" * 2000}) for n in range(count))
    path = data + ".ndjson"
    with open(path, "w", encoding="utf-8") as file:
        file.write(lines + "\n")
    run("import", path, "--data", data)


def kill_after(seconds, *arguments):
    """Start it, kill it; was it done before?"""
    process = subprocess.Popen([PROGRAM, *map(str, arguments)], stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL)
    try:
        process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
    return process.wait() == 0


def test_kill_9_leaves_the_older_backup_and_no_half_store(scratch):
    data, target = os.path.join(scratch, "data"), os.path.join(scratch, "backup")
    fill(data, 2000)
    run("backup", "--data", data, target)
    begun = time.monotonic()
    run("backup", "--data", data, os.path.join(scratch, "timing"))
    took = time.monotonic() - begun
    shutil.rmtree(os.path.join(scratch, "timing"))
    rng, killed, position = random.Random(1), 0, 2001
    for turn in range(12):
        run("append", f"more-{turn}", "--type", "T", "{}", "--data", data)
        position += 1
        done = kill_after(rng.uniform(0.2, 1.1) * took, "backup", "--data", data, target)
        killed += not done
        text = run("verify", "--data", target, "--json")
        found = json.loads(text)["position"]
        check(found == position if done else found <= position, f"{found} of {position}, {done}")
        restored = os.path.join(scratch, "restored")
        whole = kill_after(rng.uniform(0.2, 1.1) * took, "restore", target, restored)
        opened = subprocess.run([PROGRAM, "info", "--data", restored, "--json"],
                                capture_output=True, text=True)
        if opened.returncode == 0:
            check(json.loads(opened.stdout)["position"] == found, opened.stdout)
        else:
            check(not whole, opened.stderr)
            run("restore", target, restored)
        run("verify", "--data", restored)
        shutil.rmtree(restored)
    check(killed > 0, "nothing was killed in time")


def main():
    failed = 0
    tests = [(name, test) for name, test in globals().items() if name.startswith("test_")]
    for name, test in tests:
        if len(sys.argv) > 1 and not any(part in name for part in sys.argv[1:]):
            continue
        scratch = tempfile.mkdtemp(prefix="deedbook-backup-")
        begun = time.monotonic()
        try:
            test(scratch)
            print(f"ok    {name} ({time.monotonic() - begun:.1f} s)")
        except Failed as trouble:
            failed += 1
            print(f"FAIL  {name}: {trouble}")
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    print(f"{len(tests)} tests, {failed} failed")
    return 1 if failed else 0


sys.exit(main())
