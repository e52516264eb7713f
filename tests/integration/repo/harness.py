"""What the tests of whole repository runs share.  The look-alike, running vmferry, and comparing
with the truth are the mirror tests' (../mirror/harness.py).
"""

import importlib.util
import os
import random
import shutil
import subprocess
import tempfile
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))


def load(name, path):
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


mirror = load("mirror_harness", os.path.join(HERE, "..", "mirror", "harness.py"))
MB = mirror.MB
KB = 1 << 10
BLOCK = 128 * KB        # of a repository
VMFERRY = mirror.VMFERRY
Result = mirror.Result
Running = mirror.Running
main = mirror.main
same_bytes = mirror.same_bytes
write_raw = mirror.write_raw


def change(path, pieces, seed):
    r = random.Random(seed)
    with open(path, "r+b") as f:
        for offset, length in pieces:
            f.seek(offset)
            f.write(r.randbytes(length))


def mount(*words):
    subprocess.run(["mount", *words], check=True, capture_output=True)


class RepoCalls:
    """Commands on the repository self.repo; needs self.vmferry and self.path."""

    keys = ()

    def secret(self, name, text):
        path = self.path(name)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w",
                  encoding="ascii") as f:
            f.write(text + "\n")
        return path

    def init(self, *options, code=0):
        return self.vmferry("init", "--json", "--repo", self.repo, *options, code=code)

    def on_repo(self, command, *words, code=0):
        return self.vmferry(command, "--json", "--repo", self.repo, *self.keys, *words, code=code)

    def store(self, *files, code=0):
        """NAME=DISK each; other words are options."""
        words = [w for f in files for w in (("--file", f) if "=" in f and f[0] != "-" else (f,))]
        return self.on_repo("backup", *words, code=code)

    def restore(self, gen, *options, code=0):
        self.outs = getattr(self, "outs", 0) + 1
        out = self.path("out-%d" % self.outs)
        result = self.on_repo("restore", gen, "--output", out, *options, code=code)
        if code != 0:
            self.assertFalse(os.path.exists(out), str(result))
        return out

    def assert_restores(self, gen, *truths):
        """The disks of a generation, in order, are these files."""
        out = self.restore(gen)
        images = sorted(n for n in os.listdir(out) if n.endswith(".raw"))
        self.assertEqual(len(images), len(truths))
        for image, truth in zip(images, truths):
            self.assertTrue(same_bytes(os.path.join(out, image), truth), "%s: %s" % (gen, image))
        shutil.rmtree(out)

    def generations(self, *words):
        return self.on_repo("list", *words).array

    def packs(self):
        found = []
        for folder, _, files in os.walk(os.path.join(self.repo, "packs")):
            found += [os.path.join(folder, f) for f in files]
        return sorted(found)

    def check(self, *words, code=0):
        return self.on_repo("check", *words, code=code)


class LocalTest(unittest.TestCase, RepoCalls):
    """Local images: no host is needed."""

    def setUp(self):
        self.work = tempfile.mkdtemp(prefix="vmferry-repo-")
        self.addCleanup(shutil.rmtree, self.work)
        self.state = os.path.join(self.work, "state")
        self.repo = os.path.join(self.work, "repo")

    def path(self, name):
        return os.path.join(self.work, name)

    def command(self, *words):
        return [VMFERRY, "--state-dir", self.state, *map(str, words)]

    def vmferry(self, *words, code=0, seconds=120):
        done = subprocess.run(self.command(*words), stdin=subprocess.DEVNULL, capture_output=True,
                              timeout=seconds, check=False, start_new_session=True)
        result = Result(done.returncode, done.stdout.decode(), done.stderr.decode())
        if code is not None:
            self.assertEqual(result.code, code, str(result))
        return result

    def disk(self, name="disk", size=24 * MB, seed=1, pieces=None):
        pieces = pieces if pieces is not None else [(0, 6 * MB), (10 * MB + 5000, 3 * MB)]
        return write_raw(self.path(name), size, pieces, seed)

    def small(self, size, name="small"):
        """A tmpfs of its own."""
        place = self.path(name)
        os.mkdir(place)
        mount("-t", "tmpfs", "-o", "size=%d" % size, "tmpfs", place)
        self.addCleanup(subprocess.run, ["umount", "-l", place], check=True)
        return place


class HostTest(mirror.MirrorTest, RepoCalls):
    """VMs of the look-alike."""

    def setUp(self):
        super().setUp()
        self.repo = os.path.join(self.work, "repo")
        self.init()

    def backup_words(self, *vms_and_options):
        words = [str(w) for w in vms_and_options]
        cut = next((i for i, w in enumerate(words) if w.startswith("--")), len(words))
        return ["backup", "--json", *self.mirror_options, "--data-listen", self.data_address,
                self.target, *words[:cut], "--repo", self.repo, *words[cut:]]

    def backup(self, *vms_and_options, code=0):
        result = self.vmferry(*self.backup_words(*vms_and_options), code=code)
        self.assertEqual(result.summary["exit_code"], result.code)
        return result

    def start_backup(self, *vms_and_options):
        running = Running(self.command(*self.backup_words(*vms_and_options)))
        self.addCleanup(running.signal)
        return running

    def assert_generation(self, gen, vm="web 01", slots=("scsi0:0",)):
        self.assert_restores(gen, *[shutil.copy(self.truth(vm, slot), self.path("t-" + slot))
                                    for slot in slots])
