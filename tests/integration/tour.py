#!/usr/bin/env python3
"""Run the README's tour: every ```sh block, in order, against a fresh server; the block behind it
is what must come out, line by line, where "…" stands for anything. A tour that lies fails here."""
import os
import re
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../support"))
from server import ROOT, Server

README = os.path.join(ROOT, "README.md")


def steps(text):
    """(line number, commands, expected output or None) of each ```sh block."""
    blocks = [(m.start(), m.group(1), m.group(2))
              for m in re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.M | re.S)]
    for i, (start, kind, body) in enumerate(blocks):
        if kind != "sh":
            continue
        follows = i + 1 < len(blocks) and blocks[i + 1][1] == ""
        yield text.count("\n", 0, start) + 2, body, blocks[i + 1][2] if follows else None


def pattern_of(expected):
    parts = [re.escape(part) for part in expected.strip("\n").split("…")]
    # An ellipsis stays within its line, so that a line too many or too few shows.
    return re.compile(r"[^\n]*?".join(parts) + r"\Z")


def main():
    with open(README, encoding="utf-8") as file:
        text = file.read()
    todo = list(steps(text))
    assert len(todo) >= 10, f"README has {len(todo)} sh blocks: the tour is gone"
    assert sum(expected is not None for _, _, expected in todo) >= 10
    if not os.path.exists(os.path.join(ROOT, "examples/orders/orders.so")):
        subprocess.run(["make", "-s", "domains"], cwd=ROOT, check=True)

    failures = 0
    with Server(app="examples/orders") as server:
        environment = dict(os.environ, DEEDBOOK_SERVER=server.url, NO_COLOR="1", no_proxy="*")
        for line, commands, expected in todo:
            script = commands.replace("localhost:2113", server.url)
            script = script.replace("build/deedbook", server.program)
            result = subprocess.run(["bash", "-euo", "pipefail", "-c", script], cwd=ROOT,
                                    env=environment, capture_output=True, text=True, timeout=60)
            output = result.stdout.strip("\n")
            good = result.returncode == 0 and output != ""
            if expected is not None:
                good = good and pattern_of(expected).match(output) is not None
            if not good:
                failures += 1
                print(f"README.md:{line}: exit status {result.returncode}\n{commands}"
                      f"--- expected\n{expected or 'anything'}--- came\n{output}\n{result.stderr}")
    print(f"{len(todo)} steps, {failures} failed")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
