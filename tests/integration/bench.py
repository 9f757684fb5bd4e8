#!/usr/bin/env python3
"""The harness of `make bench`, with a fraction of a second a row: every row of ours is measured, a peer has figures
or a reason, nothing is left behind. What the figures are is not looked at: the machine is busy with other tests."""

import glob
import json
import os
import subprocess
import sys
import tempfile
import xml.dom.minidom

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))
BUILD = os.environ.get("BUILD", os.path.join(ROOT, "build"))
ROWS = {"one", "many", "batch", "library-batch", "ids", "read", "replay", "replay-library", "live", "projection",
        "condition", "open", "grpc-empty", "grpc-many", "grpc-read", "grpc-subscribe", "grpc-live",
        "grpc-consume", "grpc-page"} | {
            f"{row}-{us}" for row in ("one", "many", "batch") for us in (1000, 5000)}
EVENTS = 40000


def check(ok, message):
    if not ok:
        print(f"FAIL  {message}")
        sys.exit(1)


def bench(scratch, *parts):
    environment = {**os.environ, "BUILD": BUILD, "BENCH_SECONDS": "0.3", "BENCH_EVENTS": str(EVENTS), "QUICK": "1",
                   "BENCH_DIR": f"{scratch}/data", "BENCH_OUT": f"{scratch}/out", "BENCH_PLOTS": f"{scratch}/plots"}
    done = subprocess.run([os.path.join(ROOT, "tools/bench"), *parts], env=environment, capture_output=True, text=True,
                          check=False)
    check(done.returncode == 0, f"exit status {done.returncode}\n{done.stdout}\n{done.stderr}")
    left = os.listdir(f"{scratch}/data")
    check(not left, f"left behind: {left}\n{done.stderr}")
    return done


def results_are_whole(scratch, done):
    with open(f"{scratch}/out/results.json", encoding="utf-8") as file:
        results = json.load(file)
    rows = {row["key"]: row for row in results["rows"]}
    check(set(rows) == ROWS, f"rows: {set(rows) ^ ROWS}")
    for base in ("fdatasync", "fdatasync_after", "round_trip", "empty_requests", "large_log"):
        check(base in results["base"], f"no base value {base}")
    for key, row in rows.items():
        ours = row["results"].get("Deedbook", {})
        check(ours.get("rate", 0) > 0, f"{key}: {ours}\n{done.stderr}")
        for name, result in row["results"].items():
            check(result.get("rate", 0) > 0 or result.get("missing"), f"{key}, {name}: {result}")
    for key in ("one", "many", "read", "live", "grpc-many", "grpc-page"):
        ours = rows[key]["results"]["Deedbook"]
        check(0 < ours["p50_us"] <= ours["p99_us"], f"{key}: {ours}")
    check(rows["many"]["results"]["Deedbook"]["cpu_us"] > 0, "no CPU time")
    for key in (key for key in ROWS if key.startswith("grpc-")):
        missing = {name: result["missing"] for name, result in rows[key]["results"].items() if "missing" in result}
        check(not missing, f"{key}: {missing}")
    check("missing" not in rows["one"]["results"]["SQLite"], f"SQLite: {rows['one']['results']['SQLite']}")
    # A flush that takes 5 ms allows at most 200 appends a second one after another.
    delayed = rows["one-5000"]["results"]["Deedbook"]["rate"]
    check(delayed <= 210, f"{delayed} appends a second with a flush of 5 ms")


def main():
    with tempfile.TemporaryDirectory(prefix="deedbook-bench-") as scratch:
        os.chmod(scratch, 0o755)
        results_are_whole(scratch, bench(scratch))
        bench(scratch, "growth")
        plots = glob.glob(f"{scratch}/plots/*.svg")
        check(len(plots) == 5, f"plots: {plots}")
        for plot in plots:
            xml.dom.minidom.parse(plot)
        unknown = subprocess.run([os.path.join(ROOT, "tools/bench"), "dance"], capture_output=True, text=True, check=False)
        check(unknown.returncode == 2 and "dance" in unknown.stderr, unknown.stderr)
    print("ok    the harness measures every row")
    return 0


if __name__ == "__main__":
    sys.exit(main())
