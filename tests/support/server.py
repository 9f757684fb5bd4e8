"""What the integration tests share: a server on a free port over a fresh directory."""
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
import urllib.error
import urllib.request

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PROGRAM = os.path.abspath(os.environ.get("DEEDBOOK", os.path.join(ROOT, "build/deedbook")))


class Server:
    """with Server(app="examples/orders") as server: …; its directory goes away at the end."""

    def __init__(self, app=None, options=(), data=None, program=PROGRAM, log_path=None):
        self.program = program
        self.app = app
        self.options = list(options)
        self.own_data = data is None
        self.data = data or os.path.join(tempfile.mkdtemp(prefix="deedbook-test-"), "data")
        self.log_path = log_path or self.data.rstrip("/") + ".log"
        self.process = None
        self.status = None  # how it ended the last time
        self.url = None
        self.log = ""

    def start(self, listen="127.0.0.1:0", environment=None):
        command = [self.program, "serve"] + ([self.app] if self.app else [])
        command += ["--data", self.data, "--listen", listen] + self.options
        with open(self.log_path, "wb") as log:
            self.process = subprocess.Popen(command, cwd=ROOT, stderr=log, stdout=log,
                                            stdin=subprocess.DEVNULL,
                                            env={**os.environ, **(environment or {})})
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with open(self.log_path, encoding="utf-8", errors="replace") as log:
                self.log = log.read()
            match = re.search(r"(http://[\w.\[\]:]+:\d+)", self.log)
            if match:
                self.url = match.group(1)
                return self
            if self.process.poll() is not None:
                break
            time.sleep(0.02)
        self.stop(signal.SIGKILL)
        raise RuntimeError("the server did not start:\n" + self.log)

    def stop(self, how=signal.SIGTERM):
        """Its exit status; None if it was not running."""
        if self.process is None:
            return None
        if self.process.poll() is None:
            self.process.send_signal(how)
        try:
            status = self.status = self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise
        finally:
            self.process = None
        return status

    def remove(self):
        if self.own_data:
            shutil.rmtree(os.path.dirname(self.data), ignore_errors=True)

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        try:
            self.stop()
        finally:
            self.remove()

    def request(self, method, path, body=None, headers=None):
        """(status, parsed JSON or text)."""
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data=data, method=method,
                                         headers={"Content-Type": "application/json", **(headers or {})})
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=60) as reply:
                status, text = reply.status, reply.read().decode()
        except urllib.error.HTTPError as error:
            status, text = error.code, error.read().decode()
        try:
            return status, json.loads(text)
        except ValueError:
            return status, text
