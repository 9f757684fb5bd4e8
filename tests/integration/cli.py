#!/usr/bin/env python3
# sanitize: asan
"""The command line: each subcommand against a server and against a directory, exit codes, JSON that
parses, errors that name things, the man page beside --help, and export -> import -> export.

    python3 tests/integration/cli.py [NAME...]    only the tests whose name contains one of these"""
import base64
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../support"))
from server import PROGRAM, ROOT, Server

APP = os.path.join(ROOT, "examples/orders")
SCRATCH = tempfile.mkdtemp(prefix="deedbook-cli-")
UUID = re.compile(r"^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$")

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


class Result:
    def __init__(self, arguments, process):
        self.arguments, self.code = arguments, process.returncode
        self.out, self.err = process.stdout, process.stderr

    def __str__(self):
        return f"deedbook {' '.join(self.arguments)}\nexit {self.code}\n{self.out}{self.err}"

    def json(self):
        return json.loads(self.out)

    def lines(self):
        return [json.loads(line) for line in self.out.splitlines()]


def run(*arguments, expect=0, stdin=None, env=None):
    """Run it; the exit code must be `expect`, and trouble must have one readable line."""
    environment = dict(os.environ, NO_COLOR="1")
    environment.pop("DEEDBOOK_SERVER", None)
    environment.update(env or {})
    process = subprocess.run([PROGRAM, *map(str, arguments)], input=stdin, capture_output=True,
                             text=True, timeout=120, env=environment, cwd=ROOT)
    result = Result([str(a) for a in arguments], process)
    check(result.code == expect, f"expected exit {expect}:\n{result}")
    if expect not in (0, 6):
        check(result.err.strip() or result.out.strip(), f"no word about it:\n{result}")
    return result


def directory(name):
    path = os.path.join(SCRATCH, name)
    shutil.rmtree(path, ignore_errors=True)
    return path


_server = None


def server():
    """One server with the orders app for all tests that need one."""
    global _server
    if _server is None:
        _server = Server(app="examples/orders").start()
    return _server


def at_server(*arguments, **options):
    return run(*arguments, "--server", server().url, **options)


_order = 0


def new_order():
    """A fresh order with one line; its id."""
    global _order
    _order += 1
    order_id = f"cli{_order}"
    at_server("command", "CreateOrder", json.dumps({**ORDER, "order_id": order_id}))
    at_server("command", "AddLineItem", json.dumps({**LINE, "order_id": order_id}))
    return order_id


# ---- help, man page, usage ------------------------------------------------------------------------

def subcommands():
    names = re.findall(r"^  ([a-z]+) {2,}\S", run("help").out, re.M)
    check(len(names) >= 19, f"the list is short: {names}")
    return names


def test_every_subcommand_has_help_with_an_example():
    for name in subcommands():
        if name == "help":
            continue
        text = run(name, "--help").out
        check("Usage: deedbook " + name in text, text)
        check(re.search(r"^Examples?:", text, re.M) or name == "help", f"{name} has no example:\n{text}")
        check(run("help", name).out == text, f"help {name} differs from {name} --help")


def test_the_man_page_and_help_name_the_same():
    with open(os.path.join(ROOT, "docs/deedbook.1.scd"), encoding="utf-8") as file:
        page = file.read()
    part = page[page.index("# SUBCOMMANDS"):page.index("# COMMON OPTIONS")]
    in_page = re.findall(r"^\*([a-z]+)\*", part, re.M)
    check(sorted(in_page) == sorted(subcommands()), f"page {in_page}, help {subcommands()}")

    codes_page = re.findall(r"^_(\d)_\n\t(.+)$", page, re.M)
    codes_help = re.findall(r"^  (\d) +(.+)$", run("help").out, re.M)
    check(codes_page == codes_help and len(codes_page) == 8, f"{codes_page} {codes_help}")

    # Options that the page names exist.
    for name in ("append", "command", "read", "query", "state", "import", "export", "bench"):
        text = run(name, "--help").out
        start = part.index(f"*{name}*")
        end = part.find("\n\n*", start)
        for option in set(re.findall(r"\*(--[a-z-]+)\*", part[start:end])):
            check(option in text, f"the page says {name} {option}, --help does not")
    if shutil.which("scdoc"):
        with open(os.path.join(ROOT, "docs/deedbook.1.scd"), "rb") as file:
            rendered = subprocess.run(["scdoc"], stdin=file, capture_output=True, check=False)
        check(rendered.returncode == 0 and b".TH" in rendered.stdout, rendered.stderr.decode())


