#!/usr/bin/env python3
"""Every file of a repository and of its cache removed, emptied, cut, garbled, and exchanged with
another, in turn: what matters is missed, by exit code 5 or another that is not 0, and never does a
restore with exit code 0 bring anything but what was stored; what does not matter (the reserve, the
locks, the cache) harms nobody.

unit.repo_damage does the same to objects in memory, and flips every byte; here whole commands meet
files, caches and lock files.

    repo_objects.py [--few] [--seed N]
"""

import collections
import os
import shutil

import tool
from repo_faults import KB, MB, RepoFaults, Store, harness

HARMLESS = ("reserve", "locks/")
# `keys/`: somebody may have removed a slot, as long as there is another one that opens it.
OPTIONAL = ("partial/", "verified/", "epoch/", "tags/", "retired/", "pins/", "keys/")


class Objects(RepoFaults, harness.LocalTest):
    few = False

    def setUp(self):
        harness.LocalTest.setUp(self)
        self.begin()
        self.found = collections.Counter()

    def tearDown(self):
        for (kind, how, what), count in sorted(self.found.items()):
            print("    %4d  %s %s: %s" % (count, kind, how, what))

    def make(self, sealed):
        name = "sealed" if sealed else "plain"
        phrase = self.secret("phrase", "a phrase")
        store = Store(self.path(name), ("--repo-password-file", phrase) if sealed else ())
        self.vmferry("init", "--repo", store.path, "--block-size", "16k",
                     *(("--encrypt", "--repo-password-file", phrase) if sealed else ()))
        if sealed:
            self.on(store, "key", "export", self.path("key"))
            store.keys = ("--key-file", self.path("key"))
        a, b = self.disk("a", MB, pieces=[(0, MB // 2)]), self.disk("b", MB, 2, [(0, MB // 4)])
        for n in range(3):
            harness.change(a, [(n * 64 * KB, 40 * KB)], n)
            for vm, images in (("web", (a, b)), ("db", (b,))):
                self.on(store, "backup", "--tag", "t%d" % n, *[
                    w for i in images for w in ("--file", "%s=%s" % (vm, i))])
                store.truths[vm][n + 1] = self.keep(images)
        # A number that was retired, a pin, an epoch, and what check has read.
        self.on(store, "forget", "db@3")
        self.drop(store.truths["db"].pop(3))
        self.on(store, "forget", "web@1")
        self.drop(store.truths["web"].pop(1))
        self.on(store, "forget", "web@2", "--pin")
        self.on(store, "prune")
        self.on(store, "check", "--read-data")
        return store

    def files(self, top):
        return sorted(os.path.relpath(os.path.join(d, n), top)
                      for d, _, names in os.walk(top) for n in names)

    # what somebody does to a file

    def ways(self, path, others):
        size = os.path.getsize(path)
        yield "removed", lambda: os.unlink(path)
        if size > 0:
            for cut in sorted({0, size // 2, size - 1}):
                yield "cut", lambda cut=cut: self.write(path, self.read(path)[:cut])
            yield "garbled", lambda: self.write(path, self.garbled(path))
        yield "longer", lambda: self.write(path, self.read(path) + b"x")
        for other in others:
            yield "exchanged", lambda other=other: self.exchange(path, other)

    @staticmethod
    def read(path):
        with open(path, "rb") as f:
            return f.read()

    @staticmethod
    def write(path, data):
        os.unlink(path)
        with open(path, "wb") as f:
            f.write(data)

    def garbled(self, path):
        data = bytearray(self.read(path))
        for _ in range(1 + len(data) // 1000):
            data[self.rng.randrange(len(data))] ^= 1 << self.rng.randrange(8)
        return bytes(data)

    @staticmethod
    def exchange(a, b):
        os.rename(a, a + ".x")
        os.rename(b, a)
        os.rename(a + ".x", b)

    # what then is seen

    def look(self, store, message, machine=0):
        """Restore everything: what comes back with exit code 0 is right.  True: all of it came, and
        check is content."""
        r = self.on(store, "check", "--read-data", code=None, machine=machine)
        self.assertGreaterEqual(r.code, 0, "%s: %s" % (message, r))
        whole = r.code == 0
        listed = self.on(store, "list", code=None, machine=machine)
        self.assertGreaterEqual(listed.code, 0, "%s: %s" % (message, listed))
        whole = whole and listed.code == 0
        for vm, numbers in store.truths.items():
            for number, truths in numbers.items():
                out = self.path("out")
                r = self.on(store, "restore", "%s@%d" % (vm, number), "--output", out, code=None,
                            machine=machine)
                self.assertGreaterEqual(r.code, 0, "%s: %s" % (message, r))
                if r.code != 0:
                    self.assertFalse(os.path.exists(out), message)
                    whole = False
                    continue
                images = sorted(n for n in os.listdir(out) if n.endswith(".raw"))
                same = len(images) == len(truths) and all(
                    harness.same_bytes(os.path.join(out, i), t) for i, t in zip(images, truths))
                self.assertTrue(same, "%s: %s@%d is restored wrong" % (message, vm, number))
                shutil.rmtree(out)
        return whole

    def spoil_all(self, store):
        good, names = self.path("good"), self.files(store.path)
        shutil.copytree(store.path, good)
        for number, name in enumerate(names):
            if self.few and number % 12 != self.seed % 12:
                continue
            kind = name.split("/")[0]
            like = [n for n in names if n.split("/")[0] == kind and n != name]
            others = self.rng.sample(like, min(2, len(like))) + [self.rng.choice(names)]
            for how, do in self.ways(os.path.join(store.path, name), [
                    os.path.join(store.path, n) for n in others if n != name]):
                if self.few and how == "exchanged" and number % 3:
                    continue
                do()
                message = "seed %d: %s %s" % (self.seed, name, how)
                whole = self.look(store, message)
                self.found[(kind, how, "nothing is wrong" if whole else "seen")] += 1
                if how != "exchanged" and not whole:
                    self.assertFalse(name.startswith(HARMLESS), message + " matters")
                if whole and how != "exchanged":
                    self.assertTrue(name.startswith(HARMLESS + OPTIONAL),
                                    message + ": nobody sees it")
                    self.assertTrue(how == "removed" or name.startswith(HARMLESS),
                                    message + ": nobody sees it")
                shutil.rmtree(store.path)
                shutil.copytree(good, store.path)
        self.assertTrue(self.look(store, "as it was"))

    def test_plain(self):
        self.spoil_all(self.make(False))

    def test_sealed(self):
        self.spoil_all(self.make(True))

    def test_stranger(self):
        """What is none of ours is told of and left alone."""
        store = self.make(False)
        for name in ("notes.txt", "packs/00/readme", "index/backup"):
            path = os.path.join(store.path, name)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "w", encoding="ascii") as f:
                f.write("mine\n")
            r = self.on(store, "check")
            self.assertIn(name, r.err)
            self.on(store, "prune")
            self.assertEqual(self.read(path), b"mine\n")

    def test_cache(self):
        """Whatever is in the state directory, commands find their way or say what is wrong; what
        they say goes away with the cache."""
        store = self.make(False)
        state, good = self.machines[0], self.path("good-state")
        self.assertTrue(any(n.endswith(".run") for n in self.files(state)), self.files(state))
        shutil.copytree(state, good)
        cached = [n for n in self.files(state) if n.startswith("repo-")]
        for name in cached:
            others = [n for n in cached if n != name]
            for how, do in self.ways(os.path.join(state, name), [
                    os.path.join(state, n) for n in others]):
                do()
                message = "seed %d: cache: %s %s" % (self.seed, name, how)
                # The first command may stumble over it; it may not believe it.
                first = self.on(store, "list", code=None).code
                for vm in store.truths:
                    out = self.path("out")
                    r = self.on(store, "restore", vm + "@latest", "--output", out, code=None)
                    self.assertIn(r.code, (0, 5), "%s: %s" % (message, r))
                    if r.code == 0:
                        shutil.rmtree(out)
                self.assertEqual(first, 0, message)
                self.assertTrue(self.look(store, message), message)
                self.found[("cache", how, "nothing is wrong")] += 1
                shutil.rmtree(state)
                shutil.copytree(good, state)


if __name__ == "__main__":
    tool.main(Objects, __doc__, few=(False, "one file in twelve"))
