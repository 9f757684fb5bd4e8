"""The servers that are measured: ours and the peers, each started in a directory of its own.

A server has start(), stop(), cpu_s(): the processor seconds that all its processes have taken, and
rss_anon(): their anonymous memory. Missing programs are a reason (a text), never an error."""

import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import time

TICK = os.sysconf("SC_CLK_TCK")


class Unavailable(Exception):
    """A peer that is not installed, or does not start."""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def children(pid):
    found = [pid]
    for parent in found:
        try:
            for task in os.listdir(f"/proc/{parent}/task"):
                with open(f"/proc/{parent}/task/{task}/children", encoding="ascii") as file:
                    found += [int(child) for child in file.read().split()]
        except OSError:
            pass
    return found


def proc_cpu_s(pid):
    """Of one process, and of its children that have ended."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
            fields = file.read().rsplit(")", 1)[1].split()
    except OSError:
        return 0.0
    return sum(int(field) for field in fields[11:15]) / TICK


def proc_memory(pid, what="RssAnon"):
    try:
        with open(f"/proc/{pid}/status", encoding="utf-8") as file:
            found = re.search(rf"^{what}:\s+(\d+) kB", file.read(), re.MULTILINE)
            return int(found.group(1)) * 1024 if found else 0
    except OSError:
        return 0


class Server:
    name = "?"

    def __init__(self, directory, flush_us=0, delay_library=None):
        self.directory = directory
        self.process = None
        self.environment = dict(os.environ)
        if flush_us:
            self.environment["LD_PRELOAD"] = delay_library
            self.environment["BENCH_FLUSH_US"] = str(flush_us)

    def spawn(self, command, log_name):
        self.log = os.path.join(self.directory, log_name)
        with open(self.log, "w", encoding="utf-8") as log:
            self.process = subprocess.Popen(command, env=self.environment, stdin=subprocess.DEVNULL,
                                            stdout=log, stderr=subprocess.STDOUT)

    def log_tail(self):
        with open(self.log, encoding="utf-8", errors="replace") as file:
            return " | ".join(file.read().strip().splitlines()[-3:])

    def wait_for(self, ready, seconds=30):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self.process.poll() is not None:
                raise Unavailable(f"{self.name} ended: {self.log_tail()}")
            if ready():
                return
            time.sleep(0.005)
        raise Unavailable(f"{self.name} did not start within {seconds} s: {self.log_tail()}")

    def port_open(self):
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def stop(self, how=signal.SIGTERM):
        if self.process is None:
            return
        self.process.send_signal(how)
        try:
            self.process.wait(120)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None

    def cpu_s(self):
        return sum(proc_cpu_s(pid) for pid in children(self.process.pid))

    def rss_anon(self):
        return sum(proc_memory(pid) for pid in children(self.process.pid))


class Deedbook(Server):
    name = "Deedbook"

    def __init__(self, build, directory, *options, **more):
        super().__init__(directory, **more)
        self.build, self.options, self.url = build, options, None

    def start(self):
        self.port = free_port()
        self.spawn([f"{self.build}/deedbook", "serve", "--data", f"{self.directory}/data", "--listen",
                    f"127.0.0.1:{self.port}", *self.options], "deedbook.log")
        self.wait_for(self.port_open, 600)
        self.url = f"http://127.0.0.1:{self.port}"
        return self


class Redis(Server):
    name = "Redis"

    def start(self):
        program = shutil.which("redis-server")
        if program is None:
            raise Unavailable("redis-server is not installed")
        self.port = free_port()
        self.spawn([program, "--port", str(self.port), "--bind", "127.0.0.1", "--dir", self.directory,
                    "--appendonly", "yes", "--appendfsync", "always", "--save", "", "--daemonize", "no"],
                   "redis.log")
        self.wait_for(self.port_open)
        self.address = str(self.port)
        return self


class Postgres(Server):
    name = "PostgreSQL"

    # What somebody would set who gives a machine like this to an event store.
    SETTINGS = """
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
shared_buffers = 1GB
max_wal_size = 8GB
max_connections = 200
fsync = on
synchronous_commit = on
logging_collector = off
"""

    def as_user(self):
        """It refuses to run as root."""
        if os.getuid() != 0:
            return []
        try:
            pwd.getpwnam("postgres")
        except KeyError as error:
            raise Unavailable("there is no user postgres to run it as") from error
        return ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]

    def start(self):
        folder = "/usr/lib/postgresql/15/bin"
        if not os.path.exists(f"{folder}/postgres"):
            raise Unavailable("postgresql-15 is not installed")
        self.port = free_port()
        data = os.path.join(os.path.abspath(self.directory), "pg")
        user = self.as_user()
        if not os.path.exists(data):
            os.mkdir(data, 0o700)
            if user:
                shutil.chown(data, "postgres", "postgres")
            made = subprocess.run([*user, f"{folder}/initdb", "-D", data, "-A", "trust", "-E", "UTF8", "--locale=C",
                                   "-U", "postgres", "-N"], cwd="/", capture_output=True, text=True, check=False)
            if made.returncode != 0:
                raise Unavailable(f"initdb: {made.stderr.strip().splitlines()[-1:]}")
            with open(f"{data}/postgresql.conf", "a", encoding="utf-8") as file:
                file.write(self.SETTINGS)
        self.spawn([*user, f"{folder}/postgres", "-D", data, "-p", str(self.port)], "postgres.log")
        self.address = f"host=127.0.0.1 port={self.port} user=postgres dbname=postgres"
        ask = [f"{folder}/pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        self.wait_for(lambda: subprocess.run(ask, check=False).returncode == 0)
        return self

    def stop(self, how=signal.SIGINT):
        super().stop(how)


class Sqlite(Server):
    """No server: the driver is the program."""

    name = "SQLite"

    def start(self):
        self.address = self.directory
        return self

    def stop(self, how=None):
        pass

    def cpu_s(self):
        return 0.0

    def rss_anon(self):
        return 0


class Nginx(Server):
    name = "nginx"

    def start(self):
        program = shutil.which("nginx") or ("/usr/sbin/nginx" if os.path.exists("/usr/sbin/nginx") else None)
        if program is None:
            raise Unavailable("nginx is not installed")
        self.port = free_port()
        path = os.path.abspath(self.directory)
        with open(f"{path}/nginx.conf", "w", encoding="utf-8") as file:
            file.write(f"""daemon off;
worker_processes auto;
pid {path}/nginx.pid;
error_log {path}/error.log;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    keepalive_requests 1000000000;
    client_body_temp_path {path}/body;
    proxy_temp_path {path}/proxy;
    fastcgi_temp_path {path}/fastcgi;
    uwsgi_temp_path {path}/uwsgi;
    scgi_temp_path {path}/scgi;
    server {{
        listen 127.0.0.1:{self.port};
        location / {{ return 200 "ok"; }}
    }}
}}
""")
        self.spawn([program, "-p", path, "-c", f"{path}/nginx.conf", "-e", f"{path}/error.log"], "nginx.log")
        self.wait_for(self.port_open)
        self.url = f"http://127.0.0.1:{self.port}"
        return self
