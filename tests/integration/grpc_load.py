#!/usr/bin/env python3
# sanitize: asan tsan
"""The server under h2load, which is not ours: calls of gRPC from many streams, beside HTTP/1.1, and
while it stops."""
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from server import Server  # noqa: E402

FEATURES = "/event_store.client.server_features.ServerFeatures/GetSupportedMethods"


def varint(number):
    out = b""
    while number > 127:
        out += bytes([number & 127 | 128])
        number >>= 7
    return out + bytes([number])


def field(number, value):
    return varint(number << 3 | 2) + varint(len(value)) + value


def frame(message):
    return b"\0" + len(message).to_bytes(4, "big") + message


def append_request(stream, event_id):
    """An Append of one event, whatever the stream's revision."""
    options = field(1, field(1, field(3, stream)) + field(4, b""))
    entries = {b"type": b"Tried", b"content-type": b"application/json"}
    metadata = b"".join(field(2, field(1, k) + field(2, v)) for k, v in entries.items())
    event = field(2, field(1, field(2, event_id)) + metadata + field(4, b'{"a":1}'))
    return frame(options) + frame(event)


def h2load(server, path, body, count, connections=8, streams=32):
    """Answers (how many were answered with 200, what it said)."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(body)
        file.flush()
        command = ["h2load", "-n", str(count), "-c", str(connections), "-m", str(streams), "-d", file.name,
                   "-H", "content-type: application/grpc", "-H", "te: trailers", server.url + path]
        said = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False).stdout
    match = re.search(r"status codes: (\d+) 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx", said)
    assert match, said
    assert match.group(3) == match.group(4) == "0", said
    return int(match.group(1)), said


def metric(server, line):
    with urllib.request.urlopen(server.url + "/metrics", timeout=10) as answer:
        text = answer.read().decode()
    match = re.search("^" + re.escape(line) + r" (\d+)$", text, re.M)
    return int(match.group(1)) if match else 0


def every_call_is_answered_beside_http1():
    with Server() as server:
        stop, asked = threading.Event(), []

        def ask():
            while not stop.is_set():
                with urllib.request.urlopen(server.url + "/healthz", timeout=10) as answer:
                    asked.append(answer.status)

        thread = threading.Thread(target=ask)
        thread.start()
        answered, said = h2load(server, FEATURES, frame(b""), 20000)
        stop.set()
        thread.join()
        assert answered == 20000, said
        assert asked and set(asked) == {200}, asked
        series = f'deedbook_http_requests_total{{route="{FEATURES}",method="POST",status="0"}}'
        assert metric(server, series) == 20000
        assert metric(server, "deedbook_http_requests_in_flight") <= 1  # this question
        assert server.stop() == 0


def one_event_sent_twenty_thousand_times_is_stored_once():
    body = append_request(b"tried-1", b"6f1d4cc2-95a1-4f4b-8a53-1a5e0f1c4b11")
    with Server() as server:
        answered, said = h2load(server, "/event_store.client.streams.Streams/Append", body, 20000)
        assert answered == 20000, said
        with urllib.request.urlopen(server.url + "/streams/tried-1", timeout=10) as answer:
            text = answer.read().decode()
        assert text.count('"Tried"') == 1, text
        assert server.stop() == 0


def it_stops_cleanly_under_load():
    with Server() as server:
        def end():
            time.sleep(0.3)
            server.process.send_signal(signal.SIGTERM)

        thread = threading.Thread(target=end)
        thread.start()
        answered, said = h2load(server, FEATURES, frame(b""), 2000000)
        thread.join()
        assert 0 < answered < 2000000, said
        assert server.stop() == 0, server.status


def main():
    tests = [every_call_is_answered_beside_http1, one_event_sent_twenty_thousand_times_is_stored_once,
             it_stops_cleanly_under_load]
    for test in tests:
        if len(sys.argv) > 1 and sys.argv[1] not in test.__name__:
            continue
        begin = time.monotonic()
        test()
        print(f"ok    {test.__name__:72} {time.monotonic() - begin:.1f} s", flush=True)


if __name__ == "__main__":
    main()
