"""What the tests of whole mirror runs share: a look-alike with its VMs, vmferry run against it, and
the comparison of images with what the look-alike says the disks held.

$VMFERRY_BIN is the build's bin folder; CTest sets it.
"""

import filecmp
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.dirname(os.path.dirname(os.path.dirname(HERE)))
sys.path.insert(0, os.path.join(TOP, "tests/lookalike"))

from lookalike import Lookalike  # noqa: E402

MB = 1 << 20
BLOCK = 64 << 10        # of a mirror
BIN = os.environ.get("VMFERRY_BIN") or os.path.join(TOP, "build/bin")
VMFERRY = os.path.join(BIN, "vmferry")
os.environ.setdefault("LOOKALIKE_BIN", BIN)
RUN_SECONDS = 120


def private_address(number=0):
    """A loopback address that no other test process uses: all want the ports 31031 and so on."""
    pid = os.getpid()
    return "127.%d.%d.%d" % (1 + (pid >> 14) % 250, (pid >> 7) & 0x7f,
                             1 + (pid & 0x7f) + 128 * (number & 1))


def same_bytes(a, b):
    return os.path.getsize(a) == os.path.getsize(b) and filecmp.cmp(a, b, shallow=False)


def stored_bytes(path):
    return os.stat(path).st_blocks * 512


def write_raw(path, size, pieces, seed=1):
    """A sparse file of size bytes with random bytes in the pieces (offset, length)."""
    r = random.Random(seed)
    with open(path, "wb") as f:
        f.truncate(size)
        for offset, length in pieces:
            f.seek(offset)
            while length > 0:
                part = min(length, MB)
                f.write(r.randbytes(part))
                length -= part
    return path


class Result:
    """One run of vmferry with --json (or without: then only code, out and err)."""

    def __init__(self, code, out, err):
        self.code = code
        self.out = out
        self.err = err
        self.events = []
        self.array = None
        for line in out.splitlines():
            try:
                value = json.loads(line)
            except ValueError:
                continue
            if isinstance(value, list):
                self.array = value
            else:
                self.events.append(value)
        last = self.events[-1] if self.events else {}
        self.summary = last if last.get("type") == "summary" else None

    def vm(self, name=None):
        rows = [v for v in self.summary["vms"] if name in (None, v["vm"])]
        assert len(rows) == 1, self.summary
        return rows[0]

    def disk(self, slot="scsi0:0", vm=None):
        return next(d for d in self.vm(vm)["disks"] if d["disk"] == slot)

    def total(self, field):
        return sum(d[field] for v in self.summary["vms"] for d in v["disks"])

    def warnings(self):
        return [e["message"] for e in self.events if e["type"] == "warning"]

    def __str__(self):
        return "exit %d\n%s\n%s" % (self.code, self.out[-3000:], self.err[-3000:])


class Running:
    """A vmferry that runs beside the test; its status lines can be waited for."""

    def __init__(self, command):
        self.errors = tempfile.TemporaryFile()
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                        stderr=self.errors, text=True)
        self.lines = []
        self.news = threading.Condition()
        self.ended = False
        self.thread = threading.Thread(target=self._gather, daemon=True)
        self.thread.start()

    def _gather(self):
        for line in self.process.stdout:
            with self.news:
                self.lines.append(line)
                self.news.notify_all()
        with self.news:
            self.ended = True
            self.news.notify_all()

    def wait_for(self, wanted, seconds=60):
        """Until an event satisfies wanted(event).  The event, or None when it ended before."""
        deadline = time.monotonic() + seconds
        seen = 0
        with self.news:
            while True:
                while seen < len(self.lines):
                    event = json.loads(self.lines[seen])
                    seen += 1
                    if wanted(event):
                        return event
                if self.ended:
                    return None
                if not self.news.wait(deadline - time.monotonic()):
                    raise AssertionError("nothing of the kind within %d s:\n%s" % (
                        seconds, "".join(self.lines[-20:])))

    def wait_step(self, step, seconds=60):
        return self.wait_for(lambda e: e.get("step") == step, seconds)

    def wait_sent(self, count, slot="scsi0:0", seconds=60):
        return self.wait_for(lambda e: e.get("disk") == slot and e.get("sent", 0) >= count, seconds)

    def signal(self, number=signal.SIGKILL):
        if self.process.poll() is None:
            self.process.send_signal(number)

    def end(self, seconds=RUN_SECONDS):
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        self.thread.join(10)
        self.process.stdout.close()
        self.errors.seek(0)
        err = self.errors.read().decode(errors="replace")
        self.errors.close()
        return Result(code, "".join(self.lines), err)


