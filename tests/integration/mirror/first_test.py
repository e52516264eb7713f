#!/usr/bin/env python3
"""First mirrors: the image is what the disk held at our snapshot, whatever way the bytes came."""

import os
import re
import subprocess

import harness
from harness import BLOCK, MB, stored_bytes

HEX_ID = re.compile(r"^[0-9a-f]{32}$")


class Writing:
    """A guest that writes all the time, and every way to read its disks."""

    def two_disks(self):
        self.add_vm(disks=[self.disk_of(48 * MB, seed=3), self.disk_of(10 * MB, seed=4)])

    def mirrored(self, *options, channel, path="agent"):
        """Mirror while the guest writes, compare, and once more."""
        self.two_disks()
        self.host.ask("guest-start", vm="web 01", rate=200)
        for generation in (1, 2):
            r = self.run_mirror("web 01", *options)
            self.assertEqual(r.vm()["data_channel"], channel, str(r))
            self.assertEqual(r.vm()["read_path"], path)
            self.assertEqual(r.vm()["generation"], generation)
            self.assert_image(slot="scsi0:0")
            self.assert_image(slot="scsi0:1")
        writes = self.host.ask("guest-stop", vm="web 01")
        self.assertGreater(writes, 20, "the guest hardly wrote: nothing was shown")
        self.assertGreater(r.total("changed"), 0)
        self.assert_checked()
        self.assertEqual(self.host.snapshots("web 01"), [])
        return r

    def test_tcp(self):
        self.mirrored(channel="tcp")

    def test_tcp_forced(self):
        self.mirrored("--data-channel", "tcp", channel="tcp")

    def test_ssh(self):
        self.mirrored("--data-channel", "ssh", channel="ssh")

    def test_sealed_only(self):
        self.mirrored("--data-security", "auth", channel="tcp")


