#!/usr/bin/env python3
"""kill -9 at every named point of the program (src/os/failpoint.h), under writers: nothing acknowledged
is lost, order stays, read models are right after the restart.

    failpoints.py [NAME]     only the points whose name contains it; FAILPOINT_ROUNDS=1: so often each

The program is built with its points. Scenarios are run once to learn which points they pass and how
often; then each point kills once a round, at a time between its first and its last, in one of the
scenarios that pass it. A point that no scenario passes fails the test, unless UNREACHED says why.
"""
import http.client
import math
import os
import random
import re
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../support"))
from audit import Appender, Client, Commander, Work, Wrong, audit, check, do_chores
from server import ROOT, Server

PROGRAM = os.path.join(ROOT, "build/failpoints/deedbook")
SEED = int(os.environ.get("SEED", random.randrange(1 << 30)))
ROUNDS = int(os.environ.get("FAILPOINT_ROUNDS", "1"))
SECTOR = 4096
rng = random.Random(SEED)

# Why no scenario passes a point, by how its name begins.
UNREACHED = {
    "cmd_bench:": "a measurement of a disk, which keeps nothing",
    "log:fill_give_back:": "only on a full disk: full_disk.py",
    "recovery:settle_last_sector:": "only where the page cache shows what the disk has not",
    "recovery:renew_empty:remove": "only on a full disk",
    "sqlite_log:window_persist:": "only where the page cache shows what the disk has not",
    "sqlite_log:views_persist:sync-before#2": "the same",
    "sqlite_log:views_persist:sync-after#2": "the same",
    "backup:file_copy:remove": "only where copying failed",
    "backup_set:pass:": "only where a write was short of the disk",
    "index_step:job_end:": "only where writing a run failed",
    "run_writer:section_spill:": "only in runs of many segments: sim_world and test_run_writer",
    "run_writer:run_writer_destroy:": "only where writing a run failed",
    "run_writer:out_write:": "only in runs of many segments",
    "sealed:sealed_writer_done:": "only where sealing failed",
    "vfs:file_close:": "only temporary files",
    "vfs:vfs_delete:": "only journals that are rolled back",
    "segment:segment_remove:": "only after a segment could not be made: full_disk.py",
}


class World:
    """A data directory that lives through many deaths, and who writes into it."""

    def __init__(self, folder, name, appenders=3, commanders=2):
        # Small segments, so that the log rolls often.
        self.server = Server(app="examples/orders", data=os.path.join(folder, name), program=PROGRAM,
                             options=["--segment-size=1MiB"])
        self.appenders = [Appender(i) for i in range(appenders)]
        self.writers = self.appenders + [Commander(i) for i in range(commanders)]
        self.life = self.backups = 0
        self.lives = []  # what was tried, for who has to understand a failure

    def log_file(self, name):
        return os.path.join(self.server.data, "log", name)

    def segments(self):
        return sorted(name for name in os.listdir(self.log_file("")) if name.endswith(".seg"))

    def is_whole(self):
        return os.path.exists(self.log_file("marks")) and len(self.segments()) > 0 and all(
            os.path.exists(os.path.join(self.server.data, "projections", name + ".manifest"))
            for name in ("order_summary", "product_sales"))

    # -- lives: each returns whether the process died by itself

    def start(self, environment):
        try:
            self.server.start(environment=environment)
        except RuntimeError:
            check(self.server.status == -signal.SIGKILL, f"the server does not open:\n{self.server.log}")
            return False
        return True

    def ask(self):
        """For all that was acknowledged. False: the server died meanwhile."""
        client = Client(self.server.url)
        try:
            for writer in self.writers:
                writer.check(client)
        except (OSError, http.client.HTTPException):
            return False
        return True

    def serve(self, environment, seconds=0.5, end=signal.SIGTERM):
        """Open, ask, write, do what else there is to do, end (in peace, unless told otherwise)."""
        self.life += 1
        if not self.start(environment):
            return True
        if self.ask():
            with Work(self.server, self.writers, self.life, rng):
                chores = threading.Thread(target=do_chores, args=(self.server.url, self.life), daemon=True)
                chores.start()
                deadline = time.monotonic() + seconds
                while time.monotonic() < deadline and self.server.process.poll() is None:
                    time.sleep(0.01)
                chores.join(20)
        status = self.server.stop(end)
        check(status in (0, -signal.SIGKILL), f"the server ended with {status}:\n{self.server.log}")
        return status != 0

    def command(self, environment, *arguments):
        """A subcommand on the closed directory; True: it died."""
        return run([*arguments, "--data", self.server.data], environment)


