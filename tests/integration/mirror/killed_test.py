#!/usr/bin/env python3
"""The receiver killed at any point: no wrong image, a new run goes on, `cleanup` takes all away."""

import os
import signal
import time

import harness
from harness import MB
from proxy import Proxy

CHECKPOINT = 256 * MB


class Killed(harness.MirrorTest):

    def setUp(self):
        super().setUp()
        self.slots = ("scsi0:0", "scsi0:1")
        self.size = 12 * MB

    def add_two(self):
        self.add_vm(disks=[self.disk_of(self.size, [(0, self.size)], seed=n)
                           for n in range(len(self.slots))])

    def change(self, run):
        for n, slot in enumerate(self.slots):
            self.scribble("web 01", slot, [(k * MB, MB // 2) for k in range(self.size // MB)],
                          seed=(run + 1) * 100 + n)

    def kill_at(self, point):
        """Start a run, kill it at a step or when so much was sent."""
        slow = ("--bwlimit", "24M") if isinstance(point, int) else ()
        running = self.start_mirror("web 01", *slow)
        if isinstance(point, int):
            running.wait_sent(point)
        else:
            step, delay = point
            running.wait_step(step)
            time.sleep(delay)
        running.signal()
        return running.end()

    points = [("placing the agent", 0.05), ("taking the snapshot", 0),
              ("taking the snapshot", 0.05), 4 * MB, ("committing", 0),
              ("removing the snapshot", 0), ("updating the images", 0),
              ("updating the images", 0.02)]

    def assert_images(self, message):
        for slot in self.slots:
            self.assert_image(slot=slot, message=message)

    def test_first_mirror(self):
        self.add_two()
        killed = 0
        for n, point in enumerate(self.points):
            self.mirror = self.path("mirror-%d" % n)
            killed += self.kill_at(point).code == -signal.SIGKILL
            folder = os.path.join(self.mirror, "web 01")
            if os.path.exists(folder):      # there, or not at all
                self.assert_images("killed at %s" % (point,))
                self.assert_checked()
            self.run_mirror("web 01")
            self.assert_images("killed at %s, then again" % (point,))
            self.assertEqual(self.host.snapshots("web 01"), [])
        self.assertGreaterEqual(killed, len(self.points) - 2)
        self.assertEqual(self.leftovers()["files"], [])

    def test_refresh(self):
        self.add_two()
        self.run_mirror("web 01", "--keep", "2")
        killed = 0
        for n, point in enumerate(self.points):
            old = [self.truth("web 01", s, name="old-" + s) for s in self.slots]
            generations = len(self.list())
            self.change(n)
            killed += self.kill_at(point).code == -signal.SIGKILL
            # Offline: either as before, or the new state; `check` finishes what was committed.
            self.assert_checked()
            newest = self.list()[-1]["generation"]
            for slot, was in zip(self.slots, old):
                if newest == self.last:
                    self.assert_same(self.image(slot), was, "killed at %s" % (point,))
            r = self.run_mirror("web 01")
            self.assert_images("killed at %s, then again" % (point,))
            self.assertEqual(self.host.snapshots("web 01"), [])
            self.assertLessEqual(generations, 3)
            self.last = r.vm()["generation"]
        self.assertGreaterEqual(killed, len(self.points) - 2)
        self.assert_checked()
        self.assertEqual(self.leftovers()["files"], [])

    last = 1


class Resumed(harness.MirrorTest):
    """What was durable is not sent again."""

    size = 352 * MB
    kill_at = 300 * MB

    def big(self):
        """Bytes that do not shrink, made fast."""
        path = self.path("big")
        with open("/dev/urandom", "rb") as r, open(path, "wb") as f:
            for _ in range(self.size // (16 * MB)):
                f.write(r.read(16 * MB))
        return path

    def killed_and_resumed(self, message):
        proxy = Proxy(harness.private_address(1), (self.data_address, 31031), port=31031)
        self.addCleanup(proxy.close)
        options = ("--compress", "none", "--data-listen", self.data_address + ":31031",
                   "--data-connect", proxy.address + ":31031")
        running = self.start_mirror("web 01", *options, "--bwlimit", "128M")
        event = running.wait_sent(self.kill_at)
        self.assertIsNotNone(event, "it was over too soon")
        running.signal()
        self.assertEqual(running.end().code, -signal.SIGKILL)
        proxy.reset_counts()
        r = self.run_mirror("web 01", *options)
        # The first checkpoint was at 256 MiB: only what lies behind it comes again.
        self.assertGreater(event["sent"], CHECKPOINT)
        for sent in (r.disk()["sent"], proxy.carried):
            self.assertLess(sent, self.size - CHECKPOINT + 16 * MB, message)
        self.assert_image(message=message)
        proxy.close()
        return r

    def test_first_mirror_and_refresh(self):
        raw = self.big()
        self.add_vm(disks=[{"size": self.size, "content": {"file": raw}}])
        self.killed_and_resumed("first")
        os.unlink(raw)
        raw = self.big()
        self.host.ask("guest-write-image", vm="web 01", slot="scsi0:0", path=raw)
        self.killed_and_resumed("refresh")
        self.assert_checked()


class CleanedUp(harness.MirrorTest):

    def killed_while_reading(self, vm="web 01"):
        running = self.start_mirror(vm, "--bwlimit", "8M")
        running.wait_sent(MB)
        running.signal()
        running.end()

    def agent_folders(self):
        return [f for f in self.leftovers()["files"] if ".vmferry-" in f]

    def test_cleanup(self):
        """Snapshot and agent of a killed run go; another's snapshot of any name stays."""
        self.add_vm(disks=[self.disk_of(24 * MB, [(0, 24 * MB)])])
        self.add_vm("other")
        foreign = "vmferry-0123456789abcdef-run-" + "f" * 32
        self.host.ask("snapshot-create", vm="other", name=foreign)
        self.host.ask("snapshot-create", vm="other", name="before the update")
        self.killed_while_reading()
        self.assertEqual(len(self.host.snapshots("web 01")), 1)
        self.assertTrue(self.agent_folders())
        # A dry run only tells.
        self.cleanup("--dry-run")
        self.assertEqual(len(self.host.snapshots("web 01")), 1)
        r = self.cleanup()
        self.assertEqual(self.host.snapshots("web 01"), [])
        self.assertEqual(self.agent_folders(), [])
        self.assertEqual({i["what"] for i in r.summary["items"] if i["result"] == "removed"},
                         {"agent", "snapshot"})
        self.assertEqual([s["name"] for s in self.host.snapshots("other")],
                         [foreign, "before the update"])
        self.assertEqual([s["token"] for s in r.summary["snapshots"]], ["f" * 32])
        self.assertEqual(self.cleanup().summary["items"], [])
        # By name, one of another receiver.
        self.cleanup("--foreign", "f" * 32)
        self.assertEqual([s["name"] for s in self.host.snapshots("other")], ["before the update"])
        self.run_mirror("web 01")
        self.assert_image()

    def test_foreign_snapshot_above_ours(self):
        """A user took a snapshot above the one that a killed run left: only ours goes."""
        self.add_vm(disks=[self.disk_of(24 * MB, [(0, 24 * MB)])])
        self.killed_while_reading()
        self.scribble("web 01", "scsi0:0", [(MB, MB)], seed=4)
        self.host.ask("snapshot-create", vm="web 01", name="theirs")
        self.scribble("web 01", "scsi0:0", [(2 * MB, MB)], seed=5)
        now = self.truth("web 01", snapshot=None, name="now")
        self.cleanup()
        self.assertEqual([s["name"] for s in self.host.snapshots("web 01")], ["theirs"])
        self.assert_same(self.truth("web 01", snapshot=None, name="later"), now)
        self.assertEqual(self.agent_folders(), [])

    def test_live_run_is_left_alone(self):
        self.add_vm(disks=[self.disk_of(24 * MB, [(0, 24 * MB)])])
        running = self.start_mirror("web 01", "--bwlimit", "3M")
        running.wait_sent(MB)
        r = self.cleanup()
        self.assertEqual({i["result"] for i in r.summary["items"]}, {"in-use"})
        self.assertEqual(len(self.host.snapshots("web 01")), 1)
        self.assertEqual(running.end().code, 0)
        self.assert_image()

    def test_stopped_by_a_signal(self):
        """SIGINT and SIGTERM: 128 + n, and nothing is left."""
        self.add_vm(disks=[self.disk_of(24 * MB, [(0, 24 * MB)])])
        for number in (signal.SIGINT, signal.SIGTERM):
            running = self.start_mirror("web 01", "--bwlimit", "8M")
            running.wait_sent(MB)
            running.signal(number)
            r = running.end()
            self.assertEqual(r.code, 128 + number, str(r))
            self.assertEqual(r.summary["exit_code"], 128 + number)
            self.assertEqual(self.host.snapshots("web 01"), [])
            self.assertEqual(self.leftovers(), {"files": [], "processes": [], "snapshots": []})
        self.run_mirror("web 01")
        self.assert_image()

    def test_next_run_reaps(self):
        """A run of another VM takes away what was left on the host; one host's, not another's."""
        self.add_vm(disks=[self.disk_of(24 * MB, [(0, 24 * MB)])])
        self.add_vm("other")
        self.killed_while_reading()
        self.run_mirror("other")
        self.assertEqual(self.host.snapshots("web 01"), [])
        self.assertEqual(self.leftovers()["files"], [])

    def test_renumbered_host(self):
        """After a reboot the VM has another vmid: found by its uuid."""
        vmid = self.add_vm(disks=[self.disk_of(24 * MB, [(0, 24 * MB)])])
        self.killed_while_reading()
        self.host.reboot(renumber=True)
        self.assertNotEqual(self.host.vm("web 01")["vmid"], vmid)
        self.cleanup()
        self.assertEqual(self.host.snapshots("web 01"), [])
        self.assertEqual(self.leftovers()["files"], [])


if __name__ == "__main__":
    harness.main()
