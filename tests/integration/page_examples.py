#!/usr/bin/env python3
"""Run the examples of the pages that no other test reads, of the man page, and of every --help.

    python3 tests/integration/page_examples.py [PART...]   only those whose name contains one of these

In a page a ```sh block is run, line after line in one shell, and a ```text block behind it is what it
must print ("…" stands for anything); a ```py block is a program without an end, which is stopped when
it has printed that. In the man page it is every block, in --help what stands under "Example". A
line with `deedbook serve` goes on beside the lines below it.

What a reader has and a test has not is said in PAGES and HELP: what was there before. Paths
outside the folder that they are run in are moved into it, and what measures does so for a second."""
# alone: some of the examples load the machine
import contextlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from datetime import datetime

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../support"))
from server import PROGRAM, ROOT, Server  # noqa: E402

BUILD = os.path.abspath(os.environ.get("BUILD", os.path.join(ROOT, "build")))

ORDER = """cat > order.json <<'END'
{"order_id":"1001","customer":{"id":"ALFKI","name":"Anna"},"shipping_address":{"street":"S 1",
"city":"Lund","region":null,"postal_code":null,"country":"SE"},"currency":"EUR","order_date":"2026-11-23"}
END
"""
AT_SERVER = ORDER + """deedbook command CreateOrder @order.json
deedbook command AddLineItem '{"order_id":"1001","line_id":"1","product_id":"p","product_name":"Tea",
    "quantity":2,"unit_price_cents":950,"discount_percent":10}'
"""


def events(stream, where="", count=3):
    noted = ",".join(['{"type":"Noted","data":{}}'] * count)
    return f"deedbook append {stream} '[{noted}]' {where}\n"


DATA = events("note-0", "--data ./data")

# What stands before a page's examples, and for ```py what happens while they run.
PAGES = {
    "docs/subscriptions.md": ("", AT_SERVER),
    "docs/performance.md": ("", ""),
    "docs/domain.md": ("rm examples/orders/orders.so\n", ""),
    "docs/queries.md": ("sed -n '/^```sql/,/^```/{/^```/!p;}' docs/queries.md"
                        " > examples/orders/queries/orders_by_customer.sql\n"
                        "deedbook serve examples/orders --data data\n" + AT_SERVER +
                        "until deedbook query orders_by_customer customer_id=ALFKI | grep -q 1710; do\n"
                        "    sleep 0.05\ndone\n", ""),
    "docs/operations/running.md": (events("note-0", "--data /var/lib/deedbook"), ""),
    "docs/operations/retention.md": (events("session-7", count=260) + events("customer-17"), ""),
    "docs/deedbook.1.scd": (ORDER, ""),
}
HELP = {
    "serve": "echo 'data = /var/lib/deedbook' > /etc/deedbook.conf\n",
    "command": AT_SERVER,
    "append": "echo '[{\"type\":\"NoteWritten\",\"data\":{}}]' > events.json\n",
    "metadata": events("session-7") + events("order-1"),
    "delete": events("session-7") + events("session-8", count=13),
    "read": AT_SERVER + DATA,
    "follow": AT_SERVER,
    "state": AT_SERVER + "deedbook command CancelOrder '{\"order_id\":\"1001\",\"reason\":\"late\"}'\n",
    "explain": AT_SERVER,
    "query": AT_SERVER,
    "import": events("note-0") + "deedbook export --output backup.ndjson\ngzip < backup.ndjson > orders.ndjson.gz\n",
    "export": AT_SERVER + DATA,
    "backup": DATA,
    "restore": DATA + "deedbook backup --data ./data /mnt/backup/orders\nrm -r data\n",
    "compact": DATA,
    "erase": events("customer-17") + events("customer-17", "--data ./data"),
    "verify": DATA + "deedbook backup --data ./data /mnt/backup/orders\n",
    "repair": DATA,
    "info": DATA,
    "bench": "mkdir -p /var/lib/deedbook\n",
}


class Failed(Exception):
    pass


@contextlib.contextmanager
def killing(process, seconds):
    """End a process that takes longer, and everything that it started."""
    def kill():
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)

    timer = threading.Timer(seconds, kill)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()


