"""What the bad-input tests share: one look-alike for a class of tests, vmferry as a user runs it.

Each class has a host, a state folder and a listening address of its own, so that the groups may run
beside each other.  `run` starts the real program; after every test the host must be clean.
"""

import hashlib
import json
import os
import re
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

from lookalike import Lookalike, find_programs  # noqa: E402

MB = 1 << 20
RUN_LIMIT_S = 120       # no run here may take as long
JOBS = int(os.environ.get("BADINPUT_JOBS", "3"))

# The exit codes of the manual.
OK, OTHER, USAGE, PARTIAL, SOURCE, INTEGRITY, BUSY, AUTH, SPACE, CLEANUP, UNSUPPORTED, REFUSED, \
    NETWORK = range(13)


def program():
    return os.environ.get("VMFERRY") or os.path.join(find_programs(), "vmferry")


class Result:
    """How a run ended."""

    def __init__(self, argv, code, out, err, seconds):
        self.argv, self.code, self.seconds = argv, code, seconds
        self.raw_out, self.raw_err = out, err
        self.out = out.decode("utf-8", "replace")
        self.err = err.decode("utf-8", "replace")

    def lines(self):
        """Standard output as JSON lines; raises when anything else stands there."""
        return [json.loads(line) for line in self.out.splitlines()]

    def summary(self):
        last = self.lines()[-1]
        assert last["type"] == "summary", last
        return last

    def __str__(self):
        return "%s\nexit %d after %.1f s\n-- stdout\n%s\n-- stderr\n%s" % (
            " ".join(self.argv), self.code, self.seconds, self.out[-6000:], self.err[-6000:])


class Running:
    """A run under way: its JSON lines can be waited for."""

    def __init__(self, argv, env, preexec):
        self.argv = argv
        self.began = time.monotonic()
        self.process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE, env=env, preexec_fn=preexec,
                                        start_new_session=True)
        self.out, self.err = [], []
        self.changed = threading.Condition()
        self.threads = [threading.Thread(target=self._drain, args=(f, to), daemon=True)
                        for f, to in ((self.process.stdout, self.out),
                                      (self.process.stderr, self.err))]
        for t in self.threads:
            t.start()

    def _drain(self, stream, to):
        for line in stream:
            with self.changed:
                to.append(line)
                self.changed.notify_all()
        stream.close()
        with self.changed:
            self.changed.notify_all()

    def wait_line(self, text, seconds=40):
        """Until a line of either stream holds the text."""
        want = text.encode()
        deadline = time.monotonic() + seconds
        with self.changed:
            while not any(want in line for line in self.out + self.err):
                if self.process.poll() is not None and not any(t.is_alive() for t in self.threads):
                    raise AssertionError("it ended without %r:\n%s" % (text, self.finish()))
                if time.monotonic() > deadline:
                    raise AssertionError("no %r within %d s:\n%s\n%s" % (
                        text, seconds, b"".join(self.out), b"".join(self.err)))
                self.changed.wait(0.2)

    def signal(self, number):
        self.process.send_signal(number)

    def finish(self, seconds=RUN_LIMIT_S):
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError("it does not end:\n%s\n%s" % (
                b"".join(self.out).decode(errors="replace"),
                b"".join(self.err).decode(errors="replace"))) from None
        for t in self.threads:
            t.join(10)
        return Result(self.argv, self.process.returncode, b"".join(self.out), b"".join(self.err),
                      time.monotonic() - self.began)


def file_hash(path):
    h = hashlib.sha256()
    with open(path, "rb") as f:
        for part in iter(lambda: f.read(MB), b""):
            h.update(part)
    return h.hexdigest()


def names_below(folder):
    """Every path below, relative; sorted."""
    return sorted(os.path.relpath(os.path.join(at, n), folder)
                  for at, dirs, files in os.walk(folder) for n in dirs + files)


