#!/usr/bin/env python3
"""A repository on a disk that is full, that fails, that cannot be written, or that is gone.

Every command that writes runs with 16 budgets of room between none and enough; with EIO at each of
its fsyncs, renames and unlinks; killed at each of them; on a read-only file system; and on a place
where the repository no longer is.  After each: the documented exit code, a clean check, everything
that was acknowledged restores; and with room the same command succeeds.

    repo_space.py [--few] [--seed N]
"""

import collections
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
import unittest

import tool
from repo_faults import KB, MB, RepoFaults, Store, harness

BUDGETS = 16
MOST = 400              # no command here makes so many calls of one kind
PAGE = 4 * KB

# name: (calls, what is injected, at the nth; exit codes besides 0)
CALLS = {
    "EIO at fsync": ("fsync", "error=EIO:when={}", (1, 3)),
    "EIO at rename": ("renameat,renameat2", "error=EIO:when={}", (1, 3)),
    "EIO at unlink": ("unlinkat", "error=EIO:when={}", (1, 3)),
    "EIO from write": ("write,pwrite64", "error=EIO:when={}+", (1, 3)),
    "killed at fsync": ("fsync", "signal=SIGKILL:when={}", (-signal.SIGKILL,)),
    "killed at rename": ("renameat,renameat2", "signal=SIGKILL:when={}", (-signal.SIGKILL,)),
    "killed at unlink": ("unlinkat", "signal=SIGKILL:when={}", (-signal.SIGKILL,)),
}
FEW_CALLS = {"EIO at fsync": (1, 2, 4), "EIO at rename": (2,), "killed at unlink": (1,)}
FEW_OPS = ("backup", "forget-newest", "prune", "key-change")


class Op:
    """A command on the prepared repository: its words, and what it does to the model."""

    def __init__(self, *words, store="plain", gone=(), new=None, where="repo"):
        self.words, self.store, self.gone, self.new, self.where = words, store, gone, new, where