def blocks(page):
    """(kind, line, body, what it prints or None) of each block that is run."""
    with open(os.path.join(ROOT, page), encoding="utf-8") as file:
        text = file.read()
    is_man = page.endswith(".scd")
    for m in re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.M | re.S):
        kind = m.group(1)
        if kind in ("sh", "py") or (is_man and kind == ""):
            below = re.compile(r"\n```text\n(.*?)^```$", re.M | re.S).match(text, m.end())
            yield kind or "sh", text.count("\n", 0, m.start()) + 2, m.group(2), below and below.group(1)


def pattern_of(expected):
    return re.compile("[^\n]*?".join(map(re.escape, expected.strip("\n").split("…"))) + r"\Z")


class World:
    """A folder, a server, and what there was before."""

    def __init__(self, before):
        self.before = before
        self.ending = contextlib.ExitStack()

    def __enter__(self):
        with contextlib.ExitStack() as ending:  # also of what is there when something of it fails
            self.folder = tempfile.mkdtemp(prefix="deedbook-pages-")
            ending.callback(shutil.rmtree, self.folder)
            for name in ("bin", "etc", "mnt/backup", "var/lib"):
                os.makedirs(os.path.join(self.folder, name))
            os.symlink(PROGRAM, os.path.join(self.folder, "bin/deedbook"))
            os.symlink(BUILD, os.path.join(self.folder, "build"))
            shutil.copytree(os.path.join(ROOT, "examples"), os.path.join(self.folder, "examples"))
            for name in ("docs", "include"):
                os.symlink(os.path.join(ROOT, name), os.path.join(self.folder, name))
            self.ending = ending
            server = Server(app="examples/orders", data=os.path.join(self.folder, "served"),
                            options=["--backup-dir", os.path.join(self.folder, "backups")]).start()
            ending.callback(server.stop)
            self.url = server.url
            if self.before:
                self.run_and_serve(self.before)
            self.ending = ending.pop_all()
        return self

    def __exit__(self, *_):
        self.ending.close()

    def moved(self, script):
        """The script with places of this folder, and as long and large as a test has time for."""
        script = re.sub(r"(?<![\w.])/(etc|mnt|var)/", rf"{self.folder}/\1/", script)
        script = script.replace("127.0.0.1:2113", self.url.removeprefix("http://"))
        script = script.replace("-I/usr/include", "-Iinclude")
        script = script.replace("2026-11-23T04:00:00Z", f"{datetime.utcnow().isoformat()}Z")
        script = script.replace("seconds_ms=10000", "seconds_ms=500").replace("-D 10 ", "-D 1 ")
        script = script.replace("events=1000000", "events=20000").replace("--streams 100000", "--streams 100")
        return re.sub(r"deedbook bench (?!--probe)(--seconds 10s)?", "deedbook bench --seconds 500ms ", script)

    def environment(self):
        return dict(os.environ, DEEDBOOK_SERVER=self.url, NO_COLOR="1", no_proxy="*",
                    PATH=os.path.join(self.folder, "bin") + ":" + os.environ["PATH"])

    def run(self, script, forever=False):
        """What it prints. With `forever` it is given events until it has printed a line, and must go on
        until Ctrl-C."""
        process = subprocess.Popen(["bash", "-euo", "pipefail", "-c", self.moved(script)], cwd=self.folder,
                                   env=self.environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                   text=True, start_new_session=True)
        with killing(process, 120):
            begun = ""
            if forever:
                feeder = threading.Timer(0, self.feed, [process])
                feeder.start()
                begun = process.stdout.readline()
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGINT)
                process.wait()
                feeder.join()
            printed, said = process.communicate()
        printed = begun + printed
        if process.returncode != (-signal.SIGINT if forever else 0) or (forever and not begun):
            raise Failed(f"exit status {process.returncode}\n{script}--- printed\n{printed}{said}")
        return printed

    def feed(self, process):
        while process.poll() is None:
            self.run(events("order-1001", count=1))
            time.sleep(0.1)

    def run_and_serve(self, script, forever=False):
        """The same, but that lines which serve do so beside the others."""
        printed = ""
        for i, part in enumerate(re.split(r"^(.*\bdeedbook serve .*)\n", script, flags=re.M)):
            if i % 2 == 1:
                self.serve(part)
            elif part:
                printed += self.run(part, forever)
        return printed

    def serve(self, line):
        """Serve as the line says, on a free port; it is the server of all that follows."""
        words = shlex.split(self.moved(line), comments=True)
        environment = dict(word.split("=", 1) for word in words[:words.index("deedbook")])
        options = words[words.index("serve") + 1:]
        wide = environment.pop("DEEDBOOK_LISTEN", "")
        if "--listen" in options:
            at = options.index("--listen")
            del options[at:at + 2]
        command = [PROGRAM, "serve", *options, "--listen",
                   wide.split(":")[0] + ":0" if wide else "127.0.0.1:0"]
        server = Line(command, self.folder, {**self.environment(), **environment})
        self.ending.callback(server.stop)
        self.url = server.start()

    def run_program(self, script, meanwhile, expected):
        """A program without an end: until it has printed what it should."""
        program = subprocess.Popen([sys.executable, "-u", "-c", self.moved(script)], cwd=self.folder,
                                   env=self.environment(), stdout=subprocess.PIPE, text=True,
                                   start_new_session=True)
        try:
            with killing(program, 200):
                self.run(meanwhile)
                printed = "".join(program.stdout.readline() for _ in expected.strip("\n").split("\n"))
                time.sleep(0.5)  # it has a moment to fail behind what it printed
            ended = program.poll()
        finally:
            program.kill()
            program.wait()
            program.stdout.close()
        if ended is not None:
            raise Failed(f"it ended with {ended}\n{script}--- printed\n{printed}")
        return printed


