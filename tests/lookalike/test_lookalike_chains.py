#!/usr/bin/env python3
"""The look-alike's chains: real deltas, deep ones, on several datastores, linked clones; what they
hold is compared with the record that knows nothing of them."""

import json
import os
import struct
import subprocess
import time

from selftest import MB, Base, main, same, wait_for
from hostd import dictfile
from hostd.disk import Chain


class Chains(Base):
    """Chains of real deltas against the independent record."""
    shared = True
    knobs = {"zero-writes": "mark"}

    def snapshot(self, vmid, name):
        return self.host.ask("snapshot-create", vm=vmid, name=name)

    def write(self, vmid, seed, slot="scsi0:0", size=16 * MB):
        """Some writes of all kinds, the same for equal seeds."""
        for n in range(8):
            at = (seed * 7919 + n * 104729) * 512 % (size - 300000) // 512 * 512
            self.host.ask("guest-write", vm=vmid, slot=slot, offset=at, seed=seed * 100 + n,
                          length=(512, 4096, 9000, 200000)[n % 4])
        self.host.ask("guest-write", vm=vmid, slot=slot, offset=seed * 65536 % size, length=24576,
                      zero=True)
        self.host.ask("guest-write", vm=vmid, slot=slot, offset=seed * 98304 % size, length=20000,
                      unmap=True)

    def read_chain(self, path, out):
        """A frozen link of the host, read by the look-alike's own reader."""
        dictfile.ROOT = self.host.root
        with Chain(self.host.root + path) as chain:
            chain.copy_to(out)
            return [link.path for link in chain.links]

    def frozen(self, vmid, snapshot, slot="scsi0:0"):
        with open(os.path.join(self.host.dir, "state.json"), encoding="utf-8") as f:
            state = json.load(f)
        for record in state["machines"]:
            if record["vmid"] == vmid:
                for s in record["snapshots"]:
                    if s["name"] == snapshot:
                        return s["disks"][slot][len(self.host.root):]
        raise KeyError(snapshot)

    def check_all(self, vmid, names, slot="scsi0:0"):
        for name in names:
            self.host.truth(vmid, slot, self.out("truth"), name)
            self.read_chain(self.frozen(vmid, name, slot), self.out("read"))
            self.assertTrue(same(self.out("truth"), self.out("read")), name)

    def test_three_snapshots_of_each_kind(self):
        for store, kind, suffix in (("v5", "VMFS-5", "delta"), ("v6", "VMFS-6", "sesparse"),
                                    ("nfs", "NFS", "delta")):
            self.host.add_datastore(store, kind=kind)
            name, vmid, folder = self.vm(datastore=store)
            for n, label in enumerate(("a", "b", "c"), 1):
                self.write(vmid, n)
                self.snapshot(vmid, label)
            self.write(vmid, 4)
            self.assertIn("%s-000003-%s.vmdk" % (name, suffix), self.ssh.text("ls " + folder))
            self.check_all(vmid, "abc")
            # Consolidation from the middle, the newest, the oldest: the rest stays right.
            self.host.truth(vmid, "scsi0:0", self.out("now"))
            for gone, left in ((2, "ac"), (3, "a"), (1, "")):
                self.host.ask("snapshot-remove", vm=vmid, id=gone)
                self.check_all(vmid, left)
                self.host.truth(vmid, "scsi0:0", self.out("t"))
                self.assertTrue(same(self.out("now"), self.out("t")))
            self.host.power(vmid, "off")
            self.read_chain("%s/%s.vmdk" % (folder, name), self.out("read"))
            self.assertTrue(same(self.out("now"), self.out("read")))
            self.assertNotIn("-00000", self.ssh.text("ls " + folder))

    def test_qemu_reads_frozen_links(self):
        self.turn("zero-writes", "store")
        for form in ("vmfsSparse", "seSparse"):
            name, vmid, folder = self.vm(deltas=form)
            for n, label in enumerate(("a", "b", "c"), 1):
                self.host.ask("guest-write", vm=vmid, slot="scsi0:0", offset=n * 512 * 77,
                              seed=n, length=MB + n * 1000)
                self.snapshot(vmid, label)
            tip = self.host.root + self.frozen(vmid, "c")
            subprocess.run(["qemu-img", "convert", "-f", "vmdk", "-O", "raw", tip,
                            self.out("qemu")], check=True, timeout=60)
            self.host.truth(vmid, "scsi0:0", self.out("truth"), "c")
            self.assertTrue(same(self.out("truth"), self.out("qemu")), form)

    def test_mixed_forms_and_a_deep_chain(self):
        name, vmid, folder = self.vm(disks=[{"size": "4m"}])
        names = []
        for n in range(1, 21):
            self.host.knob("deltas", ("seSparse", "vmfsSparse", "auto")[n % 3])
            self.snapshot(vmid, "s%d" % n)
            names.append("s%d" % n)
            self.write(vmid, n, size=4 * MB)
        self.host.knob("deltas", "auto")
        self.check_all(vmid, names)
        for gone in (20, 11, 10, 12, 1, 2):
            self.host.ask("snapshot-remove", vm=vmid, id=gone)
            names.remove("s%d" % gone)
        self.check_all(vmid, names)
        self.host.ask("snapshot-revert", vm=vmid, id=5)
        self.host.truth(vmid, "scsi0:0", self.out("now"))
        self.host.truth(vmid, "scsi0:0", self.out("five"), "s5")
        self.assertTrue(same(self.out("now"), self.out("five")))
        self.check_all(vmid, names)
        self.host.ask("snapshot-remove", vm=vmid, id=3, children=True)
        self.assertEqual(self.host.snapshots(vmid), [])
        self.read_chain("%s/%s.vmdk" % (folder, name), self.out("read"))
        self.assertTrue(same(self.out("now"), self.out("read")))

    def test_disks_on_several_datastores(self):
        self.host.add_datastore("far6", kind="VMFS-6")
        name, vmid, folder = self.vm(disks=[{"size": "4m"}, {"size": "4m", "datastore": "far6"}])
        self.snapshot(vmid, "a")
        for slot in ("scsi0:0", "scsi0:1"):
            self.write(vmid, 9, slot, 4 * MB)
        self.snapshot(vmid, "b")
        kinds = [self.frozen(vmid, "b", slot) for slot in ("scsi0:0", "scsi0:1")]
        self.assertEqual(os.path.dirname(kinds[0]), folder)
        self.assertNotEqual(os.path.dirname(kinds[1]), folder)
        self.assertIn("vmfsSparse", self.ssh.text("cat '%s'" % kinds[0]))
        self.assertIn("seSparse", self.ssh.text("cat '%s'" % kinds[1]))
        for slot in ("scsi0:0", "scsi0:1"):
            self.check_all(vmid, "ab", slot)

    def test_linked_clones(self):
        self.host.add_datastore("clones", kind="VMFS-6")
        name, vmid, folder = self.vm()
        self.snapshot(vmid, "first")
        self.write(vmid, 1)
        self.snapshot(vmid, "golden")
        self.write(vmid, 2)
        made = []
        for store in ("datastore1", "clones"):
            made.append(self.vm(datastore=store, disks=[
                {"clone_of": {"vm": vmid, "slot": "scsi0:0", "snapshot": "golden"}}])[1:])
        self.host.truth(vmid, "scsi0:0", self.out("golden"), "golden")
        for n, (clone, place) in enumerate(made):
            self.host.truth(clone, "scsi0:0", self.out("t"))
            self.assertTrue(same(self.out("golden"), self.out("t")))
            self.write(clone, 5 + n)
            self.host.truth(clone, "scsi0:0", self.out("before"))
            self.snapshot(clone, "mine")
            self.write(clone, 8 + n)
            links = self.read_chain(self.frozen(clone, "mine"), self.out("read"))
            self.assertTrue(same(self.out("before"), self.out("read")))
            self.assertEqual([os.path.dirname(p) for p in links],
                             [self.host.root + place] + [self.host.root + folder] * 2)
            self.host.truth(clone, "scsi0:0", self.out("truth"), "mine")
            self.assertTrue(same(self.out("truth"), self.out("read")))
            self.assertIn('parentFileNameHint="%s/%s-000001.vmdk"' % (folder, name),
                          self.ssh.text("cat %s/*-000001.vmdk" % place))
        # The parent loses its snapshots: what the clones stand on stays.
        self.host.ask("snapshot-remove", vm=vmid, id=1, children=True)
        for clone, place in made:
            self.check_all(clone, ["mine"])
            self.host.ask("snapshot-remove", vm=clone, id=1)
            self.host.truth(clone, "scsi0:0", self.out("now"))
            self.host.power(clone, "off")
            leaf = self.ssh.text("ls %s/*-00000?.vmdk" % place).split()
            self.assertEqual(len(leaf), 1)
            self.read_chain(leaf[0], self.out("read"))
            self.assertTrue(same(self.out("now"), self.out("read")))

    def test_a_writing_guest_at_any_moment(self):
        for form in ("vmfsSparse", "seSparse"):
            name, vmid, folder = self.vm(deltas=form)
            self.host.ask("guest-start", vm=vmid, rate=500, seed=3, pattern="mixed")
            names = []
            for n in range(4):
                before = self.host.vm(vmid)["writes"]
                wait_for(lambda: self.host.vm(vmid)["writes"] > before + 15)
                names.append("s%d" % n)
                self.snapshot(vmid, names[-1])
            self.check_all(vmid, names)
            time.sleep(0.1)
            self.host.ask("snapshot-remove", vm=vmid, id=2)
            self.check_all(vmid, names[:1] + names[2:])
            self.host.ask("guest-stop", vm=vmid)

    def replay(self, path):
        dictfile.ROOT = self.host.root
        with Chain(self.host.root + path) as chain:
            return struct.unpack("<Q", os.pread(chain.links[0].fd, 8, 512 + 24))[0]

    def test_the_journal_of_a_leaf(self):
        self.turn("journal", "leaf")
        name, vmid, folder = self.vm(disks=[{"size": "1m"}], deltas="seSparse")
        leaf = "%s/%s-%%06d.vmdk" % (folder, name)
        self.snapshot(vmid, "a")
        self.assertEqual(self.replay(leaf % 1), 1)
        self.snapshot(vmid, "b")
        self.assertEqual((self.replay(leaf % 1), self.replay(leaf % 2)), (0, 1))
        self.host.knob("journal", "0.5")
        self.snapshot(vmid, "c")
        self.assertEqual(self.replay(leaf % 2), 1)
        self.assertTrue(wait_for(lambda: self.replay(leaf % 2) == 0))
        self.host.knob("journal", "stuck")
        self.snapshot(vmid, "d")
        self.assertEqual((self.replay(leaf % 3), self.replay(leaf % 4)), (1, 1))
        self.host.power(vmid, "off")
        self.assertEqual(self.replay(leaf % 4), 0)
        self.host.power(vmid, "on")
        self.assertEqual(self.replay(leaf % 4), 1)
        self.host.knob("journal", "clean")

    def test_change_tracking_files(self):
        name, vmid, folder = self.vm(disks=[{"size": "1m", "ctk": True}])
        self.snapshot(vmid, "a")
        text = self.ssh.text("cat %s/%s-000001.vmdk" % (folder, name))
        self.assertIn('# Change Tracking File\nchangeTrackPath="%s-000001-ctk.vmdk"\n' % name, text)
        self.assertIn("version=3\n", text)
        self.assertIn("%s-ctk.vmdk" % name, self.ssh.text("ls " + folder))
        self.host.ask("snapshot-remove", vm=vmid, id=1)
        self.assertNotIn("000001", self.ssh.text("ls " + folder))

    def test_large_disks_have_sesparse_deltas(self):
        self.host.add_datastore("five", kind="VMFS-5", size="9t")
        name, vmid, folder = self.vm(datastore="five", disks=[
            {"size": "3t", "content": {"kind": "empty"}}])
        self.snapshot(vmid, "a")
        self.host.ask("guest-write", vm=vmid, slot="scsi0:0", offset=(3 << 40) - 4096, length=4096,
                      seed=1)
        self.snapshot(vmid, "b")
        self.assertIn("000001-sesparse.vmdk", self.ssh.text("ls " + folder))
        dictfile.ROOT = self.host.root
        with Chain(self.host.root + self.frozen(vmid, "b")) as chain:
            self.assertEqual(chain.ranges(), [((3 << 40) - 4096, 3 << 40)])


if __name__ == "__main__":
    main()
