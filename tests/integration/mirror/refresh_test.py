#!/usr/bin/env python3
"""Refreshes: only what changed is sent, the image is right whatever happened to VM and mirror."""

import os
import shutil
import time

import harness
from harness import BLOCK, MB, stored_bytes


class Changes(harness.MirrorTest):
    """What the guest and the administrator did to the disks."""

    def first(self, size=32 * MB, **more):
        self.add_vm(disks=[self.disk_of(size, **more)])
        return self.run_mirror("web 01")

    def test_unchanged(self):
        first = self.first().disk()
        before = os.stat(self.image()).st_ino
        d = self.run_mirror("web 01").disk()
        self.assertEqual((d["changed"], d["sent"], d["stored"]), (0, 0, 0))
        self.assertEqual((d["read"], d["root"]), (first["read"], first["root"]))
        self.assertEqual(before, os.stat(self.image()).st_ino)
        self.assert_image()

    def test_only_changed_blocks_are_sent(self):
        self.first()
        # One sector, one write over a block's edge, one whole MiB, one in what was a hole.
        self.scribble("web 01", "scsi0:0", [(BLOCK * 3 + 512, 512), (BLOCK * 10 - 512, 1024),
                                            (8 * MB, MB), (24 * MB + 4096, 4096)], seed=2)
        blocks = 1 + 2 + 16 + 1
        d = self.run_mirror("web 01", "--compress", "none").disk()
        self.assertEqual(d["changed"], blocks * BLOCK)
        self.assertEqual(d["sent"], blocks * BLOCK)
        self.assertLess(d["stored"], blocks * BLOCK + 64 * 1024)
        self.assert_image()
        self.assert_checked()

    def test_same_bytes_written_again(self):
        """A write that changes nothing is no change."""
        self.first()
        with open(self.truth("web 01"), "rb") as f:
            f.seek(4 * MB)
            same = f.read(4096)
        self.host.ask("guest-write", vm="web 01", slot="scsi0:0", offset=4 * MB, data=same.hex())
        self.assertEqual(self.run_mirror("web 01").disk()["changed"], 0)

    def test_block_becomes_hole(self):
        self.first(pieces=[(0, 16 * MB)])
        before = stored_bytes(self.image())
        self.assertGreaterEqual(before, 16 * MB)
        self.scribble("web 01", "scsi0:0", [(4 * MB, 4 * MB)])
        d = self.run_mirror("web 01").disk()
        self.assertEqual((d["changed"], d["sent"]), (4 * MB, 0))
        self.assertLessEqual(stored_bytes(self.image()), before - 4 * MB)
        self.assert_image()
        self.assert_checked()

    def test_grown_disk(self):
        self.first()
        self.scribble("web 01", "scsi0:0", [(0, 4096)], seed=5)
        self.host.ask("disk-grow", vm="web 01", slot="scsi0:0", size=40 * MB + 512)
        self.scribble("web 01", "scsi0:0", [(39 * MB, 4096), (40 * MB, 512)], seed=6)
        d = self.run_mirror("web 01", "--keep", "1").disk()
        self.assertEqual(d["capacity"], 40 * MB + 512)
        self.assertEqual(d["changed"], 2 * BLOCK + 512)
        self.assert_image()
        self.assertEqual(os.path.getsize(self.image()), 40 * MB + 512)
        self.assert_checked()
        with open(self.image()[:-4] + ".vmdk", encoding="utf-8") as f:
            self.assertIn("RW %d FLAT" % (80 * 1024 + 1), f.read())

    def test_removed_disk(self):
        self.add_vm(disks=[self.disk_of(8 * MB, seed=1), self.disk_of(8 * MB, seed=2)])
        self.run_mirror("web 01")
        truth = self.truth("web 01", "scsi0:1", name="removed")
        self.host.ask("disk-remove", vm="web 01", slot="scsi0:1")
        r = self.run_mirror("web 01")
        self.assertEqual([d["disk"] for d in r.vm()["disks"]], ["scsi0:0"])
        folder = os.path.join(self.mirror, "web 01")
        gone = [n for n in os.listdir(folder) if ".removed-" in n]
        self.assertEqual(gone, ["disk-scsi0-1.removed-%s.raw" % time.strftime(
            "%Y-%m-%d", time.localtime())], os.listdir(folder))
        self.assert_same(os.path.join(folder, gone[0]), truth)
        self.assertFalse(os.path.exists(self.image("scsi0:1")))
        self.assertFalse(os.path.exists(self.image("scsi0:1")[:-4] + ".vmdk"))
        self.assert_image()
        self.run_mirror("web 01")
        self.assert_same(os.path.join(folder, gone[0]), truth)
        self.assert_checked()

    def test_added_disk(self):
        self.first()
        added = self.disk_of(8 * MB, seed=7, slot="scsi0:3")
        self.host.ask("disk-add", vm="web 01", disk=added)
        r = self.run_mirror("web 01")
        self.assertEqual(r.disk("scsi0:0")["changed"], 0)
        self.assertEqual(r.disk("scsi0:3")["changed"], 5 * MB)
        self.assert_image(slot="scsi0:0")
        self.assert_image(slot="scsi0:3")
        self.assertEqual(self.run_mirror("web 01").total("changed"), 0)
        self.assert_checked()

    def test_disk_moved_to_another_slot(self):
        """A disk is its uuid: the image moves along, nothing is sent."""
        self.add_vm(disks=[self.disk_of(8 * MB, seed=1), self.disk_of(6 * MB, seed=2)])
        self.run_mirror("web 01")
        self.host.ask("vmx-set", vm="web 01", values={
            "scsi0:0.fileName": "web 01_1.vmdk", "scsi0:1.fileName": "web 01.vmdk"})
        for slot in ("scsi0:0", "scsi0:1"):      # what the look-alike remembers is by slot
            shutil.rmtree(os.path.join(self.host.dir, "truth", "%d-%s" % (
                self.host.vm("web 01")["vmid"], slot.replace(":", "-"))), ignore_errors=True)
        r = self.run_mirror("web 01")
        self.assertEqual(r.total("sent"), 0)
        self.assertEqual(os.path.getsize(self.image("scsi0:0")), 6 * MB)
        self.assert_same(self.image("scsi0:0"), self.truth("web 01", "scsi0:0", None))
        self.assert_same(self.image("scsi0:1"), self.truth("web 01", "scsi0:1", None))
        self.assert_checked()

    def test_left_out_disks(self):
        self.add_vm(disks=[self.disk_of(8 * MB, seed=n) for n in (1, 2, 3)])
        self.run_mirror("web 01")
        old = self.truth("web 01", "scsi0:1", name="old")
        for n in range(3):
            self.scribble("web 01", "scsi0:%d" % n, [(MB, MB)], seed=n + 5)
        r = self.run_mirror("web 01", "--exclude-disk", "scsi0:1")
        self.assertEqual((r.code, r.vm()["outcome"]), (0, "ok"))
        self.assert_image(slot="scsi0:0")
        self.assert_image(slot="scsi0:2")
        self.assert_same(self.image("scsi0:1"), old)
        of = {d["disk"]: d["of_generation"] for d in self.list()[-1]["disks"]}
        self.assertEqual(of, {"scsi0:0": 2, "scsi0:1": 1, "scsi0:2": 2})
        r = self.run_mirror("web 01", "--only-disk", "scsi0:1")
        self.assertEqual(r.disk("scsi0:1")["changed"], MB)
        self.assert_image(slot="scsi0:1")
        of = {d["disk"]: d["of_generation"] for d in self.list()[-1]["disks"]}
        self.assertEqual(of, {"scsi0:0": 2, "scsi0:1": 3, "scsi0:2": 2})
        self.assert_checked()
        self.run_mirror("web 01", "--only-disk", "scsi3:0", code=2)

    def test_left_out_at_first(self):
        """A disk that was never mirrored is absent, and comes whole when it is wanted."""
        self.add_vm(disks=[self.disk_of(8 * MB, seed=n) for n in (1, 2)])
        self.run_mirror("web 01", "--exclude-disk", "scsi0:0")
        self.assertFalse(os.path.exists(self.image("scsi0:0")))
        self.assert_image(slot="scsi0:1")
        r = self.run_mirror("web 01")
        self.assertEqual((r.disk("scsi0:0")["changed"], r.disk("scsi0:1")["changed"]), (5 * MB, 0))
        self.assert_image(slot="scsi0:0")

    def test_full(self):
        """--full reads and sends all that is allocated; the image is not written again."""
        first = self.first(size=16 * MB, pieces=[(0, 8 * MB)]).disk()
        self.scribble("web 01", "scsi0:0", [(MB, BLOCK)], seed=3)
        r = self.run_mirror("web 01", "--full", "--compress", "none")
        d = r.disk()
        self.assertEqual((d["read"], d["sent"], d["changed"]), (8 * MB, 8 * MB, BLOCK))
        self.assertNotEqual(d["root"], first["root"])
        self.assertEqual(r.vm()["change_source"], "full")
        self.assertEqual(self.list()[-1]["kind"], "full")
        self.assert_image()

    def test_bwlimit(self):
        """At most the rate: a run of 12 MiB at 4 MiB/s cannot be over in 1.5 s."""
        self.add_vm(disks=[self.disk_of(6 * MB, [(0, 6 * MB)], seed=n) for n in (1, 2)])
        began = time.monotonic()
        self.run_mirror("web 01", "--bwlimit", "4M")
        self.assertGreater(time.monotonic() - began, 1.5)
        self.assert_image(slot="scsi0:0")
        self.assert_image(slot="scsi0:1")

    def test_dry_run(self):
        """Nothing changes: no snapshot, no upload, no file."""
        self.first()
        self.scribble("web 01", "scsi0:0", [(MB, BLOCK)], seed=3)
        for target in (self.mirror, self.path("other")):
            old, self.mirror = self.mirror, target
            before = self.everything()
            calls = len(self.host.calls())
            self.run_mirror("web 01", "--dry-run")
            self.assertEqual(self.everything(), before)
            words = " ".join(w for c in self.host.calls()[calls:] for w in c["argv"])
            for bad in ("snapshot.create", "snapshot.remove", "mkdir", "removeall"):
                self.assertNotIn(bad, words)
            self.assertFalse([s for s in self.host.sessions()[-12:] if "mkdir" in s or "cat >" in s])
            self.mirror = old
        self.assertEqual(self.run_mirror("web 01").disk()["changed"], BLOCK)

    def everything(self):
        """Names, sizes and times of all files of the mirror and of the host's datastore."""
        found = {}
        for top in (self.mirror, self.host.root + "/vmfs/volumes"):
            for folder, folders, files in os.walk(top):
                for name in folders + files:
                    path = os.path.join(folder, name)
                    st = os.lstat(path)
                    if name not in ("run-lock", "lock", ".vmferry-lock"):
                        found[path] = (st.st_mode, st.st_size, st.st_mtime_ns, st.st_ino)
        return found


