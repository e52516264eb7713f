#!/usr/bin/env python3
"""Looking after a repository, beside what is forgotten: damage, small packs, full disks, indexes
made anew, and when all was last verified."""

import errno
import os
import shutil

import harness
from harness import BLOCK, MB, LocalTest, change


class Tidy(LocalTest):
    """What prune does beside removing packs that are dead."""

    def setUp(self):
        super().setUp()
        self.init()

    def test_damage_that_was_healed(self):
        a = self.disk("a", 8 * MB, pieces=[(0, 4 * MB)])
        self.store("web=" + a)
        pack = max(self.packs(), key=os.path.getsize)
        with open(pack, "r+b") as f:
            f.seek(MB)
            was = f.read(1)
            f.seek(MB)
            f.write(bytes([was[0] ^ 1]))
        self.assertEqual(self.check("--read-data", code=5).summary["damaged"], 1)
        notes = os.path.join(self.repo, "damaged")
        self.assertEqual(len(os.listdir(notes)), 1)
        # It is needed and nobody has it: nothing goes.
        self.on_repo("prune", code=5)
        self.store("web=" + a)
        self.assertEqual(self.check("--read-data").summary["healed"], 1)
        r = self.on_repo("prune").summary
        self.assertEqual(r["copied_packs"], 1)
        self.assertEqual(os.listdir(notes), [])
        self.assertFalse(os.path.exists(pack))
        self.assertEqual(self.check("--read-data").summary["healed"], 0)
        for gen in ("web@1", "web@2"):
            self.assert_restores(gen, a)

    def test_small_packs_are_merged(self):
        """Each small run leaves two small packs; prune makes few of many, and only once."""
        truths = {}
        for n in range(16):
            a = self.disk("a%d" % n, 2 * MB, seed=n + 10, pieces=[(0, 3 * BLOCK)])
            self.store("vm%d=%s" % (n, a))
            truths["vm%d@1" % n] = a
        before = self.packs()
        self.assertEqual(len(before), 32)
        size = sum(map(os.path.getsize, before))
        dry = self.on_repo("prune", "--dry-run").summary
        self.assertEqual((dry["copied_packs"], self.packs()), (32, before))
        self.assertEqual(self.on_repo("prune").summary["removed_packs"], 32)
        after = self.packs()
        self.assertEqual(len(after), 2)
        self.assertLess(sum(map(os.path.getsize, after)), size)
        self.check("--read-data")
        self.assertEqual(self.on_repo("prune").summary["copied_packs"], 0)
        self.assertEqual(self.packs(), after)
        self.assert_restores("vm0@1", truths["vm0@1"])
        self.assert_restores("vm15@1", truths["vm15@1"])

    def test_what_is_half_written(self):
        """A writer that died leaves temporaries; a backup does not take them, prune does."""
        a = self.disk("a", 2 * MB, pieces=[(0, MB)])
        self.store("web=" + a)
        left = [os.path.join(folder, ".vmferry-tmp-0123456789abcdef")
                for folder in (self.repo, os.path.dirname(self.packs()[0]))]
        for name in left:
            with open(name, "wb") as f:
                f.write(b"half")
        self.store("web=" + a)
        self.assertEqual([os.path.exists(name) for name in left], [True, True])
        self.on_repo("prune", "--dry-run")
        self.assertEqual([os.path.exists(name) for name in left], [True, True])
        self.on_repo("prune")
        self.assertEqual([os.path.exists(name) for name in left], [False, False])
        self.assert_restores("web@1", a)


class FullDisk(LocalTest):
    def fill(self, place):
        """Nothing is left, not even for a small file."""
        with open(os.path.join(place, "filler"), "ab", buffering=0) as f:
            for size in (MB, 4096, 1):
                try:
                    while True:
                        f.write(bytes(size))
                except OSError as e:
                    self.assertEqual(e.errno, errno.ENOSPC)

    def test_forget_and_prune(self):
        """They give up the reserve, which comes back when there is room."""
        place = self.small(120 * MB)
        self.repo = os.path.join(place, "repo")
        self.init()
        reserve = os.path.join(self.repo, "reserve")
        a, b = self.disk("a", seed=1), self.disk("b", seed=2)
        self.store("web=" + a)
        self.store("web=" + b)
        # Of this one a little stays alive when its VM's first generation goes.
        c = self.disk("c", 16 * MB, 3, [(0, 16 * MB)])
        self.store("half=" + c)
        change(c, [(0, 12 * MB)], 4)
        self.store("half=" + c)
        self.fill(place)
        self.store("more=" + self.disk("d", seed=5), code=8)
        os.remove(os.path.join(place, "filler"))
        self.fill(place)
        self.on_repo("forget", "--keep-last", "1")
        self.assertEqual([g["generation"] for g in self.generations()], [2, 2])
        self.fill(place)
        r = self.on_repo("prune")
        self.assertGreater(r.summary["removed_packs"], 0)
        self.assertGreater(r.summary["not_copied_packs"], 0)
        self.assertIn("reserve", r.out + r.err)
        self.check("--read-data")
        self.assert_restores("web@2", b)
        self.assert_restores("half@2", c)
        os.remove(os.path.join(place, "filler"))
        r = self.on_repo("prune")
        self.assertTrue(os.path.exists(reserve), str(r))
        self.assertEqual(os.path.getsize(reserve), 64 * MB)
        self.check("--read-data")
        self.assert_restores("half@2", c)

    def test_newest_is_forgotten_on_a_full_disk(self):
        place = self.small(100 * MB)
        self.repo = os.path.join(place, "repo")
        self.init()
        reserve = os.path.join(self.repo, "reserve")
        a = self.disk("a", seed=1)
        for _ in range(3):
            self.store("web=" + a)
        self.fill(place)
        r = self.on_repo("forget", "web@3")
        self.assertIn("reserve", r.out + r.err)
        self.assertFalse(os.path.exists(reserve))
        self.assertEqual([g["generation"] for g in self.generations()], [1, 2])
        os.remove(os.path.join(place, "filler"))
        r = self.store("web=" + a)
        self.assertEqual(r.vm()["generation"], 4)
        self.assertTrue(os.path.exists(reserve))
        self.check("--read-data")


