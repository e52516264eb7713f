#!/usr/bin/env python3
"""Looking after a repository: forget, prune, diff, keys."""

import os
import shutil

import harness
from harness import BLOCK, MB, LocalTest, change


class Forget(LocalTest):
    def setUp(self):
        super().setUp()
        self.init()
        self.truths = {}
        self.a = self.disk("a", 8 * MB, pieces=[(0, 4 * MB)])

    def fill(self, count, vm="web"):
        for n in range(count):
            change(self.a, [(n % 32 * BLOCK, BLOCK)], n)
            r = self.store("%s=%s" % (vm, self.a))
            self.truths[vm, r.vm()["generation"]] = shutil.copy(
                self.a, self.path("t-%s-%d" % (vm, r.vm()["generation"])))

    def numbers(self, vm="web"):
        return [g["generation"] for g in self.generations() if g["vm"] == vm]

    def test_by_name(self):
        self.fill(3)
        r = self.on_repo("forget", "web@1", "--dry-run")
        self.assertEqual([(g["generation"], g["keep"]) for g in r.summary["generations"]],
                         [(1, False)])
        self.assertEqual(self.numbers(), [1, 2, 3])
        self.on_repo("forget", "web@1")
        self.assertEqual(self.numbers(), [2, 3])
        self.on_repo("forget", "web@1", code=2)
        # The newest goes, its number is not given again; the last one never goes.
        self.on_repo("forget", "web@3")
        self.on_repo("forget", "web@2", code=11)
        self.on_repo("forget", "web@2", "--yes", code=11)
        self.fill(1)
        self.assertEqual(self.numbers(), [2, 4])
        for n in (2, 4):
            self.assert_restores("web@%d" % n, self.truths["web", n])

    def test_by_rules(self):
        self.fill(4)
        self.fill(2, "other")
        r = self.on_repo("forget", "--keep-last", "2", "--dry-run")
        rows = {(g["vm"], g["generation"]): (g["keep"], g["reason"])
                for g in r.summary["generations"]}
        self.assertEqual({k for k, v in rows.items() if not v[0]}, {("web", 1), ("web", 2)})
        self.assertIn("newest good", rows["web", 4][1])
        self.assertEqual(rows["web", 3][1], "last")
        self.assertEqual(self.numbers(), [1, 2, 3, 4])
        self.on_repo("forget", "web", "--roll-out", "1")
        self.assertEqual((self.numbers(), self.numbers("other")), ([4], [1, 2]))
        self.on_repo("forget", "--keep-within", "1h")
        self.assertEqual(self.numbers("other"), [1, 2])
        self.on_repo("forget", "--keep-daily", "3", "--min-age", "1h")
        self.assertEqual(self.numbers("other"), [1, 2])
        self.on_repo("forget", "--keep-daily", "3")
        self.assertEqual(self.numbers("other"), [2])
        self.on_repo("forget", code=2)
        self.on_repo("forget", "nobody", "--keep-last", "1", code=2)

    def test_pins_and_tags(self):
        self.store("web=" + self.a, "--tag", "before upgrade")
        self.fill(3)
        self.on_repo("forget", "web@2", "--pin")
        self.on_repo("forget", "web@2", code=11)
        self.on_repo("forget", "--keep-tag", "before upgrade", "--keep-last", "1")
        self.assertEqual(self.numbers(), [1, 2, 4])
        self.on_repo("forget", "web@2", "--unpin")
        self.on_repo("forget", "--keep-last", "1")
        self.assertEqual(self.numbers(), [4])

    def test_fuse(self):
        """Many at once, and most of a VM's: only with --yes."""
        self.fill(12)
        self.on_repo("forget", "--keep-last", "1", code=11)
        self.assertEqual(len(self.numbers()), 12)
        self.on_repo("forget", "--keep-last", "1", "--yes")
        self.assertEqual(self.numbers(), [12])

    def test_append_only(self):
        self.repo = self.path("append")
        self.init("--append-only")
        self.fill(2)
        self.on_repo("forget", "--keep-last", "1", code=11)
        self.on_repo("prune", code=11)
        self.assertEqual(self.numbers(), [1, 2])


