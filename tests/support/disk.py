"""Disks of our own, for tests that break or fill them: file systems in an image, mounted by a loop
device, and small ones in memory. They need root.

Where TEST_PROMISES in the environment contains "root", as in CI, a disk that cannot be made is a
failure; elsewhere the test is skipped.
"""
import ctypes
import fcntl
import os
import shutil
import subprocess
import sys
import time

# EXT4_IOC_SHUTDOWN and XFS_IOC_GOINGDOWN are the same number: _IOR('X', 125, __u32).
IOC_SHUTDOWN = 0x8004587D
NO_LOG_FLUSH = 2


class NoDisk(Exception):
    """There is none to be had here."""


def skip_or_fail(reason):
    """What a test ends with that got NoDisk."""
    print(f"no disk for this test: {reason}")
    sys.exit(1 if "root" in os.environ.get("TEST_PROMISES", "") else 77)


def run(*command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise NoDisk(f"{' '.join(command)}: {done.stderr.strip()}")


class Disk:
    """with Disk(folder, "ext4", 64) as disk: … disk.path is where it is mounted. Kinds: ext4, xfs, and
    tmpfs, which lives in memory. Sizes are in MiB; an image takes what is written to it."""

    def __init__(self, folder, kind, size, options=""):
        self.kind, self.size, self.options = kind, size, options
        self.path = os.path.join(folder, kind)
        self.image = os.path.join(folder, kind + ".img")
        self.mounted = False

    def __enter__(self):
        if os.geteuid() != 0:
            raise NoDisk("only root may mount")
        os.makedirs(self.path)
        if self.kind != "tmpfs":
            if shutil.which("mkfs." + self.kind, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin") is None:
                raise NoDisk(f"there is no mkfs.{self.kind}")
            with open(self.image, "wb") as image:
                image.truncate(self.size << 20)
            run("/sbin/mkfs." + self.kind, "-q", self.image)
        self.mount()
        return self

    def mount(self):
        if self.kind == "tmpfs":
            run("mount", "-t", "tmpfs", "-o", f"size={self.size}m", "tmpfs", self.path)
        else:
            options = ["loop"] + ([self.options] if self.options else [])
            run("mount", "-t", self.kind, "-o", ",".join(options), self.image, self.path)
        self.mounted = True

    def unmount(self):
        """Whoever was killed may hold it for a moment still."""
        for attempt in range(100):
            try:
                run("umount", self.path)
                break
            except NoDisk:
                if attempt == 99:
                    raise
                time.sleep(0.05)
        self.mounted = False

    def cut_power(self):
        """Nothing more reaches the disk, what waits in memory neither: also not the file system's own
        log. Writes and syncs fail from here on. Then kill who writes, unmount, mount."""
        fd = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.ioctl(fd, IOC_SHUTDOWN, ctypes.c_uint32(NO_LOG_FLUSH))
        finally:
            os.close(fd)

    def __exit__(self, *_):
        if self.mounted:
            try:
                self.unmount()
            except NoDisk:
                run("umount", "-l", self.path)