def test_usage_errors_exit_with_2_and_name_what_is_wrong():
    for arguments, part in [(["frobnicate"], "frobnicate"), (["append"], "stream"),
                            (["append", "s"], "body"), (["read", "--limit", "many"], "many"),
                            (["read", "a", "b"], "b"), (["read", "--nonsense"], "nonsense"),
                            (["read", "--server", "localhost:1"], "localhost:1"),
                            (["read", "--data", "x", "--server", "http://y"], "exclude"),
                            (["query", "q", "noequals"], "noequals"), (["verify"], "--data"),
                            (["state", "s", "--data", "x"], "--app"), (["import"], "file"),
                            (["bench", "--mode", "dance"], "dance"),
                            (["bench", "--expect", "--depth", "2"], "revision"), (["rebuild"], "--all"),
                            (["serve", "--listen"], "listen"), (["serve", "--pool-threads", "x"], "x"),
                            (["append", "s", "{", "--type", "T", "--data", directory("u")], "body")]:
        result = run(*arguments, expect=2)
        check(part in result.err, f"does not name {part}:\n{result}")


def test_version_is_the_headers():
    with open(os.path.join(ROOT, "include/deedbook.h"), encoding="utf-8") as file:
        version = re.search(r'DEED_VERSION "(.+)"', file.read()).group(1)
    check(run("version").out == f"deedbook {version}\n", run("version").out)
    check(run("--version").out == run("version").out, "--version differs")


def test_a_server_out_of_reach_is_5_and_named():
    for command in (["read"], ["info"], ["query"], ["projections"], ["state", "a"],
                    ["append", "a", "{}", "--type", "T"], ["command", "X", "{}"]):
        result = run(*command, "--server", "http://127.0.0.1:1", expect=5)
        check("127.0.0.1:1" in result.err, str(result))
    result = run("read", expect=5, env={"DEEDBOOK_SERVER": "http://127.0.0.1:2"})
    check("127.0.0.1:2" in result.err, str(result))


# ---- events: the same for a server and for a directory ----------------------------------------------

def both(test):
    """The test runs twice: with the options of a server, and of a directory."""
    def at_both():
        test(["--server", server().url], "server")
        test(["--data", directory(test.__name__)], "directory")
    at_both.__name__ = test.__name__
    return at_both


@both
def test_append_and_read(where, kind):
    result = run("append", "note-1", '{"text":"a"}', "--type", "Noted", "--expected", "none",
                 "--tag", "x:1", "--tag", "y,2", "--metadata", '{"m":1}', "--actor", "anna",
                 "--correlation", "corr", "--causation", "caus", "--time", "2001-02-03T04:05:06Z",
                 "--id", "00000000-0000-4000-8000-00000000000a", *where)
    check("note-1  revision 0" in result.out, str(result))
    again = run("append", "note-1", '{"text":"a"}', "--type", "Noted", "--tag", "x:1", "--tag", "y,2",
                "--metadata", '{"m":1}', "--actor", "anna", "--correlation", "corr", "--causation", "caus",
                "--time", "2001-02-03T04:05:06Z", "--id", "00000000-0000-4000-8000-00000000000a",
                "--json", *where).json()
    check(again["repeated"] is True and again["revision"] == 0, str(again))

    conflict = run("append", "note-1", "{}", "--type", "Noted", "--expected", "none", *where, expect=4)
    check("note-1" in conflict.err and "revision 0" in conflict.err, str(conflict))
    run("append", "note-1", "-", "--type", "Blob", "--content-type", "text/plain", "--expected", "0",
        stdin="plain text", *where)
    run("append", "note-1", '[{"type":"A","data":1},{"type":"B","data":[2]}]', *where)

    events = run("read", "note-1", "--json", *where).lines()
    check([e["type"] for e in events] == ["Noted", "Blob", "A", "B"], str(events))
    first = events[0]
    check(UUID.match(first["id"]) and first["data"] == {"text": "a"}, str(first))
    check(first["tags"] == "x:1,y%2C2" and first["metadata"] == '{"m":1}', str(first))
    check(first["actor"] == "anna" and first["correlationid"] == "corr", str(first))
    check(first["causationid"] == "caus" and first["time"].startswith("2001-02-03T04:05:06"), str(first))
    check(base64.b64decode(events[1]["data_base64"]) == b"plain text", str(events[1]))

    table = run("read", "note-1", "--backwards", "--limit", "2", *where).out.splitlines()
    check(table[0].split() == ["POSITION", "STREAM", "REVISION", "TYPE", "TIME", "DATA"], table[0])
    check("B" in table[1] and "A" in table[2] and len(table) == 3, "\n".join(table))
    check([e["type"] for e in run("read", "--type", "A", "--type", "B", "--category", "note", "--json",
                                  *where).lines()] == ["A", "B"], "type filter")
    check(len(run("read", "--tag", "x:1", "--json", *where).lines()) == 1, "tag filter")
    check(len(run("read", "--correlation", "corr", "--json", *where).lines()) == 1, "correlation filter")
    check(len(run("read", "note-1", "--from", "3", "--json", *where).lines()) == 1, "--from")
    missing = run("read", "note-none", *where, expect=3)
    check("note-none" in missing.err, str(missing))
    run("append", "note-1", "{}", "--type", "T", "--id", "nonsense", *where, expect=2)


