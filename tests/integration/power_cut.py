#!/usr/bin/env python3
"""Power cuts on real file systems: the server writes on ext4 (both ways of keeping order) and XFS in a
loop-mounted image; it is killed and the file system shut down without its log, mounted again, and the
server asked.

    power_cut.py [COUNT]     so many cuts on each (default POWER_CUTS, else 10)

What was synced is there after such a cut, and nothing else has to be. Writers write
(tests/support/audit.py says what they ask), the log rolls, read models are rebuilt. The test also
shows that its cuts cut: a file that was written and not synced must be gone.
"""
import os
import random
import signal
import sys
import tempfile
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../support"))
from audit import Appender, Client, Commander, Work, Wrong, audit, check, do_chores
from disk import Disk, NoDisk, skip_or_fail
from server import Server

SEED = int(os.environ.get("SEED", random.randrange(1 << 30)))
DISKS = [("ext4", 128, ""), ("ext4", 128, "data=writeback"), ("xfs", 320, "")]


def cut(disk, server):
    """The processor stops, and with it the disk; the next morning it is mounted again. (A file system
    that is shut down under a process that goes on does not tell it of every failure: ext4 drops pages
    without a word. So nothing may be acknowledged behind the cut.)"""
    server.process.send_signal(signal.SIGKILL)
    disk.cut_power()
    server.stop(signal.SIGKILL)
    disk.unmount()
    disk.mount()


def show_that_it_cuts(disk):
    for name, synced in (("kept", True), ("lost", False)):
        with open(os.path.join(disk.path, name), "wb") as file:
            file.write(b"x" * 8192)
            file.flush()
            if synced:
                os.fsync(file.fileno())
                folder = os.open(disk.path, os.O_RDONLY)
                os.fsync(folder)
                os.close(folder)
    disk.cut_power()
    disk.unmount()
    disk.mount()
    with open(os.path.join(disk.path, "kept"), "rb") as file:
        check(file.read() == b"x" * 8192, "what was synced is gone: this is no power cut")
    lost = os.path.join(disk.path, "lost")
    check(not os.path.exists(lost) or os.path.getsize(lost) == 0, "what was not synced is there")


def one_life(disk, server, writers, life, rng):
    server.start()
    client = Client(server.url)
    for writer in writers:
        writer.check(client)
    with Work(server, writers, life, rng, may_fail=True) as work:
        chores = threading.Thread(target=do_chores, args=(server.url, life), daemon=True)
        chores.start()
        time.sleep(rng.uniform(0.02, 0.5))
        check(not work.failures, "; ".join(work.failures))
        cut(disk, server)
    chores.join(30)


def disk_dies(disk, server):
    """It is gone under a running server: what was acknowledged before is there afterwards, appends are
    refused, and the server says why."""
    server.start()
    client = Client(server.url)
    for n in range(20):
        status, answer = client.send("POST", "/streams/dying", {"type": "Counted", "data": {"n": n}})
        check(status in (200, 201), f"append: {status} {answer}")
    disk.cut_power()
    status, answer = client.send("POST", "/streams/dying", {"type": "Counted", "data": {"n": 20}})
    check(status in (500, 503) and "detail" in answer, f"append to a dead disk: {status} {answer}")
    status, answer = client.send("POST", "/streams/dying", {"type": "Counted", "data": {"n": 21}})
    # The second where the index could not be read: then nothing came as far as the log.
    check((status, "takes no more appends" in answer["detail"]) == (503, True) or
          (status, "Input/output error" in answer["detail"]) == (500, True),
          f"another append to a dead disk: {status} {answer}")
    server.stop(signal.SIGKILL)
    disk.unmount()
    disk.mount()
    server.start()
    status, events = Client(server.url).send("GET", "/streams/dying")
    check(status == 200 and [e["data"]["n"] for e in events] in (list(range(20)), list(range(21))),
          f"after the disk died: {status} {events}")
    server.stop()


def run(folder, kind, size, options, count, rng):
    writers = [Appender(i) for i in range(3)] + [Commander(i) for i in range(3)]
    life = 0
    with Disk(folder, kind, size, options) as disk:
        show_that_it_cuts(disk)
        server = Server(app="examples/orders", data=os.path.join(disk.path, "data"),
                        options=["--segment-size=1MiB"])
        try:
            for life in range(1, count + 1):
                one_life(disk, server, writers, life, rng)
            last = audit(server, writers)
            disk_dies(disk, server)
        except Wrong as wrong:
            raise Wrong(f"{kind} {options}, life {life}: {wrong}\n{server.log[-2000:]}") from wrong
        finally:
            server.stop(signal.SIGKILL)
    print(f"{kind} {options}: {count} power cuts, {last} events: nothing lost".replace(" :", ":"))


def main():
    count = int(sys.argv[1] if len(sys.argv) > 1 else os.environ.get("POWER_CUTS", "10"))
    rng = random.Random(SEED)
    for kind, size, options in DISKS:
        with tempfile.TemporaryDirectory(prefix="deedbook-power-") as folder:
            try:
                run(folder, kind, size, options, count, rng)
            except NoDisk as none:
                skip_or_fail(none)
            except Wrong as wrong:
                print(f"power_cut.py: {wrong}\n  again: SEED={SEED} tests/integration/power_cut.py")
                return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
