#!/usr/bin/env python3
"""VMs that have snapshots already, and linked clones: read through their whole chain."""

import os

import harness
from harness import BLOCK, MB

FORMS = ("vmfsSparse", "seSparse")


class ChainTest(harness.MirrorTest):
    datastores = [{"name": "datastore1", "kind": "VMFS-6", "size": 1 << 40},
                  {"name": "old one", "kind": "VMFS-5", "size": 1 << 40}]

    def layered(self, form, links=3, name="web 01", **more):
        """A VM with so many snapshots of its user, each with something else written above it."""
        self.add_vm(name, disks=[self.disk_of(16 * MB, seed=3), self.disk_of(3 * MB, seed=4)],
                    deltas=form, **more)
        for n in range(links):
            self.host.ask("snapshot-create", vm=name, name="mine %d" % n)
            self.scribble(name, "scsi0:0", [(n * MB + 512, 700), (5 * MB + n * 4096, 70000),
                                            (15 * MB, 3 * 512)], seed=10 + n)
            self.scribble(name, "scsi0:0", [(n * 2 * MB, 128 << 10), (7 * MB + n * 512, 512)])
            self.host.ask("guest-write", vm=name, slot="scsi0:0", offset=8 * MB + n * BLOCK,
                          length=BLOCK, unmap=True)
            self.scribble(name, "scsi0:1", [(n * BLOCK, 10 * 512)], seed=20 + n)

    def mirrored(self, *options, path="agent", generations=(1, 2)):
        users = self.host.snapshots("web 01")
        for generation in generations:
            r = self.run_mirror("web 01", *options)
            self.assertEqual(r.vm()["generation"], generation)
            self.assertEqual(r.vm()["read_path"], path)
            self.assert_image(slot="scsi0:0")
            self.assert_image(slot="scsi0:1")
            self.assertEqual(self.host.snapshots("web 01"), users)
            self.scribble("web 01", "scsi0:0", [(9 * MB, 2 * BLOCK)], seed=30 + generation)
        self.assert_checked()
        return r


class On67(ChainTest):
    profile = "6.7"

    def test_three_snapshots_while_the_guest_writes(self):
        for form in FORMS:
            with self.subTest(form):
                self.layered(form)
                self.host.ask("guest-start", vm="web 01", rate=200)
                self.mirrored()
                self.assertGreater(self.host.ask("guest-stop", vm="web 01"), 20)
                self.forget()

    def forget(self):
        """Make room for the next form."""
        self.host.power("web 01", "off")
        self.host.ask("vm-remove", vm=self.host.vm("web 01")["vmid"])
        self.mirror += "-next"

    def test_through_ssh(self):
        self.layered("seSparse")
        self.mirrored("--data-channel", "ssh")

    def test_a_refresh_costs_what_changed(self):
        """Digests do not care in which link a block lies."""
        self.layered("seSparse", links=1)
        self.run_mirror("web 01")
        self.host.ask("snapshot-create", vm="web 01", name="and another")
        self.scribble("web 01", "scsi0:0", [(4 * MB, 2 * BLOCK)], seed=7)
        r = self.run_mirror("web 01")
        self.assertEqual(r.disk()["changed"], 2 * BLOCK)
        self.assertEqual(r.disk("scsi0:1")["changed"], 0)
        self.assert_image()

    def test_snapshots_come_and_go_between_runs(self):
        self.layered("vmfsSparse", links=2)
        self.run_mirror("web 01")
        first, second = (s["id"] for s in self.host.snapshots("web 01"))
        self.host.ask("snapshot-revert", vm="web 01", id=first)
        self.host.power("web 01", "on") if self.power() != "on" else None
        self.run_mirror("web 01")
        self.assert_image()
        self.host.ask("snapshot-remove", vm="web 01", id=second)
        self.scribble("web 01", "scsi0:0", [(3 * MB, BLOCK)], seed=8)
        self.run_mirror("web 01")
        self.assert_image()
        self.host.ask("snapshot-remove", vm="web 01", id=first)
        self.run_mirror("web 01")
        self.assert_image()
        self.assertEqual(self.host.snapshots("web 01"), [])
        self.assert_checked()

    def power(self):
        return self.host.vm("web 01")["power"]

    def test_linked_clone_on_another_datastore(self):
        self.layered("seSparse", links=1, name="master")
        frozen = self.host.snapshots("master")[0]["id"]
        self.add_vm("web 01", datastore="old one", disks=[
            {"clone_of": {"vm": "master", "slot": "scsi0:0", "snapshot": frozen}},
            self.disk_of(2 * MB, seed=9)])
        self.scribble("web 01", "scsi0:0", [(MB, BLOCK), (11 * MB, 999)], seed=5)
        for _ in range(2):
            self.run_mirror("web 01")
            self.assert_image()
            self.assert_image(slot="scsi0:1")
            self.scribble("web 01", "scsi0:0", [(2 * MB, 5000)], seed=6)
        self.run_mirror("master")
        self.assert_image("master")

    def test_suspended(self):
        """Read as it is, the live link included: nobody writes to it."""
        self.layered("vmfsSparse", links=2)
        self.host.power("web 01", "suspend")
        r = self.run_mirror("web 01")
        self.assertEqual(r.vm()["consistency"], "suspended")
        self.assert_image(snapshot=None)

    def test_cut_on_the_way(self):
        self.layered("seSparse", links=2)
        running = self.start_mirror("web 01", "--bwlimit", "4M", "--compress", "none")
        running.wait_sent(2 * MB)
        self.host.ask("kill-sessions")
        r = running.end()
        self.assertEqual(r.code, 0, str(r))
        self.assert_image()

    def test_agents_opens_only_links_of_known_volumes(self):
        """A descriptor that points out of the datastores: refused before a snapshot is taken."""
        self.layered("seSparse", links=1)
        vmx = self.host.vm("web 01")["vmx"]
        leaf = os.path.join(self.host.root + os.path.dirname(vmx), "web 01-000001.vmdk")
        with open(leaf, encoding="utf-8") as f:
            text = f.read()
        self.addCleanup(self.put, leaf, text)
        for hint in ("/etc/passwd", "../../../../etc/passwd", "vsan://x"):
            self.put(leaf, text.replace('parentFileNameHint="web 01.vmdk"',
                                        'parentFileNameHint="%s"' % hint))
            r = self.run_mirror("web 01", code=None)
            self.assertIn(r.code, (4, 11), str(r))
            self.assertIn("scsi0:0", r.err)
            self.assertEqual(len(self.host.snapshots("web 01")), 1)
        self.put(leaf, text)
        self.run_mirror("web 01")
        self.assert_image()

    @staticmethod
    def put(path, text):
        with open(path, "w", encoding="utf-8") as f:
            f.write(text)


class On80(ChainTest):
    """The agent is refused: the same readers over dd."""
    profile = "8.0"

    def test_by_dd(self):
        self.layered("seSparse")
        self.mirrored(path="ssh-dd")

    def test_cowd_by_dd(self):
        self.layered("vmfsSparse", links=4)     # more files than may have a dd at a time
        self.mirrored(path="ssh-dd")


class On80WithAgent(ChainTest):
    profile = "8.0"
    knobs = {"exec-installed-only": "0"}

    def test_both_forms(self):
        self.layered("seSparse")
        self.mirrored()


if __name__ == "__main__":
    harness.main()
