#!/usr/bin/env python3
"""Connections cut at many points of a first mirror and of a refresh: always the same image."""

import os
import shutil

import harness
from harness import MB
from proxy import Proxy

POINTS = 64
WINDOW = 8 * MB         # what may be under way for one disk
DISKS = 8
SIZE = 6 * MB


class Cuts(harness.MirrorTest):

    def setUp(self):
        super().setUp()
        self.slots = ["scsi0:%d" % n for n in range(DISKS)]

    def add_many(self):
        self.add_vm(disks=[self.disk_of(SIZE, [(0, SIZE)], seed=n) for n in range(DISKS)])

    def assert_images(self, message):
        for slot in self.slots:
            self.assert_image(slot=slot, message=message)
        self.assertEqual(self.host.snapshots("web 01"), [])

    def forget_mirror(self):
        shutil.rmtree(self.mirror)

    def points(self, top):
        """Spread over the whole, in an order that lets each run have early and late ones."""
        step = top / POINTS
        return [int((n * 13 % POINTS + 0.5) * step) for n in range(POINTS)]

    def change(self, run):
        """Half of each disk, in pieces."""
        for n, slot in enumerate(self.slots):
            self.scribble("web 01", slot, [(k * MB + run * 65536 % MB // 2, MB // 2)
                                           for k in range(SIZE // MB)], seed=(run + 1) * 100 + n)


class DataCuts(Cuts):
    """Between agent and receiver: the connection is opened again, by TCP and then by SSH."""

    def setUp(self):
        super().setUp()
        self.proxy = Proxy(harness.private_address(1), (self.data_address, 31031), port=31031)
        self.addCleanup(self.proxy.close)
        self.options = ("--compress", "none", "--data-listen", self.data_address + ":31031",
                        "--data-connect", self.proxy.address + ":31031")

    def cut_runs(self, top, before, after):
        """Runs until every point was hit."""
        todo = self.points(top)
        hit = []
        runs = 0
        while todo:
            runs += 1
            self.assertLess(runs, 40, "the points do not get hit: %s" % todo)
            before(runs)
            self.proxy.reset_counts()
            self.proxy.limits.extend(todo[:2 * DISKS])
            r = self.run_mirror("web 01", *self.options)
            fired = list(self.proxy.fired)
            self.assertGreater(len(fired), 0)
            self.assertGreaterEqual(r.err.count("died at byte"), len(fired), str(r))
            self.assert_images("after cuts at %s" % fired)
            for limit in fired:
                todo.remove(limit)
            hit += fired
            after(r)
        self.assertEqual(len(hit), POINTS)

    def test_first_mirror(self):
        self.add_many()
        self.run_mirror("web 01", *self.options)
        plain = self.proxy.carried
        self.assertGreater(plain, DISKS * SIZE)

        def after(r):
            self.assertEqual(r.total("sent"), DISKS * SIZE)
            self.assertEqual(r.total("changed"), DISKS * SIZE)

        self.cut_runs(plain / DISKS, lambda n: self.forget_mirror(), after)
        self.assert_checked()

    def test_refresh(self):
        self.add_many()
        self.run_mirror("web 01", *self.options)
        self.proxy.reset_counts()
        self.change(0)
        changed = self.run_mirror("web 01", *self.options).total("changed")
        plain = self.proxy.carried
        self.assertGreaterEqual(changed, DISKS * SIZE // 2)
        self.cut_runs(plain / DISKS, self.change,
                      lambda r: self.assertGreaterEqual(r.total("sent"), DISKS * SIZE // 2))
        self.assert_checked()

    def test_only_the_window_again(self):
        """Re-opened, a disk goes on from the last block that had come."""
        size = 80 * MB
        self.slots = self.slots[:1]
        self.add_vm(disks=[self.disk_of(size, [(0, size)])])
        self.run_mirror("web 01", *self.options, "--data-channel", "tcp")
        plain = self.proxy.carried
        self.forget_mirror()
        self.proxy.reset_counts()
        self.proxy.limits.extend([30 * MB, 25 * MB, 20 * MB])
        r = self.run_mirror("web 01", *self.options, "--data-channel", "tcp")
        self.assertEqual(len(self.proxy.fired), 3)
        self.assertEqual(r.vm()["data_channel"], "tcp")
        self.assert_images("")
        again = self.proxy.carried - plain
        self.assertLess(again, 3 * (WINDOW + MB))
        self.assertEqual(r.disk()["sent"], size)

    def test_auto_ends_up_with_ssh(self):
        """A data port that always dies is given up; one that never answers, too."""
        size = 24 * MB
        self.slots = self.slots[:1]
        self.add_vm(disks=[self.disk_of(size, [(0, size)])])
        self.proxy.limits.extend([MB] * 10)
        r = self.run_mirror("web 01", *self.options)
        self.assertEqual((r.vm()["data_channel"], self.proxy.connections), ("ssh", 2), str(r))
        self.assert_images("")
        self.forget_mirror()
        # Where nothing else is allowed, it goes on as long as each connection brings the disk on.
        r = self.run_mirror("web 01", *self.options, "--data-channel", "tcp")
        self.assertEqual((r.vm()["data_channel"], len(self.proxy.limits)), ("tcp", 0), str(r))
        self.assert_images("")
        self.forget_mirror()
        self.proxy.limits.extend([300] * 10)
        r = self.run_mirror("web 01", *self.options, "--data-channel", "tcp", code=12)
        self.proxy.limits.clear()
        self.assertEqual(self.host.snapshots("web 01"), [])
        self.assertFalse(os.path.exists(os.path.join(self.mirror, "web 01")))
        self.proxy.close()
        r = self.run_mirror("web 01", *self.options)
        self.assertEqual(r.vm()["data_channel"], "ssh")
        self.assertIn("no TCP data channel", r.err)
        self.assert_images("")


if __name__ == "__main__":
    harness.main()