class Line:
    """A server that somebody's command line started."""

    def __init__(self, command, folder, environment):
        self.command = command
        self.process = subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.PIPE,
                                        stdin=subprocess.DEVNULL, text=True, start_new_session=True)

    def start(self):
        """Its URL, once it serves."""
        said = []
        with killing(self.process, 60):
            for line in self.process.stderr:
                said.append(line)
                match = re.search(r"serving on http://\S+:(\d+)", line)
                if match:
                    return "http://127.0.0.1:" + match.group(1)
        raise Failed(f"{' '.join(self.command)} does not serve:\n{''.join(said)}")

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        with killing(self.process, 60):
            self.process.stderr.read()
            self.process.stderr.close()
            if self.process.wait() != 0:
                raise Failed(f"the server ended with {self.process.returncode}")


def run_page(page):
    before, meanwhile = PAGES[page]
    found = list(blocks(page))
    if not found:
        raise Failed("its examples are gone")
    with World(before) as world:
        for kind, line, script, expected in found:
            try:
                if kind == "py":
                    printed = world.run_program(script, meanwhile, expected)
                else:
                    printed = world.run_and_serve(script)
                if expected is not None and not pattern_of(expected).match(printed.strip("\n")):
                    raise Failed(f"{script}--- expected\n{expected}--- printed\n{printed}")
            except Failed as failed:
                raise Failed(f"line {line}: {failed}") from None
    return len(found)


def run_help(name):
    text = subprocess.run([PROGRAM, name, "--help"], capture_output=True, text=True, check=True).stdout
    part = re.search(r"^Examples?:\n(.*?)(^\S.*)?(\n\n|\Z)", text, re.M | re.S)
    if part is None or part.group(2):
        # argp breaks what is longer than its lines, and then it is no command any more.
        raise Failed(f"no example, or one that is too long for its line:\n{text}")
    lines = [line.strip() for line in part.group(1).splitlines()]
    with World(HELP.get(name, "")) as world:
        for line in lines:
            world.run_and_serve(line + "\n", forever=name == "follow")
    return len(lines)


def subcommands():
    text = subprocess.run([PROGRAM, "help"], capture_output=True, text=True, check=True).stdout
    names = [name for name in re.findall(r"^  ([a-z]+) {2,}\S", text, re.M) if name != "help"]
    assert len(names) >= 19 and set(HELP) <= set(names), names
    return names


def main():
    parts = [(page, run_page, page) for page in PAGES]
    parts += [(f"{name} --help", run_help, name) for name in subcommands()]
    failures = count = 0
    for label, run, argument in parts:
        if sys.argv[1:] and not any(wanted in label for wanted in sys.argv[1:]):
            continue
        try:
            count += run(argument)
        except (Failed, RuntimeError, subprocess.SubprocessError) as failed:
            failures += 1
            print(f"{label}: {failed}", flush=True)
    print(f"{count} examples, {failures} pages failed")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
