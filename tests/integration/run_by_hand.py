#!/usr/bin/env python3
"""Read runs of the index by docs/format/index.md alone.

    python3 tests/integration/run_by_hand.py                    make a store, and compare its runs with what was appended
    python3 tests/integration/run_by_hand.py FOLDER [--terms]   read the runs in FOLDER (DATA/index)

Written from the page, not from the program, so that each checks the other. Hashes are taken from the
file: what this shows is that they are in order, and that fences and filter agree with them."""
import json
import os
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "../support")]
from log_by_hand import Fields, Wrong, crc32c, expect  # noqa: E402
from server import Server  # noqa: E402

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
KINDS = ["stream", "category", "type", "tag", "correlation", "event id", "key", "system"]
BLOCK, PAYLOAD = 4096, 4092


def varint(fields):
    value = shift = 0
    while True:
        byte = fields.number(1)
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value


class Run:
    def __init__(self, path):
        with open(path, "rb") as file:
            self.data = file.read()
        expect(len(self.data) % BLOCK == 0 and self.data, "it is no row of blocks")
        self.count = len(self.data) // BLOCK
        self.footer()
        self.at = 0
        self.dictionary = self.text(self.dictionary_size)
        self.postings = self.text(self.postings_size)
        self.skips = self.records(self.skip_count, 16)
        self.fences = self.records(-(-self.dictionary_size // PAYLOAD), 10)
        self.lines = self.records(self.line_count, 64)
        expect(self.at == self.count - 1, "the sections do not fill the file")

    def block(self, number, run_id):
        block = self.data[number * BLOCK:(number + 1) * BLOCK]
        crc = crc32c(run_id + number.to_bytes(8, "little") + block[:PAYLOAD])
        expect(crc == int.from_bytes(block[PAYLOAD:], "little"), f"block {number} is damaged")
        return block[:PAYLOAD]

    def footer(self):
        f = Fields(self.block(self.count - 1, bytes(16)))
        expect(f.take(8) == b"DEEDRUN\n", "no footer")
        expect(f.number(4) == 1 and f.number(4) == 0, "a newer format")
        self.log_id, self.run_id, self.seed = f.take(16), f.take(16), f.number(8)
        self.segments = f.number(4), f.number(4)
        self.positions = f.number(8), f.number(8)
        self.hash = f.take(32)
        self.terms, self.posting_count, self.streams = f.number(8), f.number(8), f.number(8)
        self.dictionary_size, self.postings_size = f.number(8), f.number(8)
        self.skip_count, self.line_count = f.number(8), f.number(8)
        self.terms_known = f.number(4)
        expect(not any(f.take(3920)), "the footer's reserve is not zero")

    def text(self, size):
        out = b""
        while len(out) < size:
            out += self.block(self.at, self.run_id)
            self.at += 1
        expect(not any(out[size:]), "the rest of a section is not zero")
        return out[:size]

    def records(self, count, size):
        out = []
        while len(out) < count:
            block = self.block(self.at, self.run_id)
            some = min(PAYLOAD // size, count - len(out))
            out += [block[i * size:(i + 1) * size] for i in range(some)]
            expect(not any(block[some * size:]), "the rest of a section is not zero")
            self.at += 1
        return out

    def group(self, first, data, count):
        f = Fields(self.postings)
        expect(data == self.next_data, "groups do not follow each other")
        f.at = data
        out = [first]
        for _ in range(count - 1):
            out.append(out[-1] + varint(f))
        self.next_data = f.at
        return out

    def list(self, count, first, last, f):
        if count <= 8:
            out = [first]
            for _ in range(count - 2):
                out.append(out[-1] + varint(f))
            return out + ([last] if count > 1 else [])
        data, out = varint(f), []
        if count <= 128:
            return self.group(first, data, count)
        skip = varint(f)
        expect(skip == self.next_skip, "skips do not follow each other")
        for i in range(0, count, 128):
            record = Fields(self.skips[self.next_skip])
            self.next_skip += 1
            out += self.group(record.number(8), record.number(8), min(128, count - i))
        return out

    def passes(self, hash_):
        line = self.lines[hash_ * self.line_count >> 64]
        x = hash_ * 0x9E3779B97F4A7C15 % 2**64
        bits = [(x >> 9 * i) % 512 for i in range(6)]
        return all(line[b // 8] >> b % 8 & 1 for b in bits)

    def entries(self):
        """Every (kind, term, base, postings), checked."""
        f, before = Fields(self.dictionary), None
        self.next_data = self.next_skip = streams = terms = postings = 0
        fences = {}
        while f.at < self.dictionary_size:
            start = f.at
            hash_, size = f.number(8), varint(f)
            end = f.at + size
            kind = f.number(1)
            term = f.take(varint(f))
            count = varint(f)
            base = varint(f) if kind == 0 else 0
            first = varint(f)
            last = first + (varint(f) if count > 1 else 0)
            positions = self.list(count, first, last, f)
            expect(f.at == end, "an entry's size is wrong")
            expect(len(positions) == count and positions[-1] == last, "postings do not end well")
            expect(positions == sorted(positions), "postings are out of order")
            expect(before is None or before < (hash_, kind, term), "terms are out of order")
            expect(self.passes(hash_), "the filter denies a term")
            before = hash_, kind, term
            fences.setdefault(start // PAYLOAD, (hash_, start % PAYLOAD))
            streams += kind == 0 and base == 0
            terms += 1
            postings += count
            yield KINDS[kind], term, base, positions
        expect((terms, postings, streams) == (self.terms, self.posting_count, self.streams),
               "the footer counts something else")
        self.check_fences(fences)

    def check_fences(self, fences):
        following = 2**64 - 1
        for i in reversed(range(len(self.fences))):
            wanted = fences.get(i, (following, 65535))
            record = Fields(self.fences[i])
            expect((record.number(8), record.number(2)) == wanted, f"fence {i} is wrong")
            following = wanted[0]


def read_folder(folder, show_terms):
    for name in sorted(os.listdir(folder)):
        if not name.endswith(".run"):
            continue
        run = Run(os.path.join(folder, name))
        entries = list(run.entries())
        print(f"{name}: positions {run.positions[0]} to {run.positions[1]}, {run.terms} terms, "
              f"{run.posting_count} postings, {run.streams} new streams, {run.line_count} lines")
        for kind, term, base, positions in entries if show_terms else []:
            shown = term.hex() if kind == "event id" else term.decode(errors="replace")
            print(f"  {kind} {shown} from {base}: {' '.join(map(str, positions))}")


def deedbook(*arguments, text=None):
    program = os.environ.get("DEEDBOOK", os.path.join(ROOT, "build", "deedbook"))
    return subprocess.run([program, *arguments], input=text, check=True, capture_output=True,
                          text=True).stdout


def compare(count):
    """Append, and find each event under its terms in the runs, or else in no run's positions."""
    with tempfile.TemporaryDirectory() as data:
        lines = [json.dumps({"specversion": "1.0", "id": f"00000000-0000-4000-8000-{i:012x}", "source": "/hand",
                             "subject": f"cart-{i % 700}", "type": f"T{i % 3}", "data": "x" * 400})
                 for i in range(count)]
        deedbook("import", "--data", data, "-", text="\n".join(lines) + "\n")
        folder = os.path.join(data, "index")
        with Server(data=data):  # an import may be over before its first segment is sealed
            deadline = time.monotonic() + 30
            while not any(name.endswith(".run") for name in os.listdir(folder)):
                expect(time.monotonic() < deadline, "no segment was closed")
                time.sleep(0.05)
        found, covered = {}, set()
        for name in sorted(os.listdir(folder)):
            run = Run(os.path.join(folder, name))
            covered.update(range(run.positions[0], run.positions[1] + 1))
            for kind, term, _, positions in run.entries():
                found.setdefault((kind, term.decode(errors="replace")), []).extend(positions)
        expect(len(covered) > 0, "the runs have no positions")
        wanted = {}
        for i in range(count):
            position = i + 2
            if position not in covered:
                continue
            for term in (("stream", f"cart-{i % 700}"), ("category", "cart"), ("type", f"T{i % 3}")):
                wanted.setdefault(term, []).append(position)
            if i < 700:
                wanted.setdefault(("system", "first"), []).append(position)
        for term, positions in wanted.items():
            expect(found.get(term) == positions, f"{term} has other postings")
        print(f"{len(covered)} positions in runs, {len(wanted)} terms compared")


if __name__ == "__main__":
    try:
        if len(sys.argv) > 1:
            read_folder(sys.argv[1], "--terms" in sys.argv)
        else:
            compare(int(os.environ.get("RUN_EVENTS", "150000")))
    except Wrong as wrong:
        sys.exit(f"run_by_hand: {wrong}")
