#!/usr/bin/env python3
"""One disk of a generation to a block device: loop devices stand for it."""

import os
import random
import signal
import subprocess

import harness
from harness import MB, HostTest, LocalTest

SECTOR = 512


class Loop:
    """Loop devices full of rubbish; needs self.path."""

    def device(self, size, name="backing", sector=SECTOR):
        backing = self.path(name)
        with open(backing, "wb") as f:
            rubbish = random.Random(99).randbytes(MB)
            f.write((rubbish * (size // MB + 1))[:size])
        done = subprocess.run(["losetup", "-b", str(sector), "-f", "--show", backing], check=True,
                              capture_output=True)
        place = done.stdout.decode().strip()
        self.addCleanup(subprocess.run, ["losetup", "-d", place], check=False)
        return place, backing

    def assert_holds(self, device, truth, behind=b""):
        subprocess.run(["blockdev", "--flushbufs", device], check=True)
        with open(device, "rb") as f, open(truth, "rb") as t:
            self.assertTrue(f.read() == t.read() + behind, "the device does not hold the disk")


class OfRepository(LocalTest, Loop):
    def setUp(self):
        super().setUp()
        self.init()
        self.a = self.disk("a", 40 * MB + SECTOR, pieces=[(0, 3 * MB), (20 * MB + 5000, MB),
                                                          (40 * MB, SECTOR)])
        self.store("web=" + self.a)

    def to(self, device, *words, code=0):
        return self.on_repo("restore", "web@latest", "--output", device, *words, code=code)

    def test_content(self):
        for sector in (512, 4096):
            device, backing = self.device(41 * MB, "b%d" % sector, sector)
            with open(backing, "rb") as f:
                f.seek(40 * MB + SECTOR)
                behind = f.read()
            r = self.to(device, "--force-device")
            self.assertEqual(r.vm()["outcome"], "ok")
            self.assert_holds(device, self.a, behind)
            # Holes gave their room back where they could.
            self.assertLess(os.stat(backing).st_blocks * 512, 8 * MB)
        other = self.disk("other", 40 * MB + SECTOR, 8, [(MB, 30 * MB)])
        self.store("web=" + other)
        self.to(device, "--force-device")
        self.assert_holds(device, other, behind)
        # Where the device cannot zero by itself zeros are written.
        place = self.path("ramfs")
        os.mkdir(place)
        harness.mount("-t", "ramfs", "ramfs", place)
        self.addCleanup(subprocess.run, ["umount", "-l", place], check=True)
        plain, _ = self.device(40 * MB + SECTOR, "ramfs/backing")
        self.to(plain, "--force-device")
        self.assert_holds(plain, other)
        exact, _ = self.device(40 * MB + SECTOR, "exact")
        self.to(exact, "--force-device")
        self.assert_holds(exact, other)

    def test_refusals(self):
        device, backing = self.device(41 * MB)
        with open(backing, "rb") as f:
            was = f.read()
        r = self.to(device, code=11)
        self.assertIn("--force-device", r.err + r.out)
        small, _ = self.device(40 * MB, "small")
        self.to(small, "--force-device", code=8)
        self.to(device + "0", "--force-device", code=2)
        with open(backing, "rb") as f:
            self.assertTrue(f.read() == was, "a refused device was written to")
        self.refuse_mounted(device)

    def refuse_mounted(self, device):
        subprocess.run(["mkfs.ext4", "-q", "-F", device], check=True)
        place = self.path("mounted")
        os.mkdir(place)
        harness.mount(device, place)
        self.addCleanup(subprocess.run, ["umount", "-l", place], check=True)
        r = self.to(device, "--force-device", code=11)
        self.assertIn("in use", r.err + r.out)

    def test_stopped(self):
        """Stopped in the middle: the message says what the device holds; the next one is whole."""
        big = self.disk("big", 300 * MB, 3, [(0, 300 * MB)])
        self.store("big=" + big)
        device, _ = self.device(300 * MB)
        running = harness.Running(self.command(
            "restore", "--json", "--repo", self.repo, "big@1", "--output", device,
            "--force-device", "--progress"))
        running.wait_for(lambda line: line.get("type") == "status" and
                         0 < line.get("done", 0) < 300 * MB)
        running.signal(signal.SIGINT)
        r = running.end()
        self.assertEqual(r.code, 130, str(r))
        self.assertIn("a part of the disk only", r.out + r.err)
        self.on_repo("restore", "big@1", "--output", device, "--force-device")
        self.assert_holds(device, big)


class OfMirror(HostTest, Loop):
    profile = "6.7"

    def test_mirror(self):
        self.add_vm(disks=[self.disk_of(16 * MB, [(0, 2 * MB), (9 * MB, MB)])])
        self.run_mirror("web 01", "--keep", "1")
        first = self.truth("web 01", name="first")
        self.scribble("web 01", "scsi0:0", [(3 * MB, 4096), (0, 65536)], seed=4)
        self.run_mirror("web 01")
        device, _ = self.device(16 * MB)
        for gen, truth in (("1", first), ("2", self.truth("web 01", name="second"))):
            words = ("restore", "--json", gen, "--mirror", self.mirror, "--output", device)
            self.vmferry(*words, code=11)
            self.vmferry(*words, "--force-device")
            self.assert_holds(device, truth)


if __name__ == "__main__":
    harness.main()
