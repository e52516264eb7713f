"""What the tests of local VMDK chains share: running vmferry and qemu-img, comparing sparse files.

$VMFERRY_BIN is the build's bin folder; CTest sets it.
"""

import json
import os
import subprocess
import sys
import tempfile
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.dirname(os.path.dirname(os.path.dirname(HERE)))
sys.path.insert(0, os.path.join(TOP, "tests/lookalike"))

from hostd.record import stored_ranges as ranges_of         # noqa: E402

BIN = os.environ.get("VMFERRY_BIN") or os.path.join(TOP, "build/bin")
VMFERRY = os.path.join(BIN, "vmferry")
SECTOR = 512
KB, MB, GB, TB = 1 << 10, 1 << 20, 1 << 30, 1 << 40
SECONDS = 120

OK, USAGE, SOURCE, INTEGRITY, UNSUPPORTED, REFUSED = 0, 2, 4, 5, 10, 11


def vmferry(*words, seconds=SECONDS, before=()):
    """(exit code, standard output, standard error)"""
    done = subprocess.run([*before, VMFERRY, *words], stdin=subprocess.DEVNULL, timeout=seconds,
                          capture_output=True, check=False)
    return (done.returncode, done.stdout.decode(errors="replace"),
            done.stderr.decode(errors="replace"))


def convert(tip, out, *more, seconds=SECONDS):
    return vmferry("convert", tip, "--output", out, "-q", *more, seconds=seconds)


def info(tip, *more):
    """(exit code, the object of the array, or of the error)"""
    rc, out, _ = vmferry("info", tip, "--json", *more)
    found = json.loads(out)
    return rc, found[0] if isinstance(found, list) else found


def qemu_img(*words, check=True):
    return subprocess.run(["qemu-img", *words], check=check, timeout=SECONDS, capture_output=True)


def qemu_convert(tip, out):
    """What qemu reads; its complaint, or None."""
    done = qemu_img("convert", "-f", "vmdk", "-O", "raw", tip, out, check=False)
    return None if done.returncode == 0 else done.stderr.decode(errors="replace").strip()


def stored_ranges(f):
    return ranges_of(f.fileno(), 0, os.fstat(f.fileno()).st_size)


def first_difference(one, two):
    """The first offset at which two files differ, or None; holes are quick."""
    with open(one, "rb") as a, open(two, "rb") as b:
        sizes = [os.fstat(x.fileno()).st_size for x in (a, b)]
        if sizes[0] != sizes[1]:
            return min(sizes)
        done = 0
        for start, end in sorted(list(stored_ranges(a)) + list(stored_ranges(b))):
            for at in range(max(start, done), end, MB):
                count = min(MB, end - at)
                x, y = (os.pread(f.fileno(), count, at) for f in (a, b))
                if x != y:
                    return at + next(i for i in range(count) if x[i] != y[i])
            done = max(done, end)
    return None


class Folder(unittest.TestCase):
    """A test with a folder of its own."""

    def setUp(self):
        temp = tempfile.TemporaryDirectory(prefix="vmferry-vmdk-")
        self.addCleanup(temp.cleanup)
        self.folder = temp.name

    def path(self, name):
        return os.path.join(self.folder, name)

    def write(self, name, data):
        with open(self.path(name), "wb") as f:
            f.write(data if isinstance(data, bytes) else data.encode())
        return self.path(name)

    def read(self, name):
        with open(self.path(name), "rb") as f:
            return f.read()