def run(arguments, environment):
    done = subprocess.run([PROGRAM, *arguments], capture_output=True, text=True,
                          env={**os.environ, **environment}, timeout=120)
    died = done.returncode == -signal.SIGKILL
    check(died or done.returncode == 0, f"{arguments}: {done.returncode} {done.stdout}{done.stderr}")
    return died


# ---- scenarios: each brings the world into a state, and runs a life in it ----------------------

def serve(world, environment):
    return world.serve(environment)


def open_killed(world, environment):
    """A process that was killed leaves its locks, and SQLite's logs."""
    world.serve({}, 0.1, end=signal.SIGKILL)
    return world.serve(environment, 0.1)


def open_torn(world, environment):
    """What a crash leaves of a group behind the newest one."""
    damage_tail(world)
    return world.serve(environment, 0.1)


def open_unborn(world, environment):
    """A segment that was begun, and has no header."""
    numbers = [int(name.split(".")[0]) for name in world.segments()]
    with open(world.log_file("%010u.seg" % (max(numbers) + 1)), "wb") as file:
        file.write(bytes(SECTOR if rng.random() < 0.5 else 0))
    return world.serve(environment, 0.1)


def open_without_mark(world, environment):
    os.unlink(world.log_file("marks"))
    return world.serve(environment, 0.1)


def add_rewritten(world, name):
    """A sealed segment's next generation beside it: what a rewrite leaves that was killed."""
    copy = os.path.join(os.path.dirname(world.server.data), "rewritten")
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(world.log_file(""), os.path.join(copy, "log"))
    run(["compact", "--compress", "--data", copy], {})
    number, position, generation, _ = name.split(".")
    rewritten = f"{number}.{position}.{int(generation) + 1}.sealed"
    shutil.copyfile(os.path.join(copy, "log", rewritten), world.log_file(rewritten))


def open_with_leftovers(world, environment):
    """What was not finished or not removed: read models that a rebuild left behind, one whose manifest
    is gone, segments and runs, one cut short."""
    sealed = [name for name in os.listdir(world.log_file("")) if name.endswith(".sealed")]
    if sealed:
        shutil.copyfile(world.log_file(sealed[0]), world.log_file(sealed[0] + ".new"))
        add_rewritten(world, sealed[0])
    index = os.path.join(world.server.data, "index")
    runs = sorted(os.listdir(index)) if os.path.isdir(index) else []
    for name in runs:
        shutil.copyfile(os.path.join(index, name), os.path.join(index, name + ".new"))
    whole = [name for name in runs if name.endswith(".run")]
    if whole:
        os.truncate(os.path.join(index, whole[-1]), 4096)
    folder = os.path.join(world.server.data, "projections")
    for name in os.listdir(folder):
        if name.startswith("order_summary") and name.endswith(".db"):
            shutil.copyfile(os.path.join(folder, name), os.path.join(folder, "order_summary.g999.db"))
        elif name == "product_sales.manifest":
            os.unlink(os.path.join(folder, name))
    return world.serve(environment, 0.1)


def open_fresh(world, environment):
    """The first opening of a directory."""
    world.server.stop(signal.SIGKILL)
    for name in (world.server.data, os.path.join(os.path.dirname(world.server.data), "backup")):
        shutil.rmtree(name, ignore_errors=True)
    for writer in world.writers:
        writer.__init__(writer.number if isinstance(writer, Commander) else writer.stream[5:])
    return world.serve(environment, 0.1)


