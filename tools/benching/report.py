"""The rows of a run: what was measured, the goals, and how both are printed."""

import json
import os
import subprocess
import time


class Row:
    """One workload. `results` has a system's figures: rate (events or requests a second), p50_us, p99_us,
    cpu_us (server's, an event), note; or only `missing`, the reason why there are none."""

    def __init__(self, key, title, unit):
        self.key, self.title, self.unit = key, title, unit
        self.results = {}
        self.goals = []  # of ours: text, value, wanted, met

    def goal(self, text, value, wanted, at_most=False):
        """Ours is to be at least (or at most) `wanted`. None: it could not be measured."""
        met = None if value is None or wanted is None else (value <= wanted if at_most else value >= wanted)
        self.goals.append({"text": text, "value": value, "wanted": wanted, "met": met})


def number(value):
    if value is None:
        return "-"
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def latency(us):
    return "-" if us is None else f"{us:.0f} µs" if us < 1000 else f"{us / 1000:.2f} ms"


def size(count):
    return f"{count / (1 << 20):,.0f} MiB"


def row_text(row):
    lines = [f"{row.title}  [{row.unit}]"]
    ours = row.results.get("Deedbook", {}).get("rate")
    for name, result in sorted(row.results.items(), key=lambda item: item[0] != "Deedbook"):
        if "missing" in result:
            lines.append(f"    {name:<22}{'-':>12}  {result['missing']}")
            continue
        line = f"    {name:<22}{number(result.get('rate')):>12}"
        if result.get("p50_us") is not None:
            line += f"   p50 {latency(result['p50_us']):>9}   p99 {latency(result['p99_us']):>9}"
        if result.get("cpu_us") is not None:
            line += f"   {result['cpu_us']:.1f} µs CPU"
        if result.get("rss") is not None:
            line += f"   {size(result['rss'])} anon"
        if name not in ("Deedbook",) and ours and result.get("rate") and not result.get("ours"):
            line += f"   ours is {ours / result['rate']:.2f}x"
        if result.get("note"):
            line += f"   {result['note']}"
        lines.append(line)
    for goal in row.goals:
        state = {True: "met", False: "NOT MET", None: "not measured"}[goal["met"]]
        lines.append(f"    goal: {goal['text']}: {number(goal['value'])} of {number(goal['wanted'])}: {state}")
    return "\n".join(lines)


def machine():
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        models = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
    with open("/proc/meminfo", encoding="utf-8") as file:
        memory = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in file if "kB" in line}
    return {
        "system": " ".join(os.uname()[i] for i in (0, 2, 4)),
        "processors": len(models),
        "model": models[0] if models else "?",
        "memory": memory.get("MemTotal", 0),
        "memory_available": memory.get("MemAvailable", 0),
        "at": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
    }


def versions():
    asked = {
        "PostgreSQL": ["/usr/lib/postgresql/15/bin/postgres", "--version"],
        "Redis": ["redis-server", "--version"],
        "nginx": ["/usr/sbin/nginx", "-v"],
    }
    found = {}
    for name, command in asked.items():
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            found[name] = (done.stdout + done.stderr).strip().splitlines()[0]
        except (OSError, IndexError):
            found[name] = "not installed"
    return found


def write(path, about, rows):
    with open(path, "w", encoding="utf-8") as file:
        json.dump({**about, "rows": [vars(row) for row in rows]}, file, indent=1)
        file.write("\n")
