#!/usr/bin/env python3
"""--ask-first: blocks that another generation of the same host has are not sent."""

import os
import signal

import harness
from harness import BLOCK, MB, HostTest
from slow_link import SlowLink

SIZE = 24 * MB
PIECES = [(0, 12 * MB), (20 * MB, 2 * MB)]
DATA = 14 * MB
FEW = DATA // 100       # what questions about DATA cost at most


class AskFirst(HostTest):
    profile = "6.7"

    def add(self, name, seed=1):
        self.add_vm(name, [self.disk_of(SIZE, PIECES, seed=seed)])

    def slow_link(self, mbit):
        """A link, and the options to use it: agents reach the well-known ports only."""
        link = SlowLink(harness.mirror.private_address(1), (self.data_address, 31031), mbit=mbit,
                        port=31031)
        self.addCleanup(link.close)
        return link, ("--data-connect", link.address + ":31031", "--data-channel", "tcp")

    def back_up(self, name, *options):
        r = self.backup(name, *options)
        self.assert_generation(name + "@latest", name)
        return r

    def test_what_the_host_has_is_not_sent(self):
        for n in range(1, 4):
            self.add("vm %d" % n)
        self.assertGreater(self.backup("vm 1", "--ask-first", "yes").total("sent"), DATA)
        r = self.backup("vm 2")         # auto: the link is not slow
        self.assertEqual((r.total("sent"), r.total("changed")), (DATA, DATA))
        r = self.back_up("vm 3", "--ask-first", "yes")
        self.assertLess(r.total("sent"), FEW)
        self.assertEqual(r.total("changed"), DATA)
        self.assertLess(r.total("stored"), BLOCK)
        # A change is asked for as well, and the rest is compared as ever.
        self.scribble("vm 3", "scsi0:0", [(MB, MB)], seed=8)
        r = self.back_up("vm 3", "--ask-first", "yes")
        self.assertEqual(r.total("changed"), MB)
        self.assertTrue(MB < r.total("sent") < MB + FEW, str(r))
        self.assertEqual(r.vm()["change_source"], "digest")
        self.check("--read-data")
        r = self.backup("vm 3", "--full", "--ask-first", "yes", code=2)
        self.assertIn("--full", str(r))

    def test_auto_asks_where_the_link_is_slow(self):
        for n in range(1, 4):
            self.add("vm %d" % n)
        limit = ("--bwlimit", "10M")
        # The repository has nothing of the host: nobody asks for long.
        self.assertGreaterEqual(self.backup("vm 1", *limit).total("sent"), DATA)
        self.assertLess(self.back_up("vm 2", *limit).total("sent"), FEW)
        r = self.backup("vm 3", *limit, "--ask-first", "no")
        self.assertEqual(r.total("sent"), DATA)

    def test_auto_sees_that_the_link_is_slow(self):
        pieces = [(0, 32 * MB)]
        for n in range(1, 3):
            self.add_vm("vm %d" % n, [self.disk_of(32 * MB, pieces)])
        self.backup("vm 1")
        r = self.back_up("vm 2", *self.slow_link(80)[1])
        self.assertTrue(2 * MB < r.total("sent") < 28 * MB, str(r))

    def test_over_ssh_and_two_at_once(self):
        self.add("vm 1")
        self.add_vm("vm 2", [self.disk_of(SIZE, PIECES), self.disk_of(SIZE, PIECES)])
        self.back_up("vm 1")
        r = self.backup("vm 2", "--ask-first", "yes", "--data-channel", "ssh")
        self.assertLess(r.total("sent"), 2 * FEW)
        self.assert_generation("vm 2@1", "vm 2", slots=("scsi0:0", "scsi0:1"))

    def test_another_hosts_blocks_are_not_known(self):
        other = harness.mirror.Lookalike.start(profile="6.7")
        self.addCleanup(other.stop)
        self.add("vm 1")
        self.back_up("vm 1")
        other.add_vm({"name": "vm 1", "power": "off", "disks": [self.disk_of(SIZE, PIECES)]})
        here = self.target, self.host, self.known_hosts
        self.target = "%s:%d" % (other.address, other.port)
        self.host, self.known_hosts = other, other.known_hosts
        try:
            r = self.backup("vm 1", "--ask-first", "yes")
            self.assertGreater(r.total("sent"), DATA)
            self.assertLess(r.total("stored"), BLOCK)       # but stored once
        finally:
            self.target, self.host, self.known_hosts = here
        self.check("--read-data")

    def test_pruned_blocks_are_not_known(self):
        self.add("vm 1")
        self.back_up("vm 1")
        self.scribble("vm 1", "scsi0:0", [(0, 10 * MB)], seed=9)
        self.back_up("vm 1")
        self.on_repo("forget", "vm 1@1")
        self.on_repo("prune")
        self.add("vm 2")
        r = self.back_up("vm 2", "--ask-first", "yes")
        self.assertTrue(10 * MB < r.total("sent") < 10 * MB + FEW, str(r))
        self.check("--read-data")

    def test_encrypted(self):
        os.rename(self.repo, self.repo + "-plain")
        word = self.path("word")
        with open(os.open(word, os.O_WRONLY | os.O_CREAT, 0o600), "w", encoding="ascii") as f:
            f.write("pass\n")
        self.keys = ("--repo-password-file", word)
        self.init("--encrypt", *self.keys)
        for n in range(1, 4):
            self.add("vm %d" % n)
        self.backup("vm 1", *self.keys)
        r = self.backup("vm 2", *self.keys, "--bwlimit", "8M")     # auto is off
        self.assertGreaterEqual(r.total("sent"), DATA)
        r = self.backup("vm 3", *self.keys, "--ask-first", "yes")
        self.assertLess(r.total("sent"), FEW)
        self.assert_generation("vm 3@1", "vm 3")
        self.check("--read-data")

    def cut(self, stop):
        """Half of what vm 2 has is known; the run is cut while it sends the rest."""
        pieces = [(0, 30 * MB)]
        self.add_vm("vm 1", [self.disk_of(64 * MB, pieces)])
        self.backup("vm 1")
        self.add_vm("vm 2", [self.disk_of(64 * MB, pieces)])
        self.scribble("vm 2", "scsi0:0", [(30 * MB, 30 * MB)], seed=3)
        link, options = self.slow_link(100)
        running = self.start_backup("vm 2", "--ask-first", "yes", *options)
        self.assertIsNotNone(running.wait_sent(16 * MB))
        stop(running, link)
        return running.end()

    def test_stopped_and_resumed(self):
        r = self.cut(lambda running, link: running.signal(signal.SIGINT))
        self.assertEqual(r.code, 130, str(r))
        r = self.backup("vm 2", "--ask-first", "yes")
        self.assertLess(r.total("sent"), 20 * MB)
        self.assert_generation("vm 2@1", "vm 2")
        self.check("--read-data")

    def test_cut_connection(self):
        r = self.cut(lambda running, link: self.assertGreater(link.cut_all(), 0))
        self.assertEqual(r.code, 0, str(r))
        self.assertLess(r.total("sent"), 40 * MB)
        self.assert_generation("vm 2@1", "vm 2")
        self.check("--read-data")


class ByDd(HostTest):
    profile = "8.0"

    def test_without_agent(self):
        for n in range(1, 3):
            self.add_vm("vm %d" % n)
        self.backup("vm 1")
        r = self.backup("vm 2", "--ask-first", "yes")      # of no use: what is read has travelled
        self.assertEqual(r.vm()["read_path"], "ssh-dd")
        self.assert_generation("vm 2@1", "vm 2")


if __name__ == "__main__":
    harness.main()
