#!/usr/bin/env python3
"""Connections cut at many points of a first mirror and of a refresh: always the same image."""

import os
import shutil
import unittest

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
            self.proxy.limits.extend(todo[:DISKS])
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
        r = self.run_mirror("web 01", *self.options, "--data-channel", "tcp", code=12)
        self.assertEqual(self.host.snapshots("web 01"), [])
        self.assertFalse(os.path.exists(os.path.join(self.mirror, "web 01")))
        self.proxy.close()
        r = self.run_mirror("web 01", *self.options)
        self.assertEqual(r.vm()["data_channel"], "ssh")
        self.assertIn("no TCP data channel", r.err)
        self.assert_images("")


class ControlCuts(Cuts):
    """The SSH connection: connected again under the same snapshot while data comes; before and
    after that a failure, after which the next run is as if nothing had been."""

    def setUp(self):
        super().setUp()
        self.proxy = Proxy("127.0.0.1", (self.host.address, self.host.port), back=True)
        self.addCleanup(self.proxy.close)
        self.known_hosts = self.path("known_hosts")
        with open(self.host.known_hosts, encoding="ascii") as f, \
                open(self.known_hosts, "w", encoding="ascii") as out:
            out.write(f.read().replace(":%d" % self.host.port, ":%d" % self.proxy.port))
        self.target = "127.0.0.1:%d" % self.proxy.port
        self.slots = self.slots[:2]
        self.size = 16 * MB

    def add_two(self):
        self.add_vm(disks=[self.disk_of(self.size, [(0, self.size)], seed=n)
                           for n in range(len(self.slots))])

    def change_two(self, run):
        for n, slot in enumerate(self.slots):
            self.scribble("web 01", slot, [(k * MB + run * 65536 % MB // 2, MB // 2)
                                           for k in range(self.size // MB)], seed=(run + 1) * 100 + n)

    def cut_runs(self, total, before):
        """Eight cuts in each run: each connection carries about a tenth of the data, then dies."""
        hit = 0
        run = 0
        while hit < POINTS:
            run += 1
            self.assertLess(run, 20)
            before(run)
            self.proxy.reset_counts()
            first = MB + run * total // 100
            self.proxy.limits.extend([first] + [total // 14 + run * 50000] * 7)
            r = self.run_mirror("web 01", "--data-channel", "ssh", "--compress", "none", code=None)
            self.assertEqual(r.code, 0, "%s\n%s" % (self.proxy.fired, r))
            self.assertGreaterEqual(len(self.proxy.fired), 6)
            hit += len(self.proxy.fired)
            self.assert_images("after cuts at %s" % self.proxy.fired)
            # Each cut costs at most what was under way for the two disks, and a new session.
            again = self.proxy.carried - total
            self.assertLess(again, len(self.proxy.fired) * (2 * WINDOW + MB))
            self.assertEqual(len(self.created()), self.before + run)

    def created(self):
        return [c for c in self.host.calls("vim-cmd") if "vmsvc/snapshot.create" in c["argv"]]

    def test_first_mirror(self):
        self.add_two()
        self.run_mirror("web 01", "--data-channel", "ssh", "--compress", "none")
        self.before = len(self.created())
        self.cut_runs(self.proxy.carried, lambda run: self.forget_mirror())
        self.assert_checked()

    def test_refresh(self):
        self.add_two()
        self.run_mirror("web 01", "--data-channel", "ssh", "--compress", "none")
        self.proxy.reset_counts()
        self.change_two(0)
        self.run_mirror("web 01", "--data-channel", "ssh", "--compress", "none")
        self.before = len(self.created())
        self.cut_runs(self.proxy.carried, self.change_two)
        self.assert_checked()

    def test_data_by_tcp(self):
        """The control connection dies while the data goes by TCP."""
        self.add_two()
        running = self.start_mirror("web 01", "--bwlimit", "16M")
        for sent in (2 * MB, 8 * MB):
            running.wait_sent(sent)
            self.proxy.cut_all()
        r = running.end()
        self.assertEqual(r.code, 0, str(r))
        self.assert_images("")

    def test_frozen(self):
        """A connection that says nothing any more is given up; the agent at its other end has let
        go of the disks before the snapshot is removed."""
        self.add_two()
        running = self.start_mirror("web 01", "--data-channel", "ssh", "--bwlimit", "16M")
        running.wait_sent(2 * MB)
        self.assertEqual(self.proxy.freeze_all(), 1)
        r = running.end()
        self.assertEqual(r.code, 0, str(r))
        self.assertFalse(self.host.vm("web 01")["consolidation_needed"])
        self.assert_images("")

    def test_cut_while_removing(self):
        """The snapshot goes over a new connection."""
        self.add_two()
        self.knob("remove-delay", "0.5")
        for how in ("reset", "close"):
            running = self.start_mirror("web 01")
            running.wait_step("removing the snapshot")
            self.proxy.cut_all(how)
            r = running.end()
            self.assertEqual(r.code, 0, str(r))
            self.assert_images("")

    def test_agent_killed(self):
        self.add_two()
        running = self.start_mirror("web 01", "--bwlimit", "16M")
        running.wait_sent(2 * MB)
        agents = [p for p in self.host.ask("processes") if "vmferry-agent" in p["command"]]
        self.assertEqual(len(agents), 1)
        self.host.ask("kill", pid=agents[0]["pid"])
        r = running.end()
        self.assertEqual(r.code, 0, str(r))
        self.assert_images("")

    def test_around_the_transfer(self):
        """Cut anywhere else: exit 12 (or it did not matter), and the next run puts all right."""
        self.add_two()
        self.run_mirror("web 01")
        self.proxy.reset_counts()
        self.change_two(1)
        self.run_mirror("web 01")
        total = self.proxy.carried          # data goes by TCP: this is all control
        self.assertLess(total, MB)
        codes = []
        for n in range(12):
            self.proxy.reset_counts()
            self.proxy.limits.extend([int((n + 0.5) * total / 12)])
            self.change_two(n + 2)
            r = self.run_mirror("web 01", "--stall-timeout", "5s", code=None)
            codes.append(r.code)
            self.assertIn(r.code, (0, 9, 12), str(r))
            if r.code == 0:
                self.assert_images("after a cut at %s" % self.proxy.fired)
                continue
            self.vmferry("check", "--json", "--mirror", self.mirror)
            r = self.run_mirror("web 01")
            self.assert_images("after a cut at %s" % self.proxy.fired)
        self.assertIn(12, codes)
        self.assert_checked()


if __name__ == "__main__":
    harness.main()