class RebuildIndex(LocalTest):
    def setUp(self):
        super().setUp()
        self.init()
        self.a = self.disk("a", 8 * MB, pieces=[(0, 4 * MB)])
        self.store("web=" + self.a)
        self.was = shutil.copy(self.a, self.path("was"))
        change(self.a, [(MB, BLOCK)], 2)
        self.store("web=" + self.a)
        self.indexes = [p.replace("/packs/", "/index/") for p in self.packs()]

    def assert_whole(self):
        for state in (self.state, self.path("fresh-state")):     # with and without a cache
            self.state = state
            self.check("--read-data")
            self.assert_restores("web@1", self.was)
            self.assert_restores("web@2", self.a)

    def damage(self, path, at):
        with open(path, "r+b") as f:
            f.seek(at)
            was = f.read(1)
            f.seek(at)
            f.write(bytes([was[0] ^ 1]))

    def test_whole_ones_stay(self):
        was = {p: os.stat(p).st_ino for p in self.indexes}
        self.on_repo("rebuild-index")
        self.assertEqual({p: os.stat(p).st_ino for p in self.indexes}, was)

    def test_damaged_missing_exchanged(self):
        """Each index in turn with a flipped byte, cut short, gone, or another pack's."""
        for index in self.indexes:
            with open(index, "rb") as f:
                whole = f.read()
            other = next(i for i in self.indexes if i != index)
            for n, spoil in enumerate((
                    lambda i: self.damage(i, 60), lambda i: self.damage(i, os.path.getsize(i) - 1),
                    lambda i: os.truncate(i, 50), os.remove, lambda i: shutil.copy(other, i))):
                spoil(index)
                self.state = self.path("state-%d" % n)
                self.check(code=5)
                self.on_repo("rebuild-index")
                with open(index, "rb") as f:
                    self.assertEqual(f.read(), whole, "what is made again is what was there")
        self.assert_whole()

    def test_damaged_pack(self):
        """A pack that cannot be walked gets no index; the others do."""
        broken, other = self.packs()[:2]
        self.damage(broken, 64 + 5)                             # the header of its first entry
        for pack in (broken, other):
            self.damage(pack.replace("/packs/", "/index/"), 60)
        r = self.on_repo("rebuild-index", code=5)
        self.assertIn(os.path.basename(broken), r.out + r.err)
        self.assertEqual(self.check("--read-data", code=5).summary["packs"], len(self.packs()))
        # What is still there is stored again by the next backup.
        os.remove(broken)
        os.remove(broken.replace("/packs/", "/index/"))
        self.store("web=" + self.a)
        self.assert_restores("web@3", self.a)


class Verified(LocalTest):
    def times(self):
        return [g["verified"] for g in self.generations()]

    def test_verified(self):
        """When all of a generation was last read without a fault."""
        self.init()
        a = self.disk("a", 8 * MB, pieces=[(0, 4 * MB)])
        self.store("web=" + a)
        change(a, [(MB, BLOCK)], 2)
        self.store("web=" + a)
        self.check()
        self.restore("web@1")
        self.assertEqual(self.times(), [None, None])
        self.check("web@1", "--read-data")
        first, second = self.times()
        self.assertRegex(first, r"^20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ$")
        self.assertIsNone(second)
        # A part of its packs is not all of them.  Which part a pack is in is a matter of chance.
        self.check("--read-data=1/1000")
        self.assertIsNone(self.times()[1])
        self.check("--read-data=1/2")
        self.check("--read-data=2/2")
        self.assertNotIn(None, self.times())
        change(a, [(2 * MB, BLOCK)], 3)
        self.store("web=" + a)
        before = self.times()
        self.assertIsNone(before[2])
        # Nothing is verified by a check that finds damage, and what was stays known.
        pack = max(self.packs(), key=os.path.getsize)
        with open(pack, "r+b") as f:
            f.seek(MB)
            was = f.read(1)
            f.seek(MB)
            f.write(bytes([was[0] ^ 1]))
        self.check("--read-data", code=5)
        self.assertEqual(self.times(), before)
        self.check("web@3", "--read-data", code=5)
        self.assertEqual(self.times(), before)
        # A new backup of the same content heals it.
        self.store("web=" + a)
        self.check("--read-data")
        self.assertNotIn(None, self.times())
        self.assertEqual(len(os.listdir(os.path.join(self.repo, "verified"))), 1)
        self.on_repo("forget", "web@1")
        self.assertEqual(len(self.times()), 3)


if __name__ == "__main__":
    harness.main()