class Case(unittest.TestCase):
    profile = "6.7"
    knobs = {}
    datastores = None
    disks = [{"size": "12m", "content": {"seed": 3, "share": 0.5}},
             {"size": "3m", "content": {"seed": 4, "share": 0.5}}]
    maxDiff = None

    # life

    @classmethod
    def setUpClass(cls):
        cls.work = tempfile.mkdtemp(prefix="badinput-")
        cls.state = os.path.join(cls.work, "state")
        cls.host = Lookalike.start(profile=cls.profile, knobs=cls.knobs, datastores=cls.datastores)
        cls.address = "127.%d.%d.%d" % (64 + os.getpid() // 62500 % 64, os.getpid() // 250 % 250,
                                        1 + os.getpid() % 250)
        cls.count = 0
        try:
            cls.prepare()
        except BaseException:
            cls.tearDownClass()
            raise

    @classmethod
    def prepare(cls):
        """What a class needs once."""

    @classmethod
    def tearDownClass(cls):
        defects = cls.host.defects()
        cls.host.stop()
        shutil.rmtree(cls.work)
        assert not defects, defects

    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="t-", dir=self.work)

    def tearDown(self):
        self.assert_clean()

    # the host

    def vm(self, **spec):
        """A VM that goes away with the test; its name."""
        type(self).count += 1
        spec.setdefault("name", "vm%d" % self.count)
        spec.setdefault("power", "on")
        spec.setdefault("disks", self.disks)
        made = self.host.add_vm(spec)
        self.addCleanup(self.drop, made["vmid"])
        return spec["name"]

    def drop(self, vmid):
        for v in self.host.state()["vms"]:
            if v["vmid"] == vmid:
                if v["power"] == "on":
                    self.host.power(vmid, "off")
                self.host.ask("vm-remove", vm=vmid)

    def turn(self, name, value):
        old = self.host.ask("knobs")[name]
        self.host.knob(name, value)
        self.addCleanup(self.host.knob, name, old)

    def write(self, vm, slot="scsi0:0", offset=MB, length=512 << 10, seed=None):
        """The guest changes something."""
        type(self).count += 1
        self.host.ask("guest-write", vm=vm, slot=slot, offset=offset, length=length,
                      seed=1000 + self.count if seed is None else seed)

    # vmferry

    def place(self, port=None):
        return "%s:%d" % (self.host.address, port or self.host.port)

    def argv(self, command, *words, login=True, own_data=True, state=None, json_lines=False):
        out = [program(), "--state-dir", state or self.state]
        if login:
            out += ["--known-hosts", self.host.known_hosts, "--password-file",
                    self.host.password_file]
        if json_lines:
            out.append("--json")
        if own_data and command == "mirror":
            out += ["--data-listen", self.address]
        if command == "mirror" and "--min-free" not in words:
            out += ["--min-free", "1G"]
        return out + [command, *words]

    def start(self, command, *words, env=None, preexec=None, **how):
        return Running(self.argv(command, *words, **how), env, preexec)

    def run_it(self, command, *words, expect=None, says=(), **how):
        """Run to the end; check the exit code and what the messages name."""
        result = self.start(command, *words, **how).finish()
        if expect is not None:
            self.assert_code(result, expect)
        self.assert_says(result, *says)
        return result

    def mirror(self, vm, folder, *options, **how):
        return self.run_it("mirror", *options, self.place(), vm, folder, **how)

    def good_mirror(self, vm, folder, *options):
        return self.mirror(vm, folder, *options, expect=OK)

    # what must hold

    def assert_code(self, result, code):
        self.assertEqual(result.code, code, "expected exit %d\n%s" % (code, result))
        self.assertNotIn("Sanitizer", result.err, str(result))

    def assert_says(self, result, *texts):
        """Each text (a regular expression) stands on standard error."""
        for text in texts:
            self.assertRegex(result.err, re.compile(text, re.I | re.S), str(result))

    def journal(self, state=None):
        folder = os.path.join(state or self.state, "journal")
        if not os.path.isdir(folder):
            return []
        return sorted(n for n in os.listdir(folder) if not n.endswith(".lock"))

    def ours_running(self):
        """Processes here that work for this class."""
        found = []
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open("/proc/%s/cmdline" % pid, "rb") as f:
                    words = f.read().split(b"\0")
            except OSError:
                continue
            if words[0] == program().encode() and os.fsencode(self.state) in words:
                found.append(words)
        return found

    def assert_clean(self, journal=()):
        """No file, process, snapshot of ours on the host; nothing open in the journal."""
        self.assertEqual(self.host.leftovers(), {"files": [], "processes": [], "snapshots": []})
        self.assertEqual(self.journal(), list(journal))
        self.assertEqual(self.ours_running(), [])
        for v in self.host.state()["vms"]:
            self.assertFalse(v.get("consolidation_needed"), v)

    def forget_intentions(self):
        """Intentions whose snapshot never came stay open for half an hour: as if it had gone by."""
        self.run_it("cleanup", self.place(), expect=OK)
        for name in self.journal():
            path = os.path.join(self.state, "journal", name)
            with open(path, encoding="utf-8", errors="replace") as f:
                self.assertIn("intent", f.read(), "an entry that is more than an intention")
            os.unlink(path)

    def assert_cleaned_by_cleanup(self):
        """Something is left and the journal says so; `cleanup` takes it away."""
        self.assertNotEqual(self.journal(), [], "something was left, and the journal is empty")
        self.run_it("cleanup", self.place(), expect=OK)
        self.assert_clean()

    def check(self, folder, expect=OK):
        return self.run_it("check", "--mirror", folder, "--read-data", expect=expect, login=False)

    def vm_folder(self, folder):
        """The only VM's folder below."""
        names = [n for n in os.listdir(folder) if not n.startswith(".")]
        self.assertEqual(len(names), 1, names)
        return os.path.join(folder, names[0])

    def content(self, folder):
        """What a user of a mirror sees, by hash, and the manifests."""
        out = {}
        for name in names_below(folder):
            path = os.path.join(folder, name)
            keep = ".vmferry" not in name or "/generation-" in name
            if os.path.isfile(path) and keep:
                out[name] = file_hash(path)
        return out

    def assert_untouched(self, folder, before):
        """A failed refresh left images, configuration and generations as they were."""
        self.assertEqual(self.content(folder), before)
        self.check(folder)

    def assert_nothing_published(self, folder):
        """A failed first mirror left nothing that looks like a mirror."""
        if os.path.isdir(folder):
            self.assertEqual([n for n in os.listdir(folder) if not n.startswith(".")], [])

    def assert_true_image(self, vm, folder, slot="scsi0:0"):
        """The image is what the disk held at the last snapshot."""
        truth = os.path.join(self.folder, "truth.raw")
        self.host.truth(vm, slot, truth, snapshot="last")
        image = os.path.join(self.vm_folder(folder), "disk-%s.raw" % slot.replace(":", "-"))
        self.assertEqual(file_hash(image), file_hash(truth))

    def newest(self, folder):
        """The number of the newest generation, by `list`."""
        rows = self.run_it("list", "--mirror", folder, login=False, json_lines=True,
                           expect=OK).lines()[0]
        return max(r["generation"] for r in rows) if rows else 0


