#!/usr/bin/env python3
# sanitize: asan
"""`deedbook serve` as a whole: configuration from three sources, what it says, reloading of an app's files,
and shutdown under load: what was acknowledged is stored."""
import http.client, json, os, re, signal, subprocess, sys, tempfile, threading, time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
DEEDBOOK = os.environ.get("DEEDBOOK", os.path.join(ROOT, "build/deedbook"))
tests = []


def test(function):
    tests.append(function)
    return function


class Serve:
    """A server in a folder of its own; stopped with SIGTERM at the end of the block."""

    def __init__(self, folder, *arguments, env=None, listen="127.0.0.1:0"):
        self.folder = folder
        command = [DEEDBOOK, "serve", *arguments]
        if not any(a.startswith("--data") for a in arguments):
            command += ["--data", os.path.join(folder, "data")]
        if listen:
            command += ["--listen", listen]
        self.log = []
        environment = {k: v for k, v in os.environ.items() if not k.startswith("DEEDBOOK_")}
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL,
                                        env={**environment, **(env or {})}, text=True)
        self.ready = threading.Event()
        self.reader = threading.Thread(target=self.read_log)
        self.reader.start()

    def read_log(self):
        for line in self.process.stderr:
            self.log.append(line.rstrip("\n"))
            found = re.match(r"deedbook: serving on http://.*127\.0\.0\.1:(\d+)", line)
            if found:
                self.port = int(found.group(1))
                self.ready.set()
        self.ready.set()

    def wait_ready(self):
        assert self.ready.wait(30)
        assert self.process.poll() is None, self.log
        return self

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(timeout=60)
        self.reader.join()
        return code

    def __enter__(self):
        return self.wait_ready()

    def __exit__(self, kind, value, trace):
        code = self.stop()
        if kind is None:
            assert code == 0, (code, self.log)

    def ask(self, method, target, body=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, target, None if body is None else json.dumps(body),
                               {"Content-Type": "application/json"} if body is not None else {})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def said(self, text):
        return any(text in line for line in self.log)


def ends(folder, *arguments, env=None):
    """A serve that must not come up: its exit status and what it said."""
    s = Serve(folder, *arguments, env=env)
    assert s.ready.wait(30)
    if s.process.poll() is None and hasattr(s, "port"):
        s.stop()
        assert False, s.log
    code = s.process.wait(timeout=30)
    s.reader.join()
    return code, "\n".join(s.log)


def write(path, text):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path + ".new", "w") as f:
        f.write(text)
    os.rename(path + ".new", path)


@test
def the_command_line_wins_over_the_environment_and_that_over_the_file(folder):
    file = os.path.join(folder, "serve.conf")
    write(file, "# limits\nbody-size-max = 100\nhead-size-max = 300\nidle-timeout = 5s\n")
    with Serve(folder, "--config", file, "--body-size-max=2000",
               env={"DEEDBOOK_BODY_SIZE_MAX": "1000", "DEEDBOOK_HEAD_SIZE_MAX": "2KiB", "DEEDBOOK_LISEN": "1"}) as s:
        event = {"type": "t", "data": {"x": "y" * 1500}}
        assert s.ask("POST", "/streams/a-1", event)[0] == 200  # the command line's 2,000
        event["data"]["x"] = "y" * 2000
        assert s.ask("POST", "/streams/a-1", event)[0] == 413
        assert s.ask("GET", "/" + "x" * 1000)[0] == 404  # the environment's 2 KiB
        assert s.ask("GET", "/" + "x" * 2100)[0] == 414
        assert s.said("DEEDBOOK_LISEN"), s.log  # a slip is told