class Space(RepoFaults, harness.LocalTest):
    few = False

    made = None             # what prepare made, once for all tests

    def setUp(self):
        harness.LocalTest.setUp(self)
        self.begin()
        self.codes = collections.Counter()
        if Space.made is None:
            self.prepare()
            Space.made = self.__dict__.copy()
        for name in ("one", "two", "key", "a", "b", "bases", "phrase_slot", "ops", "good_state"):
            setattr(self, name, Space.made[name])

    def tearDown(self):
        for (what, op, code), count in sorted(self.codes.items()):
            print("    %4d  %s: %s: exit %d" % (count, what, op, code))

    # the repositories that each case begins with

    def prepare(self):
        """In a folder that outlives the test."""
        was, self.work = self.work, tempfile.mkdtemp(prefix="vmferry-space-")
        unittest.addModuleCleanup(shutil.rmtree, self.work)
        machine, self.machines[0] = self.machines[0], self.path("state")
        self.one, self.two = self.secret("one", "first phrase"), self.secret("two", "second")
        self.a = self.disk("a", 4 * MB, pieces=[(0, 2 * MB)])
        self.b = self.disk("b", 2 * MB, 2, [(0, MB)])
        self.bases = {}
        self.key = self.path("key")
        for name, options in (("plain", ()), ("sealed", ("--encrypt",
                                                         "--repo-password-file", self.one))):
            path = self.path(name)
            self.vmferry("init", "--repo", path, "--block-size", "16k", *options)
            store = Store(path, ("--repo-password-file", self.one) if options else ())
            if options:
                # Cheap to open: a passphrase costs a second each time.
                self.on(store, "key", "export", self.key)
                store.keys = ("--key-file", self.key)
            for n in range(4):
                self.add(store, "web", self.a)
                harness.change(self.a, [(0, MB)], n)        # most of a pack dies
                harness.change(self.a, [(n * 64 * KB, 16 * KB)], 50)
            self.add(store, "old", self.b)
            self.on(store, "forget", "web@1", "web@2")
            for n in (1, 2):
                self.drop(store.truths["web"].pop(n))
            self.bases[name] = store
        slots = self.on(self.bases["sealed"], "key", "list").summary["slots"]
        self.phrase_slot, = [s["slot"] for s in slots if s["kind"] == "passphrase"]
        self.ops = {
            "init": Op("init", "--block-size", "16k", store=None),
            "init-encrypted": Op("init", "--encrypt", "--repo-password-file", self.one, store=None),
            "backup": Op("backup", "--file", "web=" + self.a, new="web"),
            "backup-first": Op("backup", "--file", "new=" + self.a, "--tag", "t", new="new"),
            "backup-encrypted": Op("backup", "--file", "web=" + self.a, new="web", store="sealed"),
            "forget": Op("forget", "web@3", gone=(("web", 3),)),
            "forget-newest": Op("forget", "web@4", gone=(("web", 4),)),
            "pin": Op("forget", "web@3", "--pin"),
            "prune": Op("prune"),
            "check": Op("check"),
            "check-data": Op("check", "--read-data"),
            "rebuild-index": Op("rebuild-index", store="unindexed"),
            "restore": Op("restore", "web@4", "--output", "OUT"),
            "list": Op("list"),
            "stats": Op("stats"),
            "key-add": Op("key", "add", "--new-password-file", self.two, store="sealed"),
            "key-change": Op("key", "change", "--new-password-file", self.two, store="phrase"),
            "key-remove": Op("key", "remove", self.phrase_slot, store="sealed"),
            "key-export": Op("key", "export", "OUT", store="sealed"),
        }
        # With a cache of each, so that a command makes the same calls each time.
        for store in self.bases.values():
            self.on(store, "list")
        self.good_state, self.machines[0] = self.machines[0], machine
        self.work = was

    def add(self, store, vm, image):
        r = self.on(store, "backup", "--file", "%s=%s" % (vm, image))
        number = r.vm()["generation"]
        store.truths[vm][number] = self.keep([image])
        store.given[vm] = number

    def fresh(self, op, place, reserve):
        """A copy of what the command begins with, in this folder; its model."""
        path = os.path.join(place, "repo")
        shutil.rmtree(path, ignore_errors=True)
        if op.store is None:
            sealed = "--encrypt" in op.words
            return Store(path, ("--repo-password-file", self.one) if sealed else ())
        base = self.bases["plain" if op.store in ("plain", "unindexed") else "sealed"]
        subprocess.run(["cp", "-a", "--sparse=" + ("never" if reserve else "always"), base.path,
                        path], check=True)
        store = Store(path, base.keys)
        if op.store == "phrase":
            store.keys = ("--repo-password-file", self.one)
        if op.store == "unindexed":
            for folder, _, files in os.walk(os.path.join(path, "index")):
                for name in files:
                    os.unlink(os.path.join(folder, name))
        for vm, numbers in base.truths.items():
            store.truths[vm] = {n: self.keep(paths) for n, paths in numbers.items()}
            store.given[vm] = base.given[vm]
        return store

    def words_of(self, op, store, out):
        words = [out if w == "OUT" else w for w in op.words]
        if op.store is None:
            return [words[0], "--json", "--repo", store.path, *words[1:]]
        return self.words_on(store, *words)

    def fresh_state(self):
        self.remove(self.machines[0])
        shutil.copytree(self.good_state, self.machines[0])

    def run_op(self, op, store, out, prefix=()):
        self.state = self.machines[0]
        done = subprocess.run([*prefix, *self.command(*self.words_of(op, store, out))],
                              stdin=subprocess.DEVNULL, capture_output=True, check=False,
                              timeout=300)
        return harness.Result(done.returncode, done.stdout.decode(), done.stderr.decode())

    # what must be afterwards

    def assert_sound(self, op, store, code, message):
        """Whatever happened: clean, and all that was acknowledged is there."""
        if op.store is None:
            if code == 0:
                self.assert_clean(store, message)
            return
        keys = store.keys
        if op.store == "phrase":
            opens = {}
            for name, phrase in (("old", self.one), ("new", self.two)):
                store.keys = ("--repo-password-file", phrase)
                opens[name] = self.on(store, "key", "list", code=None).code
            self.assertIn(0, opens.values(), message + ": no passphrase opens it")
            if code == 0:
                self.assertEqual(opens, {"old": 7, "new": 0}, message)
            keys = self.bases["sealed"].keys
        store.keys = keys
        if op.store == "unindexed" and code != 0:
            self.on(store, "rebuild-index")
        self.assert_clean(store, message, machine=1)
        new = self.reconcile(store, message, {op.new: [[self.a]]} if op.new else None,
                             {vm: [n] for vm, n in op.gone}, machine=1)
        if code == 0:
            if op.new:
                self.assertEqual(len(new[op.new]), 1, message)
            for vm, number in op.gone:
                self.assertNotIn(number, store.truths[vm], message)
        vm = self.rng.choice(sorted(v for v in store.truths if store.truths[v]))
        self.assert_restored(store, vm, self.rng.choice(store.numbers(vm)), message, machine=1)
        for number in new[op.new] if op.new else ():
            self.assert_restored(store, op.new, number, message, machine=1)

    def finish(self, store, message):
        self.assert_clean(store, message, "--read-data", machine=1)
        self.assert_all_restore(store, message, machine=1)

    def forget_model(self, store):
        for numbers in store.truths.values():
            for paths in numbers.values():
                self.drop(paths)

    # a full disk

    def size_of(self, place):
        s = os.statvfs(place)
        return (s.f_blocks - s.f_bfree) * s.f_frsize

    def most_used(self, op, place):
        """How much room the command takes at its peak, with as much as it wants."""
        store = self.fresh(op, place, True)
        begin = self.size_of(place)
        peak, out = begin, os.path.join(place, "out")
        self.state = self.machines[0]
        p = subprocess.Popen(self.command(*self.words_of(op, store, out)), stdin=subprocess.DEVNULL,
                             stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while p.poll() is None:
            peak = max(peak, self.size_of(place))
            time.sleep(0.0005)
        self.assertEqual(p.returncode, 0, op.words)
        peak = max(peak, self.size_of(place))
        self.forget_model(store)
        shutil.rmtree(store.path)
        self.remove(out)
        return peak - begin

    @staticmethod
    def remove(path):
        if os.path.isdir(path):
            shutil.rmtree(path)
        elif os.path.exists(path):
            os.unlink(path)

    def full(self, name, op, place, budget):
        harness.mount("-o", "remount,size=512m", place)
        store, out = self.fresh(op, place, True), os.path.join(place, "out")
        size = max(self.size_of(place) + budget, PAGE)      # 0 would be: as much as there is
        harness.mount("-o", "remount,size=%d" % size, place)
        message = "seed %d: %s with %d bytes of room" % (self.seed, name, budget)
        r = self.run_op(op, store, out)
        first = r.code
        self.codes[("full", name, r.code)] += 1
        self.assertIn(r.code, (0, 8), "%s: %s" % (message, r))
        if r.code == 8:
            self.assertIn("space", r.err.lower(), message)
            self.assertFalse(os.path.exists(out), message)
        self.assert_sound(op, store, r.code, message)
        harness.mount("-o", "remount,size=512m", place)
        if r.code != 0:
            if op.store == "phrase" and self.on_phrase(store):
                op = None
            else:
                r = self.run_op(op, store, out)
                self.assertEqual(r.code, 0, "%s, then with room: %s" % (message, r))
                self.assert_sound(op, store, 0, message + ", then with room")
        if op is not None and op.store is not None:
            self.finish(store, message + ", then with room")
        self.forget_model(store)
        shutil.rmtree(store.path)
        self.remove(out)
        return first

    def on_phrase(self, store):
        """The new passphrase is there, the old one was not removed: change has nothing to do."""
        store.keys = ("--repo-password-file", self.two)
        there = self.on(store, "key", "list", code=None).code == 0
        store.keys = ("--repo-password-file", self.one)
        return there

    def test_full_disk(self):
        place = self.small(512 * MB)
        for name, op in self.ops.items():
            if self.few and name not in FEW_OPS:
                continue
            need = self.most_used(op, place)
            step = need // BUDGETS // PAGE * PAGE
            budgets = sorted({n * max(step, PAGE) for n in range(BUDGETS)})
            if self.few:
                budgets = budgets[:1] + budgets[5:6]
            codes = [self.full(name, op, place, b) for b in budgets]
            print("full: %s takes %d KiB: %s" % (name, need // KB, codes), flush=True)
            # To take something away a full disk must do.
            if name.startswith("forget") or name in ("check", "list", "stats", "key-remove"):
                self.assertEqual(set(codes), {0}, name)

    @staticmethod
    def fill_up(place):
        fd = os.open(os.path.join(place, "ballast"), os.O_WRONLY | os.O_CREAT)
        try:
            while True:
                os.write(fd, bytes(PAGE))
        except OSError:
            pass
        finally:
            os.close(fd)

    def test_full_state_directory(self):
        """Where the cache cannot be written there is none."""
        place = self.small(MB, "state-place")
        self.machines[0] = os.path.join(place, "state")
        self.on(self.bases["plain"], "list")        # so that there is a state directory
        self.fill_up(place)
        for name in ("list", "stats", "check", "backup", "forget", "prune"):
            op = self.ops[name]
            store = self.fresh(op, self.work, False)
            r = self.run_op(op, store, self.path("out"))
            self.codes[("full state directory", name, r.code)] += 1
            self.assertEqual(r.code, 0, "%s: %s" % (name, r))
            self.assert_sound(op, store, r.code, name)
            self.finish(store, name)
            self.forget_model(store)

    # calls that fail

    def test_calls(self):
        names = [n for n in self.ops if not n.startswith("init-") and n not in ("list", "stats")]
        for what in CALLS:
            if self.few and what not in FEW_CALLS:
                continue
            for name in FEW_OPS if self.few else names:
                self.spoil(what, name)

    def spoil(self, what, name):
        calls, inject, allowed = CALLS[what]
        op, hits = self.ops[name], 0
        for n in FEW_CALLS[what] if self.few else range(1, MOST):
            if "from write" in what and n > 12:
                break           # each of them is the first one that fails
            store, out, log = self.fresh(op, self.work, False), self.path("out"), self.path("log")
            self.fresh_state()
            message = "seed %d: %s, %s number %d" % (self.seed, name, what, n)
            r = self.run_op(op, store, out, [
                "strace", "-f", "-qq", "-y", "-o", log, "-e", "trace=" + calls,
                "-e", "inject=%s:%s" % (calls, inject.format(n))])
            with open(log, encoding="utf-8", errors="replace") as f:
                text = f.read()
            os.unlink(log)
            hit = [line for line in text.splitlines() if "INJECTED" in line]
            was = bool(hit) or "killed by SIGKILL" in text
            self.codes[(what, name, r.code)] += 1
            self.assertIn(r.code, (0, *allowed) if was else (0,), "%s: %s\n%s" % (
                message, r, "\n".join(hit)))
            if hit and r.code == 0:
                self.assert_harmless(name, what, hit, message)
            self.assert_sound(op, store, r.code, message)
            if op.store is not None:
                self.finish(store, message)
            self.forget_model(store)
            self.remove(store.path)
            self.remove(out)
            if not was:
                break
            hits += 1
        else:
            self.assertTrue(self.few, "%s: %s never ends" % (name, what))
        print("%s: %s: %d positions" % (what, name, hits), flush=True)

    def assert_harmless(self, name, what, hit, message):
        """Success: only what is a cache, a tidying-up, or a trial may have failed."""
        repo = re.escape(os.path.join(self.work, "repo"))
        for line in hit:
            place = re.search(r"<(%s[^>]*)>" % repo, line)
            if place is None or "unlink" in what:
                continue
            inside = os.path.relpath(place.group(1), os.path.join(self.work, "repo"))
            # What check has read is noted for people; prune makes the reserve again.
            tidied = name in ("prune", "check-data") and "config" not in inside
            self.assertTrue(tidied, "%s: success although %s" % (message, line))


class Places(Space):
    """Where nothing can be written, and where the repository is not."""

    test_full_disk = test_full_state_directory = test_calls = None

    READERS = (("list",), ("check",), ("check", "--read-data"), ("stats",),
               ("diff", "web@3", "web@4"), ("restore", "web@3", "--output", "OUT"),
               ("forget", "web@3", "--dry-run"), ("prune", "--dry-run"), ("list", "web"))
    WRITERS = (("backup", "--file", "web=IMAGE"), ("backup", "--file", "new=IMAGE"),
               ("forget", "web@3"), ("forget", "web@4"), ("forget", "web@3", "--pin"), ("prune",),
               ("rebuild-index",))

    def words(self, words):
        return [w.replace("IMAGE", self.a).replace("OUT", self.path("out")) for w in words]

    def snapshot(self, path):
        out = {}
        for folder, _, files in os.walk(path):
            for name in files:
                with open(os.path.join(folder, name), "rb") as f:
                    out[os.path.relpath(os.path.join(folder, name), path)] = f.read()
        return out

    def read_only(self, path):
        harness.mount("--bind", path, path)
        self.addCleanup(subprocess.run, ["umount", "-l", path], check=True)
        harness.mount("-o", "remount,bind,ro", path)

    def test_read_only(self):
        for name in self.bases:
            os.mkdir(self.path(name))
            base = self.fresh(Op(store=name), self.path(name), False)
            self.read_only(base.path)
            before = self.snapshot(base.path)
            for words in self.READERS:
                self.remove(self.path("out"))
                r = self.on(base, *self.words(words), code=None)
                self.assertEqual(r.code, 0, "%s: %s" % (words, r))
            for words in self.WRITERS:
                r = self.on(base, *self.words(words), code=None)
                self.codes[("read-only", words[0], r.code)] += 1
                self.assertIn(r.code, (1, 11), "%s: %s" % (words, r))
                self.assertRegex(r.err + r.out, "[Rr]ead-only", words)
            self.assertEqual(self.snapshot(base.path), before)
        sealed = base
        self.on(sealed, "key", "list")
        for words in (("add", "--new-password-file", self.two), ("remove", self.phrase_slot)):
            self.assertIn(self.on(sealed, "key", *words, code=None).code, (1, 11))

    def test_vanished(self):
        """A folder that is not there, an empty one, one that holds something else: 2, and nothing
        is made."""
        empty, other = self.path("empty"), self.path("other")
        os.mkdir(empty)
        os.mkdir(other)
        shutil.copy(self.a, other)
        for place in (self.path("gone"), self.path("gone/below"), empty, other):
            store = Store(place)
            for words in (*self.READERS, *self.WRITERS, ("key", "list")):
                r = self.on(store, *self.words(words), code=None)
                self.assertEqual(r.code, 2, "%s on %s: %s" % (words, place, r))
        self.assertFalse(os.path.exists(self.path("gone")))
        self.assertEqual(os.listdir(empty), [])
        self.assertEqual(os.listdir(other), ["a"])
        self.assertFalse(os.path.exists(self.path("out")))

    def test_vanishes_under_a_run(self):
        """Removed while somebody works on it: an error, and it is not made again."""
        for words, step in ((("backup", "--file", "web=" + self.a), "repo.opened"),
                            (("backup", "--file", "web=" + self.a), "repo.commit"),
                            (("prune",), "repo.planned"), (("forget", "web@3"), "repo.forget"),
                            (("check",), "repo.listed"), (("list",), "repo.listed")):
            store = self.fresh(Op(store="plain"), self.work, False)
            running = self.start(self.words_on(store, *words), 0, step + ":1:stop")
            while True:
                with open("/proc/%d/stat" % running.process.pid, encoding="ascii") as f:
                    if f.read().rpartition(")")[2].split()[0] == "T":
                        break
                self.assertIsNone(running.process.poll(), words)
                time.sleep(0.005)
            shutil.rmtree(store.path)
            running.signal(signal.SIGCONT)
            r = running.end()
            self.codes[("removed meanwhile", words[0], r.code)] += 1
            self.assertIn(r.code, (1, 2, 3, 5), "%s at %s: %s" % (words, step, r))
            self.assertFalse(os.path.exists(store.path), words)
            self.forget_model(store)


if __name__ == "__main__":
    # With sanitizers: no search for leaks below strace.
    os.environ["ASAN_OPTIONS"] = ":".join(filter(None, (
        os.environ.get("ASAN_OPTIONS"), "detect_leaks=0")))
    tool.main(Space, __doc__, few=(False, "the short form"))