@both
def test_events_cannot_drive_the_terminal(where, kind):
    run("append", "evil-1", '{"a":"\x7f\u009b31m å"}', "--type", "T", *where)
    run("append", "evil-1", "{}", "--type", "T\x1b[31m", *where, expect=2)
    for locale in ("C", "C.UTF-8"):
        out = run("read", "evil-1", *where, env={"LC_ALL": locale}).out
        check("\x1b" not in out and "\x7f" not in out and "\x9b" not in out, repr(out))
        check("\\x7f" in out and "å" in out, repr(out))


@both
def test_info_and_json(where, kind):
    run("append", "info-1", "{}", "--type", "T", *where)
    info = run("info", "--json", *where).json()
    check(UUID.match(info["log_id"]) and info["position"] >= 2 and info["epoch"] == 1, str(info))
    out = run("info", *where).out
    check(info["log_id"] in out and info["chain_hash"] in out, out)


def test_a_directory_that_is_not_there_is_not_made_by_reading():
    path = directory("absent")
    for command in (["read"], ["info"], ["verify"], ["export"]):
        result = run(*command, "--data", path, expect=3)
        check(path in result.err and not os.path.exists(path), str(result))


def test_a_directory_in_use_is_read_but_not_written():
    run("append", "beside-1", "{}", "--type", "T", "--server", server().url)
    data = ["--data", server().data]
    check(len(run("read", "beside-1", "--json", *data).lines()) == 1, "read beside a server")
    run("verify", *data)
    result = run("append", "beside-1", "{}", "--type", "T", *data, expect=4)
    check(server().data in result.err, str(result))


# ---- export, import -----------------------------------------------------------------------------------

# What belongs to the log that an event is in, not to the event.
LOGS_OWN = {"source", "position", "recordedat"}


def without_own(lines):
    return [{k: v for k, v in event.items() if k not in LOGS_OWN} for event in lines]