@test
def mistakes_are_told_with_file_and_line(folder):
    file = os.path.join(folder, "serve.conf")
    write(file, "body-size-max = 1MiB\n\nlisen = 127.0.0.1:1\n")
    code, said = ends(folder, "--config", file)
    assert code != 0 and "serve.conf line 3: no option \"lisen\"" in said, said
    write(file, "body-size-max = plenty\n")
    code, said = ends(folder, "--config", file)
    assert code != 0 and "serve.conf line 1: body-size-max: \"plenty\" is not a size" in said, said
    code, said = ends(folder, env={"DEEDBOOK_POOL_THREADS": "0"})
    assert code != 0 and "DEEDBOOK_POOL_THREADS: pool-threads: 0 is not within" in said, said
    code, said = ends(folder, "--config", os.path.join(folder, "none.conf"))
    assert code != 0 and "none.conf" in said, said
    code, said = ends(folder, os.path.join(folder, "no-app"))
    assert code != 0 and "no-app" in said, said
    code, said = ends(folder, "--advertise-host", "0.0.0.0")
    assert code != 0 and "advertise-host 0.0.0.0: clients cannot dial that" in said, said
    code, said = ends(folder, "--advertise-host", "shop.example:2113")
    assert code != 0 and "advertise-host shop.example:2113: the port is" in said, said
    code, said = ends(folder, "--listen=nowhere")
    assert code != 0 and "\"nowhere\" is not ADDRESS:PORT" in said, said


@test
def what_another_process_holds_is_told(folder):
    with Serve(folder) as s:
        code, said = ends(folder)
        assert code != 0 and "another process" in said or "in use" in said, said
        code, said = ends(folder, "--data", os.path.join(folder, "other"), "--listen", "127.0.0.1:%d" % s.port)
        assert code != 0 and "127.0.0.1:%d: address already in use" % s.port in said, said


@test
def several_addresses_are_served(folder):
    with Serve(folder, "--listen=127.0.0.2:0") as s:
        line = next(line for line in s.log if "serving on" in line)
        ports = re.findall(r"http://127\.0\.0\.[12]:(\d+)", line)
        assert len(ports) == 2, line
        for host in ("127.0.0.1", "127.0.0.2"):
            port = re.search(r"http://%s:(\d+)" % re.escape(host), line).group(1)
            connection = http.client.HTTPConnection(host, int(port), timeout=30)
            connection.request("GET", "/healthz")
            assert connection.getresponse().status == 200
            connection.close()


PROJECTION = """-- projection: names
-- tables
CREATE TABLE names (id TEXT PRIMARY KEY, name TEXT);
-- on Named
INSERT INTO names (id, name) VALUES (:data.id, %s);
"""


def eventually(what, seconds=20):
    deadline = time.time() + seconds
    while True:
        result = what()
        if result or time.time() > deadline:
            return result
        time.sleep(0.1)


@test
def a_mended_projection_file_is_taken_up_while_running(folder):
    app = os.path.join(folder, "app")
    write(app + "/projections/names.sql", PROJECTION % ":data.nam")  # no such path in the events
    write(app + "/queries/all_names.sql", "-- Every name.\nSELECT id, name FROM names ORDER BY id\n")
    with Serve(folder, app) as s:
        for i in range(3):
            assert s.ask("POST", "/streams/n-%d" % i, {"type": "Named", "data": {"id": str(i), "name": "N%d" % i}})[0] == 200
        failed = eventually(lambda: b"nam" in s.ask("GET", "/projections")[1] and b"failed" in s.ask("GET", "/projections")[1])
        assert failed, s.ask("GET", "/projections")
        assert eventually(lambda: s.said("projection names has failed at position")), s.log
        assert s.ask("POST", "/streams/other-1", {"type": "T", "data": {}})[0] == 200  # the store does not mind
        write(app + "/projections/names.sql", PROJECTION % ":data.name")
        rows = eventually(lambda: s.ask("GET", "/queries/all_names")[1].count(b'"name"') == 3)
        assert rows, (s.ask("GET", "/queries/all_names"), s.log)
        assert s.said("projections changed"), s.log
        assert eventually(lambda: s.said("projection names goes on") or s.said("projection names is rebuilt")), s.log
        # A new query, and a projection file that is nonsense: the others go on.
        write(app + "/queries/count_names.sql", "-- How many.\nSELECT count(*) AS n FROM names\n")
        assert eventually(lambda: b'"n":3' in s.ask("GET", "/queries/count_names")[1].replace(b" ", b"")), s.log
        write(app + "/projections/broken.sql", "this is no projection\n")
        assert eventually(lambda: s.said("broken.sql")), s.log
        assert s.ask("GET", "/queries/all_names")[0] == 200


