#!/usr/bin/env python3
"""Disks that snapshots leave out, links that are not read, snapshots of others."""

import os
import signal

import harness
from harness import MB


class Forms(harness.MirrorTest):

    def snapshot_calls(self):
        return [c["argv"] for c in self.host.calls("vim-cmd")
                if any(w.startswith("vmsvc/snapshot.") for w in c["argv"])]

    def two(self, power="on", **second):
        self.add_vm(disks=[self.disk_of(8 * MB, seed=1), self.disk_of(4 * MB, seed=2, **second)],
                    power=power)

    def partial(self, slot="scsi0:1"):
        """Running: the disk is left out and said; excluded, all is well."""
        r = self.run_mirror("web 01", code=3)
        v = r.vm()
        self.assertEqual((v["outcome"], v["exit_code"], v["generation"]), ("partial", 3, 1))
        self.assertTrue(any(slot in w for w in r.warnings()), str(r))
        left = r.disk(slot)
        self.assertTrue(left["left_out"])
        self.assertIsNotNone(left["error"])
        self.assert_image()
        self.assertFalse(os.path.exists(self.image(slot)))
        r = self.run_mirror("web 01", "--exclude-disk", slot)
        self.assertEqual(r.vm()["outcome"], "ok")
        self.assert_image()
        self.assertEqual([g["outcome"] for g in self.list()], ["ok"])
        return r

    def test_independent_running(self):
        for mode in ("independent-persistent", "independent-nonpersistent"):
            with self.subTest(mode=mode):
                self.two(mode=mode)
                self.partial()
                self.check_host()
                self.mirror += "+"

    def test_independent_off(self):
        """Nothing writes: read directly, with a warning; the other disk below our snapshot."""
        self.two(power="off", mode="independent-persistent")
        r = self.run_mirror("web 01")
        self.assertTrue(any("scsi0:1" in w and "independent" in w for w in r.warnings()), str(r))
        self.assert_image(slot="scsi0:0")
        self.assert_image(slot="scsi0:1", snapshot=None)
        self.assert_checked()

    def test_independent_started_meanwhile(self):
        """The lock keeps the VM from starting while the independent disk is read."""
        self.add_vm(disks=[self.disk_of(24 * MB, [(0, 24 * MB)], mode="independent-persistent")],
                    power="off")
        running = self.start_mirror("web 01", "--bwlimit", "12M")
        running.wait_sent(2 * MB)
        with self.assertRaisesRegex(Exception, "lock"):
            self.host.power("web 01", "on")
        self.assertEqual(running.end().code, 0)
        self.assert_image(snapshot=None)

    def test_virtual_rdm(self):
        self.two(rdm="virtual")
        self.partial()

    def test_physical_rdm_running(self):
        """It forbids snapshots: the whole VM cannot be read while it runs."""
        self.two(rdm="physical")
        before = len(self.snapshot_calls())
        r = self.run_mirror("web 01", code=10)
        self.assertIn("scsi0:1", r.err)
        self.assertEqual(len(self.snapshot_calls()), before)
        self.assertFalse(os.path.exists(os.path.join(self.mirror, "web 01")))

    def test_physical_rdm_off(self):
        self.two(power="off", rdm="physical")
        before = len(self.snapshot_calls())
        r = self.run_mirror("web 01", code=3)
        self.assertEqual(r.vm()["outcome"], "partial")
        self.assertEqual(len(self.snapshot_calls()), before)
        self.assertTrue(r.warnings())
        self.assert_image(snapshot=None)
        self.run_mirror("web 01", "--exclude-disk", "scsi0:1")
        self.assertEqual(len(self.snapshot_calls()), before)
        self.assert_image(snapshot=None)

    def test_shared_disk(self):
        self.two(power="off", sharing="multi-writer")
        r = self.run_mirror("web 01")
        self.assertTrue(any("shared" in w for w in r.warnings()), str(r))
        self.assert_image(slot="scsi0:0", snapshot=None)
        self.assert_image(slot="scsi0:1", snapshot=None)
        self.host.power("web 01", "on")
        self.run_mirror("web 01", code=10)
        self.assert_image(slot="scsi0:0", snapshot=None)

    def test_link_of_a_form_that_is_not_read(self):
        """Refused by its name, before anything is done; without it, all is well again."""
        self.add_vm(disks=[self.disk_of(8 * MB)])
        self.run_mirror("web 01")
        mirrored = self.truth("web 01", name="mirrored")
        self.host.ask("snapshot-create", vm="web 01", name="before the update")
        mine = self.host.snapshots("web 01")
        leaf = os.path.join(self.host.root + os.path.dirname(self.host.vm("web 01")["vmx"]),
                            "web 01-000001.vmdk")
        with open(leaf, encoding="utf-8") as f:
            text = f.read()
        with open(leaf, "w", encoding="utf-8") as f:
            f.write(text.replace('createType="', 'createType="vsan'))
        calls = len(self.snapshot_calls())
        r = self.run_mirror("web 01", code=10)
        self.assertIn("scsi0:0", r.err)
        self.assertIn("web 01-000001.vmdk", r.err)
        self.assertEqual(self.host.snapshots("web 01"), mine)
        self.assertEqual(len(self.snapshot_calls()), calls)
        self.assert_same(self.image(), mirrored)
        self.assertEqual([g["generation"] for g in self.list()], [1])
        self.assertEqual(self.leftovers()["files"], [])
        with open(leaf, "w", encoding="utf-8") as f:
            f.write(text)
        self.run_mirror("web 01")
        self.assert_image()
        self.assertEqual(self.host.snapshots("web 01"), mine)

    def test_snapshot_taken_by_a_user_meanwhile(self):
        """Above ours, while we read: ours goes, theirs stays, the image is right."""
        self.add_vm(disks=[self.disk_of(24 * MB, [(0, 24 * MB)])])
        running = self.start_mirror("web 01", "--bwlimit", "12M")
        running.wait_sent(2 * MB)
        ours = self.host.snapshots("web 01")[0]["id"]
        self.scribble("web 01", "scsi0:0", [(20 * MB, MB)], seed=4)
        self.host.ask("snapshot-create", vm="web 01", name="theirs")
        r = running.end()
        self.assertEqual([s["name"] for s in self.host.snapshots("web 01")], ["theirs"])
        self.assertIn(r.code, (0, 4), str(r))
        if r.code == 0:
            self.assert_image(snapshot=ours)

    def test_young_run_snapshot_of_another_receiver(self):
        """Two receivers at one VM: the second one goes away, and leaves the first one's alone."""
        self.add_vm(disks=[self.disk_of(24 * MB, [(0, 24 * MB)])])
        running = self.start_mirror("web 01", "--bwlimit", "2M")     # longer than the other waits
        running.wait_sent(1)
        mine = self.host.snapshots("web 01")
        state, mirror = self.state, self.mirror
        self.state, self.mirror = self.path("state-2"), self.path("mirror-2")
        r = self.run_mirror("web 01", "--lock-wait", "1s", code=None)
        self.assertIn(r.code, (6, 10), str(r))
        self.assertEqual(self.host.snapshots("web 01"), mine)
        self.state, self.mirror = state, mirror
        running.signal(signal.SIGTERM)
        self.assertEqual(running.end().code, 128 + signal.SIGTERM)


if __name__ == "__main__":
    harness.main()
