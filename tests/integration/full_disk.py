#!/usr/bin/env python3
"""A full disk (one in memory, ext4, XFS): appends are refused with 507 and store nothing, reads go on, a
restart works, and when space is freed the same process takes appends again and read models catch up.
"""
import os
import random
import signal
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../support"))
from audit import Appender, Client, Commander, Failed, Wrong, audit, check
from disk import Disk, NoDisk, skip_or_fail
from server import Server

SEED = int(os.environ.get("SEED", random.randrange(1 << 30)))
DISKS = [("tmpfs", 48), ("ext4", 64), ("xfs", 320)]
BALLAST = 16 << 20
PAD = 30000


class Filler(Appender):
    """Its events are large; a refusal for want of room keeps nothing pending."""

    def step(self, client, rng):
        """True: stored; False: refused."""
        event = {"type": "Counted", "tags": [self.stream],
                 "data": {"n": rng.randrange(1 << 40), "pad": "x" * rng.randrange(PAD)}}
        expected = len(self.acknowledged) - 1 if self.acknowledged else "none"
        status, answer = client.send("POST", f"/streams/{self.stream}?expected={expected}", event)
        if status == 507:
            check("nothing was stored" in answer["detail"] or "no room" in answer["detail"] or
                  "No space" in answer["detail"], f"a refusal that says nothing: {answer}")
            return False
        check(status in (200, 201), f"append on a full disk: {status} {answer}")
        self.acknowledged.append((answer["position"], event["data"]["n"]))
        return True

    def check_again(self, client):
        self.checked = 0
        self.check(client)


def fill(client, filler, rng):
    """Until ten appends in a row are refused."""
    refused = 0
    for _ in range(100000):
        refused = 0 if filler.step(client, rng) else refused + 1
        if refused == 10:
            return
    raise Wrong("the disk does not get full")


def write_ballast(disk, path):
    """What will be freed later, and what makes a large disk a small one."""
    about = os.statvfs(disk.path)
    too_much = about.f_bavail * about.f_bsize - (48 << 20)
    if too_much > 0:
        with open(os.path.join(disk.path, "stone"), "wb") as file:
            os.posix_fallocate(file.fileno(), 0, too_much)
    with open(path, "wb") as file:
        file.write(os.urandom(1 << 20) * (BALLAST >> 20))
        os.fsync(file.fileno())


def eat_the_rest(path):
    """What the log gave back when it met the end, and what is too small for it."""
    for size in (1 << 20, 4096, 512):
        try:
            with open(path, "ab", buffering=0) as file:
                while True:
                    file.write(b"x" * size)
        except OSError:
            continue


def until(what, seconds, condition):
    deadline = time.monotonic() + seconds
    while not condition():
        check(time.monotonic() < deadline, f"{what}: not within {seconds} s")
        time.sleep(0.1)


def refuse_commands(client, commander, rest, rng):
    """What is small fits for a while still, and sealing gives some room back."""
    for n in range(3000):
        if n % 100 == 0:
            eat_the_rest(rest)
        try:
            commander.step(client, rng)
        except Failed as failed:
            check(": 507 " in str(failed), str(failed))
            return
    raise Wrong("three thousand commands were stored on a full disk")


def story(disk, server, filler, commander, rng):
    ballast, rest = os.path.join(disk.path, "ballast"), os.path.join(disk.path, "rest")
    write_ballast(disk, ballast)
    open(rest, "wb").close()  # when there is no room left for a name, either
    server.start()
    client = Client(server.url)
    commander.begin(1)
    for _ in range(10):
        commander.step(client, rng)
    fill(client, filler, rng)
    eat_the_rest(rest)
    fill(client, filler, rng)
    filler.check_again(client)  # reads go on
    refuse_commands(client, commander, rest, rng)

    for how in (signal.SIGKILL, signal.SIGTERM, signal.SIGKILL):
        server.stop(how)
        server.start()
        client = Client(server.url)
        filler.check_again(client)
        fill(client, filler, rng)  # stopping gave back what read models' journals took
        eat_the_rest(rest)

    os.unlink(ballast)
    os.unlink(rest)
    until("appends after space was freed", 10, lambda: filler.step(client, rng))
    for _ in range(50):
        check(filler.step(client, rng), "an append was refused with space to spare")
    for _ in range(5):
        commander.step(client, rng)
    until("every read model runs", 30, lambda: all(
        p["state"] == "running" for p in client.send("GET", "/projections")[1]))
    commander.check(client)  # waits until the read model has its last line
    filler.check_again(client)


def main():
    for kind, size in DISKS:
        rng = random.Random(SEED)
        with tempfile.TemporaryDirectory(prefix="deedbook-full-") as folder:
            try:
                with Disk(folder, kind, size) as disk:
                    filler, commander = Filler(0), Commander(0)
                    server = Server(app="examples/orders", data=os.path.join(disk.path, "data"),
                                    options=["--segment-size=4MiB"],
                                    log_path=os.path.join(folder, "server.log"))
                    try:
                        story(disk, server, filler, commander, rng)
                        server.stop()
                        audit(server, [filler, commander])
                    except Wrong as wrong:
                        print(f"full_disk.py: {kind}: {wrong}\n  again: SEED={SEED} "
                              f"tests/integration/full_disk.py\n{server.log[-2000:]}")
                        return 1
                    finally:
                        server.stop(signal.SIGKILL)
            except NoDisk as none:
                skip_or_fail(none)
        print(f"{kind}: {len(filler.acknowledged)} events on a full disk: nothing lost")
    return 0


if __name__ == "__main__":
    sys.exit(main())