@test
def patient_queries_do_not_hold_up_reads(folder):
    app = os.path.join(folder, "app")
    write(app + "/projections/names.sql", PROJECTION % ":data.name")
    write(app + "/queries/all_names.sql", "-- Every name.\nSELECT id, name FROM names ORDER BY id\n")
    with Serve(folder, app, "--pool-threads=2", "--query-threads=4") as s:
        assert s.ask("POST", "/streams/n-1", {"type": "Named", "data": {"id": "1", "name": "N"}})[0] == 200
        answers = []

        def wait():
            status = 503
            while status == 503:  # the one that asks below has a place for a moment
                connection = http.client.HTTPConnection("127.0.0.1", s.port, timeout=60)
                connection.request("GET", "/queries/all_names?after=1000&timeout=30000")
                status = connection.getresponse().status
                connection.close()
            answers.append(status)
        waiting = [threading.Thread(target=wait) for _ in range(3)]
        for thread in waiting:
            thread.start()
        # Three of the four threads may wait: one more is told to come again, whoever need not wait
        # is answered.
        assert eventually(lambda: s.ask("GET", "/queries/all_names?after=1000&timeout=1")[0] == 503)
        for _ in range(20):
            assert s.ask("GET", "/streams/n-1")[0] == 200
            assert s.ask("GET", "/queries/all_names")[0] == 200
        assert not answers, "the reads waited for the queries"
        events = [{"type": "Named", "data": {"id": str(i), "name": "N"}} for i in range(2, 1001)]
        assert s.ask("POST", "/streams/n-1", events)[0] == 200
        for thread in waiting:
            thread.join()
        assert answers == [200] * 3, answers


@test
def what_was_acknowledged_is_stored_when_it_stops_under_load(folder):
    for round_ in range(3):
        acknowledged, unknown, stop_at = [], [], threading.Event()
        with Serve(folder) as s:
            def work(number):
                connection = http.client.HTTPConnection("127.0.0.1", s.port, timeout=30)
                i = 0
                while not stop_at.is_set():
                    stream = "load-%d-%d" % (round_, number)
                    try:
                        connection.request("POST", "/streams/" + stream, json.dumps({"type": "T", "data": {"i": i}}),
                                           {"Content-Type": "application/json"})
                        answer = connection.getresponse()
                        body = answer.read()
                    except (OSError, http.client.HTTPException) as error:
                        unknown.append((stream, repr(error)))
                        return
                    if answer.status == 200:
                        told = json.loads(body)
                        acknowledged.append((stream, told["revision"], told["position"], i))
                    elif answer.status != 503:
                        unknown.append((stream, answer.status, body))
                        return
                    i += 1

            threads = [threading.Thread(target=work, args=(n,)) for n in range(24)]
            for t in threads:
                t.start()
            time.sleep(0.5 + round_ * 0.3)
            s.process.send_signal(signal.SIGTERM)
            code = s.process.wait(timeout=30)
            stop_at.set()
            for t in threads:
                t.join()
            assert code == 0, s.log
        assert s.said("SIGTERM") and s.said("stopped: answered"), s.log
        assert len(acknowledged) > 100
        for trouble in unknown:  # a connection may end, an answer may not be wrong
            assert isinstance(trouble[1], str), trouble
        with Serve(folder) as s:
            stored = {}
            for number in range(24):
                stream = "load-%d-%d" % (round_, number)
                status, body = s.ask("GET", "/streams/%s?limit=10000" % stream)
                for event in (json.loads(body) if status == 200 else []):
                    stored[stream, int(event["revision"])] = (int(event["position"]), event["data"]["i"])
            for stream, revision, position, i in acknowledged:
                assert stored[stream, revision] == (position, i), (stream, revision, position, i)