def damaged_copy(world):
    """A copy in which acknowledged events are damaged, in a segment that is not sealed: what is lost of
    a sealed one stays named, and stops nothing. None: the places chosen held none."""
    copy = World(os.path.dirname(world.server.data), "copy", 0, 0)
    for _ in range(20):
        shutil.rmtree(copy.server.data, ignore_errors=True)
        shutil.copytree(world.server.data, copy.server.data)
        with open(copy.log_file(copy.segments()[-1]), "r+b") as file:
            file.seek(SECTOR * rng.randrange(1, data_end(copy) // SECTOR - 2))
            file.write(os.urandom(100))
        verified = subprocess.run([PROGRAM, "verify", "--data", copy.server.data], capture_output=True)
        if verified.returncode != 0:
            return copy
    return None


def repair(world, environment):
    """A damaged copy is repaired; what was not damaged must be there behind it."""
    check(not os.path.exists(world.log_file("losses")), "a world that was never damaged has losses")
    copy = None
    for _ in range(20):
        if data_end(world) >= 8 * SECTOR:
            copy = damaged_copy(world)
        if copy is not None:
            break
        world.serve({}, 0.1)
    check(copy is not None, "no damage to acknowledged events is found by verify")
    died = copy.command(environment, "repair", "--accept-loss")
    if died:
        copy.command({}, "repair", "--accept-loss")
    copy.command({}, "verify")
    copy.server.start()
    status, answer = copy.server.request("POST", "/streams/after", {"type": "T", "data": {}})
    check(status in (200, 201), f"append after a repair: {status} {answer}")
    copy.server.stop()
    return died


def serve_unsynced(world, environment):
    """With the unsafe option: a power cut might lose something, a kill must not."""
    world.server.options.append("--unsafe-no-sync")
    died = world.serve(environment)
    world.server.options.pop()
    return died


def back_up(world, environment):
    """A backup is made, or the one before goes on being good; what is restored of it has everything."""
    folder = os.path.dirname(world.server.data)
    target, back = os.path.join(folder, "backup"), os.path.join(folder, "back")
    world.serve({}, 0.2)
    world.backups += 1
    interrupted = [None, "replace:os_replace:rename-before:1",  # all but the manifest has its name
                   "backup:entry_put:rename-before:1"][world.backups % 3]  # no file has
    if interrupted is not None:
        world.command({"DEEDBOOK_FAILPOINT": interrupted}, "backup", target)
        open(os.path.join(target, "half.copy"), "wb").close()
    died = world.command(environment, "backup", target)
    if died:
        world.command({}, "backup", target)
    shutil.rmtree(back, ignore_errors=True)
    if rng.random() < 0.5:  # one was interrupted before
        run(["restore", target, back], {"DEEDBOOK_FAILPOINT": "restore:files_restore:dir-sync-before:1"})
    if run(["restore", target, back], environment):
        died = True
        # Without its marker it was done when it died, and is not to be written over.
        if os.path.exists(os.path.join(back, "restoring")) or not os.path.exists(os.path.join(back, "log")):
            run(["restore", target, back], {})
    expect_all(world, back)
    if rng.random() < 0.3:  # the next is a first one
        shutil.rmtree(target)
    return died


def expect_all(world, data):
    """A copy of the world's log has what was acknowledged."""
    server = Server(data=data, program=PROGRAM)
    server.start()
    client = Client(server.url)
    for appender in world.appenders:
        copy = Appender(appender.stream[5:])
        copy.acknowledged = appender.acknowledged
        copy.extra = appender.pending is not None
        copy.check(client)
    server.stop()


def open_without_index(world, environment):
    """The index is made from the log when it is gone."""
    shutil.rmtree(os.path.join(world.server.data, "index"), ignore_errors=True)
    return world.serve(environment, 0.1)


SCENARIOS = [serve, serve_unsynced, open_killed, open_torn, open_unborn, open_without_mark, open_with_leftovers,
             open_without_index, repair, back_up, open_fresh]


def data_end(world):
    """Where the newest segment's zeros begin."""
    with open(world.log_file(world.segments()[-1]), "rb") as file:
        return len(file.read().rstrip(b"\0"))


def damage_tail(world):
    """Write what was never acknowledged: behind the last group, and into the rest of its sector."""
    with open(world.log_file(world.segments()[-1]), "r+b") as file:
        data = file.read()
        end = len(data.rstrip(b"\0"))
        if end < 100:
            return  # it was begun, and has no header: there is no group behind which to write
        sector = (end + SECTOR - 1) // SECTOR * SECTOR
        file.seek(sector)
        file.write(os.urandom(rng.choice([100, SECTOR, 3 * SECTOR + 17])))
        # Not into a header alone in its sector. A commit may end with zeros of its own: well behind them.
        if end > SECTOR and end + 512 < sector and rng.random() < 0.7:
            file.seek(sector - 8)
            file.write(b"\x55" * 8)


# ---- points -------------------------------------------------------------------------------------

def names():
    listed = subprocess.run([PROGRAM, "failpoints"], capture_output=True, text=True, check=True)
    return listed.stdout.split()


def hits_of(path, points):
    with open(path, "rb") as file:
        return dict(zip(points, struct.unpack("<%dQ" % len(points), file.read(8 * len(points)))))


def is_excused(point):
    return any(map(point.startswith, UNREACHED))


def learn(world, folder, points):
    """{point: [(scenario, how often)]}. Scenarios throw dice: what none has passed gets more throws."""
    passed = {point: [] for point in points}
    for _ in range(4):
        for scenario in SCENARIOS:
            path = os.path.join(folder, "hits")
            for _ in range(2):  # the second sees what the first left
                scenario(world, {"DEEDBOOK_FAILPOINT_HITS": path})
            for point, count in hits_of(path, points).items():
                if count > 0:
                    passed[point].append((scenario, (count + 1) // 2))
            os.unlink(path)
        if all(passed[point] or is_excused(point) for point in points):
            break
    return passed


def kill_at(world, point, passed):
    """True if it died there; thirty attempts, since lives differ. A young log may be too short for it."""
    for attempt in range(30):
        if attempt % 5 == 4:
            world.serve({}, 1)
        scenario, count = rng.choice(passed)
        if not world.is_whole() and scenario is not open_fresh:
            world.serve({}, 0.2)  # a first opening was cut short
        number = int(math.exp(rng.uniform(0, math.log(count)))) if attempt < 2 else 1
        world.lives.append(f"{scenario.__name__} {point}:{number}")
        if scenario(world, {"DEEDBOOK_FAILPOINT": f"{point}:{number}"}):
            return True
    return False


def main():
    wanted = sys.argv[1] if len(sys.argv) > 1 else ""
    subprocess.run(["make", "-s", "-j2", "-C", ROOT, "VARIANT=failpoints", "all"], check=True,
                   stdout=subprocess.DEVNULL)
    points = [point for point in names()]
    stale = [name for name in UNREACHED if not any(point.startswith(name) for point in points)]
    if stale:
        print("excused, but there are no such points: " + " ".join(stale))
        return 1
    missed, killed, point, began = [], 0, "(learning)", time.monotonic()
    with tempfile.TemporaryDirectory(prefix="deedbook-failpoints-") as folder:
        world = World(folder, "data")
        try:
            passed = learn(world, folder, points)
            print(f"{len(points)} points; learned after {time.monotonic() - began:.0f} s", flush=True)
            unreached = [point for point in points if not passed[point] and not is_excused(point)]
            order = [point for point in points if passed[point] and wanted in point] * ROUNDS
            rng.shuffle(order)
            for i, point in enumerate(order):
                if kill_at(world, point, passed[point]):
                    killed += 1
                elif not is_excused(point):  # those are passed by chance only
                    missed.append(point)
                if i % 40 == 39:  # a log of its own: opening must not get longer and longer
                    audit(world.server, world.writers)
                    world = World(folder, f"data-{i}")
                    shutil.rmtree(os.path.join(folder, "backup"), ignore_errors=True)
                    world.serve({})
            point = "(the audit)"
            audit(world.server, world.writers)
        except Wrong as wrong:
            print(f"{point}: {wrong}\n  again: SEED={SEED} tests/integration/failpoints.py")
            print("\n".join(["the last lives:"] + world.lives[-6:] + [world.server.log[-2000:]]))
            return 1
        finally:
            world.server.stop(signal.SIGKILL)
    for point in unreached:
        print(f"no scenario passes {point}")
    for point in missed:
        print(f"never died at {point}")
    print(f"{len(points)} points, died {killed} times at {len(set(order))} of them: nothing lost")
    return 1 if missed or (unreached and not wanted) else 0


if __name__ == "__main__":
    sys.exit(main())
