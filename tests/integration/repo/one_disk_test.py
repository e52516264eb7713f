#!/usr/bin/env python3
"""One disk of a generation to standard output, of a repository and of a mirror."""

import hashlib
import os
import pty
import shutil
import subprocess

import harness
from harness import KB, MB, HostTest, LocalTest, same_bytes

SECTOR = 512


class Stream:
    """Restores to standard output; needs self.command and self.path."""

    def to_file(self, *words, mode="wb", name="stdout", code=0):
        out = self.path(name)
        with open(out, mode) as f:
            done = subprocess.run(self.command("restore", *words, "--output", "-"), stdout=f,
                                  stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False,
                                  timeout=120)
        self.said = done.stderr.decode()
        self.assertEqual(done.returncode, code, self.said)
        return out

    def to_pipe(self, *words, code=0):
        done = subprocess.run(self.command("restore", *words, "--output", "-"), check=False,
                              stdin=subprocess.DEVNULL, capture_output=True, timeout=120)
        self.said = done.stderr.decode()
        self.assertEqual(done.returncode, code, self.said)
        return done.stdout


class OfRepository(LocalTest, Stream):
    def setUp(self):
        super().setUp()
        self.init()
        # Data at both ends, holes between, and an end that is no whole block.
        self.a = self.disk("a", 40 * MB + SECTOR, pieces=[(0, 3 * MB), (20 * MB + 5000, MB),
                                                          (40 * MB, SECTOR)])
        self.b = self.disk("b", 5 * MB, 2, [(MB, MB)])
        self.was = shutil.copy(self.a, self.path("was"))
        self.store("web=" + self.a)
        harness.change(self.a, [(10 * MB, 4096)], 5)
        self.store("web=" + self.a)
        self.store("two=" + self.a, "two=" + self.b)

    def repo_words(self, gen, *words):
        return (gen, "--repo", self.repo, *words)

    def test_content(self):
        for gen, truth, words in (("web@1", self.was, ()), ("web@2", self.a, ()),
                                  ("two@1", self.b, ("--only-disk", "scsi0:1")),
                                  ("two@1", self.a, ("--only-disk", "scsi0:0", "--progress"))):
            with open(truth, "rb") as f:
                self.assertEqual(self.to_pipe(*self.repo_words(gen, *words)), f.read(), gen)
            out = self.to_file(*self.repo_words(gen, *words))
            self.assertTrue(same_bytes(out, truth))
            # Holes stay holes.
            self.assertLessEqual(os.stat(out).st_blocks * 512, 7 * MB)
        # Something that is in the file already, or behind it, keeps its place.
        with open(self.path("stdout"), "wb") as f:
            f.write(b"before")
        out = self.to_file(*self.repo_words("web@1"), mode="ab")
        with open(out, "rb") as f, open(self.was, "rb") as truth:
            self.assertEqual(f.read(), b"before" + truth.read())
        with open(self.path("stdout"), "wb") as f:
            f.write(b"\xff" * (50 * MB))
        out = self.to_file(*self.repo_words("web@1"), mode="r+b")
        with open(out, "rb") as f, open(self.was, "rb") as truth:
            self.assertTrue(f.read() == truth.read() + b"\xff" * (10 * MB - SECTOR))

    def test_refusals(self):
        self.assertEqual(self.to_pipe(*self.repo_words("two@1"), code=2), b"")
        self.assertIn("--only-disk", self.said)
        self.to_pipe(*self.repo_words("two@1", "--only-disk", "scsi3:0"), code=2)
        self.to_pipe(*self.repo_words("two@1", "--only-disk", "scsi0:0", "--only-disk", "scsi0:1"),
                     code=2)
        self.to_pipe(*self.repo_words("web@1", "--force-device"), code=2)
        self.to_pipe(*self.repo_words("web@9"), code=2)
        self.to_pipe(*self.repo_words("web@1", "--json"), code=2)
        self.on_repo("restore", "web@1", "--output", self.path("x"), "--force-device", code=2)
        self.assertFalse(os.path.exists(self.path("x")))

        self.refuse_terminal()

    def refuse_terminal(self):
        ours, theirs = pty.openpty()
        done = subprocess.run(self.command("restore", *self.repo_words("web@1"), "--output", "-"),
                              stdin=subprocess.DEVNULL, stdout=theirs, stderr=subprocess.PIPE,
                              check=False, timeout=60)
        os.close(theirs)
        os.set_blocking(ours, False)
        try:
            seen = os.read(ours, 100)
        except OSError:
            seen = b""
        os.close(ours)
        self.assertEqual((done.returncode, seen), (11, b""), done.stderr)
        self.assertIn(b"terminal", done.stderr)

    def test_target_that_fails(self):
        """A pipe whose reader goes away is a failure, and no signal; a full target is 8."""
        restore = subprocess.Popen(self.command("restore", *self.repo_words("web@1"), "--output",
                                                "-"), stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE, stdin=subprocess.DEVNULL)
        restore.stdout.read(MB)
        restore.stdout.close()
        said = restore.stderr.read()
        restore.stderr.close()
        self.assertEqual(restore.wait(60), 1, said)
        self.assertIn(b"a part of the disk only", said)
        with open("/dev/full", "wb") as f:
            done = subprocess.run(self.command("restore", *self.repo_words("web@1"), "--output",
                                               "-"), stdout=f, stderr=subprocess.PIPE, check=False,
                                  stdin=subprocess.DEVNULL, timeout=60)
        self.assertEqual(done.returncode, 8, done.stderr)

    def test_damage(self):
        """What came before the damage is right, and the exit code says that it is not all."""
        with open(self.was, "rb") as f:
            truth = f.read()
        pack = max(self.packs(), key=os.path.getsize)
        with open(pack, "r+b") as f:
            f.seek(2 * MB)
            byte = f.read(1)
            f.seek(2 * MB)
            f.write(bytes([byte[0] ^ 1]))
        got = self.to_pipe(*self.repo_words("web@1"), code=5)
        self.assertLess(len(got), len(truth))
        self.assertEqual(got, truth[:len(got)])
        self.assertIn("scsi0:0", self.said)


class OfMirror(HostTest, Stream):
    profile = "6.7"

    @staticmethod
    def hash_of(path):
        with open(path, "rb") as f:
            return hashlib.sha256(f.read()).digest()

    def test_generations_of_a_mirror(self):
        self.add_vm(disks=[self.disk_of(16 * MB, [(0, 2 * MB), (9 * MB, 64 * KB)]),
                           self.disk_of(4 * MB, [(MB, MB)], seed=2)])
        self.run_mirror("web 01", "--keep", "2")
        truths = {1: self.hash_of(self.truth("web 01", name="t1"))}
        self.scribble("web 01", "scsi0:0", [(3 * MB, 4096), (0, 65536)], seed=4)
        self.run_mirror("web 01")
        truths[2] = self.hash_of(self.truth("web 01", name="t2"))
        for n, truth in truths.items():
            words = ("%d" % n, "--mirror", self.mirror, "--only-disk", "scsi0:0")
            self.assertEqual(hashlib.sha256(self.to_pipe(*words)).digest(), truth)
            self.assertEqual(self.hash_of(self.to_file(*words)), truth)
            self.assertLess(os.stat(self.path("stdout")).st_blocks * 512, 4 * MB)
        self.to_pipe("2", "--mirror", self.mirror, code=2)
        self.assertIn("--only-disk", self.said)
        self.to_pipe("2", "--mirror", self.mirror, "--only-disk", "scsi0:7", code=2)


if __name__ == "__main__":
    harness.main()