@test
def a_follower_is_ended_cleanly(folder):
    with Serve(folder) as s:
        connection = http.client.HTTPConnection("127.0.0.1", s.port, timeout=30)
        connection.request("GET", "/events?follow=true", headers={"Accept": "application/x-ndjson"})
        answer = connection.getresponse()
        assert answer.status == 200
        s.ask("POST", "/streams/f-1", {"type": "Seen", "data": {"x": 1}})
        line = answer.readline()
        while b"Seen" not in line:
            line = answer.readline()
        s.process.send_signal(signal.SIGTERM)
        rest = answer.read()  # raises IncompleteRead if it were cut
        assert rest.strip() == b"", rest
        connection.close()


@test
def signals_that_keep_coming_do_not_spoil_a_clean_end(folder):
    for number in (signal.SIGTERM, signal.SIGINT):
        with Serve(folder) as s:
            s.ask("POST", "/streams/f-1", {"type": "Seen", "data": {"x": 1}})
            until = time.time() + 60
            while s.process.poll() is None and time.time() < until:
                s.process.send_signal(number)
                time.sleep(0.0005)
            assert s.process.returncode == 0, s.process.returncode


def grpc(s, method):
    """A gRPC call with an empty message: the bytes that came and its status."""
    with tempfile.NamedTemporaryFile() as message:
        message.write(bytes(5))
        message.flush()
        answer = subprocess.run(["nghttp", "-v", "-H", "content-type: application/grpc", "-H", "te: trailers",
                                 "-d", message.name, "http://127.0.0.1:%d/%s" % (s.port, method)],
                                capture_output=True, timeout=60)
    status = re.search(rb"grpc-status: (\d+)", answer.stdout)
    assert status, answer.stdout
    return answer.stdout, int(status.group(1))


@test
def grpc_clients_are_told_where_they_found_the_server(folder):
    with Serve(folder) as s:
        answer, status = grpc(s, "event_store.client.gossip.Gossip/Read")
        assert status == 0 and b"127.0.0.1" in answer, answer
    with Serve(folder, "--advertise-host", "outside.example", "--advertise-port", "443") as s:
        answer, status = grpc(s, "event_store.client.gossip.Gossip/Read")
        assert status == 0 and b"outside.example" in answer, answer


@test
def a_grpc_client_stops_the_server_only_where_that_is_allowed(folder):
    with Serve(folder) as s:
        answer, status = grpc(s, "event_store.client.operations.Operations/Shutdown")
        assert status == 7 and b"access-denied" in answer, answer
        assert s.ask("GET", "/healthz")[0] == 200
    s = Serve(folder, "--allow-shutdown").wait_ready()
    answer, status = grpc(s, "event_store.client.operations.Operations/Shutdown")
    assert status == 0, answer
    assert s.process.wait(timeout=30) == 0, s.log
    s.reader.join()
    assert s.said("stopped: answered"), s.log


def main():
    if not os.path.exists(DEEDBOOK):
        print("%s is not built" % DEEDBOOK)
        return 77
    wanted = sys.argv[1] if len(sys.argv) > 1 else ""
    failed = 0
    for function in tests:
        if wanted not in function.__name__:
            continue
        start = time.time()
        with tempfile.TemporaryDirectory(prefix="deedbook-serve-") as folder:
            try:
                function(folder)
                print("ok    %-70s %5.1f s" % (function.__name__, time.time() - start))
            except Exception as error:
                failed += 1
                import traceback
                traceback.print_exc(file=sys.stdout)
                print("FAIL  %s: %r" % (function.__name__, error))
        sys.stdout.flush()
    return 1 if failed else 0


sys.exit(main())