class MirrorCase(Case):
    """With one VM and one mirror of it that the tests of a class refresh in turn."""
    name = "web 01"

    @classmethod
    def prepare(cls):
        cls.host.add_vm({"name": cls.name, "power": "on", "disks": cls.disks})
        cls.dir = os.path.join(cls.work, "mirrors")
        first = cls("run_it")
        first.folder = cls.work
        first.good_mirror(cls.name, cls.dir)

    def setUp(self):
        super().setUp()
        self.write(self.name)
        self.before = self.content(self.dir)

    def refresh(self, *options, **how):
        return self.mirror(self.name, self.dir, *options, **how)

    def refresh_fails(self, code, *says, options=(), **how):
        """A refresh that ends with the code and leaves host and mirror as they were."""
        result = self.refresh(*options, expect=code, says=says, **how)
        self.assert_clean()
        self.assert_untouched(self.dir, self.before)
        return result

    def kill_when_committed(self, changing=False):
        """Kill -9 a refresh behind its commit, or when its images have begun to change."""
        folder = self.vm_folder(self.dir)
        commit = os.path.join(folder, ".vmferry/commit")
        flag = os.path.join(folder, "REFRESH-INTERRUPTED")
        image = os.path.join(folder, "disk-scsi0-0.raw")
        old = os.stat(image).st_mtime_ns
        run = self.start("mirror", "--json", self.place(), self.name, self.dir)
        while run.process.poll() is None and not (
                os.path.exists(commit) and (not changing or os.stat(image).st_mtime_ns != old)):
            time.sleep(0.0005)
        run.signal(signal.SIGKILL)
        result = run.finish()
        self.assertTrue(os.path.exists(flag) and os.path.exists(commit), "too late\n%s" % result)
        return flag

    def refresh_works(self, *options):
        """The next run makes the next generation."""
        self.good_mirror(self.name, self.dir, *options)
        self.assert_true_image(self.name, self.dir)
        self.check(self.dir)


def run_apart(names):
    """Each class in a process of its own, a few at once: most of their time is waiting."""
    waiting, running, failed = list(names), {}, False
    try:
        while waiting or running:
            while waiting and len(running) < JOBS:
                name = waiting.pop(0)
                log = tempfile.TemporaryFile()
                running[subprocess.Popen([sys.executable, sys.argv[0], name], stdout=log,
                                         stderr=log)] = name, log
            for p in [p for p in running if p.poll() is not None]:
                name, log = running.pop(p)
                log.seek(0)
                print("==== %s: %d" % (name, p.returncode), flush=True)
                sys.stdout.buffer.write(log.read())
                sys.stdout.flush()
                failed = failed or p.returncode != 0
            time.sleep(0.05)
    finally:
        for p in running:
            p.terminate()
        for p in running:
            p.wait()
    return 1 if failed else 0


def main():
    """All classes of the script, or those that are named."""
    if os.getuid() != 0:
        sys.exit("the look-alike needs root")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))     # so that hosts are stopped
    if len(sys.argv) > 1:
        unittest.main(verbosity=2)
    module = sys.modules["__main__"]
    sys.exit(run_apart([n for n, c in vars(module).items() if isinstance(c, type) and
                        issubclass(c, Case) and c.__module__ == "__main__" and
                        unittest.defaultTestLoader.getTestCaseNames(c)]))
