#!/usr/bin/env python3
"""Several VMs of a host at once, into a repository and into mirrors."""

import os
import shutil
import signal
import time

import harness
from harness import BLOCK, MB, HostTest

NAMES = ["vm 1", "vm 2", "vm 3", "vm 4"]


def node_bytes(capacity):
    """Of the one node of a small disk."""
    return 16 + 48 * (capacity // BLOCK)


class On67(HostTest):
    profile = "6.7"

    def add_vms(self, size=8 * MB, pieces=None):
        """Four VMs; the first two have a disk of the same content."""
        same = self.disk_of(size, pieces, seed=7)
        for n, name in enumerate(NAMES):
            disks = [same if n < 2 else self.disk_of(size, pieces, seed=20 + n)]
            if n == 3:
                disks.append(self.disk_of(2 * MB, [(0, MB)], seed=40))
            self.add_vm(name, disks)

    def slots(self, name):
        return ("scsi0:0", "scsi0:1") if name == NAMES[3] else ("scsi0:0",)

    def assert_ok(self, result):
        self.assertEqual([v["vm"] for v in result.summary["vms"]], NAMES)
        self.assertEqual({v["outcome"] for v in result.summary["vms"]}, {"ok"}, str(result))

    def assert_all(self, number):
        for name in NAMES:
            self.assert_generation("%s@%d" % (name, number), name, self.slots(name))

    def assert_host_clean(self):
        self.assertEqual(self.leftovers(), {"files": [], "processes": [], "snapshots": []})

    def most_at_once(self, events):
        """How many VMs were under way at the same time, by their status lines."""
        seen, ended, most = [], set(), 0
        for e in events:
            if e.get("type") != "status" or e.get("vm") is None:
                continue
            if e["vm"] not in seen:
                seen.append(e["vm"])
            if e.get("step") == "removing the snapshot":
                ended.add(e["vm"])
            most = max(most, len(set(seen) - ended))
        return most

    def test_repository(self):
        self.add_vms()
        first = self.backup(*NAMES, "--parallel", "3", "--data-channel", "tcp")
        self.assert_ok(first)
        self.assertIn(self.most_at_once(first.events), (2, 3))
        self.assertEqual({v["data_channel"] for v in first.summary["vms"]}, {"tcp"})
        self.assert_all(1)
        # What two of them share is stored once, whoever came first.
        changed = {n: sum(d["changed"] for d in first.vm(n)["disks"]) for n in NAMES}
        stored = {n: sum(d["stored"] for d in first.vm(n)["disks"]) for n in NAMES}
        self.assertEqual(changed["vm 1"], changed["vm 2"])
        self.assertLess(stored["vm 1"] + stored["vm 2"], changed["vm 1"] + 3 * BLOCK)
        stats = self.on_repo("stats").array[-1]
        self.assertEqual(stats["blocks_plain"],
                         sum(changed[n] for n in NAMES[1:]) + self.config_bytes() +
                         4 * node_bytes(8 * MB) + node_bytes(2 * MB))
        self.scribble("vm 2", "scsi0:0", [(MB, 4096)], seed=3)
        second = self.backup(*NAMES, "--parallel", "4")
        self.assert_ok(second)
        self.assertEqual(second.total("changed"), BLOCK)
        self.assertEqual([v["generation"] for v in second.summary["vms"]], [2] * 4)
        self.assert_all(2)
        self.check("--read-data")
        self.assert_host_clean()

    def config_bytes(self):
        """Plain bytes of the configuration files' blocks, each counted once."""
        blocks = {}
        for name in NAMES:
            out = self.restore(name + "@1")
            folder = os.path.join(out, "config")
            for file in os.listdir(folder):
                with open(os.path.join(folder, file), "rb") as f:
                    while data := f.read(BLOCK):
                        blocks[data] = len(data)
            shutil.rmtree(out)
        return sum(blocks.values())

    def test_mirrors(self):
        self.add_vms()
        first = self.run_mirror(*NAMES, "--parallel", "3")
        self.assert_ok(first)
        for name in NAMES:
            for slot in self.slots(name):
                self.assert_image(name, slot, folder=name)
        self.scribble("vm 3", "scsi0:0", [(MB, 4096)], seed=3)
        self.assert_ok(self.run_mirror(*NAMES, "--parallel", "2", "--keep", "1"))
        for name in NAMES:
            for slot in self.slots(name):
                self.assert_image(name, slot, folder=name)
            self.assert_checked(name)
        self.assert_host_clean()

    def test_one_fails(self):
        """The others go on, and their results keep their places."""
        self.add_vms()
        r = self.backup("vm 1", "nobody", "vm 2", "vm 3", "vm 4", "--parallel", "3",
                        "--only-disk", "scsi0:0", code=3)
        self.assertEqual({v["vm"]: v["outcome"] for v in r.summary["vms"]},
                         dict({n: "ok" for n in NAMES}, nobody="failed"))
        # The repository's lock of one VM is held by somebody else.
        other = self.start_backup("vm 2", "--compress", "19", "--bwlimit", "100k", "--full")
        other.wait_sent(1)
        r = self.backup(*NAMES, "--parallel", "4", "--lock-wait", "0", code=3)
        self.assertEqual([v["outcome"] for v in r.summary["vms"]], ["ok", "failed", "ok", "ok"])
        self.assertEqual(r.vm("vm 2")["exit_code"], 6)
        other.signal(signal.SIGINT)
        self.assertEqual(other.end().code, 130)
        self.assert_host_clean()
        self.check("--read-data")

    def test_stopped(self):
        """Ctrl-C in the middle: all end, no snapshot stays, what came counts in the next run."""
        self.add_vms(64 * MB, [(0, 48 * MB)])
        running = self.start_backup(*NAMES, "--parallel", "3", "--bwlimit", "20M", "--only-disk",
                                    "scsi0:0")
        running.wait_for(lambda e: e.get("disk") == "scsi0:0" and e.get("sent", 0) > 2 * MB)
        running.signal(signal.SIGINT)
        r = running.end()
        self.assertEqual(r.code, 130, str(r))
        self.assertEqual(self.generations(), [])
        self.assert_host_clean()
        self.check()
        r = self.backup(*NAMES, "--parallel", "4", "--only-disk", "scsi0:0")
        self.assert_ok(r)
        self.assert_all_first_disks()
        self.check("--read-data")

    def test_killed(self):
        """Nobody cleans up: the next run takes all snapshots and agents away, and goes on."""
        self.add_vms(64 * MB, [(0, 48 * MB)])
        words = (*NAMES, "--parallel", "4", "--only-disk", "scsi0:0")
        running = self.start_backup(*words, "--bwlimit", "20M")
        for name in NAMES:
            running.wait_for(lambda e, n=name: e.get("vm") == n and e.get("sent", 0) > MB)
        running.signal(signal.SIGKILL)
        running.end()
        self.assertEqual([len(self.host.snapshots(n)) for n in NAMES], [1] * 4)
        self.assertEqual(self.generations(), [])
        self.assert_ok(self.backup(*words))
        self.assert_all_first_disks()
        self.assert_host_clean()
        self.check("--read-data")

    def assert_all_first_disks(self):
        for name in NAMES:
            self.assert_generation("%s@1" % name, name)

    def test_rate(self):
        """--bwlimit is for all of them together."""
        self.add_vms(8 * MB, [(0, 6 * MB)])
        began = time.monotonic()
        r = self.backup(*NAMES[:3], "--parallel", "3", "--bwlimit", "2M", "--compress", "none",
                        "--ask-first", "no")
        seconds = time.monotonic() - began
        self.assertEqual(r.total("sent"), 18 * MB)
        self.assertGreater(seconds, 18 / 2 - 0.5)

    def test_one_connection_is_cut(self):
        """One SSH connection dies under its data: that VM connects again, the others go on."""
        proxy = harness.load("proxy", os.path.join(harness.HERE, "..", "mirror", "proxy.py")).Proxy(
            "127.0.0.1", (self.host.address, self.host.port), back=True)
        self.addCleanup(proxy.close)
        known = self.path("known_hosts")
        with open(self.host.known_hosts, encoding="ascii") as f, \
                open(known, "w", encoding="ascii") as out:
            out.write(f.read().replace(":%d" % self.host.port, ":%d" % proxy.port))
        self.known_hosts = known
        self.target = "127.0.0.1:%d" % proxy.port
        self.add_vms(16 * MB, [(0, 12 * MB)])
        proxy.limits.append(6 * MB)
        r = self.backup(*NAMES[:3], "--parallel", "3", "--data-channel", "ssh", "--compress", "none")
        self.assertEqual(len(proxy.fired), 1)
        self.assertEqual({v["outcome"] for v in r.summary["vms"]}, {"ok"})
        self.assertEqual(r.err.count("the session with the host ended"), 1, r.err)
        for name in NAMES[:3]:
            self.assert_generation("%s@1" % name, name)
        self.assert_host_clean()
        self.check("--read-data")


class Usage(harness.LocalTest):
    def test_values(self):
        for value in ("0", "17", "x", ""):
            self.vmferry("backup", "host", "vm", "--repo", self.repo, "--parallel", value, code=2)
        self.vmferry("backup", "--file", "a=b", "--parallel", "2", "--repo", self.repo, code=2)


if __name__ == "__main__":
    harness.main()