def many_events(where, count=1200):
    """All kinds of events; whatever the API accepts must survive."""
    for part in range(3):
        events = []
        for i in range(part * count // 3, (part + 1) * count // 3):
            event = {"type": f"T{i % 7}", "data": {"n": i, "text": "\u2028 é 🧾 \\ \" \u0001"},
                     "tags": [f"t:{i % 5}", "a,b%,"][: i % 3], "time": f"19{i % 90 + 10}-01-01T00:00:00.123456789Z",
                     "id": f"00000000-0000-7000-8000-{i:012x}"}
            if i % 2:
                event["metadata"] = {"i": i, "deep": [1, {"x": None}]}
            if i % 3:
                event.update(actor=f"anna {i}", correlation_id=f"corr {i % 9}", causation_id="caus")
            if i % 11 == 0:
                del event["data"]
                event.update(data_base64=base64.b64encode(bytes([0, 255, i % 256, 10, 13])).decode(),
                             datacontenttype="application/octet-stream")
            if i % 13 == 0 and "data" in event:
                event["datacontenttype"] = "application/vnd.x+json; charset=utf-8"
            events.append(event)
        # Indented: data has line ends in it, which a line cannot carry as they are.
        run("append", f"exp-{part}", "-", *where, stdin=json.dumps(events, indent=part))
    for data in ("  {\"space\" : 1}\n", "12345678901234567890.12345678901234567890", '"\\u0041"', "null"):
        run("append", "exp-odd", data, "--type", "Odd", *where)
    run("append", "$$exp-1", '{"$maxCount":5}', "--type", "$metadata", *where)


def test_export_import_export_is_exact():
    first, second = directory("export1"), directory("export2")
    many_events(["--data", first])
    one, two = os.path.join(SCRATCH, "1.ndjson"), os.path.join(SCRATCH, "2.ndjson")
    run("export", "--data", first, "--output", one)
    summary = run("import", one, "--data", second, "--json").json()
    check(summary["events"] == 1205 and summary["known"] == 0, str(summary))
    run("export", "--data", second, "--output", two)
    with open(one, encoding="utf-8") as file:
        lines_one = file.read().splitlines()
    with open(two, encoding="utf-8") as file:
        lines_two = file.read().splitlines()
    before, after = map(json.loads, lines_one), map(json.loads, lines_two)
    check(without_own(before) == without_own(after), "an event changed on its way")

    # Byte for byte: what the log owns is put back to what it was, and then the files are the same.
    own = re.compile(r'"(source|position|recordedat)":"[^"]*"')
    plain_one = [own.sub('"-"', line, count=3) for line in lines_one]
    plain_two = [own.sub('"-"', line, count=3) for line in lines_two]
    check(plain_one == plain_two, "the exports differ in more than the log's own attributes")
    check(run("read", "exp-1", "--data", second, "--json").out.count("\n") == 5, "retention is kept")
    run("verify", "--data", second)


def test_an_import_that_was_cut_short_is_finished_by_another():
    source, target = directory("resume1"), directory("resume2")
    many_events(["--data", source], 600)
    all_lines = run("export", "--data", source).out.splitlines(keepends=True)
    half = os.path.join(SCRATCH, "half.ndjson")
    with open(half, "w", encoding="utf-8") as file:
        file.writelines(all_lines[:333])
    run("import", half, "--data", target, "--batch", "50")
    summary = run("import", "-", "--data", target, "--batch", "70", "--json",
                  stdin="".join(all_lines)).json()
    check(summary["events"] == len(all_lines) and summary["known"] == 333, str(summary))
    again = run("import", "-", "--data", target, "--json", stdin="".join(all_lines)).json()
    check(again["known"] == len(all_lines), str(again))
    check(without_own(run("export", "--data", target).lines())
          == without_own(map(json.loads, all_lines)), "the log differs")


def test_import_says_which_line_is_wrong_and_keeps_what_was_good():
    target = directory("wrongline")
    good = '{"specversion":"1.0","id":"%s","source":"/x","type":"T","subject":"a-1","data":%d}\n'
    lines = "".join(good % (f"00000000-0000-4000-8000-{i:012d}", i) for i in range(5))
    result = run("import", "-", "--data", target, expect=2, stdin=lines + "{broken\n" + lines)
    check("line 6" in result.err, str(result))
    check(len(run("read", "a-1", "--data", target, "--json").lines()) == 5, "the good lines are stored")
    changed = lines.replace('"data":3', '"data":33')
    result = run("import", "-", "--data", target, expect=4, stdin=changed)
    check("line 4" in result.err and "000000000003" in result.err, str(result))


def test_a_closed_stream_is_closed_in_the_copy():
    source, target = directory("closed1"), directory("closed2")
    with Server(data=source) as live:
        for stream in ("open-1", "closed-1", "soft-1"):
            run("append", stream, "{}", "--type", "T", "--server", live.url)
        check(live.request("DELETE", "/streams/closed-1?tombstone=true")[0] == 200, "tombstone")
        check(live.request("DELETE", "/streams/soft-1")[0] == 200, "soft delete")
        text = run("export", "--server", live.url).out
    check(run("export", "--data", source).out == text, "a server exports what its directory does")
    run("import", "-", "--data", target, stdin=text)
    run("import", "-", "--data", target, stdin=text)
    for path in (source, target):
        run("read", "open-1", "--data", path)
        run("read", "closed-1", "--data", path, expect=3)
        run("read", "soft-1", "--data", path, expect=3)
        run("append", "closed-1", "{}", "--type", "T", "--data", path, expect=3)


def test_metadata_is_shown_changed_and_replaced():
    path = directory("metadata")
    events = json.dumps([{"type": "T", "data": n} for n in range(4)])

    def shown(*where):
        return run("metadata", "m-1", "--json", *where).json()

    with Server(data=directory("metadata-live")) as live:
        for where in (["--data", path], ["--server", live.url]):
            run("metadata", "m-1", *where, expect=3)
            run("append", "m-1", events, *where)
            check("no metadata" in run("metadata", "m-1", *where).out, "none yet")
            run("metadata", "m-1", '{"$maxCount":3,"owner":{"x":1.50}}', "--expected", "none", *where)
            run("metadata", "m-1", "{}", "--expected", "none", *where, expect=4)
            check(len(run("read", "m-1", "--json", *where).lines()) == 3, "maxCount")
            run("metadata", "m-1", "--max-count", "2", "--max-age", "30d", "--actor", "anna", *where)
            check(shown(*where) == {"stream": "m-1", "revision": 1, "metadata": {
                "owner": {"x": 1.5}, "$maxCount": 2, "$maxAge": 2592000}}, str(shown(*where)))
            check("1.50" in run("metadata", "m-1", "--json", *where).out, "own members to the byte")
            run("metadata", "m-1", "--max-count", "none", "--max-age", "none",
                "--truncate-before", "3", *where)
            check(len(run("read", "m-1", "--json", *where).lines()) == 1, "tb")
            run("metadata", "m-1", "--max-count", "0", *where, expect=2)
            run("metadata", "m-1", "--max-age", "soon", *where, expect=2)
            run("metadata", "m-1", "{}", "--max-count", "1", *where, expect=2)
            run("delete", "m-1", "--expected", "2", *where, expect=4)
            check("deleted" in run("delete", "m-1", "--expected", "3", *where).out, "delete")
            run("read", "m-1", *where, expect=3)
            check(shown(*where)["metadata"]["owner"] == {"x": 1.5}, "a delete keeps the owner's")
            check("for good" in run("delete", "m-1", "--tombstone", *where).out, "tombstone")
            run("metadata", "m-1", *where, expect=3)
            run("delete", "nothing", *where, expect=3)


def log_holds(path, text):
    return any(text in open(os.path.join(folder, name), "rb").read()
               for folder, _, names in os.walk(os.path.join(path, "log")) for name in names)


def test_compact_and_erase():
    path, live_path = directory("compact"), directory("compact-live")
    with Server(data=live_path) as live:
        for where, data in ((["--data", path], path), (["--server", live.url], live_path)):
            for stream in ("c-1", "c-2", "c-3"):
                run("append", stream, json.dumps([{"type": "T", "data": f"content of {stream} {n}"}
                                                  for n in range(4)]), *where)
            run("metadata", "c-1", "--max-count", "1", *where)
            run("delete", "c-2", *where)
            check("0 events removed" in run("compact", *where).out, "nothing is sealed yet")
            summary = run("compact", "--active", "--json", *where).json()
            check(summary["state"] == "done" and summary["events_removed"] == 7, str(summary))
            check(not log_holds(data, b"content of c-2") and log_holds(data, b"content of c-1 3"),
                  "what is hidden is out of the files")
            check("0 events removed" in run("compact", *where).out, "there is no more")
            run("compact", "--compress", *where)
            run("compact", "--compress=19", *where)
            run("compact", "--compress=20", *where, expect=2)
            run("compact", "everything", *where, expect=2)
            summary = run("erase", "c-3", "--actor", "dpo", "--json", *where).json()
            check(summary["kind"] == "erase" and summary["events_removed"] == 4, str(summary))
            run("erase", "nothing", *where, expect=3)
            run("erase", *where, expect=2)
            run("read", "c-3", *where, expect=3)
            result = run("read", *where, expect=3)
            check("read after position 4" in result.err, result.err)
            check("horizon      5" in run("info", *where).out, run("info", *where).out)
            shown = run("read", "--after", "1", "--removed", "--json", *where).lines()
            check(sum(event.get("removed", False) for event in shown) == 11 and len(shown) == 12,
                  str(shown))
            run("export", "--removed", *where, expect=2)
            export = run("export", *where)
            check("not in it: 11 events between positions 2 and" in export.err, export.err)
            check("intact" in run("verify", "--data", data).out, "it verifies")
    run("compact", "--no-wait", "--data", path, expect=2)
    run("compact", "--data", directory("compact-nowhere"), expect=3)


def test_export_to_a_file_leaves_no_half():
    path = directory("half")
    run("append", "a-1", "{}", "--type", "T", "--data", path)
    target = os.path.join(SCRATCH, "nowhere/x.ndjson")
    run("export", "--data", path, "--output", target, expect=3)
    check(not os.path.exists(target), "made")
    if os.path.exists("/dev/full"):
        process = subprocess.run([PROGRAM, "export", "--data", path], stdout=open("/dev/full", "wb"),
                                 stderr=subprocess.PIPE, check=False)
        check(process.returncode == 7, f"a full disk is not a success: {process.returncode}")


# ---- damage ---------------------------------------------------------------------------------------------

def test_verify_finds_a_flipped_byte_and_says_where():
    path = directory("damage")
    run("append", "d-1", "-", "--data", path, stdin=json.dumps(
        [{"type": "T", "data": {"n": i, "pad": "x" * 500}} for i in range(100)]))
    run("append", "d-1", "{}", "--type", "T", "--data", path)
    good = run("verify", "--data", path)
    check("intact" in good.out, good.out)
    check(run("verify", "--data", path, "--json").lines()[-1]["damage_count"] == 0, "count")
    segments = [os.path.join(folder, name) for folder, _, names in os.walk(path) for name in names
                if b"pad" in open(os.path.join(folder, name), "rb").read()]
    check(segments, f"no segment in {os.listdir(path)}")
    with open(segments[0], "r+b") as file:
        at = file.read().index(b"xxxxx")
        file.seek(at)
        file.write(b"y")
    result = run("verify", "--data", path, expect=6)
    check("damage" in result.out and "offset" in result.out and "position" in result.out, str(result))
    lines = run("verify", "--data", path, "--json", expect=6).lines()
    check(lines[-1]["damage_count"] == len(lines) - 1 >= 1, str(lines))
    check(lines[0]["offset"] <= at < lines[0]["offset"] + lines[0]["size"] and "what" in lines[0], str(lines))


def test_a_damaged_log_is_read_around_and_repaired_only_when_told():
    path = directory("repair")
    for i in range(3):
        run("append", f"d-{i}", json.dumps({"pad": "abcdefgh" * 99}), "--type", "T", "--data", path)
    for folder, _, names in os.walk(path):
        for name in names:
            with open(os.path.join(folder, name), "r+b") as file:
                content = file.read()
                second = content.find(b"abcdefgh", content.find(b"abcdefgh") + 4096)
                if second > 0:
                    file.seek(second)
                    file.write(b"X")
    data = ["--data", path]
    run("verify", *data, expect=6)
    check("position" in run("info", *data, expect=6).out, "info tells")
    run("append", "d-9", "{}", "--type", "T", *data, expect=5)
    broken = run("export", *data, expect=6)
    check("behind position 2" in broken.err and "positions 3 to 3" in broken.err, str(broken))
    check([e["subject"] for e in run("export", "--until", "2", *data).lines()] == ["d-0"], "before")
    check([e["subject"] for e in run("export", "--after", "3", *data).lines()] == ["d-2"], "behind")
    check("--accept-loss" in run("repair", *data, expect=6).out, "repair lists")
    run("append", "d-9", "{}", "--type", "T", *data, expect=5)
    run("repair", "--accept-loss", *data)
    run("append", "d-9", "{}", "--type", "T", *data)
    run("read", "--after", "2", *data, expect=6)
    run("read", "d-0", *data)
    run("repair", *data)


# ---- the app --------------------------------------------------------------------------------------------

def test_commands_states_and_explanations():
    order = new_order()
    rejected = at_server("command", "RemoveLineItem", json.dumps({"order_id": order, "line_id": "9"}), expect=1)
    check("line_not_found" in rejected.err, str(rejected))
    stale = at_server("command", "CancelOrder", json.dumps({"order_id": order, "reason": "x"}),
                      "--if-match", "0", expect=4)
    check("revision" in stale.err, str(stale))
    unknown = at_server("command", "Dance", "{}", expect=3)
    check("Dance" in unknown.err, str(unknown))
    shape = at_server("command", "CancelOrder", json.dumps({"order_id": order}), expect=2)
    check("reason" in shape.err, str(shape))
    ship = json.dumps({"order_id": order, "carrier": "P", "tracking_number": "1", "shipped_on": "2026-11-24"})
    once = at_server("command", "ShipOrder", ship, "--idempotency-key", "k" + order, "--json", "--actor", "bo").json()
    twice = at_server("command", "ShipOrder", ship, "--idempotency-key", "k" + order, "--json", "--actor", "bo").json()
    check(once["position"] == twice["position"] and twice["repeated"] is True, f"{once} {twice}")

    now = at_server("state", "order-" + order, "--json").json()
    then = at_server("state", "order-" + order, "--revision", "0", "--json").json()
    check(now["revision"] == 2 and then["revision"] == 0 and now["state"] != then["state"], f"{now} {then}")
    check("1710" in at_server("state", "order-" + order).out, "the total")
    at_server("state", "order-" + order, "--revision", "99", expect=3)
    at_server("state", "order-nobody", expect=3)

    life = at_server("explain", "order-" + order).out
    for part in ("OrderCreated", "OrderLineItemAdded", "OrderShipped", "by bo", "1710"):
        check(part in life, f"no {part} in\n{life}")
    events = at_server("explain", "order-" + order, "--json").json()
    check([e["revision"] for e in events] == [0, 1, 2] and all(e["changes"] for e in events), str(events))


def test_queries_now_and_then():
    order = new_order()
    position = json.loads(at_server("read", "order-" + order, "--json", "--backwards", "--limit", "1").out)["position"]
    rows = at_server("query", "order_summary", f"order_id={order}", "--after", position, "--json").json()
    check(len(rows) == 1 and rows[0]["total_cents"] == 1710, str(rows))
    table = at_server("query", "order_summary", f"order_id={order}").out
    check("1710" in table and "as of position" in table, table)
    before = at_server("query", "order_summary", f"order_id={order}", "--position", int(position) - 1, "--json").json()
    check(before and before[0]["total_cents"] == 0, str(before))
    missing = at_server("query", "order_summary", expect=2)
    check("order_id" in missing.err, str(missing))
    at_server("query", "no_such_query", expect=3)
    listing = at_server("query").out
    check("order_summary" in listing and "order_id" in listing, listing)


def test_consumer_groups():
    at_server("groups", "set", "$all", "mailer", '{"strategy":"Pinned","start":"start"}')
    at_server("groups", "set", "cli-1", "other")
    listing = at_server("groups").out
    check("mailer" in listing and "$all" in listing and "cli-1" in listing, listing)
    check("mailer" not in at_server("groups", "list", "cli-1").out, "only those of the stream")
    shown = at_server("groups", "show", "$all", "mailer", "--json").json()
    check(shown["settings"]["strategy"] == "Pinned", str(shown))
    check(at_server("groups", "parked", "$all", "mailer", "--json").json() == [], "nothing is parked")
    check("0 parked events will" in at_server("groups", "replay", "$all", "mailer").out, "replay")
    check("0 parked events dropped" in at_server("groups", "drop", "$all", "mailer", "--before", "7").out, "drop")
    at_server("groups", "set", "$all", "mailer", '{"colour":1}', expect=2)
    at_server("groups", "delete", "$all", "mailer")
    at_server("groups", "delete", "$all", "mailer", expect=3)
    at_server("groups", "show", "$all", expect=2)
    at_server("groups", "sing", expect=2)
    at_server("groups", "delete", "cli-1", "other")


def test_projections_and_rebuild():
    new_order()
    listing = at_server("projections")
    check("order_summary" in listing.out and "running" in listing.out, listing.out)
    names = [p["name"] for p in at_server("projections", "--json").json()]
    check("order_summary" in names, str(names))
    rebuilt = at_server("rebuild", "order_summary").out
    check("order_summary  rebuilt" in rebuilt and "generation" in rebuilt, rebuilt)
    everything = at_server("rebuild", "--all").out
    check(everything.count("rebuilt") == len(names), everything)
    at_server("rebuild", "nothing", expect=3)
    at_server("projections", "pause", "order_summary")
    check("paused" in at_server("projections").out, "paused")
    at_server("projections", "resume", "order_summary")
    deadline = time.monotonic() + 10
    while "paused" in at_server("projections").out and time.monotonic() < deadline:
        time.sleep(0.05)
    check("paused" not in at_server("projections").out, "resumed")


def test_a_rebuild_across_removed_events_is_forced_or_none():
    app, path = os.path.join(SCRATCH, "forced-app"), directory("forced")
    os.makedirs(os.path.join(app, "projections"))
    with open(os.path.join(app, "projections/things.sql"), "w", encoding="utf-8") as file:
        file.write("-- projection: things\n-- tables\nCREATE TABLE things (id TEXT PRIMARY KEY);\n"
                   "-- on Made\nINSERT INTO things VALUES (:stream);\n")
    with Server(app=app, data=path) as live:
        at = ["--server", live.url]
        for n in range(3):
            run("append", f"thing-{n}", "{}", "--type", "Made", *at)
        run("erase", "thing-1", *at)
        result = run("rebuild", "things", *at, expect=5)
        check("event 3: the Made is removed from the log" in result.err, str(result))
        check("was not rebuilt" in run("projections", *at).out, "the list says why")
        result = run("rebuild", "things", "--force", *at)
        check("built across 1 removed event" in result.out, str(result))
        check("was built across 1 removed event" in run("projections", *at).out, "the list says so")


def test_an_app_in_a_directory_without_a_server():
    data = ["--data", directory("app"), "--app", APP]
    run("command", "CreateOrder", json.dumps(ORDER), *data)
    added = run("command", "AddLineItem", json.dumps(LINE), "--json", *data).json()
    check(added["revision"] == 1, str(added))
    run("command", "RemoveLineItem", '{"order_id":"1","line_id":"9"}', *data, expect=1)
    check(run("state", "order-1", "--json", *data).json()["revision"] == 1, "state")
    check("OrderLineItemAdded" in run("explain", "order-1", *data).out, "explain")
    rows = run("query", "order_summary", "order_id=1", "--json", *data).json()
    check(rows[0]["total_cents"] == 1710, str(rows))
    rows = run("query", "order_summary", "order_id=1", "--position", "2", "--json", *data).json()
    check(rows[0]["total_cents"] == 0, str(rows))


def test_model_in_three_forms():
    text = run("model", APP).out
    for part in ("order", "CreateOrder", "OrderShipped", "order_summary"):
        check(part in text, f"no {part} in\n{text}")
    model = run("model", APP, "--json").json()
    check("CreateOrder" in json.dumps(model), str(model))
    check("flowchart" in run("model", APP, "--mermaid").out, "no flowchart")
    run("model", os.path.join(SCRATCH, "no-app"), expect=3)
    empty = directory("empty-app")
    os.makedirs(empty)
    check("is it an app" in run("model", empty, expect=3).err, "an empty folder is no app")


def test_given_when_then():
    result = run("test", APP)
    passed = int(re.search(r"(\d+) passed, 0 failed", result.out).group(1))
    check(passed > 10, result.out)
    check(len(run("test", APP, "--json").lines()) == passed, "--json")
    broken = directory("brokenapp")
    os.makedirs(os.path.join(broken, "tests"))
    shutil.copy(os.path.join(APP, "orders.so"), broken)
    for name in sorted(os.listdir(os.path.join(APP, "tests")))[:1]:
        with open(os.path.join(APP, "tests", name), encoding="utf-8") as file:
            text = file.read()
        with open(os.path.join(broken, "tests", name), "w", encoding="utf-8") as file:
            file.write(re.sub(r'"type": *"Order', '"type": "Wrong', text))
    result = run("test", broken, expect=1)
    check("FAIL" in result.out and re.search(r"[1-9]\d* failed", result.out), result.out)


# ---- follow ----------------------------------------------------------------------------------------------

def test_follow_prints_what_comes_without_gap_or_duplicate():
    run("append", "live-1", "{}", "--type", "Before", "--server", server().url)
    process = subprocess.Popen([PROGRAM, "follow", "live-1", "--limit", "4", "--json", "--server", server().url],
                               stdout=subprocess.PIPE, text=True)
    try:
        check(json.loads(process.stdout.readline())["type"] == "Before", "what was there comes first")
        for i in range(3):
            run("append", "live-1", str(i), "--type", "Live", "--server", server().url)
            check(json.loads(process.stdout.readline())["data"] == i, f"event {i}")
        check(process.wait(30) == 0, "--limit ends it")
    finally:
        process.kill()
        process.wait()


def test_follow_goes_on_behind_a_restart():
    with Server() as live:
        port = live.url.rsplit(":", 1)[1]
        run("append", "again-1", "0", "--type", "T", "--server", live.url)
        process = subprocess.Popen([PROGRAM, "follow", "--limit", "2", "--json", "--server", live.url],
                                   stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        try:
            check(json.loads(process.stdout.readline())["data"] == 0, "the first")
            live.stop()
            live.start(listen=f"127.0.0.1:{port}")
            run("append", "again-1", "1", "--type", "T", "--server", live.url)
            check(json.loads(process.stdout.readline())["data"] == 1, "the second, once")
            check(process.wait(30) == 0, "ends")
        finally:
            process.kill()
            process.wait()


# ---- serve, bench -------------------------------------------------------------------------------------------

def test_serve_takes_options_from_file_and_environment():
    path = directory("config")
    config = os.path.join(SCRATCH, "serve.conf")
    with open(config, "w", encoding="utf-8") as file:
        file.write(f"# a comment\ndata = {path}\npool-threads = 2\n")
    process = subprocess.Popen([PROGRAM, "serve", "--config", config], stderr=subprocess.PIPE, text=True,
                               env=dict(os.environ, DEEDBOOK_LISTEN="127.0.0.1:0"), cwd=SCRATCH)
    try:
        log = ""
        while "http://" not in log:
            line = process.stderr.readline()
            check(line, f"it ended:\n{log}")
            log += line
        check(os.path.isdir(path), "the file's directory")
    finally:
        process.terminate()
        check(process.wait(30) == 0, "SIGTERM is a clean end")
    for text, part in (("lisen = x\n", "lisen"), ("pool-threads = many\n", "many")):
        with open(config, "w", encoding="utf-8") as file:
            file.write(text)
        result = run("serve", "--config", config, expect=2)
        check(part in result.err and "serve.conf" in result.err, str(result))
    taken = run("serve", "--data", server().data, "--listen", "127.0.0.1:0", expect=4)
    check(server().data in taken.err, str(taken))


def test_bench_measures():
    for mode, *options in (["append"], ["read"], ["command"], ["live"], ["ping"], ["append", "--batch", "10", "--ids"],
                           ["append", "--expect"], ["read", "--streams", "5", "--per-read", "3"], ["condition"],
                           ["condition", "--query", "after"], ["condition", "--query", "all"]):
        line = at_server("bench", "--mode", mode, "--clients", "3", "--seconds", "200ms", "--warmup", "50ms",
                         "--json", *options).json()
        check(line["what"] == mode and line["count"] > 0 and line["failed"] == 0, str(line))
        check(0 < line["p50_us"] <= line["p99_us"] <= line["max_us"], str(line))
    piped = at_server("bench", "--clients", "2", "--depth", "8", "--seconds", "200ms", "--warmup", "0").out
    check("append" in piped, piped)
    probe = run("bench", "--probe", SCRATCH, "--seconds", "200ms", "--json").json()
    check(probe["what"] == "fdatasync" and probe["count"] > 0, str(probe))
    check(not [n for n in os.listdir(SCRATCH) if "probe" in n], "the probe's file is left")


def main():
    wanted = sys.argv[1:]
    tests = [(name, test) for name, test in globals().items()
             if name.startswith("test_") and (not wanted or any(w in name for w in wanted))]
    failed = 0
    try:
        for name, test in tests:
            begun = time.monotonic()
            try:
                test()
                print(f"ok    {name} ({time.monotonic() - begun:.1f} s)", flush=True)
            except (Failed, AssertionError, ValueError, KeyError, IndexError, AttributeError,
                    RuntimeError, subprocess.TimeoutExpired) as error:
                failed += 1
                print(f"FAIL  {name}\n{error!r}\n{error}", flush=True)
    finally:
        if _server is not None:
            check(_server.stop() == 0, "the server did not end cleanly:\n" + _server.log)
            _server.remove()
        shutil.rmtree(SCRATCH, ignore_errors=True)
    print(f"{len(tests)} tests, {failed} failed")
    return 1 if failed or not tests else 0


if __name__ == "__main__":
    sys.exit(main())
