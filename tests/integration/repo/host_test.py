#!/usr/bin/env python3
"""VMs of a host in a repository: first, changed and unchanged, several VMs, cuts and resumes."""

import os
import signal

import harness
from harness import BLOCK, MB, HostTest


class On67(HostTest):
    profile = "6.7"

    def test_first_unchanged_changed(self):
        self.add_vm(disks=[self.disk_of(32 * MB, [(0, 8 * MB), (20 * MB, MB)]),
                           self.disk_of(4 * MB, [(0, MB)], seed=2)])
        slots = ("scsi0:0", "scsi0:1")
        first = self.backup("web 01", "--tag", "first")
        vm = first.vm()
        self.assertEqual((vm["generation"], vm["outcome"], vm["change_source"], vm["data_channel"],
                          vm["read_path"]), (1, "ok", "full", "tcp", "agent"))
        self.assertEqual([d["changed"] for d in vm["disks"]], [9 * MB, MB])
        self.assertGreaterEqual(first.total("stored"), 10 * MB)
        self.assert_generation("web 01@1", slots=slots)
        second = self.backup("web 01")
        self.assertEqual(second.vm()["change_source"], "digest")
        self.assertEqual([second.total(f) for f in ("changed", "sent", "stored")], [0, 0, 0])
        self.assertEqual([d["root"] for d in second.vm()["disks"]],
                         [d["root"] for d in vm["disks"]])
        was = self.truth("web 01", name="was")
        self.scribble("web 01", "scsi0:0", [(3 * MB, 4096), (30 * MB, 512)], seed=4)
        self.scribble("web 01", "scsi0:1", [(0, 512 << 10)])
        third = self.backup("web 01")
        self.assertEqual([d["changed"] for d in third.vm()["disks"]], [2 * BLOCK, 512 << 10])
        self.assertLess(third.total("stored"), 3 * BLOCK)
        self.assert_generation("web 01@3", slots=slots)
        out = self.restore("web 01@2", "--only-disk", "scsi0:0")
        self.assert_same(os.path.join(out, "disk-scsi0-0.raw"), was)
        out = self.restore("web 01@latest")
        self.assertIn("web 01.vmx", os.listdir(os.path.join(out, "config")))
        self.assertEqual([g["kind"] for g in self.generations()], ["full", "changed", "changed"])
        self.assertEqual({g["uuid"] for g in self.generations()}, {vm["uuid"]})
        self.on_repo("forget", "--keep-tag", "first", "--keep-last", "1")
        self.on_repo("prune")
        self.assertEqual([g["generation"] for g in self.generations()], [1, 3])
        self.assert_generation("web 01@3", slots=slots)
        self.check("--read-data")

    def test_two_vms_and_one_that_is_not_there(self):
        same = self.disk_of(16 * MB)
        for name in ("vm 1", "vm 2"):
            self.add_vm(name, [same])
        r = self.backup("vm 1", "nobody", "vm 2", code=3)
        self.assertEqual({v["vm"]: v["outcome"] for v in r.summary["vms"]},
                         {"vm 1": "ok", "vm 2": "ok", "nobody": "failed"})
        self.assertGreaterEqual(r.disk(vm="vm 1")["stored"], 9 * MB)
        self.assertLess(r.disk(vm="vm 2")["stored"], BLOCK)
        for name in ("vm 1", "vm 2"):
            self.assert_generation(name + "@1", name)
        self.check("--read-data")

    def test_ssh(self):
        self.add_vm()
        self.backup("web 01", "--data-channel", "ssh")
        self.assert_generation("web 01@1")

    def test_dry_run(self):
        self.add_vm()
        before = sorted(os.listdir(self.repo))
        r = self.backup("web 01", "--dry-run")
        self.assertEqual(r.vm()["outcome"], "skipped")
        self.assertEqual((self.generations(), self.packs()), ([], []))
        self.assertEqual(sorted(set(os.listdir(self.repo)) - {"locks"}),
                         sorted(set(before) - {"locks"}))
        self.assertEqual(r.vm()["change_source"], "full")
        self.backup("web 01")
        r = self.backup("web 01", "--dry-run")
        self.assertIn("parent generation 1", r.err)
        self.assertEqual((r.vm()["change_source"], r.disk()["capacity"]), ("digest", 16 * MB))
        self.assertEqual(len(self.generations()), 1)

    def test_left_out_disk(self):
        self.add_vm(disks=[self.disk_of(8 * MB), self.disk_of(8 * MB, seed=2)])
        self.backup("web 01", "--only-disk", "scsi0:0")
        self.assertEqual([d["of_generation"] for d in self.generations()[0]["disks"]], [1, 0])
        self.assert_generation("web 01@1")
        self.backup("web 01")
        self.backup("web 01", "--exclude-disk", "scsi0:1")
        self.assertEqual([d["of_generation"] for d in self.generations()[2]["disks"]], [3, 2])
        self.assert_generation("web 01@3", slots=("scsi0:0", "scsi0:1"))

    def test_vanished_repository(self):
        """Found before the host is touched."""
        self.add_vm()
        os.rename(self.repo, self.repo + "-away")
        before = len(self.host.calls("vim-cmd"))
        r = self.backup("web 01", code=2)
        self.assertFalse(os.path.exists(self.repo), str(r))
        self.assertEqual(len(self.host.calls("vim-cmd")), before)

    def cut(self, number):
        self.add_vm(disks=[self.disk_of(48 * MB, [(0, 48 * MB)])])
        running = self.start_backup("web 01", "--bwlimit", "20M")
        self.assertIsNotNone(running.wait_sent(24 * MB))
        running.signal(number)
        return running.end()

    def test_stopped_and_resumed(self):
        r = self.cut(signal.SIGINT)
        self.assertEqual(r.code, 130, str(r))
        self.assertEqual(self.generations(), [])
        self.assertEqual(self.host.leftovers()["snapshots"], [])
        r = self.backup("web 01")
        self.assertEqual(r.vm()["generation"], 1)
        self.assertLess(r.disk()["sent"], 40 * MB)      # of 48: what was durable counted as held
        self.assert_generation("web 01@1")
        self.check("--read-data")

    def test_killed(self):
        r = self.cut(signal.SIGKILL)
        self.assertEqual(r.code, -signal.SIGKILL)
        self.check()
        r = self.backup("web 01")
        self.assert_generation("web 01@1")
        self.check("--read-data")
        self.cleanup()

    def test_into_a_full_disk(self):
        place = self.path("small")
        os.mkdir(place)
        harness.mount("-t", "tmpfs", "-o", "size=80m", "tmpfs", place)
        self.addCleanup(harness.subprocess.run, ["umount", "-l", place], check=True)
        self.repo = os.path.join(place, "repo")
        self.init()
        self.add_vm(disks=[self.disk_of(48 * MB, [(0, 48 * MB)])])
        r = self.backup("web 01", code=8)
        self.assertEqual(r.vm()["outcome"], "failed")
        self.assertEqual(self.host.leftovers()["snapshots"], [])
        self.check()
        harness.mount("-o", "remount,size=300m", place)
        self.backup("web 01")
        self.assert_generation("web 01@1")


class ByDd(HostTest):
    profile = "8.0"

    def test_without_agent(self):
        self.add_vm()
        r = self.backup("web 01")
        self.assertEqual((r.vm()["read_path"], r.vm()["outcome"]), ("ssh-dd", "ok"))
        self.assert_generation("web 01@1")


if __name__ == "__main__":
    harness.main()