class On67(Writing, harness.MirrorTest):
    profile = "6.7"

    def test_compression(self):
        """Text shrinks with every level, and not without."""
        text = self.path("text")
        with open(text, "wb") as f:
            for n in range(8 * MB // 32):
                f.write(b"%-30d.\n" % n)
        self.add_vm(disks=[{"size": 8 * MB, "content": {"file": text}}])
        for level in ("none", "1", "9", "auto"):
            r = self.run_mirror("web 01", "--full", "--compress", level)
            self.assert_image()
            self.assertEqual(r.disk()["read"], 8 * MB)
            if r.vm()["generation"] > 1:
                self.assertEqual(r.disk()["changed"], 0)
            if level == "none":
                self.assertEqual(r.disk()["sent"], 8 * MB)
            else:
                self.assertLess(r.disk()["sent"], 3 * MB, level)
                self.assertGreater(r.disk()["sent"], 8 * MB // 1000, level)

    def test_off(self):
        self.add_vm(power="off")
        before = len(self.created())
        r = self.run_mirror("web 01")
        self.assertEqual(r.vm()["consistency"], "off")
        self.assert_image()
        # Also a VM that is off gets a snapshot, so that it may be powered on meanwhile.
        self.assertEqual(len(self.created()), before + 1)

    def created(self):
        return [c for c in self.host.calls("vim-cmd") if "vmsvc/snapshot.create" in c["argv"]]

    def test_off_and_on_meanwhile(self):
        self.add_vm(power="off", disks=[self.disk_of(48 * MB, [(0, 48 * MB)])])
        running = self.start_mirror("web 01", "--bwlimit", "20M")
        running.wait_sent(4 * MB)
        self.host.power("web 01", "on")
        self.host.ask("guest-start", vm="web 01", rate=200)
        r = running.end()
        self.assertEqual(r.code, 0, str(r))
        self.host.ask("guest-stop", vm="web 01")
        self.assertEqual(r.vm()["consistency"], "off")
        self.assert_image()

    def test_suspended(self):
        self.add_vm()
        self.host.power("web 01", "suspend")
        before = len(self.created())
        r = self.run_mirror("web 01")
        self.assertEqual(r.vm()["consistency"], "suspended")
        self.assertTrue(any("suspended" in w for w in r.warnings()), str(r))
        self.assertEqual(len(self.created()), before)
        self.assert_image(snapshot=None)

    def test_quiesce(self):
        self.add_vm()
        self.assertEqual(self.run_mirror("web 01").vm()["consistency"], "quiesced")
        self.assertEqual(self.run_mirror("web 01", "--quiesce", "no").vm()["consistency"], "crash")
        self.knob("create-quiesce", "fail")
        r = self.run_mirror("web 01")
        self.assertEqual(r.vm()["consistency"], "crash")
        self.assertIn("could not be quiesced", r.err)
        r = self.run_mirror("web 01", "--quiesce", "require", code=10)
        self.assertIsNone(r.vm()["generation"])
        self.assertEqual([g["consistency"] for g in self.list()], ["crash"])

    def test_holes_of_the_map(self):
        """A sparse thin disk: what the host's map calls a hole is not read, only sampled."""
        size = 512 * MB
        self.add_vm(disks=[self.disk_of(size, [(0, 4 * MB), (300 * MB, 4 * MB), (size - MB, MB)])])
        for options in ((), ("--data-channel", "ssh")):
            r = self.run_mirror("web 01", "--full", *options)
            d = r.disk()
            self.assertEqual(d["allocated"], 9 * MB)
            self.assertEqual(d["read"], 9 * MB)
            self.assertEqual(d["sampled"], 64 * MB)
            self.assert_image()
        self.assertLess(stored_bytes(self.image()), 10 * MB)
        self.assertEqual(r.warnings(), [])

    def test_thick_disk_with_unwritten_blocks(self):
        """Z- extents are allocated but read as zeros: holes for us."""
        size = 256 * MB
        self.add_vm(disks=[self.disk_of(size, [(MB, 4 * MB), (200 * MB, 2 * MB)], thin=False)])
        r = self.run_mirror("web 01")
        self.assertEqual(r.disk()["read"], 6 * MB)
        self.assertEqual(r.warnings(), [])
        self.assert_image()

    def test_map_that_cannot_be_used(self):
        """Cut, merged or refused: everything is read then, and the image is right."""
        size = 64 * MB
        self.add_vm(disks=[self.disk_of(size, [(0, 4 * MB), (40 * MB, 4 * MB)])])
        for how in ("fail", "cut"):
            self.knob("t0", how)
            r = self.run_mirror("web 01", "--full")
            self.assertEqual(r.disk()["read"], size, how)
            self.assertEqual(r.disk()["sampled"], 0)
            self.assert_image()
        self.knob("t0", "per-block")
        r = self.run_mirror("web 01", "--full")
        self.assertEqual(r.disk()["read"], 8 * MB)
        self.assert_image()

    def test_map_that_lies(self):
        """A claimed hole that holds data: said loudly, all is read, the image is right."""
        size = 96 * MB
        self.add_vm(disks=[self.disk_of(size, [(0, 4 * MB), (40 * MB, 4 * MB)])])
        self.knob("t0", "lie")
        r = self.run_mirror("web 01", "--full")
        self.assertTrue(any("scsi0:0" in w and "everything is read" in w for w in r.warnings()),
                        str(r))
        self.assertEqual(r.disk()["read"], size)
        self.assert_image()
        # From then on this host's maps are not used, until a person takes the note away.
        r = self.run_mirror("web 01", "--full", "--data-channel", "ssh")
        self.assertEqual((r.disk()["read"], r.disk()["sampled"], r.warnings()), (size, 0, []))
        self.assert_image()
        notes = [n for n in os.listdir(self.state) if n.startswith("no-hole-maps-")]
        self.assertEqual(len(notes), 1)
        os.unlink(os.path.join(self.state, notes[0]))
        self.knob("t0", "ok")
        r = self.run_mirror("web 01")
        self.assertEqual((r.disk()["changed"], r.warnings()), (0, []))
        self.assertLess(r.disk()["read"], size)

    def test_holes_by_seek(self):
        """Where SEEK_HOLE works, no map is needed."""
        self.knob("seek-hole", "on")
        self.knob("t0", "fail")
        size = 256 * MB
        self.add_vm(disks=[self.disk_of(size, [(0, 4 * MB), (200 * MB + 4096, 2 * MB)])])
        r = self.run_mirror("web 01")
        self.assertLess(r.disk()["read"], 8 * MB)
        self.assert_image()

    def test_odd_disks(self):
        """Sizes that are no multiple of a block, a disk without anything, every bus."""
        self.add_vm(disks=[
            self.disk_of(5 * MB + 512, [(0, 5 * MB + 512)], slot="scsi0:0"),
            {"size": 512, "content": {"seed": 9, "share": 1}, "slot": "scsi1:3"},
            {"size": 32 * MB, "content": {"kind": "empty"}, "slot": "sata0:0"},
            self.disk_of(3 * MB, seed=5, slot="nvme0:1"),
            self.disk_of(2 * MB, seed=6, slot="ide0:0")])
        r = self.run_mirror("web 01")
        for slot in ("scsi0:0", "scsi1:3", "sata0:0", "nvme0:1", "ide0:0"):
            self.assert_image(slot=slot)
            self.check_descriptor(slot)
        self.assertEqual(stored_bytes(self.image("sata0:0")), 0)
        self.run_mirror("web 01")
        self.assert_checked()

    def check_descriptor(self, slot):
        vmdk = self.image(slot)[:-4] + ".vmdk"
        done = subprocess.run(["qemu-img", "compare", "-f", "vmdk", "-F", "raw", vmdk,
                               self.truth("web 01", slot)], capture_output=True, text=True,
                              check=False)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_summary(self):
        """Every field that the command line's contract names, and their sums."""
        self.add_vm(disks=[self.disk_of(32 * MB, [(0, 8 * MB), (20 * MB, MB)]),
                           self.disk_of(4 * MB, [(0, MB)], seed=2)])
        first = self.run_mirror("web 01")
        s = first.summary
        self.assertEqual((s["type"], s["command"], s["exit_code"]), ("summary", "mirror", 0))
        self.assertGreater(s["seconds"], 0)
        vm = self.host.vm("web 01")
        v = first.vm()
        self.assertEqual(
            {k: v[k] for k in ("vm", "vmid", "generation", "outcome", "exit_code", "consistency",
                               "data_channel", "read_path", "change_source")},
            {"vm": "web 01", "vmid": vm["vmid"], "generation": 1, "outcome": "ok", "exit_code": 0,
             "consistency": "quiesced", "data_channel": "tcp", "read_path": "agent",
             "change_source": "full"})
        self.assertRegex(v["uuid"], r"^[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}$")
        self.assertRegex(v["id"], HEX_ID)
        self.assertEqual([d["disk"] for d in v["disks"]], ["scsi0:0", "scsi0:1"])
        for d, size, data in zip(v["disks"], (32 * MB, 4 * MB), (9 * MB, MB)):
            self.assertEqual(d["capacity"], size)
            self.assertEqual(d["read_path"], "agent")
            self.assertEqual((d["allocated"], d["read"], d["changed"]), (data, data, data))
            self.assertEqual(d["sampled"], size - data)     # less than 64 MiB of holes: all
            self.assertLessEqual(data, d["sent"])           # random bytes do not shrink
            self.assertLess(d["sent"], data + data // 100 + BLOCK)
            self.assertGreaterEqual(d["stored"], data)
            self.assertLess(d["stored"], data + data // 100 + BLOCK)
            self.assertRegex(d["root"], HEX_ID)
            self.assertGreaterEqual(d["seconds"], 0)
        second = self.run_mirror("web 01")
        self.assertEqual(second.vm()["change_source"], "digest")
        for a, b in zip(v["disks"], second.vm()["disks"]):
            self.assertEqual(a["root"], b["root"])
            self.assertEqual((b["read"], b["changed"], b["sent"], b["stored"]), (a["read"], 0, 0, 0))
        self.assertNotEqual(v["id"], second.vm()["id"])
        item, = self.list()
        self.assertEqual((item["generation"], item["id"], item["uuid"], item["vm"], item["kind"],
                          item["outcome"], item["host"]),
                         (2, second.vm()["id"], v["uuid"], "web 01", "changed", "ok",
                          self.host.address))
        self.assertEqual([(d["root"], d["read"]) for d in item["disks"]],
                         [(d["root"], d["read"]) for d in second.vm()["disks"]])
        self.assertEqual((item["size"], item["read"], item["sent"], item["stored"]),
                         (36 * MB, 10 * MB, 0, 0))
        self.assertRegex(item["time"], r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$")

    def test_two_runs_at_once(self):
        """Two receivers, two VMs of one host: other ports, no wait for each other."""
        for n in (1, 2):
            self.add_vm("vm %d" % n, [self.disk_of(32 * MB, seed=n)])
        running = [self.start_mirror("vm %d" % n, "--bwlimit", "20M") for n in (1, 2)]
        for n, one in enumerate(running, 1):
            r = one.end()
            self.assertEqual(r.code, 0, str(r))
            self.assertEqual(r.vm()["data_channel"], "tcp")
            self.assert_image("vm %d" % n)

    def test_restore(self):
        self.add_vm(disks=[self.disk_of(16 * MB), self.disk_of(4 * MB, seed=2)])
        self.run_mirror("web 01")
        out = self.path("out")
        self.vmferry("restore", "web 01@latest", "--mirror", self.mirror, "--output", out)
        for slot in ("scsi0-0", "scsi0-1"):
            self.assert_same(os.path.join(out, "disk-%s.raw" % slot),
                             self.truth("web 01", slot.replace("-", ":")))
        self.assertFalse(os.path.exists(os.path.join(out, ".vmferry")))
        self.assertIn("web 01.vmx", os.listdir(os.path.join(out, "config")))
        self.vmferry("restore", "web 01@1", "--mirror", self.mirror, "--output", out, code=11)

    def test_configuration(self):
        """The files that define the VM come along."""
        vmid = self.add_vm()
        self.run_mirror("web 01")
        config = os.path.join(self.mirror, "web 01", "config")
        self.assertEqual({"web 01.nvram", "web 01.vmdk", "web 01.vmx", "web 01.vmxf"},
                         set(os.listdir(config)) - {"web 01.vmsd"})
        folder = self.host.root + os.path.dirname(self.host.vm(vmid)["vmx"])
        for name in ("web 01.nvram", "web 01.vmxf"):
            self.assert_same(os.path.join(config, name), os.path.join(folder, name))
        with open(os.path.join(config, "web 01.vmx"), encoding="utf-8") as f:
            vmx = f.read()
        self.assertIn('displayName = "web 01"', vmx)
        # As the VM is without our snapshot.
        self.assertIn('scsi0:0.fileName = "web 01.vmdk"', vmx)
        for name in os.listdir(config):
            with open(os.path.join(config, name), "rb") as f:
                self.assertNotIn(b"vmferry-", f.read(), name)


class On80(Writing, harness.MirrorTest):
    profile = "8.0"
    knobs = {"exec-installed-only": "0"}


class ByDd(harness.MirrorTest):
    """ESXi 8 as it comes: no program may run there that was not installed."""

    profile = "8.0"

    def test_writing_guest(self):
        Writing.mirrored(self, channel="ssh", path="ssh-dd")

    two_disks = Writing.two_disks

    def test_says_why(self):
        self.add_vm(disks=[self.disk_of(16 * MB, [(0, 4 * MB)])])
        r = self.run_mirror("web 01")
        self.assertEqual(r.vm()["outcome"], "ok")
        self.assertEqual(r.disk()["read_path"], "ssh-dd")
        self.assertEqual(r.disk()["read"], 4 * MB)
        said = [line for line in r.err.splitlines() if "dd" in line and "--allow-exec" in line]
        self.assertEqual(len(said), 1, r.err)
        self.assertIn("execInstalledOnly", said[0])
        self.assert_image()
        self.assertIn("refused", [how for how, _ in self.host.executed()])
        self.assertNotIn("run", [how for how, _ in self.host.executed()])
        # The host's policy is as it was.
        self.assertTrue(self.host.state()["exec_installed_only"])
        item, = self.list()
        self.assertEqual(item["read_path"], "ssh-dd")

    def test_odd_size_and_holes(self):
        self.add_vm(disks=[self.disk_of(33 * MB + 512, [(0, 3 * MB), (30 * MB, 3 * MB + 512)]),
                           {"size": 512, "content": {"seed": 9, "share": 1}}])
        r = self.run_mirror("web 01")
        self.assertEqual(r.disk()["sampled"], 27 * MB)
        self.assert_image(slot="scsi0:0")
        self.assert_image(slot="scsi0:1")
        self.scribble("web 01", "scsi0:0", [(5 * MB, 4096), (33 * MB, 512)], seed=3)
        r = self.run_mirror("web 01")
        self.assertEqual(r.disk()["changed"], BLOCK + 512)
        self.assert_image(slot="scsi0:0")


if __name__ == "__main__":
    harness.main()