class MirrorTest(unittest.TestCase):
    """One look-alike for the class; a folder of its own for each test."""

    profile = "6.7"
    knobs = {}
    datastores = None
    mirror_options = ("--min-free", "1G")

    @classmethod
    def setUpClass(cls):
        cls.host = Lookalike.start(profile=cls.profile, knobs=cls.knobs, datastores=cls.datastores)
        cls.data_address = private_address()

    @classmethod
    def tearDownClass(cls):
        defects = cls.host.defects()
        cls.host.stop()
        assert not defects, defects

    def setUp(self):
        self.work = tempfile.mkdtemp(prefix="vmferry-it-")
        self.addCleanup(shutil.rmtree, self.work)
        self.state = os.path.join(self.work, "state")
        self.mirror = os.path.join(self.work, "mirror")
        self.count = 0
        self.target = "%s:%d" % (self.host.address, self.host.port)
        self.known_hosts = self.host.known_hosts
        self.turned = {}
        self.addCleanup(self.check_host)

    def check_host(self):
        """After every test: nothing of ours is left, and nobody called removeall."""
        for name, value in self.turned.items():
            self.host.knob(name, value)
        left = self.leftovers()
        calls = [c for c in self.host.calls("vim-cmd") if "removeall" in " ".join(c["argv"])]
        for v in self.host.state()["vms"]:
            if v["power"] == "on":
                self.host.power(v["vmid"], "off")
            self.host.ask("vm-remove", vm=v["vmid"])
        self.assertEqual(left, {"files": [], "processes": [], "snapshots": []})
        self.assertEqual(calls, [])

    def leftovers(self, seconds=10):
        """What is left once processes that are about to end have ended."""
        deadline = time.monotonic() + seconds
        while True:
            left = self.host.leftovers()
            if not left["processes"] or time.monotonic() > deadline:
                return left
            time.sleep(0.05)

    def knob(self, name, value):
        """Turn a knob until the end of the test."""
        self.turned.setdefault(name, self.host.ask("knobs")[name])
        self.host.knob(name, value)

    # VMs

    def path(self, name):
        return os.path.join(self.work, name)

    def raw(self, size, pieces=None, seed=1):
        """A raw file; without pieces its first half is data, and some more at its end."""
        self.count += 1
        if pieces is None:
            pieces = [(0, size // 2), (size - MB, MB)]
        return write_raw(self.path("raw-%d" % self.count), size, pieces, seed)

    def disk_of(self, size, pieces=None, seed=1, **more):
        path = self.raw(size, pieces, seed)
        return dict({"size": size, "content": {"file": path}}, **more)

    def add_vm(self, name="web 01", disks=None, power="on", **more):
        if disks is None:
            disks = [self.disk_of(16 * MB)]
        return self.host.add_vm(dict({"name": name, "power": power, "disks": disks}, **more))["vmid"]

    def scribble(self, vm, slot, pieces, seed=None):
        """The guest writes random bytes (seed None: zeros) at (offset, length)."""
        for n, (offset, length) in enumerate(pieces):
            if seed is None:
                self.host.ask("guest-write", vm=vm, slot=slot, offset=offset, length=length,
                              zero=True)
            else:
                self.host.ask("guest-write", vm=vm, slot=slot, offset=offset, length=length,
                              seed=seed * 1000 + n)

    def truth(self, vm, slot="scsi0:0", snapshot="last", name=None):
        """The disk as it was at its last snapshot, as a file."""
        out = self.path(name or "truth")
        if os.path.exists(out):
            os.unlink(out)
        self.host.truth(vm, slot, out, snapshot)
        return out

    # vmferry

    def command(self, *words):
        return [VMFERRY, "--state-dir", self.state, "--known-hosts", self.known_hosts,
                "--password-file", self.host.password_file, *map(str, words)]

    def vmferry(self, *words, code=0, seconds=RUN_SECONDS):
        """Run it; the exit code must be the one given (None: any)."""
        done = subprocess.run(self.command(*words), stdin=subprocess.DEVNULL, capture_output=True,
                              timeout=seconds, check=False)
        result = Result(done.returncode, done.stdout.decode(), done.stderr.decode())
        if code is not None:
            self.assertEqual(result.code, code, str(result))
        return result

    def mirror_words(self, *vms_and_options):
        """Operands are the VMs; what starts at the first option follows the folder."""
        words = [str(w) for w in vms_and_options]
        cut = next((i for i, w in enumerate(words) if w.startswith("--")), len(words))
        where = () if "--data-listen" in words else ("--data-listen", self.data_address)
        return ["mirror", "--json", *self.mirror_options, *where, self.target, *words[:cut],
                self.mirror, *words[cut:]]

    def run_mirror(self, *vms_and_options, code=0):
        result = self.vmferry(*self.mirror_words(*vms_and_options), code=code)
        self.assertIsNotNone(result.summary, str(result))
        self.assertEqual(result.summary["exit_code"], result.code)
        return result

    def start_mirror(self, *vms_and_options):
        running = Running(self.command(*self.mirror_words(*vms_and_options)))
        self.addCleanup(running.signal)
        return running

    def cleanup(self, *options, code=0):
        return self.vmferry("cleanup", "--json", self.target, *options, code=code)

    def list(self, *words, code=0):
        return self.vmferry("list", "--json", "--mirror", self.mirror, *words, code=code).array

    # what a mirror holds

    def image(self, slot="scsi0:0", folder="web 01"):
        return os.path.join(self.mirror, folder, "disk-%s.raw" % slot.replace(":", "-"))

    def assert_same(self, path, truth, message=""):
        self.assertEqual(os.path.getsize(path), os.path.getsize(truth), message)
        if same_bytes(path, truth):
            return
        with open(path, "rb") as a, open(truth, "rb") as b:
            at = 0
            while True:
                x, y = a.read(BLOCK), b.read(BLOCK)
                if x != y:
                    self.fail("%s differs from %s in the block at byte %d %s" % (
                        path, truth, at, message))
                at += BLOCK

    def assert_image(self, vm="web 01", slot="scsi0:0", folder=None, snapshot="last", message=""):
        """The image is what the disk held at its last snapshot."""
        folder = folder or (vm if isinstance(vm, str) else "web 01")
        self.assert_same(self.image(slot, folder), self.truth(vm, slot, snapshot), message)

    def assert_checked(self, *words):
        """Every byte of the mirror agrees with its digests."""
        self.vmferry("check", "--json", "--mirror", self.mirror, "--read-data", *words)


def main():
    """Run the tests; groups (classes) may be named: CTest has one entry for each file."""
    if os.geteuid() != 0:
        print("needs root: the look-alike does")
        sys.exit(77)
    unittest.main(verbosity=2)
