#!/usr/bin/env python3
"""kill -9 at random moments under load: nothing acknowledged is lost, order and revisions stay
intact, read models are right after the restart.

    kill.py [COUNT]     so many kills (default KILLS, else 200)

Writers write (tests/support/audit.py says what they ask); the server is killed, started again over the
same directory, and asked. In the end the whole log is read and verified.
"""
import os
import random
import signal
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../support"))
from audit import Appender, Client, Commander, Work, Wrong, audit
from server import Server

APPENDERS, COMMANDERS = 4, 4
SEED = int(os.environ.get("SEED", random.randrange(1 << 30)))


def one_life(server, writers, life, rng):
    """Start, check what the last life left, write, kill."""
    server.start()
    client = Client(server.url)
    for writer in writers:
        writer.check(client)
    with Work(server, writers, life, rng):
        time.sleep(rng.uniform(0.01, 0.25))
        server.stop(signal.SIGKILL)


def main():
    count = int(sys.argv[1] if len(sys.argv) > 1 else os.environ.get("KILLS", "200"))
    rng = random.Random(SEED)
    writers = [Appender(i) for i in range(APPENDERS)] + [Commander(i) for i in range(COMMANDERS)]
    with tempfile.TemporaryDirectory(prefix="deedbook-kill-") as folder:
        server = Server(app="examples/orders", data=os.path.join(folder, "data"))
        try:
            for life in range(1, count + 1):
                one_life(server, writers, life, rng)
            last = audit(server, writers)
        except Wrong as wrong:
            print(f"kill.py: life {life}: {wrong}\n  again: SEED={SEED} tests/integration/kill.py")
            print(server.log[-2000:])
            return 1
        finally:
            server.stop(signal.SIGKILL)
    orders = sum(writer.orders for writer in writers if isinstance(writer, Commander))
    print(f"{count} kills, {last} events, {orders} orders checked: nothing lost")
    return 0


if __name__ == "__main__":
    sys.exit(main())
