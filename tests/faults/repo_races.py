#!/usr/bin/env python3
"""One command on a repository stands still at a named step, another does all of its work, and the
first goes on: nothing is lost, and no damage is seen where there is none.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
import unittest

from repo_faults import KB, MB, RepoFaults, Store, harness


class Races(RepoFaults, harness.LocalTest):
    def setUp(self):
        harness.LocalTest.setUp(self)
        self.begin()
        self.a = self.disk("a", MB, pieces=[(0, MB // 2)])
        self.there = Store(self.repo)
        self.init("--block-size", "16k")

    def back_up(self, vm="web", machine=0):
        r = self.on(self.there, "backup", "--file", "%s=%s" % (vm, self.a), machine=machine)
        number = r.vm()["generation"]
        self.there.truths[vm][number] = self.keep([self.a])
        return number

    def change(self, seed, at=0):
        harness.change(self.a, [(at * 16 * KB, 16 * KB)], seed)

    def stopped(self, step, command, *words, machine=0):
        """It has come to the step, and stands there."""
        running = self.start(self.words_on(self.there, command, *words), machine, step + ":1:stop")
        deadline = time.monotonic() + 30
        while True:
            self.assertIsNone(running.process.poll(), "it ended before %s" % step)
            with open("/proc/%d/stat" % running.process.pid, encoding="ascii") as f:
                if f.read().rpartition(")")[2].split()[0] == "T":
                    return running
            self.assertLess(time.monotonic(), deadline, step)
            time.sleep(0.005)

    def go_on(self, running, code=0):
        running.signal(signal.SIGCONT)
        r = running.end()
        self.assertEqual(r.code, code, str(r))
        return r

    def assert_all(self):
        self.assertEqual({vm: sorted(n) for vm, n in self.listed(self.there).items()},
                         {vm: sorted(n) for vm, n in self.there.truths.items()})
        self.assert_clean(self.there, "afterwards", "--read-data")
        self.assert_all_restore(self.there, "afterwards", 1)

    # who reads while others write

    def test_readers_beside_a_backup(self):
        """What they list may be newer than the index that they opened."""
        self.back_up()
        for n, words in enumerate((["check"], ["check", "--read-data"], ["prune", "--dry-run"],
                                   ["stats"], ["list"], ["restore", "web@latest"],
                                   ["diff", "web@1", "web@latest"])):
            if words[0] == "restore":
                words += ["--output", self.path("out")]
            with self.subTest(command=" ".join(words)):
                running = self.stopped("repo.opened", *words)
                self.change(n + 1, n)
                self.back_up(machine=1)
                self.go_on(running)
        self.assertTrue(harness.same_bytes(self.path("out/disk-scsi0-0.raw"),
                                           self.there.truths["web"][7][0]))
        self.assert_all()

    def test_check_between_its_lists(self):
        """A pack that comes while check lists: its index must not be there without it."""
        self.back_up()
        running = self.stopped("repo.index-listed", "check", "--read-data")
        self.change(1)
        self.back_up(machine=1)
        r = self.go_on(running)
        self.assertEqual(r.summary["damaged"], 0)
        self.assertFalse(os.path.exists(os.path.join(self.repo, "damaged")))
        self.assert_all()

    def test_readers_beside_forget(self):
        for words in (["check"], ["prune", "--dry-run"], ["stats"], ["list"]):
            with self.subTest(command=words[0]):
                for n in range(2):
                    self.change(n + 10)
                    number = self.back_up()
                running = self.stopped("repo.listed", *words)
                self.on(self.there, "forget", "web@%d" % number, machine=1)
                self.drop(self.there.truths["web"].pop(number))
                self.go_on(running)
        self.assert_all()

    def test_two_backups_of_one_vm(self):
        """The second one's parent is what the first one made meanwhile."""
        self.back_up()
        running = self.stopped("repo.opened", "backup", "--file", "web=" + self.a)
        self.change(1)
        self.back_up(machine=1)
        r = self.go_on(running)
        self.assertEqual(r.vm()["generation"], 3)
        self.there.truths["web"][3] = self.keep([self.a])
        self.assert_all()

    # who decides while others do

    def test_two_who_forget(self):
        """Each would keep what the other takes: one has to wait."""
        self.back_up()
        self.change(1)
        self.back_up()
        running = self.stopped("repo.forget", "forget", "web@1")
        self.on(self.there, "forget", "web@2", "--lock-wait", "0s", code=6, machine=1)
        self.go_on(running)
        self.on(self.there, "forget", "web@2", code=11, machine=1)
        self.drop(self.there.truths["web"].pop(1))
        self.assert_all()

    def test_forgotten_before_it_was_tidied(self):
        """The number of a generation that goes right behind its commit is not given again."""
        self.back_up()
        running = self.stopped("repo.committed", "backup", "--file", "web=" + self.a)
        self.on(self.there, "forget", "web@2", machine=1)
        self.go_on(running)
        self.change(1)
        self.assertEqual(self.back_up(), 3)
        self.assert_all()

    def test_two_who_remove_keys(self):
        """One slot always stays."""
        shutil.rmtree(self.repo)
        one, two = self.secret("one", "first phrase"), self.secret("two", "second phrase")
        self.init("--encrypt", "--repo-password-file", one)
        self.there.keys = ("--repo-password-file", one)
        self.on(self.there, "key", "add", "--new-password-file", two)
        slots = self.on(self.there, "key", "list").summary["slots"]
        own, = [s["slot"] for s in slots if s["own"]]
        other, = [s["slot"] for s in slots if not s["own"]]
        running = self.stopped("repo.slot-remove", "key", "remove", other)
        self.there.keys = ("--repo-password-file", two)
        r = self.on(self.there, "key", "remove", own, "--lock-wait", "0s", code=None, machine=1)
        self.assertEqual(r.code, 6, str(r))
        self.go_on(running)
        self.there.keys = ("--repo-password-file", one)
        self.on(self.there, "key", "remove", own, "--yes", code=11)

    # what others published and did not live to make durable

    def test_adopted_packs(self):
        """A backup killed behind the publication of an index has made no fsync of its folder.  The
        next one counts on the pack, and has to."""
        r = self.start(self.words_on(self.there, "backup", "--file", "web=" + self.a), 0,
                       "repo.index-published:2:kill").end()
        self.assertEqual(r.code, -signal.SIGKILL)
        there = self.index_folders()
        self.assertEqual(len(there), 2)
        log = self.path("strace")
        self.state = self.machines[1]
        words = self.command(*self.words_on(self.there, "backup", "--file", "web=" + self.a))
        # Leaks are looked for by tracing, which strace does already.
        environ = dict(os.environ, ASAN_OPTIONS=":".join(filter(None, (
            os.environ.get("ASAN_OPTIONS"), "detect_leaks=0"))))
        done = subprocess.run(["strace", "-f", "-qq", "-y", "-e",
                               "trace=fsync,renameat,renameat2", "-o", log, *words], check=True,
                              stdin=subprocess.DEVNULL, capture_output=True, env=environ)
        r = harness.Result(done.returncode, done.stdout.decode(), done.stderr.decode())
        with open(log, encoding="utf-8") as f:
            calls = f.read().splitlines()
        commit = next(n for n, line in enumerate(calls)
                      if "rename" in line and "/generations/" in line)
        synced = {os.path.realpath(m.group(1)) for m in (
            re.search(r"fsync\(\d+<([^>]*)>", line) for line in calls[:commit]) if m}
        for folder in (*there, os.path.join(self.repo, "index"), self.repo):
            self.assertIn(os.path.realpath(folder), synced)
        self.assertLess(r.disk()["stored"], 64 * KB)       # blocks that it found, and a node
        self.there.truths["web"][1] = self.keep([self.a])
        self.assert_all()

    def index_folders(self):
        return {d for d, _, files in os.walk(os.path.join(self.repo, "index")) if files}

    # prune

    def test_dead_block_comes_back(self):
        """A backup takes a block from a pack that prune has found dead, before it is deleted."""
        for n in range(3):
            self.change(n)
            self.back_up()
        self.change(9)
        self.back_up()
        self.on(self.there, "forget", "web@1", "web@2")
        for n in (1, 2):
            self.drop(self.there.truths["web"].pop(n))
        # It has its plan; the rest of it happens alone.
        running = self.stopped("repo.planned", "prune")
        self.change(1)
        self.back_up("revived", machine=1)
        self.go_on(running)
        self.assert_all()

    def test_prune_waits_for_readers(self):
        for n in range(3):
            self.change(n)
            self.back_up()
        running = self.stopped("repo.listed", "check", "--read-data")
        self.on(self.there, "forget", "web@1", machine=1)
        self.drop(self.there.truths["web"].pop(1))
        self.on(self.there, "prune", "--lock-wait", "0s", code=6, machine=1)
        self.go_on(running)
        self.on(self.there, "prune", machine=1)
        self.assert_all()

    def test_caches_of_two_machines(self):
        """The cache of one machine is void after the other has pruned."""
        for n in range(8):
            self.change(n, n)
            self.back_up(machine=n % 2)
        self.on(self.there, "forget", "web", "--keep-last", "1", "--yes", machine=0)
        for n in range(1, 8):
            self.drop(self.there.truths["web"].pop(n))
        r = self.on(self.there, "prune", machine=0)
        self.assertGreater(r.summary["removed_packs"], 0)
        # What the cache of the second machine still knew must not be believed.
        for n in range(7):
            self.change(n, 0)
            self.back_up(machine=1)
        self.assert_all()


if __name__ == "__main__":
    if not os.path.exists(harness.VMFERRY):
        sys.exit("no %s: set VMFERRY_BIN" % harness.VMFERRY)
    unittest.main(verbosity=2)
