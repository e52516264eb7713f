#!/usr/bin/env python3
"""The SSH connection cut, silent or gone with its agent, at many points: the run goes on, or the
next one does; always the same image."""

import shutil

import harness
from harness import MB
from proxy import Proxy

POINTS = 64
WINDOW = 8 * MB         # what may be under way for one disk


class ControlCuts(harness.MirrorTest):
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
        self.slots = ("scsi0:0", "scsi0:1")
        self.size = 16 * MB

    def add_two(self):
        self.add_vm(disks=[self.disk_of(self.size, [(0, self.size)], seed=n)
                           for n in range(len(self.slots))])

    def change_two(self, run):
        for n, slot in enumerate(self.slots):
            self.scribble("web 01", slot, [(k * MB + run * 65536 % MB // 2, MB // 2)
                                           for k in range(self.size // MB)], seed=(run + 1) * 100 + n)

    def assert_images(self, message):
        for slot in self.slots:
            self.assert_image(slot=slot, message=message)
        self.assertEqual(self.host.snapshots("web 01"), [])

    def cut_runs(self, total, before):
        """16 cuts in each run: each connection carries a small part of the data, then dies."""
        hit = 0
        run = 0
        while hit < POINTS:
            run += 1
            self.assertLess(run, 20)
            before(run)
            self.proxy.reset_counts()
            first = MB + run * total // 100
            self.proxy.limits.extend([first] + [total // 24 + run * 50000] * 15)
            r = self.run_mirror("web 01", "--data-channel", "ssh", "--compress", "none", code=None)
            self.assertEqual(r.code, 0, "%s\n%s" % (self.proxy.fired, r))
            self.assertGreaterEqual(len(self.proxy.fired), 10)
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
        self.cut_runs(self.proxy.carried, lambda run: shutil.rmtree(self.mirror))
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
        for n in range(10):
            self.proxy.reset_counts()
            self.proxy.limits.extend([int((n + 0.5) * total / 10)])
            self.change_two(n + 2)
            r = self.run_mirror("web 01", code=None)
            codes.append(r.code)
            self.assertIn(r.code, (0, 9, 12), str(r))
            if r.code == 0:
                self.assert_images("after a cut at %s" % self.proxy.fired)
            else:
                self.vmferry("check", "--json", "--mirror", self.mirror)
        self.run_mirror("web 01")
        self.assert_images("after cuts all over")
        self.assertIn(12, codes)
        self.assert_checked()


if __name__ == "__main__":
    harness.main()
