#!/usr/bin/env python3
"""Chains that the look-alike's running guests wrote, read by vmferry, against the look-alike's own
record of what the disks held: needs root."""

import json
import os
import random
import unittest

from harness import BIN, MB, OK, REFUSED, SOURCE, Folder, convert, first_difference, info

os.environ.setdefault("LOOKALIKE_BIN", BIN)

from lookalike import Lookalike                                     # noqa: E402


class WithHost(Folder):
    profile = "6.7"

    @classmethod
    def setUpClass(cls):
        cls.host = Lookalike.start(profile=cls.profile)
        cls.volumes = []
        for name, kind in (("five", "VMFS-5"), ("six", "VMFS-6"), ("net", "NFS")):
            store = cls.host.add_datastore(name, kind=kind)
            cls.volumes += ["--volume", "%s=%s" % (store["path"], cls.host.root + store["path"])]

    @classmethod
    def tearDownClass(cls):
        defects = cls.host.defects()
        cls.host.stop()
        assert not defects, defects

    def frozen(self, vmid, name, slot):
        """The link that a snapshot froze, as a file of this machine."""
        with open(os.path.join(self.host.dir, "state.json"), encoding="utf-8") as f:
            machines = json.load(f)["machines"]
        (snapshot,) = [s for m in machines if m["vmid"] == vmid for s in m["snapshots"]
                       if s["name"] == name]
        return snapshot["disks"][slot]

    def add(self, name, **spec):
        spec.setdefault("disks", [{"size": "12m"}])
        vmid = self.host.add_vm(dict(spec, name=name, power="on"))["vmid"]
        self.addCleanup(self.host.ask, "vm-remove", vm=vmid)
        self.addCleanup(self.host.power, vmid, "off")
        return vmid

    def scribble(self, vmid, seed, slot="scsi0:0", size=12 * MB):
        r = random.Random(seed)
        for _ in range(12):
            length = r.choice((512, 4096, 70000, MB))
            how = r.choice(({"seed": r.random()}, {"seed": r.random()}, {"zero": True},
                            {"unmap": True}))
            self.host.ask("guest-write", vm=vmid, slot=slot, length=length,
                          offset=r.randrange(0, size - length) // 512 * 512, **how)

    def check(self, vmid, name, slot="scsi0:0", forms=None):
        """vmferry reads out of the snapshot's chain what the disk held then."""
        tip = self.frozen(vmid, name, slot)
        ours, truth = self.path("ours"), self.path("truth")
        rc, _, err = convert(tip, ours, "--yes", *self.volumes)
        self.assertEqual(rc, OK, err)
        self.host.truth(vmid, slot, truth, name)
        self.assertIsNone(first_difference(ours, truth), (name, slot))
        if forms:
            rc, found = info(tip, *self.volumes)
            self.assertEqual((rc, [x["format"] for x in found["links"]]), (OK, forms))


class OnNewerHost(WithHost):
    """The seSparse header of newer hosts; all forms."""
    profile = "8.0"

    def test_three_snapshots_of_each_kind(self):
        for store, form in (("five", "COWD"), ("six", "seSparse"), ("net", "COWD")):
            vmid = self.add("vm " + store, datastore=store)
            self.host.ask("guest-start", vm=vmid, rate=200, seed=5, pattern="mixed")
            for n, name in enumerate(("a", "b", "c")):
                self.scribble(vmid, n)
                self.host.ask("snapshot-create", vm=vmid, name=name)
            self.scribble(vmid, 9)
            for n, name in enumerate(("a", "b", "c")):
                self.check(vmid, name, forms=[form] * n + ["flat"])
            self.host.ask("snapshot-remove", vm=vmid, id=2)
            self.check(vmid, "a", forms=["flat"])
            self.check(vmid, "c", forms=[form, "flat"])
            self.host.ask("guest-stop", vm=vmid)


class Guests(WithHost):
    """Frozen links of VMs that go on writing."""

    def test_mixed_forms_on_several_datastores(self):
        vmid = self.add("mixed", datastore="five", disks=[
            {"size": "12m"}, {"size": "12m", "datastore": "six"}])
        for n in range(1, 9):
            self.host.knob("deltas", ("auto", "seSparse", "vmfsSparse")[n % 3])
            for slot in ("scsi0:0", "scsi0:1"):
                self.scribble(vmid, n, slot)
            self.host.ask("snapshot-create", vm=vmid, name="s%d" % n)
        self.host.knob("deltas", "auto")
        for n in range(1, 9):
            for slot in ("scsi0:0", "scsi0:1"):
                self.check(vmid, "s%d" % n, slot)
        self.host.ask("snapshot-revert", vm=vmid, id=4)
        self.host.power(vmid, "on")
        self.scribble(vmid, 20)
        self.host.ask("snapshot-create", vm=vmid, name="branch")
        self.check(vmid, "branch")
        self.check(vmid, "s8")

    def test_linked_clones(self):
        parent = self.add("parent", datastore="five")
        self.scribble(parent, 1)
        self.host.ask("snapshot-create", vm=parent, name="one")
        self.scribble(parent, 2)
        self.host.ask("snapshot-create", vm=parent, name="golden")
        self.scribble(parent, 3)
        for store, form in (("five", "COWD"), ("six", "seSparse")):
            clone = self.add("clone on " + store, datastore=store, disks=[
                {"clone_of": {"vm": parent, "slot": "scsi0:0", "snapshot": "golden"}}])
            self.scribble(clone, 4)
            self.host.ask("snapshot-create", vm=clone, name="mine")
            self.scribble(clone, 5)
            self.check(clone, "mine", forms=[form, "COWD", "flat"])
            # Without the parent's datastore its name leads nowhere, whatever lies there.
            rc, _, err = convert(self.frozen(clone, "mine", "scsi0:0"), self.path("o"))
            self.assertEqual(rc, REFUSED, err)

    def test_a_journal_that_is_not_replayed_yet(self):
        vmid = self.add("journal", datastore="six")
        self.host.knob("journal", "leaf")
        self.host.ask("snapshot-create", vm=vmid, name="a")
        self.scribble(vmid, 1)
        leaf = self.host.root + self.host.vm(vmid)["disks"][0]["path"]
        rc, _, err = convert(leaf, self.path("o"), *self.volumes)
        self.assertEqual(rc, SOURCE, err)
        self.host.ask("snapshot-create", vm=vmid, name="b")
        self.host.knob("journal", "clean")
        self.check(vmid, "b")


if __name__ == "__main__":
    unittest.main()
