#!/usr/bin/env python3
"""What others do on the host at a chosen moment, and what becomes of disks when they do."""

import os

from selftest import MB, Base, main, same, wait_for


class Events(Base):
    shared = True
    forms = ("vmfsSparse", "seSparse")

    def tearDown(self):
        self.host.ask("events-clear")

    def fired(self):
        return [(e["fired"], e["errors"]) for e in self.host.ask("events")]

    def write(self, vmid, offset, seed, length=5000):
        self.host.ask("guest-write", vm=vmid, slot="scsi0:0", offset=offset, seed=seed,
                      length=length // 512 * 512)

    def truth(self, vmid, name, snapshot=None):
        self.host.truth(vmid, "scsi0:0", self.out(name), snapshot)
        return self.out(name)

    def test_before_and_after_a_command(self):
        name, vmid, _ = self.vm()
        write = {"do": "guest-write", "vm": vmid, "slot": "scsi0:0", "offset": MB, "length": 512}
        create = "vim-cmd vmsvc/snapshot.create %d " % vmid
        self.host.ask("event-add", match="snapshot.create", requests=[dict(write, seed=1)])
        self.host.ask("event-add", match="snapshot.create", requests=[dict(write, seed=2)],
                      when="after")
        self.ssh.run(create + "first")
        self.assertEqual(self.fired(), [(True, []), (True, [])])
        self.host.ask("event-add", match="get.snapshotinfo", nth=2, requests=[
            {"do": "snapshot-remove", "vm": vmid, "id": 1},
            {"do": "snapshot-remove", "vm": vmid, "id": 77}])
        self.ssh.run("vim-cmd vmsvc/get.snapshotinfo %d" % vmid)
        self.assertEqual(len(self.host.snapshots(vmid)), 1)
        self.assertIn("first", self.truth_of_first(vmid))
        self.assertNotIn("first", self.ssh.text("vim-cmd vmsvc/get.snapshotinfo %d" % vmid))
        (done, errors) = self.fired()[-1]
        self.assertTrue(done)
        self.assertEqual(len(errors), 1)
        self.assertEqual([s["name"] for s in self.host.ask("snapshots-made", vm=vmid)], ["first"])

    def truth_of_first(self, vmid):
        """The snapshot holds the first write, the disk now the second."""
        import random
        for name, snapshot, seed in (("then", 1, 1), ("now", None, 2)):
            with open(self.truth(vmid, name, snapshot), "rb") as f:
                f.seek(MB)
                self.assertEqual(f.read(512), random.Random(seed).randbytes(512))
        return "first"

    def test_when_a_file_is_open(self):
        name, vmid, folder = self.vm("off")
        flat = "%s/%s-flat.vmdk" % (folder, name)
        self.host.ask("event-when-open", path=flat, requests=[
            {"do": "snapshot-create", "vm": vmid, "name": "seen"}])
        self.assertEqual(self.host.snapshots(vmid), [])
        self.ssh.run("exec 3<%s; for i in 1 2 3 4 5 6 7 8 9; do usleep 50000; done" % flat)
        wait_for(lambda: self.fired() == [(True, [])])
        self.assertEqual([s["name"] for s in self.host.snapshots(vmid)], ["seen"])

    def test_a_discarded_leaf(self):
        for form in self.forms:
            name, vmid, folder = self.vm(deltas=form)
            number = self.host.ask("snapshot-create", vm=vmid, name="kept")
            before = self.truth(vmid, "before")
            self.write(vmid, 0, 5)
            leaf = self.host.vm(vmid)["disks"][0]["path"]
            self.host.power(vmid, "off")
            self.host.ask("discard-leaves", vm=vmid)
            self.assertEqual(self.host.vm(vmid)["disks"][0]["path"], leaf)
            self.assertTrue(same(before, self.truth(vmid, "after")))
            self.host.power(vmid, "on")
            self.write(vmid, 3 * MB, 6)
            now = self.truth(vmid, "now")
            self.host.ask("snapshot-remove", vm=vmid, id=number)     # compares base and record
            self.assertTrue(same(now, "%s%s/%s-flat.vmdk" % (self.host.root, folder, name)))

    def test_another_disk_under_a_name(self):
        name, vmid, folder = self.vm()
        self.host.ask("snapshot-create", vm=vmid, name="kept")
        self.write(vmid, 0, 5)
        other = self.out("other")
        with open(other, "wb") as f:
            f.write(os.urandom(MB))
            f.truncate(16 * MB)
        self.host.power(vmid, "off")
        self.host.ask("disk-replace", vm=vmid, slot="scsi0:0", path=other)
        with open(other, "rb") as f, open(self.truth(vmid, "now"), "rb") as g:
            self.assertNotEqual(f.read(4096), g.read(4096))     # the delta above is what it was
            f.seek(8192)
            g.seek(8192)
            self.assertEqual(f.read(), g.read())
        self.host.ask("snapshot-create", vm=vmid, name="second")
        self.write(vmid, 2 * MB, 6)
        for s in reversed(self.host.snapshots(vmid)):
            self.host.ask("snapshot-remove", vm=vmid, id=s["id"])

    def test_moved(self):
        name, vmid, folder = self.vm()
        self.host.ask("snapshot-create", vm=vmid, name="kept")
        self.write(vmid, MB, 5)
        now = self.truth(vmid, "now")
        self.host.power(vmid, "off")
        new = self.host.ask("vm-move", vm=vmid, folder="moved here")
        self.addCleanup(self.drop, new)
        self.assertNotEqual(new, vmid)
        self.assertIn("moved here", self.host.vm(new)["vmx"])
        self.assertEqual([s["name"] for s in self.host.snapshots(new)], ["kept"])
        self.host.power(new, "on")
        self.host.ask("snapshot-create", vm=new, name="later")
        self.assertTrue(same(now, self.truth(new, "there", "later")))


if __name__ == "__main__":
    main()
