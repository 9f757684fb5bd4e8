#!/usr/bin/env python3
"""Read a log by docs/format/log.md alone: every checksum, leaf and link of the chain.

    python3 tests/integration/log_by_hand.py              check the golden logs against their descriptions
    python3 tests/integration/log_by_hand.py FOLDER       read the log in FOLDER (DATA/log)

Written from the page, not from the program, so that each checks the other. It does not recover: it
expects a log that was closed in an orderly way, and says what is not as the page says."""
import hashlib
import os
import struct
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
GOLDEN = [os.path.join(ROOT, "tests", "golden", name) for name in ("log-v1", "log-sealed-v1")]


class Wrong(Exception):
    pass


def crc32c_table():
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
        table.append(byte)
    return table


TABLE = crc32c_table()


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def expect(holds, what):
    if not holds:
        raise Wrong(what)


class Fields:
    """Numbers, names and blocks, one after another."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, size):
        expect(size <= len(self.data) - self.at, "it ends in the middle")
        self.at += size
        return self.data[self.at - size:self.at]

    def number(self, size):
        return int.from_bytes(self.take(size), "little")

    def time(self):
        return struct.unpack("<q", self.take(8))[0]

    def name(self):
        return self.take(self.number(2))

    def block(self):
        return self.take(self.number(4))


def read_header(data, number):
    expect(data[:8] == b"DEEDSEG\n", "no segment")
    expect(crc32c(data[12:4096]) == int.from_bytes(data[8:12], "little"), "the header's checksum")
    fields = Fields(data[12:4096])
    expect(fields.number(4) == 1, "version")
    fields.number(8)
    sealed = fields.number(8)
    expect(sealed in (0, 1), "features that must be known")
    header = {"sealed": sealed == 1, "log_id": fields.take(16), "epoch": fields.number(8), "number": fields.number(4)}
    expect(fields.number(4) == 0, "reserved")
    header.update(first=fields.number(8), previous=fields.take(32), made=fields.time(),
                  secret=fields.take(16), generation=fields.number(4))
    expect(header["sealed"] == (header["generation"] > 0), "the generation")
    expect(header["number"] == number, "the segment's number")
    return header


def read_event(fields):
    """The event and its leaf."""
    start = fields.at
    size = fields.number(4)
    kind = fields.number(1)
    expect(kind in (1, 2, 3), "kind")
    expect(fields.number(3) == 0, "reserved")
    hashed = fields.take(size - 8)
    leaf = hashlib.sha256(hashed).digest() if kind == 1 else hashed[16:48]
    expect(kind != 3 or not any(hashed[:16]), "the salt of an erased event")
    canonical = Fields(hashed[16 if kind == 1 else 48:])
    event = {"position": canonical.number(8), "revision": canonical.number(8),
             "id": canonical.take(16), "time": canonical.time()}
    parts = canonical.number(2)
    expect(parts < 128, "unknown parts")
    expect(not parts & {1: 0, 2: 2, 3: 2 | 16 | 32}[kind], "parts of a removed event")
    stream_size, type_size = canonical.number(2), canonical.number(2)
    event["stream"], event["type"] = canonical.take(stream_size), canonical.take(type_size)
    event["content_type"] = canonical.name() if parts & 1 else b"application/json"
    event["metadata"] = canonical.block() if parts & 2 else b""
    event["tags"] = [canonical.name() for _ in range(canonical.number(2))] if parts & 4 else []
    for bit, part in ((8, "correlation"), (16, "causation"), (32, "actor"), (64, "key")):
        event[part] = canonical.name() if parts & bit else b""
        expect(not parts & bit or event[part] != b"", "an empty " + part)
    event["hash"] = canonical.take(32) if parts & 64 else None
    event["removed"] = kind != 1
    event["data"] = canonical.block() if kind == 1 else b""
    expect(canonical.at == len(canonical.data), "bytes behind the event")
    expect(fields.at == start + size, "the record's size")
    return event, leaf


def read_commit(data, offset, header):
    fields = Fields(data[offset:])
    expect(fields.take(4) == b"DCMT", "no commit")
    checksum, size, count = fields.number(4), fields.number(4), fields.number(4)
    expect(size >= 112 and size % 8 == 0 and size <= len(data) - offset, "size")
    place = header["log_id"] + header["secret"] + struct.pack("<IQ", header["number"], offset)
    expect(crc32c(place + data[offset + 8:offset + size]) == checksum, "the commit's checksum")
    commit = {"size": size, "first": fields.number(8), "recorded": fields.time(),
              "durable": fields.number(8)}
    expect(fields.number(8) == 0, "flags")
    commit.update(previous=fields.take(32), hash=fields.take(32), events=[])
    leaves = b""
    for i in range(count):
        event, leaf = read_event(fields)
        expect(event["position"] == commit["first"] + i, "the event's position")
        commit["events"].append(event)
        leaves += leaf
    rest = data[offset + fields.at:offset + size]
    expect(len(rest) < 8 and not any(rest), "what stands behind the last record")
    hashed = (commit["previous"] + header["log_id"] +
              struct.pack("<QIqQ", commit["first"], count, commit["recorded"], commit["durable"]))
    expect(hashlib.sha256(hashed + leaves).digest() == commit["hash"], "the commit's own hash")
    return commit


NONE = 2 ** 64 - 1
RAW = 65536


def read_footer(data):
    first, second = data[-8192:-4096], data[-4096:]
    expect(first == second, "the two footers differ")
    expect(second[:8] == b"DEEDEND\n", "no footer")
    expect(crc32c(second[12:]) == int.from_bytes(second[8:12], "little"), "the footer's checksum")
    fields = Fields(second[12:])
    expect(fields.number(4) == 1, "the footer's version")
    footer = {"log_id": fields.take(16)}
    for name, size in (("epoch", 8), ("number", 4), ("generation", 4), ("first", 8), ("last", 8),
                       ("commits", 8), ("events", 8), ("removed", 8), ("first_kept", 8),
                       ("first_removed", 8)):
        footer[name] = fields.number(size)
    footer.update(first_recorded=fields.time(), last_recorded=fields.time(),
                  previous=fields.take(32), hash=fields.take(32))
    for name in ("logical_end", "table", "table_blocks", "map", "map_blocks", "size"):
        footer[name] = fields.number(8)
    footer["content"] = fields.take(32)
    expect(footer["size"] == len(data), "the file's size")
    expect(hashlib.sha256(data[:-8192]).digest() == footer["content"], "the hash of the content")
    return footer


def read_blocks(data, at, count, footer):
    """The entries of a table or a map, 16 bytes each."""
    entries = []
    for offset in range(at, at + count * 4096, 4096):
        block = data[offset:offset + 4096]
        place = footer["log_id"] + struct.pack("<IIQ", footer["number"], footer["generation"], offset)
        expect(crc32c(place + block[4:]) == int.from_bytes(block[:4], "little"),
               f"offset {offset}: the block's checksum")
        filled = int.from_bytes(block[4:8], "little")
        expect(filled == 255 or offset == at + (count - 1) * 4096, "a block that is not full")
        entries += [block[8 + 16 * i:24 + 16 * i] for i in range(filled)]
        expect(not any(block[8 + 16 * filled:]), "what stands behind the last entry")
    return entries


def unpack(data, footer):
    """The logical bytes, the header in front of them."""
    if footer["map_blocks"] == 0:
        return data[:footer["logical_end"]]
    frames = read_blocks(data, footer["map"], footer["map_blocks"], footer)
    expect(frames == read_blocks(data, footer["map"] + footer["map_blocks"] * 4096,
                                 footer["map_blocks"], footer), "the two maps differ")
    logical, at = data[:4096], 4096
    for frame in frames:
        offset, size, checksum = struct.unpack("<QII", frame)
        expect(offset == at, "a frame's place")
        packed = data[offset:offset + size]
        expect(crc32c(packed) == checksum, f"offset {offset}: the frame's checksum")
        raw = subprocess.run(["zstd", "-dcq"], input=packed, stdout=subprocess.PIPE, check=True).stdout
        expect(len(raw) == min(RAW, footer["logical_end"] - len(logical)), "a frame's content")
        logical, at = logical + raw, at + size
    return logical


def read_marks(folder):
    newest = {"sequence": 0}
    with open(os.path.join(folder, "marks"), "rb") as file:
        data = file.read()
    expect(len(data) == 8192, "the marks' size")
    for slot in (data[:4096], data[4096:]):
        if slot[:8] != b"DEEDMRK\n" or crc32c(slot[12:120]) != int.from_bytes(slot[8:12], "little"):
            continue
        fields = Fields(slot[12:])
        expect(fields.number(4) == 1, "the mark's version")
        mark = {"log_id": fields.take(16), "epoch": fields.number(8), "sequence": fields.number(8),
                "segment": fields.number(8), "offset": fields.number(8),
                "position": fields.number(8), "hash": fields.take(32), "secret": fields.take(16)}
        if mark["sequence"] > newest["sequence"]:
            newest = mark
    return newest


class Log:
    def __init__(self, folder):
        self.commits, self.expected, self.previous = [], 1, bytes(32)
        self.revisions, self.recorded = {}, None
        self.log_id, self.secret, self.epoch = None, None, 0
        names = sorted(name for name in os.listdir(folder) if name.endswith((".seg", ".sealed")))
        for number, name in enumerate(names, 1):
            expect(name[:11] == f"{number:010}.", f"{name}: segment {number} is missing, or there twice")
            with open(os.path.join(folder, name), "rb") as file:
                data = file.read()
            try:
                if name.endswith(".sealed"):
                    self.read_sealed(data, number, name)
                else:
                    self.read_segment(data, number)
            except Wrong as wrong:
                raise Wrong(f"{name}: {wrong}") from None
        self.check_mark(read_marks(folder))

    def read_sealed(self, data, number, name):
        header, footer = self.begin(data, number), read_footer(data)
        expect(header["sealed"], "the header is not a sealed segment's")
        expect(name == f"{number:010}.{header['first']:020}.{header['generation']}.sealed", "the name")
        for field in ("log_id", "epoch", "number", "generation", "first", "previous"):
            expect(footer[field] == header[field], f"header and footer differ: {field}")
        logical, offset, begun = unpack(data, footer), 4096, len(self.commits)
        while offset < footer["logical_end"]:
            offset = self.read_one(logical, offset, header, number)
        expect(offset == footer["logical_end"], "the last commit's end")
        self.check_footer(data, footer, self.commits[begun:])

    def check_footer(self, data, footer, commits):
        events = [event for commit in commits for event in commit["events"]]
        users = [event for event in events if not event["stream"].startswith(b"$")]
        entries = [struct.pack("<IIQ", commit["first"] - footer["first"], commit["offset"] // 8,
                               commit["recorded"] - commits[0]["recorded"]) for commit in commits]
        expect(read_blocks(data, footer["table"], footer["table_blocks"], footer) == entries, "the table")
        expect(footer["last"] == self.expected - 1 and footer["hash"] == self.previous, "the end")
        expect((footer["commits"], footer["events"]) == (len(commits), len(events)), "the counts")
        expect(footer["removed"] == sum(event["removed"] for event in events), "the removed")
        for field, removed in (("first_kept", False), ("first_removed", True)):
            places = [event["position"] for event in users if event["removed"] == removed]
            expect(footer[field] == (places[0] if places else NONE), field)
        expect((footer["first_recorded"], footer["last_recorded"]) ==
               (commits[0]["recorded"], commits[-1]["recorded"]), "the times")

    def begin(self, data, number):
        header = read_header(data, number)
        expect(self.log_id in (None, header["log_id"]), "another log's")
        expect(header["first"] == self.expected, "it does not begin where the one before ends")
        expect(header["previous"] == self.previous, "it does not continue the chain")
        expect(self.secret in (None, header["secret"]), "another log's secret")
        self.log_id, self.secret = header["log_id"], header["secret"]
        self.epoch = max(self.epoch, header["epoch"])
        return header

    def read_one(self, data, offset, header, number):
        """The commit at an offset; where the next one may be."""
        try:
            commit = read_commit(data, offset, header)
            self.link(commit)
        except Wrong as wrong:
            raise Wrong(f"offset {offset}: {wrong}") from None
        commit.update(segment=number, offset=offset)
        self.commits.append(commit)
        return offset + commit["size"]

    def read_segment(self, data, number):
        header, offset = self.begin(data, number), 4096
        expect(not header["sealed"], "the header is a sealed segment's")
        while offset < len(data):
            if data[offset:offset + 4] != b"DCMT":
                sector = (offset + 4095) // 4096 * 4096
                pad = data[offset:sector]
                if not pad:  # a sector boundary without a group: the end
                    expect(not any(data[offset:]), f"offset {offset}: neither commit nor zeros")
                    return
                expect(not any(pad), f"offset {offset}: the padding is not zeros")
                offset = sector
                continue
            offset = self.read_one(data, offset, header, number)

    def link(self, commit):
        expect(commit["first"] == self.expected, "its position does not follow")
        expect(commit["previous"] == self.previous, "it does not continue the chain")
        expect(commit["durable"] < self.expected, "it knew of what did not exist")
        expect(self.recorded is None or commit["recorded"] >= self.recorded, "time runs back")
        for event in commit["events"]:
            expect(event["revision"] == self.revisions.get(event["stream"], -1) + 1, "a revision")
            self.revisions[event["stream"]] = event["revision"]
        self.expected += len(commit["events"])
        self.previous, self.recorded = commit["hash"], commit["recorded"]

    def check_mark(self, mark):
        last = self.commits[-1]
        expect(mark["log_id"] == self.log_id and mark["epoch"] == self.epoch, "the mark's log")
        expect(mark["secret"] == self.secret, "the mark's secret")
        expect(mark["position"] == self.expected - 1, "the mark's position")
        expect(mark["segment"] == last["segment"], "the mark's segment")
        expect(mark["offset"] == last["offset"] + last["size"], "the mark's offset")
        expect(mark["hash"] == last["hash"], "the mark's hash")

    def describe(self):
        """As tests/unit/test_log.c describes a log."""
        lines = []
        for commit in self.commits:
            for e in commit["events"]:
                if e["removed"]:
                    continue
                line = (f"{e['position']} {e['stream'].decode()} {e['revision']} {e['type'].decode()} "
                        f"{e['content_type'].decode()} time {e['time']} recorded {commit['recorded']}"
                        f" id {e['id'].hex()} data {hexed(e['data'])} metadata {hexed(e['metadata'])}")
                line += "".join(f" tag {tag.decode()}" for tag in e["tags"])
                line += (f" correlation {e['correlation'].decode()} causation {e['causation'].decode()}"
                         f" actor {e['actor'].decode()} key {e['key'].decode()}")
                lines.append(line if e["hash"] is None else f"{line} hash {e['hash'].hex()}")
        lines.append(f"epoch {self.epoch} log {self.log_id.hex()} chain {self.previous.hex()}")
        return "\n".join(lines) + "\n"


def hexed(data):
    if len(data) <= 64:
        return data.hex()
    return f"{len(data)} bytes, sha256 {hashlib.sha256(data).hexdigest()}"


def main():
    if len(sys.argv) == 2:
        log = Log(sys.argv[1])
        for commit in log.commits:
            print(f"segment {commit['segment']} offset {commit['offset']} position {commit['first']}"
                  f" events {len(commit['events'])} hash {commit['hash'].hex()}")
        print(f"{len(log.commits)} commits, {log.expected - 1} events, all as the page says")
        return
    expect(crc32c(b"123456789") == 0xE3069283, "this program's own checksum")
    for golden in GOLDEN:
        with open(os.path.join(golden, "described.txt"), encoding="utf-8") as file:
            described = file.read()
        expect(Log(golden).describe() == described, f"{golden} is described otherwise")
    print("the golden logs are as docs/format/log.md says")


if __name__ == "__main__":
    try:
        main()
    except Wrong as wrong:
        sys.exit(f"wrong: {wrong}")