class Touched(harness.MirrorTest):
    """Somebody had his hands in the mirror."""

    def first(self):
        self.add_vm(disks=[self.disk_of(16 * MB, [(0, 8 * MB)])])
        self.run_mirror("web 01")

    def said(self, r, *words):
        self.assertTrue(any(all(w in line for w in words) for line in
                            r.err.splitlines() + r.warnings()), "%s: %s" % (words, r))

    def write_image(self, offset, data, keep_time=False):
        st = os.stat(self.image())
        os.chmod(self.image(), 0o644)
        with open(self.image(), "r+b") as f:
            f.seek(offset)
            f.write(data)
        os.chmod(self.image(), 0o444)
        if keep_time:
            os.utime(self.image(), ns=(st.st_atime_ns, st.st_mtime_ns))

    def test_times(self):
        """Only the time differs: the image is read anew, nothing is sent."""
        self.first()
        os.utime(self.image())
        r = self.run_mirror("web 01")
        self.said(r, "disk-scsi0-0.raw")
        self.assertEqual((r.disk()["changed"], r.disk()["sent"]), (0, 0))
        self.assert_image()
        again = self.run_mirror("web 01")
        self.assertNotIn("disk-scsi0-0.raw", again.err)

    def test_content(self):
        for keep_time in (False, True):     # the ctime cannot be put back
            with self.subTest(keep_time=keep_time):
                if not os.path.exists(self.mirror):
                    self.first()
                self.write_image(3 * MB + 100, b"somebody was here", keep_time)
                self.write_image(12 * MB, b"and here", keep_time)
                r = self.run_mirror("web 01")
                self.said(r, "disk-scsi0-0.raw")
                self.assertEqual(r.disk()["sent"] > 0, True)
                self.assertLess(r.disk()["sent"], 2 * BLOCK)
                self.assert_image()
                self.assert_checked()

    def test_check_finds_it(self):
        self.first()
        self.write_image(3 * MB + 100, b"somebody was here")
        self.vmferry("check", "--json", "--mirror", self.mirror, code=5)
        self.run_mirror("web 01")
        self.vmferry("check", "--json", "--mirror", self.mirror)
        self.assert_image()

    def test_truncated_and_replaced(self):
        self.first()
        os.chmod(self.image(), 0o644)
        os.truncate(self.image(), 5 * MB)
        self.run_mirror("web 01")
        self.assert_image()
        copy = self.path("copy")
        shutil.copyfile(self.image(), copy)
        os.unlink(self.image())
        os.rename(copy, self.image())
        self.assertEqual(self.run_mirror("web 01").disk()["sent"], 0)
        self.assert_image()
        self.assert_checked()

    def test_image_is_gone(self):
        self.first()
        os.unlink(self.image())
        r = self.run_mirror("web 01")
        self.assertEqual(r.disk()["read"], 8 * MB)
        self.assert_image()
        self.assert_checked()

    def test_digests_damaged(self):
        self.first()
        store = os.path.join(self.mirror, "web 01", ".vmferry")
        name, = [n for n in os.listdir(store) if n.startswith("digests-")]
        with open(os.path.join(store, name), "r+b") as f:
            f.seek(16 * 5)
            f.write(os.urandom(16))
        self.assertEqual(self.run_mirror("web 01").disk()["changed"], 0)
        self.assert_image()
        self.assert_checked()


if __name__ == "__main__":
    harness.main()