class Prune(Forget):
    test_by_name = test_by_rules = test_pins_and_tags = test_fuse = None
    test_append_only = None

    def size(self):
        return sum(map(os.path.getsize, self.packs()))

    def test_nothing_to_do(self):
        self.fill(2)
        before = self.packs()
        r = self.on_repo("prune")
        self.assertEqual(r.summary["removed_packs"], 0)
        self.assertEqual(self.packs(), before)

    def test_all_of_a_vm_but_one(self):
        """Each generation has another first MiB: five of six are dead."""
        for n in range(6):
            change(self.a, [(0, MB)], n)
            self.fill(1)
        before = self.size()
        self.on_repo("forget", "--keep-last", "1")
        dry = self.on_repo("prune", "--dry-run").summary
        self.assertEqual(self.size(), before)
        r = self.on_repo("prune").summary
        self.assertEqual((r["dead_packs"], r["copied_packs"]), (dry["dead_packs"], dry["copied_packs"]))
        self.assertGreater(r["removed_packs"], 0)
        self.assertLess(self.size(), before - 3 * MB)
        self.assert_restores("web@6", self.truths["web", 6])
        self.check("--read-data")
        self.assertEqual(self.on_repo("prune").summary["removed_packs"], 0)
        # What went may come back.
        self.store("again=" + self.truths["web", 2])
        self.assert_restores("again@1", self.truths["web", 2])
        self.check("--read-data")

    def test_mostly_dead_packs_are_copied(self):
        """A large first generation of which little is left alive."""
        self.fill(1)
        for n in range(30):
            change(self.a, [(n * BLOCK, BLOCK)], 100 + n)
        self.store("web=" + self.a)
        self.on_repo("forget", "web@1")
        r = self.on_repo("prune").summary
        self.assertGreater(r["copied_packs"], 0)
        self.assertGreaterEqual(r["copied_bytes"], 2 * BLOCK)
        self.assertLess(self.size(), 4 * MB + MB)
        self.assert_restores("web@2", self.a)
        self.check("--read-data")

    def test_waits_for_a_backup(self):
        """Nothing is removed beside a running backup; then exit 6."""
        self.fill(3)
        self.on_repo("forget", "--keep-last", "1")
        before = self.packs()
        big = self.disk("big", 64 * MB, pieces=[(0, 64 * MB)])
        running = harness.Running(self.command("backup", "--json", "--compress", "19", "--repo",
                                               self.repo, "--file", "big=" + big))
        running.wait_sent(MB)
        self.on_repo("prune", "--lock-wait", "0", code=6)
        self.assertTrue(set(before) <= set(self.packs()))
        self.assertEqual(running.end().code, 0)
        self.on_repo("prune")
        self.assert_restores("big@1", big)
        self.assert_restores("web@3", self.truths["web", 3])


class Diff(LocalTest):
    def test_regions(self):
        self.init()
        a, b = self.disk("a"), self.disk("b", 3 * MB, 2, [(0, MB)])
        self.store("web=" + a, "web=" + b)
        change(a, [(0, 1), (BLOCK, 1), (5 * MB, 9)], 3)
        self.store("web=" + a, "web=" + b)
        first, second = self.on_repo("diff", "web@1", "web@2").array
        self.assertEqual((first["disk"], first["changed"], first["comparable"]),
                         ("scsi0:0", 3 * BLOCK, True))
        self.assertEqual([(r["offset"], r["length"]) for r in first["regions"]],
                         [(0, 2 * BLOCK), (5 * MB, BLOCK)])
        self.assertEqual((second["changed"], second["regions"]), (0, []))
        # Another VM's disk has another digest secret.
        self.store("other=" + a)
        item = self.on_repo("diff", "web@1", "other@1").array[0]
        self.assertEqual((item["comparable"], item["changed"]), (False, None))


class Keys(LocalTest):
    def test_life_of_keys(self):
        one, two = self.secret("one", "first phrase"), self.secret("two", "second phrase")
        three = self.secret("three", "third phrase")
        a = self.disk("a", 2 * MB, pieces=[(0, MB)])
        self.init("--encrypt", "--repo-password-file", one)
        self.keys = ("--repo-password-file", one)
        self.store("web=" + a)
        slots = self.on_repo("key", "list").summary["slots"]
        self.assertEqual([(s["kind"], s["own"]) for s in slots], [("passphrase", True)])
        self.on_repo("key", "remove", slots[0]["slot"], "--yes", code=11)     # the last one
        self.on_repo("key", "add", "--new-password-file", two)
        file = self.path("key")
        self.assertEqual(len(self.on_repo("key", "export", file).summary["slots"]), 3)
        self.assertEqual(os.stat(file).st_mode & 0o777, 0o600)
        self.on_repo("key", "export", file, code=11)
        for keys in (("--repo-password-file", two), ("--key-file", file)):
            self.keys = keys
            self.assert_restores("web@1", a)
        self.keys = ("--repo-password-file", one)
        self.on_repo("key", "remove", slots[0]["slot"], code=11)              # our own
        self.on_repo("key", "change", "--new-password-file", three)
        self.on_repo("list", code=7)
        self.keys = ("--repo-password-file", three)
        self.assert_restores("web@1", a)
        self.keys = ("--repo-password-file", two)
        own, = [s for s in self.on_repo("key", "list").summary["slots"] if s["own"]]
        self.on_repo("key", "remove", own["slot"], "--yes")
        self.on_repo("list", code=7)
        self.keys = ("--repo-password-file", three)
        self.assertEqual(len(self.on_repo("key", "list").summary["slots"]), 2)
        self.on_repo("key", "nonsense", code=2)
        self.on_repo("key", "remove", code=2)

    def test_not_encrypted(self):
        self.init()
        self.on_repo("key", "list", code=2)


if __name__ == "__main__":
    harness.main()
